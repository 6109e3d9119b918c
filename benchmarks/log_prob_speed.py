"""Seconds of estimating log p(x) by importance sampling: 100 images, 1,000 draws each, the MLP 784-400-20-400-784.

Run: make benchmark   (or: python benchmarks/log_prob_speed.py --rounds 5)

All contenders compute log of the mean of p(x|z) p(z) / q(z|x) over the same number of draws and take turns. Without
arguments it compares them; with the name of one it runs that, and prints the seconds of each repetition as json.
"""

import argparse
import json
import math
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from data import DIM, HIDDEN, LATENT, make_data
from turns import take_turns

IMAGES, DRAWS, AT_ONCE, REPETITIONS = 100, 1000, 10, 3


def in_tfp_vae(x):
    from keras_vae import make_vae

    vae = make_vae("mlp")
    return lambda: vae.log_prob(x, DRAWS).numpy()


def in_jax(x):
    import jax
    import jax_vae

    params = jax_vae.make_params(jax.random.key(0))
    jax_x = jax.numpy.asarray(x)

    @jax.jit
    def estimate(params, x):
        loc, scale = jax_vae.encode(params, x)

        def add_draws(log_sum, key):
            weights = jax_vae.log_weights(params, x, loc, scale, key, AT_ONCE)
            more = jax.nn.logsumexp(weights, 0)
            return jax.numpy.logaddexp(log_sum, more), None

        keys = jax.random.split(jax.random.key(1), DRAWS // AT_ONCE)
        nothing = jax.numpy.full(len(x), -jax.numpy.inf)
        return jax.lax.scan(add_draws, nothing, keys)[0] - math.log(DRAWS)

    return lambda: jax.block_until_ready(estimate(params, jax_x))


def in_torch(x, *, compiled=False):
    import torch
    import torch_vae

    encoder, decoder = torch_vae.networks("mlp")
    torch_x = torch.from_numpy(x)
    weights = torch.compile(torch_vae.log_weights) if compiled else torch_vae.log_weights

    @torch.no_grad()
    def estimate():
        parts = [weights(encoder, decoder, torch_x, AT_ONCE) for _ in range(DRAWS // AT_ONCE)]
        return torch.logsumexp(torch.cat(parts), 0) - math.log(DRAWS)

    return estimate


def in_torch_compiled(x):
    return in_torch(x, compiled=True)


def in_pythae(x):
    import torch
    from pythae.models import VAE, VAEConfig
    from pythae.models.nn.default_architectures import Decoder_AE_MLP, Encoder_VAE_MLP

    config = VAEConfig(input_dim=(DIM,), latent_dim=LATENT, reconstruction_loss="bce")
    vae = VAE(config, Encoder_VAE_MLP(config), Decoder_AE_MLP(config)).eval()
    torch_x = torch.from_numpy(x)
    return lambda: vae.get_nll(torch_x, n_samples=DRAWS, batch_size=DRAWS)


CONTENDERS = {
    "tfp_vae": in_tfp_vae,
    "JAX": in_jax,
    "PyTorch, eager": in_torch,
    "PyTorch, torch.compile": in_torch_compiled,
    "Pythae, get_nll": in_pythae,
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=CONTENDERS)
    arguments = parser.parse_args()
    if arguments.only is None:
        commands = {name: ["log_prob_speed.py", "--only", name] for name in CONTENDERS}
        # Of multiplications and additions, in the decoder alone.
        work = 2 * (LATENT * HIDDEN + HIDDEN * DIM) * IMAGES * DRAWS / 1e9
        take_turns(commands, arguments.rounds, work, "log_prob: GFLOP/s", "JAX")
        return
    estimate = CONTENDERS[arguments.only](make_data()[:IMAGES])
    estimate()
    seconds = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        estimate()
        seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
