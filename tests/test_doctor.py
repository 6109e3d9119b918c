"""`tfp-vae doctor` names what is missing, and the line that mends it."""

import doctest
import importlib.metadata
import io
import subprocess
import sys

import pytest
from rich.console import Console

import tfp_vae_doctor

REQUIRED = [
    "numpy<3,>=2",
    "keras>=99",
    "nothing-there>1",
    "windows-only; sys_platform == 'win32'",
    "tf2onnx; extra == 'onnx'",
    "no-such-runtime>=1.20; extra == 'onnx'",
    "rich; extra == 'cli'",
]


def examined(monkeypatch, can_import: bool = True) -> tuple[bool, str]:
    monkeypatch.setattr(tfp_vae_doctor, "_can_import", lambda console: can_import)
    out = io.StringIO()
    is_well = tfp_vae_doctor.examine(Console(file=out, width=200, soft_wrap=True))
    return is_well, out.getvalue()


def test_it_names_what_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: REQUIRED)
    is_well, out = examined(monkeypatch)
    assert not is_well
    assert "Mend it by: pip install 'keras>=99' 'nothing-there>1'" in out
    assert "windows-only" not in out
    (onnx,) = [line for line in out.splitlines() if line.strip().startswith("[onnx]")]
    assert "missing: " in onnx
    assert "no-such-runtime" in onnx
    assert "pip install 'tfp_vae[onnx]'" in onnx
    (cli,) = [line for line in out.splitlines() if line.strip().startswith("[cli]")]
    assert "all" in cli


def test_it_is_content_if_nothing_is(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: REQUIRED[:1])
    assert examined(monkeypatch)[0]
    assert not examined(monkeypatch, can_import=False)[0]


def test_it_says_that_the_package_is_not_installed(monkeypatch):
    monkeypatch.setattr(tfp_vae_doctor, "PACKAGE", "no_such_package")
    is_well, out = examined(monkeypatch)
    assert not is_well
    assert "pip install no_such_package" in out


@pytest.mark.parametrize(
    ("code", "backend", "words"),
    [
        ("raise ImportError(\"No module named 'no_such'\")", "tensorflow", "pip install no_such"),
        ("raise ImportError('other')", "jax", "export KERAS_BACKEND=tensorflow"),
        ("import os; os.abort()", "tensorflow", "exit code"),
    ],
)
def test_it_survives_an_import_that_fails(code, backend, words, monkeypatch):
    monkeypatch.setattr(tfp_vae_doctor, "IMPORT", code)
    monkeypatch.setenv("KERAS_BACKEND", backend)
    out = io.StringIO()
    assert not tfp_vae_doctor._can_import(Console(file=out, soft_wrap=True))
    assert "cannot be imported" in out.getvalue()
    assert words in out.getvalue()


def test_its_examples():
    assert doctest.testmod(tfp_vae_doctor) == (0, 1)


@pytest.mark.slow
def test_it_finds_this_installation():
    command = [sys.executable, "-m", "tfp_vae_console", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert "CPU:0" in done.stdout
    assert done.returncode == 0, done.stdout
