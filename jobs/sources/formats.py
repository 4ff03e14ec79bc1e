"""Parquet and Avro: their columns, types and counts, as their own headers tell them."""

import hashlib
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs
from pyspark.sql import types as T

from headgate.jobs.errors import first_line
from headgate.jobs.sources.dialect import BLOCK
from headgate.transforms.parsing import ddl_of
from headgate.words import cell


class Unreadable(Exception):
    """The storage failed, whatever the file is like."""


class Hashed(io.RawIOBase):
    """A stream whose bytes are counted and hashed while others read them."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.checksum, self.size = stream, hashlib.sha256(), 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.stream.read(len(buffer))
        except OSError as e:
            raise Unreadable(first_line(e)) from e
        buffer[: len(data)] = data
        self.checksum.update(data)
        self.size += len(data)
        return len(data)

    def drain(self) -> None:
        block = bytearray(BLOCK)
        while self.readinto(block):
            pass


def problem(text: str) -> dict[str, Any]:
    return {"problem": text}


# -- typed formats


def parquet_facts(files: fs.FileSystem, path: str) -> dict[str, Any]:
    """Columns, records and row groups, from the footer."""
    try:
        with files.open_input_file(path) as file:
            footer = pq.ParquetFile(file, coerce_int96_timestamp_unit="us")
            schema, groups = footer.schema_arrow, footer.metadata.num_row_groups
            count = footer.metadata.num_rows
            fine = [f.name for f in schema if pa.types.is_timestamp(f.type) and f.type.unit == "ns"]
            cut = (
                next(filter(None, (finer_than_micros(b) for b in footer.iter_batches(columns=fine))), None)
                if fine
                else None
            )
    except (OSError, ValueError, OverflowError, MemoryError, pa.ArrowException) as e:
        return problem(f"it is no readable Parquet file ({cell(first_line(e))})")
    names = schema.names
    repeated = next((n for n in names if names.count(n) > 1), None)
    if repeated is not None:
        return problem(f"it has the column {cell(repeated)} twice")
    if cut is not None:
        return problem(f"its column {cell(cut)} holds times finer than the microseconds of a timestamp")
    columns = {field.name: spark_type(field.type) for field in schema}
    return {"columns": columns, "records": count, "parts": [[i, 1] for i in range(groups)]}


def finer_than_micros(batch: pa.RecordBatch) -> str | None:
    """The first column of times in nanoseconds that microseconds do not hold."""
    for name, times in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_timestamp(times.type) and (times.cast(pa.int64()).drop_null().to_numpy() % 1000).any():
            return str(name)
    return None


def spark_type(kind: pa.DataType) -> str:
    """The type that holds an Arrow type's values without loss, as DDL; a name in <> where there is none."""
    found = held_by(kind)
    return ddl_of(found) if found is not None else f"<{kind}>"


PLAIN_TYPES: dict[Any, T.DataType] = {
    pa.bool_(): T.BooleanType(),
    **dict.fromkeys([pa.int8()], T.ByteType()),
    **dict.fromkeys([pa.uint8(), pa.int16()], T.ShortType()),
    **dict.fromkeys([pa.uint16(), pa.int32()], T.IntegerType()),
    **dict.fromkeys([pa.uint32(), pa.int64()], T.LongType()),
    pa.uint64(): T.DecimalType(20, 0),
    **dict.fromkeys([pa.float16(), pa.float32()], T.FloatType()),
    pa.float64(): T.DoubleType(),
    **dict.fromkeys([pa.string(), pa.large_string(), pa.string_view()], T.StringType()),
    **dict.fromkeys([pa.binary(), pa.large_binary(), pa.binary_view()], T.BinaryType()),
    **dict.fromkeys([pa.date32(), pa.date64()], T.DateType()),
    pa.null(): T.NullType(),
}


