"""Do not blame the ELBO: when the latents of a linear VAE collapse (Lucas et al., 2019, arXiv:1911.02469).

Reproduced: with a linear decoder and normal noise, the optimum of the ELBO is probabilistic PCA. So -ELBO must come
down to its exact negative log-likelihood; and as the noise sigma^2 grows, the unit of each eigenvalue lambda of the
data's covariance must collapse where sigma^2 = lambda: its posterior mean varies by 1 - sigma^2 / lambda, and not at
all beyond. So it is the likelihood that leaves units unused, not the approximation of the posterior.

Changed: 1,797 digits of 8 x 8 pixels, for MNIST. They are scaled to [0, 1] and have 64 eigenvalues. The objective is
"sticking the landing", whose gradient has no noise at the optimum.

Run: python examples/papers/linear_vae.py --output papers/linear (`--smoke`: 4 latents, in seconds)
The same command goes on after an interruption: each model and seed is written down when it is done.
"""

import argparse
import functools
import math
import warnings
from pathlib import Path

import keras
import numpy as np
import stages
import tensorflow_probability as tfp
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import tfp_vae
from tfp_vae import evaluation, objectives
from tfp_vae import layers as tfpl

tfd = tfp.distributions
BATCH_SIZE = 200


class Exact:
    """Probabilistic PCA (Tipping & Bishop, 1999).

    Args:
        x: data, `[num_examples, dim]`.
        latent: number of latents.
    """

    def __init__(self, x: np.ndarray, latent: int):
        self.x, self.latent = x.astype("float64"), latent
        values, vectors = np.linalg.eigh(np.cov(self.x.T, bias=True))
        self.eigenvalues, self.vectors = values[::-1], vectors[:, ::-1]

    def best_noise(self) -> float:
        """Return the noise of the largest likelihood: the mean of the eigenvalues left out."""
        return float(self.eigenvalues[self.latent :].mean())

    def nll(self, noise: float) -> float:
        """Return the least mean of -log p(x) that a model with this noise can have, in nats."""
        signal = np.maximum(self.eigenvalues - noise, 0.0) * (
            np.arange(len(self.vectors)) < self.latent
        )
        covariance = (self.vectors * (signal + noise)) @ self.vectors.T
        best = tfd.MultivariateNormalTriL(self.x.mean(0), np.linalg.cholesky(covariance))
        return -float(np.mean(best.log_prob(self.x)))

    def variances(self, noise: float) -> np.ndarray:
        """Return how much the posterior mean of each unit varies, the largest first."""
        return np.maximum(1.0 - noise / self.eigenvalues[: self.latent], 0.0)


def make_vae(dim: int, latent: int, noise: float | None, seed: int) -> tfp_vae.VAE:
    """Make a linear VAE; a noise of None is learned."""
    keras.utils.set_random_seed(seed)
    encoder = [keras.Input((dim,)), keras.layers.Dense(2 * latent)]
    decoder = [keras.Input((latent,)), keras.layers.Dense(dim)]
    likelihood = (
        tfpl.IndependentNormalLearnedScale(dim, rate=1.0)
        if noise is None
        else tfpl.DistributionLambda(lambda loc: tfd.Independent(tfd.Normal(loc, noise**0.5), 1))
    )
    return tfp_vae.VAE(
        keras.Sequential([*encoder, tfpl.MultivariateNormalDiag(latent)]),
        keras.Sequential([*decoder, likelihood]),
        objective=objectives.ELBO(kl="sampled", estimator="stl"),
        seed=seed,
    )


