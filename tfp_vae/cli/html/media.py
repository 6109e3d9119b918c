"""How examples are shown: as pictures, as texts, or as rows of a table."""

import abc
from typing import Any

import numpy as np

from tfp_vae import datasets, evaluation, plots
from tfp_vae.cli.html.blocks import Block, LeftOut, picture, table
from tfp_vae.cli.texts import lines_of
from tfp_vae.rows import limits
from tfp_vae.vae import VAE


class Medium(abc.ABC):
    """Base of the ways to show examples.

    Attributes:
        noun: what the examples are called.
        rows_and_columns: how many samples are shown.
        num_shown: how many test examples are.
        is_image: whether they are images.
        limits: values shown black and white; None if there are no pictures.
        num_dims: latent dimensions in the traversals.
        shows_draws: whether samples are draws from p(x|z), not its means.
        distance: what `nearest` measures, in words.
    """

    noun: str
    rows_and_columns: tuple[int, int]
    num_shown = 10
    num_dims: int
    shows_draws: bool
    distance: str
    is_image = False
    limits: tuple[float, float] | None = None

    def __init__(self, vae: VAE, splits: datasets.Splits):
        self.vae = vae
        self.splits = splits

    @abc.abstractmethod
    def show(
        self, rows: list[tuple[str, Any]], alt: str, caption: str, *, paired: bool = True
    ) -> Block:
        """Show rows of equally many examples, each row with its label; `paired` rows belong
        together column by column.
        """

    @abc.abstractmethod
    def nearest(self, x, among) -> tuple[np.ndarray, np.ndarray]:
        """Return the places of the training examples that are nearest to each x, and how far they
        are.

        Raises:
            LeftOut: if there is no distance.
        """


class Pictures(Medium):
    """Images, and other arrays as curves."""

    rows_and_columns = (6, 10)
    num_dims = 8
    shows_draws = False
    distance = "root of the mean squared difference of the values"

    def __init__(self, vae: VAE, splits: datasets.Splits):
        super().__init__(vae, splits)
        x = datasets.x_of(splits.test)
        # One scale for all pictures.
        self.limits = limits(x)
        self.is_image = x.ndim == 3 or (x.ndim == 4 and x.shape[-1] in (1, 3))
        self.noun = "images" if self.is_image else "examples"

    def show(self, rows, alt, caption, *, paired=True):
        labels = [label for label, _ in rows]
        x = np.stack([np.asarray(x) for _, x in rows])
        figure = plots.grid(x, "", labels if any(labels) else None, self.limits)
        return picture(figure, alt, caption)

    def nearest(self, x, among):
        return evaluation.nearest(x, among)


class Texts(Medium):
    """Sequences of tokens."""

    noun = "texts"
    rows_and_columns = (1, 20)
    num_dims = 3
    shows_draws = True
    distance = "share of the places whose tokens differ"

    def show(self, rows, alt, caption, *, paired=True):
        columns = [[line or "(empty)" for line in lines_of(self.vae, x)] for _, x in rows]
        header = [label or "new texts" for label, _ in rows]
        lines = [*map(list, zip(*columns, strict=True))]
        return table(header, lines, caption, has_titles=False)

    def nearest(self, x, among):
        differing = np.stack([(among != one).mean(axis=1) for one in np.asarray(x)])
        return differing.argmin(axis=1), differing.min(axis=1)


class Tables(Medium):
    """An x of several parts."""

    noun = "rows"
    rows_and_columns = (1, 10)
    num_shown = 5
    num_dims = 3
    shows_draws = True
    distance = "none"

    def show(self, rows, alt, caption, *, paired=True):
        columns = [(label, _texts(self.vae, x)) for label, x in rows]
        names = [*columns[0][1]]
        shown = [
            (
                place,
                [f"{label} {place + 1}".strip(), *(values[name][place] for name in names)],
            )
            for label, values in columns
            for place in range(len(values[names[0]]))
        ]
        if paired:
            shown.sort(key=lambda place_and_cells: place_and_cells[0])
        return table(["", *names], [cells for _, cells in shown], caption)

    def nearest(self, x, among):
        raise LeftOut(
            "the columns of a table have different units, so that no distance between rows suits "
            "them all."
        )


def medium_of(vae: VAE, splits: datasets.Splits) -> Medium:
    """Return how the examples of a data set are shown."""
    kind = Texts if splits.num_tokens else Tables if splits.is_table else Pictures
    return kind(vae, splits)


def _texts(vae: VAE, x) -> dict[str, list[str]]:
    """Return each value of a table's rows by name, as texts."""
    if vae.table is not None:
        return {
            str(name): ["missing" if text is None else text for text in texts]
            for name, texts in vae.table.texts(x).items()
        }
    columns = {}
    for name, values in vae.x.parts(x).items():
        flat = np.reshape(values, [len(values), -1])
        for place, column in enumerate(flat.T):
            title = name if len(flat.T) == 1 else f"{name} {place}"
            columns[title] = [_number(value) for value in column]
    return columns


def _number(value) -> str:
    return f"{value:.4g}" if np.isfinite(value) else "missing"


__all__ = ["Medium", "Pictures", "Tables", "Texts", "medium_of"]
