"""Every likelihood on images of height x width x channels: its statistics with any leading axes, and its pictures."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_vae
from tests.conftest import mostly_slow
from tests.layer_cases import LIKELIHOODS as ALL
from tests.layer_cases import likelihood_arguments, possible_data
from tfp_vae import evaluation, networks, plots, sampling
from tfp_vae import layers as tfpl
from tfp_vae.cli.build import num_params

tfd = tfp.distributions
IMAGE = (3, 4, 2)
STATISTICS = ("mean", "mode", "stddev", "variance", "entropy")

# Those of values alone, without a network that sees the values before them.
LIKELIHOODS = [name for name in ALL if not getattr(tfpl, name).has_own_network]


def likelihood_of(name: str, leading: tuple, event_shape=IMAGE) -> tfd.Distribution:
    layer = getattr(tfpl, name)
    arguments = likelihood_arguments(name, event_shape)
    params = (
        np.random.default_rng(0).normal(size=(6, num_params(layer, arguments))).astype("float32")
    )
    params = params.reshape(*leading, -1) if leading else params[0]
    return layer(**arguments)(tf.constant(params)).tensor_distribution


def statistic(distribution, name):
    try:
        return getattr(distribution, name)().numpy()
    except NotImplementedError:
        return None


@pytest.mark.parametrize("leading", [(), (2, 3), (1, 2, 3)], ids=str)
@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.rows(15)
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


SHAPES = {"grey": (4, 4, 1), "colour": (4, 4, 3), "vector": (6,)}
FAST = ("MixtureQuantizedLogistic-colour", "IndependentBernoulli-grey")


@pytest.mark.parametrize(
    "row", mostly_slow([f"{name}-{shape}" for name in LIKELIHOODS for shape in SHAPES], *FAST)
)
@pytest.mark.rows(1, 8)
def test_every_likelihood_goes_to_the_end(row, tmp_path):
    """Training, every number, every picture."""
    name, kind = row.split("-")
    layer, shape = getattr(tfpl, name), SHAPES[kind]
    arguments = likelihood_arguments(name, shape)
    x = possible_data(name, 24, shape)
    encoder = [networks.mlp(shape, 4, hidden_sizes=(8,)), tfpl.MultivariateNormalDiag(2)]
    decoder = [
        networks.mlp((2,), num_params(layer, arguments), hidden_sizes=(8,)),
        layer(**arguments),
    ]
    vae = tfp_vae.VAE(keras.Sequential(encoder), keras.Sequential(decoder))
    vae.compile("adam", run_eagerly=True)
    history = vae.fit(x, batch_size=12, validation_data=(x,), verbose=0).history
    numbers = evaluation.evaluate(vae, x, num_samples=3, batch_size=12)
    assert np.isfinite([*numbers.values(), *np.ravel(list(history.values()))]).all()
    figures = {
        "reconstructions": plots.reconstructions(vae, x, num_examples=3),
        "samples": plots.samples(vae, num_rows=2, num_columns=3),
        "latent_traversal": plots.latent_traversal(vae, x, num_steps=3),
        "learning_curves": plots.learning_curves(history),
    }
    for title, figure in figures.items():
        figure.savefig(tmp_path / f"{title}.png")
        assert (tmp_path / f"{title}.png").stat().st_size > 1000
    assert vae.generate(3, draws=True).shape == vae.reconstruct(x[:3]).shape == (3, *shape)
