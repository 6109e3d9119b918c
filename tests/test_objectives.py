"""Objectives against closed forms; a row for each member."""

import dataclasses
import itertools
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_vae
from tests.conftest import make_vae
from tfp_vae import layers as tfpl
from tfp_vae import objectives, sampling

tfd = tfp.distributions

WARM_UP = keras.optimizers.schedules.PolynomialDecay(0.0, 10, 2.0)
CASES = {
    "ELBO": [
        objectives.ELBO(),
        objectives.ELBO(beta=0.0),
        objectives.ELBO(beta=WARM_UP),
        objectives.ELBO(free_bits=0.5, num_samples=3),
        objectives.ELBO(kl="sampled", estimator="stl"),
    ],
    "ControlledCapacity": [objectives.ControlledCapacity(WARM_UP, gamma=10.0)],
    "IWAE": [
        objectives.IWAE(3),
        objectives.IWAE(3, estimator="stl"),
        objectives.IWAE(3, estimator="dreg"),
    ],
    "MIWAE": [objectives.MIWAE(2, 3)],
    "CIWAE": [objectives.CIWAE(0.3, 3)],
    "PIWAE": [objectives.PIWAE(2, 3)],
    "Renyi": [objectives.Renyi(0.5, 3), objectives.Renyi(1.0, 3), objectives.Renyi(-0.5, 3)],
    "TVO": [objectives.TVO(3, 4)],
    "BetaTCVAE": [
        objectives.BetaTCVAE(50),
        objectives.BetaTCVAE(50, WARM_UP, estimator="stratified"),
    ],
    "FactorVAE": [objectives.FactorVAE(hidden_sizes=(8, 8))],
    "InfoVAE": [objectives.InfoVAE(0.5, 10.0)],
    "WAE": [objectives.WAE(10.0)],
    "DIPVAE": [objectives.DIPVAE(), objectives.DIPVAE(kind=1)],
    "Reconstruction": [objectives.Reconstruction(), objectives.Reconstruction(WARM_UP)],
}
# What an example contributes depends on its batch: averages over it are part of the definition.
OF_THE_BATCH = {"BetaTCVAE", "FactorVAE", "InfoVAE", "WAE", "DIPVAE"}
ROWS = [
    pytest.param(member, id=f"{name}-{i}")
    for name, members in CASES.items()
    for i, member in enumerate(members)
]
EACH_THIRD = [
    row if place % 3 == 0 else pytest.param(*row.values, id=row.id, marks=pytest.mark.slow)
    for place, row in enumerate(ROWS)
]


def test_every_member_has_a_row():
    public = {getattr(objectives, name) for name in objectives.__all__}
    members = {
        member.__name__
        for member in public
        if isinstance(member, type) and issubclass(member, objectives.Objective)
    }
    assert members - {"Objective"} == CASES.keys()


def normal_pass(loc, scale, prior=None, seed=0):
    """A model whose terms are known: q = N(loc, scale), p(x|z) = N(z, 1), one dimension."""
    batch = loc.shape[0]
    return objectives.OnePass(
        x=tf.ones([batch, 1]),
        posterior=tfd.MultivariateNormalDiag(tf.reshape(loc, [-1, 1]), tf.reshape(scale, [-1, 1])),
        prior=prior or tfd.MultivariateNormalDiag(tf.zeros([1]), tf.ones([1])),
        likelihood=lambda z: tfd.Independent(tfd.Normal(z, 1.0), 1),
        seed=tf.constant([0, seed]),
    )


