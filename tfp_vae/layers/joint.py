"""Several distributions by name: groups of latents, layers of a hierarchy, kinds of data."""

from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers import light
from tfp_vae.layers.distribution_layer import DistributionLayer, distribution_layers
from tfp_vae.layers.fold import call_by_name, fold, is_automatic, named_function, named_inputs
from tfp_vae.layers.frozen import later
from tfp_vae.layers.tensor_like import expect_distribution, unwrap

__all__ = ["Joint", "ProductOfNormals"]

tfd = tfp.distributions


@keras.saving.register_keras_serializable(package="tfp_vae")
def concatenated_draw(distribution: tfd.Distribution) -> tf.Tensor:
    """Draw all parts of a joint distribution, flatten their events, and concatenate them.

    >>> concatenated_draw(tfd.JointDistributionNamed({"a": tfd.Normal([0.], 1.), "b": tfd.Poisson([3.])})).shape
    TensorShape([1, 2])
    """
    flat: list[tf.Tensor] = []
    for name, part in distribution.sample().items():
        shape = distribution.event_shape[name]
        batch = tf.shape(part)[: part.shape.rank - len(shape)]
        flat.append(
            tf.cast(
                tf.reshape(part, tf.concat([batch, [shape.num_elements()]], 0)),
                flat[0].dtype if flat else part.dtype,
            )
        )
    return tf.concat(flat, -1)


@keras.saving.register_keras_serializable(package="tfp_vae")
class Joint(DistributionLayer):
    """Several distributions by name, each of which may depend on the draws of those before it.

    Use it to end an encoder in several groups of latents or in a hierarchy of them, as the prior of
    a hierarchy, or to end a decoder in data of several kinds. Each part is a network that ends in a
    distribution layer, or a prior. The names of its `keras.Input`s tell what it takes: the draw of
    a part before it, or an input of this layer. A single input with any other name takes this
    layer's own input.

    Reference: hierarchies: Burda et al., 2016, arXiv:1509.00519; with a shared path from the top
    down, see `ProductOfNormals`.

    Args:
        parts: networks by name, in an order in which none depends on a later one.
        convert_to_tensor_fn: see `DistributionLayer`; the default concatenates one draw of all
            parts.
        validate_args: see `DistributionLayer`.
        table: the `tables.Table` whose columns the parts stand for, saved with the layer, by which
            the model takes and returns DataFrames; or None.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        features: `[batch, ...]`, a dict of such tensors, or None as a prior.

    Output: `tfd.JointDistributionNamed`: draws are dicts, `log_prob` of a dict is the sum over the
        parts.

    Raises:
        TypeError: if `parts` is not a dict of Keras layers, or one of them does not give a
            distribution.
        ValueError: if there are no parts, or a part takes an input that does not exist.

    Example:
    >>> from tfp_vae.layers import MultivariateNormalDiag
    >>> bottom = keras.Sequential([keras.layers.Dense(6), MultivariateNormalDiag(3)])
    >>> top = keras.Sequential([keras.Input((3,), name="z1"), keras.layers.Dense(4), MultivariateNormalDiag(2)])
    >>> q = Joint({"z1": bottom, "z2": top})(tf.ones([5, 8]))
    >>> z = q.sample(7, seed=0)
    >>> z["z2"].shape, q.log_prob(z).shape
    (TensorShape([7, 5, 2]), TensorShape([7, 5]))
    """

    roles = ()

    def __init__(
        self,
        parts: Mapping,
        convert_to_tensor_fn=concatenated_draw,
        validate_args=False,
        *,
        table=None,
        **kwargs,
    ):
        if not isinstance(parts, Mapping) or not all(
            isinstance(p, keras.layers.Layer) for p in parts.values()
        ):
            raise TypeError(
                "parts must be a dict of Keras models that end in distribution layers, received "
                f"{parts!r}."
            )
        if not parts:
            raise ValueError("parts is empty. Expected at least one network by name.")
        arguments = {"parts": dict(parts), "table": table}
        super().__init__(arguments, convert_to_tensor_fn, validate_args, **kwargs)
        if table is not None and table.parts.keys() != parts.keys():
            raise ValueError(
                f"The table has the parts {[*table.parts]}, but the likelihood {[*parts]}. Make it "
                "by table.likelihood(num_features)."
            )

    def distribution(self, features):
        return self.new(features, self.parts, self.validate_args)

    def begin_at(self, examples: Mapping) -> None:
        for name in self.parts.keys() & examples.keys():
            for layer in distribution_layers(self.parts[name]):
                layer.begin_at({"x": examples[name]})

    @property
    def named_inputs(self) -> dict[str, keras.KerasTensor]:
        """The inputs of the parts that the user named, other than parts."""
        asked = [item for network in self.parts.values() for item in named_inputs(network).items()]
        return {
            name: tensor
            for name, tensor in asked
            if name not in self.parts and not is_automatic(name)
        }

    @staticmethod
    def new(
        features, parts: Mapping[str, keras.layers.Layer], validate_args=False
    ) -> tfd.Distribution:
        """Build the joint distribution.

        Each part decides for itself whether to check its arguments.
        """
        values = dict(features) if isinstance(features, Mapping) else {"features": features}
        main = None if isinstance(features, Mapping) else "features"
        model: dict = {}
        for name, network in parts.items():
            needs = [part for part in named_inputs(network) if part in model]
            if needs:
                model[name] = _dependent(network, values, needs, main)
            else:
                model[name] = _expect_distribution(name, call_by_name(network, values, main))
        return tfd.JointDistributionNamed(model)


