"""The step that finds which records are the same: blocked, compared, scored, explained pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from pyspark.sql import DataFrame

from headgate.transforms.fusion import model, supervised
from headgate.transforms.fusion.blocking import Blocks, missed
from headgate.transforms.fusion.learned import Knowledge
from headgate.transforms.fusion.levels import first_equal
from headgate.transforms.fusion.matching import Found, MatchRecords, blocked
from headgate.transforms.fusion.records import Records, element_of, made_ready
from headgate.transforms.fusion.repeats import repeats_itself
from headgate.transforms.fusion.scoring import LINK, Counted, Pairs, Scored, differ_in
from headgate.transforms.fusion.values import Kind
from headgate.transforms.kinds import is_plain
from headgate.transforms.rows import SOURCE, SPLIT, is_own
from headgate.transforms.step import Columns, Context, Estimator, Step, StepError, require_columns
from headgate.words import cell, did_you_mean


@dataclass(frozen=True, kw_only=True)
class LinkRecords(Estimator):
    """Find the pairs of records that are the same thing, of one source or across several, without a common key.

    columns: column -> how it is compared: `name` (short text: Jaro-Winkler, or the cosine of its words), `text` (the
        cosine of its words, each weighed by its rarity), `code` (edits of its letters and digits), `number`, `date`,
        `place` (latitude and longitude in degrees as one text, by metres), `set` (an array: cosine of its elements).
        Without it, the values of all columns choose: see the run's summary.
    key: the columns that a reader knows a record by. They are shown, as `key_a` and `key_b`, and not compared.
    source: the column that names a record's source: records of one source are not linked. Without it `_source`, where
        the table starts from several; else all records are of one source, and are linked with each other.
    one_to_one: whether a record has at most one partner in each other source, but for what people decided. Without it,
        yes where there are several sources and none repeats its own records.
    threshold: least probability of a link. Without it, the one with the best expected F1.
    labels: a table of pairs that are known: `key_a`, `key_b`, `same` (true or false), and with several sources
        `source_a`, `source_b`. The score is then learned from them as well. Blanks around keys make no difference.
    decisions: a table of the same form with what people decided: pairs that are one, whatever their score, and pairs
        that are not.
    cap: a key that many records share makes at most half the square of it in pairs. Without it from 6 to 200, as the
        pairs can be afforded.
    pairs_per_record: candidate pairs of a record, on average, that can be afforded under keys alone, and again under
        two common ones together. Where the smallest cap gives more, each record keeps its best.
    minhash: bands of two hashes of a text's words by which records meet too, beside values, words and beginnings;
        for texts whose words are all frequent.
    neighbours: that a record meets after it in the order of each column's values, of all sources together (sorted
        neighbourhood): names by their letters, numbers by size, dates by time, and alike values by row id. For values
        that nothing but a small difference in the middle parts. Pairs are then made as a whole at every build.
    seed: of the samples.
    The table's `grain` is new: a row is a pair with a score of -8 bits or more, or decided by people. `score` is log2
    of the odds that both are one; `weights` are its parts in bits, by column, with `(prior)`, `(dependence)` (columns
    that agree together by chance) and `(lead)` (over rivals for one partner); they add up to it. `probability` is that
    of the score, and where a record has one partner at most, against its rivals. `pattern` is the level of each
    comparison: 0 a null on either side, 1 different, higher is closer. `rule` is `model`, `supervised`, `must_link` or
    `cannot_link`;
    `linked` is the decision. Of several sources, `a` is of the one whose name comes first; of one, the smaller row id.
    Records with one row id are one record, of which the first by its content is compared. Of more than 32 columns those
    that tell most are compared, of a value its first 4,000 characters. Rows marked before stay marked.
    The step learns how columns are compared, how frequent values are, which keys are common, what a match looks like,
    and the cut. `refit` of its table keeps that from build to build. Then only the pairs of changed records are made
    again, and of those with a key that came to be common or no longer is: the rows are those of a full build by the
    same model, to the last bit. It learns anew where a source or a label is new, or the records are half as many again
    or a third fewer. All pairs are made again where more than 10 % of the records changed, where the lead counts, and
    where records kept their best pairs alone.
    Labels and decisions that name unknown records, or contradict each other, are counted in a warning; it is an error
    if all labels name unknown ones. So is it where no column has values in every source. Where there is no pair to
    compare, there are no rows, and a warning.
    Cost: of changed records, the keys of all are made and counted, in three passes, and theirs compared. Of all, up to
    100,000 records two Spark jobs and the driver's Python, some 15 s and 1.5 GB for 100,000. Beyond that one
    pass to make records ready, shuffles of their keys and of the candidate pairs, and the comparison, some 500,000
    pairs of ten columns a second and core; both give the same rows. What is learned on the driver is counts of
    patterns. Candidates of a key grow with its records, not with their square; `neighbours`
    adds a sort of all values by ranges, and so many pairs of a record and column. Source: Fellegi and Sunter 1969;
    Winkler 1988 and 2000; Larsen and Rubin 2001; Broder 1997; Hernández and Stolfo 1995.
    """

    name: ClassVar[str] = "link_records"
    revision: ClassVar[int] = 6
    grain: ClassVar[Literal["rows", "new"]] = "new"
    columns: Mapping[str, Kind] | None = None
    key: tuple[str, ...] = ()
    source: str | None = None
    one_to_one: bool | None = None
    threshold: float | None = None
    labels: str | None = None
    decisions: str | None = None
    cap: int | None = None
    pairs_per_record: int = 20
    minhash: int = 0
    neighbours: int = 0
    seed: int = 7

    @property
    def whole_rows(self) -> bool:
        return self.columns is None

    def tables(self) -> tuple[str, ...]:
        return tuple(t for t in (self.labels, self.decisions) if t is not None)

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*(self.columns or ()), *self.key, *([self.source] if self.source else [])], have)
        if self.columns is not None and not self.columns:
            raise StepError("columns: name at least one column, or leave the option out")
        for column in (*(self.columns or ()), *self.key):
            kind = have[column]
            array = kind is not None and column in (self.columns or ()) and element_of(kind) is not None
            if kind is not None and not array and not is_plain(kind):
                raise StepError(f"'{column}' is {kind}, not a plain value; put a cast before")
            asked = (self.columns or {}).get(column)
            if kind is not None and asked is not None and array != (asked == "set"):
                raise StepError(f"columns: '{column}' is {kind}, and `set` compares arrays, nothing else")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise StepError(f"threshold: {self.threshold} is not a probability above 0, up to 1")
        for option, value in (("cap", self.cap), ("pairs_per_record", self.pairs_per_record)):
            if value is not None and value < 1:
                raise StepError(f"{option}: {value} is less than 1")
        if not 0 <= self.minhash <= 64:
            raise StepError(f"minhash: {self.minhash} is not a number of bands from 0 to 64")
        if not 0 <= self.neighbours <= 100:
            raise StepError(f"neighbours: {self.neighbours} is not a number of records from 0 to 100")
        for option, table in (("labels", self.labels), ("decisions", self.decisions)):
            if table is None:
                continue
            if table not in tables:
                raise StepError(f"{option}: there is no table '{table}'{did_you_mean(table, tables)}")
            try:
                require_columns(["key_a", "key_b", "same"], tables[table])
            except StepError as e:
                raise StepError(f"{option}: table '{table}': {e}") from e
            if tables[table]["same"] not in (None, "boolean"):
                kind = tables[table]["same"]
                raise StepError(f"{option}: 'same' of table '{table}' is {kind}; put a cast to boolean")
            if not self.key:
                raise StepError(f"{option}: needs the option key, by which the pairs name their records")
        return dict(LINK)

    def learns_from(self) -> tuple[str, ...]:
        return tuple(self.columns or ())

    def watched(self, have: Columns) -> Sequence[str]:
        aside = (*self.key, self.source, SOURCE)
        wanted = self.columns or [c for c in have if c not in aside and not is_own(c)]
        return [c for c in wanted if is_plain(have[c] or "string")]

    def fit(self, training: DataFrame, context: Context) -> Step:
        source = self.source or (SOURCE if SOURCE in training.columns else None)
        frozen = MatchRecords(
            key=self.key,
            source=source,
            labels=self.labels,
            decisions=self.decisions,
            pairs_per_record=self.pairs_per_record,
            minhash=self.minhash,
            neighbours=self.neighbours,
        )
        columns, key, seed = self.columns, self.key, self.seed
        records = made_ready(training, context, columns=columns, key=key, source=source, seed=seed)
        if records is None:
            return replace(frozen, found=Found(None))
        if records.repeated:
            context.warn(
                f"{records.repeated:,} rows repeat the row id of another one (a source's key, or content): one record"
            )
        chosen = ", ".join(map(str, records.comparisons))
        left = ", ".join(f"{c} ({why})" for c, why in list(records.left_out.items())[:10])
        context.warn(f"compared: {chosen}" + (f"; left out: {left}" if left else ""))
        options: dict[str, Any] = {"cap": self.cap, "seed": seed}
        pairs = blocked(records, frozen, context, per_record=self.pairs_per_record, **options)
        alone = self.one_partner(records, pairs, context)
        if not pairs.blocks.found:
            context.warn("no two records share a key that few others have: there are no links")
        found, first, second, counts = self.learn(records, pairs, alone, context)
        cut = self.threshold if self.threshold is not None else found.cut
        self.tell(records, pairs.blocks, found, cut, context)
        differing = differ_in(counts, second or first, cut, [c.column for c in records.comparisons])
        if differing:
            shown = ", ".join(f"{cell(column)} ({share:.0%})" for column, share in differing)
            context.warn(
                f"pairs that score as links differ, where both have values, for the most part in {shown}: where such "
                "columns tell things apart, the links are of groups (a household, an album), not of one thing"
            )
        learned = Knowledge(
            sources=records.sources,
            sizes=records.sizes,
            comparisons=records.comparisons,
            alone=alone,
            trimmed=pairs.blocks.trimmed,
            single=pairs.blocks.limits.single,
            double=pairs.blocks.limits.double,
            filled=tuple(f.filled for f in pairs.frequencies),
            rest=pairs.frequencies[0].rest,
            counts=Knowledge.stored(pairs, context),
            first=first,
            second=second,
            cut=cut,
            labels=frozen.labels_now(context),
        )
        every = None if SPLIT in training.columns else pairs  # others are linked as well as those
        return replace(frozen, learned_from=learned, found=Found(every))

    def one_partner(self, records: Records, pairs: Pairs, context: Context) -> bool:
        """Return whether a record has at most one partner in each other source."""
        if self.one_to_one is not None:
            return self.one_to_one and records.linking
        if not records.linking:
            return False
        again = repeats_itself(records, pairs.frequencies)
        if again is not None:
            repeated = f"{again[1]:.0%} of the records of {cell(again[0])} repeat another one"
            context.warn(f"links may be many to many: {repeated}")
            return False
        context.warn("a record has one partner at most in each other source: none repeats its own beyond chance")
        return True

    def learn(
        self, records: Records, pairs: Pairs, alone: bool, context: Context
    ) -> tuple[Scored, model.Model | supervised.Supervised, model.Model | None, Counted]:
        """Judge the pairs, and return what they say, what scored them, what did so with the lead over rivals, and
        the counts of what was scored."""
        size = len(records.comparisons)
        equal = [first_equal(c.kind) for c in records.comparisons]
        most = most_matches(records.sizes) if alone else None
        counts = pairs.counts(started=False)
        if not counts.blocked.sum():
            counts = nothing_seen(size)
        # Where a record has one partner at most, that rivals share its chances tells groups from matches.
        rate = (lambda m: pairs.judge(m, alone=True).f1) if alone else None
        found = model.fit(counts.patterns, counts.blocked, counts.background, equal, most=most, rate=rate)
        if self.labels is not None:
            try:
                taught = supervised.fit(found, *pairs.labelled())
            except ValueError as e:
                raise StepError(f"labels: {e}") from e
            return pairs.judge(taught, alone=alone), taught, None, counts
        result = pairs.judge(found, alone=alone)
        if not alone or result.f1 >= model.UNSURE or len(records.sizes) != 2 or not pairs.blocks.found:
            return result, found, None, counts
        # The columns alone do not tell all: so may, of a record with one partner, how far a candidate leads its rivals.
        pairs.add_lead()
        led_counts = pairs.counts(started=True)
        floors = {size: model.gap_floor((records.sizes[0], records.sizes[1]))}
        second = model.fit(
            led_counts.patterns,
            led_counts.blocked,
            led_counts.background,
            [*equal, 5],
            most=most,
            start=led_counts.start,
            floors=floors,
            rate=rate,
        )
        led = pairs.judge(second, alone=True)
        if led.f1 < result.f1 + model.GAIN:
            pairs.drop_lead()
            return pairs.judge(found, alone=True), found, None, counts
        context.warn("the columns alone leave many pairs unsure: a pair's lead over its rivals counts as well")
        return led, found, second, led_counts

    def tell(self, records: Records, blocks: Blocks, found: Scored, cut: float, context: Context) -> None:
        """Say what blocking did and missed, and what is expected of the links."""
        missing = "blocking cannot tell what it missed: most matches share one column only"
        if found.once <= found.several / 2:
            recall = found.several / (found.several + missed(found.once, found.twice)) if found.several else 1.0
            missing = f"blocking found {recall:.1%} of the matches by estimate"
        most = blocks.limits.single**2 // 2
        records_in = " and ".join(f"{n:,}" for n in records.sizes[:4])
        context.warn(
            f"{records_in} records: {blocks.found:,} candidate pairs of {blocks.space:,} (at most "
            f"{most:,} of a key), among them {found.likely:,} matches by estimate; {missing}"
        )
        f1 = found.f1 if self.threshold is None else found.f1_from(cut)
        context.warn(f"linked from a probability of {cut:.6g} on; expected F1 {f1:.3f}")
        if blocks.refined:
            names = [c.column for c in records.comparisons]
            skew = "; ".join(
                f"a key of {' and '.join(c for j, c in enumerate(names) if family >> j & 1)} meets {n:,} records"
                for family, n in blocks.skew
            )
            context.warn(
                f"{blocks.refined:,} keys have more pairs and were refined by a second one; of these "
                f"{blocks.dropped:,} had too many again and were dropped, with {blocks.lost:,} pairs. "
                f"The most frequent: {skew}"
            )


def most_matches(sizes: tuple[int, ...]) -> float:
    """Return the most matches there can be where a record has one partner at most in each other source."""
    return float(sum(min(a, b) for i, a in enumerate(sizes) for b in sizes[i + 1 :]))


def nothing_seen(size: int) -> Counted:
    """Return the counts of one pair that differs in all, where no pair was compared."""
    return Counted(patterns=np.ones((1, size), np.int8), blocked=np.ones(1), background=np.ones(1))
