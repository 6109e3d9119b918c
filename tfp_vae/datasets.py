"""Data sets: train, validation and test data from a name, a file or an array, with a suitable
likelihood.
"""

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_vae import layers, sources, tables, text
from tfp_vae.batch import gather_rows, has_rows, num_examples
from tfp_vae.checks import as_seed
from tfp_vae.kinds import (
    BECOME,
    MOST,
    MOST_CATEGORIES,
    PIXELS,
    USUAL,
    advice,
    binarize,
    by_part,
    dequantize,
    expect_at_most,
    kind_of,
    known_of,
)
from tfp_vae.layers.parts import map_parts
from tfp_vae.rows import Rows, final, mapped, some_of
from tfp_vae.seeds import Stream, seed_of
from tfp_vae.sources import labels
from tfp_vae.tables import Table
from tfp_vae.text import Vocabulary

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Splits:
    """Train, validation and test data, and the likelihood that suits them.

    Args:
        name: name of the data set, without the folders of a path; it can be used as a file name.
        train: `[num_examples, *event_shape]`; 8-bit pixels if `draw` is given, else final values. A
            table is a dict of such arrays, one for each part. With a condition, `train`,
            `validation` and `test` are dicts of "x" (such data) and "condition" (`[num_examples,
            ...]`). Data larger than memory are `rows.Rows`, which are read when they are used.
        validation: final values, float32.
        test: final values, float32.
        likelihood: name of the class in `tfp_vae.layers`; for a table, a dict of names.
        likelihood_config: its arguments besides the event shape; for a table, a dict of such dicts.
        draw: function from a batch of training data and a stateless seed to final values, called
            again in each epoch (`binarize`, `dequantize`); or None.
        note: a sentence that says why this likelihood was chosen, and how the values were changed.
        table: the columns of a DataFrame or of its file, whose parts these values are.

    Example:
    >>> load("digits")
    Splits(digits: 1,437, 180, 180 examples of shape (8, 8, 1); IndependentBinomial, for counts from 0 to 16)
    """

    name: str
    train: Any
    validation: Any
    test: Any
    likelihood: Any
    likelihood_config: dict
    draw: Callable | None = None
    note: str = ""
    table: Table | None = None

    def __post_init__(self):  # in the name of a folder, TensorFlow takes brackets for a pattern
        object.__setattr__(self, "name", self.name.replace("[", "(").replace("]", ")"))

    def __repr__(self) -> str:
        rows = ", ".join(
            f"{num_examples(part):,}" for part in (self.train, self.validation, self.test)
        )
        return f"Splits({self.name}: {rows} examples of shape {self.event_shape}; {self.note})"

    @property
    def event_shape(self) -> Any:
        """Shape of one example x; for a table, a dict of the shapes of its parts."""
        return map_parts(lambda values: values.shape[1:], x_of(self.train))

    @property
    def is_table(self) -> bool:
        """Whether x has several parts."""
        return isinstance(self.likelihood, dict)

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The tokens of texts, or None."""
        return None if self.is_table else self.likelihood_config.get("vocabulary")

    @property
    def num_tokens(self) -> int | None:
        """The number of tokens if x is a sequence of tokens, or None."""
        if self.vocabulary is not None:
            return len(self.vocabulary)
        return None if self.is_table else self.likelihood_config.get("num_tokens")

    @property
    def conditions(self) -> np.ndarray | None:
        """The conditions of all examples, concatenated, `[num_examples, ...]`, or None."""
        if not _has_condition(self.train):
            return None
        return np.concatenate(
            [part["condition"] for part in (self.train, self.validation, self.test)]
        )

    @property
    def has_labels(self) -> bool:
        """Whether the condition consists of labels: whole numbers of at least 0."""
        return (
            self.conditions is not None
            and self.conditions.dtype.kind == "i"
            and self.conditions.min() >= 0
        )

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of batches in one epoch of `batches`.

        Raises:
            ValueError: if the batch is empty or larger than the training data.
        """
        number = num_examples(self.train)
        if not 1 <= batch_size <= number:
            raise ValueError(
                f"The batch size must lie between 1 and the {number} training examples of "
                f"{self.name}, received {batch_size}."
            )
        return number // batch_size

    def training_values(self, seed: int = 0) -> Any:
        """Return the final values of x in all training data, float32, drawn once if `draw` is
        given.
        """
        rows, draw = x_of(self.train), self.draw
        own_seed = seed_of(Stream.TRAINING_VALUES, as_seed(seed))
        if self.is_table and draw is not None:
            rows, draw = draw(rows, own_seed), None
        return map_parts(lambda values: final(values, draw, own_seed), rows)

    def batches(
        self, batch_size: int, *, seed: int = 0, first_epoch: int = 0, epochs: int = 1
    ) -> tf.data.Dataset:
        """Return the shuffled training batches of the epochs `first_epoch`, ..., `epochs` - 1, in
        order.

        Order and draws depend only on (seed, epoch, step), so any epoch can be reproduced without
        the ones before it. Each epoch leaves out the last examples of its random order that do not
        fill a batch, so all batches have the same shape.

        Use with `fit(splits.batches(...), steps_per_epoch=splits.steps_per_epoch(batch_size),
        ...)`.

        >>> splits = load("digits")
        >>> next(iter(splits.batches(100))).shape
        TensorShape([100, 8, 8, 1])
        """
        steps = self.steps_per_epoch(batch_size)
        seed = as_seed(seed)
        data = tf.nest.map_structure(
            lambda values: values if has_rows(values) else tf.constant(values), self.train
        )

        def one_epoch(epoch):
            epoch_seed = tf.random.fold_in(seed_of(Stream.EPOCHS, seed), tf.cast(epoch, tf.int32))
            order = tf.random.experimental.stateless_shuffle(
                tf.range(num_examples(data)), epoch_seed
            )

            def one_batch(step):
                places = tf.ensure_shape(order[step * batch_size :][:batch_size], [batch_size])
                rows = tf.nest.map_structure(lambda values: gather_rows(values, places), data)
                drawn = x_of(rows)
                if self.draw is not None:
                    drawn = self.draw(
                        drawn, tf.random.fold_in(epoch_seed, tf.cast(step, tf.int32) + 1)
                    )
                x = tf.nest.map_structure(
                    lambda values, row: tf.ensure_shape(tf.cast(values, tf.float32), row.shape),
                    drawn,
                    x_of(rows),
                )
                return {**rows, "x": x} if _has_condition(rows) else x

            return tf.data.Dataset.range(steps).map(one_batch, num_parallel_calls=tf.data.AUTOTUNE)

        return (
            tf.data.Dataset.range(first_epoch, epochs)
            .flat_map(one_epoch)
            .prefetch(tf.data.AUTOTUNE)
        )


