"""A distribution as a model's output in Keras's compile, fit, evaluate and predict: losses, metrics, dtypes, shapes."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import layers as tfpl

tfd, tfb = tfp.distributions, tfp.bijectors
X = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
QUIET = {"verbose": 0, "batch_size": 12}


def negative_log_likelihood(y, rv):
    assert isinstance(rv, tfd.Distribution)
    return -rv.log_prob(y)


def model_of(make, units=2, convert="mean", **kwargs) -> keras.Sequential:
    layer = tfpl.DistributionLambda(make, convert)
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(units, **kwargs), layer])


# The loss function gets the distribution, whatever its dtype is, and the labels as they are.

INTEGER = {
    "Bernoulli": (lambda t: tfd.Bernoulli(logits=t[..., 0]), [0, 1, 1] * 4),
    "Categorical": (lambda t: tfd.Categorical(logits=t), [0, 1, 1] * 4),
    "OneHotCategorical": (
        lambda t: tfd.OneHotCategorical(logits=t),
        np.eye(2, dtype="int32")[[0, 1, 1] * 4],
    ),
    "Poisson int": (
        lambda t: tfd.Independent(tfd.Poisson(log_rate=t), 1),
        np.arange(24).reshape(12, 2) % 3,
    ),
}


POLICIES = [
    ("float32", "sample"),
    ("mixed_float16", "mode"),
    ("mixed_bfloat16", "sample"),
    ("float64", "mode"),
]


@pytest.mark.parametrize(("policy", "convert"), POLICIES)
@pytest.mark.parametrize("name", INTEGER)
@pytest.mark.rows(6)
def test_integer_dtypes_and_policies(name, convert, policy):
    make, y = INTEGER[name]
    keras.config.set_dtype_policy(policy)
    model = model_of(make, convert=convert)
    model.compile("sgd", loss=negative_log_likelihood, metrics=[negative_log_likelihood])
    results = model.evaluate(X, np.array(y), return_dict=True, **QUIET)
    expected = -np.mean(model(X).log_prob(np.array(y)))
    np.testing.assert_allclose(
        [results["loss"], results["negative_log_likelihood"]], expected, rtol=1e-3
    )
    assert model.fit(X, np.array(y), epochs=3, **QUIET).history["loss"][-1] < expected


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_labels_arrive_undamaged(policy):
    keras.config.set_dtype_policy(policy)
    model = model_of(
        lambda t: tfd.Normal(0.0 * t + 70001.0, tf.ones([], t.dtype)), 1, use_bias=False
    )
    model.compile("sgd", loss=negative_log_likelihood)
    log_prob_of_the_mean = -0.5 * np.log(2.0 * np.pi)
    for y in (np.full([12, 1], 70001.0), np.full([12, 1], 70001)):
        np.testing.assert_allclose(model.evaluate(X, y, **QUIET), -log_prob_of_the_mean, rtol=1e-6)


def test_integer_labels_are_exact_up_to_16_million():
    """Keras casts labels to floatx for a loss: float32 holds each whole number up to 2**24, not the next one."""
    received = {}
    model = model_of(lambda t: tfd.Normal(t, 1.0), 1)
    model.compile(
        "sgd", loss=lambda y, rv: received.update(y=y) or -rv.log_prob(y), run_eagerly=True
    )
    model.evaluate(X[:3], np.array([[2**24 - 1], [2**24], [2**24 + 1]]), verbose=0)
    np.testing.assert_array_equal(received["y"], [[2**24 - 1], [2**24], [2**24]])


# Shapes: Keras brings labels and output to the same rank, so no loss is a table of all pairs.


SHAPES = {
    "y [B], rv batch [B]": ((12,), lambda t: tfd.Normal(t[..., 0], 1.0)),
    "y [B], rv batch [B,1]": ((12,), lambda t: tfd.Normal(t, 1.0)),
    "y [B], rv event [1]": ((12,), lambda t: tfd.Independent(tfd.Normal(t, 1.0), 1)),
    "y [B,1], rv batch [B]": ((12, 1), lambda t: tfd.Normal(t[..., 0], 1.0)),
    "y [B,1], rv batch [B,1]": ((12, 1), lambda t: tfd.Normal(t, 1.0)),
    "y [B,1], rv event [1]": ((12, 1), lambda t: tfd.Independent(tfd.Normal(t, 1.0), 1)),
    "y [B,1], mixture [B]": (
        (12, 1),
        lambda t: tfd.MixtureSameFamily(tfd.Categorical([0.0]), tfd.Normal(t, 1.0)),
    ),
    "y [B,1], flow [B]": ((12, 1), lambda t: tfb.Shift(t[..., 0])(tfd.Normal(0.0, 1.0))),
    "y [B,1], int [B]": ((12, 1), lambda t: tfd.Binomial(3.0, logits=t[..., 0])),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.rows(4)
def test_no_loss_of_all_pairs(name):
    (shape, make), weights = SHAPES[name], np.linspace(0.0, 2.0, 12)
    model, y = model_of(make, 1), np.arange(12) % 3.0
    model.compile("sgd", loss=negative_log_likelihood, metrics=["mse"])
    plain = tfpl.DistributionLambda(make)(model.layers[0](X)).tensor_distribution
    log_prob = (
        plain.log_prob(y.reshape(plain.batch_shape + plain.event_shape).astype("float32"))
        .numpy()
        .ravel()
    )
    results = model.evaluate(X, y.reshape(shape), sample_weight=weights, return_dict=True, **QUIET)
    np.testing.assert_allclose(results["loss"], -np.mean(weights * log_prob), rtol=1e-5)
    np.testing.assert_allclose(
        results["mse"], np.mean((y - plain.mean().numpy().ravel()) ** 2), rtol=1e-5
    )
    assert np.isfinite(model.fit(X, y.reshape(shape), **QUIET).history["loss"]).all()


def test_a_metric_function_gets_labels_as_they_are():
    """Keras reshapes for losses only: a metric of labels [B] and a distribution of batch [B,1] would see all pairs."""
    for y, num_values in ((np.arange(12.0), 12 * 12), (np.ones([12, 1]), 12)):
        model = model_of(lambda t: tfd.Normal(t, 1.0), 1)
        model.compile(
            "sgd", loss=negative_log_likelihood, metrics=[lambda y, rv: tf.size(rv.log_prob(y))]
        )
        assert model.evaluate(X, y, **QUIET)[1] == num_values


# Metrics, weights, several outputs.


class MeanLogLikelihood(keras.metrics.Mean):
    """A metric class that asks the distribution."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(y_pred.log_prob(y_true), sample_weight)


