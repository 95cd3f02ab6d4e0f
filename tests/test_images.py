"""Small images and the sheets that they are arranged on."""

import numpy as np
import pytest

from keras_sae.utils import images

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((7,), (1, 7, 1)),
        ((49,), (1, 49, 1)),
        ((64,), (8, 8, 1)),
        ((6, 2), (6, 2, 1)),
        ((4, 4, 1), (4, 4, 1)),
        ((4, 4, 3), (4, 4, 3)),
        ((4, 4, 5), (4, 4, 1)),
        ((2, 2, 2, 2), (1, 16, 1)),
    ],
)
def test_any_sample_shape_becomes_an_image(shape, expected):
    x = RNG.normal(size=(3, *shape))
    result = images.as_images(x)
    assert result.shape == (3, *expected)
    assert result.mean() == pytest.approx(x.mean())
    filters = images.filter_images(x)
    assert filters.min() >= 0
    assert filters.max() <= 1


def test_large_images_are_averaged_down():
    image = np.kron(np.arange(4.0).reshape(2, 2), np.ones((48, 48)))[None]
    small = images.as_images(image, max_side=48)
    assert small.shape == (1, 48, 48, 1)
    np.testing.assert_array_equal(small[0, ::24, ::24, 0], [[0, 1], [2, 3]])
    strip = images.as_images(np.ones((1, 300)), max_side=48)
    assert strip.shape == (1, 1, 192, 1)


def test_filter_of_zeros_is_gray():
    assert (images.filter_images(np.zeros((1, 2, 2, 1))) == 0.5).all()


def test_tiles_are_arranged_row_by_row_with_gaps():
    tiles = np.arange(3)[:, None, None, None] * np.ones((3, 2, 3, 1))
    sheet = images.tile_sheet(tiles, columns=2, gap=1, background=9.0)
    row = [9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0]
    top, bottom = [0, 0, 0, 9, 1, 1, 1], [2, 2, 2, 9, 9, 9, 9]
    np.testing.assert_array_equal(sheet[..., 0], [top, top, row, bottom, bottom])


def test_sheet_is_about_square_by_default():
    assert images.tile_sheet(np.ones((100, 4, 4, 1))).shape == (40, 40, 1)
    assert images.tile_sheet(np.ones((16, 1, 16, 1))).shape == (16, 16, 1)
