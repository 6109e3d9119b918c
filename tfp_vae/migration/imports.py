"""Old names become new ones: in imports, in assignments such as `tfpl = tfp.layers`, and in use."""

import collections

import libcst as cst
from libcst import matchers as m
from libcst.helpers import get_full_name_for_node

from tfp_vae.migration.names import is_in_keras, meaning, new_name
from tfp_vae.migration.program import Node, Program, first_name, is_dotted

# Modules that a program imports by itself, with the name they get if it has none for them.
MODULES = {"keras": "keras", "tfp_vae.layers": "tfpl"}
# Modules whose functions this command does not know.
OLDER = ("tensorflow.compat.v1.keras", "tensorflow.compat.v1.train", "tensorflow.python.keras")


def is_unknown(known: str) -> bool:
    """Return whether a meaning has no new name.

    >>> is_unknown("keras.layers.Dense"), is_unknown("keras.layers.LocallyConnected1D")
    (False, True)
    """
    new = new_name(known)
    return known.startswith(OLDER) or (new.startswith("keras.") and not is_in_keras(new))


def ask_if_unknown(program: Program, node: Node, known: str) -> None:
    """Put a comment above a name that has no new one."""
    if is_unknown(known) and not known.startswith("keras.losses.Reduction"):
        program.ask(node, f"Keras 3 has no {new_name(known)}.", "The command")


class DottedVisitor(cst.CSTVisitor):
    """Calls `on_name` once for each name, or names with dots between them, that a program uses."""

    def __init__(self, program: Program):
        super().__init__()
        self.program = program

    def on_name(self, node: cst.Name | cst.Attribute) -> None:
        """Take a name in use."""

    def visit_Name(self, node):
        self.on_name(node)

    def visit_Attribute(self, node):
        if is_dotted(node):
            self.on_name(node)
        else:
            node.value.visit(self)
        return False

    def visit_Arg(self, node):
        node.value.visit(self)
        return False

    def visit_Import(self, node):
        return False

    def visit_ImportFrom(self, node):
        return False


class Aliases(cst.CSTVisitor):
    """Tells a program what the names mean that assignments bind to modules and their members."""

    def __init__(self, program: Program):
        super().__init__()
        self.program = program

    def visit_ImportFrom(self, node):
        if isinstance(node.names, cst.ImportStar) and node.module:
            self.program.stars.append(meaning(str(get_full_name_for_node(node.module))))

    def visit_Assign(self, node):
        for target, value in pairs(node):
            known = self.program.meaning(value)
            scope = self.program.scopes.get(target)
            if known and scope and isinstance(target, cst.Name) and len(scope[target.value]) == 1:
                for name in scope.get_qualified_names_for(target):
                    self.program.aliases[name.name] = known


def pairs(node: cst.Assign) -> list[tuple[cst.BaseExpression, cst.BaseExpression]]:
    """Return the targets of an assignment with their values; nothing for `a = b = c`."""
    if len(node.targets) != 1:
        return []
    target, value = node.targets[0].target, node.value
    if not isinstance(target, cst.Tuple) or not isinstance(value, cst.Tuple):
        return [(target, value)]
    return [
        (one.value, other.value)
        for one, other in zip(target.elements, value.elements, strict=False)
    ]


