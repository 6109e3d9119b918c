"""The figures of docs/concepts.md.

Run: python docs/concepts_figures.py docs
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow_probability as tfp
from matplotlib.figure import Figure

import tfp_vae
from tfp_vae import layers as tfpl
from tfp_vae import networks, objectives

tfd = tfp.distributions
SHAPE = (8, 8, 1)
MODELS = {
    "autoencoder": (tfpl.Deterministic, objectives.Reconstruction),
    "VAE": (tfpl.MultivariateNormalDiag, objectives.ELBO),
}
# The model whose evidence has a formula: z is N(0, 1), and x is N(z, NOISE^2); X is what is seen.
NOISE, X = 0.5, 1.5


def trained(kind: str, x: np.ndarray, epochs: int) -> tfp_vae.VAE:
    """Train a model with two latents."""
    keras.utils.set_random_seed(0)
    posterior, objective = MODELS[kind]
    likelihood = tfpl.IndependentBinomial(SHAPE, total_count=16)
    encoder = [networks.mlp(SHAPE, posterior.params_size(2)), posterior(2)]
    decoder = [networks.mlp((2,), likelihood.params_size(SHAPE)), likelihood]
    vae = tfp_vae.VAE(keras.Sequential(encoder), keras.Sequential(decoder), objective=objective())
    vae.compile(keras.optimizers.Adam(2e-3))
    vae.fit(x, batch_size=100, epochs=epochs, verbose=0)
    return vae


def codes(epochs: int) -> Figure:
    """Draw the codes of digits and of the prior, and what eight of the prior's decode to."""
    x = tfp_vae.datasets.load("digits").train
    labels = tfp_vae.datasets.labels("digits", "label")[0].ravel()
    drawn = np.random.default_rng(0).normal(size=(80, 2)).astype("float32")
    figure = Figure(figsize=(9, 5.4), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(6, 1))
    for place, (kind, axes) in enumerate(zip(MODELS, upper.subplots(1, 2), strict=True)):
        vae = trained(kind, x, epochs)
        z = vae.encode(x).mean()
        axes.scatter(*np.transpose(z), c=labels, cmap="tab10", s=6)
        axes.scatter(*drawn.T, c="black", marker="x", s=14, linewidths=0.8)
        axes.set_title(
            f"{kind}: codes of the data (dots), draws from N(0, I) (crosses)", fontsize=9
        )
        axes.set_aspect("equal", adjustable="datalim")
        images = vae.decode(drawn[:8]).mean()
        for column, image in enumerate(images):
            one = lower.add_subplot(1, 17, 9 * place + column + 1)
            one.imshow(image[..., 0], cmap="gray", vmin=0, vmax=16)
            one.set_axis_off()
    return figure


def bound() -> Figure:
    """Draw the ELBO of a model whose evidence is known, for each scale of q."""
    evidence = tfd.Normal(0.0, np.sqrt(1 + NOISE**2)).log_prob(X).numpy()
    variance = NOISE**2 / (1 + NOISE**2)
    mean = X / (1 + NOISE**2)
    exact = tfd.Normal(mean, np.sqrt(variance))
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    scales = np.linspace(0.08, 1.2, 200).astype("float32")
    for shift, style in ((0.0, "-"), (0.4, "--")):
        # E_q log p(x|z) and KL(q || p(z)), exactly.
        squares = (X - mean - shift) ** 2 + scales**2
        log_likelihood = tfd.Normal(0.0, NOISE).log_prob(0.0) - 0.5 * squares / NOISE**2
        kl = tfd.kl_divergence(tfd.Normal(np.float32(mean + shift), scales), tfd.Normal(0.0, 1.0))
        name = "mean of p(z|x)" if shift == 0.0 else "mean 0.4 too large"
        left.plot(scales, log_likelihood - kl, style, label=f"ELBO, q with the {name}")
    left.axhline(evidence, color="black", linewidth=0.8, label="log p(x)")
    left.axvline(np.sqrt(variance), color="grey", linewidth=0.8, label="scale of p(z|x)")
    left.set(xlabel="scale of q", ylabel="nats", ylim=(evidence - 2.0, evidence + 0.3))
    left.legend(fontsize=8)
    z = np.linspace(-1.5, 3.0, 300).astype("float32")
    right.plot(z, tfd.Normal(0.0, 1.0).prob(z), label="prior p(z)")
    right.plot(z, tfd.Normal(z, NOISE).prob(X), label=f"likelihood p(x={X}|z), not a density of z")
    right.plot(z, exact.prob(z), label="posterior p(z|x)")
    right.set(xlabel="z", ylim=(0.0, 1.3))
    right.legend(fontsize=8, loc="upper left")
    return figure


def main(folder: Path, epochs: int = 150) -> None:
    """Draw both into a folder."""
    codes(epochs).savefig(folder / "concepts_codes.png", dpi=110)
    bound().savefig(folder / "concepts_bound.png", dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
