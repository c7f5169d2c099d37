"""Two sets of images against each other: closed forms, order, floor, and what cannot be had."""

import dataclasses

import numpy as np
from PIL import Image, ImageFilter
import pytest
from small import blobs

from introvae_jax.data import digits
from introvae_jax.errors import UserError
from introvae_jax.evaluation import image_sets, specs
from introvae_jax.evaluation.extractors import FeatureExtractors
from introvae_jax.evaluation.set_evaluation import SetEvaluation


def plain(array, kind, seed=None):
    """A set in its own order, or in that of a seed; `asked` has what was asked of it."""
    images = image_sets.from_source(array, array.shape[1:], kind, {}, seed or 0)
    asked = []

    def batches(count, size):
        asked.append(count)
        source = (
            images.batches(count, size)
            if seed is not None
            else (array[:count][i : i + size] for i in range(0, count, size))
        )
        yield from source

    return dataclasses.replace(images, batches=batches), asked


def compare(words, real, fake, **options):
    shape, generated = fake.shape[1:], options.pop("generated", len(fake))
    evaluation = SetEvaluation(
        specs.parse(words)[0], plain(real, "real")[0], shape, FeatureExtractors(), generated=generated, **options
    )
    return evaluation.score(plain(fake, "generated")[0])


def values(scores):
    return {score.name: score.value for score in scores}


def test_equal_sets_are_at_no_distance():
    images = blobs(12, 0)
    found = values(compare(["alexnet_frechet", "swd", "alexnet_precision_recall"], images, images.copy()))
    assert found["alexnet_frechet12"] == pytest.approx(0, abs=1e-9)
    assert found["swd12"] == found["swd12_32"] == found["swd12_16"] == 0
    assert found["alexnet_precision12"] == found["alexnet_recall12"] == 1


def test_order_within_a_set_and_the_sides_matter_as_the_definitions_say(cheap):
    a, b = blobs(14, 0), blobs(14, 1) // 2 + 64
    words = ["alexnet_frechet", "alexnet_precision_recall", "swd", "msssim"]
    straight, swapped = values(compare(words, a, b)), values(compare(words, b, a))
    shuffled = values(compare(words, a[::-1], b[np.random.default_rng(0).permutation(14)], batch_size=5))
    assert straight["alexnet_frechet14"] == pytest.approx(swapped["alexnet_frechet14"], rel=1e-6)
    assert straight["alexnet_frechet14"] == pytest.approx(shuffled["alexnet_frechet14"], rel=1e-6)
    assert straight["swd14"] == swapped["swd14"]
    assert straight["alexnet_precision14"] == swapped["alexnet_recall14"] == shuffled["alexnet_precision14"]
    assert straight["alexnet_recall14"] == swapped["alexnet_precision14"] == shuffled["alexnet_recall14"]
    assert straight["msssim7"] != swapped["msssim7"]  # of the generated ones alone


@pytest.mark.parametrize("batch_size", [2, 5, 100])
def test_metrics_do_not_depend_on_the_batch_size(batch_size, cheap):
    a, b = blobs(13, 0), blobs(13, 1)
    words = ["alexnet_frechet", "alexnet_frechet7", "swd", "msssim", "msssim3"]
    found = compare(words, a, b, batch_size=batch_size, floor=True)
    reference = compare(words, a, b, batch_size=13, floor=True)
    for one, other in zip(found, reference, strict=True):
        assert (one.name, one.protocol) == (other.name, other.protocol)
        assert (one.value, one.floor) == pytest.approx((other.value, other.floor), rel=1e-4)


def test_the_floor_is_of_halves_that_share_no_image():
    same = np.concatenate([blobs(6, 0)] * 2)  # the second half repeats the first: only disjoint halves are equal
    score = compare(["swd6"], same, blobs(9, 1), floor=True)[0]
    assert (score.floor, score.protocol["images_floor"]) == (0, 6)
    assert score.value > 0
    other = np.concatenate([blobs(6, 0), 255 - blobs(6, 0)])
    assert compare(["swd6"], other, blobs(9, 1), floor=True)[0].floor > 100
    many = compare(["swd"], blobs(9, 0), blobs(9, 1), floor=True)[0]
    assert (many.protocol["images_real"], many.protocol["images_floor"]) == (9, 4)


def test_full_takes_all_real_images_and_no_more_generated_ones(cheap):
    real, fake = blobs(16, 0), blobs(9, 1)
    found = compare(["alexnet_frechet5_full", "alexnet_frechet5", "alexnet_frechet_full"], real, fake)
    assert [s.name for s in found] == ["alexnet_frechet5_full", "alexnet_frechet5", "alexnet_frechet9_full"]
    assert [s.protocol["images_real"] for s in found] == [16, 5, 16]
    assert [s.protocol["images_generated"] for s in found] == [5, 5, 9]
    whole = compare(["alexnet_frechet5_full"], real[:5], fake)
    assert whole[0].value == pytest.approx(found[1].value, rel=1e-6)
    assert found[0].value != pytest.approx(found[1].value, rel=1e-3)
    large = compare(["alexnet_frechet12_full"], real[:6], blobs(12, 1))[0]  # more generated than real ones
    assert (large.protocol["images_real"], large.protocol["images_generated"]) == (6, 12)


