"""Tables with steps that learn, built by what was learned before, as a full build by it, and anew when it is time."""

import random
from datetime import date

import pytest

from headgate.jobs.config.pipeline import load_pipeline
from headgate.jobs.errors import UsageError
from headgate.jobs.keep.verify import verify
from headgate.jobs.lake.artifacts import fitted_of
from headgate.jobs.lake.frames import frame
from headgate.jobs.lake.storage import remove
from headgate.jobs.pipeline import affected
from headgate.jobs.pipeline.context import BuildContext
from headgate.jobs.pipeline.drift import stability
from headgate.jobs.pipeline.fitted import load_fitted
from headgate.jobs.pipeline.learning import mentioned
from headgate.jobs.pipeline.run import dry_run
from headgate.jobs.pipeline.work import described
from headgate.jobs.progress import Progress
from headgate.transforms.balancing.split import fitted
from headgate.transforms.cleaning.columns import Derive
from headgate.transforms.imputation.simple import ImputeMean
from headgate.transforms.rows import with_bookkeeping
from headgate.transforms.step import Estimator, Step
from tests.lakes import Faults, Killed, again, answer, die, environment_of, lake_of, land, rows, write_pipeline

RAW = """
  raw:
    source:
      format: csv
      path: 'raw/*.csv'
      schema: 'id INT, city STRING, kind STRING, size DOUBLE, seats INT'
      key: [id]
      on_changed_file: replace
    suite: null
"""
LEARNS = """
    from: raw
    steps:
      - split_by_hash: {key: [id], shares: {train: 0.8, test: 0.2}}
      - check_outliers_iqr: {columns: [size], action: clip}
      - impute_median: {columns: [size], by: [city]}
      - impute_mode: {columns: [seats]}
      - derive: {columns: {big: size > 50}}
      - sample_strata: {by: [city], share: 1.1, temperature: 3.0, max_copies: 3, seed: 5}
      - class_weights: {label: big, into: weight}
    suite: null
"""
LATER = """
    steps:
      - derive: {columns: {bigger: size + 1}}
    suite: null
"""


@pytest.fixture(autouse=True)
def changes_alone_of_small_tables_too(monkeypatch):
    monkeypatch.setattr(affected, "SMALL", 0)


def lines(choose: random.Random, first: int, number: int, least: int = 0) -> str:
    made = [
        f"{i},c{min(choose.randint(0, 6), choose.randint(0, 6))},k{choose.randint(0, 3)},"
        f"{choose.choice(['', least + choose.randint(0, 99)])},{choose.choice(['', '1', '2', '2'])}"
        for i in range(first, first + number)
    ]
    return "\n".join(["id,city,kind,size,seats", *made]) + "\n"


def facts(folder, table):
    return lake_of(folder).published(table).facts


def saved(folder, table, state):
    """What the steps of a build learned, from rows that were kept once for all of them."""
    steps = load_pipeline(folder / "p.yaml").steps[table]
    return [described(s) for s in load_fitted(lake_of(folder), table, steps, state)]


def learned_alone(spark, folder, table):
    """What the steps learn one after another, each from all columns of the rows before it."""
    steps = load_pipeline(folder / "p.yaml").steps[table]
    df, context = (
        with_bookkeeping(frame(spark, lake_of(folder), "raw", 0)),
        BuildContext(spark, str(folder / "scratch")),
    )
    frozen = []
    for i, step in enumerate(steps):
        mine = context.at(steps, i, df)
        frozen.append(fitted(step, df, mine) if isinstance(step, Estimator) else step)
        df = frozen[-1].run(df, mine)
    return [described(s) for s in frozen]


class Whole(Step):
    """As one of headgate's own whose effect depends on columns that it does not name."""

    __module__ = "headgate.transforms.whole"
    whole_rows = True


def test_columns_that_steps_name_are_kept_and_others_are_not():
    steps = [ImputeMean(columns=("Size",), by=("city",)), Derive(columns={"x": "`odd name` + seats2"})]
    columns = ["size", "city", "seats2", "odd name", "a.b", "kind", "zip"]
    assert mentioned(steps, columns) == set(columns) - {"kind", "zip"}
    assert mentioned([*steps, Whole()], columns) == set(columns)


