"""Dense and convolutional layers with a random kernel and bias, for each estimator of the gradient.

A layer is a linear map (dense, or a convolution) and an estimator: a function of the layer and its
inputs. To add one of either, write a subclass of `RandomWeights`, or a function beside `flipout`;
then a class that joins the two, with a row in tests/test_random_weights.py.
"""

import abc
from collections.abc import Callable

import keras
import ml_dtypes
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.checks import as_count
from tfp_vae.layers.arguments import as_function, rebuild, store, stored
from tfp_vae.layers.mean_field import default_mean_field_normal_fn, default_multivariate_normal_fn
from tfp_vae.layers.tensor_like import DRAW_SHAPED, is_a

__all__ = ["KLPerExample", "RandomWeights"]

tfd = tfp.distributions

SAMPLE = DRAW_SHAPED["sample"]
MEAN_FIELD = default_mean_field_normal_fn()
POINT = default_mean_field_normal_fn(is_singular=True)


@keras.saving.register_keras_serializable(package="tfp_vae")
def kl_to_prior(posterior, prior, draw) -> tf.Tensor:
    """Return KL(posterior || prior) in TFP's closed form, in nats: the default of the layers below.

    The draw is not needed.

    >>> kl_to_prior(tfd.Normal(1., 1.), tfd.Normal(0., 1.), None).numpy()
    np.float32(0.5)
    """
    return tfd.kl_divergence(posterior, prior)


@keras.saving.register_keras_serializable(package="tfp_vae")
class KLPerExample:
    """The divergence of weights divided by the number of examples: what a loss that is a mean over a
    batch needs to be -ELBO per example.

    Use it as `kernel_divergence_fn` and `bias_divergence_fn`; unlike a lambda, it is saved with the
    model.

    Args:
        num_examples: number of examples of the whole training data.

    Call arguments:
        posterior, prior: the distributions.
        draw: ignored.

    Output: `KL(posterior || prior) / num_examples` in TFP's closed form, in nats per example.

    Example:
    >>> KLPerExample(10)(tfd.Normal(1., 1.), tfd.Normal(0., 1.)).numpy()
    np.float32(0.05)
    """

    def __init__(self, num_examples: int):
        self.num_examples = as_count(num_examples, "num_examples")

    def __call__(self, posterior, prior, draw=None) -> tf.Tensor:
        return kl_to_prior(posterior, prior, draw) / self.num_examples

    def get_config(self) -> dict:
        return {"num_examples": self.num_examples}

    @classmethod
    def from_config(cls, config: dict):
        return cls(**config)


def reparameterization(layer: "RandomWeights", inputs: tf.Tensor) -> tf.Tensor:
    """Draw one kernel for all examples."""
    layer.kernel_posterior_tensor = layer.draw(
        layer.kernel_posterior, layer.kernel_posterior_tensor_fn
    )
    return layer.linear(inputs, layer.kernel_posterior_tensor)


def local_reparameterization(layer: "RandomWeights", inputs: tf.Tensor) -> tf.Tensor:
    """Draw the outputs instead of the kernel, independently for each example."""
    kernel = layer.normal_kernel()
    # Squares are too large or too small for float16.
    inputs = tf.cast(inputs, layer.variable_dtype)
    variance = layer.linear(tf.square(inputs), tf.square(kernel.stddev()))
    # An example of zeros has no variance: the root's slope must stay finite there.
    scale = tf.sqrt(variance + ml_dtypes.finfo(variance.dtype.as_numpy_dtype).tiny)
    layer.kernel_posterior_affine = tfd.Normal(layer.linear(inputs, kernel.mean()), scale)
    layer.kernel_posterior_affine_tensor = layer.draw(
        layer.kernel_posterior_affine, layer.kernel_posterior_tensor_fn
    )
    return layer.kernel_posterior_affine_tensor


def flipout(layer: "RandomWeights", inputs: tf.Tensor) -> tf.Tensor:
    """Draw one deviation from the kernel's mean, and flip its signs for each example."""
    kernel = layer.normal_kernel()
    loc = kernel.mean()
    layer.kernel_posterior_affine = tfd.Normal(tf.zeros_like(loc), kernel.scale)
    layer.kernel_posterior_affine_tensor = layer.draw(
        layer.kernel_posterior_affine, layer.kernel_posterior_tensor_fn
    )
    mean = layer.linear(inputs, loc)
    deviation = layer.linear(inputs * layer.signs(inputs), layer.kernel_posterior_affine_tensor)
    return mean + deviation * layer.signs(mean)


