"""Pictures of links, by matplotlib (extra `plots`): the parts of one score, the scores of all pairs."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headgate.jobs.errors import UsageError

BINS = 60


def canvas(height: float) -> tuple[Any, Any]:
    """Return an empty picture and its axes; raise `UsageError` without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise UsageError("--plot: needs matplotlib; install headgate[plots]") from e
    figure = Figure(figsize=(8, height), layout="constrained")
    return figure, figure.subplots()


def waterfall(pair: Mapping[str, Any], path: str) -> None:
    """Draw how the parts of a pair's score add up to it: the prior first, then the largest parts."""
    parts = sorted(dict(pair["weights"] or ()).items(), key=lambda w: (w[0] != "(prior)", -abs(w[1]), w[0]))
    figure, axes = canvas(1.5 + 0.35 * (len(parts) + 1))
    at = 0.0
    for row, (_, bits) in enumerate(parts):
        axes.barh(row, bits, left=at, color="tab:green" if bits >= 0 else "tab:red")
        axes.annotate(f"{bits:+.1f}", (at + bits, row), xytext=(3, 0), textcoords="offset points", va="center")
        at += bits
    axes.barh(len(parts), at, color="tab:blue")
    axes.annotate(f"{at:.1f}", (at, len(parts)), xytext=(3, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(parts) + 1), [*(name for name, _ in parts), "score"])
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("bits of evidence that both are one")
    axes.set_title(f"{pair['key_a']} and {pair['key_b']}: probability {pair['probability']:.3f}")
    save(figure, path)


def histogram(scores: pa.Table, path: str) -> None:
    """Draw the scores of all pairs, those linked beside the others, and the least score of a link by the model."""
    figure, axes = canvas(4.5)
    linked = scores.filter(scores["linked"])
    others = scores.filter(pc.invert(scores["linked"]))
    drawn = [linked["score"].to_numpy(), others["score"].to_numpy()]
    axes.hist(drawn, bins=BINS, stacked=True, label=["linked", "not linked"], color=["tab:blue", "tab:gray"])
    by_model = linked.filter(pc.is_in(linked["rule"], pa.array(["model", "supervised"])))
    if by_model.num_rows:
        cut = pc.min(by_model["score"]).as_py()
        axes.axvline(cut, color="tab:red", label=f"the weakest link: {cut:.1f} bits")
    axes.set_yscale("symlog")
    axes.set_xlabel("score, in bits")
    axes.set_ylabel("pairs")
    axes.legend()
    save(figure, path)


def save(figure: Any, path: str) -> None:
    try:
        figure.savefig(path, dpi=120)
    except (ValueError, OSError) as e:
        raise UsageError(f"--plot: {path} cannot be written: {e}") from e
