"""Priors: a row for each member."""

import keras
import numpy as np
import pytest
import tensorflow_probability as tfp

from tests.conftest import make_vae
from tfp_vae import priors

tfd = tfp.distributions

CASES = {"StandardNormal": lambda: priors.StandardNormal(4)}


def test_every_member_has_a_row():
    assert set(priors.__all__) - {"Prior"} == CASES.keys()


@pytest.fixture(params=CASES.values(), ids=CASES)
def prior(request):
    return request.param()


def test_contract(prior, digits, tmp_path):
    p = prior(None)
    assert isinstance(p, tfd.Distribution)
    assert (p.batch_shape, p.event_shape) == ([], [4])
    z = p.sample(100_000, seed=[1, 2])
    np.testing.assert_allclose(np.mean(z, 0), p.mean(), atol=0.02)
    np.testing.assert_allclose(np.std(z, 0), p.stddev(), atol=0.02)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(prior))
    np.testing.assert_array_equal(again(None).log_prob(z), p.log_prob(z))
    vae = make_vae(prior=prior)
    vae.save(tmp_path / "vae.keras")
    reloaded = keras.models.load_model(tmp_path / "vae.keras")
    assert type(reloaded.prior) is type(prior)
    np.testing.assert_array_equal(reloaded(digits.test[:3])["elbo"], vae(digits.test[:3])["elbo"])


def test_standard_normal_density():
    z = np.array([[0.5, -1.0, 2.0, 0.0]], "float32")
    expected = -0.5 * (z**2).sum() - 2 * np.log(2 * np.pi)
    np.testing.assert_allclose(priors.StandardNormal(4)(None).log_prob(z), [expected], rtol=1e-6)


@pytest.mark.parametrize("size", [0, -2, 1.5])
def test_bad_size(size):
    with pytest.raises(ValueError, match="at least 1"):
        priors.StandardNormal(size)
