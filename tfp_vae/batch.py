"""What goes into and through a VAE, by name: examples x, latents z, and a condition; x and z may have several parts."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_vae.layers.fold import named_inputs

# The names that a dict of data may have beside "x".
BESIDE_X = ("condition", "mask")


@dataclasses.dataclass(frozen=True)
class Variable:
    """x, z or the condition: a tensor `[..., *shape]`, or a dict of such tensors by the names of its parts.

    Args:
        name: "x", "z" or "condition".
        shape: of one, or a dict of the shapes of its parts.
        dtype: of each part.

    Example:
    >>> z = Variable("z", {"z1": (5,), "z2": (2, 3)}, tf.float32)
    >>> z.size, z.ndims, z.zeros()["z2"].shape
    (11, {'z1': 1, 'z2': 2}, TensorShape([1, 2, 3]))
    """

    name: str
    shape: Any
    dtype: Any

    @classmethod
    def of(cls, name: str, shape, dtype) -> "Variable":
        """Make one from static shapes of any kind."""
        return cls(name, map_parts(tuple, shape), dtype)

    @property
    def shapes(self) -> dict[str, tuple]:
        """The shape of each part by name; one part bears the variable's name."""
        return self.parts(self.shape)

    @property
    def ndims(self) -> dict[str, int]:
        """The number of axes of each part."""
        return {name: len(shape) for name, shape in self.shapes.items()}

    @property
    def ndims_of_parts(self):
        """The number of axes, or a dict of those of its parts."""
        return map_parts(len, self.shape)

    @property
    def size(self) -> int:
        """Numbers in one of it, all parts together."""
        return sum(int(np.prod(shape)) for shape in self.shapes.values())

    @property
    def main(self) -> str | None:
        """What a sole input of a network takes, whatever it is called: nothing if there are several parts."""
        return None if isinstance(self.shape, dict) else self.name

    def parts(self, value) -> dict:
        """Give a value as a dict of its parts."""
        return dict(value) if isinstance(value, Mapping) else {self.name: value}

    def zeros(self, *leading: int):
        """Give zeros `[1, *shape]`, or with the given leading axes."""
        return map_parts(lambda shape: tf.zeros([*(leading or [1]), *shape], self.dtype), self.shape)

    def expect(self, value):
        """Give a value in the variable's dtype.

        Raises:
            ValueError: if its parts are others, or one of them has another shape.
        """
        value = map_parts(lambda part: tf.cast(part, self.dtype), value)
        parts = self.parts(value)
        if isinstance(value, Mapping) != isinstance(self.shape, dict) or parts.keys() != self.shapes.keys():
            received = [*parts] if isinstance(value, Mapping) else "a single tensor"
            expected = f"a dict of {[*self.shapes]}" if isinstance(self.shape, dict) else "a single tensor"
            raise ValueError(f"{self.name} must be {expected}, received {received}.")
        for name, shape in self.shapes.items():
            if not parts[name].shape[-len(shape) or None :].is_compatible_with(shape):
                expected = ", ".join(["...", *map(str, shape)])
                raise ValueError(f"The VAE takes {name} of shape [{expected}], received shape {parts[name].shape}.")
        return value

    def split(self, vectors):
        """Cut vectors `[..., size]` into the parts, one after another, and give each its shape."""
        lead, shapes = tf.shape(vectors)[:-1], self.shapes
        pieces = tf.split(vectors, [int(np.prod(shape)) for shape in shapes.values()], -1)
        named = zip(shapes.items(), pieces, strict=True)
        parts = {name: tf.reshape(piece, tf.concat([lead, shape], 0)) for (name, shape), piece in named}
        return parts if isinstance(self.shape, dict) else parts[self.name]


def by_name(data) -> dict:
    """Give data as a dict with "x", which it may be already; a dict without "x" is an x of several parts.

    Raises:
        ValueError: if a name beside "x" is not known.

    >>> by_name(3.0), by_name({"x": 3.0, "condition": 1.0})
    ({'x': 3.0}, {'x': 3.0, 'condition': 1.0})
    """
    if not (isinstance(data, Mapping) and "x" in data):
        if isinstance(data, Mapping) and set(data) & set(BESIDE_X):
            raise ValueError(f"Data by name must have an 'x', received {sorted(data)}.")
        return {"x": data}
    if unknown := sorted(set(data) - {"x", *BESIDE_X}):
        raise ValueError(
            f"Data by name are a dict of 'x' and {', '.join(map(repr, BESIDE_X))}, received {unknown} too."
        )
    return dict(data)


def map_parts(function: Callable, value):
    """Apply a function to each part of a value that may have several parts by name."""
    if isinstance(value, Mapping):
        return {name: function(part) for name, part in value.items()}
    return function(value)


def input_shape_of(encoder) -> dict | None:
    """Give the shapes of the x that an encoder takes, batch included, as data by name; None if not known yet."""
    shapes = {name: (None, *tensor.shape[1:]) for name, tensor in named_inputs(encoder).items()}
    if not shapes:
        return None
    masks = [name for name in shapes if name.removesuffix("_mask") in shapes and name.endswith("_mask")]
    for name in (*BESIDE_X, *masks):
        shapes.pop(name, None)
    return {"x": shapes if len(shapes) > 1 else next(iter(shapes.values()))}


def labels(x, y, sample_weight):
    """Give Keras labels to carry the weights along: without any it drops the weights, silently."""
    return np.zeros(len(tf.nest.flatten(x)[0]), "int8") if y is None and sample_weight is not None else y
