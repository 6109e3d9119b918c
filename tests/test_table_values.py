"""Values of tables at their edges: files of few rows, time zones, whole numbers beyond floats."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from tests.test_cli import invoke
from tests.test_tables import SMALL
from tfp_vae import datasets, tables
from tfp_vae.cli.html.parts import train_command
from tfp_vae.cli.runs import Run
from tfp_vae.sklearn import Imputer
from tfp_vae.tables import Table

GERMAN = "plz;preis;size;tag;n\n" + "".join(
    f"{plz};{preis};{size};2024-01-0{day};{day}\n"
    for plz in ("01234", "12345")
    for preis in ("1,5", "2,25", "13")
    for size in ("1", "2", "XL")
    for day in range(1, 7)
)


def read(tmp_path, text, table=None):
    path = tmp_path / "table.csv"
    path.write_text(text)
    return tables.read(path, table)


@pytest.fixture
def german(tmp_path):
    return Table.of(read(tmp_path, GERMAN))


# A line of the file, and what it says.
ROWS = {
    "no zero in front": ("12345;1,5;XL;2024-01-05;3", ("12345", 1.5, "XL", 3)),
    "a name of digits": ("01234;1,5;1;2024-01-05;3", ("01234", 1.5, "1", 3)),
    "three decimals": ("01234;1,125;1;2024-01-05;3", ("01234", 1.125, "1", 3)),
    "a whole number": ("01234;2;1;2024-01-05;3", ("01234", 2, "1", 3)),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_read_as_the_table_knows_it(name, german, tmp_path):
    line, (plz, preis, size, n) = ROWS[name]
    found = read(tmp_path, f"{GERMAN.splitlines()[0]}\n{line}\n", german)
    assert [*found.iloc[0]] == [plz, preis, size, pd.Timestamp("2024-01-05"), n]
    german.encode(found)


def test_columns_of_one_value_are_read_as_they_were(tmp_path):
    first, row = "a,b,code,since,n\n", "{},{},007,2020-02-02,5\n"
    table = Table.of(read(tmp_path, first + "".join(row.format(i, i / 2) for i in range(4))))
    table.encode(read(tmp_path, first + row.format(1, 0.5), table))
    other = first + row.format(1, 0.5).replace("007", "7")
    with pytest.raises(ValueError, match="'code' takes always 007, received '7'"):
        table.encode(read(tmp_path, other, table))


def test_what_a_table_knows_is_not_in_question(tmp_path):
    """Names that look like numbers, numbers of thousands, and columns that no model uses."""
    frame = pd.DataFrame(
        {
            "version": ["1,125", "2,5", "10"],
            "income": [51234.5, 1000 / 3, 9.0],
            "same": 1.125,
            "n": [1, 2, 3],
        }
    )
    table = Table.of(frame)
    text = "version;income;same;n;other\n1,125;1,125;1,125;2;1,234\n"
    found = read(tmp_path, text, table)
    assert [*found.iloc[0]] == ["1,125", 1.125, 1.125, 2, "1,234"]
    table.encode(found)
    with pytest.raises(ValueError, match="'2,000' in the column 'income' may be thousands"):
        read(tmp_path, 'version,income,same,n\n10,"2,000",1.125,3\n', table)
    with pytest.raises(ValueError, match="'2,000' in the column 'n' may be thousands"):
        read(tmp_path, "version;income;same;n\n10;5,5;1,125;2,000\n", table)


def test_texts_of_dates_in_parquet_are_read_as_the_table_knows_them(tmp_path):
    days = [f"2024-01-{day}" for day in range(10, 22)]
    frame = pd.DataFrame({"text": days, "day": pd.to_datetime(days), "v": np.arange(12) / 8})
    frame["same"] = days[0]
    table = Table.of(frame)
    frame.assign(day=days, other=days).to_parquet(tmp_path / "table.parquet")
    found = tables.read(tmp_path / "table.parquet", table)
    assert [*found["text"], *found["other"]] == [*days, *days]
    for part, values in table.encode(frame).items():
        np.testing.assert_array_equal(table.encode(found)[part], values)
    assert datasets.load(tmp_path / "table.parquet", table=table).table == table
    zoned = Table.of(frame.assign(day=frame["day"].dt.tz_localize("UTC")))
    frame.to_parquet(tmp_path / "table.parquet")
    with pytest.raises(ValueError, match="dates with a time zone"):
        zoned.encode(tables.read(tmp_path / "table.parquet", zoned))


def test_columns_are_left_out_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"first name": ["a"], "x, y": [1.5], "v": [2], "w": [3]})
    frame.to_csv("table.csv", sep=";")  # with an index
    frame.to_parquet("table.parquet")
    for file in ("table.csv", "table.parquet"):
        assert [*tables.files.columns_without(file, 'first name,"x, y"')] == ["v", "w"]
        assert [*tables.files.columns_without(file, "v")] == ["first name", "x, y", "w"]
        with pytest.raises(ValueError, match=r"no column 'name' in .* only \['first name'"):
            tables.files.columns_without(file, "v,name")
    for line, message in {
        "--dataset digits --without x": "columns of a .csv or .parquet file, not of digits",
        "--dataset none.csv --without x": "There is no file none.csv",
        "--dataset table.csv --without v --likelihood Joint(w='auto')": "--likelihood auto",
    }.items():
        code, _, err = invoke("train", *line.split())
        assert (code, err.count("\n")) == (2, 1)
        assert message in err


def test_long_numbers_have_no_commas(tmp_path):
    ids = "1234567890123456789012345", "2234567890123456789012345"
    found = read(tmp_path, f"id,x,code\n{ids[0]},1.125,00{ids[0]}\n{ids[1]},2.757,00{ids[1]}\n")
    assert found["x"].tolist() == [1.125, 2.757]
    assert found["code"].tolist() == [f"00{number}" for number in ids]


def test_numbers_of_a_known_column_may_begin_with_a_zero(tmp_path):
    table = Table.of(pd.DataFrame({"a": [5, 7, 9], "b": [0.5, 1.5, 2.5]}))
    found = read(tmp_path, "a,b\n05,1\n,2\n+7 ,2\n", table)
    assert found["a"].tolist() == [5, pd.NA, 7]


def test_a_column_of_any_name_is_read(tmp_path):
    frame = pd.DataFrame({"self": [1, 2, 3], "b": [1.5, 2.0, 4.0]})
    pd.testing.assert_frame_equal(read(tmp_path, frame.to_csv(index=False), Table.of(frame)), frame)


def test_constant_dates_and_texts_of_dates(tmp_path):
    when = pd.Timestamp("2024-01-05T10:00")
    frame = pd.DataFrame({"text": "2024-01-05", "a": [1, 2], "b": [0.5, 1.5]})
    frame["at"] = when.tz_localize("Europe/Berlin")
    table = Table.of(frame)
    text = "text,a,b,at\n2024-01-05,1,0.5,2024-01-05T{}\n"
    table.encode(read(tmp_path, text.format("10:00"), table))
    table.encode(read(tmp_path, text.format("09:00Z"), table))
    with pytest.raises(ValueError, match="'at' takes always"):
        table.encode(read(tmp_path, text.format("10:00Z"), table))


def test_whole_numbers_with_gaps_are_kept_to_the_last_digit(tmp_path):
    numbers = [1235375830913193282 + 1000 * i for i in range(300)]
    lines = "".join(f"{'' if i % 7 == 0 else n},{i % 5}\n" for i, n in enumerate(numbers))
    found = read(tmp_path, f"tweet,n\n{lines}")
    assert str(found["tweet"].dtype) == "Int64"
    known = found["tweet"].notna()
    assert found["tweet"][known].tolist() == [n for i, n in enumerate(numbers) if i % 7]
    table = Table.of(found)
    filled = table.fill(found, table.decode(table.encode(found.ffill().bfill())))
    pd.testing.assert_series_equal(filled["tweet"][known], found["tweet"][known])
    assert not filled.isna().any(axis=None)


def test_whole_numbers_fill_gaps_of_a_column_of_decimals(tmp_path):
    table = Table.of(pd.DataFrame({"a": [0.5, 1.25, 3.0], "b": [1, 2, 3]}))
    found = read(tmp_path, "a,b\n4,1\n,2\n", table)
    values = table.decode({"a": np.array([0.0, 0.1]), "b": np.zeros(2)})
    assert table.fill(found, values)["a"].tolist() == [4.0, values["a"][1]]


@pytest.mark.parametrize("dtype", ["int64", "Int64", "uint64"])
def test_whole_numbers_of_any_size_have_levels(dtype):
    base = 2**60 if dtype != "uint64" else 2**63 + 2**60
    ids = pd.array([base + i for i in range(50)], dtype=dtype)
    frame = pd.DataFrame({"id": ids, "v": np.arange(50) / 8})
    table = Table.of(frame)
    pd.testing.assert_frame_equal(table.decode(table.encode(frame)), frame)
    within = table.within(frame.assign(id=pd.array([base - 3 + i for i in range(50)], dtype=dtype)))
    levels = table.encode(within)["id"]
    np.testing.assert_array_equal(levels, [np.nan] * 3 + [*range(47)])
    with pytest.raises(ValueError, match=f"whole numbers from {base} to"):
        table.encode(frame.assign(id=ids + 1))


def in_summer_and_winter(zone):
    when = pd.date_range("2024-01-01", periods=60, freq="5D6h").tz_localize(zone)
    return pd.DataFrame({"when": when, "v": np.arange(60.0) / 8})


def test_an_instant_is_the_same_in_each_time_zone():
    frame = in_summer_and_winter("Europe/Berlin")
    table, universal = Table.of(frame), frame.assign(when=frame.when.dt.tz_convert("UTC"))
    for part, values in table.encode(frame).items():
        np.testing.assert_array_equal(table.encode(universal)[part], values)
    found = table.decode(table.encode(universal))
    pd.testing.assert_frame_equal(found, frame, check_freq=False)
    gaps = universal.assign(when=universal.when.where(universal.index % 2 == 0))
    filled = table.fill(gaps, found)
    pd.testing.assert_frame_equal(filled, universal, check_freq=False)
    arrow = frame.assign(when=frame.when.astype("timestamp[us, tz=Europe/Berlin][pyarrow]"))
    for part, values in table.encode(frame).items():
        np.testing.assert_array_equal(table.encode(arrow)[part], values)
        np.testing.assert_array_equal(Table.of(arrow).encode(frame)[part], values)
    pd.testing.assert_frame_equal(Table.of(arrow).decode(table.encode(frame)), arrow)


def test_a_column_without_dates_takes_those_of_the_model():
    frame = in_summer_and_winter(None)
    table = Table.of(frame)
    nothing = frame.assign(when=pd.Series(pd.NaT, frame.index, "datetime64[ns, UTC]"))
    assert np.isnan(table.encode(nothing)["when"]).all()
    pd.testing.assert_frame_equal(table.fill(nothing, frame), frame, check_freq=False)


def test_dates_with_and_without_a_zone_are_not_mixed():
    zoned = in_summer_and_winter("Europe/Berlin")
    naive = zoned.assign(when=zoned.when.dt.tz_localize(None))
    with pytest.raises(ValueError, match=r"dates with a time zone.*tz_localize\('Europe/Berlin'\)"):
        Table.of(zoned).encode(naive)
    with pytest.raises(ValueError, match=r"dates without a time zone.*tz_localize\(None\)"):
        Table.of(naive).encode(zoned)


def test_files_of_dates_with_offsets(tmp_path):
    frame = in_summer_and_winter("Europe/Berlin")
    found = read(tmp_path, frame.to_csv(index=False))  # +01:00 and +02:00
    assert str(found["when"].dt.tz) == "UTC"
    assert (found["when"] == frame["when"]).all()
    table = Table.of(frame)
    known = read(tmp_path, frame.to_csv(index=False), table)
    local = read(
        tmp_path, frame.assign(when=frame.when.dt.tz_localize(None)).to_csv(index=False), table
    )
    for part, values in table.encode(frame).items():
        np.testing.assert_array_equal(table.encode(known)[part], values)
        np.testing.assert_array_equal(table.encode(local)[part], values)


@pytest.mark.parametrize("zone", [None, "Europe/Berlin", "America/New_York", "Asia/Tokyo"])
def test_far_dates_are_clipped(zone):
    table = Table.of(in_summer_and_winter(zone))
    found = table.decode({"when": np.array([-1e30, 1e30]), "v": np.zeros(2)})["when"]
    assert found.dt.year.tolist() == [1677, 2262]


def test_a_nameless_first_column_is_the_index(tmp_path):
    frame = pd.DataFrame({"age": [1.5, 2.5, 4.0], "kids": [0, 2, 1]}, index=[7, 8, 500])
    pd.testing.assert_frame_equal(read(tmp_path, frame.to_csv()), frame)
    for suffix in (".csv", ".parquet"):
        tables.write(frame, tmp_path / f"new{suffix}", suffix)
        pd.testing.assert_frame_equal(tables.read(tmp_path / f"new{suffix}"), frame)
    old = Table.of(read(tmp_path, frame.to_csv(index_label="Unnamed: 0")))  # as it once was
    assert [*read(tmp_path, frame.to_csv(), old)] == ["Unnamed: 0", "age", "kids"]
    with pytest.raises(ValueError, match="more values than there are names"):
        read(tmp_path, ",a,b\n0,1,2,9\n1,3,4,9\n")
    codes = "".join(f"{i},00{i},{i / 2}\n" for i in range(3))
    assert read(tmp_path, f",code,x\n{codes}")["code"].tolist() == ["000", "001", "002"]


BAD = {
    "thousands beside decimal commas": (
        "menge;preis\n2.757;5,84\n1.200;7,1\n",
        r"'2.757' in the column 'menge' may be thousands or decimals.*\['preis'\]",
    ),
    "thousands": ("a;b\n1,234;x\n12,500;y\n", "'1,234' in the column 'a' may be thousands"),
}


@pytest.mark.parametrize("name", BAD)
def test_numbers_that_can_be_read_in_two_ways(name, tmp_path):
    text, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


def test_numbers_too_large_to_standardize():
    with pytest.raises(ValueError, match=r"'a' has numbers up to 2e\+300, too large"):
        Table.of(pd.DataFrame({"a": [1e300, 2e300, 5.5], "b": [1, 2, 3]}))


def test_a_fold_may_have_a_constant_column():
    random = np.random.default_rng(0)
    x = np.concatenate([random.normal(size=(60, 2)), np.zeros((60, 1))], -1)
    x[3, 2] = 1.0
    x[random.uniform(size=x.shape) < 0.1] = np.nan
    x[3, 2] = 1.0
    imputer = Imputer(latent_size=1, hidden_size=4, epochs=1, num_samples=5)
    assert imputer.fit(x[10:]).transform(x)[3, 2] == 1.0
    model = make_pipeline(imputer, LogisticRegression())
    scores = cross_val_score(model, x, x[:, 0] > 0, cv=2, error_score="raise")
    assert np.isfinite(scores).all()


@pytest.mark.slow
def test_the_command_line_leaves_columns_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"size (cm)": random.normal(size=300), "kids": random.integers(0, 4, 300)})
    frame["notes"] = [f"text {i}" for i in range(300)]
    frame.to_csv("people.csv", index=False)
    options = ["--dataset", "people.csv", "--missing", *SMALL]
    code, _, err = invoke("train", *options)
    assert code == 2
    assert "Leave it out, as --without 'notes' does" in err
    Path("notes.json").write_text('{"name": "", "dataset": "digits", "without": "notes"}')
    assert invoke("train", *options, "--config", "notes.json", "--run", "run")[::2] == (0, "")
    assert invoke("train", "--resume", "run", "--epochs", 3)[::2] == (0, "")
    assert invoke("evaluate", "run", "--num-samples", 5)[0] == 0
    assert "--without notes" in train_command(Run.open(Path("run")).options)
    for command in ("impute", "score"):
        line = ["people.csv", "run", "--num-samples", 2, "--output", f"{command}.csv"]
        assert invoke(command, *line)[::2] == (0, "")
        assert tables.read(f"{command}.csv")["notes"].tolist() == frame["notes"].tolist()
    assert [*tables.read("impute.csv")] == [*frame]


@pytest.mark.slow
def test_the_command_line_reads_few_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "de.csv").write_text(GERMAN)
    options = ["--dataset", "de.csv", *SMALL, "--batch-size", 40]
    assert invoke("train", *options, "--run", "run")[::2] == (0, "")
    first = GERMAN.splitlines()[0]
    for name, (line, _) in ROWS.items():
        (tmp_path / "one.csv").write_text(f"{first}\n{line}\n")
        assert invoke("score", "one.csv", "run", "--output", f"{name}.csv")[::2] == (0, "")
    for text, message in (
        (first, "one.csv holds no rows to score"),
        (f"{first}\n;1,5;XL;2024-01-05;3", r"lacks values in 1 of its columns: plz \(1\)"),
    ):
        (tmp_path / "one.csv").write_text(text + "\n")
        for model in ("run", "saved_models/de"):
            code, _, err = invoke("score", "one.csv", model, "--output", "x.csv")
            assert (code, err.count("\n")) == (2, 1)
            assert re.search(message, err), err
