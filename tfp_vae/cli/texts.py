"""Texts of a model of sequences: they take the place of pictures."""

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfp_vae import datasets, sampling
from tfp_vae.surface import Surface
from tfp_vae.vae import VAE

# How many examples are shown, and how many steps lead from one to another.
NUM_SHOWN = 20
NUM_STEPS = 8


def lines_of(model: Surface, x) -> list[str]:
    """Return sequences as texts, or as numbers if their tokens have no names."""
    if model.vocabulary is not None:
        return model.vocabulary.decode(x)
    return [" ".join(map(str, row)) for row in np.asarray(x).astype(int).tolist()]


def texts(vae: VAE, splits: datasets.Splits, seed: int) -> dict[str, Callable[[], str]]:
    """Return functions that make reconstructions, samples and interpolations, by name.

    A conditional model has reconstructions alone, and one with several latents no interpolations.
    """
    shown = tf.nest.map_structure(lambda part: part[:NUM_SHOWN], splits.test)
    made: dict[str, Callable[[], str]] = {}
    made["reconstructions"] = functools.partial(_reconstructions, vae, shown)
    if splits.conditions is None:
        made["samples"] = functools.partial(_samples, vae, seed)
        if not vae.z.has_parts:
            made["interpolations"] = functools.partial(_interpolations, vae, shown)
    return made


def _reconstructions(vae: VAE, shown) -> str:
    x = lines_of(vae, datasets.x_of(shown))
    again = lines_of(vae, vae.reconstruct(shown))
    return "\n".join(f"{one}\n{other}\n" for one, other in zip(x, again, strict=True))


def _samples(vae: VAE, seed: int) -> str:
    return "\n".join(lines_of(vae, vae.generate(NUM_SHOWN, seed, draws=True))) + "\n"


def _interpolations(vae: VAE, shown) -> str:
    z = np.asarray(sampling.point(vae.encode(shown)))
    paths = [
        lines_of(vae, sampling.point(vae.decode(np.linspace(start, end, NUM_STEPS))))
        for start, end in zip(z[::2], z[1::2], strict=False)
    ]
    return "\n\n".join(map("\n".join, paths)) + "\n"
