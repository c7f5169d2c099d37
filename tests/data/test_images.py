"""Decoding: cropping, resizing, converting, and refusing what is no whole image."""

import numpy as np
from PIL import Image
import pytest

from introvae_jax.data import fast_decode, images


def save(path, array, mode=None, **options):
    Image.fromarray(array, mode).save(path, **options)
    return path


def read(path, *, size=16, channels=3, **options):
    """The array and the changes of a file, by both ways of decoding."""
    target = images.Target(size, channels, **options)
    decoded = images.decode(images.read(path), target)
    out = np.empty_like(decoded.array)
    fast_decode.decode_into(out, path.read_bytes(), target)
    np.testing.assert_array_equal(out, decoded.array)
    return decoded.array, ", ".join(decoded.changes)


def test_a_matching_png_comes_back_as_it_is(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    out, conversion = read(save(tmp_path / "a.png", array), size=16, channels=3)
    np.testing.assert_array_equal(out, array)
    assert (out.dtype, conversion) == (np.uint8, "")


def test_center_crop_keeps_the_middle_and_none_stretches(tmp_path):
    array = np.zeros((16, 48, 3), np.uint8)
    array[:, 16:32] = 200
    path = save(tmp_path / "a.png", array)
    assert read(path, size=16, channels=3)[0].min() == 200
    stretched = read(path, size=16, channels=3, crop="none", resize="box")[0]
    np.testing.assert_allclose(stretched[0, :, 0].mean(), 200 / 3, atol=1)


def test_a_crop_is_applied_to_a_jpeg_of_the_wanted_size_too(tmp_path):
    array = np.zeros((16, 16, 3), np.uint8)
    array[4:12, 4:12] = 255
    inner, _ = read(save(tmp_path / "a.jpg", array, quality=100), crop="8x8")
    assert inner[4:12, 4:12].min() > 240
    assert inner.mean() > 200 > read(tmp_path / "a.jpg")[0].mean()


def test_grey_and_colour_become_what_is_asked_for(tmp_path):
    grey = np.full((16, 16), 77, np.uint8)
    out, conversion = read(save(tmp_path / "g.png", grey), size=16, channels=3)
    assert (out.shape, out.min(), out.max(), conversion) == ((16, 16, 3), 77, 77, "L to RGB")
    out, _ = read(save(tmp_path / "c.png", np.full((16, 16, 3), 77, np.uint8)), size=16, channels=1)
    assert (out.shape, out.min()) == ((16, 16, 1), 77)


def test_transparency_is_laid_over_white(tmp_path):
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[:8, :, 3] = 255  # opaque black above, transparent black below
    out, conversion = read(save(tmp_path / "a.png", rgba), size=16, channels=3)
    assert (out[:8].max(), out[8:].min(), conversion) == (0, 255, "RGBA to RGB")


def test_16_bit_grey_is_scaled(tmp_path):
    out, _ = read(save(tmp_path / "a.png", np.full((16, 16), 32896, np.uint16)), size=16, channels=1)
    np.testing.assert_array_equal(out, 128)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_that_png_jpg_and_webp_can_hold(tmp_path, channels):
    colour = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    grey = colour.convert("L")
    colour.convert("P").save(tmp_path / "palette.png", transparency=3)
    colour.save(tmp_path / "transparent_colour.png", transparency=(1, 2, 3))
    grey.save(tmp_path / "transparent_grey.png", transparency=9)
    grey.convert("LA").save(tmp_path / "grey_alpha.png")
    grey.convert("1").save(tmp_path / "bits.png")
    colour.convert("CMYK").save(tmp_path / "cmyk.jpg")
    colour.save(tmp_path / "moving.webp", save_all=True, append_images=[colour.rotate(90)])
    for path in tmp_path.iterdir():
        out, _ = read(path, size=16, channels=channels)
        assert (out.shape, out.dtype) == ((16, 16, channels), np.uint8), path


def test_a_dark_16_bit_image_stays_dark(tmp_path):
    out, _ = read(save(tmp_path / "a.png", np.full((16, 16), 200, np.uint16)), size=16, channels=1)
    np.testing.assert_array_equal(out, 1)


def test_broken_exif_is_left_out_and_no_crash(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 3, "a description"
    path = tmp_path / "a.jpg"
    Image.new("RGB", (16, 16)).save(path, exif=exif)
    content = bytearray(path.read_bytes())
    content[content.index(b"Exif") + 17] = 0  # the type of a field: Pillow answers with struct.error
    path.write_bytes(content)
    assert read(path)[1] == "unreadable EXIF data left out"


def test_exif_rotation_is_applied(tmp_path):
    array = np.zeros((16, 16, 3), np.uint8)
    array[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    path = tmp_path / "a.png"
    Image.fromarray(array).save(path, exif=exif)
    assert read(path, size=16, channels=3)[0][0].max() == 0


def test_what_is_no_whole_image_is_refused_with_the_reason(tmp_path):
    whole = save(tmp_path / "a.jpg", np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:900])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.webp").touch()
    for name, reason in (("cut.jpg", "truncated"), ("text.png", "not a png"), ("empty.webp", "empty")):
        with pytest.raises(images.BadImage, match=reason):
            read(tmp_path / name, size=16, channels=3)
