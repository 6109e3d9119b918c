"""From a flat vector of parameters to tensors of the event's shape."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.checks import whole_number

tfb = tfp.bijectors


def as_event_size(event_size) -> int:
    """Check a number of dimensions."""
    return whole_number(
        event_size, "The event (latent) size must be a whole number of at least 1", 1
    )


def as_event_shape(event_shape) -> tuple[int, ...]:
    """Check a shape given as an int, a sequence or a `tf.TensorShape`."""
    sizes = [event_shape] if np.ndim(event_shape) == 0 else event_shape
    return tuple(as_event_size(size) for size in sizes)


def as_positive(value, name: str) -> float:
    """Check a positive, finite number."""
    if isinstance(value, str) or not 0.0 < value < float("inf"):
        raise ValueError(f"{name} must be a positive, finite number, received {value!r}.")
    return float(value)


def softplus_above(low: float, unconstrained: tf.Tensor) -> tf.Tensor:
    """Map any number to one above `low`."""
    return tfb.Softplus(low=np.array(low, unconstrained.dtype.as_numpy_dtype))(unconstrained)


def in_dtype(value, dtype) -> tf.Tensor:
    """Return a number or tensor in a dtype; `tf.cast` would cast a Python number to float32 first.

    >>> in_dtype(0.7, "float64").numpy() == 0.7, tf.cast(0.7, "float64").numpy() == 0.7
    (np.True_, np.False_)
    """
    return tf.cast(value, dtype) if tf.is_tensor(value) else tf.constant(value, dtype)


def split_params(params, shapes: Sequence[Sequence[int]]) -> list[tf.Tensor]:
    """Cut the last axis of `params` into tensors of shape `[..., *shape]`, one for each of the
    given shapes.
    """
    params = tf.convert_to_tensor(params)
    sizes = [int(np.prod(shape)) for shape in shapes]
    if params.shape[-1] != sum(sizes):
        raise ValueError(
            f"The distribution needs {sum(sizes)} parameters, received {params.shape[-1]} (shape "
            f"{params.shape}). Let the previous layer have params_size(...) outputs."
        )
    return [
        _reshape(piece, shape)
        for piece, shape in zip(tf.split(params, sizes, axis=-1), shapes, strict=True)
    ]


def _reshape(piece: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Return `piece` with its last axis in a shape; the axes before it, of any size, stay."""
    shape = tuple(shape)
    reshaped = tf.reshape(piece, tf.concat([tf.shape(piece)[:-1], np.array(shape, "int32")], 0))
    return tf.ensure_shape(reshaped, piece.shape[:-1].concatenate(shape))
