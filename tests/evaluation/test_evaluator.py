"""The command's work, in process: what is scored, the record, the table, and what is refused."""

import errno
import json
import pathlib
import shutil
import zipfile

import jax
import numpy as np
import pytest
import small

from configs import toy2d
import introvae_jax
from introvae_jax import pictures
from introvae_jax.errors import UserError
from introvae_jax.evaluation import evaluator, results, set_evaluation
from introvae_jax.training import train_loop


def evaluate(*metrics, **options):
    return evaluator.evaluate(
        evaluator.Options(metrics, **{k: v if k in ("size", "seed") else v and str(v) for k, v in options.items()})
    )


def figures(path):
    return {figure["name"]: figure for figure in json.loads(pathlib.Path(path).read_text())["figures"]}


@pytest.fixture(scope="module")
def record(run, tmp_path_factory):
    """Table and figures of one evaluation of a run."""
    out = tmp_path_factory.mktemp("record") / "new" / "scores.json"
    text, path = evaluator.evaluate(
        evaluator.Options(["swd8", "msssim3", "reconstruction3"],
                    workdir=str(run), floor=True, seed=7, out=str(out))
    )  # fmt: skip
    assert path == out
    return text, out


def test_each_figure_stands_for_itself(run, record):
    found = figures(record[1])
    assert list(found) == ["swd8", "swd8_32", "swd8_16", "msssim3", "mse", "psnr", "ssim", "lpips"]
    assert json.loads(record[1].read_text())["made"].endswith("+00:00")
    for name, figure in found.items():
        protocol = figure["protocol"]
        assert protocol["model"] == {
            "workdir": str(run), "objective": "vae", "step": 2, "weights": "ema", "dtype": "float32",
            "batch_norm_statistics": "measured for these weights on 2 batches of 8",
        }  # fmt: skip
        data = protocol["held_out" if name in ("mse", "psnr", "ssim", "lpips") else "real"]
        assert (data["data"], data["order_seed"], data["size"], data["resize"]) == ("digits", 7, 32, "lanczos")
        assert len(data["identity"]) == 16
        assert set(protocol["versions"]) == {"introvae_jax", "jax", "jaxlib", "flax", "numpy", "pillow"}
        assert protocol["devices"] == f"{jax.local_device_count()} x cpu"
        assert protocol["definition"]
    swd, mse, lpips = found["swd8"], found["mse"], found["lpips"]
    assert (swd["protocol"]["images_real"], swd["protocol"]["images_generated"]) == (8, 8)
    assert (swd["protocol"]["network"], swd["protocol"]["resize"]) == ("none", "none")
    assert (swd["protocol"]["samples"], swd["protocol"]["range"]) == ({"first_seed": 7}, "uint8, 0 to 255")
    assert swd["floor"] > 0
    assert swd["lower_is_better"] and not found["psnr"]["lower_is_better"]
    assert (mse["protocol"]["images_held_out"], mse["protocol"]["range"], mse["floor"]) == (3, "0 to 1", None)
    assert (lpips["protocol"]["network"], len(lpips["protocol"]["sha256"])) == ("AlexNet (ImageNet)", 64)


def test_the_figures_are_those_of_the_model_s_own_samples(run, record):
    trained = introvae_jax.load(run)
    x = pictures.to_uint8(trained.sample(6, seed=7)).astype(np.float32) / 255
    expected = float(np.mean(scores_of_pairs(x)))
    assert figures(record[1])["msssim3"]["value"] == pytest.approx(expected, rel=1e-4)


def scores_of_pairs(x):
    from introvae_jax.metrics import ssim

    return ssim.ms_ssim(x[::2], x[1::2])


def test_the_table_is_markdown(record):
    text, out = record
    assert out.with_suffix(".md").read_text() == text + "\n"
    lines = text.splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert len({len(line) for line in table}) == 1
    assert set(table[1]) == {"|", "-"}
    assert [cell.strip() for cell in table[0].split("|")[1:-1]] == ["metric", "value", "floor", "better", "images"]
    rest = lines[len(table) :]
    assert rest[0] == ""  # or a list would be part of the table
    assert all(line.startswith("- ") for line in rest[1:])
    assert [cell.strip() for cell in table[-1].split("|")[1:-1]][2:] == ["-", "lower", "3 held out"]


