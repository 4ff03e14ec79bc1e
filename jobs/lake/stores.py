"""Object stores: where they are and what opens them, the same for pyarrow, obstore, deltalake and Spark.

An environment says how its buckets are opened (`use`); the Python workers of Spark get that by a variable. What it
leaves out every library finds for itself: AWS_* variables, web identity, the role of a container or a machine.
"""

import configparser
import functools
import json
import os
import shlex
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
from obstore.store import ObjectStore, from_url
from pyarrow import fs

from headgate.jobs.errors import UsageError

SCHEMES = ("s3", "s3a", "gs", "abfss", "hdfs", "file")
VARIABLE = "STORE_OF_HEADGATE"  # of a worker: the store as JSON
CREDENTIALS_FILE = "~/.aws/credentials"
TRIES = 7  # of a request that the store could not answer
CONNECTIONS = 64  # to a store at once


@dataclass(frozen=True)
class Keys:
    """What a request to S3 is signed with."""

    access: str
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Store:
    """An S3 store: what is None is found as AWS's own tools find it.

    keys: called whenever a store is opened, so that keys that were changed meanwhile count; None: read from the
    variables, else from a profile of `credentials_file` that has keys.
    """

    endpoint: str | None = None
    region: str | None = None
    path_style: bool | None = None
    allow_http: bool = False
    keys: Callable[[], Keys | None] = lambda: None
    credentials_file: str | None = None
    profile: str | None = None

    def current_keys(self) -> Keys | None:
        """Return the keys that are valid now; None where a library finds some for itself."""
        if self.by_profile:
            return keys_of_profile(self.credentials_file, self.profile)
        return self.keys() or keys_of_variables() or keys_of_profile()

    @property
    def by_profile(self) -> bool:
        return bool(self.credentials_file or self.profile)

    def options(self, bucket: str) -> dict[str, str]:
        """Return how a bucket is opened as deltalake's storage options; obstore knows these names as well."""
        endpoint, keys = self.address(), self.current_keys()
        in_host = not self.in_path(endpoint)
        found = {
            "aws_endpoint": endpoint.replace("://", f"://{bucket}.") if endpoint and in_host else endpoint,
            "aws_region": self.region_at(endpoint),
            "aws_virtual_hosted_style_request": "true" if in_host else None,
            "aws_allow_http": "true" if self.allow_http else None,
            "aws_access_key_id": keys.access if keys else None,
            "aws_secret_access_key": keys.secret if keys else None,
            "aws_session_token": keys.token if keys else None,
        }
        return {name: value for name, value in found.items() if value}

    def address(self) -> str | None:
        return self.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")

    def region_at(self, endpoint: str | None) -> str | None:
        known = self.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        return known or ("us-east-1" if endpoint else None)

    def in_path(self, endpoint: str | None) -> bool:
        """Return whether the bucket stands in the path of a URL, not in the name of its host."""
        return bool(endpoint) if self.path_style is None else self.path_style

    def facts(self) -> dict[str, Any]:
        """Return the store in plain values, for a worker of Spark; what is in a file stays there."""
        facts = {n: getattr(self, n) for n in ("region", "path_style", "allow_http", "credentials_file", "profile")}
        keys = None if self.by_profile else self.keys() or keys_of_variables()
        named = [keys.access, keys.secret, keys.token] if keys else None
        return {**facts, "endpoint": self.address(), "keys": named}


def keys_of_variables() -> Keys | None:
    access, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    return Keys(access, secret, os.environ.get("AWS_SESSION_TOKEN")) if access and secret else None


def keys_of_profile(file: str | None = None, profile: str | None = None) -> Keys | None:
    """Return the keys of a profile in a file of AWS's form; None where there is none that the environment asks for.

    They stand there, or a program gives them (`credential_process`). Raises `UsageError` for a file or profile that was
    named and has neither.
    """
    place = file or os.environ.get("AWS_SHARED_CREDENTIALS_FILE")
    name = profile or os.environ.get("AWS_PROFILE")
    try:
        text = Path(place or CREDENTIALS_FILE).expanduser().read_text(encoding="utf-8")
        profiles = configparser.RawConfigParser()
        profiles.read_string(text)
        found = profiles[name or "default"]
        if "credential_process" in found:
            return keys_of_program(found["credential_process"])
        return Keys(found["aws_access_key_id"], found["aws_secret_access_key"], found.get("aws_session_token"))
    except (OSError, UnicodeDecodeError, configparser.Error, KeyError):
        if place is None and name is None:
            return None
    raise UsageError(  # without its cause, which may quote the file
        f"the credentials file {place or CREDENTIALS_FILE} has no profile '{name or 'default'}' with aws_access_key_id "
        "and aws_secret_access_key, or with credential_process"
    )


