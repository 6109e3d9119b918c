"""Networks whose weights no gradient tape sees.

TFP's optimizers (`tfp.vi.fit_surrogate_posterior`, `tfp.math.minimize`) train each `tf.Variable`
that their target reads, and Keras's weights are such, whatever `layer.trainable` says. A frozen
network computes the same, with the same gradients to its inputs, and leaves its weights alone.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterable, Iterator

import keras
import tensorflow as tf

# The weights that are frozen now, and what is read instead of them.
_FROZEN: contextvars.ContextVar[tuple] = contextvars.ContextVar("frozen", default=())


@contextlib.contextmanager
def frozen(networks: Iterable[keras.layers.Layer]) -> Iterator[None]:
    """Read the weights of networks so that no tape watches them, as long as this is open.

    Of a network that is called later, such as those of a flow, `later` keeps them so.

    >>> dense = keras.layers.Dense(1)
    >>> dense.build((None, 1))
    >>> with tf.GradientTape() as tape, frozen([dense]):
    ...     y = dense(tf.ones([1, 1]))
    >>> tape.watched_variables()
    ()
    """
    if _FROZEN.get():
        yield
        return
    weights = {id(weight): weight for network in networks for weight in network.variables}
    pairs = tuple((weight, _unwatched(weight)) for weight in weights.values())
    token = _FROZEN.set(pairs)
    try:
        with _reading(pairs):
            yield
    finally:
        _FROZEN.reset(token)


def later(network: Callable) -> Callable:
    """Return a function that calls a network with the weights as they are read now, frozen or not."""
    pairs = _FROZEN.get()
    if not pairs:
        return network

    def call(*args, **kwargs):
        if _FROZEN.get():
            return network(*args, **kwargs)
        with _reading(pairs):
            return network(*args, **kwargs)

    return call


@contextlib.contextmanager
def _reading(pairs: tuple) -> Iterator[None]:
    with keras.StatelessScope(pairs) as scope:
        yield
    # What calls of layers change, such as the states of random generators, stays changed.
    for weight, value in pairs:
        if (new := scope.get_current_value(weight)) is not value:
            weight.assign(new)


def _unwatched(weight: keras.Variable) -> tf.Tensor:
    """Read a weight by its resource: a tape watches what is read through a `tf.Variable`."""
    value = weight.value
    for variable in getattr(value, "values", [value]):  # of a replica each, all equal
        if isinstance(variable, tf.Variable):
            return tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)
    return value  # given by a keras.StatelessScope of others


__all__: list[str] = []
