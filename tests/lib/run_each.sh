#!/usr/bin/env bash
# Runs commands one after the other until one fails; its exit code is the last one's. Each command follows a word '--' and may begin with
# assignments: run_each.sh -- A=b program argument -- program
set -euo pipefail
command=()
run() {
    if ((${#command[@]})); then
        printf '== %s\n' "${command[*]}"
        env "${command[@]}" || exit $?
        ran=1
    fi
    command=()
}
ran=0
for word; do
    if [[ $word == -- ]]; then
        run
    else
        command+=("$word")
    fi
done
run
if ((!ran)); then
    echo "nothing to run" >&2
    exit 2
fi
