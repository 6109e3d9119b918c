"""Open what `tfp-vae explore` is given: a run, a `.keras` file, a SavedModel or a served model."""

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from tfp_vae import datasets, serving
from tfp_vae.batch import cut, num_examples
from tfp_vae.cli import served as of_served
from tfp_vae.cli.explore.explorer import SIGNATURES, Explorer
from tfp_vae.cli.report import dataset_of, find, is_served, labels_of, load_data
from tfp_vae.cli.runs import open_vae
from tfp_vae.serving import ServedVAE
from tfp_vae.serving.in_process import in_process

# Examples on the map, at most.
MOST_EXAMPLES = 1000
# Draws from the model that take their place where no data are named.
NUM_DRAWS = 300
# A model on a server: http://host:8501/v1/models/name/versions/3, or in short http://host:8501/name.
PATH = re.compile(r"(?:/v1/models)?/([^/:]+)(?:/versions/(\d+))?/?")


def open_explorer(
    model: str | None, dataset: str | None, condition: str | None, seed: int
) -> Explorer:
    """Return the explorer of a model.

    Args:
        model: a folder, a file or an address; None takes the newest run.
        dataset: name or file of data as in `tfp-vae evaluate`; a served model without any is
            explored by its own draws.
        condition: name of their condition, of a model that takes one.
        seed: of these draws.

    Raises:
        FileNotFoundError: if there is no such folder or file.
        ValueError: if the address names no model, or data and model do not suit each other.
        ConnectionError: if the server cannot be reached, fails, or is of another kind.
        TimeoutError: if it does not answer in time.
    """
    if model is not None and "://" in model:
        try:
            return _of_served(_client(model), model, dataset, condition, seed)
        except RuntimeError as error:  # the server fails, or is another one
            raise ConnectionError(str(error)) from error
    if model is not None and is_served(Path(model)):
        return _of_served(serving.load(model), model, dataset, condition, seed)
    path, run = find(None if model is None else Path(model))
    vae = open_vae(path)
    splits = load_data(vae, run, path, dataset, condition)
    source = dataset or dataset_of(run, path)
    name = str(run.folder if run else path)
    served = in_process(vae, name, only=SIGNATURES)
    condition = condition or (run.options.condition if run else None)
    return _of_data(served, name, splits, source, condition)


def _client(url: str) -> ServedVAE:
    parts = urlsplit(url)
    found = PATH.fullmatch(parts.path)
    if not found or parts.query or parts.fragment:
        raise ValueError(
            "The address must name a model, as in http://localhost:8501/v1/models/digits or "
            f"grpc://localhost:8500/digits; received {url!r}."
        )
    version = None if found[2] is None else int(found[2])
    return serving.client(f"{parts.scheme}://{parts.netloc}", found[1], version=version)


def _of_served(
    served: ServedVAE, name: str, dataset: str | None, condition: str | None, seed: int
) -> Explorer:
    if dataset is not None:
        splits = of_served.load_data(served, name, dataset, condition)
        return _of_data(served, name, splits, dataset, condition)
    if condition is not None:
        raise ValueError("--condition is about --dataset: name the data, too.")
    given, labels = _conditions_to_draw(served, name)
    x = served.generate_arrays(NUM_DRAWS, seed, draws=True, **given)
    note = f"{NUM_DRAWS} draws from the model; --dataset shows data instead."
    return Explorer(served, {**_parts(served, x), **given}, name=name, note=note, labels=labels)


def _conditions_to_draw(
    served: ServedVAE, name: str
) -> tuple[dict[str, np.ndarray], tuple[str, np.ndarray] | None]:
    """Return a condition for each draw in a dict, and the same as labels."""
    if served.condition is None:
        return {}, None
    number = served.condition.num_labels
    if number is None or served.condition.shape:
        raise ValueError(
            f"{name} is conditional on something unknown. Name data with --dataset, and their "
            "condition with --condition, as in training."
        )
    values = np.arange(NUM_DRAWS, dtype="int32") % number
    return {"condition": values}, ("condition", values)


def _of_data(
    served: ServedVAE, name: str, splits: datasets.Splits, source: str, condition: str | None
) -> Explorer:
    if splits.event_shape != served.x.shape:
        raise ValueError(
            f"{name} takes examples of shape {served.x.shape}, those of {source} have the shape "
            f"{splits.event_shape}."
        )
    test = cut(splits.test, 0, MOST_EXAMPLES)
    number = num_examples(test)
    given = {} if served.condition is None else {"condition": test["condition"]}
    labels = labels_of(splits, source, condition)
    which = "The" if number == num_examples(splits.test) else "The first"
    note = f"{which} {number:,} test examples of {splits.name}."
    return Explorer(
        served,
        {**_parts(served, datasets.x_of(test)), **given},
        name=name,
        note=note,
        labels=labels and (labels[0], labels[1][:number]),
    )


def _parts(served: ServedVAE, x) -> Mapping[str, np.ndarray]:
    return {name: np.asarray(part, "float32") for name, part in served.x.parts(x).items()}


__all__ = ["open_explorer"]
