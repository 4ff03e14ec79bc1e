"""The tables of conf/flights.yaml as plain queries in Spark's SQL: what the rivals run.

No balance, no reasons, no ledger, no release: what does not fit is filtered out and forgotten.
"""

SOURCES = ("raw_flights", "raw_weather", "raw_planes", "raw_airports", "raw_airlines")
MEANS = ("temp_c", "dewp_c", "humid", "wind_dir", "wind_speed_ms", "pressure_hpa", "visib_km")
MEDIANS = ("plane_age", "seats")
WEATHER = {
    "temp_c": ("(cast(temp as double) - 32) * 5 / 9", -60, 60),
    "dewp_c": ("(cast(dewp as double) - 32) * 5 / 9", -60, 60),
    "humid": ("cast(humid as double)", 0, 100),
    "wind_dir": ("cast(wind_dir as double)", 0, 360),
    "wind_speed_ms": ("cast(wind_speed as double) * 0.44704", 0, 113),
    "wind_gust_ms": ("cast(wind_gust as double) * 0.44704", 0, 113),
    "precip_mm": ("cast(precip as double) * 25.4", 0, 400),
    "pressure_hpa": ("cast(pressure as double)", 870, 1085),
    "visib_km": ("cast(visib as double) * 1.609344", 0, 100),
}


def plain(column: str) -> str:
    return rf"trim(regexp_replace({column}, '\\s+', ' '))"


def listed(columns: dict[str, str]) -> str:
    return ", ".join(f"{value} as {name}" for name, value in columns.items())


FLIGHTS = f"""
with typed as (
  select cast(year as int) as y, cast(month as int) as m, cast(day as int) as d,
         upper({plain("carrier")}) as carrier, cast(flight as int) as flight, upper({plain("origin")}) as origin,
         upper({plain("dest")}) as dest, upper({plain("tailnum")}) as tailnum, cast(sched_dep_time as int) as sched,
         cast(time_hour as timestamp) as time_hour, cast(dep_time as int) as dep_time,
         cast(dep_delay as double) as dep_delay, cast(arr_delay as double) as arr_delay,
         cast(air_time as double) as air_time, cast(distance as double) * 1.609344 as distance_km, _file
  from raw_flights),
timed as (
  select *, make_date(y, m, d) as flight_date,
         to_utc_timestamp(make_timestamp(y, m, d, cast(floor(sched / 100) as int), sched % 100, 0), 'America/New_York')
           as sched_dep_utc
  from typed),
newest as (
  select *, row_number() over (partition by flight_date, carrier, flight, origin order by _file desc) as nth
  from timed),
aircraft as (
  select *, row_number() over (partition by tailnum, sched_dep_utc
              order by dep_time nulls last, carrier, flight) as seat
  from newest where nth = 1)
select flight_date, carrier, flight, origin, dest, tailnum, sched_dep_utc, time_hour, dep_delay, arr_delay, air_time,
       distance_km
from aircraft
where (seat = 1 or tailnum is null) and origin <> dest and coalesce(dep_delay between -180 and 2880, true)
  and coalesce(arr_delay between -180 and 2880, true) and coalesce(air_time between 5 and 1200, true)
  and coalesce(distance_km between 1 and 20000, true)"""

CLEANED = {
    "flights": FLIGHTS,
    "weather": f"""
with typed as (
  select upper({plain("origin")}) as origin, cast(time_hour as timestamp) as time_hour, _file,
         {listed({name: value for name, (value, _, _) in WEATHER.items()})}
  from raw_weather),
newest as (select *, row_number() over (partition by origin, time_hour order by _file desc) as nth from typed)
select origin, time_hour,
       {listed({n: f"case when {n} between {low} and {high} then {n} end" for n, (_, low, high) in WEATHER.items()})}
from newest where nth = 1""",
    "planes": f"""
with typed as (
  select upper({plain("tailnum")}) as tailnum, cast(year as int) as year_built, {plain("type")} as type,
         upper({plain("manufacturer")}) as manufacturer, upper({plain("model")}) as model,
         cast(engines as int) as engines,
         cast(seats as int) as seats, {plain("engine")} as engine, _file
  from raw_planes),
newest as (select *, row_number() over (partition by tailnum order by _file desc) as nth from typed)
select tailnum, case when year_built between 1903 and 2013 then year_built end as year_built, type, manufacturer, model,
       case when engines between 1 and 8 then engines end as engines,
       case when seats between 1 and 900 then seats end as seats, engine
from newest where nth = 1""",
    "airports": f"""
with typed as (
  select upper({plain("faa")}) as faa, {plain("name")} as name, cast(lat as double) as lat, cast(lon as double) as lon,
         cast(alt as double) * 0.3048 as alt_m, {plain("tzone")} as tzone, _file
  from raw_airports),
newest as (select *, row_number() over (partition by faa order by _file desc) as nth from typed)
select faa, name, lat, lon, alt_m, tzone from newest
where nth = 1 and lat between -90 and 90 and lon between -180 and 180 and alt_m between -430 and 5000""",
    "airlines": f"""
with typed as (select upper({plain("carrier")}) as carrier, {plain("name")} as name, _file from raw_airlines),
newest as (select *, row_number() over (partition by carrier order by _file desc) as nth from typed)
select carrier, name from newest where nth = 1""",
    "flights_fused": f"""
select f.*, {", ".join(f"w.{name}" for name in WEATHER)}, w.origin is not null as weather_matched, p.year_built,
       p.manufacturer, p.engines, p.seats, p.tailnum is not null as plane_matched, a.lat as dest_lat, a.lon as dest_lon,
       a.alt_m as dest_alt_m, a.faa is not null as dest_matched, l.name as airline,
       l.carrier is not null as airline_matched
from flights as f left join weather as w on f.origin = w.origin and f.time_hour = w.time_hour
left join planes as p on f.tailnum = p.tailnum left join airports as a on f.dest = a.faa
left join airlines as l on f.carrier = l.carrier""",
}

