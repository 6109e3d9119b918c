"""Data that a likelihood cannot have produced are refused in words."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import layers as tfpl
from tfp_vae.layers.values import check_values, values_of

tfd = tfp.distributions

BERNOULLI = tfpl.IndependentBernoulli.new(tf.zeros([1, 2]), 2)
BINOMIAL = tfpl.IndependentBinomial.new(tf.zeros([1, 2]), 2, total_count=16)
NORMAL = tfpl.IndependentNormal.new(tf.zeros([1, 4]), 2)
POISSON = tfpl.IndependentPoisson.new(tf.zeros([1, 2]), 2)
INFLATED = tfpl.IndependentZeroInflatedNegativeBinomial.new(tf.zeros([1, 6]), 2)
QUANTIZED = tfpl.IndependentQuantizedLogistic.new(tf.zeros([1, 4]), 2)
MIXED = tfpl.MixtureQuantizedLogistic.new(tf.zeros([1, 12]), 2, 2)
RELAXED = tfpl.IndependentRelaxedBernoulli.new(tf.zeros([1, 2]), 2)
CATEGORICAL = tfpl.IndependentCategorical.new(tf.zeros([1, 6]), 2, 3)
MIXTURE = tfpl.CategoricalMixtureOfOneHotCategorical.new(tf.zeros([1, 6]), 2, 2)
SPHERE = tfpl.PowerSpherical.new(tf.ones([1, 3]), 2)
IMPOSSIBLE = {
    "NaN": (NORMAL, [[0.0, np.nan], [np.inf, 0.0]], r"x holds 2 values that are NaN or infinite"),
    "empty": (NORMAL, np.zeros([0, 2]), r"The data set is empty: x has shape \(0, 2\)"),
    "shape": (NORMAL, np.zeros([4, 3]), r"must have shape \(2,\), received x of shape \(4, 3\)"),
    "8 bit": (
        BERNOULLI,
        np.uint8([[0, 1], [3, 255]]),
        r"zeros and ones, .*\[0, 255\]. Scale 8-bit images by x / 255",
    ),
    "negative": (BERNOULLI, [[0.0, 1.0], [1.0, -1.0]], r"x lies in \[-1, 1\]. Scale 8-bit images"),
    "fraction": (
        BINOMIAL,
        [[0.0, 16.0], [3.0, 2.5]],
        r"takes whole .*, not all whole. Raise total_count .* round",
    ),
    "too large": (
        BINOMIAL,
        [[0.0, 4.0], [17.0, 3.0]],
        r"from 0 to total_count, .*\[0, 17\]. Raise total_count",
    ),
    "negative count": (
        POISSON,
        [[0, -1]],
        r"Poisson takes whole numbers of at least 0, .*\[-1, 0\]",
    ),
    "inflated": (
        INFLATED,
        [[0.5, 1.0]],
        r"NegativeBinomial takes whole numbers .* not all whole. Round the data",
    ),
    "level": (
        QUANTIZED,
        [[256.0, 0.0]],
        r"from 0 to num_levels - 1, .*Leave 8-bit images as they are",
    ),
    "level of a mixture": (
        MIXED,
        [[0.0, 2.5]],
        r"QuantizedLogistic takes whole numbers .*, not all whole",
    ),
    "fraction out of range": (RELAXED, [[0.5, 1.5]], r"numbers from 0 to 1, .*Scale 8-bit images"),
    "category": (CATEGORICAL, [[3, 0]], r"from 0 to num_categories - 1, .*\[0, 3\]"),
    "one-hot": (MIXTURE, [[1, 1]], r"takes vectors of one 1 and zeros"),
    "direction": (SPHERE, [[1.0, 1.0]], r"takes vectors of length 1, .* Divide by their length"),
    "deterministic": (
        tfpl.Deterministic.new(tf.zeros([1, 2]), 2),
        [[0.0, 0.0]],
        r"It is no likelihood",
    ),
}


@pytest.mark.parametrize(("likelihood", "x", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_data(likelihood, x, message):
    with pytest.raises(ValueError, match=message):
        check_values(likelihood, x)


def test_possible_data():
    check_values(NORMAL, [[-1e3, 0.5]])
    check_values(BERNOULLI, np.array([[0, 1]], "uint8"))
    check_values(BINOMIAL, [[0, 16]])
    check_values(POISSON, [[0, 3]])
    check_values(INFLATED, [[0, 3]])
    check_values(QUANTIZED, [[0, 255]])
    check_values(MIXED, [[0, 255]])
    check_values(RELAXED, [[0.0, 0.5]])
    check_values(CATEGORICAL, [[0, 2]])
    check_values(MIXTURE, [[0, 1], [1, 0]])
    check_values(SPHERE, [[0.6, 0.8]])
    with pytest.warns(UserWarning, match="strictly between 0 and 1.*Binarize x"):
        check_values(BERNOULLI, [[0.0, 1.0], [0.5, 0.5]])


@pytest.mark.parametrize("shape", [(), (1,), (4,), (1, 2), (3, 2)], ids=str)
def test_what_tfp_says_of_scalars_whatever_their_batch(shape):
    ones = tf.ones(shape)
    for distribution, words in [
        (tfd.Gamma(ones, ones), "numbers of at least 0"),
        (tfd.Exponential(ones), "numbers of at least 0"),
        (tfd.Beta(ones, ones), "numbers from 0 to 1"),
        (tfd.Normal(ones, ones), "real numbers"),
        (
            tfd.TransformedDistribution(tfd.Gamma(ones, ones), tfp.bijectors.Scale(-1.0)),
            "numbers of at most 0",
        ),
        (tfd.Uniform(-3.0 * ones, 5.0 * ones), "values of its own"),
        (tfd.Geometric(logits=ones), "values of its own"),
    ]:
        assert values_of(distribution).words == words
