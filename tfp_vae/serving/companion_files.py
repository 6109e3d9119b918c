"""Files next to the model: a model card for people, and configuration files for the server."""

import contextlib
import dataclasses
import json
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import keras

from tfp_vae.tables import Table
from tfp_vae.vae import VAE

CARD = Path("assets.extra") / "model_card.md"
# These files are in the model's base folder; TF Serving takes only numbers there as versions.
MODELS_CONFIG = """\
# For tensorflow_model_server --model_config_file={place}/models.config
model_config_list {{
  config {{
    name: {name}
    base_path: {path}
    model_platform: "tensorflow"
  }}
}}
"""
BATCHING_CONFIG = """\
# For tensorflow_model_server --enable_batching --batching_parameters_file={place}/batching.config
max_batch_size {{ value: 128 }}
allowed_batch_sizes: [1, 8, 32, 128]
# How long a request waits for others to share its batch.
batch_timeout_micros {{ value: 1000 }}
# Requests beyond these are answered "unavailable", and tfp_vae.client asks again.
max_enqueued_batches {{ value: 100 }}
# As many as the server has cores.
num_batch_threads {{ value: 4 }}
"""


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """Contents of a model card that the model itself does not know.

    Args:
        data: what the model was trained on, in a sentence or a few.
        metrics: numbers by name, such as those of `tfp_vae.evaluation.evaluate`.
        pictures: files to show; they are copied.
        notes: anything else, as Markdown: intended use, limits, contact.
    """

    data: str = "Not stated."
    metrics: Mapping[str, object] = dataclasses.field(default_factory=dict)
    pictures: Sequence[str | os.PathLike] = ()
    notes: str = ""


def write_card(folder: Path, name: str, vae: VAE, description: str, card: ModelCard) -> None:
    """Write a version's model card, `assets.extra/model_card.md`, with its pictures next to it."""
    pictures = [Path(picture) for picture in card.pictures]
    for picture in pictures:
        shutil.copyfile(picture, folder / CARD.parent / picture.name)
    content = json.loads(description)
    sections = {
        "Data": f"{card.data}\n\nOne example has the shape {vae.event_shape}; all quantities are in nats per example.",
        "Metrics": _table(
            ("quantity", "value"), [(key, _number(value)) for key, value in card.metrics.items()]
        ),
        "Pictures": "\n\n".join(f"![{picture.stem}]({picture.name})" for picture in pictures),
        "Architecture": _architecture(vae),
        "Signatures": _signatures(content["signatures"]),
        "Columns": "" if vae.table is None else _columns(vae.table),
        "Versions": _table(("package", "version"), list(content["versions"].items())),
        "Notes": card.notes,
    }
    text = "\n\n".join(f"## {title}\n\n{body}" for title, body in sections.items() if body)
    (folder / CARD).write_text(
        f"# Model card: {name}\n\nA variational autoencoder, exported by tfp_vae.\n\n{text}\n"
    )


def write_configurations(base: Path, aside: Path) -> None:
    """Write `models.config` and `batching.config` into a base folder, each in one step, unless the
    folder has them already.
    """
    for file, text in {"models.config": MODELS_CONFIG, "batching.config": BATCHING_CONFIG}.items():
        # Strings are quoted as in JSON, which protobuf's text format also reads.
        place = f"/models/{base.name}"
        name, path = (json.dumps(value, ensure_ascii=False) for value in (base.name, place))
        place = shlex.quote(place).replace("\n", "\\n")
        (aside / file).write_text(text.format(name=name, path=path, place=place))
        with contextlib.suppress(FileExistsError):
            os.link(aside / file, base / file)


def _architecture(vae: VAE) -> str:
    parts = {
        "Encoder": vae.encoder,
        "Decoder": vae.decoder,
        "Prior": vae.prior,
        "Objective": vae.objective,
    }
    rows = [(title, *row) for title, part in parts.items() for row in _layers(part)]
    return _table(("part", "layer", "weights"), rows) + f"\n\n{vae.count_params():,} parameters."


def _leaves(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    if isinstance(layer, keras.Model):
        for inner in layer.layers:
            yield from _leaves(inner)
    elif not isinstance(layer, keras.layers.InputLayer):
        yield layer


def _layers(part: keras.layers.Layer) -> list[tuple[str, str]]:
    return [
        (
            type(leaf).__name__,
            ", ".join(f"{weight.name} {tuple(weight.shape)}" for weight in leaf.weights),
        )
        for leaf in _leaves(part)
    ]


def _signatures(signatures: Mapping) -> str:
    rows = [
        (f"`{name}`", _specs(each["inputs"]), _specs(each["outputs"]))
        for name, each in signatures.items()
    ]
    return _table(("signature", "inputs", "outputs"), rows)


def _columns(table: Table) -> str:
    rows = [
        (*told[:2], f"`{place}`" if place else "nothing", *told[2:])
        for told, place in zip(table.describe(), table.places.values(), strict=True)
    ]
    return (
        "`tfp_vae.client` takes and returns the columns in their own units and names. Requests without it "
        "hold numbers, standardized if the values have a mean and sd (standard deviation), the place of "
        "a name among all names, and a whole number's distance from the smallest.\n\n"
        + _table(("column", "dtype", "in a request", "likelihood", "values"), rows)
    )


def _specs(specs: Mapping) -> str:
    return ", ".join(
        f"{name}: {spec['dtype']} {spec['shape']}".replace("None", "batch")
        for name, spec in specs.items()
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows] if rows else []
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join("| " + " | ".join(line) + " |" for line in escaped)


def _number(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
