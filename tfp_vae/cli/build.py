"""Build the VAE of a run from its options; here names become objects."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfp_vae import blocks, datasets, hierarchy, layers, networks, objectives, priors, sequences
from tfp_vae.batch import num_examples
from tfp_vae.checks import one_of
from tfp_vae.cli.names import (
    FLOWS,
    OBJECTIVES,
    PAIRS,
    POSTERIORS,
    POSTERIORS_OF_PARTS,
    PRIORS,
    PRIORS_OF_A_SIZE,
    parse,
    parse_likelihood,
)
from tfp_vae.cli.runs import Options
from tfp_vae.layers.distribution_layer import num_params
from tfp_vae.rows import limits, some_of, spread
from tfp_vae.vae import VAE

# Inputs larger than this, such as 8-bit pixels with a likelihood of counts, are scaled before the
# encoder.
LARGE_INPUT = 32.0
# The encoder and the decoder of sequences by the name of their network.
OF_SEQUENCES: dict[str, tuple[Callable, Callable]] = {
    "causal-conv": (sequences.conv_encoder, sequences.causal_conv_decoder),
    "gru": (sequences.gru_encoder, sequences.gru_decoder),
    "transformer": (sequences.attention_encoder, sequences.transformer_decoder),
}
# The width of the networks, if none is chosen.
WIDTHS = {"mlp": 500, "conv": 500, "causal-conv": 128, "gru": 256, "transformer": 128}
# Keras's policies that --precision names.
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16", "float64")
# Number of features of an example that the flow of its posterior is conditional on.
CONTEXT_SIZE = 64


def build(splits: datasets.Splits, options: Options) -> VAE:
    """Make the VAE that the options describe, compiled, with weights drawn by the seed."""
    check_numbers(options)
    options = with_network(splits, options)
    keras.config.set_dtype_policy(one_of(PRECISIONS, options.precision, "--precision"))
    keras.utils.set_random_seed(options.seed)
    encoder, decoder, prior = _networks(splits, options)
    steps = splits.steps_per_epoch(options.batch_size)
    objective = _objective(splits, options, steps)
    vae = VAE(
        encoder,
        decoder,
        prior=prior,
        objective=objective,
        seed=options.seed,
        missing=options.missing,
    )
    vae.compile(
        keras.optimizers.Adam(
            learning_rate(options, steps),
            use_ema=options.ema > 0.0,
            ema_momentum=options.ema or 0.99,
        )
    )
    if not vae.jit_compile:  # Keras's own loop makes one step in a call, unless it is told more
        size = options.batch_size
        vae.steps_per_execution = blocks.most_steps(vae, size, vae.num_draws, steps, divides=True)
    # So that the run can be resumed from before its first step.
    vae.optimizer.build(vae.trainable_variables)
    return vae


def with_network(splits: datasets.Splits, options: Options) -> Options:
    """Return the options with a network that suits the data, and its width, where none is chosen.

    Raises:
        ValueError: if the network that is chosen is not for such data.
    """
    known = tuple(OF_SEQUENCES) if splits.num_tokens else ("mlp", "conv")
    network = known[0] if options.network == "auto" else one_of(known, options.network, "--network")
    is_autoregressive = splits.num_tokens and getattr(layers, splits.likelihood).has_own_network
    if options.word_dropout and not is_autoregressive:
        raise ValueError(
            f"--word-dropout {options.word_dropout} hides tokens from a decoder that sees those "
            f"before each token, but the likelihood is {splits.likelihood}. Leave it out."
        )
    width = options.hidden_size or WIDTHS[network]
    return dataclasses.replace(options, network=network, hidden_size=width)


def check_numbers(options: Options) -> None:
    """Raise a ValueError if an option is out of range, or has no effect."""
    if not 0.0 < options.learning_rate < np.inf:
        raise ValueError(
            f"--learning-rate must be a finite number above 0, received {options.learning_rate}."
        )
    if options.warm_up > options.epochs:
        raise ValueError(
            f"--warm-up {options.warm_up} is longer than the training of {options.epochs} epochs, "
            "in which beta would not reach its value. Give fewer epochs of warm-up, or more "
            "--epochs."
        )
    if options.ema and options.patience:
        raise ValueError(
            f"--ema {options.ema} takes the average of the weights over the steps, and --patience "
            "the best epoch. Leave one of them out."
        )
    if options.warm_up and not options.beta:
        raise ValueError(
            f"--warm-up {options.warm_up} lets beta rise from 0 to --beta 0. Leave one of them out."
        )
    if not np.isfinite(options.decoder_decay):
        raise ValueError(
            "--decoder-decay must be a finite number of at least 0, received "
            f"{options.decoder_decay}."
        )


def learning_rate(options: Options, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Return a cosine schedule from the first rate to 0 over all epochs, given their number of
    steps.
    """
    return keras.optimizers.schedules.CosineDecay(options.learning_rate, steps * options.epochs)


