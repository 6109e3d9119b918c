"""Dense and convolutional layers with random weights: a row each, against tfp.layers with the same weights."""

import dataclasses
import functools
import inspect
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import layers as tfpl

tfd = tfp.distributions
RNG = np.random.default_rng(0)
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


@dataclasses.dataclass
class Case:
    """A layer's name, arguments, the shape of one example, and that of its output."""

    name: str
    arguments: dict
    shape: tuple
    output_shape: tuple

    def __str__(self):
        return "-".join([self.name, *map(str, self.arguments.values())])

    def make(self, layers=tfpl, **kwargs):
        return getattr(layers, self.name)(**{**self.arguments, **kwargs})

    def x(self, batch=5):
        return np.random.default_rng(1).normal(size=(batch, *self.shape)).astype("float32")

    def pair(self, **kwargs):
        """The layer of tfp.layers and this package's, with equal weights."""
        theirs, ours = (
            self.make(layers, **{name: make(layers) for name, make in kwargs.items()})
            for layers in (tfp.layers, tfpl)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TFP's, of the names it uses in tf_keras
            theirs(self.x())
        ours(self.x())
        rng = np.random.default_rng(2)
        ours.set_weights([0.5 * rng.normal(size=w.shape) - 0.5 for w in ours.get_weights()])
        theirs.set_weights(ours.get_weights())
        return theirs, ours

    @property
    def is_drawn_once(self):
        return "Reparam" in self.name and "Local" not in self.name


CONVOLUTION = {"filters": 4, "kernel_size": 3}
CASES = [
    *(
        Case(f"Dense{kind}", {"units": 2}, (3,), (2,))
        for kind in ("Reparameterization", "LocalReparameterization", "Flipout")
    ),
    *(
        Case(
            f"Convolution{rank}D{kind}",
            CONVOLUTION,
            (*(5, 6, 4)[:rank], 2),
            (*(3, 4, 2)[:rank], 4),
        )
        for rank in (1, 2, 3)
        for kind in ("Reparameterization", "Flipout")
    ),
    Case("DenseFlipout", {"units": 2, "activation": "tanh"}, (4, 3), (4, 2)),
    Case(
        "Convolution2DFlipout",
        {"filters": 4, "kernel_size": (3, 2), "strides": 2, "padding": "SAME"},
        (5, 6, 2),
        (3, 3, 4),
    ),
    Case(
        "Convolution2DReparameterization",
        {"filters": 3, "kernel_size": 2, "dilation_rate": 2, "activation": "relu"},
        (5, 6, 2),
        (3, 4, 3),
    ),
]
FIRST = [
    Case(
        name,
        {**CONVOLUTION, "data_format": "channels_first", "activation": "softmax"},
        (2, *(5, 6, 4)[:rank]),
        (4, *(3, 4, 2)[:rank]),
    )
    for rank in (1, 2, 3)
    for name in (f"Convolution{rank}DReparameterization", f"Convolution{rank}DFlipout")
]
each = pytest.mark.parametrize("case", CASES, ids=str)
each_format = pytest.mark.parametrize("case", CASES + FIRST, ids=str)


def as_variables(layer):
    """TensorFlow's variables; in tf_keras, `value` is a method."""
    return [w.value if isinstance(w, keras.Variable) else w for w in layer.trainable_weights]


def at_one_stddev(layers):
    """A tensor for a posterior that is no draw, so that both packages see the same."""
    return lambda posterior: posterior.mean() + posterior.stddev()


def at_the_mean(layers):
    return lambda posterior: posterior.mean()


@each
@pytest.mark.parametrize("has_random_bias", [False, True], ids=["bias", "random bias"])
def test_outputs_divergences_and_gradients_are_those_of_tfp(case, has_random_bias):
    """Of draws replaced by the mean plus the standard deviation (the mean for Flipout, whose signs are random)."""
    point = at_one_stddev if "Flipout" not in case.name else at_the_mean
    arguments = {"kernel_posterior_tensor_fn": point, "bias_posterior_tensor_fn": at_one_stddev}
    if has_random_bias:
        arguments["bias_posterior_fn"] = lambda L: L.default_mean_field_normal_fn()
        arguments["bias_prior_fn"] = lambda L: L.default_multivariate_normal_fn
    theirs, ours = case.pair(**arguments)
    results = []
    for layer in (theirs, ours):
        with tf.GradientTape() as tape:
            output = layer(case.x())
            loss = tf.reduce_sum(output**2) + tf.add_n(layer.losses)
        results.append([output, *layer.losses, *tape.gradient(loss, as_variables(layer))])
    assert len(results[0]) == len(results[1]) == (7 if has_random_bias else 5)
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-5)


