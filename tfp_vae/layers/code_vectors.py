"""Discrete distributions over the vectors of a codebook."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.own import own
from tfp_vae.layers.values import Values, values_of

tfd = tfp.distributions
ParameterProperties = tfp.util.ParameterProperties


class OverVectors(
    tfd.Distribution,
    tfp.experimental.AutoCompositeTensor,
    metaclass=type(tfd.Normal),  # type: ignore[metaclass]
):
    """A discrete distribution over code vectors, `[num_vectors, code_size]`; any value counts as
    the nearest code vectors.

    Args:
        per_vector: logits or features, `[..., num_vectors, number]`.
        codebook: the code vectors, `[num_codes, code_size]`.
        parameters: arguments of the constructor, by name.
        **kwargs: arguments of `tfd.Distribution`.
    """

    def __init__(self, per_vector: tf.Tensor, codebook, parameters: dict, **kwargs):
        self._per_vector = per_vector
        self._codebook = tf.convert_to_tensor(codebook, dtype=per_vector.dtype)
        super().__init__(dtype=per_vector.dtype, parameters=parameters, **kwargs)

    @property
    def codebook(self) -> tf.Tensor:
        """The code vectors, `[num_codes, code_size]`."""
        return self._codebook

    @property
    def middle(self) -> tf.Tensor:
        """The mean of the code vectors, `[1, code_size]`."""
        return tf.reduce_mean(self.codebook, -2, keepdims=True)

    def vectors(self, codes) -> tf.Tensor:
        """Return the code vectors of integer codes.

        `[..., num_vectors]` -> `[..., num_vectors, code_size]`.
        """
        codes = tf.cast(codes, tf.int32)
        if self.codebook.shape.rank == 2:
            return tf.gather(self.codebook, codes)
        return _times(
            tf.one_hot(codes, tf.shape(self.codebook)[-2], dtype=self.dtype), self.codebook
        )

    def nearest(self, vectors) -> tf.Tensor:
        """Return the code of the code vector nearest to each vector.

        `[..., code_size]` -> int32 `[...]`.
        """
        # Measure from the middle of the codes: from a point far away, which the origin may be,
        # rounding would lose the differences.
        codebook = self.codebook - self.middle
        half_lengths = 0.5 * tf.reduce_sum(codebook**2, -1)[..., tf.newaxis, :]
        scores = _times(vectors - self.middle, tf.linalg.matrix_transpose(codebook)) - half_lengths
        return tf.argmax(scores, -1, output_type=tf.int32)

    def _event_shape(self):
        return tf.TensorShape([self._per_vector.shape[-2], self.codebook.shape[-1]])

    def _event_shape_tensor(self):
        return tf.stack([tf.shape(self._per_vector)[-2], tf.shape(self.codebook)[-1]])

    def _default_event_space_bijector(self):
        return None


@own
class CodeVectors(OverVectors):
    """Independent categories, each written as its code vector: the prior of quantized vectors.

    Args:
        logits: logits of the codes at each position, `[..., num_vectors, num_codes]`.
        codebook: the code vectors, `[num_codes, code_size]`.
        validate_args, allow_nan_stats, name: see `tfd.Distribution`.

    Example:
    >>> p = CodeVectors(tf.zeros([3, 4]), tf.eye(4))
    >>> z = p.sample(5, seed=0)
    >>> z.shape, p.log_prob(z).numpy().round(3)[0]  # -3 log 4
    (TensorShape([5, 3, 4]), np.float32(-4.159))
    """

    def __init__(
        self, logits, codebook, validate_args=False, allow_nan_stats=True, name="CodeVectors"
    ):
        parameters = dict(locals())
        with tf.name_scope(name) as name:
            super().__init__(
                tf.convert_to_tensor(logits),
                codebook,
                parameters,
                reparameterization_type=tfd.NOT_REPARAMETERIZED,
                validate_args=validate_args,
                allow_nan_stats=allow_nan_stats,
                name=name,
            )

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {
            "logits": ParameterProperties(event_ndims=2),
            "codebook": ParameterProperties(event_ndims=2),
        }

    @property
    def logits(self) -> tf.Tensor:
        """The logits of the codes at each position, `[..., num_vectors, num_codes]`."""
        return self._per_vector

    def codes_log_prob(self, codes) -> tf.Tensor:
        """Return the log-probability of integer codes: `[..., num_vectors]` -> `[...]`."""
        chosen = tf.one_hot(codes, self.logits.shape[-1], dtype=self.dtype)
        return tf.reduce_sum(chosen * tf.nn.log_softmax(self.logits), [-2, -1])

    def _log_prob(self, z):
        return self.codes_log_prob(self.nearest(tf.stop_gradient(z)))

    def _sample_n(self, n, seed=None):
        return self.vectors(tfd.Categorical(self.logits).sample(n, seed=seed))

    def _mean(self):
        return _times(tf.nn.softmax(self.logits), self.codebook)

    def _variance(self):
        return _times(tf.nn.softmax(self.logits), self.codebook**2) - self._mean() ** 2

    def _mode(self):
        return self.vectors(tf.argmax(self.logits, -1, output_type=tf.int32))

    def _entropy(self):
        return tf.reduce_sum(tfd.Categorical(self.logits).entropy(), -1)


def _times(rows: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Multiply `[..., rows, n]` with `[n, m]`, or with `[..., n, m]` of other leading axes.

    `tf.matmul` of tensors of different rank reads beyond their end on the CPU
    (tensorflow/tensorflow #117700).
    """
    if matrix.shape.rank == 2:
        return tf.tensordot(rows, matrix, 1)
    return tf.reduce_sum(rows[..., tf.newaxis] * matrix[..., tf.newaxis, :, :], -2)


@values_of.register(OverVectors)
def _(posterior: OverVectors) -> Values:
    return Values(
        "code vectors",
        is_code=True,
        expect_prior=lambda prior: _expect_same_codebook(posterior, prior),
    )


@values_of.register(CodeVectors)
def _(prior: CodeVectors) -> Values:
    return Values("code vectors")


def _expect_same_codebook(posterior: OverVectors, prior: OverVectors) -> None:
    books = [tf.get_static_value(distribution.codebook) for distribution in (posterior, prior)]
    same_shape = posterior.codebook.shape == prior.codebook.shape
    if not same_shape or (books[0] is not None and np.not_equal(*books).any()):
        raise ValueError(
            f"The prior has {prior.codebook.shape[0]} code vectors of its own, other than the "
            f"posterior's {posterior.codebook.shape[0]}. Make it of the encoder's layer: "
            "priors.Codes(encoder.layers[-1])."
        )
