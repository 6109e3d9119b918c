"""Masked autoregressive networks, and the flows made of them."""

import itertools
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.distribution_layer import DistributionLayer
from tfp_vae.layers.frozen import later
from tfp_vae.layers.shapes import as_event_shape, as_event_size
from tfp_vae.layers.tensor_like import expect_distribution, unwrap

__all__ = ["AutoregressiveNetwork", "AutoregressiveTransform"]

tfd = tfp.distributions
tfb = tfp.bijectors


@keras.saving.register_keras_serializable(package="tfp_vae")
class AutoregressiveNetwork(keras.layers.Layer):
    """A masked dense network (MADE): its outputs for each value of an event depend only on the
    values before it.

    Use it as `shift_and_log_scale_fn` of `tfb.MaskedAutoregressiveFlow`, or for the conditional
    distributions of `tfd.Autoregressive`. Masks act in every call, so no optimizer or loaded weight
    can undo them.

    Reference: Germain et al., 2015, MADE: Masked Autoencoder for Distribution Estimation,
        arXiv:1502.03509.

    Args:
        params: number of outputs for each value of an event, such as 2 for shift and log-scale.
        event_shape: number of values of an event, an int or a sequence of one int; None takes it
            from the first input.
        conditional: whether there is a second input, which can affect all outputs.
        conditional_event_shape: number of values of the second input, an int or a sequence of one
            int.
        conditional_input_layers: the layers that take the second input, "all_layers" or
            "first_layer".
        hidden_units: number of units of each hidden layer; None for no hidden layer.
        input_order: "left-to-right", "right-to-left", "random", or the position of each value, from
            1, as a sequence.
        hidden_degrees: "equal" or "random": how to choose the number of values that each hidden
            unit depends on.
        activation: function of the hidden layers, or its name in Keras.
        use_bias: whether the layers have a bias.
        kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
            kernel_constraint, bias_constraint: as in `keras.layers.Dense`, for each layer.
        validate_args: accepted for compatibility with TFP; shapes are always checked.
        seed: int, for random orders and degrees; None draws one, which is saved with the layer.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        x: `[..., event_size]`.
        conditional_input: `[..., conditional_size]`, passed by name, only if `conditional`.

    Output:
        `[..., event_size, params]`, in the dtype of the variables.

    Raises:
        ValueError: if an argument has a value not listed above, the conditional arguments do not
            fit together, or an input has another size.

    Example:
    >>> made = AutoregressiveNetwork(params=2, hidden_units=[10, 10], activation="relu")
    >>> flow = tfb.MaskedAutoregressiveFlow(made)(tfd.MultivariateNormalDiag(tf.zeros([3])))
    >>> flow.log_prob(tf.ones([5, 3])).shape, made(tf.ones([5, 3])).shape
    (TensorShape([5]), TensorShape([5, 3, 2]))
    """

    def __init__(
        self,
        params: int,
        event_shape=None,
        conditional: bool = False,
        conditional_event_shape=None,
        conditional_input_layers: str = "all_layers",
        hidden_units: Sequence[int] | None = None,
        input_order="left-to-right",
        hidden_degrees: str = "equal",
        activation=None,
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        validate_args: bool = False,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.params = as_event_size(params)
        self.event_shape = _as_vector_shape(event_shape, "event_shape")
        self.conditional = conditional
        self.conditional_event_shape = _as_vector_shape(
            conditional_event_shape, "conditional_event_shape"
        )
        self.conditional_input_layers = conditional_input_layers
        self.hidden_units = [as_event_size(units) for units in hidden_units or []]
        self.input_order = (
            input_order if isinstance(input_order, str) else [int(i) for i in input_order]
        )
        self.hidden_degrees = hidden_degrees
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.validate_args = validate_args
        self.seed = int(np.random.randint(2**31)) if seed is None else int(seed)
        self._check()

    def _check(self):
        if self.conditional and (self.event_shape is None or self.conditional_event_shape is None):
            raise ValueError("A conditional network needs event_shape and conditional_event_shape.")
        if not self.conditional and self.conditional_event_shape is not None:
            raise ValueError(
                "conditional_event_shape was given to a network with conditional=False."
            )
        _check_choice(
            self.conditional_input_layers, "conditional_input_layers", ("all_layers", "first_layer")
        )
        _check_choice(self.hidden_degrees, "hidden_degrees", ("equal", "random"))
        if isinstance(self.input_order, str):
            _check_choice(
                self.input_order, "input_order", ("left-to-right", "right-to-left", "random")
            )

    def build(self, input_shape):
        if self.event_shape is None:
            self.event_shape = _as_vector_shape(input_shape[-1], "event_shape")
        (event_size,) = self.event_shape
        if input_shape[-1] != event_size:
            raise ValueError(
                f"Expected inputs with {event_size} values, received shape {tuple(input_shape)}."
            )
        self.input_spec = keras.layers.InputSpec(axes={-1: event_size})
        self._masks = self._make_masks(event_size)
        self._layers_of_weights = [self._add_layer(k, mask) for k, mask in enumerate(self._masks)]

    def _make_masks(self, event_size: int) -> list[np.ndarray]:
        """Return a mask for each layer that tells which outputs may depend on which inputs.

        A hidden unit may depend on inputs whose degree is not above its own, an output only on
        units whose degree is below its own.
        """
        random = np.random.RandomState(self.seed)
        order = _input_degrees(self.input_order, event_size, random)
        degrees = [order]
        for units in self.hidden_units:
            degrees.append(
                _hidden_degrees(self.hidden_degrees, units, event_size, degrees[-1].min(), random)
            )
        masks = [before[:, np.newaxis] <= after for before, after in itertools.pairwise(degrees)]
        return [*masks, np.repeat(degrees[-1][:, np.newaxis] < order, self.params, axis=1)]

    def _add_layer(self, k: int, mask: np.ndarray) -> dict:
        # Masked entries start at 0, so regularizers do not see them.
        def masked(shape, dtype=None):
            return mask * keras.initializers.get(self.kernel_initializer)(shape, dtype)

        def add_kernel(name, shape, initializer):
            return self.add_weight(
                name=name,
                shape=shape,
                initializer=initializer,
                regularizer=self.kernel_regularizer,
                constraint=self.kernel_constraint,
                autocast=False,
            )

        weights = {"kernel": add_kernel(f"kernel_{k}", mask.shape, masked)}
        if self.use_bias:
            weights["bias"] = self.add_weight(
                name=f"bias_{k}",
                shape=mask.shape[1:],
                initializer=keras.initializers.get(self.bias_initializer),
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                autocast=False,
            )
        if self.conditional and (k == 0 or self.conditional_input_layers == "all_layers"):
            shape = (*(self.conditional_event_shape or ()), mask.shape[1])
            initializer = keras.initializers.get(self.kernel_initializer)
            weights["conditional"] = add_kernel(f"conditional_kernel_{k}", shape, initializer)
        return weights

    def scale_outputs(self, factor: float) -> None:
        """Multiply the kernels of the last layer by a factor.

        With a small factor, a flow starts near the identity.
        """
        for name in {"kernel", "conditional"} & self._layers_of_weights[-1].keys():
            kernel = self._layers_of_weights[-1][name]
            kernel.assign(factor * kernel)

    def call(self, x, conditional_input=None):
        outputs = tf.cast(x, self.variable_dtype)
        if self.conditional != (conditional_input is not None):
            raise ValueError(
                f"Expected conditional_input by name if conditional, which is {self.conditional} "
                "here."
            )
        for k, (weights, mask) in enumerate(zip(self._layers_of_weights, self._masks, strict=True)):
            outputs = _matmul(self.activation(outputs) if k else outputs, weights["kernel"] * mask)
            if "bias" in weights:
                outputs += weights["bias"]
            if "conditional" in weights:
                outputs += _matmul(
                    tf.cast(conditional_input, self.variable_dtype), weights["conditional"]
                )
        return keras.ops.reshape(
            outputs, (*keras.ops.shape(outputs)[:-1], *self.event_shape, self.params)
        )

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in _PLAIN},
            "activation": keras.activations.serialize(self.activation),
            **{name: keras.saving.serialize_keras_object(getattr(self, name)) for name in _OBJECTS},
        }


