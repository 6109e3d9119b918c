"""JSON to tensors and back as TensorFlow Serving does it, after its tensorflow_serving/util/json_tensor.cc."""

import base64
import binascii
import json
from collections.abc import Callable

import numpy as np
import tensorflow as tf


class Refusal(Exception):
    """What the server answers instead: a code of absl::StatusCode, and its words."""

    def __init__(self, code: str, text: str):
        super().__init__(text)
        self.code = code


def _invalid(text: str) -> Refusal:
    return Refusal("INVALID_ARGUMENT", text)


# Requests


def read_request(body: bytes, inputs_of: Callable) -> tuple[str, dict[str, np.ndarray], bool]:
    """FillPredictRequestFromJson: signature, inputs, and whether they came in rows."""
    document = _parse(body)
    signature = document.get("signature_name", "serving_default")
    if not isinstance(signature, str):
        text = "not formatted correctly. 'signature_name' key must be a string value."
        raise _invalid(f"JSON Value: {_text(document)} {text}")
    expected = inputs_of(signature)
    if "instances" in document and "inputs" in document:
        text = (
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        )
        raise _invalid(f"JSON Value: {_text(document)} {text}")
    if "instances" in document:
        rows = document["instances"]
        if not isinstance(rows, list):
            raise _invalid(
                f"JSON Value: {_text(document)} Excepting 'instances' to be an list/array"
            )
        if not rows:
            raise _invalid(f"JSON Value: {_text(document)} No values in 'instances' array")
        return signature, _from_rows(rows, expected), True
    if "inputs" in document:
        return signature, _from_columns(document["inputs"], expected), False
    raise _invalid("Missing 'inputs' or 'instances' key")


def _parse(body: bytes) -> dict:
    if not body:
        raise _invalid("JSON Parse error: The document is empty")
    try:
        document = json.loads(body)  # NaN and Infinity are read, as by the server
    except json.JSONDecodeError as error:
        raise _invalid(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
    if not isinstance(document, dict):
        raise _invalid(f"JSON Value: {_text(document)} Is not object")
    return document


def _from_rows(rows: list, expected) -> dict[str, np.ndarray]:
    """FillTensorMapFromInstancesList."""
    if not isinstance(rows[0], dict) and len(expected) > 1:
        raise _invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    are_objects, found = _is_object(rows[0]), {}
    for index, row in enumerate(rows):
        if are_objects and not _is_object(row):
            raise _invalid(f"Expecting object but got list at item {index} of input list")
        if not are_objects and _is_object(row):
            raise _invalid(f"Expecting value/list but got object at item {index} of input list")
        for name, value in row.items() if are_objects else [(min(expected), row)]:
            key = f" key: {name}" if are_objects else ""
            try:
                if name not in expected:
                    raise _invalid(f"JSON object: does not have named input: {name}")
                _add(found.setdefault(name, []), _tensor(value, expected[name].dtype))
            except Refusal as error:
                text = f"Failed to process element: {index}{key} of 'instances' list. Error: INVALID_ARGUMENT: {error}"
                raise _invalid(text) from error
        if are_objects and set(row) != set(expected):
            raise _invalid(
                f"Failed to process element: {index} of 'instances' list. JSON object: {_text(row)} keys must be equal "
                f"to: {','.join(sorted(expected))}"
            )
    return {name: np.stack(values) for name, values in found.items()}


def _add(values: list[np.ndarray], value: np.ndarray) -> None:
    """AddInstanceItem: all rows have the first one's shape."""
    if values and values[0].size != value.size:
        raise _invalid(f"Expecting tensor size: {values[0].size} but got: {value.size}")
    if values and values[0].shape != value.shape:
        shapes = ["[" + ",".join(map(str, each.shape)) + "]" for each in (values[0], value)]
        raise _invalid(f"Expecting shape {shapes[0]} but got: {shapes[1]}")
    values.append(value)


def _from_columns(value, expected) -> dict[str, np.ndarray]:
    """FillTensorMapFromInputsMap."""
    if not _is_object(value):
        if len(expected) > 1:
            raise _invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        return {name: _tensor(value, info.dtype) for name, info in expected.items()}
    for name in sorted(expected):
        if name not in value:
            raise _invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _tensor(value[name], info.dtype) for name, info in expected.items()}


