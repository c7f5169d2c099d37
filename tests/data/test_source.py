"""The embedded digits and the folder source: splits, identity, and files that are no images."""

import os
import pathlib

import ml_collections
import numpy as np
from PIL import Image
import pytest

from configs import default
from introvae_jax.data import digits, source
from introvae_jax.errors import UserError


def folder_config(path, **changes):
    config = default.get_config().data
    config.path, config.size = str(path), 16
    config.update(ml_collections.ConfigDict(changes))
    return config


def rows(images):
    return {image.tobytes() for image in images[np.arange(len(images))]}


def test_digits_are_5000_balanced_images_split_once():
    config = default.get_config().data
    config.source = "digits"
    splits = source.open_splits(config)
    assert splits.train.shape == (4500, 32, 32, 1)
    assert splits.test.shape == (500, 32, 32, 1)
    labels, test = digits.load()[1], digits.is_test()
    np.testing.assert_array_equal(np.bincount(labels), 500)
    np.testing.assert_array_equal(np.bincount(labels[test]), 50)
    assert not rows(splits.train) & rows(splits.test)
    assert splits.train.max() == 255


def test_a_folder_is_split_into_disjoint_parts_that_stay_the_same(image_folder):
    first = source.open_splits(folder_config(image_folder, test_fraction=0.25))
    again = source.open_splits(folder_config(image_folder, test_fraction=0.25))
    assert (len(first.train), len(first.test)) == (9, 3)
    assert first.test.names == again.test.names
    assert not rows(first.train) & rows(first.test)
    assert first.identity == again.identity


def test_without_a_cache_the_same_images_are_decoded_on_demand(image_folder):
    cached = source.open_splits(folder_config(image_folder))
    on_demand = source.open_splits(folder_config(image_folder, cache_gib=0.0))
    order = np.array([3, 0, 3])
    np.testing.assert_array_equal(cached.train[order], on_demand.train[order])
    (image_folder / on_demand.train.names[0]).write_bytes(b"gone bad")
    with pytest.raises(UserError, match="was readable at the start of training"):
        on_demand.train[np.array([0])]


def test_the_identity_changes_with_the_images(image_folder):
    before = source.open_splits(folder_config(image_folder)).identity
    Image.new("RGB", (20, 20)).save(image_folder / "more.png")
    assert source.open_splits(folder_config(image_folder)).identity != before


def test_files_that_are_no_whole_images_are_named_in_one_warning(image_folder, capsys):
    whole = (image_folder / "01.jpg").read_bytes()
    (image_folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (image_folder / "notes.txt").write_text("not an image")
    (image_folder / ".hidden").write_text("left alone")
    Image.new("L", (20, 20)).save(image_folder / "grey.png")
    Image.new("RGBA", (20, 20)).save(image_folder / "clear.png")
    splits = source.open_splits(folder_config(image_folder))
    assert len(splits.train) + len(splits.test) == 14
    (message,) = capsys.readouterr().err.splitlines()
    for part in ("skipped 2", "cut.jpg (", "notes.txt (not a png, jpeg, webp, bmp, gif or tiff image)",
                 "converted 2", "grey.png (L to RGB)", "clear.png (RGBA to RGB)"):  # fmt: skip
        assert part in message
    assert ".hidden" not in message


def test_a_loop_of_links_shows_each_image_once(image_folder):
    (image_folder / "nested" / "again").symlink_to(image_folder)
    splits = source.open_splits(folder_config(image_folder))
    assert len(splits.train) + len(splits.test) == 12


def test_a_name_that_is_no_utf_8_is_a_name_too(image_folder):
    (image_folder / "01.jpg").rename(pathlib.Path(os.fsdecode(os.fsencode(image_folder) + b"/\xff\xfe.jpg")))
    assert len(source.open_splits(folder_config(image_folder)).train) == 11


@pytest.mark.parametrize("make", ["missing", "empty", "one", "unset"])
def test_too_few_images_is_an_error_with_the_way_out(tmp_path, make):
    path = "" if make == "unset" else tmp_path / "images"
    if make in ("empty", "one"):
        path.mkdir()
    if make == "one":
        Image.new("RGB", (20, 20)).save(path / "a.png")
    with pytest.raises(UserError, match=r"config.data.path .*--config.data.path=DIR"):
        source.open_splits(folder_config(path))


def test_a_path_in_the_home_is_found(image_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(image_folder.parent))
    assert len(source.open_splits(folder_config("~/images")).train) == 11
