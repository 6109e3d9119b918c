"""How good a VAE is, in numbers: nats per example, unless a name says otherwise."""

from tfp_vae.evaluation.bounds import elbo, evaluate, nll
from tfp_vae.evaluation.latents import (
    active_units,
    codes,
    mutual_information,
    perplexity,
    posterior_means,
)

__all__ = [
    "active_units",
    "codes",
    "elbo",
    "evaluate",
    "mutual_information",
    "nll",
    "perplexity",
    "posterior_means",
]
