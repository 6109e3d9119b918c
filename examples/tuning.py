"""KerasTuner searches for the settings of a VAE: latent dimensions, width, learning rate and the weight of the KL.

The search is for the best bound of log p(x) on validation data, in nats. That is an ELBO with beta = 1 whatever beta a
model was trained with, so that models with different betas compare.

Reference: Snoek et al., 2012, Practical Bayesian optimization of machine learning algorithms, arXiv:1206.2944.

Run: pip install '.[cli,tuner]'; python examples/tuning.py tuning
"""

import sys
from pathlib import Path

import keras
import keras_tuner

import tfp_vae
from tfp_vae import datasets, evaluation, networks, objectives
from tfp_vae import layers as tfpl


class VAEs(keras_tuner.HyperModel):
    """VAEs of a data set, each with its own settings.

    Args:
        splits: the data.
    """

    def __init__(self, splits: datasets.Splits):
        super().__init__()
        self.splits = splits

    def build(self, hp: keras_tuner.HyperParameters) -> tfp_vae.VAE:
        size = hp.Choice("latent_size", [4, 8, 16, 32])
        hidden = (hp.Choice("hidden_size", [64, 128, 256]),)
        shape = self.splits.event_shape
        posterior = tfpl.MultivariateNormalDiag(size)
        likelihood = tfpl.IndependentBinomial(shape, total_count=16)
        encoder = [networks.mlp(shape, posterior.params_size(size), hidden_sizes=hidden), posterior]
        decoder = [
            networks.mlp((size,), likelihood.params_size(shape), hidden_sizes=hidden),
            likelihood,
        ]
        vae = tfp_vae.VAE(
            keras.Sequential(encoder),
            keras.Sequential(decoder),
            objective=objectives.ELBO(beta=hp.Choice("beta", [0.5, 1.0, 2.0])),
        )
        vae.compile(keras.optimizers.Adam(hp.Float("rate", 3e-4, 1e-2, sampling="log")))
        return vae

    def fit(self, hp, vae, *args, **kwargs) -> float:
        """Train a model and return what the search makes small: -ELBO of the validation data."""
        vae.fit(self.splits.train, *args, batch_size=100, **kwargs)
        return -float(evaluation.elbo(vae, self.splits.validation)["elbo"].mean())


def main(folder: str, max_trials: int = 15, epochs: int = 30) -> dict[str, float]:
    """Search, and judge the best settings, and those it began with, on the test data."""
    keras.utils.set_random_seed(0)
    splits = datasets.load("digits")
    tuner = keras_tuner.BayesianOptimization(
        VAEs(splits),
        objective=keras_tuner.Objective("default_objective", "min"),
        max_trials=max_trials,
        seed=0,
        overwrite=True,
        directory=folder,
        project_name="digits",
    )
    tuner.search(epochs=epochs, verbose=0)
    results = {}
    tried = {
        "best": tuner.get_best_hyperparameters()[0],
        "default": keras_tuner.HyperParameters(),
    }
    for name, settings in tried.items():
        keras.utils.set_random_seed(0)
        vae = VAEs(splits).build(settings)
        VAEs(splits).fit(settings, vae, epochs=epochs, verbose=0)
        results[f"{name}: NLL"] = evaluation.nll(vae, splits.test, num_samples=500).value
        print(f"{name}: {settings.values}, NLL {results[f'{name}: NLL']:.1f} nats")
    return results


if __name__ == "__main__":
    main(sys.argv[1] if sys.argv[1:] else str(Path("tuning")))
