"""Conversion of distributions to plain tensors and back: a SavedModel takes and returns only
tensors.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.own import OWN
from tfp_vae.layers.parts import is_joint, parts_of
from tfp_vae.layers.tensor_like import is_a

tfd = tfp.distributions

# The class of a joint distribution of independent parts.
JOINT = "JointDistributionNamed"
# Distributions whose parameters are functions, or anything else that is not a tensor.
NEVER = (tfd.Distribution, tfd.TransformedDistribution, tfd.Blockwise)


def describe(
    distribution: tfd.Distribution, *, whole: bool = False
) -> tuple[dict, dict[str, tf.Tensor]]:
    """Split a distribution into a description for json, and its parameters as tensors under their
    tfd names.

    Scalars that are known when the graph is made (a number of trials) go into the description; all
    other parameters are broadcast to the batch shape, so that each has the batch as its first axis.
    The parameters of the distributions
    inside a mixture are named after their part: `mixture_logits`, `components_loc`. With `whole`,
    for a prior, which depends on nothing, all parameters go into the description.

    Raises:
        ValueError: if tensors do not determine the distribution: flows, and parts that depend on
            other parts.

    Example:
    >>> description, tensors = describe(tfd.Independent(tfd.Binomial(16., logits=tf.zeros([1, 2])), 1))
    >>> description["parts"]["distribution"]["constants"], sorted(tensors)
    ({'total_count': 16.0}, ['logits'])
    """
    tensors: dict[str, tf.Tensor] = {}
    return _describe(distribution, "", tensors, whole), tensors


def is_determined(distribution: tfd.Distribution) -> bool:
    """Return whether tensors determine a distribution, so that `describe` can split it.

    >>> is_determined(tfd.Normal(0., 1.)), is_determined(tfp.bijectors.Exp()(tfd.Normal(0., 1.)))
    (True, False)
    """
    try:
        describe(distribution)
    except ValueError:
        return False
    return True


def _describe(
    distribution: tfd.Distribution, prefix: str, tensors: dict[str, tf.Tensor], whole: bool
) -> dict:
    if is_joint(distribution):
        parts = parts_of(distribution)
        parts = {
            name: _describe(part, f"{prefix}{name}_", tensors, whole)
            for name, part in parts.items()
        }
        return {"class": JOINT, "constants": {}, "parts": parts}
    name = type(distribution).__name__
    is_function = not isinstance(distribution, tfd.Distribution)  # a part that depends on others
    is_known = type(distribution) in (_class(name), getattr(tfd, name, None))
    if is_function or not is_known or _has_bijector(distribution):
        raise ValueError(
            f"{name.lstrip('_')} is not determined by tensors, so it has no served form. Save the "
            "model as .keras, or export its encoder or decoder by keras.Model.export, which serves "
            "the tensors it converts to."
        )
    properties = type(distribution).parameter_properties()
    description: dict = {"class": name, "constants": {}, "parts": {}}
    if "dtype" in distribution.parameters:
        description["dtype"] = tf.as_dtype(distribution.dtype).name
    for key, value in distribution.parameters.items():
        if type(value) is int and key not in properties:
            description["constants"][key] = value  # a dimension
        if key not in properties or value is None:
            continue
        if isinstance(value, tfd.Distribution):
            description["parts"][key] = _describe(value, prefix + _prefix(key), tensors, whole)
            continue
        value = tf.convert_to_tensor(value)
        static = tf.get_static_value(value)
        if static is not None and (whole or static.ndim == 0):
            description["constants"][key] = static.tolist()
        else:
            cut = value.shape.rank - properties[key].event_ndims
            shape = tf.concat([distribution.batch_shape_tensor(), tf.shape(value)[cut:]], 0)
            tensors[prefix + key] = tf.broadcast_to(value, shape)
            # For a server's metadata.
            tensors[prefix + key].set_shape(distribution.batch_shape + value.shape[cut:])
    if is_a(distribution, tfd.Independent):
        ndims = tf.get_static_value(distribution.reinterpreted_batch_ndims)
        description["constants"]["reinterpreted_batch_ndims"] = int(ndims)
    return description


def rebuild(description: dict, tensors: dict[str, tf.Tensor], prefix: str = "") -> tfd.Distribution:
    """Build the distribution that `describe` has split.

    >>> rebuild(*describe(tfd.MultivariateNormalDiag(tf.zeros([1, 2]), tf.ones([1, 2]))))
    <tfp.distributions.MultivariateNormalDiag 'MultivariateNormalDiag' batch_shape=[1] event_shape=[2] dtype=float32>
    """
    if description["class"] == JOINT:
        parts = description["parts"].items()
        return tfd.JointDistributionNamed(
            {name: rebuild(part, tensors, f"{prefix}{name}_") for name, part in parts}
        )
    cls = _class(description["class"])
    arguments = dict(description["constants"])
    for key in cls.parameter_properties():
        if key in description["parts"]:
            arguments[key] = rebuild(description["parts"][key], tensors, prefix + _prefix(key))
        elif prefix + key in tensors and key not in arguments:
            arguments[key] = tensors[prefix + key]
    if "dtype" in description:
        arguments["dtype"] = description["dtype"]
    return cls(**arguments)


def expect_description(description: Mapping) -> None:
    """Raise a ValueError if `describe` cannot have written this description, which is untrusted
    input.
    """
    for part in description["parts"].values():
        expect_description(part)
    if description["class"] == JOINT:
        return
    cls = _class(description["class"])
    if not (inspect.isclass(cls) and issubclass(cls, tfd.Distribution)) or cls in NEVER:
        raise ValueError(f"there is no distribution {description['class']!r} of tensors")
    taken = inspect.signature(cls.__init__).parameters
    if unknown := sorted({*description["constants"], *description["parts"]} - {*taken}):
        raise ValueError(f"{description['class']} has no parameters {unknown}")
    for key, value in description["constants"].items():
        if np.asarray(value).dtype.kind not in "bif":
            raise ValueError(f"{description['class']} has a constant {key} that is no number")


def expect_parameters(
    description: Mapping, tensors: Mapping[str, tf.Tensor], prefix: str = ""
) -> None:
    """Raise a ValueError if a parameter is not possible, such as a negative scale, or given twice."""
    if description["class"] == JOINT:
        for name, part in description["parts"].items():
            expect_parameters(part, tensors, f"{prefix}{name}_")
        return
    properties = _class(description["class"]).parameter_properties()
    for key, part in description["parts"].items():
        expect_parameters(part, tensors, prefix + _prefix(key))
    for key, value in tensors.items():
        name = key.removeprefix(prefix)
        if not key.startswith(prefix) or name not in properties:
            continue
        if name in description["constants"]:
            raise ValueError(f"{key} is a constant of the description and an output")
        try:
            constraint = properties[name].default_constraining_bijector_fn()
            # A value outside the constraint has no inverse. TFP's own inverses also exclude the
            # smallest positive numbers, so these are replaced by a larger one.
            inverse = constraint.inverse(tf.where(value > 0.0, tf.maximum(value, 1e-3), value))
        except NotImplementedError:
            inverse = value
        if np.isnan(inverse).any():
            raise ValueError(f"{key} has values that no {description['class']} has")


def _has_bijector(distribution: tfd.Distribution) -> bool:
    return any(
        isinstance(value, tfp.bijectors.Bijector) for value in distribution.parameters.values()
    )


def _class(name: str) -> Any:
    return OWN.get(name) or getattr(tfd, name, None)


def _prefix(part: str) -> str:
    """Return the prefix of the parameter names of a part.

    It is empty if the distribution only wraps its part.
    """
    return part.removesuffix("distribution")
