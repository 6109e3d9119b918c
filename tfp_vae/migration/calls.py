"""The calls of a program, and how idioms change their arguments."""

import collections
import re
from collections.abc import Callable, Iterable, Sequence

import libcst as cst
from libcst import matchers as m

from tfp_vae.migration.program import SECTION, Node, Program
from tfp_vae.migration.uses import Uses

LAYERS = re.compile(r"(keras|tfp|tfp_vae)\.layers\.\w+$")
MODELS = re.compile(r"keras\.(models\.)?(Sequential|Model|load_model)$")
OPTIMIZERS = re.compile(r"keras\.optimizers\.(legacy\.|experimental\.)?\w+$")
# The place in `os.environ` that makes `tf.keras` the old Keras.
SWITCH = m.MatchRegex(r"""['"]TF_USE_LEGACY_KERAS['"]""")
LEGACY = m.Subscript(slice=[m.SubscriptElement(m.Index(m.SimpleString(SWITCH)))])


class Calls(cst.CSTVisitor):
    """Shows each call of a program to the idioms of what it calls.

    Args:
        program: The program; it collects the edits.
        uses: Its names in use.
        idioms: Patterns of the meaning of what is called, of a method its name after a dot, with
            functions of this object and the call.
    """

    def __init__(
        self,
        program: Program,
        uses: Uses,
        idioms: Iterable[tuple[str, Callable[["Calls", cst.Call], None]]],
    ):
        super().__init__()
        self.program, self.uses = program, uses
        self.idioms = [(re.compile(pattern), idiom) for pattern, idiom in idioms]
        code = program.module.code
        self.uses_keras = re.search("keras|tensorflow_probability", code) is not None
        self.saves = re.search(r"\bsave(_weights|_model)?\(|\bModelCheckpoint\(", code) is not None
        # Blocks in which a model gets a layer; the model is as the program spells it.
        self.filled = collections.defaultdict[str, list[Node]](list)

    def visit_Call(self, node):
        name = self.name(node)
        for pattern, idiom in self.idioms:
            if pattern.fullmatch(name):
                idiom(self, node)

    def leave_Call(self, original_node):
        if self.name(original_node) == ".add":
            self.fill(receiver(original_node))

    def fill(self, model: Node) -> None:
        """Note that a model has a layer."""
        block = self.program.parents[self.program.statement(model)]
        self.filled[self.program.code(model)].append(block)

    def visit_Assign(self, node):
        place = node.targets[0].target
        if m.matches(place, LEGACY) and self.program.meaning(place.value) == "os.environ":
            self.uses.leave(place.value)
            self.program.edit(node, lambda _: cst.RemoveFromParent())
        for target in node.targets:
            self.filled.pop(self.program.code(target.target), None)
            if isinstance(node.value, cst.Call) and argument(node.value, "layers", 0):
                self.fill(target.target)

    def visit_Attribute(self, node):
        """`optimizer.lr` becomes `optimizer.learning_rate`, `sequential.input` its `inputs[0]`."""
        of_model = isinstance(node.value, cst.Attribute) and node.value.attr.value == "optimizer"
        if node.attr.value == "lr" and (
            of_model or any(map(OPTIMIZERS.match, self.makers(node.value)))
        ):
            self.program.edit(
                node, lambda updated: updated.with_changes(attr=cst.Name("learning_rate"))
            )
        if node.attr.value in ("input", "output") and self.is_sequential(node.value):
            only = cst.parse_expression(f"{self.program.code(node)}s[0]")
            self.program.edit(node, lambda _: only)

    def name(self, node: Node) -> str:
        """Return the meaning of what is called; of a method its name after a dot.

        It is empty if the node is no call.
        """
        known = self.program.meaning(node.func) if m.matches(node, m.Call()) else ""
        is_method = self.uses_keras and m.matches(node, m.Call(func=m.Attribute()))
        return known or (f".{node.func.attr.value}" if is_method else "")

    def may_be_model(self, node: Node) -> bool:
        """Return whether a value is a model of Keras, or of an unknown kind."""
        return all(MODELS.match(one) for one in self.makers(node))

    def is_model(self, node: Node) -> bool:
        """Return whether a value is certainly a model of Keras."""
        return bool(self.makers(node)) and self.may_be_model(node)

    def is_sequential(self, node: Node) -> bool:
        """Return whether a value is certainly a `Sequential` model."""
        made = self.makers(node)
        return bool(made) and all(one.endswith(".Sequential") for one in made)

    def makers(self, node: Node) -> set[str]:
        """Return the meanings of the functions that a value comes from, as far as they are known."""
        made = node if isinstance(node, cst.Call) else None
        known = {self.program.meaning(made.func)} if made else self.program.makers(node)
        return known - {""}

    def set_arguments(self, call: cst.Call, change: Callable) -> None:
        """Replace the arguments of a call by `change(arguments)`."""
        self.program.edit(call, lambda updated: updated.with_changes(args=change(updated.args)))

    def ask(self, node: Node, text: str, section: str = SECTION) -> None:
        """Put a comment above the statement of a node."""
        self.program.ask(node, text, section)


def receiver(call: cst.Call) -> Node:
    """Return the object whose method is called.

    >>> receiver(cst.parse_expression("model.save('model.h5')")).value
    'model'
    """
    return cst.ensure_type(call.func, cst.Attribute).value


def argument(call: cst.Call, keyword: str, position: int | None = None) -> cst.Arg | None:
    """Return an argument of a call by its keyword, or else by its position."""
    for place, one in enumerate(call.args):
        if keyword_of(one) == keyword or (place == position and not one.keyword and not one.star):
            return one
    return None


def keyword_of(arg: cst.Arg) -> str:
    """Return the keyword of an argument, empty if it has none."""
    return arg.keyword.value if arg.keyword else ""


def without(args: Sequence[cst.Arg], *keywords: str) -> list[cst.Arg]:
    """Return arguments without those of some keywords."""
    kept: list[cst.Arg] = []
    for one in args:
        if not one.keyword or keyword_of(one) not in keywords:
            kept.append(one)
        elif kept and not m.findall(kept[-1].comma, m.Comment()):
            kept[-1] = kept[-1].with_changes(comma=one.comma)  # with a comment after it
    return kept


def with_keyword(args: Sequence[cst.Arg], keyword: str, value: str) -> list[cst.Arg]:
    """Return arguments with one more at the end."""
    call = cst.ensure_type(cst.parse_expression(f"f({keyword}={value})"), cst.Call)
    if not args:
        return [*call.args]
    *others, last = args
    comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
    if others and isinstance(others[-1].comma, cst.Comma):
        comma = others[-1].comma
    return [*others, last.with_changes(comma=comma), call.args[0].with_changes(comma=last.comma)]


def renamed(args: Sequence[cst.Arg], names: dict[str, str]) -> list[cst.Arg]:
    """Return arguments with other keywords."""
    return [
        one.with_changes(keyword=cst.Name(names[keyword_of(one)]))
        if keyword_of(one) in names
        else one
        for one in args
    ]
