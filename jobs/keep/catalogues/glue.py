"""The Glue Data Catalog of AWS: external Delta tables as Athena, EMR and Redshift find them."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from headgate.jobs.errors import InputMissing, UsageError, first_line
from headgate.jobs.keep.catalogues.entries import MARKS, Entry, Known
from headgate.jobs.lake.stores import Store

SEQUENCES = {  # what Hive needs to be told of a table that it does not read itself
    "InputFormat": "org.apache.hadoop.mapred.SequenceFileInputFormat",
    "OutputFormat": "org.apache.hadoop.hive.ql.io.HiveSequenceFileOutputFormat",
}
SERDE = "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe"


@dataclass(frozen=True)
class GlueCatalogue:
    """A database of the Glue Data Catalog. It has no views that name a version of a Delta table."""

    client: Any
    database: str
    views: ClassVar[bool] = False

    def known(self) -> dict[str, Known]:
        try:
            pages = list(self.client.get_paginator("get_tables").paginate(DatabaseName=self.database))
        except self.client.exceptions.EntityNotFoundException:
            return {}
        return {table["Name"]: known_as(table) for page in pages for table in page["TableList"]}

    def create(self, entry: Entry) -> None:
        with contextlib.suppress(self.client.exceptions.AlreadyExistsException):
            self.client.create_database(DatabaseInput={"Name": self.database})
        self.client.create_table(DatabaseName=self.database, TableInput=table_input(entry))

    def replace(self, entry: Entry) -> None:
        self.client.update_table(DatabaseName=self.database, TableInput=table_input(entry))

    def drop(self, name: str, known: Known) -> None:
        self.client.delete_table(DatabaseName=self.database, Name=name)


def table_input(entry: Entry) -> dict[str, Any]:
    """Return an external Delta table as Glue takes it: by `table_type` for Athena, by its provider for Spark."""
    serde = {"SerializationLibrary": SERDE, "Parameters": {"path": entry.location, "serialization.format": "1"}}
    columns = [{"Name": c.name, "Type": c.kind, "Comment": c.comment} for c in entry.columns]
    return {
        "Name": entry.name,
        "Description": entry.comment,
        "TableType": "EXTERNAL_TABLE",
        "StorageDescriptor": {"Columns": columns, "Location": entry.location, **SEQUENCES, "SerdeInfo": serde},
        "Parameters": {
            "EXTERNAL": "TRUE",
            "classification": "delta",
            "table_type": "DELTA",
            "spark.sql.sources.provider": "delta",
            **entry.marks,
        },
    }


def known_as(table: dict[str, Any]) -> Known:
    stored, parameters = table.get("StorageDescriptor", {}), table.get("Parameters", {})
    marks = {k: parameters[k] for k in MARKS if k in parameters}
    columns = tuple((c["Name"], c.get("Type", "")) for c in stored.get("Columns", []))
    return Known(stored.get("Location", ""), marks, columns)


@contextlib.contextmanager
def glue(uri: str | None, store: Store, database: str) -> Iterator[GlueCatalogue]:
    """Give a database of Glue, by the keys of the lake's store or, without any, those that AWS's tools find."""
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as e:
        raise UsageError("the library boto3 is missing: pip install 'headgate[aws]'") from e
    keys = store.current_keys()
    found = {
        "endpoint_url": uri,
        "region_name": store.region_at(uri),
        "aws_access_key_id": keys.access if keys else None,
        "aws_secret_access_key": keys.secret if keys else None,
        "aws_session_token": keys.token if keys else None,
    }
    try:
        yield GlueCatalogue(boto3.client("glue", **{name: value for name, value in found.items() if value}), database)
    except (BotoCoreError, ClientError) as e:
        raise InputMissing(f"Glue: {first_line(e)} (`store` of the environment, or AWS_* variables)") from e
