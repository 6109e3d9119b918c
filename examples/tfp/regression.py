"""Regression in five steps of knowing what is not known: TFP's tutorial on probabilistic layers, on Keras 3.

1. No uncertainty: the mean of y is a line, the noise has scale 1.
2. Aleatoric: the noise grows along the line as the data say.
3. Epistemic: the line itself is uncertain, q(w) over its weights (Blundell et al., 2015, arXiv:1505.05424).
4. Both.
5. A function of any form: a Gaussian process at inducing points (Hensman et al., 2013, arXiv:1309.6835).

For all but the fourth the right answer is known without TensorFlow: least squares, the optimum of two lines that SciPy
finds, the mean-field posterior of Bayesian linear regression, and scikit-learn's exact Gaussian process. The example
prints both.

Run: python examples/tfp/regression.py [picture.png]
"""

import sys

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from matplotlib.figure import Figure
from scipy.optimize import minimize
from sklearn.gaussian_process import GaussianProcessRegressor, kernels

from tfp_vae import layers as tfpl

tfd = tfp.distributions
NUM_EXAMPLES, RANGE = 150, (-20.0, 60.0)
NUM_INDUCING_POINTS = 40


def true_mean(x: np.ndarray) -> np.ndarray:
    """Return the wavy line."""
    return 0.125 * x * (1.0 + np.sin(x)) + 5.0


def true_scale(x: np.ndarray) -> np.ndarray:
    """Return the scale of the noise, which grows from the left to the right."""
    return 3.0 * (0.25 + ((x - RANGE[0]) / (RANGE[1] - RANGE[0])) ** 2)


def make_data() -> tuple[np.ndarray, np.ndarray]:
    """Draw y around the wavy line."""
    random = np.random.RandomState(43)
    x = random.uniform(*RANGE, size=[NUM_EXAMPLES, 1])
    y = true_mean(x) + true_scale(x) * random.normal(size=x.shape)
    return x.astype("float32"), y.astype("float32")


# The five models. A line's output `t` is a location, or a location and a scale.


def fixed_noise(t):
    """Make a normal distribution of scale 1."""
    return tfd.Normal(t, 1.0)


def learned_noise(t):
    """Make a normal distribution with both parameters from `t`."""
    return tfd.Normal(t[..., :1], 1e-3 + tf.math.softplus(0.05 * t[..., 1:]))


def uncertain_line(units: int) -> keras.layers.Layer:
    """Make a dense layer with random weights; the KL divergence is that of the weights, for all examples together."""
    return tfpl.DenseVariational(
        units, posterior, prior, kl_weight=1.0 / NUM_EXAMPLES, kl_use_exact=True
    )


def posterior(kernel_size: int, bias_size: int, dtype) -> keras.Model:
    """Make q(w): a normal distribution for each weight, narrow at first."""
    size = kernel_size + bias_size
    initializer = tfpl.BlockwiseInitializer(
        ["zeros", keras.initializers.Constant(-5.0)], [size, size]
    )
    weights = tfpl.VariableLayer(2 * size, dtype=dtype, initializer=initializer)
    return keras.Sequential([weights, tfpl.IndependentNormal(size)])


def prior(kernel_size: int, bias_size: int, dtype) -> keras.Model:
    """Make p(w): trained means, scale 1."""
    weights = tfpl.VariableLayer(kernel_size + bias_size, dtype=dtype)
    return keras.Sequential(
        [weights, tfpl.DistributionLambda(lambda t: tfd.Independent(tfd.Normal(t, 1.0), 1))]
    )


