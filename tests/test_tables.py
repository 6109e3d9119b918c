"""Tables: DataFrames to the parts of x and back, their files, and models that speak in columns."""

import json
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
import tensorflow as tf
from scipy import stats

import tfp_vae
from tests.test_cli import invoke
from tfp_vae import datasets, evaluation, networks, storage, tables
from tfp_vae import layers as tfpl
from tfp_vae.rows import Rows
from tfp_vae.tables import Table, series

NUMBER = 200
SMALL = ["--latent-size", 2, "--hidden-size", 8, "--epochs", 2, "--num-samples", 5]


def people(number=NUMBER, seed=0):
    """One factor drives columns of all dtypes that tables have."""
    random = np.random.default_rng(seed)
    z = random.normal(size=number)
    day = pd.Timestamp("1990-05-05")
    frame = pd.DataFrame(
        {
            "age": (40 + 10 * z).clip(1, 90).round().astype("int64"),
            "Größe (cm)": (170 + 5 * z + random.normal(size=number)).round(1),
            "weight": (60 + 8 * z + random.normal(size=number)).astype("float32"),
            "x": random.poisson(np.exp(z), number).astype("uint8"),
            "income": (1000 * np.exp(z)).round().astype("int32"),
            "steps": pd.array((z * 1000).round(), dtype="Int64"),
            "job": pd.Categorical(
                np.where(z > 0, "cook", "clerk"),
                categories=["pilot", "cook", "clerk"],
                ordered=True,
            ),
            "level": pd.Categorical(random.integers(3, 6, number)),
            "city": np.where(random.uniform(size=number) < 0.5, "Rom", "Köln"),
            "as object": np.array(["a", "b"], object)[random.integers(0, 2, number)],
            "smokes": z + random.normal(size=number) > 0,
            "drinks": pd.array(z > 0.5, dtype="boolean"),
            "born": day + pd.to_timedelta((z * 1000).round(), unit="D"),
            "at": (day + pd.to_timedelta((z * 100).round(), unit="h")).tz_localize("Asia/Tokyo"),
            "arrow": pd.array(np.where(z > 0, "yes", "no"), dtype="string[pyarrow]"),
            "same": "x",
            "since": pd.Timestamp("2020-02-02"),
            "nothing": np.nan,
        }
    )
    frame.loc[0, "income"] = 0
    return frame


def with_gaps(frame, seed=1):
    """The same with a value in five missing, in columns whose dtype allows it and that vary."""
    random, frame = np.random.default_rng(seed), frame.copy()
    for name in frame:
        is_plain = frame[name].dtype.kind in "iub" and frame[name].dtype.name.islower()
        if is_plain or frame[name].nunique() < 2:
            continue
        frame.loc[random.uniform(size=len(frame)) < 0.2, name] = None
    return frame


def assert_equal(frame, expected):
    pd.testing.assert_frame_equal(frame, expected, check_exact=False, rtol=1e-5, check_freq=False)


@pytest.mark.parametrize("frame", [people(), with_gaps(people())], ids=["whole", "gaps"])
def test_a_frame_goes_to_numbers_and_back(frame):
    table = Table.of(frame)
    x = table.encode(frame)
    assert_equal(table.decode(x, frame.index), frame)
    assert {part: values.shape for part, values in x.items()} == {
        part: (NUMBER, *shape) for part, shape in table.shapes.items()
    }
    assert {values.dtype.name for values in x.values()} == {"float32"}
    numbers = table.split(x)
    for name, values in numbers.items():
        np.testing.assert_array_equal(np.isnan(values), frame[name].isna())
    for part, values in table.join(numbers).items():
        np.testing.assert_array_equal(values, x[part])
    again = Table.from_config(json.loads(json.dumps(table.get_config())))
    assert again == table
    assert_equal(again.decode(again.encode(frame), frame.index), frame)


def test_each_column_has_the_likelihood_of_its_dtype():
    found = {column.name: column.likelihood for column in Table.of(people()).columns}
    normal, levels = "IndependentNormalLearnedScale", "IndependentQuantizedLogistic"
    assert found == {
        "age": levels,
        "Größe (cm)": normal,
        "weight": normal,
        "x": levels,
        "income": "IndependentNegativeBinomial",
        "steps": normal,
        **dict.fromkeys(("job", "level", "city", "as object", "arrow"), "IndependentCategorical"),
        **dict.fromkeys(("smokes", "drinks"), "IndependentBernoulli"),
        **dict.fromkeys(("born", "at"), normal),
        **dict.fromkeys(("same", "since", "nothing"), ""),
    }
    assert Table.of(people()).shapes == {
        "age": (),
        "numbers": (5,),
        "x_": (),
        "income": (),
        "names": (2,),  # of three names each
        "names2": (3,),  # of two
        "flags": (2,),
    }


