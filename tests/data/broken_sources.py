"""Whole sources that are broken or odd: functions of an empty folder that give the source; see broken.py."""

import contextlib
import os
import pathlib
import tarfile
import zipfile

import broken
from broken import IN_PART, KEPT, REFUSED, Case
from broken_archives import record, records
import miniatures
import numpy as np

SIX = miniatures.arrays(6)


def cut_short(make, name):
    """The first half of a source that is one file."""

    def write(place):
        path = make(place / name, SIX)
        os.truncate(path, path.stat().st_size // 2)
        return path

    return write


def of_bytes(name, data):
    def write(place):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
        return place / name.partition("/")[0]

    return write


def folder(*, name="images", images=SIX, more=None):
    """A folder of images; `more` makes what else is there."""

    def write(place):
        path = miniatures.folder(place / name, images)
        if more:
            more(path)
        return path

    return write


def texts(*names):
    return lambda path: [(path / name).write_text(name) for name in names]


def compressed(place):
    with tarfile.open(place / "images.tar.gz", "w:gz") as archive:
        archive.add(miniatures.folder(place / "images", SIX), "images")
    return place / "images.tar.gz"


def self_link(place):
    (place / "self").symlink_to("self")
    return place / "self"


def fifo(place):
    os.mkfifo(place / "fifo")
    return place / "fifo"


def too_deep(path):
    """A folder whose path can be opened, and a file in it whose path is too long for the system."""
    with contextlib.chdir(path):
        while len(os.fsencode(pathlib.Path.cwd())) < 3850:
            pathlib.Path("d" * 200).mkdir()
            os.chdir("d" * 200)
        pathlib.Path("n" * 251 + ".png").write_bytes(broken.png(broken.array("longest")))


def six_tar(damage):
    """damage: of the bytes and the six members."""

    def write(place):
        path = miniatures.celebahq_tar(place / "six.tar", SIX)
        with tarfile.open(path) as archive:
            members = archive.getmembers()
        path.write_bytes(damage(path.read_bytes(), members))
        return path

    return write


def header(name, size=0, kind=tarfile.REGTYPE, rest=b""):
    """A tar's header, `rest` behind its names, with a size that may be impossible."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    block[124:136] = size.to_bytes(12, "big", signed=True) if size < 0 else b"\x80" + size.to_bytes(11, "big")
    block[156:157], block[386 : 386 + len(rest)], block[148:156] = kind, rest, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def behind_six(more):
    return six_tar(lambda data, members: data[: -(-(members[-1].offset_data + members[-1].size) // 512) * 512] + more)


# As GNU tar --sparse writes a file of 4 KiB that begins with 512 bytes and is empty then.
PIECES = b"".join(b"%011o\0" % number for number in (0, 512, 4096, 0)).ljust(97, b"\0") + b"%011o\0" % 4096
SPARSE = header("pieces.png", 512, tarfile.GNUTYPE_SPARSE, PIECES) + b"x" * 512


def zip_with(name, find=b"", replace=b""):
    """A zip of six and one more; in its list of members, the first `find` is replaced."""

    def write(place):
        path = miniatures.zipped(place / "odd.zip", SIX)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(zipfile.ZipInfo(name), broken.png(broken.array("odd")))
        data = path.read_bytes()
        start = data.index(b"PK\1\2")
        path.write_bytes(data[:start] + data[start:].replace(find, replace, 1))
        return path

    return write


def six_records(keep=6.0, between=b""):
    """Six records in a file, of which `keep` are left; `between` the fourth and the fifth."""

    def write(place):
        path = records(place / "six-r06.tfrecords", [record(image) for image in SIX])
        data = path.read_bytes()
        one = len(data) // 6
        path.write_bytes(data[: 4 * one][: int(keep * one)] + between + data[4 * one : int(keep * one)])
        return path

    return write


def parts_of_records(place):
    for i in range(2):
        records(place / f"parts/faces.tfrecord-{i}-of-2", [record(image) for image in SIX[3 * i : 3 * i + 3]])
    return place / "parts"


def h5(**sets):
    """sets: by name the values, or the shape of images that are not written."""

    def write(place):
        import h5py

        with h5py.File(place / "sets.h5", "w") as file:
            for key, values in sets.items():
                if isinstance(values, tuple):
                    file.create_dataset(key, values, np.uint8, chunks=(1, 3, 64, 64))
                else:
                    file[key] = values
        return place / "sets.h5"

    return write


def damaged_h5(place):
    path = miniatures.progan_hdf5(place / "damaged.h5", SIX)
    path.write_bytes(path.read_bytes().replace(b"SNOD", b"XXXX"))
    return path


def changed(make, change):
    """A source that is a folder, after `change`."""

    def write(place):
        path = make(place / "db", SIX)
        change(path)
        return path

    return write


def half_lmdb(path):
    os.truncate(path / "data.mdb", (path / "data.mdb").stat().st_size // 2)


def wild_lmdb(path):
    """The place of the first key points beyond its page, and beyond the file."""
    data = bytearray((path / "data.mdb").read_bytes())
    data[2 * 4096 + 17] = 0xFF
    (path / "data.mdb").write_bytes(data)


FORMS = "not a zip, HDF5, tar, LMDB, TFRecord or folder of images"
PACKED = "a compressed archive has no random access; unpack it with"
DAMAGED = "left out: what follows data64x64/00003.png: the archive is damaged there (...)"

SOURCES = [
    Case("no source", "", REFUSED, "--source is empty: name a folder, an archive, tfds:NAME or avatars", lambda _: ""),
    Case("source that does not exist", "", REFUSED, "nowhere: no such file or folder", lambda place: place / "nowhere"),
    Case("source that is a link to itself", "", REFUSED, "self: no such file or folder", self_link),
    Case("source in the home of nobody", "", REFUSED, "~nobody_there/images: ...",
         lambda _: "~nobody_there/images"),
    Case("source with too long a name", "", REFUSED, "...: File name too long", lambda place: place / ("n" * 300)),
    Case("source that is a FIFO", "", REFUSED, "fifo: neither a file nor a folder", fifo),
    Case("source whose name is not UTF-8", "", KEPT, "6 images", folder(name="caf\udce9")),
    Case("empty folder", "", REFUSED, "images: contains no files", folder(images=())),
    Case("folder with one image", "", REFUSED,
         "images: holding out last:2 of 1 images leaves one split empty; give another --test",
         folder(images=SIX[:1])),
    Case("folder of texts", "", REFUSED, f"images: 3 left out (a.txt: {broken.NO_IMAGE}, b.txt: ..., c.txt: ...); no "
         "image is left to train on", folder(images=(), more=texts("a.txt", "b.txt", "c.txt"))),
    Case("every held-out image is broken", "", IN_PART,
         f"6 images; left out: y.png: {broken.NO_IMAGE}; left out: z.png: ...",
         folder(more=texts("y.png", "z.png"))),
    Case("file whose path is too long", "", IN_PART, "6 images; left out: ...: File name too long",
         folder(more=too_deep)),
    Case("folder with a name like TFRecords", "", KEPT, "6 images",
         folder(more=lambda path: (path / "old.tfrecords").mkdir())),
    Case("FIFO with a name like TFRecords", "", IN_PART, "6 images; left out: x.tfrecords: no regular file",
         folder(more=lambda path: os.mkfifo(path / "x.tfrecords"))),
    Case("a single image", "", REFUSED, f"a.png: {FORMS}", of_bytes("a.png", broken.png(SIX[0]))),
    Case("a file of no bytes", "", REFUSED, f"a.bin: {FORMS}", of_bytes("a.bin", b"")),
    Case("tar, packed with gzip", "", REFUSED, f"images.tar.gz: {PACKED} gunzip", compressed),
    Case("7z", "", REFUSED, f"a.7z: {PACKED} 7z x", of_bytes("a.7z", b"7z\xbc\xaf\x27\x1c" + bytes(99))),
    Case("rar", "", REFUSED, f"a.rar: {PACKED} unrar x", of_bytes("a.rar", b"Rar!\x1a\x07" + bytes(99))),
    Case("empty zip", "", REFUSED, "empty.zip: contains no files", of_bytes("empty.zip", b"PK\5\6" + bytes(18))),
    Case("zip cut in the middle", "", REFUSED, "cut.zip: not a whole zip archive (...)",
         cut_short(miniatures.zipped, "cut.zip")),
    Case("zip, garbage for a list of members", "", REFUSED, "bad.zip: not a whole zip archive (...)",
         of_bytes("bad.zip", b"PK\3\4" + bytes(50) + b"PK\5\6" + b"\xff" * 18)),
    Case("zip of a later version", "", REFUSED, "odd.zip: not a whole zip archive (...)",
         zip_with("a.png", b"PK\1\2\x14\3\x14", b"PK\1\2\x14\3\xff")),
    Case("zip, a member without a name", "", IN_PART, "6 images; left out: member 7: no name", zip_with("")),
    Case("empty tar", "", REFUSED, "empty.tar: contains no files", of_bytes("empty.tar", bytes(10240))),
    Case("garbage named .tar", "", REFUSED, "bad.tar: not a whole tar archive (...)",
         of_bytes("bad.tar", b"garbage" * 999)),
    Case("a .tar of no bytes", "", REFUSED, "a.tar: not a whole tar archive (...)", of_bytes("a.tar", b"")),
    Case("tar cut within a member", "", IN_PART,
         f"3 images; left out: data64x64/00003.png: cut short: the archive ends early; {DAMAGED}",
         cut_short(miniatures.celebahq_tar, "cut.tar")),
    Case("tar cut between two members", "", IN_PART, f"4 images; {DAMAGED}",
         six_tar(lambda data, members: data[: members[4].offset])),
    Case("tar cut within a header", "", IN_PART, f"4 images; {DAMAGED}",
         six_tar(lambda data, members: data[: members[4].offset + 100])),
    Case("tar, a header in the middle damaged", "", IN_PART, f"4 images; {DAMAGED}",
         six_tar(lambda data, members: data[: members[4].offset] + b"?" * 512 + data[members[4].offset + 512 :])),
    Case("two tars in one file", "", IN_PART, f"6 images; {DAMAGED.replace('00003', '00005')}",
         six_tar(lambda data, _: data + data)),
    Case("tar, a member of -1 bytes", "", IN_PART, "6 images; left out: ...",
         behind_six(header("negative.png", -1) + bytes(1024))),
    Case("TFRecords cut within a record", "", IN_PART,
         "3 images; left out: six-r06.tfrecords from record 3 on: damaged or cut short (...)", six_records(keep=3.5)),
    Case("TFRecords, garbage between records", "", IN_PART,
         "4 images; left out: six-r06.tfrecords from record 4 on: damaged or cut short (...)",
         six_records(between=b"garbage" * 9)),
    Case("TFRecords, nothing but garbage", "", REFUSED, "bad.tfrecords: no whole record in it",
         of_bytes("bad.tfrecords", b"garbage" * 99)),
    Case("TFRecords of no bytes", "", REFUSED, "a.tfrecords: no whole record in it", of_bytes("a.tfrecords", b"")),
    Case("TFRecords in several parts", "", KEPT, "6 images", parts_of_records),
    Case("a text beside TFRecords", "", IN_PART, "6 images; left out: a.txt: not a TFRecord file",
         changed(miniatures.progan_tfrecords, texts("a.txt"))),
    Case("HDF5 cut in the middle", "", REFUSED, "cut.h5: not a whole HDF5 file (...)",
         cut_short(miniatures.progan_hdf5, "cut.h5")),
    Case("HDF5, its list of sets damaged", "", REFUSED, "damaged.h5: not a whole HDF5 file (...)", damaged_h5),
    Case("HDF5 of nothing", "", REFUSED, "sets.h5: no uint8 images [N, C, H, W] in it, only nothing", h5()),
    Case("HDF5 of labels", "", REFUSED, "sets.h5: no uint8 images [N, C, H, W] in it, only labels",
         h5(labels=np.zeros((6, 10)))),
    Case("HDF5 of float images", "", REFUSED, "sets.h5: no uint8 images [N, C, H, W] in it, only images",
         h5(images=np.zeros((6, 3, 64, 64), np.float32))),
    Case("HDF5 of no images", "", REFUSED, "sets.h5: contains no files", h5(images=np.zeros((0, 3, 64, 64), np.uint8))),
    Case("HDF5 of images without pixels", "", REFUSED, "sets.h5: 6 left out (...); no image is left to train on",
         h5(images=np.zeros((6, 3, 0, 0), np.uint8))),
    Case("HDF5 of images of 8,193 x 8,193", "", REFUSED,
         "sets.h5: images of 3x8193x8193 values exceed the supported size", h5(images=(6, 3, 8193, 8193))),
    Case("LMDB, garbage for data", "", REFUSED, "db: not a whole LMDB database (...)",
         of_bytes("db/data.mdb", b"garbage" * 9999)),
    Case("LMDB of no bytes", "", REFUSED, "db: not a whole LMDB database (...)", of_bytes("db/data.mdb", b"")),
    Case("LMDB cut in its first page", "", REFUSED, "db: not a whole LMDB database (...)",
         of_bytes("db/data.mdb", bytes(100))),
    Case("LMDB cut in the middle", "", REFUSED, "db: cut short, ... of ... bytes are there",
         changed(miniatures.lsun_lmdb, half_lmdb)),
    Case("a text beside an LMDB", "", IN_PART, "6 images; left out: a.txt: no part of the database",
         changed(miniatures.lsun_lmdb, texts("a.txt"))),
    Case("tar, a member of -512 bytes, which leads back to itself", "", IN_PART,
         "6 images; left out: ...the archive is damaged there (...)",  # newer Pythons refuse the header itself
         behind_six(header("negative.png", -512) + bytes(1024))),
    Case("tar, a sparse member", "", IN_PART, "6 images; left out: pieces.png: a sparse file",
         behind_six(SPARSE + bytes(1024))),
    Case("tar, a header of 2**70 bytes", "", REFUSED, "a.tar: not a whole tar archive (...)",
         of_bytes("a.tar", header("a", 2**70, tarfile.XHDTYPE) + bytes(1024))),
    Case("tar of nothing but headers of headers", "", REFUSED, "a.tar: not a whole tar archive (...)",
         of_bytes("a.tar", 3000 * header("a", 0, tarfile.XHDTYPE))),
    Case("HDF5 with a named type beside the images", "", KEPT, "6 images",
         h5(images=SIX.transpose(0, 3, 1, 2), byte=np.dtype(np.uint8))),
    Case("LMDB, a place in a page damaged", "", REFUSED, "db: not a whole LMDB database (its pages are damaged)",
         changed(miniatures.lsun_lmdb, wild_lmdb)),
]  # fmt: skip

# Not yet as they should be: words that are to be said with --strict. Whoever mends one moves it to SOURCES.
