"""Pictures of latent spaces.

Each function returns a `matplotlib.figure.Figure` to show or to save.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfp_vae import sampling
from tfp_vae.checks import as_count, as_seed, needs
from tfp_vae.plots import grid
from tfp_vae.vae import VAE

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError as error:
    raise needs("tfp_vae.latent_plots", "plots", error) from error

# Draws from the prior whose quantiles place the manifold.
NUM_DRAWS = 10_000
# Labels that have a colour each; more of them share a scale of colours.
MOST_COLOURS = 20
# Bars that have a name each.
MOST_NAMES = 40


def manifold(
    vae: VAE,
    *,
    num_steps: int = 15,
    codes: np.ndarray | None = None,
    condition=None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Show the means of p(x|z) on a lattice of a latent z of two dimensions.

    The lattice stands at the quantiles of the prior in each dimension, so that each picture stands
    for equally much of it.

    Reference: Kingma & Welling, 2014, arXiv:1312.6114, figure 4.

    Args:
        vae: a VAE with one latent of two dimensions.
        num_steps: pictures in each direction.
        codes: `[num_codes, 2]`, whose quantiles take the place of the prior's, as those of an
            autoencoder, which does not learn to keep near its prior.
        condition: of a conditional model, the one condition of all pictures.
        limits: values shown black and white; by default the least and the largest of the picture.

    Raises:
        ValueError: if z is of another shape, or x has several parts.

    Example:
    >>> import keras
    >>> from tfp_vae import layers as tfpl
    >>> encoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2)])
    >>> decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(6), tfpl.IndependentNormal(3)])
    >>> len(manifold(VAE(encoder, decoder), num_steps=3).axes)
    9
    """
    if vae.z.shape != (2,) or vae.x.has_parts:
        raise ValueError(
            f"The manifold needs a z of shape (2,) and an x without parts, received z of shape "
            f"{vae.z.shape} and x of shape {vae.x.shape}."
        )
    if codes is None:
        codes = vae.prior_distribution(condition).sample(NUM_DRAWS, seed=[0, 0])
    steps = as_count(num_steps, "num_steps")
    places = np.quantile(codes, (np.arange(steps) + 0.5) / steps, axis=0).astype("float32")
    across, up = np.meshgrid(places[:, 0], places[::-1, 1])
    z = np.stack([across, up], axis=-1)
    return grid(np.asarray(sampling.point(vae.decode(z, condition))), "", limits=limits)


def latent_map(codes: np.ndarray, labels: np.ndarray | None = None, *, seed: int = 0) -> Figure:
    """Show codes as points in the plane, coloured by their labels.

    Codes of two dimensions stay as they are. Others are mapped by UMAP if it is installed (McInnes
    et al., 2018, arXiv:1802.03426), else by their two principal components. All codes are in
    memory: of many examples take some.

    Args:
        codes: `[num_examples, latent]`, such as `evaluation.posterior_means`; two dimensions at
            least.
        labels: `[num_examples]`: whole numbers, of which up to 20 have a colour each, or other
            numbers, on a scale of colours.
        seed: of UMAP.

    Raises:
        ValueError: if the codes have one dimension.

    Example:
    >>> figure = latent_map(np.random.default_rng(0).normal(size=(50, 5)), np.arange(50) % 3)
    >>> figure.axes[0].get_xlabel()[:21], len(figure.axes[0].collections)
    ('principal component 1', 3)
    """
    points, names = _in_the_plane(np.asarray(codes, "float64"), as_seed(seed))
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    style: dict[str, Any] = {
        "s": float(np.clip(4000 / len(points), 4, 40)),
        "linewidths": 0,
        "alpha": 0.8,
    }
    if labels is None:
        axes.scatter(points[:, 0], points[:, 1], **style)
    elif labels.dtype.kind in "iu" and len(np.unique(labels)) <= MOST_COLOURS:
        _by_label(axes, points, labels, style)
    else:
        figure.colorbar(axes.scatter(points[:, 0], points[:, 1], c=labels, **style), ax=axes)
    axes.set(xlabel=names[0], ylabel=names[1])
    axes.set_aspect("equal", adjustable="datalim")
    return figure


