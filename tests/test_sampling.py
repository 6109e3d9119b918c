"""Draws by Philox come from the distribution they say, and carry its gradients."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.sampling import sample

tfd = tfp.distributions

DISTRIBUTIONS = {
    "diagonal": lambda: tfd.MultivariateNormalDiag([[1.0, -2.0]], [[0.5, 3.0]]),
    "full": lambda: tfd.MultivariateNormalTriL([[1.0, -2.0]], [[[0.5, 0.0], [1.0, 3.0]]]),
    "other": lambda: tfd.Independent(tfd.Normal([[1.0, -2.0]], [[0.5, 3.0]]), 1),
}


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_moments(name, jit_compile):
    distribution = DISTRIBUTIONS[name]()
    z = tf.function(lambda seed: sample(distribution, 200_000, seed), jit_compile=jit_compile)(
        tf.constant([3, 4])
    )
    assert z.shape == (200_000, 1, 2)
    np.testing.assert_allclose(np.mean(z, 0), distribution.mean(), atol=0.03)
    covariance = (
        np.diag(np.square(distribution.stddev()[0]))
        if name == "other"
        else distribution.covariance()[0]
    )
    np.testing.assert_allclose(np.cov(z[:, 0].numpy().T), covariance, rtol=0.02, atol=0.02)


def test_other_distributions_draw_as_tfp_does():
    distribution = DISTRIBUTIONS["other"]()
    np.testing.assert_array_equal(
        sample(distribution, [2, 3], tf.constant([1, 2])), distribution.sample([2, 3], seed=[1, 2])
    )


@pytest.mark.parametrize("shape", [[], 5, [2, 3]])
def test_sample_shapes(shape):
    z = sample(DISTRIBUTIONS["full"](), shape, tf.constant([1, 2]))
    assert z.shape == (*np.atleast_1d(np.array(shape, int)), 1, 2)


def test_reparameterized_gradient():
    """d E[z^2] / d loc = 2 loc, d E[z^2] / d scale = 2 scale."""
    loc, scale = tf.Variable([0.7]), tf.Variable([0.4])
    with tf.GradientTape() as tape:
        z = sample(tfd.MultivariateNormalDiag(loc, scale), 500_000, tf.constant([1, 2]))
        value = tf.reduce_mean(tf.reduce_sum(z**2, -1))
    by_loc, by_scale = tape.gradient(value, [loc, scale])
    np.testing.assert_allclose([by_loc, by_scale], [[1.4], [0.8]], atol=0.01)
