#!/usr/bin/env python3
"""The arithmetic of tests/bench/run.sh and scale.sh: medians and spreads of raw results, and small questions about JSON.

    tables.py table RAW MODE PEER   tables in Markdown
    tables.py scale RAW MODE        the tables of scale.sh
    tables.py write FILE TABLES [scale]
                                    puts them between the markers of FILE, leaving the rest of it as it is
    tables.py peak RAW SYSTEM       the best median of puts a second with 128-byte values, as a whole number
    tables.py leader GROUP          id of the group's leader, from `shardctl status --json` on standard input
    tables.py term GROUP            its term
    tables.py caught-up GROUP       ends with 0 when every replica has applied what its leader has committed
    tables.py revision              of etcd, from `etcdctl endpoint status -w json` on standard input
"""

import json
import statistics
import sys


# What a row has to reach: etcd's figure times this; or, as text, a bound of its own.
TO_REACH = {
    "put-1": 0.55, "put-unary-64": 2.5, "put-unary-1000": 2, "put-library-64": 6, "put-library-256": 6,
    "put-library-1000": 7, "get-1": 0.7, "get-unary-1000": 4, "get-library-64": 6, "get-library-1000": 7,
    "mixed-library-256": 6, "kill": 0.35, "transfer": "20 ms", "tail": 0.5,
}

# row, title, unit, where its figure stands, smaller is better
ROWS = [
    ("put-1", "put, 1 outstanding, p50", "ms", ("latency", "p50_ns"), True),
    ("put-unary-64", "put, unary, 64 outstanding", "op/s", ("per_second",), False),
    ("put-unary-1000", "put, unary, 1000 outstanding", "op/s", ("per_second",), False),
    ("put-library-64", "put, library, 64 outstanding", "op/s", ("per_second",), False),
    ("put-library-256", "put, library, 256 outstanding", "op/s", ("per_second",), False),
    ("put-library-1000", "put, library, 1000 outstanding", "op/s", ("per_second",), False),
    ("get-1", "linearizable get, 1 outstanding, p50", "ms", ("latency", "p50_ns"), True),
    ("get-unary-1000", "linearizable get, unary, 1000 outstanding", "op/s", ("per_second",), False),
    ("get-library-64", "linearizable get, library, 64 outstanding", "op/s", ("per_second",), False),
    ("get-library-1000", "linearizable get, library, 1000 outstanding", "op/s", ("per_second",), False),
    ("mixed-library-256", "90 % get, 10 % put, library, 256 outstanding", "op/s", ("per_second",), False),
    ("kill", "SIGKILL of the leader to the next put done", "ms", ("event", "next_done_ns"), True),
    ("transfer", "planned hand-over: longest time without a put", "ms", ("event", "gap_ns"), True),
    ("tail", "put, open loop at half the own peak, p99.9", "ms", ("latency", "p99.9_ns"), True),
]


def read(path):
    """{(size, row, system): [result, ...]} and the machine's facts."""
    results, machine = {}, None
    with open(path, encoding="utf-8") as file:
        for line in file:
            result = json.loads(line)
            results.setdefault(tuple(result["label"].split("/")), []).append(result)
            machine = machine or result.get("machine")
    return results, machine


def figures(results, unit, path):
    """The row's figure in each result that has one. A run that failed, or an event that did, has none."""
    found = []
    for result in results:
        event = result.get("event")
        if result.get("failed") or (event and (not event["ran"] or event["status"] != 0)):
            continue
        value = result
        for name in path:
            value = value[name]
        if value > 0:
            found.append(value / 1e6 if unit == "ms" else value)
    return found


def number(value, unit):
    if unit == "op/s":
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def cell(found, unit):
    if not found:
        return "no result"
    text = number(statistics.median(found), unit)
    if len(found) > 1:
        text += f" [{number(min(found), unit)}–{number(max(found), unit)}]"
    return f"{text} {unit}"


def troubles(results):
    """What went wrong in a row's runs, for the last column."""
    total = {"not_done": 0, "unknown": 0, "never_begun": 0}
    lost = 0
    for result in results:
        event = result.get("event")
        if result.get("failed") or (event and (not event["ran"] or event["status"] != 0)):
            lost += 1
            continue
        for name in total:
            total[name] += result["outcomes"][name]
    parts = [f"{count} {name.replace('_', ' ')}" for name, count in total.items() if count]
    if lost:
        parts.append(f"{lost} runs failed")
    return ", ".join(parts)


def ours_of(results, size, row):
    for system in ("library", "unary"):
        if (size, row, system) in results:
            return results[size, row, system]
    return []


def verdict(row, ours, theirs, smaller):
    """The ratio, what it has to be, and whether it is. Ratios are of ours to etcd's, as the goals are told."""
    goal = TO_REACH[row]
    if isinstance(goal, str):
        return "–", f"≤ {goal}: " + ("no result" if not ours else "yes" if statistics.median(ours) <= 20 else "no")
    if not ours or not theirs:
        return "–", "no result"
    ratio = statistics.median(ours) / statistics.median(theirs)
    reached = ratio <= goal if smaller else ratio >= goal
    return f"{ratio:.2f}x", f"{'≤' if smaller else '≥'} {goal}x: {'yes' if reached else 'no'}"


