"""`tfp-vae runs` and `tfp-vae compare`: tables of runs from their files alone, without models and data."""

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import rich.box
import rich.table

from tfp_vae.cli.build import OF_SEQUENCES, WIDTHS
from tfp_vae.cli.html.meanings import NUMBERS, Number, others
from tfp_vae.cli.html.numbers import on_draws, place_of_best, rounded
from tfp_vae.cli.report import console
from tfp_vae.cli.runs import RUNS, Options, Run, is_number

DEFAULTS = {
    field.name: field.default
    for field in dataclasses.fields(Options)
    if field.default is not dataclasses.MISSING
}
# What `--network auto` becomes.
USUAL_NETWORKS = ("mlp", next(iter(OF_SEQUENCES)))
# Characters in a line of a file, which has no width of its own.
WIDTH_OF_FILES = 400
# Options that do not change the model.
ASIDE = ("data", "name", "num_samples", "saved_models", "tensorboard", "tracker")


def list_runs(folder: Path) -> None:
    """Print a table of all runs in a folder, the newest last.

    Raises:
        FileNotFoundError: if there is none.
    """
    configs = sorted(folder.glob("*/config.json"), key=lambda path: path.stat().st_mtime)
    if not configs:
        where = folder if folder == RUNS else f"{folder}, a folder of run folders"
        raise FileNotFoundError(f"There is no run under {where}. Train one with: tfp-vae train")
    table = _table("run", "started", "data", "epochs", "-ELBO", "NLL", "options")
    for column in table.columns:  # a number that is cut is a wrong one
        column.no_wrap = column.header in ("started", "epochs", "-ELBO", "NLL")
    for config in configs:
        started = f"{datetime.fromtimestamp(config.stat().st_mtime):%Y-%m-%d %H:%M}"
        try:
            row = _row(Run.open(config.parent))
        except (OSError, ValueError) as error:
            row = ["", "", "", "", f"not readable: {error}"]
        table.add_row(str(config.parent), started, *row)
    console.print(table, width=None if console.is_terminal else WIDTH_OF_FILES)
    console.print("Nats per example. tfp-vae compare RUN RUN shows more, with errors.")


def _row(run: Run) -> list[str]:
    epochs = f"{run.num_epochs} of {run.options.epochs}" + ", unfinished" * (not run.metrics())
    options = _options(run)
    width = WIDTHS.get(options["network"])
    usual = {**DEFAULTS, "network": (*USUAL_NETWORKS, "auto"), "hidden_size": (width, 0)}
    given = [
        f"--{name.replace('_', '-')}{'' if value is True else f' {value}'}"
        for name, value in options.items()
        if name in DEFAULTS and not _is_usual(value, usual[name])
        if name not in ("dataset", "epochs")
    ]
    numbers = run.numbers()
    values = {name: _value(numbers, name) for name in ("negative_elbo", "nll")}
    cells = [
        "" if value is None else f"{_bound(numbers, name)}{value:.2f}"
        for name, value in values.items()
    ]
    return [run.options.name, epochs, *cells, " ".join(given)]


def _is_usual(value, usual) -> bool:
    """Return whether an option has its default, or one of the values that stand for it."""
    return value in usual if isinstance(usual, tuple) else value == usual


def compare(folders: Sequence[Path]) -> None:
    """Print the options in which runs differ, and their numbers side by side.

    Raises:
        FileNotFoundError: if a folder holds no run.
        ValueError: if there are fewer than two different runs.
    """
    known: dict[Path, Path] = {}
    for folder in folders:
        known.setdefault(folder.resolve(), folder)  # each run once
    if len(known) < 2:
        raise ValueError(
            f"compare takes two run folders or more, received {len(known)}. See: tfp-vae runs"
        )
    runs = [Run.open(folder) for folder in known.values()]
    table = _table("", *map(str, known.values()))
    _add(table, "data", [run.options.name for run in runs])
    _add(table, "epochs", [f"{run.num_epochs} of {run.options.epochs}" for run in runs])
    options = [_options(run) for run in runs]
    for name in options[0]:
        values = [one[name] for one in options]
        if name != "epochs" and any(value != values[0] for value in values):
            _add(table, f"--{name.replace('_', '-')}", values)
    table.add_section()
    numbers = [run.numbers() for run in runs]
    has_best = False
    sentences = _remarks(runs, numbers)
    for name, known_number in {**NUMBERS, **others(numbers)}.items():
        cells = [_written(one, name) for one in numbers]
        if any(cells):
            values = [_value(one, name) for one in numbers]
            differ = not sentences and len({*values} - {None}) > 1
            best = place_of_best(values, known_number.better) if differ else None
            if best is not None:
                has_best, cells[best] = True, f"{cells[best]} *"
            _add(table, known_number.title, cells)
    console.print(table)
    star = "* the best. " * has_best
    for sentence in sentences or [f"{star}`tfp-vae report` compares runs example by example."]:
        console.print(sentence)


def _table(*columns: str) -> rich.table.Table:
    table = rich.table.Table(box=rich.box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _add(table: rich.table.Table, title: str, values: Sequence[Any]) -> None:
    table.add_row(*map(str, (title, *values)))


def _options(run: Run) -> dict[str, Any]:
    options = dataclasses.asdict(run.options)
    return {name: value for name, value in options.items() if name not in ASIDE}


def _value(numbers: dict, name: str) -> float | None:
    value = numbers.get(name)
    return value if is_number(value) else None


def _written(numbers: dict, name: str) -> str:
    value = _value(numbers, name)
    if value is None:
        return ""
    known = NUMBERS.get(name, Number(title="", meaning="", form=".4g"))
    whole = f" of {numbers[known.out_of]}" if known.out_of in numbers else ""
    return (
        _bound(numbers, name) + rounded(value, _value(numbers, f"{name}_error"), known.form) + whole
    )


def _bound(numbers: dict, name: str) -> str:
    """Return what stands before a number that is an upper bound."""
    return "<= " * (name == "nll" and bool(numbers.get("nll_is_bound")))


def _remarks(runs: list[Run], numbers: list[dict]) -> list[str]:
    """Return what keeps the numbers from being compared."""
    remarks = []
    for what, values in {
        "data": {run.options.dataset for run in runs},
        "conditions": {str(run.options.condition) for run in runs},
        "likelihoods": {run.options.likelihood for run in runs},
        "numbers of test examples": {str(one.get("num_examples")) for one in numbers if one},
    }.items():
        if len(values) > 1:
            remarks.append(
                f"Different {what} ({', '.join(sorted(values))}): their numbers do not compare."
            )
    remarks += [
        f"{run.folder} is unfinished and has no numbers." for run in runs if not run.metrics()
    ]
    remarks += [
        f"{run.folder}: its codes are points, so that ELBO, KL and NLL are not defined."
        for run, one in zip(runs, numbers, strict=True)
        if one and one.get("nll") is None
    ]
    return remarks + on_draws(numbers)
