"""Distribution layers for Keras 3: the names, arguments and `params_size` of tfp.layers.

Each is a Keras layer that returns a `tfd.Distribution`. The value works as a distribution and as a tensor, so it passes
through Sequential and Functional models, losses and metrics.

>>> import keras, tensorflow as tf
>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), IndependentNormal(1)])
>>> model.compile("adam", loss=lambda y, distribution: -distribution.log_prob(y))
>>> model(tf.ones([3, 4])).event_shape
TensorShape([1])
"""

from tfp_vae.layers.discrete import IndependentBernoulli, IndependentBinomial
from tfp_vae.layers.distribution_lambda import DistributionLambda, DistributionLayer
from tfp_vae.layers.normal import IndependentNormal, MultivariateNormalDiag, MultivariateNormalTriL

__all__ = [
    "DistributionLambda",
    "DistributionLayer",
    "IndependentBernoulli",
    "IndependentBinomial",
    "IndependentNormal",
    "MultivariateNormalDiag",
    "MultivariateNormalTriL",
]
