"""The form of a caption that DALL-E mini reads: plain small letters, commas for signs, a space in front.

For plain ASCII text without hashtags it is what the published code gives. That uses packages for the rest (ftfy, emoji,
unidecode), and a list of words to split hashtags by; here other letters lose their accents, what has none is left out,
emoji are their Unicode names, and a hashtag is one word.

Source: the released code of Dayma et al. 2021 (DALL-E mini).
"""

import html
import re
import unicodedata

_QUOTE, _DOT, _SLASH = (f"xtokx{name}xtokx" for name in ("quote", "dot", "slash"))
_PLAIN = str.maketrans(
    {
        "\u2018": "'",
        "\u2019": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u2013": "-",
        "\u2014": "--",
        "\u2026": "...",
        "\xdf": "ss",
    }
)
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
    """Returns the text that is tokenised."""
    text = html.unescape(html.unescape(text)).translate(_PLAIN)
    text = "".join(_named(letter) for letter in text)
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    for pattern, by in _STEPS:
        text = re.sub(pattern, by, text)
    text = text.strip().removesuffix(",").removeprefix(",").strip()
    return f" {text}"


def _named(letter: str) -> str:
    """Returns an emoji by its name, and other signs as they are."""
    if unicodedata.category(letter) != "So":
        return letter
    return f":{unicodedata.name(letter, '').lower().replace(' ', '_')}:"
