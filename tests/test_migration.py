"""The migration page says what is so: its lines run, the old ones on tf_keras, the new ones on Keras 3."""

import re
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

from tfp_vae import layers as tfpl

PAGE = (Path(__file__).parents[1] / "docs" / "migration.md").read_text()
START, *BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
ROWS = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]


def lines(column: int) -> str:
    return "\n".join(line for row in ROWS for line in re.findall(r"`([^`]+)`", row[column]))


@pytest.fixture
def namespace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(START, names)
    return names


def test_old_lines_run(namespace):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(lines(0), namespace)
    assert "tf_keras" in namespace["tfk"].__name__


def test_new_lines_run(namespace, tmp_path):
    namespace["weights"] = [np.ones([3, 2]), np.zeros([2])]  # the old model's
    exec(lines(1), namespace)
    assert namespace["tfk"] is keras
    assert namespace["model"].output_shape == (None, 1)
    assert (tmp_path / "served" / "saved_model.pb").is_file()


def test_blocks_run(namespace, tmp_path):
    namespace |= {"keras": keras, "tfpl": tfpl}
    for block in BLOCKS:
        exec(block, namespace)
    assert (tmp_path / "laplace.keras").is_file()
    assert len(BLOCKS) == 3


def test_each_name_of_tfp_layers_is_there():
    from tensorflow_probability.python import layers as theirs

    assert len(ROWS) > 10
    assert {*theirs._allowed_symbols, "VariationalGaussianProcess"} <= {*tfpl.__all__}
