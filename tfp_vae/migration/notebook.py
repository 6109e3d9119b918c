"""Notebooks: their code cells are one program, in which magics and shell lines are set aside."""

import ast
import json
import keyword
import re
from collections.abc import Callable
from typing import Any

# A line that IPython runs, but not Python: `%matplotlib inline`, `!pip install keras`,
# `files = !ls`, `model?`.
MAGIC = re.compile(r"\s*([%!?]|[\w, ]+=\s*[%!])|.*\?\s*$")
# Cells of another language, or with a file's text, begin with a magic other than these.
PYTHON_CELL = re.compile(r"\s*(?!%%)|\s*%%(capture|prun|time|timeit)\b")
# Statements that stand for the beginning of a cell, and for a magic with the names that it uses.
CELL, ASIDE = "__tfp_vae_cell_{}__", "__tfp_vae_magic_{}__"
NAME = re.compile(r"(?<![\w.])[A-Za-z_]\w*")
BETWEEN_CELLS = re.compile(rf"^{CELL}\n".format(r"\d+"), re.MULTILINE)
SET_ASIDE = re.compile(rf"^[ \t]*{ASIDE}.*$".format(r"(\d+)"), re.MULTILINE)
INDENTS = (1, 2, 4, None, "\t", 0, 3, 8)


def migrate_cells(text: str, rewrite: Callable[[str], tuple[str, int, list[str]]]):
    """Return a notebook with its code cells rewritten, as one program.

    Args:
        text: The `.ipynb` file.
        rewrite: Returns a new program, the number of changes and the new comments.

    Returns:
        The same three of the notebook.

    Raises:
        ValueError: if the text is not a notebook with cells in Python.
    """
    notebook = _notebook(text)
    cells = [
        (number, cell)
        for number, cell in enumerate(notebook["cells"], 1)
        if cell.get("cell_type") == "code" and PYTHON_CELL.match("".join(cell["source"]))
    ]
    aside: list[str] = []  # magics, in their order
    program = "".join(
        f"{CELL.format(number)}\n{_without_magics(''.join(cell['source']), number, aside)}\n"
        for number, cell in cells
    )
    new, changes, questions = rewrite(program)
    parts = BETWEEN_CELLS.split(new)[1:]
    for (_, cell), part in zip(cells, parts, strict=True):
        source = _with_magics(part.removesuffix("\n"), aside)
        if source != "".join(cell["source"]):
            as_lines = isinstance(cell["source"], list)
            cell["source"] = source.splitlines(keepends=True) if as_lines else source
    return _as_before(notebook, text) if new != program else text, changes, questions


def _notebook(text: str) -> dict:
    try:
        notebook = json.loads(text)
    except ValueError as error:
        raise ValueError(
            f"this is not a notebook: {error}. Expected JSON, as Jupyter saves it."
        ) from None
    try:
        metadata = notebook.get("metadata", {})
        language = metadata.get("language_info", {}).get("name", "python")
        language = metadata.get("kernelspec", {}).get("language", language)
        if language != "python" or any(
            {"cell_type", "source"} - {*one} for one in notebook["cells"]
        ):
            raise KeyError
    except (AttributeError, KeyError, TypeError):
        raise ValueError(
            "this is not a notebook in Python with a list of cells (nbformat 4). Save it anew in "
            "Jupyter."
        ) from None
    return notebook


def _without_magics(source: str, number: int, aside: list[str]) -> str:
    """Return the source of a cell as Python, and add its magics to `aside`."""
    lines = source.split("\n")
    while True:
        try:
            ast.parse("\n".join(lines))
            return "\n".join(lines)
        except SyntaxError as error:
            magics = [place for place, line in enumerate(lines) if MAGIC.match(line)]
            if not magics:
                raise ValueError(
                    f"cell {number}, line {error.lineno} is not Python 3 ({error.msg}). "
                    "Mend it first."
                ) from None
            place = (error.lineno or 0) - 1
            place = place if place in magics else magics[0]
        end = place + 1
        while lines[end - 1].endswith("\\") and end < len(lines):
            end += 1
        indent = lines[place][: -len(lines[place].lstrip())]
        magic = "\n".join(lines[place:end])
        names = [name for name in NAME.findall(magic) if not keyword.iskeyword(name)]
        lines[place:end] = [indent + ", ".join([ASIDE.format(len(aside)), *names])]
        aside.append(magic)


def _with_magics(source: str, aside: list[str]) -> str:
    return SET_ASIDE.sub(lambda found: aside[int(found[1])], source)


def _as_before(notebook: dict, text: str) -> str:
    """Return a notebook as JSON, with the indent and the characters that its text has."""
    old, end = json.loads(text), text[len(text.rstrip()) :]
    ways: list[dict[str, Any]] = [
        {"indent": indent, "ensure_ascii": ascii_only, "separators": separators}
        for indent in INDENTS
        for ascii_only in (False, True)
        for separators in (None, (",", ":"))
    ]
    same = [way for way in ways if json.dumps(old, **way) == text.rstrip()]
    return json.dumps(notebook, **(same or ways)[0]) + end
