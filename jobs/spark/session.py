"""Starting Spark: the one place that knows its settings. Only the command line calls it."""

import contextlib
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from headgate.jobs.errors import HeadgateError, Interrupted
from headgate.jobs.lake.sessions import is_connect
from headgate.jobs.lake.stores import PROPERTY, S3_IMPLEMENTATION
from headgate.jobs.spark.connect import REMOTE, connected
from headgate.jobs.spark.jars import BASE, S3, Jars, local_jars
from headgate.jobs.spark.java import class_archive, java_home

BASE_CONF = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.compression.codec": "zstd",
    # A column that differs only in case is another column nowhere in the lake.
    "spark.sql.caseSensitive": "false",
    "spark.ui.showConsoleProgress": "false",
    # Times without a zone are UTC here; as a type of their own they would raise the tables' reader version.
    "spark.sql.parquet.inferTimestampNTZ.enabled": "false",
    # A type that every reader knows, with statistics, instead of INT96.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # Otherwise every call that makes a column is followed by seven that tell the JVM its line; errors name tables here.
    "spark.python.sql.dataFrameDebugging.enabled": "false",
    # Rows are split by their fate as they are written, without being sorted by it.
    "spark.sql.maxConcurrentOutputFileWriters": "3",
    # Generated classes are kept for the next table of the same shape; 100, the default, are those of a few tables.
    "spark.sql.codegen.cache.maxEntries": "2000",
}
# Of these, what a session that others started may be given.
OF_A_SESSION = (
    "spark.sql.session.timeZone",
    "spark.sql.parquet.",
    "spark.sql.caseSensitive",
    "spark.sql.maxConcurrent",
)
LOCAL_CONF = {
    "spark.ui.enabled": "false",
    "spark.driver.memory": "4g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.shuffle.partitions": str(2 * (os.cpu_count() or 1)),
    # 50 partitions for the log of a small table cost tens of seconds on a laptop.
    "spark.databricks.delta.snapshotPartitions": "1",
    # A plan is described for the UI whether there is one or not; this is the shortest description.
    "spark.sql.ui.explainMode": "simple",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",
    "spark.python.daemon.module": "headgate.jobs.spark.workers",
    # Python workers go through arrays of some megabytes, one after another. glibc gives each back to the kernel, which
    # clears the same pages again, until it has seen enough of them; here it keeps them from the start.
    "spark.executorEnv.MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "spark.executorEnv.MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}

# On one machine Java's second compiler takes CPU from the rows: only what runs ten times as often as usual is worth its
# care, and for few rows nothing is. With the first alone Java keeps room for a fifth of the compiled code, and would
# be busy making room.
JIT_LARGE = " ".join(
    f"-XX:Tier4{name}Threshold={calls}"
    for name, calls in {"Invocation": 50000, "MinInvocation": 6000, "Compile": 150000, "BackEdge": 400000}.items()
)
JIT_SMALL = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m"
SMALL_INPUT_BYTES = 16 << 20  # bytes as they are stored, Parquet or text
# An archive of classes that does not fit is no matter: Java then reads the jars.
ARCHIVED = '"-XX:SharedArchiveFile={}" -Xlog:disable -Xlog:all=error:stderr'


