"""Many inputs that nobody would think of: each gives an answer, or an error that says what is wrong.

Five examples of each surface are tried before every commit, fifty by CI, a thousand in full length, always the same.
"""

import concurrent.futures
import contextlib
import functools
import inspect
import json
import multiprocessing
import shutil
import signal
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import tfp_vae
from tests.conftest import make_vae
from tests.test_cli import invoke
from tests.test_tracked_model import MODEL
from tfp_vae import cli, files, layers, objectives, priors
from tfp_vae import layers as tfpl
from tfp_vae.cli import training
from tfp_vae.cli.names import LIKELIHOODS, OBJECTIVES, POSTERIORS, PRIORS
from tfp_vae.file_sizes import load_keras

# Seconds within which there must be an answer.
LIMIT = 60
# Examples of SavedModels that one process loads.
IN_A_PROCESS = 200
# What a function of the package may raise, and the command line says in a line.
ERRORS = (ValueError, TypeError, OSError, ImportError, MemoryError)


@pytest.fixture(params=[5, pytest.param(50, marks=pytest.mark.slow)])
def number(request, full):
    """How many examples the tier of the tests has time for."""
    return 1000 if full and request.param > 5 else request.param


@pytest.fixture
def try_all(number):
    """Run a check on that many examples of a strategy."""
    return functools.partial(run, number)


def run(number, strategy, check, seed=None):
    @hypothesis.settings(
        max_examples=number,
        derandomize=seed is None,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategy)
    def one(example):
        with in_time(), contextlib.suppress(Refused):
            check(example)

    (one if seed is None else hypothesis.seed(seed)(one))()


class Refused(Exception):
    """The input was refused with a clear error."""


@contextlib.contextmanager
def in_time():
    """Raise an error in what takes longer than the limit."""

    def end(number, frame):
        raise AssertionError(f"no answer in {LIMIT} seconds")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def refusing():
    try:
        yield
    except ERRORS as error:
        raise Refused from error


# Command lines and config files

ODD_NUMBERS = st.sampled_from(["0", "-1", "1", "2", "3", "0.5", "1e400", "nan", "-inf", "1e-300"])
ODD_TEXTS = st.sampled_from(
    ["", " ", "None", "True", "é", "\0", "a,b", "x=1", "-", "--", "[]", "1,2"]
)
ODD_FILES = st.sampled_from(
    ["rows.npz", "run", "rows", ".", "/", "/dev/null", "nowhere", "run/config.json", "texts.txt"]
)
ODD_VALUES = st.one_of(
    st.sampled_from(["0", "-1", "1", "2", "0.5", "nan", "None", "True", "()", "(2,)", "(-1, 2)"]),
    st.sampled_from(
        ["'auto'", "'x'", "{}", "[1]", "{'a': 1}", "1j", "9**9", "'MultivariateNormalDiag'"]
    ),
)


@st.composite
def member(draw, names, room):
    """Draw a name as an option takes it, with some of its own arguments."""
    name = draw(st.sampled_from([*names, "Joint", "auto", "Nonsense"]))
    known = [*inspect.signature(getattr(room, name, make_vae)).parameters][:6]
    given = draw(st.lists(st.sampled_from([*known, "x", "z"]), max_size=3, unique=True))
    if not given and draw(st.booleans()):
        return name
    return f"{name}({', '.join(f'{one}={draw(ODD_VALUES)}' for one in given)})"


