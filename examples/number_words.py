"""A small language: a VAE of the numbers below a million in English words, their samples and interpolations.

The lines are written here, so that each sample can be checked: is it a number? The words of a number depend on each
other, which the decoder learns; z tells which number it is. No model can have a smaller NLL than ln 1,000,000 = 13.8
nats, as all numbers are equally probable.

Run: python examples/number_words.py
"""

import keras
import numpy as np

import tfp_vae
from tfp_vae import evaluation, objectives, sequences
from tfp_vae import layers as tfpl
from tfp_vae.text import Vocabulary

ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
LATENT_SIZE, BETA, BATCH_SIZE = 16, 0.3, 200


def in_words(number: int) -> str:
    """Return a number from 0 to 999,999 in words.

    >>> in_words(0), in_words(21), in_words(104_019)
    ('zero', 'twenty one', 'one hundred four thousand nineteen')
    """
    if number < 20:
        return ONES[number]
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if number >= size:
            rest = f" {in_words(number % size)}" if number % size else ""
            return f"{in_words(number // size)} {name}{rest}"
    rest = f" {ONES[number % 10]}" if number % 10 else ""
    return TENS[number // 10 - 2] + rest


def make_vae(vocabulary: Vocabulary, length: int, units: int, beta) -> tfp_vae.VAE:
    """Make a VAE with a recurrent encoder and decoder."""
    posterior = tfpl.MultivariateNormalDiag
    features = sequences.gru_encoder(
        length, len(vocabulary), posterior.params_size(LATENT_SIZE), units=units
    )
    network = sequences.gru_decoder(LATENT_SIZE, length, len(vocabulary), units=units)
    likelihood = tfpl.AutoregressiveCategorical(network, vocabulary=vocabulary)
    return tfp_vae.VAE(
        keras.Sequential([features, posterior(LATENT_SIZE)]),
        keras.Sequential([keras.Input((LATENT_SIZE,)), likelihood]),
        objective=objectives.ELBO(beta=beta),
    )


def main(num_lines: int = 30_000, epochs: int = 20, units: int = 128, num_samples: int = 1000):
    """Train a model, print samples and interpolations, and return the numbers of the model."""
    random = np.random.RandomState(0)
    numbers = random.choice(1_000_000, num_lines, replace=False)
    lines = [in_words(number) for number in numbers]
    vocabulary = Vocabulary.of(lines, "words")
    x = vocabulary.encode(lines)
    test, train = np.split(x, [num_lines // 10])
    keras.utils.set_random_seed(0)
    steps = epochs * -(-len(train) // BATCH_SIZE)
    beta = keras.optimizers.schedules.PolynomialDecay(0.0, steps // 4, BETA)
    vae = make_vae(vocabulary, x.shape[1], units, beta)
    vae.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps)))
    vae.fit(train, batch_size=BATCH_SIZE, epochs=epochs, verbose=2)
    texts = vocabulary.decode(vae.generate(num_samples, draws=True))
    known = {in_words(number) for number in range(1_000_000)}
    metrics = evaluation.evaluate(vae, test[:500], num_samples=100, batch_size=100)
    again = vocabulary.decode(vae.reconstruct(test))
    results = {
        "are numbers": float(np.mean([text in known for text in texts])),
        "different": len({*texts}) / len(texts),
        "exact reconstruction": float(
            np.mean([a == b for a, b in zip(again, lines[: len(test)], strict=True)])
        ),
        **{name: metrics[name] for name in ("nll", "kl", "active_units", "mutual_information")},
    }
    print("\nSamples:", *texts[:8], sep="\n  ")
    start, end = vae.encode(test[:2]).mean().numpy()
    print("\nFrom one number to another:")
    print(*vocabulary.decode(vae.decode(np.linspace(start, end, 8)).greedy()), sep="\n  ")
    print(*(f"{name}: {value:.3f}" for name, value in results.items()), sep="\n")
    return results


if __name__ == "__main__":
    main()
