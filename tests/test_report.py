"""The report of runs: one page that needs nothing else, read as a browser reads it, and opened in one."""

import base64
import html.parser
import importlib.util
import itertools
import json
import os
import re
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from tests.browser import look
from tests.conftest import make_vae
from tests.test_cli import SMALL, invoke
from tfp_vae import cli, evaluation, latent_plots, objectives
from tfp_vae import layers as tfpl
from tfp_vae.cli.explore.models import open_explorer
from tfp_vae.cli.html.parts import PARTS

EVIL = "<script>alert(1)</script>"
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(html.parser.HTMLParser):
    """What a test asks of a page: its elements, its ids, its words; it is told of unclosed elements."""

    def __init__(self, path: Path):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.sections: dict[str, list[str]] = {}
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "section":
            self.sections[dict(attrs)["id"]] = []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)
        if "section" in self.open:
            [*self.sections.values()][-1].append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def section(self, name):
        """The words of a part."""
        return " ".join(" ".join(self.sections[name]).split())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run, and a longer one with numbers that this version does not know and evil names."""
    folder = tmp_path_factory.mktemp("reports")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert invoke("train", "--epochs", 2, *SMALL, "--run", "one")[::2] == (0, "")
    evil = folder / "<b>two & 'three'"
    shutil.copytree(folder / "one", evil)
    for name, added in {
        "config": {"name": EVIL, "data": f"{EVIL} is what was done", "seed": 7},
        "metrics": {},
    }.items():
        path = evil / f"{name}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **added}))
    numbers = json.loads((evil / "metrics.json").read_text())
    known = {"nll": numbers["nll"] + 2.0, "num_samples": 9}
    new = {
        "frechet_distance": 3.25,
        "features": "those of mine",
        EVIL: 1.0,
        "factor_score": [0.75, 0.125],
        "words": "many",
    }
    errors = {"frechet_distance_error": 0.5}
    (evil / "evaluation.json").write_text(json.dumps({**numbers, **known, **new, **errors}))
    return folder


@pytest.fixture(scope="module")
def page(runs):
    code, out, err = invoke("report", runs / "one")
    assert (code, err) == (0, "")
    assert out == f"Wrote {runs / 'one' / 'report.html'}\n"
    return Page(runs / "one" / "report.html")


@pytest.fixture(scope="module")
def several(runs):
    """The runs side by side, one of them given twice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(runs)
        given = ["one", "<b>two & 'three'", runs / "one"]
        assert invoke("report", *given) == (0, "Wrote report.html\n", "")
    return Page(runs / "report.html")


@pytest.mark.parametrize("name", ["page", "several"])
@pytest.mark.rows(1)
def test_a_page_needs_nothing_else(name, request):
    page = request.getfixturevalue(name)
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.elements}
    addresses = [value for _, attributes in page.elements for value in attributes.values() if value]
    assert not [
        address[:80]
        for address in addresses
        if re.match(r"\w+:|//", address[:9]) and not address.startswith("data:image/")
    ]
    assert "url(" not in page.source
    assert "@import" not in page.source


@pytest.mark.parametrize("name", ["page", "several"])
@pytest.mark.rows(1)
def test_a_page_can_be_found_ones_way_in(name, request):
    page = request.getfixturevalue(name)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len({*ids})
    links = [attributes["href"] for attributes in page.all("a")]
    assert links == [f"#{part.name}" for part in PARTS]
    assert {link[1:] for link in links} <= {*ids}
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert levels.count(2) == len(PARTS)
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert all(attributes["alt"] for attributes in page.all("img"))
    for attributes in page.all("img"):
        kind, content = re.match(r"data:image/([a-z+]+);base64,(.*)", attributes["src"]).groups()
        start = base64.b64decode(content, validate=True)[:8]
        assert start.startswith({"png": b"\x89PNG", "svg+xml": b"<?xml"}[kind])


def test_the_parts_of_a_run(page, runs):
    assert len(page.all("img")) == 9  # all parts with pictures but the manifold
    assert "one z of two dimensions, and here z has 4" in page.section("manifold")
    left_out = [part.name for part in PARTS if "Left out" in page.section(part.name)]
    assert left_out == ["manifold", "rates"]
    numbers = json.loads((runs / "one" / "metrics.json").read_text())
    assert f"{numbers['seconds']:,.1f}" in page.section("numbers")
    assert "coloured by label" in page.section("codes")
    assert "tfp-vae train --epochs 2" in page.section("repeat")
    assert "--hidden-size 16" in page.section("repeat")