def _matmul(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Multiply along the last axis.

    XLA cannot compile the gradient of Keras's own product for three axes in a loop.
    """
    product = tf.matmul(tf.reshape(x, [-1, kernel.shape[0]]), kernel)
    product = tf.reshape(product, tf.concat([tf.shape(x)[:-1], kernel.shape[1:]], 0))
    return tf.ensure_shape(product, x.shape[:-1].concatenate(kernel.shape[1:]))


_PLAIN = (
    "params",
    "event_shape",
    "conditional",
    "conditional_event_shape",
    "conditional_input_layers",
    "hidden_units",
    "input_order",
    "hidden_degrees",
    "use_bias",
    "validate_args",
    "seed",
)
_OBJECTS = (
    "kernel_initializer",
    "bias_initializer",
    "kernel_regularizer",
    "bias_regularizer",
    "kernel_constraint",
    "bias_constraint",
)


@keras.saving.register_keras_serializable(package="tfp_vae")
class AutoregressiveTransform(DistributionLayer):
    """A masked autoregressive flow: it transforms the previous layer's distribution by an
    autoregressive network.

    Use it after a distribution over vectors; use several for more flexible densities. A density
    costs one pass of the network, a draw one pass for each value of the event.

    Reference: Papamakarios et al., 2017, Masked Autoregressive Flow for Density Estimation,
        arXiv:1705.07057.

    Args:
        made: an `AutoregressiveNetwork` with `params=2`, shift and log-scale.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        distribution: the output of a distribution layer, batch shape `[...]`, event shape
            `[event_size]`.

    Output: `tfd.TransformedDistribution`, of the same shapes. It is not a composite tensor, so a
        `tf.function` cannot return it as a distribution.

    Raises:
        TypeError: if `made` is not a layer of Keras 3, or the input is not a distribution.
        ValueError: if `made.params` is not 2.

    Example:
    >>> from tfp_vae.layers import MultivariateNormalDiag
    >>> made = AutoregressiveNetwork(params=2, hidden_units=[10], activation="relu")
    >>> flow = keras.Sequential([keras.Input((4,)), MultivariateNormalDiag(2), AutoregressiveTransform(made)])
    >>> p = flow(tf.zeros([3, 4]))
    >>> p.log_prob(tf.ones([3, 2])).shape, tf.convert_to_tensor(p).shape
    (TensorShape([3]), TensorShape([3, 2]))
    """

    roles = ()

    def __init__(
        self, made: keras.layers.Layer, convert_to_tensor_fn="sample", validate_args=False, **kwargs
    ):
        super().__init__({"made": made}, convert_to_tensor_fn, validate_args, **kwargs)
        if not isinstance(made, keras.layers.Layer):
            raise TypeError(
                "Expected tfp_vae.layers.AutoregressiveNetwork, a layer of Keras 3, received "
                f"{made!r}."
            )
        if made.params != 2:
            raise ValueError(
                f"made must have params=2, shift and log-scale, received params={made.params}."
            )

    def build(self, input_shape):
        if not self.made.built:
            self.made.build(input_shape)

    @staticmethod
    def new(distribution, made: keras.layers.Layer, validate_args=False) -> tfd.Distribution:
        """Build the transformed distribution."""
        message = f"AutoregressiveTransform belongs after a distribution layer, received {distribution!r}."
        base = unwrap(expect_distribution(distribution, message))
        flow = tfb.MaskedAutoregressiveFlow(later(made), validate_args=validate_args)
        return tfd.TransformedDistribution(base, flow, validate_args=validate_args)


def _as_vector_shape(shape, argument: str) -> tuple[int] | None:
    shape = None if shape is None else as_event_shape(shape)
    if shape is not None and len(shape) != 1:
        raise ValueError(
            f"{argument} must have one axis, received {shape}. Reshape the event to a vector."
        )
    return shape


def _check_choice(value, argument: str, choices: tuple):
    if value not in choices:
        raise ValueError(f"{argument} must be one of {choices}, received {value!r}.")


def _input_degrees(input_order, event_size: int, random: np.random.RandomState) -> np.ndarray:
    """Return the position of each value, from 1; a value depends on values at lower positions."""
    positions = np.arange(1, event_size + 1)
    named = {
        "left-to-right": positions,
        "right-to-left": positions[::-1],
        "random": random.permutation(positions),
    }
    degrees = np.array(named[input_order] if isinstance(input_order, str) else input_order)
    if not np.array_equal(np.sort(degrees), positions):
        raise ValueError(
            f"input_order must hold each of 1 ... {event_size} once, received {input_order!r}."
        )
    return degrees


def _hidden_degrees(
    method: str, units: int, event_size: int, lowest: int, random: np.random.RandomState
) -> np.ndarray:
    """Return the highest position that each hidden unit may depend on, from `lowest` up to
    `event_size - 1`.
    """
    lowest = min(lowest, event_size - 1)
    if method == "random":
        return random.randint(lowest, event_size, size=units)
    even = np.ceil(np.arange(1, units + 1) * (event_size - 1) / (units + 1)).astype(int)
    return np.maximum(lowest, even)
