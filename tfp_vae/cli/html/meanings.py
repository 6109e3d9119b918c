"""What each number of a run means, in a sentence, and whether less of it is better."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tfp_vae.cli.html.subject import Subject

NATS_PER_BIT = math.log(2.0)
# Facts about the evaluation, which sentences tell; they are not numbers of their own.
FACTS = (
    "against",
    "annealed_acceptance",
    "annealed_examples",
    "annealed_steps",
    "asked",
    "bits_per_dim",
    "data",
    "dataset",
    "epochs",
    "features",
    "kl_by_dimension",
    "kl_is_analytic",
    "latent_units",
    "nll_is_bound",
    "num_examples",
    "num_samples",
    "rate_distortion_acceptance",
    "rate_distortion_examples",
    "seed",
)
# Endings of names under which an evaluation may state the error of another number.
ERRORS = ("_standard_error", "_error")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Number:
    """A number that the report knows.

    Args:
        title: what it is called, with its unit.
        meaning: a sentence, in which the facts of the run stand in braces.
        better: -1 if less is better, 1 if more is, 0 if neither is by itself.
        values: the same for each test example, from `Subject.values`; or None if it is no mean.
        of: the number, from those of the run, if it is not there under its own name.
        out_of: the name of the number of which it is a part.
        form: how it is written if it has no error.
    """

    title: str
    meaning: str
    better: int = 0
    values: Callable[[Subject], np.ndarray] | None = None
    of: Callable[[Subject], float | None] | None = None
    out_of: str = ""
    form: str = ".3f"


def _bits(subject: Subject) -> float | None:
    nll = subject.numbers.get("nll")
    # Of incomplete examples, the NLL is that of the values that are there.
    if nll is None or not subject.medium.is_image or subject.vae.missing:
        return None
    return nll / _nats_of_a_bit(subject)


def _nats_of_a_bit(subject: Subject) -> float:
    """Return the nats in one bit for each value of an example."""
    return NATS_PER_BIT * subject.vae.x.size


NUMBERS = {
    "nll": Number(
        title="NLL (nats)",
        meaning="-log p(x), estimated by importance sampling with {num_samples} draws: what an example "
        "costs under the model. Less is better.",
        better=-1,
        values=lambda subject: -subject.values["log_prob"],
    ),
    "bits_per_dimension": Number(
        title="NLL (bits per dimension)",
        meaning="The same for each of the {dimensions} values of an image: NLL / ({dimensions} ln 2).",
        better=-1,
        of=_bits,
        values=lambda subject: -subject.values["log_prob"] / _nats_of_a_bit(subject),
    ),
    "effective_samples": Number(
        title="effective samples of the NLL",
        meaning="How many draws count, in the median example. With few, -log p(x) is smaller than this "
        "NLL, maybe by nats.",
        form=".1f",
    ),
    "annealed_nll": Number(
        title="NLL by annealing (nats)",
        meaning="-log p(x) of the first {annealed_examples} test examples by annealed importance "
        "sampling, mostly nearer to the truth; {annealed_acceptance} of its moves were accepted. Less "
        "is better.",
        better=-1,
    ),
    "annealed_gain": Number(
        title="gain of annealing (nats)",
        meaning="How much smaller it is than the NLL of the same examples by importance sampling.",
    ),
    "annealed_gap": Number(
        title="gap of annealing (nats)",
        meaning="How far its bounds from both sides are apart, on data drawn from the model.",
    ),
    "negative_elbo": Number(
        title="-ELBO (nats)",
        meaning="The bound on the NLL that training makes small; the gap to it is the price of an "
        "approximate posterior. Less is better.",
        better=-1,
        values=lambda subject: -subject.values["elbo"],
    ),
    "log_likelihood": Number(
        title="log-likelihood (nats)",
        meaning="log p(x|z) at the codes of x: how well the decoder explains an example whose code it "
        "knows.",
        values=lambda subject: subject.values["log_likelihood"],
    ),
    "kl": Number(
        title="KL (nats)",
        meaning="KL(q(z|x) || p(z)), {kl_kind}: what the code of an example costs. Near 0 the codes "
        "say nothing.",
        values=lambda subject: subject.values["kl"],
    ),
    "active_units": Number(
        title="active units",
        meaning="The latent dimensions whose posterior mean varies over the data. The others are not "
        "used.",
        out_of="latent_units",
        form=".0f",
    ),
    "perplexity": Number(
        title="perplexity of the codes",
        meaning="The effective number of codes in use: 1 if all examples share one.",
        form=".1f",
    ),
    "nll_per_token": Number(
        title="NLL per token (nats)",
        meaning="The NLL over the mean number of tokens of a text; its exponential is the perplexity.",
        better=-1,
        form=".4f",
    ),
    "tokens_per_example": Number(
        title="tokens per text", meaning="Their mean number, with the end.", form=".2f"
    ),
    "mutual_information": Number(
        title="mutual information of x and z (nats)",
        meaning="What a code tells about its example, at most the logarithm of the number of examples "
        "that are used.",
    ),
    "aggregate_kl": Number(
        title="KL of all codes (nats)",
        meaning="KL(q(z) || p(z)): how far the codes of all examples together are from the prior.",
    ),
    "collapsed_dimensions": Number(
        title="collapsed dimensions", meaning="Those of z whose KL is below 0.01 nats."
    ),
    "mutual_information_gap": Number(
        title="mutual information gap",
        meaning="By how much the best dimension of a code knows a factor better than the second best.",
        better=1,
    ),
    "sap": Number(
        title="SAP",
        meaning="By how much the best dimension predicts a factor better than the second best.",
        better=1,
    ),
    "disentanglement": Number(
        title="disentanglement (DCI)",
        meaning="How far each dimension is about one factor alone.",
        better=1,
    ),
    "completeness": Number(
        title="completeness (DCI)",
        meaning="How far each factor is in one dimension alone.",
        better=1,
    ),
    "informativeness": Number(
        title="informativeness (DCI)",
        meaning="How well codes predict the factors, entangled or not.",
        better=1,
    ),
    "factor_vae_score": Number(
        title="FactorVAE score",
        meaning="How often the dimension that varies least tells which factor is fixed.",
        better=1,
    ),
    "beta_vae_score": Number(
        title="beta-VAE score",
        meaning="How often a linear classifier of differences of codes tells which factor is fixed.",
        better=1,
    ),
    "frechet_distance": Number(
        title="Frechet distance",
        meaning="Between draws and as many test examples, in features of {features}.",
        better=-1,
    ),
    "frechet_distance_of_held_out": Number(
        title="Frechet distance of data",
        meaning="The same between validation and test data: what a perfect model would be about to "
        "reach.",
    ),
    "precision": Number(
        title="precision of samples",
        meaning="The share of draws that lie among test examples, in the same features.",
        better=1,
    ),
    "recall": Number(
        title="recall of samples",
        meaning="The share of test examples that lie among draws, in the same features.",
        better=1,
    ),
    "mmd": Number(
        title="squared MMD of samples",
        meaning="Between draws and test examples, in the same features; 0 if they are alike.",
    ),
    "seconds": Number(title="training seconds", meaning="Time in training steps.", form=",.1f"),
    "examples_per_second": Number(
        title="examples per second", meaning="Speed of training, without compilation.", form=",.0f"
    ),
}
# Numbers of which there is one for each label, score or part: by the beginnings of their names.
FAMILIES = {
    "linear_probe_of_": Number(
        title="linear probe of {}",
        meaning="Accuracy of logistic regression from codes to labels, on test examples.",
        better=1,
    ),
    "knn_of_": Number(
        title="kNN of {}", meaning="Accuracy of a vote of the 5 nearest codes.", better=1
    ),
    "commonest_": Number(
        title="commonest {}", meaning="Accuracy of naming the commonest one always: chance."
    ),
    "auroc_of_": Number(
        title="AUROC of {}",
        meaning="How often {against} has the larger score beside the model's own; 0.5 is chance.",
        better=1,
    ),
    "reconstruction_error_of_": Number(
        title="reconstruction error of {}",
        meaning="The mean of (x - x')^2, or of names the share that differs.",
        better=-1,
    ),
    "rate_": Number(
        title="rate {} (nats)",
        meaning="What codes cost, KL(q(z|x) || p(z)), of the first {rate_distortion_examples} test "
        "examples: those of the encoder, or the best ones where the likelihood has the weight beta, as "
        "far as chains found them, of whose moves {rate_distortion_acceptance} or more were accepted.",
    ),
    "distortion_": Number(
        title="distortion {} (nats)",
        meaning="How badly these codes explain the same examples: -log p(x|z). No encoder of this "
        "decoder has less of both than the best codes.",
    ),
    "p_value_of_": Number(
        title="p-value of {}",
        meaning="How usual this statistic of the test data is among data that the model draws; a small "
        "one says that it is not.",
    ),
}


def others(runs: Sequence[Mapping]) -> dict[str, Number]:
    """Return the numbers of runs that are not in `NUMBERS`: of a family, or that this version does
    not know, under their own names.
    """
    names = [name for numbers in runs for name in numbers]
    unknown = [name for name in dict.fromkeys(names) if name not in (*NUMBERS, *FACTS)]
    errors = {name + ending for name in names for ending in ERRORS}
    return {name: _other(name) for name in unknown if name not in errors}


def _other(name: str) -> Number:
    for start, known in FAMILIES.items():
        if name.startswith(start):
            rest = name.removeprefix(start).replace("_", " ")
            return dataclasses.replace(known, title=known.title.format(rest))
    return Number(title=name.replace("_", " "), meaning="", form=".4g")