class RBF(keras.layers.Layer):
    """The kernel of smooth functions, with a trained amplitude and length."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.amplitude = self.add_weight(name="amplitude", shape=(), initializer="ones")
        self.length = self.add_weight(name="length", shape=(), initializer="ones")

    @property
    def kernel(self) -> tfp.math.psd_kernels.PositiveSemidefiniteKernel:
        """The kernel of the present weights."""
        amplitude, length = (tf.math.softplus(weight) for weight in (self.amplitude, self.length))
        return tfp.math.psd_kernels.ExponentiatedQuadratic(amplitude, length)


def gaussian_process() -> keras.layers.Layer:
    """Make a Gaussian process, with inducing points all along the line at first.

    Its matrices are nearly singular where points lie close together: in float32, training can end in nan.
    """
    points = np.linspace(*RANGE, NUM_INDUCING_POINTS)[np.newaxis, :, np.newaxis]
    return tfpl.VariationalGaussianProcess(
        NUM_INDUCING_POINTS,
        RBF(dtype="float64"),
        inducing_index_points_initializer=keras.initializers.Constant(points),
        unconstrained_observation_noise_variance_initializer="ones",
    )


MODELS = {
    "no uncertainty": lambda: [keras.layers.Dense(1), tfpl.DistributionLambda(fixed_noise)],
    "aleatoric": lambda: [
        keras.layers.Dense(2, kernel_initializer="zeros"),
        tfpl.DistributionLambda(learned_noise),
    ],
    "epistemic": lambda: [uncertain_line(1), tfpl.DistributionLambda(fixed_noise)],
    "both": lambda: [uncertain_line(2), tfpl.DistributionLambda(learned_noise)],
    "Gaussian process": lambda: [gaussian_process()],
}


def negative_log_likelihood(y, rv_y):
    """Return -log p(y|x) of each example."""
    return -rv_y.log_prob(y)


def negative_bound(y, process):
    """Return the process's bound of -log p(y), in nats per example; TFP's has half a nat too much."""
    return process.variational_loss(y) / NUM_EXAMPLES - 0.5


def train(name: str, x: np.ndarray, y: np.ndarray, steps: int) -> keras.Model:
    """Maximize the log-likelihood, or its lower bound where something is random, on all data at once."""
    model = keras.Sequential([keras.Input((1,)), *MODELS[name]()])
    is_process = name == "Gaussian process"
    loss, rate = (negative_bound, 0.05) if is_process else (negative_log_likelihood, 0.3)
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps))
    model.compile(optimizer, loss, steps_per_execution=100)
    model.fit(tf.data.Dataset.from_tensors((x, y)).repeat(steps), shuffle=False, verbose=0)
    return model


# What should come out.


def least_squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return slope and intercept."""
    ones = np.ones_like(x)
    return np.linalg.lstsq(np.append(x, ones, 1).astype("float64"), y[:, 0], rcond=None)[0]


def best_aleatoric_loss(x: np.ndarray, y: np.ndarray) -> float:
    """Return the smallest mean of -log p(y|x) that two lines, of location and scale, can reach."""
    x, y = x[:, 0].astype("float64"), y[:, 0]

    def loss(w):
        scale = 1e-3 + np.logaddexp(0.0, 0.05 * (w[2] * x + w[3]))
        error = (y - w[0] * x - w[1]) / scale
        return np.mean(0.5 * error**2 + np.log(scale)) + 0.5 * np.log(2.0 * np.pi)

    start = [*least_squares(x[:, np.newaxis], y[:, np.newaxis]), 0.0, 20.0]
    options = {"maxiter": 20_000, "fatol": 1e-12}
    return minimize(loss, start, method="Nelder-Mead", options=options).fun


def scales_around_line(rv_y: tfd.Distribution, x: np.ndarray) -> tuple[float, float]:
    """Return the mean of a line's scale, and of what it should be: the noise, and the waves that no line follows."""
    missed = true_mean(x) - rv_y.mean()
    expected = np.mean(missed**2 + true_scale(x) ** 2)
    return np.sqrt(np.mean(rv_y.variance())), np.sqrt(expected)


def exact_mean_field_scales(x: np.ndarray) -> np.ndarray:
    """Return the posterior scales of slope and intercept: with unit noise and prior, 1 / sqrt(1 + sum of squares)."""
    return 1.0 / np.sqrt(1.0 + np.array([np.sum(x.astype("float64") ** 2), len(x)]))


def exact_process(x: np.ndarray, y: np.ndarray) -> GaussianProcessRegressor:
    """Return scikit-learn's Gaussian process, of the amplitude, length and noise that suit the data best."""
    kernel = kernels.ConstantKernel(9.0) * kernels.RBF(2.0) + kernels.WhiteKernel(4.0)
    return GaussianProcessRegressor(kernel, n_restarts_optimizer=5, random_state=0).fit(x, y)


