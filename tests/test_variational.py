"""Random weights: variables as layers, dense layers with a posterior over their weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import layers as tfpl

tfd = tfp.distributions

X = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
LOC, SCALE = np.linspace(-1.0, 1.0, 8), np.linspace(0.2, 0.9, 8)
PRIOR_LOC = np.linspace(0.5, -0.5, 8)


# Variables


@pytest.mark.parametrize(
    "inputs", [None, 0.0, 3, X, [1.0, 2.0]], ids=lambda value: type(value).__name__
)
def test_variable_whatever_the_input(inputs):
    layer = tfpl.VariableLayer([2, 3], initializer="ones", activation="softplus")
    np.testing.assert_allclose(layer(inputs), np.full([2, 3], np.log(1.0 + np.e)), rtol=1e-6)
    assert tuple(weight.shape for weight in layer.trainable_weights) == ((2, 3),)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3,), None], ids=str)
def test_variable_in_a_model(shape):
    first = [] if shape is None else [keras.Input(shape)]
    model = keras.Sequential(
        [*first, tfpl.VariableLayer(4, initializer="ones"), tfpl.IndependentNormal(2, "mean")]
    )
    for inputs in (tf.zeros([5, *(shape or ())]), tf.zeros([1, *(shape or ())])):
        q = model(inputs)
        assert (q.batch_shape, q.event_shape) == ((), (2,))
        np.testing.assert_array_equal(q, [1.0, 1.0])
    assert keras.Sequential([tfpl.VariableLayer(2), tfpl.IndependentNormal(1)])(
        None
    ).event_shape == (1,)


def test_variable_learns_the_moments_of_data():
    """The example of tfp.layers: a normal distribution without input, fitted to data."""
    x = np.random.default_rng(0).normal([1.0, -2.0], [0.5, 1.5], [400, 2]).astype("float32")
    initializer = tfpl.BlockwiseInitializer(
        ["zeros", keras.initializers.Constant(np.log(np.expm1(1.0)))], [2, 2]
    )
    model = keras.Sequential(
        [tfpl.VariableLayer(4, initializer=initializer), tfpl.IndependentNormal(2)]
    )
    np.testing.assert_allclose(model(None).stddev(), [1.0, 1.0], rtol=1e-4)
    model.compile(keras.optimizers.Adam(0.05), loss=lambda x, p: -p.log_prob(x))
    model.fit(
        np.zeros([60_000, 1], "float32"),
        np.tile(x, (150, 1)),
        batch_size=400,
        shuffle=False,
        verbose=0,
    )
    p = model(tf.zeros([1, 1]))
    np.testing.assert_allclose(p.mean(), x.mean(0), atol=0.01)
    np.testing.assert_allclose(p.stddev(), x.std(0), atol=0.01)


def test_variable_with_regularizer_constraint_and_dtype():
    layer = tfpl.VariableLayer(
        2,
        "float64",
        initializer=keras.initializers.Constant(-3.0),
        regularizer="l2",
        constraint="non_neg",
    )
    assert layer(None).dtype == tf.float64
    np.testing.assert_allclose(layer.losses, [0.01 * 18.0], rtol=1e-6)
    keras.optimizers.SGD(0.1).apply([tf.zeros([2], "float64")], layer.trainable_weights)
    np.testing.assert_array_equal(layer(None), [0.0, 0.0])
    rebuilt = tfpl.VariableLayer.from_config(layer.get_config())
    assert rebuilt.get_config() == layer.get_config()
    assert (rebuilt(None).dtype, len(rebuilt.losses)) == (tf.float64, 1)


def test_variable_is_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    assert tfpl.VariableLayer(2)(None).dtype == tf.float32


def test_blocks():
    initializer = tfpl.BlockwiseInitializer(
        ["ones", keras.initializers.Constant(2.0)], sizes=[1, 2]
    )
    rebuilt = keras.initializers.get(keras.initializers.serialize(initializer))
    for each in (initializer, rebuilt):
        np.testing.assert_array_equal(each((2, 3), "float64"), [[1.0, 2.0, 2.0]] * 2)
    with pytest.raises(ValueError, match=r"\[1, 2\] make 3, the last axis of \(2, 4\) differs"):
        initializer((2, 4))
    with pytest.raises(
        ValueError, match=r"one size for each of the 2 initializers, received sizes=\[1\]"
    ):
        tfpl.BlockwiseInitializer(["ones", "zeros"], [1])


# Dense layers


def test_weights_are_named_by_their_distribution_and_the_shape_is_known():
    layer = tfpl.DenseVariational(4, name="dense")
    layer.build((None, 3))
    assert [weight.path.split("/")[:2] for weight in layer.weights] == [
        ["dense", "posterior"],
        ["dense", "prior"],
    ]
    assert layer.compute_output_shape((None, 7, 3)) == (None, 7, 4)


@keras.saving.register_keras_serializable(package="test_variational")
def posterior(kernel_size, bias_size, dtype):
    assert (kernel_size, bias_size) in [(6, 2), (6, 0)]
    size, dtype = kernel_size + bias_size, dtype.name
    scale = keras.initializers.Constant(np.log(np.expm1(SCALE[:size] - 1e-5)))
    blocks = tfpl.BlockwiseInitializer(
        [keras.initializers.Constant(LOC[:size]), scale], [size, size]
    )
    variable = tfpl.VariableLayer(2 * size, dtype=dtype, initializer=blocks)
    return keras.Sequential([variable, tfpl.IndependentNormal(size, draw, dtype=dtype)])


@keras.saving.register_keras_serializable(package="test_variational")
def draw(q):
    return q.sample(seed=[1, 2])


@keras.saving.register_keras_serializable(package="test_variational")
def prior(kernel_size, bias_size, dtype):
    size = kernel_size + bias_size
    loc = keras.initializers.Constant(PRIOR_LOC[:size])
    return keras.Sequential(
        [tfpl.VariableLayer(size, dtype=dtype, initializer=loc), unit_normal(dtype)]
    )


def unit_normal(dtype):
    return tfpl.DistributionLambda(
        lambda t: tfd.Independent(tfd.Normal(t, tf.ones([], t.dtype)), 1), dtype=dtype
    )


def without_independent(kernel_size, bias_size, dtype):
    return lambda inputs: tfd.Normal(tf.cast(LOC, dtype), tf.cast(SCALE, dtype))


def fixed_prior(kernel_size, bias_size, dtype):
    return lambda inputs: tfd.Normal(tf.cast(PRIOR_LOC, dtype), tf.ones([], dtype))


def many_draws(kernel_size, bias_size, dtype):
    """2000 draws of all weights at once, a sample axis before the kernel."""
    normal = tfd.Independent(tfd.Normal(tf.cast(LOC, dtype), tf.cast(SCALE, dtype)), 1)
    layer = tfpl.DistributionLambda(
        lambda inputs: normal, lambda q: q.sample(2000, seed=[1, 2]), dtype=dtype
    )
    return layer


def independent_prior(kernel_size, bias_size, dtype):
    return lambda inputs: tfd.Independent(
        tfd.Normal(tf.cast(PRIOR_LOC, dtype), tf.ones([], dtype)), 1
    )


def closed_form(size=8):
    scale, distance = SCALE[:size], LOC[:size] - PRIOR_LOC[:size]
    return 0.5 * np.sum(scale**2 + distance**2 - 1.0 - np.log(scale**2))


def dense(**kwargs):
    return tfpl.DenseVariational(2, posterior, prior, **kwargs)


@pytest.mark.parametrize("use_bias", [True, False])
def test_output_is_that_of_a_dense_layer_with_the_drawn_weights(use_bias):
    layer = dense(use_bias=use_bias, activation="tanh")
    outputs = layer(X)
    weights = np.asarray(layer.posterior(X))
    kernel, bias = weights[:6].reshape(3, 2), weights[6:] if use_bias else 0.0
    np.testing.assert_allclose(outputs, np.tanh(X @ kernel + bias), rtol=1e-5)
    assert dense(use_bias=use_bias)(X[:, None]).shape == (6, 1, 2)


@pytest.mark.parametrize(
    "functions", [(posterior, prior), (without_independent, fixed_prior)], ids=["model", "plain"]
)
@pytest.mark.parametrize("weight", [None, 0.25])
def test_exact_divergence(functions, weight):
    """Summed over the weights, whether or not they are one event, and not divided by the batch."""
    layer = tfpl.DenseVariational(2, *functions, kl_weight=weight, kl_use_exact=True)
    for x in (X, X[:1]):
        layer(x)
        np.testing.assert_allclose(layer.losses, [(weight or 1.0) * closed_form()], rtol=1e-4)


def test_monte_carlo_divergence_within_its_standard_error():
    layer = tfpl.DenseVariational(2, many_draws, independent_prior)
    assert layer(X).shape == (2000, 6, 2)
    z = np.random.default_rng(0).normal(LOC, SCALE, [4000, 8])
    log_ratio = tfd.Normal(LOC, SCALE).log_prob(z) - tfd.Normal(
        PRIOR_LOC, np.float64(1.0)
    ).log_prob(z)
    error = np.sum(log_ratio, -1).std() / 2000**0.5
    assert 0.0 < abs(layer.losses[0] - closed_form()) < 4.0 * error < 0.5


def test_divergence_counts_once_in_the_loss_of_a_model():
    model = keras.Sequential([keras.Input((3,)), dense(kl_weight=1 / 6, kl_use_exact=True)])
    model.compile("sgd", loss="mse")
    expected = np.mean(np.square(model(X).numpy())) + closed_form() / 6
    for batch_size in (2, 6):
        np.testing.assert_allclose(
            model.evaluate(X, 0 * X[:, :2], batch_size=batch_size, verbose=0), expected, rtol=1e-5
        )


def test_gradient_against_finite_differences():
    """Of the loss with the draw's noise held fixed, in float64: reparameterized draws and divergence."""
    layer = dense(dtype="float64", kl_use_exact=False)

    def loss():
        return tf.reduce_sum(tf.square(layer(X.astype("float64")))) + layer.losses[0]

    with tf.GradientTape() as tape:
        value = loss()
    for weight, gradient in zip(
        layer.trainable_weights, tape.gradient(value, layer.trainable_weights), strict=True
    ):
        for index in (0, 5):
            step = 1e-6 * np.eye(weight.shape[0])[index]
            weight.assign_add(step)
            above = loss()
            weight.assign_sub(2.0 * step)
            difference = above - loss()
            weight.assign_add(step)
            np.testing.assert_allclose(gradient[index], difference / 2e-6, rtol=1e-5)


