"""Broken and odd members of zips and tars, records and values of data bases; see broken.py."""

from collections.abc import Callable
import io
import os
import pathlib
import struct
import tarfile
import warnings
import zipfile

from broken import BIG, FILES, KEPT, LEFT_OUT, NO_IMAGE, Case, array, cut, folder_of_cases, png, webp
import miniatures
import numpy as np

LINK, OUTSIDE = "a link or a device", "its name leads out of the archive"
UNSAFE = ("../../climb.png", "deeper/../../../climb.png", "/absolute.png", "C:\\drive.png", "C:/drive.png",
          "..\\up.png")  # fmt: skip

# Members of a zip: functions of the open archive and the name. What zipfile refuses to write is patched in later.


def stored(encode: Callable[[np.ndarray], bytes] = png, packing: int = zipfile.ZIP_STORED, **attributes) -> Callable:
    def write(archive: zipfile.ZipFile, name: str) -> None:
        info = zipfile.ZipInfo(name)
        for key, value in attributes.items():
            setattr(info, key, value)
        archive.writestr(info, encode(array(name)), packing)

    return write


def big(archive: zipfile.ZipFile, name: str) -> None:
    """A member that unpacks to more than is allowed, and says so."""
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    with archive.open(info, "w", force_zip64=True) as member:
        for _ in range(0, BIG, 2**20):
            member.write(bytes(2**20))


def again(archive: zipfile.ZipFile, name: str) -> None:
    """Another image by the name before the last #."""
    archive.writestr(name.rpartition("#")[0], png(array(name)))


PACKING = "packed in a way that is neither stored nor deflated"

MEMBERS = [
    Case("a whole member", "whole.png", KEPT, "", stored()),
    Case("deflated", "deflated.png", KEPT, "", stored(png, zipfile.ZIP_DEFLATED)),
    Case("packed with bzip2", "bzip2.png", LEFT_OUT, PACKING, stored(png, zipfile.ZIP_BZIP2)),
    Case("packed with LZMA", "lzma.png", LEFT_OUT, PACKING, stored(png, zipfile.ZIP_LZMA)),
    Case("packing nobody knows", "packing.png", LEFT_OUT, PACKING, stored()),
    *(Case(f"name `{name}`", name, LEFT_OUT, OUTSIDE, stored()) for name in UNSAFE),
    Case("name with a backslash", "folder\\file.png", KEPT, "", stored()),
    Case("name with a line break", "two\nlines.png", KEPT, "", stored()),
    Case("name of 60,000 bytes", "n" * 59_996 + ".png", KEPT, "", stored()),
    Case("name of 5,000 digits", "9" * 5000 + ".png", KEPT, "", stored()),
    Case("symbolic link", "link.png", LEFT_OUT, "a link",
         stored(lambda _: b"/etc/passwd", external_attr=0o120777 << 16)),
    Case("the first of a name", "thrice.png", KEPT, "", stored()),
    Case("the second of a name", "thrice.png#2", KEPT, "", again),
    Case("the third of a name", "thrice.png#3", KEPT, "", again),
    Case("the name that the second would get", "thrice.png#2#2", KEPT, "", again),
    Case("encrypted", "locked.png", LEFT_OUT, "...encrypted...", stored()),
    Case("wrong checksum", "checksum.png", LEFT_OUT, "Bad CRC-32...", stored()),
    Case("damaged deflate stream", "stream.png", LEFT_OUT, "...", stored(png, zipfile.ZIP_DEFLATED)),
    Case("unpacks to 257 MiB and says so", "big.png", LEFT_OUT, "unpacks to more than 256 MiB", big),
    Case("unpacks to 64 MiB and claims 100 bytes", "liar.png", LEFT_OUT, "Bad CRC-32...",
         stored(lambda _: bytes(2**26), zipfile.ZIP_DEFLATED)),
    Case("two entries for the same bytes", "overlap.png", LEFT_OUT, "...", stored()),
    Case("no bytes at all", "empty.png", LEFT_OUT, "empty", stored(lambda _: b"")),
    Case("text", "readme.txt", LEFT_OUT, NO_IMAGE, stored(lambda _: b"no image")),
    Case("zip inside", "inner.zip", LEFT_OUT, NO_IMAGE, stored(lambda _: b"PK\5\6" + bytes(18))),
    Case("hidden", ".hidden.png", LEFT_OUT, "hidden file", stored()),
    Case("what macOS leaves beside", "__MACOSX/._whole.png", LEFT_OUT, "hidden file", stored()),
]  # fmt: skip

# By member: (where, offset, format, value). "local" and "central" are its two headers, "data" its bytes.
PATCHES = {
    "locked.png": [("local", 6, "<H", 1), ("central", 8, "<H", 1)],
    "packing.png": [("local", 8, "<H", 77), ("central", 10, "<H", 77)],
    "checksum.png": [("data", 100, "<I", 0xDEADBEEF)],
    "stream.png": [("data", 0, "<I", 0xFFFFFFFF)],
    "liar.png": [("central", 24, "<I", 100)],
    "overlap.png": [("central", 42, "<I", 0)],
}


def zip_of_cases(path: pathlib.Path) -> pathlib.Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore", UserWarning)  # of a name that is there twice
        for case in MEMBERS:
            case.make(archive, case.name)
        directory = archive.start_dir
        local = {info.filename: info.header_offset for info in archive.infolist()}
    data = bytearray(path.read_bytes())
    for name, patches in PATCHES.items():
        central = data.index(name.encode(), directory) - 46
        starts = {"local": local[name], "central": central, "data": local[name] + 30 + len(name)}
        for where, offset, form, value in patches:
            struct.pack_into(form, data, starts[where] + offset, value)
    path.write_bytes(data)
    return path


