"""Images from the files that telephones and programs write."""
import io

import numpy as np
import pytest
from PIL import Image

from common.data import image_files

SEVEN = np.zeros((28, 20), np.uint8)
SEVEN[3:6, 2:17] = SEVEN[6:25, 13:17] = 255
STORED = {  # EXIF orientation -> the picture before a viewer turns it
    1: SEVEN, 2: SEVEN[:, ::-1], 3: SEVEN[::-1, ::-1], 4: SEVEN[::-1],
    5: SEVEN.T, 6: np.rot90(SEVEN), 7: SEVEN[::-1, ::-1].T, 8: np.rot90(SEVEN, -1)}


def read(path, invert=False):
    """The one image in a file, and what is doubtful."""
    images, sources, doubts = image_files.read_all([str(path)], invert)
    assert sources == [(str(path), None)]
    return images[0], [doubt.replace(f"{path}: ", "") for doubt in doubts]


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg", "a.webp"])
def test_pictures_are_turned_as_their_exif_data_say(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(np.ascontiguousarray(STORED[orientation]))
    picture.save(tmp_path / name, exif=exif, quality=100, lossless=True)
    image, doubts = read(tmp_path / name)
    np.testing.assert_allclose(image.astype(int), SEVEN, atol=30 if name == "a.jpg" else 0)
    assert doubts == []


def test_damaged_exif_data_are_passed_over(tmp_path):
    Image.fromarray(SEVEN).save(tmp_path / "a.png", exif=b"Exif\0\0neither")
    np.testing.assert_array_equal(read(tmp_path / "a.png")[0], SEVEN)


def test_damage_in_the_last_bytes_of_a_png_is_found(tmp_path):
    Image.fromarray(SEVEN).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    end = whole.index(b"IEND") - 8
    for place in range(end - 12, end + 4):  # of the pixels, and of their sum
        damaged = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:]
        (tmp_path / "a.png").write_bytes(damaged)
        with pytest.raises(ValueError, match="not a whole picture"):
            read(tmp_path / "a.png")


def test_a_damaged_picture_is_refused(tmp_path):
    """Also by Pillow's function that turns pictures, whose errors are passed over otherwise."""
    noise = np.random.RandomState(0).randint(0, 256, (28, 28)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    content = bytearray((tmp_path / "whole.png").read_bytes())
    for place in range(content.index(b"IDAT") + 4, content.index(b"IEND") - 8, 20):
        damaged = content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1:]
        (tmp_path / "a.png").write_bytes(damaged)
        with pytest.raises(ValueError, match="not a whole picture"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.png", "a.webp"])
def test_the_first_of_several_frames_is_taken_and_that_is_said(tmp_path, name):
    frames = [Image.fromarray(image) for image in (SEVEN, SEVEN[::-1].copy())]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
    image, doubts = read(tmp_path / name)
    np.testing.assert_array_equal(image, SEVEN)
    assert doubts == ["only the first of its frames is taken"]


@pytest.mark.parametrize(("ink", "invert", "hint"), [
    (0, False, "with --invert"), (0, True, None), (255, False, None),
    (255, True, "without --invert")])
def test_ink_on_transparency(tmp_path, ink, invert, hint):
    Image.fromarray(np.dstack([np.full_like(SEVEN, ink)] * 3 + [SEVEN])).save(tmp_path / "a.png")
    image, doubts = read(tmp_path / "a.png", invert)
    np.testing.assert_array_equal(image, SEVEN if hint is None else 0)
    assert doubts == ([] if hint is None else [
        f"blank, or nearly so: its greys are from 0 to 0; is it ink on transparency? try it {hint}"
    ])


def test_a_picture_of_nearly_one_grey_is_said_to_be_blank(tmp_path):
    Image.fromarray(100 + SEVEN // 16).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png")[1] == ["blank, or nearly so: its greys are from 100 to 115"]
    Image.fromarray(100 + SEVEN // 4).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png")[1] == []


COLOURS = np.arange(6 * 5 * 3, dtype=np.uint8).reshape(6, 5, 3) * 2


def content(image, kind="PNG", **options):
    """The bytes of a picture's file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def pixels(file, channels=None):
    return image_files.decode("a", file, channels).pixels


def test_pictures_are_grey_or_coloured_as_wanted():
    grey, coloured = content(SEVEN), content(COLOURS)
    np.testing.assert_array_equal(pixels(coloured), COLOURS.transpose(2, 0, 1))
    np.testing.assert_array_equal(pixels(grey), SEVEN)
    np.testing.assert_array_equal(pixels(grey, 3), np.stack([SEVEN] * 3))
    np.testing.assert_array_equal(pixels(content(np.dstack([SEVEN] * 3))), SEVEN)
    luma = COLOURS @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(pixels(coloured, 1), luma, atol=0.51)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_transparent_becomes_black(channels):
    alpha = np.full((6, 5, 1), 255, np.uint8)
    alpha[:2], alpha[2] = 0, 51
    opaque = pixels(content(COLOURS), channels)
    image = pixels(content(np.dstack([COLOURS, alpha])), channels)
    assert (image[..., :2, :] == 0).all()
    np.testing.assert_allclose(image[..., 2, :], opaque[..., 2, :] / 5, atol=0.5)
    np.testing.assert_array_equal(image[..., 3:, :], opaque[..., 3:, :])


@pytest.mark.parametrize(("damaged", "words"), [
    (content(COLOURS)[:-30], "a: not a whole picture"),
    (b"", "a: not a whole picture"),
    (content(np.full((4, 4), 999, np.uint16)), "a: has more than 8 bits in a pixel"),
    (content(np.zeros((2049, 2048), np.uint8)), "a: a picture of more than 4194304 pixels"),
])
def test_what_is_no_picture_of_bytes_is_refused(damaged, words):
    with pytest.raises(ValueError, match=words):
        image_files.decode("a", damaged, 3)
