"""The VAE of training_speed.py in plain PyTorch: prints the seconds of each epoch but the first, as json."""

import json
import sys
import time

import torch
from data import DIM, HIDDEN, LATENT, make_data


def with_torch(x, batch_size, epochs, compiled):
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(
        torch.nn.Linear(DIM, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 2 * LATENT)
    )
    decoder = torch.nn.Sequential(
        torch.nn.Linear(LATENT, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, DIM)
    )
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-3, fused=True)

    def loss_of(batch):
        loc, scale = encoder(batch).chunk(2, -1)
        scale = torch.nn.functional.softplus(scale) + 1e-5
        logits = decoder(loc + scale * torch.randn_like(loc))
        nll = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch, reduction="sum")
        return (nll + 0.5 * (loc**2 + scale**2 - 1 - 2 * scale.log()).sum()) / len(batch)

    if compiled:
        loss_of = torch.compile(loss_of)
    data, seconds = torch.from_numpy(x), []
    for _ in range(epochs):
        start = time.perf_counter()
        order = torch.randperm(len(data))
        for first in range(0, len(data) - batch_size + 1, batch_size):
            optimizer.zero_grad()
            loss_of(data[order[first : first + batch_size]]).backward()
            optimizer.step()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


if __name__ == "__main__":
    batch_size, epochs, how = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    print(json.dumps(with_torch(make_data(), batch_size, epochs, compiled=how == "compiled")))
