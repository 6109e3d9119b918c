"""Trains small models of each kind, in one of these ways, and writes their histories as JSON:

    python tests/worker_program.py OUTPUT KIND,KIND whole
    python tests/worker_program.py OUTPUT KIND,KIND mirrored
    python tests/worker_program.py OUTPUT KIND,KIND HOST:PORT,HOST:PORT INDEX

All of them take the same draws for the same example, so that they differ only by how they compute.
"""

import contextlib
import json
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import tfp_vae
from tests.conftest import make_vae
from tfp_vae import layers as tfpl
from tfp_vae import objectives, priors, sampling
from tfp_vae.objectives import aggregate_posterior
from tfp_vae.workers import Workers

X = np.random.default_rng(0).normal(size=[21, 6]).astype("float32")  # 8, 8 and 5 in a batch
WEIGHTS = np.linspace(0.5, 1.5, len(X)).astype("float32")
WARM_UP = keras.optimizers.schedules.PolynomialDecay(0.0, 4, 2.0)
KINDS = {
    "ELBO": lambda: model(objectives.ELBO(WARM_UP)),
    "free bits": lambda: model(objectives.ELBO(free_bits=0.4)),
    "capacity": lambda: model(objectives.ControlledCapacity(2.0, gamma=10.0)),
    "IWAE": lambda: model(objectives.IWAE(3, estimator="dreg")),
    "TVO": lambda: model(objectives.TVO(num_samples=3)),
    "BetaTCVAE": lambda: model(objectives.BetaTCVAE(len(X), estimator="stratified")),
    "FactorVAE": lambda: model(objectives.FactorVAE(hidden_sizes=(4,))),
    "WAE": lambda: model(objectives.WAE()),
    "InfoVAE": lambda: model(objectives.InfoVAE(weight=10.0)),
    "DIPVAE": lambda: model(objectives.DIPVAE()),
    "optimal scale": lambda: model(None, tfpl.IndependentNormalOptimalScale),
    "codes": lambda: codes(),
}


def model(objective, likelihood=tfpl.IndependentNormal) -> tfp_vae.VAE:
    return make_vae((6,), 2, likelihood, hidden_sizes=(5,), objective=objective)


def codes() -> tfp_vae.VAE:
    quantized = tfpl.VectorQuantized((2, 2), num_codes=4)
    encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), quantized])
    decoder = keras.Sequential(
        [
            keras.Input((2, 2)),
            keras.layers.Flatten(),
            keras.layers.Dense(12),
            tfpl.IndependentNormal(6),
        ]
    )
    return tfp_vae.VAE(encoder, decoder, prior=priors.Codes.of_encoder(encoder, None))


def same_draws(distribution, sample_shape, seed):
    """Draws that depend on the example alone, in place of `sampling.sample`."""
    if type(distribution).__name__ == "QuantizedVectors":
        return distribution.sample(sample_shape, seed=seed)
    mean = distribution.mean()
    shape = tf.concat([tf.reshape(tf.cast(sample_shape, tf.int32), [-1]), tf.shape(mean)], 0)
    noise = tf.sin(50.0 * tf.stop_gradient(tf.broadcast_to(mean, shape)))
    if shape.shape[0] == 3:  # several draws of each example
        noise *= tf.range(1.0, tf.cast(shape[0], tf.float32) + 1.0)[:, None, None]
    return mean + distribution.stddev() * noise


def streams(scope) -> list:
    """The log-likelihood of one example on each replica, whose draws are its own."""
    with scope():
        vae = KINDS["ELBO"]()
        vae.compile("adam")
    strategy = vae.distribute_strategy
    step = tf.function(lambda: vae(X[:1], training=True)["log_likelihood"], autograph=False)
    return [float(one[0]) for one in strategy.experimental_local_results(strategy.run(step))]


def main(output: str, kinds: str, *how: str) -> None:
    scope = contextlib.nullcontext
    if how == ("mirrored",):
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2
        )
        scope = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope
    elif how != ("whole",):
        scope = Workers(how[0].split(","), int(how[1])).join().scope
    found = {"streams": streams(scope)} if how == ("mirrored",) else {}
    sampling.sample = same_draws
    aggregate_posterior._shuffle_dims = lambda z, seed: tf.reverse(z, [1])
    for kind in kinds.split(","):
        keras.utils.set_random_seed(0)
        with scope():
            vae = KINDS[kind]()
            # Without XLA in all of them.
            vae.compile(keras.optimizers.Adam(0.01), jit_compile=False)
        fit = {"validation_data": (X[:7],)} if kind == "ELBO" else {}
        history = vae.fit(
            X, batch_size=8, epochs=2, shuffle=False, sample_weight=WEIGHTS, verbose=0, **fit
        ).history
        weights = [float(np.abs(weight).sum()) for weight in vae.get_weights()]
        if "DEBUG" in __import__("os").environ:
            print(kind, __import__("time").process_time(), flush=True)
        found[kind] = {**{name: list(map(float, v)) for name, v in history.items()}, "w": weights}
    Path(output).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
