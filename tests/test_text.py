"""Texts: vocabularies, files of lines, and the command line on them."""

import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest

import tfp_vae
from tests.test_cli import invoke
from tfp_vae import datasets
from tfp_vae.text import Vocabulary, read_lines

WORDS = [["a", "the", "my"], ["cat", "dog", "child"], ["sees", "likes"], ["him", "her", "us"]]
LINES = [" ".join(np.random.RandomState(i).permutation(w)[0] for w in WORDS) for i in range(120)]
SMILES = ["CCO", "C[NH3+]", "BrC(Cl)C", "c1ccccc1", "C%12CC%12", "[13C@H](N)O"]
SPLIT = {
    "characters": (["ab c", "ä\tb"], [["a", "b", " ", "c"], ["ä", "\t", "b"]]),
    "words": (["the cat", " the  dog "], [["the", "cat"], ["the", "dog"]]),
    "smiles": (
        SMILES[1:3],
        [["C", "[NH3+]"], ["Br", "C", "(", "Cl", ")", "C"]],
    ),
    "selfies": (["[C][=O].[N]", "[C]"], [["[C]", "[=O]", ".", "[N]"], ["[C]"]]),
    r"\d\d": (["0102", "0203"], [["01", "02"], ["02", "03"]]),
    r"C(l)?|O": (["ClO", "CO"], [["Cl", "O"], ["C", "O"]]),
}


@pytest.mark.parametrize("split", SPLIT)
def test_texts_are_split_into_tokens(split):
    lines, tokens = SPLIT[split]
    vocabulary = Vocabulary.of(lines, split)
    names = ["", "[UNK]", *vocabulary.tokens]
    x = vocabulary.encode(lines)
    assert [[names[number] for number in row if number] for row in x] == tokens
    assert (x[:, -1] == 0).all()
    between = " " if split == "words" else ""
    assert vocabulary.decode(x) == [between.join(row) for row in tokens]


@pytest.mark.parametrize("split", ["characters", "words"])
def test_numbers_are_those_of_keras(split):
    vocabulary = Vocabulary.of(LINES, split)
    layer = vocabulary.text_vectorization(40)
    assert layer.get_vocabulary() == ["", "[UNK]", *vocabulary.tokens]
    np.testing.assert_array_equal(layer(LINES), vocabulary.encode(LINES, 40))
    adapted = keras.layers.TextVectorization(
        standardize=None, split={"characters": "character", "words": "whitespace"}[split]
    )
    adapted.adapt(LINES)
    assert {*adapted.get_vocabulary()} == {*layer.get_vocabulary()}


def test_random_texts_come_back():
    random = np.random.RandomState(0)
    lines = ["".join(random.choice(list("abcdeäß漢字 ().[]"), size=9)) for _ in range(200)]
    vocabulary = Vocabulary.of(lines)
    assert vocabulary.decode(vocabulary.encode(lines)) == lines
    assert vocabulary.decode(vocabulary.encode(lines, 30).astype("float32")) == lines


def test_rare_words_become_one_token():
    vocabulary = Vocabulary.of(["a a a b b c"], "words", max_tokens=4)
    assert (vocabulary.tokens, len(vocabulary)) == (["a", "b"], 4)
    assert vocabulary.encode(["a c b"]).tolist() == [[2, 1, 3, 0]]
    assert vocabulary.decode([[2, 1, 3, 0]]) == ["a [UNK] b"]


