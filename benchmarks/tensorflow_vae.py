"""The MLP of the benchmarks in plain TensorFlow: an epoch is one XLA program, its data on the device, Adam written out.

Prints the seconds of each epoch but the first, as json.
"""

import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from data import DIM, DRAWS, HIDDEN, LATENT, make_data

SIZES = [(DIM, HIDDEN), (HIDDEN, 2 * LATENT), (LATENT, HIDDEN), (HIDDEN, DIM)]


def make_params():
    params = []
    for inputs, outputs in SIZES:
        limit = (6.0 / (inputs + outputs)) ** 0.5
        params += [
            tf.random.stateless_uniform([inputs, outputs], [len(params), 1], -limit, limit),
            tf.zeros([outputs]),
        ]
    return params


def encode(params, x):
    w1, b1, w2, b2 = params[:4]
    loc, scale = tf.split(tf.nn.relu(x @ w1 + b1) @ w2 + b2, 2, -1)
    return loc, tf.nn.softplus(scale) + 1e-5


def log_likelihood(params, x, z):
    w3, b3, w4, b4 = params[4:]
    logits = tf.nn.relu(tf.reshape(z, [-1, LATENT]) @ w3 + b3) @ w4 + b4
    logits = tf.reshape(logits, [*z.shape[:-1], DIM])
    return tf.reduce_sum(x * logits - tf.nn.softplus(logits), -1)


def elbo(params, x, seed):
    loc, scale = encode(params, x)
    z = loc + scale * tf.random.stateless_normal(loc.shape, seed)
    kl = 0.5 * tf.reduce_sum(loc**2 + scale**2 - 1 - 2 * tf.math.log(scale), -1)
    return tf.reduce_mean(kl - log_likelihood(params, x, z))


def iwae(params, x, seed):
    loc, scale = encode(params, x)
    noise = tf.random.stateless_normal([DRAWS["iwae"], *loc.shape], seed)
    z = loc + scale * noise
    log_ratio = tf.reduce_sum(0.5 * (noise**2 - z**2) + tf.math.log(scale), -1)
    weights = log_likelihood(params, x, z) + log_ratio
    return -tf.reduce_mean(tf.reduce_logsumexp(weights, 0) - tf.math.log(float(DRAWS["iwae"])))


def adam(params, gradients, means, squares, step):
    rate = 1e-3 * tf.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    means = [0.9 * m + 0.1 * g for m, g in zip(means, gradients, strict=True)]
    squares = [0.999 * s + 0.001 * g * g for s, g in zip(squares, gradients, strict=True)]
    moved = zip(params, means, squares, strict=True)
    return [p - rate * m / (tf.sqrt(s) + 1e-7) for p, m, s in moved], means, squares


def main(name, batch_size, epochs):
    batch_size = int(batch_size)
    data = tf.constant(make_data(name))
    loss_of = iwae if name in DRAWS else elbo
    steps = len(data) // batch_size

    @tf.function(jit_compile=True, autograph=False)
    def epoch(params, means, squares, done, order):
        def next_step(i, params, means, squares):
            x = tf.gather(data, order[i])
            with tf.GradientTape() as tape:
                tape.watch(params)
                loss = loss_of(params, x, tf.stack([1_000, done + i]))
            gradients = tape.gradient(loss, params)
            step = tf.cast(done + i + 1, tf.float32)
            return i + 1, *adam(params, gradients, means, squares, step)

        state = (tf.constant(0), params, means, squares)
        return tf.while_loop(lambda i, *_: i < steps, next_step, state)[1:]

    params = make_params()
    state = params, [tf.zeros_like(p) for p in params], [tf.zeros_like(p) for p in params]
    seconds = []
    for i in range(int(epochs)):
        start = time.perf_counter()
        order = tf.random.shuffle(tf.range(len(data)), seed=i)[: steps * batch_size]
        order = tf.reshape(order, [steps, batch_size])
        state = epoch(*state, tf.constant(i * steps), order)
        state[0][0].numpy()
        seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds[1:]))


if __name__ == "__main__":
    main(*sys.argv[1:])
