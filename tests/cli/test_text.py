"""What is read of the standard library, and how it is split."""

import math
import sysconfig
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga.training.cli._docstrings import PACKAGES, Docstrings
from renga.training.cli._documentation import Documentation
from renga.training.cli._networks import Gru
from renga.training.cli._task import Losses
from renga.training.cli._text import ALPHABET, MODULES, VOCAB_SIZE, decode, docstrings, encode, held_out

SOURCE = '''
"""The module."""

def first():
    """The first, in a module that cannot be run."""

class Thing:
    """A thing.

        Indented.
    """

    async def method(self):
        r"""A method with a \\d that means something."""
        def inside():
            """The first, in a module that cannot be run."""

    silent = "no docstring \\d"

def last():
    return 1 / 0

last()
'''


@pytest.fixture
def library(tmp_path, monkeypatch) -> Path:
    """An empty standard library."""
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    return tmp_path


def write(path: Path, source: str, encoding: str = "utf-8") -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(source, encoding=encoding)


def test_the_alphabet_is_the_end_of_a_line_and_printable_ascii_and_all_else_is_a_question_mark():
    assert len(ALPHABET) == VOCAB_SIZE == 96
    assert encode(ALPHABET).tolist() == list(range(96))
    assert decode(encode(ALPHABET)) == ALPHABET
    assert decode(encode("\té\x00😀\x7f ok\n")) == "????? ok\n"
    assert encode("").shape == (0,)


def test_docstrings_are_read_in_the_order_of_the_source_once_each_and_nothing_is_run(library):
    write(library / "module.py", SOURCE)
    texts = [
        "The module.",
        "The first, in a module that cannot be run.",
        "A thing.\n\nIndented.",
        "A method with a \\d that means something.",
    ]
    assert docstrings(["module", "missing"], "data") == {"module.py": texts}
    assert docstrings(["module"], "data", 5) == {"module.py": ["The m", "The f", "A thi", "A met"]}
    assert docstrings(["module"], "data", 3) == {"module.py": ["The", "A t", "A m"]}


def test_a_package_is_read_file_by_file_without_its_tests(library):
    write(library / "package/__init__.py", '"""A package."""')
    write(library / "package/part/b.py", '# coding: latin-1\n"""Ein Stück."""', "latin-1")
    write(library / "package/part/a.py", '"""A package."""\ndef f():\n    """A function."""')
    write(library / "package/part/silent.py", "x = 1")
    for folder in "test", "tests":
        write(library / f"package/{folder}/__init__.py", '"""A test."""')
    assert docstrings(["package"], "data") == {
        "package/__init__.py": ["A package."],
        "package/part/a.py": ["A function."],
        "package/part/b.py": ["Ein Stück."],
    }


def test_the_modules_are_sorted_and_this_python_has_them():
    assert sorted(set(MODULES)) == MODULES
    assert sorted(set(PACKAGES)) == PACKAGES
    found = {file.split("/")[0].removesuffix(".py") for file in docstrings(MODULES, "data")}
    assert len(found) > 0.9 * len(MODULES)


def test_who_is_held_out_depends_on_the_seed_and_on_no_other_name():
    names = [f"file{number}" for number in range(100)]
    train, test = held_out(names, 30, seed=0)
    assert (len(train), len(test)) == (70, 30)
    assert sorted(train + test) == sorted(names)
    assert held_out(names, 30, seed=0) == (train, test)
    assert held_out(names, 30, seed=1) != (train, test)
    assert held_out([*test, *train[:50]], 30, seed=0)[1] == test


def test_the_files_of_the_documentation_are_whole_on_one_side_of_the_split(library):
    for letter in "abcdefghij":
        write(library / f"json/{letter}.py", f'"""{9 * letter}"""\ndef f():\n    """{5 * letter}"""')
    train, test = data = Documentation(length=4, test_share=0.3).load(0, batch_size=1)
    assert (len(set(train) - {"\n"}), len(set(test) - {"\n"})) == (7, 3)
    assert not set(train) & set(test) - {"\n"}
    assert len(train) + len(test) == 10 * (9 + 2 + 5 + 2)
    assert Documentation(length=4, test_share=0.3).load(0, batch_size=1) == data
    assert Documentation(length=4, test_share=0.3).load(1, batch_size=1) != data


