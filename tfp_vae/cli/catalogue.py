"""The names that the options of `train` take, with a line, a use and the paper of each.

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
YEAR = re.compile(r"\b(?:19|20)\d\d\b")
COLUMNS = "\n| name | what it is | when to use | year | paper |\n|---|---|---|---|---|\n"


class Member(NamedTuple):
    """A class or function that an option names.

    Attributes:
        name: what the option takes.
        line: what it is.
        use: when to take it.
        paper: where it comes from; empty if it is a common one.
    """

    name: str
    line: str
    use: str
    paper: str

    @property
    def year(self) -> str:
        """The year of the paper.

        >>> Member("mine", "", "", "Kingma & Welling, 2014, arXiv:1312.6114.").year
        '2014'
        """
        found = YEAR.search(ARXIV.sub("", self.paper))
        return found[0] if found else ""


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
    line, use, paper = (
        " ".join(text.split())
        for text in (
            paragraphs[0],
            _told("When to use", paragraphs),
            _told("Reference", paragraphs),
        )
    )
    return Member(name, line, use, paper)


def _told(start: str, paragraphs: list[str]) -> str:
    """Return what follows the colon in the first paragraph that begins so."""
    found = (one.partition(": ")[2] for one in paragraphs if one.startswith(start))
    return next(found, "")


def page() -> str:
    """Return the text of docs/members.md."""
    parts = [PAGE]
    for kind, rows in members().items():
        parts.append(f"\n## {kind.capitalize()}\n{COLUMNS}")
        parts += [
            f"| `{row.name}` | {_cell(row.line)} | {_cell(row.use)} | {row.year} | {_cell(row.paper)} |\n"
            for row in rows
        ]
    return "".join(parts)


def _cell(text: str) -> str:
    return ARXIV.sub(r"[\g<0>](https://arxiv.org/abs/\1)", text).replace("|", "\\|")
