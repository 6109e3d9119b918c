"""Scores of codes, samples, outliers and predictions, on data for which they are known."""

import keras
import numpy as np
import pytest
from scipy import stats
from sklearn import datasets as sklearn_datasets
from sklearn.feature_selection import r_regression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score

import tfp_vae
from tests.conftest import make_vae
from tfp_vae import evaluation, networks, priors
from tfp_vae import layers as tfpl
from tfp_vae.evaluation import disentanglement, errors, samples

NUM = 3000
NUM_FACTORS = 4
VALUES = 10


def draw(seed=0, *shape):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.fixture(scope="module")
def factors():
    """Four independent factors of ten values, all equally often."""
    return np.random.default_rng(1).integers(VALUES, size=(NUM, NUM_FACTORS))


def standard(factors):
    return (factors - factors.mean(0)) / factors.std(0)


# A rotation whose entries are all equal up to their sign: each dimension holds all factors alike.
HADAMARD = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
CODES = {
    "perfect": lambda v: standard(v) * [1.0, -2.0, 30.0, 0.5],
    "perfect, permuted, with noise beside": lambda v: np.hstack(
        [draw(3, NUM, 3), standard(v)[:, ::-1]]
    ),
    "perfect, with a constant beside": lambda v: np.hstack([np.ones([NUM, 1]), standard(v)]),
    "rotated": lambda v: standard(v) @ HADAMARD,
    "noise": lambda v: draw(2, NUM, NUM_FACTORS),
}
# Of one-to-one codes, and of codes in which no dimension stands out: chance is one of four factors.
SCORES = {
    "mutual_information_gap": (0.0, evaluation.mutual_information_gap),
    "sap": (0.0, evaluation.sap),
    "disentanglement": (0.0, lambda z, v: (evaluation.dci(z, v).disentanglement, np.nan)),
    "completeness": (0.0, lambda z, v: (evaluation.dci(z, v).completeness, np.nan)),
    "factor_vae_score": (0.25, evaluation.factor_vae_score),
    "beta_vae_score": (0.25, evaluation.beta_vae_score),
}


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("score", SCORES)
def test_disentanglement_of_codes_for_which_it_is_known(score, codes, factors):
    chance, function = SCORES[score]
    value, error = function(CODES[codes](factors), factors)
    if codes.startswith("perfect"):
        assert 0.97 < value <= 1.0
    else:
        assert value == pytest.approx(chance, abs=0.08)
    assert np.isnan(error) or 0.0 <= error < 0.03


def test_informativeness_does_not_mind_a_rotation_but_noise(factors):
    of = {name: evaluation.dci(CODES[name](factors), factors).informativeness for name in CODES}
    assert of["perfect"] > 0.99
    assert of["rotated"] > 0.9
    assert of["noise"] < 0.02


