"""Numbers at the edges: what an independent check of every member found, each against something outside the package."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_vae
from tests.conftest import make_vae
from tests.test_codes import vq_vae
from tfp_vae import layers as tfpl
from tfp_vae import objectives, priors, sampling
from tfp_vae.layers.code_vectors import CodeVectors
from tfp_vae.layers.discrete import Bernoulli
from tfp_vae.layers.vector_quantized import QuantizedVectors

tfd = tfp.distributions


@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize("logit", [5.0, 20.0, -50.0])
def test_relaxed_bits_have_a_finite_gradient(temperature, logit):
    logits = tf.Variable(np.full([500, 1], logit, "float32"))
    with tf.GradientTape() as tape:
        q = tfpl.IndependentRelaxedBernoulli(1, temperature=temperature)(logits)
        z = q.sample(seed=(0, 1))
        loss = z[:, 0] + q.log_prob(z)
    assert np.isfinite(tape.gradient(loss, logits)).all()
    noise = np.random.default_rng(0).logistic(size=100_000)
    expected = 1.0 / (1.0 + np.exp(-np.clip((logit + noise) / temperature, -500, 500)))
    assert np.mean(z) == pytest.approx(expected.mean(), abs=0.02)


@pytest.mark.parametrize("name", ["IndependentPoisson", "IndependentNegativeBinomial"])
def test_draws_of_counts_return_whatever_the_parameters(name):
    layer = getattr(tfpl, name)(3)
    rest = np.zeros([1, layer.params_size(3) - 3], "float32")
    x = (
        layer(np.concatenate([np.float32([[500.0, np.nan, 1.0]]), rest], 1))
        .sample(seed=(1, 2))
        .numpy()
    )
    assert np.isfinite(x[0, [0, 2]]).all()
    assert np.isnan(x[0, 1])


def test_draws_of_counts_return_where_all_their_mass_is_at_zero_and_far_out():
    """log mu = 50 and theta = exp(-50): the logits of TFP's draw are 100, whose exponential is no float32."""
    x = tfpl.IndependentNegativeBinomial(1)(np.float32([[50.0, -50.0]])).sample(100, seed=(1, 2))
    assert np.isfinite(x).all()


@pytest.mark.parametrize("leading", [(), (6,), (2, 3), (1, 2, 3)], ids=str)
@pytest.mark.parametrize(
    "layer",
    [tfpl.IndependentRelaxedBernoulli((2, 2)), tfpl.RelaxedOneHotCategorical(4)],
    ids=lambda row: type(row).__name__,
)
def test_a_point_of_what_has_neither_mean_nor_mode_has_any_leading_axes(layer, leading):
    params = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    expected = sampling.point(layer(params).tensor_distribution).numpy()
    p = layer(params.reshape(*leading, 4) if leading else params[0]).tensor_distribution
    assert sampling.point(p).shape == (*leading, *p.event_shape)
    np.testing.assert_allclose(
        np.reshape(sampling.point(p), [-1, *p.event_shape]),
        expected[: np.prod(leading, dtype=int)],
        rtol=1e-6,
    )


@pytest.mark.parametrize("offset", [0.0, 30.0, 1000.0])
def test_the_nearest_code_is_found_far_from_the_origin(offset):
    random = np.random.default_rng(0)
    codebook, features = (
        np.float32(random.normal(size=shape) + offset) for shape in ((64, 4), (2000, 1, 4))
    )
    q = QuantizedVectors(features, codebook)
    distances = (
        (features.astype("float64")[:, :, np.newaxis] - codebook.astype("float64")) ** 2
    ).sum(-1)
    np.testing.assert_array_equal(q.codes, distances.argmin(-1))
    assert np.isfinite(q.log_prob(q.sample(seed=(0, 0)))).all()
    assert not np.isfinite(q.log_prob(q.vectors((q.codes + 1) % 64))).any()


@pytest.mark.parametrize("momentum", [0.0, 0.99])
def test_a_sampled_divergence_of_codes_is_the_analytic_one_in_every_step(digits, momentum):
    """Also in the first step, in which the codes are restarted, and without memory, where they are moved far."""
    vae = vq_vae(momentum=momentum, prior=lambda quantizer: priors.Codes(quantizer, trained=True))
    (weight,) = vae.prior.trainable_weights
    weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    for _ in range(2):
        seed = tf.constant([0, 1])
        data = vae.as_batch(digits.train[:50])
        posterior = vae.encoder(data["x"], training=True).tensor_distribution
        prior = tfp_vae.generative.with_codes_of(posterior, vae.prior(None))
        assert isinstance(prior, CodeVectors)
        z = posterior.sample(seed=seed)
        log_probs = tf.math.log_softmax(prior.logits).numpy()
        expected = -log_probs[np.arange(posterior.codes.shape[1]), posterior.codes].sum(-1)
        np.testing.assert_allclose(posterior.log_prob(z) - prior.log_prob(z), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "objective", [objectives.IWAE(3, "dreg"), objectives.ELBO(kl="sampled", estimator="stl")]
)
def test_the_optimal_scale_moves_once_a_step(digits, objective):
    vae = make_vae(likelihood=tfpl.IndependentNormalOptimalScale, objective=objective)
    vae.compile("adam", run_eagerly=True)
    vae.fit(digits.train[:60] / np.float32(16), batch_size=20, verbose=0)
    assert float(vae.decoder.layers[-1].num_updates) == 3.0


