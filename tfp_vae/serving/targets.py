"""Encoder and decoder for runtimes other than TensorFlow: ONNX and OpenVINO.

Each result is compared with the SavedModel.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfp_vae.checks import needs, one_of

# The signatures without draws, which have a meaning outside TensorFlow.
SIGNATURES = ("encode", "decode", "reconstruct")
# Allowed differences, relative to an output's largest value if that is above 1.
TOLERANCE = 1e-4
# Version of the ONNX operator set. It has all operations needed; onnxruntime reads it since version
# 1.14.
OPSET = 18
# Function from arrays by input name to arrays by output name.
Run = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def write_targets(folder: Path, targets: Sequence[str], requests: Mapping[str, tf.Tensor]) -> None:
    """Write `assets.extra/encode.onnx` or `.xml` and the like into a version's folder, and compare
    their answers.

    Args:
        folder: of the SavedModel.
        targets: "onnx", "openvino" or both.
        requests: rows of each input.

    Raises:
        ValueError: if a target is unknown, cannot be written, or answers otherwise than the
            SavedModel.
        ImportError: if a target's packages are not installed.
    """
    if not targets:
        return
    model = tf.saved_model.load(str(folder))  # it holds the variables of its signatures
    for target in targets:
        for signature in SIGNATURES:
            function = model.signatures[signature]
            names = list(function.structured_input_signature[1])
            path = (folder / "assets.extra" / signature).with_suffix(SUFFIXES[target])
            inputs = [{name: requests[name][:size] for name in names} for size in (1, 3)]
            try:
                TARGETS[target](function, path)
                run = LOADERS[target](path)
                answers = [
                    run({name: value.numpy() for name, value in rows.items()}) for rows in inputs
                ]
            except ImportError:
                raise
            except Exception as error:  # whatever a converter or a runtime raises
                raise ValueError(
                    f"Signature {signature} cannot be written for {target}: {error}"
                ) from error
            for rows, answer in zip(inputs, answers, strict=True):
                _compare(f"{target}, signature {signature}", answer, function(**rows))


def check_targets(targets: Sequence[str]) -> tuple[str, ...]:
    """Check the names of targets, and that their packages are installed.

    Raises:
        ValueError: if there is no such target.
        ImportError: if a package is missing; the message says how to install it.
    """
    for target in targets:
        one_of(tuple(TARGETS), target, "target")
        try:
            for package in PACKAGES[target]:
                __import__(package)
        except ImportError as error:
            raise needs(f"The target {target}", target, error) from error
    return tuple(targets)


def load_onnx(path: Path) -> Run:
    """Load an ONNX file into ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(None, dict(inputs)), strict=True))


def load_openvino(path: Path) -> Run:
    """Load an OpenVINO file for the CPU in float32; by default OpenVINO may choose bfloat16."""
    import openvino

    model = openvino.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        answer = model(dict(inputs))
        return {name: answer[output] for output in model.outputs for name in output.names}

    return run


def _compare(
    what: str, actual: Mapping[str, np.ndarray], expected: Mapping[str, tf.Tensor]
) -> None:
    for name, value in expected.items():
        theirs = np.asarray(value)
        if name not in actual or actual[name].shape != theirs.shape:
            shapes = {name: value.shape for name, value in actual.items()}
            raise ValueError(
                f"{what}: output {name} of shape {theirs.shape} is missing from {shapes}."
            )
        difference = float(np.abs(actual[name] - theirs).max())
        allowed = TOLERANCE * max(1, np.abs(theirs).max())
        if not difference <= allowed:
            raise ValueError(
                f"{what}, output {name}: the answer differs from the SavedModel's by "
                f"{difference:.3g}, {allowed:.3g} is allowed."
            )


def _write_onnx(function: tf.types.experimental.ConcreteFunction, path: Path) -> None:
    import tf2onnx
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    inputs = function.structured_input_signature[1]
    outputs = sorted(function.structured_outputs)
    specs = [tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in inputs.items()]
    captured = tf.function(
        lambda *values: function(**dict(zip(inputs, values, strict=True))),
        input_signature=specs,
        autograph=False,
    )
    # tf2onnx would treat the tensors that a function captures, such as weights, as inputs.
    frozen = convert_variables_to_constants_v2(
        captured.get_concrete_function(), lower_control_flow=False, aggressive_inlining=True
    )
    whole = tf.function(
        lambda *values: dict(zip(outputs, frozen(*values), strict=True)),
        input_signature=specs,
        autograph=False,
    )
    handlers: dict[str, tuple] = {
        "Log1p": (_log1p, []),
        "BroadcastArgs": (_broadcast_args, []),
        "SelectV2": (_where, []),
    }
    tf2onnx.convert.from_function(
        whole, specs, opset=OPSET, custom_op_handlers=handlers, output_path=str(path)
    )


def _log1p(context, node, name, args) -> None:
    """log1p(x) = log(1 + x), which tf2onnx does not know."""
    one = context.make_const(f"{name}/one", np.float32(1)).output[0]
    node.type = "Log"
    context.replace_inputs(node, [context.make_node("Add", [node.input[0], one]).output[0]])


def _where(context, node, name, args) -> None:
    """Select by a condition; tf2onnx itself multiplies by ones and zeros, which spreads NaN."""
    node.type = "Where"


def _broadcast_args(context, node, name, args) -> None:
    """Two shapes broadcast to their larger sizes; the shorter one is padded with leading ones.

    TFP needs this operation, but tf2onnx lacks it.
    """
    from tf2onnx.utils import map_onnx_to_numpy_type

    ranks = [context.get_shape(shape)[0] for shape in node.input]
    aligned: list[str] = []
    for shape, rank in zip(list(node.input), ranks, strict=True):
        if rank < max(ranks):
            ones = np.ones([max(ranks) - rank], map_onnx_to_numpy_type(context.get_dtype(shape)))
            leading = context.make_const(f"{name}/ones{len(aligned)}", ones).output[0]
            shape = context.make_node("Concat", [leading, shape], attr={"axis": 0}).output[0]
        aligned.append(shape)
    node.type = "Max"
    context.replace_inputs(node, aligned)


def _write_openvino(function: tf.types.experimental.ConcreteFunction, path: Path) -> None:
    import openvino

    openvino.save_model(openvino.convert_model(function), str(path), compress_to_fp16=False)


TARGETS: dict[str, Callable] = {"onnx": _write_onnx, "openvino": _write_openvino}
LOADERS: dict[str, Callable] = {"onnx": load_onnx, "openvino": load_openvino}
PACKAGES = {"onnx": ("tf2onnx", "onnxruntime"), "openvino": ("openvino",)}
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}
