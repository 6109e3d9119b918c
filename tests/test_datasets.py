"""Data sets: splits, likelihoods that suit, draws anew in each epoch, and clear refusals."""

import re
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from tfp_vae import datasets


def epochs_of(splits, batch_size=100, **kwargs):
    return [batch.numpy() for batch in splits.batches(batch_size, **kwargs)]


def test_digits_are_scikit_learns_and_disjoint(digits):
    parts = digits.train, digits.validation, digits.test
    assert [len(part) for part in parts] == [1437, 180, 180]
    rows = sorted(map(tuple, np.concatenate(parts).reshape(1797, 64)))
    assert rows == sorted(map(tuple, load_digits().data))
    assert (digits.likelihood, digits.likelihood_config) == (
        "IndependentBinomial",
        {"total_count": 16},
    )


def test_batches_are_a_function_of_seed_and_epoch(digits):
    steps = digits.steps_per_epoch(100)
    two, second = epochs_of(digits, epochs=2), epochs_of(digits, first_epoch=1, epochs=2)
    assert (steps, len(two), len(second)) == (14, 28, 14)
    np.testing.assert_array_equal(two[steps:], second)
    assert not np.array_equal(two[:steps], second)
    assert not np.array_equal(epochs_of(digits, seed=1), two[:steps])


def test_an_epoch_holds_each_example_once(digits):
    epoch = np.concatenate(epochs_of(digits, batch_size=1437)).reshape(-1, 64)
    assert sorted(map(tuple, epoch)) == sorted(map(tuple, digits.train.reshape(-1, 64)))


def test_no_stateful_random_op_in_the_pipeline(digits):
    """A pipeline with one cannot be told to be deterministic without a warning; look at its functions instead."""
    graph = digits.batches(100)._as_serialized_graph().numpy()
    names = tf.compat.v1.GraphDef.FromString(graph)
    ops = {node.op for function in names.library.function for node in function.node_def}
    assert "StatelessShuffle" in ops or any("Stateless" in op for op in ops)
    assert not ops & {
        "RandomUniform",
        "RandomStandardNormal",
        "RandomShuffle",
        "RandomUniformInt",
        "ShuffleDatasetV3",
    }


def pixels(channels=1, num=200):
    return np.random.RandomState(0).randint(0, 256, (num, 4, 4, channels)).astype("uint8")


def handwriting():
    """A tenth of the pixels are grey."""
    return np.where(np.arange(16).reshape(4, 4, 1) % 10 == 3, 128, 255 * (pixels() > 200)).astype(
        "uint8"
    )


