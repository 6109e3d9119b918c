"""Importance weighted autoencoders, table 1, one or two stochastic layers (Burda et al., 2016, arXiv:1509.00519).

Reproduced: the NLL of MNIST's 10,000 test images by 5,000 draws each, and the number of active units of 50, of a VAE
(`--k 1`) and of IWAE with 5 and 50 draws. Their network, exactly: 784-200-200-50 with tanh, mirrored, or with
`--layers 2` 784-200-200-100-100-100-50; a Bernoulli likelihood whose bias begins at the logit of the clipped training
mean; all 60,000 training images, binarized anew in each epoch.

Changed: batches of 100 and Adam from 1e-3 by a cosine to 0 over `--epochs`, for batches of 20 and eight stages of
falling rates over 3,280 epochs; the KL divergence of the VAE is analytic; test images are binarized once, by a seed;
scales are softplus of the network's output, not exp.

Run: python examples/papers/iwae.py --k 1 --epochs 1200 --output papers/iwae-1
The same command goes on after an interruption, or after `--hours`, as if there had been none. The folder then holds
`curve.json`, `curve.png`, `model.keras`, and after the last epoch `results.json`. With `--start papers/iwae-5` the
weights begin as those of that run: an epoch with 50 draws takes as long as eight with 5.
"""

import argparse
import dataclasses
import math
from pathlib import Path

import keras
import numpy as np
import stages

import tfp_vae
from tfp_vae import datasets, evaluation, hierarchy, networks, objectives, sources
from tfp_vae import layers as tfpl

LATENT, HIDDEN = 50, (200, 200)
# With two stochastic layers: of the lower one, and of the layers between the two.
LOWER, BETWEEN = 100, (100, 100)


def load(smoke: bool = False) -> datasets.Splits:
    """Load MNIST with all of its training images as bytes; or small digits."""
    if smoke:
        x = (sources.load_digits()["x"] * (255 / 16)).astype("uint8")
        return datasets.load(x, likelihood="IndependentBernoulli")
    train, held_out, _ = sources.load_tfds("mnist", {"x": "image"})
    splits = datasets.load("mnist")
    return dataclasses.replace(splits, train=np.concatenate([train["x"], held_out["x"]]))


def make_vae(
    splits: datasets.Splits, objective: objectives.Objective, seed: int, layers: int
) -> tfp_vae.VAE:
    """Make the paper's network."""
    keras.utils.set_random_seed(seed)
    shape, tanh = splits.event_shape, {"hidden_sizes": HIDDEN, "activation": "tanh"}
    prior, size = None, LATENT if layers == 1 else LOWER
    if layers == 1:
        posterior = tfpl.MultivariateNormalDiag(LATENT)
        encoder = keras.Sequential([networks.mlp(shape, 2 * LATENT, **tanh), posterior])
    else:
        features = networks.mlp(shape, HIDDEN[1], hidden_sizes=HIDDEN[:1], activation="tanh")
        encoder, prior = hierarchy.bottom_up(
            features, (LOWER, LATENT), hidden_size=BETWEEN, activation="tanh"
        )
    to_logits = networks.mlp((size,), math.prod(shape), **tanh)
    mean = np.clip(splits.train.mean(0, dtype="float64") / 255, 0.001, 0.999)
    to_logits.layers[-1].bias.assign(np.log(mean / (1 - mean)).reshape(-1))
    z = keras.Input((size,), name="z" if layers == 1 else "z1")
    decoder = keras.Sequential([z, to_logits, tfpl.IndependentBernoulli(shape)])
    return tfp_vae.VAE(encoder, decoder, prior=prior, objective=objective, seed=seed)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train or go on, and judge at the end."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--k", type=int, default=1, help="draws of z; 1 is the VAE")
    parser.add_argument("--estimator", default="standard", help="of IWAE: standard, stl, dreg")
    parser.add_argument("--layers", type=int, choices=(1, 2), default=1, help="stochastic ones")
    parser.add_argument("--epochs", type=int, default=1200)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="the first one")
    parser.add_argument("--start", help="a folder of another run, whose weights are the first ones")
    parser.add_argument("--every", type=int, default=10, help="epochs between two saves")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-samples", type=int, default=5000, help="draws of the NLL")
    parser.add_argument("--hours", type=float, default=math.inf, help="of this call's training")
    parser.add_argument("--output", type=Path, default=Path("papers/iwae"))
    parser.add_argument("--smoke", action="store_true", help="seconds, on small digits")
    given = vars(parser.parse_args(arguments))
    folder, hours, smoke = (given.pop(name) for name in ("output", "hours", "smoke"))
    if smoke:
        given |= {"epochs": min(given["epochs"], 4), "every": 2, "num_samples": 20}
    splits = load(smoke)
    steps = given["epochs"] * splits.steps_per_epoch(given["batch_size"])
    bound = objectives.IWAE(given["k"], given["estimator"])
    objective = objectives.ELBO() if given["k"] == 1 else bound
    vae = make_vae(splits, objective, given["seed"], given["layers"])
    rate = keras.optimizers.schedules.CosineDecay(given["learning_rate"], steps)
    vae.compile(keras.optimizers.Adam(rate))
    if given["start"]:
        vae.set_weights(keras.models.load_model(Path(given["start"]) / "model.keras").get_weights())

    def judge(vae):
        terms = evaluation.elbo(vae, splits.test)
        return {"-bound": float(terms["loss"].mean()), "-ELBO": float(-terms["elbo"].mean())}

    vae, curve = stages.fit(vae, splits, folder, given, judge, hours=hours)
    title = "two layers, " * (given["layers"] - 1) + f"k = {given['k']}"
    stages.draw(folder / "curve.png", {title: curve}, "-bound", "-bound of test images, nats")
    if curve[-1]["epoch"] < given["epochs"]:
        print(f"{curve[-1]['epoch']} of {given['epochs']} epochs: call again to go on.")
        return curve[-1]
    return stages.judge_once(vae, splits.test, folder, curve, given["num_samples"])


if __name__ == "__main__":
    main()