def table(path, mode, peer):
    results, machine = read(path)
    if machine is None:
        sys.exit("tables.py: not one measurement succeeded")
    print(f"{machine['date'][:10]}, {mode} run: {machine['processors']} x {machine['processor']}, "
          f"{machine['memory_bytes'] / 2**30:.0f} GiB, {machine['kernel']}, load average at the beginning "
          f"{machine['load_average']:.2f}; compared with {peer}. Medians [smallest–largest of the rounds].")
    sizes = list(dict.fromkeys(size for size, _, _ in results))
    for size in sizes:
        print(f"\nValues of {size if size != '128' else '128 B'}:\n")
        print("| | shardkv | etcd | shardkv / etcd | to reach | failures (shardkv; etcd) |")
        print("|---|---:|---:|---:|---|---|")
        for row, title, unit, where, smaller in ROWS:
            mine, theirs = ours_of(results, size, row), results.get((size, row, "etcd"), [])
            if not mine and not theirs:
                continue
            ours, peers = figures(mine, unit, where), figures(theirs, unit, where)
            ratio, reached = verdict(row, ours, peers, smaller)
            if size != "128":
                reached = ""  # the goals are for these
            bad = [troubles(mine), troubles(theirs)]
            note = "none" if not any(bad) else f"{bad[0] or 'none'}; {bad[1] or 'none'}"
            rate = "".join(f" ({name} {runs[0]['rate']:,}/s)" for name, runs in (("shardkv", mine), ("etcd", theirs))
                           if row == "tail" and runs and "rate" in runs[0])
            print(f"| {title}{rate} | {cell(ours, unit)} | {cell(peers, unit)} | {ratio} | {reached} | {note} |")


def scale(path, mode):
    results, machine = read(path)
    print(f"{machine['date'][:10]}, {mode} run: {machine['processors']} x {machine['processor']}, "
          f"{machine['memory_bytes'] / 2**30:.0f} GiB, load average at the beginning {machine['load_average']:.2f}. "
          "128-byte values; one run a figure.\n")
    print("| | put, 1 outstanding, p50 | put, 256 | put, 1000 | p99 at 1000 | get, 256 | get, 1000 |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for part in ("groups", "shards", "keys"):
        for what in dict.fromkeys(label[1] for label in results if label[0] == part):
            row = {name: results[part, what, name][0]
                   for name in ("put-1", "put-256", "put-1000", "get-256", "get-1000")}
            rates = [f"{row[name]['per_second']:,.0f}" for name in ("put-256", "put-1000", "get-256", "get-1000")]
            print(f"| {int(what):,} {part} | {row['put-1']['latency']['p50_ns'] / 1e6:.2f} ms | {rates[0]} op/s | "
                  f"{rates[1]} op/s | {row['put-1000']['latency']['p99_ns'] / 1e6:.1f} ms | {rates[2]} op/s | "
                  f"{rates[3]} op/s |")
    print("\n| memory of one replica | leader | largest follower |")
    print("|---|---:|---:|")
    for label, (line, *_) in results.items():
        if label[0] == "memory":
            print(f"| {label[1]} | {line['leader_kib'] / 1024:.0f} MiB | {line['follower_kib'] / 1024:.0f} MiB |")
    count = results["elections", "count"][0]
    full = results["elections", "put-1000"][0]
    print(f"\nElections in {count['seconds']} s of full load ({full['per_second']:,.0f} puts a second): "
          f"{count['elections']}.")
    down, back = results["down", "put-256"][0], results["down", "catch-up"][0]
    print(f"With a follower down, 256 outstanding: {down['per_second']:,.0f} puts a second, {back['elections']} elections; "
          f"it had caught up {back['seconds']:.1f} s after its start.")


def write(path, tables_path, name="tables"):
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        sys.exit(f"tables.py: {path} must hold '{begin}' and after it '{end}', once each")
    with open(tables_path, encoding="utf-8") as file:
        tables = file.read()
    before, after = text[:text.index(begin)], text[text.index(end):]
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{before}{begin}\n{tables}{after}")


def peak(path, system):
    results, _ = read(path)
    best = 0
    for (size, row, which), runs in results.items():
        if size == "128" and which == system and row.startswith("put-") and row != "put-1":
            found = figures(runs, "op/s", ("per_second",))
            best = max(best, statistics.median(found) if found else 0)
    print(int(best))


def find_leader(status, group):
    for entry in status["groups"]:
        if entry["id"] == group:
            for replica in entry["replicas"]:
                if replica.get("role") == "leader":
                    return replica["id"]
    return None


def replicas_of(status, group):
    return next(entry["replicas"] for entry in status["groups"] if entry["id"] == group)


def is_caught_up(replicas):
    leaders = [one for one in replicas if one.get("role") == "leader"]
    return bool(leaders) and all(one.get("applied", -1) >= leaders[0]["commit"] for one in replicas)


def main(arguments):
    match arguments:
        case ["table", raw, mode, peer]:
            table(raw, mode, peer)
        case ["scale", raw, mode]:
            scale(raw, mode)
        case ["write", path, tables, *name]:
            write(path, tables, *name)
        case ["term", group]:
            print(max(one.get("term", 0) for one in replicas_of(json.load(sys.stdin), int(group))))
        case ["caught-up", group]:
            sys.exit(not is_caught_up(replicas_of(json.load(sys.stdin), int(group))))
        case ["peak", raw, system]:
            peak(raw, system)
        case ["leader", group]:
            found = find_leader(json.load(sys.stdin), int(group))
            if found is None:
                sys.exit(1)
            print(found)
        case ["revision"]:
            print(max(one["Status"]["header"]["revision"] for one in json.load(sys.stdin)))
        case _:
            sys.exit(__doc__)


main(sys.argv[1:])
