"""All steps from an old program to the new one."""

from tfp_vae.migration.bindings import Aliases
from tfp_vae.migration.calls import Calls
from tfp_vae.migration.idioms import IDIOMS
from tfp_vae.migration.imports import Imports
from tfp_vae.migration.program import Program
from tfp_vae.migration.uses import Uses


def rewritten(text: str) -> tuple[str, int, list[str]]:
    """Return the new program, the number of its changes, and its new comments.

    Raises:
        ValueError: if the text is not Python.
    """
    program = Program(text)
    program.module.visit(Aliases(program))
    uses = Uses(program)
    for visitor in (uses, Calls(program, uses, IDIOMS), Imports(program, uses)):
        program.module.visit(visitor)
    return program.edited(), program.changes, program.questions
