"""A masked autoregressive flow learns the density of two moons, whose true entropy is known.

A normal distribution is pushed through transforms, each an `AutoregressiveTransform` with a network of its own; every
other one reads the values from right to left. No density can have a smaller mean of -log p(x) than the entropy of what
made the data: here a normal distribution around points of two half circles, summed over a fine grid of these points.

Reference: Papamakarios et al., 2017, Masked Autoregressive Flow for Density Estimation, arXiv:1705.07057. After the
example of TFP's layer `AutoregressiveTransform`.

Run: python examples/tfp/masked_autoregressive_flow.py [picture.png]
"""

import sys
import time

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from matplotlib.figure import Figure
from scipy.stats import multivariate_normal
from sklearn.datasets import make_moons

from tfp_vae import layers as tfpl

tfd = tfp.distributions
NOISE = 0.1
# Points of each half circle that stand for all of it: much closer than the noise.
NUM_CENTERS = 300


def true_density() -> tfd.Distribution:
    """Return the density of scikit-learn's moons, with noise: a mixture over points of the half circles."""
    centers, _ = make_moons(2 * NUM_CENTERS, shuffle=False)
    normal = tfd.MultivariateNormalDiag(centers.astype("float32"), [NOISE, NOISE])
    return tfd.MixtureSameFamily(tfd.Categorical(tf.zeros(len(centers))), normal)


def make_data(num_examples: int, seed: int) -> np.ndarray:
    """Draw points of the moons."""
    return make_moons(num_examples, noise=NOISE, random_state=seed)[0].astype("float32")


def make_model(num_transforms: int) -> keras.Model:
    """Make the flow; its input has no values, only a number of examples."""

    def standard_normal(empty):
        return tfd.MultivariateNormalDiag(tf.zeros([tf.shape(empty)[0], 2]))

    def transform(order):
        made = tfpl.AutoregressiveNetwork(
            2, hidden_units=[64, 64], activation="tanh", input_order=order
        )
        return tfpl.AutoregressiveTransform(made)

    orders = [["left-to-right", "right-to-left"][i % 2] for i in range(num_transforms)]
    return keras.Sequential(
        [keras.Input((0,)), tfpl.DistributionLambda(standard_normal), *map(transform, orders)]
    )


def train(model: keras.Model, x: np.ndarray, epochs: int, batch_size: int) -> None:
    """Maximize the mean of log p(x)."""
    steps = epochs * -(-len(x) // batch_size)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        loss=lambda x, rv_x: -rv_x.log_prob(x),
        steps_per_execution=20,
    )
    model.fit(no_values(x), x, batch_size=batch_size, epochs=epochs, verbose=0)


def no_values(x: np.ndarray) -> np.ndarray:
    """Return the input of the model: as many examples as x has, of no values."""
    return np.zeros([len(x), 0], "float32")


def draw(model: keras.Model, p: tfd.Distribution) -> Figure:
    """Draw both densities over the plane."""
    x1, x2 = np.meshgrid(np.linspace(-1.6, 2.6, 200), np.linspace(-1.1, 1.6, 150))
    x = np.stack([x1, x2], -1).reshape(-1, 2).astype("float32")
    densities = {"true": p.prob(x), "flow": model(no_values(x)).prob(x)}
    figure = Figure(figsize=(9, 3), layout="constrained")
    for axis, (name, values) in zip(figure.subplots(1, 2), densities.items(), strict=True):
        axis.pcolormesh(x1, x2, np.reshape(values, x1.shape), vmax=p.prob(x).numpy().max())
        axis.set(title=name, aspect="equal")
    return figure


def main(
    picture: str | None = None,
    epochs: int = 100,
    num_examples: int = 10_000,
    num_transforms: int = 6,
    batch_size: int = 200,
) -> dict[str, float]:
    """Train, and measure in nats per point."""
    keras.utils.set_random_seed(0)
    model, p, start = make_model(num_transforms), true_density(), time.perf_counter()
    train(model, make_data(num_examples, seed=0), epochs, batch_size)
    seconds = time.perf_counter() - start
    x = make_data(10_000, seed=1)
    normal = multivariate_normal(x.mean(0), np.cov(x.T))
    results = {
        "-log p(x), flow": -float(np.mean(model(no_values(x)).log_prob(x))),
        "entropy": -float(np.mean(p.log_prob(x))),
        "-log p(x), one normal": -float(np.mean(normal.logpdf(x))),
        "seconds of training": seconds,
    }
    for name, value in results.items():
        print(f"{name:24}{value:8.4f}")
    if picture:
        draw(model, p).savefig(picture)
    return results


if __name__ == "__main__":
    main(*sys.argv[1:])
