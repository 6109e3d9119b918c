"""From a SavedModel back to distributions."""

import json
import os
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.sampling import row_seeds
from tfp_vae.serving.distributions import rebuild
from tfp_vae.serving.export import DESCRIPTION, FORMAT
from tfp_vae.serving.publish import versions

tfd = tfp.distributions


def load(path: str | os.PathLike) -> "ServedVAE":
    """Load an exported VAE, with distributions in its answers, from the SavedModel alone.

    Args:
        path: a version's folder, or a model's base folder, whose newest version is taken.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it is not a VAE exported by this package.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    if versions(folder):
        folder = folder / str(versions(folder)[-1])
    if not (folder / DESCRIPTION).is_file() or not (folder / "saved_model.pb").is_file():
        raise ValueError(f"{folder} is not a SavedModel written by tfp_vae: it lacks saved_model.pb or {DESCRIPTION}.")
    return ServedVAE(folder)


class ServedVAE:
    """An exported VAE; made by `tfp_vae.load`.

    Its methods answer as the live model's do. Inputs are float32; the batch is the first axis.

    Args:
        folder: a version's folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.description = json.loads((folder / DESCRIPTION).read_text())
        if self.description["format"] != FORMAT:
            raise ValueError(
                f"{folder} has format {self.description['format']}, this version of tfp_vae reads format {FORMAT}. "
                "Update tfp_vae, or export the model again."
            )
        self.event_shape = tuple(self.description["event_shape"])
        self.latent_shape = tuple(self.description["latent_shape"])
        self._model = tf.saved_model.load(str(folder))

    def encode(self, x) -> tfd.Distribution:
        """Give the posterior q(z|x): `[batch, *event_shape]` -> batch shape `[batch]`."""
        return self._distribution("posterior", "encode", x=x)

    def decode(self, z) -> tfd.Distribution:
        """Give the likelihood p(x|z): `[..., latent]` -> batch shape `[...]`."""
        z = tf.cast(z, tf.float32)
        if z.shape[-1:] != self.latent_shape:
            raise ValueError(f"decode takes z of shape [..., {self.latent_shape[0]}], received {z.shape}.")
        flat = self._distribution("likelihood", "decode", z=tf.reshape(z, [-1, *self.latent_shape]))
        batch = z.shape[:-1]
        return (
            flat if batch.rank == 1 else tfd.BatchReshape(flat, batch if batch.is_fully_defined() else tf.shape(z)[:-1])
        )

    def reconstruct(self, x) -> np.ndarray:
        """Give the mean of p(x|z) at the posterior's mean z, the shape of x."""
        return self._call("reconstruct", x=x)["mean"].numpy()

    def generate(self, num_samples: int, seed: int = 0) -> np.ndarray:
        """Draw z from the prior and give the means of p(x|z), `[num_samples, *event_shape]`; as `VAE.generate`."""
        return self._call("sample", seed=row_seeds(num_samples, seed))["x"].numpy()

    def score(self, x) -> dict[str, np.ndarray]:
        """Give `elbo`, `log_likelihood` and `kl`, each `[batch]`, in nats: for anomaly scores."""
        return {name: value.numpy() for name, value in self._call("score", x=x).items()}

    def log_prob(self, x) -> tf.Tensor:
        """Estimate log p(x), `[batch]`, in nats, with the number of draws fixed at export."""
        return self._call("log_prob", x=x)["log_prob"]

    def joint_distribution(self) -> tfd.JointDistribution:
        """Give p(z, x) = p(z) p(x|z) as a `tfd.JointDistributionNamed` of `z` and `x`."""
        if self.description["prior"] is None:
            raise ValueError(
                f"The prior of {self.folder} is not determined by tensors, so the served model has no joint "
                "distribution. Draw from it with generate, or use the live model's joint_distribution()."
            )
        return tfd.JointDistributionNamed({"z": rebuild(self.description["prior"], {}), "x": lambda z: self.decode(z)})

    def _call(self, signature: str, **inputs) -> dict[str, tf.Tensor]:
        function = self._model.signatures[signature]
        ((name, value),) = inputs.items()
        expected = function.structured_input_signature[1][name]
        tensor = tf.convert_to_tensor(value)
        if not expected.shape.is_compatible_with(tensor.shape):
            raise ValueError(f"{signature} takes {name} of shape {expected.shape}, received {tensor.shape}.")
        return function(**{name: tf.cast(tensor, expected.dtype)})

    def _distribution(self, role: str, signature: str, **inputs) -> tfd.Distribution:
        outputs = self._call(signature, **inputs)
        statistics = ("mean", "stddev")
        return rebuild(
            self.description[role], {name: value for name, value in outputs.items() if name not in statistics}
        )
