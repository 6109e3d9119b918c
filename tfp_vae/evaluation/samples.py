"""Sample quality: how near generated examples are to real ones, in the features of a classifier."""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_vae.batch import by_name, first, num_examples
from tfp_vae.checks import as_count, as_seed, imported
from tfp_vae.evaluation.errors import Estimate, bootstrapped, mean_of
from tfp_vae.vae import VAE

__all__ = [
    "Features",
    "frechet_distance",
    "mmd",
    "precision_recall",
    "sample_quality",
]

# Number of features of the classifier that is trained here, and of the units before them.
NUM_FEATURES = 32
HIDDEN_SIZE = 128


@dataclasses.dataclass(frozen=True)
class Features:
    """Features of examples in which they are compared: what a classifier knows before its answer.

    Numbers in features of one network cannot be compared with those in features of another, nor
    with published ones, which use Inception trained on ImageNet.

    Args:
        network: Keras model from x, `[batch, *event_shape]`, to features, `[batch, ...]`.
        name: what they are, in words.

    Call arguments:
        x: `[num_examples, *event_shape]`.

    Example:
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
    >>> features = Features.trained(x, np.int64(x[:, 0] > 0), epochs=2)
    >>> features(x).shape
    (60, 32)
    >>> features.name.partition(", accuracy")[0]
    'a small classifier of 2 labels trained here, not Inception'
    """

    network: keras.Model
    name: str

    @classmethod
    def of(cls, classifier: keras.Model, name: str = "a given classifier") -> "Features":
        """Return what the last layer with weights of any Keras classifier is given.

        Raises:
            ValueError: if no layer has weights, or the model is not one of known inputs.
        """
        weighted = [layer for layer in classifier.layers if layer.weights]
        if not weighted or not classifier.inputs:
            raise ValueError(
                f"{classifier.name} has no layer with weights, or no keras.Input, so that it has no "
                "features. Give a built classifier."
            )
        last = weighted[-1]
        features = last.input
        if isinstance(last, keras.Model):  # a network inside the network
            features = cls.of(last).network(features)
        return cls(keras.Model(classifier.inputs, features), name)

    @classmethod
    def trained(
        cls, x: np.ndarray, labels: np.ndarray, *, epochs: int = 20, seed: int = 0
    ) -> "Features":
        """Train a small classifier, two dense layers of 128 and 32 units, and return its features.

        Its name says that it is not Inception, and its accuracy on the last tenth of the examples,
        which it was not trained on.

        Args:
            x: `[num_examples, *event_shape]`, at least 20 examples.
            labels: `[num_examples]`; any numbers.
            epochs: passes over the first nine tenths.
            seed: of weights and order.
        """
        values, places = np.unique(labels, return_inverse=True)
        if len(values) < 2 or len(x) < 20 or len(x) != len(places):
            raise ValueError(
                "A classifier needs at least 20 examples of at least 2 labels, received "
                f"{len(x)} examples and {len(places)} labels of {len(values)} values."
            )
        classifier = _small_classifier(x, len(values), as_seed(seed))
        at = len(x) - len(x) // 10
        data = tf.data.Dataset.from_tensor_slices((x[:at], places[:at]))
        classifier.fit(
            data.shuffle(at, seed=seed).batch(100), epochs=epochs, shuffle=False, verbose=0
        )
        right = classifier.predict(x[at:], verbose=0).argmax(axis=-1) == places[at:]
        return cls.of(
            classifier,
            f"a small classifier of {len(values)} labels trained here, not Inception, accuracy "
            f"{np.mean(right):.2f}",
        )

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the features of examples as vectors, float64 `[num_examples, num_features]`."""
        values = self.network.predict(x, batch_size=500, verbose=0)
        return np.reshape(values, [len(x), -1]).astype("float64")


def _small_classifier(x: np.ndarray, num_labels: int, seed: int) -> keras.Model:
    def dense(units: int, number: int, activation: str | None = "relu") -> keras.layers.Dense:
        start = keras.initializers.HeNormal(seed=(seed + number) % 2**31)
        return keras.layers.Dense(units, activation, kernel_initializer=start)

    classifier = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            keras.layers.Flatten(),
            keras.layers.Rescaling(1.0 / max(float(np.std(x)), 1e-6)),
            dense(HIDDEN_SIZE, 0),
            dense(NUM_FEATURES, 1),
            dense(num_labels, 2, None),
        ]
    )
    classifier.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return classifier


def sample_quality(
    vae: VAE,
    x: Any,
    features: Features,
    *,
    held_out: Any = None,
    num_samples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Return `frechet_distance`, `precision`, `recall` and `mmd` of draws of a VAE from p(x).

    They are draws from p(x|z), not its means, since the data are draws too; those of a conditional
    model are made under the conditions of x. Equally many are compared, as the numbers depend on
    how many there are.

    Args:
        vae: a built VAE of an x without parts.
        x: test data as in `evaluate`, of which the first `num_samples` examples are used; memory
            grows with their square, as distances are between any two.
        features: in which the examples are compared.
        held_out: other real data, whose distance from x is returned too, as
            `frechet_distance_of_held_out`: what a perfect model would be about to reach. Not what a
            classifier was trained on, which it knows too well.
        num_samples: draws, examples of x, and of held-out data.
        seed: of the draws.

    Raises:
        ValueError: if x has several parts, or x or held-out data fewer than `num_samples` examples.
    """
    if vae.x.has_parts:
        raise ValueError("Samples of a table have no features: x must be one array.")
    number = as_count(num_samples, "num_samples", at_least=2)
    data = _first(x, number)
    given = {"condition": data["condition"]} if vae.is_conditional else {}
    drawn = features(vae.generate(number, seed=seed, draws=True, **given))
    real = features(data["x"])
    numbers = {"frechet_distance": frechet_distance(real, drawn, seed=seed)}
    if held_out is not None:
        other = features(_first(held_out, number)["x"])
        numbers["frechet_distance_of_held_out"] = frechet_distance(real, other, seed=seed)
    precision, recall = precision_recall(real, drawn)
    return {**numbers, "precision": precision, "recall": recall, "mmd": mmd(real, drawn)}


