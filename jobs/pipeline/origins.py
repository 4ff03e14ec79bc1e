"""Lineage of columns, read from the plan that really ran."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame


@dataclass(frozen=True)
class Origins:
    """For each column of a table, the columns (`table.column`) of its inputs whose values are in it.

    joined: those that a join brought, which may be columns of the very table that it starts from.
    """

    columns: dict[str, list[str]]
    joined: dict[str, list[str]]

    @classmethod
    def of(cls, df: DataFrame, starts: Mapping[str, DataFrame], looked_up: Mapping[str, DataFrame]) -> "Origins":
        """Return the origins of what became of the rows of the tables `starts`, with what was looked up in others."""
        began = {f"={name}": rows for name, rows in starts.items()}
        found = columns_of(df, began | {f"+{name}": frame for name, frame in looked_up.items()})
        columns = {c: sorted({o[1:] for o in origins}) for c, origins in found.items()}
        return cls(columns, {c: [o[1:] for o in origins if o[0] == "+"] for c, origins in found.items()})


def columns_of(df: DataFrame, frames: Mapping[str, DataFrame]) -> dict[str, list[str]]:
    """For each column of `df`, the columns (`table.column`) of the frames whose values went into it.

    Conditions that only decide which rows stay or match are no part of it.
    """
    sources: dict[int, set[str]] = {}
    for name, frame in frames.items():
        for attribute in attributes(plan_of(frame)):
            sources[attribute["exprId"]["id"]] = {f"{name}.{attribute['name']}"}
    made: dict[int, set[int]] = {}
    plan = plan_of(df)
    if any(node["class"].endswith(".Union") for node in plan):
        for column, branch in branches(df._jdf.queryExecution().analyzed()):
            made.setdefault(column, set()).add(branch)
    for tree in expressions(plan):
        for root, below in subtrees(tree):
            if root["class"].endswith(".Alias"):
                made.setdefault(root["exprId"]["id"], set()).update(
                    n["exprId"]["id"] for n in below if n["class"].endswith(".AttributeReference")
                )
    known: dict[int, set[str]] = {}

    def origin(i: int) -> set[str]:
        if i not in known:
            known[i] = set(sources.get(i, ()))  # set first: a circle ends here
            for j in made.get(i, ()):
                if j != i:
                    known[i] |= origin(j)
        return known[i]

    return {a["name"]: sorted(origin(a["exprId"]["id"])) for a in attributes(plan)}


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
