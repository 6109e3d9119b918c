"""Old programs, rewritten by `tfp-vae migrate`: what becomes of each idiom, and which of them run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.old_programs import PROGRAMS
from tests.test_cli import invoke
from tfp_vae import layers as tfpl
from tfp_vae.migration import migrate, migrate_notebook
from tfp_vae.migration.names import AXIS_OPS, OPS, SAME_OPS, SHORT_NAMES, is_in_keras

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "migration.md").read_text()
RUNNING = [name for name, program in PROGRAMS.items() if program.error is None]


def is_complete(name: str) -> bool:
    """Whether this version has the layers that a program needs."""
    return all(hasattr(tfpl, layer) for layer in PROGRAMS[name].needs)


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_become_what_is_expected(name):
    program = PROGRAMS[name]
    new = migrate(program.text)
    lines = [line.strip() for line in new.text.splitlines()]
    assert set(program.lines) <= set(lines), new.text
    assert len(new.questions) == program.asks == new.text.count("TODO"), new.text
    comments = [line.partition("#")[2] for line in program.text.splitlines() if "  # " in line]
    assert all(comment in new.text for comment in comments)
    for question in new.questions:
        assert question.rpartition('See docs/migration.md, "')[2].removesuffix('".') in PAGE
    assert migrate(new.text) == (new.text, 0, [])


@pytest.mark.parametrize("name", RUNNING)
@pytest.mark.rows(5)
def test_programs_run(name, tmp_path, monkeypatch):
    if not is_complete(name):
        pytest.skip(f"needs {PROGRAMS[name].needs}")
    monkeypatch.chdir(tmp_path)
    exec(compile(migrate(PROGRAMS[name].text).text, name, "exec"), {"__name__": "__main__"})


def test_the_share_of_programs_that_run():
    """The page says which share runs after the command alone; the others have a comment."""
    assert all(program.asks or program.error is None for program in PROGRAMS.values())
    assert f"{len(RUNNING)} of {len(PROGRAMS)}" in PAGE


@pytest.mark.slow
@pytest.mark.full
def test_the_originals_run_on_tf_keras(tmp_path):
    code = "import warnings; warnings.simplefilter('ignore')\n" + "\n".join(
        f"exec(compile({program.text!r}, {name!r}, 'exec'), {{'__name__': '__main__'}})"
        for name, program in PROGRAMS.items()
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "TF_USE_LEGACY_KERAS": "1"},
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in RUNNING])
def test_the_others_raise_an_error_or_warn(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PROGRAMS[name].error):
        exec(migrate(PROGRAMS[name].text).text, {})


# Lines and what becomes of them, after the imports of START.
START = "import tf_keras as tfk, tensorflow_probability as tfp\nfrom tfp_vae import layers as new\ntfpl = tfp.layers\n"
LINES = {
    "tfpl.KLDivergenceRegularizer(p, weight=None)": "tfpl.KLDivergenceRegularizer(p, weight=2.0)",
    "tfpl.KLDivergenceRegularizer(p, True, weight=a+b)": "tfpl.KLDivergenceRegularizer(p, True, weight=2.0 * (a+b))",
    "tfpl.KLDivergenceRegularizer(p, weight=w,)": "tfpl.KLDivergenceRegularizer(p, weight=2.0 * w,)",
    "new.KLDivergenceRegularizer(p)": "new.KLDivergenceRegularizer(p)",
    "tfpl.KLDivergenceAddLoss(p, use_exact_kl=False)": "tfpl.KLDivergenceAddLoss(p, use_exact_kl=False)",
    "tfk.Sequential([tfk.layers.Dense(2, batch_input_shape=s)])": ""
    "tfk.Sequential([tfk.Input(batch_shape=s), tfk.layers.Dense(2)])",
    "tfk.Sequential([Own(2, input_shape=s, batch_size=4)])": "tfk.Sequential([tfk.Input(s, batch_size=4), Own(2)])",
    "tfk.Sequential([tfk.layers.Dense(2, input_dim=3, dtype='float64')])": ""
    "tfk.Sequential([tfk.Input((3,), dtype='float64'), tfk.layers.Dense(2, dtype='float64')])",
    "tfk.Sequential([tfk.layers.Dense(2, input_shape=s, dtype='mixed_float16')])": ""
    "tfk.Sequential([tfk.Input(s), tfk.layers.Dense(2, dtype='mixed_float16')])",
    "tfk.Sequential([tfk.layers.InputLayer(s, batch_size=4)])": "tfk.Sequential([tfk.Input(s, batch_size=4)])",
    "tfk.regularizers.l2(l=0.1)": "tfk.regularizers.l2(l2=0.1)",
    "tfk.optimizers.SGD(0.1, decay=0.0)": "tfk.optimizers.SGD(0.1)",
    "(tfk.layers.Dense)(2), (model  .fit)": "(tfk.layers.Dense)(2), (model  .fit)",
    "one = two = getattr(tfp.layers, name)": "one = two = getattr(new, name)",
    "one = two = tfp.layers; one.KLDivergenceRegularizer(p)": ""
    "one = two = new; one.KLDivergenceRegularizer(p, weight=2.0)",
    "f(tfk)": "f(tfk)",
    "tfk.applications.VGG16(input_shape=s)": "tfk.applications.VGG16(input_shape=s)",
    "own(input_shape=s)": "own(input_shape=s)",
    "model.save('a.keras')": "model.save('a.keras')",
    "model.save(folder / 'a.h5')": "model.save(folder / 'a.keras')",
    "model.save('a', save_format='h5')": "model.save('a.keras')",
    "figure.save('a.png')": "figure.save('a.png')",
    "q = tfk.Sequential(layers); tfk.Model(q.input, p(q.output)); q.fit(a.input)": ""
    "q = tfk.Sequential(layers); tfk.Model(q.inputs[0], p(q.outputs[0])); q.fit(a.input)",
    "isinstance(rv, (tfp.distributions.Distribution, str))": ""
    "isinstance(rv, (tfp.distributions.Distribution, str))",
    "q = tfk.Model(x, y); f(q.input)": "q = tfk.Model(x, y); f(q.input)",
    "tfk.models.save_model(model, 'a.hdf5')": "tfk.models.save_model(model, 'a.keras')",
    "tfk.backend.set_floatx('float64')": "tfk.backend.set_floatx('float64')",
    "tfk.backend.argmax(x, axis=1)": "tfk.ops.argmax(x, axis=1)",
    "tfk.backend.cumsum(x)": "tfk.ops.cumsum(x, axis=0)",
    "tfk.backend.clip(x, min_value=0, max_value=1)": "tfk.ops.clip(x, x_min=0, x_max=1)",
    "f(tfk.losses.Reduction.AUTO)": 'f("sum_over_batch_size")',
    "model.fit_generator(g, workers=2, epochs=1)": "model.fit(g, epochs=1)",
    "f'{tfk.layers.Dense}' + tfp.layers.__name__": "f'{tfk.layers.Dense}' + new.__name__",
}


@pytest.mark.parametrize("line", LINES)
def test_lines(line):
    new = migrate(f"{START}{line}\n").text
    assert new.splitlines()[-1] == LINES[line], new


# Whole programs: imports, and comments of lines that go.
FORMS = {
    "\n\nimport os\nos.environ['TF_USE_LEGACY_KERAS'] = '1'\nimport tf_keras\n": "\n\nimport keras\n",
    "import os\n# Old.\nos.environ.setdefault('TF_USE_LEGACY_KERAS', '1')\n\nimport sys\n": "# Old.\n\nimport sys\n",
    "import tensorflow.keras\nx = tensorflow.keras.Input\n": "import keras\nx = keras.Input\n",
    "import tensorflow.keras\ntensorflow.ones(3)\n": "import tensorflow\ntensorflow.ones(3)\n",
    "import tensorflow_probability.python.layers as tfpl\n": "from tfp_vae import layers as tfpl\n",
    "from tensorflow_probability.python.layers import dense_variational as d\nd.DenseFlipout(1)\n": ""
    "from tfp_vae import layers as d\nd.DenseFlipout(1)\n",
    "from tensorflow_probability.python.layers.weight_norm import WeightNorm\n": ""
    "from tfp_vae.layers.weight_norm import WeightNorm\n",
    "from tensorflow_probability.python.bijectors import AutoregressiveNetwork\n": ""
    "from tfp_vae.layers import AutoregressiveNetwork\n",
    "from tf_keras.layers import (\n    Dense,  # one\n    Flatten,\n)\n": ""
    "from keras.layers import (\n    Dense,  # one\n    Flatten,\n)\n",
    "from tensorflow_probability import bijectors as tfb, layers  # two\n": ""
    "from tensorflow_probability import bijectors as tfb\nfrom tfp_vae import layers  # two\n",
    "from tensorflow.keras.layers import InputLayer, Dense\nInputLayer((3,)), Dense(2)\n": ""
    "from keras.layers import Dense\nimport keras\nkeras.Input((3,)), Dense(2)\n",
    "import tf_keras as keras\nkeras.layers.Embedding(8, 2,\n  input_length=3,  # tokens\n  name='e')\n": ""
    "import keras\nkeras.layers.Embedding(8, 2,  # tokens\n  name='e')\n",
    "import tensorflow as tf\nclass A(tf.keras.Model):\n  'tf.keras'\n": ""
    "import keras\nclass A(keras.Model):\n  'tf.keras'\n",
    "import tf_keras\nif a:\n    pass\nelif tf_keras.layers.Dense:  # one\n    pass\n": ""
    "import keras\nif a:\n    pass\nelif keras.layers.Dense:  # one\n    pass\n",
    "def f():\n    import tensorflow as tf\n    return tf.keras.Input, tf\n": ""
    "def f():\n    import tensorflow as tf\n    import keras\n    return keras.Input, tf\n",
    "def f(keras):\n    import os\n    os.putenv('TF_USE_LEGACY_KERAS', '1')\n": "def f(keras):\n    pass\n",
    "import tensorflow as tf\ndef f(keras):\n    return tf.keras.Input\n": ""
    "import keras as keras_2\ndef f(keras):\n    return keras_2.Input\n",
}


@pytest.mark.parametrize("old", FORMS)
def test_forms(old):
    new = migrate(old).text
    assert new == FORMS[old]
    assert migrate(new).text == new


ASKED = {
    "model.save('a')": "model.export(folder)",
    "tfk.models.load_model('a.h5')": "Files that tf_keras wrote stay unread",
    "model.predict_classes(x)": "take the argmax",
    "tfk.layers.Dense(2, input_shape=s)": "Put a keras.Input of this shape before the layer",
    "tfk.optimizers.Adam(decay=1e-4)": "InverseTimeDecay",
    "tfk.backend.switch(a, b, c)": "keras.backend.switch is not in Keras 3",
    "tfk.callbacks.ModelCheckpoint('a', save_weights_only=True)": ".weights.h5",
    "tfp.math.f(tf.compat.v1.train.AdamOptimizer())": "tensorflow.compat.v1.train",
    "tf.saved_model.save(unknown(), 'a')": "model.export(folder)",
    "tfpl.KLDivergenceRegularizer(p, weight=tf.Variable(0.1))": "assign twice the values",
    "tfpl.KLDivergenceAddLoss(p, True)": "adds an exact divergence up",
    "make().add(tfk.layers.Dense(2, input_shape=s))": "Put a keras.Input of this shape",
    "for a in x: model.add(tfk.layers.Dense(2, input_shape=s))": "Put a keras.Input",
    "assert isinstance(rv, (str, tfp.distributions.Normal))": "ask rv.tensor_distribution",
    "tfk.Model(x, y)(0.0)": "pass a tensor with a batch axis",
    "self.add_loss(lambda: 0.0)": "only in the call of a layer",
}


@pytest.mark.parametrize("line", ASKED)
def test_comments(line):
    old = f"{START}import tensorflow as tf\nif True:\n    {line}  # so\n"
    new = migrate(old)
    assert len(new.questions) == 1, new.text
    assert ASKED[line] in new.questions[0]
    assert new.text.splitlines()[-2:] == [f"    {new.questions[0]}", f"    {line}  # so"]
    assert migrate(new.text) == (new.text, 0, [])


def test_functions_of_the_old_backend_return_what_their_new_ones_do():
    """With the defaults of the old ones, or the axis that the command writes."""
    import keras
    import numpy as np
    from tf_keras import backend

    x = backend.constant(np.random.default_rng(0).uniform(0.1, 0.9, (3, 4)))
    two = ("dot", "equal", "maximum", "minimum", "not_equal", "pow")
    two += ("greater", "greater_equal", "less", "less_equal")
    others = {"reshape": [(4, 3)], "stack": [], "cast": ["int32"], "clip": [0.2, 0.5]}
    others |= {"one_hot": [3], "permute_dimensions": [(1, 0)], "squeeze": [0]}
    for old, new in OPS.items():
        assert is_in_keras(f"keras.{new}"), new
        if old.startswith(("random", "truncated")) or "crossentropy" in old:
            continue
        given = x
        if old in ("all", "any"):
            given = x > 0.5
        if old in ("arange", "eye"):
            given = 3
        if old == "one_hot":
            given = backend.constant([0, 2], dtype="int32")
        if old in ("concatenate", "stack"):
            given = [x, x]
        if old == "squeeze":
            given = x[:1]
        arguments = [
            given,
            *([backend.transpose(x) if old == "dot" else 0.5 * x + 0.2] if old in two else []),
            *others.get(old, []),
        ]
        axis = {"axis": 0 if "cum" in old else -1} if old in AXIS_OPS else {}
        expected = getattr(backend, old)(*arguments)
        room, name = new.split(".")
        found = getattr(getattr(keras, room), name)(*arguments, **axis)
        np.testing.assert_allclose(
            np.asarray(found, "float64"), np.asarray(expected, "float64"), rtol=1e-6, err_msg=old
        )
    assert all(is_in_keras(f"keras.losses.{name}") for name in SHORT_NAMES.values())
    assert set(SAME_OPS.split()) < set(OPS)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.py").write_text(OLD)
    (tmp_path / "old.ipynb").write_text(json.dumps(NOTEBOOK, indent=1, ensure_ascii=False) + "\n")
    return tmp_path


OLD = "#!/usr/bin/env python\nimport tf_keras as tfk  # é\nmodel = tfk.models.load_model('a')"
NEW = OLD.replace("tf_keras", "keras").replace("\nmodel", "\n{}\nmodel")
NOTEBOOK = {
    "cells": [
        {"cell_type": "markdown", "metadata": {}, "source": ["`tf.keras` é\n", "old"]},
        {
            "cell_type": "code",
            "execution_count": 3,
            "metadata": {},
            "outputs": [{"name": "stdout", "output_type": "stream", "text": ["tf.keras\n"]}],
            "source": [
                "%matplotlib inline\n",
                "!pip install \\\n",
                "    'tensorflow-probability'\n",
                "import tensorflow as tf\n",
                "import tensorflow_probability as tfp\n",
                "tfpl = tfp.layers; tfk = tf.keras",
            ],
        },
        {"cell_type": "code", "metadata": {}, "outputs": [], "source": "%%bash\necho tf_keras"},
        {
            "cell_type": "code",
            "metadata": {},
            "outputs": [],
            "source": [
                "%%time\n",
                "if True:\n",
                "    files = !ls *.py\n",
                "    remainder = (5\n",
                "        % 3)\n",
                "model = tfk.Sequential([tfk.layers.Dense(2, input_shape=(3,)), tfp.layers.IndependentNormal(1)])\n",
                "model.save('a.h5')\n",
                "tfk?\n",
                "%timeit tf.ones(3)\n",
            ],
        },
        {"cell_type": "code", "metadata": {}, "outputs": [], "source": []},
    ],
    "metadata": {"kernelspec": {"language": "python", "name": "python3"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


def test_the_command_prints_a_diff(here):
    code, out, err = invoke("migrate", "old.py")
    assert (code, err) == (0, "")
    assert "--- old.py\n+++ old.py\n" in out
    assert "-import tf_keras as tfk  # é\n+import keras as tfk  # é\n" in out
    assert "old.py: 1 change, 1 comment to decide on (TODO)\n" in out
    assert "--in-place" in out
    assert (here / "old.py").read_text() == OLD


def test_the_command_rewrites_files(here):
    Path("old.py").chmod(0o755)
    Path("link.py").symlink_to("old.py")
    code, out, err = invoke("migrate", "--in-place", "link.py", "old.ipynb")
    assert (code, err) == (0, "")
    assert "---" not in out
    comment = "# TODO(tfp-vae migrate): Keras 3 keeps models in files that end in .keras."
    assert Path("old.py").read_text().startswith(NEW.partition("{}")[0] + comment)
    assert (Path("old.py").stat().st_mode & 0o777, Path("link.py").is_symlink()) == (0o755, True)
    assert sorted(path.name for path in here.iterdir()) == ["link.py", "old.ipynb", "old.py"]
    code, out, err = invoke("migrate", "--in-place", "old.py", "old.ipynb")
    assert (code, err) == (0, "")
    assert out.count("unchanged, as there is nothing to rewrite") == 2


def test_notebooks(here):
    text = Path("old.ipynb").read_text()
    new = migrate_notebook(text)
    expected = json.loads(text)
    expected["cells"][1]["source"][3:] = [
        "import tensorflow as tf\n",  # for the magic
        "from tfp_vae import layers as tfpl; import keras as tfk",
    ]
    expected["cells"][3]["source"][5:7] = [
        "model = tfk.Sequential([tfk.Input((3,)), tfk.layers.Dense(2), tfpl.IndependentNormal(1)])\n",
        "model.save('a.keras')\n",
    ]
    assert new.text == json.dumps(expected, indent=1, ensure_ascii=False) + "\n"
    assert not new.questions
    assert migrate_notebook(new.text) == (new.text, 0, [])


@pytest.mark.parametrize(
    "text", ["", "\n", "# only a comment", '"""Only a docstring."""\r\n', "x = 1;\n"]
)
def test_other_programs_stay(text):
    assert migrate(text) == (text, 0, [])


def test_line_ends_and_encodings_stay(here):
    old = "# -*- coding: latin-1 -*-\r\nimport tf_keras  # é\r\ntf_keras.Input((3,))\r\n"
    Path("latin.py").write_bytes(old.encode("latin-1"))
    assert invoke("migrate", "--in-place", "latin.py")[0] == 0
    assert Path("latin.py").read_bytes().decode("latin-1") == old.replace("tf_keras", "keras")


BAD = {
    "nowhere.py": "There is no file nowhere.py",
    "bad.py": "bad.py: line 2 is not Python 3",
    "bytes.py": "bytes.py is not text in UTF-8",
    "data.txt": "data.txt is neither a program nor a notebook",
    "folder": "folder is a folder. Name its files: tfp-vae migrate folder/",
    "bad.ipynb": "bad.ipynb: this is not a notebook",
    "list.ipynb": "list.ipynb: this is not a notebook in Python",
    "r.ipynb": "r.ipynb: this is not a notebook in Python",
    "cell.ipynb": "cell.ipynb: cell 2, line 2 is not Python 3",
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name, here):
    Path("bad.py").write_text("x = 1\nprint 'old'\n")
    Path("bytes.py").write_bytes(b"x = '\xff'\n")
    Path("data.txt").write_text("x")
    Path("folder").mkdir()
    Path("bad.ipynb").write_text("{")
    Path("list.ipynb").write_text("[1]")
    Path("r.ipynb").write_text('{"metadata": {"kernelspec": {"language": "R"}}, "cells": []}')
    cells = [
        {"cell_type": "markdown", "source": ""},
        {"cell_type": "code", "source": ["x\n", "x ="]},
    ]
    Path("cell.ipynb").write_text(json.dumps({"cells": cells}))
    code, out, err = invoke("migrate", "--in-place", "old.py", name)
    assert (code, out) == (2, "")
    assert BAD[name] in err
    assert Path("old.py").read_text() == OLD


def test_without_libcst(here, monkeypatch):
    for module in [one for one in sys.modules if one.startswith("tfp_vae.migration.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "libcst", None)
    code, out, err = invoke("migrate", "old.py")
    assert (code, out) == (2, "")
    assert "needs libcst: pip install 'tfp_vae[migrate]'" in err
