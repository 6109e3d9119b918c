"""Through the command line: tables, missing values, and several groups of latents."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import tfp_vae
from tests.test_cli import invoke
from tests.test_mixed import draw_table
from tfp_vae import cli, datasets

TABLE = draw_table(400, 0)
TABLE["single"] = TABLE["real"][:, 0]  # a number, not a vector of one
HOLES = {
    name: np.where(
        np.random.default_rng(i).uniform(size=part.shape) < 0.3, np.nan, part.astype("float32")
    )
    for i, (name, part) in enumerate(TABLE.items())
}
LIKELIHOOD = (
    "Joint(real='IndependentNormalLearnedScale(scale_shape=2)', binary='IndependentBernoulli', "
    "count='IndependentPoisson', kind='IndependentCategorical', single='IndependentNormalLearnedScale')"
)
SMALL = [
    "--latent-size",
    2,
    "--hidden-size",
    16,
    "--epochs",
    20,
    "--batch-size",
    20,
    "--learning-rate",
    0.01,
]
GROUPS = {
    "groups": (
        "Joint(style='MultivariateNormalDiag(event_size=3)', kind='OneHotCategoricalStraightThrough(event_size=4)')",
        "Joint(style='NormalMixture(num_components=2)', kind='Categorical')",
    ),
    "groups with flows": (
        "Joint(a='InverseAutoregressiveFlow(event_size=3)', b='PowerSpherical(event_size=3)')",
        "Joint(a='MaskedAutoregressiveFlow', b='HypersphericalUniform')",
    ),
}


def filled(arrays, *arguments):
    """Impute an `.npz` file of some arrays and give those of the answer."""
    np.savez("given.npz", **arrays)
    Path("filled.npz").unlink(missing_ok=True)
    code, _, err = invoke(
        "impute", "given.npz", *arguments, "--output", "filled.npz", "--num-samples", 20
    )
    assert (code, err) == (0, "")
    with np.load("filled.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A table with holes in it, its run, and whole data beside it."""
    folder = tmp_path_factory.mktemp("tables")
    np.savez(folder / "holes.npz", **HOLES)
    np.savez(folder / "whole.npz", **TABLE)
    options = [
        "--dataset",
        folder / "holes.npz",
        "--likelihood",
        LIKELIHOOD,
        "--missing",
        *SMALL,
        "--num-samples",
        20,
        "--seed",
        1,
    ]
    code, out, err = invoke(
        "train", *options, "--run", folder / "run", "--saved-models", folder / "served"
    )
    assert (code, err) == (0, "")
    assert "run --draws --output new.npz" in out
    return folder


@pytest.mark.slow
def test_a_table_is_trained_judged_drawn_and_exported(runs, monkeypatch):
    monkeypatch.chdir(runs)
    assert {path.stem for path in Path("run/pictures").iterdir()} == {
        "marginals",
        "learning_curves",
    }
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert invoke("evaluate", "run", "--num-samples", 20, "--seed", 1)[0] == 0
    again = json.loads(Path("run/evaluation.json").read_text())
    assert again["nll"] == pytest.approx(metrics["nll"], rel=1e-6)
    assert (
        invoke("evaluate", "run/model.keras", "--dataset", "whole.npz", "--num-samples", 20)[0] == 0
    )
    assert invoke("sample", "run", "--num-examples", 5, "--output", "live.npz")[0] == 0
    assert invoke("sample", "served/holes", "--num-examples", 5, "--output", "served.npz")[0] == 0
    with np.load("live.npz") as live, np.load("served.npz") as served:
        assert {name: values.shape for name, values in live.items()} == {
            n: v[:5].shape for n, v in TABLE.items()
        }
        for name in TABLE:
            np.testing.assert_allclose(live[name], served[name], rtol=1e-4, atol=1e-4)
    code, _, err = invoke("sample", "run", "--output", "table.png")
    assert code == 2
    assert "makes no picture" in err


