"""Metric specs: names, numbers of images, and what is refused."""

import re

import pytest

from introvae_jax.errors import UserError
from introvae_jax.evaluation import specs
from introvae_jax.metrics import headlines


@pytest.mark.parametrize(
    ("word", "name", "count", "full", "label"),
    [("fid50k", "fid", 50_000, False, "fid50k"), ("fid50k_full", "fid", 50_000, True, "fid50k_full"),
     ("swd16k", "swd", 16_000, False, "swd16k"), ("swd16384", "swd", 16_384, False, "swd16384"),
     ("swd50k", "swd", 50_000, False, "swd50k"), ("swd16", "swd", 16, False, "swd16"),
     ("kid1500", "kid", 1500, False, "kid1500"),
     ("alexnet_frechet2k", "alexnet_frechet", 2000, False, "alexnet_frechet2k"),
     ("precision_recall10k_full", "precision_recall", 10_000, True, "precision_recall10k_full")],
)  # fmt: skip
def test_words_with_a_number(word, name, count, full, label):
    (spec,), rest = specs.parse([word])
    assert (spec.word, spec.name, spec.count, spec.full, rest) == (word, name, count, full, [])
    assert spec.label(name + "{}", count) == label


def test_words_without_a_number():
    of_sets, of_encoder = specs.parse(["fid", "fid_full", "swd", "msssim", "reconstruction", "active_units"])
    assert [(r.name, r.count, r.full) for r in of_sets] == [
        ("fid", None, False), ("fid", None, True), ("swd", None, False), ("msssim", None, False)
    ]  # fmt: skip
    assert [(r.name, r.count) for r in of_encoder] == [("reconstruction", None), ("active_units", None)]
    assert [r.count for r in specs.parse(["reconstruction500", "likelihood1k"])[1]] == [500, 1000]


def test_published_counts():
    found = specs.parse(["fid", "kid", "swd", "msssim"])[0]
    counts = {spec.name: spec.metric.default_count * spec.metric.images_per_count for spec in found}
    assert counts == {"fid": 50_000, "kid": 50_000, "swd": 16_384, "msssim": 20_000}


def test_a_word_that_is_asked_twice_counts_once_and_blanks_do_not():
    of_sets, _ = specs.parse(["swd16", " swd16 ", "swd16", "swd16k"])
    assert [r.word for r in of_sets] == ["swd16", "swd16k"]


@pytest.mark.parametrize(
    "word",
    ["", "fidd", "fid0", "fid-5", "fid05", "FID", "fid50m", "fid50k_half", "50k", "ood_full", "fid 50k",
     "fid" + "9" * 5000],
)  # fmt: skip
def test_unknown_words_are_refused_with_the_known_ones(word):
    with pytest.raises(
        UserError, match=r"is no metric.*: choose from fid, kid, .*, ood; a number of images may follow"
    ):
        specs.parse(["swd16", word])


@pytest.mark.parametrize(
    ("word", "said"),
    [("ssim", "ask for reconstruction, of which ssim is a part"), ("psnr10k", "ask for reconstruction"),
     ("elbo", "ask for likelihood"), ("precision", "ask for precision_recall"), ("fidd10k", "did you mean fid?"),
     ("FID50k", "did you mean fid?"), ("ms_ssim", "did you mean msssim?"), ("ms-ssim", "did you mean msssim?"),
     ("reconstructions", "did you mean reconstruction?"), ("alexnet_fid", "did you mean alexnet_")],
)  # fmt: skip
def test_the_metric_that_was_meant_is_named(word, said):
    with pytest.raises(UserError, match=re.escape(said)):
        specs.parse([word])


def test_a_word_like_no_metric_gets_no_guess():
    with pytest.raises(UserError, match=r"^'quality' is no metric: choose from"):
        specs.parse(["quality"])


@pytest.mark.parametrize(
    ("word", "said"),
    [("kid999", "kid needs 1,000 images or more"), ("fid1", "fid needs 2 images or more"),
     ("alexnet_precision_recall3", "needs 4 images"), ("swd1", "swd needs 2"), ("swd16k_full", "ask for swd16k")],
)  # fmt: skip
def test_what_no_set_can_give_is_refused(word, said):
    with pytest.raises(UserError, match=f"{word}: .*{said}"):
        specs.parse([word])


def test_headlines_are_the_values_without_details():
    names = [
        "swd16k",
        "swd16k_32",
        "swd16k_16",
        "fid50k",
        "fid50k_full",
        "kid5k_full",
        "kid5k_full_std",
        "precision50k",
    ]
    assert headlines(names) == ["swd16k", "fid50k", "fid50k_full", "kid5k_full", "precision50k"]
