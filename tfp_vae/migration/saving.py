"""Files: Keras 3 saves models to `.keras` and weights to `.weights.h5`."""

import re
from collections.abc import Callable

import libcst as cst
from libcst import matchers as m

from tfp_vae.migration.calls import Calls, argument, receiver, without
from tfp_vae.migration.program import Node

HDF5 = re.compile(r"(?<!\.weights)\.(h5|hdf5)(?=['\"]*$)")
TEXTS = m.SimpleString() | m.FormattedStringText()
KERAS, WEIGHTS = ".keras", ".weights.h5"


def written(ending: str, position: int = 0) -> Callable:
    """Return the idiom of a call that writes a file, such as `model.save("m.h5")`."""

    def idiom(calls: Calls, call: cst.Call) -> None:
        model = receiver(call) if position == 0 else call.args[0].value
        if not calls.may_be_model(model):
            return
        kind = argument(call, "save_format")
        if kind:
            calls.set_arguments(call, lambda args: without(args, "save_format"))
        path = argument(call, "filepath", position)
        if path is None or _take_ending(calls, path, ending):
            return
        texts = [one.value for one in _texts(calls, path)]
        if kind and "h5" in calls.program.code(kind.value) and len(texts) == 1:
            _set_ending(calls, path, r"(?=['\"]*$)", ending)
        elif calls.is_model(model) or any("." not in text.rpartition("/")[2] for text in texts):
            _ask_for_ending(calls, call, texts, ending)

    return idiom


def read(ending: str) -> Callable:
    """Return the idiom of a call that reads a file, such as `load_model("m.h5")`."""

    def idiom(calls: Calls, call: cst.Call) -> None:
        path = argument(call, "filepath", 0)
        if path is None or (calls.saves and _take_ending(calls, path, ending)):
            return
        _ask_for_ending(calls, call, [one.value for one in _texts(calls, path)], ending)

    return idiom


def checkpoint(calls: Calls, call: cst.Call) -> None:
    """`ModelCheckpoint("m.h5")` becomes `ModelCheckpoint("m.keras")`."""
    only = argument(call, "save_weights_only", 4)
    ending = KERAS if only is None or m.matches(only.value, m.Name("False")) else WEIGHTS
    path = argument(call, "filepath", 0)
    if path and not _take_ending(calls, path, ending):
        _ask_for_ending(calls, call, [one.value for one in _texts(calls, path)], ending)


def exported(calls: Calls, call: cst.Call) -> None:
    """`tf.saved_model.save(model, folder)` becomes `model.export(folder)`."""
    if len(call.args) < 2 or not calls.may_be_model(call.args[0].value):
        return
    model = call.args[0].value
    if len(call.args) > 2 or not calls.is_model(model) or not isinstance(model, cst.Name):
        return calls.ask(
            call, "If this is a Keras model, call model.export(folder) instead.", "model.export"
        )
    calls.uses.leave(call.func)
    function = cst.Attribute(model, cst.Name("export"))
    calls.program.edit(
        call, lambda updated: updated.with_changes(func=function, args=updated.args[1:])
    )


def _texts(calls: Calls, path: cst.Arg) -> list[Node]:
    """Return the last literal string of a path, or of what its name is assigned."""
    values = calls.program.values(path.value) or [path.value]
    found = [m.findall(value, TEXTS) for value in values]
    return [max(texts, key=calls.program.position) for texts in found if texts]


def _take_ending(calls: Calls, path: cst.Arg, ending: str) -> bool:
    """Give a path the ending of Keras 3 if it has an older one; return whether it has it now, or
    whether that is not known.
    """
    texts = _texts(calls, path)
    if any(HDF5.search(one.value) for one in texts):
        _set_ending(calls, path, HDF5, ending)
        return True
    return all(one.value.strip("'\"").endswith(ending) for one in texts)


def _set_ending(calls: Calls, path: cst.Arg, pattern, ending: str) -> None:
    for text in _texts(calls, path):
        if not calls.program.edits.get(text):
            calls.program.edit(
                text,
                lambda node: node.with_changes(value=re.sub(pattern, ending, node.value, count=1)),
            )


def _ask_for_ending(calls: Calls, call: cst.Call, texts: list[str], ending: str) -> None:
    if not texts or all(text.strip("'\"").endswith(ending) for text in texts):
        return
    what, how = (
        ("weights", "")
        if ending == WEIGHTS
        else ("models", " Saved models for serving come from model.export(folder).")
    )
    old = (
        " Files that tf_keras wrote stay unread: see model.get_weights there."
        if any(HDF5.search(text) for text in texts)
        else ""
    )
    calls.ask(call, f"Keras 3 keeps {what} in files that end in {ending}.{how}{old}", "model.save")
