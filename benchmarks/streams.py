"""Train and judge on images larger than memory: resident memory over time, and speed beside that of images in memory.

Run: python benchmarks/streams.py --gigabytes 8 --picture docs/streams.png

It writes an .npy file of 8-bit images, 32 x 32 x 3, trains the same MLP 3072-400-20-400-3072 on it, as rows of a file
and as one reads it in plain TensorFlow, and on images in memory, each in a process of its own, and judges the first one
on all of the file. The file must fit the disk, and for a
warm cache the page cache.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SHAPE, HIDDEN, LATENT = (32, 32, 3), 400, 20
BATCH_SIZE = 128
# Steps of an epoch of this benchmark, of which the first one, which compiles, is not counted.
STEPS = 300
# Images among which a data set that is read in order draws the next one.
SHUFFLED = 10_000
# Images of those contenders whose images are in memory, as floats.
IN_MEMORY = 40_000
HOWS = {
    "file": "rows of a file",
    "generator": "the file, by tf.data.Dataset.from_generator",
    "data set": "in memory, a shuffled tf.data.Dataset",
    "arrays": "in memory, arrays on the device",
}


class Memory(threading.Thread):
    """The resident memory of this process over time, in megabytes, with a name for each phase."""

    def __init__(self):
        super().__init__(daemon=True)
        self.phase = "import"
        self.points = []
        self.begin = time.perf_counter()
        self.start()

    def run(self):
        while True:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            megabytes = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
            self.points.append((time.perf_counter() - self.begin, megabytes, self.phase))
            time.sleep(0.1)


def write(path, gigabytes):
    """Write images with something to learn: shades of ten patterns, with noise."""
    import numpy as np

    from tfp_vae import storage

    random = np.random.default_rng(0)
    patterns = random.integers(0, 256, (10, *SHAPE))
    number = int(gigabytes * 1e9) // patterns[0].size

    def batches():
        for start in range(0, number, 1000):
            size = min(1000, number - start)
            shade = random.uniform(0.3, 1.0, (size, 1, 1, 1)).astype("float32")
            chosen = patterns[random.integers(10, size=size)].astype("float32")
            yield (shade * chosen).astype("uint8") ^ random.integers(
                0, 16, (size, *SHAPE), dtype="uint8"
            )

    storage.write_npy(path, batches())


def make_vae():
    import keras

    import tfp_vae
    from tfp_vae import layers as tfpl
    from tfp_vae import networks

    encoder = networks.mlp(SHAPE, 2 * LATENT, hidden_sizes=(HIDDEN,))
    likelihood = tfpl.IndependentContinuousBernoulli(SHAPE)
    size = likelihood.params_size(SHAPE)
    decoder = networks.mlp((LATENT,), size, hidden_sizes=(HIDDEN,))
    vae = tfp_vae.VAE(
        keras.Sequential([encoder, tfpl.MultivariateNormalDiag(LATENT)]),
        keras.Sequential([decoder, likelihood]),
    )
    vae.compile("adam")
    return vae


def contend(how, path, epochs):
    """Train in one way, and print what was measured as json."""
    memory = Memory()
    import numpy as np
    import tensorflow as tf
    from keras_vae import EpochTimer

    from tfp_vae import datasets, evaluation

    memory.phase = "open"
    splits = datasets.load(path, likelihood="IndependentContinuousBernoulli")
    vae, timer, numbers = make_vae(), EpochTimer(), {}
    options = {"verbose": 0, "callbacks": [timer]}
    if how == "file":
        epochs = max(epochs, splits.steps_per_epoch(BATCH_SIZE) // STEPS)
        memory.phase = "train"
        vae.fit(
            splits.batches(
                BATCH_SIZE, epochs=1 + epochs * STEPS // splits.steps_per_epoch(BATCH_SIZE)
            ),
            steps_per_epoch=STEPS,
            epochs=epochs,
            **options,
        )
        memory.phase = "judge"
        start = time.perf_counter()
        everything = splits.training_values()
        numbers = evaluation.evaluate(vae, everything, num_samples=1, batch_size=500)
        numbers["examples_per_second"] = 2 * len(everything) / (time.perf_counter() - start)
    elif how == "generator":
        x = np.load(path, mmap_mode="r")
        data = tf.data.Dataset.from_generator(
            lambda: iter(x), output_signature=tf.TensorSpec(SHAPE, tf.uint8)
        )
        data = data.shuffle(SHUFFLED).batch(BATCH_SIZE, drop_remainder=True)
        data = data.map(lambda images: tf.cast(images, tf.float32) / 255).prefetch(tf.data.AUTOTUNE)
        vae.fit(data, steps_per_epoch=STEPS, epochs=epochs, **options)
    else:
        x = splits.train[:IN_MEMORY]
        if how == "arrays":
            vae.fit(x[: STEPS * BATCH_SIZE], batch_size=BATCH_SIZE, epochs=epochs, **options)
        else:
            data = tf.data.Dataset.from_tensor_slices(x).shuffle(len(x)).repeat()
            data = data.batch(BATCH_SIZE, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
            vae.fit(data, steps_per_epoch=STEPS, epochs=epochs, **options)
    speeds = [STEPS * BATCH_SIZE / seconds for seconds in timer.seconds[1:]]
    print(json.dumps({"speeds": speeds, "memory": memory.points, "numbers": numbers}))


def draw(points, gigabytes, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for phase in dict.fromkeys(phase for _, _, phase in points):
        own = [(seconds, megabytes) for seconds, megabytes, name in points if name == phase]
        axes.plot(*zip(*own, strict=True), label=phase)
    axes.axhline(1500, color="grey", linestyle=":", label="1.5 GB")
    axes.set(
        title=f"Resident memory with {gigabytes:g} GB of images in a file",
        xlabel="seconds",
        ylabel="megabytes",
        ylim=(0, 1800),
    )
    axes.legend(ncols=5, loc="lower right")
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5, help=f"of {STEPS} steps, at least")
    parser.add_argument("--folder", type=Path, help="where the images are written, and stay")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--how", choices=HOWS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp())
    path = folder / f"images-{arguments.gigabytes:g}.npy"
    if arguments.how:
        contend(arguments.how, path, arguments.epochs)
        return
    try:
        if not path.exists():
            write(path, arguments.gigabytes)
        found = {how: [] for how in HOWS}
        for _ in range(arguments.rounds):
            for how, results in found.items():
                command = [sys.executable, __file__, *sys.argv[1:], "--how", how]
                result = subprocess.run(
                    [*command, "--folder", folder], stdout=subprocess.PIPE, text=True, check=True
                )
                results.append(json.loads(result.stdout.splitlines()[-1]))
        medians = {}
        for how, results in found.items():
            speeds = [speed for result in results for speed in result["speeds"]]
            most = max(megabytes for result in results for _, megabytes, _ in result["memory"])
            medians[how] = statistics.median(speeds)
            ratio = medians[how] / medians["file"]
            print(
                f"{HOWS[how]:40} {medians[how]:10,.0f} images/s ({min(speeds):,.0f} - "
                f"{max(speeds):,.0f})  {ratio:.2f}  at most {most:,.0f} MB"
            )
        print({name: round(value, 3) for name, value in found["file"][0]["numbers"].items()})
        if arguments.picture:
            draw(found["file"][0]["memory"], arguments.gigabytes, arguments.picture)
    finally:
        if arguments.folder is None:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
