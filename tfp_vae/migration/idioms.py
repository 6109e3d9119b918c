"""The table of idioms of calls: a row for each, a pattern of what is called and a function."""

from collections.abc import Callable

import libcst as cst
from libcst import matchers as m

from tfp_vae.migration import saving, shapes
from tfp_vae.migration.calls import (
    LAYERS,
    OPTIMIZERS,
    Calls,
    argument,
    keyword_of,
    receiver,
    renamed,
    with_keyword,
    without,
)
from tfp_vae.migration.names import AXIS_OPS
from tfp_vae.migration.program import SECTION, Node
from tfp_vae.migration.saving import KERAS, WEIGHTS


def keywords(changes: dict[str, str]) -> Callable:
    """Return the idiom of a call whose keywords have new names; an empty one takes them out."""
    gone = [old for old, new in changes.items() if not new]
    names = {old: new for old, new in changes.items() if new}

    def idiom(calls: Calls, call: cst.Call) -> None:
        if any(keyword_of(one) in changes for one in call.args):
            calls.set_arguments(call, lambda args: renamed(without(args, *gone), names))

    return idiom


def asks(text: str, given: str = "") -> Callable:
    """Return the idiom of a call that gets a comment, perhaps only if a keyword is given."""

    def idiom(calls: Calls, call: cst.Call) -> None:
        if not given or argument(call, given):
            calls.ask(call, text, SECTION)

    return idiom


def lower_case(name: str) -> Callable:
    """Return the idiom of a call with a keyword whose text Keras 3 wants in lower case."""

    def idiom(calls: Calls, call: cst.Call) -> None:
        given: Node = argument(call, name)
        code = calls.program.code(given.value) if given else ""
        if code.isupper() and m.matches(given.value, m.SimpleString()):
            text = cst.SimpleString(code.lower())
            calls.program.edit(given, lambda arg: arg.with_changes(value=text))

    return idiom


def method(name: str) -> Callable:
    """Return the idiom of a method that has another name in Keras 3."""

    def idiom(calls: Calls, call: cst.Call) -> None:
        calls.program.edit(call.func, lambda func: func.with_changes(attr=cst.Name(name)))

    return idiom


def default_axis(calls: Calls, call: cst.Call) -> None:
    """Say the axis, whose default in `keras.ops` is not the one of `keras.backend`."""
    if argument(call, "axis", 1) is None:
        axis = "0" if ".cum" in calls.name(call) else "-1"
        calls.set_arguments(call, lambda args: with_keyword(args, "axis", axis))


def no_input(calls: Calls, call: cst.Call) -> None:
    """`model(0.0)` becomes `model(None)`, as Keras 3 takes no numbers for tensors.

    A model with a `keras.Input` needs a tensor with a batch axis instead.
    """
    number = m.Arg(m.Float() | m.Integer(), keyword=None)
    if not (call.args and m.matches(call.args[0], number) and calls.is_model(call.func)):
        return
    if all(maker.endswith(".Model") for maker in calls.makers(call.func)):
        calls.ask(
            call,
            "A model with a keras.Input takes no number: pass a tensor with a batch axis, such as "
            "keras.ops.zeros([1]).",
            "If a distribution has no input",
        )
    else:
        calls.program.edit(call.args[0], lambda arg: arg.with_changes(value=cst.Name("None")))


def named_weight(calls: Calls, call: cst.Call) -> None:
    """`add_weight("w", shape)` becomes `add_weight(name="w", shape=shape)`."""
    positional = [one for one in call.args if not one.keyword and not one.star]
    if not positional or not m.matches(positional[0].value, m.SimpleString()):
        return
    names = ("name", "shape", "dtype", "initializer", "regularizer", "trainable")
    equal = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))

    def change(args):
        return [
            one.with_changes(keyword=cst.Name(names[place]), equal=equal)
            if place < len(positional)
            else one
            for place, one in enumerate(args)
        ]

    calls.set_arguments(call, change)


# Divergences.


