"""Random codes of a plain autoencoder, decoded beside a VAE's: what every introduction says, measured.

The same two networks are trained as an autoencoder, as a regularized one, as a VAE and as a VQ-VAE. Each decodes codes
drawn from the prior, N(0, I) or uniform codes, and codes drawn from a mixture fitted to the codes of the training data.
The pictures are judged by two models of the real digits: how sure a random forest is of what digit it sees, and how
likely the picture is under a mixture of normals. The real test digits show what can be had.

Run: python examples/autoencoder_samples.py [picture.png]
"""

import sys

import keras
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline

import tfp_vae
from tfp_vae import layers as tfpl
from tfp_vae import networks, objectives

LATENT_SIZE = 16
POINTS = tfpl.Deterministic, {"event_shape": LATENT_SIZE}
# Posterior, objective, and weight decay of the decoder.
MODELS = {
    "autoencoder": (*POINTS, objectives.Reconstruction(), 0.0),
    "RAE-L2": (*POINTS, objectives.Reconstruction(latent_penalty=1.0), 1e-3),
    "VAE": (tfpl.MultivariateNormalDiag, {"event_size": LATENT_SIZE}, objectives.ELBO(), 0.0),
    "VQ-VAE": (
        tfpl.VectorQuantized,
        {"event_shape": (LATENT_SIZE, 4), "num_codes": 32},
        objectives.ELBO(),
        0.0,
    ),
}


def make_vae(
    posterior, arguments: dict, objective: objectives.Objective, decay: float
) -> tfp_vae.VAE:
    """Make a model: the same hidden layers, whatever the codes between them."""
    keras.utils.set_random_seed(0)
    size = posterior.params_size(
        next(value for name, value in arguments.items() if name.startswith("event"))
    )
    encoder = keras.Sequential(
        [networks.mlp((8, 8, 1), size, hidden_sizes=(200,)), posterior(**arguments)]
    )
    regularizer = keras.regularizers.L2(decay) if decay else None
    network = networks.mlp(
        encoder.output_shape[1:], 64, hidden_sizes=(200,), kernel_regularizer=regularizer
    )
    decoder = keras.Sequential([network, tfpl.IndependentBinomial((8, 8, 1), total_count=16)])
    return tfp_vae.VAE(encoder, decoder, objective=objective)


class Judge:
    """Two models of real digits, which say how much a picture looks like one.

    Args:
        x, labels: real digits and what they are.
    """

    def __init__(self, x: np.ndarray, labels: np.ndarray):
        self.forest = RandomForestClassifier(300, random_state=0).fit(_flat(x), labels)
        self.density = make_pipeline(
            PCA(16, random_state=0), GaussianMixture(10, random_state=0)
        ).fit(_flat(x))

    def __call__(self, x: np.ndarray) -> dict[str, float]:
        confidence = self.forest.predict_proba(_flat(x)).max(-1)
        return {
            "confidence": float(confidence.mean()),
            "log-likelihood": float(self.density.score(_flat(x))),
        }


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1).astype("float64")


def draw(pictures: dict[str, np.ndarray], rows: dict[str, dict[str, float]]) -> Figure:
    """Draw a row of pictures for each way to have them, with its numbers."""
    figure = Figure(figsize=(11, 0.75 * len(pictures)), layout="constrained")
    for axes, (name, x) in zip(figure.subplots(len(pictures), 12), pictures.items(), strict=True):
        for axis, image in zip(axes, x, strict=False):
            axis.imshow(image[..., 0], cmap="gray_r", vmin=0.0, vmax=16.0)
            axis.set(xticks=[], yticks=[])
        text = f"{name}\n{rows[name]['confidence']:.2f}, {rows[name]['log-likelihood']:.0f} nats"
        axes[0].set_ylabel(text, rotation=0, ha="right", va="center", fontsize=9)
    return figure


def main(
    picture: str | None = None, epochs: int = 60, num_samples: int = 500
) -> dict[str, dict[str, float]]:
    """Train the four, judge their samples, print and draw."""
    splits = tfp_vae.datasets.load("digits")
    judge = Judge(splits.train, labels_of(splits.train))
    pictures = {"real digits": splits.test.astype("float32")}
    for name, arguments in MODELS.items():
        vae = make_vae(*arguments)
        vae.compile(keras.optimizers.Adam(2e-3), steps_per_execution=14)
        vae.fit(splits.train, batch_size=100, epochs=epochs, verbose=0)
        prior = tfp_vae.fit_aggregate_prior(vae, splits.train)
        pictures[name] = vae.generate(num_samples)
        pictures[f"{name}, fitted prior"] = vae.generate(num_samples, prior=prior)
    rows = {name: judge(x) for name, x in pictures.items()}
    print(f"{'':28}confidence   log-likelihood")
    for name, numbers in rows.items():
        print(f"{name:28}{numbers['confidence']:10.2f}{numbers['log-likelihood']:17.1f}")
    if picture:
        draw(pictures, rows).savefig(picture, dpi=120)
    return rows


def labels_of(x: np.ndarray) -> np.ndarray:
    """Look up what digits these are: the package shuffles them, and leaves the labels behind."""
    images, labels = load_digits(return_X_y=True)
    known = dict(zip(map(bytes, images.astype("uint8")), labels, strict=True))
    return np.array([known[bytes(image)] for image in _flat(x).astype("uint8")])


if __name__ == "__main__":
    main(*sys.argv[1:])
