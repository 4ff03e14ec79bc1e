"""What fusion computes without Spark: the model, levels, clusters, values, truth."""

import numpy as np
import pyarrow as pa
import pytest

from headgate.transforms.fusion import model, supervised
from headgate.transforms.fusion.clusters import DECIDED, components, one_to_one, parts
from headgate.transforms.fusion.groups import whole_groups
from headgate.transforms.fusion.levels import Column, Frequencies, first_equal
from headgate.transforms.fusion.scoring import PARTS, Counted, differ_in, summary
from headgate.transforms.fusion.truth import Accuracy, Claims, Confusion, Distance, learn
from headgate.transforms.fusion.values import Comparison, choose, normal_form, worded


def made(seed=0, matches=300, pairs=40_000, street=0):
    """Levels of six independent comparisons, and of near non-matches that agree in three of them at once."""
    r = np.random.default_rng(seed)

    def drawn(n, same):
        x = r.random((n, 6))
        return np.where(x < same, 3, np.where(x < np.array(same) + 0.08, 2, 1))

    levels = [drawn(pairs, [0.02] * 6), drawn(street, [0.02] * 3 + [0.9] * 3), drawn(matches, [0.8] * 6)]
    return np.vstack(levels).astype(np.int8), np.r_[np.zeros(pairs + street, bool), np.ones(matches, bool)]


def fitted(levels, unseen=1, **options):
    patterns, inverse = np.unique(levels, axis=0, return_inverse=True)
    inverse = inverse.ravel()
    n = np.bincount(inverse).astype(float)
    agree = (patterns >= 3).sum(1) >= 1
    return model.fit(patterns, n * agree, n * ~agree * unseen, [3] * patterns.shape[1], **options), patterns, inverse


@pytest.mark.parametrize("seed", range(3))
def test_the_number_of_matches_is_found(seed):
    found, *_ = fitted(made(seed)[0])
    assert found.matches == pytest.approx(300, rel=0.1)


def test_near_non_matches_are_no_matches():
    levels, same = made(street=1000)
    found, patterns, inverse = fitted(levels)
    p = model.probability(found.score(patterns)[inverse])
    assert p[same].mean() > 0.8 and p[~same].sum() < 30


def test_columns_in_which_links_differ_are_told():
    """Most telling first, of pairs that have both values and score as links; rare values tell nothing."""

    class ByFirst:
        def score(self, patterns):
            return np.where(patterns[:, 0] > 1, 5.0, -5.0)

        def weights(self, patterns):
            raise NotImplementedError

    patterns = np.array([[2, 1, 1, 1], [2, 1, 2, 0], [2, 2, 0, 0], [1, 2, 2, 2]], np.int8)
    counts = Counted(patterns=patterns, blocked=np.array([29.0, 41, 30, 900]), background=np.zeros(4))
    assert differ_in(counts, ByFirst(), 0.5, ["same", "born", "email", "few"]) == [("born", 0.7)]
    assert differ_in(counts, ByFirst(), 1.0, ["same", "born", "email", "few"]) == []


def test_pairs_of_one_household_are_no_matches():
    r = np.random.default_rng(1)

    def drawn(n, same):  # of eight comparisons, of which three often hold nothing
        x = r.random((n, 8))
        found = np.where(x < same, 3, np.where(x < np.array(same) + 0.03, 2, 1))
        return np.where(r.random((n, 8)) < [0.2] * 3 + [0] * 5, 0, found).astype(np.int8)

    levels = np.vstack([drawn(40_000, [0.01] * 8), drawn(3000, [0.01] * 3 + [0.99] * 5), drawn(300, [0.9] * 8)])
    found, patterns, inverse = fitted(levels, unseen=25)
    p = model.probability(found.score(patterns)[inverse])
    assert p[-300:].mean() > 0.8 and p[:-300].sum() < 60


def test_that_matches_moved_makes_no_group_of_them():
    r = np.random.default_rng(1)
    moved = np.where(r.random((60, 6)) < [0.02] * 2 + [0.99] * 4, 3, 1).astype(np.int8)
    found, patterns, inverse = fitted(np.vstack([made()[0], moved]))
    assert model.probability(found.score(patterns)[inverse])[-60:].mean() > 0.9


