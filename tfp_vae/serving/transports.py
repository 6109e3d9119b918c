"""How a request reaches a server and its answer comes back: by REST or by gRPC, with or without TLS.

A server may be broken or hostile: the time and the size of an answer are limited, and it is checked
before it is used.
"""

import abc
import dataclasses
import http.client
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import grpc
import numpy as np
import requests
import tensorflow as tf
import urllib3
from google.protobuf.message import DecodeError
from tensorflow.core.framework import tensor_pb2, types_pb2

from tfp_vae.serving.messages import messages, predict_request

# Expected outputs of a signature: dtype and shape by name, as in a description.
Specs = Mapping[str, Mapping]
# Number of bytes of a REST answer that are read at a time.
CHUNK = 2**16


@dataclasses.dataclass(frozen=True)
class Server:
    """The server and model to ask, with the settings of the connection.

    Args:
        url: of the server, without a slash at its end.
        model: its name there.
        version: its number, or None for the newest.
        headers: headers of each request, such as a bearer token.
        credentials: files of the client's certificate and its key, or `grpc.ChannelCredentials`.
        ca: file of the certificates that the server's is checked against, or None for the system's.
        limit: largest number of bytes of an answer.
    """

    url: str
    model: str
    version: int | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    credentials: Any = None
    ca: str | None = None
    limit: int = 2**24

    def error(self, kind: type[Exception], signature: str, text: str) -> Exception:
        """Return an error that names the server, the model and the signature."""
        return kind(f"{self.url}, model {self.model}, signature {signature}: {text}")


class Transport(abc.ABC):
    """A way to ask a server."""

    def __init__(self, server: Server):
        self.server = server

    def __call__(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Specs, seconds: float
    ) -> dict[str, np.ndarray]:
        """Ask for the outputs of a signature; each is checked against its spec.

        Raises:
            ConnectionError, TimeoutError, ValueError, RuntimeError: see `tfp_vae.client`.
        """
        try:
            answer = self.ask(signature, inputs, outputs, seconds)
            rows = len(next(iter(inputs.values())))
            _expect(answer, outputs, rows)
        except _Garbled as error:
            raise self.server.error(RuntimeError, signature, str(error)) from error
        return answer

    @abc.abstractmethod
    def ask(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Specs, seconds: float
    ) -> dict[str, np.ndarray]:
        """Return the server's answer."""


class Rest(Transport):
    """REST requests in column format, as documented in the server's
    tensorflow_serving/util/json_tensor.cc.
    """

    def __init__(self, server: Server):
        super().__init__(server)
        at = "" if server.version is None else f"/versions/{server.version}"
        self.url = f"{server.url}/v1/models/{quote(server.model, safe='')}{at}:predict"
        self.session = requests.Session()
        # No compression: a few bytes can unfold to gigabytes.
        self.session.headers.update({**server.headers, "Accept-Encoding": "identity"})
        self.session.cert = server.credentials

    def ask(self, signature, inputs, outputs, seconds):
        body = {
            "signature_name": signature,
            "inputs": {name: value.tolist() for name, value in inputs.items()},
        }
        try:
            status, text = _within(seconds, lambda: self._post(body, seconds))
        except (requests.Timeout, urllib3.exceptions.ReadTimeoutError, TimeoutError) as error:
            raise self.server.error(
                TimeoutError, signature, f"no answer within {seconds:.3g} seconds"
            ) from error
        except requests.exceptions.SSLError as error:
            raise self.server.error(RuntimeError, signature, f"TLS: {error}") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise self.server.error(ConnectionError, signature, _reason(error)) from error
        if 300 <= status < 400:
            raise self.server.error(
                RuntimeError, signature, f"redirects elsewhere (status {status}), which is refused"
            )
        if status != 200:
            known: dict[int, type[Exception]] = {503: ConnectionError, 504: TimeoutError}
            kind = known.get(status, ValueError if status < 500 else RuntimeError)
            raise self.server.error(kind, signature, _words(status, text))
        answer = _read(text)
        if not (isinstance(answer, dict) and "outputs" in answer):
            raise _Garbled("the answer has no 'outputs'")
        found = answer["outputs"]
        # A single output comes without its name.
        found = {next(iter(outputs)): found} if len(outputs) == 1 else found
        if not isinstance(found, dict):
            raise _Garbled(f"the answer must name its outputs {[*outputs]}")
        return {name: _numbers(name, value, outputs) for name, value in found.items()}

    def _post(self, body: dict, seconds: float) -> tuple[int, bytes]:
        with self.session.post(
            self.url,
            json=body,
            timeout=seconds,
            allow_redirects=False,
            stream=True,
            # This must be set for each request: the environment's certificates would override a
            # session's.
            verify=self.server.ca,
        ) as response:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise _Garbled("the answer is compressed, which was not asked for")
            text = bytearray()
            while chunk := response.raw.read1(CHUNK):
                text += chunk
                if len(text) > self.server.limit:
                    raise _Garbled(f"the answer is larger than {self.server.limit:,} bytes")
            return response.status_code, bytes(text)


