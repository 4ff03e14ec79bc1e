"""The jars of Delta, Avro and PostgreSQL's driver, and those of S3: resolved once by Spark, verified, then local."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headgate.jobs.errors import HeadgateError, UsageError
from headgate.jobs.spark.java import cache_folder, java_home
from headgate.version import AWS, DELTA, HADOOP, SPARK

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
S3_COORDINATES = ",".join(
    (
        f"org.apache.hadoop:hadoop-aws:{HADOOP}",
        f"org.apache.spark:spark-hadoop-cloud_2.13:{SPARK}",
        f"software.amazon.awssdk:s3-transfer-manager:{AWS}",
        f"software.amazon.awssdk:sts:{AWS}",
        f"software.amazon.awssdk:apache-client:{AWS}",
    )
)
# All of AWS's SDK in one jar, other clouds, and second copies of what Spark ships.
S3_EXCLUDED = (
    "software.amazon.awssdk:bundle,software.amazon.s3.analyticsaccelerator:*,org.apache.hadoop:hadoop-azure,"
    "org.apache.hadoop:hadoop-cloud-storage,org.apache.hadoop:hadoop-client-api,org.apache.hadoop:hadoop-client-runtime,"
    "org.apache.hadoop:hadoop-huaweicloud,com.google.cloud.bigdataoss:*,com.google.guava:*,org.wildfly.openssl:*,"
    "io.netty:*,commons-codec:*,commons-logging:*,org.apache.httpcomponents:*,org.slf4j:*,joda-time:*,"
    "com.fasterxml.jackson.core:*,com.fasterxml.jackson.dataformat:*,org.scala-lang:*,org.spark-project.spark:*,"
    "org.eclipse.jetty:*"
)
S3_SHA256 = {
    f"annotations-{AWS}.jar": "8cd8bd8afd7eca5a367f69fd87427f6d9f3e7d359962122da24d71f1963f00cd",
    f"apache-client-{AWS}.jar": "c96494be30ecac6f0ab7a35fdd91a4c77ca8a5daf62f3d9d84644ef0f0524dc6",
    f"arns-{AWS}.jar": "f5a4d1d9b4e4fc63c9bda49bcf1c59d23fd876b276c6b43aaca12969337303a6",
    f"auth-{AWS}.jar": "4d8143b6198dc7a530c2ccdd813129c132b96736086c0d4fea85480b9bdbc5fe",
    f"aws-core-{AWS}.jar": "eb560c064fbaac7e2e7f4a77ac343d3083bea0d7f6e2c69ba022d3f3e859be90",
    f"aws-query-protocol-{AWS}.jar": "1b117672963ee5059c45f2aadb110f191b578d108d8f08d7c7a59e6c0b098a8e",
    f"aws-xml-protocol-{AWS}.jar": "daf87b429373ad586d165003b5b1d4fe498c6472eb65ec9a9e2aa7d56f3917dd",
    f"checksums-{AWS}.jar": "bca99ff25c9b917d6be03e5dce78ad5328e7dca485e96024fa8476e4192a800a",
    f"checksums-spi-{AWS}.jar": "21193b9b648843dcaff493f0dd80abab9ee6871b203b9218120554698d8f7b8a",
    f"crt-core-{AWS}.jar": "4e1f33de21b688695fec91b977ddfa99e9d376edcbad06a62b0c138c60b37de4",
    f"endpoints-spi-{AWS}.jar": "e54f246c668d70b55cffe0c8fad18d4465e74e22db75139918bd30610093d1e6",
    "eventstream-1.0.1.jar": "0c37d8e696117f02c302191b8110b0d0eb20fa412fce34c3a269ec73c16ce822",
    f"hadoop-aws-{HADOOP}.jar": "d2d24e6b715b5656b9d238bf13b6682a07e2004dd36aad74a73aeb854319f4d9",
    f"http-auth-{AWS}.jar": "d8aa3bd376aaec7196396e65fe8755f1fdd169e51357f8128ecdc7d23a687450",
    f"http-auth-aws-{AWS}.jar": "7ae124e81ac0c2860bb61fdde34a388dbe823fef8509dd46a6bec805ada90308",
    f"http-auth-aws-eventstream-{AWS}.jar": "565a4aacce955c5ffaed551f6faaaa958e9e92b2f8514c8482f664edb2bab576",
    f"http-auth-spi-{AWS}.jar": "7a2168c5a7baa856d7ae9f9c4f7522d2db9f1361108c38f5b6ece66f249e6a2d",
    f"http-client-spi-{AWS}.jar": "8ea61ce3b527779fbfe119e0775c4b7cfdf274a979b1e50596a634685a5b6542",
    f"identity-spi-{AWS}.jar": "85104635abf9e5c044aaf7f8951b63efc2ef82051b5ee303571ee2e1fd8b46d0",
    f"json-utils-{AWS}.jar": "2652cdb3668311bcff6e643c8612b9fea266423ae1ce33743c84dd7f77904311",
    f"metrics-spi-{AWS}.jar": "1db2e3da338148ee40a716e1733c9a5b99e9e6daa4db3aa8bd7e718adafa2510",
    f"netty-nio-client-{AWS}.jar": "07238668c9cf54531ee269fd6e2a1e2650fb75d6774d401f406c2a14f26af654",
    f"profiles-{AWS}.jar": "fef84619d101838ba45f48d0caddb09a85d9ed8bf869095bd7d2064796856cf7",
    f"protocol-core-{AWS}.jar": "7b32e41a3743b422d2edec1670f60b4c1e512fcd5ab7a53fef20742d6b9104d1",
    "reactive-streams-1.0.4.jar": "f75ca597789b3dac58f61857b9ac2e1034a68fa672db35055a8fb4509e325f28",
    f"regions-{AWS}.jar": "5ee0e26277c679ffa70d83923b0d5f77a53066ecde8610f28be1856947d60eaf",
    f"retries-{AWS}.jar": "ca3752ba31399721980c6398992921ff5aa164e084b4c14484333df58c76a353",
    f"retries-spi-{AWS}.jar": "a4218ea742fc9e07a620629d7a258bfd92b8ea3ef75f1b99193d0898ca3efe99",
    f"s3-{AWS}.jar": "abaedea7e68063e9c4ab090f80d14b9884c57b50953bfe6e5acaa23025609efa",
    f"s3-transfer-manager-{AWS}.jar": "0c9e654637247187a7e2494eb7a8799477a772a7d554cd3ae787cd3e3bae3c55",
    f"sdk-core-{AWS}.jar": "ea8e9856569f85075a8a806d0481c4bd848c98b24fd6d706fc0b5883fc4604dc",
    f"spark-hadoop-cloud_2.13-{SPARK}.jar": "e5b41b43d481510afd0cdc372b593770ddee5a0a348d0744cef6c6cd77a27943",
    f"sts-{AWS}.jar": "6495d0457f4e4c3724d8c9c5fe4f6f98c9530a22f92449c4cca5fd03622e4edb",
    f"third-party-jackson-core-{AWS}.jar": "eaece3eb60beb8ec09d8a4f48d5bff4110010b03cc23688bdcf2af2eb075cac6",
    f"utils-{AWS}.jar": "f150a38f2fec14ced2de6459bfe804f647c88baa573b218646ef89b436a29d42",
}


@dataclass(frozen=True)
class Jars:
    """Jars that belong together.

    folder: their name in the cache. coordinates: of those that bring the others. sha256: of every jar, by its name.
    """

    folder: str
    coordinates: str
    excluded: str
    sha256: Mapping[str, str]


BASE = Jars(f"delta-{DELTA}-spark-{SPARK}", COORDINATES, EXCLUDED, SHA256)
S3 = Jars(f"s3-hadoop-{HADOOP}-spark-{SPARK}", S3_COORDINATES, S3_EXCLUDED, S3_SHA256)
SETS = {"s3": S3}  # beside the base, where an environment needs them


def jars_folder(wanted: Jars = BASE) -> Path:
    """The folder that `HEADGATE_JARS` names, or the one in the user's cache."""
    named = os.environ.get("HEADGATE_JARS")
    return Path(named) if named else cache_folder() / "jars" / wanted.folder


