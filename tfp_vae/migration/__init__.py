"""Rewrite programs on tf_keras and tfp.layers to Keras 3 and this package, with LibCST."""
from tfp_vae.migration.program import Program
from tfp_vae.migration.imports import Aliases, Names, Imports

def migrate(text):
    program = Program(text)
    program.module.visit(Aliases(program))
    names = Names(program)
    program.module.visit(names)
    program.module.visit(Imports(program, names))
    return program.edited(), program.changes, program.questions
