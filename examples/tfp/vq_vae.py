"""A vector-quantized autoencoder of two codes, so few that its log p(x) can be summed.

The encoder's features become the nearest of 64 code vectors, twice. The bound that VQ-VAEs report, -log p(x|z) at the
chosen codes and the log of the number of codes, is compared with the sum over all 64^2 pairs of codes; and with the
sum under a prior that has learned which pairs occur.

Reference: van den Oord et al., 2017, Neural discrete representation learning, arXiv:1711.00937. After TFP's example of
the same name.

Run: python examples/tfp/vq_vae.py [picture.png]
"""

import sys
import time

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
import tensorflow_probability as tfp
from matplotlib.figure import Figure

import tfp_vae
from tfp_vae import layers as tfpl

tfd = tfp.distributions
IMAGE_SHAPE = (28, 28, 1)
NUM_VECTORS, NUM_CODES, CODE_SIZE = 2, 64, 16
# All pairs of codes, and the log-probability of each when all are equal.
PAIRS = np.stack(np.unravel_index(np.arange(NUM_CODES**2), [NUM_CODES, NUM_CODES]), -1)
UNIFORM = np.full(len(PAIRS), -np.log(len(PAIRS)), "float32")


def load_images(split: str, seed: int) -> np.ndarray:
    """Return black and white digits: each pixel is drawn with its brightness as probability."""
    images = tfds.as_numpy(tfds.load("mnist", split=split, batch_size=-1))["image"]
    return tfp_vae.datasets.binarize(tf.constant(images), tf.constant([0, seed])).numpy()


def commitment(q: tfd.Distribution) -> tf.Tensor:
    """Return what pulls features to their codes: a sum, for Keras divides it by the size of the batch."""
    return tf.reduce_sum(q.commitment_loss())


def make_networks() -> tuple[keras.Model, keras.Model]:
    """Make the encoder, which ends in code vectors, and the decoder p(x|z)."""
    relu = {"padding": "same", "activation": "relu"}
    codes = tfpl.VectorQuantized(
        (NUM_VECTORS, CODE_SIZE), NUM_CODES, activity_regularizer=commitment
    )
    encoder = keras.Sequential(
        [
            keras.Input(IMAGE_SHAPE),
            keras.layers.Conv2D(16, 4, strides=2, **relu),
            keras.layers.Conv2D(32, 4, strides=2, **relu),
            keras.layers.Flatten(),
            keras.layers.Dense(256, "relu"),
            keras.layers.Dense(NUM_VECTORS * CODE_SIZE),
            codes,
        ]
    )
    decoder = keras.Sequential(
        [
            keras.Input((NUM_VECTORS, CODE_SIZE)),
            keras.layers.Flatten(),
            keras.layers.Dense(256, "relu"),
            keras.layers.Dense(7 * 7 * 32, "relu"),
            keras.layers.Reshape((7, 7, 32)),
            keras.layers.Conv2DTranspose(16, 4, strides=2, **relu),
            keras.layers.Conv2DTranspose(1, 4, strides=2, padding="same"),
            keras.layers.Flatten(),
            tfpl.IndependentBernoulli(IMAGE_SHAPE),
        ]
    )
    return encoder, decoder


def train(model: keras.Model, x: np.ndarray, epochs: int, batch_size: int) -> None:
    """Maximize log p(x|z) at the chosen codes."""
    steps = epochs * -(-len(x) // batch_size)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        loss=lambda x, rv_x: -rv_x.log_prob(x),
    )
    model.fit(x, x, batch_size=batch_size, epochs=epochs, verbose=0)


def chosen_pairs(encoder: keras.Model, x: np.ndarray) -> np.ndarray:
    """Return the number of each image's pair of codes, a row of `PAIRS`."""
    batches = np.array_split(x, -(-len(x) // 1000))
    codes = np.concatenate([encoder(batch).codes for batch in batches])
    return np.ravel_multi_index(codes.T, [NUM_CODES, NUM_CODES])


def log_likelihoods(encoder, decoder, x: np.ndarray) -> np.ndarray:
    """Return log p(x|z) of each image and each pair of codes."""
    rv_x = decoder(encoder.layers[-1].vectors(PAIRS))
    return np.stack([rv_x.log_prob(image) for image in x])


def fitted_prior(pairs: np.ndarray) -> np.ndarray:
    """Return the log-probability of each pair, as it occurs; a tenth is uniform, for pairs that were never seen."""
    shares = np.bincount(pairs, minlength=len(PAIRS)) / len(pairs)
    return np.log(0.9 * shares + 0.1 / len(PAIRS))


def log_evidence(log_likelihoods: np.ndarray, log_prior: np.ndarray) -> float:
    """Return the mean of log p(x): the sum over all pairs."""
    return float(tf.reduce_mean(tf.reduce_logsumexp(log_likelihoods + log_prior, -1)))


def draw(x: np.ndarray, x_hat: np.ndarray, x_new: np.ndarray) -> Figure:
    """Draw images, what their codes say of them, and pairs of codes from the fitted prior."""
    figure = Figure(figsize=(len(x), 3), layout="constrained")
    axes = figure.subplots(3, len(x))
    rows = {"x": x, "two codes": x_hat, "new": x_new}
    for row, (name, images) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(row, images, strict=True):
            axis.imshow(image[..., 0], cmap="gray_r", vmin=0.0, vmax=1.0)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name)
    return figure


def main(
    picture: str | None = None,
    epochs: int = 10,
    num_examples: int = 60_000,
    num_test: int = 1_000,
    batch_size: int = 200,
) -> dict[str, float]:
    """Train, and measure in nats per image."""
    keras.utils.set_random_seed(0)
    x = load_images(f"train[:{num_examples}]", seed=0)
    x_test = load_images(f"test[:{num_test}]", seed=1)
    encoder, decoder = make_networks()
    model = keras.Model(encoder.inputs[0], decoder(encoder.outputs[0]))
    start = time.perf_counter()
    train(model, x, epochs, batch_size)
    seconds = time.perf_counter() - start

    of_all = log_likelihoods(encoder, decoder, x_test)
    of_chosen = of_all[np.arange(num_test), chosen_pairs(encoder, x_test)]
    pairs = chosen_pairs(encoder, x)
    prior = fitted_prior(pairs)
    results = {
        "-ELBO, uniform codes": float(np.log(len(PAIRS)) - of_chosen.mean()),
        "-log p(x), uniform codes": -log_evidence(of_all, UNIFORM),
        "-log p(x), fitted codes": -log_evidence(of_all, prior),
        "lost by the choice of codes": float((of_all.max(-1) - of_chosen).mean()),
        "pairs of codes in use": len(np.unique(pairs)),
        "seconds of training": seconds,
    }
    results["bits per pixel, fitted codes"] = results["-log p(x), fitted codes"] / (
        np.log(2.0) * np.prod(IMAGE_SHAPE)
    )
    for name, value in results.items():
        print(f"{name:36}{value:9.3f}")
    if picture:
        new = np.random.default_rng(0).choice(len(PAIRS), 10, p=np.exp(prior))
        x_new = decoder(encoder.layers[-1].vectors(PAIRS[new])).mean().numpy()
        draw(x_test[:10], model(x_test[:10]).mean().numpy(), x_new).savefig(picture)
    return results


if __name__ == "__main__":
    main(*sys.argv[1:])
