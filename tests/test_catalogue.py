"""Posteriors, priors, likelihoods and objectives compose: each two meet, and what is not defined is refused."""

import functools
import inspect
import itertools
from pathlib import Path

import keras
import numpy as np
import pytest

import tfp_vae
from tests.layer_cases import LIKELIHOODS as LIKELIHOOD_NAMES
from tests.layer_cases import likelihood_arguments, possible_data
from tests.test_objectives import CASES
from tfp_vae import layers as tfpl
from tfp_vae import objectives, priors
from tfp_vae.cli import catalogue
from tfp_vae.cli.build import num_params
from tfp_vae.cli.names import FLOWS, PRIORS_OF_A_SIZE

LATENT = 3


def of_size(name: str, encoder) -> priors.Prior:
    """Make a prior, with weights if it may have some."""
    prior = getattr(priors, name)
    may_be_trained = "trained" in inspect.signature(prior).parameters
    return prior(LATENT, **({"trained": True} if may_be_trained else {}))


POSTERIORS = {
    "diagonal": (tfpl.MultivariateNormalDiag, {"event_size": LATENT}),
    "full": (tfpl.MultivariateNormalTriL, {"event_size": LATENT}),
    "low rank": (tfpl.MultivariateNormalDiagPlusLowRank, {"event_size": LATENT, "rank": 1}),
    "flow": (
        tfpl.FlowPosterior,
        {"flow": lambda: tfpl.InverseAutoregressiveFlow(LATENT, 2, (8,), context_size=2)},
    ),
    "coupling flow": (
        tfpl.FlowPosterior,
        {"flow": lambda: tfpl.RealNVP(LATENT, 2, (8,), context_size=2)},
    ),
    "spherical": (tfpl.PowerSpherical, {"event_size": LATENT}),
    "categorical": (tfpl.OneHotCategoricalStraightThrough, {"event_size": LATENT}),
    "relaxed categorical": (tfpl.RelaxedOneHotCategorical, {"event_size": LATENT}),
    "binary": (tfpl.IndependentBernoulliStraightThrough, {"event_shape": LATENT}),
    "relaxed binary": (tfpl.IndependentRelaxedBernoulli, {"event_shape": LATENT}),
    "quantized": (tfpl.VectorQuantized, {"event_shape": (2, LATENT), "num_codes": 4}),
    "point": (tfpl.Deterministic, {"event_shape": LATENT}),
}
# Each prior that can be chosen by name, and those that need more than a size.
PRIORS = {
    **{name: functools.partial(of_size, name) for name in sorted({*PRIORS_OF_A_SIZE} - {*FLOWS})},
    "NormalMixture": lambda encoder: priors.NormalMixture(LATENT, 3),
    "VampPrior": lambda encoder: priors.VampPrior(encoder, 4, 5),
    "FlowPrior": lambda encoder: priors.FlowPrior(tfpl.MaskedAutoregressiveFlow(LATENT, 2, (8,))),
    "Codes": lambda encoder: priors.Codes(encoder.layers[-1], trained=True),
}
# The priors of posteriors that lie elsewhere than on all vectors; VampPrior goes with all that spread.
OWN_PRIORS = {
    "spherical": "HypersphericalUniform",
    "categorical": "Categorical",
    "relaxed categorical": "RelaxedCategorical",
    "binary": "Bernoulli",
    "relaxed binary": "RelaxedBernoulli",
    "quantized": "Codes",
}
LIKELIHOODS = dict.fromkeys(LIKELIHOOD_NAMES)
OBJECTIVES = {
    f"{name}-{i}": member for name, members in CASES.items() for i, member in enumerate(members)
}
COLUMNS = POSTERIORS, PRIORS, LIKELIHOODS, OBJECTIVES


