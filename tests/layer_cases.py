"""The rows of the tests of distribution layers: each public class, with its density in NumPy and SciPy."""

import dataclasses
import functools
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import special

from tests import reference_densities as ref
from tfp_vae import layers as tfpl
from tfp_vae import sequences
from tfp_vae.cli.build import num_params

tfd = tfp.distributions

DRAWS: dict = {}  # draws take long
MOMENTS = ("mean", "mode", "stddev", "variance")


@dataclasses.dataclass
class Case:
    """A layer, and what it should be.

    Args:
        layer, arguments: the class and its constructor's arguments.
        params_size: number of parameters.
        event_shape: shape of one draw.
        log_density: NumPy function of params `[..., params_size]` and x `[..., *event_shape]`.
        outcomes: all x that matter, `[number, *event_shape]`, and their volumes: what a sum over the density needs.
        names: the conversions by name that TFP has for it, besides "sample".
        convert: conversion that the models of the tests use.
        extreme: size of parameters that the density must stand.
        linear: whether the gradient through draws is right for linear functions only.
        jit: whether XLA can compile the draw and the density.
        likelihood: whether it is a distribution of data.
    """

    layer: type
    arguments: dict
    params_size: int
    event_shape: tuple
    log_density: Callable
    outcomes: tuple | None
    names: tuple = MOMENTS
    convert: object = "mean"
    extreme: float = 1e4
    linear: bool = False
    jit: bool = True
    likelihood: bool = True

    def __str__(self):
        kind = self.arguments.get("distribution_class")
        return f"{self.layer.__name__}{f'[{kind.__name__}]' if kind else ''}{self.event_shape}"

    def make(self, convert_to_tensor_fn=None, **kwargs):
        dtype = {"dtype": kwargs["dtype"]} if "dtype" in kwargs else {}
        arguments = {
            k: v(**dtype) if isinstance(v, functools.partial) else v
            for k, v in self.arguments.items()
        }
        return self.layer(
            **arguments, convert_to_tensor_fn=convert_to_tensor_fn or self.convert, **kwargs
        )

    def model(self, **kwargs):
        return keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(self.params_size), self.make(**kwargs)]
        )

    def params(self, *batch_shape):
        return np.random.default_rng(1).normal(scale=0.6, size=(*batch_shape, self.params_size))

    def draw(self, params, *sample_shape):
        """Draw in float64, from the distribution itself: where to look at its density."""
        key = str(self), params.tobytes(), sample_shape
        if key not in DRAWS:
            DRAWS[key] = (
                self.make(dtype="float64")(params).sample(sample_shape, seed=(0, 0)).numpy()
            )
        return DRAWS[key]

    def gradient(self, params, x):
        """Differentiate the log-density by params `[..., params_size]`, by finite differences."""
        steps = 1e-6 * np.eye(self.params_size)
        each = [
            self.log_density(params + step, x) - self.log_density(params - step, x)
            for step in steps
        ]
        return np.stack(each, -1) / 2e-6

    def expectation(self, function, params):
        """Sum over all outcomes, of the density in NumPy: params `[num, params_size]` -> `[num, ...]`."""
        x, volumes = self.outcomes
        probs = volumes * np.exp(np.stack([self.log_density(row[np.newaxis], x) for row in params]))
        return np.tensordot(probs, function(x), 1)


def product(event_shape, axis, volumes=None):
    """Return all x whose values are on the axis, and their volumes."""
    num_values = int(np.prod(event_shape))
    grid = np.stack(np.meshgrid(*[axis] * num_values, indexing="ij"), -1).reshape(-1, *event_shape)
    volumes = np.ones(len(axis)) if volumes is None else volumes
    return grid, np.stack(np.meshgrid(*[volumes] * num_values, indexing="ij"), -1).reshape(
        len(grid), -1
    ).prod(-1)


def substituted(function, derivative, low, high, number):
    """Return the axis x = function(u) with its volumes, for densities with long tails or poles at a border."""
    u = np.linspace(low, high, number)
    return function(u), derivative(u) * (u[1] - u[0])


