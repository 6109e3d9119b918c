"""Checks of a version before it is published.

It must equal the live model for all batch sizes, and run on any server.
"""

import itertools
import re
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

from tfp_vae.serving.warm_up import replay

# Sizes of the batches compared; the largest is also that of the requests which `verify` takes.
BATCH_SIZES = (1, 3, 128)
# Signatures that decode many draws for each row.
ESTIMATES = ("score", "log_prob", "impute")
ESTIMATE_BATCH_SIZES = (1, 3, 16)
# Allowed differences in float32, relative to an output's largest value if that is above 1.
TOLERANCE = 1e-5
# Densities of z have a larger tolerance: (z - loc) / scale magnifies rounding errors if a scale is
# small.
OF_DENSITIES = {
    "score": 1e-4,
    "log_prob": 1e-4,
    "impute": 1e-4,
    "posterior_log_prob": 1e-3,
    "prior_log_prob": 1e-3,
}
# Python's functions and XLA's clusters do not run on a stock server.
FOREIGN = re.compile("PyFunc|^Xla")
RANDOM = re.compile("Random|Multinomial|TruncatedNormal|Rng|StatefulUniform|StatefulStandardNormal")


def verify(
    folder: Path, live: Mapping, requests: Mapping[str, tf.Tensor], *, dtype: str = "float32"
) -> None:
    """Compare a SavedModel with the live model, and check what TensorFlow Serving needs of it.

    Args:
        folder: of the SavedModel, with warm-up requests.
        live: the live model's `tf.function` of each signature.
        requests: 128 rows of each input.
        dtype: dtype in which the networks compute; one less precise than float32 allows larger
            differences.

    Raises:
        ValueError: if they differ, rows depend on each other, or the graph would not run on a
            server; it says which signature, which output, and by how much.
    """
    (graph,) = saved_model_pb2.SavedModel.FromString(
        (folder / "saved_model.pb").read_bytes()
    ).meta_graphs
    check_graph(graph)
    check_shapes(graph)
    model = tf.saved_model.load(str(folder))  # it holds the variables of its signatures
    served = model.signatures
    replay(folder, lambda signature, inputs: served[signature](**inputs))
    for signature, function in live.items():
        tolerance = OF_DENSITIES.get(signature, TOLERANCE) * max(1.0, _eps(dtype) / _eps("float32"))
        sizes = ESTIMATE_BATCH_SIZES if signature in ESTIMATES else BATCH_SIZES
        inputs = {spec.name: requests[spec.name][: sizes[-1]] for spec in function.input_signature}
        whole = _check_answers(signature, served[signature], function, inputs, sizes, tolerance)
        _check_batches(signature, served[signature], inputs, sizes, whole, tolerance)
        _check_bad_rows(signature, served[signature], inputs, whole, tolerance)


def _eps(dtype: str) -> float:
    return float(ml_dtypes.finfo(dtype).eps)


def _check_answers(
    signature, served, function, inputs, sizes, tolerance
) -> Mapping[str, tf.Tensor]:
    """Return the answer to all rows, after comparing it with the live model."""
    for size in sizes:
        rows = {name: value[:size] for name, value in inputs.items()}
        answer = served(**rows)
        _compare(
            signature,
            answer,
            function(*rows.values()),
            tolerance,
            f"the live model's at batch size {size}",
        )
        if size == 1:  # without any graph; row by row, this is slow
            _compare(
                signature,
                answer,
                function.python_function(*rows.values()),
                tolerance,
                "the live model's Python",
            )
    return answer


def _check_batches(signature, served, inputs, sizes, whole, tolerance) -> None:
    cuts = np.cumsum([0, *sizes[:-1], sizes[-1] - sum(sizes[:-1])])
    parts = [
        served(**{name: value[start:end] for name, value in inputs.items()})
        for start, end in itertools.pairwise(cuts)
    ]
    joined = {name: tf.concat([part[name] for part in parts], 0) for name in whole}
    _compare(signature, joined, whole, tolerance, "that of all rows at once")
    # The first row again, in a batch of the same size with other rows around it: the answer must be
    # bitwise equal.
    others = served(
        **{name: tf.concat([value[:1], value[:0:-1]], 0) for name, value in inputs.items()}
    )
    first = {name: value[:1] for name, value in others.items()}
    _compare(
        signature,
        first,
        {name: value[:1] for name, value in whole.items()},
        0,
        "its first among other rows",
    )


