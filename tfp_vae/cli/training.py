"""Train a run to its end, also after interruptions."""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import rich.table
import tensorflow as tf
from rich.markup import escape

from tfp_vae import datasets, tables
from tfp_vae.batch import num_examples
from tfp_vae.cli.build import build, check_numbers, learning_rate, with_network
from tfp_vae.cli.failures import in_words
from tfp_vae.cli.finish import EVALUATION_BATCH_SIZE, finish
from tfp_vae.cli.names import parse_likelihood
from tfp_vae.cli.progress import EpochLines, EpochProgress
from tfp_vae.cli.report import (
    console,
    errors,
    expect_writable,
    load_data,
    pictures_of,
    program,
    quote,
    read_data,
)
from tfp_vae.cli.runs import CtrlC, Options, Patience, Recorder, Run, open_vae, read_options
from tfp_vae.cli.team import Team
from tfp_vae.cli.trackers import Pictures, Tracker, tracker
from tfp_vae.file_sizes import memory, size_in_words, variables_of_at_most
from tfp_vae.not_finite import TrainingDiverged
from tfp_vae.vae import VAE
from tfp_vae.workers import Workers

# Options that `train` may have replaced by what suits the data.
FITTED_TO_DATA = ("network", "hidden_size", "batch_size")


def train(folder: Path | None, options: dict, workers: Workers | None = None) -> None:
    """Train in a new run folder, alone or together with other workers.

    Workers that are started again with the same command go on with their run.
    """
    if workers is not None and folder is None:
        raise ValueError("Several workers train one run: name its folder by --run.")
    team = Team.of(workers)
    if workers is not None and team.agree(
        folder is not None and (folder / "config.json").is_file()
    ):
        return _go_on(team, Path(str(folder)), options)
    if team.is_chief and folder and folder.exists():
        raise FileExistsError(
            f"The run folder {folder} exists already. Choose another --run, or go on with --resume "
            f"{folder}."
        )
    splits = read_data(
        options["dataset"],
        condition=options["condition"],
        likelihood=_chosen_likelihood(options),
        missing=options["missing"],
        tokens=options["tokens"],
    )
    chosen = _suited(Options(**options, name=splits.name, data=splits.note), splits, team)
    with team.scope(), variables_of_at_most(memory(), _too_large):
        vae = build(splits, chosen)
    for part in (splits.validation, splits.test, *([] if splits.draw else [splits.train])):
        vae.check_data(part)
    if team.is_chief:
        expect_writable(Path(chosen.saved_models))
        if chosen.tracker:
            tracker(chosen.tracker)  # a name and a library that are there
    run = Run.create(folder, chosen, writes=team.is_chief)
    _say_what_data_are(splits, chosen.batch_size)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(run.hold())
            run.save(vae, {})
            followers = _followers(run, team)
        # For example, the disk is full. Remove the run: it blocks its name.
        except Exception:
            held.close()
            if run.writes:
                shutil.rmtree(run.folder, ignore_errors=True)
            raise
        _fit(run, splits, vae, team, followers)


def _suited(options: Options, splits: datasets.Splits, team: Team) -> Options:
    """Return the options with a network and a batch size that suit the data.

    Raises:
        ValueError: if an option that was chosen does not.
    """
    options = with_network(splits, options)
    if options.missing and splits.draw is not None:
        raise ValueError(
            "8-bit pixels have no missing values. With --missing give x as floats, NaN where one is "
            "missing."
        )
    if options.batch_size == Options.batch_size > num_examples(splits.train):
        options = dataclasses.replace(options, batch_size=num_examples(splits.train))
    if options.batch_size < team.size:
        raise ValueError(
            f"--batch-size {options.batch_size} is split over {team.size} workers: give at least "
            "one example to each."
        )
    return options


def _chosen_likelihood(options: dict) -> str | dict | None:
    """Return the likelihood as `datasets.load` takes it, of a table for each column to take."""
    likelihood = parse_likelihood(options["likelihood"])[0]
    if not options["without"]:
        return likelihood
    if likelihood is not None:
        raise ValueError(
            "--without goes with --likelihood auto: Joint(...) takes only the columns that it names. "
            f"Leave one of them out, received --likelihood {options['likelihood']!r}."
        )
    return tables.files.columns_without(options["dataset"], options["without"])


def _followers(run: Run, team: Team) -> list[Tracker]:
    """Begin what the chief reports the run to."""
    return [tracker(run.options.tracker)(run)] if run.options.tracker and team.is_chief else []


def _go_on(team: Team, folder: Path, options: dict) -> None:
    """Go on with the run of workers that have been started again."""
    saved = read_options(folder / "config.json")
    kept = {name: value for name, value in options.items() if name not in FITTED_TO_DATA}
    if other := sorted(name for name, value in kept.items() if getattr(saved, name) != value):
        raise ValueError(
            f"The run {folder} exists already, with other options: {', '.join(other)}. Give those "
            "that it began with to go on with it, or choose another --run."
        )
    if team.agree((folder / "metrics.json").is_file()):
        console.print(f"The run {folder} is finished.")
    else:
        _resume(team, folder, {})


