"""Pictures of data and models.

Each function returns a `matplotlib.figure.Figure` to show or to save.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from tfp_vae import sampling
from tfp_vae.batch import by_name, first
from tfp_vae.checks import as_count, as_seed, needs
from tfp_vae.evaluation.latents import variance_of_means
from tfp_vae.layers.parts import map_parts
from tfp_vae.quantity import Quantity
from tfp_vae.seeds import Stream, seed_of
from tfp_vae.surface import takes_frames
from tfp_vae.vae import VAE

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError as error:
    raise needs("tfp_vae.plots", "plots", error) from error

# Colours of images with one channel; missing values have a colour of their own.
GRAY = matplotlib.colormaps["gray"].with_extremes(bad="lightsteelblue")
# Gap between images, as a fraction of their size.
GAP = 0.15
# Letters of a name in a legend.
MOST_LETTERS = 24
# Number of draws from the model, and of examples at most, in the picture of marginals.
NUM_DRAWS = 10_000
NUM_EXAMPLES = 100_000


class Generator(Protocol):
    """The interface that `samples` needs; `VAE` and `serving.ServedVAE` have it."""

    @property
    def x(self) -> Quantity:
        """Shape and parts of an example."""

    @property
    def generate(self) -> Callable[..., np.ndarray]:
        """The method from num_samples, seed and, for a conditional model, condition to
        `[num_samples, *event_shape]`.
        """


@takes_frames
def reconstructions(
    vae: VAE,
    x,
    *,
    num_examples: int = 10,
    part: str | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Show originals above the means of p(x|z) at the posterior's mean z.

    Args:
        vae: a VAE.
        x: data as `fit` takes them: an array, a dict with a condition or of several parts, or a
            `tf.data.Dataset`.
        num_examples: how many of them.
        part: of an x of several parts, the one to show.
        limits: values shown black and white; by default the least and the largest of the picture.
    """
    data = by_name(first(x, num_examples))
    pair = [_part(values, part) for values in (data["x"], vae.reconstruct(data))]
    return grid(np.stack(pair), "Originals (above) and reconstructions", limits=limits)


