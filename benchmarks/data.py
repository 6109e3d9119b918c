"""The data of the benchmarks, without TensorFlow: PyTorch in the same process would be fifty times slower."""

import numpy as np

NUM_IMAGES, DIM, HIDDEN, LATENT = 60_000, 784, 400, 20


def make_data():
    """Draw noisy copies of ten patterns: binary images with something to learn."""
    random = np.random.RandomState(0)
    patterns = random.uniform(size=[10, DIM]) < 0.2
    noise = random.uniform(size=[NUM_IMAGES, DIM]) < 0.05
    return (patterns[random.randint(10, size=NUM_IMAGES)] ^ noise).astype("float32")
