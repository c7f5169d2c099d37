"""What introvae_jax.sample writes for its flags, and which it refuses; on models with random weights."""

import csv
import errno

import numpy as np
from PIL import Image
import pytest
import small_model

from introvae_jax import pictures, sampling
from introvae_jax.errors import UserError
from introvae_jax.sampling import Options


@pytest.fixture(scope="module")
def trained():
    return small_model.of_images(channels=3)


@pytest.fixture(scope="module")
def points():
    return small_model.of_points()


def write(trained, tmp_path, **options):
    if "out" in options:
        options["out"] = str(tmp_path / options["out"])
    return sampling.write(trained, Options(**options), str(tmp_path))


@pytest.mark.parametrize(
    ("name", "form"),
    [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.JPEG", "JPEG"), ("a.webp", "WEBP")],
)
def test_a_picture_is_written_in_the_format_of_its_name(trained, tmp_path, name, form):
    write(trained, tmp_path, num=4, out=name)
    picture = Image.open(tmp_path / name)
    assert (picture.format, picture.size) == (form, (258, 258))
    expected = np.asarray(pictures.grid(trained.sample(4)), np.float32)
    assert np.abs(np.asarray(picture.convert("RGB"), np.float32) - expected).mean() < 8
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_points_are_plotted_in_the_format_of_the_name(points, tmp_path):
    write(points, tmp_path, num=4, out="a.jpg")
    assert Image.open(tmp_path / "a.jpg").format == "JPEG"


def test_other_formats_are_refused_and_folders_may_have_dots(trained, tmp_path):
    for name in ("a.bmp", "a.tiff", "a.svg", "a.npz", "a.pdf"):
        with pytest.raises(UserError, match=rf"{name}: this format is not supported; name NAME\.png"):
            write(trained, tmp_path, out=name)
    with pytest.raises(UserError, match="a GIF needs --mode=interpolate"):
        write(trained, tmp_path, out="a.gif")
    assert not list(tmp_path.iterdir())
    write(trained, tmp_path, num=2, out="samples.v2")
    assert sorted(path.name for path in (tmp_path / "samples.v2").iterdir()) == ["seed_000000.png", "seed_000001.png"]


@pytest.mark.parametrize(
    ("options", "said"),
    [({"images": "DIR"}, "--images has no effect with --mode=sample; it needs --mode=reconstruct or"),
     ({"seeds": ["1", "2"]}, "--seeds has no effect with --mode=sample; it needs --mode=interpolate"),
     ({"seeds": ["1", "2"], "mode": "reconstruct", "images": "DIR"}, "--seeds has no effect with --mode=reconstruct"),
     ({"seed": 0, "mode": "reconstruct", "images": "DIR"}, "--seed has no effect with --mode=reconstruct"),
     ({"seed": 5, "mode": "interpolate", "seeds": ["1", "2"]}, "--seed has no effect with --mode=interpolate"),
     ({"mode": "interpolate", "seeds": ["1", "2"], "num": 1}, "--num=1: must be 2 or more"),
     ({"mode": "interpolate"}, "takes either --seeds=A,B or --images"),
     ({"mode": "interpolate", "seeds": ["1", "2" * 5000]}, "must be two whole numbers"),
     ({"mode": "interpolate", "seeds": ["1", "99999999999"]}, "seed 99999999999: must be"),
     ({"seed": 2**32 - 1, "num": 2}, r"must be at least 0 and below 2\*\*32")],
)  # fmt: skip
def test_flags_that_would_be_ignored_or_cannot_be_are_refused(trained, tmp_path, options, said):
    (tmp_path / "sample.png").write_text("mine")
    with pytest.raises(UserError, match=said):
        write(trained, tmp_path, **options)
    assert (tmp_path / "sample.png").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_sheet_too_large_for_its_format_is_refused_before_it_is_computed(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(type(trained), "sample", None)
    with pytest.raises(UserError, match=r"WEBP allows 16,383 per side\. Use a smaller --num, or --out=DIR"):
        write(trained, tmp_path, num=300_000, out="a.webp")


def test_reconstructions_come_with_a_list_of_files_psnr_and_kl(trained, image_folder, tmp_path):
    out = write(trained, tmp_path, mode="reconstruct", images=str(image_folder), num=8, out="r.webp")
    sheet = Image.open(out)
    assert sheet.size == (12 * 130 - 2, 16 + 2 * 130 - 2)
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["row"], row["column"]) for row in rows][4:8] == [("1", "5"), ("1", "6"), ("2", "1"), ("2", "2")]
    assert [row["file"].rpartition("/")[2] for row in rows][:4] == ["01.jpg", "02.webp", "03.png", "05.webp"]
    original = Image.open(rows[1]["file"])
    mu, logvar = trained.encode(original)
    copy, x = trained.reconstruct(original), np.asarray(original.crop((5, 0, 35, 30)).resize((32, 32), 1)) / 255
    assert abs(float(rows[1]["psnr"]) + 10 * np.log10(np.mean((copy[0] - x) ** 2))) < 0.01
    assert abs(float(rows[1]["kl"]) - 0.5 * np.sum(mu**2 + np.exp(logvar) - 1 - logvar)) < 1e-3


