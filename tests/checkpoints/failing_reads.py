"""A process that starts a run again and again while the reads of one file after the other fail with EIO."""

import json
import os
import pathlib
import sys

from tiny_run import contents, resume

from introvae_jax.errors import UserError


def main():
    workdir, found = pathlib.Path(sys.argv[1]), {}
    before = contents(workdir)
    for name in before:
        if not name.startswith("checkpoints/4/"):
            continue
        os.environ["EIO_FILE"] = str(workdir / name)
        try:
            step = int(resume(workdir).step)
            found[name] = [step, "", ""]
        except UserError as error:
            found[name] = [None, error.status, str(error)]
        del os.environ["EIO_FILE"]
        assert contents(workdir) == before, name
        assert not (workdir / "damaged").exists(), name
    found["none"] = [int(resume(workdir).step), "", ""]
    print(json.dumps(found))


main()
