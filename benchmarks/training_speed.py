"""Images per second of training the same VAE, 784-400-20-400-784, in this package and beside it, in one run.

Run: make benchmark   (or: python benchmarks/training_speed.py --batch-size 512)

Every contender trains on the same 60,000 binary images with Adam, and all contenders take turns: each line is the
median over the rounds, with the smallest and the largest, of an epoch after the first, which compiles.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import tfp_vae
from tfp_vae import layers as tfpl

NUM_IMAGES, DIM, HIDDEN, LATENT = 60_000, 784, 400, 20


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
            [keras.Input((DIM,)), keras.layers.Dense(HIDDEN, "relu"), keras.layers.Dense(2 * LATENT)]
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
    encoder = [keras.Input((DIM,)), keras.layers.Dense(HIDDEN, "relu"), keras.layers.Dense(2 * LATENT)]
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


def with_torch(x, batch_size, epochs, compiled):
    import torch

    torch.manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Linear(DIM, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 2 * LATENT))
    decoder = torch.nn.Sequential(torch.nn.Linear(LATENT, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, DIM))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-3, fused=True)

    def loss_of(batch):
        loc, scale = encoder(batch).chunk(2, -1)
        scale = torch.nn.functional.softplus(scale) + 1e-5
        logits = decoder(loc + scale * torch.randn_like(loc))
        nll = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch, reduction="sum")
        return (nll + 0.5 * (loc**2 + scale**2 - 1 - 2 * scale.log()).sum()) / len(batch)

    if compiled:
        loss_of = torch.compile(loss_of)
    data, seconds = torch.from_numpy(x), []
    for _ in range(epochs):
        start = time.perf_counter()
        order = torch.randperm(len(data))
        for first in range(0, len(data) - batch_size + 1, batch_size):
            optimizer.zero_grad()
            loss_of(data[order[first : first + batch_size]]).backward()
            optimizer.step()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def contenders(batch_size):
    """Give name -> function (x, epochs) -> seconds of each epoch but the first."""
    steps = 50
    rows = {
        "Keras by hand, XLA": lambda x, n: with_keras(HandWritten(), x, batch_size, n, loss=None, jit_compile=True),
        f"Keras by hand, XLA, steps_per_execution={steps}": lambda x, n: with_keras(
            HandWritten(), x, batch_size, n, loss=None, jit_compile=True, steps_per_execution=steps
        ),
        "tfp_vae, as it comes": lambda x, n: with_keras(make_vae(), x, batch_size, n),
        f"tfp_vae, steps_per_execution={steps}": lambda x, n: with_keras(
            make_vae(), x, batch_size, n, steps_per_execution=steps
        ),
    }
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed (make benchmark installs it): its lines are left out.")
        return rows
    return {
        f"PyTorch {torch.__version__}, eager": lambda x, n: with_torch(x, batch_size, n, compiled=False),
        f"PyTorch {torch.__version__}, torch.compile": lambda x, n: with_torch(x, batch_size, n, compiled=True),
        **rows,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="of each round, the first is not counted")
    arguments = parser.parse_args()
    x = (np.random.RandomState(0).uniform(size=[NUM_IMAGES, DIM]) < 0.15).astype("float32")
    rows = contenders(arguments.batch_size)
    speeds = {name: [] for name in rows}
    for _ in range(arguments.rounds):
        for name, run in rows.items():
            speeds[name] += [NUM_IMAGES / seconds for seconds in run(x, arguments.epochs)]
    print(f"images per second, batch {arguments.batch_size}, {os.cpu_count()} cores: median (smallest - largest)")
    for name, values in speeds.items():
        print(f"{name:45} {statistics.median(values):8,.0f}  ({min(values):,.0f} - {max(values):,.0f})")


if __name__ == "__main__":
    main()
