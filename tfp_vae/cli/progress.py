"""The progress of a training in the terminal, or in a log."""

import keras
import rich.progress

from tfp_vae.cli.report import console


class EpochLines(keras.callbacks.Callback):
    """Progress as one line for each epoch, for logs."""

    def __init__(self, epochs: int):
        super().__init__()
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        shown = ("loss", "elbo", "log_likelihood", "kl", "val_elbo")
        numbers = "  ".join(f"{name} {logs[name]:.2f}" for name in shown if name in logs)
        console.print(f"epoch {epoch + 1}/{self.epochs}  {numbers}")


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
