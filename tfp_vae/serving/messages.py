"""TensorFlow Serving's messages for a prediction, as far as this package uses them.

They are those of tensorflow_serving/apis: model.proto, predict.proto, prediction_log.proto. The
package tensorflow-serving-api has them too, but would tie every user to its pinned TensorFlow for
these few fields. A tensor is
declared as bytes: on the wire, a message inside a message is bytes as well.
"""

import functools
from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tensorflow.core.framework import tensor_pb2

# The fields of each message: name, number and type.
MESSAGES = {
    "ModelSpec": [
        ("name", 1, "string"),
        ("version", 2, "Int64Value"),
        ("signature_name", 3, "string"),
    ],
    "Int64Value": [("value", 1, "int64")],
    # An entry of a map<string, TensorProto>.
    "Tensor": [
        ("key", 1, "string"),
        ("value", 2, "bytes"),
    ],
    "PredictRequest": [("model_spec", 1, "ModelSpec"), ("inputs", 2, "repeated Tensor")],
    "PredictResponse": [("outputs", 1, "repeated Tensor"), ("model_spec", 2, "ModelSpec")],
    "PredictLog": [("request", 1, "PredictRequest")],
    "PredictionLog": [("predict_log", 6, "PredictLog")],
}
PACKAGE = "tfp_vae.serving"


@functools.cache
def messages() -> SimpleNamespace:
    """Return the classes of the messages, by name."""
    file = descriptor_pb2.FileDescriptorProto(
        name="tfp_vae/serving.proto", package=PACKAGE, syntax="proto3"
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            message.field.add(name=field, number=number, **_type(kind))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = {name: pool.FindMessageTypeByName(f"{PACKAGE}.{name}") for name in MESSAGES}
    return SimpleNamespace(
        **{name: message_factory.GetMessageClass(found[name]) for name in MESSAGES}
    )


def _type(kind: str) -> dict:
    field = descriptor_pb2.FieldDescriptorProto
    repeated, _, name = kind.rpartition(" ")
    label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
    if name in MESSAGES:
        return {"label": label, "type": field.TYPE_MESSAGE, "type_name": f".{PACKAGE}.{name}"}
    return {"label": label, "type": field.Type.Value(f"TYPE_{name.upper()}")}


def predict_request(
    model: str,
    signature: str,
    inputs: Mapping[str, tf.Tensor | np.ndarray],
    version: int | None = None,
):
    """Make a `PredictRequest`.

    Example:
    >>> request = predict_request("digits", "encode", {"x": tf.zeros([1, 2])})
    >>> request.model_spec.signature_name, {name: value.shape for name, value in arrays(request.inputs).items()}
    ('encode', {'x': (1, 2)})
    """
    request = messages().PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    for name, value in inputs.items():
        request.inputs.add(key=name, value=tf.make_tensor_proto(value).SerializeToString())
    return request


def arrays(entries) -> dict[str, np.ndarray]:
    """Read the inputs of a request or the outputs of a response."""
    return {
        entry.key: tf.make_ndarray(tensor_pb2.TensorProto.FromString(entry.value))
        for entry in entries
    }
