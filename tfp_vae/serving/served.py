"""An exported VAE, in this process or on a server.

Its methods build distributions from the answers of its signatures.
"""

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import sampling
from tfp_vae.batch import by_name
from tfp_vae.layers.fold import ONE_AXIS, unfold
from tfp_vae.layers.parts import map_parts
from tfp_vae.quantity import Quantity, expect_alike
from tfp_vae.serving.asked import AskedDistribution
from tfp_vae.serving.plain_tensors import expect_description, expect_parameters, rebuild
from tfp_vae.surface import Surface
from tfp_vae.tables import Table
from tfp_vae.text import Vocabulary

tfd = tfp.distributions

# Format number of the description; it increases with each incompatible change.
FORMAT = 2
# Signatures that return values of x.
OF_VALUES = ("reconstruct", "sample", "impute")
# Function from a signature and its inputs to its outputs.
Answer = Callable[[str, Mapping[str, tf.Tensor]], Mapping[str, tf.Tensor]]


class ServedVAE(Surface):
    """An exported VAE; made by `tfp_vae.load` from a folder, by `tfp_vae.client` from a server.

    Its methods answer as the live model's do. Inputs become float32; the batch is the first axis.

    Args:
        answer: function that returns the outputs of a signature for its inputs, as tensors by name.
        description: the json text that `tfp_vae.serving.export` writes.
        source: the folder or the server, named in errors.
        checks_answers: whether answers are checked, as for a server: they must be numbers, and
            valid, for example where a parameter must be positive.
        again: function without arguments that creates the same model again when it is unpickled.

    Raises:
        ValueError: if the description has another format, or does not come from `export`. The
            methods raise it if an input is not an array of real numbers, has another shape, is
            empty or is not finite.
    """

    built = True

    def __init__(
        self,
        answer: Answer,
        description: str,
        source: str,
        *,
        checks_answers: bool = False,
        again: Callable[[], "ServedVAE"] | None = None,
    ):
        self.source = source
        self.description = _read(description, source)
        self.checks_answers = checks_answers
        self._again = again
        self.x = Quantity.of("x", _shape(self.description["event_shape"]), tf.float32)
        self.z = Quantity.of("z", _shape(self.description["latent_shape"]), tf.float32)
        self.condition = self._condition()
        self._answer = answer

    def __reduce__(self):
        if self._again is None:
            return super().__reduce__()
        return self._again, ()

    @tf.autograph.experimental.do_not_convert
    def encode(self, x) -> tfd.Distribution:
        """Return the posterior q(z|x): `[..., *event_shape]` -> batch shape `[...]`.

        If parameters do not determine it, as for a flow or a hierarchy, it asks the model for draws
        and densities.
        """
        data, lead = self._data(x)
        if self.description["posterior"] is None:
            if lead is not None and self.z.has_parts:
                raise ValueError(ONE_AXIS)
            return AskedDistribution(self, "posterior", data, lead)
        posterior = self._distribution("posterior", "encode", data)
        return posterior if lead is None else unfold(posterior, lead)

    @tf.autograph.experimental.do_not_convert
    def decode(self, z, condition=None) -> tfd.Distribution:
        """Return the likelihood p(x|z): `[..., *latent_shape]` -> batch shape `[...]`."""
        inputs, lead = self._rows(self.z, self.z.expect(z), self._given(condition))
        if self.description["likelihood"] is None:
            return AskedDistribution(self, "likelihood", inputs, lead)
        likelihood = self._distribution("likelihood", "decode", inputs)
        return likelihood if lead is None else unfold(likelihood, lead)

    @tf.autograph.experimental.do_not_convert
    def prior_distribution(self, condition=None) -> tfd.Distribution:
        """Return the prior p(z), batch shape `[]`, or p(z|condition) if a condition is given.

        If fixed parameters do not determine it, as for a flow or with a condition, it asks the
        model for draws and densities.

        Raises:
            ValueError: if that prior is one of several latents, or of an earlier export; or if the
                condition is missing, unexpected, or of another shape.
        """
        given = self._given(condition)
        if self.description["prior"] is not None:
            return self._for_each(rebuild(self.description["prior"], {}), condition)
        if self.z.has_parts or "prior_log_prob" not in self.description["signatures"]:
            raise ValueError(
                f"The prior of {self.source} is not determined by tensors alone, and the model has "
                "no signature for it. Draw from it with generate, or use the live model's "
                "prior_distribution()."
            )
        rows, lead = self.as_rows(given) if given else ({}, tf.zeros([0], tf.int32))
        return AskedDistribution(self, "prior", rows, lead)

    @tf.autograph.experimental.do_not_convert
    def reconstruction(self, x):
        """Return the results of `reconstruct` as tensors."""
        return self.statistic("mean", self.x, self._of_rows("reconstruct", x))

    def rows_of_samples(
        self, seeds: tf.Tensor, condition, prior: tfd.Distribution | None, draws: bool
    ):
        """Return the results of `generate` as tensors, from a stateless seed for each row, int32
        `[num_samples, 2]`.
        """
        named = {} if condition is None else {"condition": condition}
        if prior is None:
            outputs = self.ask("sample", seed=seeds, **named)
            if not draws:
                return self.x.whole(outputs)
            z = self.z.whole(outputs)
        else:
            z = tf.function(lambda: sampling.sample_rows(prior, seeds), autograph=False)()
        likelihood = self.decode(z, condition)
        if isinstance(likelihood, AskedDistribution):
            return likelihood.draw_rows(-1 - seeds) if draws else likelihood.mean()
        return tf.function(
            lambda: (
                sampling.draw_of_rows(likelihood, seeds) if draws else sampling.point(likelihood)
            ),
            autograph=False,
        )()

    @tf.autograph.experimental.do_not_convert
    def score(self, x) -> dict[str, np.ndarray]:
        """Return `elbo`, `log_likelihood` and `kl`, each `[...]`, in nats: for anomaly scores.

        Densities of a DataFrame are in the units of its columns, as in `VAE.log_prob`.
        """
        values = self._of_rows("score", x)
        return {
            name: (value if name == "kl" else self.in_units(value, x)).numpy()
            for name, value in values.items()
        }

    @tf.autograph.experimental.do_not_convert
    def log_prob(self, x) -> tf.Tensor:
        """Estimate log p(x), `[...]`, in nats, with the number of draws fixed at export."""
        return self.in_units(self._of_rows("log_prob", x)["log_prob"], x)

    @tf.autograph.experimental.do_not_convert
    def impute(self, x):
        """Fill in missing values, NaN in x, as `VAE.impute` does, with the number of draws of
        `log_prob`.
        """
        filled = map_parts(np.asarray, self.x.whole(self._of_rows("impute", x)))
        return self.filled(x, filled)

    def _of_rows(self, signature: str, x) -> dict[str, tf.Tensor]:
        """Return the outputs of a signature that takes data, with the leading axes of x."""
        data, lead = self._data(x)
        outputs = self.ask(signature, **data)
        if lead is None:
            return dict(outputs)
        return {
            name: tf.reshape(value, tf.concat([lead, tf.shape(value)[1:]], 0))
            for name, value in outputs.items()
        }

    def _data(self, x) -> tuple[dict, Any]:
        data = by_name(self.in_parts(x))
        if "mask" in data:
            raise ValueError("A served model takes no mask: set what is missing to NaN.")
        named = self._given(data.get("condition"))
        try:
            x = self.x.expect(data["x"])
        except (TypeError, ValueError):
            if self.x.has_parts and not isinstance(data["x"], Mapping):
                raise
            return {**self.x.parts(data["x"]), **named}, None  # `call` raises the error
        return self._rows(self.x, x, named)

    def _rows(self, variable: Quantity, value, named: dict) -> tuple[dict, Any]:
        """Return the parts of a value and its condition, flattened to one leading axis (rows), and
        the original leading axes; None for these if there was only one.
        """
        lead = variable.leading(value)
        if self.condition is not None:
            expect_alike(lead, self.condition.leading(named["condition"]), variable.name)
        rows, axes = self.as_rows({variable.name: value, **named})
        rows |= variable.parts(rows.pop(variable.name))
        if lead.rank == 1:
            return rows, None
        return rows, lead if lead.is_fully_defined() else axes

    @functools.cached_property
    def vocabulary(self) -> Vocabulary | None:
        """The tokens by number, of a model of texts; otherwise None."""
        config = self.description.get("vocabulary")
        return None if config is None else Vocabulary.from_config(config)

    @property
    def missing(self) -> bool:  # type: ignore[override]
        """Whether values of x may be missing."""
        return bool(self.description.get("missing", False))

    @functools.cached_property
    def table(self) -> Table | None:
        """The columns of a model of tables, which takes and returns DataFrames; otherwise None."""
        config = self.description.get("table")
        return None if config is None else Table.from_config(config)

    def _condition(self) -> Quantity | None:
        shape = self.description.get("condition_shape")
        if shape is None:
            return None
        dtype = self.description["signatures"]["decode"]["inputs"]["condition"]["dtype"]
        return Quantity(
            "condition", tuple(shape), tf.as_dtype(dtype), self.description.get("num_labels")
        )

    def statistic(self, name: str, variable: Quantity, outputs: Mapping):
        """Return a statistic, such as "mean", of x or z from the outputs of a signature."""
        prefix = "{}_" if variable.has_parts else ""
        return variable.whole(
            {part: outputs[prefix.format(part) + name] for part in variable.shapes}
        )

    def call(self, signature: str, **inputs) -> Mapping[str, tf.Tensor]:
        """Return the plain outputs of a signature."""
        signatures = self.description["signatures"]
        if signature not in signatures:
            raise ValueError(
                f"{self.source} has no signature {signature}: it was exported from a model that "
                f"offers only {', '.join(signatures)}."
            )
        expected = signatures[signature]["inputs"]
        if set(inputs) != set(expected):
            raise ValueError(
                f"{signature} takes {', '.join(expected)}; received "
                f"{', '.join(inputs) or 'nothing'}."
            )
        nan = self.missing
        tensors = {
            name: _check(signature, name, inputs[name], expected[name], nan=nan) for name in inputs
        }
        rows = {name: tensor.shape[0] for name, tensor in tensors.items()}
        if len({*rows.values()} - {None}) > 1:
            raise ValueError(f"{signature} takes as many rows of each input, received {rows}.")
        return self._answer(signature, tensors)

    def ask(self, signature: str, **inputs) -> Mapping[str, tf.Tensor]:
        """Return the outputs of `call`, after checking that they are numbers.

        Raises:
            ValueError: if a row has no answer.
        """
        outputs = self.call(signature, **inputs)
        if tf.executing_eagerly():
            _expect_numbers(signature, outputs)
        return outputs

    def _distribution(self, role: str, signature: str, inputs: Mapping) -> tfd.Distribution:
        outputs = self.ask(signature, **inputs)
        parameters = {
            name: value for name, value in outputs.items() if not name.endswith(("mean", "stddev"))
        }
        if self.checks_answers and tf.executing_eagerly():
            try:
                expect_parameters(self.description[role], parameters)
            except ValueError as error:
                raise RuntimeError(f"{self.source}, signature {signature}: {error}") from error
        return rebuild(self.description[role], parameters)


