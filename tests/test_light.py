"""Our light distributions answer as TFP's own do, whatever is asked of them."""

import copy
import functools
import inspect
import pickle

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tests.conftest import mostly_slow
from tfp_vae.layers import discrete, light

tfd = tfp.distributions
RANDOM = np.random.default_rng(0)
SEED = [1, 2]


def normal(*shape):
    return tf.constant(RANDOM.normal(size=shape), tf.float32)


LOC, SCALE, X = normal(4, 3), tf.exp(normal(4, 3)), normal(4, 3)
# What it is made of: plain tensors, and all else that TFP takes.
PARAMETERS = {
    "plain": {"loc": LOC, "scale_diag": SCALE},
    "one scale for all": {"loc": LOC, "scale_diag": SCALE[0]},
    "one location for all": {"loc": LOC[0], "scale_diag": SCALE},
    "no batch": {"loc": LOC[0], "scale_diag": SCALE[0]},
    "two batch axes": {"loc": normal(2, 1, 3), "scale_diag": tf.exp(normal(4, 3))},
    "negative scales": {"loc": LOC, "scale_diag": -SCALE},
    "float64": {"loc": tf.cast(LOC, tf.float64), "scale_diag": tf.cast(SCALE, tf.float64)},
    "arrays": {"loc": LOC.numpy(), "scale_diag": SCALE.numpy()},
    "lists": {"loc": [0.0, 1.0, 2.0], "scale_diag": [1.0, 2.0, 3.0]},
    "one location": {"loc": normal(4, 1), "scale_diag": SCALE},
    "no scale": {"loc": LOC},
    "no location": {"scale_diag": SCALE},
    "variables": {"loc": tf.Variable(LOC), "scale_diag": tf.Variable(SCALE)},
    "checked": {"loc": LOC, "scale_diag": SCALE, "validate_args": True},
    "exact sums": {"loc": LOC, "scale_diag": SCALE, "experimental_use_kahan_sum": True},
    "named": {"loc": LOC, "scale_diag": SCALE, "name": "q"},
    "one value": {"loc": LOC[:, :1], "scale_diag": SCALE[:, :1]},
    "integers": {"loc": tf.ones([2, 3], tf.int32), "scale_diag": tf.ones([2, 3], tf.int32)},
    "batches that differ": {"loc": normal(2, 3), "scale_diag": tf.exp(normal(4, 3))},
}
IMAGES, LOGITS = tf.constant(RANDOM.normal(size=(4, 2, 3)), tf.float32), normal(4, 2, 3)
# The same for what is inside of an Independent.
INSIDE = {
    "one axis": {"distribution": tfd.Normal(LOC, SCALE), "reinterpreted_batch_ndims": 1},
    "two axes": {"distribution": tfd.Normal(IMAGES, 1.0), "reinterpreted_batch_ndims": 2},
    "all axes": {"distribution": tfd.Laplace(LOC, SCALE), "reinterpreted_batch_ndims": 2},
    "no axis": {"distribution": tfd.Normal(LOC, SCALE), "reinterpreted_batch_ndims": 0},
    "too many axes": {"distribution": tfd.Normal(LOC, SCALE), "reinterpreted_batch_ndims": 3},
    "of zeros and ones": {
        "distribution": tfd.Bernoulli(logits=LOGITS, dtype=tf.float32),
        "reinterpreted_batch_ndims": 2,
    },
    "of whole numbers": {"distribution": tfd.Poisson(SCALE), "reinterpreted_batch_ndims": 1},
    "of vectors": {
        "distribution": tfd.MultivariateNormalDiag(IMAGES, tf.ones_like(IMAGES)),
        "reinterpreted_batch_ndims": 1,
    },
    "of an Independent": {
        "distribution": tfd.Independent(tfd.Normal(IMAGES, 1.0), 1),
        "reinterpreted_batch_ndims": 1,
    },
    "checked": {
        "distribution": tfd.Normal(LOC, SCALE, validate_args=True),
        "reinterpreted_batch_ndims": 1,
        "validate_args": True,
    },
    "exact sums": {
        "distribution": tfd.Normal(LOC, SCALE),
        "reinterpreted_batch_ndims": 1,
        "experimental_use_kahan_sum": True,
    },
    "named": {"distribution": tfd.Normal(LOC, SCALE), "reinterpreted_batch_ndims": 1, "name": "q"},
    "float64": {
        "distribution": tfd.Normal(tf.cast(LOC, tf.float64), tf.cast(SCALE, tf.float64)),
        "reinterpreted_batch_ndims": 1,
    },
    "variables": {
        "distribution": tfd.Normal(tf.Variable(LOC), tf.Variable(SCALE)),
        "reinterpreted_batch_ndims": 1,
    },
    "an array of axes": {
        "distribution": tfd.Normal(LOC, SCALE),
        "reinterpreted_batch_ndims": np.int32(1),
    },
    "a tensor of axes": {
        "distribution": tfd.Normal(LOC, SCALE),
        "reinterpreted_batch_ndims": tf.constant(1),
    },
    "no composite tensor": {
        "distribution": tfd.TransformedDistribution(
            tfd.Normal(LOC, SCALE),
            tfp.bijectors.Inline(tf.exp, tf.math.log, forward_min_event_ndims=0),
        ),
        "reinterpreted_batch_ndims": 1,
    },
}
OTHER = tfd.MultivariateNormalTriL(LOC, tf.linalg.diag(SCALE) + 0.1 * tf.eye(3))
# What is asked of it: a function of the distribution and of values in its shape.
QUESTIONS = {
    "repr": lambda q, x: repr(q),
    "str": lambda q, x: str(q),
    "name": lambda q, x: q.name,
    "dtype": lambda q, x: q.dtype,
    "parameters": lambda q, x: sorted(q.parameters),
    "trainable_variables": lambda q, x: len(q.trainable_variables),
    "reparameterization_type": lambda q, x: q.reparameterization_type,
    "validate_args": lambda q, x: q.validate_args,
    "allow_nan_stats": lambda q, x: q.allow_nan_stats,
    "batch_shape": lambda q, x: q.batch_shape,
    "event_shape": lambda q, x: q.event_shape,
    "batch_shape_tensor": lambda q, x: q.batch_shape_tensor(),
    "event_shape_tensor": lambda q, x: q.event_shape_tensor(),
    "is_scalar_batch": lambda q, x: q.is_scalar_batch(),
    "is_scalar_event": lambda q, x: q.is_scalar_event(),
    "loc": lambda q, x: 0.0 if q.loc is None else tf.convert_to_tensor(q.loc),
    "scale": lambda q, x: q.scale.to_dense(),
    "scale's class": lambda q, x: type(q.scale).__name__,
    "bijector": lambda q, x: q.bijector.forward(x),
    "distribution": lambda q, x: q.distribution.log_prob(x),
    "mean": lambda q, x: q.mean(),
    "mode": lambda q, x: q.mode(),
    "stddev": lambda q, x: q.stddev(),
    "variance": lambda q, x: q.variance(),
    "covariance": lambda q, x: q.covariance(),
    "entropy": lambda q, x: q.entropy(),
    "log_prob": lambda q, x: q.log_prob(x),
    "prob": lambda q, x: q.prob(x),
    "unnormalized_log_prob": lambda q, x: q.unnormalized_log_prob(x),
    "x of another size": lambda q, x: q.log_prob(tf.concat([x, x, x], -1)),
    "under XLA": lambda q, x: tf.function(lambda: q.sample(2, seed=SEED), jit_compile=True)(),
    "draws before": lambda q, x: q.log_prob(tf.stack([x, 2.0 * x])),
    "one x for all": lambda q, x: q.log_prob(x[..., :1]),
    "sample": lambda q, x: q.sample(seed=SEED),
    "samples": lambda q, x: q.sample(5, seed=SEED),
    "samples of two axes": lambda q, x: q.sample([2, 3], seed=SEED),
    "sample and density": lambda q, x: q.experimental_sample_and_log_prob(2, seed=SEED),
    "local measure": lambda q, x: q.experimental_local_measure(x)[0],
    "cdf": lambda q, x: q.cdf(x),
    "quantile": lambda q, x: q.quantile(x),
    "cross_entropy": lambda q, x: q.cross_entropy(q),
    "copy": lambda q, x: q.copy(loc=tf.ones_like(x)).log_prob(x),
    "slice": lambda q, x: q[..., tf.newaxis].mean(),
    "to TFP's": lambda q, x: q.kl_divergence(tfd.MultivariateNormalDiag(x, tf.ones_like(x))),
    "from TFP's": lambda q, x: tfd.MultivariateNormalDiag(x, tf.ones_like(x)).kl_divergence(q),
    "to another class": lambda q, x: q.kl_divergence(OTHER),
    "from another class": lambda q, x: OTHER.kl_divergence(q),
    "event space": lambda q, x: q.experimental_default_event_space_bijector()(x),
    "default parameters": lambda q, x: sorted(q.parameter_properties()),
    "fitted": lambda q, x: type(q).experimental_fit(x).mean(),
    "mixed": lambda q, x: tfd.MixtureSameFamily(tfd.Categorical(tf.zeros(q.batch_shape)), q).mean(),
    "repeated": lambda q, x: tfd.Sample(q, 2).sample(seed=SEED),
    "joint": lambda q, x: tfd.JointDistributionNamed({"z": q}).log_prob({"z": x}),
    "transformed": lambda q, x: tfp.bijectors.Exp()(q).log_prob(tf.exp(x)),
    "across a function": lambda q, x: tf.function(lambda: q)().mean(),
    "gradient": lambda q, x: tfp.math.value_and_gradient(q.log_prob, x)[1],
    "second gradient": lambda q, x: tfp.math.value_and_gradient(
        lambda y: tf.reduce_sum(tfp.math.value_and_gradient(q.log_prob, y)[1] ** 2), x
    )[1],
    "log_cdf": lambda q, x: q.log_cdf(x),
    "survival_function": lambda q, x: q.survival_function(x),
    "log_survival_function": lambda q, x: q.log_survival_function(x),
    "is sharded": lambda q, x: q.experimental_is_sharded,
    "global draws": lambda q, x: (tf.random.set_seed(3), q.sample(2, seed=5))[1],
}  # fmt: skip
# The same, of what only an Independent has.
QUESTIONS_OF_INSIDE = {
    "class": lambda q, x: type(q).__name__,
    "inside": lambda q, x: q.distribution.mean(),
    "axes": lambda q, x: int(q.reinterpreted_batch_ndims),
    "copy of fewer axes": lambda q, x: q.copy(reinterpreted_batch_ndims=0).log_prob(x),
    "copy of too many": lambda q, x: q.copy(reinterpreted_batch_ndims=9).log_prob(x),
    "copy of another": lambda q, x: q.copy(distribution=tfd.Normal(x, 2.0)).log_prob(x),
    "row": lambda q, x: q[1].log_prob(x[1]),
    "rows of a row": lambda q, x: q[1:3][0].mean(),
    "to TFP's": lambda q, x: q.kl_divergence(tfd.Independent(q.distribution.copy(), 1)),
    "from TFP's": lambda q, x: tfd.Independent(q.distribution.copy(), 1).kl_divergence(q),
    "log of a ratio": lambda q, x: tfp.experimental.distributions.log_prob_ratio(q, x, q, 2.0 * x),
    "across a loop": lambda q, x: tf.while_loop(
        lambda i, q: i < 2, lambda i, q: (i + 1, q), (0, q)
    )[1].mean(),
    "batches by vectorizing": lambda q, x: tf.vectorized_map(lambda y: q.log_prob(y), x[None]),
    "not inside of a function": lambda q, x: tf.function(lambda: q.copy().log_prob(x))(),
}
# Public names that no question asks: they are for those who write distributions.
NOT_ASKED = {
    "experimental_fit", "experimental_from_mean_variance", "param_shapes", "param_static_shapes",
    "parameter_properties", "submodules", "trainable_variables", "non_trainable_variables",
    "variables", "with_name_scope", "name_scope", "kl_divergence", "experimental_sample_and_log_prob",
    "experimental_local_measure", "experimental_default_event_space_bijector", "experimental_shard_axis_names",
    "experimental_is_sharded",
}  # fmt: skip


