"""The command line as a user meets it: in processes of its own where that matters."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

import tfp_vae
import tfp_vae_console
from tests.conftest import make_vae, mostly_slow
from tfp_vae import cli
from tfp_vae.cli.names import parse

ROOT = Path(__file__).parents[1]
SMALL = ["--hidden-size", "16", "--latent-size", "4", "--num-samples", "5"]


def command(*arguments, cwd, **kwargs):
    """Start `tfp-vae` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tfp_vae_console", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def invoke(*arguments):
    """Run `tfp-vae` in this process; give exit code, and what was printed to stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = tfp_vae_console.run([str(argument) for argument in arguments])
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run: the folder that holds runs/ and saved_models/, with spaces in its path."""
    folder = tmp_path_factory.mktemp("a folder with spaces")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        code, out, err = invoke("train", "--epochs", "2", *SMALL)
    assert code == 0, err
    (folder / "out.txt").write_text(out)
    (folder / "err.txt").write_text(err)
    return folder


@pytest.mark.slow
def test_train_in_a_process_of_its_own_is_the_same(run, tmp_path):
    """With XLA, which changes rounding and draws, and with a verified export."""
    code, out, err = finish(command("train", "--epochs", "2", *SMALL, cwd=tmp_path))
    assert (code, err) == (0, "")
    for word in ("-ELBO", "NLL, 5 samples", "SavedModel: saved_models/digits/1", "tfp-vae sample"):
        assert word in out
    names = [
        {str(path.relative_to(root)) for path in root.glob("runs/digits-1/**/*")}
        for root in (run, tmp_path)
    ]
    assert names[0] - names[1] == set()


def test_train_leaves_everything_it_promises(run):
    folder = run / "runs" / "digits-1"
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "history.json",
        "metrics.json",
        "model.keras",
        "pictures",
    }
    assert {path.stem for path in (folder / "pictures").iterdir()} == {
        "reconstructions",
        "samples",
        "latent_traversal",
        "learning_curves",
    }
    assert (run / "saved_models" / "digits" / "1" / "saved_model.pb").is_file()
    assert [path.name for path in (run / "saved_models").iterdir()] == ["digits"]
    metrics, history = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("metrics", "history")
    )
    assert len(history["elbo"]) == len(history["val_elbo"]) == 2
    assert metrics["negative_elbo"] > metrics["nll"]
    assert (metrics["num_samples"], metrics["latent_units"], metrics["num_examples"]) == (5, 4, 180)


def test_train_closes_with_a_table_and_the_next_commands(run):
    out = (run / "out.txt").read_text()
    words = (
        "-ELBO",
        "log-likelihood",
        "KL, analytic",
        "NLL, 5 samples",
        "active units",
        "seconds",
        "examples per second",
    )
    assert all(word in out for word in words)
    assert (
        out.count("tfp-vae sample")
        == out.count("tfp-vae evaluate")
        == out.count("saved_model_cli")
        == 1
    )
    assert (run / "err.txt").read_text() == ""


def test_the_run_is_judged_as_the_package_judges_it(run, digits):
    vae = keras.models.load_model(run / "runs" / "digits-1" / "model.keras")
    numbers = tfp_vae.evaluation.evaluate(vae, digits.test, num_samples=5)
    metrics = json.loads((run / "runs" / "digits-1" / "metrics.json").read_text())
    for name, value in numbers.items():
        assert metrics[name] == pytest.approx(value, rel=1e-6), name


@pytest.mark.slow
def test_a_config_repeats_a_run_with_other_options_where_given(run, here):
    config = run / "runs" / "digits-1" / "config.json"
    assert invoke("train", "--config", config, "--run", "again")[::2] == (0, "")
    first, second = (
        json.loads((path / "metrics.json").read_text()) for path in (config.parent, here / "again")
    )
    assert {name: second[name] for name in ("negative_elbo", "nll")} == {
        n: first[n] for n in ("negative_elbo", "nll")
    }
    assert invoke("train", "--config", config, "--epochs", 1, "--run", "other")[0] == 0
    other = json.loads((here / "other" / "config.json").read_text())
    assert other == {**json.loads(config.read_text()), "epochs": 1}


