"""Broken and odd images for `introvae_jax.prepare`: how each is made, and what it is to get.

A case is made from its own image, so that two are equal only where that is the point. Everything is written
by hand or by the program that people use, as small as the flaw allows. broken_archives.py has the members of
archives and data bases, broken_sources.py whole sources.
"""

from collections.abc import Callable
import io
import os
import pathlib
import stat
import struct
from typing import Any, NamedTuple
import zlib

import miniatures
import numpy as np
from PIL import Image

from introvae_jax.data.images import FORMAT_WORDS

KEPT, CHANGED, LEFT_OUT, DUPLICATE, REFUSED, IN_PART = "kept", "changed", "left out", "duplicate", "refused", "in part"
NO_IMAGE = f"not a {FORMAT_WORDS} image"
BOMB = "more than 67 million pixels are refused"
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


def moving(form: str, mode: str = "RGB") -> Callable[[np.ndarray], bytes]:
    """Two frames."""
    return lambda pixels: encoder(form, mode, save_all=True, append_images=[Image.fromarray(pixels[::-1])])(pixels)


def encoded_as(form: str, values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, form)
    return file.getvalue()


def patched(encode: Callable, place: int, value: bytes) -> Callable[[np.ndarray], bytes]:
    """`encode`, the bytes from `place` on replaced."""
    return lambda pixels: (data := encode(pixels))[:place] + value + data[place + len(value) :]


def tiff_by_hand(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    """The first directory of a TIFF and nothing else. entries: (tag, type, count, value)."""
    directory = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + directory + struct.pack("<I", following)


def many_scans(pixels: np.ndarray) -> bytes:
    """A progressive JPEG, its last scan 10,000 times."""
    data = encoder("JPEG", progressive=True)(pixels)
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * 10_000 + data[-2:]


def rotated(orientation: int, form: str = "JPEG") -> Callable[[np.ndarray], bytes]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoder(form, exif=exif)


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


def deflated(pixels: np.ndarray) -> bytes:
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))


def with_chunk(kind: bytes, head: bytes) -> Callable[[np.ndarray], bytes]:
    """A PNG with a text chunk that unpacks to 64 MiB."""
    return lambda pixels: png_by_hand(64, 64, 8, 2, deflated(pixels), chunk(kind, head + zeros(2**26)))


def of_16_bits(colour: int) -> Callable[[np.ndarray], bytes]:
    cut = slice(None) if colour else 0
    return lambda pixels: png_by_hand(64, 64, 16, colour, deflated(pixels[..., cut].astype(">u2") * 256 + 77))


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


def holding(data: bytes) -> Callable[[pathlib.Path], None]:
    return file(lambda _: data)


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


SAME = "same pixels as same1.png; both are kept"
TURNED, FRAME, WHITE = "rotated as its EXIF data say", "first frame of an animation", "transparent colour to white"
NO_EXIF, WEBP_CUT = "unreadable EXIF data left out", "a webp image that is cut short or damaged"
BAD_EXIF, CUT_EXIF = b"Exif\0\0garbage garbage", b"Exif\0\0MM\0*\0\0\0\x08"

