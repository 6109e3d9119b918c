# %% [markdown]
# # 4. Likelihoods: what the mean squared error and the cross-entropy assume
#
# Many programs train a VAE with "the mean squared error plus the KL divergence", or with "the binary
# cross-entropy plus the KL divergence". Both losses are negative log-likelihoods: each says how
# probable the data are under some distribution p(x|z). This lesson finds out which, shows what goes
# wrong if it is the wrong one, and compares models by a number that is fair to all.

# %%
import warnings

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from matplotlib.figure import Figure

import tfp_vae
from tfp_vae import layers as tfpl
from tfp_vae import networks, plots

# %matplotlib inline
tfd = tfp.distributions
keras.utils.set_random_seed(0)
EPOCHS = 40
splits = tfp_vae.datasets.load("digits")
counts, test_counts = splits.train.astype("float32"), splits.test  # whole numbers from 0 to 16
x, x_test = counts / 16, test_counts / 16  # the same as gray values from 0 to 1
NUM_PIXELS = 64

# %% [markdown]
# ## The mean squared error is a normal distribution of fixed width
#
# If each pixel is normal with mean m and standard deviation s, then
#
# $$-\log p(x|z) = \frac{D}{2 s^2}\,\mathrm{MSE} + \frac{D}{2}\log(2\pi s^2),$$
#
# where D is the number of pixels and MSE the mean of the squared errors over them. Check it for one
# image and the mean of all as m:

# %%
m, s = x.mean(axis=0), 0.3
mse = np.mean((x_test[0] - m) ** 2)
by_formula = NUM_PIXELS / (2 * s**2) * mse + NUM_PIXELS / 2 * np.log(2 * np.pi * s**2)
by_tfp = -np.sum(tfd.Normal(m, np.float32(s)).log_prob(x_test[0]))
print(f"formula {by_formula:.4f}, TFP {by_tfp:.4f} nats")
np.testing.assert_allclose(by_formula, by_tfp, rtol=1e-4)

# %% [markdown]
# So s says how much a squared error weighs against the KL divergence. A loss "MSE + KL", with the
# mean over pixels, has made a choice without saying so: multiply the ELBO's loss by 2 s² / D, and the
# factor before the KL divergence is 2 s² / D. It is 1 for this s:

# %%
implied = np.sqrt(NUM_PIXELS / 2)
print(f"'MSE + KL' assumes noise with a standard deviation of {implied:.2f} on values from 0 to 1")
print(f"'sum of squared errors + KL' assumes {np.sqrt(0.5):.2f}")

# %% [markdown]
# Which s is best? The derivative of the formula says: the root mean squared error (RMSE) itself.

# %%
scales = np.geomspace(0.1, 2, 100)
losses = NUM_PIXELS / (2 * scales**2) * mse + NUM_PIXELS / 2 * np.log(2 * np.pi * scales**2)
best, rmse = scales[losses.argmin()], np.sqrt(mse)
print(f"least loss at s = {best:.3f}; RMSE {rmse:.3f}")
np.testing.assert_allclose(best, rmse, rtol=0.03)
figure = Figure(figsize=(6, 3), layout="constrained")
axes = figure.subplots()
axes.semilogx(scales, losses)
axes.axvline(rmse, linestyle="--", color="black", label="root mean squared error")
axes.set(xlabel="s, the assumed standard deviation of the noise", ylabel="-log p(x|z), nats")
axes.legend()
figure

# %% [markdown]
# ## The binary cross-entropy is for bits
#
# $-x \log p - (1 - x) \log(1 - p)$ is the negative log-probability of a Bernoulli distribution, for x
# either 0 or 1. For gray values between them it still gives a number, but no longer the logarithm of
# a density: densities integrate to one over all gray values.

# %%
ticks = np.linspace(0, 1, 10_001)
for p in (0.1, 0.3, 0.5):
    area = np.trapezoid(p**ticks * (1 - p) ** (1 - ticks), ticks)
    continuous = tfd.ContinuousBernoulli(probs=np.float64(p)).prob(ticks)
    proper = np.trapezoid(continuous, ticks)
    print(f"p = {p}: exp(-cross-entropy) integrates to {area:.3f}, its proper form to {proper:.3f}")
    np.testing.assert_allclose(proper, 1, rtol=1e-4)

