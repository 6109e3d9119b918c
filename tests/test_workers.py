"""Several workers: how they meet, and that they compute what one process computes."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_vae
from tests.test_cli import ROOT, command, invoke
from tests.worker_program import KINDS
from tfp_vae import replicas
from tfp_vae.cli.failures import in_words
from tfp_vae.workers import Workers


@pytest.fixture
def addresses():
    """Two addresses on this host that are free."""
    with contextlib.ExitStack() as stack:
        ports = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            for _ in range(2)
        ]
    return [f"127.0.0.1:{port}" for port in ports]


# How they meet


@pytest.mark.parametrize(
    ("given", "index", "message"),
    [
        (["a:1"], 0, "at least two different addresses host:port"),
        (["a:1", "a:1"], 0, "received 'a:1,a:1'"),
        (["a:1", "b"], 0, "received 'a:1,b'"),
        (["a:1", "b:70000"], 0, "received 'a:1,b:70000'"),
        (["a:1", "b:2"], 2, "from 0 to 1, received 2"),
    ],
)
def test_wrong_workers_are_refused(given, index, message):
    with pytest.raises(ValueError, match=message):
        Workers(given, index)


def config(cluster, kind, index):
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        (config({"worker": ["a:1"]}, "worker", 0), None),
        (config({"worker": ["a:1", "b:2"]}, "worker", 1), (["a:1", "b:2"], 1)),
        (config({"chief": ["a:1"], "worker": ["b:2"]}, "worker", 0), (["a:1", "b:2"], 1)),
        (config({"worker": ["b:2"], "chief": ["a:1"]}, "chief", 0), (["a:1", "b:2"], 0)),
    ],
)
def test_clusters_set_tf_config(monkeypatch, text, expected):
    monkeypatch.setenv("TF_CONFIG", text)
    found = Workers.of_environment()
    assert (found and (found.addresses, found.index)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"cluster": {"worker": ["a:1", "b:2"]}}',
        config({"worker": ["a:1", "b:2"], "ps": ["c:3"]}, "worker", 0),
        config({"worker": ["a:1", "b:2"]}, "evaluator", 0),
    ],
)
def test_another_tf_config_is_refused(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="TF_CONFIG must be JSON such as"):
        Workers.of_environment()


def test_a_worker_that_never_comes_is_named(addresses):
    with pytest.raises(TimeoutError, match=f"none answers at {addresses[1]}. Start all workers"):
        Workers(addresses, 0).join(patience=0.1)


def test_a_port_that_is_taken_is_named(addresses):
    port = int(addresses[0].rpartition(":")[2])
    with (
        socket.create_server(("", port)),
        pytest.raises(OSError, match=f"cannot listen at {addresses[0]}"),
    ):
        Workers(addresses, 0).join(patience=0.1)


def test_workers_meet_once_the_other_answers(addresses):
    port = int(addresses[1].rpartition(":")[2])
    meeting = threading.Thread(target=Workers(addresses, 0)._meet, args=[10.0])
    meeting.start()
    meeting.join(0.1)
    assert meeting.is_alive()
    with socket.create_server(("", port)):
        meeting.join()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "a:1,b:2"], "--workers and --index go together"),
        (["--index", 1], "--workers and --index go together"),
        (["--workers", "a:1", "--index", 0], "at least two different addresses"),
        (["--workers", "a:1,b:2", "--index", 0], "name its folder by --run"),
    ],
)
def test_wrong_options_of_workers(options, message):
    code, _, err = invoke("train", *options)
    assert (code, message in err) == (2, True), err


def test_tensorflow_on_a_lost_worker_in_words():
    error = tf.errors.UnavailableError(None, None, "Collective ops is aborted by: Connection reset")
    assert in_words(error).startswith("Another worker has stopped. Start all workers again")


# What each does


def strategy_of(index):
    cluster = tf.train.ClusterSpec({"worker": ["a:1", "b:2"]})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        cluster, task_type="worker", task_id=index
    )
    return types.SimpleNamespace(cluster_resolver=resolver)


def test_only_the_chief_writes_and_all_shuffle_alike():
    x = np.arange(12.0, dtype="float32").reshape(6, 2)
    writer, other = keras.callbacks.CSVLogger("never"), keras.callbacks.EarlyStopping()
    vae, orders = make_vae(), []
    for index in range(2):
        vae._distribute_strategy = strategy_of(index)
        assert replicas.is_chief(vae.distribute_strategy) == (index == 0)
        given = {"x": x, "y": None, "callbacks": [writer, other], "batch_size": 4, "epochs": 2}
        found = vae._for_all_workers(given)
        assert found["callbacks"] == ([writer, other] if index == 0 else [other])
        assert found.keys() == {"x", "callbacks", "epochs", "shuffle"}
        orders.append([row for rows in found["x"] for row in rows.numpy()[:, 0].tolist()])
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    with pytest.raises(ValueError, match="give validation_data instead of validation_split"):
        vae._for_all_workers({**given, "validation_split": 0.5})


def start(output, kinds, *how):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.worker_program", output, ",".join(kinds), *how],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_replicas_and_workers_compute_what_one_process_does(tmp_path, addresses, full):
    kinds = list(KINDS) if full else ["ELBO", "BetaTCVAE"]
    ways = {
        "whole": ["whole"],
        "mirrored": ["mirrored"],
        "chief": [",".join(addresses), "0"],
        "worker": [",".join(addresses), "1"],
    }
    with contextlib.ExitStack() as stack:
        started = [start(tmp_path / way, kinds, *how) for way, how in ways.items()]
        for process in started:
            stack.callback(process.kill)
        for process in started:
            _, err = process.communicate()
            assert process.returncode == 0, err
    found = {way: json.loads((tmp_path / way).read_text()) for way in ways}
    streams = found["mirrored"].pop("streams")
    assert streams[0] != streams[1], "the replicas take the same draws"
    for way in ("mirrored", "chief", "worker"):
        for kind in kinds:
            for name, values in found["whole"][kind].items():
                expected = pytest.approx(values, rel=2e-4, abs=2e-4)
                assert found[way][kind][name] == expected, (way, kind, name)


def history_of(run):
    path = run / "history.json"
    return json.loads(path.read_text()) if path.is_file() else {}


@pytest.mark.slow
@pytest.mark.full
def test_workers_go_on_after_one_was_killed(tmp_path, addresses):
    np.savez(tmp_path / "rows.npz", np.random.default_rng(0).normal(size=(60, 6)))
    options = ["--dataset", "rows.npz", "--hidden-size", 8, "--latent-size", 2, "--num-samples", 2]
    options += ["--batch-size", 8, "--run", "run", "--workers", ",".join(addresses)]

    def both(epochs):
        given = [*options, "--epochs", epochs]
        return [command("train", *given, "--index", index, cwd=tmp_path) for index in range(2)]

    chief, other = both(epochs=10_000)
    while not history_of(tmp_path / "run").get("elbo"):
        assert chief.poll() is None, chief.communicate()
        time.sleep(0.1)
    other.send_signal(signal.SIGKILL)
    _, err = chief.communicate(timeout=120)
    assert (chief.returncode, "Another worker has stopped." in err) == (2, True), err
    other.communicate()
    before = history_of(tmp_path / "run")["elbo"]
    (tmp_path / "run" / "config.json").write_text(
        (tmp_path / "run" / "config.json").read_text().replace("10000", str(len(before) + 2))
    )
    ended = [(process.communicate(timeout=300), process) for process in both(len(before) + 2)]
    assert [process.returncode for _, process in ended] == [0, 0], ended
    after = history_of(tmp_path / "run")["elbo"]
    assert after[: len(before)] == before
    assert len(after) == len(before) + 2
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["epochs"] == len(after)
    assert (tmp_path / "saved_models" / "rows" / "1").is_dir()
    assert not (tmp_path / "saved_models" / "rows" / "2").exists()
