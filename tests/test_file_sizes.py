"""Files that claim to be larger than they are: one clear error, before the memory is taken."""

import io
import json
import re
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from tensorflow.core.protobuf import saved_model_pb2

import tfp_vae
from tests.conftest import make_vae
from tests.test_cli import invoke
from tests.test_concurrency import resident_bytes
from tests.test_tracked_model import MODEL
from tfp_vae import file_sizes
from tfp_vae.serving.checksums import CHECKSUMS

# What the process may grow by while it refuses a file.
MOST_BYTES = 2**28


def keras_file(path, config, compression=zipfile.ZIP_STORED):
    """Write a `.keras` file with another config, a function of the true one."""
    if not path.with_name("true.keras").is_file():
        make_vae().save(path.with_name("true.keras"))
    with (
        zipfile.ZipFile(path.with_name("true.keras")) as true,
        zipfile.ZipFile(path, "w", compression) as file,
    ):
        for name in true.namelist():
            text = true.read(name)
            file.writestr(name, config(text.decode()) if name == "config.json" else text)


def wide(config):
    return config.replace('"units": 32', '"units": 1000000000')


def deep(config):
    return "[" * 200_000 + config


def padded(config):
    return config + " " * (file_sizes.SMALL + 1)


def numpy_header(shape):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f8", "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def npz_file(path, shape=(10**12,)):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", numpy_header(shape) + bytes(80))


CLAIMS = {
    "evaluate wide.keras": (
        lambda path: keras_file(path, wide),
        "config in wide.keras makes weights of 256.0 GB or more",
    ),
    "evaluate padded.keras": (
        lambda path: keras_file(path, padded, zipfile.ZIP_DEFLATED),
        "config.json in padded.keras unpacks to 67.1 MB",
    ),
    "evaluate deep.keras": (lambda path: keras_file(path, deep), "cannot be loaded|can be loaded"),
    "train --dataset long.npz": (npz_file, "'x' of long.npz is damaged: it claims the shape"),
    "train --dataset short.npz": (
        lambda path: npz_file(path, (5,)),
        "40 bytes, but 80 bytes are there",
    ),
    "train --dataset long.npy": (
        lambda path: path.write_bytes(numpy_header((10**6, 10**6)) + bytes(80)),
        "long.npy is not an .npy file .* 8.0 TB, but 80 bytes are there",
    ),
}


@pytest.mark.parametrize("line", CLAIMS)
def test_a_file_that_claims_too_much_is_refused_before_memory_is_taken(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, words = CLAIMS[line]
    make(Path(line.split()[-1]))
    before = resident_bytes()
    code, out, err = invoke(*line.split(), *["--dataset", "digits"] * ("evaluate" in line))
    assert (code, out) == (2, "")
    assert re.fullmatch(f"error: .*({words}).*\n", err), err
    assert resident_bytes() - before < MOST_BYTES


def test_arrays_larger_than_the_memory_are_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", np.zeros([100, 1000]))
    assert tfp_vae.datasets.load(str(tmp_path / "x.npz"), likelihood="IndependentNormal")
    monkeypatch.setattr(file_sizes, "memory", lambda: 700_000)
    with pytest.raises(ValueError, match=r"take 800,000 bytes, more than the 700,000 bytes"):
        tfp_vae.datasets.load(str(tmp_path / "x.npz"))


def test_a_packed_model_loads_and_one_that_unpacks_to_too_much_does_not(tmp_path, monkeypatch):
    keras_file(tmp_path / "packed.keras", str, zipfile.ZIP_DEFLATED)
    loaded = file_sizes.load_keras(tmp_path / "packed.keras")
    true = keras.models.load_model(tmp_path / "true.keras")
    for one, other in zip(loaded.get_weights(), true.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    monkeypatch.setattr(file_sizes, "SMALL", 20_000)
    monkeypatch.setattr(file_sizes, "MOST_UNPACKED", 1)
    with pytest.raises(ValueError, match=r"packed.keras, of .*, unpacks to"):
        file_sizes.load_keras(tmp_path / "packed.keras")


@pytest.fixture
def version(tmp_path):
    shutil.copytree(MODEL, tmp_path / "1")
    return tmp_path / "1"


def rewrite_graph(version, change):
    file = version / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    change(model.meta_graphs[0])
    file.write_bytes(model.SerializeToString())
    (version / CHECKSUMS).unlink()


def large_constant(graph):
    functions = graph.graph_def.library.function
    node = next(node for one in functions for node in one.node_def if node.op == "Const")
    node.attr["value"].tensor.tensor_shape.dim.add(size=10**10)


def large_variable(graph):
    node = next(one for one in graph.object_graph_def.nodes if one.HasField("variable"))
    node.variable.shape.dim[0].size = 10**10


@pytest.mark.parametrize(
    ("change", "words"),
    [(large_constant, "has constants of"), (large_variable, "has variables of")],
)
def test_a_graph_that_claims_too_much_is_refused(version, change, words):
    rewrite_graph(version, change)
    before = resident_bytes()
    with pytest.raises(ValueError, match=rf"saved_model.pb.* {words} .*(GB|TB)"):
        tfp_vae.load(version)
    assert resident_bytes() - before < MOST_BYTES


@pytest.mark.parametrize(
    "name", ["saved_model.pb", "assets.extra/tfp_vae.json", "variables/variables.index"]
)
def test_what_was_changed_since_the_export_is_named(version, name):
    (version / name).write_bytes((version / name).read_bytes() + b" ")
    with pytest.raises(ValueError, match=f"1/{name} is damaged, or was changed after the export"):
        tfp_vae.load(version)
    (version / CHECKSUMS).write_text("something else")
    with pytest.raises(ValueError, match="is damaged, or was changed"):
        tfp_vae.load(version)


def test_a_version_without_checksums_loads_unless_it_is_broken(version):
    (version / CHECKSUMS).unlink()
    assert tfp_vae.load(version).description == json.loads(
        (version / "assets.extra" / "tfp_vae.json").read_text()
    )
    (version / "saved_model.pb").write_bytes(b"no graph")
    with pytest.raises(ValueError, match=r"saved_model.pb is damaged: .* Export the model again"):
        tfp_vae.load(version)
