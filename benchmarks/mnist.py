"""The catalogue on MNIST: one `tfp-vae train` for each row of docs/mnist.md, at equal network, epochs and seed.

TFDS_DATA_DIR=... .venv/bin/python benchmarks/mnist.py            # all rows; those in runs/mnist/ are not run again
TFDS_DATA_DIR=... .venv/bin/python benchmarks/mnist.py VAE IWAE   # these rows only
"""

import json
import subprocess
import sys
from pathlib import Path

RUNS, PAGE, EPOCHS = Path("runs/mnist"), Path("docs/mnist.md"), 20
ROWS = {
    "VAE": [],
    "beta-VAE, beta 4": ["--beta", "4"],
    "free bits, 0.25 nats": ["--objective", "ELBO(free_bits=0.25)"],
    "IWAE-5": ["--objective", "IWAE(num_samples=5)"],
    "DReG-5": ["--objective", "IWAE(num_samples=5, estimator='dreg')"],
    "mixture prior": ["--prior", "NormalMixture(num_components=50)"],
    "VampPrior": ["--prior", "VampPrior(num_components=200)"],
    "flow prior": ["--prior", "MaskedAutoregressiveFlow(num_transforms=4)"],
    "full covariance": ["--posterior", "MultivariateNormalTriL(off_diagonal_scale=0.05)"],
    "flow posterior": ["--posterior", "InverseAutoregressiveFlow"],
    "two layers": ["--posterior", "bottom_up(latent_sizes=(24, 12))"],
    "ladder": ["--posterior", "ladder(latent_sizes=(24, 12))", "--warm-up", "10"],
    "conditional": ["--condition", "label"],
    "VQ-VAE": [
        "--posterior",
        "VectorQuantized(num_codes=256)",
        "--prior",
        "Codes",
        "--latent-size",
        "16",
    ],
    "autoencoder": ["--posterior", "Deterministic", "--objective", "Reconstruction"],
    "RAE-L2": [
        *("--posterior", "Deterministic", "--objective", "Reconstruction(latent_penalty=0.1)"),
        *("--decoder-decay", "1e-5"),
    ],
}


def arguments(name: str) -> list[str]:
    return ["train", "--dataset", "mnist", "--epochs", str(EPOCHS), *ROWS[name]]


def folder(name: str) -> Path:
    return RUNS / name.replace(" ", "-").replace(",", "")


def run(name: str) -> None:
    console = [
        sys.executable,
        "-m",
        "tfp_vae_console",
        *arguments(name),
        "--run",
        str(folder(name)),
    ]
    subprocess.run([*console, "--saved-models", str(RUNS / "saved_models")], check=True)


def page() -> str:
    """Write the table from the runs there are."""
    quoted = {
        name: " ".join(a if " " not in a and "(" not in a else f'"{a}"' for a in ROWS[name])
        for name in ROWS
    }
    lines = [
        "# The catalogue on MNIST",
        "",
        f"Each row is `tfp-vae train --dataset mnist --epochs {EPOCHS}` with the options shown. Defaults: one hidden layer of",
        "500 units in encoder and decoder, 24 latents, Adam, dynamic binarization, one seed. The values are nats per image",
        "of the 10,000 test images; the NLL is estimated by importance sampling with 500 draws each. `benchmarks/mnist.py`",
        "runs all rows and writes this page. The seconds are of training alone, on two cores. The NLL of the conditional",
        "VAE is that of an image given its label. An autoencoder encodes to points, so it has no ELBO, KL and NLL: its row",
        "shows log p(x|z) at the code, which is not a likelihood of the image. All draws of a quantized posterior are the",
        "same point, so its NLL is an upper bound.",
        "",
        "| model | options | -ELBO | NLL | KL | log-likelihood of the reconstruction | active units | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in ROWS:
        metrics = folder(name) / "metrics.json"
        if metrics.is_file():
            m = json.loads(metrics.read_text())
            units = f"{m['active_units']} of {m['latent_units']}"
            keys, bound = (
                ("negative_elbo", "nll", "kl", "log_likelihood"),
                {"nll": "<= "} if "nll_is_bound" in m else {},
            )
            numbers = " | ".join(
                "" if m[key] is None else f"{bound.get(key, '')}{m[key]:.2f}" for key in keys
            )
            options = f"`{quoted[name]}`" if quoted[name] else ""
            lines.append(f"| {name} | {options} | {numbers} | {units} | {m['seconds']:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    for name in sys.argv[1:] or ROWS:
        if not (folder(name) / "metrics.json").is_file():
            run(name)
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
