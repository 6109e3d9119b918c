"""The papers' tables, each in its shortest form: what it is about shows in seconds."""

import importlib
import json
import re

import numpy as np
import pytest

from tests.test_evaluation import ROOT


@pytest.fixture
def smoke(monkeypatch, tmp_path):
    """Run a paper's file by the name of its module, in the shortest form."""
    monkeypatch.syspath_prepend(ROOT / "examples" / "papers")

    def run(name, *arguments, output=tmp_path):
        return importlib.import_module(name).main(
            ["--smoke", "--output", str(output), *map(str, arguments)]
        )

    return run


def again(smoke, name, monkeypatch):
    """Run a paper's file whose results are there already: it must not make any of them."""

    kept = importlib.import_module("stages").write

    def write(path, content):
        assert "options" not in content, f"{path.name} was made again"
        kept(path, content)

    with monkeypatch.context() as patch:
        patch.setattr("stages.write", write)
        return smoke(name)


@pytest.mark.slow
def test_the_page_has_the_command_of_each_file():
    page = (ROOT / "docs" / "papers.md").read_text()
    files = {path.stem for path in (ROOT / "examples" / "papers").glob("*.py")} - {"stages"}
    commands = re.findall(r"`python examples/papers/(\w+)\.py([^`]*)`", page)
    assert {name for name, _ in commands} == files
    for name, rest in commands:
        words = re.findall(r"--[a-z-]+", (ROOT / "examples" / "papers" / f"{name}.py").read_text())
        assert {*re.findall(r"--[a-z-]+", rest)} <= {*words}, (name, rest)


def numbers_of(folder):
    """The curve and the results of a run, without the times."""
    curve, results = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("curve", "results")
    )
    return [{name: row[name] for name in row if name != "seconds"} for row in (*curve, results)]


@pytest.mark.slow
@pytest.mark.full
def test_iwae_goes_on_as_if_there_had_been_no_interruption(smoke, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    results = smoke("iwae", "--k", 3, output=whole)
    assert results["nll"] < results["-bound"] < results["-ELBO"]
    first = smoke("iwae", "--k", 3, "--hours", 0, output=parts)
    assert first["epoch"] == 2
    assert not (parts / "results.json").exists()
    smoke("iwae", "--k", 3, output=parts)
    assert numbers_of(parts) == numbers_of(whole)
    with pytest.raises(ValueError, match="other options"):
        smoke("iwae", "--k", 2, output=parts)
    assert (parts / "curve.png").stat().st_size > 5_000
    smoke("iwae", "--start", whole, "--k", 3, output=tmp_path / "more")
    assert numbers_of(tmp_path / "more")[0]["-bound"] < numbers_of(whole)[0]["-bound"]
    deep = smoke("iwae", "--k", 3, "--layers", 2, output=tmp_path / "deep")
    assert deep["latent_units"] == 150
    assert deep["nll"] < deep["-bound"] < deep["-ELBO"]


@pytest.mark.slow
def test_linear_vae(smoke, tmp_path, monkeypatch):
    """-ELBO comes near probabilistic PCA, and a unit of small eigenvalue collapses."""
    results = smoke("linear_vae")
    (name,) = (name for name in results if name.startswith("noise"))
    learned, fixed = (
        {key: value for key, (value, _) in results[model].items()} for model in ("learned", name)
    )
    assert -0.01 < learned["-ELBO"] - results["optimum"] < 2.0
    assert learned["eigenvalues above"] == learned["active units"] == 4
    assert fixed["eigenvalues above"] == 3
    assert fixed["exact"] - 0.01 < fixed["-ELBO"] < fixed["exact"] + 0.1
    # Those of the lines 1 - noise / eigenvalue, of which the last is below 0.
    variances = json.loads((tmp_path / f"{name} 0.json").read_text())["variances"]
    np.testing.assert_allclose(variances, [0.33, 0.27, 0.16, 0.0], atol=0.06)
    assert again(smoke, "linear_vae", monkeypatch) == results
    assert (tmp_path / "linear_vae.png").stat().st_size > 10_000


@pytest.mark.slow
def test_dreg(smoke, tmp_path, monkeypatch):
    """With more draws the standard gradient gets worse, and the doubly reparameterized one better."""
    results = smoke("dreg")
    slopes = results["slopes"]
    assert slopes["standard"].value < -0.2
    assert slopes["dreg"].value > 0.2
    assert again(smoke, "dreg", monkeypatch) == results
    assert (tmp_path / "dreg.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="other options"):
        smoke("dreg", "--distance", 0.2)


@pytest.mark.slow
@pytest.mark.full
def test_sigma_vae(smoke, tmp_path, monkeypatch):
    """The learned scale beats a fixed one, also when that is mended after training."""
    results = smoke("sigma_vae")
    (of_one, _), (mended, _) = (results["sigma 1.0"][key] for key in ("nll", "nll, fitted sigma"))
    assert results["learned"]["nll"].value + 2.0 < mended < of_one - 20.0
    assert 0.05 < results["learned"]["sigma"].value < 0.3
    assert again(smoke, "sigma_vae", monkeypatch) == results
    assert (tmp_path / "sigma_vae.png").stat().st_size > 10_000


@pytest.mark.slow
def test_miwae(smoke, tmp_path, monkeypatch):
    """A VAE that has seen half of a table fills in the rest better than the means do."""
    results = smoke("miwae")["breast_cancer"]
    assert results["MIWAE"].value < 0.85 * results["mean"].value
    assert results["mean"].value == pytest.approx(1.0, abs=0.1)
    assert again(smoke, "miwae", monkeypatch)["breast_cancer"] == results
    assert (tmp_path / "miwae.png").stat().st_size > 5_000


@pytest.mark.slow
@pytest.mark.full
def test_tc_vae(smoke, tmp_path, monkeypatch):
    """With an equal weight, a penalty on total correlation alone leaves more of x in z."""
    results = smoke("tc_vae")
    assert results["beta-TCVAE, beta 4"]["kl"].value > results["beta-VAE, beta 4"]["kl"].value + 1.0
    assert all(0.0 <= numbers["MIG"].value <= 1.0 for numbers in results.values())
    assert again(smoke, "tc_vae", monkeypatch) == results
    assert (tmp_path / "tc_vae.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.full
def test_vamp_prior(smoke, tmp_path):
    """At equal networks and epochs, learned pseudo-inputs give a better likelihood."""
    results = smoke("vamp_prior")
    assert results["vamp"]["nll"] < results["standard"]["nll"] - 0.3
    assert np.isfinite(results["vamp"]["negative_elbo"])
    assert (tmp_path / "curve.png").stat().st_size > 5_000
