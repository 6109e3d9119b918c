"""Molecules as strings: a VAE that generates, reconstructs, interpolates and optimizes them, and what its codes know.

The encoder reads the tokens of a molecule, SMILES or SELFIES, by convolutions; the decoder writes them one after
another by a GRU, given z. beta = 0.5 makes room for what z says of a molecule: with the ELBO itself, the decoder writes
good molecules, but other ones than it was shown.

Reference: Gomez-Bombarelli et al., 2018, Automatic chemical design, arXiv:1610.02415; SELFIES: Krenn et al., 2020,
arXiv:1905.13741.

Run: pip install '.[molecules]'; python examples/molecules.py molecules.csv --tokens smiles --output molecules
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import keras
import numpy as np
import selfies
from rdkit import Chem, RDLogger
from rdkit.Chem import Crippen, Descriptors, Draw, rdFingerprintGenerator, rdMolDescriptors
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor, kernels
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tfp_vae
from tfp_vae import evaluation, objectives, sequences
from tfp_vae import layers as tfpl
from tfp_vae.text import Vocabulary

LATENT_SIZE, BETA, BATCH_SIZE, LEARNING_RATE = 32, 0.5, 256, 2e-3
# Epochs in which beta rises, so that the decoder has use for z before z costs much.
WARM_UP = 2
# Molecules for the latent space: so many codes to learn a property from, fewer by a Gaussian process.
NUM_CODES, NUM_OF_PROCESS = 10_000, 1_000
# Climbs to a higher logP.
NUM_CLIMBS = 100
PROPERTIES = {
    "logP": Crippen.MolLogP,
    "TPSA": rdMolDescriptors.CalcTPSA,
    "weight": Descriptors.MolWt,
    "rings": rdMolDescriptors.CalcNumRings,
}
# Steps of a path in the latent space; in a climb, codes that are tried at each, and how far away they are.
STEPS, NUM_NEIGHBOURS, RADIUS = 7, 16, 0.5


def read_molecules(path: Path) -> list[str]:
    """Return the SMILES of a file, one a line, perhaps under the heading "smiles", in a fixed random order."""
    lines = path.read_text().split()
    lines = lines[1:] if lines[0] == "smiles" else lines
    return [lines[row] for row in np.random.RandomState(0).permutation(len(lines))]


def as_selfies(smiles: str) -> str | None:
    """Return a molecule in SELFIES; None of one that breaks their rules, such as a nitrogen of five bonds."""
    try:
        return selfies.encoder(smiles)
    except selfies.EncoderError:
        return None


def as_smiles(text: str, tokens: str) -> str:
    """Return a text of the model as SMILES."""
    return selfies.decoder(text) if tokens == "selfies" else text


def canonical(smiles: str) -> str | None:
    """Return the canonical SMILES of a molecule; None if it is none."""
    molecule = Chem.MolFromSmiles(smiles) if smiles else None
    return None if molecule is None else Chem.MolToSmiles(molecule)


def make_vae(vocabulary: Vocabulary, length: int, beta, units: int) -> tfp_vae.VAE:
    """Make encoder and decoder, not trained."""
    posterior, num_tokens = tfpl.MultivariateNormalDiag, len(vocabulary)
    features = sequences.conv_encoder(length, num_tokens, posterior.params_size(LATENT_SIZE))
    network = sequences.gru_decoder(LATENT_SIZE, length, num_tokens, units=units)
    likelihood = tfpl.AutoregressiveCategorical(network, vocabulary=vocabulary)
    encoder = keras.Sequential([features, posterior(LATENT_SIZE)])
    decoder = keras.Sequential([keras.Input((LATENT_SIZE,)), likelihood])
    return tfp_vae.VAE(encoder, decoder, objective=objectives.ELBO(beta=beta))


def train(vae: tfp_vae.VAE, x: np.ndarray, validation: np.ndarray, epochs: int) -> float:
    """Train, and return the seconds that it took."""
    steps = epochs * -(-len(x) // BATCH_SIZE)
    vae.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)))
    start = time.time()
    vae.fit(x, batch_size=BATCH_SIZE, epochs=epochs, validation_data=(validation,), verbose=2)
    return time.time() - start


def judge_samples(texts: list[str], tokens: str, known: set[str]) -> dict[str, float]:
    """Return the shares of valid samples, of different ones of these, and of new ones of these."""
    found = [canonical(as_smiles(text, tokens)) for text in texts]
    valid = [smiles for smiles in found if smiles is not None]
    different = {*valid}
    return {
        "valid": len(valid) / len(found),
        "unique": len(different) / max(1, len(valid)),
        "novel": len(different - known) / max(1, len(different)),
    }


def judge(vae, test, known: set[str], tokens: str, num_samples: int) -> dict:
    """Return the numbers of one and the same model: bounds, reconstructions and samples."""
    numbers = evaluation.evaluate(vae, test[:1000], num_samples=200, batch_size=100)
    names = "negative_elbo", "nll", "kl", "active_units", "latent_units", "mutual_information"
    report = {name: numbers[name] for name in names}
    report["exact reconstruction"] = float((vae.reconstruct(test) == test).all(1).mean())
    for name, draws in (("greedy", False), ("drawn", True)):
        texts = vae.vocabulary.decode(vae.generate(num_samples, draws=draws))
        report[f"samples, {name}"] = judge_samples(texts, tokens, known)
    return report


def properties(molecules: list[str]) -> dict[str, np.ndarray]:
    """Return the properties that RDKit computes of SMILES."""
    parsed = [Chem.MolFromSmiles(smiles) for smiles in molecules]
    return {
        name: np.array([float(function(one)) for one in parsed])
        for name, function in PROPERTIES.items()
    }


def fingerprints(molecules: list[str]) -> np.ndarray:
    """Return Morgan fingerprints, `[num_molecules, 2048]`."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    return np.stack([generator.GetFingerprintAsNumPy(Chem.MolFromSmiles(s)) for s in molecules])


