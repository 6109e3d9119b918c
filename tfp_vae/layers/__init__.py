"""Distribution layers for Keras 3: the names, arguments and `params_size` of tfp.layers.

Each is a Keras layer that returns a `tfd.Distribution`. The value works as a distribution and as a tensor, so it passes
through Sequential and Functional models, losses and metrics.

>>> import keras, tensorflow as tf
>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), IndependentNormal(1)])
>>> model.compile("adam", loss=lambda y, distribution: -distribution.log_prob(y))
>>> model(tf.ones([3, 4])).event_shape
TensorShape([1])
"""

from tfp_vae.layers.autoregressive import AutoregressiveNetwork, AutoregressiveTransform
from tfp_vae.layers.binary import IndependentBernoulliStraightThrough, IndependentRelaxedBernoulli
from tfp_vae.layers.continuous import (
    Deterministic,
    IndependentContinuousBernoulli,
    IndependentLogistic,
    IndependentStudentT,
)
from tfp_vae.layers.counts import (
    IndependentBinomial,
    IndependentNegativeBinomial,
    IndependentPoisson,
    IndependentQuantizedLogistic,
    IndependentZeroInflatedNegativeBinomial,
)
from tfp_vae.layers.couplings import NeuralSpline, RealNVP
from tfp_vae.layers.discrete import IndependentBernoulli, IndependentCategorical
from tfp_vae.layers.distribution_lambda import DistributionLambda, DistributionLayer
from tfp_vae.layers.divergence import KLDivergenceAddLoss, KLDivergenceRegularizer
from tfp_vae.layers.flows import (
    Flow,
    FlowPosterior,
    InverseAutoregressiveFlow,
    MaskedAutoregressiveFlow,
)
from tfp_vae.layers.independent import Independent
from tfp_vae.layers.joint import Joint, ProductOfNormals
from tfp_vae.layers.mixtures import MixtureLogistic, MixtureNormal, MixtureQuantizedLogistic, MixtureSameFamily
from tfp_vae.layers.normal import (
    IndependentNormal,
    MultivariateNormalDiag,
    MultivariateNormalDiagPlusLowRank,
    MultivariateNormalTriL,
)
from tfp_vae.layers.normal_scale import IndependentNormalLearnedScale, IndependentNormalOptimalScale
from tfp_vae.layers.one_hot import (
    CategoricalMixtureOfOneHotCategorical,
    OneHotCategorical,
    OneHotCategoricalStraightThrough,
    RelaxedOneHotCategorical,
)
from tfp_vae.layers.spherical import PowerSpherical, VonMisesFisher
from tfp_vae.layers.variational import (
    BlockwiseInitializer,
    DenseVariational,
    VariableLayer,
    posterior_mean_field,
    prior_trainable,
)
from tfp_vae.layers.vector_quantized import VectorQuantized

__all__ = [
    "AutoregressiveNetwork",
    "AutoregressiveTransform",
    "BlockwiseInitializer",
    "CategoricalMixtureOfOneHotCategorical",
    "DenseVariational",
    "Deterministic",
    "DistributionLambda",
    "DistributionLayer",
    "Flow",
    "FlowPosterior",
    "Independent",
    "IndependentBernoulli",
    "IndependentBernoulliStraightThrough",
    "IndependentBinomial",
    "IndependentCategorical",
    "IndependentContinuousBernoulli",
    "IndependentLogistic",
    "IndependentNegativeBinomial",
    "IndependentNormal",
    "IndependentNormalLearnedScale",
    "IndependentNormalOptimalScale",
    "IndependentPoisson",
    "IndependentQuantizedLogistic",
    "IndependentRelaxedBernoulli",
    "IndependentStudentT",
    "IndependentZeroInflatedNegativeBinomial",
    "InverseAutoregressiveFlow",
    "Joint",
    "KLDivergenceAddLoss",
    "KLDivergenceRegularizer",
    "MaskedAutoregressiveFlow",
    "MixtureLogistic",
    "MixtureNormal",
    "MixtureQuantizedLogistic",
    "MixtureSameFamily",
    "MultivariateNormalDiag",
    "MultivariateNormalDiagPlusLowRank",
    "MultivariateNormalTriL",
    "NeuralSpline",
    "OneHotCategorical",
    "OneHotCategoricalStraightThrough",
    "PowerSpherical",
    "ProductOfNormals",
    "RealNVP",
    "RelaxedOneHotCategorical",
    "VariableLayer",
    "VectorQuantized",
    "VonMisesFisher",
    "posterior_mean_field",
    "prior_trainable",
]