class Grpc(Transport):
    """The method Predict of tensorflow_serving/apis/prediction_service.proto."""

    KINDS = {
        grpc.StatusCode.UNAVAILABLE: ConnectionError,
        grpc.StatusCode.DEADLINE_EXCEEDED: TimeoutError,
        grpc.StatusCode.INVALID_ARGUMENT: ValueError,
        grpc.StatusCode.FAILED_PRECONDITION: ValueError,
        grpc.StatusCode.NOT_FOUND: ValueError,
        grpc.StatusCode.UNAUTHENTICATED: ValueError,
        grpc.StatusCode.PERMISSION_DENIED: ValueError,
    }

    def __init__(self, server: Server):
        super().__init__(server)
        address = urlsplit(server.url).netloc
        options = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", server.limit),
        ]
        if urlsplit(server.url).scheme == "grpcs":
            channel = grpc.secure_channel(address, self._credentials(), options)
        else:
            channel = grpc.insecure_channel(address, options)
        self.metadata = [(name.lower(), value) for name, value in server.headers.items()]
        self.predict = channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            request_serializer=messages().PredictRequest.SerializeToString,
            response_deserializer=bytes,
        )

    def _credentials(self) -> grpc.ChannelCredentials:
        given = self.server.credentials
        if isinstance(given, grpc.ChannelCredentials):
            return given
        files = (self.server.ca, *reversed(given or (None, None)))
        return grpc.ssl_channel_credentials(
            *(None if file is None else Path(file).read_bytes() for file in files)
        )

    def ask(self, signature, inputs, outputs, seconds):
        request = predict_request(self.server.model, signature, inputs, self.server.version)
        try:
            answer = self.predict(request, timeout=seconds, metadata=self.metadata)
        except grpc.RpcError as error:
            kind = self.KINDS.get(error.code(), RuntimeError)
            raise self.server.error(kind, signature, error.details()) from error
        try:
            entries = messages().PredictResponse.FromString(answer).outputs
            protos = [
                (entry.key, tensor_pb2.TensorProto.FromString(entry.value)) for entry in entries
            ]
        except DecodeError as error:
            raise _Garbled("the answer is no PredictResponse") from error
        return _expect_distinct([(name, _array(name, proto)) for name, proto in protos])


TRANSPORTS: dict[str, type[Transport]] = {
    "http": Rest,
    "https": Rest,
    "grpc": Grpc,
    "grpcs": Grpc,
}


class _Garbled(Exception):
    """The answer cannot come from a server of the model."""


def _within(seconds: float, function: Callable):
    """Return a function's result, or raise a TimeoutError, even if a server sends a byte now and
    then (a socket's timeout would not end that).
    """
    results: list = []

    def run():
        try:
            results.append((function(), None))
        except BaseException as error:
            results.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not results:
        raise TimeoutError
    result, error = results[0]
    if error is not None:
        raise error
    return result


def _read(text: bytes):
    try:
        return json.loads(text, object_pairs_hook=_expect_distinct)
    except (ValueError, RecursionError) as error:
        raise _Garbled(f"the answer is no JSON: {_start(text)}") from error


def _reason(error: BaseException) -> str:
    """Return what the system says of a failed connection, without the libraries' words around it."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.strerror:
            return f"cannot be reached: {found.strerror}"
        found = found.__cause__ or found.__context__
    return str(error)


def _start(text: bytes) -> str:
    return text[:200].decode("utf-8", "replace")


def _words(status: int, text: bytes) -> str:
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):  # of a proxy, perhaps
        return f"{status} {http.client.responses.get(status, '')} {_start(text)}"


def _expect_distinct(pairs: Sequence[tuple]) -> dict:
    named = dict(pairs)
    if len(named) < len(pairs):
        raise _Garbled(f"the answer names something twice: {[name for name, _ in pairs]}")
    return named


def _numbers(name: str, value, outputs: Specs) -> np.ndarray:
    """Read nested lists of numbers, or of strings if the signature returns strings."""
    if outputs.get(name, {}).get("dtype") == "string":
        return np.array(value, object)
    try:
        found = np.asarray(value)
    except ValueError as error:
        raise _Garbled(f"output {name} is ragged") from error
    if found.dtype.kind not in "if":
        raise _Garbled(f"output {name} holds what is no number")
    return found.astype(np.float32)


def _array(name: str, proto) -> np.ndarray:
    """Read a tensor, which must hold as many numbers as its shape says."""
    size = int(np.prod([dim.size for dim in proto.tensor_shape.dim], dtype=object))
    held = {
        types_pb2.DT_FLOAT: max(len(proto.tensor_content) / 4, len(proto.float_val)),
        types_pb2.DT_STRING: len(proto.string_val),
    }
    if held.get(proto.dtype) != size:
        dtype = types_pb2.DataType.Name(proto.dtype)
        raise _Garbled(
            f"output {name} claims {size:,} values of {dtype}, but does not hold them as float32"
        )
    return tf.make_ndarray(proto)


def _expect(answer: Mapping[str, np.ndarray], outputs: Specs, rows: int) -> None:
    if answer.keys() != outputs.keys():
        raise _Garbled(f"expected the outputs {sorted(outputs)}, received {sorted(answer)}")
    for name, spec in outputs.items():
        shape = tf.TensorShape([rows, *spec["shape"][1:]])
        if not shape.is_compatible_with(answer[name].shape):
            raise _Garbled(
                f"output {name} must have the shape {shape}, received {answer[name].shape}"
            )