def samples(
    vae: Generator,
    *,
    num_rows: int = 6,
    num_columns: int = 10,
    seed: int = 0,
    condition=None,
    part: str | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Show means of p(x|z) for z drawn from the prior; of an exported model as well.

    Args:
        vae: a VAE, or an exported one.
        num_rows: number of rows; ignored if there is one condition for each row.
        num_columns: number of columns.
        seed: of the draws.
        condition: for a conditional model, one label for all, or one condition for each row,
            `[num_rows, *condition_shape]`. In the second case each column has one seed, so if the
            prior does not depend on the condition, a column shows the same z under each condition.
        part: of an x of several parts, the one to show.
        limits: values shown black and white; by default the least and the largest of the picture.
    """
    if np.ndim(condition) == 0:
        given = {} if condition is None else {"condition": condition}
        x = _part(vae.generate(num_rows * num_columns, seed=seed, **given), part)
        title = "Samples from the prior" + _under(condition)
        return grid(x.reshape(num_rows, num_columns, *x.shape[1:]), title, limits=limits)
    conditions = np.asarray(condition)
    rows = [_part(vae.generate(num_columns, seed=seed, condition=one), part) for one in conditions]
    labels = [np.array2string(one, precision=2, threshold=3, edgeitems=1) for one in conditions]
    return grid(np.stack(rows), "Samples from the prior, a row for each condition", labels, limits)


@takes_frames
def latent_traversal(
    vae: VAE,
    x,
    *,
    num_dims: int = 8,
    num_steps: int = 11,
    extent: float = 3.0,
    condition=None,
    part: str | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Show what each latent dimension does.

    Each row shows one dimension, which moves from -extent to extent while the others are 0.

    The dimensions are those whose posterior mean varies most over `x`, the most active first.

    Args:
        vae: a VAE.
        x: data as `fit` takes them; memory does not grow with their number.
        num_dims: number of dimensions, at most.
        num_steps: steps from one end to the other.
        extent: value of z at the end of a row.
        condition: of a conditional model, the one condition of all pictures.
        part: of an x of several parts, the one to show.
        limits: values shown black and white; by default the least and the largest of the picture.
    """
    activity = variance_of_means(vae, x)
    dims = np.argsort(activity)[::-1][:num_dims]
    z = np.zeros([len(dims), num_steps, len(activity)], "float32")
    for row, dim in enumerate(dims):
        z[row, :, dim] = np.linspace(-extent, extent, num_steps)
    return grid(
        np.asarray(_part(sampling.point(vae.decode(vae.z.split(z), condition)), part)),
        f"Latent dimensions from {-extent:g} to {extent:g}{_under(condition)}",
        [_latent_name(vae, dim) for dim in dims],
        limits,
    )


def _under(condition) -> str:
    """Return the part of a title that names the condition of the picture, if there is one."""
    if condition is None:
        return ""
    return ", condition " + np.array2string(
        np.asarray(condition), precision=2, threshold=3, edgeitems=1
    )


@takes_frames
def marginals(vae: VAE, x, *, seed: int = 0, num_panels: int = 24) -> Figure:
    """Show how each value of a table is distributed: in the data, and in draws from the model.

    Args:
        vae: a VAE of an x with several parts.
        x: data as `fit` takes them, of which the first 100,000 examples are shown; with a
            condition, draws use the conditions of the examples.
        seed: of the draws.
        num_panels: number of values shown, at most.

    Raises:
        ValueError: if x has no parts.
    """
    if not vae.x.has_parts:
        raise ValueError(f"x has no parts but the shape {vae.x.shape}: show it by plots.samples.")
    data = by_name(first(x, NUM_EXAMPLES))
    condition = data.get("condition")
    joint = vae.joint_distribution(condition)
    shape = [-(-NUM_DRAWS // (1 if condition is None else len(condition)))]
    drawn = vae.x.whole(joint.sample(shape, seed=seed_of(Stream.MARGINALS, as_seed(seed))))
    columns = {}
    real_columns, made_columns = vae.columns(data["x"]), vae.columns(drawn)
    for name, one in vae.columns(map_parts(np.zeros, vae.x.shape)).items():
        real, made = (np.reshape(of[name], [-1, one.size]) for of in (real_columns, made_columns))
        for column in range(one.size):
            title = f"{name} {column}" if one.size > 1 else str(name)
            columns[title] = (real[:, column], made[:, column])
    number = min(as_count(num_panels, "num_panels"), len(columns))
    width = min(6, number)
    height = -(-number // width)
    figure = Figure(figsize=(2.2 * width, 1.9 * height + 0.4), layout="constrained")
    figure.suptitle("Data (filled) and draws from the model (line)")
    panels = figure.subplots(height, width, squeeze=False).ravel()
    for axes, (title, (values, draws)) in zip(panels, columns.items(), strict=False):
        values = values[np.isfinite(values)]
        bins = _bins(values, draws)
        filled = {"alpha": 0.5}
        line = {"histtype": "step", "linewidth": 1.2}
        # Fractions of all values, including those outside the bins.
        for numbers, style in (
            (values, filled),
            (draws, line),
        ):
            axes.hist(
                numbers, bins, weights=np.full(len(numbers), 1.0 / max(1, len(numbers))), **style
            )
        axes.set(title=title, yticks=[])
    for axes in panels[number:]:
        axes.remove()
    return figure


def _bins(values: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return the bin edges of a histogram of both.

    There is one bin for each whole number if these are few; else the number of bins grows with the
    data.
    """
    ends = [np.quantile(part, [0.002, 0.998]) for part in (values, draws) if len(part)]
    low = np.min(ends)
    high = np.max(ends)
    if (
        high - low < 40
        and np.array_equal(values, np.round(values))
        and np.array_equal(draws, np.round(draws))
    ):
        return np.arange(np.floor(low) - 0.5, high + 1.0)
    return np.linspace(low, max(high, low + 1e-6), 2 + int(np.clip(np.sqrt(len(values)), 6, 30)))


def learning_curves(history: dict[str, list[float]]) -> Figure:
    """Show the ELBO and its two terms over the epochs, training and validation, in nats per
    example.

    Args:
        history: the attribute `history` of what `fit` returns.
    """
    labels = {"": "training", "val_": "validation"}
    return _curves(
        lambda name: {
            label: history[start + name]
            for start, label in labels.items()
            if start + name in history
        }
    )


def compared_curves(histories: Mapping[str, dict[str, list[float]]]) -> Figure:
    """Show the validation ELBO and its two terms of several models, in nats per example.

    Of a model without validation data, its curves of training are shown.

    Args:
        histories: the attribute `history` of what each `fit` returned, by the name of the model.

    >>> one, other = {"elbo": [-9.0, -5.0, -4.0]}, {"val_elbo": [-7.0, -6.0]}
    >>> [line.get_label() for line in compared_curves({"a": one, "b": other}).axes[0].lines]
    ['a', 'b']
    """
    return _curves(
        lambda name: {
            model: history.get(f"val_{name}", history.get(name, []))
            for model, history in histories.items()
        }
    )


def _shortened(name: str) -> str:
    """Return the end of a long name, such as that of a folder, for a legend beside a picture.

    >>> _shortened("runs/digits-1"), _shortened("/" + "long/" * 20 + "digits-1")
    ('runs/digits-1', '...ng/long/long/digits-1')
    """
    return name if len(name) <= MOST_LETTERS else "..." + name[3 - MOST_LETTERS :]


def _curves(lines_of: Callable[[str], dict[str, list[float]]]) -> Figure:
    """Draw the ELBO and its two terms in three panels; `lines_of` gives the curves of each."""
    figure = Figure(figsize=(11, 3.5), layout="constrained")
    panels = figure.subplots(1, 3)
    titles = {"elbo": "ELBO", "log_likelihood": "log-likelihood", "kl": "KL divergence"}
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        lines = lines_of(name)
        for label, values in lines.items():
            # A sole epoch makes no line.
            axes.plot(
                range(1, len(values) + 1),
                np.asarray(values, "float64"),
                label=_shortened(label),
                marker="o" if len(values) == 1 else None,
            )
        later = [value for values in lines.values() for value in values[len(values) // 10 :]]
        later = [value for value in later if value is not None and np.isfinite(value)]
        if len(later) > 2:  # the first epochs are far off and would flatten the rest
            low = min(later)
            high = max(later)
            axes.set_ylim(low - 0.05 * (high - low) - 1e-6, high + 0.05 * (high - low) + 1e-6)
        axes.set(title=title, xlabel="epoch", ylabel="nats per example")
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        if lines:
            axes.legend()
    return figure


def grid(
    x: np.ndarray,
    title: str,
    row_labels: list[str] | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Show examples in rows and columns: as images if they are images, else as curves.

    Args:
        x: `[num_rows, num_columns, *event_shape]`; NaN in images is blue.
        title: above all.
        row_labels: beside each row.
        limits: values shown black and white, or as the ends of the axes of curves; by default the
            smallest and the largest value.
    """
    num_rows, num_columns = x.shape[:2]
    is_image = x.ndim == 4 or (x.ndim == 5 and x.shape[-1] in (1, 3))
    figure = Figure(figsize=(0.8 * num_columns + 0.5, 0.8 * num_rows + 0.6), layout="constrained")
    figure.suptitle(title)
    low, high = limits or (float(np.nanmin(x)), float(np.nanmax(x)))
    if is_image:
        _images(figure.subplots(), x, row_labels, low, high)
        return figure
    for row, panels in enumerate(figure.subplots(num_rows, num_columns, squeeze=False)):
        for column, axes in enumerate(panels):
            axes.set(xticks=[], yticks=[], ylim=(low, max(high, low + 1e-6)))
            axes.plot(x[row, column].ravel(), linewidth=0.8)
        if row_labels:
            panels[0].set_ylabel(row_labels[row], rotation=0, ha="right", va="center")
    return figure


def _images(
    axes: Axes, x: np.ndarray, row_labels: list[str] | None, low: float, high: float
) -> None:
    """Show images side by side in one axes object; separate axes for each image would take a
    second.
    """
    num_rows, num_columns, height, width = x.shape[:4]
    is_colour = x.shape[4:] == (3,)
    if is_colour:
        x = np.clip((x - low) / max(high - low, 1e-12), 0.0, 1.0)
    down, right = height + max(height, width) * GAP, width + max(height, width) * GAP
    for row, column in np.ndindex(num_rows, num_columns):
        top, left = row * down, column * right
        axes.imshow(
            x[row, column] if is_colour else x[row, column].reshape(height, width),
            cmap=GRAY,
            vmin=low,
            vmax=high,
            extent=(left, left + width, top + height, top),
        )
    axes.set(xlim=(0, num_columns * right), ylim=(num_rows * down, 0), xticks=[], yticks=[])
    axes.set_frame_on(False)
    if row_labels:
        axes.set_yticks(np.arange(num_rows) * down + height / 2, row_labels)
        axes.tick_params(length=0)


def _latent_name(vae: VAE, dim: int) -> str:
    """Return the name of a dimension of z; the dimensions of its parts are concatenated."""
    for name, shape in vae.z.shapes.items():
        if dim < (size := int(np.prod(shape))):
            return f"{name} {dim}" if len(vae.z.shapes) > 1 else f"z{dim}"
        dim -= size
    raise IndexError(dim)


def _part(x, part: str | None):
    """Return the part of x to show; x may have several parts."""
    if isinstance(x, Mapping):
        if part not in x:
            raise ValueError(
                f"x has the parts {sorted(x)}, and a picture shows one: pass part=..., received "
                f"{part!r}."
            )
        return x[part]
    if part is not None:
        raise ValueError(f"x has no parts, received part={part!r}. Leave it out.")
    return x


__all__ = [
    "compared_curves",
    "grid",
    "latent_traversal",
    "learning_curves",
    "marginals",
    "reconstructions",
    "samples",
]