def test_a_model_on_the_sphere_has_no_kl_to_list(trained, image_folder, tmp_path, monkeypatch):
    mu = np.ones((12, 5), np.float32)
    monkeypatch.setattr(type(trained), "encode", lambda *_: (mu, np.full_like(mu, -np.inf)))
    write(trained, tmp_path, mode="reconstruct", images=str(image_folder), out="r.png")
    with (tmp_path / "r.csv").open(newline="") as file:
        assert {row["kl"] for row in csv.DictReader(file)} == {""}


def test_a_path_may_be_an_animation(trained, tmp_path):
    write(trained, tmp_path, mode="interpolate", seeds=["3", "7"], num=5, out="path.gif")
    animation = Image.open(tmp_path / "path.gif")
    assert (animation.format, animation.n_frames, animation.size, animation.info["loop"]) == ("GIF", 5, (128, 128), 0)
    first = np.asarray(animation.convert("RGB"), np.float32)[::4, ::4]
    assert np.abs(first - pictures.to_uint8(trained.sample(1, seed=3)[0])).mean() < 8


def test_single_pictures_keep_the_size_of_the_model(trained, tmp_path):
    write(trained, tmp_path, num=6, seed=3, out="each")
    single = Image.open(tmp_path / "each" / "seed_000008.png")
    np.testing.assert_array_equal(np.asarray(single), pictures.to_uint8(trained.sample(1, seed=8))[0])


def test_a_full_disk_amid_single_pictures_is_one_line(trained, tmp_path, monkeypatch):
    save, written = Image.Image.save, []

    def full(image, path, **options):
        if len(written) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        save(image, path, **options)

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UserError, match=r"each: No space left on device$"):
        write(trained, tmp_path, num=20, out="each")
    assert len(list((tmp_path / "each").iterdir())) == 5


@pytest.mark.parametrize(
    ("num", "columns", "side", "times"),
    [(64, 8, 16, 8), (64, 8, 32, 4), (64, 8, 48, 3), (64, 8, 128, 1), (4, 2, 1024, 1), (1024, 32, 32, 2),
     (10_000, 100, 32, 1), (1, 1, 4, 32)],
)  # fmt: skip
def test_small_images_of_a_sheet_are_enlarged_by_a_whole_number(num, columns, side, times):
    assert pictures.factor(num, columns, side, side) == times


def test_the_header_names_both_columns_of_each_pair():
    images = np.zeros((2, 32, 32, 1), np.float32)
    sheet = np.asarray(pictures.pairs(images, images))
    assert sheet.shape == (16 + 128, 4 * 130 - 2)
    dark = [(sheet[:16, left : left + 128] < 128).any() for left in range(0, 520, 130)]
    assert dark == [True] * 4
    np.testing.assert_array_equal(sheet[:16, :258], sheet[:16, 260:])
