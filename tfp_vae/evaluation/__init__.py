"""How good a VAE is, in numbers: nats per example, unless a name says otherwise."""

from tfp_vae.evaluation.annealing import (
    annealed_log_prob,
    bounds_on_simulated_data,
    rate_distortion,
)
from tfp_vae.evaluation.bounds import elbo, evaluate, importance_sampling, nll
from tfp_vae.evaluation.errors import Estimate
from tfp_vae.evaluation.latents import (
    active_units,
    aggregate_kl,
    codes,
    mutual_information,
    perplexity,
    posterior_means,
)

__all__ = [
    "Estimate",
    "active_units",
    "aggregate_kl",
    "annealed_log_prob",
    "bounds_on_simulated_data",
    "codes",
    "elbo",
    "evaluate",
    "importance_sampling",
    "mutual_information",
    "nll",
    "perplexity",
    "posterior_means",
    "rate_distortion",
]
