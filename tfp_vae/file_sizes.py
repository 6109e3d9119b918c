"""What files claim about their own sizes, checked before it takes memory: a small file can ask for
far more than it holds, by damage or on purpose.
"""

import contextlib
import math
import os
import struct
import zipfile
from collections.abc import Callable, Iterator
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
# be kept as a float32, and an optimizer that made no step yet has two variables for each weight.
MOST_FOR_WEIGHTS = 4
# The end of a zip archive, whose fifth field is the number of its members; or this number, if they
# are too many for the field.
ZIP_END = struct.Struct("<4s4H2LH")
MANY = 0xFFFF
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
    _expect(
        path.stat().st_size <= SMALL, f"{path} is a text of {size_in_words(path.stat().st_size)}"
    )
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
    refusals = list[TooLarge]()

    def words(made: str) -> str:
        return _damaged(
            f"The config in {path} makes weights of {made} or more, of which the file holds less than "
            "a quarter"
        )

    try:
        most = SMALL + MOST_FOR_WEIGHTS * _unpacked(path)
        with variables_of_at_most(most, words) as refusals:
            return keras.models.load_model(path)
    except Exception as error:  # a broken file can lead to any exception in Keras
        if refusals:
            raise refusals[0] from error
        if isinstance(error, TooLarge):
            raise
        raise ValueError(f"{path} is not a Keras model that can be loaded: {error}") from error


def _unpacked(path: Path) -> int:
    """Return how many bytes a `.keras` file holds besides its texts."""
    with zipfile.ZipFile(path) as archive:
        sizes = {member.filename: member.file_size for member in members(path, archive)}
    texts = {name: size for name, size in sizes.items() if name.endswith(".json")}
    for name, size in texts.items():
        _expect(size <= SMALL, f"{name} in {path} unpacks to {size_in_words(size)}")
    held = sum(sizes.values()) - sum(texts.values())
    packed = path.stat().st_size
    _expect(
        held <= SMALL + MOST_UNPACKED * packed,
        f"{path}, of {size_in_words(packed)}, unpacks to {size_in_words(held)}",
    )
    return held


def members(path: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Return what an archive holds.

    Raises:
        ValueError: if it is not as much as the archive's end says, which Python does not check.
    """
    found = archive.infolist()
    with path.open("rb") as file:
        file.seek(-ZIP_END.size - len(archive.comment), os.SEEK_END)
        said = ZIP_END.unpack(file.read(ZIP_END.size))[4]
    if said not in (len(found), MANY):
        raise ValueError(f"{path} is damaged: {len(found)} of its {said} members can be found.")
    return found


@contextlib.contextmanager
def variables_of_at_most(most: float, words: Callable[[str], str]) -> Iterator[list[TooLarge]]:
    """Refuse to make variables that together have more than a number of bytes, before they do.

    Args:
        most: the number of bytes.
        words: function from the size of all variables up to the one refused, in words, to the
            error's text.

    Yields:
        A list in which a refusal is kept, as Keras may wrap it in words of its own.
    """
    made = 0
    refusals = list[TooLarge]()

    def make(make_variable, **arguments):
        nonlocal made
        value = arguments["initial_value"]
        if callable(value):
            with tf.Graph().as_default():  # where a tensor has a shape, but takes no memory
                value = value()
        if tf.is_tensor(value) and value.shape.is_fully_defined():
            made += math.prod(value.shape.as_list()) * value.dtype.size
        if made > most:
            refusals.append(TooLarge(words(size_in_words(made))))
            raise refusals[0]
        return make_variable(**arguments)

    with tf.variable_creator_scope(make):
        yield refusals


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
            f"{damaged}: it claims the shape {shape} of {dtype}, which is {size_in_words(claimed)}, but "
            f"{size_in_words(rest)} are there. Write it anew."
        )
    return rest


def expect_memory(path: Path, needed: int) -> None:
    """Raise a `TooLarge` error if arrays need more bytes than this machine has."""
    if needed > memory():
        raise TooLarge(
            f"The arrays of {path} take {size_in_words(needed)}, more than the "
            f"{size_in_words(memory())} of memory of this machine. Give fewer examples, or a smaller dtype."
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
            f"{file}, of {size_in_words(packed)}, has constants of {size_in_words(constants)}",
        )
        objects = [node.variable for node in graph.object_graph_def.nodes]
        claimed = sum(_bytes(one.dtype, one.shape) for one in objects)
        _expect(
            claimed <= SMALL + MOST_FOR_WEIGHTS * variables,
            f"{file} has variables of {size_in_words(claimed)}, but their files hold {size_in_words(variables)}",
        )


def _bytes(dtype: int, shape) -> int:
    """Return the bytes that a dtype and a shape of TensorFlow's messages claim."""
    size = tf.as_dtype(dtype).size if dtype else 0
    return math.prod(max(0, dim.size) for dim in shape.dim) * max(1, size or 1)


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise TooLarge(_damaged(what))


def _damaged(what: str) -> str:
    return f"{what}: it is damaged, or made to fill the memory."


def size_in_words(number: float) -> str:
    """Write a number of bytes.

    >>> size_in_words(1_500_000_000), size_in_words(12)
    ('1.5 GB', '12 bytes')
    """
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if number >= unit:
            return f"{number / unit:,.1f} {name}"
    return f"{number:,.0f} bytes"
