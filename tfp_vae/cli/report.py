"""Functions that the commands share: they find models and data, and show and write results."""

import contextlib
import dataclasses
import math
import os
import shlex
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import rich.console
import rich.progress
import rich.table
import tensorflow as tf
from matplotlib.figure import Figure

from tfp_vae import datasets, evaluation, plots, rows, serving, tables
from tfp_vae.batch import num_examples
from tfp_vae.cli.failures import in_words
from tfp_vae.cli.runs import Run, written_whole
from tfp_vae.cli.texts import texts
from tfp_vae.evaluation.bounds import FEW_SAMPLES
from tfp_vae.evaluation.errors import Estimate, flat, mean_of
from tfp_vae.layers.joint import names_of
from tfp_vae.surface import Surface
from tfp_vae.text import SPLITS, is_text
from tfp_vae.vae import VAE

# Largest number of rows in a picture of samples, one condition for each row.
MAX_CONDITIONS = 10
# Number of test examples of annealed importance sampling, which takes a tenth of a second each.
NUM_ANNEALED = 100
# Nats between the bounds of annealing above which it should take more steps.
LARGE_GAP = 1.0

console = rich.console.Console(highlight=False, soft_wrap=True, markup=False)
errors = rich.console.Console(stderr=True, highlight=False, soft_wrap=True)


def tracked(steps: Sequence, title: str) -> Iterable:
    """Return steps with a bar of progress, if they are shown in a terminal."""
    return rich.progress.track(steps, title, console=console, disable=not console.is_terminal)


def busy(title: str) -> contextlib.AbstractContextManager:
    """Say what takes long, in a terminal, as long as it takes."""
    return console.status(title) if console.is_terminal else contextlib.nullcontext()


def read_data(dataset: str, **kwargs) -> datasets.Splits:
    """Return `datasets.load(dataset, **kwargs)`, after saying that it may take long."""
    with busy(f"Reading {dataset}"):
        return datasets.load(dataset, **kwargs)


def card(run: Run, metrics: dict) -> serving.ModelCard:
    """Describe a run for the model card."""
    options = run.options
    epochs = metrics.get("epochs", options.epochs)
    data = f"{options.dataset}, {epochs} epochs of training in batches of {options.batch_size}. {options.data}"
    pictures = [
        run.folder / "pictures" / f"{name}.png"
        for name in ("reconstructions", "samples", "marginals")
    ]
    return serving.ModelCard(
        data=data, metrics=metrics, pictures=[path for path in pictures if path.is_file()]
    )


def load_data(
    vae: VAE, run: Run | None, path: Path, dataset: str | None, condition: str | None = None
) -> datasets.Splits:
    """Load the data of a run, or other data of the same kind."""
    if condition is not None and not vae.is_conditional:
        raise ValueError(f"{path} is not conditional. Leave out --condition.")
    condition = condition or (run.options.condition if run else None)
    if vae.is_conditional and condition is None:
        raise ValueError(
            f"{path} holds a conditional VAE outside a run folder, so what its condition is is "
            "unknown. Name it with --condition, as in training."
        )
    source = dataset or dataset_of(run, path)
    expect_kind(vae, str(path), source)
    likelihood = names_of(vae.decoder.layers[-1])
    splits = read_data(
        source,
        condition=condition,
        likelihood=likelihood,
        missing=vae.missing,
        **vae.of_data,
    )
    # The likelihood comes from the model; the note in the run says why it was chosen.
    return (
        dataclasses.replace(splits, note=run.options.data or splits.note)
        if run and dataset is None
        else splits
    )


def expect_kind(model: Surface, name: str, source: str) -> None:
    """Raise a ValueError if data are a table with named columns or texts and the model takes none,
    or if they are no table and it takes one.
    """
    suffixes = ", ".join(tables.files.SUFFIXES)
    if model.table is not None and not tables.is_table_file(source):
        columns = ", ".join(map(str, model.table.names))
        raise ValueError(
            f"{name} takes a table ({suffixes}) with the columns {columns}, which {source} is not."
        )
    if model.table is None and tables.is_table_file(source):
        raise ValueError(f"{source} is a table ({suffixes}), which {name} was not trained on.")
    if model.vocabulary is None and is_text(source):
        raise ValueError(
            f"{source} holds texts ({', '.join(SPLITS)}), which {name} was not trained on."
        )


def dataset_of(run: Run | None, path: Path) -> str:
    """Return the name or file of a run's data."""
    if run is None:
        raise ValueError(
            f"{path} lies outside a run folder, so its data are unknown. Name them with --dataset."
        )
    return run.options.dataset


def judge(vae: VAE, splits: datasets.Splits, num_samples: int, batch_size: int, seed: int) -> dict:
    """Return the numbers of a model on its test data."""
    verbose = 1 if console.is_terminal else 0
    given = {"num_samples": num_samples, "batch_size": batch_size, "seed": seed}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Few effective samples")  # `caution` says so
        numbers = evaluation.evaluate(vae, splits.test, **given, verbose=verbose)
    return {"dataset": splits.name, **numbers, "seed": seed}


