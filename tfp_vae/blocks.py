"""Blocks of steps: one call makes many steps on data that stay on the device.

No Python or tf.data code runs between two steps. In a small network it would take as long as the
arithmetic.
"""

import itertools
import math
import threading
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from tfp_vae.batch import are_arrays
from tfp_vae.layers.internals import (
    is_seeded,
    layers_within,
    nodes_of,
    order_of_keras,
    without_retracing_warnings,
)

# Target duration of one call in seconds: short enough for the progress bar and for Ctrl-C.
SECONDS = 0.1
# Assumed multiplications and additions per second, used to estimate the cost of a step.
SPEED = 2.5e11
# Largest number of steps in one call; more do not make it faster.
MOST_STEPS = 50
# Largest number of bytes of data that are copied to the device.
MOST_BYTES = 4 * 2**30
# Largest number of bytes of a stream in one call, of which several copies are in memory.
MOST_BYTES_OF_A_CALL = 8 * 2**20
# Keras modules whose layers lose their fast kernels in an XLA loop on the CPU: there a convolution
# runs at 1/17 of its speed, a recurrent network at 1/5.
SLOW = ("convolutional", "rnn", "attention", "pooling")
# How the steps of a call are run: all in one XLA program; one after another, each compiled by XLA;
# or one after another by TensorFlow without XLA, whose image convolutions are the fastest on the
# CPU.
ONE_PROGRAM, COMPILED_STEPS, PLAIN_STEPS = "one program", "compiled steps", "plain steps"
# Methods by which a callback runs on each batch.
OF_TRAINING = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
OF_EVALUATION = ("on_test_batch_begin", "on_test_batch_end")


class Blocks:
    """A replacement for the function of a single step: it takes several batches at once.

    Args:
        program: function that `program_of` has made.
        most_steps: largest number of steps in one call.
        steps: number of steps in an epoch.
        rows: x, labels and weights of all examples, as tensors; the batches are then row numbers.
            None if the batches are data themselves.
        epoch: the batches, anew for each epoch; None takes them from the iterator, which otherwise
            tells only when an epoch begins.
        are_stacked: whether the iterator yields several batches at once, see `stacked`.
    """

    def __init__(
        self,
        program: Callable,
        most_steps: int,
        steps: int,
        rows: tuple | None,
        epoch: "RowOrder | None" = None,
        *,
        are_stacked: bool = False,
    ):
        self.program = program
        self.most_steps = most_steps
        self.steps = steps
        self.rows = rows
        self.epoch = epoch
        self.are_stacked = are_stacked
        self.own_steps = 1  # steps per call of the model's other functions
        self.done = 0  # steps made in this epoch
        self.order: list[np.ndarray] = []  # of rows: their numbers in each step of this epoch
        self._iterators: list[Iterator] = []
        self._batches: Iterator = iter(())

    def __call__(self, iterator: Iterator) -> dict[str, tf.Tensor]:
        """Run the steps on the next batches, and return the metrics after the last one."""
        if self._iterators != [iterator]:
            self.close()
            self._iterators.append(iterator)
            self._batches = iterator if self.epoch is None else iter(self.epoch)
        if not self.done:
            self.order = []
        if self.are_stacked:
            return self._run(next(iterator))
        number = min(self.most_steps, self.steps - self.done)
        self.done = (self.done + number) % self.steps
        batches = [batch for _, batch in zip(range(number), self._batches, strict=False)]
        if not batches:
            raise StopIteration
        if self.rows is not None:
            self.order += batches
        for _, block in itertools.groupby(batches, _shapes):
            logs = self._steps(list(block))
        return logs

    def close(self) -> None:
        """Delete the iterators of earlier epochs in a thread.

        TensorFlow stops tuning the pipeline of a `tf.data.Dataset` when its iterator is deleted,
        and sometimes the deletion takes as long as the epoch did.
        """
        used, self._iterators, self._batches = self._iterators, [], iter(())
        if used:
            threading.Thread(target=used.clear).start()

    def _steps(self, batches: list) -> dict[str, tf.Tensor]:
        """Run the steps on batches of one shape, padded to a block, so that few shapes are
        compiled.
        """
        size = self.most_steps if len(batches) > 1 else 1
        padded = [*batches, *batches[-1:] * (size - len(batches))]
        if self.rows is not None:
            return self.program(self.rows, tf.constant(np.stack(padded)), tf.constant(len(batches)))
        block = tf.nest.map_structure(lambda *parts: tf.stack(parts), *padded)
        return self._run(block, len(batches))

    def _run(self, block, count: int | None = None) -> dict[str, tf.Tensor]:
        """Run the steps on batches `[steps, batch, ...]`, of which the first ones count."""
        found = tf.nest.flatten(block)[0].shape[0]
        return self.program(block, tf.range(found), tf.constant(found if count is None else count))


