"""The description of a version: a file next to the model, and an answer of the server."""

import json
from collections.abc import Mapping
from pathlib import Path

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.joint import names_of
from tfp_vae.serving.plain_tensors import describe, is_determined
from tfp_vae.serving.served import FORMAT
from tfp_vae.serving.signatures import asks_for_prior
from tfp_vae.vae import VAE
from tfp_vae.version import __version__

tfd = tfp.distributions

# Path of the description, in the folder that TF Serving reserves for other files.
DESCRIPTION = Path("assets.extra") / "tfp_vae.json"
# The signature that returns the description: a server offers no files, and its metadata have only
# names, shapes and dtypes.
DESCRIBE = "describe"


def description(vae: VAE, functions: Mapping, **numbers: int) -> str:
    """Return as json what `ServedVAE` needs to rebuild distributions, and what a reader wants to
    know.
    """
    condition = None if vae.condition is None else vae.condition.zeros()
    content = {
        "format": FORMAT,
        "event_shape": vae.event_shape,
        "latent_shape": vae.latent_shape,
        "condition_shape": None if vae.condition is None else vae.condition.shape,
        "num_labels": None if vae.condition is None else vae.condition.num_labels,
        "missing": vae.missing,
        "posterior": _describe(vae.some_posterior),
        "likelihood": _describe(vae.decode(vae.z.zeros(), condition)),
        "vocabulary": None if vae.vocabulary is None else vae.vocabulary.get_config(),
        "table": None if vae.table is None else vae.table.get_config(),
        "likelihood_layer": names_of(vae.decoder.layers[-1]),
        "prior": None if asks_for_prior(vae) else describe(vae.own_prior(condition), whole=True)[0],
        **numbers,
        "signatures": {name: _signature(function) for name, function in functions.items()},
        "versions": {
            "tfp_vae": __version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "tfp": tfp.__version__,
        },
    }
    return json.dumps(content, indent=2) + "\n"


def describing(text: str) -> tf.types.experimental.PolymorphicFunction:
    """Make the signature that returns a text once for each row.

    A server with batching needs as many output rows as input rows.
    """

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, "row")], autograph=False)
    def describe_rows(row):
        return {"description": tf.fill(tf.shape(row), text)}

    return describe_rows


def _describe(distribution: tfd.Distribution) -> dict | None:
    """Describe a distribution; None if tensors do not determine it."""
    return describe(distribution)[0] if is_determined(distribution) else None


def _signature(function: tf.types.experimental.PolymorphicFunction) -> dict:
    outputs = function.get_concrete_function().structured_outputs
    return {
        "inputs": {spec.name: _spec(spec) for spec in function.input_signature},
        "outputs": {name: _spec(spec) for name, spec in sorted(outputs.items())},
    }


def _spec(spec: tf.TensorSpec) -> dict:
    return {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}
