"""Read what a picture will cost from the first bytes of its file. Nothing is decoded and nothing large is allocated.

Pillow's own `open` is lazy with pixels but not with metadata: it walks every chunk before them, in Python, and creates
the WebP and AVIF decoders. The readers here look at sizes only. Each costs microseconds for an ordinary file and is
bounded for any other; what would keep a decoder busy out of proportion to its pixels is refused.

All times were measured with Pillow 13 on one core of a small server, for files within the default limits.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from serving.contract.errors import CostlyImage, EmptyImage, ImageTooLarge, NotAnImage, TooManyPixels, TruncatedImage
from serving.contract.image_limits import ImageLimits

# Time for a pixel of the worst file found that is let through, in ns of processor time: JPEG 11 (and 0.5 for each
# scan), PNG 18 (34 with 16 bits and alpha), GIF 8, TIFF 8, WebP 17; noise at the best quality: HEIC 80, AVIF 115,
# JPEG 2000 370.

# Progressive JPEGs: libjpeg writes 10 scans (6 in gray), Photoshop 3 to 5; the most of 330 photos tried was 14.
# Each scan, even one without data, passes over every coefficient: 26 ms for 50 megapixels of gray.
MAX_SCANS = 32
MAX_SEGMENTS = 4_096  # before a JPEG's pixels: 20 MB of XMP or ICC in whole segments are 310
MAX_JUNK = 65_536  # bytes between those segments, which Pillow skips one at a time: 0.3 us for each
# PNG: encoders write pixels in chunks of 8 KB or more; Pillow takes 0.7 us for one before them, 2 us for one after.
MAX_CHUNKS = 4_096
SMALLEST_CHUNK = 1_024  # bytes of file that allow one more chunk
MAX_PROFILES = 8  # in a PNG, which may hold one: 1 KB unpacks to 1 MB in 2 ms
MAX_BLOCKS = 262_144  # sub-blocks of GIF comments before the first frame: Pillow takes 0.15 us and 90 bytes for one
MAX_FRAMES = 4_096  # of an animated WebP, which libwebp lists when it opens the file
MAX_TAGS = 1_024  # of a TIFF; microscopes and maps write fewer than 100
MAX_VALUES = 1_024  # of one tag; a rational number takes Pillow 2 us
MAX_STRIPS = 65_536  # strips or tiles of a TIFF: Pillow takes 5 us for one
MAX_JPEG_2000_PACKETS = 1_000_000  # tiles x layers x levels x components; OpenJPEG takes 0.1 us for an empty one
MAX_JPEG_2000_TILES = 16_384  # 25 us each
# Pillow decodes these in Python, holding the interpreter: 0.3 us for a byte of file or 0.08 us for a pixel.
MAX_RLE_BMP = 2_000_000  # pixels, and bytes, of a run-length BMP
MAX_ODD_PPM_BYTES = 1_000_000  # of a PPM whose brightest value is neither 255 nor 65,535
MAX_PLAIN_PPM_BYTES = 65_536  # of a PPM written as text: its comments take time that grows with the square of the bytes
PPM_HEADER_BYTES = 1_024
START_BYTES = PPM_HEADER_BYTES  # of a file, which tell whether it is a picture
META_BYTES = 1_048_576  # of a HEIC or AVIF file, in which its sizes stand

SEGMENT = re.compile(rb"\xff([^\x00\xff])")  # a JPEG's next marker
IN_DATA = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # the marker that ends the data of a scan
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, without DHT, JPG, DAC
ALONE = frozenset([0x01, *range(0xD0, 0xD9)])  # markers without a length
SOS, EOI = 0xDA, 0xD9
NOTABLE = FRAMES | ALONE | {SOS, EOI}  # all others are skipped by their length

PPM_HEADER = re.compile(
    rb"(P[0-6f]|P0CMYK|PyP|PyRGBA|PyCMYK)(?:\s|#[^\r\n]*[\r\n])+(\d{1,10})(?:\s|#[^\r\n]*[\r\n])+(\d{1,10})"
    rb"(?:(?:\s|#[^\r\n]*[\r\n])+([^\s#]{1,10}))?"
)
TIFF_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
RATIONAL = (5, 10)  # types
UNPACKED = (
    254,
    256,
    257,
    258,
    259,
    262,
    266,
    274,
    277,
    278,
    284,
    296,
    322,
    323,
    338,
    339,
    530,
)  # tags that Pillow reads
TIFF_TABLES = (273, 279, 324, 325)  # offsets and lengths of strips and of tiles


@dataclass(frozen=True, slots=True)
class Header:
    """Size and cost of a picture, from its header. Unverified: `decode_image` refuses a file that turns out larger.

    format: Pillow's name. width, height: as stored, in pixels, before EXIF turns them.
    pixels: what is decoded, at least width x height; more where a TIFF's tiles reach over its edge.
    bits: of one pixel as stored, 0 where the header does not say. scans: passes over a JPEG; 1 for all others.
    """

    format: str
    width: int
    height: int
    pixels: int
    bits: int = 0
    scans: int = 1

    @property
    def decoding_bytes(self) -> int:
        """An upper bound of the memory that `decode_image` takes beside the file's own bytes, its result included."""
        return BASE_BYTES + self.pixels * COSTS.get(self.format, COST_OF_MOST).peak_bytes

    @property
    def decoding_nanoseconds(self) -> int:
        """Estimate the processor time that the pixels take; the bytes of the file come on top."""
        return self.pixels * COSTS.get(self.format, COST_OF_MOST).nanoseconds


