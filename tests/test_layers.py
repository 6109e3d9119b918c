"""Distribution layers: what the distribution is. Each contract once, each public class a row of `CASES`."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import stats

from tests.layer_cases import CASES, EXACT, MOMENTS, Case, is_first, rows
from tfp_vae import layers as tfpl
from tfp_vae.layers import counts
from tfp_vae.layers.parts import innermost
from tfp_vae.layers.tensor_like import unwrap
from tfp_vae.layers.values import UNKNOWN, values_of

tfd = tfp.distributions

# Draws by rejection, which XLA compiles in 2 to 8 seconds each: it could, in TFP 0.25.
LONG_TO_COMPILE = {
    tfpl.Independent,
    tfpl.IndependentBinomial,
    tfpl.IndependentPoisson,
    tfpl.PowerSpherical,
    tfpl.VonMisesFisher,
}
NOT_SIZED = (tfpl.DistributionLambda, tfpl.MixtureSameFamily)


def reparameterized(case: Case) -> bool:
    p = case.make()(case.params(1))
    return case.layer not in EXACT and p.reparameterization_type is tfd.FULLY_REPARAMETERIZED


# The abstract bases, and what has a table of its own: test_divergence.py, test_variational.py, test_autoregressive.py,
# test_flows.py, test_joint.py, test_random_weights.py, test_weight_norm.py, test_gaussian_process.py.
ELSEWHERE = {"DistributionLayer", "KLDivergenceAddLoss", "KLDivergenceRegularizer"}
ELSEWHERE |= {
    "BlockwiseInitializer",
    "DenseVariational",
    "VariableLayer",
    "posterior_mean_field",
    "prior_trainable",
}
ELSEWHERE |= {"AutoregressiveCategorical", "AutoregressiveNetwork", "AutoregressiveTransform"}
ELSEWHERE |= {"Joint", "ProductOfNormals", "VariationalGaussianProcess", "WeightNorm"}
ELSEWHERE |= {
    "KLPerExample",
    "RandomWeights",
    "default_loc_scale_fn",
    "default_mean_field_normal_fn",
    "default_multivariate_normal_fn",
    *(f"Dense{kind}" for kind in ("Reparameterization", "LocalReparameterization", "Flipout")),
    *(f"Convolution{n}D{kind}" for n in (1, 2, 3) for kind in ("Reparameterization", "Flipout")),
}
ELSEWHERE |= {
    "Flow",
    "FlowPosterior",
    "InverseAutoregressiveFlow",
    "MaskedAutoregressiveFlow",
    "NeuralSpline",
    "RealNVP",
}


def test_every_public_class_has_a_row():
    assert {case.layer.__name__ for case in CASES} == set(tfpl.__all__) - ELSEWHERE


@rows(is_first)
def test_a_member_leaves_nothing_unsaid(case):
    """Its roles, what becomes of 8-bit pixels, and which values it takes: what others ask of it."""
    assert "roles" in vars(case.layer)
    assert "pixels" in vars(case.layer) or "likelihood" not in case.layer.roles
    assert set(case.layer.roles) <= {"posterior", "sole posterior", "likelihood"}
    inside = innermost(case.make()(case.params(2).astype("float32")))
    assert values_of(inside) is not UNKNOWN, f"register {type(inside).__name__} with values_of"


@rows(lambda case: case.layer not in NOT_SIZED)
def test_number_of_parameters(case):
    parameters = inspect.signature(case.layer.params_size).parameters
    arguments = {name: value for name, value in case.arguments.items() if name in parameters}
    assert case.layer.params_size(**arguments) == case.params_size
    with pytest.raises(ValueError, match=r"needs \d+ parameters, received 7 .*Let .* params_size"):
        case.make()(tf.zeros([2, 7]))


@rows()
def test_shapes(case):
    p = case.make()(case.params(2, 3))
    assert (p.batch_shape, p.event_shape) == ((2, 3), case.event_shape)
    for sample_shape in ((), (5, 4)):
        x = p.sample(sample_shape, seed=(0, 0))
        assert (x.shape, p.log_prob(x).shape) == (
            (*sample_shape, 2, 3, *case.event_shape),
            (*sample_shape, 2, 3),
        )


@pytest.mark.slow
@rows()
@pytest.mark.rows(0, 10)
def test_batch_of_unknown_size_with_xla(case):
    """Without XLA where the layer says so; each class is compiled once."""
    layer, params = case.make("sample"), case.params(2, 3)
    assert layer.supports_jit == case.jit
    jit_compile = case.jit and is_first(case)
    x = case.draw(params).astype("float32")

    @tf.function(
        input_signature=[tf.TensorSpec([None, None, case.params_size])], jit_compile=jit_compile
    )
    def act(params):
        p = layer(params)
        assert (p.batch_shape.as_list(), p.event_shape) == ([None, None], case.event_shape)
        assert p.shape.as_list() == [None, None, *case.event_shape]
        with tf.GradientTape() as tape:
            tape.watch(params)
            log_prob = layer(params).log_prob(x)
        draw = params if case.layer in LONG_TO_COMPILE else p.sample(seed=(0, 0))
        return draw, log_prob, tape.gradient(log_prob, params)

    draw, log_prob, gradient = act(params.astype("float32"))
    assert draw.shape == (x if case.layer not in LONG_TO_COMPILE else params).shape
    assert np.isfinite(draw).all()
    np.testing.assert_allclose(
        log_prob, case.log_density(params, x.astype("float64")), rtol=1e-3, atol=1e-4
    )
    if case.layer not in EXACT:
        np.testing.assert_allclose(gradient, case.gradient(params, x), rtol=1e-3, atol=2e-4)


@rows()
def test_density(case):
    params = case.params(6)
    x, p = case.draw(params, 5), case.make(dtype="float64")(params)
    np.testing.assert_allclose(p.log_prob(x), case.log_density(params, x), rtol=1e-7, atol=1e-7)


@rows(lambda case: case.layer not in EXACT)
def test_density_sums_to_one(case):
    x, volumes = case.outcomes
    p = case.make(dtype="float64")(case.params(3))
    total = tf.reduce_sum(volumes[:, np.newaxis] * p.prob(x[:, np.newaxis]), 0)
    np.testing.assert_allclose(total, np.ones(3), rtol=1e-4)


@rows(lambda case: case.layer not in EXACT)
@pytest.mark.rows(20)
def test_moments_are_those_of_the_density(case):
    params, distribution = case.params(3), case.make(dtype="float64")(case.params(3))
    mean = case.expectation(lambda x: x, params)
    variance = case.expectation(np.square, params) - mean**2
    expected = {"mean": mean, "stddev": variance**0.5, "variance": variance}
    for name in {*case.names} - {"mode"} if case.layer is not tfpl.IndependentCategorical else ():
        np.testing.assert_allclose(
            getattr(distribution, name)(), expected[name], rtol=2e-3, atol=1e-4, err_msg=name
        )
    num_draws = 20_000
    draws = case.draw(params, num_draws)
    assert (np.abs(draws.mean(0) - mean) <= 5.0 * np.sqrt(variance / num_draws) + 1e-9).all()
    # TFP's may have no density, or be NaN.
    if "mode" in case.names and case.layer is not tfpl.Independent:
        highest = np.max(
            [
                case.log_density(params, x)
                for x in case.outcomes[0][:: 1 + len(case.outcomes[0]) // 500]
            ],
            0,
        )
        assert (distribution.log_prob(distribution.mode()).numpy() >= highest - 1e-6).all()


@rows(lambda case: case.layer not in EXACT)
def test_extreme_parameters(case):
    signs = [
        np.resize(signs, case.params_size) for signs in ([-1.0, -1.0], [1.0, 1.0], [1.0, -1.0])
    ]
    params, layer = tf.Variable(np.float32(signs) * case.extreme), case.make()
    x = tf.stop_gradient(layer(params).sample(10, seed=(0, 0)))
    with tf.GradientTape() as tape:
        log_prob = layer(params).log_prob(x)
    assert np.isfinite(x).all()
    assert np.isfinite(log_prob).all()
    assert np.isfinite(tape.gradient(log_prob, params)).all()


@rows(lambda case: case.layer not in EXACT)
def test_gradient_of_the_density(case):
    params = case.params(1)
    layer, x, variable = case.make(dtype="float64"), case.draw(params), tf.Variable(params)
    with tf.GradientTape() as tape:
        log_prob = layer(variable).log_prob(x)
    np.testing.assert_allclose(
        tape.gradient(log_prob, variable), case.gradient(params, x), rtol=1e-5, atol=1e-6
    )


@rows(reparameterized)
def test_gradient_through_draws(case):
    """Its mean over draws is the derivative of the expectation, had by summing over outcomes."""
    num_draws, shift = (
        20_000,
        np.arange(1.0, 1.0 + np.prod(case.event_shape)).reshape(case.event_shape),
    )

    def function(x, module=np):
        each = shift * x if case.linear else module.sin(shift + x)
        return (
            each.sum(tuple(range(1, each.ndim)))
            if module is np
            else tf.reduce_sum(each, range(1, each.ndim))
        )

    params, step = case.params(1), 1e-4 * np.eye(case.params_size)
    differences = (
        case.expectation(function, params + step) - case.expectation(function, params - step)
    ) / 2e-4
    many = tf.Variable(np.repeat(params, num_draws, 0))
    with tf.GradientTape() as tape:
        value = function(case.make(dtype="float64")(many).sample(seed=(0, 0)), tf)
    gradients = tape.gradient(value, many).numpy()
    error = gradients.std(0) / num_draws**0.5
    assert (error < 0.03).all()
    assert (np.abs(gradients.mean(0) - differences) < 5.0 * error + 1e-5).all()


@rows()
def test_conversions_by_name(case):
    params = case.params(4)
    assert case.make("sample")(params).shape == (4, *case.event_shape)
    for name in case.names:
        p = case.make(name)(params)
        assert p.shape == p.value().shape == (4, *case.event_shape)
        np.testing.assert_array_equal(p, getattr(p, name)())
    for name in {*MOMENTS} - {*case.names}:
        with pytest.raises(NotImplementedError):
            case.make(name)(params).value()


@rows()
def test_functions_can_return_the_distribution(case):
    """It is a composite tensor, which is taken apart and put together again at the border of a `tf.function`."""
    p = unwrap(case.make()(case.params(2)))
    rebuilt = tf.nest.pack_sequence_as(
        p, tf.nest.flatten(p, expand_composites=True), expand_composites=True
    )
    assert type(rebuilt) is type(p)
    np.testing.assert_array_equal(rebuilt.sample(seed=(0, 0)), p.sample(seed=(0, 0)))


@rows()
def test_config_round_trip(case):
    validate_args = case.layer is not tfpl.VonMisesFisher  # TFP's own check is in float32 only
    layer = case.make(validate_args=validate_args, name="row", dtype="float64", trainable=False)
    config = layer.get_config()
    assert {
        *case.arguments,
        "convert_to_tensor_fn",
        "validate_args",
        "name",
        "dtype",
        "trainable",
    } <= config.keys()
    rebuilt = case.layer.from_config(config)
    assert rebuilt.get_config() == config
    params = case.params(4)
    np.testing.assert_array_equal(rebuilt(params), layer(params))
    assert rebuilt(params).validate_args == (
        validate_args and case.layer is not tfpl.DistributionLambda
    )


@rows()
@pytest.mark.rows(20)
def test_mixed_precision(case):
    """Networks compute in half precision, densities in float32. Nothing casts: half of 70001 would be infinite."""
    params = (70001.0 if case.extreme == 1e4 else 1.0) * case.params(2).astype("float32")
    expected = case.make()(params)
    policy = "mixed_bfloat16" if case.layer is tfpl.IndependentNormal else "mixed_float16"
    keras.config.set_dtype_policy(policy)
    network, layer = keras.layers.Dense(case.params_size), case.make()
    assert network(tf.ones([2, 3])).dtype == policy.removeprefix("mixed_")
    before = tfpl.DistributionLambda(lambda t: tfd.Normal(t, tf.ones([], t.dtype)), "mean")
    for p in (
        layer(network(tf.ones([2, 3]))),
        keras.Sequential([keras.Input((case.params_size,)), before, layer])(params),
    ):
        assert p.dtype == ("int32" if case.layer is tfpl.IndependentCategorical else "float32")
    x = case.draw(params)
    np.testing.assert_array_equal(p.log_prob(x), expected.log_prob(x))
    assert p.log_prob(x).dtype == "float32"


SAME = {
    "CategoricalMixtureOfOneHotCategorical": (3, 2),
    "IndependentBernoulli": ((2,),),
    "IndependentLogistic": ((2,),),
    "IndependentNormal": ((2,),),
    "IndependentPoisson": ((2,),),
    "MixtureLogistic": (2, (2,)),
    "MixtureNormal": (2, (2,)),
    "MultivariateNormalTriL": (2,),
    "OneHotCategorical": (3,),
}


@pytest.mark.parametrize("name", [*SAME, "DistributionLambda", "MixtureSameFamily"])
def test_signatures_are_those_of_tfp_layers(name):
    ours, theirs = getattr(tfpl, name), getattr(tfp.layers, name)
    functions = ["__init__"] + ["new", "params_size"] * (name != "DistributionLambda")
    for function in functions:
        pair = [
            dict(inspect.signature(getattr(layer, function)).parameters) for layer in (ours, theirs)
        ]
        pair[0].pop("off_diagonal_scale", None)  # comes after those of tfp.layers
        assert list(pair[0]) == list(pair[1])
        defaults = [{n: p.default for n, p in parameters.items()} for parameters in pair]
        for parameters in defaults:
            # A name here, the method of that name there.
            parameters.pop("convert_to_tensor_fn", None)
        assert defaults[0] == defaults[1]


@pytest.mark.parametrize("name", SAME)
def test_same_as_tfp_layers(name):
    ours, theirs, arguments = getattr(tfpl, name), getattr(tfp.layers, name), SAME[name]
    size = ours.params_size(*arguments)
    assert size == theirs.params_size(*arguments)
    params = np.random.default_rng(0).normal(size=(8, size)).astype("float32")
    ours, theirs = ours.new(params, *arguments), theirs.new(tf.constant(params), *arguments)
    x = theirs.sample(3, seed=0)
    np.testing.assert_allclose(ours.log_prob(x), theirs.log_prob(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours.mean(), theirs.mean(), rtol=1e-5, atol=1e-6)
    assert ours.dtype == theirs.dtype


def test_mixture_of_one_hot_vectors():
    layer = tfpl.CategoricalMixtureOfOneHotCategorical(3, 2, lambda p: p.log_mean())
    params = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")
    theirs = tfp.layers.CategoricalMixtureOfOneHotCategorical.new(tf.constant(params), 3, 2)
    np.testing.assert_allclose(layer(params), theirs.log_mean(), rtol=1e-5)


def test_conversion_by_a_property():
    params = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    layers = (
        tfpl.OneHotCategorical(6, tfd.OneHotCategorical.logits),
        tfpl.IndependentBernoulli(6, tfd.Bernoulli.logits),
    )
    for layer in layers:
        np.testing.assert_array_equal(layer(params), params)


def test_straight_through_draws_are_one_hot():
    z = (
        tfpl.OneHotCategoricalStraightThrough(4)
        .new(np.random.default_rng(0).normal(size=(50, 4)), 4)
        .sample(20)
    )
    assert set(np.unique(z)) == {0.0, 1.0}
    np.testing.assert_array_equal(np.sum(z, -1), np.ones([20, 50]))


def test_a_direction_of_no_length_is_the_first_axis():
    for layer in (tfpl.PowerSpherical, tfpl.VonMisesFisher):
        params = tf.Variable(np.zeros([1, 4], "float32"))
        with tf.GradientTape() as tape:
            p = layer(3)(params)
            log_prob = p.log_prob([[0.0, 0.6, 0.8]])
        np.testing.assert_array_equal(p.mean_direction, [[1.0, 0.0, 0.0]])
        assert np.isfinite(tape.gradient(log_prob, params)).all()


def test_von_mises_fisher_admits_that_its_draws_have_no_gradient():
    kinds = {size: tfpl.VonMisesFisher(size)(tf.ones([1, size + 1])) for size in (2, 3, 8)}
    assert {
        size for size, p in kinds.items() if p.reparameterization_type is tfd.FULLY_REPARAMETERIZED
    } == {3}
    params = tf.Variable(tf.ones([1, 9]))
    with tf.GradientTape() as tape:
        z = tfpl.VonMisesFisher.new(params, 8).sample(seed=(0, 0))
    assert tape.gradient(z, params) is None


def test_256_levels():
    p = tfpl.IndependentQuantizedLogistic.new(np.random.default_rng(0).normal(size=(5, 2)), ())
    levels = np.arange(256.0)[:, np.newaxis]
    np.testing.assert_allclose(tf.reduce_sum(p.prob(levels), 0), np.ones(5), rtol=1e-6)
    np.testing.assert_allclose(tf.reduce_sum(p.prob(levels) * levels, 0), p.mean(), rtol=1e-6)


@pytest.mark.parametrize(
    ("loc", "scale"),
    [(0.0, -30.0), (30.0, -30.0), (-5000.0, 0.0), (1e6, 0.0), (0.0, 1e6), (-1e6, 1e6), (1e6, -1e6)],
)
def test_quantized_logistic_in_its_tails(loc, scale):
    """Against the smaller side's tail in float64; float32 cannot tell the two ends of a level apart there."""
    levels = np.array([0, 1, 100, 127, 254, 255])
    logistic = stats.logistic(
        127.5 * (1.0 + loc), 127.5 * (np.logaddexp(0.0, scale) + counts.MIN_QUANTIZED_SCALE)
    )
    lower, upper = (
        np.where(levels == 0, -np.inf, levels - 0.5),
        np.where(levels == 255, np.inf, levels + 0.5),
    )
    left = upper < logistic.mean()
    big = np.where(left, logistic.logcdf(upper), logistic.logsf(lower))
    small = np.where(left, logistic.logcdf(lower), logistic.logsf(upper))
    expected = big + np.log(-np.expm1(small - big))
    params = tf.Variable(np.float32([[loc, scale]]))
    with tf.GradientTape() as tape:
        log_prob = tfpl.IndependentQuantizedLogistic.new(params, ()).log_prob(
            np.float32(levels)[:, np.newaxis]
        )
    np.testing.assert_allclose(log_prob[:, 0], expected, rtol=2e-4, atol=1e-4)
    assert np.isfinite(tape.gradient(log_prob, params)).all()


