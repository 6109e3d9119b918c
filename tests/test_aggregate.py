"""A prior fitted after training covers the codes of the data."""

import numpy as np
import pytest

import tfp_vae
from tests.conftest import make_vae
from tfp_vae import layers as tfpl
from tfp_vae import objectives


def test_the_fitted_prior_explains_the_codes_better(trained_vae, digits):
    prior = tfp_vae.fit_aggregate_prior(trained_vae, digits.train, num_components=10)
    assert (prior.batch_shape, prior.event_shape) == ([], [4])
    z = trained_vae.encode(digits.test).sample(seed=[1, 2])
    assert np.mean(prior.log_prob(z)) > np.mean(trained_vae.prior_distribution().log_prob(z)) + 0.5
    again = tfp_vae.fit_aggregate_prior(trained_vae, digits.train, num_components=10)
    np.testing.assert_array_equal(again.log_prob(z), prior.log_prob(z))


def test_one_component_has_the_moments_of_the_aggregate_posterior(trained_vae, digits):
    prior = tfp_vae.fit_aggregate_prior(trained_vae, digits.train, num_components=1, batch_size=100)
    posterior = trained_vae.encode(digits.train)
    means, variances = posterior.mean().numpy(), posterior.variance().numpy()
    np.testing.assert_allclose(prior.mean(), means.mean(0), atol=0.05)
    np.testing.assert_allclose(prior.variance(), means.var(0) + variances.mean(0), rtol=0.1)


def test_generate_draws_from_it(trained_vae, digits):
    prior = tfp_vae.fit_aggregate_prior(trained_vae, digits.train)
    x = trained_vae.generate(8, seed=1, prior=prior)
    assert x.shape == (8, 8, 8, 1)
    np.testing.assert_allclose(trained_vae.generate(3, seed=1, prior=prior), x[:3], rtol=1e-5)
    assert np.abs(x - trained_vae.generate(8, seed=1)).max() > 1.0


@pytest.mark.slow
def test_a_flow_explains_the_codes_better_too(trained_vae, digits):
    """It draws like its density: the mean and covariance of draws are those of the codes."""
    flow = tfpl.MaskedAutoregressiveFlow(4, 2, (32,))
    prior = tfp_vae.fit_aggregate_prior(
        trained_vae, digits.train, flow=flow, epochs=10, batch_size=100
    )
    assert (prior.batch_shape, prior.event_shape) == ([], [4])
    z = trained_vae.encode(digits.test).sample(seed=[1, 2])
    single = tfp_vae.fit_aggregate_prior(trained_vae, digits.train, num_components=1)
    assert np.mean(prior.log_prob(z)) > np.mean(trained_vae.prior_distribution().log_prob(z)) + 0.5
    assert np.mean(prior.log_prob(z)) > np.mean(single.log_prob(z)) + 0.05
    draws = tfp_vae.sampling.sample(prior, 20_000, [1, 2]).numpy()
    np.testing.assert_allclose(draws.mean(0), single.mean(), atol=0.1)
    np.testing.assert_allclose(np.cov(draws.T), single.covariance(), atol=0.4)
    x = trained_vae.generate(8, seed=1, prior=prior)
    np.testing.assert_allclose(trained_vae.generate(3, seed=1, prior=prior), x[:3], rtol=1e-5)


def test_a_flow_of_codes_of_which_one_is_dead(digits):
    vae = make_vae(posterior=tfpl.Deterministic, objective=objectives.Reconstruction())
    weights = vae.encoder.layers[0].get_weights()
    weights[-2][:, 0] = weights[-1][0] = 0.0
    vae.encoder.layers[0].set_weights(weights)
    flow = tfpl.RealNVP(4, 2, (8,))
    prior = tfp_vae.fit_aggregate_prior(vae, digits.train[:100], flow=flow, epochs=1)
    z = prior.sample(5, seed=[0, 1])
    assert np.isfinite(z).all()
    assert np.isfinite(prior.log_prob(z)).all()


@pytest.mark.slow
def test_the_fit_of_a_flow_depends_on_its_first_weights_and_the_seed_alone(trained_vae, digits):
    first = tfpl.RealNVP(4, 2, (8,)).get_weights()

    def fitted(seed):
        flow = tfpl.RealNVP(4, 2, (8,))
        flow.set_weights(first)
        tfp_vae.fit_aggregate_prior(trained_vae, digits.train[:200], flow=flow, epochs=2, seed=seed)
        return flow.get_weights()[0]

    one = fitted(3)
    np.testing.assert_array_equal(fitted(3), one)
    assert np.abs(fitted(4) - one).max() > 0.0


FLOWS = {
    "size": (lambda: tfpl.RealNVP(3), r"The codes have 4 values, flow has event_size=3"),
    "context": (lambda: tfpl.RealNVP(4, context_size=2), r"flow must have context_size=0, not 2"),
    "dtype": (
        lambda: tfpl.RealNVP(4, dtype="float64"),
        r"flow is in float64, the prior in float32",
    ),
    "kind": (lambda: "RealNVP", r"flow must be a flow such as"),
}


@pytest.mark.parametrize(("flow", "message"), FLOWS.values(), ids=FLOWS)
def test_flows_that_do_not_fit(trained_vae, digits, flow, message):
    with pytest.raises((TypeError, ValueError), match=message):
        tfp_vae.fit_aggregate_prior(trained_vae, digits.train[:20], flow=flow())


def test_too_few_examples(trained_vae, digits):
    with pytest.raises(
        ValueError, match="at least as many examples as components, received 5 and 10"
    ):
        tfp_vae.fit_aggregate_prior(trained_vae, digits.train[:5])
