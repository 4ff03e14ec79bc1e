"""What headgate's own metrics of a whole table share: the rows that are judged, and other tables of the pipeline."""

from collections.abc import Mapping
from typing import Any

from great_expectations.core.metric_domain_types import MetricDomainTypes
from great_expectations.execution_engine.sparkdf_execution_engine import SparkDFExecutionEngine
from great_expectations.expectations.metrics.metric_provider import metric_value
from great_expectations.expectations.metrics.table_metric_provider import TableMetricProvider
from pyspark.sql import DataFrame

TABLE_DOMAIN = ("batch_id", "row_condition", "condition_parser")


def rows_judged(engine: Any, domain: dict[str, Any]) -> DataFrame:
    df, _, _ = engine.get_compute_domain(domain, domain_type=MetricDomainTypes.TABLE)
    return df  # type: ignore[no-any-return]


class TableMetric(TableMetricProvider):
    """A metric of all rows that are judged; those with a name say by `of` what it is."""

    @metric_value(engine=SparkDFExecutionEngine)
    def _spark(
        cls,
        execution_engine: Any,
        metric_domain_kwargs: dict[str, Any],
        metric_value_kwargs: dict[str, Any],
        metrics: Any,
        runtime_configuration: Any,
    ) -> Any:
        return cls.of(
            rows_judged(execution_engine, metric_domain_kwargs), metric_value_kwargs, execution_engine.parents
        )

    @staticmethod
    def of(df: DataFrame, options: Mapping[str, Any], parents: Mapping[str, DataFrame]) -> Any:
        """Return the metric of rows; `options`: its `value_keys`; `parents`: other tables, by their names."""
        raise NotImplementedError
