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

from tfp_vae.layers.internals import global_seed_state, unwatched, without_autocast

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
    found = [weight for network in networks for weight in network.variables]
    if (state := global_seed_state()) is not None:
        found.append(state)
    with _reading((weight, None) for weight in found):
        yield


def later(network: Callable) -> Callable:
    """Return a function that calls a network with the weights as they are read now, frozen or not."""
    pairs = _FROZEN.get()
    if not pairs:
        return network

    def call(*args, **kwargs):
        with _reading(pairs):
            return network(*args, **kwargs)

    return call


@contextlib.contextmanager
def _reading(pairs: Iterable[tuple[keras.Variable, tf.Tensor | None]]) -> Iterator[None]:
    """Give weights these values, as long as this is open; to those that are frozen already, theirs.

    What has no value, and the state of a random generator, which goes on, is read now.
    """
    before = _FROZEN.get()
    known = {id(weight) for weight, _ in before}
    more = {
        id(weight): (
            weight,
            value if value is not None and value.dtype.is_floating else unwatched(weight),
        )
        for weight, value in pairs
        if id(weight) not in known
    }
    if not more:
        yield
        return
    whole = (*before, *more.values())
    token = _FROZEN.set(whole)
    try:
        with without_autocast():
            scope = keras.StatelessScope(whole)
        with scope:
            yield
    finally:
        _FROZEN.reset(token)
    # The states of random generators, which draws change, stay changed.
    for weight, value in whole:
        new = scope.get_current_value(weight)
        if new is not value and not value.dtype.is_floating:
            weight.assign(new)


__all__: list[str] = []
