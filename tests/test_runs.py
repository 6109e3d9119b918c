"""Runs of the command line when things go wrong, stop early, or go on: nothing that was made is lost."""

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

import tfp_vae
import tfp_vae_console
from tests.conftest import mostly_slow
from tests.test_cli import ROOT, invoke
from tfp_vae import cli, plots
from tfp_vae.cli import report, training
from tfp_vae.cli.runs import written_whole

FEW = ["--hidden-size", 8, "--latent-size", 2, "--num-samples", 2, "--dataset", "rows.npz"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("rows.npz", np.random.default_rng(0).normal(size=(60, 6)))
    return tmp_path


@pytest.fixture
def unserved(monkeypatch):
    """Export nothing, where that is not the question."""
    monkeypatch.setattr(tfp_vae.VAE, "export", lambda vae, path, **kwargs: Path(path) / "1")


def train(*arguments):
    return invoke("train", *FEW, *arguments)


def read(path):
    return json.loads(path.read_text())


def same_weights(*folders):
    first, second = (keras.models.load_model(folder / "model.keras").get_weights() for folder in folders)
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def fail(*args, **kwargs):
    raise RuntimeError("{{node nowhere}} it broke")


BROKEN = {
    "numbers": (report.evaluation, "evaluate", {"model.keras", "pictures"}, True),
    "pictures": (plots, "samples", {"model.keras", "metrics.json", "pictures"}, True),
    "SavedModel": (tfp_vae.VAE, "export", {"model.keras", "metrics.json", "pictures"}, False),
}


@pytest.mark.parametrize("what", mostly_slow(BROKEN, "pictures"))
def test_what_fails_after_training_is_named_and_takes_nothing_with_it(what, here, monkeypatch):
    module, name, kept, is_served = BROKEN[what]
    with monkeypatch.context() as patch:
        patch.setattr(module, name, fail)
        with pytest.raises(SystemExit, match="1"):
            train("--epochs", 1, "--run", "run")
    assert kept <= {path.name for path in (here / "run").iterdir()}
    assert len(list((here / "run" / "pictures").iterdir())) == (3 if what == "pictures" else 4)
    assert (here / "saved_models" / "rows" / "1").is_dir() == is_served
    for command in ("evaluate", "plot", "export"):
        assert invoke(command, "run")[0] == 0
    assert len(list((here / "run" / "pictures").iterdir())) == 4


def test_the_message_names_what_fails_and_the_command_that_makes_good_for_it(here, monkeypatch, unserved):
    monkeypatch.setattr(plots, "samples", fail)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit, match="1"):
        tfp_vae_console.run(["train", *map(str, FEW), "--epochs", "1", "--run", "run"])
    assert "error: no pictures: samples: {{node nowhere}} it broke Try again with: tfp-vae plot run" in err.getvalue()
    assert "without pictures" in out.getvalue()


