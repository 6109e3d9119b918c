"""The VAE of training_speed.py in JAX: an epoch is one jitted `lax.scan`, its data on the device.

Prints the seconds of each epoch but the first, as json.
"""

import json
import sys
import time

import jax
import jax.numpy as jnp
import optax
from data import DIM, HIDDEN, LATENT, make_data


def dense(key, inputs, outputs):
    limit = (6.0 / (inputs + outputs)) ** 0.5
    return jax.random.uniform(key, (inputs, outputs), minval=-limit, maxval=limit), jnp.zeros(
        outputs
    )


def loss_of(params, x, key):
    (w1, b1), (w2, b2), (w3, b3), (w4, b4) = params
    loc, scale = jnp.split(jax.nn.relu(x @ w1 + b1) @ w2 + b2, 2, -1)
    scale = jax.nn.softplus(scale) + 1e-5
    z = loc + scale * jax.random.normal(key, loc.shape)
    logits = jax.nn.relu(z @ w3 + b3) @ w4 + b4
    nll = optax.sigmoid_binary_cross_entropy(logits, x).sum(-1)
    return jnp.mean(nll + 0.5 * (loc**2 + scale**2 - 1 - 2 * jnp.log(scale)).sum(-1))


def with_jax(x, batch_size, epochs):
    keys = jax.random.split(jax.random.key(0), 5)
    sizes = [(DIM, HIDDEN), (HIDDEN, 2 * LATENT), (LATENT, HIDDEN), (HIDDEN, DIM)]
    params = [dense(key, *size) for key, size in zip(keys[1:], sizes, strict=True)]
    optimizer = optax.adam(1e-3)
    data = jnp.asarray(x)
    steps = len(x) // batch_size

    def step(state, rows):
        params, slots, key = state
        key, own = jax.random.split(key)
        gradients = jax.grad(loss_of)(params, data[rows], own)
        updates, slots = optimizer.update(gradients, slots)
        return (optax.apply_updates(params, updates), slots, key), None

    @jax.jit
    def epoch(state):
        params, slots, key = state
        key, own = jax.random.split(key)
        order = jax.random.permutation(own, len(x))[: steps * batch_size]
        return jax.lax.scan(step, (params, slots, key), order.reshape(steps, batch_size))[0]

    state = params, optimizer.init(params), keys[0]
    seconds = []
    for _ in range(epochs):
        start = time.perf_counter()
        state = jax.block_until_ready(epoch(state))
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


if __name__ == "__main__":
    print(json.dumps(with_jax(make_data(), int(sys.argv[1]), int(sys.argv[2]))))
