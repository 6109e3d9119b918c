"""The encoder's distributions inside TFP's programs: the weights of the model stay as they are."""

import pickle
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_vae
from tests import test_conditional
from tests.conftest import mostly_slow
from tfp_vae import hierarchy, networks, priors
from tfp_vae import layers as tfpl
from tfp_vae.layers.frozen import frozen
from tfp_vae.layers.tensor_like import unwrap

tfd, tfb = tfp.distributions, tfp.bijectors

SIZE, LATENT_SIZE = 6, 2
X = (np.random.default_rng(0).random((5, SIZE)) > 0.5).astype("float32")
LABELS = np.array([0, 1, 2, 1, 0])


def build(posterior=None, prior=None, condition=False, **dense):
    posterior = posterior or tfpl.MultivariateNormalDiag(LATENT_SIZE)
    size = (
        tfpl.FlowPosterior.params_size(posterior.flow)
        if isinstance(posterior, tfpl.FlowPosterior)
        else posterior.params_size(LATENT_SIZE)
    )
    encoder = keras.Sequential([networks.mlp((SIZE,), size, hidden_sizes=(8,)), posterior])
    inputs = {"z": (LATENT_SIZE,)}
    if condition:
        inputs["condition"] = networks.one_hot(3)
    ends = [
        keras.layers.Dense(8, "relu", **dense),
        keras.layers.Dense(SIZE),
        tfpl.IndependentBernoulli(SIZE),
    ]
    return tfp_vae.VAE(encoder, networks.from_inputs(inputs, ends), prior=prior)


def vamp():
    vae = build()
    return tfp_vae.VAE(vae.encoder, vae.decoder, prior=priors.VampPrior(vae.encoder, SIZE, 3))


def ladder():
    encoder, prior = hierarchy.ladder(networks.mlp((SIZE,), 8), (2, 3), hidden_size=4)
    ends = [keras.layers.Dense(SIZE), tfpl.IndependentBernoulli(SIZE)]
    return tfp_vae.VAE(encoder, networks.from_inputs({"z1": (2,)}, ends), prior=prior)


def flow_posterior():
    return build(tfpl.FlowPosterior(tfpl.InverseAutoregressiveFlow(LATENT_SIZE, context_size=3)))


MODELS = {
    "normal": build,
    "full covariance": lambda: build(tfpl.MultivariateNormalTriL(LATENT_SIZE)),
    "flow posterior": flow_posterior,
    "coupling prior": lambda: build(prior=priors.FlowPrior(tfpl.RealNVP(LATENT_SIZE))),
    "masked prior": lambda: build(prior=priors.FlowPrior(tfpl.MaskedAutoregressiveFlow(2))),
    "mixture prior": lambda: build(prior=priors.NormalMixture(LATENT_SIZE, 3)),
    "vamp prior": vamp,
    "ladder": ladder,
    "conditional": lambda: build(condition=True),
}
MODES = {
    "eager": lambda function: function,
    "function": lambda function: tf.function(function, autograph=False),
    "xla": lambda function: tf.function(function, autograph=False, jit_compile=True),
}


def make(name):
    keras.utils.set_random_seed(1)
    vae = MODELS[name]()
    vae.compile("adam")
    vae.encode(data_of(vae))
    return vae


def data_of(vae, x=X):
    return {"x": x, "condition": LABELS} if vae.is_conditional else x


def densities(vae, x):
    """All that the public methods give, as functions of x."""
    data = data_of(vae, x)
    condition = {"condition": LABELS} if vae.is_conditional else {}
    q = vae.encode(data)
    z = q.sample(seed=(0, 1))
    prior, joint = vae.prior_distribution(**condition), vae.joint_distribution(**condition)
    parts = z if isinstance(z, dict) else {"z": z}
    return {
        "draw": sum(tf.reduce_sum(part) for part in tf.nest.flatten(z)),
        "log q(z|x)": q.log_prob(z),
        "log p(z)": prior.log_prob(z),
        "log p(x|z)": vae.decode(z, **condition).log_prob(x),
        "log p(z, x)": joint.log_prob({**parts, "x": x}),
        "log p(x)": vae.log_prob(data, num_samples=7),
    }


XLA = pytest.param("xla", marks=[pytest.mark.xla, pytest.mark.slow])


