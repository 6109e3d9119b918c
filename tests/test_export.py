"""Small models exported and loaded again: versions, errors, an exact answer, and distributions off the usual path."""

import json
import os
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_vae
from tests import c_api
from tests.layer_cases import CASES
from tests.served_models import assert_close
from tfp_vae import layers as tfpl
from tfp_vae import priors
from tfp_vae.layers.own import OWN
from tfp_vae.serving.plain_tensors import describe, rebuild

tfd, tfb = tfp.distributions, tfp.bijectors


def small_vae(posterior=None, likelihood=None, params_sizes=(4, 6), **kwargs) -> tfp_vae.VAE:
    """A VAE of one dense layer each way, from 3 values to 2 and back."""
    encoding, decoding = params_sizes
    encoder = [
        keras.Input((3,)),
        keras.layers.Dense(encoding),
        posterior or tfpl.MultivariateNormalDiag(2),
    ]
    decoder = [
        keras.Input((2,)),
        keras.layers.Dense(decoding),
        likelihood or tfpl.IndependentNormal(3),
    ]
    return tfp_vae.VAE(keras.Sequential(encoder), keras.Sequential(decoder), **kwargs)


def test_each_export_is_a_new_version_and_load_takes_the_newest(tmp_path):
    vae, z = small_vae(), np.ones([1, 2], "float32")
    old = vae.decode(z).mean().numpy()
    assert vae.export(tmp_path / "vae") == tmp_path / "vae" / "1"
    vae.decoder.set_weights([weight + 1 for weight in vae.decoder.get_weights()])
    assert tfp_vae.serving.export(vae, str(tmp_path / "vae")) == tmp_path / "vae" / "2"
    assert_close(tfp_vae.load(tmp_path / "vae" / "1").decode(z).mean(), old)
    assert_close(tfp_vae.load(str(tmp_path / "vae")).decode(z).mean(), vae.decode(z).mean())


def test_weights_that_are_too_large_for_a_graph_stay_variables(tmp_path, monkeypatch):
    vae, z = small_vae(), np.ones([1, 2], "float32")
    in_graph = vae.export(tmp_path / "vae")
    monkeypatch.setattr(sys.modules["tfp_vae.serving.export"], "MAX_CONSTANTS", 0)
    beside = vae.export(tmp_path / "vae")
    saved = [
        len(tf.train.list_variables(str(version / "variables" / "variables")))
        for version in (in_graph, beside)
    ]
    assert saved == [1, 1 + len(vae.weights)]  # one is TensorFlow's own
    assert_close(tfp_vae.load(in_graph).decode(z).mean(), tfp_vae.load(beside).decode(z).mean())


def test_a_failed_export_publishes_nothing(tmp_path, monkeypatch):
    def fail_late(module, folder, signatures):
        save(module, folder, signatures=signatures)
        assert os.listdir(tmp_path / "vae") == []
        raise OSError("No space left on device")

    save = tf.saved_model.save
    monkeypatch.setattr(tf.saved_model, "save", fail_late)
    with pytest.raises(OSError, match="No space left"):
        small_vae().export(tmp_path / "vae")
    assert os.listdir(tmp_path) == ["vae"]
    assert os.listdir(tmp_path / "vae") == []


def test_export_errors(tmp_path):
    posterior, likelihood = tfpl.MultivariateNormalDiag(2), tfpl.IndependentNormal(3)
    encoder = keras.Sequential([keras.layers.Dense(4), posterior])
    unbuilt = tfp_vae.VAE(encoder, keras.Sequential([keras.layers.Dense(6), likelihood]))
    with pytest.raises(ValueError, match="not built"):
        unbuilt.export(tmp_path / "vae")
    for name in ("score_samples", "log_prob_samples"):
        with pytest.raises(ValueError, match=r"at least 1, received .*0"):
            small_vae().export(tmp_path / "vae", **{name: 0})
    assert not (tmp_path / "vae").exists()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        small_vae().export(tmp_path / "file")


def test_load_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        tfp_vae.load(tmp_path / "nowhere")
    tf.saved_model.save(tf.Module(), str(tmp_path / "other"))
    for folder in (tmp_path / "other", tmp_path):
        with pytest.raises(ValueError, match="not a SavedModel written by tfp_vae"):
            tfp_vae.load(folder)


