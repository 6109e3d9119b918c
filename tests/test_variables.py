"""Priors made of `tf.Variable`s: they train, save and are served as Keras weights, as in tfp.layers."""

import functools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tests.conftest import mostly_slow
from tfp_vae import layers as tfpl
from tfp_vae.layers import variables

tfd, tfb = tfp.distributions, tfp.bijectors
RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 3)).astype("float32")


def variable(*shape, value=0.5, **kwargs):
    return tf.Variable(np.full(shape, value, "float32"), **kwargs)


def twice(loc):
    return tfd.Independent(tfd.Normal(loc, tfp.util.DeferredTensor(loc, tfb.Exp())), 1)


def positive(value, bijector=None, **kwargs):
    return tfp.util.TransformedVariable(value, bijector or tfb.Softplus(), **kwargs)


# Each distribution over two values, and the numbers of its trainable and of its other weights.
PRIORS = {
    "diagonal": (lambda: tfd.MultivariateNormalDiag(variable(2), positive([1.0, 2.0])), 2, 0),
    "fixed scale": (
        lambda: tfd.MultivariateNormalDiag(variable(2), positive([1.0, 2.0], trainable=False)),
        1,
        1,
    ),
    "nested bijectors": (
        lambda: tfd.MultivariateNormalDiag(
            tf.zeros(2),
            positive(tf.ones(2), tfb.Chain([tfb.Shift(tf.Variable(0.1)), tfb.Softplus()])),
        ),
        2,
        0,
    ),
    "full": (
        lambda: tfd.MultivariateNormalTriL(variable(2), positive(tf.eye(2), tfb.FillScaleTriL())),
        2,
        0,
    ),
    "one variable twice": (lambda: twice(variable(2)), 1, 0),
    "mixture": (
        lambda: tfd.MixtureSameFamily(
            tfd.Categorical(logits=variable(3)),
            tfd.Independent(
                tfd.Normal(tf.Variable(RNG.normal(size=(3, 2)).astype("float32")), 1.0), 1
            ),
        ),
        2,
        0,
    ),
    "sample": (lambda: tfd.Sample(tfd.Normal(variable(), positive(1.0)), 2), 2, 0),
    "transformed": (
        lambda: tfd.TransformedDistribution(
            tfd.Sample(tfd.Normal(0.0, 1.0), 2), tfb.Shift(variable(2))(tfb.Scale(variable(2)))
        ),
        2,
        0,
    ),
}
how = pytest.mark.parametrize("as_layer", [False, True], ids=["regularizer", "layer"])


def model_of(prior, as_layer, K=keras, L=tfpl):
    first = [K.Input((3,)), K.layers.Dense(4)]
    if as_layer:
        return K.Sequential([*first, L.IndependentNormal(2), L.KLDivergenceAddLoss(prior)])
    regularizer = L.KLDivergenceRegularizer(prior)
    return K.Sequential([*first, L.IndependentNormal(2, activity_regularizer=regularizer)])


def loss(y, distribution):
    return -distribution.log_prob(y)


@pytest.mark.parametrize("name", mostly_slow(PRIORS, "nested bijectors", "one variable twice"))
@pytest.mark.parametrize("as_layer", mostly_slow([False, True], False))
@pytest.mark.rows(1)
def test_variables_train_save_and_train_on(name, as_layer, tmp_path):
    make, trained, fixed = PRIORS[name]
    prior = make()
    model = model_of(prior, as_layer)
    assert len(model.trainable_weights) == 2 + trained
    assert len(model.non_trainable_weights) == fixed
    before = [tf.identity(v) for v in prior.variables]
    model.compile(keras.optimizers.Adam(0.05), loss)
    model.fit(X, X[:, :2], epochs=2, verbose=0)
    for old, now in zip(before, prior.variables, strict=True):
        assert (abs(old - now).numpy().max() > 1e-3) == now.trainable, "the user's own variable"
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", custom_objects={"loss": loss})
    again = next(
        layer.distribution
        for layer in loaded._flatten_layers()
        if isinstance(layer, variables.DistributionOfVariables)
    )
    z = tf.constant(RNG.normal(size=(5, 2)).astype("float32"))
    fresh = variables.rebuilt(prior)  # without what TFP's bijectors remember
    np.testing.assert_allclose(again.log_prob(z), fresh.log_prob(tf.identity(z)), rtol=1e-5)
    assert len(loaded.trainable_weights) == 2 + trained
    assert len(loaded.non_trainable_weights) == fixed
    loaded.fit(X, X[:, :2], epochs=1, verbose=0)
    moved = [
        abs(a - b).numpy().max() for a, b in zip(again.variables, prior.variables, strict=True)
    ]
    assert [m > 0 for m in sorted(moved)] == [False] * fixed + [True] * trained
    loaded.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    assert served.serve(X[:4]).shape == (4, 2)


