"""Normalizing flows: a row for each. Bijectors, densities, draws, contexts; posteriors and models made of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_vae
from tests.conftest import make_vae, mostly_slow
from tfp_vae import layers as tfpl
from tfp_vae import networks, objectives, priors, sampling

tfd = tfp.distributions

RANDOM = np.random.default_rng(0)
# For each member its arguments beyond the common ones.
CASES = {
    "MaskedAutoregressiveFlow": {},
    "InverseAutoregressiveFlow": {},
    "RealNVP": {},
    "NeuralSpline": {"num_bins": 5, "bound": 4.0},
}
COUPLINGS = ("RealNVP", "NeuralSpline")
SEED = tf.constant([1, 2])


def test_every_flow_has_a_row():
    members = {name for name in tfpl.__all__ if issubclass_of_flow(getattr(tfpl, name))}
    assert members - {"Flow"} == CASES.keys()


def issubclass_of_flow(member) -> bool:
    return isinstance(member, type) and issubclass(member, tfpl.Flow)


def make(
    name: str, event_size=3, num_transforms=3, context_size=2, dtype="float64", scale=0.4, **kwargs
) -> tfpl.Flow:
    """A flow with weights far from those at the start."""
    arguments = {"hidden_units": (8, 8), "activation": "tanh", **CASES[name], **kwargs}
    flow = getattr(tfpl, name)(
        event_size, num_transforms, context_size=context_size, dtype=dtype, **arguments
    )
    random = np.random.default_rng(5)
    flow.set_weights([random.normal(scale=scale, size=weight.shape) for weight in flow.weights])
    return flow


def params_of(flow: tfpl.Flow, *batch_shape, dtype="float64"):
    size = tfpl.FlowPosterior.params_size(flow)
    return tf.constant(np.random.default_rng(3).normal(scale=0.6, size=(*batch_shape, size)), dtype)


def posterior(flow: tfpl.Flow, params) -> tfd.Distribution:
    return tfpl.FlowPosterior.new(params, flow)


# A flow by autoregression and one by couplings; CI tests the others too.
FAST = ("MaskedAutoregressiveFlow", "RealNVP")


@pytest.fixture(params=mostly_slow(CASES, *FAST))
def name(request) -> str:
    return request.param


# The bijector


def test_the_log_determinant_is_that_of_the_jacobian(name):
    flow = make(name, event_size=4)
    z, context = tf.constant(RANDOM.normal(size=(6, 4))), tf.constant(RANDOM.normal(size=(6, 2)))
    with tf.GradientTape() as tape:
        tape.watch(z)
        y = flow.bijector(context).forward(z)
    log_det = np.linalg.slogdet(tape.batch_jacobian(y, z))[1]
    assert np.abs(log_det).min() > 1e-3
    np.testing.assert_allclose(
        flow.bijector(context).forward_log_det_jacobian(z, 1), log_det, rtol=1e-9
    )
    np.testing.assert_allclose(
        flow.bijector(context).inverse_log_det_jacobian(y, 1), -log_det, rtol=1e-9
    )


def test_the_inverse_undoes_the_transform(name):
    flow = make(name, event_size=4)
    z, context = RANDOM.normal(size=(6, 4)), RANDOM.normal(size=(6, 2))
    y = flow(z, context)
    assert np.abs(y - z).max() > 0.3
    np.testing.assert_allclose(flow.bijector(context).inverse(y), z, rtol=1e-9, atol=1e-9)


def test_every_value_may_depend_on_every_other(name):
    """Two transforms suffice for that, whatever the order."""
    z = tf.constant(RANDOM.normal(size=(6, 4)))
    with tf.GradientTape() as tape:
        tape.watch(z)
        y = make(
            name, event_size=4, num_transforms=2 if name not in COUPLINGS else 4, context_size=0
        )(z)
    assert (np.abs(tape.batch_jacobian(y, z)).max(0) > 1e-6).all()


def test_it_starts_near_the_identity(name):
    flow = getattr(tfpl, name)(5, 4, context_size=3)
    z = RANDOM.normal(size=(100, 5)).astype("float32")
    difference = np.abs(flow(z, RANDOM.normal(size=(100, 3))) - z)
    assert 0.0 < difference.max() < 0.2


def test_log_scales_are_bounded(name):
    """Whatever the weights, draws and densities of moderate values are finite."""
    flow = make(name, scale=1e4, dtype="float32")
    z, context = np.ones([1, 3], "float32"), np.ones([1, 2], "float32")
    log_det = flow.bijector(context).forward_log_det_jacobian(z, 1)
    assert np.isfinite(log_det)
    assert np.isfinite(flow(z, context)).all()


# The posterior

GRID = np.arange(-15.0, 15.0, 0.06)
PLANE = np.stack(np.meshgrid(GRID, GRID, indexing="ij"), -1).reshape(-1, 1, 2)


def test_density_and_draws(name):
    """The density integrates to one, and moments of draws are those of the density."""
    flow = make(name, event_size=2, num_transforms=2, scale=0.3)
    q = posterior(flow, params_of(flow, 1))
    weights = q.prob(PLANE).numpy()[..., np.newaxis] * 0.06**2
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-3)
    z = sampling.sample(q, 40_000, SEED).numpy()[:, 0]
    for function in (lambda z: z, lambda z: z**2, np.sin, lambda z: z * z[..., ::-1]):
        draws, expected = function(z), (weights * function(PLANE)).sum((0, 1))
        assert (np.abs(draws.mean(0) - expected) < 4.5 * draws.std(0) / 200.0 + 1e-3).all()


def test_a_flow_without_weights_leaves_the_normal_distribution(name):
    flow = make(name)
    flow.set_weights([np.zeros(weight.shape) for weight in flow.weights])
    params = params_of(flow, 6)
    q, normal = posterior(flow, params), tfpl.MultivariateNormalDiag.new(params[:, :6], 3)
    z = RANDOM.normal(size=(4, 6, 3))
    np.testing.assert_allclose(q.log_prob(z), normal.log_prob(z), rtol=1e-9)
    np.testing.assert_allclose(
        sampling.sample(q, 5, SEED), sampling.sample(normal, 5, SEED), rtol=1e-9, atol=1e-12
    )


def test_the_context_matters_and_broadcasts(name):
    flow = make(name)
    params = params_of(flow, 6)
    q = posterior(flow, params)
    z = RANDOM.normal(size=(4, 6, 3))
    log_prob = q.log_prob(z).numpy()
    rows = [posterior(flow, params[i]).log_prob(z[:, i]) for i in range(6)]
    np.testing.assert_allclose(log_prob, np.stack(rows, 1), rtol=1e-10)
    other = posterior(flow, tf.concat([params[:, :6], params[:, 6:] + 1.0], 1))
    assert (np.abs(other.log_prob(z) - log_prob) > 1e-4).all()
    np.testing.assert_allclose(
        q.log_prob(z[0, 0]), q.log_prob(np.tile(z[0, 0], [6, 1])), rtol=1e-10
    )
    pairs = q.log_prob(z[0][:, np.newaxis]).numpy()
    assert pairs.shape == (6, 6)
    np.testing.assert_allclose(np.diag(pairs), log_prob[0], rtol=1e-10)


@pytest.mark.parametrize("batch_shape", [(), (5,), (2, 3)], ids=str)
def test_shapes(name, batch_shape):
    flow = make(name)
    q = tfpl.FlowPosterior(flow, dtype="float64")(params_of(flow, *batch_shape))
    assert (q.batch_shape, q.event_shape) == (batch_shape, (3,))
    assert q.reparameterization_type is tfd.FULLY_REPARAMETERIZED
    for sample_shape in ((), (7, 4)):
        z = q.sample(sample_shape, seed=SEED)
        assert z.shape == (*sample_shape, *batch_shape, 3)
        assert q.log_prob(z).shape == (*sample_shape, *batch_shape)


@pytest.mark.slow
@pytest.mark.rows(0, 1)
def test_with_xla_and_a_batch_of_unknown_size(name):
    """Draws by Philox, densities there and elsewhere, and gradients are those without XLA."""
    flow = make(name, num_transforms=1, dtype="float32", scale=0.3)
    z = tf.constant(RANDOM.normal(size=(4, 6, 3)), "float32")

    def act(params, noise):
        with tf.GradientTape() as tape:
            tape.watch(params)
            q = posterior(flow, params)
            draws = q.bijector.forward(q.distribution.bijector.forward(noise))
            terms = q.log_prob(draws), q.log_prob(z)
            total = tf.reduce_sum(terms[0]) + tf.reduce_sum(terms[1])
        return draws, *terms, tape.gradient(total, params)

    specs = [tf.TensorSpec([None, 8]), tf.TensorSpec([4, None, 3])]
    arguments = (
        params_of(flow, 6, dtype="float32"),
        tf.constant(RANDOM.normal(size=(4, 6, 3)), "float32"),
    )
    expected = act(*arguments)
    for jit_compile in (False, True):
        compiled = tf.function(act, input_signature=specs, jit_compile=jit_compile)(*arguments)
        for one, other in zip(compiled, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3)


def test_gradients_reach_every_weight(name):
    flow = make(name, event_size=4, dtype="float32")
    layer = tfpl.FlowPosterior(flow)
    params = tf.Variable(params_of(flow, 6, dtype="float32"))
    for of in (
        lambda q: q.log_prob(RANDOM.normal(size=(6, 4)).astype("float32")),
        lambda q: sampling.sample(q, 2, SEED) ** 2,
    ):
        with tf.GradientTape() as tape:
            value = of(tfp_vae.layers.tensor_like.unwrap(layer(params)))
        gradients = tape.gradient(value, [params, *layer.trainable_weights])
        assert len(gradients) == 1 + len(flow.weights)
        assert all(
            np.isfinite(gradient).all() and np.abs(gradient).max() > 0 for gradient in gradients
        )


def test_gradient_of_the_density_against_finite_differences(name):
    flow = make(name)
    params, z = params_of(flow, 1), RANDOM.normal(size=(1, 3))
    variable = tf.Variable(params)
    with tf.GradientTape() as tape:
        log_prob = posterior(flow, variable).log_prob(z)
    steps = 1e-6 * np.eye(params.shape[-1])
    above, below = (
        posterior(flow, params + sign * steps).log_prob(z).numpy() for sign in (1.0, -1.0)
    )
    np.testing.assert_allclose(
        tape.gradient(log_prob, variable)[0], (above - below) / 2e-6, rtol=1e-5, atol=1e-7
    )


def test_kl_of_a_solvable_flow():
    """One transform without hidden layers is a normal distribution with full covariance."""
    flow = tfpl.MaskedAutoregressiveFlow(2, 1, hidden_units=())
    flow.set_weights([np.array([[0, 0, 0.8, 0], [0, 0, 0, 0]]), np.array([0.5, -0.7, -0.3, 0.4])])
    scale = np.exp(3.0 * np.tanh(np.array([-0.7, 0.4]) / 3.0))
    loc = np.array([0.5, 0.8 * 0.5 - 0.3])
    exact = tfd.MultivariateNormalTriL(
        np.float32(loc), np.float32([[scale[0], 0.0], [0.8 * scale[0], scale[1]]])
    )
    p, standard = priors.FlowPrior(flow)(None), tfd.MultivariateNormalDiag([0.0, 0.0])
    z = sampling.sample(p, 200_000, SEED)
    np.testing.assert_allclose(p.log_prob(z + 0.0), exact.log_prob(z), rtol=1e-4, atol=1e-4)
    sampled = np.mean(p.log_prob(z) - standard.log_prob(z))
    assert sampled == pytest.approx(tfd.kl_divergence(exact, standard).numpy(), abs=0.01)


def test_densities_are_float32_under_mixed_precision(name):
    expected = make(name, dtype="float32")
    keras.config.set_dtype_policy("mixed_float16")
    flow = make(name, dtype=None)
    params = params_of(flow, 6, dtype="float32")
    z = np.full([6, 3], 7.0001, "float32")
    q = tfpl.FlowPosterior(flow)(tf.cast(params, flow.compute_dtype))
    assert q.dtype == q.log_prob(z).dtype == tf.float32
    exact = posterior(flow, params).log_prob(z)
    np.testing.assert_allclose(exact, posterior(expected, params).log_prob(z), rtol=1e-6)
    assert flow(z, params[:, 6:]).dtype == tf.float32


@pytest.mark.slow
def test_config_round_trip(name):
    flow = make(name, event_size=6, num_transforms=5, seed=3, trainable=False)
    rebuilt = type(flow).from_config(flow.get_config())
    assert rebuilt.get_config() == flow.get_config()
    rebuilt.set_weights(flow.get_weights())
    z, context = RANDOM.normal(size=(6, 6)), RANDOM.normal(size=(6, 2))
    np.testing.assert_array_equal(rebuilt(z, context), flow(z, context))
    other = type(flow).from_config({**flow.get_config(), "seed": 4})
    other.set_weights(flow.get_weights())
    assert np.abs(other(z, context) - flow(z, context)).max() > 1e-3


# Draws


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_density_at_own_draws_inverts_nothing(jit_compile):
    """An inverse autoregressive flow remembers what its draws are made of, whichever axes they have."""
    flow = make("InverseAutoregressiveFlow", dtype="float32")

    def number_of_loops(function):
        compiled = tf.function(function, jit_compile=jit_compile)
        compiled(params := params_of(flow, 6, dtype="float32"))
        operations = compiled.get_concrete_function(params).graph.get_operations()
        return sum("While" in operation.type for operation in operations)

    def at_own_draws(params, change=lambda z: z, draw=sampling.sample):
        q = posterior(flow, params)
        return q.log_prob(change(draw(q, 4, SEED)))

    assert number_of_loops(at_own_draws) == 0
    assert number_of_loops(lambda params: at_own_draws(params, change=tf.stop_gradient)) == 3


def test_draws_alike_do_not_depend_on_the_place_in_the_batch(name):
    flow = make(name)
    params = tf.repeat(params_of(flow, 2), [2, 1], axis=0)
    z = sampling.sample_alike(posterior(flow, params), 4, SEED).numpy()
    assert z.shape == (4, 3, 3)
    np.testing.assert_allclose(z[:, 0], z[:, 1], rtol=1e-12)
    assert np.abs(z[:, 0] - z[:, 2]).min() > 1e-6
    alone = sampling.sample_alike(posterior(flow, params[2:]), 4, SEED)
    np.testing.assert_allclose(alone[:, 0], z[:, 2], rtol=1e-12)
    assert sampling.point(posterior(flow, params)).shape == (3, 3)


# Size one


@pytest.mark.parametrize("name", sorted(CASES.keys() - {*COUPLINGS}))
def test_one_dimension(name):
    flow = make(name, event_size=1)
    q = posterior(flow, params_of(flow, 2))
    total = tf.reduce_sum(q.prob(GRID[:, np.newaxis, np.newaxis]), 0) * 0.06
    np.testing.assert_allclose(total, [1.0, 1.0], rtol=1e-6)
    assert np.abs(make(name, event_size=1, context_size=0)(np.ones([1, 1])) - 1.0) > 1e-3


# Objectives


@pytest.mark.slow
@pytest.mark.parametrize("name", ["RealNVP", "InverseAutoregressiveFlow"])
@pytest.mark.rows(0, 1)
def test_dreg_has_the_mean_of_the_standard_gradient_and_less_variance(name):
    """By each example's parameters, context included, and by the flow's weights, of batches."""
    flow = make(name, event_size=2, num_transforms=2, hidden_units=(4,), scale=0.2)
    # Near p(z|x), as after some training.
    single = tf.constant([[0.7, 0.9, -0.4, -0.3, 0.5, -0.5]], tf.float64)
    num_batches, batch = 8, 500

    @tf.function
    def gradients(params, seed, estimator):
        with tf.GradientTape() as tape:
            tape.watch(params)
            one_pass = objectives.OnePass(
                x=tf.ones([batch, 2], tf.float64),
                posterior=posterior(flow, params),
                prior=tfd.MultivariateNormalDiag(np.zeros(2), np.ones(2)),
                likelihood=lambda z: tfd.MultivariateNormalDiag(z, 0.5 * np.ones(2)),
                seed=seed,
            )
            loss = tf.reduce_sum(objectives.IWAE(64, estimator=estimator).terms(one_pass)["loss"])
        return tape.gradient(loss, [params, *flow.trainable_weights])

    def each(estimator, first):
        by_params, by_weights = [], []
        for i in range(num_batches):
            first_one, *others = gradients(
                tf.repeat(single, batch, 0), tf.constant([first, i]), estimator
            )
            by_params.append(first_one.numpy())
            by_weights.append(np.concatenate([other.numpy().ravel() for other in others]) / batch)
        return np.concatenate(by_params), np.array(by_weights)

    for standard, dreg in zip(each("standard", 0), each("dreg", 1), strict=True):
        error = np.sqrt((standard.var(0, ddof=1) + dreg.var(0, ddof=1)) / len(dreg))
        assert (np.abs(standard.mean(0) - dreg.mean(0)) <= 6.0 * error).all()
        assert dreg.var(0).sum() < 0.5 * standard.var(0).sum()


def test_sticking_the_landing_has_no_variance_at_the_optimum():
    """Where q(z|x) = p(z|x) each draw's path gradient is zero, whatever the flow."""
    flow = make("InverseAutoregressiveFlow", event_size=2)
    params = tf.Variable(params_of(flow, 5))
    target = posterior(flow, tf.constant(params))
    with tf.GradientTape() as tape:
        one_pass = objectives.OnePass(
            x=tf.zeros([5, 1], tf.float64),
            posterior=posterior(flow, params),
            prior=target,
            likelihood=lambda z: tfd.Independent(
                tfd.Normal(tf.zeros_like(z[..., :1]), tf.ones([], tf.float64)), 1
            ),
            seed=SEED,
        )
        loss = objectives.IWAE(3, estimator="stl").terms(one_pass)["loss"]
    np.testing.assert_allclose(tape.gradient(loss, params), np.zeros(params.shape), atol=1e-9)


