"""The same small models with the same weights on tf_keras + tfp.layers and on this package: the same numbers."""

import dataclasses
import functools
import inspect
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

from tfp_vae import layers as tfpl

tfd = tfp.distributions

BATCH = 6
RNG = np.random.default_rng(0)
X = RNG.normal(size=(BATCH, 3)).astype("float32")
THEIRS, OURS = (tfp.layers, tf_keras), (tfpl, keras)
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


@dataclasses.dataclass
class Row:
    """A layer: how tfp.layers and this package make it alike, the number of its parameters, and outcomes."""

    make: Callable
    params_size: int
    y: np.ndarray

    def model(self, layers, framework):
        return framework.Sequential(
            [
                framework.Input((3,)),
                framework.layers.Dense(self.params_size),
                self.make(layers, framework),
            ]
        )


def same_weights(make: Callable) -> list:
    theirs, ours = make(*THEIRS), make(*OURS)
    weights = [0.3 * RNG.normal(size=w.shape).astype("float32") for w in ours.get_weights()]
    for model in (theirs, ours):
        model.set_weights(weights)
    return [theirs, ours]


def gradients(model, loss: Callable) -> list[np.ndarray]:
    with tf.GradientTape() as tape:
        value = loss(model)
    weights = [w.value if isinstance(w, keras.Variable) else w for w in model.trainable_weights]
    return [value.numpy(), *(g.numpy() for g in tape.gradient(value, weights))]


def real(*shape):
    return RNG.normal(size=(BATCH, *shape)).astype("float32")


def whole(high, *shape):
    return RNG.integers(0, high, size=(BATCH, *shape)).astype("float32")


ONE_HOT = np.eye(3, dtype="float32")[RNG.integers(0, 3, BATCH)]
FAMILY = {
    "DistributionLambda": Row(
        lambda L, K: L.DistributionLambda(lambda t: tfd.Normal(t, 2.0), "mean"), 2, real(2)
    ),
    "MultivariateNormalTriL": Row(lambda L, K: L.MultivariateNormalTriL(3), 9, real(3)),
    "OneHotCategorical": Row(lambda L, K: L.OneHotCategorical(3), 3, ONE_HOT),
    "CategoricalMixtureOfOneHotCategorical": Row(
        lambda L, K: L.CategoricalMixtureOfOneHotCategorical(3, 2), 8, ONE_HOT
    ),
    "IndependentBernoulli": Row(lambda L, K: L.IndependentBernoulli((2, 2)), 4, whole(2, 2, 2)),
    "IndependentNormal": Row(lambda L, K: L.IndependentNormal((2, 1)), 4, real(2, 1)),
    "IndependentLogistic": Row(lambda L, K: L.IndependentLogistic([2]), 4, real(2)),
    "IndependentPoisson": Row(lambda L, K: L.IndependentPoisson([2]), 2, whole(5, 2)),
    "MixtureSameFamily": Row(
        lambda L, K: L.MixtureSameFamily(2, L.MultivariateNormalTriL(2)), 12, real(2)
    ),
    "MixtureNormal": Row(lambda L, K: L.MixtureNormal(3, [2]), 15, real(2)),
    "MixtureLogistic": Row(lambda L, K: L.MixtureLogistic(3), 9, real()),
}


@pytest.mark.parametrize("row", FAMILY.values(), ids=FAMILY)
def test_densities_and_gradients(row):
    theirs, ours = same_weights(row.model)
    close(ours(X).log_prob(row.y), theirs(X).log_prob(row.y))
    close(ours(X).mean(), theirs(X).mean())
    assert (ours(X).batch_shape, ours(X).event_shape) == (
        theirs(X).batch_shape,
        theirs(X).event_shape,
    )

    def loss(model):
        return -tf.reduce_mean(model(X).log_prob(row.y))

    for one, other in zip(gradients(ours, loss), gradients(theirs, loss), strict=True):
        close(one, other)


