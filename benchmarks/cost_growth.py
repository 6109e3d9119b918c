"""How the cost of training and of log p(x) grows with the data, the latents, the draws and the width.

Run: python benchmarks/cost_growth.py docs/cost_growth.png

Each row is doubled several times while the others stay; the exponent is the slope of log seconds against log size, a
line fitted to all points, and one to the last three, where constant costs no longer hide the growth.
"""

import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from data import DIM, make_data
from keras_vae import EpochTimer
from matplotlib.figure import Figure

import tfp_vae
from tfp_vae import layers as tfpl
from tfp_vae import networks, objectives

BATCH_SIZE = 128


def make_vae(latent_size=20, width=400, num_samples=1):
    hidden = {"hidden_sizes": (width,)}
    encoder = networks.mlp((DIM,), 2 * latent_size, **hidden)
    decoder = networks.mlp((latent_size,), DIM, **hidden)
    return tfp_vae.VAE(
        keras.Sequential([encoder, tfpl.MultivariateNormalDiag(latent_size)]),
        keras.Sequential([decoder, tfpl.IndependentBernoulli(DIM)]),
        objective=objectives.IWAE(num_samples) if num_samples > 1 else None,
    )


def an_epoch(x, **arguments):
    """Seconds of an epoch, the least of three after the first."""
    timer = EpochTimer()
    vae = make_vae(**arguments)
    vae.compile("adam")
    vae.fit(x, batch_size=BATCH_SIZE, epochs=4, verbose=0, callbacks=[timer])
    return min(timer.seconds[1:])


def an_estimate(x, draws):
    """Seconds of log p(x) of 500 examples, the least of three."""
    vae = make_vae()
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        vae.log_prob(x[:500], draws).numpy()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def main(path):
    x = make_data()
    few = x[:6400]
    rows = {
        "examples": ([6400 * 2**i for i in range(4)], lambda n: an_epoch(np.resize(x, (n, DIM)))),
        "latents": ([8 * 2**i for i in range(6)], lambda n: an_epoch(few, latent_size=n)),
        "draws of IWAE": ([2 * 2**i for i in range(6)], lambda n: an_epoch(few, num_samples=n)),
        "width": ([100 * 2**i for i in range(6)], lambda n: an_epoch(few, width=n)),
        "draws of log_prob": ([100 * 2**i for i in range(5)], lambda n: an_estimate(x, n)),
    }
    figure = Figure(figsize=(3 * len(rows), 3), layout="constrained")
    for axes, (name, (sizes, measure)) in zip(
        figure.subplots(1, len(rows)), rows.items(), strict=True
    ):
        seconds = [measure(size) for size in sizes]
        whole, last = (np.polyfit(np.log(sizes[i:]), np.log(seconds[i:]), 1)[0] for i in (0, -3))
        print(
            f"| {name} | {sizes[0]} - {sizes[-1]} | {seconds[0]:.2f} - {seconds[-1]:.2f} | {whole:.2f} | {last:.2f} |",
            flush=True,
        )
        axes.loglog(sizes, seconds, "o-", base=2)
        axes.set(title=f"exponent {last:.2f}", xlabel=name, ylabel="seconds")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main(sys.argv[1])
