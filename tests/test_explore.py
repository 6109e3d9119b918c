"""The explorer: what it answers, to whom, and its page in a browser."""

import base64
import contextlib
import functools
import http.client
import importlib
import json
import re
import signal
import socket
import threading
import types
import urllib.parse
import webbrowser
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import sklearn.decomposition

import tfp_vae
from tests.browser import look
from tests.conftest import make_vae
from tests.contract_server import serve
from tests.servers import BASE
from tests.test_cli import command, invoke
from tests.test_tables import people, with_gaps
from tfp_vae import cli, datasets, evaluation, networks, objectives
from tfp_vae import layers as tfpl
from tfp_vae.cli.explore.explorer import SIGNATURES, Explorer
from tfp_vae.cli.explore.models import open_explorer
from tfp_vae.cli.explore.server import Server
from tfp_vae.cli.explore.views import number, views_of
from tfp_vae.quantity import Quantity
from tfp_vae.serving import client
from tfp_vae.serving.in_process import in_process
from tfp_vae.tables import Table
from tfp_vae.text import Vocabulary

# `cli.explore` is the function of the same name.
COMMAND = importlib.import_module("tfp_vae.cli.explore")
EXPLORER = importlib.import_module("tfp_vae.cli.explore.explorer")
SERVER = importlib.import_module("tfp_vae.cli.explore.server")


def explorer_of(vae, x, name, labels=None, **given):
    served = in_process(vae, name, only=SIGNATURES)
    examples = {**served.x.parts(x), **given}
    return Explorer(served, examples, name=name, note="Some examples.", labels=labels)


@pytest.fixture(scope="module")
def explorer(trained_vae, digits):
    labels = datasets.labels("digits", "label")[2][:60, 0]
    return explorer_of(trained_vae, digits.test[:60], "digits <b>", ("label", labels))


@pytest.fixture(scope="module")
def table():
    random = np.random.default_rng(0)
    data = {"diameter": random.normal(size=90), "job": np.arange(90) % 3 * 1.0}
    likelihood = {"diameter": "IndependentNormal", "job": "IndependentCategorical"}
    splits = datasets.load(data, likelihood=likelihood, missing=True)
    joint = "Joint(diameter='IndependentNormal', job='IndependentCategorical')"
    small = {"hidden_size": 8, "latent_size": 3, "batch_size": 10}
    options = cli.Options(name="table", missing=True, likelihood=joint, **small)
    return explorer_of(cli.build(splits, options), splits.test, "a table")


@pytest.fixture(scope="module")
def mixed():
    """A colour picture with missing pixels beside a number and series."""
    random = np.random.default_rng(0)
    shapes = {"face": (8, 8, 3), "age": (), "visits": (), "wave": (50, 3)}
    data = {name: random.normal(size=[60, *shape]) for name, shape in shapes.items()}
    data["face"][:, :4, :4] = np.nan
    data["visits"] = 1_234_567.0 + np.zeros(60)
    likelihood = dict.fromkeys(shapes, "IndependentNormal")
    splits = datasets.load(data, likelihood=likelihood, missing=True)
    joint = f"Joint({', '.join(f'{name}={kind!r}' for name, kind in likelihood.items())})"
    small = {"hidden_size": 8, "latent_size": 2, "batch_size": 10}
    options = cli.Options(name="mixed", missing=True, likelihood=joint, **small)
    return explorer_of(cli.build(splits, options), splits.test, "mixed parts")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "lines.txt"
    path.write_text("a cat\na dog\nno cat\n" * 20)
    splits = datasets.load(path)
    options = cli.Options(
        name="texts", dataset=str(path), hidden_size=8, latent_size=2, batch_size=10
    )
    return explorer_of(cli.build(splits, options), splits.test, "texts")


def vae_of(frame):
    """A model of a table that may have gaps."""
    table = Table.of(frame)
    inputs = table.inputs(table.encode(frame), missing=True)
    posterior = tfpl.MultivariateNormalDiag(2)
    encoder = networks.from_inputs(inputs, [keras.layers.Dense(4), posterior])
    decoder = networks.from_inputs({"z": (2,)}, [keras.layers.Dense(8), table.likelihood(8)])
    return tfp_vae.VAE(encoder, decoder, missing=True)


