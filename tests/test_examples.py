"""The examples, with their real numbers; tests/test_tfp_programs.py has those of examples/tfp."""

import numpy as np
import pytest

from tests.test_evaluation import ROOT, load_example


def test_the_gallery_has_each_example():
    page = (ROOT / "docs" / "gallery.md").read_text()
    paths = [path.relative_to(ROOT) for path in (ROOT / "examples").rglob("*.py")]
    files = [path for path in paths if path.stem != "stages"]
    assert len(files) > 30
    assert not [path for path in files if f"](../{path})" not in page]


def check_images(results, gain):
    """The bound is that of `VAE`, importance sampling tightens it, and pixels are not independent."""
    # Five standard errors.
    assert results["-ELBO"] == pytest.approx(results["-ELBO of tfp_vae.VAE"], abs=0.15)
    assert (
        results["-log p(x), 100 samples"] < results["-ELBO"] < results["independent pixels"] - gain
    )
    assert np.isfinite(list(results.values())).all()


@pytest.mark.slow
def test_variational_autoencoder(tmp_path):
    check_images(
        load_example("variational_autoencoder").main("digits", tmp_path / "vae.png"), gain=3.0
    )
    assert (tmp_path / "vae.png").stat().st_size > 10_000


@pytest.mark.full
@pytest.mark.mnist
def test_variational_autoencoder_on_mnist():
    results = load_example("variational_autoencoder").main("mnist", epochs=1, batch_size=200)
    check_images(results, gain=50.0)


@pytest.mark.slow
def test_autoencoder_samples(tmp_path, full):
    """Without a prior that training looked at, samples look like nothing; a fitted one mends every model."""
    rows = load_example("autoencoder_samples").main(
        tmp_path / "samples.png", epochs=40 if full else 2, num_samples=300 if full else 100
    )
    assert (tmp_path / "samples.png").stat().st_size > 10_000
    if not full:
        assert np.isfinite([list(row.values()) for row in rows.values()]).all()
        return
    confidence, log_likelihood = (
        {name: row[key] for name, row in rows.items()} for key in ("confidence", "log-likelihood")
    )
    assert confidence["autoencoder"] + 0.1 < confidence["VAE"]
    for name in ("autoencoder", "RAE-L2", "VAE", "VQ-VAE"):
        assert (
            confidence[name] + 0.15
            < confidence[f"{name}, fitted prior"]
            < confidence["real digits"] + 0.05
        ), name
        assert log_likelihood[name] + 4.0 < log_likelihood[f"{name}, fitted prior"], name


@pytest.mark.slow
def test_semi_supervised(full):
    results = load_example("semi_supervised").main(**({} if full else {"epochs": 6}))
    assert results["labels"] == 100
    if full:
        assert results["accuracy, with the other images"] > results["accuracy, labels alone"] > 0.85
    assert (
        results["bound of log p(x), last epoch"] > results["bound of log p(x), first epoch"] + 10.0
    )


@pytest.mark.slow
def test_conditional(tmp_path, full):
    """What a label saves stays below its bound for every image, and samples show their label."""
    lengths = {} if full else {"epochs": 6}
    results = load_example("conditional").main("digits", tmp_path / "rows.png", **lengths)
    assert results["saved, against the same model"] <= results["largest saving of an image"]
    assert results["largest saving of an image"] <= results["bound ln 10"] + 1e-4
    assert (tmp_path / "rows.png").stat().st_size > 10_000
    if full:
        assert results["samples that show their label"] > 0.8
        assert results["saved, against the same model"] > 1.5
        assert results["labels read by Bayes' rule"] > 0.85


@pytest.mark.slow
def test_missing_pixels(tmp_path, full):
    """Halves of few images teach something of whole ones, and filling in beats both baselines."""
    lengths = {} if full else {"epochs": 10, "num_images": 50}
    results = load_example("missing_pixels").main(
        "digits", tmp_path / "rows.png", num_samples=100, **lengths
    )
    gap = results["NLL, trained on halves"] - results["NLL, trained on whole images"]
    assert gap < (20.0 if full else 40.0)
    errors = [
        results[f"RMSE, {name}"]
        for name in ("impute", "mean of the pixel", "sample from the prior")
    ]
    assert errors == sorted(errors)
    assert errors[0] < (0.8 if full else 1.0) * errors[1]
    assert (tmp_path / "rows.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.filterwarnings("ignore:The posterior has collapsed")
def test_number_words(full):
    example = load_example("number_words")
    for number, words in (
        (0, "zero"),
        (21, "twenty one"),
        (104_019, "one hundred four thousand nineteen"),
        (900_100, "nine hundred thousand one hundred"),
    ):
        assert example.in_words(number) == words
    arguments = {} if full else {"num_lines": 2_000, "epochs": 8, "num_samples": 100}
    results = example.main(**arguments)
    assert results["nll"] > np.log(1_000_000) - 0.3  # no model is better than what made the data
    if full:
        assert results["are numbers"] > 0.95
        assert results["different"] > 0.99
        assert results["exact reconstruction"] > 0.95
        assert results["active_units"] >= 5
    else:
        assert results["nll"] < 40.0


def small_molecules() -> list[str]:
    """Chains with a group in them: molecules that need no data set."""
    groups = ["O", "N", "C(=O)", "C#C", "C(F)", "C1CC1", "[NH2+]", "C(C)(C)"]
    return [f"{'C' * a}{group}{'C' * b}" for group in groups for a in range(1, 6) for b in range(8)]


@pytest.mark.slow
def test_molecules(full, tmp_path):
    """In short, to the end; docs/sequences.md has the numbers of QM9."""
    for tokens in ("smiles", "selfies") if full else ("selfies",):
        check_molecules(tokens, tmp_path / tokens)


def check_molecules(tokens, tmp_path):
    tmp_path.mkdir()
    pytest.importorskip("rdkit", reason="needs the extra molecules")
    example = load_example("molecules")
    example.NUM_OF_PROCESS, example.NUM_CLIMBS = 50, 4
    path = tmp_path / "molecules.csv"
    path.write_text("\n".join(["smiles", *small_molecules(), "O=N(=O)C"]))
    report = example.main(
        path,
        tmp_path / "out",
        tokens=tokens,
        epochs=20 if tokens == "smiles" else 3,
        units=32,
        num_samples=100,
        num_held_out=30,
    )
    shares = report["samples, drawn"]
    # A draw may be of no atoms, above all from a model so small.
    assert shares["valid"] > (0.5 if tokens == "selfies" else 0.05)
    assert report["nll"] < 60.0
    assert set(report["R2"]) == {"logP", "TPSA", "weight", "rings"}
    assert report["R2"]["weight"]["fingerprints, ridge"] > 0.0
    climb = report["optimization"]["mean logP"]
    assert len(climb) == 7
    assert climb[-1] >= climb[0]
    for name in ("interpolation.png", "optimization.png"):
        assert (tmp_path / "out" / name).stat().st_size > 5_000
    assert example.canonical("C1CC") is None
    assert example.canonical("OCC") == "CCO"


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.filterwarnings("ignore")  # KerasTuner's own
def test_tuning(tmp_path, full):
    pytest.importorskip("keras_tuner")
    short = {} if full else {"max_trials": 2, "epochs": 2}
    results = load_example("tuning").main(str(tmp_path), **short)
    assert np.isfinite([*results.values()]).all()
    if full:
        assert results["best: NLL"] < results["default: NLL"]
