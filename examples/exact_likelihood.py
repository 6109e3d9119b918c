"""A VAE whose evidence is known: trained by `fit`, it must find probabilistic PCA.

With a linear decoder and normal noise of one shared scale, log p(x) has a closed form, and its maximum is probabilistic
PCA (Tipping & Bishop, 1999; Lucas et al., 2019, arXiv:1911.02469). So every number a VAE reports can be checked: the
ELBO must come up to the exact log-likelihood, and importance sampling must meet it.

Run: python examples/exact_likelihood.py
"""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from sklearn.decomposition import PCA

import tfp_vae
from tfp_vae import layers as tfpl

tfd = tfp.distributions
LATENT, DIM, NUM_EXAMPLES = 3, 10, 2_000


@keras.saving.register_keras_serializable(package="examples")
class SharedScale(keras.layers.Layer):
    """Put one trainable scale parameter, shared by all values, behind the locations."""

    def build(self, input_shape):
        """Create the scale, unconstrained."""
        self.scale = self.add_weight(shape=(), initializer="zeros")

    def call(self, loc):
        return keras.ops.concatenate([loc, self.scale + keras.ops.zeros_like(loc)], axis=-1)


def make_data() -> np.ndarray:
    """Draw from a linear model of 3 factors of different strength, and noise."""
    random = np.random.RandomState(0)
    factors = random.normal(size=[LATENT, DIM]) * np.array([[0.9], [0.6], [0.3]])
    x = random.normal(size=[NUM_EXAMPLES, LATENT]) @ factors + 0.15 * random.normal(
        size=[NUM_EXAMPLES, DIM]
    )
    return (x + 1.0).astype("float32")


def make_vae() -> tfp_vae.VAE:
    """Make the linear VAE."""
    encoder = [
        keras.Input((DIM,)),
        keras.layers.Dense(tfpl.MultivariateNormalDiag.params_size(LATENT)),
        tfpl.MultivariateNormalDiag(LATENT),
    ]
    decoder = [
        keras.Input((LATENT,)),
        keras.layers.Dense(DIM),
        SharedScale(),
        tfpl.IndependentNormal(DIM),
    ]
    return tfp_vae.VAE(keras.Sequential(encoder), keras.Sequential(decoder))


def exact_log_prob(vae: tfp_vae.VAE, x: np.ndarray) -> np.ndarray:
    """Return the model's own log p(x): z integrated out, x is normal with covariance W W^T + sigma^2 I."""
    weights, loc, _ = vae.decoder.get_weights()
    variance = float(vae.decode(np.zeros([1, LATENT])).variance()[0, 0])
    covariance = weights.T @ weights + variance * np.eye(DIM)
    return (
        tfd.MultivariateNormalFullCovariance(loc.astype("float64"), covariance)
        .log_prob(x.astype("float64"))
        .numpy()
    )


def main(verbose: int = 1) -> dict[str, float]:
    """Train, and compare in nats per example."""
    keras.utils.set_random_seed(0)
    x, vae = make_data(), make_vae()
    steps, epochs = NUM_EXAMPLES // 200, 200
    schedule = keras.optimizers.schedules.CosineDecay(2e-2, steps * epochs)
    vae.compile(keras.optimizers.Adam(schedule), steps_per_execution=steps)
    vae.fit(x, batch_size=200, epochs=epochs, verbose=0)
    result = {
        "pca": -PCA(LATENT).fit(x.astype("float64")).score(x),
        "exact": -exact_log_prob(vae, x).mean(),
        "negative_elbo": -np.mean(
            [vae.objective.terms(one_pass)["elbo"] for one_pass in passes(vae, x)]
        ),
        "importance": -float(np.mean(vae.log_prob(x, 1000))),
        "active_units": tfp_vae.evaluation.active_units(vae, x),
    }
    if verbose:
        print(f"probabilistic PCA, the optimum        {result['pca']:.3f}")
        print(f"the VAE's exact -log p(x)             {result['exact']:.3f}")
        print(f"the VAE's -ELBO                       {result['negative_elbo']:.3f}")
        print(f"the VAE's -log p(x), 1,000 samples    {result['importance']:.3f}")
        print(f"active units                          {result['active_units']} of {LATENT}")
    return result


def passes(vae: tfp_vae.VAE, x: np.ndarray, num_passes: int = 20):
    """Return stochastic passes with different draws, so that their mean has little noise."""
    for number in range(num_passes):
        seed = tf.constant([0, number])
        yield tfp_vae.objectives.OnePass(
            tf.constant(x), vae.encode(x), vae.prior(None), vae.decode, seed
        )


if __name__ == "__main__":
    main()