@pytest.fixture(scope="module")
def columns():
    """A model of a table with named columns of all kinds, its explorer, and its rows, with gaps."""
    names = ["age", "Größe (cm)", "income", "job", "smokes", "born", "at", "same"]
    frame = with_gaps(people(40))[names]
    vae = vae_of(frame)
    return vae, explorer_of(vae, vae.table.encode(frame), "people"), frame


@contextlib.contextmanager
def running(explorer):
    with Server(explorer) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def server(explorer):
    with running(explorer) as server:
        yield server


def request(server, method, path, body=None, **headers):
    """Status, headers and content of an answer; the path starts behind the token."""
    port = server.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    whole = path if path.startswith("/") else f"/{server.token}/{path}"
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    with contextlib.closing(connection):
        with contextlib.suppress(BrokenPipeError):  # refused before all of it was sent
            connection.request(method, whole, body, given)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def ask(server, name, question):
    status, _, content = request(
        server, "POST", name, json.dumps(question), Content_Type="application/json"
    )
    return status, json.loads(content)


# Answers


def test_an_example_is_seen_as_the_model_sees_it(explorer, trained_vae, digits):
    x = digits.test[3:4]
    seen = explorer.example(3)
    posterior = trained_vae.encode(x)
    np.testing.assert_allclose(seen["z"], posterior.mean()[0], rtol=1e-5)
    np.testing.assert_allclose(seen["stddev"], posterior.stddev()[0], rtol=1e-4)
    pixels = np.frombuffer(base64.b64decode(seen["reconstruction"][0]["pixels"]), "uint8")
    means = trained_vae.reconstruct(x).ravel()
    np.testing.assert_allclose(pixels / 255 * 16, means, atol=16 / 255)
    kl = evaluation.elbo(trained_vae, x)["kl"][0]
    assert seen["score"]["kl"] == pytest.approx(kl, rel=1e-3)
    elbo = explorer.served.score(digits.test[:60])["elbo"]
    assert seen["score"]["elbo"] == pytest.approx(elbo[3], rel=1e-4)
    assert seen["better_than"] == pytest.approx(np.mean(elbo < elbo[3]))


def test_a_drawing_is_the_example_again(explorer):
    seen = explorer.example(3)
    drawn = explorer.encode([{"pixels": seen["x"][0]["pixels"]}])
    assert drawn["x"] == seen["x"]
    np.testing.assert_allclose(drawn["z"], seen["z"], rtol=1e-5)
    assert drawn["score"] == pytest.approx(seen["score"], rel=1e-4)


def test_places_are_decoded_and_drawn(explorer, trained_vae):
    z = [[0.5, -1.0, 0.0, 2.0], [0.0] * 4]
    means = np.reshape(trained_vae.decode(np.float32(z)).mean(), [2, -1])
    for sent, mean in zip(explorer.decode(z)["x"], means, strict=True):
        pixels = np.frombuffer(base64.b64decode(sent[0]["pixels"]), "uint8")
        np.testing.assert_allclose(pixels / 255 * 16, mean, atol=16 / 255)
    drawn = explorer.sample(7)
    assert drawn["x"] == explorer.decode([drawn["z"]])["x"]
    assert drawn["z"] != explorer.sample(8)["z"]


def test_what_the_page_is_told_first(explorer, trained_vae, digits):
    told = explorer.model()
    codes = evaluation.posterior_means(trained_vae, digits.test[:60])
    kl = evaluation.kl_by_dimension(trained_vae, digits.test[:60])["z"]
    assert told["order"] == np.argsort(-kl).tolist()
    np.testing.assert_allclose(told["importance"], kl, rtol=1e-3)
    points = sklearn.decomposition.PCA(2).fit_transform(codes)
    np.testing.assert_allclose(np.abs(told["points"]), np.abs(points), rtol=1e-3, atol=1e-3)
    placed = (codes - told["mean"]) @ np.transpose(told["components"])
    np.testing.assert_allclose(told["points"], placed, rtol=1e-3, atol=1e-3)
    assert told["extent"] >= np.abs(codes).max()
    json.dumps(told, allow_nan=False)


def test_the_kl_of_a_dimension_is_that_of_all_examples(explorer, monkeypatch):
    monkeypatch.setattr(EXPLORER, "BATCH_SIZE", 25)
    np.testing.assert_allclose(explorer._kl_by_dimension(), explorer.kl, rtol=1e-5)


