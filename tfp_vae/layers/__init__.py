"""Distribution layers for Keras 3: the names, arguments and `params_size` of tfp.layers.

Each is a Keras layer that returns a `tfd.Distribution`. The value works as a distribution and as a
tensor, so it passes through Sequential and Functional models, losses and metrics.

>>> import keras, tensorflow as tf
>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), IndependentNormal(1)])
>>> model.compile("adam", loss=lambda y, distribution: -distribution.log_prob(y))
>>> model(tf.ones([3, 4])).event_shape
TensorShape([1])
"""

from tfp_vae.layers import (
    autoregressive,
    binary,
    continuous,
    counts,
    couplings,
    discrete,
    distribution_layer,
    flows,
    gaussian_process,
    independent,
    joint,
    kl_divergence,
    mean_field,
    mixtures,
    normal,
    normal_scale,
    one_hot,
    random_convolution,
    random_dense,
    random_weights,
    sequences,
    spherical,
    variational,
    vector_quantized,
    weight_norm,
)
from tfp_vae.layers.autoregressive import *
from tfp_vae.layers.binary import *
from tfp_vae.layers.continuous import *
from tfp_vae.layers.counts import *
from tfp_vae.layers.couplings import *
from tfp_vae.layers.discrete import *
from tfp_vae.layers.distribution_layer import *
from tfp_vae.layers.flows import *
from tfp_vae.layers.gaussian_process import *
from tfp_vae.layers.independent import *
from tfp_vae.layers.joint import *
from tfp_vae.layers.kl_divergence import *
from tfp_vae.layers.mean_field import *
from tfp_vae.layers.mixtures import *
from tfp_vae.layers.normal import *
from tfp_vae.layers.normal_scale import *
from tfp_vae.layers.one_hot import *
from tfp_vae.layers.random_convolution import *
from tfp_vae.layers.random_dense import *
from tfp_vae.layers.random_weights import *
from tfp_vae.layers.sequences import *
from tfp_vae.layers.spherical import *
from tfp_vae.layers.variational import *
from tfp_vae.layers.vector_quantized import *
from tfp_vae.layers.weight_norm import *

__all__ = [
    *autoregressive.__all__,
    *binary.__all__,
    *continuous.__all__,
    *counts.__all__,
    *couplings.__all__,
    *discrete.__all__,
    *distribution_layer.__all__,
    *kl_divergence.__all__,
    *flows.__all__,
    *gaussian_process.__all__,
    *independent.__all__,
    *joint.__all__,
    *mean_field.__all__,
    *mixtures.__all__,
    *normal.__all__,
    *normal_scale.__all__,
    *one_hot.__all__,
    *random_convolution.__all__,
    *random_dense.__all__,
    *random_weights.__all__,
    *sequences.__all__,
    *spherical.__all__,
    *variational.__all__,
    *vector_quantized.__all__,
    *weight_norm.__all__,
]
