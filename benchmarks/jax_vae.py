"""The MLP of the benchmarks in JAX: an epoch is one jitted `lax.scan`, its data on the device.

Prints the seconds of each epoch but the first, as json.
"""

import json
import sys
import time

import jax
import jax.numpy as jnp
import optax
from data import DIM, DRAWS, HIDDEN, LATENT, make_data

SIZES = [(DIM, HIDDEN), (HIDDEN, 2 * LATENT), (LATENT, HIDDEN), (HIDDEN, DIM)]


def dense(key, inputs, outputs):
    limit = (6.0 / (inputs + outputs)) ** 0.5
    return jax.random.uniform(key, (inputs, outputs), minval=-limit, maxval=limit), jnp.zeros(
        outputs
    )


def make_params(key):
    return [dense(key, *size) for key, size in zip(jax.random.split(key, 4), SIZES, strict=True)]


def encode(params, x):
    (w1, b1), (w2, b2), _, _ = params
    loc, scale = jnp.split(jax.nn.relu(x @ w1 + b1) @ w2 + b2, 2, -1)
    return loc, jax.nn.softplus(scale) + 1e-5


def log_likelihood(params, x, z):
    _, _, (w3, b3), (w4, b4) = params
    logits = jax.nn.relu(z @ w3 + b3) @ w4 + b4
    return -optax.sigmoid_binary_cross_entropy(logits, jnp.broadcast_to(x, logits.shape)).sum(-1)


def log_weights(params, x, loc, scale, key, draws):
    """log p(x, z) - log q(z|x) of draws of z, `[draws, batch]`."""
    noise = jax.random.normal(key, (draws, *loc.shape))
    z = loc + scale * noise
    return log_likelihood(params, x, z) + (0.5 * (noise**2 - z**2) + jnp.log(scale)).sum(-1)


def elbo(params, x, key):
    loc, scale = encode(params, x)
    z = loc + scale * jax.random.normal(key, loc.shape)
    kl = 0.5 * (loc**2 + scale**2 - 1 - 2 * jnp.log(scale)).sum(-1)
    return jnp.mean(kl - log_likelihood(params, x, z))


def iwae(params, x, key):
    weights = log_weights(params, x, *encode(params, x), key, DRAWS["iwae"])
    return -jnp.mean(jax.nn.logsumexp(weights, 0) - jnp.log(DRAWS["iwae"]))


def main(name, batch_size, epochs):
    batch_size = int(batch_size)
    x = make_data(name)
    loss_of = iwae if name in DRAWS else elbo
    params = make_params(jax.random.key(1))
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

    state = params, optimizer.init(params), jax.random.key(0)
    seconds = []
    for _ in range(int(epochs)):
        start = time.perf_counter()
        state = jax.block_until_ready(epoch(state))
        seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds[1:]))


if __name__ == "__main__":
    main(*sys.argv[1:])
