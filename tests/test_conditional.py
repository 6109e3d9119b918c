"""Conditional VAEs as users meet them: labels and vectors, every method, pictures, the command line, bad input."""

import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import stats
from sklearn.datasets import load_digits

import tfp_vae
from tests.conftest import mostly_slow
from tests.test_cli import SMALL, invoke
from tfp_vae import cli, datasets, evaluation, networks, plots, priors, quantity
from tfp_vae import layers as tfpl
from tfp_vae.cli.names import parse_condition

tfd = tfp.distributions
RANDOM = np.random.default_rng(0)
LABELS = np.arange(24) % 3
X = (RANDOM.normal(size=(24, 4)) + 3.0 * LABELS[:, np.newaxis]).astype("float32")
VECTORS = np.eye(3, dtype="float32")[LABELS]


def embedding():
    return keras.Sequential([keras.Input((), dtype="int32"), keras.layers.Embedding(3, 5)])


# What a condition enters the networks by, and the conditions of X.
CONDITIONS = {
    "one-hot": (lambda: networks.one_hot(3), LABELS),
    "embedding": (embedding, LABELS.astype("int64")),
    "vectors": (lambda: (3,), VECTORS),
    "several labels": (lambda: networks.one_hot(3, (2,)), np.stack([LABELS, LABELS[::-1]], 1)),
}


def prior_given(source):
    return networks.from_inputs(
        {"condition": source}, [keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2)]
    )


def make_vae(source=(3,), prior=None, **kwargs):
    encoder = networks.from_inputs(
        {"x": (4,), "condition": source}, [keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2)]
    )
    decoder = networks.from_inputs(
        {"z": (2,), "condition": source},
        [keras.layers.Dense(4), tfpl.IndependentNormalLearnedScale(4)],
    )
    return tfp_vae.VAE(encoder, decoder, prior=prior, **kwargs)


def of_labels(**kwargs):
    return make_vae(networks.one_hot(3), **kwargs)


def named(condition=LABELS, x=X):
    return {"x": x, "condition": condition}


@pytest.fixture(scope="module")
def trained():
    """A VAE of labels: leave it as it is."""
    keras.utils.set_random_seed(0)
    vae = of_labels()
    vae.compile(keras.optimizers.Adam(5e-2), steps_per_execution=50)
    often = tf.nest.map_structure(lambda values: np.concatenate([values] * 50), named())
    vae.fit(often, epochs=10, batch_size=24, shuffle=False, verbose=0)
    return vae


@pytest.mark.parametrize("name", mostly_slow(CONDITIONS, "one-hot"))
@pytest.mark.parametrize("with_prior", [False, True])
@pytest.mark.rows(1, 2)
def test_every_method_takes_every_kind_of_condition(name, with_prior, tmp_path):
    make, condition = CONDITIONS[name]
    source = make()
    vae, data = make_vae(source, prior_given(source) if with_prior else None), named(condition)
    vae.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    history = vae.fit(data, epochs=2, batch_size=10, validation_data=(data,), verbose=0).history
    assert np.isfinite(list(history.values())).all()
    vae.save(tmp_path / "vae.keras")
    again = keras.models.load_model(tmp_path / "vae.keras")
    assert again.condition == vae.condition
    np.testing.assert_array_equal(again(data)["elbo"], vae(data)["elbo"])
    assert vae.encode(data).batch_shape == vae.log_prob(data, 5).shape == (24,)
    assert vae.reconstruct(data).shape == vae.predict(data, verbose=0).shape == (24, 4)
    assert (
        vae.generate(6, condition=condition[0]).shape
        == vae.generate(6, condition=condition[:6]).shape
        == (6, 4)
    )
    np.testing.assert_allclose(
        vae.generate(6, seed=2, condition=condition[:6])[4],
        vae.generate(6, seed=2, condition=condition[4])[4],
        rtol=1e-5,
        atol=1e-6,
    )
    assert vae.decode(np.zeros([7, 24, 2]), condition).batch_shape == (7, 24)
    joint = vae.joint_distribution(condition[:5])
    drawn = joint.sample(seed=[1, 2])
    assert drawn["z"].shape == (5, 2)
    assert joint.log_prob(drawn).shape == (5,)
    assert joint.sample(3, seed=[1, 2])["z"].shape == (3, 5, 2)
    assert vae.prior_distribution(condition).batch_shape == (24,)


