"""Masked autoregressive networks and flows: who depends on whom, densities, draws, gradients, and TFP's own network."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import layers as tfpl

tfd, tfb = tfp.distributions, tfp.bijectors

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(6, 4))
ORDERS = {
    "left-to-right": [1, 2, 3, 4],
    "right-to-left": [4, 3, 2, 1],
    (3, 1, 4, 2): [3, 1, 4, 2],
    "random": None,
}


def network(event_size=4, random_bias=True, **kwargs):
    bias = keras.initializers.RandomNormal(stddev=0.5) if random_bias else "zeros"
    arguments = {
        "hidden_units": [16, 12],
        "activation": "tanh",
        "bias_initializer": bias,
        "dtype": "float64",
    }
    made = tfpl.AutoregressiveNetwork(2, event_size, **{**arguments, **kwargs})
    made.build((None, event_size))
    return made


def jacobian(made, x, **kwargs):
    """d output[i, p] / d input[j]: `[batch, i, p, j]`."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = made(x, **kwargs)
    return tape.batch_jacobian(outputs, x).numpy()


# The network


@pytest.mark.parametrize("degrees", ["equal", "random"])
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_outputs_depend_on_the_values_before_them_alone(order, degrees):
    made = network(input_order=order, hidden_degrees=degrees, seed=3)
    for weight in made.trainable_weights:  # masks hold whatever the weights are
        weight.assign(RANDOM.normal(size=weight.shape))
    dependence = np.abs(jacobian(made, X)).max(axis=(0, 2))
    position = np.array(ORDERS[order] or dependence.astype(bool).sum(1) + 1)
    before = position[:, np.newaxis] > position
    np.testing.assert_array_equal(dependence[~before], 0.0)
    assert sorted(position) == [1, 2, 3, 4]
    assert degrees == "random" or (dependence[before] > 1e-6).all()


@pytest.mark.parametrize("layers", ["all_layers", "first_layer"])
def test_all_outputs_depend_on_the_conditional_input(layers):
    made = network(conditional=True, conditional_event_shape=3, conditional_input_layers=layers)
    assert len(made.weights) == 6 + (3 if layers == "all_layers" else 1)
    c = RANDOM.normal(size=(6, 3))
    assert (
        np.abs(jacobian(lambda c: made(X, conditional_input=c), c)).max(axis=(0, 2))[1:] > 1e-6
    ).all()
    dependence = jacobian(lambda x: made(x, conditional_input=c), X)
    assert np.abs(np.triu(np.abs(dependence).max(axis=(0, 2)))).max() == 0.0
    np.testing.assert_allclose(
        made(X[0], conditional_input=c), made(np.tile(X[:1], (6, 1)), conditional_input=c)
    )


@pytest.mark.parametrize("shape", [(4,), (5, 4), (2, 3, 4), (0, 4)], ids=str)
def test_shapes(shape):
    made = network()
    assert made(np.zeros(shape)).shape == (*shape, 2)
    assert made(keras.Input(batch_shape=shape)).shape == (*shape, 2)


CONFIGS = {
    "plain": {"hidden_units": [8, 8], "activation": "relu"},
    "no hidden": {"hidden_units": None, "use_bias": False, "input_order": "right-to-left"},
    "order": {"hidden_units": [7], "input_order": [2, 4, 1, 3], "activation": "tanh"},
    "conditional": {
        "hidden_units": [8],
        "conditional": True,
        "conditional_event_shape": [3],
        "event_shape": [4],
    },
    "first": {
        "hidden_units": [8, 8],
        "conditional": True,
        "conditional_event_shape": [3],
        "event_shape": [4],
        "conditional_input_layers": "first_layer",
    },
}


