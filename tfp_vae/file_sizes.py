"""What files claim about their own sizes, checked before it takes memory: a small file can ask for
far more than it holds, by damage or on purpose.
"""

import contextlib
import math
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

# Bytes that are never too many for a text, such as a config, or for what a small file unpacks to.
SMALL = 2**26
# An archive may unpack to this many times its own size: Keras does not compress, and trained
# weights hardly can be.
MOST_UNPACKED = 100
# The variables of a model may take this many times the bytes of its weights' file: a float16 may
# be kept as a float32.
MOST_FOR_WEIGHTS = 2
# What reads the headers of numpy's arrays, by the version of their format.
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class TooLarge(ValueError):
    """A file that claims or asks for more than it can need."""


def read_text(path: Path) -> str:
    """Read a text, such as a config.

    Raises:
        TooLarge: if it is longer than any config.
    """
    _expect(path.stat().st_size <= SMALL, f"{path} is a text of {_size(path.stat().st_size)}")
    return path.read_text()


def load_keras(path: Path) -> Any:
    """Load a model from a `.keras` file, if it asks for no more memory than its weights need.

    Raises:
        TooLarge: if its config is no text of a usual size, or makes larger weights than the file
            holds.
        ValueError: if it cannot be loaded.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a .keras file.")
    refusals: list[TooLarge] = []
    try:
        held = _unpacked(path)
        with _variables_of_at_most(SMALL + MOST_FOR_WEIGHTS * held, path, refusals):
            return keras.models.load_model(path)
    except TooLarge:
        raise
    except Exception as error:  # a broken file can lead to any exception in Keras
        if refusals:  # which Keras has wrapped in its own words
            raise refusals[0] from error
        raise ValueError(f"{path} is not a Keras model that can be loaded: {error}") from error


def _unpacked(path: Path) -> int:
    """Return how many bytes a `.keras` file holds besides its texts."""
    with zipfile.ZipFile(path) as archive:
        sizes = {member.filename: member.file_size for member in archive.infolist()}
    texts = {name: size for name, size in sizes.items() if name.endswith(".json")}
    for name, size in texts.items():
        _expect(size <= SMALL, f"{name} in {path} unpacks to {_size(size)}")
    held = sum(sizes.values()) - sum(texts.values())
    packed = path.stat().st_size
    _expect(
        held <= SMALL + MOST_UNPACKED * packed,
        f"{path}, of {_size(packed)}, unpacks to {_size(held)}",
    )
    return held


@contextlib.contextmanager
def _variables_of_at_most(most: int, path: Path, refusals: list[TooLarge]) -> Iterator[None]:
    """Refuse to make variables that together have more than a number of bytes; a refusal is kept in
    a list.
    """
    made = 0

    def make(make_variable, **arguments):
        nonlocal made
        value = arguments["initial_value"]
        if callable(value):
            with tf.Graph().as_default():  # where a tensor has a shape, but takes no memory
                value = value()
        if tf.is_tensor(value) and value.shape.is_fully_defined():
            made += math.prod(value.shape.as_list()) * value.dtype.size
        try:
            _expect(
                made <= most,
                f"The config in {path} makes weights of {_size(made)} or more, of which the file "
                f"does not hold the half: those up to {arguments.get('name')!r}",
            )
        except TooLarge as error:
            refusals.append(error)
            raise
        return make_variable(**arguments)

    with tf.variable_creator_scope(make):
        yield


def expect_array(path: Path, name: str, file, held: int) -> int:
    """Check that an array in numpy's format is as large as it claims, and return its bytes.

    Args:
        path: the file, for the error.
        name: of the array, for the error.
        file: opened at the array's beginning.
        held: bytes from there to the array's end.

    Raises:
        ValueError: if they are not as many as the header claims, or the header cannot be read.
    """
    damaged = f"The array {name!r} of {path} is damaged"
    try:
        version = np.lib.format.read_magic(file)
        if version not in HEADERS:
            raise ValueError(f"its format is {version}")
        shape, _, dtype = HEADERS[version](file)
    except ValueError as error:
        raise ValueError(f"{damaged}: {error}. Write it anew.") from error
    claimed = math.prod(shape) * dtype.itemsize
    rest = held - file.tell()
    if not dtype.hasobject and (claimed != rest or min(shape, default=0) < 0):
        raise ValueError(
            f"{damaged}: it claims the shape {shape} of {dtype}, which is {_size(claimed)}, but "
            f"{_size(rest)} are there. Write it anew."
        )
    return rest


def expect_memory(path: Path, needed: int) -> None:
    """Raise a `TooLarge` error if arrays need more bytes than this machine has."""
    if needed > memory():
        raise TooLarge(
            f"The arrays of {path} take {_size(needed)}, more than the {_size(memory())} of memory of "
            "this machine. Give fewer examples, or a smaller dtype."
        )


def memory() -> float:
    """Return the bytes of memory of this machine; infinity where they are unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # of another system than Unix
        return math.inf


def expect_saved_model(folder: Path) -> None:
    """Check that the constants and variables of a SavedModel are no larger than its files explain.

    Raises:
        TooLarge: if they are.
        ValueError: if it is no SavedModel.
    """
    file = folder / "saved_model.pb"
    try:
        graphs = saved_model_pb2.SavedModel.FromString(file.read_bytes()).meta_graphs
    except Exception as error:  # protobuf's own kind of error, which it does not name publicly
        raise ValueError(f"{file} is damaged: {error}. Export the model again.") from error
    packed = file.stat().st_size
    variables = sum(path.stat().st_size for path in (folder / "variables").glob("variables.data*"))
    for graph in graphs:
        functions = [node for one in graph.graph_def.library.function for node in one.node_def]
        nodes = [*graph.graph_def.node, *functions]
        tensors = [node.attr["value"].tensor for node in nodes if node.op == "Const"]
        constants = sum(_bytes(one.dtype, one.tensor_shape) for one in tensors)
        _expect(
            constants <= SMALL + MOST_UNPACKED * packed,
            f"{file}, of {_size(packed)}, has constants of {_size(constants)}",
        )
        objects = [node.variable for node in graph.object_graph_def.nodes]
        claimed = sum(_bytes(one.dtype, one.shape) for one in objects)
        _expect(
            claimed <= SMALL + MOST_FOR_WEIGHTS * variables,
            f"{file} has variables of {_size(claimed)}, but their files hold {_size(variables)}",
        )


def _bytes(dtype: int, shape) -> int:
    """Return the bytes that a dtype and a shape of TensorFlow's messages claim."""
    size = tf.as_dtype(dtype).size if dtype else 0
    return math.prod(max(0, dim.size) for dim in shape.dim) * max(1, size or 1)


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise TooLarge(f"{what}: it is damaged, or made to fill the memory.")


def _size(number: float) -> str:
    """Write a number of bytes.

    >>> _size(1_500_000_000), _size(12)
    ('1.5 GB', '12 bytes')
    """
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if number >= unit:
            return f"{number / unit:,.1f} {name}"
    return f"{number:,.0f} bytes"
