"""Programs and notebooks as files: read, rewritten, and shown as a diff or written back."""

import difflib
import io
import shutil
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tfp_vae.cli.report import console
from tfp_vae.cli.runs import written_whole
from tfp_vae.migration import Migrated, migrate_notebook
from tfp_vae.migration import migrate as migrate_program

REWRITE: dict[str, Callable[[str], Migrated]] = {
    ".py": migrate_program,
    ".ipynb": migrate_notebook,
}


class Rewritten(NamedTuple):
    """A file with its old and new text."""

    path: Path
    encoding: str
    text: str
    new: Migrated

    @property
    def summary(self) -> str:
        """One line on what changes."""
        changes, questions = self.new.changes, len(self.new.questions)
        if self.new.text == self.text:
            return f"{self.path}: unchanged, as there is nothing to rewrite"
        asked = f", {_number(questions, 'comment')} to decide on (TODO)" if questions else ""
        return f"{self.path}: {_number(changes, 'change')}{asked}"

    def diff(self) -> str:
        """Return a unified diff, empty if nothing changes."""
        lines = difflib.unified_diff(
            self.text.splitlines(keepends=True),
            self.new.text.splitlines(keepends=True),
            str(self.path),
            str(self.path),
        )
        missing = "\n\\ No newline at end of file\n"
        return "".join(line if line.endswith("\n") else line + missing for line in lines)

    def write(self) -> None:
        """Replace the file in one step; its permissions stay."""
        path = self.path.resolve()
        with written_whole(path) as aside:
            aside.write_bytes(self.new.text.encode(self.encoding))
            shutil.copymode(path, aside)


def migrate(paths: list[Path], *, in_place: bool) -> None:
    """Rewrite files, or print a diff; none is written unless all can be rewritten.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if LibCST is not installed.
        ValueError: if a file is neither a program nor a notebook in Python.
    """
    files = [_rewritten(path) for path in dict.fromkeys(paths)]
    for file in files:
        if not in_place:
            print(file.diff(), end="")
        elif file.new.text != file.text:
            file.write()
    for file in files:
        console.print(file.summary, highlight=False, markup=False, soft_wrap=True)
    if not in_place and any(file.new.text != file.text for file in files):
        console.print("Nothing is written yet: add --in-place to rewrite.", highlight=False)


def _rewritten(path: Path) -> Rewritten:
    if path.is_dir():
        raise ValueError(f"{path} is a folder. Name its files: tfp-vae migrate {path}/*.py.")
    if path.suffix not in REWRITE:
        raise ValueError(
            f"{path} is neither a program nor a notebook: expected a name that ends in "
            f"{' or '.join(REWRITE)}."
        )
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    content = path.read_bytes()
    try:
        encoding = "utf-8"
        if path.suffix == ".py":
            encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        text = content.decode(encoding)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is not text in UTF-8, or in the encoding that it names: {error}. Save it anew "
            "in UTF-8."
        ) from error
    try:
        return Rewritten(path, encoding, text, REWRITE[path.suffix](text))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
