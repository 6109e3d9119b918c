"""Flipout against its formula: the kernel's deviation with signs of its own for each example."""

import itertools

import keras
import numpy as np
import pytest

from tfp_vae import layers as tfpl

ROWS = {
    "dense": (tfpl.DenseFlipout, (3,), keras.layers.Dense, {"units": 2}),
    "1D": (tfpl.Convolution1DFlipout, (5, 2), keras.layers.Conv1D, {"filters": 2}),
    "2D": (tfpl.Convolution2DFlipout, (3, 4, 2), keras.layers.Conv2D, {"filters": 2}),
    "3D": (tfpl.Convolution3DFlipout, (3, 3, 4, 2), keras.layers.Conv3D, {"filters": 2}),
}


@pytest.mark.parametrize(
    ("random_class", "shape", "plain_class", "arguments"), ROWS.values(), ids=ROWS
)
def test_each_example_has_signs_of_its_own(random_class, shape, plain_class, arguments):
    """A sign for each input and each output: of all the kernels that they make, one fits exactly."""
    if "filters" in arguments:
        arguments = {**arguments, "kernel_size": 2, "padding": "same"}
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, *shape)).astype("float32")
    random = random_class(**arguments, bias_posterior_fn=None, seed=0)
    random.build(x.shape)
    random.set_weights([rng.normal(size=weight.shape) for weight in random.weights])
    outputs = random(x).numpy()
    loc = random.kernel_posterior.mean().numpy()
    deviation = random.kernel_posterior_affine_tensor.numpy()
    *_, num_inputs, num_outputs = loc.shape
    plain = plain_class(**arguments, use_bias=False)
    plain.build(x.shape)
    distances = []
    for signs in itertools.product([-1.0, 1.0], repeat=num_inputs + num_outputs):
        plain.set_weights([loc + deviation * np.outer(signs[:num_inputs], signs[num_inputs:])])
        distances.append(np.abs(plain(x).numpy() - outputs).reshape(len(x), -1).max(axis=1))
    fits = np.array(distances) < 1e-4
    # All signs turned around make the same kernel.
    np.testing.assert_array_equal(fits.sum(axis=0), 2)
    assert len(set(fits.argmax(axis=0))) > 4
