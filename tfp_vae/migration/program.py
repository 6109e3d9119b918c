"""A program as LibCST reads it: what its names mean, and the edits that are collected for it."""

import ast
import collections
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import libcst as cst
from libcst import metadata
from libcst.helpers import get_full_name_for_node

from tfp_vae.migration.names import is_in_keras, meaning, new_name

# A node of any kind; mypy would miss the fields of a kind that a matcher has made sure of.
Node: TypeAlias = Any
MARK = "# TODO(tfp-vae migrate): "
# The section of the page for comments that have no row of their own.
SECTION = "The command"
PAGE = 'See docs/migration.md, "{}".'
STATEMENTS = (cst.SimpleStatementLine, cst.BaseCompoundStatement)


class Program:
    """A parsed program and the edits of its nodes.

    All idioms read the program as it was; `Program.edited` then makes all edits at once. An edit is
    a function from a node, whose own parts are edited already, to the node that takes its place.

    Args:
        text: The program.

    Raises:
        ValueError: if the text is not Python; the message names the line.
    """

    def __init__(self, text: str):
        try:
            wrapper = metadata.MetadataWrapper(cst.parse_module(text))
        except cst.ParserSyntaxError as error:
            raise ValueError(_in_words(text, error.raw_line)) from error
        self.module = wrapper.module
        self.scopes = wrapper.resolve(metadata.ScopeProvider)
        self.parents: Mapping[Node, Node] = wrapper.resolve(metadata.ParentNodeProvider)
        self.positions = wrapper.resolve(metadata.PositionProvider)
        self.edits = collections.defaultdict[Node, list[Callable]](list)
        self.comments = collections.defaultdict[Node, list[str]](list)
        self.lines_before = collections.defaultdict[Node, list[str]](list)
        self.lines_after = collections.defaultdict[Node, list[str]](list)
        self.stars = list[str]()  # meanings of modules of which all names are imported
        self.aliases = dict[str, str]()  # meanings of names that assignments bind
        self.changes = 0

    # What nodes mean.

    def meaning(self, node: Node) -> str:
        """Return what a name or a dotted name means, as `names.meaning` spells it.

        It is empty if the node is something else, or if the name is not one of an import.
        """
        scope = self.scopes.get(node)
        if scope is None or not is_dotted(node):
            return ""
        found = {self._meaning(one) for one in scope.get_qualified_names_for(node)}
        if not found:
            return self._from_star(str(get_full_name_for_node(node)))
        if len({new_name(one) for one in found}) > 1:
            return ""
        return max(found, key=len)  # of imports in `try` and `except`

    def _meaning(self, name: metadata.QualifiedName) -> str:
        if name.source is metadata.QualifiedNameSource.IMPORT:
            return meaning(name.name)
        local, _, rest = name.name.rpartition("<locals>.")
        head, _, tail = rest.partition(".")
        known = self.aliases.get(f"{local}<locals>.{head}" if local else head, "")
        return meaning(f"{known}.{tail}" if tail else known) if known else ""

    def _from_star(self, name: str) -> str:
        for module in self.stars:
            if module.startswith("keras") and is_in_keras(f"{module}.{name.partition('.')[0]}"):
                return f"{module}.{name}"
        return ""

    def values(self, node: Node) -> list[cst.BaseExpression]:
        """Return what a name is assigned in its scope; nothing if the node is not a name."""
        scope = self.scopes.get(node)
        if scope is None or not isinstance(node, cst.Name):
            return []
        found = [one for one in scope[node.value] if isinstance(one, metadata.Assignment)]
        above = [self.parents[one.node] for one in found]
        above = [self.parents[one] if isinstance(one, cst.AssignTarget) else one for one in above]
        given = [one.value for one in above if isinstance(one, cst.Assign | cst.AnnAssign)]
        return [value for value in given if value is not None]

    def makers(self, node: Node) -> set[str]:
        """Return the meanings of the functions whose results a name is assigned."""
        return {self.meaning(one.func) for one in self.values(node) if isinstance(one, cst.Call)}

    def imports(self, node: Node) -> list[Node]:
        """Return the imports that bind the first name of a dotted name."""
        scope = self.scopes.get(node)
        return [one.node for one in _imports(scope[first_name(node).value])] if scope else []

    def num_references(self, statement: cst.Import | cst.ImportFrom, name: str) -> int:
        """Return how often a program uses a name that an import binds."""
        scope: Any = self.scopes[statement]
        return sum(
            len(one.references)
            for one in _imports(scope.assignments)
            if one.node is statement and one.name.partition(".")[0] == name
        )

    def free_name(self, wanted: str) -> str:
        """Return a name that the program does not bind: the wanted one, or one with a number."""
        scopes = {scope for scope in self.scopes.values() if scope}
        bound = {one.name for scope in scopes for one in scope.assignments}
        numbered = (f"{wanted}_{number}" for number in itertools.count(2))
        return next(name for name in itertools.chain([wanted], numbered) if name not in bound)

    # Where nodes are.

    def statement(self, node: Node) -> Node:
        """Return the innermost statement around a node; comments stand above it."""
        return self.path(node, STATEMENTS)[-1]

    def path(self, node: Node, kinds: tuple = (cst.Module, cst.FunctionDef)) -> list[Node]:
        """Return a node and those around it, up to the first of some kinds."""
        found = [node]
        while not isinstance(found[-1], kinds):
            found.append(self.parents[found[-1]])
        return found

    def position(self, node: Node) -> tuple[int, int]:
        """Return the line and the column where a node begins."""
        start = self.positions[node].start
        return start.line, start.column

    def code(self, node: Node) -> str:
        """Return a node as the program writes it."""
        return self.module.code_for_node(node)

    # What is to be done.

    def edit(self, node: Node, change: Callable) -> None:
        """Replace a node by `change(node)`."""
        self.edits[node].append(change)
        self.changes += 1

    def ask(self, node: Node, text: str, section: str = SECTION) -> None:
        """Put a comment above the statement of a node, unless it is there."""
        statement = self.statement(node)
        comment = f"{MARK}{text} {PAGE.format(section)}"
        lines = [*statement.leading_lines]
        if self.module.body and statement is self.module.body[0]:
            lines += self.module.header  # where the comments of the first statement are
        present = [line.comment.value for line in lines if line.comment]
        if comment not in (*present, *self.comments[statement]):
            self.comments[statement].append(comment)

    @property
    def questions(self) -> list[str]:
        """The comments that the program gets."""
        return [one for comments in self.comments.values() for one in comments]

    def edited(self) -> str:
        """Return the text of the program with all edits."""
        return self.module.visit(_Editor(self)).code


