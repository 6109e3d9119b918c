"""From the options of a run to its VAE: where names become objects."""

import ast
import inspect
from typing import Any

import keras
import numpy as np

from tfp_vae import datasets, hierarchy, layers, networks, objectives, priors
from tfp_vae.checks import one_of
from tfp_vae.cli.runs import Options
from tfp_vae.vae import VAE

# Training steps in one call of the compiled loop, at most; the loop ends with the epoch.
MAX_STEPS_PER_EXECUTION = 50
# Values beyond it, such as 8-bit pixels under a likelihood of counts, are scaled before they enter the encoder.
LARGE_INPUT = 32.0
# Features of an example that the flow of its posterior depends on.
CONTEXT_SIZE = 64
# Numbers in each code vector, of which there are `latent_size`.
CODE_SIZE = 8
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
    "OneHotCategoricalStraightThrough",
    "RelaxedOneHotCategorical",
    "IndependentBernoulliStraightThrough",
    "IndependentRelaxedBernoulli",
    "VectorQuantized",
    "Deterministic",
    *FLOWS,
    *hierarchy.__all__,
)
LIKELIHOODS = (
    "IndependentBernoulli",
    "IndependentBinomial",
    "IndependentContinuousBernoulli",
    "IndependentLogistic",
    "IndependentNegativeBinomial",
    "IndependentNormal",
    "IndependentNormalLearnedScale",
    "IndependentNormalOptimalScale",
    "IndependentPoisson",
    "IndependentQuantizedLogistic",
    "IndependentStudentT",
    "IndependentZeroInflatedNegativeBinomial",
    "MixtureQuantizedLogistic",
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
    encoder, decoder, prior = _networks(splits, options)
    steps = splits.steps_per_epoch(options.batch_size)
    objective = _objective(splits, options, steps)
    vae = VAE(encoder, decoder, prior=prior, objective=objective, seed=options.seed)
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


def parse_likelihood(text: str) -> tuple[str | None, dict]:
    """Read the option --likelihood: a name with its arguments; no name stands for what suits the data."""
    name, arguments = parse("likelihood", text, ("auto", *LIKELIHOODS))
    return None if name == "auto" else name, arguments


def parse_condition(text: str) -> np.ndarray:
    """Read a condition of the option --condition: a label, or numbers with commas between them.

    >>> parse_condition("7"), parse_condition("0.5, 1")
    (array(7), array([0.5, 1. ]))
    """
    try:
        return np.asarray(ast.literal_eval(text), None if "." in text else "int64")
    except (SyntaxError, TypeError, ValueError) as error:
        raise ValueError(
            f"--condition must be a label such as 7, or numbers such as 0.5,1; received {text!r}."
        ) from error


def _networks(splits: datasets.Splits, options: Options) -> tuple[keras.Model, keras.Model, keras.layers.Layer]:
    """Give encoder, decoder and prior."""
    name, arguments = parse("posterior", options.posterior, POSTERIORS)
    if name in hierarchy.__all__:
        if splits.conditions is not None:
            raise ValueError(
                f"--condition goes with a posterior of one latent, received --posterior {options.posterior!r}."
            )
        arguments = {"latent_sizes": (options.latent_size, max(1, options.latent_size // 2)), **arguments}
        features = _from_data(splits, options, options.hidden_size, hidden_sizes=())
        top = _prior(splits, options, arguments["latent_sizes"][-1])
        arguments = {"hidden_size": options.hidden_size, "top": top, **arguments}
        encoder, prior = getattr(hierarchy, name)(features, **arguments)
        return encoder, _decoder(splits, options, (arguments["latent_sizes"][0],), "z1"), prior
    posterior, size = _posterior(name, arguments, options.latent_size)
    features = _from_data(splits, options, size, hidden_sizes=(options.hidden_size,))
    if splits.conditions is None:
        encoder = keras.Sequential([*features.layers, posterior], name="encoder")
    else:
        encoder = keras.Model(features.input, posterior(features.output), name="encoder")
    shape = encoder.output_shape[1:]
    prior = _prior(splits, options, shape[0] if len(shape) == 1 else shape, encoder)
    return encoder, _decoder(splits, options, shape, "z"), prior


def _from_data(splits: datasets.Splits, options: Options, num_features: int, *, hidden_sizes) -> keras.Model:
    if splits.conditions is not None:
        return _from_data_and_condition(splits, options, num_features)
    if one_of(("mlp", "conv"), options.network, "--network") == "mlp":
        network = networks.mlp(splits.event_shape, num_features, hidden_sizes=hidden_sizes)
    else:
        network = networks.conv_encoder(splits.event_shape, num_features)
    return keras.Sequential([keras.Input(splits.event_shape), *_scaling(splits), network])


def _scaling(splits: datasets.Splits) -> list[keras.layers.Layer]:
    largest = float(np.abs(datasets.x_of(splits.test)).max())
    return [keras.layers.Rescaling(1.0 / largest)] if largest > LARGE_INPUT else []


def _from_data_and_condition(splits: datasets.Splits, options: Options, num_features: int) -> keras.Model:
    """Bring the condition beside x, or beside what a convolutional network makes of it."""
    is_mlp = one_of(("mlp", "conv"), options.network, "--network") == "mlp"
    shape, size = splits.event_shape, options.hidden_size
    of_x = [keras.layers.Flatten()] if is_mlp else [networks.conv_encoder(shape, size), keras.layers.ReLU()]
    x = keras.Sequential([keras.Input(shape), *_scaling(splits), *of_x])
    layers = [keras.layers.Dense(size, "relu"), keras.layers.Dense(num_features)]
    return networks.from_inputs({"x": x, "condition": _condition(splits)}, layers)


def _condition(splits: datasets.Splits) -> Any:
    """Give what the condition enters a network by: one-hot vectors of labels, else its shape."""
    if (conditions := splits.conditions) is None:
        return None
    return networks.one_hot(conditions.max() + 1, conditions.shape[1:]) if splits.has_labels else conditions.shape[1:]


def _decoder(splits: datasets.Splits, options: Options, latent_shape: tuple, name: str) -> keras.Sequential:
    shape, likelihood = splits.event_shape, getattr(layers, splits.likelihood)
    config = {"event_shape": shape, **splits.likelihood_config, **parse_likelihood(options.likelihood)[1]}
    size, condition = num_params(likelihood, config), _condition(splits)
    given = condition.output_shape[1:] if isinstance(condition, keras.Model) else condition
    num_inputs = int(np.prod(latent_shape)) + (0 if given is None else int(np.prod(given)))
    regularizer = keras.regularizers.L2(options.decoder_decay) if options.decoder_decay else None
    if options.network == "mlp":
        sizes = {"hidden_sizes": (options.hidden_size,)}
        network = networks.mlp((num_inputs,), size, kernel_regularizer=regularizer, **sizes)
    else:
        network = networks.conv_decoder(num_inputs, shape, size // int(np.prod(shape)), kernel_regularizer=regularizer)
    if condition is not None:
        return networks.from_inputs({name: latent_shape, "condition": condition}, [network, likelihood(**config)])
    flat = [keras.layers.Flatten()] if len(latent_shape) > 1 else []
    inputs = keras.Input(latent_shape, name=name)
    return keras.Sequential([inputs, *flat, network, likelihood(**config)], name="decoder")


def _posterior(name: str, arguments: dict, latent_size: int) -> tuple[layers.DistributionLayer, int]:
    """Give the posterior's layer and its number of parameters; a flow's name stands for a `FlowPosterior` of it."""
    posterior, arguments = getattr(layers, name), {"event_size": latent_size, **arguments}
    if name in FLOWS:
        arguments = {"flow": posterior(**{"context_size": CONTEXT_SIZE, **arguments})}
        posterior = layers.FlowPosterior
    elif name == "VectorQuantized":
        arguments = {"event_shape": (arguments.pop("event_size"), CODE_SIZE), **arguments}
    elif "event_shape" in inspect.signature(posterior).parameters:
        arguments = {"event_shape": arguments.pop("event_size"), **arguments}
    return posterior(**arguments), num_params(posterior, arguments)


def num_params(layer: type[layers.DistributionLayer], arguments: dict) -> int:
    """Ask a layer's `params_size`, which takes those of the layer's arguments that the size depends on."""
    names = inspect.signature(layer.params_size).parameters
    return layer.params_size(**{name: value for name, value in arguments.items() if name in names})


def _prior(
    splits: datasets.Splits, options: Options, latent_size: int | tuple, encoder: keras.Model | None = None
) -> priors.Prior:
    """Give the prior of the latents, or of the last of a hierarchy, which no encoder of x alone ends in."""
    name, arguments = parse("prior", options.prior, PRIORS)
    if name == "VampPrior":
        if encoder is None:
            raise ValueError(
                f"--prior VampPrior needs an encoder of one latent; received --posterior {options.posterior!r}."
            )
        examples = splits.training_values()
        arguments = {"low": float(examples.min()), "high": float(examples.max()), **arguments}
        prior = priors.VampPrior(encoder, splits.event_shape, **arguments)
        prior.pseudo_inputs.assign(np.resize(examples, prior.pseudo_inputs.shape))
        return prior
    is_quantized = encoder is not None and isinstance(encoder.layers[-1], layers.VectorQuantized)
    if (name == "Codes") != is_quantized:
        raise ValueError(
            f"--posterior VectorQuantized and --prior Codes go together; received --posterior {options.posterior!r} "
            f"and --prior {options.prior!r}."
        )
    if is_quantized:
        return priors.Codes(encoder.layers[-1], **arguments)
    if name in FLOWS:
        return priors.FlowPrior(getattr(layers, name)(latent_size, **arguments))
    return getattr(priors, name)(latent_size, **arguments)


def _objective(splits: datasets.Splits, options: Options, steps: int) -> objectives.Objective:
    name, arguments = parse("objective", options.objective, OBJECTIVES)
    if name == "BetaTCVAE":
        arguments = {"dataset_size": len(datasets.x_of(splits.train)), **arguments}
    if options.beta != 1.0 or options.warm_up or options.cycles > 1:
        if name not in ("ELBO", "BetaTCVAE") or "beta" in arguments:
            raise ValueError(
                f"--beta, --warm-up and --cycles are about the beta of ELBO and BetaTCVAE; received --objective "
                f"{options.objective!r}. Leave them out, or give beta there alone."
            )
        arguments["beta"] = _beta(options, steps)
    return getattr(objectives, name)(**arguments)


def _beta(options: Options, steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Give beta, which rises in the warm-up: once, or in each of several cycles that share the training."""
    if options.cycles > 1:
        if not 0 < options.warm_up * options.cycles <= options.epochs:
            raise ValueError(
                f"Each of the {options.cycles} --cycles lasts {options.epochs / options.cycles:g} epochs, so --warm-up "
                f"must be at least 1 and at most that; received {options.warm_up}."
            )
        ramp = options.warm_up * options.cycles / options.epochs
        steps_per_cycle = max(1, steps * options.epochs // options.cycles)
        return objectives.CyclicalSchedule(
            options.beta, steps_per_cycle=steps_per_cycle, num_cycles=options.cycles, ramp=ramp
        )
    rise = keras.optimizers.schedules.PolynomialDecay(0.0, max(1, options.warm_up * steps), options.beta)
    return rise if options.warm_up else options.beta


def _largest_divisor(number: int, limit: int) -> int:
    return max(divisor for divisor in range(1, limit + 1) if number % divisor == 0)