def stacked(data: tf.data.Dataset, most_steps: int) -> tf.data.Dataset | None:
    """Return a data set of `most_steps` batches at once, which tf.data stacks beside the training;
    None if their shapes are not known to be equal, or Keras counts the batches.
    """
    shapes = [spec.shape for spec in tf.nest.flatten(data.element_spec)]
    is_counted = int(data.cardinality()) >= 0
    if most_steps == 1 or is_counted or not all(shape.is_fully_defined() for shape in shapes):
        return None
    return data.batch(most_steps).prefetch(1)


def _shapes(batch) -> list[tuple]:
    return [tuple(part.shape) for part in tf.nest.flatten(batch)]


class RowOrder:
    """The row numbers of each batch of an epoch, in the order in which Keras's `fit` takes them.

    Keras's own pipeline takes longer for an epoch of a thousand examples than their training.

    Args:
        number: of all rows.
        batch_size: number of rows in a batch, of which the last one may have fewer.
        shuffle: False, True, or "batch" for the rows within each batch only.

    Example:
    >>> [rows.tolist() for rows in RowOrder(5, batch_size=2, shuffle=False)]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, number: int, batch_size: int, shuffle):
        self.number = number
        self.batch_size = batch_size
        self.shuffle = shuffle
        self._random = np.random.default_rng()
        self._order = np.arange(number, dtype="int32")
        if shuffle and is_seeded():  # then Keras's order is the same in each epoch
            size = batch_size if shuffle == "batch" else number
            order = order_of_keras(number, size, shuffle)
            self._order = np.concatenate([rows.numpy() for rows in order])
            self.shuffle = False

    def __len__(self) -> int:
        return math.ceil(self.number / self.batch_size)

    def __iter__(self) -> Iterator[np.ndarray]:
        within = self.shuffle == "batch"
        whole = self.shuffle and not within
        order = self._random.permutation(self._order) if whole else self._order
        for start in range(0, self.number, self.batch_size):
            rows = order[start : start + self.batch_size]
            yield self._random.permutation(rows) if within else rows


def program_of(model: keras.Model, step: Callable, engine: str) -> Callable:
    """Return a function of rows, row numbers `[steps, batch]`, and the number of steps to run.

    If the rows are batches already, `[steps, batch, *event_shape]`, there is one number for each
    step, `[steps]`.

    A step is the model's own `train_step` or `test_step`; weights, optimizer and metrics are
    updated inside the loop as they are outside it.
    """
    if engine == COMPILED_STEPS:
        step = tf.function(step, jit_compile=True, autograph=False)

    def steps(rows: tuple, numbers: tf.Tensor, count: tf.Tensor) -> dict[str, tf.Tensor]:
        def next_step(place: tf.Tensor) -> tf.Tensor:
            step(tf.nest.map_structure(lambda part: tf.gather(part, numbers[place]), rows))
            return place + 1

        tf.while_loop(lambda place: place < count, next_step, [tf.constant(0)])
        return model.get_metrics_result()

    return without_retracing_warnings(
        tf.function(steps, jit_compile=engine == ONE_PROGRAM, autograph=False)
    )


def rows_of(x, y, sample_weight) -> tuple | None:
    """Return x, labels and weights of all examples as tensors.

    None if they are large, or no arrays of as many examples each, of which Keras has to speak.
    """
    given = [part for part in (x, y, sample_weight) if part is not None]
    if not are_arrays(given) or len({len(leaf) for leaf in tf.nest.flatten(given)}) > 1:
        return None
    leaves = tf.nest.flatten(x)
    if sum(math.prod(leaf.shape) * tf.as_dtype(leaf.dtype).size for leaf in leaves) > MOST_BYTES:
        return None
    return tuple(tf.nest.map_structure(as_tensor, part) for part in given)


def as_tensor(values) -> tf.Tensor:
    """Return values as Keras passes them to a model: floats in Keras's default dtype."""
    tensor = tf.convert_to_tensor(values)
    return tf.cast(tensor, keras.config.floatx()) if tensor.dtype.is_floating else tensor


