"""After training: a prior fitted to where the codes of the data really are."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from sklearn.mixture import GaussianMixture

from tfp_vae import sampling
from tfp_vae.checks import as_count, as_seed
from tfp_vae.vae import VAE

tfd = tfp.distributions


def fit_aggregate_prior(
    vae: VAE, x: np.ndarray, *, num_components: int = 10, batch_size: int = 500, seed: int = 0
) -> tfd.Distribution:
    """Fit a mixture of normals to the aggregate posterior, the mean of q(z|x) over the data.

    The prior often covers codes that no example has; samples from there look like nothing. Draws from the fitted
    mixture look better: `vae.generate(16, prior=fit_aggregate_prior(vae, x_train))`. The mixture is scikit-learn's
    `GaussianMixture` with full covariances, fitted to one draw of z for each example.

    Reference: Ghosh et al., 2020, From variational to deterministic autoencoders, arXiv:1903.12436, section 4.

    Args:
        vae: a trained VAE.
        x: training data, `[num_examples, *event_shape]`.
        num_components: number of normals.
        batch_size: examples held in memory at once.
        seed: of the draws and of the fit's start.

    Returns:
        `tfd.MixtureSameFamily`, batch shape `[]`, event shape as the prior's.

    Raises:
        ValueError: if there are fewer examples than components.

    Example:
    >>> import keras
    >>> from tfp_vae import layers as tfpl
    >>> encoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2)])
    >>> decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(6), tfpl.IndependentNormal(3)])
    >>> fit_aggregate_prior(VAE(encoder, decoder), np.eye(3, dtype="float32"), num_components=2).event_shape
    TensorShape([2])
    """
    num_components = as_count(num_components, "num_components")
    if len(x) < num_components:
        raise ValueError(f"Expected at least as many examples as components, received {len(x)} and {num_components}.")
    draws = []
    for start in range(0, len(x), batch_size):
        posterior = vae.encode(x[start : start + batch_size])
        draws.append(sampling.sample(posterior, [], tf.constant([as_seed(seed), start])).numpy())
    mixture = GaussianMixture(num_components, random_state=seed).fit(np.concatenate(draws).astype("float64"))
    dtype = draws[0].dtype
    components = tfd.MultivariateNormalTriL(
        mixture.means_.astype(dtype), np.linalg.cholesky(mixture.covariances_).astype(dtype)
    )
    return tfd.MixtureSameFamily(tfd.Categorical(probs=mixture.weights_.astype(dtype)), components)


__all__ = ["fit_aggregate_prior"]