def test_trained_weights_are_tracked_trained_and_saved(tmp_path):
    model = keras.Sequential(
        [keras.Input((3,)), dense(kl_weight=0.1, kl_use_exact=True), dense_default()]
    )
    assert [weight.shape for weight in model.trainable_weights] == [(16,), (8,), (6,), (3,)]
    before = model.get_weights()
    model.compile(keras.optimizers.Adam(0.1), loss="mse")
    model.fit(X, X[:, :1], epochs=2, verbose=0)
    assert all(
        (weight != same).any() for weight, same in zip(model.get_weights(), before, strict=True)
    )
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    for weight, same in zip(reloaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, same)
    np.testing.assert_allclose(*[each.layers[0](X) for each in (model, reloaded)], rtol=1e-6)
    np.testing.assert_allclose(*[each.layers[0].losses for each in (model, reloaded)], rtol=1e-6)
    model.export(str(tmp_path / "exported"), verbose=False)
    served = tf.saved_model.load(str(tmp_path / "exported"))
    assert served.serve(X[:2]).shape == (2, 1)


def dense_default():
    return tfpl.DenseVariational(1, kl_weight=0.1)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_dtype_policies(policy):
    keras.config.set_dtype_policy(policy)
    layer = dense(kl_use_exact=True)
    outputs = layer(tf.fill([1, 3], 70001.0))
    assert outputs.dtype == layer.losses[0].dtype == layer.variable_dtype
    assert np.isfinite(outputs).all()
    np.testing.assert_allclose(layer.losses, [closed_form()], rtol=1e-4)