def _first(x, number: int) -> dict[str, np.ndarray]:
    data = by_name(first(x, number))
    if number > (found := num_examples(data)):
        raise ValueError(
            f"{number} samples are compared with equally many examples, but there are "
            f"{found} only. Take at most so many samples."
        )
    return data


def frechet_distance(real: np.ndarray, generated: np.ndarray, *, seed: int = 0) -> Estimate:
    """Return the Frechet distance of two sets of features, taken for normal.

    |m - n|^2 + tr(S + T - 2 (S T)^(1/2)), of the means m, n and the covariances S, T. At least 0,
    smaller is better, without a unit of its own. It is too large by an amount that falls as one over
    the number of examples, so compare only values of equally many; with fewer examples than ten
    times the features it is mostly that amount. It looks at means and covariances alone.

    Reference: Heusel et al., 2017, GANs trained by a two time-scale update rule, arXiv:1706.08500;
        with Inception's features it is the FID.

    Args:
        real: `[num_real, num_features]`.
        generated: `[num_generated, num_features]`.
        seed: of the bootstrap, whose error is returned.

    Example:
    >>> x = np.random.default_rng(0).normal(size=(1000, 2))
    >>> round(frechet_distance(x, x + [3.0, 4.0]).value, 6)
    25.0
    """
    real, generated = _expect_features(real, generated)
    return bootstrapped(_frechet_distance, (real,), (generated,), num_resamples=20, seed=seed)


def _frechet_distance(real: np.ndarray, generated: np.ndarray) -> float:
    mean, other_mean = real.mean(axis=0), generated.mean(axis=0)
    covariance, other_covariance = (
        np.atleast_2d(np.cov(part, rowvar=False)) for part in (real, generated)
    )
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(values.clip(0.0)) @ vectors.T
    # (S T)^(1/2) has the trace of (S^(1/2) T S^(1/2))^(1/2), which is symmetric.
    shared = np.sqrt(np.linalg.eigvalsh(root @ other_covariance @ root).clip(0.0)).sum()
    spread = np.trace(covariance) + np.trace(other_covariance) - 2.0 * shared
    return float(np.sum((mean - other_mean) ** 2) + spread)


