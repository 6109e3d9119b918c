"""Texts of a model of sequences: they take the place of pictures."""

import numpy as np

from tfp_vae import datasets
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


def texts(vae: VAE, splits: datasets.Splits, seed: int) -> dict[str, str]:
    """Return reconstructions, samples and, without a condition, interpolations, by file name."""
    shown = _first(splits.test, NUM_SHOWN)
    x = lines_of(vae, datasets.x_of(shown))
    again = lines_of(vae, vae.reconstruct(shown))
    pairs = [f"{one}\n{other}\n" for one, other in zip(x, again, strict=True)]
    written = {"reconstructions.txt": "\n".join(pairs)}
    if splits.conditions is None:
        drawn = vae.generate(NUM_SHOWN, seed, draws=True)
        written["samples.txt"] = "\n".join(lines_of(vae, drawn)) + "\n"
        z = vae.encode(shown).mean().numpy()
        paths = [
            lines_of(vae, vae.decode(np.linspace(start, end, NUM_STEPS)).greedy())
            for start, end in zip(z[::2], z[1::2], strict=True)
        ]
        written["interpolations.txt"] = "\n\n".join(map("\n".join, paths)) + "\n"
    return written


def _first(data, number: int):
    if isinstance(data, dict):
        return {name: part[:number] for name, part in data.items()}
    return data[:number]
