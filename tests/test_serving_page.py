"""docs/serving.md and examples/rest_client.py say what is so: their pieces run, against a server."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import requests

import tfp_vae
from tests.servers import BASE, KINDS, running
from tests.test_evaluation import load_example
from tfp_vae.serving import ModelCard

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "serving.md").read_text()
PUBLISH, CLIENT, GRPC = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SHELL = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
REST, GRPC_ADDRESS = "http://localhost:8501", "localhost:8500"


@pytest.fixture(scope="module", params=KINDS)
def server(request):
    with running(request.param) as server:
        yield server


def at(server, text: str) -> str:
    address = (server.grpc or "").removeprefix("grpc://")
    return text.replace(REST, server.rest).replace(GRPC_ADDRESS, address)


@pytest.fixture(scope="module")
def x(digits):
    return np.float32(digits.test[:10])


def test_publishing(trained_vae, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("samples.png").write_bytes(b"a picture")
    names = {"vae": trained_vae}
    exec(PUBLISH, names)
    version, tree = names["version"], re.search(r"```\nsaved_models(.*?)```", PAGE, re.DOTALL)[1]
    assert version == tmp_path / "saved_models" / "my_digits" / "1"
    for file in re.findall(r"[\w./]+\.(?:config|md|json|pb)|[\w./]+_requests", tree):
        assert (version.parent / file).exists(), file
    text = (version / "assets.extra" / "model_card.md").read_text()
    for part in (
        names["card"].data,
        "| nll | 101.5 |",
        "(samples.png)",
        "| `decode` | z: float32 [batch, 4] |",
        "Dense",
    ):
        assert part in text
    assert (version / "assets.extra" / "samples.png").read_bytes() == b"a picture"


def test_a_card_can_be_left_out_and_configurations_are_kept(trained_vae, tmp_path):
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "models.config").write_text("mine")
    version = trained_vae.export(tmp_path / "vae")
    assert "Not stated." in (version / "assets.extra" / "model_card.md").read_text()
    assert ModelCard().metrics == {}
    assert (version.parent / "models.config").read_text() == "mine"
    assert "/models/vae/batching.config" in (version.parent / "batching.config").read_text()


def test_configurations_are_what_the_server_reads():
    """The stand-in reads the batching of the tracked model; tensorflow-serving-api has the message of the other."""
    model_server_config_pb2 = pytest.importorskip(
        "tensorflow_serving.config.model_server_config_pb2"
    )
    from google.protobuf import text_format

    text = (BASE / "models.config").read_text()
    (config,) = text_format.Parse(
        text, model_server_config_pb2.ModelServerConfig()
    ).model_config_list.config
    assert (config.name, config.base_path, config.model_platform) == (
        "digits",
        "/models/digits",
        "tensorflow",
    )


def test_docker_lines_name_what_is_there():
    files = re.findall(r"=/models/digits/(\S+)", "".join(SHELL))
    assert set(files) == {"models.config", "batching.config"}
    for file in files:
        assert (BASE / file).is_file()
    yaml = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1]
    assert set(re.findall(r"--\w+", yaml)) == set(re.findall(r"--\w+", SHELL[1]))


@pytest.mark.rows(1)
def test_the_client_block_runs(server, x):
    local = tfp_vae.load(BASE)
    for line in (CLIENT, CLIENT.replace("grpc://localhost:8500", REST)):
        if "grpc://" in line and server.grpc is None:
            continue
        names = {"tfp_vae": tfp_vae, "x": x}
        exec(at(server, line), names)
        np.testing.assert_allclose(names["anomalies"], local.score(x)["elbo"], rtol=1e-5)
        assert names["drawn"].shape == (16, 8, 8, 1)
        assert names["images"].shape == x.shape


def test_the_grpc_block_runs(server, x):
    pytest.importorskip("tensorflow_serving")
    if server.grpc is None:
        pytest.skip("needs gRPC: set TF_SERVING_GRPC_URL")
    names = {"x": x}
    exec(at(server, GRPC), names)
    np.testing.assert_allclose(names["elbo"], tfp_vae.load(BASE).score(x)["elbo"], rtol=1e-5)


def test_curl_lines_answer(server):
    """Sent as curl would send them."""
    commands = [
        shlex.split(line)
        for block in SHELL
        for line in block.replace("\\\n", "").splitlines()
        if "curl" in line
    ]
    answers = [
        requests.post(at(server, url), data=body, timeout=30).json() for _, url, _, body in commands
    ]
    rows, described, columns = answers
    np.testing.assert_allclose(
        [row["x"] for row in rows["predictions"]], columns["outputs"]["x"], rtol=1e-5
    )
    assert described["predictions"] == [(BASE / "1" / "assets.extra" / "tfp_vae.json").read_text()]


def test_rest_client(server, capsys):
    assert load_example("rest_client").main(server.rest, "digits") > 0.99
    assert "told apart" in capsys.readouterr().out


def test_rest_client_needs_no_tensorflow():
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); sys.exit('tensorflow' in sys.modules)"
    command = [sys.executable, "-c", code, str(ROOT / "examples" / "rest_client.py")]
    assert subprocess.run(command, check=False, timeout=120).returncode == 0