def is_defined(posterior, prior, likelihood, objective) -> bool:
    member = OBJECTIVES[objective]
    fits = (
        {"VampPrior", OWN_PRIORS[posterior]}
        if posterior in OWN_PRIORS
        else {*PRIORS} - {*OWN_PRIORS.values()}
    )
    # Not VampPrior, which spreads not.
    fits = {"quantized": {"Codes"}, "point": {"StandardNormal"}}.get(posterior, fits)
    needs_factors = (
        isinstance(member, objectives.BetaTCVAE) or getattr(member, "free_bits", 0.0) != 0.0
    )
    factorized = posterior in ("diagonal", "binary", "relaxed binary") and (
        isinstance(member, objectives.BetaTCVAE)
        or prior in ("StandardNormal", "Normal", "Bernoulli", "RelaxedBernoulli")
    )
    compares_draws = isinstance(member, (objectives.InfoVAE, objectives.WAE))
    needs_path = getattr(member, "estimator", "standard") in ("stl", "dreg")
    needs_moments = isinstance(member, objectives.DIPVAE)
    return (
        prior in fits
        and (posterior == "point") == member.takes_points
        and not (needs_moments and ("flow" in posterior or posterior == "quantized"))
        and (factorized or not needs_factors)
        and not (
            compares_draws
            and prior in ("NormalMixture", "VampPrior", "Categorical", "Bernoulli", "Codes")
        )
        and not (needs_path and posterior in ("categorical", "binary", "quantized"))
        and not (needs_moments and posterior.startswith("relaxed"))
    )


def covering_design() -> list[tuple[str, ...]]:
    """Choose combinations, greedily, until every two members of different columns that may meet have met."""
    allowed = [row for row in itertools.product(*COLUMNS) if is_defined(*row)]
    pairs = {row: set(itertools.combinations(enumerate(row), 2)) for row in allowed}
    missing, rows = set().union(*pairs.values()), []
    while missing:
        rows.append(max(allowed, key=lambda row: len(pairs[row] & missing)))
        missing -= pairs[rows[-1]]
    return rows


def rows() -> list:
    """The covering design; its first rows, until every member has been there, are run before every commit."""
    design, seen, params = covering_design(), set(), []
    for row in design:
        is_new = not set(enumerate(row)) <= seen
        params.append(row if is_new else pytest.param(row, marks=pytest.mark.slow))
        seen |= set(enumerate(row))
    return params


@pytest.mark.parametrize("row", rows(), ids="/".join)
@pytest.mark.rows(14, 60)
def test_each_two_members_train_together(row):
    """One step: finite terms, and a gradient that reaches every weight."""
    (posterior, arguments), prior, _, objective = (
        column[name] for column, name in zip(COLUMNS, row, strict=True)
    )
    x = possible_data(row[2], 8, 4)
    likelihood, config = getattr(tfpl, row[2]), likelihood_arguments(row[2], 4)
    if "flow" in arguments:
        arguments = {"flow": arguments["flow"]()}
    num_posterior, num_likelihood = num_params(posterior, arguments), num_params(likelihood, config)
    encoder = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Rescaling(1.0 / float(np.abs(x).max())),
            keras.layers.Dense(num_posterior),
            posterior(**arguments),
        ]
    )
    inputs = [keras.Input(encoder.output_shape[1:]), keras.layers.Flatten()]
    decoder = keras.Sequential([*inputs, keras.layers.Dense(num_likelihood), likelihood(**config)])
    objective = type(objective).from_config(objective.get_config())
    vae = tfp_vae.VAE(encoder, decoder, prior=prior(encoder), objective=objective)
    vae.compile("adam", run_eagerly=True)
    before = vae.get_weights()
    numbers = vae.train_on_batch(x, return_dict=True)
    assert np.isfinite(list(numbers.values())).all(), numbers
    moved = [np.abs(a - b).max() > 0 for a, b in zip(before, vae.get_weights(), strict=True)]
    # The warm-up begins at 0, free of the prior.
    no_kl_yet = row[3] in (
        "ELBO-2",
        "ControlledCapacity-0",
    )
    assert all(moved[: len(encoder.weights) + len(decoder.weights)]) or no_kl_yet
    assert all(np.isfinite(weight).all() for weight in vae.get_weights())