@pytest.mark.slow
def test_every_form_of_data_means_the_same():
    data, forms = named(), {}
    batches = tf.data.Dataset.from_tensor_slices(data).batch(8)
    for form, given in {
        "arrays": data,
        "tensors": tf.nest.map_structure(tf.constant, data),
        "batches": batches,
    }.items():
        keras.utils.set_random_seed(0)
        vae = of_labels()
        vae.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
        vae.decoder.layers[-1].begin_at({"x": X})  # of batches, `fit` looks at the first alone
        for validation in (
            (data,),
            (data, None, np.ones(24)),
            data,
            batches,
            tf.data.Dataset.from_tensor_slices((data,)).batch(8),
        ):
            assert (
                "val_elbo"
                in vae.fit(
                    given, batch_size=8, shuffle=False, verbose=0, validation_data=validation
                ).history
            )
        forms[form] = [
            *vae.get_weights(),
            vae.evaluate(given, batch_size=8, verbose=0, return_dict=True)["elbo"],
        ]
    for weights in forms.values():
        for a, b in zip(weights, forms["arrays"], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    weighted = tf.data.Dataset.from_tensor_slices(
        (data, np.zeros(24), np.ones(24, "float32"))
    ).batch(8)
    assert np.isfinite(vae.evaluate(weighted, verbose=0)).all()  # a weight needs some y before it


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_precision(policy):
    """Labels and densities stay whole: a half-precision 2049 would be 2048."""
    keras.config.set_dtype_policy(policy)
    vae = make_vae(networks.one_hot(3000))
    vae.compile("adam")
    data = named(np.full(24, 2049))
    assert np.isfinite(vae.fit(data, verbose=0).history["loss"]).all()
    assert vae.log_prob(data, 3).dtype == ("float64" if policy == "float64" else "float32")
    kernel = vae.decoder.layers[-2].kernel
    kernel.assign(
        tf.concat(
            [
                tf.zeros([2, 4]),
                tf.cast(tf.range(3000) == 2049, "float32")[:, tf.newaxis] * tf.ones([1, 4]),
            ],
            0,
        )
    )
    assert abs(
        vae.generate(1, condition=2049) - vae.generate(1, condition=2048)
    ).min() == pytest.approx(1.0, abs=0.01)


def test_xla_changes_nothing_that_can_be_seen():
    elbos = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        vae = of_labels()
        vae.compile(keras.optimizers.SGD(1e-4), jit_compile=jit_compile)
        elbos.append(vae.evaluate(named(), verbose=0, return_dict=True)["kl"])
    assert elbos[0] == pytest.approx(elbos[1], rel=1e-5)


def exact_vae():
    """p(x|c) = N(3 c, 1 + 4): z adds with slope 2 to the label's mean; the encoder gives the exact posterior."""
    label = networks.one_hot(3)

    def posterior(t):
        gain = 2.0 / 5.0
        return tfd.MultivariateNormalDiag(
            gain * (t[:, :1] - 3.0 * t[:, 2:3] - 6.0 * t[:, 3:]), [np.float32(0.2**0.5)]
        )

    def likelihood(t):
        mean = 2.0 * t[:, :1] + 3.0 * t[:, 2:3] + 6.0 * t[:, 3:]
        return tfd.Independent(tfd.Normal(mean, 1.0), 1)

    encoder = networks.from_inputs(
        {"x": (1,), "condition": label}, [tfpl.DistributionLambda(posterior)]
    )
    decoder = networks.from_inputs(
        {"z": (1,), "condition": label}, [tfpl.DistributionLambda(likelihood)]
    )
    return tfp_vae.VAE(encoder, decoder)


def test_the_evidence_is_that_of_each_condition():
    """Against SciPy's density; by Bayes' rule the mean saving over log p(x) is the mutual information, at most ln 3."""
    vae, random = exact_vae(), np.random.default_rng(0)
    labels = random.integers(0, 3, 5000)
    x = random.normal(3.0 * labels, np.sqrt(5.0)).astype("float32")[:, np.newaxis]
    exact = stats.norm.logpdf(x, 3.0 * np.arange(3), np.sqrt(5.0))
    own = exact[np.arange(5000), labels]
    np.testing.assert_allclose(vae.log_prob(named(labels, x), 2), own, rtol=1e-4, atol=1e-4)
    assert evaluation.evaluate(vae, named(labels, x), num_samples=2)["nll"] == pytest.approx(
        -own.mean(), abs=1e-4
    )
    per_label = np.stack([vae.log_prob(named(np.full(5000, label), x), 2) for label in range(3)], 1)
    saved = own - np.log(np.mean(np.exp(per_label), 1))
    assert 0.2 < saved.mean() < np.log(3.0)
    assert saved.max() <= np.log(3.0) + 1e-4


def test_what_is_generated_has_the_mean_of_its_condition(trained):
    x = trained.generate(3000, condition=np.repeat(np.arange(3), 1000)).reshape(3, 1000, 4).mean(1)
    np.testing.assert_allclose(x, [X[label == LABELS].mean(0) for label in range(3)], atol=0.6)


def test_numbers_and_an_aggregate_prior(trained):
    numbers = evaluation.evaluate(trained, named(), num_samples=500, batch_size=7)
    # The ELBO has one draw an example, of 24 examples.
    assert numbers["nll"] <= numbers["negative_elbo"] + 0.5
    prior = tfp_vae.fit_aggregate_prior(trained, named(), num_components=2, batch_size=7)
    assert prior.event_shape == (2,)
    assert trained.generate(5, condition=1, prior=prior).shape == (5, 4)
    with pytest.raises(
        ValueError, match="prior depends on the condition, so each condition has an aggregate"
    ):
        tfp_vae.fit_aggregate_prior(
            of_labels(prior=prior_given(networks.one_hot(3))), named(), num_components=2
        )


def curves(figure):
    return [axes.lines[0].get_ydata() for axes in figure.axes]


def test_pictures(trained):
    rows = plots.samples(trained, condition=[2, 0], num_columns=3, seed=1)
    expected = np.concatenate([trained.generate(3, seed=1, condition=label) for label in (2, 0)])
    np.testing.assert_allclose(curves(rows), expected, rtol=1e-5)
    assert [axes.get_ylabel() for axes in rows.axes] == ["2", "", "", "0", "", ""]
    one = plots.samples(trained, condition=2, num_rows=2, num_columns=2)
    np.testing.assert_allclose(curves(one), trained.generate(4, condition=2), rtol=1e-5)
    pair = plots.reconstructions(trained, named(), num_examples=3)
    few = named(LABELS[:3], X[:3])
    np.testing.assert_allclose(curves(pair), [*X[:3], *trained.reconstruct(few)], rtol=1e-5)
    moved = plots.latent_traversal(trained, named(), num_dims=1, num_steps=3, condition=1)
    np.testing.assert_allclose(curves(moved)[1], trained.decode([0.0, 0.0], 1).mean(), rtol=1e-5)
    for draw in (lambda: plots.samples(trained), lambda: plots.latent_traversal(trained, named())):
        with pytest.raises(ValueError, match="VAE is conditional"):
            draw()


def test_a_label_table_is_found_wherever_the_condition_goes():
    def functional(*layers):
        tensor = given = keras.Input((), dtype="int32", name="condition")
        for layer in layers:
            tensor = layer(tensor)
        return keras.Model(given, tensor)

    embed = keras.layers.Embedding
    shared = keras.Input((), dtype="int32", name="condition")
    assert quantity.num_labels(functional(embed(5, 2))) == 5
    assert quantity.num_labels(functional(keras.layers.Reshape((1,)), embed(6, 2))) == 6
    assert quantity.num_labels(functional(functional(embed(7, 2)))) == 7
    assert quantity.num_labels(keras.Model(shared, [embed(9, 2)(shared), embed(4, 2)(shared)])) == 4
    assert (
        quantity.num_labels(
            networks.from_inputs(
                {"x": (2,), "condition": networks.one_hot(8)}, [keras.layers.Dense(1)]
            )
        )
        == 8
    )
    assert (
        quantity.num_labels(
            networks.from_inputs({"x": (2,), "condition": (8,)}, [keras.layers.Dense(1)])
        )
        is None
    )


def fitted(vae, *data, **kwargs):
    vae.compile("adam", run_eagerly=True)
    return vae.fit(*data, verbose=0, **kwargs)


def dataset(*parts):
    return tf.data.Dataset.from_tensor_slices(parts if len(parts) > 1 else parts[0]).batch(8)


UNKNOWN = "condition must be a label from 0 to 2, which the networks know; received labels from"
FRACTIONS = r"condition must be whole numbers, .*received float.*Convert it, as in condition\.astype\('int32'\)"
BY_NAME = r'given to a conditional model, which would ignore y\. Pass .* by name: fit\(\{"x": x, "condition": y\}\)'
NAN = "condition holds values that are NaN or infinite"
BAD = {
    "a label never seen": (lambda: fitted(of_labels(), named(LABELS + 1)), f"{UNKNOWN} 1 to 3"),
    "a negative label": (lambda: of_labels().generate(3, condition=-1), f"{UNKNOWN} -1 to -1"),
    "one of many labels": (
        lambda: of_labels().log_prob(named(np.where(X[:, 0] > X[:-1, 0].max() - 1, 9, LABELS))),
        UNKNOWN,
    ),
    "an embedding's range": (lambda: make_vae(embedding()).encode(named(LABELS + 1)), UNKNOWN),
    "of a prior": (lambda: make_vae(prior=None).prior_distribution(np.full(3, np.nan)), NAN),
    "decode": (lambda: of_labels().decode(np.zeros([1, 2]), 3), UNKNOWN),
    "decode three for two": (
        lambda: of_labels().decode(np.zeros([2, 2]), [0, 1, 2]),
        r"z has the leading axes \(2,\), the condition \(3,\)",
    ),
    "joint": (lambda: of_labels().joint_distribution(3), UNKNOWN),
    "evaluate": (lambda: of_labels().evaluate(named(LABELS + 1)), UNKNOWN),
    "evaluation": (
        lambda: evaluation.evaluate(of_labels(), named(LABELS + 1), num_samples=2),
        UNKNOWN,
    ),
    "predict": (lambda: of_labels().predict(named(LABELS + 1), verbose=0), UNKNOWN),
    "first batch": (lambda: fitted(of_labels(), dataset(named(LABELS + 1))), UNKNOWN),
    "validation": (
        lambda: fitted(of_labels(), named(), validation_data=(named(LABELS + 1),)),
        UNKNOWN,
    ),
    "float labels": (lambda: fitted(of_labels(), named(LABELS.astype("float32"))), FRACTIONS),
    "a fraction": (lambda: of_labels().generate(3, condition=0.5), FRACTIONS),
    "words": (
        lambda: of_labels().generate(3, condition="seven"),
        "must be whole numbers, .* received str",
    ),
    "NaN": (lambda: fitted(make_vae(), named(np.where(VECTORS > 0.5, np.nan, VECTORS))), NAN),
    "infinite": (lambda: make_vae().generate(2, condition=[np.inf, 0.0, 0.0]), NAN),
    "vectors for labels": (
        lambda: of_labels().encode(named(np.eye(3, dtype="int32")[LABELS])),
        r"x has the leading axes \(24,\), the condition \(24, 3\)",
    ),
    "labels for vectors": (
        lambda: fitted(make_vae(), named(LABELS)),
        r"condition of shape \[\.\.\., 3\], received shape",
    ),
    "y": (lambda: fitted(of_labels(), named(), LABELS), f"^y was {BY_NAME}"),
    "y beside x": (lambda: fitted(of_labels(), X, LABELS), f"^y was {BY_NAME}"),
    "a tuple": (lambda: fitted(of_labels(), (X, LABELS)), f"A tuple .* was {BY_NAME}"),
    "tuples": (lambda: fitted(of_labels(), dataset(X, LABELS)), f"A tuple .* was {BY_NAME}"),
    "dicts and labels": (
        lambda: fitted(of_labels(), dataset(named(), LABELS)),
        f"A tuple .* was {BY_NAME}",
    ),
    "y to evaluate": (lambda: of_labels().evaluate(named(), LABELS), f"^y was {BY_NAME}"),
    "tuples to predict": (lambda: of_labels().predict((X, LABELS)), f"A tuple .* was {BY_NAME}"),
    "y to validate": (
        lambda: fitted(of_labels(), named(), validation_data=(X, LABELS)),
        f"^y was {BY_NAME}",
    ),
    "too few conditions": (
        lambda: of_labels().encode(named(LABELS[:3])),
        r"axes \(24,\), the condition \(3,\)",
    ),
    "x alone": (lambda: fitted(of_labels(), X), "VAE is conditional: pass a dict"),
    "x alone to predict": (lambda: of_labels().predict(X), "VAE is conditional: pass a dict"),
    "two shapes": (
        lambda: tfp_vae.VAE(of_labels().encoder, make_vae().decoder),
        r"decoder takes inputs of shape \(3,\), but the shape of the condition is \(\)",
    ),
    "pseudo-inputs": (
        lambda: priors.VampPrior(of_labels().encoder, (4,), 5),
        r"VampPrior learns pseudo-inputs of an encoder that takes x alone, this one takes \['x', 'condition'\]",
    ),
}


@pytest.mark.parametrize(("act", "message"), BAD.values(), ids=BAD)
def test_misuse_is_explained(act, message):
    with pytest.raises(ValueError, match=message):
        act()


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.rows(1)
def test_a_label_never_seen_in_a_later_batch_has_no_number(jit_compile):
    """In compiled training the loss is NaN; only the first batch is looked at before, and after it what went wrong."""
    labels = LABELS.copy()
    labels[20] = 3
    vae = of_labels()
    vae.compile(keras.optimizers.Adam(1e-2), jit_compile=jit_compile)
    with pytest.raises(ValueError, match=r"is nan.* condition must be a label from 0 to 2"):
        vae.fit(dataset(named(labels)), verbose=0)


# Data sets and the command line


def test_data_sets_with_a_condition(tmp_path):
    splits = datasets.load("digits", condition="label")
    digits = load_digits()
    label_of = {
        image.astype("float32").tobytes(): label
        for image, label in zip(digits.images, digits.target, strict=True)
    }
    for part in (splits.train, splits.validation, splits.test):
        assert part["condition"].dtype == "int32"
        assert [label_of[image.tobytes()] for image in part["x"][:50, ..., 0]] == part["condition"][
            :50
        ].tolist()
    assert (splits.event_shape, splits.has_labels, splits.likelihood) == (
        (8, 8, 1),
        True,
        "IndependentBinomial",
    )
    rows = next(iter(splits.batches(30, seed=3)))
    assert [label_of[image.numpy().tobytes()] for image in rows["x"][..., 0]] == rows[
        "condition"
    ].numpy().tolist()
    x = np.arange(40.0)[:, np.newaxis]
    np.savez(tmp_path / "one.npz", x=x, mood=x[:, 0])
    np.savez(tmp_path / "two.npz", x_train=x, x_test=x[:3], mood_train=x, mood_test=x[:3], other=x)
    for name in ("one", "two"):
        splits = datasets.load(tmp_path / f"{name}.npz", condition="mood")
        for part in (splits.train, splits.validation, splits.test):
            np.testing.assert_array_equal(part["x"].ravel(), part["condition"].ravel())
            assert (part["condition"].dtype, splits.has_labels) == ("float32", False)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, r"holds \['x'\], but no 'mood'"),
        ({"x": X, "mood": LABELS[:5]}, r"one length, received \{'x': 24, 'condition': 5\}"),
        (
            {"x": X, "mood": np.full(24, np.nan)},
            r"the condition holds 18 values that are NaN or infinite, in 18 of 18 rows. Remove or replace them\.$",
        ),
        (
            {"x": X, "mood": np.full(24, "a")},
            r"the condition holds text: 18 of 18 values, .* Number them, as numpy.unique\(.*\)\[1\] does\.$",
        ),
        ({"x_train": X, "x_test": X, "mood_train": LABELS, "mood_test": VECTORS}, "must agree"),
    ],
)
def test_bad_conditions_of_data_sets(arrays, message):
    with pytest.raises(ValueError, match=message):
        datasets.load(arrays, condition="mood")


