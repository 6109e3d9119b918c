"""The VAE as a Keras model: what Keras users lean on, its distributions, and what it refuses."""

import dataclasses
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_vae
from tests.conftest import make_vae
from tfp_vae import generative, networks, objectives, priors
from tfp_vae import layers as tfpl
from tfp_vae.layers import light
from tfp_vae.layers.tensor_like import unwrap
from tfp_vae.objectives import importance

tfd = tfp.distributions


def same_weights(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a.get_weights(), b.get_weights(), strict=True))


def clone(vae) -> tfp_vae.VAE:
    """The same model, not compiled."""
    copy = make_vae()
    copy.set_weights(vae.get_weights())
    return copy


# Distributions and numbers


def test_terms_are_per_example_and_add_up(vae, digits):
    terms = vae(digits.test[:7])
    assert {name: value.shape for name, value in terms.items()} == dict.fromkeys(
        ("loss", "elbo", "log_likelihood", "kl"), (7,)
    )
    np.testing.assert_allclose(terms["elbo"], terms["log_likelihood"] - terms["kl"], rtol=1e-6)
    np.testing.assert_allclose(terms["loss"], -terms["elbo"], rtol=1e-6)


def test_elbo_against_a_monte_carlo_estimate(trained_vae, digits):
    """The mean over many seeds equals E_q[log p(x|z) + log p(z) - log q(z|x)] from plain TFP draws."""
    x = digits.test[:3]
    q, prior = trained_vae.encode(x), trained_vae.prior(None)
    z = q.sample(4000, seed=[1, 2])
    expected = (
        trained_vae.decode(z).log_prob(np.broadcast_to(x, (4000, *x.shape)))
        + prior.log_prob(z)
        - q.log_prob(z)
    )
    one_pass = objectives.OnePass(tf.constant(x), q, prior, trained_vae.decode, None)

    @tf.function
    def elbo(seed):
        return trained_vae.objective.terms(dataclasses.replace(one_pass, seed=tf.stack([0, seed])))[
            "elbo"
        ]

    elbos = [elbo(tf.constant(seed)) for seed in range(1000)]
    error = np.std(elbos, axis=0) / 1000**0.5 + np.std(expected, axis=0) / 4000**0.5
    assert (np.abs(np.mean(elbos, 0) - np.mean(expected, 0)) < 4 * error).all()


def test_encode_and_decode_give_plain_distributions(vae, digits):
    q, p = vae.encode(digits.test[:3]), vae.decode(np.zeros([3, 4]))
    assert isinstance(q, tfd.MultivariateNormalDiag)
    assert unwrap(q) is q
    assert unwrap(p) is p
    assert type(p) is light.Independent
    assert (q.batch_shape, q.event_shape, p.event_shape) == ([3], [4], [8, 8, 1])


@pytest.mark.parametrize("leading", [(), (5,), (2, 3)])
def test_any_number_of_leading_axes(vae, digits, leading):
    z = tf.random.stateless_normal([*leading, 4], [0, 1])
    assert vae.decode(z).mean().shape == (*leading, 8, 8, 1)
    x = np.broadcast_to(digits.test[0], (*leading, 8, 8, 1))
    assert vae.encode(x).mean().shape == (*leading, 4)
    np.testing.assert_allclose(
        vae.encode(x).mean(), np.broadcast_to(vae.encode(x).mean(), (*leading, 4)), rtol=1e-6
    )


