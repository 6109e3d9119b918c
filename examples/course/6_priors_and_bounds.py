# %% [markdown]
# # 6. Priors and tighter bounds
#
# The ELBO is below log p(x), for two reasons that lie in our hands. The encoder's q(z|x) is not the
# true posterior: more draws give a *tighter bound*. And the prior N(0, 1) is not where the codes are:
# a *better prior* makes a better model. This lesson does both, first where log p(x) is known exactly.

# %%
import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from matplotlib.figure import Figure

import tfp_vae
from tfp_vae import evaluation, networks, objectives, plots
from tfp_vae import layers as tfpl

# %matplotlib inline
tfd = tfp.distributions
keras.utils.set_random_seed(0)
EPOCHS = 30

# %% [markdown]
# ## A model whose evidence is known
#
# z is N(0, 1) in 3 dimensions, and x is z times a matrix W, plus noise of standard deviation s, in 5
# dimensions. Then x is normal with covariance $W^T W + s^2 I$, so log p(x) has a closed form. The true
# posterior is normal, too, with precision (inverse covariance) $\Lambda = I + W W^T / s^2$.
#
# A VAE's encoder gives independent dimensions, which cannot be exact here, as $\Lambda$ is not
# diagonal. The best that it can do has the true mean and the variances $1 / \Lambda_{jj}$, and its gap
# to the evidence is $\tfrac12 (\sum_j \log \Lambda_{jj} - \log \det \Lambda)$ for each x.


# %%
def normal(mean, covariance):
    return tfd.MultivariateNormalTriL(mean, np.linalg.cholesky(covariance))


random = np.random.default_rng(0)
w, s = random.normal(size=(3, 5)), 0.5
precision = np.eye(3) + w @ w.T / s**2
evidence = normal(np.zeros(5), w.T @ w + s**2 * np.eye(5))
prior = tfd.MultivariateNormalDiag(np.zeros(3))
toy_x = evidence.sample(200, seed=0).numpy()
posterior_mean = toy_x @ w.T @ np.linalg.inv(precision) / s**2
q = tfd.MultivariateNormalDiag(posterior_mean, 1 / np.sqrt(np.diag(precision)))


def log_weights(q, num_samples, seed):
    """Return log p(x|z) p(z) / q(z|x) for draws of z from q, `[num_samples, num_examples]`."""
    z = q.sample(num_samples, seed=seed)
    likelihood = tfd.MultivariateNormalDiag(z @ w, s * np.ones(5))
    return (likelihood.log_prob(toy_x) + prior.log_prob(z) - q.log_prob(z)).numpy()


exact = evidence.log_prob(toy_x).numpy().mean()
elbo = log_weights(q, 2000, seed=1).mean()
gap = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
print(f"exact log p(x) {exact:.3f}, ELBO {elbo:.3f}")
print(f"gap {exact - elbo:.3f}, by the formula {gap:.3f}")
np.testing.assert_allclose(exact - elbo, gap, atol=0.05)

# %% [markdown]
# ## The importance-weighted bound
#
# The ELBO is the mean of $\log w$, with the weight $w = p(x|z)\,p(z) / q(z|x)$. The mean of w itself is
# p(x), exactly. So take the logarithm of the mean of K weights: a bound again, and it rises with K to
# log p(x) (Burda et al., 2016).


