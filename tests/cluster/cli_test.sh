#!/usr/bin/env bash
# The command line end to end: a cluster of real processes on loopback, driven as a person and a script would. What is
# printed, what the exit codes are, and that one line says what is wrong.
#   cli_test.sh BIN_DIR
# Ends the processes it started by their ids, and removes its folder.
set -uo pipefail
bin=$(cd "$1" && pwd)
ctl=$bin/shardctl
work=$(mktemp -d)
declare -A process=() # name -> id
failures=0

# shellcheck disable=SC2317  # called by the trap
clean() {
    local id
    for id in "${process[@]}"; do
        kill -9 "$id" 2>/dev/null
    done
    wait 2>/dev/null
    if [ "$failures" -eq 0 ]; then
        rm -rf "$work"
    else
        echo "$failures failed; logs and data are kept in $work"
    fi
}
trap clean EXIT

# ---- helpers

fail() {
    failures=$((failures + 1))
    echo "FAIL: $*"
    head -5 "$work/out" "$work/err" 2>/dev/null | cut -c1-300
}
# expect CODE TEXT command...: the exit code, and TEXT (which may be empty) in what it prints. Nothing takes over 30 s.
expect() {
    local want=$1 text=$2 code
    shift 2
    timeout 30 "$@" >"$work/out" 2>"$work/err" <"${input:-/dev/null}"
    code=$?
    [ "$code" -eq "$want" ] || fail "exit $code instead of $want: ${*:1:12}"
    [ -z "$text" ] || grep -aqF -- "$text" "$work/out" "$work/err" || fail "does not say '$text': ${*:1:12}"
}
# refuse CODE TEXT command...: the same, and standard error is one line that begins with "error: ".
refuse() {
    expect "$@"
    if [ "$(grep -ac '' "$work/err")" -ne 1 ] || ! grep -aq '^error: ' "$work/err"; then
        fail "not one line of error: ${*:3}"
    fi
}
# json EXPRESSION command...: exits with 0 and prints one object, `o`, for which the Python expression is true.
json() {
    local expression=$1
    shift
    expect 0 "" "$@" --json
    python3 -c 'import json, sys
o = json.loads(sys.stdin.read())
sys.exit(0 if eval(sys.argv[1]) else 1)' "$expression" <"$work/out" || fail "not true: $expression, of: $*"
}
until_true() { # SECONDS command...
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.1
    done
}

