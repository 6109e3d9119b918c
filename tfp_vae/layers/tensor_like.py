"""The bridge: a `tfd.Distribution` that Keras 3 accepts wherever it expects a tensor."""

import contextlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

tfd = tfp.distributions

# Conversions whose result has the shape of one draw: their shape is known without making one.
DRAW_SHAPED = {name: getattr(tfd.Distribution, name) for name in ("sample", "mean", "mode", "stddev", "variance")}


class TensorLike(tfd.Distribution):
    """A distribution that is also the tensor it converts to.

    Every distribution layer returns one. Whatever is asked of it as a distribution is answered by the
    distribution inside; used as a tensor (by a Keras layer, an operator, an index, NumPy) it becomes the value of
    `convert_to_tensor_fn(distribution)`, computed at the first such use, once, in the graph the wrapper was made in.
    The Keras idea of "tensor or not" is `tf.is_tensor`, which answers yes to the attribute `is_tensor_like`.

    At the border of a `tf.function` the wrapper becomes its tensor. To carry the distribution across, return
    `tensor_distribution`.

    Args:
        distribution: the `tfd.Distribution` to wrap; a wrapper is unwrapped first.
        convert_to_tensor_fn: callable, distribution to tensor.

    Raises:
        TypeError: if `distribution` is not a `tfd.Distribution`.

    Example:
    >>> q = TensorLike(tfd.Normal([1., 2.], 1.), tfd.Distribution.mean)
    >>> (q + 10.).numpy(), q.stddev().numpy(), isinstance(q, tfd.Distribution)
    (array([11., 12.], dtype=float32), array([1., 1.], dtype=float32), True)
    """

    is_tensor_like = True
    # NumPy arrays to the left of an operator leave the operation to the wrapper, as they do to a `tf.Tensor`.
    __array_priority__ = tf.Tensor.__array_priority__
    _tensor: tf.Tensor | None

    def __new__(cls, distribution, convert_to_tensor_fn=tfd.Distribution.sample):
        if not isinstance(distribution, tfd.Distribution):
            raise TypeError(
                f"Expected a tfd.Distribution, received {distribution!r} of type {type(distribution).__name__}. "
                "Return one from the function given to the distribution layer."
            )
        self = super().__new__(cls)
        self.tensor_distribution = unwrap(distribution)
        self._convert_to_tensor_fn = convert_to_tensor_fn
        self._graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        self._tensor = None
        return self

    def __init__(self, *args, **kwargs):
        """Leave everything to the distribution inside, which is already initialized."""

    def __getattribute__(self, name):
        if name in _OWN:
            return object.__getattribute__(self, name)
        return getattr(object.__getattribute__(self, "tensor_distribution"), name)

    # TFP's metaclass writes to the new object after `__init__`: that must not reach the distribution inside.
    __setattr__ = object.__setattr__

    @property
    def shape(self) -> tf.TensorShape:
        """Static shape of the tensor, found without a draw."""
        if self._tensor is not None:
            return self._tensor.shape
        if self._convert_to_tensor_fn in DRAW_SHAPED.values():
            inner = self.tensor_distribution
            return inner.batch_shape.concatenate(inner.event_shape)
        with tf.__internal__.FuncGraph("shape_of_converted_distribution").as_default():
            return tf.convert_to_tensor(self._convert_to_tensor_fn(self.tensor_distribution)).shape

    @property
    def ndim(self) -> int:
        """Rank of the tensor."""
        return self.shape.rank

    def get_shape(self) -> tf.TensorShape:
        """Static shape of the tensor, as `tf.Tensor.get_shape`."""
        return self.shape

    def value(self) -> tf.Tensor:
        """The tensor this distribution stands for: the same one at every call."""
        if self._tensor is None:
            with _inside(self._graph):
                converted = tf.convert_to_tensor(self._convert_to_tensor_fn(self.tensor_distribution))
            self._tensor = converted
        return self._tensor

    def numpy(self) -> np.ndarray:
        """The tensor's value as an array (eager only)."""
        return self.value().numpy()

    def __array__(self, dtype=None, copy=None):
        return np.array(self.numpy(), dtype=dtype)

    def __getitem__(self, index):
        return self.value()[index]

    def __len__(self):
        return len(self.value())

    def __bool__(self):
        return True  # `if q:` asks whether there is a distribution, not what a draw of it says

    def __iter__(self):
        return iter(self.value())

    def __repr__(self):
        return f"<TensorLike {self.tensor_distribution!r}>"

    def __str__(self):
        return str(self.tensor_distribution)


# What the wrapper answers itself. Every other attribute, private ones included, is the inner distribution's.
_OWN = frozenset(vars(TensorLike)) | {
    "tensor_distribution",
    "_convert_to_tensor_fn",
    "_graph",
    "_tensor",
    "__dict__",
    "__class__",
}


def _inside(graph: tf.Graph | None) -> contextlib.AbstractContextManager:
    """Enter `graph` (None: eager execution) unless it is where we are."""
    current = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    if graph is current:
        return contextlib.nullcontext()
    return tf.__internal__.eager_context.eager_mode() if graph is None else graph.as_default()


def _operator(name: str) -> Callable:
    """A Python operator that acts on the tensor."""

    def act(self, *args):
        return getattr(self.value(), name)(*args)

    act.__name__ = name
    return act


for _name in sorted(tf.Tensor.OVERLOADABLE_OPERATORS - {"__getitem__", "__eq__", "__ne__"}):
    setattr(TensorLike, _name, _operator(_name))


def _convert(value, dtype=None, name=None, as_ref=False):
    del as_ref
    tensor = value.value()
    if dtype is not None and not tf.as_dtype(dtype).is_compatible_with(tensor.dtype):
        raise TypeError(
            f"The distribution {value} converts to a tensor of {tensor.dtype.name}, but {tf.as_dtype(dtype).name} was "
            "expected. Cast it with tf.cast, or choose another convert_to_tensor_fn."
        )
    return tensor if name is None else tf.identity(tensor, name=name)


tf.register_tensor_conversion_function(TensorLike, _convert)


@tfd.RegisterKL(TensorLike, TensorLike)
@tfd.RegisterKL(TensorLike, tfd.Distribution)
@tfd.RegisterKL(tfd.Distribution, TensorLike)
def _kl_of_the_inner(a, b, name=None):
    return tfd.kl_divergence(unwrap(a), unwrap(b), name=name)


def unwrap(distribution: tfd.Distribution) -> tfd.Distribution:
    """Give the plain `tfd.Distribution` inside a wrapper, or the argument itself.

    >>> type(unwrap(TensorLike(tfd.Normal(0., 1.)))).__name__
    'Normal'
    """
    return distribution.tensor_distribution if isinstance(distribution, TensorLike) else distribution
