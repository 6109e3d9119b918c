"""What follows the last epoch of a run: its numbers, pictures and SavedModel, and what to do next."""

import contextlib
import os
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.markup import escape

from tfp_vae import datasets
from tfp_vae.cli.failures import in_words
from tfp_vae.cli.report import (
    busy,
    card,
    console,
    draw,
    errors,
    judge,
    program,
    quote,
    relative,
    show,
)
from tfp_vae.cli.runs import Run
from tfp_vae.cli.trackers import Tracker
from tfp_vae.vae import VAE

# Number of examples held in memory at once when a run is evaluated.
EVALUATION_BATCH_SIZE = 500


def finish(
    run: Run,
    splits: datasets.Splits,
    vae: VAE,
    history: dict,
    followers: Sequence[Tracker],
) -> None:
    """Evaluate, draw pictures, and export; if one step fails, its error is printed and the others
    still run.
    """
    folder = quote(run.folder)
    saved_models = Path(run.options.saved_models)
    failures: list[str] = []
    metrics: dict = {}
    with _going_on(failures, "numbers", f"train --resume {folder}"):
        metrics = judge(
            vae, splits, run.options.num_samples, EVALUATION_BATCH_SIZE, run.options.seed
        )
        metrics |= _of_training(run, splits, history)
        run.write("metrics", metrics)  # it says that the training is finished
        show(metrics, splits)
    with _going_on(failures, "pictures", f"plot {folder}"), busy("Drawing pictures"):
        draw(run.folder / "pictures", vae, splits, history, run.options.seed)
    _report(run, metrics, followers)
    remedy = f"export {folder} --saved-models {quote(saved_models)}"
    with _going_on(failures, "SavedModel", remedy), busy("Exporting"):
        version = relative(vae.export(saved_models / splits.name, card=card(run, metrics)))
    if failures:
        console.print(f"Run: {run.folder}, without {' and '.join(failures)}.")
        raise SystemExit(1)
    console.print(f"Run: {run.folder} (metrics.json, pictures/)   SavedModel: {version}\n\nNext:")
    for command, what in _next_commands(run, splits, version):
        console.print(f"  {command}    # {what}")


def _of_training(run: Run, splits: datasets.Splits, history: dict) -> dict:
    """Return what the run's `metrics.json` says about its training."""
    seconds = history["seconds"]
    num_examples = splits.steps_per_epoch(run.options.batch_size) * run.options.batch_size
    return {
        "epochs": len(seconds),
        "seconds": sum(seconds),
        # The median leaves out the epochs that compile: the first, and the first after each resume.
        "examples_per_second": num_examples / statistics.median(seconds),
        "data": splits.note,
    }


def _report(run: Run, metrics: dict, followers: Sequence[Tracker]) -> None:
    """Tell the trackers the last numbers."""
    for follower in followers:
        try:
            follower.end(metrics)
        except Exception as error:  # of a server or a database
            errors.print(
                f"[bold red]error:[/] {run.options.tracker} did not get the last numbers: "
                f"{escape(in_words(error))} They are in {escape(quote(run.folder))}, metrics.json."
            )


def _next_commands(run: Run, splits: datasets.Splits, version: Path) -> Iterator[tuple[str, str]]:
    """Yield commands for a finished run, and what each is for."""
    tfp_vae, folder = program("tfp-vae"), quote(run.folder)
    if splits.vocabulary:
        yield f"{tfp_vae} sample {folder} --draws", "new texts"
    elif splits.table is not None:
        yield f"{tfp_vae} sample {folder} --draws --output new.csv", "new rows of the table"
        data = quote(Path(run.options.dataset))
        yield f"{tfp_vae} score {data} {folder}", "how probable each row is"
    elif splits.is_table:
        yield f"{tfp_vae} sample {folder} --draws --output new.npz", "new rows of the table"
    else:
        yield f"{tfp_vae} sample {folder}", "a picture of new examples"
    yield f"{tfp_vae} report {folder}", "all about it as one page"
    yield f"{tfp_vae} explore {folder}", "turn its latents in the browser"
    yield f"{tfp_vae} evaluate {folder} --num-samples 5000", "a tighter log-likelihood"
    show = f"{program('saved_model_cli')} show --dir {quote(version)} --all"
    yield show, "what TensorFlow Serving will offer"


@contextlib.contextmanager
def _going_on(failures: list[str], what: str, remedy: str) -> Iterator[None]:
    """Go on after an error; print it in one line with the command to try again."""
    try:
        yield
    except Exception as error:  # whatever a library raises: what was made before stays, and so does what can still be
        if os.environ.get("TFP_VAE_TRACEBACK"):
            raise
        failures.append(what)
        errors.print(
            f"[bold red]error:[/] no {what}: {escape(in_words(error))} Try again with: "
            f"{program('tfp-vae')} {escape(remedy)}"
        )
