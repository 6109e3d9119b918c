"""Training in stages: however often it is interrupted, it ends in the same bits.

The draws of z follow the optimizer's step, and the batches of `Splits.batches` the number of the epoch. So a `.keras`
file, which holds the weights and the optimizer, is all that a later call needs. `keras.callbacks.BackupAndRestore` is
no way to do this here: it finds out where to go on when `fit` has got its batches already.
"""

import functools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

import tfp_vae
from tfp_vae import evaluation
from tfp_vae.evaluation.errors import Estimate, mean_of


def fit(
    vae: tfp_vae.VAE,
    splits: tfp_vae.datasets.Splits,
    folder: Path,
    options: dict,
    judge: Callable[[tfp_vae.VAE], dict[str, float]],
    *,
    hours: float = math.inf,
) -> tuple[tfp_vae.VAE, list[dict[str, float]]]:
    """Train to the end, or until the hours are over; go on where the folder's last stage ended.

    Args:
        vae: a VAE as it is before its first step, compiled.
        splits: the data, in training drawn anew in each epoch.
        folder: of `model.keras`, `options.json` and `curve.json`.
        options: what the folder's run depends on: `epochs`, `batch_size`, `every` (epochs of a
            stage), `seed`, and others.
        judge: called after each stage; its numbers are a row of the curve.
        hours: after which no further stage begins.

    Returns: the VAE, and the rows of the curve: `epoch`, `seconds` of training, what `judge` said.

    Raises:
        ValueError: if the folder's run has had other options.
    """
    epochs, every, batch_size = (options[name] for name in ("epochs", "every", "batch_size"))
    end, steps = time.time() + 3600 * hours, splits.steps_per_epoch(batch_size)
    vae, curve = _begun(vae, folder, options, steps)
    while (done := int(vae.optimizer.iterations) // steps) < epochs:
        start, until = time.perf_counter(), min(done + every, epochs)
        vae.fit(
            splits.batches(batch_size, seed=options["seed"], first_epoch=done, epochs=until),
            steps_per_epoch=steps,
            initial_epoch=done,
            epochs=until,
            verbose=0,
        )
        seconds = time.perf_counter() - start + (curve[-1]["seconds"] if curve else 0.0)
        curve.append({"epoch": until, "seconds": seconds, **judge(vae)})
        print("  ".join(f"{name} {value:.2f}" for name, value in curve[-1].items()), flush=True)
        write(folder / "curve.json", curve)
        vae.save(folder / "next.keras")
        (folder / "next.keras").replace(folder / "model.keras")
        if time.time() > end:
            break
    return vae, curve


def _begun(vae: tfp_vae.VAE, folder: Path, options: dict, steps: int) -> tuple:
    """Return the VAE after the stages that a folder holds already, and the rows of these."""
    folder.mkdir(parents=True, exist_ok=True)
    known = folder / "options.json"
    if known.is_file():
        _expect_same(folder, json.loads(known.read_text()), options)
    write(known, options)
    if not (folder / "model.keras").is_file():
        return vae, []
    vae = keras.models.load_model(folder / "model.keras")
    done = int(vae.optimizer.iterations) // steps
    # A row may be of a stage whose model was not saved any more.
    rows = json.loads((folder / "curve.json").read_text())
    return vae, [row for row in rows if row["epoch"] <= done]


def _expect_same(path: Path, known: dict, received: dict) -> None:
    if known != received:
        raise ValueError(
            f"{path} holds a run with other options: {known}, received {received}. Choose another "
            "--output, or the same options to go on."
        )


def judge_once(
    vae: tfp_vae.VAE, x: np.ndarray, folder: Path, curve: list[dict], num_samples: int
) -> dict[str, float]:
    """Return the numbers of a trained VAE beside the last row of its curve.

    They are in `results.json`, and are not computed again if that is there.
    """
    path = folder / "results.json"
    if not path.is_file():
        numbers = evaluation.evaluate(vae, x, num_samples=num_samples, batch_size=100)
        write(path, {**curve[-1], **numbers})
    results = json.loads(path.read_text())
    print(
        f"{folder}: NLL {results['nll']:.2f} +- {results['nll_error']:.2f}, "
        f"{results['active_units']} active units of {results['latent_units']}"
    )
    return results


def of_seeds(
    folder: Path, name: str, seeds: int, options: dict, make: Callable[..., dict]
) -> list[dict]:
    """Return the dict that `make(seed=...)` makes of each seed, each once."""
    return [
        once(folder / f"{name} {seed}.json", options, functools.partial(make, seed=seed))
        for seed in range(seeds)
    ]


def once(path: Path, options: dict, make: Callable[[], dict]) -> dict:
    """Return the dict that `make()` makes, from its file if there is one.

    Raises:
        ValueError: if the file is of other options.
    """
    if path.is_file():
        known = json.loads(path.read_text())
        _expect_same(path, known["options"], options)
        return known
    made = {"options": options, **make()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, made)
    print(path.stem, made["numbers"], flush=True)
    return made


def write(path: Path, content) -> None:
    """Write a json file, whole or not at all."""
    aside = path.with_suffix(".next")
    aside.write_text(json.dumps(content, indent=1) + "\n")
    aside.replace(path)


def summary(rows: list[dict[str, float]]) -> dict[str, Estimate]:
    """Return the mean of each number over the seeds, with its standard error."""
    return {name: mean_of(np.array([row[name] for row in rows])) for name in rows[0]}


def in_words(numbers: dict[str, Estimate]) -> str:
    """Return numbers and their standard errors in a line."""
    return "  ".join(
        f"{name} {value:.3f} +- {error:.3f}" for name, (value, error) in numbers.items()
    )


def draw(path: Path, curves: dict[str, list[dict[str, float]]], name: str, label: str) -> None:
    """Draw a number of the curves against the epoch."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for title, rows in curves.items():
        axes.plot([row["epoch"] for row in rows], [row[name] for row in rows], ".-", label=title)
    axes.set(xlabel="epochs", ylabel=label, xscale="log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=80)
