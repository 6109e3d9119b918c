"""Vector-quantized posteriors and autoencoders: against NumPy, closed forms, and what they must not claim."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_vae
from tests.conftest import make_vae
from tfp_vae import evaluation, networks, objectives, priors
from tfp_vae import layers as tfpl
from tfp_vae.layers.code_vectors import CodeVectors
from tfp_vae.layers.vector_quantized import DEAD_BELOW, commitment_loss

tfd = tfp.distributions

RANDOM = np.random.default_rng(0)
# Three vectors of two numbers for each of seven examples.
FEATURES = RANDOM.normal(size=(7, 6)).astype("float32")


def nearest(features, codebook):
    """All distances, as one would write them down."""
    return np.linalg.norm(features[..., np.newaxis, :] - codebook, axis=-1).argmin(-1)


def vq_vae(
    shape=(4, 3), num_codes=8, event_shape=(8, 8, 1), prior=None, objective=None, **kwargs
) -> tfp_vae.VAE:
    quantizer = tfpl.VectorQuantized(shape, num_codes, **kwargs)
    encoder = keras.Sequential(
        [networks.mlp(event_shape, int(np.prod(shape)), hidden_sizes=(32,)), quantizer]
    )
    network = networks.mlp(shape, int(np.prod(event_shape)), hidden_sizes=(32,))
    decoder = keras.Sequential([network, tfpl.IndependentBinomial(event_shape, total_count=16)])
    prior = prior if prior is None else prior(quantizer)
    return tfp_vae.VAE(encoder, decoder, prior=prior, objective=objective)


@pytest.fixture(scope="module")
def trained(digits):
    """A VQ-VAE trained for some epochs: leave it as it is."""
    keras.utils.set_random_seed(0)
    vae = vq_vae((8, 4), 16, momentum=0.9)
    vae.compile(keras.optimizers.Adam(5e-3), steps_per_execution=14)
    vae.fit(digits.train, epochs=15, batch_size=100, verbose=0)
    return vae


# The posterior


@pytest.mark.parametrize("jit_compile", [False, True])
def test_each_vector_goes_to_the_nearest_code(jit_compile):
    layer = tfpl.VectorQuantized((3, 2), 5, seed=3)
    act = tf.function(
        lambda x: (layer(x).codes, layer(x).sample(seed=(0, 0))), jit_compile=jit_compile
    )
    codes, z = act(FEATURES)
    expected = nearest(FEATURES.reshape(7, 3, 2), layer.codebook.numpy())
    np.testing.assert_array_equal(codes, expected)
    np.testing.assert_array_equal(z, layer.codebook.numpy()[expected])
    np.testing.assert_array_equal(layer.vectors(codes), z)


def test_the_posterior_is_certain_of_its_codes_and_of_nothing_else():
    layer = tfpl.VectorQuantized((3, 2), 5)
    q = layer(FEATURES)
    others = layer.vectors((q.codes + np.int32([0, 1, 0])) % 5)
    np.testing.assert_array_equal(q.log_prob(q.sample(3, seed=(0, 0))), np.zeros([3, 7]))
    np.testing.assert_array_equal(q.log_prob(others), np.full(7, -np.inf))
    np.testing.assert_array_equal(q.entropy(), np.zeros(7))
    np.testing.assert_array_equal(q.mode(), q.mean())


def test_the_gradient_goes_straight_through():
    layer, features = tfpl.VectorQuantized((3, 2), 5), tf.Variable(FEATURES)
    slope = RANDOM.normal(size=(7, 3, 2)).astype("float32")
    for value in ("sample", "mean"):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(slope * tf.sin(getattr(layer(features), value)()))
        expected = slope * np.cos(layer(features).mean())
        np.testing.assert_allclose(tape.gradient(loss, features), expected.reshape(7, 6), rtol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.25, 2.0])
def test_the_commitment_loss_and_its_gradient(weight):
    layer, features = tfpl.VectorQuantized((3, 2), 5, commitment=weight), tf.Variable(FEATURES)
    with tf.GradientTape() as tape:
        loss = commitment_loss(layer(features).tensor_distribution)
    distances = FEATURES.reshape(7, 3, 2) - layer(features).mean().numpy()
    np.testing.assert_allclose(loss, weight * np.sum(distances**2, (1, 2)), rtol=1e-5)
    np.testing.assert_allclose(
        tape.gradient(loss, features), 2.0 * weight * distances.reshape(7, 6), rtol=1e-5
    )


def test_the_loss_has_the_commitment_and_the_elbo_has_not(digits):
    vae, x = vq_vae(), digits.test[:6]
    terms, q = vae(x), vae.encode(x)
    np.testing.assert_allclose(terms["loss"], q.commitment_loss() - terms["elbo"], rtol=1e-6)
    np.testing.assert_allclose(
        terms["elbo"], vae.decode(q.mean()).log_prob(x.astype("float32")) - terms["kl"]
    )
    vae.compile(run_eagerly=True)
    weight = np.arange(6.0)  # weighted as everything is
    expected = np.average(terms["loss"], weights=weight)
    assert vae.test_on_batch(x, sample_weight=weight, y=weight, return_dict=True)[
        "loss"
    ] == pytest.approx(expected)


@pytest.mark.parametrize(
    "objective",
    [objectives.ELBO(), objectives.ELBO(kl="sampled"), objectives.IWAE(3)],
    ids=["analytic", "sampled", "weighted"],
)
def test_the_kl_is_what_the_codes_cost_under_the_prior(objective, digits):
    vae = vq_vae(prior=lambda quantizer: priors.Codes(quantizer, trained=True), objective=objective)
    logits = RANDOM.normal(size=(4, 8))
    vae.prior.raw_logits.assign(logits)
    x = digits.test[:5]
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -log_p[np.arange(4), vae.encode(x).codes.numpy()].sum(-1)
    np.testing.assert_allclose(vae(x)["kl"], expected, rtol=1e-5)
    # One code a digit: a bound, no estimate.
    np.testing.assert_allclose(vae.log_prob(x, 3), vae(x)["elbo"], rtol=1e-5)


def test_the_elbo_is_a_bound_of_the_evidence_summed_over_all_codes(digits):
    vae, x = vq_vae((2, 3), 4), digits.test[:9].astype("float32")
    every = np.indices([4, 4]).reshape(2, -1).T
    z = vae.prior.quantizer.vectors(every)
    log_joint = vae.decode(z[:, tf.newaxis] + tf.zeros([1, 9, 1, 1])).log_prob(x) - np.log(16.0)
    evidence = tf.reduce_logsumexp(log_joint, 0)
    assert (vae(x)["elbo"] <= evidence + 1e-3).numpy().all()
    best = np.max(log_joint, 0)
    assert (vae(x)["elbo"] <= best + 1e-3).numpy().all()


# The code vectors


def follow_in_numpy(sums, counts, features, momentum):
    """One training step without a restart: the definition of Razavi et al., 2019."""
    one_hot = np.eye(len(counts))[nearest(features, sums / counts[:, np.newaxis])]
    return momentum * sums + (1 - momentum) * one_hot.T @ features, momentum * counts + (
        1 - momentum
    ) * one_hot.sum(0)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_code_vectors_are_running_means(jit_compile):
    layer = tfpl.VectorQuantized((3, 2), 4, momentum=0.8)
    step = tf.function(lambda x: layer(x, training=True).codes, jit_compile=jit_compile)
    step(tf.constant(FEATURES))
    for shift in (0.1, -0.2, 0.3):
        sums, counts = layer.sums.numpy().astype("float64"), layer.counts.numpy().astype("float64")
        assert (counts > DEAD_BELOW * 21 / 4).all()  # none starts again
        codes = step(tf.constant(FEATURES + np.float32(shift)))
        features = (FEATURES + np.float32(shift)).reshape(21, 2)
        np.testing.assert_array_equal(
            codes, nearest(features, sums / counts[:, np.newaxis]).reshape(7, 3)
        )
        sums, counts = follow_in_numpy(sums, counts, features, 0.8)
        np.testing.assert_allclose(layer.sums, sums, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(layer.counts, counts, rtol=1e-4)
        np.testing.assert_allclose(
            layer.codebook, sums / counts[:, np.newaxis], rtol=1e-4, atol=1e-5
        )


def test_codes_start_at_different_features_of_the_first_batch():
    layer = tfpl.VectorQuantized((3, 2), 6, momentum=0.0)
    q = layer(FEATURES, training=True)
    rows = {tuple(row) for row in FEATURES.reshape(-1, 2).tolist()}
    start = q.codebook.numpy().round(5)
    assert len({tuple(row) for row in start.tolist()}) == 6
    assert all(np.abs(np.array([*rows]) - row).max(1).min() < 1e-4 for row in start)


def test_a_dead_code_starts_again_at_a_feature_and_the_others_stay():
    layer = tfpl.VectorQuantized((3, 2), 4, momentum=0.9)
    layer(FEATURES, training=True)
    before, counts = layer.codebook.numpy(), layer.counts.numpy()
    counts[2] = 0.9 * DEAD_BELOW * 21 / 4
    layer.sums.assign(before * counts[:, np.newaxis])
    layer.counts.assign(counts)
    after = layer(FEATURES, training=True).codebook.numpy()
    np.testing.assert_allclose(after[[0, 1, 3]], before[[0, 1, 3]], rtol=1e-5)
    assert np.abs(FEATURES.reshape(-1, 2) - after[2]).max(1).min() < 1e-5


def test_fewer_features_than_codes():
    layer = tfpl.VectorQuantized((1, 2), 9)
    for _ in range(3):
        layer(FEATURES[:2, :2], training=True)
    assert np.isfinite(layer.codebook).all()
    np.testing.assert_allclose(layer(FEATURES[:2, :2]).mean()[:, 0], FEATURES[:2, :2], rtol=1e-5)


def test_no_code_moves_outside_training_or_where_it_is_frozen(digits):
    vae = vq_vae()
    before = vae.get_weights()
    vae(digits.test[:5])
    vae.encode(digits.test[:5])
    vae.log_prob(digits.test[:5], 2)
    vae.prior.quantizer.trainable = False
    vae(digits.test[:5], training=True)
    for a, b in zip(before, vae.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# Training, saving, serving


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "float64"])
def test_dtypes(policy, digits):
    keras.config.set_dtype_policy(policy)
    vae = vq_vae()
    vae.compile("sgd", run_eagerly=True)
    vae.fit(digits.train[:50], batch_size=25, verbose=0)
    expected = "float64" if policy == "float64" else "float32"
    assert {
        vae.prior.quantizer.codebook.dtype,
        vae.encode(digits.test[:2]).dtype,
        vae(digits.test[:2])["loss"].dtype,
    }
    assert vae.prior.quantizer.codebook.dtype == vae.encode(digits.test[:2]).dtype == expected
    assert np.isfinite(vae(digits.test[:2])["loss"]).all()


def test_a_reloaded_prior_shares_the_encoders_codes(tmp_path):
    vq_vae().save(tmp_path / "vae.keras")
    again = keras.models.load_model(tmp_path / "vae.keras")
    assert again.prior.quantizer is again.encoder.layers[-1]


def test_codes_to_pictures_and_back_also_from_the_saved_model(trained, digits, tmp_path):
    x = digits.test[:20]
    codes = trained.encode(x).codes
    assert (codes.shape, codes.dtype) == ((20, 8), "int32")
    pictures = trained.decode(trained.prior.quantizer.vectors(codes)).mean()
    np.testing.assert_array_equal(pictures, trained.reconstruct(x))
    served = tfp_vae.load(trained.export(tmp_path))
    posterior = served.encode(x)
    np.testing.assert_array_equal(posterior.codes, codes)
    prior = served.joint_distribution().model["z"]
    np.testing.assert_allclose(
        served.decode(prior.vectors(codes)).mean(), pictures, rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(served.generate(3), trained.generate(3), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(served.log_prob(x), trained(x)["elbo"], rtol=1e-4)


def test_training_uses_its_codes_and_reconstructs(trained, digits):
    numbers = evaluation.evaluate(trained, digits.test, num_samples=2)
    counts = np.bincount(
        evaluation.codes(trained, digits.test, batch_size=77).ravel(), minlength=16
    ) / (180 * 8)
    shares = counts[counts > 0]
    assert numbers["perplexity"] == pytest.approx(
        np.exp(-np.sum(shares * np.log(shares))), rel=1e-5
    )
    assert numbers["perplexity"] > 8.0
    assert numbers["kl"] == pytest.approx(8 * np.log(16), rel=1e-5)
    error = np.mean((trained.reconstruct(digits.test) - digits.test) ** 2)
    assert error < 0.6 * np.mean((digits.train.mean(0) - digits.test) ** 2)


def test_perplexity_of_one_code(digits):
    vae = vq_vae((1, 3), 1)
    assert evaluation.perplexity(vae, digits.test) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="MultivariateNormalDiag has no integer codes"):
        evaluation.codes(make_vae(), digits.test)


# The prior over codes


def test_one_component_has_the_frequencies_of_the_codes(trained, digits):
    p = tfp_vae.fit_aggregate_prior(trained, digits.train, num_components=1)
    codes = evaluation.codes(trained, digits.train)
    counts = np.stack([np.bincount(column, minlength=16) for column in codes.T]) + 1.0 / 16
    expected = counts / counts.sum(-1, keepdims=True)
    np.testing.assert_allclose(
        tf.nn.softmax(p.components_distribution.logits)[0], expected, rtol=1e-4
    )


def test_a_mixture_knows_which_codes_go_together(trained, digits):
    """Held-out codes: uniform, then independent, then mixed; the mixture's samples are the more likely pictures."""
    z = trained.encode(digits.test).mean()
    fitted = [
        tfp_vae.fit_aggregate_prior(trained, digits.train, num_components=number)
        for number in (1, 10)
    ]
    uniform, single, mixture = (
        float(np.mean(p.log_prob(z))) for p in (trained.prior_distribution(), *fitted)
    )
    assert uniform + 2.0 < single < mixture - 1.0
    again = tfp_vae.fit_aggregate_prior(trained, digits.train, num_components=10)
    np.testing.assert_array_equal(again.log_prob(z), fitted[1].log_prob(z))
    x = trained.generate(5, prior=fitted[1])
    np.testing.assert_array_equal(trained.generate(2, prior=fitted[1]), x[:2])


