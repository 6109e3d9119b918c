"""Distributions of served models that are asked for draws and densities."""

from collections.abc import Mapping

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.parts import map_parts

tfd = tfp.distributions


class AskedDistribution(tfd.Distribution):
    """A distribution of a served model that parameters do not determine: it asks the model for
    draws and densities.

    Args:
        served: the `ServedVAE`.
        role: "posterior", "likelihood" or "prior".
        data: what it depends on: inputs of its signatures by name, in rows.
        lead: the batch shape, as many as there are rows; None for one axis.
    """

    # By role, the signatures that return its mean and its draws.
    SIGNATURES = {
        "posterior": ("encode", "posterior_sample"),
        "likelihood": ("decode", "likelihood_sample"),
        "prior": (None, "sample"),
    }

    def __init__(self, served, role: str, data: Mapping, lead=None):
        self._served = served
        self._role = role
        self._quantity = served.x if role == "likelihood" else served.z
        self._of_mean, self._of_draws = self.SIGNATURES[role]
        self._data = {name: tf.convert_to_tensor(part) for name, part in data.items()}
        if lead is None:
            rows = next(iter(self._data.values()))
            self._lead, self._static_lead = tf.shape(rows)[:1], rows.shape[:1]
        else:
            self._lead = tf.convert_to_tensor(lead)
            self._static_lead = _static_shape(self._lead)
        super().__init__(
            dtype=map_parts(lambda _: tf.float32, self._quantity.shape),
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            name=f"Served{role.capitalize()}",
        )

    def _batch_shape(self):
        return self._static_lead

    def _batch_shape_tensor(self):
        return self._lead

    def _event_shape(self):
        return map_parts(tf.TensorShape, self._quantity.shape)

    def _mean(self):
        if self._of_mean is None:
            raise NotImplementedError(f"A served {self._role} has no mean. Take that of draws.")
        outputs = self._served.ask(self._of_mean, **self._data)
        mean = self._served.statistic("mean", self._quantity, outputs)
        return self._with_axes(self._quantity.parts(mean), self._lead)

    def greedy(self) -> tf.Tensor:
        """Return the most probable tokens one after another, of a likelihood of sequences."""
        return self.mean()

    def draw_rows(self, seeds: tf.Tensor):
        """Draw once for each row, from its stateless seed, int32 `[batch, 2]`."""
        return self._quantity.whole(self._served.ask(self._of_draws, **self._data, seed=seeds))

    def _call_sample_n(self, sample_shape, seed, **kwargs):
        lead = tf.concat([tf.reshape(tf.cast(sample_shape, tf.int32), [-1]), self._lead], 0)
        seeds = tf.random.stateless_uniform(
            [tf.reduce_prod(lead), 2], tfp.random.sanitize_seed(seed), None, None, tf.int32
        )
        outputs = self._served.ask(self._of_draws, **self._rows_of(lead), seed=seeds)
        return self._with_axes(outputs, lead)

    def _call_log_prob(self, value, name, **kwargs):
        value = self._quantity.expect(value)
        lead = tf.broadcast_dynamic_shape(self._quantity.lead(value), self._lead)
        rows = self._quantity.parts(self._quantity.flat(value, lead))
        outputs = self._served.ask(f"{self._role}_log_prob", **self._rows_of(lead), **rows)
        return tf.reshape(outputs["log_prob"], lead)

    _call_unnormalized_log_prob = _call_log_prob

    def _call_prob(self, value, name, **kwargs):
        return tf.exp(self._call_log_prob(value, name))

    def _rows_of(self, lead: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the data repeated along the axes `lead`, in rows."""

        def repeated(part: tf.Tensor) -> tf.Tensor:
            event = part.shape[1:]
            spread = tf.reshape(part, tf.concat([self._lead, event], 0))
            spread = tf.broadcast_to(spread, tf.concat([lead, event], 0))
            return tf.reshape(spread, [-1, *event])

        return {name: repeated(part) for name, part in self._data.items()}

    def _with_axes(self, outputs: Mapping, lead: tf.Tensor):
        """Return rows of the parts with the axes `lead` instead of the first one."""
        shapes = self._quantity.shapes
        return self._quantity.whole(
            {name: tf.reshape(outputs[name], tf.concat([lead, shapes[name]], 0)) for name in shapes}
        )


def _static_shape(shape: tf.Tensor) -> tf.TensorShape:
    static = tf.get_static_value(shape)
    return tf.TensorShape(None if static is None else static.tolist())


__all__: list[str] = []