def engine_of(model: keras.Model) -> str | None:
    """Return the fastest way to run the steps of a model, judged by the kinds of its layers; None
    if a kind is unknown.
    """
    layers = layers_within(model)
    modules = [type(layer).__module__ for layer in layers]
    if not all(module.startswith(("tfp_vae.", "keras.src.")) for module in modules):
        return None
    slow = [
        layer
        for layer, module in zip(layers, modules, strict=True)
        if {*module.split(".")} & {*SLOW}
    ]
    if not slow:
        return ONE_PROGRAM
    sees_images = any(getattr(layer, "rank", 1) > 1 for layer in slow)
    on_cpu = not tf.config.list_logical_devices("GPU")
    return PLAIN_STEPS if sees_images and on_cpu else COMPILED_STEPS


def multiplications(model: keras.Model) -> int:
    """Return an estimate of the number of multiplications by weights in the forward pass of one
    example.

    >>> network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 2, padding="same")])
    >>> multiplications(network)  # 2 * 2 * 3 * 4 weights and 4 biases at each of 64 places
    3328
    """
    leaves = [layer for layer in layers_within(model) if not isinstance(layer, keras.Model)]
    return max(1, sum(_places(layer) * layer.count_params() for layer in leaves if layer.built))


def _places(layer: keras.layers.Layer) -> int:
    """Return the number of positions of one example at which a layer applies its weights."""
    tensors = [
        tensor
        for node in nodes_of(layer)[:1]
        for tensor in (*node.input_tensors, *node.output_tensors)
    ]
    return max((math.prod(filter(None, tensor.shape[1:-1])) for tensor in tensors), default=1)


def looks_at_batches(callback, hooks: tuple[str, ...] = OF_TRAINING) -> bool:
    """Return whether a callback asks for each single step.

    Keras's own callbacks do so only through `save_freq`, `update_freq` or `profile_batch`.

    >>> looks_at_batches(keras.callbacks.ModelCheckpoint("x.keras", save_freq=3))
    True
    >>> looks_at_batches(keras.callbacks.EarlyStopping())
    False
    """
    if type(callback).__module__.startswith("keras.") and not {*hooks} & {*vars(callback)}:
        asked = {getattr(callback, name, "epoch") for name in ("save_freq", "update_freq")}
        return asked != {"epoch"} or bool(getattr(callback, "_should_trace", False))
    plain = keras.callbacks.Callback
    own = [getattr(getattr(callback, hook), "__func__", None) for hook in hooks]
    return any(mine is not getattr(plain, hook) for mine, hook in zip(own, hooks, strict=True))


def bytes_of(data: tf.data.Dataset) -> int:
    """Return the number of bytes of a batch; 0 if its shape is not known.

    >>> bytes_of(tf.data.Dataset.from_tensors((tf.zeros([2, 3]), tf.zeros([2], tf.int64))))
    40
    """
    specs = tf.nest.flatten(data.element_spec)
    return sum((spec.shape.num_elements() or 0) * spec.dtype.size for spec in specs)


def most_steps(
    model, batch_size: int, num_draws: int, steps: int, *, divides: bool, copied: int = 0
) -> int:
    """Return how many steps to run in one call, so that it takes about `SECONDS`.

    Args:
        model: the model; its cost is one forward pass and twice that backwards, for each example
            and draw.
        batch_size: number of examples in a step.
        num_draws: number of draws of z for each example.
        steps: number of steps in an epoch.
        divides: whether the result must divide the number of steps in an epoch, as Keras requires
            if `steps_per_epoch` is given.
        copied: bytes of the data of a step, of a stream.
    """
    cost = 6.0 * multiplications(model) * batch_size * num_draws / SPEED
    limit = min(MOST_STEPS, steps, math.ceil(SECONDS / cost))
    limit = max(1, min(limit, MOST_BYTES_OF_A_CALL // copied) if copied else limit)
    if not divides:
        return limit
    return max(divisor for divisor in range(1, limit + 1) if steps % divisor == 0)
