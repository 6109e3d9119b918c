"""Steps by the block: many in one call, which takes its rows from data that stay on the device.

Between two steps nothing is left to Python and tf.data, which otherwise take as long as the
arithmetic of a small network.
"""

import itertools
import math
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from tfp_vae.layers.internals import layers_within, nodes_of

# Seconds of one call: the progress bar moves, and Ctrl-C is answered.
SECONDS = 0.1
# Multiplications and additions of a second, as a guess of what a step costs.
SPEED = 2.5e11
# Steps of one call at most, beyond which nothing is gained.
MOST_STEPS = 50
# Bytes of data that are copied to the device.
MOST_BYTES = 4 * 2**30
# Rooms of Keras whose layers lose their fast kernels in a loop of XLA on the CPU: a convolution
# runs there at a seventeenth of its speed, a recurrent network at a fifth.
SLOW = ("convolutional", "rnn", "attention", "pooling")
# How the steps of a call go together: all in one program of XLA; one after another, each compiled
# by XLA; or each as TensorFlow runs it, which has the fastest convolutions of images on the CPU.
ONE_PROGRAM, COMPILED_STEPS, PLAIN_STEPS = "one program", "compiled steps", "plain steps"
# What a callback looks at batches by.
OF_TRAINING = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
OF_EVALUATION = ("on_test_batch_begin", "on_test_batch_end")


class Blocks:
    """What is called instead of a single step: it takes several batches at once.

    Args:
        program: made by `program_of`.
        most_steps: steps of one call.
        steps: of an epoch.
        rows: x, labels and weights of all examples, as tensors: then batches are row numbers. None
            if the batches are data.
    """

    def __init__(self, program: Callable, most_steps: int, steps: int, rows: tuple | None):
        self.program = program
        self.most_steps = most_steps
        self.steps = steps
        self.rows = rows
        self.own_steps = 1  # of one call of the model's other functions
        self.done = 0  # in this epoch

    def __call__(self, iterator: Iterator) -> dict[str, tf.Tensor]:
        """Make the steps of the next batches, and return the metrics after the last."""
        number = min(self.most_steps, self.steps - self.done)
        self.done = (self.done + number) % self.steps
        batches = [batch for _, batch in zip(range(number), iterator, strict=False)]
        if not batches:
            raise StopIteration
        for _, block in itertools.groupby(batches, _shapes):
            logs = self._steps(list(block))
        return logs

    def _steps(self, batches: list) -> dict[str, tf.Tensor]:
        """Make the steps of batches of one shape, filled up to a block: so that few shapes are compiled."""
        size = self.most_steps if len(batches) > 1 else 1
        padded = [*batches, *batches[-1:] * (size - len(batches))]
        block = tf.nest.map_structure(lambda *parts: tf.stack(parts), *padded)
        count = tf.constant(len(batches))
        if self.rows is None:
            return self.program(block, tf.range(size), count)
        return self.program(self.rows, tf.nest.flatten(block)[0], count)


def _shapes(batch) -> list[tuple]:
    return [tuple(part.shape) for part in tf.nest.flatten(batch)]


def program_of(model: keras.Model, step: Callable, engine: str) -> Callable:
    """Return a function of rows, row numbers, `[steps, batch]`, and how many steps to make.

    Rows that are batches already, `[steps, batch, *event_shape]`, have one number a step, `[steps]`.

    A step is the model's own `train_step` or `test_step`; weights, optimizer and metrics are updated
    within the loop as they are outside of it.
    """
    if engine == COMPILED_STEPS:
        step = tf.function(step, jit_compile=True, autograph=False)

    def steps(rows: tuple, numbers: tf.Tensor, count: tf.Tensor) -> dict[str, tf.Tensor]:
        def next_step(place: tf.Tensor) -> tf.Tensor:
            step(tf.nest.map_structure(lambda part: tf.gather(part, numbers[place]), rows))
            return place + 1

        tf.while_loop(lambda place: place < count, next_step, [tf.constant(0)])
        return model.get_metrics_result()

    return tf.function(steps, jit_compile=engine == ONE_PROGRAM, autograph=False)


def rows_of(x, y, sample_weight) -> tuple | None:
    """Return x, labels and weights of all examples as tensors; None if they are large."""
    leaves = tf.nest.flatten(x)
    if sum(math.prod(leaf.shape) * tf.as_dtype(leaf.dtype).size for leaf in leaves) > MOST_BYTES:
        return None
    given = [part for part in (x, y, sample_weight) if part is not None]
    return tuple(tf.nest.map_structure(_as_tensor, part) for part in given)


def _as_tensor(values) -> tf.Tensor:
    """Return values as Keras gives them to a model: floating ones in its own dtype."""
    tensor = tf.convert_to_tensor(values)
    return tf.cast(tensor, keras.config.floatx()) if tensor.dtype.is_floating else tensor


def engine_of(model: keras.Model) -> str | None:
    """Return how the steps of a model go fastest by the kinds of its layers; None if one of them is
    not known.
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
    """Guess how often a weight is multiplied by a value of one example, forwards.

    >>> network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 2, padding="same")])
    >>> multiplications(network)  # 2 * 2 * 3 * 4 weights and 4 biases at each of 64 places
    3328
    """
    leaves = [layer for layer in layers_within(model) if not isinstance(layer, keras.Model)]
    return max(1, sum(_places(layer) * layer.count_params() for layer in leaves if layer.built))


def _places(layer: keras.layers.Layer) -> int:
    """Return at how many places of one example a layer uses its weights."""
    tensors = [
        tensor
        for node in nodes_of(layer)[:1]
        for tensor in (*node.input_tensors, *node.output_tensors)
    ]
    return max((math.prod(filter(None, tensor.shape[1:-1])) for tensor in tensors), default=1)


def looks_at_batches(callback, hooks: tuple[str, ...] = OF_TRAINING) -> bool:
    """Return whether a callback asks for each single step.

    Keras's own ones do so by their `save_freq`, `update_freq` or `profile_batch` alone.

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


def most_steps(model, batch_size: int, num_draws: int, steps: int, *, divides: bool) -> int:
    """Return how many steps to make in one call: about `SECONDS` of them.

    Args:
        model: whose weights are multiplied by each example and draw, forwards and twice backwards.
        batch_size: examples of a step.
        num_draws: draws of z for each of them.
        steps: of an epoch.
        divides: whether the number must divide that of an epoch, as Keras asks where it is given.
    """
    cost = 6.0 * multiplications(model) * batch_size * num_draws / SPEED
    limit = max(1, min(MOST_STEPS, steps, math.ceil(SECONDS / cost)))
    if not divides:
        return limit
    return max(divisor for divisor in range(1, limit + 1) if steps % divisor == 0)
