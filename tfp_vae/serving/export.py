"""From a trained VAE to a SavedModel that TensorFlow Serving takes as it is."""

import os
from collections.abc import Sequence
from pathlib import Path

import keras
import ml_dtypes
import numpy as np
import tensorflow as tf

from tfp_vae import sampling
from tfp_vae.checks import as_count
from tfp_vae.layers.internals import layers_within
from tfp_vae.layers.parts import map_parts
from tfp_vae.quantity import Quantity
from tfp_vae.seeds import Stream, seed_of
from tfp_vae.serving.checksums import write_checksums
from tfp_vae.serving.companion_files import ModelCard, write_card, write_configurations
from tfp_vae.serving.description import DESCRIBE, DESCRIPTION, describing, description
from tfp_vae.serving.publish import publish
from tfp_vae.serving.signatures import signatures
from tfp_vae.serving.targets import check_targets, write_targets
from tfp_vae.serving.verify import BATCH_SIZES, verify
from tfp_vae.serving.warm_up import write_warm_up
from tfp_vae.vae import VAE

# Up to this many bytes, weights become constants of the graph. A session keeps about fifteen copies
# of each constant, so larger weights stay variables, which it keeps once.
MAX_CONSTANTS = 2**24


def export(
    vae: VAE,
    path: str | os.PathLike,
    *,
    score_samples: int = 16,
    log_prob_samples: int = 128,
    keep: int | None = None,
    card: ModelCard | None = None,
    targets: Sequence[str] = (),
) -> Path:
    """Publish a VAE as the next version, `path/<version>/`, of a served model.

    The SavedModel holds plain TensorFlow: it loads without Keras, TFP or this package. All outputs
    are float32 with the batch as first axis. The version is written to another folder, compared
    with the live model, and then moved into place in one step. The comparison costs as much as
    about 500 rows of each signature, or 70 rows of those that draw: seconds, or more for a large
    model on few cores.

    | signature | input | outputs |
    |---|---|---|
    | `serving_default` = `encode` | x | the posterior's parameters by their tfd names, `mean`, `stddev` |
    | `decode` | z | the likelihood's parameters by their tfd names, `mean` |
    | `reconstruct` | x | `mean` of p(x given z) at the posterior's mean |
    | `sample` | seed, int32 [batch, 2] | `z` from the prior, `x` the mean of p(x given z) |
    | `score` | x | `elbo`, `log_likelihood`, `kl`, in nats, deterministic |
    | `log_prob` | x | importance-weighted estimate of log p(x), in nats, deterministic |
    | (autoencoders) | | `score` gives `log_likelihood` alone, and there is no `log_prob`: points have no density |
    | `posterior_sample` | x, seed | `z`, of a posterior that parameters do not determine: a flow, a hierarchy |
    | `posterior_log_prob` | x, z | `log_prob`, of the same posteriors |
    | `prior_log_prob` | z | `log_prob`, of a prior that fixed parameters do not determine: a flow, a conditional one |
    | `likelihood_sample` | z, seed | `x`, of a likelihood that parameters do not determine: sequences |
    | `likelihood_log_prob` | z, x | `log_prob`, of the same likelihoods |
    | `impute` | x, NaN where missing | `x` with the missing values filled in, of a VAE with `missing=True` |
    | `describe` | row, int32 [batch] | `description`: the json that tells how to read the others, for each row |

    If x or z has several parts, each part is an input with its own name; so is the condition.
    Outputs for a part start with its name, as in `z1_loc`.

    Args:
        vae: a built VAE.
        path: the model's base folder; created if it is missing.
        score_samples: draws of z for each row in `score`.
        log_prob_samples: draws of z for each row in `log_prob`.
        keep: how many versions stay in the folder, the newest ones; None keeps all.
        card: what the version's model card says of data, metrics and pictures.
        targets: "onnx", "openvino" or both: `encode`, `decode` and `reconstruct` also for these, in
            `assets.extra`.

    Returns:
        The new version's folder.

    Raises:
        ValueError: if the VAE is not built, a number is below 1, a distribution has no served form,
            or the version does not answer as the live model does. In these cases nothing is
            published.
        ImportError: if a target's packages are not installed.
        OSError: if the folder cannot be written.
    """
    vae.expect_built()
    numbers = {
        "score_samples": as_count(score_samples, "score_samples"),
        "log_prob_samples": as_count(log_prob_samples, "log_prob_samples"),
    }
    keep = None if keep is None else as_count(keep, "keep")
    targets = check_targets(targets)
    base = Path(path).resolve()  # a link may lead to another file system
    if {*"[]"} & {*str(base)}:
        raise ValueError(
            f"TensorFlow cannot write to {base}: it takes brackets for a pattern. Choose a path "
            "without [ and ]."
        )
    module = tf.Module()
    module.weights, scope = _weights(vae)
    with scope:
        served = signatures(vae, **numbers)
        text = description(vae, served, **numbers)
        served[DESCRIBE] = describing(text)
        traced = {name: function.get_concrete_function() for name, function in served.items()}
    live = {**signatures(vae, **numbers), DESCRIBE: served[DESCRIBE]}
    requests = _requests(vae, live["sample"])

    def write(folder: Path) -> None:
        tf.saved_model.save(module, str(folder), signatures=traced)
        (folder / DESCRIPTION).parent.mkdir()
        (folder / DESCRIPTION).write_text(text)
        inputs = {
            name: {spec.name: requests[spec.name] for spec in live[name].input_signature}
            for name in live
        }
        write_warm_up(folder, base.name, inputs)
        write_card(folder, base.name, vae, text, card or ModelCard())
        try:
            verify(folder, live, requests, dtype=_coarsest_dtype(vae))
            write_targets(folder, targets, requests)
        except ValueError as error:
            raise ValueError(
                f"No version was published, because it would not serve as it should. {error}"
            ) from error
        write_checksums(folder)
        write_configurations(base, aside=folder.parent)

    return publish(write, base, keep=keep)