def _too_large(made: str) -> str:
    return (
        f"Weights of {made} or more, with the optimizer's, do not fit the {size_in_words(memory())} of "
        "memory of this machine. Choose a smaller --hidden-size or --latent-size."
    )


def _say_what_data_are(splits: datasets.Splits, batch_size: int) -> None:
    console.print(
        f"{splits.name}: {num_examples(splits.train):,} training examples, in batches of "
        f"{batch_size}."
    )
    if splits.table is not None:
        console.print(_columns(splits.name, splits.table))
        console.print(
            "Fewer columns: --without 'NAME,NAME'. Other likelihoods: --likelihood "
            "\"Joint(NAME='auto', ...)\" (tfp-vae list likelihoods)."
        )
        return
    console.print(
        f"Likelihood: {splits.note}. Another one: --likelihood (tfp-vae list likelihoods)."
    )


def _columns(name: str, columns: tables.Table) -> rich.table.Table:
    """Show the columns of a table, and the likelihood of each."""
    shown = rich.table.Table(title=f"The columns of {name}")
    for title in ("column", "type", "likelihood", "values"):
        shown.add_column(title, no_wrap=title == "likelihood")
    for row in columns.describe():
        shown.add_row(*row)
    return shown


def read_config(path: Path) -> dict:
    """Return the options of another run, to train with them again."""
    options = dataclasses.asdict(read_options(path))
    return {name: value for name, value in options.items() if name not in ("name", "data")}


def read_preset(name: str) -> dict:
    """Return options that ship with the package.

    Raises:
        ValueError: if none ship under this name.
    """
    known = {path.stem: path for path in sorted((Path(__file__).parent / "presets").glob("*.json"))}
    if name not in known:
        raise ValueError(f"There is no preset {name!r}. Expected one of: {', '.join(known)}.")
    return read_config(known[name])


def resume(folder: Path, workers: Workers | None = None, **given: Any) -> None:
    """Go on with a run after its last whole epoch, as if it had never been interrupted.

    With other `epochs` or `patience`, training goes on up to these, even in a finished run: the
    learning rate then follows the cosine that ends there.
    """
    _resume(Team.of(workers), folder, given)


def _resume(team: Team, folder: Path, given: dict) -> None:
    with Run.open(folder, writes=team.is_chief).hold():
        # As the process that held it before has left it.
        run = Run.open(folder, writes=team.is_chief)
        options = dataclasses.replace(run.options, **given)
        if not given and (folder / "metrics.json").is_file():
            raise ValueError(
                f"The run {folder} is finished: it has its {run.num_epochs} epochs and its "
                f"metrics.json. Train longer with --resume {quote(folder)} --epochs N, judge it "
                f"with {program('tfp-vae')} evaluate, and draw or export what is missing with plot "
                "and export."
            )
        with team.scope():
            vae = open_vae(run.last if run.last.is_file() else run.model)
        splits = load_data(vae, run, folder, None)
        steps = splits.steps_per_epoch(run.options.batch_size)
        if given:  # the history may be ahead of the model
            done = _num_epochs(vae, steps)
            _check_that_it_can_go_on(run, options, done)
        team.agree(0)  # all workers have read what the chief now changes
        if given:
            run = run.goes_on(options)
        run.go_on_from_last()
        # The saved schedule ends with the number of epochs that were planned when the model was
        # saved.
        vae.optimizer.learning_rate = learning_rate(run.options, steps)
        if given:
            console.print(
                f"{folder}: on from epoch {done + 1} to {run.options.epochs}. The learning "
                "rate follows the cosine over all of these: "
                f"{float(vae.optimizer.learning_rate):.2g} now, 0 at the end."
            )
        followers: list[Tracker] = []
        try:
            followers = _followers(run, team)
        except (ConnectionError, ImportError) as error:  # nothing keeps a run from going on
            errors.print(f"[bold yellow]without the tracker:[/] {escape(in_words(error))}")
        _fit(run, splits, vae, team, followers)


def _check_that_it_can_go_on(run: Run, options: Options, done: int) -> None:
    """Raise a ValueError if the new options leave no epoch to train after those that are done."""
    recorder = Recorder(run, done)
    if options.epochs <= done:
        raise ValueError(
            f"The run {run.folder} has had {done} epochs already: --epochs must be more than that."
        )
    if options.patience and not run.options.patience:
        raise ValueError(
            f"The run {run.folder} began without --patience, so its best model was not kept. Leave "
            f"out --patience, or train anew with --config {quote(run.folder / 'config.json')} "
            f"--patience {options.patience}."
        )
    patience = Patience(recorder, options.patience or options.epochs)
    if options.patience and patience.best_epoch and patience.is_over():
        raise ValueError(
            f"The run {run.folder} was stopped after {done} epochs, as its val_elbo was best after "
            f"{patience.best_epoch}. To train longer give it more --patience too: over "
            f"{done - patience.best_epoch}."
        )
    check_numbers(options)


