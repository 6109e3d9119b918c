"""Do the tests see a wrong line? Mutate lines of the package, one at a time, and run the tests that execute them.

    pytest --cov=tfp_vae --cov-context=test        # writes .coverage: which test executes which line
    python tests/mutate.py --number 30 --seed 0    # prints for each mutant the test that sees it, or "survived"

A mutant is an expression with another sign, operator, constant or axis, with two arguments swapped or a term dropped.
At least half of the mutants lie in the rooms of the mathematics. `--tree` runs the tests of another tree on the same
mutants, `--only` repeats those of some numbers.
"""

import argparse
import ast
import copy
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import coverage

ROOT = Path(__file__).parents[1]
MATHEMATICS = ("objectives", "layers", "sampling.py", "serving", "priors")
MOST_TESTS, SECONDS = 40, 420
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


def mutants_of(node: ast.AST) -> Iterator[ast.AST]:
    """Return other expressions for an expression, one step away from it."""
    if isinstance(node, ast.BinOp):
        if type(node.op) in OPERATORS:
            yield _with(node, op=OPERATORS[type(node.op)]())
        if isinstance(node.op, ast.Add | ast.Sub):
            yield node.left  # a term dropped
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
        yield _with(node, ops=[OPERATORS[type(node.ops[0])](), *node.ops[1:]])
    elif isinstance(node, ast.BoolOp):
        yield _with(node, op=OPERATORS[type(node.op)]())
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.IfExp):
        yield _with(node, body=node.orelse, orelse=node.body)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield ast.Constant(node.value + 1)  # of an axis too
    elif (
        isinstance(node, ast.Call)
        and len(node.args) >= 2
        and not any(isinstance(a, ast.Starred) for a in node.args)
    ):
        yield _with(node, args=[node.args[1], node.args[0], *node.args[2:]])


def _with(node: ast.AST, **fields) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def candidates(path: Path) -> list[tuple[int, ast.AST, ast.AST]]:
    """List what may be mutated in a file: line, expression, and other expression; no text, no annotation."""
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    statements = [statement for function in functions for statement in function.body]
    nodes = {id(node): node for statement in statements for node in ast.walk(statement)}.values()
    raised = {
        id(node)
        for each in nodes
        if isinstance(each, ast.Raise | ast.JoinedStr)
        for node in ast.walk(each)
    }
    return [
        (node.lineno, node, other)
        for node in nodes
        if isinstance(node, ast.expr) and id(node) not in raised and node.lineno == node.end_lineno
        for other in mutants_of(node)
    ]


def tests_by_line(data: coverage.CoverageData, path: Path) -> dict[int, list[str]]:
    contexts = data.contexts_by_lineno(str(path))
    return {
        line: sorted({name.split("|")[0] for name in names if name})
        for line, names in contexts.items()
    }


def choose(
    data: coverage.CoverageData, number: int, seed: int
) -> list[tuple[Path, int, ast.AST, ast.AST, list[str]]]:
    """Choose mutants on lines that tests execute, half of them in the rooms of the mathematics."""
    rng = random.Random(seed)
    found: dict[bool, list] = {True: [], False: []}
    for path in sorted((ROOT / "tfp_vae").rglob("*.py")):
        tests = tests_by_line(data, path)
        is_mathematics = path.relative_to(ROOT / "tfp_vae").parts[0] in MATHEMATICS
        found[is_mathematics] += [
            (path, *row, tests[row[0]]) for row in candidates(path) if tests.get(row[0])
        ]
    half = number // 2
    return rng.sample(found[True], number - half) + rng.sample(found[True] + found[False], half)


def mutated(text: str, node: ast.expr, other: ast.AST) -> str:
    lines = text.splitlines(keepends=True)
    line = lines[node.lineno - 1].encode()
    replaced = (
        line[: node.col_offset] + f"({ast.unparse(other)})".encode() + line[node.end_col_offset :]
    )
    lines[node.lineno - 1] = replaced.decode()
    return "".join(lines)


def verdict(tree: Path, tests: list[str]) -> str:
    """Run tests until one fails; give its name, or "survived"."""
    options = ["-x", "-q", "-p", "no:cacheprovider", "--durations=0", "-m", "slow or not slow"]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    try:
        done = subprocess.run(
            command, cwd=tree, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return "seen: no answer in time"
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return (
        f"seen: {failed[0][:150]}"
        if failed
        else {0: "survived"}.get(done.returncode, f"exit {done.returncode}")
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--coverage", default=".coverage", help="file of pytest --cov --cov-context=test"
    )
    parser.add_argument("--number", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the mutants to try")
    parser.add_argument(
        "--tests", nargs="*", help="tests to run instead of those that execute the line"
    )
    options = parser.parse_args()
    data = coverage.CoverageData(options.coverage)
    data.read()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".venv", ".git", "runs"))
        for number, (path, line, node, other, tests) in enumerate(
            choose(data, options.number, options.seed)
        ):
            some = rng.sample(tests, min(MOST_TESTS, len(tests)))
            if options.only and number not in options.only:
                continue
            place = path.relative_to(ROOT)
            (tree / place).write_text(mutated(path.read_text(), node, other))
            print(
                f"{number} {place}:{line}: {ast.unparse(node)} -> {ast.unparse(other)}", flush=True
            )
            print(
                f"    {verdict(tree, options.tests or some)} ({len(tests)} tests execute it)",
                flush=True,
            )
            shutil.copy(path, tree / place)


if __name__ == "__main__":
    main()
