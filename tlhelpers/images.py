"""Reads one file as an image: a verdict, and upright 8-bit RGB pixels or the reason why there are none."""

import functools
import io
import struct
import threading
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from tlhelpers import files, settings

READER_VERSION = 4  # in every cache key of what is computed from images: another reader may see other pixels
MAX_PIXELS = 100_000_000
REFUSED = "damaged in a way that only some readers forgive"
DAMAGED_NOTES = "its notes (EXIF, XMP and the like) are damaged"
HEAD_BYTES = 512
# Libraries whose warnings are about the file at hand.
LIBRARIES = ("PIL", "pillow_heif")

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SAMPLE_FORMAT, BITS_PER_SAMPLE, DNG_VERSION = 339, 258, 50706  # tags of TIFF files
UNSIGNED, SIGNED = 1, 2

EXPORT = "export it as JPEG or PNG"
RAW_SUFFIXES = [
    ".3fr",
    ".arw",
    ".cr2",
    ".cr3",
    ".crw",
    ".dng",
    ".erf",
    ".iiq",
    ".kdc",
    ".mrw",
    ".nef",
    ".nrw",
    ".orf",
    ".pef",
    ".raf",
    ".raw",
    ".rw2",
    ".rwl",
    ".sr2",
    ".srf",
    ".srw",
    ".x3f",
]
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"heif")
# What other formats begin with, and what is said of them.
BEGINNINGS = {
    b"%PDF": f"a PDF document: {EXPORT} page by page",
    b"8BPS": f"a Photoshop document (PSD): {EXPORT}",
    b"%!PS": f"a PostScript drawing (EPS): {EXPORT}",
    b"\xc5\xd0\xd3\xc6": f"a PostScript drawing (EPS): {EXPORT}",
    b"FUJIFILMCCD-RAW": f"a camera's raw file (RAF): {EXPORT}",
    b"IIRO": f"a camera's raw file (ORF): {EXPORT}",
    b"IIRS": f"a camera's raw file (ORF): {EXPORT}",
    b"IIU\0": f"a camera's raw file (RW2): {EXPORT}",
    b"FOVb": f"a camera's raw file (X3F): {EXPORT}",
    b"\xff\x0a": f"a JPEG XL picture: {EXPORT}",
    b"\0\0\0\x0cJXL ": f"a JPEG XL picture: {EXPORT}",
    b"\x1aE\xdf\xa3": "a film (MKV, WebM): take single pictures from it",
    b"gimp xcf": f"a GIMP document (XCF): {EXPORT}",
    b"PK\x03\x04": "an archive (ZIP) or an office document: take the pictures out of it",
    b"Rar!": "an archive (RAR): take the pictures out of it",
    b"7z\xbc\xaf\x27\x1c": "an archive (7z): take the pictures out of it",
}


def open_image(path, *, decode=True):
    """Opens one file and says whether it is an image that can be used.

    Args:
        path: Path.
        decode: bool. Whether to decode an image even when every reader takes it as it is.

    Returns:
        tuple of a verdict (`"ok"`, `"converted"` when every reader but this one would see other pixels, or what is
        wrong), a reason (str; of an `"ok"` file what a library noted about it, else empty), and an upright RGB image
        (PIL.Image.Image), or None where there is none or none is wanted.
    """
    path = Path(path)
    try:
        if path.stat().st_size == 0:
            return "empty", "the file has no bytes", None
        head = _head_of(path)
    except OSError as error:
        return "unreadable", f"the file cannot be read ({error.strerror or error})", None
    foreign = _foreign_by_name(path, head)
    if foreign:
        return "unreadable", foreign, None
    try:
        verdict, reason, image = _noting(lambda: _read(path, path, head, decode))
    except Exception as error:  # decoders raise what they like about damaged files
        try:
            verdict, reason, image = _noting(lambda: _read_without_notes(path, head))
        except Exception:
            return *_verdict_of(error, head), None
    return verdict, reason, image


def convert(image, sha256):
    """Rewrites an image, so that every reader sees the same pixels.

    Args:
        image: PIL.Image.Image, upright RGB.
        sha256: str. The digest of the file it comes from.

    Returns:
        Path. A PNG file in the cache folder.
    """
    path = converted_folder() / f"{sha256}-{READER_VERSION}.png"
    with files.atomic_file(path) as temporary:
        image.save(temporary)
    return path


def converted_folder():
    """Where rewritten images are kept."""
    return settings.home_folder() / "converted"


def _head_of(path):
    with open(path, "rb") as stream:
        return stream.read(HEAD_BYTES)


