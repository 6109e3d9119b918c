"""A convolutional network with random weights for clothes, trained with a divergence that rises from zero.

Blocks of Flipout convolutions with batch normalization, as in TFP's network for CIFAR-10; here for Fashion-MNIST, which
is smaller. The posterior starts narrow, its scale is clipped, and in the first epochs the divergence counts less, so
that the weights learn something before they are pulled to the prior. Where draws of the weights disagree, the network
is wrong more often: it may leave the least sure images to somebody else.

Reference: Wen et al., 2018, Flipout, arXiv:1803.04386; the rising divergence: Sonderby et al., 2016, arXiv:1602.02282.
After TFP's example cifar10_bnn.

Run: python examples/tfp/convolutional_bayesian_network.py [picture.png]
"""

import sys
import time

import keras
import numpy as np
import tensorflow_datasets as tfds
import tensorflow_probability as tfp
from matplotlib.figure import Figure
from scipy.special import entr, softmax

from tfp_vae import layers as tfpl

tfd = tfp.distributions
NUM_CLASSES = 10
# Of softplus(scale): where it starts, and its largest value.
FIRST_SCALE, LARGEST_SCALE = -9.0, np.log(np.expm1(0.2))
# Share of the training in which the divergence rises.
RISE = 0.5


def load_images(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return grey images of clothes between 0 and 1, and their labels."""
    images, labels = tfds.as_numpy(
        tfds.load("fashion_mnist", split=split, batch_size=-1, as_supervised=True)
    )
    return images.astype("float32") / 255.0, labels


def clip(scale):
    """Keep a scale, before the softplus, below its largest value."""
    return keras.ops.minimum(scale, LARGEST_SCALE)


def make_model(num_examples: int, kl_weight: keras.Variable) -> keras.Model:
    """Make three blocks of convolutions; the outputs are logits."""
    random_weights = {
        "kernel_posterior_fn": tfpl.default_mean_field_normal_fn(
            loc_initializer="he_normal",
            untransformed_scale_initializer=keras.initializers.RandomNormal(FIRST_SCALE, 0.1),
            untransformed_scale_constraint=clip,
        ),
        "kernel_divergence_fn": lambda q, p, _: kl_weight * tfd.kl_divergence(q, p) / num_examples,
    }

    def block(filters):
        return [
            tfpl.Convolution2DFlipout(filters, 3, padding="same", **random_weights),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
        ]

    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            *block(16),
            *block(32),
            *block(64),
            keras.layers.Flatten(),
            tfpl.DenseFlipout(NUM_CLASSES, **random_weights),
        ]
    )


class RisingDivergence(keras.callbacks.Callback):
    """The weight of the divergence: it rises along a line from 0 to 1."""

    def __init__(self, kl_weight: keras.Variable, num_steps: int):
        super().__init__()
        self.kl_weight, self.num_steps, self.step = kl_weight, num_steps, 0

    def on_train_batch_begin(self, batch, logs=None):
        self.kl_weight.assign(min(1.0, self.step / self.num_steps))
        self.step += 1


def train(x: np.ndarray, y: np.ndarray, epochs: int, batch_size: int) -> keras.Model:
    """Maximize the ELBO, in nats per image."""
    steps = epochs * -(-len(x) // batch_size)
    kl_weight = keras.Variable(0.0, trainable=False)
    model = make_model(len(x), kl_weight)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    rise = RisingDivergence(kl_weight, int(RISE * steps))
    model.fit(x, y, batch_size=batch_size, epochs=epochs, callbacks=[rise], verbose=0)
    return model


def probabilities(model: keras.Model, x: np.ndarray, num_draws: int) -> np.ndarray:
    """Return the probability of each class, for draws of the weights: `[num_draws, num_images, 10]`."""
    draws = [model.predict(x, batch_size=500, verbose=0) for _ in range(num_draws)]
    return softmax(np.stack(draws).astype("float64"), -1)


def disagreement(p: np.ndarray) -> np.ndarray:
    """Return the mutual information of label and weights: how much draws of the weights disagree, in nats."""
    return entr(p.mean(0)).sum(-1) - entr(p).sum(-1).mean(0)


def draw(correct: np.ndarray, information: np.ndarray) -> Figure:
    """Draw the accuracy on the images of which the network is surest, against their share."""
    order = information.argsort()
    number = np.arange(1, len(order) + 1)
    figure = Figure(figsize=(4, 3), layout="constrained")
    axis = figure.subplots()
    axis.plot(number / len(order), np.cumsum(correct[order]) / number)
    axis.set(xlabel="share of the images, surest first", ylabel="accuracy", ylim=(0.8, 1.01))
    return figure


def main(
    picture: str | None = None,
    epochs: int = 3,
    num_examples: int = 60_000,
    num_test: int = 10_000,
    num_draws: int = 20,
    batch_size: int = 100,
) -> dict[str, float]:
    """Train, and judge the predictions on test images; log-likelihoods are in nats per image."""
    keras.utils.set_random_seed(0)
    start = time.perf_counter()
    model = train(*load_images(f"train[:{num_examples}]"), epochs, batch_size)
    seconds = time.perf_counter() - start
    x, y = load_images(f"test[:{num_test}]")
    p = probabilities(model, x, num_draws)
    correct, information = p.mean(0).argmax(-1) == y, disagreement(p)
    surest = information <= np.median(information)
    results = {
        "accuracy": correct.mean(),
        "accuracy, one draw": (p.argmax(-1) == y).mean(),
        "mean of the largest probability": p.mean(0).max(-1).mean(),
        "log-likelihood": np.log(p.mean(0)[np.arange(num_test), y]).mean(),
        "accuracy, surest half": correct[surest].mean(),
        "accuracy, other half": correct[~surest].mean(),
        "seconds of training": seconds,
    }
    results = {name: float(value) for name, value in results.items()}
    for name, value in results.items():
        print(f"{name:33}{value:9.4f}")
    if picture:
        draw(correct, information).savefig(picture)
    return results


if __name__ == "__main__":
    main(*sys.argv[1:])
