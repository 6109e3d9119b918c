"""Implementation of the command line; only this package turns strings into objects."""

import dataclasses
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_vae import datasets, plots, serving, storage, tables
from tfp_vae.batch import by_name, cut, num_examples
from tfp_vae.checks import one_of
from tfp_vae.cli import judging, served
from tfp_vae.cli.build import build
from tfp_vae.cli.catalogue import members
from tfp_vae.cli.comparing import compare, list_runs
from tfp_vae.cli.explore import explore
from tfp_vae.cli.html import write_report
from tfp_vae.cli.migrate import migrate
from tfp_vae.cli.names import parse_condition, parse_likelihood
from tfp_vae.cli.report import (
    busy,
    card,
    console,
    dataset_of,
    draw,
    expect_new,
    find,
    is_served,
    judge,
    judge_annealed,
    load_data,
    relative,
    show,
    tracked,
)
from tfp_vae.cli.runs import Options, Run, open_vae, written_whole
from tfp_vae.cli.texts import lines_of
from tfp_vae.cli.training import read_config, read_preset, resume, train
from tfp_vae.evaluation.errors import flat
from tfp_vae.quantity import Quantity
from tfp_vae.surface import Surface
from tfp_vae.vae import VAE
from tfp_vae.workers import Workers

# Number of examples to impute at once; each needs `num_samples` draws.
IMPUTATION_BATCH_SIZE = 50
# Number of rows to score at once.
SCORE_BATCH_SIZE = 1_000


def evaluate(
    model: Path | None,
    dataset: str | None,
    condition: str | None,
    *,
    num_samples: int,
    batch_size: int,
    annealed: int,
    seed: int,
    wishes: judging.Wishes,
) -> None:
    """Evaluate a model and print the table; a run's own metrics go to `evaluation.json` too."""
    if model is not None and is_served(model):
        if wishes:
            raise ValueError(
                f"{model} is a SavedModel, of which no more is computed than the table. Give its run "
                "folder or .keras file."
            )
        console.print(served.evaluate(model, dataset, condition, batch_size))
        return
    path, run = find(model)
    vae = open_vae(path)
    splits = load_data(vae, run, path, dataset, condition)
    source = dataset or dataset_of(run, path)
    other = load_data(vae, run, path, wishes.against, condition) if wishes.against else None
    by_annealing = judge_annealed(vae, splits, annealed, num_samples, seed) if annealed else {}
    judged = judging.Judge(vae, splits, source, batch_size, num_samples, seed)
    with busy("Judging codes, samples and predictions"):
        more = judged.numbers(wishes, other)
    metrics = judge(vae, splits, num_samples, batch_size, seed) | by_annealing
    show(metrics, splits, judging.rows(more))
    if run and dataset is None:
        asked = {"annealed": annealed, **dataclasses.asdict(wishes)}
        asked = {name: str(value) for name, value in asked.items() if value}
        run.write("evaluation", {**metrics, **flat(more), "asked": asked})


def sample(
    model: Path | None,
    num_examples: int,
    seed: int,
    output: Path | None,
    condition: str | None,
    *,
    draws: bool,
) -> None:
    """Write generated examples, means or draws of p(x|z), to a picture, a text or an array."""
    if output is not None:
        expect_new(output, ".png", ".npz", ".txt", *tables.files.SUFFIXES)
    vae: VAE | serving.ServedVAE = (
        serving.load(model) if model is not None and is_served(model) else open_vae(find(model)[0])
    )
    given = _given(vae.condition, condition)
    readable = _readable(vae)
    if output is None:
        output = Path("samples").with_suffix(readable[0])
    expect_new(output, *readable)
    if draws and output.suffix == ".png":
        raise ValueError(
            f"--draws writes arrays: choose an --output that ends in .npz, received {output}."
        )
    if output.suffix == ".png" and vae.x.has_parts:
        raise ValueError(
            f"A table of {[*vae.x.shape]} makes no picture: choose an --output that ends in .npz."
        )
    with busy("Generating"), written_whole(output) as aside:
        if output.suffix == ".png":
            _samples(vae, num_examples, seed, given).savefig(aside, dpi=150)
        elif output.suffix in tables.files.SUFFIXES:
            frame = vae.generate(num_examples, seed=seed, draws=draws)
            tables.write(frame, aside, output.suffix)
        else:
            x = vae.generate_arrays(num_examples, seed=seed, draws=draws, **given)
            _write_arrays(vae, x, aside, output.suffix)
    console.print(f"Wrote {output}")