@dataclass(frozen=True, slots=True)
class PixelCost:
    """The cost of one pixel in a format.

    peak_bytes: at the peak, measured in every mode that the format has. Pillow keeps RGB in 4 bytes; the array that
    `decode_image` returns takes 3 more. `decode_picture` alone takes 4 to 5 for most pictures, 8 to 10 with alpha.
    nanoseconds: of an ordinary picture of up to 512 x 512.
    """

    peak_bytes: int
    nanoseconds: int


COSTS = {
    "AVIF": PixelCost(peak_bytes=18, nanoseconds=100),
    "HEIF": PixelCost(peak_bytes=14, nanoseconds=100),
    "JPEG2000": PixelCost(peak_bytes=32, nanoseconds=1_000),
    "WEBP": PixelCost(peak_bytes=23, nanoseconds=40),
}
COST_OF_MOST = PixelCost(peak_bytes=14, nanoseconds=10)
BASE_BYTES = 8_000_000  # for strips of rows that are being converted


def read_header(data: bytes, limits: ImageLimits) -> Header:
    """Read format, size and cost of a picture from its header, and refuse it where `decode_image` would.

    data: the whole file. Takes 1 to 10 us for most files, at most 20 ms for any of 20 MB.
    Raises EmptyImage, ImageTooLarge, TooManyPixels, CostlyImage, NotAnImage, TruncatedImage. A file that
    passes may still be refused when its pixels are decoded.
    """
    if not data:
        raise EmptyImage("The picture has 0 bytes.", hint="Is the file empty, or was it read to its end before?")
    if len(data) > limits.max_image_bytes:
        raise ImageTooLarge(
            f"The picture has {len(data):,} bytes; the limit is {limits.max_image_bytes:,} "
            "(SIGHTLINE_MAX_IMAGE_BYTES).",
            hint="Send a smaller or more compressed picture, or raise the limit.",
        )
    name, reader = _reader(data)
    try:
        header = reader(data)
    except (struct.error, LookupError, ValueError) as exc:
        raise _unreadable(data, name) from exc
    if header.pixels > limits.max_image_pixels:
        raise TooManyPixels(
            f"The picture has {header.width} x {header.height} = {header.pixels:,} pixels; the limit is "
            f"{limits.max_image_pixels:,} (SIGHTLINE_MAX_IMAGE_PIXELS).",
            hint="Scale the picture down before sending it, or raise the limit.",
        )
    return header


def announces_picture(start: bytes) -> bool:
    """Tell whether a file begins as a picture does. start: its first START_BYTES.

    Stricter than `read_header` with the formats that two letters announce: a text may begin with BM, P1 or RIFF.
    """
    if start.startswith(b"RIFF"):
        return start[8:12] == b"WEBP"
    if start.startswith(b"BM"):
        return start[14:18] in DIB_SIZES
    if start[:4] in DIB_SIZES:
        planes = start[8:10] if start[:4] == DIB_SIZES[0] else start[12:14]
        return planes == b"\1\0"
    if start.startswith(b"P"):
        return PPM_HEADER.match(start) is not None
    try:
        _reader(start)
    except NotAnImage:
        return False
    return True


