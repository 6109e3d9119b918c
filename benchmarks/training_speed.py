"""Images per second of training the same VAE, 784-400-20-400-784, in this package and beside it, in one run.

Run: make benchmark   (or: python benchmarks/training_speed.py --batch-size 512)

Every contender trains on the same 60,000 binary images with Adam, and all contenders take turns: each line is the
median over the rounds, with the smallest and the largest, of an epoch after the first, which compiles.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from data import DIM, HIDDEN, LATENT, NUM_IMAGES, make_data

import tfp_vae
from tfp_vae import layers as tfpl


class EpochTimer(keras.callbacks.Callback):
    """Seconds of each epoch."""

    def on_train_begin(self, logs=None):
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self.start)


class HandWritten(keras.Model):
    """The same VAE in plain Keras and TensorFlow: what a careful user would write without this package."""

    def __init__(self):
        super().__init__()
        self.encoder = keras.Sequential(
            [
                keras.Input((DIM,)),
                keras.layers.Dense(HIDDEN, "relu"),
                keras.layers.Dense(2 * LATENT),
            ]
        )
        self.decoder = keras.Sequential(
            [keras.Input((LATENT,)), keras.layers.Dense(HIDDEN, "relu"), keras.layers.Dense(DIM)]
        )
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, x):
        loc, scale = tf.split(self.encoder(x), 2, axis=-1)
        scale = tf.nn.softplus(scale) + 1e-5
        logits = self.decoder(loc + scale * keras.random.normal(tf.shape(loc), seed=self.seeds))
        log_likelihood = -tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(x, logits), -1)
        kl = 0.5 * tf.reduce_sum(loc**2 + scale**2 - 1 - 2 * tf.math.log(scale), -1)
        return tf.reduce_mean(kl - log_likelihood)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return y_pred


def make_vae():
    encoder = [
        keras.Input((DIM,)),
        keras.layers.Dense(HIDDEN, "relu"),
        keras.layers.Dense(2 * LATENT),
    ]
    decoder = [keras.Input((LATENT,)), keras.layers.Dense(HIDDEN, "relu"), keras.layers.Dense(DIM)]
    return tfp_vae.VAE(
        keras.Sequential([*encoder, tfpl.MultivariateNormalDiag(LATENT)]),
        keras.Sequential([*decoder, tfpl.IndependentBernoulli(DIM)]),
    )


def with_keras(model, x, batch_size, epochs, **kwargs):
    timer = EpochTimer()
    model.compile(keras.optimizers.Adam(1e-3), **kwargs)
    model.fit(x, batch_size=batch_size, epochs=epochs, verbose=0, callbacks=[timer])
    return timer.seconds[1:]


# Each contender runs in a process of its own. name -> what to run with (batch size, epochs)
STEPS = 50
KERAS = {
    "Keras by hand, XLA": lambda: (HandWritten(), {"loss": None, "jit_compile": True}),
    f"Keras by hand, XLA, {STEPS} steps per execution": lambda: (
        HandWritten(),
        {"loss": None, "jit_compile": True, "steps_per_execution": STEPS},
    ),
    "tfp_vae, as it comes": lambda: (make_vae(), {}),
    f"tfp_vae, {STEPS} steps per execution, as tfp-vae train": lambda: (
        make_vae(),
        {"steps_per_execution": STEPS},
    ),
}
PEERS = {
    "PyTorch, eager": ["torch_vae.py", "eager"],
    "PyTorch, torch.compile": ["torch_vae.py", "compiled"],
    "JAX, lax.scan over an epoch": ["jax_vae.py"],
}
# What the others are compared with.
REFERENCE = "PyTorch, torch.compile"


def run(name, batch_size, epochs):
    """Run one contender in a new process; give the seconds of its epochs, none if it fails."""
    here = Path(__file__).parent
    if name in PEERS:
        script, *rest = PEERS[name]
        command = [here / script, batch_size, epochs, *rest]
    else:
        command = [__file__, "--only", name, "--batch-size", batch_size, "--epochs", epochs]
    result = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, check=False
    )
    if result.returncode:
        print(f"  {name} failed: {result.stderr.strip().splitlines()[-1][:300]}", flush=True)
        return []
    return json.loads(result.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--epochs", type=int, default=3, help="of each round; the first is not counted"
    )
    parser.add_argument(
        "--only", choices=KERAS, help="run this contender here, print its seconds as json"
    )
    arguments = parser.parse_args()
    if arguments.only:
        model, options = KERAS[arguments.only]()
        print(
            json.dumps(
                with_keras(model, make_data(), arguments.batch_size, arguments.epochs, **options)
            )
        )
        return
    speeds = {name: [] for name in [*PEERS, *KERAS]}
    for _ in range(arguments.rounds):
        for name, values in speeds.items():
            seconds = run(name, arguments.batch_size, arguments.epochs)
            values += [NUM_IMAGES / each for each in seconds]
            if values:
                print(f"  {name}: {values[-1]:,.0f}", flush=True)
    medians = {name: statistics.median(values) for name, values in speeds.items() if values}
    cores = os.cpu_count()
    print(f"images per second, batch {arguments.batch_size}, {cores} cores: median")
    print(f"(smallest - largest), and how many times that of {REFERENCE}")
    for name, median in medians.items():
        values = speeds[name]
        ratio = median / medians[REFERENCE] if REFERENCE in medians else float("nan")
        spread = f"({min(values):,.0f} - {max(values):,.0f})"
        print(f"{name:52} {median:8,.0f}  {spread:20} {ratio:.2f}")


if __name__ == "__main__":
    main()