def missing_jars(folder: Path, wanted: Jars = BASE) -> list[str]:
    return [name for name in wanted.sha256 if not (folder / name).is_file()]


def local_jars(*sets: Jars) -> list[str]:
    """Paths of jars (default: the base), resolving them the first time.

    Raises `UsageError` if `HEADGATE_JARS` lacks any.
    """
    return [path for wanted in sets or (BASE,) for path in jars_of(wanted)]


def jars_of(wanted: Jars) -> list[str]:
    folder = jars_folder(wanted)
    missing = missing_jars(folder, wanted)
    if missing and os.environ.get("HEADGATE_JARS"):
        raise UsageError(f"HEADGATE_JARS={folder} lacks {', '.join(missing)}; deploy/jars/pom.xml builds the folder")
    if missing:
        resolve(wanted, folder)
    return [str(folder / name) for name in wanted.sha256]


def resolve(wanted: Jars, folder: Path) -> None:
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
            *("--master", "local[1]", "--packages", wanted.coordinates, "--exclude-packages", wanted.excluded),
            *("--conf", f"spark.jars.ivySettings={settings}", "--conf", f"spark.jars.ivy={scratch}/ivy"),
            str(nothing),
        ]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYSPARK_GATEWAY")}
        environment |= {"JAVA_HOME": str(java_home()), "PYSPARK_PYTHON": sys.executable}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        found = {p.name.split("_", 1)[1]: p for p in Path(scratch, "ivy", "jars").glob("*.jar")}
        if done.returncode or set(wanted.sha256) - set(found):
            last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
            raise HeadgateError(
                f"Spark's resolver could not fetch {wanted.coordinates}. On a closed network, set HEADGATE_JARS to a "
                f"folder built with deploy/jars/pom.xml.\n{last}"
            )
        ready = Path(scratch, "ready")
        ready.mkdir()
        for name, checksum in wanted.sha256.items():
            if hashlib.sha256(found[name].read_bytes()).hexdigest() != checksum:
                raise HeadgateError(f"{name} does not have its known checksum; nothing was installed")
            shutil.copy(found[name], ready / name)
        shutil.rmtree(folder, ignore_errors=True)
        ready.rename(folder)
