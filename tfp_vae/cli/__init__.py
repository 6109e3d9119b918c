"""What the command line does: the only place where strings become objects."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import rich.progress
import rich.table
import tensorflow as tf

from tfp_vae import datasets, hierarchy, layers, networks, objectives, plots, priors, serving, sources
from tfp_vae.batch import num_examples
from tfp_vae.checks import one_of
from tfp_vae.cli.build import LIKELIHOODS, OBJECTIVES, POSTERIORS, PRIORS, build, parse_condition, parse_likelihood
from tfp_vae.cli.report import card, console, draw, expect_new, find, is_served, judge, load_data, relative, table
from tfp_vae.cli.runs import Options, Run, open_vae, written_whole
from tfp_vae.cli.training import read_config, resume, train
from tfp_vae.vae import VAE

# Examples that are filled in at once: each has as many draws as `num_samples` says.
IMPUTATION_BATCH_SIZE = 50


def evaluate(model: Path | None, dataset: str | None, *, num_samples: int, batch_size: int, seed: int) -> None:
    """Judge a model and print the table; a run's own numbers also go to its `evaluation.json`."""
    if is_served(model):
        return _evaluate_served(model, dataset, batch_size)
    path, run = find(model)
    vae = open_vae(path)
    splits = load_data(vae, run, path, dataset)
    metrics = judge(vae, splits, num_samples, batch_size, seed)
    console.print(table(metrics, f"{splits.name}: {metrics['num_examples']} test examples"))
    if run and dataset is None:
        run.write("evaluation", metrics)


def _evaluate_served(model: Path, dataset: str | None, batch_size: int) -> None:
    """Judge a SavedModel by its signatures score and log_prob, whose draws were chosen when it was exported."""
    if dataset is None:
        raise ValueError(f"{model} is a SavedModel, which does not know its data. Name them with --dataset.")
    served = serving.load(model)
    if served.condition is not None or served.description["posterior"] is None:
        raise ValueError(f"{model} is conditional or a hierarchy: evaluate its run folder or .keras file instead.")
    test = datasets.load(dataset).test
    served.x.expect(tf.nest.map_structure(lambda values: values[:1], test))
    means: dict[str, list] = {}
    for start in range(0, num_examples(test), batch_size):
        rows = tf.nest.map_structure(lambda values, at=start: values[at : at + batch_size], test)
        for name, values in {**served.score(rows), "log_prob": served.log_prob(rows).numpy()}.items():
            means.setdefault(name, []).extend(values)
    mean = {name: float(np.mean(values, dtype="float64")) for name, values in means.items()}
    shown = rich.table.Table("quantity", "value", title=f"{dataset}: {num_examples(test)} test examples")
    draws = served.description
    shown.add_row(f"-ELBO, {draws['score_samples']} draws (nats)", f"{-mean['elbo']:.3f}")
    shown.add_row("log-likelihood (nats)", f"{mean['log_likelihood']:.3f}")
    shown.add_row("KL (nats)", f"{mean['kl']:.3f}")
    shown.add_row(f"NLL, {draws['log_prob_samples']} samples (nats)", f"{-mean['log_prob']:.3f}")
    console.print(shown)