def test_two_groups_of_codes_are_found_exactly(digits):
    """Codes that are all 0 or all 1, in a mixture of two: log 2 nats, where independent ones cost 4 log 2."""
    vae = vq_vae((4, 3), 2)
    vae.prior.quantizer.sums.assign([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]])
    dense = vae.encoder.layers[0].layers[-1]
    dense.set_weights([np.zeros([32, 12]), np.zeros(12)])
    first = vae.encoder.layers[0].layers[1]
    first.set_weights([np.eye(64, 32), np.zeros(32)])
    dense.kernel.assign(np.eye(32)[:, :1] * np.ones(12))
    dense.bias.assign(-0.5 * np.ones(12))
    x = np.zeros([400, 8, 8, 1], "float32")
    x[::2, 0, 0] = 1.0
    assert {tuple(row) for row in vae.encode(x).codes.numpy().tolist()} == {
        (0, 0, 0, 0),
        (1, 1, 1, 1),
    }
    z, cost = vae.encode(x).mean(), {}
    for number in (1, 2):
        cost[number] = -np.mean(
            tfp_vae.fit_aggregate_prior(vae, x, num_components=number).log_prob(z)
        )
    assert cost[1] == pytest.approx(4 * np.log(2), abs=0.02)
    assert cost[2] == pytest.approx(np.log(2), abs=0.02)


