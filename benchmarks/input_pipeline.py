"""Images per second of the loader and of torch's DataLoader with Pillow, on the same files.

    pip install torch scikit-image
    python -m benchmarks.input_pipeline

Photographs (crops of scikit-image's) are written as files, which torch reads, and packed by
introvae_jax.prepare, which we read. Both decode, flip at random and end as float32 batches of 32 in memory:
torch in its workers, we in as many threads and, for the flip and the floats, on the device, which here is
the same processor. Both run in turn, round by round; the ratio is the median over the rounds. The last rows
are what a folder of 1024px files costs a run at 256px: torch shrinks every image every time it is read.
"""

from collections.abc import Iterator
import os
import pathlib
import statistics
import tempfile
import time

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from introvae_jax import errors, model
from introvae_jax.data import arrayrecord, images, loader, readers
from introvae_jax.data.preparation import spec, write

BATCH = 32
# (pixels of the files, pixels wanted, format, number of files)
CASES = (
    (64, 64, "jpeg", 2048), (64, 64, "png", 2048), (256, 256, "jpeg", 1024), (256, 256, "png", 512),
    (1024, 1024, "jpeg", 128), (1024, 1024, "png", 96), (1024, 256, "jpeg", 128),
)  # fmt: skip
# Dense bfloat16 peak in FLOP/s of what one host feeds, as its maker states it.
HOSTS = {"one H200": 989e12, "a TPU v4 host (4 chips)": 4 * 275e12}
SHARE_OF_PEAK = 0.35

_SECONDS = flags.DEFINE_float("seconds", 4.0, "Length of a round.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds of each side.")
_WORKERS = flags.DEFINE_list("workers", ["1", "2"], "Workers of torch, threads of ours.")
_CASES = flags.DEFINE_list("cases", None, "Numbers of the cases to run, all without it.")


def photographs(size: int, count: int) -> Iterator[Image.Image]:
    """Crops at random places, a third to the whole of a photograph's shorter side."""
    import skimage

    folder, key = pathlib.Path(skimage.__file__).parent / "data", np.random.default_rng(0)
    names = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png")
    sources = [Image.open(folder / name).convert("RGB") for name in names]
    for i in range(count):
        source = sources[i % len(sources)]
        side = int(min(source.size) * key.uniform(1 / 3, 1))
        left, top = (int(key.integers(0, extent - side + 1)) for extent in source.size)
        yield source.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)


class Files:
    """What a torch user writes: open, convert, resize, flip, float tensor."""

    def __init__(self, folder: pathlib.Path, size: int):
        self._paths, self._size = sorted(folder.iterdir()), size

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int):
        import torch

        image = Image.open(self._paths[index]).convert("RGB")
        if image.size != (self._size, self._size):
            image = image.resize((self._size, self._size), Image.Resampling.LANCZOS)
        if torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)


def torch_batches(folder: pathlib.Path, size: int, workers: int) -> Iterator:
    """Batches without end."""
    from torch.utils import data

    batches = data.DataLoader(
        Files(folder, size), BATCH, shuffle=True, drop_last=True, num_workers=workers,
        persistent_workers=True, multiprocessing_context="spawn", prefetch_factor=4,
    )  # fmt: skip
    while True:
        yield from batches


@jax.jit
def finish(batch: jax.Array, key: jax.Array) -> jax.Array:
    """What the step does first: floats, flipped at random."""
    x = batch.astype(jnp.float32) / 255.0
    flip = jax.random.bernoulli(key, shape=(batch.shape[0],))
    return jnp.where(flip[:, None, None, None], x[:, :, ::-1], x)


def our_batches(directory: pathlib.Path, size: int, threads: int) -> Iterator[jax.Array]:
    """Batches without end."""
    name = directory.parent.relative_to(directory.parents[2]).as_posix()
    train, _, _ = arrayrecord.open_splits(
        str(directory.parents[2]), name, images.Target(size, 3), test_fraction=0.1, cache_gib=0.0
    )
    key = jax.random.key(0)
    for step, batch in enumerate(loader.batches(train, batch_size=BATCH, seed=0, threads=threads)):
        yield jax.block_until_ready(finish(batch, jax.random.fold_in(key, step)))


