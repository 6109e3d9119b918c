"""Images a second with one worker and with two, each a process on a core of its own.

Run: python benchmarks/workers.py

A worker is pinned to its core by `taskset`. Two workers share each batch, so that both columns make the same steps; the
bytes are those of the gradients, which each worker sends and receives in each step. The loss at the end is printed to
show that both compute the same. Nothing is compiled by XLA, which strategies do not take, but for
the column that says so. Efficiency is the speed of two over twice that of one.

On a machine that is busy with other work, only the CPU's milliseconds mean something.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

WIDTHS = (200, 1000)
LATENT_SIZE = 20
BATCH_SIZE = 256
STEPS, EPOCHS = 30, 4


def work(addresses, index, width, jit_compile):
    """Train, and print what the fastest epoch after the first took."""
    import keras
    import tensorflow as tf
    from data import DIM, make_data

    import tfp_vae
    from tfp_vae import layers as tfpl
    from tfp_vae import networks
    from tfp_vae.workers import Workers

    class Clock(keras.callbacks.Callback):
        """Seconds of each epoch, and those of all cores of this process."""

        def on_epoch_begin(self, epoch, logs=None):
            self.start = time.perf_counter(), time.process_time()

        def on_epoch_end(self, epoch, logs=None):
            taken.append((time.perf_counter() - self.start[0], time.process_time() - self.start[1]))

    taken = []
    strategy = tf.distribute.get_strategy()
    if len(addresses) > 1:
        strategy = Workers(addresses, index).join(patience=120.0)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        encoder = networks.mlp((DIM,), 2 * LATENT_SIZE, hidden_sizes=(width,))
        decoder = networks.mlp((LATENT_SIZE,), DIM, hidden_sizes=(width,))
        vae = tfp_vae.VAE(
            keras.Sequential([encoder, tfpl.MultivariateNormalDiag(LATENT_SIZE)]),
            keras.Sequential([decoder, tfpl.IndependentBernoulli(DIM)]),
        )
        vae.compile("adam", jit_compile=jit_compile)
    rows = tf.data.Dataset.from_tensor_slices(make_data()[: BATCH_SIZE * STEPS])
    batches = rows.batch(BATCH_SIZE, drop_remainder=True).cache().prefetch(2)
    history = vae.fit(batches, epochs=EPOCHS, verbose=0, callbacks=[Clock()]).history
    found = {
        "images": BATCH_SIZE * STEPS / min(wall for wall, _ in taken[1:]),
        "milliseconds": 1e3 / STEPS * min(cpu for _, cpu in taken[1:]),
        "bytes": 4 * vae.count_params(),
        "loss": history["loss"][-1],
    }
    print(json.dumps(found), flush=True)


def measure(number, width, *, jit_compile=False):
    """Start the workers, and return what the first one has found."""
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        ports = [server.getsockname()[1] for server in (one, two)]
    addresses = ",".join(f"127.0.0.1:{port}" for port in ports[:number])
    workers = []
    for index in range(number):
        pinned = ["taskset", "--cpu-list", str(index)] if shutil.which("taskset") else []
        own = [__file__, "--addresses", addresses, "--index", index, "--width", width]
        own += ["--jit-compile"] * jit_compile
        workers.append(
            subprocess.Popen(
                [*pinned, sys.executable, *map(str, own)],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
    answers = [worker.communicate()[0] for worker in workers]
    return json.loads(answers[0].splitlines()[-1])


def main(widths):
    print(
        f"batches of {BATCH_SIZE} images of 784 bits, latents {LATENT_SIZE}, {os.cpu_count()} cores"
    )
    print("                                 images a second             CPU ms a step and worker")
    print("width  bytes a step    one     two  efficiency  one, XLA       one     two    losses")
    for width in widths:
        one, two = measure(1, width), measure(2, width)
        compiled = measure(1, width, jit_compile=True)
        print(
            f"{width:5}  {one['bytes']:12,} {one['images']:6,.0f}  {two['images']:6,.0f}  "
            f"{two['images'] / one['images'] / 2:10.2f}  {compiled['images']:8,.0f}    "
            f"{one['milliseconds']:6.1f}  {two['milliseconds']:6.1f}    "
            f"{one['loss']:.2f} {two['loss']:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--addresses", default="")
    parser.add_argument("--index", type=int)
    parser.add_argument("--width", type=int, nargs="*", default=WIDTHS)
    parser.add_argument("--jit-compile", action="store_true")
    given = parser.parse_args()
    if given.index is None:
        main(given.width)
    else:
        work(given.addresses.split(","), given.index, given.width[0], given.jit_compile)