LINE = np.arange(-12.0, 12.0, 0.1), np.full(240, 0.1)
LONG = substituted(np.sinh, np.cosh, -6.0, 6.0, 240)
SHORT_LONG = substituted(np.sinh, np.cosh, -40.0, 40.0, 4000)
POSITIVE = substituted(np.exp, np.exp, -50.0, 6.0, 300)
UNIT = substituted(special.expit, lambda u: special.expit(u) * special.expit(-u), -14.0, 14.0, 500)
SIMPLEX = substituted(
    special.expit, lambda u: special.expit(u) * special.expit(-u), -60.0, 60.0, 4000
)
PAIRS = np.stack([SIMPLEX[0], special.expit(-np.linspace(-60.0, 60.0, 4000))], -1), SIMPLEX[1]

# The same simplex twice, on fewer points.
FEW = np.linspace(-25.0, 25.0, 300)
FEW_PAIRS = np.stack([special.expit(FEW), special.expit(-FEW)], -1)
FEW_VOLUMES = special.expit(FEW) * special.expit(-FEW) * (FEW[1] - FEW[0])
TWO_PAIRS = (
    FEW_PAIRS[np.indices((300, 300)).reshape(2, -1).T],
    np.outer(FEW_VOLUMES, FEW_VOLUMES).ravel(),
)


def circle(number=2000):
    angle = 2.0 * np.pi * np.arange(number) / number
    return np.stack([np.cos(angle), np.sin(angle)], -1), np.full(number, 2.0 * np.pi / number)


def sphere(number=300):
    """Return points of equal area: any height, by Archimedes, and any longitude."""
    height, weights = np.polynomial.legendre.leggauss(number)
    angle = 2.0 * np.pi * np.arange(number) / number
    height, angle = (a.ravel() for a in np.meshgrid(height, angle, indexing="ij"))
    radius = np.sqrt(1.0 - height**2)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], -1)
    return points, np.repeat(weights, number) * 2.0 * np.pi / number


@keras.saving.register_keras_serializable(package="layer_cases")
def registered_laplace(params):
    return tfd.Independent(tfd.Laplace(params[..., :1], tf.nn.softplus(params[..., 1:]) + 0.01), 1)


NO_MODE = ("mean", "stddev", "variance")
COUNTS, ONE_HOT = np.arange(80.0), (np.eye(3), np.ones(3))

