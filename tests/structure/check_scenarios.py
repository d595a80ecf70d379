#!/usr/bin/env python3
"""Every numbered scenario has a test, and docs/TESTING.md says which.

    check_scenarios.py SOURCE_DIR BUILD_DIR CTEST           compares
    check_scenarios.py SOURCE_DIR BUILD_DIR CTEST --write   writes the table into docs/TESTING.md

BUILD_DIR/tests/scenarios.tsv is what tests/scenarios.cmake registered: number, form, own test, other tests, text. Each
number must be there in the forms it needs, each test it names must be in ctest's list, each test of a scenario's name in
the table, and the table in docs/TESTING.md must be the one made from these rows.
"""
import json
import re
import subprocess
import sys

# The forms each number needs: S in simulation (or in one process), P on real processes.
PROCESSES = {24, 29, 32, 43, 44, 46, 47, 48, 49, 50, 53, 64}
BOTH = {5, 8, 18, 30, 34, 35, 45, 51, 54, 68}
NEEDED = {f"{n:02}": "P" if n in PROCESSES else "SP" if n in BOTH else "S" for n in range(1, 71)}
NEEDED.update({f"J{n}": "P" for n in range(1, 16)})
BEGIN = "<!-- scenarios: written by tests/structure/check_scenarios.py -->"
END = "<!-- scenarios end -->"


def rows_of(build):
    with open(f"{build}/tests/scenarios.tsv", encoding="utf-8") as file:
        for line in file:
            number, form, own, others, text = line.rstrip("\n").split("\t")
            yield number, form, own.split(), others.split(), text


def listed_of(build, ctest):
    """Names in ctest's list, and those of them that are disabled or cannot run."""
    result = subprocess.run([ctest, "--test-dir", build, "--show-only=json-v1"], capture_output=True, check=True)
    tests = json.loads(result.stdout)["tests"]
    return {test["name"] for test in tests}, {test["name"] for test in tests if "command" not in test}


def table_of(rows):
    lines = [BEGIN, "| | | must hold | shown by |", "|---|---|---|---|"]
    for number, form, own, others, text in rows:
        names = " · ".join([f"**{name}**" for name in own] + others)
        lines.append(f"| {number.lstrip('0')} | {form} | {text} | {names} |")
    return "\n".join(lines + [END])


def main():
    source, build, ctest = sys.argv[1:4]
    rows = sorted(rows_of(build), key=lambda row: (row[0][0] == "J", int(row[0].lstrip("J")), row[1] == "P"))
    listed, unrunnable = listed_of(build, ctest)
    failures = []
    for number, forms in NEEDED.items():
        for form in forms:
            if not any(row[:2] == (number, form) for row in rows):
                failures.append(f"scenario {number} has no row of form {form}")
    named = set()
    for number, form, own, others, _ in rows:
        if number not in NEEDED:
            failures.append(f"there is no scenario {number}")
        if not own and not others:
            failures.append(f"scenario {number} {form} names no test")
        for name in own + others:
            named.add(name)
            if name not in listed:
                failures.append(f"scenario {number} {form}: ctest does not list {name}")
            elif name in unrunnable:
                failures.append(f"scenario {number} {form}: {name} was not built")
    for name in sorted(listed - named):
        if name.startswith("scenario.") or re.match(r"fault\.J\d", name):
            failures.append(f"{name} is listed but stands in no row")

    path = f"{source}/docs/TESTING.md"
    with open(path, encoding="utf-8") as file:
        page = file.read()
    begin, end = page.find(BEGIN), page.find(END)
    if begin < 0 or end < begin:
        failures.append(f"docs/TESTING.md has no part between '{BEGIN}' and '{END}'")
    elif sys.argv[4:] == ["--write"]:
        with open(path, "w", encoding="utf-8") as file:
            file.write(page[:begin] + table_of(rows) + page[end + len(END):])
    elif page[begin:end + len(END)] != table_of(rows):
        failures.append("the table of scenarios in docs/TESTING.md is not the one of tests/scenarios.cmake; "
                        "tests/structure/check_scenarios.py SOURCE BUILD ctest --write makes it")
    for failure in failures:
        print("FAIL:", failure)
    print(f"{len(rows)} rows, {len(listed)} tests listed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
