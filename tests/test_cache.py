"""Compiled programs that one command keeps for the next."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tfp_vae_cache

ROOT = Path(__file__).parents[1]
PROGRAM = """
import tfp_vae_cache
tfp_vae_cache.keep_programs()
import tensorflow as tf
f = tf.function(lambda x: tf.nn.softplus(x @ x), jit_compile=True)
print(f(tf.fill([3, 3], 0.1)).numpy().sum())
"""


@pytest.fixture
def store(tmp_path):
    """A store of two programs, of which one is damaged, and the folder of a process."""
    kept, own = tmp_path / "xla-1", tmp_path / "process-1"
    kept.mkdir()
    own.mkdir()
    (own / "whole").write_bytes(b"a program")
    tfp_vae_cache.give(own, kept)
    (own / "whole").unlink()
    (kept / f"{'0' * 16}-damaged").write_bytes(b"half a prog")
    return kept, own


def names(folder):
    return sorted(path.name.partition("-")[2] or path.name for path in folder.iterdir())


def test_whole_programs_go_in_and_new_ones_out(store):
    kept, own = store
    tfp_vae_cache.take(kept, own)
    assert (names(kept), names(own)) == (["whole"], ["whole"])
    (own / "new").write_bytes(b"another")
    (own / "new2.tmp").write_bytes(b"unfinished")
    tfp_vae_cache.give(own, kept)
    tfp_vae_cache.give(own, kept)
    assert names(kept) == ["new", "whole"]


def test_the_oldest_programs_and_folders_of_killed_processes_are_removed(store, monkeypatch):
    kept, own = store
    for age, name in enumerate(("new", "old", "oldest")):
        (own / name).write_bytes(b"x" * 100)
        os.utime(own / name, (1e9 - age, 1e9 - age))
    tfp_vae_cache.give(own, kept)
    monkeypatch.setattr(tfp_vae_cache, "MOST_BYTES", 250)
    tfp_vae_cache.tidy(kept.parent)
    assert names(kept) == ["damaged", "new", "old", "whole"]
    assert own.exists()
    os.utime(own, (1e9, 1e9))
    tfp_vae_cache.tidy(kept.parent)
    assert not own.exists()


@pytest.fixture
def ends(monkeypatch):
    """What is to be done when the process ends, in a process that has set no flags."""
    registered = []
    monkeypatch.setenv("TF_XLA_FLAGS", "")
    monkeypatch.setattr("atexit.register", lambda *call: registered.append(call))
    return registered


def test_tensorflow_is_told_a_folder_of_this_process_alone(tmp_path, ends, monkeypatch):
    monkeypatch.delenv(tfp_vae_cache.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tfp_vae_cache.keep_programs()
    ((end, own, store),) = ends
    assert f"--tf_xla_persistent_cache_directory={own} " in os.environ["TF_XLA_FLAGS"]
    assert (own.parent, store.parent) == (tmp_path / "tfp_vae", tmp_path / "tfp_vae")
    (own / "new").write_bytes(b"a program")
    end(own, store)
    assert (names(store), own.exists()) == (["new"], False)


REASONS = {
    "not wanted": lambda base, patch: patch.setenv(tfp_vae_cache.VARIABLE, ""),
    "own flags": lambda base, patch: patch.setenv(
        "TF_XLA_FLAGS", "--tf_xla_persistent_cache_directory=mine"
    ),
    "a file": lambda base, patch: base.write_text("not a folder"),
    "little space": lambda base, patch: patch.setattr(tfp_vae_cache, "LEAST_FREE", 2**62),
    "others may write": lambda base, patch: [
        folder.chmod(0o777)
        for folder in [base / tfp_vae_cache._machine("")]
        if folder.mkdir(parents=True) is None
    ],
}


@pytest.mark.parametrize("reason", REASONS)
def test_without_a_folder_nothing_is_kept(reason, tmp_path, ends, monkeypatch):
    base = tmp_path / "cache"
    monkeypatch.setenv(tfp_vae_cache.VARIABLE, str(base))
    REASONS[reason](base, monkeypatch)
    before = os.environ["TF_XLA_FLAGS"]
    tfp_vae_cache.keep_programs()
    assert (ends, os.environ["TF_XLA_FLAGS"]) == ([], before)


@pytest.mark.slow
def test_programs_are_compiled_once_and_damaged_ones_again(tmp_path):
    base = tmp_path / "cache"
    base.mkdir(mode=0o700)
    environment = {**os.environ, tfp_vae_cache.VARIABLE: str(base), "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("TF_XLA_FLAGS", None)

    def run():
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout, {path.name: path.stat().st_ino for path in base.glob("xla-*/*")}

    first, kept = run()
    assert kept
    assert run() == (first, kept)  # nothing was compiled anew, or it would have been written
    for path in base.glob("xla-*/*"):
        path.write_bytes(path.read_bytes()[:-100])
    again, mended = run()
    assert again == first
    assert len(mended) == len(kept)
    assert run() == (first, mended)
    assert not list(base.glob("process-*"))
