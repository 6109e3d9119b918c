"""The course: each lesson runs from top to bottom, and holds what a lesson should.

The lessons check themselves: closed forms and Monte Carlo estimates are compared where they are computed.
"""

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
COURSE = ROOT / "examples" / "course"
LESSONS = [
    "1_autoencoder",
    "2_first_vae",
    "3_elbo",
    "4_likelihoods",
    "5_posterior_collapse",
    "6_priors_and_bounds",
    "7_pipeline",
    "8_serving",
]


def cells(name: str) -> list[tuple[str, str]]:
    """The cells of a lesson in jupytext's percent format, each with its kind."""
    text = (COURSE / f"{name}.py").read_text()
    parts = re.split(r"^# %%(.*)\n", text, flags=re.MULTILINE)
    assert not parts[0], "a lesson begins with a cell"
    marks, bodies = parts[1::2], parts[2::2]
    return [
        ("text" if mark == " [markdown]" else "code", body)
        for mark, body in zip(marks, bodies, strict=True)
    ]


def test_all_lessons_are_here():
    assert sorted(path.stem for path in COURSE.glob("*.py")) == LESSONS


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_has_title_exercises_and_answers(name):
    kinds, bodies = zip(*cells(name), strict=True)
    assert kinds[0] == "text"
    assert bodies[0].startswith(f"# # {name[0]}. ")
    text = "".join(body for kind, body in cells(name) if kind == "text")
    assert all(line.startswith("#") for line in text.split("\n") if line), "text is in comments"
    exercises, answers = text.split("# ## Exercises\n")[1].split("# ## Answers\n")
    number = len(re.findall(r"^# \d\. ", exercises, re.MULTILINE))
    assert number >= 3
    assert re.findall(r"^# \*\*(\d)\.\*\*", answers, re.MULTILINE) == [
        str(1 + i) for i in range(number)
    ]
    after = bodies[next(i for i, body in enumerate(bodies) if "# ## Answers" in body) :]
    assert sum("print(" in body for body in after) >= number, "answers are computed"


def test_jupytext_reads_the_same_cells():
    jupytext = pytest.importorskip("jupytext", reason="needs the extra course")
    kinds = {"text": "markdown", "code": "code"}
    for name in LESSONS:
        notebook = jupytext.read(COURSE / f"{name}.py")
        assert [cell.cell_type for cell in notebook.cells] == [
            kinds[kind] for kind, _ in cells(name)
        ]
        assert notebook.cells[0].source.startswith(f"# {name[0]}. ")
        assert "\n%matplotlib inline" in notebook.cells[1].source, (
            "pictures of this package are shown"
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "3_elbo" else [pytest.mark.full]) for name in LESSONS],
)
@pytest.mark.filterwarnings("ignore:The posterior has collapsed")
def test_a_lesson_runs(name, full, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra plots").use("Agg")
    monkeypatch.chdir(tmp_path)
    code = (COURSE / f"{name}.py").read_text()
    if not full:
        code, number = re.subn(r"^EPOCHS = \d+$", "EPOCHS = 2", code, flags=re.MULTILINE)
        assert number == 1
    lesson = {"__name__": f"course_{name}"}
    exec(compile(code, f"{name}.py", "exec"), lesson)
    if full:
        assert CLAIMS[name](lesson), "the text says what the numbers do not"
    assert not list(tmp_path.iterdir()), "a lesson leaves nothing behind"


# What the text says beyond the checks within a lesson, of its variables after a run in full length.
CLAIMS = {
    "1_autoencoder": lambda it: it["of_random"] + 0.1 < it["of_normal"] < it["of_mixture"],
    "2_first_vae": lambda it: (
        it["better"]["nll"] + 20 < it["numbers"]["nll"] < it["without_code"] - 20
        and it["better"]["kl"] > it["numbers"]["kl"] + 3
    ),
    "3_elbo": lambda it: (
        np.std(it["gradients"]["reparameterized"][0])
        < np.std(it["gradients"]["score function"][0]) / 2
    ),
    "4_likelihoods": lambda it: (
        it["kl"]["normal, s = 1"] < 0.1
        and it["nll"]["normal, best s"] < it["nll"]["normal, s = 1"] - 10
        and it["nll_of_bits"] < it["nll"]["binomial"]
    ),
    "5_posterior_collapse": lambda it: all(
        it["in_use"](it["kl_of_dimensions"](vae, it["x"])) == kept
        for kept, vae in it["linear"].items()
    ),
    "6_priors_and_bounds": lambda it: it["mismatch"]["mixture"] < it["mismatch"]["N(0, 1)"] - 0.5,
    "7_pipeline": lambda it: len(it["chains"]) == 150,
    "8_serving": lambda it: it["held"][-1] == int(it["newest"].name) and len(it["held"]) == 2,
}
