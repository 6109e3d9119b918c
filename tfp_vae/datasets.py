"""Data sets: a name, a file or an array becomes train, validation and test data, and the likelihood that suits them."""

import dataclasses
import difflib
import os
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

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
        train: `[num_examples, *event_shape]`; 8-bit pixels where `draw` is given, else final values.
        validation: final values, float32.
        test: final values, float32.
        likelihood: name of the class in `tfp_vae.layers`.
        likelihood_config: its arguments besides the event shape.
        draw: function of a batch of training data and a stateless seed that gives final values, anew in each epoch
            (`binarize`, `dequantize`), or None.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    likelihood: str
    likelihood_config: dict
    draw: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self.train.shape[1:]

    def steps_per_epoch(self, batch_size: int) -> int:
        """Count the batches of one epoch of `batches`.

        Raises:
            ValueError: if the batch is empty or larger than the training data.
        """
        if not 1 <= batch_size <= len(self.train):
            raise ValueError(
                f"The batch size must lie between 1 and the {len(self.train)} training examples of {self.name}, "
                f"received {batch_size}."
            )
        return len(self.train) // batch_size

    def training_values(self, seed: int = 0) -> np.ndarray:
        """Give final values of all training data, drawn once where `draw` is given, float32."""
        rows = self.train if self.draw is None else self.draw(self.train, tf.constant([8, as_seed(seed)], tf.int32))
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
        steps, data, seed = self.steps_per_epoch(batch_size), tf.constant(self.train), as_seed(seed)

        def one_epoch(epoch):
            epoch_seed = tf.random.fold_in(tf.constant([4, seed], tf.int32), tf.cast(epoch, tf.int32))
            order = tf.random.experimental.stateless_shuffle(tf.range(len(self.train)), epoch_seed)

            def one_batch(step):
                rows = tf.gather(data, order[step * batch_size :][:batch_size])
                if self.draw is not None:
                    rows = self.draw(rows, tf.random.fold_in(epoch_seed, tf.cast(step, tf.int32) + 1))
                return tf.ensure_shape(tf.cast(rows, tf.float32), [batch_size, *self.event_shape])

            return tf.data.Dataset.range(steps).map(one_batch, num_parallel_calls=tf.data.AUTOTUNE)

        return tf.data.Dataset.range(first_epoch, epochs).flat_map(one_epoch).prefetch(tf.data.AUTOTUNE)


def load(source: str | os.PathLike | np.ndarray = "digits", *, likelihood: str | None = None, seed: int = 0) -> Splits:
    """Load a data set.

    | source | data | likelihood unless chosen |
    |---|---|---|
    | `"digits"` | scikit-learn's 1,797 handwritten 8x8 digits, counts 0 to 16 | IndependentBinomial, 16 trials |
    | a TFDS name such as `"mnist"` | its feature `image`, in memory | as 8-bit images |
    | `.npz` path | `x_train`, `x_test` and perhaps `x_validation`, or one array | by its values, as below |
    | array, zeros and ones only | | IndependentBernoulli |
    | array of uint8, or 8-bit images | binarized (one channel) or dequantized, anew in each epoch | \
IndependentBernoulli, or IndependentNormal where there are several channels |
    | array of other integers | counts from 0 to the largest | IndependentBinomial |
    | array of floats | real values | IndependentNormal |

    Where the source has no validation or test data of its own, they are cut from the training data: a tenth each, at
    most 10,000 (for TFDS: the last tenth of the training data, at most 5,000). `TFDS_DATA_DIR` is honoured.

    Args:
        source: name, path of an `.npz` file, or array `[num_examples, *event_shape]`.
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
    if isinstance(source, np.ndarray):
        name, parts = "array", _cut("array", source)
    elif Path(source).suffix == ".npz":
        name, parts = Path(source).stem, _load_npz(Path(source))
    elif str(source) == "digits":
        name, parts = "digits", _load_digits()
    else:
        name, parts = str(source).replace("/", "-").replace(":", "-"), _load_tfds(str(source))
    seed = as_seed(seed)
    for part in parts:
        _check(name, part)
        if (part.shape[1:], part.dtype.kind) != (parts[0].shape[1:], parts[0].dtype.kind):
            raise ValueError(
                f"The parts of {name} must agree: training examples have shape {parts[0].shape[1:]} and type "
                f"{parts[0].dtype}, others have shape {part.shape[1:]} and type {part.dtype}."
            )
    return _suit(name, parts, likelihood, seed)


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


def _cut(name: str, x: np.ndarray) -> list[np.ndarray]:
    """Cut validation and test data, a tenth each, from shuffled data; the cut is the same at every call."""
    _check(name, x)
    if len(x) < 10:
        raise ValueError(f"The data set is empty or too small: {len(x)} examples. Expected at least ten.")
    held_out = min(len(x) // 10 + (len(x) % 10 > 0), 10_000)
    x = x[np.random.RandomState(0).permutation(len(x))]
    return [x[2 * held_out :], x[:held_out], x[held_out : 2 * held_out]]


def _load_digits() -> list[np.ndarray]:
    from sklearn.datasets import load_digits  # slow to import, and only the digits need it

    return _cut("digits", load_digits().images[..., np.newaxis].astype("int32"))


def _load_npz(path: Path) -> list[np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with np.load(path) as file:
            arrays = dict(file)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path} is not an .npz file of numeric arrays, as numpy.savez writes them.") from error
    if len(arrays) == 1:
        return _cut(path.stem, *arrays.values())
    if not {"x_train", "x_test"} <= arrays.keys():
        raise ValueError(f"{path} holds {sorted(arrays)}. Expected one array, or x_train and x_test.")
    if "x_validation" in arrays:
        return [arrays["x_train"], arrays["x_validation"], arrays["x_test"]]
    train, validation, rest = _cut(path.stem, arrays["x_train"])
    return [np.concatenate([train, rest]), validation, arrays["x_test"]]


def _load_tfds(name: str) -> list[np.ndarray]:
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
    last = min(builder.info.splits["train"].num_examples // 10, 5_000)
    if "validation" in builder.info.splits:
        wanted = ["train", "validation", "test"]
    else:
        wanted = [f"train[:-{last}]", f"train[-{last}:]", "test"]
    if "test" not in builder.info.splits:
        raise ValueError(f"The data set {name} has no test split, only {sorted(builder.info.splits)}.")
    return [builder.as_dataset(split=split, batch_size=-1)["image"].numpy() for split in wanted]


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
