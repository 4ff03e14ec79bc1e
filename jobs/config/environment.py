"""The environment of a command: its lake, its landing folder, its Spark settings."""

import os
import re
from datetime import date
from pathlib import Path

from headgate.jobs.config.document import checked, read_yaml
from headgate.jobs.config.models import Environment, StoreOptions
from headgate.jobs.config.secrets import Model
from headgate.jobs.errors import UsageError
from headgate.jobs.lake.storage import located
from headgate.jobs.lake.stores import scheme_of, use
from headgate.words import did_you_mean


def load_environment(name: str | None, pipeline: Path | None = None, **given: str | None) -> Environment:
    """Return the environment: `given` (options) before environment variables, the file and the defaults.

    `HEADGATE_LAKE` and `HEADGATE_LANDING` are the variables. The file is `env/<name>.yaml` beside the pipeline, or else
    in the nearest `conf/env` of the working folder and those above it; without a name it is `local.yaml`, which may be
    absent. Relative places in a file of `conf/env` start at the folder that holds `conf`, all others at the working
    folder. From then on this process opens the buckets of its places as its store says.
    """
    if name is not None and not re.fullmatch(r"[\w-][\w.-]*", name):
        raise UsageError(f"--env: '{name}' is not a valid name of an environment (a file conf/env/NAME.yaml)")
    folders = list(dict.fromkeys([*([pipeline.parent / "env"] if pipeline else []), nearest_folder()]))
    files = [folder / f"{name or 'local'}.yaml" for folder in folders]
    file = next((f for f in files if f.is_file()), None)
    if file is None and name is not None:
        known = sorted({p.stem for folder in folders for p in folder.glob("*.yaml")})
        listed = f" (environments: {', '.join(known)})" if known else ""
        places = " or ".join(map(str, files))
        raise UsageError(f"--env: there is no environment '{name}', no {places}{did_you_mean(name, known)}{listed}")
    environment = Environment()
    if file is not None:
        document = read_yaml(file)
        environment = checked(Environment, document, document.data, ())
        start = start_of(file)
        places_of_file = {n: beneath(start, getattr(environment, n)) for n in ("lake", "landing")}
        environment = environment.model_copy(update=places_of_file | files_of(environment, start))
    empty = next((option for option, value in given.items() if value == ""), None)
    if empty:
        raise UsageError(f"--{empty}: the value is empty")
    places_of = {n: given.get(n) or os.environ.get(f"HEADGATE_{n.upper()}") for n in ("lake", "landing")}
    environment = environment.model_copy(
        update={n: located(value) if scheme_of(value) else value for n, value in places_of.items() if value}
    )
    if environment.store != StoreOptions():
        use(environment.store.store(), environment.lake, environment.landing)
    return environment


def nearest_folder() -> Path:
    """Return the nearest `conf/env` of the working folder and those above it."""
    here = Path("conf/env")
    if here.is_dir():
        return here
    return next((found for above in Path.cwd().parents if (found := above / here).is_dir()), here)


def start_of(file: Path) -> Path:
    """Return the folder at which the relative places of an environment file start; empty for the working folder."""
    conf = Path(os.path.abspath(file)).parents[1]
    return Path() if conf.name != "conf" or conf.parent == Path.cwd() else conf.parent


def files_of(environment: Environment, start: Path) -> dict[str, Model]:
    """Return the options that write files beside the lake, with their relative places where they start."""
    found = {}
    for name, option in (("metrics", "textfile"), ("openlineage", "file"), ("tracing", "file")):
        options: Model | None = getattr(environment, name)
        place = getattr(options, option, None)
        if options is not None and place is not None:
            found[name] = options.model_copy(update={option: beneath(start, place)})
    return found


def beneath(start: Path, place: str) -> str:
    return located(place) if scheme_of(place) else str(start / place)


def parse_date(text: str, option: str = "--as-of") -> date:
    """Return the date of an option; raises `UsageError` for other text than an ISO date."""
    try:
        return date.fromisoformat(text)
    except ValueError as e:
        raise UsageError(f"{option}: '{text}' is not a day like 2013-01-31") from e
