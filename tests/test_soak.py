"""The five-minute form of benchmarks/soak.py: real processes, killed, stopped, and their files damaged."""

import re


def test_a_job_that_is_broken_again_and_again_ends_as_an_unbroken_one(run_command, tmp_path):
    done = run_command("benchmarks.soak", "--minutes=1.5", "--faults=10", f"--out={tmp_path}", timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    faults, restarts = map(int, re.search(r"^(\d+) faults, (\d+) restarts", done.stdout, re.MULTILINE).groups())
    assert faults >= 10
    assert restarts >= faults - 2  # a job goes on by itself after a short stop
    assert re.search(r"^(\d+) arrays of step [\d,]+ are equal, bit for bit$", done.stdout, re.MULTILINE)
