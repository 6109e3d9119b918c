"""Is this data possible under this likelihood? Asked before training, answered in words."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.code_vectors import CodeVectors, OverVectors
from tfp_vae.layers.tensor_like import is_a, unwrap

tfd = tfp.distributions


class Takes(NamedTuple):
    """What a distribution takes: in words, as a test of (x, distribution), and what helps where x fails it."""

    values: str
    advice: str
    test: Callable[[np.ndarray, tfd.Distribution], bool]


def _are_whole(x: np.ndarray, low: float = 0.0, high: float = np.inf) -> bool:
    return bool(not (x % 1).any() and low <= x.min() and x.max() <= high)


def _have_norm_one(x: np.ndarray) -> bool:
    return np.allclose(np.linalg.norm(x, axis=-1), 1.0, atol=1e-3)


SCALE = "Scale 8-bit images by x / 255"
COUNTS = Takes("whole numbers of at least 0", "Round the data", lambda x, p: _are_whole(x))
FRACTIONS = Takes("values from 0 to 1", SCALE, lambda x, p: x.min() >= 0.0 and x.max() <= 1.0)
DIRECTIONS = Takes("vectors of length 1", "Divide by their length", lambda x, p: _have_norm_one(x))
# Values strictly between 0 and 1 under a Bernoulli are a warning of their own, so its test lets them pass.
TAKES = {
    tfd.Bernoulli: Takes(
        "zeros and ones",
        f"{SCALE} and binarize them (datasets.load does both)",
        lambda x, p: x.min() >= 0.0 and x.max() <= 1.0,
    ),
    tfd.Binomial: Takes(
        "whole numbers from 0 to total_count",
        "Raise total_count to the largest count, or round the data",
        lambda x, p: _are_whole(x, high=np.max(p.total_count)),
    ),
    tfd.Poisson: COUNTS,
    tfd.NegativeBinomial: COUNTS,
    tfd.ContinuousBernoulli: FRACTIONS,
    tfd.RelaxedBernoulli: FRACTIONS,
    tfd.QuantizedDistribution: Takes(
        "whole numbers from 0 to num_levels - 1",
        "Leave 8-bit images as they are, or raise num_levels",
        lambda x, p: _are_whole(x, np.max(p.low), np.max(p.high)),
    ),
    tfd.Categorical: Takes(
        "whole numbers from 0 to num_categories - 1",
        "Number the categories from 0, or raise num_categories",
        lambda x, p: _are_whole(x, high=p.logits_parameter().shape[-1] - 1),
    ),
    tfd.OneHotCategorical: Takes(
        "vectors of one 1 and zeros",
        "Encode categories by keras.ops.one_hot",
        lambda x, p: bool(np.isin(x, (0, 1)).all() and (x.sum(-1) == 1).all()),
    ),
    tfd.PowerSpherical: DIRECTIONS,
    tfd.VonMisesFisher: DIRECTIONS,
    tfd.Deterministic: Takes(
        "its own location alone", "It is no likelihood: end the decoder in IndependentNormal", lambda x, p: False
    ),
}


def examples_of(data):
    """Return the examples that can be looked at before training: arrays whole, a `tf.data.Dataset`'s first batch.

    None where that is impossible, as of a generator. Data by name are a dict of arrays, which may be nested.

    Raises:
        TypeError: if the data are nothing that a VAE can be trained on.
        ValueError: if a data set has no batch, or arrays by name differ in length.
    """
    if data is None or isinstance(data, (str, bytes, list, tuple)):
        raise TypeError(
            "x must be one array or tensor [num_examples, *event_shape], a dict of such by name, a tf.data.Dataset or "
            f"a keras PyDataset, received a {type(data).__name__}."
        )
    if isinstance(data, tf.data.Dataset):
        data = next(iter(data.take(1)), None)
        if data is None:
            raise ValueError("The data set is empty. Expected at least one batch.")
        data = data[0] if isinstance(data, tuple) else data
    leaves = tf.nest.flatten(data) if isinstance(data, dict) else [data]
    if not all(isinstance(leaf, (np.ndarray, tf.Tensor)) for leaf in leaves):
        if isinstance(data, dict):
            raise TypeError(f"Data by name must be arrays or tensors, received {data!r}.")
        return None
    if len({len(leaf) for leaf in leaves}) > 1:
        raise ValueError(f"The arrays differ in length: {[len(leaf) for leaf in leaves]} for {sorted(data)}.")
    return tf.nest.map_structure(np.asarray, data)


def expect_possible(likelihood: tfd.Distribution, x) -> None:
    """Raise if `x` is empty, not finite, of another shape, or impossible under `likelihood`.

    Args:
        likelihood: a distribution p(x|z), batch shape `[1]`.
        x: data, `[num_examples, *event_shape]`; a dict of such under a joint distribution.

    Raises:
        ValueError: with what was received, what was expected and how to mend it.

    Example:
    >>> expect_possible(tfd.Independent(tfd.Bernoulli(logits=[[0.]]), 1), np.array([[255.]]))
    Traceback (most recent call last):
        ...
    ValueError: The likelihood Bernoulli takes zeros and ones, but x lies in [255, 255]. Scale 8-bit images by x / 255 \
