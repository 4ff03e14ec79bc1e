"""The table of steps: YAML name -> class."""

import functools
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from headgate.transforms.balancing.auto import BalanceClasses
from headgate.transforms.balancing.borders import ThinMajority
from headgate.transforms.balancing.division import BagExactly, FoldExactly, SplitExactly
from headgate.transforms.balancing.folds import AssignBags, AssignFolds
from headgate.transforms.balancing.mixture import MixSources
from headgate.transforms.balancing.order import AssignOrder, OrderRows
from headgate.transforms.balancing.resample import ResampleStrata
from headgate.transforms.balancing.smote import MakeMinority
from headgate.transforms.balancing.split import SplitByColumn, SplitByHash, SplitByTime
from headgate.transforms.balancing.strata import SampleStrata
from headgate.transforms.balancing.targets import Target
from headgate.transforms.balancing.tokens import CountTokens
from headgate.transforms.balancing.weights import AssignWeights, ClassWeights
from headgate.transforms.cleaning.bounds import CheckBounds, CheckOutliersIqr, RejectRows
from headgate.transforms.cleaning.columns import Cast, Derive, DropColumns, Rename, SelectColumns
from headgate.transforms.cleaning.mapping import MapColumns, MappedColumn
from headgate.transforms.cleaning.outliers import CheckGroupBounds, CheckOutliers
from headgate.transforms.cleaning.repair import Dependency, RepairCells, RepairKnown
from headgate.transforms.cleaning.scores import ScoreByForest, ScoreOutliers
from headgate.transforms.cleaning.text import NormalizeText
from headgate.transforms.cleaning.times import LocalToUtc
from headgate.transforms.cleaning.units import ConvertUnits, UnitChange
from headgate.transforms.cleaning.urls import NormalizeUrl
from headgate.transforms.deduplication.exact import DropDuplicates
from headgate.transforms.deduplication.images import DropNearImages
from headgate.transforms.deduplication.leaks import FindLeaks
from headgate.transforms.deduplication.lines import DropRepeatedLines
from headgate.transforms.deduplication.near import DropNearDuplicates
from headgate.transforms.features.aggregate import Aggregate, Summary
from headgate.transforms.features.as_of import ApplyAsOf, LearnAsOf
from headgate.transforms.fusion.asof import JoinAsof
from headgate.transforms.fusion.crossreference import ConfirmLinks, CrossReference
from headgate.transforms.fusion.entities import AssignEntities
from headgate.transforms.fusion.golden import GoldenRecords
from headgate.transforms.fusion.history import EntityEvents, EntityHistory
from headgate.transforms.fusion.join import JoinTable
from headgate.transforms.fusion.links import LinkRecords
from headgate.transforms.fusion.matching import MatchRecords
from headgate.transforms.fusion.predictions import CombinePredictions
from headgate.transforms.fusion.stacking import PredictStack, StackPredictions
from headgate.transforms.imputation.auto import FillChosen, ImputeAuto
from headgate.transforms.imputation.measuring import MeasureMissing
from headgate.transforms.imputation.missingness import DropSparse, EmptyMarkers, FlagMissing, NullMarkers, RejectMissing
from headgate.transforms.imputation.models import FillGaussian, ImputeGaussian
from headgate.transforms.imputation.series import ImputeInterpolated, ImputeNext, ImputePrevious
from headgate.transforms.imputation.simple import FillMissing, ImputeConstant, ImputeMean, ImputeMedian, ImputeMode
from headgate.transforms.imputation.trees import FillTrees, ImputeTrees
from headgate.transforms.scaling.codes import AssignCodes, EncodeOrdinal
from headgate.transforms.scaling.indicators import AddIndicators, EncodeOneHot
from headgate.transforms.scaling.linear import ScaleLinear, ScaleMaxAbs, ScaleMinMax, ScaleRobust, ScaleStandard
from headgate.transforms.scaling.logs import TransformLog
from headgate.transforms.scaling.norms import ScaleUnitNorm
from headgate.transforms.scaling.power import ApplyPower, TransformPower
from headgate.transforms.scaling.ranks import ApplyQuantiles, TransformQuantile
from headgate.transforms.scaling.target import AssignTargetMeans, EncodeTarget
from headgate.transforms.scaling.undo import UndoStep
from headgate.transforms.step import Step

