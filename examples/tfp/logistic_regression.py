"""Logistic regression with random weights: which lines could part two classes, and how sure we may be.

A dense layer learns q(w) of two slopes and a bias. With three weights, the true posterior is known: summed over a grid,
it gives its means and the evidence, of which the ELBO is a lower bound. scikit-learn finds the same posterior's mode.

Reference: Blundell et al., 2015, Weight Uncertainty in Neural Networks, arXiv:1505.05424; Flipout: Wen et al., 2018,
arXiv:1803.04386. After TFP's example of the same name.

Run: python examples/tfp/logistic_regression.py [picture.png]
"""

import sys

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from matplotlib.figure import Figure
from scipy.special import expit, log_expit, logsumexp
from sklearn.linear_model import LogisticRegression

from tfp_vae import layers as tfpl

tfd = tfp.distributions
TRUE_WEIGHTS = np.array([1.5, -1.0, 0.5])  # two slopes, then the bias
# Points of the grid along each weight, and how many standard deviations it reaches.
NUM_POINTS, REACH = 41, 5.0


def make_data(num_examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw points, and labels with the probabilities that the true weights give."""
    random = np.random.default_rng(0)
    x = random.normal(size=[num_examples, 2])
    y = random.uniform(size=[num_examples, 1]) < expit(with_ones(x) @ TRUE_WEIGHTS)[:, np.newaxis]
    return x.astype("float32"), y.astype("float32")


def with_ones(x: np.ndarray) -> np.ndarray:
    """Append a column of ones, for the bias."""
    return np.append(x, np.ones([len(x), 1]), 1)


def make_model(num_examples: int) -> keras.Model:
    """Make the regression; slopes and bias have a standard normal prior."""

    def kl(q, p, _):
        return tfd.kl_divergence(q, p) / num_examples

    line = tfpl.DenseFlipout(
        1,
        kernel_divergence_fn=kl,
        bias_posterior_fn=tfpl.default_mean_field_normal_fn(),
        bias_prior_fn=tfpl.default_multivariate_normal_fn,
        bias_divergence_fn=kl,
    )
    return keras.Sequential([keras.Input((2,)), line, tfpl.IndependentBernoulli(1)])


def train(model: keras.Model, x: np.ndarray, y: np.ndarray, steps: int) -> None:
    """Maximize the ELBO on all data at once."""
    schedule = keras.optimizers.schedules.CosineDecay(0.05, steps)
    model.compile(
        keras.optimizers.Adam(schedule),
        loss=lambda y, rv_y: -rv_y.log_prob(y),
        steps_per_execution=100,
    )
    model.fit(tf.data.Dataset.from_tensors((x, y)).repeat(steps), shuffle=False, verbose=0)


def learned(line: tfpl.DenseFlipout) -> tuple[np.ndarray, np.ndarray]:
    """Return means and scales of q(w)."""
    q = line.kernel_posterior, line.bias_posterior
    return tuple(
        np.concatenate([np.ravel(getattr(part, moment)()) for part in q])
        for moment in ("mean", "stddev")
    )


def log_joint(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return log p(y|x, w) + log p(w) of weights `[num_weights, 3]`."""
    log_likelihood = log_expit((w @ with_ones(x).T) * (2.0 * y[:, 0] - 1.0)).sum(1)
    return log_likelihood + tfd.Normal(np.float64(0.0), 1.0).log_prob(w).numpy().sum(1)


def exact_posterior(x: np.ndarray, y: np.ndarray, mode: np.ndarray) -> tuple[float, np.ndarray]:
    """Return log p(y|x), and the posterior's means: sums over a grid around the mode."""
    p = expit(with_ones(x) @ mode)
    precision = np.eye(3) + (with_ones(x).T * (p * (1.0 - p))) @ with_ones(x)
    reach = REACH * np.sqrt(np.diag(np.linalg.inv(precision)))
    axes = np.linspace(mode - reach, mode + reach, NUM_POINTS, axis=1)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    terms = np.concatenate([log_joint(w, x, y) for w in np.array_split(grid, 50)])
    evidence = logsumexp(terms) + np.log(2.0 * reach / (NUM_POINTS - 1)).sum()
    return evidence, np.exp(terms - logsumexp(terms)) @ grid


def draw(line: tfpl.DenseFlipout, x: np.ndarray, y: np.ndarray) -> Figure:
    """Draw the data, and lines of even odds: several drawn from q(w), and the true one."""
    figure = Figure(figsize=(4, 4), layout="constrained")
    axis = figure.subplots()
    axis.scatter(*x.T, c=y[:, 0], cmap="coolwarm", s=10)
    ends = np.array([-3.0, 3.0])
    random = np.random.default_rng(0)
    lines = random.normal(*learned(line), size=[30, 3])
    for weights, color, width in [(w, "tab:gray", 0.5) for w in lines] + [(TRUE_WEIGHTS, "k", 2)]:
        axis.plot(ends, -(weights[0] * ends + weights[2]) / weights[1], color, linewidth=width)
    axis.set(xlim=ends, ylim=ends, title="even odds: drawn from q(w), and true")
    return figure


def main(
    picture: str | None = None, num_examples: int = 500, steps: int = 2000
) -> dict[str, tuple[float, float]]:
    """Train, and return what was found beside what was expected, by name."""
    keras.utils.set_random_seed(0)
    x, y = make_data(num_examples)
    model = make_model(num_examples)
    train(model, x, y, steps)
    # scikit-learn knows no prior of a bias, so the bias is the slope of a column of ones.
    sklearn = LogisticRegression(fit_intercept=False).fit(with_ones(x), y[:, 0])
    mode = sklearn.coef_[0]
    evidence, means = exact_posterior(x, y, mode)
    q_means, _ = learned(model.layers[0])
    draws = tf.data.Dataset.from_tensors((x, y)).repeat(500)
    rows = {
        "-log p(y|x), -ELBO": (model.evaluate(draws, verbose=0), -evidence / num_examples),
        "accuracy": (
            np.mean((with_ones(x) @ q_means > 0.0) == y[:, 0]),
            sklearn.score(with_ones(x), y[:, 0]),
        ),
    }
    for name, found, expected in zip(("slope 1", "slope 2", "bias"), q_means, means, strict=True):
        rows[f"mean of {name}"] = (found, expected)
    rows = {name: tuple(map(float, row)) for name, row in rows.items()}
    print(f"{'':22}{'model':>10}{'expected':>10}")
    for name, (found, expected) in rows.items():
        print(f"{name:22}{found:10.4f}{expected:10.4f}")
    if picture:
        draw(model.layers[0], x, y).savefig(picture)
    return rows


if __name__ == "__main__":
    main(*sys.argv[1:])
