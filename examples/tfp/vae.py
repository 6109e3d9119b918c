"""A variational autoencoder whose prior, a mixture of a hundred normals, is learned with it.

The prior is made of `tf.Variable`s, as in TFP; the divergence is an activity regularizer by Monte Carlo, as a mixture
has none in closed form. `tfp_vae.VAE` with `priors.NormalMixture` is the same model: trained beside it, it should reach
the same ELBO.

Reference: Kingma & Welling, 2014, Auto-Encoding Variational Bayes, arXiv:1312.6114; importance sampling: Burda et al.,
2016, arXiv:1509.00519. After TFP's example of the same name.

Run: python examples/tfp/vae.py [picture.png]
"""

import sys
import time

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
import tensorflow_probability as tfp
from matplotlib.figure import Figure

import tfp_vae
from tfp_vae import layers as tfpl

tfd, tfb = tfp.distributions, tfp.bijectors
IMAGE_SHAPE = (28, 28, 1)
LATENT_SIZE, NUM_COMPONENTS = 16, 100


def load_images(split: str, seed: int) -> np.ndarray:
    """Return black and white digits: each pixel is drawn with its brightness as probability."""
    images = tfds.as_numpy(tfds.load("mnist", split=split, batch_size=-1))["image"]
    return tfp_vae.datasets.binarize(tf.constant(images), tf.constant([0, seed])).numpy()


def make_prior() -> tfd.Distribution:
    """Make p(z): a mixture whose weights, locations and scales are trained."""
    shape = [NUM_COMPONENTS, LATENT_SIZE]
    scale = tfp.util.TransformedVariable(tf.ones(shape), tfb.Softplus())
    normals = tfd.MultivariateNormalDiag(tf.Variable(tf.random.normal(shape)), scale)
    return tfd.MixtureSameFamily(tfd.Categorical(tf.Variable(tf.zeros(NUM_COMPONENTS))), normals)


def make_networks(regularizer=None) -> tuple[keras.Model, keras.Model]:
    """Make the encoder q(z|x) and the decoder p(x|z)."""
    relu = {"padding": "same", "activation": "relu"}
    encoder = keras.Sequential(
        [
            keras.Input(IMAGE_SHAPE),
            keras.layers.Conv2D(16, 4, strides=2, **relu),
            keras.layers.Conv2D(32, 4, strides=2, **relu),
            keras.layers.Flatten(),
            keras.layers.Dense(256, "relu"),
            keras.layers.Dense(tfpl.MultivariateNormalDiag.params_size(LATENT_SIZE)),
            tfpl.MultivariateNormalDiag(LATENT_SIZE, activity_regularizer=regularizer),
        ]
    )
    decoder = keras.Sequential(
        [
            keras.Input((LATENT_SIZE,)),
            keras.layers.Dense(256, "relu"),
            keras.layers.Dense(7 * 7 * 32, "relu"),
            keras.layers.Reshape((7, 7, 32)),
            keras.layers.Conv2DTranspose(16, 4, strides=2, **relu),
            keras.layers.Conv2DTranspose(1, 4, strides=2, padding="same"),
            keras.layers.Flatten(),
            tfpl.IndependentBernoulli(IMAGE_SHAPE),
        ]
    )
    return encoder, decoder


def make_optimizer(steps: int) -> keras.optimizers.Optimizer:
    """Make Adam with a falling step size."""
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps))


def importance_weighted(encoder, decoder, prior, x: np.ndarray, num_samples: int) -> np.ndarray:
    """Return log p(x), estimated with so many draws of z for each image."""
    q = encoder(x)
    z = q.sample(num_samples)
    likelihoods = tf.map_fn(lambda one: decoder(one).log_prob(x), z)
    log_weights = likelihoods + prior.log_prob(z) - q.log_prob(z)
    return tfp.math.reduce_logmeanexp(log_weights, 0).numpy()


def draw(images: dict[str, np.ndarray]) -> Figure:
    """Draw rows of images."""
    figure = Figure(figsize=(10, len(images)), layout="constrained")
    axes = figure.subplots(len(images), 10)
    for row, (name, values) in zip(axes, images.items(), strict=True):
        for axis, image in zip(row, np.asarray(values), strict=True):
            axis.imshow(image[..., 0], cmap="gray_r", vmin=0.0, vmax=1.0)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name)
    return figure


def main(
    picture: str | None = None,
    epochs: int = 8,
    num_examples: int = 60_000,
    num_test: int = 10_000,
    batch_size: int = 200,
) -> dict[str, float]:
    """Train both, and measure in nats per image."""
    x = load_images(f"train[:{num_examples}]", seed=0)
    x_test = load_images(f"test[:{num_test}]", seed=1)
    fit = {"batch_size": batch_size, "epochs": epochs, "verbose": 0}
    steps = epochs * -(-num_examples // batch_size)

    keras.utils.set_random_seed(0)
    prior = make_prior()
    encoder, decoder = make_networks(tfpl.KLDivergenceRegularizer(prior))
    model = keras.Model(encoder.inputs[0], decoder(encoder.outputs[0]))
    model.compile(make_optimizer(steps), loss=lambda x, rv_x: -rv_x.log_prob(x))
    start = time.perf_counter()
    model.fit(x, x, **fit)
    seconds = time.perf_counter() - start

    keras.utils.set_random_seed(0)
    mixture = tfp_vae.priors.NormalMixture(LATENT_SIZE, NUM_COMPONENTS)
    vae = tfp_vae.VAE(*make_networks(), prior=mixture)
    vae.compile(make_optimizer(steps))
    vae.fit(x, **fit)

    few = x_test[:500]
    results = {
        "-ELBO": model.evaluate(x_test, x_test, batch_size=500, verbose=0),
        "-ELBO of tfp_vae.VAE": tfp_vae.evaluation.elbo(vae, x_test)["loss"].mean(),
        "-ELBO, 500 images": model.evaluate(few, few, batch_size=500, verbose=0),
        "-log p(x), 100 samples, 500 images": -importance_weighted(
            encoder, decoder, prior, few, 100
        ).mean(),
        "seconds of training": seconds,
    }
    results = {name: float(value) for name, value in results.items()}
    for name, value in results.items():
        print(f"{name:36}{value:8.2f}")
    if picture:
        new = decoder(prior.sample(10)).mean()
        draw({"x": x_test[:10], "mean": model(x_test[:10]).mean(), "new": new}).savefig(picture)
    return results


if __name__ == "__main__":
    main(*sys.argv[1:])