def x_of(data):
    """Return the x of data that may also have a condition."""
    return data["x"] if _has_condition(data) else data


def _has_condition(data) -> bool:
    return isinstance(data, dict) and "condition" in data


def load(
    source: str | os.PathLike | np.ndarray | Mapping = "digits",
    *,
    condition: str | None = None,
    likelihood: str | Mapping[str, str | None] | None = None,
    missing: bool = False,
    tokens: str | Vocabulary | None = None,
    length: int | None = None,
    table: Table | None = None,
    seed: int = 0,
) -> Splits:
    """Load a data set.

    | source | data | likelihood unless chosen |
    |---|---|---|
    | `"digits"` | scikit-learn's 1,797 handwritten 8x8 digits, counts 0 to 16 | IndependentBinomial, 16 trials |
    | `"shapes"` | 10,000 images of 32x32, drawn from known factors, see `tfp_vae.shapes` | IndependentBernoulli |
    | a TFDS name such as `"mnist"` | its feature `image` | as 8-bit images |
    | path of `.npy` | its array | by its values, as below |
    | a folder of PNG or JPEG images of one size | the images; "label" is the subfolder | as 8-bit images |
    | a TFRecord file, or a folder of some | the feature `x` or `image` of each `tf.train.Example` | by its values |
    | a folder of a saved `tf.data.Dataset` | the examples in its batches | by its values |
    | path of `.npz` | `x_train`, `x_test` and perhaps `x_validation`, or one array | by its values, as below |
    | dict of arrays | as the arrays of an `.npz` file | by its values, as below |
    | path of `.txt`, `.smi` or `.selfies` | texts, one a line, in UTF-8, as tokens | AutoregressiveCategorical |
    | pandas DataFrame, path of `.csv` or `.parquet` | named columns of all kinds | of each column, see `tables.Table` |
    | these with parts by name in `likelihood` | a table: arrays of those names | of each part by its values |
    | two values, 0 and 1, or bytes of 0 and 255 | zeros and ones | IndependentBernoulli |
    | grey 8-bit images of which binarizing leaves most: three tenths of the variance or less are noise | binarized at \
random, anew in each epoch, white with the probability of its brightness | IndependentBernoulli |
    | other 8-bit images: photographs, colour | the levels 0 to 255 | IndependentQuantizedLogistic |
    | whole numbers from 0 to at most 255, bytes in vectors too | counts | IndependentBinomial |
    | larger ones, to 2**24 | counts without a limit | IndependentNegativeBinomial |
    | floats, or whole numbers of which some are negative | real values | IndependentNormal |

    8-bit images are arrays of uint8, `[num_examples, height, width]` or `[num_examples, height,
    width, channels]`; if all their values are below 32, they are treated as counts. If you choose a
    likelihood of bits, they are binarized; if you choose one of real numbers, they are dequantized
    to [0, 1]. The same holds for vectors of bytes. `Splits.note` says what was chosen and done.

    If the source has no validation or test data, they are split off from the training data: a tenth
    each, at most 10,000 (for TFDS: the last tenth of the training data, at most 5,000).
    `TFDS_DATA_DIR` is honoured.

    What takes more than half a gigabyte stays in its files, where the format allows it: `.npy`,
    uncompressed `.npz`, TFRecord (TFDS too) and images. Saved `tf.data.Dataset`s and Parquet files
    are copied to temporary files of rows. `Splits` then hold `rows.Rows`.

    Args:
        source: name, path of a file or a folder, or array `[num_examples, *event_shape]`.
        condition: what x is conditional on: "label" of the digits, a factor of the shapes, a
            feature of a TFDS data set or of TFRecord files, or the name of other arrays in the
            source: `x` and `label` in an `.npz` file, or `x_train`, `label_train`, `x_test` and `label_test`.
        likelihood: name of a class in `tfp_vae.layers` to use instead. For a table, a dict from the
            names of its arrays to such names, or to None for the automatic choice. Use
            `IndependentCategorical` for labels 0, 1, ....
        missing: whether NaN is allowed and means a missing value.
        tokens: how to split texts: "characters", "words", "smiles", "selfies", a regular expression
            for one token, or the `text.Vocabulary` of a model. By default files `.smi` hold SMILES,
            `.selfies` SELFIES, and others are split into characters.
        length: number of places of a sequence; by default one more than the longest text has.
        table: the `tables.Table` of a model, for a DataFrame or its file of the same columns.
        seed: seed of the binarization or dequantization of validation and test data.

    Raises:
        ValueError: if the name is not known, or the data are empty, not finite or not numbers.
        FileNotFoundError: if the file does not exist, or a TFDS data set is neither prepared nor
            available for download.

    Example:
    >>> splits = load("digits")
    >>> splits.train.shape, splits.validation.shape, splits.test.shape
    ((1437, 8, 8, 1), (180, 8, 8, 1), (180, 8, 8, 1))
    >>> splits.likelihood, splits.likelihood_config
    ('IndependentBinomial', {'total_count': 16})
    """
    sources.expect_source(source)
    if text.is_text(source, is_chosen=tokens is not None):
        if condition is not None or missing or isinstance(likelihood, Mapping):
            raise ValueError(
                f"{source} holds texts alone. For a condition, give an .npz file of it and of the "
                "numbers of the tokens as x, and --likelihood AutoregressiveCategorical."
            )
        return _of_texts(Path(str(source)), tokens, length, likelihood)
    if tables.is_frame(source) or tables.is_table_file(source):
        tables.expect_no_condition(condition, likelihood)
        return _of_columns(source, likelihood, missing, table)
    if isinstance(tokens, str):
        raise ValueError(
            f"tokens={tokens!r} says how to split texts, but {source} is no file of texts, one a "
            f"line, whose name ends in {', '.join(text.SPLITS)}."
        )
    chosen = by_part(likelihood)
    wanted = {part: part for part in chosen} | (
        {} if condition is None else {"condition": condition}
    )
    name, parts = sources.read(
        source, wanted, lambda name, arrays: _check_all(name, arrays, chosen, missing)
    )
    is_table = isinstance(likelihood, Mapping)
    for part, key in itertools.product(parts, chosen):
        called, least_ndim = (f"{name}, {key}", 1) if is_table else (name, 2)
        if is_table:
            part[key] = np.asarray(part[key])
        if not isinstance(part[key], Rows):  # rows were looked at once
            sources.expect_numbers(called, part[key], missing=missing, least_ndim=least_ndim)
    for key in wanted:
        _expect_alike(f"{name}, {key}" if len(wanted) > 1 else name, [part[key] for part in parts])
    suited = {
        key: _suit(
            name, [part[key] for part in parts], usual, as_seed(seed), place if is_table else None
        )
        for place, (key, usual) in enumerate(chosen.items())
    }
    splits = _table(name, suited) if is_table else suited["x"]
    if condition is None:
        return splits
    return _with_conditions(splits, [np.asarray(part["condition"]) for part in parts])