@pytest.mark.slow
def test_rows_by_a_kept_state_are_as_a_full_build_by_it_makes_them(spark, tmp_path):
    choose = random.Random(4)
    part = f"  part:{LEARNS}    refit: weekly\n"
    whole = f"  whole:{LEARNS}    refit: weekly\n    publish: {{mode: replace}}\n"
    write_pipeline(tmp_path, RAW + part + whole)
    for n in range(4):
        land(tmp_path, f"raw/{n}.csv", lines(choose, n * 40, 40))
    again(spark, tmp_path, as_of=date(2026, 1, 1))
    learned = facts(tmp_path, "part")["state"]
    assert learned_alone(spark, tmp_path, "part") == saved(tmp_path, "part", learned)
    # Ids of copies are made of the step's place, so those of the two tables differ; their other columns do not.
    alike = "select * exclude (_row_id, _changed, _parents) from {} order by all"
    for night in range(2):
        day = date(2026, 1, 2 + night)
        land(tmp_path, f"raw/{4 + night}.csv", lines(choose, (4 + night) * 40, 30))
        if night:  # rows of a file change, and some go
            land(tmp_path, f"raw/{3 + night}.csv", lines(choose, (3 + night) * 40 + 3, 25))
            with pytest.raises(Killed):
                again(spark, tmp_path, as_of=day, progress=Faults(before={("part", "publish"): die}))
        again(spark, tmp_path, as_of=day)
        assert answer(tmp_path, alike.format("part")) == answer(tmp_path, alike.format("whole")), night
        made = facts(tmp_path, "part")
        assert (made["state"], made["fitted_on"]) == (learned, "2026-01-01") and made["moved"] is not None, night
        ids = [r[0] for r in rows(tmp_path, "_row_id", "part")]
        assert len(ids) == len(set(ids))
    assert answer(tmp_path, "select count(*) from part where _parents is not null")[0][0] > 10
    places = load_pipeline(tmp_path / "p.yaml"), environment_of(tmp_path)
    checked = {v["table"]: v["rebuilt"] for v in verify(spark, lake_of(tmp_path), "latest", Progress(), *places)}
    assert (checked["part"], checked["whole"]) == ("same", "same")

    land(tmp_path, "raw/9.csv", lines(choose, 900, 9))
    again(spark, tmp_path, as_of=date(2026, 1, 8))  # a week after it was learned
    anew = facts(tmp_path, "part")
    assert anew["state"] == anew["build_key"] != learned and anew["fitted_on"] == "2026-01-08"

    tables = RAW + f"  part:{LEARNS}    refit: {{release: p-1}}\n"
    write_pipeline(tmp_path, tables)
    again(spark, tmp_path)
    assert facts(tmp_path, "part")["state"] == learned
    assert again(spark, tmp_path).built == 0
    write_pipeline(tmp_path, tables.replace("columns: [size], by: [city]", "columns: [size]"))
    with pytest.raises(UsageError, match="refit: nothing was kept of what 'part/2-impute_median', as it is configured"):
        again(spark, tmp_path)


@pytest.mark.slow
def test_drift_makes_steps_learn_anew(spark, tmp_path):
    choose = random.Random(1)
    write_pipeline(tmp_path, RAW + f"  part:{LEARNS}    refit: on_drift\n")
    for n in range(4):
        land(tmp_path, f"raw/{n}.csv", lines(choose, n * 100, 100))
    again(spark, tmp_path)
    learned = facts(tmp_path, "part")["state"]
    land(tmp_path, "raw/4.csv", lines(choose, 400, 30))
    again(spark, tmp_path, tables=["raw"])
    places = load_pipeline(tmp_path / "p.yaml"), environment_of(tmp_path), lake_of(tmp_path)
    plan = dry_run(*places, ["part"], None, False)
    assert plan[-1]["what"] == f"what changed in raw, by what was learned on {facts(tmp_path, 'part')['fitted_on']}"
    again(spark, tmp_path)
    assert facts(tmp_path, "part")["state"] == learned and facts(tmp_path, "part")["moved"] is not None
    land(tmp_path, "raw/5.csv", lines(choose, 500, 150, least=300))
    outcome = again(spark, tmp_path)
    anew = facts(tmp_path, "part")
    assert anew["state"] == anew["build_key"] != learned and anew["moved"] is None
    assert any("drifted (population stability index: size" in w for r in outcome.tables for w in r.warnings)
    remove(fitted_of(lake_of(tmp_path), "part", anew["state"]))  # as an erasure does
    land(tmp_path, "raw/6.csv", lines(choose, 700, 5, least=100))
    again(spark, tmp_path)
    assert facts(tmp_path, "part")["state"] == facts(tmp_path, "part")["build_key"]


def test_a_refit_of_nothing_is_refused(tmp_path):
    file = write_pipeline(tmp_path, RAW + f"  later:\n    from: raw{LATER}    refit: weekly\n")
    with pytest.raises(UsageError, match=r"p\.yaml:\d+: tables\.later\.refit: no step of the table learns"):
        load_pipeline(file)
    write_pipeline(tmp_path, RAW + f"  part:{LEARNS}    refit: sometimes\n")
    with pytest.raises(UsageError, match="refit"):
        load_pipeline(file)


def test_the_stability_of_two_distributions():
    assert stability({"a": 50, "b": 50}, {"a": 5, "b": 5}) == 0
    assert stability({"a": 50, "b": 50}, {}) == 0
    assert stability({"a": 90, "b": 10}, {"a": 50, "b": 50}) == pytest.approx(0.8789, abs=1e-4)