def judge_annealed(
    vae: VAE, splits: datasets.Splits, num_steps: int, num_samples: int, seed: int
) -> dict:
    """Return the numbers of annealed importance sampling of the first test examples, how much lower
    it is than importance sampling of the same, and, if the model can simulate data, how far its two
    bounds are from each other.
    """
    x = tf.nest.map_structure(lambda values: values[:NUM_ANNEALED], splits.test)
    verbose = 1 if console.is_terminal else 0
    found = evaluation.annealed_log_prob(vae, x, num_steps=num_steps, seed=seed, verbose=verbose)
    plain = evaluation.importance_sampling(
        vae, x, num_samples=num_samples, seed=seed, verbose=verbose
    )
    numbers = {
        "annealed_nll": mean_of(-found["log_prob"]),
        "annealed_gain": mean_of(found["log_prob"] - plain["log_prob"]),
        "annealed_steps": num_steps,
        "annealed_examples": len(found["log_prob"]),
        "annealed_acceptance": float(found["acceptance"].mean()),
    }
    if not vae.is_conditional:
        bounds = evaluation.bounds_on_simulated_data(
            vae, num_steps=num_steps, seed=seed, verbose=verbose
        )
        numbers["annealed_gap"] = bounds["gap"]
    return flat(numbers)


def pictures_of(
    vae: VAE, splits: datasets.Splits, history: dict, seed: int
) -> dict[str, Callable[[], Figure | str]]:
    """Return functions that draw the pictures of a model, or write the texts in their place, by
    name.
    """
    conditions, first = conditions_to_draw(splits)
    pictures: dict[str, Callable[[], Figure | str]]
    if splits.num_tokens:
        pictures = {**texts(vae, splits, seed)}
    elif splits.is_table:
        pictures = {"marginals": lambda: plots.marginals(vae, splits.test, seed=seed)}
    else:
        limits = rows.limits(datasets.x_of(splits.test))  # one scale for all pictures of a run
        pictures = {
            "reconstructions": lambda: _noted(
                plots.reconstructions(vae, splits.test, limits=limits), splits.note
            ),
            "samples": lambda: plots.samples(vae, seed=seed, condition=conditions, limits=limits),
            "latent_traversal": lambda: plots.latent_traversal(
                vae, splits.test, condition=first, limits=limits
            ),
        }
    if history:
        pictures["learning_curves"] = lambda: plots.learning_curves(history)
    return pictures