def _networks(
    splits: datasets.Splits, options: Options
) -> tuple[keras.Model, keras.Model, keras.layers.Layer]:
    """Return encoder, decoder and prior."""
    name, arguments = parse("posterior", options.posterior, (*POSTERIORS, "Joint"))
    if name in hierarchy.__all__:
        return _hierarchy(splits, options, name, arguments)
    if name == "Joint":
        parts = {
            part: _part(*parse("posterior", str(end), POSTERIORS_OF_PARTS), options)
            for part, end in arguments.items()
        }
        last: list[keras.layers.Layer] = [keras.layers.ReLU(), layers.Joint(parts)]
        features = _from_data(splits, options, options.hidden_size, hidden_sizes=())
    else:
        parts = {}
        posterior, size = _posterior(name, arguments, options.latent_size)
        last = [posterior]
        features = _from_data(splits, options, size, hidden_sizes=(options.hidden_size,))
    if isinstance(features, keras.Sequential):
        encoder = keras.Sequential(
            [keras.Input(splits.event_shape), *features.layers, *last], name="encoder"
        )
    else:
        encoder = _followed_by(features, last)
    latents = {part: network.output_shape[1:] for part, network in parts.items()} or {
        "z": encoder.output_shape[1:]
    }
    prior = (
        _joint_prior(options, latents)
        if parts
        else _prior(splits, options, _size(latents["z"]), encoder)
    )
    return encoder, _decoder(splits, options, latents), prior


