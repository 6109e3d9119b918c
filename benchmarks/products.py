"""The matrix products of a training step of the MLP, and nothing else: what no training on this machine can exceed.

Linear layers without biases, whose errors go back through the same products; weights change by SGD, or else a compiler
would compute each product once. Prints the seconds of each epoch but the first, as json.
"""

import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from data import DIM, LATENT, SHAPES
from tensorflow_vae import SIZES


def main(name, batch_size, epochs, compiler):
    steps = SHAPES[name][1] // int(batch_size)
    x = tf.random.stateless_uniform([int(batch_size), DIM], [0, 0])

    @tf.function(jit_compile=compiler == "XLA", autograph=False)
    def epoch(weights):
        def step(i, w1, w2, w3, w4):
            hidden = x @ w1
            z = hidden @ w2
            wide = z[:, :LATENT] @ w3
            error = wide @ w4 - x
            d4, error = (
                tf.matmul(wide, error, transpose_a=True),
                tf.matmul(error, w4, transpose_b=True),
            )
            d3, error = (
                tf.matmul(z[:, :LATENT], error, transpose_a=True),
                tf.matmul(error, w3, transpose_b=True),
            )
            error = tf.concat([error, z[:, LATENT:]], -1)
            d2, error = (
                tf.matmul(hidden, error, transpose_a=True),
                tf.matmul(error, w2, transpose_b=True),
            )
            d1 = tf.matmul(x, error, transpose_a=True)
            moved = zip((w1, w2, w3, w4), (d1, d2, d3, d4), strict=True)
            return i + 1, *(w - 1e-9 * d for w, d in moved)

        return tf.while_loop(lambda i, *_: i < steps, step, (tf.constant(0), *weights))[1:]

    weights = [
        tf.random.stateless_uniform(size, [1, i], -0.05, 0.05) for i, size in enumerate(SIZES)
    ]
    seconds = []
    for _ in range(int(epochs)):
        start = time.perf_counter()
        weights = epoch(weights)
        weights[0].numpy()
        seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds[1:]))


if __name__ == "__main__":
    main(*sys.argv[1:])