and binarize them (datasets.load does both), or choose another likelihood.
    """
    if is_a(unwrap(likelihood), tfd.JointDistributionNamed):
        if not isinstance(x, dict) or x.keys() != likelihood.model.keys():
            received = sorted(x) if isinstance(x, dict) else "one array"
            raise ValueError(f"x must be a dict of {sorted(likelihood.model)}, received {received}.")
        for name, part in likelihood.model.items():
            try:
                expect_possible(part, x[name])
            except ValueError as error:
                raise ValueError(f"Part {name} of x: {error}") from error
        return
    if x is None:
        return  # nothing of it is observed
    x, likelihood = np.asarray(x), unwrap(likelihood)
    event_shape = tuple(likelihood.event_shape)
    if not x.size:
        raise ValueError(f"The data set is empty: x has shape {x.shape}. Expected at least one example.")
    if x.shape[1:] != event_shape:
        raise ValueError(f"Each example must have shape {event_shape}, received x of shape {x.shape}.")
    if x.dtype.kind not in "biuf":
        raise ValueError(
            f"x must be numbers, received {x.dtype}. Number categories, as numpy.unique(x, return_inverse=True) does."
        )
    if not np.isfinite(x).all():
        raise ValueError(
            f"x holds {np.count_nonzero(~np.isfinite(x))} values that are NaN or infinite. Remove or replace them, or "
            "set what is missing to NaN and make the VAE with missing=True."
        )
    base = innermost(likelihood)
    takes = next((takes for kind, takes in TAKES.items() if isinstance(base, kind)), None)
    if takes is None:
        return  # a distribution over all real numbers
    if not takes.test(x, base):
        between = ", not all whole" if (x % 1).any() else ""
        raise ValueError(
            f"The likelihood {type(base).__name__} takes {takes.values}, but x lies in [{x.min():g}, {x.max():g}]"
            f"{between}. {takes.advice}, or choose another likelihood."
        )


def check_support(likelihood: tfd.Distribution, x) -> None:
    """Do as `expect_possible`, and warn if `x` has values between 0 and 1 under a likelihood of bits."""
    expect_possible(likelihood, x)
    likelihood = unwrap(likelihood)
    is_joint = is_a(likelihood, tfd.JointDistributionNamed)
    for part, values in (
        [(likelihood.model[name], x[name]) for name in likelihood.model] if is_joint else [(likelihood, x)]
    ):
        if values is not None and isinstance(innermost(unwrap(part)), tfd.Bernoulli) and (np.asarray(values) % 1).any():
            warnings.warn(
                "x holds values strictly between 0 and 1. The Bernoulli log_prob of such a value is a cross-entropy, "
                "not a log-likelihood. Binarize x, or use a likelihood of continuous values.",
                stacklevel=4,  # the line that called `fit`
            )


def innermost(distribution: tfd.Distribution) -> tfd.Distribution:
    """Return the distribution that decides which values are possible, inside those that wrap, mix or inflate it."""
    while True:
        if is_a(distribution, tfd.MixtureSameFamily):
            distribution = distribution.components_distribution
        elif is_a(distribution, tfd.Independent, tfd.BatchReshape, tfd.Inflated):
            distribution = distribution.distribution
        else:
            return distribution


def is_point(distribution: tfd.Distribution) -> bool:
    """Return whether a part of it is a single point among the real numbers, which has no density.

    >>> is_point(tfd.Independent(tfd.Deterministic([0., 1.]), 1)), is_point(tfd.Normal(0., 1.))
    (True, False)
    """
    parts = distribution.model.values() if is_a(distribution, tfd.JointDistributionNamed) else [distribution]
    points = tfd.Deterministic, tfd.VectorDeterministic
    return any(isinstance(innermost(unwrap(part)), points) for part in parts if isinstance(part, tfd.Distribution))


# Where the values of a distribution lie, if not in all of real space.
SPACES = {
    OverVectors: "code vectors",
    tfd.PowerSpherical: "the unit sphere",
    tfd.VonMisesFisher: "the unit sphere",
    tfd.SphericalUniform: "the unit sphere",
    tfd.OneHotCategorical: "one-hot vectors",
    tfd.RelaxedOneHotCategorical: "the simplex",
    tfd.Dirichlet: "the simplex",
    tfd.Bernoulli: "zeros and ones",
    tfd.RelaxedBernoulli: "the unit cube",
    tfd.ContinuousBernoulli: "the unit cube",
    tfd.Beta: "the unit cube",
}


def check_pair(posterior: tfd.Distribution, prior: tfd.Distribution) -> None:
    """Raise if posterior and prior are distributions over different things, so that no KL divergence is defined.

    Raises:
        ValueError: naming both.

    Example:
    >>> check_pair(tfd.PowerSpherical([0., 1.], 1.), tfd.MultivariateNormalDiag([0., 0.]))
    Traceback (most recent call last):
        ...
    ValueError: The posterior PowerSpherical lies on the unit sphere, the prior MultivariateNormalDiag on all vectors: \
