"""Objectives against closed forms; a row for each member."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tests.conftest import make_vae
from tfp_vae import objectives

tfd = tfp.distributions

CASES = {
    "ELBO": [objectives.ELBO(), objectives.ELBO(beta=0.0), objectives.ELBO(beta=4.0)],
}
ROWS = [pytest.param(member, id=f"{name}-{i}") for name, members in CASES.items() for i, member in enumerate(members)]


def test_every_member_has_a_row():
    public = {getattr(objectives, name) for name in objectives.__all__}
    members = {
        member.__name__ for member in public if isinstance(member, type) and issubclass(member, objectives.Objective)
    }
    assert members - {"Objective"} == CASES.keys()


def normal_pass(loc, scale, prior=None, seed=0):
    """A model whose terms are known: q = N(loc, scale), p(x|z) = N(z, 1), one dimension."""
    batch = len(loc)
    return objectives.OnePass(
        x=tf.ones([batch, 1]),
        posterior=tfd.MultivariateNormalDiag(tf.reshape(loc, [-1, 1]), tf.reshape(scale, [-1, 1])),
        prior=prior or tfd.MultivariateNormalDiag(tf.zeros([1]), tf.ones([1])),
        likelihood=lambda z: tfd.Independent(tfd.Normal(z, 1.0), 1),
        seed=tf.constant([0, seed]),
    )


@pytest.mark.parametrize("objective", ROWS)
def test_shapes_and_config(objective):
    terms = objective.terms(normal_pass(tf.constant([0.5, -1.0, 2.0]), tf.constant([1.0, 0.5, 2.0])))
    assert {"loss", "elbo", "log_likelihood", "kl"} <= terms.keys()
    assert {value.shape for value in terms.values()} == {(3,)}
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(objective))
    assert again.get_config() == objective.get_config()


@pytest.mark.parametrize("objective", ROWS)
def test_keras_file_round_trip_and_one_training_step(objective, digits, tmp_path):
    vae = make_vae(objective=type(objective).from_config(objective.get_config()))
    vae.compile("adam")
    weights = vae.get_weights()
    vae.fit(digits.train[:50], batch_size=50, verbose=0)
    moved = [np.abs(a - b).max() > 0 for a, b in zip(weights, vae.get_weights(), strict=True)]
    # With beta 0 nothing pulls at the posterior's scale but the likelihood, which does so through every weight.
    assert all(moved)
    vae.save(tmp_path / "vae.keras")
    again = keras.models.load_model(tmp_path / "vae.keras")
    np.testing.assert_array_equal(vae(digits.test[:5])["loss"], again(digits.test[:5])["loss"])


@pytest.mark.parametrize("objective", ROWS)
def test_examples_are_independent(objective):
    """Duplicating the batch, or permuting it with its noise, changes no example's distribution of terms."""
    loc, scale = tf.constant([0.5, -1.0]), tf.constant([1.0, 0.5])
    once = objective.terms(normal_pass(loc, scale))
    twice = objective.terms(normal_pass(tf.tile(loc, [2]), tf.tile(scale, [2])))
    np.testing.assert_allclose(twice["kl"], tf.tile(once["kl"], [2]), rtol=1e-6)
    np.testing.assert_allclose(once["loss"], twice["loss"][:2], rtol=1e-6)


def test_elbo_against_its_closed_form():
    """E_q[log N(1; z, 1)] and the KL divergence of normals are known; the mean over a million draws meets them."""
    loc, scale = 0.7, 0.4
    one_pass = normal_pass(tf.fill([1_000_000], loc), tf.fill([1_000_000], scale))
    terms = objectives.ELBO().terms(one_pass)
    log_likelihood = -0.5 * np.log(2 * np.pi) - 0.5 * ((1 - loc) ** 2 + scale**2)
    kl = 0.5 * (loc**2 + scale**2 - 1) - np.log(scale)
    assert np.mean(terms["log_likelihood"]) == pytest.approx(log_likelihood, abs=2e-3)
    assert np.mean(terms["kl"]) == pytest.approx(kl, rel=1e-5)
    assert np.mean(terms["elbo"]) == pytest.approx(log_likelihood - kl, abs=2e-3)


def test_monte_carlo_kl_where_there_is_no_closed_form():
    """A mixture of one component is a normal, but TFP has no KL for it: the estimate meets the normal's closed form."""
    component = tfd.MultivariateNormalDiag(tf.zeros([1, 1]), tf.ones([1, 1]))
    prior = tfd.MixtureSameFamily(tfd.Categorical(logits=[0.0]), component)
    loc, scale = 0.7, 0.4
    one_pass = normal_pass(tf.fill([1_000_000], loc), tf.fill([1_000_000], scale), prior)
    assert not objectives.kl_is_analytic(one_pass.posterior, prior)
    kl = objectives.ELBO().terms(one_pass)["kl"]
    assert np.mean(kl) == pytest.approx(0.5 * (loc**2 + scale**2 - 1) - np.log(scale), abs=3e-3)


def test_kl_between_multivariate_normals_is_analytic_and_right():
    """TFP's KL equals the mean of log q - log p over a million draws."""
    q = tfd.MultivariateNormalTriL([1.0, -1.0], [[0.5, 0.0], [0.3, 2.0]])
    p = tfd.MultivariateNormalDiag([0.0, 0.0], [1.0, 1.0])
    z = q.sample(1_000_000, seed=[1, 2])
    assert objectives.analytic_kl(q, p).numpy() == pytest.approx(np.mean(q.log_prob(z) - p.log_prob(z)), abs=5e-3)


def test_beta_weights_the_kl_in_the_loss_only():
    one_pass = normal_pass(tf.constant([0.5, -1.0]), tf.constant([1.0, 0.5]))
    plain, weighted = objectives.ELBO().terms(one_pass), objectives.ELBO(beta=3.0).terms(one_pass)
    np.testing.assert_allclose(weighted["loss"], plain["loss"] + 2 * plain["kl"], rtol=1e-6)
    np.testing.assert_array_equal(weighted["elbo"], plain["elbo"])


def test_gradient_against_finite_differences_of_the_expectation():
    """d/dloc and d/dscale of the exact negative ELBO, against the mean of a million reparameterized gradients."""

    def exact(loc, scale):
        return 0.5 * ((1 - loc) ** 2 + scale**2) + 0.5 * (loc**2 + scale**2 - 1) - np.log(scale)

    loc, scale, step = 0.7, 0.4, 1e-5
    variables = tf.Variable(loc), tf.Variable(scale)
    with tf.GradientTape() as tape:
        one_pass = normal_pass(*(variable * tf.ones([1_000_000]) for variable in variables))
        loss = tf.reduce_mean(objectives.ELBO().terms(one_pass)["loss"])
    gradients = tape.gradient(loss, variables)
    by_loc = (exact(loc + step, scale) - exact(loc - step, scale)) / (2 * step)
    by_scale = (exact(loc, scale + step) - exact(loc, scale - step)) / (2 * step)
    np.testing.assert_allclose(gradients, [by_loc, by_scale], atol=5e-3)


@pytest.mark.parametrize("beta", [-1.0, float("nan"), float("inf")])
def test_bad_beta(beta):
    with pytest.raises(ValueError, match="beta must be"):
        objectives.ELBO(beta=beta)


def test_an_objective_is_not_called():
    with pytest.raises(TypeError, match="terms"):
        objectives.ELBO()(tf.zeros([1]))
