"""What the command line does: the only place where strings become objects."""

import contextlib
import dataclasses
import math
import os
import shlex
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import rich.console
import rich.progress
import rich.table
import tensorflow as tf

from tfp_vae import datasets, evaluation, layers, plots, serving, sources
from tfp_vae.batch import num_examples
from tfp_vae.cli.build import build, parse_condition, parse_likelihood
from tfp_vae.cli.runs import CtrlC, Options, Recorder, Run, open_vae
from tfp_vae.vae import VAE

# Examples held in memory at once when a run is judged.
EVALUATION_BATCH_SIZE = 500

# Examples that are filled in at once: each has as many draws as `num_samples` says.
IMPUTATION_BATCH_SIZE = 50

# Rows of a picture of samples, a condition each.
MAX_CONDITIONS = 10

console = rich.console.Console(highlight=False, soft_wrap=True)


# train


def train(folder: Path | None, options: dict) -> None:
    """Train in a new run folder."""
    if folder and folder.exists():
        raise FileExistsError(
            f"The run folder {folder} exists already. Choose another --run, or go on with --resume {folder}."
        )
    likelihood = parse_likelihood(options["likelihood"])[0]
    splits = datasets.load(
        options["dataset"], condition=options["condition"], likelihood=likelihood, missing=options["missing"]
    )
    chosen = Options(**{**options, "saved_models": str(options["saved_models"]), "name": splits.name})
    if chosen.missing and splits.draw is not None:
        raise ValueError(
            "8-bit pixels have no missing values. With --missing give x as floats, NaN where one is missing."
        )
    vae = build(splits, chosen)
    for part in (splits.validation, splits.test, *([] if splits.draw else [splits.train])):
        vae.check_data(part)
    _expect_writable(Path(chosen.saved_models))
    run = Run.create(folder, chosen)
    run.save(vae, {})
    _fit(run, splits, vae)


def read_config(path: Path) -> dict:
    """Give the options of another run, to train with them again."""
    options = dataclasses.asdict(Options.read(path))
    del options["name"]
    return options


def resume(folder: Path) -> None:
    """Go on with a run after its last whole epoch, as if it had never been interrupted."""
    run = Run.open(folder)
    if (folder / "metrics.json").is_file():
        raise ValueError(
            f"The run {folder} is finished: it has its {run.options.epochs} epochs and its metrics.json. There is "
            f"nothing to resume. Judge it with: {_program('tfp-vae')} evaluate {_quote(folder)}"
        )
    vae = open_vae(run.model)
    _fit(run, _load(vae, run, folder, None), vae)


def _fit(run: Run, splits: datasets.Splits, vae: VAE) -> None:
    """Train from the epoch that the optimizer has reached, then evaluate, draw and export."""
    options = run.options
    steps, epochs = splits.steps_per_epoch(options.batch_size), options.epochs
    first_epoch = int(vae.optimizer.iterations) // steps
    recorder, progress, ctrl_c = Recorder(run, first_epoch), EpochProgress(first_epoch, epochs), CtrlC()
    if first_epoch < epochs:
        batches = splits.batches(options.batch_size, seed=options.seed, first_epoch=first_epoch, epochs=epochs)
        try:
            with ctrl_c, progress.bar if console.is_terminal else contextlib.nullcontext():
                vae.fit(
                    batches,
                    steps_per_epoch=steps,
                    initial_epoch=first_epoch,
                    epochs=epochs,
                    validation_data=(splits.validation,),
                    validation_batch_size=EVALUATION_BATCH_SIZE,
                    callbacks=[recorder, progress, ctrl_c],
                    verbose=0 if console.is_terminal else 2,
                )
        except KeyboardInterrupt:
            console.print(
                f"\nInterrupted after {len(recorder.history.get('elbo', []))} of {epochs} epochs; the run is usable as "
                f"it is. Go on with: {_program('tfp-vae')} train --resume {_quote(run.folder)}"
            )
            raise SystemExit(130) from None
    metrics = _evaluate(vae, splits, options.num_samples, EVALUATION_BATCH_SIZE, options.seed)
    seconds = recorder.history["seconds"]
    # The median leaves out the epochs that compile: the first, and the first after each resume.
    speed = steps * options.batch_size / statistics.median(seconds)
    metrics |= {"seconds": sum(seconds), "examples_per_second": speed}
    _draw(run.folder / "pictures", vae, splits, recorder.history, options.seed)
    version = vae.export(Path(options.saved_models) / splits.name, card=_card(run, metrics))
    run.write("metrics", metrics)  # last: it says that the run is finished
    console.print(_table(metrics, f"{splits.name}: {metrics['num_examples']} test examples"))
    console.print(f"Run: {run.folder} (metrics.json, pictures/)   SavedModel: {_relative(version)}\n\nNext:")
    folder, served = _quote(run.folder), _quote(_relative(version))
    if splits.is_table:
        console.print(f"  {_program('tfp-vae')} sample {folder} --draws --output new.npz    # new rows of the table")
    else:
        console.print(f"  {_program('tfp-vae')} sample {folder}    # a picture of new examples")
    console.print(f"  {_program('tfp-vae')} evaluate {folder} --num-samples 5000    # a tighter log-likelihood")
    console.print(f"  {_program('saved_model_cli')} show --dir {served} --all    # what TensorFlow Serving will offer")


