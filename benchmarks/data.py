"""Data and sizes of the benchmarks, without TensorFlow: beside it, in one process, PyTorch is fifty times slower."""

import numpy as np

DIM, HIDDEN, LATENT = 784, 400, 20
# Of sequences: steps, bits of each, channels of the networks, and convolutions each way.
STEPS, BITS, CHANNELS, DEPTH = 24, 32, 64, 4
# Shape of an example and number of examples of an epoch, by the network.
SHAPES = {
    "mlp": ((DIM,), 60_000),
    "iwae": ((DIM,), 6_000),
    "conv2d": ((28, 28, 1), 6_000),
    "conv1d": ((STEPS, BITS), 12_000),
    "gru": ((STEPS, BITS), 12_000),
}
# Draws of z for each example in training.
DRAWS = {"iwae": 50}


def make_data(network="mlp"):
    """Draw noisy copies of ten patterns: binary examples with something to learn."""
    shape, number = SHAPES[network]
    random = np.random.RandomState(0)
    patterns = random.uniform(size=[10, *shape]) < 0.2
    noise = random.uniform(size=[number, *shape]) < 0.05
    return (patterns[random.randint(10, size=number)] ^ noise).astype("float32")
