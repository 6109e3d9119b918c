"""Priors p(z): Keras layers that are called with None and return a `tfd.Distribution`."""

from tfp_vae.priors import (
    continuous,
    discrete,
    prior,
)
from tfp_vae.priors.continuous import *
from tfp_vae.priors.discrete import *
from tfp_vae.priors.prior import *

__all__ = [
    *continuous.__all__,
    *discrete.__all__,
    *prior.__all__,
]
