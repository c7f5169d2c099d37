"""Broken and odd input for `introvae_jax.prepare`: how each kind is made, and what it is to get.

A case is made from its own image, so that two are equal only where that is the point. Everything is written
by hand or by the program that people use, as small as the flaw allows.
"""

from collections.abc import Callable
import contextlib
import io
import os
import pathlib
import stat
import struct
import tarfile
from typing import Any, NamedTuple
import zipfile
import zlib

import miniatures
import numpy as np
from PIL import Image

KEPT, CHANGED, LEFT_OUT, DUPLICATE, REFUSED, IN_PART = "kept", "changed", "left out", "duplicate", "refused", "in part"
NO_IMAGE = "not a png, jpeg or webp image"
BOMB, TEXT_BOMB = "more than 64 million pixels", "Decompressed data too large..."
LINK, OUTSIDE = "a link or a device", "its name leads out of the archive"
BIG = 257 * 2**20


class Case(NamedTuple):
    """One kind of input.

    what: in words, for the table. name: of the entry, "" for a whole source. gets: one of the six above.
    words: those of the report or of the refusal; "..." stands for a library's own words. make: writes it.
    """

    what: str
    name: str
    gets: str
    words: str
    make: Callable[..., Any]


def array(name: str, size: int = 64) -> np.ndarray:
    """The image of a case."""
    return miniatures.arrays(1, size, seed=zlib.crc32(os.fsencode(name)))[0]


# Encoded images: functions of an array that give bytes.


