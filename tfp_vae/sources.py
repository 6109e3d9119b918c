"""Sources of data: arrays by name, files, folders, and TFDS.

Each source returns train, validation and test data by name. What is larger than
`storage.MOST_BYTES` is not read into memory: it stays as `rows.Rows`.
"""

import difflib
import importlib.util
import keyword
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_vae import shapes, storage, tables
from tfp_vae.batch import BESIDE_X
from tfp_vae.checks import imported
from tfp_vae.files import expect_no_file, is_number
from tfp_vae.kinds import USUAL, kind_of
from tfp_vae.rows import Rows, chosen, pieces
from tfp_vae.storage import TFRECORD
from tfp_vae.text import SPLITS, Vocabulary, is_text, read_lines

# Seconds to wait for an answer before a download counts as impossible.
NETWORK_TIMEOUT = 10
# Largest number of different whole numbers in a column for which categories are proposed.
MANY_CATEGORIES = 20
# Number of images in the data set shapes.
NUM_SHAPES = 10_000
# Size of the vocabulary of texts split into words, at most.
MOST_WORDS = 10_000


def load_digits() -> dict[str, np.ndarray]:
    """Return scikit-learn's handwritten digits: `x` of 8x8 counts from 0 to 16, and `label`."""
    digits = imported("sklearn.datasets", "The data set digits", "data").load_digits()
    return {"x": digits.images[..., np.newaxis].astype("int32"), "label": digits.target}


def load_shapes() -> dict[str, np.ndarray]:
    """Return images of shapes, `x` of 32x32 zeros and ones, and each of their factors by name."""
    factors = shapes.draw_factors(NUM_SHAPES)
    return {"x": shapes.render(factors), **dict(zip(shapes.FACTORS, factors.T, strict=True))}


# Data sets that need no file and no network.
OWN = {"digits": load_digits, "shapes": load_shapes}


def read(
    source: str | os.PathLike | np.ndarray | Mapping,
    wanted: Mapping[str, str],
    check: Callable[[str, Mapping], None] = lambda name, arrays: None,
) -> tuple[str, list[dict[str, np.ndarray]]]:
    """Return the name of some data, without folders, and their train, validation and test rows.

    Args:
        source: one of `OWN`, arrays, a file of arrays, or a name of TFDS; see `datasets.load`.
        wanted: what to return by name: the name that it has in the source.
        check: function of name and arrays that may refuse them before they are split.
    """
    if isinstance(source, (np.ndarray, Mapping)):
        arrays = source if isinstance(source, Mapping) else {"x": source}
        check("array", arrays)
        return "array", from_arrays("array", arrays, wanted)
    name = str(source)
    if name in OWN:
        return name, from_arrays(name, OWN[name](), wanted)
    path = Path(source)
    is_file = path.suffix in (".npz", ".npy", TFRECORD) or path.is_file()
    if is_file or (path.is_dir() and not _is_of_tfds(name)):
        arrays = storage.open_path(path, wanted.values())
        check(name, arrays)
        called = path.resolve().name if path.is_dir() else path.name.partition(TFRECORD)[0]
        return Path(called).stem, from_arrays(name, arrays, wanted)
    features = {**wanted, "x": "image"} if "x" in wanted else wanted
    return name.replace("/", "-").replace(":", "-"), load_tfds(name, features)


def expect_source(source) -> None:
    """Raise a TypeError if data are given in a form that no source has."""
    if not (
        isinstance(source, str | os.PathLike | np.ndarray | Mapping) or tables.is_frame(source)
    ):
        raise TypeError(
            "Data are a name, a path, an array, a dict of arrays or a DataFrame, received a "
            f"{type(source).__name__}. Make it an array: numpy.asarray(data)."
        )


def expect_numbers(
    name: str, values: np.ndarray | Rows, *, missing: bool, least_ndim: int, for_x: bool = True
) -> None:
    """Check one array before it is split into training, validation and test data.

    Raises:
        ValueError: if it is empty, has too few axes, or holds anything but finite numbers (and,
            where allowed, NaN).
    """
    if values.size == 0:
        raise ValueError(
            f"The data set {name} is empty: shape {values.shape}. Expected at least ten examples."
        )
    if values.dtype.kind in "USO":
        _refuse_text(name, np.asarray(values).astype(str), for_x=for_x)
    if values.ndim < least_ndim or values.dtype.kind not in "biuf":
        raise ValueError(
            f"The data set {name} must be an array of numbers, [num_examples, *event_shape], "
            f"received shape {values.shape} of {values.dtype}."
        )
    if values.dtype.kind != "f":
        return
    bad = number = 0
    for piece in pieces(values if values.ndim else np.atleast_1d(values)):
        is_bad = np.isinf(piece) if missing else ~np.isfinite(piece)
        bad += is_bad.sum()
        number += is_bad.reshape(len(piece), -1).any(axis=1).sum()
    if bad:
        raise ValueError(
            f"The data set {name} holds {bad:,} values that are "
            f"{'infinite' if missing else 'NaN or infinite'}, in {number:,} of "
            f"{values.shape[0] if values.ndim else 1:,} rows. Remove or replace "
            f"them{'; NaN as a missing value needs missing=True, or --missing' if for_x and not missing else ''}."
        )


