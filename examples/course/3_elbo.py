# %% [markdown]
# # 3. The ELBO term by term, and the reparameterization by hand
#
# Lesson 2 trained a VAE in three lines. This one opens the box: what each term of the loss is, line
# by line, each checked by a second way to compute it; and how a gradient can pass through a random
# draw.
#
# The quantity that we want is the *evidence* log p(x), the logarithm of
#
# $$p(x) = \int p(x|z)\,p(z)\,dz.$$
#
# For most models the integral has no closed form. The ELBO is a lower bound that has one up to a
# mean over draws:
#
# $$\log p(x) \ge \mathrm{ELBO}(x) = E_{q(z|x)}[\log p(x|z)] - \mathrm{KL}(q(z|x)\,\|\,p(z)).$$

# %%
import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from matplotlib.figure import Figure

import tfp_vae
from tfp_vae import evaluation, networks
from tfp_vae import layers as tfpl

# %matplotlib inline
tfd = tfp.distributions
keras.utils.set_random_seed(0)
EPOCHS = 20
splits = tfp_vae.datasets.load("digits")
x, x_test = splits.train.astype("float32"), splits.test


def make_vae():
    posterior = tfpl.MultivariateNormalDiag(2)
    likelihood = tfpl.IndependentBinomial((8, 8, 1), total_count=16)
    to_code = networks.mlp((8, 8, 1), posterior.params_size(2), hidden_sizes=(100,))
    to_image = networks.mlp((2,), likelihood.params_size((8, 8, 1)), hidden_sizes=(100,))
    return tfp_vae.VAE(
        keras.Sequential([to_code, posterior]), keras.Sequential([to_image, likelihood])
    )


vae = make_vae()
vae.compile(keras.optimizers.Adam(3e-3))
history = vae.fit(x, batch_size=100, epochs=EPOCHS, verbose=0).history
print(f"ELBO of the training images: {history['elbo'][-1]:.1f} nats")

# %% [markdown]
# ## The KL divergence, in three ways
#
# `vae.encode` gives q(z|x) as a distribution of TensorFlow Probability (TFP). Both q and the prior
# are normal with independent dimensions, and then the divergence has a closed form, with the means
# $\mu_j$ and standard deviations $\sigma_j$ of q:
#
# $$\mathrm{KL} = \tfrac12 \sum_j \left(\mu_j^2 + \sigma_j^2 - 1 - \log \sigma_j^2\right).$$

# %%
one = x_test[:1]  # one image
q, prior = vae.encode(one), vae.prior_distribution()
mean, stddev = q.mean(), q.stddev()
by_formula = 0.5 * tf.reduce_sum(mean**2 + stddev**2 - 1 - tf.math.log(stddev**2), axis=-1)
by_tfp = q.kl_divergence(prior)
draws = q.sample(100_000, seed=0)
differences = (q.log_prob(draws) - prior.log_prob(draws)).numpy()[:, 0]
error = differences.std() / np.sqrt(len(differences))
print(f"formula {by_formula[0]:.4f}   TFP {by_tfp[0]:.4f}")
print(f"mean of log q(z|x) - log p(z) over draws: {differences.mean():.4f} +- {error:.4f}")
np.testing.assert_allclose(by_formula, by_tfp, rtol=1e-4)
assert abs(differences.mean() - by_tfp[0]) < 5 * error

# %% [markdown]
# ## The log-likelihood
#
# The decoder gives p(x|z): here 64 binomial distributions, whose log-probabilities add up because
# pixels are independent *given the code*. The mean over q(z|x) has no closed form, as there is a
# network between z and x. Draws of z estimate it; `fit` takes one draw for each image and step,
# which is noisy but right on average.

# %%
few = vae.decode(draws[:2000, 0]).log_prob(one).numpy()  # of 2,000 codes
log_likelihood = few.mean()
print(f"E[log p(x|z)]: {log_likelihood:.2f} +- {few.std() / np.sqrt(len(few)):.2f}")
print(f"a single draw is off by {few.std():.2f} nats, as a root mean square")

# %% [markdown]
# ## The sum, and what it bounds
#
# A code of two dimensions is small enough to do the integral for p(x) on a fine grid. So here we can
# see what is usually hidden: the distance of the ELBO from log p(x). Theory says that it is another
# KL divergence,
#
# $$\log p(x) - \mathrm{ELBO}(x) = \mathrm{KL}(q(z|x)\,\|\,p(z|x)) \ge 0,$$
#
# where p(z|x) = p(x|z) p(z) / p(x) is the *true posterior*, of which q(z|x) is an approximation.
# The grid has both.

