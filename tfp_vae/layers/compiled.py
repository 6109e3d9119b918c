"""Functions that make distributions, compiled.

Eagerly a small network of Keras takes some milliseconds, as a graph a tenth of that. A graph gives
tensors, not distributions: it gives the parameters, of which the distribution is made again outside.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.internals import in_stateless_scope
from tfp_vae.layers.parts import has_dependent_parts, is_joint, map_joint, parts_of

tfd = tfp.distributions

# Parameters that are the same in each distribution that a function makes.
FIXED = (bool, int, float, str, np.ndarray, np.generic, tf.DType, type(None))


class CompiledDistribution:
    """A function from tensors to a distribution, compiled from the second call on: it runs eagerly
    once, for those who call it once.

    A distribution that tensors do not determine, as that of a flow, is made by the function itself,
    as all are in a graph.

    Args:
        function: of a dict of tensors, or of dicts of them.

    Example:
    >>> scale = CompiledDistribution(lambda data: tfd.Normal(data["loc"], 1.0))
    >>> [scale({"loc": tf.constant([loc])}).mean().numpy() for loc in (1.0, 2.0, 3.0)]
    [array([1.], dtype=float32), array([2.], dtype=float32), array([3.], dtype=float32)]
    """

    def __init__(self, function: Callable[[dict], tfd.Distribution]):
        self.function = function
        # By the kind of the tensors: None after the first call, then what makes the distribution.
        self._made_by: dict[Hashable, Callable | None] = {}

    def __call__(self, data: dict) -> tfd.Distribution:
        # A graph would keep what is read instead of the weights.
        if not tf.executing_eagerly() or in_stateless_scope():
            return self.function(data)
        leaves = tf.nest.flatten(data)
        kind = (*data, *((leaf.dtype, leaf.shape.rank) for leaf in leaves))
        if kind not in self._made_by:
            self._made_by[kind] = None
            return self.function(data)
        made_by = self._made_by[kind] or self._compile(data)
        self._made_by[kind] = made_by
        return made_by(data)

    def _compile(self, data: dict) -> Callable:
        """Return the function compiled, or as it is where that cannot be."""
        made: list[tfd.Distribution] = []

        def parameters(data):
            made.append(self.function(data))
            return parameters_of(made[-1])

        compiled = tf.function(parameters, reduce_retracing=True, autograph=False)
        try:
            compiled(data)
        except (
            Exception
        ):  # of a layer that takes no symbolic tensors, or what tensors do not determine
            return self.function
        return lambda data: with_parameters(made[-1], compiled(data))


def parameters_of(distribution: tfd.Distribution) -> dict[str, Any]:
    """Return the tensors that a distribution is made of by name, a dict for each distribution in it.

    Raises:
        ValueError: if it is made of other things too, which may hold tensors.

    >>> sorted(parameters_of(tfd.Independent(tfd.Normal(tf.zeros([3]), 1.), 1))["distribution"])
    ['loc']
    """
    if has_dependent_parts(distribution):
        raise ValueError("Parts depend on each other by functions.")
    if is_joint(distribution):
        return {name: parameters_of(part) for name, part in parts_of(distribution).items()}
    found: dict[str, Any] = {}
    for name, value in distribution.parameters.items():
        if tf.is_tensor(value):
            found[name] = value
        elif isinstance(value, tfd.Distribution):
            found[name] = parameters_of(value)
        elif not isinstance(value, FIXED):
            raise ValueError(f"{name} is a {type(value).__name__}.")
    return found


def with_parameters(distribution: tfd.Distribution, parameters: Mapping) -> tfd.Distribution:
    """Return a distribution of the same class, made of other tensors.

    >>> with_parameters(tfd.Normal(tf.zeros([3]), 1.), {"loc": tf.ones([2])}).mean().numpy()
    array([1., 1.], dtype=float32)
    """
    if is_joint(distribution):
        return map_joint(with_parameters, distribution, parameters)
    return distribution.copy(
        **{
            name: with_parameters(distribution.parameters[name], value)
            if isinstance(value, Mapping)
            else value
            for name, value in parameters.items()
        }
    )


__all__: list[str] = []
