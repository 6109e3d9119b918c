"""Numbers under stress: training stays finite, or ends with the step, the layer and the example that are not."""

import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_vae
from tfp_vae import layers as tfpl
from tfp_vae import not_finite
from tfp_vae.not_finite import TrainingDiverged, first_not_finite

X = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")


def compiled(learning_rate=1e-3, run_eagerly=False, likelihood=tfpl.IndependentNormal, **kwargs):
    vae = make_vae((3,), 2, likelihood, hidden_sizes=(4,), **kwargs)
    vae.compile(keras.optimizers.Adam(learning_rate), run_eagerly=run_eagerly)
    return vae


def fit(vae, x, **kwargs):
    vae.fit(x, batch_size=None if isinstance(x, tf.data.Dataset) else 20, verbose=0, **kwargs)


def with_row(number, value):
    x = X.copy()
    x[number] = value
    return x


def test_the_example_is_named_and_the_weights_are_those_before_the_epoch():
    """In the order in which Keras has shuffled the examples."""
    vae = compiled()
    fit(vae, X)
    before = vae.get_weights()
    seen = []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    with pytest.raises(
        TrainingDiverged,
        match=r"the loss of epoch 1 is nan. It began in step [123] of the epoch: the term "
        r"log_likelihood is not finite for example 47. The model has its weights from before it "
        r"again. Try a lower learning rate",
    ):
        fit(vae, with_row(47, 1e30), callbacks=[callback])
    for one, other in zip(before, vae.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert int(vae.optimizer.iterations) == 3
    assert seen == [], "no callback keeps what has diverged"
    fit(vae, X)


def test_the_row_of_a_data_set_is_named():
    """Of which only the first batch is checked before training; it goes on from epoch to epoch."""
    batches = tf.data.Dataset.from_tensor_slices(with_row(47, np.nan)).batch(20).repeat()
    with pytest.raises(
        TrainingDiverged,
        match=r"loss of epoch 2 .* in step 1 of the epoch: x holds .*first in row 7",
    ):
        fit(compiled(), batches, steps_per_epoch=2, epochs=3)


def test_single_steps_are_repeated_too():
    with pytest.raises(TrainingDiverged, match=r"began in step \d of the epoch: .*log_likelihood"):
        fit(compiled(run_eagerly=True), with_row(47, 1e30))


def test_what_cannot_be_repeated_is_told_all_the_same(monkeypatch):
    monkeypatch.setattr(not_finite, "MOST_BYTES", 0)
    with pytest.raises(TrainingDiverged, match=r"the loss of epoch 1 is nan. Try a lower"):
        fit(compiled(), with_row(47, 1e30))


@keras.saving.register_keras_serializable("tests")
class Reciprocal(keras.layers.Layer):
    """Not finite where a value is zero."""

    def call(self, x):
        return 1.0 / x


def test_the_first_layer_is_named_also_inside_of_another_network():
    inner = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(3), Reciprocal(name="reciprocal")], name="inner"
    )
    inner.layers[0].set_weights([np.eye(3), np.zeros(3)])
    vae = compiled()
    size = tfpl.MultivariateNormalDiag.params_size(2)
    vae = type(vae)(
        keras.Sequential([inner, keras.layers.Dense(size), tfpl.MultivariateNormalDiag(2)]),
        vae.decoder,
    )
    vae.compile("adam")
    words = first_not_finite(vae, with_row([4, 9], 0.0)[:20], np.arange(100, 120))
    assert words == (
        "the output of layer reciprocal of the encoder is not finite for example 104, and 1 more of 20"
    )
    words = first_not_finite(vae, X[:20])
    assert words.startswith("its terms are finite")


def of_one_feature(x, **kwargs):
    return make_vae((1,), 1, tfpl.IndependentNormal, **kwargs)


def of_shape(x, **kwargs):
    return make_vae(x.shape[1:], 2, tfpl.IndependentNormal, hidden_sizes=(4,), **kwargs)


def of_bits(x, **kwargs):
    """The logits begin at 1,000 and more."""
    likelihood = tfpl.IndependentBernoulli(x.shape[1:])
    size = likelihood.params_size(x.shape[1:])
    decoder = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(size, bias_initializer="ones"),
            keras.layers.Rescaling(1e3),
        ]
    )
    vae = make_vae(x.shape[1:], 2, tfpl.IndependentBernoulli, hidden_sizes=(4,))
    decoder.add(likelihood)
    return type(vae)(vae.encoder, decoder)


RANDOM = np.random.default_rng(0)
STRESS = {
    "constant images": (np.full([40, 6, 6, 1], 0.5), of_shape),
    "black images": (np.zeros([40, 6, 6, 1]), of_shape),
    "one example": (X[:1], of_shape),
    "one feature": (X[:, :1], of_one_feature),
    "100,000 dimensions": (np.zeros([4, 100_000]), of_shape),
    "values of a million": (1e6 * X, of_shape),
    "a tiny scale": (1e-12 * X, of_shape),
    "a huge scale": (1e18 * X, of_shape),
    "saturated logits": (np.float32(RANDOM.random((40, 20)) < 0.5), of_bits),
    "float16": (X, of_shape, "float16"),
    "mixed float16": (X, of_shape, "mixed_float16"),
    "mixed float16, values of a million": (1e6 * X, of_shape, "mixed_float16"),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The posterior has collapsed")  # of one feature, it may
@pytest.mark.parametrize("name", STRESS)
@pytest.mark.rows(0, 5)
def test_many_steps_are_finite_or_the_error_says_where_they_are_not(name, full):
    x, make, *policy = STRESS[name]
    keras.config.set_dtype_policy(*policy or ["float32"])
    vae = make(np.float32(x))
    vae.compile(keras.optimizers.Adam(1e-3), steps_per_execution=10)
    steps = 2000 if full else 20
    batches = tf.data.Dataset.from_tensor_slices(np.float32(x)).repeat().batch(20)
    words = None
    try:
        losses = vae.fit(batches, steps_per_epoch=steps // 2, epochs=2, verbose=0).history["loss"]
    except ValueError as error:  # of training, or of data that are refused
        words = str(error)
    if words is None:
        assert all(map(math.isfinite, losses))
        assert all(np.isfinite(weight).all() for weight in vae.get_weights())
    else:
        assert re.search(r"It began in step \d+ .* not finite for row|gradient|first in row", words)
