"""The VAEs of the benchmarks in plain PyTorch: prints the seconds of each epoch but the first, as json."""

import json
import math
import sys
import time

import torch
from data import BITS, CHANNELS, DEPTH, DIM, DRAWS, HIDDEN, LATENT, STEPS, make_data
from torch import nn


class Causal(nn.Module):
    """A causal convolution over `[batch, channels, steps]`, and relu."""

    def __init__(self, channels):
        super().__init__()
        self.convolution = nn.Conv1d(channels, CHANNELS, 3)

    def forward(self, x):
        return torch.relu(self.convolution(nn.functional.pad(x, (2, 0))))


class LastState(nn.Module):
    """The last state of a GRU over `[batch, steps, channels]`."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(BITS, 2 * CHANNELS, batch_first=True)

    def forward(self, x):
        return self.gru(x)[1][0]


class Repeated(nn.Module):
    """A GRU that sees z at each step; `[batch, steps, bits]`."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(LATENT, 2 * CHANNELS, batch_first=True)
        self.dense = nn.Linear(2 * CHANNELS, BITS)

    def forward(self, z):
        return self.dense(self.gru(z[:, None].expand(-1, STEPS, -1))[0]).flatten(1)


class Transposed(nn.Module):
    """`[batch, a, b]` -> `[batch, b, a]`."""

    def forward(self, x):
        return x.transpose(1, 2)


def networks(name):
    """Encoder and decoder, as in keras_vae.py."""
    if name in ("mlp", "iwae"):
        encoder = [nn.Linear(DIM, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * LATENT)]
        decoder = [nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, DIM)]
    elif name == "conv2d":
        encoder = [
            nn.Unflatten(1, (1, 28)), nn.Flatten(3), nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(7 * 7 * 64, 2 * LATENT),
        ]  # fmt: skip
        decoder = [
            nn.Linear(LATENT, 7 * 7 * 64), nn.ReLU(), nn.Unflatten(1, (64, 7, 7)),
            nn.ConvTranspose2d(64, 32, 3, 2, 1, 1), nn.ReLU(), nn.ConvTranspose2d(32, 1, 3, 2, 1, 1),
            nn.Flatten(),
        ]  # fmt: skip
    elif name == "conv1d":
        encoder = [
            Transposed(), *(Causal(CHANNELS if i else BITS) for i in range(DEPTH)), nn.Flatten(),
            nn.Linear(STEPS * CHANNELS, 2 * LATENT),
        ]  # fmt: skip
        decoder = [
            nn.Linear(LATENT, STEPS * CHANNELS), nn.ReLU(), nn.Unflatten(1, (CHANNELS, STEPS)),
            *(Causal(CHANNELS) for _ in range(DEPTH)), Transposed(), nn.Linear(CHANNELS, BITS),
            nn.Flatten(),
        ]  # fmt: skip
    else:
        encoder = [LastState(), nn.Linear(2 * CHANNELS, 2 * LATENT)]
        decoder = [Repeated()]
    return nn.Sequential(*encoder), nn.Sequential(*decoder)


def log_weights(encoder, decoder, x, draws):
    """log p(x, z) - log q(z|x) of draws of z, `[draws, batch]`."""
    loc, scale = encoder(x).chunk(2, -1)
    scale = nn.functional.softplus(scale) + 1e-5
    noise = torch.randn(draws, *loc.shape)
    z = loc + scale * noise
    logits = decoder(z.flatten(0, 1)).unflatten(0, (draws, len(x)))
    x = x.flatten(1).expand(draws, -1, -1)
    log_likelihood = -nn.functional.binary_cross_entropy_with_logits(
        logits, x, reduction="none"
    ).sum(-1)
    return log_likelihood + (0.5 * (noise**2 - z**2) + scale.log()).sum(-1)


def main(name, batch_size, epochs, how):
    batch_size = int(batch_size)
    torch.manual_seed(0)
    encoder, decoder = networks(name)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-3, fused=True)
    draws = DRAWS.get(name)

    def elbo(batch):
        loc, scale = encoder(batch).chunk(2, -1)
        scale = nn.functional.softplus(scale) + 1e-5
        logits = decoder(loc + scale * torch.randn_like(loc))
        nll = nn.functional.binary_cross_entropy_with_logits(
            logits, batch.flatten(1), reduction="sum"
        )
        return (nll + 0.5 * (loc**2 + scale**2 - 1 - 2 * scale.log()).sum()) / len(batch)

    def iwae(batch):
        weights = log_weights(encoder, decoder, batch, draws)
        return -(torch.logsumexp(weights, 0) - math.log(draws)).mean()

    loss_of = iwae if draws else elbo
    if how == "compiled":
        loss_of = torch.compile(loss_of)
    data, seconds = torch.from_numpy(make_data(name)), []
    for _ in range(int(epochs)):
        start = time.perf_counter()
        order = torch.randperm(len(data))
        for first in range(0, len(data) - batch_size + 1, batch_size):
            optimizer.zero_grad()
            loss_of(data[order[first : first + batch_size]]).backward()
            optimizer.step()
        seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds[1:]))


if __name__ == "__main__":
    main(*sys.argv[1:])