class Names(DottedVisitor):
    """Gives names in use their new form, and says which imports they need and no longer need."""

    def __init__(self, program: Program):
        super().__init__(program)
        self.bases = dict[tuple, str]()  # names of MODULES that stand in for others
        # Uses of imports that now have another base.
        self.moved = collections.defaultdict[tuple, set[Node]](set)
        self.own_keras = ""  # the name that stands for an unnamed `import tf_keras`
        self.known = collections.defaultdict[str, list[tuple[tuple[int, int], str]]](list)
        program.module.visit(_Known(program, self.known))
        imports = m.SimpleStatementLine([m.Import() | m.ImportFrom(module=~m.Name("__future__"))])
        self.first_import = next(iter(m.findall(program.module, imports)), None)

    def on_name(self, node):
        program = self.program
        known = program.meaning(node)
        if not known or isinstance(program.parents.get(node), cst.AssignTarget):
            return
        first = program.meaning(first_name(node))
        if not is_unknown(first):  # else its import has the comment
            ask_if_unknown(program, node, known)
        if known.startswith("keras.losses.Reduction."):
            text = known.rpartition(".")[2].lower().replace("auto", "sum_over_batch_size")
            self.leave(node)
            return program.edit(node, lambda _: cst.SimpleString(f'"{text}"'))
        spelled = self.spell(new_name(known), node)
        if spelled != program.code(node):
            if spelled.partition(".")[0] != self.bound(first_name(node)):
                self.leave(node)
            program.edit(node, lambda _: cst.parse_expression(spelled))

    def spell(self, new: str, node: Node) -> str:
        """Return how the program can write a new name in the place of a dotted name."""
        name = first_name(node)
        base = new_name(self.program.meaning(name))
        if base and (new == base or new.startswith(f"{base}.")):
            return self.bound(name) + new.removeprefix(base)
        root = next((root for root in MODULES if new.startswith(f"{root}.")), "")
        if not root:
            return self.program.code(node)
        return self.base(root, node) + new.removeprefix(root)

    def bound(self, name: cst.Name) -> str:
        """Return what a name is called once its import is rewritten."""
        unnamed = name.value == "tf_keras" and any(
            isinstance(one, cst.Import) for one in self.program.imports(name)
        )
        if unnamed and not self.own_keras:
            self.own_keras = "keras" if self.known["keras"] else self.program.free_name("keras")
        return self.own_keras if unnamed else name.value

    def leave(self, node: Node) -> None:
        """Note that an import lost a use."""
        for statement in self.program.imports(node):
            self.moved[statement, first_name(node).value].add(node)

    def base(self, root: str, node: Node) -> str:
        """Return a name for one of `MODULES`, which is imported if the program has none there."""
        place = self.program.position(node)
        for first, name in self.known[root]:
            if first < place:
                return name
        anchor = self.anchor(node)
        if (root, anchor) not in self.bases:
            name = self.bases[root, anchor] = self.program.free_name(MODULES[root])
            self.program.lines_after[anchor].append(import_line(root, name))
            if isinstance(self.program.parents[anchor], cst.Module):
                self.known[root].append((self.program.position(anchor), name))
        return self.bases[root, anchor]

    def anchor(self, node: Node) -> Node:
        """Return the statement after which an import for a name belongs: where its own is."""
        program = self.program
        while not (found := program.imports(node)):
            values = [one for one in program.values(first_name(node)) if is_dotted(one)]
            if not values:
                return self.first_import
            node = values[0]
        statement = program.statement(found[0])
        while not isinstance(program.parents[statement], cst.Module) and not isinstance(
            program.parents[program.parents[statement]], cst.FunctionDef
        ):
            statement = program.statement(program.parents[statement])
        return statement


class _Known(cst.CSTVisitor):
    """Collects the names that a program has for `MODULES`, and where it binds them."""

    def __init__(self, program: Program, known):
        super().__init__()
        self.program, self.known = program, known

    def visit_FunctionDef(self, node):
        return False

    def visit_ClassDef(self, node):
        return False

    def add(self, name: str, full: str, node: Node) -> None:
        """Note a name, unless it stands for something else."""
        if (new := new_name(meaning(full))) in MODULES:
            self.known[new].append((self.program.position(node), name))

    def visit_Import(self, node):
        for alias in node.names:
            if alias.asname or alias.evaluated_name == "keras":
                self.add(alias.evaluated_alias or alias.evaluated_name, alias.evaluated_name, node)

    def visit_ImportFrom(self, node):
        for full, name, _ in items(node):
            self.add(name, full, node)

    def visit_Assign(self, node):
        for target, value in pairs(node):
            if isinstance(target, cst.Name) and self.program.aliases.get(target.value):
                self.add(target.value, self.program.meaning(value), node)


def items(node: cst.ImportFrom) -> list[tuple[str, str, cst.ImportAlias]]:
    """Return the full name of each name that a statement imports, what it is bound to, and it."""
    if node.relative or isinstance(node.names, cst.ImportStar):
        return []
    module = get_full_name_for_node(node.module or "")
    return [
        (
            f"{module}.{alias.evaluated_name}",
            alias.evaluated_alias or alias.evaluated_name,
            alias,
        )
        for alias in node.names
    ]


