"""Straight-through and relaxed posteriors with their priors: what goes wrong in silence, against sums and SciPy."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import integrate, special, stats

import tfp_vae
from tfp_vae import layers as tfpl
from tfp_vae import objectives, priors

tfd = tfp.distributions

CATEGORICAL = tfpl.OneHotCategoricalStraightThrough, priors.Categorical, (2, 3)
BINARY = tfpl.IndependentBernoulliStraightThrough, priors.Bernoulli, (3,)
CODES = {
    "categorical": [np.eye(3)[list(row)] for row in itertools.product(range(3), repeat=2)],
    "binary": list(itertools.product((0.0, 1.0), repeat=3)),
}
EXACT = pytest.mark.parametrize(
    ("members", "codes"),
    [(CATEGORICAL, np.float32(CODES["categorical"])), (BINARY, np.float32(CODES["binary"]))],
    ids=CODES,
)


@EXACT
@pytest.mark.parametrize("trained", [False, True])
def test_kl_is_analytic_and_the_sum_over_all_codes(members, codes, trained):
    layer, prior, event_shape = members
    rng, prior = np.random.default_rng(0), prior(event_shape, trained=trained)
    if trained:
        prior.set_weights([rng.normal(size=event_shape)])
    q, p = (
        layer.new(rng.normal(size=(4, np.prod(event_shape))).astype("float32"), event_shape),
        prior(None),
    )
    assert (p.batch_shape, p.event_shape, p.dtype) == ([], event_shape, tf.float32)
    np.testing.assert_allclose(tf.reduce_sum(p.prob(codes)), 1.0, rtol=1e-5)
    log_q, log_p = (
        q.log_prob(codes[:, np.newaxis]).numpy(),
        p.log_prob(codes).numpy()[:, np.newaxis],
    )
    assert objectives.kl_is_analytic(q, p)
    expected = np.sum(np.exp(log_q) * (log_q - log_p), 0)
    np.testing.assert_allclose(objectives.analytic_kl(q, p), expected, rtol=1e-4)


@EXACT
def test_a_prior_that_is_not_trained_is_uniform_and_has_no_weights(members, codes):
    _, prior, event_shape = members
    prior = prior(event_shape)
    assert not prior.weights
    np.testing.assert_allclose(
        prior(None).prob(codes), np.full(len(codes), 1.0 / len(codes)), rtol=1e-5
    )


@EXACT
def test_a_sampled_kl_trains_a_straight_through_posterior(members, codes):
    """log q - log p is linear in z, so its straight-through gradient is unbiased: on average that of the closed form.

    TFP's own log-density of one-hot vectors stops the gradient by z, which leaves zero on average.
    """
    layer, prior, event_shape = members
    rng, prior = np.random.default_rng(0), prior(event_shape, trained=True)
    prior.set_weights([rng.normal(size=event_shape)])
    params = rng.normal(size=np.prod(event_shape)).astype("float32")

    def gradient(kl, params):
        params = tf.Variable(params)
        with tf.GradientTape() as tape:
            value = kl(layer.new(params, event_shape), prior(None))
        return tape.gradient(value, params).numpy()

    def sampled(q, p):
        z = q.sample(seed=(0, 0))
        return q.log_prob(z) - p.log_prob(z)

    each = gradient(sampled, np.tile(params, [50_000, 1]))
    exact, error = gradient(tfd.kl_divergence, params), each.std(0) / len(each) ** 0.5
    assert (np.abs(exact) > 20.0 * error).any()
    assert (np.abs(each.mean(0) - exact) < 5.0 * error).all()


# Relaxed distributions at the end of floating point

LOGITS, LOGIT_OF_END = np.float32([-60.0, -3.0, 0.5, 4.0, 60.0]), -np.log(np.finfo("float32").eps)


def relaxed_bernoulli(logits, temperature):
    return tfpl.IndependentRelaxedBernoulli.new(tf.reshape(logits, [-1, 1]), 1, temperature)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
def test_a_relaxed_bernoulli_has_the_mass_of_its_tails_at_its_ends(temperature):
    epsilon = np.finfo("float32").eps
    ends = np.float32([epsilon, 1.0 - epsilon])[:, np.newaxis, np.newaxis]
    noise = stats.logistic(LOGITS / temperature, 1.0 / temperature)
    expected = [noise.logcdf(-LOGIT_OF_END), noise.logsf(LOGIT_OF_END)]
    q = relaxed_bernoulli(LOGITS, temperature)
    np.testing.assert_allclose(q.log_prob(ends), expected, rtol=1e-4, atol=1e-6)
    # 0 and 1 themselves.
    np.testing.assert_allclose(q.log_prob(1.0 * (ends > 0.5)), expected, rtol=1e-4, atol=1e-6)
    z = q.sample(100_000, seed=(0, 0)).numpy()[..., 0]
    assert (z.min(), z.max()) == (ends[0], ends[1])
    for end, log_mass in zip(ends.ravel(), expected, strict=True):
        np.testing.assert_allclose(np.mean(z == end, 0), np.exp(log_mass), atol=0.01)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_the_sampled_kl_of_relaxed_bernoullis_is_right_however_large_the_logits(temperature):
    """Against the integral of the two logistic densities up to the ends, and the masses beyond."""
    q, p = relaxed_bernoulli(LOGITS, temperature), priors.RelaxedBernoulli(1, temperature)(None)
    assert not objectives.kl_is_analytic(q, p)
    z = q.sample(100_000, seed=(0, 0))
    each = (q.log_prob(z) - p.log_prob(z)).numpy()
    for logit, draws in zip(LOGITS, each.T, strict=True):
        a, b = (
            stats.logistic(logit / temperature, 1 / temperature),
            stats.logistic(0.0, 1 / temperature),
        )
        grid = np.linspace(-LOGIT_OF_END, LOGIT_OF_END, 20_001)
        inside = integrate.simpson(a.pdf(grid) * (a.logpdf(grid) - b.logpdf(grid)), x=grid)
        below = a.cdf(grid[0]) * (a.logcdf(grid[0]) - b.logcdf(grid[0]))
        above = a.sf(grid[-1]) * (a.logsf(grid[-1]) - b.logsf(grid[-1]))
        tolerance = 0.02 + 5.0 * float(draws.std()) / len(draws) ** 0.5
        assert draws.mean() == pytest.approx(inside + below + above, abs=tolerance)


def test_a_relaxed_category_has_the_mass_of_what_is_too_small_to_see():
    """Of two categories; Maddison et al., 2017: which of two is the larger, and by how much, is logistic."""
    least, temperature = np.finfo("float32").tiny, 0.05
    logits = np.float32([[2.0, -1.0], [9.0, 0.0], [0.0, 0.0], [-40.0, 40.0]])
    q = tfpl.RelaxedOneHotCategorical.new(logits, 2, temperature)
    noise = stats.logistic((logits[:, 0] - logits[:, 1]) / temperature, 1.0 / temperature)
    first = np.float32([1.0, least])
    np.testing.assert_allclose(q.log_prob(first), noise.logsf(-np.log(least)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        q.log_prob(first[::-1]), noise.logcdf(np.log(least)), rtol=1e-4, atol=1e-5
    )
    z = q.sample(100_000, seed=(0, 0)).numpy()
    np.testing.assert_allclose(np.mean(z[..., 1] == least, 0), noise.sf(-np.log(least)), atol=0.01)


def test_a_relaxed_category_of_three_censored_is_the_limit_of_its_density():
    """What lies below the least probability, summed over that coordinate in float64 where nothing is censored."""
    least, temperature = np.finfo("float32").tiny, 0.05
    logits = np.array([[1.0, 0.5, -3.0]])
    u = np.linspace(-6000.0, np.log(least), 200_001)
    others = np.log([0.3, 0.7])
    log_rates = special.log_softmax(logits)[0] - temperature * np.stack(
        [np.broadcast_to(others[0], u.shape), np.broadcast_to(others[1], u.shape), u], -1
    )
    # By u = log z_3.
    log_density = special.gammaln(3) + 2 * np.log(temperature) + log_rates.sum(-1) - others.sum()
    log_density -= 3 * special.logsumexp(log_rates, -1)
    expected = np.log(integrate.simpson(np.exp(log_density), x=u))
    q = tfpl.RelaxedOneHotCategorical.new(np.float32(logits), 3, temperature)
    assert q.log_prob(np.float32([0.3, 0.7, least])).numpy()[0] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_the_sampled_kl_of_relaxed_categories_never_falls_as_the_logits_grow(temperature):
    """It would reward ever larger logits with a loss that has no bound."""
    gaps = np.float32([1.0, 5.0, 10.0, 30.0, 100.0, 1000.0])
    logits = np.zeros([len(gaps), 10], "float32")
    logits[:, 0] = gaps
    q = tfpl.RelaxedOneHotCategorical.new(logits, 10, temperature)
    p = priors.RelaxedCategorical(10, temperature)(None)
    z = q.sample(20_000, seed=(0, 0))
    kl = np.mean(q.log_prob(z) - p.log_prob(z), 0)
    assert (np.diff(kl) > -0.05).all(), kl
    assert kl[-1] > 1.0


def test_relaxed_priors_train_their_logits_and_take_several_variables():
    prior = priors.RelaxedCategorical((20, 10), temperature=0.7, trained=True)
    q = tfpl.RelaxedOneHotCategorical.new(tf.zeros([3, 200]), (20, 10), 0.5)
    z = q.sample(seed=(0, 0))
    with tf.GradientTape() as tape:
        log_prob = prior(None).log_prob(z)
    assert (log_prob.shape, [w.shape for w in prior.weights]) == ((3,), [(20, 10)])
    assert np.any(tape.gradient(log_prob, prior.raw_logits.value))


@pytest.mark.parametrize(
    "name", ["Bernoulli", "Categorical", "RelaxedBernoulli", "RelaxedCategorical"]
)
def test_frozen_models_keep_the_prior_they_trained(name, tmp_path):
    """`trained` is an argument of its own: Keras's `trainable` may change after the weights exist."""
    prior = getattr(priors, name)(4, trained=True)
    prior.set_weights([np.arange(4.0)])
    prior.trainable = False
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(prior))
    again.set_weights(prior.get_weights())
    np.testing.assert_array_equal(again(None).sample(seed=(0, 0)), prior(None).sample(seed=(0, 0)))