def _samples(vae: Surface, num_examples: int, seed: int, given: dict[str, Any]):
    """Draw a picture of examples: rows of ten, or of a condition with a shape all in one row."""
    columns = min(10, num_examples)
    if np.ndim(given.get("condition", 0)):
        columns = num_examples
        given = {"condition": np.stack([given["condition"]])}
    rows = -(-num_examples // columns)
    return plots.samples(vae, num_rows=rows, num_columns=columns, seed=seed, **given)


def _write_arrays(vae: Surface, x, path: Path, suffix: str) -> None:
    if suffix == ".npz":
        np.savez_compressed(path, **vae.x.parts(x))
    else:
        path.write_text("\n".join(lines_of(vae, x)) + "\n")


def _readable(vae: Surface) -> tuple[str, ...]:
    """Return the suffixes of the files that examples of a model can be written to."""
    if vae.table is not None:
        return tables.files.SUFFIXES
    return (".png" if vae.vocabulary is None else ".txt"), ".npz"


def _given(variable: Quantity | None, text: str | None) -> dict[str, Any]:
    """Return the condition for a model's draws in a dict, which is empty if it takes none."""
    if variable is None and text is not None:
        raise ValueError(f"The model is not conditional. Leave out --condition {text}.")
    if variable is None:
        return {}
    size = int(np.prod(variable.shape))
    what = "a whole number" if tf.as_dtype(variable.dtype).is_integer else "a number"
    if variable.num_labels is not None:
        what = f"a label from 0 to {variable.num_labels - 1}"
    if variable.shape:
        what = f"{size} of {what} with commas between them" if size > 1 else what
    if text is None:
        raise ValueError(
            f"The model is conditional: say under what to draw by --condition, {what}."
        )
    try:
        value = np.reshape(parse_condition(text), variable.shape)
        return {"condition": variable.expect_known(value)}
    except ValueError:
        raise ValueError(f"--condition must be {what}, received {text!r}.") from None


def impute(
    model: Path | None,
    data: Path,
    output: Path | None,
    *,
    num_samples: int,
    num_draws: int | None,
    seed: int,
) -> None:
    """Write a copy of an `.npz` or `.npy` file, or of the file of a table, with its missing values
    filled in; everything else stays the same.

    The arrays to fill in are those that the run was trained on, whole or as `..._train`,
    `..._validation`, `..._test`. An `.npy` file may be larger than memory.
    """
    path, run = find(model)
    vae = open_vae(path)
    if not vae.missing:
        raise ValueError(
            f"{path} was trained without --missing, so it fills in nothing. Train one with "
            "--missing."
        )
    numbers = (num_samples, num_draws, seed)
    if output is None:
        output = Path("imputed").with_suffix(".npz" if vae.table is None else ".csv")
    if vae.table is not None:
        _impute_table(vae, vae.table, data, output, *numbers)
        return
    expect_new(output, ".npz", ".npy")
    arrays = storage.open_path(data)
    condition = run.options.condition if run else None
    groups = _groups(vae, data, arrays, condition or "condition")
    if output.suffix == ".npy" and (num_draws is not None or len(arrays) > 1):
        raise ValueError(
            f"An .npy file holds one array: choose an --output that ends in .npz, received {output}."
        )
    with written_whole(output) as aside:
        filled = (_filled(vae, arrays, group, *numbers) for group in groups)
        if output.suffix == ".npy":
            storage.write_npy(aside, (batch[name] for batch in next(filled) for name in batch))
        else:
            for batches in filled:
                arrays |= _joined(batches, num_draws)
            np.savez_compressed(aside, **arrays)
    console.print(f"Wrote {output}")


def _groups(
    vae: VAE, data: Path, arrays: Mapping[str, Any], condition: str
) -> list[dict[str, str]]:
    """Return the names that x's parts, and the condition, have in a file: once for each split that it
    holds.
    """
    wanted = {name: name for name in vae.x.shapes}
    if vae.is_conditional:
        wanted["condition"] = condition
    elif [*wanted] == ["x"] and len(arrays) == 1:
        wanted["x"] = next(iter(arrays))
    ends = "", *(f"_{split}" for split in datasets.SPLITS)
    groups = [{key: found + end for key, found in wanted.items()} for end in ends]
    groups = [group for group in groups if arrays.keys() >= {*group.values()}]
    if not groups:
        raise ValueError(
            f"{data} holds {sorted(arrays)}. Expected {' and '.join(wanted.values())}."
        )
    return groups


def _impute_table(
    vae: VAE,
    table: tables.Table,
    data: Path,
    output: Path,
    num_samples: int,
    num_draws: int | None,
    seed: int,
) -> None:
    expect_new(output, *tables.files.SUFFIXES)
    frame = tables.read(data, table)
    parts = table.encode(frame)
    group = {name: name for name in parts}
    filled = _filled(vae, parts, group, num_samples, num_draws, seed)
    values = table.decode(_joined(filled, num_draws), frame.index)
    with written_whole(output) as aside:
        tables.write(table.fill(frame, values), aside, output.suffix)
    console.print(f"Wrote {output}")


def _joined(batches: Iterable[dict[str, np.ndarray]], num_draws: int | None) -> dict:
    """Return arrays from their batches, which are on the axis after that of the draws."""
    batches = [*batches]
    axis = 0 if num_draws is None else 1
    return {name: np.concatenate([batch[name] for batch in batches], axis) for name in batches[0]}


def _filled(
    vae: VAE,
    arrays: dict,
    group: dict[str, str],
    num_samples: int,
    num_draws: int | None,
    seed: int,
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the parts of x without gaps, batch by batch, under the names of their arrays; means use
    the same draws of z in all batches, draws use different ones.
    """
    given = {key: arrays[found] for key, found in group.items()}
    x = vae.x.whole(given)
    examples = {"x": x, "condition": given["condition"]} if vae.is_conditional else x
    vae.check_data(examples)
    starts = range(0, num_examples(examples), IMPUTATION_BATCH_SIZE)
    for start in tracked(starts, "Filling in"):
        rows = cut(examples, start, start + IMPUTATION_BATCH_SIZE)
        own_seed = seed if num_draws is None else (seed + start) % 2**31
        filled = vae.x.parts(vae.impute(rows, num_samples, own_seed, num_draws=num_draws))
        known = vae.x.parts(by_name(rows)["x"])
        yield {
            group[name]: np.where(np.isnan(known[name]), filled[name], known[name]).astype(
                known[name].dtype
            )
            for name in filled
        }


def score(model: Path | None, data: Path, output: Path, *, num_samples: int, seed: int) -> None:
    """Write a copy of the file of a table with the log-density of each row beside it."""
    served_one = model is not None and is_served(model)
    vae: VAE | serving.ServedVAE = (
        serving.load(Path(str(model))) if served_one else open_vae(find(model)[0])
    )
    if vae.table is None:
        raise ValueError(
            f"{model or 'The newest run'} knows no columns: score takes models that were trained on "
            "a .csv or .parquet file. For others there is evaluate."
        )
    expect_new(output, *tables.files.SUFFIXES)
    frame = tables.read(data, vae.table)
    if not len(frame):
        raise ValueError(f"{data} holds no rows to score. Expected at least one.")
    if "log_prob" in frame.columns:
        raise ValueError(
            f"{data} has a column 'log_prob'. Expected none: score writes one of this name. Rename it."
        )
    draws = {} if isinstance(vae, serving.ServedVAE) else {"num_samples": num_samples, "seed": seed}
    values = []
    for start in tracked(range(0, len(frame), SCORE_BATCH_SIZE), "Scoring"):
        rows = frame.iloc[start : start + SCORE_BATCH_SIZE]
        values.append(np.asarray(vae.log_prob(rows, **draws)))
    with written_whole(output) as aside:
        tables.write(frame.assign(log_prob=np.concatenate(values)), aside, output.suffix)
    console.print(f"Wrote {output}: the rows of {data} and their log_prob, in nats")


def export(model: Path | None, name: str | None, saved_models: Path, **options) -> None:
    """Export a model as the next version under `saved_models/name`."""
    path, run = find(model)
    if name is None:
        name = run.options.name if run else path.stem
    if name in ("", ".", "..") or Path(name).name != name:
        raise ValueError(f"--name must be the name of one folder, received {name!r}.")
    described = card(run, run.metrics()) if run else None
    with busy("Exporting"):
        version = open_vae(path).export(saved_models / name, card=described, **options)
    console.print(
        f"Wrote {relative(version)}\nServe it: docker run -p 8501:8501 -e MODEL_NAME={name} "
        f'-v "{version.parent}:/models/{name}" tensorflow/serving'
    )


def plot(
    model: Path | None, dataset: str | None, condition: str | None, output: Path | None, seed: int
) -> None:
    """Draw all pictures of a model."""
    path, run = find(model)
    vae = open_vae(path)
    splits = load_data(vae, run, path, dataset, condition)
    folder, history = output or path.parent / "pictures", run.history() if run else {}
    with busy("Drawing pictures"):
        pictures = draw(folder, vae, splits, history, seed)
    for picture in pictures:
        console.print(f"Wrote {picture}")


def list_members(kind: str | None) -> None:
    """Print the names that the options of `train` take, with a line each."""
    kinds = members()
    width = max(40, console.width)
    for title in kinds if kind is None else [one_of(tuple(kinds), kind, "The kind")]:
        console.print(f"{title}:", style="bold")
        for row in kinds[title]:
            print(
                textwrap.fill(
                    f"{row.name}  {row.line}",
                    width,
                    initial_indent="  ",
                    subsequent_indent="      ",
                )
            )
        print()


__all__ = [
    "Options",
    "Run",
    "Workers",
    "build",
    "compare",
    "evaluate",
    "explore",
    "export",
    "impute",
    "list_members",
    "list_runs",
    "migrate",
    "open_vae",
    "parse_condition",
    "parse_likelihood",
    "plot",
    "read_config",
    "read_preset",
    "resume",
    "sample",
    "score",
    "train",
    "write_report",
]
