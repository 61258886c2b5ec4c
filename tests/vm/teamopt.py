#!/usr/bin/python3
"""teamopt TEAM get|set OPTION PORT [VALUE]: what teamnl(8) does, for one option of a team (PORT 0) or of one of its ports.

Written from if_team.h, so that what bondd sends and reads is checked by something else. Sets numbers and true/false only.
"""
import socket
import struct
import sys

REQUEST, ACK = 1, 4


def attribute(kind, data):
    return struct.pack("HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def attributes(data):
    while data:
        length, kind = struct.unpack_from("HH", data)
        yield kind & 0x3FFF, data[4:length]
        data = data[(length + 3) & ~3:]


def ask(sock, family, command, flags, body):
    sock.send(struct.pack("IHHII", 20 + len(body), family, flags, 1, 0) + struct.pack("BBH", command, 1, 0) + body)
    while True:
        data = sock.recv(1 << 16)
        while data:
            length, kind = struct.unpack_from("IH", data)
            if kind == 2:
                errno = -struct.unpack_from("i", data, 16)[0]
                # 3: set, and nobody listened.
                if errno not in (0, 3):
                    sys.exit(f"errno {errno}")
                return
            if kind == 3:
                return
            yield dict(attributes(data[20:length]))
            data = data[(length + 3) & ~3:]


team, verb, option, port = sys.argv[1:5]
team, port = socket.if_nametoindex(team), socket.if_nametoindex(port) if port != "0" else 0
sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
family = None
for answer in ask(sock, 16, 3, REQUEST | ACK, attribute(2, b"team\0")):
    family = struct.unpack("H", answer[1])[0]
about = attribute(1, struct.pack("I", team))
if verb == "get":
    for answer in ask(sock, family, 2, REQUEST, about):
        for _, item in attributes(answer.get(2, b"")):
            item = dict(attributes(item))
            if item[1] == option.encode() + b"\0" and struct.unpack("I", item.get(6, bytes(4)))[0] == port:
                show = {5: lambda: item[4].rstrip(b"\0").decode(), 6: lambda: "true" if 4 in item else "false"}
                print(show.get(item[3][0], lambda: struct.unpack("I", item[4])[0])())
else:
    value = sys.argv[5]
    item = attribute(1, option.encode() + b"\0")
    if value in ("true", "false"):
        item += attribute(3, b"\6") + (attribute(4, b"") if value == "true" else b"")
    else:
        item += attribute(3, b"\3") + attribute(4, struct.pack("I", int(value)))
    if port:
        item += attribute(6, struct.pack("I", port))
    for _ in ask(sock, family, 1, REQUEST | ACK, about + attribute(2, attribute(1, item))):
        pass
