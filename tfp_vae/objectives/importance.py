"""Bounds from several draws: importance weighting and its relatives."""

import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import sampling
from tfp_vae.checks import as_count, one_of
from tfp_vae.objectives.gradients import Draws, expect_exact_path, surrogate, with_gradient_of
from tfp_vae.objectives.one_pass import Objective, OnePass

__all__ = [
    "CIWAE",
    "IWAE",
    "MIWAE",
    "PIWAE",
    "TVO",
    "Renyi",
    "importance_sampled_log_prob",
    "log_prob_by_recomputation",
    "sum_of_weights",
]

tfd = tfp.distributions
ESTIMATORS = ("standard", "stl", "dreg")
# Distances of Renyi's alpha from 1 up to which the bound is the ELBO and a small rest.
NEAR_THE_ELBO = 1e-5


@keras.saving.register_keras_serializable(package="tfp_vae")
class IWAE(Objective):
    """The negative importance-weighted bound: log of the mean of p(x|z) p(z) / q(z|x) over several
    draws of z.

    When to use: the likelihood of the same networks is to be better, in up to as many times the
    time as there are draws.

    With one draw it is the ELBO with a sampled KL divergence; it rises with the number of draws, to
    log p(x).

    Reference: Burda et al., 2016, arXiv:1509.00519; estimators: Roeder et al., 2017,
    arXiv:1703.09194 ("stl"); Tucker et al., 2019, arXiv:1810.04152 ("dreg").

    Args:
        num_samples: draws of z for each example.
        estimator: of the encoder's gradient: "standard"; "stl" (sticking the landing: little
            variance, biased); "dreg" (doubly reparameterized: unbiased; its variance is lower than
            that of "standard" if the posterior is near p(z|x), as after some training, and higher
            at random weights). Straight-through posteriors take only "standard".

    Raises:
        ValueError: if `num_samples` is below 1, the estimator is unknown, or wrong for the
            posterior.

    Example:
    >>> IWAE(50, estimator="dreg").get_config()["num_samples"]
    50
    """

    def __init__(self, num_samples: int = 5, estimator: str = "standard", **kwargs):
        arguments = {
            "num_samples": as_count(num_samples, "num_samples"),
            "estimator": one_of(ESTIMATORS, estimator, "estimator"),
        }
        super().__init__(arguments, **kwargs)

    def check(self, posterior: tfd.Distribution, prior: tfd.Distribution) -> None:
        expect_exact_path(posterior, self.estimator, "IWAE")

    def terms(self, one_pass: OnePass) -> dict[str, tf.Tensor]:
        if self.estimator == "standard":
            log_weights, terms = weigh(one_pass, self.num_samples)
            return {**terms, "loss": -log_mean(log_weights)}
        draws, log_weights, terms = weigh_for_surrogate(one_pass, self.num_samples)
        weights = tf.nn.softmax(log_weights, 0)
        path = weights**2 if self.estimator == "dreg" else weights
        bound = surrogate(draws, model=weights, path=path, score=0.0)
        return {**terms, "loss": with_gradient_of(-bound, -log_mean(log_weights))}


class _SeveralBounds(Objective):
    """Draws in groups, each with an importance-weighted bound of its own."""

    def __init__(self, num_estimates: int = 5, num_samples: int = 5, **kwargs):
        arguments = {
            "num_estimates": as_count(num_estimates, "num_estimates"),
            "num_samples": as_count(num_samples, "num_samples"),
        }
        super().__init__(arguments, **kwargs)

    @property
    def num_draws(self) -> int:
        return self.num_estimates * self.num_samples


@keras.saving.register_keras_serializable(package="tfp_vae")
class MIWAE(_SeveralBounds):
    """The mean of several importance-weighted bounds: between the ELBO (one draw each) and IWAE
    (one bound).

    When to use: there are many draws, and the encoder is to learn from a gradient with less
    noise.

    Reference: Rainforth et al., 2018, Tighter variational bounds are not necessarily better,
        arXiv:1802.04537.

    Args:
        num_estimates: bounds that are averaged.
        num_samples: draws of z for each bound.

    Raises:
        ValueError: if a number is below 1.

    Example:
    >>> MIWAE(8, 8).get_config()["num_estimates"]
    8
    """

    def terms(self, one_pass: OnePass) -> dict[str, tf.Tensor]:
        log_weights, terms = weigh(one_pass, self.num_draws)
        bounds = log_mean(grouped(log_weights, self.num_samples), axis=1)
        return {**terms, "loss": -tf.reduce_mean(bounds, 0)}


