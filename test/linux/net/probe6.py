"""Sends and sees packets of IPv6 in one network namespace, as probe.py does those of IPv4.

One JSON request a line on standard input, one answer a line on standard output. What arrives on the device named by the
first argument is kept, bounded, until taken.
"""
import errno, json, socket, struct, sys, threading, time

DEVICE = sys.argv[1]
KEPT_MAX = 20000
kept, kept_lock = [], threading.Lock()
counted = {}
held = {}


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


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


def watch(s):
    while True:
        try:
            data, address = s.recvfrom(65535)
        except OSError:
            # The link was taken away.
            return
        if address[2] == socket.PACKET_OUTGOING or address[1] != 0x86DD or len(data) < 40:
            continue
        port = struct.unpack("!H", data[42:44])[0] if data[6] == 17 else 0
        if port in counted:
            counted[port] += len(data)
            continue
        with kept_lock:
            if len(kept) < KEPT_MAX:
                kept.append(describe(data))


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


def op_take(p):
    """What arrived, once it is at least `least` packets matching `match`, or the wait is over."""
    end = time.monotonic() + p.get("wait", 0.3)
    wanted = p.get("match", {})
    while True:
        with kept_lock:
            found = [each for each in kept if all(each.get(k) == v for k, v in wanted.items())]
        if len(found) >= p.get("least", 1 << 30) or time.monotonic() > end:
            break
        time.sleep(0.01)
    with kept_lock:
        kept.clear()
    return found


def op_listen(p):
    s = socket.socket(socket.AF_INET6)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind((p.get("host", "::"), p["port"]))
    s.listen(16)

    def serve():
        while True:
            c, address = s.accept()
            c.sendall(("%s %d" % address[:2]).encode())
            c.close()

    threading.Thread(target=serve, daemon=True).start()


def op_connect(p):
    """Gives what the listener saw of us, or the name of the error."""
    with socket.socket(socket.AF_INET6) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.settimeout(p.get("timeout", 0.4))
        try:
            if "sport" in p:
                s.bind((p.get("source", "::"), p["sport"]))
            s.connect((p["host"], p["port"]))
            return s.recv(100).decode()
        except socket.timeout:
            return "timeout"
        except OSError as e:
            return errno.errorcode.get(e.errno, str(e))


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

    threading.Thread(target=serve, daemon=True).start()


def op_pour(p):
    with socket.create_connection((p["host"], p["port"]), 20) as s:
        s.sendall(b"x" * p["bytes"])
        s.shutdown(socket.SHUT_WR)
        return int(s.recv(100))


def op_answer(p):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.bind(("::", p["port"]))

    def serve():
        while True:
            _, address = s.recvfrom(2000)
            s.sendto(("%s %d" % address[:2]).encode(), address)

    threading.Thread(target=serve, daemon=True).start()


def op_ask(p):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
        s.settimeout(p.get("timeout", 0.4))
        try:
            if "sport" in p:
                s.bind((p.get("source", "::"), p["sport"]))
            s.sendto(b"?", (p["host"], p["port"]))
            return s.recvfrom(100)[0].decode()
        except socket.timeout:
            return "timeout"
        except OSError as e:
            return errno.errorcode.get(e.errno, str(e))


def op_hold(p):
    """Exchanges one datagram with who answers, and keeps the socket."""
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.settimeout(5)
    s.bind(("::", p["sport"]))
    s.connect((p["host"], p["port"]))
    s.send(b"?")
    held[p["sport"]] = s
    return s.recv(100).decode()


def op_fault(p):
    """The name of the error that the kernel has noted for a kept socket, or none within the wait."""
    end = time.monotonic() + p.get("wait", 0.3)
    while True:
        fault = held[p["sport"]].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if fault != 0 or time.monotonic() > end:
            return errno.errorcode.get(fault, "none")
        time.sleep(0.01)


def op_count(p):
    counted[p["port"]] = 0


def op_counted(p):
    return counted[p["port"]]


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


def main():
    s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.ntohs(3))
    s.bind((DEVICE, 3))
    threading.Thread(target=watch, args=(s,), daemon=True).start()
    print(json.dumps({"result": "ready"}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            result = globals()["op_" + request["op"]](request)
            print(json.dumps({"result": result}), flush=True)
        except Exception as e:
            print(json.dumps({"error": repr(e)}), flush=True)


main()
