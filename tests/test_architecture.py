"""The house: which room may know which, one path to every name, and a docstring at every door."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import renga
from renga import nets, optim, training

ROOT = Path(__file__).parent.parent
PACKAGES = {"nets": nets, "optim": optim, "training": training}
ALLOWED = {  # what each folder may import, beside the standard library and its own files
    "renga": {"jax", "numpy", "renga.nets", "renga.optim", "renga.training"},
    "nets": {
        "jax",
        "matplotlib",
        "numpy",
        "rich",
        "renga._call",
        "renga._lapack",
        "renga._names",
        "renga._patterns",
        "renga._programs",
    },
    "nets/convert": {"jax", "numpy", "safetensors", "renga._patterns"},
    "optim": {
        "jax",
        "numpy",
        "optax",
        "renga._call",
        "renga._lapack",
        "renga._names",
        "renga._patterns",
        "renga._programs",
    },
    "training": {
        "dp_accounting",
        "jax",
        "numpy",
        "optax",
        "orbax",
        "rich",
        "renga._call",
        "renga._lapack",
        "renga._patterns",
        "renga._programs",
        "renga.nets",
        "renga.optim",
        "tensorboardX",
    },
    "training/rl": {
        "brax",
        "gymnasium",
        "jax",
        "numpy",
        "numpyro",
        "optax",
        "renga._call",
        "renga.nets",
        "renga.optim",
        "renga.training",
    },
    "training/cli": {
        "PIL",
        "gymnax",
        "jax",
        "matplotlib",
        "numpy",
        "numpyro",
        "renga.nets",
        "renga.optim",
        "renga.training",
        "sklearn",
    },
}
LATE = {
    "PIL",
    "brax",
    "dp_accounting",
    "gymnasium",
    "gymnax",
    "numpyro",
    "orbax",
    "safetensors",
    "rich",
    "matplotlib",
    "sklearn",
    "tensorboardX",
}  # extras: imported where they are used


def imports(path: Path, folder: str, *, top_level: bool = False) -> set[str]:
    """What a file imports: top-level packages, and rooms of the house as `renga.room`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ["renga", *folder.split("/")] if folder != "renga" else ["renga"]
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            named = [alias.name for alias in node.names] if module in (["renga"], []) else [None]
            for name in named:
                full = [*module, name] if name else module
                found.add(".".join(full[:2]) if full[0] == "renga" else full[0])
    return found


def files(folder: str) -> list[Path]:
    """The Python files that stand in a folder of the house itself."""
    return sorted(path for path in (ROOT / folder).glob("*.py"))


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_point_one_way(folder):
    own = {"renga." + folder.split("/")[0]} if folder != "renga" else {"renga._call"}
    for path in files(folder):
        known = {name for name in imports(path, folder) if name not in sys.stdlib_module_names}
        assert known <= ALLOWED[folder] | own, f"{path.name} imports {known - ALLOWED[folder] - own}"


@pytest.mark.parametrize("folder", ALLOWED)
def test_extras_are_imported_only_where_they_are_used(folder):
    for path in files(folder):
        if path.name == "_plots.py":  # imported late as a whole
            continue
        assert not imports(path, folder, top_level=True) & LATE, path.name


def test_imports_inside_the_library_are_relative():
    for folder in ALLOWED:
        for path in files(folder):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                assert not [name for name in names if str(name).split(".")[0] == "renga"], path.name


def test_the_core_imports_without_any_extra_and_under_one_name_only():
    program = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {
            "sklearn", "matplotlib", "rich", "flax", "haiku", "torch", "chex", "dp_accounting", "orbax"
        }:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import renga
import pathlib
places = {}
for name, module in list(sys.modules.items()):
    file = getattr(module, "__file__", None)
    if file and name.split(".")[0] in {"renga", "nets", "optim", "training", "configs"}:
        places.setdefault(pathlib.Path(file).resolve(), []).append(name)
assert all(len(names) == 1 and names[0].split(".")[0] == "renga" for names in places.values()), places
assert len(places) > 15, places
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd="/", check=False)
    assert result.returncode == 0, result.stderr


def test_no_module_of_this_tree_is_loaded_under_a_name_outside_renga():
    rooms = [ROOT / folder for folder in ("nets", "optim", "training")]
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and any(room in Path(file).resolve().parents for room in rooms):
            assert name.startswith("renga."), name


def test_every_file_of_a_package_is_private_but_the_command_line_and_the_converters():
    for package in PACKAGES.values():
        public = {module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_")}
        assert public <= {"cli", "convert", "rl"}


def public_names() -> list[tuple[str, object]]:
    """Every name that a user can import from a package, with what it is."""
    return [
        (f"{name}.{member}", value)
        for name, package in PACKAGES.items()
        for member, value in vars(package).items()
        if not member.startswith("_") and not inspect.ismodule(value)
    ]


def ours() -> list[tuple[str, object]]:
    """The public names that were written here: not those that record a function of JAX or Optax."""
    return [
        (name, value) for name, value in public_names() if str(getattr(value, "__module__", "")).startswith("renga.")
    ]


def test_no_name_is_reachable_by_two_paths():
    seen: dict[int, str] = {}
    for name, value in public_names():
        assert id(value) not in seen, f"{name} is {seen[id(value)]}"
        seen[id(value)] = name


@pytest.mark.parametrize("name", [name for name, _ in public_names()])
def test_every_public_name_is_documented(name):
    value = dict(public_names())[name]
    summary = (inspect.getdoc(value) or "").split("\n")[0]
    assert len(summary) > 10, name


@pytest.mark.parametrize("name", [name for name, value in ours() if inspect.isfunction(value)])
def test_docstrings_name_every_argument_and_show_an_example(name):
    value: Any = dict(ours())[name]
    doc = inspect.getdoc(value) or ""
    for argument in inspect.signature(value).parameters:
        assert f"{argument}:" in doc, f"{name}: the docstring does not say what {argument} is"
    assert ">>>" in doc, f"{name}: the docstring has no example"
    assert "Returns:" in doc, name


def test_every_export_is_typed_by_name():
    for folder, package in PACKAGES.items():
        tree = ast.parse((ROOT / folder / "__init__.py").read_text(encoding="utf-8"))
        for node in tree.body[1:]:
            assert isinstance(node, ast.ImportFrom), folder
            assert all(alias.asname == alias.name for alias in node.names), folder
        assert package.__doc__


def test_every_module_says_what_it_is():
    for module in pkgutil.walk_packages(renga.__path__, "renga."):
        if not module.name.startswith("renga.configs"):
            assert (importlib.import_module(module.name).__doc__ or "").strip(), module.name
