"""Distributions over sequences of tokens, which end at the first 0."""

import abc
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.checks import expect_kind
from tfp_vae.layers.distribution_layer import DistributionLayer
from tfp_vae.layers.fold import call_by_name, named_inputs
from tfp_vae.layers.frozen import later
from tfp_vae.layers.own import own
from tfp_vae.layers.shapes import as_positive
from tfp_vae.layers.values import Values, are_whole, values_of
from tfp_vae.text import UNKNOWN_NUMBER, Vocabulary

__all__ = ["AutoregressiveCategorical"]

tfd = tfp.distributions

# The seed of the tokens by which a network is checked.
SEED = 0
# A logit of a token that is never drawn; half precision holds it, too.
NEVER = -6e4


class Sequence(tfd.Distribution, abc.ABC):
    """Base of distributions over sequences of tokens, `[length]`.

    A token is a whole number from 0 to `num_tokens` - 1. The first 0 ends a sequence, and what
    follows is padding, which is 0 too: it adds nothing to a density. A sequence without 0 fills all
    places.

    Args:
        parameters: the arguments of the constructor.
        params: the tensor that determines the batch shape, in the dtype of densities.
        length: number of places.
        num_tokens: number of tokens, 0 included.
        never: a token that has no probability, whatever its logit; or None.
    """

    def __init__(
        self,
        parameters: dict,
        params: tf.Tensor,
        length: int,
        num_tokens: int,
        never: int | None = None,
    ):
        self.length = length
        self.num_tokens = num_tokens
        self.never = never
        self.parameter_dtype = params.dtype
        super().__init__(
            dtype=tf.int32,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=parameters["validate_args"],
            allow_nan_stats=parameters["allow_nan_stats"],
            parameters=parameters,
            name=parameters["name"],
        )

    @abc.abstractmethod
    def logits_of(self, tokens: tf.Tensor) -> tf.Tensor:
        """Return the logits of each token, `[..., length, num_tokens]`, given the tokens before it,
        int32 `[..., length]`.
        """

    @abc.abstractmethod
    def choose(self, noise: tf.Tensor, pick: Callable) -> tf.Tensor:
        """Return sequences, int32 `[..., length]`, of which the tokens after the end do not matter.

        Args:
            noise: `[..., *batch_shape, length]`.
            pick: function from logits `[..., num_tokens]` and their noise `[...]` to tokens, int32
                `[...]`.
        """

    def _event_shape(self):
        return tf.TensorShape([self.length])

    def _event_shape_tensor(self):
        return tf.constant([self.length])

    def _log_prob(self, value):
        tokens = tf.cast(value, tf.int32)
        is_whole = tf.reduce_all(tf.cast(tokens, value.dtype) == value, -1)
        logits = self.possible(self.logits_of(tokens))
        tokens = tf.broadcast_to(tokens, tf.shape(logits)[:-1])
        counts = is_counted(tokens)
        is_known = (tokens >= 0) & (tokens < self.num_tokens)
        if self.never is not None:
            is_known &= tokens != self.never
        surprises = tf.nn.sparse_softmax_cross_entropy_with_logits(
            tf.where(is_known, tokens, 0), logits
        )
        density = -tf.reduce_sum(tf.where(counts, surprises, 0.0), -1)
        is_possible = is_whole & tf.reduce_all(tf.where(counts, is_known, tokens == 0), -1)
        return tf.where(is_possible, density, -np.inf)

    def possible(self, logits: tf.Tensor) -> tf.Tensor:
        """Return logits, `[..., num_tokens]`, by which the token `never` is not drawn."""
        if self.never is None:
            return logits
        return tf.where(tf.range(self.num_tokens) == self.never, NEVER, logits)

    def _sample_n(self, n, seed=None):
        shape = tf.concat([[n], self.batch_shape_tensor(), self.event_shape], 0)
        seed = tfp.random.sanitize_seed(seed)
        return self.from_noise(uniform(shape, seed, self.parameter_dtype))

    def from_noise(self, noise: tf.Tensor) -> tf.Tensor:
        """Return the draws that uniform noise on [0, 1), `[..., *batch_shape, length]`, makes, int32
        of the same shape.
        """
        return padded(self.choose(noise, _draw))

    def greedy(self) -> tf.Tensor:
        """Return sequences of which each token is the most probable one after those before it,
        int32 `[*batch_shape, length]`.
        """
        shape = tf.concat([self.batch_shape_tensor(), self.event_shape], 0)
        return padded(self.choose(tf.zeros(shape, self.parameter_dtype), _most_probable))