def test_columns_of_one_likelihood_are_one_part_unless_it_was_chosen():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 4)), columns=[*"abcd"])
    table = Table.of(frame, likelihood={"d": None, "a": None, "b": "IndependentNormal", "c": None})
    assert table.shapes == {"numbers": (3,), "b": ()}
    assert table.likelihoods == {
        "numbers": "IndependentNormalLearnedScale",
        "b": "IndependentNormal",
    }
    x = table.encode(frame)
    np.testing.assert_allclose(x["numbers"], stats.zscore(frame[["d", "a", "c"]]), rtol=1e-5)
    assert_equal(table.decode(x), frame[["d", "a", "b", "c"]])
    assert table.likelihood(3).parts["numbers"].layers[-1].raw_scale.shape == (3,)
    with pytest.raises(ValueError, match=r"\['d', 'a', 'c'\] share a likelihood, but received"):
        table.likelihood(3, {"a": {"rate": 2.0}})
    named = Table.of(
        frame.rename(columns={"a": "numbers"}),
        likelihood={"numbers": "IndependentNormal", "b": None, "c": None},
    )
    assert named.shapes == {"numbers": (), "numbers2": (2,)}
    assert Table.of(frame).shapes == {"a": (), "numbers": (3,)}


def test_a_part_of_several_columns_has_the_density_of_its_columns():
    """One network with the weights of the networks of each column, as older files have them."""
    frame = pd.DataFrame(
        {
            **{f"n{i}": np.random.default_rng(i).normal(size=30) for i in range(3)},
            **{
                f"c{i}": np.random.default_rng(i).poisson(400, 30) * (np.arange(30) > 0)
                for i in range(2)
            },
            **{f"f{i}": np.random.default_rng(i).uniform(size=30) < 0.5 for i in range(2)},
            **{f"l{i}": np.random.default_rng(i).permutation(30) for i in range(2)},
            **{f"s{i}": np.random.default_rng(i).choice([*"abc"], 30) for i in range(2)},
        }
    )
    together = Table.of(frame)
    assert [*together.shapes] == ["numbers", "counts", "flags", "levels", "names"]
    config = together.get_config()
    for column in config["columns"]:
        column["part"] = column["name"]
    alone = Table.from_config(config)
    joint, single = together.likelihood(4), alone.likelihood(4)
    features = np.random.default_rng(0).normal(size=(30, 4)).astype("float32")
    joint(features), single(features)
    for part, columns in together.parts.items():
        dense, size = joint.parts[part].layers[0], len(columns)
        for place, column in enumerate(columns):
            for weight, own in zip(
                dense.weights, single.parts[column.name].layers[0].weights, strict=True
            ):
                value = weight.numpy()
                params = np.moveaxis(value.reshape(*value.shape[:-1], -1, size), -1, 0)
                own.assign(
                    params[place]
                    if part != "names"
                    else value.reshape(*value.shape[:-1], size, -1)[..., place, :]
                )
    x, x_alone = together.encode(frame), alone.encode(frame)
    expected = single(features)
    np.testing.assert_allclose(joint(features).log_prob(x), expected.log_prob(x_alone), rtol=1e-4)


def test_whole_numbers_with_gaps_are_whole_and_strings_of_few_values_are_names():
    frame = pd.DataFrame({"kids": [0.0, 2.0, np.nan, 1.0], "flag": [True, None, False, True]})
    table = Table.of(frame)
    assert table.likelihoods == {
        "kids": "IndependentQuantizedLogistic",
        "flag": "IndependentBernoulli",
    }
    assert_equal(table.decode(table.encode(frame)), frame)


def test_means_become_possible_values():
    frame = pd.DataFrame({"a": [3, 9], "b": [False, True], "c": [0, 1000], "d": [1.25, 2.5]})
    table = Table.of(frame)
    x = {"a": [2.6, -7.0], "b": [0.49, 0.51], "c": [3.4, 2000.0], "d": [0.0001, 0.0]}
    found = table.decode({part: np.array(values) for part, values in x.items()})
    assert found.to_dict("list") == {
        "a": [6, 3],
        "b": [False, True],
        "c": [3, 2000],
        "d": [1.88, 1.88],
    }


