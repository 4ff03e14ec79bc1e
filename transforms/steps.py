"""The table of steps: YAML name -> class."""

from typing import Any

from pydantic import ConfigDict, TypeAdapter

from transforms.balancing.split import SplitByHash
from transforms.balancing.strata import ResampleStrata, SampleStrata
from transforms.balancing.weights import AssignWeights, ClassWeights
from transforms.cleaning.bounds import CheckBounds, CheckOutliersIqr, RejectRows
from transforms.cleaning.columns import Cast, Derive, DropColumns, Rename, SelectColumns
from transforms.cleaning.text import NormaliseText
from transforms.cleaning.times import LocalToUtc
from transforms.cleaning.units import ConvertUnits, UnitChange
from transforms.cleaning.urls import NormaliseUrl
from transforms.deduplication.exact import DropDuplicates
from transforms.deduplication.images import DropNearImages
from transforms.deduplication.lines import DropRepeatedLines
from transforms.deduplication.near import DropNearDuplicates
from transforms.fusion.join import JoinTable
from transforms.imputation.simple import FillMissing, ImputeConstant, ImputeMean, ImputeMedian, ImputeMode
from transforms.step import Step

STEPS: dict[str, type[Step]] = {
    # cleaning
    "cast": Cast,
    "rename": Rename,
    "select_columns": SelectColumns,
    "drop_columns": DropColumns,
    "derive": Derive,
    "normalise_text": NormaliseText,
    "normalise_url": NormaliseUrl,
    "convert_units": ConvertUnits,
    "local_to_utc": LocalToUtc,
    "check_bounds": CheckBounds,
    "check_outliers_iqr": CheckOutliersIqr,
    "reject_rows": RejectRows,
    # deduplication
    "drop_duplicates": DropDuplicates,
    "drop_near_duplicates": DropNearDuplicates,
    "drop_near_images": DropNearImages,
    "drop_repeated_lines": DropRepeatedLines,
    # imputation
    "impute_constant": ImputeConstant,
    "impute_mean": ImputeMean,
    "impute_median": ImputeMedian,
    "impute_mode": ImputeMode,
    "fill_missing": FillMissing,
    # fusion
    "join_table": JoinTable,
    # balancing
    "split_by_hash": SplitByHash,
    "class_weights": ClassWeights,
    "assign_weights": AssignWeights,
    "sample_strata": SampleStrata,
    "resample_strata": ResampleStrata,
}


def options_of(step: type[Step]) -> TypeAdapter[Any]:
    """The checker of a step's options; unknown ones are refused."""
    return TypeAdapter(step)


# Without this, pydantic ignores a misspelt option. Set from outside: it is no business of a step's author.
for _class in (*STEPS.values(), UnitChange):
    _class.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]