def test_points_have_no_kl():
    vae = make_vae(posterior=tfpl.Deterministic, objective=objectives.Reconstruction())
    told = explorer_of(vae, np.zeros([3, 8, 8, 1], "float32"), "an autoencoder").model()
    assert (told["ordered_by"], told["judged_by"]) == ("variance", "log_likelihood")


@pytest.mark.slow
def test_a_table_is_a_list_of_numbers(table):
    (view,) = table.model()["views"]
    assert [field["title"] for field in view["fields"]] == ["diameter", "job"]
    assert [field["whole"] for field in view["fields"]] == [False, True]
    seen = table.encode([[0.5, 2]])
    assert seen["x"] == [[0.5, 2.0]]
    expected = table.served.encode({"diameter": [0.5], "job": [2.0]}).mean()[0]
    np.testing.assert_allclose(seen["z"], expected, rtol=1e-5)
    assert table.encode([[None, 1]])["x"] == [[None, 1.0]]
    for wrong in ([[0.5]], [["a", 1]], [[True, 1]], [[1e300, 1]], [[0.5, 10**400]], "x", []):
        with pytest.raises(ValueError, match="must be a list of"):
            table.encode(wrong)
    with pytest.raises(ValueError, match="category"):
        table.encode([[0.5, 99]])


TIMES = {"born": "%Y-%m-%d", "at": "%Y-%m-%dT%H:%M"}
DECIMALS = {"Größe (cm)": 1, "weight": 3}


def tell(name, value):
    """A value of the tests' table as a person writes it, by pandas and Python alone."""
    if pd.isna(value):
        return None
    if name in TIMES:
        return value.strftime(TIMES[name])
    if name in DECIMALS:
        return f"{value:.{DECIMALS[name]}f}"
    return f"{value:.0f}" if name in ("age", "x", "income", "steps") else str(value)


def test_columns_are_sent_by_name_and_in_their_units():
    frame = with_gaps(people(40))
    table = Table.of(frame)
    parts = table.encode(frame)
    x = Quantity("x", table.shapes, "float32")
    (view,) = views_of(x, None, parts, missing=True, table=table)
    fields = {field["title"]: field for field in view.describe()["fields"]}
    assert [*fields] == [*frame]
    assert fields["job"]["choices"] == ["pilot", "cook", "clerk"]
    assert fields["level"]["choices"] == ["3", "4", "5"]
    assert fields["smokes"]["choices"] == ["False", "True"]
    assert (fields["born"]["seconds"], fields["at"]["seconds"]) == (86400, 3600)
    assert [fields[name]["decimals"] for name in ("age", *DECIMALS)] == [0, 1, 3]
    sent = view.to_page(parts)
    expected = [[tell(name, row[name]) for name in frame] for _, row in frame.iterrows()]
    assert sent == expected
    for place, row in enumerate(sent):
        for part, value in view.from_page(row).items():
            np.testing.assert_allclose(value, parts[part][place], atol=1e-3)
    nothing = view.to_page({part: np.full([1, *table.shapes[part]], np.nan) for part in parts})[0]
    assert {name for name, value in zip(frame, nothing, strict=True) if value} == {"same", "since"}
    whole = expected[0]
    for name, wrong, complaint in [
        ("job", "cooks", r"'cooks' is no value of the column 'job' \(3: pilot, cook, clerk\)"),
        ("job", 1, "no value of the column 'job'"),
        ("age", "1e9", "takes whole numbers from .*, received '1e9'.$"),
        ("weight", "heavy", "takes numbers"),
        ("born", "yesterday", "takes dates such as 2001-12-31, received 'yesterday'"),
        ("born", "0001-01-01", "years between"),
    ]:
        one = dict(zip(frame, whole, strict=True)) | {name: wrong}
        with pytest.raises(ValueError, match=complaint):
            view.from_page([*one.values()])
    (strict,) = views_of(x, None, parts, missing=False, table=table)
    with pytest.raises(ValueError, match="None is no value of the column 'age'"):
        strict.from_page([None, *whole[1:]])


@pytest.mark.parametrize("dtype", ["int64", "float64", "Int64", "bool", "object"])
def test_flags_of_any_type_can_be_sent_back(dtype):
    values = pd.Series([True, False, True]).astype(dtype)
    frame = pd.DataFrame({"smokes": values, "drinks": values})
    table = Table.of(frame, likelihood=dict.fromkeys(frame, "IndependentBernoulli"))
    parts = table.encode(frame)
    x = Quantity("x", table.shapes, "float32")
    (view,) = views_of(x, None, parts, missing=True, table=table)
    sent = view.to_page(parts)
    assert sent == [[str(value)] * 2 for value in values]
    assert view.describe()["fields"][0]["choices"] == [sent[1][0], sent[0][0]]
    for row, flag in zip(sent, [1, 0, 1], strict=True):
        assert [*view.from_page(row).values()] == [flag, flag]


