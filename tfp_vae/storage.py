"""Files and folders as arrays by name: in memory, or as rows of what is too large for it."""

import array
import os
import struct
import tempfile
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from tfp_vae.batch import whole
from tfp_vae.checks import imported
from tfp_vae.files import load_file
from tfp_vae.rows import ArrayRows, DecodedRows, FileRows, Rows, opened

# Largest number of bytes of an array that is read into memory.
MOST_BYTES = 2**29
# What the names of TFRecord files have in them.
TFRECORD = ".tfrecord"
# Names of the examples in a file of records that has other features, too.
NAMES_OF_X = ("x", "image", "image/encoded", "image_raw")
# The first bytes of images that are decoded.
IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM")
# How the names of image files end that Keras looks for.
SUFFIXES_OF_IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
# Most files of records that stay open; systems limit them to some thousand.
MOST_OPEN = 200


def open_path(path: Path, wanted: Collection[str] = ()) -> dict[str, Any]:
    """Return what a file or a folder holds by name: arrays, or rows of what is too large for memory.

    Args:
        path: an `.npy`, `.npz` or TFRecord file; a folder of images, of TFRecord files, or of a saved
            `tf.data.Dataset`.
        wanted: names of features that must be in a TFRecord file, and are read beside the examples.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        ValueError: if it holds something else.
    """
    if path.is_dir():
        records = sorted(path.glob(f"*{TFRECORD}*"))
        if (path / "dataset_spec.pb").is_file():
            arrays: dict[str, Any] = _load_saved(path, {"x", *wanted})
        else:
            arrays = open_records(records, wanted) if records else open_images(path)
    elif TFRECORD in path.name:
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path}.")
        arrays = open_records([path], wanted)
    elif path.is_file() and path.stat().st_size > MOST_BYTES:
        try:
            return {key: in_memory(values) for key, values in open_npy(path).items()}
        except OnlyAsAWhole:
            return {**load_file(path)}
    else:
        return {**load_file(path)}
    kept = {name: arrays[name] for name in arrays if name in {"x", *wanted}}
    return {name: in_memory(values) for name, values in kept.items()}


def in_memory(values):
    """Return rows of files as an array if they are small enough."""
    return np.asarray(values) if values.nbytes <= MOST_BYTES else values


def _load_saved(path: Path, wanted: Collection[str]) -> dict[str, Any]:
    """Return what is wanted of the examples of a saved `tf.data.Dataset` of batches by name.

    Its elements can only be read one after the other, so a large one is copied to a file of rows.
    """
    data = _by_name(tf.data.Dataset.load(str(path)), path, wanted)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())

    def part(name: str) -> Rows:
        return temporary_rows(data.map(lambda parts: parts[name]))

    try:
        if size <= MOST_BYTES:
            return dict(whole(data))
        return {name: part(name) for name in data.element_spec if name in wanted}
    except tf.errors.DataLossError as error:
        raise ValueError(
            f"{path} is a damaged tf.data.Dataset, or one that was saved with compression: save it "
            "without."
        ) from error


def _by_name(data: tf.data.Dataset, path: Path, wanted: Collection[str]) -> tf.data.Dataset:
    """Return a data set of batches as one of dicts, whose examples are `x` if they have one name."""
    spec = data.element_spec
    parts = spec if isinstance(spec, tuple) else (spec,)
    if isinstance(spec, dict):
        names = sorted(spec)  # the order of tf.nest
        leaves = [spec[name] for name in names]
    else:
        names, leaves = ["x", "label", "weight"][: len(parts)], [*parts]
    found = [name for name in NAMES_OF_X if name in names]
    are_batches = all(isinstance(leaf, tf.TensorSpec) and leaf.shape.rank != 0 for leaf in leaves)
    sizes = {leaf.shape[0] for leaf in leaves if are_batches and leaf.shape.rank} - {None}
    is_known = bool(found or {*names} & {*wanted}) and len(names) == len(leaves)
    if not is_known or not are_batches or len(sizes) > 1:
        raise ValueError(
            f"{path} is a tf.data.Dataset of elements {spec}. Expected batches: of x, of (x, label), "
            "or of dicts of tensors with an x or image among them, such as data.batch(100) has."
        )
    names = ["x" if name in found[:1] else name for name in names]
    return data.map(lambda *given: dict(zip(names, tf.nest.flatten(given), strict=True)))


