"""`tfp-vae report`: all about one run or several as one HTML file, without scripts and links out."""

import importlib.resources
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.markup import escape

from tfp_vae.checks import imported
from tfp_vae.cli.failures import in_words
from tfp_vae.cli.html.blocks import Block, LeftOut, style
from tfp_vae.cli.html.numbers import headline
from tfp_vae.cli.html.parts import PARTS, Part
from tfp_vae.cli.html.subject import Subject
from tfp_vae.cli.report import console, errors, expect_writable, tracked
from tfp_vae.cli.runs import Run, written_whole

# By this a file is known as an earlier report, which a new one may replace.
MARK = '<meta name="generator" content="tfp-vae report">'


def write_report(folders: Sequence[Path], output: Path | None, seed: int) -> None:
    """Write the report of some runs, by default of the newest one.

    Raises:
        FileExistsError: if the output is another file than an earlier report.
        SystemExit: with code 1 if a part could not be made; the report then says so in its place.
    """
    known = {folder.resolve(): folder for folder in folders}  # each run once
    runs = [Run.open(folder) for folder in known.values()] or [Run.newest()]
    if output is None:
        output = (runs[0].folder if len(runs) == 1 else Path()) / "report.html"
    template = _template()
    is_there = _expect_replaceable(output)
    failures: list[str] = []
    subjects = [Subject(run, seed) for run in tracked(runs, "Reading the runs")]
    page = _render(template, subjects, failures)
    with written_whole(output) as aside:
        aside.write_text(page, encoding="utf-8")
    console.print(f"Wrote {output}{', over an earlier report' * is_there}")
    for failure in failures:
        errors.print(f"[bold red]error:[/] {escape(failure)}")
    if failures:
        raise SystemExit(1)


def _expect_replaceable(output: Path) -> bool:
    """Return whether an earlier report is there."""
    if output.suffix != ".html":
        raise ValueError(f"--output must end in .html, received {output}.")
    if not output.exists():
        expect_writable(output.parent)
        return False
    if output.is_file() and MARK in output.read_text(encoding="utf-8", errors="replace")[:1000]:
        return True
    raise FileExistsError(f"{output} exists already, and is no report. Choose another --output.")


def _template():
    """Return the page without its content; what it is given is text, never markup."""
    jinja2 = imported("jinja2", "tfp-vae report", "cli")
    source = importlib.resources.files(__package__) / "report.html.j2"
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source.read_text(encoding="utf-8"))


def _render(template, subjects: list[Subject], failures: list[str]) -> str:
    """Return the page; what goes wrong in a part is told in its place, and added to the failures."""
    parts = tracked(PARTS, "Making the parts")
    sections = [(part, _columns(part, subjects, failures)) for part in parts]
    return template.render(
        subjects=subjects,
        headlines=[_headline(subject) for subject in subjects],
        sections=sections,
    )


def _headline(subject: Subject) -> str:
    with_end = "" if subject.is_finished else " Training has not come to its end."
    try:
        return headline(subject) + with_end
    except Exception:  # the part of numbers tells what has failed
        return f"No numbers.{with_end}"


def _columns(part: Part, subjects: list[Subject], failures: list[str]) -> list[tuple]:
    """Return the blocks of a part with the name of their run; a part of all runs has no name."""
    if part.of_all:
        return [("", _blocks(part, subjects, failures))]
    names = [subject.name if len(subjects) > 1 else "" for subject in subjects]
    return [
        (name, _blocks(part, subject, failures))
        for name, subject in zip(names, subjects, strict=True)
    ]


def _blocks(part: Part, of: Subject | list[Subject], failures: list[str]) -> list[Block]:
    make: Callable[..., list[Block]] = part.make
    try:
        with style():
            return make(of)
    except LeftOut as reason:
        return [Block(sentence=f"Left out: {reason}", is_aside=True)]
    except Exception as error:  # whatever a library raises: the other parts are still shown
        failures.append(f"{part.title}: {in_words(error)}")
        return [Block(sentence=f"This part failed: {in_words(error)}", is_aside=True)]


__all__ = ["write_report"]