@pytest.mark.slow
def test_a_model_of_columns_is_seen_in_columns(columns):
    vae, explorer, frame = columns
    seen = explorer.example(3)
    assert seen["x"][0] == [tell(name, frame[name][3]) for name in frame]
    again = explorer.encode(seen["x"])
    assert again["z"] == pytest.approx(seen["z"], abs=1e-3)
    for found, row in [
        (seen["reconstruction"][0], vae.reconstruct(frame.iloc[3:4]).iloc[0]),
        (explorer.sample(5)["x"][0][0], vae.generate(1, 5).iloc[0]),
    ]:
        assert found == [tell(name, row[name]) for name in frame]
    json.dumps([explorer.model(), seen], allow_nan=False)


@pytest.mark.slow
def test_missing_pixels_stay_missing(mixed):
    seen = mixed.example(3)
    assert len(seen["x"][0]["holes"]) == 4 * 4 * 3
    assert mixed.encode(seen["x"])["x"] == seen["x"]


@pytest.mark.slow
def test_numbers_are_sent_with_all_their_digits(mixed):
    seen = mixed.example(3)
    (numbers,) = (sent for sent in seen["x"] if len(sent) == 2 and "holes" not in sent)
    assert np.float32(numbers).tolist() == [mixed.examples["age"][3], 1_234_567]


@pytest.mark.slow
def test_texts_stay_texts(texts):
    seen = texts.encode(["a cat"])
    assert seen["x"] == ["a cat"]
    assert re.fullmatch("[a-z ]*", seen["reconstruction"][0])
    assert texts.decode([seen["z"]])["x"][0] == seen["reconstruction"]
    with pytest.raises(ValueError, match="'x', which is not in the vocabulary"):
        texts.encode(["a x"])
    with pytest.raises(ValueError, match="one line of text"):
        texts.encode([" "])


def test_views_by_shape():
    shapes = {"age": (), "face": (4, 4, 3), "wave": (100,), "few": (50, 3), "one": (100, 1)}
    x = Quantity("x", shapes, "float32")
    examples = {name: np.zeros([2, *shape]) for name, shape in shapes.items()}
    examples["face"][0, 0, 0] = np.nan
    picture, numbers, *curves = views_of(x, None, examples, missing=True)
    assert picture.describe() == {"name": "face", "height": 4, "width": 4, "channels": 3}
    assert picture.to_page(examples)[0]["holes"] == [0, 1, 2]
    assert (numbers.names, numbers.describe()["is_curve"]) == (["age"], False)
    assert [view.names for view in curves] == [["few"], ["one"], ["wave"]]
    told = [view.describe() for view in curves]
    assert [(one["is_curve"], one["curves"]) for one in told] == [(True, 3), (True, 1), (True, 1)]
    assert told[0]["fields"][4]["title"] == "few 4"
    parts = numbers.from_page([None]) | curves[0].from_page([None, *[1.0] * 149])
    assert (parts["age"].shape, parts["few"].shape) == ((), (50, 3))
    for wrong in ({}, {"pixels": "!"}, {"pixels": "AAAA"}, {"pixels": 3}, None, "AAAA"):
        with pytest.raises(ValueError, match="A picture"):
            picture.from_page(wrong)
    one = picture.to_page(examples)[0]
    holes = np.isnan(picture.from_page(one)["face"])
    np.testing.assert_array_equal(holes, np.isnan(examples["face"][0]))
    for holes in ([48], [-1], [1.0], [True], {}, None, "0"):
        with pytest.raises(ValueError, match="holes must be a list of places below 48"):
            picture.from_page({**one, "holes": holes})
    whole = views_of(x, None, examples, missing=False)[0]
    with pytest.raises(ValueError, match="no missing values"):
        whole.from_page(one)
    letters, x = Vocabulary(["a", "b"]), Quantity("x", (3,), "float32")
    (text,) = views_of(x, letters, {"x": np.zeros([1, 3])}, missing=False)
    assert text.from_page("ab")["x"].tolist() == [2.0, 3.0, 0.0]
    assert number(np.float32("inf")) is None


