"""The rows of the tests of distribution layers: each public class, with its density in NumPy and SciPy."""

import dataclasses
import functools
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import special, stats

from tfp_vae import layers as tfpl

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
        arguments = {k: v(**dtype) if isinstance(v, functools.partial) else v for k, v in self.arguments.items()}
        return self.layer(**arguments, convert_to_tensor_fn=convert_to_tensor_fn or self.convert, **kwargs)

    def model(self, **kwargs):
        return keras.Sequential([keras.Input((3,)), keras.layers.Dense(self.params_size), self.make(**kwargs)])

    def params(self, *batch_shape):
        return np.random.default_rng(1).normal(scale=0.6, size=(*batch_shape, self.params_size))

    def draw(self, params, *sample_shape):
        """Draw in float64, from the distribution itself: where to look at its density."""
        key = str(self), params.tobytes(), sample_shape
        if key not in DRAWS:
            DRAWS[key] = self.make(dtype="float64")(params).sample(sample_shape, seed=(0, 0)).numpy()
        return DRAWS[key]

    def gradient(self, params, x):
        """Differentiate the log-density by params `[..., params_size]`, by finite differences."""
        steps = 1e-6 * np.eye(self.params_size)
        each = [self.log_density(params + step, x) - self.log_density(params - step, x) for step in steps]
        return np.stack(each, -1) / 2e-6

    def expectation(self, function, params):
        """Sum over all outcomes, of the density in NumPy: params `[num, params_size]` -> `[num, ...]`."""
        x, volumes = self.outcomes
        probs = volumes * np.exp(np.stack([self.log_density(row[np.newaxis], x) for row in params]))
        return np.tensordot(probs, function(x), 1)


def softplus(x):
    return np.logaddexp(0.0, x)


def values(num_params, *event_shape):
    """Cut params into `num_params` arrays of shape `[..., *event_shape]`, then sum the event of a log-density."""

    def over_event(log_density):
        def summed(params, x):
            pieces = np.moveaxis(params.reshape(*params.shape[:-1], num_params, *event_shape), params.ndim - 1, 0)
            return np.sum(log_density(x, *pieces), axis=tuple(range(-len(event_shape), 0)) if event_shape else ())

        return summed

    return over_event


def product(event_shape, axis, volumes=None):
    """Give all x whose values are on the axis, and their volumes."""
    num_values = int(np.prod(event_shape))
    grid = np.stack(np.meshgrid(*[axis] * num_values, indexing="ij"), -1).reshape(-1, *event_shape)
    volumes = np.ones(len(axis)) if volumes is None else volumes
    return grid, np.stack(np.meshgrid(*[volumes] * num_values, indexing="ij"), -1).reshape(len(grid), -1).prod(-1)


def substituted(function, derivative, low, high, number):
    """Give the axis x = function(u) with its volumes, for densities with long tails or poles at a border."""
    u = np.linspace(low, high, number)
    return function(u), derivative(u) * (u[1] - u[0])


LINE = np.arange(-12.0, 12.0, 0.1), np.full(240, 0.1)
LONG = substituted(np.sinh, np.cosh, -6.0, 6.0, 240)
SHORT_LONG = substituted(np.sinh, np.cosh, -40.0, 40.0, 4000)
POSITIVE = substituted(np.exp, np.exp, -50.0, 6.0, 300)
UNIT = substituted(special.expit, lambda u: special.expit(u) * special.expit(-u), -14.0, 14.0, 500)
SIMPLEX = substituted(special.expit, lambda u: special.expit(u) * special.expit(-u), -60.0, 60.0, 4000)
PAIRS = np.stack([SIMPLEX[0], special.expit(-np.linspace(-60.0, 60.0, 4000))], -1), SIMPLEX[1]


def circle(number=2000):
    angle = 2.0 * np.pi * np.arange(number) / number
    return np.stack([np.cos(angle), np.sin(angle)], -1), np.full(number, 2.0 * np.pi / number)


def sphere(number=300):
    """Give points of equal area: any height, by Archimedes, and any longitude."""
    height, weights = np.polynomial.legendre.leggauss(number)
    angle = 2.0 * np.pi * np.arange(number) / number
    height, angle = (a.ravel() for a in np.meshgrid(height, angle, indexing="ij"))
    radius = np.sqrt(1.0 - height**2)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], -1)
    return points, np.repeat(weights, number) * 2.0 * np.pi / number


