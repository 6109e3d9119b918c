"""Three networks for one table: what each knows of its own error.

1. A point estimate, which says nothing of its error.
2. Random weights, with a full covariance over each layer's: what is not known of the function.
3. Random weights and a learned scale of the noise: what cannot be known of y, too.

The table is scikit-learn's of diabetes (442 patients, 10 features, y standardized). Intervals should hold 95 % of the
test examples: those of 2 are of the function alone, and are too narrow; those of 3 are not. scikit-learn's Bayesian
ridge regression is the model to compare with: so few patients leave little more to find than a line.

Reference: Blundell et al., 2015, Weight Uncertainty in Neural Networks, arXiv:1505.05424. After the example
"Probabilistic Bayesian Neural Networks" of keras.io, which predicts the quality of wine.

Run: python examples/tfp/keras_bayesian_network.py [picture.png]
"""

import sys
import time

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from matplotlib.figure import Figure
from sklearn.datasets import load_diabetes
from sklearn.linear_model import BayesianRidge
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import scale

from tfp_vae import layers as tfpl

tfd = tfp.distributions
HIDDEN_UNITS = 8
# The softplus of this is the first standard deviation of each weight.
START = -4.0
# Normal quantile of an interval that holds 95 %.
WIDTH = 1.96


def load_table() -> list[np.ndarray]:
    """Return features and y to train and to test: x_train, x_test, y_train, y_test."""
    x, y = load_diabetes(return_X_y=True)
    x, y = scale(x).astype("float32"), scale(y).astype("float32")[:, np.newaxis]
    return train_test_split(x, y, test_size=0.25, random_state=0)


def prior(kernel_size: int, bias_size: int, dtype) -> keras.Model:
    """Make p(w): a standard normal distribution, without any variable."""
    size = kernel_size + bias_size
    return keras.Sequential(
        [tfpl.DistributionLambda(lambda _: tfd.MultivariateNormalDiag(tf.zeros(size, dtype)))]
    )


def posterior(kernel_size: int, bias_size: int, dtype) -> keras.Model:
    """Make q(w): a normal distribution with a full covariance, narrow at first."""
    size = kernel_size + bias_size
    triangle = tfp.math.fill_triangular_inverse(START * np.eye(size, dtype="float32")).numpy()
    initializer = tfpl.BlockwiseInitializer(
        [keras.initializers.RandomNormal(stddev=0.3), keras.initializers.Constant(triangle)],
        [size, len(triangle)],
    )
    weights = tfpl.VariableLayer(size + len(triangle), dtype=dtype, initializer=initializer)
    return keras.Sequential([weights, tfpl.MultivariateNormalTriL(size)])


def make_models(num_features: int, num_examples: int) -> dict[str, keras.Model]:
    """Make the three networks of one hidden layer."""

    def uncertain(units, activation=None):
        return tfpl.DenseVariational(
            units, posterior, prior, kl_weight=1.0 / num_examples, activation=activation
        )

    networks = {
        "point": [keras.layers.Dense(HIDDEN_UNITS, "tanh"), keras.layers.Dense(1)],
        "random weights": [uncertain(HIDDEN_UNITS, "tanh"), uncertain(1)],
        "random weights and noise": [
            uncertain(HIDDEN_UNITS, "tanh"),
            uncertain(2),
            tfpl.IndependentNormal(1),
        ],
    }
    return {
        name: keras.Sequential([keras.Input((num_features,)), *layers])
        for name, layers in networks.items()
    }


def train(model: keras.Model, x: np.ndarray, y: np.ndarray, steps: int) -> None:
    """Minimize the squared error, or -log p(y|x), besides the divergence of the weights.

    Half a squared error over a variance of 1/2 is -log p(y|x) of such a noise, but for a constant.
    """
    loss = (lambda y, rv_y: -rv_y.log_prob(y)) if has_noise(model) else "mean_squared_error"
    schedule = keras.optimizers.schedules.CosineDecay(1e-2, steps)
    model.compile(keras.optimizers.Adam(schedule), loss, steps_per_execution=100)
    model.fit(tf.data.Dataset.from_tensors((x, y)).repeat(steps), shuffle=False, verbose=0)


def has_noise(model: keras.Model) -> bool:
    """Return whether a model ends in a distribution of y."""
    return isinstance(model.layers[-1], tfpl.IndependentNormal)


def predict(model: keras.Model, x: np.ndarray, num_draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and standard deviation of the prediction, over draws of the weights."""
    draws = [model(x) for _ in range(num_draws)]
    means = np.stack([d.mean() if has_noise(model) else d for d in draws])[..., 0]
    noise = np.mean([d.variance() for d in draws], 0)[:, 0] if has_noise(model) else 0.0
    return means.mean(0), np.sqrt(means.var(0) + noise)


def judge(mean: np.ndarray, stddev: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return the error of predictions, and how many of their intervals, if they have some, hold y."""
    error = y[:, 0] - mean
    results = {"RMSE": np.sqrt(np.mean(error**2))}
    if stddev.all():
        results["in the interval"] = np.mean(np.abs(error) < WIDTH * stddev)
        results["log-likelihood"] = tfd.Normal(mean, stddev).log_prob(y[:, 0]).numpy().mean()
    return {name: float(value) for name, value in results.items()}


def draw(predictions: dict[str, tuple[np.ndarray, np.ndarray]], y: np.ndarray) -> Figure:
    """Draw predictions with their intervals against y."""
    figure = Figure(figsize=(3 * len(predictions), 3), layout="constrained")
    axes = figure.subplots(1, len(predictions), sharey=True)
    for axis, (name, (mean, stddev)) in zip(axes, predictions.items(), strict=True):
        axis.errorbar(y[:, 0], mean, WIDTH * stddev, fmt=".", elinewidth=0.5)
        axis.plot([-2.0, 3.0], [-2.0, 3.0], "k", linewidth=0.5)
        axis.set(title=name, xlabel="y")
    axes[0].set_ylabel("prediction")
    return figure


def main(
    picture: str | None = None, steps: int = 3000, num_draws: int = 200
) -> dict[str, dict[str, float]]:
    """Train all three, and judge them on test examples beside scikit-learn's Bayesian ridge regression."""
    keras.utils.set_random_seed(0)
    x_train, x_test, y_train, y_test = load_table()
    models = make_models(x_train.shape[1], len(x_train))
    predictions, results = {}, {}
    for name, model in models.items():
        start = time.perf_counter()
        train(model, x_train, y_train, steps)
        seconds = time.perf_counter() - start
        predictions[name] = predict(model, x_test, num_draws)
        results[name] = judge(*predictions[name], y_test) | {"seconds": seconds}
    ridge = BayesianRidge().fit(x_train, y_train[:, 0])
    results["Bayesian ridge"] = judge(*ridge.predict(x_test, return_std=True), y_test)
    for name, row in results.items():
        print(f"{name:26}", "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
    if picture:
        draw(predictions, y_test).savefig(picture)
    return results


if __name__ == "__main__":
    main(*sys.argv[1:])