@pytest.mark.slow
@pytest.mark.mnist
def test_mnist_has_labels():
    splits = datasets.load("mnist", condition="label")
    assert np.bincount(splits.test["condition"]).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    rows = next(iter(splits.batches(50)))
    assert set(np.unique(rows["x"])) == {0.0, 1.0}
    with pytest.raises(ValueError, match=r"no \['mood'\], only"):
        datasets.load("mnist", condition="mood")


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("source", ["labels", "vectors"])
def test_build(network, source):
    x = RANDOM.integers(0, 17, (40, 8, 8, 1))
    condition = {"labels": np.arange(40) % 5, "vectors": RANDOM.normal(size=(40, 2))}[source]
    splits = datasets.load({"x": x, "mood": condition}, condition="mood")
    vae = cli.build(
        splits,
        cli.Options(name="data", network=network, hidden_size=8, latent_size=3, batch_size=16),
    )
    assert (vae.condition.num_labels, vae.condition.shape) == (
        (5, ()) if source == "labels" else (None, (2,))
    )
    vae.compile("adam", run_eagerly=True)
    before = vae.get_weights()
    assert np.isfinite(vae.fit(splits.train, verbose=0).history["loss"]).all()
    assert all(np.abs(a - b).max() > 0 for a, b in zip(before, vae.get_weights(), strict=True))
    for posterior, prior, message in (
        ("ladder", "StandardNormal", "posterior of one latent"),
        ("MultivariateNormalDiag", "VampPrior", "encoder that takes x alone"),
    ):
        with pytest.raises(ValueError, match=message):
            cli.build(
                splits, cli.Options(name="data", batch_size=16, posterior=posterior, prior=prior)
            )


