"""Encoder and imputer inside scikit-learn: its own checks, pipelines, searches, a trained and a served VAE."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits, load_wine
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import tfp_vae
from tfp_vae.sklearn import Encoder, Imputer

SMALL = {"latent_size": 2, "hidden_size": 8, "epochs": 2}
# The checks of an imputer in the short form of the tests.
SOME_CHECKS = (
    "check_estimator_tags_renamed",
    "check_fit2d_1feature",
    "check_fit2d_1sample",
    "check_n_features_in_after_fitting",
    "check_no_attributes_set_in_init",
)


@pytest.mark.slow
@parametrize_with_checks([Encoder(latent_size=1, hidden_size=4, epochs=1)])
def test_what_scikit_learn_asks_of_an_estimator(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def wine():
    return load_wine(return_X_y=True)


@pytest.mark.slow
def test_features_separate_classes_and_go_back(wine):
    x, y = wine
    pipeline = make_pipeline(Encoder(latent_size=4, epochs=30), KNeighborsClassifier())
    assert pipeline.fit(x[::2], y[::2]).score(x[1::2], y[1::2]) > 0.8
    encoder = pipeline[0]
    back = encoder.inverse_transform(encoder.transform(x[1::2]))
    residual = np.square(back - x[1::2]).mean(0) / np.var(x, 0)
    assert residual.mean() < 0.7
    assert list(encoder.get_feature_names_out()) == [f"encoder{i}" for i in range(4)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Encoder, Imputer])
def test_progress_of_fit_is_shown_when_wanted(kind, wine, capsys):
    kind(**SMALL).fit(wine[0][:20])
    assert not capsys.readouterr().out
    kind(**SMALL, verbose=2).fit(wine[0][:20])
    assert "Epoch 2/2" in capsys.readouterr().out


@pytest.mark.slow
def test_its_score_is_the_log_likelihood_in_the_datas_own_units(wine):
    x, _ = wine
    encoder = Encoder(**SMALL).fit(x)
    far = Encoder(**SMALL).fit(x + 1e8)  # as times in seconds are, whose differences float32 rounds
    assert far.score(x + 1e8) == pytest.approx(encoder.score(x), rel=1e-4)
    # In other units the density changes by the units alone.
    scaled = Encoder(**SMALL).fit(x * 10.0)
    assert scaled.score(x * 10.0) == pytest.approx(encoder.score(x) - 13 * np.log(10.0), abs=1e-2)


@pytest.mark.slow
def test_a_search_over_its_arguments(wine):
    x, y = wine
    pipeline = make_pipeline(Encoder(**SMALL), KNeighborsClassifier())
    search = GridSearchCV(pipeline, {"encoder__latent_size": [1, 3]}, cv=2).fit(x, y)
    assert search.best_params_["encoder__latent_size"] in (1, 3)


def test_means_and_scales(wine):
    x, _ = wine
    encoder = Encoder(**SMALL, with_scales=True).fit(x)
    features = encoder.transform(x)
    assert features.shape == (178, 4)
    q = encoder.vae_.encode(encoder.scaler_.transform(x))
    np.testing.assert_allclose(features, np.hstack([q.mean(), q.stddev()]), rtol=1e-5, atol=1e-5)
    assert encoder.inverse_transform(features).shape == x.shape


def test_a_trained_vae_live_and_served(trained_vae, tmp_path):
    x = load_digits().data
    served = tfp_vae.load(trained_vae.export(tmp_path / "model"))
    features = [Encoder(vae=vae).fit(x).transform(x) for vae in (trained_vae, served)]
    np.testing.assert_allclose(*features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        features[0], trained_vae.encode(x.reshape(-1, 8, 8, 1)).mean(), rtol=1e-5
    )
    assert Encoder(vae=trained_vae).fit(x).inverse_transform(features[0]).shape == x.shape
    with pytest.raises(
        ValueError, match=r"X has 3 features, but an example of the VAE has shape \(8, 8, 1\), 64"
    ):
        Encoder(vae=trained_vae).fit(x[:, :3])


def test_it_is_repeatable_cloned_and_pickled(wine):
    x, _ = wine
    encoder = Encoder(**SMALL).fit(x)
    np.testing.assert_array_equal(clone(encoder).fit(x).transform(x), encoder.transform(x))
    again = pickle.loads(pickle.dumps(encoder))
    np.testing.assert_allclose(again.transform(x), encoder.transform(x), rtol=1e-6)


@pytest.mark.slow
@parametrize_with_checks([Imputer(latent_size=1, hidden_size=4, epochs=1, num_samples=5)])
def test_what_scikit_learn_asks_of_an_imputer(estimator, check, full):
    if not full and getattr(check, "func", check).__name__ not in SOME_CHECKS:
        pytest.skip("some seconds of training each: in `make test-all`")
    check(estimator)


@pytest.mark.slow
def test_an_imputer_fills_frames_and_arrays():
    pandas = pytest.importorskip("pandas")
    random = np.random.default_rng(0)
    z = random.normal(size=300)
    frame = pandas.DataFrame(
        {"size": 170 + 8 * z, "weight": 70 + 10 * z, "job": np.where(z > 0, "cook", "clerk")}
    )
    holes = frame.mask(random.uniform(size=frame.shape) < 0.2)
    small = {"latent_size": 2, "hidden_size": 16, "num_samples": 50}
    imputer = Imputer(**small, epochs=30, batch_size=20, learning_rate=1e-2)
    filled = imputer.fit_transform(holes)
    assert filled.dtypes.equals(frame.dtypes)
    pandas.testing.assert_frame_equal(filled.where(holes.notna()), holes)
    missing = holes.isna()
    one_known = missing["size"] & ~missing["weight"]
    error = (filled["size"] - frame["size"])[one_known]
    assert error.std() < 0.7 * frame["size"].std()
    ages = pandas.DataFrame({"age": random.integers(18, 60, 50), "income": random.normal(size=50)})
    new = pandas.DataFrame({"age": [75, 30], "income": [np.nan, 0.5]})
    filled = Imputer(**SMALL).fit(ages).transform(new)
    assert filled["age"].tolist() == [75, 30]  # beyond those of the training data, too
    assert np.isfinite(filled["income"]).all()
    with pytest.raises(ValueError, match="'job' takes one of 2 categories, 'clerk', 'cook'"):
        Imputer(**SMALL).fit(holes).transform(holes.assign(job="baker"))
    with pytest.raises(ValueError, match=r"The columns \['job'\] have no value to learn from"):
        Imputer(**SMALL).fit(holes.assign(job=None))