# Models


def flow_vae(posterior_flow=None, prior_flow=None) -> tfp_vae.VAE:
    encoder, decoder = make_vae().encoder, make_vae().decoder
    if posterior_flow is not None:
        layer = tfpl.FlowPosterior(posterior_flow)
        num_params = tfpl.FlowPosterior.params_size(posterior_flow)
        encoder = keras.Sequential([networks.mlp((8, 8, 1), num_params, hidden_sizes=(32,)), layer])
    return tfp_vae.VAE(encoder, decoder, prior=prior_flow and priors.FlowPrior(prior_flow))


@pytest.mark.slow
@pytest.mark.rows(0, 1)
def test_models_train_save_and_reload(name, digits, tmp_path):
    flow = getattr(tfpl, name)
    vae = flow_vae(flow(4, 1, (16,), context_size=8), flow(4, 1, (16,)))
    networks_weights = len(vae.encoder.layers[0].trainable_weights) + len(
        vae.decoder.trainable_weights
    )
    flows_weights = len(flow(4, 1, context_size=8).weights) + len(flow(4, 1).weights)
    assert len(vae.trainable_weights) == networks_weights + flows_weights
    # XLA compiles for long; the next test does it once.
    vae.compile(keras.optimizers.Adam(3e-3), jit_compile=False)
    history = vae.fit(digits.train, batch_size=100, epochs=2, verbose=0).history
    assert history["elbo"][1] > history["elbo"][0] + 10.0
    vae.save(tmp_path / "vae.keras")
    again = keras.models.load_model(tmp_path / "vae.keras")
    np.testing.assert_array_equal(again(digits.test[:5])["elbo"], vae(digits.test[:5])["elbo"])
    np.testing.assert_array_equal(again.generate(3), vae.generate(3))
    np.testing.assert_array_equal(
        again.reconstruct(digits.test[:5]), vae.reconstruct(digits.test[:5])
    )


