"""A model on a server is used as one in a folder, by REST and gRPC, from TensorFlow Serving or its stand-in."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
import tensorflow as tf

import tfp_vae
from tests import c_api
from tests.contract_server import free_port, serve
from tests.served_models import assert_all_close, assert_close
from tests.servers import BASE, BATCHING, KINDS, running

PROTOCOLS = ["rest", "grpc"]


@pytest.fixture(scope="module", params=KINDS)
def server(request):
    with running(request.param) as server:
        yield server


def address(server, protocol: str) -> str:
    url = getattr(server, protocol)
    if url is None:
        pytest.skip(f"needs {protocol}: install tensorflow-serving-api, or set TF_SERVING_GRPC_URL")
    return url


@pytest.fixture(params=PROTOCOLS)
def remote(request, server):
    return tfp_vae.client(address(server, request.param), "digits")


@pytest.fixture(scope="module")
def local():
    return tfp_vae.load(BASE)


@pytest.fixture(scope="module")
def x(digits):
    return np.float32(digits.test[:20])


@pytest.fixture
def stand_in():
    with serve(BASE, "digits") as server:
        yield server


# The same answers


@pytest.mark.rows(2)
def test_methods_answer_as_those_of_a_loaded_model(remote, local, x):
    z = np.random.default_rng(0).normal(size=[20, 16]).astype("float32")
    for ours, theirs, value in (
        (remote.encode(x), local.encode(x), z),
        (remote.decode(z), local.decode(z), x),
    ):
        assert type(ours) is type(theirs)
        assert_close(ours.log_prob(value), theirs.log_prob(value))
    assert_close(remote.decode(np.stack([z, -z])).mean(), local.decode(np.stack([z, -z])).mean())
    assert_close(remote.reconstruct(x), local.reconstruct(x))
    assert_close(remote.generate(7, seed=3), local.generate(7, seed=3))
    assert_all_close(remote.score(x), local.score(x))
    assert_close(remote.log_prob(x), local.log_prob(x))
    joint = remote.joint_distribution()
    assert_close(joint.log_prob(z=z, x=x), local.joint_distribution().log_prob(z=z, x=x))
    assert joint.sample(2, seed=(0, 1))["x"].shape == (2, 8, 8, 1)
    assert remote.description == local.description


def test_floats_cross_exactly(server, x):
    """JSON carries each bit of a float32: what REST gives is what gRPC gives, and what the session gave."""
    requests_ = {
        "encode": {"x": x[:1] / 3 + 1e-30},
        "decode": {"z": np.full([1, 16], 0.1, "float32")},
    }
    with c_api.Session(BASE / "1") as session:
        for signature, inputs in requests_.items():
            expected = session.run(signature, **inputs)
            for protocol in PROTOCOLS:
                answer = tfp_vae.client(address(server, protocol), "digits").call(
                    signature, **inputs
                )
                for name, value in answer.items():
                    np.testing.assert_array_equal(
                        value, expected[name], f"{protocol} {signature} {name}"
                    )


def test_what_is_no_number_crosses_too(server):
    inputs = {"z": np.stack([np.full(16, 3e38, "float32"), np.zeros(16, "float32")])}
    answers = [
        tfp_vae.client(address(server, protocol), "digits").call("decode", **inputs)
        for protocol in PROTOCOLS
    ]
    assert not np.isfinite(answers[0]["logits"][0]).any()
    for name in answers[0]:
        np.testing.assert_array_equal(answers[0][name], answers[1][name])


def test_many_rows_go_in_several_requests(server, local, digits):
    x = np.float32(digits.test[:100])
    for protocol in PROTOCOLS:
        remote = tfp_vae.client(address(server, protocol), "digits", batch_size=30)
        assert_close(remote.encode(x).mean(), local.encode(x).mean())
        assert_close(remote.generate(31), local.generate(31))


def test_a_version_can_be_named(server):
    for protocol in PROTOCOLS:
        assert tfp_vae.client(address(server, protocol), "digits", version=1).event_shape == (
            8,
            8,
            1,
        )
        with pytest.raises(
            ValueError, match=r"Servable not found for request: Specific\(digits, 9\)"
        ):
            tfp_vae.client(address(server, protocol), "digits", version=9)


def test_a_server_that_batches_joins_requests(local, digits):
    """Several clients at once: fewer runs than requests, of allowed sizes, and to each its own answer."""
    sizes = [1, 2, 3, 5, 7, 11, 13, 17] * 3
    parts = np.split(np.float32(digits.train[: sum(sizes)]), np.cumsum(sizes)[:-1])
    with serve(BASE, "digits", batching=BATCHING) as server, ThreadPoolExecutor(8) as pool:
        remote = tfp_vae.client(address(server, "grpc"), "digits")
        answers = list(pool.map(lambda part: remote.encode(part).mean().numpy(), parts))
        sizes_run = server.model.batch_sizes[1:]  # the first one described the model
    for part, answer in zip(parts, answers, strict=True):
        assert_close(answer, local.encode(part).mean())
    assert len(sizes_run) < len(parts)
    assert set(sizes_run) <= set(BATCHING.allowed_batch_sizes)


# The contract by itself, as any client meets it


def post(server, **body):
    return requests.post(f"{server.rest}/v1/models/digits:predict", json=body, timeout=30)


def test_rows_and_columns(server, local, x):
    encoded = {name: np.asarray(value) for name, value in local.call("encode", x=x).items()}
    rows = post(server, instances=x.tolist()).json()["predictions"]
    assert_all_close({name: np.array([row[name] for row in rows]) for name in rows[0]}, encoded)
    named = post(server, instances=[{"x": row} for row in x.tolist()]).json()["predictions"]
    assert_close([row["loc"] for row in named], encoded["loc"])
    columns = post(server, signature_name="encode", inputs={"x": x.tolist()}).json()["outputs"]
    assert_all_close({name: np.array(value) for name, value in columns.items()}, encoded)
    # A single output comes without its name.
    mean = local.reconstruct(x)
    assert_close(
        post(server, signature_name="reconstruct", instances=x.tolist()).json()["predictions"], mean
    )
    assert_close(
        post(server, signature_name="reconstruct", inputs=x.tolist()).json()["outputs"], mean
    )


def test_status_and_metadata(server):
    status = requests.get(f"{server.rest}/v1/models/digits", timeout=30).json()
    assert [(each["version"], each["state"]) for each in status["model_version_status"]] == [
        ("1", "AVAILABLE")
    ]
    metadata = requests.get(f"{server.rest}/v1/models/digits/metadata", timeout=30).json()[
        "metadata"
    ]
    signature = metadata["signature_def"]["signature_def"]["decode"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    sizes = {
        name: [dim["size"] for dim in info["tensor_shape"]["dim"]]
        for name, info in signature["outputs"].items()
    }
    assert sizes == {"logits": ["-1", "8", "8", "1"], "mean": ["-1", "8", "8", "1"]}


ROW = np.zeros([8, 8, 1]).tolist()
REFUSALS = {
    "nothing": ({}, "Missing 'inputs' or 'instances' key"),
    "both": ({"inputs": [], "instances": []}, "expecting only one of"),
    "no rows": ({"instances": []}, "No values in 'instances' array"),
    "no list": ({"instances": 1}, "Excepting 'instances' to be an list/array"),
    "signature": (
        {"signature_name": "nosuch", "instances": [ROW]},
        'signature name: "nosuch" not found',
    ),
    "missing": ({"inputs": {"y": [ROW]}}, "Missing named input: x in 'inputs' object."),
    "another": ({"instances": [{"y": ROW}]}, "does not have named input: y"),
    "no keys": ({"instances": [{}]}, "keys must be equal to: x"),
    "text": ({"instances": ["a"]}, "is not of expected type: float"),
    "null": ({"instances": [None]}, "Type: Null is not of expected type: float"),
    "mixed": ({"instances": [ROW, {"x": ROW}]}, "Expecting value/list but got object at item 1"),
    "ragged": ({"instances": [[[1.0], [1.0, 2.0]]]}, "Encountered list at unexpected size: 2"),
    "shapes": ({"instances": [[1.0], [1.0, 2.0]]}, "Expecting tensor size: 1 but got: 2"),
    "not exact": ({"instances": [2**24 + 1]}, "without loss of precision"),
    "no integer": (
        {"signature_name": "sample", "instances": [[0.5, 1]]},
        "is not of expected type: int32",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_requests_are_refused_in_the_servers_words(server, name):
    body, text = REFUSALS[name]
    response = post(server, **body)
    assert response.status_code == 400
    assert text in response.json()["error"]


def test_other_models_and_paths_are_not_found(server):
    response = requests.post(
        f"{server.rest}/v1/models/nosuch:predict", json={"instances": [ROW]}, timeout=30
    )
    assert response.status_code == 404
    assert response.json() == {"error": "Servable not found for request: Latest(nosuch)"}
    response = requests.get(f"{server.rest}/v1/nosuch", timeout=30)
    assert (response.status_code, response.json()) == (
        400,
        {"error": "Malformed request: GET /v1/nosuch"},
    )


GRPC_REFUSALS = {
    "missing": ({}, "Missing but required: {x}"),
    "extra": (
        {"x": np.zeros([1, 8, 8, 1], "float32"), "y": np.zeros(1, "float32")},
        "Sent extra: {y}",
    ),
    "another": ({"y": np.zeros([1, 8, 8, 1], "float32")}, "Signature input alias: x"),
    "dtype": ({"x": np.zeros([1, 8, 8, 1])}, "to be float but double is provided"),
}


@pytest.mark.parametrize("name", GRPC_REFUSALS)
def test_grpc_requests_are_refused_in_the_servers_words(server, name):
    grpc, apis = pytest.importorskip("grpc"), pytest.importorskip("tensorflow_serving.apis")
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    assert apis
    inputs, text = GRPC_REFUSALS[name]
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "digits", "encode"
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    with grpc.insecure_channel(address(server, "grpc").removeprefix("grpc://")) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as error:
            stub.Predict(request, timeout=30)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert text in error.value.details()


# Faults


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_unavailable_server_is_asked_again(stand_in, x, protocol):
    remote = tfp_vae.client(address(stand_in, protocol), "digits", retries=2)
    stand_in.unavailable, before = 2, stand_in.num_requests
    assert remote.log_prob(x).shape == (20,)
    assert stand_in.num_requests == before + 3
    stand_in.unavailable = 3
    with pytest.raises(
        ConnectionError, match=r"signature log_prob: The batch scheduling queue .* is full"
    ):
        remote.log_prob(x)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.rows(1)
def test_a_server_that_still_starts_is_waited_for(protocol):
    if protocol == "grpc":
        pytest.importorskip("tensorflow_serving")
    ports = (free_port(), free_port())
    with pytest.raises(ConnectionError, match=f"{ports[0]}.*describe"):
        tfp_vae.client(f"http://127.0.0.1:{ports[0]}", "digits", retries=0)
    found = []
    url = f"http://127.0.0.1:{ports[0]}" if protocol == "rest" else f"grpc://127.0.0.1:{ports[1]}"
    waiting = threading.Thread(target=lambda: found.append(tfp_vae.client(url, "digits")))
    waiting.start()
    time.sleep(0.5)
    with serve(BASE, "digits", ports=ports):
        waiting.join(timeout=30)
        assert found[0].event_shape == (8, 8, 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_hangs_is_given_up(stand_in, x, protocol):
    remote = tfp_vae.client(address(stand_in, protocol), "digits", timeout=1.0)
    stand_in.delay, before = 2.0, stand_in.num_requests
    with pytest.raises(TimeoutError, match="signature encode"):
        remote.encode(x)
    assert stand_in.num_requests == before + 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_refusals_come_through(protocol, digits):
    with serve(BASE, "digits", batching=BATCHING) as server:
        remote = tfp_vae.client(address(server, protocol), "digits", batch_size=200)
        with pytest.raises(
            ValueError, match="Task size 180 is larger than maximum input batch size 128"
        ):
            remote.encode(digits.test)
        with pytest.raises(ValueError, match=r"Servable not found for request: Latest\(nosuch\)"):
            tfp_vae.client(address(server, protocol), "nosuch")


def test_what_is_no_model_server_is_told(stand_in):
    with pytest.raises(ValueError, match=r"400 Bad Request|Malformed request"):
        tfp_vae.client(f"{stand_in.rest}/elsewhere", "digits", retries=0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_of_another_kind_is_told(tmp_path, protocol):
    module = tf.Module()
    spec = tf.TensorSpec([None], tf.float32, "x")
    function = tf.function(lambda x: {"y": x}, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "1"), signatures=function)
    with (
        serve(tmp_path, "other") as server,
        pytest.raises(ValueError, match=r'"describe".* not found'),
    ):
        tfp_vae.client(address(server, protocol), "other")


@pytest.mark.parametrize("url", ["localhost:8501", "ftp://host", "http://", ""])
def test_other_urls_are_refused(url):
    with pytest.raises(ValueError, match=r"url must be http://host:port.*received"):
        tfp_vae.client(url, "digits")


def test_arguments_are_checked():
    with pytest.raises(
        ValueError, match="batch_size must be a whole number of at least 1, received 0"
    ):
        tfp_vae.client("http://127.0.0.1:1", "digits", batch_size=0)
    with pytest.raises(
        ValueError, match="retries must be a whole number of at least 0, received -1"
    ):
        tfp_vae.client("http://127.0.0.1:1", "digits", retries=-1)


def test_a_graph_asks_the_server_in_each_run(stand_in, local, x):
    remote = tfp_vae.client(stand_in.rest, "digits")
    traced = tf.function(
        lambda x: remote.encode(x).mean(), input_signature=[tf.TensorSpec([None, 8, 8, 1])]
    )
    before = stand_in.num_requests
    for rows in (x[:3], x):
        assert_close(traced(rows), local.encode(rows).mean())
    assert stand_in.num_requests == before + 2
    assert traced.get_concrete_function().output_shapes.as_list() == [None, 16]


FAULTS = {
    "shape": (
        np.zeros([2, 8, 8, 3]),
        r"encode takes x of shape \[None, 8, 8, 1\], received \(2, 8, 8, 3\)",
    ),
    "part of one": (np.zeros([8, 1]), r"encode takes x of shape .*received \(8, 1\)"),
    "empty": (
        np.zeros([0, 8, 8, 1]),
        r"encode takes x .*with at least one row, received \(0, 8, 8, 1\)",
    ),
    "text": (np.full([1, 8, 8, 1], "a"), r"encode takes x .*dtype float32, received dtype string"),
    "complex": (
        np.zeros([1, 8, 8, 1], complex),
        r"encode takes x .*dtype float32, received dtype complex128",
    ),
    "ragged": ([[1.0], [1.0, 2.0]], r"encode takes x .*received what is no array"),
    "nothing": (None, r"encode takes x .*received what is no array"),
    "NaN": (
        np.full([3, 8, 8, 1], [[[[0.0]]], [[[np.nan]]], [[[1.0]]]]),
        r"encode takes x .*finite.* row 1 .*: nan",
    ),
    "too large": (
        np.full([1, 8, 8, 1], 1e39),
        r"encode takes x .*finite in float32.* row 0 .*: inf",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faulty_inputs_are_named(stand_in, local, name):
    value, match = FAULTS[name]
    before = stand_in.num_requests
    for vae in (local, tfp_vae.client(stand_in.rest, "digits")):
        with pytest.raises(ValueError, match=match):
            vae.encode(value)
    assert stand_in.num_requests == before + 1, "the faulty input was sent"


def test_missing_and_extra_inputs_are_named(local, x):
    for inputs, received in (({}, "nothing"), ({"z": x}, "z"), ({"x": x, "z": x}, "x, z")):
        with pytest.raises(ValueError, match=f"encode takes x; received {received}"):
            local.call("encode", **inputs)
    with pytest.raises(
        ValueError, match=r"sample takes seed .*dtype int32, received dtype float32"
    ):
        local.call("sample", seed=np.zeros([1, 2], "float32"))
