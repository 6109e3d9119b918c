"""A served model answers as the live one does, in every consumer."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow.python.framework import op_def_registry

import tfp_vae
from tests import c_api
from tests.conftest import make_vae, mostly_slow
from tests.served_models import (
    EVENT_SHAPE,
    INPUTS,
    MODELS,
    ROWS,
    SAMPLES,
    Served,
    assert_all_close,
    assert_close,
    serve,
)
from tfp_vae import objectives, priors, sampling
from tfp_vae.seeds import Stream, seed_of
from tfp_vae.serving import signatures

tfd, tfb = tfp.distributions, tfp.bijectors
# Operations with a state that a server may run: calls, loops and the checkpoint, which is empty; weights are constants.
STATEFUL = {"StatefulPartitionedCall", "While", "If", "SaveV2", "RestoreV2", "MergeV2Checkpoints"}


class Lazily(dict):
    """A dict of what is made when it is first asked for."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def __missing__(self, name):
        self[name] = self.make(name)
        return self[name]


@pytest.fixture(scope="module")
def all_served(digits, tmp_path_factory):
    return Lazily(lambda name: serve(tmp_path_factory.mktemp(name) / "vae", digits, *MODELS[name]))


@pytest.fixture(params=mostly_slow(MODELS, "binomial"))
def served(request, all_served) -> Served:
    return all_served[request.param]


# What is written


def test_layout(served):
    files = {
        str(path.relative_to(served.folder)) for path in served.folder.rglob("*") if path.is_file()
    }
    variables = {"variables/variables.index", "variables/variables.data-00000-of-00001"}
    assert served.folder.name == "1"
    beside = {
        f"assets.extra/{name}"
        for name in ("SHA256SUMS", "tfp_vae.json", "tf_serving_warmup_requests", "model_card.md")
    }
    assert files == {"saved_model.pb", "fingerprint.pb", *beside, *variables}
    description = json.loads((served.folder / "assets.extra" / "tfp_vae.json").read_text())
    assert description["event_shape"] == list(EVENT_SHAPE)
    assert SAMPLES.items() <= description.items()


def test_only_the_weights_are_saved(served):
    graph = c_api.meta_graph(served.folder).graph_def
    constants = [
        tf.make_ndarray(node.attr["value"].tensor) for node in graph.node if node.op == "Const"
    ]
    shapes = sorted(constant.shape for constant in constants if constant.dtype != object)
    assert shapes == sorted(tuple(weight.shape) for weight in served.vae.weights)


# The graph


def test_signatures_are_batched_float32(served):
    definitions = dict(c_api.meta_graph(served.folder).signature_def)
    definitions.pop("__saved_model_init_op")
    description = definitions.pop("describe").outputs["description"]
    assert (description.dtype, [dim.size for dim in description.tensor_shape.dim]) == (
        tf.string,
        [-1],
    )
    assert set(definitions) == set(INPUTS)
    for name, definition in definitions.items():
        assert definition.method_name == "tensorflow/serving/predict"
        assert set(definition.inputs) == {INPUTS[name]}
        assert set(definition.outputs) == served.outputs[name]
        assert definition.inputs[INPUTS[name]].dtype == (
            tf.int32 if name == "sample" else tf.float32
        )
        assert {output.dtype for output in definition.outputs.values()} == {
            tf.float32.as_datatype_enum
        }
        for info in [*definition.inputs.values(), *definition.outputs.values()]:
            assert not info.tensor_shape.unknown_rank
            assert info.tensor_shape.dim[0].size == -1


def test_the_graph_runs_on_any_server(served):
    graph = c_api.meta_graph(served.folder).graph_def
    nodes = [
        *graph.node,
        *(node for function in graph.library.function for node in function.node_def),
    ]
    assert {"MatMul", "StatelessRandomNormalV2"} <= {node.op for node in nodes}
    assert not [node.op for node in nodes if "PyFunc" in node.op or "Xla" in node.op]
    assert {node.op for node in nodes if op_def_registry.get(node.op).is_stateful} <= STATEFUL
    for attributes in [item.attr for item in [*nodes, *graph.library.function]]:
        assert not attributes["_XlaMustCompile"].b