def _check_bad_rows(signature, served, inputs, whole, tolerance) -> None:
    """Check that a row with impossible values becomes NaN, and its neighbours do not."""
    for name, value in inputs.items():
        if not value.dtype.is_floating:
            continue
        bad = tf.concat([value[:1], tf.fill(tf.shape(value[1:2]), np.inf), value[2:3]], 0)
        rows = {other: part[:3] for other, part in inputs.items()}
        answer = served(**{**rows, name: bad})
        expected = {
            output: tf.concat([part[:1], tf.fill(tf.shape(part[1:2]), np.nan), part[2:3]], 0)
            for output, part in whole.items()
        }
        _compare(signature, answer, expected, tolerance, f"that without a bad row of {name}")


def _compare(
    signature: str, actual: Mapping, expected: Mapping, tolerance: float, reference: str
) -> None:
    if set(actual) != set(expected):
        raise ValueError(
            f"Signature {signature} gives {sorted(actual)}, the live model {sorted(expected)}."
        )
    for name in sorted(expected):
        ours = np.asarray(actual[name])
        theirs = np.asarray(expected[name])
        if ours.shape != theirs.shape:
            raise ValueError(
                f"Signature {signature}, output {name}: shape {ours.shape} differs from "
                f"{reference}, {theirs.shape}."
            )
        difference = _difference(ours, theirs)
        allowed = tolerance
        if tolerance and ours.dtype.kind == "f" and ours.size:
            allowed *= max(1.0, float(np.max(np.abs(theirs), initial=0, where=np.isfinite(theirs))))
        if difference > allowed:
            raise ValueError(
                f"Signature {signature}, output {name}: the answer differs from {reference} by "
                f"{difference:.3g}, {allowed:.3g} is allowed."
            )


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest difference; infinite where only one side is a number, or texts differ."""
    if ours.dtype.kind != "f":
        return 0.0 if np.array_equal(ours, theirs) else np.inf
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    with np.errstate(invalid="ignore"):
        differences = np.where(same, 0, np.abs(ours - theirs))
    return float(np.nan_to_num(differences, nan=np.inf, posinf=np.inf).max(initial=0))


def check_shapes(graph) -> None:
    """Check that the batch is the first axis of each input and output, of any size.

    Raises:
        ValueError: if it is not; the message names the signature and the tensor.
    """
    for signature, definition in graph.signature_def.items():
        if not definition.method_name:
            continue  # an initialization function of the loader
        for name, info in [*definition.inputs.items(), *definition.outputs.items()]:
            sizes = [dim.size for dim in info.tensor_shape.dim]
            if info.tensor_shape.unknown_rank or not sizes or sizes[0] != -1:
                raise ValueError(
                    f"Signature {signature}: {name} has shape {sizes}, but its first axis must be "
                    "the batch, of any size: a server joins and splits requests along it."
                )


def check_graph(graph) -> None:
    """Check that each operation runs on a stock server, and draws from no hidden state.

    Raises:
        ValueError: if an operation does not; the message names it.
    """
    functions = graph.graph_def.library.function
    for node in [
        *graph.graph_def.node,
        *(node for function in functions for node in function.node_def),
    ]:
        definition = op_def_registry.get(node.op)
        if definition is None or FOREIGN.search(node.op):
            raise ValueError(
                f"The graph has the operation {node.op} ({node.name}), which a server cannot run."
            )
        if definition.is_stateful and RANDOM.search(node.op):
            raise ValueError(
                f"The graph has the operation {node.op} ({node.name}), which draws from a hidden "
                "state: answers would not repeat. Draw by a stateless seed."
            )
        _check_not_compiled(node.name, node.attr)
    for function in functions:
        _check_not_compiled(function.signature.name, function.attr)
    if "REGISTERED_TYPE_SPEC" in str(graph.object_graph_def):
        raise ValueError(
            "A signature takes or gives a value that is no plain tensor, so it loads only beside "
            "its library."
        )


def _check_not_compiled(name: str, attributes) -> None:
    if "_XlaMustCompile" in attributes and attributes["_XlaMustCompile"].b:
        raise ValueError(
            f"The function {name} is compiled by XLA (jit_compile=True), which a stock server "
            "cannot run."
        )