def encoder(form: str, mode: str = "RGB", **options) -> Callable[[np.ndarray], bytes]:
    def encode(pixels: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(file, form, **options)
        return file.getvalue()

    return encode


png, jpeg, webp = encoder("PNG"), encoder("JPEG", quality=95), encoder("WEBP", lossless=True)


def cut(encode: Callable, keep: float = 0.5) -> Callable[[np.ndarray], bytes]:
    return lambda pixels: (whole := encode(pixels))[: int(keep * len(whole))]


def cropped(width: int, height: int) -> Callable[[np.ndarray], bytes]:
    return lambda pixels: png(pixels[:height, :width])


def moving(form: str) -> Callable[[np.ndarray], bytes]:
    """Two frames."""
    return lambda pixels: encoder(form, save_all=True, append_images=[Image.fromarray(pixels[::-1])])(pixels)


def rotated(orientation: int) -> Callable[[np.ndarray], bytes]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoder("JPEG", exif=exif)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_by_hand(width: int, height: int, depth: int, colour: int, packed: bytes, extra: bytes = b"") -> bytes:
    """packed: the compressed rows, each behind its filter's byte. colour: 0 grey, 2 RGB."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    """`count` zeros, deflated piece by piece."""
    packer = zlib.compressobj(1)
    return b"".join(packer.compress(bytes(min(2**24, count - i))) for i in range(0, count, 2**24)) + packer.flush()


def bomb(_) -> bytes:
    """A whole PNG, 40,000 x 40,000 of one bit: 1.6 billion pixels from less than a MiB."""
    return png_by_hand(40_000, 40_000, 1, 0, zeros(40_000 * 5_001))


def with_chunk(kind: bytes, head: bytes, size: int) -> Callable[[np.ndarray], bytes]:
    """A PNG with a text chunk that unpacks to `size` bytes."""
    rows = lambda pixels: zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))  # noqa: E731
    return lambda pixels: png_by_hand(64, 64, 8, 2, rows(pixels), chunk(kind, head + zeros(size)))


def grey16(pixels: np.ndarray) -> bytes:
    values = pixels[..., 0].astype(">u2") * 257
    return png_by_hand(64, 64, 16, 0, zlib.compress(b"".join(b"\0" + row.tobytes() for row in values)))


def changed_byte(encode: Callable, find: bytes, offset: int, flip: int = 0xFF) -> Callable[[np.ndarray], bytes]:
    """`encode`, one byte flipped `offset` bytes behind the first `find`."""

    def change(pixels: np.ndarray) -> bytes:
        data = bytearray(encode(pixels))
        data[data.index(find) + offset] ^= flip
        return bytes(data)

    return change


def jpeg_of_size(width: int, height: int) -> Callable[[np.ndarray], bytes]:
    """A JPEG whose header claims another size."""

    def claim(pixels: np.ndarray) -> bytes:
        data = bytearray(jpeg(pixels))
        place = data.index(b"\xff\xc0") + 5
        data[place : place + 4] = struct.pack(">HH", height, width)
        return bytes(data)

    return claim


def webp_of_size(side: int) -> Callable[[np.ndarray], bytes]:
    """A WebP whose canvas is larger than its only frame."""

    def claim(pixels: np.ndarray) -> bytes:
        canvas = b"\0" * 4 + 2 * struct.pack("<I", side - 1)[:3]
        body = b"WEBPVP8X" + struct.pack("<I", len(canvas)) + canvas + webp(pixels)[12:]
        return b"RIFF" + struct.pack("<I", len(body)) + body

    return claim


# Entries of a folder: functions of a path that write there.


def file(encode: Callable[[np.ndarray], bytes]) -> Callable[[pathlib.Path], None]:
    def write(path: pathlib.Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(array(path.name)))

    return write


def link(target: str) -> Callable[[pathlib.Path], None]:
    return lambda path: path.symlink_to(target)


def sparse(path: pathlib.Path) -> None:
    path.touch()
    os.truncate(path, BIG)


def outside(path: pathlib.Path) -> None:
    """A link to a file beside the folder."""
    place = path.parent.parent / "outside.png"
    place.write_bytes(png(array("outside.png")))
    path.symlink_to(place)


def of(name: str, encode: Callable = png) -> Callable[[pathlib.Path], None]:
    """The image of another case."""
    return lambda path: path.write_bytes(encode(array(name)))


SAME = "same pixels as {}; both are kept"
TURNED, FRAME, WHITE = "rotated as its EXIF data say", "first frame of an animation", "transparent colour to white"

FILES = [
    Case("a whole png", "whole.png", KEPT, "", file(png)),
    Case("a whole jpeg", "whole.jpg", KEPT, "", file(jpeg)),
    Case("a whole webp", "whole.webp", KEPT, "", file(webp)),
    Case("png cut in the middle", "cut.png", LEFT_OUT, "image file is truncated...", file(cut(png))),
    Case("png cut in its header", "head.png", LEFT_OUT, NO_IMAGE, file(cut(png, 0.004))),
    Case("jpeg cut in the middle", "cut.jpg", LEFT_OUT, "image file is truncated...", file(cut(jpeg))),
    Case("jpeg cut in its header", "head.jpg", LEFT_OUT, "...", file(cut(jpeg, 0.05))),
    Case("webp cut in the middle", "cut.webp", LEFT_OUT, "...", file(cut(webp))),
    Case("no bytes at all", "empty.png", LEFT_OUT, "empty", file(lambda _: b"")),
    Case("text named .png", "text.png", LEFT_OUT, NO_IMAGE, file(lambda _: b"no image\n")),
    Case("zeros named .jpg", "zeros.jpg", LEFT_OUT, NO_IMAGE, file(lambda _: bytes(5000))),
    Case("png named .jpg", "png.jpg", KEPT, "", file(png)),
    Case("no extension", "extensionless", KEPT, "", file(jpeg)),
    Case("extension in capitals", "CAPITALS.JPG", KEPT, "", file(jpeg)),
    Case("CMYK jpeg", "cmyk.jpg", CHANGED, "CMYK to RGB", file(encoder("JPEG", "CMYK"))),
    Case(
        "YCCK jpeg, as Adobe writes it",
        "ycck.jpg",
        CHANGED,
        "CMYK to RGB",
        file(changed_byte(encoder("JPEG", "CMYK"), b"Adobe", 11, flip=2)),
    ),
    Case("grey jpeg", "grey.jpg", CHANGED, "L to RGB", file(encoder("JPEG", "L"))),
    Case("progressive jpeg", "progressive.jpg", KEPT, "", file(encoder("JPEG", progressive=True))),
    Case("grey png, 16 bits", "grey16.png", CHANGED, "I;16 to RGB", file(grey16)),
    Case("png, 1 bit", "bits.png", CHANGED, "1 to RGB", file(encoder("PNG", "1"))),
    Case("grey png", "grey.png", CHANGED, "L to RGB", file(encoder("PNG", "L"))),
    Case("grey png with alpha", "la.png", CHANGED, "LA to RGB", file(encoder("PNG", "LA"))),
    Case("png with alpha", "rgba.png", CHANGED, "RGBA to RGB", file(encoder("PNG", "RGBA"))),
    Case("palette png", "palette.png", CHANGED, "P to RGB", file(encoder("PNG", "P"))),
    Case(
        "palette png with a transparent entry",
        "clear.png",
        CHANGED,
        "P to RGB",
        file(encoder("PNG", "P", transparency=0)),
    ),
    Case("png with a transparent colour", "key.png", CHANGED, WHITE, file(encoder("PNG", transparency=(1, 2, 3)))),
    Case("animated png", "moving.png", CHANGED, FRAME, file(moving("PNG"))),
    Case("animated webp", "moving.webp", CHANGED, FRAME, file(moving("WEBP"))),
    Case("two pictures in a jpeg (MPO)", "stereo.jpg", CHANGED, FRAME, file(moving("MPO"))),
    Case("gif", "other.gif", LEFT_OUT, NO_IMAGE, file(encoder("GIF"))),
    Case("bmp", "other.bmp", LEFT_OUT, NO_IMAGE, file(encoder("BMP"))),
    Case("tiff", "other.tiff", LEFT_OUT, NO_IMAGE, file(encoder("TIFF"))),
    Case("ico", "other.ico", LEFT_OUT, NO_IMAGE, file(encoder("ICO"))),
    Case("pdf", "other.pdf", LEFT_OUT, NO_IMAGE, file(encoder("PDF"))),
    Case("svg", "other.svg", LEFT_OUT, NO_IMAGE, file(lambda _: b"<svg xmlns='http://www.w3.org/2000/svg'/>")),
    Case("heic", "other.heic", LEFT_OUT, NO_IMAGE, file(lambda _: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")),
    Case("jpeg, EXIF orientation 3", "turned3.jpg", CHANGED, TURNED, file(rotated(3))),
    Case("jpeg, EXIF orientation 6", "turned6.jpg", CHANGED, TURNED, file(rotated(6))),
    Case("jpeg, EXIF orientation 8", "turned8.jpg", CHANGED, TURNED, file(rotated(8))),
    Case("jpeg, broken EXIF", "exif.jpg", KEPT, "", file(encoder("JPEG", exif=b"Exif\0\0garbage garbage"))),
    Case("jpeg, EXIF cut short", "exif_cut.jpg", KEPT, "", file(encoder("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08"))),
    Case("jpeg, broken ICC profile", "icc.jpg", KEPT, "", file(encoder("JPEG", icc_profile=b"garbage"))),
    Case("png, broken ICC profile", "icc.png", KEPT, "", file(encoder("PNG", icc_profile=b"garbage"))),
    Case("one pixel", "pixel.png", CHANGED, "enlarged from 1x1", file(cropped(1, 1))),
    Case("one pixel wide", "thin.png", CHANGED, "enlarged from 1x1", file(cropped(1, 64))),
    Case("smaller than wanted", "small.png", CHANGED, "enlarged from 20x20", file(cropped(30, 20))),
    Case("png bomb, 40,000 x 40,000", "bomb.png", LEFT_OUT, BOMB, file(bomb)),
    Case(
        "png of 8,193 x 8,193, cut short",
        "large.png",
        LEFT_OUT,
        "8193x8193 pixels; more than 64 million are refused",
        file(lambda _: png_by_hand(8193, 8193, 8, 2, b"")),
    ),
    Case("jpeg that claims 65,500 x 65,500", "bomb.jpg", LEFT_OUT, BOMB, file(jpeg_of_size(65_500, 65_500))),
    Case("jpeg that claims 0 x 0", "nothing.jpg", LEFT_OUT, NO_IMAGE, file(jpeg_of_size(0, 0))),
    Case("webp that claims 60,000 x 60,000", "bomb.webp", LEFT_OUT, BOMB, file(webp_of_size(60_000))),
    Case("png that claims 0 x 0", "nothing.png", LEFT_OUT, NO_IMAGE, file(lambda _: png_by_hand(0, 0, 8, 2, b""))),
    Case("png, zTXt bomb of 64 MiB", "ztxt.png", LEFT_OUT, TEXT_BOMB, file(with_chunk(b"zTXt", b"x\0\0", 2**26))),
    Case("png, iTXt bomb of 64 MiB", "itxt.png", LEFT_OUT, TEXT_BOMB, file(with_chunk(b"iTXt", b"x\0\1\0\0\0", 2**26))),
    Case("png, ICC bomb of 64 MiB", "iccp.png", LEFT_OUT, TEXT_BOMB, file(with_chunk(b"iCCP", b"x\0\0", 2**26))),
    Case("png, checksum of the header wrong", "ihdr.png", LEFT_OUT, NO_IMAGE, file(changed_byte(png, b"IHDR", 17))),
    Case("png, pixels damaged", "idat.png", LEFT_OUT, "broken data stream...", file(changed_byte(png, b"IDAT", 20))),
    Case("png, checksum of the end wrong", "iend.png", KEPT, "", file(changed_byte(png, b"IEND", 4))),
    Case("png, end missing", "endless.png", KEPT, "", file(lambda pixels: png(pixels)[:-12])),
    Case("png, garbage behind the end", "behind.png", KEPT, "", file(lambda pixels: png(pixels) + bytes(999))),
    Case("jpeg, garbage behind the end", "behind.jpg", KEPT, "", file(lambda pixels: jpeg(pixels) + bytes(999))),
    Case("jpeg, last two bytes missing", "endless.jpg", LEFT_OUT, "...", file(lambda pixels: jpeg(pixels)[:-2])),
    Case(
        "jpeg, a byte flipped in the middle: no checksum tells",
        "flipped.jpg",
        KEPT,
        "",
        file(changed_byte(jpeg, b"\xff\xda", 500)),
    ),
    Case("a file of more than 256 MiB", "huge.png", LEFT_OUT, "more than 256 MiB", sparse),
    Case("link to nothing", "nowhere.png", LEFT_OUT, "a broken link", link("gone.png")),
    Case("link to a file elsewhere", "elsewhere.png", KEPT, "", outside),
    Case("link to a file of the folder", "xlink.png", DUPLICATE, SAME.format("whole.png"), link("whole.png")),
    Case("link to a link that links back", "ring_a.png", LEFT_OUT, "a broken link", link("ring_b.png")),
    Case("and that one", "ring_b.png", LEFT_OUT, "a broken link", link("ring_a.png")),
    Case("link to the folder itself", "loop", LEFT_OUT, "a link to a folder that was read already", link(".")),
    Case("FIFO", "fifo.png", LEFT_OUT, "no regular file", os.mkfifo),
    Case("socket", "socket.png", LEFT_OUT, "no regular file", lambda path: os.mknod(path, stat.S_IFSOCK | 0o600)),
    Case("hidden file", ".hidden.png", LEFT_OUT, "hidden", file(png)),
    Case("hidden folder", ".thumbs", LEFT_OUT, "hidden", lambda path: file(png)(path / "a.png")),
    Case("what macOS leaves beside", "__MACOSX/._whole.png", LEFT_OUT, "hidden", file(lambda _: b"\0\5\x16\7")),
    Case("name that is not UTF-8", "caf\udce9.png", KEPT, "", file(png)),
    Case("name with a line break", "two\nlines.png", KEPT, "", file(png)),
    Case("name with a tab and quotes", "a\t\"b'.png", KEPT, "", file(png)),
    Case("name of 255 bytes", "n" * 251 + ".png", KEPT, "", file(png)),
    Case("the same bytes again", "whole2.png", DUPLICATE, SAME.format("whole.png"), of("whole.png")),
    Case("the same pixels as webp", "whole3.webp", DUPLICATE, SAME.format("whole.png"), of("whole.png", webp)),
    Case("nested folders", "a/b/c/deep.png", KEPT, "", file(png)),
    Case("zip in the folder", "inner.zip", LEFT_OUT, NO_IMAGE, lambda path: miniatures.zipped(path, [array("inner")])),
]


# Members of a zip: functions of the open archive and the name. What zipfile refuses to write is patched in later.


def stored(encode: Callable[[np.ndarray], bytes], packing: int = zipfile.ZIP_STORED, **attributes) -> Callable:
    def write(archive: zipfile.ZipFile, name: str) -> None:
        info = zipfile.ZipInfo(name)
        for key, value in attributes.items():
            setattr(info, key, value)
        archive.writestr(info, encode(array(name)), packing)

    return write


def big(archive: zipfile.ZipFile, name: str) -> None:
    """A member that unpacks to more than is allowed, and says so."""
    info = zipfile.ZipInfo(name)
    info.compress_type, info.compress_level = zipfile.ZIP_DEFLATED, 1
    with archive.open(info, "w", force_zip64=True) as member:
        for _ in range(0, BIG, 2**20):
            member.write(bytes(2**20))


def again(archive: zipfile.ZipFile, name: str) -> None:
    """The name of another member, behind it, with another image."""
    with contextlib.suppress(UserWarning):
        archive.writestr(name.partition("#")[0], png(array(name)))


UNSAFE = ("../../climb.png", "deeper/../../../climb.png", "/absolute.png", "C:\\drive.png", "C:/drive.png", "..\\up.png")

MEMBERS = [
    Case("a whole member", "whole.png", KEPT, "", stored(png)),
    Case("deflated", "deflated.png", KEPT, "", stored(png, zipfile.ZIP_DEFLATED)),
    Case("packed with bzip2", "bzip2.png", KEPT, "", stored(png, zipfile.ZIP_BZIP2)),
    Case("packed with LZMA", "lzma.png", KEPT, "", stored(png, zipfile.ZIP_LZMA)),
    Case("packing nobody knows", "packing.png", LEFT_OUT, "That compression method is not supported", stored(png)),
    *(Case(f"name `{name}`", name, LEFT_OUT, OUTSIDE, stored(png)) for name in UNSAFE),
    Case("name with a backslash", "folder\\file.png", KEPT, "", stored(png)),
    Case("name with a line break", "two\nlines.png", KEPT, "", stored(png)),
    Case("name of 60,000 bytes", "n" * 59_996 + ".png", KEPT, "", stored(png)),
    Case("symbolic link", "link.png", LEFT_OUT, NO_IMAGE, stored(lambda _: b"/etc/passwd", external_attr=0o120777 << 16)),
    Case("the first of a name", "twice.png", KEPT, "", stored(png)),
    Case("the second of a name", "twice.png#2", KEPT, "", again),
    Case("encrypted", "locked.png", LEFT_OUT, "...encrypted, password required...", stored(png)),
    Case("wrong checksum", "checksum.png", LEFT_OUT, "Bad CRC-32...", stored(png)),
    Case("damaged deflate stream", "stream.png", LEFT_OUT, "...", stored(png, zipfile.ZIP_DEFLATED)),
    Case("unpacks to 257 MiB and says so", "big.png", LEFT_OUT, "unpacks to more than 256 MiB", big),
    Case(
        "unpacks to 64 MiB and claims 100 bytes",
        "liar.png",
        LEFT_OUT,
        "Bad CRC-32...",
        stored(lambda _: bytes(2**26), zipfile.ZIP_DEFLATED),
    ),
    Case("two entries for the same bytes", "overlap.png", LEFT_OUT, "File name in directory...", stored(png)),
    Case("no bytes at all", "empty.png", LEFT_OUT, "empty", stored(lambda _: b"")),
    Case("text", "readme.txt", LEFT_OUT, NO_IMAGE, stored(lambda _: b"no image")),
    Case("zip inside", "inner.zip", LEFT_OUT, NO_IMAGE, stored(lambda _: b"PK\5\6" + bytes(18))),
    Case("hidden", ".hidden.png", LEFT_OUT, "hidden file", stored(png)),
    Case("what macOS leaves beside", "__MACOSX/._whole.png", LEFT_OUT, "hidden file", stored(png)),
]


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
    import warnings

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


def member(encode: Callable[[np.ndarray], bytes] | None = png, **attributes) -> Callable:
    def write(archive: tarfile.TarFile, name: str) -> None:
        info = tarfile.TarInfo(name.partition("#")[0])
        for key, value in attributes.items():
            setattr(info, key, value)
        data = encode(array(name)) if encode else b""
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))

    return write


TARRED = [
    Case("a whole member", "whole.png", KEPT, "", member()),
    *(Case(f"name `{name}`", name, LEFT_OUT, OUTSIDE, member()) for name in UNSAFE),
    Case("name that is not UTF-8", "caf\udce9.png", KEPT, "", member()),
    Case("name of 3,000 bytes", "folder/" * 428 + "n.png", KEPT, "", member()),
    Case("symbolic link", "link.png", LEFT_OUT, LINK, member(None, type=tarfile.SYMTYPE, linkname="/etc/passwd")),
    Case("hard link", "hard.png", LEFT_OUT, LINK, member(None, type=tarfile.LNKTYPE, linkname="whole.png")),
    Case("device", "device.png", LEFT_OUT, LINK, member(None, type=tarfile.CHRTYPE, devmajor=1, devminor=5)),
    Case("FIFO", "fifo.png", LEFT_OUT, LINK, member(None, type=tarfile.FIFOTYPE)),
    Case("the first of a name", "twice.png", KEPT, "", member()),
    Case("the second of a name", "twice.png#2", KEPT, "", member()),
    Case("no bytes at all", "empty.png", LEFT_OUT, "empty", member(lambda _: b"")),
    Case("text", "readme.txt", LEFT_OUT, NO_IMAGE, member(lambda _: b"no image")),
    Case("257 MiB of zeros", "big.png", LEFT_OUT, "more than 256 MiB", lambda archive, name: hole(archive, name)),
    Case("hidden", ".hidden.png", LEFT_OUT, "hidden file", member()),
    Case("below ./", "./below.png", KEPT, "", member()),
]


def hole(archive: tarfile.TarFile, name: str) -> None:
    """A member of 257 MiB that takes no room on the disk."""
    info = tarfile.TarInfo(name)
    info.size = BIG
    archive.addfile(info)
    archive.fileobj.seek(BIG, os.SEEK_CUR)
    archive.offset += BIG


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

RECORDS = [
    Case("a whole record", "cases-r06/000000", KEPT, "", record),
    Case("no `data`", "cases-r06/000001", LEFT_OUT, NO_RECORD, lambda pixels: record(pixels, data=False)),
    Case("no `shape`", "cases-r06/000002", LEFT_OUT, NO_RECORD, lambda pixels: record(pixels, ())),
    Case("`data` that do not fill the shape", "cases-r06/000003", LEFT_OUT, NO_RECORD,
         lambda pixels: record(pixels[:9])),
    Case("no protocol buffer", "cases-r06/000004", LEFT_OUT, NO_RECORD, lambda _: b"\xff" * 99),
    Case("record of no bytes", "cases-r06/000005", LEFT_OUT, NO_RECORD, lambda _: b""),
    Case("four channels", "cases-r06/000006", LEFT_OUT, "an array uint8 [32, 32, 12], not uint8 [height, width, 1 or 3]",
         lambda pixels: record(pixels, (12, 32, 32))),
    *(Case("a whole record", f"cases-r06/{i:06d}", KEPT, "", record) for i in (7, 8)),
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
    Case("an image cut short", "d", LEFT_OUT, "image file is truncated...", cut(png)),
    *(Case("a whole value", key, KEPT, "", webp) for key in "ef"),
]


def lmdb_of_cases(path: pathlib.Path) -> pathlib.Path:
    import lmdb

    with lmdb.open(str(path), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for case in VALUES:
            transaction.put(case.name.encode(), case.make(array(case.name)))
    return path


def folder_of_cases(path: pathlib.Path) -> pathlib.Path:
    path.mkdir()
    for case in FILES:
        case.make(path / case.name)
    return path


# Sources that hold many cases: how the table calls them, the cases, how the source is made.
GROUPS = {
    "folder": (FILES, folder_of_cases),
    "zip": (MEMBERS, zip_of_cases),
    "tar": (TARRED, tar_of_cases),
    "TFRecords": (RECORDS, records_of_cases),
    "LMDB": (VALUES, lmdb_of_cases),
}