@pytest.mark.parametrize("arguments", CONFIGS.values(), ids=CONFIGS)
def test_same_as_tfp_network_with_the_same_weights(arguments):
    ours = tfpl.AutoregressiveNetwork(3, kernel_regularizer="l2", **arguments)
    theirs = tfb.AutoregressiveNetwork(3, kernel_regularizer="l2", **arguments)
    x = X.astype("float32")
    kwargs = {"conditional_input": X[:, :3].astype("float32")} if "conditional" in arguments else {}
    theirs(x, **kwargs), ours(x, **kwargs)
    assert [weight.shape for weight in ours.weights] == [
        tuple(weight.shape) for weight in theirs.weights
    ]
    for own, weight in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(weight[own == 0.0], 0.0)  # the same entries are masked
    ours.set_weights(
        [
            0.3 * RANDOM.normal(size=weight.shape) * (weight != 0.0)
            for weight in theirs.get_weights()
        ]
    )
    theirs.set_weights(ours.get_weights())
    np.testing.assert_allclose(ours(x, **kwargs), theirs(x, **kwargs), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sum(ours.losses), sum(theirs.losses), rtol=1e-5)
    u = RANDOM.normal(size=x.shape).astype("float32")
    flows = [tfb.MaskedAutoregressiveFlow(FirstTwo(made)) for made in (ours, theirs)]
    np.testing.assert_allclose(*[flow.forward(u, **kwargs) for flow in flows], rtol=1e-5, atol=1e-5)


@dataclasses.dataclass
class FirstTwo:
    """The first two of three outputs, as shift and log-scale."""

    made: Callable

    def __call__(self, x, **kwargs):
        return self.made(x, **kwargs)[..., :2]


def test_training_leaves_masked_weights_at_zero():
    model = keras.Sequential([keras.Input((4,)), network(dtype="float32", kernel_regularizer="l2")])
    model.compile(keras.optimizers.AdamW(0.1), loss="mse")
    model.fit(X, np.ones([6, 4, 2]), epochs=3, verbose=0)
    kernel, *_ = model.get_weights()
    assert (kernel[3] == 0.0).all()
    assert (kernel != 0.0).any(axis=1).tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    "arguments",
    [
        {"input_order": "random", "hidden_degrees": "random"},
        {
            "conditional": True,
            "conditional_event_shape": 2,
            "kernel_constraint": "max_norm",
            "bias_regularizer": "l1",
        },
    ],
    ids=["random", "conditional"],
)
def test_config_holds_all_arguments(arguments):
    made = network(
        **arguments, kernel_initializer=keras.initializers.VarianceScaling(0.1), name="made"
    )
    rebuilt = tfpl.AutoregressiveNetwork.from_config(made.get_config())
    assert rebuilt.get_config() == made.get_config()
    rebuilt.build((None, 4))
    rebuilt.set_weights(made.get_weights())
    kwargs = {"conditional_input": X[:, :2]} if "conditional" in arguments else {}
    np.testing.assert_array_equal(rebuilt(X, **kwargs), made(X, **kwargs))


# The flow

GRID = np.arange(-12.0, 12.0, 0.06)


def flow_model(event_size=2, dtype=None, convert="sample", **kwargs):
    made = network(event_size, dtype=dtype, **kwargs)
    return keras.Sequential(
        [
            keras.Input((2 * event_size,)),
            tfpl.MultivariateNormalDiag(event_size, dtype=dtype),
            tfpl.AutoregressiveTransform(made, convert, dtype=dtype),
        ]
    )


@keras.saving.register_keras_serializable(package="test_autoregressive")
def seeded(p):
    return p.sample(seed=[1, 2])


PARAMS = RANDOM.normal(size=(5, 4))


def test_density_integrates_to_one():
    keras.config.set_dtype_policy("float64")
    p = flow_model()(PARAMS[:2])
    outcomes = np.stack(np.meshgrid(GRID, GRID, indexing="ij"), -1).reshape(-1, 1, 2)
    np.testing.assert_allclose(tf.reduce_sum(p.prob(outcomes), 0) * 0.06**2, [1.0, 1.0], rtol=1e-3)


def test_density_is_the_change_of_variables():
    """log p(x) = log p(u) + log |du/dx|, with the whole Jacobian's determinant."""
    keras.config.set_dtype_policy("float64")
    model = flow_model(4, input_order=[2, 4, 1, 3])
    p, x = model(RANDOM.normal(size=(6, 8))), tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        u = p.bijector.inverse(x)
    log_det = np.linalg.slogdet(tape.batch_jacobian(u, x))[1]
    np.testing.assert_allclose(p.log_prob(x), p.distribution.log_prob(u) + log_det, rtol=1e-10)
    np.testing.assert_allclose(p.bijector.forward(u), x, rtol=1e-10)