def _hierarchy(splits: datasets.Splits, options: Options, name: str, arguments: dict) -> tuple:
    kinds = {
        "a table": splits.is_table,
        "conditional": splits.conditions is not None,
        "incomplete": options.missing,
    }
    if any(kinds.values()):
        raise ValueError(
            f"--posterior {name} is for a whole x without parts or condition; the data are "
            f"{next(kind for kind, holds in kinds.items() if holds)}. Choose a posterior of one "
            "latent, or Joint(...)."
        )
    arguments = {
        "latent_sizes": (options.latent_size, max(1, options.latent_size // 2)),
        **arguments,
    }
    sizes = hierarchy.check_sizes(arguments["latent_sizes"])
    features = _from_data(splits, options, options.hidden_size, hidden_sizes=())
    top = _prior(splits, options, sizes[-1])
    arguments = {"hidden_size": options.hidden_size, "top": top, **arguments}
    encoder, prior = getattr(hierarchy, name)(features, **arguments)
    return encoder, _decoder(splits, options, {"z1": (sizes[0],)}), prior


def _part(name: str, arguments: dict, options: Options) -> keras.Sequential:
    """Make the posterior of one of several latents, from features that all of them share."""
    posterior, size = _posterior(name, arguments, options.latent_size)
    return keras.Sequential(
        [keras.Input((options.hidden_size,)), keras.layers.Dense(size), posterior]
    )


def _from_data(
    splits: datasets.Splits, options: Options, num_features: int, *, hidden_sizes
) -> keras.Model:
    if splits.conditions is not None or splits.is_table or options.missing:
        return _from_inputs(splits, options, num_features, hidden_sizes)
    if options.network == "mlp":
        network = networks.mlp(splits.event_shape, num_features, hidden_sizes=hidden_sizes)
    else:
        network = _encoder(splits, options, num_features)
    return keras.Sequential([keras.Input(splits.event_shape), *_scaling(splits), network])


def _encoder(splits: datasets.Splits, options: Options, num_features: int) -> keras.Model:
    """Return the network of an x that is no mere vector: of images or sequences."""
    if options.network == "conv":
        return networks.conv_encoder(splits.event_shape, num_features)
    encoder = OF_SEQUENCES[options.network][0]
    return encoder(*splits.event_shape, splits.num_tokens, num_features, units=options.hidden_size)


def _scaling(splits: datasets.Splits) -> list[keras.layers.Layer]:
    if splits.num_tokens:
        return []
    largest = max(map(abs, limits(datasets.x_of(splits.test))))
    return [keras.layers.Rescaling(1.0 / largest)] if largest > LARGE_INPUT else []


def _from_inputs(
    splits: datasets.Splits, options: Options, num_features: int, hidden_sizes
) -> keras.Model:
    """Concatenate the parts of x, their masks, and the condition."""
    shape = splits.event_shape
    size = options.hidden_size
    inputs: dict[str, Any] = {} if splits.conditions is None else {"condition": _condition(splits)}
    if splits.is_table:
        if options.network != "mlp":
            raise ValueError(f"A table has --network mlp, received {options.network!r}.")
        values = splits.training_values()
        inputs = {
            name: networks.of_part(
                spread(values[name]),
                name,
                splits.likelihood_config[name].get("num_categories"),
                missing=options.missing,
            )
            for name in shape
        } | inputs
    else:
        if options.network == "mlp":
            of_x = [keras.layers.Flatten()]
        else:
            of_x = [_encoder(splits, options, size), keras.layers.ReLU()]
        of_x = [*_scaling(splits), *of_x]
        if options.missing:
            inputs = {
                "x": _followed_by(networks.observed(some_of(splits.training_values())), of_x)
            } | inputs
        else:
            inputs = {"x": keras.Sequential([keras.Input(shape), *of_x])} | inputs
    hidden = [keras.layers.Dense(hidden_size, "relu") for hidden_size in hidden_sizes]
    return networks.from_inputs(inputs, [*hidden, keras.layers.Dense(num_features)])


def _followed_by(network: keras.Model, layers: list[keras.layers.Layer]) -> keras.Model:
    return keras.Model(
        network.input, functools.reduce(lambda tensor, layer: layer(tensor), layers, network.output)
    )


def _condition(splits: datasets.Splits) -> Any:
    """Return a network's input for the condition: one-hot vectors for labels, else its shape."""
    if (conditions := splits.conditions) is None:
        return None
    return (
        networks.one_hot(conditions.max() + 1, conditions.shape[1:])
        if splits.has_labels
        else conditions.shape[1:]
    )


def _decoder(splits: datasets.Splits, options: Options, latents: dict[str, tuple]) -> keras.Model:
    condition = _condition(splits)
    inputs: dict[str, Any] = latents if condition is None else {**latents, "condition": condition}
    decay = keras.regularizers.L2(options.decoder_decay) if options.decoder_decay else None
    regularized = {"kernel_regularizer": decay}
    chosen = parse_likelihood(options.likelihood)[1]
    last = keras.layers.Dense(options.hidden_size, "relu", **regularized)
    if splits.table is not None:
        ends = splits.table.likelihood(options.hidden_size, chosen, **regularized)
        return networks.from_inputs(inputs, [last, ends])
    if splits.is_table:
        ends = _ends(splits, options.hidden_size, chosen, **regularized)
        return networks.from_inputs(inputs, [last, ends])
    shape = splits.event_shape
    likelihood = getattr(layers, splits.likelihood)
    shapes = [
        value.output_shape[1:] if isinstance(value, keras.Model) else value
        for value in inputs.values()
    ]
    num_inputs = sum(int(np.prod(given)) for given in shapes)
    if likelihood.has_own_network:
        network = OF_SEQUENCES[options.network][1](
            num_inputs,
            shape[0],
            splits.num_tokens,
            units=options.hidden_size,
            word_dropout=options.word_dropout,
        )
        given = {"network": network, "vocabulary": splits.vocabulary, **chosen}
        return networks.from_inputs(inputs, [likelihood(**given)])
    config = {"event_shape": shape, **splits.likelihood_config, **chosen}
    size = num_params(likelihood, config)
    if options.network != "conv":
        network = networks.mlp(
            (num_inputs,), size, hidden_sizes=(options.hidden_size,), **regularized
        )
    else:
        network = networks.conv_decoder(
            num_inputs, shape, size // int(np.prod(shape)), **regularized
        )
    return networks.from_inputs(inputs, [network, likelihood(**config)])


def _ends(splits: datasets.Splits, num_features: int, chosen: dict, **regularized) -> layers.Joint:
    """Return the likelihoods of the parts of x, each after a dense layer of its own."""
    parts = {}
    for name, shape in splits.event_shape.items():
        config = {"event_shape": shape, **splits.likelihood_config[name], **chosen[name]}
        likelihood = getattr(layers, splits.likelihood[name])
        dense = keras.layers.Dense(num_params(likelihood, config), **regularized)
        parts[name] = keras.Sequential([keras.Input((num_features,)), dense, likelihood(**config)])
    return layers.Joint(parts)


def _posterior(
    name: str, arguments: dict, latent_size: int
) -> tuple[layers.DistributionLayer, int]:
    """Return the posterior's layer and its number of parameters.

    The name of a flow means a `FlowPosterior` with this flow.
    """
    posterior = getattr(layers, name)
    if name in FLOWS:
        flow = {"event_size": latent_size, "context_size": CONTEXT_SIZE, **arguments}
        arguments = {"flow": posterior(**flow)}
        posterior = layers.FlowPosterior
    else:
        arguments = {**posterior.arguments_of_latents(latent_size), **arguments}
    return posterior(**arguments), num_params(posterior, arguments)


def _joint_prior(options: Options, latents: dict[str, tuple]) -> layers.Joint:
    name, arguments = parse("prior", options.prior, (*PRIORS, "Joint"))
    if name != "Joint" or arguments.keys() != latents.keys():
        example = ", ".join(f"{part}='StandardNormal'" for part in latents)
        raise ValueError(
            f'--posterior Joint(...) needs a prior of each part, such as --prior "Joint({example})"; received '
            f"--prior {options.prior!r}."
        )
    chosen = {part: parse("prior", str(arguments[part]), PRIORS_OF_A_SIZE) for part in latents}
    return layers.Joint(
        {part: _named_prior(*chosen[part], _size(shape)) for part, shape in latents.items()}
    )


def _prior(
    splits: datasets.Splits,
    options: Options,
    latent_size: int | tuple,
    encoder: keras.Model | None = None,
) -> priors.Prior:
    """Return the prior of the latents, or of the last latent of a hierarchy."""
    name, arguments = parse("prior", options.prior, PRIORS)
    last = None if encoder is None else encoder.layers[-1]
    for prior, posterior in PAIRS.items():
        if (name == prior) != (type(last).__name__ == posterior):
            raise ValueError(
                f"--posterior {posterior} and --prior {prior} go together; received --posterior "
                f"{options.posterior!r} and --prior {options.prior!r}."
            )
    if name in PRIORS_OF_A_SIZE:
        return _named_prior(name, arguments, latent_size)
    examples = None if splits.is_table or options.missing else splits.training_values()
    return getattr(priors, name).of_encoder(encoder, examples, **arguments)


def _named_prior(name: str, arguments: dict, latent_size: int | tuple) -> priors.Prior:
    if name in FLOWS:
        return priors.FlowPrior(getattr(layers, name)(latent_size, **arguments))
    return getattr(priors, name)(latent_size, **arguments)


def _size(shape: tuple) -> int | tuple:
    return shape[0] if len(shape) == 1 else shape


def _objective(splits: datasets.Splits, options: Options, steps: int) -> objectives.Objective:
    name, arguments = parse("objective", options.objective, OBJECTIVES)
    objective = getattr(objectives, name)
    arguments = {**objective.arguments_of_data(num_examples(splits.train)), **arguments}
    if options.beta != 1.0 or options.warm_up or options.cycles > 1:
        if not objective.has_scheduled_beta or "beta" in arguments:
            scheduled = [one for one in OBJECTIVES if getattr(objectives, one).has_scheduled_beta]
            raise ValueError(
                f"--beta, --warm-up and --cycles are about the beta of {' and '.join(scheduled)}; "
                f"received --objective {options.objective!r}. Leave them out, or give beta there "
                "alone."
            )
        arguments["beta"] = _beta(options, steps)
    return objective(**arguments)


def _beta(options: Options, steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Return beta, which rises during the warm-up: once, or in each of several cycles of equal
    length.
    """
    if options.cycles > 1:
        if not 0 < options.warm_up * options.cycles <= options.epochs:
            raise ValueError(
                f"Each of the {options.cycles} --cycles lasts {options.epochs / options.cycles:g} "
                "epochs, so --warm-up must be at least 1 and at most that; received "
                f"{options.warm_up}."
            )
        ramp = options.warm_up * options.cycles / options.epochs
        steps_per_cycle = max(1, steps * options.epochs // options.cycles)
        return objectives.CyclicalSchedule(
            options.beta, steps_per_cycle=steps_per_cycle, num_cycles=options.cycles, ramp=ramp
        )
    rise = keras.optimizers.schedules.PolynomialDecay(
        0.0, max(1, options.warm_up * steps), options.beta
    )
    return rise if options.warm_up else options.beta
