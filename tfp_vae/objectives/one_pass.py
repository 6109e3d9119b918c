"""The input of an objective for one batch, and the base class of all objectives."""

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from keras.optimizers.schedules import LearningRateSchedule as Schedule

from tfp_vae import sampling
from tfp_vae.layers.arguments import rebuild, store, stored
from tfp_vae.layers.parts import has_dependent_parts, is_joint
from tfp_vae.layers.shapes import in_dtype
from tfp_vae.layers.tensor_like import is_a

__all__ = [
    "Objective",
    "OnePass",
    "analytic_kl",
    "as_vectors",
    "is_reparameterized",
    "kl_is_analytic",
]

tfd = tfp.distributions
# A step at which a schedule has reached its final value.
LAST_STEP = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class OnePass:
    """The input that a VAE passes to its objective for one batch.

    Args:
        x: the data, `[batch, *event_shape]`, or a dict of such tensors.
        posterior: q(z|x), batch shape `[batch]`.
        prior: p(z), batch shape `[]`, or p(z|condition), batch shape `[batch]`.
        likelihood: function of z, `[..., *latent_shape]`, that gives p(x|z), batch shape `[...]`.
        seed: int32 `[2]`, the stateless seed of every draw.
        step: the optimizer's step in training, None in evaluation.
    """

    x: Any
    posterior: tfd.Distribution
    prior: tfd.Distribution
    likelihood: Callable[[Any], tfd.Distribution]
    seed: tf.Tensor
    step: tf.Tensor | None = None

    def sample(self, sample_shape):
        """Draw z from the posterior, `[*sample_shape, batch, *latent_shape]`, by the pass's own
        seed.
        """
        return sampling.sample(self.posterior, sample_shape, self.seed)

    def log_likelihood(self, z) -> tf.Tensor:
        """Evaluate log p(x|z), `[*sample_shape, batch]`, at the given z."""
        return sampling.log_density(self.likelihood(z), self.x)

    def log_densities(self, z) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Evaluate log p(x|z), log p(z) and log q(z|x), each `[*sample_shape, batch]`, at the given
        z.
        """
        return (
            self.log_likelihood(z),
            sampling.log_density(self.prior, z),
            sampling.log_density(self.posterior, z),
        )

    def kl(self, log_prior: tf.Tensor, log_posterior: tf.Tensor) -> tf.Tensor:
        """Return KL(q(z|x) || p(z)), analytic where TFP has it, else estimated from the densities
        at drawn z.
        """
        kl = analytic_kl(self.posterior, self.prior)
        return log_posterior - log_prior if kl is None else kl

    def value_of(self, schedule) -> tf.Tensor:
        """Return a number, or a schedule's value at the optimizer's step.

        In evaluation, it is the schedule's final value.

        A schedule without an end, such as a cosine with restarts, has an arbitrary value there;
        `elbo`, whose beta is 1, does not depend on it, and `CyclicalSchedule` has an end.
        """
        if isinstance(schedule, Schedule):
            schedule = schedule(LAST_STEP if self.step is None else self.step)
        return in_dtype(schedule, tf.nest.flatten(self.x)[0].dtype)


class Objective(keras.layers.Layer, abc.ABC):
    """Base of all objectives.

    To add one: subclass, pass the arguments to this constructor, implement `terms(one_pass)`,
    decorate with `keras.saving.register_keras_serializable`, name it in `__all__` and give it a row
    in `tests/test_objectives.py`. Each argument is stored under its own name, and saved with the
    objective. It is a Keras layer, so it may own weights; `terms` is called directly.

    Args:
        arguments: numbers, names or Keras schedules, by name.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    # Whether it is defined for a posterior without a density, `layers.Deterministic`.
    takes_points = False
    # Whether it has a beta that may be a schedule, such as a warm-up.
    has_scheduled_beta = False

    def __init__(self, arguments: dict, **kwargs):
        super().__init__(autocast=False, **kwargs)
        store(self, arguments)
        self.built = True

    def check(self, posterior: tfd.Distribution, prior: tfd.Distribution) -> None:
        """Raise a ValueError if this objective is not defined for such distributions.

        A VAE calls this when it is built.
        """

    @property
    def num_draws(self) -> int:
        """Number of draws of z for each example in a training step; the cost grows with it."""
        return getattr(self, "num_samples", 1)

    @classmethod
    def arguments_of_data(cls, num_examples: int) -> dict:
        """Return the arguments of the constructor that follow from the training data."""
        return {}

    @abc.abstractmethod
    def terms(self, one_pass: OnePass) -> dict[str, tf.Tensor]:
        """Return `loss`, `elbo`, `log_likelihood` and `kl`, each `[batch]`, in nats."""

    def get_config(self) -> dict:
        return {**super().get_config(), **stored(self)}

    @classmethod
    def from_config(cls, config: dict):
        return rebuild(cls, config)

    def call(self, *args):
        raise TypeError(
            f"Call {type(self).__name__}.terms(one_pass): an objective is not a function of "
            "tensors."
        )