def test_the_real_side_is_looked_at_once_for_two_models():
    real, asked = plain(blobs(12, 0), "real", seed=0)
    evaluation = SetEvaluation(specs.parse(["swd10", "msssim5"])[0], real, (32, 32, 3), FeatureExtractors())
    assert evaluation.generated == 10
    one, two = (evaluation.score(plain(blobs(10, seed), "generated")[0]) for seed in (1, 2))
    assert asked == [10]
    assert one[0].value != two[0].value
    evaluation.score(plain(blobs(10, 1), "generated")[0])
    assert asked == [10]


def test_as_many_as_there_are_is_the_smaller_set_and_at_most_the_published_count():
    found = compare(["swd", "msssim"], blobs(11, 0), blobs(9, 1))
    assert [s.name for s in found] == ["swd9", "swd9_32", "swd9_16", "msssim4"]
    assert found[-1].protocol["images_generated"] == 8
    real = dataclasses.replace(plain(blobs(4, 0), "real")[0], count=70_000)
    evaluation = SetEvaluation(
        specs.parse(["swd", "alexnet_frechet", "msssim"])[0], real, (32, 32, 3), FeatureExtractors()
    )
    assert [count for _, count in evaluation._specs] == [16_384, 50_000, 20_000]


REFUSED = {
    "fewer real": (["swd9"], (8, 32, 32), (9, 32, 32), "swd9 needs 9 real images, and there are 8: ask for swd8"),
    "fewer generated": (["swd9"], (9, 32, 32), (8, 32, 32), "swd9 needs 9 generated images, .* 8: ask for swd8"),
    "full is a way out": (["alexnet_frechet9"], (8, 32, 32), (9, 32, 32), "or alexnet_frechet9_full to compare"),
    "sizes": (["swd"], (8, 32, 32), (8, 16, 16), "real images are 32x32 .*, generated ones 16x16 .*--size=N"),
    "not square": (["swd"], (8, 32, 48), (8, 32, 48), "swd: images 48x32: must be square"),
    "no power of two": (["swd"], (8, 48, 48), (8, 48, 48), "swd: images of side 48: must be a power of two"),
    "sides for msssim": (["msssim"], (8, 40, 40), (8, 40, 40), "msssim: images 40x40: sides must be mult.* 16"),
    "kid": (["alexnet_kernel"], (2000, 32, 32), (9, 32, 32), "needs 1,000 generated images or more, .* 9$"),
    "kid_full": (["alexnet_kernel_full"], (20, 32, 32), (None, 32, 32), "1,000 real images or more, .* 20$"),
    "one": (["alexnet_frechet"], (20, 32, 32), (1, 32, 32), "needs 2 generated images or more, .* 1$"),
    "pairs": (["msssim5"], (20, 32, 32), (9, 32, 32), "msssim5 needs 10 generated images, .* 9: ask for msssim4"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_had_is_refused_before_an_image_is_read(case):
    words, real, fake, said = REFUSED[case]
    images, asked = plain(np.zeros((*real, 3), np.uint8), "real")
    with pytest.raises(UserError, match=said) as caught:
        SetEvaluation(specs.parse(words)[0], images, (*fake[1:], 3), FeatureExtractors(), generated=fake[0])
    assert "\n" not in str(caught.value)
    assert asked == []


def test_halves_that_are_too_few():
    with pytest.raises(UserError, match="--floor: 5 real images are too few to compute alexnet_precision_recall"):
        compare(["alexnet_precision_recall"], blobs(5, 0), blobs(5, 1), floor=True)


def test_a_ladder_of_worse_and_worse_digits():
    """What everybody expects of a metric: it moves as the eye would, however few the images."""
    whole, _ = digits.load()
    real, good = whole[:120:2], whole[1:120:2]
    noise, blur = np.random.default_rng(0).normal(size=good.shape), ImageFilter.GaussianBlur(2.5)
    noisy = [np.uint8(np.clip(good + sigma * noise, 0, 255)) for sigma in (25, 80)]
    blurred = np.stack([np.asarray(Image.fromarray(x[..., 0]).filter(blur)) for x in good])[..., None]
    few = good[np.arange(60) % 4]
    words = ["alexnet_frechet", "swd", "alexnet_precision_recall"]
    evaluation = SetEvaluation(
        specs.parse(words)[0], plain(real, "real")[0], (32, 32, 1), FeatureExtractors(), generated=60
    )
    rungs = [values(evaluation.score(plain(x, "generated")[0])) for x in (good, *noisy, blurred, few)]
    for name in ("alexnet_frechet60", "swd60"):
        clean, some_noise, much_noise, blurs, modes = (rung[name] for rung in rungs)
        assert clean < some_noise < much_noise
        assert clean < min(blurs, modes)
    precision, recall = ([rung[f"alexnet_{name}60"] for rung in rungs] for name in ("precision", "recall"))
    assert max(precision[2], precision[3]) < 0.5 * precision[0]  # noise and blur are not real
    assert recall[4] < 0.5 * recall[0]  # the few are real, and no more than a few
    assert precision[4] > 0.5