def test_evaluate_sample_export_and_plot(run, monkeypatch):
    monkeypatch.chdir(run)
    model = run / "runs" / "digits-1"
    assert invoke("evaluate", "--num-samples", 5)[0] == 0  # the newest run
    metrics, again = (
        json.loads((model / f"{name}.json").read_text()) for name in ("metrics", "evaluation")
    )
    assert again["nll"] == pytest.approx(metrics["nll"], rel=1e-6)
    assert invoke("sample", model, "--num-examples", 7, "--output", "seven.npz")[0] == 0
    assert (
        invoke(
            "sample", run / "saved_models" / "digits", "--num-examples", 7, "--output", "served.npz"
        )[0]
        == 0
    )
    live, served = np.load("seven.npz")["x"], np.load("served.npz")["x"]
    assert live.shape == (7, 8, 8, 1)
    np.testing.assert_allclose(live, served, rtol=1e-5, atol=1e-5)
    assert invoke("sample", model / "model.keras", "--output", "seven.png")[0] == 0
    assert invoke("export", "--name", "other")[0] == 0
    assert tfp_vae.load("saved_models/other").event_shape == (8, 8, 1)
    assert invoke("export", "--name", "other", "--keep", 1)[0] == 0
    assert {path.name for path in Path("saved_models/other").iterdir()} == {
        "2",
        "models.config",
        "batching.config",
    }
    card = Path("saved_models/other/2/assets.extra/model_card.md").read_text()
    assert card == Path("saved_models/digits/1/assets.extra/model_card.md").read_text().replace(
        "digits\n", "other\n", 1
    )
    for part in (
        "digits, 2 epochs of training",
        f"| nll | {metrics['nll']:.4g} |",
        "(reconstructions.png)",
    ):
        assert part in card
    assert invoke("plot", model, "--output", "pictures")[0] == 0
    assert len(list(Path("pictures").glob("*.png"))) == 4


def test_a_finished_run_is_not_resumed(run, monkeypatch):
    monkeypatch.chdir(run)
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    code, _, err = invoke("train", "--resume", Path("runs") / "digits-1")
    assert (code, "is finished: it has its 2 epochs" in err) == (2, True)
    assert files == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_diverged_training_says_so_and_keeps_the_last_model(here):
    code, _, err = invoke(
        "train", "--epochs", 2, *SMALL, "--learning-rate", 1e30, "--run", "diverged"
    )
    assert (code, "Training has diverged: the loss of epoch 1 is" in err) == (2, True), err
    assert np.isfinite(cli.open_vae(here / "diverged" / "model.keras").get_weights()[0]).all()


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.xla
def test_ctrl_c_and_resume_equal_the_uninterrupted_run_bit_for_bit(here):
    # A child inherits it where it is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    arguments = ["train", "--epochs", "200", *SMALL, "--batch-size", "50"]
    broken = command(*arguments, "--run", "broken", cwd=here)
    history = here / "broken" / "history.json"
    while not (history.is_file() and len(json.loads(history.read_text()).get("elbo", []))):
        assert broken.poll() is None
        time.sleep(0.01)
    broken.send_signal(signal.SIGINT)
    code, out, _ = finish(broken)
    assert (code, "--resume broken" in out) == (130, True)
    done = len(json.loads(history.read_text())["elbo"])
    assert 1 <= done < 200
    assert isinstance(cli.open_vae(here / "broken" / "model.keras"), tfp_vae.VAE)
    for rest in (["train", "--resume", "broken"], [*arguments, "--run", "whole"]):
        code, _, err = invoke(*rest)
        assert code == 0, err
    runs = [here / "whole", here / "broken"]
    first, second = (keras.models.load_model(run / "model.keras") for run in runs)
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    first, second = (json.loads((run / "metrics.json").read_text()) for run in runs)
    assert {
        name: first[name] == second[name] for name in ("negative_elbo", "nll", "kl")
    } == dict.fromkeys(("negative_elbo", "nll", "kl"), True)
    histories = [json.loads((run / "history.json").read_text()) for run in runs]
    assert len(histories[0].pop("seconds")) == len(histories[1].pop("seconds")) == 200
    assert histories[0] == histories[1]


def test_ctrl_c_stops_training_even_where_the_exception_is_lost(here, monkeypatch):
    class PressesCtrlC:
        def __del__(self):  # Python reports what is raised here, and goes on
            signal.raise_signal(signal.SIGINT)

    def save(run, vae, history):
        original(run, vae, history)
        if len(history.get("elbo", [])) == 2:
            PressesCtrlC()

    original = cli.runs.Run.save
    monkeypatch.setattr(cli.runs, "SECONDS_BETWEEN_SAVINGS", 0.0)
    monkeypatch.setattr(cli.runs.Run, "save", save)
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(SystemExit, match="130"):
        invoke("train", "--epochs", 12, *SMALL, "--run", "broken")
    assert len(json.loads((here / "broken" / "history.json").read_text())["elbo"]) == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