def test_scales_are_those_of_the_training_rows_and_names_those_of_all():
    frame = pd.DataFrame({"a": [1.5, 2.5, 99.0], "b": ["u", "u", "v"]})
    table = Table.of(frame, measured=frame.iloc[:2])
    number, names = table.columns
    assert (number.mean, number.scale) == (2.0, 0.5)
    assert names.categories == ["u", "v"]


def test_what_only_rounding_makes_vary_is_constant():
    frame = pd.DataFrame({"a": [0.1, 0.1, 0.1, 0.25], "b": range(4), "c": [1e200] * 3 + [1.5]})
    assert frame["a"][:3].to_numpy().std() > 0.0
    table = Table.of(frame, measured=frame[:3])
    assert [table.columns[place].scale for place in (0, 2)] == [1.0, 1.0]
    assert series.measure(np.array([0.1, 0.1 + 1e-12]))[1] < 1e-12


def test_likelihoods_and_columns_of_choice():
    frame = people()
    chosen = {"age": None, "x": "IndependentPoisson", "level": None, "drinks": None}
    table = Table.of(frame, likelihood=chosen)
    assert table.likelihoods["x_"] == "IndependentPoisson"
    assert [*table.decode(table.encode(frame))] == [*chosen]
    codes = Table.of(frame, likelihood={"x": "IndependentCategorical", "smokes": None})
    assert_equal(codes.decode(codes.encode(frame)), frame[["x", "smokes"]])


def test_draws_have_an_index_of_their_own_and_known_values_stay():
    frame = with_gaps(people(5)).drop(columns=["nothing"])
    frame.index = [*"vwxyz"]
    table = Table.of(with_gaps(people()).drop(columns=["nothing"]))
    x = {part: np.zeros([3, 5, *shape]) for part, shape in table.shapes.items()}
    draws = table.fill(frame, table.decode(x, frame.index))
    assert draws.index.names == ["draw", "row"]
    assert len(draws) == 15
    assert draws.dtypes.equals(frame.dtypes)
    for draw in range(3):
        of_draw = draws.loc[draw].rename_axis(None).where(frame.notna())
        assert_equal(of_draw, frame.where(frame.notna()))
    assert not draws.isna().any(axis=None)


BAD = {
    "no frame": ({"a": [1, 2]}, TypeError, "Expected a pandas DataFrame, received a dict"),
    "empty": (pd.DataFrame({"a": [], "b": []}), ValueError, "The table is empty: 0 rows of 2"),
    "no columns": (pd.DataFrame(index=[0, 1]), ValueError, "The table is empty"),
    "a name twice": (
        pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"]),
        ValueError,
        "The name 'a' stands above 2 columns",
    ),
    "a name twice as a text": (
        pd.DataFrame([[1, 2], [3, 4]], columns=["1", 1]),
        ValueError,
        "The name '1' stands above 2 columns",
    ),
    "no column that varies": (
        pd.DataFrame({"a": [1, 1], "b": [5, 5]}),
        ValueError,
        r"received \[\] of \['a', 'b'\], 0 feature",
    ),
    "one column": (
        pd.DataFrame({"a": [1, 2], "b": [5, 5]}),
        ValueError,
        r"two columns at least .*received \['a'\] of \['a', 'b'\], 1 feature",
    ),
    "too many names": (
        pd.DataFrame({"a": map(str, range(300)), "b": range(300)}),
        ValueError,
        "The column 'a' has 300 different values in 300 rows",
    ),
    "lists": (pd.DataFrame({"a": [[1], [2]], "b": [1, 2]}), ValueError, "column 'a' holds things"),
    "mixed": (
        pd.DataFrame({"a": [1, "b"], "b": [1, 2]}),
        ValueError,
        r"'a' is of type object \(mixed-integer\), which no likelihood suits",
    ),
    "durations": (
        pd.DataFrame({"a": pd.to_timedelta([1, 2]), "b": [1, 2]}),
        ValueError,
        "'a' is of type timedelta",
    ),
    "infinite": (
        pd.DataFrame({"a": [np.inf, 2.5], "b": [1, 2]}),
        ValueError,
        "'a' holds 1 infinite values, first in row 0",
    ),
    "intervals": (
        pd.DataFrame({"a": pd.cut([1.0, 2.0], 2), "b": [1, 2]}),
        ValueError,
        "Categories must be texts or numbers",
    ),
}


