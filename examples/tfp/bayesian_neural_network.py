"""A Bayesian LeNet for MNIST: random weights by Flipout, and what their uncertainty is worth.

Each prediction averages the probabilities of many draws of the weights. It is better than one draw, as sure as it is
right, and unsure of what it has never seen: clothes of Fashion-MNIST.

Reference: Blundell et al., 2015, Weight Uncertainty in Neural Networks, arXiv:1505.05424; Flipout: Wen et al., 2018,
arXiv:1803.04386. After TFP's example of the same name.

Run: python examples/tfp/bayesian_neural_network.py [picture.png]
"""

import sys
import time

import keras
import numpy as np
import tensorflow_datasets as tfds
import tensorflow_probability as tfp
from matplotlib.figure import Figure
from scipy.special import entr, log_softmax, logsumexp
from sklearn.metrics import roc_auc_score

from tfp_vae import layers as tfpl

tfd = tfp.distributions
NUM_CLASSES = 10


def load_images(name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return grey images between 0 and 1, and their labels."""
    images, labels = tfds.as_numpy(tfds.load(name, split=split, batch_size=-1, as_supervised=True))
    return images.astype("float32") / 255.0, labels


def make_model(num_examples: int) -> keras.Model:
    """Make LeNet-5 with random weights; its outputs are logits."""

    def kl(q, p, _):
        return tfd.kl_divergence(q, p) / num_examples

    def convolution(filters, padding="valid"):
        return tfpl.Convolution2DFlipout(
            filters, 5, padding=padding, activation="relu", kernel_divergence_fn=kl
        )

    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            convolution(6, padding="same"),
            keras.layers.MaxPooling2D(),
            convolution(16),
            keras.layers.MaxPooling2D(),
            convolution(120),
            keras.layers.Flatten(),
            tfpl.DenseFlipout(84, activation="relu", kernel_divergence_fn=kl),
            tfpl.DenseFlipout(NUM_CLASSES, kernel_divergence_fn=kl),
        ]
    )


def train(model: keras.Model, x: np.ndarray, y: np.ndarray, epochs: int, batch_size: int) -> None:
    """Maximize the ELBO, in nats per image."""
    steps = epochs * -(-len(x) // batch_size)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(x, y, batch_size=batch_size, epochs=epochs, verbose=0)


def log_probabilities(model: keras.Model, x: np.ndarray, num_draws: int) -> np.ndarray:
    """Return log p(y|x, w) of each class, for draws of the weights: `[num_draws, num_images, 10]`."""
    draws = [model.predict(x, batch_size=500, verbose=0) for _ in range(num_draws)]
    return log_softmax(np.stack(draws).astype("float64"), -1)


def average(log_p: np.ndarray) -> np.ndarray:
    """Return the logarithm of the mean over draws."""
    return logsumexp(log_p, 0) - np.log(len(log_p))


def log_likelihood(log_p: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean log-probability of the labels."""
    return float(np.take_along_axis(log_p, labels[:, np.newaxis], -1).mean())


def draw(x: np.ndarray, log_p: np.ndarray) -> Figure:
    """Draw images, and beside each what every draw of the weights makes of it."""
    figure = Figure(figsize=(5, 0.9 * len(x)), layout="constrained")
    axes = figure.subplots(len(x), 2, width_ratios=[1, 4])
    for row, (image, line) in enumerate(axes):
        image.imshow(x[row, ..., 0], cmap="gray_r")
        image.set_axis_off()
        line.boxplot(np.exp(log_p[:, row]), positions=range(NUM_CLASSES), sym=".")
        line.set(ylim=(-0.05, 1.05), yticks=[0, 1])
    axes[0, 1].set_title("probabilities, by draws of the weights")
    return figure


def main(
    picture: str | None = None,
    epochs: int = 5,
    num_examples: int = 60_000,
    num_test: int = 10_000,
    num_draws: int = 20,
    batch_size: int = 100,
) -> dict[str, float]:
    """Train, and judge the predictions on digits and on clothes; log-likelihoods are in nats per image."""
    keras.utils.set_random_seed(0)
    model, start = make_model(num_examples), time.perf_counter()
    train(model, *load_images("mnist", f"train[:{num_examples}]"), epochs, batch_size)
    seconds = time.perf_counter() - start
    x, y = load_images("mnist", f"test[:{num_test}]")
    clothes, _ = load_images("fashion_mnist", f"test[:{num_test}]")
    draws, of_clothes = (log_probabilities(model, images, num_draws) for images in (x, clothes))
    log_p = average(draws)
    entropy, entropy_of_clothes = (
        entr(np.exp(average(each))).sum(-1) for each in (draws, of_clothes)
    )
    results = {
        "accuracy": float(np.mean(log_p.argmax(-1) == y)),
        "mean of the largest probability": float(np.exp(log_p.max(-1)).mean()),
        "log-likelihood": log_likelihood(log_p, y),
        "log-likelihood, one draw": float(np.mean([log_likelihood(one, y) for one in draws])),
        "entropy": float(entropy.mean()),
        "entropy of clothes": float(entropy_of_clothes.mean()),
        "AUC of clothes, by entropy": float(
            roc_auc_score(
                np.repeat([0, 1], num_test), np.concatenate([entropy, entropy_of_clothes])
            )
        ),
        "seconds of training": seconds,
    }
    for name, value in results.items():
        print(f"{name:33}{value:9.4f}")
    if picture:
        unsure = entropy.argsort()[-3:]
        shown = np.concatenate([x[:2], x[unsure], clothes[:3]])
        of_shown = np.concatenate([draws[:, :2], draws[:, unsure], of_clothes[:, :3]], 1)
        draw(shown, of_shown).savefig(picture)
    return results


if __name__ == "__main__":
    main(*sys.argv[1:])
