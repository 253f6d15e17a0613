"""Sends and sees packets of IPv6 in one network namespace, as probe.py does those of IPv4; probing.py says how it is asked."""
import socket, struct, sys, time

sys.dont_write_bytecode = True
import probing
from probing import checksum

DEVICE = probing.DEVICE


def describe(data, nested=False):
    number, body = data[6], data[40:40 + struct.unpack("!H", data[4:6])[0]]
    seen = {"src": socket.inet_ntop(socket.AF_INET6, data[8:24]), "dst": socket.inet_ntop(socket.AF_INET6, data[24:40])}
    seen["number"], seen["size"] = number, len(data)
    seen["ok"] = nested or number not in (6, 17, 58) or checksum(data[8:40] + struct.pack("!II", len(body), number) + body) == 0
    if number in (6, 17) and len(body) >= 8:
        seen["proto"] = "tcp" if number == 6 else "udp"
        seen["sport"], seen["dport"] = struct.unpack("!HH", body[:4])
        if number == 6 and len(body) >= 20:
            seen["flags"] = body[13]
    elif number == 58 and len(body) >= 8:
        seen["proto"], seen["type"], seen["code"] = "icmp", body[0], body[1]
        if body[0] < 128 and len(body) >= 56:
            seen["inner"] = describe(body[8:], True)
        elif body[0] in (128, 129):
            seen["id"] = struct.unpack("!H", body[4:6])[0]
    return seen


def port_of(data):
    return struct.unpack("!H", data[42:44])[0] if data[6] == 17 else 0


def op_send(p):
    """Sends frames, hexadecimal, as they are."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind((DEVICE, 0))
        for i in range(p.get("count", 1)):
            for each in p["frames"]:
                s.send(bytes.fromhex(each))
            # Whoever sends without a pause fills the queue of the other end's processor, where frames are lost uncounted.
            if i % 32 == 31:
                time.sleep(0.0005)


def op_route(p):
    """Sends whole packets, hexadecimal, by way of the routing table."""
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as s:
        for each in p["packets"]:
            data = bytes.fromhex(each)
            s.sendto(data, (socket.inet_ntop(socket.AF_INET6, data[24:40]), 0))


def op_sink(p):
    """Takes one connection after the other to its end, and says how many bytes came."""
    s = socket.socket(socket.AF_INET6)
    s.bind(("::", p["port"]))
    s.listen(4)

    def serve():
        while True:
            c, _ = s.accept()
            total = 0
            while data := c.recv(1 << 20):
                total += len(data)
            c.sendall(str(total).encode())
            c.close()

    probing.in_background(serve)


def op_pour(p):
    with socket.create_connection((p["host"], p["port"]), 20) as s:
        s.sendall(b"x" * p["bytes"])
        s.shutdown(socket.SHUT_WR)
        return int(s.recv(100))


def op_flood(p):
    """Datagrams of 1,200 bytes, or echo requests, at a pace, for a time, bounded."""
    end = time.monotonic() + p["seconds"]
    sent, data = 0, b"x" * 1152
    if p.get("kind", "udp") == "udp":
        s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    else:
        s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        data = struct.pack("!BBHHH", 128, 0, 0, 77, 1) + data
    while sent < p.get("most", 100000) and time.monotonic() < end:
        for _ in range(20):
            try:
                s.sendto(data, (p["host"], p["port"] if p.get("kind", "udp") == "udp" else 0))
                sent += 1
            except OSError:
                pass
        time.sleep(p.get("pause", 0.001))
    s.close()
    return sent


def op_scan(p):
    """A datagram to each of `count` addresses from `net` (which ends in ::) and 1 on, by the routing table."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
        for i in range(p["count"]):
            try:
                s.sendto(b"x", ("%s%x" % (p["net"], i + 1), p["port"]))
            except OSError:
                pass
            time.sleep(p.get("pause", 0.001))


probing.keep(0x86DD, 40, port_of, describe)
probing.answer({**probing.with_sockets(socket.AF_INET6, "::", "%s %d"), **globals()})