def multivariate(scale_of_params):
    """Give the log-density of a normal distribution with location params[:2] and the scale matrix of the others."""

    def log_density(params, x):
        scale = scale_of_params(params[..., 2:])
        solved = np.linalg.solve(scale, (x - params[..., :2])[..., np.newaxis])[..., 0]
        return stats.norm.logpdf(solved).sum(-1) - np.log(np.abs(np.linalg.det(scale)))

    return log_density


def diagonal(params):
    return (softplus(params) + 1e-5)[..., np.newaxis] * np.eye(2)


def triangular(params):
    """The entries (c, b, a) fill the factor clockwise from its last: ((a, 0), (b, c))."""
    c, b, a = np.moveaxis(params, -1, 0)
    return np.stack([softplus(a) + 1e-5, 0 * a, b, softplus(c) + 1e-5], -1).reshape(*a.shape, 2, 2)


def diagonal_plus_low_rank(params):
    factor = params[..., 2:, np.newaxis]
    return diagonal(params[..., :2]) + factor * np.swapaxes(factor, -1, -2)


def negative_binomial(x, log_mean, theta):
    theta = softplus(theta)
    return stats.nbinom.logpmf(x, theta, theta / (theta + np.exp(log_mean)))


def zero_inflated(x, log_mean, theta, zero_logits):
    return np.logaddexp(
        np.where(x == 0, special.log_expit(zero_logits), -np.inf),
        special.log_expit(-zero_logits) + negative_binomial(x, log_mean, theta),
    )


def continuous_bernoulli(x, logits):
    normalizer = logits / np.tanh(logits / 2.0)  # 2 artanh(1 - 2 p) / (1 - 2 p), with p = expit(logits)
    return np.log(normalizer) + x * special.log_expit(logits) + (1.0 - x) * special.log_expit(-logits)


def quantized_logistic_of_6(x, loc, scale):
    loc, scale = 2.5 + 2.5 * loc, 2.5 * (softplus(scale) + np.exp(-7.0))
    below = np.where(x == 0, 0.0, special.expit((x - 0.5 - loc) / scale))
    above = np.where(x == 5, 1.0, special.expit((x + 0.5 - loc) / scale))
    return np.log(above - below)


def categorical_of_3(params, x):
    logits = params.reshape(*params.shape[:-1], 2, 3)
    chosen = np.eye(3)[x.astype(int)]
    return np.sum(chosen * special.log_softmax(logits, -1), (-2, -1))


def one_hot(params, x):
    return np.sum(x * special.log_softmax(params, -1), -1)


def mixture(component, num_components=2):
    def log_density(params, x):
        weights = special.log_softmax(params[..., :num_components], -1)
        each = params[..., num_components:].reshape(*params.shape[:-1], num_components, -1)
        parts = [weights[..., k] + component(each[..., k, :], x) for k in range(num_components)]
        return special.logsumexp(np.stack(np.broadcast_arrays(*parts)), 0)

    return log_density


def relaxed_at_1_5(params, x, temperature=1.5):
    """Maddison et al., 2017, equation (10)."""
    log_weights, number = special.log_softmax(params, -1), x.shape[-1]
    terms = log_weights - temperature * np.log(x)
    return (
        special.gammaln(number)
        + (number - 1) * np.log(temperature)
        + np.sum(terms - np.log(x), -1)
        - number * special.logsumexp(terms, -1)
    )


def direction_and_concentration(params):
    direction = params[..., :-1] / np.linalg.norm(params[..., :-1], axis=-1, keepdims=True)
    return direction, softplus(params[..., -1]) + 0.01


def von_mises(params, x):
    """The von Mises-Fisher distribution on a circle."""
    direction, concentration = direction_and_concentration(params)
    return stats.vonmises.logpdf(np.arccos(np.clip(np.sum(direction * x, -1), -1, 1)), concentration)


def von_mises_fisher_3(params, x):
    direction, concentration = direction_and_concentration(params)
    log_normalizer = np.log(concentration / (4.0 * np.pi * np.sinh(concentration)))
    return log_normalizer + concentration * np.sum(direction * x, -1)


