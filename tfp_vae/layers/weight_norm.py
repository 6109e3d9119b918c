"""Weight normalization: a kernel's length and direction as weights of their own."""

import keras
import tensorflow as tf

from tfp_vae import replicas
from tfp_vae.layers.internals import in_stateless_scope, without_autocast

__all__ = ["WeightNorm"]

TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
# A smaller variance of outputs is that of a constant: it says nothing about their scale.
LEAST_VARIANCE = 1e-8


@keras.saving.register_keras_serializable(package="tfp_vae")
class WeightNorm(keras.layers.Wrapper):
    """A layer whose kernel is `g * v / |v|`, with a length g for each output.

    Use it around dense and convolutional layers of deep networks, which then train faster. With
    `data_init`, the first batch sets g and the bias so that the outputs have mean 0 and variance 1.

    Reference: Salimans & Kingma, 2016, Weight Normalization, arXiv:1602.07868.

    Args:
        layer: a Keras layer with a `kernel`, such as `Dense`, `Conv2D` or `Conv2DTranspose`.
        data_init: whether the first batch sets the initial values; until then, and without it, g is
            the length of the kernel. Outputs that are constant in this batch stay as they are.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: those of the layer.

    Output: that of the layer.

    Raises:
        ValueError: if `layer` is no Keras layer, has no kernel, or has another number of biases than
            of lengths.

    Example:
    >>> layer = WeightNorm(keras.layers.Dense(2))
    >>> y = layer(tf.constant([[1., 2.], [3., 4.], [5., 9.]]))
    >>> tf.reduce_mean(y, 0).numpy().round(4) + 0., tf.math.reduce_variance(y, 0).numpy().round(3)
    (array([0., 0.], dtype=float32), array([1., 1.], dtype=float32))
    """

    def __init__(self, layer: keras.layers.Layer, data_init: bool = True, **kwargs):
        if not isinstance(layer, keras.layers.Layer):
            raise ValueError(f"WeightNorm needs a Keras layer to wrap, received {layer!r}.")
        kwargs.setdefault("dtype", layer.dtype_policy)
        super().__init__(layer, **kwargs)
        self.data_init = data_init

    def build(self, input_shape=None):
        if not self.layer.built:
            self.layer.build(input_shape)
        self.v = getattr(self.layer, "kernel", None)
        if self.v is None:
            raise ValueError(f"WeightNorm needs a layer with a kernel, received {self.layer!r}.")
        rank = len(self.v.shape)
        filter_axis = rank - (2 if isinstance(self.layer, TRANSPOSED) else 1)
        self.kernel_norm_axes = [axis for axis in range(rank) if axis != filter_axis]
        size = self.v.shape[filter_axis]
        self.g = self.add_weight(
            name="g",
            shape=(size,),
            initializer=lambda shape, dtype: tf.reshape(self._length(), shape),
            autocast=False,
        )
        self.bias = getattr(self.layer, "bias", None)
        if self.bias is not None and tuple(self.bias.shape) != (size,):
            raise ValueError(
                f"WeightNorm needs a bias for each of the {size} lengths of the kernel, received one "
                f"of shape {tuple(self.bias.shape)} in {self.layer!r}. Pass use_bias=False to it."
            )
        self.initialized = self.add_weight(
            name="initialized", shape=(), initializer="zeros", dtype="bool", trainable=False
        )

    def call(self, inputs):
        with without_autocast():
            # Where nothing can be assigned, or each replica would assign what its own rows say.
            if not in_stateless_scope() and replicas.several() is None:
                initialized = tf.convert_to_tensor(self.initialized)
                tf.cond(initialized, tf.no_op, lambda: self._initialize(inputs))
            direction = self.v / self._length()
            broadcast = [
                1 if axis in self.kernel_norm_axes else -1 for axis in range(direction.ndim)
            ]
            kernel = direction * tf.reshape(tf.convert_to_tensor(self.g), broadcast)
        outputs, mapping, scope = self._layer_with({id(self.v): kernel}, inputs)
        for loss in scope.losses:
            self.add_loss(loss)
        for weight, value in mapping:
            now = scope.get_current_value(weight)
            if now is not value:  # the state of a seed, for example
                weight.assign(now)
        return outputs

    def _length(self) -> tf.Tensor:
        """Return the length of the kernel for each output, in the rank of the kernel."""
        squares = tf.square(tf.convert_to_tensor(self.v))
        return tf.sqrt(tf.reduce_sum(squares, self.kernel_norm_axes, keepdims=True))

    def _layer_with(self, values: dict[int, tf.Tensor], inputs):
        """Call the layer with other values for some of its weights, by their identities.

        Returns: its outputs, the weights with their values before, and the scope of the call.
        """
        with without_autocast():
            mapping = [
                (w, values.get(id(w), tf.convert_to_tensor(w))) for w in self.layer.variables
            ]
        scope = keras.StatelessScope(state_mapping=mapping, collect_losses=True)
        mapping = [(weight, scope.get_current_value(weight)) for weight, _ in mapping]
        with scope:
            return self.layer(inputs), mapping, scope

    def _initialize(self, inputs) -> tf.Operation:
        """Set g, and the bias, from the first batch that is not empty."""
        if not self.data_init:
            self.g.assign(tf.reshape(self._length(), [-1]))
            self.initialized.assign(True)
            return tf.no_op()
        outputs = tf.cast(self._linear(inputs), self.variable_dtype)
        is_first = getattr(self.layer, "data_format", None) == "channels_first"
        channel = 1 if is_first else outputs.shape.rank - 1
        if outputs.shape[channel] != self.g.shape[0]:
            raise ValueError(
                f"WeightNorm finds {outputs.shape[channel]} outputs for {self.g.shape[0]} lengths of "
                f"the kernel of {self.layer!r}. Pass data_init=False."
            )
        axes = [axis for axis in range(outputs.shape.rank) if axis != channel]
        mean, variance = tf.nn.moments(outputs, axes)
        varies = variance > LEAST_VARIANCE
        scale = tf.where(varies, tf.math.rsqrt(variance + 1e-10), tf.convert_to_tensor(self.g))
        self.g.assign(scale)
        if self.bias is not None:
            self.bias.assign(tf.where(varies, -mean * scale, tf.convert_to_tensor(self.bias)))
        self.initialized.assign(tf.size(outputs) > 0)
        return tf.no_op()

    def _linear(self, inputs) -> tf.Tensor:
        """Return what the layer makes of inputs with the kernel `v / |v|`, without bias and
        activation.
        """
        values = {id(self.v): self.v / self._length()}
        if self.bias is not None:
            values[id(self.bias)] = tf.zeros_like(tf.convert_to_tensor(self.bias))
        activation = getattr(self.layer, "activation", None)
        if activation is None:
            return self._layer_with(values, inputs)[0]
        self.layer.activation = None
        try:
            return self._layer_with(values, inputs)[0]
        finally:
            self.layer.activation = activation

    def get_config(self) -> dict:
        return {**super().get_config(), "data_init": self.data_init}
