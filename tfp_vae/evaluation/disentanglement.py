"""Disentanglement: whether each known factor of the data has a latent dimension of its own.

All scores are functions of codes, `[num_examples, latent]`, such as `posterior_means`, and of the
factors of the same examples, whole numbers `[num_examples, num_factors]`. They lie between 0 and 1;
larger is better. A score of one model says little: scores of random seeds differ as much as those
of objectives do (Locatello et al., 2019, arXiv:1811.12359).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tfp_vae.checks import as_count, as_seed, imported
from tfp_vae.evaluation.errors import Estimate, bootstrapped, mean_of

__all__ = [
    "DCI",
    "beta_vae_score",
    "dci",
    "factor_vae_score",
    "mutual_information_gap",
    "sap",
]

# Number of bins of each latent dimension, at least; more if a factor has more values.
NUM_BINS = 20


def mutual_information_gap(
    codes: np.ndarray, factors: np.ndarray, *, num_bins: int | None = None, seed: int = 0
) -> Estimate:
    """Return MIG: how much more the best dimension tells about a factor than the second best.

    The mean over factors of the difference of the two largest mutual informations I(z_j; v), over
    the entropy H(v). 1: one dimension tells all of a factor, and no other one anything; 0: two
    dimensions tell the same, as after a rotation, or none tells anything.

    Each dimension is cut into bins of equal width, so the estimate of each mutual information is
    too large by about (bins - 1)(values - 1) / (2 num_examples) nats, of which most cancels in the
    difference.

    Reference: Chen et al., 2018, Isolating sources of disentanglement in variational autoencoders,
        arXiv:1802.04942; bins as in Locatello et al., 2019, arXiv:1811.12359.

    Args:
        codes: `[num_examples, latent]`, at least two dimensions.
        factors: whole numbers, `[num_examples, num_factors]`.
        num_bins: of each dimension; by default 20, or as many as the factor with most values has.
        seed: of the bootstrap, whose error is returned.

    Example:
    >>> factors = np.random.default_rng(0).integers(10, size=(5000, 2))
    >>> mutual_information_gap(factors * [2.0, -1.0], factors).value > 0.99
    True
    """
    metrics = imported("sklearn.metrics", "The mutual information gap", "data")
    codes, factors = _expect_codes(codes, factors)
    if num_bins is None:
        num_bins = max(NUM_BINS, *(len(np.unique(factor)) for factor in factors.T))
    bins = _binned(codes, as_count(num_bins, "num_bins", at_least=2))

    def gap(bins: np.ndarray, factors: np.ndarray) -> float:
        information = np.array(
            [[metrics.mutual_info_score(v, z) for z in bins.T] for v in factors.T]
        )
        entropy = np.array([metrics.mutual_info_score(v, v) for v in factors.T])
        # A rare value may be in no example of a resample: nothing is told about the factor there.
        return _mean_gap(information / np.where(entropy > 0.0, entropy, 1.0)[:, np.newaxis])

    return bootstrapped(gap, (bins, factors), num_resamples=10, seed=seed)


def sap(
    codes: np.ndarray, factors: np.ndarray, *, categorical: Sequence[int] = (), seed: int = 0
) -> Estimate:
    """Return SAP: how much better one dimension predicts a factor linearly than the second best.

    The mean over factors of the difference of the two largest scores of single dimensions: the
    squared correlation with a factor whose values are numbers, the balanced accuracy of a linear
    classifier of one that is categorical. 0 after a rotation, and for noise; 1, or for categories
    1 - 1 / num_values, is the most. A dimension that turns back, or a factor that comes full circle
    as an orientation does, scores low although it may be told apart.

    Reference: Kumar et al., 2018, Variational inference of disentangled latent concepts from
        unlabeled observations, arXiv:1711.00848.

    Args:
        codes: `[num_examples, latent]`, at least two dimensions.
        factors: whole numbers, `[num_examples, num_factors]`.
        categorical: columns of `factors` whose values are names.
        seed: of the bootstrap, whose error is returned.

    Example:
    >>> factors = np.random.default_rng(0).integers(10, size=(5000, 2))
    >>> sap(factors * [2.0, -1.0], factors).value > 0.99
    True
    """
    codes, factors = _expect_codes(codes, factors)

    def gap(codes: np.ndarray, factors: np.ndarray) -> float:
        squared = _squared_correlations(codes, factors)
        for column in categorical:
            squared[column] = [_balanced_accuracy(z, factors[:, column]) for z in codes.T]
        return _mean_gap(squared)

    return bootstrapped(gap, (codes, factors), num_resamples=10, seed=seed)


class DCI(NamedTuple):
    """The three scores of `dci`, from 0 to 1; larger is better.

    Attributes:
        disentanglement: whether a dimension is important for one factor only.
        completeness: whether one dimension only is important for a factor.
        informativeness: how well all dimensions together predict the factors, on other examples.
    """

    disentanglement: float
    completeness: float
    informativeness: float


def dci(
    codes: np.ndarray,
    factors: np.ndarray,
    *,
    categorical: Sequence[int] = (),
    num_trees: int = 20,
    seed: int = 0,
) -> DCI:
    """Return disentanglement, completeness and informativeness (DCI).

    A random forest predicts each factor from the codes of half of the examples. R is the importance
    of dimension j for factor k in it. Disentanglement is 1 - H(R_j. / sum) / log(num_factors), the
    mean over dimensions weighted by their importance; completeness 1 - H(R_.k / sum) / log(latent),
    the mean over factors. Informativeness is the mean over factors of R squared on the other half,
    at least 0, or of the accuracy where a factor is categorical, whose chance level is not 0.

    Disentanglement and completeness are about what little was learned if informativeness is low.

    Reference: Eastwood & Williams, 2018, A framework for the quantitative evaluation of
        disentangled representations (ICLR), https://openreview.net/forum?id=By-7dz-AZ; it states an
        error where this states informativeness.

    Args:
        codes: `[num_examples, latent]`, at least two dimensions.
        factors: whole numbers, `[num_examples, num_factors]`, at least two of them.
        categorical: columns of `factors` whose values are names.
        num_trees: of each forest.
        seed: of the halves and the forests.

    Example:
    >>> factors = np.random.default_rng(0).integers(10, size=(1000, 2))
    >>> all(score > 0.95 for score in dci(factors * [2.0, -1.0], factors))
    True
    """
    ensemble = imported("sklearn.ensemble", "DCI", "data")
    codes, factors = _expect_codes(codes, factors, least_factors=2)
    order = np.random.default_rng(as_seed(seed)).permutation(len(codes))
    fitted, judged = np.array_split(order, 2)
    importances = []
    scores = []
    for column, values in enumerate(factors.T):
        kind = "Classifier" if column in categorical else "Regressor"
        # Each split looks at all dimensions: else those of noise would seem important.
        forest = getattr(ensemble, f"RandomForest{kind}")(
            num_trees, max_features=None, min_samples_leaf=5, random_state=seed
        )
        forest.fit(codes[fitted], values[fitted])
        importances.append(forest.feature_importances_)
        scores.append(max(0.0, forest.score(codes[judged], values[judged])))
    return DCI(*_order_of(np.transpose(importances)), float(np.mean(scores)))


def factor_vae_score(
    codes: np.ndarray,
    factors: np.ndarray,
    *,
    num_groups: int = 1000,
    group_size: int = 64,
    seed: int = 0,
) -> Estimate:
    """Return the FactorVAE score: how often the steadiest dimension of a group tells its factor.

    The examples of a group have the same value of one factor. The dimension whose variance in the
    group, relative to that over all examples, is the least votes for that factor. On half of the
    groups each dimension is given the factor of most of its votes; the score is the accuracy on the
    other half. Chance is 1 / num_factors; a rotation of independent factors of one distribution
    scores so, but one dimension that holds several factors can score high.

    Reference: Kim & Mnih, 2018, Disentangling by factorising, arXiv:1802.05983.

    Args:
        codes: `[num_examples, latent]`, at least two dimensions; constant ones never vote.
        factors: whole numbers, `[num_examples, num_factors]`, at least two of them.
        num_groups: how many groups, half of them to judge by.
        group_size: examples drawn for each, with replacement from those of the same value.
        seed: of the draws.

    Example:
    >>> factors = np.random.default_rng(0).integers(10, size=(5000, 2))
    >>> print(factor_vae_score(factors * [2.0, -1.0], factors))
    1.000 ± 0.000
    """
    codes, factors = _expect_codes(codes, factors, least_factors=2)
    deviations = codes.std(axis=0)
    if deviations.any():
        moving = deviations > 1e-6 * deviations.max()
        codes = codes[:, moving] / deviations[moving]

    def steadiest(rows: np.ndarray) -> np.ndarray:
        return codes[rows].var(axis=0).argmin()

    fixed, votes = _of_groups(steadiest, factors, num_groups, group_size, seed)
    half = as_count(num_groups, "num_groups", at_least=2) // 2
    counts = np.zeros([codes.shape[1], factors.shape[1]])
    np.add.at(counts, (votes[:half], fixed[:half]), 1)
    return mean_of(counts.argmax(axis=1)[votes[half:]] == fixed[half:])


def beta_vae_score(
    codes: np.ndarray,
    factors: np.ndarray,
    *,
    num_groups: int = 1000,
    group_size: int = 64,
    seed: int = 0,
) -> Estimate:
    """Return the beta-VAE score: the accuracy of a linear classifier of what pairs have in common.

    A group consists of pairs of examples with the same value of one factor; the classifier tells
    which factor by the mean absolute differences of their codes, and is judged on half of the
    groups. Chance is 1 / num_factors. The mildest of the scores: dimensions that hold several
    factors in different proportions can score 1.

    Reference: Higgins et al., 2017, beta-VAE (ICLR), https://openreview.net/forum?id=Sy2fzU9gl.

    Args:
        codes: `[num_examples, latent]`, at least two dimensions.
        factors: whole numbers, `[num_examples, num_factors]`, at least two of them.
        num_groups: how many groups, half of them to judge by.
        group_size: pairs in each, drawn with replacement from examples of the same value.
        seed: of the draws.

    Example:
    >>> factors = np.random.default_rng(0).integers(10, size=(5000, 2))
    >>> print(beta_vae_score(factors * [2.0, -1.0], factors))
    1.000 ± 0.000
    """
    linear = imported("sklearn.linear_model", "The beta-VAE score", "data")
    preprocessing = imported("sklearn.preprocessing", "The beta-VAE score", "data")
    codes, factors = _expect_codes(codes, factors, least_factors=2)

    def difference(rows: np.ndarray) -> np.ndarray:
        first, second = np.array_split(codes[rows], 2)
        return abs(first - second).mean(axis=0)

    fixed, differences = _of_groups(difference, factors, num_groups, 2 * group_size, seed)
    half = as_count(num_groups, "num_groups", at_least=2) // 2
    scaler = preprocessing.StandardScaler().fit(differences[:half])
    classifier = linear.LogisticRegression(max_iter=1000)
    classifier.fit(scaler.transform(differences[:half]), fixed[:half])
    return mean_of(classifier.predict(scaler.transform(differences[half:])) == fixed[half:])


def _of_groups(
    function: Callable[[np.ndarray], np.ndarray],
    factors: np.ndarray,
    num_groups: int,
    group_size: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw groups of examples, each with the same value of one factor.

    Returns: the column of that factor, and the function of the group's rows, for each group.
    """
    random = np.random.default_rng(as_seed(seed))
    size = as_count(group_size, "group_size", at_least=2)
    alike = [{value: np.flatnonzero(v == value) for value in np.unique(v)} for v in factors.T]
    fixed = random.integers(factors.shape[1], size=as_count(num_groups, "num_groups"))
    some = random.integers(len(factors), size=len(fixed))
    results = [
        function(random.choice(alike[column][factors[example, column]], size))
        for column, example in zip(fixed, some, strict=True)
    ]
    return fixed, np.array(results)