def answer(question, cls, parameters):
    """What is answered, or the class of the error."""
    try:
        q = cls(**parameters)
        shape = [*q.batch_shape, *q.event_shape]
        x = tf.cast(np.random.default_rng(1).normal(size=shape), q.dtype)
        found = question(q, x)
    except Exception as error:
        return type(error)
    if tf.nest.is_nested(found) or tf.is_tensor(found):
        return tf.nest.map_structure(
            lambda one: np.asarray(one) if tf.is_tensor(one) else one, found
        )
    return found


def expect_equal_answers(own, tfps, parameters, questions):
    for asked, question in questions.items():
        ours, theirs = (answer(question, cls, parameters) for cls in (own, tfps))
        tf.nest.assert_same_structure(ours, theirs)
        for one, other in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True):
            if isinstance(other, np.ndarray) and other.dtype.kind == "f":
                tolerance = 0.0 if "sample" in asked and "density" not in asked else 2e-5
                np.testing.assert_allclose(one, other, tolerance, tolerance, err_msg=asked)
                assert one.dtype == other.dtype
            else:
                np.testing.assert_array_equal(one, other, err_msg=asked)


@pytest.mark.parametrize("name", mostly_slow(PARAMETERS, "plain", "two batch axes", "no location"))
@pytest.mark.rows(3, 6)
def test_the_normal_one_answers_as_tfps_own_does(name):
    expect_equal_answers(
        light.MultivariateNormalDiag, tfd.MultivariateNormalDiag, PARAMETERS[name], QUESTIONS
    )


