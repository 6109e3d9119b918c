"""The programs that XLA has compiled, kept from one command of tfp-vae to the next.

It stands beside the package, because TensorFlow asks where they are when it is imported. TensorFlow could share one
folder among all processes, but there a file that is cut short, or a disk that is full, ends the training. So each
process has a folder of its own: whole files go in when it starts, and new ones go out when it ends.
"""

import atexit
import contextlib
import hashlib
import importlib.metadata
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path

# The folder, instead of the user's cache; empty: nothing is kept.
VARIABLE = "TFP_VAE_CACHE"
# Bytes of programs that are kept, for all kinds of machine; a small model has 5 MB of them.
MOST_BYTES = 200_000_000
# Bytes that must be free on the disk; with less there is no cache.
LEAST_FREE = 2**30
# Seconds after which the folder of a process that was killed is removed.
LONGEST_RUN = 30 * 86_400
# Characters of a file's SHA-256 in its name.
DIGITS = 16


def keep_programs() -> None:
    """Let TensorFlow, which is not imported yet, take compiled programs of earlier processes, and
    keep those of this one when it ends.

    Where that is not possible nothing is kept, and all works as without it.
    """
    chosen, flags = os.environ.get(VARIABLE), os.environ.get("TF_XLA_FLAGS", "")
    if chosen == "" or "tf_xla_persistent_cache" in flags:
        return
    try:
        base = Path(chosen) if chosen else _users_cache()
        store = base / _machine(flags)
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ones_own(store) or shutil.disk_usage(store).free < LEAST_FREE:
            return
        tidy(base)
        own = Path(tempfile.mkdtemp(prefix="process-", dir=base))
        take(store, own)
    except OSError:
        return
    atexit.register(_end, own, store)
    os.environ["TF_XLA_FLAGS"] = (
        f"{flags} --tf_xla_persistent_cache_directory={own} "
        "--tf_xla_persistent_cache_device_types=CPU"
    ).strip()


def take(store: Path, own: Path) -> None:
    """Link the whole files of the store into the folder of a process; remove others."""
    for path in store.iterdir():
        digest, _, name = path.name.partition("-")
        if _digest(path) == digest:
            _link(path, own / name)
        else:
            path.unlink(missing_ok=True)


def give(own: Path, store: Path) -> None:
    """Link the files of a process that the store has not into it."""
    known = {path.name.partition("-")[2] for path in store.iterdir()}
    for path in own.iterdir():
        if path.name not in known and not path.name.endswith(".tmp"):
            _link(path, store / f"{_digest(path)}-{path.name}")


def tidy(base: Path) -> None:
    """Remove the oldest programs beyond `MOST_BYTES`, and folders of processes that were killed."""
    with contextlib.suppress(FileNotFoundError):  # another process tidies up, too
        for folder in base.glob("process-*"):
            if time.time() - folder.stat().st_mtime > LONGEST_RUN:
                shutil.rmtree(folder, ignore_errors=True)
        told = [(path.stat(), path) for path in base.glob("xla-*/*")]
        total = sum(about.st_size for about, _ in told)
        for about, path in sorted(told, key=lambda one: one[0].st_mtime):
            if total <= MOST_BYTES:
                break
            path.unlink(missing_ok=True)
            total -= about.st_size


def _end(own: Path, store: Path) -> None:
    with contextlib.suppress(OSError):  # the disk is full, or the folder gone
        give(own, store)
    shutil.rmtree(own, ignore_errors=True)


def _users_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tfp_vae"


def _machine(flags: str) -> str:
    """Return the name of the folder of programs that run here: they are made for one kind of
    processor, one version of TensorFlow, and the flags of XLA.
    """
    about = [importlib.metadata.version("tensorflow"), platform.machine(), platform.system()]
    about += [flags, os.environ.get("XLA_FLAGS", "")]
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        about += [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    except OSError:  # no Linux
        about += [platform.processor(), platform.node()]
    return f"xla-{hashlib.sha256(repr(about).encode()).hexdigest()[:DIGITS]}"


def _is_ones_own(folder: Path) -> bool:
    """Return whether no other user can put programs there."""
    about = folder.stat()
    return not hasattr(os, "getuid") or (about.st_uid == os.getuid() and not about.st_mode & 0o022)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]


def _link(path: Path, to: Path) -> None:
    with contextlib.suppress(FileExistsError):
        try:
            os.link(path, to)
        except FileExistsError:
            raise
        except OSError:  # no links on such a disk
            shutil.copyfile(path, to)