def test_a_record_of_a_run_is_a_new_file_each_time(run, tmp_path):
    workdir = shutil.copytree(run, tmp_path / "run")
    paths = [evaluate("msssim1", workdir=workdir, seed=seed)[1] for seed in (0, 1)]
    assert {path.parent for path in paths} == {workdir / "evaluations"}
    kept = sorted(path.name for path in (workdir / "evaluations").iterdir())
    assert kept == sorted([path.name for path in paths] + [path.with_suffix(".md").name for path in paths])


@pytest.mark.parametrize("taken", ["scores.json", "scores.md"])
def test_nothing_is_written_over(run, tmp_path, taken):
    (tmp_path / taken).write_text("mine")
    with pytest.raises(UserError, match=rf"{taken} exists already"):
        evaluate("msssim1", workdir=run, out=tmp_path / "scores.json")
    assert [(p.name, p.read_text()) for p in tmp_path.glob("scores*")] == [(taken, "mine")]


def test_weights_step_and_split_are_what_was_asked_for(run, tmp_path):
    found = []
    for i, options in enumerate(({}, {"weights": "raw"}, {"step": "1"}, {"split": "test"})):
        evaluate("swd4", workdir=run, out=tmp_path / f"{i}.json", **options)
        found.append(figures(tmp_path / f"{i}.json")["swd4"])
    assert len({figure["value"] for figure in found}) == 4
    assert [f["protocol"]["model"]["weights"] for f in found] == ["ema", "raw", "ema", "ema"]
    assert [f["protocol"]["model"]["step"] for f in found] == [2, 2, 1, 2]
    assert [f["protocol"]["real"]["split"] for f in found] == ["train", "train", "train", "test"]


def test_two_folders_and_an_archive(folders, tmp_path):
    real, fake = folders.values()
    text, path = evaluate("swd", real=real, fake=fake)
    assert path is None
    assert "| swd20 " in text
    with zipfile.ZipFile(tmp_path / "fake.zip", "w") as archive:
        for image in sorted(fake.iterdir()):
            archive.write(image, image.name)
    zipped, _ = evaluate("swd", real=real, fake=tmp_path / "fake.zip")
    assert zipped.split("\n\n")[0] == text.split("\n\n")[0]
    evaluate("swd", real=real, fake=fake, size=16, out=tmp_path / "small.json")
    protocol = figures(tmp_path / "small.json")["swd20"]["protocol"]
    assert protocol["real"]["size"] == protocol["generated"]["size"] == 16
    assert list(figures(tmp_path / "small.json")) == ["swd20", "swd20_16"]


def test_real_images_of_another_place_are_brought_to_the_model_s_form(run, folders, tmp_path):
    evaluate("swd5", workdir=run, real=folders["real"], out=tmp_path / "a.json")
    said = figures(tmp_path / "a.json")["swd5"]["protocol"]["real"]
    assert (said["data"], said["size"], said["channels"]) == (str(folders["real"]), 32, 1)


def test_seeds_up_to_the_last(run):
    evaluate("msssim2", workdir=run, seed=2**32 - 4)
    with pytest.raises(UserError, match=r"--seed=4294967293: 4 samples .* below 2\*\*32"):
        evaluate("msssim2", workdir=run, seed=2**32 - 3)