def test_the_prior_over_codes_takes_no_flow(trained, digits):
    with pytest.raises(ValueError, match=r"the VAE's codes are discrete\. Leave flow out"):
        tfp_vae.fit_aggregate_prior(trained, digits.train, flow=tfpl.RealNVP(4))
    with pytest.raises(
        ValueError, match="at least as many examples as components, received 5 and 10"
    ):
        tfp_vae.fit_aggregate_prior(trained, digits.train[:5])


def test_moments_of_code_vectors_are_those_of_draws():
    p = CodeVectors(RANDOM.normal(size=(3, 4)), RANDOM.normal(size=(4, 2)))
    z = p.sample(100_000, seed=(0, 0)).numpy()
    np.testing.assert_allclose(z.mean(0), p.mean(), atol=0.02)
    np.testing.assert_allclose(z.std(0), p.stddev(), atol=0.02)
    assert -p.log_prob(z).numpy().mean() == pytest.approx(float(p.entropy()), abs=0.02)
    assert np.max(p.log_prob(z)) == pytest.approx(float(p.log_prob(p.mode())))


BAD = {
    "shape": (lambda: tfpl.VectorQuantized(4), r"a pair \(num_vectors, code_size\), received 4"),
    "codes": (
        lambda: tfpl.VectorQuantized((4, 2), 0),
        r"num_codes must be a whole number of at least 1, received 0",
    ),
    "momentum": (
        lambda: tfpl.VectorQuantized((4, 2), momentum=1.0),
        r"from 0 to below 1, received 1\.0",
    ),
    "commitment": (
        lambda: tfpl.VectorQuantized((4, 2), commitment=-1),
        r"from 0 to below inf, received -1",
    ),
    "penalty": (
        lambda: objectives.Reconstruction(-1.0),
        r"latent_penalty must be a finite number .* received -1\.0",
    ),
}


