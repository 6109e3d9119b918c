"""The shape of the package: imports go one way, every public name is documented and serializable."""

import ast
import inspect
from pathlib import Path

import keras
import pytest

import tfp_vae

PACKAGE = Path(tfp_vae.__file__).parent
# From the first room to the last: a module imports only from rooms before its own.
ROOMS = [
    "version",
    "checks",
    "seeds",
    "replicas",
    "networks",
    "file_sizes",
    "files",
    "text",
    "layers",
    "sequences",
    "priors",
    "hierarchy",
    "sampling",
    "objectives",
    "rows",
    "batch",
    "storage",
    "tables",
    "quantity",
    "surface",
    "kinds",
    "shapes",
    "sources",
    "datasets",
    "missing",
    "probabilistic",
    "generative",
    "blocks",
    "workers",
    "not_finite",
    "block_model",
    "vae",
    "evaluation",
    "aggregate_prior",
    "sklearn",
    "plots",
    "latent_plots",
    "serving",
    "migration",
    "cli",
]
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]
PUBLIC = [
    getattr(module, name)
    for module in (
        tfp_vae.layers,
        tfp_vae.priors,
        tfp_vae.objectives,
        tfp_vae.networks,
        tfp_vae.sequences,
        tfp_vae.text,
        tfp_vae.tables,
        tfp_vae.hierarchy,
        tfp_vae.datasets,
        tfp_vae.evaluation,
        tfp_vae.serving,
    )
    for name in module.__all__
] + [tfp_vae.VAE, tfp_vae.fit_aggregate_prior]


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path):
    for node in ast.parse(
        path.read_text()
    ).body:  # at module level: a call may import what it needs
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tfp_vae":
            parts = node.module.split(".")[1:]
            yield from [parts[0]] if parts else [alias.name for alias in node.names]


def test_every_module_has_a_room():
    assert {room(path) for path in MODULES} == set(ROOMS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    own = ROOMS.index(room(path))
    later = [name for name in imported_rooms(path) if ROOMS.index(name) > own]
    assert not later, f"{path.name} imports {later}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_short(path):
    assert path.read_text().count("\n") <= 480


@pytest.mark.parametrize("member", PUBLIC, ids=lambda member: member.__name__)
def test_public_names_are_documented(member):
    assert inspect.getdoc(member)
    if (
        inspect.isclass(member)
        and issubclass(member, keras.layers.Layer)
        and not inspect.isabstract(member)
    ):
        assert ">>>" in member.__doc__, "an example that runs"


@pytest.mark.parametrize("member", PUBLIC, ids=lambda member: member.__name__)
def test_layers_are_registered_with_keras(member):
    if (
        inspect.isclass(member)
        and issubclass(member, keras.layers.Layer)
        and not inspect.isabstract(member)
    ):
        name = keras.saving.get_registered_name(member)
        assert name == f"tfp_vae>{member.__name__}"
        assert keras.saving.get_registered_object(name) is member, "two classes share a name"
    else:
        assert callable(member)