def elbo_terms(one_pass: OnePass, z: tf.Tensor) -> dict[str, tf.Tensor]:
    """Return `elbo`, `log_likelihood` and `kl`, each `[batch]`, of one draw z for each example."""
    log_likelihood, log_prior, log_posterior = one_pass.log_densities(z)
    kl = one_pass.kl(log_prior, log_posterior)
    return {"elbo": log_likelihood - kl, "log_likelihood": log_likelihood, "kl": kl}


def as_weight(value, name: str) -> float | Schedule:
    """Check a weight: a finite number of at least 0, or a Keras schedule."""
    if isinstance(value, Schedule):
        return value
    if not (isinstance(value, (int, float, np.number)) and 0.0 <= value < math.inf):
        raise ValueError(
            f"{name} must be a finite number of at least 0, or a Keras schedule; received "
            f"{value!r}."
        )
    return float(value)


def analytic_kl(posterior: tfd.Distribution, prior: tfd.Distribution) -> tf.Tensor | None:
    """Return KL(posterior || prior), `[batch]`, in nats, or None where TFP has no closed form for
    the pair.

    >>> analytic_kl(tfd.Normal(1., 1.), tfd.Normal(0., 1.)).numpy()
    np.float32(0.5)
    >>> analytic_kl(tfd.Normal(1., 1.), tfd.StudentT(3., 0., 1.)) is None
    True
    """
    if has_dependent_parts(posterior) or has_dependent_parts(prior):
        return None
    try:
        return tfd.kl_divergence(posterior, prior)
    except NotImplementedError:
        return None


def kl_is_analytic(posterior: tfd.Distribution, prior: tfd.Distribution) -> bool:
    """Return whether TFP has a closed form of KL(posterior || prior); otherwise Monte Carlo is
    used.

    >>> kl_is_analytic(tfd.Normal(1., 1.), tfd.Normal(0., 1.))
    True
    """
    return analytic_kl(posterior, prior) is not None


def is_reparameterized(distribution: tfd.Distribution) -> bool:
    """Return whether gradients flow through all parts of the draws.

    >>> is_reparameterized(tfd.Normal(0., 1.)), is_reparameterized(tfd.Poisson(1.))
    (True, False)
    """
    return all(
        kind is tfd.FULLY_REPARAMETERIZED
        for kind in tf.nest.flatten(distribution.reparameterization_type)
    )


def as_vectors(z) -> tf.Tensor:
    """Concatenate all latents of each example.

    The shape changes from `[batch, ...]`, or a dict of such, to `[batch, size]`.

    >>> as_vectors({"z1": tf.zeros([5, 2]), "z2": tf.zeros([5, 3, 4])}).shape
    TensorShape([5, 14])
    """
    leaves = tf.nest.flatten(z)
    return tf.concat([tf.reshape(leaf, [-1, leaf.shape[1:].num_elements()]) for leaf in leaves], -1)


def factors(distribution: tfd.Distribution, needed_by: str = "This objective") -> tfd.Distribution:
    """View a distribution over vectors as its independent factors.

    The result has batch shape `[..., latent]` and scalar events.

    Raises:
        ValueError: if it does not factorize over its dimensions, or TFP does not say so.

    >>> factors(tfd.MultivariateNormalDiag([0., 1.])).batch_shape
    TensorShape([2])
    """
    if not is_joint(distribution) and len(distribution.event_shape) > 1:
        raise ValueError(
            f"{needed_by} looks at each dimension of a vector z, but {type(distribution).__name__} "
            f"gives events of shape {tuple(distribution.event_shape)}. Use one latent vector, or "
            "another objective."
        )
    if isinstance(distribution, tfd.MultivariateNormalDiag):
        return tfd.Normal(distribution.mean(), distribution.stddev())
    if is_a(distribution, tfd.Independent) and distribution.distribution.event_shape.rank == 0:
        return distribution.distribution
    raise ValueError(
        f"{needed_by} looks at each dimension of z alone, but {type(distribution).__name__} does "
        "not factorize. Use a factorized distribution, such as MultivariateNormalDiag, or another "
        "objective."
    )
