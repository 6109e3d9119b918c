"""Sigma-VAE: a calibrated decoder needs no beta (Rybkin et al., 2021, arXiv:2006.13202).

Reproduced: a normal likelihood of a fixed sigma is the squared error, with the KL divergence weighted by beta =
2 sigma^2. With too large a sigma, as the usual 1, images are vague; with too small a one, samples of the prior look
like nothing. A learned sigma, or the optimal one, the root mean squared error, finds the best without a search. All are
judged by their NLL, those with a fixed sigma also with the sigma that fits the finished model.

Changed: the digits of scikit-learn, or Fashion-MNIST, for SVHN, CelebA and robots; likelihood and samples, no FID.

Run: python examples/papers/sigma_vae.py --output papers/sigma (`--smoke`: in seconds)
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

import tfp_vae
from tfp_vae import datasets, evaluation, networks, sources
from tfp_vae import layers as tfpl

tfd = tfp.distributions
LATENT, NUM_PICTURES = 16, 12
FIXED = (1.0, 0.5, 0.25, 0.1, 0.05)


def load(name: str) -> datasets.Splits:
    """Load images as real numbers from 0 to 1, dequantized anew in each epoch."""
    of_digits = (sources.load_digits()["x"] * (255 / 16)).astype("uint8")
    return datasets.load(of_digits if name == "digits" else name, likelihood="IndependentNormal")


def fixed(shape: tuple, sigma: float) -> keras.layers.Layer:
    """Return the likelihood of a fixed sigma: of it, the squared error is minus the logarithm."""
    return tfpl.DistributionLambda(
        lambda params: tfpl.IndependentNormalLearnedScale.new(params, shape, sigma)
    )


def likelihoods(shape: tuple) -> dict[str, keras.layers.Layer]:
    """Return the likelihood of each model by its name."""
    return {
        **{f"sigma {sigma}": fixed(shape, sigma) for sigma in FIXED},
        "learned": tfpl.IndependentNormalLearnedScale(shape),
        "optimal": tfpl.IndependentNormalOptimalScale(shape),
    }


def train(splits: datasets.Splits, name: str, seed: int, options: dict) -> dict:
    """Train a model; return its numbers, in nats per image, and samples."""
    keras.utils.set_random_seed(seed)
    shape, hidden = splits.event_shape, {"hidden_sizes": (options["hidden"],)}
    features = networks.mlp(shape, 2 * LATENT, **hidden)
    encoder = keras.Sequential([features, tfpl.MultivariateNormalDiag(LATENT)])
    to_loc = networks.mlp((LATENT,), math.prod(shape), **hidden)

    def with_likelihood(likelihood):
        return tfp_vae.VAE(encoder, keras.Sequential([to_loc, likelihood]), seed=seed)

    vae, epochs = with_likelihood(likelihoods(shape)[name]), options["epochs"]
    steps = splits.steps_per_epoch(100)
    vae.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps * epochs)))
    batches = splits.batches(100, seed=seed, epochs=epochs)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The posterior has collapsed")  # with a large sigma
        fitted = vae.fit(batches, steps_per_epoch=steps, epochs=epochs, verbose=0)
    sigma = float(vae.decode(np.zeros([1, LATENT])).stddev().numpy().flat[0])
    numbers = {"sigma": sigma, **judge(vae, splits, options)}
    if name.startswith("sigma"):
        error = root_mean_squared_error(
            fitted.history["log_likelihood"][-1], sigma, math.prod(shape)
        )
        mended = judge(with_likelihood(fixed(shape, error)), splits, options)
        numbers |= {"fitted sigma": error, "nll, fitted sigma": mended["nll"]}
    return {"numbers": numbers, "samples": vae.generate(NUM_PICTURES).tolist()}


def root_mean_squared_error(log_likelihood: float, sigma: float, dim: int) -> float:
    """Return the error in log p(x|z) = -dim/2 (log(2 pi sigma^2) + error^2 / sigma^2)."""
    return sigma * math.sqrt(-2 * log_likelihood / dim - math.log(2 * math.pi * sigma**2))


def judge(vae: tfp_vae.VAE, splits: datasets.Splits, options: dict) -> dict[str, float]:
    """Return numbers of the test images, in nats per image."""
    numbers = evaluation.evaluate(
        vae, splits.test[: options["num_images"]], num_samples=options["num_samples"]
    )
    return {name: numbers[name] for name in ("nll", "negative_elbo", "kl", "active_units")}


def draw(path: Path, pictures: dict[str, np.ndarray], results: dict) -> None:
    """Draw a row of samples for each model, with its NLL."""
    figure = Figure(figsize=(9, 0.72 * len(pictures)), layout="constrained")
    for axes, (name, x) in zip(
        figure.subplots(len(pictures), NUM_PICTURES), pictures.items(), strict=True
    ):
        for axis, image in zip(axes, x, strict=True):
            axis.imshow(image[..., 0], cmap="gray", vmin=0.0, vmax=1.0)
            axis.set(xticks=[], yticks=[])
        text = f"{name}\nNLL {results[name]['nll'][0]:.0f}" if name in results else name
        axes[0].set_ylabel(text, rotation=0, ha="right", va="center", fontsize=9)
    figure.savefig(path, dpi=80)


def main(arguments: list[str] | None = None) -> dict:
    """Train, or go on training, each model with each seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="digits", help="digits, fashion_mnist, mnist")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--hidden", type=int, default=200)
    parser.add_argument("--num-samples", type=int, default=500, help="draws of the NLL")
    parser.add_argument("--num-images", type=int, default=10_000, help="test images, at most")
    parser.add_argument("--output", type=Path, default=Path("papers/sigma"))
    parser.add_argument("--smoke", action="store_true", help="seconds, three models")
    given = vars(parser.parse_args(arguments))
    folder, seeds, smoke = (given.pop(name) for name in ("output", "seeds", "smoke"))
    names = [f"sigma {sigma}" for sigma in FIXED] + ["learned", "optimal"]
    if smoke:
        given |= {"epochs": 15, "hidden": 64, "num_samples": 20}
        names, seeds = ["sigma 1.0", "learned"], 1
    splits = load(given["dataset"])
    results, pictures = {}, {"data": splits.test[:NUM_PICTURES]}
    for name in names:
        make = functools.partial(train, splits, name, options=given)
        runs = stages.of_seeds(folder, name, seeds, given, make)
        results[name] = stages.summary([run["numbers"] for run in runs])
        pictures[name] = np.array(runs[0]["samples"])
    for name, numbers in results.items():
        print(f"{name:12}{stages.in_words(numbers)}")
    stages.write(folder / "results.json", results)
    draw(folder / "sigma_vae.png", pictures, results)
    return results


if __name__ == "__main__":
    main()