def mean_absolute_deviation(y, rv):
    return tf.reduce_mean(tf.abs(y - rv.mean()), -1)


def normal_model(**kwargs):
    make = lambda t: tfd.Independent(tfd.Normal(t, 1.0), 1)  # noqa: E731
    return model_of(make, 2, **kwargs)


COMPILED = {
    "": {},
    "XLA": {"jit_compile": True},
    "eager": {"run_eagerly": True},
    "4 steps at once": {"steps_per_execution": 4},
}


@pytest.mark.parametrize("options", COMPILED.values(), ids=COMPILED)
@pytest.mark.rows(2)
def test_losses_metrics_and_weights(options):
    model, weights = normal_model(), np.linspace(0.0, 2.0, 12).astype("float32")
    y = X[:, :2] + 1.0
    metrics = [
        "mse",
        mean_absolute_deviation,
        keras.metrics.RootMeanSquaredError(),
        MeanLogLikelihood(name="ll"),
    ]
    weighted = [MeanLogLikelihood(name="weighted_ll")]
    model.compile(
        "adam", negative_log_likelihood, metrics=metrics, weighted_metrics=weighted, **options
    )
    results = model.evaluate(X, y, sample_weight=weights, batch_size=3, return_dict=True, verbose=0)
    mean, log_prob = model(X).mean(), model(X).log_prob(y)
    expected = {
        "loss": -np.mean(weights * log_prob),
        "mse": np.mean((y - mean) ** 2),
        "mean_absolute_deviation": np.mean(np.abs(y - mean)),
        "root_mean_squared_error": np.mean((y - mean) ** 2) ** 0.5,
        "ll": np.mean(log_prob),
        "weighted_ll": np.average(log_prob, weights=weights),
    }
    assert results == pytest.approx(expected, rel=1e-5)
    history = model.fit(X, y, batch_size=3, epochs=4, sample_weight=weights, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    np.testing.assert_allclose(model.predict(X, verbose=0), model(X).mean(), rtol=1e-5, atol=1e-6)


def two_outputs(kind):
    features = keras.Input((3,))
    real = tfpl.IndependentNormal(2, "mean", name="real")(keras.layers.Dense(4)(features))
    make = lambda t: tfd.Categorical(logits=t)  # noqa: E731
    label = tfpl.DistributionLambda(make, "mode", name="label")(keras.layers.Dense(3)(features))
    return keras.Model(features, kind({"real": real, "label": label}))


@pytest.mark.parametrize("kind", [dict, lambda parts: list(parts.values())], ids=["dict", "list"])
def test_several_distributions(kind):
    model = two_outputs(kind)
    y = kind({"real": X[:, :2], "label": np.arange(12) % 3})
    weight = kind({"real": 1.0, "label": 0.5})
    model.compile(
        "sgd", kind(dict.fromkeys(("real", "label"), negative_log_likelihood)), loss_weights=weight
    )
    real, label = (model(X)[key] for key in (("real", "label") if kind is dict else (0, 1)))
    parts = -np.mean(real.log_prob(X[:, :2])), -np.mean(label.log_prob(np.arange(12) % 3))
    results = model.evaluate(X, y, return_dict=True, **QUIET)
    np.testing.assert_allclose([results["real_loss"], results["label_loss"]], parts, rtol=1e-5)
    np.testing.assert_allclose(results["loss"], parts[0] + 0.5 * parts[1], rtol=1e-5)
    model.fit(X, y, **QUIET)
    predicted = model.predict(X, **QUIET)
    for part, array in zip(
        model(X).values() if kind is dict else model(X), keras.tree.flatten(predicted), strict=True
    ):
        assert isinstance(array, np.ndarray)
        assert isinstance(part, tfd.Distribution)
    assert {array.shape for array in keras.tree.flatten(predicted)} == {(12, 2), (12,)}


def test_a_mask_reaches_the_loss():
    """Padded sequences: a layer that is told to support masking hands the mask on with the distribution."""
    layer = tfpl.DistributionLambda(lambda t: tfd.Categorical(logits=t))
    layer.supports_masking = True
    tokens = [keras.Input((4,), dtype="int32"), keras.layers.Embedding(5, 3, mask_zero=True), layer]
    model, x, y = (
        keras.Sequential(tokens),
        np.array([[1, 2, 3, 0], [4, 0, 0, 0]]),
        np.array([[1, 2, 0, 1], [0, 0, 2, 2]]),
    )
    model.compile("sgd", negative_log_likelihood)
    seen = model(x).log_prob(y).numpy()[x > 0]
    np.testing.assert_allclose(model.evaluate(x, y, verbose=0), -seen.mean(), rtol=1e-5)


# Layers after a distribution.

AFTER = {
    "Dense": keras.layers.Dense(2),
    "Dropout": keras.layers.Dropout(0.5),
    "BatchNormalization": keras.layers.BatchNormalization(),
    "LayerNormalization": keras.layers.LayerNormalization(),
    "Flatten": keras.layers.Flatten(),
    "Reshape": keras.layers.Reshape((1, 2)),
    "TimeDistributed": keras.layers.TimeDistributed(keras.layers.Dense(2)),
}


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float64"])
@pytest.mark.parametrize("name", AFTER)
def test_layers_after_a_distribution(name, policy):
    keras.config.set_dtype_policy(policy)
    after = type(AFTER[name]).from_config({**AFTER[name].get_config(), "dtype": policy})
    x = np.broadcast_to(X[:, np.newaxis], (12, 4, 3)) if name == "TimeDistributed" else X
    make = lambda t: tfd.Independent(tfd.Normal(t, tf.ones([], t.dtype)), 1)  # noqa: E731
    before = keras.Sequential(
        [keras.Input(x.shape[1:]), keras.layers.Dense(2), tfpl.DistributionLambda(make, "mean")]
    )
    model = keras.Sequential([before, after])
    np.testing.assert_allclose(model(x), after(before(x).mean()), rtol=1e-2, atol=1e-2)
    assert model(x).dtype == keras.config.dtype_policy().compute_dtype or name in (
        "Dropout",
        "Flatten",
        "Reshape",
    )
    model.compile("sgd", "mse")
    before_fit = model.get_weights()
    model.fit(x, np.ones_like(model(x)), **QUIET)
    assert not np.array_equal(before_fit[0], model.get_weights()[0])


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense, self.normal = keras.layers.Dense(4), tfpl.IndependentNormal(2, "mean")

    def call(self, x):
        q = self.normal(self.dense(x))
        assert isinstance(q, tfd.Distribution)
        return q


def test_subclassed_model():
    model = Subclassed()
    model.compile("adam", negative_log_likelihood, metrics=["mse"])
    loss, mse = model.evaluate(X, X[:, :2], **QUIET)
    np.testing.assert_allclose(loss, -np.mean(model(X).log_prob(X[:, :2])), rtol=1e-5)
    np.testing.assert_allclose(mse, np.mean((X[:, :2] - model(X).mean()) ** 2), rtol=1e-5)
    assert model.fit(X, X[:, :2], epochs=2, **QUIET).history["loss"][-1] < loss
    assert model.predict(X, verbose=0).shape == (12, 2)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_functional_composition(policy):
    """The TFP way to a VAE: the decoder called on the encoder's output, a distribution."""
    keras.config.set_dtype_policy(policy)
    encoder = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4), tfpl.IndependentNormal(2, "mean")]
    )
    decoder = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(3), tfpl.IndependentBernoulli(3, "mean")]
    )
    vae = keras.Model(encoder.inputs, decoder(encoder.outputs[0]))
    x = (X > 0.0).astype("float32")
    vae.compile("adam", negative_log_likelihood)
    expected = -np.mean(decoder(encoder(x).mean()).log_prob(x))
    np.testing.assert_allclose(
        vae.evaluate(x, x, **QUIET), expected, rtol=1e-5 if policy == "float32" else 1e-2
    )
    assert vae.fit(x, x, epochs=2, **QUIET).history["loss"][-1] < expected * (
        1.0 if policy == "float32" else 1.01
    )


