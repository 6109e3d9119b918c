"""A server that is broken or hostile: what it says is refused in one error that names it, in time."""

import contextlib
import gc
import http.server
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow.core.framework import tensor_pb2

import tfp_vae
from tests.conftest import mostly_slow
from tests.servers import BASE
from tfp_vae import layers as tfpl
from tfp_vae.serving.messages import messages
from tfp_vae.serving.plain_tensors import describe, expect_parameters

X = np.zeros([2, 8, 8, 1], "float32")
DESCRIPTION = (BASE / "1" / "assets.extra" / "tfp_vae.json").read_text()
GOOD = {
    "loc": np.zeros([2, 16]), "scale_diag": np.ones([2, 16]),
    "mean": np.zeros([2, 16]), "stddev": np.ones([2, 16]),
}  # fmt: skip


@contextlib.contextmanager
def rest_server(answer, description=DESCRIPTION, context=None, seen=None):
    """A server that describes the tracked model, and then says what `answer(handler)` does."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            if seen is not None:
                seen.append((self.path, dict(self.headers)))
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                if asked["signature_name"] == "describe":
                    text = description() if callable(description) else description
                    reply(self, {"outputs": [text]})
                else:
                    answer(self)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    try:
        yield f"http{'s' if context else ''}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def reply(handler, body, status=200, **headers):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def outputs(**changed):
    values = {name: np.asarray(value).tolist() for name, value in GOOD.items()} | changed
    return {"outputs": {name: value for name, value in values.items() if value is not None}}


def dripping(handler):
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.3)


def cutting(handler):
    reply(handler, b"{", Content_Length="1000")
    handler.connection.shutdown(socket.SHUT_RDWR)


def flooding(handler):
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * 2**20)


def answering(body, **kwargs):
    return lambda handler: reply(handler, body, **kwargs)


TWICE = json.dumps(outputs())[:-2].encode() + b', "loc": [[1.0]]}}'
NEGATIVE = np.where(np.arange(32).reshape(2, 16) == 3, -1.0, 1.0).tolist()
NAN = np.where(np.arange(32).reshape(2, 16) == 3, np.nan, 1.0).tolist()
HOSTILE = {
    "fewer rows": (answering(outputs(loc=np.zeros([1, 16]).tolist())), RuntimeError, "shape"),
    "one for all": (answering(outputs(loc=[0.0] * 16)), RuntimeError, "shape"),
    "more columns": (answering(outputs(loc=np.zeros([2, 17]).tolist())), RuntimeError, "shape"),
    "ragged": (answering(outputs(loc=[[0.0], [0.0, 1.0]])), RuntimeError, "ragged"),
    "texts": (answering(outputs(loc=[["0"] * 16] * 2)), RuntimeError, "no number"),
    "null": (answering(outputs(loc=[[None] * 16] * 2)), RuntimeError, "no number"),
    "missing": (answering(outputs(loc=None)), RuntimeError, "expected the outputs"),
    "another": (answering(outputs(more=[[1.0]])), RuntimeError, "expected the outputs"),
    "NaN": (answering(outputs(loc=NAN)), ValueError, "no answer for row 0"),
    "negative scale": (answering(outputs(scale_diag=NEGATIVE)), RuntimeError, "scale_diag has values"),
    "twice": (answering(TWICE), RuntimeError, "twice"),
    "no JSON": (answering(b"<html>"), RuntimeError, "no JSON"),
    "empty": (answering(b""), RuntimeError, "no JSON"),
    "no outputs": (answering({"predictions": []}), RuntimeError, "no 'outputs'"),
    "a list": (answering([1]), RuntimeError, "no 'outputs'"),
    "unnamed": (answering({"outputs": [1.0]}), RuntimeError, "name its outputs"),
    "deep": (answering(b"[" * 100_000), RuntimeError, "no JSON"),
    "bytes": (answering(b"\xff\xfe\x00"), RuntimeError, "no JSON"),
    "compressed": (answering(b"\x1f\x8b", Content_Encoding="gzip"), RuntimeError, "compressed"),
    "elsewhere": (answering(b"", status=307, Location="http://127.0.0.1:9/"), RuntimeError, "redirects"),
    "an error page": (answering(b"<html>", status=500), RuntimeError, "500"),
    "dripping": (dripping, TimeoutError, "no answer within"),
    "flooding": (flooding, RuntimeError, "larger than"),
    "cut off": (cutting, ConnectionError, "encode"),
    "half": (answering(b"{", Content_Length="100"), (RuntimeError, ConnectionError, TimeoutError), "encode"),
}  # fmt: skip


# Answers that the client does not read to their end.
GIVEN_UP = ("dripping", "flooding", "cut off", "half")
FAST = ("fewer rows", "NaN", "negative scale", "twice", "elsewhere", "dripping", "cut off")


@pytest.mark.parametrize("name", mostly_slow(HOSTILE, *FAST))
@pytest.mark.rows(7, 9)
def test_an_answer_is_refused(name):
    answer, kind, words = HOSTILE[name]
    with rest_server(answer) as url:
        remote = tfp_vae.client(url, "digits", timeout=2.0, retries=0)
        start = time.monotonic()
        with pytest.raises(kind, match=words) as error:
            remote.encode(X)
        assert time.monotonic() - start < 10.0
    if name in GIVEN_UP:
        gc.collect()  # its socket is closed with it
    if kind is not ValueError:
        assert url in str(error.value)
        assert "encode" in str(error.value)


def described(**changed):
    return json.dumps({**json.loads(DESCRIPTION), **changed})


def with_likelihood(**changed):
    likelihood = json.loads(DESCRIPTION)["likelihood"]
    return described(likelihood={**likelihood, **changed})


DESCRIPTIONS = {
    "no JSON": "garbage",
    "a list": "[]",
    "no format": "{}",
    "a function": with_likelihood(**{"class": "quadrature_scheme_lognormal_quantiles"}),
    "any class": with_likelihood(**{"class": "JointDistributionCoroutine"}),
    "no class": with_likelihood(**{"class": "__class__"}),
    "of functions": with_likelihood(**{"class": "TransformedDistribution"}),
    "unknown constants": with_likelihood(constants={"evil": 1}),
    "no number": with_likelihood(constants={"reinterpreted_batch_ndims": "os.system"}),
    "no signatures": described(signatures={"encode": 3}),
    "no dtype": described(signatures={"encode": {"inputs": {"x": {"dtype": "evil", "shape": []}}, "outputs": {}}}),
    "no shape": described(event_shape="abc"),
}  # fmt: skip


@pytest.mark.parametrize("name", mostly_slow(DESCRIPTIONS, "no JSON", "any class"))
def test_a_description_is_data(name):
    with (
        rest_server(None, DESCRIPTIONS[name]) as url,
        pytest.raises(RuntimeError, match="describe") as error,
    ):
        tfp_vae.client(url, "digits", retries=0)
    assert url in str(error.value)


def test_a_constant_does_not_stand_for_an_output():
    description = json.loads(DESCRIPTION)
    description["posterior"]["constants"]["loc"] = [[7.0] * 16]
    with rest_server(answering(outputs()), json.dumps(description)) as url:
        remote = tfp_vae.client(url, "digits")
        with pytest.raises(
            RuntimeError, match="loc is a constant of the description and an output"
        ):
            remote.encode(X)


# gRPC


def tensor(value):
    return tf.make_tensor_proto(np.asarray(value)).SerializeToString()


def response(**values):
    answer = messages().PredictResponse()
    for name, value in values.items():
        answer.outputs.add(key=name, value=value if isinstance(value, bytes) else tensor(value))
    return answer


def good(**changed):
    values = {name: value.astype("float32") for name, value in GOOD.items()}
    return response(**{**values, **changed})


@contextlib.contextmanager
def grpc_server(answer, credentials=None, seen=None):
    def predict(request, context):
        if seen is not None:
            seen.append(dict(context.invocation_metadata()))
        if request.model_spec.signature_name == "describe":
            return response(
                description=np.array([DESCRIPTION.encode()], object)
            ).SerializeToString()
        made = answer()
        return made if isinstance(made, bytes) else made.SerializeToString()

    handler = grpc.unary_unary_rpc_method_handler(
        predict, request_deserializer=messages().PredictRequest.FromString
    )
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(
                "tensorflow.serving.PredictionService", {"Predict": handler}
            )
        ]
    )
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"grpc{'s' if credentials else ''}://127.0.0.1:{port}"
    finally:
        server.stop(None)


def claim():
    """A tensor of a kilobyte that says it is one of gigabytes."""
    proto = tensor_pb2.TensorProto(dtype=1, float_val=[0.0])
    for size in (12_000_000, 16):
        proto.tensor_shape.dim.add(size=size)
    return good(loc=proto.SerializeToString())


def broadcast():
    shape = tf.TensorShape([2, 16]).as_proto()
    one = tensor_pb2.TensorProto(dtype=1, float_val=[0.0], tensor_shape=shape)
    return good(loc=one.SerializeToString())


def twice():
    answer = good()
    answer.outputs.add(key="loc", value=tensor(np.ones([2, 16], "float32")))
    return answer


GRPC_HOSTILE = {
    "claims gigabytes": (claim, RuntimeError, "claims 192,000,000 values"),
    "broadcast": (broadcast, RuntimeError, "claims 32 values"),
    "float64": (lambda: good(loc=np.zeros([2, 16])), RuntimeError, "DT_DOUBLE"),
    "fewer rows": (lambda: good(loc=np.zeros([1, 16], "float32")), RuntimeError, "shape"),
    "twice": (twice, RuntimeError, "twice"),
    "garbage": (lambda: b"\xff\xff\xff", RuntimeError, "no PredictResponse"),
    "garbage inside": (lambda: good(loc=b"\xff\xff\xff"), RuntimeError, "no PredictResponse"),
    "empty": (lambda: b"", RuntimeError, "expected the outputs"),
    "too large": (lambda: good(loc=np.zeros([2, 2**20], "float32")), RuntimeError, "encode"),
    "NaN": (lambda: good(loc=np.float32(NAN)), ValueError, "no answer for row 0"),
    "negative scale": (lambda: good(scale_diag=np.float32(NEGATIVE)), RuntimeError, "scale_diag has values"),
}  # fmt: skip


@pytest.mark.parametrize("name", mostly_slow(GRPC_HOSTILE, "claims gigabytes", "twice", "garbage"))
def test_an_answer_by_grpc_is_refused(name):
    answer, kind, words = GRPC_HOSTILE[name]
    with grpc_server(answer) as url:
        remote = tfp_vae.client(url, "digits", retries=0)
        with pytest.raises(kind, match=words) as error:
            remote.encode(X)
    if kind is not ValueError:
        assert url in str(error.value)


@pytest.mark.parametrize(
    "distribution",
    [
        tfpl.PowerSpherical.new(tf.constant([[0.3, 0.1, 2.0]]), 2),
        tfp.distributions.MultivariateNormalDiag(tf.zeros([1, 2]), tf.fill([1, 2], 1e-8)),
        tfp.distributions.Independent(tfp.distributions.Bernoulli(probs=[[0.0, 1.0]]), 1),
        tfpl.MultivariateNormalTriL.new(tf.ones([1, 5]), 2),
    ],
)
def test_possible_parameters_are_taken(distribution):
    expect_parameters(*describe(distribution))


def test_good_answers_are_taken():
    with rest_server(answering(outputs())) as url:
        assert tfp_vae.client(url, "digits").encode(X).batch_shape == [2]
    with grpc_server(good) as url:
        assert tfp_vae.client(url, "digits").encode(X).batch_shape == [2]


# Who asks, and whom


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A certificate of 127.0.0.1 that is its own authority, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("certificates")
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=127.0.0.1 "
        "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out certificate.pem"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return str(folder / "certificate.pem"), str(folder / "key.pem")


TOKEN = {"Authorization": "Bearer secret"}


@pytest.mark.parametrize("mutual", [False, True])
def test_rest_by_tls(certificates, mutual):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates)
    if mutual:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates[0])
    own = {"credentials": certificates} if mutual else {}
    seen = []
    with rest_server(answering(outputs()), context=context, seen=seen) as url:
        remote = tfp_vae.client(url, "a 'b'/c", ca=certificates[0], headers=TOKEN, **own)
        assert remote.encode(X).batch_shape == [2]
        path, headers = seen[-1]
        assert path == "/v1/models/a%20%27b%27%2Fc:predict"
        assert headers["Authorization"] == "Bearer secret"
        with pytest.raises((RuntimeError, ConnectionError), match=r"describe: .*"):
            tfp_vae.client(url, "digits", retries=0)
        if mutual:
            with pytest.raises((RuntimeError, ConnectionError), match="describe"):
                tfp_vae.client(url, "digits", ca=certificates[0], retries=0)


@pytest.mark.parametrize("mutual", [False, True])
def test_grpc_by_tls(certificates, mutual):
    certificate, key = [Path(file).read_bytes() for file in certificates]
    credentials = grpc.ssl_server_credentials(
        [(key, certificate)], certificate if mutual else None, mutual
    )
    own = {"credentials": certificates} if mutual else {}
    seen = []
    with grpc_server(good, credentials, seen) as url:
        remote = tfp_vae.client(url, "digits", ca=certificates[0], headers=TOKEN, **own)
        assert remote.encode(X).batch_shape == [2]
        assert seen[-1]["authorization"] == "Bearer secret"
        with pytest.raises((ConnectionError, TimeoutError, RuntimeError), match="describe"):
            tfp_vae.client(url, "digits", retries=0, timeout=2.0)
