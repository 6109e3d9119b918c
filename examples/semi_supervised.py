"""A hundred labels and many images without: the semi-supervised VAE M2, against a classifier of the hundred alone.

p(x, y, z) = p(y) p(z) p(x|y, z), where the label y is known of a few images. The pieces are those of a conditional VAE,
with the label as its condition, and a classifier q(y|x). A known label gives the bound of the conditional VAE; an
unknown one is summed over: sum_y q(y|x) (bound(x, y) - log q(y|x)). The classifier also learns from the known labels.

Reference: Kingma et al., 2014, Semi-supervised learning with deep generative models, arXiv:1406.5298.

Run: python examples/semi_supervised.py
"""

import keras
import numpy as np
import tensorflow as tf

import tfp_vae
from tfp_vae import layers as tfpl
from tfp_vae import networks

NUM_LABELS, LATENT_SIZE, UNKNOWN = 10, 4, -1


class SemiSupervisedVAE(keras.Model):
    """M2: a conditional VAE and a classifier, trained together.

    Args:
        vae: a VAE whose condition is a label.
        classifier: network from x to logits of the labels.
        weight: of the classifier's own loss, in nats per example with a label.
        seed: of the draws.

    Call arguments:
        data: dict of "x" and "label", `[batch]`, which is -1 where it is not known.
    """

    def __init__(self, vae: tfp_vae.VAE, classifier: keras.Model, weight: float, seed: int = 0):
        super().__init__(autocast=False)
        self.vae, self.classifier, self.weight, self.seed = vae, classifier, weight, seed
        self.bound_metric = keras.metrics.Mean(name="bound")

    def call(self, data, training=False):
        """Return the bound of log p(x, y), or of log p(x), and log q(y|x) where y is known, else 0: each `[batch]`."""
        x, label = data["x"], data["label"]
        log_q = tf.nn.log_softmax(self.classifier(x))
        bounds = self.bounds(x, training)
        one_hot = tf.one_hot(label, NUM_LABELS)  # of an unknown label: zeros
        known = tf.reduce_sum(one_hot, -1)
        of_unknown = tf.reduce_sum(tf.exp(log_q) * (bounds - log_q), -1)
        bound = tf.where(known > 0.0, tf.reduce_sum(one_hot * bounds, -1), of_unknown)
        return {"bound": bound, "log_q": tf.reduce_sum(one_hot * log_q, -1), "known": known}

    def bounds(self, x, training: bool) -> tf.Tensor:
        """Return the bound of log p(x, y) for each label y, `[batch, num_labels]`."""
        step = tf.cast(self.optimizer.iterations, tf.int32) if training else tf.constant(0)
        labels = tf.tile(tf.range(NUM_LABELS)[:, tf.newaxis], [1, tf.shape(x)[0]])
        repeated = tf.repeat(x[tf.newaxis], NUM_LABELS, 0)
        data = {
            "x": tf.reshape(repeated, [-1, *x.shape[1:]]),
            "condition": tf.reshape(labels, [-1]),
        }
        seed = tf.random.fold_in(tf.constant([int(training), self.seed]), step)
        elbo = self.vae.objective.terms(self.vae.one_pass(data, seed))["elbo"]
        return tf.transpose(tf.reshape(elbo, [NUM_LABELS, -1])) - np.float32(np.log(NUM_LABELS))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Average the bounds, and add the classifier's loss over the known labels."""
        self.bound_metric.update_state(y_pred["bound"])
        cross_entropy = -tf.math.divide_no_nan(
            tf.reduce_sum(y_pred["log_q"]), tf.reduce_sum(y_pred["known"])
        )
        return self.weight * cross_entropy - tf.reduce_mean(y_pred["bound"])


def make_vae(splits: tfp_vae.datasets.Splits) -> tfp_vae.VAE:
    """Make p(x|y, z) and q(z|x, y); the label is their condition."""
    posterior, likelihood = tfpl.MultivariateNormalDiag, tfpl.IndependentBinomial
    dense, shape = keras.layers.Dense, splits.event_shape
    scaled = keras.Sequential([keras.Input(shape), keras.layers.Rescaling(1.0 / 16.0)])
    to_posterior = [
        dense(200, "relu"),
        dense(posterior.params_size(LATENT_SIZE)),
        posterior(LATENT_SIZE),
    ]
    to_likelihood = [
        dense(200, "relu"),
        dense(likelihood.params_size(shape)),
        likelihood(shape, total_count=16),
    ]
    label = networks.one_hot(NUM_LABELS)
    return tfp_vae.VAE(
        networks.from_inputs({"x": scaled, "condition": label}, to_posterior),
        networks.from_inputs({"z": (LATENT_SIZE,), "condition": label}, to_likelihood),
    )


def make_classifier(shape) -> keras.Model:
    """Make a network from images to logits of the labels."""
    network = networks.mlp(shape, NUM_LABELS, hidden_sizes=(100,))
    return keras.Sequential([keras.Input(shape), keras.layers.Rescaling(1.0 / 16.0), network])


def hide(labels: np.ndarray, per_label: int, seed: int) -> np.ndarray:
    """Keep some labels of each kind, chosen at random, and hide the others."""
    random, kept = np.random.default_rng(seed), np.full_like(labels, UNKNOWN)
    for label in range(NUM_LABELS):
        chosen = random.permutation(np.flatnonzero(labels == label))[:per_label]
        kept[chosen] = label
    return kept


def accuracy(classifier: keras.Model, data) -> float:
    """Count how often the most probable label is the true one."""
    return float(np.mean(classifier.predict(data["x"], verbose=0).argmax(-1) == data["condition"]))


def main(per_label: int = 10, epochs: int = 40, seed: int = 0) -> dict[str, float]:
    """Train both, and count their errors on images that neither has seen."""
    splits = tfp_vae.datasets.load("digits", condition="label")
    unseen = {
        part: np.concatenate([splits.validation[part], splits.test[part]]) for part in splits.test
    }
    train = {"x": splits.train["x"], "label": hide(splits.train["condition"], per_label, seed)}
    known = train["label"] != UNKNOWN

    keras.utils.set_random_seed(seed)
    supervised = make_classifier(splits.event_shape)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    supervised.compile(keras.optimizers.Adam(3e-3), loss, jit_compile=True)
    supervised.fit(
        train["x"][known], train["label"][known], batch_size=50, epochs=4 * epochs, verbose=0
    )

    keras.utils.set_random_seed(seed)
    model = SemiSupervisedVAE(make_vae(splits), make_classifier(splits.event_shape), weight=30.0)
    model.compile(keras.optimizers.Adam(3e-3), jit_compile=True)
    history = model.fit(train, batch_size=100, epochs=epochs, verbose=0).history
    results = {
        "labels": float(np.sum(known)),
        "accuracy, labels alone": accuracy(supervised, unseen),
        "accuracy, with the other images": accuracy(model.classifier, unseen),
        "bound of log p(x), first epoch": history["bound"][0],
        "bound of log p(x), last epoch": history["bound"][-1],
    }
    for measure, value in results.items():
        print(f"{measure:34}{value:10.3f}")
    return results


if __name__ == "__main__":
    main()
