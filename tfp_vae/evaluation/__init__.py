"""How good a VAE is, in numbers: nats per example, unless a name says otherwise."""

from tfp_vae.evaluation.annealing import (
    annealed_log_prob,
    bounds_on_simulated_data,
    rate_distortion,
)
from tfp_vae.evaluation.bounds import elbo, evaluate, importance_sampling, nll
from tfp_vae.evaluation.dimensions import kl_by_dimension
from tfp_vae.evaluation.disentanglement import (
    DCI,
    beta_vae_score,
    dci,
    factor_vae_score,
    mutual_information_gap,
    sap,
)
from tfp_vae.evaluation.errors import Estimate
from tfp_vae.evaluation.latents import (
    active_units,
    aggregate_kl,
    codes,
    mutual_information,
    perplexity,
    posterior_means,
)
from tfp_vae.evaluation.neighbours import nearest
from tfp_vae.evaluation.outliers import auroc, negative_elbo, negative_log_prob, typicality
from tfp_vae.evaluation.predictive import (
    PredictiveCheck,
    predictive_check,
    reconstruction_errors,
)
from tfp_vae.evaluation.probes import knn, linear_probe
from tfp_vae.evaluation.samples import (
    Features,
    frechet_distance,
    mmd,
    precision_recall,
    sample_quality,
)

__all__ = [
    "DCI",
    "Estimate",
    "Features",
    "PredictiveCheck",
    "active_units",
    "aggregate_kl",
    "annealed_log_prob",
    "auroc",
    "beta_vae_score",
    "bounds_on_simulated_data",
    "codes",
    "dci",
    "elbo",
    "evaluate",
    "factor_vae_score",
    "frechet_distance",
    "importance_sampling",
    "kl_by_dimension",
    "knn",
    "linear_probe",
    "mmd",
    "mutual_information",
    "mutual_information_gap",
    "nearest",
    "negative_elbo",
    "negative_log_prob",
    "nll",
    "perplexity",
    "posterior_means",
    "precision_recall",
    "predictive_check",
    "rate_distortion",
    "reconstruction_errors",
    "sample_quality",
    "sap",
    "typicality",
]
