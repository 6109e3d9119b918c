# %% [markdown]
# # 8. Serving a VAE
#
# A model is of use to others when they can ask it questions: from another program, another language,
# another machine. This lesson publishes a VAE, looks at what was written, writes a small server for it,
# and uses it from outside to find digits that are none.

# %%
import http.server
import json
import tempfile
import threading
from pathlib import Path

import keras
import numpy as np
import requests
import tensorflow as tf
from matplotlib.figure import Figure

import tfp_vae
from tfp_vae import evaluation, networks, plots
from tfp_vae import layers as tfpl
from tfp_vae.serving import ModelCard

# %matplotlib inline
keras.utils.set_random_seed(0)
EPOCHS = 30
splits = tfp_vae.datasets.load("digits")
x, x_test = splits.train.astype("float32"), splits.test


def train():
    posterior = tfpl.MultivariateNormalDiag(8)
    likelihood = tfpl.IndependentBinomial((8, 8, 1), total_count=16)
    to_code = networks.mlp((8, 8, 1), posterior.params_size(8), hidden_sizes=(100,))
    to_image = networks.mlp((8,), likelihood.params_size((8, 8, 1)), hidden_sizes=(100,))
    vae = tfp_vae.VAE(
        keras.Sequential([to_code, posterior]), keras.Sequential([to_image, likelihood])
    )
    vae.compile(keras.optimizers.Adam(3e-3))
    vae.fit(x, batch_size=100, epochs=EPOCHS, verbose=0)
    return vae


vae = train()

# %% [markdown]
# ## Publish
#
# `export` writes a *SavedModel*: a program of plain TensorFlow, which needs neither Keras nor this
# package. Before the version appears in its folder, it is compared with the live model. The folder
# holds numbered versions, as TensorFlow Serving wants them; a model card says what the model is. (A
# warning says that few of 100 draws count, so that the card's NLL is an upper bound.)

# %%
workplace = tempfile.TemporaryDirectory()
folder = Path(workplace.name) / "digits"
nll = evaluation.nll(vae, x_test, num_samples=100).value
card = ModelCard(data="1,437 handwritten digits of scikit-learn", metrics={"nll": round(nll, 1)})
version = vae.export(folder, card=card)
for path in sorted(version.rglob("*")):
    if path.is_file():
        print(f"{path.relative_to(folder)!s:52}{path.stat().st_size / 1024:8.1f} kB")

# %% [markdown]
# What a SavedModel offers are *signatures*: functions from arrays to arrays by name.

# %%
plain = tf.saved_model.load(version)
for name, signature in plain.signatures.items():
    inputs = {
        key: tuple(spec.shape) for key, spec in signature.structured_input_signature[1].items()
    }
    print(f"{name:16} {inputs} -> {sorted(signature.structured_outputs)}")

# %% [markdown]
# `tfp_vae.load` turns their answers into distributions again. So the model in the folder is used as the
# live one is, and gives the same answers.

# %%
served, q = tfp_vae.load(folder), vae.encode(x_test)
print(served.encode(x_test))
differences = {
    "mean of q(z|x)": served.encode(x_test).mean() - q.mean(),
    "KL(served q || live q)": served.encode(x_test).kl_divergence(q),
    "reconstructions": served.reconstruct(x_test) - vae.reconstruct(x_test),
    "samples": served.generate(16, seed=0) - vae.generate(16, seed=0),
}
for name, difference in differences.items():
    largest = np.abs(difference).max()
    print(f"{name:24} largest difference {largest:.1e}")
    assert largest < 1e-3

# %% [markdown]
# ## A server in thirty lines
#
# In earnest you start TensorFlow Serving: `docker run -p 8501:8501 -v FOLDER:/models/digits
# -e MODEL_NAME=digits tensorflow/serving`, see docs/serving.md. It is fast, joins requests to batches,
# and loads new versions while it runs. But nothing about it is magic: here is a server of the same
# REST interface, with what Python brings along. It takes
# `{"signature_name": ..., "inputs": {...}}` and answers `{"outputs": ...}`.


