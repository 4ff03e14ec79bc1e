"""The pipeline that `headgate impute` builds, made of its options, and what its report shows."""

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import duckdb
import pyarrow as pa

from headgate.jobs.cli.given_files import need_columns, types_of
from headgate.jobs.cli.one_table import Request, Start, checked, start_of
from headgate.jobs.cli.text_types import columns_of_files, type_of
from headgate.jobs.config.pipeline import Pipeline
from headgate.jobs.errors import UsageError
from headgate.jobs.lake.artifacts import read_fitted
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.storage import quoted
from headgate.transforms.rows import CHANGED

FILLED = ("BOOLEAN", "TINYINT", "SMALLINT", "INT", "BIGINT", "FLOAT", "DOUBLE", "DATE", "TIMESTAMP", "STRING")
ALLOWED = "a number, a date, a time, a boolean or a text"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options of `headgate impute`: columns to fill (none: all that can be), and those of the step.

    hidden: what is done with values that stand for missing ones. draws: tables to make, by draws; 0 for one without.
    """

    columns: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    hidden: str = "apply"
    draws: int = 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The pipeline of an imputation, and what there is to say of its input before it runs.

    tables: those that it makes, by draws. columns: those that draws fill.
    """

    pipeline: Pipeline
    start: Start
    columns: Sequence[str]
    tables: Sequence[str]
    types: Mapping[str, str]
    notices: Sequence[str] = ()


def pipeline_of(request: Request, asked: Asked, lake: Lake) -> Plan:
    """Return the pipeline that builds `into`: texts converted, hidden missing values emptied, gaps filled.

    Columns of text files are of the type that all their texts are of, among the first `SAMPLE` records, markers of
    missing values left out; those of a table that is there stay what they are.
    """
    made = [f"{request.into}_{i}" for i in range(1, asked.draws + 1)] or [request.into]
    start = start_of(request, lake, made)
    if start.source is not None:
        start = replace(start, source={**start.source, "on_changed_file": "replace"})
    types, notices = types_of_input(start, made[0], request.key, lake)
    casts = {c: t for c, t in types.items() if t != start.columns[c]}
    by = asked.options.get("by", ())
    need_columns("--columns", asked.columns, list(types))
    need_columns("--group-by", by, list(types))
    both = next((c for c in asked.columns if c in by), None)
    if both is not None:
        raise UsageError(f"--columns: '{both}' cannot be filled and be in --group-by as well")
    grouped = next((o for o in ("method", "masking") if asked.options.get(o) == "group"), None)
    if grouped and not by:
        raise UsageError(f"--{grouped} group: name the columns of the groups in --group-by")
    can = [c for c, t in types.items() if c not in (*request.key, *by) and can_fill(t, asked.draws)]
    columns = list(asked.columns or can)
    if not columns:
        raise UsageError(f"{request.given}: no column can be filled (columns: {', '.join(types)})")
    for option, named in (("--columns", columns), ("--group-by", by)):
        wrong = next((c for c in named if not can_fill(types[c], asked.draws if option == "--columns" else 0)), None)
        if wrong is not None:
            allowed = "draws fill numbers, dates, times and booleans" if asked.draws else f"expected {ALLOWED}"
            raise UsageError(f"{option}: '{wrong}' is {types[wrong]}; {allowed}")
    using = [c for c in can if c not in columns] if asked.columns else []
    looked_at = [c for c in (*columns, *using) if types[c] not in ("BOOLEAN", "TIMESTAMP")]
    markers = [("null_markers", {"columns": looked_at, "learn": asked.hidden})]
    first: list[tuple[str, Mapping[str, Any]]] = [
        *([("cast", {"columns": {c: t.lower() for c, t in casts.items()}, "markers": True})] if casts else ()),
        *(markers if looked_at and asked.hidden != "nothing" else ()),
    ]
    named = {"columns": columns, "using": using}
    seed = asked.options.get("seed", 0)
    steps = {
        table: [*first, ("impute_gaussian", named | {"draw": seed * 1_000_003 + i})]
        if asked.draws
        else [*first, ("impute_auto", named | dict(asked.options))]
        for i, table in enumerate(made)
    }
    places = {option: f"--{option}" for option in asked.options} | {"by": "--group-by", "columns": "--columns"}
    places |= {"using": "--columns", "null_markers": "--hidden", "cast": "--schema"}
    places |= {"impute_auto": "impute", "impute_gaussian": "impute"}
    pipeline = checked(request, start, steps, places)
    return Plan(pipeline=pipeline, start=start, columns=columns, tables=made, types=types, notices=notices)


def can_fill(kind: str, draws: int) -> bool:
    return (kind in FILLED and not (draws and kind == "STRING")) or kind.startswith("DECIMAL")