# Two devices.

TWO_DEVICES = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, numpy as np
from tfp_vae import layers as tfpl

x = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
results = []
for strategy in (tf.distribute.OneDeviceStrategy("CPU:0"), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        q = [keras.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(4), tfpl.IndependentNormal(2, "mean")]
        model = keras.Sequential([*q, keras.layers.Dense(6), tfpl.IndependentNormal(3, "mean")])
        nll = lambda y, rv: -rv.log_prob(y)
        model.compile(keras.optimizers.Adam(0.01), loss=nll, metrics=["mse", nll])
        model.test_step((x[:1], x[:1]))  # builds loss and metrics: under a strategy Keras does it from placeholders
    assert model.distribute_strategy.num_replicas_in_sync == len(results) + 1
    history = model.fit(x, x, batch_size=8, epochs=5, shuffle=False, verbose=0).history
    results.append([*model.get_weights(), history["loss"], history["mse"], model.evaluate(x, x, verbose=0)])
    results[-1].append(model.predict(x, verbose=0))
for one, two in zip(*results, strict=True):
    np.testing.assert_allclose(one, two, rtol=2e-5, atol=1e-6)
"""


@pytest.mark.slow
@pytest.mark.full
def test_two_devices_equal_one():
    result = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_several_draws_of_one_value_reach_the_loss_as_a_distribution():
    """Keras squeezes the draws' last axis, which the labels do not have; tf_keras did not."""
    y = np.random.default_rng(0).normal(size=(8, 1)).astype("float32")
    layer = tfpl.IndependentNormal(1, lambda d: d.sample(5, seed=[1, 2]))
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), layer])
    model.compile("adam", loss=lambda y, rv: -rv.log_prob(y))
    x = np.ones([8, 3], "float32")
    assert model.evaluate(x, y, verbose=0) == pytest.approx(
        -np.mean(model(x).log_prob(y)), rel=1e-5
    )
    model.fit(x, y, verbose=0)
    assert tf.squeeze(model(x)).shape == (5, 8)
