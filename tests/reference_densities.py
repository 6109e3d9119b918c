"""Log-densities in NumPy and SciPy, of unconstrained params and x: what the distribution layers should be."""

import numpy as np
from scipy import special, stats


def softplus(x):
    return np.logaddexp(0.0, x)


def values(num_params, *event_shape):
    """Cut params into `num_params` arrays of shape `[..., *event_shape]`, then sum the event of a log-density."""

    def over_event(log_density):
        def summed(params, x):
            pieces = np.moveaxis(
                params.reshape(*params.shape[:-1], num_params, *event_shape), params.ndim - 1, 0
            )
            return np.sum(
                log_density(x, *pieces),
                axis=tuple(range(-len(event_shape), 0)) if event_shape else (),
            )

        return summed

    return over_event


def multivariate(scale_of_params):
    """Return the log-density of a normal distribution with location params[:2] and the scale matrix of the others."""

    def log_density(params, x):
        scale = scale_of_params(params[..., 2:])
        solved = np.linalg.solve(scale, (x - params[..., :2])[..., np.newaxis])[..., 0]
        return stats.norm.logpdf(solved).sum(-1) - np.log(np.abs(np.linalg.det(scale)))

    return log_density


def diagonal(params):
    return (softplus(params) + 1e-5)[..., np.newaxis] * np.eye(2)


def triangular(params, below=1.0):
    """The entries (c, b, a) fill the factor clockwise from its last: ((a, 0), (below * b, c))."""
    c, b, a = np.moveaxis(params, -1, 0)
    return np.stack([softplus(a) + 1e-5, 0 * a, below * b, softplus(c) + 1e-5], -1).reshape(
        *a.shape, 2, 2
    )


def diagonal_plus_low_rank(params):
    factor = params[..., 2:, np.newaxis]
    return diagonal(params[..., :2]) + factor * np.swapaxes(factor, -1, -2)


def negative_binomial(x, log_mean, theta):
    theta = softplus(theta)
    return stats.nbinom.logpmf(x, theta, theta / (theta + np.exp(log_mean)))


def zero_inflated(x, log_mean, theta, zero_logits):
    return np.logaddexp(
        np.where(x == 0, special.log_expit(zero_logits), -np.inf),
        special.log_expit(-zero_logits) + negative_binomial(x, log_mean, theta),
    )


def beta(x, toward_1, toward_0):
    return stats.beta.logpdf(
        np.clip(x, 1e-6, 1 - 1e-6), softplus(toward_1) + 1.0, softplus(toward_0) + 1.0
    )


def continuous_bernoulli(x, logits):
    # 2 artanh(1 - 2 p) / (1 - 2 p), with p = expit(logits).
    normalizer = logits / np.tanh(logits / 2.0)
    return (
        np.log(normalizer) + x * special.log_expit(logits) + (1.0 - x) * special.log_expit(-logits)
    )


def quantized_logistic_of_6(x, loc, scale):
    loc, scale = 2.5 + 2.5 * loc, 2.5 * (softplus(scale) + np.exp(-7.0))
    below = np.where(x == 0, 0.0, special.expit((x - 0.5 - loc) / scale))
    above = np.where(x == 5, 1.0, special.expit((x + 0.5 - loc) / scale))
    return np.log(above - below)


def mixture_of_2_quantized_logistics_of_6(params, x):
    # [..., component, value].
    logits, loc, scale = np.moveaxis(params.reshape(*params.shape[:-1], 3, 2, 2), -3, 0)
    parts = special.log_softmax(logits, -2) + quantized_logistic_of_6(
        x[..., np.newaxis, :], loc, scale
    )
    return special.logsumexp(parts, -2).sum(-1)


def categorical_of_3(params, x):
    logits = params.reshape(*params.shape[:-1], 2, 3)
    chosen = np.eye(3)[x.astype(int)]
    return np.sum(chosen * special.log_softmax(logits, -1), (-2, -1))


def one_hot(params, x):
    return np.sum(x * special.log_softmax(params, -1), -1)


def one_hot_2_by_3(params, x):
    return one_hot(params.reshape(*params.shape[:-1], 2, 3), x).sum(-1)


def mixture(component, num_components=2):
    def log_density(params, x):
        weights = special.log_softmax(params[..., :num_components], -1)
        each = params[..., num_components:].reshape(*params.shape[:-1], num_components, -1)
        parts = [weights[..., k] + component(each[..., k, :], x) for k in range(num_components)]
        return special.logsumexp(np.stack(np.broadcast_arrays(*parts)), 0)

    return log_density


