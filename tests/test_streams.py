"""Data larger than memory: streams give the numbers of arrays, and files are read row by row."""

import json
import zlib
from pathlib import Path

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import tfp_vae
from tests.conftest import make_vae, mostly_slow
from tests.test_cli import invoke
from tests.test_codes import vq_vae
from tfp_vae import datasets, evaluation, plots, storage
from tfp_vae import layers as tfpl
from tfp_vae.batch import as_dataset
from tfp_vae.rows import Rows, chosen

# Sizes of the batches of a stream, which is read in others.
SIZES = (7, 100)


def streamed(x, size=7):
    """Return arrays as a stream of batches, of which the last one is smaller."""
    return tf.data.Dataset.from_tensor_slices(x).batch(size)


def same(one, other):
    """Check that two results are equal up to the rounding of sums."""
    tf.nest.assert_same_structure(one, other)
    for first, second in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-6)


NUMBERS = {
    "evaluate": lambda vae, x: evaluation.evaluate(vae, x, num_samples=5, batch_size=40),
    "nll": lambda vae, x: evaluation.nll(vae, x, num_samples=5, batch_size=40),
    "elbo": lambda vae, x: evaluation.elbo(vae, x, batch_size=40),
    "importance_sampling": lambda vae, x: evaluation.importance_sampling(vae, x, num_samples=5),
    "annealed_log_prob": lambda vae, x: evaluation.annealed_log_prob(
        vae, x, num_steps=2, num_chains=1, batch_size=40
    ),
    "rate_distortion": lambda vae, x: evaluation.rate_distortion(
        vae, x, [0.5], num_steps=2, num_chains=1
    ),
    "active_units": evaluation.active_units,
    "posterior_means": evaluation.posterior_means,
    "mutual_information": lambda vae, x: evaluation.mutual_information(vae, x, num_examples=50),
    "aggregate_kl": lambda vae, x: evaluation.aggregate_kl(vae, x, num_examples=50),
    "kl_by_dimension": evaluation.kl_by_dimension,
    "negative_elbo": evaluation.negative_elbo,
    "negative_log_prob": lambda vae, x: evaluation.negative_log_prob(vae, x, num_samples=2),
    "reconstruction_errors": evaluation.reconstruction_errors,
    "predictive_check": lambda vae, x: evaluation.predictive_check(vae, x, num_replications=2),
    "nearest": lambda vae, x: evaluation.nearest(np.ones([2, 8, 8, 1]), x),
    "fit_aggregate_prior": lambda vae, x: tfp_vae.fit_aggregate_prior(
        vae, x, num_components=2, batch_size=40
    ).log_prob(np.zeros([4], "float32")),
    "latent_traversal": lambda vae, x: [
        image.get_array() for image in plots.latent_traversal(vae, x, num_steps=2).axes[0].images
    ],
    "reconstructions": lambda vae, x: [
        image.get_array() for image in plots.reconstructions(vae, x, num_examples=3).axes[0].images
    ],
}


@pytest.mark.parametrize(
    "name", mostly_slow(NUMBERS, "evaluate", "nll", "active_units", "mutual_information", "nearest")
)
@pytest.mark.rows(5, 5)
def test_a_stream_has_the_numbers_of_its_arrays(name, trained_vae, digits):
    x = digits.test[:101]
    expected = NUMBERS[name](trained_vae, x)
    for size in SIZES:
        same(NUMBERS[name](trained_vae, streamed(x, size)), expected)


def test_labels_beside_the_examples_are_ignored(trained_vae, digits):
    x = digits.test[:50]
    pairs = streamed((x, np.arange(50)))
    assert evaluation.active_units(trained_vae, pairs) == evaluation.active_units(trained_vae, x)


@pytest.mark.slow
def test_codes_of_a_stream(digits):
    vae, x = vq_vae(num_codes=32), digits.test[:50]
    np.testing.assert_array_equal(evaluation.codes(vae, streamed(x)), evaluation.codes(vae, x))
    assert evaluation.perplexity(vae, streamed(x)) == evaluation.perplexity(vae, x)
    prior, other = (
        tfp_vae.fit_aggregate_prior(vae, data, num_components=2) for data in (x, streamed(x))
    )
    z = vae.encode(x).mean()
    np.testing.assert_array_equal(prior.log_prob(z), other.log_prob(z))


