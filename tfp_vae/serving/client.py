"""A VAE on a server, used like a local one."""

import dataclasses
import functools
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

import numpy as np
import tensorflow as tf

from tfp_vae.checks import as_count, whole_number
from tfp_vae.serving.description import DESCRIBE
from tfp_vae.serving.served import ServedVAE
from tfp_vae.serving.transports import TRANSPORTS, Server, Transport

# Seconds before the first retry; each further one waits twice as long.
BACKOFF = 0.1
# Bytes allowed in an answer besides its numbers, and bytes for each number as text.
BYTES = 2**20
BYTES_OF_A_NUMBER = 40


def client(
    url: str,
    model: str,
    *,
    version: int | None = None,
    timeout: float = 10.0,
    retries: int = 6,
    batch_size: int = 128,
    headers: Mapping[str, str] | None = None,
    credentials=None,
    ca: str | None = None,
) -> ServedVAE:
    """Use an exported VAE on a TensorFlow Serving server.

    The methods are those of `tfp_vae.load`, but the server computes the answers.

    Floats arrive exactly, by gRPC as by REST: JSON carries them with as many digits as they need. A
    distribution's methods run here, on the parameters that the server has sent; gradients end at
    the server. A `tf.function` asks the server in each run. A repeated request returns the same
    answer, so retries are safe.

    Answers are checked before they are used: names, shapes and dtypes; that the values are numbers;
    and that they are valid, for example where a parameter must be positive. Redirects are not
    followed.

    Args:
        url: `http://host:8501` or `https://...` for REST, `grpc://host:8500` or `grpcs://...` for
            gRPC, which is the faster one.
        model: its name on the server.
        version: its number; None takes the newest version on the server.
        timeout: seconds that a call may take, including all its requests and retries.
        retries: how often to ask again, after 0.1, 0.2, 0.4 ... seconds, when the server cannot be
            reached or is not available.
        batch_size: rows in one request; at most the server's `max_batch_size`.
        headers: sent with each request, such as `{"Authorization": "Bearer ..."}`.
        credentials: the client's own certificate, for a server that asks for it: the files of the
            certificate and of its key; or `grpc.ChannelCredentials`.
        ca: file of the certificates to check the server's against; None takes the system's.

    Raises:
        ValueError: if the URL is of another kind, the server has no such model, or refuses a
            request; the message quotes the server.
        ConnectionError: if it is not available after all retries.
        TimeoutError: if it does not answer in time.
        RuntimeError: if the server fails, or its answer does not fit this model.
    """
    options = dict(locals())
    scheme = urlsplit(url).scheme
    if scheme not in TRANSPORTS or not urlsplit(url).netloc:
        raise ValueError(
            "url must be http://host:port, https://host:port, grpc://host:port or "
            f"grpcs://host:port, received {url!r}."
        )
    server = Server(url.rstrip("/"), model, version, headers or {}, credentials, ca)
    answers = _Answers(
        TRANSPORTS[scheme],
        server,
        timeout,
        whole_number(retries, "retries must be a whole number of at least 0", 0),
        as_count(batch_size, "batch_size"),
    )
    text = answers(DESCRIBE, {"row": tf.zeros([1], tf.int32)})["description"][0].numpy()
    try:
        served = ServedVAE(
            answers,
            text.decode(),
            f"{url}, model {model}",
            checks_answers=True,
            again=functools.partial(client, **options),
        )
    except (ValueError, RecursionError) as error:
        raise server.error(RuntimeError, DESCRIBE, str(error)) from error
    answers.expect(served.description["signatures"])
    return served


class _Answers:
    """A server's answers by signature, at first to what describes the model alone."""

    def __init__(
        self,
        transport: type[Transport],
        server: Server,
        timeout: float,
        retries: int,
        batch_size: int,
    ):
        self.transport, self.server, self.send = transport, server, transport(server)
        self.timeout, self.retries, self.batch_size = timeout, retries, batch_size
        self.signatures: dict[str, Mapping] = {
            DESCRIBE: {"outputs": {"description": {"dtype": "string", "shape": [None]}}}
        }

    def expect(self, signatures: Mapping[str, Mapping]) -> None:
        """Learn the signatures of a model, and with them how large an answer may be."""
        self.signatures |= signatures
        limit = _largest_answer(self.signatures, self.batch_size)
        self.send = self.transport(dataclasses.replace(self.server, limit=limit))

    def __call__(self, signature: str, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        outputs = self.signatures[signature]["outputs"]

        def ask(*values: np.ndarray) -> list[np.ndarray]:
            return self._ask(signature, dict(zip(inputs, values, strict=True)), outputs)

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

    def _ask(self, signature: str, inputs: Mapping, outputs: Mapping) -> list[np.ndarray]:
        """Ask for some rows at a time, all within the time that a call may take."""
        end = time.monotonic() + self.timeout
        parts = [
            _patiently(self.send, self.retries, end, signature, part, outputs)
            for part in _split(inputs, self.batch_size)
        ]
        return [np.concatenate([part[name] for part in parts]) for name in outputs]


def _largest_answer(signatures: Mapping[str, Mapping], batch_size: int) -> int:
    """Return the largest allowed number of bytes of an answer for a number of rows."""
    numbers = [
        sum(int(np.prod([size or 1 for size in spec["shape"]])) for spec in one["outputs"].values())
        for one in signatures.values()
    ]
    return BYTES + BYTES_OF_A_NUMBER * batch_size * max(numbers)


def _split(inputs: Mapping[str, np.ndarray], batch_size: int) -> list[dict[str, np.ndarray]]:
    num_rows = len(next(iter(inputs.values())))
    return [
        {name: value[start : start + batch_size] for name, value in inputs.items()}
        for start in range(0, num_rows, batch_size)
    ]


def _patiently(
    send: Transport, retries: int, end: float, signature: str, inputs: Mapping, outputs: Mapping
) -> dict[str, np.ndarray]:
    """Ask until the server is available, within the limits of retries and time."""
    retry = 0
    while True:
        seconds = end - time.monotonic()
        if seconds <= 0.0:
            raise send.server.error(TimeoutError, signature, "no answer in time")
        try:
            return send(signature, inputs, outputs, seconds)
        except ConnectionError:
            wait = BACKOFF * 2**retry
            if retry == retries or time.monotonic() + wait >= end:
                raise
            time.sleep(wait)
            retry += 1


__all__ = ["client"]
