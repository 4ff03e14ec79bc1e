"""Steps that are not headgate's own: from Python files that a pipeline names, and from installed packages.

A file or a package defines subclasses of `Step` (see `headgate.transforms.step`), each with a `name` and documented
options. Packages name theirs by the entry-point group `headgate.steps`: `name = "package.module:Class"`.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from headgate.jobs.errors import UsageError
from headgate.transforms.step import Step
from headgate.transforms.steps import STEPS

GROUP = "headgate.steps"


def steps_of(files: Mapping[Path, str]) -> dict[str, type[Step]]:
    """Return all steps that a pipeline may use, by name; raise `UsageError` for a step that cannot be one.

    files: path -> the place in the pipeline that names it. A name that headgate or another file has is refused.
    """
    found: dict[str, type[Step]] = dict(STEPS)
    where = dict.fromkeys(found, "headgate")
    offered = [(f"package {dist}", step) for dist, step in packaged()]
    offered += [(place, step) for file, place in files.items() for step in steps_in(file, place)]
    for place, step in offered:
        check_step(step, place)
        if step.name in found:
            raise UsageError(
                f"{place}: there is a step '{step.name}' already ({where[step.name]}); choose another name"
            )
        found[step.name], where[step.name] = step, place
    return found


def code_of_step(step: type[Step]) -> str | None:
    """Return a hash of the file that defines a step and of its package's version; None for headgate's own steps."""
    if step.__module__.startswith("headgate."):
        return None
    module = sys.modules.get(step.__module__)
    file = getattr(module, "__file__", None)
    if file is None:
        raise UsageError(f"step '{step.name}': the file that defines it cannot be found")
    versions = [importlib.metadata.version(dist) for dist, packaged_step in packaged() if packaged_step is step]
    return hashlib.sha256(Path(file).read_bytes() + "".join(versions).encode()).hexdigest()


def check_step(step: Any, place: str) -> None:
    """Raise `UsageError` for what is not a step as headgate's own are."""
    name = getattr(step, "name", None)
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UsageError(f"{place}: {step.__name__}.name must be lower-case letters, digits and '_', not {name!r}")
    made = vars(step).get("__dataclass_params__")  # of its own, not of the class that it inherits from
    if made is None or not made.frozen:
        raise UsageError(f"{place}: {step.__name__} must be a dataclass: @dataclass(frozen=True, kw_only=True)")


def steps_in(file: Path, place: str) -> Iterator[type[Step]]:
    """Yield the steps that a Python file defines; raise `UsageError` where it cannot be run or has none."""
    module = module_of(file, place)
    own = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Step) and value.__module__ == module.__name__
    ]
    named = [step for step in own if "name" in vars(step)]
    if not named:
        raise UsageError(f"{place}: {file} defines no step: a class that inherits from Step and has a name")
    yield from named


def module_of(file: Path, place: str) -> ModuleType:
    """Run a Python file as a module of its own name, and let executors have its functions by value."""
    from pyspark import cloudpickle

    try:
        text = file.read_bytes()
    except OSError as e:
        raise UsageError(f"{place}: {file} cannot be read: {e.strerror}") from e
    name = f"headgate_steps_{hashlib.sha256(str(file.absolute()).encode() + text).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UsageError(f"{place}: {file} is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as e:
        del sys.modules[name]
        raise UsageError(f"{place}: {file} cannot be run: {type(e).__name__}: {e}") from e
    cloudpickle.register_pickle_by_value(module)
    return module


@functools.cache
def packaged() -> tuple[tuple[str, type[Step]], ...]:
    """Return the steps of installed packages, each with the package's name."""
    found = []
    for entry in importlib.metadata.entry_points(group=GROUP):
        package = entry.dist.name if entry.dist else GROUP
        try:
            step = entry.load()
        except Exception as e:
            raise UsageError(f"package {package}: its step '{entry.name}' cannot be loaded: {e}") from e
        if not (inspect.isclass(step) and issubclass(step, Step)):
            raise UsageError(
                f"package {package}: '{entry.name}' ({entry.value}) is not a class that inherits from Step"
            )
        found.append((package, step))
    return tuple(sorted(found, key=lambda f: f[0]))
