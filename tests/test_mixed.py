"""Tables: one x of several parts, each with a likelihood of its own, against a process whose likelihood is known."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import special, stats

import tfp_vae
from tfp_vae import evaluation, networks, plots, priors
from tfp_vae import layers as tfpl

tfd = tfp.distributions
# One factor z ~ N(0, 1) drives all columns.
SLOPE, OFFSET, SCALE = np.array([2.0, -1.0]), np.array([1.0, 0.5]), 0.5  # two real ones
# Three binary ones: slopes; a count: slope, offset.
LOGIT, LOG_RATE = (
    np.array([1.5, -1.0, 2.0]),
    np.array([0.8, 1.0]),
)
CATEGORIES = np.array([[1.5, 0.0, -1.5], [0.0, 1.0, 0.0]])  # a category of three: slopes, offsets


def draw_table(number, seed):
    random = np.random.default_rng(seed)
    z = random.normal(size=(number, 1))
    logits = z * CATEGORIES[0] + CATEGORIES[1]
    return {
        "real": (z * SLOPE + OFFSET + SCALE * random.normal(size=(number, 2))).astype("float32"),
        "binary": (random.uniform(size=(number, 3)) < special.expit(z * LOGIT)).astype("int32"),
        "count": random.poisson(np.exp(z * LOG_RATE[0] + LOG_RATE[1])).astype("int64"),
        "kind": (logits + random.gumbel(size=logits.shape)).argmax(1),
    }


def exact_log_prob(table):
    """Integrate the factor out, by Gauss-Hermite quadrature with SciPy's densities."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    z = nodes[:, np.newaxis, np.newaxis]
    log_p = stats.norm.logpdf(table["real"], z * SLOPE + OFFSET, SCALE).sum(-1)
    log_p += stats.bernoulli.logpmf(table["binary"], special.expit(z * LOGIT)).sum(-1)
    log_p += stats.poisson.logpmf(
        table["count"][:, 0], np.exp(z[..., 0] * LOG_RATE[0] + LOG_RATE[1])
    )
    log_kind = special.log_softmax(z * CATEGORIES[0] + CATEGORIES[1], -1)[:, 0]
    log_p += log_kind[:, table["kind"]]
    return special.logsumexp(log_p + np.log(weights / weights.sum())[:, np.newaxis], axis=0)


LIKELIHOODS = {
    "real": lambda: [
        keras.layers.Dense(tfpl.IndependentNormalLearnedScale.params_size(2)),
        tfpl.IndependentNormalLearnedScale(2, scale_shape=2),
    ],
    "binary": lambda: [keras.layers.Dense(3), tfpl.IndependentBernoulli(3)],
    "count": lambda: [keras.layers.Dense(1), tfpl.IndependentPoisson(1)],
    "kind": lambda: [keras.layers.Dense(3), tfpl.IndependentCategorical((), 3)],
}
INPUTS = {"real": (2,), "binary": (3,), "count": (1,), "kind": networks.one_hot(3)}


def make_vae(hidden=16, **kwargs):
    """The decoder is the generating process with unknown parameters."""
    dense = [
        keras.layers.Dense(hidden, "tanh"),
        keras.layers.Dense(2),
        tfpl.MultivariateNormalDiag(1),
    ]
    encoder = networks.from_inputs(INPUTS, dense)
    parts = {name: keras.Sequential(make()) for name, make in LIKELIHOODS.items()}
    decoder = keras.Sequential([keras.Input((1,), name="z"), tfpl.Joint(parts)])
    return tfp_vae.VAE(encoder, decoder, **kwargs)


TRAIN, TEST = draw_table(4000, 0), draw_table(500, 1)


def rows(table, number):
    return {name: values[:number] for name, values in table.items()}


@pytest.fixture(scope="module")
def trained():
    """A VAE of tables: leave it as it is."""
    keras.utils.set_random_seed(0)
    vae = make_vae()
    steps = 40 * 60
    vae.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-2, steps)),
        steps_per_execution=20,
    )
    vae.fit(TRAIN, batch_size=100, epochs=60, verbose=0)
    return vae


