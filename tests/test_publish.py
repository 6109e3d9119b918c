"""A version is in the model's folder whole or not at all, whatever happens to its exporter."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tfp_vae.serving import publish as publishing
from tfp_vae.serving.publish import publish, versions


def write_three_files(folder: Path) -> None:
    folder.mkdir()
    for name in "abc":
        (folder / name).write_text("whole")


def assert_whole(version: Path) -> None:
    assert {file.name: file.read_text() for file in version.iterdir()} == dict.fromkeys(
        "abc", "whole"
    )


@pytest.mark.parametrize(
    ("before", "number"),
    [
        ([], "1"),
        (["1"], "2"),
        (["1", "7"], "8"),
        (["9", "10"], "11"),
        (["2", "notes", "5.5", ".6", "v7"], "3"),
    ],
)
def test_the_next_version_follows_the_highest(tmp_path, before, number):
    for name in before:
        (tmp_path / "vae" / name).mkdir(parents=True)
    assert publish(write_three_files, tmp_path / "vae") == tmp_path / "vae" / number
    assert_whole(tmp_path / "vae" / number)
    assert {path.name for path in (tmp_path / "vae").iterdir()} == {*before, number}
    assert os.listdir(tmp_path) == ["vae"]


def test_versions_are_ordered_as_numbers(tmp_path):
    for name in ("10", "9", "100", "1", "20", "2", "variables", ".5"):
        (tmp_path / name).mkdir()
    assert versions(tmp_path) == [1, 2, 9, 10, 20, 100]
    assert versions(tmp_path / "nowhere") == []


def test_missing_parents_are_made_and_relative_paths_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert publish(write_three_files, Path("models/vae")) == tmp_path / "models" / "vae" / "1"
    assert_whole(tmp_path / "models" / "vae" / "1")


def test_another_user_can_read_a_version(tmp_path):
    version = publish(write_three_files, tmp_path / "vae")
    (tmp_path / "plain").mkdir()
    assert version.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_server_never_sees_what_is_being_written(tmp_path):
    def write(folder):
        write_three_files(folder)
        assert os.listdir(tmp_path / "vae") == []
        assert folder.stat().st_dev == (tmp_path / "vae").stat().st_dev

    publish(write, tmp_path / "vae")


def test_a_linked_base_is_written_beside_the_folder_it_leads_to(tmp_path):
    (tmp_path / "volume" / "vae").mkdir(parents=True)
    (tmp_path / "vae").symlink_to(tmp_path / "volume" / "vae")

    def write(folder):
        write_three_files(folder)
        assert tmp_path / "volume" in folder.parents, (
            "the link may lead to another file system, where rename fails"
        )

    publish(write, tmp_path / "vae")
    assert_whole(tmp_path / "volume" / "vae" / "1")


def test_exporters_at_once_publish_whole_versions(tmp_path):
    together = threading.Barrier(8)

    def write(folder):
        write_three_files(folder)
        together.wait(timeout=30)

    with ThreadPoolExecutor(8) as pool:
        published = list(pool.map(lambda _: publish(write, tmp_path / "vae"), range(8)))
    assert sorted(int(version.name) for version in published) == list(range(1, 9))
    for version in published:
        assert_whole(version)


def test_a_number_taken_by_another_exporter_is_left_to_it(tmp_path, monkeypatch):
    rename = os.rename

    def lose_the_race(source, target):
        monkeypatch.setattr(publishing.os, "rename", rename)
        (tmp_path / "vae" / "1").mkdir()
        (tmp_path / "vae" / "1" / "another").touch()
        rename(source, target)

    monkeypatch.setattr(publishing.os, "rename", lose_the_race)
    assert publish(write_three_files, tmp_path / "vae").name == "2"
    assert_whole(tmp_path / "vae" / "2")
    assert os.listdir(tmp_path / "vae" / "1") == ["another"]


# Forks an exporter for each moment (each operation that Python's audit hooks report) and kills it there.
EXPORTERS = """
import itertools, os, pathlib, runpy, signal, sys
publish, root = runpy.run_path(sys.argv[1])["publish"], pathlib.Path(sys.argv[2])

def write(folder):
    folder.mkdir()
    for name in "abc":
        with open(folder / name, "w") as file:
            file.write("who")
            file.flush()
            sys.audit("half written")
            file.write("le")

def export(base, last_moment):
    moments = itertools.count()
    sys.addaudithook(lambda *_: next(moments) == last_moment and os.kill(os.getpid(), signal.SIGKILL))
    publish(write, base)
    os._exit(0)

for moment in itertools.count():
    (root / str(moment)).mkdir()
    child = os.fork()
    if not child:
        export(root / str(moment) / "vae", moment)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code != -signal.SIGKILL:
        sys.exit(code)
