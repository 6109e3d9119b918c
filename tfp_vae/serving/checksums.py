"""Checksums of a version's files: what was changed since the export is refused, not answered by."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

# A list as `sha256sum -c` reads it in the version's folder. TensorFlow itself has checksums for
# variables, but none for the graph.
CHECKSUMS = Path("assets.extra") / "SHA256SUMS"


def write_checksums(folder: Path) -> None:
    """Write the checksums of all files of a version."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{_sum(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / CHECKSUMS).write_text("".join(lines))


def expect_unchanged(folder: Path, files: Iterable[Path]) -> None:
    """Raise a ValueError if files of a version, given relative to it, differ from those exported.

    A version of an earlier release has no checksums, and is not checked.
    """
    if not (folder / CHECKSUMS).is_file():
        return
    try:
        lines = (folder / CHECKSUMS).read_text().splitlines()
        sums = {name: given for given, name in (line.split("  ", 1) for line in lines)}
    except ValueError:  # lines of another form, or no text
        sums = {}
    for file in files:
        if sums.get(file.as_posix()) != _sum(folder / file):
            raise ValueError(
                f"{folder / file} is damaged, or was changed after the export: its checksum is not "
                f"that in {CHECKSUMS}. Export the model again; if you meant the change, delete that "
                "file."
            )


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