def _refuse_text(name: str, values: np.ndarray, *, for_x: bool) -> None:
    """Raise a ValueError that says how many strings there are, where, and how to convert them."""
    different, places = np.unique(values, return_inverse=True)
    is_text = ~np.array([is_number(text) for text in different])
    if not is_text.any():
        raise ValueError(
            f"The data set {name} holds numbers written as text. Give values.astype('float32')."
        )
    where = is_text[places.reshape(values.shape)]
    columns = ""
    if values.ndim == 2 and not where.any(axis=0).all():
        columns = (
            f" in column {', '.join(map(str, np.flatnonzero(where.any(axis=0))))} (the first is 0)"
        )
    raise ValueError(
        f"The data set {name} holds text: {where.sum():,} of {values.size:,} values{columns}, "
        f"{is_text.sum():,} different ones such as "
        f"{', '.join(map(repr, different[is_text][:3].tolist()))}. Number them, as "
        "numpy.unique(values, return_inverse=True)[1] "
        f"does{', in an array of their own, and take IndependentCategorical for what is a category' if for_x else ''}."
    )


def labels(source: str | os.PathLike | Mapping, *names: str) -> list[np.ndarray]:
    """Return what is known beside x, such as labels or factors: train, validation and test rows.

    They are whole numbers, `[num_examples, len(names)]`, in the order of the x of `datasets.load`.

    Args:
        source: as in `datasets.load`, but not texts, beside which nothing is known.
        *names: of arrays or of features, as the `condition` of `datasets.load`.

    Raises:
        ValueError: if the source has no such labels, or they are not whole numbers.

    >>> [len(rows) for rows in labels("shapes", "shape", "pos_x")]
    [8000, 1000, 1000]
    """
    if is_text(source):
        raise ValueError(f"{source} holds texts alone, no {' and no '.join(names)}.")
    if tables.is_table_file(source):
        raise ValueError(
            f"{source} is a table, all of whose columns are learned together: nothing is known beside "
            "them. Give an .npz file of x and the labels."
        )
    if len({*names}) < len(names):
        raise ValueError(f"Each name may be given once, received {', '.join(names)}.")
    parts = read(source, {name: name for name in names})[1]
    parts = [{name: np.asarray(values) for name, values in part.items()} for part in parts]
    for name, values in parts[0].items():
        is_whole = values.dtype.kind in "biu" or (
            values.dtype.kind == "f" and (values == np.round(values)).all()
        )
        if values.ndim != 1 or not is_whole:
            raise ValueError(
                f"Labels must be one whole number for each example; {name} has shape {values.shape} "
                f"and type {values.dtype}. Number them, as numpy.unique(values, "
                "return_inverse=True)[1] does."
            )
    return [np.stack([*part.values()], axis=-1).astype("int64") for part in parts]


def from_arrays(
    name: str, arrays: Mapping[str, np.ndarray], wanted: Mapping[str, str]
) -> list[dict[str, np.ndarray]]:
    """Return train, validation and test data of some arrays.

    Args:
        name: name of the data, for messages.
        arrays: `age` and `job`, or `age_train`, `age_test`, `job_train` ..., perhaps with
            `..._validation`. A sole array is x, whatever its name.
        wanted: the array of each thing by name; others are left out.

    Raises:
        ValueError: if one is missing, their lengths differ, or there are too few examples to split.
    """
    if [*wanted] == ["x"] and len(arrays) == 1:
        arrays = {wanted["x"]: next(iter(arrays.values()))}
    if arrays.keys() >= {*wanted.values()}:
        data = {key: arrays[found] for key, found in wanted.items()}
        return [_at(data, places) for places in _split(name, data)]

    def split(which: str) -> dict[str, np.ndarray]:
        return {key: arrays[f"{found}_{which}"] for key, found in wanted.items()}

    try:
        train = split("train")
        test = split("test")
        if f"{next(iter(wanted.values()))}_validation" in arrays:
            return [train, split("validation"), test]
    except KeyError as missing:
        in_splits = any(f"{found}_train" in arrays for found in wanted.values())
        lacking = (
            missing
            if in_splits
            else next(repr(found) for found in wanted.values() if found not in arrays)
        )
        if [*wanted] == ["x"] and not in_splits:
            _tell_of_tables(name, arrays)
        split_names = [
            f"{found}_{which}" for found in wanted.values() for which in ("train", "test")
        ]
        raise ValueError(
            f"{name} holds {sorted(arrays)}, but no {lacking}. Expected "
            f"{'one array' if [*wanted] == ['x'] else ' and '.join(wanted.values())}, or "
            f"{' and '.join(split_names)}."
        ) from None
    places, held_out, rest = _split(name, train)
    return [_at(train, np.concatenate([places, rest])), _at(train, held_out), test]


