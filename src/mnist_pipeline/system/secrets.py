"""Addresses that may hold a secret, and texts that may quote one.

An `Address` is shown masked, wherever it is written. Only `reveal` and `connection` return the secret, and only code
that connects calls them. Messages of libraries that quote an address pass through `hide`.
"""

import base64
import html
import json
import re
import threading
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass

STARS = "***"
SERVERS = ("http://", "https://")
_SHORTEST_SECRET = 3  # a shorter one would be replaced in unrelated words
_SHORTEST_TOKEN = 8

_SCHEME = re.compile(r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]*:/+")
_URL = re.compile(rf"{_SCHEME.pattern}(?:(?!{_SCHEME.pattern})[^\s\"'<>`])*")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|localhost|[\w-]+(?:\.[\w-]+)+)(?::\d+)?|[\w-]+:\d+")
_PATHS = ("sqlite", "file:")  # these schemes are followed by a path, which may hold any character
_VERSION = re.compile(r"v?\d+(?:\.\d+){0,2}\Z")
_DISTINCT_HOST = re.compile(r"localhost|\d+(?:\.\d+){3}|[\w.-]+:\d+|[\w-]+(?:\.[\w-]+)*\.[A-Za-z][\w-]+")
_SECRET_PARAMETER = re.compile(r"pass|pwd|token|secret|key|sig|auth|credential", re.IGNORECASE)


@dataclass(frozen=True)
class _Parts:
    """The parts of an address: `prefix` (scheme and slashes), user and password, host and path, query or fragment."""

    prefix: str
    userinfo: str | None
    place: str
    query: str

    def masked(self, *, all_parameters: bool) -> str:
        userinfo = "" if self.userinfo is None else f"{STARS}@"
        return f"{self.prefix}{userinfo}{self.place}{_mask_query(self.query, all_parameters=all_parameters)}"


def _take_apart(text: str) -> _Parts:
    found = _SCHEME.match(text)
    prefix = found[0] if found else ""
    rest = text[len(prefix) :]
    mark = re.search(r"[?#]" if found else r"\?(?=[\w.-]+=)", rest)
    if prefix.lower().startswith(_PATHS):
        place, sign, query = rest.partition("?")
        return _Parts(prefix, None, place, f"{sign}{query}")
    base, query = (rest[: mark.start()], rest[mark.start() :]) if mark else (rest, "")
    end = _find_userinfo(base, prefix)
    authority = base.partition("/")[0]
    # A password may hold an unencoded ? or #, because people do not encode them.
    is_host = _HOST.fullmatch(authority) and not re.fullmatch(r"[\w-]+:\d+", base)
    is_cut = "@" in query and (end is not None or not is_host) and bool(found or ":" in base)
    if is_cut and (end is None or "=" not in query[: query.rindex("@")]):
        end = rest.rindex("@")
        mark = re.search(r"[?#]", rest[end:])
        base, query = (rest[: end + mark.start()], rest[end + mark.start() :]) if mark else (rest, "")
    if end is None:
        return _Parts(prefix, None, base, query)
    return _Parts(prefix, base[:end], base[end + 1 :], query)


def _find_userinfo(base: str, prefix: str) -> int | None:
    """Return the position of the @ after user and password, which may hold @, / and : too; None if there is none."""
    last = base.rfind("@")
    if last < 0:
        return None
    if not prefix:  # a path, or an address without a scheme: only the latter has a colon
        return None if base.startswith(("/", ".", "~")) or ":" not in base[:last] else last
    if not prefix.lower().startswith(SERVERS):
        return last
    authority = base.partition("/")[0]
    after = base[last + 1 :].partition("/")[0]
    if "@" in authority:
        return authority.rindex("@") if _VERSION.match(after) else last
    if not _HOST.fullmatch(authority):
        return None if ":" not in authority and _VERSION.match(after) else last
    # A host and its port, or a user and the digits that a password starts with: the part after the @ decides.
    is_user = re.fullmatch(r"[\w-]+:\d+", authority) and _DISTINCT_HOST.fullmatch(after) and not _VERSION.match(after)
    return last if is_user else None


def _mask_query(query: str, *, all_parameters: bool) -> str:
    if not query:
        return ""
    shown = []
    for parameter in query[1:].split("&"):
        name, sign, value = parameter.partition("=")
        is_masked = all_parameters or (sign and _SECRET_PARAMETER.search(name))
        masked = f"{name}={STARS}" if sign and value else parameter if sign or not parameter else STARS
        shown.append(masked if is_masked else parameter)
    return query[0] + "&".join(shown)


def mask(text: str) -> str:
    """Return an address with stars for user and password, and for the value of every parameter of its query.

    The address need not be valid: user and password may hold any character. A path, or an address without secrets, does
    not change.
    """
    return _take_apart(text).masked(all_parameters=True)


