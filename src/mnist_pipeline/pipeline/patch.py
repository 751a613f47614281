"""The uncommitted changes of code and configuration as a patch, which a run keeps; secrets are masked."""

import fnmatch
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mnist_pipeline.system.secrets import STARS, hide

CODE_PATHS = ("src", "conf", "pyproject.toml", "requirements.lock")
MAX_PATCH_BYTES = 1_000_000

_SUFFIXES = frozenset({".py", ".pyi", ".typed", ".yaml", ".yml", ".toml", ".cfg", ".lock", ".html", ".css", ".js"})
_SECRET_FILES = (".env*", "*.env", "*.pem", "*.key", "id_*", ".netrc", ".pgpass", "credentials*", "secrets*")

_KEY = (
    r"(?<![\w-])[\w-]*(?:pass(?:word|wd|phrase)|pwd|secret|token|credentials?"
    r"|(?:api|access|private|secret|account|signing|encryption)[_-]?key)(?:[_-]?(?:id|value|hash|\d+))?[\"']?\s*"
)
_TYPE = r"(?::\s*[\w\[\], |.]+?)?\s*"  # an annotation of Python's
_QUOTED = r"""[bfru]{0,2}(?P<quote>"(?!"")|'(?!''))(?P<value>(?:\\.|(?!(?P=quote)).)+)"""
_QUOTED_VALUE = re.compile(rf"{_KEY}{_TYPE}[:=]\s*{_QUOTED}", re.IGNORECASE)
_PLAIN_VALUE = re.compile(rf"""{_KEY}[:=]\s*(?P<value>[^\s"'#][^#]*)""", re.IGNORECASE)
_VALUE_IN_COMMENT = re.compile(rf"#.*?{_KEY}[:=]\s*(?P<value>\S.*)", re.IGNORECASE)
_OPENED_BLOCK = re.compile(rf"{_KEY}:\s*(?:[|>][+-]?\d?)?\s*\Z", re.IGNORECASE)
_OPENED_LITERAL = re.compile(
    rf"{_KEY}{_TYPE}=\s*(?:[(\[{{\\]|[bfru]{{0,2}}(?:\"{{3}}|'{{3}})(?:(?!\"{{3}}|'{{3}}).)*)\s*\Z", re.IGNORECASE
)
_HARMLESS = re.compile(r"(?:null|none|true|false|~|\$\{.*\}|\?\?\?|\*+)?\Z", re.IGNORECASE)
_KEY_BLOCK = re.compile(r"-----(BEGIN|END) [A-Z ]*PRIVATE KEY-----")
_BEARER = re.compile(r"(?<=[Bb]earer )[\w.~+/-]{8,}=*")


@dataclass(frozen=True)
class Patch:
    """A patch that turns the commit into the current code with `git apply`.

    Attributes:
        content: Empty if nothing differs, or no difference can be kept.
        is_exact: Whether it has every difference; if not, secrets are masked or files are left out.
    """

    content: bytes
    is_exact: bool


def make(folder: Path) -> Patch | None:
    """Return the patch from the commit that is checked out in `folder` to the files that are there, new ones included.

    None if git fails, or if the patch would be longer than `MAX_PATCH_BYTES`.
    """
    try:
        changed = [*_changed(folder), *_untracked(folder)]
    except (OSError, subprocess.SubprocessError, _InnerCheckoutError):
        return None
    kept = [_without_secrets(name, diff) if _is_code(name) else Patch(b"", is_exact=False) for name, diff in changed]
    content = b"".join(part.content for part in kept)
    return Patch(content, all(part.is_exact for part in kept)) if len(content) <= MAX_PATCH_BYTES else None


class _InnerCheckoutError(Exception):
    """There is another checkout inside this one."""


