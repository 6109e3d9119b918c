"""KL divergence in the loss: as a regularizer and as a layer, counted once, whatever the batch size."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_vae
from tfp_vae import layers as tfpl
from tfp_vae import priors, sampling
from tfp_vae.layers import tfp_objects

tfd, tfb = tfp.distributions, tfp.bijectors

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(6, 3)).astype("float32")
PARAMS = RANDOM.normal(size=(6, 4)).astype("float32")
PRIOR = tfd.MultivariateNormalDiag([0.5, -0.5], [1.5, 0.5])
by = pytest.mark.parametrize("how", ["regularizer", "layer"])


def closed_form(params=PARAMS):
    """KL of diagonal normal distributions to `PRIOR`, in float64, `[batch]`."""
    loc, scale = (
        params[..., :2].astype("float64"),
        np.logaddexp(0.0, params[..., 2:].astype("float64")) + 1e-5,
    )
    ratio, distance = scale / [1.5, 0.5], (loc - [0.5, -0.5]) / [1.5, 0.5]
    return 0.5 * np.sum(ratio**2 + distance**2 - 1.0 - np.log(ratio**2), axis=-1)


def posterior(how, *args, convert="mean", **kwargs):
    """A distribution layer with its divergence, as a list of layers."""
    if how == "regularizer":
        regularizer = tfpl.KLDivergenceRegularizer(*args, **kwargs)
        return [tfpl.MultivariateNormalDiag(2, convert, activity_regularizer=regularizer, name="q")]
    return [
        tfpl.MultivariateNormalDiag(2, convert, name="q"),
        tfpl.KLDivergenceAddLoss(*args, **kwargs, name="kl"),
    ]


def divergence(model, how):
    return (
        model.get_layer("q").activity_regularizer
        if how == "regularizer"
        else model.get_layer("kl").divergence
    )


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
def seeded(q):
    return q.sample(seed=[1, 2])


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
class TrainedMean(priors.StandardNormal):
    def __init__(self, event_size, **kwargs):
        super().__init__(event_size, **kwargs)
        self.loc = self.add_weight(shape=(event_size,), initializer="ones", name="loc")

    def call(self, inputs=None):
        return tfd.MultivariateNormalDiag(self.loc, tf.ones([self.event_size]))


@keras.saving.register_keras_serializable(package="test_divergence")
def nothing(y, q):
    return 0.0 * tf.reduce_sum(q, -1)


# The value


@by
@pytest.mark.parametrize(
    "weight", [None, 0.25, tf.Variable(0.25), keras.Variable(0.25)], ids=["1", "0", "tf", "keras"]
)
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
        np.testing.assert_allclose(
            loss_of(posterior(how, PRIOR, True), params), expected, rtol=1e-5
        )
    else:
        loss = loss_of(posterior(how, PRIOR, convert=lambda q: q.sample(4000, seed=[1, 2])), params)
        np.testing.assert_allclose(loss, expected, rtol=0.02)


@by
def test_distribution_without_batch(how):
    initializer = keras.initializers.Constant(PARAMS[0])
    model = keras.Sequential(
        [tfpl.VariableLayer(4, initializer=initializer), *posterior(how, PRIOR, True)]
    )
    model(None)
    np.testing.assert_allclose(model.losses, closed_form()[:1], rtol=1e-5)


def test_regularizer_called_directly_gives_the_sum_over_the_batch():
    regularizer, q = (
        tfpl.KLDivergenceRegularizer(PRIOR, True),
        tfpl.MultivariateNormalDiag.new(PARAMS, 2),
    )
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


def autoencoder(how, convert="mean", prior=PRIOR, **kwargs):
    encoder = [
        keras.Input((3,)),
        keras.layers.Dense(4),
        *posterior(how, prior, convert=convert, **kwargs),
    ]
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
class FixedPrior(priors.StandardNormal):
    def call(self, inputs=None):
        return PRIOR


@by
@pytest.mark.rows(1)
def test_same_as_vae(how):
    """-ELBO, its gradient and a step of training equal those of `VAE` with the same weights and the same draws."""
    training, evaluation = tf.random.fold_in([1, 0], 0), tf.constant([0, 0])
    draw = {"seed": evaluation}
    model = compiled(
        autoencoder(how, lambda q: sampling.sample(q, [], draw["seed"]), use_exact_kl=True),
        jit_compile=False,
    )
    encoder = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2)]
    )
    decoder = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(6), tfpl.IndependentNormal(3)]
    )
    vae = tfp_vae.VAE(encoder, decoder, prior=FixedPrior(2))
    vae.compile("sgd", jit_compile=False)
    vae.build((None, 3))
    vae.set_weights(model.get_weights())
    np.testing.assert_allclose(
        model.evaluate(X, X, verbose=0), vae.evaluate(X, verbose=0)[0], rtol=1e-6
    )
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
    model = keras.Sequential(
        [keras.Input((4,)), *posterior(how, prior_fn_of_float64, use_exact_kl=True)]
    )
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
    "model with empty input": lambda: prior_model(keras.Input((0,))),
    "layer": lambda: TrainedMean(2),
}


@by
@pytest.mark.parametrize("make_prior", PRIORS.values(), ids=PRIORS)
@pytest.mark.rows(2)
def test_trained_priors_are_tracked_trained_and_saved(how, make_prior, tmp_path):
    prior = make_prior()
    model = compiled(
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), *posterior(how, prior, True)])
    )
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
    np.testing.assert_allclose(
        reloaded.evaluate(PARAMS, PARAMS[:, :2], verbose=0), expected, rtol=1e-6
    )


def test_one_prior_of_two_layers_stays_one(tmp_path):
    prior, x = prior_model(), keras.Input((4,))
    regularized = [tfpl.KLDivergenceRegularizer(prior, use_exact_kl=True) for _ in range(2)]
    outputs = [
        tfpl.MultivariateNormalDiag(2, "mean", activity_regularizer=regularizer)(x)
        for regularizer in regularized
    ]
    model = keras.Model(
        x, [*outputs, tfpl.KLDivergenceAddLoss(prior, use_exact_kl=True)(outputs[0])]
    )
    prior.trainable_weights[0].assign(PARAMS[0])
    model(PARAMS)
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    reloaded(PARAMS)
    assert len(model.weights) == len(reloaded.weights) == 1
    assert len(model.losses) == 3
    np.testing.assert_allclose(reloaded.losses, model.losses, rtol=1e-6)


@by
def test_schedule_counts_the_steps_of_training(how, tmp_path):
    """It is read at 0, 1, ... in training, and in evaluation where training left it; the count is saved."""
    schedule = keras.optimizers.schedules.PolynomialDecay(0.0, decay_steps=4, end_learning_rate=1.0)
    model = keras.Sequential([keras.Input((4,)), *posterior(how, PRIOR, True, weight=schedule)])

    def weight_in_evaluation(model):
        model.compile("sgd", loss=nothing)
        losses = [model.evaluate(PARAMS, X, verbose=0) for _ in range(2)]
        assert losses[0] == losses[1]
        return losses[0] / closed_form().mean()

    assert weight_in_evaluation(model) == 0.0
    with pytest.warns(UserWarning, match="does not have any trainable weights"):
        (loss,) = model.fit(PARAMS, X, batch_size=2, shuffle=False, verbose=0).history["loss"]
    of_batches = closed_form().reshape(3, 2).mean(1)
    np.testing.assert_allclose(loss, np.mean([0.0, 0.25, 0.5] * of_batches), rtol=1e-5)
    np.testing.assert_allclose(weight_in_evaluation(model), 0.75, rtol=1e-5)
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_allclose(weight_in_evaluation(reloaded), 0.75, rtol=1e-5)


@by
@pytest.mark.parametrize("variable", [tf.Variable, keras.Variable])
@pytest.mark.rows(2)
def test_variable_weight_is_read_in_every_step_and_never_trained(how, variable, tmp_path):
    weight = variable(0.5)
    model = keras.Sequential([keras.Input((4,)), *posterior(how, PRIOR, True, weight=weight)])

    def loss(model):
        return model.evaluate(PARAMS, X, verbose=0) / closed_form().mean()

    model.compile("sgd", loss=nothing)
    assert model.weights == []
    np.testing.assert_allclose(loss(model), 0.5, rtol=1e-5)
    weight.assign(0.25)
    np.testing.assert_allclose(loss(model), 0.25, rtol=1e-5)
    model.export(str(tmp_path / "exported"), verbose=False)
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loss(reloaded), 0.25, rtol=1e-5)
    divergence(reloaded, how).weight.assign(2.0)
    np.testing.assert_allclose(loss(reloaded), 2.0, rtol=1e-5)


# Saving and export

SAVED = {
    "normal": PRIOR,
    "independent": tfd.Independent(
        tfd.Normal(loc=tf.zeros(2), scale=[1.0, 2.0]), reinterpreted_batch_ndims=1
    ),
    "sample": tfd.Sample(tfd.StudentT(df=3.0, loc=0.5, scale=2.0), sample_shape=2),
    "full": tfd.MultivariateNormalTriL(scale_tril=[[1.0, 0.0], [0.5, 2.0]]),
    "variable": tfd.MultivariateNormalDiag(tf.Variable([0.5, -0.5], trainable=False)),
    "mixture": tfd.MixtureSameFamily(
        tfd.Categorical(probs=[0.3, 0.7], dtype=tf.int64),
        tfd.MultivariateNormalDiag(np.float32([[0.0, 1.0], [2.0, 3.0]]), [1.0, 2.0]),
    ),
    "transformed": tfd.TransformedDistribution(
        tfd.MultivariateNormalDiag(tf.zeros(2)),
        tfb.Chain([tfb.Shift([0.5, -0.5]), tfb.Scale([1.5, 0.5])]),
    ),
    "not composite": tfd.TransformedDistribution(
        tfd.MultivariateNormalDiag(tf.zeros(2)), tfb.Blockwise([tfb.Identity(), tfb.Shift(1.0)])
    ),
    "function": prior_fn,
    "layer": priors.StandardNormal(2),
    "model": prior_model(keras.Input((1,))),
}


@by
@pytest.mark.parametrize("prior", SAVED.values(), ids=SAVED)
def test_config_holds_the_prior(how, prior):
    *first, last = posterior(
        how, prior, test_points_fn=twenty_draws, test_points_reduce_axis=0, weight=0.5
    )
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(last)))
    rebuilt = keras.saving.deserialize_keras_object(config)
    np.testing.assert_array_equal(loss_of([*first, rebuilt]), loss_of([*first, last]))


@keras.saving.register_keras_serializable(package="test_divergence")
def mean_posterior(kernel_size, bias_size, dtype):
    size = kernel_size + bias_size
    return keras.Sequential(
        [tfpl.VariableLayer(2 * size, initializer="normal"), tfpl.IndependentNormal(size, "mean")]
    )


@pytest.mark.slow
def test_layers_reload_in_a_new_process(tmp_path):
    """All layers that own weights or functions, in one model: same outputs, same losses."""
    made = tfpl.AutoregressiveNetwork(
        2, hidden_units=[8], input_order="random", hidden_degrees="random"
    )
    model = keras.Sequential(
        [
            keras.Input((4,)),
            tfpl.DenseVariational(4, mean_posterior, kl_weight=0.1, kl_use_exact=True),
            *posterior("regularizer", prior_model(), use_exact_kl=True),
            tfpl.AutoregressiveTransform(made, seeded),
            tfpl.KLDivergenceAddLoss(
                SAVED["mixture"], weight=keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.5)
            ),
        ]
    )
    model.compile("sgd", loss="mse")
    model.fit(PARAMS, PARAMS[:, :2], verbose=0)
    expected = [model.evaluate(PARAMS, PARAMS[:, :2], verbose=0), *model(PARAMS).numpy().ravel()]
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", PARAMS)
    code = (
        "import sys, keras, numpy as np, tests.test_divergence\n"
        "model, x = keras.models.load_model(sys.argv[1] + '/model.keras'), np.load(sys.argv[1] + '/x.npy')\n"
        "print(model.evaluate(x, x[:, :2], verbose=0), *model(x).numpy().ravel())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    np.testing.assert_allclose(np.float64(result.stdout.split()), expected, rtol=1e-5)


@by
def test_export(how, tmp_path):
    model = keras.Sequential([keras.Input((4,)), *posterior(how, prior_model(), weight=0.5)])
    model.export(str(tmp_path), verbose=False)
    served = tf.saved_model.load(str(tmp_path))
    np.testing.assert_allclose(served.serve(PARAMS[:5]), model(PARAMS[:5]), rtol=1e-6)


# As a layer among layers


@by
def test_next_layer_receives_the_distribution(how):
    flow = tfpl.DistributionLambda(
        lambda q: tfd.MultivariateNormalDiag(q.mean() + 1.0, 2.0 * q.stddev()), "mean"
    )
    model = keras.Sequential([keras.Input((4,)), *posterior(how, PRIOR, True), flow])
    assert model.output_shape == (None, 2)
    q = tfpl.MultivariateNormalDiag.new(PARAMS, 2)
    np.testing.assert_allclose(model(PARAMS).mean(), q.mean() + 1.0, rtol=1e-6)
    np.testing.assert_allclose(model(PARAMS).stddev(), 2.0 * q.stddev(), rtol=1e-6)
    np.testing.assert_allclose(model.losses, [closed_form().mean()], rtol=1e-5)


def test_layer_hands_on_what_it_received():
    q = tfpl.MultivariateNormalDiag(2)(PARAMS)
    assert tfpl.KLDivergenceAddLoss(PRIOR)(q) is q


@by
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_divergence_is_float32_under_mixed_precision(how, policy):
    keras.config.set_dtype_policy(policy)
    loss = loss_of(posterior(how, prior_model(), True), 100.0 * PARAMS)
    keras.config.set_dtype_policy("float32")
    assert loss.dtype == tf.float32
    np.testing.assert_allclose(
        loss, loss_of(posterior(how, prior_model(), True), 100.0 * PARAMS), rtol=1e-6
    )


def test_xla_changes_nothing():
    losses = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(1)
        schedule = keras.optimizers.schedules.PolynomialDecay(
            0.5, decay_steps=4, end_learning_rate=1.0
        )
        model = autoencoder("regularizer", prior=prior_model(), use_exact_kl=True, weight=schedule)
        history = compiled(model, jit_compile=jit_compile).fit(
            X, X, batch_size=2, epochs=2, shuffle=False, verbose=0
        )
        losses.append(history.history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.slow
def test_mirrored_strategy_equals_one_device():
    code = (
        "import contextlib, keras, numpy as np, tensorflow as tf\n"
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)\n"
        "from tests.test_divergence import X, autoencoder, compiled, prior_model\n"
        "strategy = tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1'])\n"
        "for how in ('regularizer', 'layer'):\n"
        "    results = []\n"
        "    for scope in (contextlib.nullcontext(), strategy.scope()):\n"
        "        keras.utils.set_random_seed(0)\n"
        "        with scope:\n"
        "            schedule = keras.optimizers.schedules.PolynomialDecay(0.5, 4, 1.0)\n"
        "            model = autoencoder(how, prior=prior_model(), use_exact_kl=True, weight=schedule)\n"
        "            compiled(model)\n"
        "        model.compute_loss(X, X, model(X))\n"  # else Keras builds the loss on a tensor without log_prob
        "        history = model.fit(X[:4], X[:4], batch_size=2, epochs=2, shuffle=False, verbose=0).history\n"
        "        results.append([*history['loss'], *[w for v in model.get_weights() for w in np.ravel(v)]])\n"
        "    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-6)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


# What is refused, and says so

CATEGORICAL = tfd.OneHotCategorical(logits=[0.0, 0.0])
TRAINED = tf.Variable([0.0, 0.0])


def hidden():
    return TRAINED + 0.0


ERRORS = {
    "not a distribution": (
        lambda: tfpl.KLDivergenceRegularizer("normal"),
        r"distribution_b .* received 'normal'",
    ),
    "not of distributions": (
        lambda: tfpl.KLDivergenceAddLoss(tfpl.VariableLayer(2)),
        r"Keras layer .* that gives one, received <VariableLayer .* which gives",
    ),
    "tensor": (
        lambda: tfpl.KLDivergenceAddLoss(PRIOR)(tf.zeros([2, 2])),
        r"(?s)Expected a distribution, .*IndependentNormal",
    ),
    "not reparameterized": (
        lambda: tfpl.KLDivergenceRegularizer(CATEGORICAL)(CATEGORICAL),
        r"not reparameterized.*straight-through",
    ),
    "not reparameterized, exact": (
        lambda: tfpl.KLDivergenceRegularizer(CATEGORICAL, use_exact_kl=True)(CATEGORICAL),
        r"not reparameterized.*straight-through",
    ),
    "scalar prior": (
        lambda: tfpl.KLDivergenceRegularizer(tfd.Normal(0.0, 1.0))(
            tfd.MultivariateNormalDiag(tf.zeros([3, 2]))
        ),
        r"MultivariateNormalDiag \(event shape \(2,\), .* Normal \(event shape \(\), .*tfd\.Independent",
    ),
    "prior of another dtype": (
        lambda: tfpl.KLDivergenceRegularizer(tfd.Normal(0.0, 1.0))(
            tfd.Normal(tf.zeros([], tf.float64), 1.0)
        ),
        r"float64.*float32",
    ),
    "trained in a roundabout way": (
        lambda: tfpl.KLDivergenceRegularizer(lambda: tfd.MultivariateNormalDiag(hidden())),
        r"neither train nor save.*VariableLayer",
    ),
    "trained by Keras": (
        lambda: tfpl.KLDivergenceRegularizer(
            tfd.MultivariateNormalDiag(keras.Variable(np.zeros(2, "float32")))
        ),
        r"neither train nor save.*VariableLayer",
    ),
    "damaged file": (
        lambda: tfp_objects.object_from_config(
            {"tfp": "distributions", "class": "kl_divergence", "arguments": {}}
        ),
        r"'kl_divergence' is not a class",
    ),
    "no closed form": (
        lambda: tfpl.KLDivergenceRegularizer(tfd.StudentT(3.0, 0.0, 1.0), True)(
            tfd.Normal(0.0, 1.0)
        ),
        r"no closed form for KL\(Normal \|\| StudentT\)\. Pass use_exact_kl=False",
    ),
}


@pytest.mark.parametrize(("act", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(act, message):
    with pytest.raises((TypeError, ValueError, NotImplementedError), match=message):
        act()


NOT_SAVED = {
    "lambda": lambda: PRIOR,
    "holds a function": tfd.TransformedDistribution(
        PRIOR, tfb.Inline(lambda x: x + 1.0, lambda y: y - 1.0, forward_min_event_ndims=0)
    ),
    "holds an operator": tfd.MultivariateNormalLinearOperator(
        scale=tf.linalg.LinearOperatorIdentity(2)
    ),
    "lambda in a layer": keras.Sequential(
        [tfpl.VariableLayer(4), tfpl.DistributionLambda(lambda t: as_normal(t))]
    ),
}


@by
@pytest.mark.parametrize("prior", NOT_SAVED.values(), ids=NOT_SAVED)
def test_what_cannot_be_saved_names_the_way_out(how, prior, tmp_path):
    model = keras.Sequential([keras.Input((4,)), *posterior(how, prior)])
    with pytest.raises(ValueError, match=r"cannot be saved.*register_keras_serializable"):
        model.save(tmp_path / "model.keras")


@by
def test_float64_needs_floatx_too(how):
    """Keras adds the losses of layers to one in floatx, so a policy alone is not enough, whatever the layer."""
    keras.config.set_dtype_policy("float64")
    keras.config.set_floatx("float64")
    try:
        layers = posterior(how, priors.StandardNormal(2), use_exact_kl=True)
        model = compiled(keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), *layers]))
        model.fit(np.ones([8, 4]), np.ones([8, 2]), verbose=0)
        assert model.losses[0].dtype == "float64"
    finally:
        keras.config.set_floatx("float32")