def _read(path, source, head, decode):
    """The verdict, the reason and the upright image of `source`, a path or a stream of the file's bytes."""
    if _is_heif(head):
        _register_heif()
    with Image.open(source) as image:
        if image.width * image.height > MAX_PIXELS:
            return "too_large", f"{image.width}x{image.height} is over {MAX_PIXELS:,} pixels", None
        if image.format in ("TIFF", "MPO") and DNG_VERSION in getattr(image, "tag_v2", {}):
            return "unreadable", f"a camera's raw file (DNG): {EXPORT}", None
        orientation, note = _orientation_of(image)
        reason = _why_convert(path, image, orientation)
        if not (decode or reason):
            return "ok", note, None
        image.load()
        upright = _as_rgb(image)
        if orientation in TURNS:
            upright = upright.transpose(TURNS[orientation])
        return ("converted", "; ".join(filter(None, (reason, note))), upright) if reason else ("ok", note, upright)


def _read_without_notes(path, head):
    """Reads a JPEG or PNG once more, without what it says beside its pixels."""
    content = _without_notes(path.read_bytes())
    _, _, image = _read(path, io.BytesIO(content), head, decode=True)
    if image is None:
        raise ValueError(DAMAGED_NOTES)
    return "converted", DAMAGED_NOTES, image


def _noting(read):
    """Calls `read` and puts what libraries warn of into its reason, instead of on stderr without the file's name."""
    with _listener as notes:
        verdict, reason, image = read()
    return verdict, "; ".join(dict.fromkeys(filter(None, (reason, *notes)))), image


class _Listener:
    """Hands each thread what libraries warn of in it, while any is inside; other warnings go where they went.

    What Python keeps of warnings belongs to all threads: the first that enters changes it, the last that leaves
    restores it.
    """

    def __init__(self):
        self._lock, self._notes = threading.Lock(), {}

    def __enter__(self):
        with self._lock:
            if not self._notes:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                self._show = warnings.showwarning
                warnings.showwarning = self._hear
                for name in LIBRARIES:
                    warnings.filterwarnings("always", module=rf"{name}\b")
            return self._notes.setdefault(threading.get_ident(), [])

    def __exit__(self, *_):
        with self._lock:
            del self._notes[threading.get_ident()]
            if not self._notes:
                self._caught.__exit__(None, None, None)

    def _hear(self, message, category, filename, *rest, **options):
        notes = self._notes.get(threading.get_ident())
        if notes is None or not set(LIBRARIES) & set(Path(filename).parts):
            self._show(message, category, filename, *rest, **options)
        elif not issubclass(category, Image.DecompressionBombWarning):  # our own limit is the one that counts
            notes.append(str(message).splitlines()[0])


_listener = _Listener()


