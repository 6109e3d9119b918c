"""Distribution layers: each contract once, each public class a row of `CASES`."""

import dataclasses
import inspect
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import layers as tfpl
from tfp_vae.layers.support import check_support

tfd = tfp.distributions

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")


def softplus(x):
    return np.logaddexp(0.0, x)


def normal(params, event_shape, low=0.0):
    loc, scale = np.moveaxis(params.reshape(*params.shape[:-1], 2, *event_shape), params.ndim - 1, 0)
    return tfd.Independent(tfd.Normal(loc, softplus(scale) + low), len(event_shape))


def full_normal(params, event_shape):
    """The entries (c, b, a) fill the factor clockwise from its last: ((a, 0), (b, c))."""
    loc, (c, b, a) = params[..., :2], np.moveaxis(params[..., 2:], -1, 0)
    factor = np.stack([softplus(a) + 1e-5, 0 * a, b, softplus(c) + 1e-5], -1)
    return tfd.MultivariateNormalTriL(loc, factor.reshape(*a.shape, 2, 2))


def bernoulli(params, event_shape):
    probs = tf.constant(1.0 / (1.0 + np.exp(-params.reshape(*params.shape[:-1], *event_shape))))
    return tfd.Independent(tfd.Bernoulli(probs=probs, dtype=tf.float64), len(event_shape))


def binomial_of_5(params, event_shape):
    probs = tf.constant(1.0 / (1.0 + np.exp(-params)))
    return tfd.Independent(tfd.Binomial(5.0, probs=probs), len(event_shape))


def laplace(params, event_shape):
    return tfd.Independent(tfd.Laplace(params[..., :1], softplus(params[..., 1:]) + 0.01), len(event_shape))


@keras.saving.register_keras_serializable(package="test_layers")
def registered_laplace(params):
    return tfd.Independent(tfd.Laplace(params[..., :1], tf.nn.softplus(params[..., 1:]) + 0.01), 1)


@dataclasses.dataclass
class Case:
    """A layer, what it should be, and all outcomes that matter when its density is summed."""

    layer: type
    arguments: dict
    params_size: int
    event_shape: tuple
    reference_fn: Callable
    axis: np.ndarray

    def __str__(self):
        return f"{self.layer.__name__}{self.event_shape}"

    def make(self, convert_to_tensor_fn="mean", **kwargs):
        return self.layer(**self.arguments, convert_to_tensor_fn=convert_to_tensor_fn, **kwargs)

    def model(self, **kwargs):
        return keras.Sequential([keras.Input((3,)), keras.layers.Dense(self.params_size), self.make(**kwargs)])

    def params(self, *batch_shape):
        return np.random.default_rng(1).normal(size=(*batch_shape, self.params_size))

    def reference(self, params):
        """The same distribution in float64, from NumPy and tfd alone."""
        return self.reference_fn(params, self.event_shape)

    def outcomes(self):
        num_values = int(np.prod(self.event_shape))
        grid = np.meshgrid(*[self.axis] * num_values, indexing="ij")
        return np.stack(grid, -1).reshape(-1, 1, *self.event_shape), (self.axis[1] - self.axis[0]) ** num_values


LINE, WIDE = np.arange(-24.0, 24.0, 0.12), np.arange(-40.0, 40.0, 1e-3)
CASES = [
    Case(tfpl.DistributionLambda, {"make_distribution_fn": registered_laplace}, 2, (1,), laplace, WIDE),
    Case(tfpl.IndependentBernoulli, {"event_shape": (2, 1, 2)}, 4, (2, 1, 2), bernoulli, np.arange(2)),
    Case(tfpl.IndependentBernoulli, {}, 1, (), bernoulli, np.arange(2)),
    Case(tfpl.IndependentBinomial, {"event_shape": 2, "total_count": 5}, 2, (2,), binomial_of_5, np.arange(6)),
    Case(tfpl.IndependentNormal, {"event_shape": [2, 1]}, 4, (2, 1), normal, LINE),
    Case(tfpl.IndependentNormal, {}, 2, (), normal, LINE),
    Case(tfpl.MultivariateNormalDiag, {"event_size": 2}, 4, (2,), normal, LINE),
    Case(tfpl.MultivariateNormalTriL, {"event_size": 2}, 5, (2,), full_normal, LINE),
]
SIZED = [case for case in CASES if case.layer is not tfpl.DistributionLambda]
contract = pytest.mark.parametrize("case", CASES, ids=str)


def test_every_public_class_has_a_row():
    assert {case.layer.__name__ for case in CASES} == set(tfpl.__all__) - {"DistributionLayer"}


@pytest.mark.parametrize("case", SIZED, ids=str)
def test_number_of_parameters(case):
    event = {name: value for name, value in case.arguments.items() if name.startswith("event_")}
    assert case.layer.params_size(**event) == case.params_size
    with pytest.raises(ValueError, match=rf"needs {case.params_size} parameters, received 9 .*Let .* params_size"):
        case.make()(tf.zeros([2, 9]))


