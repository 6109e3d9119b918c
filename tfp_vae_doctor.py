"""`tfp-vae doctor`: what is installed, what is missing, and the line that mends it.

It stands beside the package and imports nothing of it, because it should work where the package does not.
"""

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import rich.box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

PACKAGE = "tfp_vae"
# What these extras are for; all others are for developers.
EXTRAS = {
    "cli": "the command line",
    "data": "data sets and scores",
    "plots": "pictures",
    "migrate": "rewriting programs",
    "molecules": "molecules",
    "onnx": "export to ONNX",
    "openvino": "export to OpenVINO",
    "tables": "tables with named columns",
    "course": "the lessons as notebooks",
    "mlflow": "--tracker mlflow",
    "wandb": "--tracker wandb",
    "tuner": "examples/tuning.py",
}
# Run in a process of its own: an import that crashes should end in a sentence, too.
IMPORT = """
import json, time
start = time.perf_counter()
import keras, tensorflow as tf, tensorflow_probability, tfp_vae
print(json.dumps({
    "seconds": time.perf_counter() - start,
    "devices": [device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices()],
    "is_built_with_cuda": tf.test.is_built_with_cuda(),
    "where": tfp_vae.__file__,
}))
"""


class Need(NamedTuple):
    """A requirement of the package.

    Args:
        name: of the library.
        versions: those that the package was tested with, such as ">=2,<3".
        installed: the version that is there; empty if none is.
        is_met: whether it is one of them.
    """

    name: str
    versions: str
    installed: str
    is_met: bool

    @property
    def line(self) -> str:
        """The requirement as pip takes it."""
        return f"{self.name}{self.versions}"


def examine(console: Console) -> bool:
    """Print what is installed and what is missing.

    Returns:
        Whether the package can work: its requirements are met, and it can be imported.
    """
    python = f"Python {platform.python_version()}, {platform.platform(terse=True)}"
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        console.print(f"{python}\n{PACKAGE} is not installed. Mend it by: pip install {PACKAGE}")
        return False
    console.print(f"{PACKAGE} {version}, {python}, {os.cpu_count()} cores")
    core = list(needs(""))
    wrong = [need for need in core if not need.is_met]
    table = Table("library", "installed", "needed", box=rich.box.SIMPLE)
    for need in core:
        table.add_row(
            need.name,
            (need.installed or "missing")
            if need.is_met
            else f"[red]{need.installed or 'missing'}[/]",
            need.versions,
        )
    for extra, purpose in EXTRAS.items():
        lacking = [need for need in needs(extra) if not need.is_met]
        names = ", ".join(f"{need.name} {need.installed}".strip() for need in lacking)
        table.add_row(
            f"\\[{extra}], for {purpose}",
            f"[yellow]missing: {names}[/]" if lacking else "all",
            f"pip install '{PACKAGE}\\[{extra}]'" if lacking else "",
        )
    console.print(table)
    if wrong:
        lines = " ".join(f"'{need.line}'" for need in wrong)
        console.print(f"[bold red]Mend it by:[/] pip install {escape(lines)}")
    return _can_import(console) and not wrong


def needs(extra: str) -> Iterator[Need]:
    """Return the requirements of the package, or those that one of its extras adds.

    >>> [need.name for need in needs("")][:2]
    ['tensorflow', 'keras']
    """
    from packaging.requirements import Requirement  # Keras brings it

    for line in importlib.metadata.requires(PACKAGE) or []:
        one = Requirement(line)
        is_core = one.marker is None or one.marker.evaluate({"extra": ""})
        is_added = one.marker is not None and one.marker.evaluate({"extra": extra}) and not is_core
        if is_added if extra else is_core:
            try:
                installed = importlib.metadata.version(one.name)
            except importlib.metadata.PackageNotFoundError:
                installed = ""
            is_met = bool(installed) and one.specifier.contains(installed, prereleases=True)
            yield Need(one.name, str(one.specifier), installed, is_met)


def _can_import(console: Console) -> bool:
    """Import TensorFlow and the package elsewhere, and print devices or what went wrong."""
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    done = subprocess.run(
        [sys.executable, "-c", IMPORT],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        console.print(f"[bold red]{PACKAGE} cannot be imported:[/] {escape(last)}")
        if backend != "tensorflow":
            console.print("Mend it by: export KERAS_BACKEND=tensorflow")
        elif found := re.search(r"No module named '(\w+)", last):
            console.print(f"Mend it by: pip install {found[1]}")
        return False
    seen = json.loads(done.stdout.splitlines()[-1])
    console.print(f"Imported in {seen['seconds']:.1f} seconds from {escape(seen['where'])}")
    console.print(f"Devices: {', '.join(seen['devices'])}")
    if not any(name.startswith("GPU") for name in seen["devices"]):
        console.print(
            "No GPU is found: training runs on the CPU. For one of NVIDIA, on Linux: "
            "pip install 'tensorflow\\[and-cuda]'"
        )
    folder = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    there = os.path.isdir(os.path.expanduser(folder))
    console.print(
        f"Data sets of TFDS: {escape(folder)}{'' if there else ', which is not there yet'}"
    )
    return True
