"""From the mathematics of a step to the end of a run."""