def uniform(shape, seed: tf.Tensor, dtype) -> tf.Tensor:
    """Return the noise of which draws are a function, from a stateless seed."""
    return tf.random.stateless_uniform(shape, seed, dtype=dtype, alg="philox")


def _draw(logits: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    below = tf.cumsum(tf.nn.softmax(logits), -1)
    height = noise[..., tf.newaxis] * below[..., -1:]
    return tf.reduce_sum(tf.cast(below <= height, tf.int32), -1)


def _most_probable(logits: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    return tf.argmax(logits, -1, tf.int32)


def is_counted(tokens: tf.Tensor) -> tf.Tensor:
    """Return which places belong to a sequence, its end included.

    >>> is_counted(tf.constant([3, 1, 0, 0])).numpy()
    array([ True,  True,  True, False])
    """
    return tf.cumsum(tf.cast(tokens == 0, tf.int32), -1, exclusive=True) == 0


def padded(tokens: tf.Tensor) -> tf.Tensor:
    """Return sequences with 0 in all places after the first 0."""
    return tf.where(is_counted(tokens), tokens, 0)


@own
class PaddedCategorical(Sequence):
    """p(x) = prod_t p(x_t): independent tokens up to the first 0.

    Args:
        logits: `[..., length, num_tokens]`.
        never: see `Sequence`.
        validate_args, allow_nan_stats, name: as in `tfd.Distribution`.
    """

    def __init__(
        self,
        logits,
        never: int | None = None,
        validate_args=False,
        allow_nan_stats=True,
        name="PaddedCategorical",
    ):
        parameters = dict(locals())
        self.logits = tf.convert_to_tensor(logits)
        length, num_tokens = self.logits.shape[-2:]
        super().__init__(parameters, self.logits, length, num_tokens, never)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {"logits": tfp.util.ParameterProperties(event_ndims=2)}

    def logits_of(self, tokens):
        lead = tf.broadcast_dynamic_shape(tf.shape(tokens)[:-1], self.batch_shape_tensor())
        return tf.broadcast_to(self.logits, tf.concat([lead, self.logits.shape[-2:]], 0))

    def choose(self, noise, pick):
        logits = tf.broadcast_to(
            self.logits, tf.concat([tf.shape(noise), self.logits.shape[-1:]], 0)
        )
        return pick(self.possible(logits), noise)


class AutoregressiveSequence(Sequence):
    """p(x) = prod_t p(x_t | x_1, ..., x_{t-1}, context), by a network.

    Args:
        context: `[..., context_size]`.
        network: function of a context, `[batch, context_size]`, and of the tokens before each
            place, int32 `[batch, length]`, that returns logits `[batch, length, num_tokens]`.
        length: number of places.
        num_tokens: number of tokens, 0 included.
        temperature: divides the logits: below 1, draws are more probable sequences.
        never: see `Sequence`.
        validate_args, allow_nan_stats, name: as in `tfd.Distribution`.
    """

    def __init__(
        self,
        context,
        network: Callable,
        length: int,
        num_tokens: int,
        temperature: float = 1.0,
        never: int | None = None,
        validate_args=False,
        allow_nan_stats=True,
        name="AutoregressiveSequence",
    ):
        parameters = dict(locals())
        self.context = tf.convert_to_tensor(context)
        self.network = network
        self.temperature = as_positive(temperature, "temperature")
        super().__init__(parameters, self.context, length, num_tokens, never)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {"context": tfp.util.ParameterProperties(event_ndims=1)}

    def logits_of(self, tokens):
        lead = tf.broadcast_dynamic_shape(tf.shape(tokens)[:-1], self.batch_shape_tensor())
        tokens = tf.broadcast_to(tokens, tf.concat([lead, [self.length]], 0))
        logits = self._logits(self._rows(lead), tf.reshape(tokens, [-1, self.length]))
        return tf.reshape(logits, tf.concat([lead, tf.shape(logits)[1:]], 0))

    def _rows(self, lead: tf.Tensor) -> tf.Tensor:
        """Return the context with the leading axes `lead`, flattened: `[batch, context_size]`."""
        size = self.context.shape[-1]
        return tf.reshape(tf.broadcast_to(self.context, tf.concat([lead, [size]], 0)), [-1, size])

    def _logits(self, context: tf.Tensor, tokens: tf.Tensor) -> tf.Tensor:
        # Other tokens have no density, but a network's table may not take them.
        known = tf.clip_by_value(tokens, 0, self.num_tokens - 1)
        before = tf.pad(known[:, :-1], [[0, 0], [1, 0]])
        logits = tf.cast(self.network(context, before), self.parameter_dtype) / self.temperature
        return tf.ensure_shape(logits, [None, self.length, self.num_tokens])

    def choose(self, noise, pick):
        context = self._rows(tf.shape(noise)[:-1])
        rows = tf.reshape(noise, [-1, self.length])

        def next_token(place, tokens, has_ended):
            logits = tf.gather(self._logits(context, tokens), place, axis=1)
            token = pick(self.possible(logits), tf.gather(rows, place, axis=1))
            tokens = tf.where(tf.range(self.length) == place, token[:, tf.newaxis], tokens)
            return place + 1, tokens, has_ended | (token == 0)

        _, tokens, _ = tf.while_loop(
            lambda place, tokens, has_ended: (place < self.length) & ~tf.reduce_all(has_ended),
            next_token,
            (tf.constant(0), tf.zeros_like(rows, tf.int32), tf.zeros_like(rows[:, 0], tf.bool)),
        )
        return tf.reshape(tokens, tf.shape(noise))


@keras.saving.register_keras_serializable(package="tfp_vae")
class AutoregressiveCategorical(DistributionLayer):
    """Sequences of tokens, each distributed by a network that sees the tokens before it: for text
    and for molecules as strings.

    When to use: x is a sequence in which the next token depends on those before it.

    p(x|z) = prod_t p(x_t | x_1, ..., x_{t-1}, z). A token is a whole number; 0 ends a sequence and
    pads it to the length of the network. Padding counts nothing. A density costs one pass of the
    network, a draw one pass for each token; `greedy()` chooses the most probable token each time,
    and `copy(temperature=0.5)` draws more probable sequences.

    Reference: Bowman et al., 2016, Generating Sentences from a Continuous Space, arXiv:1511.06349.

    Args:
        network: a Keras model of inputs named "z", `[batch, context_size]`, and "tokens", int32
            `[batch, length]`, that returns logits `[batch, length, num_tokens]`. At each place it
            gets the token of the place before, and 0 at the first; it must not look at later ones.
            `tfp_vae.sequences` makes such networks.
        temperature: divides the logits.
        vocabulary: a `text.Vocabulary`, saved with the layer, by which draws can become texts; or
            None.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        z: `[..., context_size]`.

    Output:
        A distribution over int32 sequences, batch shape `[...]`, event shape `[length]`.

    Raises:
        TypeError: if `network` is not a Keras model.
        ValueError: if the network has other inputs or outputs, or looks ahead; if `temperature` is
            not above 0, or z has another size.

    Example:
    >>> from tfp_vae import sequences
    >>> layer = AutoregressiveCategorical(sequences.causal_conv_decoder(4, length=6, num_tokens=5))
    >>> p = layer(tf.zeros([3, 4]))
    >>> p.event_shape, p.log_prob([[2, 1, 0, 0, 0, 0]]).shape
    (TensorShape([6]), TensorShape([3]))
    """

    roles = ("likelihood",)
    has_own_network = True

    def __init__(
        self,
        network: keras.Model,
        temperature: float = 1.0,
        vocabulary: Vocabulary | None = None,
        convert_to_tensor_fn="sample",
        validate_args=False,
        **kwargs,
    ):
        expect_kind("network", network, keras.Model, "a Keras model of 'z' and 'tokens'")
        arguments = {
            "network": network,
            "temperature": as_positive(temperature, "temperature"),
            "vocabulary": vocabulary,
        }
        super().__init__(arguments, convert_to_tensor_fn, validate_args, **kwargs)
        self.context_size, self.length, self.num_tokens = _sizes(network)
        expect_tokens(vocabulary, self.num_tokens)
        _expect_causal(network, self.context_size, self.length, self.num_tokens)

    @classmethod
    def arguments_of_values(cls, largest: int) -> dict:
        """Return the number of tokens that the network needs."""
        return {"num_tokens": largest + 1}

    @classmethod
    def arguments_of_text(cls, vocabulary: Vocabulary) -> dict:
        """Return the vocabulary, and the number of tokens that the network needs."""
        return {"num_tokens": len(vocabulary), "vocabulary": vocabulary}

    def distribution(self, params):
        return self.new(
            params,
            later(_by_position(self.network)),
            self.length,
            self.num_tokens,
            self.temperature,
            never_drawn(self.vocabulary),
            self.validate_args,
        )

    @staticmethod
    def new(
        params,
        network: Callable,
        length: int,
        num_tokens: int,
        temperature=1.0,
        never: int | None = None,
        validate_args=False,
    ) -> tfd.Distribution:
        """Build the distribution from z, `[..., context_size]`."""
        return AutoregressiveSequence(
            params, network, length, num_tokens, temperature, never, validate_args
        )

    @staticmethod
    def params_size(network: keras.Model, name=None) -> int:
        """Return the number of values of z."""
        return _sizes(network)[0]


def expect_tokens(vocabulary: Vocabulary | None, num_tokens: int) -> None:
    """Raise a ValueError if a vocabulary has another number of tokens."""
    if vocabulary is not None and len(vocabulary) != num_tokens:
        raise ValueError(
            f"The vocabulary has {len(vocabulary)} tokens, padding and unknown ones included, but "
            f"the network's logits are for {num_tokens}. Make it with num_tokens=len(vocabulary)."
        )


def never_drawn(vocabulary: Vocabulary | None) -> int | None:
    """Return the token that no text has, if there is one."""
    has_it = vocabulary is None or vocabulary.takes_unknown
    return None if has_it else UNKNOWN_NUMBER


def _by_position(network: keras.Model) -> Callable:
    return lambda z, tokens: call_by_name(network, {"z": z, "tokens": tokens})


def _sizes(network: keras.Model) -> tuple[int, int, int]:
    """Return the sizes of the context, of a sequence, and of the vocabulary."""
    inputs = {name: tuple(tensor.shape[1:]) for name, tensor in named_inputs(network).items()}
    output = network.output_shape if inputs else None
    if (
        inputs.keys() != {"z", "tokens"}
        or [len(shape) for shape in inputs.values()] != [1, 1]
        or not isinstance(output, tuple)
        or len(output) != 3
        or output[1:2] != inputs["tokens"]
        or None in (*output[1:], *inputs["z"])
    ):
        raise ValueError(
            "The network must take keras.Inputs named 'z', [batch, context_size], and 'tokens', "
            "[batch, length], and return logits [batch, length, num_tokens]; received inputs "
            f"{inputs} and outputs of shape {output}."
        )
    return *inputs["z"], *inputs["tokens"], output[-1]


def _expect_causal(network: keras.Model, context_size: int, length: int, num_tokens: int) -> None:
    """Raise a ValueError if the logits of a place depend on tokens of later places.

    Random weights take the place of the network's own for a moment, as those may be 0 and hide it.
    """
    random = np.random.RandomState(SEED)
    tokens = np.tile(random.randint(num_tokens, size=length), [length, 1]).astype("int32")
    # Row i has other tokens from place i on.
    other = (tokens + random.randint(1, max(2, num_tokens), size=length)) % num_tokens
    later_places = np.triu(np.ones([length, length], bool))
    changed = np.where(later_places, other, tokens).astype("int32")
    z = random.normal(size=[1, context_size]).repeat(length, 0).astype("float32")
    call = _by_position(network)
    own = network.get_weights()
    with tf.init_scope():
        network.set_weights([_random_weight(random, weight) for weight in own])
        try:
            logits = [np.asarray(call(z, rows), "float64") for rows in (tokens, changed)]
        finally:
            network.set_weights(own)
    scale = 1e-4 * max(1.0, float(np.abs(logits[0]).max()))
    looks_ahead = ~later_places & (np.abs(logits[0] - logits[1]).max(-1) > scale)
    if looks_ahead.any():
        row, place = np.argwhere(looks_ahead)[0]
        raise ValueError(
            f"The network looks ahead: its logits at place {place} change with its tokens from "
            f"place {row} on. Use causal layers, such as GRU, Conv1D(padding='causal') or "
            "MultiHeadAttention with use_causal_mask=True."
        )


def _random_weight(random: np.random.RandomState, weight: np.ndarray) -> np.ndarray:
    """Return a weight of order one; vectors, among them variances, are above 0."""
    low = 0.1 if weight.ndim < 2 else -1.0
    size = np.sqrt(max(1, weight.shape[0])) if weight.ndim > 1 else 1.0
    return (random.uniform(low, 1.0, weight.shape) / size).astype(weight.dtype)


@values_of.register(Sequence)
def _(sequence: Sequence) -> Values:
    most = sequence.num_tokens - 1

    def include(x: np.ndarray) -> bool:
        if not (are_whole(x) and x.min() >= 0 and x.max() <= most):
            return False
        after_end = np.cumsum(x == 0, -1) - (x == 0) > 0
        return not (after_end & (x != 0)).any()

    return Values(
        "sequences of tokens from 0 to num_tokens - 1, with only zeros after the first 0",
        include,
        "Number the tokens from 1, pad with 0 at the end",
        ends=(0, most),
        num_counted=lambda x: np.minimum(np.cumprod(x != 0, -1).sum(-1) + 1, x.shape[-1]),
    )
