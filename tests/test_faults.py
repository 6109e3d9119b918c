"""Disks that fill up, folders that turn read-only, quotas, kills: earlier results stay, and nothing partial is left."""

import errno
import gc
import json
import os
import random
import resource
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import pytest

import tfp_vae
from tests.conftest import make_vae
from tests.test_cli import command, finish, invoke
from tests.test_concurrency import resident_bytes
from tests.test_tracked_model import MODEL
from tfp_vae import cli
from tfp_vae.cli import runs, training

SMALL = ["--hidden-size", 8, "--latent-size", 2, "--num-samples", 2, "--dataset", "rows.npz"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("rows.npz", np.random.default_rng(0).normal(size=(60, 6)))
    monkeypatch.setattr(runs, "SECONDS_BETWEEN_SAVINGS", 0.0)
    return tmp_path


def assert_one_line(code, err, *words):
    assert code == 2
    assert err.startswith("error: "), err
    assert len(err.strip().splitlines()) == 1, err
    assert any(word in err for word in words), err


def assert_whole(folder):
    """Each file that is there can be read, and none was left under a temporary name."""
    for path in folder.rglob("*"):
        assert "-aside-" not in path.name
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".keras":
            cli.open_vae(path)
        elif path.suffix == ".png":
            assert path.read_bytes().endswith(b"IEND\xaeB`\x82")
        elif path.suffix == ".npz":
            np.load(path).close()


FAULTS = {
    "disk full": (OSError(errno.ENOSPC, "No space left on device"), "The disk is full"),
    "read-only": (
        OSError(errno.EROFS, "Read-only file system", "run"),
        "run: Read-only file system.",
    ),
    "quota of files": (OSError(errno.EMFILE, "Too many open files"), "More files are open than"),
    "quota of bytes": (OSError(errno.EFBIG, "File too large"), "A file would become larger"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("moment", [1, 2, 3])
@pytest.mark.rows(4, 4)
def test_a_run_that_cannot_begin_is_removed(fault, moment, here, monkeypatch):
    """Config, history and model are written before the first step."""
    error, words = FAULTS[fault]
    with monkeypatch.context() as patch:
        break_write(patch, moment, error)
        code, _, err = invoke("train", *SMALL, "--epochs", 1, "--run", "run")
    assert_one_line(code, err, words)
    assert not (here / "run").exists()


def break_write(patch, moment, error):
    """Let the writing of a file fail for the nth time, and from then on."""
    replace, count = os.replace, iter(range(1, 1000))

    def fails(source, target):
        if next(count) >= moment:
            raise error
        replace(source, target)

    patch.setattr(runs.os, "replace", fails)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [4, 5, 6, 8, 9, 10])
@pytest.mark.rows(0, 1)
def test_a_disk_that_fills_up_in_training_takes_nothing_with_it(moment, here, monkeypatch):
    """In the first epoch or the second, in the metrics, in the first picture or the second."""
    monkeypatch.setattr(tfp_vae.VAE, "export", lambda vae, path, **kwargs: Path(path) / "1")
    with monkeypatch.context() as patch:
        break_write(patch, moment, FAULTS["disk full"][0])
        try:
            code, _, err = invoke("train", *SMALL, "--epochs", 2, "--run", "run")
        except SystemExit as error:  # a step after training failed, the others were made
            code = error.code
    assert code in (1, 2)
    assert code == 1 or "The disk is full" in err
    assert_whole(here / "run")
    if not (here / "run" / "metrics.json").is_file():
        assert invoke("train", "--resume", "run")[0] == 0
    assert invoke("plot", "run")[0] == 0
    assert len(json.loads((here / "run" / "history.json").read_text())["elbo"]) == 2
    assert_whole(here / "run")


def test_a_run_whose_first_step_fails_can_go_on(here, monkeypatch):
    monkeypatch.setattr(training, "finish", lambda *arguments: None)
    with monkeypatch.context() as patch:
        patch.setattr(tfp_vae.VAE, "fit", raise_out_of_memory)
        code, _, err = invoke("train", *SMALL, "--epochs", 1, "--run", "run")
    assert_one_line(code, err, "not enough memory")
    assert_whole(here / "run")
    assert invoke("train", "--resume", "run")[0] == 0
    assert len(json.loads((here / "run" / "history.json").read_text())["elbo"]) == 1


def raise_out_of_memory(*args, **kwargs):
    raise MemoryError("Unable to allocate 7.45 GiB for an array with shape (1000000000,)")


def test_networks_larger_than_the_memory_are_refused(here):
    before = resident_bytes()
    code, _, err = invoke("train", *SMALL, "--hidden-size", 2_000_000_000)
    assert_one_line(code, err, "of memory of this machine. Choose a smaller --hidden-size")
    assert resident_bytes() - before < 2**28
    assert not (here / "runs").exists()


@contextmanager
def limit(kind, number):
    """Let the system allow this process less."""
    soft, hard = resource.getrlimit(kind)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(kind, (number, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_files_that_may_not_become_large_are_not_left_in_part(here):
    """By the system itself, not by an error of ours: the model is larger than 10,000 bytes."""
    with limit(resource.RLIMIT_FSIZE, 10_000):
        code, _, err = invoke("train", *SMALL, "--epochs", 1, "--run", "run")
        assert_one_line(code, err, "A file would become larger", "File too large")
        assert not (here / "run").exists()
        version = here / "saved_models" / "vae"
        with pytest.raises(Exception, match=r"."):  # of Python or of TensorFlow
            make_vae((3,), 2, tfp_vae.layers.IndependentNormal).export(version)
    assert [*version.iterdir()] == []
    assert [path.name for path in (here / "saved_models").iterdir()] == ["vae"]


def test_a_quota_of_open_files_is_told(here):
    gc.collect()
    first_free = os.dup(0)
    os.close(first_free)
    with limit(resource.RLIMIT_NOFILE, first_free):
        code, _, err = invoke("train", *SMALL, "--epochs", 1, "--run", "run")
    assert_one_line(code, err, "More files are open", "Too many open files")
    assert not (here / "run").exists()


NUMBERS = ("negative_elbo", "log_likelihood", "kl", "nll", "epochs")


@pytest.mark.slow
@pytest.mark.xla
def test_kills_at_random_moments_change_no_digit(here, full):
    """In steps, in writing, in the metrics, the pictures and the export; SIGKILL leaves no time to
    clean up.
    """
    options = [*SMALL, "--epochs", 40, "--batch-size", 12]
    chance = random.Random(0)
    folders = [here / "run-0"]
    for _ in range(30 if full else 3):
        folder = folders[-1]
        if (folder / "metrics.json").is_file():
            folder = here / f"run-{len(folders)}"
            folders.append(folder)
        kill(command(*line_of(folder, options), cwd=here), folder, chance.uniform(0.0, 6.0))
        for path in folder.glob("[!.]*.keras"):
            assert cli.open_vae(path)
        for version in (here / "saved_models").glob("rows/[0-9]*"):
            assert tfp_vae.load(version)
    if not (folders[-1] / "metrics.json").is_file():
        code, _, err = invoke(*line_of(folders[-1], options))
        assert code == 0, err
    assert invoke("train", *options, "--run", "whole")[0] == 0
    expected = json.loads((here / "whole" / "metrics.json").read_text())
    for folder in folders:
        found = json.loads((folder / "metrics.json").read_text())
        assert {name: found[name] for name in NUMBERS} == {name: expected[name] for name in NUMBERS}
        models = [keras.models.load_model(one / "model.keras") for one in (here / "whole", folder)]
        for one, other in zip(*(model.get_weights() for model in models), strict=True):
            np.testing.assert_array_equal(one, other)


def line_of(folder, options):
    """The command that begins a run, or goes on with it; one without a model is removed before."""
    if (folder / "model.keras").is_file():
        return ["train", "--resume", folder.name]
    shutil.rmtree(folder, ignore_errors=True)
    return ["train", *options, "--run", folder.name]


def kill(process, folder, seconds):
    """Kill a process some seconds after it has begun with a run, unless it has ended."""
    while process.poll() is None and not (folder / "lock").is_file():
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    code, _, err = finish(process)
    assert code in (-signal.SIGKILL, 0), err


@pytest.mark.slow
def test_many_threads_on_one_model_get_their_answers_in_flat_memory(digits, full):
    """All methods that return distributions, draws or numbers."""
    served, x = tfp_vae.load(MODEL), np.float32(digits.test[:16])
    seconds = 600 if full else 3

    def answers(rows):
        q = served.encode(rows)
        return {
            "mean": q.mean().numpy(),
            "draw": q.sample(seed=(0, 1)).numpy(),
            "x": served.decode(q.mean()).mean().numpy(),
            "new": np.asarray(served.generate(3, seed=1)),
            **served.score(rows),
        }

    expected = {size: answers(x[:size]) for size in (1, 5, 16)}

    def ask(thread: int, seconds: float) -> int:
        chance, wrong = random.Random(thread), 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            size = chance.choice([*expected])
            found = answers(x[:size])
            wrong += any((found[name] != value).any() for name, value in expected[size].items())
        return wrong

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(ask, range(16), [seconds / 3] * 16)) == 0  # buffers grow to their size
        before = resident_bytes()
        assert sum(pool.map(ask, range(16), [seconds] * 16)) == 0
        assert resident_bytes() - before < 2**26
