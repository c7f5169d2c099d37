"""Images as a folder or an archive holds them."""

import zipfile

import numpy as np
from PIL import Image
import pytest

from introvae_jax.data import image_set
from introvae_jax.data.images import Target
from introvae_jax.errors import UserError


def write(path, array, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array, mode).save(path, **options) if mode else Image.fromarray(array).save(path, **options)


@pytest.fixture
def colours(tmp_path):
    """Six images of 24x16 pixels, and what they hold."""
    arrays = np.random.default_rng(0).integers(0, 256, (6, 16, 24, 3), dtype=np.uint8)
    for i, array in enumerate(arrays):
        write(tmp_path / "images" / ("deep" if i % 2 else "") / f"{i}.png", array)
    return tmp_path / "images", arrays


def test_images_as_they_are(colours):
    folder, arrays = colours
    found, _ = image_set.open_image_set(str(folder))
    assert (len(found), found.shape) == (6, (16, 24, 3))
    order = [0, 2, 4, 1, 3, 5]  # by name; those in "deep" after the others
    np.testing.assert_array_equal(found[np.array([3, 0, 3])], arrays[order][[3, 0, 3]])
    np.testing.assert_array_equal(found[np.arange(6)], arrays[order])


def test_an_archive_holds_the_same(colours, tmp_path):
    folder, _ = colours
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, path.relative_to(folder))
    found, _ = image_set.open_image_set(str(tmp_path / "images.zip"))
    np.testing.assert_array_equal(found[np.arange(6)], image_set.open_image_set(str(folder))[0][np.arange(6)])


def test_the_identity_is_that_of_names_and_sizes(colours):
    folder, _ = colours
    first = image_set.open_image_set(str(folder))[1]
    assert image_set.open_image_set(str(folder))[1] == first
    (folder / "4.png").rename(folder / "44.png")
    second = image_set.open_image_set(str(folder))[1]
    write(folder / "44.png", np.zeros((16, 24, 3), np.uint8))
    assert len({first, second, image_set.open_image_set(str(folder))[1]}) == 3


def test_all_modes_become_rgb_of_eight_bits(tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write(tmp_path / "0_grey.png", grey)
    write(tmp_path / "1_sixteen.png", grey.astype(np.uint16) * 257)
    clear = np.dstack([grey, grey, grey, np.zeros_like(grey)])
    write(tmp_path / "2_clear.png", clear)
    found = image_set.open_image_set(str(tmp_path))[0][np.arange(3)]
    assert (found.shape, found.dtype) == ((3, 16, 16, 3), np.uint8)
    for image in found[:2]:
        np.testing.assert_array_equal(image, np.dstack([grey] * 3))
    assert (found[2] == 255).all()  # transparent: over white


def test_a_size_brings_all_to_it(colours):
    folder, _ = colours
    write(folder / "tall.png", np.zeros((50, 10, 3), np.uint8))
    with pytest.raises(UserError, match=r"images of different sizes, 0\.png of 24x16 .*tall\.png of 10x50.*--size=N"):
        image_set.open_image_set(str(folder))
    found, _ = image_set.open_image_set(str(folder), Target(8, 1))
    assert found.shape == (8, 8, 1)
    assert found[np.arange(7)].shape == (7, 8, 8, 1)


def test_an_image_on_its_side_counts_as_it_is_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(2):
        write(tmp_path / f"{i}.jpg", np.zeros((16, 24, 3), np.uint8), exif=exif)
    found, _ = image_set.open_image_set(str(tmp_path))
    assert found.shape == (24, 16, 3)
    assert found[np.arange(2)].shape == (2, 24, 16, 3)


def test_what_is_no_image_is_left_out_with_a_warning(colours, capsys):
    folder, _ = colours
    (folder / "notes.txt").write_text("mine")
    (folder / "empty.png").touch()
    assert len(image_set.open_image_set(str(folder))[0]) == 6
    line = capsys.readouterr().err
    assert "skipped 2: " in line
    assert "notes.txt" in line
    assert "empty.png" in line


def test_a_truncated_image_is_left_out_named_and_not_counted(colours, capsys):
    folder, _ = colours
    whole = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(whole[: len(whole) // 2])
    for target in (None, Target(16, 3)):
        found, _ = image_set.open_image_set(str(folder), target)
        assert len(found) == 5
        assert found[np.arange(5)].shape[0] == 5
        (line,) = capsys.readouterr().err.splitlines()
        assert "skipped 1: 2.png (" in line
        assert "5 are used" in line


def test_an_image_too_small_for_the_crop_is_left_out(colours, capsys):
    folder, _ = colours
    write(folder / "tiny.png", np.zeros((4, 4, 3), np.uint8))
    assert len(image_set.open_image_set(str(folder), Target(8, 3, "16x16"))[0]) == 6
    assert "tiny.png (4x4, too small for the crop 16x16)" in capsys.readouterr().err


def test_an_image_that_was_whole_when_it_was_opened_and_is_no_more(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for i in range(3):
        write(tmp_path / f"{i}.webp", noise, lossless=True)
    found, _ = image_set.open_image_set(str(tmp_path))
    whole = (tmp_path / "1.webp").read_bytes()
    (tmp_path / "1.webp").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"^1\.webp: .*; remove it or replace it$"):
        found[np.arange(3)]


@pytest.mark.parametrize("place", ["", "nowhere", "empty", "text"])
def test_no_images(place, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("a")
    with pytest.raises(UserError, match=place or "empty path"):
        image_set.open_image_set(place and str(tmp_path / place))
