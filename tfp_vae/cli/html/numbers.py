"""The numbers of runs: what each means in a sentence, its standard error, and the best of several."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_vae import datasets
from tfp_vae.cli.html.blocks import Block, Cell, table
from tfp_vae.cli.html.subject import DRAWS_FOR_ERRORS, Subject
from tfp_vae.layers.parts import innermost, parts_of
from tfp_vae.layers.values import values_of

NATS_PER_BIT = math.log(2.0)
# Facts about the evaluation, which sentences tell; they are not numbers of their own.
FACTS = (
    "annealed_acceptance",
    "annealed_examples",
    "annealed_steps",
    "bits_per_dim",
    "data",
    "dataset",
    "epochs",
    "kl_by_dimension",
    "kl_is_analytic",
    "latent_units",
    "nll_is_bound",
    "num_examples",
    "num_samples",
)
# Endings of names under which an evaluation may state the error of another number.
ERRORS = ("_standard_error", "_error")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Number:
    """A number that the report knows.

    Args:
        title: what it is called, with its unit.
        meaning: a sentence, in which the facts of the run stand in braces.
        better: -1 if less is better, 1 if more is, 0 if neither is by itself.
        values: the same for each test example, from `Subject.values`; or None if it is no mean.
        of: the number, from those of the run, if it is not there under its own name.
        out_of: the name of the number of which it is a part.
        form: how it is written if it has no error.
    """

    title: str
    meaning: str
    better: int = 0
    values: Callable[[Subject], np.ndarray] | None = None
    of: Callable[[Subject], float | None] | None = None
    out_of: str = ""
    form: str = ".3f"


def _bits(subject: Subject) -> float | None:
    nll = subject.numbers.get("nll")
    # Of incomplete examples, the NLL is that of the values that are there.
    if nll is None or not subject.medium.is_image or subject.vae.missing:
        return None
    return nll / _nats_of_a_bit(subject)


def _nats_of_a_bit(subject: Subject) -> float:
    """Return the nats in one bit for each value of an example."""
    return NATS_PER_BIT * subject.vae.x.size


NUMBERS = {
    "nll": Number(
        title="NLL (nats)",
        meaning="-log p(x), estimated by importance sampling with {num_samples} draws: what an example "
        "costs under the model. Less is better.",
        better=-1,
        values=lambda subject: -subject.values["log_prob"],
    ),
    "bits_per_dimension": Number(
        title="NLL (bits per dimension)",
        meaning="The same for each of the {dimensions} values of an image: NLL / ({dimensions} ln 2).",
        better=-1,
        of=_bits,
        values=lambda subject: -subject.values["log_prob"] / _nats_of_a_bit(subject),
    ),
    "effective_samples": Number(
        title="effective samples of the NLL",
        meaning="How many draws count, in the median example. With few, -log p(x) is smaller than this "
        "NLL, maybe by nats.",
        form=".1f",
    ),
    "annealed_nll": Number(
        title="NLL by annealing (nats)",
        meaning="-log p(x) of the first test examples by annealed importance sampling, mostly nearer to "
        "the truth. Less is better.",
        better=-1,
    ),
    "annealed_gap": Number(
        title="gap of annealing (nats)",
        meaning="How far its bounds from both sides are apart, on data drawn from the model.",
    ),
    "negative_elbo": Number(
        title="-ELBO (nats)",
        meaning="The bound on the NLL that training makes small; the gap to it is the price of an "
        "approximate posterior. Less is better.",
        better=-1,
        values=lambda subject: -subject.values["elbo"],
    ),
    "log_likelihood": Number(
        title="log-likelihood (nats)",
        meaning="log p(x|z) at the codes of x: how well the decoder explains an example whose code it "
        "knows.",
        values=lambda subject: subject.values["log_likelihood"],
    ),
    "kl": Number(
        title="KL (nats)",
        meaning="KL(q(z|x) || p(z)), {kl_kind}: what the code of an example costs. Near 0 the codes "
        "say nothing.",
        values=lambda subject: subject.values["kl"],
    ),
    "active_units": Number(
        title="active units",
        meaning="The latent dimensions whose posterior mean varies over the data. The others are not "
        "used.",
        out_of="latent_units",
        form=".0f",
    ),
    "perplexity": Number(
        title="perplexity of the codes",
        meaning="The effective number of codes in use: 1 if all examples share one.",
        form=".1f",
    ),
    "nll_per_token": Number(
        title="NLL per token (nats)",
        meaning="The NLL over the mean number of tokens of a text; its exponential is the perplexity.",
        better=-1,
        form=".4f",
    ),
    "tokens_per_example": Number(
        title="tokens per text", meaning="Their mean number, with the end.", form=".2f"
    ),
    "mutual_information": Number(
        title="mutual information of x and z (nats)",
        meaning="What a code tells about its example, at most the logarithm of the number of examples.",
    ),
    "seconds": Number(title="training seconds", meaning="Time in training steps.", form=",.1f"),
    "examples_per_second": Number(
        title="examples per second", meaning="Speed of training, without compilation.", form=",.0f"
    ),
}


def numbers(subjects: list[Subject]) -> list[Block]:
    """Return the table of all numbers of some runs: known ones first, then all others."""
    comparable = are_comparable(subjects)
    rows = []
    for name, known in {**NUMBERS, **others([subject.numbers for subject in subjects])}.items():
        values = [_value(subject, name, known) for subject in subjects]
        if all(value is None for value in values):
            continue
        best = place_of_best(values, known.better) if comparable and len(subjects) > 1 else None
        title = Cell(known.title, known.meaning.format(**_facts(subjects)))
        cells = [
            _cell(subjects, place, name, known, values, best) for place in range(len(subjects))
        ]
        rows.append([title, *cells])
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


def others(runs: Sequence[Mapping]) -> dict[str, Number]:
    """Return the numbers of runs that this version does not know, under their own names."""
    names = [name for numbers in runs for name in numbers]
    unknown = [name for name in dict.fromkeys(names) if name not in (*NUMBERS, *FACTS)]
    errors = {name + ending for name in names for ending in ERRORS}
    return {
        name: Number(title=name.replace("_", " "), meaning="", form=".4g")
        for name in unknown
        if name not in errors
    }


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
    """Return the standard error of a number over the test examples, or None."""
    if known.values is not None:
        return _error_of_mean(known.values(subject))
    _, told = _estimate(subject.numbers.get(name))
    beside = [_estimate(subject.numbers.get(name + ending))[0] for ending in ERRORS]
    return next((error for error in (told, *beside) if error is not None), None)


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
        "num_samples": [subject.numbers.get("num_samples") for subject in subjects],
    }
    return {name: " or ".join(dict.fromkeys(map(str, told))) for name, told in facts.items()}


def _about_errors(subjects: list[Subject]) -> str:
    number = subjects[0].num_test
    if number < 2:
        return "One test example has no standard error."
    text = f"± is the standard error of the mean over the {number:,} test examples"
    if len(subjects) > 1:
        text += "; that of a difference is taken example by example"
    if any(not subject.vae.encodes_to_points for subject in subjects):
        text += f". Errors of the NLL come from {DRAWS_FOR_ERRORS} draws for each example"
    return text + "."


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
    remarks |= {*on_draws([subject.numbers for subject in subjects])}
    return [Block(sentence=text, is_aside=True) for text in sorted(remarks)]
