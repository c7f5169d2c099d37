"""VAE, IntroVAE and Soft-IntroVAE on 2-D densities: metrics with their noise floor, and pictures of samples.

    python -m benchmarks.toy2d --out=runs/toy2d                     all in all, a table in Markdown
    python -m benchmarks.toy2d --job=published                      Soft-IntroVAE's sizes, wants an accelerator
    python -m benchmarks.toy2d --search --densities=rings           IntroVAE under a grid of betas and margins

All seeds of an objective train in one program, vmapped. Samples are drawn with the averaged weights. A JSON line
for each cell of the table comes before it.
"""

from collections.abc import Callable
import functools
import itertools
import json
import pathlib
import time

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from configs import toy2d
from introvae_jax import config as config_lib
from introvae_jax import errors, parallel, pictures, plots
from introvae_jax.data import source
from introvae_jax.data.densities import DENSITIES
from introvae_jax.experiment import Experiment
from introvae_jax.metrics import density2d
from introvae_jax.objectives.introvae import HINGES
from introvae_jax.training import state as state_lib
from introvae_jax.training import step as step_lib

_OUT = flags.DEFINE_string("out", "runs/toy2d", "Folder of pictures.")
_JOB = flags.DEFINE_enum("job", "small", sorted(toy2d.JOBS), "Sizes and steps.")
_DENSITIES = flags.DEFINE_list("densities", list(DENSITIES), "The densities.")
_OBJECTIVES = flags.DEFINE_list("objectives", list(toy2d.OBJECTIVES), "The objectives.")
_SEEDS = flags.DEFINE_integer("seeds", 5, "Runs of each.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", None, "Another number of steps.")
_SEARCH = flags.DEFINE_bool("search", False, "Tries IntroVAE's beta and margin instead.")
_BETAS = flags.DEFINE_list("betas", ["5", "15"], "search: weights of the reconstruction term.")
_MARGINS = flags.DEFINE_list("margins", ["1.5", "2.5", "3.5"], "search: margins in nats.")
_HINGE = flags.DEFINE_enum("hinge", "batch", HINGES, "search: hinge of the mean, or mean of hinges.")
_ALPHAS = flags.DEFINE_list("alphas", ["1"], "search: alpha, and alpha_d with it.")

TRUE_POINTS, POINTS = 4_000_000, 100_000
ROWS = 100  # the purpose that a step's choice of points is drawn with


def main(_) -> None:
    for names, known in ((_DENSITIES.value, DENSITIES), (_OBJECTIVES.value, toy2d.OBJECTIVES)):
        for name in names:
            if name not in known:
                raise errors.UserError(f"{name}: must be one of {', '.join(known)}")
    cells = {}
    for name in _DENSITIES.value:
        density = DENSITIES[name]
        truth = density.points(TRUE_POINTS, seed=2)
        score = functools.partial(density2d.scores, truth, reach=density.reach)
        if _SEARCH.value:
            search(name, score)
            continue
        cells["floor", name] = [score(density.points(POINTS, seed=3 + seed)) for seed in range(_SEEDS.value)]
        panels = {name: density.points(20_000, seed=3)}
        for objective in _OBJECTIVES.value:
            since = time.perf_counter()
            run = make_run(f"{name},{objective},{_JOB.value}")
            states = train(run, np.arange(_SEEDS.value))
            samples = draw(run, states, POINTS)
            cells[objective, name] = [score(points) for points in samples]
            panels[objective] = samples[0, :20_000]
            record = {"density": name, "objective": objective, "seconds": round(time.perf_counter() - since, 1)}
            print(json.dumps(record | _mean_and_range(cells[objective, name])), flush=True)
        pictures.save(plots.points(panels, density.reach), pathlib.Path(_OUT.value) / f"{name}.png")
    if cells:
        print(table(cells))


def make_run(argument: str) -> Experiment:
    """The experiment of `configs/toy2d.py:argument` on one device."""
    config = toy2d.get_config(argument)
    if _STEPS.value:
        config.steps = _STEPS.value
    config_lib.validate(config)
    device = parallel.replicas(tuple(jax.devices()[:1]))
    return Experiment(config, device)


