"""Layers whose weights are random, and the variable that their distributions are made of."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.arguments import from_config, to_config
from tfp_vae.layers.distribution_layer import DistributionLambda
from tfp_vae.layers.internals import take_non_tensors
from tfp_vae.layers.kl_divergence import Weighting, kl_divergence, mean_then_sum, weight_from_config
from tfp_vae.layers.normal import IndependentNormal
from tfp_vae.layers.shapes import as_event_shape, as_event_size
from tfp_vae.layers.tensor_like import TensorLike, as_tensor_like, expect_distribution

__all__ = [
    "BlockwiseInitializer",
    "DenseVariational",
    "VariableLayer",
    "posterior_mean_field",
    "prior_trainable",
]

tfd = tfp.distributions


@keras.saving.register_keras_serializable(package="tfp_vae")
class BlockwiseInitializer(keras.initializers.Initializer):
    """Several initializers side by side, each for some entries of the last axis.

    Use it for a variable that holds several parameters, such as a location and an unconstrained
    scale.

    Args:
        initializers: Keras initializers or their names.
        sizes: number of entries of each.
        validate_args: accepted for compatibility with tfp.layers; the sizes are always checked.

    Call arguments:
        shape: of the variable, `[..., sum(sizes)]`.
        dtype: of the variable; None is Keras's default.

    Raises:
        ValueError: if there are not as many sizes as initializers, or the last axis has another
            size than their sum.

    Example:
    >>> BlockwiseInitializer(["zeros", "ones"], sizes=[1, 2])((2, 3)).numpy()
    array([[0., 1., 1.], [0., 1., 1.]], dtype=float32)
    """

    def __init__(self, initializers: Sequence, sizes: Sequence[int], validate_args: bool = False):
        self.initializers = [keras.initializers.get(initializer) for initializer in initializers]
        self.sizes = [int(size) for size in sizes]
        self.validate_args = validate_args
        if len(self.initializers) != len(self.sizes):
            raise ValueError(
                f"Expected one size for each of the {len(self.initializers)} initializers, received "
                f"sizes={self.sizes}."
            )

    def __call__(self, shape, dtype=None):
        *rest, last = shape
        if last != sum(self.sizes):
            raise ValueError(
                f"The sizes {self.sizes} make {sum(self.sizes)}, the last axis of {tuple(shape)} "
                "differs."
            )
        blocks = zip(self.initializers, self.sizes, strict=True)
        return tf.concat(
            [initializer((*rest, size), dtype) for initializer, size in blocks], axis=-1
        )

    def get_config(self) -> dict:
        initializers = [
            keras.initializers.serialize(initializer) for initializer in self.initializers
        ]
        return {
            "initializers": initializers,
            "sizes": self.sizes,
            "validate_args": self.validate_args,
        }


@keras.saving.register_keras_serializable(package="tfp_vae")
class VariableLayer(keras.layers.Layer):
    """A trainable variable as a layer: it returns the variable and ignores its input.

    Use it before a distribution layer for a distribution with parameters but without input, such as
    a trained prior.

    Args:
        shape: of the variable, an int or a sequence of ints.
        dtype: of the variable; None is Keras's default.
        activation: function of the variable, or its name in Keras.
        initializer, regularizer, constraint: Keras's, for the variable.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: anything, or nothing. A `Sequential` model with this layer takes None or tensors.

    Output:
        `shape`: the variable, without a batch axis.

    Raises:
        ValueError: if `shape` is not a shape.

    Example:
    >>> prior = keras.Sequential([VariableLayer(4, initializer="ones"), IndependentNormal(2)])
    >>> prior(None).mean().numpy()
    array([1., 1.], dtype=float32)
    """

    def __init__(
        self,
        shape,
        dtype=None,
        activation=None,
        initializer="zeros",
        regularizer=None,
        constraint=None,
        **kwargs,
    ):
        super().__init__(dtype=dtype, autocast=False, **kwargs)
        take_non_tensors(self)
        self.shape = as_event_shape(shape)
        self.activation = keras.activations.get(activation)
        self.initializer = keras.initializers.get(initializer)
        self.regularizer = keras.regularizers.get(regularizer)
        self.constraint = keras.constraints.get(constraint)
        self.constant = self.add_weight(
            shape=self.shape,
            initializer=self.initializer,
            regularizer=self.regularizer,
            constraint=self.constraint,
            autocast=False,
            name="constant",
        )
        self.built = True

    def call(self, inputs=None):
        return self.activation(tf.convert_to_tensor(self.constant))

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "shape": self.shape,
            "activation": keras.activations.serialize(self.activation),
            "initializer": keras.initializers.serialize(self.initializer),
            "regularizer": keras.regularizers.serialize(self.regularizer),
            "constraint": keras.constraints.serialize(self.constraint),
        }


@keras.saving.register_keras_serializable(package="tfp_vae")
def posterior_mean_field(kernel_size: int, bias_size: int = 0, dtype=None) -> keras.Model:
    """Make a trainable normal distribution over all weights, independent of each other.

    They start at mean 0 and scale 1.

    >>> posterior_mean_field(2, 1)(None).stddev().numpy().round(4)
    array([1., 1., 1.], dtype=float32)
    """
    size = kernel_size + bias_size
    scale = keras.initializers.Constant(np.log(np.expm1(1.0)))
    initializer = BlockwiseInitializer(["zeros", scale], [size, size])
    return keras.Sequential(
        [
            VariableLayer(2 * size, dtype=dtype, initializer=initializer),
            IndependentNormal(size, dtype=dtype),
        ]
    )


@keras.saving.register_keras_serializable(package="tfp_vae")
def prior_trainable(kernel_size: int, bias_size: int = 0, dtype=None) -> keras.Model:
    """Make a normal distribution over all weights with trainable means, 0 at first, and scale 1.

    >>> prior_trainable(2, 1)(None).mean().numpy()
    array([0., 0., 0.], dtype=float32)
    """
    size = kernel_size + bias_size
    return keras.Sequential(
        [VariableLayer(size, dtype=dtype), DistributionLambda(_unit_normal, dtype=dtype)]
    )


@keras.saving.register_keras_serializable(package="tfp_vae")
def _unit_normal(loc) -> tfd.Distribution:
    return tfd.Independent(tfd.Normal(loc, tf.ones([], loc.dtype)), 1)


@keras.saving.register_keras_serializable(package="tfp_vae")
class DenseVariational(keras.layers.Layer):
    """A dense layer with random weights: it draws them in each call, and adds KL(q(w) || p(w)) to
    the model's loss.

    Use it for the uncertainty about a function that is learned from few data: calls differ by the
    spread of the posterior q(w). All examples of a call share one draw. The divergence is that of
    the weights, so it counts once per batch of any size: with Keras's mean over examples,
    `kl_weight=1 / num_examples` gives -ELBO per example.

    Reference: Blundell et al., 2015, Weight Uncertainty in Neural Networks, arXiv:1505.05424.

    Args:
        units: number of outputs.
        make_posterior_fn: function `(kernel_size, bias_size, dtype)` that gives q(w): a Keras model
            (or function) from the layer's input to a distribution over `kernel_size + bias_size`
            values. Weights of a Keras model are trained and saved. The default is a normal
            distribution for each weight.
        make_prior_fn: the same for p(w). The default is a normal distribution of scale 1 with
            trained means.
        kl_weight: factor of the divergence: see `weight` of `KLDivergenceRegularizer`.
        kl_use_exact: True for TFP's closed form, False for Monte Carlo at the weights that were
            drawn.
        activation: function of the output, or its name in Keras.
        use_bias: whether there is a bias.
        activity_regularizer: Keras's, for the output.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `[..., features]`.

    Output: `[..., units]`, in the dtype of the variables. Sample axes in the draws of q(w), if
        any, come first.

    Raises:
        ValueError: if the number of features is unknown, or q(w) has no reparameterized draws and
            `kl_use_exact` is False; when saving, if a function is not registered with Keras.
        TypeError: if a function does not lead to a distribution.

    Example:
    >>> layer = DenseVariational(1, kl_weight=0.01, kl_use_exact=True)
    >>> layer(tf.ones([5, 3])).shape, len(layer.trainable_weights), layer.losses[0].numpy().round(6)
    (TensorShape([5, 1]), 2, np.float32(0.0))
    """

    def __init__(
        self,
        units: int,
        make_posterior_fn: Callable = posterior_mean_field,
        make_prior_fn: Callable = prior_trainable,
        kl_weight=None,
        kl_use_exact: bool = False,
        activation=None,
        use_bias: bool = True,
        activity_regularizer=None,
        **kwargs,
    ):
        super().__init__(activity_regularizer=activity_regularizer, autocast=False, **kwargs)
        self.units = as_event_size(units)
        self.make_posterior_fn = make_posterior_fn
        self.make_prior_fn = make_prior_fn
        self.weighting = Weighting(kl_weight)
        self.kl_use_exact = kl_use_exact
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias

    def build(self, input_shape):
        num_features = input_shape[-1]
        if num_features is None:
            raise ValueError(
                f"DenseVariational needs a known number of features, received shape {input_shape}."
            )
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: num_features})
        sizes = (
            num_features * self.units,
            self.units if self.use_bias else 0,
            tf.as_dtype(self.variable_dtype),
        )
        with keras.name_scope("posterior"):
            self.posterior = _built(self.make_posterior_fn(*sizes), input_shape)
        with keras.name_scope("prior"):
            self.prior = _built(self.make_prior_fn(*sizes), input_shape)

    def call(self, inputs, training=None):
        inputs = tf.cast(inputs, self.variable_dtype)
        posterior = _as_distribution(self.posterior(inputs))
        prior = _as_distribution(self.prior(inputs))
        kl = kl_divergence(posterior, prior, self.kl_use_exact)
        kl = mean_then_sum(kl, num_summed_axes=posterior.batch_shape.rank)
        self.add_loss(self.weighting.apply(kl, training))
        weights = tf.cast(posterior, self.variable_dtype)
        kernel_size = inputs.shape[-1] * self.units
        kernel = weights[..., :kernel_size]
        bias = weights[..., tf.newaxis, kernel_size:]
        kernel = tf.reshape(
            kernel, tf.concat([tf.shape(kernel)[:-1], [inputs.shape[-1], self.units]], 0)
        )
        outputs = tf.matmul(inputs, kernel)
        return self.activation(outputs + bias if self.use_bias else outputs)

    def compute_output_shape(self, input_shape):
        """Return the shape for draws without sample axes."""
        return *input_shape[:-1], self.units

    def compute_output_spec(self, inputs, training=None):
        # By a trace, which knows the sample axes and the dtype.
        return keras.Operation.compute_output_spec(self, inputs, training=training)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "units": self.units,
            "make_posterior_fn": to_config(self.make_posterior_fn, "make_posterior_fn"),
            "make_prior_fn": to_config(self.make_prior_fn, "make_prior_fn"),
            "kl_weight": self.weighting.get_config()["weight"],
            "kl_use_exact": self.kl_use_exact,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
        }

    @classmethod
    def from_config(cls, config: dict):
        arguments = {
            name: from_config(value) for name, value in config.items() if name != "kl_weight"
        }
        return cls(**arguments, kl_weight=weight_from_config(config["kl_weight"]))


def _built(model, input_shape):
    """Build a Keras model for inputs of any batch size; a function stays as it is."""
    if isinstance(model, keras.layers.Layer) and not model.built:
        model.build((None, *input_shape[1:]))
    return model


def _as_distribution(given) -> TensorLike:
    message = (
        "Expected make_posterior_fn and make_prior_fn to give a function (or Keras model) of "
        f"the input that gives a tfd.Distribution, received {given!r} from it."
    )
    return as_tensor_like(expect_distribution(given, message))
