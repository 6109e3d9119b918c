"""What the command line does: the only place where strings become objects."""

import contextlib
import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

import keras
import numpy as np
import rich.console
import rich.progress
import rich.table

from tfp_vae import datasets, evaluation, layers, networks, objectives, plots, serving
from tfp_vae.vae import VAE

RUNS = Path("runs")
# Training steps in one call of the compiled loop, at most; the loop ends with the epoch.
MAX_STEPS_PER_EXECUTION = 50

console = rich.console.Console(highlight=False, soft_wrap=True)


# train


def train(run: Path | None, options: dict) -> None:
    """Train in a new run folder."""
    if run and run.exists():
        raise FileExistsError(
            f"The run folder {run} exists already. Choose another --run, or go on with --resume {run}."
        )
    splits = datasets.load(options["dataset"], likelihood=_likelihood(options))
    vae = build(splits, options)
    for part in (splits.validation, splits.test, *([] if splits.draw else [splits.train])):
        vae.check_data(part)
    _expect_writable(Path(options["saved_models"]))
    run = run or _next_run(splits.name)
    run.mkdir(parents=True)
    _write_json(run / "config.json", {**options, "name": splits.name})
    _save(run, vae, {})
    _fit(run, options, splits, vae)


def resume(run: Path) -> None:
    """Go on with a run after its last whole epoch, as if it had never been interrupted."""
    options = _read_config(run)
    splits = datasets.load(options["dataset"], likelihood=_likelihood(options))
    _fit(run, options, splits, open_vae(run / "model.keras"))


