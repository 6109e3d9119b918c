"""One surrogate for every gradient estimator.

The surrogate weights the contributions of the model, the path and the score.

A bound is a function of log w = log p(x|z) + log p(z) - log q(z|x) at draws z = z(noise, phi). Its
derivative has three parts. The model: by the weights of decoder and prior, at fixed z. The path: by
z, along the path of its draw. The score: by the posterior's weights, at fixed z. The estimators of
the literature weight these parts differently:

| estimator | model | path | score |
|---|---|---|---|
| standard | w | w | w |
| sticking the landing | w | w | 0 |
| doubly reparameterized | w | w^2 | 0 |
"""

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.parts import innermost
from tfp_vae.layers.shapes import in_dtype
from tfp_vae.layers.straight_through import is_straight_through
from tfp_vae.objectives.one_pass import OnePass

tfd = tfp.distributions


class Draws:
    """Draws of z with their log densities, `[num_samples, batch]`, whose slopes along the paths of
    the draws can be weighted apart from the rest of their gradient.

    The densities are evaluated once, for the value of a bound as for its gradient: in a second
    evaluation, layers with a state or with draws of their own, such as normalization and dropout,
    would be another function.

    Args:
        one_pass: the batch.
        num_samples: reparameterized draws for each example.

    Attributes:
        densities: log p(x|z), log p(z) and log q(z|x).
    """

    def __init__(self, one_pass: OnePass, num_samples: int):
        # Copies: TFP knows the inverse of the draws themselves without a path back to them.
        self.z = tf.nest.map_structure(tf.identity, one_pass.sample(num_samples))
        self._tape = tf.GradientTape(persistent=True, watch_accessed_variables=False)
        with self._tape:
            self._tape.watch(self.z)
            self.densities = one_pass.log_densities(self.z)

    def along(self, log_values: tf.Tensor) -> tf.Tensor:
        """Return a tensor `[num_samples, batch]` whose gradient is that of some values along the
        paths of the draws; its own value has no meaning.
        """
        slopes = self._tape.gradient(log_values, self.z, unconnected_gradients="zero")
        return sum(
            _sum_event(tf.stop_gradient(slope) * leaf, tf.rank(log_values))
            for slope, leaf in zip(tf.nest.flatten(slopes), tf.nest.flatten(self.z), strict=True)
        )


def surrogate(draws: Draws, *, model, path, score, kl_weight=1.0) -> tf.Tensor:
    """Return a tensor `[batch]` whose gradient is the weighted sum of the three parts, summed over
    the draws.

    Args:
        draws: of the batch.
        model: weight of the model's part, a number or `[num_samples, batch]`; no gradient flows
            through it.
        path: weight of the path's part, likewise.
        score: weight of the score's part, likewise.
        kl_weight: weight of log p(z) - log q(z|x) in log w.
    """
    log_likelihood, log_prior, log_posterior = draws.densities
    log_joint = log_likelihood + kl_weight * log_prior
    weights = [tf.stop_gradient(in_dtype(part, log_joint.dtype)) for part in (model, path, score)]
    # Through z, the first two terms have a path already, with the weights of model and score: a slope
    # is computed only where the weight of the path is another one.
    bound = weights[0] * log_joint - weights[2] * kl_weight * log_posterior
    if path is not model:
        along = draws.along(log_likelihood) + kl_weight * draws.along(log_prior)
        bound += (weights[1] - weights[0]) * along
    if path is not score:
        bound -= (weights[1] - weights[2]) * kl_weight * draws.along(log_posterior)
    return tf.reduce_sum(bound, 0)


def expect_exact_path(posterior: tfd.Distribution, estimator: str, needed_by: str) -> None:
    """Refuse an estimator that replaces the score by the path of a draw, if that path is not exact.

    Raises:
        ValueError: if draws of the posterior are straight-through, and the estimator is another
            than "standard".
    """
    if estimator != "standard" and is_straight_through(posterior):
        raise ValueError(
            f"{needed_by} with estimator={estimator!r} rests on exactly reparameterized draws; a "
            f"draw of {type(innermost(posterior)).__name__} is straight-through, with a gradient "
            "that is not its own, which is biased. Use estimator='standard', or a relaxed "
            "posterior."
        )


def with_gradient_of(surrogate_loss: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """Return a tensor with one tensor's value and another's gradient."""
    return tf.stop_gradient(value) + surrogate_loss - tf.stop_gradient(surrogate_loss)


def _sum_event(tensor: tf.Tensor, batch_rank: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tensor, tf.range(batch_rank, tf.rank(tensor)))
