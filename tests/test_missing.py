"""Missing values: the likelihood of what is observed, and imputation, against exactly solvable models."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import stats

import tfp_vae
from tests.conftest import make_vae
from tests.test_joint import MIXED, mixed_vae
from tfp_vae import layers as tfpl
from tfp_vae import objectives, sampling

tfd = tfp.distributions
W, S = np.array([[1.0, 0.5, -0.8], [0.2, -1.0, 0.6]]), 0.4


@keras.saving.register_keras_serializable(package="tests")
def wide_scale(shape, dtype=None):
    """Start the posterior wide, so that it covers the exact one."""
    return tf.constant([0.0, 0.0, 1.2, 1.2], dtype)


def linear_vae(**kwargs):
    """p(x|z) = N(z W, S^2): log p(x) and p(missing | observed) are known for every pattern; q is no exact posterior."""
    wide = keras.layers.Dense(4, kernel_initializer="zeros", bias_initializer=wide_scale)
    encoder = [
        keras.Input((3,)),
        keras.layers.Dense(16, "tanh"),
        wide,
        tfpl.MultivariateNormalDiag(2),
    ]
    kernel = keras.initializers.Constant(W)
    scale = tfpl.IndependentNormalLearnedScale(3)
    decoder = [keras.Input((2,)), keras.layers.Dense(3, kernel_initializer=kernel), scale]
    vae = tfp_vae.VAE(keras.Sequential(encoder), keras.Sequential(decoder), missing=True, **kwargs)
    scale.raw_scale.assign(np.log(np.expm1(S)) / scale.rate * tf.ones_like(scale.raw_scale))
    return vae


def data(number, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(number, 2)) @ W + S * random.normal(size=(number, 3))
    return np.where(random.uniform(size=x.shape) < 0.4, np.nan, x).astype("float32"), x.astype(
        "float32"
    )


def exact(x):
    """Return log p(observed), and mean and standard deviation of the missing values given those, by NumPy."""
    covariance, seen = W.T @ W + S**2 * np.eye(3), ~np.isnan(x)
    log_prob = (
        stats.multivariate_normal(np.zeros(seen.sum()), covariance[np.ix_(seen, seen)]).logpdf(
            x[seen]
        )
        if seen.any()
        else 0.0
    )
    gain = covariance[np.ix_(~seen, seen)] @ np.linalg.inv(covariance[np.ix_(seen, seen)])
    rest = covariance[np.ix_(~seen, ~seen)] - gain @ covariance[np.ix_(seen, ~seen)]
    mean, stddev = np.where(seen, x, 0.0), np.zeros(3)
    mean[~seen], stddev[~seen] = gain @ x[seen], np.sqrt(np.diag(rest))
    return log_prob, mean, stddev


def test_evidence_and_imputation_of_a_linear_model():
    vae, (x, _) = linear_vae(), data(20)
    x[0] = np.nan  # nothing observed: its log-likelihood is 0, it is filled from the prior
    log_prob, means, stddevs = (np.array(part) for part in zip(*map(exact, x), strict=True))
    np.testing.assert_allclose(vae.log_prob(x, 20_000), log_prob, atol=0.1)
    filled = vae.impute(x, 20_000)
    np.testing.assert_array_equal(filled[~np.isnan(x)], x[~np.isnan(x)])
    np.testing.assert_allclose(filled, means, atol=0.12)
    draws = vae.impute(x, 20_000, num_draws=2000)
    assert draws.shape == (2000, 20, 3)
    np.testing.assert_allclose(draws.mean(0), means, atol=0.15)
    np.testing.assert_allclose(draws.std(0), stddevs, atol=0.1)


def test_intervals_of_draws_cover_the_truth():
    vae, (x, truth) = linear_vae(), data(150, seed=1)
    low, high = np.quantile(vae.impute(x, 2000, num_draws=200), [0.1, 0.9], axis=0)
    inside = ((low <= truth) & (truth <= high))[np.isnan(x)]
    assert inside.mean() == pytest.approx(0.8, abs=0.08)


@pytest.mark.parametrize("objective", [objectives.ELBO(), objectives.IWAE(3, estimator="dreg")])
def test_with_nothing_missing_the_loss_is_the_ordinary_one(objective, digits):
    whole, able = make_vae(objective=objective), make_vae(objective=objective, missing=True)
    able.set_weights(whole.get_weights())
    x = digits.test[:20].astype("float32")
    np.testing.assert_allclose(able(x)["loss"], whole(x)["loss"], rtol=1e-6)
    np.testing.assert_allclose(able.log_prob(x, 10), whole.log_prob(x, 10), rtol=1e-6)


def test_nan_and_mask_say_the_same_and_hidden_values_do_not_matter():
    vae, (x, truth) = linear_vae(), data(30)
    mask = ~np.isnan(x)
    for kind in ("bool", "float32", "int32"):
        by_mask = vae({"x": truth, "mask": mask.astype(kind)})
        for name, value in vae(x).items():
            np.testing.assert_array_equal(by_mask[name], value)
    np.testing.assert_array_equal(vae.impute({"x": truth, "mask": mask}, 50), vae.impute(x, 50))


def test_rows_are_imputed_independently_of_their_neighbours():
    vae, (x, _) = linear_vae(), data(10)
    np.testing.assert_allclose(vae.impute(x, 50)[3:5], vae.impute(x[3:5], 50), rtol=1e-5)


@pytest.mark.slow
def test_training_on_incomplete_data_finds_the_scale_and_saves(tmp_path):
    keras.utils.set_random_seed(0)
    x, _ = data(2000)
    vae = linear_vae(objective=objectives.IWAE(5))
    scale = vae.decoder.layers[-1]
    scale.raw_scale.assign(tf.ones_like(scale.raw_scale) / scale.rate)
    vae.compile(keras.optimizers.Adam(1e-2))
    vae.fit(x, epochs=20, batch_size=100, verbose=0, validation_data=(x[:90],))
    exact_log_prob = np.mean([exact(row)[0] for row in x])
    trained = float(tf.reduce_mean(vae.log_prob(x, 500)))
    assert trained == pytest.approx(exact_log_prob, abs=0.1)
    vae.save(tmp_path / "vae.keras")
    again = keras.models.load_model(tmp_path / "vae.keras")
    assert again.missing
    np.testing.assert_array_equal(again(x[:50])["loss"], vae(x[:50])["loss"])


def test_parts_are_missing_and_the_encoder_sees_which():
    a, b, seen = (
        keras.Input((3,), name="a"),
        keras.Input((2,), name="b"),
        keras.Input((3,), name="a_mask"),
    )
    features = keras.layers.Dense(4)(keras.layers.Concatenate()([a, b, seen]))
    encoder = keras.Model([a, b, seen], tfpl.MultivariateNormalDiag(2)(features))
    vae = tfp_vae.VAE(encoder, mixed_vae().decoder, missing=True)
    x = {"a": MIXED["a"].copy(), "b": MIXED["b"].copy()}
    x["a"][:, 1], x["b"][:12] = np.nan, np.nan
    vae.compile(keras.optimizers.Adam(1e-2))
    assert np.isfinite(vae.fit(x, epochs=2, verbose=0).history["loss"]).all()
    filled = vae.impute(x, 50)
    assert {name: np.isnan(part).any() for name, part in filled.items()} == {"a": False, "b": False}
    hidden = {"x": MIXED, "mask": {"a": ~np.isnan(x["a"]), "b": ~np.isnan(x["b"])}}
    np.testing.assert_allclose(vae(hidden)["loss"], vae(x)["loss"], rtol=1e-6)
    parts = vae.one_pass(x, tf.constant([0, 0]))
    z = parts.sample([])
    expected = vae.decode(z).model["a"].distribution.log_prob(MIXED["a"]).numpy()[:, [0, 2]].sum(-1)
    expected[12:] += vae.decode(z).model["b"].log_prob(MIXED["b"]).numpy()[12:]
    np.testing.assert_allclose(
        sampling.log_density(parts.likelihood(z), parts.x), expected, rtol=1e-4, atol=1e-4
    )


def normal_vae(likelihood, **kwargs):
    encoder = [keras.Input((3,)), keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2)]
    decoder = [keras.Input((2,)), keras.layers.Dense(likelihood.params_size(3)), likelihood(3)]
    return tfp_vae.VAE(keras.Sequential(encoder), keras.Sequential(decoder), **kwargs)


def fitted(vae, x):
    vae.compile("adam", run_eagerly=True)
    return vae.fit(x, verbose=0)


BAD = {
    "likelihood": (
        lambda x: normal_vae(tfpl.MultivariateNormalTriL, missing=True),
        "values are independent",
    ),
    "optimal scale": (
        lambda x: normal_vae(tfpl.MultivariateNormalDiag, missing=True),
        "values are independent, but MultivariateNormalDiag",
    ),
    "NaN": (lambda x: fitted(normal_vae(tfpl.IndependentNormal), x), "NaN or infinite"),
    "mask": (
        lambda x: normal_vae(tfpl.IndependentNormal)({"x": x, "mask": np.isnan(x)}),
        r"makes? it with VAE\(\.\.\., missing=True\)|make it with VAE",
    ),
    "impute": (lambda x: normal_vae(tfpl.IndependentNormal).impute(x), "knows no missing values"),
    "mask's shape": (
        lambda x: linear_vae()({"x": x, "mask": np.ones([20, 2])}),
        r"mask of shape \[\.\.\., 3\], received shape \(20, 2\)",
    ),
    "infinite, to be filled in": (
        lambda x: linear_vae().impute(np.where(np.isnan(x), np.inf, x)),
        "NaN or infinite",
    ),
    "scale of the batch": (
        lambda x: fitted(normal_vae(tfpl.IndependentNormalOptimalScale, missing=True), x),
        "Choose IndependentNormalLearnedScale",
    ),
    "infinite": (
        lambda x: fitted(linear_vae(), np.where(np.isnan(x), np.inf, x)),
        "NaN or infinite",
    ),
    "draws": (lambda x: linear_vae().impute(x, num_draws=0), "num_draws must be a whole number"),
}


@pytest.mark.parametrize(("act", "message"), BAD.values(), ids=BAD)
def test_misuse_is_explained(act, message):
    with pytest.raises(ValueError, match=message):
        act(data(20)[0])


def test_each_mask_reaches_its_own_part_whatever_the_order():
    inputs = {name: keras.Input((1,), name=name) for name in ("b", "a", "b_mask", "a_mask")}
    features = keras.layers.Concatenate()([inputs[name] for name in ("b_mask", "a_mask")])
    posterior = tfpl.DistributionLambda(lambda t: tfd.MultivariateNormalDiag(t, tf.ones_like(t)))(
        features
    )
    parts = {
        name: keras.Sequential([keras.layers.Dense(2), tfpl.IndependentNormal(1)])
        for name in ("b", "a")
    }
    decoder = keras.Sequential([keras.Input((2,)), tfpl.Joint(parts)])
    vae = tfp_vae.VAE(keras.Model(inputs, posterior), decoder, missing=True)
    b, a = np.float32([[1.0], [np.nan]]), np.float32([[1.0], [2.0]])
    for x in ({"b": b, "a": a}, {"a": a, "b": b}):
        np.testing.assert_array_equal(vae.encode(x).mean(), [[1.0, 1.0], [0.0, 1.0]])


def test_draws_of_one_example_say_nothing_of_another():
    vae, x = linear_vae(), np.tile(data(1)[0], [50, 1])
    x[:, 1] = np.nan
    draws = vae.impute(x, 200, num_draws=200)[:, :, 1]
    assert np.std(draws.mean(1)) == pytest.approx(np.std(draws) / np.sqrt(50), rel=0.3)


def test_log_prob_of_incomplete_data_has_a_gradient():
    vae, x = linear_vae(), tf.constant(data(4)[0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        log_prob = vae.log_prob(x, 20)
    gradient = tape.gradient(log_prob, x).numpy()
    assert np.isfinite(gradient).all()
    assert (gradient[~np.isnan(x)] != 0.0).all()
    assert (gradient[np.isnan(x)] == 0.0).all()


def test_parts_of_which_nothing_is_seen_and_values_that_are_next_to_impossible():
    vae, (x, _) = linear_vae(), data(12)
    vae.compile(run_eagerly=True)
    x[:, 1] = np.nan
    x[:4] = np.nan
    # Of the first batch nothing is seen.
    vae.fit(tf.data.Dataset.from_tensor_slices(x).batch(4), verbose=0)
    far = np.array([[1e25, np.nan, np.nan]], "float32")
    assert np.isfinite(vae.impute(far, 20)).all()
    assert np.isfinite(vae.impute(far, 20, num_draws=2)).all()
