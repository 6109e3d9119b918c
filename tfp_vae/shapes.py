"""Images of one shape each, drawn from known factors: data on which disentanglement can be judged."""

import numpy as np

from tfp_vae.checks import as_count, as_seed

__all__ = ["FACTORS", "all_factors", "draw_factors", "render"]

# The factors of an image and the number of their values, as in dSprites.
FACTORS = {"shape": 3, "scale": 6, "orientation": 40, "pos_x": 32, "pos_y": 32}
# Radius of the largest shape, and distance of the outermost centres from the border, in widths of
# the image: no shape is ever cut off.
RADIUS = 0.22
# Number of images that are drawn at once.
AT_ONCE = 1_000


def draw_factors(num_examples: int, seed: int = 0) -> np.ndarray:
    """Draw the factors of some images, independent and uniform: int64 `[num_examples, 5]`.

    The columns are those of `FACTORS`.

    Example:
    >>> draw_factors(3).shape
    (3, 5)
    """
    number = as_count(num_examples, "num_examples")
    random = np.random.default_rng(as_seed(seed))
    return random.integers([*FACTORS.values()], size=(number, len(FACTORS)))


def all_factors() -> np.ndarray:
    """Return every combination of factors once, `[737280, 5]`, the last factor running fastest.

    >>> all_factors()[[0, -1]].tolist()
    [[0, 0, 0, 0, 0], [2, 5, 39, 31, 31]]
    """
    return np.indices([*FACTORS.values()]).reshape(len(FACTORS), -1).T


def render(factors: np.ndarray, size: int = 32) -> np.ndarray:
    """Draw white shapes on black: uint8 `[num_examples, size, size, 1]` of 0 and 1.

    A square (0), an ellipse (1) or a heart (2), in 6 sizes from half to full, turned
    counterclockwise by fortieths of a turn, its centre at one of 32 x 32 places from left to right
    and from top to bottom. A square looks the same after a quarter of a turn and an ellipse after
    half a turn, so that no code can tell all orientations apart; this is so in dSprites too.

    The factors are those of dSprites, the drawings are not: its images are 64 x 64, and its last
    orientation is the first one again.

    Reference: Matthey et al., 2017, dSprites: disentanglement testing sprites dataset,
        https://github.com/google-deepmind/dsprites-dataset.

    Args:
        factors: whole numbers `[num_examples, 5]`, with the columns and numbers of values of
            `FACTORS`.
        size: height and width in pixels; below 16 small shapes are hard to tell apart.

    Raises:
        ValueError: if a factor is out of its range.

    Example:
    >>> image = render(np.array([[2, 5, 0, 16, 16]]), size=16)[0, 5:12, 4:12, 0]
    >>> for row in image:
    ...     print("".join("-#"[pixel] for pixel in row))
    --####--
    -######-
    -######-
    --#####-
    --####--
    ----#---
    --------
    """
    factors = _expect_factors(factors)
    size = as_count(size, "size")
    images = [
        _draw(factors[start : start + AT_ONCE], size) for start in range(0, len(factors), AT_ONCE)
    ]
    return np.concatenate(images)[..., np.newaxis]


def _expect_factors(factors) -> np.ndarray:
    factors = np.asarray(factors)
    if factors.ndim != 2 or factors.shape[1] != len(FACTORS) or not len(factors):
        raise ValueError(
            f"factors must be [num_examples, {len(FACTORS)}], received shape {factors.shape}."
        )
    for (name, number), values in zip(FACTORS.items(), factors.T, strict=True):
        if not np.isin(values, range(number)).all():
            raise ValueError(
                f"The factor {name} must be a whole number from 0 to {number - 1}, received values "
                f"from {values.min()} to {values.max()}."
            )
    return factors


def _draw(factors: np.ndarray, size: int) -> np.ndarray:
    shape, scale, orientation, x, y = factors.T[..., np.newaxis, np.newaxis]
    pixels = (np.arange(size) + 0.5) / size  # their centres, in widths of the image
    right, down = pixels - _place(x), pixels[:, np.newaxis] - _place(y)
    angle = 2.0 * np.pi * orientation / FACTORS["orientation"]
    radius = RADIUS * np.linspace(0.5, 1.0, FACTORS["scale"])[scale]
    # In the coordinates of the shape, upright and of radius 1.
    u = (right * np.cos(angle) - down * np.sin(angle)) / radius
    v = -(right * np.sin(angle) + down * np.cos(angle)) / radius
    is_white = np.select([shape == 0, shape == 1], [_square(u, v), _ellipse(u, v)], _heart(u, v))
    return is_white.astype("uint8")


def _place(position: np.ndarray) -> np.ndarray:
    """Return the centre of a shape in widths of the image."""
    return np.linspace(RADIUS, 1.0 - RADIUS, FACTORS["pos_x"])[position]


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(abs(u), abs(v)) < 0.7


def _ellipse(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u**2 + (2.0 * v) ** 2 < 1.0


def _heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    a, b = 1.35 * u, 1.35 * v + 0.1
    return (a**2 + b**2 - 1.0) ** 3 < a**2 * b**3