def _expect_codes(
    codes: np.ndarray, factors: np.ndarray, least_factors: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    codes = np.asarray(codes, "float64")
    factors = np.asarray(factors)
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors) or not len(codes):
        raise ValueError(
            "Expected codes [num_examples, latent] and factors [num_examples, num_factors], "
            f"received shapes {codes.shape} and {factors.shape}."
        )
    if codes.shape[1] < 2 or factors.shape[1] < least_factors:
        raise ValueError(
            f"This score compares dimensions and factors: expected at least 2 latent dimensions and "
            f"{least_factors} factors, received {codes.shape[1]} and {factors.shape[1]}."
        )
    if not np.isfinite(codes).all():
        raise ValueError("The codes hold NaN or infinity: the model has diverged. Train it anew.")
    if (factors != np.round(factors)).any():
        raise ValueError(
            "Factors must be whole numbers, one for each value; cut real numbers into bins first, "
            "as numpy.digitize does."
        )
    if constant := [column for column, v in enumerate(factors.T) if v.min() == v.max()]:
        raise ValueError(f"The factors {constant} have one value only. Leave them out.")
    return codes, factors.astype("int64")


def _binned(codes: np.ndarray, num_bins: int) -> np.ndarray:
    """Return the number of the bin of each code; the bins of a dimension are equally wide."""
    least, largest = codes.min(axis=0), codes.max(axis=0)
    width = np.where(largest > least, largest - least, 1.0) / num_bins
    return np.minimum((codes - least) / width, num_bins - 1).astype("int64")


