"""What the page asks of a model: each question is a method from JSON to JSON."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_vae import sampling
from tfp_vae.checks import as_seed
from tfp_vae.cli.explore.views import list_of, number, numbers_of, views_of
from tfp_vae.cli.html.parts import dimension_names
from tfp_vae.cli.report import console
from tfp_vae.evaluation.batches import over_batches
from tfp_vae.objectives.one_pass import as_vectors, factors
from tfp_vae.serving import ServedVAE

# Signatures that are asked for.
SIGNATURES = ("encode", "decode", "sample", "score")
# Rows in one request at start.
BATCH_SIZE = 100
# Places decoded by one question.
MOST_ROWS = 32
# The sliders reach at least so far from 0.
LEAST_EXTENT = 3.0
# Bytes of a question besides its numbers, and bytes for each number as text.
BYTES = 2**14
BYTES_OF_A_NUMBER = 40


class Explorer:
    """A model and examples to explore it by.

    Args:
        served: the model.
        examples: arrays of the parts of x, `[num_examples, *shape]`, and of the condition, by name.
        name: what the model is called.
        note: a sentence on the examples.
        labels: name and values of a label of each example, or None.

    Raises:
        ValueError: of a question, if it is not one that the page asks.
    """

    def __init__(
        self,
        served: ServedVAE,
        examples: Mapping[str, np.ndarray],
        *,
        name: str,
        note: str,
        labels: tuple[str, np.ndarray] | None = None,
    ):
        self.served = served
        self.examples = {key: np.asarray(values) for key, values in examples.items()}
        self.name = name
        self.note = note
        self.labels = labels
        self.views = views_of(
            served.x, served.vocabulary, self.examples, missing=served.missing, table=served.table
        )
        # Everything is traced here, before the first question.
        self.codes = self._of_examples(lambda rows: {"codes": self._encoded(rows)[0]})["codes"]
        self.scores = self._of_examples(lambda rows: served.ask("score", **rows))
        self.judged_by = "elbo" if "elbo" in self.scores else "log_likelihood"
        self.kl = self._kl_by_dimension()
        self.questions: dict[str, Callable[..., dict[str, Any]]] = {
            "model": self.model,
            "example": self.example,
            "encode": self.encode,
            "decode": self.decode,
            "sample": self.sample,
        }
        self.example(0)
        self.sample(0, self._condition_of(0))
        # A name of a category may be long, but not longer than the names of all.
        names = len(json.dumps([view.describe() for view in self.views]))
        self.most_bytes = (BYTES + names) + BYTES_OF_A_NUMBER * (
            served.x.size + MOST_ROWS * served.z.size + len(self._condition_of(0) or ())
        )

    def model(self) -> dict[str, Any]:
        """Return what the page must know before its first question."""
        order = np.argsort(-self._importance, kind="stable")
        mean, components, axes = self._plane()
        points = (self.codes - mean) @ components.T
        name, values = self.labels or ("", None)
        condition = self.served.condition
        return {
            "name": self.name,
            "note": self.note,
            "views": [{"kind": view.kind, **view.describe()} for view in self.views],
            "latents": dimension_names(self.served),
            "order": order.tolist(),
            "ordered_by": "variance" if self.kl is None else "KL",
            "importance": [number(value) for value in self._importance],
            "extent": max(LEAST_EXTENT, float(np.ceil(np.abs(self.codes).max()))),
            "points": [[number(value) for value in point] for point in points],
            "mean": [number(value) for value in mean],
            "components": [[number(value) for value in row] for row in components],
            "axes": axes,
            "label": name,
            "labels": None if values is None else [number(value) for value in values],
            "condition": None
            if condition is None
            else {"labels": condition.num_labels, "size": max(1, int(np.prod(condition.shape)))},
            "judged_by": self.judged_by,
        }

    def example(self, place: int) -> dict[str, Any]:
        """Return an example and what the model makes of it."""
        if type(place) is not int or place not in range(len(self.codes)):
            raise ValueError(f"place must be a whole number from 0 to {len(self.codes) - 1}.")
        return self._seen(
            {name: values[place : place + 1] for name, values in self.examples.items()}
        )

    def encode(self, x: list, condition: list | None = None) -> dict[str, Any]:
        """Return what the model makes of an x that the page sends, a value for each view."""
        x = list_of(x, "x", len(self.views))
        rows = self._condition(condition, 1)
        for view, sent in zip(self.views, x, strict=True):
            rows |= {name: part[np.newaxis] for name, part in view.from_page(sent).items()}
        return self._seen(rows)

    def decode(self, z: list, condition: list | None = None) -> dict[str, Any]:
        """Return the points of p(x|z), of up to 32 z."""
        z = list_of(z, "z", *range(1, MOST_ROWS + 1))
        codes = np.stack([numbers_of(one, "z", self.served.z.size) for one in z])
        return {"x": self._decoded(codes, self._condition(condition, len(codes)))}

    def sample(self, seed: int, condition: list | None = None) -> dict[str, Any]:
        """Return a z from the prior and the point of its p(x|z)."""
        seeds = sampling.row_seeds(1, as_seed(seed))
        drawn = self.served.ask("sample", seed=seeds, **self._condition(condition, 1))
        z = as_vectors(self.served.z.whole(drawn)).numpy()[0]
        return {"z": z.tolist(), "x": self._sent(self.served.x.whole(drawn))}

    def _seen(self, rows: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return a row, its posterior, its reconstruction, and how good it is."""
        mean, stddev = self._encoded(rows)
        given = {name: rows[name] for name in rows if name not in self.served.x.shapes}
        terms = {
            name: float(value[0].numpy())
            for name, value in self.served.ask("score", **rows).items()
        }
        condition = given.get("condition")
        own = terms[self.judged_by]
        return {
            "x": [view.to_page(rows)[0] for view in self.views],
            "condition": None if condition is None else np.ravel(condition).tolist(),
            "z": mean[0].tolist(),
            "stddev": None if stddev is None else [number(value) for value in stddev[0]],
            "reconstruction": self._decoded(mean, given)[0],
            "score": {name: number(value) for name, value in terms.items()},
            "better_than": float(np.mean(self.scores[self.judged_by] < own)),
        }

    def _encoded(self, rows: Mapping) -> tuple[np.ndarray, np.ndarray | None]:
        """Return mean and standard deviation of q(z|x), `[num_rows, size]`; None if there is none."""
        outputs = self.served.ask("encode", **rows)
        mean = as_vectors(self.served.statistic("mean", self.served.z, outputs)).numpy()
        try:
            stddev = self.served.statistic("stddev", self.served.z, outputs)
        except KeyError:
            return mean, None
        return mean, as_vectors(stddev).numpy()

    def _decoded(self, codes: np.ndarray, given: Mapping) -> list[list]:
        z = self.served.z
        outputs = self.served.ask("decode", **z.parts(z.split(codes)), **given)
        return self._sent(self.served.statistic("mean", self.served.x, outputs))

    def _sent(self, x) -> list[list]:
        """Return what is sent of each row of x, a value for each view."""
        parts = {name: np.asarray(part) for name, part in self.served.x.parts(x).items()}
        return [
            list(row) for row in zip(*(view.to_page(parts) for view in self.views), strict=True)
        ]

    def _condition(self, sent, num_rows: int) -> dict[str, tf.Tensor]:
        """Return a condition that the page has sent, once for each row, in a dict."""
        variable = self.served.condition
        if variable is None:
            if sent is not None:
                raise ValueError("The model takes no condition.")
            return {}
        size = max(1, int(np.prod(variable.shape)))
        values = numbers_of(sent, "condition", size)
        dtype = tf.as_dtype(variable.dtype)
        if dtype.is_integer and (values != np.round(values)).any():
            raise ValueError("The condition must be whole numbers.")
        one = values.reshape(variable.shape).astype(dtype.as_numpy_dtype)
        return {"condition": tf.repeat(variable.expect_known(one)[tf.newaxis], num_rows, axis=0)}

    def _condition_of(self, place: int) -> list | None:
        if self.served.condition is None:
            return None
        return np.ravel(self.examples["condition"][place]).tolist()

    def _of_examples(self, function) -> dict[str, np.ndarray]:
        verbose = int(console.is_terminal)
        return over_batches(lambda rows, start: function(rows), self.examples, BATCH_SIZE, verbose)

    def _kl_by_dimension(self) -> np.ndarray | None:
        """Return the mean KL(q(z|x) || p(z)) of each dimension over the examples, `[size]`, in nats;
        None if there is none, as of an autoencoder, or the two do not factorize.
        """
        if "kl" not in self.scores:
            return None
        try:
            return np.mean(self._of_examples(self._kl_of)["kl"], axis=0)
        except (ValueError, NotImplementedError):
            return None

    def _kl_of(self, rows: Mapping) -> dict[str, tf.Tensor]:
        """Return KL(q(z|x) || p(z)) of each row and dimension, `[num_rows, size]`."""
        condition = rows.get("condition")
        data = self.served.x.whole(rows)
        posterior = self.served.encode(
            data if condition is None else {"x": data, "condition": condition}
        )
        prior = self.served.prior_distribution(condition)
        return {"kl": factors(posterior).kl_divergence(factors(prior))}

    @property
    def _importance(self) -> np.ndarray:
        """The KL divergence of each dimension, or the variance of its code over the examples."""
        return self.codes.var(axis=0) if self.kl is None else self.kl

    def _plane(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Return the plane of the map: a point of it, two directions, `[2, size]`, and their names."""
        number_of_codes, size = self.codes.shape
        if size <= 2 or number_of_codes < 3:
            return np.zeros(size), np.eye(2, size), [*dimension_names(self.served)[:2], ""][:2]
        centre = self.codes.mean(axis=0)
        _, singular, directions = np.linalg.svd(self.codes - centre, full_matrices=False)
        shares = singular**2 / max(float((singular**2).sum()), 1e-12)
        axes = [
            f"principal component {place + 1} ({shares[place]:.0%} of the variance)"
            for place in range(2)
        ]
        return centre, directions[:2], axes


__all__ = ["SIGNATURES", "Explorer"]
