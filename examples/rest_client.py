"""Find unusual digits with a served model, by REST and without TensorFlow.

Serve the model, as docs/serving.md says, then: python examples/rest_client.py http://localhost:8501 digits
"""

import sys

import numpy as np
import requests
from sklearn.datasets import load_digits


def predict(url: str, model: str, signature: str, **inputs: np.ndarray):
    """Send arrays in column form; give the outputs by name, or the only output."""
    body = {
        "signature_name": signature,
        "inputs": {name: value.tolist() for name, value in inputs.items()},
    }
    response = requests.post(f"{url}/v1/models/{model}:predict", json=body, timeout=10)
    if not response.ok:
        raise RuntimeError(response.json()["error"])
    outputs = response.json()["outputs"]
    return (
        {name: np.array(value) for name, value in outputs.items()}
        if isinstance(outputs, dict)
        else np.array(outputs)
    )


def main(url: str, model: str, *, num_examples: int = 100) -> float:
    """Spoil half of some digits, and find these by their score: give the share of pairs that are told apart."""
    x = load_digits().images[-num_examples:, :, :, np.newaxis].astype("float32")
    spoiled = (
        np.random.default_rng(0).permuted(x.reshape(num_examples, -1), axis=1).reshape(x.shape)
    )
    good, bad = (predict(url, model, "score", x=each)["elbo"] for each in (x, spoiled))
    told_apart = float(np.mean(good[:, np.newaxis] > bad))
    print(
        f"-ELBO of digits {-good.mean():.1f}, of shuffled ones {-bad.mean():.1f}: {told_apart:.1%} told apart"
    )
    latent = predict(url, model, "encode", x=x[:1])
    print(
        f"The first digit's code: {latent['mean'][0, :4].round(2)} ... +- {latent['stddev'][0, :4].round(2)} ..."
    )
    restored = predict(url, model, "reconstruct", x=x)
    print(f"Mean difference of the reconstructions: {np.abs(restored - x).mean():.2f} of 16")
    return told_apart


if __name__ == "__main__":
    main(*sys.argv[1:])
