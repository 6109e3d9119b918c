"""The folder of a run: options, history and model; each file is complete at any moment."""

import contextlib
import dataclasses
import json
import math
import os
import signal
import time
import typing
from collections.abc import Iterator
from pathlib import Path

import keras

from tfp_vae.file_sizes import load_keras, read_text
from tfp_vae.serving.publish import lock_folder
from tfp_vae.vae import VAE
from tfp_vae_console import Options

RUNS = Path("runs")
# Least time in seconds between two saves of a run (Keras needs 0.05 seconds for one). A killed
# process loses at most this much, and the unfinished epoch.
SECONDS_BETWEEN_SAVINGS = 1.0
# Name of a file while it is written: the process that writes it, and its final name.
ASIDE = ".{}-aside-{}"


def read_options(path: Path) -> Options:
    """Read the options of a run from its `config.json`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if `Run.create` cannot have written it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    wrong = f"{path} does not hold the options of a run"
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise ValueError(f"{wrong}: {error}.") from error
    known = {field.name for field in dataclasses.fields(Options)}
    if not isinstance(content, dict) or "name" not in content:
        raise ValueError(f"{wrong}, a dict of them and the name of the data: {str(content)[:50]}.")
    if unknown := sorted(content.keys() - known):
        raise ValueError(
            f"{path} has options that this version does not know: {', '.join(unknown)}. Take them "
            "out, or use the version of tfp_vae that wrote them."
        )
    for field in dataclasses.fields(Options):
        kind = (*typing.get_args(field.type), field.type)[0]  # what stands before typer's notes
        value = content.get(field.name, field.default)
        whole = kind is float and isinstance(value, int)
        if not (whole or isinstance(value, kind)):
            name = getattr(kind, "__name__", kind)
            raise ValueError(f"{path}: {field.name} must be of type {name}, received {value!r}.")
    return Options(**content)


@dataclasses.dataclass(frozen=True)
class Run:
    """A folder with `config.json`, `history.json`, `model.keras`, and after the last epoch
    `metrics.json`.

    A run with patience, or with an average of its weights, has a second model. During training,
    `model.keras` is the model of the last epoch and `best.keras` the best one; at the end,
    `model.keras` is the best one, or that of the average, and `last.keras` that of the last epoch,
    from which training can go on.
    """

    folder: Path
    options: Options
    # Of several workers, only the chief writes.
    writes: bool = True

    @classmethod
    def create(cls, folder: Path | None, options: Options, *, writes: bool = True) -> "Run":
        """Make a new folder; None takes the next number under `runs/`."""
        run = cls(folder or _next_folder(options.name), options, writes)
        if not writes:
            return run
        run.folder.mkdir(parents=True)
        try:
            run.write("config", dataclasses.asdict(options))
        except OSError:  # an empty folder would block the name
            run.folder.rmdir()
            raise
        return run

    @classmethod
    def open(cls, folder: Path, *, writes: bool = True) -> "Run":
        """Read a run's options.

        Raises:
            FileNotFoundError: if the folder holds no run.
            ValueError: if its `config.json` is not one that `create` has written.
        """
        path = folder / "config.json"
        if not path.is_file():
            raise FileNotFoundError(f"{folder} is not a run folder: there is no {path}.")
        return cls(folder, read_options(path), writes)

    @classmethod
    def newest(cls) -> "Run":
        """Open the run that was started last under `runs/`."""
        configs = sorted(RUNS.glob("*/config.json"), key=lambda path: path.stat().st_mtime)
        if not configs:
            raise FileNotFoundError(f"There is no run under {RUNS}/. Train one with: tfp-vae train")
        return cls.open(configs[-1].parent)

    @property
    def model(self) -> Path:
        """The `.keras` file."""
        return self.folder / "model.keras"

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other processes from training the run; the lock ends with the process.

        Raises:
            ValueError: if another process trains it.
        """
        if not self.writes:
            yield
            return
        lock = lock_folder(self.folder)
        holder = self.folder / "lock"
        if lock is None:
            process = holder.read_text().strip() if holder.is_file() else ""
            raise ValueError(
                f"The run {self.folder} is being trained by process {process or 'another one'}. "
                "Wait until it ends, or stop it first."
            )
        try:
            holder.write_text(f"{os.getpid()}\n")
            # Left over from a process that was killed.
            for leftover in self.folder.glob(ASIDE.format("*", "*.keras")):
                leftover.unlink()
            yield
        finally:
            holder.unlink(missing_ok=True)
            os.close(lock)

    def goes_on(self, options: Options) -> "Run":
        """Return the run with other options, unfinished."""
        run = dataclasses.replace(self, options=options)
        for name in ("metrics", "evaluation"):  # metrics of a model that will change
            if self.writes:
                (self.folder / f"{name}.json").unlink(missing_ok=True)
        started = (self.folder / "config.json").stat()
        path = run.write("config", dataclasses.asdict(options))
        os.utime(path, ns=(started.st_atime_ns, started.st_mtime_ns))  # when the run began
        return run

    def history(self) -> dict[str, list[float]]:
        """The metrics of each epoch, and the `seconds` of its training steps."""
        return self._read("history")

    def metrics(self) -> dict:
        """The metrics at the end of the run; empty before."""
        return self._read("metrics")

    def evaluation(self) -> dict:
        """The metrics of the last `tfp-vae evaluate`; empty if the model has been trained since."""
        written = [self.folder / f"{name}.json" for name in ("metrics", "evaluation")]
        if not all(path.is_file() for path in written):
            return {}
        metrics_at, evaluation_at = (path.stat().st_mtime for path in written)
        return self._read("evaluation") if evaluation_at >= metrics_at else {}

    def numbers(self) -> dict:
        """The metrics, and those of a later `tfp-vae evaluate`; empty before the end of the run."""
        metrics = self.metrics()
        return {**metrics, **self.evaluation()} if metrics else {}

    def tracked(self) -> dict:
        """The names that experiment trackers have for the run."""
        return self._read("tracker")

    @property
    def num_epochs(self) -> int:
        """The number of epochs that the run has finished."""
        return len(self.history().get("elbo", []))

    def _read(self, name: str) -> dict:
        path = self.folder / f"{name}.json"
        try:
            content = json.loads(read_text(path)) if path.is_file() else {}
            # The epochs of a history are lists.
            return {key: [*value] if name == "history" else value for key, value in content.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is damaged: {error}.") from error

    def save(self, vae: VAE, history: dict) -> None:
        """Write history, then model: a model on disk always has its whole history beside it."""
        self.write("history", history)
        self.keep(vae, self.model)

    @property
    def best(self) -> Path:
        """The `.keras` file of the epoch with the largest `val_elbo`, which a run with --patience
        keeps during training.
        """
        return self.folder / "best.keras"

    @property
    def last(self) -> Path:
        """The `.keras` file of the last epoch of a run with --patience or --ema at its end, to go on
        from.
        """
        return self.folder / "last.keras"

    def end_with_best(self) -> None:
        """Make the best model the run's."""
        os.replace(self.model, self.last)
        os.replace(self.best, self.model)

    def go_on_from_last(self) -> None:
        """Undo `end_with_best`, even if it was interrupted."""
        if self.writes and self.last.is_file():
            if self.model.is_file():
                os.replace(self.model, self.best)
            os.replace(self.last, self.model)

    def keep(self, vae: VAE, path: Path) -> None:
        """Write a model in one step."""
        if not self.writes:
            return
        with written_whole(path) as aside:
            vae.save(aside)

    def write(self, name: str, content: dict) -> Path:
        """Write a json file in one step.

        A number that is not finite, which json lacks, becomes null.
        """
        path = self.folder / f"{name}.json"
        if not self.writes:
            return path
        with written_whole(path) as aside:
            aside.write_text(
                json.dumps({key: _for_json(value) for key, value in content.items()}, indent=2)
                + "\n"
            )
        return path


class Recorder(keras.callbacks.Callback):
    """Save history and model of a run, at most once a second and after the last epoch."""

    def __init__(self, run: Run, first_epoch: int):
        super().__init__()
        self.run = run
        self.history = {name: values[:first_epoch] for name, values in run.history().items()}
        self.num_saved = first_epoch
        self.saved_at = time.monotonic()
        self.start = self.seconds = 0.0

    @property
    def num_epochs(self) -> int:
        """The number of epochs that the run has finished."""
        return len(self.history.get("elbo", []))

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_test_begin(self, logs=None):
        self.seconds = time.perf_counter() - self.start

    def on_epoch_end(self, epoch, logs=None):
        for name, value in {**logs, "seconds": self.seconds}.items():
            self.history.setdefault(name, []).append(float(value))
        # At the end Keras replaces the weights by their average, if there is one.
        is_last = epoch + 1 == self.params["epochs"]
        if is_last or time.monotonic() - self.saved_at >= SECONDS_BETWEEN_SAVINGS:
            self.save()

    def on_train_end(self, logs=None):
        self.save()

    def save(self) -> None:
        """Save the run as it is after the last epoch, unless that is done."""
        if self.num_saved < self.num_epochs:
            self.run.save(self.model, self.history)
            self.num_saved = self.num_epochs
            self.saved_at = time.monotonic()


class Patience(keras.callbacks.Callback):
    """Stop when `val_elbo` has not risen for some epochs, and keep the model of its largest value.

    It uses only the run's history, so a resumed run stops at the same epoch as an uninterrupted
    one.
    """

    def __init__(self, recorder: Recorder, epochs: int):
        super().__init__()
        self.recorder = recorder
        self.epochs = epochs

    def on_train_begin(self, logs=None):
        self._keep_best()  # which a killed process may have missed

    def on_epoch_end(self, epoch, logs=None):
        self._keep_best()
        if self.is_over():
            self.model.stop_training = True

    def is_over(self) -> bool:
        """Whether the last epochs have all been no better than the best one."""
        return self.best_epoch is not None and len(self._elbos()) - self.best_epoch >= self.epochs

    @property
    def best_epoch(self) -> int | None:
        """The first epoch of the largest `val_elbo`, counted from 1; None before the first."""
        elbos = self._elbos()
        return elbos.index(max(elbos)) + 1 if elbos else None

    def _elbos(self) -> list[float]:
        return [
            value if value is not None and math.isfinite(value) else -math.inf
            for value in self.recorder.history.get("val_elbo", [])
        ]

    def _keep_best(self) -> None:
        if self.best_epoch is not None and self.best_epoch == len(self._elbos()):
            self.recorder.save()  # so that the best model is never newer than the history
            self.recorder.run.keep(self.model, self.recorder.run.best)


class CtrlC(keras.callbacks.Callback):
    """Handle Ctrl-C in training: a KeyboardInterrupt that is lost in a destructor is raised again
    at the end of the epoch.
    """

    def __init__(self):
        super().__init__()
        self.pressed = False

    def __enter__(self):
        self.before = signal.getsignal(signal.SIGINT)
        # Not if the signal is ignored, as in background jobs of a shell.
        if self.before is signal.default_int_handler:
            signal.signal(signal.SIGINT, self.press)

    def __exit__(self, *exception):
        signal.signal(signal.SIGINT, self.before)

    def press(self, number, frame):
        self.pressed = True
        raise KeyboardInterrupt

    def on_epoch_end(self, epoch, logs=None):
        if self.pressed:
            raise KeyboardInterrupt


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, then move the result to its place in one step, unless
    writing failed.
    """
    aside = path.with_name(ASIDE.format(os.getpid(), path.name))
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def open_vae(path: Path) -> VAE:
    """Load a VAE from a `.keras` file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a `.keras` file, is damaged, or holds another kind of model.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no model file {path}.")
    model = load_keras(path)
    if not isinstance(model, VAE):
        raise ValueError(f"{path} holds a {type(model).__name__}, not a tfp_vae.VAE.")
    return model


def _next_folder(name: str) -> Path:
    number = 1
    while (RUNS / f"{name}-{number}").exists():
        number += 1
    return RUNS / f"{name}-{number}"


def is_number(value) -> bool:
    """Return whether a value of a file is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def _for_json(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value