class RandomWeights(keras.layers.Layer, abc.ABC):
    """Base of the layers with a random kernel and bias.

    The divergences of kernel and bias from their priors, in nats, are added to the model's loss as
    they are: once for all examples, so that the loss of a mean over a batch needs them divided by
    the number of examples of the whole data: `kernel_divergence_fn=KLPerExample(num_examples)`.

    Args:
        activation: function of the output, or its name in Keras.
        kernel_posterior_fn, bias_posterior_fn: function `(dtype, shape, name, trainable,
            add_variable_fn)` that returns the posterior: it makes its variables by
            `add_variable_fn(name=, shape=, initializer=, dtype=, trainable=, ...)`. By default, the
            kernel has an independent normal distribution for each entry, the bias is a point. None
            for the bias: there is no bias.
        kernel_posterior_tensor_fn, bias_posterior_tensor_fn: function of the posterior that returns
            a tensor; a draw by default.
        kernel_prior_fn, bias_prior_fn: the same for the prior. By default, the kernel has a
            standard normal one, the bias has none. None: there is no divergence.
        kernel_divergence_fn, bias_divergence_fn: function `(posterior, prior, draw)` that returns
            the divergence, a scalar; by default TFP's closed form of KL. The draw is None where the
            kernel itself is not drawn.
        seed: int, for equal draws in each run.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    # What `call` leaves: tensors of the last call, of its graph if it was traced.
    kernel_posterior_tensor: tf.Tensor | None = None
    kernel_posterior_affine: tfd.Distribution | None = None
    kernel_posterior_affine_tensor: tf.Tensor | None = None
    bias_posterior_tensor: tf.Tensor | None = None
    # The estimator: one of the functions above.
    estimate: Callable
    # Number of axes between the batch and the channels, over which a kernel slides.
    rank = 0

    def __init__(
        self,
        activation=None,
        kernel_posterior_fn: Callable = MEAN_FIELD,
        kernel_posterior_tensor_fn: Callable = SAMPLE,
        kernel_prior_fn: Callable | None = default_multivariate_normal_fn,
        kernel_divergence_fn: Callable | None = kl_to_prior,
        bias_posterior_fn: Callable | None = POINT,
        bias_posterior_tensor_fn: Callable = SAMPLE,
        bias_prior_fn: Callable | None = None,
        bias_divergence_fn: Callable | None = kl_to_prior,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        functions = {
            "kernel_posterior_fn": kernel_posterior_fn,
            "kernel_posterior_tensor_fn": as_function(kernel_posterior_tensor_fn),
            "kernel_prior_fn": kernel_prior_fn,
            "kernel_divergence_fn": kernel_divergence_fn,
            "bias_posterior_fn": bias_posterior_fn,
            "bias_posterior_tensor_fn": as_function(bias_posterior_tensor_fn),
            "bias_prior_fn": bias_prior_fn,
            "bias_divergence_fn": bias_divergence_fn,
        }
        store(self, functions)
        self.activation = keras.activations.get(activation)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    @property
    @abc.abstractmethod
    def num_outputs(self) -> int:
        """Number of units or filters."""

    @abc.abstractmethod
    def kernel_shape(self, num_channels: int) -> tuple[int, ...]:
        """Return the shape of the kernel for inputs with this number of channels."""

    @abc.abstractmethod
    def linear(self, inputs, kernel):
        """Apply a kernel to inputs whose last axis holds the channels."""

    def build(self, input_shape):
        num_channels = input_shape[self.channel_axis]
        if num_channels is None:
            raise ValueError(
                f"{type(self).__name__} needs a known number of features, received shape "
                f"{tuple(input_shape)}."
            )
        self.input_spec = keras.layers.InputSpec(
            ndim=self.input_spec.ndim,
            min_ndim=self.input_spec.min_ndim,
            axes={self.channel_axis: num_channels},
        )
        kernel, bias = self.kernel_shape(num_channels), (self.num_outputs,)
        self.kernel_posterior = self._make("kernel_posterior", kernel)
        self.kernel_prior = self._make("kernel_prior", kernel)
        self.bias_posterior = self._make("bias_posterior", bias)
        self.bias_prior = self._make("bias_prior", bias)

    def _make(self, name: str, shape: tuple[int, ...]) -> tfd.Distribution | None:
        make = getattr(self, f"{name}_fn")
        if make is None:
            return None
        dtype = tf.as_dtype(self.variable_dtype)
        # What a distribution holds must outlive the graph in which the layer is first called.
        with tf.init_scope():
            # Keras itself leaves out the weights of a frozen layer, which may be trained again.
            return make(dtype, shape, name, True, self.add_variable)

    def add_variable(self, name, shape, dtype=None, initializer=None, **kwargs):
        """Add a weight, and return a tensor-like object that reads it each time it is used."""
        weight = self.add_weight(
            name=name, shape=shape, dtype=dtype, initializer=initializer, autocast=False, **kwargs
        )
        # It would convert the weight itself at once, so the function holds it.
        return tfp.util.DeferredTensor(0.0, lambda _: tf.convert_to_tensor(weight), dtype, shape)

    def call(self, inputs):
        inputs = self.channels_last(tf.cast(inputs, self.compute_dtype))
        outputs = type(self).estimate(self, inputs)
        if self.bias_posterior is not None:
            self.bias_posterior_tensor = self.draw(
                self.bias_posterior, self.bias_posterior_tensor_fn
            )
            outputs += tf.cast(self.bias_posterior_tensor, outputs.dtype)
        self._add_divergence(
            self.kernel_divergence_fn,
            self.kernel_posterior,
            self.kernel_prior,
            self.kernel_posterior_tensor,
        )
        self._add_divergence(
            self.bias_divergence_fn,
            self.bias_posterior,
            self.bias_prior,
            self.bias_posterior_tensor,
        )
        outputs = tf.cast(outputs, self.compute_dtype)
        return self.activation(self.channels_back(outputs))

    def _add_divergence(self, divergence_fn, posterior, prior, draw) -> None:
        if divergence_fn is not None and posterior is not None and prior is not None:
            self.add_loss(divergence_fn(posterior, prior, draw))

    def draw(self, distribution: tfd.Distribution, tensor_fn: Callable) -> tf.Tensor:
        """Return the tensor that stands for a distribution: a draw with the layer's own seed, unless
        another function was given.
        """
        if tensor_fn is SAMPLE:
            return distribution.sample(seed=self._next_seed())
        return tensor_fn(distribution)

    def signs(self, values: tf.Tensor) -> tf.Tensor:
        """Draw -1 or 1 for each example and channel of values, equal along the axes between."""
        sizes = tf.unstack(tf.shape(values))
        sizes[1 : 1 + self.rank] = [1] * self.rank
        return tfp.random.rademacher(sizes, values.dtype, seed=self._next_seed())

    def _next_seed(self) -> tf.Tensor:
        return tf.cast(self.seed_generator.next(), tf.int32)

    def normal_kernel(self) -> tfd.Distribution:
        """Return the normal distribution of each entry of the kernel."""
        posterior = self.kernel_posterior
        if not (
            is_a(posterior, tfd.Independent) and isinstance(posterior.distribution, tfd.Normal)
        ):
            raise TypeError(
                f"{type(self).__name__} needs a kernel_posterior_fn that returns "
                f"tfd.Independent(tfd.Normal(...)), received {posterior!r} from it."
            )
        return posterior.distribution

    @property
    def channel_axis(self) -> int:
        """The axis of the features or channels."""
        return -1

    def channels_last(self, values):
        """Move the channels to the last axis."""
        return values

    def channels_back(self, values):
        """Move the channels back from the last axis."""
        return values

    def compute_output_shape(self, input_shape):
        num_channels = input_shape[self.channel_axis]
        inputs = keras.KerasTensor(input_shape, self.compute_dtype)
        kernel = keras.KerasTensor(self.kernel_shape(num_channels), self.compute_dtype)
        return self.channels_back(self.linear(self.channels_last(inputs), kernel)).shape

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            **stored(self),
            "activation": keras.activations.serialize(self.activation),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict):
        return rebuild(cls, config)