def temporary_rows(batches) -> ArrayRows:
    """Return batches of examples as the rows of a file without a name, which exists as long as
    they do.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npy"
        write_npy(path, batches)
        return ArrayRows(np.load(path, mmap_mode="r"))  # a mapped file outlives its name


class OnlyAsAWhole(ValueError):
    """A file has no rows that can be read by themselves."""


def open_npy(path: Path) -> dict[str, FileRows]:
    """Return the array of an `.npy` file as `x`, or those of an uncompressed `.npz` file by name.

    Raises:
        OnlyAsAWhole: if it is another kind of file, or an array is compressed, in Fortran's order, or
            of Python objects.
        ValueError: if it is cut short.
    """
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            return {"x": _rows_at(path, 0)}
        try:
            members = zipfile.ZipFile(file).infolist()
            starts = [_start_of(file, member.header_offset) for member in members]
        except (zipfile.BadZipFile, struct.error) as error:  # reading it as a whole tells where
            raise OnlyAsAWhole(f"{path} is damaged: {error}") from error
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise OnlyAsAWhole(f"{path} is compressed, so it can only be read as a whole.")
        return {
            Path(member.filename).stem: _rows_at(path, start)
            for member, start in zip(members, starts, strict=True)
        }


def _start_of(file, header: int) -> int:
    """Return the position of the first byte of a member of a zip archive behind its header."""
    file.seek(header + 26)
    return header + 30 + sum(struct.unpack("<HH", file.read(4)))


def _rows_at(path: Path, start: int) -> FileRows:
    with path.open("rb") as file:
        file.seek(start)
        readers = {(1, 0): np.lib.format.read_array_header_1_0}
        try:
            read = readers.get(np.lib.format.read_magic(file), np.lib.format.read_array_header_2_0)
            shape, is_fortran, dtype = read(file)
        except ValueError as error:
            raise OnlyAsAWhole(f"{path} is no file of arrays: {error}") from error
        if is_fortran or dtype.hasobject or not shape:
            raise OnlyAsAWhole(f"An array of {path} can only be read as a whole.")
        return FileRows(path, shape, dtype, file.tell())


def write_npy(path: str | os.PathLike, batches) -> None:
    """Write batches of examples to an `.npy` file, one after the other.

    So a stream, such as a `tf.data.Dataset` without labels, becomes a file of which any row can be
    read.

    Args:
        path: of the new file.
        batches: several arrays or tensors `[batch, *event_shape]` of numbers.

    Raises:
        FileExistsError: if there is such a file.
        ValueError: if there are no batches, or they do not agree in shape and type.

    >>> import tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "x.npy")
    >>> write_npy(path, tf.data.Dataset.range(5).batch(2))
    >>> np.load(path)
    array([0, 1, 2, 3, 4])
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists already. Choose another name.")
    aside = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        with aside.open("wb") as file:
            _write_rows(file, path, batches)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _write_rows(file, path: Path, batches) -> None:
    number = 0
    header: dict[str, Any] = {}
    for given in batches:
        if tf.nest.is_nested(given):
            raise ValueError(
                f"A file holds one array, but the batches of {path} have several parts. Take one of "
                "them: data.map(lambda x, y: x)."
            )
        batch = np.ascontiguousarray(given)
        if batch.dtype.kind not in "biufc" or not np.ndim(given):
            raise ValueError(
                f"{path} takes batches of numbers, [batch, *event_shape], received shape "
                f"{np.shape(given)} of {batch.dtype}."
            )
        if not header:
            header = np.lib.format.header_data_from_array_1_0(batch)
            np.lib.format.write_array_header_1_0(file, header)
            start, shape, dtype = file.tell(), batch.shape[1:], batch.dtype
        if (batch.shape[1:], batch.dtype) != (shape, dtype):
            raise ValueError(
                f"The batches of {path} must agree: first {shape} of {dtype}, then "
                f"{batch.shape[1:]} of {batch.dtype}."
            )
        file.write(batch.data)
        number += len(batch)
    if not number:
        raise ValueError("The data set is empty. Expected at least one batch.")
    file.seek(0)  # NumPy leaves space in the header for any number of rows
    np.lib.format.write_array_header_1_0(file, {**header, "shape": (number, *shape)})
    if file.tell() != start:
        raise ValueError(f"NumPy wrote a header of another length to {path}.")


