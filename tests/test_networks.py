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
    "from_inputs": (
        lambda: networks.from_inputs({"x": (5, 2)}, [keras.layers.Dense(6)]),
        (5, 2),
        6,
    ),
    "of_part": (lambda: networks.of_part(np.arange(8.0).reshape(2, 4), "x"), (4,), 4),
    "one_hot": (lambda: networks.one_hot(7), (), 7),
    "observed": (
        lambda: networks.from_inputs({"x": networks.observed(np.eye(4))}, [keras.layers.Dense(3)]),
        (4,),
        3,
    ),
    "standardized": (lambda: networks.standardized(np.arange(8.0).reshape(2, 4)), (4,), 4),
    "conv_decoder": (lambda: networks.conv_decoder(5, (8, 12, 3), 2), (5,), 2 * 8 * 12 * 3),
}


def test_observed_values_mean_the_same_however_many_there_are():
    """Over masks, the mean of what comes out is that of whole examples; a missing value is as the mean of its kind."""
    random = np.random.default_rng(0)
    x = random.normal(3.0, 1.0, size=(200, 6)).astype("float32")
    mask = random.uniform(size=(5000, 6)) < 0.5
    network = networks.observed(np.where(mask[:200], x, np.nan))
    center = np.nanmean(np.where(mask[:200], x, np.nan), 0)
    np.testing.assert_allclose(network({"x": x, "mask": np.ones_like(x)}), x - center, atol=1e-5)
    some = network({"x": np.repeat(x[:1], 5000, 0), "mask": mask})
    np.testing.assert_allclose(np.sum(some, 0) / (mask.any(1).sum()), x[0] - center, atol=0.15)
    np.testing.assert_array_equal(network({"x": x[:1], "mask": np.zeros([1, 6])}), np.zeros([1, 6]))
    named = networks.observed(np.arange(4.0), "age")  # of numbers, one each
    np.testing.assert_allclose(
        named({"age": np.array([5.0, 5.0]), "age_mask": np.array([1.0, 0.0])}), [3.5, 0.0]
    )


def test_every_network_has_a_row():
    assert set(networks.__all__) == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_contract(name, tmp_path):
    make, input_shape, output_size = CASES[name]
    network = make()
    x = np.random.RandomState(0).normal(size=(3, *input_shape)).astype("float32")
    x = x if len(network.inputs) == 1 else {"x": x, "mask": np.ones_like(x)}
    assert network(x).shape == (3, output_size)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(network(x) ** 2)
    assert all(
        np.abs(gradient).max() > 0 for gradient in tape.gradient(value, network.trainable_weights)
    )
    network.save(tmp_path / "network.keras")
    np.testing.assert_array_equal(
        keras.models.load_model(tmp_path / "network.keras")(x), network(x)
    )


def test_conv_decoder_gives_all_values_of_one_parameter_first():
    """With two parameters a value, the last convolution's channels are loc and scale of the same pixel."""
    decoder = networks.conv_decoder(5, (8, 8, 1), 2)
    kernel, bias = decoder.layers[-4].get_weights()
    decoder.layers[-4].set_weights([0 * kernel, np.array([3.0, -2.0])])
    normal = tfpl.IndependentNormal((8, 8, 1))(decoder(np.zeros([2, 5])))
    assert bias.shape == (2,)
    np.testing.assert_allclose(normal.mean(), 3.0)
    np.testing.assert_allclose(normal.stddev(), np.log1p(np.exp(-2.0)), rtol=1e-5)


@pytest.mark.slow
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


def test_inputs_by_name_are_flattened_and_concatenated():
    table = networks.from_inputs(
        {"a": (2, 2), "b": networks.one_hot(3), "c": networks.one_hot(2, (2,)), "d": (1,)},
        [keras.layers.Rescaling(2.0)],
    )
    values = {
        "a": np.arange(4.0).reshape(1, 2, 2),
        "b": np.array([2]),
        "c": np.array([[1, 0]]),
        "d": np.array([[9.0]]),
    }
    expected = [0, 1, 2, 3, 0, 0, 1, 0, 1, 1, 0, 9]
    np.testing.assert_array_equal(table(values), [2.0 * np.array(expected)])


def test_two_networks_of_one_kind_are_two(tmp_path):
    network = networks.from_inputs(
        {"a": networks.mlp((3,), 2), "b": networks.mlp((3,), 2)}, [keras.layers.Dense(2)]
    )
    network.save(tmp_path / "network.keras")
    values = {"a": np.ones([1, 3]), "b": np.zeros([1, 3])}
    np.testing.assert_array_equal(
        keras.models.load_model(tmp_path / "network.keras")(values), network(values)
    )
    assert np.abs(network(values) - network({"a": values["b"], "b": values["a"]})).max() > 1e-3


def test_standardized_has_mean_0_and_deviation_1(tmp_path):
    x = np.random.default_rng(0).normal(3.0, [1.0, 20.0, 0.0], (50, 3))
    network = networks.standardized(x)
    network.save(tmp_path / "network.keras")
    for model in (network, keras.models.load_model(tmp_path / "network.keras")):
        out = model(x).numpy()
        np.testing.assert_allclose(out.mean(0), 0.0, atol=1e-5)
        np.testing.assert_allclose(out.std(0), [1.0, 1.0, 0.0], atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: networks.from_inputs({}, [keras.layers.Dense(2)]), "Expected inputs and layers"),
        (lambda: networks.from_inputs({"x": (2,)}, []), "Expected inputs and layers"),
        (lambda: networks.one_hot(0), "num_labels must be a whole number of at least 1"),
        (lambda: networks.standardized(np.array([[np.nan]])), "Expected finite numbers to measure"),
    ],
)
def test_what_networks_of_inputs_refuse(make, message):
    with pytest.raises(ValueError, match=message):
        make()