"""


def test_a_killed_exporter_leaves_no_partial_version(tmp_path):
    subprocess.run(
        [sys.executable, "-c", EXPORTERS, publishing.__file__, str(tmp_path)],
        check=True,
        timeout=120,
    )
    bases = list(tmp_path.glob("*/vae"))
    found = [path for base in bases for path in base.iterdir()]
    assert len(bases) > 10
    assert 0 < len(found) < len(bases)
    for version in found:
        assert version.name == "1"
        assert_whole(version)
    for base in bases:
        assert_whole(publish(write_three_files, base))
        assert os.listdir(base.parent) == ["vae"]


# Writes a whole version, piece by piece and slowly, until it is killed: the parent chooses the moment.
COPIER = """
import pathlib, runpy, sys, time
publish, source = runpy.run_path(sys.argv[1])["publish"], pathlib.Path(sys.argv[2])

def write(folder):
    for path in sorted(source.rglob("*")):
        copy = folder / path.relative_to(source)
        copy.mkdir(parents=True) if path.is_dir() else copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            with open(copy, "wb", buffering=0) as file:
                for start in range(0, path.stat().st_size, 65536):
                    file.write(path.read_bytes()[start : start + 65536])
                    time.sleep(0.002)

while True:
    publish(write, pathlib.Path(sys.argv[3]), keep=3)
    print("published", flush=True)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_twenty_kills_leave_the_tracked_model_whole(tmp_path):
    """At random moments of writing, moving and removing: every version found is the whole digits model."""
    source = Path(__file__).parents[1] / "saved_models" / "digits" / "1"
    random, expected, base = np.random.default_rng(0), contents(source), tmp_path / "digits"
    for _ in range(20):
        command = [sys.executable, "-c", COPIER, publishing.__file__, str(source), str(base)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as exporter:
            assert exporter.stdout.readline() == b"published\n"
            time.sleep(random.uniform(0, 0.1))
            exporter.kill()
        assert 1 <= len(versions(base)) <= 4
        for number in versions(base):
            assert contents(base / str(number)) == expected
    publish(write_three_files, base, keep=3)
    assert len(versions(base)) == 3
    assert os.listdir(tmp_path) == ["digits"], "leftovers of the killed ones"


def test_two_processes_at_once_publish_whole_versions(tmp_path):
    source, base = Path(__file__).parents[1] / "saved_models" / "digits" / "1", tmp_path / "digits"
    command = [
        sys.executable,
        "-c",
        COPIER.replace("while True", "for _ in range(5)").replace("keep=3", "keep=None"),
    ]
    command += [publishing.__file__, str(source), str(base)]
    exporters = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [exporter.wait(timeout=120) for exporter in exporters] == [0, 0]
    assert versions(base) == list(range(1, 11))
    for number in versions(base):
        assert contents(base / str(number)) == contents(source)
    assert os.listdir(tmp_path) == ["digits"]


@pytest.mark.parametrize(
    ("keep", "left"), [(None, [1, 2, 3, 7, 8]), (1, [8]), (2, [7, 8]), (5, [1, 2, 3, 7, 8])]
)
def test_only_the_last_versions_are_kept(tmp_path, keep, left):
    (tmp_path / "vae").mkdir()
    for name in ("1", "2", "3", "7", "notes"):
        write_three_files(tmp_path / "vae" / name)
    publish(write_three_files, tmp_path / "vae", keep=keep)
    assert versions(tmp_path / "vae") == left
    assert (tmp_path / "vae" / "notes").is_dir()
    assert os.listdir(tmp_path) == ["vae"]


def test_leftovers_go_and_what_is_in_use_stays(tmp_path):
    (tmp_path / ".vae-aside-dead" / "version").mkdir(parents=True)
    (tmp_path / ".other-aside-dead").mkdir()
    seen = []

    def write(folder):
        if not seen:
            seen.append(folder)
            publish(write, tmp_path / "vae")  # another exporter, while this one is at work
        write_three_files(folder)

    assert publish(write, tmp_path / "vae").name == "2"
    assert_whole(tmp_path / "vae" / "1")
    assert_whole(tmp_path / "vae" / "2")
    assert set(os.listdir(tmp_path)) == {"vae", ".other-aside-dead"}


def test_a_failed_write_publishes_nothing(tmp_path):
    def write(folder):
        write_three_files(folder)
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk is full"):
        publish(write, tmp_path / "vae")
    assert os.listdir(tmp_path) == ["vae"]
    assert os.listdir(tmp_path / "vae") == []


# /proc is read-only for root, too.
@pytest.mark.parametrize("base", ["file", "file/vae", "/proc/vae"])
def test_a_base_that_cannot_be_written_raises(tmp_path, base):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=base):
        publish(write_three_files, tmp_path / base)
    assert os.listdir(tmp_path) == ["file"]