COMBINATIONS = [
    [
        "--objective",
        "IWAE(num_samples=3, estimator='dreg')",
        "--prior",
        "NormalMixture(num_components=3)",
    ],
    [
        "--objective",
        "BetaTCVAE",
        "--beta",
        "2",
        "--warm-up",
        "1",
        "--prior",
        "VampPrior(num_components=5)",
    ],
    [
        "--posterior",
        "PowerSpherical",
        "--prior",
        "HypersphericalUniform",
        "--objective",
        "ELBO(num_samples=2)",
    ],
    [
        "--posterior",
        "MultivariateNormalDiagPlusLowRank(rank=1)",
        "--prior",
        "Normal",
        "--objective",
        "DIPVAE",
    ],
    [
        "--posterior",
        "RelaxedOneHotCategorical(temperature=0.7)",
        "--prior",
        "RelaxedCategorical(temperature=0.5)",
    ],
    ["--posterior", "OneHotCategoricalStraightThrough", "--prior", "Categorical(trained=True)"],
    [
        "--posterior",
        "IndependentBernoulliStraightThrough",
        "--prior",
        "Bernoulli",
        "--objective",
        "IWAE",
    ],
    [
        "--posterior",
        "IndependentRelaxedBernoulli(temperature=0.3)",
        "--prior",
        "RelaxedBernoulli(temperature=0.3)",
    ],
    ["--posterior", "VectorQuantized(num_codes=5, momentum=0.9)", "--prior", "Codes(trained=True)"],
    ["--posterior", "VectorQuantized(event_shape=(2, 4))", "--prior", "Codes", "--network", "conv"],
    [
        "--posterior",
        "OneHotCategoricalStraightThrough(event_size=(2, 3))",
        "--prior",
        "Categorical",
    ],
    [
        "--posterior",
        "Deterministic",
        "--objective",
        "Reconstruction(latent_penalty=0.1)",
        "--decoder-decay",
        "1e-3",
    ],
    [
        "--posterior",
        "Deterministic",
        "--objective",
        "Reconstruction",
        "--network",
        "conv",
        "--decoder-decay",
        "1e-3",
    ],
    ["--likelihood", "MixtureQuantizedLogistic(num_components=3, num_levels=17)"],
    ["--likelihood", "IndependentNormalLearnedScale(scale_shape=(8, 8, 1))"],
    [
        "--likelihood",
        "IndependentNormalOptimalScale",
        "--objective",
        "IWAE(num_samples=3, estimator='dreg')",
    ],
    ["--likelihood", "IndependentQuantizedLogistic(num_levels=17)", "--network", "conv"],
    ["--likelihood", "MixtureQuantizedLogistic(num_components=2)", "--network", "conv"],
]


def test_large_values_are_scaled_before_the_encoder():
    x = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 1)).astype("uint8")
    splits = tfp_vae.datasets.load(x, likelihood="IndependentPoisson")
    vae = cli.build(splits, cli.Options(name="data", hidden_size=8, latent_size=2, batch_size=10))
    assert isinstance(vae.encoder.layers[0], keras.layers.Rescaling)
    assert np.abs(vae.encoder.layers[0](splits.test)).max() == pytest.approx(1.0)


@pytest.mark.parametrize("options", COMBINATIONS, ids=" ".join)
@pytest.mark.rows(6)
def test_members_by_name(options):
    names = [name.removeprefix("--").replace("-", "_") for name in options[::2]]
    texts = dict(zip(names, options[1::2], strict=True))
    given = {
        name: type(
            getattr(
                cli.Options(
                    name="data",
                ),
                name,
            )
        )(text)
        for name, text in texts.items()
    }
    options = cli.Options(name="data", hidden_size=8, latent_size=3, epochs=2, **given)
    splits = tfp_vae.datasets.load("digits", likelihood=cli.parse_likelihood(options.likelihood)[0])
    vae = cli.build(splits, options)
    vae.compile("adam", run_eagerly=True)
    assert np.isfinite(vae.fit(splits.train[:50], verbose=0).history["loss"]).all()
    parts = {"prior": vae.prior, "objective": vae.objective, "posterior": vae.encoder.layers[-1]}
    parts |= {"likelihood": vae.decoder.layers[-1]} if "likelihood" in given else {}
    for name, part in parts.items():
        text = getattr(options, name)
        assert text.startswith(type(part).__name__)
        for argument, value in parse(name, text, (type(part).__name__,))[1].items():
            assert getattr(part, argument) == value


