"""Serving: export a VAE as a SavedModel for TensorFlow Serving, and get distributions back from one."""

from tfp_vae.serving.export import export
from tfp_vae.serving.load import ServedVAE, load

__all__ = ["ServedVAE", "export", "load"]
