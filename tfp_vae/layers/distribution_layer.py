"""The base class of all distribution layers, and the most general one, `DistributionLambda`."""

import abc
import inspect
from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.arguments import as_function, rebuild, store, stored, to_config
from tfp_vae.layers.internals import as_it_stands, history_of, layers_within, nodes_of
from tfp_vae.layers.tensor_like import DRAW_SHAPED, TensorLike
from tfp_vae.layers.variables import captured_by
from tfp_vae.text import Vocabulary

__all__ = ["DistributionLambda", "DistributionLayer"]

tfd = tfp.distributions


class DistributionLayer(keras.layers.Layer, abc.ABC):
    """Base of all layers that return a `tfd.Distribution`.

    To add one: subclass, pass the arguments to this constructor, implement the static
    `new(params, *arguments, validate_args)`, decorate with
    `keras.saving.register_keras_serializable`, name it in `layers.__all__`, and give it a row in
    `tests/layer_cases.py`. Each argument is stored under its own name, and saved with the layer.

    The layer never casts its inputs to the compute dtype: parameters are cast to the variable
    dtype (float32 under mixed precision, float64 under float64), so densities keep their precision.

    Args:
        arguments: the arguments of `new` between `params` and `validate_args`, by name, in the
            order of `new`: numbers, shapes, layers, functions or tfd classes.
        convert_to_tensor_fn: how the distribution becomes a tensor when a Keras layer, an operator
            or NumPy needs one: a function of the distribution, a property such as
            `tfd.Bernoulli.logits`, or one of the names "sample", "mean", "mode", "stddev",
            "variance".
        validate_args: whether the distribution checks its parameters and arguments (slower).
        **kwargs: arguments of `keras.layers.Layer`.
    """

    # The roles in which the layer can be chosen by name: "posterior", "sole posterior" (of a whole
    # z, not of one of its parts), "likelihood". Each subclass sets one, several or none.
    roles: tuple[str, ...] = ()
    # Whether a draw can be any vector, so that Hamiltonian Monte Carlo can move it.
    covers_space = False
    # The name of the only prior that goes with it, if there is only one.
    only_prior: str | None = None
    # Whether XLA has the operations of its sampler.
    xla_can_draw = True
    # How 8-bit pixels become values of a likelihood: their "levels", random "bits", "scaled" to [0,
    # 1], or spread at random over the "unit" interval.
    pixels = "levels"
    # The tokens by number, of a likelihood of texts.
    vocabulary = None
    # The columns by part, of a likelihood of tables.
    table = None
    # Whether a likelihood has a network of its own, which sees the tokens before each token.
    has_own_network = False

    def __init__(
        self, arguments: dict, convert_to_tensor_fn="sample", validate_args: bool = False, **kwargs
    ):
        super().__init__(autocast=False, **kwargs)
        store(self, arguments)
        self.convert_to_tensor_fn = as_function(convert_to_tensor_fn)
        self.validate_args = validate_args
        if not self.xla_can_draw:
            self.supports_jit = not self.may_draw

    @property
    def may_draw(self) -> bool:
        """Whether the conversion to a tensor may be a draw."""
        return self.convert_to_tensor_fn not in [
            DRAW_SHAPED[name] for name in ("mean", "mode", "stddev", "variance")
        ]

    @property
    def named_inputs(self) -> dict[str, keras.KerasTensor]:
        """The inputs that the layer asks for by name: those of the networks inside it."""
        return {}

    @property
    def regularizer(self):
        """The activity regularizer, under a name that Keras finds when it saves: so Keras saves the
        weights of a prior inside it.
        """
        return self.activity_regularizer

    @staticmethod
    @abc.abstractmethod
    def new(params, *arguments) -> tfd.Distribution:
        """Build the distribution from the previous layer's output."""

    def call(self, params):
        return TensorLike(
            self.distribution(self.in_variable_dtype(params)), self.convert_to_tensor_fn
        )

    def distribution(self, params) -> tfd.Distribution:
        """Call `new` with the layer's arguments.

        A layer with weights passes them to the distribution here.
        """
        return self.new(
            params, *[getattr(self, name) for name in self.argument_names], self.validate_args
        )

    @classmethod
    def arguments_of_latents(cls, size: int) -> dict:
        """Return the constructor's arguments for a posterior of latents of the given size."""
        taken = inspect.signature(cls).parameters
        return {"event_shape" if "event_shape" in taken else "event_size": size}

    @classmethod
    def arguments_of_values(cls, largest: int) -> dict:
        """Return the constructor's arguments, besides the shape, for whole numbers from 0 to the
        largest one.
        """
        return {}

    @classmethod
    def arguments_of_text(cls, vocabulary: Vocabulary) -> dict | None:
        """Return the constructor's arguments, besides the shape, for texts; None if it is no
        likelihood of texts.
        """
        return None

    def begin_at(self, examples: Mapping[str, np.ndarray]) -> None:
        """Choose the initial weights from data, before the first step of training.

        Most layers do nothing here.

        Args:
            examples: the parts of x by name, `[num_examples, *event_shape]`; "x" if it has no
                parts.
        """

    def expect_missing(self) -> None:
        """Raise a ValueError if the layer needs complete examples, without missing values."""

    def in_variable_dtype(self, params):
        """Cast parameters to the dtype of densities.

        Anything but a floating-point tensor stays as it is.
        """
        if (
            tf.is_tensor(params)
            and not isinstance(params, tfd.Distribution)
            and params.dtype.is_floating
        ):
            return tf.cast(params, self.variable_dtype)
        return params

    def compute_output_spec(self, params, **kwargs):
        start, replay = _from_last_tensor(params)
        if start is params:
            try:
                return super().compute_output_spec(params, **kwargs)
            except ValueError as error:
                raise _in_its_own_words(self, error) from None
        return _Function(lambda tensor: self.call(replay(tensor))).compute_output_spec(start)

    def get_config(self) -> dict:
        conversion = to_config(self.convert_to_tensor_fn, "convert_to_tensor_fn")
        base = {"convert_to_tensor_fn": conversion, "validate_args": self.validate_args}
        return {**super().get_config(), **stored(self), **base}

    @classmethod
    def from_config(cls, config: dict):
        return rebuild(cls, config)