def _by_label(axes: Axes, points: np.ndarray, labels: np.ndarray, style: dict) -> None:
    known = np.unique(labels)
    colours = matplotlib.colormaps["tab10" if len(known) <= 10 else "tab20"]
    for place, label in enumerate(known):
        colour = colours(place)
        own = points[labels == label]
        axes.scatter(own[:, 0], own[:, 1], color=colour, label=str(label), **style)
        # Also for those who cannot tell the colours apart.
        axes.annotate(
            str(label),
            np.median(own, axis=0),
            ha="center",
            va="center",
            fontsize="large",
            fontweight="bold",
            color=colour,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": colour},
        )
    axes.legend(markerscale=2, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _in_the_plane(codes: np.ndarray, seed: int) -> tuple[np.ndarray, tuple[str, str]]:
    """Return points, `[num_examples, 2]`, and the names of the axes."""
    number, size = codes.shape
    if size < 2:
        raise ValueError(f"A map needs codes of at least two dimensions, received {size}.")
    if size == 2:
        return codes, ("z0", "z1")
    if importlib.util.find_spec("umap") and number > size:
        import umap

        return umap.UMAP(random_state=seed, n_jobs=1).fit_transform(codes), ("UMAP 1", "UMAP 2")
    centred = codes - codes.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros([number, 2])
    points[:, : min(2, len(singular))] = (left * singular)[:, :2]
    shares = np.resize(singular**2 / max((singular**2).sum(), 1e-12), max(2, len(singular)))
    return points, (
        f"principal component 1 ({shares[0]:.0%} of the variance)",
        f"principal component 2 ({shares[1]:.0%} of the variance)",
    )


def kl_bars(kl: Mapping[str, float], active: Mapping[str, bool]) -> Figure:
    """Show the KL divergence of each latent dimension, the largest first, active ones filled.

    Args:
        kl: nats by the name of a dimension, such as "z0".
        active: whether its posterior mean varies over the data, see `evaluation.active_units`.

    >>> axes = kl_bars({"z0": 0.01, "z1": 2.5}, {"z0": False, "z1": True}).axes[0]
    >>> [float(bar.get_height()) for bar in axes.patches], [label.get_text() for label in axes.get_xticklabels()]
    ([2.5, 0.01], ['z1', 'z0'])
    """
    names = sorted(kl, key=lambda name: -kl[name])
    figure = Figure(
        figsize=(float(np.clip(0.3 * len(names) + 2, 5, 11)), 3.2), layout="constrained"
    )
    axes = figure.subplots()
    groups = {"active": [name for name in names if active[name]]}
    groups["not active"] = [name for name in names if not active[name]]
    filled: dict[str, dict] = {
        "active": {"color": "C0"},
        "not active": {"edgecolor": "C0", "facecolor": "none"},
    }
    for label, group in groups.items():
        if not group:
            continue
        places = [names.index(name) for name in group]
        axes.bar(
            places, [kl[name] for name in group], label=f"{label} ({len(group)})", **filled[label]
        )
    if len(names) <= MOST_NAMES:
        axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 12 else 0)
    axes.set(xlabel="latent dimension", ylabel="nats per example")
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)
    return figure


def rate_distortion(
    betas: Sequence[float | str],
    rate: Sequence[float],
    distortion: Sequence[float],
    encoder: tuple[float, float] | None = None,
) -> Figure:
    """Show the curve of a decoder, as `evaluation.rate_distortion` finds it.

    Args:
        betas: weights of the likelihood, written beside their points.
        rate: nats per example, of each beta.
        distortion: nats per example, of each beta.
        encoder: rate and distortion of an encoder: above the curve, or on it if it is the best one.

    >>> axes = rate_distortion([0.1, 1.0], [2.0, 9.0], [90.0, 70.0], (10.0, 72.0)).axes[0]
    >>> axes.get_xlabel(), [text.get_text() for text in axes.texts]
    ('rate (nats per example)', ['beta 0.1', 'beta 1'])
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    order = np.argsort(rate)
    axes.plot(np.take(rate, order), np.take(distortion, order), "C0.-", label="best codes")
    for beta, x, y in zip(betas, rate, distortion, strict=True):
        text = f"beta {float(beta):g}"
        axes.annotate(text, (x, y), xytext=(6, 4), textcoords="offset points", fontsize=8)
    if encoder is not None:
        axes.plot(*[[value] for value in encoder], "C1o", label="encoder")
    axes.set(xlabel="rate (nats per example)", ylabel="distortion (nats per example)")
    axes.margins(x=0.15)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


__all__ = ["kl_bars", "latent_map", "manifold", "rate_distortion"]