def _changed(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the tracked files that differ from the commit, and how."""
    names = git(folder, "diff", "--name-only", "--no-renames", "-z", "HEAD", "--", *CODE_PATHS).split(b"\0")
    for name in filter(None, names):
        yield os.fsdecode(name), _diff(folder, "HEAD", "--", f":(top,literal){os.fsdecode(name)}")


def _untracked(folder: Path) -> Iterator[tuple[str, bytes]]:
    names = git(folder, "ls-files", "--others", "--exclude-standard", "-z", "--", *CODE_PATHS).split(b"\0")
    for name in filter(None, names):
        if name.endswith(b"/"):
            raise _InnerCheckoutError
        yield os.fsdecode(name), _diff(folder, "--no-index", "--", os.devnull, os.fsdecode(name), codes=(0, 1))


def _diff(folder: Path, *words: str, codes: tuple[int, ...] = (0,)) -> bytes:
    # The patch must apply anywhere, whatever the user's git settings are.
    prefixes = ("--src-prefix=a/", "--dst-prefix=b/", "--no-renames")
    plain = ("--binary", "--unified=3", "--no-color", "--no-ext-diff", "--no-textconv")
    return git(folder, "diff", *plain, *prefixes, *words, codes=codes)


def git(folder: Path, *words: str, codes: tuple[int, ...] = (0,)) -> bytes:
    """Return what git prints.

    Raises:
        OSError, subprocess.SubprocessError: git is missing or fails.
    """
    arguments = ["git", "--no-optional-locks", "-C", str(folder), *words]
    # A hook of another repository leaves variables that point there.
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(arguments, capture_output=True, timeout=10, check=False, env=own)
    if done.returncode not in codes:
        raise subprocess.CalledProcessError(done.returncode, arguments)
    return done.stdout


def _is_code(name: str) -> bool:
    path = PurePosixPath(name)
    is_secret = any(fnmatch.fnmatch(part.lower(), pattern) for part in path.parts for pattern in _SECRET_FILES)
    return path.suffix.lower() in _SUFFIXES and not is_secret


def _without_secrets(name: str, diff: bytes) -> Patch:
    """Mask secrets in added lines, and leave out hunks with secrets in other lines, which git compares with its own."""
    if b"\nGIT binary patch\n" in diff:
        return Patch(b"", is_exact=False)
    head, *hunks = re.split(r"(?m)^(?=@@ )", diff.decode("utf-8", "surrogateescape"))
    kept: list[str] = []
    is_exact = True
    for hunk in hunks:
        first, *lines = hunk.split("\n")
        place = "@@".join(first.split("@@")[:2])  # git appends a line of the file to it
        masked = _mask_lines(name, lines)
        is_exact = is_exact and masked == lines
        if all(new == old or old.startswith("+") for new, old in zip(masked, lines, strict=True)):
            kept.append("\n".join([f"{place}@@", *masked]))
    if hunks and not kept:
        return Patch(b"", is_exact=False)
    return Patch("".join([head, *kept]).encode("utf-8", "surrogateescape"), is_exact)


def mask(content: str) -> str:
    """Return a patch with its secrets masked, for display; it need not apply any more."""
    files = re.split(r"(?m)^(?=diff --git )", content)
    return "".join("\n".join(_mask_lines(file.partition("\n")[0], file.split("\n"))) for file in files)


def _mask_lines(name: str, lines: Sequence[str]) -> list[str]:
    """Return the lines of a hunk, each with its leading sign, masked."""
    masked: list[str] = []
    is_python = name.endswith((".py", ".pyi"))
    opened = _OPENED_LITERAL if is_python else _OPENED_BLOCK
    is_key = False
    depth: int | None = None  # of the key whose value continues on the next lines
    for line in lines:
        sign, text = line[:1], line[1:]
        indent = len(text) - len(text.lstrip())
        if sign == "\\" or not text.strip():
            masked.append(line)
            continue
        if depth is not None and indent <= depth:
            depth = None
        block = _KEY_BLOCK.search(text)
        is_key = is_key or (block is not None and block[1] == "BEGIN")
        if is_key or depth is not None:
            masked.append(f"{sign}{text[:indent]}{STARS}")
        elif opened.search(text):
            depth = indent
            masked.append(sign + re.sub(r"(\"{3}|'{3}).+", rf"\1{STARS}", text))
        else:
            masked.append(sign + _mask_line(text, is_python=is_python))
        is_key = is_key and not (block is not None and block[1] == "END")
    return masked


def _mask_line(line: str, *, is_python: bool) -> str:
    line = _BEARER.sub(STARS, hide(line))
    line = _QUOTED_VALUE.sub(_star, line)
    # Unquoted values in Python are names and calls, not secrets.
    return (_VALUE_IN_COMMENT if is_python else _PLAIN_VALUE).sub(_star, line)


def _star(found: re.Match[str]) -> str:
    value = found["value"].rstrip()
    # Within {} an unquoted value ends with a comma; elsewhere it may hold any.
    if "quote" not in found.re.groupindex and "{" in found.string[: found.start("value")]:
        value = re.split(r"[,}]", value, maxsplit=1)[0].rstrip()
    if _HARMLESS.match(value):
        return found[0]
    begin = found.start("value") - found.start()
    return f"{found[0][:begin]}{STARS}{found[0][begin + len(value) :]}"
