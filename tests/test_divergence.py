"""KL divergence in the loss: as a regularizer and as a layer, counted once, whatever the batch size."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_vae
from tfp_vae import layers as tfpl
from tfp_vae import priors, sampling

tfd, tfb = tfp.distributions, tfp.bijectors

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(6, 3)).astype("float32")
PARAMS = RANDOM.normal(size=(6, 4)).astype("float32")
PRIOR = tfd.MultivariateNormalDiag([0.5, -0.5], [1.5, 0.5])
by = pytest.mark.parametrize("how", ["regularizer", "layer"])


def closed_form(params=PARAMS):
    """KL of diagonal normal distributions to `PRIOR`, in float64, `[batch]`."""
    loc, scale = params[..., :2].astype("float64"), np.logaddexp(0.0, params[..., 2:].astype("float64")) + 1e-5
    ratio, distance = scale / [1.5, 0.5], (loc - [0.5, -0.5]) / [1.5, 0.5]
    return 0.5 * np.sum(ratio**2 + distance**2 - 1.0 - np.log(ratio**2), axis=-1)


def posterior(how, *args, convert="mean", **kwargs):
    """A distribution layer with its divergence, as a list of layers."""
    if how == "regularizer":
        regularizer = tfpl.KLDivergenceRegularizer(*args, **kwargs)
        return [tfpl.MultivariateNormalDiag(2, convert, activity_regularizer=regularizer, name="q")]
    return [tfpl.MultivariateNormalDiag(2, convert, name="q"), tfpl.KLDivergenceAddLoss(*args, **kwargs, name="kl")]


def divergence(model, how):
    return model.get_layer("q").activity_regularizer if how == "regularizer" else model.get_layer("kl").divergence


def loss_of(layers, params=PARAMS, **kwargs):
    """What Keras adds to the loss of a model of these layers."""
    model = keras.Sequential([keras.Input(params.shape[1:]), *layers])
    model(params, **kwargs)
    (loss,) = model.losses
    return loss


@keras.saving.register_keras_serializable(package="test_divergence")
def twenty_draws(q):
    return q.sample(20, seed=[1, 2])


@keras.saving.register_keras_serializable(package="test_divergence")
def as_normal(t):
    return tfd.MultivariateNormalDiag(t[:2], tf.nn.softplus(t[2:]))


@keras.saving.register_keras_serializable(package="test_divergence")
def prior_fn():
    return PRIOR


def prior_model(*first):
    initializer = keras.initializers.Constant(0.3)
    return keras.Sequential(
        [*first, tfpl.VariableLayer(4, initializer=initializer), tfpl.DistributionLambda(as_normal)]
    )


@keras.saving.register_keras_serializable(package="test_divergence")
class TrainedMean(priors.Prior):
    def __init__(self, event_size, **kwargs):
        super().__init__(event_size, **kwargs)
        self.loc = self.add_weight(shape=(event_size,), initializer="ones", name="loc")

    def call(self, inputs=None):
        return tfd.MultivariateNormalDiag(self.loc, tf.ones([self.event_size]))


# The value


@by
@pytest.mark.parametrize("weight", [None, 0.25, tf.Variable(0.25), keras.Variable(0.25)], ids=["1", "0", "tf", "keras"])
def test_exact_divergence_is_the_mean_of_the_closed_form(how, weight):
    factor = 1.0 if weight is None else 0.25
    loss = loss_of(posterior(how, PRIOR, use_exact_kl=True, weight=weight))
    np.testing.assert_allclose(loss, factor * closed_form().mean(), rtol=1e-5)


@by
@pytest.mark.parametrize("axis", [(), None, 0], ids=str)
@pytest.mark.parametrize("draws_from", ["conversion", "test_points_fn"])
def test_monte_carlo_divergence_within_its_standard_error(how, axis, draws_from):
    def draws(q):
        return q.sample(4000, seed=[1, 2])

    arguments = {"convert": draws} if draws_from == "conversion" else {"test_points_fn": draws}
    loss = loss_of(posterior(how, PRIOR, test_points_reduce_axis=axis, **arguments))
    q = tfpl.MultivariateNormalDiag.new(PARAMS, 2)
    z = q.sample(4000, seed=[3, 4])
    error = np.std(np.mean(q.log_prob(z) - PRIOR.log_prob(z), axis=1)) / 4000**0.5
    assert 0.0 < abs(loss - closed_form().mean()) < 4.0 * error < 0.3


@by
@pytest.mark.parametrize("exact", [True, False])
def test_further_batch_axes_are_summed(how, exact):
    """As with one variable of the latent code a row: KL adds over the variables, the mean is over examples."""
    params = RANDOM.normal(size=(5, 3, 4)).astype("float32")
    expected = closed_form(params).sum(1).mean()
    if exact:
        np.testing.assert_allclose(loss_of(posterior(how, PRIOR, True), params), expected, rtol=1e-5)
    else:
        loss = loss_of(posterior(how, PRIOR, convert=lambda q: q.sample(4000, seed=[1, 2])), params)
        np.testing.assert_allclose(loss, expected, rtol=0.02)


@by
def test_distribution_without_batch(how):
    initializer = keras.initializers.Constant(PARAMS[0])
    model = keras.Sequential([tfpl.VariableLayer(4, initializer=initializer), *posterior(how, PRIOR, True)])
    model(None)
    np.testing.assert_allclose(model.losses, closed_form()[:1], rtol=1e-5)


def test_regularizer_called_directly_gives_the_sum_over_the_batch():
    regularizer, q = tfpl.KLDivergenceRegularizer(PRIOR, True), tfpl.MultivariateNormalDiag.new(PARAMS, 2)
    np.testing.assert_allclose(regularizer(q), closed_form().sum(), rtol=1e-5)
    assert isinstance(regularizer, keras.regularizers.Regularizer)


@by
def test_scalar_distribution_is_not_divided(how):
    arguments = {"distribution_b": tfd.Normal(0.0, 1.0), "use_exact_kl": True}
    regularizer = tfpl.KLDivergenceRegularizer(**arguments) if how == "regularizer" else None
    layer = tfpl.DistributionLambda(lambda t: tfd.Normal(t, 1.0), activity_regularizer=regularizer)
    layers = [layer] if regularizer else [layer, tfpl.KLDivergenceAddLoss(**arguments)]
    model = keras.Sequential([tfpl.VariableLayer((), initializer="ones"), *layers])
    model(None)
    np.testing.assert_allclose(model.losses, [0.5], rtol=1e-6)


@by
def test_empty_batch_adds_nothing(how):
    assert loss_of(posterior(how, PRIOR, use_exact_kl=True), PARAMS[:0]).numpy() == 0.0


# In the loss of a model: once, and whatever the batch size


def autoencoder(how, convert="mean", **kwargs):
    encoder = [keras.Input((3,)), keras.layers.Dense(4), *posterior(how, PRIOR, convert=convert, **kwargs)]
    decoder = [keras.Input((2,)), keras.layers.Dense(6), tfpl.IndependentNormal(3, "mean")]
    encoder, decoder = keras.Sequential(encoder), keras.Sequential(decoder)
    return keras.Model(encoder.inputs[0], decoder(encoder.outputs[0]))


@keras.saving.register_keras_serializable(package="test_divergence")
def negative_log_likelihood(x, p):
    return -p.log_prob(x)


def compiled(model, **kwargs):
    model.compile("sgd", loss=negative_log_likelihood, **kwargs)
    return model


def loss_and_gradient(model, x):
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, x, model(x))
    return loss, tape.gradient(loss, model.trainable_weights)


@by
@pytest.mark.parametrize("exact", [True, False])
def test_duplicating_the_batch_changes_neither_loss_nor_gradient(how, exact):
    model = compiled(autoencoder(how, use_exact_kl=exact))
    once, twice = loss_and_gradient(model, X), loss_and_gradient(model, np.repeat(X, 2, axis=0))
    np.testing.assert_allclose(once[0], twice[0], rtol=1e-6)
    for gradient, same in zip(once[1], twice[1], strict=True):
        np.testing.assert_allclose(gradient, same, rtol=1e-4, atol=1e-6)
    kl = loss_of(posterior(how, PRIOR, exact), model.layers[1](X).numpy())
    likelihood = -np.mean(model(X).log_prob(X))
    np.testing.assert_allclose(once[0], likelihood + kl, rtol=1e-6)
    np.testing.assert_allclose(model.evaluate(X, X, batch_size=3, verbose=0), once[0], rtol=1e-5)


@keras.saving.register_keras_serializable(package="test_divergence")
class FixedPrior(priors.Prior):
    def call(self, inputs=None):
        return PRIOR


@by
def test_same_as_vae(how):
    """-ELBO, its gradient and a step of training equal those of `VAE` with the same weights and the same draws."""
    training, evaluation = tf.random.fold_in([1, 0], 0), tf.constant([0, 0])
    draw = {"seed": evaluation}
    model = compiled(
        autoencoder(how, lambda q: sampling.sample(q, [], draw["seed"]), use_exact_kl=True), jit_compile=False
    )
    encoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2)])
    decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(6), tfpl.IndependentNormal(3)])
    vae = tfp_vae.VAE(encoder, decoder, prior=FixedPrior(2))
    vae.compile("sgd", jit_compile=False)
    vae.build((None, 3))
    vae.set_weights(model.get_weights())
    np.testing.assert_allclose(model.evaluate(X, X, verbose=0), vae.evaluate(X, verbose=0)[0], rtol=1e-6)
    with tf.GradientTape() as tape:
        loss = vae.compute_loss(X, None, vae(X), training=False)
    ours = loss_and_gradient(model, X)
    np.testing.assert_allclose(ours[0], loss, rtol=1e-6)
    for gradient, same in zip(ours[1], tape.gradient(loss, vae.trainable_weights), strict=True):
        np.testing.assert_allclose(gradient, same, rtol=1e-4, atol=1e-6)
    draw["seed"] = training
    histories = model.fit(X, X, verbose=0), vae.fit(X, verbose=0)
    np.testing.assert_allclose(*[history.history["loss"] for history in histories], rtol=1e-6)
    for weight, same in zip(model.get_weights(), vae.get_weights(), strict=True):
        np.testing.assert_allclose(weight, same, rtol=1e-4, atol=1e-6)


@by
def test_gradient_of_the_divergence_against_finite_differences(how):
    keras.config.set_dtype_policy("float64")
    params = tf.Variable(PARAMS, dtype="float64")
    model = keras.Sequential([keras.Input((4,)), *posterior(how, prior_fn_of_float64, use_exact_kl=True)])
    with tf.GradientTape() as tape:
        model(params)
        (loss,) = model.losses
    gradient, step = tape.gradient(loss, params), np.zeros((6, 4))
    for index in [(0, 0), (2, 1), (3, 2), (5, 3)]:
        step[:] = 0.0
        step[index] = 1e-6
        difference = closed_form(params.numpy() + step) - closed_form(params.numpy() - step)
        np.testing.assert_allclose(gradient[index], difference.mean() / 2e-6, rtol=1e-6)


def prior_fn_of_float64():
    return tfd.MultivariateNormalDiag(np.float64([0.5, -0.5]), np.float64([1.5, 0.5]))


# Trained priors

PRIORS = {
    "model": prior_model,
    "model with input": lambda: prior_model(keras.Input((1,))),
    "model with empty input": lambda: prior_model(keras.Input((0,))),
    "layer": lambda: TrainedMean(2),
}


@by
@pytest.mark.parametrize("make_prior", PRIORS.values(), ids=PRIORS)
def test_trained_priors_are_tracked_trained_and_saved(how, make_prior, tmp_path):
    prior = make_prior()
    model = compiled(keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), *posterior(how, prior, True)]))
    (variable,) = prior.trainable_weights
    assert [weight is variable for weight in model.trainable_weights].count(True) == 1
    assert len(model.weights) == 3
    before = variable.numpy()
    model.fit(PARAMS, PARAMS[:, :2], verbose=0)
    assert (np.abs(variable.numpy() - before) > 0.0).any()
    expected = model.evaluate(PARAMS, PARAMS[:, :2], verbose=0)
    model.save(tmp_path / "model.keras")
    reloaded = compiled(keras.models.load_model(tmp_path / "model.keras", compile=False))
    assert len(reloaded.trainable_weights) == 3
    np.testing.assert_array_equal(divergence(reloaded, how).trainable_weights[0], variable)
    np.testing.assert_allclose(reloaded.evaluate(PARAMS, PARAMS[:, :2], verbose=0), expected, rtol=1e-6)


def test_one_prior_for_two_layers(tmp_path):
    prior = prior_model()
    x = keras.Input((4,))
    outputs = [layer(x) for how in ("regularizer", "regularizer") for layer in posterior2(prior)]
    model = keras.Model(x, outputs)
    assert len(model.weights) == 1
    prior.trainable_weights[0].assign(PARAMS[0])
    model(PARAMS)
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    reloaded(PARAMS)
    np.testing.assert_allclose(reloaded.losses, model.losses, rtol=1e-6)
    assert len(reloaded.weights) == 1


@keras.saving.register_keras_serializable(package="test_divergence")
def nothing(y, q):
    return 0.0 * tf.reduce_sum(q, -1)


def posterior2(prior):
    regularizer = tfpl.KLDivergenceRegularizer(prior, True)
    return [tfpl.MultivariateNormalDiag(2, "mean", activity_regularizer=regularizer)]


# Weights


@by
def test_schedule_counts_the_steps_of_training(how, tmp_path):
    schedule = keras.optimizers.schedules.PolynomialDecay(0.0, decay_steps=4, end_learning_rate=1.0)
    model = keras.Sequential([keras.Input((4,)), *posterior(how, PRIOR, True, weight=schedule)])
    model.compile(loss=nothing, optimizer="sgd", jit_compile=False)

    def losses(model):
        return np.float64([model.evaluate(PARAMS, X, verbose=0) for _ in range(2)]) / closed_form().mean()

    np.testing.assert_allclose(losses(model), [0.0, 0.0])
    with pytest.warns(UserWarning, match="does not have any trainable weights"):
        model.fit(PARAMS, X, batch_size=3, verbose=0)
    assert divergence(model, how).weighting.step.numpy() == 2
    np.testing.assert_allclose(losses(model), [0.5, 0.5], rtol=1e-5)
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    reloaded.compile(loss=nothing, optimizer="sgd", jit_compile=False)
    np.testing.assert_allclose(losses(reloaded), [0.5, 0.5], rtol=1e-5)
