"""Trained VAEs of several distributions, their exports, and requests to them."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import tfp_vae
from tfp_vae import layers as tfpl
from tfp_vae import networks

ROWS, LATENT_SIZE, EVENT_SHAPE = 132, 4, (8, 8, 1)
# 100 draws are no multiple of the 32 that `log_prob` holds at once, so its last step is a partial one.
SAMPLES = {"score_samples": 50, "log_prob_samples": 100}

DIAG, TRIL = (
    (tfpl.MultivariateNormalDiag, {"loc", "scale_diag"}),
    (tfpl.MultivariateNormalTriL, {"loc", "scale_tril"}),
)
# Posterior and likelihood, each with its served parameters; the likelihood's arguments; its data from counts up to 16.
MODELS = {
    "binomial": (
        *DIAG,
        tfpl.IndependentBinomial,
        {"logits"},
        {"total_count": 16},
        lambda counts: counts,
    ),
    "tril-normal": (
        *TRIL,
        tfpl.IndependentNormal,
        {"loc", "scale"},
        {},
        lambda counts: counts / 16,
    ),
    "bernoulli": (
        *DIAG,
        tfpl.IndependentBernoulli,
        {"logits"},
        {},
        lambda counts: np.float32(counts > 8),
    ),
}
INPUTS = {
    "serving_default": "x",
    "encode": "x",
    "decode": "z",
    "reconstruct": "x",
    "sample": "seed",
    "score": "x",
}
INPUTS |= {"log_prob": "x"}


@dataclasses.dataclass(frozen=True)
class Served:
    """A trained VAE, its export loaded without and with this package, and requests of 132 rows."""

    vae: tfp_vae.VAE
    folder: Path
    plain: object
    loaded: tfp_vae.serving.ServedVAE
    inputs: dict[str, np.ndarray]
    outputs: dict[str, set[str]]

    def ask(self, signature: str, request: np.ndarray | None = None) -> dict[str, np.ndarray]:
        name = INPUTS[signature]
        request = self.inputs[name] if request is None else request
        outputs = self.plain.signatures[signature](**{name: tf.constant(request)})
        return {key: value.numpy() for key, value in outputs.items()}


def _train(digits, posterior, likelihood, arguments) -> tfp_vae.VAE:
    keras.utils.set_random_seed(0)
    features = networks.mlp(EVENT_SHAPE, posterior.params_size(LATENT_SIZE), hidden_sizes=(32,))
    parameters = networks.mlp(
        (LATENT_SIZE,), likelihood.params_size(EVENT_SHAPE), hidden_sizes=(32,)
    )
    decoder = keras.Sequential([parameters, likelihood(EVENT_SHAPE, **arguments)])
    vae = tfp_vae.VAE(keras.Sequential([features, posterior(LATENT_SIZE)]), decoder)
    vae.compile(keras.optimizers.Adam(5e-3), jit_compile=False)
    vae.fit(digits, epochs=3, batch_size=100, verbose=0)
    return vae


def serve(base, digits, posterior, encoded, likelihood, decoded, arguments, data) -> Served:
    vae = _train(data(np.float32(digits.train)), posterior, likelihood, arguments)
    noise = np.random.default_rng(0)
    inputs = {
        "x": data(np.float32(digits.test[:ROWS])),
        "z": noise.normal(size=[ROWS, LATENT_SIZE]).astype("float32"),
        "seed": noise.integers(-(2**31), 2**31, [ROWS, 2]).astype("int32"),
    }
    encoded = encoded | {"mean", "stddev"}
    outputs = {
        "serving_default": encoded,
        "encode": encoded,
        "decode": decoded | {"mean"},
        "reconstruct": {"mean"},
    }
    outputs |= {
        "sample": {"z", "x"},
        "score": {"elbo", "log_likelihood", "kl"},
        "log_prob": {"log_prob"},
    }
    folder = vae.export(base, **SAMPLES)
    return Served(
        vae, folder, tf.saved_model.load(str(folder)), tfp_vae.load(base), inputs, outputs
    )


def assert_close(actual, expected, tolerance=1e-5):
    """Compare relative to the largest value, or absolutely where all are below 1."""
    assert np.shape(actual) == np.shape(expected)
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max())
    )


def assert_all_close(actual: dict, expected: dict):
    assert set(actual) == set(expected)
    for name in expected:
        assert_close(actual[name], expected[name])