def held_by(kind: pa.DataType) -> T.DataType | None:
    """The Spark type that holds the values of an Arrow type; None where there is none."""
    if kind in PLAIN_TYPES:
        return PLAIN_TYPES[kind]
    if isinstance(kind, pa.BaseExtensionType):
        return held_by(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return held_by(kind.value_type)
    if pa.types.is_timestamp(kind):
        return T.TimestampType()
    if pa.types.is_fixed_size_binary(kind):
        return T.BinaryType()
    if pa.types.is_decimal(kind):
        return T.DecimalType(kind.precision, kind.scale) if kind.precision <= 38 and kind.scale >= 0 else None
    if pa.types.is_map(kind):
        key, value = held_by(kind.key_type), held_by(kind.item_type)
        return None if key is None or value is None else T.MapType(key, value)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        element = held_by(kind.value_type)
        return None if element is None else T.ArrayType(element)
    if pa.types.is_struct(kind):
        fields = [(kind.field(i).name, held_by(kind.field(i).type)) for i in range(kind.num_fields)]
        if all(held is not None for _, held in fields):
            return T.StructType([T.StructField(n, held) for n, held in fields if held is not None])
    return None


def avro_facts(raw: Hashed) -> dict[str, Any]:
    """Columns and records of an Avro object container file, from its header and the heads of its blocks."""
    import fastavro

    stream = io.BufferedReader(raw, BLOCK)
    try:
        if not stream.peek(1):
            return {"columns": {}, "records": 0}
        blocks = fastavro.block_reader(stream)
        schema = fastavro.schema.expand_schema(blocks.writer_schema)
        count = sum(block.num_records for block in blocks)
    except Exception as e:  # damaged bytes make it trip in many ways
        return problem(f"it is no readable Avro file ({cell(first_line(e))})")
    finally:
        stream.detach()
    if not isinstance(schema, dict) or schema.get("type") != "record":
        return problem("its Avro schema is no record")
    return {"columns": {f["name"]: avro_type(f["type"]) for f in schema["fields"]}, "records": count}


AVRO_TYPES: dict[str, T.DataType] = {
    **{"int": T.IntegerType(), "long": T.LongType(), "float": T.FloatType(), "double": T.DoubleType()},
    **{"boolean": T.BooleanType(), "string": T.StringType(), "bytes": T.BinaryType(), "enum": T.StringType()},
    **{"date": T.DateType(), "uuid": T.StringType(), "fixed": T.BinaryType(), "null": T.NullType()},
    **{"timestamp-millis": T.TimestampType(), "timestamp-micros": T.TimestampType()},
    **{"local-timestamp-millis": T.TimestampType(), "local-timestamp-micros": T.TimestampType()},
}


UNHELD = ("time-millis", "time-micros", "duration", "timestamp-nanos", "local-timestamp-nanos", "big-decimal")


def avro_type(kind: Any) -> str:
    """The type of a field, as DDL; a name in <> where there is none."""
    found = held_by_avro(kind)
    return ddl_of(found) if found is not None else f"<{json.dumps(kind)[:100]}>"


def held_by_avro(kind: Any) -> T.DataType | None:
    if isinstance(kind, list):
        others = [k for k in kind if k != "null"]
        return held_by_avro(others[0]) if len(others) == 1 else None
    if not isinstance(kind, dict):
        return AVRO_TYPES.get(kind)
    logical, plain = kind.get("logicalType"), kind["type"]
    if logical == "decimal":
        precision, scale = kind["precision"], kind.get("scale", 0)
        return T.DecimalType(precision, scale) if precision <= 38 else None
    if logical is not None and logical in AVRO_TYPES:
        return AVRO_TYPES[logical]
    if logical in UNHELD:
        return None  # of other logical types Avro's specification says that readers take the plain type
    if plain == "array":
        element = held_by_avro(kind["items"])
        return None if element is None else T.ArrayType(element)
    if plain == "map":
        value = held_by_avro(kind["values"])
        return None if value is None else T.MapType(T.StringType(), value)
    if plain == "record":
        fields = [(f["name"], held_by_avro(f["type"])) for f in kind["fields"]]
        if all(held is not None for _, held in fields):
            return T.StructType([T.StructField(n, held) for n, held in fields if held is not None])
        return None
    return held_by_avro(plain) if isinstance(plain, dict | list) else AVRO_TYPES.get(plain)