def draw(models: dict[str, keras.Model], x: np.ndarray, y: np.ndarray) -> Figure:
    """Draw each model's mean and two standard deviations, several times where it is random, or functions."""
    line = np.linspace(*RANGE, 200, dtype="float32")[:, np.newaxis]
    figure = Figure(figsize=(15, 3), layout="constrained")
    axes = figure.subplots(1, len(models), sharey=True)
    for axis, (name, model) in zip(axes, models.items(), strict=True):
        axis.scatter(x, y, s=6, color="tab:blue", zorder=3)
        axis.set(title=name, xlabel="x", ylim=(-5.0, 25.0))
        if name == "Gaussian process":
            axis.plot(line, model(line).sample(25)[..., 0].numpy().T, "tab:red", linewidth=0.3)
        else:
            draw_lines(axis, model, line, 25 if name in ("epistemic", "both") else 1)
    axes[0].set_ylabel("y")
    return figure


def draw_lines(axis, model: keras.Model, line: np.ndarray, number: int) -> None:
    """Draw means of y, with two standard deviations around them."""
    thin = 0.5 if number > 1 else 1.5
    for _ in range(number):
        rv_y = model(line)
        mean, scale = rv_y.mean(), rv_y.stddev()
        axis.plot(line, mean, "tab:red", linewidth=thin)
        for bound in (mean - 2.0 * scale, mean + 2.0 * scale):
            axis.plot(line, bound, "tab:green", linewidth=0.6 * thin)


def main(picture: str | None = None, steps: int = 3000) -> dict[str, tuple[float, float]]:
    """Train all five, compare with what should come out, and draw."""
    keras.utils.set_random_seed(0)
    x, y = make_data()
    models = {name: train(name, x, y, steps) for name in MODELS}
    (slope, intercept), scales = least_squares(x, y), exact_mean_field_scales(x)
    q = models["epistemic"].layers[0].posterior(x)
    data = tf.data.Dataset.from_tensors((x, y)).repeat(100)  # as many draws of what is random
    losses = {name: model.evaluate(data, verbose=0) for name, model in models.items()}
    left, right = x[x[:, 0] < 20.0], x[x[:, 0] > 20.0]
    exact = exact_process(x, y[:, 0] - y.mean())
    rows = {
        "1 slope": (models["no uncertainty"].get_weights()[0].item(), slope),
        "1 intercept": (models["no uncertainty"].get_weights()[1].item(), intercept),
        "2 -log p(y|x)": (losses["aleatoric"], best_aleatoric_loss(x, y)),
        "2 scale, left half": scales_around_line(models["aleatoric"](left), left),
        "2 scale, right half": scales_around_line(models["aleatoric"](right), right),
        "3 mean of the slope": (q.mean()[0].numpy(), slope),
        "3 mean of the intercept": (q.mean()[1].numpy(), intercept),
        "3 scale of the slope": (q.stddev()[0].numpy(), scales[0]),
        "3 scale of the intercept": (q.stddev()[1].numpy(), scales[1]),
        "4 -ELBO, above 2": (losses["both"], best_aleatoric_loss(x, y)),
        "5 -ELBO, -log p(y|x)": (
            losses["Gaussian process"],
            -exact.log_marginal_likelihood_value_ / NUM_EXAMPLES,
        ),
        "5 scale of the noise": (
            np.sqrt(tf.math.softplus(models["Gaussian process"].layers[-1].noise)),
            np.sqrt(exact.kernel_.k2.noise_level),
        ),
    }
    rows = {name: tuple(map(float, row)) for name, row in rows.items()}
    print(f"{'':26}{'model':>10}{'expected':>10}")
    for name, (found, expected) in rows.items():
        print(f"{name:26}{found:10.4f}{expected:10.4f}")
    if picture:
        draw(models, x, y).savefig(picture)
    return rows


if __name__ == "__main__":
    main(*sys.argv[1:])
