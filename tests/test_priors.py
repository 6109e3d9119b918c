"""Priors: a row for each member."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import special, stats

import tfp_vae
from tests.conftest import make_vae, mostly_slow
from tfp_vae import layers as tfpl
from tfp_vae import networks, priors

tfd = tfp.distributions


def vae_with(posterior, prior) -> tfp_vae.VAE:
    encoder = keras.Sequential(
        [networks.mlp((8, 8, 1), posterior.params_size(4), hidden_sizes=(32,)), posterior(4)]
    )
    return tfp_vae.VAE(encoder, make_vae().decoder, prior=prior)


def vamp_vae() -> tfp_vae.VAE:
    vae = make_vae()
    prior = priors.VampPrior(vae.encoder, (8, 8, 1), num_components=7, high=16.0)
    return tfp_vae.VAE(vae.encoder, vae.decoder, prior=prior)


def flow_vae(flow: type[tfpl.Flow]) -> tfp_vae.VAE:
    """A prior far from the normal distribution that it starts at."""
    prior = priors.FlowPrior(flow(4, hidden_units=(8,)))
    random = np.random.default_rng(0)
    prior.set_weights([random.normal(scale=0.15, size=weight.shape) for weight in prior.weights])
    return make_vae(prior=prior)


def codes_vae(**kwargs) -> tfp_vae.VAE:
    quantizer, decoder = tfpl.VectorQuantized((2, 2), num_codes=3), make_vae().decoder
    encoder = keras.Sequential([networks.mlp((8, 8, 1), 4, hidden_sizes=(32,)), quantizer])
    decoder = keras.Sequential([keras.Input((2, 2)), keras.layers.Flatten(), *decoder.layers])
    return tfp_vae.VAE(encoder, decoder, prior=priors.Codes(quantizer, **kwargs))


# For each member a VAE with it, and the number of weights that the prior adds.
CASES = {
    "StandardNormal": (lambda: make_vae(prior=priors.StandardNormal(4)), 0),
    "Normal": (lambda: make_vae(prior=priors.Normal(4)), 2),
    "StudentT": (lambda: make_vae(prior=priors.StudentT(4)), 0),
    "NormalMixture": (lambda: make_vae(prior=priors.NormalMixture(4, num_components=3)), 3),
    "VampPrior": (vamp_vae, 1),
    "FlowPrior": (lambda: flow_vae(tfpl.MaskedAutoregressiveFlow), 8),
    "FlowPrior of couplings": (lambda: flow_vae(tfpl.RealNVP), 8),
    "HypersphericalUniform": (
        lambda: vae_with(tfpl.PowerSpherical, priors.HypersphericalUniform(4)),
        0,
    ),
    "Categorical": (
        lambda: vae_with(
            tfpl.OneHotCategoricalStraightThrough, priors.Categorical(4, trained=True)
        ),
        1,
    ),
    "RelaxedCategorical": (
        lambda: vae_with(tfpl.RelaxedOneHotCategorical, priors.RelaxedCategorical(4, trained=True)),
        1,
    ),
    "Bernoulli": (
        lambda: vae_with(
            tfpl.IndependentBernoulliStraightThrough, priors.Bernoulli(4, trained=True)
        ),
        1,
    ),
    "Codes": (lambda: codes_vae(trained=True), 1),
    "RelaxedBernoulli": (
        lambda: vae_with(
            tfpl.IndependentRelaxedBernoulli, priors.RelaxedBernoulli(4, trained=True)
        ),
        1,
    ),
}
# All draws there are.
OUTCOMES = {
    priors.Categorical: np.eye(4, dtype="float32"),
    priors.Bernoulli: np.float32(np.indices([2] * 4).reshape(4, -1).T),
}
# Draws with more of them at the poles of a density.
PROPOSALS = {
    priors.RelaxedCategorical: lambda p: tfd.Dirichlet([0.3] * 4),
    priors.RelaxedBernoulli: lambda p: tfd.Independent(tfd.Beta([0.3] * 4, 0.3), 1),
}


def test_every_member_has_a_row():
    assert set(priors.__all__) - {"Prior"} == {name.split()[0] for name in CASES}


@pytest.fixture(params=CASES)
def case(request):
    make, num_weights = CASES[request.param]
    return make(), num_weights


def moments(p: tfd.Distribution) -> tuple:
    """Mean and standard deviation; of a flow, which has no closed form, from its density at draws of a wide normal."""
    if tfp_vae.sampling.is_pushed_forward(p):
        wide = tfd.MultivariateNormalDiag(tf.zeros([4]), tf.fill([4], 2.0))
        z = wide.sample(400_000, seed=[5, 6])
        weights = tf.nn.softmax(p.log_prob(z) - wide.log_prob(z))[:, tf.newaxis]
        mean = tf.reduce_sum(weights * z, 0)
        return mean, tf.sqrt(tf.reduce_sum(weights * (z - mean) ** 2, 0))
    return p.mean(), p.stddev()


def wide_normal(p: tfd.Distribution) -> tfd.Distribution:
    mean, stddev = moments(p)
    return tfd.MultivariateNormalDiag(mean, 2.0 * stddev)


def test_density_sums_to_one(case):
    """The mean of p(z) / r(z) over draws of a wide r is one; on the sphere r is uniform; discrete ones are summed."""
    vae, _ = case
    if isinstance(vae.prior, priors.VampPrior):  # dark images, whose posteriors overlap
        vae.prior.pseudo_inputs.assign(0.02 * vae.prior.pseudo_inputs)
    p = vae.prior_distribution()
    assert (p.batch_shape, p.event_shape, vae.z.size) == ([], vae.latent_shape, 4)
    if isinstance(vae.prior, priors.Codes):
        every = np.indices([3, 3]).reshape(2, -1).T
        assert np.sum(p.prob(vae.prior.quantizer.vectors(every))) == pytest.approx(1.0, rel=1e-5)
        return
    if isinstance(vae.prior, priors.HypersphericalUniform):
        area = 2 * np.pi**2 / special.gamma(2)  # of the unit sphere in four dimensions
        np.testing.assert_allclose(
            p.prob(p.sample(3, seed=[1, 2])), np.full(3, 1 / area), rtol=1e-5
        )
        return
    if type(vae.prior) in OUTCOMES:
        assert np.sum(p.prob(OUTCOMES[type(vae.prior)])) == pytest.approx(1.0, rel=1e-5)
        return
    wide = PROPOSALS.get(type(vae.prior), wide_normal)(p)
    z = wide.sample(200_000, seed=[1, 2])
    assert np.mean(np.exp(p.log_prob(z) - wide.log_prob(z))) == pytest.approx(1.0, abs=0.05)


def test_draws_follow_the_density(case):
    vae, _ = case
    p = vae.prior_distribution()
    z = p.sample(100_000, seed=[1, 2]).numpy()
    if isinstance(vae.prior, priors.HypersphericalUniform):
        np.testing.assert_allclose(np.linalg.norm(z, axis=-1), 1.0, atol=1e-5)
        np.testing.assert_allclose(np.cov(z.T), np.eye(4) / 4, atol=0.01)
    elif type(vae.prior) in PROPOSALS:  # by importance sampling: TFP knows no moments
        wide = PROPOSALS[type(vae.prior)](p)
        others = wide.sample(200_000, seed=[3, 4])
        weights = np.exp(p.log_prob(others) - wide.log_prob(others))[:, np.newaxis]
        for power in (1, 2):
            np.testing.assert_allclose(
                (z**power).mean(0), np.mean(weights * others**power, 0), atol=0.02
            )
    else:
        mean, stddev = moments(p)
        np.testing.assert_allclose(z.mean(0), mean, atol=0.03)
        np.testing.assert_allclose(z.std(0), stddev, atol=0.03)


@pytest.mark.parametrize(
    "case", mostly_slow(CASES, "StandardNormal", "NormalMixture", "Codes"), indirect=True
)
@pytest.mark.rows(2, 4)
def test_training_saving_and_serving(case, digits, tmp_path):
    vae, num_weights = case
    networks_weights = len(vae.encoder.trainable_weights) + len(vae.decoder.trainable_weights)
    assert len({id(weight) for weight in vae.trainable_weights}) == networks_weights + num_weights
    vae.compile("adam", run_eagerly=True)
    before = vae.get_weights()
    vae.fit(digits.train[:50], batch_size=50, verbose=0)
    assert all(np.abs(a - b).max() > 0 for a, b in zip(before, vae.get_weights(), strict=True))
    vae.save(tmp_path / "vae.keras")
    again = keras.models.load_model(tmp_path / "vae.keras")
    assert type(again.prior) is type(vae.prior)
    assert len(again.trainable_weights) == len(vae.trainable_weights)
    np.testing.assert_array_equal(again(digits.test[:3])["elbo"], vae(digits.test[:3])["elbo"])
    served = tfp_vae.load(vae.export(tmp_path / "served", score_samples=1, log_prob_samples=1))
    np.testing.assert_allclose(served.generate(3), vae.generate(3), rtol=1e-4, atol=1e-4)
    z = vae.prior_distribution().sample(seed=[1, 2])
    if isinstance(vae.prior, priors.Codes):
        np.testing.assert_allclose(
            served.joint_distribution().model["z"].log_prob(z),
            vae.prior_distribution().log_prob(z),
            rtol=1e-5,
        )
        return
    np.testing.assert_allclose(
        served.joint_distribution().log_prob(z=z, x=digits.test[0]),
        vae.joint_distribution().log_prob(z=z, x=digits.test[0]),
        rtol=1e-4,
    )


def test_priors_are_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    for prior in (
        priors.Normal(2),
        priors.NormalMixture(2, 3),
        priors.HypersphericalUniform(2),
        priors.Bernoulli(2, trained=True),
        priors.FlowPrior(tfpl.RealNVP(2)),
    ):
        assert prior(None).dtype == tf.float32


def test_normal_densities_in_numpy():
    z = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    expected = stats.norm.logpdf(z).sum(-1)
    np.testing.assert_allclose(priors.StandardNormal(4)(None).log_prob(z), expected, rtol=1e-5)
    np.testing.assert_allclose(priors.Normal(4)(None).log_prob(z), expected, rtol=1e-4)
    mixture = priors.NormalMixture(4, 3)
    mixture.logits.assign([0.0, 1.0, -1.0])
    parts = [stats.norm.logpdf(z, loc).sum(-1) for loc in mixture.locs.numpy()]
    expected = special.logsumexp(
        np.array(parts) + np.log(special.softmax([0.0, 1.0, -1.0]))[:, None], axis=0
    )
    np.testing.assert_allclose(mixture(None).log_prob(z), expected, rtol=1e-4)


def test_a_mixture_of_one_is_a_normal():
    mixture, normal, z = priors.NormalMixture(4, 1), priors.Normal(4), np.ones([2, 4], "float32")
    normal.loc.assign(mixture.locs[0])
    normal.raw_scale.assign(mixture.raw_scales[0] + 0.5)
    mixture.raw_scales.assign(mixture.raw_scales + 0.5)
    np.testing.assert_allclose(mixture(None).log_prob(z), normal(None).log_prob(z), rtol=1e-5)


def test_the_vamp_prior_is_the_mixture_of_the_pseudo_inputs_posteriors(digits):
    vae = vamp_vae()
    vae.prior.pseudo_inputs.assign(digits.train[:7])
    z = np.ones([2, 4], "float32")
    posteriors = vae.encode(digits.train[:7])
    expected = special.logsumexp(posteriors.log_prob(z[:, None]).numpy(), axis=1) - np.log(7)
    np.testing.assert_allclose(vae.prior_distribution().log_prob(z), expected, rtol=1e-5)
    vae.prior.pseudo_inputs.assign(digits.train[:7] + 100.0)  # kept within low and high
    high = vae.prior_distribution().log_prob(z)
    vae.prior.pseudo_inputs.assign(16.0 * np.ones([7, 8, 8, 1]))
    np.testing.assert_allclose(vae.prior_distribution().log_prob(z), high, rtol=1e-6)


def test_a_reloaded_vamp_prior_shares_the_encoder(tmp_path):
    vamp_vae().save(tmp_path / "vae.keras")
    again = keras.models.load_model(tmp_path / "vae.keras")
    assert again.prior.encoder is again.encoder


def test_the_spherical_kl_is_analytic_and_right():
    q = tfd.PowerSpherical(tf.constant([[0.6, 0.8, 0.0]]), 5.0)
    p = priors.HypersphericalUniform(3)(None)
    z = q.sample(200_000, seed=[1, 2])
    kl = tfp_vae.objectives.analytic_kl(q, p)
    assert kl.numpy()[0] == pytest.approx(np.mean(q.log_prob(z) - p.log_prob(z)), abs=0.01)


BAD = {
    "size 0": (lambda: priors.StandardNormal(0), r"at least 1, received 0"),
    "size -2": (lambda: priors.Normal(-2), r"at least 1, received -2"),
    "size 1.5": (lambda: priors.StandardNormal(1.5), r"at least 1, received 1\.5"),
    "components": (
        lambda: priors.NormalMixture(2, 0),
        r"num_components must be a whole number of at least 1",
    ),
    "range": (
        lambda: priors.VampPrior(make_vae().encoder, (8, 8, 1), 3, low=1.0),
        r"low must be below high",
    ),
    "sphere": (lambda: priors.HypersphericalUniform(1), r"at least 2, received 1"),
    "no categories": (lambda: priors.Categorical(()), r"a shape that ends in one, received \(\)"),
    "temperature": (
        lambda: priors.RelaxedBernoulli(2, -1.0),
        r"temperature must be a positive, .* received -1\.0",
    ),
    "quantizer": (
        lambda: priors.Codes(tfpl.VectorQuantized),
        r"the VectorQuantized layer of the VAE's encoder",
    ),
    "pair": (
        lambda: make_vae(prior=priors.HypersphericalUniform(4)),
        r"MultivariateNormalDiag takes real numbers",
    ),
    "shape": (
        lambda: make_vae(prior=priors.Normal(3)),
        r"prior's event shape \(3,\) differs from .* \(4,\)",
    ),
}


@pytest.mark.parametrize(("act", "message"), BAD.values(), ids=BAD)
def test_bad_arguments(act, message):
    with pytest.raises((TypeError, ValueError), match=message):
        act()
