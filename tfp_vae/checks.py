"""Checks of arguments: counts, seeds, and objects of a certain class."""

import importlib


def needs(what: str, extra: str, error: ImportError) -> ImportError:
    """Return the error for a library that only one use needs, with the line that installs it.

    >>> print(needs("A picture", "plots", ImportError(name="matplotlib")))
    A picture needs matplotlib: pip install 'tfp_vae[plots]'.
    """
    return ImportError(f"{what} needs {error.name}: pip install 'tfp_vae[{extra}]'.")


def as_count(value, name: str, at_least: int = 1) -> int:
    """Return a count as an int, after checking it.

    Raises:
        ValueError: if it is not a whole number, or below `at_least`.

    >>> as_count(2.5, "num_samples")
    Traceback (most recent call last):
        ...
    ValueError: num_samples must be a whole number of at least 1, received 2.5.
    """
    return whole_number(value, f"{name} must be a whole number of at least {at_least}", at_least)


def as_seed(value) -> int:
    """Return a seed as an int, after checking it.

    Raises:
        ValueError: if it is not a whole number that fits int32, TFP's kind of seed.
    """
    return whole_number(value, "seed must be a whole number from 0 to 2**31 - 1", 0)


def expect_kind(name: str, value, kind: type, expected: str):
    """Return an argument, after checking that it is of a certain class.

    Raises:
        TypeError: if it is not; `expected` says in words what it should be.
    """
    if not isinstance(value, kind):
        raise TypeError(
            f"{name} must be {expected}, received {value!r} of type {type(value).__name__}."
        )
    return value


def one_of(choices: tuple, value, name: str):
    """Return a choice, after checking that it is allowed.

    Raises:
        ValueError: if it is not one of the choices.
    """
    if value not in choices:
        raise ValueError(
            f"{name} must be one of {', '.join(map(str, choices))}; received {value!r}."
        )
    return value


def whole_number(value, expected: str, least: int) -> int:
    """Return a whole number that fits int32, such as 3 or 3.0; `expected` says in words what it
    should be.
    """
    message = f"{expected}, received {value!r}."
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(message) from error
    if number != value or not least <= number < 2**31:
        raise ValueError(message)
    return number


def imported(module: str, what: str, extra: str):
    """Import a library that only one use needs.

    Raises:
        ImportError: if it is not installed, with the line that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise needs(what, extra, error) from error