def test_a_learned_scale_begins_at_the_spread_of_the_data():
    x = (
        np.random.default_rng(0)
        .normal([1.0, -2.0, 5.0], [0.5, 2.0, 0.0], size=(4000, 3))
        .astype("float32")
    )
    for scale_shape, expected in (((), np.sqrt((0.25 + 4.0) / 3)), ((3,), [0.5, 2.0, 1.0])):
        layer = tfpl.IndependentNormalLearnedScale(3, scale_shape)
        layer.begin_at({"x": x})
        np.testing.assert_allclose(
            layer(np.zeros([1, 3])).stddev()[0], np.broadcast_to(expected, 3), rtol=0.05
        )
        layer.begin_at({"x": 7.0 * x})  # it has begun
        np.testing.assert_allclose(
            layer(np.zeros([1, 3])).stddev()[0], np.broadcast_to(expected, 3), rtol=0.05
        )


def test_a_learned_scale_of_files_from_before_keeps_its_pace():
    config = tfpl.IndependentNormalLearnedScale(3).get_config()
    del config["rate"]
    layer = tfpl.IndependentNormalLearnedScale.from_config(config)
    assert layer.rate == 1.0
    assert float(layer(np.zeros([1, 3])).stddev()[0, 0]) == pytest.approx(1.0)


def test_pseudo_inputs_that_cannot_reach_the_data_are_told(digits):
    vae = make_vae()
    prior = priors.VampPrior(vae.encoder, (8, 8, 1), 5)
    vae = tfp_vae.VAE(vae.encoder, vae.decoder, prior=prior)
    vae.compile("adam", run_eagerly=True)
    with pytest.warns(
        UserWarning,
        match=r"between 0 and 1, but the data lie between 0 and 16.* Pass low=0, high=16",
    ):
        vae.fit(digits.train[:20], verbose=0)


WRONG = {
    "values": (
        lambda vae, x: vae.encode(20.0 * x + 1),
        "takes whole numbers from 0 to total_count, but x lies in",
    ),
    "NaN": (lambda vae, x: vae.log_prob(x * np.nan, 2), "values that are NaN or infinite"),
    "fractions": (lambda vae, x: vae.reconstruct(x + 0.5), "not all whole"),
    "latents": (
        lambda vae, x: vae.decode(np.full([2, 4], np.nan)),
        "z holds values that are NaN or infinite",
    ),
    "nothing": (lambda vae, x: vae.encode(None), "x must be numbers, .* received NoneType"),
    "no example": (lambda vae, x: vae.encode(x[:0]), "empty: x has shape"),
    "class_weight": (
        lambda vae, x: vae.fit(x, class_weight={0: 1.0}),
        "Pass sample_weight instead",
    ),
}


@pytest.mark.parametrize(("act", "message"), WRONG.values(), ids=WRONG)
def test_impossible_values_are_refused_wherever_they_are_given(act, message, vae, digits):
    vae.compile("adam", run_eagerly=True)
    with pytest.raises(ValueError, match=message):
        act(vae, np.minimum(digits.test[:5], 15))


def test_impossible_values_are_refused_where_they_are_observed(digits):
    vae = make_vae(missing=True)
    x = digits.test[:5].astype("float32")
    x[0, :4] = np.nan
    vae.encode(x)
    x[1, 0] = 50.0
    mask = x != 50.0
    vae.encode({"x": x, "mask": mask})
    with pytest.raises(
        ValueError, match=r"takes whole numbers from 0 to total_count, but x lies in"
    ):
        vae.encode(x)


def test_parameters_of_another_number_are_told_in_one_line():
    with pytest.raises(
        ValueError,
        match=r"^independent_normal\S*: The distribution needs 6 parameters, received 5[^\n]*$",
    ):
        tfpl.IndependentNormal(3)(keras.Input((5,)))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_bernoulli_densities_and_their_gradients_are_those_of_tfp(jit_compile):
    """At zero, where a logit begins, far out, at infinity, and for fractions, which are cross-entropies."""
    logits = tf.constant([-np.inf, -200.0, -20.0, -1.0, 0.0, 0.5, 20.0, 200.0, np.inf])
    x = tf.constant([[0.0], [1.0], [0.25], [0.5], [0.75], [2.0]])

    def of(cls):
        @tf.function(jit_compile=jit_compile)
        def density():
            with tf.GradientTape() as tape:
                tape.watch(logits)
                log_prob = cls(logits, dtype=tf.float32).log_prob(x)
            return log_prob, tape.jacobian(log_prob, logits)

        return density()

    answers = [of(cls) for cls in (Bernoulli, tfd.Bernoulli)]
    for ours, theirs in zip(*answers, strict=True):
        finite = np.isfinite(theirs)
        np.testing.assert_allclose(ours.numpy()[finite], theirs.numpy()[finite], 1e-6, 1e-6)
    ours, theirs = (cls(probs=0.3).log_prob([0, 1]) for cls in (Bernoulli, tfd.Bernoulli))
    np.testing.assert_array_equal(ours, theirs)