@pytest.mark.parametrize("mode", ["eager", "function", XLA])
@pytest.mark.parametrize("name", mostly_slow(MODELS, "flow posterior"))
@pytest.mark.rows(2, 3)
def test_no_tape_sees_weights_and_gradients_reach_x(name, mode):
    vae = make(name)
    x = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        values = MODES[mode](lambda x: densities(vae, x))(x)
        total = tf.add_n([tf.reduce_sum(value) for value in values.values()])
    assert tape.watched_variables() == ()
    assert np.abs(tape.gradient(total, x)).min() > 0


def test_a_frozen_distribution_is_the_networks_own_with_its_gradients():
    vae = make("flow posterior")
    x = tf.constant(X)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        ours, theirs = vae.encode(x), unwrap(vae.encoder(x))
        z = ours.sample(seed=(0, 1))
        values = ours.log_prob(z), theirs.log_prob(theirs.sample(seed=(0, 1)))
    np.testing.assert_array_equal(*values)
    np.testing.assert_array_equal(*[tape.gradient(value, x) for value in values])
    # The layers themselves train, as ever.
    assert len(tape.watched_variables()) == len(vae.encoder.weights)


def test_later_changes_of_weights_are_seen():
    vae = make("flow posterior")
    before = vae.encode(X).log_prob(np.zeros([5, LATENT_SIZE], "float32"))
    for weight in vae.encoder.weights:
        weight.assign(weight + 0.1)
    after = vae.encode(X).log_prob(np.zeros([5, LATENT_SIZE], "float32"))
    assert np.abs(after - before).min() > 0


def joint_log_prob(vae):
    condition = {"condition": LABELS} if vae.is_conditional else {}
    prior = vae.prior_distribution(**condition)
    return lambda z: prior.log_prob(z) + vae.decode(z, **condition).log_prob(X)


def fit_surrogate(vae, jit):
    """Variational inference for each example of its own: closer to p(z|x) than the encoder."""
    target = joint_log_prob(vae)
    q = vae.encode(data_of(vae))
    at = q.sample(500, seed=(0, 1))
    elbo = tf.reduce_mean(target(at) - q.log_prob(at), 0)
    loc = tf.Variable(tf.reduce_mean(at, 0))
    scale = tfp.util.TransformedVariable(tf.math.reduce_std(at, 0), tfb.Softplus())
    surrogate = tfd.MultivariateNormalDiag(loc, scale)
    tfp.vi.fit_surrogate_posterior(
        target,
        surrogate,
        tf.keras.optimizers.Adam(0.05),
        num_steps=100,
        sample_size=5,
        jit_compile=jit,
        seed=(0, 2),
    )
    at = surrogate.sample(500, seed=(0, 3))
    gap = tf.reduce_mean(target(at) - surrogate.log_prob(at), 0) - elbo
    assert float(tf.reduce_mean(gap)) > 0.01  # the amortization gap, in nats


def find_code(vae, jit):
    target = joint_log_prob(vae)
    z = tf.Variable(tf.ones([len(X), LATENT_SIZE]))
    losses = tfp.math.minimize(
        lambda: -tf.reduce_sum(target(z)), 60, tf.keras.optimizers.Adam(0.1), jit_compile=jit
    )
    assert losses[-1] < losses[0] - 0.1


def walk(vae, jit):
    target = joint_log_prob(vae)
    kernel = tfp.mcmc.HamiltonianMonteCarlo(target, step_size=0.3, num_leapfrog_steps=3)
    run = tf.function(
        lambda: tfp.mcmc.sample_chain(
            20,
            tf.zeros([len(X), LATENT_SIZE]),
            kernel=kernel,
            trace_fn=lambda _, results: results.is_accepted,
            seed=(0, 1),
        ),
        jit_compile=jit,
        autograph=False,
    )
    _, accepted = run()
    assert np.mean(accepted) > 0.5


PROGRAMS = {"surrogate": fit_surrogate, "minimize": find_code, "mcmc": walk}


