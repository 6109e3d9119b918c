"""Runs of the command line when things go wrong, stop early, or go on: nothing that was made is lost."""

import contextlib
import errno
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_vae
import tfp_vae_console
from tests.test_cli import ROOT, invoke
from tfp_vae import cli, plots
from tfp_vae.cli import report, training
from tfp_vae.cli.failures import in_words
from tfp_vae.cli.names import LIKELIHOODS, OBJECTIVES, POSTERIORS, PRIORS
from tfp_vae.cli.runs import written_whole
from tfp_vae.layers.internals import layers_within

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
    first, second = (
        keras.models.load_model(folder / "model.keras").get_weights() for folder in folders
    )
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def fail(*args, **kwargs):
    raise RuntimeError("{{node nowhere}} it broke")


BROKEN = {
    "numbers": (report.evaluation, "evaluate", {"model.keras", "pictures"}, True),
    "pictures": (plots, "samples", {"model.keras", "metrics.json", "pictures"}, True),
    "SavedModel": (tfp_vae.VAE, "export", {"model.keras", "metrics.json", "pictures"}, False),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.rows(0, 1)
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


def test_the_message_names_what_fails_and_the_command_that_makes_good_for_it(
    here, monkeypatch, unserved
):
    monkeypatch.setattr(plots, "samples", fail)
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit, match="1"),
    ):
        tfp_vae_console.run(["train", *map(str, FEW), "--epochs", "1", "--run", "run"])
    assert "error: no pictures: samples: it broke Try again with: " in err.getvalue()
    assert "tfp-vae plot run" in err.getvalue()
    assert "without pictures" in out.getvalue()


def test_a_precision_that_keras_does_not_know(here):
    code, _, err = train("--precision", "half")
    assert (code, "--precision must be one of float32" in err) == (2, True), err


@pytest.mark.rows(0, 1)
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_precision_is_that_of_the_networks(here, unserved, precision):
    given = "--precision", precision, "--epochs", 1, "--run", "run"
    assert train(*given)[0] == 0
    assert invoke("train", "--resume", "run", "--epochs", 2)[0] == 0
    vae = cli.open_vae(here / "run" / "model.keras")
    (dense, *_) = [
        layer for layer in layers_within(vae.encoder) if isinstance(layer, keras.layers.Dense)
    ]
    assert dense.dtype_policy.name == precision
    assert np.isfinite(read(here / "run" / "history.json")["loss"]).all()


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
    assert before == {
        path: path.read_bytes() for path in (here / "run").rglob("*") if path.is_file()
    }
    holder.kill()
    holder.wait()
    assert invoke("train", "--resume", "run")[0] == 0
    assert not (here / "run" / "lock").exists()


def test_what_a_killed_process_left_aside_is_cleared_away(here, unserved):
    assert train("--epochs", 1, "--run", "run")[0] == 0
    (here / "run" / ".7-aside-model.keras").touch()
    with cli.Run.open(Path("run")).hold():
        assert not (here / "run" / ".7-aside-model.keras").exists()


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


def break_off_after(epoch, patch):
    """Press Ctrl-C after this epoch, counted from 1."""
    end = training.Recorder.on_epoch_end

    def on_epoch_end(recorder, number, logs=None):
        if number + 1 > epoch:
            raise KeyboardInterrupt
        end(recorder, number, logs)

    patch.setattr(training.Recorder, "on_epoch_end", on_epoch_end)


@pytest.mark.slow
@pytest.mark.full
def test_longer_training_that_is_broken_off_equals_the_unbroken(here, monkeypatch, unserved):
    """It breaks off before it saves an epoch, when the model on disk has the learning rate of the shorter training."""
    for name in ("whole", "broken"):
        assert train("--epochs", 2, "--batch-size", 24, "--run", name)[0] == 0
    code, out, _ = invoke("train", "--resume", "whole", "--epochs", 4)
    assert (
        code,
        "on from epoch 3 to 4. The learning rate follows the cosine" in out,
        "0.001 now" in out,
    ) == (0, 1, 1)
    with monkeypatch.context() as patch:
        break_off_after(2, patch)
        with pytest.raises(SystemExit, match="130"):
            invoke("train", "--resume", "broken", "--epochs", 4)
    assert not (here / "broken" / "metrics.json").exists()
    assert invoke("train", "--resume", "broken")[0] == 0
    assert same_weights(here / "whole", here / "broken")
    histories = [read(here / name / "history.json") for name in ("whole", "broken")]
    assert all(history.pop("seconds") for history in histories)
    assert histories[0] == histories[1]
    assert read(here / "broken" / "metrics.json")["epochs"] == 4


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
    with monkeypatch.context() as patch:
        break_off_after(len(elbos) - 1, patch)
        with pytest.raises(SystemExit, match="130"):
            train(*options, "--run", "broken")
    assert invoke("train", "--resume", "broken")[0] == 0
    assert read(here / "broken" / "history.json")["val_elbo"] == elbos
    assert same_weights(here / "whole", here / "broken")
    assert not (here / "broken" / "best.keras").exists()
    _more_patience_goes_on_from_the_last_epoch(here, elbos)


