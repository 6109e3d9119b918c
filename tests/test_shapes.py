"""Shapes drawn from their factors: areas, places and turns are what geometry says."""

import numpy as np
import pytest

from tfp_vae import datasets, shapes

# Of each shape of radius 1: 1.4 squared, the ellipse's pi / 2, and the heart's known 3.6618 / 1.35 squared.
AREAS = [1.96, np.pi / 2, 3.6618 / 1.35**2]
CORNERS = [[x, y] for x in (0, 31) for y in (0, 31)]


def centre(image):
    """Of the white pixels, from left and from top, in widths of the image."""
    return (np.argwhere(image[..., 0]).mean(0)[::-1] + 0.5) / len(image)


@pytest.mark.parametrize("shape", range(3))
@pytest.mark.parametrize("scale", [0, 3, 5])
def test_areas_are_those_of_geometry_wherever_the_shape_is(shape, scale):
    factors = np.array([[shape, scale, turn, *place] for turn in (0, 7) for place in CORNERS])
    radius = shapes.RADIUS * (0.5 + 0.1 * scale)
    areas = shapes.render(factors, size=400).mean((1, 2, 3))
    np.testing.assert_allclose(areas, AREAS[shape] * radius**2, rtol=0.03)


def test_places_run_from_left_to_right_and_from_top_to_bottom():
    images = shapes.render(np.array([[0, 5, 3, x, y] for x, y in CORNERS]), size=100)
    ends = shapes.RADIUS, 1 - shapes.RADIUS
    expected = [[x, y] for x in ends for y in ends]
    np.testing.assert_allclose([*map(centre, images)], expected, atol=0.003)


def test_turns_are_counterclockwise_and_symmetries_are_those_of_the_shapes():
    """The centre of the image is no place of a shape, so symmetric ones are compared by their second moments."""
    upright, turned = shapes.render(np.array([[2, 5, 0, 15, 15], [2, 5, 10, 15, 15]]), 100)
    tip = np.argwhere(upright[..., 0]).max(0)[0] / 100 - centre(upright)[1]
    tip_right = np.argwhere(turned[..., 0]).max(0)[1] / 100 - centre(turned)[0]
    assert tip == pytest.approx(tip_right, abs=0.01)
    assert tip > 0.6 * shapes.RADIUS

    def same(shape, first, second):
        one, two = shapes.render(
            np.array([[shape, 5, turn, 16, 16] for turn in (first, second)]), 100
        )
        return np.mean(one != two) < 0.003

    assert same(0, 3, 13)  # a square after a quarter of a turn
    assert not same(0, 0, 5)
    assert same(1, 3, 23)  # an ellipse after half a turn
    assert not same(1, 3, 13)
    assert not same(2, 3, 23)


def test_factors_are_uniform_independent_and_a_function_of_their_seed():
    factors = shapes.draw_factors(40_000, seed=1)
    assert (factors == shapes.draw_factors(40_000, seed=1)).all()
    assert (factors != shapes.draw_factors(40_000, seed=2)).any()
    for column, number in zip(factors.T, shapes.FACTORS.values(), strict=True):
        counts = np.bincount(column, minlength=number)
        assert len(counts) == number
        assert np.sum((counts - 40_000 / number) ** 2) / (40_000 / number) < 3 * number
    correlations = np.corrcoef(factors.T) - np.eye(5)
    assert abs(correlations).max() < 4 / np.sqrt(40_000)


def test_all_combinations_are_there_once():
    whole = shapes.all_factors()
    assert len(whole) == 737_280
    assert len(np.unique(whole @ [10**8, 10**6, 10**4, 100, 1])) == 737_280


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ([[0, 0, 0, 0]], r"must be \[num_examples, 5\], received shape \(1, 4\)"),
        (np.zeros([0, 5]), r"received shape \(0, 5\)"),
        ([[0, 6, 0, 0, 0]], "The factor scale must be a whole number from 0 to 5, received"),
        ([[0, 0, 0.5, 0, 0]], "orientation must be a whole number from 0 to 39"),
    ],
)
def test_bad_factors(factors, words):
    with pytest.raises(ValueError, match=words):
        shapes.render(factors)


@pytest.mark.slow
def test_the_data_set_and_its_labels_agree():
    splits = datasets.load("shapes", condition="pos_x")
    assert splits.likelihood == "IndependentBernoulli"
    assert splits.event_shape == (32, 32, 1)
    factors = datasets.labels("shapes", *shapes.FACTORS)
    for name, rows in zip(datasets.SPLITS, factors, strict=True):
        part = getattr(splits, name)
        np.testing.assert_array_equal(part["x"], shapes.render(rows))
        np.testing.assert_array_equal(part["condition"], rows[:, 3])


@pytest.mark.parametrize(
    ("source", "names", "words"),
    [
        ("digits", ["colour"], "no 'colour'"),
        ("digits", ["x"], r"one whole number for each example; x has shape"),
        ("digits", ["label", "label"], "may be given once"),
        (
            {"x": np.zeros([20, 3]), "y": np.array(["a", "b"] * 10)},
            ["y"],
            r"Number them, as numpy.unique",
        ),
        ({"x": np.zeros([20, 3]), "y": np.linspace(0, 1, 20)}, ["y"], "one whole number"),
        ("lines.txt", ["label"], "holds texts alone, no label"),
    ],
)
def test_labels_that_are_none(source, names, words):
    with pytest.raises(ValueError, match=words):
        datasets.labels(source, *names)
