"""The jars of Delta, Avro and PostgreSQL's driver: resolved once by Spark, verified, then read from a local folder."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from headgate.jobs.errors import HeadgateError, UsageError
from headgate.jobs.spark.java import cache_folder, java_home
from headgate.version import DELTA, SPARK

DELTA_SPARK = f"delta-spark_{SPARK.rpartition('.')[0]}_2.13"
COORDINATES = ",".join(
    (
        f"io.delta:{DELTA_SPARK}:{DELTA}",
        f"org.apache.spark:spark-avro_2.13:{SPARK}",
        "org.postgresql:postgresql:42.7.14",
    )
)
# Everything else that they ask for is a second copy of what Spark ships.
EXCLUDED = (
    "org.apache.hadoop:*,org.apache.parquet:*,org.apache.logging.log4j:*,org.slf4j:*,com.fasterxml.jackson.core:*,"
    "com.fasterxml.jackson.datatype:*,com.fasterxml.jackson.module:*,com.github.luben:*,org.xerial.snappy:*,"
    "commons-logging:*,commons-pool:*,io.airlift:*,javax.annotation:*,org.locationtech.jts:*,org.roaringbitmap:*,"
    "com.google.code.findbugs:*,org.antlr:*,org.tukaani:*,org.checkerframework:*"
)
JARS_OF = f"delta-{DELTA}-spark-{SPARK}"  # the name of their folder in the cache
SHA256 = {
    f"{DELTA_SPARK}-{DELTA}.jar": "75a9400986853c061f5109f012547de2545a5759e5e752e5ef633dabe16a4f10",
    f"delta-storage-{DELTA}.jar": "c46735481fa8e326b0957be02b4420cbcab4b325bb08009b7f2045a95133f1cc",
    f"delta-kernel-api-{DELTA}.jar": "ee9b5a14ac3b7efdff4d61a58478fe8eb0e5a3fbca43889dca7290795fe79a11",
    f"delta-kernel-defaults-{DELTA}.jar": "225c975199e4718b38ee5b7e6da7f19e9585024262b2cec2656b32151a856b0b",
    f"delta-kernel-unitycatalog-{DELTA}.jar": "cea22dfb4ac562b3cd27bf652697750e8336009d73fb06631363aaaad5345ffa",
    "unitycatalog-client-0.6.0.jar": "48257499a86b801a3e2372cec55ac226ca1c1c7eabe5c118e7302f29a1fdbc19",
    "unitycatalog-hadoop-0.6.0.jar": "c47b63c961c87102b9e1d63809a0915ba4c86b7652f57c8d39ca3a05b441a150",
    f"spark-avro_2.13-{SPARK}.jar": "6a19d90bc3b6e88d8db0fa36a19273aa10fea2dbd7a62bb60e4cedd73051b32d",
    "postgresql-42.7.14.jar": "73914527305a40cce504b0d3d90b23caf565136912d607ae8ae7c5895512332c",
}


def jars_folder() -> Path:
    """The folder that `HEADGATE_JARS` names, or the one in the user's cache."""
    named = os.environ.get("HEADGATE_JARS")
    return Path(named) if named else cache_folder() / "jars" / JARS_OF


def missing_jars(folder: Path) -> list[str]:
    return [name for name in SHA256 if not (folder / name).is_file()]


def local_jars() -> list[str]:
    """Paths of Delta's jars, resolving them the first time; raises `UsageError` if `HEADGATE_JARS` lacks any."""
    folder = jars_folder()
    missing = missing_jars(folder)
    if missing and os.environ.get("HEADGATE_JARS"):
        raise UsageError(f"HEADGATE_JARS={folder} lacks {', '.join(missing)}; deploy/jars/pom.xml builds the folder")
    if missing:
        resolve(folder)
    return [str(folder / name) for name in SHA256]


def resolve(folder: Path) -> None:
    """Fetch the jars by Maven coordinates into `folder`, which appears only complete and verified."""
    import pyspark

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        # Only Maven Central, the resolver's default root: Spark would also ask a repository that has none of these.
        settings = Path(scratch, "ivysettings.xml")
        settings.write_text(
            '<ivysettings><settings defaultResolver="central"/>'
            '<resolvers><ibiblio name="central" m2compatible="true"/></resolvers></ivysettings>'
        )
        nothing = Path(scratch, "nothing.py")
        nothing.write_text("")
        command = [
            str(Path(pyspark.__path__[0], "bin", "spark-submit")),
            *("--master", "local[1]", "--packages", COORDINATES, "--exclude-packages", EXCLUDED),
            *("--conf", f"spark.jars.ivySettings={settings}", "--conf", f"spark.jars.ivy={scratch}/ivy"),
            str(nothing),
        ]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYSPARK_GATEWAY")}
        environment |= {"JAVA_HOME": str(java_home()), "PYSPARK_PYTHON": sys.executable}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        found = {p.name.split("_", 1)[1]: p for p in Path(scratch, "ivy", "jars").glob("*.jar")}
        if done.returncode or set(SHA256) - set(found):
            last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
            raise HeadgateError(
                f"Spark's resolver could not fetch {COORDINATES}. On a closed network, set HEADGATE_JARS to a folder "
                f"built with deploy/jars/pom.xml.\n{last}"
            )
        ready = Path(scratch, "ready")
        ready.mkdir()
        for name, checksum in SHA256.items():
            if hashlib.sha256(found[name].read_bytes()).hexdigest() != checksum:
                raise HeadgateError(f"{name} does not have its known checksum; nothing was installed")
            shutil.copy(found[name], ready / name)
        shutil.rmtree(folder, ignore_errors=True)
        ready.rename(folder)