def relaxed_at_1_5(params, x, temperature=1.5):
    """Maddison et al., 2017, equation (10)."""
    log_weights, number = special.log_softmax(params, -1), x.shape[-1]
    terms = log_weights - temperature * np.log(x)
    return (
        special.gammaln(number)
        + (number - 1) * np.log(temperature)
        + np.sum(terms - np.log(x), -1)
        - number * special.logsumexp(terms, -1)
    )


def relaxed_2_by_2_at_1_5(params, x):
    return relaxed_at_1_5(params.reshape(*params.shape[:-1], 2, 2), x).sum(-1)


def relaxed_bernoulli_at_1_5(x, logits):
    """Maddison et al., 2017, equation (21): the density of sigmoid((logits + logistic noise) / temperature)."""
    logit, temperature = special.logit(x), 1.5
    noise = temperature * logit - logits
    return stats.logistic.logpdf(noise) + np.log(temperature) - np.log(x) - np.log1p(-x)


def direction_and_concentration(params):
    direction = params[..., :-1] / np.linalg.norm(params[..., :-1], axis=-1, keepdims=True)
    return direction, softplus(params[..., -1]) + 0.01


def von_mises(params, x):
    """The von Mises-Fisher distribution on a circle."""
    direction, concentration = direction_and_concentration(params)
    return stats.vonmises.logpdf(
        np.arccos(np.clip(np.sum(direction * x, -1), -1, 1)), concentration
    )


def von_mises_fisher_3(params, x):
    direction, concentration = direction_and_concentration(params)
    log_normalizer = np.log(concentration / (4.0 * np.pi * np.sinh(concentration)))
    return log_normalizer + concentration * np.sum(direction * x, -1)


def power_spherical(params, x):
    """De Cao & Aziz, 2020, equations (3) and (4)."""
    direction, concentration = direction_and_concentration(params)
    b = (x.shape[-1] - 1) / 2.0
    a = b + concentration
    log_normalizer = (
        (a + b) * np.log(2.0) + b * np.log(np.pi) + special.gammaln(a) - special.gammaln(a + b)
    )
    return concentration * np.log1p(np.sum(direction * x, -1)) - log_normalizer


def dirichlet_of_2(params, x):
    a, b = np.moveaxis(softplus(params), -1, 0)
    return (a - 1) * np.log(x[..., 0]) + (b - 1) * np.log(x[..., 1]) - special.betaln(a, b)


laplace = values(2, 1)(lambda x, loc, scale: stats.laplace.logpdf(x, loc, softplus(scale) + 0.01))
normal = values(2, 2, 1)(lambda x, loc, scale: stats.norm.logpdf(x, loc, softplus(scale)))
scalar_normal = values(2)(lambda x, loc, scale: stats.norm.logpdf(x, loc, softplus(scale)))
normal_of_2 = values(2, 2)(lambda x, loc, scale: stats.norm.logpdf(x, loc, softplus(scale)))
unit_normal = values(1, 2)(lambda x, loc: stats.norm.logpdf(x, loc))
logistic = values(2, 2)(lambda x, loc, scale: stats.logistic.logpdf(x, loc, softplus(scale)))
student_t = values(3, 1)(
    lambda x, df, loc, scale: stats.t.logpdf(x, softplus(df) + 2.001, loc, softplus(scale))
)
student_t_of_3 = values(2, 1)(lambda x, loc, scale: stats.t.logpdf(x, 3.0, loc, softplus(scale)))
gamma = values(2, 2)(
    lambda x, a, log_rate: stats.gamma.logpdf(x, softplus(a), scale=np.exp(-log_rate))
)
bernoulli = values(1, 2, 1, 2)(lambda x, logits: stats.bernoulli.logpmf(x, special.expit(logits)))
bernoulli_of_2 = values(1, 2)(lambda x, logits: stats.bernoulli.logpmf(x, special.expit(logits)))
scalar_bernoulli = values(1)(lambda x, logits: stats.bernoulli.logpmf(x, special.expit(logits)))
binomial_of_5 = values(1, 2)(lambda x, logits: stats.binom.logpmf(x, 5, special.expit(logits)))
poisson = values(1, 2)(lambda x, log_rate: stats.poisson.logpmf(x, np.exp(log_rate)))