@pytest.mark.parametrize(("act", "message"), BAD.values(), ids=BAD)
def test_bad_arguments(act, message):
    with pytest.raises(ValueError, match=message):
        act()


# Autoencoders


def autoencoder(penalty=0.0, **kwargs) -> tfp_vae.VAE:
    return make_vae(
        posterior=tfpl.Deterministic, objective=objectives.Reconstruction(penalty), **kwargs
    )


@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_the_loss_of_an_autoencoder(penalty, digits):
    """-log p(x|z) at the encoder's output, half the squared length of z, and Keras's own weight decay."""
    vae, x = autoencoder(penalty), digits.test[:6].astype("float32")
    z = vae.encoder.layers[0](x)
    log_likelihood, terms = vae.decode(z).log_prob(x), vae(x)
    np.testing.assert_allclose(
        terms["loss"], -log_likelihood + penalty * np.sum(z**2, -1) / 2, rtol=1e-5
    )
    np.testing.assert_array_equal(terms["kl"], np.zeros(6))
    np.testing.assert_allclose(terms["elbo"], log_likelihood, rtol=1e-5)
    kernel = vae.decoder.layers[0].layers[-1].kernel
    kernel.regularizer = keras.regularizers.L2(0.1)
    decay = 0.1 * np.sum(kernel.numpy() ** 2)
    vae.compile(run_eagerly=True)
    assert vae.test_on_batch(x, return_dict=True)["loss"] == pytest.approx(
        np.mean(terms["loss"]) + decay, rel=1e-5
    )


