"""Sends and sees packets in one network namespace for the tests of the node's network; probing.py says how it is asked."""
import socket, struct, sys, time

sys.dont_write_bytecode = True
import probing
from probing import checksum

DEVICE = probing.DEVICE


def transport(p, src, dst):
    payload = bytes(p.get("payload", "x"), "ascii")
    kind = p["proto"]
    if kind == "gre":
        return 47, struct.pack("!HHI", p.get("greflags", 0x2000), 0x0800, p["key"]) + payload
    if kind == "icmp":
        body = bytes.fromhex(p["body"]) if "body" in p else payload
        rest = struct.pack("!HH", p.get("id", 0), p.get("seq", 1)) if "body" not in p else b"\0\0\0\0"
        head = struct.pack("!BBH", p.get("type", 8), p.get("code", 0), 0) + rest
        whole = head + body
        return 1, whole[:2] + struct.pack("!H", checksum(whole)) + whole[4:]
    if kind == "tcp":
        head = struct.pack("!HHIIBBHHH", p["sport"], p["dport"], p.get("seq", 1), p.get("ack", 0), 0x50, p.get("flags", 2), p.get("window", 1000), 0, 0)
        number, at, payload = 6, 16, b""
    elif kind == "udp":
        head = struct.pack("!HHHH", p["sport"], p["dport"], 8 + len(payload), 0)
        number, at = 17, 6
    else:
        return int(kind), payload
    pseudo = socket.inet_aton(src) + socket.inet_aton(dst) + struct.pack("!BBH", 0, number, len(head) + len(payload))
    value = checksum(pseudo + head + payload)
    return number, head[:at] + struct.pack("!H", value) + head[at + 2:] + payload


def ip_packet(p):
    number, body = transport(p, p["src"], p["dst"])
    options = b"\x01\x01\x01\x00" if p.get("options") else b""
    length = 20 + len(options)
    head = struct.pack("!BBHHHBBH", 0x40 | length // 4, 0, length + len(body), 7, p.get("frag", 0), 64, number, 0)
    head += socket.inet_aton(p["src"]) + socket.inet_aton(p["dst"]) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def own_mac():
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind((DEVICE, 0))
        return s.getsockname()[4]


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def frame(p):
    own = own_mac()
    # The other end of a vserver's link differs in one byte (address-plan.ts).
    peer = own[:3] + b"\x01" + own[4:]
    head = peer + (mac(p["mac"]) if "mac" in p else own)
    if "vlan" in p:
        head += struct.pack("!HH", 0x8100, p["vlan"])
    if p.get("ether") == "arp":
        sender = own + socket.inet_aton(p["src"])
        return head + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1) + sender + b"\0" * 6 + socket.inet_aton(p["dst"])
    if p.get("ether") == "ipv6":
        body = b"\x60\0\0\0\0\x08\x3a\x40" + socket.inet_pton(socket.AF_INET6, "fe80::1") + socket.inet_pton(socket.AF_INET6, "ff02::1") + b"\x80" + b"\0" * 7
        return head + struct.pack("!H", 0x86DD) + body
    if p.get("ether") == "other":
        return head + struct.pack("!H", 0x88B5) + b"\0" * 46
    return head + struct.pack("!H", 0x0800) + ip_packet(p)


def describe(data, nested=False):
    length = (data[0] & 15) * 4
    number = data[9]
    seen = {"src": socket.inet_ntoa(data[12:16]), "dst": socket.inet_ntoa(data[16:20]), "number": number, "size": len(data)}
    seen["ok"] = checksum(data[:length]) == 0
    body = data[length:struct.unpack("!H", data[2:4])[0]] if not nested else data[length:]
    if number in (6, 17) and len(body) >= 8:
        seen["proto"] = "tcp" if number == 6 else "udp"
        seen["sport"], seen["dport"] = struct.unpack("!HH", body[:4])
        if number == 6 and len(body) >= 20:
            seen["flags"] = body[13]
        pseudo = data[12:20] + struct.pack("!BBH", 0, number, len(body))
        if not nested:
            seen["ok"] = seen["ok"] and checksum(pseudo + body) == 0
    elif number == 1 and len(body) >= 8:
        seen["proto"], seen["type"], seen["code"] = "icmp", body[0], body[1]
        seen["ok"] = seen["ok"] and checksum(body) == 0
        if body[0] in (3, 11, 12) and len(body) >= 36:
            seen["inner"] = describe(body[8:], True)
        else:
            seen["id"] = struct.unpack("!H", body[4:6])[0]
    elif number == 47 and len(body) >= 8:
        seen["proto"], seen["key"] = "gre", struct.unpack("!I", body[4:8])[0]
    return seen


