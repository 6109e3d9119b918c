"""Variational autoencoders on TensorFlow Probability and Keras 3."""

import importlib as _importlib

try:
    import keras as _keras

    _backend = _keras.backend.backend()
except ImportError as _error:  # Keras fails where its backend is not installed
    _backend = str(_error)
if _backend != "tensorflow":
    raise ImportError(
        f"tfp_vae needs Keras on TensorFlow, but the Keras backend is not tensorflow ({_backend}). "
        "Set the environment variable KERAS_BACKEND=tensorflow before Python starts."
    )

from tfp_vae import (
    datasets,
    evaluation,
    hierarchy,
    layers,
    networks,
    objectives,
    priors,
    sequences,
    serving,
    shapes,
    tables,
)
from tfp_vae.aggregate_prior import fit_aggregate_prior
from tfp_vae.serving import client, load
from tfp_vae.vae import VAE
from tfp_vae.version import __version__


def __getattr__(name: str):
    """Import `tfp_vae.plots` when it is first used: it needs matplotlib, the others do not."""
    if name == "plots":
        return _importlib.import_module("tfp_vae.plots")
    raise AttributeError(f"module 'tfp_vae' has no attribute {name!r}")


__all__ = [
    "VAE",
    "__version__",
    "client",
    "datasets",
    "evaluation",
    "fit_aggregate_prior",
    "hierarchy",
    "layers",
    "load",
    "networks",
    "objectives",
    "plots",
    "priors",
    "sequences",
    "serving",
    "shapes",
    "tables",
]
