"""What the site needs beside docs/*.md: pages of files elsewhere, formulas, and docstrings as Markdown.

MkDocs calls the functions `on_...`, as mkdocs.yml says.
"""

import ast
import html
import posixpath
import re
import textwrap
from pathlib import Path

import griffe
from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
# Pages at the root of the repository. README is the first page of the site.
ROOT_PAGES = ("README.md", "GLOSSARY.md", "CONTRIBUTING.md", "CHANGELOG.md")
# Modules that the reference describes, each on a page of its own.
MODULES = (
    "datasets",
    "evaluation",
    "hierarchy",
    "latent_plots",
    "layers",
    "migration",
    "networks",
    "objectives",
    "plots",
    "priors",
    "rows",
    "sequences",
    "serving",
    "shapes",
    "sklearn",
    "storage",
    "tables",
    "text",
    "workers",
)
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")
MEMBER = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
DOCTEST = re.compile(r"^(?:Example:\n)?((?:>>> .*(?:\n(?!\n).*)*\n*)+)", re.MULTILINE)
REFERENCE = re.compile(r"^Reference: (.*(?:\n +.*)*)", re.MULTILINE)
ARXIV = re.compile(r"\barXiv:(\d{4}\.\d{4,5})")
# Sections that Google's style does not know.
SECTION = re.compile(r"^(Call arguments|Output|To add one):\n((?: +.*\n?|\n(?= ))+)", re.MULTILINE)
# Arguments that share a description and take two lines.
WRAPPED = re.compile(r"^( +(?:\w+, )*\w+,)\n +(?=(?:\w+, )*\w+: )", re.MULTILINE)


def on_config(config):
    """Name all pages of the examples and of the reference in the navigation."""
    for entry in config.nav:
        for title, pages in entry.items():
            if pages in ("examples/", "api/"):
                found = _examples() if pages == "examples/" else _reference()
                entry[title] = sorted(found, key=lambda uri: (not uri.endswith("index.md"), uri))
    return config


def on_files(files, config):
    """Add the pages that are no files of docs/."""
    pages = {name: (ROOT / name).read_text() for name in ROOT_PAGES}
    for uri, text in (pages | _examples() | _reference()).items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown, page, **_):
    """Lead links between files of the repository to their pages."""
    uri = page.file.src_uri
    if posixpath.dirname(uri):
        return markdown
    if uri == "members.md":
        return MEMBER.sub(lambda row: f"| {_entry_of(row[1])} |", markdown)
    folder = "" if uri in ROOT_PAGES else "docs"
    return LINK.sub(lambda link: f"]({_page_of(folder, link[1])}{link[2] or ''})", markdown)


def on_page_content(content, **_):
    """Turn formulas into MathML, which browsers show by themselves."""
    return FORMULA.sub(
        lambda found: convert(
            html.unescape(found[2]), display="block" if found[1] == "div" else "inline"
        ),
        content,
    )


def _page_of(folder: str, target: str) -> str:
    """Return the page of a file that a page in a folder of the repository links to.

    >>> _page_of("docs", "../examples/tfp/vae.py"), _page_of("", "docs/tour.md")
    ('examples/tfp/vae.md', 'tour.md')
    """
    path = posixpath.normpath(posixpath.join(folder, target))
    if path.startswith("examples"):
        return path.removesuffix(".py") + ".md" if path.endswith(".py") else f"{path}/index.md"
    return path.removeprefix("docs/")


def _entry_of(member: str) -> str:
    """Return a link to the entry of a class or function in the reference; its name if there is none.

    >>> _entry_of("VampPrior"), _entry_of("conv")
    ('[`VampPrior`](api/priors.md#tfp_vae.priors.VampPrior)', '`conv`')
    """
    definition = re.compile(rf"^(class|def) {member}\b", re.MULTILINE)
    for room in ("priors", "objectives", "layers", "hierarchy", "networks", "sequences"):
        place = ROOT / "tfp_vae" / room
        files = place.glob("*.py") if place.is_dir() else [place.with_suffix(".py")]
        if any(definition.search(file.read_text()) for file in files):
            return f"[`{member}`](api/{room}.md#tfp_vae.{room}.{member})"
    return f"`{member}`"