def _orientation_of(image):
    """The EXIF orientation of an image, 1 to 8, and a note where that cannot be read."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1), ""
    except OSError:  # of the pixels: Pillow looks for notes behind them, too
        raise
    except Exception:
        return 1, DAMAGED_NOTES


def _why_convert(path, image, orientation):
    """Why an image has to be rewritten, or an empty string."""
    if orientation != 1:
        return "rotated by its EXIF tag"
    if image.mode not in ("RGB", "L"):
        return f"colour mode {image.mode}"
    if image.format not in ("JPEG", "PNG"):
        return f"format {image.format}"
    if image.format == "PNG" and path.suffix.lower() in (".jpg", ".jpeg"):
        return "format PNG under a JPEG name"
    return ""


def _as_rgb(image):
    """An 8-bit RGB image of any readable one; what has more than 8 bits is scaled to them."""
    values = _values_of(image)
    if values is not None:
        return Image.fromarray(_to_bytes(values)).convert("RGB")
    if image.mode in ("P", "PA") and "transparency" in image.info:
        image = image.convert("RGBA")  # as Pillow asks for
    return image.convert("RGB")


def _values_of(image):
    """The pixel values of a greyscale image that has more than 8 bits or is signed, else None."""
    tags = getattr(image, "tag_v2", {})
    kind, bits = (_first(tags.get(tag)) for tag in (SAMPLE_FORMAT, BITS_PER_SAMPLE))
    if image.mode == "L" and kind == SIGNED and bits == 8:
        return np.asarray(image).view(np.int8).astype(np.float64)
    if not (image.mode.startswith("I;16") or image.mode in ("I", "F")):
        return None
    values = np.asarray(image)
    if image.mode == "I" and bits == 32 and kind in (None, UNSIGNED):
        values = values.astype(np.int32).view(np.uint32)
    return values.astype(np.float64)


def _to_bytes(values):
    """Numbers as shades, uint8: zero stays black where nothing lies below it; what is no number is the darkest."""
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("no pixel of it is a number")
    low, high = min(values[finite].min(), 0), values[finite].max()
    values = np.clip(np.nan_to_num(values, nan=low, posinf=high, neginf=low), low, high) - low
    return (values / (max(high, 1) if low == 0 else high - low) * 255).astype(np.uint8)


def _first(value):
    return value[0] if isinstance(value, tuple) else value


def _is_heif(head):
    return head[4:8] == b"ftyp" and any(brand in head[8:64] for brand in HEIF_BRANDS) and b"avif" not in head[8:12]


@functools.cache
def _register_heif():
    import pillow_heif

    pillow_heif.register_heif_opener()


def _foreign_by_name(path, head):
    """What a file is whose name says that Pillow would find a small preview in it at best, else an empty string."""
    suffix = path.suffix.lower()
    if suffix in RAW_SUFFIXES and not head.startswith((b"\xff\xd8\xff", b"\x89PNG")):
        return f"a camera's raw file ({suffix[1:].upper()}): {EXPORT}"
    return ""


def _foreign(head):
    """What a file is that cannot be read as an image, and what to do about it, or an empty string."""
    for beginning, words in BEGINNINGS.items():
        if head.startswith(beginning):
            return words
    if head[4:8] == b"ftyp":
        if head[8:11] == b"crx":
            return f"a camera's raw file (CR3): {EXPORT}"
        if head[8:12] in (b"avif", b"avis"):
            return f"an AVIF picture that is damaged or of a kind that cannot be decoded: {EXPORT}"
        if _is_heif(head):
            return f"a HEIC picture, as phones take them, that is damaged or cannot be decoded: {EXPORT}"
        return "a film (MOV, MP4): take single pictures from it"
    if head[4:8] in (b"moov", b"mdat", b"wide") or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return "a film (MOV, AVI): take single pictures from it"
    if b"<svg" in head.lower():
        return f"a drawing (SVG): {EXPORT}"
    return ""


def _verdict_of(error, head):
    """The verdict and the reason that an error of a decoder stands for."""
    text = (str(error) or type(error).__name__).splitlines()[0]
    foreign = _foreign(head)
    if isinstance(error, Image.DecompressionBombError):
        return "too_large", text
    if foreign and not head.startswith(b"PK"):
        return "unreadable", foreign
    if foreign:
        return "not_an_image", foreign
    if "truncated" in text.lower() or "broken data stream" in text:
        return "truncated", "the image data breaks off"
    if "cannot identify" in text:
        if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return "unreadable", f"a TIFF of a kind that cannot be decoded: {EXPORT} of 8 bits"
        return "not_an_image", "no image format is recognised"
    return "unreadable", text


def _without_notes(content):
    """The bytes of a JPEG or PNG without what they say beside the pixels, such as EXIF and XMP."""
    if content.startswith(b"\xff\xd8"):
        return _jpeg_without_notes(content)
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_without_notes(content)
    raise ValueError("Notes are taken out of JPEG and PNG files alone")


def _jpeg_without_notes(content):
    kept, position = [content[:2]], 2
    while content[position : position + 1] == b"\xff":
        marker = content[position + 1]
        if marker == 0xDA:  # here the pixels begin
            break
        (length,) = struct.unpack(">H", content[position + 2 : position + 4])
        is_note = (0xE0 <= marker <= 0xEF and marker != 0xEE) or marker == 0xFE  # 0xEE says how colours are meant
        if not is_note:
            kept.append(content[position : position + 2 + length])
        position += 2 + length
    return b"".join([*kept, content[position:]])


def _png_without_notes(content):
    kept, position = [content[:8]], 8
    while position < len(content):
        (length,) = struct.unpack(">I", content[position : position + 4])
        kind = content[position + 4 : position + 8]
        if kind[:1].isupper() or kind == b"tRNS":
            kept.append(content[position : position + 12 + length])
        position += 12 + length
    return b"".join(kept)


def decode(path):
    """Decodes a JPEG, PNG, GIF or BMP as the data sets do.

    Args:
        path: str, or a scalar string tensor.

    Returns:
        uint8 tensor `(height, width, 3)` in 0..255.
    """
    import tensorflow as tf  # here, because it takes seconds to load and most of this module does without

    return tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)


def can_read(path):
    """Whether `decode` takes a file: it forgives less than other decoders do.

    Args:
        path: str.

    Returns:
        bool.
    """
    import tensorflow as tf

    try:
        with tf.device("CPU"):
            decode(path)
    except tf.errors.InvalidArgumentError:
        return False
    return True