def vae_of(posterior, prior, latent=4, objective=None) -> tfp_vae.VAE:
    encoder = [
        keras.Input((6,)),
        keras.layers.Dense(posterior.params_size(latent)),
        posterior(latent),
    ]
    decoder = [keras.Input((latent,)), keras.layers.Dense(6), tfpl.IndependentBernoulli(6)]
    return tfp_vae.VAE(
        keras.Sequential(encoder),
        keras.Sequential(decoder),
        prior=prior(latent),
        objective=objective,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("posterior", "prior"),
    [
        (tfpl.OneHotCategoricalStraightThrough, priors.Categorical),
        (tfpl.RelaxedOneHotCategorical, priors.RelaxedCategorical),
        (tfpl.IndependentBernoulliStraightThrough, priors.Bernoulli),
        (tfpl.IndependentRelaxedBernoulli, priors.RelaxedBernoulli),
    ],
)
@pytest.mark.parametrize(
    "objective", [objectives.ELBO(kl="sampled"), objectives.IWAE(5)], ids=["elbo", "iwae"]
)
@pytest.mark.rows(0, 3)
def test_four_clusters_are_told_apart(posterior, prior, objective):
    """Log 4 nats of code for clusters of binary data; one Bernoulli a value, without code, has far less evidence."""
    rng = np.random.default_rng(0)
    centers = np.float32(
        [[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [1, 0, 1, 0, 1, 0], [0, 1, 0, 0, 0, 1]]
    )
    x = np.abs(centers[rng.integers(4, size=1000)] - (rng.uniform(size=(1000, 6)) < 0.02)).astype(
        "float32"
    )
    vae = vae_of(posterior, prior, objective=type(objective).from_config(objective.get_config()))
    vae.compile(keras.optimizers.Adam(0.02), jit_compile=False)
    vae.fit(x, epochs=25, batch_size=50, verbose=0)
    p = x.mean(0)
    without_code = np.mean(np.sum(x * np.log(p) + (1 - x) * np.log(1 - p), -1))
    assert np.mean(vae.log_prob(x[:500], 100)) > without_code + 0.6