def regularizer(calls: Calls, call: cst.Call) -> None:
    """Double the weight, as `tfp.layers` counts the divergence twice."""
    given = argument(call, "weight", 4)
    if given and any(maker.endswith(".Variable") for maker in calls.makers(given.value)):
        # Its double would keep the value of now, whatever is assigned later.
        calls.ask(
            call,
            "tfp.layers counts this divergence twice: assign twice the values to the variable to "
            "keep its numbers, or leave them for the negative ELBO.",
            "KLDivergenceRegularizer",
        )
        return
    calls.ask(
        call,
        "A weight of 2.0 keeps the numbers of tfp.layers, which counts this divergence twice; take "
        "it out for the negative ELBO.",
        "KLDivergenceRegularizer",
    )
    if any(one.star for one in call.args):
        return  # perhaps with a weight: the comment tells of it
    if given is None or m.matches(given.value, m.Name("None")):
        calls.set_arguments(
            call, lambda args: with_keyword(without(args, "weight"), "weight", "2.0")
        )
    else:
        code = calls.program.code(given.value)
        simple = m.matches(given.value, m.Name() | m.Attribute() | m.Call() | m.BaseNumber())
        doubled = cst.parse_expression(f"2.0 * {code}" if simple else f"2.0 * ({code})")
        calls.program.edit(given, lambda arg: arg.with_changes(value=doubled))


def added_loss(calls: Calls, call: cst.Call) -> None:
    """Ask about a divergence that `tfp.layers` adds up over the batch."""
    exact = argument(call, "use_exact_kl", 1)
    if exact and not m.matches(exact.value, m.Name("False")):
        calls.ask(
            call,
            "tfp.layers adds an exact divergence up over the batch, this package takes its mean: "
            "right for the negative ELBO; weight=batch_size gives the old numbers.",
            "KLDivergenceAddLoss",
        )


# What Keras 3 does not do.


def symbolic_argument(calls: Calls, call: cst.Call) -> None:
    """Ask about a symbolic tensor that is given to TensorFlow, or to a distribution."""
    nodes = [one.value for one in call.args]
    if calls.name(call).startswith("."):
        nodes.append(receiver(call))
    if any(_is_symbolic(calls, node, 5) for node in nodes):
        calls.ask(
            call,
            "A symbolic tensor of Keras 3 is not one of TensorFlow: use keras.ops, or put this into "
            "the call of a layer.",
            "Layers of your own",
        )


def kind_of_output(calls: Calls, call: cst.Call) -> None:
    """Ask about `isinstance(rv, tfd.Normal)`: a layer's output is a `tfd.Distribution`, no more."""
    is_question = m.matches(call.func, m.Name("isinstance")) and len(call.args) == 2
    if is_question and calls.uses_keras and _names_a_distribution(calls, call.args[1].value):
        calls.ask(
            call,
            "The output of a layer is a tfd.Distribution, but of none of its subclasses: ask "
            "rv.tensor_distribution.",
            "plain = model(x).tensor_distribution",
        )


def _names_a_distribution(calls: Calls, node: Node) -> bool:
    kinds = [one.value for one in node.elements] if isinstance(node, cst.Tuple) else [node]
    names = [calls.program.meaning(kind).rpartition(".") for kind in kinds]
    return any(
        module.endswith(".distributions") and name != "Distribution" for module, _, name in names
    )


def _is_symbolic(calls: Calls, node: Node, depth: int) -> bool:
    values = calls.program.values(node) if isinstance(node, cst.Name) else [node]
    made = [one for one in values if isinstance(one, cst.Call)]
    if any(
        calls.program.meaning(one.func) in ("keras.Input", "keras.layers.Input") for one in made
    ):
        return True
    return depth > 0 and any(
        _is_symbolic(calls, one.args[0].value, depth - 1)
        for one in made
        if one.args and LAYERS.match(calls.name(one.func))
    )


def decay(calls: Calls, call: cst.Call) -> None:
    """Ask about an optimizer whose rate decays."""
    given = argument(call, "decay")
    if given and calls.program.code(given.value) in ("0", "0.", "0.0"):
        calls.set_arguments(call, lambda args: without(args, "decay"))
    elif given:
        calls.ask(
            call,
            "Keras 3 ignores decay: the learning rate keras.optimizers.schedules.InverseTimeDecay"
            "(learning_rate, 1, decay) is the same.",
        )