@pytest.mark.parametrize(
    ("array", "likelihood", "config", "draw"),
    [
        (handwriting(), "IndependentBernoulli", {}, datasets.binarize),
        (pixels(1), "IndependentQuantizedLogistic", {}, None),
        (pixels(1)[..., 0], "IndependentQuantizedLogistic", {}, None),
        (pixels(3), "IndependentQuantizedLogistic", {}, None),
        (255 * (pixels(3) > 100).astype("uint8"), "IndependentBernoulli", {}, None),
        (pixels(1).reshape(200, 16), "IndependentBinomial", {"total_count": 255}, None),
        (pixels(1) // 4, "IndependentQuantizedLogistic", {}, None),  # dark ones too
        # Counts, as the digits' in uint8.
        (
            pixels(1) // 15,
            "IndependentBinomial",
            {"total_count": 17},
            None,
        ),
        (pixels(1) > 100, "IndependentBernoulli", {}, None),
        (pixels(1).astype("int64") // 50, "IndependentBinomial", {"total_count": 5}, None),
        (1000 * pixels(1).astype("int64"), "IndependentNegativeBinomial", {}, None),
        (pixels(1).astype("int64") - 100, "IndependentNormal", {}, None),
        (pixels(1) / 7.0, "IndependentNormal", {}, None),
    ],
)
def test_the_likelihood_suits_the_values(array, likelihood, config, draw):
    splits = datasets.load(array)
    assert likelihood in splits.note
    assert ("at random" in splits.note) == (draw is not None)
    assert (splits.likelihood, splits.likelihood_config, splits.draw) == (likelihood, config, draw)
    assert splits.test.dtype == np.float32
    assert next(iter(splits.batches(10))).dtype == tf.float32


def test_binarization_is_fresh_in_training_and_fixed_in_test():
    one = {"likelihood": "IndependentBernoulli"}
    splits = datasets.load(np.repeat(pixels(num=1), 200, axis=0), **one)
    first, second = (np.concatenate(epochs_of(splits, first_epoch=i, epochs=i + 1)) for i in (0, 1))
    assert set(np.unique(first)) == {0.0, 1.0}
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(
        splits.test, datasets.load(np.repeat(pixels(num=1), 200, axis=0), **one).test
    )
    rate = np.mean(
        [np.concatenate(epochs_of(splits, first_epoch=i, epochs=i + 1)).mean(0) for i in range(40)],
        axis=0,
    )
    np.testing.assert_allclose(rate, pixels(num=1)[0] / 255.0, atol=5 * 0.5 / np.sqrt(40 * 100))


def test_dequantization_stays_in_its_cell():
    x = datasets.dequantize(tf.constant(pixels()), tf.constant([0, 1])).numpy()
    np.testing.assert_array_equal(np.floor(x * 256), pixels())
    assert np.mean(x * 256 - pixels()) == pytest.approx(0.5, abs=0.02)


def test_a_likelihood_of_choice():
    assert datasets.load(pixels(), likelihood="IndependentNormal").draw is datasets.dequantize
    splits = datasets.load(pixels(), likelihood="IndependentBinomial")
    assert (splits.likelihood_config, splits.draw) == ({"total_count": 255}, None)
    assert splits.test.max() > 200


def test_what_bytes_become_under_a_chosen_likelihood():
    """As in runs of earlier versions: vectors and dark images are pixels where asked, columns of a table are not."""
    flat, dark = pixels().reshape(200, 16), pixels() // 15
    for array, likelihood, largest in [
        (flat, "IndependentBernoulli", 1.0),
        (dark, "IndependentBernoulli", 1.0),
        (flat, "IndependentContinuousBernoulli", 1.0),
        (dark, "IndependentNormal", 18 / 256),
        (flat, "IndependentPoisson", 255.0),
    ]:
        assert datasets.load(array, likelihood=likelihood).test.max() == pytest.approx(
            largest, rel=0.06
        )
    table = datasets.load(
        {"age": flat, "b": flat}, likelihood={"age": "IndependentNormal", "b": None}
    )
    assert (table.draw, table.test["age"].max()) == (None, 255.0)


def test_a_column_may_lack_all_values_of_a_split():
    """Some part of a sparse column may be NaN throughout."""
    sparse = np.full(20, np.nan)
    sparse[np.random.RandomState(0).permutation(20)[4]] = 2.0  # one of the training data
    parts = {"a": None, "b": "IndependentCategorical"}
    splits = datasets.load({"a": sparse, "b": sparse}, likelihood=parts, missing=True)
    assert (splits.likelihood["a"], splits.likelihood_config["b"]) == (
        "IndependentNormal",
        {"num_categories": 3},
    )


def test_npz_files(tmp_path):
    x = np.random.RandomState(0).normal(size=(50, 3))
    np.savez(tmp_path / "one.npz", data=x)
    np.savez(tmp_path / "two.npz", x_train=x, x_test=x[:7])
    np.savez(tmp_path / "three.npz", x_train=x, x_validation=x[:6], x_test=x[:7])
    sizes = {
        path.stem: [len(part) for part in (splits.train, splits.validation, splits.test)]
        for path in tmp_path.glob("*.npz")
        for splits in [datasets.load(path)]
    }
    assert sizes == {"one": [40, 5, 5], "two": [45, 5, 7], "three": [50, 6, 7]}


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros([0, 3]), "empty"),
        (np.zeros([5, 3]), "at least ten"),
        (np.full([20, 3], np.nan), "NaN"),
        (np.full([20, 3], np.inf), "infinite"),
        (np.full([20, 3], "a"), "holds text: 60 of 60 values, 1 different ones such as 'a'"),
        (
            np.array([["1.5", "red"], ["2", "white"]] * 10),
            "20 of 40 values in column 1 .*, 2 different ones such as 'red'",
        ),
        (np.full([20, 3], "1.5"), "numbers written as text"),
        (
            np.where(np.arange(60).reshape(20, 3) % 7, 0.5, np.nan),
            "9 values that are NaN or infinite, in 9 of 20 rows",
        ),
        (np.full([20, 3], 2**40), "whole numbers up to 1,099,511,627,776, but float32"),
        (np.full([20, 3], -(2**40)), "whole numbers up to 1,099,511,627,776, but float32"),
        (np.zeros([20]), "num_examples"),
    ],
)
def test_bad_arrays(array, message):
    with pytest.raises(ValueError, match=message):
        datasets.load(array)


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        datasets.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match=r"not an \.npz"):
        datasets.load(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3), b=np.zeros(3))
    with pytest.raises(ValueError, match="none of them is called x"):
        datasets.load(tmp_path / "other.npz")
    np.savez(tmp_path / "halves.npz", a=np.zeros(3), b=np.zeros(4))
    with pytest.raises(ValueError, match="x_train and x_test"):
        datasets.load(tmp_path / "halves.npz")


