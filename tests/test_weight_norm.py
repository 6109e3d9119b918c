"""Weight normalization: against tfp.layers with the same weights, and against its equations."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow_probability.python.layers import weight_norm

from tests.conftest import mostly_slow
from tfp_vae import layers as tfpl

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(5, 6, 7, 3)).astype("float32")
ROWS = RNG.normal(size=(16, 3)).astype("float32")
LAYERS = {
    "dense": (lambda K: K.layers.Dense(4, activation="tanh"), ROWS),
    "no bias": (lambda K: K.layers.Dense(4, use_bias=False), ROWS),
    "convolution": (lambda K: K.layers.Conv2D(4, 3, activation="relu"), IMAGES),
    "transposed": (lambda K: K.layers.Conv2DTranspose(4, 3), IMAGES),
}
each = pytest.mark.parametrize(("make", "x"), LAYERS.values(), ids=LAYERS)


@each
@pytest.mark.parametrize("data_init", [True, False], ids=["from data", "from kernel"])
def test_initial_values_outputs_and_gradients_are_those_of_tfp(make, x, data_init):
    theirs = weight_norm.WeightNorm(make(tf_keras), data_init=data_init)
    ours = tfpl.WeightNorm(make(keras), data_init=data_init)
    theirs.build(x.shape), ours.build(x.shape)
    kernel = RNG.normal(size=ours.v.shape)
    theirs.v.assign(kernel), ours.v.assign(kernel)
    results = []
    for layer in (theirs, ours):
        outputs = [layer(x), layer(x[:2])]
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer(x) ** 3)
        weights = [layer.v, layer.g] + ([layer.layer.bias] if layer.layer.bias is not None else [])
        values = [getattr(w, "_value", w) if isinstance(w, keras.Variable) else w for w in weights]
        results.append(
            [*outputs, *map(tf.convert_to_tensor, values), *tape.gradient(total, values)]
        )
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-4)
    assert [w.shape for w in theirs.get_weights()] == [w.shape for w in ours.get_weights()]
    assert len(ours.trainable_weights) == len(theirs.trainable_weights)


def test_the_layer_itself_is_left_as_it_was():
    inner = keras.layers.Dense(4, activation="tanh")
    tfpl.WeightNorm(inner)(ROWS)
    assert inner.activation is keras.activations.tanh
    assert inner.kernel in inner.weights


@pytest.mark.xla
@pytest.mark.parametrize("jit_compile", mostly_slow([False, True], False))
def test_a_model_trains_saves_and_is_served(jit_compile, tmp_path):
    """The first batch sets the values; neither the next, nor a reload, sets them again."""
    model = keras.Sequential(
        [
            keras.Input((3,)),
            tfpl.WeightNorm(keras.layers.Dense(4, activation="tanh")),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=jit_compile)
    model.fit(ROWS, ROWS[:, :1], batch_size=8, shuffle=False, verbose=0)
    layer = model.layers[0]
    v = np.asarray(layer.v)
    plain = ROWS[:8] @ (v / np.linalg.norm(v, axis=0))
    np.testing.assert_allclose(layer.g, 1 / plain.std(0), rtol=1e-4)
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=jit_compile)
    losses = model.fit(ROWS, ROWS[:, :1], epochs=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(ROWS), model(ROWS), rtol=1e-6)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(served.serve(ROWS[:3]), model(ROWS[:3]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16", "float64"])
def test_other_dtypes(policy):
    layer = tfpl.WeightNorm(keras.layers.Dense(2, dtype=policy))
    outputs = np.asarray(layer(ROWS), "float32")
    assert layer.g.dtype == layer.v.dtype == layer.layer.variable_dtype
    np.testing.assert_allclose(outputs.mean(0), 0.0, atol=0.05)
    np.testing.assert_allclose(outputs.std(0), 1.0, atol=0.05)


@pytest.mark.parametrize(
    "x", [np.ones([4, 3]), ROWS[:1], ROWS[:0]], ids=["constant", "one example", "empty"]
)
def test_a_first_batch_that_says_nothing_changes_nothing(x):
    inner = keras.layers.Dense(2)
    layer = tfpl.WeightNorm(inner)
    layer(x.astype("float32"))
    np.testing.assert_allclose(layer.g, np.linalg.norm(layer.v, axis=0), rtol=1e-5)
    np.testing.assert_array_equal(layer.bias, np.zeros(2))
    assert layer.initialized.numpy() == bool(len(x)), "an empty batch is not the first one"


@pytest.mark.parametrize(
    ("inner", "shape"),
    [
        (keras.layers.Conv1DTranspose(5, 3), (4, 6, 3)),
        (keras.layers.Conv3DTranspose(5, 2), (2, 3, 3, 3, 2)),
        (keras.layers.EinsumDense("ab,bc->ac", 5), (4, 3)),
    ],
    ids=["1D transposed", "3D transposed", "einsum"],
)
def test_other_layers_begin_with_variance_1(inner, shape):
    x = RNG.normal(size=shape).astype("float32")
    outputs = np.asarray(tfpl.WeightNorm(inner)(x))
    np.testing.assert_allclose(outputs.reshape(-1, 5).std(0), 1.0, rtol=1e-3)


@keras.saving.register_keras_serializable(package="test_weight_norm")
class Dropped(keras.layers.Dense):
    """A dense layer with dropout and without an activation of its own."""

    def __init__(self, units, **kwargs):
        super().__init__(units, activity_regularizer="l2", kernel_regularizer="l2", **kwargs)
        self.dropout = keras.layers.Dropout(0.5, seed=0)

    def call(self, inputs, training=None):
        return self.dropout(super().call(inputs), training=True)


def test_what_the_layer_changes_and_loses_stays():
    layer = tfpl.WeightNorm(Dropped(8))
    first = layer(ROWS)
    assert len(layer.losses) == 2
    assert abs(layer(ROWS) - first).numpy().max() > 0, "another mask in each call"


def test_without_data_it_is_the_layer_itself_before_any_call():
    inner = keras.layers.Dense(2)
    layer = tfpl.WeightNorm(inner, data_init=False)
    layer.build((None, 3))
    outputs, _ = layer.stateless_call(
        layer.trainable_variables, layer.non_trainable_variables, ROWS
    )
    np.testing.assert_allclose(outputs, ROWS @ np.asarray(inner.kernel), rtol=1e-4, atol=1e-5)


def test_inside_a_scope_with_other_weights():
    """`stateless_call` sees the values of its scope, the bias's too."""
    layer = tfpl.WeightNorm(keras.layers.Dense(2))
    layer(ROWS)
    given = [tf.convert_to_tensor(w) + 1.0 for w in layer.trainable_variables]
    outputs, _ = layer.stateless_call(given, layer.non_trainable_variables, ROWS)
    v, g, bias = (np.asarray(value) for value in given)
    np.testing.assert_allclose(
        outputs, ROWS @ (g * v / np.linalg.norm(v, axis=0)) + bias, rtol=1e-4, atol=1e-5
    )


ERRORS = {
    "no layer": (
        lambda: tfpl.WeightNorm("dense"),
        r"needs a Keras layer to wrap, received 'dense'",
    ),
    "biases of their own": (
        lambda: tfpl.WeightNorm(keras.layers.DepthwiseConv2D(3))(IMAGES),
        r"needs a bias for each of the 1 lengths .* use_bias=False",
    ),
    "more outputs than lengths": (
        lambda: tfpl.WeightNorm(keras.layers.DepthwiseConv2D(3, use_bias=False))(IMAGES),
        r"finds 3 outputs for 1 lengths .* data_init=False",
    ),
    "no kernel": (
        lambda: tfpl.WeightNorm(keras.layers.Flatten())(ROWS),
        r"needs a layer with a kernel",
    ),
}


@pytest.mark.parametrize(("act", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(act, message):
    with pytest.raises(ValueError, match=message), warnings.catch_warnings():
        act()
