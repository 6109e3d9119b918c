"""Load an exported model, to get distributions from its SavedModel."""

import functools
import os
from pathlib import Path

import tensorflow as tf

from tfp_vae.file_sizes import expect_saved_model, read_text
from tfp_vae.layers.internals import leave_unwatched
from tfp_vae.serving.checksums import expect_unchanged
from tfp_vae.serving.description import DESCRIPTION
from tfp_vae.serving.publish import versions
from tfp_vae.serving.served import ServedVAE


def load(path: str | os.PathLike) -> ServedVAE:
    """Load an exported VAE from its SavedModel alone; its methods return distributions.

    Args:
        path: a version's folder, or a model's base folder, whose newest version is taken.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it is not a VAE exported by this package, or was changed or damaged since.
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
    index = Path("variables") / "variables.index"  # the variables have checksums of TensorFlow's
    files = [Path("saved_model.pb"), DESCRIPTION, *([index] if (folder / index).is_file() else [])]
    expect_unchanged(folder, files)
    expect_saved_model(folder)
    text = read_text(folder / DESCRIPTION)
    try:
        model = tf.saved_model.load(str(folder))
    except Exception as error:  # a damaged file can lead to any exception in TensorFlow
        raise ValueError(f"{folder} is not a SavedModel that can be loaded: {error}") from error
    for function in model.signatures.values():
        leave_unwatched(function.variables)

    def answer(signature, inputs):
        return model.signatures[signature](**inputs)

    again = functools.partial(load, str(folder.absolute()))
    return ServedVAE(answer, text, str(folder), again=again)
