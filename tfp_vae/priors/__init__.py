"""Priors p(z): Keras layers that are called with None and return a `tfd.Distribution`."""

from tfp_vae.priors.continuous import HypersphericalUniform, Normal, NormalMixture, StandardNormal, VampPrior
from tfp_vae.priors.prior import Prior

__all__ = ["HypersphericalUniform", "Normal", "NormalMixture", "Prior", "StandardNormal", "VampPrior"]
