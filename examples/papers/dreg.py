"""Signal and noise of an encoder's gradients (Rainforth et al., 2018, arXiv:1802.04537; Roeder et al., 2017,
arXiv:1703.09194; Tucker et al., 2019, arXiv:1810.04152).

Reproduced: more draws k make the bound of IWAE tighter, but the standard estimator of its gradient for the encoder
worse: mean over standard deviation falls as 1 / sqrt(k). The doubly reparameterized one (DReG) rises as sqrt(k).
"Sticking the landing" (STL) has little noise, but another mean: it is biased for k > 1. The model is Rainforth's: z ~
N(0, I), x|z ~ N(z, I), q(z|x) = N(A x + b, 2/3 I), with A and b near their optimum A = I/2, b = 0.

Changed: 5 dimensions for 20, whose weights would ask for far more draws to come near the powers of k; the mean of z is
0, for one drawn at random; gradients are of a batch of 16 examples, for 1,024.

Run: python examples/papers/dreg.py --output papers/dreg (`--smoke`: fewer draws, in seconds)
The same command goes on after an interruption: each estimator and seed is written down when it is done.
"""

import argparse
import functools
from pathlib import Path

import keras
import numpy as np
import stages
import tensorflow as tf
import tensorflow_probability as tfp
from matplotlib.figure import Figure

import tfp_vae
from tfp_vae import layers as tfpl
from tfp_vae import objectives
from tfp_vae.evaluation.errors import Estimate, mean_of

tfd = tfp.distributions
DIM, NUM_EXAMPLES = 5, 16
# The powers of k are those of many draws: lines are fitted from this number on.
FIRST = 64
LABELS = {"standard": "IWAE, standard", "stl": "sticking the landing", "dreg": "DReG"}


def make_vae(k: int, estimator: str, seed: int, distance: float) -> tfp_vae.VAE:
    """Make the model, its encoder at a distance from the optimum."""
    random = np.random.default_rng(seed)
    encoder = keras.Sequential(
        [
            keras.Input((DIM,)),
            keras.layers.Dense(DIM),
            tfpl.DistributionLambda(
                lambda loc: tfd.MultivariateNormalDiag(loc, tf.fill([DIM], (2 / 3) ** 0.5))
            ),
        ]
    )
    decoder = keras.Sequential(
        [
            keras.Input((DIM,)),
            tfpl.DistributionLambda(lambda z: tfd.Independent(tfd.Normal(z, 1.0), 1)),
        ]
    )
    optimum = [np.eye(DIM) / 2, np.zeros(DIM)]
    encoder.set_weights([w + distance * random.normal(size=w.shape) for w in optimum])
    return tfp_vae.VAE(encoder, decoder, objective=objectives.IWAE(k, estimator))


def gradients(vae: tfp_vae.VAE, x: np.ndarray, number: int) -> np.ndarray:
    """Draw gradients of the loss for the encoder's weights, `[number, num_weights]`."""
    x = tf.constant(x)

    @tf.function(jit_compile=vae.uses_xla, autograph=False)
    def draw(seeds):
        def one(seed):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(vae.terms(x, seed)["loss"])
            parts = tape.gradient(loss, vae.encoder.trainable_variables)
            return tf.concat([tf.reshape(part, [-1]) for part in parts], 0)

        return tf.map_fn(one, seeds, fn_output_signature=tf.float32)

    seeds = tf.stack([tf.zeros([number], tf.int32), tf.range(number)], 1)
    return draw(seeds).numpy().astype("float64")


def signal_to_noise(draws: np.ndarray) -> float:
    """Return the root of the squared mean over the variance, both summed over the weights.

    The squared mean of n draws is too large by a share 1/n of the variance, which is taken off.
    """
    variance = draws.var(0, ddof=1).sum()
    signal = (draws.mean(0) ** 2).sum() - variance / len(draws)
    return float(np.sqrt(max(signal, 0.0) / variance))


def measure(name: str, k: np.ndarray, seed: int, number: int, distance: float) -> dict:
    """Return the ratio of an estimator at each number of draws."""
    random = np.random.default_rng(100 + seed)
    x = (2**0.5 * random.normal(size=[NUM_EXAMPLES, DIM])).astype("float32")
    vaes = [make_vae(draws, name, seed, distance) for draws in k.tolist()]
    return {"numbers": [signal_to_noise(gradients(vae, x, number)) for vae in vaes]}


def slope(k: np.ndarray, ratios: np.ndarray) -> Estimate:
    """Return the mean slope of log ratios `[seeds, k]` against log k, and its standard error."""
    return mean_of(np.polyfit(np.log(k), np.log(ratios).T, 1)[0])


def draw(path: Path, k: np.ndarray, ratios: dict[str, np.ndarray], slopes: dict) -> None:
    """Draw the ratios against k, with lines of the slopes that theory says."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    for name, values in ratios.items():
        mean, error = slopes[name]
        label = f"{LABELS[name]}: slope {mean:.2f} $\\pm$ {error:.2f}"
        axes.loglog(k, np.exp(np.log(values).mean(0)), "o-", label=label)
    for name, power in (("standard", -0.5), ("dreg", 0.5)):
        start = np.exp(np.log(ratios[name]).mean(0))[-1]
        axes.loglog(k, start * (k / k[-1]) ** power, "k:", lw=1)
    axes.set(xlabel="draws k", ylabel="signal-to-noise ratio of the encoder's gradient")
    axes.set_title(f"slopes from k = {FIRST} on; dotted: -1/2 and 1/2", fontsize=10)
    figure.legend(loc="outside lower center")
    figure.savefig(path, dpi=80)


def main(arguments: list[str] | None = None) -> dict:
    """Measure the ratios for each estimator, number of draws and seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--num-gradients", type=int, default=6000)
    parser.add_argument("--distance", type=float, default=0.1, help="to the optimal weights")
    parser.add_argument("--output", type=Path, default=Path("papers/dreg"))
    parser.add_argument("--smoke", action="store_true", help="seconds, fewer draws")
    given = parser.parse_args(arguments)
    k = np.array([16, 256] if given.smoke else [1, 4, 16, 64, 256, 1024])
    seeds, number = (1, 400) if given.smoke else (given.seeds, given.num_gradients)
    options = {"k": k.tolist(), "number": number, "distance": given.distance}
    ratios = {}
    for name in LABELS:
        make = functools.partial(measure, name, k, number=number, distance=given.distance)
        runs = stages.of_seeds(given.output, name, seeds, options, make)
        ratios[name] = np.array([run["numbers"] for run in runs])
    tail = k >= (k[0] if given.smoke else FIRST)
    slopes = {name: slope(k[tail], values[:, tail]) for name, values in ratios.items()}
    for name, (mean, error) in slopes.items():
        print(f"{LABELS[name]:22} slope {mean:.3f} +- {error:.3f}")
    results = {
        "k": k.tolist(),
        "slopes": slopes,
        "ratios": {name: values.tolist() for name, values in ratios.items()},
    }
    stages.write(given.output / "results.json", results)
    draw(given.output / "dreg.png", k, ratios, slopes)
    return results


if __name__ == "__main__":
    main()