@pytest.mark.slow
def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = invoke("train", "--epochs", 2, *SMALL, "--condition", "label", "--run", "run")
    assert code == 0, err
    assert json.loads((tmp_path / "run" / "config.json").read_text())["condition"] == "label"
    assert len(list((tmp_path / "run" / "pictures").glob("*.png"))) == 4
    (tmp_path / "run" / "metrics.json").rename(tmp_path / "first.json")
    # Nothing is left to train: it is judged and drawn again.
    assert invoke("train", "--resume", "run")[0] == 0
    metrics = [
        json.loads(path.read_text())
        for path in (tmp_path / "first.json", tmp_path / "run" / "metrics.json")
    ]
    assert metrics[0]["nll"] == metrics[1]["nll"]
    assert invoke("evaluate", "run", "--num-samples", 5)[0] == 0
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["nll"] == pytest.approx(
        metrics[0]["nll"]
    )
    assert invoke("plot", "run", "--output", "pictures")[0] == 0
    assert (
        invoke("sample", "run", "--condition", 7, "--num-examples", 4, "--output", "seven.npz")[0]
        == 0
    )
    vae = keras.models.load_model(tmp_path / "run" / "model.keras")
    np.testing.assert_allclose(np.load("seven.npz")["x"], vae.generate(4, condition=7), rtol=1e-5)
    assert invoke("sample", "run", "--condition", 7, "--output", "seven.png")[0] == 0
    for line, message in {
        "sample run --condition 10 --output a.npz": "must be a label from 0 to 9",
        "sample run --condition seven --output a.npz": "--condition must be a label from 0 to 9, received 'seven'",
        "sample run --condition 4294967303 --output a.npz": "must be a label from 0 to 9",
        "sample run --condition 99999999999999999999 --output a.npz": "must be a label from 0 to 9",
        "sample run --condition 7.5 --output a.npz": "must be a label from 0 to 9, received '7.5'",
        "sample run --output a.npz": "The model is conditional: say under what to draw by --condition",
        "train --condition mood": "holds .*, but no 'mood'",
    }.items():
        code, _, err = invoke(*line.split())
        assert code == 2, line
        assert re.search(message, err), err
    assert not (tmp_path / "a.npz").exists()


