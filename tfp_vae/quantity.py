"""The quantities of a model: examples x, latents z and a condition, each a tensor or several parts."""

import dataclasses
import functools
import keyword
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.fold import named_inputs
from tfp_vae.layers.internals import nodes_of
from tfp_vae.layers.parts import map_parts
from tfp_vae.layers.tensor_like import is_a
from tfp_vae.networks import mask_name

tfd = tfp.distributions


@dataclasses.dataclass(frozen=True)
class Quantity:
    """x, z or the condition: a tensor `[..., *shape]`, or a dict of such tensors by the names of
    its parts.

    Args:
        name: "x", "z" or "condition".
        shape: shape of one tensor, or a dict of the shapes of its parts.
        dtype: of each part.
        num_labels: for a condition of labels, the number of labels that the networks know; None if
            not known.

    Example:
    >>> z = Quantity("z", {"z1": (5,), "z2": (2, 3)}, tf.float32)
    >>> z.size, z.ndims, z.zeros()["z2"].shape
    (11, {'z1': 1, 'z2': 2}, TensorShape([1, 2, 3]))
    """

    name: str
    shape: Any
    dtype: Any
    num_labels: int | None = None

    @classmethod
    def of(cls, name: str, shape, dtype) -> "Quantity":
        """Make one from static shapes of any kind."""
        return cls(name, map_parts(tuple, shape), dtype)

    @classmethod
    def condition(cls, networks: Sequence[keras.layers.Layer]) -> "Quantity | None":
        """Return the quantity of the condition, or None if no network takes it."""
        found = [
            named["condition"] for named in map(named_inputs, networks) if "condition" in named
        ]
        known = [size for size in map(num_labels, networks) if size is not None]
        return (
            cls("condition", tuple(found[0].shape[1:]), found[0].dtype, min(known, default=None))
            if found
            else None
        )

    @property
    def shapes(self) -> dict[str, tuple]:
        """The shape of each part by name; a sole part has the name of the variable."""
        return self.parts(self.shape)

    @property
    def ndims(self) -> dict[str, int]:
        """The number of axes of each part."""
        return {name: len(shape) for name, shape in self.shapes.items()}

    @property
    def size(self) -> int:
        """The number of values in one example, all parts together."""
        return sum(int(np.prod(shape)) for shape in self.shapes.values())

    @property
    def has_parts(self) -> bool:
        """Whether it is a dict of parts by name."""
        return isinstance(self.shape, Mapping)

    @property
    def main(self) -> str | None:
        """The part that goes to a network's only input, which may have any name.

        None if there are several parts.
        """
        return None if self.has_parts else self.name

    def parts(self, value) -> dict:
        """Return a value as a dict of its parts, sorted by their names as everywhere in the
        package.
        """
        return map_parts(lambda part: part, value) if self.has_parts else {self.name: value}

    def whole(self, parts: Mapping):
        """Return the value that `parts` would split: the only part, or a dict of the parts.

        Other names are left out.
        """
        named = {name: parts[name] for name in self.shapes}
        return named if self.has_parts else named[self.name]

    def zeros(self, *leading: int):
        """Return zeros `[1, *shape]`, or with the given leading axes."""
        return map_parts(
            lambda shape: tf.zeros([*(leading or [1]), *shape], self.dtype), self.shape
        )

    def expect(self, value):
        """Return a value in the variable's dtype; a distribution becomes a draw.

        Raises:
            ValueError: if it has other parts, or a part has another shape, or holds fractions
                instead of labels.
        """
        if is_a(value, tfd.Distribution):  # as a tensor, a distribution is a draw from it
            value = value.sample()
        value = map_parts(self._cast, value)
        names = [*value] if isinstance(value, Mapping) else None
        if names != ([*self.shapes] if self.has_parts else None):
            received = names or "a single tensor"
            expected = f"a dict of {[*self.shapes]}" if self.has_parts else "a single tensor"
            raise ValueError(f"{self.name} must be {expected}, received {received}.")
        parts = self.parts(value)
        for name, shape in self.shapes.items():
            if not _ends_with(parts[name].shape, shape):
                expected = ", ".join(["...", *map(str, shape)])
                raise ValueError(
                    f"The VAE takes {name} of shape [{expected}], received shape "
                    f"{parts[name].shape}."
                )
        if not self.has_parts:
            return value
        leads = {name: _lead(parts[name].shape, len(shape)) for name, shape in self.shapes.items()}
        if not all(lead.is_compatible_with(self.leading(value)) for lead in leads.values()):
            received = {name: tuple(lead) for name, lead in leads.items()}
            raise ValueError(
                f"The parts of {self.name} must be of as many examples each, received {received}."
            )
        return value

    def expect_finite(self, value):
        """Return a value as `expect` does, after looking at it where that is possible.

        Not at a symbolic tensor.

        Raises:
            ValueError: as `expect`, or if a value is NaN or infinite.
        """
        value = self.expect(value)
        rows = self.rows(value)
        for part in () if rows is None else tf.nest.flatten(rows):
            finite = np.isfinite(part).reshape(len(part), -1).all(1)
            if not finite.all():
                raise ValueError(
                    f"{self.name} holds values that are NaN or infinite, first in row "
                    f"{np.argmin(finite)}. Remove or replace them."
                )
        return value

    def rows(self, value):
        """Return a value as arrays `[rows, *shape]`.

        For symbolic tensors, which have no values, the result is None.
        """
        parts = {name: tf.get_static_value(part) for name, part in self.parts(value).items()}
        if any(part is None for part in parts.values()):
            return None
        return self.whole(
            {name: np.reshape(part, [-1, *self.shapes[name]]) for name, part in parts.items()}
        )

    def _cast(self, part) -> tf.Tensor:
        received = tf.as_dtype(getattr(part, "dtype", None) or np.asarray(part).dtype).name
        own = tf.as_dtype(self.dtype)
        kinds = ("bool", "int") if own.is_integer else ("bool", "int", "float")
        if not any(kind in received for kind in kinds):
            raise ValueError(
                f"{self.name} must be {'whole ' * own.is_integer}numbers, as its keras.Input(..., "
                f"dtype={own.name!r}) says, received {_kind(part, received)}. Convert it, as in "
                f"{self.name}.astype({own.name!r})."
            )
        if own.is_integer and received != own.name:
            self._expect_to_fit(part, own)
        return tf.cast(part, self.dtype)

    def _expect_to_fit(self, part, own: tf.DType) -> None:
        """Refuse whole numbers that would become others in the networks' type."""
        values = tf.get_static_value(part) if tf.is_tensor(part) else np.asarray(part)
        if values is None or not values.size:
            return
        fits = np.ravel((values >= own.min) & (values <= own.max))
        if fits.all():
            return
        if self.num_labels is not None:
            raise self._no_label(self.num_labels, values, fits)
        raise ValueError(
            f"{self.name} holds whole numbers from {values.min()} to {values.max()}, but its "
            f"keras.Input takes those of {own.name}. Leave out what is beyond."
        )

    def _no_label(self, number: int, values: np.ndarray, known: np.ndarray) -> ValueError:
        return ValueError(
            f"{self.name} must be a label from 0 to {number - 1}, which the networks know; "
            f"received labels from {values.min()} to {values.max()}, first in row {np.argmin(known)}."
        )

    def is_known(self, value) -> tf.Tensor:
        """Return whether each value is finite and, for labels, known to the networks, `[...]`."""
        known = tf.math.is_finite(tf.cast(value, tf.float32))
        if self.num_labels is not None:
            known &= (value >= 0) & (value < self.num_labels)
        return tf.reduce_all(known, list(range(-len(self.shape), 0)))

    def expect_known(self, value):
        """Return a value as `expect` does, after looking at it where that is possible.

        Not at a symbolic tensor.

        Raises:
            ValueError: as `expect`, or if a value is NaN, infinite, or a label that no network
                knows.
        """
        value = self.expect(value)
        static = tf.get_static_value(value)
        with tf.init_scope():
            known = np.ravel(True if static is None else self.is_known(static))
        if known.all():
            return value
        if self.num_labels is not None:
            raise self._no_label(self.num_labels, static, known)
        raise ValueError(
            f"{self.name} holds values that are NaN or infinite, first in row {np.argmin(known)}. "
            "Remove or replace them."
        )

    def leading(self, value) -> tf.TensorShape:
        """Return the leading axes of a value, as far as they are known."""
        name, part = next(iter(self.parts(value).items()))
        return _lead(part.shape, self.ndims[name])

    def lead(self, value) -> tf.Tensor:
        """Return the leading axes of a value as they are when a graph runs, also if their number
        is not known before.
        """
        static = self.leading(value)
        if static.is_fully_defined():
            return tf.constant(static.as_list(), tf.int32)
        name, part = next(iter(self.parts(value).items()))
        return tf.shape(part)[: tf.rank(part) - self.ndims[name]]

    def flat(self, value, lead: tf.Tensor):
        """Return a value with one leading axis instead of the axes `lead`.

        The value is repeated along the axes that it lacks.

        >>> Quantity("x", (5,), tf.float32).flat(tf.zeros([3, 5]), [2, 3]).shape
        TensorShape([6, 5])
        """
        return self.whole(
            {
                name: tf.reshape(
                    tf.broadcast_to(part, tf.concat([lead, self.shapes[name]], 0)),
                    [-1, *self.shapes[name]],
                )
                for name, part in self.parts(value).items()
            }
        )

    def split(self, vectors):
        """Split vectors `[..., size]` into the parts, in order, and reshape each part."""
        lead = tf.shape(vectors)[:-1]
        shapes = self.shapes
        pieces = tf.split(vectors, [int(np.prod(shape)) for shape in shapes.values()], -1)
        named = zip(shapes.items(), pieces, strict=True)
        return self.whole(
            {name: tf.reshape(piece, tf.concat([lead, shape], 0)) for (name, shape), piece in named}
        )