@pytest.mark.slow
def test_a_run_is_held_by_the_process_that_trains_it(here, unserved):
    assert train("--epochs", 1, "--run", "run")[0] == 0
    (here / "run" / "metrics.json").unlink()
    code = (
        "import time\nfrom pathlib import Path\nfrom tfp_vae import cli\n"
        "with cli.Run.open(Path('run')).hold():\n    Path('held').touch()\n    time.sleep(60)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    holder = subprocess.Popen([sys.executable, "-c", code], env=env)
    while not (here / "held").is_file():
        assert holder.poll() is None
        time.sleep(0.05)
    before = {path: path.read_bytes() for path in (here / "run").rglob("*") if path.is_file()}
    code, _, err = invoke("train", "--resume", "run")
    assert (code, f"is being trained by process {holder.pid}" in err) == (2, True), err
    assert before == {path: path.read_bytes() for path in (here / "run").rglob("*") if path.is_file()}
    holder.kill()
    holder.wait()
    assert invoke("train", "--resume", "run")[0] == 0
    assert not (here / "run" / "lock").exists()


@pytest.mark.slow
def test_a_finished_run_trains_longer_along_the_longer_cosine(here, unserved):
    assert train("--epochs", 2, "--run", "short")[0] == 0
    code, _, err = invoke("train", "--resume", "short", "--epochs", 2)
    assert (code, "has had 2 epochs already" in err) == (2, True)
    assert invoke("train", "--resume", "short", "--epochs", 4)[0] == 0
    assert read(here / "short" / "config.json")["epochs"] == 4
    assert len(read(here / "short" / "history.json")["elbo"]) == 4
    vae = cli.open_vae(here / "short" / "model.keras")
    assert float(vae.optimizer.learning_rate) == pytest.approx(0.0, abs=1e-9)
    assert int(vae.optimizer.iterations) == 4
    assert vae.optimizer.get_config()["learning_rate"]["config"]["decay_steps"] == 4


@pytest.mark.slow
def test_patience_keeps_the_best_model_whether_interrupted_or_not(here, monkeypatch, unserved):
    """The learning rate is so high that the ELBO soon falls; the run is broken in the middle of its last epochs."""
    options = ["--epochs", 40, "--patience", 3, "--learning-rate", 0.5, "--batch-size", 24]
    assert train(*options, "--run", "whole")[0] == 0
    elbos = read(here / "whole" / "history.json")["val_elbo"]
    assert len(elbos) < 40
    assert np.argmax(elbos) == len(elbos) - 4
    vae = cli.open_vae(here / "whole" / "model.keras")
    assert int(vae.optimizer.iterations) == 2 * (np.argmax(elbos) + 1)
    stop = training.Recorder.on_epoch_end

    def break_off(recorder, epoch, logs=None):
        stop(recorder, epoch, logs)
        if epoch == len(elbos) - 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.Recorder, "on_epoch_end", break_off)
        with pytest.raises(SystemExit, match="130"):
            train(*options, "--run", "broken")
    assert invoke("train", "--resume", "broken")[0] == 0
    assert read(here / "broken" / "history.json")["val_elbo"] == elbos
    assert same_weights(here / "whole", here / "broken")
    assert not (here / "broken" / "best.keras").exists()


def test_tensorboard_writes_events_into_the_run(here, unserved):
    assert train("--epochs", 1, "--tensorboard", "--run", "run")[0] == 0
    assert list((here / "run" / "tensorboard").rglob("events*"))


def test_what_became_of_the_data_is_told_and_kept(here):
    np.savez("rows.npz", np.random.default_rng(0).integers(40, 220, (60, 6, 6, 1)).astype("uint8"))
    code, out, err = train("--epochs", 1, "--run", "run")
    note = "IndependentQuantizedLogistic, for the 256 levels of 8-bit images"
    assert (code, err) == (0, "")
    assert f"rows: 48 training examples, in batches of 48.\nLikelihood: {note}. Another one: --likelihood" in out
    assert read(here / "run" / "config.json")["data"] == read(here / "run" / "metrics.json")["data"] == note
    assert read(here / "run" / "config.json")["likelihood"] == "auto"
    assert note in (here / "saved_models/rows/1/assets.extra/model_card.md").read_text()
    assert "e-" not in next(line for line in out.splitlines() if line.startswith("epoch 1/1"))


@pytest.mark.slow
def test_a_served_model_is_judged_by_its_signatures(here):
    assert train("--epochs", 1, "--run", "run")[0] == 0
    code, out, _ = invoke("evaluate", "saved_models/rows", "--dataset", "rows.npz")
    assert code == 0
    assert all(words in out for words in ("-ELBO, 16 draws", "NLL, 128 samples"))
    code, _, err = invoke("evaluate", "saved_models/rows")
    assert (code, "is a SavedModel, which does not know its data. Name them with --dataset" in err) == (2, True)


def test_a_full_disk_leaves_no_part_of_a_file(here):
    def write():
        with written_whole(here / "x.npz") as aside:
            aside.write_bytes(b"half")
            raise OSError(28, "No space left on device", str(aside))

    with pytest.raises(OSError, match="No space left"):
        write()
    assert {path.name for path in here.iterdir()} == {"rows.npz"}
