# %% [markdown]
# # 5. Posterior collapse
#
# Sometimes a VAE trains well, and its codes say nothing: q(z|x) is the prior N(0, 1) for every image,
# the KL divergence is 0, and the decoder draws the mean of all data. This is *posterior collapse*,
# for all dimensions of the code or for some of them. This lesson predicts it exactly in a model that
# is simple enough, then looks at it in a network, and tries remedies.

# %%
import warnings

import keras
import numpy as np
import tensorflow_probability as tfp
from matplotlib.figure import Figure

import tfp_vae
from tfp_vae import evaluation, latent_plots, networks, objectives
from tfp_vae import layers as tfpl

# %matplotlib inline
tfd = tfp.distributions
keras.utils.set_random_seed(0)
EPOCHS = 150
splits = tfp_vae.datasets.load("digits")
x, x_test = (part.reshape(-1, 64).astype("float32") / 16 for part in (splits.train, splits.test))
LATENT_SIZE = 12
# The package warns of collapse after training; here we want it.
warnings.filterwarnings("ignore", message="The posterior has collapsed")

# %% [markdown]
# ## A model that can be solved
#
# Take a VAE without hidden layers and with normal noise of a fixed standard deviation s. Its best
# solution is *probabilistic principal component analysis* (Tipping and Bishop, 1999; Lucas et al.,
# 2019). Let $\lambda_1 \ge \lambda_2 \ge \dots$ be the eigenvalues of the covariance of the data, the
# variances along its principal components. Then the optimum of the ELBO has
#
# - a dimension of the code for each component with $\lambda_j > s^2$, and none for the others: they
#   collapse, because noise of variance $s^2$ explains them as well, for free;
# - a KL divergence of $\tfrac12 \log(\lambda_j / s^2)$ nats in each of these dimensions, on average.
#
# So it takes only the eigenvalues to predict a training.

# %%
eigenvalues = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1]


def predicted_kl(variance_of_noise):
    return 0.5 * np.log(np.maximum(eigenvalues[:LATENT_SIZE] / variance_of_noise, 1))


# Noise above all eigenvalues, so that no component stands out, and between two, so that exactly 4 do.
variances = {0: 1.5 * eigenvalues[0], 4: np.sqrt(eigenvalues[3] * eigenvalues[4])}
figure = Figure(figsize=(7, 3), layout="constrained")
axes = figure.subplots()
axes.bar(range(1, LATENT_SIZE + 1), eigenvalues[:LATENT_SIZE])
for kept, variance in variances.items():
    axes.axhline(variance, linestyle="--", color="black", linewidth=1)
    label = f"s = {np.sqrt(variance):.2f}: {kept} stand out"
    axes.text(LATENT_SIZE + 0.6, variance, label, ha="right", va="bottom")
axes.set(xlabel="principal component", ylabel="variance", ylim=(0, 1.8 * eigenvalues[0]))
figure

# %%


def make_linear_vae(variance, **arguments):
    scale = {"scale": float(np.sqrt(variance))}
    likelihood = tfpl.Independent(tfd.Normal, 64, predicted=["loc"], constants=scale)
    posterior = tfpl.MultivariateNormalDiag(LATENT_SIZE)
    encoder = [
        keras.Input((64,)),
        keras.layers.Dense(posterior.params_size(LATENT_SIZE)),
        posterior,
    ]
    decoder = [keras.Input((LATENT_SIZE,)), keras.layers.Dense(64), likelihood]
    return tfp_vae.VAE(keras.Sequential(encoder), keras.Sequential(decoder), **arguments)


