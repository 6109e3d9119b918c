"""The MLP of the benchmarks as Pythae's VAE, with its own trainer: prints the seconds of each epoch but the first."""

import contextlib
import json
import sys
import tempfile
import time

import torch
from data import DIM, HIDDEN, LATENT, make_data
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import nn


class Encoder(BaseEncoder):
    def __init__(self, hidden=HIDDEN, latent=LATENT):
        super().__init__()
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(DIM, hidden), nn.ReLU())
        self.loc, self.log_variance = nn.Linear(hidden, latent), nn.Linear(hidden, latent)

    def forward(self, x):
        hidden = self.hidden(x)
        return ModelOutput(embedding=self.loc(hidden), log_covariance=self.log_variance(hidden))


class Decoder(BaseDecoder):
    def __init__(self, hidden=HIDDEN, latent=LATENT):
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, DIM), nn.Sigmoid()
        )

    def forward(self, z):
        return ModelOutput(reconstruction=self.network(z))


class EpochTimer(TrainingCallback):
    """Seconds of each epoch."""

    def __init__(self):
        self.seconds = []

    def on_epoch_begin(self, training_config, **kwargs):
        self.start = time.perf_counter()

    def on_epoch_end(self, training_config, **kwargs):
        self.seconds.append(time.perf_counter() - self.start)


def main(name, batch_size, epochs):
    config = VAEConfig(input_dim=(DIM,), latent_dim=LATENT, reconstruction_loss="bce")
    timer = EpochTimer()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        trainer = BaseTrainer(
            model=VAE(config, Encoder(), Decoder()),
            train_dataset=Rows(torch.from_numpy(make_data(name))),
            training_config=BaseTrainerConfig(
                output_dir=folder,
                num_epochs=int(epochs),
                learning_rate=1e-3,
                per_device_train_batch_size=int(batch_size),
                optimizer_cls="Adam",
            ),
            callbacks=[timer],
        )
        trainer.train()
    print(json.dumps(timer.seconds[1:]))


class Rows(torch.utils.data.Dataset):
    """Data as Pythae's trainer takes them."""

    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return {"data": self.x[index]}


if __name__ == "__main__":
    main(*sys.argv[1:])
