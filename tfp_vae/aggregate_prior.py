"""A prior that is fitted, after training, to the codes of the data."""

import itertools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import evaluation, sampling
from tfp_vae.batch import batches_of, first, num_examples
from tfp_vae.checks import as_count, as_seed, imported
from tfp_vae.layers.code_vectors import CodeVectors
from tfp_vae.layers.flows import Flow
from tfp_vae.layers.fold import named_inputs
from tfp_vae.layers.vector_quantized import is_quantized
from tfp_vae.priors import FlowPrior
from tfp_vae.surface import takes_frames
from tfp_vae.vae import VAE

tfd = tfp.distributions
tfb = tfp.bijectors
# Learning rate of Adam at the start of a flow's training.
FLOW_LEARNING_RATE = 3e-3
# Iterations of expectation maximization on codes.
CODES_ITERATIONS = 50


@takes_frames
def fit_aggregate_prior(
    vae: VAE,
    x: Any,
    *,
    num_components: int = 10,
    flow: Flow | None = None,
    epochs: int = 20,
    batch_size: int = 500,
    seed: int = 0,
    verbose: int = 0,
) -> tfd.Distribution:
    """Fit a mixture, or a flow, to the aggregate posterior, the mean of q(z|x) over the data.

    The prior often covers codes that no example has; samples from these codes look like no example.
    Samples from the fitted prior look better: `vae.generate(16, prior=fit_aggregate_prior(vae,
    x_train))`. The mixture is scikit-learn's `GaussianMixture` with full covariances, fitted to one
    draw of z for each example. A flow is trained by maximum likelihood on fresh draws in each
    epoch, which are first standardized to mean 0 and standard deviation 1. An autoencoder
    (`layers.Deterministic`), whose training fits no prior, gets one in this way. The codes of a
    `layers.VectorQuantized` posterior get a mixture too: the codes are independent within each
    component, and the components describe which codes occur together (a latent class model, fitted
    by expectation maximization). With one component, the prior is the frequency of each code at
    each position.

    Reference: Ghosh et al., 2020, From variational to deterministic autoencoders, arXiv:1903.12436,
        section 4.

    Args:
        vae: a trained VAE.
        x: training data as in `evaluation.evaluate`: arrays, or a `tf.data.Dataset` of batches. The
            codes of all examples are in memory, the examples are not.
        num_components: number of components of the mixture.
        flow: a `layers.Flow` without context that is trained, in place, instead of a mixture, such
            as `layers.MaskedAutoregressiveFlow(latent_size, 4)`.
        epochs: number of epochs of the flow's training.
        batch_size: number of examples held in memory at once, and in each step of the flow's
            training.
        seed: seed of the draws, of the initialization of the fit, and of the order of the examples.
        verbose: 1 shows a progress bar of the training of a flow.

    Returns: `tfd.MixtureSameFamily` of normals or, for code vectors, of categories; or
        `tfd.TransformedDistribution` of a flow. Its batch shape is `[]`, its event shape that of
        the prior.

    Raises:
        TypeError: if `flow` is not a `layers.Flow`.
        ValueError: if there are fewer examples than components, the flow has a context or a
            different size or dtype, the prior depends on a condition (each condition has its own
            aggregate posterior), or there are several latents.

    Example:
    >>> import keras
    >>> from tfp_vae import layers as tfpl
    >>> encoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2)])
    >>> decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(6), tfpl.IndependentNormal(3)])
    >>> fit_aggregate_prior(VAE(encoder, decoder), np.eye(3, dtype="float32"), num_components=2).event_shape
    TensorShape([2])
    """
    _expect_one_prior(vae)
    num_components = as_count(num_components, "num_components")
    batch_size = as_count(batch_size, "batch_size")
    seed = as_seed(seed)
    some = first(x, 1)
    if some is None:
        raise ValueError("The data set is empty. Expected at least one batch.")
    posterior = vae.encode(some)
    if is_quantized(posterior):
        if flow is not None:
            raise ValueError(
                "A flow is a density, but the VAE's codes are discrete. Leave flow out."
            )
        codes = evaluation.codes(vae, x, batch_size=batch_size)
        return _fit_codes(codes, posterior.codebook, num_components, seed)
    if flow is not None:
        return _fit_flow(vae, x, flow, as_count(epochs, "epochs"), batch_size, seed, verbose)
    draws = next(_draw_each(vae, x, batch_size, seed))
    _expect_enough(draws, num_components)
    mixtures = imported("sklearn.mixture", "A mixture as prior", "data")
    mixture = mixtures.GaussianMixture(num_components, random_state=seed)
    mixture.fit(draws.astype("float64"))
    dtype = draws.dtype
    components = tfd.MultivariateNormalTriL(
        mixture.means_.astype(dtype), np.linalg.cholesky(mixture.covariances_).astype(dtype)
    )
    return tfd.MixtureSameFamily(tfd.Categorical(probs=mixture.weights_.astype(dtype)), components)