class EpochProgress(keras.callbacks.Callback):
    """One progress bar over all epochs, with the latest ELBO."""

    def __init__(self, first_epoch: int, epochs: int):
        super().__init__()
        self.bar = rich.progress.Progress(
            rich.progress.TextColumn("epoch {task.completed:.0f}/{task.total:.0f}"),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.description}"),
            rich.progress.TimeRemainingColumn(),
            console=console,
        )
        self.task = self.bar.add_task("compiling ...", total=epochs, completed=first_epoch)

    def on_epoch_end(self, epoch, logs=None):
        text = f"elbo {logs['elbo']:.2f}  val_elbo {logs['val_elbo']:.2f}  kl {logs['kl']:.2f}"
        self.bar.update(self.task, completed=epoch + 1, description=text)


# evaluate, sample, export, plot


def evaluate(model: Path | None, dataset: str | None, *, num_samples: int, batch_size: int, seed: int) -> None:
    """Judge a model and print the table; a run's own numbers also go to its `evaluation.json`."""
    path, run = _find(model)
    vae = open_vae(path)
    splits = _load(vae, run, path, dataset)
    metrics = _evaluate(vae, splits, num_samples, batch_size, seed)
    console.print(_table(metrics, f"{splits.name}: {metrics['num_examples']} test examples"))
    if run and dataset is None:
        run.write("evaluation", metrics)