@pytest.mark.parametrize(("frame", "kind", "message"), BAD.values(), ids=BAD)
def test_bad_tables(frame, kind, message):
    with pytest.raises(kind, match=message):
        Table.of(frame)


NEW = {
    "city": (
        "Paris",
        "'city' takes one of 2 categories, 'Köln', 'Rom', received 'Paris', first in",
    ),
    "level": (7, "'level' takes one of 3 categories"),
    "age": (200, "'age' takes whole numbers from .*, those of the training data, received .*200"),
    "income": (-1, "'income' takes whole numbers from 0"),
    "same": ("y", "'same' takes always x, received 'y'"),
    "nothing": (1.0, "'nothing' takes no value, received .*1.0"),
    "smokes": ("maybe", "'smokes' takes True and False, received 'maybe'"),
    "weight": ("heavy", "'weight' takes numbers, received type"),
    "born": ("yesterday", "'born' takes dates, received type"),
}


@pytest.mark.parametrize("name", NEW)
def test_what_the_training_data_have_not_is_told(name):
    value, message = NEW[name]
    frame = people()
    changed = frame.assign(**{name: frame[name].astype(object).where(frame.index != 3, value)})
    with pytest.raises(ValueError, match=message):
        Table.of(frame).encode(changed)
    with pytest.raises(ValueError, match=f"lacks the column '{name}'"):
        Table.of(frame).encode(frame.drop(columns=[name]))


def test_files_are_read_as_they_were_written(tmp_path):
    frame = people().drop(columns="level")  # Parquet makes numbers of categories of numbers
    tables.write(frame, tmp_path / "people.parquet", ".parquet")
    assert_equal(tables.read(tmp_path / "people.parquet"), frame)
    tables.write(frame, tmp_path / "people.csv", ".csv")
    found = tables.read(tmp_path / "people.csv")
    assert [*found] == [*frame]
    assert found["born"].dtype.kind == "M"
    assert found["smokes"].dtype == bool
    np.testing.assert_array_equal(found["born"], frame["born"])


