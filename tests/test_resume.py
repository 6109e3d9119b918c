"""Training that was interrupted, saved and reloaded ends in the same bits as training that was not."""

import keras
import numpy as np
import pytest

from tests import test_codes, test_conditional, test_mixed, test_normal_scale, test_schedules
from tests.conftest import make_vae, mostly_slow
from tfp_vae import objectives


def first_digits(digits):
    return digits.train[:200]


# Of each kind of model that keeps something beside its weights: how to make it, its data, and how to compile it.
CASES = {
    "plain": (make_vae, first_digits, {}),
    "by XLA": (make_vae, first_digits, {"jit_compile": True}),
    "several steps at once": (make_vae, first_digits, {"steps_per_execution": 3}),
    "a schedule": (
        lambda: make_vae(objective=objectives.ELBO(test_schedules.CYCLICAL)),
        first_digits,
        {},
    ),
    "an importance-weighted bound": (
        lambda: make_vae(objective=objectives.IWAE(3, "dreg")),
        first_digits,
        {},
    ),
    "a discriminator": (
        lambda: make_vae(objective=objectives.FactorVAE(hidden_sizes=(8,))),
        first_digits,
        {},
    ),
    "running means of codes": (
        lambda: test_codes.vq_vae(num_codes=32, momentum=0.5),
        first_digits,
        {},
    ),
    "a running mean of errors": (
        test_normal_scale.sigma_vae,
        lambda digits: first_digits(digits) / 16,
        {},
    ),
    "a condition": (test_conditional.of_labels, lambda digits: test_conditional.named(), {}),
    "a table": (test_mixed.make_vae, lambda digits: test_mixed.rows(test_mixed.TRAIN, 60), {}),
}


@pytest.mark.parametrize(
    "name", mostly_slow(CASES, "plain", "a condition", "running means of codes")
)
@pytest.mark.rows(2, 4)
def test_interrupted_equals_uninterrupted_bit_for_bit(name, digits, tmp_path):
    def fit(vae, first, last):
        vae.fit(data, batch_size=20, shuffle=False, initial_epoch=first, epochs=last, verbose=0)

    make, choose, options = CASES[name]
    data = choose(digits)
    whole = make()
    whole.compile(keras.optimizers.Adam(1e-3), **{"jit_compile": False, **options})
    fit(whole, 0, 1)
    whole.save(tmp_path / "vae.keras")
    fit(whole, 1, 3)
    again = keras.models.load_model(tmp_path / "vae.keras")
    fit(again, 1, 3)
    assert again.optimizer.iterations.numpy() == whole.optimizer.iterations.numpy()
    for one, other in zip(whole.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
