"""Data that a likelihood cannot have produced are refused in words."""

import numpy as np
import pytest
import tensorflow as tf

from tfp_vae import layers as tfpl
from tfp_vae.layers.support import check_support

BERNOULLI = tfpl.IndependentBernoulli.new(tf.zeros([1, 2]), 2)
BINOMIAL = tfpl.IndependentBinomial.new(tf.zeros([1, 2]), 2, total_count=16)
NORMAL = tfpl.IndependentNormal.new(tf.zeros([1, 4]), 2)
IMPOSSIBLE = {
    "NaN": (NORMAL, [[0.0, np.nan], [np.inf, 0.0]], r"x holds 2 values that are NaN or infinite"),
    "empty": (NORMAL, np.zeros([0, 2]), r"The data set is empty: x has shape \(0, 2\)"),
    "shape": (NORMAL, np.zeros([4, 3]), r"must have shape \(2,\), received x of shape \(4, 3\)"),
    "8 bit": (
        BERNOULLI,
        np.uint8([[0, 1], [3, 255]]),
        r"takes zeros and ones, .*\[0, 255\]. Scale 8-bit images by x / 255",
    ),
    "negative": (BERNOULLI, [[0.0, 1.0], [1.0, -1.0]], r"x lies in \[-1, 1\]. Scale 8-bit images"),
    "fraction": (
        BINOMIAL,
        [[0.0, 16.0], [3.0, 2.5]],
        r"takes whole .*, not all whole. Raise total_count .* round the data",
    ),
    "too large": (
        BINOMIAL,
        [[0.0, 4.0], [17.0, 3.0]],
        r"whole numbers from 0 to total_count, .*\[0, 17\]. Raise total_count",
    ),
}


@pytest.mark.parametrize(("likelihood", "x", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_data(likelihood, x, message):
    with pytest.raises(ValueError, match=message):
        check_support(likelihood, x)


def test_possible_data():
    check_support(NORMAL, [[-1e3, 0.5]])
    check_support(BERNOULLI, np.array([[0, 1]], "uint8"))
    check_support(BINOMIAL, [[0, 16]])
    with pytest.warns(UserWarning, match="strictly between 0 and 1.*Binarize x"):
        check_support(BERNOULLI, [[0.0, 1.0], [0.5, 0.5]])
