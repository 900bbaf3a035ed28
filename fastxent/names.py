"""Names from users and files in a form that is safe to print: without control characters and passwords."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

SECRET = "***"
_ACCOUNT = re.compile(
    r"(?P<web>https?://)[^/\s?#]*@"
    r"|(?P<any>[A-Za-z][\w+.-]*://)[^/\s:?#@\[]*:(?!\d+(?:[/?#]|$))(?:[^\s/?#]*@|[^\s@?#]*@)",
    re.IGNORECASE,
)
_PARAMETER = re.compile(
    r"([?&;](?:[\w.%-]*(?:sig|signature|token|secret|passw(?:or)?d|pwd|credentials?"
    r"|(?:api|access|secret|account|private)[-_]?key(?:[-_]?id)?)|key|auth|code|jwt)=)[^&;\s#'\"]+",
    re.IGNORECASE,
)


def public_name(url: str) -> str:
    """Return a URL or a text with URLs; every password, signature and token is replaced by ``***``.

    >>> public_name("https://me:pass@host/a.parquet?part=3&X-Amz-Signature=f00")
    'https://***@host/a.parquet?part=3&X-Amz-Signature=***'
    >>> public_name("abfs://container@account/a@2.parquet")
    'abfs://container@account/a@2.parquet'
    """
    hidden = _ACCOUNT.sub(lambda found: f"{found['web'] or found['any']}{SECRET}@", url)
    return _PARAMETER.sub(rf"\g<1>{SECRET}", hidden)


def printable(text: str) -> str:
    """Return a text; every control character, escape, line break, bidi mark and lone surrogate is replaced.

    >>> printable("a\\x1b[2Jb\\u202e")
    'a\ufffd[2Jb\ufffd'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def is_unicode(text: str) -> bool:
    """Return whether a text can be stored as UTF-8: whether it holds no half of a surrogate pair.

    >>> is_unicode("é"), is_unicode("\\ude00")
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def some(names: Iterable[str], most: int = 20) -> str:
    """Return the first ``most`` names of a list, and the number of the others.

    >>> some("abcde", 3)
    'a, b, c, … and 2 more'
    """
    names = list(names)
    more = [f"… and {len(names) - most:,} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more])


def nearest(name: str | None, known: Iterable[str]) -> str:
    """Return the end of an error about an unknown name.

    >>> nearest("acuracy", ["accuracy", "entropy"]), nearest("x", ["accuracy"])
    ("did you mean 'accuracy'?", 'expected one of accuracy')
    """
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"expected one of {some(known) or 'none'}"
