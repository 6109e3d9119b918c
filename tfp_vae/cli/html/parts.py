"""The parts of a report: a function and a row in `PARTS` each."""

import dataclasses
import hashlib
import importlib.metadata
import platform
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfp_vae import datasets, evaluation, latent_plots, plots, sampling
from tfp_vae.batch import cut, num_examples
from tfp_vae.cli.html.blocks import Block, Cell, LeftOut, picture, table
from tfp_vae.cli.html.numbers import numbers, titles
from tfp_vae.cli.html.subject import Subject, at
from tfp_vae.evaluation.annealing import has_real_latent
from tfp_vae.evaluation.latents import ACTIVE_VARIANCE
from tfp_vae.layers.vector_quantized import is_quantized
from tfp_vae.surface import Surface
from tfp_vae.version import __version__
from tfp_vae_console import Options

# Samples whose nearest training examples are shown.
NUM_SHOWN = 10
# Test examples whose distances to the training data are compared with those of samples.
NUM_COMPARED = 200
# Points of a map.
MOST_POINTS = 5000
# Steps of a traversal, from -EXTENT to EXTENT.
NUM_STEPS = 11
EXTENT = 3.0
# Beginning of the names of rates.
AT_BETA = "rate_at_beta_"
LIBRARIES = ("tensorflow", "keras", "tensorflow-probability", "numpy")


def reconstructions(subject: Subject) -> list[Block]:
    """Show test examples and what the model makes of their codes."""
    shown = cut(subject.test, 0, subject.medium.num_shown)
    rows = [
        ("original", datasets.x_of(shown)),
        ("reconstruction", subject.vae.reconstruct(shown)),
    ]
    noun = subject.medium.noun
    caption = (
        f"The first test {noun}, and the mean of p(x|z) at the mean z of each. {_note(subject)}"
    )
    return [subject.medium.show(rows, f"Test {noun} and their reconstructions.", caption)]


def samples(subject: Subject) -> list[Block]:
    """Show new examples; of a table how its columns are distributed, too."""
    noun = subject.medium.noun
    what = "draws from" if subject.medium.shows_draws else "means of"
    caption = f"New {noun}: {what} p(x|z) for z from the prior, seed {subject.seed}."
    if subject.conditions is not None:
        caption += f" Those of each {subject.options.condition} are drawn from the same seeds."
    shown = [subject.medium.show(subject.samples, f"Samples from {subject.name}.", caption)]
    if not subject.splits.is_table:
        return shown
    figure = plots.marginals(subject.vae, subject.test, seed=subject.seed)
    alt = "Histograms of each column, in the test data and in draws from the model."
    return [picture(figure, alt, "How each column is distributed.", kind="svg"), *shown]


def nearest(subject: Subject) -> list[Block]:
    """Show whether samples are copies of training examples."""
    training = subject.splits.training_values(subject.seed)
    x = _together(subject.samples)
    places, _ = subject.medium.nearest(x, training)
    # Data have the noise of p(x|z), and so must what is compared with them.
    distances = subject.medium.nearest(_together(subject.draws), training)[1]
    compared = datasets.x_of(cut(subject.test, 0, NUM_COMPARED))
    test_distances = subject.medium.nearest(_known(compared), training)[1]
    shown = slice(0, len(x), max(1, len(x) // NUM_SHOWN))
    rows = [("sample", x[shown][:NUM_SHOWN]), ("nearest", training[places[shown][:NUM_SHOWN]])]
    noun = subject.medium.noun
    caption = (
        f"Samples, and the training {noun} nearest to each ({subject.medium.distance}). Half of as "
        f"many draws from p(x|z) are farther than {np.median(distances):.3g} from the training data; "
        f"of test {noun}, half are farther than {np.median(test_distances):.3g}. Draws that are "
        "much nearer would be copies."
    )
    return [subject.medium.show(rows, f"Samples and the training {noun} nearest to them.", caption)]


def _together(rows: list[tuple[str, np.ndarray]]) -> np.ndarray:
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts), *[x for _, x in rows])


def _known(x: np.ndarray) -> np.ndarray:
    """Return the examples without missing values, or with 0 in their place if all have some."""
    whole = np.isfinite(x.reshape(len(x), -1)).all(axis=1)
    return x[whole] if whole.any() else np.nan_to_num(x)


