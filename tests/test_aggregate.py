"""A prior fitted after training covers the codes of the data."""

import numpy as np
import pytest

import tfp_vae


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
    np.testing.assert_array_equal(trained_vae.generate(3, seed=1, prior=prior), x[:3])
    assert np.abs(x - trained_vae.generate(8, seed=1)).max() > 1.0


def test_too_few_examples(trained_vae, digits):
    with pytest.raises(ValueError, match="at least as many examples as components, received 5 and 10"):
        tfp_vae.fit_aggregate_prior(trained_vae, digits.train[:5])
