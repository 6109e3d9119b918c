"""Kinds of values in an array.

Each kind has a suitable likelihood; 8-bit pixels are also converted for it.
"""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tfp_vae.batch import BESIDE_X
from tfp_vae.networks import OF_MASKS


def binarize(pixels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draw black or white for each 8-bit pixel, white with probability pixel / 255.

    Reference: Salakhutdinov & Murray, 2008, On the quantitative analysis of deep belief networks.

    >>> binarize(tf.constant([0, 255]), tf.constant([0, 1])).numpy()
    array([0., 1.], dtype=float32)
    """
    uniform = tf.random.stateless_uniform(tf.shape(pixels), seed)
    return tf.cast(255.0 * uniform < tf.cast(pixels, tf.float32), tf.float32)


def dequantize(pixels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Spread each 8-bit pixel uniformly over its 1/256 of the unit interval, as a density needs
    continuous values.

    Reference: Theis et al., 2016, A note on the evaluation of generative models, arXiv:1511.01844.

    >>> x = dequantize(tf.constant([0, 255]), tf.constant([0, 1])).numpy()
    >>> bool(0 <= x[0] < 1 / 256), bool(255 / 256 <= x[1] <= 1)
    (True, True)
    """
    uniform = tf.random.stateless_uniform(tf.shape(pixels), seed)
    return (tf.cast(pixels, tf.float32) + uniform) / 256.0


# Grey images are binarized only if they stay recognizable: at most this share of the variance of
# the drawn bits may be noise. MNIST: 16 %; Fashion-MNIST: 39 %; photographs and faces: 55 % and
# more.
MOST_NOISE = 0.3
# Bytes below this value are counts, whatever their shape: as pixels they would be too dark to see.
LEAST_WHITE = 32
# Real numbers larger than this should be standardized before training.
HANDY = 50.0
# Number of examples that are inspected, spread over all examples.
MANY = 5_000
# The suitable likelihood for each kind of values, and the reason.
USUAL = {
    "bits": ("IndependentBernoulli", "for zeros and ones"),
    "bytes of bits": ("IndependentBernoulli", "for pixels that are black or white, as 0 and 1"),
    "nearly black and white": (
        "IndependentBernoulli",
        "for grey 8-bit images that are nearly black and white",
    ),
    "photographs": ("IndependentQuantizedLogistic", "for the 256 levels of 8-bit images"),
    "counts": ("IndependentBinomial", "for counts from 0 to {largest}"),
    "large counts": ("IndependentNegativeBinomial", "for counts up to {largest}"),
    "real": ("IndependentNormal", "for real numbers"),
}
PIXELS = ("bytes of bits", "nearly black and white", "photographs")
# Largest whole number up to which float32, the dtype of the models, is exact.
MOST = 2**24
# Largest number of categories; each category needs its own weights.
MOST_CATEGORIES = 2**16

# For each value of a likelihood's attribute `pixels`: the conversion of the pixels, and its
# description in words.
BECOME = {
    "levels": (None, ""),
    "bits": (
        binarize,
        "; pixels are binarized at random, anew in each epoch, white with the probability of their "
        "brightness",
    ),
    "scaled": (None, "; pixels are scaled to [0, 1]"),
    "unit": (
        dequantize,
        "; pixels are spread at random over their level, anew in each epoch, and scaled to [0, 1]",
    ),
}


def expect_at_most(most: int, name: str, edges: list) -> None:
    """Raise a ValueError if whole numbers, given their two extremes, are too large."""
    if (largest := max(abs(int(edge)) for edge in edges)) <= most:
        return
    if most == MOST_CATEGORIES:
        raise ValueError(
            f"{name} holds labels up to {largest:,}, each of which would be a category; expected at "
            f"most {most:,}. Number those that occur: numpy.unique(values, return_inverse=True)[1]."
        )
    raise ValueError(
        f"{name} holds whole numbers up to {largest:,}, but float32, in which models compute, tells "
        f"them apart up to {most:,} only. Give floats: their logarithms (numpy.log1p), or multiples "
        "of a larger unit."
    )


def noise_of_bits(pixels: np.ndarray) -> float:
    """Return the share of the variance of binarized 8-bit pixels that is sampling noise.

    >>> noise_of_bits(np.array([0, 0, 255])), noise_of_bits(np.array([102, 102]))
    (0.0, 1.0)
    """
    white = pixels[:: 1 + len(pixels) // MANY] / 255.0
    mean = white.mean()
    return float(np.mean(white * (1 - white)) / max(mean * (1 - mean), 1e-12))


def advice(kind: str, values: np.ndarray) -> str:
    """Return advice on real numbers that look like pixels, or are too large to learn well."""
    if kind != "real" or not (known := known_of([values[:MANY]])):
        return ""
    least = known[0].min()
    largest = known[0].max()
    if (
        values.ndim >= 3
        and least >= 0
        and 1 < largest <= 255
        and (known[0] == np.round(known[0])).all()
    ):
        return " (if they are 8-bit pixels, give them as uint8)"
    if max(-least, largest) > HANDY:
        return " (they learn better standardized: the mean subtracted, divided by the standard deviation)"
    return ""


def known_of(parts: list[np.ndarray]) -> list[np.ndarray]:
    """Return the values that are not NaN from each array that has any."""
    return [values for part in parts if (values := part[~np.isnan(part)]).size]


def kind_of(parts: list[np.ndarray], *, is_part: bool) -> str:
    """Return the kind of values in some arrays of one type, as a key of `USUAL`.

    NaN is ignored.
    """
    first = parts[0]
    known = known_of(parts)
    if all(np.isin(values, (0, 1)).all() for values in known):
        return "bits"
    least = min(values.min() for values in known)
    largest = max(values.max() for values in known)
    if (
        first.dtype == np.uint8
        and largest >= LEAST_WHITE
        and (first.ndim == 4 or (first.ndim == 3 and not is_part))
    ):
        if all(np.isin(values, (0, 255)).all() for values in known):
            return "bytes of bits"
        is_gray = first.ndim == 3 or first.shape[-1] == 1
        return (
            "nearly black and white"
            if is_gray and noise_of_bits(first) <= MOST_NOISE
            else "photographs"
        )
    if first.dtype.kind not in "iu" or least < 0:
        return "real"
    return "counts" if largest <= 255 else "large counts"


def by_part(likelihood) -> dict[str, str | None]:
    """Return the chosen likelihood of each part; an x without parts counts as one part named x."""
    if not isinstance(likelihood, Mapping):
        return {"x": likelihood}
    if (
        len(likelihood) < 2
        or {"x", *BESIDE_X} & {*likelihood}
        or any(part.endswith(OF_MASKS) for part in likelihood)
    ):
        raise ValueError(
            f"A table has at least two parts, none of them called x, {' or '.join(BESIDE_X)}, or "
            f"ending in {OF_MASKS}; received {[*likelihood]}."
        )
    return dict(likelihood)