NOWHERE = "/nowhere/at/all"
REFUSED = {
    "nothing": ({}, "--workdir=RUN is needed, or --real=DIR and --fake=DIR"),
    "real alone": ({"real": "REAL"}, "--workdir=RUN is needed"),
    "fake alone": ({"fake": "FAKE"}, "--fake needs --real=DIR"),
    "both": ({"workdir": "RUN", "fake": "FAKE", "real": "REAL"}, "--workdir and --fake"),
    "no metric": ({"metrics": (), "workdir": "RUN"}, "--metrics is empty"),
    "unknown metric": ({"metrics": ("fix",), "workdir": "RUN"}, "'fix' is no metric"),
    "encoder of folders": ({"metrics": ("reconstruction",), "real": "REAL", "fake": "FAKE"}, "a metric of a model"),
    "no such run": ({"workdir": NOWHERE}, "no checkpoints there"),
    "no such folder": ({"real": "REAL", "fake": NOWHERE}, f"{NOWHERE}: no such file or folder"),
    "no folder at all": ({"real": "", "fake": "FAKE"}, "empty path"),
    "size of a run": ({"workdir": "RUN", "size": 16}, "--size needs --fake"),
    "no such step": ({"workdir": "RUN", "step": "7"}, "no checkpoint of step 7; there are 1, 2"),
    "no step": ({"workdir": "RUN", "step": "last"}, "--step=last: must be latest, best or a number"),
    "no best": ({"workdir": "RUN", "step": "best"}, r"no checkpoint was scored while training \(config.eval.every\)"),
    "out": ({"workdir": "RUN", "out": "scores.txt"}, "must be NAME.json"),
    "out in a file": ({"workdir": "RUN", "out": f"{__file__}/scores.json"}, __file__),
    "out in no place": ({"workdir": "RUN", "out": "/proc/none/scores.json"}, "/proc/none"),
    "missing weights": ({"metrics": ("fid4",), "workdir": "RUN", "inception": NOWHERE}, "there is no such file"),
    "wrong weights": ({"metrics": ("fid4",), "workdir": "RUN", "inception": __file__}, "SHA-256 .* is needed"),
    "no ood": ({"metrics": ("swd4", "ood"), "workdir": "RUN"}, "--ood=DIR"),
    "no ood there": ({"metrics": ("ood",), "workdir": "RUN", "ood": NOWHERE}, NOWHERE),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_computed(case, run, folders, monkeypatch):
    options, said = REFUSED[case]
    places = {"RUN": run, "REAL": folders["real"], "FAKE": folders["fake"]}
    options = {name: places.get(value, value) if isinstance(value, str) else value for name, value in options.items()}
    monkeypatch.setattr(set_evaluation, "accumulate", None)
    before = sorted(run.rglob("*"))
    with pytest.raises(UserError, match=said) as caught:
        evaluate(*options.pop("metrics", ("swd4",)), **options)
    assert "\n" not in str(caught.value)
    assert [p for p in sorted(run.rglob("*")) if p not in before] in ([], [run / "evaluations"])


def test_a_folder_that_has_gone_is_asked_for_by_the_right_flag(run, folders, monkeypatch):
    trained = introvae_jax.load(run)
    data = {**trained.config["data"], "source": "folder", "path": NOWHERE, "channels": 1}
    trained.config = {**trained.config, "data": data}
    monkeypatch.setattr(evaluator.model, "load", lambda *_, **__: trained)
    for path in (None, "/not/there/either"):
        with pytest.raises(
            UserError, match=rf"^{path or NOWHERE}: the images of .* give their path with --data_path=DIR"
        ):
            evaluate("swd4", workdir=run, data_path=path)
    assert (
        "swd4" in evaluate("swd4", workdir=run, data_path=folders["real"], out=pathlib.Path(run).parent / "d.json")[0]
    )
    data["path"] = ""
    with pytest.raises(UserError, match="has no image source: name a folder or archive with --data_path"):
        evaluate("swd4", workdir=run)


def test_a_disk_that_fills_up_at_the_end_loses_no_figure(run, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "scores.json")

    monkeypatch.setattr(results, "save", full)
    with pytest.raises(UserError, match=r"scores\.json: No space left on device"):
        evaluate("msssim1", workdir=run, out=tmp_path / "scores.json")
    assert "| msssim1" in capsys.readouterr().out


def test_a_model_of_points_is_sent_elsewhere(tmp_path):
    config = toy2d.get_config("rings,vae,small")
    config.steps, config.model.width, config.model.depth = 1, 8, 1
    config.log.every = config.checkpoint.every = 1
    train_loop.train(config, tmp_path / "run")
    with pytest.raises(UserError, match=r"is a model of points; python -m benchmarks\.toy2d"):
        evaluate("swd4", workdir=tmp_path / "run")


def test_no_number_of_images_is_lost_where_batches_are_larger_than_the_set(folders):
    small_batch, _ = evaluator.evaluate(
        evaluator.Options(["swd"], real=str(folders["real"]), fake=str(folders["fake"]), batch_size=3)
    )
    large_batch, _ = evaluator.evaluate(
        evaluator.Options(["swd"], real=str(folders["real"]), fake=str(folders["fake"]), batch_size=999)
    )
    assert small_batch == large_batch


def test_images_of_one_size_and_others(tmp_path, folders):
    small.write(tmp_path / "wide", small.blobs(4, 0, width=48))
    with pytest.raises(UserError, match=r"real images are 32x32 .* generated ones 48x32 .* --size=N"):
        evaluate("alexnet_frechet", real=folders["real"], fake=tmp_path / "wide")