def test_no_text_that_is_held_out_is_in_training():
    train, test = Documentation().load(0, batch_size=64)
    lines = {line for line in test.splitlines() if len(line) > 60}
    shared = lines & set(train.splitlines())
    assert len(lines) > 500
    assert len(shared) < 0.02 * len(lines)  # single lines that two different docstrings have


def test_a_window_is_followed_by_its_next_character():
    text = "".join(ALPHABET[number % 96] for number in range(100))
    for part in Documentation(length=9).split((text, text[:50]), seed=0):
        x, y = part["x"], part["y"]
        assert (x.shape, x.dtype, y.dtype) == (y.shape, np.int32, np.int32)
        np.testing.assert_array_equal(x.ravel(), np.arange(x.size) % 96)
        np.testing.assert_array_equal(y.ravel(), np.arange(1, x.size + 1) % 96)
    assert len(Documentation(length=9).split((text, text[:50]), seed=0).train["x"]) == 11
    assert len(Documentation(length=9).split((text, text[:10]), seed=0).test["x"]) == 1


def test_a_network_that_knows_nothing_needs_the_bits_of_the_alphabet():
    bits = Documentation().metrics(jnp.zeros((3, 5, VOCAB_SIZE)), jnp.zeros((3, 5), jnp.int32))["bits"]
    np.testing.assert_allclose(bits, math.log2(96), rtol=1e-6)


def test_each_package_has_its_share_of_docstrings_on_both_sides_and_no_text_is_on_two():
    data = Docstrings(length=40, test_share=0.25)
    train, test = data.load(3, batch_size=64)
    assert data.load(3, batch_size=64) == (train, test)
    texts = [text for text, _ in train + test]
    assert len(set(texts)) == len(texts)
    assert max(map(len, texts)) == 40
    for label in range(len(PACKAGES)):
        nums = [sum(each == label for _, each in part) for part in (train, test)]
        assert nums[1] == round(sum(nums) / 4)


def test_docstrings_are_padded_to_one_length():
    labelled = [("def", 3), ("x", 0), ("12345", 8)]
    train, test = Docstrings(length=5).split((labelled, labelled[:1]), seed=0)
    assert train["x"].shape == (3, 5)
    assert train["lengths"].tolist() == [3, 1, 5]
    assert train["y"].tolist() == [3, 0, 8]
    assert [decode(row[:num]) for row, num in zip(train["x"], train["lengths"], strict=True)] == ["def", "x", "12345"]
    assert not train["x"][0, 3:].any()
    assert {name: array.dtype for name, array in test.items()} == dict.fromkeys(["x", "lengths", "y"], np.int32)


def test_padding_has_no_influence():
    data = Docstrings(length=6)
    losses = Losses(Gru(features=5).build(9), data)
    params, state = losses.init(jax.random.key(0))
    batch = data.split(([("def", 3), ("x", 0), ("123456", 8)], [("x", 0)]), seed=0).train
    padding = np.arange(6) >= batch["lengths"][:, None]
    other = batch | {"x": np.where(padding, 50, batch["x"])}
    assert (other["x"] != batch["x"]).sum() == 8
    grad_fn = jax.jit(jax.value_and_grad(losses.loss, has_aux=True))
    jax.tree.map(np.testing.assert_array_equal, *(grad_fn(params, state, each, None) for each in (batch, other)))
    logits = np.asarray(losses.logits(params, state, batch)[0])
    for text, row in zip(["def", "x", "123456"], logits, strict=True):
        alone = losses.net.apply(params, encode(text), lengths=len(text))
        np.testing.assert_allclose(alone, row, atol=1e-6)
    assert np.ptp(logits, 0).min() > 0