@pytest.mark.parametrize("name", mostly_slow(INSIDE, "two axes", "too many axes", "of vectors"))
def test_the_independent_one_answers_as_tfps_own_does(name):
    questions = {**QUESTIONS, **QUESTIONS_OF_INSIDE}
    expect_equal_answers(light.Independent, tfd.Independent, INSIDE[name], questions)


def test_every_public_name_is_asked_for():
    for cls in (tfd.MultivariateNormalDiag, tfd.Independent):
        public = {name for name, _ in inspect.getmembers(cls) if not name.startswith("_")}
        assert public - NOT_ASKED - {"reinterpreted_batch_ndims"} <= {*QUESTIONS}


def test_batches_of_unknown_size_compile_and_keep_their_shapes():
    @tf.function(
        input_signature=[tf.TensorSpec([None, 3]), tf.TensorSpec([None, 3])], jit_compile=True
    )
    def of(loc, scale):
        q = light.MultivariateNormalDiag(loc, scale)
        assert q.batch_shape.as_list() == [None]
        assert q.sample(2, seed=SEED).shape.as_list() == [2, None, 3]
        return q.log_prob(X), q.mean(), q.stddev(), q.batch_shape_tensor()

    q = tfd.MultivariateNormalDiag(LOC, SCALE)
    density, mean, stddev, shape = of(LOC, SCALE)
    np.testing.assert_allclose(density, q.log_prob(X), 1e-5)
    np.testing.assert_array_equal(mean, LOC)
    np.testing.assert_array_equal(stddev, SCALE)
    assert list(shape) == [4]