def _kind(value, dtype: str) -> str:
    """Return a word for a received value: its dtype, or its type for None and strings."""
    return type(value).__name__ if value is None or isinstance(value, str) else dtype


def expect_distinct_names(x: Quantity, z: Quantity) -> None:
    """Raise a ValueError if the name of a part of x or z has another meaning, or is not an
    identifier.
    """
    for name in x.shapes | z.shapes:
        if not (name.isidentifier() and name.isascii()) or keyword.iskeyword(name):
            raise ValueError(
                f"Parts of x and z are named like Python's variables, in ASCII; received {name!r}."
            )
    taken = {"condition", "seed", "row", "mask", *map(mask_name, x.shapes)}
    taken |= {variable.name for variable in (x, z) if variable.name not in variable.shapes}
    if clash := sorted((x.shapes.keys() & z.shapes.keys()) | (taken & {*x.shapes, *z.shapes})):
        raise ValueError(f"The names {clash} stand for two things. Rename these parts of x or z.")


@functools.singledispatch
def labels_of_table(layer: keras.layers.Layer) -> int | None:
    """Return the number of labels of a lookup layer, or None for other layers."""
    return None


@labels_of_table.register(keras.layers.Embedding)
def _(layer) -> int:
    return layer.input_dim


@labels_of_table.register(keras.layers.CategoryEncoding)
def _(layer) -> int:
    return layer.num_tokens