def _of_texts(
    path: Path, tokens: str | Vocabulary | None, length: int | None, likelihood: str | None
) -> Splits:
    parts, vocabulary = sources.load_texts(path, tokens, length)
    name = likelihood or "AutoregressiveCategorical"
    config = getattr(layers, name).arguments_of_text(vocabulary)
    if config is None:
        raise ValueError(
            f"{name} is no likelihood of texts. Choose AutoregressiveCategorical, or "
            "IndependentCategorical."
        )
    train, validation, test = (part["x"].astype("float32") for part in parts)
    note = (
        f"{name}, for texts of up to {train.shape[1]} tokens, of which there are "
        f"{len(vocabulary.tokens):,} ({vocabulary.split})"
    )
    return Splits(path.stem, train, validation, test, name, config, note=note)


def _of_columns(source, likelihood, missing: bool, table: Table | None) -> Splits:
    known: dict = {"likelihood": likelihood, "missing": missing, "table": table}
    name, (train, validation, test), table = tables.load(source, sources.cut_rows, **known)
    note = f"of each column by its type: {', '.join(map(' by '.join, table.likelihoods.items()))}"
    names, config = table.likelihoods, table.arguments
    return Splits(name, train, validation, test, names, config, note=note, table=table)


def _table(name: str, parts: dict[str, Splits]) -> Splits:
    """Combine the parts of a table."""
    data: dict = {
        split: {key: getattr(part, split) for key, part in parts.items()} for split in SPLITS
    }
    draws = {key: part.draw for key, part in parts.items() if part.draw is not None}

    def draw(rows, seed):
        return {
            key: draws[key](values, seed) if key in draws else values
            for key, values in rows.items()
        }

    likelihood = {key: part.likelihood for key, part in parts.items()}
    config = {key: part.likelihood_config for key, part in parts.items()}
    note = ". ".join(f"{key}: {part.note}" for key, part in parts.items())
    return Splits(
        name,
        **data,
        likelihood=likelihood,
        likelihood_config=config,
        draw=draw if draws else None,
        note=note,
    )


