"""Networks: plain Keras models, tensor in, tensor out. The distribution layer comes after them.

>>> from tfp_vae import layers as tfpl
>>> features = mlp((28, 28, 1), tfpl.MultivariateNormalDiag.params_size(16))
>>> encoder = keras.Sequential([features, tfpl.MultivariateNormalDiag(16)])
>>> encoder.output_shape
(None, 16)
"""

from collections.abc import Sequence

import keras
import numpy as np


def mlp(
    input_shape: Sequence[int],
    output_size: int,
    *,
    hidden_sizes: Sequence[int] = (500,),
    activation="relu",
    kernel_regularizer=None,
) -> keras.Sequential:
    """Fully connected network: `[batch, *input_shape]` -> `[batch, output_size]`; serves as encoder and decoder.

    Args:
        input_shape: shape of one input, without the batch.
        output_size: number of outputs: the `params_size` of the distribution layer that follows.
        hidden_sizes: width of each hidden layer.
        activation: of the hidden layers.
        kernel_regularizer: of each layer, such as `keras.regularizers.L2(1e-5)`.

    Example:
    >>> mlp((8, 8), 20, hidden_sizes=(64, 32)).output_shape
    (None, 20)
    """
    return keras.Sequential(
        [
            keras.Input(tuple(input_shape)),
            keras.layers.Flatten(),
            *(keras.layers.Dense(size, activation, kernel_regularizer=kernel_regularizer) for size in hidden_sizes),
            keras.layers.Dense(output_size, kernel_regularizer=kernel_regularizer),
        ],
        name="mlp",
    )


def conv_encoder(
    input_shape: Sequence[int], output_size: int, *, filters: Sequence[int] = (32, 64), activation="relu"
) -> keras.Sequential:
    """Small convolutional encoder: `[batch, height, width, channels]` -> `[batch, output_size]`.

    Each stage halves height and width.

    Args:
        input_shape: (height, width, channels), height and width divisible by 2 for each stage.
        output_size: number of outputs.
        filters: channels of each stage.
        activation: of the convolutions.

    Raises:
        ValueError: if the input is not an image whose sides can be halved once a stage.

    Example:
    >>> conv_encoder((28, 28, 1), 32).output_shape
    (None, 32)
    """
    _check_image(input_shape, filters)
    return keras.Sequential(
        [
            keras.Input(tuple(input_shape)),
            *(keras.layers.Conv2D(n, 3, strides=2, padding="same", activation=activation) for n in filters),
            keras.layers.Flatten(),
            keras.layers.Dense(output_size),
        ],
        name="conv_encoder",
    )


def conv_decoder(
    latent_size: int,
    output_shape: Sequence[int],
    params_per_value: int = 1,
    *,
    filters=(64, 32),
    activation="relu",
    kernel_regularizer=None,
) -> keras.Sequential:
    """Small convolutional decoder: `[batch, latent_size]` -> `[batch, params_per_value * prod(output_shape)]`.

    The output is flat, all values of the first parameter first, as the distribution layers take it.

    Args:
        latent_size: number of inputs.
        output_shape: (height, width, channels) of the image, height and width divisible by 2 for each stage.
        params_per_value: parameters of the likelihood for each value: 1 for Bernoulli, 2 for normal.
        filters: channels of each stage; each stage doubles height and width.
        activation: of the transposed convolutions.
        kernel_regularizer: of each layer, such as `keras.regularizers.L2(1e-5)`.

    Raises:
        ValueError: if the output is not an image whose sides can be halved once a stage.

    Example:
    >>> conv_decoder(16, (28, 28, 1), 2).output_shape
    (None, 1568)
    """
    height, width, channels = _check_image(output_shape, filters)
    start = (height // 2 ** len(filters), width // 2 ** len(filters), filters[0])
    regularized = {"kernel_regularizer": kernel_regularizer}
    doubling = {"strides": 2, "padding": "same", "activation": activation, **regularized}
    return keras.Sequential(
        [
            keras.Input((latent_size,)),
            keras.layers.Dense(int(np.prod(start)), activation, **regularized),
            keras.layers.Reshape(start),
            *(keras.layers.Conv2DTranspose(n, 3, **doubling) for n in filters),
            keras.layers.Conv2D(params_per_value * channels, 3, padding="same", **regularized),
            keras.layers.Reshape((height, width, params_per_value, channels)),
            keras.layers.Permute((3, 1, 2, 4)),
            keras.layers.Flatten(),
        ],
        name="conv_decoder",
    )


def _check_image(shape: Sequence[int], filters: Sequence[int]) -> tuple[int, int, int]:
    side = 2 ** len(filters)
    if len(shape) == 2:
        raise ValueError(f"Images of shape {tuple(shape)} have no channel axis. Add one: x[..., np.newaxis].")
    if len(shape) != 3 or shape[0] % side or shape[1] % side:
        raise ValueError(
            f"A convolutional network of {len(filters)} stages needs images (height, width, channels) with sides "
            f"divisible by {side}, received {tuple(shape)}. Use networks.mlp, fewer stages, or padded images."
        )
    height, width, channels = shape
    return height, width, channels


__all__ = ["conv_decoder", "conv_encoder", "mlp"]