FORMS = {
    "semicolons": ("a;b\n1;2020-01-01\n3;2021-01-01\n", [1, pd.Timestamp("2020-01-01")]),
    "decimal commas": ("a;b\n1,5;x\n2,25;y\n", [1.5, "x"]),
    "of Windows": ("\ufeffa;b\r\nx;-1,5\r\ny;2\r\n", ["x", -1.5]),
    "tabs": ("a\tb\n1,5\tx\n", [1.5, "x"]),
    "one column of them": ("a\tb\tc\nx\t1,2\t0.5\ny\t-,4e1\t0.75\n", ["x", 1.2, 0.5]),
    "in quotes": ('a,b\n"1,5",x\n"2",y\n', [1.5, "x"]),
    "a comma in a text": ("a;b\n1.5;x,1\n2.5;y\n", [1.5, "x,1"]),
    "separators in a name": ('"a;b;c",d\n1,2\n', [1, 2]),
    "long names": (f"{'a' * 70_000};{'b' * 70_000}\n1;2\n", [1, 2]),
    "of old Macs": ("a,b\r1,2\r3,4\r", [1, 2]),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_csv(tmp_path, name):
    text, expected = FORMS[name]
    (tmp_path / "table.csv").write_bytes(text.encode())
    assert tables.read(tmp_path / "table.csv").iloc[0].tolist() == expected


def test_numbers_that_begin_with_a_zero_are_texts(tmp_path):
    (tmp_path / "a.csv").write_text("code,part,n\n01000,0.5,1\n80331,,2\n,0.25,0\n")
    found = tables.read(tmp_path / "a.csv")
    assert found["code"].tolist()[:2] == ["01000", "80331"]
    assert found["code"].isna().tolist() == [False, False, True]
    assert found.dtypes[["part", "n"]].tolist() == [np.dtype("float64"), np.dtype("int64")]


def test_names_of_columns_and_rows_of_all_kinds_are_kept(tmp_path, monkeypatch):
    names = [f"patient {i}" for i in range(40)]
    frame = pd.DataFrame(
        np.random.default_rng(0).normal(size=(40, 3)), names, ["0", "a.b", "c [d]"]
    )
    frame.index.name = "id"
    for name in ("table.parquet", "table.csv"):
        tables.write(frame, tmp_path / name, Path(name).suffix)
    found = tables.read(tmp_path / "table.parquet")
    pd.testing.assert_frame_equal(found, frame)
    assert tables.read(tmp_path / "table.csv")["id"].tolist() == names
    frame.columns = [0, 1, 2]
    frame.to_parquet(tmp_path / "numbers [1].parquet")
    small = datasets.load(tmp_path / "numbers [1].parquet")
    assert (small.name, small.table.names) == ("numbers (1)", [0, 1, 2])
    monkeypatch.setattr(storage, "MOST_BYTES", 0)
    assert datasets.load(tmp_path / "numbers [1].parquet").table == small.table


def test_the_largest_whole_numbers_do_not_wrap_around():
    frame = pd.DataFrame({"a": [2**63 - 1, -(2**63), 5, 7], "b": [1.5, 2.5, 3.5, 4.5]})
    table = Table.of(frame)
    found = table.decode({"a": np.array([9.0, -9.0]), "b": np.zeros(2)})["a"]
    assert (found.iloc[0] > 2**62, found.iloc[1] < -(2**62)) == (True, True)


@pytest.mark.parametrize(
    "dtype", ["int16", "Int16", "uint16", "int16[pyarrow]", "float32", "int64"]
)
def test_draws_of_counts_fit_the_dtype(dtype):
    frame = pd.DataFrame({"n": [0, 30_000, 7], "v": [0.5, 1.5, 2.5]}).astype({"n": dtype})
    table = Table.of(frame)
    assert table.likelihoods["n"] == "IndependentNegativeBinomial"
    found = table.decode({"n": np.array([4e4, 7e4, 1e9]), "v": np.zeros(3)})
    most = {"uint16": 2**16 - 1, "float32": 2**24, "int64": 2**24}.get(dtype, 2**15 - 1)
    assert found["n"].tolist() == [min(value, most) for value in (40_000, 70_000, 10**9)]
    assert found["n"].dtype == frame["n"].dtype
    table.encode(found)


def test_names_of_digits_are_no_dates(tmp_path):
    frame = pd.DataFrame({"a": ["1984", "1985"], "b": ["2020-01-01", "2021-01-01"]})
    frame.to_parquet(tmp_path / "table.parquet")
    found = tables.read(tmp_path / "table.parquet")
    assert found["a"].tolist() == ["1984", "1985"]
    assert found["b"].dt.year.tolist() == [2020, 2021]


def twice():
    """A Parquet file of two columns of one name, as pandas does not write it."""
    file = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table([[1, 2], [3, 4]], names=["a", "a"]), file)
    return file.getvalue().to_pybytes()


FILES = {
    "latin.csv": (
        "name,age\nJürgen,3\n".encode("latin1"),
        "not in UTF-8, first in line 2. Convert",
    ),
    "utf16.csv": ("a,b\n1,2\n".encode("utf-16"), "is not in UTF-8, first in line 1"),
    "empty.csv": (b"", "is empty or no text"),
    "twice.csv": (b"a,b,a\n1,2,3\n", "The name 'a' stands above 2 columns of"),
    "ragged.csv": (b"a,b\n1,2\n1,2,3\n", "is not a table in CSV: Error tokenizing data"),
    "longer.csv": (b"a,b\n1,2,3\n1,2,3\n", "more values than there are names"),
    "steps.csv": (b"a,b\n1,2,3\n4,5,6\n", "more values than there are names"),
    "thousands.csv": (b"a;b\n1,234;x\n12,500;y\n", "'1,234' in the column 'a' may be thousands"),
    "header.csv": (b"a,b\n", "The data set is empty or too small: 0 examples"),
    "short.csv": (b"a,b\n1,2\n", "The data set is empty or too small: 1 examples"),
    "bad.parquet": (b"PAR1", "is not a Parquet table, or a damaged one"),
    "twice.parquet": (twice(), "The name 'a' stands above 2 columns of"),
    "gaps.csv": (
        b"a,b\n" + b"1,2\n,3\n4,2\n" * 10,
        r"gaps lacks values in 1 of its columns: a \(10\)",
    ),
    "one.csv": (b"a,b\n" + b"1,2\n1,3\n" * 10, "two columns at least"),
}


