"""What `tfp-vae evaluate` adds on request: probes, disentanglement, outliers, samples, checks, and
rate and distortion.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfp_vae import datasets, evaluation
from tfp_vae.batch import by_name, cut, num_examples
from tfp_vae.cli.report import NUM_ANNEALED
from tfp_vae.evaluation.errors import Estimate, mean_of
from tfp_vae.file_sizes import load_keras
from tfp_vae.vae import VAE
from tfp_vae_console import Wishes

# Number of training examples whose codes are used, and that train a classifier, at most; and number
# of test examples whose scores are compared with those of other data, or with replications.
MOST_TRAINING = 10_000
MOST_TEST = 1_000
# Words of the table that are not written in small letters.
SPELLINGS = {
    "auroc": "AUROC",
    "elbo": "ELBO",
    "frechet": "Frechet",
    "knn": "kNN",
    "mmd": "squared MMD",
    "nll": "NLL",
    "sap": "SAP",
    "vae": "VAE",
}
# KL in nats below which a dimension counts as collapsed.
COLLAPSED = 0.01


@dataclasses.dataclass(frozen=True)
class Judge:
    """Computes the numbers that were asked for.

    Args:
        vae: the model.
        splits: its data.
        source: name or file of these data.
        batch_size: examples held in memory at once.
        num_samples: draws for each example in the importance-sampled NLL.
        seed: of all draws.
    """

    vae: VAE
    splits: datasets.Splits
    source: str
    batch_size: int
    num_samples: int
    seed: int

    def numbers(self, wishes: Wishes, other: datasets.Splits | None) -> dict[str, Any]:
        """Return all numbers that were asked for, by name.

        Args:
            wishes: what was asked for.
            other: the data of `wishes.against`, if any.
        """
        numbers: dict[str, Any] = {}
        if wishes.labels is not None:
            numbers.update(self._probes(wishes.labels))
        if wishes.factors is not None:
            numbers.update(self._disentanglement(wishes.factors, wishes.labels))
        if other is not None:
            numbers.update(self._outliers(other))
        if wishes.samples is not None:
            numbers.update(self._samples(wishes.samples, wishes.features, wishes.labels))
        if wishes.checks:
            numbers.update(self._checks())
        if wishes.betas:
            numbers.update(self._rates(wishes.betas))
        return numbers

    @property
    def _training(self):
        """Training data in their final values, at most `MOST_TRAINING`."""
        data = by_name(self.splits.train) if self.splits.conditions is not None else {}
        x = self.splits.training_values(self.seed)
        return cut({**data, "x": x} if data else x, None, MOST_TRAINING)

    def _codes(self, data) -> np.ndarray:
        return evaluation.posterior_means(self.vae, data, batch_size=self.batch_size)

    def _labels(self, *names: str) -> tuple[np.ndarray, np.ndarray]:
        """Return what is known beside the training and test data, `[num_examples, len(names)]`."""
        train, _, test = datasets.labels(self.source, *names)
        for rows, data in ((train, self.splits.train), (test, self.splits.test)):
            if len(rows) != num_examples(data):
                raise ValueError(
                    f"{self.source} has {num_examples(data)} examples and {len(rows)} rows of "
                    f"{', '.join(names)}. Expected one for each."
                )
        return train[:MOST_TRAINING], test

    def _probes(self, name: str) -> dict[str, Any]:
        train, test = (rows[:, 0] for rows in self._labels(name))
        given = self._codes(self._training), train, self._codes(self.splits.test), test
        return {
            f"linear_probe_of_{name}": evaluation.linear_probe(*given),
            f"knn_of_{name}": evaluation.knn(*given),
            f"commonest_{name}": float(np.unique(test, return_counts=True)[1].max() / len(test)),
        }

    def _disentanglement(self, factors: str, label: str | None) -> dict[str, Any]:
        names = [name.strip() for name in factors.split(",")]
        values = self._labels(*names)[0]
        codes = self._codes(self._training)
        categorical = [names.index(label)] if label in names else []
        return {
            "mutual_information_gap": evaluation.mutual_information_gap(
                codes, values, seed=self.seed
            ),
            "sap": evaluation.sap(codes, values, categorical=categorical, seed=self.seed),
            **evaluation.dci(codes, values, categorical=categorical, seed=self.seed)._asdict(),
            "factor_vae_score": evaluation.factor_vae_score(codes, values, seed=self.seed),
            "beta_vae_score": evaluation.beta_vae_score(codes, values, seed=self.seed),
        }

    def _outliers(self, other: datasets.Splits) -> dict[str, Any]:
        own, foreign = (cut(splits.test, None, MOST_TEST) for splits in (self.splits, other))
        self.vae.check_data(foreign)

        def negative_elbo(data) -> np.ndarray:
            return evaluation.negative_elbo(self.vae, data, batch_size=self.batch_size)

        def nll(data) -> np.ndarray:
            return evaluation.negative_log_prob(
                self.vae,
                data,
                num_samples=self.num_samples,
                batch_size=self.batch_size,
                seed=self.seed,
            )

        of_training = negative_elbo(self._training)
        bounds = negative_elbo(own), negative_elbo(foreign)
        atypical = [evaluation.typicality(scores, of_training) for scores in bounds]
        bound = "negative_log_likelihood" if self.vae.encodes_to_points else "negative_elbo"
        numbers = {
            f"auroc_of_{bound}": evaluation.auroc(*bounds, seed=self.seed),
            "auroc_of_typicality": evaluation.auroc(*atypical, seed=self.seed),
        }
        if not self.vae.encodes_to_points:
            numbers["auroc_of_nll"] = evaluation.auroc(nll(own), nll(foreign), seed=self.seed)
        return {"against": f"{other.name}, {num_examples(foreign)} test examples", **numbers}

    def _samples(self, number: int, classifier: Path | None, label: str | None) -> dict[str, Any]:
        if self.splits.is_table:
            raise ValueError("Samples of a table have no features: its x is not one array.")
        if classifier is not None:
            features = _features_of(classifier, datasets.x_of(self.splits.test))
        else:
            labels = self._labels(str(label))[0][:, 0]
            x = datasets.x_of(self._training)
            features = evaluation.Features.trained(x, labels, seed=self.seed)
        numbers = evaluation.sample_quality(
            self.vae,
            self.splits.test,
            features,
            held_out=self.splits.validation
            if num_examples(self.splits.validation) >= number
            else None,
            num_samples=number,
            seed=self.seed,
        )
        return {"features": features.name, **numbers}

    def _checks(self) -> dict[str, Any]:
        x = cut(self.splits.test, None, MOST_TEST)
        errors = evaluation.reconstruction_errors(self.vae, x, batch_size=self.batch_size)
        numbers: dict[str, Any] = {
            f"reconstruction_error_of_{part}": mean_of(values[~np.isnan(values)])
            for part, values in errors.items()
            if not np.isnan(values).all()  # else the test data have no value of the part
        }
        try:
            groups = evaluation.kl_by_dimension(self.vae, x, batch_size=self.batch_size)
            kl = np.concatenate([*groups.values()])
            numbers["kl_by_dimension"] = kl.tolist()
            numbers["collapsed_dimensions"] = f"{np.sum(kl < COLLAPSED)} of {len(kl)}"
            if len(kl) == 1 < self.vae.z.size:
                numbers["collapsed_dimensions"] = "not defined: all share one KL divergence"
        except ValueError as error:  # not defined for this model; the rest is
            numbers["collapsed_dimensions"] = f"not defined: {error}"
        for name in ("mutual_information", "aggregate_kl"):
            with contextlib.suppress(ValueError):  # not defined for this model
                judge = getattr(evaluation, name)
                numbers[name] = judge(self.vae, x, batch_size=self.batch_size, seed=self.seed)
        if not self.vae.missing:
            checks = evaluation.predictive_check(self.vae, x, seed=self.seed)
            numbers |= {
                f"p_value_of_{name.replace(' ', '_')}": check.p_value
                for name, check in checks.items()
            }
        return numbers

    def _rates(self, betas: Sequence[float]) -> dict[str, Any]:
        x = cut(self.splits.test, None, NUM_ANNEALED)
        given: dict[str, Any] = {"batch_size": self.batch_size, "seed": self.seed}
        best = evaluation.rate_distortion(self.vae, x, betas, **given)
        own = evaluation.elbo(self.vae, x, **given)
        numbers: dict[str, Any] = {
            "rate_of_encoder": mean_of(own["kl"]),
            "distortion_of_encoder": mean_of(-own["log_likelihood"]),
        }
        for place, beta in enumerate(betas):
            for name in ("rate", "distortion"):
                found = Estimate(best[name][place], best[f"{name}_error"][place])
                numbers[f"{name}_at_beta_{np.format_float_positional(beta, trim='-')}"] = found
        numbers["rate_distortion_examples"] = num_examples(x)
        numbers["rate_distortion_acceptance"] = float(best["acceptance"].min())
        return numbers


def _features_of(path: Path, x: np.ndarray) -> evaluation.Features:
    """Return the features of a classifier in a file.

    Raises:
        ValueError: if it is no classifier of such examples.
    """
    if not path.is_file() or path.suffix != ".keras":
        raise ValueError(f"--features must be a .keras file of a classifier, received {path}.")
    classifier = load_keras(path)
    shape = getattr(classifier, "input_shape", None)
    if not isinstance(shape, tuple) or shape[1:] != x.shape[1:]:
        raise ValueError(
            f"The classifier {path} takes inputs of shape {shape}, but examples are of shape "
            f"{x.shape[1:]}."
        )
    return evaluation.Features.of(classifier, f"those of {path}")


def rows(numbers: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the rows of numbers in a table; lists are for files only.

    >>> from tfp_vae.evaluation import Estimate
    >>> [*rows({"knn_of_label": Estimate(0.5, 0.1), "sap": 0.25, "features": "mine", "kl": [1.0]})]
    [('kNN of label', '0.500 ± 0.100'), ('SAP', '0.250'), ('features', 'mine')]
    """
    for name, value in numbers.items():
        if not isinstance(value, list):
            words = " ".join(SPELLINGS.get(word, word) for word in name.split("_"))
            yield words, f"{value:.3f}" if type(value) is float else str(value)
