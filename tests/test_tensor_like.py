"""The bridge to Keras: a distribution that travels through models as a tensor (design.md, points a to e)."""

import copy
import inspect
import operator
import pickle
import re
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import layers as tfpl
from tfp_vae.layers.tensor_like import TensorLike, unwrap

tfd, tfb = tfp.distributions, tfp.bijectors

SEED = (3, 4)
LOC = np.array([[1.0, -2.0], [0.5, 3.0]], "float32")
X, Y = np.random.default_rng(0).normal(size=(2, 16, 3)).astype("float32")
MEAN = tfd.Distribution.mean


def normal_model(**kwargs) -> keras.Sequential:
    normal = tfpl.IndependentNormal(3, convert_to_tensor_fn="mean", **kwargs)
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(normal.params_size(3)), normal])


# (a) Converted at the first use, once, where the wrapper was made.


def test_every_use_sees_the_same_draw():
    draw = mock.Mock(side_effect=tfd.Distribution.sample)
    q = TensorLike(tfd.Normal(LOC, 2.0), draw)
    assert draw.call_count == 0
    first = tf.convert_to_tensor(q)
    for use in (
        q.value(),
        q + 0.0,
        tf.identity(q),
        keras.ops.add(q, 0.0),
        q.numpy(),
        np.asarray(q),
    ):
        np.testing.assert_array_equal(use, first)
    assert draw.call_count == 1


@pytest.mark.parametrize(
    "convert", [tfd.Distribution.sample, lambda q: q.sample(5, seed=SEED)], ids=["sample", "own"]
)
def test_shape_is_known_without_a_draw(convert):
    with tf.Graph().as_default() as graph:
        q = TensorLike(tfd.MultivariateNormalDiag(tf.zeros([3, 2])), convert)

        def random_ops():
            return [op.name for op in graph.get_operations() if "Random" in op.type]

        shape = (q.shape, q.get_shape(), q.ndim)
        assert random_ops() == []
        tensor, after_first_use = q.value(), random_ops()
        assert q.value() is tensor
        assert random_ops() == after_first_use != []
    assert shape == (tensor.shape, tensor.shape, tensor.shape.rank)


def test_first_use_in_a_branch_does_not_leak():
    draw = mock.Mock(side_effect=tfd.Distribution.sample)

    @tf.function
    def inside_and_outside(flag):
        q = TensorLike(tfd.Normal(LOC, 2.0), draw)
        return tf.cond(flag, lambda: q + 0.0, lambda: -q), q + 0.0

    for flag, sign in ((True, 1.0), (False, -1.0)):
        inside, outside = inside_and_outside(tf.constant(flag))
        np.testing.assert_array_equal(inside, sign * outside)
    assert draw.call_count == 1


def test_eager_wrapper_first_used_in_a_function_keeps_its_gradient():
    loc = tf.Variable(LOC)
    with tf.GradientTape() as tape:
        q = TensorLike(tfd.Normal(loc, 1.0))
        total = tf.function(lambda: tf.reduce_sum(3.0 * q))()
    np.testing.assert_array_equal(tape.gradient(total, loc), np.full_like(LOC, 3.0))
    np.testing.assert_allclose(total, 3.0 * q.numpy().sum(), rtol=1e-5)


# (b) Plain, not composite: its tensor at every border.


