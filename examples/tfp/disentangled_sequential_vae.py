"""A disentangled sequential VAE: what stays in a video, and what moves, in latents of their own.

f says what all frames share, z_t what is in frame t; the prior of z_t is an LSTM over the frames before. Nothing names
the two, but a shape costs nats in every z_t and only once in f. The videos are shapes that move along a line, rendered
here, so all is known: with f of one video and z of another, the decoder should draw the first shape on the second path,
a video that can be rendered too. Linear probes find the shape in f and the direction in z, and less of each in the
other.

Reference: Li & Mandt, 2018, Disentangled Sequential Autoencoder, arXiv:1803.02991 (the factorized posterior). After
TFP's example of the same name.

Run: python examples/tfp/disentangled_sequential_vae.py [picture.png]
"""

import itertools
import sys
import time

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from keras import layers
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tfp_vae import layers as tfpl

tfd = tfp.distributions
NUM_FRAMES, SIZE, SHAPE_SIZE = 8, 16, 5
STATIC_SIZE, DYNAMIC_SIZE, HIDDEN_UNITS = 8, 3, 128
# Row and column of a step.
DIRECTIONS = np.array([[0, 1], [0, -1], [1, 0], [-1, 0]])


def make_shapes() -> np.ndarray:
    """Render a square, a disc, a cross and a triangle."""
    row, column = np.mgrid[:SHAPE_SIZE, :SHAPE_SIZE] - SHAPE_SIZE // 2
    square = np.maximum(abs(row), abs(column)) == 2
    disc = row**2 + column**2 <= 5
    cross = row * column == 0
    triangle = 2 * abs(column) <= row + 2
    return np.stack([square, disc, cross, triangle])


def render(shape: int, direction: int, along: int, across: int) -> np.ndarray:
    """Render a video: the shape makes a step in each frame, and never leaves the picture."""
    step = DIRECTIONS[direction]
    start = np.where(step == 0, across, along)
    start = np.where(step < 0, SIZE - SHAPE_SIZE - start, start)
    places = start + step * np.arange(NUM_FRAMES)[:, np.newaxis]
    pixels = make_shapes()[shape]
    video = np.zeros([NUM_FRAMES, SIZE, SIZE, 1], "float32")
    for frame, (row, column) in zip(video, places, strict=True):
        frame[row : row + SHAPE_SIZE, column : column + SHAPE_SIZE, 0] = pixels
    return video


def make_data() -> tuple[np.ndarray, np.ndarray]:
    """Render all videos, and return them with what they are of: shape and path, in a random order."""
    room = SIZE - SHAPE_SIZE + 1
    factors = itertools.product(
        range(4), range(len(DIRECTIONS)), range(room - NUM_FRAMES + 1), range(room)
    )
    factors = np.random.default_rng(0).permutation(list(factors))
    return np.stack([render(*row) for row in factors]), factors


def normals(params) -> tfd.Distribution:
    """Make the normal distributions of z, one for each z_t, from locations and unconstrained scales."""
    loc, scale = tf.split(params, 2, -1)
    return tfd.Independent(tfd.Normal(loc, 1e-3 + tf.nn.softplus(scale)), 2)


