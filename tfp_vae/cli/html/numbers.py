"""The numbers of runs as a table: with standard errors, and the best of several runs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_vae import datasets
from tfp_vae.cli.html.blocks import Block, Cell, table
from tfp_vae.cli.html.meanings import ERRORS, FACTS, NUMBERS, Number, others
from tfp_vae.cli.html.subject import DRAWS_FOR_ERRORS, Subject
from tfp_vae.cli.report import caution
from tfp_vae.layers.parts import innermost, parts_of
from tfp_vae.layers.values import values_of


def numbers(subjects: list[Subject]) -> list[Block]:
    """Return the table of all numbers of some runs: known ones first, then all others."""
    comparable = are_comparable(subjects)
    rows = []
    for name, known in {**NUMBERS, **others([subject.numbers for subject in subjects])}.items():
        values = [_value(subject, name, known) for subject in subjects]
        title = Cell(known.title, known.meaning.format(**_facts(subjects)))
        if any(value is not None for value in values):
            best = place_of_best(values, known.better) if comparable and len(subjects) > 1 else None
            cells = [
                _cell(subjects, place, name, known, values, best) for place in range(len(subjects))
            ]
            rows.append([title, *cells])
        elif any(words := [_words(subject, name) for subject in subjects]):
            rows.append([title, *(Cell(word or "not defined") for word in words)])
    return [
        table(["", *titles(subjects)], rows, _about_errors(subjects)),
        *_remarks(subjects, comparable),
    ]


def titles(subjects: list[Subject]) -> list[str]:
    """Return the titles of columns, one for each run."""
    return [subject.name for subject in subjects] if len(subjects) > 1 else ["value"]


def headline(subject: Subject) -> str:
    """Return the first sentence about a run."""
    for name in ("nll", "negative_elbo", "log_likelihood"):
        known = NUMBERS[name]
        if (value := _value(subject, name, known)) is not None:
            title = known.title.removesuffix(" (nats)")
            number = _written(subject, name, known, value)
            active = f"{subject.numbers.get('active_units')} of {subject.vae.z.size}"
            return f"{title} {number} nats per example; {active} latent dimensions are active."
    return "No likelihood is defined for this model."


def rounded(value: float, error: float | None, form: str) -> str:
    """Return a number with its error, to two digits of the error.

    >>> rounded(106.5193, 0.977, ".3f"), rounded(30.9441, 0.3, ".3f"), rounded(2.0, None, ".3f")
    ('106.52 ± 0.98', '30.94 ± 0.30', '2.000')
    """
    if not error:
        return f"{value:{form}}"
    digits = min(6, max(0, 1 - math.floor(math.log10(error))))
    sign = form[0] if form.startswith("+") else ""
    return f"{value:{sign},.{digits}f} ± {error:.{digits}f}"


def are_comparable(subjects: list[Subject]) -> bool:
    """Return whether the numbers of all runs are about the same: the same test examples, given the
    same condition, and densities of them, or probabilities of them.
    """
    first, *others = ([_what_is_known(subject), _leaves(subject.test)] for subject in subjects)
    return all(
        known == first[0]
        and len(leaves) == len(first[1])
        and all(map(_are_equal, leaves, first[1]))
        for known, leaves in others
    )


def _what_is_known(subject: Subject) -> tuple:
    parts = parts_of(subject.vae.some_likelihood).values()
    have_density = [values_of(innermost(part)).interval is not None for part in parts]
    return subject.options.condition, have_density


def _leaves(data) -> list[np.ndarray]:
    return tf.nest.flatten(datasets.x_of(data))


def _are_equal(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one, other, equal_nan=True)


def _words(subject: Subject, name: str) -> str:
    """Return what a run says in words in the place of a number, or nothing."""
    said = subject.numbers.get(name)
    return said if isinstance(said, str) else ""


def _value(subject: Subject, name: str, known: Number) -> float | None:
    value = known.of(subject) if known.of else subject.numbers.get(name)
    number, _ = _estimate(value)
    return number


def _estimate(value: Any) -> tuple[float | None, float | None]:
    """Return a number and its error, as json may hold them: alone, as a pair, or by name."""
    if isinstance(value, Mapping):
        value = [value.get("value"), value.get("error")]
    pair = value if isinstance(value, list) and len(value) == 2 else [value, None]
    number, error = (
        part if isinstance(part, (int, float)) and math.isfinite(part) else None for part in pair
    )
    return number, error


def _error(subject: Subject, name: str, known: Number) -> float | None:
    """Return the standard error of a number, or None: the one that the run knows, or else that of
    its values.
    """
    _, told = _estimate(subject.numbers.get(name))
    beside = [_estimate(subject.numbers.get(name + ending))[0] for ending in ERRORS]
    errors = [error for error in (told, *beside) if error is not None]
    if not errors and known.values is not None:
        return _error_of_mean(known.values(subject))
    return errors[0] if errors else None


def _error_of_mean(values: np.ndarray) -> float | None:
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    return float(values.std(ddof=1, dtype="float64") / math.sqrt(len(values)))


def place_of_best(values: Sequence[float | None], better: int) -> int | None:
    """Return the place of the best of several values, the first of equal ones."""
    known_values = [value for value in values if value is not None]
    if not better or len(known_values) < 2:
        return None
    return values.index(max(known_values, key=lambda value: better * value))


def on_draws(runs: Sequence[Mapping]) -> list[str]:
    """Return a sentence if the NLLs of runs come from different numbers of draws."""
    draws = {numbers["num_samples"] for numbers in runs if "num_samples" in numbers}
    if len(draws) < 2:
        return []
    return [
        f"The NLLs come from {', '.join(map(str, sorted(draws)))} draws: fewer draws give larger "
        "ones. Judge all runs alike by tfp-vae evaluate --num-samples."
    ]


def _cell(subjects, place: int, name: str, known: Number, values: list, best: int | None) -> Cell:
    if values[place] is None:
        return Cell("not defined")
    text = _written(subjects[place], name, known, values[place])
    text = text.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")
    if best is None:
        return Cell(text)
    if place == best:
        return Cell(text, "best", is_best=True)
    error = None
    if known.values is not None:
        error = _error_of_mean(known.values(subjects[place]) - known.values(subjects[best]))
    difference = rounded(values[place] - values[best], error, f"+{known.form}")
    return Cell(text, f"{difference} to the best")


def _written(subject: Subject, name: str, known: Number, value: float) -> str:
    bound = "<= " if name in ("nll", "bits_per_dimension") and _is_bound(subject) else ""
    whole = f" of {subject.numbers.get(known.out_of)}" if known.out_of else ""
    return bound + rounded(value, _error(subject, name, known), known.form) + whole


def _is_bound(subject: Subject) -> bool:
    return bool(subject.numbers.get("nll_is_bound"))


def _facts(subjects: list[Subject]) -> dict[str, str]:
    """Return what the sentences need; where runs differ, what is so of any of them."""
    kinds = {True: "in closed form", False: "estimated by Monte Carlo"}
    facts: dict[str, list] = {
        "dimensions": [subject.vae.x.size for subject in subjects],
        "kl_kind": [kinds[bool(subject.numbers.get("kl_is_analytic"))] for subject in subjects],
        **{
            name: [subject.numbers[name] for subject in subjects if name in subject.numbers]
            for name in FACTS
        },
        **{
            name: [
                f"{subject.numbers[name]:.0%}" for subject in subjects if name in subject.numbers
            ]
            for name in ("annealed_acceptance", "rate_distortion_acceptance")
        },
    }
    return {name: " or ".join(dict.fromkeys(map(str, told))) for name, told in facts.items()}


def _about_errors(subjects: list[Subject]) -> str:
    number = subjects[0].num_test
    if number < 2:
        return "One test example has no standard error."
    text = (
        f"± is the standard error over the {number:,} test examples, or over those that a number says "
        "it is of; scores of disentanglement are of training data."
    )
    if len(subjects) > 1:
        text += (
            " That of a difference is taken example by example, for the NLL from "
            f"{DRAWS_FOR_ERRORS} draws of each."
        )
    return text


def _remarks(subjects: list[Subject], comparable: bool) -> list[Block]:
    """Return the sentences without which the table would be misread."""
    remarks = {
        f"{subject.name}: its codes are points, so that ELBO, KL and NLL are not defined."
        for subject in subjects
        if subject.vae.encodes_to_points
    } | {
        f"{subject.name}: its training has not come to its end: {subject.num_epochs} of "
        f"{subject.options.epochs} epochs. The numbers are those of the model so far."
        for subject in subjects
        if not subject.is_finished
    }
    if not comparable:
        remarks.add(
            "The runs were judged on different test data, under different conditions, or by densities "
            "and by probabilities: their numbers do not compare, and none is marked as the best."
        )
    remarks |= {
        f"{subject.name}: {warning}"
        for subject in subjects
        if (warning := caution(subject.numbers))
    }
    remarks |= {*on_draws([subject.numbers for subject in subjects])}
    return [Block(sentence=text, is_aside=True) for text in sorted(remarks)]