def test_reconstruct_predict_and_generate(trained_vae, digits):
    x = digits.test[:5]
    mean = trained_vae.decode(trained_vae.encode(x).mean()).mean()
    np.testing.assert_allclose(trained_vae.reconstruct(x), mean, rtol=1e-6)
    np.testing.assert_allclose(trained_vae.predict(x, verbose=0), mean, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(
        trained_vae.generate(6, seed=3)[:4], trained_vae.generate(4, seed=3)
    )
    assert np.abs(trained_vae.generate(4, seed=3) - trained_vae.generate(4, seed=4)).max() > 0.1


def test_joint_distribution(trained_vae):
    joint = trained_vae.joint_distribution()
    draws = joint.sample(6, seed=[1, 2])
    assert {name: value.shape for name, value in draws.items()} == {"z": (6, 4), "x": (6, 8, 8, 1)}
    expected = trained_vae.prior(None).log_prob(draws["z"]) + trained_vae.decode(
        draws["z"]
    ).log_prob(draws["x"])
    np.testing.assert_allclose(joint.log_prob(draws), expected, rtol=1e-6)
    assert joint.log_prob(joint.sample(seed=[1, 2])).shape == ()


def test_log_prob_is_the_same_at_once_and_in_steps(trained_vae, digits):
    """Importance sampling equals its textbook formula on the same draws; memory-saving steps change nothing."""
    x = tf.constant(digits.test[:4])
    one_pass = objectives.OnePass(
        x, trained_vae.encode(x), trained_vae.prior(None), trained_vae.decode, tf.constant([3, 0])
    )
    z = one_pass.posterior.sample(12, seed=[5, 6])
    weights = sum(one_pass.log_densities(z)[:2]) - one_pass.log_densities(z)[2]
    expected = tf.reduce_logsumexp(weights, 0) - np.log(12.0)
    for draws_per_step in (1, 5, 12, 100):
        rows = iter(range(0, 1000, draws_per_step))

        def draw(posterior, number, seed, rows=rows):
            start = next(rows)
            return tf.concat([z, tf.zeros([100, 4, 4])], 0)[start : start + number]

        estimate = objectives.importance_sampled_log_prob(
            one_pass, 12, draws_per_step=draws_per_step, draw=draw
        )
        np.testing.assert_allclose(estimate, expected, rtol=1e-5)


def test_a_long_sum_of_weights_keeps_its_small_parts():
    """At log p(x) = -70,000, one draw of a thousand changes the log of their sum by less than float32 tells."""
    # One draw is as good as another: q(z|x) is p(z), and p(x|z) is p(x).
    bias = keras.initializers.Constant(np.log(np.expm1(1.0)) * np.repeat([0.0, 1.0], 2))
    still = {"kernel_initializer": "zeros"}
    posterior = tfpl.MultivariateNormalDiag(2)
    encoder = [keras.Input((2,)), keras.layers.Dense(4, bias_initializer=bias, **still), posterior]
    likelihood = tfpl.Independent(tfd.Normal, (2,), predicted=["loc"], constants={"scale": 1.0})
    decoder = [keras.Input((2,)), keras.layers.Dense(2, **still), likelihood]
    vae = tfp_vae.VAE(keras.Sequential(encoder), keras.Sequential(decoder))
    x = np.full([2048, 2], 264.0, "float32")
    exact = tfd.Normal(0.0, 1.0).log_prob(x).numpy().sum(-1)
    found = vae.effective_samples(x, 1000, tf.constant([0, 1]))
    np.testing.assert_allclose(found["log_prob"], exact, atol=0.02)
    np.testing.assert_allclose(found["effective_samples"], 1000.0, rtol=0.05)
    np.testing.assert_allclose(vae.log_prob(x, 1000), exact, atol=0.02)


def test_log_prob_tightens_the_elbo(trained_vae, digits):
    x = digits.test[:50]
    elbo = np.mean([trained_vae.log_prob(x, 1, seed=seed) for seed in range(20)])
    estimates = [np.mean(trained_vae.log_prob(x, k)) for k in (10, 100, 1000)]
    assert elbo < estimates[0] < estimates[1] < estimates[2]


# Training as Keras users know it


@pytest.mark.slow
def test_keras_file_reloads_in_a_new_process(trained_vae, digits, tmp_path):
    trained_vae.save(tmp_path / "vae.keras")
    np.save(tmp_path / "x.npy", digits.test[:5])
    code = (
        "import sys, numpy as np, keras, tfp_vae\n"
        "vae = keras.models.load_model('vae.keras')\n"
        "assert type(vae) is tfp_vae.VAE and type(vae.prior) is tfp_vae.priors.StandardNormal\n"
        "np.save('elbo.npy', vae(np.load('x.npy'))['elbo'])"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    np.testing.assert_array_equal(
        np.load(tmp_path / "elbo.npy"), trained_vae(digits.test[:5])["elbo"]
    )


def test_xla_and_no_xla_agree_on_densities_and_gradients(trained_vae, digits):
    x, z = tf.constant(digits.test[:20]), tf.random.stateless_normal([5, 20, 4], [0, 1])

    def densities_and_gradients():
        with tf.GradientTape() as tape:
            one_pass = trained_vae.one_pass(x, tf.constant([0, 0]))
            densities = tf.stack(one_pass.log_densities(z))
        return densities, tape.gradient(densities, trained_vae.decoder.trainable_weights)

    plain, compiled = (
        tf.function(densities_and_gradients, jit_compile=jit)() for jit in (False, True)
    )
    np.testing.assert_allclose(plain[0], compiled[0], rtol=1e-4)
    for gradient, other in zip(plain[1], compiled[1], strict=True):
        np.testing.assert_allclose(gradient, other, rtol=1e-3, atol=1e-3 * np.abs(gradient).max())


@pytest.mark.xla
def test_auto_compiles_with_xla_unless_a_layer_cannot(vae):
    vae.compile("adam")
    assert vae.uses_xla
    vae.decoder.layers[0].supports_jit = False
    vae.compile("adam")
    assert not vae.uses_xla


def test_steps_per_execution_changes_nothing(digits):
    vaes = [make_vae(), make_vae()]
    vaes[1].set_weights(vaes[0].get_weights())
    for vae, steps in zip(vaes, (1, 4), strict=True):
        vae.compile("adam", jit_compile=False, steps_per_execution=steps)
        vae.fit(digits.train[:800], batch_size=100, shuffle=False, verbose=0)
    np.testing.assert_allclose(
        *(vae.encoder.get_weights()[0] for vae in vaes), rtol=1e-5, atol=1e-6
    )


def test_evaluate_is_deterministic_and_training_is_not(trained_vae, digits):
    x = tf.constant(digits.test[:5])
    np.testing.assert_array_equal(trained_vae(x)["elbo"], trained_vae(x)["elbo"])
    before = trained_vae(x, training=True)["elbo"]
    trained_vae.optimizer.iterations.assign_add(1)
    after = trained_vae(x, training=True)["elbo"]
    trained_vae.optimizer.iterations.assign_sub(1)
    assert np.abs(before - after).max() > 1e-3
    first = trained_vae.evaluate(digits.test, verbose=0, return_dict=True)
    assert first == trained_vae.evaluate(digits.test, verbose=0, return_dict=True)


def test_sample_weight_weights_the_mean(vae, digits):
    x, weight = digits.test[:6], np.array([0.0, 1.0, 2.0, 0.0, 3.0, 1.0])
    vae.compile("adam", jit_compile=False)
    terms = vae(x)
    numbers = vae.evaluate(x, sample_weight=weight, batch_size=6, verbose=0, return_dict=True)
    for name in ("loss", "elbo", "log_likelihood", "kl"):
        assert numbers[name] == pytest.approx(np.average(terms[name], weights=weight), rel=1e-5)
    for given in (weight[:, np.newaxis], weight.tolist()):
        by_place = vae.evaluate(x, None, 6, 0, given)
        assert by_place[0] == pytest.approx(numbers["loss"], rel=1e-5)
    vae.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    history = vae.fit(
        x, sample_weight=weight, validation_data=(x, None, weight), batch_size=6, verbose=0
    )
    assert history.history["val_loss"][0] == pytest.approx(numbers["loss"], rel=1e-5)
    plain = vae.fit(x, batch_size=6, verbose=0)
    assert history.history["loss"][0] != pytest.approx(plain.history["loss"][0], rel=1e-3)


class AddLoss(keras.layers.Layer):
    def call(self, x):
        self.add_loss(10.0 * keras.ops.mean(keras.ops.square(x)))
        return x


def test_regularizers_and_add_loss_reach_the_loss(digits):
    posterior = tfpl.MultivariateNormalDiag
    x = digits.test[:20]
    encoder = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            AddLoss(),
            keras.layers.Flatten(),
            keras.layers.Dense(
                posterior.params_size(4), kernel_regularizer=keras.regularizers.L2(0.5)
            ),
            posterior(4),
        ]
    )
    vae = tfp_vae.VAE(encoder, make_vae().decoder)
    vae.compile("adam", jit_compile=False)
    numbers = vae.evaluate(x, batch_size=20, verbose=0, return_dict=True)
    kernel = encoder.layers[-2].kernel
    expected = 10.0 * np.mean(x**2) + 0.5 * np.sum(np.square(kernel))
    assert numbers["loss"] + numbers["elbo"] == pytest.approx(expected, rel=1e-4)


