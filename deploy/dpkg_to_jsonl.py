#!/usr/bin/env python3
"""The package database of this Debian as JSON lines: {"key": package, "value": its whole record}.

Reads the given status file (default: dpkg's own) and writes to standard output, sorted by key. A package that is
installed for a second architecture has that in its key ("libc6:i386").
"""
import json
import sys


def records(path):
    """Yields (key, record) of every paragraph."""
    with open(path, encoding="utf-8", errors="surrogateescape") as status:
        for paragraph in status.read().split("\n\n"):
            record = paragraph.strip("\n")
            if not record:
                continue
            fields = dict(
                line.split(": ", 1)
                for line in record.split("\n")
                if line[:1].strip() and ": " in line
            )
            yield fields["Package"], fields.get("Architecture", "all"), record


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else "/var/lib/dpkg/status"
    rows = {}
    for package, architecture, record in sorted(records(path)):
        key = package if package not in rows else f"{package}:{architecture}"
        rows[key] = record
    for key in sorted(rows):
        print(json.dumps({"key": key, "value": rows[key]}, ensure_ascii=True))


if __name__ == "__main__":
    main()