CASES = [
    Case(
        tfpl.CategoricalMixtureOfOneHotCategorical,
        {"event_size": 3, "num_components": 2},
        8,
        (3,),
        ref.mixture(ref.one_hot),
        ONE_HOT,
    ),
    Case(
        tfpl.Deterministic,
        {"event_shape": (2,)},
        2,
        (2,),
        lambda params, x: np.zeros(x.shape[:-1]),
        None,
        likelihood=False,
    ),
    Case(
        tfpl.DistributionLambda,
        {"make_distribution_fn": registered_laplace},
        2,
        (1,),
        ref.laplace,
        product((1,), *SHORT_LONG),
    ),
    Case(
        tfpl.Independent,
        {"distribution_class": tfd.Gamma, "event_shape": 2},
        4,
        (2,),
        ref.gamma,
        product((2,), *POSITIVE),
        extreme=3.0,
    ),
    Case(
        tfpl.Independent,
        {"distribution_class": tfd.StudentT, "event_shape": (1,), "constants": {"df": 3.0}},
        2,
        (1,),
        ref.student_t_of_3,
        product((1,), *SHORT_LONG),
    ),
    Case(
        tfpl.Independent,
        {"distribution_class": tfd.Dirichlet, "event_shape": 2},
        2,
        (2,),
        ref.dirichlet_of_2,
        PAIRS,
        extreme=3.0,
    ),
    Case(
        tfpl.IndependentBernoulli,
        {"event_shape": (2, 1, 2)},
        4,
        (2, 1, 2),
        ref.bernoulli,
        product((2, 1, 2), [0, 1]),
    ),
    Case(tfpl.IndependentBernoulli, {}, 1, (), ref.scalar_bernoulli, product((), np.arange(2.0))),
    Case(
        tfpl.IndependentBernoulliStraightThrough,
        {"event_shape": 2},
        2,
        (2,),
        ref.bernoulli_of_2,
        product((2,), [0, 1]),
        linear=True,
    ),
    Case(
        tfpl.IndependentBeta,
        {"event_shape": 2},
        4,
        (2,),
        ref.values(2, 2)(ref.beta),
        product((2,), *UNIT),
    ),
    Case(
        tfpl.IndependentBinomial,
        {"event_shape": 2, "total_count": 5},
        2,
        (2,),
        ref.binomial_of_5,
        product((2,), np.arange(6.0)),
    ),
    Case(
        tfpl.IndependentCategorical,
        {"event_shape": 2, "num_categories": 3},
        6,
        (2,),
        ref.categorical_of_3,
        product((2,), np.arange(3.0)),
        convert="mode",
    ),
    Case(
        tfpl.IndependentContinuousBernoulli,
        {"event_shape": 2},
        2,
        (2,),
        ref.values(1, 2)(ref.continuous_bernoulli),
        product((2,), *UNIT),
    ),
    Case(tfpl.IndependentLogistic, {"event_shape": 2}, 4, (2,), ref.logistic, product((2,), *LONG)),
    Case(
        tfpl.IndependentNegativeBinomial,
        {"event_shape": 2},
        4,
        (2,),
        ref.values(2, 2)(ref.negative_binomial),
        product((2,), COUNTS),
        extreme=15.0,
        jit=False,
    ),
    Case(
        tfpl.IndependentNormal,
        {"event_shape": [2, 1]},
        4,
        (2, 1),
        ref.normal,
        product((2, 1), *LINE),
    ),
    Case(tfpl.IndependentNormal, {}, 2, (), ref.scalar_normal, product((), *LINE)),
    Case(
        tfpl.IndependentNormalLearnedScale,
        {"event_shape": 2},
        2,
        (2,),
        ref.unit_normal,
        product((2,), *LINE),
    ),
    Case(
        tfpl.IndependentNormalOptimalScale,
        {"event_shape": 2},
        2,
        (2,),
        ref.unit_normal,
        product((2,), *LINE),
    ),
    Case(
        tfpl.IndependentPoisson,
        {"event_shape": 2},
        2,
        (2,),
        ref.poisson,
        product((2,), COUNTS),
        extreme=15.0,
    ),
    Case(
        tfpl.IndependentQuantizedLogistic,
        {"event_shape": 2, "num_levels": 6},
        4,
        (2,),
        ref.values(2, 2)(ref.quantized_logistic_of_6),
        product((2,), np.arange(6.0)),
        names=("mean",),
    ),
    Case(
        tfpl.IndependentRelaxedBernoulli,
        {"event_shape": 2, "temperature": 1.5},
        2,
        (2,),
        ref.values(1, 2)(ref.relaxed_bernoulli_at_1_5),
        product((2,), *UNIT),
        names=(),
        convert=tfd.RelaxedBernoulli.logits,
    ),
    Case(
        tfpl.IndependentStudentT,
        {"event_shape": 1},
        3,
        (1,),
        ref.student_t,
        product((1,), *SHORT_LONG),
    ),
    Case(
        tfpl.IndependentZeroInflatedNegativeBinomial,
        {"event_shape": 2},
        6,
        (2,),
        ref.values(3, 2)(ref.zero_inflated),
        product((2,), COUNTS),
        names=NO_MODE,
        extreme=15.0,
        jit=False,
    ),
    Case(
        tfpl.MixtureLogistic,
        {"num_components": 2, "event_shape": 2},
        10,
        (2,),
        ref.mixture(ref.logistic),
        product((2,), *LONG),
        names=NO_MODE,
    ),
    Case(
        tfpl.MixtureNormal,
        {"num_components": 2, "event_shape": 2},
        10,
        (2,),
        ref.mixture(ref.normal_of_2),
        product((2,), *LINE),
        names=NO_MODE,
    ),
    Case(
        tfpl.MixtureQuantizedLogistic,
        {"num_components": 2, "event_shape": 2, "num_levels": 6},
        12,
        (2,),
        ref.mixture_of_2_quantized_logistics_of_6,
        product((2,), np.arange(6.0)),
        names=("mean",),
    ),
    Case(
        tfpl.MixtureSameFamily,
        {"num_components": 2, "component_layer": functools.partial(tfpl.MultivariateNormalTriL, 2)},
        12,
        (2,),
        ref.mixture(ref.multivariate(ref.triangular)),
        product((2,), *LINE),
        names=NO_MODE,
    ),
    Case(
        tfpl.MultivariateNormalDiag,
        {"event_size": 2},
        4,
        (2,),
        ref.multivariate(ref.diagonal),
        product((2,), *LINE),
    ),
    Case(
        tfpl.MultivariateNormalDiagPlusLowRank,
        {"event_size": 2, "rank": 1},
        6,
        (2,),
        ref.multivariate(ref.diagonal_plus_low_rank),
        product((2,), *LINE),
        jit=False,
    ),
    Case(
        tfpl.MultivariateNormalTriL,
        {"event_size": 2},
        5,
        (2,),
        ref.multivariate(ref.triangular),
        product((2,), *LINE),
    ),
    Case(
        tfpl.MultivariateNormalTriL,
        {"event_size": 2, "off_diagonal_scale": 0.5},
        5,
        (2,),
        ref.multivariate(functools.partial(ref.triangular, below=0.5)),
        product((2,), *LINE),
    ),
    Case(
        tfpl.OneHotCategorical,
        {"event_size": 3},
        3,
        (3,),
        ref.one_hot,
        ONE_HOT,
        convert=tfd.OneHotCategorical.logits,
    ),
    Case(
        tfpl.OneHotCategoricalStraightThrough,
        {"event_size": 3},
        3,
        (3,),
        ref.one_hot,
        ONE_HOT,
        linear=True,
    ),
    Case(
        tfpl.OneHotCategoricalStraightThrough,
        {"event_size": (2, 3)},
        6,
        (2, 3),
        ref.one_hot_2_by_3,
        (np.eye(3)[np.indices((3, 3)).reshape(2, -1).T], np.ones(9)),
        linear=True,
    ),
    Case(
        tfpl.PowerSpherical,
        {"event_size": 3},
        4,
        (3,),
        ref.power_spherical,
        sphere(),
        names=("mean",),
    ),
    Case(
        tfpl.RelaxedOneHotCategorical,
        {"event_size": 2, "temperature": 1.5},
        2,
        (2,),
        ref.relaxed_at_1_5,
        PAIRS,
        names=(),
        convert=tfd.RelaxedOneHotCategorical.logits,
    ),
    Case(
        tfpl.RelaxedOneHotCategorical,
        {"event_size": (2, 2), "temperature": 1.5},
        4,
        (2, 2),
        ref.relaxed_2_by_2_at_1_5,
        TWO_PAIRS,
        names=(),
        convert=tfd.RelaxedOneHotCategorical.logits,
    ),
    Case(
        tfpl.VectorQuantized,
        {"event_shape": (2, 3), "num_codes": 4},
        6,
        (2, 3),
        lambda params, x: np.zeros(x.shape[:-2]),
        None,
        likelihood=False,
    ),
    Case(
        tfpl.VonMisesFisher,
        {"event_size": 2},
        3,
        (2,),
        ref.von_mises,
        circle(),
        names=("mean", "mode"),
    ),
    Case(
        tfpl.VonMisesFisher,
        {"event_size": 3},
        4,
        (3,),
        ref.von_mises_fisher_3,
        sphere(),
        names=("mean", "mode"),
    ),
]
EXACT = {tfpl.Deterministic, tfpl.VectorQuantized}  # no density: all on one value


