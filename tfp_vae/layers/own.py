"""The classes of distributions that layers make besides those of tfd; a served model names them."""

from typing import TypeVar

import tensorflow_probability as tfp

Class = TypeVar("Class", bound=type)
OWN: dict[str, type[tfp.distributions.Distribution]] = {}


def own(cls: Class) -> Class:
    """Register a class of distributions, so that served models can name it; a decorator.

    Raises:
        ValueError: if another class has its name.
    """
    if cls.__name__ in OWN:
        raise ValueError(f"There is a class {cls.__name__} already. Choose another name.")
    OWN[cls.__name__] = cls
    return cls
