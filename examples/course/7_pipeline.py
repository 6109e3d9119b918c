# %% [markdown]
# # 7. A VAE in a probabilistic pipeline
#
# A trained VAE is a joint distribution p(z, x), and so a building block: a prior over images for
# other models, a source of features, a density. All its parts are plain distributions of TensorFlow
# Probability (TFP). This lesson restores images of which only a part was seen, by importance sampling
# and by MCMC, each checked against an integral on a grid; then it takes codes to scikit-learn.

# %%
import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

import tfp_vae
from tfp_vae import evaluation, networks, plots
from tfp_vae import layers as tfpl

# %matplotlib inline
tfd = tfp.distributions
keras.utils.set_random_seed(0)
EPOCHS = 40
splits = tfp_vae.datasets.load("digits", condition="label")
x, labels = splits.train["x"].astype("float32"), splits.train["condition"]
x_test, test_labels = splits.test["x"], splits.test["condition"]


def train(latent_size):
    posterior = tfpl.MultivariateNormalDiag(latent_size)
    likelihood = tfpl.IndependentBinomial((8, 8, 1), total_count=16)
    to_code = networks.mlp((8, 8, 1), posterior.params_size(latent_size), hidden_sizes=(100,))
    to_image = networks.mlp((latent_size,), likelihood.params_size((8, 8, 1)), hidden_sizes=(100,))
    vae = tfp_vae.VAE(
        keras.Sequential([to_code, posterior]), keras.Sequential([to_image, likelihood])
    )
    vae.compile(keras.optimizers.Adam(3e-3), jit_compile=False)  # too small for XLA to pay
    vae.fit(x, batch_size=100, epochs=EPOCHS, verbose=0)
    return vae


vae = train(latent_size=2)
joint = vae.joint_distribution()
print(joint)
pair = joint.sample(seed=0)
print("log p(z, x) of a draw:", joint.log_prob(pair).numpy().round(2))

# %% [markdown]
# ## A question that the encoder was not trained for
#
# Somebody sees the upper half of a digit. What is the lower half? The answer is a distribution. With
# the code in between it is
#
# $$p(\mathrm{lower}\,|\,\mathrm{upper}) = \int p(\mathrm{lower}|z)\,p(z\,|\,\mathrm{upper})\,dz,$$
#
# and p(z | upper) is proportional to p(z) p(upper | z): the prior, and the likelihood of the pixels
# that were seen. The decoder's pixels are independent given z, so that is the sum over these pixels.

# %%
ROWS_SEEN = 4
image = x_test[test_labels == 3][1]


def log_density(z):
    """Return log p(z) + log p(upper half | z), `[...]`."""
    pixels = vae.decode(z).distribution.log_prob(image)  # [..., 8, 8, 1], not yet summed
    return prior.log_prob(z) + tf.reduce_sum(pixels[..., :ROWS_SEEN, :, :], axis=[-3, -2, -1])


prior = vae.prior_distribution()

# %% [markdown]
# ## The exact answer, on a grid
#
# The code has two dimensions: evaluate everywhere, and normalize.

# %%
ticks = np.linspace(-5, 5, 301).astype("float32")
grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
grid_weights = tf.nn.softmax(tf.cast(log_density(grid), tf.float64)).numpy()
means_on_grid = vae.decode(grid).mean().numpy().reshape(len(grid), -1)
exact = (grid_weights @ means_on_grid).reshape(8, 8)

# %% [markdown]
# ## Importance sampling
#
# A grid works for two dimensions, perhaps three. Drawing codes from the prior and weighing them by
# p(upper | z) works for some more.

# %%
draws = prior.sample(20_000, seed=1)
log_weights = log_density(draws) - prior.log_prob(draws)
weights = tf.nn.softmax(log_weights).numpy()
by_weights = (weights @ vae.decode(draws).mean().numpy().reshape(len(weights), -1)).reshape(8, 8)
print(f"of {len(weights):,} draws, {1 / np.sum(weights**2):.0f} count (effective number)")
print(f"largest difference from the grid: {np.abs(by_weights - exact).max():.3f} of 16")
assert np.abs(by_weights - exact).max() < 1

