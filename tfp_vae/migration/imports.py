"""Statements that bind old names bind the new ones."""

import libcst as cst
from libcst.helpers import get_full_name_for_node

from tfp_vae.migration.bindings import (
    import_line,
    imported,
    imported_from,
    imports_all,
    module_aliases,
    pairs,
)
from tfp_vae.migration.names import is_unknown, meaning, new_name
from tfp_vae.migration.program import Program
from tfp_vae.migration.uses import Uses


class Imports(cst.CSTVisitor):
    """Rewrites imports, and assignments of modules. It comes last: it drops what is not in use."""

    def __init__(self, program: Program, uses: Uses):
        super().__init__()
        self.program, self.uses = program, uses

    def visit_Import(self, node):
        kept, lines = [], []
        for full, name, alias in imported(node):
            new = self.new_name(node, full, name)
            if new == full:
                kept.append(alias)
            elif new and alias.asname:
                lines.append(import_line(new, name))
            elif new and name == "tf_keras":
                lines.append(import_line("keras", self.uses.own_keras))
            elif new:
                lines.append(f"import {name}")
        self.replace(node, kept, lines)

    def visit_ImportFrom(self, node):
        if imports_all(node):
            full = str(get_full_name_for_node(node.module or ""))
            return None if node.relative else self.move(node, full, new_name(meaning(full)))
        found = [
            (self.new_name(node, full, name), full, name, alias)
            for full, name, alias in imported_from(node)
        ]
        moved = [(new, name, alias) for new, full, name, alias in found if new and new != full]
        modules = {new.rpartition(".")[0] for new, _, _ in moved}
        same = all(new.endswith(f".{alias.evaluated_name}") for new, _, alias in moved)
        if found and len(moved) == len(found) and len(modules) == 1 and same:
            return self.move(node, "", modules.pop())
        kept = [alias for new, full, _, alias in found if new == full]
        if found:
            self.replace(node, kept, [import_line(new, name) for new, name, _ in moved])
        return None

    def visit_Assign(self, node):
        moved = module_aliases(self.program, node)
        lines = [import_line(new, target.value) for target, _, new in moved]
        values = [value for _, value, _ in moved]
        places = [place for place, (_, value) in enumerate(pairs(node)) if value not in values]
        if moved:
            self.program.edit(
                node,
                lambda old: cst.FlattenSentinel(
                    [*_statements(lines), *([_at(old, places)] if places else [])]
                ),
            )

    def new_name(self, node: cst.Import | cst.ImportFrom, full: str, name: str) -> str:
        """Return the new name of what a statement imports; nothing if it is no longer in use."""
        num_gone = len(self.uses.gone[node, name])
        if 0 < num_gone == self.program.num_references(node, name):
            return ""
        if is_unknown(meaning(full)):
            self.program.ask(node, f"{new_name(meaning(full))} is not in Keras 3.")
        return new_name(meaning(full))

    def move(self, node: cst.ImportFrom, full: str, new: str) -> None:
        """Import the same names from another module."""
        if new != full:
            module = cst.parse_expression(new)
            self.program.edit(node, lambda old: old.with_changes(module=module))

    def replace(self, node, kept: list[cst.ImportAlias], lines: list[str]) -> None:
        """Keep some names of an import, and add lines for others."""
        if len(kept) == len(node.names):
            return
        new = _statements(lines)
        if kept:
            last = kept[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
            new.insert(0, node.with_changes(names=[*kept[:-1], last]))
        self.program.edit(node, lambda _: cst.FlattenSentinel(new))


def _statements(lines: list[str]) -> list[cst.BaseSmallStatement]:
    """Return the statements of some lines, each once."""
    parsed = [cst.parse_statement(line) for line in dict.fromkeys(lines)]
    return [cst.ensure_type(one, cst.SimpleStatementLine).body[0] for one in parsed]


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
