"""A client of TensorFlow's C API by ctypes: the loader and the session that TensorFlow Serving runs, without Python's.

with c_api.Session(folder) as session:
    outputs = session.run("encode", x=x)
    with session.bound("encode", x=x) as run:  # the same, as often as one likes, without what surrounds it
        run()
        outputs = run.outputs()
"""

import contextlib
import ctypes
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

# TF_DataType, for the types that cross the border of a served model, and some that a client may send by mistake.
CODES = {np.dtype("float32"): 1, np.dtype("float64"): 2, np.dtype("int32"): 3, np.dtype("int64"): 9}
DTYPES = {code: dtype for dtype, code in CODES.items()}
STRING, STRING_SIZE = 7, 24  # of a TF_TString


class _Output(ctypes.Structure):
    _fields_ = [("operation", c_void_p), ("index", c_int)]


FEEDS = FETCHES = [POINTER(_Output), POINTER(c_void_p), c_int]
PROTOTYPES = {
    "TF_NewStatus": (c_void_p, []),
    "TF_GetCode": (c_int, [c_void_p]),
    "TF_Message": (c_char_p, [c_void_p]),
    "TF_DeleteStatus": (None, [c_void_p]),
    "TF_NewGraph": (c_void_p, []),
    "TF_DeleteGraph": (None, [c_void_p]),
    "TF_GraphOperationByName": (c_void_p, [c_void_p, c_char_p]),
    "TF_NewSessionOptions": (c_void_p, []),
    "TF_DeleteSessionOptions": (None, [c_void_p]),
    "TF_SetConfig": (None, [c_void_p, c_char_p, c_size_t, c_void_p]),
    "TF_LoadSessionFromSavedModel": (
        c_void_p,
        [c_void_p, c_void_p, c_char_p, POINTER(c_char_p), c_int, c_void_p, c_void_p, c_void_p],
    ),
    "TF_SessionRun": (
        None,
        [c_void_p, c_void_p, *FEEDS, *FETCHES, c_void_p, c_int, c_void_p, c_void_p],
    ),
    "TF_DeleteSession": (None, [c_void_p, c_void_p]),
    "TF_AllocateTensor": (c_void_p, [c_int, POINTER(c_int64), c_int, c_size_t]),
    "TF_TensorData": (c_void_p, [c_void_p]),
    "TF_TensorType": (c_int, [c_void_p]),
    "TF_TensorByteSize": (c_size_t, [c_void_p]),
    "TF_NumDims": (c_int, [c_void_p]),
    "TF_Dim": (c_int64, [c_void_p, c_int]),
    "TF_DeleteTensor": (None, [c_void_p]),
    "TF_StringGetDataPointer": (c_void_p, [c_void_p]),
    "TF_StringGetSize": (c_size_t, [c_void_p]),
}


def _library() -> ctypes.CDLL:
    folder = Path(tf.sysconfig.get_lib())
    ctypes.CDLL(str(folder / "libtensorflow_framework.so.2"), mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(folder / "libtensorflow_cc.so.2"))
    for name, (result, arguments) in PROTOTYPES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def meta_graph(folder: Path):
    """Read the one MetaGraphDef of a SavedModel from its file, without any loader."""
    model = saved_model_pb2.SavedModel.FromString((Path(folder) / "saved_model.pb").read_bytes())
    (graph,) = model.meta_graphs
    return graph


