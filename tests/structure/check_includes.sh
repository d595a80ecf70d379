#!/usr/bin/env bash
# The build refuses an upward include: compiles, with each room's own flags from the compilation database, a file that includes a header
# of every other room, and expects the compiler to find exactly those that the room may use.
#
#   check_includes.sh SOURCE_DIR BUILD_DIR
set -euo pipefail
exec python3 - "$1" "$2" <<'PYTHON'
import json
import os
import shlex
import subprocess
import sys
import tempfile

source, build = sys.argv[1:]

# Room -> rooms it may use, and one header of each room to try.
ROOMS = {
    "base": [],
    "raft/core": ["base"],
    "raft/wal": ["base", "raft/core"],
    "proto": ["base"],
    "rpc": ["base"],
    "raft/node": ["base", "raft/core", "raft/wal", "proto", "rpc"],
    "client": ["base", "proto", "rpc"],
    "shardctrler": ["base", "raft/core", "raft/wal", "proto", "rpc", "raft/node"],
    "shardkv": ["base", "raft/core", "raft/wal", "proto", "rpc", "raft/node", "client"],
}
HEADERS = {
    "base": "base/error.h",
    "raft/core": "raft/core/core.h",
    "raft/wal": "raft/wal/wal.h",
    "proto": "proto/config.h",
    "rpc": "rpc/rpc.h",
    "raft/node": "raft/node/node.h",
    "client": "client/shardkv.h",
    "shardctrler": "shardctrler/service.h",
    "shardkv": "shardkv/store.h",
}

flags = {}
with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as database:
    for entry in json.load(database):
        room = os.path.relpath(os.path.dirname(entry["file"]), source)
        if room in ROOMS and room not in flags:
            words = shlex.split(entry["command"])
            compiler = next(w for w in words if os.path.basename(w) in ("cc", "gcc", "clang"))
            includes = [w for w in words if w.startswith("-I")]
            includes += [f"-isystem{words[i + 1]}" for i, w in enumerate(words) if w == "-isystem"]
            flags[room] = [compiler, *includes]

failures = [f"no file of {room} in the compilation database" for room in ROOMS if room not in flags]
tried = 0
with tempfile.TemporaryDirectory() as directory:
    for room, command in flags.items():
        for other, header in HEADERS.items():
            path = os.path.join(directory, "try.c")
            with open(path, "w", encoding="utf-8") as file:
                file.write(f'#include "{header}"\n')
            result = subprocess.run([*command, "-std=c17", "-fsyntax-only", path], capture_output=True)
            found = result.returncode == 0
            wanted = other == room or other in ROOMS[room]
            tried += 1
            if found != wanted:
                failures.append(f"{room} {'can' if found else 'cannot'} include {header}")
    # What the flags cannot refuse: a way around them by a relative path.
    for folder, _, files in os.walk(source):
        room = os.path.relpath(folder, source)
        if room not in ROOMS and not any(room.startswith(r + "/") for r in ROOMS):
            continue
        for name in files:
            if name.endswith((".c", ".h")):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    for number, line in enumerate(file, 1):
                        if line.startswith('#include "..'):
                            failures.append(f"{room}/{name}:{number} includes by a relative path")
for failure in failures:
    print("FAIL:", failure)
print(f"{tried} includes tried")
sys.exit(1 if failures else 0)
PYTHON
