"""Estimates of the likelihood on a linear-Gaussian VAE, whose evidence, posteriors and rates are known exactly."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_vae
from tests.test_evaluation import load_example
from tfp_vae import cli, datasets, evaluation, priors, sampling
from tfp_vae import layers as tfpl
from tfp_vae.vae import VAE

NUMBER = 60


@pytest.fixture(scope="module")
def example():
    return load_example("exact_likelihood")


@pytest.fixture(scope="module")
def vae(example):
    """A linear VAE with little noise, whose posterior is far from the true one."""
    keras.utils.set_random_seed(2)
    vae = example.make_vae()
    vae.encoder.set_weights([0.2 * weight for weight in vae.encoder.get_weights()])
    vae.decoder.layers[1].scale.assign(0.1)
    return vae


@pytest.fixture(scope="module")
def x(example):
    return example.make_data()[:NUMBER]


def test_annealing_meets_the_exact_evidence_where_importance_sampling_does_not(example, vae, x):
    exact = example.exact_log_prob(vae, x)
    plain = evaluation.importance_sampling(vae, x, num_samples=200)
    annealed = evaluation.annealed_log_prob(vae, x, num_steps=200, batch_size=32)
    assert np.mean(exact - plain["log_prob"]) > 0.3
    assert abs(np.mean(exact - annealed["log_prob"])) < 0.05
    assert abs(exact - annealed["log_prob"]).max() < 0.8
    assert (annealed["acceptance"] > 0.7).all()
    assert (annealed["acceptance"] <= 1.0).all()


@pytest.mark.slow
def test_both_bounds_close_on_simulated_data(example, vae):
    x = vae.sample_rows(sampling.row_seeds(64, 0), draws=True)["x"]
    exact = example.exact_log_prob(vae, np.asarray(x)).mean()
    wide, narrow = (evaluation.bounds_on_simulated_data(vae, 64, num_steps=n) for n in (10, 300))
    assert wide["gap"].value > 0.1
    assert abs(narrow["gap"].value) < 4 * narrow["gap"].error + 0.02
    for bounds in (wide, narrow):
        assert bounds["lower"].value < exact + 0.05
        assert exact < bounds["upper"].value + 0.05
        assert bounds["lower"].value < bounds["upper"].value + 4 * bounds["gap"].error
        assert bounds["gap"].value == pytest.approx(
            bounds["upper"].value - bounds["lower"].value, abs=1e-4
        )


@pytest.mark.slow
def test_rate_and_distortion_are_those_of_the_tempered_posterior(example, vae, x):
    """p(z) p(x|z)^beta is normal, so its divergence from the prior and its mean log-likelihood are known."""
    weights, loc, _ = (np.asarray(w, "float64") for w in vae.decoder.get_weights())
    variance = float(vae.decode(np.zeros([1, 3])).variance()[0, 0])
    betas = (0.1, 1.0, 3.0, 10.0)
    found = evaluation.rate_distortion(vae, x, betas, num_steps=300, num_chains=16)
    for beta, rate, distortion in zip(betas, found["rate"], found["distortion"], strict=True):
        precision = np.eye(3) + beta * weights @ weights.T / variance
        covariance = np.linalg.inv(precision)
        mean = beta / variance * (x - loc) @ weights.T @ covariance
        log_det = np.linalg.slogdet(precision)[1]
        exact_rate = 0.5 * (np.trace(covariance) + np.sum(mean**2, 1) - 3 + log_det).mean()
        squares = np.sum((x - loc - mean @ weights) ** 2, 1)
        spread = np.trace(weights.T @ covariance @ weights)
        exact_distortion = 0.5 * np.mean(
            (squares + spread) / variance + x.shape[1] * np.log(2 * np.pi * variance)
        )
        assert rate == pytest.approx(exact_rate, abs=0.15)
        assert distortion == pytest.approx(exact_distortion, abs=0.15)
    assert ((found["acceptance"] > 0.4) & (found["acceptance"] <= 1.0)).all()
    assert (np.diff(found["rate"]) > 0).all()
    assert (np.diff(found["distortion"]) < 0).all()


def test_effective_samples(example, vae, x):
    """All draws count if q(z|x) is the true posterior; few if it is not; one of one."""
    few = evaluation.importance_sampling(vae, x, num_samples=500)["effective_samples"]
    assert 1.0 <= np.median(few) < 100
    one = evaluation.importance_sampling(vae, x, num_samples=1)["effective_samples"]
    np.testing.assert_allclose(one, 1.0, rtol=1e-4)
    prior_only = make_model(keras.initializers.Zeros())
    log_weights_equal = evaluation.importance_sampling(prior_only, x[:, :3], num_samples=50)
    np.testing.assert_allclose(log_weights_equal["effective_samples"], 50.0, rtol=1e-3)


def make_model(initializer, posterior=None):
    """A model whose latent does nothing if the initializer gives zeros."""
    posterior = posterior or tfpl.MultivariateNormalDiag(2)
    size = type(posterior).params_size(2)
    ends = np.full(size, 0.0, "float32")
    ends[2:] = np.log(np.expm1(1.0))
    encoder = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(
                size, kernel_initializer=initializer, bias_initializer=lambda *a, **k: ends
            ),
            posterior,
        ]
    )
    decoder = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(6, kernel_initializer=initializer),
            tfpl.IndependentNormal(3),
        ]
    )
    return VAE(encoder, decoder)


def test_draws_depend_on_the_seed_alone(vae, x):
    first, again, other = (
        evaluation.annealed_log_prob(vae, x[:4], num_steps=5, seed=seed)["log_prob"]
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


def test_aggregate_kl_and_information_add_up_to_the_divergence(vae, x):
    """The ELBO surgery of Hoffman & Johnson: mean KL(q(z|x) || p(z)) = I(x; z) + KL(q(z) || p(z))."""
    seeds = range(20)
    parts = [
        evaluation.mutual_information(vae, x, seed=s).value
        + evaluation.aggregate_kl(vae, x, seed=s).value
        for s in seeds
    ]
    kl = evaluation.evaluate(vae, x, num_samples=1)["kl"]
    assert np.mean(parts) == pytest.approx(kl, abs=4 * np.std(parts) / np.sqrt(len(seeds)) + 1e-3)


def test_evaluate_gives_errors_and_bits(vae, x):
    numbers = evaluation.evaluate(vae, x, num_samples=20)
    terms = evaluation.elbo(vae, x)["elbo"]
    assert numbers["negative_elbo_error"] == pytest.approx(
        terms.std(ddof=1) / np.sqrt(NUMBER), rel=1e-4
    )
    assert numbers["bits_per_dim"] == pytest.approx(numbers["nll"] / (10 * np.log(2)))
    one = evaluation.evaluate(vae, x[:1], num_samples=20)
    assert np.isnan(one["nll_error"])


ERRORS = {
    "sphere": (
        lambda: make_vae(posterior=tfpl.PowerSpherical, prior=priors.HypersphericalUniform(4)),
        {},
        "Annealed chains move through one latent of real numbers.*PowerSpherical",
    ),
    "no steps": (make_vae, {"num_steps": 0}, "num_steps must be a whole number of at least 1"),
    "no step size": (make_vae, {"step_size": 0.0}, "step_size must be a positive number"),
}


@pytest.mark.parametrize(("make", "arguments", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(make, arguments, message, digits):
    with pytest.raises(ValueError, match=message):
        evaluation.annealed_log_prob(make(), digits.test[:2], **arguments)


@pytest.mark.parametrize("betas", [(0.0,), (), -1.0])
def test_rate_distortion_wants_positive_betas(vae, x, betas):
    with pytest.raises(ValueError, match="betas must be positive"):
        evaluation.rate_distortion(vae, x, betas)


@pytest.mark.slow
def test_float64(digits):
    keras.config.set_dtype_policy("float64")
    model = make_vae()
    x = digits.test[:3].astype("float64")
    found = evaluation.annealed_log_prob(model, x, num_steps=3, num_chains=2)
    assert found["log_prob"].dtype == np.float64
    assert np.isfinite(found["log_prob"]).all()
    evaluation.bounds_on_simulated_data(model, 3, num_steps=3)
    evaluation.rate_distortion(model, x, 1.0, num_steps=3)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"condition": "label"}, {"missing": True}], ids=str)
def test_conditions_and_missing_values(options):
    """Not below importance sampling with many draws, by more than the noise of both."""
    splits = datasets.load("digits", **options)
    small = {"hidden_size": 8, "latent_size": 3, "epochs": 1}
    model = cli.build(splits, cli.Options(name="digits", dataset="digits", **options, **small))
    x = tf.nest.map_structure(lambda values: values[:5], splits.test)
    if options.get("missing"):
        x = x.astype("float32")
        x[:, 2:4] = np.nan
    annealed = evaluation.annealed_log_prob(model, x, num_steps=100)["log_prob"].mean()
    assert annealed > -evaluation.nll(model, x, num_samples=2000).value - 1.0
