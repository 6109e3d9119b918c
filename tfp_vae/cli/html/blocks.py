"""What a part of a report is made of: sentences, pictures and tables, as the template takes them."""

import base64
import dataclasses
import io

import matplotlib
from matplotlib.figure import Figure

# Ink that can be read on white and on black paper, and no paper: one picture serves both.
INK = "#787878"
STYLE = {
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color", "legend.labelcolor"), INK),
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "tfp_vae",
}


class LeftOut(Exception):
    """A part does not apply to a run; the message is the sentence that says why."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table: a text, a smaller one below it, and whether it is marked as the best."""

    text: str
    note: str = ""
    is_best: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """A piece of a page; what is empty is not shown.

    Args:
        sentence: text by itself.
        is_aside: whether the sentence only says what is left out.
        picture: data URI of an image.
        is_chart: whether the picture has text that must stay legible on a small screen.
        alt: the same in words, for those who do not see it.
        header: titles of the columns of a table.
        rows: cells of a table, a row each.
        has_titles: whether the first cell of a row is its title.
        lines: a program or a command, as it is typed.
        caption: sentence below the picture or the table.
    """

    sentence: str = ""
    is_aside: bool = False
    picture: str = ""
    is_chart: bool = False
    alt: str = ""
    header: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()
    has_titles: bool = True
    lines: str = ""
    caption: str = ""


def style():
    """Return a context in which figures are drawn for light and dark pages."""
    return matplotlib.rc_context(STYLE)


def picture(figure: Figure, alt: str, caption: str, *, kind: str = "png") -> Block:
    """Embed a figure; kind "svg" suits lines and bars, "png" many points and images."""
    file = io.BytesIO()
    # Without a date, the same run gives the same picture.
    metadata = {"Date": None} if kind == "svg" else None
    figure.savefig(
        file, format=kind, dpi=130, metadata=metadata, bbox_inches="tight", pad_inches=0.05
    )
    mime = {"png": "image/png", "svg": "image/svg+xml"}[kind]
    content = base64.b64encode(file.getvalue()).decode()
    uri = f"data:{mime};base64,{content}"
    return Block(picture=uri, is_chart=kind == "svg", alt=alt, caption=caption)


def table(
    header: list[str], rows: list[list], caption: str = "", *, has_titles: bool = True
) -> Block:
    """Return a table of texts and cells."""
    cells = (
        tuple(cell if isinstance(cell, Cell) else Cell(str(cell)) for cell in row) for row in rows
    )
    return Block(header=tuple(header), rows=tuple(cells), has_titles=has_titles, caption=caption)