def test_keras_callbacks(vae, digits, tmp_path):
    vae.compile("adam", jit_compile=False)
    history = vae.fit(
        digits.train[:300],
        epochs=5,
        validation_split=0.2,
        verbose=0,
        callbacks=[
            keras.callbacks.EarlyStopping("val_elbo", mode="max", patience=2, min_delta=1e6),
            keras.callbacks.ModelCheckpoint(
                tmp_path / "best.keras", "val_elbo", mode="max", save_best_only=True
            ),
            keras.callbacks.BackupAndRestore(tmp_path / "backup"),
            keras.callbacks.TensorBoard(tmp_path / "logs", profile_batch=0),
        ],
    )
    # The first epoch, then two without an improvement by a million nats.
    assert len(history.history["val_elbo"]) == 3
    assert isinstance(keras.models.load_model(tmp_path / "best.keras"), tfp_vae.VAE)
    assert list((tmp_path / "logs").rglob("events*"))


@pytest.mark.slow
def test_backup_and_restore_goes_on_where_it_stopped(digits, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise InterruptedError

    options = {"epochs": 4, "batch_size": 100, "shuffle": False, "verbose": 0}
    straight, interrupted = make_vae(), make_vae()
    interrupted.set_weights(straight.get_weights())
    straight.compile("adam", jit_compile=False)
    interrupted.compile("adam", jit_compile=False)
    straight.fit(digits.train[:300], **options)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(InterruptedError):
        interrupted.fit(digits.train[:300], callbacks=[backup, Stop()], **options)
    again = make_vae()
    again.compile("adam", jit_compile=False)
    again.fit(
        digits.train[:300],
        callbacks=[keras.callbacks.BackupAndRestore(tmp_path / "backup")],
        **options,
    )
    assert same_weights(straight, again)


def test_full_covariance_posterior_trains_on_a_partial_batch(digits):
    posterior = tfpl.MultivariateNormalTriL
    encoder = sequential(networks.mlp((8, 8, 1), posterior.params_size(4)), posterior(4))
    vae = tfp_vae.VAE(encoder, make_vae().decoder)
    vae.compile("adam")
    elbo = vae.fit(digits.train[:200], batch_size=64, epochs=2, verbose=0).history["elbo"]
    assert elbo[1] > elbo[0]


def test_seeds_are_whole_numbers_of_31_bits(vae):
    for seed in (-1, 2**31, 1.5):
        with pytest.raises(ValueError, match="seed must be"):
            tfp_vae.VAE(vae.encoder, vae.decoder, seed=seed)


def test_labels_are_ignored(vae, digits):
    vae.compile("adam", jit_compile=False)
    x = digits.train[:64]
    data = tf.data.Dataset.from_tensor_slices((x, np.arange(64))).batch(32)
    vae.fit(data, validation_data=data, verbose=0)
    with pytest.warns(UserWarning, match="labels y are ignored: a VAE learns from x alone"):
        vae.fit(x, np.arange(64), validation_data=(x, np.arange(64)), verbose=0)
    with pytest.warns(UserWarning, match="labels y are ignored"):
        vae.fit(x, np.array(["a"] * 64), validation_split=0.25, verbose=0)
    assert vae.evaluate(x, verbose=0) == vae.evaluate(x, np.arange(64), verbose=0)


def test_summary(vae, capsys):
    vae.summary()
    assert "Total params" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_dtype_policies(policy, digits):
    keras.config.set_dtype_policy(policy)
    vae = make_vae()
    vae.compile("adam", jit_compile=policy == "mixed_float16")
    terms = vae(digits.test[:8])
    expected = "float64" if policy == "float64" else "float32"
    assert {value.dtype.name for value in terms.values()} == {expected}
    step = int(vae.optimizer.iterations)
    history = vae.fit(digits.train[:320], epochs=3, verbose=0)
    assert history.history["elbo"][-1] > history.history["elbo"][0]
    assert step < int(vae.optimizer.iterations) <= step + 30  # loss scaling may skip steps


def test_large_values_survive_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    posterior, likelihood = tfpl.MultivariateNormalDiag, tfpl.IndependentNormal
    encoder = keras.Sequential(
        [keras.Input((1,)), keras.layers.Rescaling(1e-5), keras.layers.Dense(4), posterior(2)]
    )
    decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), likelihood(1)])
    vae = tfp_vae.VAE(encoder, decoder)
    x = np.array([[70001.0]], "float32")
    p = vae.decode(np.zeros([1, 2]))
    loc, scale = p.mean().numpy().item(), p.stddev().numpy().item()
    log_prob = -0.5 * ((70001.0 - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)
    assert p.log_prob(x).numpy().item() == pytest.approx(log_prob, rel=1e-5)


@pytest.mark.slow
def test_mirrored_strategy_trains(digits):
    code = (
        "import keras, numpy as np, tensorflow as tf\n"
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)\n"
        "from tests.conftest import make_vae\n"
        "with tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1']).scope():\n"
        "    vae = make_vae()\n"
        "    vae.compile('adam')\n"
        "x = np.random.RandomState(0).binomial(16, 0.3, [80, 8, 8, 1]).astype('float32')\n"
        "elbo = vae.fit(x, batch_size=40, epochs=3, verbose=0).history['elbo']\n"
        "assert elbo[-1] > elbo[0], elbo\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_subclassed_networks_are_built_by_fit(digits):
    class Encoder(keras.Model):
        def __init__(self):
            super().__init__()
            self.network = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(8)])
            self.posterior = tfpl.MultivariateNormalDiag(4)

        def call(self, x):
            return self.posterior(self.network(x))

    vae = tfp_vae.VAE(Encoder(), make_vae().decoder)
    vae.compile("adam")
    vae.fit(digits.train[:64], verbose=0)
    assert vae.prior.event_size == 4


