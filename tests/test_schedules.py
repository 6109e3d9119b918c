"""Weights by schedule: read at the optimizer's step in training, at their end in evaluation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_vae
from tfp_vae import objectives

CYCLICAL = objectives.CyclicalSchedule(2.0, steps_per_cycle=8, num_cycles=3, ramp=0.25)
RESTARTS = keras.optimizers.schedules.CosineDecayRestarts(1.5, first_decay_steps=5, t_mul=1.0)


@keras.saving.register_keras_serializable(package="test_schedules")
class Sawtooth(keras.optimizers.schedules.LearningRateSchedule):
    """What a user may write."""

    def __init__(self, period: int):
        self.period = period

    def __call__(self, step):
        return tf.cast(step % self.period, tf.float32) / self.period

    def get_config(self):
        return {"period": self.period}


SCHEDULES = pytest.mark.parametrize(
    "schedule", [CYCLICAL, RESTARTS, Sawtooth(7)], ids=lambda s: type(s).__name__
)


def pass_at(vae, x, step):
    return vae.one_pass(x, tf.constant([0, 1]), tf.convert_to_tensor(step))


@SCHEDULES
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.rows(2)
def test_beta_follows_the_schedule_in_training_alone(schedule, jit_compile, digits):
    vae, x = make_vae(objective=objectives.ELBO(schedule)), digits.train[:10]

    @tf.function(jit_compile=jit_compile)
    def terms(step):
        return vae.objective.terms(pass_at(vae, x, step))

    for step in (0, 1, 3, 7, 8, 11, 23, 24, 1000):
        answer, beta = terms(tf.constant(step)), float(schedule(step))
        np.testing.assert_allclose(
            answer["loss"], beta * answer["kl"] - answer["log_likelihood"], rtol=1e-4
        )
        np.testing.assert_allclose(
            answer["elbo"], answer["log_likelihood"] - answer["kl"], rtol=1e-5
        )
    answer, last = vae(x), float(schedule(2**31 - 1))
    np.testing.assert_allclose(
        answer["loss"], last * answer["kl"] - answer["log_likelihood"], rtol=1e-5
    )
    np.testing.assert_allclose(answer["elbo"], answer["log_likelihood"] - answer["kl"], rtol=1e-5)


@SCHEDULES
def test_free_bits_follow_the_schedule(schedule, digits):
    vae, x = make_vae(objective=objectives.ELBO(free_bits=schedule)), digits.train[:10]
    for step in (1, 3, 11, 23):
        fixed = objectives.ELBO(free_bits=max(float(schedule(step)), 1e-9)).terms(
            pass_at(vae, x, step)
        )
        np.testing.assert_allclose(
            vae.objective.terms(pass_at(vae, x, step))["loss"], fixed["loss"], rtol=1e-5
        )


@SCHEDULES
@pytest.mark.rows(1)
def test_training_reads_the_step_and_the_schedule_is_saved(schedule, digits, tmp_path):
    x = digits.train[:60]
    vae = make_vae(objective=objectives.ELBO(schedule))
    vae.compile(keras.optimizers.Adam(1e-3), jit_compile=False)
    vae.fit(x, batch_size=10, epochs=2, shuffle=False, verbose=0)
    assert int(vae.optimizer.iterations) == 12
    terms, step = vae(x, training=True), int(vae.optimizer.iterations)
    expected = float(schedule(step)) * terms["kl"] - terms["log_likelihood"]
    np.testing.assert_allclose(terms["loss"], expected, rtol=1e-5)
    vae.save(tmp_path / "vae.keras")
    again = keras.models.load_model(tmp_path / "vae.keras")
    assert again.objective.beta.get_config() == schedule.get_config()
    assert int(again.optimizer.iterations) == 12


def test_cycles_in_closed_form():
    """Fu et al., 2019, equation (4): linear up to the share `ramp` of each cycle, then the final value."""
    steps = np.arange(40)
    expected = np.where(steps < 24, 2.0 * np.minimum((steps % 8) / 8 / 0.25, 1.0), 2.0)
    np.testing.assert_allclose([CYCLICAL(int(step)) for step in steps], expected, rtol=1e-6)
    assert float(CYCLICAL(2**31 - 1)) == 2.0
    endless = objectives.CyclicalSchedule(0.5, steps_per_cycle=2**30, num_cycles=100)
    assert float(endless(2**31 - 1)) == 0.5


BAD = {
    "final": (
        {"final": -1.0, "steps_per_cycle": 5},
        r"final must be a finite number of at least 0, received -1\.0",
    ),
    "steps": (
        {"steps_per_cycle": 0},
        "steps_per_cycle must be a whole number of at least 1, received 0",
    ),
    "cycles": (
        {"steps_per_cycle": 5, "num_cycles": 1.5},
        r"num_cycles must be a whole number .* received 1\.5",
    ),
    "ramp": (
        {"steps_per_cycle": 5, "ramp": 0.0},
        r"ramp must be above 0 and at most 1, received 0\.0",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_numbers(arguments, message):
    with pytest.raises(ValueError, match=message):
        objectives.CyclicalSchedule(**arguments)
