"""Training by the block is Keras's own training: equal weights, callbacks, and metrics."""

import itertools
import queue
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import test_codes, test_conditional, test_mixed, test_normal_scale, test_schedules
from tests.conftest import make_vae, mostly_slow
from tfp_vae import blocks, networks, objectives, storage
from tfp_vae import layers as tfpl
from tfp_vae.layers.internals import order_of_keras
from tfp_vae.vae import VAE

pytestmark = pytest.mark.xla


def digits_of(digits):
    return digits.train[:110]  # in batches of 20 the last one is smaller


def sequence_of(layer):
    ends = [keras.layers.Flatten(), keras.layers.Dense(8)]
    return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Reshape((8, 8)), layer, *ends])


def convolutional(features):
    likelihood = tfpl.IndependentBinomial((8, 8, 1), total_count=16)
    encoder = keras.Sequential([features, tfpl.MultivariateNormalDiag(4)])
    return VAE(encoder, keras.Sequential([networks.mlp((4,), 64), likelihood]))


SCHEDULE = keras.optimizers.schedules.CosineDecay(1e-2, 30)
# How to make a model, its data, and further arguments of `fit`.
CASES = {
    "plain": (make_vae, digits_of, {}),
    "weights": (make_vae, digits_of, {"sample_weight": np.linspace(0.5, 2.0, 110)}),
    "validation": (make_vae, digits_of, {"validation_data": (np.ones([7, 8, 8, 1], "float32"),)}),
    "a data set": (
        make_vae,
        lambda digits: tf.data.Dataset.from_tensor_slices(digits_of(digits)).batch(20),
        {},
    ),
    "an endless data set": (
        make_vae,
        lambda digits: (
            tf.data.Dataset.from_tensor_slices(digits.train[:100])
            .batch(20, drop_remainder=True)
            .repeat()
        ),
        {"steps_per_epoch": 6},
    ),
    "some for validation": (
        make_vae,
        digits_of,
        {"validation_split": 0.3, "sample_weight": np.linspace(0.5, 2.0, 110)},
    ),
    "in order": (make_vae, digits_of, {"shuffle": False}),
    "a schedule": (
        lambda: make_vae(objective=objectives.ELBO(test_schedules.CYCLICAL)),
        digits_of,
        {},
    ),
    "a discriminator": (
        lambda: make_vae(objective=objectives.FactorVAE(hidden_sizes=(8,))),
        digits_of,
        {},
    ),
    "several draws": (lambda: make_vae(objective=objectives.IWAE(3, "dreg")), digits_of, {}),
    "codes": (lambda: test_codes.vq_vae(num_codes=32, momentum=0.5), digits_of, {}),
    "running errors": (test_normal_scale.sigma_vae, lambda digits: digits_of(digits) / 16, {}),
    "a condition": (test_conditional.of_labels, lambda digits: test_conditional.named(), {}),
    "images": (lambda: convolutional(networks.conv_encoder((8, 8, 1), 8)), digits_of, {}),
    "sequences": (lambda: convolutional(sequence_of(keras.layers.Conv1D(8, 3))), digits_of, {}),
    "recurrent": (lambda: convolutional(sequence_of(keras.layers.GRU(8))), digits_of, {}),
    "a table": (test_mixed.make_vae, lambda digits: test_mixed.rows(test_mixed.TRAIN, 70), {}),
}