def test_conditions_on_the_command_line():
    assert parse_condition("7") == 7
    np.testing.assert_array_equal(parse_condition("0.5,-1"), [0.5, -1.0])
    assert parse_condition("1,2").dtype == "int64"


def test_a_label_beyond_the_networks_integers_is_not_another_label():
    vae = of_labels()
    for label in (2**32 + 7, -(2**32) + 7):
        with pytest.raises(ValueError, match="must be a label from 0 to 2"):
            vae.generate(1, condition=np.int64(label))
    with pytest.raises(ValueError, match="must be a label from 0 to 2"):
        tf.function(lambda: vae.encode(named(tf.constant([5]), X[:1])).mean())()
    narrow = quantity.Quantity("condition", (), "uint8", num_labels=256)
    for label in (300, -1):
        with pytest.raises(ValueError, match="must be a label from 0 to 255"):
            narrow.expect_known(label)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    vae = of_labels()
    return vae, tfp_vae.load(
        vae.export(tmp_path_factory.mktemp("served") / "m", score_samples=2, log_prob_samples=2)
    )


def test_a_served_model_has_a_joint_distribution_given_the_condition(served):
    vae, loaded = served
    draw = vae.joint_distribution(2).sample(5, seed=[1, 2])
    np.testing.assert_allclose(
        loaded.joint_distribution(2).log_prob(draw),
        vae.joint_distribution(2).log_prob(draw),
        rtol=1e-4,
    )