def train(vae, epochs):
    """Train, without XLA: for models this small, compiling would take longer than training."""
    rate = keras.optimizers.schedules.CosineDecay(1e-2, epochs * (len(x) // 200 + 1))
    vae.compile(keras.optimizers.Adam(rate), jit_compile=False)
    vae.fit(x, batch_size=200, epochs=epochs, verbose=0)
    return vae


def kl_of_dimensions(vae, data):
    return np.sort(evaluation.kl_by_dimension(vae, data)["z"])[::-1]


def in_use(kl):
    return np.sum(kl > 0.05)  # nats


linear = {kept: train(make_linear_vae(variance), EPOCHS) for kept, variance in variances.items()}
print("noise     dimensions in use   KL divergence      ELBO per example")
print("    s   predicted   found   predicted   found    optimum     found")
for kept, vae in linear.items():
    variance = variances[kept]
    kl = kl_of_dimensions(vae, x)
    elbo = evaluation.elbo(vae, x)["elbo"].mean()
    components = np.maximum(eigenvalues[:LATENT_SIZE], variance)
    # log p(x) of probabilistic PCA: normal, with these variances along the principal components.
    spread = np.concatenate([components, np.full(64 - LATENT_SIZE, variance)])
    optimum = -0.5 * np.sum(np.log(2 * np.pi * spread) + eigenvalues / spread)
    print(
        f"{np.sqrt(variance):5.2f}{kept:12}{in_use(kl):8}"
        f"{predicted_kl(variance).sum():12.2f}{kl.sum():8.2f}{optimum:11.2f}{elbo:10.2f}"
    )

# %% [markdown]
# The table is theory and training side by side; a dimension counts as used if it has more than 0.05
# nats. Each dimension by itself, for the weaker noise:

# %%
kl = kl_of_dimensions(linear[4], x)
figure = Figure(figsize=(7, 3), layout="constrained")
axes = figure.subplots()
places = np.arange(1, LATENT_SIZE + 1)
axes.bar(places - 0.2, predicted_kl(variances[4]), 0.4, label="predicted, ½ log(λ / s²)")
axes.bar(places + 0.2, kl, 0.4, label="found by training")
axes.set(xlabel="dimension, the most active first", ylabel="KL divergence, nats")
axes.legend()
figure

# %% [markdown]
# So collapse need not be a failure of training. If the model is told that noise is strong, it is right
# to call everything below the noise *noise*. And beta does the same: the loss
# $\beta\,\mathrm{KL} - \log p(x|z)$ has the optimum of the noise variance $\beta s^2$ (exercise 1).
#
# ## A network, and its remedies
#
# Now hidden layers, and noise of s = 1, a careless choice for values from 0 to 1. Beside it, two remedies:
#
# - *the right noise*: a likelihood whose s is learned or optimal (lesson 4); a smaller beta is a smaller s
#   under another name;
# - *free bits*: the first half nat in each dimension costs nothing, so that there is no gain in
#   giving it up (Kingma et al., 2016).


# %%
def make_vae(likelihood, objective):
    posterior = tfpl.MultivariateNormalDiag(LATENT_SIZE)
    to_code = networks.mlp((64,), posterior.params_size(LATENT_SIZE), hidden_sizes=(100,))
    to_image = networks.mlp((LATENT_SIZE,), 64, hidden_sizes=(100,))
    return tfp_vae.VAE(
        keras.Sequential([to_code, posterior]),
        keras.Sequential([to_image, likelihood]),
        objective=objective,
    )


def unit_noise():
    return tfpl.Independent(tfd.Normal, 64, predicted=["loc"], constants={"scale": 1.0})


vaes = {
    "s = 1": make_vae(unit_noise(), objectives.ELBO()),
    "optimal s": make_vae(tfpl.IndependentNormalOptimalScale(64), objectives.ELBO()),
    "s = 1, free bits": make_vae(unit_noise(), objectives.ELBO(free_bits=0.5)),
}
for vae in vaes.values():
    train(vae, max(1, EPOCHS // 5))
print(f"{'':22}KL    information   active   RMSE of test reconstructions")
for name, vae in vaes.items():
    kl = evaluation.kl_by_dimension(vae, x_test)["z"].sum()
    information = evaluation.mutual_information(vae, x_test).value
    active = evaluation.active_units(vae, x_test)
    rmse = np.sqrt(np.mean((vae.reconstruct(x_test) - x_test) ** 2))
    print(f"{name:20}{kl:6.2f}{information:10.2f}{active:12}{rmse:12.3f}")

# %% [markdown]
# *Information* is the mutual information of x and z, what a code tells about its image in nats (at most
# the logarithm of the number of images, as it only has to tell them apart). `active` counts
# dimensions whose mean moves over the data. Read the table with care:
#
# - The right noise gives good reconstructions because the model has learned that they can be good.
# - Free bits keep dimensions alive by force. With wrong noise they do not make it right.
#
# `kl_bars` shows which dimensions are in use:

# %%
of_optimal = evaluation.kl_by_dimension(vaes["optimal s"], x_test)["z"]
varies = evaluation.posterior_means(vaes["optimal s"], x_test).var(axis=0) > 0.01
names = [f"z{number}" for number in range(LATENT_SIZE)]
latent_plots.kl_bars(
    dict(zip(names, of_optimal, strict=True)), dict(zip(names, varies, strict=True))
)

# %% [markdown]
# Another kind of collapse comes from the decoder: one that is strong enough without a code, as that of
# texts, which predicts each letter from those before it. There a beta that rises slowly during
# training helps (`objectives.CyclicalSchedule`), or a weaker decoder; docs/sequences.md has measured
# remedies.
#
# ## Exercises
#
# 1. Show that the linear model with beta = 4 and noise s uses as many dimensions as with beta = 1 and
#    noise 2 s. Why?
# 2. Show with the formula which s makes everything collapse. Does 'half the sum of squared errors +
#    KL', that is s = 1, collapse on these data?
# 3. The KL divergence is high, but is all of it information? Compare the mutual information with the
#    KL divergence: their difference is KL(q(z) || p(z)), see `evaluation.aggregate_kl`.
#
# ## Answers
#
# **1.** Multiply the loss by a constant and its optimum stays. With SSE / (2 s²) + beta KL, where SSE is the
# sum of squared errors, dividing by beta gives SSE / (2 beta s²) + KL, the loss for the noise variance beta
# s². The optimal means of p(x|z) and the codes are the same.

# %%
quarter = variances[4] / 4
with_beta = train(make_linear_vae(quarter, objective=objectives.ELBO(beta=4.0)), EPOCHS)
found = {"beta = 4, s": with_beta, "beta = 1, 2 s": linear[4]}
for name, vae in found.items():
    kl = kl_of_dimensions(vae, x)
    print(f"{name:12} {in_use(kl)} in use, KL {kl[:5].round(2)} ...")

# %% [markdown]
# **2.** Any s above the square root of the largest eigenvalue. And 1 is above it.

# %%
limit = np.sqrt(eigenvalues[0])
print(f"all dimensions of a linear VAE collapse for s > {limit:.3f}")
assert limit < 1

# %% [markdown]
# **3.** The KL divergence is the sum of both: what codes tell about their images, and how far all codes
# together are from the prior. On few images, part of it is counted in the wrong place, as both are
# estimated with a mean over these images alone.

# %%
best = vaes["optimal s"]
information = evaluation.mutual_information(best, x).value
mismatch = evaluation.aggregate_kl(best, x).value
kl = float(np.mean(best.encode(x).kl_divergence(best.prior_distribution())))
print(
    f"information {information:.2f} + mismatch {mismatch:.2f} = {information + mismatch:.2f}; KL {kl:.2f}"
)
np.testing.assert_allclose(information + mismatch, kl, rtol=0.05)
