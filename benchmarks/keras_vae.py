"""The VAEs of the benchmarks in this package, and one in plain Keras: prints seconds of each epoch but the first."""

import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from data import BITS, CHANNELS, DEPTH, DIM, DRAWS, HIDDEN, LATENT, SHAPES, STEPS, make_data
from keras import layers

import tfp_vae
from tfp_vae import layers as tfpl
from tfp_vae import objectives


def convolutions():
    return [layers.Conv1D(CHANNELS, 3, padding="causal", activation="relu") for _ in range(DEPTH)]


def encoder_of(network):
    """The layers from x to the parameters of the posterior."""
    return {
        "mlp": lambda: [layers.Dense(HIDDEN, "relu")],
        "iwae": lambda: [layers.Dense(HIDDEN, "relu")],
        "conv2d": lambda: [
            layers.Conv2D(32, 3, 2, "same", activation="relu"),
            layers.Conv2D(64, 3, 2, "same", activation="relu"),
            layers.Flatten(),
        ],
        "conv1d": lambda: [*convolutions(), layers.Flatten()],
        "gru": lambda: [layers.GRU(2 * CHANNELS)],
    }[network]()


def decoder_of(network):
    """The layers from z to the logits of x."""
    return {
        "mlp": lambda: [layers.Dense(HIDDEN, "relu"), layers.Dense(DIM)],
        "iwae": lambda: [layers.Dense(HIDDEN, "relu"), layers.Dense(DIM)],
        "conv2d": lambda: [
            layers.Dense(7 * 7 * 64, "relu"),
            layers.Reshape((7, 7, 64)),
            layers.Conv2DTranspose(32, 3, 2, "same", activation="relu"),
            layers.Conv2DTranspose(1, 3, 2, "same"),
            layers.Flatten(),
        ],
        "conv1d": lambda: [
            layers.Dense(STEPS * CHANNELS, "relu"),
            layers.Reshape((STEPS, CHANNELS)),
            *convolutions(),
            layers.Dense(BITS),
            layers.Flatten(),
        ],
        "gru": lambda: [
            layers.RepeatVector(STEPS),
            layers.GRU(2 * CHANNELS, return_sequences=True),
            layers.Dense(BITS),
            layers.Flatten(),
        ],
    }[network]()


def make_vae(network):
    shape = SHAPES[network][0]
    encoder = [keras.Input(shape), *encoder_of(network), layers.Dense(2 * LATENT)]
    decoder = [keras.Input((LATENT,)), *decoder_of(network)]
    draws = DRAWS.get(network)
    return tfp_vae.VAE(
        keras.Sequential([*encoder, tfpl.MultivariateNormalDiag(LATENT)]),
        keras.Sequential([*decoder, tfpl.IndependentBernoulli(shape)]),
        objective=objectives.IWAE(draws) if draws else None,
    )


class HandWritten(keras.Model):
    """The MLP in plain Keras and TensorFlow: what a careful user would write without this package."""

    def __init__(self):
        super().__init__()
        self.encoder = keras.Sequential(
            [keras.Input((DIM,)), *encoder_of("mlp"), layers.Dense(2 * LATENT)]
        )
        self.decoder = keras.Sequential([keras.Input((LATENT,)), *decoder_of("mlp")])
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, x):
        loc, scale = tf.split(self.encoder(x), 2, axis=-1)
        scale = tf.nn.softplus(scale) + 1e-5
        logits = self.decoder(loc + scale * keras.random.normal(tf.shape(loc), seed=self.seeds))
        log_likelihood = -tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(x, logits), -1)
        kl = 0.5 * tf.reduce_sum(loc**2 + scale**2 - 1 - 2 * tf.math.log(scale), -1)
        return tf.reduce_mean(kl - log_likelihood)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return y_pred


class EpochTimer(keras.callbacks.Callback):
    """Seconds of each epoch."""

    def on_train_begin(self, logs=None):
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self.start)


class LooksAtEachBatch(keras.callbacks.Callback):
    """For whose sake a VAE is trained step by step."""

    def on_train_batch_end(self, batch, logs=None):
        pass


def main(network, batch_size, epochs, how, steps):
    timer = EpochTimer()
    model = HandWritten() if how == "by hand" else make_vae(network)
    own = {"loss": None, "jit_compile": True} if how == "by hand" else {}
    model.compile(keras.optimizers.Adam(1e-3), steps_per_execution=int(steps), **own)
    callbacks = [timer, *([LooksAtEachBatch()] if how == "step by step" else [])]
    x = make_data(network)
    model.fit(x, batch_size=int(batch_size), epochs=int(epochs), verbose=0, callbacks=callbacks)
    print(json.dumps(timer.seconds[1:]))


if __name__ == "__main__":
    main(*sys.argv[1:])