OPTIONS = {
    "posterior": member(POSTERIORS, layers),
    "likelihood": member(LIKELIHOODS, layers),
    "prior": member(PRIORS, priors),
    "objective": member(OBJECTIVES, objectives),
    "network": st.sampled_from(["mlp", "conv", "gru", "transformer", "auto", ""]),
    "dataset": ODD_FILES,
    "condition": st.sampled_from(["label", "kind", "x", "", "y"]),
    "tokens": st.sampled_from(["characters", "words", "(", "", ".", "smiles"]),
    "config": ODD_FILES,
    "run": ODD_FILES,
    "saved-models": ODD_FILES,
    **dict.fromkeys(
        ["epochs", "batch-size", "learning-rate", "latent-size", "beta", "warm-up", "cycles"],
        ODD_NUMBERS | ODD_TEXTS,
    ),
    **dict.fromkeys(
        ["hidden-size", "word-dropout", "decoder-decay", "patience", "num-samples", "seed"],
        ODD_NUMBERS | ODD_TEXTS,
    ),
    **dict.fromkeys(
        [
            "output",
            "num-examples",
            "num-draws",
            "name",
            "keep",
            "labels",
            "samples",
            "features",
            "without",
        ],
        ODD_NUMBERS | ODD_TEXTS | ODD_FILES,
    ),
}
COMMANDS = {
    "train": ["posterior", "likelihood", "prior", "objective", "network", "dataset", "condition", "tokens",
              "config", "run", "saved-models", "epochs", "batch-size", "learning-rate", "latent-size", "beta",
              "warm-up", "cycles", "hidden-size", "word-dropout", "decoder-decay", "patience", "seed",
              "without"],
    "evaluate": ["dataset", "condition", "batch-size", "labels", "samples", "features", "seed"],
    "sample": ["num-examples", "seed", "output", "condition"],
    "impute": ["num-samples", "num-draws", "seed", "output"],
    "export": ["name", "saved-models", "keep"],
    "plot": ["dataset", "condition", "output", "seed"],
    "report": ["output", "seed"],
    "list": [],
    "migrate": [],
    "nonsense": ["seed"],
}  # fmt: skip