def method_of_optimizer(calls: Calls, call: cst.Call) -> None:
    """Ask about `optimizer.minimize`."""
    if any(OPTIMIZERS.match(one) for one in calls.makers(receiver(call))):
        calls.ask(call, "Keras 3 has no minimize: take a tf.GradientTape and apply_gradients.")


def loss_of_model(calls: Calls, call: cst.Call) -> None:
    """Ask about `model.add_loss(...)`, which Keras 3 has only in the call of a layer."""
    if not m.matches(call.func, m.Attribute(m.Name("self"))) or m.matches(
        call, m.Call(args=[m.Arg(m.Lambda())])
    ):
        calls.ask(call, "Keras 3 takes add_loss only in the call of a layer, with a tensor.")


def legacy_switch(calls: Calls, call: cst.Call) -> None:
    """Take out a call that sets `TF_USE_LEGACY_KERAS`."""
    statement = calls.program.parents[call]
    if "TF_USE_LEGACY_KERAS" in calls.program.code(call) and isinstance(statement, cst.Expr):
        calls.uses.leave(call.func)
        calls.program.edit(statement, lambda _: cst.RemoveFromParent())


LOOPS = {"workers": "", "use_multiprocessing": "", "max_queue_size": ""}
IDIOMS: tuple[tuple[str, Callable[[Calls, cst.Call], None]], ...] = (
    (r"keras\.layers\.InputLayer", shapes.input_layer),
    (r"(?!keras\.(applications\.|layers\.InputLayer$)).*", shapes.layer_with_shape),
    (r"keras\.(models\.)?Model", shapes.input_of_model),
    (r".*", no_input),
    (r".*", kind_of_output),
    (r"\.save", saving.written(KERAS)),
    (r"keras\.(models\.)?save_model", saving.written(KERAS, 1)),
    (r"\.save_weights", saving.written(WEIGHTS)),
    (r"keras\.(models\.)?load_model", saving.read(KERAS)),
    (r"\.load_weights", saving.read(WEIGHTS)),
    (r"keras\.callbacks\.ModelCheckpoint", saving.checkpoint),
    (r"tensorflow(\.compat\.v2)?\.saved_model\.save", saving.exported),
    (r"tfp\.layers\.KLDivergenceRegularizer", regularizer),
    (r"tfp\.layers\.KLDivergenceAddLoss", added_loss),
    (OPTIMIZERS.pattern, keywords({"lr": "learning_rate"})),
    (OPTIMIZERS.pattern, decay),
    (r"\.minimize", method_of_optimizer),
    (r"keras\.layers\..*", lower_case("padding")),
    (r"keras\.layers\.Embedding", keywords({"input_length": ""})),
    (r"keras\.regularizers\.(l1|L1)", keywords({"l": "l1"})),
    (r"keras\.regularizers\.(l2|L2)", keywords({"l": "l2"})),
    (r"keras\.layers\.LeakyReLU", keywords({"alpha": "negative_slope"})),
    (r"keras\.callbacks\.ModelCheckpoint", asks("Keras 3 has no period.", given="period")),
    (rf"keras\.backend\.({'|'.join(AXIS_OPS)})", default_axis),
    (r"keras\.backend\.clip", keywords({"min_value": "x_min", "max_value": "x_max"})),
    (r"\.compile", keywords({"experimental_run_tf_function": ""})),
    (r"\.(fit|evaluate|predict)", keywords(LOOPS)),
    (r"\.(fit|evaluate|predict)_generator", keywords(LOOPS)),
    (r"\.fit_generator", method("fit")),
    (r"\.evaluate_generator", method("evaluate")),
    (r"\.predict_generator", method("predict")),
    (r"\.predict_proba", method("predict")),
    (r"\.reset_states", method("reset_state")),
    (
        r"\.predict_classes",
        asks("Keras 3 has no predict_classes: take the argmax of predict, or predict(x) > 0.5."),
    ),
    (r"\.add_loss", loss_of_model),
    (r"\.add_variable", method("add_weight")),
    (r"\.add_(weight|variable)", named_weight),
    (r"tensorflow\.(?!saved_model|compat).*", symbolic_argument),
    (r"\.(log_prob|prob|mean|mode|sample|stddev|variance|entropy)", symbolic_argument),
    (r"os\.(putenv|environ\.setdefault)", legacy_switch),
)