@pytest.mark.parametrize(
    "name", [name for name in FAMILY if name not in ("DistributionLambda", "MixtureSameFamily")]
)
def test_sizes_and_new(name):
    ours, theirs, row = getattr(tfpl, name), getattr(tfp.layers, name), FAMILY[name]
    arguments = {"MixtureNormal": (3, [2]), "MixtureLogistic": (3, [])}.get(name) or {
        "CategoricalMixtureOfOneHotCategorical": (3, 2)
    }.get(name, (row.y.shape[1:] if "Independent" in name else row.y.shape[-1],))
    assert ours.params_size(*arguments) == theirs.params_size(*arguments) == row.params_size
    params = tf.constant(real(row.params_size))
    close(
        ours.new(params, *arguments).log_prob(row.y), theirs.new(params, *arguments).log_prob(row.y)
    )


def test_sizes_of_a_mixture():
    assert (
        tfpl.MixtureSameFamily.params_size(3, 5)
        == tfp.layers.MixtureSameFamily.params_size(3, 5)
        == 18
    )


def prior():
    return tfd.MultivariateNormalDiag([1.0, 0.0], [2.0, 1.0])


def regularized(L, K, **options):
    regularizer = L.KLDivergenceRegularizer(prior(), **options)
    posterior = L.MultivariateNormalTriL(2, tfd.Distribution.mean, activity_regularizer=regularizer)
    return K.Sequential([K.Input((3,)), K.layers.Dense(5), posterior])


def added(L, K, **options):
    posterior = [
        L.MultivariateNormalTriL(2, tfd.Distribution.mean),
        L.KLDivergenceAddLoss(prior(), **options),
    ]
    return K.Sequential([K.Input((3,)), K.layers.Dense(5), *posterior])


def total_loss(model):
    model(X)
    return tf.add_n(model.losses)


# The last column: tfp.layers' value in units of ours, which is the mean over the batch in all rows. tfp.layers' layers
# return the distribution and its tensor, and legacy Keras regularizes both: it counts the divergence twice (TFP #1215).
DIVERGENCES = {
    "regularizer, exact": (regularized, {"use_exact_kl": True}, 2),
    "regularizer, Monte Carlo": (regularized, {}, 2),
    "regularizer, weight": (regularized, {"use_exact_kl": True, "weight": 0.25}, 2),
    "regularizer, own points": (regularized, {"test_points_fn": lambda q: q.mean() + 1.0}, 2),
    "layer, Monte Carlo": (added, {}, 1),
    "layer, exact: tfp.layers sums over the batch": (added, {"use_exact_kl": True}, BATCH),
    "layer, weight": (added, {"use_exact_kl": True, "weight": 0.25}, BATCH),
}


@pytest.mark.parametrize(("make", "options", "scale"), DIVERGENCES.values(), ids=DIVERGENCES)
def test_divergences(make, options, scale):
    theirs, ours = same_weights(lambda L, K: make(L, K, **options))
    for one, other in zip(gradients(ours, total_loss), gradients(theirs, total_loss), strict=True):
        close(scale * one, other)


def normal_weights(L, K, size: int, trainable_scale: bool):
    """A posterior or a prior of DenseVariational whose draw is its mean, so that both frameworks see the same."""

    def make(t):
        scale = 1e-5 + tf.math.softplus(t[..., size:]) if trainable_scale else tf.ones([])
        return tfd.Independent(tfd.Normal(t[..., :size], scale), 1)

    variable = L.VariableLayer((1 + trainable_scale) * size, dtype="float32")
    return K.Sequential([variable, L.DistributionLambda(make, tfd.Distribution.mean)])


@pytest.mark.parametrize(
    "options", [{}, {"use_bias": False}, {"activation": "tanh", "kl_weight": 0.1}], ids=str
)
@pytest.mark.parametrize("kl_use_exact", [True, False], ids=["exact", "Monte Carlo"])
def test_dense_variational(kl_use_exact, options):
    def make(L, K):
        parts = [
            lambda kernel, bias, dtype: normal_weights(L, K, kernel + bias, trainable_scale=True),
            lambda kernel, bias, dtype: normal_weights(L, K, kernel + bias, trainable_scale=False),
        ]
        model = K.Sequential(
            [K.Input((3,)), L.DenseVariational(2, *parts, kl_use_exact=kl_use_exact, **options)]
        )
        model(X)
        return model

    theirs, ours = same_weights(make)
    close(ours(X), theirs(X))
    for loss in (total_loss, lambda model: tf.reduce_mean(model(X) ** 2) + tf.add_n(model.losses)):
        for one, other in zip(gradients(ours, loss), gradients(theirs, loss), strict=True):
            close(one, other)