FILES = [
    Case("a whole png", "whole.png", KEPT, "", file(png)),
    Case("a whole jpeg", "whole.jpg", KEPT, "", file(jpeg)),
    Case("a whole webp", "whole.webp", KEPT, "", file(webp)),
    Case("png cut in the middle", "cut.png", LEFT_OUT, "...", file(cut(png))),
    Case("png cut in its header", "head.png", LEFT_OUT, "...", file(cut(png, 0.004))),
    Case("jpeg cut in the middle", "cut.jpg", LEFT_OUT, "...", file(cut(jpeg))),
    Case("jpeg cut in its header", "head.jpg", LEFT_OUT, "...", file(cut(jpeg, 0.05))),
    Case("webp cut in the middle", "cut.webp", LEFT_OUT, "...", file(cut(webp))),
    Case("no bytes at all", "empty.png", LEFT_OUT, "empty", holding(b"")),
    Case("text named .png", "text.png", LEFT_OUT, NO_IMAGE, holding(b"no image\n")),
    Case("zeros named .jpg", "zeros.jpg", LEFT_OUT, NO_IMAGE, holding(bytes(5000))),
    Case("png named .jpg", "png.jpg", KEPT, "", file(png)),
    Case("no extension", "extensionless", KEPT, "", file(jpeg)),
    Case("extension in capitals", "CAPITALS.JPG", KEPT, "", file(jpeg)),
    Case("CMYK jpeg", "cmyk.jpg", CHANGED, "CMYK to RGB", file(encoder("JPEG", "CMYK"))),
    Case("YCCK jpeg, as Adobe writes it", "ycck.jpg", CHANGED, "CMYK to RGB",
         file(changed_byte(encoder("JPEG", "CMYK"), b"Adobe", 11, flip=2))),
    Case("grey jpeg", "grey.jpg", CHANGED, "L to RGB", file(encoder("JPEG", "L"))),
    Case("progressive jpeg", "progressive.jpg", KEPT, "", file(encoder("JPEG", progressive=True))),
    Case("grey png, 16 bits", "grey16.png", CHANGED, "I;16 to RGB", file(of_16_bits(0))),
    Case("colour png, 16 bits", "rgb16.png", CHANGED, "16 bits to 8", file(of_16_bits(2))),
    Case("png, 1 bit", "bits.png", CHANGED, "1 to RGB", file(encoder("PNG", "1"))),
    Case("grey png", "grey.png", CHANGED, "L to RGB", file(encoder("PNG", "L"))),
    Case("grey png with alpha", "la.png", CHANGED, "LA to RGB", file(encoder("PNG", "LA"))),
    Case("png with alpha", "rgba.png", CHANGED, "RGBA to RGB", file(encoder("PNG", "RGBA"))),
    Case("palette png", "palette.png", CHANGED, "P to RGB", file(encoder("PNG", "P"))),
    Case("palette png with a transparent entry", "clear.png", CHANGED, "P to RGB",
         file(encoder("PNG", "P", transparency=0))),
    Case("png with a transparent colour", "key.png", CHANGED, WHITE, file(encoder("PNG", transparency=(1, 2, 3)))),
    Case("animated png", "moving.png", CHANGED, FRAME, file(moving("PNG"))),
    Case("animated webp", "moving.webp", CHANGED, FRAME, file(moving("WEBP"))),
    Case("two pictures in a jpeg (MPO)", "stereo.jpg", CHANGED, FRAME, file(moving("MPO"))),
    *(Case(form, f"other.{form}", LEFT_OUT, NO_IMAGE, file(encoder(form.upper())))
      for form in ("ico", "pdf")),
    Case("bmp", "other.bmp", KEPT, "", file(encoder("BMP"))),
    Case("bmp that claims 60,000 x 60,000", "bomb.bmp", LEFT_OUT, BOMB,
         file(patched(encoder("BMP"), 18, struct.pack("<II", 60_000, 60_000)))),
    Case("gif", "other.gif", CHANGED, "P to RGB", file(encoder("GIF", "P"))),
    Case("animated gif", "moving.gif", CHANGED, f"{FRAME}; P to RGB", file(moving("GIF", "P"))),
    Case("gif that claims 60,000 x 60,000", "bomb.gif", LEFT_OUT, BOMB,
         file(patched(encoder("GIF", "P"), 6, struct.pack("<HH", 60_000, 60_000)))),
    Case("gif cut in the middle", "cut.gif", LEFT_OUT, "...", file(cut(encoder("GIF", "P")))),
    Case("tiff", "other.tiff", KEPT, "", file(encoder("TIFF"))),
    *(Case(f"tiff, packed with {form}", f"{form}.tiff", KEPT, "", file(encoder("TIFF", compression=form)))
      for form in ("tiff_lzw", "tiff_adobe_deflate", "packbits")),
    Case("tiff, packed as jpeg", "jpeg.tiff", LEFT_OUT,
         "tiff of compression 7; those read are none, LZW, deflate, PackBits",
         file(encoder("TIFF", compression="jpeg"))),
    Case("tiff of two pages", "pages.tiff", CHANGED, "first page", file(moving("TIFF"))),
    Case("tiff, 16 bits of grey", "grey16.tiff", CHANGED, "I;16 to RGB",
         file(lambda pixels: encoded_as("TIFF", pixels[..., 0].astype(np.uint16) * 256))),
    Case("tiff of floating-point numbers", "float.tiff", LEFT_OUT,
         "floating-point values, whose range is not known",
         file(lambda pixels: encoded_as("TIFF", pixels[..., 0] / np.float32(255)))),
    Case("tiff, EXIF orientation 6", "turned6.tiff", CHANGED, TURNED, file(rotated(6, "TIFF"))),
    Case("tiff cut in the middle", "cut.tiff", LEFT_OUT, "...", file(cut(encoder("TIFF"), 0.9))),
    Case("tiff, a tag of 2**31 values", "tag.tiff", LEFT_OUT, "tiff with 2147483648 values in tag 999; more than ...",
         holding(tiff_by_hand((999, 4, 2**31, 8)))),
    Case("tiff, tiles of 65,520 x 65,520", "tile.tiff", LEFT_OUT, "tiff with tiles of 65520x65520 pixels",
         holding(tiff_by_hand((322, 4, 1, 65_520), (323, 4, 1, 65_520)))),
    Case("tiff that claims 60,000 x 60,000", "bomb.tiff", LEFT_OUT, BOMB,
         holding(tiff_by_hand((256, 4, 1, 60_000), (257, 4, 1, 60_000), (258, 3, 1, 8), (262, 3, 1, 1),
                              (273, 4, 1, 8), (278, 4, 1, 60_000), (279, 4, 1, 99)))),
    Case("tiff whose next page is itself", "loop.tiff", LEFT_OUT, "...", holding(tiff_by_hand(following=8))),
    Case("tiff of more than 4 GiB (BigTIFF)", "big.tiff", LEFT_OUT, "tiff of the 64-bit kind (BigTIFF)...",
         holding(b"II+\0\x08\0\0\0" + bytes(99))),
    Case("jpeg of 10,000 scans", "scans.jpg", LEFT_OUT, "... scans of 64x64 pixels, which take too long to decode",
         file(many_scans)),
    Case("svg", "other.svg", LEFT_OUT, NO_IMAGE, holding(b"<svg xmlns='http://www.w3.org/2000/svg'/>")),
    Case("heic", "other.heic", LEFT_OUT, NO_IMAGE, holding(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")),
    *(Case(f"jpeg, EXIF orientation {i}", f"turned{i}.jpg", CHANGED, TURNED, file(rotated(i))) for i in (3, 6, 8)),
    *(Case(f"jpeg, EXIF orientation {i}, which does not exist", f"turned{i}.jpg", KEPT, "", file(rotated(i)))
      for i in (0, 9, 99)),
    Case("jpeg, broken EXIF", "exif.jpg", KEPT, "", file(encoder("JPEG", exif=BAD_EXIF))),
    Case("jpeg, EXIF cut short", "exif_cut.jpg", KEPT, "", file(encoder("JPEG", exif=CUT_EXIF))),
    Case("png, broken EXIF", "exif.png", CHANGED, NO_EXIF, file(encoder("PNG", exif=BAD_EXIF))),
    Case("webp, broken EXIF", "exif.webp", CHANGED, NO_EXIF, file(encoder("WEBP", lossless=True, exif=BAD_EXIF))),
    Case("jpeg, broken ICC profile", "icc.jpg", KEPT, "", file(encoder("JPEG", icc_profile=b"garbage"))),
    Case("png, broken ICC profile", "icc.png", KEPT, "", file(encoder("PNG", icc_profile=b"garbage"))),
    Case("one pixel", "pixel.png", CHANGED, "enlarged from 1x1", file(cropped(1, 1))),
    Case("one pixel wide", "thin.png", CHANGED, "enlarged from 1x1", file(cropped(1, 64))),
    Case("smaller than wanted", "small.png", CHANGED, "enlarged from 20x20", file(cropped(30, 20))),
    Case("png bomb, 40,000 x 40,000", "bomb.png", LEFT_OUT, BOMB,
         file(lambda _: png_by_hand(40_000, 40_000, 1, 0, zeros(40_000 * 5_001)))),
    Case("png of 8,193 x 8,193, cut short", "large.png", LEFT_OUT,
         "8193x8193 pixels; more than 67 million are refused", holding(png_by_hand(8193, 8193, 8, 2, b""))),
    Case("jpeg that claims 65,500 x 65,500", "bomb.jpg", LEFT_OUT, BOMB, file(jpeg_of_size(65_500, 65_500))),
    Case("jpeg that claims 0 x 0", "nothing.jpg", LEFT_OUT, NO_IMAGE, file(jpeg_of_size(0, 0))),
    Case("webp that claims 60,000 x 60,000", "bomb.webp", LEFT_OUT, "...", file(webp_of_size(60_000))),
    Case("png that claims 0 x 0", "nothing.png", LEFT_OUT, NO_IMAGE, holding(png_by_hand(0, 0, 8, 2, b""))),
    Case("png, zTXt bomb of 64 MiB", "ztxt.png", LEFT_OUT, "...", file(with_chunk(b"zTXt", b"x\0\0"))),
    Case("png, iTXt bomb of 64 MiB", "itxt.png", LEFT_OUT, "...", file(with_chunk(b"iTXt", b"x\0\1\0\0\0"))),
    Case("png, ICC bomb of 64 MiB", "iccp.png", LEFT_OUT, "...", file(with_chunk(b"iCCP", b"x\0\0"))),
    Case("png, checksum of the header wrong", "ihdr.png", LEFT_OUT, NO_IMAGE, file(changed_byte(png, b"IHDR", 17))),
    Case("png, pixels damaged", "idat.png", LEFT_OUT, "...", file(changed_byte(png, b"IDAT", 20))),
    Case("png, checksum of the end wrong", "iend.png", KEPT, "", file(changed_byte(png, b"IEND", 4))),
    Case("png, end missing", "endless.png", KEPT, "", file(lambda pixels: png(pixels)[:-12])),
    Case("png, garbage behind the end", "behind.png", KEPT, "", file(lambda pixels: png(pixels) + bytes(999))),
    Case("jpeg, garbage behind the end", "behind.jpg", KEPT, "", file(lambda pixels: jpeg(pixels) + bytes(999))),
    Case("jpeg, garbage before the end", "before.jpg", CHANGED, "damaged (...)",
         file(lambda pixels: jpeg(pixels)[:-2] + bytes(99) + b"\xff\xd9")),
    Case("jpeg, last two bytes missing", "endless.jpg", LEFT_OUT, "...", file(lambda pixels: jpeg(pixels)[:-2])),
    Case("jpeg, a byte flipped, which the decoder notices", "flipped.jpg", CHANGED, "damaged (...)",
         file(changed_byte(jpeg, b"\xff\xda", 700))),
    Case("jpeg, a byte flipped, which nothing tells", "unnoticed.jpg", KEPT, "",
         file(changed_byte(jpeg, b"JFIF", 9))),
    Case("a file of more than 256 MiB", "huge.png", LEFT_OUT, "more than 256 MiB", sparse),
    Case("link to nothing", "nowhere.png", LEFT_OUT, "a broken link", link("gone.png")),
    Case("link to a file elsewhere", "elsewhere.png", KEPT, "", outside),
    Case("link to a file of the folder", "same4.png", DUPLICATE, SAME, link("same1.png")),
    Case("link to a link that links back", "ring_a.png", LEFT_OUT, "a broken link", link("ring_b.png")),
    Case("and that one", "ring_b.png", LEFT_OUT, "a broken link", link("ring_a.png")),
    Case("link to the folder itself", "loop", LEFT_OUT, "a link to a folder that was read already", link(".")),
    Case("FIFO", "fifo.png", LEFT_OUT, "no regular file", os.mkfifo),
    Case("socket", "socket.png", LEFT_OUT, "no regular file", lambda path: os.mknod(path, stat.S_IFSOCK | 0o600)),
    Case("hidden file", ".hidden.png", LEFT_OUT, "hidden", file(png)),
    Case("hidden folder", ".thumbs", LEFT_OUT, "hidden", lambda path: file(png)(path / "a.png")),
    Case("what macOS leaves beside", "__MACOSX/._whole.png", LEFT_OUT, "hidden", holding(b"\0\5\x16\7")),
    Case("name that is not UTF-8", "caf\udce9.png", KEPT, "", file(png)),
    Case("name with a line break", "two\nlines.png", KEPT, "", file(png)),
    Case("name with a tab and quotes", "a\t\"b'.png", KEPT, "", file(png)),
    Case("name of 255 bytes", "n" * 251 + ".png", KEPT, "", file(png)),
    Case("the first of equal images", "same1.png", KEPT, "", file(png)),
    Case("the same bytes again", "same2.png", DUPLICATE, SAME, of("same1.png")),
    Case("the same pixels as webp", "same3.webp", DUPLICATE, SAME, of("same1.png", webp)),
    Case("nested folders", "a/b/c/deep.png", KEPT, "", file(png)),
    Case("zip in the folder", "inner.zip", LEFT_OUT, NO_IMAGE, holding(b"PK\5\6" + bytes(18))),
]  # fmt: skip


def folder_of_cases(path: pathlib.Path) -> pathlib.Path:
    path.mkdir()
    for case in FILES:
        case.make(path / case.name)
    return path