@keras.saving.register_keras_serializable(package="tfp_vae")
class CIWAE(Objective):
    """A weighted mean of the ELBO (weight beta) and the importance-weighted bound, on the same
    draws.

    When to use: the encoder learns too little by IWAE; a larger beta leads towards the ELBO.

    Reference: Rainforth et al., 2018, arXiv:1802.04537.

    Args:
        beta: from 0, which is IWAE, to 1, which is the ELBO of several draws with a sampled KL
            divergence.
        num_samples: draws of z for each example.

    Raises:
        ValueError: if beta lies outside of [0, 1], or `num_samples` is below 1.

    Example:
    >>> CIWAE(beta=0.05, num_samples=64).beta
    0.05
    """

    def __init__(self, beta: float = 0.5, num_samples: int = 5, **kwargs):
        if not 0.0 <= beta <= 1.0:
            raise ValueError(f"beta must lie between 0 and 1, received {beta!r}.")
        super().__init__(
            {"beta": float(beta), "num_samples": as_count(num_samples, "num_samples")}, **kwargs
        )

    def terms(self, one_pass: OnePass) -> dict[str, tf.Tensor]:
        log_weights, terms = weigh(one_pass, self.num_samples)
        elbo = tf.reduce_mean(log_weights, 0)
        return {**terms, "loss": -self.beta * elbo - (1.0 - self.beta) * log_mean(log_weights)}


@keras.saving.register_keras_serializable(package="tfp_vae")
class PIWAE(_SeveralBounds):
    """IWAE for decoder and prior, MIWAE for the encoder, because a tighter bound makes its gradient
    noisier.

    When to use: the decoder is to have the tighter bound, and the encoder the better gradient.

    Its loss is the IWAE bound of all draws; its gradient for the encoder is that of MIWAE.

    Reference: Rainforth et al., 2018, arXiv:1802.04537.

    Args:
        num_estimates: bounds that are averaged for the encoder.
        num_samples: draws of z for each of them.

    Raises:
        ValueError: if a number is below 1.

    Example:
    >>> PIWAE(8, 8).get_config()["num_samples"]
    8
    """

    def terms(self, one_pass: OnePass) -> dict[str, tf.Tensor]:
        draws, log_weights, terms = weigh_for_surrogate(one_pass, self.num_draws)
        model = tf.nn.softmax(log_weights, 0)
        within = tf.nn.softmax(grouped(log_weights, self.num_samples), 1) / self.num_estimates
        encoder = tf.reshape(within, tf.shape(log_weights))
        bound = surrogate(draws, model=model, path=encoder, score=encoder)
        return {**terms, "loss": with_gradient_of(-bound, -log_mean(log_weights))}


@keras.saving.register_keras_serializable(package="tfp_vae")
class Renyi(Objective):
    """The negative variational Renyi bound of order alpha.

    When to use: a bound between the ELBO and IWAE, or an estimate from above, is asked for.

    With alpha = 0 it is IWAE, and in the limit alpha to 1 the ELBO. With a negative alpha and many
    draws, it bounds log p(x) from above.

    Reference: Li & Turner, 2016, Renyi divergence variational inference, arXiv:1602.02311.

    Args:
        alpha: order, a finite number.
        num_samples: draws of z for each example.

    Raises:
        ValueError: if alpha is not finite, or `num_samples` is below 1.

    Example:
    >>> Renyi(alpha=0.5).alpha
    0.5
    """

    def __init__(self, alpha: float = 0.5, num_samples: int = 5, **kwargs):
        if not np.isfinite(alpha):
            raise ValueError(f"alpha must be a finite number, received {alpha!r}.")
        super().__init__(
            {"alpha": float(alpha), "num_samples": as_count(num_samples, "num_samples")}, **kwargs
        )

    def terms(self, one_pass: OnePass) -> dict[str, tf.Tensor]:
        log_weights, terms = weigh(one_pass, self.num_samples)
        if self.alpha == 1.0:
            return {**terms, "loss": -tf.reduce_mean(log_weights, 0)}
        power = 1.0 - self.alpha
        if abs(power) > NEAR_THE_ELBO:
            return {**terms, "loss": -log_mean(power * log_weights) / power}
        elbo = tf.reduce_mean(log_weights, 0)
        ratio = tf.reduce_mean(tf.math.expm1(power * (log_weights - elbo)), 0)
        return {**terms, "loss": -elbo - tf.math.log1p(ratio) / power}