def open_images(folder: Path) -> dict:
    """Return the images of a folder as `x`, and, if it has subfolders, the number of the subfolder
    of each as `label`, in the order of their names.

    They are those that `keras.utils.image_dataset_from_directory` finds, but of their own size:
    uint8 `[num_examples, height, width, channels]`; of 16 bits the upper eight are kept.

    Raises:
        ValueError: if there are none, they are not all of one size and kind, or some are beside
            the subfolders.
    """
    inside = [path for path in folder.iterdir() if not _is_hidden(path, folder)]
    has_labels = any(path.is_dir() for path in inside)
    beside = [path for path in inside if path.suffix.lower() in SUFFIXES_OF_IMAGES]
    if has_labels and beside:
        raise ValueError(
            f"{folder} holds both images, such as {beside[0].name}, and subfolders. Expected one "
            "subfolder for each label, or none."
        )
    try:
        found = keras.utils.image_dataset_from_directory(
            folder,
            labels="inferred" if has_labels else None,
            shuffle=False,
            batch_size=None,
            verbose=False,
        )
    except ValueError as error:
        raise ValueError(
            f"{folder} holds no images. Expected PNG or JPEG files of one size, in it or in one "
            "subfolder for each label; TFRecord files; or a saved tf.data.Dataset."
        ) from error
    paths = [path for path in found.file_paths if not _is_hidden(Path(path), folder)]
    places = [Path(path).relative_to(folder).parts for path in paths]
    if deeper := [path for path, place in zip(paths, places, strict=True) if len(place) > 2]:
        raise ValueError(
            f"{folder} holds images in folders within subfolders, such as {deeper[0]}. Expected one "
            "subfolder for each label; load training and test data by themselves."
        )
    shape = _common_shape(folder, paths)
    names = np.array(paths, object)
    x = DecodedRows(
        [len(paths), *shape],
        "uint8",
        lambda places: names[places],
        lambda path: _image(tf.io.read_file(path), shape),
        lambda place: paths[place],
    )
    if not has_labels:
        return {"x": x}
    labels = [place[0] for place in places]
    number_of = {name: number for number, name in enumerate(sorted(set(labels)))}
    return {"x": x, "label": np.array([number_of[label] for label in labels])}