def _read(text: str, source: str) -> dict:
    """Return the contents of a description, which is untrusted input and fully checked."""
    try:
        description = json.loads(text)
        found = description["format"]
        if found == FORMAT:
            _expect_of_export(description)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{source} describes itself otherwise than a model exported by tfp_vae: {error!r}"
        ) from error
    if found != FORMAT:
        raise ValueError(
            f"{source} has format {found}, this version of tfp_vae reads format {FORMAT}. Update "
            "tfp_vae, or export the model again."
        )
    return description


def _expect_of_export(description: Mapping) -> None:
    for role in ("posterior", "likelihood", "prior"):
        if description[role] is not None:
            expect_description(description[role])
    for name in ("event_shape", "latent_shape", "condition_shape"):
        map_parts(tf.TensorShape, description.get(name))
    for signature in description["signatures"].values():
        for spec in (*signature["inputs"].values(), *signature["outputs"].values()):
            tf.as_dtype(spec["dtype"])
            tf.TensorShape(spec["shape"])


def _shape(shape):
    return map_parts(tuple, shape)


def _check(signature: str, name: str, value, expected: dict, *, nan: bool) -> tf.Tensor:
    """Return an input in its dtype, after checking it.

    For a bad input, a server would return a wrong answer, or fail later with a less helpful error.
    """
    takes = f"{signature} takes {name} of shape {expected['shape']}"
    dtype = tf.as_dtype(expected["dtype"])
    try:
        tensor = tf.convert_to_tensor(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{takes}, received what is no array: {error}") from error
    if not (
        tensor.dtype.is_integer
        or (dtype.is_floating and (tensor.dtype.is_floating or tensor.dtype.is_bool))
    ):
        raise ValueError(f"{takes} and dtype {dtype.name}, received dtype {tensor.dtype.name}.")
    if not tf.TensorShape(expected["shape"]).is_compatible_with(tensor.shape):
        raise ValueError(f"{takes}, received {tensor.shape}.")
    if tensor.shape.rank and tensor.shape[0] == 0:
        raise ValueError(f"{takes}, with at least one row, received {tensor.shape}.")
    tensor = tf.cast(tensor, dtype)
    finite = (
        np.isfinite(tensor) | (nan & np.isnan(tensor))
        if dtype.is_floating and tf.executing_eagerly()
        else True
    )
    if not np.all(finite):
        row = int(np.argmin(np.reshape(finite, (len(tensor), -1)).all(1)))
        raise ValueError(
            f"{takes}, all finite in float32, but row {row} has a value that is not: "
            f"{_first(tensor[row])}."
        )
    return tensor


def _expect_numbers(signature: str, outputs: Mapping) -> None:
    """Raise a ValueError if a row has no answer: the model returns NaN for values that it does not
    know.
    """
    # Parameters and densities may be infinite.
    is_number = np.isfinite if signature in OF_VALUES else lambda value: ~np.isnan(value)
    rows = [~is_number(np.asarray(v)).reshape(len(v), -1).all(1) for v in outputs.values()]
    bad = np.logical_or.reduce(rows)
    if bad.any():
        raise ValueError(
            f"{signature} has no answer for row {np.argmax(bad)}: it holds a category, a label or "
            "another value that the model does not know, or is too large to compute with."
        )


def _first(row: tf.Tensor) -> float:
    values = np.ravel(row)
    return float(values[~np.isfinite(values)][0])
