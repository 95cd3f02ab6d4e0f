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
        ((8, 2), (2, 8, 1)),
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


def test_large_images_are_averaged_down():
    image = np.kron(np.arange(4.0).reshape(2, 2), np.ones((48, 48)))[None]
    small = images.as_images(image, max_side=48)
    assert small.shape == (1, 48, 48, 1)
    np.testing.assert_array_equal(small[0, ::24, ::24, 0], [[0, 1], [2, 3]])
    strip = images.as_images(np.ones((1, 300)), max_side=48)
    assert strip.shape == (1, 1, 192, 1)


def test_filters_share_one_scale_that_outliers_do_not_rule():
    dictionary = np.zeros((10, 10, 10, 1))
    dictionary[0], dictionary[1], dictionary[2, 0, 0] = 2.0, -1.0, 1000.0
    filters = images.scale_filters(dictionary)
    np.testing.assert_allclose(filters[0], 1.0)
    np.testing.assert_allclose(filters[1], -0.5)
    assert filters[2, 0, 0] == 1.0
    np.testing.assert_array_equal(images.scale_filters(np.zeros((2, 3))), 0)


def test_positive_is_orange_negative_is_blue_and_zero_is_nearly_white():
    filters = np.array([1.0, -1.0, 0.0]).reshape(3, 1, 1, 1)
    pixels = np.round(255 * images.filter_images(filters)[:, 0, 0])
    np.testing.assert_array_equal(pixels[:2], [images.ORANGE, images.BLUE])
    assert pixels[2].min() == pixels[2].max() > 230
    color = np.array([1.0, 0.0, -1.0]).reshape(1, 1, 1, 3)
    np.testing.assert_array_equal(images.filter_images(color).ravel(), [1, 0.5, 0])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((63,), False),
        ((64,), True),
        ((65,), False),
        ((7, 2), True),
        ((8, 2), False),
        ((100, 1), False),
        ((8, 8, 5), True),
        ((2, 2, 2, 2), False),
    ],
)
def test_vectors_and_series_are_not_images(shape, expected):
    assert images.is_image(shape) == expected


def test_series_keep_their_channels():
    x = RNG.normal(size=(3, 8, 2))
    np.testing.assert_array_equal(images.as_series(x), x)
    np.testing.assert_array_equal(images.as_images(x)[..., 0], x.swapaxes(1, 2))
    assert images.as_series(x[..., 0]).shape == (3, 8, 1)
    assert images.as_series(x.reshape(3, 2, 2, 2, 2)).shape == (3, 16, 1)


def test_tiles_are_arranged_row_by_row_with_gaps():
    tiles = np.arange(3)[:, None, None, None] * np.ones((3, 2, 3, 1))
    sheet = images.tile_sheet(tiles, columns=2, gap=1, background=9.0)
    row = [9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0]
    top, bottom = [0, 0, 0, 9, 1, 1, 1], [2, 2, 2, 9, 9, 9, 9]
    np.testing.assert_array_equal(sheet[..., 0], [top, top, row, bottom, bottom])


def test_sheet_is_about_square_by_default():
    assert images.tile_sheet(np.ones((100, 4, 4, 1))).shape == (40, 40, 1)
    assert images.tile_sheet(np.ones((16, 1, 16, 1))).shape == (16, 16, 1)
