"""Pictures: what is drawn is what the model says."""

import numpy as np
import pytest

from tests.conftest import make_vae
from tfp_vae import layers as tfpl
from tfp_vae import plots


def images(figure):
    return [image.get_array() for image in figure.axes[0].images]


def test_reconstructions(trained_vae, digits, tmp_path):
    figure = plots.reconstructions(trained_vae, digits.test, num_examples=5)
    figure.savefig(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 2_000
    expected = [*digits.test[:5, ..., 0], *trained_vae.reconstruct(digits.test[:5])[..., 0]]
    np.testing.assert_allclose(images(figure), expected)


def test_samples(trained_vae):
    figure = plots.samples(trained_vae, num_rows=2, num_columns=3, seed=1)
    np.testing.assert_allclose(images(figure), trained_vae.generate(6, seed=1)[..., 0])


def test_latent_traversal_moves_one_dimension_a_row(trained_vae, digits):
    figure = plots.latent_traversal(trained_vae, digits.test, num_dims=2, num_steps=3, extent=2.0)
    drawn = images(figure)
    centre = trained_vae.decode(np.zeros([1, 4])).mean()[0, ..., 0]
    np.testing.assert_allclose(drawn[1], centre, rtol=1e-5)
    np.testing.assert_allclose(drawn[4], centre, rtol=1e-5)
    dim = int(figure.axes[0].get_yticklabels()[0].get_text()[1:])
    z = np.eye(4, dtype="float32")[[dim]] * -2.0
    np.testing.assert_allclose(drawn[0], trained_vae.decode(z).mean()[0, ..., 0], rtol=1e-5)


def test_learning_curves():
    history = {
        name: [-30.0, -20.0, -15.0, -14.0] for name in ("elbo", "log_likelihood", "kl", "val_elbo")
    }
    figure = plots.learning_curves(history)
    lines = figure.axes[0].lines
    assert [line.get_label() for line in lines] == ["training", "validation"]
    np.testing.assert_array_equal(lines[0].get_ydata(), history["elbo"])
    assert len(figure.axes[1].lines) == 1


@pytest.mark.parametrize("shape", [(6,), (4, 4), (4, 4, 3), (4, 4, 2)])
def test_events_that_are_no_grey_images(shape):
    vae = make_vae(shape, 2, tfpl.IndependentNormal)
    x = np.random.RandomState(0).normal(size=(12, *shape)).astype("float32")
    for figure in (
        plots.reconstructions(vae, x, num_examples=3),
        plots.latent_traversal(vae, x, num_dims=2),
    ):
        drawn = all(axes.images or axes.lines for axes in figure.axes)
        assert drawn
