"""A variational autoencoder the way of tfp.layers: TFP's tutorial on probabilistic layers, on Keras 3.

Encoder and decoder are Keras models that end in distributions, the KL divergence is an activity regularizer, and the
loss a function of an image and its distribution. `tfp_vae.VAE` does the same, and more; the example compares the two.

Run: python examples/variational_autoencoder.py [data set] [picture.png]
The data set is "digits" (8 x 8, no download) or any image data set of TFDS, such as "mnist".
"""

import sys

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from matplotlib.figure import Figure

import tfp_vae
from tfp_vae import layers as tfpl

tfd = tfp.distributions
ENCODED_SIZE = 8


def load_images(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return black and white images to train and to test: each pixel is drawn with its brightness as probability."""
    splits = tfp_vae.datasets.load(name)
    scale = 255.0 / splits.train.max()
    return tuple(
        tfp_vae.datasets.binarize(
            tf.constant(scale * part, tf.float32), tf.constant([0, number])
        ).numpy()
        for number, part in enumerate((splits.train, splits.test))
    )


def make_models(image_shape: tuple[int, int, int]) -> tuple[keras.Model, keras.Model, keras.Model]:
    """Make encoder q(z|x), decoder p(x|z), and the autoencoder of both."""
    height, width, _ = image_shape
    prior = tfd.Independent(tfd.Normal(tf.zeros(ENCODED_SIZE), 1.0), 1)
    encoder = keras.Sequential(
        [
            keras.Input(image_shape),
            keras.layers.Rescaling(1.0, offset=-0.5),
            keras.layers.Conv2D(16, 3, padding="same", activation="leaky_relu"),
            keras.layers.Conv2D(32, 3, strides=2, padding="same", activation="leaky_relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="leaky_relu"),
            keras.layers.Dense(tfpl.MultivariateNormalTriL.params_size(ENCODED_SIZE)),
            tfpl.MultivariateNormalTriL(
                ENCODED_SIZE, activity_regularizer=tfpl.KLDivergenceRegularizer(prior)
            ),
        ]
    )
    decoder = keras.Sequential(
        [
            keras.Input((ENCODED_SIZE,)),
            keras.layers.Dense(height // 2 * (width // 2) * 32, activation="leaky_relu"),
            keras.layers.Reshape((height // 2, width // 2, 32)),
            keras.layers.Conv2DTranspose(16, 3, strides=2, padding="same", activation="leaky_relu"),
            keras.layers.Conv2D(1, 3, padding="same"),
            keras.layers.Flatten(),
            tfpl.IndependentBernoulli(image_shape, tfd.Bernoulli.logits),
        ]
    )
    return encoder, decoder, keras.Model(encoder.inputs[0], decoder(encoder.outputs[0]))


def draw(x: np.ndarray, x_hat: tfd.Distribution, x_new: tfd.Distribution) -> Figure:
    """Draw images, their reconstructions, and new images."""
    rows = {
        "x": x,
        "mean": x_hat.mean(),
        "mode": x_hat.mode(),
        "new: mean": x_new.mean(),
        "new: draw": x_new.sample(),
    }
    figure = Figure(figsize=(len(x), len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(x))
    for row, (name, images) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(row, np.asarray(images), strict=True):
            axis.imshow(image[..., 0], cmap="gray_r", vmin=0.0, vmax=1.0)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name)
    return figure


def main(
    name: str = "digits", picture: str | None = None, epochs: int = 40, batch_size: int = 50
) -> dict[str, float]:
    """Train, measure in nats per image, and draw."""
    keras.utils.set_random_seed(0)
    x_train, x_test = load_images(name)
    encoder, decoder, vae = make_models(x_train.shape[1:])
    vae.compile(
        keras.optimizers.Adam(2e-3), loss=lambda x, rv_x: -rv_x.log_prob(x), steps_per_execution=10
    )
    vae.fit(x_train, x_train, batch_size=batch_size, epochs=epochs, verbose=0)

    brightness = np.clip(x_train.mean(0), 1e-3, 1.0 - 1e-3)
    x_test = x_test[:100]
    repeated = np.tile(x_test, (100, 1, 1, 1))  # a hundred draws of z for each image
    same = tfp_vae.VAE(encoder, decoder)  # the same two networks, the same objective
    results = {
        "-ELBO": vae.evaluate(repeated, repeated, batch_size=500, verbose=0),
        "-ELBO of tfp_vae.VAE": tfp_vae.evaluation.elbo(same, repeated)["loss"].mean(),
        "-log p(x), 100 samples": -float(np.mean(same.log_prob(x_test, 100))),
        "independent pixels": -float(
            np.mean(tfd.Independent(tfd.Bernoulli(probs=brightness), 3).log_prob(x_test))
        ),
    }
    for measure, nats in results.items():
        print(f"{measure:24}{nats:8.2f}")
    if picture:
        z = tfd.MultivariateNormalDiag(tf.zeros(ENCODED_SIZE)).sample(10, seed=0)
        draw(x_test[:10], vae(x_test[:10]), decoder(z)).savefig(picture)
    return results


if __name__ == "__main__":
    main(*sys.argv[1:])