@pytest.mark.parametrize(
    "name", mostly_slow(["diagonal", "full", "one variable twice", "mixture"], "diagonal")
)
def test_gradients_are_those_of_tfp(name):
    """Of KL at the mean, so that both draw the same; Keras 3 counts it once, TFP twice."""
    results = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for L, weight in ((tfpl, 2.0), (tfp.layers, None)):
            keras.utils.set_random_seed(0)
            prior = PRIORS[name][0]() if name != "mixture" else _mixture()
            layer = L.IndependentNormal(
                2,
                tfd.Distribution.mean,
                activity_regularizer=L.KLDivergenceRegularizer(prior, weight=weight),
            )
            with tf.GradientTape() as tape:
                layer(tf.constant(np.linspace(-1, 1, 24, dtype="float32").reshape(6, 4)))
                total = tf.add_n(layer.losses)
            results.append([total, *tape.gradient(total, prior.trainable_variables)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def _mixture():
    locs = tf.Variable(np.arange(6, dtype="float32").reshape(3, 2) / 5)
    return tfd.MixtureSameFamily(
        tfd.Categorical(logits=variable(3)), tfd.Independent(tfd.Normal(locs, 1.0), 1)
    )


@how
def test_a_prior_in_two_places_is_trained_once(as_layer, tmp_path):
    prior = tfd.MultivariateNormalDiag(variable(2))
    inputs = keras.Input((3,))
    outputs = [model_of(prior, as_layer)(inputs) for _ in range(2)]
    model = keras.Model(inputs, outputs)
    assert len(model.trainable_weights) == 5
    model.save(tmp_path / "two.keras")
    loaded = keras.models.load_model(tmp_path / "two.keras")
    assert len(loaded.trainable_weights) == 5, "one after a reload, too"


SHIFT = tf.Variable([1.0, -1.0])
CAPTURED = tfd.MultivariateNormalDiag(SHIFT)


@keras.saving.register_keras_serializable(package="test_variables")
def around_shift(t):
    return tfd.MultivariateNormalDiag(t + SHIFT)


@keras.saving.register_keras_serializable(package="test_variables")
def captured_prior():
    return tfd.MultivariateNormalDiag(2.0 * SHIFT)


def test_variables_captured_by_a_function(tmp_path):
    """By the function of a `DistributionLambda`, and by that of a prior: one weight."""
    regularizer = tfpl.KLDivergenceRegularizer(captured_prior)
    layer = tfpl.DistributionLambda(around_shift, activity_regularizer=regularizer)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), layer])
    assert len(model.trainable_weights) == 3
    before = SHIFT.numpy()
    model.compile("sgd", loss)
    model.fit(X, X[:, :2], verbose=0)
    after = SHIFT.numpy()
    assert abs(after - before).max() > 1e-3
    model.save(tmp_path / "model.keras")
    SHIFT.assign([7.0, 7.0])
    loaded = keras.models.load_model(tmp_path / "model.keras", custom_objects={"loss": loss})
    assert len(loaded.trainable_weights) == 3
    np.testing.assert_allclose(SHIFT, after, err_msg="as saved")


def test_what_a_function_captures():
    inside, fixed = variable(2), variable(3, trainable=False)
    scale = positive(1.0)
    own = keras.Variable(np.ones(4))
    listed = [variable(5)]

    def function(t):
        return tfd.Normal(inside + fixed + scale + own + listed[0], CAPTURED.mean() + t)

    found = variables.captured_by(function)
    assert sorted(tuple(w.shape) for w in found) == [(), (2,), (2,), (3,), (4,), (5,)]
    assert [w.trainable for w in found if w.shape == (3,)] == [False]
    assert any(w is own for w in found)
    assert variables.captured_by(tf.nn.relu) == []


class Module(tf.Module):
    def __init__(self):
        self.loc = variable(2)

    def make(self, t):
        return tfd.Normal(t + self.loc, 1.0)


SETTINGS = {1: 2, "a": 3.0}
loc = variable()  # an unrelated name, of which functions read the attribute only


def later(t):
    return tfd.Normal(t, not_there_yet)  # noqa: F821


def test_variables_are_found_wherever_a_function_reads_them_by_name():
    v = variable()

    def nested(t):
        return t + v

    for function in (
        Module().make,
        functools.partial(lambda t, v: tfd.Normal(t, v), v=v),
        lambda t: tfd.Normal(nested(t), 1.0),
        lambda t, v=v: tfd.Normal(t, v),
    ):
        assert len(tfpl.DistributionLambda(function).trainable_weights) == 1
    for function in (
        lambda t: tfd.Normal(t, SETTINGS["a"]),
        lambda t: tfd.Normal(tfd.Normal(t, 1.0).loc, 1.0),
        later,
    ):
        assert not tfpl.DistributionLambda(function).weights


def test_constraints_of_variables_hold():
    location = tf.Variable(tf.ones(2), constraint=tf.nn.relu)
    model = model_of(tfd.MultivariateNormalDiag(location), as_layer=False)
    model.compile(keras.optimizers.SGD(100.0), loss)
    model.fit(X, X[:, :2], verbose=0)
    assert (location.numpy() >= 0.0).all()


def test_a_scope_with_other_values_is_heard():
    """Pipelines read frozen weights through such a scope."""
    layer = variables.DistributionOfVariables(tfd.Normal(variable(), 1.0))
    with keras.StatelessScope([(layer.weights[0], tf.constant(9.0))]):
        assert layer(None).mean().numpy() == 9.0
    assert layer(None).mean().numpy() == 0.5


def test_what_cannot_be_found_is_refused():
    """A distribution that is no composite tensor, as the one inside is none."""

    class Own(tfd.Normal):
        """A user's subclass, which is no composite tensor either."""

    class Plain(tfd.Distribution):
        def __init__(self, loc):
            self.loc = loc
            super().__init__(tf.float32, tfd.FULLY_REPARAMETERIZED, False, True)

    assert variables.variables_of(Own(variable(), 1.0))
    prior = Plain(variable())
    with pytest.raises(ValueError, match=r"neither train nor save.*VariableLayer"):
        tfpl.KLDivergenceRegularizer(prior)