def sample(
    model: Path | None, num_examples: int, seed: int, output: Path, condition: str | None, *, draws: bool
) -> None:
    """Write generated examples, means or draws of p(x|z), to a picture or an array."""
    given: dict[str, Any] = {} if condition is None else {"condition": parse_condition(condition)}
    expect_new(output, ".png", ".npz")
    vae: VAE | serving.ServedVAE = serving.load(model) if is_served(model) else open_vae(find(model)[0])
    if vae.condition is not None and condition is None:
        raise ValueError("The model is conditional: say what to draw by --condition, such as --condition 7.")
    if draws and output.suffix != ".npz":
        raise ValueError(f"--draws writes arrays: choose an --output that ends in .npz, received {output}.")
    if output.suffix == ".npz":
        x = vae.generate(num_examples, seed=seed, draws=draws, **given)
        with written_whole(output) as aside:
            np.savez_compressed(aside, **(x if isinstance(x, dict) else {"x": x}))
    elif isinstance(vae.x.shape, dict):
        raise ValueError(f"A table of {[*vae.x.shape]} makes no picture: choose an --output that ends in .npz.")
    else:
        if np.ndim(given.get("condition", 0)):
            columns, given = num_examples, {"condition": np.stack([given["condition"]])}  # all in one row
        else:
            columns = min(10, num_examples)
        figure = plots.samples(vae, num_rows=-(-num_examples // columns), num_columns=columns, seed=seed, **given)
        with written_whole(output) as aside:
            figure.savefig(aside, dpi=150)
    console.print(f"Wrote {output}")


def impute(model: Path | None, data: Path, output: Path, *, num_samples: int, num_draws: int | None, seed: int) -> None:
    """Write an `.npz` file anew with its missing values filled in; all else stays as it is.

    What is filled in are the arrays that the run was trained on, whole or as `..._train`, `..._validation`, `..._test`.
    """
    path, run = find(model)
    vae = open_vae(path)
    if not vae.missing:
        raise ValueError(f"{path} was trained without --missing, so it fills in nothing. Train one with --missing.")
    expect_new(output, ".npz")
    arrays: dict[str, Any] = sources.load_npz(data)
    wanted = {name: name for name in vae.x.shapes}
    if vae.is_conditional:
        wanted["condition"] = run.options.condition if run and run.options.condition else "condition"
    elif [*wanted] == ["x"] and len(arrays) == 1:
        wanted["x"] = next(iter(arrays))
    ends = "", *(f"_{split}" for split in datasets.SPLITS)
    groups = [{key: found + end for key, found in wanted.items()} for end in ends]
    groups = [group for group in groups if arrays.keys() >= {*group.values()}]
    if not groups:
        raise ValueError(f"{data} holds {sorted(arrays)}. Expected {' and '.join(wanted.values())}.")
    for group in groups:
        given = {key: arrays[found] for key, found in group.items()}
        x = vae.x.whole(given)
        examples = {"x": x, "condition": given["condition"]} if vae.is_conditional else x
        vae.check_data(examples)
        filled = _impute(vae, examples, num_samples, num_draws, seed)
        for name, values in vae.x.parts(filled).items():
            arrays[group[name]] = np.where(np.isnan(given[name]), values, given[name]).astype(given[name].dtype)
    with written_whole(output) as aside:
        np.savez_compressed(aside, **arrays)
    console.print(f"Wrote {output}")


def _impute(vae: VAE, examples, num_samples: int, num_draws: int | None, seed: int):
    """Fill in batch by batch: means by the same draws everywhere, draws by others in each batch."""
    filled, starts = [], range(0, num_examples(examples), IMPUTATION_BATCH_SIZE)
    for start in rich.progress.track(starts, "Filling in", console=console, disable=not console.is_terminal):
        rows = tf.nest.map_structure(lambda values, at=start: values[at : at + IMPUTATION_BATCH_SIZE], examples)
        own_seed = seed if num_draws is None else (seed + start) % 2**31
        filled.append(vae.impute(rows, num_samples, own_seed, num_draws=num_draws))
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts, 0 if num_draws is None else 1), *filled)


def export(model: Path | None, name: str | None, saved_models: Path, **options) -> None:
    """Export a model as the next version under `saved_models/name`."""
    path, run = find(model)
    if name is None:
        name = run.options.name if run else path.stem
    if name in ("", ".", "..") or Path(name).name != name:
        raise ValueError(f"--name must be the name of one folder, received {name!r}.")
    described = card(run, run.metrics()) if run else None
    version = open_vae(path).export(saved_models / name, card=described, **options)
    console.print(
        f"Wrote {relative(version)}\nServe it: docker run -p 8501:8501 -e MODEL_NAME={name} "
        f'-v "{version.parent}:/models/{name}" tensorflow/serving'
    )


def plot(model: Path | None, dataset: str | None, output: Path | None, seed: int) -> None:
    """Draw all pictures of a model."""
    path, run = find(model)
    vae = open_vae(path)
    splits = load_data(vae, run, path, dataset)
    for picture in draw(output or path.parent / "pictures", vae, splits, run.history() if run else {}, seed):
        console.print(f"Wrote {picture}")


def list_members(kind: str | None) -> None:
    """Print the names that the options of `train` take, with a line each."""
    kinds = {
        "posteriors": [(name, _found(layers, hierarchy, name)) for name in (*POSTERIORS, "VectorQuantized")],
        "likelihoods": [(name, getattr(layers, name)) for name in LIKELIHOODS],
        "priors": [(name, _found(priors, layers, name)) for name in (*PRIORS, "VampPrior", "Codes")],
        "objectives": [(name, getattr(objectives, name)) for name in OBJECTIVES],
        "networks": [("mlp", networks.mlp), ("conv", networks.conv_encoder)],
    }
    kinds["posteriors"] += [(name, getattr(hierarchy, name)) for name in hierarchy.__all__]
    for title in kinds if kind is None else [one_of(tuple(kinds), kind, "The kind")]:
        rows = rich.table.Table(title=title, title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
        for name, member in kinds[title]:
            rows.add_row(name, (inspect.getdoc(member) or "").partition("\n")[0])
        console.print(rows)
        console.print()


def _found(first, second, name: str):
    return getattr(first, name, None) or getattr(second, name)


__all__ = [
    "Options",
    "Run",
    "build",
    "evaluate",
    "export",
    "impute",
    "list_members",
    "open_vae",
    "parse_condition",
    "parse_likelihood",
    "plot",
    "read_config",
    "resume",
    "sample",
    "train",
]