def test_a_version_describes_itself_for_each_row(served):
    (description,) = served.plain.signatures["describe"](row=tf.zeros([3], tf.int32)).values()
    assert set(description.numpy()) == {
        (served.folder / "assets.extra" / "tfp_vae.json").read_bytes()
    }
    signatures = json.loads(description.numpy()[0])["signatures"]
    assert {name: list(signature["inputs"]) for name, signature in signatures.items()} == {
        name: [input] for name, input in INPUTS.items()
    }
    for name, signature in signatures.items():
        answer = served.ask(name)
        assert {key: ["float32", list(value.shape[1:])] for key, value in answer.items()} == {
            key: [spec["dtype"], spec["shape"][1:]] for key, spec in signature["outputs"].items()
        }


# Batches


@pytest.mark.parametrize("signature", INPUTS)
def test_batches_concatenate(served, signature):
    request = served.inputs[INPUTS[signature]]
    parts = [
        served.ask(signature, request[rows]) for rows in (slice(1), slice(1, 4), slice(4, 132))
    ]
    whole = served.ask(signature)
    assert_all_close(
        {name: np.concatenate([part[name] for part in parts]) for name in whole}, whole
    )


@pytest.mark.parametrize("signature", INPUTS)
def test_answers_repeat_and_rows_do_not_see_each_other(served, signature):
    request = served.inputs[INPUTS[signature]]
    first, again = served.ask(signature, request), served.ask(signature, request)
    others = served.ask(signature, np.concatenate([request[:5], request[:-6:-1], request[10:]]))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
        np.testing.assert_array_equal(first[name][:5], others[name][:5])


def test_a_sample_depends_on_its_own_seed_alone(served):
    seed, order = served.inputs["seed"], np.random.default_rng(1).permutation(ROWS)
    drawn, permuted = served.ask("sample"), served.ask("sample", seed[order])
    assert_all_close(permuted, {name: value[order] for name, value in drawn.items()})
    assert_all_close(
        served.ask("sample", seed[7:8]), {name: value[7:8] for name, value in drawn.items()}
    )
    assert len(np.unique(drawn["z"])) == drawn["z"].size
    assert_close(drawn["z"].std(), 1, 0.1)


# The same answers everywhere


def assert_same_distribution(actual, expected, value):
    assert type(actual) is type(expected)
    assert type(getattr(actual, "distribution", None)) is type(
        getattr(expected, "distribution", None)
    )
    assert (actual.batch_shape, actual.event_shape, actual.dtype) == (
        expected.batch_shape,
        expected.event_shape,
        expected.dtype,
    )
    for statistic in ("mean", "stddev"):
        assert_close(getattr(actual, statistic)(), getattr(expected, statistic)())
    assert_close(actual.log_prob(value), expected.log_prob(value))


def test_loaded_distributions_are_the_live_ones(served):
    x, z = served.inputs["x"], served.inputs["z"]
    loaded, vae = served.loaded, served.vae
    assert_same_distribution(loaded.encode(x), vae.encode(x), z)
    assert_same_distribution(loaded.decode(z), vae.decode(z), x)
    several = np.stack([z, -z, 2 * z])
    assert_same_distribution(loaded.decode(several), vae.decode(several), np.stack([x, x, x]))
    joint = loaded.joint_distribution()
    assert_close(joint.log_prob(z=z, x=x), vae.joint_distribution().log_prob(z=z, x=x))


def test_loaded_methods_give_the_live_values(served):
    x = served.inputs["x"]
    assert_close(served.loaded.reconstruct(x), served.vae.reconstruct(x))
    assert_close(served.loaded.generate(7, seed=3), served.vae.generate(7, seed=3))
    prior = tfd.MultivariateNormalDiag(
        tf.fill(served.vae.latent_shape, 0.5), tf.fill(served.vae.latent_shape, 2.0)
    )
    for draws in (False, True):
        arguments = {"seed": 3, "prior": prior, "draws": draws}
        assert_close(served.loaded.generate(7, **arguments), served.vae.generate(7, **arguments))
    assert_all_close(served.loaded.score(x), served.ask("score"))
    assert_close(served.loaded.log_prob(x), served.ask("log_prob")["log_prob"])
    seed = served.inputs["seed"][:9]
    live = served.vae.sample_rows(tf.constant(seed))
    assert_all_close(
        served.ask("sample", seed), {name: value.numpy() for name, value in live.items()}
    )