# %%
ticks = np.linspace(-6, 6, 601).astype("float32")
grid = np.stack(np.meshgrid(ticks, ticks), axis=-1)  # [601, 601, 2]
log_area = 2 * np.log(ticks[1] - ticks[0])
log_joint = (vae.decode(grid.reshape(-1, 2)).log_prob(one)).numpy().reshape(grid.shape[:2])
log_joint = log_joint + prior.log_prob(grid).numpy()
log_evidence = tf.reduce_logsumexp(log_joint.astype("float64") + log_area).numpy()
log_true, log_q = log_joint - log_evidence, q.log_prob(grid).numpy()
gap = np.sum(np.exp(log_q + log_area) * (log_q - log_true))
elbo = np.sum(np.exp(log_q + log_area) * log_joint) + q.entropy()[0].numpy()
print(f"log p(x) {log_evidence:.3f} = ELBO {elbo:.3f} + KL(q || true posterior) {gap:.3f}")
np.testing.assert_allclose(log_evidence, elbo + gap, atol=0.02)

# %% [markdown]
# Two more checks: the ELBO from the terms above, and importance sampling, which estimates log p(x) for
# codes of any size. It does so from below: where q(z|x) is narrower than the true posterior, draws miss a
# part of it (lesson 6).

# %%
sampled = float(vae.log_prob(one, num_samples=10_000)[0])
print(f"ELBO from its terms {log_likelihood - by_tfp[0]:.2f}, on the grid {elbo:.2f}")
print(f"log p(x) by importance sampling {sampled:.3f}, on the grid {log_evidence:.3f}")
assert elbo < sampled < log_evidence + 0.05

# %%
figure = Figure(figsize=(10, 3.2), layout="constrained")
panels = figure.subplots(1, 3)
pictures = {"prior p(z)": prior.log_prob(grid), "true p(z|x)": log_true, "encoder's q(z|x)": log_q}
for axes, (title, log_density) in zip(panels, pictures.items(), strict=True):
    axes.contourf(ticks, ticks, np.exp(log_density), levels=12)
    axes.set(title=title, xlabel="z0", ylabel="z1", aspect="equal")
center = mean.numpy()[0]
for axes in panels[1:]:
    axes.set(xlim=center[0] + np.array([-1.5, 1.5]), ylim=center[1] + np.array([-1.5, 1.5]))
figure.suptitle("One image: where its code is before and after it is seen (right: zoomed in)")
figure

# %% [markdown]
# ## A gradient through a random draw
#
# Training needs the gradient of $E_{q}[f(z)]$ with respect to the parameters of q, over which the
# mean is taken. Two ways are known.
#
# - **Reparameterization.** Write the draw as $z = \mu + \sigma\epsilon$ with $\epsilon$ from N(0, 1).
#   The randomness now has no parameters, and z is an ordinary function of $\mu$ and $\sigma$:
#   differentiate f(z) as usual.
# - **Score function** (REINFORCE). $\nabla E_q[f(z)] = E_q[f(z)\,\nabla\log q(z)]$. It needs no
#   derivative of f, but its noise is larger.
#
# Take $f(z) = z^2$ and q = N($\mu$, $\sigma$). Then $E[f] = \mu^2 + \sigma^2$, and the gradients are
# exactly $2\mu$ and $2\sigma$.

# %%
mu, sigma = tf.constant(1.5), tf.constant(0.5)
epsilon = tf.random.stateless_normal([10_000], seed=[0, 1])
with tf.GradientTape(persistent=True) as tape:
    loc, scale = mu + tf.zeros([10_000]), sigma + tf.zeros([10_000])  # one of each for each draw
    tape.watch([loc, scale])
    z = loc + scale * epsilon  # the reparameterization, by hand
    path = z**2
    score = tf.stop_gradient(z**2) * tfd.Normal(loc, scale).log_prob(tf.stop_gradient(z))
gradients = {
    "reparameterized": tape.gradient(path, [loc, scale]),
    "score function": tape.gradient(score, [loc, scale]),
}
print(f"exact: {2 * mu:.2f}, {2 * sigma:.2f}")
for name, pair in gradients.items():
    text = [f"{np.mean(g):.3f} (one draw: +- {np.std(g):.2f})" for g in pair]
    print(f"{name}: {text[0]}, {text[1]}")
    for estimate, exact in zip(pair, (2 * mu, 2 * sigma), strict=True):
        assert abs(np.mean(estimate) - exact) < 5 * np.std(estimate) / 100

# %%
figure = Figure(figsize=(7, 3), layout="constrained")
axes = figure.subplots()
for name, (of_loc, _) in gradients.items():
    axes.hist(of_loc.numpy(), np.linspace(-5, 25, 61), alpha=0.6, label=name)