@pytest.mark.parametrize("name", FILES)
def test_bad_files_are_told_in_a_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, message = FILES[name]
    Path(name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        datasets.load(name)
    code, _, err = invoke("train", "--dataset", name, "--epochs", 1)
    assert (code, err.count("\n")) == (2, 1)


def test_no_condition_and_no_single_likelihood():
    for given in ({"condition": "age"}, {"likelihood": "IndependentNormal"}):
        with pytest.raises(ValueError, match="learned together, without a condition"):
            datasets.load(people(), **given)


def make_vae(table, x, missing=True):
    """A small VAE of a table."""
    posterior = tfpl.MultivariateNormalDiag(2)
    inputs = table.inputs(x, missing=missing)
    encoder = networks.from_inputs(inputs, [keras.layers.Dense(4), posterior])
    features = keras.layers.Dense(8, "relu")
    decoder = networks.from_inputs({"z": (2,)}, [features, table.likelihood(8)])
    return tfp_vae.VAE(encoder, decoder, missing=missing)


def few(frame):
    """Columns of each kind: a graph of all of them takes long to trace."""
    return frame[["age", "Größe (cm)", "city", "born", "same"]]


@pytest.fixture(scope="module")
def trained():
    """A VAE of a table with gaps, and the table: leave both as they are."""
    keras.utils.set_random_seed(0)
    frame = few(with_gaps(people(80)))
    splits = datasets.load(frame, missing=True)
    vae = make_vae(splits.table, splits.train)
    vae.compile(keras.optimizers.Adam(1e-2))
    vae.fit(splits.train, batch_size=40, epochs=2, verbose=0, validation_data=(splits.test,))
    return vae, frame


def test_a_model_takes_and_returns_frames(trained, tmp_path):
    vae, frame = trained
    rows = frame.iloc[10:30]
    new = vae.generate(7, draws=True)
    assert len(new) == 7
    for found in (new, vae.reconstruct(rows), vae.impute(rows, 5)):
        assert [*found] == [*frame]
        assert found.dtypes.equals(frame.dtypes)
        assert set(found["city"]) <= {"Rom", "Köln"}
        assert set(found["same"]) == {"x"}
    filled = vae.impute(rows, 5)
    assert not filled.isna().any(axis=None)
    pd.testing.assert_frame_equal(filled.where(rows.notna()), rows.where(rows.notna()))
    drawn = vae.impute(rows, 5, num_draws=2)
    assert drawn.index.names == ["draw", "row"]
    years = rows.set_index(pd.MultiIndex.from_product([[0, 1], range(10)], names=["year", "id"]))
    in_years = vae.impute(years, 5, num_draws=2)
    assert in_years.index.names == ["draw", "year", "id"]
    np.testing.assert_array_equal(in_years, drawn)
    x = vae.table.encode(rows)
    np.testing.assert_array_equal(vae.encode(rows).mean(), vae.encode(x).mean())
    vae.save(tmp_path / "vae.keras")
    again = keras.models.load_model(tmp_path / "vae.keras")
    pd.testing.assert_frame_equal(again.generate(7, draws=True), new)


def test_densities_are_in_the_units_of_the_columns(trained):
    """Those of a number per unit, of a date per day, and of a missing value none."""
    vae, frame = trained
    rows = frame.iloc[:40]
    table, x = vae.table, vae.table.encode(rows)
    size, born = (column for column in table.columns if column.name in ("Größe (cm)", "born"))
    gain = rows["Größe (cm)"].notna() * np.log(size.scale) + rows["born"].notna() * np.log(
        born.scale
    )
    difference = vae.log_prob(x, 5) - vae.log_prob(rows, 5)
    np.testing.assert_allclose(difference, gain, rtol=1e-4)
    loc, scale = 0.3, 0.7
    own = stats.norm.logpdf(170.0, size.mean + size.scale * loc, size.scale * scale)
    standard = stats.norm.logpdf((170.0 - size.mean) / size.scale, loc, scale)
    assert own == pytest.approx(standard - size.log_scale)


def test_columns_that_a_model_does_not_use_stay_as_they_stand(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    vae, frame = trained
    vae.save("vae.keras")
    others = {
        "code": ["01234", "80331", "00007"],
        "id": ["1234567890123456789", "", "1234567890123456781"],
        "note": ["NA", "null", ""],
        "day": ["2024-01-05T10:00", "2024-01-06", "2024-01-07 00:00:00"],
        "price": ["1.50", "+2", "1e3"],
    }
    frame.iloc[:3].assign(**others).set_axis(["007", "08", "1"]).to_csv("in.csv")
    for command in ("impute", "score"):
        arguments = ["in.csv", "vae.keras", "--num-samples", 2, "--output", f"{command}.csv"]
        assert invoke(command, *arguments)[::2] == (0, "")
        found = pd.read_csv(f"{command}.csv", dtype=str, keep_default_na=False, index_col=0)
        assert found[[*others]].to_dict("list") == others
        assert [*found.index] == ["007", "08", "1"]
    assert "" not in found["log_prob"].tolist()


def test_a_column_of_scores_is_not_overwritten(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    vae, frame = trained
    vae.save("vae.keras")
    frame.assign(log_prob=1).to_csv("in.csv")
    code, _, err = invoke("score", "in.csv", "vae.keras", "--output", "out.csv")
    assert (code, err.count("\n")) == (2, 1)
    assert "in.csv has a column 'log_prob'. Expected none" in err
    assert not Path("out.csv").exists()


@pytest.mark.slow
def test_a_served_model_gets_and_sends_names(trained, tmp_path):
    vae, frame = trained
    served = tfp_vae.load(vae.export(tmp_path / "served"))
    assert served.table == vae.table
    rows = frame.iloc[:6]
    pd.testing.assert_frame_equal(served.generate(5, draws=True), vae.generate(5, draws=True))
    card = (tmp_path / "served" / "1" / "assets.extra" / "model_card.md").read_text()
    assert (
        "| Größe (cm) | float64 | `numbers[0]` | IndependentNormalLearnedScale | real, mean" in card
    )
    assert "| same | str | nothing | none | always x |" in card
    filled = served.impute(rows)
    assert not filled.isna().any(axis=None)
    assert filled.dtypes.equals(rows.dtypes)
    x = vae.table.encode(rows)
    units = vae.table.log_units(rows)
    plain, own = served.score(x), served.score(rows)
    np.testing.assert_allclose(own["elbo"], plain["elbo"] + units, rtol=1e-5)
    np.testing.assert_array_equal(own["kl"], plain["kl"])
    with pytest.raises(ValueError, match="'city' takes one of 2 categories"):
        served.score(rows.assign(city="Paris"))
    # A client without names may send a number too large: its row is NaN, the others are as always.
    x["city"][2] = 9.0
    bad = served.call("score", **x)["elbo"]
    assert np.isnan(bad).tolist() == [row == 2 for row in range(6)]


def test_a_model_without_a_table_says_so(trained):
    _, frame = trained
    encoder = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2), tfpl.MultivariateNormalDiag(1)]
    )
    decoder = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(6), tfpl.IndependentNormal(3)]
    )
    with pytest.raises(
        ValueError, match=r"takes arrays, received a DataFrame: it was made without"
    ):
        tfp_vae.VAE(encoder, decoder).encode(frame)


