"""A VAE on a server, used as if it were here."""

import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import grpc
import numpy as np
import requests
import tensorflow as tf

from tfp_vae.checks import as_count, whole_number
from tfp_vae.serving.description import DESCRIBE
from tfp_vae.serving.messages import arrays, messages, predict_request
from tfp_vae.serving.served import ServedVAE

# Seconds before the first retry; each further one waits twice as long.
BACKOFF = 0.1


def client(
    url: str,
    model: str,
    *,
    version: int | None = None,
    timeout: float = 10.0,
    retries: int = 6,
    batch_size: int = 128,
) -> ServedVAE:
    """Use an exported VAE on a TensorFlow Serving server.

    The methods of `tfp_vae.load`, their answers from there.

    Floats arrive exactly, by gRPC as by REST: JSON carries them with as many digits as they need. A
    distribution's methods run here, on the parameters that the server has sent; gradients end at
    the server. A `tf.function` asks the server in each run. A request repeated gives the same
    answer, so it is safe to retry.

    Args:
        url: `http://host:8501` or `https://...` for REST, `grpc://host:8500` for gRPC, which is the
            faster one.
        model: its name on the server.
        version: its number; None takes whatever the server offers as the newest.
        timeout: seconds that one request may take.
        retries: how often to ask again, after 0.1, 0.2, 0.4 ... seconds, when the server is not
            there or not available.
        batch_size: rows in one request; at most the server's `max_batch_size`.

    Raises:
        ValueError: if the URL is of another kind, the server has no such model, or refuses a
            request; in its own words.
        ConnectionError: if it is not available after all retries.
        TimeoutError: if it does not answer in time.
        RuntimeError: if it fails; in its own words.
    """
    transports: dict[str, type] = {"http": _Rest, "https": _Rest, "grpc": _Grpc}
    scheme = urlsplit(url).scheme
    if scheme not in transports or not urlsplit(url).netloc:
        raise ValueError(
            "url must be http://host:port, https://host:port or grpc://host:port, received "
            f"{url!r}."
        )
    send = transports[scheme](url.rstrip("/"), model, version, timeout)
    retries = whole_number(retries, "retries must be a whole number of at least 0", 0)
    batch_size = as_count(batch_size, "batch_size")
    signatures: dict[str, dict] = {
        DESCRIBE: {"outputs": {"description": {"dtype": "string", "shape": [None]}}}
    }

    def answer(signature: str, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        outputs = signatures[signature]["outputs"]

        def ask(*values: np.ndarray) -> list[np.ndarray]:
            rows = _split(dict(zip(inputs, values, strict=True)), batch_size)
            parts = [_patiently(retries, send, signature, part, list(outputs)) for part in rows]
            return [np.concatenate([part[name] for part in parts]) for name in outputs]

        if tf.executing_eagerly():
            values = [
                tf.constant(value) for value in ask(*(value.numpy() for value in inputs.values()))
            ]
        else:  # TFP's joint distributions trace what they are made of
            values = tf.numpy_function(
                ask, list(inputs.values()), [spec["dtype"] for spec in outputs.values()]
            )
        for value, spec in zip(values, outputs.values(), strict=True):
            value.set_shape(spec["shape"])
        return dict(zip(outputs, values, strict=True))

    text = answer(DESCRIBE, {"row": tf.zeros([1], tf.int32)})["description"][0].numpy().decode()
    served = ServedVAE(answer, text, f"{url}, model {model}")
    signatures.update(served.description["signatures"])
    return served


def _split(inputs: Mapping[str, np.ndarray], batch_size: int) -> list[dict[str, np.ndarray]]:
    num_rows = len(next(iter(inputs.values())))
    return [
        {name: value[start : start + batch_size] for name, value in inputs.items()}
        for start in range(0, num_rows, batch_size)
    ]


def _patiently(retries: int, send: Callable, *request) -> dict[str, np.ndarray]:
    for retry in range(retries):
        try:
            return send(*request)
        except ConnectionError:
            time.sleep(BACKOFF * 2**retry)
    return send(*request)


def _error(kind: type[Exception], url: str, signature: str, text: str) -> Exception:
    return kind(f"{url}, signature {signature}: {text}")


class _Rest:
    """Requests in column form; the server's tensorflow_serving/util/json_tensor.cc says how they
    are written.
    """

    def __init__(self, url: str, model: str, version: int | None, timeout: float):
        at = "" if version is None else f"/versions/{version}"
        self.url = f"{url}/v1/models/{model}{at}:predict"
        self.timeout = timeout
        self.session = requests.Session()

    def __call__(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: list[str]
    ) -> dict[str, np.ndarray]:
        body: dict = {
            "signature_name": signature,
            "inputs": {name: value.tolist() for name, value in inputs.items()},
        }
        try:
            response = self.session.post(self.url, json=body, timeout=self.timeout)
        except requests.Timeout as error:
            raise _error(
                TimeoutError, self.url, signature, f"no answer within {self.timeout} seconds"
            ) from error
        except requests.ConnectionError as error:
            raise _error(ConnectionError, self.url, signature, str(error)) from error
        if not response.ok:
            raise _error(
                _kind_of_status(response.status_code), self.url, signature, _text(response)
            )
        answer = response.json()["outputs"]
        # A single output comes without its name.
        answer = answer if len(outputs) > 1 else {outputs[0]: answer}
        dtype = object if signature == DESCRIBE else np.float32
        return {name: np.array(answer[name], dtype) for name in outputs}


def _kind_of_status(status: int) -> type[Exception]:
    known: dict[int, type[Exception]] = {503: ConnectionError, 504: TimeoutError}
    return known.get(status, ValueError if status < 500 else RuntimeError)


def _text(response: requests.Response) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):  # not from the model server: a proxy, perhaps
        return f"{response.status_code} {response.reason} {response.text[:500]}"


class _Grpc:
    """The method Predict of tensorflow_serving/apis/prediction_service.proto."""

    KINDS = {
        grpc.StatusCode.UNAVAILABLE: ConnectionError,
        grpc.StatusCode.DEADLINE_EXCEEDED: TimeoutError,
        grpc.StatusCode.INVALID_ARGUMENT: ValueError,
        grpc.StatusCode.FAILED_PRECONDITION: ValueError,
        grpc.StatusCode.NOT_FOUND: ValueError,
    }

    def __init__(self, url: str, model: str, version: int | None, timeout: float):
        self.url = url
        self.model = model
        self.version = version
        self.timeout = timeout
        unlimited = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
        self.predict = grpc.insecure_channel(urlsplit(url).netloc, unlimited).unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            request_serializer=messages().PredictRequest.SerializeToString,
            response_deserializer=messages().PredictResponse.FromString,
        )

    def __call__(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: list[str]
    ) -> dict[str, np.ndarray]:
        request = predict_request(self.model, signature, inputs, self.version)
        try:
            return arrays(self.predict(request, timeout=self.timeout).outputs)
        except grpc.RpcError as error:
            raise _error(
                self.KINDS.get(error.code(), RuntimeError), self.url, signature, error.details()
            ) from error


__all__ = ["client"]