STEPS: dict[str, type[Step]] = {
    # cleaning
    "map_columns": MapColumns,
    "cast": Cast,
    "rename": Rename,
    "select_columns": SelectColumns,
    "drop_columns": DropColumns,
    "derive": Derive,
    "normalize_text": NormalizeText,
    "normalize_url": NormalizeUrl,
    "convert_units": ConvertUnits,
    "local_to_utc": LocalToUtc,
    "check_bounds": CheckBounds,
    "check_outliers_iqr": CheckOutliersIqr,
    "check_outliers": CheckOutliers,
    "score_outliers": ScoreOutliers,
    "reject_rows": RejectRows,
    "repair_cells": RepairCells,
    # deduplication
    "drop_duplicates": DropDuplicates,
    "drop_near_duplicates": DropNearDuplicates,
    "drop_near_images": DropNearImages,
    "drop_repeated_lines": DropRepeatedLines,
    # imputation
    "measure_missing": MeasureMissing,
    "null_markers": NullMarkers,
    "flag_missing": FlagMissing,
    "reject_missing": RejectMissing,
    "drop_sparse": DropSparse,
    "impute_constant": ImputeConstant,
    "impute_mean": ImputeMean,
    "impute_median": ImputeMedian,
    "impute_mode": ImputeMode,
    "impute_previous": ImputePrevious,
    "impute_next": ImputeNext,
    "impute_interpolated": ImputeInterpolated,
    "impute_gaussian": ImputeGaussian,
    "impute_trees": ImputeTrees,
    "impute_auto": ImputeAuto,
    # scaling
    "scale_min_max": ScaleMinMax,
    "scale_standard": ScaleStandard,
    "scale_robust": ScaleRobust,
    "scale_max_abs": ScaleMaxAbs,
    "scale_unit_norm": ScaleUnitNorm,
    "transform_log": TransformLog,
    "transform_power": TransformPower,
    "transform_quantile": TransformQuantile,
    "encode_one_hot": EncodeOneHot,
    "encode_ordinal": EncodeOrdinal,
    "encode_target": EncodeTarget,
    # fusion
    "join_table": JoinTable,
    "join_asof": JoinAsof,
    "link_records": LinkRecords,
    "assign_entities": AssignEntities,
    "golden_records": GoldenRecords,
    "cross_reference": CrossReference,
    "entity_history": EntityHistory,
    "entity_events": EntityEvents,
    "confirm_links": ConfirmLinks,
    "combine_predictions": CombinePredictions,
    "stack_predictions": StackPredictions,
    # features
    "aggregate": Aggregate,
    "learn_as_of": LearnAsOf,
    # balancing
    "split_by_hash": SplitByHash,
    "split_by_time": SplitByTime,
    "split_by_column": SplitByColumn,
    "split_exactly": SplitExactly,
    "fold_exactly": FoldExactly,
    "bag_exactly": BagExactly,
    "find_leaks": FindLeaks,
    "assign_folds": AssignFolds,
    "assign_bags": AssignBags,
    "class_weights": ClassWeights,
    "sample_strata": SampleStrata,
    "make_minority": MakeMinority,
    "thin_majority": ThinMajority,
    "balance_classes": BalanceClasses,
    "count_tokens": CountTokens,
    "mix_sources": MixSources,
    "order_rows": OrderRows,
}


# What fitted steps become: plain values, saved beside the table; not offered to pipelines.
FITTED: dict[str, type[Step]] = {
    "add_indicators": AddIndicators,
    "apply_as_of": ApplyAsOf,
    "apply_power": ApplyPower,
    "apply_quantiles": ApplyQuantiles,
    "assign_codes": AssignCodes,
    "assign_target_means": AssignTargetMeans,
    "assign_order": AssignOrder,
    "assign_weights": AssignWeights,
    "check_bounds": CheckBounds,
    "check_group_bounds": CheckGroupBounds,
    "drop_columns": DropColumns,
    "empty_markers": EmptyMarkers,
    "fill_chosen": FillChosen,
    "fill_gaussian": FillGaussian,
    "fill_missing": FillMissing,
    "fill_trees": FillTrees,
    "match_records": MatchRecords,
    "predict_stack": PredictStack,
    "repair_known": RepairKnown,
    "resample_strata": ResampleStrata,
    "scale_linear": ScaleLinear,
    "score_by_forest": ScoreByForest,
    "undo_step": UndoStep,
}


def options_of(step: type[Step]) -> TypeAdapter[Any]:
    """Return the checker of a step's options; unknown ones are refused."""
    hashable: Any = step
    return adapter_of(hashable)


@functools.cache
def adapter_of(step: Any) -> TypeAdapter[Any]:
    # Without this, pydantic ignores a misspelt option. Set from outside: it is no business of a step's author.
    # What a step learned may be infinite, what is written may not.
    step.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=step not in STEPS.values())
    return TypeAdapter(step)


_nested: tuple[Any, ...] = (UnitChange, Summary, Dependency, MappedColumn, Target)
for _options in _nested:
    _options.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)
