"""The README is true: its programs run, its commands are the gate's, its table of folders is the repository."""

import re
import shlex
from pathlib import Path

import pytest

from renga.training.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PROGRAMS = [text for kind, text in BLOCKS if kind == "python"]
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: re.sub(r"\W+", "_", program)[:30])
def test_a_program_of_the_readme_runs(program, capsys):
    exec(compile(program, "README.md", "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    for claimed in re.findall(r"^ *# (\w+/\w+ = .*)$", program, re.MULTILINE):
        assert claimed in printed


def test_the_readme_has_the_programs_that_it_promises():
    assert len(PROGRAMS) >= 3
    twenty, ten = (program for program in PROGRAMS[:2])
    assert sum(bool(line.strip()) for line in twenty.splitlines()) <= 20
    loop = ten[ten.index("@jax.jit") :]
    assert sum(bool(line.strip()) for line in loop.splitlines()) <= 10


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("renga ")] + ["renga train"])
def test_a_command_of_the_readme_runs(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command)[1:]
    if words[0] == "train":
        words += ["--set", "train.num_steps=4", "--set", "train.report_every=2", "--set", "net.hidden=8"]
    assert main(words) == 0


def test_the_gate_runs_the_two_commands_word_for_word():
    installs = [command for command in COMMANDS if command.startswith("pip install")]
    assert installs == ["pip install -e '.[cli]' && renga train", "pip install -e '.[test]' && pytest -n 2"]
    gate = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert 'eval "$(readme 1)"' in gate
    assert 'eval "$(readme 2)"' in gate


def test_the_table_of_folders_is_the_repository():
    for folder in re.findall(r"^\| `(\w+)/`", README, re.MULTILINE):
        assert (ROOT / folder).is_dir()


def test_the_readme_links_to_files_that_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