def _tensor(value, dtype: int) -> np.ndarray:
    """GetDenseTensorShape and FillTensorProto: the shape is that along the first elements."""
    shape, first = [], value
    while isinstance(first, list):
        shape.append(len(first))
        if not first:
            break
        first = first[0]
    flat: list = []
    _fill(value, 0, shape, tf.as_dtype(dtype), flat)
    return np.array(flat, tf.as_dtype(dtype).as_numpy_dtype).reshape(shape)


def _fill(value, level: int, shape: list[int], dtype: tf.DType, flat: list) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise _invalid(
                f"JSON Value: {_text(value)} found at incorrect level: {level + 1} in the JSON DOM. Expected at level: "
                f"{len(shape)}"
            )
        flat.append(_scalar(value, dtype))
        return
    if level >= len(shape):
        raise _invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise _invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for element in value:
        _fill(element, level + 1, shape, dtype, flat)


def _scalar(value, dtype: tf.DType):
    """AddValueToTensor and JsonDecodeBase64Object."""
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if dtype == tf.float32 and (is_int or isinstance(value, float)):
        most = 2**24 - 1 if is_int else float(np.finfo("float32").max)
        if np.isfinite(value) and abs(value) > most:
            raise _invalid(
                f"Cannot convert JSON value: {_text(value)} to float without loss of precision."
            )
        return value
    if dtype == tf.int32 and is_int and -(2**31) <= value < 2**31:
        return value
    if dtype == tf.string and isinstance(value, str):
        return value.encode()
    if dtype == tf.string and _is_base64(value):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except binascii.Error as error:
            raise _invalid("Unable to base64 decode") from error
    kinds = {
        dict: "Object",
        str: "String",
        bool: str(value),
        type(None): "Null",
        int: "Number",
        float: "Number",
    }
    raise _invalid(
        f"JSON Value: {_text(value)} Type: {kinds[type(value)]} is not of expected type: {_name(dtype)}"
    )


def _name(dtype: tf.DType) -> str:
    """DataTypeString."""
    return {tf.float32: "float", tf.float64: "double"}.get(dtype, dtype.name)


def _is_base64(value) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str)


def _is_object(value) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _text(value) -> str:
    return json.dumps(value, indent=4)


# Answers


def write_answer(outputs: dict[str, np.ndarray], in_rows: bool) -> str:
    """MakeJsonFromTensors: a single output has no name, neither in rows nor in columns."""
    if not in_rows:
        return f'{{"outputs": {_named({name: _values(value, name) for name, value in outputs.items()})}}}'
    sizes: dict[str, int] = {}
    for name, value in sorted(outputs.items()):
        if value.ndim == 0:
            raise _invalid(f"Tensor name: {name} has no shape information ")
        for expecting in list(sizes.values())[:1]:
            if len(value) != expecting:
                text = f"has inconsistent batch size: {len(value)} expecting: {expecting}"
                raise _invalid(f"Tensor name: {name} {text}")
        sizes[name] = len(value)
    rows = [
        _named({name: _values(value[row], name) for name, value in outputs.items()})
        for row in range(next(iter(sizes.values())))
    ]
    return f'{{"predictions": [{", ".join(rows)}]}}'


def _named(values: dict[str, str]) -> str:
    if len(values) == 1:
        return next(iter(values.values()))
    return "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in values.items()) + "}"


def _values(value, name: str) -> str:
    if isinstance(value, np.ndarray) and value.ndim:
        return "[" + ", ".join(_values(element, name) for element in value) + "]"
    if isinstance(value, bytes):  # IsNamedTensorBytes
        binary = {"b64": base64.b64encode(value).decode()}
        return json.dumps(binary) if name.endswith("_bytes") else json.dumps(value.decode())
    return _decimal(value) if np.asarray(value).dtype.kind == "f" else str(value)


def _decimal(value: np.float32) -> str:
    """WriteDecimal: six digits where they are enough, else the nine that always are."""
    if not np.isfinite(value):
        return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    text = f"{value:.6g}"
    if np.float32(text) != value:
        text = f"{value:.9g}"
    return text if "." in text or "e" in text else text + ".0"
