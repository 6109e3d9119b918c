"""Compiled functions of tensors, also such that make distributions.

A small Keras network takes some milliseconds in eager mode, and a tenth of that as a graph. A graph
returns tensors, not distributions: it returns the parameters, and the distribution is rebuilt from
them outside.
"""

import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.internals import in_stateless_scope, without_retracing_warnings
from tfp_vae.layers.parts import has_dependent_parts, is_joint, map_joint, parts_of

tfd = tfp.distributions

# Types of parameters that are the same in each distribution that a function makes.
FIXED = (bool, int, float, str, np.ndarray, np.generic, tf.DType, type(None))


class Compiled:
    """A function of tensors, compiled at the second eager call with their dtypes and ranks: a
    single call costs no compilation.

    The function itself is called inside a graph, and where it cannot be compiled.

    Args:
        function: function of a dict of tensors, or of a dict of such dicts.

    Example:
    >>> double = Compiled(lambda data: 2.0 * data["x"])
    >>> [double({"x": tf.constant(x)}).numpy() for x in (1.0, 2.0, 3.0)]
    [np.float32(2.0), np.float32(4.0), np.float32(6.0)]
    """

    def __init__(self, function: Callable[[dict], Any]):
        self.function = function
        # By the kind of the tensors: None after the first call, then the function to call.
        self._made_by: dict[Hashable, Callable | None] = {}

    def __call__(self, data: dict) -> Any:
        # A graph would keep what is read instead of the weights.
        if not tf.executing_eagerly() or in_stateless_scope() or tf.config.functions_run_eagerly():
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
        """Return the compiled function, or the function itself if it cannot be compiled."""
        traced: list[Any] = []

        def tensors(data):
            traced.append(self.function(data))
            return self._tensors_of(traced[-1])

        compiled = without_retracing_warnings(
            tf.function(tensors, reduce_retracing=True, autograph=False)
        )
        try:
            compiled(data)
        # A layer takes no symbolic tensors, or tensors do not determine the distribution.
        except Exception:
            return self.function
        graphs: dict[tuple, Callable] = {}

        def made_by(data):
            # To find the graph of these shapes takes TensorFlow as long as to run a small one.
            shapes = tuple(leaf.shape for leaf in tf.nest.flatten(data))
            if shapes not in graphs:
                graphs[shapes] = compiled.get_concrete_function(data)
            return self._from_tensors(traced[-1], graphs[shapes](data))

        return made_by

    def _tensors_of(self, result) -> Any:
        """Return the tensors of a result, which a graph returns."""
        return result

    def _from_tensors(self, traced, tensors) -> Any:
        """Return a result from its tensors, and the one that was made while tracing."""
        return tensors


class CompiledDistribution(Compiled):
    """A function from tensors to a distribution; it is not compiled if tensors do not determine the
    distribution, such as that of a flow.

    Example:
    >>> scale = CompiledDistribution(lambda data: tfd.Normal(data["loc"], 1.0))
    >>> [scale({"loc": tf.constant([loc])}).mean().numpy() for loc in (1.0, 2.0, 3.0)]
    [array([1.], dtype=float32), array([2.], dtype=float32), array([3.], dtype=float32)]
    """

    def _tensors_of(self, result: tfd.Distribution) -> dict[str, Any]:
        return parameters_of(result)

    def _from_tensors(self, traced: tfd.Distribution, tensors: dict) -> tfd.Distribution:
        return with_parameters(traced, tensors)


class CompiledJoint(tfd.JointDistributionNamed):
    """A `tfd.JointDistributionNamed` whose density is compiled at the second eager call.

    In eager mode TFP makes all of its parts anew in each call. What has no density goes that way
    still, for the parts say what is wrong with a value.
    """

    def _log_prob(self, value):
        return self._compiled("_log_prob", super()._log_prob, value)

    def _unnormalized_log_prob(self, value):
        return self._compiled("_unnormalized_log_prob", super()._unnormalized_log_prob, value)

    def _compiled(self, name: str, function: Callable, value):
        parts = self._model_flatten(value)
        if not tf.executing_eagerly() or not all(np.isfinite(part).all() for part in parts):
            return function(value)
        known = self._compiled_functions
        if name not in known:
            known[name] = Compiled(lambda data: function(self._model_unflatten([*data.values()])))
        try:
            return known[name](dict(enumerate(parts)))
        except Exception:  # its error would speak of a graph
            return function(value)

    @functools.cached_property
    def _compiled_functions(self) -> dict[str, Compiled]:
        return {}


def parameters_of(distribution: tfd.Distribution) -> dict[str, Any]:
    """Return the tensor parameters of a distribution by name, as a dict for each one inside it.

    Raises:
        ValueError: if it also has parameters of other types, which may hold tensors.

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
    given = distribution.parameters
    return distribution.copy(
        **{
            name: with_parameters(given[name], value) if isinstance(value, Mapping) else value
            for name, value in parameters.items()
        }
    )


__all__: list[str] = []