RECONSTRUCTION = objectives.Reconstruction()
REFUSED = {
    "spherical posterior, normal prior": (
        lambda: vae_of(tfpl.PowerSpherical, prior=priors.StandardNormal(LATENT)),
        "PowerSpherical takes vectors of length 1, the prior MultivariateNormalDiag real numbers",
    ),
    "normal posterior, spherical prior": (
        lambda: vae_of(prior=priors.HypersphericalUniform(LATENT)),
        "MultivariateNormalDiag takes real numbers, the prior SphericalUniform vectors of length 1",
    ),
    "discrete posterior, normal prior": (
        lambda: vae_of(tfpl.OneHotCategoricalStraightThrough),
        "StraightThrough takes vectors of one 1 and zeros, the prior MultivariateNormalDiag real numbers",
    ),
    "binary posterior, normal prior": (
        lambda: vae_of(tfpl.IndependentBernoulliStraightThrough),
        "StraightThroughBernoulli takes zeros and ones, the prior MultivariateNormalDiag real numbers",
    ),
    "relaxed posterior, discrete prior": (
        lambda: vae_of(tfpl.RelaxedOneHotCategorical, prior=priors.Categorical(LATENT)),
        "CensoredRelaxedOneHotCategorical takes vectors of shares, which sum to 1, the prior OneHot vectors of one 1",
    ),
    "relaxed binary posterior, discrete prior": (
        lambda: vae_of(tfpl.IndependentRelaxedBernoulli, prior=priors.Bernoulli(LATENT)),
        "CensoredRelaxedBernoulli takes numbers from 0 to 1, the prior Bernoulli zeros and ones",
    ),
    "quantized posterior, normal prior": (
        lambda: quantized(prior=lambda quantizer: priors.StandardNormal(LATENT)),
        "QuantizedVectors takes code vectors, the prior MultivariateNormalDiag real numbers",
    ),
    "quantized posterior, the prior of another": (
        lambda: quantized(
            prior=lambda quantizer: priors.Codes(tfpl.VectorQuantized((1, LATENT), 4, seed=1))
        ),
        "4 code vectors of its own, other than the posterior's 4",
    ),
    "quantized posterior, prior of fewer codes": (
        lambda: quantized(
            prior=lambda quantizer: priors.Codes(tfpl.VectorQuantized((1, LATENT), 3))
        ),
        "3 code vectors of its own, other than the posterior's 4",
    ),
    "quantized posterior, its own mixture": (
        lambda: quantized(
            prior=lambda quantizer: priors.VampPrior(quantized_encoder(quantizer), 4, 5)
        ),
        "QuantizedVectors has all its probability on a few points: the KL divergence to it is infinite",
    ),
    "quantized posterior, sticking the landing": (
        lambda: quantized(objective=objectives.ELBO(kl="sampled", estimator="stl")),
        "QuantizedVectors is straight-through, .* biased",
    ),
    "quantized posterior, covariance": (
        lambda: quantized(objective=objectives.DIPVAE()),
        "DIPVAE is about the covariance of vectors",
    ),
    "point, ELBO": (
        lambda: vae_of(tfpl.Deterministic),
        "no density: ELBO is not defined .*Reconstruction",
    ),
    "point, discrepancy": (
        lambda: vae_of(tfpl.Deterministic, objective=objectives.WAE()),
        "no density: WAE is not defined",
    ),
    "point, its own mixture": (
        lambda: tfp_vae.VAE(
            point_encoder(),
            vae_of().decoder,
            prior=priors.VampPrior(point_encoder(), 4, 5),
            objective=RECONSTRUCTION,
        ),
        "Deterministic has all its probability on a few points",
    ),
    "point, trained prior": (
        lambda: vae_of(tfpl.Deterministic, prior=priors.Normal(LATENT), objective=RECONSTRUCTION),
        "Normal has weights that Reconstruction never trains. .*fit_aggregate_prior",
    ),
    "normal posterior, reconstruction": (
        lambda: vae_of(objective=RECONSTRUCTION),
        "received the posterior MultivariateNormalDiag. End the encoder in tfp_vae.layers.Deterministic",
    ),
    "sticking the landing, straight-through": (
        lambda: vae_of(
            tfpl.OneHotCategoricalStraightThrough,
            prior=priors.Categorical(LATENT),
            objective=objectives.ELBO(kl="sampled", estimator="stl"),
        ),
        "ELBO with estimator='stl' .* a draw of StraightThrough is straight-through, .* biased",
    ),
    "double reparameterization, straight-through": (
        lambda: vae_of(
            tfpl.IndependentBernoulliStraightThrough,
            prior=priors.Bernoulli(LATENT),
            objective=objectives.IWAE(3, estimator="dreg"),
        ),
        "IWAE with estimator='dreg' .* a draw of StraightThroughBernoulli is straight-through, .* biased",
    ),
    "discrepancy, discrete prior": (
        lambda: vae_of(
            tfpl.IndependentBernoulliStraightThrough,
            prior=priors.Bernoulli(LATENT),
            objective=objectives.WAE(),
        ),
        "WAE compares draws .* are not reparameterized",
    ),
    "covariance, relaxed posterior": (
        lambda: vae_of(
            tfpl.IndependentRelaxedBernoulli,
            prior=priors.RelaxedBernoulli(LATENT),
            objective=objectives.DIPVAE(),
        ),
        "DIPVAE is about the mean .* none of CensoredRelaxedBernoulli",
    ),
    "discrete posterior without a path": (
        lambda: vae_of(tfpl.OneHotCategorical),
        "OneHotCategorical is not reparam",
    ),
    "biased path": (
        lambda: vae_of(tfpl.VonMisesFisher, latent=5),
        "VonMisesFisher is not reparameterized",
    ),
    "free bits, full posterior": (
        lambda: vae_of(tfpl.MultivariateNormalTriL, objective=objectives.ELBO(free_bits=1.0)),
        "ELBO with free_bits looks at each dimension .* MultivariateNormalTriL does not factorize",
    ),
    "free bits, mixture prior": (
        lambda: vae_of(
            prior=priors.NormalMixture(LATENT, 2), objective=objectives.ELBO(free_bits=1.0)
        ),
        "ELBO with free_bits looks at each dimension .* MixtureSameFamily does not factorize",
    ),
    "discrepancy, mixture prior": (
        lambda: vae_of(prior=priors.NormalMixture(LATENT, 2), objective=objectives.WAE()),
        "WAE compares draws .* those of MixtureSameFamily are not reparameterized",
    ),
    "moments, flow": (
        lambda: tfp_vae.VAE(flow_encoder(), vae_of().decoder, objective=objectives.DIPVAE()),
        "DIPVAE is about the mean .* none of TransformedDistribution",
    ),
    "total correlation, flow": (
        lambda: tfp_vae.VAE(flow_encoder(), vae_of().decoder, objective=objectives.BetaTCVAE(10)),
        "BetaTCVAE looks at each dimension .* _?TransformedDistribution does not factorize",
    ),
    "total correlation, full posterior": (
        lambda: vae_of(tfpl.MultivariateNormalTriL, objective=objectives.BetaTCVAE(10)),
        "BetaTCVAE looks at each dimension .* MultivariateNormalTriL does not factorize",
    ),
}