def sample(
    model: Path | None, num_examples: int, seed: int, output: Path, condition: str | None, *, draws: bool
) -> None:
    """Write generated examples, means or draws of p(x|z), to a picture or an array."""
    given: dict[str, Any] = {} if condition is None else {"condition": parse_condition(condition)}
    _expect_new(output, ".png", ".npz")
    if model and model.is_dir() and not (model / "config.json").is_file():
        vae: VAE | serving.ServedVAE = serving.load(model)
    else:
        vae = open_vae(_find(model)[0])
    if draws and output.suffix != ".npz":
        raise ValueError(f"--draws writes arrays: choose an --output that ends in .npz, received {output}.")
    if output.suffix == ".npz":
        x = vae.generate(num_examples, seed=seed, draws=draws, **given)
        np.savez_compressed(output, **(x if isinstance(x, dict) else {"x": x}))
    elif isinstance(vae.x.shape, dict):
        raise ValueError(f"A table of {[*vae.x.shape]} makes no picture: choose an --output that ends in .npz.")
    else:
        if np.ndim(given.get("condition", 0)):
            columns, given = num_examples, {"condition": np.stack([given["condition"]])}  # all in one row
        else:
            columns = min(10, num_examples)
        figure = plots.samples(vae, num_rows=-(-num_examples // columns), num_columns=columns, seed=seed, **given)
        figure.savefig(output, dpi=150)
    console.print(f"Wrote {output}")


def impute(model: Path | None, data: Path, output: Path, *, num_samples: int, num_draws: int | None, seed: int) -> None:
    """Write an `.npz` file anew with its missing values filled in; all else stays as it is.

    What is filled in are the arrays that the run was trained on, whole or as `..._train`, `..._validation`, `..._test`.
    """
    path, run = _find(model)
    vae = open_vae(path)
    _expect_new(output, ".npz")
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
    np.savez_compressed(output, **arrays)
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
    path, run = _find(model)
    if name is None:
        name = run.options.name if run else path.stem
    if name in ("", ".", "..") or Path(name).name != name:
        raise ValueError(f"--name must be the name of one folder, received {name!r}.")
    card = _card(run, run.metrics()) if run else None
    version = open_vae(path).export(saved_models / name, card=card, **options)
    console.print(
        f"Wrote {_relative(version)}\nServe it: docker run -p 8501:8501 -e MODEL_NAME={name} "
        f'-v "{version.parent}:/models/{name}" tensorflow/serving'
    )


def plot(model: Path | None, dataset: str | None, output: Path | None, seed: int) -> None:
    """Draw all pictures of a model."""
    path, run = _find(model)
    vae = open_vae(path)
    splits = _load(vae, run, path, dataset)
    for picture in _draw(output or path.parent / "pictures", vae, splits, run.history() if run else {}, seed):
        console.print(f"Wrote {picture}")


# helpers


def _find(model: Path | None) -> tuple[Path, Run | None]:
    """Give the `.keras` file, and its run where there is one, of a run folder, a `.keras` file, or the newest run."""
    if model is not None and model.suffix == ".keras":
        return model, Run.open(model.parent) if (model.parent / "config.json").is_file() else None
    run = Run.newest() if model is None else Run.open(model)
    return run.model, run


def _card(run: Run, metrics: dict) -> serving.ModelCard:
    options = run.options
    data = f"{options.dataset}, {options.epochs} epochs of training in batches of {options.batch_size}."
    pictures = [run.folder / "pictures" / f"{name}.png" for name in ("reconstructions", "samples", "marginals")]
    return serving.ModelCard(data=data, metrics=metrics, pictures=[path for path in pictures if path.is_file()])


def _load(vae: VAE, run: Run | None, path: Path, dataset: str | None) -> datasets.Splits:
    """Load the data of a run, or others of the same kind."""
    condition = run.options.condition if run else None
    if vae.is_conditional and condition is None:
        raise ValueError(f"{path} holds a conditional VAE outside a run folder, so what its condition is is unknown.")
    source, likelihood = dataset or _dataset_of(run, path), _likelihood_of(vae.decoder.layers[-1])
    return datasets.load(source, condition=condition, likelihood=likelihood, missing=vae.missing)


def _dataset_of(run: Run | None, path: Path) -> str:
    if run is None:
        raise ValueError(f"{path} lies outside a run folder, so its data are unknown. Name them with --dataset.")
    return run.options.dataset


def _likelihood_of(layer: keras.layers.Layer) -> str | dict[str, str]:
    if isinstance(layer, layers.Joint):
        return {name: type(part.layers[-1]).__name__ for name, part in layer.parts.items()}
    return type(layer).__name__


def _expect_new(output: Path, *suffixes: str) -> None:
    if output.suffix not in suffixes:
        raise ValueError(f"--output must end in {' or '.join(suffixes)}, received {output}.")
    if output.exists():
        raise FileExistsError(f"{output} exists already. Choose another --output.")
    _expect_writable(output.parent)


def _expect_writable(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"The folder {folder} cannot be written.")


def _evaluate(vae: VAE, splits: datasets.Splits, num_samples: int, batch_size: int, seed: int) -> dict:
    verbose = 1 if console.is_terminal else 0
    numbers = evaluation.evaluate(
        vae, splits.test, num_samples=num_samples, batch_size=batch_size, seed=seed, verbose=verbose
    )
    return {"dataset": splits.name, **numbers}


def _draw(folder: Path, vae: VAE, splits: datasets.Splits, history: dict, seed: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    rows, first = _conditions_to_draw(splits)
    if splits.is_table:
        pictures = {"marginals": plots.marginals(vae, splits.test, seed=seed)}
    else:
        pictures = {
            "reconstructions": plots.reconstructions(vae, splits.test),
            "samples": plots.samples(vae, seed=seed, condition=rows),
            "latent_traversal": plots.latent_traversal(vae, splits.test, condition=first),
        }
    if history:
        pictures["learning_curves"] = plots.learning_curves(history)
    for name, figure in pictures.items():
        figure.savefig(folder / f"{name}.png", dpi=150)
    return [folder / f"{name}.png" for name in pictures]


def _conditions_to_draw(splits: datasets.Splits) -> tuple:
    """Give some conditions, each label where there are few, and the first of them."""
    if splits.conditions is None:
        return None, None
    rows = np.unique(splits.conditions, axis=0)[:MAX_CONDITIONS] if splits.has_labels else splits.conditions[:6]
    return rows, rows[0]


def _table(metrics: dict, title: str) -> rich.table.Table:
    table = rich.table.Table(title=title)
    table.add_column("quantity")
    table.add_column("value", justify="right")
    kind = "analytic" if metrics["kl_is_analytic"] else "Monte Carlo"
    rows = {
        "-ELBO (nats)": f"{metrics['negative_elbo']:.3f}",
        "log-likelihood (nats)": f"{metrics['log_likelihood']:.3f}",
        f"KL, {kind} (nats)": f"{metrics['kl']:.3f}",
        f"NLL, {metrics['num_samples']} samples (nats)": f"{'<= ' * ('nll_is_bound' in metrics)}{metrics['nll']:.3f}",
    }
    if math.isnan(metrics["nll"]):
        rows = {
            "log-likelihood at the code (nats)": f"{metrics['log_likelihood']:.3f}",
            "ELBO, KL, NLL": "not defined: codes are points",
        }
    rows["active units"] = f"{metrics['active_units']} of {metrics['latent_units']}"
    if "perplexity" in metrics:
        rows["perplexity of the codes"] = f"{metrics['perplexity']:.1f}"
    if "seconds" in metrics:
        rows["training seconds"] = f"{metrics['seconds']:.1f}"
        rows["examples per second"] = f"{metrics['examples_per_second']:,.0f}"
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _program(name: str) -> str:
    """Spell a program of this environment so that it can be typed as it stands."""
    beside = Path(sys.argv[0]).parent / name
    return name if shutil.which(name) or not beside.is_file() else _quote(beside)


def _quote(path: Path) -> str:
    return shlex.quote(str(path))


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