@each
def test_weights_are_those_of_tfp_in_name_shape_and_order(case):
    theirs, ours = case.pair()
    assert [w.name.split("/")[-1].split(":")[0] for w in theirs.weights] == [
        w.name for w in ours.weights
    ]
    assert [w.shape for w in theirs.get_weights()] == [w.shape for w in ours.get_weights()]


@pytest.mark.parametrize("case", [c for c in CASES if "activation" not in c.arguments], ids=str)
@pytest.mark.rows(4)
def test_moments_of_outputs(case):
    """Of many draws: the mean and the variance of a linear map with independent weights; TFP's, too."""
    theirs, ours = case.pair()
    x = case.x(1)
    posterior = ours.normal_kernel()
    mean = ours.linear(x, posterior.loc) + ours.bias_posterior.mean()
    variance = ours.linear(tf.square(x), tf.square(posterior.stddev()))
    number = 4_000
    error = 6 * np.sqrt(variance / number) + 1e-6
    for layer in (ours, theirs):
        if case.is_drawn_once:
            draws = tf.function(
                lambda layer=layer: tf.map_fn(lambda _: layer(x)[0], tf.zeros(number))
            )()
        else:
            draws = layer(np.repeat(x, number, 0))
            if "Flipout" in case.name:  # one deviation in each call, with random signs
                draws = tf.concat([draws, *(layer(np.repeat(x, 40, 0)) for _ in range(60))], 0)
                draws = draws[number:]
                error = 6 * np.sqrt(variance / 60)
        np.testing.assert_array_less(abs(tf.reduce_mean(draws, 0) - mean[0]), error[0] + 1e-5)
        ratio = tf.math.reduce_variance(draws, 0) / variance[0]
        assert abs(float(tf.reduce_mean(ratio)) - 1) < 0.25


@pytest.mark.parametrize("case", CASES[:9], ids=str)
def test_examples_of_a_batch_share_a_draw_or_not(case):
    """With one draw for all, equal examples have equal outputs."""
    outputs = case.make(seed=0)(np.repeat(case.x(1), 64, 0)).numpy().reshape(64, -1)
    assert (np.ptp(outputs, 0).max() == 0) == case.is_drawn_once


@pytest.mark.parametrize("names", [CASES[:3], CASES[5:7]], ids=["dense", "convolution"])
def test_flipout_has_less_noise_than_one_draw_for_all(names):
    """The variance of the gradient of a mean over 64 examples (Wen et al., 2018, section 4.1)."""
    noise = {}
    for case in names:
        layer = case.make(seed=1)
        x = case.x(64)
        layer(x)

        @tf.function
        def gradient(layer=layer, x=x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.reduce_sum((layer(x) - 1.0) ** 2, -1))
            return tape.gradient(loss, as_variables(layer)[0])

        noise[case.name] = np.var([gradient() for _ in range(200)], 0).mean()
    one_draw, *others = noise.values()
    assert all(other < 0.5 * one_draw for other in others), noise


@each_format
def test_shapes(case):
    layer = case.make()
    assert layer.compute_output_shape((None, *case.shape)) == (None, *case.output_shape)
    inputs = keras.Input(case.shape)
    assert layer(inputs).shape == (None, *case.output_shape)
    assert layer(case.x()).shape == (5, *case.output_shape)
    assert keras.Model(inputs, layer(inputs))(case.x(1)).shape == (1, *case.output_shape)


@pytest.mark.parametrize("case", FIRST, ids=str)
def test_channels_first_equals_channels_last(case):
    arguments = {"kernel_posterior_tensor_fn": "mean", "activation": None}
    first = case.make(**arguments)
    last = case.make(**arguments, data_format="channels_last")
    x = case.x()
    expected = first(x)
    last(np.moveaxis(x, 1, -1))
    last.set_weights(first.get_weights())
    close(np.moveaxis(expected, 1, -1), last(np.moveaxis(x, 1, -1)))


@pytest.mark.parametrize("case", CASES[:9], ids=str)
def test_equal_seeds_draw_equally(case):
    first, second, other = case.make(seed=3), case.make(seed=3), case.make(seed=4)
    x = case.x()
    for layer in (first, second, other):
        layer.build(x.shape)
        layer.set_weights(first.get_weights())
    draws = [layer(x).numpy() for layer in (first, second, other)]
    close(draws[0], draws[1], rtol=0, atol=0)
    assert abs(draws[0] - draws[2]).max() > 1e-4
    assert abs(first(x) - draws[0]).numpy().max() > 1e-4, "each call draws anew"