@pytest.mark.slow
def test_a_conditional_model_takes_its_condition(tmp_path):
    splits = datasets.load("digits", condition="label")
    options = cli.Options(name="digits", condition="label", hidden_size=8, latent_size=2)
    vae = cli.build(splits, options)
    test = {name: values[:20] for name, values in splits.test.items()}
    conditional = explorer_of(vae, test["x"], "digits", condition=test["condition"])
    assert conditional.model()["condition"] == {"labels": 10, "size": 1}
    seen = conditional.example(4)
    assert seen["condition"] == [test["condition"][4]]
    assert conditional.encode(seen["x"], seen["condition"])["z"] == pytest.approx(seen["z"])
    z = [seen["z"]]
    assert conditional.decode(z, [3])["x"] != conditional.decode(z, [4])["x"]
    for wrong in (None, [1.5], [10], [1, 2], 3):
        with pytest.raises(ValueError, match="condition"):
            conditional.decode(z, wrong)


@pytest.fixture(scope="module")
def saved():
    return open_explorer(str(BASE), "digits", None, 0)


@pytest.mark.slow
def test_a_server_answers_as_the_saved_model(saved):
    with serve(BASE, "digits") as stand_in:
        remote = open_explorer(f"{stand_in.rest}/v1/models/digits/versions/1", "digits", None, 0)
        ours, theirs = (one.example(5) for one in (remote, saved))
    assert ours["x"] == theirs["x"]
    np.testing.assert_allclose(ours["z"], theirs["z"], rtol=1e-4)
    assert ours["score"] == pytest.approx(theirs["score"], rel=1e-4)
    assert remote.note == saved.note == "The 180 test examples of digits."
    with running(remote) as server:  # its model has gone
        status, answer = ask(server, "example", {"place": 0})
    assert (status, "\n" in answer["error"]) == (502, False)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://host:8501/v1/models/digits", ("http://host:8501", "digits", None)),
        ("https://host/v1/models/digits/versions/12", ("https://host", "digits", 12)),
        ("grpc://host:8500/digits", ("grpc://host:8500", "digits", None)),
        ("grpcs://host:8500/digits/versions/3/", ("grpcs://host:8500", "digits", 3)),
    ],
)
def test_an_address_names_server_model_and_version(address, expected, monkeypatch):
    class Asked(Exception):
        pass

    def client(url, model, *, version):
        raise Asked(url, model, version)

    monkeypatch.setattr("tfp_vae.serving.client", client)
    with pytest.raises(Asked) as asked:
        open_explorer(address, None, None, 0)
    assert asked.value.args == expected


@pytest.mark.slow
def test_without_data_the_model_is_explored_by_its_own_draws():
    drawn = open_explorer(str(BASE), None, None, 0)
    assert len(drawn.codes) == 300
    assert "draws from the model" in drawn.note
    expected = drawn.served.generate(300, 0, draws=True)
    np.testing.assert_array_equal(drawn.examples["x"], expected)


# Who is answered


def test_the_page_needs_nothing_else(server):
    status, headers, content = request(server, "GET", "")
    assert (status, headers.get_content_type()) == (200, "text/html")
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert headers["Referrer-Policy"] == "same-origin"
    page = content.decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! src)", page)
    assert re.findall(r'(?:src|href)="([^"]*)"', page) == ["data:,", "page.css", "page.js"]
    for name, kind in {"page.js": "text/javascript", "page.css": "text/css"}.items():
        status, headers, content = request(server, "GET", name)
        assert (status, headers.get_content_type()) == (200, kind)
        assert not re.search(r"url\(|@import|innerHTML|eval\(", content.decode())
        assert re.findall(r"https?:[^\"]*", content.decode()) in (
            [],
            ["http://www.w3.org/2000/svg"],
        )
    told = json.loads(request(server, "GET", "model")[2])
    assert told["name"] == "digits <b>"


def test_an_address_without_its_last_slash_leads_to_the_page(server):
    status, headers, _ = request(server, "GET", f"/{server.token}")
    assert (status, headers["Location"]) == (303, f"/{server.token}/")


def test_the_browser_is_started_with_an_address_for_one_use(server):
    path = urllib.parse.urlsplit(server.opening).path
    status, headers, _ = request(server, "GET", path)
    assert (status, headers["Location"]) == (303, f"/{server.token}/")
    assert request(server, "GET", path)[0] == 403


