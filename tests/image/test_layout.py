"""Layouts: which axes are the plane, which are color, which count planes."""

from __future__ import annotations

import numpy as np
import pytest

from napari_restore.errors import ImageError
from napari_restore.image.layout import Planes, Region, find_layout

# shape, dtype, axes, rgb -> color, size of the plane, planes, groups
LAYOUTS = {
    "plane": ((7, 9), "u2", None, None, False, (7, 9), 1, 1),
    "stack": ((4, 7, 9), "u2", None, None, False, (7, 9), 4, 1),
    "movie of stacks": ((2, 3, 4, 7, 9), "f4", None, None, False, (7, 9), 24, 1),
    "named axes": ((2, 3, 4, 7, 9), "f4", "TZCYX", None, False, (7, 9), 24, 4),
    "lower case": ((3, 7, 9), "f4", "cyx", None, False, (7, 9), 3, 3),
    "plane first": ((7, 9, 5), "f4", "YXZ", None, False, (7, 9), 5, 1),
    "plane apart": ((7, 5, 9), "f4", "YCX", None, False, (7, 9), 5, 5),
    "transposed": ((9, 7), "f4", "XY", None, False, (7, 9), 1, 1),
    "uint8 of 3 is color": ((7, 9, 3), "u1", None, None, True, (7, 9), 1, 1),
    "uint8 of 4 is color": ((7, 9, 4), "u1", None, None, True, (7, 9), 1, 1),
    "uint8 of 5 is not": ((7, 9, 5), "u1", None, None, False, (9, 5), 7, 1),
    "uint16 of 3 is not": ((7, 9, 3), "u2", None, None, False, (9, 3), 7, 1),
    "int8 of 3 is not": ((7, 9, 3), "i1", None, None, False, (9, 3), 7, 1),
    "booleans of 3 are not": ((7, 9, 3), "?", None, None, False, (9, 3), 7, 1),
    "two axes are not": ((7, 3), "u1", None, None, False, (7, 3), 1, 1),
    "rgb=False": ((7, 9, 3), "u1", None, False, False, (9, 3), 7, 1),
    "rgb=True": ((7, 9, 3), "f4", None, True, True, (7, 9), 1, 1),
    "color movie": ((2, 7, 9, 3), "u1", None, None, True, (7, 9), 2, 1),
    "samples first": ((3, 7, 9), "u2", "SYX", None, True, (7, 9), 1, 1),
    "samples between": ((2, 7, 4, 9), "u2", "TYSX", None, True, (7, 9), 2, 1),
    "color and channels": ((2, 7, 9, 3), "u1", "CYXS", None, True, (7, 9), 2, 2),
    "empty": ((0, 7, 9), "f4", None, None, False, (7, 9), 0, 1),
}


# Said where it is meant to be said, in a test of its own.
quiet = pytest.mark.filterwarnings("ignore:The array of shape:UserWarning")


@quiet
@pytest.mark.parametrize("case", LAYOUTS.values(), ids=LAYOUTS)
def test_axes_are_read_as_documented(case: tuple) -> None:
    shape, dtype, axes, rgb, color, size, planes, groups = case
    layout = find_layout(np.zeros(shape, dtype), axes, rgb)
    assert (layout.color, layout.size, layout.planes) == (color, size, planes)
    assert (layout.groups, layout.channels) == (groups, 3 if color else 1)
    assert layout.pixels == planes * size[0] * size[1]
    assert len(list(layout.indices())) == planes


@quiet
@pytest.mark.parametrize("case", LAYOUTS.values(), ids=LAYOUTS)
def test_planes_come_out_as_rows_columns_samples_and_go_back(case: tuple) -> None:
    shape, dtype, axes, rgb, _, (height, width), *_ = case
    image = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    layout = find_layout(image, axes, rgb)
    # An independent way to the same planes: all other axes first, then Y, X and S.
    samples = [layout.axes.index("S")] if layout.color else []
    place = [layout.axes.index("Y"), layout.axes.index("X"), *samples]
    others = [axis for axis in range(image.ndim) if axis not in place]
    expected = image.transpose(*others, *place)
    expected = expected if samples else expected[..., None]

    source, copy = Planes(image, layout), np.zeros_like(image)
    target = Planes(copy, layout)
    for index in layout.indices():
        inner = Region(1, 2, height - 1, width)
        np.testing.assert_array_equal(source.read(index, inner), expected[index][1:-1, 2:])
        for region in (Region(0, 0, 3, width), Region(3, 0, height, width)):
            target.write(index, region, source.read(index, region))
    np.testing.assert_array_equal(copy, image)


