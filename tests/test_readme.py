"""README and examples say what is so."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_the_python_example_runs(tmp_path):
    code = "".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    result = subprocess.run(
        [sys.executable, "-c", code.replace("epochs=10", "epochs=1, verbose=0")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "saved_models" / "my_digits" / "1" / "saved_model.pb").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        "catalogue.md",
        "concepts.md",
        "evaluation.md",
        "from_keras_io.md",
        "from_pythae.md",
        "pipelines.md",
        "robustness.md",
        "scale.md",
        "sequences.md",
        "streams.md",
        "tables.md",
        "tour.md",
        "which_loss.md",
    ],
)
@pytest.mark.rows(0, 4)
def test_the_pages_run(page, tmp_path):
    code = "".join(
        re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    )
    code = code.replace("epochs=10", "epochs=1, verbose=0")
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_every_file_and_target_it_names_exists():
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    rooms = re.findall(r"^\| `([^`]+)`(?:, `([^`]+)`)?", contributing, re.MULTILINE)
    assert len(rooms) > 15
    for first, second in rooms:
        assert (ROOT / first).exists(), first
        assert (
            not second or (ROOT / second).exists() or (ROOT / first).with_name(second).exists()
        ), second
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE) or f" {target}" in makefile, target
    assert README.count("\n") <= 100
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_lines_beside_formulas_are_those_of_the_code():
    """docs/concepts.md quotes a line and names its file."""
    page = (ROOT / "docs" / "concepts.md").read_text()
    quotes = re.findall(r"`([^`\n]+)`\s+in\s+(?:the same file|`(tfp_vae/[^`]+)`)", page)
    assert len(quotes) >= 8
    source = ""
    for line, file in quotes:
        source = (ROOT / file).read_text() if file else source
        assert line in {text.strip() for text in source.splitlines()}, f"{file}: {line}"


def test_every_example_is_run_by_a_test():
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    for example in (ROOT / "examples").rglob("*.py"):
        assert f'"{example.stem}"' in tests, f"no test runs {example.name}"