def names_of(layer: keras.layers.Layer) -> str | dict[str, str]:
    """Return the name of a layer's class; for a `Joint`, a dict of such names by part.

    >>> names_of(Joint({"age": keras.Sequential([keras.layers.Identity()])}))
    {'age': 'Identity'}
    """
    if isinstance(layer, Joint):
        return {name: type(part.layers[-1]).__name__ for name, part in layer.parts.items()}
    return type(layer).__name__


def _dependent(
    network: keras.layers.Layer, values: dict, needs: Sequence[str], main: str | None
) -> Callable:
    """Return a part as a function of the latents before it, with their names as its arguments, as
    TFP requires.
    """
    inputs = named_inputs(network)
    event_ndims = {
        name: value.shape.rank - 1 for name, value in values.items() if value is not None
    }

    folded = later(fold)

    def distribution(**latents):
        ndims = {**event_ndims, **{name: inputs[name].ndim - 1 for name in needs}}
        return folded(network, {**latents, **values}, ndims, main)

    return named_function(needs, distribution)


def _expect_distribution(name: str, output) -> tfd.Distribution:
    message = (
        f"The part {name!r} must end in a distribution layer, such as MultivariateNormalDiag; "
        f"its output is a {type(output).__name__}."
    )
    return unwrap(expect_distribution(output, message))


@keras.saving.register_keras_serializable(package="tfp_vae")
class ProductOfNormals(DistributionLayer):
    """The normalized product of the normal densities of several experts.

    The precisions add up, and the mean is the average of the experts' means, weighted by their
    precisions. In a ladder, a layer's posterior is the product of two experts: one depends on the
    layer's features; the other depends on the layer above, and is the prior's own network. With
    several sources of data, each source has an expert.

    Reference: Soenderby et al., 2016, Ladder variational autoencoders, arXiv:1602.02282; Wu &
    Goodman, 2018, Multimodal generative models for scalable weakly-supervised learning,
    arXiv:1802.05335.

    Args:
        experts: networks that end in `MultivariateNormalDiag` or another normal distribution of
            diagonal covariance; each takes the value that its `keras.Input` is named after.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        values: dict of tensors, `[batch, ...]`.

    Output:
        `tfd.MultivariateNormalDiag`, batch shape `[batch]`.

    Raises:
        TypeError: if an expert gives anything but a normal distribution of diagonal covariance.
        ValueError: if there are no experts.

    Example:
    >>> from tfp_vae.layers import MultivariateNormalDiag
    >>> experts = [keras.Sequential([keras.Input((2,), name=name), MultivariateNormalDiag(1)]) for name in "ab"]
    >>> q = ProductOfNormals(experts)({"a": tf.constant([[0., 0.]]), "b": tf.constant([[4., 0.]])})
    >>> q.mean().numpy(), (q.stddev() / tf.math.softplus(0.)).numpy().round(4)  # the scale shrinks by the root of 2
    (array([[2.]], dtype=float32), array([[0.7071]], dtype=float32))
    """

    roles = ()

    def __init__(
        self, experts: Sequence, convert_to_tensor_fn="sample", validate_args=False, **kwargs
    ):
        if not experts:
            raise ValueError("experts is empty. Expected at least one network.")
        super().__init__({"experts": list(experts)}, convert_to_tensor_fn, validate_args, **kwargs)

    @property
    def named_inputs(self) -> dict[str, keras.KerasTensor]:
        """The inputs of all experts."""
        return {
            name: tensor for expert in self.experts for name, tensor in named_inputs(expert).items()
        }

    @staticmethod
    def new(values, experts: Sequence, validate_args=False) -> tfd.Distribution:
        """Build the product of the experts' distributions."""
        normals = [unwrap(call_by_name(expert, values)) for expert in experts]
        for normal in normals:
            if not isinstance(normal, tfd.MultivariateNormalDiag):
                raise TypeError(f"An expert must give a MultivariateNormalDiag, received {normal}.")
        precisions = [1.0 / tf.square(normal.stddev()) for normal in normals]
        precision = tf.add_n(precisions)
        loc = (
            tf.add_n([p * normal.mean() for p, normal in zip(precisions, normals, strict=True)])
            / precision
        )
        return light.MultivariateNormalDiag(
            loc, tf.math.rsqrt(precision), validate_args=validate_args
        )