@contract
def test_shapes(case):
    assert case.model().output_shape == (None, *case.event_shape)
    p = case.make()(case.params(2, 3))
    assert (p.batch_shape, p.event_shape) == ((2, 3), case.event_shape)
    x = p.sample(4, seed=0)
    assert (x.shape, p.log_prob(x).shape) == ((4, 2, 3, *case.event_shape), (4, 2, 3))


@contract
def test_batch_of_unknown_size(case):
    layer = case.make()

    @tf.function(input_signature=[tf.TensorSpec([None, None, case.params_size])])
    def mean(params):
        p = layer(params)
        assert (p.batch_shape.as_list(), p.event_shape) == ([None, None], case.event_shape)
        assert p.shape.as_list() == [None, None, *case.event_shape]
        return p

    params = case.params(2, 3)
    np.testing.assert_allclose(mean(params.astype("float32")), case.reference(params).mean(), rtol=1e-4, atol=1e-6)


@contract
def test_reference(case):
    params = case.params(6)
    p, reference = case.make()(params.astype("float32")), case.reference(params)
    x = reference.sample(5, seed=0)
    np.testing.assert_allclose(p.log_prob(tf.cast(x, "float32")), reference.log_prob(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(p.mean(), reference.mean(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(p.stddev(), reference.stddev(), rtol=1e-4)


@contract
def test_density_sums_to_one(case):
    outcomes, volume = case.outcomes()
    p = case.make(dtype="float64")(case.params(3))
    np.testing.assert_allclose(tf.reduce_sum(p.prob(outcomes), 0) * volume, np.ones(3), rtol=1e-4)


@contract
@pytest.mark.parametrize("extreme", [-1e4, 1e4])
def test_extreme_parameters_give_finite_densities(case, extreme):
    p = case.make()(np.full([1, case.params_size], extreme, "float32"))
    assert np.isfinite(p.log_prob(p.sample(10, seed=0))).all()
    if case.axis is LINE:
        assert (p.stddev() >= 1e-6).numpy().all()


@contract
def test_gradient_reaches_every_weight(case):
    model = case.model()
    with tf.GradientTape() as tape:
        p = model(X)
        loss = tf.reduce_sum(p.log_prob(tf.stop_gradient(p.sample(seed=0))))
    for gradient in tape.gradient(loss, model.trainable_weights):
        assert (np.abs(gradient) > 0.0).all()


@contract
def test_gradient_is_that_of_the_reference(case):
    params, step = case.params(1), 1e-6 * np.eye(case.params_size)
    layer, x, variable = case.make(dtype="float64"), case.reference(params).sample(seed=0), tf.Variable(params)
    with tf.GradientTape() as tape:
        log_prob = layer(variable).log_prob(x)
    finite_difference = case.reference(params + step).log_prob(x) - case.reference(params - step).log_prob(x)
    np.testing.assert_allclose(tape.gradient(log_prob, variable)[0], finite_difference / 2e-6, rtol=1e-5, atol=1e-7)


@contract
def test_draws_have_the_stated_moments(case):
    num_draws = 20_000
    p = case.make()(case.params(2))
    x = p.sample(num_draws, seed=0).numpy()
    assert (np.abs(x.mean(0) - p.mean()) < 5.0 * p.stddev() / num_draws**0.5).numpy().all()
    np.testing.assert_allclose(x.std(0), p.stddev(), rtol=0.05)


@contract
@pytest.mark.parametrize("name", ["sample", "mean", "mode", "stddev", "variance"])
def test_conversions_by_name(case, name):
    p = case.make(name)(case.params(4))
    assert p.shape == p.value().shape == (4, *case.event_shape)
    assert name == "sample" or np.array_equal(p, getattr(p, name)())


@contract
def test_config_round_trip(case):
    layer = case.make("mode", validate_args=True, name="row", dtype="float64", trainable=False)
    config = layer.get_config()
    assert {*case.arguments, "convert_to_tensor_fn", "validate_args", "name", "dtype", "trainable"} <= config.keys()
    rebuilt = case.layer.from_config(config)
    assert rebuilt.get_config() == config
    params = case.params(4)
    np.testing.assert_array_equal(rebuilt(params), layer(params))
    assert rebuilt(params).validate_args == (case in SIZED)


@contract
def test_saved_models_give_the_same_values(case, tmp_path):
    model = case.model()
    expected = model(X).mean()
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(reloaded(X).mean(), expected)
    model.export(str(tmp_path / "exported"), verbose=False)
    served = tf.saved_model.load(str(tmp_path / "exported"))
    for batch_size in (1, 5):
        np.testing.assert_allclose(served.serve(X[:batch_size]), expected[:batch_size], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["IndependentBernoulli", "IndependentNormal", "MultivariateNormalTriL"])
def test_same_as_tfp_layers(name):
    ours, theirs, params = getattr(tfpl, name), getattr(tfp.layers, name), X[:, : getattr(tfpl, name).params_size(1)]
    parameters = [list(inspect.signature(layer.__init__).parameters) for layer in (ours, theirs)]
    assert parameters[0] == parameters[1]
    assert ours.params_size(7) == theirs.params_size(7)
    x = np.ones([len(X), 1], "float32")
    np.testing.assert_allclose(ours.new(params, 1).log_prob(x), theirs.new(params, 1).log_prob(x), rtol=1e-3)


@contract
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_densities_are_float32_under_mixed_precision(case, policy):
    keras.config.set_dtype_policy(policy)
    model = case.model()
    p = model(X)
    assert model.layers[0](X).dtype == policy.removeprefix("mixed_")
    assert p.dtype == p.mean().dtype == p.log_prob(p.sample(seed=0)).dtype == tf.float32


def test_what_cannot_be_saved_names_the_way_out(tmp_path):
    layer = tfpl.DistributionLambda(lambda t: tfd.Normal(t, 1.0), lambda p: p.mean())
    model = keras.Sequential([keras.Input((2,)), layer])
    with pytest.raises(ValueError, match=r"cannot be saved\. Decorate .*register_keras_serializable"):
        model.save(tmp_path / "model.keras")


ERRORS = {
    "size 0": (lambda: tfpl.MultivariateNormalDiag(0), r"whole number of at least 1, received 0"),
    "size negative": (lambda: tfpl.MultivariateNormalTriL(-1), r"whole number of at least 1, received -1"),
    "size 2.5": (lambda: tfpl.MultivariateNormalDiag(2.5), r"whole number of at least 1, received 2\.5"),
    "shape 0": (lambda: tfpl.IndependentNormal((2, 0)), r"whole number of at least 1, received 0"),
    "shape negative": (lambda: tfpl.IndependentBernoulli(-3), r"whole number of at least 1, received -3"),
    "params_size": (lambda: tfpl.MultivariateNormalTriL.params_size(2.5), r"whole number of at least 1, received 2\.5"),
    "count 0": (lambda: tfpl.IndependentBinomial(2, total_count=0), r"total_count .* at least 1, received 0"),
    "count 1.5": (lambda: tfpl.IndependentBinomial(2, total_count=1.5), r"total_count .* at least 1, received 1\.5"),
    "conversion": (lambda: tfpl.IndependentNormal(2, "median"), r"one of \['mean', 'mode', .*received 'median'"),
}


@pytest.mark.parametrize(("act", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(act, message):
    with pytest.raises(ValueError, match=message):
        act()


BERNOULLI = tfpl.IndependentBernoulli.new(tf.zeros([1, 2]), 2)
BINOMIAL = tfpl.IndependentBinomial.new(tf.zeros([1, 2]), 2, total_count=16)
NORMAL = tfpl.IndependentNormal.new(tf.zeros([1, 4]), 2)
IMPOSSIBLE = {
    "NaN": (NORMAL, [[0.0, np.nan], [np.inf, 0.0]], r"x holds 2 values that are NaN or infinite"),
    "empty": (NORMAL, np.zeros([0, 2]), r"The data set is empty: x has shape \(0, 2\)"),
    "shape": (NORMAL, np.zeros([4, 3]), r"must have shape \(2,\), received x of shape \(4, 3\)"),
    "8 bit": (BERNOULLI, np.uint8([[0, 1], [3, 255]]), r"Bernoulli: .*\[0, 255\]. Scale 8-bit images by x / 255"),
    "negative": (BERNOULLI, [[0.0, 1.0], [1.0, -1.0]], r"x lies in \[-1, 1\]. Scale 8-bit images"),
    "fraction": (BINOMIAL, [[0.0, 16.0], [3.0, 2.5]], r"likelihood Binomial: .*Raise total_count .* round the data"),
    "too large": (BINOMIAL, [[0.0, 4.0], [17.0, 3.0]], r"likelihood Binomial: .*\[0, 17\]. Raise total_count"),
}


@pytest.mark.parametrize(("likelihood", "x", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_data(likelihood, x, message):
    with pytest.raises(ValueError, match=message):
        check_support(likelihood, x)


def test_possible_data():
    check_support(NORMAL, [[-1e3, 0.5]])
    check_support(BERNOULLI, np.array([[0, 1]], "uint8"))
    check_support(BINOMIAL, [[0, 16]])
    with pytest.warns(UserWarning, match="strictly between 0 and 1.*Binarize x"):
        check_support(BERNOULLI, [[0.0, 1.0], [0.5, 0.5]])
