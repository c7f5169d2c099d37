"""Properties of JPEGs that Pillow does not report: the number of scans, and libjpeg's warnings."""

import simplejpeg


def flaw(image: bytes) -> str:
    """libjpeg's warning about a JPEG, which Pillow ignores; "" if there is none."""
    try:
        if simplejpeg.decode_jpeg_header(image)[2] in ("YCbCr", "Gray"):
            simplejpeg.decode_jpeg(image, strict=True)
    except ValueError as error:
        return f"damaged ({error})"
    return ""


def scans(image: bytes) -> int:
    """The number of scans of a JPEG, up to its end marker."""
    if image.count(b"\xff\xda") <= 16:
        return image.count(b"\xff\xda")  # the usual case, without parsing; thumbnails in metadata count too
    found, place = 0, 2
    while (place := image.find(b"\xff", place)) >= 0 and place + 4 <= len(image):
        marker = image[place + 1]
        if marker == 0xD9:
            break
        if marker == 0xFF:
            place += 1
        elif marker <= 0x01 or 0xD0 <= marker <= 0xD8:  # without a length
            place += 2
        else:
            found += marker == 0xDA
            place += 2 + int.from_bytes(image[place + 2 : place + 4], "big")
    return found
