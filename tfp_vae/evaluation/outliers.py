"""Outliers: how unusual an example is for a VAE, and how well that tells two data sets apart.

A VAE may find foreign data likelier than its own, if they are simpler (Nalisnick et al., 2019,
arXiv:1810.09136): an AUROC below 0.5 is a finding, not a mistake. `typicality` is meant for that
case.
"""

from typing import Any

import numpy as np

from tfp_vae.checks import as_seed, imported
from tfp_vae.evaluation import bounds
from tfp_vae.evaluation.errors import Estimate, bootstrapped
from tfp_vae.surface import takes_frames
from tfp_vae.vae import VAE

__all__ = ["auroc", "negative_elbo", "negative_log_prob", "typicality"]


@takes_frames
def negative_elbo(vae: VAE, x: Any, *, batch_size: int = 500, verbose: int = 0) -> np.ndarray:
    """Return the score -ELBO of each example, `[num_examples]`, in nats; larger is more unusual.

    Data and `verbose` as in `evaluate`.
    It needs one draw of z for each example, and is an upper bound of -log p(x) in the mean.
    """
    return -bounds.elbo(vae, x, batch_size=batch_size, verbose=verbose)["elbo"]


@takes_frames
def negative_log_prob(
    vae: VAE,
    x: Any,
    *,
    num_samples: int = 100,
    batch_size: int = 500,
    seed: int = 0,
    verbose: int = 0,
) -> np.ndarray:
    """Return the score -log p(x) of each example, `[num_examples]`, in nats; larger is more unusual.

    Data and `verbose` as in `evaluate`. It is estimated by `importance_sampling`, and too large by an
    amount that falls with the number of samples. Examples far from the training data have the poorest estimates.
    """
    return -bounds.importance_sampling(
        vae, x, num_samples=num_samples, batch_size=batch_size, seed=seed, verbose=verbose
    )["log_prob"]


def typicality(scores: np.ndarray, training_scores: np.ndarray) -> np.ndarray:
    """Return how far each score is from the mean of the training data's, in nats, `[num_examples]`.

    Larger is more unusual: an example that is too likely counts as much as one that is too unlikely.

    Reference: Nalisnick et al., 2019, Detecting out-of-distribution inputs to deep generative models
        using typicality, arXiv:1906.02994, for batches of one example.

    Args:
        scores: `negative_log_prob` or `negative_elbo`, `[num_examples]`.
        training_scores: the same function of training data, whose mean estimates the entropy.

    >>> typicality(np.array([90.0, 100.0, 120.0]), np.array([99.0, 101.0]))
    array([10.,  0., 20.])
    """
    return abs(np.asarray(scores) - np.mean(training_scores))


def auroc(inside: np.ndarray, outside: np.ndarray, *, seed: int = 0) -> Estimate:
    """Return the area under the ROC curve: how often a foreign example's score is the larger one.

    The probability that the score of a random example of `outside` is above that of one of
    `inside`, ties counted half. 1: the scores tell all apart; 0.5: they tell nothing; below: foreign
    examples seem the more usual ones. It says nothing of what threshold to set.

    Reference: Hanley & McNeil, 1982, The meaning and use of the area under a receiver operating
        characteristic curve.

    Args:
        inside: scores of the model's own test data, larger for what is unusual, `[num_inside]`.
        outside: scores of other data, `[num_outside]`.
        seed: of the bootstrap, whose error is returned.

    Raises:
        ValueError: if a score is not finite, or there are none.

    Example:
    >>> print(auroc(np.array([1.0, 2.0, 3.0]), np.array([2.5, 4.0]), seed=1).value)
    0.8333333333333334
    """
    metrics = imported("sklearn.metrics", "AUROC", "data")
    scores = [np.asarray(part, "float64") for part in (inside, outside)]
    for name, part in zip(("inside", "outside"), scores, strict=True):
        if part.ndim != 1 or not part.size or not np.isfinite(part).all():
            raise ValueError(
                f"The scores {name} must be finite numbers [num_examples], received shape "
                f"{part.shape}, {np.sum(~np.isfinite(part))} of them not finite."
            )

    def area(own: np.ndarray, foreign: np.ndarray) -> float:
        is_foreign = np.repeat([0, 1], [len(own), len(foreign)])
        return float(metrics.roc_auc_score(is_foreign, np.concatenate([own, foreign])))

    return bootstrapped(area, (scores[0],), (scores[1],), seed=as_seed(seed))
