"""From a trained VAE to a SavedModel that TensorFlow Serving takes as it is."""

import json
import os
from pathlib import Path

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.checks import as_count
from tfp_vae.serving.distributions import describe
from tfp_vae.serving.publish import publish
from tfp_vae.serving.signatures import signatures
from tfp_vae.vae import VAE

# Beside the model, where TF Serving leaves room for other files.
DESCRIPTION = Path("assets.extra") / "tfp_vae.json"
# Of that file: raised when `load` has to read it in another way.
FORMAT = 1


def export(vae: VAE, path: str | os.PathLike, *, score_samples: int = 16, log_prob_samples: int = 128) -> Path:
    """Publish a VAE as the next version, `path/<version>/`, of a served model.

    The SavedModel holds plain TensorFlow: it loads without Keras, TFP or this package. All outputs are float32 with the
    batch as first axis.

    | signature | input | outputs |
    |---|---|---|
    | `serving_default` = `encode` | x | the posterior's parameters by their tfd names, `mean`, `stddev` |
    | `decode` | z | the likelihood's parameters by their tfd names, `mean` |
    | `reconstruct` | x | `mean` of p(x given z) at the posterior's mean |
    | `sample` | seed, int32 [batch, 2] | `z` from the prior, `x` the mean of p(x given z) |
    | `score` | x | `elbo`, `log_likelihood`, `kl`, in nats, deterministic |
    | `log_prob` | x | importance-weighted estimate of log p(x), in nats, deterministic |

    Args:
        vae: a built VAE.
        path: the model's base folder; made where it is missing.
        score_samples: draws of z a row in `score`.
        log_prob_samples: draws of z a row in `log_prob`.

    Returns:
        The new version's folder.

    Raises:
        ValueError: if the VAE is not built, a number of samples is below 1, or a distribution has no served form.
        OSError: if the folder cannot be written.
    """
    if not vae.built:
        raise ValueError("The VAE is not built yet: call it on data, fit it, or give its networks a keras.Input.")
    score_samples, log_prob_samples = (
        as_count(score_samples, "score_samples"),
        as_count(log_prob_samples, "log_prob_samples"),
    )
    description = json.dumps(_description(vae, score_samples, log_prob_samples), indent=2)
    functions = signatures(vae, score_samples=score_samples, log_prob_samples=log_prob_samples)
    module = tf.Module()
    module.weights = [weight.value for weight in vae.weights]

    def write(folder: Path) -> None:
        tf.saved_model.save(module, str(folder), signatures=functions)
        (folder / DESCRIPTION).parent.mkdir()
        (folder / DESCRIPTION).write_text(description + "\n")

    return publish(write, Path(path))


def _description(vae: VAE, score_samples: int, log_prob_samples: int) -> dict:
    """What `load` needs to give distributions back, and what a reader wants to know."""
    posterior, _ = describe(vae.encode(tf.zeros([1, *vae.event_shape])))
    likelihood, _ = describe(vae.decode(tf.zeros([1, *vae.latent_shape])))
    return {
        "format": FORMAT,
        "event_shape": vae.event_shape,
        "latent_shape": vae.latent_shape,
        "posterior": posterior,
        "likelihood": likelihood,
        "prior": _prior(vae),
        "score_samples": score_samples,
        "log_prob_samples": log_prob_samples,
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__, "tfp": tfp.__version__},
    }


def _prior(vae: VAE) -> dict | None:
    """Describe the prior; None if tensors do not determine it, which only `ServedVAE.joint_distribution` would need."""
    try:
        return describe(vae.prior_distribution(), whole=True)[0]
    except ValueError:
        return None