# Members of a tar: functions of the open archive and the name.


def member(encode: Callable[[np.ndarray], bytes] = png, **attributes) -> Callable:
    def write(archive: tarfile.TarFile, name: str) -> None:
        info = tarfile.TarInfo(name.partition("#")[0])
        for key, value in attributes.items():
            setattr(info, key, value)
        data = b"" if "type" in attributes else encode(array(name))
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))

    return write


def large(archive: tarfile.TarFile, name: str) -> None:
    """A member of 257 MiB that takes no room on the disk."""
    info = tarfile.TarInfo(name)
    info.size = BIG
    header = info.tobuf(archive.format)  # by hand: from Python 3.13 on, addfile wants a file for every size above 0
    archive.fileobj.write(header)
    archive.fileobj.seek(BIG, os.SEEK_CUR)
    archive.offset += len(header) + BIG


TARRED = [
    Case("a whole member", "whole.png", KEPT, "", member()),
    *(Case(f"name `{name}`", name, LEFT_OUT, OUTSIDE, member()) for name in UNSAFE),
    Case("name that is not UTF-8", "caf\udce9.png", KEPT, "", member()),
    Case("name of 3,000 bytes", "folder/" * 428 + "n.png", KEPT, "", member()),
    Case("symbolic link", "link.png", LEFT_OUT, LINK, member(type=tarfile.SYMTYPE, linkname="/etc/passwd")),
    Case("hard link", "hard.png", LEFT_OUT, LINK, member(type=tarfile.LNKTYPE, linkname="whole.png")),
    Case("device", "device.png", LEFT_OUT, LINK, member(type=tarfile.CHRTYPE, devmajor=1, devminor=5)),
    Case("FIFO", "fifo.png", LEFT_OUT, LINK, member(type=tarfile.FIFOTYPE)),
    Case("the first of a name", "twice.png", KEPT, "", member()),
    Case("the second of a name", "twice.png#2", KEPT, "", member()),
    Case("no bytes at all", "empty.png", LEFT_OUT, "empty", member(lambda _: b"")),
    Case("text", "readme.txt", LEFT_OUT, NO_IMAGE, member(lambda _: b"no image")),
    Case("257 MiB of zeros", "big.png", LEFT_OUT, "more than 256 MiB", large),
    Case("hidden", ".hidden.png", LEFT_OUT, "hidden file", member()),
    Case("below ./", "./below.png", KEPT, "", member()),
]


def tar_of_cases(path: pathlib.Path) -> pathlib.Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for case in TARRED:
            case.make(archive, case.name)
    return path


# Records and values: functions of the array that give the bytes of one.


def record(pixels: np.ndarray, shape: tuple = (3, 64, 64), *, data: bool = True) -> bytes:
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    example.features.feature["shape"].int64_list.value.extend(shape)
    if data:
        example.features.feature["data"].bytes_list.value.append(pixels.transpose(2, 0, 1).tobytes())
    return example.SerializeToString()


NO_RECORD = "no record of `shape` and `data`..."
FOUR = "an array uint8 [32, 32, 12], not uint8 [height, width, 1 or 3]"

RECORDS = [
    Case(what, f"cases.tfrecords/{i:06d}", LEFT_OUT if words else KEPT, words, make)
    for i, (what, words, make) in enumerate((
        ("a whole record", "", record),
        ("no `data`", NO_RECORD, lambda pixels: record(pixels, data=False)),
        ("no `shape`", NO_RECORD, lambda pixels: record(pixels, ())),
        ("`data` that do not fill the shape", NO_RECORD, lambda pixels: record(pixels[:9])),
        ("no protocol buffer", NO_RECORD, lambda _: b"\xff" * 99),
        ("record of no bytes", NO_RECORD, lambda _: b""),
        ("twelve channels", FOUR, lambda pixels: record(pixels, (12, 32, 32))),
        ("the record behind it", "", record),
    ))
]  # fmt: skip


def records(path: pathlib.Path, data: list[bytes]) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for item in data:
            length = struct.pack("<Q", len(item))
            file.write(length + miniatures._masked_crc(length) + item + miniatures._masked_crc(item))
    return path


def records_of_cases(path: pathlib.Path) -> pathlib.Path:
    return records(path.with_name("cases-r06.tfrecords"), [case.make(array(case.name)) for case in RECORDS])


VALUES = [
    Case("a whole value", "a", KEPT, "", png),
    Case("no bytes at all", "b", LEFT_OUT, "empty", lambda _: b""),
    Case("a value that is no image", "c", LEFT_OUT, NO_IMAGE, lambda _: b"12"),
    Case("an image cut short", "d", LEFT_OUT, "...", cut(png)),
    Case("the value behind it", "e", KEPT, "", webp),
]


def lmdb_of_cases(path: pathlib.Path) -> pathlib.Path:
    import lmdb

    with lmdb.open(str(path), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for case in VALUES:
            transaction.put(case.name.encode(), case.make(array(case.name)))
    return path


# Sources that hold many cases: how the table calls them, the cases, how the source is made.
GROUPS = {
    "folder": (FILES, folder_of_cases),
    "zip": (MEMBERS, zip_of_cases),
    "tar": (TARRED, tar_of_cases),
    "TFRecords": (RECORDS, records_of_cases),
    "LMDB": (VALUES, lmdb_of_cases),
}
