"""The workers that train one run together, as the commands see them; mostly there is one."""

import contextlib
import dataclasses
from contextlib import AbstractContextManager

import tensorflow as tf

from tfp_vae.cli.report import console
from tfp_vae.workers import Workers


@dataclasses.dataclass(frozen=True)
class Team:
    """All workers, of which the chief alone writes files and reports.

    Args:
        workers: None if this process trains alone.
        strategy: the strategy under which the model is made.
    """

    workers: Workers | None = None
    strategy: tf.distribute.Strategy | None = None

    @classmethod
    def of(cls, workers: Workers | None) -> "Team":
        """Join the other workers, as the first thing that TensorFlow does.

        Raises:
            TimeoutError: if a worker does not come.
        """
        if workers is None:
            return cls()
        number = len(workers.addresses)
        console.print(f"Worker {workers.index} of {number} waits for the others.")
        team = cls(workers, workers.join())
        if not team.is_chief:
            console.print(f"Training together. {workers.addresses[0]} writes the files.")
            console.quiet = True
        return team

    @property
    def size(self) -> int:
        """The number of workers."""
        return 1 if self.workers is None else len(self.workers.addresses)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes files."""
        return self.workers is None or self.workers.is_chief

    def scope(self) -> AbstractContextManager:
        """Return the context in which to make or load the model."""
        return contextlib.nullcontext() if self.strategy is None else self.strategy.scope()

    def agree(self, number: int) -> int:
        """Return the chief's number, when all workers have asked for it."""
        if self.strategy is None:
            return number
        own = tf.constant(int(number) if self.is_chief else 0)
        one_each = self.strategy.run(tf.function(lambda: tf.identity(own)))
        return int(self.strategy.reduce(tf.distribute.ReduceOp.SUM, one_each, axis=None))