# Free ports below those the kernel gives to outgoing connections.
read -r -a ports < <(python3 -c 'import random, socket
found = []
for port in random.sample(range(20000, 32000), 12000):
    s = socket.socket()
    try:
        s.bind(("127.0.0.1", port))
        found.append(port)
    except OSError:
        pass
    s.close()
    if len(found) == 13:
        break
print(*found)')
at() { echo "127.0.0.1:${ports[$1]}"; }
controllers="$(at 0),$(at 1),$(at 2)"
group1="$(at 3),$(at 4),$(at 5)"
group2="$(at 6),$(at 7),$(at 8)"
peers() { echo "1=${1//,/,X=}" | sed 's/X=/2=/; s/X=/3=/'; }
export SHARDKV_CONTROLLERS=$controllers SHARDKV_CLUSTER=cli

start() { # NAME command...
    local name=$1
    shift
    "$@" --data "$work/$name" >>"$work/$name.log" 2>&1 &
    process[$name]=$!
    disown
}
start_controller() { start "c$1" "$bin/shardctrler" --id "$1" --peers "$(peers "$controllers")" --shards 8; }
start_replica() { # GROUP ID
    local addresses=group$1
    start "g$1-$2" "$bin/shardkv" --group "$1" --id "$2" --peers "$(peers "${!addresses}")"
}
end() { # NAME SIGNAL
    local id=${process[$1]}
    unset "process[$1]"
    kill "-$2" "$id"
    until_true 10 gone "$id" || fail "$1 does not end"
}
# shellcheck disable=SC2317  # called by until_true
gone() { ! kill -0 "$1" 2>/dev/null; }

# ---- without a cluster

for program in shardctl shardkv shardctrler; do
    expect 0 "$program " "$bin/$program" --version
    expect 0 "Exit codes" "$bin/$program" --help
done
refuse 6 "Connection refused" "$ctl" get k --timeout 1s
refuse 2 "SHARDKV_CONTROLLERS" env -u SHARDKV_CONTROLLERS "$ctl" get k
refuse 2 "--timeout=5" "$ctl" get k --timeout 5
refuse 2 "unknown flag --bogus" "$ctl" get k --bogus
refuse 2 "no command 'frob'" "$ctl" frob
refuse 2 "'nonsense' is not host:port" "$ctl" get k --controllers nonsense
refuse 2 "--tls-cert" "$ctl" get k --tls-ca "$work/none"
refuse 2 "holds no PEM" "$ctl" get k --tls-ca "$0" --tls-cert "$0" --tls-key "$0"
refuse 2 "--id=N" "$bin/shardkv" --cluster cli --group 1
refuse 2 "--heartbeat" "$bin/shardkv" --group 1 --id 1 --listen "$(at 3)" --data "$work/x" --heartbeat 1s
refuse 2 "--shards=0" "$bin/shardctrler" --id 1 --listen "$(at 3)" --data "$work/x" --shards 0

# ---- controllers only

for i in 1 2 3; do start_controller $i; done
for g in 1 2; do for i in 1 2 3; do start_replica $g $i; done; done
until_true 15 "$ctl" query || fail "no controllers"
json 'o["number"] == 0 and set(o["owners"]) == {0}' "$ctl" query
refuse 6 "no group owns shard" "$ctl" put k v --timeout 1s
refuse 1 "not of cluster 'other'" "$ctl" query --cluster other
refuse 1 "these are no controllers" "$ctl" query --controllers "$group1"

# ---- groups and keys

expect 0 "config 1" "$ctl" join "1=$group1" --wait
json 'o["outcome"] == "done" and o["config"] == 2' "$ctl" join "2=$group2" --wait
refuse 1 "group 1 is in the config already" "$ctl" join "1=$group1"
refuse 2 "is not HOST:PORT" "$ctl" join 3=x
refuse 4 "group 9" "$ctl" leave 9
refuse 1 "no group" "$ctl" leave 1 2
json 'sorted(o["owners"]).count(1) == 4 and len(o["groups"]) == 2' "$ctl" query
refuse 4 "no config" "$ctl" query --config 99
json 'o["version"] == 1' "$ctl" put k v
json 'o == {"key": "k", "value": "v", "version": 1}' "$ctl" get k
expect 0 "OK" "$ctl" append k w
refuse 5 "the version is 2" "$ctl" cas k 1 x
json 'o["version"] == 3' "$ctl" cas k 2 x
expect 0 "OK" "$ctl" delete k
refuse 4 "not found" "$ctl" get k
expect 0 "OK" "$ctl" put --hex 00ff DEADbeef
expect 0 "3q2+7w==" "$ctl" get --base64 AP8=
json 'o["key_base64"] == "AP8=" and o["value_base64"] == "3q2+7w=="' "$ctl" get --hex 00ff
refuse 2 "not hexadecimal" "$ctl" put --hex 0 00
refuse 2 "the key has 4097 bytes" "$ctl" put "$(printf '%4097s' x)" v
head -c 8388608 /dev/urandom >"$work/big"
input=$work/big expect 0 "OK" "$ctl" put big -
"$ctl" get big | cmp -s - "$work/big" || fail "8 MiB came back changed"
refuse 1 "at most 8388608 bytes" "$ctl" append big x

# ---- load and export, over kills

python3 - "$work/rows" <<'P'
import base64, json, os, sys
def part(name, raw):
    try:
        return {name: raw.decode()}
    except UnicodeDecodeError:
        return {name + "_base64": base64.b64encode(raw).decode()}
with open(sys.argv[1], "w") as out:
    for i in range(5000):
        key = b"row\xff\x00%d" % i if i % 3 == 0 else b"row%d" % i
        row = part("key", key) | part("value", os.urandom(40) if i % 2 else b"\x00line\n%d" % i)
        out.write(json.dumps(row) + "\n")
P
leader() { # GROUP: the id of its leading replica
    "$ctl" member list "$1" --json | python3 -c 'import json, sys
print(*[m["id"] for m in json.load(sys.stdin) if m["leader"]])'
}
victim=$(leader 1)
end "g1-$victim" 9
json 'o["done"] == 5000 and o["outcome"] == "done"' "$ctl" load "$work/rows"
start_replica 1 "$victim"
victim=$(leader 2)
end "g2-$victim" TERM
expect 0 "rows" "$ctl" export --output "$work/exported"
start_replica 2 "$victim"
# same FILE: it holds every loaded row with its value, and no key twice.
same() {
    python3 - "$work/rows" "$1" <<'P'
import base64, json, sys
def rows(path):
    known = {}
    for line in open(path, "rb"):
        row = json.loads(line)
        pair = [row[n].encode() if n in row else base64.b64decode(row[n + "_base64"]) for n in ("key", "value")]
        assert pair[0] not in known, pair[0]
        known[pair[0]] = pair[1]
    return known
wanted, found = rows(sys.argv[1]), rows(sys.argv[2])
sys.exit(0 if all(found.get(key) == value for key, value in wanted.items()) else 1)
P
}
same "$work/exported" || fail "the export is not what was loaded"
printf '{"key":"a","value":"1"}\nnot json\n{"key":"c","value":"3"}\n' >"$work/bad"
expect 1 "error: load: line 2: not JSON" "$ctl" load "$work/bad"
grep -q -- '--from-line=2' "$work/err" || fail "load does not say where to go on"
timeout 20 "$ctl" export 2>"$work/err" | head -1 >"$work/out"
if [ "${PIPESTATUS[0]}" -ne 1 ] || ! grep -q 'Broken pipe' "$work/err"; then
    fail "export into a closed pipe"
fi
expect 0 '{"key":"big"}' "$ctl" export --prefix big --keys-only

# ---- replicas and leaders

start extra "$bin/shardkv" --group 1 --id 4 --listen "$(at 9)"
until_true 10 grep -q ' ready ' "$work/extra.log" || fail "the fourth replica does not start"
refuse 1 "knows no leader" "$ctl" health "$(at 9)"
refuse 1 "is the address of replica 1" "$ctl" member add 1 "4=$(at 3)"
expect 0 "OK" "$ctl" member add 1 "4=$(at 9)"
until_true 20 "$ctl" member promote 1 4 || fail "the fourth replica cannot be promoted"
refuse 1 "replica 8 is not a member" "$ctl" member promote 1 8
refuse 1 "there is no such replica" "$ctl" transfer 1 --to 8
expect 0 "OK" "$ctl" transfer 1 --to 4
[ "$(leader 1)" = 4 ] || fail "replica 4 does not lead"
expect 0 "leader" "$ctl" health "$(at 9)"
expect 0 "OK" "$ctl" member remove 1 4
json '[m["id"] for m in o] == [1, 2, 3]' "$ctl" member list 1
end extra TERM
refuse 4 "no group 9" "$ctl" transfer 9

# ---- the last group leaves, another one comes

expect 0 "no shard is moving" "$ctl" leave 2 --wait
refuse 1 "no group" "$ctl" leave 1
expect 0 "" "$ctl" leave 1 --force --wait
json 'o["settled"] and o["groups"][0]["kept"] == 8 and o["groups"][0]["moving"] == []' "$ctl" status
refuse 6 "no group owns shard" "$ctl" get big --timeout 1s
expect 0 "no shard is moving" "$ctl" join "2=$group2" --wait
expect 0 "rows" "$ctl" export --output "$work/exported"
same "$work/exported" || fail "data was lost between the groups"

# ---- a quorum is gone, and what is left may still think that it leads: the put reaches its log

leads_3() { "$ctl" transfer 2 --to 3 || true; [ "$(leader 2)" = 3 ]; }
until_true 15 leads_3 || fail "replica 3 of group 2 does not lead"
end g2-1 9
end g2-2 9
expect 3 "outcome unknown" "$ctl" put big x --timeout 1s
for _ in 1 2 3; do # an answer that comes at once, a refused connection, must not be lost
    expect 0 "no leader answers" "$ctl" status
done
refuse 6 "no leader" "$ctl" member list 2
expect 7 "still moving" "$ctl" join "1=$group1" --wait --wait-timeout 1s
start_replica 2 1
expect 0 "no shard is moving" "$ctl" wait
end c1 9
end c2 9
refuse 6 "" "$ctl" query --timeout 1s
start_controller 1
until_true 15 "$ctl" query || fail "the controllers do not come back"

# ---- servers that must not start

expect 4 "in use by another process" timeout 10 "$bin/shardkv" --group 2 --id 3 --listen "$(at 10)" --data "$work/g2-3"
end g2-3 9
expect 5 "belongs to replica 3 of group 2" timeout 10 "$bin/shardkv" --group 1 --id 3 --listen "$(at 10)" --data "$work/g2-3"
expect 5 "belongs to cluster" timeout 10 "$bin/shardkv" --cluster other --group 2 --id 3 --listen "$(at 10)" --data "$work/g2-3"
expect 3 "cannot listen on $(at 0)" timeout 10 "$bin/shardkv" --group 2 --id 4 --listen "$(at 0)" --data "$work/g2-4"
start stranger "$bin/shardkv" --cluster other --group 6 --id 1 --listen "$(at 11)" --controllers "$(at 0)"
until_true 15 grep -q 'controllers.no_config.*WRONG_CLUSTER' "$work/stranger.log" || fail "a stranger's log does not say so"
python3 - "$work/g2-3/wal" <<'P'
import glob, sys
# a byte in the middle of the oldest segment that has many
for path in sorted(glob.glob(sys.argv[1] + "/*.wal")):
    with open(path, "r+b") as file:
        size = len(file.read().rstrip(b"\0"))
        if size > 100000:
            file.seek(size // 2)
            byte = file.read(1)[0]
            file.seek(size // 2)
            file.write(bytes([byte ^ 64]))
            break
else:
    sys.exit("no segment is long enough")
P
expect 6 "fails its checksum" timeout 10 "$bin/shardkv" --group 2 --id 3 --listen "$(at 10)" --data "$work/g2-3"

[ "$failures" -eq 0 ] && echo "the command line does what it says ($SECONDS s)"
exit $((failures > 0))
