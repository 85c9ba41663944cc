"""What the command line says of compiling, and what it keeps of it."""

import os
import re
import subprocess
import sys
from pathlib import Path

SHORT = ["--set", "train.num_steps=20", "--set", "train.report_every=20", "--set", "net.channels=[4]"]


def run(folder: Path, *words: str, **variables: str) -> str:
    """A command line in a process of its own, with caches in a folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"XDG_CACHE_HOME": str(folder / "cache")} | variables
    program = [sys.executable, "-c", "import sys; from renga.training.cli import main; sys.exit(main())", *words]
    result = subprocess.run(program, capture_output=True, text=True, check=False, cwd=folder, env=environment)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result.stdout


def test_profile_says_what_compiling_took_by_program(renga):
    answer = renga("train", "digits_sgd", *SHORT, "--out", "run", "--profile")
    assert answer.code == 0
    assert re.search(r"\nseconds +trace +lower +compile +programs\n", answer.out)
    assert re.search(r"\n_train_steps +\d+\.\d{3} +\d+\.\d{3} +\d+\.\d{3} +1\n", answer.out)
    assert re.search(r"\nall +\d+\.\d{3} +\d+\.\d{3} +\d+\.\d{3} +\d+\n", answer.out)


def test_a_second_run_finds_programs_compiled_and_has_the_same_numbers(tmp_path):
    first = run(tmp_path, "train", "digits_convnet", *SHORT[:4], "--out", "one", "--profile")
    assert "found in the cache" not in first
    assert any((tmp_path / "cache" / "renga").iterdir())
    second = run(tmp_path, "train", "digits_convnet", *SHORT[:4], "--out", "two", "--profile")
    assert re.search(r"\n\d+ of them were found in the cache\n", second)
    for name in ("metrics.csv", "params.npz"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_no_program_is_kept_where_the_environment_says_so(tmp_path):
    run(tmp_path, "list", JAX_ENABLE_COMPILATION_CACHE="0")
    assert not (tmp_path / "cache").exists()


def test_a_folder_in_the_environment_wins(tmp_path):
    run(tmp_path, "list", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"))
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert "digits_sgd" in run(tmp_path, "list")
