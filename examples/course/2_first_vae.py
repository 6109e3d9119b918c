# %% [markdown]
# # 2. A first variational autoencoder
#
# Lesson 1 ended with a wish: codes that lie where random codes are drawn, without holes. A
# variational autoencoder (VAE) has them, by two changes to the autoencoder:
#
# 1. The encoder no longer gives one code but a *distribution* of codes, the posterior q(z|x): a
#    normal distribution with a mean and a standard deviation for each dimension. The decoder gets a
#    draw from it. So close codes must decode to similar images, and the holes close.
# 2. The loss has a second term, the *KL divergence* of q(z|x) from the prior p(z) = N(0, 1). It
#    keeps all codes together where we shall draw from.

# %%
import keras
import numpy as np
from matplotlib.patches import Circle
from sklearn.ensemble import RandomForestClassifier

import tfp_vae
from tfp_vae import evaluation, latent_plots, networks, plots
from tfp_vae import layers as tfpl

# %matplotlib inline
keras.utils.set_random_seed(0)
EPOCHS = 50
splits = tfp_vae.datasets.load("digits", condition="label")
x, x_validation, x_test = (part["x"] for part in (splits.train, splits.validation, splits.test))
labels = splits.train["condition"]

# %% [markdown]
# ## The model
#
# Compare this with lesson 1: only the encoder's last layer is another one. `MultivariateNormalDiag`
# needs twice as many parameters as it has dimensions, means and scales; `params_size` says so.
# Without further words, `VAE` takes N(0, 1) as prior and the ELBO as objective.


# %%
def make_vae(latent_size, **arguments):
    posterior = tfpl.MultivariateNormalDiag(latent_size)
    likelihood = tfpl.IndependentBinomial((8, 8, 1), total_count=16)
    to_code = networks.mlp((8, 8, 1), posterior.params_size(latent_size), hidden_sizes=(100, 100))
    to_image = networks.mlp(
        (latent_size,), likelihood.params_size((8, 8, 1)), hidden_sizes=(100, 100)
    )
    return tfp_vae.VAE(
        keras.Sequential([to_code, posterior]),
        keras.Sequential([to_image, likelihood]),
        **arguments,
    )


def train(vae):
    vae.compile(keras.optimizers.Adam(2e-3), jit_compile=False)  # too small for XLA to pay
    fitted = vae.fit(x, validation_data=(x_validation,), batch_size=100, epochs=EPOCHS, verbose=0)
    return fitted.history


vae = make_vae(latent_size=2)
history = train(vae)
plots.learning_curves(history)

# %% [markdown]
# The three curves belong together. Each is a mean over images, in nats:
#
# - *log-likelihood*, log p(x|z): how probable the image is, given its code. Higher is better.
# - *KL divergence*: what the code costs, which is how much it tells about the image.
# - *ELBO*, the evidence lower bound: the first minus the second. Training maximizes it.

# %%
terms = {name: history[f"val_{name}"][-1] for name in ("elbo", "log_likelihood", "kl")}
print("validation:", {name: round(value, 2) for name, value in terms.items()})
np.testing.assert_allclose(terms["elbo"], terms["log_likelihood"] - terms["kl"], rtol=1e-4)

# %% [markdown]
# ## Where the codes are now
#
# Each code is a distribution. Below are the means of q(z|x), with circles that hold half and 95 % of
# the probability of the prior.

# %%
posterior = vae.encode(x)
means = posterior.mean().numpy()
draws = posterior.sample(seed=0).numpy()
figure = latent_plots.latent_map(means, labels)
for share in (0.5, 0.95):
    radius = np.sqrt(-2 * np.log(1 - share))  # of a normal distribution in two dimensions
    figure.axes[0].add_patch(Circle((0, 0), radius, fill=False, linestyle="--"))
    inside = np.mean(np.linalg.norm(draws, axis=1) < radius)
    print(
        f"{share:.0%} of the prior, and {inside:.0%} of draws from q(z|x), lie within {radius:.2f}"
    )
figure

# %% [markdown]
# They are gathered around the place from which we shall draw. The fit is not perfect, codes reach
# further out than the prior does; lesson 6 is about that. An autoencoder's codes had nothing of it.
#
# Let us walk over this map. The lattice below decodes a code at each place; the places follow the
# prior, so that each picture stands for equally much of its probability. Digits change into each
# other with few pictures in between that are none.