@pytest.mark.parametrize(
    "jit", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "xla"]
)
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    "name",
    mostly_slow(("normal", "flow posterior", "coupling prior", "conditional"), "coupling prior"),
)
@pytest.mark.rows(1, 4)
def test_optimizers_of_tfp_leave_the_model_alone(name, program, jit):
    vae = make(name)
    before = [np.array(weight) for weight in vae.weights]
    PROGRAMS[program](vae, jit)
    for weight, value in zip(vae.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_a_loaded_model_of_variables_is_frozen_too(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["tfp_vae.serving.export"], "MAX_CONSTANTS", 0)
    vae = make("normal")
    served = tfp_vae.load(vae.export(tmp_path / "model"))
    z = tf.Variable(tf.ones([len(X), LATENT_SIZE]))
    with tf.GradientTape() as tape:
        loss = -tf.reduce_sum(served.decode(z).log_prob(X))
    assert tape.watched_variables() == (z,)
    live = joint_log_prob(vae)
    with tf.GradientTape() as second:
        same = -tf.reduce_sum(live(z) - vae.prior_distribution().log_prob(z))
    np.testing.assert_allclose(tape.gradient(loss, z), second.gradient(same, z), rtol=1e-5)


def test_fit_still_trains_every_weight():
    posterior = tfpl.FlowPosterior(tfpl.RealNVP(LATENT_SIZE, context_size=2))
    vae = build(posterior, priors.FlowPrior(tfpl.MaskedAutoregressiveFlow(LATENT_SIZE)))
    vae.compile(keras.optimizers.Adam(0.01))
    vae.encode(X)
    before = [np.array(weight) for weight in vae.trainable_variables]
    vae.fit(np.tile(X, [8, 1]), epochs=3, batch_size=10, verbose=0)
    for weight, value in zip(vae.trainable_variables, before, strict=True):
        assert np.any(np.not_equal(weight, value)), weight.path


def test_fit_still_minds_what_layers_add_to_the_loss():
    sizes = []
    for weight in (0.0, 10.0):
        keras.utils.set_random_seed(0)
        vae = build(kernel_regularizer=keras.regularizers.L2(weight))
        vae.compile(keras.optimizers.Adam(0.01))
        vae.fit(np.tile(X, [8, 1]), epochs=5, batch_size=10, verbose=0)
        sizes.append(float(np.sum(np.square(vae.decoder.trainable_variables[0]))))
    assert sizes[1] < 0.8 * sizes[0]


def test_random_layers_draw_anew_in_each_call_of_a_frozen_network():
    layer = keras.layers.GaussianDropout(0.5, seed=0)
    layer.build((5, SIZE))
    with frozen([layer]):
        first = layer(X, training=True)
    with frozen([layer]):
        second = layer(X, training=True)
    assert np.abs(first - second).max() > 0


@pytest.fixture(scope="module")
def live():
    return make("normal")


@pytest.fixture(scope="module")
def served(live, tmp_path_factory):
    return tfp_vae.load(live.export(tmp_path_factory.mktemp("normal") / "model"))


def coroutine(model):
    """TFP's model of prior and decoder, written by a user."""

    @tfd.JointDistributionCoroutineAutoBatched
    def joint():
        z = yield tfd.JointDistributionCoroutineAutoBatched.Root(model.prior_distribution())
        yield model.decode(z)

    return joint.log_prob(joint.sample(4))


Z = np.linspace(-1.0, 1.0, 10, dtype="float32").reshape(5, 2)
STANDARD = tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))
# What people do with a model's distributions, as functions of the model and x.
USES = {
    "mean": lambda model, x: model.encode(x).mean(),
    "KL to another": lambda model, x: model.encode(x).kl_divergence(STANDARD),
    "KL from another": lambda model, x: STANDARD.kl_divergence(model.encode(x)),
    "KL to the prior": lambda model, x: model.encode(x).kl_divergence(model.prior_distribution()),
    "entropy": lambda model, x: model.encode(x).entropy(),
    "density": lambda model, x: model.encode(x).log_prob(Z),
    "slice": lambda model, x: model.encode(x)[1:3].log_prob(Z[1:3]),
    "copy": lambda model, x: model.encode(x).copy(name="q").stddev(),
    "leading axes": lambda model, x: model.encode(tf.stack([x, x])).log_prob(Z),
    "one example": lambda model, x: model.encode(x[0]).mean(),
    "likelihood": lambda model, x: model.decode(Z).log_prob(x),
    "likelihood of many z": lambda model, x: model.decode(np.stack([Z, -Z])).log_prob(x),
    "likelihood of one z": lambda model, x: model.decode(Z[0]).log_prob(x),
    "joint density": lambda model, x: model.joint_distribution().log_prob(z=Z, x=x),
    "joint density by place": lambda model, x: (
        model.joint_distribution().experimental_pin(x=x).unnormalized_log_prob(Z)
    ),
    "mixture of posteriors": lambda model, x: tfd.MixtureSameFamily(
        tfd.Categorical(tf.zeros(5)), model.encode(x)
    ).log_prob(Z),
    "flow of a posterior": lambda model, x: tfb.Tanh()(model.encode(x)).log_prob(tf.tanh(Z)),
}
ROW_BY_ROW = {
    "vectorized rows": lambda model, x: tf.vectorized_map(lambda row: model.encode(row).mean(), x),
    "coroutine": lambda model, x: coroutine(model),
}