def test_nobody_else_is_answered(server):
    assert server.server_address[0] == "127.0.0.1"
    assert len(server.token) >= 32
    with running(server.explorer) as other:
        assert other.token != server.token
    wrong = ("/", "/model", f"/{server.token[:-1]}/", f"/x/{server.token}/", "/%00/%C3")
    for path in wrong:
        assert request(server, "GET", path)[0] == 403, path
    assert request(server, "GET", "", Host="evil.example")[0] == 403
    for method in ("PUT", "DELETE", "HEAD", "OPTIONS"):
        assert request(server, method, "model", Host="evil.example")[0] == 403
        assert request(server, method, "model")[0] == 405
    assert (
        request(server, "GET", "model", Host=f"evil.example:{server.server_address[1]}")[0] == 403
    )
    for origin in ("https://evil.example", "null", f"http://evil.example:{server.server_address[1]}"):  # fmt: skip
        status, _, content = request(server, "POST", "model", "{}", Origin=origin)
        assert (status, json.loads(content)) == (403, {"error": "Other pages may ask nothing."})
    for name in ("nothing", "../page.js", "page.html", "model/"):
        assert request(server, "GET", name)[0] == 404


def test_a_refused_request_gets_its_answer_though_it_is_still_sent(server):
    """A client that reads only after it has sent all, more than the system's buffers hold."""
    size = 2**24
    for host, path, status in [
        (server.server_address[1], "encode", b"413"),
        (server.server_address[1], "nothing", b"404"),
        (1, "encode", b"403"),
    ]:
        head = f"POST /{server.token}/{path} HTTP/1.1\r\nHost: 127.0.0.1:{host}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
        with socket.create_connection(server.server_address, timeout=30) as client:
            client.sendall(head.encode() + b" " * size)
            answer = b""
            while piece := client.recv(2**16):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert [*json.loads(answer.partition(b"\r\n\r\n")[2])] == ["error"]


def test_who_is_silent_after_a_refusal_is_left(server, monkeypatch):
    monkeypatch.setattr(SERVER, "LINGER", 0.05)
    with socket.create_connection(server.server_address, timeout=30) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n")
        while client.recv(2**16):
            pass
    assert ask(server, "example", {"place": 0})[0] == 200


def test_questions_are_checked(server):
    json_kind = {"Content_Type": "application/json"}
    assert request(server, "POST", "model", "{}", Content_Type="text/plain")[0] == 415
    assert request(server, "POST", "nothing", "{}", **json_kind)[0] == 404
    long = {"Content_Length": str(server.explorer.most_bytes + 1)}
    assert request(server, "POST", "model", None, **json_kind, **long)[0] == 413
    assert request(server, "POST", "model", None, **json_kind, Content_Length="9" * 20)[0] == 413
    assert request(server, "POST", "model", iter([b"{}"]), **json_kind)[0] == 411
    for body in ("", "{", "[]", '{"z": [[NaN]]}', "[" * 3000, '"\xff"'):
        status, _, content = request(server, "POST", "decode", body, **json_kind)
        assert (status, [*json.loads(content)]) == (400, ["error"]), body
    z = [0.0] * 4
    for name, question in [
        ("decode", {}),
        ("decode", {"z": []}),
        ("decode", {"z": [z] * 33}),
        ("decode", {"z": [z[:3]]}),
        ("decode", {"z": [z], "condition": [1]}),
        ("decode", {"z": [z], "more": 1}),
        ("example", {"place": 60}),
        ("example", {"place": -1}),
        ("example", {"place": "0"}),
        ("example", {"place": 1.0}),
        ("example", {"place": True}),
        ("sample", {"seed": -1}),
        ("sample", {"seed": 0.5}),
        ("encode", {"x": [{"pixels": ""}]}),
    ]:
        status, answer = ask(server, name, question)
        assert (status, [*answer]) == (400, ["error"]), (name, question)
        assert "\n" not in answer["error"]
    assert ask(server, "decode", {"z": [z]})[0] == 200


# The command