@pytest.mark.parametrize("make", [networks.mlp, networks.conv_decoder], ids=["mlp", "conv"])
def test_weight_decay_reaches_every_kernel(make):
    network = make(
        *([(4,), 64] if make is networks.mlp else [4, (8, 8, 1)]),
        kernel_regularizer=keras.regularizers.L2(2),
    )
    expected = sum(
        2.0 * np.sum(weight.numpy() ** 2) for weight in network.weights if weight.name == "kernel"
    )
    assert float(sum(network.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_an_autoencoder_of_one_linear_unit_finds_the_principal_component():
    """The reconstruction of the best linear autoencoder is that of principal component analysis."""
    x = (
        RANDOM.normal(size=(500, 1)) * [2.0, 1.0, 0.0] + 0.5 * RANDOM.normal(size=(500, 3))
    ).astype("float32")
    x -= x.mean(0)
    unit = tfpl.DistributionLambda(unit_normal)
    encoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1), tfpl.Deterministic(1)])
    decoder = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3), unit])
    vae = tfp_vae.VAE(encoder, decoder, objective=objectives.Reconstruction())
    vae.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.05, 600)),
        steps_per_execution=10,
    )
    vae.fit(x, batch_size=50, epochs=60, verbose=0)
    error = np.sum((vae.reconstruct(x) - x) ** 2, -1).mean()
    assert error == pytest.approx(np.linalg.eigvalsh(np.cov(x.T))[:2].sum(), rel=0.02)