def quantized_encoder(quantizer) -> keras.Sequential:
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(LATENT), quantizer])


def quantized(prior=lambda quantizer: None, **kwargs) -> tfp_vae.VAE:
    quantizer = tfpl.VectorQuantized((1, LATENT), 4)
    decoder = [
        keras.Input((1, LATENT)),
        keras.layers.Flatten(),
        keras.layers.Dense(8),
        tfpl.IndependentNormal(4),
    ]
    return tfp_vae.VAE(
        quantized_encoder(quantizer), keras.Sequential(decoder), prior=prior(quantizer), **kwargs
    )


def point_encoder() -> keras.Sequential:
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(LATENT), tfpl.Deterministic(LATENT)]
    )


def flow_encoder() -> keras.Sequential:
    layer = tfpl.FlowPosterior(tfpl.RealNVP(LATENT))
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(layer.params_size(layer.flow)), layer]
    )


def vae_of(posterior=tfpl.MultivariateNormalDiag, latent=LATENT, **kwargs) -> tfp_vae.VAE:
    encoder = [
        keras.Input((4,)),
        keras.layers.Dense(posterior.params_size(latent)),
        posterior(latent),
    ]
    decoder = [keras.Input((latent,)), keras.layers.Dense(8), tfpl.IndependentNormal(4)]
    return tfp_vae.VAE(keras.Sequential(encoder), keras.Sequential(decoder), **kwargs)


@pytest.mark.parametrize(("act", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_defined_names_both_sides(act, message):
    with pytest.raises(ValueError, match=message):
        act()


def test_the_page_of_members_is_that_of_the_docstrings():
    page = Path(__file__).parents[1] / "docs" / "members.md"
    assert page.read_text() == catalogue.page(), "make docs"


def test_each_member_says_when_to_use_it_and_where_it_comes_from():
    rows = [row for members in catalogue.members().values() for row in members]
    assert not [row.name for row in rows if not row.use]
    assert not [row.name for row in rows if bool(row.paper) != bool(row.year)]