@pytest.mark.parametrize("num_draws", mostly_slow([None, 3], None))
def test_a_stream_is_filled_in_as_its_arrays_are(num_draws, digits):
    x = np.array(digits.test[:20])
    x[:, :3] = np.nan
    vae = make_vae(missing=True)
    expected = vae.impute(x, 10, num_draws=num_draws)
    filled = vae.impute(streamed(x), 10, num_draws=num_draws)
    found = np.concatenate([*filled.as_numpy_iterator()], axis=0 if num_draws is None else 1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


BAD = {
    "empty": (lambda x: streamed(x[:0]), "empty"),
    "endless": (lambda x: streamed(x).repeat(), r"never ends.*take\(100\)"),
    "weights": (lambda x: streamed((x, x, np.ones(len(x)))), "sample weights"),
    "another shape": (lambda x: streamed(x[:, :4]), "shape"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("number", ["evaluate", "nll", "active_units", "fit_aggregate_prior"])
def test_streams_that_have_no_numbers(name, number, trained_vae, digits):
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        NUMBERS[number](trained_vae, make(digits.test[:20]))


# Files: each is written from images and labels, and read again.

IMAGES = np.random.default_rng(0).integers(0, 256, (41, 6, 5, 3)).astype("uint8")
LABELS = np.arange(41) % 2


def write_folder(path):
    for number, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        folder = path / "ab"[label]
        folder.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(image).save(folder / f"{number:02}.png")


def write_records(path):
    def feature(**values):
        return tf.train.Feature(**values)

    with tf.io.TFRecordWriter(str(path)) as file:
        for image, label in zip(IMAGES, LABELS, strict=True):
            png = tf.train.BytesList(value=[tf.io.encode_png(image).numpy()])
            features = {
                "image": feature(bytes_list=png),
                "label": feature(int64_list=tf.train.Int64List(value=[label])),
                "flat": feature(float_list=tf.train.FloatList(value=image[0, 0] / 2)),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            file.write(example.SerializeToString())


def write_shards(path):
    path.mkdir()
    write_records(path / "a.tfrecord-00000-of-00001")


FILES = {
    "x.npy": lambda path: np.save(path, IMAGES),
    "x.npz": lambda path: np.savez(path, x=IMAGES, label=LABELS),
    "images": write_folder,
    "x.tfrecord": write_records,
    "shards": write_shards,
}


@pytest.mark.parametrize("name", FILES)
def test_rows_of_files_are_those_of_arrays(name, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "MOST_BYTES", 0)
    FILES[name](tmp_path / name)
    found = storage.open_path(tmp_path / name, ["label"])
    rows = found["x"]
    assert isinstance(rows, Rows)
    assert (len(rows), rows.shape, rows.dtype) == (41, IMAGES.shape, "uint8")
    order = np.argsort(LABELS, kind="stable") if name == "images" else np.arange(41)
    expected = IMAGES[order]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(rows[5:17], expected[5:17])
    np.testing.assert_array_equal(rows[[40, 3, 4, 5, 0]], expected[[40, 3, 4, 5, 0]])
    np.testing.assert_array_equal(chosen(rows, np.array([9, 2]))[:1], expected[[9]])
    if name != "x.npy":
        np.testing.assert_array_equal(found["label"], LABELS[order])


def test_small_files_are_read_into_memory(tmp_path):
    write_records(tmp_path / "x.tfrecord")
    assert isinstance(storage.open_path(tmp_path / "x.tfrecord")["x"], np.ndarray)
    splits = datasets.load(tmp_path / "x.tfrecord", condition="label")
    assert splits.name == "x"
    assert splits.train["x"].shape == (31, 6, 5, 3)
    assert sorted(splits.conditions) == sorted(LABELS)


@pytest.mark.parametrize("labelled", [False, True])
def test_saved_data_sets(labelled, tmp_path):
    parts = (IMAGES, LABELS) if labelled else IMAGES
    streamed(parts).save(str(tmp_path / "saved"))
    found = storage.open_path(tmp_path / "saved", ["label"])
    np.testing.assert_array_equal(found["x"], IMAGES)
    assert ("label" in found) == labelled
    assert datasets.load(tmp_path / "saved").train.shape == (31, 6, 5, 3)


def test_a_large_saved_data_set_is_copied_to_rows(tmp_path, monkeypatch):
    streamed((IMAGES, LABELS)).save(str(tmp_path / "saved"))
    monkeypatch.setattr(storage, "MOST_BYTES", 0)
    found = storage.open_path(tmp_path / "saved", ["label"])
    for values, expected in zip((found["x"], found["label"]), (IMAGES, LABELS), strict=True):
        assert isinstance(values, Rows)
        np.testing.assert_array_equal(values[[3, 1]], expected[[3, 1]])
    assert [*storage.open_path(tmp_path / "saved")] == ["x"]
    streamed({"image": IMAGES, "label": LABELS}).save(str(tmp_path / "named"))
    np.testing.assert_array_equal(storage.open_path(tmp_path / "named")["x"], IMAGES)


@pytest.mark.parametrize("most", [storage.MOST_BYTES, 0])
@pytest.mark.parametrize(
    "data",
    [
        tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)),
        tf.data.Dataset.from_tensor_slices(({"a": IMAGES, "b": LABELS}, LABELS)).batch(4),
        tf.data.Dataset.from_tensor_slices((LABELS, LABELS, LABELS, LABELS)).batch(4),
        tf.data.Dataset.from_tensor_slices({"a": LABELS}).batch(4),
    ],
    ids=["no batches", "nested", "four parts", "no x"],
)
def test_saved_data_sets_of_other_forms(data, most, tmp_path, monkeypatch):
    data.save(str(tmp_path / "saved"))
    monkeypatch.setattr(storage, "MOST_BYTES", most)
    with pytest.raises(ValueError, match=r"saved is a tf\.data\.Dataset of elements .* Expected"):
        datasets.load(tmp_path / "saved")


def test_a_saved_data_set_with_compression(tmp_path):
    streamed(IMAGES).save(str(tmp_path / "saved"), compression="GZIP")
    with pytest.raises(ValueError, match=r"saved with compression"):
        datasets.load(tmp_path / "saved")


def test_rows_are_shuffled_anew_in_each_epoch_by_the_seed(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(50.0))
    rows = storage.open_npy(tmp_path / "x.npy")["x"]
    epochs = []
    for _ in range(2):
        tf.random.set_seed(3)
        data = as_dataset(rows, 8, shuffle=True)
        assert int(data.cardinality()) == 7
        epochs.append([np.concatenate([*data.as_numpy_iterator()]) for _ in range(2)])
    np.testing.assert_array_equal(*epochs)
    first, second = epochs[0]
    np.testing.assert_array_equal(np.sort(first), np.arange(50.0))
    np.testing.assert_array_equal(np.sort(second), np.arange(50.0))
    assert (first != second).mean() > 0.8


def test_rows_are_read_as_those_of_an_array_or_not_at_all(tmp_path):
    for x in (np.arange(12.0), np.arange(24.0).reshape(12, 2)):
        np.save(tmp_path / "x.npy", x)
        rows = storage.open_npy(tmp_path / "x.npy")["x"]
        for places in (3, -1, slice(2, 9, 3), [4, 1], [], x.ravel()[: len(x)] > 3):
            np.testing.assert_array_equal(rows[places], x[places])
        for places in ((3, 0), [True, False], [0.7], None, ..., (slice(None), 0), 12):
            with pytest.raises(IndexError):
                rows[places]


SAME = {
    "counts": (np.random.default_rng(0).integers(0, 12, (50, 7)), {}),
    "reals": (np.random.default_rng(0).normal(size=(50, 7)).astype("float32"), {}),
    "photographs": (IMAGES, {}),
    "scaled": (IMAGES, {"likelihood": "IndependentContinuousBernoulli"}),
    "bits": ((IMAGES[..., :1] > 99).astype("uint8") * 255, {}),
}


@pytest.mark.parametrize("name", SAME)
def test_what_stays_in_files_is_split_and_batched_as_in_memory(name, tmp_path, monkeypatch):
    x, options = SAME[name]
    np.save(tmp_path / "x.npy", x)
    expected = datasets.load(tmp_path / "x.npy", **options)
    monkeypatch.setattr(storage, "MOST_BYTES", 0)
    found = datasets.load(tmp_path / "x.npy", **options)
    assert isinstance(found.train, Rows)
    assert (found.note, found.likelihood_config) == (expected.note, expected.likelihood_config)
    for split in datasets.SPLITS:
        np.testing.assert_array_equal(getattr(found, split), getattr(expected, split))
    ours, theirs = (splits.batches(9, epochs=2) for splits in (found, expected))
    assert ours.element_spec == theirs.element_spec  # a known size: `fit` plans its calls by it
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_draws_of_what_stays_in_files_depend_on_the_row_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "MOST_BYTES", 0)
    x = np.repeat(np.uint8([0, 20, 100, 255]), 1000).reshape(100, 8, 5, 1)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).permutation(x))
    splits = datasets.load(tmp_path / "x.npy", likelihood="IndependentBernoulli")
    whole = splits.test[:]
    np.testing.assert_array_equal(splits.test[3:5], whole[3:5])
    assert set(np.unique(whole)) == {0.0, 1.0}
    assert len(np.unique(whole.reshape(len(whole), -1), axis=0)) > 4
    values = splits.training_values(seed=1)
    assert abs(values[:].mean() - 375 / 1020) < 0.03
    batches = [*splits.batches(20, first_epoch=1, epochs=2)]
    again = [*splits.batches(20, epochs=2)][-len(batches) :]
    np.testing.assert_array_equal(batches, again)


