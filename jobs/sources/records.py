"""Records that come as texts of JSON, read as the columns of a schema."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa
from pyspark.sql import types as T
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition

from headgate.jobs.sources.readers import CORRUPT, PROBLEM, json_part
from headgate.transforms.rows import FILE


def records_as(
    schema: T.StructType, name: str, strict: bool
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For `mapInArrow`: JSON texts and their places to the columns of a schema, as text."""

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                values, places = (column.to_pylist() for column in batch.columns)
                columns, corrupt, problems, _ = json_part(values, schema, [], strict)
                tail = [corrupt, problems, [f"{name}{place}" for place in places]]
                arrays = [*columns, *(pa.array(t, pa.string()) for t in tail)]
                yield pa.RecordBatch.from_arrays(arrays, [*schema.names, CORRUPT, PROBLEM, FILE])

    return read


BATCH = 1000

SCHEMA = pa.schema([("value", pa.string()), ("place", pa.string())])


def reader_of(name_: str, records: Callable[[], Iterator[tuple[str, str]]]) -> type[DataSource]:
    """A data source that yields (record as JSON, place) from `records`."""

    class Reader(DataSourceReader):
        def partitions(self) -> list[InputPartition]:
            return [InputPartition(0)]

        def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
            values: list[str] = []
            places: list[str] = []
            for value, place in records():
                values.append(value)
                places.append(place)
                if len(values) == BATCH:
                    yield pa.record_batch([values, places], schema=SCHEMA)
                    values, places = [], []
            if values:
                yield pa.record_batch([values, places], schema=SCHEMA)

    class Source(DataSource):
        @classmethod
        def name(cls) -> str:
            return name_

        def schema(self) -> str:
            return "value string, place string"

        def reader(self, schema: Any) -> DataSourceReader:
            return Reader()

    return Source
