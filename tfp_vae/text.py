"""Texts as sequences of tokens, and back.

>>> lines = ["CCO", "C[NH3+]", "BrC"]
>>> vocabulary = Vocabulary.of(lines, "smiles")
>>> x = vocabulary.encode(lines)
>>> x.shape, vocabulary.decode(x)
((3, 4), ['CCO', 'C[NH3+]', 'BrC'])
"""

import collections
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import keras
import numpy as np

from tfp_vae.checks import as_count
from tfp_vae.files import is_number, read_utf8

__all__ = ["Vocabulary", "read_lines"]

# Ways to split a text, by name: what one token looks like.
PATTERNS = {
    "characters": r"(?s:.)",
    "words": r"(?a:\S+)",
    "smiles": r"\[[^\]]*\]|Br|Cl|%\d\d|\S",
    "selfies": r"\[[^\]]*\]|\.",
}
# The first two tokens, as in `keras.layers.TextVectorization`: the padding, which ends a sequence,
# and any token that is not in the vocabulary.
PADDING, UNKNOWN = "", "[UNK]"
UNKNOWN_NUMBER = 1
# How to split the lines of a file, by its suffix.
SPLITS = {".txt": "characters", ".smi": "smiles", ".selfies": "selfies"}


@keras.saving.register_keras_serializable(package="tfp_vae")
class Vocabulary:
    """The tokens of a text by number, and how a text is split into them.

    Number 0 is the padding, which ends a sequence; number 1 is any other token. These are the
    numbers of `keras.layers.TextVectorization`.

    Args:
        tokens: the tokens from number 2 on.
        split: "characters", "words", "smiles", "selfies", or a regular expression for one token.
        takes_unknown: whether `encode` takes tokens that are not in the vocabulary, as number 1.

    Raises:
        ValueError: if there are fewer than two tokens, one twice, an empty one, or `split` is no
            regular expression.

    Example:
    >>> vocabulary = Vocabulary(["a", "b"], "characters")
    >>> vocabulary.encode(["ab", "b"]).tolist(), len(vocabulary)
    ([[2, 3, 0], [3, 0, 0]], 4)
    """

    def __init__(
        self, tokens: Sequence[str], split: str = "characters", takes_unknown: bool = False
    ):
        self.tokens = [str(token) for token in tokens]
        self.split = str(split)
        self.takes_unknown = bool(takes_unknown)
        if len(self.tokens) < 2:
            raise ValueError(
                f"A vocabulary needs two different tokens at least, received {self.tokens}: nothing "
                "distinguishes one text from another but its length. Split it another way, or give "
                "other texts."
            )
        counts = collections.Counter(self.tokens)
        bad = [name for name in counts if counts[name] > 1 or name in (PADDING, UNKNOWN)]
        if bad:
            raise ValueError(
                f"The tokens must differ, and none may be empty or {UNKNOWN!r}; received {bad[:5]} "
                "among them."
            )
        try:
            self._pattern = re.compile(PATTERNS.get(self.split, self.split))
        except re.error as error:
            raise ValueError(
                f"split must be {', '.join(PATTERNS)} or a regular expression for one token; "
                f"received {split!r}: {error}."
            ) from error
        if self._pattern.match(""):
            raise ValueError(f"split={split!r} finds tokens without characters. Let it need one.")

    @classmethod
    def of(
        cls, lines: Iterable[str], split: str = "characters", max_tokens: int | None = None
    ) -> "Vocabulary":
        """Return the vocabulary of some texts, the most frequent tokens first.

        Args:
            lines: the texts.
            split: see `Vocabulary`.
            max_tokens: size of the vocabulary, at most: rarer tokens then have number 1.

        Example:
        >>> Vocabulary.of(["to be or not to be"], "words").tokens
        ['be', 'to', 'not', 'or']
        """
        splitter = cls(["0", "1"], split)
        counts = collections.Counter(token for line in lines for token in splitter._tokens(line))
        if not counts:
            raise ValueError(
                f"No text has a token: {split!r} is none of {', '.join(PATTERNS)}, so it is taken for "
                "the regular expression of a token, which finds nothing."
            )
        tokens = sorted(counts, key=lambda token: (-counts[token], token))
        if max_tokens is None or len(tokens) + 2 <= as_count(max_tokens, "max_tokens"):
            return cls(tokens, split)
        return cls(tokens[: max(0, max_tokens - 2)], split, takes_unknown=True)

    def _tokens(self, line: str) -> list[str]:
        return [found.group() for found in self._pattern.finditer(line)]

    def __len__(self) -> int:
        return len(self.tokens) + 2

    def encode(self, lines: Iterable[str], length: int | None = None) -> np.ndarray:
        """Return texts as sequences of tokens, int32 `[num_lines, length]`, padded with 0.

        Args:
            lines: the texts.
            length: number of places; None leaves one place after the longest text.

        Raises:
            ValueError: if a text is empty, longer than this, or has another token or another
                character between two tokens; the message names its line.
        """
        numbers = {token: number for number, token in enumerate(self.tokens, start=2)}
        rows = []
        for place, line in enumerate([lines] if isinstance(lines, str) else lines, start=1):
            tokens = self._tokens(line)
            if not tokens:
                raise ValueError(f"Line {place} is empty: {line!r}. Remove it.")
            row = [numbers.get(token, UNKNOWN_NUMBER) for token in tokens]
            rest = self._pattern.sub("", line.strip())
            rest = rest.strip() if self.split == "words" else rest
            if (UNKNOWN_NUMBER in row and not self.takes_unknown) or rest:
                other = rest or tokens[row.index(UNKNOWN_NUMBER)]
                raise ValueError(
                    f"Line {place}, {line!r}, has {other!r}, which is not in the vocabulary of "
                    f"{len(self.tokens)} tokens. Remove it, or train with such a line."
                )
            rows.append(row)
        if not rows:
            raise ValueError("There are no lines. Expected one example a line.")
        lengths = [len(row) for row in rows]
        size = max(lengths) + 1 if length is None else length
        if max(lengths) > size:
            place = int(np.argmax(np.array(lengths) > size))
            raise ValueError(
                f"Line {place + 1} has {lengths[place]} tokens, but the network takes {size} at "
                "most. Shorten it, or train with longer lines."
            )
        x = np.zeros([len(rows), size], "int32")
        for row, numbers_of_row in zip(x, rows, strict=True):
            row[: len(numbers_of_row)] = numbers_of_row
        return x

    def decode(self, x) -> list[str]:
        """Return sequences of tokens, `[..., length]`, as texts, in a list of all rows."""
        x = np.asarray(x).astype("int64")
        if x.size and not 0 <= x.min() <= x.max() < len(self):
            raise ValueError(
                f"Tokens must lie from 0 to {len(self) - 1}, received {x.min()} to {x.max()}."
            )
        tokens = np.array([PADDING, UNKNOWN, *self.tokens], object)
        between = " " if self.split == "words" else ""
        texts = []
        for row in x.reshape(-1, x.shape[-1]):
            end = int(np.argmax(row == 0)) if (row == 0).any() else len(row)
            texts.append(between.join(tokens[row[:end]]))
        return texts

    def text_vectorization(self, length: int) -> keras.layers.TextVectorization:
        """Return a Keras layer with the same numbers, for a `tf.data` pipeline.

        It cuts texts that are too long, and gives the number 1 to tokens that `encode` refuses.

        Raises:
            ValueError: if the text is split otherwise than by characters or by words.

        Example:
        >>> vocabulary = Vocabulary(["a", "b"], "words")
        >>> vocabulary.text_vectorization(3)(["b a"]).numpy().tolist()
        [[3, 2, 0]]
        """
        splits = {"characters": "character", "words": "whitespace"}
        if self.split not in splits:
            raise ValueError(
                f"Only texts split by characters or words have such a layer, not by {self.split!r}."
            )
        return keras.layers.TextVectorization(
            standardize=None,
            split=splits[self.split],
            vocabulary=self.tokens,
            output_sequence_length=length,
        )

    def __eq__(self, other):
        return isinstance(other, Vocabulary) and self.get_config() == other.get_config()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Vocabulary({len(self.tokens)} tokens, {self.split!r})"

    def get_config(self) -> dict:
        return {"tokens": self.tokens, "split": self.split, "takes_unknown": self.takes_unknown}

    @classmethod
    def from_config(cls, config: dict):
        return cls(**config)


def is_text(source, *, is_chosen: bool = False) -> bool:
    """Return whether a data source is a file of texts, one a line, by its suffix.

    Unless texts are chosen, a file `.txt` whose first line has numbers alone is a table instead.
    """
    if not isinstance(source, (str, os.PathLike)) or Path(source).suffix.lower() not in SPLITS:
        return False
    path = Path(source)
    if is_chosen or path.suffix.lower() != ".txt" or not path.is_file():
        return True
    with path.open("rb") as file:
        fields = file.readline().decode("utf-8-sig", "replace").replace(",", " ").split()
    return not fields or not all(map(is_number, fields))


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not UTF-8, empty, or has an empty line; the message names the line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    text = read_utf8(path, "a text in UTF-8")
    if "\0" in text:
        raise ValueError(f"{path} is not a text: it has zero bytes. Expected one example a line.")
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if not text.strip():
        raise ValueError(f"{path} is empty. Expected one example a line.")
    for place, text_of_line in enumerate(lines, start=1):
        if not text_of_line.strip():
            raise ValueError(
                f"Line {place} of {path} is empty. Remove it: sed -i '/^\\s*$/d' {path}"
            )
    return lines
