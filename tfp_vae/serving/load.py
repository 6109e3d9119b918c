"""Load an exported model, to get distributions from its SavedModel."""

import functools
import os
from pathlib import Path

import tensorflow as tf

from tfp_vae.layers.internals import leave_unwatched
from tfp_vae.serving.description import DESCRIPTION
from tfp_vae.serving.publish import versions
from tfp_vae.serving.served import ServedVAE


def load(path: str | os.PathLike) -> ServedVAE:
    """Load an exported VAE from its SavedModel alone; its methods return distributions.

    Args:
        path: a version's folder, or a model's base folder, whose newest version is taken.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it is not a VAE exported by this package.
    """
    folder = Path(path)
    if folder.suffix == ".keras":
        raise ValueError(
            f"{folder} is a Keras file, not a SavedModel: open it with "
            f"keras.models.load_model({str(folder)!r}), after import tfp_vae."
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    if versions(folder):
        folder = folder / str(versions(folder)[-1])
    if not (folder / DESCRIPTION).is_file() or not (folder / "saved_model.pb").is_file():
        raise ValueError(
            f"{folder} is not a SavedModel written by tfp_vae: it lacks saved_model.pb or "
            f"{DESCRIPTION}."
        )
    model = tf.saved_model.load(str(folder))
    for function in model.signatures.values():
        leave_unwatched(function.variables)

    def answer(signature, inputs):
        return model.signatures[signature](**inputs)

    text = (folder / DESCRIPTION).read_text()
    again = functools.partial(load, str(folder.absolute()))
    return ServedVAE(answer, text, str(folder), again=again)
