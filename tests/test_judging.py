"""`tfp-vae evaluate` with probes, disentanglement, outliers, samples and checks."""

import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.test_cli import SMALL, invoke
from tfp_vae import datasets, evaluation, sources
from tfp_vae.cli import open_vae
from tfp_vae.cli.judging import Wishes
from tfp_vae.cli.report import caution

FEW = ["--num-samples", 2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a run on digits, foreign data, and classifiers."""
    folder = tmp_path_factory.mktemp("judging")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert invoke("train", "--epochs", 2, "--run", "run", *SMALL)[0] == 0
        x = sources.load_digits()["x"]
        noise = np.random.default_rng(0).permuted(x.reshape(len(x), -1), axis=1)
        np.savez("noise.npz", noise.reshape(x.shape))
        names = np.random.default_rng(0).integers(3, size=(2, 60))
        rows = np.random.default_rng(1).normal(size=(60, 6)) + names[0][:, np.newaxis]
        np.savez("rows.npz", x=rows, kind=names[0], other=names[1], real=rows[:, 0])
        np.savez("table.npz", a=rows[:, 0], b=rows[:, 1:], kind=names[0])
        for name, shape in (("good", (8, 8, 1)), ("other", (3,))):
            layers = [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(2)]
            keras.Sequential(layers).save(f"{name}.keras")
    return folder


@pytest.fixture(autouse=True)
def _inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


def judged(run, *options) -> dict:
    """What `evaluation.json` holds after a command, which must have shown it, too."""
    code, out, err = invoke("evaluate", run, *FEW, *options)
    assert (code, err) == (0, "")
    numbers = json.loads(Path(run, "evaluation.json").read_text())
    assert f"{numbers['log_likelihood']:.3f}" in out
    return {**numbers, "out": out}


@pytest.mark.slow
def test_probes_outliers_samples_and_checks_of_a_run(folder):
    found = judged(
        "run", "--labels", "label", "--against", "noise.npz", "--samples", 100, "--checks"
    )
    assert found["linear_probe_of_label"] > 0.3 > found["commonest_label"]
    assert f"kNN of label │ {found['knn_of_label']:.3f} ±" in " ".join(found["out"].split())
    assert found["auroc_of_negative_elbo"] > 0.7
    assert found["against"] == "noise, 180 test examples"
    assert "not Inception" in found["features"]
    assert found["frechet_distance_of_held_out"] < found["frechet_distance"]
    assert all(0 <= found[name] <= 1 for name in ("precision", "recall", "p_value_of_mean"))
    assert len(found["kl_by_dimension"]) == 4
    both = found["mutual_information"] + found["aggregate_kl"]  # of a draw each
    assert both == pytest.approx(found["kl"], rel=0.2)
    assert found["asked"] == {
        "labels": "label",
        "against": "noise.npz",
        "samples": "100",
        "checks": "True",
    }
    assert sum(found["kl_by_dimension"]) == pytest.approx(found["kl"], rel=1e-3)
    vae, x = open_vae(Path("run/model.keras")), datasets.load("digits").test
    error = evaluation.reconstruction_errors(vae, x)["x"].mean()
    assert found["reconstruction_error_of_x"] == pytest.approx(error, rel=1e-5)
    assert found["reconstruction_error_of_x_error"] > 0


@pytest.mark.slow
def test_a_given_classifier():
    found = judged("run", "--samples", 50, "--features", "good.keras")
    assert found["features"] == "those of good.keras"


SMALLEST = ["--epochs", 1, "--latent-size", 2, "--hidden-size", 8, "--batch-size", 10]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "training", "judging", "expected"),
    [
        (
            "conditional",
            ["--dataset", "rows.npz", "--condition", "kind"],
            ["--labels", "kind", "--factors", "kind,other", "--samples", 6, "--checks"],
            {"sap", "disentanglement", "factor_vae_score", "mmd", "p_value_of_mean"},
        ),
        (
            "mixture",
            ["--dataset", "rows.npz", "--prior", "NormalMixture(num_components=2)"],
            ["--checks", "--rate-distortion", "1,1,0.25"],
            {
                "collapsed_dimensions",
                "reconstruction_error_of_x",
                "aggregate_kl",
                "rate_at_beta_1",
                "distortion_at_beta_0.25",
            },
        ),
        (
            "points",
            [
                "--dataset",
                "rows.npz",
                "--posterior",
                "Deterministic",
                "--objective",
                "Reconstruction",
            ],
            ["--against", "rows.npz", "--checks"],
            {"auroc_of_typicality"},
        ),
        (
            "table",
            ["--dataset", "table.npz", "--likelihood", "Joint(a='auto', b='auto')"],
            ["--labels", "kind", "--checks", "--rate-distortion", 1],
            {"reconstruction_error_of_a", "p_value_of_mean_of_b", "linear_probe_of_kind"},
        ),
    ],
)
@pytest.mark.rows(0, 1)
def test_other_models(name, training, judging, expected):
    assert invoke("train", "--run", name, *training, *SMALLEST, *FEW)[0] == 0
    found = judged(name, *judging)
    assert expected <= found.keys()
    assert name != "mixture" or "all share one KL" in found["collapsed_dimensions"]
    assert name != "points" or "auroc_of_negative_log_likelihood" in found


@pytest.mark.slow
def test_annealing_beside_importance_sampling():
    found = judged("run", "--annealed", 3)
    assert (found["annealed_examples"], found["annealed_steps"]) == (100, 3)
    vae, x = open_vae(Path("run/model.keras")), datasets.load("digits").test[:100]
    plain = evaluation.nll(vae, x, num_samples=2)
    assert found["annealed_nll"] + found["annealed_gain"] == pytest.approx(plain.value, rel=1e-4)
    assert found["annealed_gain"] > 0
    shown = " ".join(found["out"].split())
    assert f"share of accepted moves │ {found['annealed_acceptance']:.2f}" in shown
    assert f"below importance sampling of these (nats) │ {found['annealed_gain']:.3f}" in shown
    assert "Few effective samples" in caution({"effective_samples": 2.0})
    assert "--annealed 1000" in caution({**found, "annealed_gap": 2.0})
    assert not caution({"effective_samples": 50.0})


@pytest.mark.slow
def test_rate_and_distortion():
    """Where beta is 1, both add up to -log p(x) by annealing from the prior, which no -ELBO is below."""
    found = judged("run", "--rate-distortion", "0.1,1")
    vae, x = open_vae(Path("run/model.keras")), datasets.load("digits").test[:100]
    best = evaluation.rate_distortion(vae, x, (0.1, 1.0))
    assert found["rate_at_beta_1"] == pytest.approx(best["rate"][1], rel=1e-4)
    assert found["distortion_at_beta_0.1_error"] == pytest.approx(
        best["distortion_error"][0], rel=1e-4
    )
    own, best = (
        found[f"rate_{of}"] + found[f"distortion_{of}"] for of in ("of_encoder", "at_beta_1")
    )
    assert own == pytest.approx(evaluation.negative_elbo(vae, x).mean(), rel=1e-4)
    assert best < own
    assert f"rate at beta 1 │ {found['rate_at_beta_1']:.3f} ±" in " ".join(found["out"].split())


@pytest.mark.slow
@pytest.mark.full
def test_disentanglement_of_shapes():
    assert invoke("train", "--run", "shapes", "--dataset", "shapes", *SMALLEST[:-2], *FEW)[0] == 0
    factors = "shape,scale,orientation,pos_x,pos_y"
    found = judged("shapes", "--labels", "shape", "--factors", factors)
    for name in ("mutual_information_gap", "sap", "completeness", "beta_vae_score"):
        assert 0 <= found[name] <= 1
    assert found["linear_probe_of_shape"] < 0.6  # one pass over the data teaches little


BAD = {
    "run --samples 50": "Give --labels NAME, which a small one learns here, or --features",
    "run --features good.keras": "--features is about --samples",
    "run --samples 50 --features other.keras": r"inputs of shape \(None, 3\), but examples are of",
    "run --samples 50 --features noise.npz": "must be a .keras file of a classifier, received noise.npz",
    "run --labels colour": "no 'colour'",
    "run --labels x": "one whole number for each example; x has shape",
    "run --labels label --samples 181": "but there are 180 only. Take at most",
    "run --factors label,label": "may be given once, received label, label",
    "run --labels label --factors label": "2 factors, received 4 and 1",
    "run --against shapes": r"shape.*\(8, 8, 1\)",
    "run --against nowhere.npz": "There is no file nowhere.npz",
    "saved_models/digits --dataset digits --checks": "is a SavedModel, of which no more is computed",
    "run --rate-distortion 1,many": "positive numbers with commas between them, .* received 1,many",
    "run --rate-distortion 0,1": "positive numbers with commas between them, .* received 0,1",
    "run --rate-distortion 1e60": "betas must be positive numbers",
    "run --samples 4": "should be greater than or equal to 5",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_wishes_are_refused_in_words(line, folder):
    code, out, err = invoke("evaluate", *line.split(), *FEW)
    assert (code, out) == (2, ""), (out, err)
    assert re.fullmatch(f"error: .*({BAD[line]}).*\n", err), err


def test_wishes():
    assert not Wishes()
    assert Wishes(checks=True)
