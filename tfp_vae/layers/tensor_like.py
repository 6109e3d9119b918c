"""The bridge: a `tfd.Distribution` that Keras 3 accepts wherever it expects a tensor."""

import contextlib
import copy
import functools
import operator
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.internals import (
    dispatchable,
    eagerly,
    graph_aside,
    is_composite,
    plain_class,
)

tfd = tfp.distributions

# Conversions whose result has the shape of one draw: this shape is known without a draw.
DRAW_SHAPED = {
    name: getattr(tfd.Distribution, name)
    for name in ("sample", "mean", "mode", "stddev", "variance")
}
# Methods whose first argument is an outcome.
OF_AN_OUTCOME = (
    "log_prob",
    "prob",
    "unnormalized_log_prob",
    "log_cdf",
    "cdf",
    "log_survival_function",
    "survival_function",
)


@dispatchable
class TensorLike(tfd.Distribution):
    """A distribution that is also the tensor it converts to.

    Every distribution layer returns one. Used as a distribution, it forwards every request to the
    distribution inside. Used as a tensor (by a Keras layer, an operator, an index, NumPy, `float`),
    it becomes the value of `convert_to_tensor_fn(distribution)`, which is computed once, at the
    first such use, in the graph where the wrapper was made. Keras recognizes tensors by
    `tf.is_tensor`, which accepts any object with the attribute `is_tensor_like`. `shape`, `ndim`
    and `dtype` are those of the tensor.

    Before a loss function sees a model's output, Keras applies `tf.cast` to floatx,
    `tf.expand_dims` along the labels' last axis of size 1, and `tf.squeeze` of several draws; each
    of these returns a wrapper again. Keras casts the labels of a loss to floatx, but not those of a
    metric. So `log_prob` and similar methods cast a tensor to the distribution's dtype, if that is
    floating.

    As a Python object it is a distribution: `bool(q)` is True, `q == p` asks whether they are the
    same object (elementwise: `tf.equal`), `copy.copy(q)` is `q`, and it cannot be pickled.

    At the border of a `tf.function` the wrapper becomes its tensor. To carry the distribution
    across, return `tensor_distribution`. TensorFlow lets only composite tensors (extension types)
    through; for a distribution that is none, such as most flows, return its parameters and build it
    outside.

    Args:
        distribution: the `tfd.Distribution` to wrap; a wrapper is unwrapped first.
        convert_to_tensor_fn: callable, distribution to tensor.

    Raises:
        TypeError: if `distribution` is not a `tfd.Distribution`; when it is converted, if the
            result is not one tensor (a joint distribution's draw is not), or has another dtype than
            asked for.

    Example:
    >>> q = TensorLike(tfd.Normal([1., 2.], 1.), tfd.Distribution.mean)
    >>> (q + 10.).numpy(), q.stddev().numpy(), isinstance(q, tfd.Distribution)
    (array([11., 12.], dtype=float32), array([1., 1.], dtype=float32), True)
    """

    is_tensor_like = True
    # NumPy arrays to the left of an operator leave the operation to the wrapper, as they do to a
    # `tf.Tensor`.
    __array_priority__ = tf.Tensor.__array_priority__
    _tensor: tf.Tensor | None
    _spec: tf.TensorSpec | None

    def __new__(cls, distribution, convert_to_tensor_fn=tfd.Distribution.sample):
        message = (
            f"Expected a tfd.Distribution, received a {type(distribution).__name__}. "
            "Return one from the function given to the distribution layer."
        )
        expect_distribution(distribution, message)
        self = super().__new__(cls)
        self.tensor_distribution = unwrap(distribution)
        self._convert_to_tensor_fn = convert_to_tensor_fn
        self._graph = current_graph()
        self._tensor = None
        self._spec = None
        return self

    def __init__(self, *args, **kwargs):
        """Do nothing: the distribution inside is already initialized."""

    def __getattribute__(self, name):
        if name in _OWN:
            return object.__getattribute__(self, name)
        return getattr(object.__getattribute__(self, "tensor_distribution"), name)

    # TFP's metaclass writes to the new object after `__init__`: that must not reach the
    # distribution inside.
    __setattr__ = object.__setattr__

    @property
    def shape(self) -> tf.TensorShape:
        """Static shape of the tensor, found without a draw."""
        if self._tensor is None and self._convert_to_tensor_fn in DRAW_SHAPED.values():
            inner = _single(self.tensor_distribution)
            return inner.batch_shape.concatenate(inner.event_shape)
        return self._traced().shape

    @property
    def dtype(self) -> tf.DType:
        """Type of the tensor, found without a draw.

        It is that of the distribution, unless the conversion changes it.
        """
        inner = self.tensor_distribution
        is_draw_shaped = self._convert_to_tensor_fn in DRAW_SHAPED.values()
        if is_draw_shaped and (not isinstance(inner.dtype, tf.DType) or inner.dtype.is_floating):
            return inner.dtype
        return (
            inner.dtype
            if self._convert_to_tensor_fn is tfd.Distribution.sample
            else self._traced().dtype
        )

    def _traced(self) -> tf.Tensor | tf.TensorSpec:
        """The tensor if it exists already, else its spec."""
        if self._tensor is not None:
            return self._tensor
        if self._spec is None:
            with graph_aside("converted_distribution").as_default():
                self._spec = tf.TensorSpec.from_tensor(self._converted())
        return self._spec

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
            with inside(self._graph):
                converted = self._converted()
            self._tensor = converted
        return self._tensor

    def _converted(self) -> tf.Tensor:
        converted = self._convert_to_tensor_fn(self.tensor_distribution)
        if tf.nest.is_nested(converted):
            _single(self.tensor_distribution)
            raise TypeError(
                f"convert_to_tensor_fn gave {type(converted).__name__} for {self}, expected one "
                "tensor. Choose a part."
            )
        return tf.convert_to_tensor(converted)

    def _then(self, function: Callable, distribution: tfd.Distribution) -> "TensorLike":
        """Wrap a distribution whose tensor is a function of this one's tensor, called when it is
        needed.
        """
        return TensorLike(distribution, lambda _: function(self.value()))

    def numpy(self) -> np.ndarray:
        """The tensor's value as an array (eager only)."""
        return self.value().numpy()

    def __array__(self, dtype=None, copy=None):
        return np.array(self.numpy(), dtype=dtype)

    def __array_function__(self, function, types, args, kwargs):
        """Let NumPy see arrays only.

        Otherwise `np.mean(q)` would call `q.mean(axis=None)` of the distribution.
        """
        args, kwargs = tf.nest.map_structure(
            lambda x: np.asarray(x) if isinstance(x, TensorLike) else x, (args, kwargs)
        )
        return function(*args, **kwargs)

    def __format__(self, specification):
        return format(self.value(), specification) if specification else str(self)

    def __bool__(self):
        return True  # `if q:` asks whether there is a distribution, not what a draw of it says

    def __copy__(self):
        return self  # the object never changes

    def __deepcopy__(self, memo):
        clone = TensorLike(
            copy.deepcopy(self.tensor_distribution, memo), self._convert_to_tensor_fn
        )
        clone._tensor = copy.deepcopy(self._tensor, memo)
        return clone

    def __reduce_ex__(self, protocol):
        raise TypeError(
            f"{self!r} cannot be pickled: it belongs to one call of a layer. Save the model, or "
            "pickle np.asarray(q)."
        )

    def __repr__(self):
        return f"<TensorLike {self.tensor_distribution!r}>"

    def __str__(self):
        return str(self.tensor_distribution)