def model_of(case, **kwargs):
    return keras.Sequential(
        [
            keras.Input(case.shape),
            case.make(kernel_divergence_fn=tfpl.KLPerExample(100), name="random", **kwargs),
            keras.layers.Flatten(),
            tfpl.DenseFlipout(2, seed=5),
            tfpl.IndependentNormal(1),
        ]
    )


def negative_log_likelihood(y, distribution):
    return -distribution.log_prob(y)


@pytest.mark.xla
@pytest.mark.parametrize(
    ("case", "policy"),
    [
        pytest.param(CASES[6], "float32", marks=pytest.mark.slow),
        (CASES[0], "mixed_float16"),
        pytest.param(CASES[6], "mixed_float16", marks=pytest.mark.slow),
        pytest.param(CASES[1], "float64", marks=pytest.mark.slow),
    ],
    ids=str,
)
@pytest.mark.rows(1, 1)
def test_a_model_trains_saves_and_is_served(case, policy, tmp_path):
    keras.utils.set_random_seed(0)
    x, dtype = case.x(64), keras.DTypePolicy(policy)
    y = x.reshape(64, -1)[:, :1]
    old = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_dtype_policy(policy)
    keras.config.set_floatx(dtype.variable_dtype)
    try:
        model = model_of(case, seed=7)
        model.compile(keras.optimizers.Adam(0.02), negative_log_likelihood, jit_compile=True)
        history = model.fit(x, y, epochs=3, batch_size=16, verbose=0).history["loss"]
        layer = model.get_layer("random")
        assert np.isfinite(history).all()
        assert history[-1] < history[0]
        assert {w.dtype for w in layer.weights} == {dtype.variable_dtype}
        assert layer(x).dtype == dtype.compute_dtype
        assert layer.losses[0].dtype == dtype.variable_dtype
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
        for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
            close(one, other, rtol=0, atol=0)
        again = loaded.get_layer("random")
        assert again.kernel_divergence_fn.num_examples == 100
        again(x), layer(x)
        close(again.losses[0], layer.losses[0])
        model.export(tmp_path / "served", verbose=False)
    finally:
        keras.config.set_dtype_policy(old[0])
        keras.config.set_floatx(old[1])
    served = tf.saved_model.load(tmp_path / "served")
    first, second = served.serve(x[:7]), served.serve(x[:7])
    assert first.shape == (7, 1)
    assert abs(first - second).numpy().max() > 0, "draws in each call"


def test_a_subclassed_model_trains_without_being_built_before():
    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.last = tfpl.DenseFlipout(3), tfpl.DenseReparameterization(1)

        def call(self, x):
            return self.last(self.first(x))

    network = Network()
    network.compile("sgd", "mse")
    network.fit(CASES[0].x(8), np.ones([8, 1]), verbose=0)
    assert len(network.trainable_weights) == 6
    assert len(network.losses) == 2


def test_mirrored_strategy():
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = keras.Sequential(
            [keras.Input((3,)), tfpl.DenseFlipout(2), tfpl.DenseReparameterization(1)]
        )
        model.compile("adam", "mse")
    before = model.get_weights()
    model.fit(CASES[0].x(8), np.ones([8, 1]), verbose=0)
    assert all(abs(a - b).max() > 0 for a, b in zip(before, model.get_weights(), strict=True))


@each
def test_config(case):
    layer = case.make(
        seed=2,
        kernel_posterior_fn=tfpl.default_mean_field_normal_fn(
            loc_initializer="ones", loc_constraint="non_neg", loc_regularizer="l2"
        ),
        bias_posterior_fn=None,
        kernel_prior_fn=None,
        activity_regularizer="l1",
    )
    rebuilt = type(layer).from_config(layer.get_config())
    assert rebuilt.get_config() == layer.get_config()
    rebuilt(case.x())
    assert [w.name for w in rebuilt.weights] == [
        "kernel_posterior_loc",
        "kernel_posterior_untransformed_scale",
    ]
    close(rebuilt.weights[0], np.ones(rebuilt.weights[0].shape))
    assert rebuilt.weights[0].constraint is not None
    assert len(rebuilt.losses) == 2, "of the activity and of the location"


def test_two_layers_begin_differently_and_as_tfp_does():
    """In Keras 3, an initializer draws the same values each time."""
    first, second = tfpl.DenseFlipout(200), tfpl.DenseFlipout(200)
    first.build((None, 300)), second.build((None, 300))
    loc, scale = (np.asarray(weight) for weight in first.weights[:2])
    assert abs(loc - second.weights[0]).max() > 0.1
    for values, mean in ((loc, 0.0), (scale, -3.0)):
        assert abs(values.mean() - mean) < 0.002
        assert abs(values.std() - 0.1) < 0.002