def build(splits: datasets.Splits, options: dict) -> VAE:
    """Make the VAE that the options describe, compiled, with weights drawn by the seed."""
    keras.utils.set_random_seed(options["seed"])
    posterior = _member("posterior", options["posterior"], layers)
    likelihood = _member("likelihood", splits.likelihood, layers)
    shape, latent = splits.event_shape, options["latent_size"]
    num_posterior, num_likelihood = posterior.params_size(latent), likelihood.params_size(shape)
    hidden = (options["hidden_size"],)
    if options["network"] == "mlp":
        to_posterior = networks.mlp(shape, num_posterior, hidden_sizes=hidden)
        to_likelihood = networks.mlp((latent,), num_likelihood, hidden_sizes=hidden)
    elif options["network"] == "conv":
        to_posterior = networks.conv_encoder(shape, num_posterior)
        to_likelihood = networks.conv_decoder(latent, shape, num_likelihood // int(np.prod(shape)))
    else:
        raise ValueError(f"--network must be mlp or conv, received {options['network']!r}.")
    vae = VAE(
        keras.Sequential([to_posterior, posterior(latent)], name="encoder"),
        keras.Sequential([to_likelihood, likelihood(shape, **splits.likelihood_config)], name="decoder"),
        objective=objectives.ELBO(beta=options["beta"]),
        seed=options["seed"],
    )
    steps = splits.steps_per_epoch(options["batch_size"])
    schedule = keras.optimizers.schedules.CosineDecay(options["learning_rate"], steps * options["epochs"])
    vae.compile(keras.optimizers.Adam(schedule), steps_per_execution=_largest_divisor(steps, MAX_STEPS_PER_EXECUTION))
    vae.optimizer.build(vae.trainable_variables)  # so that the run can be resumed from before its first step
    return vae


def _fit(run: Path, options: dict, splits: datasets.Splits, vae: VAE) -> None:
    """Train from the epoch that the optimizer has reached, then evaluate, draw and export."""
    steps, epochs = splits.steps_per_epoch(options["batch_size"]), options["epochs"]
    first_epoch = int(vae.optimizer.iterations) // steps
    recorder, progress = RunRecorder(run, first_epoch), EpochProgress(first_epoch, epochs)
    if first_epoch < epochs:
        batches = splits.batches(options["batch_size"], seed=options["seed"], first_epoch=first_epoch, epochs=epochs)
        try:
            with progress.bar if console.is_terminal else contextlib.nullcontext():
                vae.fit(
                    batches,
                    steps_per_epoch=steps,
                    initial_epoch=first_epoch,
                    epochs=epochs,
                    validation_data=(splits.validation,),
                    validation_batch_size=500,
                    callbacks=[recorder, progress],
                    verbose=0 if console.is_terminal else 2,
                )
        except KeyboardInterrupt:
            console.print(
                f"\nInterrupted after {len(recorder.history.get('elbo', []))} of {epochs} epochs; the run is usable as "
                f"it is. Go on with: {_program('tfp-vae')} train --resume {_quote(run)}"
            )
            raise SystemExit(130) from None
    metrics = _evaluate(vae, splits, options["num_samples"], 500, options["seed"])
    metrics |= recorder.speed(steps * options["batch_size"])
    _write_json(run / "metrics.json", metrics)
    _draw(run / "pictures", vae, splits, recorder.history, options["seed"])
    version = vae.export(Path(options["saved_models"]) / splits.name)
    console.print(_table(metrics, f"{splits.name}: {metrics['num_examples']} test examples"))
    console.print(f"Run: {run} (metrics.json, pictures/)   SavedModel: {_relative(version)}\n\nNext:")
    console.print(f"  {_program('tfp-vae')} sample {_quote(run)}    # a picture of new examples")
    console.print(f"  {_program('tfp-vae')} evaluate {_quote(run)} --num-samples 5000    # a tighter log-likelihood")
    console.print(
        f"  {_program('saved_model_cli')} show --dir {_quote(_relative(version))} --all    "
        "# what TensorFlow Serving will offer"
    )


class RunRecorder(keras.callbacks.Callback):
    """Keep history and model of a run on disk, each whole at any moment, after every epoch."""

    def __init__(self, run: Path, first_epoch: int):
        super().__init__()
        self.run = run
        path = run / "history.json"
        recorded = json.loads(path.read_text()) if path.is_file() else {}
        self.history = {name: values[:first_epoch] for name, values in recorded.items()}
        self.total = self.start = 0.0
        self.epoch_seconds: list[float] = []

    def on_train_begin(self, logs=None):
        self.total = -time.perf_counter()

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_test_begin(self, logs=None):
        self.epoch_seconds.append(time.perf_counter() - self.start)

    def on_epoch_end(self, epoch, logs=None):
        for name, value in logs.items():
            self.history.setdefault(name, []).append(float(value))
        _save(self.run, self.model, self.history)

    def on_train_end(self, logs=None):
        self.total += time.perf_counter()

    def speed(self, images_per_epoch: int) -> dict[str, float]:
        """Give seconds of the whole training, and images per second of an epoch's training steps.

        The first epoch, which compiles, does not count where there are others.
        """
        if not self.epoch_seconds:
            return {}
        steady = self.epoch_seconds[1:] or self.epoch_seconds
        return {"seconds": self.total, "images_per_second": images_per_epoch * len(steady) / sum(steady)}


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
    path, options = _find(model)
    vae = open_vae(path)
    splits = datasets.load(dataset or options["dataset"], likelihood=type(vae.decoder.layers[-1]).__name__)
    metrics = _evaluate(vae, splits, num_samples, batch_size, seed)
    console.print(_table(metrics, f"{splits.name}: {metrics['num_examples']} test examples"))
    if dataset is None:
        _write_json(path.parent / "evaluation.json", metrics)


def sample(model: Path | None, num_examples: int, seed: int, output: Path) -> None:
    """Write generated examples to a picture or an array."""
    if output.suffix not in (".png", ".npz"):
        raise ValueError(f"--output must end in .png or .npz, received {output}.")
    if output.exists():
        raise FileExistsError(f"{output} exists already. Choose another --output.")
    _expect_writable(output.parent)
    vae = (
        serving.load(model)
        if model and model.is_dir() and not (model / "config.json").is_file()
        else open_vae(_find(model)[0])
    )
    if output.suffix == ".npz":
        np.savez_compressed(output, x=vae.generate(num_examples, seed=seed))
    else:
        columns = min(10, num_examples)
        plots.samples(vae, num_rows=-(-num_examples // columns), num_columns=columns, seed=seed).savefig(
            output, dpi=150
        )
    console.print(f"Wrote {output}")


def export(model: Path | None, name: str | None, saved_models: Path, **numbers: int) -> None:
    """Export a model as the next version under `saved_models/name`."""
    path, options = _find(model)
    name = name or options.get("name", path.parent.name)
    version = open_vae(path).export(saved_models / name, **numbers)
    console.print(
        f"Wrote {_relative(version)}\nServe it: docker run -p 8501:8501 -e MODEL_NAME={name} "
        f'-v "{version.parent}:/models/{name}" tensorflow/serving'
    )


def plot(model: Path | None, output: Path | None, seed: int) -> None:
    """Draw all pictures of a model."""
    path, options = _find(model)
    vae = open_vae(path)
    splits = datasets.load(options["dataset"], likelihood=type(vae.decoder.layers[-1]).__name__)
    history = path.parent / "history.json"
    for picture in _draw(
        output or path.parent / "pictures",
        vae,
        splits,
        json.loads(history.read_text()) if history.is_file() else {},
        seed,
    ):
        console.print(f"Wrote {picture}")


def open_vae(path: Path) -> VAE:
    """Load a VAE from a `.keras` file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a `.keras` file, or holds another kind of model.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no model file {path}.")
    try:
        model = keras.models.load_model(path)
    except Exception as error:  # Keras raises whatever a broken file leads to
        raise ValueError(f"{path} is not a Keras model that can be loaded: {error}") from error
    if not isinstance(model, VAE):
        raise ValueError(f"{path} holds a {type(model).__name__}, not a tfp_vae.VAE.")
    return model


# helpers


def _find(model: Path | None) -> tuple[Path, dict]:
    """Give the `.keras` file and the options of a run folder, a `.keras` file, or the newest run."""
    if model is None:
        runs = sorted(RUNS.glob("*/config.json"), key=lambda path: path.stat().st_mtime)
        if not runs:
            raise FileNotFoundError(f"There is no run under {RUNS}/. Train one with: {_program('tfp-vae')} train")
        model = runs[-1].parent
    if model.suffix == ".keras":
        config = model.parent / "config.json"
        return model, json.loads(config.read_text()) if config.is_file() else {"dataset": "digits", "name": model.stem}
    return model / "model.keras", _read_config(model)


def _read_config(run: Path) -> dict:
    path = run / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{run} is not a run folder: there is no {path}.")
    return json.loads(path.read_text())


def _likelihood(options: dict) -> str | None:
    if options["likelihood"] == "auto":
        return None
    _member("likelihood", options["likelihood"], layers)
    return options["likelihood"]


def _member(option: str, name: str, module):
    """Find a member of a module by name, for an option."""
    if name not in module.__all__ or not hasattr(getattr(module, name), "params_size"):
        known = [member for member in module.__all__ if hasattr(getattr(module, member), "params_size")]
        raise ValueError(f"--{option} must be one of {', '.join(known)}; received {name!r}.")
    return getattr(module, name)


def _next_run(name: str) -> Path:
    number = 1
    while (RUNS / f"{name}-{number}").exists():
        number += 1
    return RUNS / f"{name}-{number}"


def _largest_divisor(number: int, limit: int) -> int:
    return max(divisor for divisor in range(1, limit + 1) if number % divisor == 0)


def _expect_writable(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"The folder {folder} cannot be written.")


def _save(run: Path, vae: VAE, history: dict) -> None:
    """Write history, then model: a model on disk always has its whole history beside it."""
    _write_json(run / "history.json", history)
    aside = run / "model.aside.keras"
    vae.save(aside)
    os.replace(aside, run / "model.keras")


def _write_json(path: Path, content: dict) -> None:
    aside = path.with_suffix(".aside")
    aside.write_text(json.dumps(content, indent=2, default=str) + "\n")
    os.replace(aside, path)


def _evaluate(vae: VAE, splits: datasets.Splits, num_samples: int, batch_size: int, seed: int) -> dict:
    return {
        "dataset": splits.name,
        **evaluation.evaluate(
            vae,
            splits.test,
            num_samples=num_samples,
            batch_size=batch_size,
            seed=seed,
            verbose=1 if console.is_terminal else 0,
        ),
    }


def _draw(folder: Path, vae: VAE, splits: datasets.Splits, history: dict, seed: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        "reconstructions": plots.reconstructions(vae, splits.test),
        "samples": plots.samples(vae, seed=seed),
        "latent_traversal": plots.latent_traversal(vae, splits.test),
    }
    if history:
        pictures["learning_curves"] = plots.learning_curves(history)
    for name, figure in pictures.items():
        figure.savefig(folder / f"{name}.png", dpi=150)
    return [folder / f"{name}.png" for name in pictures]


def _table(metrics: dict, title: str) -> rich.table.Table:
    table = rich.table.Table(title=title)
    table.add_column("quantity")
    table.add_column("value", justify="right")
    kind = "analytic" if metrics["kl_is_analytic"] else "Monte Carlo"
    rows = {
        "-ELBO (nats)": f"{metrics['negative_elbo']:.3f}",
        "log-likelihood (nats)": f"{metrics['log_likelihood']:.3f}",
        f"KL, {kind} (nats)": f"{metrics['kl']:.3f}",
        f"NLL, {metrics['num_samples']} samples (nats)": f"{metrics['nll']:.3f}",
        "active units": f"{metrics['active_units']} of {metrics['latent_units']}",
    }
    if "seconds" in metrics:
        rows["training seconds"] = f"{metrics['seconds']:.1f}"
        rows["images per second"] = f"{metrics['images_per_second']:,.0f}"
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
