"""Objectives: they turn the results of one stochastic pass into loss terms for each example, in
nats.
"""

from tfp_vae.objectives import (
    aggregate_posterior,
    elbo,
    importance,
    one_pass,
    reconstruction,
    schedules,
)
from tfp_vae.objectives.aggregate_posterior import *
from tfp_vae.objectives.elbo import *
from tfp_vae.objectives.importance import *
from tfp_vae.objectives.one_pass import *
from tfp_vae.objectives.reconstruction import *
from tfp_vae.objectives.schedules import *

__all__ = [
    *aggregate_posterior.__all__,
    *elbo.__all__,
    *importance.__all__,
    *one_pass.__all__,
    *reconstruction.__all__,
    *schedules.__all__,
]