def _expect_alike(name: str, parts: list[np.ndarray]) -> None:
    for part in parts:
        if (part.shape[1:], part.dtype.kind) != (parts[0].shape[1:], parts[0].dtype.kind):
            raise ValueError(
                f"The parts of {name} must agree: training examples have shape {parts[0].shape[1:]} "
                f"and type {parts[0].dtype}, others have shape {part.shape[1:]} and type "
                f"{part.dtype}."
            )


def _with_conditions(splits: Splits, conditions: list[np.ndarray]) -> Splits:
    """Add the condition to x: labels as int32, others as float32."""
    named: dict[str, Any] = {}
    for split, condition in zip(SPLITS, conditions, strict=True):
        x = getattr(splits, split)
        name = f"{splits.name}, the condition"
        sources.expect_numbers(name, condition, missing=False, least_ndim=1, for_x=False)
        if condition.dtype.kind in "iu":
            expect_at_most(
                MOST_CATEGORIES if condition.min() >= 0 else MOST,
                name,
                [condition.min(), condition.max()],
            )
        named[split] = {
            "x": x,
            "condition": condition.astype("float32" if condition.dtype.kind == "f" else "int32"),
        }
    return dataclasses.replace(splits, **named)


def _suit(
    name: str, parts: list[np.ndarray], likelihood: str | None, seed: int, place: int | None
) -> Splits:
    """Choose the likelihood that suits the values, and convert them to its support.

    In a table, which passes the position of the part, only bytes of height x width x channels are
    pixels.
    """
    looked_at = [some_of(part) for part in parts]
    edges = [edge for values in known_of(looked_at) for edge in (values.min(), values.max())] or [0]
    largest = max(edges)
    kind = kind_of(looked_at, is_part=place is not None)
    reason = "as chosen"
    if parts[0].dtype.kind in "iu":
        expect_at_most(MOST, name, edges)
    if likelihood is None:
        likelihood, reason = USUAL[kind]
        reason += advice(kind, looked_at[0])
    chosen = getattr(layers, likelihood)
    if chosen.has_own_network and (place is not None or parts[0].ndim != 2):
        raise ValueError(
            f"{likelihood} is for sequences of tokens alone, whole numbers [num_examples, length], "
            f"received {name} of shape {parts[0].shape}{', a part of a table' * (place is not None)}. "
            "Choose another likelihood, such as IndependentCategorical."
        )
    become = chosen.pixels
    may_be_pixels = parts[0].dtype == np.uint8 and (place is None or parts[0].ndim == 4)
    pixels = kind in PIXELS or (kind == "counts" and may_be_pixels and become != "levels")
    if {"num_categories", "num_tokens"} & {*chosen.arguments_of_values(0)}:
        expect_at_most(MOST_CATEGORIES, name, edges)
    config = chosen.arguments_of_values(255 if pixels else int(largest))
    if kind == "bytes of bits" and become == "bits":
        # pixel = probability, 0 or 1
        parts, pixels = [mapped(part, lambda values: values // 255) for part in parts], False
    draw, words = BECOME[become] if pixels else BECOME["levels"]
    note = f"{likelihood}, {reason.format(largest=largest)}{words}"
    if draw is not None and place:
        draw = functools.partial(_drawn_apart, draw, place)
    if pixels and become == "scaled":
        parts = [mapped(part, lambda values: values / 255) for part in parts]
    train, validation, test = parts
    if draw is None:
        train = final(train, None, None)
    validation = final(validation, draw, seed_of(Stream.VALIDATION_DATA, seed))
    test = final(test, draw, seed_of(Stream.TEST_DATA, seed))
    return Splits(name, train, validation, test, likelihood, config, draw, note)


def _drawn_apart(draw: Callable, place: int, pixels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draw the values of a later part of a table, independently of the earlier parts."""
    return draw(pixels, tf.random.fold_in(seed, place))


def _check_all(name: str, arrays: Mapping[str, np.ndarray], chosen: Mapping, missing: bool) -> None:
    """Check the arrays that are parts of x, before they are split."""
    ends = ("", *(f"_{split}" for split in SPLITS))
    wanted = {part + end for part in chosen for end in ends}
    for key, values in arrays.items():
        if key in wanted or (len(arrays) == 1 and [*chosen] == ["x"]):
            called = name if len(arrays) == 1 else f"{name}, {key}"
            given = values if isinstance(values, Rows) else np.asarray(values)
            sources.expect_numbers(called, given, missing=missing, least_ndim=1)


__all__ = ["Splits", "binarize", "dequantize", "labels", "load"]