# What it refuses, and says


def sequential(*layers):
    return keras.Sequential(list(layers))


def test_encoder_and_decoder_must_fit(vae):
    narrow = make_vae(latent_size=3)
    with pytest.raises(
        ValueError, match=r"decoder takes inputs of shape \(3,\).*latent shape.*\(4,\)"
    ):
        tfp_vae.VAE(vae.encoder, narrow.decoder)
    other = make_vae(event_shape=(4, 4, 1))
    with pytest.raises(ValueError, match=r"\(8, 8, 1\).*\(4, 4, 1\)"):
        tfp_vae.VAE(vae.encoder, other.decoder)
    with pytest.raises(ValueError, match=r"prior's event shape \(3,\).*\(4,\)"):
        tfp_vae.VAE(vae.encoder, vae.decoder, prior=priors.StandardNormal(3))


def test_both_must_end_in_a_distribution_layer(vae):
    with pytest.raises(TypeError, match="encoder must end in a distribution layer"):
        tfp_vae.VAE(networks.mlp((8, 8, 1), 8), vae.decoder)
    with pytest.raises(TypeError, match="decoder must end in a distribution layer"):
        tfp_vae.VAE(vae.encoder, networks.mlp((4,), 64))


def test_posterior_must_be_reparameterized(vae):
    encoder = sequential(networks.mlp((8, 8, 1), 4), tfpl.IndependentBernoulli(4))
    with pytest.raises(ValueError, match="not reparameterized"):
        tfp_vae.VAE(encoder, vae.decoder)