def test_the_command_serves_until_ctrl_c(monkeypatch, explorer):
    opened = threading.Event()
    address = []

    def see(url):
        address.append(url)
        opened.set()

    def serve_until_ctrl_c(self):
        assert opened.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(webbrowser, "open", see)
    monkeypatch.setattr(Server, "serve_forever", serve_until_ctrl_c)
    monkeypatch.setattr(COMMAND, "open_explorer", lambda *given: explorer)
    code, out, err = invoke("explore", "any")
    assert (code, err) == (0, "")
    printed = re.search(r"Explore digits <b> at (http://127.0.0.1:\d+/)([^/]+)/\n", out)
    assert address[0].startswith(printed[1])
    assert printed[2] not in address[0]
    assert out.endswith("Ended.\n")
    opened.set()
    address.clear()
    assert invoke("explore", "any", "--no-browser")[::2] == (0, "")
    assert address == []


def test_bad_input_is_one_line(monkeypatch, tmp_path, explorer, server):
    monkeypatch.chdir(tmp_path)
    for words, told in {
        ("nowhere",): "nowhere is not a run folder",
        ("http://localhost:1/",): "The address must name a model, as in http://localhost:8501",
        ("ftp://localhost/digits",): "url must be http://host:port",
        (BASE, "--condition", "label"): "--condition is about --dataset",
        (BASE, "--dataset", "digits", "--condition", "label"): "is not conditional",
        (): "There is no run under runs/",
        ("--port", 70000): "65535",
    }.items():
        code, out, err = invoke("explore", *words, "--no-browser")
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert told in err
    monkeypatch.setattr(COMMAND, "open_explorer", lambda *given: explorer)
    port = server.server_address[1]
    code, _, err = invoke("explore", "--port", port, "--no-browser")
    assert (code, f"Port {port} of 127.0.0.1 cannot be used" in err) == (2, True)


@pytest.fixture
def others(tmp_path, monkeypatch):
    """The folder of files that do not suit the tracked model."""
    monkeypatch.chdir(tmp_path)
    np.save("flat.npy", np.ones([20, 5], "float32"))
    people(20).to_csv("people.csv")
    Path("lines.txt").write_text("a cat\na dog\n" * 10)


def test_data_of_another_shape_are_one_line(others):
    for name, told in {
        "flat.npy": "takes examples of shape (8, 8, 1), those of flat.npy have the shape (5,).",
        "people.csv": "people.csv is a table (.csv, .parquet), which",
        "lines.txt": "lines.txt holds texts (.txt, .smi, .selfies), which",
    }.items():
        code, out, err = invoke("explore", BASE, "--dataset", name, "--no-browser")
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert told in err


@pytest.mark.slow
def test_a_saved_model_of_columns(others):
    frame = with_gaps(people(40))[["age", "Größe (cm)", "job"]]
    vae_of(frame).export("saved")
    frame[["age", "job"]].to_csv("fewer.csv", index=False)
    for word, name, told in [
        (
            "explore",
            "digits",
            "takes a table (.csv, .parquet) with the columns age, Größe (cm), job, ",
        ),
        ("evaluate", "fewer.csv", "The table lacks the column 'Größe (cm)'. Expected ['age', "),
    ]:
        code, out, err = invoke(word, "saved", "--dataset", name)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert told in err
    explorer = open_explorer("saved", None, None, 0)
    drawn = explorer.served.generate(300, 0, draws=True).iloc[2]
    assert explorer.example(2)["x"][0] == [tell(name, drawn[name]) for name in frame]
    frame.to_parquet("rows.parquet")
    explorer = open_explorer("saved", "rows.parquet", None, 0)
    rows = {tuple(tell(name, row[name]) for name in frame) for _, row in frame.iterrows()}
    places = range(len(explorer.codes))
    assert {tuple(explorer.example(place)["x"][0]) for place in places} <= rows


class Elsewhere(BaseHTTPRequestHandler):
    """A web server, but none of models."""

    def log_message(self, *arguments):
        pass


def test_servers_that_do_not_answer_are_one_line(monkeypatch):
    monkeypatch.setattr("tfp_vae.serving.client", functools.partial(client, retries=0, timeout=2))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        mute = silent.getsockname()[1]
        with HTTPServer(("127.0.0.1", 0), Elsewhere) as other:
            thread = threading.Thread(target=other.handle_request)
            thread.start()
            for address, told in {
                f"http://127.0.0.1:{port}/digits": "cannot be reached: Connection refused",
                f"grpc://127.0.0.1:{port}/digits": "Connection refused",
                f"http://127.0.0.1:{mute}/digits": "no answer within 2 seconds",
                f"http://127.0.0.1:{other.server_port}/digits": "501 Not Implemented",
            }.items():
                code, out, err = invoke("explore", address, "--no-browser")
                assert (code, out, err.count("\n")) == (2, "", 1), err
                assert f"error: {address.removesuffix('/digits')}, model digits" in err
                assert told in err
            thread.join()