@pytest.mark.slow
@pytest.mark.xla
@pytest.mark.full
def test_a_model_under_xla(digits):
    """The flows that suit: one that draws fast as posterior, one whose density is fast as prior."""
    posterior_flow = tfpl.InverseAutoregressiveFlow(4, 1, (16,), context_size=8)
    vae = flow_vae(posterior_flow, tfpl.MaskedAutoregressiveFlow(4, 2, (16,)))
    vae.compile(keras.optimizers.Adam(3e-3))
    assert vae.uses_xla
    vae.fit(digits.train, batch_size=100, epochs=3, verbose=0)
    bound = np.mean(vae(digits.test[:50])["elbo"])
    assert bound < np.mean(vae.log_prob(digits.test[:50], num_samples=50)) < bound + 30.0
    assert not objectives.kl_is_analytic(vae.encode(digits.test[:1]), vae.prior_distribution())


# Errors

Q = tfpl.InverseAutoregressiveFlow(2, context_size=3)
ERRORS = {
    "size": (lambda: tfpl.RealNVP(0), "at least 1, received 0"),
    "transforms": (lambda: tfpl.RealNVP(2, 0), "num_transforms must be .* at least 1, received 0"),
    "units": (
        lambda: tfpl.RealNVP(2, 2, (8, 0)),
        "each of hidden_units must be .* at least 1, received 0",
    ),
    "context size": (
        lambda: tfpl.RealNVP(2, context_size=-1),
        "context_size must be .* at least 0, received -1",
    ),
    "activation": (lambda: tfpl.RealNVP(2, activation="no"), "Could not interpret activation"),
    "seed": (lambda: tfpl.RealNVP(2, seed=-1), "seed must be a whole number"),
    "coupling": (
        lambda: tfpl.RealNVP(1),
        "RealNVP needs an event_size of at least 2, received 1. Use Masked",
    ),
    "spline": (lambda: tfpl.NeuralSpline(1), "NeuralSpline needs an event_size of at least 2"),
    "bins": (
        lambda: tfpl.NeuralSpline(2, num_bins=1),
        "num_bins must lie between 2 and 500, received 1",
    ),
    "bound": (
        lambda: tfpl.NeuralSpline(2, bound=0.0),
        r"bound must be a positive, finite number, received 0\.0",
    ),
    "no context": (lambda: Q.bijector(), "This flow has context_size=3, received context None"),
    "unasked context": (
        lambda: tfpl.RealNVP(2).bijector(tf.ones([1, 3])),
        "This flow has context_size=0",
    ),
    "context": (
        lambda: Q.bijector(tf.ones([1, 2])),
        r"a context of 3 values, received shape \(1, 2\)",
    ),
    "params": (lambda: tfpl.FlowPosterior(Q)(tf.ones([1, 4])), "needs 7 parameters, received 4"),
    "not a flow": (lambda: tfpl.FlowPosterior(3), "flow must be a flow such as .*received 3"),
    "dtype": (
        lambda: tfpl.FlowPosterior(Q, dtype="float64"),
        "flow is in float32, this layer in float64",
    ),
    "prior with context": (lambda: priors.FlowPrior(Q), "flow must have context_size=0, not 3"),
    "prior of what": (
        lambda: priors.FlowPrior("MAF"),
        "flow must be a flow such as .*received 'MAF'",
    ),
    "prior dtype": (
        lambda: priors.FlowPrior(tfpl.RealNVP(2), dtype="float64"),
        "float32, the prior in float64",
    ),
}


@pytest.mark.parametrize(("act", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(act, message):
    with pytest.raises((TypeError, ValueError), match=message):
        act()


def test_orders_come_in_pairs_of_one_and_its_reverse():
    flow = tfpl.RealNVP(5, 5, seed=1)
    positions = np.array(flow.positions)
    np.testing.assert_array_equal(positions[0], np.arange(5))
    for first, second in (positions[:2], positions[2:4]):
        np.testing.assert_array_equal(first + second, np.full(5, 4))