def test_stock_export_and_predict_give_tensors(tmp_path):
    model = normal_model()
    assert not isinstance(model(X), tf.__internal__.CompositeTensor)
    model.export(str(tmp_path), verbose=False)
    loaded, predicted = tf.saved_model.load(str(tmp_path)), model.predict(X, verbose=0)
    assert isinstance(predicted, np.ndarray)
    np.testing.assert_allclose(predicted, model(X).mean(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loaded.serve(X), predicted, rtol=1e-5, atol=1e-6)


def test_distribution_that_is_not_composite():
    flow = tfb.MaskedAutoregressiveFlow(lambda y: (tf.ones_like(y), tf.zeros_like(y)))
    layer = tfpl.DistributionLambda(
        lambda t: flow(tfd.MultivariateNormalDiag(t)), lambda p: flow(p.distribution.loc)
    )
    model = keras.Sequential([keras.Input((2,)), layer])
    np.testing.assert_array_equal(model.predict(LOC, verbose=0), LOC + 1.0)
    with pytest.raises(
        NotImplementedError,
        match=r"TransformedDistribution.* leaves a tf\.function only if .* Return",
    ):
        tf.function(lambda: layer(LOC).tensor_distribution)()
    eager = layer(LOC)
    np.testing.assert_allclose(
        eager.log_prob(LOC), flow(tfd.MultivariateNormalDiag(LOC)).log_prob(LOC), rtol=1e-5
    )


def test_border_of_a_function():
    layer = tfpl.DistributionLambda(lambda t: tfd.Normal(t, 2.0), MEAN)
    tensor, distribution = tf.function(lambda: (layer(LOC), layer(LOC).tensor_distribution))()
    assert (type(tensor), type(distribution)) == (type(tf.constant(0.0)), tfd.Normal)
    np.testing.assert_array_equal(tensor, LOC)
    np.testing.assert_array_equal(distribution.stddev(), np.full_like(LOC, 2.0))


# (c) A whole distribution, and a tensor.

DISTRIBUTIONS = [
    lambda: tfd.MultivariateNormalDiag(tf.Variable(LOC), [1.0, 2.0]),
    lambda: tfd.Poisson(log_rate=LOC),
    lambda: tfd.Independent(tfd.Bernoulli(logits=LOC, dtype=tf.float32), 1),
    lambda: tfd.TransformedDistribution(tfd.Normal(LOC, 1.0), tfb.Exp()),
    lambda: tfd.JointDistributionSequential([tfd.Normal(LOC, 1.0), lambda z: tfd.Normal(z, 2.0)]),
]
NOT_ASKED = {
    "with_name_scope": "decorates the methods of a tf.Module, says nothing of the distribution"
}


def ask(distribution, name, arguments):
    """Get an attribute, or call a method with what its required arguments are known to be."""
    attribute = getattr(distribution, name)
    if not callable(attribute):
        return attribute
    parameters = inspect.signature(getattr(tfd.Distribution, name)).parameters
    required = [
        p.name
        for p in parameters.values()
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    positional = [arguments[argument] for argument in required if argument != "self"]
    try:
        return attribute(*positional, **({"seed": SEED} if "seed" in parameters else {}))
    except Exception as refusal:
        return refusal


def facts(answer) -> str:
    """All that an answer shows, without addresses in memory."""
    shown = answer.parameters if isinstance(answer, tfd.Distribution) else answer
    return re.sub(" at 0x[0-9a-f]+", "", repr((type(answer), shown)))


@pytest.mark.parametrize(
    "name", [n for n in dir(tfd.Distribution) if n[0] != "_" and n not in NOT_ASKED]
)
def test_every_public_name_answers_as_the_inner_one(name):
    answers = []
    for inner in (make() for make in DISTRIBUTIONS):
        value = np.full_like(LOC, 0.5)
        is_joint = isinstance(inner, tfd.JointDistribution)
        arguments = {
            "value": [value, value] if is_joint else value,
            "other": inner,
            "sample_shape": (2, 2),
        }
        answers.append(ask(inner, name, arguments))
        assert facts(ask(TensorLike(inner), name, arguments)) == facts(answers[-1])
    assert not all(isinstance(answer, Exception) for answer in answers)


def test_it_is_a_distribution_with_the_members_of_its_kind():
    q = tfpl.MultivariateNormalDiag(1)(LOC)
    assert isinstance(q, tfd.Distribution)
    np.testing.assert_array_equal(q.loc, LOC[:, :1])
    assert tfd.Independent(q, 1).event_shape == [2, 1]


UNARY = {
    "neg": operator.neg,
    "abs": abs,
    "len": len,
    "list": list,
    "tf.shape": tf.shape,
    "np.sum": np.sum,
}
BINARY = [
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "lt",
    "le",
    "gt",
    "ge",
]


@pytest.mark.parametrize("act", UNARY.values(), ids=UNARY)
def test_unary_operators_act_on_the_tensor(act):
    np.testing.assert_array_equal(
        act(TensorLike(tfd.Normal(LOC, 2.0), MEAN)), act(tf.constant(LOC))
    )


@pytest.mark.parametrize("name", BINARY)
def test_binary_operators_act_on_the_tensor(name):
    act, q, other = (
        getattr(operator, name),
        TensorLike(tfd.Normal(LOC, 2.0), MEAN),
        tf.constant([[2.0, 1], [3, 2]]),
    )
    np.testing.assert_array_equal(act(q, other), act(LOC, other))
    np.testing.assert_array_equal(act(q, other.numpy()), act(LOC, other))
    np.testing.assert_array_equal(act(other, q), act(other, LOC))
    np.testing.assert_array_equal(act(other.numpy().tolist(), q), act(other, LOC))
    np.testing.assert_array_equal(act(q, q), act(tf.constant(LOC), LOC))


def test_python_asks_the_tensor():
    q, whole = TensorLike(tfd.Normal(2.5, 1.0), MEAN), TensorLike(tfd.Bernoulli(logits=50.0))
    assert (float(q), int(q), complex(q), f"{q:.2f}", [*range(whole)]) == (
        2.5,
        2,
        2.5 + 0j,
        "2.50",
        [0],
    )
    assert (f"{q}", bool(q)) == (str(q.tensor_distribution), True)
    row = TensorLike(tfd.Normal([1.0, 2.0], 1.0), MEAN)
    assert 2.0 in row
    assert 3.0 not in row


def test_it_is_one_object_that_cannot_be_pickled():
    q, p = TensorLike(tfd.Normal(LOC, 1.0)), TensorLike(tfd.Normal(LOC, 1.0))
    assert ((q == q), (q == p), (q != p), len({q, p}), copy.copy(q) is q) == (
        True,
        False,
        True,
        2,
        True,
    )
    np.testing.assert_array_equal(tf.equal(q, q), np.ones([2, 2], bool))
    assert copy.deepcopy(q).tensor_distribution is not q.tensor_distribution
    np.testing.assert_array_equal(copy.deepcopy(q), q)
    with pytest.raises(
        TypeError, match=r"Normal.* cannot be pickled: .*Save the model, or pickle np.asarray\(q\)"
    ):
        pickle.dumps(q)


@pytest.mark.parametrize(
    "function", [np.mean, np.std, np.prod, np.argmax, np.copy, lambda q: np.concatenate([q, q])]
)
def test_numpy_sees_an_array(function):
    np.testing.assert_array_equal(function(TensorLike(tfd.Normal(LOC, 2.0), MEAN)), function(LOC))


CONVERTED = {
    "sample": (tfd.Distribution.sample, tf.int32),
    "mean": (tfd.Distribution.mean, tf.float32),
    "mode": (tfd.Distribution.mode, tf.int32),
    "own": (lambda p: tf.cast(p.sample(), tf.float16), tf.float16),
}


@pytest.mark.parametrize(("convert", "dtype"), CONVERTED.values(), ids=CONVERTED)
def test_dtype_is_that_of_the_tensor(convert, dtype):
    q = TensorLike(tfd.Bernoulli(logits=LOC), convert)
    assert (q.dtype, q._tensor, q.value().dtype, q.dtype) == (dtype, None, dtype, dtype)


def test_cast_keeps_the_distribution_and_the_draw():
    q = TensorLike(tfd.Bernoulli(logits=LOC))
    for cast in (
        tf.cast(q, tf.float16),
        tf.cast(x=q, dtype="float16"),
        keras.ops.cast(q, "float16"),
    ):
        assert (type(cast), cast.dtype, cast.value().dtype) == (TensorLike, tf.float16, tf.float16)
        assert cast.tensor_distribution is q.tensor_distribution
        np.testing.assert_array_equal(cast, q)


@pytest.mark.parametrize("axis", [-1, 1])
def test_a_last_axis_is_one_of_the_batch(axis):
    q = TensorLike(tfd.Normal(LOC[0], [1.0, 2.0]))
    column = tf.expand_dims(q, axis)
    assert (type(column), column.batch_shape, column.shape) == (TensorLike, (2, 1), (2, 1))
    np.testing.assert_array_equal(column, q.numpy()[:, np.newaxis])
    np.testing.assert_array_equal(column.log_prob(LOC[:, :1])[:, 0], q.log_prob(LOC[:, 0]))


AXES = {
    "event": (lambda: TensorLike(tfd.MultivariateNormalDiag(LOC)), -1),
    "first": (lambda: TensorLike(tfd.Normal(LOC, 1.0)), 0),
    "draws": (lambda: TensorLike(tfd.Normal(LOC[0], 1.0), lambda p: p.sample(5)), -1),
}


@pytest.mark.parametrize(("make", "axis"), AXES.values(), ids=AXES)
def test_other_new_axes_give_a_tensor(make, axis):
    q = make()
    assert not isinstance(tf.expand_dims(q, axis), tfd.Distribution)
    np.testing.assert_array_equal(tf.expand_dims(q, axis), np.expand_dims(q, axis))


@pytest.mark.parametrize("dtype", ["float16", "float64", "int64", "bool"])
def test_an_outcome_is_brought_to_the_dtype_of_the_distribution(dtype):
    q, ones = TensorLike(tfd.Normal(LOC, 2.0)), tf.ones([2, 2], dtype)
    for name in (
        "log_prob",
        "prob",
        "cdf",
        "log_cdf",
        "survival_function",
        "log_survival_function",
    ):
        np.testing.assert_array_equal(
            getattr(q, name)(ones), getattr(q.tensor_distribution, name)(np.float32(1.0))
        )
    np.testing.assert_array_equal(q.log_prob(value=ones), q.log_prob(1.0))
    joint = TensorLike(tfd.JointDistributionNamed({"x": tfd.Normal(0.0, 1.0)}))
    np.testing.assert_array_equal(joint.log_prob(x=1.0), joint.log_prob({"x": 1.0}))


def test_logical_operators_act_on_the_tensor():
    q, positive = TensorLike(tfd.Normal(LOC, 2.0), lambda p: p.mean() > 0.0), LOC > 0.0
    for act in (operator.and_, operator.or_, operator.xor, lambda a, b: ~a):
        np.testing.assert_array_equal(act(q, [True, False]), act(positive, [True, False]))


@pytest.mark.parametrize("left", [LOC, np.float32(2.0)], ids=["array", "scalar"])
def test_numpy_on_the_left_gives_a_tensor(left):
    loc = tf.Variable(LOC)
    with tf.GradientTape() as tape:
        product = left * TensorLike(tfd.Normal(loc, 1.0), MEAN)
    assert tf.is_tensor(product)
    np.testing.assert_array_equal(tape.gradient(product, loc), np.broadcast_to(left, LOC.shape))
    np.testing.assert_array_equal(
        tf.function(lambda: left * TensorLike(tfd.Normal(loc, 1.0), MEAN))(), left * LOC
    )


@pytest.mark.parametrize(
    "index", [0, (0, 1), slice(1, None), (..., None), (slice(None), -1)], ids=str
)
def test_indexing_acts_on_the_tensor(index):
    np.testing.assert_array_equal(TensorLike(tfd.Normal(LOC, 2.0), MEAN)[index], LOC[index])


@pytest.mark.parametrize(
    "wrap", [(True, False), (False, True), (True, True)], ids=["left", "right", "both"]
)
def test_kl_divergence(wrap):
    scale, other = np.array([[1.0, 2.0], [2.0, 1.0]], "float32")
    inner = tfd.MultivariateNormalDiag(LOC, scale), tfd.MultivariateNormalDiag([0.0, 0.0], other)
    q, p = (TensorLike(d) if wrapped else d for d, wrapped in zip(inner, wrap, strict=True))
    kl = (np.log(other / scale) + (scale**2 + LOC**2) / (2 * other**2) - 0.5).sum(-1)
    np.testing.assert_allclose(tfd.kl_divergence(q, p), kl, rtol=1e-5)
    np.testing.assert_allclose(q.kl_divergence(p), kl, rtol=1e-5)
    np.testing.assert_allclose(q.cross_entropy(p), kl + inner[0].entropy(), rtol=1e-5)


KL_OF = {
    "flow": (
        lambda: tfb.Shift(1.0)(tfb.Scale([2.0, 3.0])(tfd.Normal(LOC, 1.0))),
        lambda: tfb.Shift(1.0)(tfb.Scale([2.0, 3.0])(tfd.Normal([0.0, 1.0], 2.0))),
    ),
    "joint": (
        lambda: tfd.JointDistributionSequential([tfd.Normal(1.0, 1.0), tfd.Normal(3.0, 2.0)]),
        lambda: tfd.JointDistributionSequential([tfd.Normal(0.0, 1.0), tfd.Normal(0.0, 1.0)]),
    ),
    "Independent": (
        lambda: tfd.Independent(tfd.Normal(LOC, 1.0), 1),
        lambda: tfd.Independent(tfd.Normal([0.0, 0.0], 1.0), 1),
    ),
}


@pytest.mark.parametrize(("make_q", "make_p"), KL_OF.values(), ids=KL_OF)
def test_kl_divergence_of_flows_and_joint_distributions(make_q, make_p):
    q, p = make_q(), make_p()
    expected = tfd.kl_divergence(q, p)
    assert np.isfinite(expected).all()
    for left, right in ((TensorLike(q), p), (q, TensorLike(p)), (TensorLike(q), TensorLike(p))):
        np.testing.assert_array_equal(tfd.kl_divergence(left, right), expected)
        np.testing.assert_array_equal(left.kl_divergence(right), expected)


# (d) Nothing but networks is cast.

POLICIES = {"mixed_float16": "float32", "mixed_bfloat16": "float32", "float64": "float64"}


@pytest.fixture(params=POLICIES)
def density_dtype(request):
    keras.config.set_floatx(POLICIES[request.param])
    keras.config.set_dtype_policy(request.param)
    yield POLICIES[request.param]
    keras.config.set_floatx("float32")


def test_a_layer_that_takes_a_distribution_gets_it(density_dtype):
    received = []
    take = tfpl.DistributionLambda(lambda q: received.append(q) or tfd.Normal(q + 0.0, 1.0), "mean")
    p = keras.Sequential([normal_model(), take])(X)
    assert isinstance(received[-1], tfd.Distribution)
    np.testing.assert_array_equal(p.mean(), received[-1].mean())
    assert p.dtype == received[-1].dtype == density_dtype


def test_a_layer_asks_the_distribution_before_it():
    ask = tfpl.DistributionLambda(lambda q: tfd.Normal(q.mean(), q.stddev()), "mean")
    np.testing.assert_allclose(
        keras.Sequential([model := normal_model(), ask])(X).mean(), model(X).mean(), rtol=1e-6
    )


def test_large_values_survive(density_dtype):
    x = np.array([[70001.0]])
    normal = tfpl.DistributionLambda(lambda loc: tfd.Normal(loc, tf.ones([], loc.dtype)), "mean")
    p = keras.Sequential([keras.Input((1,)), normal])(x)
    assert p.log_prob(x).dtype == density_dtype
    np.testing.assert_allclose(p.log_prob(x), [[-0.5 * np.log(2.0 * np.pi)]], rtol=1e-6)
    assert keras.layers.Dense(2)(p).dtype == keras.config.dtype_policy().compute_dtype


def test_loss_gets_the_distribution(density_dtype):
    model = normal_model()
    model.compile("sgd", loss=lambda y, p: -p.log_prob(y))
    expected = -np.mean(model(X).log_prob(tf.cast(Y, density_dtype)))
    np.testing.assert_allclose(model.evaluate(X, Y, verbose=0), expected, rtol=1e-2)


# (e) The plain object inside, and what Keras does with the whole.


def test_unwrap_gives_the_plain_distribution():
    plain = tfd.Normal(LOC, 2.0)
    assert (
        unwrap(TensorLike(TensorLike(plain)))
        is TensorLike(plain).tensor_distribution
        is unwrap(plain)
        is plain
    )


def test_activity_regularizer_receives_the_distribution():
    prior = tfd.Independent(tfd.Normal([0.0, 0.0, 0.0], 1.0), 1)
    model = normal_model(activity_regularizer=lambda q: tf.reduce_sum(tfd.kl_divergence(q, prior)))
    q = model(X)
    np.testing.assert_allclose(model.losses, [np.mean(q.kl_divergence(prior))], rtol=1e-5)


def test_fit_evaluate_predict():
    model = normal_model()
    model.compile("adam", loss=lambda y, p: -p.log_prob(y), metrics=["mse"])
    first, *_, last = model.fit(X, Y, epochs=3, verbose=0).history["loss"]
    assert last < first
    q, results = model(X), model.evaluate(X, Y, verbose=0, return_dict=True)
    np.testing.assert_allclose(results["loss"], -np.mean(q.log_prob(Y)), rtol=1e-5)
    np.testing.assert_allclose(results["mse"], np.mean((Y - q.mean()) ** 2), rtol=1e-5)
    np.testing.assert_allclose(model.predict(X, verbose=0), q.mean(), rtol=1e-5, atol=1e-6)


def test_models_compose():
    encoder = normal_model()
    decoder = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(3), tfpl.IndependentBernoulli(3)]
    )
    autoencoder = keras.Model(encoder.inputs[0], decoder(encoder.outputs[0]))
    np.testing.assert_allclose(autoencoder(X).mean(), decoder(encoder(X).mean()).mean(), rtol=1e-5)
    assert autoencoder.output_shape == (None, 3)