# %% [markdown]
# The proper form divides by that integral: the *continuous Bernoulli* distribution (Loaiza-Ganem and
# Cunningham, 2019), `layers.IndependentContinuousBernoulli` in this package. It is right for gray
# values. Our pixels are counts from 0 to 16, and for these the binomial distribution exists.
#
# ## Three VAEs, the same networks
#
# They differ in the last layer of the decoder alone:
#
# - a normal with s = 1, as if someone had taken half the sum of squared errors for the loss;
# - a normal whose s is always the RMSE (`IndependentNormalOptimalScale`, the sigma-VAE);
# - the binomial of the counts.

# %%
SHAPE, LATENT_SIZE = (8, 8, 1), 8


def make_vae(likelihood, size=NUM_PIXELS):
    posterior = tfpl.MultivariateNormalDiag(LATENT_SIZE)
    to_code = networks.mlp(SHAPE, posterior.params_size(LATENT_SIZE), hidden_sizes=(100,))
    to_image = networks.mlp((LATENT_SIZE,), size, hidden_sizes=(100,))
    return tfp_vae.VAE(
        keras.Sequential([to_code, posterior]), keras.Sequential([to_image, likelihood])
    )


def train(vae, data):
    """Train, and print what the package warns of."""
    vae.compile(keras.optimizers.Adam(3e-3), jit_compile=False)  # too small for XLA to pay
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = vae.fit(data, batch_size=100, epochs=EPOCHS, verbose=0).history
    for warning in caught:
        print("Warning:", warning.message)
    return history["kl"][-1]


unit_normal = tfpl.Independent(tfd.Normal, SHAPE, predicted=["loc"], constants={"scale": 1.0})
vaes = {
    "normal, s = 1": make_vae(unit_normal),
    "normal, best s": make_vae(tfpl.IndependentNormalOptimalScale(SHAPE)),
    "binomial": make_vae(tfpl.IndependentBinomial(SHAPE, total_count=16)),
}
kl = {name: train(vae, counts if name == "binomial" else x) for name, vae in vaes.items()}
print({name: round(value, 2) for name, value in kl.items()})

# %% [markdown]
# With s = 1 the KL divergence is next to nothing: the code says nothing about the image, the posterior
# has *collapsed*. Errors weigh so little that any information in the code costs more than it saves.
# Lesson 5 predicts when this happens. Reconstructions show it:

# %%
rows = [x_test[:10]]
for name, vae in vaes.items():
    is_counts = name == "binomial"
    images = vae.reconstruct(test_counts[:10] if is_counts else x_test[:10])
    rows.append(images / 16 if is_counts else images)
plots.grid(np.stack(rows), "Originals and reconstructions", ["original", *vaes], limits=(0, 1))

# %% [markdown]
# ## A fair comparison
#
# A density of gray values and a probability of counts cannot be compared: the first changes if you
# measure in other units. But a normal distribution can be asked for the probability of each count k,
# that of the interval from (k - 1/2) / 16 to (k + 1/2) / 16, with all the rest at the ends. Then all
# three models give probabilities of the same 17 counts, and importance sampling gives log p(x):
# the log of the mean of p(x|z) p(z) / q(z|x) over draws of z.


# %%
def log_prob_of_counts(likelihood, k):
    """Return log p(k|z) of whole images, for a normal likelihood of gray values."""
    normal = likelihood.distribution  # without the sum over pixels
    upper = tf.where(k == 16, np.inf, (k + 0.5) / 16)
    lower = tf.where(k == 0, -np.inf, (k - 0.5) / 16)
    probability = normal.cdf(upper) - normal.cdf(lower)
    return tf.reduce_sum(tf.math.log(tf.maximum(probability, 1e-12)), axis=[-3, -2, -1])


def nll_of_counts(vae, data, log_likelihood, num_samples=200):
    q = vae.encode(data)
    z = q.sample(num_samples, seed=0)
    log_weights = log_likelihood(vae.decode(z)) - q.log_prob(z)
    log_weights += vae.prior_distribution().log_prob(z)
    estimates = tf.reduce_logsumexp(log_weights, axis=0) - np.log(num_samples)
    return -float(np.mean(estimates))