def test_draws_follow_the_density():
    """The expectation of x over draws equals its integral over the density."""
    keras.config.set_dtype_policy("float64")
    p = flow_model()(PARAMS[:1])
    outcomes = np.stack(np.meshgrid(GRID, GRID, indexing="ij"), -1).reshape(-1, 1, 2)
    weights = p.prob(outcomes).numpy()[..., np.newaxis] * 0.06**2
    x = p.sample(20_000, seed=[1, 2]).numpy()
    error = x.std(0) / 20_000**0.5
    mean = (weights * outcomes).sum(0)
    assert (np.abs(x.mean(0) - mean) < 4.0 * error).all()
    np.testing.assert_allclose(
        x.std(0), np.sqrt((weights * (outcomes - mean) ** 2).sum(0)), rtol=0.03
    )


@pytest.mark.parametrize("of", ["density", "draw"])
def test_gradient_against_finite_differences(of):
    keras.config.set_dtype_policy("float64")
    model, x = flow_model(), RANDOM.normal(size=(5, 2))

    def value():
        p = model(PARAMS)
        return tf.reduce_sum(p.log_prob(x) if of == "density" else p.sample(seed=[1, 2]) ** 2)

    with tf.GradientTape() as tape:
        total = value()
    for weight, gradient in zip(
        model.trainable_weights, tape.gradient(total, model.trainable_weights), strict=True
    ):
        index = np.unravel_index(np.argmax(np.abs(gradient)), gradient.shape)
        step = np.zeros(weight.shape)
        step[index] = 1e-6
        weight.assign_add(step)
        above = value()
        weight.assign_sub(2.0 * step)
        difference = above - value()
        weight.assign_add(step)
        np.testing.assert_allclose(gradient.numpy()[index], difference / 2e-6, rtol=1e-5)


@pytest.mark.slow
def test_density_estimation_of_tfp_docstring():
    """x2 ~ N(0, 2), x1 ~ N(x2^2 / 4, 1): with x2 first the flow can be exact, so the loss nears the entropy."""
    random = np.random.default_rng(0)
    x2 = 2.0 * random.normal(size=4000)
    data = np.stack([random.normal(size=4000) + x2**2 / 4.0, x2], -1).astype("float32")
    made = tfpl.AutoregressiveNetwork(
        params=2, hidden_units=[20, 20], activation="relu", input_order="right-to-left"
    )
    base = tfpl.DistributionLambda(
        lambda t: tfd.MultivariateNormalDiag(tf.zeros([*tf.unstack(tf.shape(t))[:-1], 2]))
    )
    model = keras.Sequential([keras.Input((0,)), base, tfpl.AutoregressiveTransform(made)])
    schedule = keras.optimizers.schedules.CosineDecay(0.02, 400)
    model.compile(
        keras.optimizers.Adam(schedule), loss=lambda x, p: -p.log_prob(x), jit_compile=True
    )
    model.fit(np.zeros([4000, 0], "float32"), data, batch_size=100, epochs=10, verbose=0)
    loss = model.evaluate(np.zeros([4000, 0], "float32"), data, batch_size=1000, verbose=0)
    entropy = np.log(2.0 * np.pi * np.e) + np.log(2.0)
    assert abs(loss - entropy) < 0.08
    p = model(tf.zeros([4000, 0]))
    np.testing.assert_allclose(-np.mean(p.log_prob(data)), loss, rtol=1e-5)  # without XLA
    x = p.sample(seed=[1, 2]).numpy()
    np.testing.assert_allclose(
        [x[:, 0].mean(), x[:, 1].mean(), x[:, 1].std()], [1.0, 0.0, 2.0], atol=0.2
    )
    np.testing.assert_allclose(
        np.corrcoef(x[:, 1] ** 2, x[:, 0])[0, 1], (2.0 / 3.0) ** 0.5, atol=0.08
    )


def test_flow_tracks_its_network_saves_and_exports(tmp_path):
    random = {"input_order": "random", "hidden_degrees": "random"}
    model = flow_model(dtype="float32", convert=seeded, **random)
    assert len(model.trainable_weights) == 6
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    x = PARAMS.astype("float32")
    p = model(x)
    np.testing.assert_array_equal(reloaded(x), p)
    np.testing.assert_array_equal(reloaded(x).log_prob(x[:, :2]), p.log_prob(x[:, :2]))
    np.testing.assert_allclose(model.predict(x, verbose=0), p, rtol=1e-5)
    model.export(str(tmp_path / "exported"), verbose=False)
    served = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(served.serve(x), p, rtol=1e-5)