def test_compile_refuses_a_loss_and_metrics(vae):
    with pytest.raises(ValueError, match="objective"):
        vae.compile("adam", "mse")
    with pytest.raises(ValueError, match="objective"):
        vae.compile("adam", metrics=["mse"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x * np.nan, "NaN"),
        (lambda x: np.where(x > 15, np.inf, x), "infinite"),
        (lambda x: x[:0], "empty"),
        (lambda x: x[:, :4], r"shape \(8, 8, 1\)"),
        (lambda x: 16 * x, "total_count"),
        (lambda x: x / 3, "not all whole"),
    ],
)
def test_bad_data_are_refused_before_training(vae, digits, spoil, message):
    vae.compile("adam", jit_compile=False)
    bad = spoil(digits.train[:64])
    with pytest.raises(ValueError, match=message):
        vae.fit(bad, verbose=0)
    with pytest.raises(ValueError, match=message):
        vae.fit(tf.data.Dataset.from_tensors(bad), verbose=0)
    with pytest.raises(ValueError, match=message):
        vae.fit(digits.train[:64], validation_data=(bad,), verbose=0)
    assert int(vae.optimizer.iterations) == 0


def test_a_bernoulli_given_bytes_says_how_to_scale():
    vae = make_vae(likelihood=tfpl.IndependentBernoulli)
    vae.compile("adam", jit_compile=False)
    with pytest.raises(ValueError, match=r"\[0, 255\].*255"):
        vae.fit(np.arange(64, dtype="uint8").reshape(1, 8, 8, 1) % 2 * 255, verbose=0)


