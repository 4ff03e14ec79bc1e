"""Which settings Spark knows, by the classes that declare them."""

import re
import zipfile
from functools import cache
from pathlib import Path

import pyspark

VOLUME = r"spark\.kubernetes\.(driver|executor)\.volumes\.persistentVolumeClaim\.spark-local-dir-\d\."
VOLUME += r"(mount\.(path|readOnly)|options\.(claimName|sizeLimit|storageClass))"
NAMED = r"spark\.(executorEnv|yarn\.appMasterEnv|emr-serverless\.driverEnv|dataproc\.driverEnv)\."
NAMED += r"(PYSPARK_PYTHON|PYSPARK_DRIVER_PYTHON|HEADGATE_LOG|HEADGATE_ZIP)"


@cache
def known_settings() -> set[str]:
    """Return the names of settings in the classes of Spark that declare them."""
    names: set[bytes] = set()
    for jar in Path(pyspark.__path__[0], "jars").glob("spark-*.jar"):
        with zipfile.ZipFile(jar) as classes:
            for entry in classes.namelist():
                if re.search(r"(Conf|Config|config/\S+)[$\w]*\.class$", entry):
                    names.update(re.findall(rb"spark\.[A-Za-z][\w.]*[A-Za-z]", classes.read(entry)))
    return {name.decode() for name in names}


def is_setting(name: str) -> bool:
    """Return whether a setting is one of Spark, or of what Spark lets one name."""
    named = re.fullmatch(VOLUME, name) or re.fullmatch(NAMED, name)
    return bool(named) or name.removesuffix(".serviceAccountName") in known_settings()