def learn_properties(codes, molecules, codes_of_test, molecules_of_test) -> dict:
    """Return R2 on test molecules of what is learned from codes, and from fingerprints beside them."""
    learned, wanted = properties(molecules), properties(molecules_of_test)
    prints = fingerprints(molecules), fingerprints(molecules_of_test)
    rows = {}
    for name in PROPERTIES:
        ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 7)))
        kernel = kernels.ConstantKernel() * kernels.RBF(5.0) + kernels.WhiteKernel()
        process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
        few = slice(NUM_OF_PROCESS)
        with warnings.catch_warnings():  # a property without noise reaches the kernel's bounds
            warnings.simplefilter("ignore", ConvergenceWarning)
            process.fit(codes[few], learned[name][few])
        rows[name] = {
            "codes, ridge": ridge.fit(codes, learned[name]).score(codes_of_test, wanted[name]),
            "codes, Gaussian process": process.score(codes_of_test, wanted[name]),
            "fingerprints, ridge": RidgeCV(np.logspace(-1, 4, 6))
            .fit(prints[0], learned[name])
            .score(prints[1], wanted[name]),
        }
    return rows


def decoded(vae: tfp_vae.VAE, z: np.ndarray, tokens: str) -> list[str]:
    """Return the SMILES that the decoder finds most probable, one token after another."""
    texts = vae.vocabulary.decode(vae.decode(z.astype("float32")).greedy())
    return [as_smiles(text, tokens) for text in texts]


def draw(rows: list[list[str]], legends: list[list[str]], path: Path) -> None:
    """Draw molecules in rows; what is no molecule stays empty."""
    molecules = [Chem.MolFromSmiles(smiles) for row in rows for smiles in row]
    picture = Draw.MolsToGridImage(
        [molecule or Chem.MolFromSmiles("") for molecule in molecules],
        molsPerRow=len(rows[0]),
        subImgSize=(180, 150),
        legends=[legend for row in legends for legend in row],
        returnPNG=False,
    )
    picture.save(path)


def interpolate(vae: tfp_vae.VAE, codes: np.ndarray, tokens: str, path: Path) -> list[list[str]]:
    """Draw the molecules on the way between pairs of codes."""
    paths = [
        np.linspace(start, end, STEPS) for start, end in zip(codes[::2], codes[1::2], strict=True)
    ]
    rows = [decoded(vae, z, tokens) for z in paths]
    draw(rows, rows, path)
    return rows


