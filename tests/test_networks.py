"""Networks: shapes, the order of parameters, and what they refuse."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_vae import VAE, networks
from tfp_vae import layers as tfpl

CASES = {
    "mlp": (lambda: networks.mlp((8, 8, 1), 6, hidden_sizes=(16, 8)), (8, 8, 1), 6),
    "conv_encoder": (lambda: networks.conv_encoder((8, 8, 3), 6), (8, 8, 3), 6),
    "conv_decoder": (lambda: networks.conv_decoder(5, (8, 12, 3), 2), (5,), 2 * 8 * 12 * 3),
}


def test_every_network_has_a_row():
    assert set(networks.__all__) == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_contract(name, tmp_path):
    make, input_shape, output_size = CASES[name]
    network = make()
    x = np.random.RandomState(0).normal(size=(3, *input_shape)).astype("float32")
    assert network(x).shape == (3, output_size)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(network(x) ** 2)
    assert all(np.abs(gradient).max() > 0 for gradient in tape.gradient(value, network.trainable_weights))
    network.save(tmp_path / "network.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "network.keras")(x), network(x))


def test_conv_decoder_gives_all_values_of_one_parameter_first():
    """With two parameters a value, the last convolution's channels are loc and scale of the same pixel."""
    decoder = networks.conv_decoder(5, (8, 8, 1), 2)
    kernel, bias = decoder.layers[-4].get_weights()
    decoder.layers[-4].set_weights([0 * kernel, np.array([3.0, -2.0])])
    normal = tfpl.IndependentNormal((8, 8, 1))(decoder(np.zeros([2, 5])))
    assert bias.shape == (2,)
    np.testing.assert_allclose(normal.mean(), 3.0)
    np.testing.assert_allclose(normal.stddev(), np.log1p(np.exp(-2.0)), rtol=1e-5)


def test_a_convolutional_vae_learns(digits):
    posterior, likelihood = tfpl.MultivariateNormalDiag, tfpl.IndependentBinomial
    shape = digits.event_shape
    vae = VAE(
        keras.Sequential([networks.conv_encoder(shape, posterior.params_size(8)), posterior(8)]),
        keras.Sequential([networks.conv_decoder(8, shape), likelihood(shape, total_count=16)]),
    )
    vae.compile(keras.optimizers.Adam(3e-3))
    elbo = vae.fit(digits.train, batch_size=100, epochs=5, verbose=0).history["elbo"]
    assert elbo[-1] > -220 > elbo[0]


@pytest.mark.parametrize("shape", [(28,), (7, 8, 1), (8, 7, 1)])
def test_images_that_cannot_be_halved(shape):
    with pytest.raises(ValueError, match="divisible by 4"):
        networks.conv_encoder(shape, 4)
    with pytest.raises(ValueError, match="divisible by 4"):
        networks.conv_decoder(4, shape)