def _reader(data: bytes) -> tuple[str, Callable[[bytes], Header]]:
    """Return the format that the first bytes announce, and its reader. Raises NotAnImage."""
    for signature, name, reader in SIGNATURES:
        if data.startswith(signature):
            return name, reader
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        if brand in BRANDS:
            return BRANDS[brand], _container
    if data[:4] in DIB_SIZES:
        return "DIB", _dib
    raise NotAnImage(f"The {len(data):,} bytes beginning with {data[:8]!r} are not a picture in a known format.")


def _unreadable(data: bytes, name: str) -> TruncatedImage:
    return TruncatedImage(
        f"The {len(data):,} bytes begin as a {name} picture, but its header cannot be read.",
        hint="The file is cut off or damaged: send it again, whole.",
    )


def _costly(what: str, hint: str = "Save the picture again with any editor, and send that.") -> CostlyImage:
    return CostlyImage(f"The picture would take too long to decode: {what}.", hint=hint)


def _bounded(count: int, most: int, what: str) -> None:
    if count > most:
        raise _costly(f"it has {count:,} {what}; the limit is {most:,}")


def _header(name: str, width: int, height: int, *, bits: int = 0, scans: int = 1, pixels: int | None = None) -> Header:
    if width < 1 or height < 1:
        raise ValueError(f"{width} x {height} pixels")
    return Header(name, width, height, width * height if pixels is None else pixels, bits, scans)


def _jpeg(data: bytes) -> Header:
    """ITU-T T.81, annex B. Tolerates junk and fill bytes between segments, as Pillow and libjpeg do."""
    at, junk, frame, bits, components = 2, 0, None, 0, 0
    for _ in range(MAX_SEGMENTS):
        marker = data[at + 1]
        if data[at] == 0xFF and marker not in (0, 0xFF):
            at += 2
        else:
            found = SEGMENT.search(data, at)
            if found is None:
                raise ValueError("no scan")
            junk += found.start() - at
            _bounded(junk, MAX_JUNK, "bytes between its segments")
            marker, at = found[1][0], found.end()
        if marker not in NOTABLE:
            pass
        elif marker in ALONE:
            continue
        elif marker == EOI:
            raise ValueError("no scan")
        elif marker in FRAMES:
            precision, height, width, components = struct.unpack_from(">BHHB", data, at + 2)
            frame, bits = (width, height), precision * components
        else:
            if frame is None:
                raise ValueError("a scan before the frame")
            in_scan = data[at + 2]
            scans = 1 if in_scan == components and not _is_progressive(data, at) else _scans(data, at)
            if scans > MAX_SCANS:
                raise _costly(f"it has more than {MAX_SCANS} scans")
            return _header("JPEG", *frame, bits=bits, scans=scans)
        at += data[at] << 8 | data[at + 1]
    raise _costly(f"it has more than {MAX_SEGMENTS:,} segments before its pixels")


def _is_progressive(data: bytes, scan: int) -> bool:
    """Tell whether a scan leaves out coefficients. scan: the offset of the length of SOS."""
    end = scan + (data[scan] << 8 | data[scan + 1])
    return data[end - 3 : end] != b"\x00\x3f\x00"


def _scans(data: bytes, at: int) -> int:
    """Count the scans of a JPEG, up to one more than the limit. at: the offset after the first SOS."""
    scans = 1
    while scans <= MAX_SCANS:
        found = IN_DATA.search(data, at)
        if found is None or found[1][0] == EOI:
            break
        at = found.end()
        scans += found[1][0] == SOS
        if found[1][0] not in ALONE and at + 2 <= len(data):
            at += struct.unpack_from(">H", data, at)[0]
    return scans


def _png(data: bytes) -> Header:
    """PNG, third edition, 5 and 11.2.1."""
    if data[12:16] != b"IHDR":
        raise ValueError("no IHDR")
    width, height, depth, color = struct.unpack_from(">IIBB", data, 16)
    at, chunks, profiles, most = 8, 0, 0, MAX_CHUNKS + len(data) // SMALLEST_CHUNK
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        profiles += data[at + 4 : at + 8] == b"iCCP"
        chunks += 1
        at += 12 + length
        if chunks > most:
            raise _costly(f"it has more than {most:,} chunks")
    _bounded(profiles, MAX_PROFILES, "colour profiles")
    return _header("PNG", width, height, bits=depth * {2: 3, 4: 2, 6: 4}.get(color, 1))


