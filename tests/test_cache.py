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
WHOLE = "xla_compile_cache_whole.pb"
DAMAGED = f"{'0' * 16}-xla_compile_cache_damaged.pb"


@pytest.fixture
def store(tmp_path):
    """A store of two programs, of which one is damaged, and of a letter; the folder of a process."""
    kept, own = tmp_path / f"xla-{'1' * 16}", tmp_path / "process"
    kept.mkdir()
    own.mkdir()
    (own / WHOLE).write_bytes(b"a program")
    tfp_vae_cache.give(own, kept)
    (own / WHOLE).unlink()
    (kept / DAMAGED).write_bytes(b"half a prog")
    (kept / "letter.txt").write_text("not a program")
    return kept, own


def names(folder):
    return sorted(path.name.rpartition("_")[2] for path in folder.iterdir())


def test_whole_programs_go_in_and_new_ones_out(store):
    kept, own = store
    tfp_vae_cache.take(kept, own)
    assert (names(kept), names(own)) == (["letter.txt", "whole.pb"], ["whole.pb"])
    (own / "xla_compile_cache_new.pb").write_bytes(b"another")
    (own / "xla_compile_cache_new.pb1.tmp").write_bytes(b"unfinished")
    tfp_vae_cache.give(own, kept)
    tfp_vae_cache.give(own, kept)
    assert names(kept) == ["letter.txt", "new.pb", "whole.pb"]


def test_the_oldest_programs_are_removed_and_nothing_else(store, monkeypatch):
    kept, own = store
    for age, name in enumerate(("new", "old", "oldest")):
        (own / f"xla_compile_cache_{name}.pb").write_bytes(b"x" * 100)
        tfp_vae_cache.give(own, kept)
        for path in kept.glob(f"*_{name}.pb"):
            os.utime(path, (1e9 - age, 1e9 - age))
    other = kept.parent / "xla-dumps"
    other.mkdir()
    (other / "large.txt").write_bytes(b"x" * 1000)
    monkeypatch.setattr(tfp_vae_cache, "MOST_BYTES", 250)
    tfp_vae_cache.tidy(kept.parent)
    assert names(kept) == ["damaged.pb", "letter.txt", "new.pb", "old.pb", "whole.pb"]
    assert names(other) == ["large.txt"]


@pytest.fixture
def ends(monkeypatch):
    """What is to be done when the process ends, in a process that has set no flags."""
    registered = []
    monkeypatch.setenv("TF_XLA_FLAGS", "")
    monkeypatch.setattr("atexit.register", lambda *call: registered.append(call))
    yield registered
    for end, *arguments in registered:
        end(*arguments)


def test_tensorflow_is_told_a_folder_of_this_process_alone(tmp_path, ends, monkeypatch):
    monkeypatch.delenv(tfp_vae_cache.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "with space"))
    tfp_vae_cache.keep_programs()
    ((end, own, store, process),) = ends
    assert f"--tf_xla_persistent_cache_directory={own} " in os.environ["TF_XLA_FLAGS"]
    assert store.parent == tmp_path / "with space" / "tfp_vae"
    (own / WHOLE).write_bytes(b"a program")
    end(own, store, process + 1)
    assert own.exists()  # a fork leaves it to the process that made it
    end(own, store, process)
    assert (names(store), own.exists()) == (["whole.pb"], False)


def _open_to_others(base, patch):
    (base / tfp_vae_cache._machine("")).mkdir(parents=True)
    base.chmod(0o777)


def _linked(base, patch):
    base.mkdir(mode=0o700)
    (base / tfp_vae_cache._machine("")).symlink_to(base)


def _raising(error):
    def fail(*args):
        raise error

    return fail


REASONS = {
    "not wanted": lambda base, patch: patch.setenv(tfp_vae_cache.VARIABLE, ""),
    "own flags": lambda base, patch: patch.setenv(
        "TF_XLA_FLAGS", "--tf_xla_persistent_cache_directory=mine"
    ),
    "a file of flags": lambda base, patch: patch.setenv("TF_XLA_FLAGS", "flags.txt"),
    "a file": lambda base, patch: base.write_text("not a folder"),
    "little space": lambda base, patch: patch.setattr(tfp_vae_cache, "LEAST_FREE", 2**62),
    "others may write": _open_to_others,
    "a link": _linked,
    "no home": lambda base, patch: patch.setattr(
        tfp_vae_cache, "_store", _raising(RuntimeError("no home"))
    ),
    "another TensorFlow": lambda base, patch: patch.setattr(
        tfp_vae_cache.importlib.metadata, "version", _raising(ImportError("no tensorflow"))
    ),
    "white space": lambda base, patch: patch.setattr(
        "tempfile.tempdir", str(base.parent / "my files")
    ),
}


@pytest.mark.parametrize("reason", REASONS)
def test_without_a_folder_nothing_is_kept(reason, tmp_path, ends, monkeypatch):
    base = tmp_path / "cache"
    (tmp_path / "my files").mkdir()
    monkeypatch.setenv(tfp_vae_cache.VARIABLE, str(base))
    REASONS[reason](base, monkeypatch)
    before = os.environ["TF_XLA_FLAGS"]
    tfp_vae_cache.keep_programs()
    assert os.environ["TF_XLA_FLAGS"] == before


@pytest.mark.slow
def test_programs_are_compiled_once_and_damaged_ones_again(tmp_path):
    base, folder = tmp_path / "cache", tmp_path / "temporary"
    base.mkdir(mode=0o700)
    folder.mkdir()
    environment = {**os.environ, tfp_vae_cache.VARIABLE: str(base), "TMPDIR": str(folder)}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_XLA_FLAGS": ""}

    def run():
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        assert not list(folder.iterdir())
        return done.stdout, {path.name: path.stat().st_mtime_ns for path in base.glob("xla-*/*")}

    first, kept = run()
    assert kept
    assert run() == (first, kept)  # what is compiled anew differs in some bytes
    for path in base.glob("xla-*/*"):
        path.write_bytes(path.read_bytes()[:-100])
    again, mended = run()
    assert again == first
    assert len(mended) == len(kept)
    assert mended != kept