def draw(folder: Path, vae: VAE, splits: datasets.Splits, history: dict, seed: int) -> list[Path]:
    """Draw all pictures of a model; if one fails, the others are still written."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    failures = []
    for name, make in pictures_of(vae, splits, history, seed).items():
        try:
            drawn.append(_write(make(), folder / name))
        except Exception as error:  # the other pictures are still drawn
            failures.append((name, error))
    if failures:
        raise ValueError(
            "; ".join(f"{name}: {in_words(error)}" for name, error in failures)
        ) from failures[0][1]
    return drawn


def _write(picture: Figure | str, path: Path) -> Path:
    """Write a picture, or a text that takes its place, and return its path with its suffix."""
    path = path.with_suffix(".txt" if isinstance(picture, str) else ".png")
    with written_whole(path) as aside:
        if isinstance(picture, str):
            aside.write_text(picture)
        else:
            picture.savefig(aside, dpi=150)
    return path


def _noted(figure: Figure, note: str) -> Figure:
    """Write a sentence under a picture of ten columns."""
    figure.supxlabel(textwrap.fill(note, 90), fontsize="small")
    return figure


def conditions_to_draw(splits: datasets.Splits) -> tuple:
    """Return some conditions (all labels if there are few), and the first of them."""
    if splits.conditions is None:
        return None, None
    rows = (
        np.unique(splits.conditions, axis=0)[:MAX_CONDITIONS]
        if splits.has_labels
        else splits.conditions[:6]
    )
    return rows, rows[0]


def labels_of(
    splits: datasets.Splits, source: str, condition: str | None
) -> tuple[str, np.ndarray] | None:
    """Return the name and the values of the label of each test example, if there is one: the
    condition, or else what the data call their label.
    """
    name = condition or "label"
    if splits.conditions is not None:
        values = splits.test["condition"]
    else:
        try:
            values = datasets.labels(source, name)[2][:, 0]
        except ValueError:  # the data have none
            return None
    return (name, values) if values.ndim == 1 and len(values) == num_examples(splits.test) else None


def show(metrics: dict, splits: datasets.Splits, more: Iterable[tuple[str, str]] = ()) -> None:
    """Show numbers in the terminal, with more rows below them, and whether to trust the NLL."""
    shown = _table(metrics, f"{splits.name}: {metrics['num_examples']} test examples")
    for row in more:
        shown.add_row(*row)
    console.print(shown)
    if sentence := caution(metrics):
        console.print(sentence)


def _table(metrics: dict, title: str) -> rich.table.Table:
    table = rich.table.Table(title=title)
    table.add_column("quantity")
    table.add_column("value", justify="right")
    kind = "analytic" if metrics["kl_is_analytic"] else "Monte Carlo"
    bound = "<= " if "nll_is_bound" in metrics else ""
    rows = {
        "-ELBO (nats)": _with_error(metrics, "negative_elbo"),
        "log-likelihood (nats)": _with_error(metrics, "log_likelihood"),
        f"KL, {kind} (nats)": _with_error(metrics, "kl"),
        f"NLL, {metrics['num_samples']} samples (nats)": bound + _with_error(metrics, "nll"),
    }
    if math.isnan(metrics["nll"]):
        rows = {
            "log-likelihood at the code (nats)": _with_error(metrics, "log_likelihood"),
            "ELBO, KL, NLL": "not defined: codes are points",
        }
    if "bits_per_dim" in metrics:
        rows["NLL (bits per dimension)"] = f"{bound}{metrics['bits_per_dim']:.4f}"
    if "effective_samples" in metrics:
        rows["effective samples of the NLL"] = f"{metrics['effective_samples']:.1f}"
    if "annealed_nll" in metrics:
        what = f"NLL, {metrics['annealed_steps']} annealed steps, first {metrics['annealed_examples']} (nats)"
        rows[what] = _with_error(metrics, "annealed_nll")
        rows["below importance sampling of these (nats)"] = _with_error(metrics, "annealed_gain")
        rows["share of accepted moves"] = f"{metrics['annealed_acceptance']:.2f}"
    if "annealed_gap" in metrics:
        rows["gap of its bounds, simulated data (nats)"] = _with_error(metrics, "annealed_gap")
    rows["active units"] = f"{metrics['active_units']} of {metrics['latent_units']}"
    if "nll_per_token" in metrics:
        rows["NLL per token (nats)"] = f"{metrics['nll_per_token']:.4f}"
    if "mutual_information" in metrics:
        rows["mutual information of x and z (nats)"] = f"{metrics['mutual_information']:.3f}"
    if "perplexity" in metrics:
        rows["perplexity of the codes"] = f"{metrics['perplexity']:.1f}"
    if "seconds" in metrics:
        rows["training seconds"] = f"{metrics['seconds']:.1f}"
        rows["examples per second"] = f"{metrics['examples_per_second']:,.0f}"
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def caution(metrics: dict) -> str:
    """Return a sentence on an NLL that is not to be trusted; empty if it is, or another is there."""
    if metrics.get("annealed_gap", 0.0) > LARGE_GAP:
        return "The bounds of annealing are far apart: take more steps, such as --annealed 1000."
    if "annealed_nll" in metrics or metrics.get("effective_samples", FEW_SAMPLES) >= FEW_SAMPLES:
        return ""
    return (
        "Few effective samples: -log p(x) is smaller than this NLL, maybe by nats. "
        "--annealed 200 comes nearer."
    )


def _with_error(metrics: dict, name: str) -> str:
    """Write a number with its standard error, which runs of earlier versions do not have."""
    error = metrics.get(f"{name}_error")
    return f"{metrics[name]:.3f}" if error is None else str(Estimate(metrics[name], error))


def program(name: str) -> str:
    """Return the command of a program in this environment, ready to be typed."""
    beside = Path(sys.argv[0]).parent / name
    return name if shutil.which(name) or not beside.is_file() else quote(beside)


def quote(path: Path) -> str:
    """Return a path quoted for the shell."""
    return shlex.quote(str(path))


def relative(path: Path) -> Path:
    """Return a path relative to the current folder, if it is inside it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def expect_writable(folder: Path) -> None:
    """Raise a PermissionError if a folder cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"The folder {folder} cannot be written.")


def is_served(model: Path) -> bool:
    """Return whether a folder holds a SavedModel of this package, or the versions of one."""
    return model.is_dir() and not (model / "config.json").is_file()


def find(model: Path | None) -> tuple[Path, Run | None]:
    """Return the `.keras` file, and its run where there is one, of a run folder, a `.keras` file,
    or the newest run.
    """
    if model is not None and model.suffix == ".keras":
        return model, Run.open(model.parent) if (model.parent / "config.json").is_file() else None
    if (
        model is not None
        and is_served(model)
        and any(any(model.glob(place)) for place in ("saved_model.pb", "*/saved_model.pb"))
    ):
        raise ValueError(
            f"{model} is a SavedModel, which evaluate, sample and score take, and no other command. Give "
            "its run folder or .keras file."
        )
    run = Run.newest() if model is None else Run.open(model)
    return run.model, run


def expect_new(output: Path, *suffixes: str) -> None:
    """Raise an error if an output has another suffix than these, or exists already."""
    if output.suffix not in suffixes:
        raise ValueError(f"--output must end in {' or '.join(suffixes)}, received {output}.")
    if output.exists():
        raise FileExistsError(f"{output} exists already. Choose another --output.")
    expect_writable(output.parent)