# %%
class Handler(http.server.BaseHTTPRequestHandler):
    """Answer `POST /v1/models/digits:predict`."""

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            status, answer = 200, {"outputs": predict(**request)}
        except Exception as error:
            status, answer = 400, {"error": str(error)}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Print nothing."""


def predict(inputs, signature_name="serving_default"):
    signature = plain.signatures[signature_name]
    specs = signature.structured_input_signature[1]
    outputs = signature(
        **{key: tf.constant(inputs[key], spec.dtype) for key, spec in specs.items()}
    )
    lists = {key: as_list(value) for key, value in outputs.items()}
    return lists if len(lists) > 1 else next(iter(lists.values()))  # one output goes without a name


def as_list(tensor):
    values = tensor.numpy()
    return [text.decode() for text in values] if tensor.dtype == tf.string else values.tolist()


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"

# %% [markdown]
# ## Ask it
#
# From any language, a request is a few numbers in JSON:

# %%
body = {"signature_name": "score", "inputs": {"x": x_test[:2].tolist()}}
answer = requests.post(f"{url}/v1/models/digits:predict", json=body, timeout=10).json()
print(answer)

# %% [markdown]
# From Python, `tfp_vae.client` has the methods of a VAE and returns distributions. Sampling and
# densities are computed here, from the parameters that the server has sent.

# %%
remote = tfp_vae.client(url, "digits")
print(remote.encode(x_test[:3]))
np.testing.assert_allclose(remote.encode(x_test).mean(), q.mean(), atol=1e-3)
plots.samples(remote, num_rows=2, limits=(0, 16))

# %% [markdown]
# A wrong request is refused before it is sent, in words that say what was expected:

# %%
try:
    remote.encode(np.zeros([1, 28, 28, 1], "float32"))
except ValueError as error:
    print(error)

# %% [markdown]
# ## Use: finding what does not belong
#
# A model of digits finds other images improbable. `score` gives the ELBO of each image. Spoil some test
# images, and see which scores they get. The *AUROC* is the share of pairs, one real and one spoiled
# image, in which the spoiled one is the less probable.

# %%
random = np.random.default_rng(0)
strangers = {
    "upside down": x_test[:, ::-1],
    "shuffled pixels": random.permuted(x_test.reshape(-1, 64), axis=1).reshape(x_test.shape),
    "half of another": np.where(np.arange(8).reshape(8, 1, 1) < 4, x_test, np.roll(x_test, 1, 0)),
}
usual = remote.score(x_test)["elbo"]
figure = Figure(figsize=(7, 3), layout="constrained")
axes = figure.subplots()
bins = np.linspace(-500, -40, 60)
axes.hist(np.clip(usual, -500, None), bins, alpha=0.7, label="real test digits")
for name, images in strangers.items():
    scores = np.asarray(remote.score(np.ascontiguousarray(images))["elbo"])
    auroc = np.mean(np.asarray(usual)[:, np.newaxis] > scores)
    print(f"{name:16} mean ELBO {scores.mean():8.1f}, AUROC {auroc:.3f}")
    axes.hist(np.clip(scores, -500, None), bins, histtype="step", linewidth=1.5, label=name)
axes.set(xlabel="ELBO, nats (all below -500 at the left end)", ylabel="images", ylim=(0, 40))
axes.legend()
figure

# %% [markdown]
# ## Exercises
#
# 1. Which five test images does the model find the least probable? Look at them.
# 2. Train for some more epochs and publish again with `keep=2`. Which versions does the folder hold,
#    and which one does `tfp_vae.load(folder)` take? How would you go back?
# 3. Ask for samples by REST without this package: signature `sample`, whose input `seed` holds two whole
#    numbers for each row. Do two requests of the same seeds agree?
#
# ## Answers
#
# **1.** Most are badly written, some are well written but unusual. A low score asks for a look; it is
# not a verdict.

# %%
least = np.argsort(usual)[:5]
print("ELBO:", np.asarray(usual)[least].round(1))
plots.grid(x_test[least][np.newaxis], "Least probable", limits=(0, 16))

# %% [markdown]
# **2.** The newest number is served. To go back, remove it (or move it elsewhere): a server takes the
# newest that is there.

# %%
vae.fit(x, batch_size=100, epochs=max(1, EPOCHS // 10), verbose=0)
for _ in range(2):
    newest = vae.export(folder, keep=2)
held = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
print("versions in the folder:", held, "- newest:", newest.name)
same = np.abs(tfp_vae.load(folder).encode(x_test).mean() - vae.encode(x_test).mean()).max()
print(f"the folder's model differs from the live one by {same:.1e}")

# %% [markdown]
# **3.** They agree, digit by digit: a draw is a function of its seed. So a request may be repeated when a
# network fails, and the result of a paper can be drawn again.

# %%
body = {"signature_name": "sample", "inputs": {"seed": [[0, 0], [0, 1]]}}
answers = [
    requests.post(f"{url}/v1/models/digits:predict", json=body, timeout=10).json()["outputs"]
    for _ in range(2)
]
print("the same again:", answers[0] == answers[1])
assert answers[0] == answers[1]
server.shutdown()
server.server_close()
workplace.cleanup()
