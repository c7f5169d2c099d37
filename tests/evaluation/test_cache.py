"""Moments of real images are measured once, and never taken for those of others."""

import dataclasses
import io
import random

import numpy as np
import pytest
from small import blobs

from introvae_jax.evaluation import evaluator, image_sets, specs
from introvae_jax.evaluation.cache import Cache
from introvae_jax.evaluation.extractors import FeatureExtractor, FeatureExtractors
from introvae_jax.evaluation.image_sets import Part
from introvae_jax.evaluation.set_evaluation import SetEvaluation
from introvae_jax.metrics.accumulators import Rows
from introvae_jax.metrics.frechet import MomentsAccumulator

PART = Part("alexnet", MomentsAccumulator, 0, 9)
METADATA = {"network": "AlexNet (ImageNet)", "sha256": "443c", "resize": "bilinear"}
CACHE_KEY = {"identity": "abc", "split": "train", "seed": 0, "size": 32, "resize": "lanczos", "crop": "center"}


def moments(seed=0, count=9):
    accumulator = MomentsAccumulator()
    accumulator.add(np.random.default_rng(seed).normal(size=(count, 5)))
    return accumulator.value


def load(cache_key=None, part=PART, metadata=None):
    extractor = FeatureExtractor(lambda x: x, metadata or METADATA)
    return Cache(cache_key or CACHE_KEY).load([part], {"alexnet": extractor, "inception": extractor})


@pytest.fixture
def kept(cache):
    Cache(CACHE_KEY).save({PART: moments()}, {"alexnet": FeatureExtractor(lambda x: x, METADATA)})
    (path,) = cache.iterdir()
    return path


def test_what_is_kept_comes_back_exactly(kept):
    found = load()[PART]
    assert found.count == 9
    np.testing.assert_array_equal(found.mean, moments().mean)
    np.testing.assert_allclose(found.covariance, moments().covariance, rtol=1e-15)


@pytest.mark.parametrize("field", CACHE_KEY)
def test_other_images_never_hit(kept, field):
    assert load() and not load({**CACHE_KEY, field: "another"})


@pytest.mark.parametrize("field", METADATA)
def test_another_network_hash_or_resize_never_hits(kept, field):
    assert not load(metadata={**METADATA, field: "another"})


@pytest.mark.parametrize("part", [PART._replace(stop=8), PART._replace(start=1), PART._replace(accumulator=Rows)])
def test_another_part_or_accumulator_never_hits(kept, part):
    assert not load(part=part)


def test_a_hash_that_collides_is_no_hit(kept, cache):
    other = Cache({**CACHE_KEY, "seed": 1})
    path = other._path(other._key(PART, {"alexnet": FeatureExtractor(lambda x: x, METADATA)}))
    path.write_bytes(kept.read_bytes())
    assert not load({**CACHE_KEY, "seed": 1})


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
    Cache(CACHE_KEY).save({PART: moments()}, {"alexnet": FeatureExtractor(lambda x: x, METADATA)})
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
    assert "statistics of real images are not cached" in capsys.readouterr().err


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
        real = image_sets.from_source(Source(), (32, 32, 3), "real", {}, seed)
        cache_key = {"identity": "x", "seed": seed}
        evaluation = SetEvaluation(
            specs.parse(words)[0], real, (32, 32, 3), FeatureExtractors(), cache=Cache(cache_key), **options
        )
        fake = image_sets.from_source(blobs(12, 1), (32, 32, 3), "generated", {}, 0)
        return [(s.name, s.value, s.floor, s.protocol) for s in evaluation.score(fake)]

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
    extractors = {"alexnet": FeatureExtractor(lambda x: x, METADATA)}
    paths = set()
    for how in ("lanczos", "bilinear"):
        one = Cache({**CACHE_KEY, "resize": how})
        paths.add(one._path(one._key(PART, extractors)))
    assert len(paths) == 2


def test_without_a_cache_nothing_is_kept(cache, folders, cheap):
    real, fake = map(str, folders.values())
    options = evaluator.Options(["alexnet_frechet"], real=real, fake=fake)
    assert evaluator.evaluate(dataclasses.replace(options, cache=False))[0] == evaluator.evaluate(options)[0]
    assert len(list(cache.iterdir())) == 1
    evaluator.evaluate(dataclasses.replace(options, seed=1))
    assert len(list(cache.iterdir())) == 2
