"""A version that would not serve as the live model does is not published, and what differs is said."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow.core.protobuf import meta_graph_pb2

import tfp_vae
from tests.c_api import meta_graph
from tests.test_export import small_vae
from tfp_vae import layers as tfpl
from tfp_vae.serving import verify as verifying
from tfp_vae.serving.verify import check_graph, verify
from tfp_vae.serving.warm_up import WARM_UP, warm_up_requests, write_warm_up

X = tf.TensorSpec([None, 3], tf.float32, "x")
ROWS = {"x": tf.constant(np.random.default_rng(0).normal(size=[128, 3]).astype("float32"))}


def nan_for_bad_rows(function):
    def masked(x):
        bad = tf.reduce_any(~tf.math.is_finite(x), 1, keepdims=True)
        return function(tf.where(bad, np.nan, x))

    return masked


def verify_function(tmp_path, served, live=None, requests=ROWS):
    """Save one function, and verify it as if another one were the live model's."""
    folder = tmp_path / "1"
    served = tf.function(nan_for_bad_rows(served), input_signature=[X])
    live = tf.function(nan_for_bad_rows(live), input_signature=[X]) if live else served
    tf.saved_model.save(tf.Module(), str(folder), signatures={"f": served})
    (folder / WARM_UP).parent.mkdir()
    write_warm_up(folder, "model", {"f": requests})
    verify(folder, {"f": live}, requests)


def refused(tmp_path, served, match, **kwargs):
    with pytest.raises(ValueError, match=match):
        verify_function(tmp_path, served, **kwargs)


def test_what_serves_well_passes(tmp_path):
    verify_function(tmp_path, lambda x: {"y": tf.nn.softmax(x), "sum": tf.reduce_sum(x, 1)})


def test_a_bad_row_that_gets_a_number_is_named(tmp_path):
    def zero_for_nan(x):
        return {"y": tf.where(tf.math.is_nan(x), 0.0, x)}

    refused(tmp_path, zero_for_nan, "Signature f, output y: .* without a bad row of x by inf")


def test_another_answer_is_named_and_measured(tmp_path):
    refused(
        tmp_path,
        lambda x: {"same": x, "y": x + 0.5},
        r"Signature f, output y: .*the live model's at batch size 1 by 0.5, 1e-05 is allowed",
        live=lambda x: {"same": x, "y": x},
    )


def test_a_small_difference_is_rounding(tmp_path):
    verify_function(tmp_path, lambda x: {"y": 1000 * x}, live=lambda x: {"y": 1000 * x + 1e-4})
    verify_function(
        tmp_path / "more", lambda x: {"y": 0 * x + np.nan}, live=lambda x: {"y": 0 * x + np.nan}
    )


def test_a_number_that_is_none_is_infinitely_far(tmp_path):
    refused(tmp_path, lambda x: {"y": x / 0}, "output y: .* by inf", live=lambda x: {"y": x})


def test_other_outputs_and_shapes_are_named(tmp_path):
    refused(
        tmp_path,
        lambda x: {"y": x},
        r"f gives \['y'\], the live model \['z'\]",
        live=lambda x: {"z": x},
    )
    refused(
        tmp_path / "shape",
        lambda x: {"y": x},
        r"output y: shape \(1, 3\) differs .* \(1, 2\)",
        live=lambda x: {"y": x[:, :2]},
    )


def test_tracing_that_freezes_a_value_is_found(tmp_path):
    """What Python computes anew in each call, the graph keeps from its first."""
    calls = []

    def count(x):
        calls.append(x)
        return {"y": x + float(len(calls))}

    refused(tmp_path, count, "output y: .* the live model's")


def test_rows_that_depend_on_each_other_are_found(tmp_path):
    refused(
        tmp_path,
        lambda x: {"y": x - tf.reduce_mean(x, 0)},
        "output y: .* that of all rows at once by [0-9.]+",
    )
    refused(  # too little to differ by more than rounding, but not the same bits
        tmp_path / "tiny",
        lambda x: {"y": x + 1e-6 * tf.roll(x, -1, 0)},
        "output y: .* its first among other rows",
    )


def test_draws_that_do_not_repeat_are_found(tmp_path):
    refused(
        tmp_path,
        lambda x: {"y": x + tf.random.normal(tf.shape(x))},
        "RandomStandardNormal .* hidden state",
    )


def test_a_fixed_batch_is_found(tmp_path):
    refused(
        tmp_path,
        lambda x: {"y": x, "total": tf.reduce_sum(x)},
        r"Signature f: total has shape \[\]",
    )
    refused(
        tmp_path / "one",
        lambda x: {"y": tf.reduce_sum(x, 0, keepdims=True)},
        r"Signature f: y has shape \[1, 3\]",
    )


