"""`renga completion`: the commands, their options and the configs, for the Tab key of a shell."""

import argparse
from collections.abc import Callable, Iterable
from typing import NamedTuple


class Command(NamedTuple):
    """A command as a shell has to know it.

    Attributes:
      name: of the command.
      help: on one line.
      options: their long names, with what they are for.
      words: what may stand without an option: known words; files too, unless the command takes none.
      takes_files: whether files may.
    """

    name: str
    help: str
    options: dict[str, str]
    words: list[str]
    takes_files: bool


def completion(shell: str, parser: argparse.ArgumentParser, configs: Iterable[str]) -> str:
    """The text that a shell reads.

    Args:
      shell: "bash", "zsh" or "fish".
      parser: the whole command line.
      configs: names of those that are installed.
    """
    return SHELLS[shell](commands_of(parser, list(configs)))


def commands_of(parser: argparse.ArgumentParser, configs: list[str]) -> list[Command]:
    """The commands of a parser."""
    (subs,) = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    helps = {each.dest: each.help or "" for each in subs._choices_actions}
    return [_command(name, helps[name], sub, configs) for name, sub in subs.choices.items()]


def _command(name: str, text: str, parser: argparse.ArgumentParser, configs: list[str]) -> Command:
    options = {
        flag: (action.help or "").partition(" (")[0]
        for action in parser._actions
        for flag in action.option_strings
        if flag.startswith("--")
    }
    free = [action for action in parser._actions if not action.option_strings]
    words = [str(word) for action in free for word in action.choices or ()]
    words += configs if any(action.dest == "config" for action in free) else []
    return Command(name, text, options, words, any(not action.choices for action in free))


def _bash(commands: list[Command]) -> str:
    cases = "\n".join(
        f'    {each.name}) words="{" ".join(each.words)}"; options="{" ".join(each.options)}"; '
        f"files={int(each.takes_files)} ;;"
        for each in commands
    )
    return f"""# renga completion bash > ~/.local/share/bash-completion/completions/renga
_renga() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" words="" options="" files=0
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{" ".join(each.name for each in commands)}" -- "$current"))
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  if [ "${{current:0:1}}" = - ]; then
    COMPREPLY=($(compgen -W "$options" -- "$current"))
    return
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [ "$files" -eq 1 ]; then
    local IFS=$'\n'
    COMPREPLY+=($(compgen -f -- "$current"))
  fi
}}
complete -o filenames -F _renga renga
"""


def _zsh(commands: list[Command]) -> str:
    described = "\n".join(f"    {_quoted(f'{each.name}:{each.help}')}" for each in commands)
    cases = "\n".join(
        f"    {each.name})\n"
        f"      options=({' '.join(_quoted(f'{flag}:{text}') for flag, text in each.options.items())})\n"
        f"      known=({' '.join(each.words)}); files={int(each.takes_files)} ;;"
        for each in commands
    )
    return f"""#compdef renga
# renga completion zsh > a file _renga in a folder of $fpath
compdef _renga renga
_renga() {{
  local -a commands options known
  local -i files=0
  commands=(
{described}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  case "${{words[2]}}" in
{cases}
  esac
  if [[ "${{words[CURRENT]}}" == -* ]]; then
    _describe option options
    return
  fi
  compadd -- $known
  (( files )) && _files
}}
if [ "$funcstack[1]" = _renga ]; then
  _renga
fi
"""


def _fish(commands: list[Command]) -> str:
    lines = ["# renga completion fish > ~/.config/fish/completions/renga.fish", "complete -c renga -f"]
    for each in commands:
        lines.append(f"complete -c renga -n __fish_use_subcommand -a {each.name} -d {_quoted(each.help)}")
        seen = f"-n '__fish_seen_subcommand_from {each.name}'"
        if each.words:
            lines.append(f"complete -c renga {seen} -a {_quoted(' '.join(each.words))}")
        if each.takes_files:
            lines.append(f"complete -c renga {seen} -F")
        for flag, text in each.options.items():
            lines.append(f"complete -c renga {seen} -l {flag.removeprefix('--')} -d {_quoted(text)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "").replace("\n", " ") + "'"


SHELLS: dict[str, Callable[[list[Command]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