@pytest.mark.slow
def test_a_collapsed_posterior_warns(digits):
    vae = make_vae(objective=objectives.ELBO(beta=100.0))
    vae.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    with pytest.warns(UserWarning, match="collapsed"):
        vae.fit(digits.train, epochs=6, batch_size=100, verbose=0)


@pytest.mark.parametrize("number", [0, -1])
def test_numbers_of_samples(vae, digits, number):
    with pytest.raises(ValueError, match="at least 1"):
        vae.log_prob(digits.test[:2], number)
    with pytest.raises(ValueError, match="at least 1"):
        vae.generate(number)


@pytest.mark.slow
def test_another_keras_backend_is_refused():
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            "import keras; keras.backend.backend = lambda: 'jax'; import tfp_vae",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "KERAS_BACKEND=tensorflow" in result.stderr


MISUSES = {
    "fit None": (
        lambda vae: vae.fit(None),
        TypeError,
        "x must be one array .* received a NoneType",
    ),
    "fit list": (lambda vae: vae.fit([np.zeros([4, 8, 8, 1])]), TypeError, "received a list"),
    "evaluate name": (lambda vae: vae.evaluate("digits"), TypeError, "received a str"),
    "encode": (
        lambda vae: vae.encode(np.zeros([4, 8, 8])),
        ValueError,
        r"x of shape \[\.\.\., 8, 8, 1\], received shape \(4, 8, 8\)",
    ),
    "log_prob": (
        lambda vae: vae.log_prob(np.zeros([4, 7, 8, 1])),
        ValueError,
        r"\[\.\.\., 8, 8, 1\], received shape \(4, 7, 8, 1\)",
    ),
    "number": (
        lambda vae: vae.generate(2.5),
        ValueError,
        r"num_samples .* whole number of at least 1, received 2\.5",
    ),
    "seed": (
        lambda vae: vae.generate(2, seed=2**31),
        ValueError,
        "seed must be a whole number from 0",
    ),
    "log_prob seed": (
        lambda vae: vae.log_prob(np.zeros([1, 8, 8, 1]), 2, -1),
        ValueError,
        "seed must be a whole",
    ),
    "encoder": (
        lambda vae: tfp_vae.VAE(None, vae.decoder),
        TypeError,
        "encoder must be a Keras model, received None",
    ),
    "prior": (
        lambda vae: tfp_vae.VAE(vae.encoder, vae.decoder, prior=3),
        TypeError,
        "prior must be .*received 3",
    ),
    "objective": (
        lambda vae: tfp_vae.VAE(vae.encoder, vae.decoder, objective="ELBO"),
        TypeError,
        "received 'ELBO'",
    ),
}


