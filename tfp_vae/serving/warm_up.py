"""Requests that a server runs before it offers a version, so that the first users do not wait for
its first runs.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import tensorflow as tf

from tfp_vae.serving.messages import arrays, messages, predict_request

# Path where TF Serving looks for these requests.
WARM_UP = Path("assets.extra") / "tf_serving_warmup_requests"
# Rows of a request: one row, and a batch, which is written only if it is no larger than this.
BATCH_SIZES = (1, 32)
MOST_BYTES = 2**20


def write_warm_up(
    folder: Path, model: str, signatures: Mapping[str, Mapping[str, tf.Tensor]]
) -> None:
    """Write a request of each batch size to each signature of a version, given the inputs of at
    least 32 rows.
    """
    with tf.io.TFRecordWriter(str(folder / WARM_UP)) as file:
        for signature, inputs in signatures.items():
            for size in BATCH_SIZES:
                request = predict_request(
                    model, signature, {name: rows[:size] for name, rows in inputs.items()}
                )
                if size == 1 or request.ByteSize() <= MOST_BYTES:
                    log = messages().PredictionLog()
                    log.predict_log.request.CopyFrom(request)
                    file.write(log.SerializeToString())


def warm_up_requests(folder: Path) -> Iterator[tuple[str, dict[str, tf.Tensor]]]:
    """Read the requests of a version: signature and inputs of each."""
    for record in tf.data.TFRecordDataset(str(folder / WARM_UP)):
        request = messages().PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {name: tf.constant(value) for name, value in arrays(request.inputs).items()}
        yield request.model_spec.signature_name, inputs


def replay(
    folder: Path, answer: Callable[[str, Mapping[str, tf.Tensor]], Mapping[str, tf.Tensor]]
) -> None:
    """Run the requests of a version as a server does: it rejects a version if one of them fails.

    Raises:
        ValueError: if one fails.
    """
    for number, (signature, inputs) in enumerate(warm_up_requests(folder)):
        try:
            answer(signature, inputs)
        except Exception as error:  # whatever a signature raises
            raise ValueError(
                f"Warm-up request {number}, to signature {signature}, fails: {error}"
            ) from error
