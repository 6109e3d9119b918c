"""Priors p(z): Keras layers that are called with None and return a `tfd.Distribution`."""

from tfp_vae.priors.continuous import FlowPrior, HypersphericalUniform, Normal, NormalMixture, StandardNormal, VampPrior
from tfp_vae.priors.discrete import Bernoulli, Categorical, Codes, RelaxedBernoulli, RelaxedCategorical
from tfp_vae.priors.prior import Prior

__all__ = [
    "Bernoulli",
    "Categorical",
    "Codes",
    "FlowPrior",
    "HypersphericalUniform",
    "Normal",
    "NormalMixture",
    "Prior",
    "RelaxedBernoulli",
    "RelaxedCategorical",
    "StandardNormal",
    "VampPrior",
]