def test_a_mixture_of_one_quantized_logistic():
    params = np.random.default_rng(0).normal(size=(5, 3, 2, 3, 1)).astype("float32")
    mixture = tfpl.MixtureQuantizedLogistic.new(params.reshape(5, -1), 1, (2, 3, 1))
    one = tfpl.IndependentQuantizedLogistic.new(params[:, 1:].reshape(5, -1), (2, 3, 1))
    x = one.sample(20, seed=(0, 0))
    np.testing.assert_allclose(mixture.log_prob(x), one.log_prob(x), rtol=1e-5)
    np.testing.assert_allclose(mixture.mean(), one.mean(), rtol=1e-5)


def test_mixtures_of_256_levels():
    p = tfpl.MixtureQuantizedLogistic.new(
        np.random.default_rng(0).normal(scale=2.0, size=(4, 30)), 5, 2
    )
    levels = np.arange(256.0)[:, np.newaxis, np.newaxis] * np.ones(2)
    probs = np.exp(p.distribution.log_prob(levels))
    np.testing.assert_allclose(probs.sum(0), np.ones([4, 2]), rtol=1e-6)
    np.testing.assert_allclose(np.sum(probs * levels, 0), p.mean(), rtol=1e-6)
    draws = p.sample(50_000, seed=(0, 0)).numpy()
    below = np.mean(draws[np.newaxis] <= levels[:, np.newaxis], 1)
    np.testing.assert_allclose(below, probs.cumsum(0), atol=0.015)
    extreme = tfpl.MixtureQuantizedLogistic.new(np.float32([[0, 0, 50.0, -50.0, -30, -30]]), 2, ())
    assert np.isfinite(extreme.log_prob(np.arange(256.0, dtype="float32")[:, np.newaxis])).all()


