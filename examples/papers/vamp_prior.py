"""VAE with a VampPrior, one stochastic layer (Tomczak & Welling, 2018, arXiv:1705.07120).

Reproduced: at equal networks and epochs, a prior that is the mixture of the posteriors of 500 learned pseudo-inputs
gives MNIST a better likelihood than N(0, I). The network is theirs: two gated layers of 300 units in encoder and
decoder, 40 latents, Bernoulli likelihood; images binarized anew in each epoch, batches of 100, Adam at 5e-4, warm-up of
beta.

Changed: the pseudo-inputs begin at training images; epochs are fixed, for a stop after 50 without gain; all 60,000
training images are used; the NLL is estimated by `--num-samples` draws.

Run: python examples/papers/vamp_prior.py --epochs 400 --warm-up 100 --output papers/vamp (`--smoke`: in seconds)
The same command goes on after an interruption, as if there had been none.
"""

import argparse
import math
from pathlib import Path

import iwae
import keras
import stages
from keras.layers import Dense, Flatten, Multiply

import tfp_vae
from tfp_vae import datasets, evaluation, objectives, priors
from tfp_vae import layers as tfpl

LATENT, HIDDEN = 40, 300
PRIORS = ("standard", "vamp")


def gated(x, size: int):
    """Apply a gated layer: a linear one times a sigmoid one."""
    return Multiply()([Dense(size)(x), Dense(size, "sigmoid")(x)])


def make_vae(splits: datasets.Splits, prior: str, beta, options: dict) -> tfp_vae.VAE:
    """Make the paper's network with one of the priors."""
    keras.utils.set_random_seed(options["seed"])
    shape, posterior = splits.event_shape, tfpl.MultivariateNormalDiag(LATENT)
    x, z = keras.Input(shape), keras.Input((LATENT,))
    features = gated(gated(Flatten()(x), HIDDEN), HIDDEN)
    encoder = keras.Model(x, posterior(Dense(2 * LATENT)(features)))
    logits = Dense(math.prod(shape))(gated(gated(z, HIDDEN), HIDDEN))
    decoder = keras.Model(z, tfpl.IndependentBernoulli(shape)(logits))
    chosen = priors.StandardNormal(LATENT)
    if prior == "vamp":
        number = options["num_components"]
        chosen = priors.VampPrior(encoder, shape, number)
        chosen.pseudo_inputs.assign(splits.training_values()[:number])
    objective = objectives.ELBO(beta=beta)
    return tfp_vae.VAE(encoder, decoder, prior=chosen, objective=objective, seed=options["seed"])


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Train, or go on training, with each prior, and judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--warm-up", type=int, default=100, help="epochs in which beta rises to 1")
    parser.add_argument("--num-components", type=int, default=500, help="pseudo-inputs")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--every", type=int, default=5, help="epochs between two saves")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-samples", type=int, default=5000, help="draws of the NLL")
    parser.add_argument("--num-images", type=int, default=10_000, help="test images of the NLL")
    parser.add_argument("--hours", type=float, default=math.inf, help="of each prior's training")
    parser.add_argument("--output", type=Path, default=Path("papers/vamp"))
    parser.add_argument("--smoke", action="store_true", help="seconds, on small digits")
    given = vars(parser.parse_args(arguments))
    folder, hours, smoke = (given.pop(name) for name in ("output", "hours", "smoke"))
    if smoke:
        given |= {"epochs": 8, "warm_up": 2, "every": 4, "num_components": 50}
        given |= {"learning_rate": 2e-3, "num_samples": 20}
    splits = iwae.load(smoke)
    x = splits.test[: given["num_images"]]
    results, curves = {}, {}
    for prior in PRIORS:
        vae, curves[prior] = train(splits, prior, folder / prior, given, hours)
        if curves[prior][-1]["epoch"] == given["epochs"]:
            results[prior] = stages.judge_once(
                vae, x, folder / prior, curves[prior], given["num_samples"]
            )
    stages.draw(folder / "curve.png", curves, "-ELBO", "-ELBO of test images, nats")
    return results


def train(splits, prior: str, folder: Path, options: dict, hours: float):
    """Train, or go on training, a model with this prior."""
    steps = max(1, options["warm_up"] * splits.steps_per_epoch(options["batch_size"]))
    beta = keras.optimizers.schedules.PolynomialDecay(0.0, steps, 1.0)
    vae = make_vae(splits, prior, beta, options)
    vae.compile(keras.optimizers.Adam(options["learning_rate"]))
    return stages.fit(
        vae,
        splits,
        folder,
        options,
        lambda vae: {"-ELBO": -float(evaluation.elbo(vae, splits.test)["elbo"].mean())},
        hours=hours,
    )


if __name__ == "__main__":
    main()
