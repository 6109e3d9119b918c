"""Models of docs/mnist.md beside those of Pythae on MNIST: equal networks, epochs, data, and number of draws.

TFDS_DATA_DIR=... .venv/bin/python benchmarks/pythae_mnist.py       # all rows; those that are there are not run again
TFDS_DATA_DIR=... .venv/bin/python benchmarks/pythae_mnist.py VAE   # these rows only

784-500-24-500-784 with ReLU, batches of 100, 20 epochs, pixels drawn anew in each epoch; Adam from 2e-3 to 0 by a
cosine, which here falls with each step, in Pythae with each epoch. Pythae's images are drawn one by one in Python, as
its data sets do, so its seconds say less than those of benchmarks/training_speed.py. Each package
estimates the NLL of the same 1,000 test images by its own importance sampling, with 500 draws.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mnist
import numpy as np
from data import DIM

RUNS, HIDDEN, LATENT, IMAGES, DRAWS = Path("runs/mnist-pythae"), 500, 24, 1000, 500
# Rows of docs/mnist.md, and for each the classes of model and configuration in Pythae with their arguments.
ROWS: dict[str, tuple[str, str, dict]] = {
    "VAE": ("VAE", "VAEConfig", {}),
    "beta-VAE, beta 4": ("BetaVAE", "BetaVAEConfig", {"beta": 4.0}),
    "IWAE-5": ("IWAE", "IWAEConfig", {"number_samples": 5}),
    "VampPrior": ("VAMP", "VAMPConfig", {"number_components": 200}),
    "flow posterior": ("VAE_IAF", "VAE_IAF_Config", {}),
}
# Beside TensorFlow, in one process, PyTorch is fifty times slower: so our part runs in another one.
WRITE_DATA = """
import numpy as np
from tfp_vae import datasets
splits = datasets.load("mnist")
np.savez({path!r}, train=splits.train, test=splits.test)
"""
OURS = """
import json
import keras
import numpy as np
import tfp_vae
vae = keras.saving.load_model({run!r} + "/model.keras")
print(json.dumps(float(-np.mean(vae.log_prob(np.load({path!r})["test"][:{images}], {draws})))))
"""


def train(name: str) -> dict:
    """Train a model of Pythae by its trainer; return seconds and NLL."""
    import pythae.models
    import torch
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae_vae import Decoder, Encoder, Rows

    class Drawn(Rows):
        """Brightness from 0 to 1, of which pixels are drawn when they are asked for."""

        def __getitem__(self, index):
            return {"data": torch.bernoulli(self.x[index])}

    torch.manual_seed(0)
    data = np.load(RUNS / "data.npz")
    images = data["train"].reshape(-1, DIM) / np.float32(255)
    model, config, arguments = ROWS[name]
    own = getattr(pythae.models, config)(
        input_dim=(DIM,), latent_dim=LATENT, reconstruction_loss="bce", **arguments
    )
    vae = getattr(pythae.models, model)(own, Encoder(HIDDEN, LATENT), Decoder(HIDDEN, LATENT))
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        BaseTrainer(
            model=vae,
            train_dataset=Drawn(torch.from_numpy(images)),
            training_config=BaseTrainerConfig(
                output_dir=folder,
                num_epochs=20,
                learning_rate=2e-3,
                per_device_train_batch_size=100,
                optimizer_cls="Adam",
                scheduler_cls="CosineAnnealingLR",
                scheduler_params={"T_max": 20},
            ),
        ).train()
    seconds = time.perf_counter() - start
    test = torch.from_numpy(data["test"][:IMAGES].reshape(IMAGES, DIM))
    nll = -vae.eval().get_nll(test, n_samples=DRAWS, batch_size=DRAWS)
    return {"nll": float(nll), "seconds": seconds}


def run(name: str, path: Path) -> dict:
    """Run a row in both packages."""
    if not (mnist.folder(name) / "metrics.json").is_file():
        mnist.run(name)
    theirs = subprocess.run(
        [sys.executable, __file__, "--only", name], check=True, stdout=subprocess.PIPE, text=True
    )
    code = OURS.format(run=str(mnist.folder(name)), path=str(path), images=IMAGES, draws=DRAWS)
    ours = subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True
    )
    seconds = json.loads((mnist.folder(name) / "metrics.json").read_text())["seconds"]
    return {
        "tfp_vae": {"nll": json.loads(ours.stdout.splitlines()[-1]), "seconds": seconds},
        "Pythae": json.loads(theirs.stdout.splitlines()[-1]),
    }


def main() -> None:
    if sys.argv[1:2] == ["--only"]:
        with contextlib.redirect_stdout(sys.stderr):
            result = train(sys.argv[2])
        print(json.dumps(result))
        return
    RUNS.mkdir(parents=True, exist_ok=True)
    data = RUNS / "data.npz"
    if not data.is_file():
        subprocess.run([sys.executable, "-c", WRITE_DATA.format(path=str(data))], check=True)
    print("| model | NLL here | NLL of Pythae | seconds of training here | of Pythae |")
    print("|---|---|---|---|---|")
    for name in sys.argv[1:] or ROWS:
        file = RUNS / f"{mnist.folder(name).name}.json"
        if not file.is_file():
            file.write_text(json.dumps(run(name, data)))
        ours, theirs = json.loads(file.read_text()).values()
        print(
            f"| {name} | {ours['nll']:.2f} | {theirs['nll']:.2f} | {ours['seconds']:.0f} | "
            f"{theirs['seconds']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