def extremes(subject: Subject) -> list[Block]:
    """Show the test examples that the model explains best and worst."""
    name = "log_likelihood" if subject.vae.encodes_to_points else "elbo"
    score = subject.values[name]
    title = {"elbo": "-ELBO", "log_likelihood": "-log-likelihood"}[name]
    order = np.argsort(-score, kind="stable")
    number = min(subject.medium.num_shown, max(1, len(score) // 2))
    groups = {"best": order[:number]}
    if len(score) > 1:
        groups["worst"] = order[::-1][:number]
    noun = subject.medium.noun
    blocks = []
    for label, places in groups.items():
        chosen = at(subject.test, places)
        rows = [
            (label, datasets.x_of(chosen)),
            ("reconstruction", subject.vae.reconstruct(chosen)),
        ]
        first, last = -score[places[0]], -score[places[-1]]
        caption = f"The {label} test {noun}: {title} from {first:.2f} to {last:.2f} nats."
        alt = f"The {label} test {noun} and their reconstructions."
        blocks.append(subject.medium.show(rows, alt, caption))
    return blocks


def codes(subject: Subject) -> list[Block]:
    """Show the codes of the test set in the plane."""
    size = subject.codes.shape[1]
    if size < 2:
        raise LeftOut("z has one dimension, and a map has two.")
    if len(subject.codes) < 3:
        raise LeftOut(f"the test set has {len(subject.codes)} examples, too few for a map.")
    shown = subject.codes[:MOST_POINTS]
    name, labels = subject.labels or ("", None)
    figure = latent_plots.latent_map(
        shown, None if labels is None else labels[:MOST_POINTS], seed=subject.seed
    )
    colours = f"coloured by {name}" if name else "without colours, as the data have no label"
    caption = f"The mean codes of {len(shown):,} test examples, {colours}."
    return [picture(figure, f"Map of the codes, {colours}.", caption)]


def manifold(subject: Subject) -> list[Block]:
    """Show what a latent of two dimensions decodes to, place by place."""
    vae = subject.vae
    if vae.z.shape != (2,):
        raise LeftOut(f"it needs one z of two dimensions, and here z has {vae.z.size}.")
    if subject.medium.limits is None:
        raise LeftOut(f"it shows images, and the examples are {subject.medium.noun}.")
    codes = subject.codes if vae.encodes_to_points else None
    condition = _first(subject.conditions)
    figure = latent_plots.manifold(
        vae, codes=codes, condition=condition, limits=subject.medium.limits
    )
    caption = "Means of p(x|z) for z at equally likely places of " + (
        "the codes" if vae.encodes_to_points else "the prior"
    )
    caption += "." if condition is None else f", {subject.options.condition} {condition}."
    return [picture(figure, "A lattice of decoded z.", caption)]


def traversals(subject: Subject) -> list[Block]:
    """Show what each latent dimension does."""
    vae = subject.vae
    if is_quantized(vae.some_posterior):
        raise LeftOut("z consists of vectors from a code book, and between these is nothing.")
    names = dimension_names(vae)
    dims = np.argsort(-subject.codes.var(axis=0), kind="stable")[: subject.medium.num_dims]
    steps = np.linspace(-EXTENT, EXTENT, NUM_STEPS)
    condition = _first(subject.conditions)
    rows = []
    for dim in dims:
        z = np.zeros([NUM_STEPS, vae.z.size], "float32")
        z[:, dim] = steps
        means = sampling.point(vae.decode(vae.z.split(z), condition))
        rows.append(
            (names[dim], vae.x.whole({k: np.asarray(v) for k, v in vae.x.parts(means).items()}))
        )
    caption = (
        f"Means of p(x|z) while one dimension of z goes from {-EXTENT:g} to {EXTENT:g} and all "
        "others are 0; the most active dimensions first."
    )
    alt = "What each latent dimension does."
    return [subject.medium.show(rows, alt, caption, paired=False)]


def kl(subject: Subject) -> list[Block]:
    """Show what each latent dimension costs, and which ones are used."""
    if subject.vae.encodes_to_points:
        raise LeftOut("codes are points, which have no KL divergence.")
    groups = evaluation.kl_by_dimension(subject.vae, subject.test)
    is_active = subject.codes.var(axis=0, dtype="float64") > ACTIVE_VARIANCE
    names = dimension_names(subject.vae)
    values: dict[str, float] = {}
    active: dict[str, bool] = {}
    start = 0
    for name, size in _sizes(subject.vae).items():
        own = slice(start, start + size)
        splits = len(groups[name]) == size
        for place, value in enumerate(groups[name]):
            called = names[start + place] if splits else name
            values[called] = float(value)
            active[called] = bool(is_active[own][place] if splits else is_active[own].any())
        start += size
    if [*values] == ["z"]:
        raise LeftOut(
            "the posterior or the prior does not factorize over the dimensions of z, so that their "
            "KL divergences do not add up. The whole is in the table of numbers."
        )
    total = sum(values.values())
    caption = (
        f"KL(q(z|x) || p(z)) of each dimension, {total:.2f} nats in all. A dimension is active if "
        f"its posterior mean varies over the test set by more than {ACTIVE_VARIANCE} "
        "(Burda et al., 2016); the others carry next to nothing."
    )
    alt = f"Bars of KL by latent dimension; {sum(active.values())} of {len(active)} are active."
    return [picture(latent_plots.kl_bars(values, active), alt, caption, kind="svg")]


def rates(subject: Subject) -> list[Block]:
    """Show how far the encoder is from the best codes of its decoder."""
    if not has_real_latent(subject.vae):
        raise LeftOut("chains find the best codes where z is one latent of real numbers.")
    numbers = subject.numbers
    betas = [name.removeprefix(AT_BETA) for name in numbers if name.startswith(AT_BETA)]
    points = {
        beta: [numbers[f"{AT_BETA}{beta}"], numbers[f"distortion_at_beta_{beta}"]]
        for beta in betas
        if not beta.endswith("_error")
    }
    if not points:
        raise LeftOut(f"{_evaluate_command(subject)} --rate-distortion 0.1,1,10 adds it.")
    points = {beta: point for beta, point in points.items() if None not in point}
    own = numbers["rate_of_encoder"], numbers["distortion_of_encoder"]
    if not points or None in own:
        raise LeftOut("the numbers are not finite.")
    rate, distortion = np.transpose([*points.values()])
    figure = latent_plots.rate_distortion([*points], rate, distortion, own)
    caption = (
        f"KL(q(z|x) || p(z)) and -log p(x|z) of the first {numbers['rate_distortion_examples']} test "
        f"{subject.medium.noun}, by the best codes of the decoder and by the encoder. Above the curve, "
        "an encoder gives away what this decoder could do; between two points the true curve is below "
        "the line. Another decoder has another curve (Huang et al., 2020)."
    )
    return [picture(figure, "Distortion against rate.", caption, kind="svg")]


def curves(subjects: list[Subject]) -> list[Block]:
    """Show the course of the training."""
    known = {subject.name: subject.history for subject in subjects if subject.num_epochs}
    if not known:
        raise LeftOut("no epoch has been finished yet.")
    if len(subjects) == 1:
        figure = plots.learning_curves(subjects[0].history)
        caption = "The ELBO and its two terms after each epoch, in nats per example."
    else:
        figure = plots.compared_curves(known)
        caption = "On validation data after each epoch, in nats per example, all runs together."
    return [picture(figure, "Learning curves.", caption, kind="svg")]


def configuration(subjects: list[Subject]) -> list[Block]:
    """Show the options of train, and how large the networks are."""
    usual = {field.name: field.default for field in dataclasses.fields(Options)}
    rows = []
    for name, default in usual.items():
        values = [getattr(subject.options, name) for subject in subjects]
        differs = any(value != values[0] for value in values)
        is_usual = all(value == default for value in values)
        notes = ["" if is_usual else "not the default", "differs between the runs" * differs]
        note = "; ".join(filter(None, notes)) if name not in ("name", "data") else ""
        rows.append([Cell(name.replace("_", " "), note), *map(_setting, values)])
    for part in ("encoder", "decoder", "prior"):
        counts = [f"{subject.vae.parts[part].count_params():,}" for subject in subjects]
        rows.append([f"weights of the {part}", *counts])
    return [table(["", *titles(subjects)], rows)]


def repeat(subject: Subject) -> list[Block]:
    """Show the commands and the versions that give these numbers again."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    sizes = ", ".join(
        f"{num_examples(getattr(subject.splits, split)):,} {split}" for split in datasets.SPLITS
    )
    path = Path(subject.options.dataset)
    digest = f" SHA-256 of {path.name}: {_digest(path)}." if path.is_file() else ""
    return [
        Block(lines=train_command(subject.options), caption="Trains the same model again."),
        Block(lines=_evaluate_command(subject), caption="Judges it as here."),
        Block(
            sentence=f"Data: {subject.splits.name}, {sizes} examples. {_note(subject)}{digest} "
            f"Seed of training: {subject.options.seed}."
        ),
        Block(
            sentence=f"This report: tfp_vae {__version__}, {versions}, Python "
            f"{platform.python_version()}, seed {subject.seed}. Other versions and processors round "
            "otherwise, so that numbers may differ in their last digits."
        ),
    ]


def _evaluate_command(subject: Subject) -> str:
    """Return the shell command whose numbers are in the report."""
    numbers = subject.numbers
    words = ["tfp-vae", "evaluate", str(subject.run.folder)]
    words += ["--num-samples", str(numbers["num_samples"])]
    words += ["--seed", str(numbers.get("seed", subject.seed))]
    for name, value in numbers.get("asked", {}).items():
        words += _flag(name, value)
    return shlex.join(words)


def train_command(options: Options) -> str:
    """Return the shell command that trains with these options; those at their default are left
    out.

    >>> print(train_command(Options(name="digits", latent_size=2, prior="VampPrior(num_components=9)")))
    tfp-vae train --latent-size 2 --prior 'VampPrior(num_components=9)'
    """
    words = ["tfp-vae", "train"]
    for field in dataclasses.fields(Options):
        value = getattr(options, field.name)
        if field.name in ("name", "data") or value == field.default:
            continue
        words += _flag(field.name, value)
    return shlex.join(words)


def _flag(name: str, value) -> list[str]:
    """Return the words of an option; of one that is a switch, its name alone."""
    flag = "--" + name.replace("_", "-")
    return [flag] if str(value) == "True" else [flag, str(value)]


def dimension_names(vae: Surface) -> list[str]:
    """Return the names of all dimensions of z, as they are concatenated in codes."""
    return [
        f"{name} {place}" if vae.z.has_parts else f"{name}{place}"
        for name, size in _sizes(vae).items()
        for place in range(size)
    ]


def _sizes(vae: Surface) -> dict[str, int]:
    return {name: int(np.prod(shape)) for name, shape in vae.z.shapes.items()}


def _note(subject: Subject) -> str:
    note = subject.splits.note
    return f"Likelihood: {note}." if note else ""


def _first(conditions: np.ndarray | None):
    return None if conditions is None else conditions[0]


def _setting(value) -> str:
    return {"None": "none", "True": "yes", "False": "no"}.get(str(value), str(value))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a report.

    Args:
        name: its anchor in the page.
        title: its heading.
        make: function of a run, or of all runs, that gives its blocks.
        of_all: whether it takes all runs at once.
    """

    name: str
    title: str
    make: Callable[..., list[Block]]
    of_all: bool = False


PARTS = (
    Part("numbers", "Numbers", numbers, of_all=True),
    Part("reconstructions", "Originals and reconstructions", reconstructions),
    Part("samples", "Samples", samples),
    Part("nearest", "Nearest training examples", nearest),
    Part("extremes", "Best and worst examples", extremes),
    Part("codes", "Map of the test set", codes),
    Part("manifold", "Manifold", manifold),
    Part("traversals", "Latent traversals", traversals),
    Part("kl", "KL by dimension", kl),
    Part("rates", "Rate and distortion", rates),
    Part("curves", "Learning curves", curves, of_all=True),
    Part("configuration", "Configuration", configuration, of_all=True),
    Part("repeat", "How to repeat it", repeat),
)
