"""The Gaussian process as a layer: against tfp.layers with the same weights, and against an exact process."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

from tfp_vae import layers as tfpl

tfd = tfp.distributions
RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 2)).astype("float32")
Y = RNG.normal(size=(6, 3)).astype("float32")


def kernel_layer(framework):
    class RBF(framework.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.amplitude = self.add_weight(name="amplitude", shape=(), initializer="zeros")
            self.length = self.add_weight(name="length", shape=(), initializer="zeros")

        def call(self, x):
            return x

        @property
        def kernel(self):
            amplitude, length = (tf.nn.softplus(w) for w in (self.amplitude, self.length))
            return tfp.math.psd_kernels.ExponentiatedQuadratic(amplitude, length)

    return RBF


RBF = keras.saving.register_keras_serializable(package="test_gaussian_process")(kernel_layer(keras))
TF_RBF = kernel_layer(tf_keras)


def pair(**kwargs):
    theirs = tfp.layers.VariationalGaussianProcess(
        4, TF_RBF(), (3,), tf_keras.initializers.RandomNormal(), **kwargs
    )
    ours = tfpl.VariationalGaussianProcess(
        4, RBF(), (3,), keras.initializers.RandomNormal(), **kwargs
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs(X)
    ours(X)
    ours.set_weights([0.5 * RNG.normal(size=w.shape) for w in ours.get_weights()])
    theirs.set_weights(ours.get_weights())
    return theirs, ours


OPTIONS = {
    "defaults": {},
    "mean": {"mean_fn": lambda x: x[..., 0]},
    "no noise": {"unconstrained_observation_noise_variance_initializer": None},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_losses_moments_and_gradients_are_those_of_tfp(options):
    results = []
    layers = pair(**options)
    for layer in layers:
        weights = [
            getattr(w, "_value", w) if isinstance(w, keras.Variable) else w
            for w in layer.trainable_weights
        ]
        with tf.GradientTape() as tape, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            process = layer(X)
            loss = process.variational_loss(Y, kl_weight=0.3)
            total = tf.reduce_sum(loss) + tf.reduce_sum(process.mean() ** 2)
        divergence = process.surrogate_posterior_kl_divergence_prior()
        results.append([loss, process.mean(), divergence, *tape.gradient(total, weights)])
    assert [w.name.split("/")[-1].split(":")[0] for w in layers[0].weights] == [
        w.name for w in layers[1].weights
    ]
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-4)


def test_at_its_optimum_it_is_the_exact_process():
    """With an inducing point at each example, and q(u) their exact posterior, the bound is the evidence.

    (The scale of TFP's `optimal_variational_posterior` is not that of a symmetric problem.)
    """
    x = np.linspace(-2, 2, 7)[:, None]
    y = np.sin(x) + 0.1 * RNG.normal(size=x.shape)
    kernel = tfp.math.psd_kernels.ExponentiatedQuadratic(np.float64(1.0), np.float64(1.0))
    noise = np.float64(0.1)
    prior = kernel.matrix(x, x).numpy()
    gain = prior @ np.linalg.inv(prior + noise * np.eye(7))
    loc, scale = gain @ y[:, 0], np.linalg.cholesky(prior - gain @ prior + 1e-12 * np.eye(7))
    layer = tfpl.VariationalGaussianProcess(7, RBF(dtype="float64"), jitter=1e-10)
    layer(x)
    one, raw_noise = np.log(np.expm1(1.0)), np.log(np.expm1(noise))
    weights = 0.0, raw_noise, x[None], loc[None], scale[None], one, one
    layer.set_weights([np.asarray(weight) for weight in weights])
    exact = tfd.GaussianProcess(kernel, x, observation_noise_variance=noise).log_prob(y[:, 0])
    # TFP counts the noise once more in the variance: half a nat for each example.
    np.testing.assert_allclose(layer(x).variational_loss(y)[0] - 7 / 2, -exact, rtol=1e-5)


def test_errors():
    with pytest.raises(TypeError, match="kernel_provider must be a Keras layer with a property"):
        tfpl.VariationalGaussianProcess(4, 3)
    with pytest.raises(ValueError, match="event_shape must have one axis"):
        tfpl.VariationalGaussianProcess(4, RBF(), event_shape=(2, 2))


def loss(y, process):
    return process.variational_loss(y, kl_weight=0.5)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.slow
@pytest.mark.rows(0, 1)
def test_a_model_trains_saves_and_is_served(jit_compile, tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((1,)),
            keras.layers.Dense(1, kernel_initializer="ones"),
            tfpl.VariationalGaussianProcess(
                8,
                RBF(),
                inducing_index_points_initializer=keras.initializers.RandomUniform(
                    -2.0, 2.0, seed=0
                ),
                jitter=1e-4,
                convert_to_tensor_fn="mean",
            ),
        ]
    )
    x = np.linspace(-2, 2, 32, dtype="float32")[:, None]
    model.compile(keras.optimizers.Adam(0.05), loss, jit_compile=jit_compile)
    history = model.fit(x, np.sin(x), epochs=60, batch_size=16, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]
    prediction = model.predict(x, verbose=0)
    assert abs(prediction - np.sin(x)).mean() < 0.25
    model.save(tmp_path / "process.keras")
    loaded = keras.models.load_model(tmp_path / "process.keras", custom_objects={"loss": loss})
    np.testing.assert_allclose(loaded.predict(x, verbose=0), prediction, rtol=1e-4, atol=1e-4)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(served.serve(x[:5]), model(x[:5]), rtol=1e-3, atol=1e-3)
