"""Lineage of columns, read from the plan that really ran."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pyspark.sql import DataFrame


@dataclass
class Lookups:
    """What steps looked up in other tables.

    frames: each with its table; a table that several steps read is read anew for each, as Spark would give its columns
    other ids in the second join. brought: `table.column` of what joins brought, with the id that Spark gave it.
    """

    frames: list[tuple[str, DataFrame]] = field(default_factory=list)
    brought: list[tuple[str, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Origins:
    """For each column of a table, the columns (`table.column`) of its inputs whose values are in it.

    joined: those that a join brought, which may be columns of the very table that it starts from. brought: the joins
    that brought them, as `table.column` with the column's name after the join, which is what `_joined` of a row says.
    """

    columns: dict[str, list[str]]
    joined: dict[str, list[str]]
    brought: dict[str, list[str]]

    @classmethod
    def of(
        cls,
        df: DataFrame,
        starts: Mapping[str, DataFrame],
        lookups: Lookups,
        kept: Sequence[tuple[DataFrame, DataFrame]] = (),
    ) -> "Origins":
        """Return the origins of what became of the rows of the tables `starts`, with what was looked up in others.

        kept: rows that were written on the way, and as they were read again.
        """
        frames = [(f"={name}", rows) for name, rows in starts.items()]
        frames += [(f"+{name}", rows) for name, rows in lookups.frames]
        found = columns_of(df, frames, {i: {f"*{name}"} for name, i in lookups.brought}, kept)
        columns = {c: sorted({o[1:] for o in origins if o[0] != "*"}) for c, origins in found.items()}
        joined, by = ({c: [o[1:] for o in origins if o[0] == how] for c, origins in found.items()} for how in "+*")
        return cls(columns, joined, by)


def ids_of(df: DataFrame, columns: Collection[str]) -> dict[str, int]:
    """Return the id that Spark gave to each of some columns, by which it is known in later plans."""
    output = df._jdf.queryExecution().analyzed().output()
    return {c: output.apply(i).exprId().id() for i, c in enumerate(df.columns) if c in columns}


def columns_of(
    df: DataFrame,
    frames: Iterable[tuple[str, DataFrame]],
    known_as: Mapping[int, set[str]] = MappingProxyType({}),
    kept: Sequence[tuple[DataFrame, DataFrame]] = (),
) -> dict[str, list[str]]:
    """For each column of `df`, the columns (`table.column`) of the frames whose values went into it.

    known_as: names of further columns by their ids. kept: rows that were written on the way, and as they were read
    again. Conditions that only decide which rows stay or match are no part of it.
    """
    sources: dict[int, set[str]] = dict(known_as)
    for name, frame in frames:
        for attribute in attributes(plan_of(frame)):
            sources[attribute["exprId"]["id"]] = {f"{name}.{attribute['name']}"}
    plan = plan_of(df)
    made = made_of(df, plan)
    used = ids_in(plan)
    for rows, read in reversed(kept):
        after = ids_of(read, read.columns)
        if used.isdisjoint(after.values()):
            continue
        for column, i in ids_of(rows, rows.columns).items():
            made.setdefault(after[column], set()).add(i)
        before = plan_of(rows)
        used |= ids_in(before)
        for i, below in made_of(rows, before).items():
            made.setdefault(i, set()).update(below)
    known: dict[int, set[str]] = {}

    def origin(i: int) -> set[str]:
        if i not in known:
            known[i] = set(sources.get(i, ()))  # set first: a circle ends here
            for j in made.get(i, ()):
                if j != i:
                    known[i] |= origin(j)
        return known[i]

    return {a["name"]: sorted(origin(a["exprId"]["id"])) for a in attributes(plan)}


def made_of(df: DataFrame, plan: list[dict[str, Any]]) -> dict[int, set[int]]:
    """Return for the id of each column that a plan makes those of the columns that it is made of."""
    made: dict[int, set[int]] = {}
    if any(node["class"].endswith(".Union") for node in plan):
        for column, branch in branches(df._jdf.queryExecution().analyzed()):
            made.setdefault(column, set()).add(branch)
    for tree in expressions(plan):
        for root, below in subtrees(tree):
            if root["class"].endswith(".Alias"):
                made.setdefault(root["exprId"]["id"], set()).update(
                    n["exprId"]["id"] for n in below if n["class"].endswith(".AttributeReference")
                )
    return made


def ids_in(plan: list[dict[str, Any]]) -> set[int]:
    """Return the ids of the columns that a plan names."""
    nodes = (n for tree in expressions(plan) for n in tree)
    return {n["exprId"]["id"] for n in nodes if n["class"].endswith(".AttributeReference")}


def plan_of(df: DataFrame) -> list[dict[str, Any]]:
    """Return the analysed plan of a projection to all columns, as Spark's JSON: a list of nodes in pre-order.

    It comes by one call to the JVM; asking its nodes one by one would take thousands.
    """
    found: list[dict[str, Any]] = json.loads(df.select("*")._jdf.queryExecution().analyzed().toJSON())
    return found


def attributes(plan: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return name and id of each output column of a plan whose root is a projection to columns."""
    return [column[0] for column in plan[0]["projectList"]]


def branches(node: Any) -> Iterator[tuple[int, int]]:
    """Return the id of each column of every union in a plan, beside that of each branch's column there."""
    for below in items(node.children()):
        if node.getClass().getSimpleName() == "Union":
            ids = ((a.exprId().id() for a in items(n.output())) for n in (node, below))
            yield from zip(*ids, strict=True)
        yield from branches(below)


def items(sequence: Any) -> list[Any]:
    """The members of a sequence of Scala's."""
    return [sequence.apply(i) for i in range(sequence.size())]


def expressions(node: Any) -> Iterator[list[dict[str, Any]]]:
    """Every expression of a plan in Spark's JSON: a list of nodes in pre-order."""
    if isinstance(node, list):
        if node and all(isinstance(n, dict) and "class" in n and "num-children" in n for n in node):
            yield node
        for child in node:
            yield from expressions(child)
    elif isinstance(node, dict):
        for child in node.values():
            yield from expressions(child)


def subtrees(tree: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each node of a pre-order list with the nodes below it."""
    ends = [0] * len(tree)
    for i in range(len(tree) - 1, -1, -1):
        end = i + 1
        for _ in range(tree[i]["num-children"]):
            end = ends[end]
        ends[i] = end
        yield tree[i], tree[i + 1 : end]
