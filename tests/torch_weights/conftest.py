"""The files that PyTorch wrote (make_fixtures.py), and files of the same forms with pickles made by hand."""

import pathlib
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest

LEGACY_HEAD = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}})


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """The folder of the unpacked fixtures."""
    folder = tmp_path_factory.mktemp("released")
    with tarfile.open(pathlib.Path(__file__).with_name("fixtures.tar.xz")) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(params=["zip", "legacy"])
def write(request, tmp_path):
    """A function (pickle, storages) -> file of torch.save, in both containers."""

    def write(pickled, **storages):
        path = tmp_path / f"{request.param}.pth"
        if request.param == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("archive/data.pkl", pickled)
                for key, values in storages.items():
                    archive.writestr(f"archive/data/{key}", np.asarray(values, np.float32).tobytes())
        else:
            parts = [*(pickle.dumps(part, 2) for part in LEGACY_HEAD), pickled, pickle.dumps(list(storages), 2)]
            for values in storages.values():
                parts += [struct.pack("<q", len(values)), np.asarray(values, np.float32).tobytes()]
            path.write_bytes(b"".join(parts))
        return path

    return write