RENEWED = timedelta(minutes=1)  # before keys expire
GIVEN: dict[str, tuple[Keys, datetime | None]] = {}  # by the program that gave them: keys, and when they expire


def keys_of_program(command: str) -> Keys:
    """Return the keys that a program prints as JSON (`credential_process`); run it again before they expire.

    Source: https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html.
    """
    keys, expires = GIVEN.get(command, (None, None))
    if keys is None or (expires is not None and expires - datetime.now(timezone.utc) <= RENEWED):
        try:
            told = json.loads(subprocess.run(shlex.split(command), capture_output=True, timeout=60, check=True).stdout)
            keys = Keys(told["AccessKeyId"], told["SecretAccessKey"], told.get("SessionToken"))
            expires = datetime.fromisoformat(told["Expiration"]) if "Expiration" in told else None
        except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError) as e:
            why = f"exit code {e.returncode}" if isinstance(e, subprocess.CalledProcessError) else type(e).__name__
            raise UsageError(f"credential_process `{command}` gave no keys ({why})") from None  # which may quote them
        GIVEN[command] = (keys, expires)
    return keys


STORES: dict[str, Store] = {}  # by bucket: the stores of the environments of this process


def use(store: Store, *places: str) -> None:
    """Open what lies in the buckets of these places as a store says, from now on."""
    STORES.update({bucket_of(place): store for place in places if is_s3(place)})


def store_at(place: str) -> Store:
    """Return the store of a place: its environment's, or one of which everything is found."""
    if not STORES and VARIABLE in os.environ:
        facts = json.loads(os.environ[VARIABLE])
        use(from_facts(facts["store"]), *facts["places"])
    return STORES.get(bucket_of(place), Store())


def from_facts(facts: Mapping[str, Any]) -> Store:
    keys = Keys(*facts["keys"]) if facts["keys"] else None
    return Store(**{**facts, "keys": lambda: keys})


# -- places


def scheme_of(place: str) -> str:
    """Return the scheme of a place; empty for a path of this machine."""
    head, colon, rest = place.partition(":")
    return head.lower() if colon and head.isalnum() and len(head) > 1 and rest.startswith("/") else ""


def is_s3(place: str) -> bool:
    return scheme_of(place) in ("s3", "s3a")


def bucket_of(place: str) -> str:
    return place.partition("://")[2].partition("/")[0]


def for_java(place: str) -> str:
    """Return a place by the name that every Spark with S3 knows."""
    return "s3a" + place.removeprefix("s3") if scheme_of(place) == "s3" else place


def storage_options(place: str) -> dict[str, str] | None:
    """Return what deltalake needs to open a place, beside what it finds for itself."""
    return store_at(place).options(bucket_of(place)) if is_s3(place) else None


def object_store(place: str) -> ObjectStore:
    """Return an object store of what lies below a URI."""
    options = storage_options(place) or {}
    return opened(place, tuple(sorted(options.items())))


@functools.lru_cache(maxsize=64)
def opened(place: str, options: tuple[tuple[str, str], ...]) -> ObjectStore:
    given = dict(options)
    plain = given.pop("aws_allow_http", None) is not None
    return from_url(place, config=given or None, client_options={"allow_http": True} if plain else None)  # type: ignore[arg-type]