def start(settings: Mapping[str, str], secret: Iterable[str] = (), reads: int | None = None) -> Any:
    """A Spark session with Delta. `settings` go before headgate's defaults; those named in `secret` are redacted.

    reads: about how many bytes the session will read, where that is known. Up to `SMALL_INPUT_BYTES` Java compiles
        quickly.
    """
    # They tell an error that is raised as well, an interruption by pages.
    for name in ("DataFrameQueryContextLogger", "SQLQueryContextLogger", "py4j"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    # PySpark gives times to Python, and takes them, in the zone of the process; here that is the session's.
    os.environ["TZ"] = "UTC"
    if hasattr(time, "tzset"):
        time.tzset()
    if REMOTE in settings:
        return connected(settings, of_a_session())
    from pyspark.sql import SparkSession

    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    local = not submitted and re.match(r"local(\[|$)", settings.get("spark.master", "local")) is not None
    merged = BASE_CONF | (LOCAL_CONF if local else {}) | dict(settings)
    # Events list Hadoop's settings by their own names.
    own = (rf"^(spark\.hadoop\.)?{re.escape(name.removeprefix('spark.hadoop.'))}$" for name in secret)
    names = "|".join(["(?i)secret|password|passwd|token|access[.]?key|credential", *own])
    merged |= {
        "spark.redaction.regex": names,
        "spark.hadoop.fs.permissions.umask-mode": f"{current_umask():03o}",
    }
    # One generated method holds a stage's whole row, the masks of the gate included; past 8,000 bytes of bytecode Java
    # would never compile it, and interpret it row by row.
    properties = {n.removeprefix(PROPERTY): value for n, value in merged.items() if n.startswith(PROPERTY)}
    java = ["-XX:-DontCompileHugeMethods", *(f'"-D{name}={value}"' for name, value in properties.items())]
    sets = [BASE, S3] if S3_IMPLEMENTATION in merged else [BASE]
    add(merged, "spark.executor.extraJavaOptions", " ", java)
    builder = SparkSession.builder.appName("headgate")
    if submitted:
        merged["spark.jars"] = add_to_running_jvm(sets, properties)
        # spark-submit's command line decides where the job runs, not an environment that is for one machine.
        merged = {k: v for k, v in merged.items() if v and k != "spark.master" and not k.startswith("spark.driver.")}
    else:
        home = java_home()
        os.environ["JAVA_HOME"] = str(home)
        jars = [] if "spark.jars.packages" in merged else local_jars(*sets)
        if local:
            builder = builder.master(settings.get("spark.master", "local[*]"))
            merged["spark.sql.warehouse.dir"] = tempfile.gettempdir()
            # There is one JVM: what is on its class path need not be copied for executors, and can be archived.
            add(merged, "spark.driver.extraClassPath", os.pathsep, jars)
            archive = class_archive(home, jars)
            java += [JIT_SMALL if reads is not None and reads <= SMALL_INPUT_BYTES else JIT_LARGE]
            java += [ARCHIVED.format(archive)] if archive else []
        else:
            add(merged, "spark.jars", ",", jars)
        add(merged, "spark.driver.extraJavaOptions", " ", java)
    for key, value in merged.items():
        builder = builder.config(key, value)
    with quiet_jvm() as log:
        try:
            spark = builder.getOrCreate()
        except Exception as e:
            said = Path(log).read_text(errors="replace").strip().splitlines() if log else []
            raise HeadgateError(f"Spark did not start: {gist(e, said)}") from RuntimeError("\n".join([str(e), *said]))
    spark.sparkContext.setLogLevel("OFF")
    if submitted:
        code = os.environ.get("HEADGATE_ZIP")
        if code:
            spark.sparkContext.addPyFile(code)
    return spark


@contextlib.contextmanager
def on_demand(
    settings: Mapping[str, str], secret: Iterable[str], started: Callable[[], None]
) -> Iterator[Callable[..., Any]]:
    """Give a function that starts Spark when it is first called; what was started is stopped at the end.

    started: called once Spark has started, or failed to: it sets handlers of signals of its own, which ask Java in the
    midst of an answer.
    """
    sessions: list[Any] = []

    def begin(reads: int | None = None) -> Any:
        if not sessions:
            try:
                sessions.append(start(settings, secret, reads))
            finally:
                started()
        return sessions[0]

    try:
        yield begin
    except (Interrupted, KeyboardInterrupt):
        if sessions:
            abandon(sessions[0])
        raise
    except BaseException:
        if sessions:
            sessions[0].stop()
        raise
    if sessions:
        sessions[0].stop()


def gist(error: Exception, said: list[str]) -> str:
    """The one line that tells most of why Java failed, of its error and of what it said."""
    lines = [line.strip() for line in (*str(error).splitlines(), *said)]
    thrown = [line for line in lines if re.search(r"^(Caused by: )?(java|org|scala)\.[\w.$]+:|^Exception ", line)]
    plain = [line for line in said if line and not re.match(r"NOTE|Picked up|WARNING|\d\d", line)]
    return re.sub(r"^.*?[A-Z]\w*(Exception|Error): ", "", [*thrown, *plain, *lines, "no reason is given"][0])


def add(settings: dict[str, str], name: str, separator: str, ours: Iterable[str]) -> None:
    """Put what headgate needs before what a user has set."""
    value = separator.join([*ours, *filter(None, [settings.get(name)])])
    if value:
        settings[name] = value


def of_a_session() -> dict[str, str]:
    """Return those of headgate's settings that a session has for itself."""
    return {name: value for name, value in BASE_CONF.items() if name.startswith(OF_A_SESSION)}


def current_umask() -> int:
    """The umask of this process; Hadoop has one of its own."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


@contextlib.contextmanager
def quiet_jvm() -> Iterator[str | None]:
    """Give the JVM started inside a file for its standard error: a page of notices otherwise greets the user."""
    if os.environ.get("HEADGATE_VERBOSE") or "PYSPARK_GATEWAY_PORT" in os.environ:
        yield None
        return
    with tempfile.NamedTemporaryFile(prefix="headgate-jvm-", suffix=".log") as log:
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield log.name
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def abandon(spark: Any) -> None:
    """End Java in the midst of what it does, after an interruption: its connection waits for an answer still."""
    if is_connect(spark):
        spark.interruptAll()
        return
    from pyspark import SparkContext

    gateway: Any = SparkContext._gateway
    process = getattr(gateway, "proc", None)
    if process is not None:  # under spark-submit Java is the parent, and ends by itself
        server: Any = getattr(SparkContext._active_spark_context, "_accumulatorServer", None)
        if server is not None:
            server.handle_error = lambda *connection: None  # it would print that Java is gone
        process.kill()
        process.wait()


def end(spark: Any) -> None:
    """Stop Spark and the JVM that `start` started for it, and wait for what that does at its end."""
    from pyspark import SparkContext

    spark.stop()
    gateway: Any = SparkContext._gateway
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait()
    SparkContext._gateway = SparkContext._jvm = None


# What a running JVM has where it was started with the jars.
CLASSES = {
    "io.delta.sql.DeltaSparkSessionExtension": BASE,
    "org.apache.hadoop.fs.s3a.S3AFileSystem": S3,
    "org.apache.spark.internal.io.cloud.PathOutputCommitProtocol": S3,
}


def add_to_running_jvm(sets: Collection[Jars], properties: Mapping[str, str]) -> str:
    """Under spark-submit the JVM runs already; where it was started without Delta or S3, add their jars to its loader.

    Returns what `spark.jars` must hold for the executors, or nothing if the JVM has all.
    """
    from pyspark import SparkContext

    SparkContext._ensure_initialized()
    jvm: Any = SparkContext._jvm
    for name, value in properties.items():
        jvm.java.lang.System.setProperty(name, value)
    loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
    lacking = [s for s in sets if not all(has_class(loader, n) for n, found_in in CLASSES.items() if found_in is s)]
    jars = local_jars(*lacking) if lacking else []
    for jar in jars:
        loader.addURL(jvm.java.io.File(jar).toURI().toURL())
    given = jvm.java.lang.System.getProperty("spark.jars") or ""
    return ",".join(filter(None, [given, *jars])) if jars else ""


def has_class(loader: Any, name: str) -> bool:
    try:
        loader.loadClass(name)
    except Exception:
        return False
    return True