def test_scores_of_groups_do_not_see_an_unequal_mixture(factors):
    """After a turn by 30 degrees each dimension holds both factors, one more than the other."""
    v, turn = factors[:, :2], np.radians(30)
    z = standard(v) @ [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
    assert evaluation.factor_vae_score(z, v).value > 0.99
    assert evaluation.beta_vae_score(z, v).value > 0.99
    assert evaluation.mutual_information_gap(z, v).value < 0.35
    assert evaluation.sap(z, v).value == pytest.approx(np.cos(2 * turn), abs=0.05)


def test_codes_that_say_nothing_are_at_chance(factors):
    constant = np.zeros([NUM, 3])
    assert evaluation.factor_vae_score(constant, factors).value == pytest.approx(0.25, abs=0.08)
    assert evaluation.mutual_information_gap(constant, factors).value == 0.0


def test_a_value_so_rare_that_resamples_miss_it():
    v = (np.arange(20) == 3).astype(int)[:, np.newaxis]
    z = np.hstack([v, draw(6, 20)[:, np.newaxis]]).astype(float)
    for score in (
        evaluation.sap(z, v, categorical=[0]),
        evaluation.mutual_information_gap(z, v, num_bins=2),
    ):
        assert score.value > 0.1
        assert 0.0 < score.error < 1.0


def test_a_dimension_of_two_factors_is_complete_but_not_disentangled(factors):
    z = np.stack([factors[:, 0] * 10.0 + factors[:, 1], draw(5, NUM)], axis=1)
    dci = evaluation.dci(z, factors[:, :2])
    assert dci.disentanglement < 0.2
    assert dci.completeness > 0.9


def test_mutual_information_gap_is_its_formula(factors):
    """Of a factor of two bits: each dimension tells one; then one tells both, and the other one."""
    v = np.random.default_rng(0).integers(4, size=(NUM, 1))
    bits = np.hstack([v // 2, v % 2]).astype("float64")
    assert evaluation.mutual_information_gap(bits, v).value == pytest.approx(0, abs=0.01)
    all_and_half = np.hstack([v, v // 2]).astype("float64")
    assert evaluation.mutual_information_gap(all_and_half, v).value == pytest.approx(0.5, abs=0.01)
    z = CODES["rotated"](factors)
    bins = disentanglement._binned(z, 20)
    tops = [
        sorted(mutual_info_score(v, z) / stats.entropy(np.bincount(v)) for z in bins.T)
        for v in factors.T
    ]
    expected = np.mean([top[-1] - top[-2] for top in tops])
    assert evaluation.mutual_information_gap(z, factors).value == pytest.approx(expected)


def test_sap_is_its_formula(factors):
    z = standard(factors)[:, :2] @ np.array([[3.0, 1.0], [1.0, 1.0]])  # correlations are known
    expected = np.mean([9 / 10 - 1 / 2, 1 / 2 - 1 / 10])
    assert evaluation.sap(z, factors[:, :2]).value == pytest.approx(expected, abs=0.03)
    np.testing.assert_allclose(
        disentanglement._squared_correlations(z, factors[:, :1])[0],
        r_regression(z, factors[:, 0]) ** 2,
    )
    names = np.random.default_rng(0).integers(3, size=NUM)  # each of three names at its own place
    z = np.stack([np.array([5.0, 0.0, 9.0])[names] + draw(1, NUM) / 9, draw(2, NUM)], 1)
    found = evaluation.sap(z, names[:, np.newaxis], categorical=[0]).value
    assert found == pytest.approx(1 - 1 / 3, abs=0.05)


@pytest.mark.parametrize(
    ("importances", "expected"),
    [
        (np.eye(3), (1.0, 1.0)),
        (np.ones([3, 3]), (0.0, 0.0)),
        # One dimension for two factors: of them H = log 2; each factor has one dimension.
        (np.array([[1.0, 1.0], [0.0, 0.0]]), (0.0, 1.0)),
        # Two dimensions for each factor, of four.
        (np.repeat(np.eye(2), 2, axis=0), (1.0, 0.5)),
        (np.zeros([2, 2]), (0.0, 0.0)),
        (np.array([[3.0, 1.0], [0.0, 4.0]]), None),
    ],
)
def test_dci_is_its_formula(importances, expected):
    if expected is None:  # by SciPy's entropy, in base of the number of factors and of dimensions
        of_rows = 1 - stats.entropy(importances, base=importances.shape[1], axis=1)
        of_columns = 1 - stats.entropy(importances, base=importances.shape[0], axis=0)
        weights = importances.sum(1) / importances.sum()
        expected = weights @ of_rows, of_columns.mean()
    np.testing.assert_allclose(disentanglement._order_of(importances), expected, atol=1e-12)


def test_the_factor_vae_score_is_its_formula(factors):
    """One dimension tells one of two factors, and the other one nothing: of the second factor's groups
    each dimension is the steadier one half of the time, so that three quarters of the votes are right.
    """
    v = factors[:, :2]
    z = np.stack([v[:, 0], draw(5, NUM)], 1).astype("float64")
    assert evaluation.factor_vae_score(z, v).value == pytest.approx(0.75, abs=0.06)
    z = CODES["rotated"](factors)
    groups = []
    fixed, _ = disentanglement._of_groups(
        lambda rows: groups.append(rows) or 0, factors, 200, 64, 0
    )
    variances = z.var(0)
    votes = [
        min(range(z.shape[1]), key=lambda j: z[rows, j].var() / variances[j]) for rows in groups
    ]
    of_dimension = [
        max(
            range(factors.shape[1]),
            key=lambda k: sum(
                one == j and own == k for one, own in zip(votes[:100], fixed[:100], strict=True)
            ),
        )
        for j in range(z.shape[1])
    ]
    expected = np.mean(
        [of_dimension[one] == own for one, own in zip(votes[100:], fixed[100:], strict=True)]
    )
    assert evaluation.factor_vae_score(z, factors, num_groups=200).value == pytest.approx(expected)


def test_the_beta_vae_score_is_its_formula(factors):
    """The classifier is scikit-learn's; what it sees are mean differences of pairs."""
    z = standard(factors) + 2.0 * draw(6, *factors.shape)
    groups = []
    fixed, _ = disentanglement._of_groups(
        lambda rows: groups.append(rows) or 0, factors, 200, 128, 0
    )
    seen = np.array(
        [
            np.mean([abs(z[i] - z[j]) for i, j in zip(rows[:64], rows[64:], strict=True)], 0)
            for rows in groups
        ]
    )
    seen = (seen - seen[:100].mean(0)) / seen[:100].std(0)
    classifier = LogisticRegression(max_iter=1000).fit(seen[:100], fixed[:100])
    found = evaluation.beta_vae_score(z, factors, num_groups=200).value
    assert 0.3 < found < 0.95
    assert found == pytest.approx(classifier.score(seen[100:], fixed[100:]))


def test_categorical_factors_are_predicted_as_categories():
    names = np.random.default_rng(0).integers(3, size=(NUM, 2))
    z = np.array([[0.0, 5.0, 1.0]]).T[names, 0]  # not in the order of the numbers
    assert evaluation.dci(z, names, categorical=[0, 1]).informativeness > 0.99


Z, V = draw(0, 20, 2), np.arange(40).reshape(20, 2) % 3


@pytest.mark.parametrize(
    ("function", "codes", "factors", "words"),
    [
        (evaluation.sap, Z[:5], V, r"received shapes \(5, 2\) and \(20, 2\)"),
        (evaluation.sap, Z[:, :1], V, "expected at least 2 latent dimensions and 1 factors"),
        (evaluation.dci, Z, V[:, :1], "2 factors, received 2 and 1"),
        (evaluation.mutual_information_gap, Z * np.nan, V, "NaN or infinity"),
        (evaluation.factor_vae_score, Z, V / 2, "must be whole numbers"),
        (evaluation.beta_vae_score, Z, V * 0, r"The factors \[0, 1\] have one value only"),
    ],
)
def test_codes_and_factors_that_have_no_score(function, codes, factors, words):
    with pytest.raises(ValueError, match=words):
        function(codes, factors)


# Probes


def test_probes_of_separable_codes_of_noise_and_of_two_normals():
    labels = np.random.default_rng(0).integers(2, size=4000)
    noise = draw(1, 4000, 3)
    both = {
        "separable": (noise + 20 * labels[:, np.newaxis], 1.0),
        "noise": (noise, 0.5),
        "two normals": (noise + [2.0, 0, 0] * labels[:, np.newaxis], stats.norm.cdf(1.0)),
    }
    for z, accuracy in both.values():
        split = z[:2000], labels[:2000], z[2000:], labels[2000:]
        probe, nearest = evaluation.linear_probe(*split), evaluation.knn(*split, num_neighbors=51)
        for found in (probe, nearest):
            assert found.value == pytest.approx(accuracy, abs=3 * found.error + 0.01)
        error = np.sqrt(probe.value * (1 - probe.value) / 2000)
        assert probe.error == pytest.approx(error, rel=1e-3)


def test_a_linear_probe_is_scikit_learns_and_blind_to_a_ring():
    x, y = sklearn_datasets.make_circles(600, noise=0.05, factor=0.3, random_state=0)
    split = x[:400], y[:400], x[400:], y[400:]
    assert evaluation.linear_probe(*split).value < 0.65 < 0.95 < evaluation.knn(*split).value
    x, y = sklearn_datasets.load_iris(return_X_y=True)
    scaled = (x - x[::2].mean(0)) / x[::2].std(0)
    expected = LogisticRegression(max_iter=1000).fit(scaled[::2], y[::2])
    found = evaluation.linear_probe(x[::2], y[::2], x[1::2], y[1::2]).value
    assert found == pytest.approx(expected.score(scaled[1::2], y[1::2]))


@pytest.mark.parametrize(
    ("probe", "labels", "words"),
    [
        (evaluation.knn, np.arange(10) % 2, "num_neighbors is 5, but there are 4 codes"),
        (evaluation.linear_probe, np.zeros(10), "one value only"),
        (evaluation.linear_probe, np.arange(9) % 2, "a label for each code"),
    ],
)
def test_probes_that_are_impossible(probe, labels, words):
    with pytest.raises(ValueError, match=words):
        probe(draw(0, 4, 2), labels[:4], draw(1, 6, 2), labels[4:])


# Outliers


@pytest.mark.parametrize("distance", [0.0, 1.0, -2.0])
def test_auroc_of_two_normals(distance):
    own, foreign = draw(0, 3000), draw(1, 2000) + distance
    found = evaluation.auroc(own, foreign)
    assert found.value == pytest.approx(stats.norm.cdf(distance / np.sqrt(2)), abs=3 * found.error)
    # The error of Hanley & McNeil, 1982, equation 1, for two exponential distributions, is near it.
    a, m, n = found.value, 2000, 3000
    squares = (m - 1) * (a / (2 - a) - a**2) + (n - 1) * (2 * a**2 / (1 + a) - a**2)
    assert found.error == pytest.approx(np.sqrt((a * (1 - a) + squares) / (m * n)), rel=0.4)


def test_outliers_of_a_trained_model(trained_vae, digits):
    """Noise of the same brightness is unusual, images of nothing are too likely: typicality knows both."""
    noise = np.random.default_rng(0).permuted(digits.test.reshape(180, 64), axis=1)
    noise = noise.reshape(digits.test.shape)
    of_test = evaluation.negative_elbo(trained_vae, digits.test)
    np.testing.assert_allclose(of_test, -evaluation.elbo(trained_vae, digits.test)["elbo"])
    assert evaluation.auroc(of_test, evaluation.negative_elbo(trained_vae, noise)).value > 0.95
    better = evaluation.negative_log_prob(trained_vae, digits.test, num_samples=20)
    assert better.mean() == pytest.approx(
        evaluation.nll(trained_vae, digits.test, num_samples=20).value, rel=1e-5
    )
    of_training = evaluation.negative_elbo(trained_vae, digits.train)
    too_likely = of_training.mean() - 5 * of_training.std() + np.zeros(50)
    assert evaluation.auroc(of_test, too_likely).value == 0.0
    distances = (evaluation.typicality(part, of_training) for part in (of_test, too_likely))
    assert evaluation.auroc(*distances).value > 0.9


def test_scores_that_are_none():
    with pytest.raises(ValueError, match="scores outside must be finite numbers"):
        evaluation.auroc(np.zeros(3), np.array([np.nan]))


# Sample quality


def exactly(mean, covariance, num=400):
    """Points whose mean and covariance are exactly these."""
    x = draw(0, num, len(mean))
    x = x - x.mean(0)
    white = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    return white @ np.linalg.cholesky(np.asarray(covariance, "float64")).T + mean


def test_frechet_distance_of_normals_is_its_closed_form():
    one = exactly([0.0, 0.0], np.diag([4.0, 9.0]))
    assert evaluation.frechet_distance(one, one).value == pytest.approx(0.0, abs=1e-9)
    other = exactly([1.0, 2.0], np.diag([1.0, 25.0]))
    assert evaluation.frechet_distance(one, other).value == pytest.approx(5 + 1 + 4)
    s, t = np.array([[2.0, 0.8], [0.8, 1.0]]), np.array([[1.0, -0.3], [-0.3, 3.0]])
    # Of a matrix of two dimensions, tr M^(1/2) = (tr M + 2 (det M)^(1/2))^(1/2).
    root = np.sqrt(np.trace(s @ t) + 2 * np.sqrt(np.linalg.det(s @ t)))
    found = evaluation.frechet_distance(exactly([0, 0], s), exactly([0, 0], t)).value
    assert found == pytest.approx(np.trace(s + t) - 2 * root)
    flat = one * [1.0, 0.0]  # a covariance without full rank
    assert evaluation.frechet_distance(one, flat).value == pytest.approx(9.0)


def test_the_error_of_frechet_distance_is_its_scatter():
    found = [
        evaluation.frechet_distance(draw(i, 300, 2), draw(i + 100, 300, 2) + 1) for i in range(60)
    ]
    values, errors = np.transpose(found)
    assert errors.mean() == pytest.approx(values.std(), rel=0.3)


def gaussian_kernel_mean(distance, variances, bandwidth, dim):
    """E exp(-|x - y|^2 / (2 h^2)) of normals with these variances, a distance apart in one dimension."""
    spread = bandwidth**2 + variances
    return (bandwidth**2 / spread) ** (dim / 2) * np.exp(-(distance**2) / (2 * spread))


@pytest.mark.parametrize(("distance", "scale"), [(0.0, 1.0), (1.0, 1.0), (0.0, 2.0)])
def test_mmd_of_normals_is_its_closed_form_without_bias(distance, scale):
    dim, bandwidth = 3, 1.5
    expected = (
        gaussian_kernel_mean(0, 2.0, bandwidth, dim)
        + gaussian_kernel_mean(0, 2 * scale**2, bandwidth, dim)
        - 2 * gaussian_kernel_mean(distance, 1 + scale**2, bandwidth, dim)
    )
    found = []
    for i in range(100):
        x, y = draw(i, 50, dim), draw(1000 + i, 70, dim) * scale
        y[:, 0] += distance
        found.append(evaluation.mmd(x, y, bandwidth=bandwidth))
    values, errors = np.transpose(found)
    assert values.mean() == pytest.approx(expected, abs=4 * values.std() / 10)
    assert errors.mean() == pytest.approx(values.std(), rel=0.5)
    if not distance and scale == 1.0:
        assert values.min() < 0.0


def test_the_usual_bandwidth_is_the_median_distance():
    x, y = draw(0, 40, 2), draw(1, 30, 2)
    distances = np.linalg.norm(np.vstack([x, y])[:, None] - np.vstack([x, y]), axis=-1)
    median = np.median(distances[np.triu_indices(70, 1)])
    np.testing.assert_allclose(evaluation.mmd(x, y), evaluation.mmd(x, y, bandwidth=median))


def test_precision_and_recall_of_points_on_a_line():
    """Three real points cover [-1, 3]; the balls of the generated ones are worked out by hand."""
    real, generated = np.array([[0.0], [1.0], [2.0]]), np.array([[3.0], [3.5], [-1.1], [-1.2]])
    precision, recall = evaluation.precision_recall(real, generated, num_neighbors=1)
    assert (precision.value, recall.value) == (0.25, 0.0)
    precision, recall = evaluation.precision_recall(real, generated, num_neighbors=2)
    assert (precision.value, recall.value) == (1.0, 1.0)


def test_precision_and_recall_tell_lost_modes_from_bad_samples():
    centres = np.array([[0.0, 0.0], [50.0, 0.0]])
    real = draw(0, 1000, 2) + centres[np.arange(1000) % 2]
    samples = {
        "same": (draw(1, 1000, 2) + centres[np.arange(1000) % 2], 0.95, 0.95),
        "one mode lost": (draw(1, 1000, 2), 0.95, 0.48),
        "half are bad": (draw(1, 1000, 2) + np.array([[0, 0], [0, 99]])[np.arange(1000) % 2], 0.48, 0.48),
    }  # fmt: skip
    for points, *expected in samples.values():
        found = [share.value for share in evaluation.precision_recall(real, points)]
        np.testing.assert_allclose(found, expected, atol=0.05)


def test_features_are_what_the_last_layer_is_given():
    x = draw(0, 30, 4)
    given = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2), keras.layers.Softmax()]
    )
    features = samples.Features.of(given, "mine")
    wrapped = keras.Sequential([keras.Input((4,)), keras.layers.Rescaling(2.0), given])
    np.testing.assert_allclose(samples.Features.of(wrapped)(x), features(2.0 * x), rtol=1e-5)
    np.testing.assert_allclose(features(x), given.layers[0](x), atol=1e-6)
    with pytest.raises(ValueError, match="no layer with weights"):
        samples.Features.of(keras.Sequential([keras.Input((4,)), keras.layers.Flatten()]))


@pytest.mark.slow
def test_the_classifier_trained_here_knows_digits_and_leaves_the_seeds_alone():
    x, labels = sklearn_datasets.load_digits(return_X_y=True)
    before = np.random.get_state()[1].copy()
    features = evaluation.Features.trained(x, labels)
    assert (np.random.get_state()[1] == before).all()
    words, accuracy = features.name.rsplit(" ", 1)
    assert words == "a small classifier of 10 labels trained here, not Inception, accuracy"
    assert float(accuracy) > 0.9
    first, again = (evaluation.Features.trained(x, labels, epochs=1)(x[:9]) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    with pytest.raises(ValueError, match="at least 20 examples of at least 2 labels"):
        evaluation.Features.trained(x, 0 * labels)


@pytest.mark.slow
def test_sample_quality_orders_models(trained_vae, digits):
    """By all four numbers a trained model is nearer to the data than one that is not."""
    pixels = evaluation.Features(
        keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()]), ""
    )
    options = {"num_samples": 180, "held_out": digits.validation}
    good, bad = (
        evaluation.sample_quality(vae, digits.test, pixels, **options)
        for vae in (trained_vae, make_vae())
    )
    assert good["frechet_distance"].value < 0.7 * bad["frechet_distance"].value
    assert good["frechet_distance_of_held_out"].value < good["frechet_distance"].value
    assert good["frechet_distance_of_held_out"] == bad["frechet_distance_of_held_out"]
    assert good["mmd"].value < 0.7 * bad["mmd"].value
    assert good["precision"].value > bad["precision"].value
    assert good["recall"].value >= bad["recall"].value


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (evaluation.mmd, (Z, Z[:, :1]), r"received shapes \(20, 2\) and \(20, 1\)"),
        (evaluation.frechet_distance, (Z, Z[:1]), "at least two examples"),
        (evaluation.frechet_distance, (Z, Z * np.inf), "NaN or infinity"),
        (evaluation.precision_recall, (Z, Z[:3]), "num_neighbors is 3: more examples than that"),
        (evaluation.mmd, (Z * 0, Z * 0), "bandwidth must be a number above 0, received 0.0"),
    ],
)
def test_features_that_have_no_distance(function, arguments, words):
    with pytest.raises(ValueError, match=words):
        function(*arguments)


