"""Versions in a model's folder: as TF Serving requires, each is either complete or absent."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


def versions(base: Path) -> list[int]:
    """List the versions in a model's base folder, oldest first."""
    return (
        sorted(int(path.name) for path in base.iterdir() if path.name.isdecimal())
        if base.is_dir()
        else []
    )


def publish(write: Callable[[Path], None], base: Path, *, keep: int | None = None) -> Path:
    """Let `write` make a version in a temporary folder, then move it into `base` under the next
    number in one step.

    The temporary folder is a sibling of `base`: it is on the same file system, and a server that
    polls `base` never sees it. It is removed at the end; if an exporter is killed, the next one
    removes its folder. With `keep`, only that many of the newest versions stay.

    Raises:
        OSError: if the folder cannot be written.
    """
    base = base.resolve()  # a link may lead to another file system
    base.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(base)
    with _aside(base) as aside:
        write(aside / "version")
        version = _move(aside / "version", base)
        for number in versions(base)[: -keep if keep else 0]:
            with contextlib.suppress(FileNotFoundError):  # another exporter may be removing it
                os.rename(base / str(number), aside / str(number))
        return version


def _move(finished: Path, base: Path) -> Path:
    while True:
        target = base / str(max(versions(base), default=0) + 1)
        try:
            os.rename(finished, target)
            return target
        except OSError:
            if not target.exists():
                raise
            # Another exporter took this number in between.


@contextlib.contextmanager
def _aside(base: Path) -> Iterator[Path]:
    """Return an empty folder next to `base`, locked while in use.

    The lock ends with the process, even if it is killed.
    """
    lock = None
    # Between making and locking it, another exporter may take it for a leftover.
    while lock is None:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(base), dir=base.parent))
        lock = lock_folder(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_leftovers(base: Path) -> None:
    for folder in [path for path in base.parent.iterdir() if path.name.startswith(_prefix(base))]:
        lock = lock_folder(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _prefix(base: Path) -> str:
    return f".{base.name}-aside-"


def lock_folder(folder: Path) -> int | None:
    """Lock a folder, and return its file descriptor; None if it is in use or gone."""
    import fcntl  # only on Unix; the rest of the package does not need it

    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.is_dir():
            return descriptor
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None