def test_one_text_tells_matches_by_what_chance_does_not():
    by_chance = [1_000_000, 25_000, 7400, 3000, 2100, 740, 260, 100, 35, 12, 4, 2]
    same = np.array([0, 0, 0, 0, 0, 0, 30, 60, 150, 250, 300, 600, 100])
    levels = np.arange(1, 14, dtype=np.int8)[:, None]
    blocked = np.r_[by_chance, 0] + same
    found = model.fit(levels, blocked.astype(float), np.zeros(13), [13])
    assert found.matches == pytest.approx(same.sum(), rel=0.1)
    p = model.probability(found.score(levels))
    assert p[8:].min() > 0.5 > p[:6].max() and (np.diff(p) > -0.01).all()


def test_the_model_is_taken_that_is_rated_best():
    levels, _ = made(street=1000)
    least, most = (fitted(levels, rate=lambda m, way=way: way * m.matches)[0].matches for way in (-1, 1))
    assert least < most


def test_the_order_of_patterns_does_not_matter():
    levels, _ = made()
    assert fitted(levels[::-1])[0] == fitted(levels)[0]


def test_weights_add_up_to_the_score_with_and_without_labels():
    levels, same = made(street=500)
    found, patterns, inverse = fitted(levels)
    np.testing.assert_allclose(found.weights(patterns).sum(1), found.score(patterns), atol=1e-9)
    few = np.r_[0:200, len(levels) - 200 : len(levels)]
    learnt = supervised.fit(found, levels[few], same[few])
    np.testing.assert_allclose(learnt.weights(patterns).sum(1), learnt.score(patterns), atol=1e-9)
    p = model.probability(learnt.score(patterns)[inverse])
    assert p[same].mean() > 0.9 and p[~same].mean() < 0.01
    with pytest.raises(ValueError, match="both are needed"):
        supervised.fit(found, levels[:9], same[:9])


def test_a_null_is_no_evidence():
    levels, _ = made()
    found, *_ = fitted(np.vstack([levels, np.zeros((1, 6), np.int8)]))
    assert found.weights(np.zeros((1, 6), np.int8))[0, 1:7] == pytest.approx(0)


def test_nothing_to_learn_from():
    with pytest.raises(ValueError, match="no candidate pairs"):
        model.fit(np.ones((1, 2), np.int8), np.zeros(1), np.ones(1), [2, 2])


def clustered(n, pairs, must=(), cannot=(), source=None):
    one, other, score = zip(*pairs, strict=True)
    bound = [(a, b) in must for a, b in zip(one, other, strict=True)]
    never = [(a, b) in cannot for a, b in zip(one, other, strict=True)]
    return parts(n, one, other, score, bound, never, source)


def test_a_chain_does_not_take_strangers_together():
    chain = [(0, 1, 9), (0, 2, 9), (1, 2, 9), (3, 4, 9), (3, 5, 9), (4, 5, 9), (2, 3, 2)]
    assert clustered(6, chain) == [0, 0, 0, 3, 3, 3]
    bound = clustered(6, chain, must={(2, 3)})
    assert bound[2] == bound[3]
    assert clustered(6, chain, cannot={(0, 1)}) in ([0, 1, 0, 3, 3, 3], [0, 1, 1, 3, 3, 3])
    assert clustered(3, [(0, 1, 9), (1, 2, 8), (0, 2, 9)], source=[0, 1, 1]) == [0, 0, 2]


def test_a_cannot_link_holds_against_must_links_and_evidence():
    label = clustered(4, [(0, 1, 9), (1, 2, 9), (2, 3, 9), (0, 3, 9)], must={(0, 1), (1, 2), (2, 3)}, cannot={(0, 3)})
    assert label[0] != label[3]


