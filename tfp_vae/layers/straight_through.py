"""Discrete draws with the gradient of their probabilities.

The common base of the straight-through distributions.
"""

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.parts import innermost, is_joint
from tfp_vae.layers.tensor_like import unwrap

tfd = tfp.distributions


class StraightThroughDraws(tfd.Distribution):
    """A mixin that gives the draws of a discrete tfd class the gradient of the probabilities.

    Reference: Bengio et al., 2013, Estimating or Propagating Gradients Through Stochastic Neurons,
        arXiv:1308.3432.
    """

    @property
    def reparameterization_type(self):
        return tfd.FULLY_REPARAMETERIZED

    def _sample_n(self, n, seed=None):
        probs = self.probs_parameter()
        # Exactly 0, so the draw stays discrete.
        return super()._sample_n(n, seed) + (probs - tf.stop_gradient(probs))


def is_straight_through(distribution: tfd.Distribution) -> bool:
    """Return whether the gradient through a draw is only that of the probabilities, which is biased
    for a nonlinear loss.
    """
    distribution = unwrap(distribution)
    if is_joint(distribution):
        kinds = tf.nest.flatten(
            distribution.sample_distributions(seed=(0, 0))[0], expand_composites=False
        )
        return any(isinstance(innermost(part), StraightThroughDraws) for part in kinds)
    return isinstance(innermost(distribution), StraightThroughDraws)
