"""Normalizing flows: layers whose weights define a bijector, and a posterior made with one."""

import abc
import functools
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.checks import as_count, as_seed, expect_kind, whole_number
from tfp_vae.layers.arguments import rebuild, store, stored
from tfp_vae.layers.autoregressive import AutoregressiveNetwork
from tfp_vae.layers.distribution_layer import DistributionLayer
from tfp_vae.layers.frozen import later
from tfp_vae.layers.normal import MultivariateNormalDiag
from tfp_vae.layers.shapes import as_event_size, split_params

__all__ = ["Flow", "FlowPosterior", "InverseAutoregressiveFlow", "MaskedAutoregressiveFlow"]

tfd = tfp.distributions
tfb = tfp.bijectors

# Factor of the initial weights of each network's last layer: a flow starts near the identity.
NEAR_IDENTITY = 0.01
# The largest log-scale of one affine transform.
MAX_LOG_SCALE = 3.0


class Flow(keras.layers.Layer, abc.ABC):
    """Base of all flows: a chain of transforms of a vector, each with a network of its own.

    To add one: subclass, pass the arguments to this constructor, implement
    `make_network(position)`, which makes the weights of one transform, and `transform(network,
    position, context)`, which makes its bijector; decorate with
    `keras.saving.register_keras_serializable`, name it in `layers.__all__`, and give it a row in
    `tests/test_flows.py`.
    The position of each value tells a network which values depend on which: the first transform
    goes from left to right, the second from right to left, the third and fourth by a random order
    and its reverse, and so on.

    Args:
        event_size: number of values of a vector.
        num_transforms: length of the chain.
        hidden_units: numbers of units of the hidden layers of each network.
        context_size: number of values of the context, 0 for none.
        activation: of the hidden layers, a function or its name in Keras.
        seed: int, for the random orders.
        more: further arguments of a subclass, by name.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        z: `[..., event_size]`.
        context: `[..., context_size]`, a second input of the transforms; its leading axes
            broadcast against those of z.

    Output:
        The transformed z, `[..., event_size]`: `bijector(context).forward(z)`.

    Raises:
        ValueError: if an argument has a value not allowed above, or the context is missing, not
            expected, or of another size.
    """

    def __init__(
        self,
        event_size: int,
        num_transforms: int = 2,
        hidden_units: Sequence[int] = (64,),
        context_size: int = 0,
        *,
        activation="relu",
        seed: int = 0,
        more: dict | None = None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        arguments = {
            "event_size": as_event_size(event_size),
            "num_transforms": as_count(num_transforms, "num_transforms"),
            "hidden_units": tuple(
                as_count(units, "each of hidden_units") for units in hidden_units
            ),
            "context_size": whole_number(
                context_size, "context_size must be a whole number of at least 0", 0
            ),
            "activation": keras.activations.serialize(keras.activations.get(activation)),
            "seed": as_seed(seed),
        }
        store(self, {**arguments, **(more or {})})
        self.positions = _positions(self.event_size, self.num_transforms, self.seed)
        self.networks = [self.make_network(position) for position in self.positions]
        self.built = True

    @abc.abstractmethod
    def make_network(self, position: np.ndarray) -> keras.layers.Layer:
        """Make and build the network of one transform; value i has `position[i]`, from 0."""

    @abc.abstractmethod
    def transform(self, network: Callable, position: np.ndarray, context) -> tfb.Bijector:
        """Make the bijector of one transform."""

    def bijector(self, context=None) -> tfb.Bijector:
        """Make the bijector from the base to the target distribution, anew in each call.

        The context has shape `[..., context_size]`.
        """
        if (context is None) != (self.context_size == 0):
            raise ValueError(
                f"This flow has context_size={self.context_size}, received context {context!r}."
            )
        spread = []
        if context is not None:
            context = tf.cast(context, self.variable_dtype)
            if context.shape[-1] != self.context_size:
                raise ValueError(
                    f"Expected a context of {self.context_size} values, received shape "
                    f"{context.shape}."
                )
            # This broadcasts z to the batch shape of the context, in both directions.
            spread = [tfb.Shift(tf.zeros_like(context[..., :1]))]
        pairs = zip(map(later, self.networks), self.positions, strict=True)
        transforms = [self.transform(network, position, context) for network, position in pairs]
        return tfb.Chain([*spread, *reversed(transforms), *spread])

    def call(self, z, context=None):
        return self.bijector(context).forward(tf.cast(z, self.variable_dtype))

    def get_config(self) -> dict:
        return {**super().get_config(), **stored(self)}

    @classmethod
    def from_config(cls, config: dict):
        return rebuild(cls, config)


def _positions(event_size: int, number: int, seed: int) -> list[np.ndarray]:
    """Return the position of each value in each transform.

    They are pairs of an order and its reverse; the first order is left to right.
    """
    random = np.random.RandomState(seed)
    firsts = [np.arange(event_size), *(random.permutation(event_size) for _ in range(1, number))]
    return [position for first in firsts for position in (first, event_size - 1 - first)][:number]


# Autoregressive flows: each value is scaled and shifted, depending on those before it


@keras.saving.register_keras_serializable(package="tfp_vae")
class MaskedAutoregressiveFlow(Flow):
    """A masked autoregressive flow, for priors: a density takes one pass, a draw takes one pass for
    each value of a vector.

    When to use: a normal prior is too simple: it is the flow of a prior, where densities must
    be fast, and generation may take longer.

    Reference: Papamakarios et al., 2017, Masked Autoregressive Flow for Density Estimation,
        arXiv:1705.07057.

    Args:
        event_size, num_transforms, hidden_units, context_size, activation, seed: see `Flow`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        z: `[..., event_size]`.
        context: `[..., context_size]`.

    Output:
        `[..., event_size]`.

    Raises:
        ValueError: see `Flow`.

    Example:
    >>> p = tfd.TransformedDistribution(tfd.MultivariateNormalDiag([0., 0.]), MaskedAutoregressiveFlow(2).bijector())
    >>> p.log_prob(tf.zeros([3, 2])).shape
    TensorShape([3])
    """

    def make_network(self, position: np.ndarray) -> keras.layers.Layer:
        return _made(self, position)

    def transform(self, network: Callable, position: np.ndarray, context) -> tfb.Bijector:
        return _Autoregression(functools.partial(_shift_and_log_scale, network, context))


@keras.saving.register_keras_serializable(package="tfp_vae")
class InverseAutoregressiveFlow(Flow):
    """An inverse autoregressive flow, for posteriors: a draw and its density take one pass.

    When to use: a normal posterior is too simple: it is the flow of a posterior, where draws
    must be fast.

    The density of any other value takes one pass for each value of a vector. An objective that
    stops the gradient at the draws, such as `IWAE(estimator="dreg")`, needs such densities: it is
    right, but slow.

    Reference: Kingma et al., 2016, Improving Variational Inference with Inverse Autoregressive
        Flow, arXiv:1606.04934.

    Args:
        event_size, num_transforms, hidden_units, context_size, activation, seed: see `Flow`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        z: `[..., event_size]`.
        context: `[..., context_size]`.

    Output:
        `[..., event_size]`.

    Raises:
        ValueError: see `Flow`.

    Example:
    >>> InverseAutoregressiveFlow(2, context_size=3)(tf.zeros([5, 4, 2]), tf.ones([4, 3])).shape
    TensorShape([5, 4, 2])
    """

    def make_network(self, position: np.ndarray) -> keras.layers.Layer:
        return _made(self, position)

    def transform(self, network: Callable, position: np.ndarray, context) -> tfb.Bijector:
        return tfb.Invert(
            _Autoregression(functools.partial(_shift_and_log_scale, network, context))
        )


class _Autoregression(tfb.MaskedAutoregressiveFlow):
    """TFP's bijector, with a loop that XLA can differentiate: in a batch of unknown size, TFP does
    not know the length of its own loop.
    """

    def _forward(self, x, **kwargs):
        def step(y):
            return (self._bijector_fn(y, **kwargs).forward(x),)

        (y,) = tf.while_loop(
            lambda y: True, step, (tf.zeros_like(x),), maximum_iterations=x.shape[-1]
        )
        return y


def _made(flow: Flow, position: np.ndarray) -> AutoregressiveNetwork:
    made = AutoregressiveNetwork(
        2,
        flow.event_size,
        conditional=flow.context_size > 0,
        conditional_event_shape=flow.context_size or None,
        hidden_units=flow.hidden_units,
        input_order=[int(i) + 1 for i in position],
        activation=flow.activation,
        seed=flow.seed,
        dtype=flow.variable_dtype,
    )
    made.build((None, flow.event_size))
    made.scale_outputs(NEAR_IDENTITY)
    return made


def _shift_and_log_scale(network: Callable, context, z) -> tuple[tf.Tensor, tf.Tensor]:
    outputs = network(z) if context is None else network(z, conditional_input=context)
    shift, log_scale = tf.unstack(outputs, num=2, axis=-1)
    return shift, bounded(log_scale)


def bounded(log_scale: tf.Tensor) -> tf.Tensor:
    """Keep the log-scale of an affine transform between -3 and 3, in a smooth way."""
    return MAX_LOG_SCALE * tf.tanh(log_scale / MAX_LOG_SCALE)


# The posterior


@keras.saving.register_keras_serializable(package="tfp_vae")
class FlowPosterior(DistributionLayer):
    """A normal distribution with diagonal covariance, pushed through a flow: a posterior that need
    not be normal.

    The encoder gives the normal distribution and the flow's context, if it has one, so that each
    example has its own transform. The posterior starts near the normal distribution. `flow` should
    draw fast, as `InverseAutoregressiveFlow`, `RealNVP` and `NeuralSpline` do.

    Reference: Rezende & Mohamed, 2015, Variational Inference with Normalizing Flows,
    arXiv:1505.05770; Kingma et al., 2016, arXiv:1606.04934.

    Args:
        flow: a `Flow`, trained and saved with this layer.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., 2 * event_size + context_size]`, location, unconstrained scale, then the
            flow's context.

    Output: `tfd.TransformedDistribution`, batch shape `[...]`, event shape `[event_size]`. It is
        not a composite tensor, so a `tf.function` cannot return it as a distribution. It has no
        mean in closed form; `sampling.point` gives the mean of draws.

    Raises:
        TypeError: if `flow` is not a `Flow`.
        ValueError: if `params` has another size, or `flow` another dtype.

    Example:
    >>> flow = InverseAutoregressiveFlow(2, context_size=3)
    >>> q = FlowPosterior(flow)(tf.zeros([5, FlowPosterior.params_size(flow)]))
    >>> q.log_prob(q.sample(4, seed=(0, 1))).shape
    TensorShape([4, 5])
    """

    roles = ()
    covers_space = True

    def __init__(self, flow: Flow, convert_to_tensor_fn="sample", validate_args=False, **kwargs):
        flow = expect_kind(
            "flow", flow, Flow, "a flow such as tfp_vae.layers.InverseAutoregressiveFlow(size)"
        )
        super().__init__({"flow": flow}, convert_to_tensor_fn, validate_args, **kwargs)
        if flow.variable_dtype != self.variable_dtype:
            raise ValueError(
                f"flow is in {flow.variable_dtype}, this layer in {self.variable_dtype}. Pass the "
                "same dtype to both."
            )

    @staticmethod
    def new(params, flow: Flow, validate_args=False) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(flow)]`."""
        normal, context = split_params(params, [[2 * flow.event_size], [flow.context_size]])
        return tfd.TransformedDistribution(
            MultivariateNormalDiag.new(normal, flow.event_size, validate_args=validate_args),
            flow.bijector(context if flow.context_size else None),
            validate_args=validate_args,
        )

    @staticmethod
    def params_size(flow: Flow) -> int:
        """Return the number of parameters of one distribution."""
        return 2 * flow.event_size + flow.context_size