def types_of_input(start: Start, into: str, key: Sequence[str], lake: Lake) -> tuple[dict[str, str], list[str]]:
    """Return the type of each column as it is filled, and notices of texts that are almost all of a type."""
    types = dict(start.columns)
    if start.source is None or start.source["format"] not in ("csv", "jsonl"):
        return types, []
    open_ = [c for c in types if c not in start.given_types and c not in key]
    made = lake.open(into)
    if made is not None:
        before = types_of(pa.schema(made.schema().to_arrow()))
        return types | {c: before[c] for c in open_ if c in before}, []
    notices = []
    for column, texts in columns_of_files(start, open_).items():
        kind, notice = type_of(texts)
        types[column] = kind
        if notice:
            notices.append(f"'{column}' {notice}")
    return types, notices


# -- what came of it


def filled(lake: Lake, request: Request, types: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return for each column that was looked at: type, missing cells, those left, method and held-out errors.

    missing: in the rows that are published. error: on masked cells, relative to that of mean or mode (1).
    """
    found = lake.published(request.into)
    state = found.facts.get("state") if found else None
    saved = read_fitted(lake, request.into, state) if state else None
    entries = (saved or {"steps": []})["steps"]
    fit = next((entry["fill_chosen"] for entry in entries if "fill_chosen" in entry), None)
    step = next((entry["id"] for entry in entries if "fill_chosen" in entry), "")
    if fit is None:
        return []
    rows, gaps = gaps_of(lake, request.into, fit["columns"], step)
    report = []
    for column in fit["columns"]:
        done, left = gaps[column]
        weights = (fit["chosen"] or {}).get(column)
        scores = {s["method"]: s for s in fit["scores"] if s["column"] == column}
        method, error = "", None
        if done + left and weights is None:
            method = "none" if not done else "simple"
        elif weights is not None and done + left:
            parts = (f"{m} {w:.2f}" if w < 0.995 else m for m, w in weights.items() if w >= 0.005)
            method = " + ".join(parts) or "simple"
            best = scores.get("blend") if len(weights) > 1 or set(weights.values()) != {1.0} else None
            error = (best or scores.get(next(iter(weights)), {})).get("error")
        kind = types.get(column, "")
        report.append(
            {
                "column": column,
                "type": kind.lower(),
                "missing": done + left,
                "share": round((done + left) / rows, 4) if rows else 0.0,
                "left": left,
                "method": named(method, kind),
                "error": error,
                "cells": scores["simple"]["cells"] if "simple" in scores else 0,
                "scores": {m: s["error"] for m, s in scores.items()},
            }
        )
    return report


def named(method: str, kind: str) -> str:
    return method.replace("simple", "mode" if kind in ("STRING", "BOOLEAN") else "mean")


def gaps_of(lake: Lake, table: str, columns: Sequence[str], step: str) -> tuple[int, dict[str, tuple[int, int]]]:
    """Return the rows of a table and, by column, how many cells a step filled and how many are missing still."""
    rows = lake.dataset(table)
    kinds = {f.name: f.type for f in rows.schema}
    parts = []
    for c in columns:
        nan = f" OR isnan({quoted(c)})" if str(kinds[c]) in ("float", "double") else ""
        parts.append(f"count(*) FILTER (WHERE {quoted(c)} IS NULL{nan})")
        entry = f"""{{'column': '{c.replace("'", "''")}', 'step': '{step}'}}"""
        parts.append(f"count(*) FILTER (WHERE list_contains({CHANGED}, {entry}))")
    connection = duckdb.connect()
    connection.register("_hg_rows", rows)
    total, *found = connection.execute(f"SELECT count(*), {', '.join(parts)} FROM _hg_rows").fetchone() or (0,)
    return total, {c: (found[2 * i + 1], found[2 * i]) for i, c in enumerate(columns)}


def pooled(lake: Lake, tables: Sequence[str], columns: Sequence[str], types: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the mean of each number over several draws, with its standard error, by Rubin's rules (1987).

    lost: the share of the mean's variance that is owed to missing cells.
    """
    numbers = [c for c in columns if types[c] not in ("BOOLEAN", "DATE", "TIMESTAMP")]
    connection = duckdb.connect()
    means: dict[str, list[float]] = defaultdict(list)
    inner: dict[str, list[float]] = defaultdict(list)
    parts = ", ".join(f"avg({quoted(c)}), var_samp({quoted(c)}) / count({quoted(c)})" for c in numbers)
    for i, table in enumerate(tables if numbers else ()):
        connection.register(f"_hg_{i}", lake.dataset(table))
        (found,) = connection.execute(f"SELECT {parts} FROM _hg_{i}").fetchall()
        for c, mean, variance in zip(numbers, found[::2], found[1::2], strict=True):
            if mean is not None:
                means[c].append(float(mean))
                inner[c].append(float(variance or 0.0))
    report = []
    for c, each in means.items():
        between = statistics.variance(each) * (1 + 1 / len(each)) if len(each) > 1 else 0.0
        total = statistics.fmean(inner[c]) + between
        lost = round(between / total, 4) if total else 0.0
        report.append({"column": c, "mean": statistics.fmean(each), "error": math.sqrt(total), "lost": lost})
    return report