@pytest.mark.parametrize(
    "use", mostly_slow(USES, "KL to the prior", "density", "leading axes", "joint density by place")
)
def test_a_use_gives_the_same_live_and_served_in_every_mode(live, served, use):
    x = tf.constant(X)
    expected = USES[use](live, x)
    for model in (live, served):
        for mode in MODES:
            value = MODES[mode](lambda x, model=model: USES[use](model, x))(x)
            np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5, err_msg=mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("use", ROW_BY_ROW)
def test_a_live_model_is_vectorized(live, use, mode):
    value = MODES[mode](lambda x: ROW_BY_ROW[use](live, x))(tf.constant(X))
    assert np.isfinite(value).all()
    if use == "vectorized rows":
        np.testing.assert_allclose(value, live.encode(X).mean(), rtol=1e-5)


def test_other_methods_take_leading_axes_and_one_example_too(live, served):
    both = np.stack([X, X[::-1]])
    for x, lead in ((both, (2, 5)), (X[0], ())):
        np.testing.assert_allclose(served.reconstruct(x), live.reconstruct(x), rtol=1e-4)
        assert served.reconstruct(x).shape == (*lead, SIZE)
        assert served.log_prob(x).shape == live.log_prob(x, 5).shape == lead
        assert {value.shape for value in served.score(x).values()} == {lead}


def test_a_distribution_stands_for_its_draw(live, served):
    for model in (live, served):
        keras.utils.set_random_seed(0)
        one = model.decode(model.encode(X)).mean()
        assert one.shape == (5, SIZE)
        assert np.abs(one - model.decode(model.encode(X)).mean()).max() > 0


def test_a_served_model_is_pickled_by_its_path(served):
    again = pickle.loads(pickle.dumps(served))
    np.testing.assert_array_equal(again.encode(X).mean(), served.encode(X).mean())


def test_one_graph_serves_any_number_of_axes(live, served):
    for model in (live, served):
        decode = tf.function(lambda z, model=model: model.decode(z).mean(), reduce_retracing=True)
        encode = tf.function(lambda x, model=model: model.encode(x).mean(), reduce_retracing=True)
        for lead in ((4,), (2, 3), (2, 1, 3), ()):
            z = tf.ones([*lead, LATENT_SIZE])
            np.testing.assert_allclose(decode(z), model.decode(z).mean(), 1e-5)
            x = tf.ones([*lead, SIZE])
            np.testing.assert_allclose(encode(x), model.encode(x).mean(), 1e-5)
        assert (
            max(decode.experimental_get_tracing_count(), encode.experimental_get_tracing_count())
            < 4
        )


def test_one_graph_serves_conditions_of_any_number_of_axes():
    vae = test_conditional.of_labels()
    z = tf.ones([2, 3, 2])
    decode = tf.function(
        lambda z, labels: vae.decode(z, labels).mean(),
        input_signature=[tf.TensorSpec(None), tf.TensorSpec(None, tf.int32)],
    )
    for labels in (tf.constant([[0, 1, 2], [2, 1, 0]]), tf.constant([0, 1, 2])):
        np.testing.assert_allclose(decode(z, labels), vae.decode(z, labels).mean(), 1e-5)


@pytest.mark.parametrize("kind", ["functional", "sequential"])
def test_a_posterior_is_its_draw_where_a_network_expects_a_tensor(kind, live):
    if kind == "sequential":
        ends = [keras.layers.Dense(SIZE), tfpl.IndependentBernoulli(SIZE)]
        live = tfp_vae.VAE(live.encoder, keras.Sequential([keras.Input((LATENT_SIZE,)), *ends]))
    x = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        likelihood = live.decoder(live.encode(x))
        loss = likelihood.log_prob(x)
    assert loss.shape == [len(X)]
    assert np.abs(tape.gradient(loss, x)).max() > 0
    assert np.abs(live.decoder(live.encode(x)).mean() - likelihood.mean()).max() > 0


def autoregressive_decoder():
    made = tfpl.AutoregressiveNetwork(2, hidden_units=[4], event_shape=SIZE)
    ends = [tfpl.MultivariateNormalDiag(SIZE), tfpl.AutoregressiveTransform(made)]
    decoder = keras.Sequential([networks.mlp((LATENT_SIZE,), 2 * SIZE, hidden_sizes=(8,)), *ends])
    return tfp_vae.VAE(build().encoder, decoder)


