"""Rewrite programs on tf_keras and tfp.layers to Keras 3 and this package.

It needs LibCST: `pip install tfp_vae[migrate]`. On the command line, it is `tfp-vae migrate`.
"""

from typing import NamedTuple

from tfp_vae.checks import needs
from tfp_vae.migration.notebook import migrate_cells

__all__ = ["Migrated", "migrate", "migrate_notebook"]


class Migrated(NamedTuple):
    """A rewritten program.

    Args:
        text: The new program.
        changes: How many places differ from the old program, without comments.
        questions: The comments in the new program that ask for a decision.
    """

    text: str
    changes: int
    questions: list[str]


def migrate(program: str) -> Migrated:
    """Rewrite a program; what cannot be decided becomes a comment. Formatting and comments stay.

    Args:
        program: The text of a program in Python 3.

    Raises:
        ImportError: if LibCST is not installed.
        ValueError: if the text is not Python; the message names the line.

    Example:
        >>> print(migrate('''
        ... import tf_keras as tfk
        ... import tensorflow_probability as tfp
        ... model = tfk.Sequential([tfk.layers.Dense(2, input_shape=(3,)), tfp.layers.IndependentNormal(1)])
        ... ''').text.strip())
        import keras as tfk
        from tfp_vae import layers as tfpl
        model = tfk.Sequential([tfk.Input((3,)), tfk.layers.Dense(2), tfpl.IndependentNormal(1)])
    """
    return Migrated(*_rewritten(program))


def migrate_notebook(notebook: str) -> Migrated:
    r"""Rewrite the code cells of a notebook; magics, outputs and other cells stay.

    Args:
        notebook: The text of an `.ipynb` file.

    Raises:
        ImportError: if LibCST is not installed.
        ValueError: if the text is not a notebook, or a cell is not Python.

    Example:
        >>> cell = '{"cell_type": "code", "source": "%matplotlib inline\\nimport tf_keras as tfk"}'
        >>> migrate_notebook('{"cells": [' + cell + "]}").text
        '{"cells": [{"cell_type": "code", "source": "%matplotlib inline\\nimport keras as tfk"}]}'
    """
    return Migrated(*migrate_cells(notebook, _rewritten))


def _rewritten(program: str) -> tuple[str, int, list[str]]:
    try:
        from tfp_vae.migration.rewriting import rewritten
    except ModuleNotFoundError as error:
        if error.name != "libcst":
            raise
        raise needs("tfp-vae migrate", "migrate", error) from error
    return rewritten(program)
