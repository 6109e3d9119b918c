"""Where data come from: arrays by name, `.npz` files, TFDS; each gives train, validation and test data by name."""

import difflib
import os
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tfp_vae.kinds import USUAL, kind_of

# Seconds to wait for an answer before a data set counts as out of reach.
NETWORK_TIMEOUT = 10


def load_digits() -> dict[str, np.ndarray]:
    """Return scikit-learn's handwritten digits: `x` of 8x8 counts from 0 to 16, and `label`."""
    from sklearn.datasets import load_digits as load  # slow to import, and only the digits need it

    digits = load()
    return {"x": digits.images[..., np.newaxis].astype("int32"), "label": digits.target}


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of an `.npz` file.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is another kind of file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with np.load(path) as file:
            return dict(file)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path} is not an .npz file of numeric arrays, as numpy.savez writes them.") from error


def load_file(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an `.npz` file by name, or that of an `.npy` file as `x`.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is another kind of file; it says how to make one of these.
    """
    if path.suffix == ".npz":
        return load_npz(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.suffix == ".npy":
        try:
            return {"x": np.load(path)}
        except (EOFError, OSError, ValueError) as error:
            raise ValueError(f"{path} is not an .npy file of a numeric array, as numpy.save writes it.") from error
    raise ValueError(
        f"{path} is a file of another kind ({path.suffix or 'without a suffix'}) than .npz and .npy. Save its columns "
        f"as arrays of numbers, as in numpy.savez({str(path.with_suffix('.npz'))!r}, age=ages, job=jobs)."
    )


def from_arrays(name: str, arrays: Mapping[str, np.ndarray], wanted: Mapping[str, str]) -> list[dict[str, np.ndarray]]:
    """Return train, validation and test data of some arrays.

    Args:
        name: of the whole, for messages.
        arrays: `age` and `job`, or `age_train`, `age_test`, `job_train` ..., perhaps with `..._validation`. A sole
            array is x, whatever its name.
        wanted: the array of each thing by name; others are left out.

    Raises:
        ValueError: if one is missing, their lengths differ, or there are too few examples to cut.
    """
    if [*wanted] == ["x"] and len(arrays) == 1:
        arrays = {wanted["x"]: next(iter(arrays.values()))}
    if arrays.keys() >= {*wanted.values()}:
        return _cut(name, {key: arrays[found] for key, found in wanted.items()})

    def split(which: str) -> dict[str, np.ndarray]:
        return {key: arrays[f"{found}_{which}"] for key, found in wanted.items()}

    try:
        train, test = split("train"), split("test")
        if f"{next(iter(wanted.values()))}_validation" in arrays:
            return [train, split("validation"), test]
    except KeyError as missing:
        in_splits = any(f"{found}_train" in arrays for found in wanted.values())
        lacking = missing if in_splits else next(repr(found) for found in wanted.values() if found not in arrays)
        if [*wanted] == ["x"] and not in_splits:
            _tell_of_tables(name, arrays)
        split_names = [f"{found}_{which}" for found in wanted.values() for which in ("train", "test")]
        raise ValueError(
            f"{name} holds {sorted(arrays)}, but no {lacking}. Expected "
            f"{'one array' if [*wanted] == ['x'] else ' and '.join(wanted.values())}, or {' and '.join(split_names)}."
        ) from None
    train, validation, rest = _cut(name, train)
    return [{key: np.concatenate([train[key], rest[key]]) for key in train}, validation, test]


def _tell_of_tables(name: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise a ValueError that shows how to take several arrays for a table, if they can be one."""
    numbers = {key: values for key, values in arrays.items() if values.dtype.kind in "biuf" and values.size}
    if len(numbers) > 1 and len({len(np.atleast_1d(values)) for values in numbers.values()}) == 1:
        suited = {key: USUAL[kind_of([values], [values], is_part=True)][0] for key, values in numbers.items()}
        joint = ", ".join(f"{key}='{likelihood}'" for key, likelihood in suited.items())
        raise ValueError(
            f"{name} holds several arrays, {', '.join(arrays)}, and none of them is called x. To take them for the "
            f'columns of a table, say how each is distributed: --likelihood "Joint({joint})" (whole numbers that are '
            "categories: IndependentCategorical). To take one alone, call it x."
        )


def _cut(name: str, data: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Cut validation and test data, a tenth each, from shuffled data; the cut is the same at every call."""
    for values in data.values():
        if values.ndim == 0:
            raise ValueError(f"{name} must be an array of numbers, received shape () of {values.dtype}.")
    lengths = {key: len(values) for key, values in data.items()}
    number = next(iter(lengths.values()))
    if {*lengths.values()} != {number}:
        raise ValueError(f"The arrays of {name} must be of one length, received {lengths}.")
    if number < 10:
        raise ValueError(f"The data set is empty or too small: {number} examples. Expected at least ten.")
    held_out = min(number // 10 + (number % 10 > 0), 10_000)
    order = np.random.RandomState(0).permutation(number)
    places = order[2 * held_out :], order[:held_out], order[held_out : 2 * held_out]
    return [{key: values[rows] for key, values in data.items()} for rows in places]


def load_tfds(name: str, wanted: Mapping[str, str]) -> list[dict[str, np.ndarray]]:
    """Load features of a TFDS data set of images into memory.

    Args:
        name: of the data set; the folder `TFDS_DATA_DIR` is honoured.
        wanted: the feature of each thing by name.

    Raises:
        ValueError: if there is no such data set or feature, or its images have several sizes.
        FileNotFoundError: if it is neither prepared nor within reach.
    """
    import tensorflow_datasets as tfds  # slow to import, and only these data need it

    known = tfds.list_builders(with_community_datasets=False)
    if name.split("/")[0].split(":")[0] not in known:
        near = ", ".join(difflib.get_close_matches(name, ["digits", *known], 3)) or "digits, mnist, fashion_mnist"
        raise ValueError(f"There is no data set {name!r}. Did you mean: {near}? Or give the path of an .npz file.")
    builder = tfds.builder(name, data_dir=os.environ.get("TFDS_DATA_DIR"))
    if not builder.is_prepared():
        _expect_network(name, builder)
        builder.download_and_prepare()
    image = dict(builder.info.features).get("image")
    if image is None or None in image.shape:
        raise ValueError(f"The data set {name} has no images of one size: {builder.info.features}.")
    if lacking := {*wanted.values()} - {*builder.info.features}:
        raise ValueError(f"The data set {name} has no {sorted(lacking)}, only {sorted(builder.info.features)}.")
    last = min(builder.info.splits["train"].num_examples // 10, 5_000)
    if "validation" in builder.info.splits:
        splits = ["train", "validation", "test"]
    else:
        splits = [f"train[:-{last}]", f"train[-{last}:]", "test"]
    if "test" not in builder.info.splits:
        raise ValueError(f"The data set {name} has no test split, only {sorted(builder.info.splits)}.")
    loaded = [builder.as_dataset(split=split, batch_size=-1) for split in splits]
    return [{key: part[found].numpy() for key, found in wanted.items()} for part in loaded]


def _expect_network(name: str, builder) -> None:
    """Raise soon where a download would hang: TFDS itself tries for minutes."""
    failures: list[str] = []

    def knock(url: str) -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=NETWORK_TIMEOUT).close()
        except urllib.error.HTTPError:
            pass  # an answer, whatever it says
        except (OSError, ValueError) as error:
            failures.append(str(error))

    url = next(iter(builder.url_infos), "https://storage.googleapis.com")
    thread = threading.Thread(target=knock, args=[url], daemon=True)
    thread.start()
    thread.join(2 * NETWORK_TIMEOUT)
    if failures or thread.is_alive():
        raise FileNotFoundError(
            f"The data set {name} is not prepared in {builder.data_dir}, and its source does not answer "
            f"({failures[0] if failures else 'no reply'}). Set TFDS_DATA_DIR to a folder where it is prepared, or "
            "connect to the network."
        )
