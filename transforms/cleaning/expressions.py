"""Spark SQL expressions over the columns of one row, checked without Spark.

Only what gives the same value for the same row in every run is allowed: scalar functions by a list, no aggregate,
window or subquery, nothing random, no clock and nothing of the machine or the session.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from headgate.transforms.kinds import simple
from headgate.transforms.rows import PUBLISHED
from headgate.transforms.step import Columns, StepError, require_columns
from headgate.words import did_you_mean


def words(*texts: str) -> frozenset[str]:
    return frozenset(" ".join(texts).split())


FUNCTIONS = words(
    """
    array array_append array_compact array_contains array_distinct array_except array_insert array_intersect array_join
    array_max array_min array_position array_prepend array_remove array_repeat array_size array_union arrays_overlap
    arrays_zip flatten get sequence slice sort_array aggregate array_sort exists filter forall map_filter map_zip_with
    reduce transform transform_keys transform_values zip_with map map_concat map_contains_key map_entries
    map_from_arrays map_from_entries map_keys map_values str_to_map named_struct struct
    cardinality concat element_at reverse size try_element_at
    bit_count bit_get getbit shiftleft shiftright shiftrightunsigned
    between coalesce if ifnull nanvl nullif nullifzero nvl nvl2 zeroifnull equal_null isnan isnotnull isnull
    like ilike rlike regexp regexp_like
    bigint binary boolean cast try_cast date decimal double float int smallint string time timestamp tinyint typeof
    add_months convert_timezone date_add date_diff date_format date_from_unix_date date_part date_sub date_trunc dateadd
    datediff datepart day dayname dayofmonth dayofweek dayofyear extract from_unixtime from_utc_timestamp hour last_day
    make_date make_dt_interval make_interval make_time make_timestamp make_timestamp_ltz make_timestamp_ntz
    make_ym_interval minute month monthname months_between next_day quarter second time_diff time_trunc timestampadd
    timestampdiff timestamp_micros timestamp_millis timestamp_seconds to_date to_time to_timestamp to_timestamp_ltz
    to_timestamp_ntz to_unix_timestamp to_utc_timestamp trunc try_make_interval try_make_timestamp
    try_make_timestamp_ltz try_make_timestamp_ntz try_to_date try_to_time try_to_timestamp unix_date unix_micros
    unix_millis unix_seconds unix_timestamp weekday weekofyear year
    crc32 hash md5 sha sha1 sha2 xxhash64
    from_csv to_csv schema_of_csv from_json get_json_object json_array_length json_object_keys schema_of_json to_json
    from_xml schema_of_xml to_xml xpath xpath_boolean xpath_double xpath_float xpath_int xpath_long xpath_number
    xpath_short xpath_string
    is_variant_null parse_json schema_of_variant to_variant_object try_parse_json try_variant_get variant_get
    parse_url try_parse_url try_url_decode url_decode url_encode
    abs acos acosh asin asinh atan atan2 atanh bin bround cbrt ceil ceiling conv cos cosh cot csc degrees e exp expm1
    factorial floor greatest hex hypot least ln log log10 log1p log2 mod negative pi pmod positive pow power radians
    rint round sec sign signum sin sinh sqrt tan tanh try_add try_divide try_mod try_multiply try_subtract unhex
    width_bucket bitmap_bit_position bitmap_bucket_number bitmap_count
    ascii base64 bit_length btrim char char_length character_length chr collate collation concat_ws contains decode elt
    encode endswith find_in_set format_number format_string initcap instr is_valid_utf8 lcase left len length
    levenshtein locate lower lpad ltrim luhn_check make_valid_utf8 mask octet_length overlay position printf quote
    regexp_count regexp_extract regexp_extract_all regexp_instr regexp_replace regexp_substr repeat replace right rpad
    rtrim sentences soundex space split split_part startswith substr substring substring_index to_binary to_char
    to_number to_varchar translate trim try_to_binary try_to_number try_validate_utf8 ucase unbase64 upper validate_utf8
    """
)
# Words that may stand before a bracket without being functions: of the grammar, and of types.
WORDS = words("and or not in case when then else between is from for both leading trailing div on as by")
TYPES = words("decimal dec numeric char character varchar interval")
CLOCK = words("now curdate current_date current_time current_timestamp localtimestamp")
RANDOM = words("rand randn random randstr uniform shuffle uuid monotonically_increasing_id")
MACHINE = words(
    "current_catalog current_database current_schema current_timezone current_user session_user user version "
    "input_file_name input_file_block_start input_file_block_length spark_partition_id java_method reflect try_reflect"
)
PLAIN = words("boolean tinyint smallint int bigint float double string date timestamp")  # types that a cast may name
MOMENTS = ("now", "today", "tomorrow", "yesterday")  # what Spark reads as a time when such a text becomes one


def checked(expression: str, have: Sequence[str] | None, times: Collection[str] = ()) -> list[str]:
    """Return the columns that an expression reads; raise `StepError` for what is not allowed or not there.

    have: the columns there are (None: not known, so any name will do); case makes no difference, as in Spark.
    times: those of them that are dates or timestamps, where that is known: against them 'today' is no text.
    """
    import sqlglot  # a tenth of a second, for expressions alone
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        tokens = sqlglot.tokenize(expression, dialect="spark")
        trees = sqlglot.parse(expression, dialect="spark")
    except SqlglotError as e:
        raise StepError(f"'{expression}' cannot be read: {place_of(e)}") from e
    except RecursionError as e:
        raise StepError(f"'{expression[:80]}…' is nested too deeply") from e
    if len(trees) != 1 or not isinstance(trees[0], exp.Condition | exp.Interval):
        raise StepError(f"'{expression}' is not one expression over the columns of a row")
    tree = trees[0]

    def wrong(what: str) -> StepError:
        return StepError(f"'{expression}' {what}")

    if tree.find(exp.Window):
        raise wrong("uses a window (OVER), so the value would depend on other rows")
    if tree.find(exp.Query):
        raise wrong("holds a subquery, so the value would depend on other rows")
    if tree.find(exp.Star):
        raise wrong("uses '*'; name the columns")
    if tree.find(exp.Placeholder, exp.Parameter, exp.SessionParameter):
        raise wrong("uses a parameter, which has no value here")
    for name in functions_of(tokens):
        if name in CLOCK or (name in ("unix_timestamp", "to_unix_timestamp") and tree.find(exp.CurrentTimestamp)):
            raise wrong(f"uses '{name}' for the time of the run: the value would differ from run to run")
        if name in RANDOM:
            raise wrong(f"uses '{name}', which is random: the value would differ from run to run")
        if name in MACHINE:
            raise wrong(f"uses '{name}', which depends on the machine or the session")
        if name not in FUNCTIONS:
            kind = "an aggregate, so it would depend on other rows" if is_aggregate(name, tree) else ""
            raise wrong(f"uses '{name}', which is {kind or f'no function allowed here{did_you_mean(name, FUNCTIONS)}'}")
    for node in tree.walk():
        if type(node).__name__.startswith(("Current", "Localtime", "SessionUser")):
            raise wrong(f"uses '{node.sql(dialect='spark').lower()}': the value would differ from run to run")
        if isinstance(node, exp.Literal) and node.is_string and becomes_moment(node, times):
            why = "which Spark may read as the time of the run: the value would differ from run to run"
            raise wrong(f"uses '{node.this}', {why}")
    names = {name.lower(): name for name in [*(have or ()), *PUBLISHED]}
    used = []
    for column in tree.find_all(exp.Column):
        root = column.parts[0].name
        if have is None:
            if root.lower() in CLOCK | MACHINE and not column.parts[0].args.get("quoted"):
                raise wrong(f"uses '{root}', which depends on the run or the session (a column: `{root}`)")
        elif root.lower() not in names:
            require_columns([root], have)
        used.append(names.get(root.lower(), root))
    return list(dict.fromkeys(used))


def times_in(have: Columns) -> list[str]:
    """Return the columns that are dates or timestamps, of those whose types are known."""
    return [column for column, kind in have.items() if (kind or "").startswith(("date", "timestamp"))]


TEXTS = ("ConcatWs", "Upper", "Lower", "Trim", "RegexpReplace", "RegexpExtract", "MD5", "Initcap")
TRUTHS = ("Predicate", "Not", "Connector", "Between", "In", "RegexpLike")
SAME = ("Coalesce", "If", "Case", "Paren", "Neg", "Greatest", "Least")  # of the type of what stands in them
JOINING = ("Concat", "Substring")  # of text; of bytes and arrays they are others


def type_after(expression: str, have: Columns) -> str | None:
    """Return the type of an expression's value where it is sure without Spark, else None.

    Sure are casts, comparisons, plain texts and truths, columns, functions of text, and choices among these.
    """
    import sqlglot

    known = {name.lower(): kind for name, kind in have.items()}
    return sure_type(sqlglot.parse_one(expression, dialect="spark"), known)


def sure_type(node: Any, known: Mapping[str, str | None]) -> str | None:
    from sqlglot import exp

    if isinstance(node, exp.Column):
        return known.get(node.name.lower()) if len(node.parts) == 1 else None
    if isinstance(node, exp.Cast):
        kind = simple(node.to.sql(dialect="spark"))
        return kind if kind in PLAIN or kind.startswith("decimal(") else None
    if isinstance(node, exp.Literal):
        return "string" if node.is_string else None
    if isinstance(node, exp.Boolean) or is_any(node, TRUTHS):
        return "boolean"
    if is_any(node, TEXTS):
        return "string"
    if is_any(node, JOINING):
        parts = node.expressions if isinstance(node, exp.Concat) else [node.this]
        return "string" if {sure_type(p, known) for p in parts} == {"string"} else None
    if is_any(node, SAME):
        if isinstance(node, exp.Case | exp.If):
            branches = [node.args.get("true"), *(i.args.get("true") for i in node.args.get("ifs") or ())]
            parts = [*branches, node.args.get("default"), node.args.get("false")]
        else:
            parts = [node.this, *node.expressions]
        kinds = {sure_type(p, known) for p in parts if p is not None and not isinstance(p, exp.Null)}
        return kinds.pop() if len(kinds) == 1 else None
    return None


def is_any(node: Any, names: Collection[str]) -> bool:
    """Return whether a node of sqlglot is of one of these kinds, by the names of its class and those above it."""
    return not set(names).isdisjoint(c.__name__ for c in type(node).__mro__)


def functions_of(tokens: Sequence[Any]) -> Iterator[str]:
    """Yield the name of each function that is called: a word directly before a bracket."""
    before = ""
    for token, following in itertools.pairwise(tokens):
        word = token.text.lower()
        kind = token.token_type.name
        if following.token_type.name == "L_PAREN" and (kind in ("VAR", "IDENTIFIER") or word.isidentifier()):
            any_of = word in ("any", "all", "some") and before in ("like", "ilike")
            if kind == "STRING" or word in TYPES or (word in WORDS and kind != "IDENTIFIER") or any_of:
                pass
            elif before == ".":
                yield f"….{word}"
            else:
                yield word
        before = word if kind != "STRING" else ""


def is_aggregate(name: str, tree: Any) -> bool:
    from sqlglot import exp

    found = {n.lower() for node in tree.find_all(exp.AggFunc) for n in node.sql_names()}
    return name in found or name in ("count", "sum", "avg", "min", "max", "first", "last", "any_value", "collect_list")


def becomes_moment(literal: Any, times: Collection[str]) -> bool:
    """Return whether Spark may read the text of a literal as the time of the run: but not in a comparison of texts."""
    from sqlglot import exp

    words = literal.this.strip().lower().split()
    if not words or words[0] not in MOMENTS:
        return False
    user, lowered = literal.parent, {name.lower() for name in times}
    if isinstance(user, exp.Like | exp.ILike | exp.RegexpLike):
        return False
    if isinstance(user, exp.EQ | exp.NEQ | exp.NullSafeEQ | exp.In):
        casts = any(c.to.is_type(*exp.DataType.TEMPORAL_TYPES) for c in user.find_all(exp.Cast))
        made = any(
            word in name.lower()
            for function in user.find_all(exp.Func)
            for name in function.sql_names()
            for word in ("date", "time", "ts_or_ds", "to_unix")
        )
        return casts or made or any(column.parts[0].name.lower() in lowered for column in user.find_all(exp.Column))
    return True


def place_of(error: Exception) -> str:
    """Say in one line where an expression cannot be read."""
    for found in getattr(error, "errors", ()):
        line, column, near = found.get("line"), found.get("col"), found.get("highlight")
        where = f"line {line}, character {column}" if line and line > 1 else f"character {column}"
        return f"something is missing or too much at {where}, near '{near}'"
    return "a quote or a comment is not closed"
