"""How good a VAE is, in numbers: nats per example, unless a name says otherwise."""

from tfp_vae.evaluation.bounds import elbo, evaluate, nll
from tfp_vae.evaluation.dimensions import kl_by_dimension
from tfp_vae.evaluation.latents import (
    active_units,
    codes,
    mutual_information,
    perplexity,
    posterior_means,
)
from tfp_vae.evaluation.neighbours import nearest

__all__ = [
    "active_units",
    "codes",
    "elbo",
    "evaluate",
    "kl_by_dimension",
    "mutual_information",
    "nearest",
    "nll",
    "perplexity",
    "posterior_means",
]
