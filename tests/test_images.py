"""Every likelihood on images of height x width x channels: its statistics with any leading axes, and its pictures."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import layers as tfpl
from tfp_vae import sampling
from tfp_vae.cli.build import LIKELIHOODS, num_params

tfd = tfp.distributions
IMAGE = (3, 4, 2)
ARGUMENTS = {
    "IndependentBinomial": {"total_count": 16},
    "IndependentCategorical": {"num_categories": 3},
    "MixtureQuantizedLogistic": {"num_components": 3, "num_levels": 17},
    "IndependentQuantizedLogistic": {"num_levels": 17},
}
STATISTICS = ("mean", "mode", "stddev", "variance", "entropy")


def likelihood_of(name: str, leading: tuple, event_shape=IMAGE) -> tfd.Distribution:
    layer = getattr(tfpl, name)
    arguments = {"event_shape": event_shape, **ARGUMENTS.get(name, {})}
    params = np.random.default_rng(0).normal(size=(6, num_params(layer, arguments))).astype("float32")
    params = params.reshape(*leading, -1) if leading else params[0]
    return layer(**arguments)(tf.constant(params)).tensor_distribution


def statistic(distribution, name):
    try:
        return getattr(distribution, name)().numpy()
    except NotImplementedError:
        return None


@pytest.mark.parametrize("leading", [(), (2, 3), (1, 2, 3)], ids=str)
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_leading_axes_change_nothing(name, leading):
    flat, p = likelihood_of(name, (6,)), likelihood_of(name, leading)
    assert (p.batch_shape, p.event_shape) == (leading, IMAGE)

    def same(actual, expected, event=IMAGE):
        expected = expected.reshape(*leading, *event) if leading else expected[0]
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)

    for each in STATISTICS:
        expected = statistic(flat, each)
        if expected is None:
            assert statistic(p, each) is None
        else:
            same(statistic(p, each), expected, () if each == "entropy" else IMAGE)
    same(sampling.point(p), sampling.point(flat).numpy())
    x = flat.sample(seed=(0, 1))
    if leading:
        same(p.log_prob(tf.reshape(x, [*leading, *IMAGE])), flat.log_prob(x).numpy(), ())
    several = (5, 2) if len(leading) < 3 else (5,)  # TensorFlow broadcasts over eight axes at most
    draws = p.sample(several, seed=(0, 1))
    assert draws.shape == (*several, *leading, *IMAGE)
    assert np.isfinite(p.log_prob(draws)).all()
