"""Programs as they were written for tf_keras and tfp.layers; each runs on them as it stands.

Without the decision that a comment asks for, the new program may raise an error.
"""

from typing import NamedTuple


class Program(NamedTuple):
    """An old program and what is expected of the new one."""

    text: str
    lines: tuple[str, ...]  # of the new program, without indent
    asks: int = 0  # comments that ask for a decision
    error: type[Exception] | None = None  # of the new program before that decision
    needs: tuple[str, ...] = ()  # layers that may be missing


PROGRAMS = {
    "regression": Program(
        """
# Regression with an uncertain outcome.
import numpy as np
import tensorflow as tf
import tf_keras
import tensorflow_probability as tfp

tfd = tfp.distributions
x = np.linspace(-1, 1, 32, dtype="float32")[:, None]
y = 2 * x + 0.1

negloglik = lambda y, rv_y: -rv_y.log_prob(y)

# Mean and scale are both learned.
model = tf_keras.Sequential([
    tf_keras.layers.Dense(1 + 1),
    tfp.layers.DistributionLambda(
        lambda t: tfd.Normal(loc=t[..., :1],  # the mean
                             scale=1e-3 + tf.math.softplus(0.05 * t[..., 1:]))),
])
model.compile(optimizer=tf_keras.optimizers.Adam(learning_rate=0.01), loss=negloglik)
model.fit(x, y, epochs=1, verbose=False)
yhat = model(x)
assert isinstance(yhat, tfd.Distribution) or yhat.mean().shape == (32, 1)
""",
        (
            "import keras",
            "from tfp_vae import layers as tfpl",
            "tfpl.DistributionLambda(",
            "lambda t: tfd.Normal(loc=t[..., :1],  # the mean",
            "model.compile(optimizer=keras.optimizers.Adam(learning_rate=0.01), loss=negloglik)",
        ),
    ),
    "regression with uncertain weights": Program(
        """
import os
os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

tfd, tfpl = tfp.distributions, tfp.layers
x = np.linspace(-1, 1, 32, dtype="float32")[:, np.newaxis]
y = 2 * x


def posterior_mean_field(kernel_size, bias_size=0, dtype=None):
    n = kernel_size + bias_size
    c = np.log(np.expm1(1.))
    return tf.keras.Sequential([
        tfpl.VariableLayer(2 * n, dtype=dtype),
        tfpl.DistributionLambda(lambda t: tfd.Independent(
            tfd.Normal(loc=t[..., :n], scale=1e-5 + tf.nn.softplus(c + t[..., n:])),
            reinterpreted_batch_ndims=1)),
    ])


def prior_trainable(kernel_size, bias_size=0, dtype=None):
    n = kernel_size + bias_size
    return tf.keras.Sequential([
        tfpl.VariableLayer(n, dtype=dtype),
        tfpl.DistributionLambda(lambda t: tfd.Independent(
            tfd.Normal(loc=t, scale=1), reinterpreted_batch_ndims=1)),
    ])


model = tf.keras.Sequential([
    tfp.layers.DenseVariational(1, posterior_mean_field, prior_trainable, kl_weight=1/x.shape[0]),
    tfp.layers.DistributionLambda(lambda t: tfd.Normal(loc=t, scale=1)),
])
model.compile(optimizer=tf.optimizers.Adam(learning_rate=0.01), loss=lambda y, d: -d.log_prob(y))
model.fit(x, y, epochs=1, verbose=False)
""",
        (
            "import keras",
            "from tfp_vae import layers as tfpl",
            "tfd = tfp.distributions",
            "return keras.Sequential([",
            "tfpl.DenseVariational(1, posterior_mean_field, prior_trainable, kl_weight=1/x.shape[0]),",
        ),
    ),
    "variational autoencoder": Program(
        """
import numpy as np
import tf_keras as tfk
import tensorflow as tf
import tensorflow_probability as tfp

tfkl = tfk.layers
tfpl = tfp.layers
tfd = tfp.distributions
input_shape, encoded_size = (8, 8, 1), 2
images = np.random.RandomState(0).randint(0, 2, [16, *input_shape]).astype("float32")

prior = tfd.Independent(tfd.Normal(loc=tf.zeros(encoded_size), scale=1), reinterpreted_batch_ndims=1)

encoder = tfk.Sequential([
    tfkl.InputLayer(input_shape=input_shape),
    tfkl.Lambda(lambda x: tf.cast(x, tf.float32) - 0.5),
    tfkl.Conv2D(4, 3, strides=2, padding='same', activation=tf.nn.leaky_relu),
    tfkl.Flatten(),
    tfkl.Dense(tfpl.MultivariateNormalTriL.params_size(encoded_size), activation=None),
    tfpl.MultivariateNormalTriL(
        encoded_size,
        activity_regularizer=tfpl.KLDivergenceRegularizer(prior)),
])
decoder = tfk.Sequential([
    tfkl.InputLayer(input_shape=[encoded_size]),
    tfkl.Dense(64, activation=tf.nn.leaky_relu),
    tfkl.Flatten(),
    tfpl.IndependentBernoulli(input_shape, tfd.Bernoulli.logits),
])
vae = tfk.Model(inputs=encoder.inputs, outputs=decoder(encoder.outputs[0]))
vae.compile(optimizer=tf.optimizers.Adam(learning_rate=1e-3),
            loss=lambda x, rv_x: -rv_x.log_prob(x))
_ = vae.fit(images, images, epochs=1, verbose=0)
xhat = vae(images)
assert isinstance(xhat, tfd.Distribution) or xhat.mean().shape == images.shape
""",
        (
            "import keras as tfk",
            "from tfp_vae import layers as tfpl",
            "tfk.Input(input_shape),",
            "tfk.Input([encoded_size]),",
            "vae = tfk.Model(inputs=encoder.inputs[0], outputs=decoder(encoder.outputs[0]))",
            "activity_regularizer=tfpl.KLDivergenceRegularizer(prior, weight=2.0)),",
        ),
        asks=1,
    ),
    "bayesian network by flipout": Program(
        """
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd
import tensorflow_probability as tfp
import tf_keras

num_train = 16
images = np.random.RandomState(0).normal(size=[num_train, 8, 8, 1]).astype("float32")
labels = np.eye(3, dtype="float32")[np.arange(num_train) % 3]


def create_model():
    kl_divergence_function = (lambda q, p, _: tfd.kl_divergence(q, p) /
                              tf.cast(num_train, dtype=tf.float32))
    model = tf_keras.models.Sequential([
        tfp.layers.Convolution2DFlipout(
            2, kernel_size=3, padding='SAME',
            kernel_divergence_fn=kl_divergence_function,
            activation=tf.nn.relu),
        tf_keras.layers.MaxPooling2D(pool_size=[2, 2], strides=[2, 2], padding='SAME'),
        tf_keras.layers.Flatten(),
        tfp.layers.DenseFlipout(3, kernel_divergence_fn=kl_divergence_function,
                                activation=tf.nn.softmax),
    ])
    model.compile(tf_keras.optimizers.legacy.Adam(lr=0.01), loss='categorical_crossentropy',
                  metrics=['accuracy'], experimental_run_tf_function=False)
    return model


model = create_model()
model.build(input_shape=[None, 8, 8, 1])
model.train_on_batch(images, labels)
""",
        (
            "tfpl.Convolution2DFlipout(",
            "model.compile(keras.optimizers.Adam(learning_rate=0.01), loss='categorical_crossentropy',",
            "metrics=['accuracy'])",
        ),
        needs=("Convolution2DFlipout", "DenseFlipout"),
    ),
    "logistic regression": Program(
        """
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability.python.layers import DenseFlipout
from tf_keras import Sequential
from tf_keras.optimizers import Adam

tfd = tfp.distributions
features = np.random.RandomState(0).normal(size=[16, 2]).astype("float32")
labels = (features[:, :1] > 0).astype("float32")
model = Sequential([
    DenseFlipout(
        units=1,
        activation='sigmoid',
        kernel_posterior_fn=tfp.layers.default_mean_field_normal_fn(),
        bias_posterior_fn=tfp.layers.default_mean_field_normal_fn(),
        kernel_divergence_fn=lambda q, p, _: tfd.kl_divergence(q, p) / 16)
])
model.compile(optimizer=Adam(0.01), loss='binary_crossentropy', metrics=['accuracy'])
model.fit(features, labels, epochs=1, verbose=0)
assert len(model.losses) == 1
""",
        (
            "from tfp_vae.layers import DenseFlipout",
            "from keras import Sequential",
            "from keras.optimizers import Adam",
            "kernel_posterior_fn=tfpl.default_mean_field_normal_fn(),",
        ),
        needs=("DenseFlipout", "default_mean_field_normal_fn"),
    ),
    "masked autoregressive flow": Program(
        """
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras as tfk

tfb = tfp.bijectors
tfd = tfp.distributions
tfpl = tfp.layers
data = np.random.RandomState(0).normal(size=[16, 2]).astype("float32")
model = tfk.Sequential([
    # NOTE: this model takes no input and returns a masked autoregressive flow.
    tfpl.DistributionLambda(lambda t: tfd.MultivariateNormalDiag(
        loc=tf.zeros(tf.concat([tf.shape(t)[:-1], [2]], axis=0)))),
    tfpl.AutoregressiveTransform(tfb.AutoregressiveNetwork(
        params=2, hidden_units=[10], activation='relu')),
])
model.compile(optimizer='adam', loss=lambda y, rv_y: -rv_y.log_prob(y))
model.fit(x=np.zeros((16, 0)), y=data, batch_size=16, epochs=1, verbose=0)
""",
        (
            "import keras as tfk",
            "from tfp_vae import layers as tfpl",
            "tfpl.AutoregressiveTransform(tfpl.AutoregressiveNetwork(",
        ),
    ),
    "gaussian process": Program(
        """
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

tfd = tfp.distributions
x = np.linspace(-1, 1, 16, dtype="float32")[:, np.newaxis]
y = np.sin(x)


class RBFKernelFn(tf_keras.layers.Layer):
    def __init__(self, **kwargs):
        super(RBFKernelFn, self).__init__(**kwargs)
        dtype = kwargs.get('dtype', None)
        self._amplitude = self.add_variable(
            initializer=tf.constant_initializer(0), dtype=dtype, name='amplitude')
        self._length_scale = self.add_variable(
            initializer=tf.constant_initializer(0), dtype=dtype, name='length_scale')

    def call(self, x):
        # Never called -- this is just a layer so it can hold variables
        return x

    @property
    def kernel(self):
        return tfp.math.psd_kernels.ExponentiatedQuadratic(
            amplitude=tf.nn.softplus(0.1 * self._amplitude),
            length_scale=tf.nn.softplus(5. * self._length_scale))


model = tf_keras.Sequential([
    tf_keras.layers.InputLayer(input_shape=[1]),
    tf_keras.layers.Dense(1, kernel_initializer='ones', use_bias=False),
    tfp.layers.VariationalGaussianProcess(
        num_inducing_points=4,
        kernel_provider=RBFKernelFn(),
        event_shape=[1],
        inducing_index_points_initializer=tf_keras.initializers.Constant(
            np.linspace(-1, 1, num=4, dtype="float32")[..., np.newaxis]),
        unconstrained_observation_noise_variance_initializer=(
            tf_keras.initializers.Constant(0.54)),
    ),
])
loss = lambda y, rv_y: rv_y.variational_loss(y, kl_weight=16 / x.shape[0])
model.compile(optimizer=tf_keras.optimizers.Adam(learning_rate=0.01), loss=loss)
model.fit(x, y, batch_size=16, epochs=1, verbose=False)
""",
        (
            "keras.Input([1]),",
            "tfpl.VariationalGaussianProcess(",
            "self._amplitude = self.add_weight(",
        ),
        needs=("VariationalGaussianProcess",),
    ),
    "bayesian network, functional": Program(
        """
import numpy as np
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers
import tensorflow_probability as tfp

FEATURE_NAMES = ["acidity", "sugar"]
train = {name: np.ones(16, "float32") for name in FEATURE_NAMES}
quality = np.ones([16, 1], "float32")


def prior(kernel_size, bias_size, dtype=None):
    n = kernel_size + bias_size
    return keras.Sequential([
        tfp.layers.DistributionLambda(
            lambda t: tfp.distributions.MultivariateNormalDiag(loc=tf.zeros(n), scale_diag=tf.ones(n))
        )
    ])


def posterior(kernel_size, bias_size, dtype=None):
    n = kernel_size + bias_size
    return keras.Sequential([
        tfp.layers.VariableLayer(tfp.layers.MultivariateNormalTriL.params_size(n), dtype=dtype),
        tfp.layers.MultivariateNormalTriL(n),
    ])


def create_probablistic_bnn_model(train_size):
    inputs = {name: layers.Input(name=name, shape=(1,), dtype=tf.float32) for name in FEATURE_NAMES}
    features = keras.layers.concatenate(list(inputs.values()))
    features = layers.BatchNormalization()(features)
    features = tfp.layers.DenseVariational(
        units=4, make_prior_fn=prior, make_posterior_fn=posterior, kl_weight=1 / train_size,
        activation="sigmoid",
    )(features)
    distribution_params = layers.Dense(units=2)(features)
    outputs = tfp.layers.IndependentNormal(1)(distribution_params)
    return keras.Model(inputs=inputs, outputs=outputs)


model = create_probablistic_bnn_model(16)
model.compile(
    optimizer=keras.optimizers.RMSprop(learning_rate=0.001),
    loss=lambda targets, estimated: -estimated.log_prob(targets),
    metrics=[keras.metrics.RootMeanSquaredError()],
)
model.fit(train, quality, epochs=1, verbose=0)
""",
        (
            "import keras",
            "from keras import layers",
            "from tfp_vae import layers as tfpl",
            "features = tfpl.DenseVariational(",
            "outputs = tfpl.IndependentNormal(1)(distribution_params)",
        ),
    ),
    "files": Program(
        """
import numpy as np
import tf_keras as tfk
import tensorflow_probability as tfp

tfpl = tfp.layers
x, y = np.ones([8, 3], "float32"), np.ones([8, 1], "float32")
model = tfk.Sequential()
model.add(tfk.layers.Dense(2, input_shape=(3,)))  # the parameters
model.add(tfpl.IndependentNormal(1))
path = "model.h5"
model.save(path)
model.save_weights("weights.h5", save_format="h5")
model.load_weights("weights.h5")
again = tfk.models.load_model(path, custom_objects=tfpl.__dict__, compile=False)
folder = "."
keep = tfk.callbacks.ModelCheckpoint(f"{folder}/best.hdf5", monitor="loss", save_best_only=True)
best = tfk.callbacks.ModelCheckpoint(filepath="best.h5", save_weights_only=True)
simple = tfk.Sequential([tfk.layers.Dense(1, input_dim=3)])
simple.compile("adam", "mse")
simple.fit(x, y, verbose=0, callbacks=[keep, best])
""",
        (
            "model.add(tfk.Input((3,)))",
            "model.add(tfk.layers.Dense(2))  # the parameters",
            'path = "model.keras"',
            'model.save_weights("weights.weights.h5")',
            'model.load_weights("weights.weights.h5")',
            'keep = tfk.callbacks.ModelCheckpoint(f"{folder}/best.keras", monitor="loss", save_best_only=True)',
            'best = tfk.callbacks.ModelCheckpoint(filepath="best.weights.h5", save_weights_only=True)',
            "simple = tfk.Sequential([tfk.Input((3,)), tfk.layers.Dense(1)])",
        ),
    ),
    "serving": Program(
        """
import tensorflow as tf
import tensorflow.keras as keras

inputs = keras.layers.Input((3,))
model = keras.models.Model(inputs, keras.layers.Dense(2)(inputs))
tf.saved_model.save(model, "served")
assert tf.saved_model.load("served") is not None
""",
        ("import keras", 'model.export("served")'),
    ),
    "a folder for a file": Program(
        """
import tf_keras
model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))])
model.save("folder", save_format="tf")
""",
        ('model.save("folder")',),
        error=ValueError,
        asks=1,
    ),
    "an exact divergence as a loss": Program(
        """
import numpy as np
import tensorflow as tf
import tf_keras as tfk
import tensorflow_probability as tfp
from tensorflow_probability import layers as tfpl

tfd = tfp.distributions
prior = tfd.MultivariateNormalDiag(tf.zeros(2))
model = tfk.Sequential([
    tfk.layers.Dense(tfpl.MultivariateNormalTriL.params_size(2), input_shape=(3,)),
    tfpl.MultivariateNormalTriL(2),
    tfpl.KLDivergenceAddLoss(prior, use_exact_kl=True, weight=0.5),
])
sampled = tfpl.KLDivergenceAddLoss(prior, test_points_fn=lambda q: q.sample(3))
model(np.ones([4, 3], "float32"))
assert len(model.losses) == 1
""",
        (
            "from tfp_vae import layers as tfpl",
            "tfk.Input((3,)),",
            "tfpl.KLDivergenceAddLoss(prior, use_exact_kl=True, weight=0.5),",
        ),
        asks=1,
    ),
    "a prior with a variable": Program(
        """
import numpy as np
import tensorflow as tf
import tf_keras as tfk
import tensorflow_probability as tfp

tfpl, tfd = tfp.layers, tfp.distributions
loc = tf.Variable(tf.zeros(2))
prior = tfd.MultivariateNormalDiag(loc)
model = tfk.Sequential([
    tfk.layers.Dense(5, input_shape=(3,)),
    tfpl.MultivariateNormalTriL(2, activity_regularizer=tfpl.KLDivergenceRegularizer(prior)),
])
model(np.ones([4, 3], "float32"))
""",
        ("prior = tfd.MultivariateNormalDiag(loc)",),
        asks=1,
    ),
    "weights, draws and functions": Program(
        """
import numpy as np
import tf_keras as tfk
import tensorflow_probability as tfp

tfpl, tfkl, tfd = tfp.layers, tfk.layers, tfp.distributions
x, y = np.ones([8, 3], "float32"), np.ones([8, 1], "float32")
model = tfk.Sequential([tfkl.Dense(2, input_shape=(3,)), tfpl.IndependentNormal(1, tfd.Distribution.mean)])
model.compile("adam", loss=lambda y, rv: -rv.log_prob(y))
model.fit(x, y, verbose=0)
assert model.predict(x, verbose=0).shape == (8, 1)
plain = model(x).tensor_distribution
draw = tfk.Sequential([tfpl.VariableLayer(2), tfpl.IndependentNormal(1)])(0.0)
model.set_weights(model.get_weights())
bernoulli = tfpl.IndependentBernoulli(2, tfd.Bernoulli.logits)
""",
        (
            "import keras as tfk",
            "from tfp_vae import layers as tfpl",
            "tfkl, tfd = tfk.layers, tfp.distributions",
        ),
    ),
    "layers and models of your own": Program(
        '''
import tensorflow as tf
from tensorflow.keras import backend as K
from tensorflow.keras.layers import (
    Dense,  # affine
    Layer,
)


class Sampling(tf.keras.layers.Layer):
    """Uses (z_mean, z_log_var) to draw z."""

    def call(self, inputs: "tf.Tensor") -> tf.Tensor:
        z_mean, z_log_var = inputs
        epsilon = K.random_normal(shape=(tf.shape(z_mean)[0], tf.shape(z_mean)[1]))
        return z_mean + K.exp(0.5 * z_log_var) * epsilon


class Scale(Layer):
    def build(self, input_shape):
        self.scale = self.add_weight("scale", (1,), initializer="ones")

    def call(self, x):
        return x * self.scale


class Encoder(tf.keras.Model):
    def __init__(self):
        super().__init__()
        from tensorflow import keras as k

        self.dense, self.draw, self.scale = k.layers.Dense(4), Sampling(), Scale()

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.scale(self.draw(tf.split(self.dense(x), 2, -1)))


z = Encoder()(tf.ones([3, 5]))
assert K.concatenate([z, z]).shape == (3, 4)
assert K.int_shape(z) == (3, 2)
assert float(K.mean(K.clip(z, 0.0, 1.0))) <= 1
''',
        (
            "from keras.layers import (",
            "Dense,  # affine",
            "class Sampling(keras.layers.Layer):",
            "epsilon = keras.random.normal(shape=(tf.shape(z_mean)[0], tf.shape(z_mean)[1]))",
            "return z_mean + keras.ops.exp(0.5 * z_log_var) * epsilon",
            'self.scale = self.add_weight(name="scale", shape=(1,), initializer="ones")',
            "class Encoder(keras.Model):",
            "import keras as k",
            "assert keras.ops.concatenate([z, z], axis=-1).shape == (3, 4)",
            "assert keras.ops.shape(z) == (3, 2)",
        ),
    ),
    "names that are gone": Program(
        """
import numpy as np
import tf_keras
from tf_keras.layers.experimental import preprocessing
from tf_keras.utils import to_categorical
import tf_keras.losses

x = np.ones([8, 4], "float32")
y = to_categorical(np.arange(8) % 2)
scaling = preprocessing.Rescaling(1.0 / 255)
loss = tf_keras.losses.CategoricalCrossentropy(reduction=tf_keras.losses.Reduction.SUM_OVER_BATCH_SIZE)
model = tf_keras.Sequential([scaling, tf_keras.layers.LeakyReLU(alpha=0.1), tf_keras.layers.Dense(2, "softmax")])
model.compile(tf_keras.optimizers.legacy.SGD(lr=0.1), loss, metrics=[tf_keras.metrics.mae])
model.fit(x, y, verbose=0, workers=2, use_multiprocessing=False)
model.optimizer.lr = 0.01
metric = tf_keras.metrics.Mean()
metric.reset_states()
embedding = tf_keras.layers.Embedding(10, 2, input_length=3)
""",
        (
            "from keras import layers as preprocessing",
            "from keras.utils import to_categorical",
            'loss = keras.losses.CategoricalCrossentropy(reduction="sum_over_batch_size")',
            "model.fit(x, y, verbose=0)",
            "model.optimizer.learning_rate = 0.01",
            "metric.reset_state()",
            "embedding = keras.layers.Embedding(10, 2)",
        ),
    ),
    "a layer that is gone": Program(
        """
import tf_keras
layer = tf_keras.layers.LocallyConnected1D(2, 3)
""",
        ("layer = keras.layers.LocallyConnected1D(2, 3)",),
        error=AttributeError,
        asks=1,
    ),
    "TensorFlow on symbols": Program(
        """
import tensorflow as tf
import tf_keras
inputs = tf_keras.Input((3,))
hidden = tf_keras.layers.Dense(2)(inputs)
model = tf_keras.Model(inputs, tf.exp(hidden))
""",
        ("model = keras.Model(inputs, tf.exp(hidden))",),
        error=ValueError,
        asks=1,
    ),
    "a loss of a functional model": Program(
        """
import tf_keras as keras
inputs = keras.Input((3,))
hidden = keras.layers.Dense(2, input_shape=(3,))(inputs)
model = keras.Model(inputs, hidden)
model.add_loss(keras.backend.mean(hidden))
""",
        ("import keras", "hidden = keras.layers.Dense(2)(inputs)"),
        error=NotImplementedError,
        asks=1,
    ),
    "a rate that decays": Program(
        """
import tf_keras
adam = tf_keras.optimizers.legacy.Adam(learning_rate=0.1, decay=1e-3)
""",
        ("adam = keras.optimizers.Adam(learning_rate=0.1, decay=1e-3)",),
        error=UserWarning,
        asks=1,
    ),
    "a shape in a layer by itself": Program(
        """
import numpy as np
import tf_keras
first = tf_keras.layers.Dense(2, input_shape=(3,))
model = tf_keras.Sequential([first])
assert model(np.ones([4, 3])).shape == (4, 2)
""",
        ("first = keras.layers.Dense(2, input_shape=(3,))",),
        error=UserWarning,
        asks=1,
    ),
    "everything by stars": Program(
        """
from tensorflow.keras.layers import *
from tensorflow.keras.models import Sequential

model = Sequential()
model.add(InputLayer(3))
model.add(Dense(4, activation='relu'))
other = Sequential([Flatten(input_shape=(2, 2)), Dense(1)])
assert other.output_shape == (None, 1)
""",
        (
            "from keras.layers import *",
            "from keras.models import Sequential",
            "model.add(keras.Input((3,)))",
            "other = Sequential([keras.Input((2, 2)), Flatten(), Dense(1)])",
        ),
    ),
    "names that are taken": Program(
        """
import tensorflow as tf
import tensorflow_probability as tfp

keras, tfpl = "a toy", 3
model = tf.keras.Sequential([tf.keras.layers.Dense(2, batch_input_shape=(None, 3)), tfp.layers.IndependentNormal(1)])
assert (keras, tfpl) == ("a toy", 3)
""",
        (
            "import keras as keras_2",
            "from tfp_vae import layers as tfpl_2",
            "model = keras_2.Sequential([keras_2.Input(batch_shape=(None, 3)), keras_2.layers.Dense(2), "
            "tfpl_2.IndependentNormal(1)])",
        ),
    ),
    "inside functions": Program(
        """
def build(units):
    import tensorflow as tf
    import tensorflow_probability as tfp
    tfkl, tfpl = tf.keras.layers, tfp.layers

    def inner():
        return [tfkl.Dense(2 * units, input_shape=[3]), tfpl.IndependentNormal(units)]

    try:
        from tensorflow.keras.optimizers.legacy import Adam
    except ImportError:
        from tensorflow.keras.optimizers import Adam
    model = tf.keras.Sequential(inner())
    model.compile(Adam(lr=0.1), lambda y, d: -d.log_prob(y))
    return model


assert build(1).output_shape == (None, 1)
""",
        (
            "import keras",
            "from tfp_vae import layers as tfpl",
            "tfkl = keras.layers",
            "return [keras.Input([3]), tfkl.Dense(2 * units), tfpl.IndependentNormal(units)]",
            "from keras.optimizers import Adam",
            "model.compile(Adam(learning_rate=0.1), lambda y, d: -d.log_prob(y))",
        ),
    ),
    "weight normalization": Program(
        """
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras
net = tfp.layers.weight_norm.WeightNorm(tf_keras.layers.Dense(2), data_init=False)
assert net(tf.ones([4, 3])).shape == (4, 2)
""",
        ("net = tfpl.weight_norm.WeightNorm(keras.layers.Dense(2), data_init=False)",),
        needs=("weight_norm",),
    ),
}
