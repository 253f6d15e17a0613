"""What the probes of both families share: the requests that they answer, what they keep of what arrives, and their sockets.

One JSON request a line on standard input, one answer a line on standard output. What arrives on the device named by the
first argument is kept, bounded, until taken. Waits are as many times longer as the second argument says.
"""
import errno, json, socket, struct, sys, threading, time

DEVICE = sys.argv[1]
PATIENCE = float(sys.argv[2]) if len(sys.argv) > 2 else 1
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


def in_background(work, *args):
    threading.Thread(target=work, args=args, daemon=True).start()


def keep(ethertype, least, port_of, describe):
    """Keeps descriptions of what arrives of a family, in packets of so many bytes at least, but for ports that are counted."""
    s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.ntohs(3))
    s.bind((DEVICE, 3))

    def watch():
        while True:
            try:
                data, address = s.recvfrom(65535)
            except OSError:
                # The link was taken away.
                return
            if address[2] == socket.PACKET_OUTGOING or address[1] != ethertype or len(data) < least:
                continue
            port = port_of(data)
            if port in counted:
                counted[port] += len(data)
                continue
            with kept_lock:
                if len(kept) < KEPT_MAX:
                    kept.append(describe(data))

    in_background(watch)


def answer(operations):
    """Answers requests until there are no more; `operations` has a function for each, by its name."""
    print(json.dumps({"result": "ready"}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            result = operations["op_" + request["op"]](request)
            print(json.dumps({"result": result}), flush=True)
        except Exception as e:
            print(json.dumps({"error": repr(e)}), flush=True)


def op_take(p):
    """What arrived, once it is at least `least` packets matching `match`, or the wait is over."""
    end = time.monotonic() + p.get("wait", 0.3) * PATIENCE
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


def op_count(p):
    counted[p["port"]] = 0


def op_counted(p):
    return counted[p["port"]]


def op_fault(p):
    """The name of the error that the kernel has noted for a kept socket, or none within the wait."""
    end = time.monotonic() + p.get("wait", 0.3)
    while True:
        fault = held[p["sport"]].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if fault != 0 or time.monotonic() > end:
            return errno.errorcode.get(fault, "none")
        time.sleep(0.01)


def said_of(attempt):
    """What an attempt gives, or the name of its error."""
    try:
        return attempt()
    except socket.timeout:
        return "timeout"
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e))


def with_sockets(family, anybody, spelt):
    """Operations with sockets of a family. `anybody`: its address of no host; `spelt`: how answers name an address and a port."""

    def opened(kind):
        s = socket.socket(family, kind)
        if family == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        return s

    def bound_as_asked(s, p):
        s.settimeout(p.get("timeout", 0.4) * PATIENCE)
        if "sport" in p:
            s.bind((p.get("source", anybody), p["sport"]))

    def op_listen(p):
        s = opened(socket.SOCK_STREAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((p.get("host", anybody), p["port"]))
        s.listen(16)

        def serve():
            while True:
                c, address = s.accept()
                c.sendall((spelt % address[:2]).encode())
                c.close()

        in_background(serve)

    def op_connect(p):
        """Gives what the listener saw of us, or the name of the error."""
        with opened(socket.SOCK_STREAM) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

            def attempt():
                bound_as_asked(s, p)
                s.connect((p["host"], p["port"]))
                return s.recv(100).decode()

            return said_of(attempt)

    def op_answer(p):
        s = opened(socket.SOCK_DGRAM)
        s.bind((p.get("host", anybody), p["port"]))

        def serve():
            while True:
                _, address = s.recvfrom(2000)
                s.sendto((spelt % address[:2]).encode(), address)

        in_background(serve)

    def op_ask(p):
        with opened(socket.SOCK_DGRAM) as s:

            def attempt():
                bound_as_asked(s, p)
                s.sendto(b"?", (p["host"], p["port"]))
                return s.recvfrom(100)[0].decode()

            return said_of(attempt)

    def op_hold(p):
        """Exchanges one datagram with who answers, and keeps the socket."""
        s = opened(socket.SOCK_DGRAM)
        s.settimeout(5)
        s.bind((anybody, p["sport"]))
        s.connect((p["host"], p["port"]))
        s.send(b"?")
        held[p["sport"]] = s
        return s.recv(100).decode()

    named = (op_listen, op_connect, op_answer, op_ask, op_hold)
    shared = (op_take, op_count, op_counted, op_fault)
    return {each.__name__: each for each in named + shared}
