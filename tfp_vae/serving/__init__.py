"""Serving: export a VAE as a SavedModel for TensorFlow Serving, and use an exported one through
distributions.
"""

from tfp_vae.serving.client import client
from tfp_vae.serving.companion_files import ModelCard
from tfp_vae.serving.export import export
from tfp_vae.serving.load import load
from tfp_vae.serving.served import ServedVAE

__all__ = ["ModelCard", "ServedVAE", "client", "export", "load"]