@pytest.mark.slow
def test_in_a_process_of_its_own(tmp_path):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = command("explore", BASE, "--no-browser", cwd=tmp_path)
    address = urllib.parse.urlsplit(re.search(r"http://\S+", process.stdout.readline())[0])
    there = types.SimpleNamespace(
        server_address=(address.hostname, address.port), token=address.path.strip("/")
    )
    assert request(there, "GET", "")[0] == 200
    assert ask(there, "decode", {"z": [[0.0] * 16]})[0] == 200
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.endswith("Ended.\n")


# The page in a browser

DRIVE = Path(__file__).parent / "data" / "drive_explorer.js"
COLUMN_INPUTS = [*["number"] * 3, *["select-one"] * 2, "date", "datetime-local", "fixed"]


@pytest.mark.parametrize(
    ("name", "width", "is_dark"),
    [
        ("digits", 500, False),
        pytest.param("digits", 1300, True, marks=pytest.mark.slow),
        pytest.param("table", 500, True, marks=pytest.mark.slow),
        pytest.param("mixed", 500, False, marks=pytest.mark.slow),
        pytest.param("texts", 500, False, marks=pytest.mark.slow),
        pytest.param("columns", 500, True, marks=pytest.mark.slow),
        pytest.param("columns", 1300, False, marks=pytest.mark.slow),
    ],
)
def test_a_browser_drives_the_page(name, width, is_dark, request, tmp_path):
    explorer = request.getfixturevalue({"digits": "explorer"}.get(name, name))
    explorer = explorer[1] if name == "columns" else explorer
    with running(explorer) as server:
        page, kind = server.files[""]
        drive = b'<script src="drive.js" defer></script><script src="page.js"'
        server.files |= {
            "": (page.replace(b'<script src="page.js"', drive), kind),
            "drive.js": (DRIVE.read_bytes(), "text/javascript"),
        }
        seen = look(f"{server.address}#{name}", tmp_path, width=width, is_dark=is_dark)
    assert (seen["errors"], seen["violations"], seen["nameless"]) == ([], [], [])
    assert (seen["small"], seen["wide"] <= 0, seen["over"]) == (0, True, [])
    assert seen["paper"] == ("rgb(20, 22, 24)" if is_dark else "rgb(255, 255, 255)")
    assert seen["first"].startswith("Example 0")
    assert re.fullmatch(
        r"Your own x: -ELBO .* nats, better than \d+% of the examples.", seen["drawn"]
    )
    if name == "digits":
        assert seen["sets"] == 0
        assert re.fullmatch(r"2\.00; q\(z\|x\) .* ± .*", seen["valuetext"])
        picture = r"p\(x\|z\) at the sliders: x, 8 by 8 pixels, mean \d+ of 255"
        assert all(re.fullmatch(picture, words) for words in seen["heard"][:2])
        assert seen["heard"][2:] == [
            "All latents are 0.",
            "The sliders stand at the mean of q(z|x).",
        ]
        assert (seen["path"], seen["way"], seen["corner"]) == ([True, True, 9], True, [2, 2])
    if name == "columns":
        assert seen["fields"][3] == "job: 3: pilot, cook, clerk"
        assert seen["inputs"] == COLUMN_INPUTS
        assert seen["chosen"][0] == {"job": "pilot", "born": "1991-02-03", "smokes": None}
        assert seen["chosen"][1] == "missing"
        assert seen["path"] == [10, 8]
        assert "The column 'age' takes whole numbers" in seen["error"]
        assert seen["refused"] == ["age"]
    if name == "mixed":
        at = "Row 4, column 4: red"
        assert seen["pixels"][0] == f"{at} missing, green missing, blue missing."
        assert re.fullmatch(
            rf"{at} \d+ of 255, green \d+ of 255, blue 255 of 255.", seen["pixels"][1]
        )
        assert seen["holes"] == [45, 45]
        assert (seen["curves"], seen["tall"] <= 700) == (3, True)
        assert seen["visits"] == ["1234567", True, 1234567]
    if name == "texts":
        assert "which is not in the vocabulary" in seen["error"]