BAD = {
    "another token": (lambda v: v.encode(["ab", "abz"]), "Line 2, 'abz', has 'z'"),
    "an empty line": (lambda v: v.encode(["ab", ""]), "Line 2 is empty"),
    "a long line": (lambda v: v.encode(["ab" * 9], 5), "Line 1 has 18 tokens, but .* takes 5"),
    "no line": (lambda v: v.encode([]), "There are no lines"),
    "one token": (lambda v: Vocabulary.of(["aaa", "a"]), "needs two different tokens"),
    "the same token": (lambda v: Vocabulary(["a", "a"]), "tokens must differ"),
    "no name of a split": (
        lambda v: Vocabulary.of(["a b"], "char"),
        "is none of characters, words",
    ),
    "tokens without characters": (lambda v: Vocabulary.of(["a b"], r"\w*"), "Let it need one"),
    "a number beyond": (lambda v: v.decode([[9, 0]]), "Tokens must lie from 0 to 3"),
    "names beside molecules": (
        lambda v: Vocabulary.of(["CO", "CN"], "smiles").encode(["CO methanol"]),
        "Line 1",
    ),
    "no regular expression": (lambda v: Vocabulary.of(["a b"], "("), "or a regular expression"),
    "no Keras layer": (
        lambda v: Vocabulary(["a", "b"], "smiles").text_vectorization(3),
        "Only texts split by characters or words",
    ),
    "between two tokens": (
        lambda v: Vocabulary(["[C]", "[N]"], "selfies").encode(["[C]x[N]"]),
        "has 'x', which is not in the vocabulary",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_texts_are_refused(bad):
    act, words = BAD[bad]
    with pytest.raises(ValueError, match=words):
        act(Vocabulary(["a", "b"]))


FILES = {
    "latin.txt": ("straße\n".encode("latin-1"), "is not a text in UTF-8, first in line 1.*iconv"),
    "empty.txt": (b"", "is empty. Expected one example a line"),
    "blank.txt": (b"ab\n\nba\n", "Line 2 of blank.txt is empty"),
    "zeros.txt": (b"a\0b\n", "it has zero bytes"),
    "same.txt": (b"aa\n" * 20, "needs two different tokens"),
    "few.txt": (b"ab\nba\n", "2 examples. Expected at least ten"),
    "absent.txt": (None, "There is no file absent.txt"),
}


@pytest.mark.parametrize("name", FILES)
def test_bad_files_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, words = FILES[name]
    if content is not None:
        Path(name).write_bytes(content)
    code, out, err = invoke("train", "--dataset", name)
    assert (code, out) == (2, "")
    assert re.fullmatch(f"error: .*{words}.*\n", err), err
    assert not Path("runs").exists()


def test_lines_of_other_systems_are_read(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes("\ufeffab\r\nbä\r\n".encode())
    assert read_lines(path) == ["ab", "bä"]
    path.write_text("ab\nba")
    assert read_lines(path) == ["ab", "ba"]


def test_a_file_of_texts_becomes_a_data_set(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(LINES))
    splits = datasets.load(path, tokens="words")
    texts = [
        line
        for part in (splits.train, splits.validation, splits.test)
        for line in splits.vocabulary.decode(part)
    ]
    assert sorted(texts) == sorted(LINES)
    assert (splits.event_shape, splits.num_tokens) == ((5,), 13)
    assert splits.likelihood == "AutoregressiveCategorical"
    again = datasets.load(path, tokens=splits.vocabulary, length=9)
    assert again.event_shape == (9,)
    independent = datasets.load(path, tokens="words", likelihood="IndependentCategorical")
    assert independent.likelihood_config["padded"]
    smiles = tmp_path / "some.smi"
    smiles.write_text("\n".join(SMILES * 2))
    assert datasets.load(smiles).vocabulary.split == "smiles"
    for arguments, words in (
        ({"likelihood": "IndependentNormal"}, "is no likelihood of texts"),
        ({"condition": "label"}, "holds texts alone"),
    ):
        with pytest.raises(ValueError, match=words):
            datasets.load(path, **arguments)
    numbers = tmp_path / "sums.TXT"
    numbers.write_text("12\n" + "3+4\n5+1\n" * 10)
    with pytest.raises(ValueError, match="If each line is a text, say so"):
        datasets.load(numbers)
    assert datasets.load(numbers, tokens="characters").vocabulary.decode([[2]])
    with pytest.raises(ValueError, match="how to split texts, but digits is no file"):
        datasets.load("digits", tokens="words")


SMALL = [
    "--epochs",
    "2",
    "--hidden-size",
    "8",
    "--latent-size",
    "2",
    "--num-samples",
    "5",
    "--batch-size",
    "32",
]
NETWORKS = {
    "causal-conv": [],
    "gru": ["--network", "gru", "--word-dropout", "0.3"],
    "independent": ["--likelihood", "IndependentCategorical"],
}


@pytest.mark.filterwarnings("ignore:The posterior has collapsed")
@pytest.mark.parametrize(
    "name", ["causal-conv", *(pytest.param(n, marks=pytest.mark.slow) for n in [*NETWORKS][1:])]
)
@pytest.mark.slow
@pytest.mark.rows(0, 1)
def test_the_command_line_trains_on_texts(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("lines.txt").write_text("\n".join(LINES))
    line = ["train", "--dataset", "lines.txt", "--tokens", "words", "--run", "run"]
    code, out, err = invoke(*line, *SMALL, *NETWORKS[name])
    assert (code, err) == (0, ""), err
    assert "for texts of up to 5 tokens, of which there are 11 (words)" in " ".join(out.split())
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert metrics["tokens_per_example"] == 5.0
    assert metrics["nll_per_token"] == pytest.approx(metrics["nll"] / 5.0)
    for picture in ("reconstructions.txt", "samples.txt", "interpolations.txt"):
        words = Path("run/pictures", picture).read_text().split()
        assert {*words} <= {word for group in WORDS for word in group} | {"[UNK]"}
    assert invoke("sample", "run", "--num-examples", "3", "--draws")[0] == 0
    live = Path("samples.txt").read_text()
    assert len(live.splitlines()) == 3
    (version,) = Path("saved_models/lines").glob("[0-9]*")
    arguments = ["--num-examples", "3", "--draws", "--output", "served.txt"]
    assert invoke("sample", str(version), *arguments)[0] == 0
    assert Path("served.txt").read_text() == live
    assert invoke("evaluate", str(version), "--dataset", "lines.txt")[0] == 0
    code, out, _ = invoke("evaluate", "run")
    assert code == 0
    assert "NLL per token" in out
    Path("other.txt").write_text("a cow sees us\n" * 12)
    code, _, err = invoke("evaluate", "run", "--dataset", "other.txt")
    assert code == 2
    assert "'a cow sees us', has 'cow', which is not in the vocabulary" in err
    code, _, err = invoke("sample", "run", "--output", "x.png")
    assert code == 2
    assert "--output must end in .txt or .npz" in err


REFUSED = {
    "--network mlp": "--network must be one of .*causal-conv, gru, transformer",
    "--tokens (": "or a regular expression for one token",
    "--missing": "holds texts alone",
    "--likelihood IndependentCategorical --word-dropout 0.2": "Leave it out",
    "--prior VampPrior": "VampPrior learns pseudo-inputs by gradients, but none",
}


@pytest.mark.parametrize("options", REFUSED)
def test_options_that_are_not_for_texts(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("lines.txt").write_text("\n".join(LINES))
    code, _, err = invoke("train", "--dataset", "lines.txt", *options.split())
    assert code == 2
    assert re.search(REFUSED[options], err), err


def test_a_table_may_have_an_array_called_vocabulary():
    arrays = {"vocabulary": np.arange(40) % 3, "num_tokens": np.arange(40) % 2}
    splits = datasets.load(arrays, likelihood=dict.fromkeys(arrays, "IndependentCategorical"))
    assert splits.is_table
    assert (splits.vocabulary, splits.num_tokens) == (None, None)
    for likelihood in (
        "AutoregressiveCategorical",
        {**dict.fromkeys(arrays), "num_tokens": "AutoregressiveCategorical"},
    ):
        x = np.ones([20, 2, 2], "int32") if isinstance(likelihood, str) else arrays
        with pytest.raises(ValueError, match="is for sequences of tokens alone"):
            datasets.load(x, likelihood=likelihood)


POSTERIORS = {
    "points": ["--posterior", "Deterministic", "--objective", "Reconstruction"],
    "a hierarchy": ["--posterior", "ladder"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", POSTERIORS)
@pytest.mark.rows(0, 1)
@pytest.mark.filterwarnings("ignore:The posterior has collapsed")
def test_texts_go_with_other_posteriors(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("lines.txt").write_text("\n".join(LINES))
    line = ["train", "--dataset", "lines.txt", "--tokens", "words", "--run", "run"]
    code, _, err = invoke(*line, *SMALL, *POSTERIORS[name])
    assert (code, err) == (0, ""), err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The posterior has collapsed")
def test_tokens_by_number_with_a_condition(tmp_path, monkeypatch):
    """Sequences of an .npz file, whose tokens have no names."""
    monkeypatch.chdir(tmp_path)
    x = np.random.RandomState(0).randint(1, 5, [60, 4]) * [[1, 1, 1, 0]]
    np.savez("data.npz", x=x, label=np.arange(60) % 2)
    line = "train --dataset data.npz --condition label --likelihood AutoregressiveCategorical"
    code, _, err = invoke(*line.split(), "--run", "run", *SMALL)
    assert code == 0, err
    assert Path("run/pictures/reconstructions.txt").is_file()
    vae = keras.models.load_model("run/model.keras")
    assert vae.generate(3, condition=1).shape == (3, 4)
    assert tfp_vae.load(next(Path("saved_models/data").glob("[0-9]*"))).x.shape == (4,)
