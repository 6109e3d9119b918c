"""Networks for sequences of tokens, `[batch, length]`: plain Keras models.

Encoders return parameters of a posterior; decoders return the logits that
`layers.AutoregressiveCategorical` takes. The token 0 is padding: encoders do not see it, so a longer
padding changes nothing.

>>> from tfp_vae import layers as tfpl
>>> features = gru_encoder(24, num_tokens=30, output_size=tfpl.MultivariateNormalDiag.params_size(16))
>>> encoder = keras.Sequential([features, tfpl.MultivariateNormalDiag(16)])
>>> network = gru_decoder(16, length=24, num_tokens=30)
>>> decoder = keras.Sequential([keras.Input((16,)), tfpl.AutoregressiveCategorical(network)])
>>> decoder.output_shape
(None, 24)
"""

from collections.abc import Sequence

import keras

EMBEDDING_SIZE = 64


def gru_encoder(length: int, num_tokens: int, output_size: int, *, units: int = 256) -> keras.Model:
    """Recurrent encoder in both directions: `[batch, length]` -> `[batch, output_size]`.

    Reference: Cho et al., 2014, arXiv:1406.1078.

    Args:
        length: number of places of a sequence.
        num_tokens: number of tokens, the padding included.
        output_size: number of outputs.
        units: of the recurrent layers, half of them in each direction.

    Example:
    >>> gru_encoder(24, 30, 32).output_shape
    (None, 32)
    """
    tokens = keras.Input((length,), dtype="int32", name="x")
    embedded = keras.layers.Embedding(num_tokens, EMBEDDING_SIZE, mask_zero=True)(tokens)
    features = keras.layers.Bidirectional(keras.layers.GRU(max(1, units // 2)))(embedded)
    return keras.Model(tokens, keras.layers.Dense(output_size)(features), name="gru_encoder")


def conv_encoder(
    length: int, num_tokens: int, output_size: int, *, units: int = 128, num_layers: int = 3
) -> keras.Model:
    """Convolutional encoder: `[batch, length]` -> `[batch, output_size]`.

    Each layer sees a token and its two neighbours; the features of all tokens are then averaged with
    weights that depend on them.

    Args:
        length: see `gru_encoder`.
        num_tokens: see `gru_encoder`.
        output_size: see `gru_encoder`.
        units: number of features of a token.
        num_layers: number of convolutions.

    Example:
    >>> conv_encoder(24, 30, 32).output_shape
    (None, 32)
    """
    tokens = keras.Input((length,), dtype="int32", name="x")
    mask = _mask(tokens)
    features = keras.layers.Dense(units)(_embedded(tokens, num_tokens)) * mask
    for _ in range(num_layers):
        window = [_shifted(features, -1), features, _shifted(features, 1)]
        features = (features + _dense_of(window, units)) * mask
    return keras.Model(
        tokens, keras.layers.Dense(output_size)(_pooled(features, mask)), name="conv_encoder"
    )


def attention_encoder(
    length: int,
    num_tokens: int,
    output_size: int,
    *,
    units: int = 128,
    num_layers: int = 2,
    num_heads: int = 4,
) -> keras.Model:
    """Transformer encoder with attention pooling: `[batch, length]` -> `[batch, output_size]`.

    Reference: Vaswani et al., 2017, arXiv:1706.03762.

    Args:
        length: see `gru_encoder`.
        num_tokens: see `gru_encoder`.
        output_size: see `gru_encoder`.
        units: number of features of a token, a multiple of `num_heads`.
        num_layers: number of transformer layers.
        num_heads: of each attention.

    Raises:
        ValueError: if `units` is not a multiple of `num_heads`.

    Example:
    >>> attention_encoder(24, 30, 32).output_shape
    (None, 32)
    """
    tokens = keras.Input((length,), dtype="int32", name="x")
    mask = _mask(tokens)
    seen = keras.ops.expand_dims(keras.ops.not_equal(tokens, 0), 1)
    embedded = _embedded(tokens, num_tokens)
    features = _transformer(embedded, units, num_layers, num_heads, attention_mask=seen)
    return keras.Model(
        tokens, keras.layers.Dense(output_size)(_pooled(features, mask)), name="attention_encoder"
    )


def gru_decoder(
    context_size: int,
    length: int,
    num_tokens: int,
    *,
    units: int = 256,
    word_dropout: float = 0.0,
) -> keras.Model:
    """Recurrent decoder of sequences for `layers.AutoregressiveCategorical`.

    When to use: sequences are short: it goes token by token, in training too.

    z, `[batch, context_size]`, goes to every place of the sequence.

    Args:
        context_size: number of values of z.
        length: number of places of a sequence.
        num_tokens: number of tokens, the padding included.
        units: of the recurrent layer.
        word_dropout: the share of tokens hidden from the network in training, at random. It has to
            learn them from z, which is a remedy against posterior collapse (Bowman et al., 2016,
            arXiv:1511.06349).

    Reference: Cho et al., 2014, arXiv:1406.1078.

    Example:
    >>> gru_decoder(16, 24, 30).output_shape
    (None, 24, 30)
    """
    inputs, features = _decoder_inputs(context_size, length, num_tokens, word_dropout)
    features = keras.layers.GRU(units, return_sequences=True)(features)
    return keras.Model(inputs, keras.layers.Dense(num_tokens)(features), name="gru_decoder")


def causal_conv_decoder(
    context_size: int,
    length: int,
    num_tokens: int,
    *,
    units: int = 128,
    dilations: Sequence[int] = (1, 2, 4, 8),
    word_dropout: float = 0.0,
) -> keras.Model:
    """Decoder of sequences by dilated causal convolutions, for `layers.AutoregressiveCategorical`.

    When to use: first; all tokens are trained at once.

    Each layer combines a place with one that lies the dilation before it, so the network sees 1 +
    sum(dilations) tokens back. It is written with dense layers: they run as fast in an XLA loop as
    outside, where convolutions do not.

    Reference: van den Oord et al., 2016, WaveNet, arXiv:1609.03499.

    Args:
        context_size: see `gru_decoder`.
        length: see `gru_decoder`.
        num_tokens: see `gru_decoder`.
        word_dropout: see `gru_decoder`.
        units: number of features of a place.
        dilations: of the layers.

    Example:
    >>> causal_conv_decoder(16, 24, 30).output_shape
    (None, 24, 30)
    """
    inputs, features = _decoder_inputs(context_size, length, num_tokens, word_dropout)
    features = keras.layers.Dense(units)(features)
    for dilation in dilations:
        features = features + _dense_of([features, _shifted(features, dilation)], units)
    return keras.Model(inputs, keras.layers.Dense(num_tokens)(features), name="causal_conv_decoder")


def transformer_decoder(
    context_size: int,
    length: int,
    num_tokens: int,
    *,
    units: int = 128,
    num_layers: int = 2,
    num_heads: int = 4,
    word_dropout: float = 0.0,
) -> keras.Model:
    """Decoder of sequences by a causal transformer, for `layers.AutoregressiveCategorical`.

    When to use: tokens depend on others far before them.

    Reference: Vaswani et al., 2017, arXiv:1706.03762.

    Args:
        context_size: see `gru_decoder`.
        length: see `gru_decoder`.
        num_tokens: see `gru_decoder`.
        word_dropout: see `gru_decoder`.
        units: number of features of a place, a multiple of `num_heads`.
        num_layers: number of transformer layers.
        num_heads: of each attention.

    Raises:
        ValueError: if `units` is not a multiple of `num_heads`.

    Example:
    >>> transformer_decoder(16, 24, 30).output_shape
    (None, 24, 30)
    """
    inputs, features = _decoder_inputs(context_size, length, num_tokens, word_dropout)
    features = _transformer(features, units, num_layers, num_heads, use_causal_mask=True)
    return keras.Model(inputs, keras.layers.Dense(num_tokens)(features), name="transformer_decoder")


@keras.saving.register_keras_serializable(package="tfp_vae")
class PositionEmbedding(keras.layers.Layer):
    """Add trained features of each place: `[batch, length, units]`, same shape out.

    Example:
    >>> PositionEmbedding()(keras.ops.zeros([2, 5, 3])).shape
    TensorShape([2, 5, 3])
    """

    def build(self, input_shape):
        self.embedding = self.add_weight(
            name="embedding", shape=tuple(input_shape[1:]), initializer="random_normal"
        )

    def call(self, features):
        return features + keras.ops.cast(self.embedding, features.dtype)


def _decoder_inputs(context_size: int, length: int, num_tokens: int, word_dropout: float):
    """Return the inputs of a decoder, and for each place the token before it beside z."""
    z = keras.Input((context_size,), name="z")
    tokens = keras.Input((length,), dtype="int32", name="tokens")
    embedded = _embedded(tokens, num_tokens)
    if word_dropout:
        embedded = keras.layers.Dropout(word_dropout, noise_shape=(None, length, 1))(embedded)
    features = keras.layers.Concatenate()([embedded, keras.layers.RepeatVector(length)(z)])
    return {"z": z, "tokens": tokens}, features


def _embedded(tokens, num_tokens: int):
    return keras.layers.Embedding(num_tokens, EMBEDDING_SIZE)(tokens)


def _mask(tokens):
    """Return 1 at each token and 0 at padding, `[batch, length, 1]`."""
    return keras.ops.cast(keras.ops.expand_dims(keras.ops.not_equal(tokens, 0), -1), "float32")


def _shifted(features, places: int):
    """Move features to later places, or to earlier ones if negative; zeros move in."""
    ends = (places, 0) if places > 0 else (0, -places)
    return keras.layers.Cropping1D(ends[::-1])(keras.layers.ZeroPadding1D(ends)(features))


def _dense_of(tensors: list, units: int):
    return keras.layers.Dense(units, "relu")(keras.layers.Concatenate()(tensors))


def _pooled(features, mask):
    """Return the mean of the features of all tokens, with weights that depend on them, and their
    largest values above 0, `[batch, 2 * units]`.
    """
    scores = keras.layers.Dense(1)(features) - 1e4 * (1.0 - mask)
    weights = keras.layers.Softmax(axis=1)(scores) * mask
    mean = keras.ops.sum(weights * features, 1)
    return keras.layers.Concatenate()([mean, keras.ops.relu(keras.ops.max(features * mask, 1))])


def _transformer(features, units: int, num_layers: int, num_heads: int, **masks):
    if units % num_heads:
        raise ValueError(
            f"units must be a multiple of num_heads, received {units} units and {num_heads} heads."
        )
    features = PositionEmbedding()(keras.layers.Dense(units)(features))
    for _ in range(num_layers):
        normal = keras.layers.LayerNormalization()(features)
        attention = keras.layers.MultiHeadAttention(num_heads, units // num_heads)
        features = features + attention(normal, normal, **masks)
        normal = keras.layers.LayerNormalization()(features)
        hidden = keras.layers.Dense(2 * units, "relu")(normal)
        features = features + keras.layers.Dense(units)(hidden)
    return keras.layers.LayerNormalization()(features)


__all__ = [
    "PositionEmbedding",
    "attention_encoder",
    "causal_conv_decoder",
    "conv_encoder",
    "gru_decoder",
    "gru_encoder",
    "transformer_decoder",
]