def _num_epochs(vae: VAE, steps: int) -> int:
    """Return the number of epochs, of so many steps, that a model was trained for."""
    return int(tf.convert_to_tensor(vae.optimizer.iterations)) // steps


def _fit(
    run: Run, splits: datasets.Splits, vae: VAE, team: Team, followers: Sequence[Tracker]
) -> None:
    """Train from the epoch that the optimizer has reached; then the chief evaluates, draws pictures,
    and exports.
    """
    options, steps = run.options, splits.steps_per_epoch(run.options.batch_size)
    first_epoch = _num_epochs(vae, steps)
    recorder = Recorder(run, first_epoch)
    patience = Patience(recorder, options.patience or options.epochs)
    if first_epoch < options.epochs and not patience.is_over():
        progress, ctrl_c = EpochProgress(first_epoch, options.epochs), CtrlC()
        callbacks = [recorder, progress, ctrl_c, *([patience] if options.patience else [])]
        callbacks += [*followers, *_chosen_callbacks(run, splits, vae, team)]
        batches = splits.batches(
            options.batch_size, seed=options.seed, first_epoch=first_epoch, epochs=options.epochs
        )
        with (
            _breaking_off(recorder, followers),
            ctrl_c,
            progress.bar if console.is_terminal else contextlib.nullcontext(),
        ):
            vae.fit(
                batches,
                steps_per_epoch=steps,
                initial_epoch=first_epoch,
                epochs=options.epochs,
                validation_data=(splits.validation,),
                validation_batch_size=EVALUATION_BATCH_SIZE,
                callbacks=callbacks,
                verbose=0,
            )
    if team.is_chief:
        finish(run, splits, _trained(run, vae, team, patience), recorder.history, followers)


def _chosen_callbacks(
    run: Run, splits: datasets.Splits, vae: VAE, team: Team
) -> list[keras.callbacks.Callback]:
    """Make the callbacks that the run's options ask for, and the lines of a log."""
    callbacks: list[keras.callbacks.Callback] = []
    if run.options.tensorboard and team.is_chief:
        events = run.folder / "tensorboard"
        pictures = pictures_of(vae, splits, {}, run.options.seed)
        callbacks += [
            keras.callbacks.TensorBoard(events),
            Pictures(events / "pictures", pictures),
        ]
    if run.options.ema:  # after those that shall see the averages at the end of a validation
        callbacks.append(keras.callbacks.SwapEMAWeights())
    if not console.is_terminal:
        callbacks.append(EpochLines(run.options.epochs))
    return callbacks


@contextlib.contextmanager
def _breaking_off(recorder: Recorder, followers: Sequence[Tracker]) -> Iterator[None]:
    """When training breaks off, tell the trackers, and the user what is kept and how to go on."""
    folder = recorder.run.folder
    try:
        yield
    except TrainingDiverged as error:
        _break_off(followers, has_failed=True)
        raise ValueError(
            f"{error} {folder} keeps the model of epoch {recorder.num_saved}; the option is "
            "--learning-rate."
        ) from error
    except KeyboardInterrupt:
        _break_off(followers, has_failed=False)
        console.print(
            f"\nInterrupted after {recorder.num_saved} of {recorder.run.options.epochs} epochs; the "
            f"run is usable as it is. Go on with: {program('tfp-vae')} train --resume "
            f"{quote(folder)}"
        )
        raise SystemExit(130) from None
    except Exception:
        _break_off(followers, has_failed=True)
        raise


def _trained(run: Run, vae: VAE, team: Team, patience: Patience) -> VAE:
    """Return the model that training has made: the best one, the average, or the last one."""
    if run.options.patience and run.best.is_file():
        return _best_of(run, patience)
    if run.options.ema:
        vae.optimizer.finalize_variable_values(vae.trainable_variables)
        run.keep(vae, run.best)
        run.end_with_best()
        return open_vae(run.model)
    return vae if team.size == 1 else open_vae(run.model)  # a model of this process alone


def _break_off(followers: Sequence[Tracker], *, has_failed: bool) -> None:
    """Tell the trackers, if they can be reached."""
    for follower in followers:
        with contextlib.suppress(Exception):
            follower.interrupt(has_failed=has_failed)


def _best_of(run: Run, patience: Patience) -> VAE:
    """Return the model of the best epoch, and make it the run's."""
    if patience.is_over():
        console.print(f"Stopped: the last {patience.epochs} epochs were no better.")
    console.print(
        f"The model of epoch {patience.best_epoch}, whose val_elbo is the best, is the run's."
    )
    run.end_with_best()
    return open_vae(run.model)