def train(run: Experiment, seeds: np.ndarray, **settings: np.ndarray) -> state_lib.State:
    """The last states of a run for each of `seeds` [K], in one program; a leading axis of K.

    settings: values [K] of the objective, where they differ from the config's.
    """
    config, train_points = run.config, jnp.asarray(source.open_splits(run.config.data).train)
    shape = train_points.shape[1:]

    def steps(state: state_lib.State, count: int, name: str, **changes: jax.Array) -> state_lib.State:
        step = run.make_step(name, **changes)

        def body(state, _):
            key = step_lib.draw_key(state, ROWS)
            rows = jax.random.randint(key, (config.batch_size,), 0, len(train_points))
            return step(state, train_points[rows])[0], None

        return jax.lax.scan(body, state, length=count)[0]

    @jax.jit
    @jax.vmap
    def whole(seed, changes):
        warmup = min(config.objective.warmup_steps, config.steps)
        state = state_lib.create(jax.random.key(seed), *run.networks, run.optimizers, shape)
        state = steps(state, warmup, "vae", **{key: changes[key] for key in changes if key == "beta"})
        return steps(state, config.steps - warmup, config.objective.name, **changes)

    return jax.block_until_ready(whole(seeds, settings))


def draw(run: Experiment, states: state_lib.State, num: int) -> np.ndarray:
    """`num` samples of each state's averaged decoder, [states, num, 2]."""
    decoder = run.networks[1]
    z = jax.random.normal(jax.random.key(0), (num, decoder.z_dim))
    return np.asarray(jax.jit(jax.vmap(lambda params: decoder.apply({"params": params}, z)))(states.decoder.ema))


def search(name: str, score: Callable[[np.ndarray], density2d.Scores]) -> None:
    """IntroVAE under each beta, alpha and margin and every seed, all in one program; a line each."""
    options = (map(float, option.value) for option in (_BETAS, _ALPHAS, _MARGINS))
    beta, alpha, margin, seeds = (
        np.float32(v) for v in zip(*itertools.product(*options, range(_SEEDS.value)), strict=True)
    )
    run, since = make_run(f"{name},introvae,{_JOB.value}"), time.perf_counter()
    run.config.objective.hinge = _HINGE.value
    states = train(run, np.int32(seeds), beta=beta, alpha=alpha, alpha_d=alpha, margin=margin)
    found = [score(points) for points in draw(run, states, POINTS)]
    print(f"{name}: {len(found)} runs in {time.perf_counter() - since:.0f} s", flush=True)
    for i in range(0, len(found), _SEEDS.value):
        figures = _mean_and_range(found[i : i + _SEEDS.value])
        print(
            f"beta {beta[i]:g} alpha {alpha[i]:g} margin {margin[i]:g}: kl {figures['kl']}, jsd {figures['jsd']}",
            flush=True,
        )


def _mean_and_range(runs: list[density2d.Scores]) -> dict[str, list[float]]:
    columns = zip(*runs, strict=True)
    return {
        field: [round(float(v), 4) for v in (np.mean(values), min(values), max(values))]
        for field, values in zip(density2d.Scores._fields, columns, strict=True)
    }


def table(cells: dict[tuple[str, str], list[density2d.Scores]]) -> str:
    """A row for each density and metric, a column for each objective: mean (lowest to highest)."""
    columns = list(dict.fromkeys(who for who, _ in cells))
    lines = ["| | " + " | ".join(["metric", *columns]) + " |", "|---" * (len(columns) + 2) + "|"]
    for name in dict.fromkeys(density for _, density in cells):
        for field in density2d.Scores._fields:
            texts = []
            for who in columns:
                mean, low, high = _mean_and_range(cells[who, name])[field]
                texts.append(f"{mean:.3g} ({low:.3g} to {high:.3g})")
            lines.append(f"| {name} | {field} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    errors.run(main)
