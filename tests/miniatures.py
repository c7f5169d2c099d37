"""The same few images in every form that people keep them in, each in its true format."""

import io
import json
import pathlib
import struct
import tarfile
import zipfile

import numpy as np
from PIL import Image


def arrays(count=12, size=64, seed=0):
    """Smooth colour images, uint8 [count, size, size, 3]."""
    key = np.random.default_rng(seed)
    corners = key.integers(0, 256, (count, 5, 5, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize((size, size), Image.Resampling.BICUBIC)) for c in corners])


def encoded(array, form="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, form, **options)
    return file.getvalue()


def folder(path, images, form="PNG", name="{:05d}.png"):
    path.mkdir(parents=True)
    for i, image in enumerate(images):
        (path / name.format(i)).write_bytes(encoded(image, form))
    return path


def celebahq_tar(path, images):
    """As TFDS's celeb_a_hq builder expects them: data256x256.tar."""
    with tarfile.open(path, "w") as archive:
        for i, image in enumerate(images):
            data = encoded(image)
            member = tarfile.TarInfo(f"data{image.shape[0]}x{image.shape[0]}/{i:05d}.png")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def zipped(path, images, form="PNG", name="img_align_celeba/{:06d}.png"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{pathlib.PurePosixPath(name).parent}/", b"")
        for i, image in enumerate(images):
            archive.writestr(name.format(i + 1), encoded(image, form, **({"quality": 95} if form == "JPEG" else {})))
    return path


def progan_tfrecords(directory, images):
    """As ProGAN's dataset_tool.py writes them: one file for each size, checksummed records of CHW bytes."""
    from tensorflow_datasets.proto import tf_example_pb2

    directory.mkdir(parents=True)
    size = images.shape[1]
    while size >= 4:
        level = images.shape[1] // size
        with (directory / f"celebahq-r{size.bit_length() - 1:02d}.tfrecords").open("wb") as file:
            for image in images[:, ::level, ::level]:
                example = tf_example_pb2.Example()
                example.features.feature["shape"].int64_list.value.extend((3, size, size))
                example.features.feature["data"].bytes_list.value.append(image.transpose(2, 0, 1).tobytes())
                record = example.SerializeToString()
                length = struct.pack("<Q", len(record))
                file.write(length + _masked_crc(length) + record + _masked_crc(record))
        size //= 2
    return directory


def progan_hdf5(path, images):
    """As ProGAN's h5tool.py writes it: data4x4, data8x8, ..., uint8 [N, C, H, W], a chunk for each image."""
    import h5py

    with h5py.File(path, "w") as file:
        size = images.shape[1]
        while size >= 4:
            level = images.shape[1] // size
            values = images[:, ::level, ::level].transpose(0, 3, 1, 2)
            file.create_dataset(
                f"data{size}x{size}", data=values, chunks=(1, 3, size, size), compression="gzip", compression_opts=4
            )
            size //= 2
        file.create_dataset("labels", data=np.zeros((len(images), 0), np.float32))
    return path


def lsun_lmdb(path, images):
    """As LSUN is given out: webp by a hash as key."""
    import lmdb

    path.mkdir(parents=True)
    with lmdb.open(str(path), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for i, image in enumerate(images):
            transaction.put(f"{i:040x}".encode(), encoded(image, "WEBP", lossless=True))
    return path


def tfds_set(data_dir, name, splits, shape=(32, 32, 3), version="3.0.2"):
    """A data set as TFDS leaves it in ArrayRecord form after preparing it, labels included."""
    from array_record.python.array_record_module import ArrayRecordWriter
    import tensorflow_datasets as tfds

    directory = pathlib.Path(data_dir) / name / version
    directory.mkdir(parents=True)
    features = tfds.features.FeaturesDict({
        "id": tfds.features.Text(), "image": tfds.features.Image(shape=shape),
        "label": tfds.features.ClassLabel(num_classes=10),
    })  # fmt: skip
    infos = []
    for split, images in splits.items():
        path = directory / f"{name.split('/')[0]}-{split}.array_record-00000-of-00001"
        writer, size = ArrayRecordWriter(str(path), "group_size:1"), 0
        for i, image in enumerate(images):
            example = {"id": f"{split}_{i}", "image": io.BytesIO(encoded(image)), "label": i % 10}
            record = features.serialize_example(features.encode_example(example))
            writer.write(record)
            size += len(record)
        writer.close()
        infos.append(tfds.core.SplitInfo(name=split, shard_lengths=[len(images)], num_bytes=size))
    tfds.folder_dataset.write_metadata(
        data_dir=directory, features=features, split_infos=infos, version=version, check_data=False
    )
    return directory


def manifest(directory):
    return json.loads((directory / "manifest.json").read_text())


def _masked_crc(data):
    """TFRecord's checksum: CRC-32C, rotated and shifted. Slow and written for these few bytes only."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
