"""What steps learned from rows that are erased: statistics, models, drawn samples, kept beside the tables they fill."""

from collections.abc import Collection

from pyarrow import fs

from headgate.jobs.keep.erasure.rewrite import remove_folders
from headgate.jobs.lake.artifacts import read_small
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.storage import file_system


def learned_from(lake: Lake, tables: Collection[str]) -> dict[str, list[str]]:
    """Return, by table, the steps that may have learned from rows of some tables.

    Those of the tables themselves and of all that is made from them: a row may have been learned from and marked later,
    so that no version of such a table ever held it.
    """
    reached = set(tables)
    inputs = lake.system("lineage").select(["table_name", "input"]).to_pylist()
    while True:
        more = {e["table_name"] for e in inputs if e["input"] in reached} - reached
        if not more:
            break
        reached |= more
    found = {table: learned_steps(lake, table) for table in sorted(reached)}
    return {table: steps for table, steps in found.items() if steps}


def fitted_folder(lake: Lake, table: str) -> str:
    return f"{lake.root}/_system/fitted/{table}"


def learned_steps(lake: Lake, table: str) -> list[str]:
    """Return the ids of the steps of which a build of a table kept what they learned, as `table/position-name`."""
    files, base = file_system(fitted_folder(lake, table))
    found = set()
    for build in files.get_file_info(fs.FileSelector(base, allow_not_found=True)):
        saved = read_small(f"{fitted_folder(lake, table)}/{build.base_name}/steps.json") or {"steps": []}
        # What was fitted is another step than the one that is configured.
        found |= {entry["id"] for entry in saved["steps"] if entry["by"][0] not in entry}
    return sorted(found)


def forget(lake: Lake, table: str) -> None:
    """Remove what the steps of a table learned: the next build learns anew."""
    remove_folders(fitted_folder(lake, table))
