"""What a run says: means over an interval, the line, the record, and the check for non-finite numbers."""

import io
import json

import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest
from tensorboardX.proto import event_pb2

from introvae_jax import pictures, plots
from introvae_jax.reporting import logging, tensorboard

TERMS = {"loss_rec": 2.0, "kl_real": 5.0, "loss_encoder": 1.0, "loss_decoder": 3.0}
ADVERSARIAL = {"kl_rec": 9.0, "kl_fake": 11.0, "kl_gap": 5.0, "hinge_rec_active": 1.0, "hinge_fake_active": 0.5}


def reporter(workdir, start=0):
    workdir.mkdir(exist_ok=True)
    return logging.Reporter(workdir, start=start, total=100, batch_size=10, enabled=True)


def arrays(**terms):
    return {name: jnp.float32(value) for name, value in terms.items()}


def test_a_record_holds_the_means_of_its_interval(tmp_path, capsys):
    report = reporter(tmp_path)
    report.resume(compiles=True)
    report.collect(1, arrays(**TERMS))
    report.resume(compiles=False)
    report.collect(2, arrays(**TERMS | {"loss_rec": 4.0} | ADVERSARIAL))
    report.report()
    report.close()
    (record,) = pictures.read_records(tmp_path / "metrics.jsonl")
    assert (record["step"], record["kimg"], record["loss_rec"], record["kl_fake"]) == (2, 0.02, 3.0, 11.0)
    assert record["images_per_second"] > 0
    line = capsys.readouterr().err
    for part in ("step 2/100", "rec 3.00", "kl real 5.0 rec 9.0 fake 11.0 gap +5.0", "hinge rec 100% fake 50%", "left"):
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
    one, other = (pictures.read_records(tmp_path / name / "metrics.jsonl") for name in ("single", "together"))
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
    (record,) = pictures.read_records(tmp_path / "metrics.jsonl")  # what came before it is kept
    assert (record["step"], record["kl_real"]) == (1, 5.0)


def test_records_of_steps_taken_again_and_half_lines_are_dropped(tmp_path):
    lines = [json.dumps({"step": step}) for step in (5, 10, 15)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 2')
    reporter(tmp_path, start=10).close()
    assert [r["step"] for r in pictures.read_records(tmp_path / "metrics.jsonl")] == [5, 10]


@pytest.mark.parametrize(
    "bad", [b"garbage", b'{"step": 7, "kl', b"\0\0\0\0", b"\xff\xfe", b'{"kl_real": 1.0}', b'{"step": "7"}', b"[5]",
            b"7", b'{"step": 7, "kl_real": null}'],
)  # fmt: skip
def test_a_damaged_line_is_set_aside_and_costs_no_other(tmp_path, capfd, bad):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 5}\n' + bad + b'\n\n{"step": 10}\n{"step": 15}')  # the last one lost its newline
    assert [r["step"] for r in pictures.read_records(path)] == [5, 10, 15]
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
    """Read back record by record: length, checksums, then the event."""
    board = tensorboard.TensorBoard(tmp_path, start=4)
    board.scalars(5, {"kl_real": 2.5})
    board.image(5, "samples", Image.new("L", (8, 6), 200))
    board.close()
    (file,) = tmp_path.iterdir()
    data, events = file.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        events.append(event_pb2.Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    assert events[1].session_log.status == event_pb2.SessionLog.START
    assert (events[1].step, events[2].summary.value[0].tag, events[2].summary.value[0].simple_value) == (
        5,
        "kl_real",
        2.5,
    )
    picture = Image.open(io.BytesIO(events[3].summary.value[0].image.encoded_image_string))
    assert (picture.size, picture.getpixel((0, 0))) == ((8, 6), (200, 200, 200))


def test_durations():
    assert [logging.duration(s) for s in (9, 75, 3 * 3600 + 62)] == ["9s", "1m15s", "3h01m"]


def test_grids_and_pairs_put_images_where_they_belong():
    images = np.stack([np.full((4, 4, 3), value) for value in (0.0, 0.2, 0.4, 0.6)]).astype(np.float32)
    grid = np.asarray(pictures.grid(images))
    assert grid.shape == (10, 10, 3)
    assert [grid[0, 0, 0], grid[0, 9, 0], grid[9, 0, 0], grid[9, 9, 0]] == [0, 51, 102, 153]
    assert grid[4, 4, 0] == 255  # the gap
    pairs = np.asarray(pictures.pairs(images[:2, ..., :1], images[2:, ..., :1]))
    assert [pairs[0, x] for x in (0, 6, 12, 18)] == [0, 102, 51, 153]


def test_curves_are_drawn_from_records(tmp_path):
    records = [{"step": s, "loss_rec": 10.0 / s, "kl_real": 5.0} for s in (1, 2, 3)]
    plots.curves(records, tmp_path / "curves.png", margin=30.0)
    assert Image.open(tmp_path / "curves.png").size == (1100, 700)
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]
