"""Evaluation against exactly solvable models."""

import importlib.util
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow_probability as tfp

from tests.conftest import make_vae
from tfp_vae import evaluation
from tfp_vae import layers as tfpl
from tfp_vae.generative import _sum_of_weights

tfd = tfp.distributions
ROOT = Path(__file__).parents[1]


def load_example(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_linear_gaussian_vae_finds_probabilistic_pca(capsys):
    result = load_example("exact_likelihood").main()
    assert "probabilistic PCA" in capsys.readouterr().out
    assert result["pca"] <= result["exact"] + 1e-3  # the optimum, up to float precision
    assert result["negative_elbo"] - result["pca"] < 0.1
    assert abs(result["importance"] - result["exact"]) < 0.02
    assert result["active_units"] == 3


@pytest.fixture(scope="module")
def linear_vae():
    """A linear VAE with arbitrary weights: its posterior is not exact, so the bounds have gaps."""
    keras.utils.set_random_seed(2)  # the fixture is made before that of each test sets its own
    vae = load_example("exact_likelihood").make_vae()
    # An encoder of small weights is near the prior, and with much noise so is the true posterior.
    vae.encoder.set_weights([0.2 * weight for weight in vae.encoder.get_weights()])
    vae.decoder.layers[1].scale.assign(2.0)
    return vae


def test_importance_weighted_bound_rises_to_the_exact_evidence(linear_vae):
    example = load_example("exact_likelihood")
    x = example.make_data()[:200]
    exact = example.exact_log_prob(linear_vae, x).mean()
    elbo = evaluation.elbo(linear_vae, x)["elbo"].mean()
    bounds = [
        -evaluation.nll(linear_vae, x, num_samples=k, batch_size=64).value
        for k in (5, 50, 500, 20_000)
    ]
    assert elbo < bounds[0] < bounds[1] < bounds[2] < bounds[3] < exact + 0.02
    assert bounds[-1] == pytest.approx(exact, abs=0.05)


def test_evaluate_gathers_the_numbers(trained_vae, digits):
    numbers = evaluation.evaluate(trained_vae, digits.test, num_samples=20, batch_size=64)
    terms = evaluation.elbo(trained_vae, digits.test, batch_size=64)
    assert numbers["negative_elbo"] == pytest.approx(-terms["elbo"].mean(), rel=1e-5)
    assert numbers["negative_elbo"] == pytest.approx(
        numbers["kl"] - numbers["log_likelihood"], rel=1e-5
    )
    assert numbers["nll"] < numbers["negative_elbo"]
    assert (numbers["num_examples"], numbers["num_samples"], numbers["latent_units"]) == (
        180,
        20,
        4,
    )
    assert numbers["kl_is_analytic"]


def test_terms_of_every_example_whatever_the_batch(trained_vae, digits):
    """The KL divergence has no noise: it must not depend on how the examples are cut into batches."""
    x = digits.test[:50]
    for batch_size in (1, 7, 50, 1000):
        kl = evaluation.elbo(trained_vae, x, batch_size=batch_size)["kl"]
        np.testing.assert_allclose(
            kl, tfd.kl_divergence(trained_vae.encode(x), trained_vae.prior(None)), rtol=1e-4
        )


def test_active_units_counts_the_dimensions_that_move(digits):
    vae = make_vae()
    network = vae.encoder.layers[0].layers[-1]
    kernel, bias = network.get_weights()
    kernel[:, 1:4] *= 0  # of the four locations, the first alone depends on x
    network.set_weights([kernel, bias])
    assert evaluation.active_units(vae, digits.test) == 1
    means = evaluation.posterior_means(vae, digits.test)
    assert (means.var(axis=0) > 0.01).tolist() == [True, False, False, False]


def test_one_example_has_no_standard_error(trained_vae, digits):
    numbers = evaluation.evaluate(trained_vae, digits.test[:1], num_samples=5)
    assert np.isfinite(numbers["nll"])
    assert np.isnan(numbers["nll_error"])
    assert "±" not in str(evaluation.nll(trained_vae, digits.test[:1], num_samples=5))


def test_nll_is_reproducible_and_follows_its_seed(trained_vae, digits):
    first, again, other = (
        evaluation.nll(trained_vae, digits.test, num_samples=5, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again != other


def test_the_seed_is_that_of_all_draws(trained_vae, digits):
    first, again, other = (
        evaluation.evaluate(trained_vae, digits.test, num_samples=2, seed=seed)
        for seed in (0, 0, 1)
    )
    for name in ("negative_elbo", "log_likelihood", "nll"):
        assert first[name] == again[name] != other[name]
    assert first["kl"] == other["kl"]  # it is analytic


def test_the_error_of_the_nll_is_that_of_its_mean(trained_vae, digits):
    found = evaluation.nll(trained_vae, digits.test, num_samples=5)
    values = evaluation.importance_sampling(trained_vae, digits.test, num_samples=5)["log_prob"]
    assert found.value == pytest.approx(-values.mean(), rel=1e-5)
    assert found.error == pytest.approx(values.std(ddof=1) / np.sqrt(180), rel=1e-4)


def test_an_evaluation_is_compiled_once(digits):
    """However many batches there are, and whatever the last one's size."""
    vae = make_vae()
    calls = []
    terms = vae.terms
    vae.terms = lambda *arguments: calls.append(1) or terms(*arguments)
    evaluation.elbo(vae, digits.test[:50], batch_size=7)
    evaluation.elbo(vae, digits.test[:20], batch_size=7, seed=3)
    assert len(calls) == 1


def test_draws_take_time_and_no_memory(digits):
    """One program of fixed sizes, made before it knows how many draws it will be asked for."""
    vae = make_vae()
    few, many = (
        evaluation.nll(vae, digits.test[:2], num_samples=number, batch_size=2)
        for number in (2, 100_000)
    )
    assert vae.compile_once(_sum_of_weights).experimental_get_tracing_count() == 1
    assert many.value < few.value


@pytest.mark.filterwarnings("error")
def test_few_effective_samples_are_warned_of():
    vae, x = make_vae((3,), 2, tfpl.IndependentNormal), 10.0 * np.eye(3, dtype="float32")
    vae.decoder.set_weights([10.0 * weight for weight in vae.decoder.get_weights()])
    words = r"Few effective samples: \d\.\d of 100 draws"
    for judge in (evaluation.nll, evaluation.evaluate):
        with pytest.warns(UserWarning, match=words):
            judge(vae, x, num_samples=100)
        judge(vae, x, num_samples=99)  # of which nobody expects many


def test_bits_are_of_values_that_are_there(digits):
    complete, with_gaps = (
        make_vae((3,), 2, tfpl.IndependentNormal, missing=missing) for missing in (False, True)
    )
    x = np.ones([8, 3], "float32")
    numbers = evaluation.evaluate(complete, x, num_samples=2)
    assert numbers["bits_per_dim"] == pytest.approx(numbers["nll"] / (3 * np.log(2.0)))
    x[:, 0] = np.nan
    assert "bits_per_dim" not in evaluation.evaluate(with_gaps, x, num_samples=2)


def test_progress_is_shown_when_wanted(trained_vae, digits, capsys):
    evaluation.nll(trained_vae, digits.test, num_samples=2, verbose=1)
    assert "180/180" in capsys.readouterr().out


@pytest.mark.parametrize("likelihood", [tfpl.IndependentNormal, tfpl.IndependentBernoulli])
def test_other_likelihoods(likelihood):
    x = np.random.RandomState(0).randint(0, 2, (30, 3)).astype("float32")
    numbers = evaluation.evaluate(make_vae((3,), 2, likelihood), x, num_samples=10)
    assert np.isfinite([numbers[name] for name in ("negative_elbo", "nll", "kl")]).all()


def test_bad_input(trained_vae, digits):
    with pytest.raises(ValueError, match="empty"):
        evaluation.evaluate(trained_vae, digits.test[:0])
    with pytest.raises(ValueError, match="NaN"):
        evaluation.evaluate(trained_vae, digits.test * np.nan)
    with pytest.raises(ValueError, match="batch_size"):
        evaluation.evaluate(trained_vae, digits.test, batch_size=0)


@pytest.mark.slow
def test_batches_draw_each_by_itself(trained_vae, digits):
    """The scatter over seeds of a mean over batches falls with their number, as it does for independent draws."""
    x = digits.test[:100]
    few, many = (
        [
            evaluation.nll(trained_vae, x, num_samples=1, batch_size=size, seed=seed).value
            for seed in range(60)
        ]
        for size in (5, 100)
    )
    assert 0.6 < np.std(few) / np.std(many) < 1.6
    terms = evaluation.elbo(trained_vae, np.repeat(x[:1], 40, 0), batch_size=2)["log_likelihood"]
    assert len(np.unique(terms)) == 40