def test_the_warm_up_in_cycles(digits):
    """1437 examples in batches of 100 make 14 steps an epoch: cycles of 56 steps, in which 28 rise."""
    vae = cli.build(
        digits,
        cli.Options(
            name="data", hidden_size=8, latent_size=3, epochs=12, warm_up=2, cycles=3, beta=0.5
        ),
    )
    values = [
        float(vae.objective.beta(step)) for step in (0, 14, 28, 55, 56, 70, 111, 112, 168, 10**9)
    ]
    assert values == [0.0, 0.25, 0.5, 0.5, 0.0, 0.25, 0.5, 0.0, 0.5, 0.5]


@pytest.mark.parametrize("name", mostly_slow(["bottom_up", "ladder"], "ladder"))
@pytest.mark.slow
def test_a_hierarchy_by_name(name, digits):
    texts = {
        "posterior": f"{name}(latent_sizes=(4, 3, 2))",
        "prior": "NormalMixture(num_components=2)",
    }
    vae = cli.build(digits, cli.Options(name="data", hidden_size=8, **texts))
    assert vae.latent_shape == {"z1": (4,), "z2": (3,), "z3": (2,)}
    assert isinstance(vae.prior.parts["z3"], tfp_vae.priors.NormalMixture)
    vae.compile("adam", run_eagerly=True)
    assert np.isfinite(vae.fit(digits.train[:50], verbose=0).history["loss"]).all()
    for wrong in ("()", "{}", "5"):
        texts["posterior"] = f"{name}(latent_sizes={wrong})"
        with pytest.raises(ValueError, match=r"latent"):
            cli.build(digits, cli.Options(name="data", hidden_size=8, **texts))
    with pytest.raises(
        ValueError, match="VampPrior needs an encoder from an x without parts to one latent"
    ):
        cli.build(
            digits, cli.Options(name="data", hidden_size=8, posterior=name, prior="VampPrior")
        )


def test_the_name_of_a_flow_is_a_posterior_and_a_prior_of_it(digits):
    texts = {
        "posterior": "InverseAutoregressiveFlow(num_transforms=3)",
        "prior": "RealNVP(hidden_units=(8,))",
    }
    vae = cli.build(digits, cli.Options(name="data", hidden_size=8, latent_size=3, **texts))
    posterior, prior = vae.encoder.layers[-1], vae.prior
    assert (type(posterior), type(prior)) == (
        tfp_vae.layers.FlowPosterior,
        tfp_vae.priors.FlowPrior,
    )
    assert (type(posterior.flow).__name__, posterior.flow.num_transforms) == (
        "InverseAutoregressiveFlow",
        3,
    )
    assert (posterior.flow.event_size, posterior.flow.context_size) == (3, 64)
    assert (type(prior.flow).__name__, prior.flow.hidden_units, prior.flow.event_size) == (
        "RealNVP",
        (8,),
        3,
    )
    assert np.isfinite(vae(digits.test[:3])["loss"]).all()


@pytest.mark.slow
@pytest.mark.mnist
def test_mnist_reaches_its_number(here, full):
    """With the default network, in nats: at most 100.5 after 10 epochs, 110.5 after two."""
    epochs, most = (10, 100.5) if full else (2, 110.5)
    splits = tfp_vae.datasets.load("mnist")
    vae = cli.build(splits, cli.Options(name="data", dataset="mnist", epochs=10))
    vae.fit(splits.batches(100, epochs=epochs), steps_per_epoch=550, epochs=epochs, verbose=0)
    assert -np.mean(tfp_vae.evaluation.elbo(vae, splits.test)["elbo"]) <= most


