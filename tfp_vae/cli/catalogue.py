"""The names that the options of `train` take, with a line and the paper of each.

They are shown by `tfp-vae list` and docs/members.md.
"""

import inspect
import re
from typing import NamedTuple

from tfp_vae import hierarchy, layers, networks, objectives, priors, sequences
from tfp_vae.cli.build import OF_SEQUENCES
from tfp_vae.cli.names import LIKELIHOODS, OBJECTIVES, POSTERIORS, PRIORS

PAGE = """\
# Members

What can be chosen by name, in Python and on the command line. `make docs` writes this page from the docstrings, where
the arguments, shapes and examples are.
"""
ARXIV = re.compile(r"\barXiv:(\d{4}\.\d{4,5})")


class Member(NamedTuple):
    """A class or function that an option names."""

    name: str
    line: str
    paper: str


def members() -> dict[str, list[Member]]:
    """Return all members by kind.

    >>> members()["networks"][0].name
    'mlp'
    """
    return {
        "posteriors": [_member(name, layers, hierarchy) for name in POSTERIORS],
        "likelihoods": [_member(name, layers) for name in LIKELIHOODS],
        "priors": [_member(name, priors, layers) for name in PRIORS],
        "objectives": [_member(name, objectives) for name in OBJECTIVES],
        "networks": [
            _member("mlp", networks),
            _member("conv_encoder", networks)._replace(name="conv"),
            *(
                _member(decoder.__name__, sequences)._replace(name=name)
                for name, (_, decoder) in OF_SEQUENCES.items()
            ),
        ],
    }


def _member(name: str, *rooms) -> Member:
    found = next(room for room in rooms if name in room.__all__)
    paragraphs = (
        str(inspect.getdoc(getattr(found, name))).replace("``", "").replace("`", "").split("\n\n")
    )
    papers = [one.partition(": ")[2] for one in paragraphs if one.startswith("Reference")]
    return Member(name, *(" ".join(text.split()) for text in (paragraphs[0], *papers[:1], "")[:2]))


def page() -> str:
    """Return the text of docs/members.md."""
    parts = [PAGE]
    for kind, rows in members().items():
        parts.append(f"\n## {kind.capitalize()}\n\n| name | what it is | paper |\n|---|---|---|\n")
        parts += [f"| `{row.name}` | {_cell(row.line)} | {_cell(row.paper)} |\n" for row in rows]
    return "".join(parts)


def _cell(text: str) -> str:
    return ARXIV.sub(r"[\g<0>](https://arxiv.org/abs/\1)", text).replace("|", "\\|")