def _examples() -> dict[str, str]:
    """Return a page of each example, and one that lists them."""
    pages, rows = {}, []
    for path in sorted((ROOT / "examples").rglob("*.py"), key=lambda path: (len(path.parts), path)):
        name = path.relative_to(ROOT / "examples").with_suffix("").as_posix()
        code = path.read_text()
        if code.startswith("# %% [markdown]"):
            page = _lesson(code)
            about = page.partition("\n")[0].removeprefix("# ")
        else:
            page = f"# {name}.py\n\n```python\n{code}```\n"
            about = ast.get_docstring(ast.parse(code)) or ""
        first = about.partition("\n\n")[0].replace("\n", " ")
        rows.append(f"| [{name}.py]({name}.md) | {first.replace('|', chr(92) + '|')} |\n")
        pages[f"examples/{name}.md"] = page
    head = "# Examples\n\nComplete programs, each in one file. A test runs each of them.\n\n"
    table = "| program | what it does |\n|---|---|\n" + "".join(rows)
    return pages | {"examples/index.md": head + table}


def _lesson(code: str) -> str:
    r"""Return the cells of a lesson, in jupytext's percent format, as Markdown.

    >>> print(_lesson("# %% [markdown]\n# # Title\n#\n# Text.\n\n# %%\nx = 1\n"))
    # Title
    <BLANKLINE>
    Text.
    <BLANKLINE>
    ```python
    x = 1
    ```
    """
    _, *cells = re.split(r"^# %%(.*)\n", code, flags=re.MULTILINE)
    blocks = [
        re.sub(r"^# ?", "", body, flags=re.MULTILINE).strip()
        if kind == " [markdown]"
        else f"```python\n{body.strip()}\n```"
        for kind, body in zip(cells[::2], cells[1::2], strict=True)
    ]
    return "\n\n".join(blocks)


def _reference() -> dict[str, str]:
    """Return the pages of the reference, which mkdocstrings fills."""
    objects = "::: tfp_vae.VAE\n    options:\n      inherited_members: true\n\n"
    objects += "::: tfp_vae.fit_aggregate_prior\n"
    head = "# Reference\n\nFrom the docstrings, whose examples are tests. Shapes read "
    head += (
        "`[num_samples, batch, event]`; log-densities and losses are in nats for each example.\n\n"
    )
    rows = "".join(f"| [tfp_vae.{name}]({name}.md) | {_first_line(name)} |\n" for name in MODULES)
    first = f"{head}| module | what is in it |\n|---|---|\n{rows}\n{objects}"
    pages = {
        f"api/{name}.md": f"::: tfp_vae.{name}\n    options:\n      heading_level: 1\n"
        "      show_root_full_path: true\n"
        for name in MODULES
    }
    return {"api/index.md": first, **pages}


def _first_line(name: str) -> str:
    module = ROOT / "tfp_vae" / name
    path = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
    return " ".join(ast.get_docstring(ast.parse(path.read_text())).partition("\n\n")[0].split())


class Docstrings(griffe.Extension):
    """Docstrings of this package, as Griffe reads those of Google's style."""

    def on_object(self, *, obj, **_):
        """Rewrite the docstring of an object."""
        if obj.docstring:
            obj.docstring.value = _as_markdown(obj.docstring.value)


def _as_markdown(text: str) -> str:
    """Return a docstring with examples in blocks of code, which begin at the left margin here, and
    with sections that Google's style does not know as lists.
    """
    text = WRAPPED.sub(r"\1 ", text)
    text = REFERENCE.sub(lambda found: f"**Reference:** {' '.join(found[1].split())}", text)
    text = SECTION.sub(lambda found: f"**{found[1]}:**\n\n{_as_list(found[2])}", text)
    text = ARXIV.sub(r"[\g<0>](https://arxiv.org/abs/\1)", text)
    return DOCTEST.sub(lambda found: f"```pycon\n{found[1].rstrip()}\n```\n\n", text).strip()


def _as_list(section: str) -> str:
    """Return the entries of a section as the items of a list: what is indented further belongs to
    the entry above.
    """
    text = re.sub(r"\n +", " ", textwrap.dedent(section).strip())
    return "".join(f"- {line}\n" for line in text.splitlines() if line)
