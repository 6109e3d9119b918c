"""A stand-in for TensorFlow Serving on a loopback port, to test clients against: its contract, around its own session.

with serve(base, "digits") as server:
    requests.post(f"{server.rest}/v1/models/digits:predict", json={"instances": [...]})

The session is TensorFlow's in C++ (`tests.c_api`). What lies around it follows the sources of TensorFlow Serving, named
below: which requests are taken, how they become tensors, how answers are written, the words of each refusal.
"""

import contextlib
import dataclasses
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from google.protobuf import json_format

from tests import c_api, contract_json
from tests.contract_json import Refusal

# absl::StatusCode by number, and tensorflow_serving/model_servers/http_server.cc, ToHTTPStatusCode.
CODES = {
    3: "INVALID_ARGUMENT",
    5: "NOT_FOUND",
    9: "FAILED_PRECONDITION",
    12: "UNIMPLEMENTED",
    13: "INTERNAL",
}
HTTP = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "NOT_FOUND": 404,
    "DEADLINE_EXCEEDED": 504,
}
HTTP |= {"UNAVAILABLE": 503, "INTERNAL": 500, "UNIMPLEMENTED": 501}
# tensorflow_serving/model_servers/http_rest_api_util.cc.
VERSION = r"(?:/versions/(\d+))?"
PREDICT = re.compile(rf"/v1/models/([^/:]+){VERSION}:(classify|regress|predict)", re.IGNORECASE)
STATUS = re.compile(rf"/v1/models(?:/([^/:]+))?{VERSION}(/metadata)?", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Batching:
    """The parameters of tensorflow_serving/servables/tensorflow/session_bundle_config.proto, BatchingParameters."""

    max_batch_size: int
    allowed_batch_sizes: tuple[int, ...]
    batch_timeout: float = 0.05

    @classmethod
    def read(cls, file: Path) -> "Batching":
        """Read a batching parameters file; its timeout of a millisecond is too short to see anything joined."""
        text = re.sub("#.*", "", file.read_text())
        allowed = tuple(
            int(size) for size in re.search(r"allowed_batch_sizes: \[(.*?)\]", text)[1].split(",")
        )
        most = int(re.search(r"max_batch_size { value: (\d+) }", text)[1])
        # See batching_session.cc, CreateBatchingSession.
        if list(allowed) != sorted(set(allowed)) or allowed[-1] != most:
            raise ValueError(f"allowed_batch_sizes {allowed} must rise to max_batch_size {most}")
        return cls(most, allowed)


class Batcher:
    """Joins requests to one signature: tensorflow_serving/batching/batching_session.cc and shared_batch_scheduler.h."""

    def __init__(
        self, session: c_api.Session, signature: str, batching: Batching, sizes: list[int]
    ):
        self._session, self._signature, self._batching, self._sizes = (
            session,
            signature,
            batching,
            sizes,
        )
        self._lock, self._open = threading.Lock(), None

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        size, most = _batch_size(inputs), self._batching.max_batch_size
        if size > most:
            raise Refusal(
                "INVALID_ARGUMENT",
                f"Task size {size} is larger than maximum input batch size {most}",
            )
        answer = futures.Future()
        with self._lock:
            if self._open is None or sum(_batch_size(task) for task, _ in self._open) + size > most:
                self._open = []
                threading.Thread(target=self._process, args=[self._open]).start()
            self._open.append((inputs, answer))
        return answer.result()

    def _process(self, tasks: list) -> None:
        time.sleep(self._batching.batch_timeout)
        with self._lock:
            if self._open is tasks:
                self._open = None
        try:
            parts = self._run_together([inputs for inputs, _ in tasks])
            for (_, answer), part in zip(tasks, parts, strict=True):
                answer.set_result(part)
        except Exception as error:
            for _, answer in tasks:
                answer.set_exception(error)

    def _run_together(self, tasks: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        counts = [_batch_size(task) for task in tasks]
        size = next(
            (size for size in self._batching.allowed_batch_sizes if size >= sum(counts)),
            sum(counts),
        )
        merged = {}
        for name, first in tasks[0].items():
            if any(task[name].shape[1:] != first.shape[1:] for task in tasks):
                feed = self._session.signatures[self._signature].inputs[name].name
                raise Refusal(
                    "FAILED_PRECONDITION",
                    f"Tensors with name '{feed}' from different tasks have different shapes and padding is turned off."
                    "Set pad_variable_length_inputs to true, or ensure that all tensors with the same name"
                    "have equal dimensions starting with the first dim.",
                )
            padding = [tasks[-1][name][:1]] * (size - sum(counts))
            merged[name] = np.concatenate([*(task[name] for task in tasks), *padding])
        self._sizes.append(size)
        outputs = _session_run(self._session, self._signature, merged)
        for value in outputs.values():
            if len(value) != size:
                raise Refusal(
                    "FAILED_PRECONDITION",
                    "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the "
                    "input tensors",
                )
        ends = np.cumsum(counts)
        return [
            {name: value[end - count : end] for name, value in outputs.items()}
            for count, end in zip(counts, ends, strict=True)
        ]


def _batch_size(inputs: dict[str, np.ndarray]) -> int:
    """tensorflow_serving/batching/batching_util.h, ComputeTensorBatchSize."""
    if any(value.ndim == 0 for value in inputs.values()):
        raise Refusal(
            "INVALID_ARGUMENT", "Batching Run() input tensors must have at least one dimension"
        )
    sizes = {len(value) for value in inputs.values()}
    if len(sizes) != 1:
        raise Refusal(
            "INVALID_ARGUMENT", "Batching Run() input tensors must have equal 0th-dimension size"
        )
    return sizes.pop()


def _session_run(
    session: c_api.Session, signature: str, inputs: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    try:
        return session.run(signature, **inputs)
    except c_api.Error as error:
        raise Refusal(CODES[error.code], str(error)) from error


class Model:
    """One loaded version."""

    def __init__(self, name: str, folder: Path, batching: Batching | None):
        self.name, self.version = name, int(folder.name)
        self.session, self.batch_sizes = c_api.Session(folder), []
        self._batchers = batching and {
            signature: Batcher(self.session, signature, batching, self.batch_sizes)
            for signature in self.session.signatures
        }

    def signature(self, name: str, *, code: str, text: str):
        if name not in self.session.signatures:
            raise Refusal(code, text.format(name))
        return self.session.signatures[name]

    def predict(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """tensorflow_serving/servables/tensorflow/predict_util.cc."""
        expected = self.signature(
            signature, code="FAILED_PRECONDITION", text='Serving signature key "{}" not found.'
        )
        sent, takes = set(inputs), set(expected.inputs)
        if len(sent) != len(takes):
            names = [",".join(sorted(part)) for part in (sent, takes, sent - takes, takes - sent)]
            raise Refusal(
                "INVALID_ARGUMENT",
                f"input size does not match signature: {len(sent)}!={len(takes)} len({{{names[0]}}}) != "
                f"len({{{names[1]}}}). Sent extra: {{{names[2]}}}. Missing but required: {{{names[3]}}}.",
            )
        for name in sorted(takes - sent):  # tensorflow/cc/saved_model/util.cc, GetInputValues
            raise Refusal(
                "INVALID_ARGUMENT",
                f"Signature input alias: {name}(feed name: {expected.inputs[name].name}) not found in request and no "
                f"default value provided. Inputs expected to be in the request {{{','.join(sorted(sent))}}}, or "
                "default input alias set: ",
            )
        if self._batchers:
            return self._batchers[signature].run(inputs)
        return _session_run(self.session, signature, inputs)

    def metadata(self) -> dict:
        """tensorflow_serving/servables/tensorflow/get_model_metadata_impl.cc, as json."""
        options = {
            "preserving_proto_field_name": True,
            "always_print_fields_with_no_presence": True,
        }
        signatures = {
            name: json_format.MessageToDict(value, **options)
            for name, value in self.session.signatures.items()
        }
        spec = {"name": self.name, "signature_name": "", "version": str(self.version)}
        return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": signatures}}}


class Server:
    """The newest version of a model, by REST and, where tensorflow-serving-api is installed, by gRPC.

    Tests make it fail: it refuses the next `unavailable` requests, and waits `delay` seconds before each answer.
    """

    def __init__(self, base: Path, name: str, batching: Batching | None, ports: tuple[int, int]):
        newest = max(
            (folder for folder in base.iterdir() if folder.name.isdecimal()),
            key=lambda path: int(path.name),
        )
        self.model = Model(name, newest, batching)
        self.unavailable, self.delay, self.num_requests = 0, 0.0, 0
        self._running, self._idle = 0, threading.Condition()
        self._http = ThreadingHTTPServer(
            ("127.0.0.1", ports[0]), type("Handler", (Handler,), {"owner": self})
        )
        self.rest = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, args=[0.02]).start()
        self._grpc, self.grpc = _start_grpc(self, ports[1])

    def find(self, name: str, version: int | None) -> Model:
        """tensorflow_serving/core/basic_manager.cc, GetUntypedServableHandle."""
        if name != self.model.name or version not in (None, self.model.version):
            wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise Refusal("NOT_FOUND", f"Servable not found for request: {wanted}")
        return self.model

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        with self._idle:
            self.num_requests += 1
            self._running += 1
        try:
            time.sleep(self.delay)
            if self.unavailable:
                self.unavailable -= 1
                raise Refusal(
                    "UNAVAILABLE",
                    "The batch scheduling queue to which this task was submitted is full",
                )
            yield
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def stop(self) -> None:
        self.unavailable = 1_000_000
        self._http.shutdown()
        self._http.server_close()
        if self._grpc:
            self._grpc.stop(0).wait()
        with self._idle:  # a session must not end below a request, even of a client that has gone
            self._idle.wait_for(lambda: not self._running, timeout=30)
            self.model.session.__exit__()


@contextlib.contextmanager
def serve(
    base: Path, name: str, *, batching: Batching | None = None, ports: tuple[int, int] = (0, 0)
) -> Iterator[Server]:
    server = Server(Path(base), name, batching, ports)
    try:
        yield server
    finally:
        server.stop()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Handler(BaseHTTPRequestHandler):
    """tensorflow_serving/model_servers/http_rest_api_handler.cc."""

    protocol_version = "HTTP/1.1"
    owner: Server

    def do_GET(self):
        self._answer(self._get)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self._answer(lambda: self._post(body))

    def log_message(self, *arguments):
        pass

    def _answer(self, method) -> None:
        try:
            with self.owner.request():
                status, text = 200, method()
        except Refusal as refusal:
            status, text = HTTP[refusal.code], json.dumps({"error": str(refusal)}, indent=4)
        with contextlib.suppress(ConnectionError):  # of a client that has gone
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

    def _match(self, pattern: re.Pattern):
        match = pattern.fullmatch(self.path)
        if not match:
            raise Refusal("INVALID_ARGUMENT", f"Malformed request: {self.command} {self.path}")
        return match[1], int(match[2]) if match[2] else None, match[3]

    def _get(self) -> str:
        name, version, metadata = self._match(STATUS)
        if not name:
            raise Refusal("INVALID_ARGUMENT", "Missing model name in request.")
        model = self.owner.find(name, version)
        status = {"version": str(model.version), "state": "AVAILABLE"}
        status["status"] = {"error_code": "OK", "error_message": ""}
        return json.dumps(
            model.metadata() if metadata else {"model_version_status": [status]}, indent=1
        )

    def _post(self, body: bytes) -> str:
        name, version, method = self._match(PREDICT)
        if method.lower() != "predict":
            raise Refusal("UNIMPLEMENTED", f"This stand-in knows no {method}")

        def inputs_of(signature: str):
            text = 'Serving signature name: "{}" not found in signature def'
            return (
                self.owner.find(name, version)
                .signature(signature, code="INVALID_ARGUMENT", text=text)
                .inputs
            )

        signature, inputs, in_rows = contract_json.read_request(body, inputs_of)
        return contract_json.write_answer(
            self.owner.find(name, version).predict(signature, inputs), in_rows
        )


def _start_grpc(owner: Server, port: int):
    """tensorflow_serving/model_servers/prediction_service_impl.cc."""
    try:
        import grpc
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
    except ImportError:
        return None, None
    import tensorflow as tf

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            spec = request.model_spec
            signature = spec.signature_name or "serving_default"
            try:
                with owner.request():
                    model = owner.find(
                        spec.name, spec.version.value if spec.HasField("version") else None
                    )
                    inputs = {
                        name: tf.make_ndarray(value) for name, value in request.inputs.items()
                    }
                    outputs = model.predict(signature, inputs)
            except Refusal as refusal:
                context.abort(grpc.StatusCode[refusal.code], str(refusal))
            response = predict_pb2.PredictResponse()
            response.model_spec.name, response.model_spec.signature_name = spec.name, signature
            response.model_spec.version.value = model.version
            for name, value in outputs.items():
                response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            return response

    server = grpc.server(
        futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1)]
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server, f"grpc://127.0.0.1:{port}"
