"""The package without the libraries that only some uses need: layers and models work, the rest says what to install."""

import subprocess
import sys

import pytest

BLOCKED = (
    "sklearn",
    "scipy",
    "matplotlib",
    "tensorflow_datasets",
    "typer",
    "libcst",
    "onnxruntime",
    "pandas",
)
BLOCK = f"""
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name.partition(".")[0])

sys.meta_path.insert(0, Blocked())
"""
CORE = f"""
import keras, numpy as np
import tfp_vae
from tfp_vae import layers as tfpl, networks

x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
posterior, likelihood = tfpl.MultivariateNormalDiag(2), tfpl.IndependentNormal(3)
encoder = keras.Sequential([networks.mlp((3,), posterior.params_size(2)), posterior])
decoder = keras.Sequential([networks.mlp((2,), likelihood.params_size(3)), likelihood])
vae = tfp_vae.VAE(encoder, decoder)
vae.compile("adam")
vae.fit(x, batch_size=32, verbose=0)
vae.export("served")
print(tfp_vae.load("served").encode(x).batch_shape, tfp_vae.evaluation.evaluate(vae, x)["nll"] > 0)
print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{*{BLOCKED}}}))
"""
USES = {
    "pictures": (
        "from tfp_vae import plots",
        "tfp_vae.plots needs matplotlib: pip install 'tfp_vae[plots]'",
    ),
    "digits": (
        "import tfp_vae; tfp_vae.datasets.load('digits')",
        "The data set digits needs sklearn: pip install 'tfp_vae[data]'",
    ),
    "TFDS": (
        "import tfp_vae; tfp_vae.datasets.load('mnist')",
        "The data set mnist needs tensorflow_datasets: pip install 'tfp_vae[data]'",
    ),
    "scikit-learn": (
        "import tfp_vae.sklearn",
        "tfp_vae.sklearn needs sklearn: pip install 'tfp_vae[data]'",
    ),
    "scores": (
        "import tfp_vae; tfp_vae.evaluation.auroc([1.0], [2.0])",
        "AUROC needs sklearn: pip install 'tfp_vae[data]'",
    ),
    "tables": (
        "import tfp_vae; open('a.csv', 'w').write('a,b'); tfp_vae.tables.read('a.csv')",
        "A table needs pandas: pip install 'tfp_vae[tables]'",
    ),
    "command line": (
        "import tfp_vae_console",
        "tfp-vae needs typer: pip install 'tfp_vae[cli]'",
    ),
}


def run(code: str, folder) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", BLOCK + code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_layers_and_models_need_tensorflow_keras_and_tfp_only(tmp_path):
    result = run(CORE, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["(64,) True", "[]"]


@pytest.mark.parametrize(
    "name", ["command line", *(pytest.param(n, marks=pytest.mark.slow) for n in [*USES][:-1])]
)
@pytest.mark.rows(0, 2)
def test_other_uses_say_what_to_install(name, tmp_path):
    code, message = USES[name]
    result = run(code, tmp_path)
    assert result.returncode != 0
    assert message in result.stderr