def test_xla_changes_nothing():
    losses = []
    for jit_compile in (False, True):
        model = keras.Sequential([keras.Input((3,)), dense(kl_weight=0.1, kl_use_exact=True)])
        model.layers[0].posterior.layers[-1].convert_to_tensor_fn = tfd.Distribution.mean
        model.compile("sgd", loss="mse", jit_compile=jit_compile)
        losses.append(
            model.fit(X, X[:, :2], batch_size=2, epochs=2, shuffle=False, verbose=0).history["loss"]
        )
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_posterior_of_bayesian_linear_regression():
    """With a normal likelihood and prior, the posterior is normal in closed form: precision X'X / s^2 + 1."""
    random = np.random.default_rng(0)
    x = random.normal(size=(50, 2)).astype("float32")
    y = (x @ [[1.0, 0.5], [-2.0, 0.0]] + 0.5 * random.normal(size=(50, 2))).astype("float32")
    layer = tfpl.DenseVariational(
        2, full_posterior, standard_prior, 1 / 50, kl_use_exact=True, use_bias=False
    )
    likelihood = tfpl.DistributionLambda(lambda t: tfd.Independent(tfd.Normal(t, 0.5), 1))
    model = keras.Sequential([keras.Input((2,)), layer, likelihood])
    schedule = keras.optimizers.schedules.CosineDecay(0.05, 1000)
    model.compile(keras.optimizers.Adam(schedule), loss=lambda y, p: -p.log_prob(y))
    model.fit(np.tile(x, (1000, 1)), np.tile(y, (1000, 1)), batch_size=50, shuffle=False, verbose=0)
    covariance = np.linalg.inv(x.T @ x / 0.25 + np.eye(2))
    q = layer.posterior(x)
    np.testing.assert_allclose(q.mean(), (covariance @ (x.T @ y) / 0.25).ravel(), atol=0.03)
    np.testing.assert_allclose(
        q.covariance(), np.kron(covariance, np.eye(2)), atol=0.1 * covariance.max()
    )


