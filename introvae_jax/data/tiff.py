"""Checks limits of a TIFF in its first directory before Pillow reads it: a few bytes can request gigabytes."""

import struct

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
BITS_PER_SAMPLE, ORIENTATION = 258, 274
MAX_VALUES = 2**18  # of a tag: 8192 x 8192 pixels in tiles of 16 x 16
COMPRESSIONS = {1: "none", 5: "LZW", 8: "deflate", 32773: "PackBits", 32946: "deflate"}
_COMPRESSION, _TILE_WIDTH, _TILE_HEIGHT = 259, 322, 323
_BYTES = (1, 2, 6, 7)  # types of single bytes, which Pillow keeps as they are: colour profiles, metadata


def require_bounded(image: bytes, max_pixels: int) -> None:
    """Raises ValueError for unsupported compression, for long tags, and for tiles above `max_pixels`."""
    order = "<" if image[:2] == b"II" else ">"
    if image[:4] in MAGIC[2:]:
        raise ValueError("of the 64-bit kind (BigTIFF), which is not read")
    try:
        (place,) = struct.unpack_from(order + "I", image, 4)
        (count,) = struct.unpack_from(order + "H", image, place)
        entries = [struct.unpack_from(order + "HHI4s", image, place + 2 + 12 * i) for i in range(count)]
    except struct.error as error:
        raise ValueError("without a whole directory") from error
    values = {}
    for tag, kind, number, value in entries:
        if number > MAX_VALUES and kind not in _BYTES:
            raise ValueError(f"with {number} values in tag {tag}; more than {MAX_VALUES} are refused")
        if kind in (3, 4):
            values[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), value)[0]
    if values.get(_COMPRESSION, 1) not in COMPRESSIONS:
        known = ", ".join(dict.fromkeys(COMPRESSIONS.values()))
        raise ValueError(f"of compression {values[_COMPRESSION]}; those read are {known}")
    if values.get(_TILE_WIDTH, 0) * values.get(_TILE_HEIGHT, 0) > max_pixels:
        raise ValueError(f"with tiles of {values[_TILE_WIDTH]}x{values[_TILE_HEIGHT]} pixels")