def _gif(data: bytes) -> Header:
    """GIF89a, 18 to 26. The first frame may reach over the screen: Pillow then takes the frame's size."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at, blocks = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0), 0
    while blocks <= MAX_BLOCKS:
        kind = data[at : at + 1]
        if kind == b",":
            left, top, across, down = struct.unpack_from("<4H", data, at + 1)
            return _header("GIF", max(width, left + across), max(height, top + down), bits=(flags & 7) + 1)
        if kind == b"!":
            at += 2
            while size := data[at]:
                at += 1 + size
                blocks += 1
                if blocks > MAX_BLOCKS:
                    break
        elif kind in (b"", b";"):
            raise ValueError("no frame")
        at += 1
        blocks += 1
    raise _costly(f"it has more than {MAX_BLOCKS:,} blocks before its first frame")


def _bmp(data: bytes) -> Header:
    return _dib(data, 14, "BMP")


def _dib(data: bytes, at: int = 0, name: str = "DIB") -> Header:
    """BITMAPINFOHEADER and its relatives; a height below zero says that the first row is the top one."""
    (size,) = struct.unpack_from("<I", data, at)
    if size == 12:
        width, height, _, bits = struct.unpack_from("<4H", data, at + 4)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, at + 4)
    header = _header(name, width, abs(height), bits=bits)
    if compression in (1, 2):
        _bounded(header.pixels, MAX_RLE_BMP, "pixels, run-length encoded")
        _bounded(len(data), MAX_RLE_BMP, "bytes, run-length encoded")
    return header


def _webp(data: bytes) -> Header:
    """RFC 9649, 2 and 3."""
    kind = data[12:16]
    if data[8:12] != b"WEBP":
        raise ValueError("no WebP")
    if kind == b"VP8X":
        flags = data[20]
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
        if len(data) < 30:
            raise ValueError("cut off")
        _webp_chunks(data)
        return _header("WEBP", width, height, bits=32 if flags & 0x10 else 24)
    if kind == b"VP8L" and data[20] == 0x2F:
        (packed,) = struct.unpack_from("<I", data, 21)
        return _header("WEBP", (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1, bits=32 if packed >> 28 & 1 else 24)
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return _header("WEBP", width & 0x3FFF, height & 0x3FFF, bits=24)
    raise ValueError("no frame")


def _webp_chunks(data: bytes) -> None:
    at, chunks = 12, 0
    while at + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, at + 4)
        at += 8 + length + (length & 1)
        chunks += 1
        if chunks > MAX_FRAMES:
            raise _costly(f"it has more than {MAX_FRAMES:,} frames or chunks")


def _tiff(data: bytes) -> Header:
    """TIFF 6.0, 2 and 15, and BigTIFF: the first directory."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = struct.unpack_from(order + "H", data, 2)[0] == 43
    count_format, entry_format = (order + "Q", order + "HHQ8s") if is_big else (order + "H", order + "HHI4s")
    (at,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)
    (tags,) = struct.unpack_from(count_format, data, at)
    _bounded(tags, MAX_TAGS, "tags")
    start = at + struct.calcsize(count_format)
    entries = struct.iter_unpack(entry_format, data[start : start + tags * struct.calcsize(entry_format)])
    values: dict[int, int] = {}
    strips = 0
    for tag, kind, count, value in entries:
        if tag in values or kind not in TIFF_TYPES:  # the first holds
            continue
        if tag in TIFF_TABLES:
            strips = max(strips, count)
        elif kind in RATIONAL or tag in UNPACKED:
            _bounded(count, MAX_VALUES, f"values of tag {tag}")
        values[tag] = _first(value, kind, count, order, data)
    _bounded(strips, MAX_STRIPS, "strips or tiles")
    width, height = values[256], values[257]
    pixels = _whole(width, values.get(322, 0)) * _whole(height, values.get(323, 0)) if 324 in values else width * height
    return _header(
        "TIFF", width, height, bits=values.get(258, 1) * values.get(277, 1), pixels=max(pixels, width * height)
    )