def test_the_expected_f1_is_of_the_threshold_that_is_given():
    found = summary([(900, 0, 10, 9 * PARTS), (100, 0, 10, PARTS)])
    assert (found.cut, found.f1) == (0.9, pytest.approx(0.9))
    assert [found.f1_from(cut) for cut in (0.9, 0.05, 1.0)] == pytest.approx([0.9, 20 / 30, 0.0])


def test_components_and_one_partner_each():
    assert components(6, np.array([4, 3, 1]), np.array([3, 1, 5])).tolist() == [0, 1, 2, 1, 1, 1]
    one, other, score = np.array([0, 0, 1]), np.array([2, 3, 3]), np.array([5.0, 9, 9])
    nothing = np.zeros(3)
    assert one_to_one(one, other, nothing.astype(int), score, nothing).tolist() == [False, True, False]
    common = np.array([0.0, 0.1, 0.9])
    assert one_to_one(one, other, nothing.astype(int), score, common).tolist() == [True, False, True]
    decided = np.array([9.0, DECIDED, DECIDED])
    assert one_to_one(one, other, nothing.astype(int), decided, nothing).tolist() == [False, True, True]


def test_groups_are_never_parted():
    values = [1] * 5 + [2] + [3] * 12 + [4, 5]
    for size in (1, 2, 3, 7, 30):
        batches = pa.table({"k": values}).to_batches(max_chunksize=size)
        tables = [t["k"].to_pylist() for t in whole_groups(iter(batches), "k")]
        assert [v for t in tables for v in t] == values
        assert sum(len(set(t)) for t in tables) == 5


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([f"{d:02}.{m:02}.19{y}" for d in (1, 9, 17) for m in (1, 5) for y in (70, 81, 92, 55)], "date"),
        ([f"212/555-{n}" for n in range(1000, 1030)], "code"),
        ([f"${n / 7:.2f}" for n in range(30)], "number"),
        (["the quick brown fox jumps", "a lazy dog of some sort", "one two three four five"], "text"),
        (["anna", "berta", "carla", "doris"], "name"),
        (["52.5, 13.4", "48.137 11.575", "(-33.9, 151.2)"], "place"),
        (["北京市海淀区", "上海市浦东新区", "广州市天河区"], "text"),
    ],
)
def test_values_choose_their_comparison(values, kind):
    found = choose("c", [values, values[::-1]])
    assert isinstance(found, Comparison) and found.kind == kind, found


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("number", "$1,049.00", "1049"),
        ("number", "[1988].", "1988"),
        ("number", "12,50 €", "12.5"),
        ("number", "1.234,56", "$1,234.56"),
        ("number", "CHF 1'234.50", "1 234,50"),
        ("number", "1.0E7", "10000000"),
        ("number", "-$5.00", "\N{MINUS SIGN}5"),
        ("number", "-0.0", "0"),
        ("number", "5,5 %", "5.5"),
        ("number", "12,500", "12500"),
        ("date", "19.04.1956", "1956-04-19"),
        ("date", "5.1.2024", "2024/01/05"),
        ("date", "Jan. 5, 2024", "2024-01-05T10:00:00Z"),
        ("date", "April 9, 1956", "19560409"),
        ("name", "R.E. Schapire", "r. e. schapire"),
    ],
)
def test_values_are_written_in_one_way(kind, one, other):
    assert normal_form(kind)(one) == normal_form(kind)(other)


def test_long_numbers_keep_their_digits():
    assert normal_form("number")("12345678901234567") != normal_form("number")("12345678901234568")


def test_what_cannot_be_compared():
    assert choose("c", [[None, ""], ["x", "y"]]) == "no value in one of the sources"
    assert choose("c", [["x"] * 20]) == "one value only"
    assert choose("c", [[f"r{i}" for i in range(20)]]) == "an identifier of the row"
    assert choose("c", [["x", "y"]], "number") == "no number"


def compared(kind, cells, pairs, **frequencies):
    column = Column(
        Comparison(column="c", kind=kind, why=""),
        Frequencies(filled=1000, **frequencies),
        pa.array([normal_form(kind)(v) for v in cells], pa.string()),
    )
    one, other = (np.array(p) for p in zip(*pairs, strict=True))
    return column.levels(one, other).tolist()