def test_files_are_known_by_their_content(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("one.npy", np.zeros([20, 3]))
    np.savez("one.npz", x=np.zeros([20, 3]))
    Path("one.npz").rename("unnamed")
    for name in ("one.npy", "unnamed"):
        assert len(datasets.load(name).test) == 2
    Path("digits").write_text("no data")
    assert datasets.load("digits").event_shape == (8, 8, 1)


def test_a_text_comes_with_the_line_that_makes_arrays_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("named.dat").write_text("age,size,job\n" + "30,1.5,cook\n,2,baker\n" * 10)
    Path("bare.txt").write_text("1\t2\n3\t4\n" * 10)
    made = {}
    for name in ("named.dat", "bare.txt"):
        with pytest.raises(ValueError, match="a text of 20 rows") as error:
            datasets.load(name)
        exec(re.search('python -c "(.*)"', str(error.value))[1], {})
        made |= np.load("data.npz")
    assert {key: values.dtype.kind for key, values in made.items()} == {
        "age": "f",
        "size": "f",
        "job": "i",
        "x": "f",
    }
    np.testing.assert_array_equal(made["age"][:2], [30.0, np.nan])
    np.testing.assert_array_equal(made["job"][:2], [1, 0])
    np.testing.assert_array_equal(made["x"][:2], [[1, 2], [3, 4]])


# Of other kinds: what they hold, and what is said of them.
FILES = {
    "table.bin": (b"PAR1...", "not an .npz or .npy file, but a Parquet table"),
    "picture.npz": (b"\x89PNG...", "not an .npz file, as numpy.savez writes them, but a picture"),
    "words.dat": (b"hello\n", "a text without columns"),
    "nothing.dat": (b"", "but empty"),
    "bytes": (bytes(range(256)), "of an unknown kind"),
    "other.zip": (b"PK\x05\x06" + bytes(18), "an archive without arrays"),
    "cut.npz": (b"PK\x03\x04", "not an .npz file, or a damaged one"),
}


@pytest.mark.parametrize("name", FILES)
def test_other_files_are_named(name, tmp_path):
    content, message = FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        datasets.load(str(tmp_path / name))


def test_names_that_are_no_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    with pytest.raises(ValueError, match="photos holds no images"):
        datasets.load("photos")
    with pytest.raises(FileNotFoundError, match=r"There is no file people\.csv"):
        datasets.load("people.csv")
    np.savez("objects.npz", x=np.array([1, "a", None] * 10, dtype=object))
    with pytest.raises(ValueError, match=r"The array 'x' of objects\.npz holds Python objects"):
        datasets.load("objects.npz")


def test_several_arrays_are_shown_as_a_table():
    random = np.random.default_rng(0)
    columns = {"age": random.normal(size=40), "sex": np.arange(40) % 2, "kind": np.arange(40) % 3}
    people = {**columns, "job": np.array(["cook", "baker"] * 20), "pay/month": 400 * np.arange(40)}
    with pytest.raises(ValueError, match="none of them is called x") as error:
        datasets.load(people)
    line = "Joint(age='IndependentNormal', sex='IndependentBernoulli', kind='IndependentCategorical', job='Independent"
    for words in (line, "number the texts of job first", "give 'pay/month' other names"):
        assert words in str(error.value)


@pytest.mark.parametrize("labels", [np.arange(40) + 2**40, np.array(["a", "b"] * 20)])
def test_conditions_that_are_no_labels(labels):
    with pytest.raises(
        ValueError, match=r"the condition holds.*numpy\.unique\(values, return_inverse=True\)"
    ):
        datasets.load({"x": np.zeros([40, 2]), "label": labels}, condition="label")


def test_parts_must_agree(tmp_path):
    bytes_, floats = pixels(), pixels() / 255.0
    np.savez(tmp_path / "types.npz", x_train=bytes_, x_test=floats)
    np.savez(tmp_path / "shapes.npz", x_train=floats, x_test=floats[:, :3])
    for name in ("types", "shapes"):
        with pytest.raises(ValueError, match="must agree"):
            datasets.load(tmp_path / f"{name}.npz")


@pytest.mark.parametrize("batch_size", [0, 1438])
def test_bad_batch_size(digits, batch_size):
    with pytest.raises(ValueError, match="between 1 and the 1437"):
        digits.batches(batch_size)


def test_an_unknown_name_says_what_is_near():
    with pytest.raises(ValueError, match="mnist"):
        datasets.load("mnst")


def test_unprepared_and_out_of_reach_is_said_soon(tmp_path, monkeypatch):
    """Nothing answers on port 9 of this machine, through which all requests are sent."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(FileNotFoundError, match="TFDS_DATA_DIR"):
        datasets.load("kmnist")
    assert time.monotonic() - start < 30


def test_a_version_that_tfds_has_not():
    with pytest.raises(ValueError, match=r"TFDS has no data set mnist:9\.9\.9 ready: .* only"):
        datasets.load("mnist:9.9.9")


@pytest.mark.slow
@pytest.mark.mnist
def test_mnist_through_tfds():
    splits = datasets.load("mnist")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [
        55_000,
        5_000,
        10_000,
    ]
    assert (splits.likelihood, splits.draw) == ("IndependentBernoulli", datasets.binarize)
    assert splits.train.dtype == np.uint8
    assert set(np.unique(splits.test)) == {0.0, 1.0}
    # Mean intensity of MNIST's test images.
    assert splits.test.mean() == pytest.approx(0.1325, abs=0.002)
    np.testing.assert_array_equal(splits.test, datasets.load("mnist").test)


def test_parts_of_a_table():
    """Bytes are pixels in images alone; pixels of two parts are drawn apart from each other; labels are counted."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 3, 3, 1), "uint8")
    table = {
        "age": np.arange(40, dtype="uint8"),
        "job": np.arange(40) % 3,
        "a": images,
        "b": images,
    }
    likelihood = {"age": None, "job": "IndependentCategorical"} | dict.fromkeys(
        "ab", "IndependentBernoulli"
    )
    splits = datasets.load(
        {**table, "sex": np.arange(40) % 2}, likelihood=likelihood, condition="sex"
    )
    chosen = [
        "IndependentBinomial",
        "IndependentCategorical",
        "IndependentBernoulli",
        "IndependentBernoulli",
    ]
    assert splits.likelihood == dict(zip(table, chosen, strict=True))
    assert splits.likelihood_config == {
        "age": {"total_count": 39},
        "job": {"num_categories": 3},
        "a": {},
        "b": {},
    }
    assert splits.event_shape == {"age": (), "job": (), "a": (3, 3, 1), "b": (3, 3, 1)}
    rows = next(iter(splits.batches(8)))
    for x in (rows["x"], splits.test["x"]):
        assert set(np.unique(x["a"])) == {0.0, 1.0}
        assert (np.asarray(x["a"]) != np.asarray(x["b"])).any()
    assert rows["x"]["age"].dtype == "float32"
    np.testing.assert_array_equal(rows["x"]["age"] % 3, rows["x"]["job"])  # each row stays together
    np.testing.assert_array_equal(rows["x"]["age"] % 2, rows["condition"])