def precision_recall(
    real: np.ndarray, generated: np.ndarray, *, num_neighbors: int = 3
) -> tuple[Estimate, Estimate]:
    """Return precision, the share of samples that look real, and recall, that of what is covered.

    A set's manifold is the union of balls around its points, each of which reaches to the point's
    k-th nearest neighbour of the same set. Precision is the share of generated points in the
    manifold of the real ones, recall the share of real points in that of the generated ones. From 0
    to 1, larger is better; a perfect model reaches less than 1. Both depend on the number of
    points, and one outlier can make a ball that takes in much: compare equal numbers only.

    Reference: Kynkaanniemi et al., 2019, Improved precision and recall metric for assessing
        generative models, arXiv:1904.06991.

    Args:
        real: `[num_real, num_features]`.
        generated: `[num_generated, num_features]`.
        num_neighbors: k.

    Example:
    >>> real, generated = np.array([[0.0], [1.0], [2.0]]), np.array([[0.5], [0.6], [9.0]])
    >>> [round(share.value, 2) for share in precision_recall(real, generated, num_neighbors=1)]
    [0.67, 0.67]
    """
    real, generated = _expect_features(real, generated)
    number = as_count(num_neighbors, "num_neighbors")
    if number >= min(len(real), len(generated)):
        raise ValueError(
            f"num_neighbors is {number}: more examples than that are needed, received {len(real)} "
            f"real and {len(generated)} generated ones."
        )
    return (
        mean_of(_is_in_manifold(generated, real, number)),
        mean_of(_is_in_manifold(real, generated, number)),
    )


def _is_in_manifold(points: np.ndarray, centres: np.ndarray, num_neighbors: int) -> np.ndarray:
    metrics = imported("sklearn.metrics", "Precision and recall", "data")
    own = np.sort(metrics.pairwise_distances(centres), axis=1)  # the first one is 0
    return (metrics.pairwise_distances(points, centres) <= own[:, num_neighbors]).any(axis=1)


def mmd(real: np.ndarray, generated: np.ndarray, *, bandwidth: float | None = None) -> Estimate:
    """Return the squared maximum mean discrepancy (MMD) of two sets of vectors, without bias.

    E k(x, x') + E k(y, y') - 2 E k(x, y) for k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2)), over
    pairs of different examples. 0 for equal distributions, at most 2, smaller is better; as it has
    no bias, the estimate may be below 0. Differences on scales far from the bandwidth are
    invisible.

    Reference: Gretton et al., 2012, A kernel two-sample test (JMLR 13), lemma 6.

    Args:
        real: `[num_real, num_features]`, at least two examples.
        generated: `[num_generated, num_features]`, at least two examples.
        bandwidth: of the kernel; by default the median distance of different examples of both sets
            together, which depends on the data: give a number to compare models.

    Returns: the estimate; its error is that of its linear part, and so too small where the
        distributions are nearly equal.

    Example:
    >>> x, y = np.random.default_rng(0).normal(size=(2, 500, 2))
    >>> abs(mmd(x, y).value) < 0.01, mmd(x, y + 1.0).value > 0.1
    (True, True)
    """
    metrics = imported("sklearn.metrics", "MMD", "data")
    real, generated = _expect_features(real, generated)
    if bandwidth is None:
        pooled = np.concatenate([real, generated])
        distances = metrics.pairwise_distances(pooled)
        bandwidth = float(np.median(distances[~np.eye(len(pooled), dtype=bool)]))
    if not 0.0 < bandwidth < np.inf:
        raise ValueError(f"The bandwidth must be a number above 0, received {bandwidth}.")

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return metrics.pairwise.rbf_kernel(x, y, gamma=0.5 / bandwidth**2)

    def among(x: np.ndarray) -> np.ndarray:
        """Return the mean kernel of each example with all others of its own set."""
        return (kernel(x, x).sum(axis=1) - 1.0) / (len(x) - 1)

    between = kernel(real, generated)
    of_real = among(real) - between.mean(axis=1)
    of_generated = among(generated) - between.mean(axis=0)
    error = 2.0 * np.sqrt(of_real.var() / len(real) + of_generated.var() / len(generated))
    return Estimate(float(of_real.mean() + of_generated.mean()), float(error))


def _expect_features(real, generated) -> tuple[np.ndarray, np.ndarray]:
    real, generated = (np.asarray(part, "float64") for part in (real, generated))
    for part in (real, generated):
        if part.ndim != 2 or len(part) < 2 or part.shape[1] != real.shape[1]:
            raise ValueError(
                "Expected two sets [num_examples, num_features] of at least two examples, received "
                f"shapes {real.shape} and {generated.shape}."
            )
        if not np.isfinite(part).all():
            raise ValueError("The features hold NaN or infinity.")
    return real, generated
