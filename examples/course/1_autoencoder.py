# %% [markdown]
# # 1. An autoencoder, and why random codes fail
#
# A *generative model* makes new examples that look like the data. This course builds one, the
# variational autoencoder (VAE), from a model that you may know already: the autoencoder. This first
# lesson shows what an autoencoder can do, and the one thing that it cannot.
#
# You need Python, NumPy and a first idea of neural networks. Each lesson runs in less than a minute
# on a laptop. At its end are exercises, and below them their answers.

# %%
import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from sklearn.ensemble import RandomForestClassifier

import tfp_vae
from tfp_vae import latent_plots, networks, plots
from tfp_vae import layers as tfpl

# %matplotlib inline
keras.utils.set_random_seed(0)
EPOCHS = 40

# %% [markdown]
# ## The data
#
# 1,797 handwritten digits of 8 x 8 pixels. Each pixel is a whole number from 0 to 16: how many of 16
# dots are black. The labels serve only to colour pictures and to judge the model; it learns from the
# images alone.

# %%
splits = tfp_vae.datasets.load("digits", condition="label")
x, labels = splits.train["x"], splits.train["condition"]
x_test, test_labels = splits.test["x"], splits.test["condition"]
print(f"{len(x):,} images of shape {x.shape[1:]}, values from {x.min():.0f} to {x.max():.0f}")
plots.grid(x[:30].reshape(3, 10, 8, 8, 1), "Some of the data")

# %% [markdown]
# ## The model
#
# An autoencoder is two networks. The *encoder* turns an image, 64 numbers, into a *code* z, here 2
# numbers. The *decoder* turns the code into an image again. Two numbers cannot hold 64 of any kind,
# so the networks must find what digits have in common.
#
# In this package, a network ends in a *distribution layer*:
#
# - The encoder ends in `Deterministic`: all probability on one code.
# - The decoder ends in `IndependentBinomial`: for each pixel, how probable each count from 0 to 16
#   is. So "the decoded image is close to the original" becomes "the original is probable", measured
#   by log p(x|z), in *nats* (natural logarithms). Lesson 4 is about this choice.


# %%
def make_autoencoder(latent_size):
    posterior = tfpl.Deterministic(latent_size)
    likelihood = tfpl.IndependentBinomial((8, 8, 1), total_count=16)
    to_code = networks.mlp((8, 8, 1), posterior.params_size(latent_size), hidden_sizes=(100, 100))
    to_image = networks.mlp(
        (latent_size,), likelihood.params_size((8, 8, 1)), hidden_sizes=(100, 100)
    )
    return tfp_vae.VAE(
        keras.Sequential([to_code, posterior]),
        keras.Sequential([to_image, likelihood]),
        objective=tfp_vae.objectives.Reconstruction(),
    )


def train(model):
    model.compile(keras.optimizers.Adam(2e-3), jit_compile=False)  # too small for XLA to pay
    return model.fit(x, batch_size=100, epochs=EPOCHS, verbose=0).history


autoencoder = make_autoencoder(latent_size=2)
history = train(autoencoder)
for epoch in {0, EPOCHS - 1}:
    print(
        f"epoch {epoch + 1:2}: log p(x|z) = {history['log_likelihood'][epoch]:.1f} nats per image"
    )

# %% [markdown]
# ## What it can do
#
# It compresses. Below are test images, which the training has not seen, above their
# reconstructions from 2 numbers each.

# %%
plots.reconstructions(autoencoder, x_test)

# %% [markdown]
# The codes are worth a look. Nobody told the model which digit is which, yet images of one digit lie
# together, because a decoder finds it easier to turn close codes into similar images.

# %%
codes = autoencoder.encode(x).mean().numpy()
latent_plots.latent_map(codes, labels)

# %% [markdown]
# ## What it cannot do
#
# Can the decoder make *new* digits? Draw a random code and decode it. But which codes to draw? The
# usual choice is the standard normal distribution, N(0, 1) in each dimension.

# %%
random_codes = np.random.default_rng(0).normal(size=(500, 2)).astype("float32")
made = autoencoder.decode(random_codes).mean().numpy()
plots.grid(made[:30].reshape(3, 10, 8, 8, 1), "Decoded from random codes", limits=(0, 16))

# %% [markdown]
# Hardly ever a good digit, and much the same ones again and again. To see why, look where the random
# codes lie among those of the data.

