"""What kind of values an array holds: the likelihood that suits them, and what becomes of 8-bit pixels."""

import numpy as np
import tensorflow as tf


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


# Pixels of at most a tenth of the range from either end are black or white; of grey images on which few lie between,
# as on handwriting (MNIST: 9 %; Fashion-MNIST: 40 %; photographs: 60 % and more), a likelihood of bits says enough.
BLACK, WHITE, MOST_BETWEEN = 25, 230, 0.2
# The likelihood that suits a kind of values, and why.
USUAL = {
    "bits": ("IndependentBernoulli", "for zeros and ones"),
    "bytes of bits": ("IndependentBernoulli", "for pixels that are black or white, as 0 and 1"),
    "nearly black and white": ("IndependentBernoulli", "for grey 8-bit images that are nearly black and white"),
    "photographs": ("IndependentQuantizedLogistic", "for the 256 levels of 8-bit images"),
    "counts": ("IndependentBinomial", "for counts from 0 to {largest}"),
    "large counts": ("IndependentNegativeBinomial", "for counts up to {largest}"),
    "real": ("IndependentNormal", "for real numbers"),
}
PIXELS = ("bytes of bits", "nearly black and white", "photographs")
# Whole numbers that float32, in which models compute, can tell apart.
MOST = 2**24


# By what a likelihood says of its `pixels`: what becomes of them, and in words.
BECOME = {
    "levels": (None, ""),
    "bits": (
        binarize,
        "; pixels are binarized at random, anew in each epoch, white with the probability of their brightness",
    ),
    "scaled": (None, "; pixels are scaled to [0, 1]"),
    "unit": (
        dequantize,
        "; pixels are spread at random over their level, anew in each epoch, and scaled to [0, 1]",
    ),
}


def kind_of(parts: list[np.ndarray], known: list[np.ndarray], *, is_part: bool) -> str:
    """Return the kind of some values, a key of `USUAL`."""
    train = parts[0]
    if all(np.isin(part, (0, 1)).all() for part in known):
        return "bits"
    least, largest = min(part.min() for part in known), max(part.max() for part in known)
    if train.dtype == np.uint8 and (train.ndim == 4 or (train.ndim == 3 and not is_part)):
        if all(np.isin(part, (0, 255)).all() for part in known):
            return "bytes of bits"
        is_gray = train.ndim == 3 or train.shape[-1] == 1
        between = np.mean((train > BLACK) & (train < WHITE))
        return "nearly black and white" if is_gray and between <= MOST_BETWEEN else "photographs"
    if train.dtype.kind not in "iu" or least < 0:
        return "real"
    return "counts" if largest <= 255 else "large counts"