their KL divergence is not defined. Choose a prior on the unit sphere.
    """
    if is_a(posterior, tfd.JointDistributionNamed) and is_a(prior, tfd.JointDistributionNamed):
        for name in posterior.model.keys() & prior.model.keys():
            if all(isinstance(joint.model[name], tfd.Distribution) for joint in (posterior, prior)):
                check_pair(posterior.model[name], prior.model[name])
        return
    inner = [innermost(unwrap(distribution)) for distribution in (posterior, prior)]
    if is_point(prior) or (isinstance(inner[1], OverVectors) and not isinstance(inner[1], CodeVectors)):
        raise ValueError(
            f"The prior {type(inner[1]).__name__} has all its probability on a few points: the KL divergence to it is "
            "infinite. Choose a prior that spreads, such as StandardNormal, or Codes for quantized vectors."
        )
    spaces = [next((space for kind, space in SPACES.items() if isinstance(d, kind)), "all vectors") for d in inner]
    if spaces[0] != spaces[1]:
        names = [type(distribution).__name__ for distribution in inner]
        raise ValueError(
            f"The posterior {names[0]} lies on {spaces[0]}, the prior {names[1]} on {spaces[1]}: their KL divergence "
            f"is not defined. Choose a prior on {spaces[0]}."
        )
    if isinstance(inner[0], OverVectors):
        _expect_same_codebook(*inner)


def _expect_same_codebook(posterior: OverVectors, prior: OverVectors) -> None:
    books = [tf.get_static_value(distribution.codebook) for distribution in (posterior, prior)]
    same_shape = posterior.codebook.shape == prior.codebook.shape
    if not same_shape or (books[0] is not None and np.not_equal(*books).any()):
        raise ValueError(
            f"The prior has {prior.codebook.shape[0]} code vectors of its own, other than the posterior's "
            f"{posterior.codebook.shape[0]}. Make it of the encoder's layer: priors.Codes(encoder.layers[-1])."
        )
