"""Versions in a model's folder, as TF Serving wants them: whole or not there."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def versions(base: Path) -> list[int]:
    """List the versions in a model's base folder, oldest first."""
    return sorted(int(path.name) for path in base.iterdir() if path.name.isdecimal()) if base.is_dir() else []


def publish(write: Callable[[Path], None], base: Path) -> Path:
    """Let `write` make a version in a folder aside, then move it into `base` under the next number, in one step.

    The folder aside is a sibling of `base`: on the same file system, and never seen by a server that polls `base`.

    Raises:
        OSError: if the folder cannot be written.
    """
    base = base.resolve()  # a link may lead to another file system
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{base.name}-", dir=base.parent) as aside:
        finished = Path(aside) / "version"
        write(finished)
        while True:
            target = base / str(max(versions(base), default=0) + 1)
            try:
                os.rename(finished, target)
                return target
            except OSError:
                if not target.exists():
                    raise
                # Another exporter took this number in between.
