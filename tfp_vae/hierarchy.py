"""Encoders and priors with several stochastic layers; z1 is the layer next to the data.

There is a function for each of the two usual architectures.

>>> from tfp_vae import layers as tfpl, networks
>>> encoder, prior = bottom_up(networks.mlp((8, 8, 1), 100), (16, 4))
>>> likelihood = tfpl.IndependentBernoulli((8, 8, 1))
>>> decoder = keras.Sequential([keras.Input((16,), name="z1"), keras.layers.Dense(64), likelihood])
>>> encoder(np.zeros([3, 8, 8, 1])).sample(seed=0)["z2"].shape, prior(None).sample(seed=0)["z1"].shape
(TensorShape([3, 4]), TensorShape([16]))
"""

from collections.abc import Sequence

import keras
import numpy as np

from tfp_vae.checks import as_count
from tfp_vae.layers import Joint, MultivariateNormalDiag, ProductOfNormals
from tfp_vae.priors import StandardNormal


def bottom_up(
    network: keras.Model,
    latent_sizes: Sequence[int],
    *,
    hidden_size: int | Sequence[int] = 200,
    top=None,
    activation="relu",
) -> tuple[keras.Model, Joint]:
    """Build q(z1|x) q(z2|z1) ... and p(zL) ... p(z1|z2): each latent is told by the one below.

    When to use: whole and details need latents of their own, in two layers.

    The decoder takes z1: give its `keras.Input` that name. `tfp_vae.VAE(encoder, decoder,
    prior=prior)` is the hierarchical VAE of the IWAE paper. Any objective that does not need
    independent latents can train it.

    Reference: Burda et al., 2016, Importance Weighted Autoencoders, arXiv:1509.00519.

    Args:
        network: Keras model from x to features, `[batch, num_features]`.
        latent_sizes: dimensions of z1, z2, ...
        hidden_size: width of the hidden layer between two latents, or of each of several.
        top: prior of the last latent, a Keras layer; None takes `priors.StandardNormal`.
        activation: of the features and the hidden layers.

    Returns:
        Encoder and prior.

    Raises:
        ValueError: if there are not at least two latents, or a size is below 1.
    """
    sizes = check_sizes(latent_sizes)
    parts = {"z1": keras.Sequential([keras.layers.Activation(activation), *_ending(sizes[0])])}
    for k in range(1, len(sizes)):
        parts[f"z{k + 1}"] = _normal(f"z{k}", sizes[k - 1], sizes[k], hidden_size, activation)
    inputs = keras.Input(network.input_shape[1:])
    encoder = keras.Model(inputs, Joint(parts)(network(inputs)), name="encoder")
    return encoder, _prior(sizes, _top_down(sizes, hidden_size, activation), top)


def ladder(
    network: keras.Model,
    latent_sizes: Sequence[int],
    *,
    hidden_size: int = 200,
    top=None,
    activation="relu",
) -> tuple[keras.Model, Joint]:
    """Build q(zL|x) ... q(z1|z2, x) and p(zL) ... p(z1|z2), which share the path from above.

    When to use: there are three layers or more, of which the upper ones would collapse from the
    bottom up.

    The posterior of each latent below the top is the product of two normals: one from its features,
    and the prior given the latent above.

    Reference: Soenderby et al., 2016, Ladder variational autoencoders, arXiv:1602.02282.

    Args:
        network: Keras model from x to features, `[batch, num_features]`.
        latent_sizes: dimensions of z1, z2, ...
        hidden_size: width of the hidden layers: those between two latents, and those of the
            bottom-up path.
        top: prior of the last latent, a Keras layer; None takes `priors.StandardNormal`.
        activation: of the features and the hidden layers.

    Returns:
        Encoder and prior.

    Raises:
        ValueError: if there are not at least two latents, or a size is below 1.
    """
    sizes = check_sizes(latent_sizes)
    inputs = keras.Input(network.input_shape[1:])
    features = {"d1": keras.layers.Activation(activation)(network(inputs))}
    for k in range(1, len(sizes)):
        features[f"d{k + 1}"] = keras.layers.Dense(hidden_size, activation)(features[f"d{k}"])
    top_down = _top_down(sizes, hidden_size, activation)
    parts: dict = {}
    for k in reversed(range(len(sizes))):
        name = f"d{k + 1}"
        bottom_up = keras.Sequential(
            [keras.Input(features[name].shape[1:], name=name), *_ending(sizes[k])]
        )
        parts[f"z{k + 1}"] = (
            ProductOfNormals([bottom_up, top_down[k]]) if k < len(top_down) else bottom_up
        )
    encoder = keras.Model(inputs, Joint(parts)(features), name="encoder")
    return encoder, _prior(sizes, top_down, top)


def check_sizes(latent_sizes: Sequence[int]) -> list[int]:
    """Return the sizes of at least two latents, or raise a ValueError."""
    sizes = [
        as_count(size, "a latent size") for size in np.atleast_1d(np.asarray(latent_sizes, object))
    ]
    if len(sizes) < 2:
        raise ValueError(
            f"A hierarchy has at least two latents, received latent_sizes={latent_sizes!r}."
        )
    return sizes


def _ending(size: int) -> list[keras.layers.Layer]:
    return [
        keras.layers.Dense(MultivariateNormalDiag.params_size(size)),
        MultivariateNormalDiag(size),
    ]


def _normal(name: str, from_size: int, size: int, hidden_size, activation) -> keras.Sequential:
    widths = [
        as_count(width, "hidden_size") for width in np.atleast_1d(np.asarray(hidden_size, object))
    ]
    hidden = [keras.layers.Dense(width, activation) for width in widths]
    return keras.Sequential([keras.Input((from_size,), name=name), *hidden, *_ending(size)])


def _top_down(sizes: Sequence[int], hidden_size, activation) -> list[keras.Sequential]:
    """Return p(z1|z2), p(z2|z3), ..."""
    return [
        _normal(f"z{k + 2}", sizes[k + 1], sizes[k], hidden_size, activation)
        for k in range(len(sizes) - 1)
    ]


def _prior(sizes: Sequence[int], top_down: Sequence[keras.Model], top) -> Joint:
    parts = {f"z{len(sizes)}": StandardNormal(sizes[-1]) if top is None else top}
    for k in reversed(range(len(top_down))):
        parts[f"z{k + 1}"] = top_down[k]
    return Joint(parts)


__all__ = ["bottom_up", "ladder"]
