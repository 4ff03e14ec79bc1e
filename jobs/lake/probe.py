"""A probe of the store of a lake: whether it does all that publishing needs."""

import uuid

from pyarrow import fs

from headgate.jobs.errors import first_line, storage_failure
from headgate.jobs.lake.storage import file_system, put_new, remove


def why_not_usable(folder: str) -> str | None:
    """Write a probe into a folder of an object store, write it again, list it, delete it; return what failed."""
    name = f"_probe-{uuid.uuid4().hex}"
    try:
        first, second = put_new(folder, name, b"1"), put_new(folder, name, b"2")
        files, base = file_system(folder)
        with files.open_input_stream(f"{base}/{name}") as stream:
            content = stream.readall()
        listed = {f.base_name for f in files.get_file_info(fs.FileSelector(base))}
        remove(f"{folder}/{name}")
        left = files.get_file_info(f"{base}/{name}").type != fs.FileType.NotFound
    except Exception as e:
        return first_line(storage_failure(e, folder) or e)
    if not first or second or content != b"1":
        return "an object that is there can be written over unasked, so two runs could both publish a version"
    if name not in listed:
        return "an object that was written is not listed"
    return "an object cannot be deleted" if left else None
