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

from typing import NamedTuple

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.parts import innermost
from tfp_vae.layers.shapes import in_dtype
from tfp_vae.layers.straight_through import is_straight_through
from tfp_vae.objectives.one_pass import OnePass

tfd = tfp.distributions


class FixedDraws(NamedTuple):
    """Log densities at draws through which no gradient flows, each `[num_samples, batch]`, and the
    path of the draws.
    """

    log_likelihood: tf.Tensor
    log_prior: tf.Tensor
    log_posterior: tf.Tensor
    # Its gradient is that of log w along the path of each draw; its value has no meaning.
    path: tf.Tensor


def at_fixed_draws(one_pass: OnePass, z, kl_weight=1.0) -> FixedDraws:
    """Evaluate the densities once, for the value of a bound as for its gradient.

    A second evaluation would give layers with a state or with draws of their own, such as
    normalization and dropout, another function than the one whose value is reported. Losses that
    layers of the decoder add, such as of their activities, train the decoder alone.

    Args:
        one_pass: the batch.
        z: reparameterized draws, `[num_samples, batch, *latent_shape]`.
        kl_weight: weight of log p(z) - log q(z|x) in log w.
    """
    fixed_z = tf.nest.map_structure(tf.stop_gradient, z)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(fixed_z)
        log_likelihood, log_prior, log_posterior = one_pass.log_densities(fixed_z)
        log_weights = log_likelihood + kl_weight * (log_prior - log_posterior)
    slopes = tape.gradient(log_weights, fixed_z)
    path = sum(
        _sum_event(tf.stop_gradient(slope) * leaf, tf.rank(log_weights))
        for slope, leaf in zip(tf.nest.flatten(slopes), tf.nest.flatten(z), strict=True)
    )
    return FixedDraws(log_likelihood, log_prior, log_posterior, path)


def surrogate(draws: FixedDraws, *, model, path, score, kl_weight=1.0) -> tf.Tensor:
    """Return a tensor `[batch]` whose gradient is the weighted sum of the three parts, summed over
    the draws.

    Args:
        draws: of `at_fixed_draws`, with the same `kl_weight`.
        model: weight of the model's part, a number or `[num_samples, batch]`; no gradient flows
            through it.
        path: weight of the path's part, likewise.
        score: weight of the score's part, likewise.
        kl_weight: weight of log p(z) - log q(z|x) in log w.
    """
    model, path, score = (
        tf.stop_gradient(in_dtype(part, draws.path.dtype)) for part in (model, path, score)
    )
    log_joint = draws.log_likelihood + kl_weight * draws.log_prior
    return tf.reduce_sum(
        model * log_joint + path * draws.path - score * kl_weight * draws.log_posterior, 0
    )


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
