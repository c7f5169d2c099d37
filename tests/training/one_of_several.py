"""One process of several that train together, and a record of the images that it reads.

python one_of_several.py PORT COUNT INDEX WORKDIR KEY=VALUE ...
"""

import ast
import hashlib
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent.parent))

from configs import digits
from introvae_jax import processes
from introvae_jax.data import loader
from introvae_jax.training import train_loop


def record_what_is_read(path):
    """Writes a line for each batch of this process: the digests of its images, in order."""
    batches = loader.batches

    def recording(*args, start, **options):
        with path.open("a") as file:
            for step, batch in enumerate(batches(*args, start=start, **options), start=start + 1):
                print(
                    step, *(hashlib.sha256(image.tobytes()).hexdigest()[:12] for image in batch), file=file, flush=True
                )
                yield batch

    loader.batches = recording


def main():
    port, count, index, workdir, *values = sys.argv[1:]
    processes.start(f"localhost:{port}", int(count), int(index), peer_timeout=10)
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    config = digits.get_config()
    config.update_from_flattened_dict(
        {k: ast.literal_eval(v) for k, _, v in (value.partition("=") for value in values)}
    )
    record_what_is_read(workdir / f"seen_{count}_{index}_until_{config.steps}.txt")
    train_loop.train(config, workdir)


if __name__ == "__main__":
    main()