def test_operations_of_python_and_xla_are_found(tmp_path):
    refused(
        tmp_path,
        lambda x: {"y": tf.ensure_shape(tf.py_function(lambda x: x, [x], tf.float32), [None, 3])},
        "PyFunc",
    )
    refused(
        tmp_path / "numpy",
        lambda x: {
            "y": tf.ensure_shape(tf.numpy_function(lambda x: x, [x], tf.float32), [None, 3])
        },
        "PyFunc",
    )
    compiled = tf.function(lambda x: tf.tanh(x), jit_compile=True)
    refused(tmp_path / "xla", lambda x: {"y": compiled(x)}, "compiled by XLA")


def test_an_unknown_operation_is_found():
    graph = meta_graph_pb2.MetaGraphDef()
    graph.graph_def.library.function.add().node_def.add(name="mine", op="MyOwnOperation")
    with pytest.raises(ValueError, match=r"MyOwnOperation \(mine\), which a server cannot run"):
        check_graph(graph)


def test_a_value_of_another_library_is_found(tmp_path):
    module = tf.Module()
    module.f = tf.function(lambda: tfp.distributions.Normal(0.0, 1.0), input_signature=[])
    with pytest.warns(UserWarning, match="StructuredValue"):
        tf.saved_model.save(module, str(tmp_path / "1"))
    with pytest.raises(ValueError, match="no plain tensor"):
        check_graph(meta_graph(tmp_path / "1"))


def test_a_warm_up_request_that_fails_is_found(tmp_path):
    requests = {"x": tf.zeros([128, 2])}
    weights = tf.ones([3, 2])
    refused(
        tmp_path,
        lambda x: {"y": x @ weights},
        "Warm-up request 0, to signature f, fails",
        requests=requests,
    )


@pytest.mark.verified
@pytest.mark.slow
def test_coarser_numbers_may_differ_more(tmp_path, monkeypatch):
    keras.config.set_dtype_policy("mixed_float16")
    vae = small_vae()
    keras.config.set_dtype_policy("float32")
    seen = []
    check = verifying._check_answers
    monkeypatch.setattr(
        verifying,
        "_check_answers",
        lambda *arguments: seen.append(arguments[-1]) or check(*arguments),
    )
    assert vae.export(tmp_path / "half").name == "1"
    assert seen[0] == pytest.approx(1e-5 * 2**13)


class Forgetful(tfpl.IndependentNormal):
    """Adds in the graph what it does not add in Python: a layer with such a bug must not reach a server."""

    def call(self, params):
        return super().call(params if tf.executing_eagerly() else params + 1.0)


@pytest.mark.verified
def test_a_version_that_differs_is_not_published(tmp_path):
    vae = small_vae(likelihood=Forgetful(3))
    with pytest.raises(
        ValueError, match=r"No version was published.*Signature decode, output loc: .*Python by 1"
    ):
        vae.export(tmp_path / "vae")
    assert os.listdir(tmp_path) == ["vae"]
    assert os.listdir(tmp_path / "vae") == []


@pytest.mark.slow
def test_warm_up_requests_are_what_tensorflow_serving_reads(tmp_path):
    """Read by the messages of tensorflow-serving-api, which this package does without."""
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    version = small_vae().export(tmp_path / "vae")
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(version / WARM_UP))
    ]
    served, found = tf.saved_model.load(str(version)).signatures, []
    assert len(logs) <= 1000
    for log, (signature, inputs) in zip(logs, warm_up_requests(version), strict=True):
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert (request.model_spec.name, request.model_spec.signature_name) == ("vae", signature)
        arrays = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        assert set(arrays) == set(inputs)
        for name, value in arrays.items():
            np.testing.assert_array_equal(value, inputs[name])
        assert all(
            np.isfinite(np.asarray(value)).all()
            for value in served[signature](**inputs).values()
            if value.dtype == tf.float32
        )
        found.append((signature, len(next(iter(arrays.values())))))
    assert set(found) == {(signature, size) for signature in served for size in (1, 32)}


def test_warm_up_leaves_large_batches_out(tmp_path):
    (tmp_path / WARM_UP).parent.mkdir()
    write_warm_up(tmp_path, "model", {"f": {"x": tf.zeros([32, 512, 512])}})
    assert [inputs["x"].shape[0] for _, inputs in warm_up_requests(tmp_path)] == [1]


def test_a_loaded_version_needs_no_export(tmp_path):
    version = small_vae().export(tmp_path / "vae")
    assert tfp_vae.load(version).description["signatures"]["encode"]["inputs"] == {
        "x": {"dtype": "float32", "shape": [None, 3]}
    }
