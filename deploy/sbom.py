"""Write what a release is made of as CycloneDX: the packages that uv.lock names, and the jars that headgate fetches.

    python deploy/sbom.py dist

uv says what the lock names, all extras included. The same commit gives the same bytes.
"""

import json
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

from headgate.jobs.spark.jars import BASE, S3
from headgate.version import VERSION

ROOT = Path(__file__).parents[1]


def locked() -> dict[str, Any]:
    """Return uv's own account of the lock, without what is needed only to develop."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    command = [uv, "export", "--quiet", "--frozen", "--no-default-groups", "--all-extras", "--format", "cyclonedx1.5"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def sbom() -> dict[str, Any]:
    """Return the whole: uv's account, headgate's version, the jars by name and checksum."""
    whole = locked()
    jars = {**BASE.sha256, **S3.sha256}
    for name, checksum in jars.items():
        hashes = [{"alg": "SHA-256", "content": checksum}]
        whole["components"].append({"type": "file", "bom-ref": name, "name": name, "hashes": hashes})
    headgate = whole["metadata"]["component"]
    headgate["version"] = VERSION
    next(d for d in whole["dependencies"] if d["ref"] == headgate["bom-ref"])["dependsOn"] += jars
    # A time and a random number: they would differ from build to build.
    del whole["metadata"]["timestamp"], whole["serialNumber"]
    return whole | {"serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(whole))}"}


if __name__ == "__main__":
    written = Path(sys.argv[1], f"headgate-{VERSION}.cdx.json")
    written.write_text(json.dumps(sbom(), indent=1) + "\n", encoding="utf-8")
