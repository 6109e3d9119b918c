"""The common interface of live and served models; subclasses provide the basic methods."""

import abc
import collections
import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import batch, quantity, sampling
from tfp_vae.layers.fold import named_function, unfold
from tfp_vae.layers.parts import map_joint, map_parts, parts_of
from tfp_vae.layers.tensor_like import is_a
from tfp_vae.quantity import Quantity
from tfp_vae.tables import Table, is_frame
from tfp_vae.text import Vocabulary

tfd = tfp.distributions

F = TypeVar("F", bound=Callable)


def takes_frames(function: F) -> F:
    """Let a function of a VAE and data, `(vae, x, ...)`, take a DataFrame for x as well: it stands
    for the parts of x that its columns become.
    """

    @functools.wraps(function)
    def encoded(vae, x, *args, **kwargs):
        return function(vae, vae.in_parts(x), *args, **kwargs)

    return cast(F, encoded)


class Surface(abc.ABC):
    """A model of x with latents z and an optional condition.

    Attributes:
        x, z: the quantities of the model.
        condition: the quantity that the model is conditional on, or None.
        called: name of the model in error messages.
        built: whether the shapes are known.
        missing: whether values of x may be missing.
    """

    x: Quantity
    z: Quantity
    condition: Quantity | None
    called = "The model"
    built: bool
    missing: bool
    joint_class = tfd.JointDistributionNamed

    @property
    def is_conditional(self) -> bool:
        """Whether the model takes a condition, so that all data are dicts of "x" and "condition"."""
        return self.condition is not None

    @property
    def event_shape(self):
        """Shape of one example x, or a dict of the shapes of its parts."""
        return self.x.shape

    @property
    def latent_shape(self):
        """Shape of the latents z of one example, or a dict of the shapes of their parts."""
        return self.z.shape

    @abc.abstractmethod
    def encode(self, x) -> tfd.Distribution:
        """Return the posterior q(z|x)."""

    @abc.abstractmethod
    def decode(self, z, condition=None) -> tfd.Distribution:
        """Return the likelihood p(x|z)."""

    @abc.abstractmethod
    def prior_distribution(self, condition=None) -> tfd.Distribution:
        """Return the prior p(z), batch shape `[]`, or p(z|condition), batch shape `[...]`."""

    @abc.abstractmethod
    def log_prob(self, x) -> tf.Tensor:
        """Estimate log p(x), `[...]`, in nats."""

    @abc.abstractmethod
    def reconstruction(self, x):
        """Return the results of `reconstruct` as tensors."""

    @abc.abstractmethod
    def rows_of_samples(
        self, seeds: tf.Tensor, condition, prior: tfd.Distribution | None, draws: bool
    ):
        """Return the results of `generate` as tensors, from a stateless seed for each row, int32
        `[num_samples, 2]`.
        """

    def expect_built(self) -> None:
        """Raise a ValueError if the shapes are not known yet."""
        if not self.built:
            raise ValueError(
                "The VAE is not built yet: call it on data, fit it, or give its networks a "
                "keras.Input."
            )

    def reconstruct(self, x):
        """Return the mean of p(x|z) at the posterior's mean z.

        `[..., *event_shape]`, same shape out; of a DataFrame, a DataFrame.

        Here and in `generate`, a distribution without a mean is represented by `sampling.point`.
        """
        return self.in_columns(map_parts(np.asarray, self.reconstruction(x)), x)

    def generate(
        self,
        num_samples: int,
        seed: int = 0,
        *,
        condition=None,
        prior: tfd.Distribution | None = None,
        draws: bool = False,
    ):
        """Draw z from the prior and return the means of p(x|z): `[num_samples, *event_shape]`; of a
        model with a `table`, a DataFrame.

        Row i depends only on (seed, i), so the first rows stay the same if you ask for more.

        Args:
            num_samples: how many.
            seed: of the draws.
            condition: of a conditional model: one for all, or `[num_samples, *condition_shape]`.
            prior: a distribution to draw z from instead, such as that of `fit_aggregate_prior`.
            draws: whether to return draws from p(x|z) instead of its means.

        Raises:
            ValueError: if `num_samples` is not a whole number of at least 1, `seed` one from 0 to
                2**31 - 1, or the condition is missing, unexpected, or of another shape.
        """
        made = {"condition": condition, "prior": prior, "draws": draws}
        x = self.generate_arrays(num_samples, seed, **made)
        return x if self.table is None else self.table.decode(x)

    def generate_arrays(
        self,
        num_samples: int,
        seed: int = 0,
        *,
        condition=None,
        prior: tfd.Distribution | None = None,
        draws: bool = False,
    ):
        """Return what `generate` returns, but of a model with a `table` the parts of x."""
        self.expect_built()
        seeds = sampling.row_seeds(num_samples, seed)
        given = self._given(condition)
        if self.condition is not None:
            condition = quantity.one_for_each(given["condition"], num_samples, self.condition.shape)
        return map_parts(np.asarray, self.rows_of_samples(seeds, condition, prior, draws))

    @tf.autograph.experimental.do_not_convert
    def joint_distribution(self, condition=None) -> tfd.JointDistribution:
        """Return p(z, x) = p(z) p(x|z) as a `tfd.JointDistributionNamed` of `z` and `x`, or of
        their parts.
        """
        self.expect_built()
        latents = parts_of(self.prior_distribution(condition), "z")

        def likelihood(**z):
            return self.decode(self.z.whole(z), condition)

        def of_part(name: str) -> Callable:
            return named_function(tuple(latents), lambda **z: parts_of(likelihood(**z))[name])

        # The parts have a fixed order, so values may be given by position: after
        # `experimental_pin(x=x)` only z remains.
        model = {**latents, **{name: of_part(name) for name in self.x.shapes}}
        return self.joint_class(collections.OrderedDict(model))

    def _for_each(self, prior: tfd.Distribution, condition) -> tfd.Distribution:
        """Return a prior with the batch axes of a condition that it does not depend on."""
        if self.condition is None:
            return prior
        condition = self.condition.expect(condition)
        static = self.condition.leading(condition)
        lead = static if static.is_fully_defined() else tf.shape(condition)[: static.rank]

        def with_axes(part):
            if not is_a(part, tfd.Distribution) or part.batch_shape.rank != 0:
                return part
            spread = unfold(part, lead, 0, repeat=True)
            # The class stays the same, unless no parameter can have these axes.
            has_axes = spread.batch_shape.rank == static.rank
            return spread if has_axes else tfd.BatchBroadcast(part, lead)

        return map_joint(with_axes, prior)

    @property
    @abc.abstractmethod
    def vocabulary(self) -> Vocabulary | None:
        """The tokens by number, of a model of texts; otherwise None."""

    @property
    @abc.abstractmethod
    def table(self) -> Table | None:
        """The columns of a model of tables, which takes and returns DataFrames; otherwise None."""

    @property
    def of_data(self) -> dict[str, Any]:
        """The arguments of `datasets.load` for more data of the same kind: vocabulary and length of
        texts, or the table.
        """
        if self.table is not None:
            return {"table": self.table}
        if self.vocabulary is None:
            return {}
        return {"tokens": self.vocabulary, "length": self.x.shape[0]}

    def in_parts(self, data):
        """Return data in which a DataFrame has become the parts of x.

        Raises:
            ValueError: if a DataFrame has other columns or values than the model's table, or the
                model has none.
        """
        if isinstance(data, Mapping) and is_frame(data.get("x")):
            return {**data, "x": self.in_parts(data["x"])}
        if not is_frame(data):
            return data
        if self.table is None:
            raise ValueError(
                f"{self.called} takes arrays, received a DataFrame: it was made without a "
                "tfp_vae.tables.Table, by which columns become numbers."
            )
        return self.table.encode(data, missing=self.missing)

    def columns(self, x) -> dict[Any, np.ndarray]:
        """Return the numbers of the columns of a table's x by their names, `[..., num_rows]`; of
        another x its parts.
        """
        parts = self.x.parts(x)
        return parts if self.table is None else self.table.split(parts)

    def in_columns(self, x, given):
        """Return parts of x as a DataFrame if they come from one."""
        frame = self._frame_of(given)
        return x if frame is None else self.table.decode(x, frame.index)

    def filled(self, given, x):
        """Return parts of x as a DataFrame whose observed values are those of the one that x comes
        from, if it comes from one.
        """
        return (
            x
            if self.table is None or not is_frame(given)
            else self.table.fill(given, self.in_columns(x, given))
        )

    def in_units(self, log_density: tf.Tensor, given) -> tf.Tensor:
        """Return log-densities of x, `[num_rows]`, in the units of the DataFrame that x comes from,
        if it comes from one.
        """
        frame = self._frame_of(given)
        if self.table is None or frame is None:
            return log_density
        return log_density + tf.cast(self.table.log_units(frame), log_density.dtype)

    def _frame_of(self, given):
        """Return the DataFrame that data are, or have as their x, if the model has a table."""
        frame = None if self.table is None else batch.by_name(given)["x"]
        return frame if is_frame(frame) else None

    @property
    def mask(self) -> Quantity:
        """The mask of x, by which missing values are given beside it."""
        return Quantity("mask", self.x.shape, tf.bool)

    def as_rows(self, data: dict) -> tuple[dict, tf.Tensor]:
        """Flatten the leading axes of data, a dict by the names of quantities, into one.

        Returns:
            The data, and the leading axes of x or z, or else of the condition; the others are
            repeated along the axes that they lack.
        """
        quantities = {
            part.name: part for part in (self.x, self.z, self.mask, self.condition) if part
        }
        first = next(name for name in ("x", "z", "condition") if name in data)
        lead = quantities[first].lead(data[first])
        if all(quantities[name].leading(value).rank == 1 for name, value in data.items()):
            return dict(data), lead
        return {name: quantities[name].flat(value, lead) for name, value in data.items()}, lead

    def _given(self, condition) -> dict:
        return quantity.given(condition, self.condition, self.called)