def test_errors_are_those_of_means_over_the_test_examples(page, runs, digits):
    vae = cli.open_vae(runs / "one" / "model.keras")
    numbers = json.loads((runs / "one" / "metrics.json").read_text())
    for name, title in {"kl": "KL (nats)", "log_likelihood": "log-likelihood (nats)"}.items():
        values = evaluation.elbo(vae, digits.test)[name]
        error = values.std(ddof=1) / np.sqrt(len(values))
        shown, shown_error = re.search(
            rf"{re.escape(title)} .*? (-?[\d.,]+) ± ([\d.]+)", page.section("numbers")
        ).groups()
        assert float(shown) == pytest.approx(
            numbers[name], abs=0.51 * 10 ** -len(shown.split(".")[1])
        )
        assert float(shown_error) == pytest.approx(error, rel=0.06)
    in_bits = re.search(r"\(bits per dimension\) .*? ([\d.]+) ±", page.section("numbers"))
    assert float(in_bits[1]) == pytest.approx(numbers["nll"] / (64 * np.log(2)), rel=1e-2)


def test_runs_stand_side_by_side(several):
    table = several.section("numbers")
    assert "best" in table
    assert re.search(r"\+2\.0+( ± 0\.0+)? to the best", table), table
    assert "+0.000 to the best" in table
    assert "draws: fewer draws give larger ones" in table
    # What another version has measured.
    assert re.search(r"Frechet distance .*? in features of those of mine\. .*?3\.25 ± 0\.50", table)
    assert "words not defined many" in table
    assert re.search(r"factor score .*?0\.75 ± 0\.1", table)
    assert "frechet distance error" not in table
    assert several.section("curves").count("validation") == 1
    assert "differs between the runs" in several.section("configuration")
    assert len(several.all("img")) == 2 * 8 + 1
    assert several.source.count("<h3>") == 2 * len([part for part in PARTS if not part.of_all])


def test_a_run_is_judged_again_by_the_command_that_judged_it(runs, tmp_path):
    shutil.copytree(runs / "one", tmp_path / "run")
    asked = ["--annealed", 2, "--labels", "label", "--checks", "--num-samples", 3, "--seed", 5]
    asked += ["--rate-distortion", "0.1,1"]
    assert invoke("evaluate", tmp_path / "run", *asked)[0] == 0
    assert invoke("report", tmp_path / "run")[::2] == (0, "")
    page = Page(tmp_path / "run" / "report.html")
    words = "--num-samples 3 --seed 5 --annealed 2 --labels label --checks --rate-distortion 0.1,1"
    assert words in page.section("repeat")
    assert "linear probe of label Accuracy of logistic regression" in page.section("numbers")
    assert "of the first 100 test examples by annealed" in page.section("numbers")
    assert "rate at beta 0.1 (nats)" in page.section("numbers")
    assert "by the best codes of the decoder and by the encoder" in page.section("rates")


def test_an_autoencoder_is_not_the_best_of_vaes(runs, tmp_path):
    points = tmp_path / "points"
    kind = ["--posterior", "Deterministic", "--objective", "Reconstruction"]
    assert invoke("train", "--epochs", 2, *SMALL, *kind, "--run", points)[::2] == (0, "")
    output = tmp_path / "both.html"
    assert invoke("report", runs / "one", points, "--output", output)[::2] == (0, "")
    page = Page(output)
    assert re.search(r"-ELBO \(nats\) .*? ± [\d.]+ not defined", page.section("numbers"))
    assert "so that ELBO, KL and NLL are not defined" in page.section("numbers")
    assert re.search(r"log-likelihood -[\d.]+ ± [\d.]+ nats per example", page.text)


def test_names_are_no_markup(several):
    assert EVIL not in several.source
    assert "<b>" not in several.source
    assert several.text.count(EVIL) > 2
    assert "<b>two & 'three'" in several.text


