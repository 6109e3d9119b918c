"""Schedules of weights that Keras does not have."""

import keras
import numpy as np
import tensorflow as tf

from tfp_vae.checks import as_count
from tfp_vae.objectives.one_pass import LAST_STEP, Schedule

__all__ = ["CyclicalSchedule"]


@keras.saving.register_keras_serializable(package="tfp_vae")
class CyclicalSchedule(Schedule):
    """A weight that rises from 0 again and again: the beta of an ELBO whose posterior would
    collapse with a single warm-up.

    In each cycle it rises linearly and then keeps its final value; after the last cycle it keeps
    this value forever. So, unlike schedules with restarts, it has a final value for evaluation.

    Reference: Fu et al., 2019, Cyclical annealing schedule: a simple approach to mitigating KL
    vanishing, arXiv:1903.10145.

    Args:
        final: the largest and last value, a finite number of at least 0.
        steps_per_cycle: training steps of one cycle.
        num_cycles: number of cycles.
        ramp: share of a cycle in which the value rises, above 0 and at most 1.

    Call arguments:
        step: int, the optimizer's step.

    Raises:
        ValueError: if a number is out of range.

    Example:
    >>> beta = CyclicalSchedule(1.0, steps_per_cycle=100, num_cycles=2)
    >>> [float(beta(step)) for step in (0, 25, 50, 99, 100, 125, 200)]
    [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0]
    """

    def __init__(
        self, final: float = 1.0, *, steps_per_cycle: int, num_cycles: int = 4, ramp: float = 0.5
    ):
        if not 0.0 <= final < np.inf:
            raise ValueError(f"final must be a finite number of at least 0, received {final!r}.")
        if not 0.0 < ramp <= 1.0:
            raise ValueError(f"ramp must be above 0 and at most 1, received {ramp!r}.")
        self.final = float(final)
        self.ramp = float(ramp)
        self.steps_per_cycle = as_count(steps_per_cycle, "steps_per_cycle")
        self.num_cycles = as_count(num_cycles, "num_cycles")

    def __call__(self, step):
        step = tf.cast(step, tf.int32)
        rise = tf.cast(step % self.steps_per_cycle, tf.float32) / (self.ramp * self.steps_per_cycle)
        is_cycling = step < min(self.steps_per_cycle * self.num_cycles, LAST_STEP)
        return self.final * tf.where(is_cycling, tf.minimum(rise, 1.0), 1.0)

    def get_config(self) -> dict:
        names = "final", "steps_per_cycle", "num_cycles", "ramp"
        return {name: getattr(self, name) for name in names}