@pytest.mark.slow
def test_draws_are_rows_as_the_table_has_them(runs, monkeypatch):
    monkeypatch.chdir(runs)
    number = ["--num-examples", 4000]
    assert invoke("sample", "run", *number, "--output", "means.npz")[0] == 0
    for model in ("run", "served/holes"):
        assert (
            invoke(
                "sample", model, "--draws", *number, "--output", f"{Path(model).name}-draws.npz"
            )[0]
            == 0
        )
    means, live, served = (
        dict(np.load(name)) for name in ("means.npz", "run-draws.npz", "holes-draws.npz")
    )
    for drawn in (live, served):
        assert {name: values.shape for name, values in drawn.items()} == {
            name: v.shape for name, v in means.items()
        }
        assert set(np.unique(drawn["binary"])) == {0, 1}
        assert set(np.unique(drawn["kind"])) == set(np.unique(TABLE["kind"]))
        assert not (drawn["count"] % 1).any()
        assert (
            drawn["real"].std(0) > means["real"].std(0)
        ).all()  # the scale of p(x|z) comes on top
        for name in ("real", "binary", "count", "single"):
            error = drawn[name].std(0) / np.sqrt(4000)
            np.testing.assert_array_less(
                np.abs(drawn[name].mean(0) - means[name].mean(0)), 6 * error
            )
    code, _, err = invoke("sample", "run", "--draws", "--output", "draws.png")
    assert (code, "--draws writes arrays" in err) == (2, True)


@pytest.mark.slow
def test_missing_values_are_filled_in(runs, monkeypatch):
    monkeypatch.chdir(runs)
    assert invoke("impute", "holes.npz", "run", "--num-samples", 200)[0] == 0
    assert (
        invoke(
            "impute",
            "holes.npz",
            "run",
            "--num-samples",
            20,
            "--num-draws",
            3,
            "--output",
            "draws.npz",
        )[0]
        == 0
    )
    with np.load("imputed.npz") as filled, np.load("draws.npz") as draws:
        for name, part in TABLE.items():
            seen = ~np.isnan(HOLES[name])
            np.testing.assert_array_equal(filled[name][seen], HOLES[name][seen])
            assert draws[name].shape == (3, *part.shape)
            np.testing.assert_array_equal(draws[name][:, seen], np.stack(3 * [HOLES[name][seen]]))
        real, hidden = TABLE["real"], np.isnan(HOLES["real"])
        error = np.abs(filled["real"] - real)[hidden].mean()
        assert error < 0.75 * np.abs(np.nanmean(HOLES["real"], 0) - real)[hidden].mean()


@pytest.mark.slow
def test_what_is_not_missing_stays_as_it_is(runs, monkeypatch):
    monkeypatch.chdir(runs)
    exact = HOLES["real"].astype("float64") + 1e-12
    answer = filled({**HOLES, "real": exact, "name": np.full(400, "x")}, "run")
    assert {**{key: values.shape for key, values in answer.items()}} == {
        **{key: values.shape for key, values in HOLES.items()},
        "name": (400,),
    }
    np.testing.assert_array_equal(answer["real"][~np.isnan(exact)], exact[~np.isnan(exact)])
    twice = filled({name: np.concatenate([part, part]) for name, part in HOLES.items()}, "run")
    for name in HOLES:  # wherever a row stands
        np.testing.assert_allclose(twice[name][:400], twice[name][400:], rtol=1e-5, atol=1e-5)
    in_splits = {
        f"{name}_{end}": part[:9] for name, part in HOLES.items() for end in ("train", "test")
    }
    assert not any(
        np.isnan(part).any() for part in filled(in_splits, "run", "--seed", 2**31 - 1).values()
    )


@pytest.mark.slow
def test_a_conditional_run_fills_in_its_own_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arrays = {"x": HOLES["real"], "kind": TABLE["kind"]}
    np.savez("data.npz", **arrays)
    options = [
        "--condition",
        "kind",
        "--missing",
        "--hidden-size",
        8,
        "--batch-size",
        20,
        "--epochs",
        1,
    ]
    assert invoke("train", "--dataset", "data.npz", *options, "--num-samples", 2, "--run", "run")[
        ::2
    ] == (0, "")
    answer = filled(arrays, "run")
    assert not np.isnan(answer["x"]).any()
    np.testing.assert_array_equal(answer["kind"], TABLE["kind"])