def test_flow_in_functional_models_and_as_first_layer():
    x, made = keras.Input((4,)), network(2, dtype="float32")
    flow = tfpl.AutoregressiveTransform(made, seeded)
    model = keras.Model(x, flow(tfpl.MultivariateNormalDiag(2)(x)))
    assert model.output_shape == (None, 2)
    assert "TransformedDistribution" in repr(model(PARAMS))
    alone = tfpl.AutoregressiveTransform(made)(tfpl.MultivariateNormalDiag(2)(PARAMS))
    np.testing.assert_allclose(
        alone.log_prob(PARAMS[:, :2]), model(PARAMS).log_prob(PARAMS[:, :2]), rtol=1e-6
    )


def test_flow_between_a_divergence_and_the_next_layer():
    """A posterior by a flow, its Monte Carlo divergence, and a decoder that takes the draw."""
    prior = tfd.MultivariateNormalDiag([0.0, 0.0])
    model = flow_model(dtype="float32", convert=seeded)
    model.add(tfpl.KLDivergenceAddLoss(prior))
    model.add(keras.layers.Dense(3))
    outputs, p = model(PARAMS), keras.Sequential(model.layers[:2])(PARAMS)
    z = p.sample(seed=[1, 2])
    np.testing.assert_allclose(outputs, model.layers[-1](z), rtol=1e-5)
    np.testing.assert_allclose(
        model.losses, [np.mean(p.log_prob(z) - prior.log_prob(z))], rtol=1e-5
    )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_densities_are_float32_under_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    p = flow_model(event_size=2)(PARAMS)
    log_prob = p.log_prob(tf.fill([5, 2], 7.0001))
    assert p.dtype == log_prob.dtype == tf.float32
    made = p.bijector.parameters["shift_and_log_scale_fn"]
    assert made(tf.zeros([2])).dtype == tf.float32


ERRORS = {
    "params": (
        lambda: tfpl.AutoregressiveTransform(tfpl.AutoregressiveNetwork(3)),
        "params=2.*received params=3",
    ),
    "legacy": (
        lambda: tfpl.AutoregressiveTransform(tfb.AutoregressiveNetwork(2)),
        "a layer of Keras 3, received",
    ),
    "tensor": (
        lambda: tfpl.AutoregressiveTransform(network(4))(X),
        r"(?s)belongs after a distribution layer, received",
    ),
    "event": (
        lambda: tfpl.AutoregressiveNetwork(2, [2, 3]),
        r"event_shape must have one axis, received \(2, 3\)",
    ),
    "size": (
        lambda: tfpl.AutoregressiveNetwork(2, 4)(X[:, :3]),
        r"inputs with 4 values, received shape \(6, 3\)",
    ),
    "other size": (
        lambda: network(4)(X[:, :3]),
        r"expected axis -1 of input shape to have value 4",
    ),
    "order": (
        lambda: network(4, input_order=[1, 1, 2, 3]),
        r"each of 1 ... 4 once, received \[1, 1, 2, 3\]",
    ),
    "name": (
        lambda: tfpl.AutoregressiveNetwork(2, input_order="up"),
        "must be one of .*, received 'up'",
    ),
    "degrees": (
        lambda: tfpl.AutoregressiveNetwork(2, hidden_degrees="up"),
        "must be one of .*, received 'up'",
    ),
    "needs": (
        lambda: tfpl.AutoregressiveNetwork(2, conditional=True),
        "needs event_shape and conditional_event_shape",
    ),
    "unasked": (
        lambda: tfpl.AutoregressiveNetwork(2, conditional_event_shape=3),
        "given to a network with conditional",
    ),
    "unconditional": (
        lambda: network(4)(X, conditional_input=X),
        r"(?s)conditional_input by name if conditional",
    ),
}


@pytest.mark.parametrize(("act", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(act, message):
    with pytest.raises((TypeError, ValueError), match=message):
        act()