def _expect_enough(codes: np.ndarray, num_components: int) -> None:
    if (number := len(codes)) < num_components:
        raise ValueError(
            f"Expected at least as many examples as components, received {number} and "
            f"{num_components}."
        )


def _fit_codes(
    codes: np.ndarray, codebook: tf.Tensor, num_components: int, seed: int
) -> tfd.Distribution:
    """Fit a mixture of independent categories; one extra example, spread evenly over all codes,
    smooths the frequencies.
    """
    _expect_enough(codes, num_components)
    number, num_vectors = codes.shape
    num_codes = codebook.shape[0]
    # Responsibilities of the components, [number, C].
    shares = np.random.default_rng(seed).dirichlet(np.ones(num_components), number)
    for _ in range(CODES_ITERATIONS if num_components > 1 else 1):
        weights = shares.mean(0)
        frequencies = np.full([num_vectors, num_codes, num_components], 1.0 / num_codes)
        for position, column in zip(frequencies, codes.T, strict=True):
            np.add.at(position, column, shares)
        log_probs = np.log(frequencies / frequencies.sum(1, keepdims=True))
        log_joint = np.log(weights + 1e-12) + sum(
            position[column] for position, column in zip(log_probs, codes.T, strict=True)
        )
        shares = tf.nn.softmax(log_joint, axis=1).numpy()
    logits = tf.constant(np.moveaxis(log_probs, -1, 0), codebook.dtype)
    return tfd.MixtureSameFamily(
        tfd.Categorical(probs=tf.constant(weights, codebook.dtype)), CodeVectors(logits, codebook)
    )


def _expect_one_prior(vae: VAE) -> None:
    vae.expect_built()
    if "condition" in named_inputs(vae.prior):
        raise ValueError(
            "The VAE's prior depends on the condition, so each condition has an aggregate posterior "
            "of its own: one prior for all would draw codes of other conditions. It is fitted "
            "already, by training."
        )
    if vae.z.has_parts:
        raise ValueError(
            "An aggregate prior is fitted to codes of one latent, the VAE has "
            f"{[*vae.latent_shape]}."
        )


def _draw_each(vae: VAE, x, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Yield one draw of z for each example, `[num_examples, latent]`, without end."""
    draw = vae.compile_once(_draw)
    row = 0  # over all epochs
    while True:
        drawn = []
        for batch in batches_of(x, batch_size):
            tensors = tf.nest.map_structure(tf.constant, batch)
            drawn.append(draw(tensors, tf.constant([seed, row % 2**31])).numpy())
            row += num_examples(batch)
        yield np.concatenate(drawn)


def _draw(vae: VAE, x, seed: tf.Tensor) -> tf.Tensor:
    return sampling.sample(vae.encode(x), [], seed)


def _fit_flow(
    vae: VAE, x, flow: Flow, epochs: int, batch_size: int, seed: int, verbose: int
) -> tfd.Distribution:
    draws = _draw_each(vae, x, batch_size, seed)
    random = np.random.default_rng(seed)
    first_draws = next(draws)
    prior = FlowPrior(flow, dtype=first_draws.dtype.name)
    if flow.event_size != first_draws.shape[-1]:
        raise ValueError(
            f"The codes have {first_draws.shape[-1]} values, flow has event_size={flow.event_size}."
        )
    loc = first_draws.mean(0)
    spread = first_draws.std(0)
    scale = np.where(spread > 0.0, spread, 1.0)
    model = _Density(prior)
    rate = keras.optimizers.schedules.CosineDecay(
        FLOW_LEARNING_RATE, epochs * -(-len(first_draws) // batch_size)
    )
    model.compile(keras.optimizers.Adam(rate), jit_compile=True)
    progress = keras.utils.Progbar(epochs, verbose=verbose, unit_name="epoch")
    for z in itertools.islice(draws, epochs):
        standardized = (random.permutation(z) - loc) / scale
        model.fit(standardized, batch_size=batch_size, shuffle=False, verbose=0)
        progress.add(1)
    fitted = prior(None)
    to_codes = tfb.Chain([tfb.Shift(loc), tfb.Scale(scale), fitted.bijector])
    return tfd.TransformedDistribution(fitted.distribution, to_codes)


class _Density(keras.Model):
    """A prior as a Keras model: its loss is -log p(z), and Keras's own `fit` trains it."""

    def __init__(self, prior: FlowPrior):
        super().__init__(dtype=prior.dtype_policy, name="density")
        self.prior = prior

    def call(self, z):
        return self.prior(None).log_prob(z)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return -tf.reduce_mean(y_pred)


__all__ = ["fit_aggregate_prior"]