def test_the_shell_completes_commands_and_options(tmp_path):
    code = "import sys; sys.argv[0] = 'tfp-vae'; from tfp_vae_console import main; main()"
    for typed, expected in (
        ("tfp-vae e", "evaluate\nexport\nexplore"),
        ("tfp-vae train --pri", "--prior"),
    ):
        asked = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
        environment = {**os.environ, **asked, "_TFP_VAE_COMPLETE": "complete_bash"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == expected


def test_help_needs_no_tensorflow():
    code = "import sys, tfp_vae_console; assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert invoke("--help")[0] == 0
    for name in ("train", "evaluate", "sample", "export", "plot", "report", "explore", "migrate"):
        assert invoke(name, "--help")[0] == 0


def test_an_error_is_one_line_with_exit_code_2(here):
    code, out, err = finish(command("evaluate", "nowhere", cwd=here))
    assert (code, out) == (2, "")
    assert (
        err
        == f"error: nowhere is not a run folder: there is no {Path('nowhere') / 'config.json'}.\n"
    )


BAD = {
    "train --dataset mnst": "Did you mean: mnist",
    "train --dataset none.npz": "no file none.npz",
    "train --dataset empty.npz": "empty",
    "train --dataset nan.npz": "NaN",
    "train --dataset bytes.npz --likelihood IndependentBinomial --network conv": "divisible by 4",
    "train --likelihood IndependentBernoulli": r"\[0, 16\]",
    "train --likelihood Gamma": "--likelihood must be one of",
    "train --likelihood MixtureQuantizedLogistic": "missing 1 required positional argument: 'num_components'",
    "train --likelihood IndependentQuantizedLogistic(num_levels=17.5)": "num_levels must be a whole number",
    "train --likelihood IndependentNormal(event_shape=3)": r"decoder's distribution is over examples of shape \(3,\)",
    "train --likelihood IndependentNormal(shade=3)": "shade",
    "train --posterior Gamma": "--posterior must be one of",
    "train --posterior IndependentBernoulli": "--posterior must be one of",
    "train --prior Gamma": "--prior must be one of",
    "train --prior HypersphericalUniform": "KL divergence is not defined",
    "train --prior NormalMixture": "num_components",
    "train --prior Codes": "go together; received --posterior 'MultivariateNormalDiag' and --prior 'Codes'",
    "train --posterior VectorQuantized": "go together; received .* --prior 'StandardNormal'",
    "train --posterior VectorQuantized(num_codes=0) --prior Codes": "num_codes must be a whole number",
    "train --posterior Deterministic": "ELBO is not defined for it. Pass objective=tfp_vae.objectives.Reconstruction",
    "train --posterior Deterministic --objective Reconstruction --prior Normal": "weights that .* never trains",
    "train --objective Reconstruction": "End the encoder in tfp_vae.layers.Deterministic",
    "train --decoder-decay -1": "decoder-decay",
    "train --prior RealNVP --latent-size 1": "event_size of at least 2, received 1",
    "train --objective Gamma": "--objective must be one of",
    "train --objective IWAE(5)": "must be a name, alone or with arguments by name",
    "train --objective IWAE(num_samples=0)": "num_samples must be a whole number",
    "train --objective IWAE --beta 3": "--beta, --warm-up and --cycles are about the beta of BetaTCVAE and ELBO",
    "train --cycles 4": "Each of the 4 --cycles lasts 25 epochs, so --warm-up must be .* received 0",
    "train --cycles 4 --warm-up 26": "at most that; received 26",
    "train --network foo": "--network must be one of mlp, conv",
    "train --latent-size 0": "latent-size",
    "train --latent-size -3": "latent-size",
    "train --epochs 0": "epochs",
    "train --epochs many": "epochs",
    "train --beta -1": "beta",
    "train --beta nan": "beta",
    "train --batch-size 5000": "between 1 and the 1437",
    "train --run taken": "exists already",
    "train --run file/run --batch-size 5": "file/run: Not a directory",
    "train --saved-models file": "file: File exists",
    "train --resume nowhere": "not a run folder",
    "train --config nowhere.json": "no file nowhere.json",
    "train --config file": "does not hold the options of a run",
    "train --resume taken --latent-size 3": "Leave out --latent-size",
    "train --resume taken": "does not hold the options of a run, a dict of them",
    "train --resume scribbled": "does not hold the options of a run",
    "train --learning-rate nan": "learning-rate.*greater than or equal to 0",
    "train --dataset scalar.npz": r"must be an array of numbers.*received shape \(\) of float64",
    "train --dataset complex.npz": "must be an array of numbers.*complex64",
    "train --dataset flat.npz --network conv": "no channel axis. Add one",
    "train --nonsense": "No such option",
    "nonsense": "No such command",
    "train --learning-rate 0": "--learning-rate must be a finite number above 0, received 0.0",
    "train --warm-up 50 --epochs 3": "--warm-up 50 is longer than the training of 3 epochs",
    "train --warm-up 1 --beta 0": "lets beta rise from 0 to --beta 0",
    "train --decoder-decay inf": "--decoder-decay must be a finite number",
    "train --dataset table.csv": "empty or too small: 1 examples. Expected at least ten",
    "train --dataset several.npz": r"--likelihood .Joint\(age='IndependentNormal', children='IndependentCategorical'\)",
    "train --dataset text.npz": "holds text: 20 of 20 values, 2 different ones such as 'no', 'yes'. Number them",
    "train --dataset huge.npz": "whole numbers up to 1,099,511,627,776, .* Give floats",
    "impute several.npz lonely.keras --output x.npz": "was trained without --missing",
    "list gadgets": "must be one of posteriors, likelihoods",
    "evaluate lonely.keras": "outside a run folder.*Name them with --dataset",
    "evaluate": "no run under runs/",
    "evaluate nowhere.keras": "no model file",
    "evaluate broken.keras": "is not a .keras file",
    "evaluate foreign.keras": "holds a Sequential",
    "sample file --output x.png": "not a run folder",
    "sample . --output x.png": "not a SavedModel written by tfp_vae",
    "sample --output x.gif": "must end in .png or .npz",
    "sample --output file.png": "exists already",
    "export lonely.keras --name ../evil": "--name must be the name of one folder",
    "export lonely.keras --target tflite": "target must be one of onnx, openvino; received 'tflite'",
    "plot damaged": "history.json is damaged",
    "export nowhere": "not a run folder",
    "plot nowhere": "not a run folder",
}


@pytest.fixture(scope="module")
def bad_things(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    np.savez(folder / "empty.npz", np.zeros([0, 4]))
    np.savez(folder / "nan.npz", np.full([20, 4], np.nan))
    np.savez(
        folder / "bytes.npz",
        np.random.RandomState(0).randint(0, 256, (20, 3, 3, 1)).astype("uint8"),
    )
    (folder / "file").write_text("precious")
    (folder / "file.png").write_text("precious")
    (folder / "broken.keras").write_text("precious")
    (folder / "taken").mkdir()
    (folder / "taken" / "config.json").write_text("{}")
    (folder / "scribbled").mkdir()
    (folder / "scribbled" / "config.json").write_text("precious")
    options = cli.Options(name="digits", dataset="digits")
    make_vae().save(cli.Run.create(folder / "damaged", options).model)
    (folder / "damaged" / "history.json").write_text("precious")
    np.savez(folder / "scalar.npz", np.float64(3.0))
    (folder / "table.csv").write_text("age,job\n1,2\n")
    np.savez(folder / "several.npz", age=np.linspace(0.0, 1.0, 20), children=np.arange(20) % 4)
    np.savez(folder / "text.npz", np.array(["yes", "no"] * 10))
    np.savez(folder / "huge.npz", np.full([20, 3], 2**40))
    np.savez(folder / "complex.npz", np.ones([20, 4], "complex64"))
    np.savez(
        folder / "flat.npz", np.random.RandomState(0).randint(0, 256, (20, 4, 4)).astype("uint8")
    )
    make_vae().save(folder / "lonely.keras")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(folder / "foreign.keras")
    return folder


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_refused_and_nothing_is_lost(line, bad_things, monkeypatch):
    monkeypatch.chdir(bad_things)
    before = {path: path.read_bytes() for path in bad_things.rglob("*") if path.is_file()}
    code, out, err = invoke(*line.split())
    assert (code, out) == (2, "")
    assert re.fullmatch(f"error: .*({BAD[line]}).*\n", err), err
    assert before == {path: path.read_bytes() for path in bad_things.rglob("*") if path.is_file()}


@pytest.mark.skipif(os.name != "posix", reason="completes in bash")
def test_a_shell_completes_commands():
    program = Path(sys.executable).with_name("tfp-vae")
    asked = {"_TFP_VAE_COMPLETE": "complete_bash", "COMP_WORDS": "tfp-vae ex", "COMP_CWORD": "1"}
    shown = subprocess.run([program], env={**os.environ, **asked}, capture_output=True, text=True)
    assert {*shown.stdout.split()} == {"explore", "export"}
