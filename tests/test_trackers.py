"""What follows a run beside its own files: trackers, TensorBoard, and the average of its weights."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_vae
from tests.test_cli import ROOT, invoke
from tfp_vae.cli.runs import Options, Run
from tfp_vae.cli.trackers import TRACKERS, Tracker, WandB

SMALL = ["--epochs", 2, "--hidden-size", 8, "--num-samples", 2]


class Kept(Tracker):
    """A tracker that keeps what it is told."""

    library = "kept"

    def begin(self, options, identity):
        self.told = {"options": options, "identity": identity, "epochs": [], "batches": []}
        own = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: self.told["epochs"].append((epoch, logs["elbo"])),
            on_train_batch_end=lambda batch, logs: self.told["batches"].append(batch),
        )
        return "its name", own

    def finish(self, numbers, pictures):
        self.told |= {"numbers": numbers, "pictures": pictures}

    def interrupt(self, *, has_failed):
        self.told |= {"numbers": "failed" if has_failed else "interrupted"}

    def set_model(self, model):
        super().set_model(model)
        Kept.latest = self


class Broken(Kept):
    def begin(self, options, identity):
        raise RuntimeError("No route to host.")


def test_a_tracker_is_told_of_epochs_and_of_the_end(tmp_path, digits):
    run = Run.create(tmp_path / "run", Options(name="digits", epochs=2))
    follower = Kept(run)
    vae = make_vae()
    vae.compile(keras.optimizers.Adam(1e-3))
    history = vae.fit(digits.train[:40], epochs=2, verbose=0, callbacks=[follower]).history
    assert follower.told["epochs"] == [*enumerate(history["elbo"])]
    assert not follower.told["batches"]
    follower.end({"nll": 3.0, "kl": float("nan"), "dataset": "digits", "active_units": 4})
    assert follower.told["numbers"] == {"nll": 3.0, "active_units": 4.0}
    assert follower.told["options"]["epochs"] == 2
    assert Kept(Run.open(run.folder)).told["identity"] == "its name"


def test_what_keeps_a_tracker_from_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run.create(tmp_path / "run", Options(name="digits"))
    with pytest.raises(
        ConnectionError, match=r"kept does not take the run: No route to host\. Mend"
    ):
        Broken(run)
    code, _, err = invoke("train", "--tracker", "nothing")
    assert (code, err) == (
        2,
        "error: --tracker must be one of mlflow, wandb; received 'nothing'.\n",
    )
    monkeypatch.setitem(sys.modules, "mlflow", None)
    code, _, err = invoke("train", "--tracker", "mlflow")
    assert (code, err) == (
        2,
        "error: --tracker mlflow needs mlflow: pip install 'tfp_vae[mlflow]'.\n",
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_run_begins_goes_on_and_ends_whatever_becomes_of_its_tracker(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "mlflow", types.ModuleType("mlflow"))
    monkeypatch.setitem(TRACKERS, "mlflow", Broken)
    train = ["train", *SMALL, "--tracker", "mlflow", "--run", "run [1]"]
    code, _, err = invoke(*train)
    assert (code, "No route to host" in err, (tmp_path / "run [1]").exists()) == (2, True, False)
    monkeypatch.setitem(TRACKERS, "mlflow", Kept)
    code, out, err = invoke(*train, "--learning-rate", 1e20)
    assert (code, "diverged" in err, Kept.latest.told["numbers"]) == (2, True, "failed")
    code, out, err = invoke(*train[:-1], "other [1]")
    assert (code, err, "other [1]" in out) == (0, "", True)
    monkeypatch.setitem(TRACKERS, "mlflow", Broken)
    code, _, err = invoke("train", "--resume", "other [1]", "--epochs", 3)
    assert (code, "without the tracker: The tracker kept does not" in err) == (0, True), err


def run_in_process(*arguments, **environment):
    """Train in a process of its own: trackers have warnings, threads and global state."""
    line = [sys.executable, "-m", "tfp_vae_console", "train", *map(str, [*arguments, *SMALL])]
    everything = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(line, env=everything, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.full
def test_mlflow_gets_curves_numbers_and_pictures(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    run_in_process("--tracker", "mlflow", "--run", "run")
    read = (
        "import json, mlflow; client = mlflow.MlflowClient(); "
        "run = mlflow.search_runs(experiment_names=['digits'], output_format='list')[0]; "
        "name = run.info.run_id; "
        "curve = [one.value for one in client.get_metric_history(name, 'elbo')]; "
        "files = [one.path for one in client.list_artifacts(name, 'pictures')]; "
        "print(json.dumps([name, run.data.params, run.data.metrics, curve, files]))"
    )
    found = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, check=True)
    name, options, numbers, curve, files = json.loads(found.stdout.splitlines()[-1])
    own = Run.open(tmp_path / "run")
    assert own.tracked() == {"mlflow": name}
    assert (options["epochs"], options["hidden_size"]) == ("2", "8")
    np.testing.assert_allclose(curve, own.history()["elbo"], rtol=1e-6)
    assert numbers["nll"] == pytest.approx(own.metrics()["nll"])
    assert "pictures/samples.png" in files


@pytest.mark.slow
def test_weights_and_biases_gets_the_numbers(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    run_in_process("--tracker", "wandb", "--run", "run", WANDB_MODE="offline")
    own = Run.open(tmp_path / "run")
    (offline,) = (own.folder / "wandb").glob("offline-run-*")
    assert offline.name.endswith(own.tracked()["wandb"])
    assert [*offline.glob("files/media/images/samples*.png")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], {"reconstructions", "samples", "latent_traversal"}),
        (["--dataset", "lines.txt"], {"reconstructions", "samples", "interpolations"}),
    ],
    ids=["images", "texts"],
)
def test_pictures_for_tensorboard(options, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("lines.txt").write_text("a cat\na dog\nno cat\n" * 20)
    assert invoke("train", *SMALL, *options, "--tensorboard", "--run", "run")[::2] == (0, "")
    found = {}
    for path in (tmp_path / "run" / "tensorboard" / "pictures").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(event.step)
    found = {name: sorted(steps) for name, steps in found.items()}
    assert found == {name: [0, 1] for name in names}


@pytest.mark.slow
def test_the_average_of_the_weights_is_the_runs_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert invoke("train", *SMALL, "--ema", 0.9, "--run", "run")[::2] == (0, "")
    run = Run.open(tmp_path / "run")
    averaged, last = (keras.models.load_model(path) for path in (run.model, run.last))
    names = [weight.path for weight in last.trainable_variables]
    averages = last.optimizer._model_variables_moving_average
    for name, own, kept in zip(names, averaged.trainable_variables, averages, strict=True):
        np.testing.assert_array_equal(own, kept, err_msg=name)
    assert any(
        np.abs(np.subtract(one, other)).max() > 1e-4
        for one, other in zip(averaged.get_weights(), last.get_weights(), strict=True)
    )
    first = run.metrics()
    (run.folder / "metrics.json").unlink()  # as if the process had died before the end
    assert invoke("train", "--resume", "run")[::2] == (0, "")
    assert run.metrics()["nll"] == first["nll"]
    assert invoke("train", "--resume", "run", "--epochs", 3)[0] == 0
    on = keras.models.load_model(run.last)
    assert int(on.optimizer.iterations) == 3 * int(last.optimizer.iterations) // 2


def test_an_average_is_that_of_all_steps(digits):
    vae = make_vae()
    vae.compile(keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.8))
    seen = []

    class See(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(vae.get_weights())

    vae.fit(digits.train[:60], batch_size=20, epochs=2, verbose=0, callbacks=[See()])
    average = seen[0]
    for weights in seen[1:]:
        average = [0.8 * one + 0.2 * other for one, other in zip(average, weights, strict=True)]
    trainable = [weight.value for weight in vae.weights if weight.trainable]
    expected = [one for one, weight in zip(average, vae.weights, strict=True) if weight.trainable]
    for found, own in zip(trainable, expected, strict=True):
        np.testing.assert_allclose(found, own, rtol=1e-5, atol=1e-6)


def test_weights_and_biases_shows_texts_as_they_are(tmp_path):
    told = {}
    one = WandB.__new__(WandB)
    one.image = one.html = str
    one.wandb_run = types.SimpleNamespace(summary={}, log=told.update, finish=lambda: None)
    (tmp_path / "samples.txt").write_text("a <b>\n")
    one.finish({}, tmp_path)
    assert told == {"samples": "<pre>a &lt;b&gt;\n</pre>"}