def test_gradients_reach_the_parameters_through_draws_and_densities():
    def gradients(cls):
        with tf.GradientTape() as tape:
            tape.watch([LOC, SCALE])
            q = cls(LOC, SCALE)
            loss = tf.reduce_sum(q.log_prob(X)) + tf.reduce_sum(q.sample(3, seed=SEED) ** 2)
        return tape.gradient(loss, [LOC, SCALE])

    for ours, theirs in zip(
        gradients(light.MultivariateNormalDiag),
        gradients(tfd.MultivariateNormalDiag),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, 1e-4)


@pytest.mark.parametrize(
    "q",
    [
        light.MultivariateNormalDiag(LOC, SCALE),
        light.Independent(tfd.Bernoulli(logits=LOC), 1),
    ],
    ids=repr,
)
def test_copies_and_pickles_are_equal_which_tfp_does_not_offer(q):
    for again in (copy.copy(q), copy.deepcopy(q), pickle.loads(pickle.dumps(q))):
        assert type(again) is type(q)
        np.testing.assert_array_equal(again.log_prob(X), q.log_prob(X))


def test_what_is_made_in_one_graph_serves_in_the_next():
    q = light.MultivariateNormalDiag(LOC, SCALE)
    for _ in range(2):  # two functions, two graphs
        of = tf.function(lambda x: (q.bijector.inverse(x), q.scale.to_dense(), q.entropy()))
        np.testing.assert_allclose(of(X)[0], (X - LOC) / SCALE, 1e-5)

    @tf.function
    def inner_before_outer(loc):
        q = light.MultivariateNormalDiag(loc, SCALE)
        looped = tf.map_fn(lambda _: q.bijector.inverse(X), tf.zeros([2]))
        return looped, q.bijector.inverse(X)

    looped, whole = inner_before_outer(LOC)
    np.testing.assert_array_equal(looped[1], whole)