# %% [markdown]
# ## MCMC
#
# Hamiltonian Monte Carlo follows the gradient of the density, which flows through the decoder to z,
# and works for many dimensions. Several chains start at draws from the prior that the weights favour.
# TFP has all of it.

# %%
kernel = tfp.mcmc.HamiltonianMonteCarlo(log_density, step_size=0.1, num_leapfrog_steps=5)
kernel = tfp.mcmc.SimpleStepSizeAdaptation(kernel, num_adaptation_steps=100)
start = tf.gather(draws, tf.random.stateless_categorical(log_weights[tf.newaxis], 50, [0, 3])[0])


@tf.function(autograph=False)
def run_chains():
    return tfp.mcmc.sample_chain(
        150, start, kernel=kernel, num_burnin_steps=100, trace_fn=None, seed=[0, 2]
    )


chains = run_chains()  # [150, 50, 2]
by_chains = tf.reduce_mean(vae.decode(chains).mean(), axis=[0, 1]).numpy()[..., 0]
print(f"largest difference from the grid: {np.abs(by_chains - exact).max():.3f} of 16")
assert np.abs(by_chains - exact).max() < 2

# %%
figure = Figure(figsize=(6, 4), layout="constrained")
axes = figure.subplots()
density = grid_weights.reshape(301, 301)
axes.contourf(ticks, ticks, density, levels=10, cmap="Blues")
axes.scatter(*chains[::10].numpy().reshape(-1, 2).T, s=3, color="C1", label="chains")
z_of_whole = vae.encode(image[np.newaxis]).mean().numpy()[0]
axes.plot(*z_of_whole, "k*", markersize=12, label="code of the whole image")
near = grid[grid_weights > grid_weights.max() / 1000]
axes.set(xlabel="z0", ylabel="z1", title="p(z | upper half): exact (blue) and by MCMC")
axes.set(xlim=(near[:, 0].min() - 1, near[:, 0].max() + 1))
axes.set(ylim=(near[:, 1].min() - 1, near[:, 1].max() + 1))
axes.legend()
figure

# %% [markdown]
# Whole images, decoded from draws of z, show what the uncertainty means: all agree with the upper half,
# and differ mostly below. They are means of p(x|z), so without the noise of pixels.

# %%
seen = image.copy()
seen[ROWS_SEEN:] = np.nan  # plots show what is missing in blue
some = vae.decode(chains[-1, :8]).mean().numpy()
row = np.concatenate([[image, seen, exact[..., np.newaxis]], some])
plots.grid(
    row[np.newaxis],
    "Image, seen, exact mean; decoded draws of z given the upper half",
    limits=(0, 16),
)

# %% [markdown]
# ## Codes as features
#
# Labels are expensive, images are not: train the VAE on all images, and a classifier on the codes of the
# few that have labels. Is a code of 8 numbers a better start than 64 pixels? Judged on test images,
# with 50 labels, over 20 random choices of them.

# %%
larger = train(latent_size=8)
codes, test_codes = (evaluation.posterior_means(larger, part) for part in (x, x_test))
pixels, test_pixels = x.reshape(-1, 64) / 16, x_test.reshape(-1, 64) / 16
random = np.random.default_rng(0)
chosen = [random.choice(len(x), 50, replace=False) for _ in range(20)]


def accuracy(classifier, features, test_features):
    scores = [
        classifier.fit(features[few], labels[few]).score(test_features, test_labels)
        for few in chosen
    ]
    return f"{np.mean(scores):.3f} +- {np.std(scores) / np.sqrt(len(scores)):.3f}"


classifiers = {
    "nearest neighbour": KNeighborsClassifier(1),
    "logistic regression": LogisticRegression(max_iter=1000),
}
for name, classifier in classifiers.items():
    print(f"{name}: pixels {accuracy(classifier, pixels, test_pixels)}")
    print(f"{'':{len(name)}}  codes  {accuracy(classifier, codes, test_codes)}")

