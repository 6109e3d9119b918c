"""Shapes of inputs: `InputLayer` and `input_shape=` become `keras.Input`."""

import libcst as cst
from libcst import matchers as m

from tfp_vae.migration.calls import LAYERS, Calls, argument, keyword_of, receiver, renamed, without
from tfp_vae.migration.program import Node, first_name, is_dotted

SHAPES = ("input_shape", "batch_input_shape", "input_dim")
FIRST_IN_LIST, FIRST_ADDED, NOT_FIRST, UNKNOWN = range(4)
ADDED = m.SimpleStatementLine(body=[m.Expr(m.Call(m.Attribute(attr=m.Name("add")), [m.Arg()]))])


def input_layer(calls: Calls, call: cst.Call) -> None:
    """`InputLayer(input_shape=s)` becomes `Input(s)`."""
    spelled = calls.uses.spell("keras.Input", call.func)
    calls.uses.leave(call.func)
    names = {"input_shape": "shape", "batch_input_shape": "batch_shape", "input_tensor": "tensor"}

    def change(updated: cst.Call) -> cst.Call:
        args = renamed(updated.args, names)
        if args and keyword_of(args[0]) == "shape":
            args[0] = args[0].with_changes(keyword=None, equal=cst.MaybeSentinel.DEFAULT)
        if args and m.matches(args[0], m.Arg(m.Integer(), keyword=None)):
            number = cst.ensure_type(args[0].value, cst.Integer).value
            args[0] = args[0].with_changes(value=cst.parse_expression(f"({number},)"))
        return updated.with_changes(func=cst.parse_expression(spelled), args=args)

    calls.program.edit(call, change)


def input_of_model(calls: Calls, call: cst.Call) -> None:
    """`Model(sequential.inputs, y)` becomes `Model(sequential.inputs[0], y)`: not a list of one."""
    inputs = argument(call, "inputs", 0)
    if (
        inputs
        and m.matches(inputs.value, m.Attribute(m.Name(), m.Name("inputs")))
        and any("Sequential" in one for one in calls.makers(first_name(inputs.value)))
    ):
        only = cst.parse_expression(f"{calls.program.code(inputs.value)}[0]")
        calls.program.edit(inputs, lambda arg: arg.with_changes(value=only))


def layer_with_shape(calls: Calls, call: cst.Call) -> None:
    """A layer with `input_shape=` gets an `Input` before it, where it is first in a model."""
    given = [keyword_of(one) for one in call.args if keyword_of(one) in SHAPES]
    name = calls.program.meaning(call.func)
    if not given or calls.program.code(call.func).endswith("InputLayer"):
        return  # an `InputLayer` whose module is not known is left as it is
    place = _place(calls, call)
    if place == UNKNOWN:
        if LAYERS.match(name):
            text = f"Put a keras.Input of this shape before the layer and leave out {given[0]}=."
            calls.ask(call, text, "Keras 3 expects the shape in an `Input`")
        return
    calls.set_arguments(call, lambda args: without(args, *SHAPES, "batch_size"))
    if place == NOT_FIRST:
        return
    code = f"{calls.uses.spell('keras.Input', call.func)}({_shape(calls, call)})"
    parents = calls.program.parents
    if place == FIRST_IN_LIST:
        calls.program.edit(parents[parents[call]], lambda values: _with_first(values, code))
    else:
        model = calls.program.code(receiver(parents[parents[call]]))
        line = f"{model}.add({code})"
        calls.program.lines_before[calls.program.statement(call)].append(line)


def _place(calls: Calls, call: cst.Call) -> int:
    """Return where a layer stands in a model."""
    parents = calls.program.parents
    above = parents[call]
    around = parents[above]
    if isinstance(above, cst.Call):  # called with a tensor, whose shape is known
        return NOT_FIRST
    if isinstance(above, cst.Element) and isinstance(around, cst.List):
        in_model = calls.name(parents[parents[around]]).endswith(".Sequential")
        others = [one for one in around.elements[1:] if _has_shape(one.value)]
        if not in_model and (others or not LAYERS.match(calls.program.meaning(call.func))):
            return UNKNOWN
        return FIRST_IN_LIST if around.elements[0] is above else NOT_FIRST
    if calls.name(around) == ".add" and is_dotted(receiver(around)):
        statement = calls.program.statement(call)
        filled = calls.filled[calls.program.code(receiver(around))]
        blocks = calls.program.path(statement)
        if any(one in blocks for one in filled):
            return NOT_FIRST
        once = not any(isinstance(one, cst.For | cst.While) for one in blocks)
        return FIRST_ADDED if once and not filled and m.matches(statement, ADDED) else UNKNOWN
    return UNKNOWN


def _has_shape(node: Node) -> bool:
    return isinstance(node, cst.Call) and any(keyword_of(one) in SHAPES for one in node.args)


def _shape(calls: Calls, call: cst.Call) -> str:
    """Return the arguments of the `Input` that stands before a layer: it had the layer's dtype."""
    given = {keyword_of(one): calls.program.code(one.value) for one in call.args if one.keyword}
    if "batch_input_shape" in given:
        given["batch_size"] = ""
        shape = f"batch_shape={given['batch_input_shape']}"
    else:
        shape = f"({given['input_dim']},)" if "input_dim" in given else given["input_shape"]
        shape = f"({shape},)" if shape.isdecimal() else shape
    if "mixed" in given.get("dtype", ""):
        given["dtype"] = ""  # a policy, under which variables, and so inputs, are float32
    others = [f"{name}={given[name]}" for name in ("batch_size", "dtype") if given.get(name)]
    return ", ".join([shape, *others])


def _with_first(values: cst.List, code: str) -> cst.List:
    """Return a list with one more element before all others."""
    space = values.lbracket.whitespace_after
    if isinstance(space, cst.ParenthesizedWhitespace):
        space = space.with_changes(first_line=cst.TrailingWhitespace(), empty_lines=())
    else:
        space = cst.SimpleWhitespace(" ")
    new = cst.Element(cst.parse_expression(code), comma=cst.Comma(whitespace_after=space))
    return values.with_changes(elements=[new, *values.elements])