def _mean_gap(scores: np.ndarray) -> float:
    """Return the mean over rows of the largest entry's lead over the second largest."""
    second, largest = np.sort(scores, axis=1)[:, -2:].T
    return float(np.mean(largest - second))


def _squared_correlations(codes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return R squared of each factor's regression on each dimension, `[num_factors, latent]`."""
    centred = codes - codes.mean(axis=0), factors - factors.mean(axis=0)
    z, v = (part / np.maximum(np.linalg.norm(part, axis=0), 1e-12) for part in centred)
    return (v.T @ z) ** 2


def _balanced_accuracy(z: np.ndarray, values: np.ndarray) -> float:
    """Return the balanced accuracy of a linear classifier of categories on one dimension; 0 if
    there is one category alone, as in a resample.
    """
    if values.min() == values.max():
        return 0.0
    linear = imported("sklearn.linear_model", "SAP", "data")
    metrics = imported("sklearn.metrics", "SAP", "data")
    scaled = ((z - z.mean()) / max(z.std(), 1e-12))[:, np.newaxis]
    classifier = linear.LogisticRegression(class_weight="balanced").fit(scaled, values)
    return float(metrics.balanced_accuracy_score(values, classifier.predict(scaled)))


def _order_of(importances: np.ndarray) -> tuple[float, float]:
    """Return disentanglement and completeness of importances, `[latent, num_factors]`."""
    total = max(importances.sum(), 1e-12)
    of_dimensions = 1.0 - _entropy(importances) / np.log(importances.shape[1])
    of_factors = 1.0 - _entropy(importances.T) / np.log(importances.shape[0])
    weights = importances.sum(axis=1) / total
    return float(weights @ of_dimensions), float(of_factors.mean())


def _entropy(weights: np.ndarray) -> np.ndarray:
    """Return the entropy of each row in proportion, in nats; the largest one for a row of zeros."""
    sums = weights.sum(axis=1, keepdims=True)
    p = np.where(sums > 0, weights, 1.0)
    p = p / p.sum(axis=1, keepdims=True)
    return -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=1)
