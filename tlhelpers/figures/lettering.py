"""How names from outside are written in figures: in signs that a font has, short enough, and never as formulas.

Every text that a figure takes from a reader goes through `as_label`, a list of names through `as_labels`, a legend's
entry through `as_entry`; a function that draws is marked with `lettered`.
"""

import functools
import sys
import unicodedata

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.text import Text

LONGEST_NAME, LONGEST_LABEL = 24, 60  # characters of a class's name and of any other text
BLANK = "(blank)"
INVISIBLE = {"Cf", "Mn", "Me", "Zs"}  # kinds of signs that nobody misses; Mn holds the selectors of variants
ENTRY = "\u200b"  # stands before a legend's entry that Matplotlib would leave out, until the legend is made
PLACEHOLDERS = ("Last Resort", "LastResort")  # fonts that have a box for every sign
REGULAR = (400, "normal", "regular", "book", "roman")

_numbers = {}  # what no font here can write, and the number that stands for it


def as_labels(names, *, longest=LONGEST_NAME):
    """Names as figures write them, all different.

    A name that is too long is shortened in its middle; signs that no font of this system has are replaced by a number,
    and a printed line says what it stands for.

    Args:
        names: sequence of str.
        longest: int. Characters.

    Returns:
        list of str, for Matplotlib's texts: dollars are escaped.
    """
    texts = [unicodedata.normalize("NFC", " ".join(str(name).split())) or BLANK for name in names]
    lacking = _find_lacking("".join(texts))
    before = len(_numbers)
    texts = [_shorten(_number(text, lacking), longest) for text in texts]
    _explain(list(_numbers)[before:])
    seen = {}
    for index, text in enumerate(texts):
        seen[text] = seen.get(text, 0) + 1
        texts[index] = text if seen[text] == 1 else f"{text} [{seen[text]}]"
    return [text.replace("$", r"\$") if mpl.rcParams["text.parse_math"] else text for text in texts]


def as_label(text, *, longest=LONGEST_LABEL):
    """A text of one or more lines as figures write it; blank lines stay.

    Args:
        text: str.
        longest: int. Characters of a line.

    Returns:
        str.
    """
    lines = str(text).split("\n")
    return "\n".join(as_labels([line], longest=longest)[0] if line.strip() else "" for line in lines)


def as_entry(text):
    """A text as a legend's entry; Matplotlib leaves out those that begin with an underscore.

    Args:
        text: str, as from `as_labels`.

    Returns:
        str.
    """
    return ENTRY + text if text.startswith("_") else text


def lettered(plot):
    """Marks a function that draws: its texts take the fonts that were found for them.

    Args:
        plot: function that returns an Axes or an array of Axes.

    Returns:
        function.
    """

    @functools.wraps(plot)
    def draw(*arguments, **options):
        drawn = plot(*arguments, **options)
        for figure in {axis.figure for axis in np.ravel(drawn)}:
            for text in figure.findobj(Text):
                text.set_fontfamily(mpl.rcParams["font.family"])
                if text.get_text().startswith(f"{ENTRY}_"):
                    text.set_text(text.get_text().removeprefix(ENTRY))
        return drawn

    return draw


def _find_lacking(text):
    """The signs of a text that no font of this system has; where one has them, it joins those that figures use."""
    paths = [_find_font(family) for family in mpl.rcParams["font.family"]]
    lacking = frozenset(text) - {chr(code) for path in paths for code in _read_codes(path) & {*map(ord, text)}}
    families, lacking = _choose_fonts(lacking) if lacking else ((), lacking)
    mpl.rcParams["font.family"] = list(dict.fromkeys([*mpl.rcParams["font.family"], *families]))
    return lacking


@functools.lru_cache
def _choose_fonts(lacking):
    """The fewest families, about, with as many of the signs as there are; and the signs that are left over."""
    codes, chosen = {*map(ord, lacking)}, []
    offers = {font.name: _read_codes(font.fname) & codes for font in _regular_fonts()}
    while any(offers.values()):
        best = max(sorted(offers), key=lambda name: len(offers[name]))
        chosen.append(best)
        codes -= offers[best]
        offers = {name: offer & codes for name, offer in offers.items()}
    return tuple(chosen), frozenset(map(chr, codes))


def _regular_fonts():
    fonts = font_manager.fontManager.ttflist
    return [f for f in fonts if f.weight in REGULAR and f.style == "normal" and not f.name.startswith(PLACEHOLDERS)]


def _find_font(family):
    return font_manager.findfont(font_manager.FontProperties(family=[family]))


@functools.lru_cache
def _read_codes(path):
    """The code points that a font file has; none where it cannot be read, as with coloured bitmaps."""
    try:
        return frozenset(font_manager.get_font(path).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()


def _number(text, lacking):
    """A text with a number for each run of signs that cannot be written."""
    if not lacking & set(text):
        return text
    parts, run = [], ""
    for sign in text:
        if sign not in lacking:
            parts, run = [*parts, _name_run(run), sign], ""
        else:
            run += sign
    return "".join([*parts, _name_run(run)]).strip() or BLANK


def _name_run(run):
    if all(unicodedata.category(sign) in INVISIBLE for sign in run):
        return ""
    return f"({_numbers.setdefault(run, len(_numbers) + 1)})"


def _explain(runs):
    if not runs:
        return
    meanings = ", ".join(f"({_numbers[run]}) is {run}" for run in runs)
    note = f"No font of this computer has these signs, so figures write numbers: {meanings}."
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(note.encode(encoding, "backslashreplace").decode(encoding))


def _shorten(text, longest):
    if len(text) <= longest:
        return text
    head, tail = text[: longest // 2], text[-((longest - 1) // 2) :]
    while tail and unicodedata.combining(tail[0]):
        tail = tail[1:]
    return f"{head}…{tail}"