LABELLED = """
select *, case when bucket < 'cccc' then 'train' when bucket < 'e666' then 'valid' else 'test' end as split
from (
  select * except (seats), arr_delay > 15 as late, month(flight_date) as month, weekday(flight_date) as weekday,
         hour(sched_dep_utc) as hour_utc, cast(year(flight_date) - year_built as double) as plane_age,
         cast(seats as double) as seats,
         substr(md5(concat_ws('|', '7', cast(flight_date as string), carrier, cast(flight as string), origin)), 1, 4)
           as bucket
  from flights_fused where arr_delay is not null) as derived"""

# What is learned from the training rows, all of one kind in one pass; the overall values stand in for unseen groups.
BY_CARRIER = f"""
select carrier, {listed({f"{c}_fill": f"percentile({c}, 0.5)" for c in MEDIANS})},
       mode(manufacturer) as manufacturer_fill
from labelled where split = 'train' group by grouping sets ((carrier), ())"""
BY_MONTH = f"""
select origin, month, {listed({f"{c}_fill": f"avg({c})" for c in MEANS})}
from labelled where split = 'train' group by grouping sets ((origin, month), ())"""


def one(table: str, key: str, fill: str) -> str:
    return f"(select {fill} from {table} where {key} is null)"


FILLED = f"""
select f.* except (plane_age, seats, {", ".join(MEANS)}, manufacturer, wind_gust_ms, precip_mm, engines),
       {listed({c: f"coalesce(f.{c}, c.{c}_fill, {one('by_carrier', 'carrier', f'{c}_fill')})" for c in MEDIANS})},
       {listed({c: f"coalesce(f.{c}, m.{c}_fill, {one('by_month', 'origin', f'{c}_fill')})" for c in MEANS})},
       coalesce(f.manufacturer, c.manufacturer_fill, {one("by_carrier", "carrier", "manufacturer_fill")})
         as manufacturer,
       coalesce(f.wind_gust_ms, 0.0) as wind_gust_ms, coalesce(f.precip_mm, 0.0) as precip_mm,
       coalesce(f.engines, 2) as engines
from labelled as f left join by_carrier as c on f.carrier = c.carrier
left join by_month as m on f.origin = m.origin and f.month = m.month"""

STRATA = "select carrier, month, count(*) as n from labelled where split = 'train' group by carrier, month"
# `targets` holds what each stratum is to have; copies beyond the first are made by the sequence.
SAMPLED = """
with ranked as (
  select *, row_number() over (partition by carrier, month
              order by bucket, flight_date, flight, origin) as nth
  from filled where split = 'train'),
drawn as (
  select r.* except (nth), explode(sequence(1, cast(floor(t.wanted / t.n) as int)
           + case when r.nth <= t.wanted % t.n then 1 else 0 end)) as copy
  from ranked as r join targets as t on r.carrier = t.carrier and r.month = t.month
  where r.nth <= t.wanted)
select * except (copy) from drawn union all select * from filled where split <> 'train'"""
CLASSES = "select late, count(*) as n from sampled where split = 'train' group by late"
TRAINING = f"""
select flight_date, carrier, flight, origin, dest, split, s.late, w.weight, month, weekday, hour_utc, distance_km,
       {", ".join(c for c in WEATHER)}, plane_age, manufacturer, engines, seats, airline
from sampled as s left join weights as w on s.late = w.late and s.split = 'train'"""


def targets(sizes: dict[tuple[str, int], int], share: float = 0.5, temperature: float = 2.0, most: int = 2) -> dict:
    """What each stratum is to have: n^(1/temperature) of all that is wanted, and at most so many copies of each row."""
    left, wanted, open_ = share * sum(sizes.values()), {}, dict(sizes)
    while open_:
        weights = {s: n ** (1 / temperature) for s, n in open_.items()}
        total = sum(weights.values())
        capped = {s: most * n for s, n in open_.items() if left * weights[s] / total > most * n}
        if not capped:
            return wanted | {s: round(left * w / total) for s, w in weights.items()}
        wanted |= capped
        left -= sum(capped.values())
        open_ = {s: n for s, n in open_.items() if s not in capped}
    return wanted
