"""A trace of chosen steps of a run."""

import gzip
import json

import pytest
from tiny import DIGITS

from introvae_jax.errors import UserError
from introvae_jax.reporting import tracing


def steps_of(workdir):
    """The steps that are named in the one trace of a run."""
    (path,) = (workdir / tracing.FOLDER).rglob("perfetto_trace.json.gz")
    with gzip.open(path) as file:
        events = json.load(file)["traceEvents"]
    return {int(event["args"]["step_num"]) for event in events if "step_num" in event.get("args", {})}


@pytest.mark.parametrize("asked", ["5:3", "0", "0:4", "x", "3:", ":3", "1:2:3", "-1"])
def test_wrong_steps_are_named(asked):
    with pytest.raises(UserError, match=f"--profile={asked}: must be a step or FIRST:LAST"):
        tracing.Trace(asked)


def test_any_number_of_steps_may_be_taken_but_past_an_edge_of_the_trace():
    trace = tracing.Trace("5:7")
    assert [trace.room(step) for step in range(7)] == [4, 3, 2, 1, 3, 2, 1]
    assert trace.room(7) > 10**6
    assert tracing.Trace().room(0) > 10**6


def test_a_run_leaves_the_trace_of_the_steps_that_were_asked_for(run_command, tmp_path):
    tiny = (*DIGITS, "--config.objective.warmup_steps=0", f"--workdir={tmp_path}", "--profile=5:7")
    first = run_command("introvae_jax.main", *tiny, "--config.steps=9")
    assert first.returncode == 0, first.stderr
    assert f"step 7: saved the trace in {tmp_path / tracing.FOLDER}" in first.stderr
    assert steps_of(tmp_path) == {5, 6, 7}
    again = run_command("introvae_jax.main", *tiny, "--config.steps=10")
    assert again.returncode == 0, again.stderr
    assert "no trace is written: the run resumes at step 9, after its first step" in again.stderr