def _tell_of_tables(name: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise a ValueError that shows how to take several arrays for a table, if they can be one."""
    columns = {
        key: values
        for key, values in arrays.items()
        if values.ndim and values.dtype.kind in "biufUS"
    }
    if (
        len(columns) < 2
        or len({len(values) for values in columns.values()}) > 1
        or not all(map(len, columns.values()))
    ):
        return
    texts = [key for key, values in columns.items() if values.dtype.kind in "US"]
    renamed = [
        key
        for key in columns
        if not key.isidentifier() or keyword.iskeyword(key) or key in BESIDE_X
    ]
    joint = ", ".join(
        f"{key}='{_suits(values)}'" for key, values in columns.items() if key not in renamed
    )
    remarks = [
        f"number the texts of {', '.join(texts)} first, as numpy.unique(values, "
        "return_inverse=True)[1] does"
        if texts
        else "",
        f"give {', '.join(map(repr, renamed))} other names, such as Python's variables have"
        if renamed
        else "",
        "few whole numbers are taken for categories, for counts write 'auto'",
    ]
    raise ValueError(
        f"{name} holds several arrays, {', '.join(arrays)}, and none of them is called x. To take "
        "them for the columns "
        f'of a table, say how each is distributed: --likelihood "Joint({joint})" '
        f"({'; '.join(filter(None, remarks))}). To take one alone, call it x; another can be its "
        "--condition."
    )


def _suits(values: np.ndarray) -> str:
    """Return the likelihood to propose for a column: a categorical one for strings and for few
    whole numbers.
    """
    different = np.unique(values)
    few = len(different) <= MANY_CATEGORIES
    if values.dtype.kind in "US" or (
        values.dtype.kind in "iu" and few and [*different] == [*range(len(different))]
    ):
        return "IndependentBernoulli" if [*different] in ([0], [0, 1]) else "IndependentCategorical"
    return USUAL[kind_of([values], is_part=True)][0]


def _at(data: Mapping[str, Any], places: np.ndarray) -> dict[str, Any]:
    """Return the rows at places of arrays, or of rows of files, by name."""
    return {key: chosen(values, places) for key, values in data.items()}


def _split(name: str, data: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the places of training, validation and test data, see `cut_rows`."""
    for values in data.values():
        if values.ndim == 0:
            raise ValueError(
                f"{name} must be an array of numbers, received shape () of {values.dtype}."
            )
    lengths = {key: len(values) for key, values in data.items()}
    number = next(iter(lengths.values()))
    if {*lengths.values()} != {number}:
        raise ValueError(f"The arrays of {name} must be of one length, received {lengths}.")
    return cut_rows(number)


def cut_rows(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which of so many rows are training, validation and test data, in random order."""
    if number < 10:
        raise ValueError(
            f"The data set is empty or too small: {number} examples. Expected at least ten."
        )
    held_out = min(number // 10 + (number % 10 > 0), 10_000)
    order = np.random.RandomState(0).permutation(number)
    return order[2 * held_out :], order[:held_out], order[held_out : 2 * held_out]


def load_texts(
    path: Path, tokens: str | Vocabulary | None, length: int | None
) -> tuple[list[dict[str, np.ndarray]], Vocabulary]:
    """Return a file of texts as sequences of tokens, split into three, and their vocabulary.

    Args:
        path: of a file with one text a line.
        tokens: how to split a text, or the vocabulary; see `datasets.load`.
        length: number of places; None leaves one place after the longest text.
    """
    lines = read_lines(path)
    if not isinstance(tokens, Vocabulary):
        split = tokens or SPLITS[path.suffix.lower()]
        tokens = Vocabulary.of(lines, split, MOST_WORDS if split == "words" else None)
    return from_arrays(path.name, {"x": tokens.encode(lines, length)}, {"x": "x"}), tokens


def load_tfds(name: str, wanted: Mapping[str, str]) -> list[dict[str, np.ndarray]]:
    """Load features of a TFDS data set of images; into memory if they are small enough.

    Args:
        name: name of the data set; `TFDS_DATA_DIR` sets the folder.
        wanted: the feature of each thing by name.

    Raises:
        ValueError: if there is no such data set or feature, or its images have several sizes.
        FileNotFoundError: if it is neither prepared nor available for download.
    """
    tfds = imported("tensorflow_datasets", f"The data set {name}", "data")
    if not _is_of_tfds(name):
        known = tfds.list_builders(with_community_datasets=False)
        expect_no_file(name)
        near = (
            ", ".join(difflib.get_close_matches(name, [*OWN, *known], 3))
            or f"{', '.join(OWN)}, mnist, fashion_mnist"
        )
        raise ValueError(
            f"There is no data set {name!r}. Did you mean: {near}? Or give the path of an .npz or "
            ".npy file, of TFRecord files, or of a folder of images."
        )
    try:
        builder = tfds.builder(name, data_dir=os.environ.get("TFDS_DATA_DIR"))
        if not builder.is_prepared():
            _expect_network(name, builder)
            builder.download_and_prepare()
    except AssertionError as error:  # no such version, or files that one downloads by hand
        raise ValueError(f"TFDS has no data set {name} ready: {error}") from error
    image = dict(builder.info.features).get("image")
    if image is None or None in image.shape:
        raise ValueError(f"The data set {name} has no images of one size: {builder.info.features}.")
    if lacking := {*wanted.values()} - {*builder.info.features}:
        raise ValueError(
            f"The data set {name} has no {sorted(lacking)}, only {sorted(builder.info.features)}."
        )
    number = builder.info.splits["train"].num_examples
    last = min(number // 10, 5_000)
    if "validation" in builder.info.splits:
        splits = ["train", "validation", "test"]
    else:
        splits = [f"train[:-{last}]", f"train[-{last}:]", "test"]
    if "test" not in builder.info.splits:
        raise ValueError(
            f"The data set {name} has no test split, only {sorted(builder.info.splits)}."
        )
    if (
        number * np.prod(image.shape, dtype="int64") * tf.as_dtype(image.dtype).size
        > storage.MOST_BYTES
    ):
        return _open_tfds(builder, wanted, last)
    loaded = [builder.as_dataset(split=split, batch_size=-1) for split in splits]
    return [{key: part[found].numpy() for key, found in wanted.items()} for part in loaded]


def _is_of_tfds(name: str) -> bool:
    """Return whether TFDS, if it is installed, knows a data set of this name."""
    if importlib.util.find_spec("tensorflow_datasets") is None:
        return False
    tfds = imported("tensorflow_datasets", f"The data set {name}", "data")
    return name.split("/")[0].split(":")[0] in tfds.list_builders(with_community_datasets=False)


def _open_tfds(builder, wanted: Mapping[str, str], last: int) -> list[dict[str, Any]]:
    """Return features of the TFRecord files of a prepared TFDS data set: rows, or arrays of what is
    small; the last examples of the training data are for validation if there are no others.
    """

    def opened(split: str) -> dict[str, Any]:
        paths = [Path(path) for path in builder.info.splits[split].filepaths]
        if not all(TFRECORD in path.name for path in paths):
            raise ValueError(
                f"The data set {builder.name} is larger than memory, and prepared as "
                f"{paths[0].suffix} files. Prepare it as TFRecord files."
            )
        found = storage.open_records(paths, [*wanted.values()])
        return {key: storage.in_memory(found[feature]) for key, feature in wanted.items()}

    train, test = opened("train"), opened("test")
    if "validation" in builder.info.splits:
        return [train, opened("validation"), test]
    number = len(next(iter(train.values())))
    places = np.arange(number)
    return [_at(train, places[: number - last]), _at(train, places[number - last :]), test]


def _expect_network(name: str, builder) -> None:
    """Raise an error early if a download would hang: TFDS itself would try for minutes."""
    failures: list[str] = []

    def knock(url: str) -> None:
        try:
            urllib.request.urlopen(
                urllib.request.Request(url, method="HEAD"), timeout=NETWORK_TIMEOUT
            ).close()
        except urllib.error.HTTPError:
            pass  # any answer means that the server is there
        except (OSError, ValueError) as error:
            failures.append(str(error))

    url = next(iter(builder.url_infos), "https://storage.googleapis.com")
    thread = threading.Thread(target=knock, args=[url], daemon=True)
    thread.start()
    thread.join(2 * NETWORK_TIMEOUT)
    if failures or thread.is_alive():
        raise FileNotFoundError(
            f"The data set {name} is not prepared in {builder.data_dir}, and its source does not "
            f"answer ({failures[0] if failures else 'no reply'}). Set TFDS_DATA_DIR to a folder "
            "where it is prepared, or connect to the network."
        )