def power_spherical(params, x):
    """De Cao & Aziz, 2020, equations (3) and (4)."""
    direction, concentration = direction_and_concentration(params)
    b = (x.shape[-1] - 1) / 2.0
    a = b + concentration
    log_normalizer = (a + b) * np.log(2.0) + b * np.log(np.pi) + special.gammaln(a) - special.gammaln(a + b)
    return concentration * np.log1p(np.sum(direction * x, -1)) - log_normalizer


def dirichlet_of_2(params, x):
    a, b = np.moveaxis(softplus(params), -1, 0)
    return (a - 1) * np.log(x[..., 0]) + (b - 1) * np.log(x[..., 1]) - special.betaln(a, b)


@keras.saving.register_keras_serializable(package="layer_cases")
def registered_laplace(params):
    return tfd.Independent(tfd.Laplace(params[..., :1], tf.nn.softplus(params[..., 1:]) + 0.01), 1)


laplace = values(2, 1)(lambda x, loc, scale: stats.laplace.logpdf(x, loc, softplus(scale) + 0.01))
normal = values(2, 2, 1)(lambda x, loc, scale: stats.norm.logpdf(x, loc, softplus(scale)))
scalar_normal = values(2)(lambda x, loc, scale: stats.norm.logpdf(x, loc, softplus(scale)))
normal_of_2 = values(2, 2)(lambda x, loc, scale: stats.norm.logpdf(x, loc, softplus(scale)))
logistic = values(2, 2)(lambda x, loc, scale: stats.logistic.logpdf(x, loc, softplus(scale)))
student_t = values(3, 1)(lambda x, df, loc, scale: stats.t.logpdf(x, softplus(df) + 2.001, loc, softplus(scale)))
student_t_of_3 = values(2, 1)(lambda x, loc, scale: stats.t.logpdf(x, 3.0, loc, softplus(scale)))
gamma = values(2, 2)(lambda x, a, log_rate: stats.gamma.logpdf(x, softplus(a), scale=np.exp(-log_rate)))
bernoulli = values(1, 2, 1, 2)(lambda x, logits: stats.bernoulli.logpmf(x, special.expit(logits)))
scalar_bernoulli = values(1)(lambda x, logits: stats.bernoulli.logpmf(x, special.expit(logits)))
binomial_of_5 = values(1, 2)(lambda x, logits: stats.binom.logpmf(x, 5, special.expit(logits)))
poisson = values(1, 2)(lambda x, log_rate: stats.poisson.logpmf(x, np.exp(log_rate)))

NO_MODE = ("mean", "stddev", "variance")
COUNTS, ONE_HOT = np.arange(80.0), (np.eye(3), np.ones(3))

