"""Encoder and decoder in ONNX Runtime and OpenVINO answer as the SavedModel does."""

import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_vae
from tests.conftest import mostly_slow
from tests.served_models import assert_close
from tests.servers import BASE
from tests.test_export import small_vae
from tfp_vae import layers as tfpl
from tfp_vae import networks
from tfp_vae.serving import targets as converting
from tfp_vae.serving.targets import (
    LOADERS,
    PACKAGES,
    SIGNATURES,
    SUFFIXES,
    check_targets,
    write_targets,
)

PARTS = {
    "TriL and normal": (tfpl.MultivariateNormalTriL(2), tfpl.IndependentNormal(3), (5, 6)),
    "diagonal and Bernoulli": (
        tfpl.MultivariateNormalDiag(2),
        tfpl.IndependentBernoulli(3),
        (4, 3),
    ),
}


def need(target: str) -> None:
    for package in PACKAGES[target]:
        pytest.importorskip(package, reason=f"needs the extra {target}")


@pytest.fixture(scope="module")
def requests(digits):
    z = np.random.default_rng(0).normal(size=[20, 16]).astype("float32")
    return {"x": tf.constant(np.float32(digits.test[:20])), "z": tf.constant(z)}


@pytest.fixture(params=mostly_slow(LOADERS, "onnx"))
def target(request):
    need(request.param)
    return request.param


@pytest.fixture
def version(tmp_path):
    return shutil.copytree(BASE / "1", tmp_path / "1")


def test_each_target_answers_as_the_saved_model(target, version, requests):
    write_targets(version, [target], requests)
    model = tf.saved_model.load(str(version))
    for signature in SIGNATURES:
        run = LOADERS[target]((version / "assets.extra" / signature).with_suffix(SUFFIXES[target]))
        name = "z" if signature == "decode" else "x"
        for rows in (requests[name][:1], requests[name]):
            answer, expected = (
                run({name: rows.numpy()}),
                model.signatures[signature](**{name: rows}),
            )
            assert set(answer) == set(expected)
            for key, value in expected.items():
                assert answer[key].dtype == np.float32
                assert_close(answer[key], value, 1e-4)


@pytest.mark.slow
@pytest.mark.full
def test_openvino_reads_the_saved_model_itself(requests):
    need("openvino")
    import openvino

    model = openvino.compile_model(
        openvino.convert_model(str(BASE / "1")), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    answer = model({"x": requests["x"].numpy()})
    expected = tf.saved_model.load(str(BASE / "1")).signatures["serving_default"](x=requests["x"])
    for output in model.outputs:
        (name,) = output.names
        assert_close(answer[output], expected[name], 1e-4)


@pytest.mark.parametrize("name", mostly_slow(PARTS, "TriL and normal"))
@pytest.mark.slow
@pytest.mark.full
def test_other_distributions_are_exported_too(tmp_path, target, name):
    vae = small_vae(*PARTS[name])
    if (target, name) == ("openvino", "TriL and normal"):  # it has no diagonals of matrices
        with pytest.raises(
            ValueError, match=r"encode cannot be written for openvino: [\s\S]*MatrixDiag"
        ):
            vae.export(tmp_path / "vae", targets=(target,))
        return
    folder = vae.export(tmp_path / "vae", targets=(target,)) / "assets.extra"
    encode, reconstruct = (
        LOADERS[target](folder / f"{name}{SUFFIXES[target]}") for name in ("encode", "reconstruct")
    )
    x = np.float32(np.random.default_rng(0).integers(0, 2, [5, 3]))
    assert_close(encode({"x": x})["mean"], vae.encode(x).mean(), 1e-4)
    assert_close(reconstruct({"x": x})["mean"], vae.reconstruct(x), 1e-4)


@pytest.mark.slow
@pytest.mark.rows(0, 1)
def test_a_conditional_model_is_exported_too(tmp_path, target):
    inputs, ends = {"condition": networks.one_hot(4)}, PARTS["diagonal and Bernoulli"]
    encoder = networks.from_inputs({"x": (3,), **inputs}, [keras.layers.Dense(4), ends[0]])
    decoder = networks.from_inputs({"z": (2,), **inputs}, [keras.layers.Dense(3), ends[1]])
    vae = tfp_vae.VAE(encoder, decoder)
    path = (
        vae.export(tmp_path / "vae", targets=(target,))
        / "assets.extra"
        / f"decode{SUFFIXES[target]}"
    )
    z, labels = np.ones([4, 2], "float32"), np.arange(4, dtype="int32")
    assert_close(
        LOADERS[target](path)({"z": z, "condition": labels})["mean"],
        vae.decode(z, labels).mean(),
        1e-4,
    )


@pytest.mark.slow
@pytest.mark.rows(0, 1)
def test_missing_values_and_parts_of_any_name_are_exported_too(tmp_path, target):
    x = {"Age": np.float32([[1.0], [np.nan]]), "job": np.float32([[np.nan, 1.0], [0.0, 1.0]])}
    inputs = {name: networks.observed(part, name) for name, part in x.items()}
    encoder = networks.from_inputs(inputs, [keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2)])
    parts = {
        "Age": keras.Sequential([keras.layers.Dense(2), tfpl.IndependentNormal(1)]),
        "job": keras.Sequential([keras.layers.Dense(2), tfpl.IndependentBernoulli(2)]),
    }
    decoder = keras.Sequential(
        [keras.Input((2,), name="z"), keras.layers.Dense(8), tfpl.Joint(parts)]
    )
    vae = tfp_vae.VAE(encoder, decoder, missing=True)
    vae.compile("adam", run_eagerly=True)
    vae.fit(x, verbose=0)
    path = (
        vae.export(tmp_path / "vae", targets=(target,))
        / "assets.extra"
        / f"encode{SUFFIXES[target]}"
    )
    assert_close(LOADERS[target](path)(x)["mean"], vae.encode(x).mean(), 1e-4)


@pytest.mark.slow
def test_a_conversion_that_differs_is_not_published(tmp_path, monkeypatch):
    need("onnx")
    monkeypatch.setitem(converting.LOADERS, "onnx", lambda path: lambda inputs: {})
    with pytest.raises(ValueError, match=r"onnx, signature encode: output \w+ .*is missing"):
        small_vae().export(tmp_path / "vae", targets=("onnx",))
    assert os.listdir(tmp_path / "vae") == []


def test_a_wrong_answer_is_measured(target, version, requests, monkeypatch):
    def shifted(path):
        run = load(path)
        return lambda inputs: {name: value + 1 for name, value in run(inputs).items()}

    load = LOADERS[target]
    monkeypatch.setitem(converting.LOADERS, target, shifted)
    with pytest.raises(
        ValueError, match=rf"{target}, signature encode, output \w+: .* by 1.* is allowed"
    ):
        write_targets(version, [target], requests)


def test_unknown_and_missing_targets_are_told(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="target must be one of onnx, openvino; received 'tflite'"):
        small_vae().export(tmp_path / "vae", targets=("tflite",))
    monkeypatch.setitem(PACKAGES, "onnx", ("no_such_package",))
    with pytest.raises(
        ImportError, match=r"target onnx needs no_such_package: pip install 'tfp_vae\[onnx\]'"
    ):
        check_targets(["onnx"])
    assert os.listdir(tmp_path) == []