def port_of(data):
    return struct.unpack("!H", data[22:24])[0] if data[9] == 17 and data[0] == 0x45 else 0


def op_bytes(p):
    """The packet that `op_send` would send, hexadecimal."""
    return ip_packet(p).hex()


def op_send(p):
    data = frame(p)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind((DEVICE, 0))
        for _ in range(p.get("count", 1)):
            s.send(data)
        # As well to each port up to this one.
        for port in range(p.get("dport", 0) + 1, p.get("dportLast", 0) + 1):
            s.send(data[:14] + ip_packet({**p, "dport": port}))


def op_race(p):
    """Waits for a device to appear and sends from a false source at once, and on; gives how often the device took it."""
    global DEVICE
    end = time.monotonic() + p["wait"]
    s, taken = None, 0
    while time.monotonic() < end:
        try:
            if s is None:
                s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
                s.bind((p["device"], 0))
                DEVICE = p["device"]
                data = frame({"proto": "udp", "src": p["src"], "dst": p["dst"], "sport": 5998, "dport": 5999})
            s.send(data)
            if taken == 0:
                end = time.monotonic() + p["seconds"]
            taken += 1
        except OSError:
            if taken == 0:
                s.close()
                s = None
    return taken


def op_route(p):
    """Sends a whole IP packet by way of the routing table."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as s:
        for _ in range(p.get("count", 1)):
            s.sendto(ip_packet(p), (p["dst"], 0))


def op_exchange(p):
    """One datagram at a time for some seconds, once at least: milliseconds to the answer of each, none for those without."""
    times = []
    end = time.monotonic() + p["seconds"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(p["timeout"])
        s.connect((p["host"], p["port"]))
        while not times or time.monotonic() < end:
            began = time.monotonic()
            s.send(b"x" * p["size"])
            try:
                s.recv(100)
                times.append((time.monotonic() - began) * 1000)
            except socket.timeout:
                times.append(None)
            time.sleep(0.02)
    return times


def op_sweep(p):
    """One datagram to each of many ports, from one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("0.0.0.0", p["sport"]))
        for port in range(p["first"], p["first"] + p["count"]):
            try:
                s.sendto(b"x", (p["host"], port))
            except ConnectionRefusedError:
                s.sendto(b"x", (p["host"], port))


def op_flood(p):
    """Datagrams of 1,200 bytes, or echo requests, or datagrams with IP options, at a pace, for a time, bounded."""
    end = time.monotonic() + p["seconds"]
    sent = 0
    if p.get("kind", "udp") == "udp":
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind(("0.0.0.0", p.get("sport", 20000)))
    else:
        s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    if p.get("options"):
        s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01\x01\x01\x00")
    payload = b"x" * 1172
    data = payload
    if p.get("kind") == "icmp":
        body = struct.pack("!BBHHH", 8, 0, 0, 77, 1) + payload
        data = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    while sent < p.get("most", 100000) and time.monotonic() < end:
        for _ in range(20):
            try:
                s.sendto(data, (p["host"], p["port"]))
                sent += 1
            except OSError:
                pass
        time.sleep(p.get("pause", 0.001))
    s.close()
    return sent


def op_scan(p):
    """A datagram of `size` bytes to each of `count` addresses from `net`.1 on, by the routing table."""
    data = b"x" * p["size"]
    first, second, third = (int(n) for n in p["net"].split("."))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for i in range(p["count"]):
            high, low = divmod(i, 250)
            try:
                s.sendto(data, ("%d.%d.%d.%d" % (first, second, third + high, low + 1), p.get("port", 9)))
            except OSError:
                pass
            time.sleep(p.get("pause", 0.001))


probing.keep(0x0800, 20, port_of, describe)
probing.answer({**probing.with_sockets(socket.AF_INET, "0.0.0.0", "%s:%d"), **globals()})
