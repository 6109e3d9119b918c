"""The matrix products of a training step of the MLP, and next to nothing else: a limit of training it on this machine.

Linear layers without biases, the squared error, and SGD, or else a compiler would compute each product once. Prints the
seconds of each epoch but the first, as json.
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
        def step(i, *weights):
            w1, w2, w3, w4 = weights
            with tf.GradientTape() as tape:
                tape.watch(weights)
                z = (x @ w1 @ w2)[:, :LATENT]
                loss = tf.reduce_mean((z @ w3 @ w4 - x) ** 2)
            gradients = tape.gradient(loss, weights)
            return i + 1, *(w - 1e-3 * g for w, g in zip(weights, gradients, strict=True))

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
