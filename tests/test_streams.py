"""Data larger than memory: streams give the numbers of arrays, and files are read row by row."""

import numpy as np
import pytest
import tensorflow as tf

import tfp_vae
from tests.conftest import make_vae, mostly_slow
from tests.test_codes import vq_vae
from tfp_vae import evaluation, plots

# Sizes of the batches of a stream, which is read in others.
SIZES = (7, 100)


def streamed(x, size=7):
    """Return arrays as a stream of batches, of which the last one is smaller."""
    return tf.data.Dataset.from_tensor_slices(x).batch(size)


def same(one, other):
    """Check that two results are equal up to the rounding of sums."""
    tf.nest.assert_same_structure(one, other)
    for first, second in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-6)


NUMBERS = {
    "evaluate": lambda vae, x: evaluation.evaluate(vae, x, num_samples=5, batch_size=40),
    "nll": lambda vae, x: evaluation.nll(vae, x, num_samples=5, batch_size=40),
    "elbo": lambda vae, x: evaluation.elbo(vae, x, batch_size=40),
    "importance_sampling": lambda vae, x: evaluation.importance_sampling(vae, x, num_samples=5),
    "annealed_log_prob": lambda vae, x: evaluation.annealed_log_prob(
        vae, x, num_steps=2, num_chains=1, batch_size=40
    ),
    "rate_distortion": lambda vae, x: evaluation.rate_distortion(
        vae, x, [0.5], num_steps=2, num_chains=1
    ),
    "active_units": evaluation.active_units,
    "posterior_means": evaluation.posterior_means,
    "mutual_information": lambda vae, x: evaluation.mutual_information(vae, x, num_examples=50),
    "aggregate_kl": lambda vae, x: evaluation.aggregate_kl(vae, x, num_examples=50),
    "kl_by_dimension": evaluation.kl_by_dimension,
    "negative_elbo": evaluation.negative_elbo,
    "negative_log_prob": lambda vae, x: evaluation.negative_log_prob(vae, x, num_samples=2),
    "reconstruction_errors": evaluation.reconstruction_errors,
    "predictive_check": lambda vae, x: evaluation.predictive_check(vae, x, num_replications=2),
    "nearest": lambda vae, x: evaluation.nearest(np.ones([2, 8, 8, 1]), x),
    "fit_aggregate_prior": lambda vae, x: tfp_vae.fit_aggregate_prior(
        vae, x, num_components=2, batch_size=40
    ).log_prob(np.zeros([4], "float32")),
    "latent_traversal": lambda vae, x: [
        image.get_array() for image in plots.latent_traversal(vae, x, num_steps=2).axes[0].images
    ],
    "reconstructions": lambda vae, x: [
        image.get_array() for image in plots.reconstructions(vae, x, num_examples=3).axes[0].images
    ],
}


@pytest.mark.parametrize(
    "name", mostly_slow(NUMBERS, "evaluate", "nll", "active_units", "mutual_information", "nearest")
)
def test_a_stream_has_the_numbers_of_its_arrays(name, trained_vae, digits):
    x = digits.test[:101]
    expected = NUMBERS[name](trained_vae, x)
    for size in SIZES:
        same(NUMBERS[name](trained_vae, streamed(x, size)), expected)


def test_labels_beside_the_examples_are_ignored(trained_vae, digits):
    x = digits.test[:50]
    pairs = streamed((x, np.arange(50)))
    assert evaluation.active_units(trained_vae, pairs) == evaluation.active_units(trained_vae, x)


@pytest.mark.slow
def test_codes_of_a_stream(digits):
    vae, x = vq_vae(num_codes=32), digits.test[:50]
    np.testing.assert_array_equal(evaluation.codes(vae, streamed(x)), evaluation.codes(vae, x))
    assert evaluation.perplexity(vae, streamed(x)) == evaluation.perplexity(vae, x)
    prior, other = (
        tfp_vae.fit_aggregate_prior(vae, data, num_components=2) for data in (x, streamed(x))
    )
    z = vae.encode(x).mean()
    np.testing.assert_array_equal(prior.log_prob(z), other.log_prob(z))


@pytest.mark.parametrize("num_draws", mostly_slow([None, 3], None))
def test_a_stream_is_filled_in_as_its_arrays_are(num_draws, digits):
    x = np.array(digits.test[:20])
    x[:, :3] = np.nan
    vae = make_vae(missing=True)
    expected = vae.impute(x, 10, num_draws=num_draws)
    filled = vae.impute(streamed(x), 10, num_draws=num_draws)
    found = np.concatenate([*filled.as_numpy_iterator()], axis=0 if num_draws is None else 1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


BAD = {
    "empty": (lambda x: streamed(x[:0]), "empty"),
    "endless": (lambda x: streamed(x).repeat(), r"never ends.*take\(100\)"),
    "weights": (lambda x: streamed((x, x, np.ones(len(x)))), "sample weights"),
    "another shape": (lambda x: streamed(x[:, :4]), "shape"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("number", ["evaluate", "nll", "active_units", "fit_aggregate_prior"])
def test_streams_that_have_no_numbers(name, number, trained_vae, digits):
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        NUMBERS[number](trained_vae, make(digits.test[:20]))
