"""Examples per second of training the same VAE in this package and beside it, in one run.

Run: make benchmark   (or: python benchmarks/training_speed.py --network conv2d --batch-size 100)

Networks: an MLP 784-400-20-400-784; the same with 50 draws of z (IWAE); convolutions of images; causal convolutions and
GRUs over sequences. All contenders train on the same binary examples with Adam and take turns: each line is the median
over the rounds, with the smallest and the largest, of an epoch after the first, which compiles.
"""

import argparse

from data import SHAPES
from turns import take_turns

STEPS = 50
# name -> its script and arguments, beside network, batch size and epochs
CONTENDERS = {
    "PyTorch, eager": ["torch_vae.py", "eager"],
    "PyTorch, torch.compile": ["torch_vae.py", "compiled"],
    "JAX, lax.scan over an epoch": ["jax_vae.py"],
    "Pythae, its own trainer": ["pythae_vae.py"],
    "hand-written TensorFlow, an epoch in XLA": ["tensorflow_vae.py"],
    "hand-written Keras, XLA": ["keras_vae.py", "by hand", 1],
    f"hand-written Keras, XLA, {STEPS} steps a call": ["keras_vae.py", "by hand", STEPS],
    "tfp_vae, default settings": ["keras_vae.py", "tfp_vae", 1],
    f"tfp_vae, {STEPS} steps a call": ["keras_vae.py", "tfp_vae", STEPS],
    "tfp_vae, step by step": ["keras_vae.py", "step by step", 1],
    "the matrix products alone, by XLA": ["products.py", "XLA"],
    "the matrix products alone, by TensorFlow": ["products.py", "TensorFlow"],
}
# Those that have the network only.
ONLY = {
    "JAX, lax.scan over an epoch": ("mlp", "iwae"),
    "Pythae, its own trainer": ("mlp",),
    "hand-written TensorFlow, an epoch in XLA": ("mlp", "iwae"),
    "hand-written Keras, XLA": ("mlp",),
    f"hand-written Keras, XLA, {STEPS} steps a call": ("mlp",),
    "the matrix products alone, by XLA": ("mlp",),
    "the matrix products alone, by TensorFlow": ("mlp",),
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=SHAPES, default="mlp")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--epochs", type=int, default=3, help="of each round; the first is not counted"
    )
    arguments = parser.parse_args()
    what = [arguments.network, arguments.batch_size, arguments.epochs]
    commands = {
        name: [script, *what, *rest]
        for name, (script, *rest) in CONTENDERS.items()
        if arguments.network in ONLY.get(name, SHAPES)
    }
    unit = f"{arguments.network}: examples per second, batch {arguments.batch_size}"
    number = SHAPES[arguments.network][1]
    take_turns(commands, arguments.rounds, number, unit, "PyTorch, torch.compile")


if __name__ == "__main__":
    main()