@pytest.mark.parametrize("axes", ["TYX", "YTX", "XYT"])
def test_a_window_of_an_image_is_read_at_the_coordinates_of_the_image(axes: str) -> None:
    shape = tuple({"T": 6, "Y": 20, "X": 30}[letter] for letter in axes)
    image = np.arange(np.prod(shape)).reshape(shape)
    layout = find_layout(image, axes)
    origin = tuple({"T": 2, "Y": 5, "X": 7}[letter] for letter in axes)
    cut = image[tuple(slice(start, None) for start in origin)]
    region = Region(6, 8, 15, 25)
    for t in (2, 5):
        np.testing.assert_array_equal(
            Planes(cut, layout, origin).read((t,), region), Planes(image, layout).read((t,), region)
        )


def test_scales_belong_to_channels_whatever_else_is_counted() -> None:
    layout = find_layout(np.zeros((2, 3, 4, 5, 5)), "TCZYX")
    groups = {index: layout.group(index) for index in layout.indices()}
    assert all(group == index[1] for index, group in groups.items())
    assert set(groups.values()) == {0, 1, 2}


# array, options, what the message must name
ERRORS = {
    "complex": (np.zeros((4, 4), complex), {}, ["complex128", "real part"]),
    "objects": (np.zeros((4, 4), object), {}, ["object", "integers"]),
    "dates": (np.zeros((4, 4), "M8[s]"), {}, ["datetime64[s]", "integers"]),
    "durations": (np.zeros((4, 4), "m8[s]"), {}, ["timedelta64[s]", "integers"]),
    "text": (np.zeros((4, 4), "U1"), {}, ["<U1", "integers"]),
    "records": (np.zeros((4, 4), "i4,f4"), {}, ["<i4", "integers"]),
    "no axis": (np.zeros(()), {}, ["()", "two dimensions"]),
    "one axis": (np.zeros(5), {}, ["(5,)", "two dimensions"]),
    "too few letters": (np.zeros((3, 4, 4)), {"axes": "YX"}, ["'YX'", "(3, 4, 4)"]),
    "too many letters": (np.zeros((4, 4)), {"axes": "ZYX"}, ["'ZYX'", "(4, 4)"]),
    "no letters": (np.zeros((4, 4)), {"axes": ""}, ["''", "(4, 4)"]),
    "a letter twice": (np.zeros((3, 4, 4)), {"axes": "YYX"}, ["'YYX'", "different"]),
    "a gap": (np.zeros((3, 4, 4)), {"axes": "Y X"}, ["'Y X'", "one different letter"]),
    "no plane": (np.zeros((3, 4, 4)), {"axes": "ZYC"}, ["'ZYC'", "Y or X"]),
    "not letters": (np.zeros((4, 4)), {"axes": ("Y", "X")}, ["('Y', 'X')", "'TZCYX'"]),
    "a number": (np.zeros((4, 4)), {"axes": 2}, ["2", "'TZCYX'"]),
    "color of 5": (np.zeros((4, 4, 5)), {"rgb": True}, ["5", "(4, 4, 5)", "rgb=False"]),
    "samples of 5": (np.zeros((5, 4, 4)), {"axes": "SYX"}, ["5", "(5, 4, 4)", "C"]),
    "color of 2": (np.zeros((4, 4, 2)), {"rgb": True}, ["2", "(4, 4, 2)", "rgb=False"]),
    "flat color": (np.zeros((4, 3)), {"rgb": True}, ["(4, 3)", "three"]),
    "axes against rgb": (np.zeros((4, 4, 3)), {"axes": "YXS", "rgb": False}, ["'YXS'", "False"]),
    "rgb against axes": (np.zeros((3, 4, 4)), {"axes": "ZYX", "rgb": True}, ["'ZYX'", "True"]),
    "many axes": (np.zeros((1,) * 28), {}, ["28", "in parts"]),
}


@pytest.mark.parametrize(("array", "options", "words"), ERRORS.values(), ids=ERRORS)
def test_what_is_no_image_is_refused_with_value_and_remedy(
    array: np.ndarray, options: dict, words: list[str]
) -> None:
    with pytest.raises(ImageError) as caught:
        find_layout(array, **options)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_likely_color_that_is_not_8_bit_is_pointed_out(dtype: type) -> None:
    with pytest.warns(UserWarning, match=r"rgb=True.*rgb=False"):
        assert not find_layout(np.zeros((20, 30, 3), dtype)).color


@pytest.mark.parametrize(
    ("shape", "options"),
    [((20, 30, 3), {"rgb": True}), ((20, 30, 3), {"rgb": False}), ((20, 30, 3), {"axes": "ZYX"}),
     ((2, 3, 4), {}), ((20, 30), {})],
    ids=str,
)  # fmt: skip
def test_nothing_is_said_where_it_is_clear(
    shape: tuple, options: dict, recwarn: pytest.WarningsRecorder
) -> None:
    find_layout(np.zeros(shape, np.float32), **options)
    assert not recwarn