def current_graph() -> tf.Graph | None:
    """Return the graph that is being traced; None in eager execution."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def inside(graph: tf.Graph | None) -> contextlib.AbstractContextManager:
    """Enter `graph` (None: eager execution) unless it is the current one already."""
    if graph is current_graph():
        return contextlib.nullcontext()
    return eagerly() if graph is None else graph.as_default()


def _single(distribution: tfd.Distribution) -> tfd.Distribution:
    """Refuse a distribution whose draws are not one tensor."""
    if tf.nest.is_nested(distribution.dtype):
        raise TypeError(
            f"A draw of {distribution} has several parts and cannot become one tensor. Ask it as a "
            "distribution (log_prob, sample ...), or choose a convert_to_tensor_fn that gives one "
            "part, as lambda d: d.sample()[0]."
        )
    return distribution


def _on_the_tensor(function: Callable) -> Callable:
    """Return a method that applies a function to the tensor."""
    return lambda self, *args: function(self.value(), *args)


for _function in (operator.getitem, len, iter, float, int, complex, operator.index):
    setattr(TensorLike, f"__{_function.__name__}__", _on_the_tensor(_function))
for _name in sorted(tf.Tensor.OVERLOADABLE_OPERATORS - {"__getitem__", "__eq__", "__ne__"}):
    setattr(TensorLike, _name, _on_the_tensor(getattr(tf.Tensor, _name)))


def _on_the_outcome(name: str) -> Callable:
    """Return a method that calls the inner distribution, with the outcome in its dtype."""

    @functools.wraps(getattr(tfd.Distribution, name))
    def ask(self, *args, **kwargs):
        inner = self.tensor_distribution
        kwargs |= {"value": _in_dtype_of(inner, kwargs["value"])} if "value" in kwargs else {}
        return getattr(inner, name)(*[_in_dtype_of(inner, arg) for arg in args], **kwargs)

    return ask


def _in_dtype_of(distribution, outcome):
    is_floating = isinstance(distribution.dtype, tf.DType) and distribution.dtype.is_floating
    return (
        tf.cast(outcome, distribution.dtype) if is_floating and tf.is_tensor(outcome) else outcome
    )


for _name in OF_AN_OUTCOME:
    setattr(TensorLike, _name, _on_the_outcome(_name))

# The attributes of the wrapper itself. Every other attribute, private ones included, is that of
# the inner distribution.
_OWN = frozenset(vars(TensorLike)) | {
    "tensor_distribution",
    "_convert_to_tensor_fn",
    "_graph",
    "_tensor",
    "_spec",
    "_keras_mask",
    "__dict__",
    "__class__",
}


def _convert(value, dtype=None, name=None, as_ref=False):
    del as_ref
    tensor = value.value()
    if dtype is not None and not tf.as_dtype(dtype).is_compatible_with(tensor.dtype):
        raise TypeError(
            f"The distribution {value} converts to a tensor of {tensor.dtype.name}, but "
            f"{tf.as_dtype(dtype).name} was expected. Cast it with tf.cast, or choose another "
            "convert_to_tensor_fn."
        )
    return tensor if name is None else tf.identity(tensor, name=name)


tf.register_tensor_conversion_function(TensorLike, _convert)


def _draw(distribution, dtype=None, name=None, as_ref=False):
    """Return a reparameterized draw of a plain distribution, as a layer's output gives one.

    Only of a composite tensor, which crosses the border of a `tf.function` as it is: any other
    would silently become a draw there.
    """
    if (
        is_composite(distribution)
        and distribution.reparameterization_type == tfd.FULLY_REPARAMETERIZED
    ):
        return _convert(TensorLike(distribution), dtype, name)
    raise NotImplementedError(
        f"{distribution} cannot become a tensor, and leaves a tf.function only if it is a composite "
        "tensor. Return what you need of it as tensors, such as mean() or log_prob(x), or build it "
        "outside."
    )


# Only where nothing else applies: a wrapper becomes its tensor, and TensorFlow passes composite
# tensors as they are.
tf.register_tensor_conversion_function(tfd.Distribution, _draw, priority=150)


# Keras's losses cast a model's output to floatx, and give it the labels' last axis of size 1,
# before the loss function sees it. TensorFlow's own dispatch keeps the distribution through both.


@tf.experimental.dispatch_for_api(tf.cast, {"x": TensorLike})
def _cast(x, dtype, name=None):
    return x._then(lambda tensor: tf.cast(tensor, dtype, name), x.tensor_distribution)


@tf.experimental.dispatch_for_api(tf.expand_dims, {"input": TensorLike})
def _expand_dims(input, axis, name=None):
    def expand(tensor):
        return tf.expand_dims(tensor, axis, name)

    inner = input.tensor_distribution
    is_draw = inner.event_shape == [] and input.ndim == inner.batch_shape.rank
    try:
        return (
            input._then(expand, inner[..., tf.newaxis])
            if is_draw and axis in (-1, input.ndim)
            else expand(input.value())
        )
    except (NotImplementedError, TypeError):  # not every distribution can be indexed
        return expand(input.value())


@tf.experimental.dispatch_for_api(tf.squeeze, {"input": TensorLike})
def _squeeze(input, axis=None, name=None):
    """Squeeze the tensor, as Keras does if it has one axis more than the labels.

    If the tensor has a sample axis, the result is a wrapper of the same distribution.
    """
    inner = input.tensor_distribution
    has_samples = input.ndim > inner.batch_shape.rank + len(inner.event_shape)
    squeezed = tf.squeeze(input.value(), axis, name)
    return (
        input._then(lambda tensor: tf.squeeze(tensor, axis, name), inner)
        if has_samples
        else squeezed
    )


@tfd.RegisterKL(TensorLike, TensorLike)
@tfd.RegisterKL(TensorLike, tfd.Distribution)
@tfd.RegisterKL(tfd.Distribution, TensorLike)
def _kl_of_the_inner(a, b, name=None):
    return tfd.kl_divergence(unwrap(a), unwrap(b), name=name)


def expect_distribution(value, message: str) -> tfd.Distribution:
    """Return the value if it is a distribution.

    Raises:
        TypeError: with the message, if it is not.
    """
    if not isinstance(value, tfd.Distribution):
        raise TypeError(message)
    return value


def as_tensor_like(distribution: tfd.Distribution) -> TensorLike:
    """Return a distribution in a wrapper, or the argument itself if it is a wrapper already."""
    return distribution if unwrap(distribution) is not distribution else TensorLike(distribution)


def unwrap(distribution: tfd.Distribution) -> tfd.Distribution:
    """Return the plain `tfd.Distribution` inside a wrapper, or the argument itself.

    >>> type(unwrap(TensorLike(tfd.Normal(0., 1.)))).__name__
    'Normal'
    """
    return (
        distribution.tensor_distribution if isinstance(distribution, TensorLike) else distribution
    )


def is_a(distribution, *kinds: type) -> bool:
    """Return whether a distribution belongs to one of TFP's classes that hold other distributions.

    If the one inside is not a composite tensor, TFP makes an object of the base class instead.

    >>> plain = tfd.Independent(TensorLike(tfd.Normal([0.], 1.)), 1)
    >>> isinstance(plain, tfd.Independent), is_a(plain, tfd.Independent)
    (False, True)
    """
    return isinstance(distribution, tuple(map(plain_class, kinds)))
