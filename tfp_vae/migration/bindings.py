"""What a program binds: imports and assignments such as `tfpl = tfp.layers`."""

import libcst as cst
from libcst.helpers import get_full_name_for_node

from tfp_vae.migration.names import meaning, new_name
from tfp_vae.migration.program import Node, Program, is_dotted

# Modules that a program may need to import, with the name they get if it has none for them.
MODULES = {"keras": "keras", "tfp_vae.layers": "tfpl"}


class Aliases(cst.CSTVisitor):
    """Tells a program what the names mean that it assigns modules and their members to."""

    def __init__(self, program: Program):
        super().__init__()
        self.program = program

    def visit_ImportFrom(self, node):
        if imports_all(node) and node.module:
            self.program.stars.append(meaning(str(get_full_name_for_node(node.module))))

    def visit_Assign(self, node):
        for target, value in pairs(node):
            known = self.program.meaning(value)
            scope = self.program.scopes.get(target)
            if known and scope and isinstance(target, cst.Name) and len(scope[target.value]) == 1:
                for name in scope.get_qualified_names_for(target):
                    self.program.aliases[name.name] = known


class ModuleNames(cst.CSTVisitor):
    """Collects the names that a program has for `MODULES`, outside of functions and classes."""

    def __init__(self, program: Program):
        super().__init__()
        self.program = program
        self.found: dict[str, list[tuple[tuple[int, int], str]]] = {one: [] for one in MODULES}

    def visit_FunctionDef(self, node):
        return False

    def visit_ClassDef(self, node):
        return False

    def visit_Import(self, node):
        for full, name, alias in imported(node):
            if alias.asname or full in ("keras", "tf_keras"):
                self.add(full, name, node)

    def visit_ImportFrom(self, node):
        for full, name, _ in imported_from(node):
            self.add(full, name, node)

    def visit_Assign(self, node):
        for target, value, _ in module_aliases(self.program, node):
            self.add(self.program.meaning(value), target.value, node)

    def add(self, full: str, name: str, node: Node) -> None:
        """Note a name and where it is bound, if it stands for one of the modules."""
        if (new := new_name(meaning(full))) in MODULES:
            self.found[new].append((self.program.position(node), name))


def pairs(node: cst.Assign) -> list[tuple[Node, Node]]:
    """Return the targets of an assignment with their values, also of `a, b = x, y`."""
    found = []
    for one in node.targets:
        if isinstance(one.target, cst.Tuple) and isinstance(node.value, cst.Tuple):
            both = zip(one.target.elements, node.value.elements, strict=False)
            found += [(target.value, value.value) for target, value in both]
        else:
            found.append((one.target, node.value))
    return found


def module_aliases(program: Program, node: cst.Assign) -> list[tuple[cst.Name, Node, str]]:
    """Return the names that an assignment gives to modules which can be imported under them.

    Returns:
        A list of target, value and the new name of the module.
    """
    if len(node.targets) > 1:
        return []
    found = [(target, value, new_name(program.meaning(value))) for target, value in pairs(node)]
    return [
        (target, value, new)
        for target, value, new in found
        if new in MODULES and isinstance(target, cst.Name) and is_dotted(value)
    ]


def imported(node: cst.Import) -> list[tuple[str, str, cst.ImportAlias]]:
    """Return the full name of each module that a statement imports, what name it binds, and it."""
    found = [(one.evaluated_name, one.evaluated_alias, one) for one in node.names]
    return [(full, name or full.partition(".")[0], one) for full, name, one in found]


def imported_from(node: cst.ImportFrom) -> list[tuple[str, str, cst.ImportAlias]]:
    """Return the full name of each name that a statement imports, what name it binds, and it."""
    if node.relative or isinstance(node.names, cst.ImportStar):
        return []
    module = get_full_name_for_node(node.module or "")
    found = [(one.evaluated_name, one.evaluated_alias, one) for one in node.names]
    return [(f"{module}.{last}", name or last, one) for last, name, one in found]


def imports_all(node: cst.ImportFrom) -> bool:
    """Return whether a statement is `from module import *`."""
    return isinstance(node.names, cst.ImportStar)


def import_line(new: str, name: str) -> str:
    """Return a statement that imports a module or its member under a name.

    >>> import_line("tfp_vae.layers", "tfpl"), import_line("keras", "keras")
    ('from tfp_vae import layers as tfpl', 'import keras')
    """
    parent, _, last = new.rpartition(".")
    line = f"from {parent} import {last}" if parent else f"import {last}"
    return line if name == last else f"{line} as {name}"
