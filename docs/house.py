"""Show the house in figures, so that drift is seen: `python docs/house.py [CLONE]`. It reports and forbids nothing.

Lines are those of files, blank ones and comments included. What a command imports is counted with the imports inside
its functions, and without those for type checkers alone. Standard library only.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

NOT_PRODUCT = ("tests", "benchmarks", "docs")
MOST_PARAMETERS = 10


def main(clone: Path) -> None:
    names = subprocess.run(["git", "-C", clone, "ls-files", "*.py"], capture_output=True, text=True, check=True).stdout
    files = [Path(name) for name in names.split() if (clone / name).is_file()]
    lines = {file: len((clone / file).read_text(encoding="utf-8").splitlines()) for file in files}
    trees = {file: ast.parse((clone / file).read_text(encoding="utf-8")) for file in files}
    product = [file for file in files if file.parts[0] not in NOT_PRODUCT]
    modules = {module_name(file): file for file in product}
    imports = {file: imported(trees[file], file, modules) for file in product}

    print(f"product: {sum(lines[file] for file in product):,} lines in {len(product)} files")
    rooms = defaultdict(list)
    for file in product:
        rooms["/".join(file.parts[: 2 if file.parts[0] == "vertebra" else 1][: len(file.parts) - 1])].append(file)
    for room, inside in sorted(rooms.items()):
        print(f"  {room or '.':22} {sum(lines[file] for file in inside):7,} lines {len(inside):4} files")
    for other in NOT_PRODUCT:
        inside = [file for file in files if file.parts[0] == other]
        print(f"{other}: {sum(lines[file] for file in inside):,} lines in {len(inside)} files")

    print("\nwhat each command imports of ours")
    folder = "vertebra/cli" if any(file.match("vertebra/cli/*.py") for file in product) else "tools"
    commands = [file for file in product if str(file.parent) == folder and file.stem != "__init__"]
    for file in sorted(file for file in commands if has_main(trees[file])):
        closure = reached(file, imports)
        print(f"  {file.stem:22} {sum(lines[one] for one in closure):7,} lines {len(closure):4} files")

    importers = defaultdict(set)
    for file, targets in imports.items():
        for target in targets:
            importers[target].add(file)
    lonely = [file for file in product if len(importers[file]) == 1 and file.name != "__init__.py"]
    print(f"\nmodules with one importer: {len(lonely)}, {sum(lines[file] for file in lonely):,} lines")
    for file in sorted(lonely, key=lambda file: lines[file]):
        print(f"  {lines[file]:5} {file}, by {next(iter(importers[file]))}")

    wide = [found for file in product for found in many_parameters(trees[file], file)]
    print(f"\nfunctions with more than {MOST_PARAMETERS} parameters: {len(wide)}")
    for count, place in sorted(wide, reverse=True):
        print(f"  {count:5} {place}")


def module_name(file: Path) -> str:
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def has_main(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)


def imported(tree: ast.Module, file: Path, modules: dict[str, Path]) -> set[Path]:
    """Return our files that `file` imports; a module's packages count, as Python runs them too."""
    found = set()
    for node in at_run_time(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            for end in range(1, len(parts) + 1):
                # A script's neighbours are found without a package's name.
                for candidate in (".".join(parts[:end]), f"tools.{parts[0]}"):
                    if candidate in modules and (candidate.startswith("tools") <= (file.parts[0] == "tools")):
                        found.add(modules[candidate])
    return found - {file}


def at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from at_run_time(child)


def reached(start: Path, imports: dict[Path, set[Path]]) -> set[Path]:
    seen, todo = {start}, [start]
    while todo:
        new = imports[todo.pop()] - seen
        seen |= new
        todo += new
    return seen


def many_parameters(tree: ast.Module, file: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = sum(argument.arg not in ("self", "cls") for argument in given)
            if count > MOST_PARAMETERS:
                yield count, f"{file}:{node.lineno} {node.name}"


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve())