def num_labels(network: keras.layers.Layer, tensor: keras.KerasTensor | None = None) -> int | None:
    """Return the number of labels that a network knows for its input "condition": the smallest size
    of its lookup tables.

    Args:
        network: Keras model; its layers `Embedding` and `CategoryEncoding` are such tables.
        tensor: tensor of the network to use instead of its input "condition".

    Example:
    >>> num_labels(keras.Sequential([keras.Input((), dtype="int32", name="condition"), keras.layers.Embedding(5, 2)]))
    5
    """
    if tensor is None:
        tensor = named_inputs(network).get("condition")
    sizes = []
    for layer in network.layers if isinstance(network, keras.Model) and tensor is not None else ():
        for node in nodes_of(layer):
            if not any(given is tensor for given in node.input_tensors):
                continue
            if isinstance(layer, keras.Model):
                place = next(i for i, given in enumerate(node.input_tensors) if given is tensor)
                sizes.append(num_labels(layer, layer.inputs[place]))
            elif size := labels_of_table(layer):
                sizes.append(size)
            else:
                sizes += [
                    num_labels(network, out) for out in node.output_tensors if "int" in out.dtype
                ]
    return min((size for size in sizes if size is not None), default=None)


def given(condition, variable: Quantity | None, model: str) -> dict:
    """Return a condition in a dict, which is empty if the model takes no condition.

    Args:
        condition: what was passed, or None.
        variable: the model's, or None.
        model: what to call the model in errors.

    Raises:
        ValueError: if it is missing, unexpected, or not known to the networks.
    """
    if variable is not None and condition is None:
        raise ValueError(
            f"{model} is conditional: pass a dict of 'x' and 'condition' as data, and condition=... "
            "elsewhere."
        )
    if variable is None and condition is not None:
        raise ValueError(
            f"{model} takes no condition: none of its networks has a keras.Input named 'condition'."
        )
    return {} if variable is None else {"condition": variable.expect_known(condition)}


def one_for_each(condition: tf.Tensor, number: int, shape: tuple) -> tf.Tensor:
    """Return one condition for each of a number of rows; a single condition is repeated.

    Raises:
        ValueError: if it has another number of rows.
    """
    if condition.shape.rank > len(shape) and condition.shape[0] not in (1, number):
        raise ValueError(
            f"The condition is for {condition.shape[0]} examples, but {number} are asked for."
        )
    return tf.broadcast_to(condition, [number, *shape])


def expect_alike(x: tf.TensorShape, condition: tf.TensorShape, name: str = "x") -> None:
    """Raise a ValueError if the leading axes of a condition are not the leading axes of x, or the
    last ones among them.
    """
    if None in (condition.rank, x.rank):
        return
    if condition.rank > x.rank or not condition.is_compatible_with(x[x.rank - condition.rank :]):
        raise ValueError(
            f"{name} has the leading axes {tuple(x)}, the condition {tuple(condition)}: expected "
            f"one condition for each {name}, or one for all."
        )


def has_unknown_rank(value) -> bool:
    """Return whether a tensor, or one of several by name, has an unknown number of axes."""
    return any(tf.is_tensor(part) and part.shape.rank is None for part in tf.nest.flatten(value))


def _ends_with(shape: tf.TensorShape, end: tuple) -> bool:
    if shape.rank is None:
        return True
    return shape.rank >= len(end) and shape[shape.rank - len(end) :].is_compatible_with(end)


def _lead(shape: tf.TensorShape, ndims: int) -> tf.TensorShape:
    """Return the leading axes of a shape with `ndims` others."""
    return tf.TensorShape(None) if shape.rank is None else shape[: shape.rank - ndims]