@pytest.mark.parametrize("condition", [1, [0, 1, 2, 1]])
def test_draws_of_a_served_model_are_the_live_models(served, condition):
    vae, loaded = served
    draws = vae.generate(4, seed=3, condition=condition, draws=True)
    np.testing.assert_allclose(
        loaded.generate(4, seed=3, condition=condition, draws=True), draws, rtol=1e-3, atol=1e-3
    )
    assert np.abs(draws - vae.generate(4, seed=3, condition=condition)).max() > 1e-3
    if condition == 1:  # each row by itself
        np.testing.assert_allclose(
            vae.generate(9, seed=3, condition=1, draws=True)[:4], draws, rtol=1e-5, atol=1e-5
        )


SERVED_BAD = {
    "a label never seen": (lambda model: model.generate(2, condition=3), UNKNOWN),
    "in decode": (lambda model: model.decode(np.zeros([2, 2]), -1), UNKNOWN),
    "in encode": (lambda model: model.encode(named(LABELS + 1)), UNKNOWN),
    "three for two": (
        lambda model: model.decode(np.zeros([2, 2]), [0, 1, 2]),
        r"axes \(2,\), the condition \(3,\)",
    ),
    "three for four": (
        lambda model: model.generate(4, condition=[0, 1, 2]),
        "for 3 examples, but 4 are asked for",
    ),
    "too few": (
        lambda model: model.encode(named(LABELS[:3])),
        "x has the leading axes .*, the condition .*: expected one condition for each x",
    ),
    "none": (lambda model: model.joint_distribution(), "model is conditional"),
}