def _more_patience_goes_on_from_the_last_epoch(here, elbos):
    best, last = len(elbos) - 3, len(elbos)
    metrics, weights = (
        read(here / "whole" / "metrics.json"),
        (here / "whole" / "model.keras").read_bytes(),
    )
    code, _, err = invoke("train", "--resume", "whole", "--epochs", 50)
    assert code == 2
    assert (
        f"stopped after {last} epochs, as its val_elbo was best after {best}. To train longer give it more"
        in err
    )
    (here / "rows.npz").rename(here / "away.npz")
    assert invoke("train", "--resume", "whole", "--patience", 4)[0] == 2
    (here / "away.npz").rename(here / "rows.npz")
    assert read(here / "whole" / "metrics.json") == metrics
    assert (here / "whole" / "model.keras").read_bytes() == weights
    assert invoke("train", "--resume", "whole", "--patience", 4)[0] == 0
    longer = read(here / "whole" / "history.json")["val_elbo"]
    assert longer[:last] == elbos
    assert len(longer) > last
    assert int(cli.open_vae(here / "whole" / "last.keras").optimizer.iterations) == 2 * len(longer)
    vae = cli.open_vae(here / "whole" / "model.keras")
    assert int(vae.optimizer.iterations) == 2 * (np.argmax(longer) + 1)


@pytest.mark.slow
def test_numbers_that_failed_are_made_good_for_without_training_again(here, monkeypatch, unserved):
    with monkeypatch.context() as patch:
        patch.setattr(report.evaluation, "evaluate", fail)
        with pytest.raises(SystemExit, match="1"):
            train("--epochs", 3, "--patience", 9, "--run", "run")
    with monkeypatch.context() as patch:
        patch.setattr(tfp_vae.VAE, "fit", fail)
        assert invoke("train", "--resume", "run")[0] == 0
    assert read(here / "run" / "metrics.json")["epochs"] == 3
    code, _, err = invoke("train", "--resume", "run")
    assert (code, "is finished: it has its 3 epochs" in err) == (2, True)


@pytest.mark.slow
def test_only_a_run_with_patience_can_have_more_of_it(here, unserved):
    assert train("--epochs", 1, "--run", "run")[0] == 0
    code, _, err = invoke("train", "--resume", "run", "--epochs", 3, "--patience", 1)
    assert (code, "began without --patience, so its best model was not kept" in err) == (2, True)
    assert (here / "run" / "metrics.json").is_file()


@pytest.mark.slow
def test_tensorboard_writes_events_into_the_run(here, unserved):
    assert train("--epochs", 1, "--tensorboard", "--run", "run")[0] == 0
    assert list((here / "run" / "tensorboard").rglob("events*"))


def test_what_became_of_the_data_is_told_and_kept(here):
    np.savez("rows.npz", np.random.default_rng(0).integers(40, 220, (60, 6, 6, 1)).astype("uint8"))
    code, out, err = train("--epochs", 1, "--run", "run")
    note = "IndependentQuantizedLogistic, for the 256 levels of 8-bit images"
    assert (code, err) == (0, "")
    assert (
        f"rows: 48 training examples, in batches of 48.\nLikelihood: {note}. Another one: --likelihood"
        in out
    )
    assert (
        read(here / "run" / "config.json")["data"]
        == read(here / "run" / "metrics.json")["data"]
        == note
    )
    assert read(here / "run" / "config.json")["likelihood"] == "auto"
    assert note in (here / "saved_models/rows/1/assets.extra/model_card.md").read_text()
    assert "e-" not in next(line for line in out.splitlines() if line.startswith("epoch 1/1"))


def shown(out):
    """The table of numbers that was printed, by quantity."""
    cells = [
        [cell.strip() for cell in line.split("│")[1:3]] for line in out.splitlines() if "│" in line
    ]
    return {quantity.split(" (")[0]: value for quantity, value in cells}