@pytest.mark.slow
def test_the_command_line_speaks_in_columns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = with_gaps(people())[["age", "city", "born", "same"]]
    tables.write(frame, Path("people.csv"), ".csv")
    tables.write(frame, Path("people.parquet"), ".parquet")
    options = ["--dataset", "people.parquet", "--missing", *SMALL, "--batch-size", 40]
    code, out, err = invoke("train", *options, "--run", "run")
    assert (code, err) == (0, "")
    assert "The columns of people" in out
    assert "2: Köln, Rom" in out
    for model, name in (("run", "new.parquet"), ("saved_models/people", "served.parquet")):
        arguments = ["--draws", "--num-examples", 5, "--output", name]
        assert invoke("sample", model, *arguments)[::2] == (0, "")
        assert tables.read(name).dtypes.equals(frame.dtypes)
    pd.testing.assert_frame_equal(tables.read("new.parquet"), tables.read("served.parquet"))
    assert invoke("impute", "people.csv", "run", "--num-samples", 5)[::2] == (0, "")
    assert not tables.read("imputed.csv").isna().any(axis=None)
    for model in ("run", "saved_models/people"):
        output = f"scores of {Path(model).name}.csv"
        assert invoke("score", "people.csv", model, "--output", output)[::2] == (0, "")
        assert np.isfinite(tables.read(output)["log_prob"]).all()
    assert invoke("evaluate", "run", "--num-samples", 5)[0] == 0
    assert invoke("train", "--resume", "run", "--epochs", 3)[0] == 0
    frame.assign(city="Paris").to_csv("new.csv", index=False)
    for line in (
        "score new.csv run",
        "impute new.csv run --output x.csv",
        "evaluate run --dataset new.csv",
    ):
        code, _, err = invoke(*line.split())
        assert (code, err.count("\n")) == (2, 1)
        assert "'city' takes one of 2 categories" in err
    assert "must end in .csv or .parquet" in invoke("sample", "run", "--output", "new.npz")[2]


