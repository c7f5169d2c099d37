"""Damaged zips get the same answer from every command, and no image takes long to decode."""

import random
import re
import struct
import sys
import time

import broken
import miniatures
import numpy as np
import pytest

from configs import default
from introvae_jax.data import folder, image_set, images, jpeg, readers, source
from introvae_jax.data.preparation.encode import encode_entry
from introvae_jax.data.preparation.spec import DatasetSpec
from introvae_jax.errors import UserError


def damaged_zips(place, count):
    """Zips of six images, each with a few bytes changed: anywhere, in the list of members, or in a member's place."""
    whole = miniatures.zipped(place / "whole.zip", miniatures.arrays(6, 16)).read_bytes()
    rng, start, end = random.Random(0), whole.index(b"PK\1\2"), whole.rindex(b"PK\5\6")
    places = [m.start() + 42 for m in re.finditer(re.escape(b"PK\1\2"), whole)] + [end + 16]
    for i in range(count):
        data = bytearray(whole)
        if i % 3 == 0:
            near = (0, start, rng.randrange(len(data)), start + rng.randrange(300), rng.randrange(2**32))
            struct.pack_into("<I", data, rng.choice(places), rng.choice(near))
        else:
            for _ in range(rng.choice((1, 1, 2, 4))):
                data[rng.randrange(start if i % 3 == 1 else 0, len(data))] = rng.randrange(256)
        path = place / f"{i:03d}.zip"
        path.write_bytes(data)
        yield path


def by_training(path):
    config = default.get_config().data
    config.path, config.size = str(path), 16
    splits = source.open_splits(config)
    return [*splits.train[np.arange(len(splits.train))], *splits.test[np.arange(len(splits.test))]]


def by_evaluation(path):
    found, _ = image_set.open_image_set(str(path))
    return list(found[np.arange(len(found))])


def by_sampling(path):
    return list(folder.decode_all(readers.open_places(str(path), size=16), images.Target(16, 3)).values())


def by_preparing(path):
    """As `prepare` does, its report told as the others tell theirs."""
    reader = readers.open_reader(path, size=16)
    plan = DatasetSpec(str(path), "", "cases", images.Target(16, 3), "png", 95, "25%")
    made = [encode_entry(reader, plan, i) for i in range(len(reader.names))]
    lost = sum(outcome.data is None for outcome in made) + len(reader.skipped)
    if lost:
        print(f"skipped {lost}", file=sys.stderr)
    return [images.decode(outcome.data, plan.target).array for outcome in made if outcome.data is not None]


def test_a_damaged_zip_gives_whole_images_and_names_the_others_or_is_refused(tmp_path, capsys):
    known = {image.tobytes() for image in miniatures.arrays(6, 16)}
    refused = 0
    for path in damaged_zips(tmp_path, 300):
        answers = set()
        for way in (by_training, by_evaluation, by_sampling, by_preparing):
            try:
                found = way(path)
            except UserError as error:
                assert len(str(error).splitlines()) == 1
                found = []
            assert known.issuperset(image.tobytes() for image in found)
            told = re.search(r"skipped (\d+)", capsys.readouterr().err)
            if found:  # or the folder's own entry is damaged, and named like a member
                assert len(found) + (int(told[1]) if told else 0) in (6, 7), path
            answers.add(len(found) if len(found) > 1 else 0)
        assert len(answers) == 1, path
        refused += answers == {0}
    assert 10 < refused < 100


def test_a_jpeg_of_many_scans_is_refused_at_once_and_a_photo_with_a_film_behind_it_is_not():
    pixels = broken.array("scans")
    start = time.monotonic()
    with pytest.raises(images.BadImage, match=r"10[0-9]{3} scans of 64x64 pixels"):
        images.decode(broken.many_scans(pixels), images.Target(64, 3))
    assert time.monotonic() - start < 1
    film = b"\xff\xda\0\x0c" * 10_000
    photo = broken.encoder("JPEG", progressive=True)(pixels)
    thumbnail = photo[:2] + b"\xff\xe1" + struct.pack(">H", 40_002) + film[:40_000] + photo[2:]
    for data in (photo, photo + film, thumbnail):
        assert jpeg.scans(data) <= 10 or images.decode(data, images.Target(64, 3)).array.any()
        np.testing.assert_array_equal(images.decode_whole(data), images.decode_whole(photo))


@pytest.mark.parametrize("encode", [broken.encoder("JPEG"), broken.encoder("JPEG", progressive=True)])
def test_the_scans_of_a_jpeg_are_counted(encode):
    data = encode(broken.array("scans"))
    last = data[data.rindex(b"\xff\xda") : -2]
    assert jpeg.scans(data[:-2] + last * 100 + data[-2:]) == data.count(b"\xff\xda") + 100