def test_score_estimates_the_live_elbo(served):
    x = served.inputs["x"][:20]
    score, posterior = served.loaded.score(x), served.vae.encode(x)
    draws = (
        served.vae.decode(posterior.sample(1000, seed=1))
        .log_prob(np.broadcast_to(x, [1000, *x.shape]))
        .numpy()
    )
    error = draws.std(0) * np.sqrt(1 / SAMPLES["score_samples"] + 1 / len(draws))
    assert_close(score["kl"], tfd.kl_divergence(posterior, served.vae.prior(None)))
    assert_close(score["elbo"], score["log_likelihood"] - score["kl"])
    assert (np.abs(score["log_likelihood"] - draws.mean(0)) < 5 * error).all()


def test_log_prob_estimates_the_live_one(served):
    x, num_samples = served.inputs["x"][:20], SAMPLES["log_prob_samples"]
    live = np.stack([served.vae.log_prob(x, num_samples, seed) for seed in range(20)])
    assert (np.abs(served.loaded.log_prob(x) - live.mean(0)) < 6 * live.std(0)).all()


def test_estimates_take_the_promised_number_of_draws(served):
    x, seed = served.inputs["x"][:1], seed_of(Stream.SERVED_ESTIMATES)
    one_pass = objectives.OnePass(
        x, served.vae.encode(x), served.vae.prior(None), served.vae.decode, seed
    )
    z = sampling.sample(one_pass.posterior, SAMPLES["score_samples"], seed)
    assert_close(
        served.ask("score")["log_likelihood"][:1], tf.reduce_mean(one_pass.log_densities(z)[0], 0)
    )
    live = objectives.importance_sampled_log_prob(
        one_pass, SAMPLES["log_prob_samples"], draws_per_step=signatures.DRAWS_PER_STEP
    )
    assert_close(served.ask("log_prob")["log_prob"][:1], live)


def test_the_c_api_gives_the_same(served):
    with c_api.Session(served.folder) as session:
        for signature, name in INPUTS.items():
            answer = session.run(signature, **{name: served.inputs[name]})
            assert_all_close(answer, served.ask(signature))
            assert {value.dtype.name for value in answer.values()} == {"float32"}
            assert {
                len(value)
                for value in session.run(signature, **{name: served.inputs[name][:3]}).values()
            } == {3}


CLIENT = """
import importlib.machinery, sys

BLOCKED = {"keras", "tf_keras", "tensorflow_probability", "tfp_vae"}

class Blocker:  # TensorFlow asks for the spec of Keras without importing it: the import itself is refused
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name in BLOCKED else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        raise ModuleNotFoundError(f"{module.__name__} is blocked")

sys.meta_path.insert(0, Blocker())
import numpy as np
import tensorflow as tf

for folder in sys.argv[1:]:
    model, inputs, answers = tf.saved_model.load(folder), np.load(f"{folder}/inputs.npz"), {}
    for signature, function in model.signatures.items():
        if signature == "describe":
            continue
        (name,) = function.structured_input_signature[1]
        outputs = function(**{name: tf.constant(inputs[name])})
        answers |= {f"{signature}/{key}": value.numpy() for key, value in outputs.items()}
    np.savez(f"{folder}/outputs.npz", **answers)
try:
    import keras
except ModuleNotFoundError as error:
    assert "keras is blocked" in str(error)
else:
    raise AssertionError("nothing was blocked")
assert not BLOCKED & {name.partition(".")[0] for name in sys.modules}
"""


@pytest.mark.slow
def test_plain_tensorflow_gives_the_same(all_served, tmp_path):
    for name, served in ((name, all_served[name]) for name in MODELS):
        (tmp_path / name).symlink_to(served.folder)
        np.savez(served.folder / "inputs.npz", **served.inputs)
    folders = [str(tmp_path / name) for name in all_served]
    subprocess.run([sys.executable, "-c", CLIENT, *folders], check=True, timeout=300, cwd=tmp_path)
    for name, served in all_served.items():
        answers = {
            f"{signature}/{key}": value
            for signature in INPUTS
            for key, value in served.ask(signature).items()
        }
        assert_all_close(dict(np.load(tmp_path / name / "outputs.npz")), answers)