nll = {}
for name in ("normal, s = 1", "normal, best s"):
    nll[name] = nll_of_counts(vaes[name], x_test, lambda p: log_prob_of_counts(p, test_counts))
nll["binomial"] = nll_of_counts(vaes["binomial"], test_counts, lambda p: p.log_prob(test_counts))
for name, value in nll.items():
    print(f"{name:15} -log p(x) = {value:6.1f} nats per test image")
package = -float(np.mean(vaes["binomial"].log_prob(test_counts, num_samples=200)))
print(f"binomial, by the package's own log_prob: {package:.1f}")
np.testing.assert_allclose(package, nll["binomial"], atol=1.5)

# %% [markdown]
# The width of the noise alone decides between a model that has learned nothing and one that has
# learned digits, with the same network and the same squared error.
#
# The other two are close, compared with that. The binomial has the right values, 0 to 16, but the
# width of its noise follows from its mean; the normal has a width that was fitted, and wrong values.
# Which counts for more is not to be settled by taste, but by a number such as this one.
#
# ## Means and draws
#
# p(x|z) is a distribution, and a sample of the model is a draw from it, noise included. Most pictures
# in papers show the means instead, as they look nicer. Both, for the same codes:

# %%
chosen = vaes["normal, best s"], vaes["binomial"]
rows = [
    vae.generate(10, seed=0, draws=draws) / largest
    for vae, largest in zip(chosen, (1, 16), strict=True)
    for draws in (False, True)
]
names = ["normal, mean", "normal, draw", "binomial, mean", "binomial, draw"]
plots.grid(np.clip(np.stack(rows), 0, 1), "Samples", names, limits=(0, 1))

# %% [markdown]
# The normal draws have gray noise everywhere, also where every real digit is white. A likelihood
# with the right support knows that a background pixel is exactly 0.
#
# ## Exercises
#
# 1. What is the least possible mean of the binary cross-entropy over these gray values, for a model
#    that reconstructs each pixel exactly? Is it 0?
# 2. Which standard deviation does the sigma-VAE end up with? Compare it with the RMSE of its
#    reconstructions of the test images.
# 3. Binarize the images (black if above half) and train a VAE with `IndependentBernoulli`. Why may
#    its NLL not be compared with those above?
#
# ## Answers
#
# **1.** No. With p = x the cross-entropy is the entropy of a bit with probability x, which is 0 only
# for pure black and white. A cross-entropy of 0 cannot be reached, and two data sets have different
# lowest values: the number alone says little.

# %%
clipped = np.clip(x.astype("float64"), 1e-12, 1 - 1e-12)
least = -(clipped * np.log(clipped) + (1 - clipped) * np.log1p(-clipped))
print(
    f"least cross-entropy: {least.mean():.3f} per pixel, {least.sum(axis=(1, 2, 3)).mean():.1f} per image"
)
assert least.mean() > 0.1

# %% [markdown]
# **2.** Close to it. Not the same: the scale is a running mean over training images, with codes drawn from
# q(z|x), while `reconstruct` takes the mean code of test images.

# %%
sigma_vae = vaes["normal, best s"]
learned = float(sigma_vae.decode(np.zeros([1, LATENT_SIZE], "float32")).stddev()[0, 0, 0, 0])
error = np.sqrt(np.mean((sigma_vae.reconstruct(x_test) - x_test) ** 2))
print(f"learned standard deviation {learned:.3f}, RMSE of test reconstructions {error:.3f}")

# %% [markdown]
# **3.** Its NLL is lower, because a binary image holds less information: the data are other data. An
# NLL compares models of the same data only.

# %%
bits, test_bits = (x > 0.5).astype("float32"), (x_test > 0.5).astype("float32")
bernoulli = make_vae(tfpl.IndependentBernoulli(SHAPE))
train(bernoulli, bits)
nll_of_bits = -float(np.mean(bernoulli.log_prob(test_bits, num_samples=200)))
print(f"-log p(bits) = {nll_of_bits:.1f}, -log p(counts) = {nll['binomial']:.1f} nats")
