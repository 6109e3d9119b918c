"""The KL divergence as a term of a Keras model's loss: as an activity regularizer, or as a layer.

Both add the mean of KL(q(z|x) || p(z)) over the batch, in nats per example, once. They differ in
the division by the batch size. Keras (3.14 and later) divides the value of an activity regularizer
by the length of the output's first axis, so the regularizer returns the mean times that length.
Keras does not divide the values of `add_loss`, so the layer adds the mean.
"""

import functools
from collections.abc import Callable

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.arguments import as_function, from_config, to_config
from tfp_vae.layers.distribution_layer import DistributionLayer
from tfp_vae.layers.internals import take_non_tensors
from tfp_vae.layers.shapes import in_dtype
from tfp_vae.layers.tensor_like import TensorLike, as_tensor_like, expect_distribution, unwrap
from tfp_vae.layers.tfp_objects import object_from_config, object_to_config
from tfp_vae.layers.variables import captured_by, layer_of, variables_of

__all__ = ["KLDivergenceAddLoss", "KLDivergenceRegularizer"]

tfd = tfp.distributions


@keras.saving.register_keras_serializable(package="tfp_vae")
class KLDivergenceRegularizer(keras.layers.Layer, keras.regularizers.Regularizer):
    """KL(q(z|x) || p(z)) for `activity_regularizer=` of a distribution layer.

    It is a Keras layer too, so that the distribution layer tracks, trains and saves the prior's
    weights with its own.
    The value ignores sample weights: use `tfp_vae.VAE` for weighted examples.

    Reference: Kingma & Welling, 2014, Auto-Encoding Variational Bayes, arXiv:1312.6114.

    Args:
        distribution_b: the prior p(z): a `tfd.Distribution`, whose `tf.Variable`s, if any, are
            trained and saved with the model; or a Keras layer or model whose distribution does not
            depend on its input, such as a `tfp_vae.priors.Prior` or `Sequential([VariableLayer(...),
            DistributionLambda(...)])`; or a function without arguments.
        use_exact_kl: True for TFP's closed form, False for Monte Carlo: log q(z|x) - log p(z) at
            the test points.
        test_points_reduce_axis: axes over which the Monte Carlo values are averaged. Sample axes
            and the batch axis are always averaged; None and () average only these.
        test_points_fn: function of q(z|x) that gives the test points. The default takes the tensor
            that q(z|x) is converted to, which the next layers see.
        weight: factor of the divergence: a number, a variable or a
            `keras.optimizers.schedules.LearningRateSchedule`; None is 1. A variable is never
            trained; a reloaded model has one of the same value. A schedule is read at the number of
            training calls so far, which is saved with the model; evaluation uses this number too.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        distribution_a: q(z|x), the output of a distribution layer, batch shape `[batch, ...]`.

    Output:
        Scalar, in nats: the weighted divergence averaged over samples and batch and summed over
        further batch axes, times the length of the first axis of the tensor that q(z|x) is
        converted to. With one draw, this is the sum over the batch.

    Raises:
        TypeError: if `distribution_b` or the layer's output is not a distribution.
        ValueError: if `distribution_b` has trainable variables that cannot be found (it is no
            composite tensor, or a function reads them in a roundabout way), or Monte Carlo is asked
            of a distribution without reparameterized draws; when saving, if `distribution_b` or a
            function cannot be described.
        NotImplementedError: with `use_exact_kl`, if TFP has no closed form for the pair.

    Example:
    >>> from tfp_vae import priors
    >>> from tfp_vae.layers import MultivariateNormalDiag
    >>> regularizer = KLDivergenceRegularizer(priors.StandardNormal(2), use_exact_kl=True)
    >>> layer = MultivariateNormalDiag(2, activity_regularizer=regularizer)
    >>> layer(tf.ones([3, 4])).kl_divergence(tfd.MultivariateNormalDiag([0., 0.])).numpy().round(4)
    array([1.1796, 1.1796, 1.1796], dtype=float32)
    >>> layer.losses[0].numpy().round(4)
    np.float32(1.1796)
    """

    adds_divergence = True

    def __init__(
        self,
        distribution_b,
        use_exact_kl: bool = False,
        test_points_reduce_axis=(),
        test_points_fn: Callable = tf.convert_to_tensor,
        weight=None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        take_non_tensors(self)  # the input may also be a plain tfd object
        self.captured_weights = captured_by(distribution_b) if callable(distribution_b) else []
        self.distribution_b = self._as_prior(distribution_b)
        self.use_exact_kl = use_exact_kl
        self.test_points_reduce_axis = test_points_reduce_axis
        self.test_points_fn = as_function(test_points_fn)
        self.weighting = Weighting(weight)
        self.built = True

    @property
    def weight(self):
        """The factor of the divergence: None, a number, a variable or a schedule."""
        return self.weighting.weight

    def call(self, distribution_a, training=None):
        distribution_a = _as_tensor_like(distribution_a)
        mean = self.batch_mean(distribution_a, training)
        if distribution_a.ndim == 0:  # which Keras does not divide
            return mean
        return mean * tf.cast(tf.shape(distribution_a)[0], mean.dtype)

    def batch_mean(self, distribution_a: tfd.Distribution, training) -> tf.Tensor:
        """Return the weighted divergence of one example, in nats: the mean over the batch."""
        distribution_a = _as_tensor_like(distribution_a)
        kl = kl_divergence(
            distribution_a,
            unwrap(call_prior(self.distribution_b)),
            self.use_exact_kl,
            self.test_points_fn,
            self.test_points_reduce_axis,
        )
        mean = mean_then_sum(kl, num_summed_axes=max(distribution_a.batch_shape.rank - 1, 0))
        return self.weighting.apply(mean, training)

    def _as_prior(self, prior):
        """Return the prior in a form whose variables Keras trains and saves."""
        with tf.GradientTape() as tape:
            # This call also builds it, outside any graph.
            given = call_prior(prior) if callable(prior) else prior
        message = (
            "Expected distribution_b to be a tfd.Distribution, or a Keras layer or a function that "
            f"gives one, received {prior!r}{f', which gives {given!r}' if callable(prior) else ''}."
        )
        given = unwrap(expect_distribution(given, message))
        if isinstance(prior, keras.layers.Layer):
            return prior
        parameters = [p for p in tf.nest.flatten(given.parameters) if isinstance(p, keras.Variable)]
        read = [*given.trainable_variables, *tape.watched_variables(), *parameters]
        own = [] if callable(prior) else variables_of(given)
        known = {id(variable) for variable in (*own, *(w.value for w in self.captured_weights))}
        if not {id(variable) for variable in read} <= known:
            raise ValueError(
                f"distribution_b={prior!r} has trainable variables, which Keras would neither train "
                "nor save with the model. Pass a Keras model, such as Sequential([VariableLayer(...), "
                "DistributionLambda(...)])."
            )
        return layer_of(given) if own else unwrap(prior)

    def get_config(self) -> dict:
        config = {
            **super().get_config(),
            "distribution_b": _prior_to_config(self.distribution_b),
            "use_exact_kl": self.use_exact_kl,
            "test_points_reduce_axis": self.test_points_reduce_axis,
            "weight": self.weighting.get_config()["weight"],
        }
        if self.test_points_fn is not tf.convert_to_tensor:
            config["test_points_fn"] = to_config(self.test_points_fn, "test_points_fn")
        return config

    @classmethod
    def from_config(cls, config: dict):
        return cls(**_arguments(config))


@keras.saving.register_keras_serializable(package="tfp_vae")
@DistributionLayer.register  # it returns a distribution, so Keras may trace through it too
class KLDivergenceAddLoss(keras.layers.Layer):
    """A layer that returns q(z|x) unchanged, and adds KL(q(z|x) || p(z)) to the model's loss.

    Use it after a distribution layer, where `KLDivergenceRegularizer` does not fit. It adds the
    mean over the batch: the value of a `KLDivergenceRegularizer` after Keras's division.

    Reference: Kingma & Welling, 2014, Auto-Encoding Variational Bayes, arXiv:1312.6114.

    Args:
        distribution_b, use_exact_kl, test_points_reduce_axis, test_points_fn, weight: see
            `KLDivergenceRegularizer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        distribution_a: q(z|x), the output of a distribution layer, batch shape `[batch, ...]`.

    Output:
        `distribution_a`.

    Raises:
        TypeError, ValueError, NotImplementedError: see `KLDivergenceRegularizer`.

    Example:
    >>> from tfp_vae.layers import MultivariateNormalDiag
    >>> add_loss = KLDivergenceAddLoss(tfd.MultivariateNormalDiag([0., 0.]), use_exact_kl=True, weight=0.5)
    >>> q = add_loss(MultivariateNormalDiag(2)(tf.ones([3, 4])))
    >>> add_loss.losses[0].numpy().round(4)
    np.float32(0.5898)
    """

    adds_divergence = True

    def __init__(
        self,
        distribution_b,
        use_exact_kl: bool = False,
        test_points_reduce_axis=None,
        test_points_fn: Callable = tf.convert_to_tensor,
        weight=None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.divergence = KLDivergenceRegularizer(
            distribution_b,
            use_exact_kl,
            test_points_reduce_axis,
            test_points_fn,
            weight,
            dtype=self.dtype_policy,
        )
        self.built = True

    def call(self, distribution_a, training=None):
        self.add_loss(self.divergence.batch_mean(distribution_a, training))
        return distribution_a

    def compute_output_spec(self, distribution_a, training=None):
        return keras.KerasTensor(distribution_a.shape, distribution_a.dtype)

    def get_config(self) -> dict:
        config = self.divergence.get_config()
        return {**config, **super().get_config()}

    @classmethod
    def from_config(cls, config: dict):
        return cls(**_arguments(config))


class Weighting(keras.layers.Layer):
    """The factor of a divergence: a number, a variable or a schedule of the calls in training.

    >>> Weighting(0.5).apply(tf.constant(3.), training=True).numpy()
    np.float32(1.5)
    """

    def __init__(self, weight=None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        # Keras would train a Keras variable, down to zero; the TensorFlow variable inside it is
        # only read.
        self.weight = weight.value if isinstance(weight, keras.Variable) else weight
        self.step = None
        if isinstance(weight, keras.optimizers.schedules.LearningRateSchedule):
            # Neither a layer nor a regularizer can reach the optimizer, so the steps are counted
            # here. Each replica counts for itself: to synchronize in the middle of a call would mix
            # up the replicas' losses.
            self.step = keras.Variable(
                0,
                dtype="int32",
                trainable=False,
                name="step",
                synchronization="on_read",
                aggregation="only_first_replica",
            )
        self.built = True

    def apply(self, divergence: tf.Tensor, training) -> tf.Tensor:
        """Multiply the divergence by the weight, and count the step if it is a training step."""
        weight = (
            1.0
            if self.weight is None
            else self.weight
            if self.step is None
            else self.weight(self.step)
        )
        if self.step is not None and training:
            self.step.assign_add(1)
        return in_dtype(weight, divergence.dtype) * divergence

    def get_config(self) -> dict:
        weight = self.weight
        if isinstance(weight, tf.Variable):
            weight = {"variable": float(weight), "dtype": weight.dtype.name}
        elif self.step is not None:
            weight = keras.saving.serialize_keras_object(weight)
        return {**super().get_config(), "weight": weight}


def weight_from_config(config):
    """Build the weight that `Weighting.get_config` described."""
    if isinstance(config, dict) and "variable" in config:
        return tf.Variable(config["variable"], dtype=config["dtype"], trainable=False)
    return from_config(config)


def kl_divergence(
    distribution_a: tfd.Distribution,
    distribution_b: tfd.Distribution,
    use_exact_kl: bool,
    test_points_fn: Callable = tf.convert_to_tensor,
    test_points_reduce_axis=(),
) -> tf.Tensor:
    """Return KL(a || b), in nats.

    The shape is `[*batch]`, or `[*sample, *batch]` at test points, with length 1 for reduced axes.

    Raises:
        ValueError: if a draw of `a` has no gradient, or `a` and `b` are distributions over
            different things.
        NotImplementedError: with `use_exact_kl`, if TFP has no closed form for the pair.
    """
    names = [
        type(unwrap(distribution)).__name__ for distribution in (distribution_a, distribution_b)
    ]
    if (
        distribution_a.reparameterization_type is tfd.NOT_REPARAMETERIZED
        and test_points_fn is tf.convert_to_tensor
    ):
        raise ValueError(
            f"The distribution {names[0]} is not reparameterized: no gradient would flow through "
            "its draws. Take a relaxed or straight-through distribution, or pass a test_points_fn "
            "that gives points with a gradient."
        )
    kinds = [(unwrap(d).event_shape, unwrap(d).dtype) for d in (distribution_a, distribution_b)]
    if kinds[0] != kinds[1]:
        first, second = (
            f"{name} (event shape {kind[0]}, {kind[1]})"
            for name, kind in zip(names, kinds, strict=True)
        )
        raise ValueError(
            f"There is no KL divergence between {first} and {second}. Make event shapes and dtypes "
            "equal, for example by tfd.Independent(..., reinterpreted_batch_ndims=1)."
        )
    if use_exact_kl:
        try:
            return tfd.kl_divergence(distribution_a, distribution_b)
        except NotImplementedError as error:
            raise NotImplementedError(
                f"TFP has no closed form for KL({names[0]} || {names[1]}). Pass use_exact_kl=False "
                "for Monte Carlo."
            ) from error
    z = test_points_fn(distribution_a)
    log_ratio = distribution_a.log_prob(z) - distribution_b.log_prob(z)
    return tf.reduce_mean(
        log_ratio,
        axis=() if test_points_reduce_axis is None else test_points_reduce_axis,
        keepdims=True,
    )


def mean_then_sum(kl: tf.Tensor, num_summed_axes: int) -> tf.Tensor:
    """Sum over the last axes and take the mean over those before.

    The mean of an empty batch is 0.

    >>> mean_then_sum(tf.ones([5, 3, 2]), num_summed_axes=1).numpy()
    np.float32(2.0)
    """
    averaged = tf.shape(kl)[: kl.shape.rank - num_summed_axes]
    return tf.math.divide_no_nan(tf.reduce_sum(kl), tf.cast(tf.reduce_prod(averaged), kl.dtype))


@functools.singledispatch
def call_prior(prior) -> tfd.Distribution:
    """Return the distribution of a prior.

    The prior is a Keras layer, a `tfd.Distribution`, or a function without arguments.
    """
    return prior()


@call_prior.register
def _(prior: tfd.Distribution) -> tfd.Distribution:
    return prior


@call_prior.register
def _(prior: keras.layers.Layer) -> tfd.Distribution:
    if not getattr(prior, "inputs", None):
        return prior(None)
    shape = [1 if size is None else size for size in prior.input_shape]
    return prior(tf.zeros(shape, prior.inputs[0].dtype))


def _as_tensor_like(distribution) -> TensorLike:
    message = (
        f"Expected a distribution, received a {type(distribution).__name__}. A KL divergence "
        "belongs to (or after) a distribution layer, such as IndependentNormal."
    )
    return as_tensor_like(expect_distribution(distribution, message))


def _arguments(config: dict) -> dict:
    arguments = {
        name: from_config(value)
        for name, value in config.items()
        if name not in ("distribution_b", "weight")
    }
    prior = config["distribution_b"]
    weight = weight_from_config(config["weight"])
    return {**arguments, "distribution_b": _prior_from_config(prior), "weight": weight}


def _prior_to_config(prior):
    if isinstance(prior, tfd.Distribution):
        return object_to_config(prior, "distribution_b")
    config = to_config(prior, "distribution_b")
    if isinstance(prior, keras.layers.Layer):
        # A prior shared by two layers stays shared: Keras loses this two levels deep.
        config["shared_object_id"] = id(prior)
    return config


def _prior_from_config(config):
    return object_from_config(config) if "tfp" in config else from_config(config)
