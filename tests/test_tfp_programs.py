"""TFP's public programs in examples/tfp: in short, against what is known without them.

docs/migration.md has the numbers of their full length.
"""

import numpy as np
import pytest

from tests.test_evaluation import load_example


def run(name, picture, **short):
    """Run an example, and return its numbers; its picture must not be empty."""
    results = load_example(f"tfp/{name}").main(picture, **short)
    assert picture.stat().st_size > 10_000
    return results


def split(rows):
    """Return the first and the second numbers of pairs."""
    return ({name: pair[column] for name, pair in rows.items()} for column in (0, 1))


@pytest.fixture
def picture(tmp_path):
    return tmp_path / "picture.png"


def test_logistic_regression(picture):
    """The ELBO comes near the exact evidence, and the means of q(w) near the true posterior's."""
    rows = run("logistic_regression", picture, steps=300)
    found, expected = split(rows)
    bound, evidence = rows.pop("-log p(y|x), -ELBO")
    assert evidence - 1e-4 < bound < evidence + 0.01
    for name in rows:
        assert found[name] == pytest.approx(expected[name], abs=0.1), name


@pytest.mark.slow
def test_keras_bayesian_network(picture):
    """Only with noise do intervals hold what they promise; the error is near that of a linear model."""
    results = run("keras_bayesian_network", picture, steps=1000, num_draws=20)
    both, ridge = results["random weights and noise"], results["Bayesian ridge"]
    assert both["RMSE"] < ridge["RMSE"] + 0.1
    assert both["log-likelihood"] > ridge["log-likelihood"] - 0.1
    assert both["in the interval"] > 0.88
    assert results["random weights"]["in the interval"] < 0.7


@pytest.mark.slow
def test_masked_autoregressive_flow(picture):
    results = run(
        "masked_autoregressive_flow", picture, epochs=15, num_examples=5_000, num_transforms=4
    )
    flow, normal = results["-log p(x), flow"], results["-log p(x), one normal"]
    assert results["entropy"] < flow < normal - 0.2


@pytest.mark.full
def test_regression(picture):
    found, expected = split(run("regression", picture))
    for name in ("1 slope", "1 intercept", "3 mean of the slope", "3 mean of the intercept"):
        assert found[name] == pytest.approx(expected[name], rel=0.01), name
    for name in ("3 scale of the slope", "3 scale of the intercept", "5 scale of the noise"):
        assert found[name] == pytest.approx(expected[name], rel=0.15), name
    for name in ("2 scale, left half", "2 scale, right half"):
        assert found[name] == pytest.approx(expected[name], rel=0.35), name
    best = expected["2 -log p(y|x)"]
    assert best - 1e-3 < found["2 -log p(y|x)"] < best + 0.02
    assert best < found["4 -ELBO, above 2"] < best + 0.15
    exact = expected["5 -ELBO, -log p(y|x)"]
    assert exact < found["5 -ELBO, -log p(y|x)"] < exact + 0.05


@pytest.mark.slow
@pytest.mark.full
def test_disentangled_sequential_vae(picture):
    """The shape is in f; the direction is in z more than in f; no bound is below the entropy."""
    results = run("disentangled_sequential_vae", picture, steps=300)
    assert results["-ELBO, training"] > results["entropy, training"]
    assert results["shape from f"] > 0.6
    assert results["direction from z"] > results["direction from f"] + 0.1


def check_classifier(results, least_accuracy):
    assert results["accuracy"] > least_accuracy
    assert results["log-likelihood"] > np.log(0.1) + 0.5


@pytest.mark.slow
@pytest.mark.mnist
@pytest.mark.fashion_mnist
def test_bayesian_neural_network(picture):
    """An average of draws is better than one, and less sure of clothes than of digits."""
    results = run(
        "bayesian_neural_network",
        picture,
        epochs=3,
        num_examples=3_000,
        num_test=200,
        num_draws=5,
        batch_size=50,
    )
    check_classifier(results, least_accuracy=0.6)
    assert results["log-likelihood"] > results["log-likelihood, one draw"]
    assert results["entropy of clothes"] > results["entropy"] + 0.2


@pytest.mark.slow
@pytest.mark.fashion_mnist
@pytest.mark.full
def test_convolutional_bayesian_network(picture):
    """Where draws of the weights disagree, the network is wrong more often."""
    results = run(
        "convolutional_bayesian_network",
        picture,
        epochs=3,
        num_examples=2_000,
        num_test=400,
        num_draws=5,
        batch_size=50,
    )
    check_classifier(results, least_accuracy=0.6)
    assert results["accuracy, surest half"] > results["accuracy, other half"] + 0.1


@pytest.mark.slow
@pytest.mark.mnist
def test_vae(picture):
    """The layers reach the bound that `VAE` reaches, and importance sampling tightens it."""
    results = run("vae", picture, epochs=4, num_examples=1_000, num_test=500, batch_size=50)
    assert results["-ELBO"] == pytest.approx(results["-ELBO of tfp_vae.VAE"], abs=10.0)
    assert results["-log p(x), 100 samples, 500 images"] < results["-ELBO, 500 images"] < 260.0


@pytest.mark.slow
@pytest.mark.mnist
def test_vq_vae(picture):
    """The bound is above the sum over all pairs of codes, and a prior that knows the pairs helps."""
    results = run("vq_vae", picture, epochs=5, num_examples=1_000, num_test=100, batch_size=50)
    assert results["-log p(x), uniform codes"] < results["-ELBO, uniform codes"] < 260.0
    assert results["-log p(x), fitted codes"] < results["-log p(x), uniform codes"]
    assert results["lost by the choice of codes"] >= 0.0
