"""Evaluation of a SavedModel by itself, without the model that it was made from."""

from pathlib import Path
from typing import Any

import rich.table

from tfp_vae import datasets, sampling, serving
from tfp_vae.batch import num_examples
from tfp_vae.cli.report import expect_kind, read_data
from tfp_vae.evaluation.batches import moments_over
from tfp_vae.evaluation.latents import ACTIVE_VARIANCE, count_active
from tfp_vae.objectives import as_vectors


def evaluate(
    model: Path, dataset: str | None, condition: str | None, batch_size: int
) -> rich.table.Table:
    """Evaluate a SavedModel with its signatures encode, score and log_prob; the export has fixed
    their draws.

    Raises:
        ValueError: if the data or their condition are not named, or do not suit the model.
    """
    served = serving.load(model)
    splits = load_data(served, str(model), dataset, condition)
    number = num_examples(splits.test)
    table = rich.table.Table(title=f"{splits.name}: {number} test examples, answers of {model}")
    table.add_column("quantity")
    table.add_column("value", justify="right")
    for quantity, value in _quantities(served, splits.test, batch_size).items():
        table.add_row(quantity, value)
    return table


def load_data(
    served: serving.ServedVAE, source: str, dataset: str | None, condition: str | None
) -> datasets.Splits:
    """Load data that a served model takes.

    Raises:
        ValueError: if the data or their condition are not named, or do not suit the model.
    """
    if dataset is None:
        raise ValueError(
            f"{source} is a SavedModel, which does not know its data. Name them with --dataset."
        )
    if served.condition is not None and condition is None:
        raise ValueError(
            f"{source} is conditional. Name what it is conditional on with --condition, as in "
            "training."
        )
    if served.condition is None and condition is not None:
        raise ValueError(f"{source} is not conditional. Leave out --condition.")
    expect_kind(served, source, dataset)
    told = served.description
    # It is None in older versions; then the likelihood is the one that suits the data.
    likelihood = told.get("likelihood_layer")
    return read_data(
        dataset,
        condition=condition,
        likelihood=likelihood,
        missing=told.get("missing", False),
        **served.of_data,
    )


def _quantities(served: serving.ServedVAE, x: Any, batch_size: int) -> dict[str, str]:
    has_density = "log_prob" in served.description["signatures"]
    # Tensors do not determine every posterior.
    has_posterior = served.description["posterior"] is not None

    def answers(rows, start) -> dict:
        log_prob = {"log_prob": served.log_prob(rows)} if has_density else {}
        code = {"code": as_vectors(sampling.point(served.encode(rows)))} if has_posterior else {}
        return {**served.score(rows), **log_prob, **code}

    values = moments_over(answers, x, batch_size)
    mean = {name: value.mean for name, value in values.items() if name != "code"}
    if has_density:
        shown = {
            f"-ELBO, {served.description['score_samples']} draws (nats)": f"{-mean['elbo']:.3f}",
            "log-likelihood (nats)": f"{mean['log_likelihood']:.3f}",
            "KL (nats)": f"{mean['kl']:.3f}",
            f"NLL, {served.description['log_prob_samples']} samples (nats)": f"{-mean['log_prob']:.3f}",
        }
    else:
        shown = {
            "log-likelihood at the code (nats)": f"{mean['log_likelihood']:.3f}",
            "ELBO, KL, NLL": "not defined: codes are points",
        }
    if has_posterior:
        active = count_active(values["code"].variance, ACTIVE_VARIANCE)
        shown["active units"] = f"{active} of {served.z.size}"
    return shown
