"""`tfp-vae runs` and `tfp-vae compare`: tables of runs from files that are written here by hand."""

import dataclasses
import json
import os
import shutil

import pytest

from tests.test_cli import invoke
from tfp_vae.cli import comparing
from tfp_vae.cli.runs import Options, Run

METRICS = {
    "dataset": "digits",
    "num_examples": 180,
    "num_samples": 500,
    "kl_is_analytic": True,
    "negative_elbo": 110.25,
    "negative_elbo_error": 0.9,
    "nll": 106.519,
    "nll_error": 0.977,
    "kl": 15.0,
    "log_likelihood": -95.25,
    "active_units": 8,
    "latent_units": 24,
    "seconds": 12.5,
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Two finished runs, one that was interrupted, and one of a later version."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(comparing.console, "width", 400)
    plain = Run.create(None, Options(name="digits", epochs=2))
    beta = Run.create(None, Options(name="digits", epochs=2, beta=4.0, prior="Normal"))
    plain.write("metrics", METRICS)
    beta.write("metrics", {**METRICS, "nll": 108.0, "nll_error": 1.0, "linear_probe": 0.9})
    for run in (plain, beta):
        run.write("history", {"elbo": [-130.0, -115.0]})
    unfinished = Run.create(None, Options(name="digits", epochs=50))
    unfinished.write("history", {"elbo": [-130.0]})
    later = tmp_path / "runs" / "later"
    later.mkdir()
    (later / "config.json").write_text(json.dumps({"name": "digits", "from_the_future": 1}))
    for number, run in enumerate((plain, beta, unfinished)):
        os.utime(run.folder / "config.json", (1e9 + number, 1e9 + number))
    return tmp_path


def lines_of(*arguments) -> list[str]:
    code, out, err = invoke(*arguments)
    assert (code, err) == (0, "")
    return [" ".join(line.split()) for line in out.splitlines() if line.strip(" ─")]


def test_all_runs_stand_in_a_table(here):
    head, plain, beta, unfinished, later, *below = lines_of("runs")
    assert head == "run started data epochs -ELBO NLL options"
    assert plain.startswith("runs/digits-1 2001-09-")
    assert plain.endswith("digits 2 of 2 110.25 106.52")
    assert beta.endswith("110.25 108.00 --prior Normal --beta 4.0")
    assert unfinished.endswith("digits 1 of 50, unfinished")
    assert "from_the_future" in later
    assert below == ["Nats per example. tfp-vae compare RUN RUN shows more, with errors."]
    assert len(lines_of("runs", here / "runs")) == 6


def test_a_run_that_goes_on_was_started_when_it_began(here):
    run = Run.open(here / "runs" / "digits-1")
    before = lines_of("runs")[1].split()[1:3]
    later = dataclasses.replace(run.options, epochs=9)
    assert Run.open(run.goes_on(later).folder).options.epochs == 9
    assert lines_of("runs")[1].split()[1:3] == before


def test_two_runs_side_by_side(here):
    lines = lines_of("compare", "runs/digits-1", "runs/digits-2", "runs/../runs/digits-1")
    assert lines[0] == "runs/digits-1 runs/digits-2"
    assert "--prior StandardNormal Normal" in lines
    assert "--beta 1.0 4.0" in lines
    assert not any(line.startswith(("--latent-size", "--epochs")) for line in lines)
    assert "NLL (nats) 106.52 ± 0.98 * 108.0 ± 1.0" in lines
    assert "-ELBO (nats) 110.25 ± 0.90 110.25 ± 0.90" in lines  # neither is better
    assert "active units 8 of 24 8 of 24" in lines
    assert "linear probe 0.9" in lines
    assert lines[-1].startswith("* the best.")


def test_a_later_evaluation_counts_and_draws_are_told(here):
    run = Run.open(here / "runs" / "digits-1")
    run.write("evaluation", {"nll": 105.0, "nll_error": 0.5, "num_samples": 5000})
    lines = lines_of("compare", "runs/digits-1", "runs/digits-2")
    assert "NLL (nats) 105.00 ± 0.50 108.0 ± 1.0" in lines
    assert "500, 5000 draws" in lines[-1]
    run.write("evaluation", {"nll": 105.0, "nll_is_bound": True})
    assert "110.25 <= 105.00" in lines_of("runs")[1]


def test_what_does_not_compare_says_so(here):
    other = Run.create(None, Options(name="mnist", dataset="mnist", epochs=2))
    other.write("metrics", METRICS)
    lines = lines_of("compare", "runs/digits-1", "runs/mnist-1", "runs/digits-3")
    assert "data digits mnist digits" in lines
    assert "Different data (digits, mnist): their numbers do not compare." in lines
    assert "runs/digits-3 is unfinished and has no numbers." in lines
    assert not any(line.endswith("*") for line in lines)


def test_an_autoencoder_has_no_elbo(here):
    other = Run.create(None, Options(name="digits", epochs=2, posterior="Deterministic"))
    other.write(
        "metrics", {**METRICS, **dict.fromkeys(("nll", "negative_elbo", "kl"), float("nan"))}
    )
    lines = lines_of("compare", "runs/digits-1", other.folder)
    assert "-ELBO (nats) 110.25 ± 0.90" in lines
    assert "ELBO, KL and NLL are not defined" in lines[-1]
    assert not any(line.endswith("*") for line in lines)


def test_bad_input_is_one_line(here):
    for arguments, word in (
        (["compare", "runs/digits-1"], "two run folders or more"),
        (["compare", "runs/digits-1", "nowhere"], "not a run folder"),
        (["runs", "nowhere"], "There is no run under nowhere"),
    ):
        code, _, err = invoke(*arguments)
        assert code == 2
        assert err.count("\n") == 1
        assert word in err
    shutil.rmtree(here / "runs")
    assert "Train one with: tfp-vae train" in invoke("runs")[2]


@pytest.mark.parametrize(
    ("name", "content"), [("history", [1, 2]), ("history", {"elbo": 3}), ("metrics", [1, 2])]
)
def test_a_run_of_other_contents_costs_one_row(name, content, here):
    (here / "runs" / "digits-1" / f"{name}.json").write_text(json.dumps(content))
    rows = lines_of("runs")
    assert len(rows) == 6
    assert any(f"{name}.json is damaged" in row for row in rows)
    code, _, err = invoke("compare", "runs/digits-1", "runs/digits-2")
    assert (code, f"{name}.json is damaged" in err) == (2, True)


def test_usual_networks_are_not_listed(here):
    Run.create(None, Options(name="digits", network="mlp", hidden_size=500))
    assert "--network" not in lines_of("runs")[-2]
    Run.create(None, Options(name="digits", network="conv", hidden_size=300))
    assert lines_of("runs")[-2].endswith("--network conv --hidden-size 300")