def test_what_cannot_be_is_said():
    with pytest.raises(
        TypeError, match="Return one from the function given to the distribution layer"
    ):
        tfpl.DistributionLambda(lambda t: t)(LOC)
    with pytest.raises(TypeError, match="converts to a tensor of float32, but int32 was expected"):
        tf.convert_to_tensor(TensorLike(tfd.Normal(LOC, 2.0)), tf.int32)
    with pytest.raises(
        TypeError, match=r"convert_to_tensor_fn gave list for .*Normal.*, expected one tensor"
    ):
        TensorLike(tfd.Normal(LOC, 2.0), lambda p: [p.mean(), p.mean()]).value()


PAIR = tfd.JointDistributionSequential([tfd.Normal(0.0, 1.0), tfd.Normal([0.0, 0.0], 1.0)])
AS_TENSOR = {
    "value": TensorLike.value,
    "shape": lambda q: q.shape,
    "add": lambda q: q + 1.0,
    "np": np.asarray,
}


@pytest.mark.parametrize("use", AS_TENSOR.values(), ids=AS_TENSOR)
def test_an_event_of_several_parts_is_no_tensor(use):
    with pytest.raises(
        TypeError,
        match=r"has several parts and cannot become one tensor\. Ask it as a distribution",
    ):
        use(TensorLike(PAIR))


def test_an_event_of_several_parts_is_a_distribution():
    first = tfpl.DistributionLambda(lambda t: PAIR, lambda pair: pair.sample()[1])
    for q in (TensorLike(PAIR), tfpl.DistributionLambda(lambda t: PAIR)(LOC), first(LOC)):
        assert q.tensor_distribution is PAIR
        np.testing.assert_array_equal(
            q.log_prob([0.0, [0.0, 0.0]]), PAIR.log_prob([0.0, [0.0, 0.0]])
        )
        assert [part.shape for part in q.sample(3, seed=SEED)] == [(3,), (3, 2)]
    assert keras.Sequential([keras.Input((2,)), first, keras.layers.Reshape((1,))])(LOC).shape == (
        2,
        1,
    )
    with pytest.raises(TypeError, match="has several parts"):
        keras.Sequential([keras.Input((2,)), tfpl.DistributionLambda(lambda t: PAIR)])