# %%
latent_plots.manifold(vae, num_steps=12, limits=(0, 16))

# %% [markdown]
# ## New digits
#
# `generate` draws codes from the prior and decodes them. As in lesson 1, a classifier of real digits
# says how sure it is of what it sees.

# %%
forest = RandomForestClassifier(100, random_state=0).fit(x.reshape(len(x), -1), labels)


def confidence(images):
    return forest.predict_proba(images.reshape(len(images), -1)).max(axis=1).mean()


of_real, of_vae = confidence(x_test), confidence(vae.generate(500))
print(f"mean confidence: {of_real:.2f} for real digits, {of_vae:.2f} for samples of the VAE")
plots.samples(vae, num_rows=3, limits=(0, 16))

# %% [markdown]
# Higher than what lesson 1 found for random codes of an autoencoder, without any repair.
#
# ## A number for the whole model
#
# The VAE is a model of probability: p(x) is the probability of an image, whatever its code. The ELBO
# is a lower bound of log p(x), and importance sampling comes close to log p(x) itself (lesson 6).
# `evaluate` gives both, for test images, with the error that comes from having only so many of them.
# It may warn of few effective samples: a few of the draws then decide the NLL, and -log p(x) is smaller.

# %%
numbers = evaluation.evaluate(vae, x_test, num_samples=500)
for name in ("negative_elbo", "nll"):
    print(f"{name:14}{numbers[name]:8.2f} +- {numbers[name + '_error']:.2f} nats per image")
assert numbers["nll"] < numbers["negative_elbo"]

# %% [markdown]
# Is that good? A number needs another one beside it. The simplest model of these images gives each
# pixel its own binomial distribution, without any code.

# %%
frequency = (x.mean(axis=0) * len(x) + 8) / (16 * len(x) + 16)  # never exactly 0 or 1
pixels = tfpl.IndependentBinomial.new(
    np.log(frequency / (1 - frequency)).reshape(1, -1).astype("float32"), (8, 8, 1), total_count=16
)
without_code = -float(np.mean(pixels.log_prob(x_test)))
print(f"independent pixels: {without_code:.1f} nats; the VAE: {numbers['nll']:.1f}")

# %% [markdown]
# ## Exercises
#
# 1. How many dimensions does the code need? Train with `latent_size` 8 and compare the NLL, the KL
#    divergence and the samples.
# 2. `objective=tfp_vae.objectives.ELBO(beta=0.0)` leaves the KL divergence out of the loss. What
#    happens to the standard deviations of q(z|x), and to the KL divergence?
# 3. Of 8 dimensions, how many does the model use? `evaluation.kl_by_dimension` and
#    `evaluation.active_units` tell.
#
# ## Answers
#
# **1.** More dimensions help: the NLL falls by many nats. The code tells more about the image, so the
# KL divergence is larger, but the log-likelihood grows by even more. Samples have sharper strokes,
# although the prior now fits the codes less closely.

# %%
larger = make_vae(latent_size=8)
train(larger)
better = evaluation.evaluate(larger, x_test, num_samples=500)
for name in ("nll", "kl", "log_likelihood"):
    print(f"{name:15}2 dimensions {numbers[name]:8.2f}    8 dimensions {better[name]:8.2f}")
plots.samples(larger, num_rows=3, limits=(0, 16))

# %% [markdown]
# **2.** Nothing keeps the posterior wide: standard deviations shrink towards points, the codes spread
# out, and the KL divergence grows without bound. The model is on its way back to an autoencoder.

# %%
free = make_vae(latent_size=2, objective=tfp_vae.objectives.ELBO(beta=0.0))
train(free)
for name, model in {"ELBO": vae, "beta = 0": free}.items():
    q = model.encode(x_test)
    kl = q.kl_divergence(model.prior_distribution()).numpy().mean()
    print(f"{name:9} median stddev {np.median(q.stddev()):.4f}, mean KL {kl:8.1f} nats")

# %% [markdown]
# **3.** The KL divergence is a sum over the dimensions of the code. A dimension that tells nothing
# has a KL divergence near 0 and a mean that never moves.

# %%
of_dimensions = evaluation.kl_by_dimension(larger, x_test)["z"]
print("nats in each dimension:", np.sort(of_dimensions)[::-1].round(2))
print("active:", evaluation.active_units(larger, x_test), "of", len(of_dimensions))
