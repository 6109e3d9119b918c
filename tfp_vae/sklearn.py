"""VAEs as scikit-learn transformers, for pipelines, nearest neighbours and grid searches: the
encoder, and an imputer of missing values.
"""

import contextlib
import math
import random
from collections.abc import Iterator
from typing import Self

import keras
import numpy as np

from tfp_vae import layers, networks, objectives, sampling
from tfp_vae.checks import as_count, needs
from tfp_vae.objectives import as_vectors
from tfp_vae.surface import Surface
from tfp_vae.tables import Table, is_frame
from tfp_vae.tables.series import pandas
from tfp_vae.vae import VAE

try:
    from sklearn.base import (
        BaseEstimator,
        ClassNamePrefixFeaturesOutMixin,
        OneToOneFeatureMixin,
        TransformerMixin,
    )
    from sklearn.preprocessing import StandardScaler
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise needs("tfp_vae.sklearn", "data", error) from error

# Of the training of an imputer: draws of z for each row, and the usual number of epochs.
NUM_DRAWS, STEPS, LEAST_EPOCHS, MOST_EPOCHS = 20, 2000, 20, 500


class Encoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """The means of q(z|x) as features.

    `fit` trains a VAE on real vectors, standardized column by column, with a normal likelihood of
    learned scale; or it uses a given VAE.

    Args:
        latent_size: dimensions of z.
        hidden_size: width of the hidden layer of encoder and decoder.
        epochs: number of passes of `fit` over the data.
        batch_size: examples in one training step.
        learning_rate: of Adam.
        with_scales: whether the standard deviations of q(z|x) are features too, after the means.
        random_state: int, of weights, order and draws.
        verbose: 1 shows a bar for each epoch of `fit`, 2 a line.
        vae: a trained `tfp_vae.VAE`, or a served one from `tfp_vae.load` or `tfp_vae.client`, to
            use instead of training one; then all arguments above except `with_scales` are ignored.

    Attributes:
        vae_: the VAE.
        n_features_in_: numbers in one example.

    Raises:
        ValueError: from `fit`, if X is not `[num_examples, num_features]` of finite numbers, an
            argument is out of range, or examples of `vae` have another number of values.

    Example:
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sklearn.pipeline import make_pipeline
    >>> x, y = load_wine(return_X_y=True)
    >>> pipeline = make_pipeline(Encoder(latent_size=4, epochs=50), KNeighborsClassifier())
    >>> pipeline.fit(x[::2], y[::2]).score(x[1::2], y[1::2]) > 0.9
    True
    """

    def __init__(
        self,
        latent_size: int = 8,
        *,
        hidden_size: int = 64,
        epochs: int = 100,
        batch_size: int = 100,
        learning_rate: float = 3e-3,
        with_scales: bool = False,
        random_state: int = 0,
        verbose: int = 0,
        vae: Surface | None = None,
    ):
        self.latent_size = latent_size
        self.hidden_size = hidden_size
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.with_scales = with_scales
        self.random_state = random_state
        self.verbose = verbose
        self.vae = vae

    def fit(self, X, y=None) -> Self:
        """Train on X, `[num_examples, num_features]`; y is ignored."""
        x = validate_data(self, X, dtype="float64", ensure_min_samples=2)
        if self.vae is not None:
            self.vae.expect_built()
            if self.vae.condition is not None or self.vae.x.has_parts:
                raise ValueError(
                    "The VAE must encode an x without parts and without a condition: rows of X are "
                    "all that a transformer is given."
                )
            if self.vae.x.size != x.shape[1]:
                raise ValueError(
                    f"X has {x.shape[1]} features, but an example of the VAE has shape "
                    f"{self.vae.event_shape}, {self.vae.x.size} values."
                )
            self.scaler_ = None
            self.vae_ = self.vae
        else:
            self.scaler_ = StandardScaler().fit(x)
            with _seeded(self.random_state):
                self.vae_ = self._train(self._examples(x))
        self._n_features_out = self.vae_.z.size * (2 if self.with_scales else 1)
        return self

    def _train(self, x: np.ndarray) -> VAE:
        size = as_count(self.latent_size, "latent_size")
        hidden_sizes = (as_count(self.hidden_size, "hidden_size"),)
        posterior = layers.MultivariateNormalDiag(size)
        likelihood = layers.IndependentNormalLearnedScale(x.shape[1:])
        encoder = networks.mlp(x.shape[1:], posterior.params_size(size), hidden_sizes=hidden_sizes)
        decoder = networks.mlp(
            (size,), likelihood.params_size(x.shape[1:]), hidden_sizes=hidden_sizes
        )
        vae = VAE(
            keras.Sequential([encoder, posterior]),
            keras.Sequential([decoder, likelihood]),
            seed=self.random_state,
        )
        vae.compile(keras.optimizers.Adam(self.learning_rate))
        vae.fit(x, epochs=self.epochs, batch_size=self.batch_size, verbose=self.verbose)
        return vae

    def _examples(self, x: np.ndarray) -> np.ndarray:
        if self.scaler_ is not None:
            return self.scaler_.transform(x).astype("float32")
        return x.astype("float32").reshape(-1, *self.vae_.event_shape)

    def _validated(self, X) -> np.ndarray:
        check_is_fitted(self)
        return self._examples(validate_data(self, X, dtype="float64", reset=False))

    def transform(self, X) -> np.ndarray:
        """Return the means of q(z|x), float32 `[num_examples, latent_size]`, followed by the
        standard deviations if `with_scales` is set.
        """
        x = self._validated(X)
        q = self.vae_.encode(x)
        parts = [sampling.point(q)]
        if self.with_scales:
            parts.append(q.stddev())
        return np.concatenate([as_vectors(part) for part in parts], 1)

    def inverse_transform(self, X) -> np.ndarray:
        """Return the means of p(x|z), `[num_examples, num_features]`, at the means z in X."""
        check_is_fitted(self)
        z = np.asarray(X, "float32")
        if z.ndim != 2 or z.shape[1] != self._n_features_out:
            raise ValueError(
                f"X must have {self._n_features_out} columns, as transform gives, received shape "
                f"{z.shape}."
            )
        z = self.vae_.z.split(z[:, : self.vae_.z.size])
        x = np.asarray(as_vectors(sampling.point(self.vae_.decode(z))))
        return x if self.scaler_ is None else self.scaler_.inverse_transform(x)

    def score(self, X, y=None) -> float:
        """Estimate the mean of log p(x), in nats per example of X, by importance sampling; y is
        ignored.
        """
        log_prob = np.mean(self.vae_.log_prob(self._validated(X)))
        return float(
            log_prob - (0.0 if self.scaler_ is None else np.log(self.scaler_.scale_).sum())
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


class Imputer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Missing values of a table, filled in by a VAE that is trained on what is observed.

    `fit` trains a VAE by the importance-weighted bound of 20 draws, on a DataFrame with columns of
    all kinds, see `tables.Table`, or on an array of numbers. `transform` replaces a missing number
    by its mean given the observed values of its row, and a missing category by the most probable
    one. What is observed stays as it is.

    Reference: Mattei & Frellsen, 2019, MIWAE, arXiv:1812.02633.

    Args:
        latent_size: dimensions of z.
        hidden_size: width of the hidden layers of encoder and decoder.
        epochs: number of passes of `fit` over the data; None takes as many as make 2,000 steps,
            but at least 20 and at most 500.
        batch_size: examples in one training step.
        learning_rate: Adam's first one; it falls to 0 as a cosine.
        num_samples: draws of z for each row of `transform`.
        random_state: int, of weights, order and draws.
        verbose: 1 shows a bar for each epoch of `fit`, 2 a line.

    Attributes:
        vae_: the VAE, of which `vae_.impute(frame, num_draws=10)` draws the missing values, and
            `vae_.table` says which columns there are.
        n_features_in_: number of columns.

    Raises:
        ValueError: from `fit`, if X is no DataFrame or array `[num_examples, num_features]`, fewer
            than two columns have more than one value, or an argument is out of range; from
            `transform`, if X has other columns or unknown categories.

    Example:
    >>> from sklearn.datasets import load_iris
    >>> x = load_iris().data
    >>> holes = np.where(np.random.default_rng(0).uniform(size=x.shape) < 0.2, np.nan, x)
    >>> filled = Imputer(latent_size=2, epochs=100).fit_transform(holes)
    >>> error, of_means = filled - x, np.where(np.isnan(holes), np.nanmean(holes, 0) - x, 0)
    >>> bool(np.sum((error / x.std(0)) ** 2) < 0.7 * np.sum((of_means / x.std(0)) ** 2))
    True
    """

    def __init__(
        self,
        latent_size: int = 8,
        *,
        hidden_size: int = 128,
        epochs: int | None = None,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        num_samples: int = 200,
        random_state: int = 0,
        verbose: int = 0,
    ):
        self.latent_size = latent_size
        self.hidden_size = hidden_size
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.num_samples = num_samples
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y=None) -> Self:
        """Train on X, `[num_examples, num_features]`; y is ignored."""
        as_count(self.num_samples, "num_samples")
        frame = self._frame(X, reset=True)
        if empty := [name for name in frame if frame[name].isna().all()]:
            raise ValueError(f"The columns {empty} have no value to learn from. Leave them out.")
        table = Table.of(frame)
        with _seeded(self.random_state):
            self.vae_ = self._train(table, frame)
        return self

    def _frame(self, X, *, reset: bool):
        """Return X as a DataFrame, after checking it as scikit-learn does."""
        if is_frame(X):
            validate_data(self, X, reset=reset, skip_check_array=True)
            if reset and len(X) < 2:
                raise ValueError(f"Expected at least 2 rows, received {len(X)} sample(s).")
            return X
        rules = {"dtype": "float64", "ensure_all_finite": "allow-nan", "reset": reset}
        return pandas().DataFrame(validate_data(self, X, ensure_min_samples=1 + reset, **rules))

    def _train(self, table: Table, frame) -> VAE:
        size = as_count(self.latent_size, "latent_size")
        width = as_count(self.hidden_size, "hidden_size")
        posterior = layers.MultivariateNormalDiag(size)
        inputs = table.inputs(table.encode(frame), missing=True)
        hidden = keras.layers.Dense(width, "tanh"), keras.layers.Dense(width, "tanh")
        features = keras.layers.Dense(posterior.params_size(size))
        encoder = networks.from_inputs(inputs, [hidden[0], features, posterior])
        decoder = networks.from_inputs({"z": (size,)}, [hidden[1], table.likelihood(width)])
        objective = objectives.IWAE(NUM_DRAWS)
        vae = VAE(encoder, decoder, objective=objective, missing=True, seed=self.random_state)
        batch_size = min(as_count(self.batch_size, "batch_size"), len(frame))
        steps = math.ceil(len(frame) / batch_size)
        usual = int(np.clip(math.ceil(STEPS / steps), LEAST_EPOCHS, MOST_EPOCHS))
        epochs = usual if self.epochs is None else as_count(self.epochs, "epochs")
        rate = keras.optimizers.schedules.CosineDecay(self.learning_rate, epochs * steps)
        vae.compile(keras.optimizers.Adam(rate))
        vae.fit(frame, epochs=epochs, batch_size=batch_size, verbose=self.verbose)
        return vae

    def transform(self, X):
        """Return X without gaps: a DataFrame of a DataFrame, else float64 `[num_examples,
        num_features]`.
        """
        check_is_fitted(self)
        frame, table = self._frame(X, reset=False), self.vae_.table
        known = table.within(frame)  # of the model, a value beyond the training data's is missing
        filled = table.fill(frame, self.vae_.impute(known, self.num_samples, self.random_state))
        return filled if is_frame(X) else filled.to_numpy("float64")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = []
        return tags


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Set all seeds for a while, and leave the generators of Python and NumPy as they were."""
    states = random.getstate(), np.random.get_state()
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


__all__ = ["Encoder", "Imputer"]
