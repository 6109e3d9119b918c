"""Weight normalization: a kernel's length and direction as weights of their own."""

import keras
import tensorflow as tf

from tfp_vae.layers.internals import in_stateless_scope

__all__ = ["WeightNorm"]


@keras.saving.register_keras_serializable(package="tfp_vae")
class WeightNorm(keras.layers.Wrapper):
    """A layer whose kernel is `g * v / |v|`, with a length g for each output.

    Use it around dense and convolutional layers of deep networks, which then train faster. With
    `data_init`, the first batch sets g and the bias so that the outputs have mean 0 and variance 1.

    Reference: Salimans & Kingma, 2016, Weight Normalization, arXiv:1602.07868.

    Args:
        layer: a Keras layer with a `kernel`, such as `Dense`, `Conv2D` or `Conv2DTranspose`.
        data_init: whether the first batch sets the initial values; otherwise g is the length of the
            kernel's initial value.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: those of the layer.

    Output: that of the layer.

    Raises:
        ValueError: if `layer` is no Keras layer, or has no kernel.

    Example:
    >>> layer = WeightNorm(keras.layers.Dense(2))
    >>> y = layer(tf.constant([[1., 2.], [3., 4.], [5., 9.]]))
    >>> tf.reduce_mean(y, 0).numpy().round(4) + 0., tf.math.reduce_variance(y, 0).numpy().round(3)
    (array([0., 0.], dtype=float32), array([1., 1.], dtype=float32))
    """

    def __init__(self, layer: keras.layers.Layer, data_init: bool = True, **kwargs):
        if not isinstance(layer, keras.layers.Layer):
            raise ValueError(f"WeightNorm needs a Keras layer to wrap, received {layer!r}.")
        super().__init__(layer, **kwargs)
        self.data_init = data_init

    @property
    def filter_axis(self) -> int:
        """The axis of the kernel that holds the outputs."""
        return -2 if isinstance(self.layer, keras.layers.Conv2DTranspose) else -1

    def build(self, input_shape=None):
        if not self.layer.built:
            self.layer.build(input_shape)
        self.v = getattr(self.layer, "kernel", None)
        if self.v is None:
            raise ValueError(f"WeightNorm needs a layer with a kernel, received {self.layer!r}.")
        rank = len(self.v.shape)
        self.kernel_norm_axes = [axis for axis in range(rank) if axis != rank + self.filter_axis]
        self.g = self.add_weight(
            name="g", shape=(self.v.shape[self.filter_axis],), initializer="ones", autocast=False
        )
        self.bias = getattr(self.layer, "bias", None)
        self.initialized = self.add_weight(
            name="initialized", shape=(), initializer="zeros", dtype="bool", trainable=False
        )

    def call(self, inputs):
        if not in_stateless_scope():  # where nothing can be assigned
            tf.cond(
                tf.convert_to_tensor(self.initialized), tf.no_op, lambda: self._initialize(inputs)
            )
        return self._layer_with({id(self.v): self._kernel()}, inputs)

    def _kernel(self) -> tf.Tensor:
        """Return the layer's kernel, `g * v / |v|`."""
        direction = tf.nn.l2_normalize(tf.convert_to_tensor(self.v), self.kernel_norm_axes)
        return direction * self._along_filters(self.g)

    def _along_filters(self, values) -> tf.Tensor:
        values = tf.convert_to_tensor(values)
        return values if self.filter_axis == -1 else values[:, tf.newaxis]

    def _layer_with(self, values: dict[int, tf.Tensor], inputs):
        """Call the layer with other values for some of its weights, by their identities."""
        mapping = [
            (weight, values.get(id(weight), tf.convert_to_tensor(weight)))
            for weight in self.layer.weights
        ]
        with keras.StatelessScope(state_mapping=mapping):
            return self.layer(inputs)

    def _initialize(self, inputs) -> tf.Operation:
        """Set g, and the bias, from the first batch."""
        if self.data_init:
            outputs = self._linear(inputs)
            mean, variance = tf.nn.moments(outputs, [*range(outputs.shape.rank - 1)])
            scale = tf.math.rsqrt(variance + 1e-10)
            self.g.assign(self.g * scale)
            if self.bias is not None:
                self.bias.assign(-mean * scale)
        else:
            squares = tf.square(tf.convert_to_tensor(self.v))
            self.g.assign(tf.sqrt(tf.reduce_sum(squares, self.kernel_norm_axes)))
        self.initialized.assign(True)
        return tf.no_op()

    def _linear(self, inputs) -> tf.Tensor:
        """Return what the layer makes of inputs without its bias and activation."""
        values = {id(self.v): self._kernel()}
        if self.bias is not None:
            values[id(self.bias)] = tf.zeros_like(tf.convert_to_tensor(self.bias))
        activation, self.layer.activation = self.layer.activation, None
        try:
            return self._layer_with(values, inputs)
        finally:
            self.layer.activation = activation

    def get_config(self) -> dict:
        return {**super().get_config(), "data_init": self.data_init}