# Predictions


def set_units(vae, kernel, bias):
    """Give the last dense layer of the encoder these weights."""
    network = vae.encoder.layers[0].layers[-1]
    network.set_weights([kernel * network.get_weights()[0], bias + 0 * network.get_weights()[1]])


def test_kl_by_dimension_sums_to_the_kl_and_finds_what_has_collapsed(trained_vae, digits):
    kl = evaluation.kl_by_dimension(trained_vae, digits.test)["z"]
    whole = evaluation.elbo(trained_vae, digits.test)["kl"].mean()
    assert kl.sum() == pytest.approx(whole, rel=1e-5)
    vae = make_vae()
    set_units(vae, np.array([1, 1, 0, 0, 0, 0, 0, 0]), np.zeros(8))
    scales = evaluation.kl_by_dimension(vae, digits.test)["z"]
    assert (scales[:2] > scales[2:].max() + 0.01).all()
    assert scales[2] == pytest.approx(scales[3])


def test_what_does_not_factorize_has_one_kl_for_all_dimensions(digits):
    for parts in (
        {"prior": priors.NormalMixture(4, num_components=2)},
        {"posterior": tfpl.MultivariateNormalTriL},
    ):
        assert evaluation.kl_by_dimension(make_vae(**parts), digits.test[:10])["z"].shape == (1,)


