"""MIWAE: imputation of tables of which half is missing (Mattei & Frellsen, 2019, arXiv:1812.02633).

Reproduced: half of the values of a table are taken away at random. A VAE learns from the other half by the bound of
IWAE over the observed values alone, and fills in the rest by importance sampling. Beside it: the mean of each column,
and scikit-learn's KNNImputer and IterativeImputer. The number is the root mean squared error of the missing values, in
standard deviations of their columns.

Changed: the tables are those that scikit-learn ships, and the methods beside it are its own; the likelihood is normal
with a learned scale for each column, not Student's t; two hidden layers of 64 units train for 2,000 steps.

Run: python examples/papers/miwae.py --output papers/miwae (`--smoke`: one table, few steps)
The same command goes on after an interruption: each table and seed is written down when it is done.
"""

import argparse
import functools
from pathlib import Path

import keras
import numpy as np
import sklearn.datasets
import stages
from matplotlib.figure import Figure
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

import tfp_vae
from tfp_vae import layers as tfpl
from tfp_vae import networks, objectives

TABLES = ("breast_cancer", "wine", "diabetes")
LATENT, HIDDEN, NUM_SAMPLES = 10, 64, 20
SHARE = 0.5


def load(name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a table and the same with half of the values missing, both in the units of the latter."""
    x = getattr(sklearn.datasets, f"load_{name}")().data
    missing = np.random.default_rng(seed).uniform(size=x.shape) < SHARE
    seen = np.where(missing, np.nan, x)
    loc, scale = np.nanmean(seen, 0), np.nanstd(seen, 0)
    return (x - loc) / scale, (seen - loc) / scale


def make_vae(seen: np.ndarray, seed: int) -> tfp_vae.VAE:
    """Make a VAE of a table with missing values."""
    keras.utils.set_random_seed(seed)
    dim = seen.shape[1]
    posterior = tfpl.MultivariateNormalDiag(LATENT)
    likelihood = tfpl.IndependentNormalLearnedScale(dim, scale_shape=(dim,), rate=3.0)
    to_posterior = [
        keras.layers.Dense(HIDDEN, "tanh"),
        keras.layers.Dense(HIDDEN, "tanh"),
        keras.layers.Dense(posterior.params_size(LATENT)),
        posterior,
    ]
    decoder = networks.mlp(
        (LATENT,), likelihood.params_size(dim), hidden_sizes=(HIDDEN, HIDDEN), activation="tanh"
    )
    return tfp_vae.VAE(
        networks.from_inputs({"x": networks.observed(seen)}, to_posterior),
        keras.Sequential([decoder, likelihood]),
        objective=objectives.IWAE(NUM_SAMPLES),
        missing=True,
        seed=seed,
    )


def impute(seen: np.ndarray, seed: int, steps: int, num_samples: int) -> np.ndarray:
    """Train on what is observed, and fill in the rest."""
    vae = make_vae(seen, seed)
    per_epoch = len(seen) // 32
    vae.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, steps)))
    vae.fit(seen.astype("float32"), batch_size=32, epochs=steps // per_epoch, verbose=0)
    return vae.impute(seen.astype("float32"), num_samples)


def errors(name: str, seed: int, steps: int, num_samples: int) -> dict[str, dict[str, float]]:
    """Return the root mean squared error of each method."""
    x, seen = load(name, seed)
    filled = {
        "MIWAE": impute(seen, seed, steps, num_samples),
        "mean": SimpleImputer().fit_transform(seen),
        "KNNImputer": KNNImputer().fit_transform(seen),
        "IterativeImputer": IterativeImputer(max_iter=20, tol=1e-2).fit_transform(seen),
    }
    missing = np.isnan(seen)
    numbers = {
        method: float(np.sqrt(np.mean((values - x)[missing] ** 2)))
        for method, values in filled.items()
    }
    return {"numbers": numbers}


def draw(path: Path, results: dict) -> None:
    """Draw the error of each method on each table."""
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    methods = [*next(iter(results.values()))]
    for place, method in enumerate(methods):
        found = [numbers[method] for numbers in results.values()]
        x = np.arange(len(found)) + (place - (len(methods) - 1) / 2) * 0.2
        values, spread = np.transpose(found)
        axes.bar(x, values, 0.18, yerr=spread, capsize=3, label=method)
    axes.set_xticks(range(len(results)), [name.replace("_", " ") for name in results])
    axes.set_ylabel("error, standard deviations")
    figure.legend(loc="outside upper center", ncols=len(methods))
    figure.savefig(path, dpi=80)


def main(arguments: list[str] | None = None) -> dict:
    """Measure, or go on measuring, each table and seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--num-samples", type=int, default=1000, help="draws of an imputation")
    parser.add_argument("--output", type=Path, default=Path("papers/miwae"))
    parser.add_argument("--smoke", action="store_true", help="seconds, one table")
    given = parser.parse_args(arguments)
    tables, seeds, steps, num_samples = TABLES, given.seeds, given.steps, given.num_samples
    if given.smoke:
        tables, seeds, steps, num_samples = ("breast_cancer",), 1, 250, 50
    options = {"steps": steps, "num_samples": num_samples}
    results = {}
    for name in tables:
        make = functools.partial(errors, name, steps=steps, num_samples=num_samples)
        runs = stages.of_seeds(given.output, name, seeds, options, make)
        results[name] = stages.summary([run["numbers"] for run in runs])
    for name, numbers in results.items():
        print(f"{name}:  {stages.in_words(numbers)}")
    stages.write(given.output / "results.json", results)
    draw(given.output / "miwae.png", results)
    return results


if __name__ == "__main__":
    main()
