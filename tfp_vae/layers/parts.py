"""Distributions with several parts by name, and distributions inside others.

The same functions work for one part and for many.
"""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow_probability as tfp

from tfp_vae.layers.tensor_like import is_a, unwrap

tfd = tfp.distributions


def map_parts(function: Callable, value):
    """Apply a function to a value, or to each part of a dict of them.

    The parts come out in the order of their names.
    """
    if isinstance(value, Mapping):
        return {name: function(value[name]) for name in sorted(value)}
    return function(value)


def is_joint(distribution) -> bool:
    """Return whether a distribution has parts by name."""
    return is_a(unwrap(distribution), tfd.JointDistributionNamed)


def parts_of(distribution, name: str = "x") -> dict[str, Any]:
    """Return the parts of a joint distribution by name.

    Any other distribution is its own only part.

    >>> parts_of(tfd.JointDistributionNamed({"a": tfd.Normal(0., 1.), "b": tfd.Normal(0., 1.)})).keys()
    dict_keys(['a', 'b'])
    >>> parts_of(tfd.Normal(0., 1.), "z").keys()
    dict_keys(['z'])
    """
    plain = unwrap(distribution)
    return dict(plain.model) if is_joint(plain) else {name: plain}


def each_part(function: Callable, distribution, *values):
    """Return the results of a function of each part and its values, by name.

    For a distribution without parts, return the result for the distribution itself.

    Args:
        function: function of a distribution and of as many values as are given.
        distribution: a joint one of independent parts, or any other.
        *values: dicts by the names of the parts, where there are parts.

    >>> p = tfd.JointDistributionNamed({"a": tfd.Normal(0., 1.), "b": tfd.Normal(2., 1.)})
    >>> each_part(lambda part, x: float(x - part.mean()), p, {"a": 1., "b": 1.})
    {'a': 1.0, 'b': -1.0}
    """
    if not is_joint(distribution):
        return function(unwrap(distribution), *values)
    model = unwrap(distribution).model
    return {
        name: function(part, *(value[name] for value in values)) for name, part in model.items()
    }


def map_joint(function: Callable, distribution, *values) -> tfd.Distribution:
    """Return a distribution with each part replaced by the result of a function, which is called as
    in `each_part`.
    """
    mapped = each_part(function, distribution, *values)
    return tfd.JointDistributionNamed(mapped) if is_joint(distribution) else mapped


def in_order(joint: tfd.JointDistributionNamed, value_of: Callable) -> dict[str, Any]:
    """Return a value of each part of a joint distribution, computed after those of the parts it
    depends on.

    Args:
        joint: a joint distribution.
        value_of: function of a part's name and of its distribution, given the values of the parts
            that it needs.

    >>> p = tfd.JointDistributionNamed({"a": tfd.Normal(1., 1.), "b": lambda a: tfd.Normal(2. * a, 1.)})
    >>> in_order(p, lambda name, part: float(part.mean()))
    {'a': 1.0, 'b': 2.0}
    """
    values: dict[str, Any] = {}
    for name, needs in joint.resolve_graph():
        values[name] = value_of(name, _part_given(joint, name, needs, values))
    return values


def parts_given(joint: tfd.JointDistributionNamed, values: Mapping) -> dict[str, tfd.Distribution]:
    """Return the distribution of each part, given the values of those it depends on."""
    graph = joint.resolve_graph()
    return {name: _part_given(joint, name, needs, values) for name, needs in graph}


def _part_given(joint, name: str, needs, values: Mapping) -> tfd.Distribution:
    part = joint.model[name]
    return part(**{need: values[need] for need in needs}) if needs else part


def has_dependent_parts(distribution) -> bool:
    """Return whether a part of a joint distribution depends on others."""
    return is_joint(distribution) and any(
        needs for _, needs in unwrap(distribution).resolve_graph()
    )


def innermost(distribution) -> tfd.Distribution:
    """Return the distribution that decides which values are possible, inside those that wrap, mix
    or inflate it.

    >>> innermost(tfd.Independent(tfd.Normal([0.], 1.), 1))
    <tfp.distributions.Normal 'Normal' batch_shape=[1] event_shape=[] dtype=float32>
    """
    inside = unwrap(distribution)
    while True:
        if is_a(inside, tfd.MixtureSameFamily):
            inside = inside.components_distribution
        elif is_a(inside, tfd.Independent, tfd.BatchReshape, tfd.Inflated):
            inside = inside.distribution
        else:
            return inside