def _first(value: bytes, kind: int, count: int, order: str, data: bytes) -> int:
    """The first number of a tag; 0 for what is no whole number."""
    letter = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}.get(kind)
    if letter is None or not count:
        return 0
    if TIFF_TYPES[kind] * count <= len(value):
        return int(struct.unpack_from(order + letter, value)[0])
    (offset,) = struct.unpack(order + ("Q" if len(value) == 8 else "I"), value)
    return int(struct.unpack_from(order + letter, data, offset)[0]) if offset < len(data) else 0


def _whole(side: int, tile: int) -> int:
    """A side rounded up to whole tiles."""
    return -(-side // tile) * tile if tile else side


def _jpeg_2000(data: bytes) -> Header:
    """ITU-T T.800, A.5.1 and A.6.1: SIZ and COD of the code stream, wherever its boxes put it."""
    at = data.index(b"\xff\x4f\xff\x51")
    right, bottom, left, top, across, down, _, _, components = struct.unpack_from(">8IH", data, at + 8)
    width, height = right - left, bottom - top
    if not across or not down:
        raise ValueError("tiles of no size")
    tiles = -(-width // across) * -(-height // down)
    _bounded(tiles, MAX_JPEG_2000_TILES, "tiles")
    style = data.find(b"\xff\x52", at, at + META_BYTES)
    layers, levels = (1, 5) if style < 0 else (struct.unpack_from(">H", data, style + 6)[0], data[style + 9])
    _bounded(tiles * layers * (levels + 1) * components, MAX_JPEG_2000_PACKETS, "packets")
    return _header("JPEG2000", width, height, bits=components * ((data[at + 42] & 0x7F) + 1))


def _container(data: bytes) -> Header:
    """HEIC and AVIF, ISO/IEC 23008-12, 6.5.3: the largest of the sizes that it gives, which may be a part's."""
    sizes, at = [], 0
    while (at := data.find(b"ispe", at, META_BYTES)) >= 0:
        sizes.append(struct.unpack_from(">II", data, at + 8))
        at += 16
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return _header(BRANDS[data[8:12]], width, height)


def _ppm(data: bytes) -> Header:
    """Netpbm's formats; the first three are text."""
    found = PPM_HEADER.match(data[:PPM_HEADER_BYTES])
    if found is None:
        raise ValueError("no header within its bounds")
    kind, width, height, brightest = found.groups()
    if kind in (b"P1", b"P2", b"P3"):
        _bounded(len(data), MAX_PLAIN_PPM_BYTES, "bytes of text")
    elif kind in (b"P5", b"P6") and brightest not in (b"255", b"65535"):
        _bounded(
            len(data),
            MAX_ODD_PPM_BYTES,
            f"bytes, with a brightest value of {(brightest or b'').decode('ascii', 'replace')}",
        )
    return _header("PPM", int(width), int(height))


SIGNATURES: tuple[tuple[bytes, str, Callable[[bytes], Header]], ...] = (
    (b"\xff\xd8\xff", "JPEG", _jpeg),
    (b"\x89PNG\r\n\x1a\n", "PNG", _png),
    (b"GIF8", "GIF", _gif),
    (b"RIFF", "WebP", _webp),
    (b"BM", "BMP", _bmp),
    (b"II*\0", "TIFF", _tiff),
    (b"MM\0*", "TIFF", _tiff),
    (b"II\0*", "TIFF", _tiff),  # the last two bytes swapped, as some programs write it
    (b"MM*\0", "TIFF", _tiff),
    (b"II+\0", "TIFF", _tiff),
    (b"MM\0+", "TIFF", _tiff),
    (b"\xff\x4f\xff\x51", "JPEG 2000", _jpeg_2000),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000", _jpeg_2000),
    *((kind, "PPM", _ppm) for kind in (b"P0", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf", b"Py")),
)
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevm", b"hevs", b"hevx", b"mif1", b"msf1")
BRANDS = {**dict.fromkeys(HEIC_BRANDS, "HEIF"), b"avif": "AVIF", b"avis": "AVIF"}  # after a length and "ftyp"
DIB_SIZES = tuple(struct.pack("<I", size) for size in (12, 40, 52, 56, 64, 108, 124))
