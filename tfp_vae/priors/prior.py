"""The base class of all priors."""

import abc
import functools

import keras
import tensorflow_probability as tfp

from tfp_vae.layers.arguments import rebuild, store, stored

__all__ = ["Prior"]

tfd = tfp.distributions


@functools.singledispatch
def of_layer(layer: keras.layers.Layer, latent_shape, dtype) -> "Prior | None":
    """Return the prior that suits the draws of an encoder's layer better than a standard normal,
    or None if there is none.

    A prior registers itself for the layers that it suits, as `Codes` does.
    """
    return None


class Prior(keras.layers.Layer, abc.ABC):
    """Base of all priors.

    To add one: subclass, pass the arguments to this constructor, implement `call(inputs)`
    (inputs is None) so that it returns a `tfd.Distribution` built anew in each call, make trainable
    parameters with `add_weight`, decorate with `keras.saving.register_keras_serializable`, name it
    in `priors.__all__` and give it a row in `tests/test_priors.py`. Each argument is stored under
    its own name, and saved with the prior.

    Args:
        arguments: numbers and shapes, by name.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    # How the prior is made if it is chosen by name: "of a size", from the size of the latents, or
    # "of an encoder", by `of_encoder`.
    roles: tuple[str, ...] = ("of a size",)

    def __init__(self, arguments: dict, **kwargs):
        super().__init__(autocast=False, **kwargs)
        store(self, arguments)
        self.built = True

    @abc.abstractmethod
    def call(self, inputs=None) -> tfd.Distribution:
        """Return p(z), batch shape `[]`."""

    @classmethod
    def of_encoder(cls, encoder: keras.Model | None, x, **arguments) -> "Prior":
        """Return a prior made from the encoder and examples, for the role "of an encoder".

        Args:
            encoder: network from only x to one latent; None if the model has no such encoder.
            x: training examples, `[num_examples, *event_shape]`; None where they have parts or
                missing values.
            **arguments: other arguments of the constructor.

        Raises:
            ValueError: if it needs an argument that is None.
        """
        raise NotImplementedError

    def look_at(self, x) -> None:
        """Warn if the data do not suit the prior, before training; most priors suit all data.

        Args:
            x: examples, `[num_examples, *event_shape]`, or a dict of such parts.
        """

    def get_config(self) -> dict:
        return {**super().get_config(), **stored(self)}

    @classmethod
    def from_config(cls, config: dict):
        return rebuild(cls, config)