# %% [markdown]
# Do not expect a miracle: digits of 8 x 8 pixels are easy as they are, and 8 numbers can at best keep what
# matters of 64. Note what the comparison needs: the same labels for both, many choices of them, and an
# error beside each number. In pipelines of scikit-learn, `tfp_vae.sklearn.Encoder` does the same as a
# transformer.
#
# ## Exercises
#
# 1. Which digits could it be? Replace the lower half by the left half, or take another image, and look at
#    the labels of the training images whose codes are near the draws.
# 2. *An inverse problem.* Somebody measures only the means of 2 x 2 blocks of pixels, with noise of
#    standard deviation 0.5. Find p(z | measurement) on the grid and the mean image.
# 3. The encoder is fast but not the best. Fit a normal distribution to p(z | x) of one whole image by
#    `tfp.vi.fit_surrogate_posterior`, and compare its ELBO with the encoder's (the *amortization gap*).
#
# ## Answers
#
# **1.** Read the labels off the nearest neighbours of the draws, each weighing the same.

# %%
nearest = KNeighborsClassifier(5).fit(vae.encode(x).mean(), labels)
probabilities = nearest.predict_proba(chains[::10].numpy().reshape(-1, 2)).mean(axis=0)
for digit in np.argsort(probabilities)[::-1][:3]:
    print(f"it may be a {digit}: {probabilities[digit]:.0%}")

# %% [markdown]
# **2.** Only the likelihood changes. This is what makes a generative model a building block: the
# measurement is described by one line, and Bayes' rule does the rest.

# %%


def blocks(images):
    return tf.nn.avg_pool2d(tf.reshape(images, [-1, 8, 8, 1]), 2, 2, "VALID")


measured = tfd.Normal(blocks(image), 0.5).sample(seed=4)
log_posterior = prior.log_prob(grid) + tf.reduce_sum(
    tfd.Normal(blocks(means_on_grid), 0.5).log_prob(measured), axis=[1, 2, 3]
)
restored = (tf.nn.softmax(log_posterior).numpy() @ means_on_grid).reshape(8, 8, 1)
blown_up = np.kron(measured[0, ..., 0], np.ones((2, 2)))[..., np.newaxis]
for name, guess in {"blocks": blown_up, "restored": restored}.items():
    print(f"{name}: RMSE {np.sqrt(np.mean((guess - image) ** 2)):.2f} of 16")
plots.grid(np.stack([image, blown_up, restored])[np.newaxis], "Image, measured, restored")

# %% [markdown]
# **3.** The encoder is one network for all images. A distribution of its own for this image is closer to
# p(z | x). The grid knows the best value of all, log p(x).

# %%
one = x_test[:1]
encoder_q = vae.encode(one)
loc = tf.Variable(encoder_q.mean())
scale = tfp.util.TransformedVariable(encoder_q.stddev(), tfp.bijectors.Softplus())
own = tfd.MultivariateNormalDiag(loc, scale)
target = joint.experimental_pin(x=one).unnormalized_log_prob
tfp.vi.fit_surrogate_posterior(
    target, own, keras.optimizers.Adam(0.02), num_steps=150, sample_size=8, seed=(0, 1)
)


def elbo(q):
    z = q.sample(4000, seed=5)
    return float(tf.reduce_mean(target(z) - q.log_prob(z)))


log_area = 2 * np.log(ticks[1] - ticks[0])
evidence = float(
    tf.reduce_logsumexp(prior.log_prob(grid) + vae.decode(grid).log_prob(one[0])) + log_area
)
print(f"ELBO: encoder {elbo(encoder_q):.2f}, of its own {elbo(own):.2f}; log p(x) {evidence:.2f}")
assert elbo(encoder_q) < elbo(own) + 0.05
assert elbo(own) < evidence + 0.05