def test_levels():
    pairs = [(0, 0), (0, 1), (0, 2), (0, 3)]
    same = first_equal("name")
    jones = compared("name", ["Jones", "jones", "jonse", None], pairs, values={"jones": 500})
    assert jones == [same, same, 4, 0]
    rare = compared("name", ["Jones", "jones", "xyz", None], pairs)
    assert rare[0] > same and rare[2] == 1
    assert compared("code", ["1234-5", "12345", "12354", "99999"], pairs)[1:] == [
        compared("code", ["a"], [(0, 0)])[0],
        3,
        1,
    ]
    assert compared("date", ["1990-05-01", "1990-05-01", "1990-05-11", "1970-01-01"], pairs)[2:] == [3, 1]
    assert compared("number", ["10", "10.0", "10.01", "99"], pairs)[1:] == [6, 3, 1]
    text = ["red sony camera dsc w300", "sony dsc-w300 camera", "a green apple pie", "red sony camera dsc w300"]
    one, near, far, equal = compared("text", text, pairs)
    assert one == equal >= first_equal("text") and 1 < near < one and far == 1
    assert compared("text", ["北京市海淀区", "北京海淀区", "x", "y"], [(0, 1), (0, 2)])[0] > 5


def test_places_and_sets():
    places = ["52.5200, 13.4050", "52.5205 13.4050", "52.5300,13.4050", "52.6,13.4", "48.1,11.5", "?"]
    same = first_equal("place")
    assert compared("place", places, [(0, i) for i in range(6)])[1:] == [4, 3, 2, 1, 1]
    assert compared("place", places, [(0, 0)])[0] >= same
    sets = ["red\x1eNew York", "new york\x1ered\x1ered", "red", "blue"]
    equal, near, far = compared("set", sets, [(0, 1), (0, 2), (0, 3)], words={"red": 3})
    assert equal >= first_equal("set") > near > far == 1


def test_words_of_runs():
    assert worded("ps-lx350h x") == "ps lx350h x\x1fpslx350h"
    assert worded("北京 市") == "北 京 市"
    assert worded("--") is None


def test_levels_do_not_depend_on_what_else_is_compared():
    r = np.random.default_rng(3)
    words = [" ".join(f"w{w}" for w in r.integers(0, 30, r.integers(2, 9))) for _ in range(200)]
    one, other = r.integers(0, 200, (2, 500))
    counts = {f"w{w}": int(n) for w, n in enumerate(r.integers(2, 90, 30))}
    whole = compared("text", words, list(zip(one, other, strict=True)), words=counts)
    few = [compared("text", [words[a], words[b]], [(0, 1)], words=counts)[0] for a, b in zip(one, other, strict=True)]
    assert whole == few


def test_sources_are_trusted_by_what_they_get_right():
    r = np.random.default_rng(5)
    truth = r.integers(0, 4, 400)
    accuracy = [0.95, 0.9, 0.5, 0.5, 0.5]
    said = [np.where(r.random(400) < a, truth, (truth + r.integers(1, 4, 400)) % 4) for a in accuracy]
    obj, src = np.tile(np.arange(400), 5), np.repeat(np.arange(5), 400)
    claims = Claims(obj, src, np.concatenate(said))

    def right(p):
        best = claims.best(p)
        return float((claims.value[best] == truth[claims.of[best]]).mean())

    half = obj < 200
    halves = [Claims(obj[h] - obj[h].min(), src[h], np.concatenate(said)[h]) for h in (half, ~half)]
    for method in (Accuracy(sources=5), Distance(sources=5), Confusion(sources=5, values=4)):
        state = learn(method, lambda s, m=method: m.sums(claims, s))
        assert right(method.probabilities(claims, state)) > right(claims.votes) + 0.05
        again = learn(method, lambda s, m=method: m.sums(halves[0], s) + m.sums(halves[1], s))
        assert all(np.array_equal(a, b) for a, b in zip(state, again, strict=True)), "in parts as at once"
