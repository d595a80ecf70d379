#!/usr/bin/env bash
# What people get wrong when they start a server or load a file: each mistake ends at once, with the exit code that --help promises and
# with words that name what is wrong.
#
#   mistakes_test.sh BIN_DIR
set -euo pipefail
bin=$(cd "$1" && pwd)
dir=$(mktemp -d "${TMPDIR:-/tmp}/shardkv-mistakes-XXXXXX")
cleanup() {
    rm -rf "$dir"
}
trap cleanup EXIT

failed=0
# expect CODE WORDS COMMAND...: ends with the code and says the words
expect() {
    local code=$1 words=$2 got=0
    shift 2
    timeout 20 "$@" >"$dir/said" 2>&1 || got=$?
    if [ "$got" != "$code" ] || ! grep -qF -- "$words" "$dir/said"; then
        echo "FAIL: $*"
        echo "  ended with $got instead of $code, or did not say \"$words\":"
        sed 's/^/  /' "$dir/said"
        failed=1
    fi
}
server() {
    echo "$bin/shardkv --id=1 --group=1 --listen=127.0.0.1:0 --controllers=127.0.0.1:1 $*"
}

# shellcheck disable=SC2046 # the words are meant to be split; none has a space
{
    expect 2 "--cluster=: must not be empty" $(server --cluster= --data="$dir/a")
    expect 2 "--data=: must not be empty" $(server --cluster=c --data=)
    expect 2 "--data=DIR is required" $(server --cluster=c)
    # TEST-NET-1 (RFC 5737) is nobody's address.
    expect 3 "192.0.2.1:4000: it is not an address of this machine" $(server --cluster=c --data="$dir/b" --listen=192.0.2.1:4000)
    expect 6 "--data=/dev/null/x: " $(server --cluster=c --data=/dev/null/x)
}
[ ! -e "$dir/a" ] || { echo "FAIL: a refused server made its directory"; failed=1; }

# Somebody else's directory. root may do anything, so root becomes nobody for it.
as_nobody=()
[ "$(id -u)" != 0 ] || as_nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups)
chmod 755 "$dir"
mkdir "$dir/closed" "$dir/readonly"
mkdir "$dir/closed/inner"
chmod 000 "$dir/closed"
chmod 555 "$dir/readonly"
if [ ${#as_nobody[@]} -gt 0 ] && ! "${as_nobody[@]}" "$bin/shardkv" --version >/dev/null 2>&1; then
    echo "left out: nobody may not run $bin/shardkv, so a directory of somebody else cannot be tried"
else
    # shellcheck disable=SC2046
    {
        expect 6 "--data=$dir/closed/inner: permission denied" "${as_nobody[@]}" $(server --cluster=c --data="$dir/closed/inner")
        expect 6 "--data=$dir/closed: permission denied" "${as_nobody[@]}" $(server --cluster=c --data="$dir/closed")
        expect 6 "--data=$dir/readonly: permission denied" "${as_nobody[@]}" $(server --cluster=c --data="$dir/readonly")
    }
fi
chmod 755 "$dir/closed" "$dir/readonly"

# A load that nobody takes: there are controllers, but no group. Then the same without controllers.
port=$((20000 + $$ % 10000))
"$bin/shardctrler" --cluster=c --id=1 --peers=1=127.0.0.1:$port --listen=127.0.0.1:$port --data="$dir/controller" \
    --shards=4 2>"$dir/controller.log" &
controller=$!
cleanup() {
    kill "$controller" 2>/dev/null || true
    wait "$controller" 2>/dev/null || true
    rm -rf "$dir"
}
printf '{"key":"k","value":"v"}\n' >"$dir/rows"
ctl=("$bin/shardctl" --controllers=127.0.0.1:$port --cluster=c)
for _ in $(seq 100); do
    "${ctl[@]}" --timeout=1s query >/dev/null 2>&1 && break
    sleep 0.1
done
expect 6 "line 1: " "${ctl[@]}" --timeout=1s load "$dir/rows"
printf 'no json\n' >"$dir/rows"
expect 1 "line 1: " "${ctl[@]}" --timeout=1s load "$dir/rows"
kill "$controller"
wait "$controller" 2>/dev/null || true
printf '{"key":"k","value":"v"}\n' >"$dir/rows"
expect 6 "" "${ctl[@]}" --timeout=1s load "$dir/rows"

if "$bin/shardctl" load --help | grep -E '[0-9]{15,}'; then
    echo "FAIL: --help shows a number that nobody can read"
    failed=1
fi
exit $failed