def distribution_layers(network: keras.layers.Layer) -> list[DistributionLayer]:
    """Return the distribution layers of a network, including those inside its parts."""
    return [layer for layer in layers_within(network) if isinstance(layer, DistributionLayer)]


def num_params(layer: type[DistributionLayer], arguments: dict) -> int:
    """Return a layer's `params_size`, called with those arguments of the layer that the size
    depends on.
    """
    names = inspect.signature(layer.params_size).parameters
    return layer.params_size(**{name: value for name, value in arguments.items() if name in names})


@keras.saving.register_keras_serializable(package="tfp_vae")
class DistributionLambda(DistributionLayer):
    """Any distribution from any function of the previous layer's output.

    Use it for a distribution that has no layer of its own. A lambda trains and exports; to save the
    model as `.keras` give a function registered with `keras.saving.register_keras_serializable`.

    Reference: Dillon et al., 2017, TensorFlow Distributions, arXiv:1711.10604.

    Args:
        make_distribution_fn: function of the layer's input that returns a `tfd.Distribution`.
            Variables that it reads from around it by their names, or by those of distributions
            made of them, are trained and saved with the layer; those of other layers are not.
        convert_to_tensor_fn: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: the previous layer's output, `[..., anything]`.

    Output:
        The distribution `make_distribution_fn(params)`, usable as a tensor.

    Raises:
        TypeError: if `make_distribution_fn` does not return a distribution.
        ValueError: when saving, if a function is not registered with Keras.

    Example:
    >>> layer = DistributionLambda(lambda t: tfd.Normal(t[..., 0], 1.), convert_to_tensor_fn="mean")
    >>> layer(tf.constant([[3.], [4.]])).numpy()
    array([3., 4.], dtype=float32)
    """

    roles = ()

    def __init__(self, make_distribution_fn: Callable, convert_to_tensor_fn="sample", **kwargs):
        arguments = {"make_distribution_fn": as_function(make_distribution_fn)}
        super().__init__(arguments, convert_to_tensor_fn, **kwargs)
        self.captured_weights = captured_by(make_distribution_fn)

    @staticmethod
    def new(params, make_distribution_fn: Callable, validate_args=False) -> tfd.Distribution:
        """Build the distribution; the function decides whether to check its arguments."""
        return make_distribution_fn(params)


def _in_its_own_words(layer: keras.layers.Layer, error: ValueError) -> ValueError:
    """Return an error without the text that Keras adds.

    Keras adds that it could not infer a shape, and lists the arguments.
    """
    words = str(error).partition("Error encountered:")[2] or str(error)
    plain = ValueError(f"{layer.name}: {' '.join(words.replace(chr(27) + '[0m', '').split())}")
    as_it_stands(plain)
    return plain


class _Function(keras.Operation):
    """A function that Keras can trace for the shape of its output."""

    def __init__(self, function: Callable):
        super().__init__()
        self.call = function


def _from_last_tensor(symbolic):
    """Go back from a symbolic distribution to the tensor it is made of.

    Keras traces each layer on a placeholder, which is only a tensor, but a layer may need the
    distribution of the layer before. So the layers since the last plain tensor are called again,
    together with that layer.

    Returns:
        The plain symbolic tensor, and the function from its value to the distribution.
    """
    history = history_of(symbolic)
    if history is None or not isinstance(history.operation, (DistributionLayer, keras.Model)):
        return symbolic, lambda value: value
    arguments = nodes_of(history.operation)[history.node_index].arguments
    start, replay = _from_last_tensor(arguments.args[0])
    return start, lambda value: history.operation(replay(value))