@pytest.mark.parametrize(("act", "error", "message"), MISUSES.values(), ids=MISUSES)
def test_misuse_is_explained(act, error, message, vae):
    vae.compile("adam")
    with pytest.raises(error, match=message):
        act(vae)


def test_a_kl_that_would_count_twice_is_refused(vae):
    regularizer = tfpl.KLDivergenceRegularizer(tfp_vae.priors.StandardNormal(4), use_exact_kl=True)
    mlp = networks.mlp((8, 8, 1), 8)
    for layers in (
        [tfpl.MultivariateNormalDiag(4, activity_regularizer=regularizer)],
        [
            tfpl.MultivariateNormalDiag(4),
            tfpl.KLDivergenceAddLoss(tfp_vae.priors.StandardNormal(4)),
        ],
    ):
        with pytest.raises(ValueError, match="it would count twice"):
            tfp_vae.VAE(sequential(mlp, *layers), vae.decoder).compile("adam")


@keras.saving.register_keras_serializable(package="test_vae")
def diagonal_normal(params):
    return tfd.MultivariateNormalDiag(params[0], tf.nn.softplus(params[1]))


@pytest.mark.slow
def test_a_prior_made_of_layers_is_trained_saved_and_served(digits, tmp_path):
    prior = sequential(tfpl.VariableLayer([2, 4]), tfpl.DistributionLambda(diagonal_normal))
    vae = make_vae(prior=prior)
    assert (
        sum(weight is prior.layers[0].trainable_weights[0] for weight in vae.trainable_weights) == 1
    )
    vae.compile("adam", jit_compile=False)
    vae.fit(digits.train[:200], verbose=0)
    assert (np.abs(prior.get_weights()[0]) > 0).all()
    vae.save(tmp_path / "vae.keras")
    again = keras.models.load_model(tmp_path / "vae.keras")
    np.testing.assert_array_equal(again(digits.test[:5])["elbo"], vae(digits.test[:5])["elbo"])
    served = tfp_vae.load(vae.export(tmp_path / "served", score_samples=1, log_prob_samples=1))
    z = tf.ones([1, 4])
    np.testing.assert_allclose(
        served.joint_distribution().log_prob(z=z, x=digits.test[:1]),
        vae.joint_distribution().log_prob(z=z, x=digits.test[:1]),
        rtol=1e-5,
    )


def test_a_vae_without_inputs_is_built_by_data_or_says_so():
    def model(*layers):
        return keras.Sequential([*layers])

    encoder = model(keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2))
    decoder = model(keras.layers.Dense(6), tfpl.IndependentNormal(3))
    vae = tfp_vae.VAE(encoder, decoder)
    for act in (
        lambda: vae.generate(2),
        lambda: vae.decode(np.zeros([1, 2])),
        vae.joint_distribution,
    ):
        with pytest.raises(ValueError, match="not built yet: call it on data"):
            act()
    assert vae.encode(np.zeros([5, 3])).batch_shape == [5]
    assert vae.generate(np.int64(2)).shape == (2, 3)