# %%
def bound(q, num_samples, seed=2, repeats=4000):
    """Estimate the bound of K draws from about `repeats` draws in groups of K."""
    groups = max(1, repeats // num_samples)
    weights = log_weights(q, groups * num_samples, seed)
    weights = weights.reshape(groups, num_samples, -1)
    return (tf.reduce_logsumexp(weights, axis=1) - np.log(num_samples)).numpy().mean()


numbers = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
bounds = [bound(q, number) for number in numbers]
for number, value in zip(numbers, bounds, strict=True):
    print(f"K = {number:5}: {value:.3f}")
assert np.all(np.diff(bounds) > -0.01)
assert abs(bounds[-1] - exact) < 0.05
figure = Figure(figsize=(6, 3), layout="constrained")
axes = figure.subplots()
axes.semilogx(numbers, bounds, "o-", label="bound of K draws")
axes.axhline(exact, linestyle="--", color="black", label="exact log p(x)")
axes.set(xlabel="K", ylabel="nats per example")
axes.legend()
figure

# %% [markdown]
# `vae.log_prob(x, num_samples=1000)` is this bound, for any VAE. And `objectives.IWAE(num_samples=5)`
# trains with it. Tight bounds are better numbers, but not always better trainings: as K grows, the
# gradient for the encoder has less signal beside its noise (Rainforth et al., 2018).
#
# ## A better prior
#
# Back to the digits, with a code of two dimensions so that we can look at it. Lesson 2 has seen that
# codes reach further out than N(0, 1). A prior can be *trained* with the rest of the model: the KL
# divergence pulls it to where the codes are. `NormalMixture` is a mixture of normal distributions with
# trained means, scales and weights.

# %%
splits = tfp_vae.datasets.load("digits")
x, x_test = splits.train.astype("float32"), splits.test


def make_networks(latent_size=2):
    posterior = tfpl.MultivariateNormalDiag(latent_size)
    likelihood = tfpl.IndependentBinomial((8, 8, 1), total_count=16)
    to_code = networks.mlp((8, 8, 1), posterior.params_size(latent_size), hidden_sizes=(100,))
    to_image = networks.mlp((latent_size,), likelihood.params_size((8, 8, 1)), hidden_sizes=(100,))
    return keras.Sequential([to_code, posterior]), keras.Sequential([to_image, likelihood])


def train(vae):
    keras.utils.set_random_seed(1)
    vae.compile(keras.optimizers.Adam(3e-3), jit_compile=False)  # too small for XLA to pay
    vae.fit(x, batch_size=100, epochs=EPOCHS, verbose=0)
    return vae


vaes = {
    "N(0, 1)": train(tfp_vae.VAE(*make_networks())),
    "mixture": train(
        tfp_vae.VAE(*make_networks(), prior=tfp_vae.priors.NormalMixture(2, num_components=20))
    ),
}
mismatch = {}
print(f"{'prior':10}NLL of test images   information   KL(q(z) || p(z))")
for name, vae in vaes.items():
    nll = evaluation.nll(vae, x_test, num_samples=500).value
    information = evaluation.mutual_information(vae, x).value
    mismatch[name] = evaluation.aggregate_kl(vae, x).value
    print(f"{name:10}{nll:14.1f}{information:17.2f}{mismatch[name]:15.2f}")

# %% [markdown]
# The KL divergence of the ELBO has two parts. *Information* is what codes tell about their images: a
# price worth paying. The other, KL(q(z) || p(z)), is the *mismatch* between all codes together, the
# aggregate posterior q(z), and the prior: a price for nothing. The trained prior makes this part
# smaller.

# %%
ticks = np.linspace(-8, 8, 200).astype("float32")
lattice = np.stack(np.meshgrid(ticks, ticks), axis=-1)
figure = Figure(figsize=(9, 4.2), layout="constrained")
panels = figure.subplots(1, 2)
for axes, (name, vae) in zip(panels, vaes.items(), strict=True):
    density = vae.prior_distribution().prob(lattice)
    codes = vae.encode(x).sample(seed=0).numpy()
    axes.contourf(ticks, ticks, density, levels=12, cmap="Blues")
    axes.scatter(*codes.T, s=2, color="C1", label="codes of the data")
    axes.set(title=f"prior: {name}", xlabel="z0", ylabel="z1", aspect="equal")
    axes.set(xlim=(-8, 8), ylim=(-8, 8))
panels[0].legend(loc="upper left")
figure

# %%
samples = np.stack([vae.generate(12, seed=0) for vae in vaes.values()])
plots.grid(samples, "Samples", [*vaes], limits=(0, 16))

# %% [markdown]
# ## Exercises
#
# 1. In the linear model, an encoder of twice the best standard deviations: how far is its ELBO from
#    the evidence, and how many draws make up for it?
# 2. How sure is a value of `log_prob`? If few of the draws have nearly all of the weight, it is not.
#    `evaluation.importance_sampling` gives the *effective number of draws*. Compare codes of 2 and of
#    16 dimensions.
# 3. Train with `objectives.IWAE(num_samples=5)` and the prior N(0, 1). Is the NLL better, and what
#    becomes of the ELBO?
#
# ## Answers
#
# **1.** A wide q wastes most draws on codes that do not explain x. The bound still rises to the
# evidence, only later. For normal distributions the gap has a closed form as well, the KL divergence
# of q from the true posterior.

# %%
wide = tfd.MultivariateNormalDiag(posterior_mean, 2 / np.sqrt(np.diag(precision)))
true = normal(posterior_mean, np.linalg.inv(precision))
wide_gap = wide.kl_divergence(true).numpy().mean()
print(f"gap of the ELBO: {exact - bound(wide, 1):.3f}, by the formula {wide_gap:.3f}")
np.testing.assert_allclose(exact - bound(wide, 1), wide_gap, rtol=0.05)
for number in (1, 10, 100, 1000):
    print(
        f"K = {number:4}: best q {bound(q, number) - exact:7.3f}, wide q {bound(wide, number) - exact:7.3f}"
    )

# %% [markdown]
# **2.** In more dimensions, errors of the encoder multiply, and fewer draws count. An NLL from few
# effective draws is too high: log_prob is a lower bound, not an unbiased estimate.

# %%
larger = train(tfp_vae.VAE(*make_networks(16)))
for size, vae in {2: vaes["N(0, 1)"], 16: larger}.items():
    found = evaluation.importance_sampling(vae, x_test, num_samples=500)
    effective = np.median(found["effective_samples"])
    print(
        f"{size:2} dimensions: {effective:5.1f} effective draws of 500, NLL {-found['log_prob'].mean():.1f}"
    )

# %% [markdown]
# **3.** Often the NLL is a little better. The ELBO is not what was trained, so it may be worse: with
# several draws, q(z|x) need not be close to the true posterior, it only has to cover it.

# %%
iwae = train(tfp_vae.VAE(*make_networks(), objective=objectives.IWAE(num_samples=5)))
for name, vae in {"ELBO": vaes["N(0, 1)"], "IWAE": iwae}.items():
    results = evaluation.evaluate(vae, x_test, num_samples=500)
    print(f"trained by {name}: NLL {results['nll']:.1f}, -ELBO {results['negative_elbo']:.1f}")