axes.axvline(2 * mu, color="black", label="exact")
axes.set(xlabel="gradient with respect to the mean, from one draw each", yticks=[])
axes.legend()
figure

# %% [markdown]
# Both are right on average; the spread of the reparameterized gradient is far smaller. That is why a
# VAE can train on one draw per image. Draws of `tfd.MultivariateNormalDiag` are reparameterized; so a
# VAE's training loop by hand is this:


# %%
def negative_elbo(model, batch, seed):
    q = model.encoder(batch)
    z = q.sample(seed=seed)  # reparameterized: gradients pass to the encoder
    log_likelihood = model.decoder(z).log_prob(batch)
    return tf.reduce_mean(q.kl_divergence(model.prior_distribution()) - log_likelihood)


by_hand = make_vae()
optimizer = keras.optimizers.Adam(3e-3)
weights = by_hand.encoder.trainable_variables + by_hand.decoder.trainable_variables


@tf.function(autograph=False)
def step(batch, seed):
    with tf.GradientTape() as tape:
        loss = negative_elbo(by_hand, batch, seed)
    optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
    return loss


losses = [
    float(step(batch, tf.constant([1, i])))
    for i, batch in enumerate(splits.batches(100, epochs=EPOCHS))
]
steps = splits.steps_per_epoch(100)
print(f"-ELBO, first and last epoch: {np.mean(losses[:steps]):.1f}, {np.mean(losses[-steps:]):.1f}")
for name, model in {"by hand": by_hand, "by fit": vae}.items():
    elbos = evaluation.elbo(model, x_test)["elbo"]
    print(f"{name}: ELBO of test images {elbos.mean():.1f}")

# %% [markdown]
# ## Exercises
#
# 1. The ELBO has a second form, $E_q[\log p(x|z) + \log p(z) - \log q(z|x)]$. Estimate it from the
#    same draws as above. Is its noise smaller or larger than that of the form with the KL divergence
#    in closed form?
# 2. Move the mean of q(z|x), along z0 by some tenths. What becomes of the ELBO, of the gap, and of their
#    sum? Is the encoder's mean the best one?
# 3. Show with a few numbers that the KL divergence is not symmetric: compare KL(N(0, 1) || N(0, 3))
#    with KL(N(0, 3) || N(0, 1)).
#
# ## Answers
#
# **1.** The same mean, another noise. Where q is near the true posterior,
# log p(x|z) + log p(z) - log q(z|x) is nearly the same number for each z, namely log p(x); the noise
# of its terms cancels. "Sticking the landing" (`ELBO(kl="sampled", estimator="stl")`) is about this.

# %%
z = draws[:2000, 0]
second_form = few + (prior.log_prob(z) - q.log_prob(z)).numpy()
first_form = few - by_tfp[0].numpy()
for name, values in {"KL in closed form": first_form, "KL sampled": second_form}.items():
    print(f"{name:18} {values.mean():.2f}, standard deviation of one draw {values.std():.2f}")
both = np.std(first_form - second_form) / np.sqrt(len(z))
assert abs(first_form.mean() - second_form.mean()) < 5 * both

# %% [markdown]
# **2.** log p(x) belongs to the decoder and the prior alone, so the sum stays: the ELBO falls by exactly
# what the gap grows. If another mean has a higher ELBO, the encoder is not at its best for this image: it
# is one network for all images (lesson 7).

# %%
for shift in (-0.4, -0.2, 0.0, 0.2, 0.4):
    moved = tfd.MultivariateNormalDiag(mean[0] + [shift, 0.0], stddev[0])
    log_moved = moved.log_prob(grid).numpy()
    probability = np.exp(log_moved + log_area)
    moved_elbo = np.sum(probability * (log_joint - log_moved))
    moved_gap = np.sum(probability * (log_moved - log_true))
    total = moved_elbo + moved_gap
    print(f"{shift:4.1f}: ELBO {moved_elbo:8.2f} + gap {moved_gap:6.2f} = {total:.2f}")
    np.testing.assert_allclose(total, log_evidence, atol=0.05)

# %% [markdown]
# **3.** In KL(q || p), places count by their probability under q. So a q that is wider than p costs
# much: it often draws what p holds for nearly impossible. That is why codes stay near the prior.

# %%
narrow, wide = tfd.Normal(0.0, 1.0), tfd.Normal(0.0, 3.0)
print(f"KL(narrow || wide) = {narrow.kl_divergence(wide):.3f}")
print(f"KL(wide || narrow) = {wide.kl_divergence(narrow):.3f}")