def truncated(path):
    np.save(path, IMAGES)
    path.write_bytes(path.read_bytes()[:-5])


def two_sizes(path):
    path.mkdir()
    for size in (4, 5):
        PIL.Image.fromarray(IMAGES[0, :size]).save(path / f"{size}.png")


def compressed(path):
    with tf.io.TFRecordWriter(str(path), "GZIP") as file:
        file.write(b"0")


def other_records(path):
    with tf.io.TFRecordWriter(str(path)) as file:
        file.write(b"a text")


def two_levels(path):
    write_folder(path)
    PIL.Image.fromarray(IMAGES[0]).save(path / "cover.png")


def three_levels(path):
    write_folder(path / "train")
    write_folder(path / "test")


BROKEN = {
    "splits": (three_levels, "holds images in folders within subfolders"),
    "levels": (two_levels, "holds both images, such as cover.png, and subfolders"),
    "x.npy": (truncated, "cut short: 5 bytes are missing"),
    "sizes": (two_sizes, "must be of one size"),
    "nothing": (Path.mkdir, "holds no images"),
    "x.tfrecord": (compressed, "is compressed"),
    "y.tfrecord": (lambda path: path.write_bytes(b"no record at all, but text"), "cut short at"),
    "z.tfrecord": (Path.touch, "is empty"),
    "other.tfrecord": (other_records, r"are no tf\.train\.Example"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_are_no_data(name, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "MOST_BYTES", 0)
    write, message = BROKEN[name]
    write(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        datasets.load(tmp_path / name)


def cut_image(path):
    write_folder(path)
    image = path / "a" / "02.png"
    image.write_bytes(image.read_bytes()[:-20])


def cut_image_in_a_record(path):
    write_records(path)
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    example = tf.train.Example.FromString(records[2])
    image = example.features.feature["image"].bytes_list
    image.value[0] = image.value[0][:-20]
    records[2] = example.SerializeToString()
    with tf.io.TFRecordWriter(str(path)) as file:
        for record in records:
            file.write(record)


@pytest.mark.parametrize(
    ("write", "name"),
    [(cut_image, "/02.png, it cannot"), (cut_image_in_a_record, "record 2 of .*, it cannot")],
    ids=["folder", "records"],
)
def test_a_damaged_image_is_named(write, name, tmp_path):
    path = tmp_path / ("x.tfrecord" if "record" in name else "images")
    write(path)
    with pytest.raises(ValueError, match=f"Replace or remove .*{name} be decoded: .*PNG"):
        datasets.load(path)


def test_an_image_too_large_to_be_one_is_named(tmp_path):
    write_folder(tmp_path / "images")
    image = tmp_path / "images" / "a" / "02.png"
    content = bytearray(image.read_bytes())
    content[16:24] = (50_000).to_bytes(4, "big") * 2  # its width and height
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    image.write_bytes(content)
    with pytest.raises(ValueError, match=r"02\.png is damaged, or no image to train on"):
        datasets.load(tmp_path / "images")


@pytest.mark.parametrize("damage", [slice(-60, -20), slice(-22, None)], ids=["list", "end"])
def test_a_damaged_large_archive_is_named(damage, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "MOST_BYTES", 0)
    np.savez(tmp_path / "x.npz", x=IMAGES)
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[damage] = bytes(len(content[damage]))
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.npz"):
        datasets.load(tmp_path / "x.npz")


def test_many_shards_are_not_all_open(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "MOST_OPEN", 2)
    monkeypatch.setattr(storage, "MOST_BYTES", 0)
    (tmp_path / "x").mkdir()
    for number in range(3):
        write_records(tmp_path / "x" / f"x.tfrecord-{number:05}-of-00003")
    rows = storage.open_path(tmp_path / "x")["x"]
    np.testing.assert_array_equal(rows[:], np.concatenate([IMAGES] * 3))


def test_grey_images_of_16_bits_beside_a_hidden_folder(tmp_path):
    grey = np.arange(40).reshape(2, 4, 5).astype("uint16") * 1000
    for number, image in enumerate(grey):
        PIL.Image.fromarray(image).save(tmp_path / f"{number}.png")
    (tmp_path / ".cache").mkdir()
    PIL.Image.fromarray(grey[0][:2]).save(tmp_path / ".cache" / "2.png")
    (tmp_path / "._0.png").write_bytes(b"what a file manager leaves")
    found = storage.open_images(tmp_path)
    assert [*found] == ["x"]
    np.testing.assert_array_equal(found["x"][:][..., 0], grey // 256)


def test_a_feature_that_is_missing(tmp_path):
    write_records(tmp_path / "x.tfrecord")
    with pytest.raises(ValueError, match=r"no feature age, only \['flat', 'image', 'label'\]"):
        datasets.load(tmp_path / "x.tfrecord", condition="age")


def test_files_are_written_whole_or_not_at_all(tmp_path):
    with pytest.raises(ValueError, match="must agree"):
        storage.write_npy(tmp_path / "x.npy", [IMAGES[:2], IMAGES[:2, :3]])
    assert not [*tmp_path.iterdir()]
    storage.write_npy(tmp_path / "x.npy", streamed(IMAGES))
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), IMAGES)
    with pytest.raises(FileExistsError):
        storage.write_npy(tmp_path / "x.npy", [IMAGES])


@pytest.mark.slow
def test_fit_evaluate_and_predict_take_rows(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "MOST_BYTES", 0)
    np.save(tmp_path / "x.npy", digits.train[:200])
    rows = storage.open_path(tmp_path / "x.npy")["x"]
    expected, found = make_vae(), make_vae()
    found.set_weights(expected.get_weights())
    for vae, x in ((expected, digits.train[:200]), (found, rows)):
        vae.compile("adam")
        vae.fit(x, batch_size=32, shuffle=False, epochs=2, verbose=0, validation_data=(x,))
    same(found.evaluate(rows, verbose=0), expected.evaluate(digits.train[:200], verbose=0))
    same(found.predict(rows, verbose=0), expected.predict(digits.train[:200], verbose=0))
    found.fit(rows, batch_size=32, verbose=0)


@pytest.mark.slow
def test_training_on_rows_resumes_bit_for_bit(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "MOST_BYTES", 0)
    np.save(tmp_path / "x.npy", digits.train[:200].astype("uint8"))

    def fit(vae, first, last):
        splits = datasets.load(tmp_path / "x.npy")
        assert isinstance(splits.train, Rows)
        steps = splits.steps_per_epoch(20)
        batches = splits.batches(20, first_epoch=first, epochs=last)
        vae.fit(batches, steps_per_epoch=steps, initial_epoch=first, epochs=last, verbose=0)

    whole = make_vae()
    whole.compile("adam", jit_compile=False)
    fit(whole, 0, 1)
    whole.save(tmp_path / "vae.keras")
    fit(whole, 1, 3)
    again = keras.models.load_model(tmp_path / "vae.keras")
    fit(again, 1, 3)
    for one, other in zip(whole.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_an_array_in_a_file_is_filled_in_batch_by_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "MOST_BYTES", 0)
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(70, 3)).astype("float32")
    x[::3, 1] = np.nan
    np.save("x.npy", x)
    vae = make_vae((3,), 2, tfpl.IndependentNormal, missing=True)
    vae.save("vae.keras")
    code, _, err = invoke("impute", "x.npy", "vae.keras", "--output", "y.npy", "--num-samples", 20)
    assert (code, err) == (0, "")
    filled = np.load("y.npy")
    np.testing.assert_array_equal(filled[~np.isnan(x)], x[~np.isnan(x)])
    np.testing.assert_allclose(filled, vae.impute(x, 20), rtol=1e-5)
    code, _, err = invoke("impute", "x.npy", "vae.keras", "--output", "z.npy", "--num-draws", 2)
    assert code == 2
    assert "holds one array" in err


@pytest.mark.slow
def test_the_command_line_trains_and_judges_what_stays_in_files(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "MOST_BYTES", 0)
    monkeypatch.chdir(tmp_path)
    write_folder(Path("images"))
    options = ["--latent-size", 2, "--hidden-size", 8, "--batch-size", 10, "--num-samples", 5]
    options += ["--dataset", "images", "--epochs", 1]
    for own in (["--likelihood", "IndependentBernoulli"], ["--condition", "label"]):
        assert invoke("train", *options, *own)[::2] == (0, "")
    first, last = "runs/images-1", "runs/images-2"
    assert json.loads(Path(first, "metrics.json").read_text())["num_examples"] == 5
    for line in (
        ["evaluate", first, "--num-samples", 5, "--labels", "label", "--checks"],
        ["plot", last],
        ["report", first, last],
    ):
        assert invoke(*line)[::2] == (0, "")
    assert invoke("train", "--dataset", "nothing/")[0] == 2


@pytest.mark.parametrize("dtype", [">f8", ">i2", "<f4"])
def test_bytes_in_the_order_of_another_machine_are_the_same_numbers(dtype, tmp_path, monkeypatch):
    x = np.arange(60).reshape(20, 3).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    monkeypatch.setattr(storage, "MOST_BYTES", 1)
    rows = storage.open_path(tmp_path / "x.npy")["x"]
    assert isinstance(rows, Rows)
    np.testing.assert_array_equal(rows[:], x)
    np.testing.assert_array_equal(rows[x[:, 0] > 30], x[x[:, 0] > 30])


def test_a_file_holds_no_labels(tmp_path):
    pairs = tf.data.Dataset.from_tensor_slices((np.zeros([4, 3]), np.zeros([4, 3]))).batch(2)
    with pytest.raises(ValueError, match=r"holds one array, but the batches of .* have several"):
        storage.write_npy(tmp_path / "x.npy", pairs)
    assert [*tmp_path.iterdir()] == []


def test_rows_of_a_file_are_weighted_as_arrays_are(digits, tmp_path):
    x = digits.train[:60]
    np.save(tmp_path / "x.npy", x)
    weight = [0.0, 1.0, 2.0] * 20
    numbers = {}
    for name, given in (("array", x), ("file", storage.open_npy(tmp_path / "x.npy")["x"])):
        keras.utils.set_random_seed(0)
        vae = make_vae()
        vae.compile(keras.optimizers.Adam(1e-3))
        history = vae.fit(
            given,
            sample_weight=weight,
            validation_data=(given, None, weight),
            batch_size=20,
            shuffle=False,
            epochs=2,
            verbose=0,
        ).history
        found = vae.evaluate(given, sample_weight=weight, verbose=0, return_dict=True)
        numbers[name] = {**history, **found}
    same(numbers["array"], numbers["file"])
    unweighted = vae.evaluate(x, verbose=0, return_dict=True)
    assert abs(unweighted["loss"] - numbers["array"]["loss"]) > 1e-3