@keras.saving.register_keras_serializable(package="test_codes")
def unit_normal(params):
    return tfd.Independent(tfd.Normal(params, 1.0), 1)


def test_what_a_point_does_not_have_is_refused_or_left_out(digits):
    vae = autoencoder()
    with pytest.raises(ValueError, match="importance sampling needs one that has a density"):
        vae.log_prob(digits.test[:3])
    with pytest.raises(ValueError, match="importance sampling needs one that has a density"):
        evaluation.nll(vae, digits.test[:3])
    numbers = evaluation.evaluate(vae, digits.test)
    # What stands in for its KL divergence would look better than that of any VAE.
    for name in ("nll", "kl", "negative_elbo"):
        assert np.isnan(numbers[name])
    assert np.isfinite(numbers["log_likelihood"])
    assert numbers["active_units"] <= numbers["latent_units"]


@pytest.mark.slow
def test_codes_from_n_0_i_and_from_the_fitted_prior(digits, tmp_path):
    """No warning of a collapsed posterior; the fitted prior knows where the codes are, N(0, I) does not."""
    vae = autoencoder()
    vae.compile(keras.optimizers.Adam(5e-3))
    vae.fit(digits.train, epochs=3, batch_size=100, verbose=0)
    expected = vae.decode(
        tfp_vae.sampling.sample_rows(vae.prior_distribution(), tf.constant([[0, 0], [0, 1]]))
    ).mean()
    np.testing.assert_allclose(vae.generate(2), expected, rtol=1e-5)
    prior, z = tfp_vae.fit_aggregate_prior(vae, digits.train), vae.encode(digits.test).mean()
    assert np.mean(prior.log_prob(z)) > np.mean(vae.prior_distribution().log_prob(z)) + 5.0
    vae.save(tmp_path / "vae.keras")
    again = keras.models.load_model(tmp_path / "vae.keras")
    np.testing.assert_array_equal(again.generate(5, prior=prior), vae.generate(5, prior=prior))
    served = tfp_vae.load(vae.export(tmp_path / "served"))
    np.testing.assert_allclose(
        served.reconstruct(digits.test), vae.reconstruct(digits.test), rtol=1e-4, atol=1e-4
    )
    score = served.score(digits.test)  # neither elbo nor kl, and no signature log_prob
    np.testing.assert_allclose(
        score.pop("log_likelihood"), vae(digits.test)["log_likelihood"], rtol=1e-4
    )
    assert not score
    with pytest.raises((KeyError, ValueError), match="log_prob"):
        served.log_prob(digits.test)