def fresh(objective):
    """A copy, with weights of its own where it has any."""
    copy = type(objective).from_config(objective.get_config())
    if not copy.built:
        copy.build((1,))
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("objective", ROWS)
@pytest.mark.rows(0, 8)
def test_shapes_config_and_xla(objective):
    def terms(objective):
        return objective.terms(
            normal_pass(tf.constant([0.5, -1.0, 2.0]), tf.constant([1.0, 0.5, 2.0]))
        )

    objective = fresh(objective)
    plain = terms(objective)
    assert plain.keys() == {"loss", "elbo", "log_likelihood", "kl"}
    assert {value.shape for value in plain.values()} == {(3,)}
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(objective))
    assert again.get_config() == objective.get_config()
    compiled = tf.function(lambda: terms(objective), jit_compile=True)()
    for name, value in plain.items():
        if isinstance(objective, (objectives.InfoVAE, objectives.WAE)) and name == "loss":
            continue  # XLA folds the seed of the prior's draws otherwise
        np.testing.assert_allclose(compiled[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objective", EACH_THIRD)
@pytest.mark.rows(3, 4)
def test_keras_file_round_trip_and_one_training_step(objective, digits, tmp_path):
    posterior = tfpl.Deterministic if objective.takes_points else tfpl.MultivariateNormalDiag
    vae = make_vae(
        objective=type(objective).from_config(objective.get_config()), posterior=posterior
    )
    vae.compile("adam", run_eagerly=True)
    weights = vae.get_weights()
    vae.fit(digits.train[:50], batch_size=25, epochs=2, verbose=0)
    # With beta 0 nothing pulls at the posterior's scale but the likelihood, which does so through every weight.
    assert all(np.abs(a - b).max() > 0 for a, b in zip(weights, vae.get_weights(), strict=True))
    assert np.isfinite(vae.get_weights()[0]).all()
    vae.save(tmp_path / "vae.keras")
    again = keras.models.load_model(tmp_path / "vae.keras")
    np.testing.assert_array_equal(vae(digits.test[:5])["loss"], again(digits.test[:5])["loss"])


@pytest.mark.parametrize(
    "objective", [row for row in ROWS if row.id.split("-")[0] not in OF_THE_BATCH]
)
def test_duplicating_the_batch_changes_no_example(objective):
    loc, scale = tf.constant([0.5, -1.0]), tf.constant([1.0, 0.5])
    noise = tf.random.stateless_normal([6, 2, 1], [0, 0])

    def sample(one_pass, shape):
        return one_pass.posterior.bijector.forward(noise[0] if shape == [] else noise[:shape])

    with mock.patch.object(objectives.OnePass, "sample", sample):
        once = objective.terms(normal_pass(loc, scale))
        noise = tf.tile(noise, [1, 2, 1])
        twice = objective.terms(normal_pass(tf.tile(loc, [2]), tf.tile(scale, [2])))
    for name, value in once.items():
        np.testing.assert_allclose(twice[name], tf.tile(value, [2]), rtol=1e-5)


# Limits in which two objectives are one, on the same draws.
COINCIDENCES = {
    "IWAE(1) is the ELBO": (objectives.IWAE(1), objectives.ELBO(kl="sampled")),
    "MIWAE(1, k) is IWAE(k)": (objectives.MIWAE(1, 4), objectives.IWAE(4)),
    "MIWAE(m, 1) is the ELBO": (
        objectives.MIWAE(4, 1),
        objectives.ELBO(kl="sampled", num_samples=4),
    ),
    "CIWAE(0) is IWAE": (objectives.CIWAE(0.0, 4), objectives.IWAE(4)),
    "CIWAE(1) is the ELBO": (
        objectives.CIWAE(1.0, 4),
        objectives.ELBO(kl="sampled", num_samples=4),
    ),
    "PIWAE's bound is IWAE's": (objectives.PIWAE(2, 3), objectives.IWAE(6)),
    "Renyi(0) is IWAE": (objectives.Renyi(0.0, 4), objectives.IWAE(4)),
    "Renyi(1) is the ELBO": (
        objectives.Renyi(1.0, 4),
        objectives.ELBO(kl="sampled", num_samples=4),
    ),
    "Renyi near 1": (objectives.Renyi(1.0 - 2e-4, 4), objectives.ELBO(kl="sampled", num_samples=4)),
    "Renyi nearer to 1": (
        objectives.Renyi(1.0 - 1e-7, 4),
        objectives.ELBO(kl="sampled", num_samples=4),
    ),
    "dreg is IWAE": (objectives.IWAE(4, estimator="dreg"), objectives.IWAE(4)),
    "stl is the ELBO": (
        objectives.ELBO(kl="sampled", estimator="stl"),
        objectives.ELBO(kl="sampled"),
    ),
    "TVO(1) is the ELBO": (objectives.TVO(1, 4), objectives.ELBO(kl="sampled", num_samples=4)),
    "BetaTCVAE(1, 1, 1)": (objectives.BetaTCVAE(100, 1.0), objectives.ELBO(kl="sampled")),
    "stratified BetaTCVAE(1, 1, 1)": (
        objectives.BetaTCVAE(100, 1.0, estimator="stratified"),
        objectives.ELBO(kl="sampled"),
    ),
    "FactorVAE(0)": (objectives.FactorVAE(0.0, hidden_sizes=(8,)), objectives.ELBO()),
    "InfoVAE(0, 1)": (objectives.InfoVAE(0.0, 1.0), objectives.ELBO()),
    "InfoVAE(1) is WAE": (objectives.InfoVAE(1.0, 7.0), objectives.WAE(7.0)),
    "DIPVAE(0, 0)": (objectives.DIPVAE(0.0, 0.0), objectives.ELBO()),
    "free bits of 0": (objectives.ELBO(free_bits=0.0), objectives.ELBO()),
    "few free bits": (objectives.ELBO(free_bits=1e-6), objectives.ELBO()),
    "the final beta": (objectives.ELBO(WARM_UP), objectives.ELBO(2.0)),
}


@pytest.mark.parametrize(("one", "other"), COINCIDENCES.values(), ids=COINCIDENCES)
def test_limits_coincide(one, other):
    one_pass = normal_pass(tf.constant([0.5, -1.0, 2.0]), tf.constant([1.0, 0.5, 2.0]))
    one, other = (fresh(objective).terms(one_pass) for objective in (one, other))
    np.testing.assert_allclose(one["loss"], other["loss"], rtol=2e-3)


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
    assert objectives.analytic_kl(q, p).numpy() == pytest.approx(
        np.mean(q.log_prob(z) - p.log_prob(z)), abs=5e-3
    )


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


# Gradient estimators, on the linear-Gaussian model: z in R^2, x = W z + noise; everything is known in float64.

W = np.array([[1.0, 0.5], [-0.5, 1.5], [0.3, -0.8]])
X = np.array([[1.0, -0.5, 0.3]])
POSTERIOR_COVARIANCE = np.linalg.inv(np.eye(2) + W.T @ W)
POSTERIOR_MEAN = X @ W @ POSTERIOR_COVARIANCE


def linear_pass(loc, factor, weights=W, batch=1, seed=0):
    """p(z) = N(0, I), p(x|z) = N(W z, I), q = N(loc, factor factor'); the exact evidence is N(0, W W' + I)."""
    ones = tf.ones([batch, 1], tf.float64)
    return objectives.OnePass(
        x=ones * X,
        posterior=tfd.MultivariateNormalTriL(ones * loc, ones[..., tf.newaxis] * factor),
        prior=tfd.MultivariateNormalDiag(np.zeros(2), np.ones(2)),
        likelihood=lambda z: tfd.MultivariateNormalDiag(tf.linalg.matvec(weights, z), np.ones(3)),
        seed=tf.constant([0, seed]),
    )


EVIDENCE = (
    tfd.MultivariateNormalFullCovariance(np.zeros(3), W @ W.T + np.eye(3)).log_prob(X)[0].numpy()
)
WRONG = np.array([[0.3, -0.1]]), np.array([[0.8, 0.0], [0.2, 0.9]])


def gradients(objective, loc, factor, batch, weights=W, seed=0):
    """The gradient of every example's loss by its location, and of the mean loss by the decoder's weights."""
    locs, weights = tf.Variable(np.tile(loc, [batch, 1])), tf.Variable(weights)
    with tf.GradientTape() as tape:
        one_pass = linear_pass(locs, factor, weights, batch, seed)
        loss = tf.reduce_sum(objective.terms(one_pass)["loss"])
    by_loc, by_weights = tape.gradient(loss, (locs, weights))
    return by_loc.numpy(), by_weights.numpy() / batch


def test_importance_weighted_bounds_rise_with_the_draws_and_stay_below_the_evidence():
    def bound(objective):
        return -np.mean(objective.terms(linear_pass(*WRONG, batch=20_000))["loss"])

    bounds = [bound(objectives.IWAE(k)) for k in (1, 2, 8, 64)]
    assert bounds[0] < bounds[1] < bounds[2] < bounds[3] < EVIDENCE + 1e-3
    assert bounds[3] == pytest.approx(EVIDENCE, abs=0.02)
    renyi = [bound(objectives.Renyi(alpha, 8)) for alpha in (1.0, 0.5, 0.0, -1.0)]
    assert renyi == sorted(renyi)
    thermodynamic = [
        bound(objectives.TVO(partitions, 64, first=0.02)) for partitions in (1, 2, 5, 60)
    ]
    assert thermodynamic == sorted(thermodynamic)
    assert thermodynamic[0] == pytest.approx(bounds[0], abs=0.03)
    assert thermodynamic[-1] == pytest.approx(EVIDENCE, abs=0.03)
    assert bounds[0] < bound(objectives.MIWAE(4, 2)) < bound(objectives.CIWAE(0.2, 8)) < bounds[2]


def test_bounds_equal_those_of_tfp_vi():
    one_pass = linear_pass(*WRONG)
    for k in (1, 10):
        ours = np.mean(objectives.IWAE(k).terms(linear_pass(*WRONG, batch=50_000))["loss"])
        posterior = one_pass.posterior[0]
        theirs = tfp.vi.monte_carlo_variational_loss(
            lambda z: one_pass.likelihood(z).log_prob(X[0]) + one_pass.prior.log_prob(z),
            posterior,
            sample_size=50_000,
            importance_sample_size=k,
            seed=[3, 4],
        )
        assert ours == pytest.approx(theirs.numpy(), abs=0.02)


@pytest.mark.slow
def test_dreg_has_the_mean_of_the_standard_gradient_and_less_variance():
    standard, _ = gradients(objectives.IWAE(64), *WRONG, batch=20_000)
    dreg, _ = gradients(objectives.IWAE(64, estimator="dreg"), *WRONG, batch=20_000, seed=1)
    error = np.sqrt((standard.var(0) + dreg.var(0)) / 20_000)
    assert (np.abs(standard.mean(0) - dreg.mean(0)) < 4 * error).all()
    assert (dreg.var(0) < 0.5 * standard.var(0)).all()


def test_sticking_the_landing_has_no_variance_at_the_exact_posterior():
    exact = POSTERIOR_MEAN, np.linalg.cholesky(POSTERIOR_COVARIANCE)
    stl, _ = gradients(objectives.ELBO(kl="sampled", estimator="stl"), *exact, batch=100)
    standard, _ = gradients(objectives.ELBO(kl="sampled"), *exact, batch=100)
    np.testing.assert_allclose(stl, 0.0, atol=1e-12)
    assert standard.std() > 0.1


def test_sticking_the_landing_has_the_mean_of_the_standard_gradient():
    both = [
        gradients(objectives.ELBO(2.0, kl="sampled", estimator=name), *WRONG, batch=20_000)[0]
        for name in ("standard", "stl")
    ]
    error = np.sqrt((both[0].var(0) + both[1].var(0)) / 20_000)
    assert (np.abs(both[0].mean(0) - both[1].mean(0)) < 4 * error).all()


@pytest.mark.parametrize(
    "objective",
    [
        objectives.ELBO(kl="sampled", estimator="stl"),
        objectives.IWAE(1, estimator="dreg"),
        objectives.PIWAE(1, 1),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_the_decoder_is_evaluated_once_in_a_step(objective):
    """What layers keep and add to the loss is that of the standard estimator with the same draw, and trains alike."""
    kept = []
    for one in (objectives.ELBO(kl="sampled"), objective):
        with_penalty, without = (a_step_of_a_stateful_decoder(one, l2) for l2 in (100.0, 0.0))
        loss, mean, kernel = (a - b for a, b in zip(with_penalty, without, strict=True))
        kept += [[*with_penalty[1], *np.ravel(kernel), *loss]]
        assert loss[0] > 1.0
        assert np.abs(kernel).max() > 0.01
        np.testing.assert_array_equal(mean, 0.0)
    np.testing.assert_allclose(*kept, rtol=2e-3, atol=1e-5)


def a_step_of_a_stateful_decoder(objective, l2):
    """The loss of a step, the moving mean after it, and the encoder's weights."""
    keras.utils.set_random_seed(3)
    normalization = keras.layers.BatchNormalization(momentum=0.5)
    penalized = keras.layers.Dense(6, activity_regularizer=keras.regularizers.L2(l2))
    decoder = [keras.Input((2,)), penalized, normalization, keras.layers.Dense(8)]
    encoder = [keras.Input((4,)), keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2)]
    vae = tfp_vae.VAE(
        keras.Sequential(encoder),
        keras.Sequential([*decoder, tfpl.IndependentNormal(4)]),
        objective=objective,
    )
    vae.compile(keras.optimizers.SGD(1e-3))
    x = np.linspace(-1, 1, 80, dtype="float32").reshape(20, 4)
    loss = vae.fit(x, batch_size=20, epochs=1, verbose=0).history["loss"]
    return np.array(loss), normalization.moving_mean.numpy(), vae.encoder.layers[0].kernel.numpy()


def test_piwae_trains_the_decoder_by_iwae_and_the_encoder_by_miwae():
    piwae = gradients(objectives.PIWAE(3, 4), *WRONG, batch=5)
    np.testing.assert_allclose(
        piwae[0], gradients(objectives.MIWAE(3, 4), *WRONG, batch=5)[0], rtol=1e-10
    )
    np.testing.assert_allclose(
        piwae[1], gradients(objectives.IWAE(12), *WRONG, batch=5)[1], rtol=1e-10
    )


@pytest.mark.parametrize(
    "objective", [objectives.IWAE(4), objectives.CIWAE(0.3, 4), objectives.Renyi(-0.5, 4)]
)
def test_gradients_by_the_decoder_against_finite_differences(objective):
    _, by_weights = gradients(objective, *WRONG, batch=7)

    def loss(weights):
        return np.mean(objective.terms(linear_pass(*WRONG, weights, batch=7))["loss"])

    for index in np.ndindex(W.shape):
        step = np.zeros_like(W)
        step[index] = 1e-6
        assert by_weights[index] == pytest.approx(
            (loss(W + step) - loss(W - step)) / 2e-6, rel=1e-5
        )


# Free bits and schedules


def test_free_bits_floor_the_kl_of_each_dimension():
    loc, scale = np.array([[0.1, 2.0], [-0.1, 1.0]]), np.array([[0.9, 0.5], [1.0, 0.5]])
    one_pass = dataclasses.replace(
        linear_pass(*WRONG, batch=2), posterior=tfd.MultivariateNormalDiag(loc, scale)
    )
    kl = 0.5 * (loc**2 + scale**2 - 1) - np.log(scale)
    assert kl[:, 0].mean() < 0.25 < kl[:, 1].mean()
    terms = objectives.ELBO(free_bits=0.25).terms(one_pass)
    np.testing.assert_allclose(terms["loss"] + terms["log_likelihood"], 0.25 + kl[:, 1])
    np.testing.assert_allclose(terms["kl"], kl.sum(1))


def test_a_schedule_is_read_at_the_step_in_training_and_at_its_end_in_evaluation():
    one_pass = normal_pass(tf.constant([0.5]), tf.constant([1.0]))
    plain = objectives.ELBO().terms(one_pass)
    for step, beta in ((0, 0.0), (5, 1.0), (100, 2.0), (None, 2.0)):
        terms = objectives.ELBO(WARM_UP).terms(dataclasses.replace(one_pass, step=step))
        np.testing.assert_allclose(
            terms["loss"] - plain["loss"], (beta - 1.0) * plain["kl"], atol=1e-6
        )
        np.testing.assert_array_equal(terms["elbo"], plain["elbo"])
        capacity = objectives.ControlledCapacity(WARM_UP, 3.0).terms(
            dataclasses.replace(one_pass, step=step)
        )
        expected = 3.0 * abs(plain["kl"][0] - beta) - plain["log_likelihood"][0]
        assert capacity["loss"].numpy()[0] == pytest.approx(expected.numpy(), rel=1e-5)


# The aggregate posterior


LOCS, SCALES = np.random.default_rng(0).normal(size=(2, 6, 2))
SCALES = np.exp(0.3 * SCALES)


def aggregate(rows):
    """The mixture of the posteriors of the given examples."""
    components = tfd.MultivariateNormalDiag(LOCS[rows], SCALES[rows])
    return tfd.MixtureSameFamily(tfd.Categorical(logits=np.zeros(len(rows))), components)


@pytest.mark.parametrize("estimator", ["weighted", "stratified"])
def test_beta_tcvae_finds_the_aggregate_posterior_of_a_whole_data_set(estimator):
    """Where the batch is the data set, q(z) is a known mixture; the weighted estimate divides by the size once more."""
    objective = objectives.BetaTCVAE(6, estimator=estimator)
    posterior = tfd.MultivariateNormalDiag(LOCS, SCALES)
    z = posterior.sample(seed=[1, 2])
    log_marginal, log_product = objective.log_aggregate(posterior, z)
    excess = np.log(6) if estimator == "weighted" else 0.0
    np.testing.assert_allclose(log_marginal + excess, aggregate(range(6)).log_prob(z))
    each = tfd.MixtureSameFamily(
        tfd.Categorical(logits=np.zeros([2, 6])), tfd.Normal(LOCS.T, SCALES.T)
    ).log_prob(z)
    np.testing.assert_allclose(log_product + 2 * excess, tf.reduce_sum(each, -1))


def test_the_stratified_estimate_is_unbiased_over_all_batches():
    objective, z = (
        objectives.BetaTCVAE(6, estimator="stratified"),
        tf.constant([[0.3, -0.4]], tf.float64),
    )
    estimates = []
    for others in itertools.combinations(range(1, 6), 2):
        rows = [0, *others]
        posterior = tfd.MultivariateNormalDiag(LOCS[rows], SCALES[rows])
        estimates.append(np.exp(objective.log_aggregate(posterior, tf.tile(z, [3, 1]))[0][0]))
    assert np.mean(estimates) == pytest.approx(aggregate(range(6)).prob(z)[0].numpy())


def test_max_mean_discrepancy_is_the_unbiased_estimate_of_its_kernel():
    x, y = np.random.default_rng(0).normal(size=(2, 5, 3))
    constants = [2.0 * 3 * scale for scale in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)]

    def kernel(a, b):
        return sum(c / (c + np.sum((a - b) ** 2)) for c in constants)

    within = [np.mean([kernel(a, b) for a, b in itertools.permutations(s, 2)]) for s in (x, y)]
    between = np.mean([kernel(a, b) for a in x for b in y])
    assert objectives.max_mean_discrepancy(x, y).numpy() == pytest.approx(sum(within) - 2 * between)


@pytest.mark.parametrize("objective", [objectives.WAE(), objectives.InfoVAE()])
def test_a_last_batch_of_one_row_trains_on(objective):
    vae = make_vae((4,), 2, tfpl.IndependentNormal, objective=objective)
    vae.compile("adam")
    history = vae.fit(np.ones([11, 4], "float32"), batch_size=10, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()


@pytest.mark.slow
def test_factor_vae_learns_the_total_correlation():
    """Of a normal with correlation rho it is -log(1 - rho^2) / 2; the discriminator's mean logit comes near."""
    rho = 0.8
    objective = objectives.FactorVAE(1.0, hidden_sizes=(64, 64))
    objective.build((2,))
    noise = np.random.default_rng(0).normal(size=(4000, 2))
    loc = tf.constant(noise @ np.linalg.cholesky([[1.0, rho], [rho, 1.0]]).T, "float32")
    one_pass = objectives.OnePass(
        x=tf.zeros([4000, 1]),
        posterior=tfd.MultivariateNormalDiag(loc, tf.fill(loc.shape, 1e-4)),
        prior=tfd.MultivariateNormalDiag(tf.zeros(2)),
        likelihood=lambda z: tfd.Independent(tfd.Normal(z[..., :1], 1.0), 1),
        seed=tf.constant([0, 0]),
    )
    optimizer = keras.optimizers.Adam(1e-2)
    optimizer.build(objective.trainable_variables)

    @tf.function
    def step(number):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                objective.terms(dataclasses.replace(one_pass, seed=tf.stack([0, number])))["loss"]
            )
        optimizer.apply(tape.gradient(loss, objective.trainable_variables))

    for number in tf.range(300):
        step(number)
    terms = objective.terms(one_pass)
    assert np.mean(terms["loss"] + terms["elbo"]) == pytest.approx(
        -0.5 * np.log(1 - rho**2), abs=0.08
    )


def test_factor_vae_moves_z_by_the_discriminator_but_not_the_discriminator_by_the_vae():
    objective, scale = objectives.FactorVAE(5.0, hidden_sizes=(8,)), tf.constant([1.0, 0.5, 2.0])
    objective.build((1,))

    def gradients_of(term, loc):
        with tf.GradientTape() as tape:
            one_pass = normal_pass(loc, scale)
            value = tf.reduce_sum(term(one_pass))
        return tape.gradient(value, [loc, *objective.trainable_variables])

    def logit(one_pass):
        return objective.discriminator(sampling.sample(one_pass.posterior, [], one_pass.seed))[:, 0]

    loc = tf.Variable([0.5, -1.0, 2.0])
    by_loc, *by_discriminator = gradients_of(
        lambda one_pass: objective.terms(one_pass)["loss"], loc
    )
    by_elbo, by_logit = (
        gradients_of(term, loc)[0] for term in (lambda p: objectives.ELBO().terms(p)["elbo"], logit)
    )
    np.testing.assert_allclose(by_loc, 5.0 * by_logit - by_elbo, rtol=1e-5)
    objective.gamma = 50.0
    _, *again = gradients_of(lambda one_pass: objective.terms(one_pass)["loss"], loc)
    for one, other in zip(by_discriminator, again, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
        assert np.abs(one).max() > 0.0


@pytest.mark.parametrize("kind", [1, 2])
def test_dip_vae_penalizes_the_covariance(kind):
    posterior = tfd.MultivariateNormalDiag(LOCS, SCALES)
    one_pass = dataclasses.replace(linear_pass(*WRONG, batch=6), posterior=posterior)
    covariance = np.cov(LOCS.T, bias=True) + (np.diag((SCALES**2).mean(0)) if kind == 2 else 0.0)
    expected = 3.0 * 2 * covariance[0, 1] ** 2 + 5.0 * ((np.diag(covariance) - 1.0) ** 2).sum()
    terms = objectives.DIPVAE(3.0, 5.0, kind).terms(one_pass)
    np.testing.assert_allclose(terms["loss"] + terms["elbo"], expected)


BAD = {
    "beta text": (lambda: objectives.ELBO("much"), "beta must be a finite number .* 'much'"),
    "free bits": (lambda: objectives.ELBO(free_bits=-1.0), "free_bits must be"),
    "kl": (
        lambda: objectives.ELBO(kl="exact"),
        "kl must be one of analytic, sampled; received 'exact'",
    ),
    "stl": (lambda: objectives.ELBO(estimator="stl"), "takes kl='sampled'"),
    "draws": (lambda: objectives.IWAE(0), "num_samples must be a whole number"),
    "estimator": (
        lambda: objectives.IWAE(2, "best"),
        "estimator must be one of standard, stl, dreg",
    ),
    "CIWAE": (lambda: objectives.CIWAE(1.5), "between 0 and 1"),
    "Renyi": (lambda: objectives.Renyi(np.inf), "alpha must be a finite number"),
    "InfoVAE": (lambda: objectives.InfoVAE(0.5, 0.2), "weight at least 1 - alpha"),
    "DIPVAE": (lambda: objectives.DIPVAE(kind=3), "kind must be one of"),
    "size": (lambda: objectives.BetaTCVAE(0), "dataset_size must be"),
}


@pytest.mark.parametrize(("act", "message"), BAD.values(), ids=BAD)
def test_bad_arguments(act, message):
    with pytest.raises(ValueError, match=message):
        act()
