"""Programs of tfp.layers' documentation, written for Keras 3: each must find what its data were made from.

The numbers come from outside: the generating process, scikit-learn's estimate on the same data, or an exact evidence.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor

from tfp_vae import layers as tfpl

tfd, tfb = tfp.distributions, tfp.bijectors
COEFFICIENTS = np.array([[1.618, 0.0], [-2.7183, 3.1416]])


def fit(model, x, y, *, steps=400, learning_rate=0.1, batch_size=500):
    """Train with a falling step size; many steps at once, so that the test is quick."""
    data = tf.data.Dataset.from_tensor_slices((x.astype("float32"), y.astype("float32")))
    data = data.shuffle(len(x), seed=0).repeat().batch(batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    model.compile(
        keras.optimizers.Adam(schedule),
        loss=lambda y, rv: -rv.log_prob(y),
        steps_per_execution=steps // 4,
    )
    model.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0)
    return model


def mean_log_prob(model, x, y):
    return float(np.mean(model(x.astype("float32")).log_prob(y.astype("float32"))))


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.mark.slow
def test_linear_regression(random):
    """MultivariateNormalTriL: coefficients, and a likelihood that only the covariance of the noise gives."""
    x = random.normal(size=(1000, 2))
    y = x @ COEFFICIENTS + random.normal(size=(1000, 2)) @ np.array([[0.5, 0.3], [0.0, 0.2]])
    dense = keras.layers.Dense(
        tfpl.MultivariateNormalTriL.params_size(2), kernel_initializer="zeros"
    )
    model = fit(
        keras.Sequential([dense, tfpl.MultivariateNormalTriL(2)]), x, y, steps=1000, batch_size=1000
    )
    estimate = LinearRegression().fit(x, y)
    np.testing.assert_allclose(model.get_weights()[0][:, :2], estimate.coef_.T, atol=0.02)
    covariance = np.cov((y - estimate.predict(x)).T)
    best = -0.5 * np.linalg.slogdet(2.0 * np.pi * np.e * covariance)[1]
    assert mean_log_prob(model, x, y) == pytest.approx(best, abs=0.03)


@pytest.fixture
def two_classes(random):
    x = random.normal(size=(10_000, 2))
    logit = 0.3142 + x @ [1.618, -2.7183]
    return x, np.eye(2)[random.binomial(1, 1.0 / (1.0 + np.exp(-logit)))]


def test_logistic_regression(two_classes):
    """OneHotCategorical: one logit is 0, the other one linear."""
    x, y = two_classes
    pad = keras.layers.Lambda(lambda t: keras.ops.pad(t, [[0, 0], [1, 0]]))
    dense = keras.layers.Dense(tfpl.OneHotCategorical.params_size(2) - 1)
    model = fit(keras.Sequential([dense, pad, tfpl.OneHotCategorical(2)]), x, y)
    estimate = LogisticRegression(C=1e6).fit(x, y.argmax(1))
    np.testing.assert_allclose(model.get_weights()[0].T, estimate.coef_, rtol=0.05)
    np.testing.assert_allclose(model.get_weights()[1], estimate.intercept_, atol=0.05)


def test_mixture_of_logistic_regressions(two_classes):
    """CategoricalMixtureOfOneHotCategorical: as likely as the best logistic regression, which it contains."""
    x, y = two_classes
    layer = tfpl.CategoricalMixtureOfOneHotCategorical(2, 2)
    dense = keras.layers.Dense(tfpl.CategoricalMixtureOfOneHotCategorical.params_size(2, 2))
    model = fit(keras.Sequential([dense, layer]), x, y)
    best = LogisticRegression(C=1e6).fit(x, y.argmax(1)).predict_log_proba(x)
    assert mean_log_prob(model, x, y) == pytest.approx((y * best).sum(1).mean(), abs=0.005)


def test_logistic_regressions_side_by_side(random):
    """IndependentBernoulli: two outputs of event shape (1, 2, 1), the coefficients of both."""
    x = random.normal(size=(10_000, 2))
    y = random.binomial(1, 1.0 / (1.0 + np.exp(-x @ COEFFICIENTS)))
    shape = (1, 2, 1)
    layers = [
        keras.layers.Dense(tfpl.IndependentBernoulli.params_size(shape)),
        tfpl.IndependentBernoulli(shape),
    ]
    model = fit(keras.Sequential(layers), x, y.reshape(-1, *shape))
    for column in range(2):
        estimate = LogisticRegression(C=1e6).fit(x, y[:, column])
        np.testing.assert_allclose(
            model.get_weights()[0][:, column], estimate.coef_[0], rtol=0.05, atol=0.05
        )


@pytest.mark.slow
def test_poisson_regression(random):
    x, coefficients = random.uniform(0.0, 1.0, size=(2000, 4)), np.array([3.14, 2.72, -1.62, 0.577])
    y = random.poisson(np.exp(x @ coefficients - 0.141))[:, np.newaxis]
    model = keras.Sequential(
        [keras.layers.Dense(tfpl.IndependentPoisson.params_size(1)), tfpl.IndependentPoisson(1)]
    )
    fit(model, x, y, steps=800, batch_size=2000)
    estimate = PoissonRegressor(alpha=0.0, max_iter=1000, tol=1e-8).fit(x, y[:, 0])
    np.testing.assert_allclose(model.get_weights()[0][:, 0], estimate.coef_, atol=0.02)
    np.testing.assert_allclose(estimate.coef_, coefficients, atol=0.1)


CARDIOID = {
    "MixtureSameFamily": (tfpl.MixtureSameFamily(5, tfpl.IndependentNormal([1])), 15),
    "MixtureNormal": (tfpl.MixtureNormal(5, [1]), tfpl.MixtureNormal.params_size(5, [1])),
    "MixtureLogistic": (tfpl.MixtureLogistic(5, [1]), tfpl.MixtureLogistic.params_size(5, [1])),
}


def cardioid(random):
    angle = random.uniform(-np.pi, np.pi, size=2000)
    radius = 2.0 * (1.0 - np.cos(angle))
    x, y = radius * np.sin(angle), radius * np.cos(angle)
    return (np.stack([x, y]) + 0.1 * random.normal(size=(2, 2000)))[..., np.newaxis]


def exact_cardioid_log_prob(x, y):
    """log p(y|x) = log p(x, y) - log p(x), the angle summed out on a fine grid."""
    angle = np.linspace(-np.pi, np.pi, 4000, endpoint=False)
    radius = 2.0 * (1.0 - np.cos(angle))
    log_x = tfd.Normal(radius * np.sin(angle), np.float64(0.1)).log_prob(x)
    log_y = tfd.Normal(radius * np.cos(angle), np.float64(0.1)).log_prob(y)
    return tf.reduce_logsumexp(log_x + log_y, -1) - tf.reduce_logsumexp(log_x, -1)


@pytest.mark.slow
@pytest.mark.parametrize("name", CARDIOID)
@pytest.mark.rows(0, 1)
def test_mixture_density_networks(name, random):
    layer, params_size = CARDIOID[name]
    x, y = cardioid(random)
    hidden = [
        keras.layers.Dense(64, "tanh"),
        keras.layers.Dense(64, "tanh"),
        keras.layers.Dense(params_size),
    ]
    model = fit(keras.Sequential([*hidden, layer]), x, y, steps=2000, learning_rate=0.01)
    x_test, y_test = cardioid(np.random.default_rng(1))
    best = float(np.mean(exact_cardioid_log_prob(x_test, y_test)))
    one_normal = float(np.mean(tfd.Normal(y.mean(), y.std()).log_prob(y_test)))
    assert one_normal + 1.0 < best - 0.15 < mean_log_prob(model, x_test, y_test) < best + 0.01


ENCODERS = {
    "IndependentNormal": tfpl.IndependentNormal,
    "IndependentLogistic": tfpl.IndependentLogistic,
}
DIVERGENCES = {
    "KLDivergenceRegularizer, exact": (tfpl.KLDivergenceRegularizer, True),
    "KLDivergenceRegularizer, Monte Carlo": (tfpl.KLDivergenceRegularizer, False),
    "KLDivergenceAddLoss, exact": (tfpl.KLDivergenceAddLoss, True),
    "KLDivergenceAddLoss, Monte Carlo": (tfpl.KLDivergenceAddLoss, False),
}


@pytest.mark.slow
@pytest.mark.parametrize(("divergence", "use_exact_kl"), DIVERGENCES.values(), ids=DIVERGENCES)
@pytest.mark.rows(0, 1)
def test_variational_inference_finds_the_exact_posterior(divergence, use_exact_kl, random):
    """Known model z ~ N(0, 1), x|z ~ N(2 z, 0.5): then -ELBO at the optimum is -log p(x), and q(z|x) is p(z|x)."""
    x = 2.0 * random.normal(size=(2000, 1)) + 0.5 * random.normal(size=(2000, 1))
    kl = divergence(tfd.Independent(tfd.Normal([0.0], 1.0), 1), use_exact_kl=use_exact_kl)
    is_layer = divergence is tfpl.KLDivergenceAddLoss
    posterior = tfpl.IndependentNormal(1, activity_regularizer=None if is_layer else kl)
    encoder = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(2), posterior, *([kl] if is_layer else [])]
    )
    likelihood = tfpl.DistributionLambda(lambda z: tfd.Independent(tfd.Normal(2.0 * z, 0.5), 1))
    vae = keras.Model(encoder.inputs, likelihood(encoder.outputs[0]))
    fit(vae, x, x, steps=400, learning_rate=0.1, batch_size=2000)
    exact = tfd.Normal(0.0, np.sqrt(4.25)).log_prob(x.astype("float32"))
    negative_elbo = np.mean([vae.evaluate(x, x, batch_size=2000, verbose=0) for _ in range(10)])
    assert negative_elbo == pytest.approx(-np.mean(exact), abs=0.02)
    q = encoder(np.array([[-1.0], [2.0]]))
    np.testing.assert_allclose(q.mean(), np.array([[-1.0], [2.0]]) * 2.0 / 4.25, atol=0.02)
    np.testing.assert_allclose(q.stddev(), np.full([2, 1], np.sqrt(0.25 / 4.25)), rtol=0.05)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.rows(1)
def test_stochastic_encoders(name, digits):
    """An encoder for an autoencoder: drawn, decoded, it must beat the best constant."""
    layer, x = ENCODERS[name], digits.train / 16.0
    encoder = [
        keras.layers.Flatten(),
        keras.layers.Dense(32, "relu"),
        keras.layers.Dense(layer.params_size(4)),
    ]
    decoder = [
        keras.layers.Dense(32, "relu"),
        keras.layers.Dense(2 * 64),
        tfpl.IndependentNormal((8, 8, 1)),
    ]
    model = keras.Sequential([keras.Input((8, 8, 1)), *encoder, layer(4), *decoder])
    assert isinstance(
        model.layers[3](np.zeros([2, layer.params_size(4)], "float32")), tfd.Distribution
    )
    fit(model, x, x, steps=400, learning_rate=0.01)
    assert np.mean((model(x.astype("float32")).mean() - x) ** 2) < 0.7 * np.mean(
        (x - x.mean(0)) ** 2
    )


def test_trainable_distribution(random):
    """VariableLayer: a distribution without input finds mean and standard deviation of the data."""
    data = random.normal([1.0, -2.0], [0.5, 3.0], size=(500, 2))
    initializer = tfpl.BlockwiseInitializer(
        ["zeros", keras.initializers.Constant(np.log(np.expm1(1.0)))], sizes=[2, 2]
    )
    model = keras.Sequential(
        [tfpl.VariableLayer(4, initializer=initializer), tfpl.IndependentNormal(2)]
    )
    np.testing.assert_allclose(model(None).stddev(), [1.0, 1.0], rtol=1e-4)
    fit(model, np.zeros([500, 1]), data, batch_size=500)
    np.testing.assert_allclose(model(None).mean(), data.mean(0), atol=0.01)
    np.testing.assert_allclose(model(None).stddev(), data.std(0), rtol=0.01)


@pytest.mark.slow
def test_density_estimation_with_a_flow(random):
    """AutoregressiveTransform: x2 ~ N(0, 2), x1 ~ N(x2**2 / 4, 1), of known entropy."""

    def draw(random):
        x2 = 2.0 * random.normal(size=4000)
        return np.stack([random.normal(size=4000) + x2**2 / 4.0, x2], -1)

    def standard_normal(empty):
        return tfd.MultivariateNormalDiag(tf.zeros([tf.shape(empty)[0], 2]))

    made = tfpl.AutoregressiveNetwork(
        params=2, hidden_units=[32], activation="relu", input_order="right-to-left"
    )
    layers = [tfpl.DistributionLambda(standard_normal), tfpl.AutoregressiveTransform(made)]
    model = keras.Sequential([keras.Input((0,)), *layers])
    fit(model, np.zeros([4000, 0]), draw(random), steps=1500, learning_rate=0.01)
    data = draw(np.random.default_rng(1)).astype("float32")
    log_prob = float(np.mean(model(np.zeros([1, 0])).log_prob(data)))
    exact = float(
        np.mean(
            tfd.Normal(0.0, 2.0).log_prob(data[:, 1])
            + tfd.Normal(data[:, 1] ** 2 / 4, 1.0).log_prob(data[:, 0])
        )
    )
    normal = tfd.MultivariateNormalFullCovariance(data.mean(0), np.cov(data.T).astype("float32"))
    assert float(np.mean(normal.log_prob(data))) + 0.2 < exact - 0.05 < log_prob < exact + 0.005
    assert np.isfinite(model(np.zeros([4, 0])).sample(seed=0)).all()