def test_log_prob_is_exact_where_the_posterior_is(tmp_path):
    """Probabilistic PCA: each importance weight is p(x) itself (Tipping & Bishop, 1999), whatever is drawn."""
    noise, weights = 0.5, np.array([[1.0, 0.2], [-0.4, 0.8], [0.3, 0.1]], "float32")
    precision = weights.T @ weights + noise**2 * np.eye(2, dtype="float32")
    to_mean, covariance = np.linalg.solve(precision, weights.T), noise**2 * np.linalg.inv(precision)
    factor = tfb.FillScaleTriL(diag_shift=np.float32(1e-5)).inverse(np.linalg.cholesky(covariance))
    unconstrained = np.log(np.expm1(noise))
    posterior, likelihood = tfpl.MultivariateNormalTriL(2), tfpl.IndependentNormal(3)
    encoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5), posterior])
    decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(6), likelihood])
    encoder.set_weights(
        [np.pad(to_mean.T, [(0, 0), (0, 3)]), np.concatenate([np.zeros(2), factor])]
    )
    decoder.set_weights([np.pad(weights.T, [(0, 0), (0, 3)]), np.repeat([0, unconstrained], 3)])
    tfp_vae.VAE(encoder, decoder).export(tmp_path, log_prob_samples=3)
    x = np.random.default_rng(0).normal(size=[20, 3]).astype("float32")
    evidence = tfd.MultivariateNormalTriL(
        np.zeros(3), np.linalg.cholesky(weights @ weights.T + noise**2 * np.eye(3))
    )
    assert_close(tfp_vae.load(tmp_path).log_prob(x), evidence.log_prob(np.float64(x)))


def test_a_float64_model_is_served_in_float32(tmp_path):
    keras.config.set_dtype_policy("float64")
    vae = small_vae()
    keras.config.set_dtype_policy("float32")
    vae.export(tmp_path)
    loaded, x, z = tfp_vae.load(tmp_path), np.ones([3, 3], "float32"), np.ones([3, 2], "float32")
    assert {loaded.encode(x).dtype, loaded.decode(z).dtype, loaded.log_prob(x).dtype} == {
        tf.float32
    }
    assert_close(loaded.encode(x).log_prob(z), vae.encode(x).log_prob(np.float64(z)))
    assert_close(loaded.generate(3), vae.generate(3))
    assert_close(loaded.score(x)["kl"], tfd.kl_divergence(vae.encode(x), vae.prior(None)))


class StudentPrior(priors.StandardNormal):
    def call(self, inputs=None):
        return tfd.Independent(tfd.StudentT(5.0, tf.zeros([2]), tf.ones([2])), 1)


def _laplace(params):
    return tfd.Independent(tfd.Laplace(params[..., :2], tf.exp(params[..., 2:])), 1)


def _one_scale_for_all_rows(params):
    return tfd.MultivariateNormalDiag(params[..., :2], tf.constant([0.5, 2.0]))


def _known_scale(params):
    return tfd.Independent(tfd.Normal(params[..., :3], 0.3), 1)


OTHER_PARTS = {
    "independent prior, no analytic kl": {"prior": StudentPrior(2)},
    "independent posterior, no analytic kl": {"posterior": tfpl.DistributionLambda(_laplace)},
    "posterior with an unbatched parameter": {
        "posterior": tfpl.DistributionLambda(_one_scale_for_all_rows)
    },
    "likelihood with a constant parameter": {"likelihood": tfpl.DistributionLambda(_known_scale)},
}


@pytest.mark.parametrize("name", OTHER_PARTS)
@pytest.mark.rows(1)
def test_other_distributions_are_served(tmp_path, name):
    vae, x, z = (
        small_vae(**OTHER_PARTS[name]),
        np.ones([3, 3], "float32"),
        np.ones([3, 2], "float32"),
    )
    definitions = c_api.meta_graph(vae.export(tmp_path, score_samples=1000)).signature_def.values()
    outputs = [
        info
        for definition in definitions
        if definition.method_name
        for info in definition.outputs.values()
    ]
    assert {info.tensor_shape.dim[0].size for info in outputs} == {-1}
    loaded, posterior = tfp_vae.load(tmp_path), vae.encode(x)
    assert_close(loaded.encode(x).log_prob(z), posterior.log_prob(z))
    assert_close(loaded.decode(z).log_prob(x), vae.decode(z).log_prob(x))
    assert_close(
        loaded.joint_distribution().log_prob(z=z, x=x), vae.joint_distribution().log_prob(z=z, x=x)
    )
    score, draws = loaded.score(x), posterior.sample(10_000, seed=1)
    kl = tf.reduce_mean(posterior.log_prob(draws) - vae.prior(None).log_prob(draws), 0)
    assert_close(score["kl"], kl, 0.2)
    assert_close(score["elbo"], score["log_likelihood"] - score["kl"])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_distribution_layer_has_a_served_form(case):
    """Through json and tensors with the batch first, each comes back as the class and the density it was."""
    p = case.make()(case.params(3).astype("float32")).tensor_distribution
    description, tensors = describe(p)
    assert {tensor.shape[0] for tensor in tensors.values()} == {3}
    again, x = rebuild(json.loads(json.dumps(description)), tensors), p.sample(seed=[1, 2])
    assert type(again) is OWN.get(type(p).__name__, type(p))  # a light one in place of TFP's
    np.testing.assert_allclose(again.log_prob(x), p.log_prob(x), rtol=1e-5, atol=1e-5)
