"""The names that the command line accepts, and how they are parsed."""

import ast
import inspect
from types import ModuleType
from typing import Any

import numpy as np

from tfp_vae import hierarchy, layers, objectives, priors
from tfp_vae.checks import one_of


def _members(room: ModuleType, base: type, role: str | None = None) -> tuple[str, ...]:
    """Return the names of a module's subclasses of a class, or only those with a given role."""
    members = {name: getattr(room, name) for name in room.__all__}
    members = {
        name: one
        for name, one in members.items()
        if inspect.isclass(one) and not inspect.isabstract(one)
    }
    of_the_kind = [name for name, member in members.items() if issubclass(member, base)]
    return tuple(
        sorted(name for name in of_the_kind if role in (None, *getattr(members[name], "roles", ())))
    )


FLOWS = _members(layers, layers.Flow)
# Posteriors of one of several latents, and posteriors that only a whole z can have.
POSTERIORS_OF_PARTS = (*_members(layers, layers.DistributionLayer, "posterior"), *FLOWS)
SOLE_POSTERIORS = _members(layers, layers.DistributionLayer, "sole posterior")
POSTERIORS = (*POSTERIORS_OF_PARTS, *SOLE_POSTERIORS, *hierarchy.__all__)
LIKELIHOODS = _members(layers, layers.DistributionLayer, "likelihood")
# Priors that need only the size of the latents, and all priors.
PRIORS_OF_A_SIZE = (*_members(priors, priors.Prior, "of a size"), *FLOWS)
PRIORS = (*PRIORS_OF_A_SIZE, *_members(priors, priors.Prior, "of an encoder"))
# Priors and posteriors that only go together.
PAIRS = {getattr(layers, name).only_prior: name for name in SOLE_POSTERIORS}
OBJECTIVES = _members(objectives, objectives.Objective)


def parse(option: str, text: str, known: tuple[str, ...]) -> tuple[str, dict]:
    """Return a name and its arguments, from a name alone or with keyword arguments as in Python.

    >>> parse("objective", "IWAE(num_samples=50, estimator='dreg')", ("ELBO", "IWAE"))
    ('IWAE', {'num_samples': 50, 'estimator': 'dreg'})
    """
    try:
        tree = ast.parse(text, mode="eval").body
        call = tree if isinstance(tree, ast.Call) else ast.Call(tree, [], [])
        if not isinstance(call.func, ast.Name) or call.args:
            raise ValueError("not a name with arguments by name")
        arguments = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
        if len(arguments) < len(call.keywords):
            raise ValueError("a name given twice")
    except (
        SyntaxError,
        ValueError,
        RecursionError,
        MemoryError,
    ) as error:  # the last two: too deep
        raise ValueError(
            f"--{option} must be a name, alone or with arguments by name such as "
            f"{known[0]}(name=1); received {text!r}."
        ) from error
    return one_of(known, call.func.id, f"--{option}"), arguments


def parse_likelihood(
    text: str, known: tuple[str, ...] = ("auto", *LIKELIHOODS, "Joint")
) -> tuple[Any, dict]:
    """Return the parsed option --likelihood: names and arguments; None means a choice that suits
    the data.

    >>> parse_likelihood("IndependentNormal"), parse_likelihood("Joint(age='auto', job='IndependentCategorical')")
    (('IndependentNormal', {}), ({'age': None, 'job': 'IndependentCategorical'}, {'age': {}, 'job': {}}))
    """
    name, arguments = parse("likelihood", text, known)
    if name != "Joint":
        return None if name == "auto" else name, arguments
    parts = {
        part: parse_likelihood(str(end), ("auto", *LIKELIHOODS)) for part, end in arguments.items()
    }
    return {part: name for part, (name, _) in parts.items()}, {
        part: given for part, (_, given) in parts.items()
    }


def parse_condition(text: str) -> np.ndarray:
    """Return the parsed option --condition: a label, or numbers with commas between them.

    >>> parse_condition("7"), parse_condition("0.5, 1")
    (array(7), array([0.5, 1. ]))
    """
    try:
        return np.asarray(ast.literal_eval(text), None if "." in text else "int64")
    except (SyntaxError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"--condition must be a label such as 7, or numbers such as 0.5,1; received {text!r}."
        ) from error