def train(x: np.ndarray, exact: Exact, noise: float | None, epochs: int, seed: int) -> dict:
    """Train; return numbers beside what the theory says of the noise, and what each unit does."""
    vae = make_vae(x.shape[1], exact.latent, noise, seed)
    steps = math.ceil(len(x) / BATCH_SIZE)
    schedule = keras.optimizers.schedules.CosineDecay(3e-2, steps * epochs)
    vae.compile(keras.optimizers.Adam(schedule))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The posterior has collapsed")  # as it should
        vae.fit(x, batch_size=BATCH_SIZE, epochs=epochs, verbose=0)
    elbo = np.mean([evaluation.elbo(vae, x, seed=draw)["elbo"] for draw in range(20)])
    found = float(vae.decode(np.zeros([1, exact.latent])).variance()[0, 0])
    means = evaluation.posterior_means(vae, x)
    variances = np.sort(means.var(0, dtype="float64"))[::-1]
    expected = exact.variances(found)
    numbers = {
        "noise": found,
        "-ELBO": -float(elbo),
        "exact": exact.nll(found),
        "gap": -float(elbo) - exact.nll(found),
        "active units": evaluation.active_units(vae, x),
        "eigenvalues above": int((expected > 0.01).sum()),  # by which units count as active
        "error of the variances": float(np.abs(variances - expected).max()),
    }
    return {"numbers": numbers, "variances": variances.tolist()}


def draw(path: Path, exact: Exact, runs: list[dict]) -> None:
    """Draw -ELBO, and how much each unit varies, against the noise, on the exact lines."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    found = [run["numbers"]["noise"] for run in runs]
    noises = np.geomspace(min(found) / 1.3, max(found) * 1.3, 60)
    left.plot(noises, [exact.nll(noise) for noise in noises], "C0", label="exact optimum")
    left.plot(
        found, [run["numbers"]["-ELBO"] for run in runs], "C1o", label="-ELBO of trained VAEs"
    )
    left.axvline(exact.best_noise(), color="gray", ls=":", label="noise of the largest likelihood")
    left.set(xscale="log", xlabel="noise sigma^2", ylabel="nats per image")
    left.legend()
    right.plot(noises, [exact.variances(noise) for noise in noises], "C0", lw=0.8)
    right.plot(found, [run["variances"] for run in runs], "C1.")
    right.set(xscale="log", xlabel="noise sigma^2", ylabel="variance of the posterior mean")
    right.set_title("each unit collapses at its eigenvalue", fontsize=10)
    figure.savefig(path, dpi=80)


def main(arguments: list[str] | None = None) -> dict:
    """Train with a learned noise and with fixed ones, and compare with the exact optimum."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--latent", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--epochs",
        type=int,
        default=4000,
        help="with a learned noise; a fifth of it with a fixed one",
    )
    parser.add_argument("--output", type=Path, default=Path("papers/linear"))
    parser.add_argument("--smoke", action="store_true", help="seconds, few latents and epochs")
    given = parser.parse_args(arguments)
    latent, epochs, seeds = (4, 50, 1) if given.smoke else (given.latent, given.epochs, given.seeds)
    x = (load_digits().data / 16).astype("float32")
    exact = Exact(x, latent)
    # Halfway between two eigenvalues, so that it is known how many are above; and above all.
    counts = (3,) if given.smoke else (9, 7, 5, 3, 1, 0)
    above = [2 * exact.eigenvalues[0], *exact.eigenvalues]
    of_fixed = epochs if given.smoke else epochs // 5
    options = {"latent": latent, "epochs": epochs}
    models: dict[str, tuple[float | None, int]] = {"learned": (None, epochs)}
    for count in counts:
        noise = float((above[count] * above[count + 1]) ** 0.5)
        models[f"noise {noise:.4f}"] = (noise, of_fixed)
    runs, results = [], {"optimum": exact.nll(exact.best_noise())}
    for name, model in models.items():
        make = functools.partial(train, x, exact, *model)
        of_seeds = stages.of_seeds(given.output, name, seeds, options, make)
        results[name] = stages.summary([run["numbers"] for run in of_seeds])
        print(f"{name:12} {stages.in_words(results[name])}")
        runs += of_seeds
    print(f"probabilistic PCA {results['optimum']:.3f}")
    stages.write(given.output / "results.json", results)
    draw(given.output / "linear_vae.png", exact, runs)
    return results


if __name__ == "__main__":
    main()
