"""The documentation site: it is built without a warning, asks for nothing from other hosts, and fits a phone."""

import doctest
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser import look
from tests.test_readme import ROOT
from tests.test_report import LOOK

pytest.importorskip("latex2mathml", reason="needs pip install 'tfp_vae[docs]'")
# Pages that differ in what is on them: a picture, code, wide tables, formulas, docstrings, a program.
PAGES = ("index", "migration", "members", "api/layers", "examples/conditional")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


def pages_of(site: Path) -> dict[str, str]:
    return {
        str(path.relative_to(site).with_suffix("")): path.read_text()
        for path in site.rglob("*.html")
    }


@pytest.mark.slow
def test_it_needs_no_other_host(site):
    for name, page in pages_of(site).items():
        loaded = re.findall(r"<(?:script|img|iframe)\b[^>]*\ssrc=\"([^\"]*)", page)
        loaded += re.findall(r"<link\b[^>]*\shref=\"([^\"]*)", page)
        others = [address for address in loaded if re.match(r"(\w+:)?//", address)]
        assert not others, f"{name} loads {others}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", sheet.read_text()), sheet


@pytest.mark.slow
def test_it_has_a_page_of_each_file_and_an_entry_of_each_public_name(site):
    import tfp_vae

    pages = pages_of(site)
    for path in (ROOT / "docs").glob("*.md"):
        assert path.stem in pages
    for path in (ROOT / "examples").rglob("*.py"):
        assert str(path.relative_to(ROOT).with_suffix("")) in pages
    for room in ("layers", "priors", "objectives", "networks", "sequences", "evaluation"):
        for name in getattr(tfp_vae, room).__all__:
            assert f'id="tfp_vae.{room}.{name}"' in pages[f"api/{room}"], name
    assert 'id="tfp_vae.VAE.encode"' in pages["api/index"]
    found = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    assert any("VampPrior" in entry["title"] for entry in found)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "is_dark"), [(500, True), (1300, False)], ids=["phone", "desk"])
def test_a_browser_shows_it(site, width, is_dark, tmp_path):
    for name in PAGES:
        page = site / f"{name}.html"
        copy = page.with_name("looked_at.html")
        copy.write_text(page.read_text().replace("</body>", LOOK + "</body>"))
        seen = look(copy.as_uri(), tmp_path, width=width, is_dark=is_dark)
        copy.unlink()
        assert seen["wide"] <= 0, f"{name} is wider than the window"
        assert seen["broken"] == 0
        paper = [*map(int, re.findall(r"\d+", seen["paper"]))]
        assert max(paper) < 80 if is_dark else paper == [255, 255, 255], paper


def test_how_its_pages_are_made():
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs" / "site_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    failed, attempted = doctest.testmod(module)
    assert attempted > 0 == failed
    text = "Reference: One,\n    arXiv:1312.6114.\n\nOutput:\n    `[a,\n        b]`\n\nExample:\n>>> 1 + 1\n2"
    assert module._as_markdown(text) == (
        "**Reference:** One, [arXiv:1312.6114](https://arxiv.org/abs/1312.6114).\n\n"
        "**Output:**\n\n- `[a, b]`\n\n```pycon\n>>> 1 + 1\n2\n```"
    )
    formula = '<p><span class="arithmatex">\\(a &lt; b\\)</span></p>'
    assert re.fullmatch(r"<p><math.*&#x0003C;.*</math></p>", module.on_page_content(formula))


@pytest.mark.slow
def test_the_figures_are_drawn(tmp_path):
    spec = importlib.util.spec_from_file_location("figures", ROOT / "docs" / "concepts_figures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(tmp_path, epochs=1)
    assert {path.name for path in tmp_path.iterdir()} == {
        "concepts_codes.png",
        "concepts_bound.png",
    }
