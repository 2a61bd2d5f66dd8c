"""The form of a caption that DALL-E mini reads: plain small letters, commas for signs, a space in front.

It is what the published code gives, but for text that came in a wrong encoding, which is not mended, and a hashtag,
which stays one word. That code writes every letter and sign in ASCII by the package Unidecode. Here Latin letters, the
usual signs and emoji need no package; any other letter is written by Unidecode too, or refused where that is missing.

Source: the released code of Dayma et al. 2021 (DALL-E mini).
"""

import functools
import html
import importlib
import re
import unicodedata

import emoji

_QUOTE, _DOT, _SLASH = (f"xtokx{name}xtokx" for name in ("quote", "dot", "slash"))
_SPELLED = (
    "\xd8=O \xf8=o \u0141=L \u0142=l \u0110=D \u0111=d \xd0=D \xf0=d \u0126=H \u0127=h \u0131=i \xb5=u \xc6=AE "
    "\xe6=ae \u0152=OE \u0153=oe \xde=Th \xfe=th \xdf=ss \u0138=k \u013f=L \u0140=l \u0149='n \u014a=NG "
    "\u014b=ng \u0166=T \u0167=t \xaa=a \xba=o \u2010=- \u2011=- \u2012=- \u2013=- \u2014=-- \u2015=-- "
    "\u2026=... \u2018=' \u2019=' \xab=<< \xbb=>> \u2022=* \xb7=* \xb0=deg \xd7=x \xf7=/ \xb1=+- \xa3=PS "
    '\u20ac=EUR \xa9=(c) \xae=(r) \u2122=(tm) \xa1=! \xbf=? \xa2=C/ \xa4=$? \xa5=Y= \xa6=| \xa7=SS \xa8=" '
    "\xac=! \xaf=- \xb4=' \xb6=P \xb8=, \xad= \u200d="
)
"""Letters and signs that do not become ASCII by losing an accent, as Unidecode has them."""
_PLAIN = dict(part.split("=", 1) for part in _SPELLED.split(" "))
_CURLED = str.maketrans(dict(zip("\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f", "''''\"\"\"\"", strict=True)))
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]")
_LINES = re.compile("[\u2028\u2029]")
_WINDOWS = re.compile("[\x80-\x9f]")
"""Control characters that Windows-1252 has letters and signs in the place of."""
_STEPS = (
    ("<person>([,\\s]*(and)*[,\\s]*<person>)+", " people "),
    ("<person>", " a person "),
    (r"\A\s*\[\d+\]", ""),
    (r"\[\d+\]\s*\Z", ""),
    ("<[^<]+?>", " "),
    (r"http\S+", ""),
    (r"(\d),(\d{3})", r"\1\2"),
    (r"(\d),(\d{3})", r"\1\2"),
    # dots, quotes and strokes that stay are hidden from the steps that follow
    (r"(\w)\.(\w)", rf"\1{_DOT}\2"),
    (r"'(?=([stdm]|(ll)|(re)|(ve)|(ll))\b)", _QUOTE),
    (r"(\d)/(\d)", rf"\1{_SLASH}\2"),
    (r"(\w)-(\w)", r"\1 \2"),
    (r"([%&\/$*])", r" \1 "),
    (r"#(\w+)", r"\1"),
    (r"[_#\\]", " "),
    ("['\"`]", ' " '),
    (r"[()[\].,|:;?!=+~\-\/{}]", ","),
    (_DOT, "."),
    (_QUOTE, "'"),
    (_SLASH, "/"),
    (r"(\D)(\1{3,})", r"\1"),
    (r'(\s*"+\s*)+', ' " '),
    (r"(\s*,+\s*)+", ", "),
    (r"\s+", " "),
)


def normalise(text: str) -> str:
    """Returns the text that is tokenised.

    Raises:
      ValueError: if there are letters without a plain form and Unidecode is not installed; names them.
    """
    text = _WINDOWS.sub(lambda found: found[0].encode("latin-1").decode("cp1252", "ignore"), text)
    text = unicodedata.normalize("NFC", _CONTROL.sub("", _LINES.sub("\n", text.translate(_CURLED))))
    text = _ascii(emoji.demojize(html.unescape(html.unescape(text)))).lower()
    for pattern, by in _STEPS:
        text = re.sub(pattern, by, text)
    text = text.strip().removesuffix(",").removeprefix(",").strip()
    return f" {text}"


def _ascii(text: str) -> str:
    letters = {letter: _plain(letter) for letter in text}
    if not (lost := [letter for letter, plain in letters.items() if plain is None]):
        return "".join(str(letters[letter]) for letter in text)
    try:
        return str(importlib.import_module("unidecode").unidecode(text))
    except ModuleNotFoundError:
        raise ValueError(
            f"DALL-E mini reads ASCII alone, and {text[:60]!r} has {len(lost)} letters that Unidecode would write so "
            f"({', '.join(lost[:10])}): pip install 'jaxdiff[dalle]', or write them yourself"
        ) from None


@functools.cache
def _plain(letter: str) -> str | None:
    """Returns a letter or a sign in ASCII, as Unidecode has it; None where only Unidecode knows."""
    if letter.isascii():
        return letter
    if letter in _PLAIN:
        return _PLAIN[letter]
    if letter in "\xbc\xbd\xbe":
        return f" {unicodedata.normalize('NFKD', letter).replace(chr(0x2044), '/')}"
    if "\u0300" <= letter < "\u0363" or "\ufe00" <= letter <= "\ufe0f":  # accents, and variants of emoji
        return ""
    base = "".join(part for part in unicodedata.normalize("NFKD", letter) if not "\u0300" <= part < "\u0363")
    listed = unicodedata.category(letter) in ("Lu", "Ll", "Lt", "No", "Zs")
    return base if base.isascii() and base and listed else None