def test_variable_layer():
    def make(L, K):
        initializer = L.BlockwiseInitializer(["zeros", "ones"], sizes=[2, 2])
        variable = L.VariableLayer(
            [3, 4], initializer=initializer, activation="tanh", dtype="float32"
        )
        model = K.Sequential([variable, L.IndependentNormal(2)])
        model(tf.zeros([1]))
        return model

    initial = [make(*framework)(tf.zeros([1])).mean() for framework in (THEIRS, OURS)]
    close(*initial)
    theirs, ours = same_weights(make)
    y = RNG.normal(size=(3, 2)).astype("float32")

    def loss(model):
        return -tf.reduce_mean(model(tf.zeros([1])).log_prob(y))

    for one, other in zip(gradients(ours, loss), gradients(theirs, loss), strict=True):
        close(one, other)


@pytest.mark.parametrize("hidden_units", [[], [8], [8, 7]], ids=str)
@pytest.mark.parametrize("input_order", ["left-to-right", "right-to-left"])
def test_autoregressive_transform(input_order, hidden_units):
    def make(L, K):
        made = {THEIRS: tfp.bijectors.AutoregressiveNetwork, OURS: tfpl.AutoregressiveNetwork}[L, K]
        made = made(params=2, hidden_units=hidden_units, activation="tanh", input_order=input_order)
        base = L.IndependentNormal([3], tfd.Distribution.mean)
        model = K.Sequential(
            [K.Input((3,)), K.layers.Dense(6), base, L.AutoregressiveTransform(made)]
        )
        model(X)
        return model

    theirs, ours = make(*THEIRS), make(*OURS)
    weights, y = theirs.get_weights(), real(3)
    ours.set_weights(weights)

    def loss(model):
        return -tf.reduce_mean(model(X).log_prob(y))

    # TFP's network leaves a gradient on what its masks hide and has a constraint undo the step: these entries are 0.
    seen = [True, *(weight != 0.0 if weight.ndim == 2 else True for weight in weights)]
    for one, other, entries in zip(
        gradients(ours, loss), gradients(theirs, loss), seen, strict=True
    ):
        close(one, other * entries)


# Constructors.

NAMES = [
    *FAMILY,
    "KLDivergenceRegularizer",
    "KLDivergenceAddLoss",
    "VariableLayer",
    "DenseVariational",
]
NAMES += ["AutoregressiveTransform", "BlockwiseInitializer"]


def arguments_of(function) -> list[tuple]:
    shown = {tfd.Distribution.sample: "sample"}
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(function).parameters.values()
    return [
        (p.name, shown.get(p.default, p.default) if callable(p.default) else p.default)
        for p in parameters
        if p.kind in plain and p.name != "self"
    ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["__init__", "new", "params_size"])
def test_signatures(name, method):
    theirs = getattr(getattr(tfp.layers, name), method, None)
    if theirs is None or theirs is object.__init__:
        return
    expected, ours = arguments_of(theirs), arguments_of(getattr(getattr(tfpl, name), method))
    for (argument, default), (our_argument, our_default) in zip(expected, ours, strict=False):
        assert argument == our_argument
        assert default is inspect.Parameter.empty or default == our_default, argument
    assert len(ours) >= len(expected)


def test_autoregressive_network_takes_the_same_arguments():
    expected, ours = (
        arguments_of(cls)
        for cls in (tfp.bijectors.AutoregressiveNetwork.__init__, tfpl.AutoregressiveNetwork)
    )
    assert ours[: len(expected)] == expected