def trained(name, digits, steps_per_execution, halves=False, jit_compile="auto"):
    """Train, and return the weights and the history."""
    make, choose, arguments = CASES[name]
    keras.utils.set_random_seed(0)
    vae, data = make(), choose(digits)
    vae.compile(
        keras.optimizers.Adam(SCHEDULE),
        steps_per_execution=steps_per_execution,
        jit_compile=jit_compile,
    )
    tf.random.set_seed(1)
    size = {} if isinstance(data, tf.data.Dataset) else {"batch_size": 20}
    histories = [
        vae.fit(data, **size, initial_epoch=first, epochs=last, verbose=0, **arguments)
        for first, last in ([(0, 1), (1, 3)] if halves else [(0, 3)])
    ]
    number = (
        110
        if not size
        else len(tf.nest.flatten(data)[0]) * (1.0 - arguments.get("validation_split", 0.0))
    )
    assert int(vae.optimizer.iterations) == 3 * np.ceil(np.floor(number) / 20)
    history = {
        key: [value for one in histories for value in one.history[key]]
        for key in histories[0].history
    }
    return vae.get_weights(), history


@pytest.mark.parametrize("name", mostly_slow(CASES, "images"))
@pytest.mark.rows(1, 3)
def test_blocks_train_as_stock_keras_does(name, digits, monkeypatch, full):
    with monkeypatch.context() as patch:
        patch.setattr(blocks, "engine_of", lambda vae: None)
        # XLA draws other numbers.
        jit_compile = False if name == "images" else "auto"
        expected, history = trained(name, digits, 1, jit_compile=jit_compile)
    # 1 lets the package choose: all five whole batches.
    for steps in (1, 2) if full or name == "images" else (1,):
        weights, own = trained(name, digits, steps)
        for one, other in zip(weights, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        assert own.keys() == history.keys()
        for key, values in history.items():
            np.testing.assert_allclose(own[key], values, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.full
def test_weights_count_where_data_are_too_large_for_the_device(digits, monkeypatch):
    expected, _ = trained("weights", digits, 2)
    monkeypatch.setattr(blocks, "MOST_BYTES", 0)
    for one, other in zip(trained("weights", digits, 2)[0], expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_halves_are_the_whole(digits):
    for one, other in zip(
        *(trained("in order", digits, 3, half)[0] for half in (0, 1)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_validation_looks_at_all_of_its_batches(digits):
    """Whatever was evaluated before, and in however large blocks the training goes."""
    x, other = digits.train[:50], digits.train[50:120]
    vae = make_vae()
    vae.compile("sgd")
    vae.optimizer.learning_rate = 0.0

    def loss(**kwargs):
        return vae.evaluate(other, batch_size=8, verbose=0, return_dict=True, **kwargs)["loss"]

    fit = {"batch_size": 8, "verbose": 0, "validation_data": (other,)}
    whole, some = loss(), loss(steps=2)
    vae.fit(x[:16], **fit)
    assert vae.fit(x, **fit).history["val_loss"][0] == pytest.approx(whole, rel=1e-5)
    assert vae.fit(x, validation_steps=2, **fit).history["val_loss"][0] == pytest.approx(
        some, rel=1e-5
    )
    assert (loss(), loss(steps=2)) == pytest.approx((whole, some), rel=1e-5)


class Counting(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.steps = []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(batch)


def blocks_of(vae, x, monkeypatch, **kwargs):
    """Return how many steps each call of the compiled program would make, without making them."""
    made = []

    def count(self, batches):
        made.append(len(batches))
        return {"loss": tf.constant(0.0)}

    with monkeypatch.context() as patch:
        patch.setattr(blocks.Blocks, "_steps", count)
        size = {} if isinstance(x, tf.data.Dataset) else {"batch_size": 20}
        vae.fit(x, verbose=0, **size, **kwargs)
    return made


def test_who_trains_by_the_block(digits, monkeypatch):
    x = digits_of(digits).astype("float32")
    vae = make_vae()
    vae.compile("adam")
    assert blocks_of(vae, x, monkeypatch) == [5, 1]  # the last batch is smaller
    assert blocks_of(vae, x, monkeypatch, steps_per_epoch=3, epochs=2) == [3, 2, 1]
    assert blocks_of(vae, x, monkeypatch, validation_split=0.5, validation_freq=9) == [2, 1]
    assert blocks_of(vae, x, monkeypatch, y=x, validation_split=0.5, validation_freq=9) == [2, 1]
    stop = keras.callbacks.EarlyStopping("loss")
    assert blocks_of(vae, x, monkeypatch, callbacks=[stop]) == [5, 1]
    batches = tf.data.Dataset.from_tensor_slices(x).batch(20)
    assert blocks_of(vae, batches, monkeypatch) == [5, 1]
    assert blocks_of(vae, batches.repeat(), monkeypatch, steps_per_epoch=3) == [3]
    weighted = tf.data.Dataset.from_tensor_slices((x, x[:, 0, 0, 0], np.ones(110))).batch(30)
    assert blocks_of(vae, weighted, monkeypatch) == [3, 1]
    vae.compile("adam", steps_per_execution=2)
    assert blocks_of(vae, x, monkeypatch) == [2, 2, 1, 1]


@pytest.mark.slow
def test_who_trains_step_by_step(digits, monkeypatch):
    x = digits_of(digits).astype("float32")
    vae = make_vae()
    vae.compile("adam", jit_compile=False)
    assert blocks_of(vae, x, monkeypatch) == []
    vae.compile("adam", run_eagerly=True)
    assert blocks_of(vae, x, monkeypatch) == []
    monkeypatch.setattr(VAE, "jit_compile", property(lambda vae: True, lambda vae, value: None))
    unknown = tf.data.Dataset.from_tensor_slices(x).batch(20).filter(lambda batch: True)
    with pytest.warns(UserWarning, match="ran out of data"):
        assert blocks_of(vae, unknown, monkeypatch) == []
    counting = Counting()
    assert blocks_of(vae, x, monkeypatch, callbacks=[counting]) == []
    assert counting.steps == [*range(6)]
    listed = keras.callbacks.CallbackList([Counting()], add_history=True, model=vae, epochs=1)
    assert blocks_of(vae, x, monkeypatch, callbacks=listed) == []
    each = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)
    assert blocks.looks_at_batches(each)
    assert not blocks.looks_at_batches(keras.callbacks.LambdaCallback(on_epoch_end=print))
    assert blocks.looks_at_batches(keras.callbacks.TensorBoard(update_freq="batch"))
    assert not blocks.looks_at_batches(keras.callbacks.TensorBoard())


def test_the_layers_choose_how_steps_go_together():
    """A convolution is slow in a loop of XLA; of a layer of somebody else's nothing is known."""

    class Own(keras.layers.Layer):
        def call(self, x):
            return 2.0 * x

    def engine_with(layer):
        encoder = [keras.Input((8, 8, 1)), layer, keras.layers.Flatten(), keras.layers.Dense(8)]
        encoder = keras.Sequential([*encoder, tfpl.MultivariateNormalDiag(4)])
        return blocks.engine_of(VAE(encoder, make_vae().decoder))

    assert blocks.engine_of(make_vae()) == blocks.ONE_PROGRAM
    assert engine_with(keras.layers.Rescaling(0.5)) == blocks.ONE_PROGRAM
    assert engine_with(sequence_of(keras.layers.GRU(8))) == blocks.COMPILED_STEPS
    assert engine_with(sequence_of(keras.layers.Conv1D(2, 3))) == blocks.COMPILED_STEPS
    of_images = blocks.PLAIN_STEPS
    if tf.config.list_logical_devices("GPU"):
        of_images = blocks.COMPILED_STEPS
    assert engine_with(keras.layers.Conv2D(2, 3)) == of_images
    assert engine_with(networks.conv_encoder((8, 8, 1), 8, filters=(2,))) == of_images
    assert engine_with(Own()) is None


def test_steps_of_one_call_last_about_a_tenth_of_a_second():
    vae = make_vae(hidden_sizes=(1000, 1000), event_shape=(28, 28, 1))
    few = blocks.most_steps(vae, 10_000, 50, 100, divides=False)
    assert few == 1
    assert blocks.most_steps(make_vae(), 20, 1, 100, divides=False) == blocks.MOST_STEPS
    assert blocks.most_steps(make_vae(), 20, 1, 34, divides=True) == 34
    assert blocks.most_steps(make_vae(), 20, 1, 106, divides=True) == 2
    large, huge = (
        blocks.most_steps(make_vae(), 20, 1, 100, divides=False, copied=copied)
        for copied in (blocks.MOST_BYTES_OF_A_CALL // 3, 10 * blocks.MOST_BYTES_OF_A_CALL)
    )
    assert (large, huge) == (3, 1)


def test_iterators_of_earlier_epochs_are_deleted_in_a_thread():
    """TensorFlow may take as long as the epoch to delete one, while nothing else goes on."""
    deleted = queue.Queue()

    class Batches:
        def __init__(self, name):
            self.name = name

        def __iter__(self):
            return self

        def __next__(self):
            return (tf.zeros([3]),)

        def __del__(self):
            deleted.put((self.name, threading.current_thread() is threading.main_thread()))

    training = blocks.Blocks(lambda rows, numbers, count: {}, 2, 2, None)
    training(Batches("first"))
    training(Batches("second"))
    assert deleted.get(timeout=10) == ("first", False)
    training.close()
    assert deleted.get(timeout=10) == ("second", False)


@pytest.mark.slow
def test_evaluation_takes_as_many_rows_as_keras_does(digits, monkeypatch):
    x = digits.train[:110].astype("float32")
    vae = make_vae()
    vae.compile("adam")
    calls = [
        {"steps": 2},
        {"steps": 2, "batch_size": 20},
        {},
        {"batch_size": 200, "sample_weight": x[:, 0, 3, 0]},
    ]
    ours = [vae.evaluate(x, verbose=0, return_dict=True, **call) for call in calls]
    monkeypatch.setattr(blocks, "engine_of", lambda vae: None)
    for call, own in zip(calls, ours, strict=True):
        assert own == pytest.approx(vae.evaluate(x, verbose=0, return_dict=True, **call), rel=1e-4)


def test_what_keras_refuses_is_refused(digits):
    x = digits.train[:30].astype("float32")
    vae = make_vae()
    vae.compile("adam")
    with pytest.raises(ValueError, match="cardinality"):
        vae.evaluate(x, sample_weight=np.ones(5), verbose=0)
    with pytest.raises(ValueError, match="cardinality"):
        vae.fit(x, sample_weight=np.ones(5), verbose=0)
    with pytest.raises(ValueError, match="not recognized"):
        vae.evaluate(x, sample_weights=np.ones(30), verbose=0)


@pytest.mark.parametrize("shuffle", [True, False, "batch"])
def test_order_of_rows(shuffle):
    """With a seed it is Keras's; without one, each row is taken once in each epoch."""
    order = blocks.RowOrder(11, 4, shuffle)
    keras_order = order_of_keras(11, 4, shuffle)
    for _ in range(2):
        assert [one.tolist() for one in order] == [one.numpy().tolist() for one in keras_order]
    tf.random.set_seed(None)
    order = blocks.RowOrder(40, 16, shuffle)
    first, second = ([one.tolist() for one in order] for _ in range(2))
    assert [len(one) for one in first] == [16, 16, 8]
    assert sorted(itertools.chain(*first)) == sorted(itertools.chain(*second)) == list(range(40))
    assert (first == second) == (shuffle is False)
    sets = [[set(one) for one in epoch] for epoch in (first, second)]
    assert (sets[0] == sets[1]) == (shuffle is not True)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "2"])
def test_batches_are_of_whole_numbers(digits, batch_size):
    vae = make_vae()
    vae.compile("adam")
    for x in (digits.train[:20], storage.temporary_rows([digits.train[:20]])):
        with pytest.raises(ValueError, match="batch_size must be a whole number"):
            vae.fit(x, batch_size=batch_size)