def full_posterior(kernel_size, bias_size, dtype):
    size = tfpl.MultivariateNormalTriL.params_size(kernel_size)
    return keras.Sequential(
        [tfpl.VariableLayer(size), tfpl.MultivariateNormalTriL(kernel_size, lambda q: q.sample(20))]
    )


def standard_prior(kernel_size, bias_size, dtype):
    return lambda inputs: tfd.MultivariateNormalTriL(tf.zeros([kernel_size]), tf.eye(kernel_size))


def test_what_cannot_be_saved_names_the_way_out(tmp_path):
    layer = tfpl.DenseVariational(1, make_prior_fn=lambda *sizes: tfpl.prior_trainable(*sizes))
    model = keras.Sequential([keras.Input((3,)), layer])
    with pytest.raises(
        ValueError, match=r"make_prior_fn=.* cannot be saved.*register_keras_serializable"
    ):
        model.save(tmp_path / "model.keras")


ERRORS = {
    "units": (lambda: tfpl.DenseVariational(0), "whole number of at least 1, received 0"),
    "shape": (lambda: tfpl.VariableLayer([2, -1]), "whole number of at least 1, received -1"),
    "features": (
        lambda: dense()(keras.Input((None,))),
        r"known number of features, received shape \(None, None\)",
    ),
    "no distribution": (
        lambda: tfpl.DenseVariational(1, lambda *sizes: tf.identity)(X),
        r"(?s)make_posterior_fn and make_prior_fn to give .* received",
    ),
}


@pytest.mark.parametrize(("act", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(act, message):
    with pytest.raises((TypeError, ValueError), match=message):
        act()