@keras.saving.register_keras_serializable(package="tfp_vae")
class TVO(Objective):
    """The negative thermodynamic variational objective: between the ELBO (one partition) and log
    p(x) (many).

    When to use: a bound between the ELBO and log p(x) is asked for that partitions tighten.

    The distributions between q(z|x), at 0, and p(z|x), at 1, are q^(1-b) p^b up to a constant; log
    p(x) is the integral over b of the mean log weight under them. This is its left Riemann sum, a
    lower bound, with the means estimated by importance sampling. The inner ends of the partitions
    are spaced evenly in log b.

    Reference: Masrani et al., 2019, The thermodynamic variational objective, arXiv:1907.00031.

    Args:
        num_partitions: terms of the sum.
        num_samples: draws of z for each example.
        first: the lowest of the inner ends, between 0 and 1.

    Raises:
        ValueError: if a number is below 1, or `first` does not lie between 0 and 1.

    Example:
    >>> TVO(num_partitions=3, first=0.01).ends.round(3)
    array([0.  , 0.01, 0.1 , 1.  ])
    """

    def __init__(
        self, num_partitions: int = 5, num_samples: int = 10, first: float = 0.03, **kwargs
    ):
        if not 0.0 < first < 1.0:
            raise ValueError(f"first must lie between 0 and 1, received {first!r}.")
        arguments = {
            "num_partitions": as_count(num_partitions, "num_partitions"),
            "num_samples": as_count(num_samples, "num_samples"),
            "first": float(first),
        }
        super().__init__(arguments, **kwargs)

    @property
    def ends(self) -> np.ndarray:
        """The ends of the partitions, from 0 to 1."""
        inner = np.geomspace(self.first, 1.0, self.num_partitions)
        return np.concatenate([[0.0], inner]) if self.num_partitions > 1 else np.array([0.0, 1.0])

    def terms(self, one_pass: OnePass) -> dict[str, tf.Tensor]:
        log_weights, terms = weigh(one_pass, self.num_samples)
        bound = tf.zeros_like(log_weights[0])
        for left, right in itertools.pairwise(self.ends.tolist()):
            weights = tf.nn.softmax(left * log_weights, 0)
            bound += (right - left) * tf.reduce_sum(weights * log_weights, 0)
        return {**terms, "loss": -bound}


