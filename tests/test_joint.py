"""Joint distributions: groups of latents, hierarchies with exact posteriors, conditions, data of several parts."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import stats

import tests.layer_cases as layer_cases
import tfp_vae
from tests.conftest import mostly_slow
from tfp_vae import hierarchy, networks, objectives, priors, sampling
from tfp_vae import layers as tfpl
from tfp_vae.layers.fold import call_by_name, named_inputs, unfold
from tfp_vae.objectives.gradients import Draws, surrogate
from tfp_vae.quantity import Quantity

tfd = tfp.distributions
ONE_PASS_SEED = tf.constant([1, 2])


def normal(name, from_size, size, hidden=8):
    layers = [
        keras.layers.Dense(hidden, "tanh"),
        keras.layers.Dense(2 * size),
        tfpl.MultivariateNormalDiag(size),
    ]
    return keras.Sequential([keras.Input((from_size,), name=name), *layers])


def bottom_up_vae(objective=None, seed=0):
    keras.utils.set_random_seed(seed)
    encoder, prior = hierarchy.bottom_up(
        networks.mlp((3,), 8, hidden_sizes=(8,)), (3, 2), hidden_size=8
    )
    return tfp_vae.VAE(encoder, decoder("z1", 3), prior=prior, objective=objective)


def ladder_vae(objective=None):
    encoder, prior = hierarchy.ladder(
        networks.mlp((3,), 8, hidden_sizes=(8,)), (3, 2, 1), hidden_size=8
    )
    return tfp_vae.VAE(encoder, decoder("z1", 3), prior=prior, objective=objective)


def groups_vae(objective=None):
    """A continuous and a discrete latent, independent of each other."""
    inputs = keras.Input((3,))
    parts = {
        "style": keras.Sequential([keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2)]),
        "kind": keras.Sequential(
            [keras.layers.Dense(3), tfpl.RelaxedOneHotCategorical(3, temperature=1.0)]
        ),
    }
    encoder = keras.Model(inputs, tfpl.Joint(parts)(keras.layers.Dense(8, "tanh")(inputs)))
    relaxed = tfpl.DistributionLambda(relaxed_prior)
    prior = tfpl.Joint({"style": priors.StandardNormal(2), "kind": relaxed})
    z = [keras.Input((2,), name="style"), keras.Input((3,), name="kind")]
    likelihood = tfpl.IndependentNormal(3)(keras.layers.Dense(6)(keras.layers.Concatenate()(z)))
    return tfp_vae.VAE(encoder, keras.Model(z, likelihood), prior=prior, objective=objective)


@keras.saving.register_keras_serializable(package="tests")
def relaxed_prior(_):
    return tfpl.RelaxedOneHotCategorical.new(tf.zeros([3]), 3, 1.0)


def decoder(name, size):
    layers = [keras.layers.Dense(8, "tanh"), keras.layers.Dense(6), tfpl.IndependentNormal(3)]
    return keras.Sequential([keras.Input((size,), name=name), *layers])


def conditional_vae(prior=None, objective=None):
    x, condition = keras.Input((3,), name="x"), keras.Input((2,), name="condition")
    posterior = tfpl.MultivariateNormalDiag(2)(
        keras.layers.Dense(4)(keras.layers.Concatenate()([x, condition]))
    )
    z, given = keras.Input((2,), name="z"), keras.Input((2,), name="condition")
    likelihood = tfpl.IndependentNormal(3)(
        keras.layers.Dense(6)(keras.layers.Concatenate()([z, given]))
    )
    return tfp_vae.VAE(
        keras.Model([x, condition], posterior),
        keras.Model({"z": z, "condition": given}, likelihood),
        prior=prior,
        objective=objective,
    )


def mixed_vae(prior=None, objective=None):
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    posterior = tfpl.MultivariateNormalDiag(2)(
        keras.layers.Dense(4)(keras.layers.Concatenate()([a, b]))
    )
    parts = {
        "a": keras.Sequential([keras.layers.Dense(6), tfpl.IndependentNormal(3)]),
        "b": keras.Sequential([keras.layers.Dense(2), tfpl.IndependentBernoulli(2)]),
    }
    decoder = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(8, "tanh"), tfpl.Joint(parts)]
    )
    return tfp_vae.VAE(
        keras.Model({"a": a, "b": b}, posterior), decoder, prior=prior, objective=objective
    )


X = np.random.default_rng(0).normal(size=(24, 3)).astype("float32")
CONDITION = np.eye(2, dtype="float32")[np.arange(24) % 2]
MIXED = {"a": X, "b": np.float32(X[:, :2] > 0)}
# A model of each structure, and its data.
STRUCTURES = {
    "bottom-up": (bottom_up_vae, X),
    "ladder": (ladder_vae, X),
    "groups": (groups_vae, X),
    "conditional": (conditional_vae, {"x": X, "condition": CONDITION}),
    "conditional prior": (
        lambda **kwargs: conditional_vae(normal("condition", 2, 2), **kwargs),
        {"x": X, "condition": CONDITION},
    ),
    "mixed": (mixed_vae, MIXED),
}
OBJECTIVES = {
    "elbo": objectives.ELBO(),
    "stl": objectives.ELBO(kl="sampled", estimator="stl", num_samples=2),
    "dreg": objectives.IWAE(3, estimator="dreg"),
    "wae": objectives.WAE(1.0),
    "factor": objectives.FactorVAE(hidden_sizes=(8,)),
}


@pytest.fixture(params=STRUCTURES)
def structure(request):
    return STRUCTURES[request.param]


@pytest.mark.parametrize("name", mostly_slow(OBJECTIVES, "elbo"))
@pytest.mark.rows(3, 6)
def test_every_structure_trains_with_every_kind_of_objective(structure, name):
    make, data = structure
    vae = make(objective=type(OBJECTIVES[name]).from_config(OBJECTIVES[name].get_config()))
    vae.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
    before = vae.get_weights()
    history = vae.fit(data, epochs=1, batch_size=12, verbose=0).history
    assert np.isfinite(list(history.values())).all()
    moved = [np.abs(a - b).max() > 0 for a, b in zip(before, vae.get_weights(), strict=True)]
    assert all(moved) or name in ("wae",)  # whose loss has no KL divergence, so no density


@pytest.mark.slow
@pytest.mark.xla
@pytest.mark.parametrize("name", STRUCTURES)
# The data are noise, there is little to encode.
@pytest.mark.filterwarnings("ignore:The posterior has collapsed")
@pytest.mark.rows(0, 1)
def test_saving_xla_and_what_is_computed_from_a_model(name, tmp_path):
    make, data = STRUCTURES[name]
    vae = make()
    vae.compile(keras.optimizers.Adam(1e-2))
    # By XLA, a partial batch too.
    history = vae.fit(data, epochs=10, batch_size=10, verbose=0, validation_data=(data,))
    assert history.history["val_elbo"][-1] > history.history["val_elbo"][0]
    vae.compile(vae.optimizer, jit_compile=False)  # what follows is quick to compile without XLA
    vae.save(tmp_path / "vae.keras")
    again = keras.models.load_model(tmp_path / "vae.keras")
    assert len(again.trainable_weights) == len(vae.trainable_weights)
    np.testing.assert_array_equal(again(data)["elbo"], vae(data)["elbo"])
    condition = data.get("condition") if isinstance(data, dict) else None
    few = tf.nest.map_structure(lambda x: x[:4], data)
    log_prob = vae.log_prob(few, 50)
    np.testing.assert_allclose(
        vae.log_prob(tf.nest.map_structure(lambda x: x.reshape(2, 2, -1), few), 50),
        tf.reshape(log_prob, [2, 2]),
        1e-3,
    )
    numbers = tfp_vae.evaluation.evaluate(vae, data, num_samples=20, batch_size=10)
    assert np.isfinite(list(numbers.values())).all()
    assert numbers["nll"] <= numbers["negative_elbo"] + 0.5
    one = None if condition is None else condition[0]
    x = vae.generate(5, seed=3, condition=one)
    more = vae.generate(7, seed=3, condition=one)
    tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b[:5], rtol=1e-5), x, more)
    predicted, reconstructed = vae.predict(data, verbose=0), vae.reconstruct(data)
    assert tf.nest.map_structure(np.shape, predicted) == tf.nest.map_structure(
        np.shape, reconstructed
    )
    joint = vae.joint_distribution(one)
    draw = joint.sample(6, seed=[1, 2])
    assert joint.log_prob(draw).shape == (6,)


def test_a_joint_sums_the_densities_of_its_parts_and_draws_them_by_their_seeds():
    vae = groups_vae()
    q, z = vae.encode(X), vae.encode(X).sample(5, seed=[1, 2])
    parts = [q.model[name].log_prob(z[name]) for name in ("style", "kind")]
    np.testing.assert_allclose(q.log_prob(z), sum(parts), rtol=1e-5)
    assert (q.log_prob(z).shape, tf.convert_to_tensor(vae.encoder(X)).shape) == ((5, 24), (24, 5))
    alike = sampling.sample_alike(q, 7, tf.constant([1, 2]))
    assert {name: value.shape for name, value in alike.items()} == {
        "style": (7, 24, 2),
        "kind": (7, 24, 3),
    }
    noise = (alike["style"] - q.model["style"].mean()) / q.model["style"].stddev()
    np.testing.assert_allclose(noise, np.broadcast_to(noise[:, :1], noise.shape), atol=1e-4)


def test_draws_of_a_hierarchy_do_not_depend_on_their_neighbours():
    vae = bottom_up_vae()
    q, few = vae.encode(X), vae.encode(X[3:5])
    for name, value in sampling.sample_alike(q, 7, tf.constant([1, 2])).items():
        np.testing.assert_allclose(
            value[:, 3:5], sampling.sample_alike(few, 7, tf.constant([1, 2]))[name], atol=1e-5
        )
    seeds = tf.random.stateless_uniform([24, 2], [0, 0], 0, 1000, tf.int32)
    for name, value in sampling.sample_rows(q, seeds).items():
        np.testing.assert_allclose(
            value[3:5], sampling.sample_rows(few, seeds[3:5])[name], atol=1e-5
        )


# A linear hierarchy, whose posterior and evidence are known: z2 -> z1 = A z2 + noise -> x = b z1 + noise, each in R^2.
A, B, S1, S = np.array([[1.0, -0.5], [0.7, 0.3]]), np.array([1.5, -0.8]), 0.6, 0.4


def affine(name, matrix, covariance):
    """A network that gives N(matrix @ input, covariance)."""
    matrix, root = (
        tf.constant(matrix, tf.float32),
        tf.constant(np.linalg.cholesky(covariance), tf.float32),
    )
    end = tfpl.DistributionLambda(
        lambda t: tfd.MultivariateNormalTriL(tf.linalg.matvec(matrix, t), root)
    )
    return keras.Sequential([keras.Input((2,), name=name), end])


def diagonal(name, matrix, scale):
    matrix, scale = tf.constant(matrix, tf.float32), tf.constant(scale, tf.float32)
    end = tfpl.DistributionLambda(
        lambda t: tfd.MultivariateNormalDiag(tf.linalg.matvec(matrix, t), scale * tf.ones_like(t))
    )
    return keras.Sequential([keras.Input((2,), name=name), end])


def exact_parts():
    """Return the covariance of x, and the exact p(z1|x), p(z2|z1) and p(z2|x) as matrices and covariances."""
    b, cov1 = np.diag(B), A @ A.T + S1**2 * np.eye(2)
    cov_x = b @ cov1 @ b.T + S**2 * np.eye(2)

    def given(cross, own, cov):
        gain = cross @ np.linalg.inv(cov)
        return gain, own - gain @ cross.T

    return (
        cov_x,
        given(cov1 @ b.T, cov1, cov_x),
        given(A.T, np.eye(2), cov1),
        given(A.T @ b.T, np.eye(2), cov_x),
    )


def exact_vae(kind):
    _, z1_of_x, z2_of_z1, z2_of_x = exact_parts()
    top_down = diagonal("z2", A, S1)
    inputs = keras.Input((2,), name="x")
    if kind == "bottom-up":
        parts = {"z1": affine("x", *z1_of_x), "z2": affine("z1", *z2_of_z1)}
    else:
        evidence = diagonal("x", np.diag(1.0 / B), S / np.abs(B))  # what x says of z1
        parts = {"z2": affine("x", *z2_of_x), "z1": tfpl.ProductOfNormals([evidence, top_down])}
    encoder = keras.Model(inputs, tfpl.Joint(parts)({"x": inputs}))
    prior = tfpl.Joint({"z2": priors.StandardNormal(2), "z1": top_down})
    return tfp_vae.VAE(encoder, diagonal("z1", np.diag(B), S), prior=prior)


@pytest.mark.parametrize("kind", ["bottom-up", "ladder"])
def test_every_weight_is_the_evidence_where_the_posterior_is_exact(kind):
    """p(x, z1, z2) / q(z1, z2 | x) is p(x) at every z, in two factorizations of the posterior."""
    vae, x = exact_vae(kind), np.random.default_rng(0).normal(size=(6, 2)).astype("float32")
    exact = stats.multivariate_normal(np.zeros(2), exact_parts()[0]).logpdf(x)
    one_pass = vae.one_pass(x, ONE_PASS_SEED)
    log_likelihood, log_prior, log_posterior = one_pass.log_densities(one_pass.sample(50))
    np.testing.assert_allclose(
        log_likelihood + log_prior - log_posterior,
        np.broadcast_to(exact, (50, 6)),
        rtol=1e-4,
        atol=1e-4,
    )
    np.testing.assert_allclose(vae.log_prob(x, 3), exact, rtol=1e-4, atol=1e-4)


def test_the_prior_of_a_hierarchy_has_the_moments_it_should():
    prior = exact_vae("ladder").prior_distribution()
    z = tf.function(sampling.sample_rows)(prior, sampling.row_seeds(20_000, 0))
    np.testing.assert_allclose(np.cov(z["z1"].numpy().T), A @ A.T + S1**2 * np.eye(2), atol=0.05)
    np.testing.assert_allclose(np.cov(z["z2"].numpy().T), np.eye(2), atol=0.05)


def test_a_product_of_normals_is_the_normalized_product_of_their_densities():
    experts = [normal("a", 2, 3), normal("b", 2, 3)]
    values = {"a": tf.ones([1, 2]), "b": -tf.ones([1, 2])}
    product = tfpl.ProductOfNormals(experts)(values)
    z = tf.random.stateless_normal([9, 1, 3], [0, 1])
    logs = sum(expert(values[name]).log_prob(z) for expert, name in zip(experts, "ab", strict=True))
    difference = (product.log_prob(z) - logs).numpy()
    np.testing.assert_allclose(difference, np.full_like(difference, difference[0, 0]), atol=1e-4)


def test_the_surrogate_of_a_hierarchy_has_the_gradient_of_the_bound():
    """Model, path and score together are the derivative that backpropagation finds."""
    vae = bottom_up_vae()
    with tf.GradientTape(persistent=True) as tape:
        one_pass = vae.one_pass(X, ONE_PASS_SEED)
        draws = Draws(one_pass, 3)
        log_likelihood, log_prior, log_posterior = one_pass.log_densities(one_pass.sample(3))
        bound = tf.reduce_sum(log_likelihood + log_prior - log_posterior)
        of_parts = tf.reduce_sum(surrogate(draws, model=1.0, path=1.0, score=1.0))
    weights = [variable.value for variable in vae.trainable_variables]
    for a, b in zip(tape.gradient(bound, weights), tape.gradient(of_parts, weights), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_the_bound_of_a_hierarchy_rises_with_its_draws():
    vae = bottom_up_vae()
    bounds = [np.mean([vae.log_prob(X, k, seed=s) for s in range(10)]) for k in (1, 5, 50)]
    assert bounds[0] < bounds[1] < bounds[2]


def test_a_conditional_evidence_is_that_of_each_condition():
    """log p(x|c) of a linear model whose decoder adds c: the condition is used, and repeated along the draws."""
    vae = conditional_vae()
    # Z first.
    vae.decoder.layers[-2].kernel.assign(np.concatenate([np.zeros([2, 6]), 3.0 * np.eye(2, 6)]))
    vae.decoder.layers[-2].bias.assign(np.zeros(6))
    means = np.concatenate([3.0 * CONDITION, np.zeros([24, 1])], -1)
    scale = float(vae.decode(np.zeros([1, 2]), np.zeros([1, 2])).stddev()[0, 0])
    expected = stats.norm.logpdf(X, means, scale).sum(-1)
    last = vae.encoder.layers[-2]  # the posterior is the prior: z says nothing here
    last.kernel.assign(tf.zeros_like(last.kernel))
    last.bias.assign(tf.constant([0.0, 0.0, 0.5413, 0.5413]))
    np.testing.assert_allclose(
        vae.log_prob({"x": X, "condition": CONDITION}, 10), expected, atol=2e-3
    )


@pytest.mark.parametrize("case", layer_cases.CASES, ids=str)
def test_an_unfolded_distribution_has_the_densities_of_the_flat_one(case):
    params = case.params(6).astype("float32")
    flat = case.make()(params).tensor_distribution
    unfolded = unfold(flat, [3, 2])
    x = flat.sample(seed=[1, 2])
    folded = tf.nest.map_structure(lambda value: tf.reshape(value, [3, 2, *value.shape[1:]]), x)
    assert type(unfolded) is type(flat)
    np.testing.assert_allclose(
        unfolded.log_prob(folded), tf.reshape(flat.log_prob(x), [3, 2]), rtol=1e-5, atol=1e-5
    )


BAD = {
    "parts": (
        lambda: tfpl.Joint([normal("x", 1, 1)]),
        TypeError,
        "parts must be a dict of Keras models",
    ),
    "no parts": (lambda: tfpl.Joint({}), ValueError, "parts is empty"),
    "no experts": (lambda: tfpl.ProductOfNormals([]), ValueError, "experts is empty"),
    "no distribution": (
        lambda: tfpl.Joint({"z": keras.layers.Dense(2)})(tf.ones([1, 2])),
        TypeError,
        "part 'z' must end in a distribution layer",
    ),
    "unknown input": (
        lambda: tfpl.Joint({"z": normal("w", 2, 1)})({"h": tf.ones([1, 2])}),
        ValueError,
        r"has inputs \['w'\], but there is only \['h'\]",
    ),
    "expert": (
        lambda: tfpl.ProductOfNormals([full_covariance("a")])({"a": tf.ones([1, 5])}),
        TypeError,
        "must give a MultivariateNormalDiag",
    ),
    "decoder's name": (
        lambda: tfp_vae.VAE(bottom_up_vae().encoder, decoder(None, 3), prior=bottom_up_vae().prior),
        ValueError,
        r"Name each keras\.Input after what it takes",
    ),
    "no prior": (
        lambda: tfp_vae.VAE(bottom_up_vae().encoder, decoder("z1", 3)),
        ValueError,
        "no default prior. Pass prior=",
    ),
    "one latent": (
        lambda: hierarchy.ladder(networks.mlp((3,), 8), (4,)),
        ValueError,
        "at least two latents",
    ),
    "free bits": (
        lambda: bottom_up_vae(objectives.ELBO(free_bits=1.0)),
        ValueError,
        "JointDistributionNamed does not factorize",
    ),
    "no condition": (lambda: conditional_vae()(X), ValueError, "VAE is conditional"),
    "a condition": (
        lambda: bottom_up_vae()({"x": X, "condition": CONDITION}),
        ValueError,
        "takes no condition",
    ),
    "condition's shape": (
        lambda: conditional_vae()({"x": X, "condition": X}),
        ValueError,
        r"condition of shape \[\.\.\., 2\], received shape \(24, 3\)",
    ),
    "labels": (
        lambda: fitted(conditional_vae(), {"x": X, "condition": CONDITION}, CONDITION),
        ValueError,
        "y was given to a conditional model",
    ),
    "lengths": (
        lambda: fitted(conditional_vae(), {"x": X, "condition": CONDITION[:3]}),
        ValueError,
        "differ in length",
    ),
    "unknown name": (
        lambda: fitted(conditional_vae(), {"x": X, "label": CONDITION}),
        ValueError,
        r"received \['label'\] too",
    ),
    "a part is missing": (
        lambda: fitted(mixed_vae(), {"a": X}),
        ValueError,
        "dict of .*a.*b.*, received",
    ),
    "impossible part": (
        lambda: fitted(mixed_vae(), {"a": X, "b": X[:, :2]}),
        ValueError,
        "Bernoulli takes zeros and ones",
    ),
    "conditions": (
        lambda: conditional_vae().generate(5, condition=CONDITION[:3]),
        ValueError,
        "for 3 examples, but 5 are asked for",
    ),
}


def full_covariance(name):
    return keras.Sequential([keras.Input((5,), name=name), tfpl.MultivariateNormalTriL(2)])


def fitted(vae, *data):
    vae.compile("adam", run_eagerly=True)
    return vae.fit(*data, verbose=0)


@pytest.mark.parametrize(("act", "error", "message"), BAD.values(), ids=BAD)
def test_misuse_is_explained(act, error, message):
    with pytest.raises(error, match=message):
        act()


def test_networks_take_their_inputs_by_name():
    a, b = keras.Input((1,), name="a"), keras.Input((1,), name="b")
    values = {"b": tf.fill([1, 1], 5.0), "a": tf.fill([1, 1], 7.0), "c": tf.zeros([1, 1])}
    difference = keras.layers.Subtract()([a, b])
    for struct in ([a, b], {"b": b, "a": a}, {"a": a, "b": b}):
        network = keras.Model(struct, difference)
        assert set(named_inputs(network)) == {"a", "b"}
        assert call_by_name(network, values).numpy() == 2.0


def test_parts_have_one_order_whatever_that_of_the_dicts():
    z = Quantity("z", {"b": (2,), "a": (3, 2)}, tf.float32)
    value = {
        "b": tf.random.stateless_normal([4, 2], [0, 1]),
        "a": tf.random.stateless_normal([4, 3, 2], [0, 2]),
    }
    vectors = objectives.as_vectors(value)
    for name, part in z.split(vectors).items():
        np.testing.assert_array_equal(part, value[name])


def test_no_two_draws_share_their_noise():
    """Posterior and prior of an objective that compares them: parts of one, parts of the other, all apart."""
    q = tfd.JointDistributionNamed(
        {name: tfd.MultivariateNormalDiag(tf.zeros([5, 2])) for name in "abc"}
    )
    seed = tf.constant([1, 2])
    draws = [*sampling.sample(q, [], seed).values()]
    for number in (1, 2):  # seeds that callers make for other purposes
        draws += sampling.sample(q, [], tf.random.fold_in(seed, number)).values()
        draws.append(sampling.sample(q.model["a"], [], tf.random.fold_in(seed, number)))
    assert len({part.numpy().tobytes() for part in draws}) == len(draws)


def test_a_prior_that_is_a_model_has_no_batch():
    prior = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2)]
    )
    encoder = [keras.Input((3,)), keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2)]
    vae = tfp_vae.VAE(
        keras.Sequential(encoder), decoder("z", 2), prior=prior, objective=objectives.WAE()
    )
    assert vae.prior_distribution().batch_shape == []
    assert np.isfinite(vae(X)["loss"]).all()
    assert vae.joint_distribution().sample(4, seed=[1, 2])["x"].shape == (4, 3)


def matrix_vae(**kwargs):
    layer = tfpl.OneHotCategoricalStraightThrough((2, 3))
    encoder = [keras.Input((3,)), keras.layers.Dense(6), layer]
    decoder = [
        keras.Input((2, 3)),
        keras.layers.Flatten(),
        keras.layers.Dense(6),
        tfpl.IndependentNormal(3),
    ]
    return tfp_vae.VAE(
        keras.Sequential(encoder),
        keras.Sequential(decoder),
        prior=priors.Categorical((2, 3)),
        **kwargs,
    )


def straight_through_groups(objective):
    inputs = keras.Input((3,))
    kind = keras.Sequential([keras.layers.Dense(3), tfpl.OneHotCategoricalStraightThrough(3)])
    style = keras.Sequential([keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2)])
    prior = tfpl.Joint({"style": priors.StandardNormal(2), "kind": priors.Categorical(3)})
    encoder = keras.Model(
        inputs, tfpl.Joint({"style": style, "kind": kind})(keras.layers.Dense(4)(inputs))
    )
    return tfp_vae.VAE(encoder, groups_vae().decoder, prior=prior, objective=objective)


def clashing_vae():
    encoder = keras.Model(
        inputs := keras.Input((3,)), tfpl.Joint({"x": normal("h", 3, 2)})({"h": inputs})
    )
    return tfp_vae.VAE(encoder, decoder("x", 2), prior=tfpl.Joint({"x": priors.StandardNormal(2)}))


REFUSED = {
    "free bits of a matrix": (
        lambda: matrix_vae(objective=objectives.ELBO(free_bits=0.1)),
        "dimension of a vector z",
    ),
    "total correlation of a matrix": (
        lambda: matrix_vae(objective=objectives.BetaTCVAE(10)),
        "dimension of a vector z",
    ),
    "covariance of a matrix": (
        lambda: matrix_vae(objective=objectives.DIPVAE()),
        "DIPVAE is about",
    ),
    "a biased part": (
        lambda: straight_through_groups(objectives.IWAE(3, estimator="dreg")),
        "straight-through, .* biased",
    ),
    "two things of one name": (clashing_vae, r"names \['x'\] stand for two things"),
}


@pytest.mark.parametrize(("act", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_defined_is_refused(act, message):
    with pytest.raises(ValueError, match=message):
        act()


def test_latents_of_a_matrix_train():
    vae = matrix_vae()
    vae.compile("adam", run_eagerly=True)
    assert np.isfinite(vae.fit(X, verbose=0).history["loss"]).all()
