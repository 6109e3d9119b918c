"""Experiment trackers and TensorBoard: what follows the training of a run beside its own files."""

import abc
import dataclasses
import html
import importlib
import io
import textwrap
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import keras
import tensorflow as tf
from matplotlib.figure import Figure

from tfp_vae.checks import imported, one_of
from tfp_vae.cli.runs import Run, is_number


class Tracker(keras.callbacks.Callback, abc.ABC):
    """A run in an experiment tracker: its options, the metrics of each epoch, and its last numbers.

    The epochs are reported by the tracker's own Keras callback. Of its methods those for batches
    are not called, as they would take training out of its compiled loop. A run that is resumed goes
    on in the tracker, too; epochs that an interruption has lost are reported twice.

    Args:
        run: the run, whose folder keeps its name in the tracker, `tracker.json`.
    """

    library: ClassVar[str]

    def __init__(self, run: Run):
        super().__init__()
        self.run = run
        known = run.tracked()
        try:
            identity, self.own = self.begin(
                dataclasses.asdict(run.options), known.get(self.library)
            )
        except Exception as error:  # of a server, a database, or an account
            raise ConnectionError(
                f"The tracker {self.library} does not take the run: {str(error).strip()} Mend that, "
                "or leave --tracker out."
            ) from error
        run.write("tracker", {**known, self.library: identity})

    @abc.abstractmethod
    def begin(self, options: dict, identity: str | None) -> tuple[str, keras.callbacks.Callback]:
        """Begin a run, or go on with one; return its identity and the tracker's Keras callback."""

    @abc.abstractmethod
    def finish(self, numbers: dict[str, float], pictures: Path) -> None:
        """Report the last numbers and the folder of pictures, and end the run."""

    @abc.abstractmethod
    def interrupt(self, *, has_failed: bool) -> None:
        """Say that the run was interrupted, or that it has failed."""

    def end(self, metrics: dict) -> None:
        """Report what is known when the run has been judged."""
        numbers = {name: float(value) for name, value in metrics.items() if is_number(value)}
        self.finish(numbers, self.run.folder / "pictures")

    def set_model(self, model):
        super().set_model(model)
        self.own.set_model(model)

    def set_params(self, params):
        super().set_params(params)
        self.own.set_params(params)

    def on_train_begin(self, logs=None):
        self.own.on_train_begin(logs)

    def on_epoch_begin(self, epoch, logs=None):
        self.own.on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch, logs=None):
        self.own.on_epoch_end(epoch, logs)

    def on_train_end(self, logs=None):
        self.own.on_train_end(logs)


class MLflow(Tracker):
    """A run in the MLflow experiment that has the name of the data."""

    library = "mlflow"

    def begin(self, options, identity):
        self.mlflow = importlib.import_module("mlflow")
        self.mlflow.set_experiment(options["name"])
        self.is_resumed = identity is not None
        if self.is_resumed:
            self.mlflow.start_run(run_id=identity)
            self.mlflow.set_tag("epochs", options["epochs"])  # a parameter never changes
        else:
            self.mlflow.start_run(run_name=self.run.folder.name)
            self.mlflow.log_params(options)
        callbacks = importlib.import_module("mlflow.keras")
        return self.mlflow.active_run().info.run_id, callbacks.MlflowCallback()

    def on_train_begin(self, logs=None):
        if not self.is_resumed:  # the optimizer's configuration is a parameter, too
            super().on_train_begin(logs)

    def interrupt(self, *, has_failed):
        self.mlflow.end_run("FAILED" if has_failed else "KILLED")

    def finish(self, numbers, pictures):
        self.mlflow.log_metrics(numbers, step=self.run.num_epochs)
        if pictures.is_dir():
            self.mlflow.log_artifacts(str(pictures), "pictures")
        self.mlflow.end_run()


class WandB(Tracker):
    """A run in the project `tfp_vae` of Weights & Biases, in the group of the data's name."""

    library = "wandb"

    def begin(self, options, identity):
        wandb = importlib.import_module("wandb")
        self.wandb_run = wandb.init(
            project="tfp_vae",
            group=options["name"],
            name=self.run.folder.name,
            config=options,
            id=identity,
            resume="allow",
            dir=str(self.run.folder),
        )
        self.image: Callable[[str], Any] = wandb.Image
        self.html: Callable[[str], Any] = wandb.Html
        callbacks = importlib.import_module("wandb.integration.keras")
        return self.wandb_run.id, callbacks.WandbMetricsLogger()

    def interrupt(self, *, has_failed):
        self.wandb_run.finish(exit_code=1 if has_failed else 130)

    def finish(self, numbers, pictures):
        self.wandb_run.summary.update(numbers)
        shown = {path.stem: self.image(str(path)) for path in sorted(pictures.glob("*.png"))}
        for path in sorted(pictures.glob("*.txt")):
            shown[path.stem] = self.html(f"<pre>{html.escape(path.read_text())}</pre>")
        if shown:
            self.wandb_run.log(shown)
        self.wandb_run.finish()


TRACKERS: dict[str, type[Tracker]] = {one.library: one for one in (MLflow, WandB)}


def tracker(name: str) -> type[Tracker]:
    """Return the tracker of a name.

    Raises:
        ValueError: if there is none.
        ImportError: if its library is not installed.
    """
    imported(one_of(tuple(TRACKERS), name, "--tracker"), f"--tracker {name}", name)
    return TRACKERS[name]


class Pictures(keras.callbacks.Callback):
    """Show pictures of a run in TensorBoard, after the epochs 1, 2, 5, 10, 20, 50 and so on.

    They are drawn when the epoch has been validated: of averaged weights, if these are validated.

    Args:
        folder: of the event files.
        pictures: functions that draw figures of Matplotlib, or write texts, by name. If one fails,
            the others are still drawn.
    """

    def __init__(self, folder: Path, pictures: Mapping[str, Callable]):
        super().__init__()
        self.folder = folder
        self.pictures = pictures
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_test_end(self, logs=None):
        if not _is_round(self.epoch + 1):
            return
        with tf.summary.create_file_writer(str(self.folder)).as_default(step=self.epoch):
            for name, draw in self.pictures.items():
                try:
                    _show(name, draw())
                except Exception as error:
                    warnings.warn(f"No picture {name} for TensorBoard: {error}", stacklevel=2)


def _show(name: str, picture: Figure | str) -> None:
    """Write a picture, or a text that keeps its lines, to the event files."""
    if isinstance(picture, str):
        tf.summary.text(name, textwrap.indent(picture, " " * 4, lambda line: True))
        return
    content = io.BytesIO()
    picture.savefig(content, dpi=100, format="png")
    tf.summary.image(name, tf.io.decode_png(content.getvalue(), 3)[tf.newaxis])


def _is_round(epoch: int) -> bool:
    """Return whether a number is 1, 2 or 5, followed by zeros.

    >>> [epoch for epoch in range(1, 101) if _is_round(epoch)]
    [1, 2, 5, 10, 20, 50, 100]
    """
    return str(epoch).rstrip("0") in ("1", "2", "5")