def _weights(vae: VAE) -> tuple[list, keras.StatelessScope]:
    """Return what holds the weights, and a scope in which functions are traced with them.

    Small weights are constants: a session need not read them again in each request, and oneDNN
    multiplies by them directly. The states of random generators, which recurrent layers have for
    their dropout, are read like weights.
    """
    weights = [weight for part in vae.parts.values() for weight in part.variables]
    variables = [weight.value for weight in weights]
    if (
        sum(variable.shape.num_elements() * variable.dtype.size for variable in variables)
        > MAX_CONSTANTS
    ):
        return variables, keras.StatelessScope()
    constants = [tf.constant(variable) for variable in variables]
    return constants, keras.StatelessScope(zip(weights, constants, strict=True))


def _requests(vae: VAE, sample: tf.types.experimental.PolymorphicFunction) -> dict[str, tf.Tensor]:
    """Draw rows of each input from the model itself, so that they are possible under the model."""
    seed = sampling.row_seeds(BATCH_SIZES[-1], seed=0)
    condition = {}
    if vae.condition is not None:
        # The rows differ, so that the check finds rows that depend on their neighbours.
        condition = {
            "condition": vae.condition.zeros(BATCH_SIZES[-1]) + _zeros_and_ones(vae.condition)
        }
    drawn = sample(seed, *condition.values())
    z = {name: drawn[name] for name in vae.z.shapes}
    x = sampling.sample(
        vae.decode(vae.z.whole(z), *condition.values()), [], seed_of(Stream.EXPORTED_REQUESTS)
    )
    x = map_parts(lambda part: tf.cast(part, tf.float32), vae.x.parts(x))
    if vae.missing:
        x = map_parts(lambda part: tf.where(_alternating(part.shape) > 0, np.nan, part), x)
    return {**x, **z, **condition, "seed": seed, "row": tf.range(BATCH_SIZES[-1])}


def _zeros_and_ones(condition: Quantity) -> tf.Tensor:
    shape = [BATCH_SIZES[-1], *condition.shape]
    highest = 1 if condition.num_labels is None else min(1, condition.num_labels - 1)
    return tf.cast(highest * _alternating(shape), condition.dtype)


def _alternating(shape) -> np.ndarray:
    """Return an array of ones and zeros in which each row differs from the row before it."""
    return np.indices(shape).sum(0) % 2


def _coarsest_dtype(vae: VAE) -> str:
    return max(
        (layer.compute_dtype for layer in layers_within(vae)),
        key=lambda name: ml_dtypes.finfo(name).eps,
    )
