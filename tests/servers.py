"""Servers of the tracked digits model: the stand-in, and TensorFlow Serving itself where there is one.

TF_SERVING_URL names a REST address that serves `saved_models/digits` as `digits`, TF_SERVING_GRPC_URL its gRPC address,
such as http://localhost:8501 and grpc://localhost:8500. Else a `tensorflow_model_server` on the PATH is started.
"""

import atexit
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.contract_server import Batching, free_port, serve

# A copy of the tracked version alone: `make train` writes others beside it.
FOLDER = tempfile.mkdtemp()
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
BASE = shutil.copytree(
    Path(__file__).parents[1] / "saved_models" / "digits",
    Path(FOLDER) / "digits",
    ignore=lambda folder, names: [name for name in names if name.isdigit() and name != "1"],
)
BATCHING = Batching.read(BASE / "batching.config")
KINDS = ["stand-in", "stand-in with batching", "TensorFlow Serving"]


@contextlib.contextmanager
def running(kind: str) -> Iterator:
    if kind == "TensorFlow Serving":
        with _tensorflow_serving() as server:
            yield server
    else:
        with serve(BASE, "digits", batching=BATCHING if "batching" in kind else None) as server:
            yield server


@contextlib.contextmanager
def _tensorflow_serving() -> Iterator[SimpleNamespace]:
    if "TF_SERVING_URL" in os.environ:
        yield SimpleNamespace(
            rest=os.environ["TF_SERVING_URL"], grpc=os.environ.get("TF_SERVING_GRPC_URL")
        )
    elif binary := shutil.which("tensorflow_model_server"):
        rest, grpc = free_port(), free_port()
        command = [binary, f"--rest_api_port={rest}", f"--port={grpc}", "--model_name=digits"]
        with subprocess.Popen([*command, f"--model_base_path={BASE}"]) as process:
            try:
                yield SimpleNamespace(
                    rest=f"http://127.0.0.1:{rest}", grpc=f"grpc://127.0.0.1:{grpc}"
                )
            finally:
                process.terminate()
    else:
        pytest.skip(
            "needs TensorFlow Serving: set TF_SERVING_URL, or put tensorflow_model_server on the PATH"
        )
