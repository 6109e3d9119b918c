"""Coupling flows: one half of the values is transformed, depending on the other half."""

import itertools
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.checks import as_count
from tfp_vae.layers.flows import NEAR_IDENTITY, Flow, bounded
from tfp_vae.layers.shapes import as_positive, softplus_above

__all__ = ["NeuralSpline", "RealNVP"]

tfb = tfp.bijectors

# Lower bounds of a spline's slopes, and of the share of its interval that a bin takes.
MIN_SLOPE = 1e-3
MIN_BIN = 1e-3


@keras.saving.register_keras_serializable(package="tfp_vae")
class RealNVP(Flow):
    """A flow of affine couplings: densities and draws take one pass; each transform is less
    flexible than an autoregressive one.

    When to use: draws and densities must both be fast.

    Reference: Dinh et al., 2017, Density estimation using Real NVP, arXiv:1605.08803.

    Args:
        event_size: number of values of a vector, at least 2.
        num_transforms, hidden_units, context_size, activation, seed: see `Flow`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        z: `[..., event_size]`.
        context: `[..., context_size]`.

    Output:
        `[..., event_size]`.

    Raises:
        ValueError: if `event_size` is 1; see also `Flow`.

    Example:
    >>> bijector = RealNVP(3, num_transforms=4).bijector()
    >>> bijector.inverse(bijector.forward([1., 2., 3.])).numpy().round(4)
    array([1., 2., 3.], dtype=float32)
    """

    def make_network(self, position: np.ndarray) -> keras.layers.Layer:
        return _Conditioner(self, params=2)

    def transform(self, network: Callable, position: np.ndarray, context) -> tfb.Bijector:
        def shift_and_scale(x, num_outputs):
            shift, log_scale = tf.unstack(network(x, context), num=2, axis=-1)
            return tfb.Chain([tfb.Shift(shift), tfb.Scale(log_scale=bounded(log_scale))])

        return _coupling(shift_and_scale, position)


@keras.saving.register_keras_serializable(package="tfp_vae")
class NeuralSpline(Flow):
    """A flow of couplings by monotonic rational-quadratic splines: densities and draws take one
    pass, and the density may have several modes.

    When to use: codes have several modes, and compilation may take longer.

    Each transform is a graph of thousands of operations, which take seconds to trace and to
    compile.

    Reference: Durkan et al., 2019, Neural Spline Flows, arXiv:1906.04032.

    Args:
        event_size: number of values of a vector, at least 2.
        num_transforms, hidden_units, context_size: see `Flow`.
        num_bins: number of pieces of a spline.
        bound: values outside [-bound, bound] stay as they are.
        activation, seed: see `Flow`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        z: `[..., event_size]`.
        context: `[..., context_size]`.

    Output:
        `[..., event_size]`.

    Raises:
        ValueError: if `event_size` is 1, `num_bins` is not between 2 and 500, or `bound` is not
            positive; see also `Flow`.

    Example:
    >>> bijector = NeuralSpline(2, num_bins=4).bijector()
    >>> bijector.inverse(bijector.forward([0.5, -1.])).numpy().round(3)
    array([ 0.5, -1. ], dtype=float32)
    """

    def __init__(
        self,
        event_size: int,
        num_transforms: int = 2,
        hidden_units: Sequence[int] = (64,),
        context_size: int = 0,
        *,
        num_bins: int = 8,
        bound: float = 6.0,
        **kwargs,
    ):
        if not 2 <= as_count(num_bins, "num_bins") <= 0.5 / MIN_BIN:
            raise ValueError(
                f"num_bins must lie between 2 and {0.5 / MIN_BIN:.0f}, received {num_bins}."
            )
        more = {"num_bins": num_bins, "bound": as_positive(bound, "bound")}
        super().__init__(
            event_size, num_transforms, hidden_units, context_size, more=more, **kwargs
        )

    def make_network(self, position: np.ndarray) -> keras.layers.Layer:
        return _Conditioner(self, params=3 * self.num_bins - 1)

    def transform(self, network: Callable, position: np.ndarray, context) -> tfb.Bijector:
        def spline(x, num_outputs):
            widths, heights, slopes = tf.split(
                network(x, context), [self.num_bins, self.num_bins, -1], axis=-1
            )
            slope_of_one = float(np.log(np.expm1(1.0 - MIN_SLOPE)))
            return tfb.RationalQuadraticSpline(
                self._bins(widths),
                self._bins(heights),
                softplus_above(MIN_SLOPE, slopes + slope_of_one),
                -self.bound,
            )

        return _coupling(spline, position)

    def _bins(self, unconstrained: tf.Tensor) -> tf.Tensor:
        return (
            2.0
            * self.bound
            * (MIN_BIN + (1.0 - self.num_bins * MIN_BIN) * tf.nn.softmax(unconstrained))
        )


def _coupling(bijector_fn, position: np.ndarray) -> tfb.Bijector:
    """Return a bijector of the second half of the values, by position, that depends on the first
    half.
    """
    order = tfb.Permute(np.argsort(position).astype("int32"))
    return tfb.Chain(
        [tfb.Invert(order), tfb.RealNVP(len(position) // 2, bijector_fn=bijector_fn), order]
    )


class _Conditioner(keras.layers.Layer):
    """A dense network from one half of the values, and the context, to the parameters of the other
    half.
    """

    def __init__(self, flow: Flow, params: int):
        # The default name would have a leading underscore.
        super().__init__(autocast=False, dtype=flow.variable_dtype, name="conditioner")
        if flow.event_size < 2:
            raise ValueError(
                f"A coupling transforms one half of a vector by the other: {type(flow).__name__} "
                "needs an event_size of at least 2, received 1. Use MaskedAutoregressiveFlow or "
                "InverseAutoregressiveFlow."
            )
        num_inputs = flow.event_size // 2
        self.output_shape_of_one = (flow.event_size - num_inputs, params)
        self.activation = keras.activations.get(flow.activation)
        sizes = [num_inputs, *flow.hidden_units, int(np.prod(self.output_shape_of_one))]
        small = keras.initializers.VarianceScaling(NEAR_IDENTITY**2, "fan_avg", "uniform")
        initializers = ["glorot_uniform"] * len(flow.hidden_units) + [small]
        shapes = list(itertools.pairwise(sizes))
        self.kernels = [
            self._add("kernel", *pair) for pair in zip(shapes, initializers, strict=True)
        ]
        self.biases = [self._add("bias", [size], "zeros") for size in sizes[1:]]
        self.context_kernel = None
        if flow.context_size:
            self.context_kernel = self._add(
                "context_kernel", (flow.context_size, sizes[1]), initializers[0]
            )
        self.built = True

    def _add(self, name: str, shape, initializer) -> keras.Variable:
        return self.add_weight(name=name, shape=shape, initializer=initializer, autocast=False)

    def call(self, x, context=None):
        outputs = keras.ops.matmul(x, self.kernels[0]) + self.biases[0]
        if context is not None:
            outputs += keras.ops.matmul(context, self.context_kernel)
        for kernel, bias in zip(self.kernels[1:], self.biases[1:], strict=True):
            outputs = keras.ops.matmul(self.activation(outputs), kernel) + bias
        return keras.ops.reshape(
            outputs, (*keras.ops.shape(outputs)[:-1], *self.output_shape_of_one)
        )
