"""Exports of models whose latents, data or conditions have several parts, of flows, and of missing values."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_vae
from tests.conftest import mostly_slow
from tests.test_joint import STRUCTURES, X, groups_vae
from tests.test_missing import data as incomplete
from tests.test_missing import linear_vae
from tfp_vae import layers as tfpl
from tfp_vae import objectives, sampling

pytestmark = pytest.mark.verified


def flow_vae():
    flow = tfpl.InverseAutoregressiveFlow(2, 2, (8,), context_size=2)
    encoder = [
        keras.Input((3,)),
        keras.layers.Dense(tfpl.FlowPosterior.params_size(flow)),
        tfpl.FlowPosterior(flow),
    ]
    decoder = [keras.Input((2,)), keras.layers.Dense(6), tfpl.IndependentNormal(3)]
    return tfp_vae.VAE(keras.Sequential(encoder), keras.Sequential(decoder))


MODELS = {name: row for name, row in STRUCTURES.items() if name != "groups"}
MODELS |= {"flow": (flow_vae, X), "missing": (linear_vae, incomplete(24)[0])}


@pytest.fixture(scope="module", params=mostly_slow(MODELS, "mixed"))
def served(request, tmp_path_factory):
    keras.utils.set_random_seed(0)
    make, data = MODELS[request.param]
    vae = make()
    vae.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
    vae.fit(data, batch_size=12, verbose=0)
    folder = tmp_path_factory.mktemp("served")
    return (
        vae,
        tfp_vae.load(vae.export(folder / "model", score_samples=2, log_prob_samples=50)),
        data,
    )


def close(actual, expected, tolerance=1e-4):
    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        actual,
        dict_or_array(expected),
    )


def dict_or_array(value):
    return dict(value) if isinstance(value, dict) else value


def test_answers_are_the_live_models(served):
    vae, loaded, data = served
    condition = data["condition"][0] if vae.condition is not None else None
    close(loaded.reconstruct(data), vae.reconstruct(data))
    close(
        loaded.generate(4, seed=1, condition=condition),
        vae.generate(4, seed=1, condition=condition),
    )
    one_pass = vae.one_pass(data, tf.constant([7, 0]))  # the seed of what is served
    log_likelihood, log_prior, log_posterior = one_pass.log_densities(
        sampling.sample_alike(one_pass.posterior, 2, one_pass.seed)
    )
    kl = one_pass.kl(tf.reduce_mean(log_prior, 0), tf.reduce_mean(log_posterior, 0))
    expected = {"log_likelihood": tf.reduce_mean(log_likelihood, 0), "kl": kl}
    expected["elbo"] = expected["log_likelihood"] - kl
    close(loaded.score(data), {name: value.numpy() for name, value in expected.items()}, 1e-3)
    estimate = objectives.importance_sampled_log_prob(
        one_pass, 50, draws_per_step=32, draw=sampling.sample_alike
    )
    close(loaded.log_prob(data), estimate, 1e-3)


def test_the_posterior_draws_and_has_the_live_models_density(served):
    vae, loaded, data = served
    q, live = loaded.encode(data), vae.encode(data)
    z = q.sample(3, seed=[1, 2])
    assert tf.nest.map_structure(lambda part: part.shape[:2], z) == tf.nest.map_structure(
        lambda _: (3, 24), z
    )
    close(q.log_prob(z), sampling.log_density(live, z), 2e-3)
    one = q.sample(seed=[1, 2])
    close(q.log_prob(one), sampling.log_density(live, one), 2e-3)
    close(q.mean(), sampling.point(live), 1e-3)


def test_the_likelihood_takes_latents_of_any_leading_axes(served):
    vae, loaded, data = served
    given = (data["condition"],) if vae.condition is not None else ()
    z = sampling.sample(vae.encode(data), [2], tf.constant([1, 2]))
    p, live = loaded.decode(z, *given), vae.decode(z, *given)
    x = live.sample(seed=[1, 2])
    close(sampling.log_density(p, x), sampling.log_density(live, x), 1e-3)


def test_a_joint_distribution_is_there_but_for_several_latents_with_a_prior_of_their_own(served):
    vae, loaded, data = served
    condition = None if vae.condition is None else data["condition"][0]
    if loaded.description["prior"] is None and loaded.z.has_parts:
        with pytest.raises(ValueError, match="not determined by tensors alone"):
            loaded.joint_distribution(condition)
    else:
        live, theirs = vae.joint_distribution(condition), loaded.joint_distribution(condition)
        draw = live.sample(5, seed=[1, 2])
        close(theirs.log_prob(draw), live.log_prob(draw), 1e-3)
        assert theirs.sample(2, seed=[1, 2]).keys() == draw.keys()


def test_draws_are_the_live_models(served):
    vae, loaded, data = served
    condition = None if vae.condition is None else data["condition"][0]
    arguments = {"num_samples": 6, "seed": 5, "condition": condition, "draws": True}
    close(loaded.generate(**arguments), vae.generate(**arguments), 1e-3)


@pytest.mark.slow
def test_missing_values_are_served(tmp_path):
    vae, (x, _) = linear_vae(), incomplete(20)
    loaded = tfp_vae.load(vae.export(tmp_path / "m", score_samples=2, log_prob_samples=200))
    filled = loaded.impute(x)
    np.testing.assert_array_equal(filled[~np.isnan(x)], x[~np.isnan(x)])
    np.testing.assert_allclose(filled, vae.impute(x, 5000), atol=0.4)
    with pytest.raises(ValueError, match="NaN"):
        loaded.reconstruct({"x": x, "mask": np.isnan(x)})


@pytest.mark.slow
def test_independent_groups_are_served_by_their_parameters(tmp_path):
    vae = groups_vae()
    loaded = tfp_vae.load(vae.export(tmp_path / "m", score_samples=2, log_prob_samples=20))
    assert {"style_loc", "style_scale_diag", "kind_logits"} <= loaded.call("encode", x=X).keys()
    z = vae.encode(X).sample(seed=[1, 2])
    close(loaded.encode(X).log_prob(z), vae.encode(X).log_prob(z))


BAD = {
    "no condition": ("conditional", X, "model is conditional"),
    "a condition": ("bottom-up", {"x": X, "condition": X}, "takes no condition"),
    "shape": ("bottom-up", X[:, :2], r"takes x of shape \[None, 3\], received \(24, 2\)"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD)
@pytest.mark.rows(0, 1)
def test_misuse_is_explained(kind, tmp_path):
    name, data, message = BAD[kind]
    vae = STRUCTURES[name][0]()
    loaded = tfp_vae.load(vae.export(tmp_path / "m", score_samples=2, log_prob_samples=2))
    with pytest.raises(ValueError, match=message):
        loaded.score(data)