def _common_shape(folder: Path, paths: Sequence[str]) -> tuple[int, int, int]:
    """Return the height, width and channels of images, which must be the same for all."""
    images = imported("PIL.Image", "A folder of images", "plots")
    kinds = set()
    for path in paths:
        try:
            with images.open(path) as image:
                is_grey = images.getmodebase(image.mode) == "L"
                kinds.add((image.height, image.width, 1 if is_grey else 3))
        except images.DecompressionBombError as error:
            raise ValueError(f"{path} is damaged, or no image to train on: {error}") from error
        if len(kinds) > 1:
            raise ValueError(
                f"The images of {folder} must be of one size, and all grey or all coloured: "
                f"{paths[0]} and {path} differ (height, width, channels): {sorted(kinds)}."
            )
    return kinds.pop()


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _image(content: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    image = tf.io.decode_image(content, shape[-1], expand_animations=False)
    message = f"All images must be of the size of the first one, {tuple(shape)}"
    with tf.control_dependencies([tf.debugging.assert_equal(tf.shape(image), shape, message)]):
        return tf.ensure_shape(tf.identity(image), shape)


def open_records(paths: Sequence[Path], wanted: Collection[str]) -> dict[str, Rows]:
    """Return the features of TFRecord files of `tf.train.Example` by name; the examples are also
    called `x`.

    Images are decoded; lists of numbers are vectors, and single numbers scalars. All records are as
    the first one is.

    Args:
        paths: of the files, in order.
        wanted: names of features that must be there.

    Raises:
        ValueError: if the files are no such files, are compressed, or lack a feature.
    """
    records = _Records(paths)
    try:
        features = tf.train.Example.FromString(records.read(np.array([0]))[0]).features.feature
    except DecodeError as error:
        raise ValueError(f"The records of {paths[0]} are no tf.train.Example: {error}.") from error
    read = {name: _feature(records, name, value) for name, value in sorted(features.items())}
    found = {name: rows for name, rows in read.items() if rows is not None}
    names = [name for name in NAMES_OF_X if name in found] or [*found][: len(found) == 1]
    if names:
        found = {"x": found[names[0]]} | found
    if lacking := [name for name in ["x", *wanted] if name not in found]:
        raise ValueError(
            f"{paths[0]} has no feature {' and no '.join(lacking)}, only {sorted(features)}. The "
            f"examples must be called {' or '.join(NAMES_OF_X)}, or be alone."
        )
    return found


def _feature(records: "_Records", name: str, value) -> Rows | None:
    """Return a feature of all records; None if it is neither an image nor numbers."""
    kind = value.WhichOneof("kind")
    number = len(getattr(value, kind).value) if kind else 0
    if kind == "bytes_list" and number == 1 and value.bytes_list.value[0].startswith(IMAGES):
        image = tf.io.decode_image(value.bytes_list.value[0], expand_animations=False)
        shape, dtype, given = image.shape, "uint8", tf.io.FixedLenFeature([], tf.string)
    elif kind in ("float_list", "int64_list") and number:
        shape = [number] if number > 1 else []
        dtype = "float32" if kind == "float_list" else "int64"
        given = tf.io.FixedLenFeature(shape, dtype)
    else:
        return None

    def decode(record: tf.Tensor) -> tf.Tensor:
        content = tf.io.parse_single_example(record, {name: given})[name]
        return _image(content, shape) if dtype == "uint8" else content

    return DecodedRows([len(records.starts), *shape], dtype, records.read, decode, records.name_of)


class _Records:
    """The records of TFRecord files by number: each is a length of eight bytes, its checksum of
    four, the content, and its checksum of four.
    """

    def __init__(self, paths: Sequence[Path]):
        self.paths = [*paths]
        few = len(self.paths) <= MOST_OPEN
        self.files = [opened(path, self) for path in self.paths] if few else None
        indexed = [self._index(path) for path in self.paths]
        sizes = [len(starts) for starts, _ in indexed]
        self.numbers = np.repeat(np.arange(len(indexed), dtype="uint32"), sizes)
        self.starts, self.lengths = (np.concatenate(part) for part in zip(*indexed, strict=True))
        if not len(self.starts):
            raise ValueError(f"{self.paths[0]} is empty. Expected at least ten examples.")

    @staticmethod
    def _index(path: Path) -> tuple[np.ndarray, np.ndarray]:
        starts, lengths = array.array("q"), array.array("q")
        position, size = 0, path.stat().st_size
        with path.open("rb") as file:
            while position < size:
                file.seek(position)
                head = file.read(12)
                length = struct.unpack("<Q", head[:8])[0] if len(head) == 12 else size
                if position + 16 + length > size:
                    is_gzip = position == 0 and head.startswith(b"\x1f\x8b")
                    raise ValueError(
                        f"{path} is compressed, so its records cannot be read one by one. Write it "
                        "without compression."
                        if is_gzip
                        else f"{path} is no TFRecord file, or is cut short at byte {position:,}. "
                        "Write it anew."
                    )
                starts.append(position + 12)
                lengths.append(length)
                position += 16 + length
        return np.array(starts, "int64"), np.array(lengths, "int64")

    def name_of(self, place: int) -> str:
        """Return what to call the record at a place."""
        number = self.numbers[place]
        return f"record {place - int(np.argmax(self.numbers == number))} of {self.paths[number]}"

    def read(self, places: np.ndarray) -> np.ndarray:
        """Return the contents of the records at places, an object array `[batch]`."""
        contents = np.empty(len(places), object)
        for row, place in enumerate(places):
            number, where = self.numbers[place], (int(self.lengths[place]), int(self.starts[place]))
            if self.files:
                contents[row] = os.pread(self.files[number], *where)
            else:
                with self.paths[number].open("rb", buffering=0) as file:
                    contents[row] = os.pread(file.fileno(), *where)
        return contents


__all__ = ["in_memory", "open_images", "open_npy", "open_path", "open_records", "write_npy"]