def test_dates_of_other_centuries_are_refused():
    """Their nanoseconds would wrap around."""
    born = pd.to_datetime(["1980-01-01", "9999-12-31", "1990-05-05"]).astype("datetime64[us]")
    frame = pd.DataFrame({"born": born, "weight": [1.5, 2.5, 3.0]})
    with pytest.raises(ValueError, match=r"'born' has the date 9999-12-31 .* in row 1"):
        Table.of(frame)


def test_a_row_without_its_date_is_encoded():
    born = pd.to_datetime(["1980-01-01", "1985-12-31", "1990-05-05"])
    table = Table.of(pd.DataFrame({"born": born, "weight": [1.5, 2.5, 3.0]}))
    for nothing in (None, np.nan, pd.NaT):
        x = table.encode(pd.DataFrame({"born": [nothing], "weight": [2.0]}))
        assert np.isnan(x["born"]).all()


def test_the_span_of_small_integers_does_not_wrap_around():
    frame = pd.DataFrame(
        {"a": np.array([-20000, 20000, 5], "int16"), "b": np.array([0.5, 1.5, 2.5])}
    )
    assert Table.of(frame).columns[0].likelihood == "IndependentNormalLearnedScale"


OF_FRAMES = {
    "evaluate": lambda vae, x: evaluation.evaluate(vae, x, num_samples=5),
    "elbo": evaluation.elbo,
    "nll": lambda vae, x: evaluation.nll(vae, x, num_samples=5),
    "active_units": evaluation.active_units,
    "kl_by_dimension": evaluation.kl_by_dimension,
    "negative_elbo": evaluation.negative_elbo,
    "posterior_means": evaluation.posterior_means,
    "reconstruction_errors": evaluation.reconstruction_errors,
    "aggregate prior": lambda vae, x: tfp_vae.fit_aggregate_prior(vae, x, num_components=2).mean(),
}


@pytest.mark.parametrize("frame", [people(), with_gaps(people())], ids=["whole", "gaps"])
def test_a_large_parquet_file_is_read_by_columns_and_stays_outside_of_memory(
    frame, tmp_path, monkeypatch
):
    path, missing = tmp_path / "people.parquet", frame["level"].isna().any()
    frame.to_parquet(path)
    expected = datasets.load(path, missing=missing)
    monkeypatch.setattr(storage, "MOST_BYTES", 0)
    if missing:
        with pytest.raises(ValueError, match="lacks values in"):
            datasets.load(path)
    splits = datasets.load(path, missing=missing)
    assert splits.table == expected.table
    for split in datasets.SPLITS:
        own, theirs = getattr(splits, split), getattr(expected, split)
        assert [*own] == [*theirs]
        for part in own:
            assert isinstance(own[part], Rows)
            np.testing.assert_array_equal(own[part], theirs[part])
    one, other = (next(iter(each.batches(16, seed=3))) for each in (splits, expected))
    tf.nest.map_structure(np.testing.assert_array_equal, one, other)
    known = datasets.load(path, missing=missing, table=expected.table)
    np.testing.assert_array_equal(known.test["age"], expected.test["age"])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"people\.parquet is not a Parquet table"):
        datasets.load(path)


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize("missing", [True, False])
def test_a_large_parquet_file_trains_as_one_in_memory(missing, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = (with_gaps(people()) if missing else people())[["age", "city", "born", "same"]]
    frame.to_parquet("people.parquet")
    options = ["--dataset", "people.parquet", *(["--missing"] if missing else []), *SMALL]
    numbers = []
    for most in (storage.MOST_BYTES, 0):
        monkeypatch.setattr(storage, "MOST_BYTES", most)
        assert invoke("train", *options, "--run", f"of-{most}")[::2] == (0, "")
        numbers.append(json.loads(Path(f"of-{most}/metrics.json").read_text()))
        assert invoke("report", f"of-{most}")[0] == 0
    assert numbers[0]["nll"] == pytest.approx(numbers[1]["nll"], rel=1e-5)


@pytest.mark.parametrize("name", OF_FRAMES)
@pytest.mark.rows(4, 9)
def test_what_is_evaluated_may_be_a_frame(trained, name):
    vae, frame = trained
    found = OF_FRAMES[name](vae=vae, x=frame)
    expected = OF_FRAMES[name](vae, vae.table.encode(frame))
    tf.nest.map_structure(np.testing.assert_array_equal, found, expected)