def test_log_prob_takes_any_leading_axes(trained_vae, digits):
    x = digits.test[:6]
    np.testing.assert_allclose(
        trained_vae.log_prob(x.reshape(2, 3, 8, 8, 1), 5),
        np.reshape(trained_vae.log_prob(x, 5), [2, 3]),
        rtol=1e-5,
    )
    assert trained_vae.log_prob(x[0], 5).shape == ()


def test_the_gradient_of_log_prob_is_that_of_all_draws_at_once(trained_vae, digits, monkeypatch):
    """Its second loop adds up what automatic differentiation finds for the same draws side by side."""
    monkeypatch.setattr(generative, "ROWS_PER_DRAW", 12)
    vae, x = clone(trained_vae), tf.constant(digits.test[:3])
    steps = [(step, 10, 4) for step in range(3)]
    with tf.GradientTape() as tape:
        tape.watch(x)
        ours = vae.log_prob(x, 10)
    slope = tape.gradient(ours, x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        one_pass = vae.one_pass(x, tf.constant([3, 0]))
        log_weights = tf.concat(
            [importance.log_weights_of_step(one_pass, *step) for step in steps], 0
        )
        theirs = tf.reduce_logsumexp(log_weights, 0) - np.log(10.0)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    expected = tape.gradient(theirs, x)
    np.testing.assert_allclose(slope, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.xla
@pytest.mark.slow
def test_log_prob_has_a_gradient_under_xla(trained_vae, digits):
    """The gradient of the estimate, against finite differences along a random direction on the same draws."""
    x, direction = (
        tf.Variable(digits.test[:2]),
        np.random.default_rng(0).normal(size=[2, 8, 8, 1]).astype("float32"),
    )
    vae = clone(trained_vae)
    assert vae.uses_xla
    with tf.GradientTape() as tape:
        log_prob = tf.reduce_sum(vae.log_prob(x, 20))
    slope = np.sum(tape.gradient(log_prob, x) * direction)
    # Where values between counts are not looked at.
    log_prob_at = tf.function(lambda x: vae.log_prob(x, 20))
    ahead, behind = (
        np.sum(log_prob_at(digits.test[:2] + step * direction)) for step in (0.02, -0.02)
    )
    assert slope == pytest.approx((ahead - behind) / 0.04, rel=0.02)


def test_weights_that_are_not_finite_are_named(digits):
    vae = make_vae()
    vae.set_weights([np.full_like(weight, np.nan) for weight in vae.get_weights()])
    vae.compile("adam", jit_compile=False)
    with pytest.raises(ValueError, match="its training has diverged"):
        vae.evaluate(digits.test, verbose=0)


def test_encode_and_decode_see_what_becomes_of_their_networks(vae, digits):
    x, z = digits.test[:3], np.ones([3, 4], "float32")
    for _ in range(3):
        vae.encode(x), vae.decode(z), vae.reconstruct(x)
    dense = next(layer for layer in vae.encoder.layers[0].layers if hasattr(layer, "enable_lora"))
    dense.enable_lora(1)
    dense.lora_kernel_b.assign(tf.ones_like(dense.lora_kernel_b))
    np.testing.assert_allclose(vae.encode(x).mean(), vae.encoder(x).mean(), 1e-5)
    expected = vae.decode(vae.encode(x).mean()).mean()
    np.testing.assert_allclose(vae.reconstruct(x), expected, 1e-4, 1e-4)
    for _ in range(3):
        before = vae.decode(z).mean()
    vae.decoder.layers[0].layers[-1].activation = keras.activations.tanh
    vae.compile("adam")
    for _ in range(3):
        np.testing.assert_allclose(vae.decode(z).mean(), vae.decoder(z).mean(), 1e-5)
    assert np.abs(before - vae.decode(z).mean()).max() > 0
