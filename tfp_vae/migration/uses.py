"""Names in use become new ones."""

import collections

import libcst as cst
from libcst import matchers as m
from libcst.helpers import get_full_name_for_node

from tfp_vae.migration.bindings import MODULES, ModuleNames, import_line, module_aliases, pairs
from tfp_vae.migration.names import is_unknown, new_name
from tfp_vae.migration.program import STATEMENTS, Node, Program, first_name, is_dotted

OTHER_IMPORT = m.SimpleStatementLine(
    [m.Import() | m.ImportFrom(module=~m.Name("__future__")), m.ZeroOrMore()]
)


class Uses(cst.CSTVisitor):
    """Rewrites names in use, and says which imports they need and no longer need."""

    def __init__(self, program: Program):
        super().__init__()
        self.program = program
        known = ModuleNames(program)
        program.module.visit(known)
        self.known = known.found
        # What `import tf_keras` is to bind.
        self.own_keras = "keras"
        if not any(name == "keras" for _, name in self.known["keras"]):
            self.own_keras = program.free_name("keras")
        self.added = dict[tuple, str]()  # names by module and the statement before their import
        self.gone = collections.defaultdict[tuple, set[Node]](set)  # uses that an import lost

    def visit_Name(self, node):
        self.use(node)

    def visit_Attribute(self, node):
        if is_dotted(node):
            self.use(node)
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

    def visit_Assign(self, node):
        aliases = [value for _, value, _ in module_aliases(self.program, node)]
        for value in aliases:  # their statement becomes an import
            self.leave(value)
        for target, value in pairs(node) if aliases else ():
            if value not in aliases:
                target.visit(self)
                value.visit(self)
        return not aliases

    def use(self, node: cst.Name | cst.Attribute) -> None:
        """Give a name, perhaps with dots, its new form."""
        program, first = self.program, first_name(node)
        known = program.meaning(node)
        if not known or isinstance(program.parents.get(node), cst.AssignTarget):
            return
        if is_unknown(known) and not is_unknown(program.meaning(first)):  # else its import is asked
            program.ask(node, f"{new_name(known)} is not in Keras 3.")
        if known.startswith("keras.losses.Reduction."):
            text = known.rpartition(".")[2].lower().replace("auto", "sum_over_batch_size")
            spelled = f'"{text}"'
        else:
            spelled = self.spell(new_name(known), node)
        if spelled == get_full_name_for_node(node):
            return
        if spelled.partition(".")[0] != self.bound(first):
            self.leave(node)
        new = cst.parse_expression(spelled)
        program.edit(node, lambda old: new.with_changes(lpar=old.lpar, rpar=old.rpar))

    def spell(self, new: str, node: Node) -> str:
        """Return how the program can write a new name in the place of a dotted name."""
        first = first_name(node)
        base = new_name(self.program.meaning(first))
        if base and f"{new}.".startswith(f"{base}."):
            return self.bound(first) + new.removeprefix(base)
        for root in MODULES:
            if f"{new}.".startswith(f"{root}."):
                return self.base(root, node) + new.removeprefix(root)
        return str(get_full_name_for_node(node))

    def bound(self, name: cst.Name) -> str:
        """Return what a name is called once its import is rewritten."""
        imports = self.program.imports(name)
        unnamed = name.value == "tf_keras" and any(isinstance(one, cst.Import) for one in imports)
        return self.own_keras if unnamed else name.value

    def leave(self, node: Node) -> None:
        """Note that an import lost a use."""
        for statement in self.program.imports(node):
            self.gone[statement, first_name(node).value].add(node)

    def base(self, root: str, node: Node) -> str:
        """Return a name for one of `MODULES`, which is imported if the program has none there."""
        place = self.program.position(node)
        for bound_at, name in self.known[root]:
            if bound_at < place:
                return self.own_keras if name == "tf_keras" else name
        anchor = self.anchor(node)
        if (root, anchor) not in self.added:
            name = self.added[root, anchor] = self.program.free_name(MODULES[root])
            self.program.lines_after[anchor].append(import_line(root, name))
            if isinstance(self.program.parents[anchor], cst.Module):
                self.known[root].append((self.program.position(anchor), name))
        return self.added[root, anchor]

    def anchor(self, node: Node) -> Node:
        """Return the statement after which an import for a name belongs: where its own is."""
        program = self.program
        while not (imports := program.imports(node)):
            values = [one for one in program.values(first_name(node)) if is_dotted(one)]
            if not values:
                body = program.module.body
                return next((one for one in body if m.matches(one, OTHER_IMPORT)), body[0])
            node = values[0]
        within = program.path(imports[0])[:-1]  # the outermost: not within `try` or `if`
        return [one for one in within if isinstance(one, STATEMENTS)][-1]
