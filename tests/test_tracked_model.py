"""The digits model that comes with the repository loads, and gives the outputs recorded when it was made."""

from pathlib import Path

import numpy as np
import pytest

import tfp_vae

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "saved_models" / "digits" / "1"
RECORDED = np.load(ROOT / "tests" / "data" / "digits_model.npz")


@pytest.fixture(scope="module")
def served():
    return tfp_vae.load(MODEL)


def outputs(served):
    x = RECORDED["x"]
    posterior, score = served.encode(x), served.score(x)
    return {
        "loc": posterior.loc,
        "scale_diag": posterior.stddev(),
        "reconstruction": served.reconstruct(x),
        "generated": served.generate(2, seed=0),
        "log_prob": served.log_prob(x),
        **{f"score_{name}": value for name, value in score.items()},
    }


def test_it_gives_its_recorded_outputs(served):
    for name, value in outputs(served).items():
        np.testing.assert_allclose(value, RECORDED[name], rtol=1e-4, atol=1e-4, err_msg=name)


def test_it_is_a_good_model(served, digits):
    """Better than any model whose pixels are independent: it must know what digits look like."""
    rate = np.clip(digits.train.mean(0) / 16, 1e-3, 1 - 1e-3)
    independent = tfp_vae.layers.IndependentBinomial.new(
        np.log(rate / (1 - rate)).reshape(1, 64).astype("float32"), digits.event_shape, 16
    )
    assert (
        served.score(digits.test)["elbo"].mean() > np.mean(independent.log_prob(digits.test)) + 100
    )


def test_it_is_small():
    assert sum(path.stat().st_size for path in MODEL.rglob("*")) < 1_000_000