def rate(batches: Iterator) -> float:
    """Images a second over one round."""
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < _SECONDS.value:
        next(batches)
        count += BATCH
    return count / elapsed


def measure(case: tuple[int, int, str, int], workers: int, root: pathlib.Path) -> dict:
    """One row of the table."""
    written, wanted, encoding, count = case
    folder = root / f"{written}_{encoding}"
    if not folder.exists():
        folder.mkdir()
        for i, photograph in enumerate(photographs(written, count)):
            options = {"quality": 95} if encoding == "jpeg" else {}
            photograph.save(folder / f"{i:05d}.{encoding}", encoding.upper(), **options)
    reader = readers.open_reader(folder, size=wanted)
    wish = spec.DatasetSpec(
        str(folder), reader.fingerprint, f"photos_{encoding}_{written}", images.Target(wanted, 3), encoding, 95, "10%"
    )
    directory = write.write_dataset(reader, wish, root / "packed", workers=os.cpu_count(), strict=False)
    theirs, ours = torch_batches(folder, wanted, workers), our_batches(directory, wanted, workers)
    for batches in (theirs, ours):
        for _ in range(8):  # workers start, programs compile
            next(batches)
    rounds = [(rate(theirs), rate(ours)) for _ in range(_ROUNDS.value)]
    ratios = [b / a for a, b in rounds]
    return {
        "files": f"{written}px {encoding}", "wanted": wanted, "workers": workers,
        "kib_per_image": statistics.mean(p.stat().st_size for p in folder.iterdir()) / 1024,
        "torch": statistics.median(a for a, _ in rounds), "ours": statistics.median(b for _, b in rounds),
        "ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios),
    }  # fmt: skip


def step_rates() -> dict[str, float]:
    """Images a second that a step at celebahq.py:256 could take, on paper: 20 passes at a share of the peak."""
    from configs import celebahq

    config = celebahq.get_config("256")
    encoder, decoder = model.build_networks(config, None)
    x, z = jnp.zeros((1, 256, 256, 3)), jnp.zeros((1, config.model.z_dim))
    flops = []
    for network, value in ((encoder, x), (decoder, z)):
        shapes = jax.eval_shape(network.init, jax.random.key(0), value)
        program = jax.jit(network.apply).lower({"params": shapes["params"]}, value)
        flops.append(program.cost_analysis()["flops"])
    per_image = 20 * sum(flops) / 2
    print(f"\ncelebahq.py:256: {per_image / 1e12:.2f} TFLOP an image and step (20 passes, alternating updates)")
    return {host: SHARE_OF_PEAK * peak / per_image for host, peak in HOSTS.items()}


def main(_) -> None:
    cases = [CASES[int(i)] for i in _CASES.value] if _CASES.value else CASES
    print("| files | wanted | KiB | workers | torch images/s | ours images/s | ratio (range) |")
    print("|---|---|---|---|---|---|---|")
    per_core = {}
    with tempfile.TemporaryDirectory() as root:
        for case in cases:
            for workers in map(int, _WORKERS.value):
                row = measure(case, workers, pathlib.Path(root))
                print(
                    f"| {row['files']} | {row['wanted']} | {row['kib_per_image']:.0f} | {workers} | {row['torch']:.0f} "
                    f"| {row['ours']:.0f} | {row['ratio']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f}) |",
                    flush=True,
                )
                if case[:2] == (256, 256):
                    per_core[row["files"]] = row["ours"] / workers
    for host, images_per_second in step_rates().items() if per_core else ():
        cores = ", ".join(f"{images_per_second / one:.1f} cores for {files}" for files, one in per_core.items())
        print(f"{host} at {SHARE_OF_PEAK:.0%} of its peak: {images_per_second:.0f} images/s, which take {cores}")


if __name__ == "__main__":
    errors.run(main)