@pytest.mark.slow
def test_the_process_is_recovered(trained):
    """Every slope and offset, up to the sign of z; the likelihood of new rows is that of the process itself."""
    likelihood = {
        name: trained.decode([[z] for z in (0.0, 1.0)]).model[name] for name in LIKELIHOODS
    }
    sign = np.sign(np.diff(likelihood["real"].mean()[:, 0])[0])
    found = {
        "slope": np.diff(likelihood["real"].mean(), axis=0)[0] * sign,
        "offset": likelihood["real"].mean()[0],
        "scale": likelihood["real"].stddev()[0],
        "logit": np.diff(likelihood["binary"].distribution.logits_parameter(), axis=0)[0] * sign,
        "log rate": np.diff(np.log(likelihood["count"].mean()), axis=0)[0] * sign,
        "log rate at 0": np.log(likelihood["count"].mean())[0],
    }
    expected = {
        "slope": SLOPE,
        "offset": OFFSET,
        "scale": [SCALE, SCALE],
        "logit": LOGIT,
        "log rate": LOG_RATE[:1],
        "log rate at 0": LOG_RATE[1:],
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=0.2, err_msg=name)
    exact = exact_log_prob(TEST)
    log_prob = np.asarray(trained.log_prob(TEST, 500))
    assert -0.1 < np.mean(log_prob - exact) < 0.03
    assert np.corrcoef(log_prob, exact)[0, 1] > 0.99


@pytest.mark.slow
def test_what_is_generated_is_distributed_as_the_process(trained):
    draws = trained.joint_distribution().sample(20_000, seed=[1, 2])
    many = draw_table(20_000, 2)
    flat = [
        np.concatenate(
            [np.reshape(part[name], [20_000, -1]) for name in ("real", "binary", "count")], 1
        )
        for part in (draws, many)
    ]
    np.testing.assert_allclose(flat[0].mean(0), flat[1].mean(0), atol=0.25)
    np.testing.assert_allclose(np.corrcoef(flat[0].T), np.corrcoef(flat[1].T), atol=0.08)
    shares = [
        np.bincount(np.ravel(part["kind"]).astype(int), minlength=3) / 20_000
        for part in (draws, many)
    ]
    np.testing.assert_allclose(*shares, atol=0.03)


def test_parts_of_different_length_and_bad_names_are_told():
    vae = make_vae()
    with pytest.raises(
        ValueError, match=r"parts of x must be of as many examples each, received .*'kind': \(3,\)"
    ):
        vae.encode({**rows(TRAIN, 5), "kind": TRAIN["kind"][:3]})
    parts = {name: keras.Sequential(LIKELIHOODS["real"]()) for name in ("a b", "c")}
    encoder = networks.from_inputs(
        dict.fromkeys(parts, (2,)), [keras.layers.Dense(2), tfpl.MultivariateNormalDiag(1)]
    )
    decoder = keras.Sequential([keras.Input((1,), name="z"), tfpl.Joint(parts)])
    with pytest.raises(ValueError, match="named like Python's variables, in ASCII; received 'a b'"):
        tfp_vae.VAE(encoder, decoder)


def test_log_prob_is_the_sum_over_the_parts():
    vae, z = make_vae(), tf.random.stateless_normal([500, 1], [0, 1])
    joint = vae.decode(z)
    parts = [joint.model[name].log_prob(tf.cast(TEST[name], "float32")) for name in LIKELIHOODS]
    whole = vae.joint_distribution().log_prob(
        z=z, **{name: tf.cast(value, "float32") for name, value in TEST.items()}
    )
    np.testing.assert_allclose(whole - vae.prior_distribution().log_prob(z), sum(parts), rtol=1e-4)


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.slow
@pytest.mark.rows(0, 1)
def test_every_method_speaks_the_names(jit_compile, tmp_path):
    vae, data = make_vae(), rows(TRAIN, 60)
    vae.compile(keras.optimizers.Adam(1e-2), jit_compile=jit_compile)
    batches = tf.data.Dataset.from_tensor_slices(data).batch(20)
    for given, validation in ((data, (data,)), ({"x": data}, data), (batches, batches)):
        history = vae.fit(given, validation_data=validation, batch_size=20, verbose=0).history
        assert np.isfinite(list(history.values())).all()
    vae.save(tmp_path / "vae.keras")
    again = keras.models.load_model(tmp_path / "vae.keras")
    np.testing.assert_array_equal(again(data)["elbo"], vae(data)["elbo"])
    np.testing.assert_allclose(vae({"x": data})["elbo"], vae(data)["elbo"])
    assert np.isfinite(
        list(evaluation.evaluate(vae, data, num_samples=5, batch_size=25).values())
    ).all()
    shapes = {name: values.shape for name, values in data.items()}
    for x in (vae.reconstruct(data), vae.predict(data, verbose=0), vae.generate(60, seed=1)):
        assert {name: np.shape(values) for name, values in x.items()} == shapes
        assert set(np.unique(x["kind"])) <= {0, 1, 2}  # categories are no numbers to average
    prior = tfp_vae.fit_aggregate_prior(vae, data, num_components=2)
    assert vae.generate(3, prior=prior)["real"].shape == (3, 2)


