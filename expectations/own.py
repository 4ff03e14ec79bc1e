"""headgate's own expectations, by Great Expectations' public extension point.

Great Expectations has no foreign keys, no freshness and no comparison with an earlier version on Spark.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from great_expectations.compatibility import pydantic
from great_expectations.core.metric_domain_types import MetricDomainTypes
from great_expectations.core.metric_function_types import MetricPartialFunctionTypes
from great_expectations.execution_engine import SparkDFExecutionEngine
from great_expectations.expectations.expectation import BatchExpectation, MulticolumnMapExpectation
from great_expectations.expectations.metrics.map_metric_provider import (
    MulticolumnMapMetricProvider,
    multicolumn_condition_partial,
)
from great_expectations.expectations.metrics.metric_provider import metric_partial
from great_expectations.expectations.metrics.table_metric_provider import TableMetricProvider
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.expectations.moments import JAVA_MOMENT, micros_of, text_of
from headgate.expectations.table_metric import TABLE_DOMAIN, TableMetric, rows_judged


class RowsSatisfySql(MulticolumnMapMetricProvider):
    condition_metric_name = "headgate.rows_satisfy_sql"
    condition_domain_keys = ("batch_id", "table", "column_list", "row_condition", "condition_parser", "ignore_row_if")
    condition_value_keys = ("predicate",)

    @multicolumn_condition_partial(engine=SparkDFExecutionEngine)  # type: ignore[untyped-decorator]
    def _spark(cls, column_list: Any, predicate: str = "true", **_: Any) -> Any:
        return F.coalesce(F.expr(predicate), F.lit(True))


class ExpectRowsToSatisfySql(MulticolumnMapExpectation):
    """Every row satisfies a Spark SQL predicate; as in an SQL CHECK constraint, a null verdict satisfies it.

    column_list: the columns that the predicate reads (they must exist); predicate: the SQL; mostly: share of rows.
    """

    predicate: str
    ignore_row_if: Literal["all_values_are_missing", "any_value_is_missing", "never"] = "never"
    map_metric: ClassVar[str] = "headgate.rows_satisfy_sql"
    success_keys: ClassVar[tuple[str, ...]] = ("predicate", "mostly")
    args_keys: ClassVar[tuple[str, ...]] = ("column_list", "predicate")


class ForeignKeyOrphans(TableMetric):
    metric_name = "headgate.foreign_key_orphans"
    value_keys = ("columns", "parent_table", "parent_columns")

    @staticmethod
    def of(df: DataFrame, options: Mapping[str, Any], parents: Mapping[str, DataFrame]) -> int:
        columns, parent_columns = options["columns"], options["parent_columns"]
        parent = parents[options["parent_table"]]
        keys = [f"_hg_k{i}" for i in range(len(columns))]
        child_keys = df.select(*(F.col(c).alias(k) for c, k in zip(columns, keys, strict=True))).dropna()
        parent_keys = parent.select(*(F.col(c).alias(k) for c, k in zip(parent_columns, keys, strict=True)))
        for here, there, mine, theirs in zip(
            columns, parent_columns, child_keys.schema, parent_keys.schema, strict=True
        ):
            if not comparable(mine.dataType, theirs.dataType):
                raise ValueError(
                    f"'{here}' is {mine.dataType.simpleString()} and '{there}' of table "
                    f"'{options['parent_table']}' is {theirs.dataType.simpleString()}: keys of different "
                    "types would match by chance"
                )
        return int(child_keys.join(parent_keys, on=keys, how="left_anti").count())


def comparable(mine: T.DataType, theirs: T.DataType) -> bool:
    """Return whether equal keys are equal values: one type, or two widths of whole numbers or of decimals."""
    families = (T.IntegralType, T.DecimalType, T.StringType)
    same_family = any(isinstance(mine, family) and isinstance(theirs, family) for family in families)
    return same_family or mine.simpleString() == theirs.simpleString()


class ExpectForeignKeyToExist(BatchExpectation):
    """Every key is found in another table of the pipeline; keys with a null in any column are not checked (SQL's
    MATCH SIMPLE).

    columns: the key here; parent_table, parent_columns: where it must be found; mostly: share of rows. Keys of
    different types are refused, but for whole numbers of different widths, and decimals.
    """

    columns: list[str]
    parent_table: str
    parent_columns: list[str]
    mostly: float = 1.0
    metric_dependencies: ClassVar[tuple[str, ...]] = ("headgate.foreign_key_orphans", "table.row_count")
    domain_keys: ClassVar[tuple[str, ...]] = TABLE_DOMAIN
    success_keys: ClassVar[tuple[str, ...]] = ("columns", "parent_table", "parent_columns", "mostly")

    def _validate(
        self, metrics: dict[str, Any], runtime_configuration: Any = None, execution_engine: Any = None
    ) -> dict[str, Any]:
        orphans, rows = metrics["headgate.foreign_key_orphans"], metrics["table.row_count"]
        found = rows - orphans
        return {
            "success": orphans == 0 or found >= self._get_success_kwarg("mostly") * rows,
            "result": {"observed_value": orphans, "element_count": rows, "unexpected_count": orphans},
        }


class NewestTimestamp(TableMetricProvider):
    metric_name = "headgate.newest_timestamp"
    value_keys = ("column",)

    @metric_partial(
        engine=SparkDFExecutionEngine,
        partial_fn_type=MetricPartialFunctionTypes.AGGREGATE_FN,
        domain_type=MetricDomainTypes.TABLE,
    )
    def _spark(
        cls,
        execution_engine: Any,
        metric_domain_kwargs: dict[str, Any],
        metric_value_kwargs: dict[str, Any],
        metrics: Any,
        runtime_configuration: Any,
    ) -> Any:
        df = rows_judged(execution_engine, metric_domain_kwargs)
        column = metric_value_kwargs["column"]
        kind, value = df.select(F.col(column)).dtypes[0][1], F.col(column)
        if kind == "string":  # Spark's own reading takes '12:30' for a time of today
            wrong = F.raise_error(F.concat(F.lit(f"'{column}' holds '"), value, F.lit("', which is no moment")))
            value = F.when(value.rlike(f"^({JAVA_MOMENT})$"), value).when(value.isNotNull(), wrong.cast("string"))
        elif kind not in ("date", "timestamp", "timestamp_ntz"):
            raise ValueError(f"'{column}' is {kind}, neither a date nor a timestamp")
        return F.unix_micros(F.max(value.cast("timestamp"))), metric_domain_kwargs, {}


class ExpectNewestTimestampToBeAtLeast(BatchExpectation):
    """The newest timestamp of a column is not before a moment (freshness). A column of nulls fails.

    column: date, timestamp, or text that holds nothing but days and moments in ISO form; without an offset they are of
    UTC; not_before: a day or moment in ISO form, or a parameter of the run such as {"$PARAMETER": "as_of"}.
    """

    column: str
    not_before: str | dict[str, Any]
    metric_dependencies: ClassVar[tuple[str, ...]] = ("headgate.newest_timestamp",)
    domain_keys: ClassVar[tuple[str, ...]] = TABLE_DOMAIN
    success_keys: ClassVar[tuple[str, ...]] = ("column", "not_before")

    @pydantic.validator("not_before")
    def is_a_moment(cls, value: Any) -> Any:
        if isinstance(value, str):
            micros_of(value)
        return value

    def _validate(
        self, metrics: dict[str, Any], runtime_configuration: Any = None, execution_engine: Any = None
    ) -> dict[str, Any]:
        newest = metrics["headgate.newest_timestamp"]
        success = newest is not None and newest >= micros_of(str(self._get_success_kwarg("not_before")))
        return {"success": success, "result": {"observed_value": None if newest is None else text_of(newest)}}


class ExpectRowCountToStayNearPrevious(BatchExpectation):
    """The number of rows lies within a range around that of the version published before; a first version passes.

    min_ratio, max_ratio: bounds of rows / previous rows; previous_rows: {"$PARAMETER": "previous_rows"}.
    """

    previous_rows: int | dict[str, Any]
    min_ratio: float = 0.9
    max_ratio: float = 10.0
    metric_dependencies: ClassVar[tuple[str, ...]] = ("table.row_count",)
    domain_keys: ClassVar[tuple[str, ...]] = TABLE_DOMAIN
    success_keys: ClassVar[tuple[str, ...]] = ("previous_rows", "min_ratio", "max_ratio")

    def _validate(
        self, metrics: dict[str, Any], runtime_configuration: Any = None, execution_engine: Any = None
    ) -> dict[str, Any]:
        rows, previous = metrics["table.row_count"], self._get_success_kwarg("previous_rows")
        lowest, highest = (previous * self._get_success_kwarg(k) for k in ("min_ratio", "max_ratio"))
        return {"success": previous < 0 or lowest <= rows <= highest, "result": {"observed_value": rows}}