def arrow_files(place: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of a URI, and the path there."""
    if not is_s3(place):
        found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(place)
        return found
    store = store_at(place)
    endpoint = store.address()
    in_host = endpoint is not None and not store.in_path(endpoint)
    files = s3_files(endpoint, store.region_at(endpoint), in_host, store.current_keys())
    return files, place.partition("://")[2].rstrip("/")


@functools.lru_cache(maxsize=8)
def s3_files(endpoint: str | None, region: str | None, in_host: bool, keys: Keys | None) -> fs.FileSystem:
    pa.set_io_thread_count(max(pa.io_thread_count(), CONNECTIONS))  # Arrow opens no more connections, or 25
    return fs.S3FileSystem(
        access_key=keys.access if keys else None,
        secret_key=keys.secret if keys else None,
        session_token=keys.token if keys else None,
        region=region,
        endpoint_override=endpoint,
        force_virtual_addressing=in_host,
        connect_timeout=10,
        request_timeout=60,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=TRIES),
    )


# -- Spark

COMMITTER = "org.apache.hadoop.fs.s3a.commit.S3ACommitterFactory"
CLOUD = "org.apache.spark.internal.io.cloud"
S3A = "spark.hadoop.fs.s3a"
S3_IMPLEMENTATION = "spark.hadoop.fs.s3.impl"  # set where a place lies in S3
PLAIN_SETTINGS = {
    # A place has one name, whoever reads it.
    S3_IMPLEMENTATION: "org.apache.hadoop.fs.s3a.S3AFileSystem",
    # Files appear when the job that wrote them commits, by the ends of their uploads: nothing is renamed, and what a
    # failed attempt wrote never becomes a file.
    "spark.hadoop.fs.s3a.committer.name": "magic",
    "spark.hadoop.fs.s3a.committer.magic.track.commits.in.memory.enabled": "true",
    "spark.hadoop.mapreduce.outputcommitter.factory.scheme.s3": COMMITTER,
    "spark.hadoop.mapreduce.outputcommitter.factory.scheme.s3a": COMMITTER,
    "spark.sql.sources.commitProtocolClass": f"{CLOUD}.PathOutputCommitProtocol",
    "spark.sql.parquet.output.committer.class": f"{CLOUD}.BindingParquetOutputCommitter",
    # Every folder is a run's own: whether a file of a name is there need not be asked.
    "spark.hadoop.fs.s3a.performance.flags": "create,mkdir,delete",
}
PROPERTY = "spark.headgate.java."  # before a property that Java shall have
PROVIDERS = "software.amazon.awssdk.auth.credentials"
SECRET_SETTINGS = (f"spark.executorEnv.{VARIABLE}", f"{S3A}.access.key", f"{S3A}.secret.key", f"{S3A}.session.token")


def spark_settings(*places: str) -> dict[str, str]:
    """Return Spark's settings for the store of these places; none where none lies in S3."""
    inside = [place for place in places if is_s3(place)]
    if not inside:
        return {}
    store = store_at(inside[0])
    endpoint = store.address()
    keys = None if store.by_profile else store.keys() or keys_of_variables()
    provider = f"{PROVIDERS}.{'Profile' if store.by_profile else 'Default'}CredentialsProvider"
    found = {
        f"{S3A}.endpoint": endpoint,
        f"{S3A}.endpoint.region": store.region_at(endpoint),
        f"{S3A}.path.style.access": str(store.in_path(endpoint)).lower(),
        f"spark.executorEnv.{VARIABLE}": for_workers(*places),
        f"{S3A}.aws.credentials.provider": provider,
    }
    if keys:
        kind = "Temporary" if keys.token else "Simple"
        found |= {
            f"{S3A}.access.key": keys.access,
            f"{S3A}.secret.key": keys.secret,
            f"{S3A}.session.token": keys.token,
            f"{S3A}.aws.credentials.provider": f"org.apache.hadoop.fs.s3a.{kind}AWSCredentialsProvider",
        }
    # By these Java finds a profile.
    found |= {f"{PROPERTY}aws.sharedCredentialsFile": store.credentials_file, f"{PROPERTY}aws.profile": store.profile}
    return PLAIN_SETTINGS | {name: value for name, value in found.items() if value}


def for_workers(*places: str) -> str:
    """Return the store of these places as a text for the Python workers of Spark."""
    inside = [place for place in places if is_s3(place)]
    return json.dumps({"places": inside, "store": store_at(inside[0]).facts()})
