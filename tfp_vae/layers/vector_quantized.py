"""Discrete codes with code vectors.

A layer that maps each feature vector to the nearest code vector.
"""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import replicas
from tfp_vae.checks import as_count
from tfp_vae.layers.code_vectors import CodeVectors, OverVectors
from tfp_vae.layers.distribution_layer import DistributionLayer
from tfp_vae.layers.own import own
from tfp_vae.layers.parts import is_joint, parts_of
from tfp_vae.layers.shapes import as_event_shape, split_params
from tfp_vae.layers.straight_through import StraightThroughDraws
from tfp_vae.layers.tensor_like import TensorLike
from tfp_vae.seeds import Stream, seed_of

__all__ = ["VectorQuantized"]

tfd = tfp.distributions
ParameterProperties = tfp.util.ParameterProperties

# A code is dead if it has less than this share of the mean number of vectors per code; it then
# restarts at a feature vector of the batch.
DEAD_BELOW = 0.03
# A value counts as a code vector within this squared distance, relative to the code vector's
# distance from the middle of all.
TOLERANCE = 1e-6
# Size of a code vector if only the number of vectors is given, as the size of the latents.
CODE_SIZE = 8


@keras.saving.register_keras_serializable(package="tfp_vae")
class VectorQuantized(DistributionLayer):
    """The posterior of a VQ-VAE: all probability on the code vectors that are nearest to the
    features.

    When to use: codes are to be whole numbers: for compression, or for a model of the codes
    that is fitted after training.

    z is one code vector for each of `num_vectors` positions, so `vae.encode(x).codes` are integers,
    `[batch, num_vectors]`. A draw is the code vectors themselves, and its gradient is that of
    the features (straight-through). The prior is a `priors.Codes` of this layer. The posterior is
    discrete and has all probability on one outcome, so its entropy is 0 and KL(q || p) is
    -log p(codes): the ELBO is still a bound of log p(x).

    The code vectors are not trained by gradients: in training, each is the running mean of the
    features that were nearest to it. Rarely used codes are re-initialized from the batch; in the
    first step all are. The commitment loss pulls the features towards their codes; a `VAE` adds it
    to the loss of any objective, and to no other reported value.

    Reference: van den Oord et al., 2017, Neural discrete representation learning, arXiv:1711.00937;
    running means: Razavi et al., 2019, Generating diverse high-fidelity images with VQ-VAE-2,
    arXiv:1906.00446; codes that start
    again: Dhariwal et al., 2020, Jukebox, arXiv:2005.00341.

    Args:
        event_shape: (num_vectors, code_size).
        num_codes: number of code vectors, which all positions share.
        commitment: weight of the commitment loss, the squared distance of the features to their
            code vectors.
        momentum: share of the running means that a training step keeps, between 0 and 1.
        seed: int, for the first code vectors and for the features at which codes restart.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., num_vectors * code_size]`, the features.
        training: whether the code vectors follow the features; `fit` sets it.

    Output:
        `QuantizedVectors`, batch shape `[...]`, event shape `(num_vectors, code_size)`.

    Raises:
        ValueError: if `event_shape` is not a pair, an argument is out of range, or `params` has
            another size.

    Example:
    >>> layer = VectorQuantized((3, 2), num_codes=4)
    >>> q = layer(tf.ones([5, 6]))
    >>> q.codes.shape, q.sample().shape, bool(tf.reduce_all(layer.vectors(q.codes) == q.sample()))
    (TensorShape([5, 3]), TensorShape([5, 3, 2]), True)
    """

    roles = ("sole posterior",)
    only_prior = "Codes"

    def __init__(
        self,
        event_shape: Sequence[int],
        num_codes: int = 512,
        commitment: float = 0.25,
        momentum: float = 0.99,
        seed: int = 0,
        convert_to_tensor_fn="sample",
        validate_args=False,
        **kwargs,
    ):
        arguments = {
            "event_shape": as_vectors_shape(event_shape),
            "num_codes": as_count(num_codes, "num_codes"),
            "commitment": _between(commitment, 0.0, np.inf, "commitment"),
            "momentum": _between(momentum, 0.0, 1.0, "momentum"),
            "seed": seed,
        }
        super().__init__(arguments, convert_to_tensor_fn, validate_args, **kwargs)
        weight = {"trainable": False, "autocast": False, "aggregation": "mean"}
        counter = {**weight, "dtype": "int32", "aggregation": "only_first_replica"}
        shape = (self.num_codes, self.event_shape[-1])
        # Drawn by NumPy: the same in each dtype.
        first = keras.initializers.Constant(np.random.default_rng(seed).normal(size=shape))
        self.sums = self.add_weight(name="sums", shape=shape, initializer=first, **weight)
        self.counts = self.add_weight(name="counts", shape=shape[:1], initializer="ones", **weight)
        self.num_updates = self.add_weight(
            name="num_updates", shape=(), initializer="zeros", **counter
        )

    @property
    def codebook(self) -> tf.Tensor:
        """The code vectors, `[num_codes, code_size]`."""
        counts = tf.convert_to_tensor(self.counts)[:, tf.newaxis]
        return tf.math.divide_no_nan(tf.convert_to_tensor(self.sums), counts)

    def vectors(self, codes) -> tf.Tensor:
        """Return the code vectors of integer codes.

        `[..., num_vectors]` -> `[..., num_vectors, code_size]`.
        """
        return tf.gather(self.codebook, tf.cast(codes, tf.int32))

    def call(self, params, training=False):
        params = self.in_variable_dtype(params)
        follow = training and self.trainable
        if follow:
            self._restart(tf.reshape(params, [-1, self.event_shape[-1]]))
        distribution = self.distribution(params)
        if follow:
            self._follow(distribution)
        return TensorLike(distribution, self.convert_to_tensor_fn)

    def distribution(self, params) -> tfd.Distribution:
        return self.new(
            params, self.event_shape, self.codebook, self.commitment, self.validate_args
        )

    def _restart(self, features: tf.Tensor) -> None:
        """Restart dead codes at features of the whole batch, at different ones if there are enough."""
        features = replicas.gather(tf.stop_gradient(features))
        counts = tf.convert_to_tensor(self.counts)
        number = tf.shape(features)[0]
        seed = seed_of(Stream.RESTARTED_CODES, self.seed)
        mean = tf.cast(number, counts.dtype) / self.num_codes
        step = tf.convert_to_tensor(self.num_updates)
        dead = tf.logical_or(counts < DEAD_BELOW * mean, step == 0)
        order = tf.argsort(tf.random.stateless_uniform([number], tf.random.fold_in(seed, step)))
        chosen = tf.gather(features, tf.gather(order, tf.range(self.num_codes) % number))
        self.sums.assign(
            tf.where(dead[:, tf.newaxis], mean * chosen, tf.convert_to_tensor(self.sums))
        )
        self.counts.assign(tf.where(dead, mean, counts))

    def _follow(self, q: "QuantizedVectors") -> None:
        """Update the running counts and sums of the features nearest to each code."""
        chosen = tf.one_hot(tf.reshape(q.codes, [-1]), self.num_codes, dtype=q.dtype)
        features = tf.stop_gradient(tf.reshape(q.features, [-1, self.event_shape[-1]]))
        for mean, batch in (
            (self.counts, tf.reduce_sum(chosen, 0)),
            (self.sums, tf.matmul(chosen, features, True)),
        ):
            step = (1.0 - self.momentum) * replicas.total(batch)
            mean.assign(self.momentum * tf.convert_to_tensor(mean) + step)
        self.num_updates.assign(self.num_updates + 1)

    @classmethod
    def arguments_of_latents(cls, size: int) -> dict:
        return {"event_shape": (size, CODE_SIZE)}

    @staticmethod
    def new(
        params,
        event_shape: Sequence[int],
        codebook,
        commitment: float = 0.25,
        validate_args=False,
        name=None,
    ) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(event_shape)]`, and the code
        vectors.
        """
        (features,) = split_params(params, [as_vectors_shape(event_shape)])
        return QuantizedVectors(
            features, codebook, commitment, validate_args, name=name or "QuantizedVectors"
        )

    @staticmethod
    def params_size(event_shape: Sequence[int], name=None) -> int:
        """Return the number of parameters of one distribution."""
        return int(np.prod(as_vectors_shape(event_shape)))


@own
class QuantizedVectors(StraightThroughDraws, OverVectors):
    """All probability on the code vectors nearest to the features; draws have the gradient of the
    features.

    Args:
        features: `[..., num_vectors, code_size]`.
        codebook: the code vectors, `[num_codes, code_size]`.
        commitment: weight of `commitment_loss`.
        validate_args, allow_nan_stats, name: see `tfd.Distribution`.
    """

    def __init__(
        self,
        features,
        codebook,
        commitment: float = 0.25,
        validate_args=False,
        allow_nan_stats=True,
        name="QuantizedVectors",
    ):
        parameters = dict(locals())
        with tf.name_scope(name) as name:
            self._commitment = commitment
            super().__init__(
                tf.convert_to_tensor(features),
                codebook,
                parameters,
                reparameterization_type=tfd.FULLY_REPARAMETERIZED,
                validate_args=validate_args,
                allow_nan_stats=allow_nan_stats,
                name=name,
            )

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {
            "features": ParameterProperties(event_ndims=2),
            "codebook": ParameterProperties(event_ndims=2),
        }

    @property
    def features(self) -> tf.Tensor:
        """The features that are quantized, `[..., num_vectors, code_size]`."""
        return self._per_vector

    @property
    def codes(self) -> tf.Tensor:
        """The codes, int32 `[..., num_vectors]`."""
        return self.nearest(tf.stop_gradient(self.features))

    def commitment_loss(self) -> tf.Tensor:
        """Return the weighted squared distance of the features to their code vectors, `[...]`."""
        distances = self.features - tf.stop_gradient(self.vectors(self.codes))
        return self._commitment * tf.reduce_sum(distances**2, [-2, -1])

    def _mean(self):
        # The difference is exactly 0, so these are code vectors.
        return tf.stop_gradient(self.vectors(self.codes)) + (
            self.features - tf.stop_gradient(self.features)
        )

    _mode = _mean

    def _stddev(self):
        return tf.zeros_like(self.features)

    _variance = _stddev

    def _sample_n(self, n, seed=None):
        mean = self._mean()
        return tf.broadcast_to(mean, tf.concat([[n], tf.shape(mean)], 0))

    def _log_prob(self, z):
        own = self.vectors(self.codes)
        squared_distance = tf.reduce_sum((z - own) ** 2, [-2, -1])
        is_own = squared_distance <= TOLERANCE * tf.reduce_sum((own - self.middle) ** 2, [-2, -1])
        return tf.where(is_own, tf.zeros_like(squared_distance), tf.constant(-np.inf, self.dtype))

    def _entropy(self):
        return tf.zeros(self.batch_shape_tensor(), self.dtype)


@tfd.RegisterKL(QuantizedVectors, CodeVectors)
def _kl_quantized_codes(q: QuantizedVectors, p: CodeVectors, name=None) -> tf.Tensor:
    """Return -log p(codes): the posterior has one possible outcome, so its entropy is 0."""
    return -p.codes_log_prob(q.codes)


def commitment_loss(posterior: tfd.Distribution) -> tf.Tensor | float:
    """Return the commitment loss of the quantized parts of a posterior, `[batch]`.

    It is 0 if there are none.
    """
    return sum(
        (part.commitment_loss() for part in parts_of(posterior).values() if is_quantized(part)), 0.0
    )


def is_quantized(distribution) -> bool:
    """Return whether a distribution is that of a `VectorQuantized` layer, with integer codes."""
    return isinstance(distribution, QuantizedVectors)


def with_codes_of(posterior: tfd.Distribution, prior: tfd.Distribution) -> tfd.Distribution:
    """Return the prior over the code vectors that a quantized posterior has drawn from.

    Any other prior is returned as it is.

    In a training step, the encoder restarts and updates its codes: a prior that reads them before
    or after would have other code vectors than the posterior.
    """
    if is_joint(posterior) and is_joint(prior):
        parts = parts_of(posterior)
        own = {name: with_codes_of(parts.get(name), part) for name, part in parts_of(prior).items()}
        return tfd.JointDistributionNamed(own)
    if is_quantized(posterior) and isinstance(prior, CodeVectors):
        return prior.copy(codebook=posterior.codebook)
    return prior


def as_vectors_shape(event_shape) -> tuple[int, ...]:
    """Check the shape of several vectors."""
    shape = as_event_shape(event_shape)
    if len(shape) != 2:
        raise ValueError(
            f"event_shape must be a pair (num_vectors, code_size), received {event_shape!r}."
        )
    return shape


def _between(value, low: float, high: float, name: str) -> float:
    if not low <= value < high:
        raise ValueError(
            f"{name} must be a number from {low:g} to below {high:g}, received {value!r}."
        )
    return float(value)
