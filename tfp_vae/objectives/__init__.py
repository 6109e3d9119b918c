"""Objectives: what one stochastic pass produced goes in, loss terms for each example come out, in nats."""

from tfp_vae.objectives.aggregate import DIPVAE, WAE, BetaTCVAE, FactorVAE, InfoVAE, max_mean_discrepancy
from tfp_vae.objectives.elbo import ELBO, ControlledCapacity
from tfp_vae.objectives.importance import (
    CIWAE,
    IWAE,
    MIWAE,
    PIWAE,
    Renyi,
    importance_sampled_log_prob,
    log_prob_by_recomputation,
)
from tfp_vae.objectives.one_pass import Objective, OnePass, analytic_kl, as_vectors, is_reparameterized, kl_is_analytic
from tfp_vae.objectives.reconstruction import Reconstruction
from tfp_vae.objectives.schedules import CyclicalSchedule

__all__ = [
    "CIWAE",
    "DIPVAE",
    "ELBO",
    "IWAE",
    "MIWAE",
    "PIWAE",
    "WAE",
    "BetaTCVAE",
    "ControlledCapacity",
    "CyclicalSchedule",
    "FactorVAE",
    "InfoVAE",
    "Objective",
    "OnePass",
    "Reconstruction",
    "Renyi",
    "analytic_kl",
    "as_vectors",
    "importance_sampled_log_prob",
    "is_reparameterized",
    "kl_is_analytic",
    "log_prob_by_recomputation",
    "max_mean_discrepancy",
]
