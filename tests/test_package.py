"""What a release uploads: it is built, checked, and installed where nothing of this folder is."""

import configparser
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import tfp_vae
from tests.test_readme import README, ROOT

PACKED = ("*.md", "*.cfg", "*.toml", "*.cff", "*.yml", "*.py", "LICENSE", "MANIFEST.in", "Makefile")
URL = "https://example.org/someone/tfp_vae"
FOLDERS = ("benchmarks", "docs", "examples", "saved_models", "tests", "tfp_vae")


def run(*command, **kwargs) -> str:
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, **kwargs
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """An sdist, and the wheel that is built from it."""
    for module in ("build", "twine"):
        pytest.importorskip(module, reason="needs pip install 'tfp_vae[test]'")
    pytest.importorskip("setuptools", minversion="70", reason="needs pip install 'tfp_vae[test]'")
    source = tmp_path_factory.mktemp("source")
    for pattern in PACKED:
        for path in ROOT.glob(pattern):
            shutil.copy(path, source)
    ignore = shutil.ignore_patterns("__pycache__")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=ignore)
    for url in ("https://example.org/before", URL):
        run("make", "-C", source, "urls", f"URL={url}")
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source)
    return out


@pytest.mark.slow
def test_the_files_are_as_an_index_wants_them(dist):
    (sdist,) = dist.glob("*.tar.gz")
    (wheel,) = dist.glob("*.whl")
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("README.md", "CITATION.cff", "docs/tour.md", "tests/conftest.py", "mkdocs.yml"):
        assert name in names
    with zipfile.ZipFile(wheel) as archive:
        files = archive.namelist()
        (metadata,) = (name for name in files if name.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    assert {f"Project-URL: Source, {URL}", f"Project-URL: Issues, {URL}/issues"} <= {*lines}
    packed = {Path(name).parts[0] for name in files}
    version = tfp_vae.__version__
    beside = {f"tfp_vae_{name}.py" for name in ("cache", "console", "doctor")}
    assert packed == {"tfp_vae", *beside, f"tfp_vae-{version}.dist-info"}
    assert {"tfp_vae/py.typed", "tfp_vae/cli/html/report.html.j2"} <= {*files}


@pytest.mark.slow
@pytest.mark.full
def test_the_wheel_runs_the_quick_start_elsewhere(dist, tmp_path):
    """In an environment of its own, which has the same libraries, but not this package."""
    (wheel,) = dist.glob("*.whl")
    home, python = tmp_path / "env", tmp_path / "env" / "bin" / "python"
    run(sys.executable, "-m", "venv", "--without-pip", home)
    (packages,) = home.glob("lib/python*/site-packages")
    # The folder of this environment's libraries, without what its .pth files add.
    libraries = sysconfig.get_paths()["purelib"]
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--quiet", wheel)
    (packages / "libraries.pth").write_text(f"{libraries}\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    kwargs = {"cwd": elsewhere, "env": {"PATH": "/usr/bin:/bin", "TF_CPP_MIN_LOG_LEVEL": "3"}}
    code = "".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    for usual, short in (
        ("epochs=10", "epochs=1, verbose=0"),
        ("num_samples=1000", "num_samples=2"),
    ):
        code = code.replace(usual, short)
    code += "\nprint(tfp_vae.__file__)"
    assert run(python, "-c", code, **kwargs).strip().endswith(str(packages / "tfp_vae/__init__.py"))
    assert (elsewhere / "saved_models" / "my_digits" / "1" / "saved_model.pb").is_file()
    assert run(home / "bin" / "tfp-vae", "--version", **kwargs).strip() == tfp_vae.__version__


def test_one_version_everywhere():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)$", citation, re.MULTILINE)[1] == tfp_vae.__version__
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    assert f"license: {setup['metadata']['license']}" in citation
    for file in ("tfp_vae/version.py", "CITATION.cff"):
        assert file in (ROOT / "CONTRIBUTING.md").read_text()


def test_workflows_call_what_is_there():
    yaml = pytest.importorskip("yaml")
    makefile = (ROOT / "Makefile").read_text()
    workflows = {
        path.stem: yaml.safe_load(path.read_text())
        for path in (ROOT / ".github" / "workflows").glob("*.yml")
    }
    jobs = [job for workflow in workflows.values() for job in workflow["jobs"].values()]
    lines = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    targets = {target for line in lines for target in re.findall(r"make ([\w-]+)", line)}
    assert targets >= {"lint", "test", "test-slow", "docs", "package", "urls"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert workflows["ci"]["jobs"]["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
    publish = workflows["release"]["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}
