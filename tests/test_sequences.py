"""Sequences of tokens: their distributions, networks, metrics and served form."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import special, stats

import tfp_vae
from tests.conftest import mostly_slow
from tfp_vae import evaluation, sampling, sequences
from tfp_vae import layers as tfpl
from tfp_vae.text import Vocabulary

tfd = tfp.distributions
LENGTH, NUM_TOKENS, SIZE = 4, 3, 2
ENCODERS = {
    "gru": sequences.gru_encoder,
    "conv": sequences.conv_encoder,
    "attention": sequences.attention_encoder,
}
DECODERS = {
    "causal conv": sequences.causal_conv_decoder,
    "gru": sequences.gru_decoder,
    "transformer": sequences.transformer_decoder,
}


def network(kind="causal conv", length=LENGTH, num_tokens=NUM_TOKENS, scale=1.5, **arguments):
    """A decoder with weights large enough that tokens depend on each other."""
    keras.utils.set_random_seed(0)
    made = DECODERS[kind](SIZE, length, num_tokens, units=8, **arguments)
    made.set_weights([scale * weight for weight in made.get_weights()])
    return made


def autoregressive(kind="causal conv", **arguments):
    return tfpl.AutoregressiveCategorical(network(kind, **arguments))


def independent():
    return keras.Sequential(
        [
            keras.layers.Dense(LENGTH * NUM_TOKENS, bias_initializer="random_normal"),
            tfpl.IndependentCategorical([LENGTH], NUM_TOKENS, padded=True),
        ]
    )


KINDS = {kind: lambda kind=kind: autoregressive(kind) for kind in DECODERS} | {
    "independent": independent
}
PAIRS = ["conv, causal conv", "gru, gru", "attention, transformer"]
Z = np.random.RandomState(0).normal(size=[3, SIZE]).astype("float32")


def all_sequences(length=LENGTH, num_tokens=NUM_TOKENS):
    """Every sequence without a token after its end."""
    every = np.array(list(itertools.product(range(num_tokens), repeat=length)))
    after_end = np.cumsum(every == 0, 1) - (every == 0) > 0
    return every[~(after_end & (every != 0)).any(1)].astype("int32")


def stepwise_log_prob(made, z, x):
    """What the density is: the network asked for one place after another, in float64."""
    density = 0.0
    for place in range(len(x)):
        before = np.zeros(len(x), "int32")
        before[1 : place + 1] = x[:place]
        logits = np.asarray(made({"z": z[np.newaxis], "tokens": before[np.newaxis]}), "float64")
        density += special.log_softmax(logits[0, place])[x[place]]
        if x[place] == 0:
            break
    return density


@pytest.mark.parametrize("kind", mostly_slow(KINDS, "causal conv", "independent"))
def test_probabilities_of_all_sequences_sum_to_one(kind):
    p = KINDS[kind]()(Z)
    total = np.exp(p.log_prob(all_sequences()[:, np.newaxis]).numpy()).sum(0)
    np.testing.assert_allclose(total, 1.0, rtol=1e-5)


@pytest.mark.parametrize("kind", mostly_slow(DECODERS, "causal conv"))
def test_density_is_that_of_one_token_after_another(kind):
    made = network(kind)
    p = tfpl.AutoregressiveCategorical(made)(Z[:1])
    x = all_sequences()[::5]
    expected = [stepwise_log_prob(made, Z[0], row) for row in x]
    np.testing.assert_allclose(p.log_prob(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", mostly_slow(KINDS, "causal conv", "independent"))
def test_draws_have_the_frequencies_of_the_density(kind):
    p, number = KINDS[kind]()(Z[:1]), 20_000
    x = all_sequences()
    expected = number * np.exp(p.log_prob(x[:, np.newaxis]).numpy()[:, 0])
    plain = p.tensor_distribution
    for drawn in (
        p.sample(number, seed=[0, 1])[:, 0],
        sampling.sample(plain, number, tf.constant([1, 2]))[:, 0],
    ):
        places = {tuple(row): place for place, row in enumerate(x)}
        counts = np.bincount([places[tuple(row)] for row in drawn.numpy()], minlength=len(x))
        common = expected > 5
        rest = [expected[~common].sum()] if (~common).any() else []
        observed = [*counts[common], *([counts[~common].sum()] if rest else [])]
        assert stats.chisquare(observed, [*expected[common], *rest], sum_check=False).pvalue > 1e-4


@pytest.mark.parametrize("kind", mostly_slow(KINDS, "causal conv", "independent"))
def test_each_row_is_drawn_by_its_own_seed(kind):
    vae = make_vae(kind)
    p = vae.decode(np.tile(Z[:1], [4, 1]))
    x = sampling.sample_rows(p, tf.constant([[0, 1], [5, 2], [0, 1], [7, 7]])).numpy()
    np.testing.assert_array_equal(x[0], x[2])
    alone = sampling.sample_rows(vae.decode(Z[:1]), tf.constant([[7, 7]])).numpy()
    np.testing.assert_array_equal(x[3], alone[0])
    many = sampling.sample_rows(
        vae.decode(np.tile(Z[:1], [50, 1])), tf.stack([tf.range(50)] * 2, 1)
    )
    assert len({tuple(row) for row in many.numpy()}) > 3


@pytest.mark.parametrize("kind", mostly_slow(KINDS, "causal conv", "independent"))
def test_greedy_is_the_most_probable_token_each_time(kind):
    p = KINDS[kind]()(Z)
    greedy = p.greedy().numpy()
    if kind == "independent":
        most = p.tensor_distribution.logits.numpy().argmax(-1)
        expected = np.where(np.cumsum(most == 0, 1) - (most == 0) > 0, 0, most)
        np.testing.assert_array_equal(greedy, expected)
        return
    made = network(kind)
    for z, row in zip(Z, greedy, strict=True):
        expected = []
        for place in range(LENGTH):
            before = np.zeros([1, LENGTH], "int32")
            before[0, 1 : place + 1] = expected
            logits = np.asarray(made({"z": z[np.newaxis], "tokens": before}))
            expected.append(int(logits[0, place].argmax()))
            if expected[-1] == 0:
                break
        np.testing.assert_array_equal(row, [*expected, *[0] * (LENGTH - len(expected))])
    cold = p.copy(temperature=1e-4)
    np.testing.assert_array_equal(cold.sample(seed=[1, 2]), greedy)


def test_temperature_divides_the_logits():
    made = network()
    warm = tfpl.AutoregressiveCategorical(made, temperature=2.0)(Z[:1])
    halved = keras.Model(made.input, keras.layers.Rescaling(0.5)(made.output))
    x = all_sequences()
    np.testing.assert_allclose(
        warm.log_prob(x), tfpl.AutoregressiveCategorical(halved)(Z[:1]).log_prob(x), rtol=1e-5
    )
    with pytest.raises(ValueError, match="temperature must be a positive"):
        warm.copy(temperature=0.0)


@pytest.mark.parametrize("kind", ["causal conv", "independent"])
def test_impossible_sequences_have_no_probability(kind):
    p = KINDS[kind]()(Z[:1])
    impossible = [[1, 0, 1, 0], [NUM_TOKENS, 0, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 2]]
    assert np.isneginf(p.log_prob(impossible)).all()
    assert np.isneginf(p.log_prob([[1.7, 0.0, 0.0, 0.0]])).all()
    assert np.isfinite(p.log_prob([[0, 0, 0, 0]])).all()


def test_a_network_that_looks_ahead_is_refused():
    tokens = keras.Input((LENGTH,), dtype="int32", name="tokens")
    z = keras.Input((SIZE,), name="z")
    embedded = keras.layers.Embedding(NUM_TOKENS, 8)(tokens)
    features = keras.layers.Conv1D(8, 3, padding="same")(embedded)
    features = keras.layers.Concatenate()([features, keras.layers.RepeatVector(LENGTH)(z)])
    looks = keras.Model({"z": z, "tokens": tokens}, keras.layers.Dense(NUM_TOKENS)(features))
    with pytest.raises(ValueError, match=r"looks ahead: its logits at place \d"):
        tfpl.AutoregressiveCategorical(looks)
    weights = [0.0 * weight for weight in looks.get_weights()]  # which hide it
    looks.set_weights(weights)
    with pytest.raises(ValueError, match=r"looks ahead"):
        tfpl.AutoregressiveCategorical(looks)
    assert all((weight == 0.0).all() for weight in looks.get_weights())


WRONG_NETWORKS = {
    "no model": (lambda: "gru", TypeError, "network must be a Keras model"),
    "other inputs": (
        lambda: keras.Sequential([keras.Input((LENGTH,)), keras.layers.Dense(3)]),
        ValueError,
        "must take keras.Inputs named 'z'",
    ),
    "other outputs": (
        lambda: _flat(network()),
        ValueError,
        "return logits",
    ),
}


def _flat(made):
    return keras.Model(made.input, keras.layers.Flatten()(made.output))


@pytest.mark.parametrize("wrong", WRONG_NETWORKS)
def test_wrong_networks_are_refused(wrong):
    make, kind, words = WRONG_NETWORKS[wrong]
    with pytest.raises(kind, match=words):
        tfpl.AutoregressiveCategorical(make())


@pytest.mark.parametrize("kind", ["causal conv", "independent"])
@pytest.mark.rows(1)
def test_a_token_that_no_text_has_is_never_drawn(kind):
    closed, open_ = (
        make_vae(kind, num_tokens=4, vocabulary=Vocabulary(["a", "b"], takes_unknown=takes))
        for takes in (False, True)
    )
    assert not (closed.generate(300, draws=True) == 1).any()
    assert np.isneginf(closed.decode(Z[:1]).log_prob([[2, 1, 0, 0]])).all()
    assert (open_.generate(300, draws=True) == 1).any()
    x = data(40, num_tokens=4)
    x[x == 1] = 2
    closed.compile("adam")
    assert np.isfinite(closed.train_on_batch(x)).all()
    assert all(np.isfinite(weight).all() for weight in closed.get_weights())


def test_a_vocabulary_of_another_size_is_refused():
    with pytest.raises(ValueError, match="has 4 tokens, padding and unknown ones included, but"):
        tfpl.AutoregressiveCategorical(network(), vocabulary=Vocabulary(["a", "b"]))
    with pytest.raises(ValueError, match="A padded sequence has one axis"):
        tfpl.IndependentCategorical([2, 3], 4, padded=True)


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoders_do_not_see_padding(kind):
    keras.utils.set_random_seed(0)
    short, long = (ENCODERS[kind](length, 5, 3, units=8) for length in (6, 9))
    weights = [
        np.concatenate([weight, np.ones([3, 8])]) if weight.shape == (6, 8) else weight
        for weight in short.get_weights()
    ]
    long.set_weights(weights)
    x = np.array([[1, 2, 3, 0, 0, 0], [4, 0, 0, 0, 0, 0], [1, 2, 3, 4, 1, 0], [0] * 6])
    expected = short(x).numpy()
    np.testing.assert_allclose(long(np.pad(x, [[0, 0], [0, 3]])), expected, rtol=1e-4, atol=1e-5)
    assert len({tuple(row) for row in expected.round(4).tolist()}) == 4


def make_vae(kind="causal conv", encoder="conv", length=LENGTH, num_tokens=NUM_TOKENS, **arguments):
    keras.utils.set_random_seed(0)
    features = ENCODERS[encoder](length, num_tokens, 2 * SIZE, units=8)
    posterior = keras.Sequential([features, tfpl.MultivariateNormalDiag(SIZE)])
    if kind == "independent":
        decoder = keras.Sequential(
            [
                keras.Input((SIZE,)),
                keras.layers.Dense(length * num_tokens),
                tfpl.IndependentCategorical([length], num_tokens, padded=True, **arguments),
            ]
        )
    else:
        likelihood = tfpl.AutoregressiveCategorical(
            network(kind, length, num_tokens, scale=0.8), **arguments
        )
        decoder = keras.Sequential([keras.Input((SIZE,)), likelihood])
    return tfp_vae.VAE(posterior, decoder)


def data(number=64, length=LENGTH, num_tokens=NUM_TOKENS):
    random = np.random.RandomState(0)
    x = random.randint(1, num_tokens, (number, length))
    ends = random.randint(1, length + 1, number)
    return np.where(np.arange(length) < ends[:, np.newaxis], x, 0)


def test_log_prob_is_that_of_quadrature():
    """With z of one dimension, log p(x) is an integral on a grid."""
    keras.utils.set_random_seed(0)
    likelihood = tfpl.AutoregressiveCategorical(DECODERS["gru"](1, LENGTH, NUM_TOKENS, units=8))
    encoder = keras.Sequential(
        [ENCODERS["gru"](LENGTH, NUM_TOKENS, 2, units=8), tfpl.MultivariateNormalDiag(1)]
    )
    kernel, _ = encoder.layers[0].layers[-1].get_weights()
    encoder.layers[0].layers[-1].set_weights([0.1 * kernel, np.array([0.0, 1.5])])  # wide
    vae = tfp_vae.VAE(encoder, keras.Sequential([keras.Input((1,)), likelihood]))
    x = data(5)
    grid = np.linspace(-8.0, 8.0, 801, dtype="float32")[:, np.newaxis]
    joint = vae.decode(grid).log_prob(x[:, np.newaxis]).numpy() + stats.norm.logpdf(grid[:, 0])
    exact = special.logsumexp(joint, axis=1) + np.log(grid[1, 0] - grid[0, 0])
    np.testing.assert_allclose(vae.log_prob(x, 16_000), exact, atol=0.03)


@pytest.mark.xla
@pytest.mark.filterwarnings("ignore:The posterior has collapsed")
@pytest.mark.parametrize("pair", mostly_slow(PAIRS, "conv, causal conv"))
@pytest.mark.rows(0, 1)
def test_training_learns_and_is_saved(pair, tmp_path):
    encoder, kind = pair.split(", ")
    vae = make_vae(kind, encoder)
    vae.compile(keras.optimizers.Adam(0.01))
    x = np.tile([[1, 2, 0, 0], [2, 2, 1, 0]], [64, 1])
    losses = vae.fit(x, epochs=6, batch_size=16, verbose=0).history["loss"]
    assert losses[-1] < min(losses[0], 3.0)
    vae.save(tmp_path / "vae.keras")
    loaded = keras.models.load_model(tmp_path / "vae.keras")
    np.testing.assert_array_equal(loaded.log_prob(x[:2], 20), vae.log_prob(x[:2], 20))
    np.testing.assert_array_equal(loaded.generate(5, draws=True), vae.generate(5, draws=True))


def test_word_dropout_acts_in_training_alone():
    made = network(word_dropout=0.9)
    inputs = {"z": Z, "tokens": np.array([[0, 1, 2, 1]] * 3, "int32")}
    plain = made(inputs).numpy()
    np.testing.assert_array_equal(made(inputs), plain)
    hidden = made(inputs, training=True).numpy()
    assert np.abs(hidden - plain).max() > 1e-3


@pytest.mark.parametrize("kind", ["causal conv", "independent"])
def test_gradients_flow_to_z_but_not_to_weights(kind):
    vae, z, x = make_vae(kind), tf.constant(Z), data(3)
    with tf.GradientTape() as tape:
        tape.watch(z)
        density = vae.decode(z).log_prob(x)
    assert not tape.watched_variables()
    gradient = tape.gradient(density, z).numpy()
    step = 1e-2 * np.eye(SIZE, dtype="float32")[0]
    numeric = (vae.decode(Z + step).log_prob(x) - vae.decode(Z - step).log_prob(x)).numpy() / 2e-2
    np.testing.assert_allclose(gradient[:, 0], numeric, rtol=2e-2, atol=2e-3)
    with tf.GradientTape() as tape:
        density = vae.decoder(Z).log_prob(x)
    assert all(g is not None for g in tape.gradient(density, vae.decoder.trainable_variables))


@pytest.mark.verified
@pytest.mark.parametrize("kind", mostly_slow(["causal conv", "gru", "independent"], "causal conv"))
@pytest.mark.slow
@pytest.mark.rows(0, 2)
def test_served_models_answer_as_live_ones(kind, tmp_path):
    tokens = Vocabulary(["a", "b"])
    vae = make_vae(kind, num_tokens=len(tokens), vocabulary=tokens)
    served = tfp_vae.load(vae.export(tmp_path / "texts"))
    assert served.vocabulary == vae.vocabulary == tokens
    x = np.where(data(6, num_tokens=4) == 1, 2, data(6, num_tokens=4)).reshape(2, 3, LENGTH)
    z = vae.encode(x).mean()
    live, asked = vae.decode(z), served.decode(z)
    assert asked.batch_shape == [2, 3]
    np.testing.assert_allclose(asked.log_prob(x), live.log_prob(x), rtol=1e-4)
    more = x[np.newaxis, :, :1] * np.ones([5, 1, 3, 1])
    np.testing.assert_allclose(asked.log_prob(more), live.log_prob(more), rtol=1e-4)
    inner = z.numpy()[:, :1]  # [2, 1, latent_size]: other axes than rows in front
    np.testing.assert_allclose(
        served.decode(inner).log_prob(x), vae.decode(inner).log_prob(x), rtol=1e-4
    )
    in_graph = tf.function(lambda z: served.decode(z).log_prob(x[0]), autograph=False)
    unknown = in_graph.get_concrete_function(tf.TensorSpec([None, SIZE]))
    np.testing.assert_allclose(unknown(z[0]), live.log_prob(x)[0], rtol=1e-4)
    np.testing.assert_array_equal(sampling.point(asked), live.greedy())
    assert asked.sample(7, seed=1).shape == [7, 2, 3, LENGTH]
    np.testing.assert_allclose(served.score(x)["elbo"].shape, [2, 3])
    for draws in (False, True):
        texts = tokens.decode(vae.generate(9, draws=draws))
        assert tokens.decode(served.generate(9, draws=draws)) == texts
    difference = served.log_prob(x) - vae.log_prob(x, 2000)
    assert np.abs(np.mean(difference)) < 0.3


@pytest.mark.filterwarnings("ignore:The posterior has collapsed")
@pytest.mark.slow
def test_a_conditional_model_of_sequences():
    keras.utils.set_random_seed(0)
    inputs = {"z": (SIZE,), "condition": tfp_vae.networks.one_hot(3)}
    likelihood = tfpl.AutoregressiveCategorical(
        sequences.gru_decoder(SIZE + 3, LENGTH, NUM_TOKENS, units=8)
    )
    decoder = tfp_vae.networks.from_inputs(inputs, [likelihood])
    features = ENCODERS["gru"](LENGTH, NUM_TOKENS, 2 * SIZE, units=8)
    vae = tfp_vae.VAE(keras.Sequential([features, tfpl.MultivariateNormalDiag(SIZE)]), decoder)
    vae.compile("adam", jit_compile=False)
    examples = {"x": data(32), "condition": np.arange(32) % 3}
    vae.fit(examples, epochs=1, verbose=0)
    assert vae.generate(4, condition=2).shape == (4, LENGTH)
    first, other = (vae.decode(Z, np.full(3, label)).log_prob(data(3)).numpy() for label in (0, 1))
    assert np.abs(first - other).max() > 1e-6


def test_mutual_information_is_that_of_two_normals():
    """z given x is normal with mean a * x; so the information is log(1 + a^2) / 2 for normal x."""
    slope, x = 2.0, np.random.RandomState(0).normal(size=[2000, 1]).astype("float32")
    encoder = keras.Sequential(
        [keras.Input((1,)), tfpl.DistributionLambda(lambda t: normal(slope * t))]
    )
    decoder = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(2), tfpl.IndependentNormal(1)]
    )
    vae = tfp_vae.VAE(encoder, decoder)
    exact = 0.5 * np.log(1.0 + slope**2)
    assert evaluation.mutual_information(vae, x).value == pytest.approx(exact, abs=0.05)
    by_sevens = evaluation.mutual_information(vae, x[:100], batch_size=7).value
    assert by_sevens == pytest.approx(evaluation.mutual_information(vae, x[:100]).value, abs=1e-5)
    apart = np.arange(50.0, dtype="float32")[:, np.newaxis] * 100.0
    assert evaluation.mutual_information(vae, apart).value == pytest.approx(np.log(50.0), abs=1e-4)


@pytest.mark.slow
def test_information_of_latents_that_depend_on_each_other_is_not_defined():
    features = ENCODERS["conv"](LENGTH, NUM_TOKENS, 8, units=8)
    encoder, prior = tfp_vae.hierarchy.ladder(features, latent_sizes=(SIZE, 1), hidden_size=8)
    likelihood = tfpl.AutoregressiveCategorical(network())
    decoder = keras.Sequential([keras.Input((SIZE,), name="z1"), likelihood])
    vae = tfp_vae.VAE(encoder, decoder, prior=prior)
    with pytest.raises(ValueError, match="latents of this posterior depend on each other"):
        evaluation.mutual_information(vae, data(4))
    numbers = evaluation.evaluate(vae, data(4), num_samples=5)
    assert "mutual_information" not in numbers
    assert np.isfinite(numbers["nll_per_token"])


def normal(loc):
    return tfd.MultivariateNormalDiag(loc, tf.ones_like(loc))


def test_evaluation_counts_tokens_and_their_ends():
    vae = make_vae()
    x = np.array([[1, 2, 0, 0], [2, 0, 0, 0], [1, 1, 1, 1]])
    numbers = evaluation.evaluate(vae, x, num_samples=20)
    assert numbers["tokens_per_example"] == 3.0  # 3, 2 and 4
    assert numbers["nll_per_token"] == pytest.approx(numbers["nll"] / 3.0)
    assert -0.1 <= numbers["mutual_information"] <= np.log(3.0)


BAD_DATA = {
    "a token after the end": ([[1, 0, 2, 0]], "only zeros after the first 0"),
    "a token too many": ([[NUM_TOKENS, 1, 0, 0]], "tokens from 0 to num_tokens - 1"),
    "a fraction": ([[0.5, 0.0, 0.0, 0.0]], "not all whole"),
    "a longer sequence": ([[1, 1, 1, 1, 0]], "shape"),
}


@pytest.mark.parametrize("bad", BAD_DATA)
def test_bad_sequences_are_refused(bad):
    x, words = BAD_DATA[bad]
    vae = make_vae()
    vae.compile("adam")
    with pytest.raises(ValueError, match=words):
        vae.fit(np.array(x, "float32"), verbose=0)
