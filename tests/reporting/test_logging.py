"""What a run says: means over an interval, the line, the record, and the check for non-finite numbers."""

import io
import json

import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest
from tensorboardX.proto import event_pb2

from introvae_jax import formatting, pictures, plots
from introvae_jax.evaluation.results import Result
from introvae_jax.objectives.introvae import IntroVAE
from introvae_jax.objectives.soft_introvae import SoftIntroVAE
from introvae_jax.objectives.vae import VAE
from introvae_jax.reporting import logging, records, tensorboard, time_left

TERMS = {"loss_rec": 2.0, "kl_real": 5.0, "loss_encoder": 1.0, "loss_decoder": 3.0}
ADVERSARIAL = {"kl_rec": 9.0, "kl_fake": 11.0, "kl_gap": 5.0, "hinge_rec_active": 1.0, "hinge_fake_active": 0.5}


def reporter(workdir, start=0, **options):
    workdir.mkdir(exist_ok=True)
    return logging.Reporter(workdir, start=start, total=100, batch_size=10, enabled=True, **options)


def events(file):
    """Of TensorBoard's file, record by record: length, checksums, then the event."""
    data, found = file.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        found.append(event_pb2.Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def arrays(**terms):
    return {name: jnp.float32(value) for name, value in terms.items()}


def test_a_record_holds_the_means_of_its_interval(tmp_path, capsys):
    report = reporter(tmp_path, objective=IntroVAE)
    report.resume(compiles=True)
    report.collect(1, arrays(**TERMS))
    report.resume(compiles=False)
    report.collect(2, arrays(**TERMS | {"loss_rec": 4.0} | ADVERSARIAL))
    report.report()
    report.close()
    (record,) = records.read_metrics(tmp_path / "metrics.jsonl")
    assert (record["step"], record["kimg"], record["loss_rec"], record["kl_fake"]) == (2, 0.02, 3.0, 11.0)
    assert record["images_per_second"] > 0
    line = capsys.readouterr().err
    for part in (
        "step 2/100",
        "error 3.00",
        "kl real 5.0 rec 9.0 fake 11.0 gap +5.0",
        "hinge rec 100% fake 50%",
        "left",
    ):
        assert part in line


def test_steps_that_come_together_are_reported_as_if_they_had_come_one_by_one(tmp_path):
    single, together = reporter(tmp_path / "single"), reporter(tmp_path / "together")
    losses = [3.0, 5.0, 10.0]
    for step, loss in enumerate(losses, start=1):
        single.collect(step, arrays(**TERMS | {"loss_rec": loss}))
    together.collect(3, {name: jnp.full(3, value) for name, value in TERMS.items()} | {"loss_rec": jnp.array(losses)})
    for report in (single, together):
        report.report()
        report.close()
    one, other = (records.read_metrics(tmp_path / name / "metrics.jsonl") for name in ("single", "together"))
    for record in (*one, *other):
        del record["seconds"], record["wall_time"]
    assert one == other
    assert one[0]["loss_rec"] == 6.0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_non_finite_term_is_named_with_its_step(tmp_path, value):
    report = reporter(tmp_path)
    for step in (1, 2, 3):
        report.collect(step, arrays(**TERMS | ({"kl_real": value} if step == 2 else {})))
    with pytest.raises(logging.NonFinite, match=f"kl_real is {value} at step 2"):
        report.report()
    report.close()
    (record,) = records.read_metrics(tmp_path / "metrics.jsonl")  # what came before it is kept
    assert (record["step"], record["kl_real"]) == (1, 5.0)


def test_records_of_steps_taken_again_and_half_lines_are_dropped(tmp_path):
    lines = [json.dumps({"step": step}) for step in (5, 10, 15)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 2')
    reporter(tmp_path, start=10).close()
    assert [r["step"] for r in records.read_metrics(tmp_path / "metrics.jsonl")] == [5, 10]


@pytest.mark.parametrize(
    "bad", [b"garbage", b'{"step": 7, "kl', b"\0\0\0\0", b"\xff\xfe", b'{"kl_real": 1.0}', b'{"step": "7"}', b"[5]",
            b"7", b'{"step": 7, "kl_real": null}'],
)  # fmt: skip
def test_a_damaged_line_is_set_aside_and_costs_no_other(tmp_path, capfd, bad):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 5}\n' + bad + b'\n\n{"step": 10}\n{"step": 15}')  # the last one lost its newline
    assert [r["step"] for r in records.read_metrics(path)] == [5, 10, 15]
    reporter(tmp_path, start=15).close()
    assert path.read_bytes() == b'{"step": 5}\n{"step": 10}\n{"step": 15}\n'
    assert (tmp_path / "metrics.jsonl.bad").read_bytes() == bad + b"\n"
    assert f"{path}: damaged line 2, moved to {path}.bad" in capfd.readouterr().err
    reporter(tmp_path, start=15).close()
    assert not capfd.readouterr().err


def test_a_new_file_of_events_sorts_behind_the_others_when_the_clock_went_back(tmp_path, monkeypatch):
    """Readers take the files in the order of their names."""
    for start, now in enumerate((2e9, 2e9, 1e9, 1.5e9)):
        monkeypatch.setattr(tensorboard.time, "time", lambda now=now: now)
        before = set(tmp_path.iterdir())
        tensorboard.TensorBoard(tmp_path, start=start).close()
        (new,) = set(tmp_path.iterdir()) - before
        assert new == max(tmp_path.iterdir())
        assert ".out.tfevents." in new.name


def test_tensorboard_s_own_reader_finds_scalars_and_pictures(tmp_path):
    board = tensorboard.TensorBoard(tmp_path, start=4)
    board.scalars(5, {"kl_real": 2.5})
    board.image(5, "samples", Image.new("L", (8, 6), 200))
    board.close()
    (file,) = tmp_path.iterdir()
    found = events(file)
    assert found[1].session_log.status == event_pb2.SessionLog.START
    assert (found[1].step, found[2].summary.value[0].tag, found[2].summary.value[0].simple_value) == (5, "kl_real", 2.5)
    picture = Image.open(io.BytesIO(found[3].summary.value[0].image.encoded_image_string))
    assert (picture.size, picture.getpixel((0, 0))) == ((8, 6), (200, 200, 200))


def test_each_name_in_a_line_means_one_thing(tmp_path, capsys):
    report = reporter(tmp_path)
    report.collect(1, arrays(**TERMS, **ADVERSARIAL))
    report.report()
    report.close()
    parts = capsys.readouterr().err.strip().split(" | ")
    first_words = [part.split()[0] for part in parts]
    assert len(set(first_words)) == len(first_words)
    assert "rec" not in first_words  # of kl and hinge it names the reconstructions


def test_a_record_tells_time_and_learning_rate_and_time_goes_on_after_a_restart(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": step, "seconds": 100.0 * step}) + "\n" for step in (5, 10, 15))
    )
    report = reporter(tmp_path, start=10, learning_rate=lambda step: 0.5 / step)
    report.collect(20, arrays(**TERMS))
    report.report()
    report.close()
    record = records.read_metrics(tmp_path / "metrics.jsonl")[-1]
    assert record["learning_rate"] == 0.5 / 20
    assert 1_000 <= record["seconds"] < 1_500  # those of step 10 and a moment; step 15 is trained anew
    assert record["wall_time"] > 1.7e9


def test_tensorboard_groups_what_belongs_together(tmp_path):
    report = reporter(tmp_path, learning_rate=lambda step: 0.1)
    report.resume(compiles=False)
    report.collect(1, arrays(**TERMS, **ADVERSARIAL, grad_norm_encoder=1.0, exp_elbo_rec=0.5, exp_elbo_fake=0.1))
    report.report()
    report.picture("samples", Image.new("L", (8, 6)), 1)
    report.scored(1, [Result("fid10", "fid10", 3.0, True, None, {})])
    report.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    tags = {value.tag for event in events(file) for value in event.summary.value}
    assert {"loss/rec", "loss/encoder", "kl/real", "kl/gap", "hinge/rec_active", "exp_elbo/rec", "grad_norm/encoder",
            "optim/learning_rate", "speed/images_per_second", "pictures/samples", "eval/fid10"} < tags  # fmt: skip
    assert all(tag.count("/") == 1 for tag in tags)


def test_the_time_left_counts_what_comes_between_and_after_the_steps():
    pauses = time_left.Pauses({"pictures": [10], "checkpoints": [15, 20]}, total=50)
    assert pauses.left(10) == 0.0  # nothing has been seen yet
    pauses._seconds |= {"pictures": 3.0, "checkpoints": 100.0}
    # After step 31: pictures at 40 and 50; checkpoints at 40, 45 and 50.
    assert pauses.left(31) == 2 * 3.0 + 3 * 100.0
    # A report comes before the pause of its own step.
    assert pauses.left(40) == 2 * 3.0 + 3 * 100.0
    assert pauses.left(50) == 3.0 + 100.0
    record = {"step": 40, "kimg": 0.4, "images_per_second": 10.0, **TERMS}
    assert ", 5m16s left" in logging.summary(record, 50, 10, pauses)
    assert ", at least 10s left" in logging.summary(record, 50, 10, time_left.Pauses({"pictures": [10]}, total=50))


def test_a_pause_is_timed(monkeypatch):
    times = iter([5.0, 7.5])
    monkeypatch.setattr(time_left.time, "perf_counter", lambda: next(times))
    pauses = time_left.Pauses({"pictures": [10]}, total=20)
    with pauses.timed("pictures"):
        pass
    assert pauses.left(5) == 2 * 2.5


def test_durations():
    assert [formatting.duration(s) for s in (9, 75, 3 * 3600 + 62)] == ["9s", "1m15s", "3h01m"]


def test_grids_and_pairs_put_images_where_they_belong():
    images = np.stack([np.full((4, 4, 3), value) for value in (0.0, 0.2, 0.4, 0.6)]).astype(np.float32)
    grid = np.asarray(pictures.grid(images))
    assert grid.shape == (2 * 128 + 2, 2 * 128 + 2, 3)  # 32 times as large
    assert [grid[y, x, 0] for y in (0, 127, 130) for x in (0, 127, 130)] == [0, 0, 51] * 2 + [102, 102, 153]
    assert grid[128, 5, 0] == grid[5, 129, 0] == 255  # the gap
    pairs = np.asarray(pictures.pairs(images[:2, ..., :1], images[2:, ..., :1]))
    assert pairs.shape == (16 + 128, 4 * 130 - 2)
    assert [pairs[16, 130 * x] for x in range(4)] == [0, 102, 51, 153]


def test_curves_of_a_single_record_show_it(tmp_path):
    """A line of one point has no length."""
    for name, found in {"empty": [], "one": [{"step": 5, "loss_rec": 10.0, "kl_real": 5.0}]}.items():
        plots.curves(found, tmp_path / name, IntroVAE.panels)
    empty, one = (np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int) for name in ("empty", "one"))
    colours = [np.ptp(picture[60:330], axis=-1).max(0) for picture in (empty, one)]  # inside the upper panels
    middle = slice(180, 380)  # of the first one, away from its legend and its axes
    assert colours[0][middle].max() < 60 <= colours[1][middle].max()