@pytest.mark.slow
def test_a_served_model_is_judged_on_the_data_it_was_made_for(here):
    """Those of a normal likelihood are spread over [0, 1], while the usual one of such images takes 256 levels."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 2, 2, 1)).astype("uint8")
    np.savez("rows.npz", x=pixels, kind=np.arange(60) % 3)
    options = ["--epochs", 1, "--likelihood", "IndependentNormal", "--condition", "kind"]
    assert train(*options, "--run", "run")[0] == 0
    served = "saved_models/rows"
    code, out, _ = invoke(
        "evaluate", served, "--dataset", "rows.npz", "--condition", "kind", "--batch-size", 4
    )
    assert code == 0
    test = tfp_vae.datasets.load("rows.npz", likelihood="IndependentNormal", condition="kind").test
    model = tfp_vae.load(served)
    expected = {
        "-ELBO, 16 draws": -model.score(test)["elbo"],
        "NLL, 128 samples": -model.log_prob(test).numpy(),
    }
    for name, values in expected.items():
        assert float(shown(out)[name]) == pytest.approx(values.mean(), abs=1e-3)
    live = read(here / "run" / "metrics.json")
    assert float(shown(out)["KL"]) == pytest.approx(live["kl"], abs=1e-3)
    assert shown(out)["active units"] == f"{live['active_units']} of 2"
    for rest, words in {
        "": "does not know its data. Name them with --dataset",
        "--dataset rows.npz": "is conditional. Name what it is conditional on with --condition",
    }.items():
        code, _, err = invoke("evaluate", served, *rest.split())
        assert (code, words in err) == (2, True), err
    for command in ("plot", "export"):
        assert (
            "is a SavedModel, which evaluate, sample and score take" in invoke(command, served)[2]
        )
    for text in ("3", "0.5", "0,1", "x"):
        _, _, err = invoke("sample", served, "--condition", text, "--output", "x.npz")
        assert f"--condition must be a label from 0 to 2, received '{text}'" in err


@pytest.mark.slow
def test_a_served_autoencoder_has_no_density(here):
    options = [
        "--epochs",
        1,
        "--posterior",
        "Deterministic",
        "--objective",
        "Reconstruction",
        "--run",
        "run",
    ]
    assert train(*options)[0] == 0
    code, out, _ = invoke("evaluate", "saved_models/rows", "--dataset", "rows.npz")
    assert (code, shown(out)["ELBO, KL, NLL"]) == (0, "not defined: codes are points")
    expected = read(here / "run" / "metrics.json")["log_likelihood"]
    assert float(shown(out)["log-likelihood at the code"]) == pytest.approx(expected, abs=1e-3)
    code, _, err = invoke(
        "evaluate", "saved_models/rows", "--dataset", "rows.npz", "--condition", "kind"
    )
    assert (code, "is not conditional. Leave out --condition" in err) == (2, True)


WORDS = {
    "There is not enough memory (asked for: shape[9,9]).": tf.errors.ResourceExhaustedError(
        None, None, "{{node a}} OOM when allocating tensor with shape[9,9] and type float"
    ),
    "There is not enough memory.": tf.errors.InternalError(
        None, None, "RESOURCE_EXHAUSTED: Out of memory"
    ),
    "The disk is full.": tf.errors.ResourceExhaustedError(
        None, None, "a/b.tmp; No space left on device"
    ),
    "The disk is full, writing a.npz.": OSError(errno.EDQUOT, "Disk quota exceeded", "a.npz"),
    "a.npz: Permission denied.": OSError(errno.EACCES, "Permission denied", "a.npz"),
}


@pytest.mark.parametrize("words", WORDS)
def test_too_little_memory_and_full_disks_have_words_of_their_own(words):
    assert in_words(WORDS[words]).startswith(words)


def test_what_is_listed_and_helped_with_is_whole_on_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = invoke("list")
    for name in (*POSTERIORS, *LIKELIHOODS, *PRIORS, *OBJECTIVES, "ladder", "conv"):
        assert f"\n  {name}  " in out
    assert "[batch, height, width, channels]" in " ".join(out.split())
    help_text = invoke("-h")[1]
    assert re.findall(r"^  (\w+) ", help_text, re.MULTILINE) == [
        "train", "evaluate", "sample", "impute", "score", "export", "plot", "report", "explore",
        "runs", "compare", "doctor", "list", "migrate",
    ]  # fmt: skip
    assert "..." not in help_text.partition("Commands:")[2]
    text = invoke("train", "-h")[1]
    assert tfp_vae_console.EXAMPLES.splitlines()[2:] == [
        line[2:] for line in text.splitlines()[-6:]
    ]
    assert "…" not in text + help_text
    assert "<bool>" not in text + help_text


def test_a_run_that_cannot_be_saved_leaves_its_name_free(here, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(tfp_vae.VAE, "save", raise_full_disk)
        code, _, err = train("--epochs", 1, "--run", "run")
    assert (code, "The disk is full" in err) == (2, True)
    assert not (here / "run").exists()


def raise_full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_no_part_of_a_file(here):
    def write():
        with written_whole(here / "x.npz") as aside:
            aside.write_bytes(b"half")
            raise OSError(28, "No space left on device", str(aside))

    with pytest.raises(OSError, match="No space left"):
        write()
    assert {path.name for path in here.iterdir()} == {"rows.npz"}
