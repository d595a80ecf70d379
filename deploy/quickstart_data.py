#!/usr/bin/env python3
"""What deploy/quickstart.sh needs beyond a shell: its data set and its checks.

    quickstart_data.py packages            this Debian's package database as JSON lines: {"key": "package/<name>", "value": record}
    quickstart_data.py normal PREFIX       JSON lines from standard input: those whose key starts with PREFIX, sorted, in one form
    quickstart_data.py leader GROUP        the leading replica's id, from `shardctl status --json` on standard input
    quickstart_data.py has-group GROUP     exit code 0 when the config on standard input (`shardctl query --json`) has the group
    quickstart_data.py appends ACKNOWLEDGED VALUE...
                                           every acknowledged token is in its key's value once and in order, and nothing else is
"""
import json
import os
import sys

STATUS = "/var/lib/dpkg/status"


def packages():
    with open(STATUS, encoding="utf-8", errors="replace") as file:
        paragraphs = [p.strip("\n") for p in file.read().split("\n\n")]
    rows = {}
    for record in filter(None, paragraphs):
        fields = dict(
            line.split(": ", 1) for line in record.split("\n") if line[:1].strip() and ": " in line
        )
        key = f"package/{fields['Package']}"
        if key in rows:  # installed for a second architecture
            key += f":{fields['Architecture']}"
        rows[key] = record
    for key, record in rows.items():
        print(json.dumps({"key": key, "value": record}))


def normal(prefix):
    rows = (json.loads(line) for line in sys.stdin)
    wanted = sorted((r["key"], r["value"]) for r in rows if r.get("key", "").startswith(prefix))
    for key, value in wanted:
        print(json.dumps({"key": key, "value": value}, sort_keys=True))


def leader(group):
    for entry in json.load(sys.stdin)["groups"]:
        if entry["id"] == group:
            for replica in entry["replicas"]:
                if replica.get("role") == "leader":
                    print(replica["id"])
                    return
    sys.exit(f"group {group} has no leader at the moment")


def has_group(group):
    config = json.load(sys.stdin)
    sys.exit(0 if any(g["id"] == group for g in config["groups"]) else 1)


def appends(acknowledged, values):
    """`acknowledged` has lines "key token outcome"; each value file is named <anything>.<last part of its key>."""
    sent = {}
    with open(acknowledged, encoding="ascii") as file:
        for line in file:
            key, token, outcome = line.split()
            sent.setdefault(key.rsplit("-", 1)[1], []).append((int(token), outcome))
    done = 0
    for path in values:
        name = os.path.basename(path).rsplit(".", 1)[1]
        with open(path, encoding="ascii") as file:
            found = [int(token) for token in file.read().strip().rstrip(",").split(",") if token]
        tried = sent.get(name, [])
        if found != sorted(set(found)):
            sys.exit(f"{name}: a token is doubled or out of order: {found}")
        missing = [t for t, outcome in tried if outcome == "done" and t not in found]
        if missing:
            sys.exit(f"{name}: acknowledged and lost: {missing}")
        strangers = set(found) - {t for t, outcome in tried if outcome in ("done", "unknown")}
        if strangers:
            sys.exit(f"{name}: there without having been acknowledged: {sorted(strangers)}")
        done += sum(outcome == "done" for _, outcome in tried)
    print(f"   {done} appends were acknowledged; each is there once and in order")


def main():
    command, arguments = sys.argv[1], sys.argv[2:]
    if command == "packages":
        packages()
    elif command == "normal":
        normal(arguments[0])
    elif command == "leader":
        leader(int(arguments[0]))
    elif command == "has-group":
        has_group(int(arguments[0]))
    elif command == "appends":
        appends(arguments[0], arguments[1:])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
