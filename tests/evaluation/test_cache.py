"""Moments of real images are measured once, and never taken for those of others."""

import dataclasses
import io
import random

import numpy as np
import pytest
from small import blobs

from introvae_jax.evaluation import evaluator, image_sets, specs
from introvae_jax.evaluation.accumulators import Moments, Rows
from introvae_jax.evaluation.cache import Cache
from introvae_jax.evaluation.extractors import View, Views
from introvae_jax.evaluation.set_evaluation import Comparison

KEY = ("alexnet", Moments, 0, 9)
PROTOCOL = {"network": "AlexNet (ImageNet)", "sha256": "443c", "resize": "bilinear"}
STAMP = {"identity": "abc", "split": "train", "seed": 0, "size": 32, "resize": "lanczos", "crop": "center"}


def moments(seed=0, count=9):
    collection = Moments()
    collection.add(np.random.default_rng(seed).normal(size=(count, 5)))
    return collection.value


def load(stamp=None, key=KEY, protocol=None):
    view = View(lambda x: x, protocol or PROTOCOL)
    return Cache(stamp or STAMP).load([key], {"alexnet": view, "inception": view})


@pytest.fixture
def kept(cache):
    Cache(STAMP).save({KEY: moments()}, {"alexnet": View(lambda x: x, PROTOCOL)})
    (path,) = cache.iterdir()
    return path


def test_what_is_kept_comes_back_exactly(kept):
    found = load()[KEY]
    assert found.count == 9
    np.testing.assert_array_equal(found.mean, moments().mean)
    np.testing.assert_allclose(found.covariance, moments().covariance, rtol=1e-15)


@pytest.mark.parametrize("field", STAMP)
def test_other_images_never_hit(kept, field):
    assert load() and not load({**STAMP, field: "another"})


@pytest.mark.parametrize("field", PROTOCOL)
def test_another_network_hash_or_resize_never_hits(kept, field):
    assert not load(protocol={**PROTOCOL, field: "another"})


@pytest.mark.parametrize("key", [("alexnet", Moments, 0, 8), ("alexnet", Moments, 1, 9), ("alexnet", Rows, 0, 9)])
def test_another_part_or_collection_never_hits(kept, key):
    assert not load(key=key)


def test_a_hash_that_collides_is_no_hit(kept, cache):
    other = Cache({**STAMP, "seed": 1})
    path = other._path(other._of(KEY, {"alexnet": View(lambda x: x, PROTOCOL)}))
    path.write_bytes(kept.read_bytes())
    assert not load({**STAMP, "seed": 1})


def foreign():
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


DAMAGE = {
    "cut": lambda whole: whole[: len(whole) // 2], "empty": lambda whole: b"", "text": lambda whole: b"no statistics",
    "an array": lambda whole: foreign(), "end cut": lambda whole: whole[:-10],
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_measured_anew_with_a_warning(kept, damage, capsys):
    kept.write_bytes(DAMAGE[damage](kept.read_bytes()))
    assert not load()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"introvae_jax: warning: {kept}: not readable")
    Cache(STAMP).save({KEY: moments()}, {"alexnet": View(lambda x: x, PROTOCOL)})
    assert load()


def test_no_flipped_byte_is_a_traceback_or_a_wrong_figure(kept):
    whole, rng = kept.read_bytes(), random.Random(0)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        kept.write_bytes(damaged)
        for found in load().values():
            np.testing.assert_array_equal(found.mean, moments().mean)
            np.testing.assert_allclose(found.covariance, moments().covariance, rtol=1e-15)


def test_moments_that_are_none_are_not_used(kept):
    stamp = str(np.load(kept)["stamp"])
    np.savez(kept, mu=np.full(5, np.nan), sigma=np.eye(5), stamp=stamp)
    assert not load()


def test_a_cache_that_cannot_be_written_is_a_warning_and_no_more(cache, folders, cheap, capsys):
    cache.parent.mkdir()
    cache.write_text("in the way")
    real, fake = map(str, folders.values())
    text, _ = evaluator.evaluate(evaluator.Options(["alexnet_frechet"], real=real, fake=fake))
    assert "alexnet_frechet20" in text
    assert "statistics of real images are not kept" in capsys.readouterr().err


def test_the_second_evaluation_reads_no_real_image(cache, cheap):
    array = blobs(12, 0)
    read = []

    class Source:
        def __len__(self):
            return 12

        def __getitem__(self, rows):
            read.append(len(rows))
            return array[rows]

    def score(seed, words, **options):
        real = image_sets.of_source(Source(), (32, 32, 3), "real", {}, seed)
        stamp = {"identity": "x", "seed": seed}
        comparison = Comparison(specs.parse(words)[0], real, (32, 32, 3), Views(), cache=Cache(stamp), **options)
        fake = image_sets.of_source(blobs(12, 1), (32, 32, 3), "generated", {}, 0)
        return [(s.name, s.value, s.floor, s.protocol) for s in comparison.score(fake)]

    first = score(0, ["alexnet_frechet10"])
    assert sum(read) == 10
    assert score(0, ["alexnet_frechet10"]) == first
    assert sum(read) == 10
    score(0, ["alexnet_frechet10"], floor=True)  # halves are others
    assert sum(read) == 22
    assert score(1, ["alexnet_frechet10"])[0][1] != first[0][1]
    assert sum(read) == 32
    assert len(list(cache.iterdir())) == 4


def test_runs_whose_images_were_resized_otherwise_share_nothing():
    """`resize` is a word of both the data and Inception's input."""
    views = {"alexnet": View(lambda x: x, PROTOCOL)}
    paths = set()
    for how in ("lanczos", "bilinear"):
        one = Cache({**STAMP, "resize": how})
        paths.add(one._path(one._of(KEY, views)))
    assert len(paths) == 2


def test_without_a_cache_nothing_is_kept(cache, folders, cheap):
    real, fake = map(str, folders.values())
    options = evaluator.Options(["alexnet_frechet"], real=real, fake=fake)
    assert evaluator.evaluate(dataclasses.replace(options, cache=False))[0] == evaluator.evaluate(options)[0]
    assert len(list(cache.iterdir())) == 1
    evaluator.evaluate(dataclasses.replace(options, seed=1))
    assert len(list(cache.iterdir())) == 2
