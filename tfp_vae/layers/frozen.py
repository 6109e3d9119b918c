"""Networks whose weights are hidden from gradient tapes.

TFP's optimizers (`tfp.vi.fit_surrogate_posterior`, `tfp.math.minimize`) train each `tf.Variable`
that their target reads. Keras's weights are such variables, even if `layer.trainable` is False. A
frozen network computes the same values and the same gradients by its inputs, but its weights do not
change.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterable, Iterator

import keras
import tensorflow as tf

from tfp_vae.layers.internals import global_seed_state, unwatched, without_autocast

# The weights that are frozen now, and the tensors that are read instead of them.
_FROZEN: contextvars.ContextVar[tuple] = contextvars.ContextVar("frozen", default=())


@contextlib.contextmanager
def frozen(networks: Iterable[keras.layers.Layer]) -> Iterator[None]:
    """Read the weights of networks so that no tape watches them, within this context.

    For a network that is called after the context, such as that of a flow, use `later`.

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
    """Give weights these values within this context; weights that are frozen already keep theirs.

    A weight without a value is read now, and so is the state of a random generator, which goes on.
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
    # Draws change the states of random generators; keep these changes.
    for weight, value in whole:
        new = scope.get_current_value(weight)
        if new is not value and not value.dtype.is_floating:
            weight.assign(new)


__all__: list[str] = []
