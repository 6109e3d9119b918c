"""Data files: `.npz` and `.npy` files become arrays by name.

For any other file, the error says what it is and how to convert it.
"""

import csv
import itertools
from pathlib import Path

import numpy as np

from tfp_vae.file_sizes import TooLarge, expect_array, expect_memory, members

# The first bytes of other kinds of files, and the names of these kinds.
BEGINNINGS = {
    b"\x89PNG": "a picture (PNG)",
    b"\xff\xd8\xff": "a picture (JPEG)",
    b"GIF8": "a picture (GIF)",
    b"\x89HDF": "an HDF5 file",
    b"PAR1": "a Parquet table",
    b"MATLAB": "a MATLAB file",
    b"\x1f\x8b": "a file compressed by gzip",
    b"\x80": "a pickle",
}
# Types of the columns of a text file: whole numbers; other numbers or gaps; strings.
TYPES = ("i8", "f8", "U99")
# Number of bytes of a text file that are inspected.
HEAD = 2**16


def read_utf8(path: Path, what: str) -> str:
    """Return the text of a file.

    Args:
        path: of the file.
        what: what it should be, in words.

    Raises:
        ValueError: if it is not in UTF-8; the message names the first line that is not.
    """
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path} is not {what}, first in line {line}. Convert it: iconv -f latin1 -t utf-8 "
            f"{path} > utf-8{path.suffix}, if it is Latin-1."
        ) from error


def load_file(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an `.npz` file by name, or the array of an `.npy` file as `x`; the
    file's suffix does not matter.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is another kind of file; the message says how to convert it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head.startswith(b"PK"):
        return _load_npz(path)
    if head.startswith(b"\x93NUMPY"):
        try:
            with path.open("rb") as file:
                expect_memory(path, expect_array(path, "x", file, path.stat().st_size))
            return {"x": np.load(path)}
        except TooLarge:
            raise
        except (EOFError, OSError, ValueError) as error:
            raise ValueError(
                f"{path} is not an .npy file of a numeric array, as numpy.save writes it: {error}"
            ) from error
    wanted = (
        "an .npz file, as numpy.savez writes them"
        if path.suffix == ".npz"
        else "an .npz or .npy file"
    )
    raise ValueError(f"{path} is not {wanted}, but {_what(path, head)}")


def expect_no_file(name: str) -> None:
    """Raise an error if the name of a data set can only be a file that does not exist."""
    if Path(name).suffix.isascii() and Path(name).suffix[1:].isalpha():
        raise FileNotFoundError(f"There is no file {name}, nor a data set of that name.")


def _load_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        # Close the file even if NumPy does not.
        with (
            path.open("rb") as opened,
            np.load(opened) as file,
        ):
            return {name: _numbers(path, name, file) for name in _arrays_of(path, file)}
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # a damaged archive can lead to any exception in zipfile and zlib
        raise ValueError(
            f"{path} is not an .npz file, or a damaged one: {error}. Write it anew."
        ) from error


def _arrays_of(path: Path, file) -> list[str]:
    """Return the names of the arrays in a zip archive, after checking their sizes; it may be
    another kind of file, such as a `.keras` file.
    """
    names = [
        Path(member).stem if member.endswith(".npy") else None for member in file.zip.namelist()
    ]
    if not names or None in names:
        raise ValueError(
            f"{path} is an archive {'of other things than arrays' if names else 'without arrays'}. "
            "Expected an .npz file with arrays: numpy.savez('data.npz', x=x)."
        )
    total = 0
    for member in members(path, file.zip):
        with file.zip.open(member) as opened:
            total += expect_array(path, Path(member.filename).stem, opened, member.file_size)
    expect_memory(path, total)
    return file.files


def _numbers(path: Path, name: str, file) -> np.ndarray:
    try:
        return file[name]
    except ValueError as error:
        raise ValueError(
            f"The array {name!r} of {path} holds Python objects, or is damaged. Save numbers as "
            f"numpy.asarray(values, 'float32') and texts as numpy.asarray(values, str)."
        ) from error


def _what(path: Path, head: bytes) -> str:
    """Return a text that says what a file is, and how to convert its content to arrays."""
    for beginning, what in BEGINNINGS.items():
        if head.startswith(beginning):
            return f"{what}. Read it with the library that wrote it, and save arrays: numpy.savez('data.npz', x=x)."
    try:
        lines = (
            head[: len(head) if len(head) < HEAD else head.rindex(b"\n") + 1]
            .decode("utf-8-sig")
            .splitlines()
        )
    except ValueError:
        lines = []
    if not lines or "\0" in lines[0]:
        return (
            "empty."
            if not head
            else "of an unknown kind. Save arrays: numpy.savez('data.npz', x=x)."
        )
    return _what_text(path, lines)


def _what_text(path: Path, lines: list[str]) -> str:
    """Return a text that describes the columns of a text file, with a command that saves them."""
    delimiter = max(",;\t ", key=lines[0].count)
    names = [field.strip(' "') for field in lines[0].split(delimiter)]
    if all(map(is_number, names)):
        number = _types(path, delimiter)[0]
        how = f"np.savez('data.npz', x=np.genfromtxt('{path}', delimiter={delimiter!r}))"
        texts = (
            " If each line is a text, say so: tokens='characters', or --tokens characters."
            if path.suffix.lower() == ".txt"
            else ""
        )
        return (
            f"a text of {number:,} rows of {len(names)} numbers. Make one: python -c "
            f'"import numpy as np; {how}".{texts}'
        )
    if len(names) == 1:
        return (
            "a text without columns. Save arrays of numbers: numpy.savez('data.npz', x=x); or let its "
            "name end in .txt, to take each line for a text."
        )
    number, types = _types(path, delimiter, 1)
    texts = ", ".join(name for name, kind in zip(names, types, strict=False) if kind == TYPES[-1])
    columns = (
        "n: np.unique(t[n], return_inverse=True)[1] if t[n].dtype.kind == 'U' else t[n]"
        if texts
        else "n: t[n]"
    )
    return (
        f"a text of {number:,} rows under the names {', '.join(names)}. Make one"
        f'{f", in which the texts of {texts} are numbered" if texts else ""}: python -c "import numpy as np; '
        f"t = np.genfromtxt('{path}', delimiter={delimiter!r}, names=True, "
        f"dtype='{','.join(types)}', encoding='utf-8'); np.savez('data.npz', **{{{columns} for n in "
        't.dtype.names})"'
    )


def _types(path: Path, delimiter: str, start: int = 0) -> tuple[int, list[str]]:
    """Return the number of rows of a text file, and the types of its columns.

    A column of whole numbers with gaps is of floats.
    """
    number = -start
    ranks = list[int]()
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        for row in csv.reader(file, delimiter=delimiter):
            if row and number >= 0:
                ranks = [
                    max(pair) for pair in itertools.zip_longest(ranks, map(_rank, row), fillvalue=0)
                ]
            number += bool(row)
    return number, [TYPES[rank] for rank in ranks]


def _rank(field: str) -> int:
    if field.strip().lstrip("-").isdecimal():
        return 0
    return 1 if is_number(field.strip()) else 2


def is_number(text: str) -> bool:
    """Return whether a text reads as a number; an empty one is a missing number."""
    try:
        float(text or "nan")
    except ValueError:
        return False
    return True
