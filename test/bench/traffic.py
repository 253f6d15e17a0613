"""Sends on behalf of many network namespaces from one process, and reads what arrived, for the benchmark of the network.

One JSON request a line on standard input, one answer a line on standard output. A socket stays in the namespace that it was
made in, so that one loop paces all senders without a process for each.
"""
import ctypes, json, os, select, socket, sys, threading, time

CLONE_NEWNET = 0x40000000
SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20
TICK_SECONDS = 0.004
CHUNK = b"\0" * (256 * 1024)
libc = ctypes.CDLL(None, use_errno=True)


def within(namespace, work):
    """Does the work with this thread in another network namespace, a path."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        there = os.open(namespace, os.O_RDONLY)
        try:
            if libc.setns(there, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns %s" % namespace)
            return work()
        finally:
            libc.setns(own, CLONE_NEWNET)
            os.close(there)
    finally:
        os.close(own)


def datagrams(flows, host, port):
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(flows)]
    for each in sockets:
        each.setblocking(False)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
        each.connect((host, port))
    return sockets


def connections(flows, host, port):
    """Begun and not waited for: a hundred slices that greet at once have some of their first packets lost."""
    sockets = [socket.socket() for _ in range(flows)]
    for each in sockets:
        each.setblocking(False)
        each.connect_ex((host, port))
    return sockets


def frames(device):
    each = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    each.setblocking(False)
    each.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
    each.bind((device, 0))
    return [each]


class Crowd:
    """Senders of packets, each at its own pace, until told to stop."""

    def __init__(self):
        self.senders, self.sinks, self.thread, self.running = [], [], None, False

    def add(self, namespace, per_second, payload, flows=0, host="", port=0, device="", tcp=False):
        begin = connections if tcp else datagrams
        make = (lambda: frames(device)) if device else (lambda: begin(flows, host, port))
        self.senders.append([within(namespace, make), bytes.fromhex(payload), per_second, 0.0, 0])

    def start(self):
        self.running = True
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        before = time.monotonic()
        while self.running:
            time.sleep(TICK_SECONDS)
            now = time.monotonic()
            elapsed, before = min(now - before, 5 * TICK_SECONDS), now
            for sender in self.senders:
                sockets, payload, per_second, owed, turn = sender
                owed += per_second * elapsed
                while owed >= 1:
                    owed -= 1
                    turn = (turn + 1) % len(sockets)
                    try:
                        sockets[turn].send(payload)
                    except (BlockingIOError, ConnectionRefusedError, OSError):
                        pass
                sender[3], sender[4] = owed, turn

    def stop(self):
        self.running = False
        if self.thread is not None:
            self.thread.join()
        for sockets, *_ in self.senders:
            for each in sockets:
                each.close()
        self.senders = []


def received(namespace, device):
    """Bytes that a device has received, and when that was; monotonic seconds."""
    def look():
        with open("/proc/thread-self/net/dev") as table:
            for line in table:
                name, _, rest = line.partition(":")
                if name.strip() == device:
                    return {"bytes": int(rest.split()[0]), "at": time.monotonic()}
        raise OSError("no device %s" % device)
    return within(namespace, look)


def swallow(listener, counted, stop):
    """Reads what comes in one connection."""
    connection, _ = listener.accept()
    buffer = bytearray(1 << 20)
    while not stop.is_set():
        count = connection.recv_into(buffer)
        if count == 0:
            break
        counted[0] += count
    connection.close()


def throughput(sender, receiver, host, port, seconds):
    """Bytes a second of one TCP connection between two namespaces, its beginning left out."""
    def listen():
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1)
        return listener
    listener = within(receiver, listen)
    counted, stop = [0], threading.Event()
    reader = threading.Thread(target=swallow, args=(listener, counted, stop), daemon=True)
    reader.start()
    connection = within(sender, lambda: socket.create_connection((host, port), timeout=10))
    done = threading.Event()

    def write():
        try:
            while not done.is_set():
                connection.send(CHUNK)
        except OSError:
            pass
    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    time.sleep(seconds / 4)
    first, began = counted[0], time.monotonic()
    time.sleep(seconds)
    last, ended = counted[0], time.monotonic()
    done.set()
    stop.set()
    connection.close()
    listener.close()
    writer.join(5)
    reader.join(5)
    return (last - first) / (ended - began)


def sink(namespace, host, port):
    """Sockets that take what comes and keep nothing, so that nobody is told that it went nowhere."""
    def make():
        each = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        each.bind((host, port))
        listener = socket.socket()
        listener.bind((host, port))
        listener.listen(4096)
        return [each, listener]
    crowd.sinks = within(namespace, make)
    threading.Thread(target=drain, args=(crowd.sinks[1],), daemon=True).start()


def drain(listener):
    """Reads what comes in any number of connections."""
    poll, connections = select.epoll(), {}
    poll.register(listener, select.EPOLLIN)
    buffer = bytearray(1 << 20)
    while True:
        # Whoever wakes for every segment keeps the senders from the processor.
        time.sleep(TICK_SECONDS)
        for number, _ in poll.poll():
            if number == listener.fileno():
                connection, _ = listener.accept()
                connections[connection.fileno()] = connection
                poll.register(connection, select.EPOLLIN)
                continue
            try:
                if connections[number].recv_into(buffer) > 0:
                    continue
            except OSError:
                pass
            connections.pop(number).close()


crowd = Crowd()
ANSWERS = {
    "add": crowd.add,
    "start": crowd.start,
    "stop": crowd.stop,
    "sink": sink,
    "received": received,
    "throughput": throughput,
}
print(json.dumps({"result": None}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    try:
        result = ANSWERS[request.pop("op")](**request)
        print(json.dumps({"result": result}), flush=True)
    except Exception as error:
        print(json.dumps({"error": "%s: %s" % (type(error).__name__, error)}), flush=True)