@pytest.mark.slow
def test_saved_model_cli_gives_the_same(all_served, tmp_path):
    served = all_served["binomial"]
    np.save(tmp_path / "x.npy", served.inputs["x"])
    command = [
        os.path.join(os.path.dirname(sys.executable), "saved_model_cli"),
        "run",
        "--dir",
        str(served.folder),
    ]
    command += [
        "--tag_set",
        "serve",
        "--signature_def",
        "encode",
        "--inputs",
        f"x={tmp_path / 'x.npy'}",
    ]
    subprocess.run([*command, "--outdir", str(tmp_path / "out")], check=True, timeout=300)
    answers = {path.stem: np.load(path) for path in (tmp_path / "out").iterdir()}
    assert_all_close(answers, served.ask("encode"))


# Errors


@pytest.mark.parametrize("method", ["encode", "reconstruct", "score", "log_prob"])
@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 8, 8, 2), (8, 1), (1,)])
def test_wrong_shapes_of_x_are_named(all_served, method, shape):
    with pytest.raises(
        ValueError, match=f"{method} takes x of shape .*8, 8, 1.*received .*{shape[-1]}"
    ):
        getattr(all_served["binomial"].loaded, method)(np.zeros(shape, "float32"))


# A reshape to [-1, 4] would take the first two, and answer for another number of rows.
@pytest.mark.parametrize("shape", [(2, 8), (4, 5), (3, 5), (2, 3, 2)])
def test_wrong_shapes_of_z_are_named(all_served, shape):
    with pytest.raises(ValueError, match=f"z of shape .*4.*received .*{shape[-1]}"):
        all_served["binomial"].loaded.decode(np.zeros(shape, "float32"))


class Flow(priors.StandardNormal):
    """A transformed normal: a bijector is no tensor."""

    def call(self, inputs=None):
        return tfb.Softplus()(tfd.MultivariateNormalDiag(tf.zeros([self.event_size])))


def test_a_prior_that_tensors_do_not_determine_can_be_served(digits, tmp_path):
    vae = make_vae(prior=Flow(4))
    vae.export(tmp_path / "flow", score_samples=1, log_prob_samples=1)
    served = tfp_vae.load(tmp_path / "flow")
    np.testing.assert_allclose(served.generate(3), vae.generate(3), rtol=1e-4, atol=1e-4)
    z = vae.prior_distribution().sample([2, 3], seed=1)
    for model in (served, vae):
        joint = model.joint_distribution()
        drawn = joint.sample(5, seed=1)
        assert (drawn["z"].shape, drawn["x"].shape) == ([5, 4], [5, 8, 8, 1])
    np.testing.assert_allclose(
        served.prior_distribution().log_prob(z), vae.prior_distribution().log_prob(z), rtol=1e-4
    )
    prior = served.prior_distribution()
    np.testing.assert_array_equal(prior.prob(z), tf.exp(prior.log_prob(z)))
    pinned = [one.joint_distribution().experimental_pin(x=digits.test[0]) for one in (served, vae)]
    np.testing.assert_allclose(*(one.unnormalized_log_prob(z) for one in pinned), rtol=1e-4)
    draws = prior.sample(3000, seed=2)
    np.testing.assert_allclose(tf.reduce_mean(draws, 0), np.full(4, 0.8064), atol=0.05)
    with pytest.raises(NotImplementedError, match="A served prior has no mean"):
        served.prior_distribution().mean()


def test_the_prior_of_an_earlier_export_is_only_drawn_from(digits, tmp_path):
    version = make_vae(prior=Flow(4)).export(tmp_path / "flow", score_samples=1, log_prob_samples=1)
    description = version / "assets.extra" / "tfp_vae.json"
    content = json.loads(description.read_text())
    del content["signatures"]["prior_log_prob"]
    description.write_text(json.dumps(content))
    (version / "assets.extra" / "SHA256SUMS").unlink()
    with pytest.raises(ValueError, match=r"prior .* is not determined by tensors"):
        tfp_vae.load(version).joint_distribution()