def weigh(one_pass: OnePass, num_samples: int) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Return the log weights of draws of z, `[num_samples, batch]`, and the terms of the ELBO."""
    return _weigh(one_pass, *one_pass.log_densities(one_pass.sample(num_samples)))


def weigh_for_surrogate(
    one_pass: OnePass, num_samples: int
) -> tuple[Draws, tf.Tensor, dict[str, tf.Tensor]]:
    """Return what `weigh` does, and first the draws, for a `surrogate`."""
    draws = Draws(one_pass, num_samples)
    return draws, *_weigh(one_pass, *draws.densities)


def _weigh(one_pass: OnePass, log_likelihood, log_prior, log_posterior) -> tuple[tf.Tensor, dict]:
    mean_log_likelihood = tf.reduce_mean(log_likelihood, 0)
    kl = one_pass.kl(tf.reduce_mean(log_prior, 0), tf.reduce_mean(log_posterior, 0))
    terms = {"elbo": mean_log_likelihood - kl, "log_likelihood": mean_log_likelihood, "kl": kl}
    return log_likelihood + log_prior - log_posterior, terms


def log_mean(log_values: tf.Tensor, axis: int = 0) -> tf.Tensor:
    """Return the log of the mean of the exponentials along an axis."""
    number = tf.cast(tf.shape(log_values)[axis], log_values.dtype)
    return tf.reduce_logsumexp(log_values, axis) - tf.math.log(number)


def grouped(log_weights: tf.Tensor, num_samples: int) -> tf.Tensor:
    """Cut `[num_estimates * num_samples, batch]` into `[num_estimates, num_samples, batch]`."""
    return tf.reshape(log_weights, [-1, num_samples, tf.shape(log_weights)[1]])


def importance_sampled_log_prob(
    one_pass: OnePass,
    num_samples: int | tf.Tensor,
    *,
    draws_per_step: int,
    draw: Callable[[tfd.Distribution, int, tf.Tensor], tf.Tensor] | None = None,
) -> tf.Tensor:
    """Estimate log p(x) as log of the mean of p(x|z) p(z) / q(z|x) over draws of z from q,
    `[batch]`, in nats.

    Reference: Burda et al., 2016, Importance Weighted Autoencoders, arXiv:1509.00519.

    Args:
        one_pass: the batch.
        num_samples: draws for each example.
        draws_per_step: draws held in memory at once.
        draw: function (posterior, number, seed) -> z, `[number, batch, latent]`; None takes
            `sampling.sample`.
    """
    log_sum, _ = sum_of_weights(one_pass, num_samples, draws_per_step, draw)
    return log_sum - tf.math.log(tf.cast(num_samples, log_sum.dtype))


def sum_of_weights(
    one_pass: OnePass,
    num_samples: int | tf.Tensor,
    draws_per_step: int,
    draw: Callable | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the log of the sum of w = p(x|z) p(z) / q(z|x) over draws of z, and the effective
    number of draws, (sum of w)^2 / sum of w^2, each `[batch]`, in memory that does not grow with
    the number of draws.

    The sums are kept in units of the largest weight so far: the log of a sum of thousands of weights
    would not change any more by one of them, as its own size is that of log p(x).
    """

    def add_draws(step, largest, total, squares):
        log_weights = log_weights_of_step(one_pass, step, num_samples, draws_per_step, draw)
        now = tf.maximum(largest, tf.reduce_max(log_weights, 0))
        unit = _finite(now)
        kept, weights = tf.exp(largest - unit), tf.exp(log_weights - unit)
        total = kept * total + tf.reduce_sum(weights, 0)
        return step + 1, now, total, kept**2 * squares + tf.reduce_sum(weights**2, 0)

    x = tf.nest.flatten(one_pass.x)[0]
    nothing = tf.zeros([tf.shape(x)[0]], x.dtype)
    steps = -(-num_samples // draws_per_step)
    _, largest, total, squares = tf.while_loop(
        lambda step, *_: step < steps,
        add_draws,
        (tf.constant(0), nothing - np.inf, nothing, nothing),
    )
    return _finite(largest) + tf.math.log(total), total**2 / squares


def _finite(log_values: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.math.is_finite(log_values), log_values, tf.zeros_like(log_values))


def log_prob_by_recomputation(
    make_pass: Callable[[Any], OnePass],
    data,
    num_samples: int | tf.Tensor,
    *,
    draws_per_step: int,
) -> tf.Tensor:
    """Estimate log p(x) as `importance_sampled_log_prob` does, with a gradient in memory that does
    not grow with the number of draws.

    The gradient of the log of the mean of w is the mean of the gradients of log w, weighted by w: a
    second loop over the same draws adds them up. So nothing of the first loop is kept, and XLA
    compiles both loops for any number of draws. The weights of the model are frozen and get no
    gradient.

    Args:
        make_pass: function of data that makes the pass of this batch.
        data: its argument, a structure of tensors.
        num_samples: draws for each example.
        draws_per_step: draws held in memory at once.
    """
    leaves = tf.nest.flatten(data)
    places = [place for place, leaf in enumerate(leaves) if leaf.dtype.is_floating]

    @tf.custom_gradient
    def estimate(*floating):
        def again():
            given = dict(zip(places, floating, strict=True))
            whole = [given.get(place, leaf) for place, leaf in enumerate(leaves)]
            return make_pass(tf.nest.pack_sequence_as(data, whole))

        log_prob = importance_sampled_log_prob(again(), num_samples, draws_per_step=draws_per_step)

        def gradient(upstream, variables=()):
            slopes = _weighted_slopes(
                again, floating, log_prob, upstream, num_samples, draws_per_step
            )
            # Variables other than the weights of the model's layers, such as those of a function.
            return (slopes, [None] * len(variables)) if variables else slopes

        return log_prob, gradient

    return estimate(*[leaves[place] for place in places])


def _weighted_slopes(
    make_pass, sources, log_prob, upstream, num_samples, draws_per_step
) -> list[tf.Tensor]:
    log_sum = log_prob + tf.math.log(tf.cast(num_samples, log_prob.dtype))

    def add_draws(step, *slopes):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            log_weights = log_weights_of_step(make_pass(), step, num_samples, draws_per_step)
        weights = upstream * tf.exp(log_weights - log_sum)
        more = tape.gradient(log_weights, sources, weights, unconnected_gradients="zero")
        return step + 1, *[slope + new for slope, new in zip(slopes, more, strict=True)]

    steps = -(-num_samples // draws_per_step)
    nothing = [tf.zeros_like(source) for source in sources]
    return list(
        tf.while_loop(lambda step, *_: step < steps, add_draws, (tf.constant(0), *nothing))[1:]
    )


def log_weights_of_step(
    one_pass: OnePass,
    step: tf.Tensor,
    num_samples: int | tf.Tensor,
    draws_per_step: int,
    draw: Callable | None = None,
) -> tf.Tensor:
    """Return log p(x|z) + log p(z) - log q(z|x), `[draws_per_step, batch]`.

    They are -inf beyond the last draw that was requested.
    """
    draw = draw or sampling.sample
    z = draw(one_pass.posterior, draws_per_step, tf.random.fold_in(one_pass.seed, step))
    log_likelihood, log_prior, log_posterior = one_pass.log_densities(z)
    log_weights = log_likelihood + log_prior - log_posterior
    is_wanted = step * draws_per_step + tf.range(draws_per_step) < num_samples
    return tf.where(is_wanted[:, tf.newaxis], log_weights, -np.inf)