@pytest.mark.parametrize(("act", "message"), SERVED_BAD.values(), ids=SERVED_BAD)
def test_misuse_of_a_served_model_is_explained(served, act, message):
    with pytest.raises(ValueError, match=message):
        act(served[1])


@pytest.mark.parametrize("condition", [1, [0, 1, 2, 2, 1]], ids=["one", "five"])
def test_a_served_prior_may_depend_on_the_condition(condition, tmp_path):
    vae = of_labels(prior=prior_given(networks.one_hot(3)))
    served = tfp_vae.load(vae.export(tmp_path / "vae", score_samples=1, log_prob_samples=1))
    own, asked = vae.prior_distribution(condition), served.prior_distribution(condition)
    assert asked.batch_shape == own.batch_shape
    z = own.sample([2], seed=1)
    np.testing.assert_allclose(asked.log_prob(z), own.log_prob(z), rtol=1e-5)
    draws = asked.sample(2000, seed=1)
    np.testing.assert_allclose(tf.reduce_mean(draws, 0), own.mean(), atol=0.15)
    joint = served.joint_distribution(condition)
    drawn = joint.sample(seed=1)
    assert drawn["x"].shape == [*own.batch_shape, 4]
    np.testing.assert_allclose(
        joint.log_prob(drawn), vae.joint_distribution(condition).log_prob(drawn), rtol=1e-4
    )
