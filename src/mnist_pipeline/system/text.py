"""Foreign text, such as the names of runs and files, made safe to show: nothing in it has an effect."""

import html
import re

_ACTS_IN_MARKDOWN = re.compile(r"[\\`*~|\[\]$]|(?<![^\W_])[_@]|_(?![^\W_])")
_AS_ENTITIES = "$@"  # a backslash does not keep every Markdown reader from treating these as a formula or a mention
_MARKDOWN_LINK = re.compile(r"(?<!\\)\[([^\[\]]*)(?<!\\)\]\([^()\s]*\)")
_MARKDOWN_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])|[*`]")


def printable(text: str, *, keep: str = "") -> str:
    r"""Return `text` with every character that has an effect or is invisible written as an escape, such as ``\x1b`` or
    ``\u202e``.

    Those are control and format characters (including bidirectional and zero-width ones), white space other than the
    space, surrogates, and code points that are private or unassigned. Printable text does not change, so the function
    may be called twice.

    Args:
        text: Any text.
        keep: Characters to keep, such as a newline.
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in keep else _escape(sign) for sign in text)


def _escape(sign: str) -> str:
    if "\udc80" <= sign <= "\udcff":  # how Python represents a byte of a file name that is not UTF-8
        return f"\\x{ord(sign) & 0xFF:02x}"
    return repr(sign)[1:-1]


def markdown(text: str) -> str:
    """Return `text`, made printable, as Markdown that shows it as typed, inside a paragraph or a cell of a table."""
    return _ACTS_IN_MARKDOWN.sub(_escape_markdown, html.escape(printable(text), quote=False))


def _escape_markdown(found: re.Match[str]) -> str:
    return f"&#{ord(found[0])};" if found[0] in _AS_ENTITIES else f"\\{found[0]}"


def plain(text: str) -> str:
    """Return a line of Markdown with emphasis, code, links and escapes as plain text."""
    return html.unescape(_MARKDOWN_ESCAPE.sub(lambda found: found[1] or "", _MARKDOWN_LINK.sub(r"\1", text)))


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun: 1 node, 2 nodes."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
