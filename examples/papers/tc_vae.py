"""Disentanglement by a penalty on total correlation alone (Chen et al., 2018, arXiv:1802.04942; Kim & Mnih, 2018,
arXiv:1802.05983).

Reproduced: with a larger beta, a VAE keeps less of x in z. BetaTCVAE and FactorVAE weigh only that part of the KL
divergence in which latent dimensions depend on each other, so that they keep more, and single dimensions tell single
factors. Judged by the mutual information gap (MIG) and the score of FactorVAE, over seeds.

Changed: shapes that `tfp_vae.shapes` renders, 32 x 32, for dSprites; 80,000 of them; small dense networks and few
epochs; a discriminator of three layers.

Run: python examples/papers/tc_vae.py --output papers/tc (`--smoke`: in seconds)
The same command goes on after an interruption: each model and seed is written down when it is done.
"""

import argparse
import functools
import math
from pathlib import Path

import keras
import numpy as np
import stages
from matplotlib.figure import Figure

import tfp_vae
from tfp_vae import datasets, evaluation, networks, objectives, shapes
from tfp_vae import layers as tfpl

LATENT = 10
NUMBERS = {"MIG": "MIG", "FactorVAE score": "score of FactorVAE"}


def load(number: int) -> tuple[datasets.Splits, np.ndarray]:
    """Render shapes; return their splits, and the factors of the test images."""
    factors = shapes.draw_factors(number)
    named = dict(zip(shapes.FACTORS, factors.T, strict=True))
    arrays = {"x": shapes.render(factors), **named}
    return datasets.load(arrays), datasets.labels(arrays, *named)[2]


def models(num_examples: int) -> dict[str, objectives.Objective]:
    """Return the objective of each model by its name."""
    return {
        "VAE": objectives.ELBO(),
        "beta-VAE, beta 4": objectives.ELBO(beta=4.0),
        "beta-TCVAE, beta 4": objectives.BetaTCVAE(num_examples, beta=4.0),
        "FactorVAE, gamma 10": objectives.FactorVAE(10.0, hidden_sizes=(256, 256, 256)),
    }


def train(
    splits: datasets.Splits, factors: np.ndarray, name: str, seed: int, options: dict
) -> dict[str, dict]:
    """Train a model; return its scores, and its other numbers in nats per image."""
    keras.utils.set_random_seed(seed)
    shape, hidden = splits.event_shape, {"hidden_sizes": (options["hidden"],) * 2}
    posterior, likelihood = tfpl.MultivariateNormalDiag(LATENT), tfpl.IndependentBernoulli(shape)
    encoder = [networks.mlp(shape, 2 * LATENT, **hidden), posterior]
    decoder = [networks.mlp((LATENT,), math.prod(shape), **hidden), likelihood]
    vae = tfp_vae.VAE(
        keras.Sequential(encoder),
        keras.Sequential(decoder),
        objective=models(len(splits.train))[name],
        seed=seed,
    )
    vae.compile(keras.optimizers.Adam(5e-4))
    epochs, size = options["epochs"], 256
    vae.fit(
        splits.batches(size, seed=seed, epochs=epochs),
        steps_per_epoch=splits.steps_per_epoch(size),
        epochs=epochs,
        verbose=0,
    )
    codes = evaluation.posterior_means(vae, splits.test)
    elbo = evaluation.elbo(vae, splits.test)
    numbers = {
        "MIG": evaluation.mutual_information_gap(codes, factors, seed=seed).value,
        "FactorVAE score": evaluation.factor_vae_score(codes, factors, seed=seed).value,
        "reconstruction": -float(np.mean(elbo["log_likelihood"])),
        "kl": float(np.mean(elbo["kl"])),
        "active units": int(evaluation.active_units(vae, splits.test)),
    }
    return {"numbers": numbers}


def draw(path: Path, rows: dict[str, list[dict]]) -> None:
    """Draw both scores of each model, a point for each seed."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, 2), NUMBERS.items(), strict=True):
        for place, of_model in enumerate(rows.values()):
            scores = [row[name] for row in of_model]
            axes.plot([place] * len(scores), scores, "o", alpha=0.5)
            axes.plot(place, np.mean(scores), "k_", markersize=24)
        axes.set_xticks(range(len(rows)), [key.replace(", ", "\n") for key in rows], fontsize=8)
        axes.margins(0.2)
        axes.set(title=title, ylim=(0.0, None))
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=80)


def main(arguments: list[str] | None = None) -> dict:
    """Train, or go on training, each model with each seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--hidden", type=int, default=400)
    parser.add_argument("--num-images", type=int, default=100_000)
    parser.add_argument("--output", type=Path, default=Path("papers/tc"))
    parser.add_argument("--smoke", action="store_true", help="seconds, two models")
    given = vars(parser.parse_args(arguments))
    folder, seeds, smoke = (given.pop(name) for name in ("output", "seeds", "smoke"))
    names = [*models(1)]
    if smoke:
        given |= {"epochs": 10, "hidden": 100, "num_images": 4_000}
        names, seeds = names[1:3], 1
    splits, factors = load(given["num_images"])
    rows = {name: [] for name in names}
    for seed in range(seeds):
        for name in names:
            make = functools.partial(train, splits, factors, name, seed, given)
            made = stages.once(folder / f"{name} {seed}.json", given, make)
            rows[name].append(made["numbers"])
    results = {name: stages.summary(numbers) for name, numbers in rows.items()}
    for name, numbers in results.items():
        print(f"{name:20}{stages.in_words(numbers)}")
    stages.write(folder / "results.json", results)
    draw(folder / "tc_vae.png", rows)
    return results


if __name__ == "__main__":
    main()