class Dynamics(layers.Layer):
    """The prior of z: it passes on the draw of q(z|x), and adds KL(q(z_t|x_t) || p(z_t|z_<t)) to the loss."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.past = layers.LSTM(HIDDEN_UNITS, return_sequences=True)
        self.params = layers.Dense(2 * DYNAMIC_SIZE)

    def build(self, input_shape):
        self.past.build(input_shape)
        self.params.build((*input_shape[:-1], HIDDEN_UNITS))

    def prior(self, z) -> tfd.Distribution:
        """Return p(z_t|z_<t) for each frame."""
        before = tf.pad(z[:, :-1], [[0, 0], [1, 0], [0, 0]])
        return normals(self.params(self.past(before)))

    def call(self, q):
        z = tf.convert_to_tensor(q)
        self.add_loss(tf.reduce_mean(tfd.kl_divergence(q, self.prior(z))))
        return z

    def compute_output_shape(self, input_shape):
        return input_shape

    def sample(self, number: int) -> tf.Tensor:
        """Draw z of new videos, one frame after another."""
        z = np.zeros([number, NUM_FRAMES, DYNAMIC_SIZE], "float32")
        for t in range(NUM_FRAMES):
            z[:, t] = self.prior(z).sample()[:, t]
        return tf.constant(z)


def make_encoder() -> keras.Model:
    """Make q(f|x), of all frames, and q(z|x), where each z_t sees one frame."""
    x = keras.Input((NUM_FRAMES, SIZE, SIZE, 1))
    frames = layers.Dense(HIDDEN_UNITS, "relu")(layers.Reshape((NUM_FRAMES, -1))(x))
    prior = tfd.MultivariateNormalDiag(tf.zeros(STATIC_SIZE))
    regularizer = tfpl.KLDivergenceRegularizer(prior, use_exact_kl=True)
    f = layers.Bidirectional(layers.LSTM(HIDDEN_UNITS // 2))(frames)
    f = layers.Dense(tfpl.MultivariateNormalDiag.params_size(STATIC_SIZE))(f)
    f = tfpl.MultivariateNormalDiag(STATIC_SIZE, activity_regularizer=regularizer)(f)
    z = layers.Dense(HIDDEN_UNITS, "relu")(frames)
    z = tfpl.DistributionLambda(normals)(layers.Dense(2 * DYNAMIC_SIZE)(z))
    return keras.Model(x, [f, z])


def make_decoder() -> keras.Model:
    """Make p(x_t|f, z_t) of each frame."""
    f, z = keras.Input((STATIC_SIZE,)), keras.Input((NUM_FRAMES, DYNAMIC_SIZE))
    hidden = layers.Concatenate()([layers.RepeatVector(NUM_FRAMES)(f), z])
    for _ in range(2):
        hidden = layers.Dense(HIDDEN_UNITS, "relu")(hidden)
    logits = layers.Flatten()(layers.Dense(SIZE * SIZE)(hidden))
    x = tfpl.IndependentBernoulli((NUM_FRAMES, SIZE, SIZE, 1))(logits)
    return keras.Model([f, z], x)


def train(model: keras.Model, x: np.ndarray, steps: int, batch_size: int) -> None:
    """Maximize the ELBO."""
    data = tf.data.Dataset.from_tensor_slices((x, x)).shuffle(len(x), seed=0).repeat()
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps)),
        loss=lambda x, rv_x: -rv_x.log_prob(x),
        steps_per_execution=20,
    )
    model.fit(data.batch(batch_size), steps_per_epoch=steps, shuffle=False, verbose=0)


def probe(code: np.ndarray, factor: np.ndarray) -> float:
    """Return how often a linear classifier reads a factor from codes that it was not fitted to."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return float(cross_val_score(classifier, code.reshape(len(code), -1), factor, cv=5).mean())


def swapped(factors: np.ndarray) -> np.ndarray:
    """Return the factors of the videos with each one's shape, and the path of the next."""
    return np.concatenate([factors[:, :1], np.roll(factors[:, 1:], -1, 0)], 1)


def nearest(x: np.ndarray, videos: np.ndarray) -> np.ndarray:
    """Return the number of the video with the fewest other pixels than each x."""
    return np.array([np.abs(videos - one).sum((1, 2, 3, 4)).argmin() for one in x])


def draw(rows: dict[str, np.ndarray]) -> Figure:
    """Draw one video a row."""
    figure = Figure(figsize=(NUM_FRAMES, len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), NUM_FRAMES)
    for row, (name, video) in zip(axes, rows.items(), strict=True):
        for axis, frame in zip(row, video, strict=True):
            axis.imshow(frame[..., 0], cmap="gray_r", vmin=0.0, vmax=1.0)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name)
    return figure


def main(
    picture: str | None = None, steps: int = 10_000, num_test: int = 160, batch_size: int = 64
) -> dict[str, float]:
    """Train, and measure on videos that were held out; bounds are in nats per video."""
    keras.utils.set_random_seed(0)
    videos, factors = make_data()
    x, x_test, of_test = videos[num_test:], videos[:num_test], factors[:num_test]
    encoder, dynamics, decoder = make_encoder(), Dynamics(), make_decoder()
    q_f, q_z = encoder.outputs
    model = keras.Model(encoder.inputs[0], decoder([q_f, dynamics(q_z)]))
    start = time.perf_counter()
    train(model, x, steps, batch_size)
    seconds = time.perf_counter() - start

    f, z = (q.mean().numpy() for q in encoder(videos))
    other = np.roll(z[:num_test], -1, 0)
    x_swapped = decoder([f[:num_test], other]).mode().numpy()
    expected, found = swapped(of_test), factors[nearest(x_swapped, videos)]
    results = {
        "-ELBO, training": model.evaluate(x, x, verbose=0),
        "entropy, training": float(np.log(len(x))),
        "-ELBO, test": model.evaluate(x_test, x_test, verbose=0),
        "shape from f": probe(f, factors[:, 0]),
        "shape from z": probe(z, factors[:, 0]),
        "direction from f": probe(f, factors[:, 1]),
        "direction from z": probe(z, factors[:, 1]),
        "swapped: right shape": float(np.mean(found[:, 0] == expected[:, 0])),
        "swapped: right path": float(np.mean((found == expected)[:, 1:].all(-1))),
        "seconds of training": seconds,
    }
    for name, value in results.items():
        print(f"{name:24}{value:9.3f}")
    if picture:
        new = decoder([tf.random.normal([2, STATIC_SIZE]), dynamics.sample(2)])
        rows = {"f of": x_test[0], "z of": x_test[1], "both": x_swapped[0]}
        rows |= {f"new {i + 1}": video for i, video in enumerate(new.mean().numpy())}
        draw(rows).savefig(picture)
    return results


if __name__ == "__main__":
    main(*sys.argv[1:])
