"""Networks: plain Keras models from tensors to tensors. A distribution layer follows them.

>>> from tfp_vae import layers as tfpl
>>> features = mlp((28, 28, 1), tfpl.MultivariateNormalDiag.params_size(16))
>>> encoder = keras.Sequential([features, tfpl.MultivariateNormalDiag(16)])
>>> encoder.output_shape
(None, 16)
"""

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from tfp_vae.checks import as_count

# The end of the names of masks of parts of x.
OF_MASKS = "_mask"


def mask_name(name: str) -> str:
    """Return the name of the encoder input for the mask of x, or of a part of x.

    >>> mask_name("x"), mask_name("age")
    ('mask', 'age_mask')
    """
    return "mask" if name == "x" else f"{name}{OF_MASKS}"


def mlp(
    input_shape: Sequence[int],
    output_size: int,
    *,
    hidden_sizes: Sequence[int] = (500,),
    activation="relu",
    kernel_regularizer=None,
) -> keras.Sequential:
    """Fully connected network: `[batch, *input_shape]` -> `[batch, output_size]`.

    When to use: first; for vectors, tables and small images.

    Serves as encoder and decoder.

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
            *(
                keras.layers.Dense(size, activation, kernel_regularizer=kernel_regularizer)
                for size in hidden_sizes
            ),
            keras.layers.Dense(output_size, kernel_regularizer=kernel_regularizer),
        ],
        name="mlp",
    )


def conv_encoder(
    input_shape: Sequence[int],
    output_size: int,
    *,
    filters: Sequence[int] = (32, 64),
    activation="relu",
) -> keras.Sequential:
    """Small convolutional encoder: `[batch, height, width, channels]` -> `[batch, output_size]`.

    When to use: data are images, from about 28 x 28 on, if an epoch may take longer.

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
            *(
                keras.layers.Conv2D(n, 3, strides=2, padding="same", activation=activation)
                for n in filters
            ),
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
    """Small convolutional decoder.

    `[batch, latent_size]` -> `[batch, params_per_value * prod(output_shape)]`.

    The output is flat, with all values of the first parameter first, as the distribution layers
    expect.

    Args:
        latent_size: number of inputs.
        output_shape: (height, width, channels) of the image, height and width divisible by 2 for
            each stage.
        params_per_value: parameters of the likelihood for each value: 1 for Bernoulli, 2 for
            normal.
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


def from_inputs(inputs: Mapping[str, Sequence[int] | keras.Model], layers: Sequence) -> keras.Model:
    """Like `keras.Sequential`, but from several inputs by name, which are flattened and
    concatenated before the layers.

    An input named "condition" makes a VAE conditional; inputs named like the parts of x make an
    encoder for tables. The last layer may be a distribution layer, as in an encoder or decoder.

    Args:
        inputs: for each name, the shape of one input, or a Keras model that turns it into numbers:
            `one_hot` for labels, `standardized` for real values, a convolutional network for
            images. A model with several inputs, such as `observed`, brings its own names for them.
            Models are copied with their weights: Keras cannot load a file in which two models share
            a layer.
        layers: Keras layers, applied one after another.

    Raises:
        ValueError: if there are no inputs or layers.

    Example:
    >>> from tfp_vae import layers as tfpl
    >>> decoder = from_inputs(
    ...     {"z": (16,), "condition": one_hot(10)},
    ...     [keras.layers.Dense(64, "relu"), keras.layers.Dense(64), tfpl.IndependentBernoulli((8, 8, 1))])
    >>> decoder({"z": np.zeros([5, 16]), "condition": np.arange(5)}).shape
    TensorShape([5, 8, 8, 1])
    """
    if not inputs or not layers:
        raise ValueError(
            f"Expected inputs and layers, received inputs={inputs!r} and layers={layers!r}."
        )
    tensors: dict[str, keras.KerasTensor] = {}
    numbers = []
    for name, source in inputs.items():
        if isinstance(source, keras.Model):
            names = [name] if len(source.inputs) == 1 else [tensor.name for tensor in source.inputs]
            own = {
                key: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=key)
                for key, tensor in zip(names, source.inputs, strict=True)
            }
            copy = keras.models.clone_model(source)
            copy.name = f"{name}_{source.name}"  # two models of one kind would clash
            copy.set_weights(source.get_weights())
            given = [*own.values()]
            features = copy(
                given[0] if len(given) == 1 else keras.tree.pack_sequence_as(source.input, given)
            )
            tensors |= own
        else:
            features = tensors[name] = keras.Input(tuple(source), name=name)
        numbers.append(features if features.ndim == 2 else keras.layers.Flatten()(features))
    features = keras.layers.Concatenate()(numbers) if len(numbers) > 1 else numbers[0]
    for layer in layers:
        features = layer(features)
    return keras.Model(tensors if len(tensors) > 1 else tensors[name], features)


def one_hot(num_labels: int, shape: Sequence[int] = ()) -> keras.Sequential:
    """Network from labels 0, 1, ... to one-hot vectors.

    `[batch, *shape]` -> `[batch, *shape, num_labels]`.

    A VAE raises an error if a label of its condition is outside this range.

    Args:
        num_labels: how many different labels there are.
        shape: of the labels of one example: () for one label, (3,) for three.

    Raises:
        ValueError: if `num_labels` is not a whole number of at least 1.

    Example:
    >>> one_hot(3)(np.array([2, 0])).numpy()
    array([[0., 0., 1.],
           [1., 0., 0.]], dtype=float32)
    """
    # In a graph the layer casts labels to its compute dtype first: in half precision 2049 would
    # become 2048.
    encoding = keras.layers.CategoryEncoding(
        as_count(num_labels, "num_labels"), "one_hot", dtype="float32"
    )
    return keras.Sequential([keras.Input(tuple(shape), dtype="int32"), encoding])


def standardized(x: np.ndarray) -> keras.Sequential:
    """Network that brings numbers to mean 0 and standard deviation 1 over data.

    `[batch, *shape]`, same shape out.

    Args:
        x: the data to measure, `[num_examples, *shape]`; values that are constant over the examples
            are only shifted.

    Raises:
        ValueError: if there are no data, or not all are finite.

    Example:
    >>> standardized(np.array([[1.0], [3.0]]))(np.array([[5.0]])).numpy()
    array([[3.]], dtype=float32)
    """
    x = np.asarray(x, "float64")
    if not x.size or not np.isfinite(x).all():
        raise ValueError(f"Expected finite numbers to measure, received {x!r}.")
    mean = x.mean(0)
    variance = x.var(0)
    scaling = keras.layers.Normalization(
        axis=tuple(range(1, x.ndim)) or None,
        mean=mean.tolist(),
        variance=np.where(variance > 0.0, variance, 1.0).tolist(),
    )
    return keras.Sequential([keras.Input(x.shape[1:]), scaling])


def observed(x: np.ndarray, name: str = "x") -> keras.Model:
    """Network from what is observed of x to numbers that mean the same however much is missing.

    `[batch, *shape]` and a mask of that shape -> `[batch, *shape]`. Values are shifted by their
    means, so 0 stands for a missing value as well as for an average one. Observed values are scaled
    up to make up for the missing ones. An encoder that begins with this network can learn from
    examples with many missing values, and then be used on complete ones.

    Reference: the scaling is that of Srivastava et al., 2014, Dropout, JMLR 15.

    Args:
        x: the data to measure, `[num_examples, *shape]`; NaN where a value is missing.
        name: of the first input; the second is "mask", or, of a part of x such as "age",
            "age_mask".

    Raises:
        ValueError: if there are no data, or they hold infinite values.

    Example:
    >>> network = observed(np.array([[0.0, 2.0], [np.nan, 4.0]]))
    >>> network({"x": np.array([[5.0, 9.0]]), "mask": np.array([[1.0, 0.0]])}).numpy()
    array([[10.,  0.]], dtype=float32)
    """
    seen = ~np.isnan(x)
    if not np.size(x) or np.isinf(x).any():
        raise ValueError(f"Expected numbers to measure, finite or NaN, received {x!r}.")
    mean = np.sum(x, 0, dtype="float64", where=seen) / np.maximum(seen.sum(0), 1)
    axes = tuple(range(1, x.ndim))
    shift = keras.layers.Normalization(
        axes or None, mean=mean.tolist(), variance=np.ones_like(mean).tolist()
    )
    values = keras.Input(x.shape[1:], name=name)
    mask = keras.Input(x.shape[1:], name=mask_name(name))
    share = keras.ops.mean(mask, axes, keepdims=True) if axes else mask
    scaled = shift(values) * mask / keras.ops.maximum(share, 1.0 / mean.size)
    return keras.Model({name: values, mask.name: mask}, scaled)


def of_part(
    x: np.ndarray, name: str, num_labels: int | None = None, *, missing: bool = False
) -> keras.Model:
    """Network that turns a part of x into numbers of order one.

    Labels become one-hot vectors; other values are standardized: if some may be missing, each of a
    vector by its own standard deviation, those of larger shapes by that of all.

    Args:
        x: the data to measure, `[num_examples, *shape]`.
        name: of the part, such as "age".
        num_labels: how many different labels there are; None if the values are no labels.
        missing: whether values may be missing: the network then takes a mask too, "age_mask".

    Example:
    >>> network = of_part(np.array([1.0, np.nan, 5.0]), "age", missing=True)
    >>> network({"age": np.array([5.0, 0.0]), "age_mask": np.array([1.0, 0.0])}).numpy()
    array([1., 0.], dtype=float32)
    """
    if num_labels is None:
        if not missing:
            return standardized(x)
        network = observed(x, name)
        scale = np.ma.masked_invalid(x).std(0 if x.ndim == 2 else None)
        scale = np.ma.filled(scale, 0.0)  # where nothing is seen
        scaled = keras.layers.Rescaling((1.0 / np.where(scale > 0.0, scale, 1.0)).tolist())
        return keras.Model(network.input, scaled(network.output))
    vectors = one_hot(num_labels, x.shape[1:])
    if not missing:
        return vectors
    labels = keras.Input(x.shape[1:], dtype="int32", name=name)
    mask = keras.Input(x.shape[1:], name=mask_name(name))
    return keras.Model(
        {name: labels, mask.name: mask}, vectors(labels) * keras.ops.expand_dims(mask, -1)
    )


def _check_image(shape: Sequence[int], filters: Sequence[int]) -> tuple[int, int, int]:
    side = 2 ** len(filters)
    if len(shape) == 2:
        raise ValueError(
            f"Images of shape {tuple(shape)} have no channel axis. Add one: x[..., np.newaxis]."
        )
    if len(shape) != 3 or shape[0] % side or shape[1] % side:
        raise ValueError(
            f"A convolutional network of {len(filters)} stages needs images (height, width, "
            f"channels) with sides divisible by {side}, received {tuple(shape)}. Use networks.mlp, "
            "fewer stages, or padded images."
        )
    height, width, channels = shape
    return height, width, channels


__all__ = [
    "conv_decoder",
    "conv_encoder",
    "from_inputs",
    "mlp",
    "observed",
    "of_part",
    "one_hot",
    "standardized",
]