BAD = {
    "impute impossible.npz run --output x.npz": "Part count of x: The likelihood Poisson takes whole numbers",
    "impute infinite.npz run --output x.npz": "values that are NaN or infinite",
    "impute uneven.npz run --output x.npz": "differ in length",
    "train --dataset bytes.npz --missing --likelihood IndependentBernoulli": "8-bit pixels have no missing values",
    "train --config bad.json": "bad.json: epochs must be of type int",
    "impute whole.npz run": "imputed.npz exists already",
    "impute whole.npz run --output x.csv": "--output must end in .npz",
    "impute nowhere.npz run --output x.npz": "no file nowhere.npz",
    "impute part.npz run --output x.npz": r"holds \['real'\]. Expected binary and count and kind and real and single",
    "train --dataset holes.npz --likelihood {}": "NaN as a missing value needs missing=True, or --missing",
    "train --dataset part.npz --likelihood {}": "but no 'binary'.*Expected real and binary and count and kind and",
    "train --dataset whole.npz --likelihood {} --network conv": "A table has --network mlp, received 'conv'",
    "train --dataset whole.npz --likelihood {} --posterior ladder": "ladder is for a whole x without parts .* a table",
    "train --missing --posterior bottom_up": "bottom_up is for a whole x .* incomplete",
    "train --likelihood Joint(a='Joint(b=1)',c='auto')": "--likelihood must be one of",
    "train --dataset whole.npz --likelihood {} --prior VampPrior": "VampPrior needs an encoder from an x without parts",
    "train --likelihood Joint(x='auto',y='auto')": "at least two parts, none of them called x",
    "train --posterior Joint(a='Deterministic')": "--posterior Joint.*needs a prior of each part",
    "train --posterior Joint(a='ladder')": "--posterior must be one of",
}


@pytest.mark.slow
@pytest.mark.parametrize("line", BAD)
def test_bad_input(line, runs, monkeypatch):
    monkeypatch.chdir(runs)
    np.savez("part.npz", real=TABLE["real"])
    np.savez("impossible.npz", **{**HOLES, "count": np.full([400, 1], -3.0)})
    np.savez("infinite.npz", **{**HOLES, "real": np.full([400, 2], np.inf)})
    np.savez("uneven.npz", **{**HOLES, "real": HOLES["real"][:5]})
    np.savez("bytes.npz", np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1), "uint8"))
    Path("bad.json").write_text(
        json.dumps({**json.loads(Path("run/config.json").read_text()), "epochs": "ten"})
    )
    Path("imputed.npz").touch()
    code, out, err = invoke(*[LIKELIHOOD if word == "{}" else word for word in line.split()])
    assert (code, out) == (2, "")
    assert not list(Path().glob("x.*"))
    assert re.search(BAD[line], err), err


@pytest.mark.slow
@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.rows(0, 1)
def test_groups_of_latents(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    posterior, prior = GROUPS[name]
    few = ["--epochs", 1, "--hidden-size", 8, "--num-samples", 2, "--run", "run"]
    code, _, err = invoke("train", "--posterior", posterior, "--prior", prior, *few)
    assert (code, err) == (0, "")
    assert len([*Path("run/pictures").iterdir()]) == 4
    served = tfp_vae.load("saved_models/digits")
    x = datasets.load("digits").test[:3]
    assert served.encode(x).event_shape.keys() == served.latent_shape.keys()
    assert invoke("sample", "run", "--output", "samples.png")[0] == 0


@pytest.mark.slow
def test_options_that_ship_with_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 2, (40, 28, 28, 1)).astype("uint8") * 255
    np.save("images.npy", images)
    options = [
        "--preset",
        "best-mnist",
        "--dataset",
        "images.npy",
        "--epochs",
        1,
        "--num-samples",
        2,
    ]
    assert invoke("train", *options, "--latent-size", 4, "--run", "run")[::2] == (0, "")
    found = json.loads((tmp_path / "run" / "config.json").read_text())
    shipped = cli.read_preset("best-mnist")
    assert found["prior"] == shipped["prior"]
    assert (found["latent_size"], shipped["dataset"]) == (4, "mnist")
    code, _, err = invoke("train", "--preset", "nothing")
    assert (code, err) == (
        2,
        "error: There is no preset 'nothing'. Expected one of: best-mnist.\n",
    )
