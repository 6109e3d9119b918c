"""Rows that no model can answer: refused with their number here, NaN among other clients' rows on a server."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_vae
from tfp_vae import layers as tfpl
from tfp_vae import networks

NUM_CATEGORIES, NUM_LABELS = 4, 3
X = np.array([[0, 1], [3, 2], [1, 1]])
LABELS = np.array([0, 1, 2])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Categories in x, and labels: live, served with this package, and as a server does."""
    keras.utils.set_random_seed(0)
    posterior = tfpl.MultivariateNormalDiag(2)
    likelihood = tfpl.IndependentCategorical(2, NUM_CATEGORIES)
    size = tfpl.IndependentCategorical.params_size(2, NUM_CATEGORIES)
    condition = networks.one_hot(NUM_LABELS)
    encoder = networks.from_inputs(
        {"x": networks.one_hot(NUM_CATEGORIES, (2,)), "condition": condition},
        [keras.layers.Dense(4), posterior],
    )
    decoder = networks.from_inputs(
        {"z": (2,), "condition": condition}, [keras.layers.Dense(size), likelihood]
    )
    vae = tfp_vae.VAE(encoder, decoder)
    vae.compile("adam")
    vae.encode({"x": X, "condition": LABELS})
    folder = vae.export(tmp_path_factory.mktemp("categories") / "model")
    return vae, tfp_vae.load(folder), tf.saved_model.load(str(folder)).signatures


def inputs_of(function):
    all_inputs = {
        "x": X.astype("float32"),
        "z": np.zeros([3, 2], "float32"),
        "condition": LABELS.astype("int32"),
        "seed": np.zeros([3, 2], "int32"),
    }
    specs = function.structured_input_signature[1]
    return {name: tf.constant(all_inputs[name], specs[name].dtype) for name in specs}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", np.nan), ("x", np.inf), ("x", NUM_CATEGORIES), ("x", -1), ("z", np.nan), ("z", -np.inf),
        ("condition", NUM_LABELS), ("condition", -1),
    ],
)  # fmt: skip
def test_a_bad_row_becomes_nan_and_its_neighbours_stay(models, name, value):
    _, _, signatures = models
    asked = 0
    for signature, function in signatures.items():
        inputs = inputs_of(function) if signature != "describe" else {}
        if name not in inputs:
            continue
        asked += 1
        good = function(**inputs)
        bad = inputs[name].numpy()
        bad[1] = value
        answer = function(**{**inputs, name: tf.constant(bad)})
        for output, expected in good.items():
            assert np.isnan(answer[output][1]).all(), (signature, output)
            np.testing.assert_allclose(
                np.delete(answer[output], 1, 0), np.delete(expected, 1, 0), rtol=1e-5, atol=1e-6
            )
    assert asked > 0


BAD = {
    "category": ({"x": [[0, 1], [3, 9], [1, 1]], "condition": LABELS}, "[Rr]ow 1"),
    "label": ({"x": X, "condition": [0, 1, 5]}, "[Rr]ow 2"),
    "nan": ({"x": [[0, 1], [1, 1], [np.nan, 1]], "condition": LABELS}, "[Rr]ow 2"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_row_is_refused_with_its_number(models, kind):
    live, served, _ = models
    data, row = BAD[kind]
    data = {name: np.array(part) for name, part in data.items()}
    for model in (live, served):
        with pytest.raises(ValueError, match=row):
            model.encode(data)
        with pytest.raises(ValueError, match=row):
            model.log_prob(data)


def test_one_condition_stands_for_all_rows(models):
    live, served, _ = models
    z = np.linspace(-1.0, 1.0, 6, dtype="float32").reshape(3, 2)
    for model in (live, served):
        one = model.decode(z, condition=1).mode()
        np.testing.assert_array_equal(one, model.decode(z, condition=np.full(3, 1)).mode())
        assert model.reconstruct({"x": X, "condition": 2}).shape == (3, 2)