def test_curves_are_drawn_from_records(tmp_path):
    records = [{"step": s, "loss_rec": 10.0 / s, "kl_real": 5.0} for s in (1, 2, 3)]
    plots.curves(records, tmp_path / "curves.png", IntroVAE.panels, {"margin": 30.0})
    assert Image.open(tmp_path / "curves.png").size == (1100, 700)
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]


def test_curves_show_a_margin_and_a_beta_that_move(tmp_path, monkeypatch):
    drawn, save = {}, plots.Figure.savefig

    def look_and_save(figure, *args, **options):
        drawn.update(_lines(figure))
        save(figure, *args, **options)

    monkeypatch.setattr(plots.Figure, "savefig", look_and_save)
    records = [{"step": s, "loss_rec": 10.0 / s, "kl_real": 5.0 * s} for s in (1, 2)]
    plots.curves(records, tmp_path / "fixed.png", IntroVAE.panels, {"margin": 30.0})
    assert drawn["KL to the prior (nats)"]["margin"] == [30.0, 30.0]
    assert "beta" not in drawn
    moving = [{**record, "margin": record["kl_real"] + 3.0, "beta": record["step"] / 2} for record in records]
    plots.curves(moving, tmp_path / "moving.png", IntroVAE.panels)
    assert drawn["KL to the prior (nats)"]["margin"] == [8.0, 13.0]
    assert drawn["beta"]["beta"] == [0.5, 1.0]


def _lines(figure):
    """The values of each line by its label, by the title of its panel."""
    return {
        axes.get_title(): {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}
        for axes in figure.axes
    }


def test_each_objective_adds_its_terms_to_the_line():
    record = TERMS | {"step": 1, "kimg": 0.1, "exp_elbo_rec": 0.5, "exp_elbo_fake": 0.25}
    assert "exp(ELBO) rec 0.500 fake 0.250" in logging.summary(record, 10, 1, objective=SoftIntroVAE)
    assert "exp(ELBO)" not in logging.summary(record, 10, 1, objective=VAE)