class Recorder:
    """A divergence that keeps its arguments."""

    def __call__(self, *arguments):
        self.arguments = arguments
        return tf.constant(3.0)


@pytest.mark.parametrize("case", CASES[:5], ids=str)
def test_functions_get_what_tfp_gives_them(case):
    """The posterior and prior that were made, and the draw, None where the kernel is not drawn."""
    made, divergence = {}, Recorder()

    def make(dtype, shape, name, trainable, add_variable_fn):
        made[name] = dtype, tuple(shape), trainable
        loc = add_variable_fn(
            name=name, shape=shape, dtype=dtype, initializer="zeros", trainable=trainable
        )
        return tfd.Independent(tfd.Normal(loc, tf.ones([], dtype)), len(shape))

    layer = case.make(
        kernel_posterior_fn=make,
        kernel_prior_fn=make,
        kernel_divergence_fn=divergence,
        bias_posterior_fn=make,
        trainable=False,
    )
    layer(case.x())
    kernel = layer.kernel_shape(case.shape[-1])
    assert made == {
        "kernel_posterior": (tf.float32, kernel, True),
        "kernel_prior": (tf.float32, kernel, True),
        "bias_posterior": (tf.float32, kernel[-1:], True),
    }
    posterior, prior, draw = divergence.arguments
    assert posterior is layer.kernel_posterior
    assert prior is layer.kernel_prior
    assert draw is layer.kernel_posterior_tensor
    assert (draw is None) != case.is_drawn_once
    assert [float(loss) for loss in layer.losses] == [3.0]
    assert len(layer.weights) == 3
    assert not layer.trainable_weights


def test_what_was_frozen_can_be_trained_again():
    layer = tfpl.DenseFlipout(1, trainable=False)
    layer.build((None, 3))
    assert not layer.trainable_weights
    layer.trainable = True
    assert len(layer.trainable_weights) == 3


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16", "float64"])
@pytest.mark.parametrize("case", CASES[:3], ids=str)
def test_dtypes_and_large_inputs(case, policy):
    layer = case.make(dtype=policy)
    outputs = layer(300.0 * case.x())
    assert outputs.dtype == keras.DTypePolicy(policy).compute_dtype
    assert np.isfinite(np.asarray(outputs, "float32")).all()


def test_an_example_of_zeros_has_finite_gradients():
    layer = tfpl.DenseLocalReparameterization(2)
    layer(tf.zeros([1, 3]))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(tf.zeros([1, 3])))
    assert all(np.isfinite(g).all() for g in tape.gradient(loss, as_variables(layer)))


def student(dtype, shape, name, trainable, add_variable_fn):
    return tfd.Independent(
        tfd.StudentT(3.0, tf.zeros(shape, dtype), tf.ones([], dtype)), len(shape)
    )


ERRORS = {
    "another posterior": (
        lambda: tfpl.DenseFlipout(2, kernel_posterior_fn=student)(np.ones([1, 3])),
        r"DenseFlipout needs a kernel_posterior_fn that returns tfd.Independent\(tfd.Normal",
    ),
    "unknown features": (
        lambda: tfpl.DenseFlipout(2)(keras.Input((None,))),
        r"DenseFlipout needs a known number of features, received shape \(None, None\)",
    ),
    "no units": (lambda: tfpl.DenseFlipout(0), r"must be a whole number of at least 1"),
    "no filters": (lambda: tfpl.Convolution2DFlipout(0, 3), r"filters"),
    "lambda": (
        lambda: tfpl.DenseFlipout(2, kernel_divergence_fn=lambda q, p, _: 0.0).get_config(),
        r"kernel_divergence_fn=.* cannot be saved. Decorate",
    ),
}


@pytest.mark.parametrize(("act", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(act, message):
    with pytest.raises((TypeError, ValueError), match=message):
        act()


@pytest.mark.parametrize("case", CASES[:9], ids=str)
def test_arguments_are_those_of_tfp(case):
    theirs = inspect.signature(getattr(tfp.layers, case.name)).parameters
    layer = case.make(seed=1)
    for name, parameter in theirs.items():
        if name not in (
            "kwargs",
            "filters",
            "units",
            "kernel_size",
            "activity_regularizer",
            "trainable",
        ):
            got = getattr(layer, name)
            default = parameter.default
            if default is None or isinstance(default, str):
                assert got == (1 if name == "seed" else default) or name == "activation", name
            else:
                assert got is not None, name


def test_each_layer_has_a_row():
    named = {name for name in tfpl.__all__ if name.endswith(("Flipout", "Reparameterization"))}
    assert named == {case.name for case in CASES}
