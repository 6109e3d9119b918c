"""A run as a report sees it: model, data and numbers, each computed once, when a part asks for it."""

import functools
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_vae import evaluation
from tfp_vae.batch import cut, num_examples
from tfp_vae.cli.html.media import Medium, medium_of
from tfp_vae.cli.report import conditions_to_draw, judge, labels_of, load_data
from tfp_vae.cli.runs import Run, open_vae

# Draws for each example in the errors of differences of NLLs: an error varies little with them.
DRAWS_FOR_ERRORS = 50
# Examples held in memory at once.
BATCH_SIZE = 500


class Subject:
    """A run, its model, its data, and what is computed from them.

    Args:
        run: a run with a model.
        seed: of all draws.
    """

    def __init__(self, run: Run, seed: int):
        self.run = run
        self.seed = seed
        self.name = str(run.folder)
        self.options = run.options
        self.vae = open_vae(run.model)
        self.splits = load_data(self.vae, run, run.folder, None)
        self.medium: Medium = medium_of(self.vae, self.splits)

    @property
    def test(self) -> Any:
        """The test data, as a VAE takes them."""
        return self.splits.test

    @property
    def num_test(self) -> int:
        """The number of test examples."""
        return num_examples(self.test)

    @functools.cached_property
    def history(self) -> dict[str, list[float]]:
        """The metrics of each epoch."""
        return self.run.history()

    @property
    def num_epochs(self) -> int:
        """The number of epochs that the run has finished."""
        return len(self.history.get("elbo", []))

    @property
    def is_finished(self) -> bool:
        """Whether the training has come to its end."""
        return bool(self.run.metrics())

    @property
    def description(self) -> str:
        """A sentence on data and training."""
        return (
            f"{self.splits.name}: {num_examples(self.splits.train):,} training and "
            f"{self.num_test:,} test {self.medium.noun}, {self.num_epochs} epoch{'s' * (self.num_epochs != 1)}."
        )

    @functools.cached_property
    def numbers(self) -> dict[str, Any]:
        """The numbers of `metrics.json`, and of `evaluation.json` if it is newer; of a run that has
        neither, computed here.
        """
        return self.run.numbers() or judge(
            self.vae, self.splits, self.options.num_samples, BATCH_SIZE, self.seed
        )

    @functools.cached_property
    def values(self) -> dict[str, np.ndarray]:
        """The terms of the ELBO for each test example, and, if it is defined, an estimate of
        log p(x).
        """
        terms = evaluation.elbo(self.vae, self.test, batch_size=BATCH_SIZE)
        if self.vae.encodes_to_points:
            return terms
        weighed = evaluation.importance_sampling(
            self.vae,
            self.test,
            num_samples=DRAWS_FOR_ERRORS,
            batch_size=BATCH_SIZE,
            seed=self.seed,
        )
        return {**terms, "log_prob": weighed["log_prob"]}

    @functools.cached_property
    def codes(self) -> np.ndarray:
        """The mean of q(z|x) of each test example, `[num_examples, latent]`."""
        return evaluation.posterior_means(self.vae, self.test, batch_size=BATCH_SIZE)

    @functools.cached_property
    def conditions(self) -> np.ndarray | None:
        """Some conditions, a row of samples each, or None."""
        return conditions_to_draw(self.splits)[0]

    @functools.cached_property
    def samples(self) -> list[tuple[str, Any]]:
        """Rows of new examples with their labels: one row for each condition, if there are any."""
        return self._samples(draws=self.medium.shows_draws)

    @functools.cached_property
    def draws(self) -> list[tuple[str, Any]]:
        """The same as draws from p(x|z), where the samples are its means."""
        return self.samples if self.medium.shows_draws else self._samples(draws=True)

    def _samples(self, *, draws: bool) -> list[tuple[str, Any]]:
        rows, columns = self.medium.rows_and_columns
        draw = functools.partial(self.vae.generate_arrays, seed=self.seed, draws=draws)
        if self.conditions is None:
            x = draw(rows * columns)
            return [("", cut(x, row * columns, (row + 1) * columns)) for row in range(rows)]
        columns = min(columns, 10)
        return [(as_text(one), draw(columns, condition=one)) for one in self.conditions]

    @functools.cached_property
    def labels(self) -> tuple[str, np.ndarray] | None:
        """The name and the values of the label of each test example: the condition, or else what
        the data call their label.
        """
        return labels_of(self.splits, self.options.dataset, self.options.condition)


def at(data, rows: np.ndarray):
    """Return the examples at some places of data in any form."""
    return tf.nest.map_structure(lambda values: np.asarray(values[rows]), data)


def as_text(condition) -> str:
    """Return a condition in a few characters."""
    return np.array2string(np.asarray(condition), precision=2, threshold=3, edgeitems=1)
