"""What all tests share: seeds, small models, real digits, and MNIST where it is prepared."""

import atexit
import os
import shutil
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "TFP_VAE_CACHE" not in os.environ:  # the processes of all tests share one, and no user's
    os.environ["TFP_VAE_CACHE"] = cache = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, cache, ignore_errors=True)

import keras
import pytest

import tfp_vae
from tfp_vae import datasets, networks
from tfp_vae import layers as tfpl


class Thorough:
    """What tests do only where they are marked for it, because it takes seconds each time."""

    xla = False  # models compile with XLA by themselves
    verified = False  # an export is compared with the live model


def pytest_addoption(parser):
    parser.addoption(
        "--full", action="store_true", help="run examples and trainings in full length"
    )


@pytest.fixture(scope="session")
def full(request) -> bool:
    """Whether examples and trainings run in full length; else in a short form that shows that they work."""
    return request.config.getoption("--full")


def pytest_configure():
    supports_xla, exporting = tfp_vae.VAE._supports_xla, sys.modules["tfp_vae.serving.export"]
    verify = exporting.verify
    tfp_vae.VAE._supports_xla = lambda vae: Thorough.xla and supports_xla(vae)
    exporting.verify = lambda *args, **kwargs: Thorough.verified and verify(*args, **kwargs)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    Thorough.xla, Thorough.verified = "xla" in item.keywords, "verified" in item.keywords


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    tests = {}
    for item in items:
        tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for rows in tests.values():
        share_out(rows, rows[0].get_closest_marker("rows"))
    if not config.getoption("--full"):
        config.hook.pytest_deselected(items=[one for one in items if "full" in one.keywords])
        items[:] = [one for one in items if "full" not in one.keywords]
    folder = os.environ.get("TFDS_DATA_DIR", "")
    for name in ("mnist", "fashion_mnist"):
        if not os.path.isdir(os.path.join(folder, name)):
            reason = f"needs {name}: prepare it with TFDS and set TFDS_DATA_DIR"
            for item in items:
                if name in item.keywords:
                    item.add_marker(pytest.mark.skip(reason=reason))


def share_out(rows, mark):
    """Leave to CI all but `mark.args[0]` of the rows, and to `make test-all` all but `mark.args[1]` of CI's."""
    for tier, number in zip(("slow", "full"), mark.args if mark else (), strict=False):
        of_tier = [row for row in rows if (tier == "full") == ("slow" in row.keywords)]
        kept = {i * len(of_tier) // number for i in range(number)}  # evenly over the table
        for i, row in enumerate(of_tier):
            if i not in kept:
                row.add_marker(tier)


def mostly_slow(rows, *fast: str):
    """The rows of a table for `parametrize`: those named are run before every commit, all others by CI."""
    return [row if row in fast else pytest.param(row, marks=pytest.mark.slow) for row in rows]


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def digits():
    return datasets.load("digits")


def make_vae(
    event_shape=(8, 8, 1),
    latent_size=4,
    likelihood=tfpl.IndependentBinomial,
    hidden_sizes=(32,),
    posterior=tfpl.MultivariateNormalDiag,
    **kwargs,
) -> tfp_vae.VAE:
    """A small VAE for digits, or for any other event shape and likelihood."""
    arguments = {"total_count": 16} if likelihood is tfpl.IndependentBinomial else {}
    encoder = [
        networks.mlp(event_shape, posterior.params_size(latent_size), hidden_sizes=hidden_sizes),
        posterior(latent_size),
    ]
    decoder = [
        networks.mlp(
            (latent_size,), likelihood.params_size(event_shape), hidden_sizes=hidden_sizes
        ),
        likelihood(event_shape, **arguments),
    ]
    return tfp_vae.VAE(keras.Sequential(encoder), keras.Sequential(decoder), **kwargs)


@pytest.fixture
def vae():
    return make_vae()


@pytest.fixture(scope="session")
def trained_vae(digits):
    """A VAE trained for two epochs, shared by all tests: leave it as it is."""
    keras.utils.set_random_seed(0)
    vae = make_vae()
    vae.compile(keras.optimizers.Adam(5e-3))
    vae.fit(digits.train, epochs=2, batch_size=100, verbose=0)
    return vae