def optimize(vae: tfp_vae.VAE, z: np.ndarray, tokens: str, path: Path) -> dict:
    """Climb to a higher logP: in each step to the best of some codes nearby, judged by their molecules.

    The first four climbs are drawn. Returns the mean logP after each step, and the share of codes that were molecules.
    """
    random = np.random.RandomState(0)
    number, valid = len(z), []
    rows = [decoded(vae, z, tokens)]
    for _ in range(STEPS - 1):
        noise = random.normal(scale=RADIUS, size=[number, NUM_NEIGHBOURS, LATENT_SIZE])
        nearby = np.concatenate([z[:, np.newaxis], z[:, np.newaxis] + noise], 1)
        found = decoded(vae, nearby.reshape(-1, LATENT_SIZE), tokens)
        values = np.array([log_p(smiles) for smiles in found]).reshape(number, -1)
        best = values.argmax(1)
        z = nearby[np.arange(number), best]
        rows.append(np.array(found).reshape(number, -1)[np.arange(number), best].tolist())
        valid.append(float(np.isfinite(values[:, 1:]).mean()))
    reached = np.array([[log_p(smiles) for smiles in row] for row in rows])
    shown = [list(row) for row in zip(*[row[:4] for row in rows], strict=True)]
    draw(shown, [[f"logP {log_p(smiles):.2f}" for smiles in row] for row in shown], path)
    means = [float(row[np.isfinite(row)].mean()) for row in reached]
    return {"mean logP": means, "valid neighbours": valid}


def log_p(smiles: str) -> float:
    """Return logP, minus infinity of what is no molecule."""
    return Crippen.MolLogP(Chem.MolFromSmiles(smiles)) if canonical(smiles) else -np.inf


def main(
    path: Path,
    output: Path,
    *,
    tokens: str = "smiles",
    epochs: int = 20,
    units: int = 256,
    num_samples: int = 10_000,
    num_held_out: int = 5_000,
) -> dict:
    """Train and judge a model, and write `report.json`, the model and pictures into the folder `output`."""
    RDLogger.DisableLog("rdApp.*")
    output.mkdir(parents=True, exist_ok=True)
    molecules = read_molecules(path)
    if tokens == "selfies":
        pairs = [(as_selfies(smiles), smiles) for smiles in molecules]
        texts, molecules = map(list, zip(*[pair for pair in pairs if pair[0]], strict=True))
        print(f"{len(pairs) - len(texts)} molecules have no SELFIES and are left out")
    else:
        texts = molecules
    vocabulary = Vocabulary.of(texts, tokens)
    x = vocabulary.encode(texts)
    test, validation, train_x = np.split(x, [num_held_out, 2 * num_held_out])
    of_test, of_train = molecules[:num_held_out], molecules[2 * num_held_out :]
    print(
        f"{len(train_x):,} molecules of up to {x.shape[1] - 1} of {len(vocabulary.tokens)} tokens"
    )
    keras.utils.set_random_seed(0)
    rise = WARM_UP * -(-len(train_x) // BATCH_SIZE)
    beta = keras.optimizers.schedules.PolynomialDecay(0.0, rise, BETA)
    vae = make_vae(vocabulary, x.shape[1], beta, units)
    report = {
        "tokens": tokens,
        "epochs": epochs,
        "seconds": train(vae, train_x, validation, epochs),
    }
    vae.save(output / "model.keras")
    known = {canonical(smiles) for smiles in of_train}
    report |= judge(vae, test, known, tokens, num_samples)
    codes = evaluation.posterior_means(vae, train_x[:NUM_CODES])
    of_codes = of_train[:NUM_CODES]
    codes_of_test = evaluation.posterior_means(vae, test)
    report["R2"] = learn_properties(codes, of_codes, codes_of_test, of_test)
    interpolate(vae, codes_of_test[:6], tokens, output / "interpolation.png")
    climb = optimize(vae, codes_of_test[:NUM_CLIMBS], tokens, output / "optimization.png")
    report["optimization"] = climb
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path, help="file of SMILES, one a line")
    parser.add_argument("--output", type=Path, default=Path("molecules"))
    parser.add_argument("--tokens", default="smiles", choices=["smiles", "selfies"])
    parser.add_argument("--epochs", type=int, default=20)
    main(**vars(parser.parse_args()))