def test_reconstruction_errors_are_squared_differences(trained_vae, digits):
    x = digits.test[:30]
    errors = evaluation.reconstruction_errors(trained_vae, x, batch_size=8)["x"]
    expected = ((x - trained_vae.reconstruct(x)) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(errors, expected, rtol=1e-4)


def test_reconstruction_errors_leave_out_what_is_missing():
    vae = make_vae((6,), 2, tfpl.IndependentNormal, missing=True)
    x = draw(0, 12, 6).astype("float32")
    mask = np.arange(6) != 2
    gaps = np.where(mask, x, np.nan)
    expected = ((gaps - vae.reconstruct(gaps)) ** 2)[:, mask].mean(1)
    masked = {"x": x, "mask": np.broadcast_to(mask, x.shape).astype("float32")}
    for data in (gaps, masked):
        errors = evaluation.reconstruction_errors(vae, data)["x"]
        np.testing.assert_allclose(errors, expected, rtol=1e-4)


def test_reconstruction_errors_of_names_are_shares():
    posterior, likelihood = (
        tfpl.MultivariateNormalDiag(2),
        tfpl.IndependentCategorical(5, num_categories=3),
    )
    encoder = keras.Sequential([networks.mlp((5,), 4), posterior])
    decoder = keras.Sequential(
        [networks.mlp((2,), likelihood.params_size(5, num_categories=3)), likelihood]
    )
    vae = tfp_vae.VAE(encoder, decoder)
    x = np.random.default_rng(0).integers(3, size=(20, 5)).astype("float32")
    errors = evaluation.reconstruction_errors(vae, x)["x"]
    np.testing.assert_allclose(errors, (x != vae.reconstruct(x)).mean(1), rtol=1e-6)


def linear_vae(scale):
    """Of p(x) = N(0, scale^2) in 3 dimensions whatever z is."""
    vae = make_vae((3,), 2, tfpl.IndependentNormal)
    for layer in (vae.encoder, vae.decoder):
        network = layer.layers[0].layers[-1]
        network.set_weights([0 * weight for weight in network.get_weights()])
    softplus_inverse = float(np.log(np.expm1(scale)))
    network = vae.decoder.layers[0].layers[-1]
    network.set_weights([network.get_weights()[0], np.array([0, 0, 0, *3 * [softplus_inverse]])])
    return vae


@pytest.mark.parametrize("from_posterior", [False, True])
def test_predictive_checks_pass_the_true_model_and_find_what_is_wrong(from_posterior):
    vae = linear_vae(2.0)
    data = standard(draw(7, 200, 3))
    options = {"num_replications": 40, "from_posterior": from_posterior}
    true = evaluation.predictive_check(vae, 2.0 * data, **options)
    assert all(check.p_value > 0.05 for check in true.values()), true
    check = true["deviation"]
    assert check.mean == pytest.approx(2.0, abs=0.03)
    assert check.deviation == pytest.approx(2.0 / np.sqrt(2 * 600), rel=0.4)
    wrong = evaluation.predictive_check(vae, 2.4 * data, **options)
    least = 2 / 41
    assert wrong["deviation"].p_value == pytest.approx(least)
    assert wrong["mean"].p_value > 0.05


@pytest.mark.slow
def test_p_values_of_the_true_model_are_uniform():
    vae = linear_vae(1.0)
    own = {"median": np.median}
    p = [
        evaluation.predictive_check(vae, draw(seed, 20, 3), own, num_replications=39, seed=seed)[
            "median"
        ].p_value
        for seed in range(60)
    ]
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_a_check_needs_finite_statistics(trained_vae, digits):
    with pytest.raises(ValueError, match="statistics odd of the data are not finite"):
        evaluation.predictive_check(trained_vae, digits.test, {"odd": lambda x: np.nan})


# Estimates


def test_errors_are_those_of_the_mean():
    x = draw(0, 1000) * 3.0
    of_mean = errors.mean_of(x)
    assert of_mean.error == pytest.approx(stats.sem(x))
    resampled = errors.bootstrapped(lambda x: float(x.mean()), (x,), num_resamples=400)
    assert resampled == (of_mean.value, pytest.approx(of_mean.error, rel=0.12))


def test_resampling_keeps_rows_together():
    x = draw(0, 200)
    found = errors.bootstrapped(lambda x, y: float(np.corrcoef(x, y)[0, 1]), (x, 2 * x))
    assert found == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-9))
