#!/usr/bin/env python3
"""Writes docker-compose.yml: 3 controllers and 3 groups of 3 replicas. Kept as a program because nine services that
differ in two numbers are better generated than copied. Run it again after a change:

    deploy/gen-compose.py > deploy/docker-compose.yml
"""

HEAD = """\
# Made by deploy/gen-compose.py. 3 controllers and 3 groups of 3 replicas, each with a volume of its own.
#
#   docker-compose -f deploy/docker-compose.yml up -d
#   shardctl --controllers 127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003 --cluster compose put name value
#
# The containers use the host's network, so that the addresses in the configs mean the same to peers, to clients on
# this host and, with SHARDKV_HOST set to an address others reach, to clients elsewhere.
version: "3.7"

x-replica: &replica
  image: shardkv
  build:
    context: ..
    dockerfile: deploy/Dockerfile
  network_mode: host
  restart: always
  stop_grace_period: 20s

services:
"""

HOST = "${SHARDKV_HOST:-127.0.0.1}"
REPLICAS = (1, 2, 3)


def addresses(base):
    return [f"{HOST}:{base + i}" for i in REPLICAS]


def peers(base):
    return ",".join(f"{i}={HOST}:{base + i}" for i in REPLICAS)


def service(name, base, i, extra):
    listen = f"{HOST}:{base + i}"
    return f"""\
  {name}-{i}:
    <<: *replica
    command: >-
      {"shardctrler" if name == "controller" else "shardkv"} --cluster compose --id {i}
      --listen {listen} --peers {peers(base)}
      --data /var/lib/shardkv {extra}
    volumes: ["{name}-{i}:/var/lib/shardkv"]
    healthcheck:
      test: ["CMD", "shardctl", "health", "{listen}"]
      interval: 5s
      timeout: 3s
      retries: 6
"""


def main():
    controllers = ",".join(addresses(7000))
    text = HEAD
    names = []
    for i in REPLICAS:
        text += service("controller", 7000, i, "--shards 64")
        names.append(f"controller-{i}")
    for group in (1, 2, 3):
        for i in REPLICAS:
            text += service(
                f"group{group}", 7000 + 100 * group, i, f"--group {group} --controllers {controllers}"
            )
            names.append(f"group{group}-{i}")
    joins = " ".join(f"{g}={','.join(addresses(7000 + 100 * g))}" for g in (1, 2, 3))
    text += f"""\
  # Joins the groups, once; then it has nothing to do and ends.
  join:
    <<: *replica
    restart: on-failure
    command: >-
      shardkv-join-once {joins}
    environment:
      SHARDKV_CONTROLLERS: {controllers}
      SHARDKV_CLUSTER: compose
    depends_on: [controller-1, controller-2, controller-3]

volumes:
"""
    text += "".join(f"  {name}:\n" for name in names)
    print(text, end="")


if __name__ == "__main__":
    main()
