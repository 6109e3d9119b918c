"""Probes: how well codes predict labels that the VAE has not seen."""

import numpy as np

from tfp_vae.checks import as_count, imported
from tfp_vae.evaluation.errors import Estimate, mean_of

__all__ = ["knn", "linear_probe"]


def linear_probe(
    codes: np.ndarray, labels: np.ndarray, test_codes: np.ndarray, test_labels: np.ndarray
) -> Estimate:
    """Return the accuracy of logistic regression from codes to labels, on other examples.

    From 0 to 1, larger is better; chance is the share of the commonest label. The codes are
    standardized by dimension, and scikit-learn's usual penalty (L2, C = 1) is applied. Low accuracy
    may mean that the labels are there, but not as half-spaces: compare `knn`.

    Reference: Alain & Bengio, 2016, Understanding intermediate layers using linear classifier
        probes, arXiv:1610.01644.

    Args:
        codes: `[num_examples, latent]`, such as `posterior_means` of the training data.
        labels: whole numbers, `[num_examples]`.
        test_codes: of the examples to judge by, `[num_test, latent]`.
        test_labels: theirs, `[num_test]`.

    Example:
    >>> codes = np.random.default_rng(0).normal(size=(400, 2))
    >>> labels = np.int64(codes[:, 0] > 0)
    >>> linear_probe(codes[:200], labels[:200], codes[200:], labels[200:]).value > 0.95
    True
    """
    linear = imported("sklearn.linear_model", "A linear probe", "data")
    return _accuracy(
        linear.LogisticRegression(max_iter=1000), codes, labels, test_codes, test_labels
    )


def knn(
    codes: np.ndarray,
    labels: np.ndarray,
    test_codes: np.ndarray,
    test_labels: np.ndarray,
    *,
    num_neighbors: int = 5,
) -> Estimate:
    """Return the accuracy of the vote of the nearest codes, on other examples.

    From 0 to 1, larger is better; chance is the share of the commonest label. Distances are
    Euclidean between codes standardized by dimension, so that a dimension of noise counts as much
    as any other: many of them lower the accuracy. All codes are in memory, and compared with each
    other.

    Args:
        codes: `[num_examples, latent]`, such as `posterior_means` of the training data.
        labels: whole numbers, `[num_examples]`.
        test_codes: of the examples to judge by, `[num_test, latent]`.
        test_labels: theirs, `[num_test]`.
        num_neighbors: how many codes vote.

    Example:
    >>> codes = np.random.default_rng(0).normal(size=(400, 2))
    >>> labels = np.int64(codes[:, 0] > 0)
    >>> knn(codes[:200], labels[:200], codes[200:], labels[200:]).value > 0.9
    True
    """
    neighbors = imported("sklearn.neighbors", "A vote of neighbours", "data")
    number = as_count(num_neighbors, "num_neighbors")
    if number > len(codes):
        raise ValueError(f"num_neighbors is {number}, but there are {len(codes)} codes only.")
    return _accuracy(neighbors.KNeighborsClassifier(number), codes, labels, test_codes, test_labels)


def _accuracy(classifier, codes, labels, test_codes, test_labels) -> Estimate:
    preprocessing = imported("sklearn.preprocessing", "A probe", "data")
    if len(codes) != len(labels) or len(test_codes) != len(test_labels):
        raise ValueError(
            f"Expected a label for each code, received {len(labels)} for {len(codes)} codes and "
            f"{len(test_labels)} for {len(test_codes)}."
        )
    if len(np.unique(labels)) < 2:
        raise ValueError("The labels have one value only, so there is nothing to tell apart.")
    scaler = preprocessing.StandardScaler().fit(codes)
    classifier.fit(scaler.transform(codes), labels)
    return mean_of(classifier.predict(scaler.transform(test_codes)) == test_labels)
