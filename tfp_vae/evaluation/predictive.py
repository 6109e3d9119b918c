"""What a VAE predicts of its data: reconstruction errors, and whether data that it draws look like
those that it is given.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfp_vae import sampling
from tfp_vae.batch import by_name, num_examples, whole
from tfp_vae.checks import as_count, as_seed
from tfp_vae.evaluation.batches import over_batches
from tfp_vae.layers.parts import innermost, parts_of
from tfp_vae.surface import takes_frames
from tfp_vae.vae import VAE

__all__ = [
    "STATISTICS",
    "PredictiveCheck",
    "predictive_check",
    "reconstruction_errors",
]


@takes_frames
def reconstruction_errors(
    vae: VAE, x: Any, *, batch_size: int = 500, verbose: int = 0
) -> dict[str, np.ndarray]:
    """Return the error of each example's reconstruction, `[num_examples]`, by the parts of x.

    The mean over its observed values of the squared difference from `VAE.reconstruct`, in squared
    units of x; where values are names (categories, tokens and the padding after them), the share of
    those that differ. At least 0, smaller is better, but 0 needs neither a good prior nor a good
    p(x): an autoencoder that copies has it.

    Args:
        vae: a built VAE.
        x: data as in `evaluate`.
        batch_size: examples held in memory at once.
        verbose: 1 shows a progress bar.

    Returns: a dict of the parts of x, or of the columns of a table; an x without parts has the name
        "x". NaN for an example without an observed value.
    """
    has_names = {
        name: sampling.statistics_of(innermost(part))[0] != "mean"
        for name, part in parts_of(vae.some_likelihood).items()
    }
    if vae.table is not None:
        columns = (column for column in vae.table.columns if not column.is_constant)
        has_names = {column.name: has_names[column.part] for column in columns}

    def errors(batch, start):
        seen, means = vae.columns(_with_gaps(batch)), vae.columns(vae.reconstruct(batch))
        return {name: _error(seen[name], means[name], has_names[name]) for name in seen}

    return over_batches(errors, x, batch_size, verbose)


def _with_gaps(batch):
    """Return x with NaN for each value that its mask says is missing."""
    data = tf.nest.map_structure(np.asarray, by_name(batch))
    if "mask" not in data:
        return data["x"]
    return tf.nest.map_structure(
        lambda values, seen: np.where(seen, values, np.nan), data["x"], data["mask"]
    )


def _error(x: np.ndarray, reconstruction: np.ndarray, has_names: bool) -> np.ndarray:
    error = (x != reconstruction) * 1.0 if has_names else (x - reconstruction) ** 2.0
    is_seen = ~np.isnan(x).reshape(len(x), -1)
    total = np.sum(error.reshape(is_seen.shape), axis=1, where=is_seen)
    with np.errstate(invalid="ignore"):  # NaN where none is seen
        return total / is_seen.sum(axis=1)


class PredictiveCheck(NamedTuple):
    """A statistic of the data, and of data that the model draws.

    Attributes:
        observed: of the data.
        mean: of its values for drawn data.
        deviation: their standard deviation.
        p_value: two-sided: twice the share of drawn data whose statistic is as large, or as small,
            whichever is less. Small: the model's data differ from those observed in this statistic.
    """

    observed: float
    mean: float
    deviation: float
    p_value: float


# Functions of data `[num_examples, *event_shape]` that a check compares unless others are given.
STATISTICS: dict[str, Callable] = {
    "mean": np.mean,
    "deviation": np.std,
    "deviation of means": lambda x: np.std(np.mean(x.reshape(len(x), -1), axis=1)),
    "share of zeros": lambda x: np.mean(x == 0),
    "largest": np.max,
}


@takes_frames
def predictive_check(
    vae: VAE,
    x: Any,
    statistics: Mapping[str, Callable] | None = None,
    *,
    num_replications: int = 100,
    from_posterior: bool = False,
    seed: int = 0,
) -> dict[str, PredictiveCheck]:
    """Compare statistics of data with those of as many examples that the model draws, many times.

    The p-values are no smaller than 2 / (num_replications + 1). Even of the true model a twentieth
    of them is below 0.05, so some of many statistics are. A large one does not show that a model is
    right, only that it is right in this statistic.

    Reference: Gelman, Meng & Stern, 1996, Posterior predictive assessment of model fitness via
        realized discrepancies (Statistica Sinica 6).

    Args:
        vae: a built VAE.
        x: data that it was not trained on, without missing values, as in `evaluate`; the more
            examples, the smaller the differences that are found. As statistics are functions of all
            examples, these are held in memory, and as many drawn ones: of a large `tf.data.Dataset`
            take some batches.
        statistics: functions of `[num_examples, *event_shape]` by name; None takes `STATISTICS`.
        num_replications: how many sets of data are drawn.
        from_posterior: whether z of each example is drawn from q(z|x) rather than from the prior:
            then only the likelihood is checked, and mildly, since z has seen x.
        seed: of the draws.

    Returns: a `PredictiveCheck` by the name of its statistic, of tables "STATISTIC of COLUMN".

    Raises:
        ValueError: if a statistic of the data is not finite.

    Example:
    >>> import keras
    >>> from tfp_vae import layers as tfpl
    >>> encoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2)])
    >>> decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(6), tfpl.IndependentNormal(3)])
    >>> checks = predictive_check(VAE(encoder, decoder), np.full([8, 3], 100.0, "float32"))
    >>> checks["mean"].observed, round(checks["mean"].p_value, 3)
    (100.0, 0.02)
    """
    x = whole(x)
    statistics = STATISTICS if statistics is None else statistics
    number = as_count(num_replications, "num_replications")
    seeds = np.random.default_rng(as_seed(seed)).integers(2**31 - 1, size=number)
    replicate = _from_posterior if from_posterior else _from_prior
    observed = _statistics_of(vae, by_name(x)["x"], statistics)
    if bad := [name for name, value in observed.items() if not np.isfinite(value)]:
        raise ValueError(
            f"The statistics {', '.join(bad)} of the data are not finite. Leave out rows with missing "
            "values, or give other statistics."
        )
    drawn = [_statistics_of(vae, replicate(vae, x, int(own)), statistics) for own in seeds]
    return {
        name: _check(value, np.array([row[name] for row in drawn]))
        for name, value in observed.items()
    }


def _check(observed: float, drawn: np.ndarray) -> PredictiveCheck:
    # The data count as one more draw: so the p-value of a true model is valid for any number.
    as_large, as_small = (
        (1 + np.sum(side)) / (1 + len(drawn)) for side in (drawn >= observed, drawn <= observed)
    )
    p_value = min(1.0, 2.0 * min(as_large, as_small))
    return PredictiveCheck(observed, float(drawn.mean()), float(drawn.std()), float(p_value))


def _statistics_of(vae: VAE, x, statistics: Mapping[str, Callable]) -> dict[str, float]:
    return {
        f"{name} of {part}" if vae.x.has_parts else name: float(statistic(values))
        for part, values in vae.columns(x).items()
        for name, statistic in statistics.items()
    }


def _from_prior(vae: VAE, x, seed: int):
    """Draw as many examples as x has, under the same conditions."""
    given = {"condition": by_name(x)["condition"]} if vae.is_conditional else {}
    return vae.generate_arrays(num_examples(x), seed=seed, draws=True, **given)


def _from_posterior(vae: VAE, x, seed: int):
    """Draw each example anew, with z from its own q(z|x)."""
    seeds = sampling.row_seeds(num_examples(x), seed)
    return vae.x.whole(over_batches(vae.compile_once(_draw_anew), (x, seeds), 500))


def _draw_anew(vae: VAE, batch_and_seeds, start: tf.Tensor) -> dict:
    batch, seeds = batch_and_seeds
    z = sampling.sample_rows(vae.encode(batch), seeds)
    likelihood = vae.decode(z, by_name(batch).get("condition"))
    return vae.x.parts(sampling.draw_of_rows(likelihood, seeds))
