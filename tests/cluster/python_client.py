#!/usr/bin/env python3
"""Any gRPC client can speak to shardkv: this one knows proto/shardkv.proto and nothing else.

    python_client.py PROTO_DIR CONTROLLER[,CONTROLLER...]

Generates Python messages with protoc, asks a controller for the config, finds the key's shard and its group's leader, and goes through
Put, Get, Append, CompareAndSet and Delete, with a retry under one sequence that must not execute twice.
"""
import os
import random
import subprocess
import sys
import tempfile
import time

import grpc

proto_dir, controllers = sys.argv[1], sys.argv[2].split(",")
generated = tempfile.mkdtemp()
subprocess.run(["protoc", "-I", proto_dir, "--python_out", generated, "shardkv.proto"], check=True)
sys.path.insert(0, generated)
import shardkv_pb2 as pb  # noqa: E402  (made a moment ago)

# base/error.h
NOT_FOUND, BUSY, NOT_LEADER, WRONG_GROUP, SHARD_MOVING, VERSION_MISMATCH = 3, 5, 20, 22, 23, 40
RETRY = {BUSY, NOT_LEADER, WRONG_GROUP, SHARD_MOVING}
DEADLINE_S = 30

channels = {}


def call(address, method, request, reply):
    if address not in channels:
        channels[address] = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", 20 << 20)])
    stub = channels[address].unary_unary(
        f"/shardkv.v1.{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=reply.FromString,
    )
    return stub(request, timeout=5)


def anywhere(addresses, method, request, reply):
    """Tries each address, following leader hints, until one answers for good."""
    candidates = list(addresses)
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        address = candidates.pop(0)
        candidates.append(address)
        try:
            response = call(address, method, request, reply)
        except grpc.RpcError:
            time.sleep(0.05)
            continue
        if response.header.code not in RETRY:
            return response
        if response.header.route.leader_address:
            candidates.insert(0, response.header.route.leader_address)
        time.sleep(0.02)
    raise AssertionError(f"{method}: nobody answered in {DEADLINE_S} s")


config = anywhere(
    controllers, "Controller/Query", pb.QueryRequest(latest=True), pb.QueryResponse
).config
assert config.number > 0, config
everybody = [replica.address for group in config.groups for replica in group.replicas]

client_id = random.getrandbits(63) | 1
sequence = 0


def header():
    global sequence
    sequence += 1
    return pb.RequestHeader(client_id=client_id, sequence=sequence, acked_below=sequence)


def kv(method, request):
    reply = pb.GetResponse if method == "Get" else pb.WriteResponse
    return anywhere(everybody, f"Kv/{method}", request, reply)


key = b"python \x00\xff key"
put = kv("Put", pb.PutRequest(header=header(), key=key, value=b"one"))
assert put.header.code == 0 and put.version > 0, put

append = pb.AppendRequest(header=header(), key=key, value=b", two")
first = kv("Append", append)
again = kv("Append", append)  # the same client and sequence: answered, not executed
assert first.header.code == again.header.code == 0 and first.version == again.version, (first, again)

got = kv("Get", pb.GetRequest(key=key))
assert got.value == b"one, two" and got.version == first.version, got

miss = kv("CompareAndSet", pb.CompareAndSetRequest(header=header(), key=key, expected_version=put.version, value=b"x"))
assert miss.header.code == VERSION_MISMATCH and miss.version == first.version, miss
hit = kv("CompareAndSet", pb.CompareAndSetRequest(header=header(), key=key, expected_version=first.version, value=b"three"))
assert hit.header.code == 0 and hit.version > first.version, hit
assert kv("Get", pb.GetRequest(key=key)).value == b"three"

large = bytes(8 * 1024 * 1024)
assert kv("Put", pb.PutRequest(header=header(), key=b"large", value=large)).header.code == 0
assert kv("Get", pb.GetRequest(key=b"large")).value == large

assert kv("Delete", pb.DeleteRequest(header=header(), key=key)).header.code == 0
assert kv("Get", pb.GetRequest(key=key)).header.code == NOT_FOUND

refused = kv("Put", pb.PutRequest(header=header(), key=b"", value=b"x"))
assert refused.header.code != 0 and refused.header.message, refused
print("python client: put, append with a retry, get, compare-and-set, 8 MiB, delete, refusal: all as they should be")