# %%
figure = Figure(figsize=(6, 4), layout="constrained")
axes = figure.subplots()
axes.scatter(*codes.T, s=6, label="codes of the data")
axes.scatter(*random_codes.T, s=6, label="random codes, N(0, 1)")
axes.set(xlabel="z0", ylabel="z1")
axes.legend()
print("standard deviation of the codes of the data:", codes.std(axis=0).round(1))
figure

# %% [markdown]
# The codes of the data spread over a region of their own, with holes in it, and nothing in the loss
# asked them to be anywhere in particular. The decoder has never seen most random codes in training,
# so what it makes of them is an accident.
#
# ## How bad is it?
#
# Pictures can deceive, so let us have a number. A classifier that was trained on real digits says how
# sure it is of what it sees: the probability of its best guess. For real test digits it is mostly
# sure.

# %%
forest = RandomForestClassifier(100, random_state=0).fit(x.reshape(len(x), -1), labels)


def confidence(images):
    return forest.predict_proba(images.reshape(len(images), -1)).max(axis=1).mean()


correct = forest.score(x_test.reshape(len(x_test), -1), test_labels)
of_real, of_random = confidence(x_test), confidence(made)
print(f"the classifier reads {correct:.0%} of the real test digits correctly")
print(f"its mean confidence: {of_real:.2f} for real digits, {of_random:.2f} for random codes")

# %% [markdown]
# ## A repair, and what comes next
#
# One can draw codes from where the data are. `fit_aggregate_prior` fits a mixture of normal
# distributions to the codes of the data, after the training.

# %%
mixture = tfp_vae.fit_aggregate_prior(autoencoder, x, num_components=10)
repaired = autoencoder.generate(500, prior=mixture)
of_mixture = confidence(repaired)
print(f"mean confidence: {of_mixture:.2f} for codes drawn from the mixture")
plots.grid(repaired[:30].reshape(3, 10, 8, 8, 1), "Codes from a mixture", limits=(0, 16))

# %% [markdown]
# Better. But this is two models, one on top of the other, and no number says how good they are
# together: an autoencoder gives no probability p(x) of an image. A VAE learns both at once: it keeps
# the codes where N(0, 1) is, closes the holes, and bounds log p(x). That is lesson 2.
#
# ## Exercises
#
# 1. Draw codes from *one* normal distribution that has the mean and covariance of the codes of the
#    data. Is that enough?
# 2. With more dimensions, reconstructions get better. Do random codes, too? Train an autoencoder
#    with `latent_size=16` and compare both numbers.
# 3. Decode the codes on the straight line between two test images. Where on the line is the decoded
#    image least like a digit?
#
# ## Answers
#
# **1.** One normal distribution has the right place and size, but it covers the holes as well. Its
# confidence lies between those of the random codes and of the mixture.

# %%
one_normal = np.random.default_rng(1).multivariate_normal(codes.mean(axis=0), np.cov(codes.T), 500)
of_normal = confidence(autoencoder.decode(one_normal.astype("float32")).mean().numpy())
print(f"N(0, 1): {of_random:.2f}, one normal: {of_normal:.2f}, mixture: {of_mixture:.2f}")

# %% [markdown]
# **2.** Reconstructions are far better: log p(x|z) of the test images rises. Random codes are not:
# in 16 dimensions, the data leave far more room empty. More freedom for the codes does not help to
# make new images.

# %%
large = make_autoencoder(latent_size=16)
train(large)


def reconstruction(model):
    code = model.encode(x_test).mean()
    return float(np.mean(model.decode(code).log_prob(x_test)))


print("latent size   log p(x|z) of test images   confidence, random codes")
for size, model in {2: autoencoder, 16: large}.items():
    print(f"{size:11}{reconstruction(model):22.1f}{confidence(model.generate(500)):27.2f}")

# %% [markdown]
# **3.** Somewhere between the ends, where no image has its code: the line crosses other digits'
# regions and the holes between them.

# %%
first, last = (
    autoencoder.encode(x_test[test_labels == digit][:1]).mean().numpy() for digit in (0, 6)
)
line = first + np.linspace(0, 1, 11)[:, np.newaxis] * (last - first)
on_line = autoencoder.decode(tf.constant(line, tf.float32)).mean().numpy()
sure = [confidence(image[np.newaxis]) for image in on_line]
print("confidence along the line:", np.round(sure, 2))
plots.grid(on_line[np.newaxis], "From a zero to a six", limits=(0, 16))