# Products of 16, 14 and 13 factors, and none.
@pytest.mark.parametrize("shape", [(28, 28, 1), (14,), (13, 17), (19,)])
def test_summed_densities_of_bits(shape):
    """The density of an image, and its first and second gradients, are those of TFP's."""
    logits = tf.constant(RANDOM.normal(scale=5.0, size=(3, *shape)))
    events = {
        "bits": RANDOM.integers(0, 2, size=(3, *shape)),
        "fractions": RANDOM.uniform(size=(3, *shape)),
        "several": RANDOM.integers(0, 2, size=(2, 1, *shape)),
        "one for all": np.zeros([]),
    }
    for event in events.values():

        def density(bernoulli, logits, event=event):
            inside = bernoulli(logits=logits, dtype=logits.dtype)
            return light.Independent(inside, len(shape)).log_prob(event)

        found, expected = (
            _with_gradients(functools.partial(density, one), logits)
            for one in (discrete.Bernoulli, tfd.Bernoulli)
        )
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def _with_gradients(function, x):
    with tf.GradientTape() as second:
        second.watch(x)
        with tf.GradientTape() as first:
            first.watch(x)
            y = function(x)
        slope = first.gradient(y, x)
        squares = tf.reduce_sum(slope**2)
    return y, slope, second.gradient(squares, x)


def test_summed_densities_of_what_is_checked():
    """Checked bits are checked, and densities near 0 of an odd number of bits are not rounded to 0."""
    checked = discrete.Bernoulli(logits=tf.zeros([2]), dtype=tf.float32, validate_args=True)
    with pytest.raises(tf.errors.InvalidArgumentError):
        light.Independent(checked, 1).log_prob([2.0, 0.5])
    sure = light.Independent(discrete.Bernoulli(logits=tf.fill([17], 20.0)), 1)
    np.testing.assert_allclose(sure.log_prob(tf.ones([17])), -17 * np.exp(-20.0), rtol=1e-4)


def test_summed_densities_at_the_ends():
    """Infinite logits, unknown sizes, and half precision, whose sums are as exact as TFP's."""
    ends = light.Independent(discrete.Bernoulli(logits=tf.constant([np.inf, -np.inf])), 1)
    assert ends.log_prob([1, 0]) == 0.0
    assert ends.log_prob([0, 0]) == -np.inf

    @tf.function(input_signature=[tf.TensorSpec([None, None])], autograph=False)
    def of_any_size(logits):
        return light.Independent(discrete.Bernoulli(logits=logits), 1).log_prob(
            tf.ones_like(logits)
        )

    np.testing.assert_allclose(of_any_size(tf.zeros([2, 6])), [6 * np.log(0.5)] * 2, rtol=1e-6)
    logits = tf.fill([256], tf.constant(-9.0, tf.float16))
    half, own = (
        light.Independent(one(logits=logits, dtype=tf.float16), 1).log_prob(tf.zeros_like(logits))
        for one in (tfd.Bernoulli, discrete.Bernoulli)
    )
    assert half == own < 0.0