def test_a_report_takes_the_place_of_a_report_alone(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.html").write_text("<h1>Mine</h1>")
    code, out, err = invoke("report", runs / "one", "--output", "mine.html")
    assert (code, out) == (2, "")
    assert "mine.html exists already, and is no report" in err
    assert Path("mine.html").read_text() == "<h1>Mine</h1>"
    code, _, err = invoke("report", runs / "one", "--output", "mine.pdf")
    assert (code, "must end in .html" in err) == (2, True)
    code, _, err = invoke("report", "nowhere")
    assert (code, "nowhere is not a run folder" in err) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.html"]


def test_a_part_that_fails_leaves_the_others(runs, monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError(f"out of {EVIL}")

    monkeypatch.setattr(latent_plots, "latent_map", fail)
    few = [part for part in PARTS if part.name in ("codes", "reconstructions")]
    monkeypatch.setattr(cli.html, "PARTS", few)
    output = runs / "failed.html"
    with pytest.raises(SystemExit, match="1"):
        cli.write_report([runs / "one"], output, 0)
    page = Page(output)
    assert f"This part failed: out of {EVIL}" in page.text
    assert len(page.all("img")) == 1


def test_numbers_that_fail_leave_the_others(runs, monkeypatch):
    def fail(*args, **kwargs):
        raise MemoryError("Unable to allocate 7.45 GiB for an array")

    monkeypatch.setattr(evaluation, "elbo", fail)
    few = [part for part in PARTS if part.name in ("numbers", "reconstructions")]
    monkeypatch.setattr(cli.html, "PARTS", few)
    with pytest.raises(SystemExit, match="1"):
        cli.write_report([runs / "one"], runs / "numberless.html", 0)
    page = Page(runs / "numberless.html")
    assert "This part failed: There is not enough memory" in page.section("numbers")
    assert len(page.all("img")) == 1


def test_a_run_in_training_is_judged_as_it_is(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(cli.html, "PARTS", [part for part in PARTS if part.name == "numbers"])
    shutil.copytree(runs / "one", tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    assert invoke("report", tmp_path / "run")[::2] == (0, "")
    page = Page(tmp_path / "run" / "report.html")
    assert "2 of 2 epochs. The numbers are those of the model so far." in page.text
    assert not (tmp_path / "run" / "evaluation.json").exists()


def test_an_evaluation_from_before_the_last_training_does_not_count(tmp_path):
    run = cli.Run(tmp_path, cli.Options(name="data"))
    assert run.evaluation() == {}
    for name, at in {"metrics": 100, "evaluation": 200}.items():
        os.utime(run.write(name, {"nll": at}), (at, at))
    assert run.evaluation() == {"nll": 200}
    os.utime(tmp_path / "metrics.json", (300, 300))
    assert run.evaluation() == {}


def test_without_jinja_it_says_what_to_install(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    code, out, err = invoke("report", runs / "one")
    assert (code, out) == (2, "")
    assert "tfp-vae report needs jinja2: pip install 'tfp_vae[cli]'." in err


def test_only_numbers_about_the_same_are_compared():
    def subject(likelihood, x, condition=None):
        vae = make_vae((3,), 2, likelihood)
        return types.SimpleNamespace(
            vae=vae, test=x, options=cli.Options(name="data", condition=condition)
        )

    x = np.array([[0.0, 1.0, np.nan]])
    normal, bits = tfpl.IndependentNormal, tfpl.IndependentBernoulli
    compared = cli.html.numbers.are_comparable
    assert compared([subject(normal, x), subject(tfpl.IndependentStudentT, x.copy())])
    assert compared([subject(bits, x), subject(tfpl.IndependentPoisson, x)])
    assert not compared([subject(normal, x), subject(normal, x), subject(normal, x + 1)])
    assert not compared([subject(normal, x), subject(bits, x)])
    assert not compared([subject(normal, x), subject(normal, x, "label")])
    assert not compared([subject(normal, x), subject(normal, {"a": x, "b": x})])


def test_one_test_example_has_no_errors():
    assert cli.html.numbers._error_of_mean(np.ones(1)) is None


def test_kl_by_dimension_adds_up(trained_vae, digits):
    kl = evaluation.kl_by_dimension(trained_vae, digits.test)
    terms = evaluation.elbo(trained_vae, digits.test)
    assert kl["z"].shape == (4,)
    assert kl["z"].sum() == pytest.approx(terms["kl"].mean(), rel=1e-5)
    q = trained_vae.encode(digits.test)
    by_hand = 0.5 * (q.mean() ** 2 + q.variance() - 1.0) - np.log(q.stddev())
    np.testing.assert_allclose(kl["z"], np.mean(by_hand, 0), rtol=1e-4)


def test_a_point_has_no_kl():
    vae = make_vae(posterior=tfpl.Deterministic, objective=objectives.Reconstruction())
    with pytest.raises(ValueError, match="no density"):
        evaluation.kl_by_dimension(vae, np.zeros([2, 8, 8, 1], "float32"))


def test_nearest_examples(monkeypatch):
    random = np.random.default_rng(0)
    x, among = random.normal(size=(5, 3, 2)), random.normal(size=(70, 3, 2))
    apart = np.sqrt(((x[:, None] - among) ** 2).mean((2, 3)))
    monkeypatch.setattr(evaluation.neighbours, "EXAMPLES_AT_ONCE", 16)
    places, distances = evaluation.nearest(x, among)
    np.testing.assert_array_equal(places, apart.argmin(1))
    np.testing.assert_allclose(distances, apart.min(1))
    among[3] = x[2]
    among[3, 0, 0] = np.nan
    among[4] = np.nan
    places, distances = evaluation.nearest(x, among)
    assert (places[2], distances[2]) == (3, 0.0)
    assert 4 not in places


def test_a_map_keeps_two_dimensions_and_projects_more():
    random = np.random.default_rng(0)
    two = random.normal(size=(30, 2))
    (points,) = latent_plots.latent_map(two).axes[0].collections
    np.testing.assert_allclose(points.get_offsets(), two)
    long = random.normal(size=(30, 5)) * [9.0, 3.0, 0.1, 0.1, 0.1]
    (points,) = latent_plots.latent_map(long, np.linspace(0, 1, 30)).axes[0].collections
    spread = np.var(np.asarray(points.get_offsets()), axis=0)
    eigenvalues = np.linalg.eigvalsh(np.cov(long.T, ddof=0))[::-1]
    np.testing.assert_allclose(spread, eigenvalues[:2], rtol=1e-6)
    with pytest.raises(ValueError, match="at least two dimensions"):
        latent_plots.latent_map(two[:, :1])


def test_a_map_by_umap_where_it_is_installed(monkeypatch):
    class UMAP:
        def __init__(self, random_state, n_jobs):
            self.seed = random_state

        def fit_transform(self, codes):
            return codes[:, :2] + self.seed

    module = types.ModuleType("umap")
    module.UMAP = UMAP
    module.__spec__ = importlib.util.spec_from_loader("umap", None)
    monkeypatch.setitem(sys.modules, "umap", module)
    codes = np.random.default_rng(0).normal(size=(30, 5))
    axes = latent_plots.latent_map(codes, seed=3).axes[0]
    assert axes.get_xlabel() == "UMAP 1"
    np.testing.assert_allclose(axes.collections[0].get_offsets(), codes[:, :2] + 3)


def test_a_manifold_stands_at_the_quantiles_of_the_prior():
    vae = make_vae((4, 4), 2, tfpl.IndependentNormal)
    images = latent_plots.manifold(vae, num_steps=3).axes[0].images
    ends = 0.9674  # the quantile 5/6 of a standard normal
    middle, corner = (np.array(z, "float32")[None] for z in ([0.0, 0.0], [-ends, ends]))
    np.testing.assert_allclose(images[4].get_array(), vae.decode(middle).mean()[0], atol=0.02)
    np.testing.assert_allclose(images[0].get_array(), vae.decode(corner).mean()[0], atol=0.02)
    with pytest.raises(ValueError, match="shape \\(2,\\)"):
        latent_plots.manifold(make_vae((4, 4), 3, tfpl.IndependentNormal))


LOOK = """<script>
addEventListener("load", () => document.title = JSON.stringify({
  wide: document.documentElement.scrollWidth - innerWidth,
  broken: [...document.images].filter(image => !image.naturalWidth).length,
  images: document.images.length,
  paper: getComputedStyle(document.body).backgroundColor,
}))
</script>"""


@pytest.mark.parametrize("name", ["page", "several"])
@pytest.mark.parametrize("width", [500, 1300])
@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
def test_a_browser_shows_all_of_it(name, width, is_dark, request, tmp_path):
    page = request.getfixturevalue(name)
    copy = tmp_path / "page.html"
    copy.write_text(page.source.replace("</body>", LOOK + "</body>"), encoding="utf-8")
    seen = look(copy.as_uri(), tmp_path, width=width, is_dark=is_dark)
    assert seen["wide"] <= 0, "the page is wider than the window"
    assert (seen["broken"], seen["images"]) == (0, len(page.all("img")))
    assert seen["paper"] == ("rgb(20, 22, 24)" if is_dark else "rgb(255, 255, 255)")


def _table(random):
    return {"age": random.normal(size=60), "kind": np.arange(60) % 3 * 1.0}


JOINT = ["--likelihood", "Joint(age='IndependentNormal',kind='IndependentCategorical')"]
# Options of train, the data beside them, and what the report says of the parts that it leaves out.
KINDS = {
    "two dimensions": (["--latent-size", 2], None, []),
    "conditional": (["--condition", "label"], None, ["manifold"]),
    "autoencoder": (
        ["--posterior", "Deterministic", "--objective", "Reconstruction()"],
        None,
        ["manifold", "kl"],
    ),
    "codes": (
        ["--posterior", "VectorQuantized(num_codes=8)", "--prior", "Codes", "--latent-size", 4],
        None,
        ["manifold", "traversals", "kl"],
    ),
    "hierarchy": (["--posterior", "ladder"], None, ["manifold"]),
    "mixture": (["--prior", "NormalMixture(num_components=2)"], None, ["manifold", "kl"]),
    "groups": (
        [
            *("--posterior", "Joint(a='MultivariateNormalDiag',b='PowerSpherical')"),
            *("--prior", "Joint(a='NormalMixture(num_components=2)',b='HypersphericalUniform')"),
        ],
        None,
        ["manifold"],
    ),
    "colour": ([], lambda r: {"x": r.integers(0, 256, (60, 4, 4, 3), "uint8")}, ["manifold"]),
    "missing": (
        ["--missing"],
        lambda r: {"x": np.where(r.uniform(size=(60, 4, 4, 1)) < 0.2, np.nan, 0.5)},
        ["manifold"],
    ),
    "vectors of one dimension": (
        ["--latent-size", 1],
        lambda r: {"x": r.normal(size=(60, 5))},
        ["codes", "manifold"],
    ),
    "one test example": (
        [],
        lambda r: {"x_train": r.normal(size=(30, 5)), "x_test": r.normal(size=(1, 5))},
        ["codes", "manifold"],
    ),
    "table": (JOINT, _table, ["nearest", "manifold"]),
    "texts": ([], lambda r: "a cat\na dog\nno cat\n" * 20, ["manifold"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.rows(0, 2)
def test_kinds_of_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options, make, left_out = KINDS[name]
    if make is not None:
        data = make(np.random.default_rng(0))
        if isinstance(data, str):
            Path("data.txt").write_text(data)
        else:
            np.savez("data.npz", **data)
        options = ["--dataset", next(Path().glob("data.*")), *options]
    small = ["--epochs", 1, "--num-samples", 2, "--hidden-size", 8, "--run", "run"]
    size = [] if "--latent-size" in options else ["--latent-size", 3]
    assert invoke("train", *options, *small, *size)[::2] == (0, "")
    code, _, err = invoke("report", "run")
    assert (code, err) == (0, "")
    page = Page(Path("run/report.html"))
    assert [part.name for part in PARTS if "Left out:" in page.section(part.name)] == [
        *left_out,
        "rates",  # which are asked for
    ]
    has_chains = name not in ("autoencoder", "codes", "hierarchy", "groups")
    assert ("--rate-distortion 0.1,1,10 adds it" in page.section("rates")) == has_chains
    # The explorer takes every kind, too.
    explorer = open_explorer("run", None, None, 0)
    json.dumps([explorer.model(), explorer.example(0)], allow_nan=False)
