"""What the shell completes: commands, their flags, overrides, and the names of runs, studies and aliases."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence

from mnist_pipeline.system.errors import ConfigError

Command = Callable[[Sequence[str]], None]

FILES = ":files"
"""The answer that lets the shell complete the names of files."""

_HYDRA_APPS = {"train": "config", "sweep": "sweep"}
_OF_RUNS = ("compare", "diff", "report", "promote", "reproduce")
_FILE_FLAGS = ("--output", "--figures", "--config-dir")
_OVERRIDES = ("data=", "tracking.uri=", "tracking.experiment=")

_BASH = """\
_mnist_pipeline() {
  local line="${COMP_LINE:0:COMP_POINT}" IFS=$'\\n'
  local word="${line##* }" signs="${COMP_WORDBREAKS//[^=@:]/}"
  COMPREPLY=($(COMP_LINE="$line" "${COMP_WORDS[0]}" -sc query=bash 2> /dev/null))
  if [[ "${COMPREPLY[0]}" == ":files" ]]; then
    compopt -o default +o nospace
    COMPREPLY=()
  elif [[ -n "$signs" ]]; then  # bash replaces only what stands behind them
    COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*[$signs]}"}"}")
  fi
}
complete -o nospace -F _mnist_pipeline mnist-pipeline
"""

_ZSH = """\
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
_mnist_pipeline() {
  local -a found
  found=("${(@f)$(COMP_LINE="${BUFFER[1,CURSOR]}" "${words[1]}" -sc query=zsh 2> /dev/null)}")
  if [[ "${found[1]}" == ":files" ]]; then
    _files
  else
    compadd -S '' -- "${found[@]}"
  fi
}
compdef _mnist_pipeline mnist-pipeline
"""


def complete(arguments: Sequence[str], commands: Mapping[str, str], load: Callable[[str], Command]) -> None:
    """Print the function that installs the completion, or what the shell may put at the end of `COMP_LINE`.

    Args:
        arguments: -sc, and what the shell asks.
        commands: All commands.
        load: Returns the function of a command.

    Raises:
        ConfigError: The shell asks something else.
    """
    match arguments[1:]:
        case ["install=bash"]:
            print(_BASH, end="")
        case ["install=zsh"]:
            print(_ZSH, end="")
        case [str(asked)] if asked.startswith("query="):
            line = os.environ.get("COMP_LINE", "")
            print("\n".join(_list_candidates(line, commands, load)))
        case _:
            raise ConfigError("-sc: expected install=bash or install=zsh")


def _list_candidates(line: str, commands: Mapping[str, str], load: Callable[[str], Command]) -> list[str]:
    words = line.split()[1:]
    word = "" if line.endswith(" ") or not words else words.pop()
    if not words:
        return _fitting(word, [*commands, "--help", "--version"])
    command, *others = words
    if command not in commands:
        return []
    if others and others[-1] in _FILE_FLAGS:
        return [FILES]
    if word.startswith("-"):
        return _fitting(word, _list_flags(load(command)))
    if command in _HYDRA_APPS:
        return _complete_overrides(line.replace(f"{command} ", "", 1), config_name=_HYDRA_APPS[command])
    if command == "predict" and "=" not in word:
        return [FILES]
    if word.startswith("data="):
        from mnist_pipeline.config import compose

        return _fitting(word, [f"data={option}" for option in compose.list_options("data")])
    names = _list_runs() if command in _OF_RUNS else _list_studies() if command == "dashboard" else []
    return _fitting(word, [*names, *_OVERRIDES])


def _fitting(word: str, candidates: Sequence[str]) -> list[str]:
    """Return those that start with `word`; behind one that is whole stands a blank."""
    fitting = [one for one in candidates if one.startswith(word)]
    return [one if one.endswith(("=", "/", ".")) else f"{one} " for one in fitting]


def _list_flags(command: Command) -> list[str]:
    """Return the flags that a command's own help names."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        command(["--help"])
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", shown.getvalue())))


def _complete_overrides(line: str, *, config_name: str) -> list[str]:
    from mnist_pipeline.cli import hydra_app

    os.environ["COMP_LINE"], before = line, sys.argv
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        hydra_app.show(hydra_app.parse(["-sc", "query=bash"]), {}, config_name=config_name)
    sys.argv = before
    word = "" if line.endswith(" ") else line.split()[-1]
    return _fitting(word, shown.getvalue().split())


def _list_runs() -> list[str]:
    from mnist_pipeline.tracking import known_names, store

    database = store.database_of(store.default_uri())
    names = known_names.list_names(database) if database else []
    return [name for name in names if not re.search(r"\s", name)]  # a name with blanks is typed in quotes, or as an id


def _list_studies() -> list[str]:
    from mnist_pipeline.sweep import storage

    return [f"sweep.study={path.stem}" for path in storage.list_journals()]