@st.composite
def command_lines(draw):
    """Draw a command with a few of its options, and perhaps what it is about."""
    command = draw(st.sampled_from([*COMMANDS, "train", "train", "train"]))
    chosen = (
        draw(st.lists(st.sampled_from(COMMANDS[command]), max_size=4, unique=True))
        if COMMANDS[command]
        else []
    )
    line = [command]
    for option in chosen:
        line += [f"--{option}", draw(OPTIONS[option])]
    if command == "evaluate":
        line += ["--num-samples", "2"]
    if command != "train" and draw(st.booleans()):
        line.append(draw(ODD_FILES | ODD_TEXTS))
    return line


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A finished run of some rows, with its data."""
    folder = tmp_path_factory.mktemp("fuzzed")
    random = np.random.default_rng(0)
    np.savez(folder / "rows.npz", x=random.normal(size=(30, 4)), kind=np.arange(30) % 3)
    (folder / "texts.txt").write_text("ab\nba\nabba\n" * 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(tfp_vae.VAE, "export", lambda vae, path, **kwargs: Path(path) / "1")
        options = ["--hidden-size", 4, "--latent-size", 2, "--num-samples", 2, "--epochs", 1]
        code, _, err = invoke("train", "--dataset", "rows.npz", *options, "--run", "run")
    assert code == 0, err
    return folder


@pytest.fixture
def here(run_folder, tmp_path, monkeypatch):
    """A copy of the run in the current folder; nothing is trained or exported."""
    shutil.copytree(run_folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setattr(training, "_fit", lambda *given: None)
    monkeypatch.setattr(tfp_vae.VAE, "export", lambda vae, path, **kwargs: Path(path) / "1")
    return tmp_path / "copy"


def check_line(line):
    try:
        code, _, err = invoke(*line)
    except SystemExit as error:
        code, err = error.code, ""
    assert code in (0, 1, 2), (line, err)
    if code == 2:
        assert err.splitlines()[-1].startswith("error: "), (line, err)
        assert len(err.split("error: ")[-1].strip().splitlines()) == 1, (line, err)


def test_command_lines(try_all, here):
    def check(line):
        if line[0] == "train" and "--dataset" not in line:
            line = [*line, "--dataset", "rows.npz"]
        if line[0] == "train" and "--hidden-size" not in line:
            line = [*line, "--hidden-size", "4"]
        check_line(line)
        for made in (*Path("runs").glob("*"), *Path().glob("sample*"), *Path().glob("imputed*")):
            shutil.rmtree(made) if made.is_dir() else made.unlink()

    try_all(command_lines(), check)


JSON = st.sampled_from(
    [None, True, 0, -1, 1, 2, 0.5, 1e308, float("nan"), "", "x", "label", [], [1], {}, {"a": 1}]
)
FIELDS = sorted(cli.Options.__dataclass_fields__)


def test_config_files(try_all, here):
    """Of a new run, and of one that is gone on with or judged."""
    config = here / "run" / "config.json"
    true = json.loads(config.read_text())

    def check(example):
        changes, command = example
        config.write_text(json.dumps({**true, **changes}))
        check_line(command)
        shutil.rmtree("runs", ignore_errors=True)

    commands = st.sampled_from(
        [
            ["train", "--config", "run/config.json", "--hidden-size", "4"],
            ["train", "--resume", "run", "--epochs", "2"],
            ["evaluate", "run", "--num-samples", "2"],
        ]
    )
    changes = st.dictionaries(st.sampled_from([*FIELDS, "nonsense"]), JSON, min_size=1, max_size=3)
    try_all(st.tuples(changes, commands), check)


# Files with bytes flipped


@st.composite
def flips(draw, size):
    """Draw places of a file, more of them near its ends, and what to change their bytes by."""
    place = st.integers(0, size - 1) | st.integers(0, min(200, size - 1))
    place |= st.integers(max(0, size - 400), size - 1)
    return draw(st.lists(st.tuples(place, st.integers(1, 255)), min_size=1, max_size=3))


def flipped(content, changes):
    changed = bytearray(content)
    for place, by in changes:
        changed[place] ^= by
    return bytes(changed)


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name])
        assert value.dtype == other[name].dtype


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_flipped_bytes_of_arrays(save, try_all, tmp_path):
    true = {"x": np.random.default_rng(0).normal(size=(6, 4)), "labels": np.arange(6)}
    save(tmp_path / "x.npz", **true)
    content = (tmp_path / "x.npz").read_bytes()

    def check(changes):
        (tmp_path / "x.npz").write_bytes(flipped(content, changes))
        with refusing():
            found = files.load_file(tmp_path / "x.npz")
        assert_same(true, found)

    try_all(flips(len(content)), check)


def weights_of(model):
    return {str(number): weight for number, weight in enumerate(model.get_weights())}


def test_flipped_bytes_of_keras_files(try_all, tmp_path):
    vae = make_vae((3,), 2, tfpl.IndependentNormal, hidden_sizes=())
    vae.save(tmp_path / "vae.keras")
    config = json.dumps(load_keras(tmp_path / "vae.keras").get_config())
    content = (tmp_path / "vae.keras").read_bytes()

    def check(changes):
        (tmp_path / "vae.keras").write_bytes(flipped(content, changes))
        with refusing():
            found = load_keras(tmp_path / "vae.keras")
        assert_same(weights_of(vae), weights_of(found))
        assert json.dumps(found.get_config()) == config

    try_all(flips(len(content)), check)


SERVED_FILES = sorted(
    str(path.relative_to(MODEL))
    for path in MODEL.rglob("*")
    if path.is_file() and path.suffix not in (".md", ".png")
)


def test_flipped_bytes_of_saved_models(number, tmp_path, digits):
    """In several processes, since TensorFlow keeps some 40 MB of every model it loads."""
    if number <= IN_A_PROCESS:
        flip_saved_models(number, tmp_path / "1", digits.test[:2])
        return
    spawn = multiprocessing.get_context("spawn")
    for seed in range(number // IN_A_PROCESS):
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as process:
            arguments = (IN_A_PROCESS, tmp_path / str(seed), digits.test[:2], seed)
            process.submit(flip_saved_models, *arguments).result()


def flip_saved_models(number, folder, x, seed=0):
    """Of the graph, the variables, the description, and the checksums themselves."""
    shutil.copytree(MODEL, folder)
    contents = {name: (folder / name).read_bytes() for name in SERVED_FILES}

    def answers():
        served = tfp_vae.load(folder)
        return {
            **served.score(x),
            "mean": served.encode(x).mean().numpy(),
        }

    true = answers()

    def check(example):
        name, changes = example
        (folder / name).write_bytes(flipped(contents[name], changes))
        try:
            with refusing():
                found = answers()
            assert_same(true, found)
        finally:
            (folder / name).write_bytes(contents[name])

    of_files = [st.tuples(st.just(name), flips(len(text))) for name, text in contents.items()]
    run(number, st.one_of(of_files), check, seed)


# The public functions

SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 4]), max_size=4).map(tuple) | st.just((5, 3))
DTYPES = st.sampled_from(
    [
        "float16",
        "float32",
        "float64",
        "int8",
        "int64",
        "uint8",
        "bool",
        "complex64",
        "U3",
        "O",
        "M8[s]",
    ]
)
FILLS = st.sampled_from([0, 1, -1, 0.5, 3, np.nan, np.inf, 1e6, 1e30, 1e-30])


@st.composite
def arrays(draw):
    """Draw an array, which may be of another shape or dtype than is wanted, or no array."""
    if draw(st.integers(0, 9)) == 0:
        return draw(
            st.sampled_from([None, "x", 3, [], {}, {"x": 1}, {"condition": [1]}, [[1], [2, 3]]])
        )
    with np.errstate(all="ignore"):
        try:
            return np.full(draw(SHAPES), draw(FILLS)).astype(draw(DTYPES))
        except (TypeError, ValueError, OverflowError):
            return np.zeros(draw(SHAPES))


ODD_COUNTS = st.sampled_from([0, -1, 1, 2, 3, 2.5, None, "2", True, 2**31, np.nan])
CALLS = {
    "encode": (lambda vae, x, n: vae.encode(x)),
    "decode": (lambda vae, x, n: vae.decode(x)),
    "reconstruct": (lambda vae, x, n: vae.reconstruct(x)),
    "score": (lambda vae, x, n: vae.score(x) if hasattr(vae, "score") else vae.encode(x)),
    "generate": (lambda vae, x, n: vae.generate(min(n, 3) if type(n) is int else n, seed=0)),
    "generate under": (lambda vae, x, n: vae.generate(2, seed=n, condition=x)),
    "log_prob": (lambda vae, x, n: vae.log_prob(x)),
    "encode and draw": (lambda vae, x, n: vae.encode(x).sample(seed=(0, 1))),
    "prior": (lambda vae, x, n: vae.prior_distribution(x)),
    "impute": (lambda vae, x, n: vae.impute(x)),
}
LIVE_CALLS = {
    "fit": lambda vae, x, n: vae.fit(x, batch_size=n, verbose=0),
    "fit with labels": lambda vae, x, n: vae.fit(x, x, epochs=1, verbose=0),
    "fit and validate": lambda vae, x, n: vae.fit(np.ones([4, 3]), validation_data=(x,), verbose=0),
    "evaluate": lambda vae, x, n: vae.evaluate(x, batch_size=n, verbose=0),
    "predict": lambda vae, x, n: vae.predict(x, verbose=0),
    "log_prob": lambda vae, x, n: vae.log_prob(x, num_samples=n),
    "call": lambda vae, x, n: vae(x),
    "compile": lambda vae, x, n: vae.compile("adam", run_eagerly=True),
    "judge": lambda vae, x, n: tfp_vae.evaluation.evaluate(vae, x, num_samples=2),
}


def check_calls(vae, known, calls):
    for name, x, number in calls:
        with contextlib.suppress(Refused), refusing():
            known[name](vae, x, number)


def steps(known):
    return st.lists(
        st.tuples(st.sampled_from([*known]), arrays(), ODD_COUNTS), min_size=1, max_size=4
    )


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
def test_methods_of_a_model(try_all):
    """In any order, before it is compiled and after."""
    known = {**CALLS, **LIVE_CALLS}

    def check(calls):
        vae = make_vae((3,), 2, tfpl.IndependentNormal, hidden_sizes=())
        check_calls(vae, known, calls)

    try_all(steps(known), check)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_methods_of_a_served_model(try_all):
    served = tfp_vae.load(MODEL)
    try_all(steps(CALLS), lambda calls: check_calls(served, CALLS, calls))


# What was found


def test_an_archive_whose_end_hides_a_member_is_damaged(tmp_path):
    """A byte of a comment's length, with which Python takes the next member for the comment."""
    np.savez(tmp_path / "x.npz", x=np.zeros([6, 4]), labels=np.arange(6))
    content = (tmp_path / "x.npz").read_bytes()
    entry = content.index(b"PK\x01\x02")
    length = content.rindex(b"PK\x01\x02") - entry
    after = content.rindex(b"PK\x05\x06") - content.rindex(b"PK\x01\x02")
    changed = bytearray(content)
    changed[entry + 32] = after
    assert length + after < 256
    (tmp_path / "x.npz").write_bytes(changed)
    with pytest.raises(ValueError, match=r"x.npz is damaged: 1 of its 2 members can be found"):
        files.load_file(tmp_path / "x.npz")


def test_a_method_that_a_served_model_lacks_says_so():
    with pytest.raises(ValueError, match="has no signature impute: it was exported from a model"):
        tfp_vae.load(MODEL).impute(np.zeros([1, 8, 8, 1]))


def test_nothing_cannot_be_predicted(vae):
    vae.compile("adam", run_eagerly=True)
    with pytest.raises(TypeError, match="x must be one array or tensor"):
        vae.predict(None)
    for nothing in ({}, np.array([]), np.zeros([0, 3])):
        with pytest.raises(ValueError, match="data set is empty"):
            vae.predict(nothing)
