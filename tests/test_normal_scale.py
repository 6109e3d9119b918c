"""Likelihoods whose scale is one number for all z: at its optimum, closed forms."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_vae
from tests.conftest import make_vae
from tfp_vae import layers as tfpl
from tfp_vae import objectives

LEARNED, OPTIMAL = tfpl.IndependentNormalLearnedScale, tfpl.IndependentNormalOptimalScale


def log_likelihood_at_optimum(mean_squared_error, num_values):
    return -0.5 * num_values * (1.0 + np.log(2.0 * np.pi * mean_squared_error))


def errors(*shape):
    """Locations, and data around them with another error in each channel."""
    rng = np.random.default_rng(0)
    loc = rng.normal(size=shape).astype("float32")
    return loc, loc + (rng.normal(size=shape) * [0.03, 0.3, 3.0]).astype("float32")


@pytest.mark.parametrize("scale_shape", [(), (1, 1, 3), (2, 2, 3)])
def test_a_trained_scale_comes_to_the_root_mean_squared_error(scale_shape):
    """Of the values that share it: there the log-likelihood is -1/2 (1 + log 2 pi MSE) a value."""
    loc, x = errors(200, 2, 2, 3)
    layer, optimizer = LEARNED((2, 2, 3), scale_shape), keras.optimizers.Adam(0.05)
    np.testing.assert_allclose(layer(loc.reshape(200, -1)).stddev(), np.ones_like(loc), rtol=1e-6)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(layer(loc.reshape(200, -1)).log_prob(x))
        optimizer.apply(tape.gradient(loss, [layer.raw_scale.value]), [layer.raw_scale])

    for _ in range(800):
        step()
    shared = {(): (0, 1, 2, 3), (1, 1, 3): (0, 1, 2), (2, 2, 3): (0,)}[scale_shape]
    mean_squared_error = np.broadcast_to(
        np.mean((x - loc) ** 2, shared, keepdims=True), (1, 2, 2, 3)
    )
    p = layer(loc.reshape(200, -1))
    np.testing.assert_allclose(p.stddev()[0] ** 2, mean_squared_error[0], rtol=1e-2)
    expected = np.sum(log_likelihood_at_optimum(mean_squared_error, 1))
    assert np.mean(p.log_prob(x)) == pytest.approx(expected, abs=1e-2)


def test_the_optimal_scale_in_closed_form():
    """Value and gradient, though no gradient passes through the scale: at its optimum there is none."""
    loc, x = errors(50, 2, 2, 3)
    params, layer = tf.Variable(loc.reshape(50, -1)), OPTIMAL((2, 2, 3))
    with tf.GradientTape() as tape:
        log_prob = layer(params, training=True).log_prob(x)
    closed, closed_params = tf.GradientTape(), tf.Variable(loc.reshape(50, -1))
    with closed:
        mean_squared_error = tf.reduce_mean((closed_params - x.reshape(50, -1)) ** 2)
        expected = -6.0 * (1.0 + tf.math.log(2.0 * np.pi * mean_squared_error))
    assert np.mean(log_prob) == pytest.approx(float(expected), rel=1e-5)
    gradient = tape.gradient(log_prob, params)
    np.testing.assert_allclose(
        gradient, 50 * closed.gradient(expected, closed_params), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
        layer(loc.reshape(50, -1)).stddev() ** 2, np.full(loc.shape, mean_squared_error), rtol=1e-5
    )


def test_the_stored_scale_is_a_mean_that_forgets():
    layer = OPTIMAL(())
    for number, size in enumerate((3.0, 1.0, 2.0), start=1):
        layer(tf.zeros([4, 1]), training=True).log_prob(tf.fill([4], size))
        assert float(layer.variance) == pytest.approx(
            np.mean(np.square([3.0, 1.0, 2.0][:number])), rel=1e-6
        )
    for _ in range(200):
        layer(tf.zeros([4, 1]), training=True).log_prob(tf.fill([4], 0.5))
    assert float(layer.variance) == pytest.approx(0.25, rel=1e-4)


def sigma_vae(objective=None, **kwargs) -> tfp_vae.VAE:
    vae = make_vae(likelihood=OPTIMAL, objective=objective)
    vae.compile(keras.optimizers.Adam(2e-3), **kwargs)
    return vae


def stored(vae) -> float:
    return float(vae.decoder.layers[-1].variance)


def test_a_vae_knows_when_it_trains(digits):
    """The flag reaches the layer through the decoder; outside of training no example depends on its batch."""
    vae, x = sigma_vae(), digits.train[:100] / np.float32(16)
    terms = vae(x, training=True)
    assert stored(vae) != 1.0
    # One step: the stored one is that of the batch.
    expected = log_likelihood_at_optimum(stored(vae), 64)
    assert np.mean(terms["log_likelihood"]) == pytest.approx(expected, rel=1e-5)
    before, alone = stored(vae), vae.decode(np.zeros([1, 4])).log_prob(x[:1])
    np.testing.assert_allclose(vae.decode(np.zeros([7, 4])).log_prob(x[:7])[:1], alone, rtol=1e-5)
    vae.compute_loss(y_pred=vae(x), training=False)
    vae.evaluate(x, verbose=0)
    vae.log_prob(x[:3], 5)
    assert stored(vae) == before


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(
    "objective",
    [
        objectives.ELBO(),
        objectives.IWAE(3, estimator="dreg"),
        objectives.ELBO(kl="sampled", estimator="stl"),
    ],
    ids=["elbo", "dreg", "stl"],
)
@pytest.mark.rows(0, 2)
def test_after_training_the_scale_is_that_of_the_errors(digits, objective, jit_compile):
    vae, x = (
        sigma_vae(type(objective).from_config(objective.get_config()), jit_compile=jit_compile),
        digits.train / 16,
    )
    x = x[:1400].astype("float32")
    vae.fit(x, batch_size=100, epochs=25, verbose=0)
    z = vae.encode(x).sample(seed=(0, 0))
    mean_squared_error = np.mean((vae.decode(z).mean() - x) ** 2)
    assert stored(vae) == pytest.approx(mean_squared_error, rel=0.1)
    assert mean_squared_error < 0.8 * x.var(0).mean()


@pytest.mark.slow
def test_the_scale_is_saved_and_served(digits, tmp_path):
    x = (digits.train[:200] / 16).astype("float32")
    vae = sigma_vae()
    vae.fit(x, batch_size=50, shuffle=False, verbose=0)
    vae.save(tmp_path / "vae.keras")
    again = keras.models.load_model(tmp_path / "vae.keras")
    assert stored(again) == stored(vae)
    served = tfp_vae.load(again.export(tmp_path / "served", score_samples=1, log_prob_samples=1))
    z = np.zeros([2, 4], "float32")
    np.testing.assert_allclose(served.decode(z).stddev(), again.decode(z).stddev(), rtol=1e-6)
    np.testing.assert_allclose(
        served.decode(z).log_prob(x[:2]), again.decode(z).log_prob(x[:2]), rtol=1e-4
    )


@pytest.mark.parametrize(
    ("likelihood", "arguments"),
    [
        (LEARNED, {}),
        (LEARNED, {"scale_shape": (8, 8, 1)}),
        (tfpl.MixtureQuantizedLogistic, {"num_components": 3}),
    ],
)
@pytest.mark.rows(1)
def test_other_new_likelihoods_are_served(likelihood, arguments, digits, tmp_path):
    size = (3 * 3 if arguments.get("num_components") else 1) * 64
    decoder = [
        keras.Input((4,)),
        keras.layers.Dense(size),
        likelihood(event_shape=(8, 8, 1), **arguments),
    ]
    vae = tfp_vae.VAE(make_vae().encoder, keras.Sequential(decoder))
    served = tfp_vae.load(vae.export(tmp_path / "served", score_samples=1, log_prob_samples=1))
    z = np.float32([[0.0, 1.0, -1.0, 2.0], [0.5, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(
        served.decode(z).log_prob(digits.test[:2]),
        vae.decode(z).log_prob(digits.test[:2]),
        rtol=1e-4,
    )
    np.testing.assert_allclose(served.decode(z).mean(), vae.decode(z).mean(), rtol=1e-4, atol=1e-4)
