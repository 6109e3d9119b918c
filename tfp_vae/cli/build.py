"""From the options of a run to its VAE: where names become objects."""

import ast

import keras
import numpy as np

from tfp_vae import datasets, layers, networks, objectives, priors
from tfp_vae.checks import one_of
from tfp_vae.cli.runs import Options
from tfp_vae.vae import VAE

# Training steps in one call of the compiled loop, at most; the loop ends with the epoch.
MAX_STEPS_PER_EXECUTION = 50
# Values beyond it, such as 8-bit pixels under a likelihood of counts, are scaled before they enter the encoder.
LARGE_INPUT = 32.0
# Features of an example that the flow of its posterior depends on.
CONTEXT_SIZE = 64
FLOWS = tuple(
    name
    for name in layers.__all__
    if isinstance(getattr(layers, name), type) and issubclass(getattr(layers, name), layers.Flow)
    if name != "Flow"
)
POSTERIORS = (
    "MultivariateNormalDiag",
    "MultivariateNormalTriL",
    "MultivariateNormalDiagPlusLowRank",
    "PowerSpherical",
    *FLOWS,
)
LIKELIHOODS = (
    "IndependentBernoulli",
    "IndependentBinomial",
    "IndependentContinuousBernoulli",
    "IndependentLogistic",
    "IndependentNegativeBinomial",
    "IndependentNormal",
    "IndependentPoisson",
    "IndependentQuantizedLogistic",
    "IndependentStudentT",
    "IndependentZeroInflatedNegativeBinomial",
)
PRIORS = (*(name for name in priors.__all__ if name not in ("Prior", "FlowPrior")), *FLOWS)
OBJECTIVES = tuple(
    name
    for name in objectives.__all__
    if isinstance(getattr(objectives, name), type) and issubclass(getattr(objectives, name), objectives.Objective)
    if name != "Objective"
)


def build(splits: datasets.Splits, options: Options) -> VAE:
    """Make the VAE that the options describe, compiled, with weights drawn by the seed."""
    if not np.isfinite(options.learning_rate):
        raise ValueError(f"--learning-rate must be a finite number, received {options.learning_rate}.")
    keras.utils.set_random_seed(options.seed)
    encoder, decoder = _networks(splits, options)
    steps = splits.steps_per_epoch(options.batch_size)
    objective = _objective(splits, options, steps)
    vae = VAE(encoder, decoder, prior=_prior(splits, options, encoder), objective=objective, seed=options.seed)
    schedule = keras.optimizers.schedules.CosineDecay(options.learning_rate, steps * options.epochs)
    vae.compile(keras.optimizers.Adam(schedule), steps_per_execution=_largest_divisor(steps, MAX_STEPS_PER_EXECUTION))
    vae.optimizer.build(vae.trainable_variables)  # so that the run can be resumed from before its first step
    return vae


def parse(option: str, text: str, known: tuple[str, ...]) -> tuple[str, dict]:
    """Read a name, alone or with arguments by name, as in Python.

    >>> parse("objective", "IWAE(num_samples=50, estimator='dreg')", ("ELBO", "IWAE"))
    ('IWAE', {'num_samples': 50, 'estimator': 'dreg'})
    """
    try:
        tree = ast.parse(text, mode="eval").body
        call = tree if isinstance(tree, ast.Call) else ast.Call(tree, [], [])
        if not isinstance(call.func, ast.Name) or call.args:
            raise ValueError("not a name with arguments by name")
        arguments = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            f"--{option} must be a name, alone or with arguments by name such as {known[0]}(name=1); received {text!r}."
        ) from error
    return one_of(known, call.func.id, f"--{option}"), arguments


def _networks(splits: datasets.Splits, options: Options) -> tuple[keras.Model, keras.Model]:
    shape, latent = splits.event_shape, options.latent_size
    posterior, num_posterior = _posterior(options)
    likelihood = getattr(layers, splits.likelihood)
    num_likelihood = likelihood.params_size(shape)
    if one_of(("mlp", "conv"), options.network, "--network") == "mlp":
        hidden_sizes = (options.hidden_size,)
        to_posterior = networks.mlp(shape, num_posterior, hidden_sizes=hidden_sizes)
        to_likelihood = networks.mlp((latent,), num_likelihood, hidden_sizes=hidden_sizes)
    else:
        to_posterior = networks.conv_encoder(shape, num_posterior)
        to_likelihood = networks.conv_decoder(latent, shape, num_likelihood // int(np.prod(shape)))
    largest = float(np.abs(splits.test).max())
    scaling = [keras.layers.Rescaling(1.0 / largest)] if largest > LARGE_INPUT else []
    return (
        keras.Sequential([keras.Input(shape), *scaling, to_posterior, posterior], name="encoder"),
        keras.Sequential([to_likelihood, likelihood(shape, **splits.likelihood_config)], name="decoder"),
    )


def _posterior(options: Options) -> tuple[layers.DistributionLayer, int]:
    """Give the posterior's layer and its number of parameters; a flow's name stands for a `FlowPosterior` of it."""
    name, arguments = parse("posterior", options.posterior, POSTERIORS)
    if name in FLOWS:
        flow = getattr(layers, name)(options.latent_size, **{"context_size": CONTEXT_SIZE, **arguments})
        return layers.FlowPosterior(flow), layers.FlowPosterior.params_size(flow)
    posterior = getattr(layers, name)
    return posterior(options.latent_size, **arguments), posterior.params_size(options.latent_size, **arguments)


def _prior(splits: datasets.Splits, options: Options, encoder: keras.Model) -> priors.Prior:
    name, arguments = parse("prior", options.prior, PRIORS)
    if name == "VampPrior":
        examples = splits.training_values()
        arguments = {"low": float(examples.min()), "high": float(examples.max()), **arguments}
        prior = priors.VampPrior(encoder, splits.event_shape, **arguments)
        prior.pseudo_inputs.assign(np.resize(examples, prior.pseudo_inputs.shape))
        return prior
    if name in FLOWS:
        return priors.FlowPrior(getattr(layers, name)(options.latent_size, **arguments))
    return getattr(priors, name)(options.latent_size, **arguments)


def _objective(splits: datasets.Splits, options: Options, steps: int) -> objectives.Objective:
    name, arguments = parse("objective", options.objective, OBJECTIVES)
    if name == "BetaTCVAE":
        arguments = {"dataset_size": len(splits.train), **arguments}
    if options.beta != 1.0 or options.warm_up:
        if name not in ("ELBO", "BetaTCVAE") or "beta" in arguments:
            raise ValueError(
                f"--beta and --warm-up are about the beta of ELBO and BetaTCVAE; received --objective "
                f"{options.objective!r}. Leave them out, or give beta there alone."
            )
        rise = keras.optimizers.schedules.PolynomialDecay(0.0, max(1, options.warm_up * steps), options.beta)
        arguments["beta"] = rise if options.warm_up else options.beta
    return getattr(objectives, name)(**arguments)


def _largest_divisor(number: int, limit: int) -> int:
    return max(divisor for divisor in range(1, limit + 1) if number % divisor == 0)