class Address(str):
    """A URL or a path that may hold a secret. Its text is masked, in every format; equality compares the secret too.

    A pickled address stays masked, because no other process connects to it.
    """

    __slots__ = ("_whole",)

    _whole: str

    def __new__(cls, text: str) -> "Address":
        """Take the whole text, including secrets, or another address."""
        whole = text._whole if isinstance(text, Address) else str(text)
        self = super().__new__(cls, mask(whole))
        self._whole = whole
        if self.has_secret:
            _register(whole)
        return self

    def __eq__(self, other: object) -> bool:
        return self._whole == (other._whole if isinstance(other, Address) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self._whole)

    def __reduce__(self) -> tuple[type["Address"], tuple[str]]:
        return Address, (str(self),)

    def __copy__(self) -> "Address":
        return self

    def __deepcopy__(self, memo: object) -> "Address":
        return self

    @property
    def has_secret(self) -> bool:
        """Whether anything is masked."""
        return str(self) != self._whole

    @property
    def is_masked(self) -> bool:
        """Whether it was copied from a place that shows it masked, so that it cannot be connected to."""
        return f"{STARS}@" in self._whole or f"={STARS}" in self._whole

    @property
    def is_server(self) -> bool:
        """Whether it is an HTTP address."""
        return self.startswith(SERVERS)

    def reveal(self) -> str:
        """Return the whole address for a library that connects: user and password are percent-encoded.

        Raises:
            ValueError: It is masked, and the secret is unknown.
        """
        if self.is_masked:
            raise ValueError(f"{self}: the stars stand for a secret that is not shown; give the whole address")
        parts = _take_apart(self._whole)
        if parts.userinfo is None or "://" not in parts.prefix:
            return self._whole
        user, sign, password = parts.userinfo.partition(":")
        return f"{parts.prefix}{_encode(user)}{sign}{_encode(password)}@{parts.place}{parts.query}"

    def connection(self) -> tuple[str, tuple[str, str] | None]:
        """Return the URL without user and password, and these, decoded; None if it has none.

        Raises:
            ValueError: It is masked, and the secret is unknown.
        """
        parts = _take_apart(self.reveal())
        url = f"{parts.prefix}{parts.place}{parts.query}"
        if parts.userinfo is None:
            return url, None
        user, _, password = parts.userinfo.partition(":")
        return url, (urllib.parse.unquote(user), urllib.parse.unquote(password))

    def join(self, name: str) -> "Address":  # type: ignore[override]
        """Return the address of a file in this folder."""
        parts = _take_apart(self._whole)
        userinfo = "" if parts.userinfo is None else f"{parts.userinfo}@"
        return Address(f"{parts.prefix}{userinfo}{parts.place.rstrip('/')}/{name}{parts.query}")


def authorize(user: str, password: str) -> str:
    """Return the value of the header `Authorization`; a user without a password counts as a token."""
    if not password:
        return f"Bearer {user}"
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def _encode(text: str) -> str:
    return re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", urllib.parse.quote(text, safe="%!$&'()*+,;=~"))


_known: dict[str, str] = {}
_pattern: re.Pattern[str] | None = None
_lock = threading.Lock()


def _register(whole: str) -> None:
    """Remember the secrets of an address, in every spelling that a library may use, so that `hide` finds them."""
    global _pattern
    parts = _take_apart(whole)
    secrets: set[str] = set()
    if parts.userinfo is not None:
        user, sign, password = parts.userinfo.partition(":")
        secrets |= {parts.userinfo, password} if sign else set()
        secrets |= {user} if _is_token(user) else set()
        decoded = urllib.parse.unquote(parts.userinfo)
        secrets.add(base64.b64encode(decoded.encode()).decode())
    for parameter in parts.query[1:].split("&"):
        name, sign, value = parameter.partition("=")
        if (sign and _SECRET_PARAMETER.search(name)) or _is_token(value or name):
            secrets.add(value or name)
    with _lock:
        _known.update(dict.fromkeys(_spellings(whole), mask(whole)))
        for secret in secrets:
            _known.update(dict.fromkeys(_spellings(secret), STARS))
        _pattern = None


def _is_token(text: str) -> bool:
    """Return whether a text is unlikely to occur in a message for another reason."""
    return len(text) >= _SHORTEST_TOKEN and not text.isalpha()


def _spellings(secret: str) -> set[str]:
    plain = {secret, urllib.parse.unquote(secret)}
    encoded = {way(text) for text in plain for way in (urllib.parse.quote, urllib.parse.quote_plus, _quote_all)}
    quoted = {way(text) for text in plain for way in (_json, _json_ascii, _repr, html.escape, _escape_override)}
    return {text for text in plain | encoded | quoted if len(text) >= _SHORTEST_SECRET}


def _quote_all(text: str) -> str:
    return urllib.parse.quote(text, safe="")


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _json_ascii(text: str) -> str:
    return json.dumps(text)[1:-1]


def _repr(text: str) -> str:
    return repr(text)[1:-1]


def _escape_override(text: str) -> str:
    return re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", text)


def hide(text: str) -> str:
    """Return any text with stars for the secrets of this process's addresses, and for anything like one in a URL."""
    global _pattern
    with _lock:
        if _known and _pattern is None:
            _pattern = re.compile("|".join(map(_as_words, sorted(_known, key=len, reverse=True))))
        pattern = _pattern
    if pattern is not None:
        text = pattern.sub(lambda found: _known[found[0]], text)
    if ":/" not in text:
        return text
    return _URL.sub(_hide_url, text)


def hide_in(texts: Mapping[str, str]) -> dict[str, str]:
    """Return texts by their keys as `hide` does: faster, since most of them hold nothing like a secret."""
    if _known:
        return {key: hide(text) for key, text in texts.items()}
    return {key: hide(text) if ":/" in text else text for key, text in texts.items()}


def _hide_url(found: re.Match[str]) -> str:
    url = found[0].rstrip(".,:;)")  # punctuation of the sentence
    return _take_apart(url).masked(all_parameters=False) + found[0][len(url) :]


def _as_words(secret: str) -> str:
    # A short one may be part of other words.
    if len(secret) >= _SHORTEST_TOKEN:
        return re.escape(secret)
    begin, end = (r"(?<!\w)" if secret[0].isalnum() else ""), (r"(?!\w)" if secret[-1].isalnum() else "")
    return f"{begin}{re.escape(secret)}{end}"
