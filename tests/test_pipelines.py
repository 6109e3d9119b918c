"""The encoder's distributions inside TFP's programs: the weights of the model stay as they are."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_vae
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


@pytest.mark.parametrize("jit", [False, True], ids=["plain", "xla"])
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    "name",
    mostly_slow(("normal", "flow posterior", "coupling prior", "conditional"), "coupling prior"),
)
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