def test_what_cannot_be_saved_names_the_way_out(tmp_path):
    layer = tfpl.DistributionLambda(lambda t: tfd.Normal(t, 1.0), lambda p: p.mean())
    model = keras.Sequential([keras.Input((2,)), layer])
    with pytest.raises(
        ValueError, match=r"cannot be saved\. Decorate .*register_keras_serializable"
    ):
        model.save(tmp_path / "model.keras")


class OwnNormal(tfd.Normal):
    pass


ERRORS = {
    "size 0": (lambda: tfpl.MultivariateNormalDiag(0), r"whole number of at least 1, received 0"),
    "size negative": (
        lambda: tfpl.MultivariateNormalTriL(-1),
        r"whole number of at least 1, received -1",
    ),
    "size 2.5": (
        lambda: tfpl.MultivariateNormalDiag(2.5),
        r"whole number of at least 1, received 2\.5",
    ),
    "size of a graph": (
        lambda: tf.function(tfpl.IndependentNormal.params_size)(tf.constant(2)),
        r"whole number of at least 1, received <tf\.Tensor",
    ),
    "shape 0": (lambda: tfpl.IndependentNormal((2, 0)), r"whole number of at least 1, received 0"),
    "shape negative": (
        lambda: tfpl.IndependentBernoulli(-3),
        r"whole number of at least 1, received -3",
    ),
    "params_size": (
        lambda: tfpl.MultivariateNormalTriL.params_size(2.5),
        r"whole number of at least 1, received 2\.5",
    ),
    "count 0": (
        lambda: tfpl.IndependentBinomial(2, total_count=0),
        r"total_count .* at least 1, received 0",
    ),
    "count 1.5": (
        lambda: tfpl.IndependentBinomial(2, total_count=1.5),
        r"total_count .* at least 1, received 1\.5",
    ),
    "levels": (
        lambda: tfpl.IndependentQuantizedLogistic(2, num_levels=1),
        r"num_levels .* at least 2, received 1",
    ),
    "temperature": (
        lambda: tfpl.RelaxedOneHotCategorical(2, 0.0),
        r"temperature must be a positive.*received 0\.0",
    ),
    "sphere": (lambda: tfpl.PowerSpherical(1), r"sphere needs .* at least 2, received 1"),
    "scale shape": (
        lambda: tfpl.IndependentNormalLearnedScale((8, 8, 3), (3, 1)),
        r"broadcast to event_shape=\(8, 8, 3\), received \(3, 1\)",
    ),
    "scale too large": (
        lambda: tfpl.IndependentNormalLearnedScale(2, (4, 2)),
        r"broadcast to .* received \(4, 2\)",
    ),
    "components": (lambda: tfpl.MixtureNormal(0, 2), r"num_components .* at least 1, received 0"),
    "not predicted": (
        lambda: tfpl.Independent(tfd.Binomial, 2),
        r"how to predict 'total_count' of tfd\.Binomial",
    ),
    "no such": (
        lambda: tfpl.Independent(tfd.Normal, 2, ["mean"]),
        r"tfd\.Normal has no parameter \['mean'\]",
    ),
    "other class": (
        lambda: tfpl.Independent(OwnNormal, 2).get_config(),
        r"it is not a class of tfd",
    ),
    "conversion": (
        lambda: tfpl.IndependentNormal(2, "median"),
        r"one of \['mean', 'mode', .*received 'median'",
    ),
}


@pytest.mark.parametrize(("act", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(act, message):
    with pytest.raises(ValueError, match=message):
        act()


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("concentration", [0.01, 10.0, 1e4])
def test_every_draw_on_a_sphere_has_a_gradient_and_a_density(size, concentration):
    """TFP's own draws, away from the poles, where theirs has no gradient: seen in 10 epochs of digits."""
    direction = tf.math.l2_normalize(tf.ones([size]))
    params = tf.concat([direction, [concentration + tf.math.log1p(-tf.exp(-concentration))]], 0)
    with tf.GradientTape() as tape:
        tape.watch(params)
        q = tfpl.PowerSpherical.new(params, size)
        z = q.sample(100_000, seed=(1, 2))
        total = tf.reduce_sum(z[:, 0])
        theirs = tfd.PowerSpherical(q.mean_direction, q.concentration)
        theirs = theirs.sample(100_000, seed=(1, 2))
    assert np.isfinite(tape.gradient(total, params)).all()
    assert np.isfinite(q.log_prob(z)).all()
    np.testing.assert_allclose(z, theirs, atol=3e-3)
    assert np.mean(np.abs(z - theirs)) < 1e-4
