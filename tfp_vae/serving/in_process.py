"""A live model behind the interface of a served one."""

from collections.abc import Collection

from tfp_vae.serving.description import description
from tfp_vae.serving.served import ServedVAE
from tfp_vae.serving.signatures import signatures
from tfp_vae.vae import VAE


def in_process(vae: VAE, source: str, *, only: Collection[str] = ()) -> ServedVAE:
    """Return a VAE as its export would be: the same signatures, each traced once in this process.

    Nothing is written. The weights are those of the VAE, so later training changes the answers.

    Args:
        vae: a built VAE.
        source: what to call it in errors.
        only: the signatures that are asked for, as each takes time to trace; by default all.

    Example:
    >>> import keras
    >>> from tfp_vae import layers as tfpl
    >>> encoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2)])
    >>> decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(6), tfpl.IndependentNormal(3)])
    >>> served = in_process(VAE(encoder, decoder), "a small VAE")
    >>> sorted(served.score([[0.0, 1.0, 2.0]]))
    ['elbo', 'kl', 'log_likelihood']
    """
    numbers = {"score_samples": 16, "log_prob_samples": 128}
    functions = signatures(vae, **numbers)
    functions = {name: functions[name] for name in only or functions}

    def answer(signature, inputs):
        function = functions[signature]
        return function(*(inputs[spec.name] for spec in function.input_signature))

    return ServedVAE(answer, description(vae, functions, **numbers), source)


__all__ = ["in_process"]
