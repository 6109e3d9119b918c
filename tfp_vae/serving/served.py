"""An exported VAE, wherever it runs: its methods give distributions back from the answers of its signatures."""

import json
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.fold import unfold
from tfp_vae.sampling import row_seeds
from tfp_vae.serving.distributions import rebuild

tfd = tfp.distributions

# Of the description: raised when it has to be read in another way.
FORMAT = 2
# A signature and its inputs in, its outputs out.
Answer = Callable[[str, Mapping[str, tf.Tensor]], Mapping[str, tf.Tensor]]


class ServedVAE:
    """An exported VAE; made by `tfp_vae.load` from a folder, by `tfp_vae.client` from a server.

    Its methods answer as the live model's do. Inputs become float32; the batch is the first axis.

    Args:
        answer: gives the outputs of a signature for its inputs, tensors by name.
        description: the json text that `tfp_vae.serving.export` writes.
        source: the folder or the server, named in errors.

    Raises:
        ValueError: if the description is of another format. Of each method: if an input is no array of real numbers, of
            another shape, empty or not finite.
    """

    def __init__(self, answer: Answer, description: str, source: str):
        self.description, self.source = json.loads(description), source
        if self.description["format"] != FORMAT:
            raise ValueError(
                f"{source} has format {self.description['format']}, this version of tfp_vae reads format {FORMAT}. "
                "Update tfp_vae, or export the model again."
            )
        self.event_shape = tuple(self.description["event_shape"])
        self.latent_shape = tuple(self.description["latent_shape"])
        self._answer = answer

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
        return flat if batch.rank == 1 else unfold(flat, batch if batch.is_fully_defined() else tf.shape(z)[:-1])

    def reconstruct(self, x) -> np.ndarray:
        """Give the mean of p(x|z) at the posterior's mean z, the shape of x."""
        return self.call("reconstruct", x=x)["mean"].numpy()

    def generate(self, num_samples: int, seed: int = 0) -> np.ndarray:
        """Draw z from the prior and give the means of p(x|z), `[num_samples, *event_shape]`; as `VAE.generate`."""
        return self.call("sample", seed=row_seeds(num_samples, seed))["x"].numpy()

    def score(self, x) -> dict[str, np.ndarray]:
        """Give `elbo`, `log_likelihood` and `kl`, each `[batch]`, in nats: for anomaly scores."""
        return {name: value.numpy() for name, value in self.call("score", x=x).items()}

    def log_prob(self, x) -> tf.Tensor:
        """Estimate log p(x), `[batch]`, in nats, with the number of draws fixed at export."""
        return self.call("log_prob", x=x)["log_prob"]

    def joint_distribution(self) -> tfd.JointDistribution:
        """Give p(z, x) = p(z) p(x|z) as a `tfd.JointDistributionNamed` of `z` and `x`."""
        if self.description["prior"] is None:
            raise ValueError(
                f"The prior of {self.source} is not determined by tensors, so the served model has no joint "
                "distribution. Draw from it with generate, or use the live model's joint_distribution()."
            )
        return tfd.JointDistributionNamed({"z": rebuild(self.description["prior"], {}), "x": lambda z: self.decode(z)})

    def call(self, signature: str, **inputs) -> Mapping[str, tf.Tensor]:
        """Give the plain outputs of a signature."""
        expected = self.description["signatures"][signature]["inputs"]
        if set(inputs) != set(expected):
            raise ValueError(f"{signature} takes {', '.join(expected)}; received {', '.join(inputs) or 'nothing'}.")
        return self._answer(signature, {name: _check(signature, name, inputs[name], expected[name]) for name in inputs})

    def _distribution(self, role: str, signature: str, **inputs) -> tfd.Distribution:
        outputs = self.call(signature, **inputs)
        statistics = ("mean", "stddev")
        return rebuild(
            self.description[role], {name: value for name, value in outputs.items() if name not in statistics}
        )


def _check(signature: str, name: str, value, expected: dict) -> tf.Tensor:
    """Bring an input to its dtype, and check it: a server would answer something, or stumble later and say less."""
    takes, dtype = f"{signature} takes {name} of shape {expected['shape']}", tf.as_dtype(expected["dtype"])
    try:
        tensor = tf.convert_to_tensor(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{takes}, received what is no array: {error}") from error
    if not (tensor.dtype.is_integer or (dtype.is_floating and (tensor.dtype.is_floating or tensor.dtype.is_bool))):
        raise ValueError(f"{takes} and dtype {dtype.name}, received dtype {tensor.dtype.name}.")
    if not tf.TensorShape(expected["shape"]).is_compatible_with(tensor.shape):
        raise ValueError(f"{takes}, received {tensor.shape}.")
    if tensor.shape.rank and tensor.shape[0] == 0:
        raise ValueError(f"{takes}, with at least one row, received {tensor.shape}.")
    tensor = tf.cast(tensor, dtype)
    if dtype.is_floating and tf.executing_eagerly() and not np.isfinite(tensor).all():
        row = int(np.argmin(np.isfinite(tensor).reshape(len(tensor), -1).all(1)))
        raise ValueError(
            f"{takes}, all finite in float32, but row {row} has a value that is not: {_first(tensor[row])}."
        )
    return tensor


def _first(row: tf.Tensor) -> float:
    values = np.ravel(row)
    return float(values[~np.isfinite(values)][0])