def is_first(case: Case) -> bool:
    """Whether it is the first row of its class: for contracts that do not depend on the arguments, and take long."""
    return case is next(row for row in CASES if row.layer is case.layer)


LIKELIHOODS = [
    name for name in tfpl.__all__ if "likelihood" in getattr(getattr(tfpl, name), "roles", ())
]


def likelihood_arguments(name: str, event_shape) -> dict:
    """Return the arguments of a likelihood of another event shape, else as in its first row."""
    if getattr(tfpl, name).has_own_network:
        return {"network": sequences.causal_conv_decoder(3, event_shape, 4, units=8)}
    arguments = next(case.arguments for case in CASES if case.layer is getattr(tfpl, name))
    return {**arguments, "event_shape": event_shape}


def possible_data(name: str, number: int, event_shape) -> np.ndarray:
    """Return data that a likelihood can have produced, at parameters drawn from normal distributions."""
    layer, arguments = getattr(tfpl, name), likelihood_arguments(name, event_shape)
    params = np.random.default_rng(0).normal(size=(number, num_params(layer, arguments)))
    p = layer(**arguments)(tf.constant(params, "float32"))
    return p.tensor_distribution.sample(seed=(0, 1)).numpy().astype("float32")


def rows(condition=lambda case: True):
    return pytest.mark.parametrize("case", [case for case in CASES if condition(case)], ids=str)
