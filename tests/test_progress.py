"""Phases are announced when they last, repeated while nothing else is printed, and printed by one process."""

import io
import re
import sys
import threading

import pytest

from introvae_jax import errors, progress


class Clock:
    """Seconds that pass when a test says so, with a look at each half second."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def pass_by(self, console, seconds):
        for _ in range(int(seconds / progress.LOOK)):
            self.now += progress.LOOK
            console.look()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def console(clock):
    """One that announces to a log, without a thread."""
    made = progress.Console(clock)
    made.start(2.0, terminal=False)
    return made


def test_a_short_phase_prints_nothing(console, clock, capsys):
    with console.begin("reading", None, ""):
        clock.pass_by(console, 1.5)
    assert capsys.readouterr().err == ""


def test_a_long_phase_is_announced_repeated_and_ends_with_its_duration(console, clock, capsys):
    with console.begin("compiling", None, ""):
        clock.pass_by(console, 11)
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("compiling") for line in lines)
    assert lines[-1] == "compiling: 11s"
    assert [re.findall(r"\d+s$", line) for line in lines[:-1]] == [["2s"], ["6s"], ["10s"]]


def test_no_silence_is_longer_than_five_seconds_in_the_first_minutes_and_a_log_is_not_flooded(console, clock, capsys):
    said = []
    with console.begin("training", 10, "steps"):
        for _ in range(3600):
            clock.pass_by(console, 1)
            said += [clock.now - 100.0] * len(capsys.readouterr().err.splitlines())
    gaps = [later - earlier for earlier, later in zip([0.0, *said], said, strict=False)]
    assert max(gap for gap, when in zip(gaps, said, strict=True) if when < 300) <= 5
    assert max(gaps) <= progress.RARELY + 1
    assert len(said) < 400


def test_other_lines_put_the_next_one_off(console, clock, capsys):
    with console.begin("training", None, ""):
        for step in range(10):
            clock.pass_by(console, 1.5)
            console.say(f"step {step}")
    assert not [line for line in capsys.readouterr().err.splitlines()[:-1] if not line.startswith("step")]


def test_short_phases_in_a_row_are_not_silent_together(console, clock, capsys):
    for i in range(6):
        with console.begin(f"part {i}", None, ""):
            clock.pass_by(console, 1.5)
    assert 1 <= len([line for line in capsys.readouterr().err.splitlines() if " ... " in line]) <= 3


def test_a_count_is_shown(console, clock, capsys):
    with console.begin("reading images", 2_000, "images", done=500) as reading:
        reading.advance(700)
        clock.pass_by(console, 2)
        reading.advance(800)
    first, last = capsys.readouterr().err.splitlines()
    assert "1,200/2,000 images" in first
    assert "2,000/2,000 images" in last


def test_the_phase_that_lasts_is_announced_and_not_the_short_ones_inside(console, clock, capsys):
    with console.begin("scoring", None, ""):
        for _ in range(4):
            with console.begin("decoding", None, ""):
                clock.pass_by(console, 1)
    assert "decoding" not in capsys.readouterr().err


def test_a_phase_that_fails_has_no_last_line(console, clock, capsys):
    with pytest.raises(OSError), console.begin("saving", None, ""):
        clock.pass_by(console, 3)
        raise OSError
    assert capsys.readouterr().err.count("\n") == 1
    clock.pass_by(console, 9)
    assert capsys.readouterr().err == ""


def test_what_is_known_to_take_long_is_announced_at_once(console, capsys):
    with console.begin("compiling", None, "", at_once=True):
        assert capsys.readouterr().err == "compiling ...\n"


def test_programs_that_import_the_package_see_no_phases(clock, capsys):
    console = progress.Console(clock)
    with console.begin("loading", None, ""):
        clock.pass_by(console, 60)
    assert capsys.readouterr().err == ""


def test_of_several_processes_the_others_print_errors_alone_and_labelled(console, clock, capsys, monkeypatch):
    monkeypatch.setattr(progress, "console", console)
    monkeypatch.setattr(progress, "say", console.say)
    console.of_process(1)
    with console.begin("compiling", None, "", at_once=True):
        clock.pass_by(console, 9)
    errors.warn("images skipped")
    assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit):
        errors.fail("the disk is full")
    assert capsys.readouterr().err == "introvae_jax: error: process 1: the disk is full\n"


@pytest.mark.parametrize(
    ("environment", "number"),
    [({}, None), ({"JAX_PROCESS_ID": "3"}, 3), ({"SLURM_PROCID": "0"}, 0), ({"OMPI_COMM_WORLD_RANK": "x"}, None)],
)
def test_the_number_of_a_process_is_known_before_jax_is(environment, number):
    assert progress.process_number(environment) == number


def test_a_log_file_has_all_lines_with_their_time(console, tmp_path):
    console.say("before")
    for _ in range(2):  # as of a run that is resumed
        console.log_to(tmp_path / "log.txt")
        console.say("after")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line[20:] for line in lines] == ["before", "after", "after"]
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)


def test_a_log_file_on_a_full_disk_ends_and_nothing_else_does(console, capsys):
    console.log_to("/dev/full")
    console.say("one")
    console.say("two")
    said = capsys.readouterr().err
    assert "one\n" in said and "two\n" in said and said.count("the log file ends here") == 1


def test_a_terminal_has_bars_and_lines_above_them(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", screen := io.StringIO())
    console = progress.Console(clock)
    console.start(2.0, terminal=True)
    with console.begin("training", 10, "steps") as training:
        clock.pass_by(console, 3)
        training.advance(4)
        console.say("step 4/10")
        with console.begin("drawing", None, ""):
            clock.pass_by(console, 3)
    shown = screen.getvalue()
    assert "4/10" in shown and "\rstep 4/10\n" in shown
    assert "drawing: 3s\n" in shown and "training: 4/10 steps, 6s\n" in shown


def test_lines_of_several_threads_do_not_mix(console, clock, capsys):
    def work(name):
        for _ in range(50):
            with console.begin(name, None, "", at_once=True):
                console.look()

    threads = [threading.Thread(target=work, args=(f"thread {i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 400
    assert all(re.fullmatch(r"thread \d( \.\.\.|: 0s)", line) for line in lines)


def test_a_variable_that_is_no_number_is_named():
    with pytest.raises(ValueError, match="INTROVAE_JAX_ANNOUNCE_AFTER=soon: must be a number"):
        progress.start({progress.VARIABLE: "soon"})
