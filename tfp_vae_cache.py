"""The programs that XLA has compiled, kept from one command of tfp-vae to the next.

It stands beside the package, because TensorFlow asks where they are when it is imported. TensorFlow could share one
folder among all processes, but a file there that is cut short ends the training, as does a disk that is full. So each
process has a temporary folder of its own: whole files are copied into it from the store when the process starts, and
new ones out of it when it ends.
"""

import atexit
import contextlib
import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import tempfile
from pathlib import Path

# The folder of the stores, instead of the user's cache; empty: nothing is kept.
VARIABLE = "TFP_VAE_CACHE"
# Bytes of programs that are kept, for all kinds of machine; a small model has 5 MB of them.
MOST_BYTES = 100_000_000
# Bytes that must be free on the disks; with less nothing is kept.
LEAST_FREE = 2**30
# Characters of a SHA-256 in the names of stores and of their files.
DIGITS = 16
STORE = re.compile(rf"xla-[0-9a-f]{{{DIGITS}}}")
FILE = re.compile(rf"([0-9a-f]{{{DIGITS}}})-(xla_compile_cache_.*)")


def keep_programs() -> None:
    """Let TensorFlow, which is not imported yet, take compiled programs of earlier processes, and
    keep those of this one when it ends.

    Where that is not possible nothing is kept, and all works as without it.
    """
    chosen, flags = os.environ.get(VARIABLE), os.environ.get("TF_XLA_FLAGS", "").strip()
    is_file = flags and not flags.startswith("-")  # which holds the flags
    if chosen == "" or is_file or "tf_xla_persistent_cache" in flags:
        return
    try:
        store = _store(Path(chosen).expanduser() if chosen else _users_cache(), flags)
        if store is None:
            return
        own = Path(tempfile.mkdtemp(prefix="tfp_vae-programs-"))
    except (OSError, RuntimeError, ImportError):  # no home, or TensorFlow by another name
        return
    atexit.register(_end, own, store, os.getpid())
    # TensorFlow takes the flags apart at white space.
    if re.search(r"[\s'\"]", str(own)) or not _has_space(own):
        return
    take(store, own)
    os.environ["TF_XLA_FLAGS"] = (
        f"{flags} --tf_xla_persistent_cache_directory={own} "
        "--tf_xla_persistent_cache_device_types=CPU"
    ).strip()


def take(store: Path, own: Path) -> None:
    """Copy the whole files of a store into the folder of a process; remove damaged ones."""
    for path, digest, name in _files(store):
        try:
            content = path.read_bytes()
            if _digest(content) == digest:
                (own / name).write_bytes(content)
            else:
                path.unlink()
        except OSError:  # another process has removed it, or the disk is full
            (own / name).unlink(missing_ok=True)


def give(own: Path, store: Path) -> None:
    """Copy the files of a process that a store has not into it."""
    known = {name for _, _, name in _files(store)}
    for path in own.glob("xla_compile_cache_*.pb"):
        if path.name not in known:
            content = path.read_bytes()
            aside = store / f"{own.name}.tmp"
            try:
                aside.write_bytes(content)
                aside.replace(store / f"{_digest(content)}-{path.name}")
            finally:
                aside.unlink(missing_ok=True)


def tidy(base: Path) -> None:
    """Remove the oldest files beyond `MOST_BYTES` of all stores."""
    files = [
        one for store in base.iterdir() if STORE.fullmatch(store.name) for one in _files(store)
    ]
    with contextlib.suppress(FileNotFoundError):  # another process tidies up, too
        told = sorted(
            ((path.stat(), path) for path, _, _ in files), key=lambda one: one[0].st_mtime
        )
        total = sum(about.st_size for about, _ in told)
        for about, path in told:
            if total <= MOST_BYTES:
                break
            path.unlink()
            total -= about.st_size


def _store(base: Path, flags: str) -> Path | None:
    """Return the store of this machine, tidied up, or None if it is not safe to use."""
    store = base.absolute() / _machine(flags)
    store.mkdir(mode=0o700, parents=True, exist_ok=True)
    if store.is_symlink() or not all(map(_is_ones_own, (base, store))) or not _has_space(store):
        return None
    tidy(base)
    return store


def _end(own: Path, store: Path, process: int) -> None:
    if os.getpid() != process:  # a fork of it
        return
    with contextlib.suppress(OSError):
        give(own, store)
    shutil.rmtree(own, ignore_errors=True)


def _files(store: Path) -> list[tuple[Path, str, str]]:
    """Return the path, the digest and TensorFlow's name of each file that is the store's own."""
    found = ((path, FILE.fullmatch(path.name)) for path in store.iterdir())
    return [(path, match[1], match[2]) for path, match in found if match and path.is_file()]


def _users_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tfp_vae"


def _machine(flags: str) -> str:
    """Return the name of the store of programs that run here: they are made for one kind of
    processor, one version of TensorFlow, and the flags of XLA.
    """
    about = [importlib.metadata.version("tensorflow"), platform.machine(), platform.system()]
    about += [flags, os.environ.get("XLA_FLAGS", "")]
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        about += [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    except OSError:  # no Linux
        about += [platform.processor(), platform.node()]
    return f"xla-{_digest(repr(about).encode())}"


def _is_ones_own(folder: Path) -> bool:
    """Return whether no other user can put programs there."""
    about = folder.stat()
    return not hasattr(os, "getuid") or (about.st_uid == os.getuid() and not about.st_mode & 0o022)


def _has_space(folder: Path) -> bool:
    return shutil.disk_usage(folder).free >= LEAST_FREE


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGITS]
