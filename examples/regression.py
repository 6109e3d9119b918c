"""Regression in four steps of knowing what is not known: TFP's tutorial on probabilistic layers, on Keras 3.

1. No uncertainty: the mean of y is a line, the noise has scale 1.
2. Aleatoric: the noise grows along the line as the data say.
3. Epistemic: the line itself is uncertain, q(w) over its weights (Blundell et al., 2015, arXiv:1505.05424).
4. Both.

For the first three the right answer is known without TensorFlow: least squares, the optimum of two lines that SciPy
finds, and the mean-field posterior of Bayesian linear regression. The example prints both.

Run: python examples/regression.py [picture.png]
"""

import sys

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from matplotlib.figure import Figure
from scipy.optimize import minimize

from tfp_vae import layers as tfpl

tfd = tfp.distributions
NUM_EXAMPLES, RANGE = 150, (-20.0, 60.0)


def make_data() -> tuple[np.ndarray, np.ndarray]:
    """Draw y around a wavy line, with noise that grows from the left to the right."""
    random = np.random.RandomState(43)
    x = random.uniform(*RANGE, size=[NUM_EXAMPLES, 1])
    scale = 3.0 * (0.25 + ((x - RANGE[0]) / (RANGE[1] - RANGE[0])) ** 2)
    y = 0.125 * x * (1.0 + np.sin(x)) + 5.0 + scale * random.normal(size=x.shape)
    return x.astype("float32"), y.astype("float32")


# The four models. A line's output `t` is a location, or a location and a scale.


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


MODELS = {
    "no uncertainty": lambda: [keras.layers.Dense(1), tfpl.DistributionLambda(fixed_noise)],
    "aleatoric": lambda: [
        keras.layers.Dense(2, kernel_initializer="zeros"),
        tfpl.DistributionLambda(learned_noise),
    ],
    "epistemic": lambda: [uncertain_line(1), tfpl.DistributionLambda(fixed_noise)],
    "both": lambda: [uncertain_line(2), tfpl.DistributionLambda(learned_noise)],
}


def train(name: str, x: np.ndarray, y: np.ndarray, steps: int = 3000) -> keras.Model:
    """Maximize the log-likelihood, or its lower bound where the weights are random, on all data at once."""
    model = keras.Sequential([keras.Input((1,)), *MODELS[name]()])
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.3, steps))
    model.compile(optimizer, loss=lambda y, rv_y: -rv_y.log_prob(y), steps_per_execution=100)
    model.fit(tf.data.Dataset.from_tensors((x, y)).repeat(steps), shuffle=False, verbose=0)
    return model


# What should come out.


def least_squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return slope and intercept."""
    return np.linalg.lstsq(np.append(x, np.ones_like(x), 1).astype("float64"), y[:, 0], rcond=None)[
        0
    ]


def best_aleatoric_loss(x: np.ndarray, y: np.ndarray) -> float:
    """Return the smallest mean of -log p(y|x) that two lines, of location and scale, can reach."""
    x, y = x[:, 0].astype("float64"), y[:, 0]

    def loss(w):
        scale = 1e-3 + np.logaddexp(0.0, 0.05 * (w[2] * x + w[3]))
        return np.mean(0.5 * ((y - w[0] * x - w[1]) / scale) ** 2 + np.log(scale)) + 0.5 * np.log(
            2.0 * np.pi
        )

    start = [*least_squares(x[:, np.newaxis], y[:, np.newaxis]), 0.0, 20.0]
    return minimize(
        loss, start, method="Nelder-Mead", options={"maxiter": 20_000, "fatol": 1e-12}
    ).fun


def exact_mean_field_scales(x: np.ndarray) -> np.ndarray:
    """Return the posterior scales of slope and intercept: with unit noise and prior, 1 / sqrt(1 + sum of squares)."""
    return 1.0 / np.sqrt(1.0 + np.array([np.sum(x.astype("float64") ** 2), len(x)]))


def draw(models: dict[str, keras.Model], x: np.ndarray, y: np.ndarray) -> Figure:
    """Draw each model's mean and two standard deviations, several times where the line is random."""
    line = np.linspace(*RANGE, 200, dtype="float32")[:, np.newaxis]
    figure = Figure(figsize=(12, 3), layout="constrained")
    for axis, (name, model) in zip(figure.subplots(1, 4, sharey=True), models.items(), strict=True):
        axis.scatter(x, y, s=6, color="tab:blue")
        is_random = name in ("epistemic", "both")
        for _ in range(25 if is_random else 1):
            rv_y = model(line)
            mean, scale = rv_y.mean().numpy(), rv_y.stddev().numpy()
            axis.plot(line, mean, color="tab:red", linewidth=0.5 if is_random else 1.5)
            for bound in (mean - 2.0 * scale, mean + 2.0 * scale):
                axis.plot(line, bound, color="tab:green", linewidth=0.3 if is_random else 1.0)
        axis.set(title=name, xlabel="x", ylim=(-5.0, 25.0))
    figure.axes[0].set_ylabel("y")
    return figure


def main(picture: str | None = None) -> dict[str, float]:
    """Train all four, compare with what should come out, and draw."""
    keras.utils.set_random_seed(0)
    x, y = make_data()
    models = {name: train(name, x, y) for name in MODELS}
    (slope, intercept), scales = least_squares(x, y), exact_mean_field_scales(x)
    q = models["epistemic"].layers[0].posterior(x)
    both = np.mean(
        [models["both"].evaluate(x, y, batch_size=NUM_EXAMPLES, verbose=0) for _ in range(20)]
    )
    rows = {
        "1 slope": (models["no uncertainty"].get_weights()[0].item(), slope),
        "1 intercept": (models["no uncertainty"].get_weights()[1].item(), intercept),
        "2 -log p(y|x)": (models["aleatoric"].evaluate(x, y, verbose=0), best_aleatoric_loss(x, y)),
        "3 mean of the slope": (q.mean()[0].numpy(), slope),
        "3 mean of the intercept": (q.mean()[1].numpy(), intercept),
        "3 scale of the slope": (q.stddev()[0].numpy(), scales[0]),
        "3 scale of the intercept": (q.stddev()[1].numpy(), scales[1]),
        "4 -ELBO, above 2": (both, best_aleatoric_loss(x, y)),
    }
    print(f"{'':26}{'model':>10}{'expected':>10}")
    for name, (found, expected) in rows.items():
        print(f"{name:26}{found:10.4f}{expected:10.4f}")
    if picture:
        draw(models, x, y).savefig(picture)
    return rows


if __name__ == "__main__":
    main(*sys.argv[1:])
