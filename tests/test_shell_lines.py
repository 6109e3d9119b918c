"""Every `tfp-vae` line of README and docs runs as it stands, in a short form, and leaves what it promises."""

import itertools
import os
import re
import shlex
import webbrowser
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfp_vae
from tests.test_cli import ROOT, invoke
from tfp_vae import sources
from tfp_vae.cli.runs import Run

PAGES = [
    path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if "tfp-vae " in path.read_text()
]
SHORT = ["--hidden-size", "16", "--num-samples", "2"]
FEW = 240


def commands(page: Path) -> list[list[str]]:
    """The commands of a page in its order, as a shell splits them; a table has options of the command above it."""
    text = page.read_text().replace("\\\n", " ")
    found = re.findall(r"^tfp-vae [^\n]+|`(?:\.venv/bin/)?tfp-vae [^`]+`", text, re.MULTILINE)
    lines = [" ".join(line.strip("`").split()) for line in found]
    if page.name == "mnist.md":
        lines = [
            f"{lines[0]} {options}"
            for options in re.findall(r"^\|[^|]+\| `([^`]+)` \|", text, re.MULTILINE)
        ]
    return [
        words
        for line in dict.fromkeys(lines)
        if len(words := shlex.split(line.split(" #")[0])) > 2 and "-h" not in words
    ]


def shortened(words: list[str], newest: str, full: bool) -> list[str]:
    """The same command on little: one epoch, or as many as its warm-up needs; in full length what trains on digits."""
    words = [newest if word == "RUN" else word.replace("RUN/", f"{newest}/") for word in words[1:]]
    if words[0] != "train" or "--resume" in words or (full and "mnist" not in words):
        return words
    value = dict(itertools.pairwise(words))
    epochs = max(1, int(value.get("--warm-up", 0)) * int(value.get("--cycles", 1)))
    return [*words, "--epochs", str(epochs), *SHORT]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the data that the pages speak of; of MNIST the first images."""
    random = np.random.default_rng(0)
    people = {
        "age": random.normal(size=80),
        "children": random.integers(0, 4, 80) * 1.0,
        "job": np.arange(80) % 3 * 1.0,
    }
    digits = sources.load_digits()["x"].astype("float32")
    np.savez(tmp_path / "noise.npz", digits[:, ::-1].astype("int32"))
    digits[:, 2] = np.nan
    np.savez(tmp_path / "people.npz", **people)
    np.savez(tmp_path / "data.npz", x=digits[:60])
    np.savez(tmp_path / "mine.npz", np.nan_to_num(digits[:60]))
    lines = [f"{row / 7},{row % 3},{'cook' if row % 2 else ''}" for row in range(80)]
    (tmp_path / "people.csv").write_text("\n".join(["age,children,job", *lines]))
    texts = [
        f"{a} {b} {c}" for a in ("my", "the") for b in ("cat", "dog") for c in ("sees", "likes")
    ]
    (tmp_path / "lines.txt").write_text("\n".join(8 * texts))
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
    with tf.io.TFRecordWriter(str(tmp_path / "train.tfrecord")) as file:
        for number, image in enumerate(random.integers(0, 256, (60, 8, 8, 3), "uint8")):
            png = tf.io.encode_png(image).numpy()
            (tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number}.png").write_bytes(png)
            content = tf.train.Feature(bytes_list=tf.train.BytesList(value=[png]))
            features = tf.train.Features(feature={"image": content})
            file.write(tf.train.Example(features=features).SerializeToString())
    (tmp_path / "program.py").write_text("import tf_keras\n")
    (tmp_path / "notebook.ipynb").write_text('{"cells": []}')
    load = sources.load_tfds

    def few(name, wanted):
        return [{key: values[:FEW] for key, values in part.items()} for part in load(name, wanted)]

    monkeypatch.setattr(sources, "load_tfds", few)
    # Pages are neither opened nor served.
    monkeypatch.setattr(webbrowser, "open", lambda address: None)
    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", lambda self: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.rows(0, 2)
def test_every_line_ends_in_what_it_promises(page, here, full):
    has_mnist = os.path.isdir(os.path.join(os.environ.get("TFDS_DATA_DIR", ""), "mnist"))
    if page.name == "serving.md":
        assert invoke("train", "--epochs", 1, *SHORT)[0] == 0
    lines = commands(page)
    assert lines
    if page.name == "mnist.md" and not full:  # it has a row for each model
        lines = lines[:1]
    for words in lines:
        if "mnist" in words and not has_mnist:
            continue
        if any("://" in word for word in words):  # a server that is not there
            continue
        if words[1:3] == ["train", "--resume"]:
            if not [*here.glob("runs/*")]:  # the line that trains one needs MNIST
                assert invoke("train", "--epochs", 1, *SHORT)[0] == 0
            (Run.newest().folder / "metrics.json").unlink()
        before = {*here.glob("runs/*")}
        short = shortened(words, str(Run.newest().folder) if before else "", full)
        code, out, err = invoke(*short)
        assert (code, err) == (0, ""), (short, err)
        if words[1] == "train" and "--resume" not in words:
            (run,) = {*here.glob("runs/*")} - before
            # Of texts, three of them are texts.
            assert len([*(run / "pictures").iterdir()]) == (
                2 if {"people.npz", "people.csv"} & {*words} else 4
            )
            assert tfp_vae.load(here / "saved_models" / Run.open(run).options.name).description[
                "signatures"
            ]
        elif "--output" in words:
            assert (here / words[words.index("--output") + 1]).is_file()
        assert out


def test_the_lines_are_found():
    lines = {page.name: commands(page) for page in PAGES}
    assert sum(map(len, lines.values())) > 25
    assert ["tfp-vae", "impute", "people.npz", "--output", "whole.npz"] in lines["command_line.md"]
    assert all(len(words) > 2 for page in lines.values() for words in page)