def _in_words(text: str, line: int) -> str:
    """Return where a text is not Python: Python's own message is the clearer one."""
    try:
        ast.parse(text)
        return f"LibCST cannot read line {line}. Write it in another way first."
    except SyntaxError as error:
        return f"line {error.lineno} is not Python 3 ({error.msg}). Mend it first."


class _Editor(cst.CSTTransformer):
    """Makes the edits; imports that became several statements get a line each."""

    def __init__(self, program: Program):
        super().__init__()
        self.program = program
        self.dropped = set[Node]()  # of which only the comments above them stay

    def on_leave(self, original_node, updated_node):
        new = super().on_leave(original_node, updated_node)
        for change in self.program.edits.get(original_node, ()):
            new = change(new)
        if not isinstance(original_node, STATEMENTS):
            return new
        lines = [
            *map(cst.parse_statement, self.program.lines_before.get(original_node, ())),
            *_lines(original_node, new.with_changes(leading_lines=())),
            *map(cst.parse_statement, self.program.lines_after.get(original_node, ())),
        ]
        first: Node = lines[0]
        comments = self.program.comments.get(original_node, ())
        notes = [cst.EmptyLine(comment=cst.Comment(one)) for one in comments]
        first = first.with_changes(leading_lines=[*updated_node.leading_lines, *notes])
        if isinstance(first, cst.SimpleStatementLine) and not first.body:
            first = first.with_changes(body=[cst.Pass()])  # LibCST would forget its comments
            self.dropped.add(first)
        return cst.FlattenSentinel([first, *lines[1:]]) if lines[1:] else first

    def leave_IndentedBlock(self, original_node, updated_node):
        return self._without_dropped(updated_node)

    def leave_Module(self, original_node, updated_node):
        return self._without_dropped(updated_node)

    def _without_dropped(self, block):
        """Return a block without its empty statements, whose comments the next statement gets."""
        body, pending = [], []
        for number, statement in enumerate(block.body):
            leading = [*statement.leading_lines]
            if any(line.comment for line in pending) or not leading:
                leading = [*pending, *leading]
            if not body and number:  # no empty lines where the first statements were
                leading = [*itertools.dropwhile(lambda line: line.comment is None, leading)]
            if statement in self.dropped:
                pending = leading
            else:
                pending = []
                body.append(statement.with_changes(leading_lines=leading))
        if not body and isinstance(block, cst.IndentedBlock):
            body = [cst.parse_statement("pass").with_changes(leading_lines=pending)]
            pending = []
        return block.with_changes(body=body, footer=[*pending, *block.footer])


def _lines(original: Node, new: Node) -> list[Node]:
    """Return a line of one statement as several, if several came of it."""
    if not isinstance(new, cst.SimpleStatementLine) or len(original.body) > 1 or len(new.body) < 2:
        return [new]
    *lines, last = [
        cst.SimpleStatementLine([one.with_changes(semicolon=cst.MaybeSentinel.DEFAULT)])
        for one in new.body
    ]
    return [*lines, last.with_changes(trailing_whitespace=new.trailing_whitespace)]


def _imports(assignments: Iterable) -> list[metadata.ImportAssignment]:
    """Return those that bind a name by an import."""
    return [one for one in assignments if isinstance(one, metadata.ImportAssignment)]


def is_dotted(node: Node) -> bool:
    """Return whether a node is a name, or names with dots between them."""
    return isinstance(first_name(node), cst.Name)


def first_name(node: Node) -> Node:
    """Return the first of names with dots between them."""
    while isinstance(node, cst.Attribute):
        node = node.value
    return node
