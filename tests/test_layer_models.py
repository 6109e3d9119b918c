"""Distribution layers inside Keras models: each contract once, each public class a row of `CASES`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_vae
from tests.layer_cases import is_first, rows
from tfp_vae import layers as tfpl

tfd = tfp.distributions

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
WEIGHT = np.arange(1.0, 9.0, dtype="float32")
# Keras casts labels and predictions of an integer dtype in its loss: until the bridge sees to it, these lose their
# distribution there.


def negative_log_likelihood(y, p):
    return -p.log_prob(y)


class Subclassed(keras.Model):
    def __init__(self, network, layer):
        super().__init__()
        self.network, self.layer = network, layer

    def call(self, x):
        return self.layer(self.network(x))


@rows(is_first)
@pytest.mark.rows(15)
def test_every_place_in_a_model(case):
    params = case.params(4).astype("float32")
    several = case.make(lambda p: p.sample(5))
    first = keras.Sequential([keras.Input((case.params_size,)), several])
    assert first.output_shape == (5, None, *case.event_shape)
    assert first(params).value().shape == (5, 4, *case.event_shape)
    assert isinstance(first(params), tfd.Distribution)
    network, layer, head = keras.layers.Dense(case.params_size), case.make(), keras.layers.Dense(2)
    inputs = keras.Input((3,))
    p = layer(network(inputs))
    middle_and_last = keras.Model(inputs, [head(keras.layers.Flatten()(p)), p])(X)
    np.testing.assert_array_equal(middle_and_last[1], Subclassed(network, layer)(X))
    np.testing.assert_allclose(
        middle_and_last[0], head(keras.layers.Flatten()(layer(network(X)))), rtol=1e-5, atol=1e-5
    )


@rows(lambda case: case.likelihood and is_first(case))
@pytest.mark.rows(10)
def test_training(case):
    """One step of the stock loop, with sample weights; what Keras reports is what the densities say."""
    model = case.model()
    y = case.draw(case.params(8)).astype("float32")
    metrics = ["mse"] if case.event_shape and case.convert == "mean" else []
    model.compile("sgd", loss=negative_log_likelihood, weighted_metrics=metrics, run_eagerly=True)
    p, before = model(X, training=True), [w.numpy() for w in model.trainable_weights]
    expected = np.sum(WEIGHT * -p.log_prob(y)) / len(X)
    history = model.fit(X, y, sample_weight=WEIGHT, batch_size=8, verbose=0).history
    np.testing.assert_allclose(history["loss"], [expected], rtol=1e-4)
    for old, new in zip(before, model.trainable_weights, strict=True):
        assert (old != new.numpy()).any()
        assert np.isfinite(new).all()
    p, results = model(X), model.evaluate(X, y, batch_size=8, verbose=0, return_dict=True)
    np.testing.assert_allclose(results["loss"], np.mean(-p.log_prob(y)), rtol=1e-4)
    if metrics:
        np.testing.assert_allclose(results["mse"], np.mean((y - p.mean()) ** 2), rtol=1e-4)
    predicted = model.predict(X, verbose=0)
    assert isinstance(predicted, np.ndarray)
    np.testing.assert_allclose(predicted, p, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@rows(is_first)
@pytest.mark.rows(0, 8)
def test_saved_models_give_the_same_values(case, tmp_path):
    model = case.model()
    expected = model(X).numpy()
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(X), expected)
    model.export(str(tmp_path / "exported"), verbose=False)
    served = tf.saved_model.load(str(tmp_path / "exported"))
    for batch_size in (1, 5):
        np.testing.assert_allclose(
            served.serve(X[:batch_size]), expected[:batch_size], rtol=1e-5, atol=1e-6
        )


def encoder(layer, params_size, size):
    return keras.Sequential([keras.Input((size,)), keras.layers.Dense(params_size), layer])


def check_one_step(vae, weights, x):
    """The objective is finite, and its gradient reaches the weights."""
    vae.check_data(x)
    with tf.GradientTape() as tape:
        terms = vae(x)
    assert np.isfinite(terms["elbo"]).all()
    for gradient in tape.gradient(terms["loss"], weights):
        assert np.isfinite(gradient).all()
        assert np.any(gradient)


@rows(lambda case: case.likelihood and case.event_shape == (2,))
@pytest.mark.rows(12)
def test_likelihood_of_a_vae(case):
    decoder = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(case.params_size), case.make()]
    )
    vae = tfp_vae.VAE(encoder(tfpl.MultivariateNormalDiag(1), 2, 2), decoder)
    check_one_step(vae, vae.trainable_weights, case.draw(case.params(8)).astype("float32"))


@rows(lambda case: len(case.event_shape) == 1)
@pytest.mark.rows(15)
def test_posterior_of_a_vae(case):
    """The VAE takes it, with a trained prior of the same family, or refuses it: never a silently wrong gradient."""
    size = case.event_shape[0]
    decoder = keras.Sequential(
        [keras.Input((size,)), keras.layers.Dense(6), tfpl.IndependentNormal(3)]
    )
    network = encoder(case.make(), case.params_size, 3)
    if case.make()(case.params(1)).reparameterization_type is tfd.FULLY_REPARAMETERIZED:
        same = keras.Sequential(
            [tfpl.VariableLayer([case.params_size], initializer="ones"), case.make()]
        )
        arguments = {"prior": same}
        if case.layer is tfpl.Deterministic:  # no density
            arguments = {"objective": tfp_vae.objectives.Reconstruction()}
        check_one_step(tfp_vae.VAE(network, decoder, **arguments), network.trainable_weights, X)
    else:
        with pytest.raises(ValueError, match="is not reparameterized"):
            tfp_vae.VAE(network, decoder)


@pytest.mark.parametrize(
    "layer",
    [tfpl.IndependentNegativeBinomial, tfpl.IndependentZeroInflatedNegativeBinomial],
    ids=lambda layer: layer.__name__,
)
def test_xla_where_nothing_draws(layer):
    supports = {
        convert: layer(2, convert).supports_jit for convert in ("sample", "mean", "variance")
    }
    assert supports == {"sample": False, "mean": True, "variance": True}
    assert not layer(2, lambda p: p.sample(3)).supports_jit
    generic = tfpl.Independent(tfd.NegativeBinomial, 2, constants={"total_count": 3.0})
    assert not generic.supports_jit
    params, x = (
        tf.constant(X[:, :1] * np.ones(layer.params_size(2), "float32")),
        np.float32([0.0, 3.0]),
    )

    def log_prob_and_gradient(params):
        with tf.GradientTape() as tape:
            tape.watch(params)
            log_prob = layer(2, "mean")(params).log_prob(x)
        return log_prob, tape.gradient(log_prob, params)

    for compiled, eager in zip(
        tf.function(log_prob_and_gradient, jit_compile=True)(params),
        log_prob_and_gradient(params),
        strict=True,
    ):
        np.testing.assert_allclose(compiled, eager, rtol=1e-4, atol=1e-5)


def test_components_are_tracked_and_saved(tmp_path):
    """A component layer with weights of its own, here a network before its distribution."""
    component = keras.Sequential([keras.layers.Dense(2), tfpl.IndependentNormal(1)])
    layer = tfpl.MixtureSameFamily(2, component, "mean")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(8), layer])
    assert len(model.trainable_weights) == 4
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(X), model(X))


def test_xla_asks_the_components():
    for convert in ("sample", "mean"):
        layer = tfpl.MixtureSameFamily(2, tfpl.IndependentNegativeBinomial(1, convert))
        model = keras.Sequential([keras.Input((6,)), layer])
        model.compile("sgd", loss=negative_log_likelihood, jit_compile="auto")
        assert all(each.supports_jit for each in model._flatten_layers()) == (convert == "mean")
