"""From a flat vector of parameters to any class of tfd, through TFP's own constraining bijectors."""

import inspect
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers import light
from tfp_vae.layers.arguments import as_distribution_class
from tfp_vae.layers.distribution_layer import DistributionLayer
from tfp_vae.layers.shapes import as_event_shape, softplus_above, split_params

__all__ = ["Independent"]

tfd = tfp.distributions
tfb = tfp.bijectors


@keras.saving.register_keras_serializable(package="tfp_vae")
class Independent(DistributionLayer):
    """Any class of tfd with predicted parameters: independent distributions, one for each value of
    an event.

    Use it for a distribution that has no layer of its own. TFP defines how an unconstrained number
    becomes a valid value of each parameter, such as by softplus for a scale. A class over vectors
    or matrices takes the last axes of `event_shape` as its own: `Independent(tfd.Dirichlet, 4)` is
    one Dirichlet distribution of four categories.

    Args:
        distribution_class: a class of tfd, such as `tfd.Gamma`.
        event_shape: shape of one example, an int or a tuple; `()` for a scalar.
        predicted: names of the parameters to predict; None takes all that TFP prefers, without the
            constants.
        constants: values of other parameters by name, numbers or nested lists, such as `{"df":
            3.0}`.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., params_size]`, all values of the first predicted parameter, then all of the
            second ..., in the order of the class's own arguments. Unconstrained.

    Output: `distribution_class`, inside `tfd.Independent` if the event has more axes than
        that of the class; batch shape `[...]`.

    Raises:
        TypeError: if `distribution_class` is not a class of distributions.
        ValueError: if TFP cannot constrain a predicted parameter, or `params` has another size;
            when saving, if the class is not one of tfd.

    Example:
    >>> p = Independent(tfd.Gamma, [2])(tf.zeros([3, Independent.params_size(tfd.Gamma, [2])]))
    >>> p.event_shape, p.mean()[0].numpy().round(4)
    (TensorShape([2]), array([0.6931, 0.6931], dtype=float32))
    """

    roles = ()

    def __init__(
        self,
        distribution_class: type[tfd.Distribution],
        event_shape=(),
        predicted: Sequence[str] | None = None,
        constants: Mapping | None = None,
        convert_to_tensor_fn="sample",
        validate_args=False,
        **kwargs,
    ):
        event_shape = as_event_shape(event_shape)
        predicted = None if predicted is None else tuple(predicted)
        constants = {name: np.asarray(value).tolist() for name, value in (constants or {}).items()}
        _unconstrained(as_distribution_class(distribution_class), event_shape, predicted, constants)
        arguments = {
            "distribution_class": distribution_class,
            "event_shape": event_shape,
            "predicted": predicted,
            "constants": constants,
        }
        self.xla_can_draw = distribution_class not in NOT_SAMPLED_UNDER_XLA
        super().__init__(arguments, convert_to_tensor_fn, validate_args, **kwargs)

    @staticmethod
    def new(
        params,
        distribution_class,
        event_shape=(),
        predicted=None,
        constants=None,
        validate_args=False,
        name=None,
    ) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(distribution_class, event_shape,
        ...)]`.
        """
        return independent(
            distribution_class,
            params,
            event_shape,
            predicted,
            validate_args=validate_args,
            name=name,
            **constants or {},
        )

    @staticmethod
    def params_size(
        distribution_class, event_shape=(), predicted=None, constants=None, name=None
    ) -> int:
        """Return the number of parameters of one distribution."""
        return independent_params_size(
            distribution_class, event_shape, predicted, **constants or {}
        )


class PerValue(DistributionLayer):
    """Base of layers of independent distributions, one for each value of an event, whose only
    argument is the shape of that event.

    A subclass sets `params_per_value` and implements `new(params, event_shape, validate_args, name)`.

    Args:
        event_shape: shape of one example, an int or a tuple; `()` for a scalar.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    params_per_value = 1

    def __init__(
        self, event_shape=(), convert_to_tensor_fn="sample", validate_args=False, **kwargs
    ):
        arguments = {"event_shape": as_event_shape(event_shape)}
        super().__init__(arguments, convert_to_tensor_fn, validate_args, **kwargs)

    @classmethod
    def params_size(cls, event_shape=(), name=None) -> int:
        """Return the number of parameters of one distribution."""
        return cls.params_per_value * int(np.prod(as_event_shape(event_shape)))


class OfOneClass(PerValue):
    """Base of layers of independent distributions of one class, whose parameters TFP constrains.

    A subclass sets its class, and its lower bounds if it has some.
    """

    base: type[tfd.Distribution]
    # Lower bounds, by name, of parameters that are softplus of their params, other than TFP's.
    lowest: Mapping[str, float] | None = None

    @classmethod
    def new(cls, params, event_shape=(), validate_args=False, name=None) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(event_shape)]`."""
        return independent(
            cls.base,
            params,
            event_shape,
            lowest=cls.lowest,
            validate_args=validate_args,
            name=name,
        )

    @classmethod
    def params_size(cls, event_shape=(), name=None) -> int:
        """Return the number of parameters of one distribution."""
        return independent_params_size(cls.base, event_shape)


# The samplers of these classes draw from a gamma and a Poisson distribution by an operation that
# XLA does not have.
NOT_SAMPLED_UNDER_XLA = (tfd.NegativeBinomial, tfd.ZeroInflatedNegativeBinomial)


def independent(
    distribution_class: type[tfd.Distribution],
    params,
    event_shape=(),
    predicted: Sequence[str] | None = None,
    lowest: Mapping[str, float] | None = None,
    validate_args: bool = False,
    name: str | None = None,
    **constants,
) -> tfd.Distribution:
    """Build a distribution of any class from unconstrained `params`, `[...,
    independent_params_size(...)]`.

    Args:
        distribution_class: a class of tfd.
        params: all values of the first predicted parameter, then all of the second ...
        event_shape: shape of one example; its last axes are the class's own event.
        predicted: names of the predicted parameters; None takes all that TFP prefers, without the
            constants.
        lowest: lower bounds, by name, of parameters that are softplus of their params, other than
            TFP's.
        validate_args: whether the distribution checks its arguments.
        name: name of the distribution.
        **constants: further arguments of the class, such as parameters that are not predicted.
    """
    event_shape = as_event_shape(event_shape)
    params = tf.convert_to_tensor(params)
    parameters = _unconstrained(distribution_class, event_shape, predicted, constants, params.dtype)
    pieces = split_params(params, [shape for shape, _ in parameters.values()])
    arguments = {**_as_parameters(constants, params.dtype), "validate_args": validate_args}
    for piece, (parameter, (_, bijector)) in zip(pieces, parameters.items(), strict=True):
        low = (lowest or {}).get(parameter)
        arguments[parameter] = bijector(piece) if low is None else softplus_above(low, piece)
    if name:
        arguments["name"] = name
    return independent_of(distribution_class(**arguments), len(event_shape), name)


def independent_params_size(distribution_class, event_shape=(), predicted=None, **constants) -> int:
    """Return the number of parameters that `independent` needs.

    >>> independent_params_size(tfd.Normal, (2, 3)), independent_params_size(tfd.MultivariateNormalTriL, 2)
    (12, 5)
    """
    parameters = _unconstrained(
        distribution_class, as_event_shape(event_shape), predicted, constants
    )
    return sum(int(np.prod(shape)) for shape, _ in parameters.values())


def independent_of(
    base: tfd.Distribution, event_ndims: int, name: str | None = None
) -> tfd.Distribution:
    """Make the last batch axes of `base` part of its event, so that the event has `event_ndims`
    axes.

    The result is a `tfd.Independent` even for the scalar event shape `()`, as in tfp.layers.
    """
    reinterpreted = event_ndims - base.event_shape.rank
    if base.event_shape.rank and not reinterpreted:
        return base
    return light.Independent(base, reinterpreted, validate_args=base.validate_args, name=name)


def _unconstrained(distribution_class, event_shape, predicted, constants, dtype=tf.float32) -> dict:
    """Return the shape of the unconstrained values and the constraining bijector of each predicted
    parameter.
    """
    properties = distribution_class.parameter_properties(dtype)
    if predicted is None:
        predicted = [
            name
            for name, p in properties.items()
            if p.is_tensor and p.is_preferred and name not in constants
        ]
    unknown = {*predicted, *constants} - {*inspect.signature(distribution_class).parameters}
    if unknown:
        raise ValueError(f"tfd.{distribution_class.__name__} has no parameter {sorted(unknown)}.")
    return {
        name: _shape_and_bijector(distribution_class, name, properties[name], event_shape)
        for name in predicted
    }


def _shape_and_bijector(
    distribution_class, name, properties, event_shape
) -> tuple[tuple[int, ...], tfb.Bijector]:
    try:
        bijector = properties.default_constraining_bijector_fn()
        shape = tf.TensorShape(properties.shape_fn(event_shape))
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"TFP does not say how to predict {name!r} of tfd.{distribution_class.__name__}. Give "
            "it in constants, or use DistributionLambda."
        ) from error
    return tuple(bijector.inverse_event_shape(shape)), bijector


def _as_parameters(constants: dict, dtype) -> dict:
    """Cast constant parameters to the dtype of the predicted ones."""
    numbers = (int, float, list)
    return {
        name: tf.constant(value, dtype) if isinstance(value, numbers) else value
        for name, value in constants.items()
    }