CASES = [
    Case(
        tfpl.CategoricalMixtureOfOneHotCategorical,
        {"event_size": 3, "num_components": 2},
        8,
        (3,),
        mixture(one_hot),
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
        laplace,
        product((1,), *SHORT_LONG),
    ),
    Case(
        tfpl.Independent,
        {"distribution_class": tfd.Gamma, "event_shape": 2},
        4,
        (2,),
        gamma,
        product((2,), *POSITIVE),
        extreme=3.0,
    ),
    Case(
        tfpl.Independent,
        {"distribution_class": tfd.StudentT, "event_shape": (1,), "constants": {"df": 3.0}},
        2,
        (1,),
        student_t_of_3,
        product((1,), *SHORT_LONG),
    ),
    Case(
        tfpl.Independent,
        {"distribution_class": tfd.Dirichlet, "event_shape": 2},
        2,
        (2,),
        dirichlet_of_2,
        PAIRS,
        extreme=3.0,
    ),
    Case(tfpl.IndependentBernoulli, {"event_shape": (2, 1, 2)}, 4, (2, 1, 2), bernoulli, product((2, 1, 2), [0, 1])),
    Case(tfpl.IndependentBernoulli, {}, 1, (), scalar_bernoulli, product((), np.arange(2.0))),
    Case(
        tfpl.IndependentBinomial,
        {"event_shape": 2, "total_count": 5},
        2,
        (2,),
        binomial_of_5,
        product((2,), np.arange(6.0)),
    ),
    Case(
        tfpl.IndependentCategorical,
        {"event_shape": 2, "num_categories": 3},
        6,
        (2,),
        categorical_of_3,
        product((2,), np.arange(3.0)),
        convert="mode",
    ),
    Case(
        tfpl.IndependentContinuousBernoulli,
        {"event_shape": 2},
        2,
        (2,),
        values(1, 2)(continuous_bernoulli),
        product((2,), *UNIT),
    ),
    Case(tfpl.IndependentLogistic, {"event_shape": 2}, 4, (2,), logistic, product((2,), *LONG)),
    Case(
        tfpl.IndependentNegativeBinomial,
        {"event_shape": 2},
        4,
        (2,),
        values(2, 2)(negative_binomial),
        product((2,), COUNTS),
        extreme=15.0,
        jit=False,
    ),
    Case(tfpl.IndependentNormal, {"event_shape": [2, 1]}, 4, (2, 1), normal, product((2, 1), *LINE)),
    Case(tfpl.IndependentNormal, {}, 2, (), scalar_normal, product((), *LINE)),
    Case(tfpl.IndependentPoisson, {"event_shape": 2}, 2, (2,), poisson, product((2,), COUNTS), extreme=15.0),
    Case(
        tfpl.IndependentQuantizedLogistic,
        {"event_shape": 2, "num_levels": 6},
        4,
        (2,),
        values(2, 2)(quantized_logistic_of_6),
        product((2,), np.arange(6.0)),
        names=("mean",),
    ),
    Case(tfpl.IndependentStudentT, {"event_shape": 1}, 3, (1,), student_t, product((1,), *SHORT_LONG)),
    Case(
        tfpl.IndependentZeroInflatedNegativeBinomial,
        {"event_shape": 2},
        6,
        (2,),
        values(3, 2)(zero_inflated),
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
        mixture(logistic),
        product((2,), *LONG),
        names=NO_MODE,
    ),
    Case(
        tfpl.MixtureNormal,
        {"num_components": 2, "event_shape": 2},
        10,
        (2,),
        mixture(normal_of_2),
        product((2,), *LINE),
        names=NO_MODE,
    ),
    Case(
        tfpl.MixtureSameFamily,
        {"num_components": 2, "component_layer": functools.partial(tfpl.MultivariateNormalTriL, 2)},
        12,
        (2,),
        mixture(multivariate(triangular)),
        product((2,), *LINE),
        names=NO_MODE,
    ),
    Case(tfpl.MultivariateNormalDiag, {"event_size": 2}, 4, (2,), multivariate(diagonal), product((2,), *LINE)),
    Case(
        tfpl.MultivariateNormalDiagPlusLowRank,
        {"event_size": 2, "rank": 1},
        6,
        (2,),
        multivariate(diagonal_plus_low_rank),
        product((2,), *LINE),
        jit=False,
    ),
    Case(tfpl.MultivariateNormalTriL, {"event_size": 2}, 5, (2,), multivariate(triangular), product((2,), *LINE)),
    Case(tfpl.OneHotCategorical, {"event_size": 3}, 3, (3,), one_hot, ONE_HOT, convert=tfd.OneHotCategorical.logits),
    Case(tfpl.OneHotCategoricalStraightThrough, {"event_size": 3}, 3, (3,), one_hot, ONE_HOT, linear=True),
    Case(tfpl.PowerSpherical, {"event_size": 3}, 4, (3,), power_spherical, sphere(), names=("mean",)),
    Case(
        tfpl.RelaxedOneHotCategorical,
        {"event_size": 2, "temperature": 1.5},
        2,
        (2,),
        relaxed_at_1_5,
        PAIRS,
        names=(),
        convert=tfd.RelaxedOneHotCategorical.logits,
    ),
    Case(tfpl.VonMisesFisher, {"event_size": 2}, 3, (2,), von_mises, circle(), names=("mean", "mode")),
    Case(tfpl.VonMisesFisher, {"event_size": 3}, 4, (3,), von_mises_fisher_3, sphere(), names=("mean", "mode")),
]
EXACT = {tfpl.Deterministic}  # no density: all on one value


def rows(condition=lambda case: True):
    return pytest.mark.parametrize("case", [case for case in CASES if condition(case)], ids=str)