class Error(RuntimeError):
    """What TensorFlow refuses, in its words, with the number of its absl::StatusCode."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


class Session:
    """One loaded SavedModel.

    Args:
        folder: of the SavedModel.
        config: a serialized ConfigProto, for threads.

    Raises:
        Error: if loading or running fails.
    """

    def __init__(self, folder: Path, config: bytes = b""):
        self._c = _library()
        self.signatures = meta_graph(folder).signature_def
        self._graph = self._c.TF_NewGraph()
        options, tags = self._c.TF_NewSessionOptions(), (c_char_p * 1)(b"serve")
        with self._status() as status:
            self._c.TF_SetConfig(options, config, len(config), status)
        with self._status() as status:
            self._session = self._c.TF_LoadSessionFromSavedModel(
                options, None, str(folder).encode(), tags, 1, self._graph, None, status
            )
        self._c.TF_DeleteSessionOptions(options)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        with self._status() as status:
            self._c.TF_DeleteSession(self._session, status)
        self._c.TF_DeleteGraph(self._graph)

    def run(self, signature: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Call a signature with arrays by its inputs' names; gives arrays by its outputs' names."""
        with self.bound(signature, **inputs) as run:
            run()
            return run.outputs()

    def bound(self, signature: str, **inputs: np.ndarray) -> "Bound":
        """Prepare a call of a signature, which then takes no more than the session does."""
        return Bound(self, signature, inputs)

    @contextlib.contextmanager
    def _status(self):
        status = self._c.TF_NewStatus()
        try:
            yield status
            if self._c.TF_GetCode(status):
                raise Error(self._c.TF_GetCode(status), self._c.TF_Message(status).decode())
        finally:
            self._c.TF_DeleteStatus(status)

    def _endpoints(self, names) -> ctypes.Array:
        parts = [name.rpartition(":") for name in names]
        found = [
            _Output(self._c.TF_GraphOperationByName(self._graph, op.encode()), int(i))
            for op, _, i in parts
        ]
        return (_Output * len(found))(*found)

    def _to_tensor(self, value: np.ndarray) -> int:
        value = np.ascontiguousarray(value)
        dims = (c_int64 * value.ndim)(*value.shape)
        tensor = self._c.TF_AllocateTensor(CODES[value.dtype], dims, value.ndim, value.nbytes)
        ctypes.memmove(self._c.TF_TensorData(tensor), value.ctypes.data, value.nbytes)
        return tensor

    def _to_array(self, tensor: int) -> np.ndarray:
        shape = [self._c.TF_Dim(tensor, axis) for axis in range(self._c.TF_NumDims(tensor))]
        code, data = self._c.TF_TensorType(tensor), self._c.TF_TensorData(tensor)
        if code == STRING:
            texts = [
                self._to_bytes(data + index * STRING_SIZE) for index in range(int(np.prod(shape)))
            ]
            value = np.array(texts, object).reshape(shape)
        else:
            value = np.empty(shape, DTYPES[code])
            ctypes.memmove(value.ctypes.data, data, self._c.TF_TensorByteSize(tensor))
        return value

    def _to_bytes(self, string: int) -> bytes:
        return ctypes.string_at(
            self._c.TF_StringGetDataPointer(string), self._c.TF_StringGetSize(string)
        )


class Bound:
    """A call of a signature whose inputs are tensors already, as those of a request that a server has parsed."""

    def __init__(self, session: Session, signature: str, inputs: dict[str, np.ndarray]):
        self._session, definition = session, session.signatures[signature]
        self._names = [*definition.outputs]
        self._feeds = session._endpoints(definition.inputs[name].name for name in inputs)
        self._fetches = session._endpoints(info.name for info in definition.outputs.values())
        self._sent = (c_void_p * len(inputs))(
            *(session._to_tensor(value) for value in inputs.values())
        )
        self._received = (c_void_p * len(self._names))()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._delete(self._sent)
        self._delete(self._received)

    def __call__(self) -> None:
        """Run the session; outputs of a run before are gone."""
        self._delete(self._received)
        session, c = self._session, self._session._c
        with session._status() as status:
            feeds, fetches = (
                (self._feeds, self._sent, len(self._feeds)),
                (self._fetches, self._received, len(self._fetches)),
            )
            c.TF_SessionRun(session._session, None, *feeds, *fetches, None, 0, None, status)

    def outputs(self) -> dict[str, np.ndarray]:
        """Return the outputs of the last run, copied, by name."""
        return {
            name: self._session._to_array(tensor)
            for name, tensor in zip(self._names, self._received, strict=True)
        }

    def _delete(self, tensors: ctypes.Array) -> None:
        for place, tensor in enumerate(tensors):
            if tensor:
                self._session._c.TF_DeleteTensor(tensor)
                tensors[place] = None
