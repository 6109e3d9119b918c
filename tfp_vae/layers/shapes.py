"""From a flat vector of parameters to tensors of the event's shape."""

import operator
from collections.abc import Sequence

import numpy as np
import tensorflow as tf


def as_event_size(event_size) -> int:
    """Check a number of dimensions."""
    try:
        size = operator.index(event_size)
    except TypeError:
        size = 0
    if size < 1:
        raise ValueError(f"The event (latent) size must be a whole number of at least 1, received {event_size!r}.")
    return size


def as_event_shape(event_shape) -> tuple[int, ...]:
    """Check a shape given as an int, a sequence or a `tf.TensorShape`."""
    sizes = [event_shape] if np.ndim(event_shape) == 0 else event_shape
    return tuple(as_event_size(size) for size in sizes)


def split_params(params, sizes: Sequence[int]) -> list[tf.Tensor]:
    """Cut the last axis of `params` into pieces of the given sizes."""
    params = tf.convert_to_tensor(params)
    if params.shape[-1] != sum(sizes):
        raise ValueError(
            f"The distribution needs {sum(sizes)} parameters, received {params.shape[-1]} (shape {params.shape}). "
            "Let the previous layer have params_size(...) outputs."
        )
    return tf.split(params, sizes, axis=-1)


def reshape_params(params, event_shape, num_params: int) -> list[tf.Tensor]:
    """Cut the last axis of `params` into `num_params` tensors of shape `[..., *event_shape]`."""
    event_shape = as_event_shape(event_shape)
    pieces = split_params(params, [int(np.prod(event_shape))] * num_params)
    batch_shape = tf.shape(pieces[0])[:-1]
    static_shape = pieces[0].shape[:-1].concatenate(event_shape)
    return [tf.ensure_shape(tf.reshape(p, tf.concat([batch_shape, event_shape], 0)), static_shape) for p in pieces]