@pytest.mark.parametrize("policy", ["mixed_float16", "float64"])
@pytest.mark.rows(1)
def test_precision(policy):
    """A count of 2049 stays one: half precision has none."""
    keras.config.set_dtype_policy(policy)
    vae = make_vae()
    vae.compile("adam", run_eagerly=True)
    data = {**rows(TEST, 8), "count": np.full([8, 1], 2049)}
    assert np.isfinite(vae.fit(data, verbose=0).history["loss"]).all()
    assert vae.as_batch(data)["x"]["count"].numpy().max() == 2049.0
    assert vae.log_prob(data, 2).dtype == ("float64" if policy == "float64" else "float32")


def test_pictures_show_one_part():
    vae, data = make_vae(), rows(TEST, 4)
    for figure in (
        plots.reconstructions(vae, data, part="binary"),
        plots.samples(vae, num_rows=2, num_columns=2, part="binary"),
        plots.latent_traversal(vae, data, num_steps=3, part="binary"),
    ):
        assert all(len(axes.lines[0].get_ydata()) == 3 for axes in figure.axes)
    np.testing.assert_array_equal(
        plots.reconstructions(vae, data, part="real").axes[1].lines[0].get_ydata(), data["real"][1]
    )
    for draw in (lambda: plots.samples(vae), lambda: plots.reconstructions(vae, data, part="age")):
        with pytest.raises(
            ValueError,
            match=r"x has the parts \['binary', 'count', 'kind', 'real'\], .* pass part=",
        ):
            draw()


def fitted(data):
    vae = make_vae()
    vae.compile("adam", run_eagerly=True)
    vae.fit(data, verbose=0)


def changed(**parts):
    return {**rows(TEST, 20), **parts}


BAD = {
    "a part is missing": (
        {name: TEST[name] for name in ("real", "binary", "count")},
        "dict of .*'kind'.*, received",
    ),
    "a part too many": (changed(age=np.zeros(20)), "dict of .*, received .*'age'"),
    "an array": (TEST["real"], "x must be a dict of"),
    "lengths": (changed(kind=np.zeros(3)), "differ in length"),
    "shape": (changed(real=np.zeros([20, 3])), r"shape \(2,\), received x of shape \(20, 3\)"),
    "NaN": (changed(real=np.full([20, 2], np.nan)), "40 values that are NaN"),
    "binary": (
        changed(binary=np.full([20, 3], 2)),
        "Bernoulli takes zeros and ones, but x lies in",
    ),
    "count": (changed(count=np.full([20, 1], -1)), "Poisson takes whole numbers of at least 0"),
    "category": (
        changed(kind=np.full(20, 3)),
        "Categorical takes whole numbers from 0 to num_categories - 1",
    ),
    "words": (
        changed(kind=np.full(20, "red")),
        "x must be numbers, received <U3. Number categories",
    ),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD)
def test_bad_parts(data, message):
    with pytest.raises(ValueError, match=message):
        fitted(data)


def test_pseudo_inputs_are_of_one_part():
    with pytest.raises(ValueError, match="an encoder that takes x alone, this one takes"):
        priors.VampPrior(make_vae().encoder, (2,), 5)
