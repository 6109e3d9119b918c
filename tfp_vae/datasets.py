"""Data sets: a name, a file or an array becomes train, validation and test data, and the likelihood that suits them."""

import dataclasses
import difflib
import os
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_vae.checks import as_seed

# Seconds to wait for an answer before a data set counts as out of reach.
NETWORK_TIMEOUT = 10


def binarize(pixels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draw black or white for each 8-bit pixel, white with probability pixel / 255.

    Reference: Salakhutdinov & Murray, 2008, On the quantitative analysis of deep belief networks.

    >>> binarize(tf.constant([0, 255]), tf.constant([0, 1])).numpy()
    array([0., 1.], dtype=float32)
    """
    uniform = tf.random.stateless_uniform(tf.shape(pixels), seed)
    return tf.cast(255.0 * uniform < tf.cast(pixels, tf.float32), tf.float32)


def dequantize(pixels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Spread each 8-bit pixel uniformly over its 1/256 of the unit interval, so that a density makes sense.

    Reference: Theis et al., 2016, A note on the evaluation of generative models, arXiv:1511.01844.

    >>> x = dequantize(tf.constant([0, 255]), tf.constant([0, 1])).numpy()
    >>> bool(0 <= x[0] < 1 / 256), bool(255 / 256 <= x[1] <= 1)
    (True, True)
    """
    uniform = tf.random.stateless_uniform(tf.shape(pixels), seed)
    return (tf.cast(pixels, tf.float32) + uniform) / 256.0


@dataclasses.dataclass(frozen=True)
class Splits:
    """Train, validation and test data, and the likelihood that suits them.

    Args:
        name: of the data set, without the folders of a path; fit for a file name.
        train: `[num_examples, *event_shape]`; 8-bit pixels where `draw` is given, else final values. With a condition
            this and the next two are dicts of "x", such arrays, and "condition", `[num_examples, ...]`.
        validation: final values, float32.
        test: final values, float32.
        likelihood: name of the class in `tfp_vae.layers`.
        likelihood_config: its arguments besides the event shape.
        draw: function of a batch of training data and a stateless seed that gives final values, anew in each epoch
            (`binarize`, `dequantize`), or None.
    """

    name: str
    train: np.ndarray | dict[str, np.ndarray]
    validation: np.ndarray | dict[str, np.ndarray]
    test: np.ndarray | dict[str, np.ndarray]
    likelihood: str
    likelihood_config: dict
    draw: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one example x."""
        return x_of(self.train).shape[1:]

    @property
    def conditions(self) -> np.ndarray | None:
        """All conditions, one after another, `[num_examples, ...]`, or None."""
        if not isinstance(self.train, dict):
            return None
        return np.concatenate([part["condition"] for part in (self.train, self.validation, self.test)])

    @property
    def has_labels(self) -> bool:
        """Whether the condition is one of labels: whole numbers of at least 0."""
        return self.conditions is not None and self.conditions.dtype.kind == "i" and self.conditions.min() >= 0

    def steps_per_epoch(self, batch_size: int) -> int:
        """Count the batches of one epoch of `batches`.

        Raises:
            ValueError: if the batch is empty or larger than the training data.
        """
        number = len(x_of(self.train))
        if not 1 <= batch_size <= number:
            raise ValueError(
                f"The batch size must lie between 1 and the {number} training examples of {self.name}, "
                f"received {batch_size}."
            )
        return number // batch_size

    def training_values(self, seed: int = 0) -> np.ndarray:
        """Give final values of x in all training data, drawn once where `draw` is given, float32."""
        rows = x_of(self.train)
        if self.draw is not None:
            rows = self.draw(rows, tf.constant([8, as_seed(seed)], tf.int32))
        return np.asarray(rows, "float32")

    def batches(self, batch_size: int, *, seed: int = 0, first_epoch: int = 0, epochs: int = 1) -> tf.data.Dataset:
        """Give shuffled training batches of the epochs `first_epoch`, ..., `epochs` - 1, one after the other.

        Order and draws are functions of (seed, epoch, step) alone: any epoch can be had again, whatever came before.
        Each epoch leaves out the remainder of a random order that does not fill a batch, so every batch has one shape.

        Use with `fit(splits.batches(...), steps_per_epoch=splits.steps_per_epoch(batch_size), ...)`.

        >>> splits = load("digits")
        >>> next(iter(splits.batches(100))).shape
        TensorShape([100, 8, 8, 1])
        """
        steps, seed = self.steps_per_epoch(batch_size), as_seed(seed)
        data = tf.nest.map_structure(tf.constant, self.train)

        def one_epoch(epoch):
            epoch_seed = tf.random.fold_in(tf.constant([4, seed], tf.int32), tf.cast(epoch, tf.int32))
            order = tf.random.experimental.stateless_shuffle(tf.range(len(x_of(self.train))), epoch_seed)

            def one_batch(step):
                places = tf.ensure_shape(order[step * batch_size :][:batch_size], [batch_size])
                rows = tf.nest.map_structure(lambda values: tf.gather(values, places), data)
                x = x_of(rows)
                if self.draw is not None:
                    x = self.draw(x, tf.random.fold_in(epoch_seed, tf.cast(step, tf.int32) + 1))
                x = tf.ensure_shape(tf.cast(x, tf.float32), [batch_size, *self.event_shape])
                return {**rows, "x": x} if isinstance(rows, dict) else x

            return tf.data.Dataset.range(steps).map(one_batch, num_parallel_calls=tf.data.AUTOTUNE)

        return tf.data.Dataset.range(first_epoch, epochs).flat_map(one_epoch).prefetch(tf.data.AUTOTUNE)


def x_of(data):
    """Give the x of data that may have a condition beside it."""
    return data["x"] if isinstance(data, dict) else data


def load(
    source: str | os.PathLike | np.ndarray | Mapping = "digits",
    *,
    condition: str | None = None,
    likelihood: str | None = None,
    seed: int = 0,
) -> Splits:
    """Load a data set.

    | source | data | likelihood unless chosen |
    |---|---|---|
    | `"digits"` | scikit-learn's 1,797 handwritten 8x8 digits, counts 0 to 16 | IndependentBinomial, 16 trials |
    | a TFDS name such as `"mnist"` | its feature `image`, in memory | as 8-bit images |
    | `.npz` path | `x_train`, `x_test` and perhaps `x_validation`, or one array | by its values, as below |
    | dict of arrays | as the arrays of an `.npz` file | by its values, as below |
    | array, zeros and ones only | | IndependentBernoulli |
    | array of uint8, or 8-bit images | binarized (one channel) or dequantized, anew in each epoch | \
IndependentBernoulli, or IndependentNormal where there are several channels |
    | array of other integers | counts from 0 to the largest | IndependentBinomial |
    | array of floats | real values | IndependentNormal |

    Where the source has no validation or test data of its own, they are cut from the training data: a tenth each, at
    most 10,000 (for TFDS: the last tenth of the training data, at most 5,000). `TFDS_DATA_DIR` is honoured.

    Args:
        source: name, path of an `.npz` file, or array `[num_examples, *event_shape]`.
        condition: what x is conditional on: "label" of the digits, a feature of a TFDS data set, or name of the arrays
            beside x: `x` and `label` in an `.npz` file, or `x_train`, `label_train`, `x_test` and `label_test`.
        likelihood: name of a class in `tfp_vae.layers` to use instead.
        seed: of the binarization or dequantization of validation and test data.

    Raises:
        ValueError: if the name is not known, or the data are empty, not finite or not numbers.
        FileNotFoundError: if the file is not there, or a TFDS data set is neither prepared nor within reach.

    Example:
    >>> splits = load("digits")
    >>> splits.train.shape, splits.validation.shape, splits.test.shape
    ((1437, 8, 8, 1), (180, 8, 8, 1), (180, 8, 8, 1))
    >>> splits.likelihood, splits.likelihood_config
    ('IndependentBinomial', {'total_count': 16})
    """
    if isinstance(source, (np.ndarray, Mapping)):
        arrays = dict(source) if isinstance(source, Mapping) else {"x": source}
        name, parts = "array", _from_arrays("array", arrays, condition)
    elif Path(source).suffix == ".npz":
        name, parts = Path(source).stem, _from_arrays(str(source), _load_npz(Path(source)), condition)
    elif str(source) == "digits":
        name, parts = "digits", _from_arrays("digits", _load_digits(), condition)
    else:
        name, parts = str(source).replace("/", "-").replace(":", "-"), _load_tfds(str(source), condition)
    seed = as_seed(seed)
    for part in parts:
        _check(name, part["x"])
    for key in parts[0]:
        _expect_alike(name, [part[key] for part in parts])
    splits = _suit(name, [part["x"] for part in parts], likelihood, seed)
    return splits if condition is None else _with_conditions(splits, [part["condition"] for part in parts])


def _expect_alike(name: str, parts: list[np.ndarray]) -> None:
    for part in parts:
        if (part.shape[1:], part.dtype.kind) != (parts[0].shape[1:], parts[0].dtype.kind):
            raise ValueError(
                f"The parts of {name} must agree: training examples have shape {parts[0].shape[1:]} and type "
                f"{parts[0].dtype}, others have shape {part.shape[1:]} and type {part.dtype}."
            )


def _with_conditions(splits: Splits, conditions: list[np.ndarray]) -> Splits:
    """Put labels, as int32, or other conditions, as float32, beside x."""
    named: dict[str, Any] = {}
    for split, condition in zip(("train", "validation", "test"), conditions, strict=True):
        x = getattr(splits, split)
        if condition.dtype.kind not in "biuf" or not np.isfinite(condition).all():
            raise ValueError(f"The condition of {splits.name} must be finite numbers, received {condition.dtype}.")
        if len(condition) != len(x):
            raise ValueError(f"{splits.name} has {len(condition)} conditions for {len(x)} examples.")
        named[split] = {"x": x, "condition": condition.astype("float32" if condition.dtype.kind == "f" else "int32")}
    return dataclasses.replace(splits, **named)


# How 8-bit pixels become values that a likelihood is about; the others take them as they are.
DRAWS = {
    "IndependentBernoulli": binarize,
    "IndependentLogistic": dequantize,
    "IndependentNormal": dequantize,
    "IndependentNormalLearnedScale": dequantize,
    "IndependentNormalOptimalScale": dequantize,
    "IndependentStudentT": dequantize,
}


def _suit(name: str, parts: list[np.ndarray], likelihood: str | None, seed: int) -> Splits:
    """Find the likelihood that suits the values, and bring them to where it has its support."""
    train, validation, test = parts
    largest = max(part.max() for part in parts)
    binary = all(np.isin(part, (0, 1)).all() for part in parts)
    pixels = train.dtype == np.uint8 and not binary
    counts = np.issubdtype(train.dtype, np.integer)
    if likelihood is None:
        likelihood = _usual_likelihood(train, binary, pixels, counts)
    config = {"total_count": 255 if pixels else int(largest)} if likelihood == "IndependentBinomial" else {}
    draw = DRAWS.get(likelihood) if pixels else None
    if pixels and likelihood == "IndependentContinuousBernoulli":
        train, validation, test = (part / 255.0 for part in parts)

    def final(part, stream):
        return np.asarray(part if draw is None else draw(part, tf.constant([stream, seed], tf.int32)), "float32")

    if draw is None:
        train = final(train, 0)
    return Splits(name, train, final(validation, 5), final(test, 6), likelihood, config, draw)


def _usual_likelihood(train: np.ndarray, binary: bool, pixels: bool, counts: bool) -> str:
    several_channels = train.ndim == 4 and train.shape[-1] > 1
    if binary or (pixels and not several_channels):
        return "IndependentBernoulli"
    return "IndependentBinomial" if counts and not pixels else "IndependentNormal"


def _check(name: str, part: np.ndarray) -> None:
    if part.size == 0:
        raise ValueError(f"The data set {name} is empty: shape {part.shape}. Expected at least ten examples.")
    if part.ndim < 2 or part.dtype.kind not in "biuf":
        raise ValueError(
            f"The data set {name} must be an array of numbers, [num_examples, *event_shape], received shape "
            f"{part.shape} of {part.dtype}."
        )
    if not np.isfinite(part).all():
        bad = np.count_nonzero(~np.isfinite(part))
        raise ValueError(f"The data set {name} holds {bad} values that are NaN or infinite. Remove or replace them.")


def _cut(name: str, data: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Cut validation and test data, a tenth each, from shuffled data; the cut is the same at every call."""
    x = data["x"]
    _check(name, x)
    if len(x) < 10:
        raise ValueError(f"The data set is empty or too small: {len(x)} examples. Expected at least ten.")
    if lengths := {key: len(values) for key, values in data.items() if len(values) != len(x)}:
        raise ValueError(f"{name} has {len(x)} examples x, but {lengths}.")
    held_out = min(len(x) // 10 + (len(x) % 10 > 0), 10_000)
    order = np.random.RandomState(0).permutation(len(x))
    places = order[2 * held_out :], order[:held_out], order[held_out : 2 * held_out]
    return [{key: values[rows] for key, values in data.items()} for rows in places]


def _load_digits() -> dict[str, np.ndarray]:
    from sklearn.datasets import load_digits  # slow to import, and only the digits need it

    digits = load_digits()
    return {"x": digits.images[..., np.newaxis].astype("int32"), "label": digits.target}


def _from_arrays(name: str, arrays: dict[str, np.ndarray], condition: str | None) -> list[dict[str, np.ndarray]]:
    """Give train, validation and test data from arrays by name; those that are not asked for are left out."""
    if condition is None and len(arrays) == 1:
        arrays = {"x": next(iter(arrays.values()))}
    wanted = {"x": "x"} if condition is None else {"x": "x", "condition": condition}
    if arrays.keys() >= {*wanted.values()}:
        return _cut(name, {key: arrays[found] for key, found in wanted.items()})

    def split(which: str) -> dict[str, np.ndarray]:
        return {key: arrays[f"{found}_{which}"] for key, found in wanted.items()}

    try:
        train, test = split("train"), split("test")
        if "x_validation" in arrays:
            return [train, split("validation"), test]
    except KeyError as missing:
        split_names = [f"{found}_{which}" for found in wanted.values() for which in ("train", "test")]
        raise ValueError(
            f"{name} holds {sorted(arrays)}, but no {missing}. Expected "
            f"{'one array' if condition is None else f'x and {condition}'}, or {' and '.join(split_names)}."
        ) from None
    train, validation, rest = _cut(name, train)
    return [{key: np.concatenate([train[key], rest[key]]) for key in train}, validation, test]


def _load_npz(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with np.load(path) as file:
            return dict(file)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path} is not an .npz file of numeric arrays, as numpy.savez writes them.") from error


def _load_tfds(name: str, condition: str | None) -> list[dict[str, np.ndarray]]:
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
    wanted_features = {"x": "image"} if condition is None else {"x": "image", "condition": condition}
    if not {*wanted_features.values()} <= {*builder.info.features}:
        raise ValueError(f"The data set {name} has no {condition!r}, only {sorted(builder.info.features)}.")
    last = min(builder.info.splits["train"].num_examples // 10, 5_000)
    if "validation" in builder.info.splits:
        wanted = ["train", "validation", "test"]
    else:
        wanted = [f"train[:-{last}]", f"train[-{last}:]", "test"]
    if "test" not in builder.info.splits:
        raise ValueError(f"The data set {name} has no test split, only {sorted(builder.info.splits)}.")
    loaded = [builder.as_dataset(split=split, batch_size=-1) for split in wanted]
    return [{key: part[found].numpy() for key, found in wanted_features.items()} for part in loaded]


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


__all__ = ["Splits", "binarize", "dequantize", "load"]