def import_line(new: str, name: str) -> str:
    """Return a statement that imports a new name under another.

    >>> import_line("tfp_vae.layers", "tfpl"), import_line("keras", "keras")
    ('from tfp_vae import layers as tfpl', 'import keras')
    """
    parent, _, last = new.rpartition(".")
    line = f"from {parent} import {last}" if parent else f"import {last}"
    return line if name == last else f"{line} as {name}"


def small_statements(lines: list[str]) -> list[cst.BaseSmallStatement]:
    """Return the statements of some lines, each once."""
    parsed = [cst.parse_statement(line) for line in dict.fromkeys(lines)]
    return [cst.ensure_type(one, cst.SimpleStatementLine).body[0] for one in parsed]


class Imports(cst.CSTVisitor):
    """Rewrites the statements that bind old names."""

    def __init__(self, program: Program, names: Names):
        super().__init__()
        self.program, self.names = program, names

    def is_unused(self, node: cst.Import | cst.ImportFrom, name: str) -> bool:
        """Return whether a name has lost all of its uses."""
        moved = len(self.names.moved[node, name])
        return 0 < moved == self.program.num_references(node, name)

    def visit_Import(self, node):
        kept, lines = [], []
        for alias in node.names:
            full = alias.evaluated_name
            name = alias.evaluated_alias or full.partition(".")[0]
            new = new_name(meaning(full))
            if self.is_unused(node, name):
                continue
            if alias.asname:
                ask_if_unknown(self.program, node, meaning(full))
            if alias.asname and new != full:
                lines.append(import_line(new, name))
            elif new != full:
                own = self.names.own_keras or "keras"
                lines.append(import_line("keras", own) if name == "tf_keras" else f"import {name}")
            else:
                kept.append(alias)
        self.replace(node, kept, lines)

    def visit_ImportFrom(self, node):
        if isinstance(node.names, cst.ImportStar) and node.module and not node.relative:
            full = str(get_full_name_for_node(node.module))
            return self.move(node, new_name(meaning(full)), full)
        kept, new_items = [], []
        for full, name, alias in items(node):
            new = new_name(meaning(full))
            if self.is_unused(node, name):
                continue
            ask_if_unknown(self.program, node, meaning(full))
            if new == full:
                kept.append(alias)
            else:
                new_items.append((new, name, alias))
        modules = {new.rpartition(".")[0] for new, _, _ in new_items}
        same = all(new.endswith(f".{one.evaluated_name}") for new, _, one in new_items)
        if len(new_items) == len(node.names) and len(modules) == 1 and same:
            return self.move(node, modules.pop(), "")
        self.replace(node, kept, [import_line(new, name) for new, name, _ in new_items])

    def move(self, node: cst.ImportFrom, new: str, full: str) -> None:
        """Import the same names from another module."""
        if new != full:
            module = cst.parse_expression(new)
            self.program.edit(node, lambda updated: updated.with_changes(module=module))

    def replace(self, node, kept, lines: list[str]) -> None:
        """Keep some names of an import, and add lines for others."""
        if len(kept) == len(node.names):
            return
        new = small_statements(lines)
        if kept:
            last = kept[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
            new.insert(0, node.with_changes(names=[*kept[:-1], last]))
        self.program.edit(node, lambda _: cst.FlattenSentinel(new))

    def visit_Assign(self, node):
        moved = [
            (target, value, new_name(self.program.meaning(value)))
            for target, value in pairs(node)
            if isinstance(target, cst.Name) and is_dotted(value)
        ]
        moved = [one for one in moved if one[2] in MODULES]
        if not moved:
            return
        lines = [import_line(new, target.value) for target, _, new in moved]
        new = small_statements(lines)
        gone = {id(value) for _, value, _ in moved}
        places = [i for i, (_, value) in enumerate(pairs(node)) if id(value) not in gone]

        def change(updated: cst.Assign):
            if not places:
                return cst.FlattenSentinel(new)
            return cst.FlattenSentinel([*new, _at(updated, places)])

        self.program.edit(node, change)


def _at(node: cst.Assign, places: list[int]) -> cst.Assign:
    """Return an assignment of several values with only some of them."""

    def some(values):
        elements = [values.elements[place] for place in places]
        if len(elements) == 1:
            return elements[0].value
        last = elements[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
        return values.with_changes(elements=[*elements[:-1], last])

    (target,) = node.targets
    return node.with_changes(
        targets=[target.with_changes(target=some(target.target))], value=some(node.value)
    )