def test_a_network_called_later_inside_one_called_later_is_frozen():
    vae = autoregressive_decoder()
    x = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        log_px = vae.log_prob(x, 8) + vae.decode(vae.encode(x)).log_prob(x)
    assert tape.watched_variables() == ()
    assert np.isfinite(tape.gradient(log_px, x)).all()


def test_log_prob_of_a_network_that_keras_does_not_see():
    backbone = keras.Sequential([keras.Input((SIZE,)), keras.layers.Dense(4)])
    layer = keras.layers.Lambda(lambda x: backbone(x), output_shape=(4,))
    encoder = keras.Sequential([keras.Input((SIZE,)), layer, tfpl.MultivariateNormalDiag(2)])
    vae = tfp_vae.VAE(encoder, build().decoder)
    x = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        log_px = vae.log_prob(x, 8)
    assert np.isfinite(tape.gradient(log_px, x)).all()


class Noise(keras.layers.Layer):
    def call(self, x):
        return x + keras.random.normal((1,))


def test_draws_of_kerass_own_generator_go_on():
    encoder = [keras.Input((SIZE,)), keras.layers.Dense(4), Noise(), tfpl.MultivariateNormalDiag(2)]
    vae = tfp_vae.VAE(keras.Sequential(encoder), build().decoder)
    means = {float(vae.encode(X).mean()[0, 0]) for _ in range(3)}
    assert len(means) == 3


def test_nothing_thaws_under_autocast_or_in_another_model(live):
    class Head(keras.layers.Layer):
        def call(self, x):
            return live.encode(x).mean()

    before = [np.array(weight) for weight in live.weights]
    head = Head(dtype="mixed_float16")
    x = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        mean = head(x)
    assert tape.watched_variables() == ()
    np.testing.assert_allclose(mean, live.encode(X).mean(), atol=1e-2)
    for weight, value in zip(live.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    outer = [keras.Input((SIZE,)), Head(), keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2)]
    vae = tfp_vae.VAE(keras.Sequential(outer), build().decoder)
    vae.encode(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        log_q = vae.encode(x).log_prob(Z)
    assert tape.watched_variables() == ()
    assert np.isfinite(tape.gradient(log_q, x)).all()


def test_the_prior_of_conditions_is_of_its_own_class():
    vae = make("conditional")
    prior = vae.prior_distribution(LABELS)
    assert isinstance(prior, tfd.MultivariateNormalDiag)
    kl = vae.encode(data_of(vae)).kl_divergence(prior)
    np.testing.assert_allclose(kl, vae.encode(data_of(vae)).kl_divergence(STANDARD), rtol=1e-5)
    mixed = tfp_vae.VAE(vae.encoder, vae.decoder, prior=priors.FlowPrior(tfpl.RealNVP(2)))
    mixed.encode(data_of(vae))
    joint = mixed.joint_distribution(LABELS)
    drawn = joint.sample(seed=(0, 1))
    assert drawn["z"].shape == (5, 2)
    assert joint.log_prob(drawn).shape == (5,)


@pytest.mark.parametrize("name", ["normal", "coupling prior"])
def test_a_joint_density_is_the_same_each_time(name):
    vae = make(name)
    joint = vae.joint_distribution()
    z = tf.random.stateless_normal([len(X), LATENT_SIZE], [0, 1])
    expected = vae.prior_distribution().log_prob(z) + vae.decode(z).log_prob(X)
    for _ in range(3):  # compiled from the second time on
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(z)
            found = joint.log_prob(z=z, x=X)
            direct = vae.prior_distribution().log_prob(z) + vae.decode(z).log_prob(X)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        np.testing.assert_allclose(tape.gradient(found, z), tape.gradient(direct, z), atol=1e-4)
        assert tape.watched_variables() == ()
        with pytest.raises(ValueError, match="z holds values that are NaN or infinite"):
            joint.log_prob(z=z * np.nan, x=X)
        if name == "normal":  # a flow says something of its own
            with pytest.raises(ValueError, match="The VAE takes z of shape"):
                joint.log_prob(z=z[:, :1], x=X)
        np.testing.assert_allclose(joint.log_prob(z=z[0], x=X[0]), expected[0], rtol=1e-5)
    for weight in vae.decoder.trainable_variables:
        weight.assign(2.0 * weight)
    changed = vae.prior_distribution().log_prob(z) + vae.decode(z).log_prob(X)
    np.testing.assert_allclose(joint.log_prob(z=z, x=X), changed, rtol=1e-5)
    assert np.abs(changed - expected).max() > 1e-3
