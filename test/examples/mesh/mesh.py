"""Measures a slice from within: round-trip times by ICMP and a TCP transfer between every two members.

Each member serves a block of bytes and its own row of measurements on the TCP port that its lease owns, measures the way
to every other member, fetches the rows of the others and prints the whole matrix. Ends with 0 when it is complete.
"""
import os
import re
import socket
import subprocess
import sys
import threading
import time

BLOCK_BYTES = 256 * 1024
PATIENCE_SECONDS = 30


def members():
    """{name: (address, port)} of the whole slice, as the environment says."""
    places = {}
    for place in os.environ["SLICENET_MEMBERS"].split():
        name, where = place.split("=")
        address, port = where.rsplit(":", 1)
        places[name] = (address, int(port))
    return places


def own_name(places):
    own = (os.environ["SLICENET_ADDRESS"], int(os.environ["SLICENET_PORT"]))
    return next(name for name, place in places.items() if place == own)


class Server(threading.Thread):
    """Answers `BLOCK` with bytes and `ROW` with this member's measurements, once there are any."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.row = None
        self.ready = threading.Event()
        self.fetched = set()
        self.listener = socket.create_server(("0.0.0.0", port))

    def run(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def answer(self, connection):
        with connection:
            connection.settimeout(PATIENCE_SECONDS)
            command, _, who = connection.makefile().readline().strip().partition(" ")
            if command == "BLOCK":
                connection.sendall(bytes(BLOCK_BYTES))
            elif command == "ROW" and self.ready.wait(PATIENCE_SECONDS):
                connection.sendall(self.row.encode())
                self.fetched.add(who)


def ask(place, line):
    """Sends a line and reads to the end; patient, because members do not start at the same moment."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with socket.create_connection(place, timeout=5) as connection:
                connection.settimeout(PATIENCE_SECONDS)
                connection.sendall(line.encode())
                chunks = []
                while chunk := connection.recv(65536):
                    chunks.append(chunk)
                return b"".join(chunks)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def round_trip_ms(address):
    """The median round trip of five echoes, by ping(8) without privileges."""
    out = subprocess.run(
        ["ping", "-n", "-c", "5", "-i", "0.05", "-W", "2", address], capture_output=True, text=True, check=True
    ).stdout
    times = sorted(float(ms) for ms in re.findall(r"time=([0-9.]+) ms", out))
    return times[len(times) // 2]


def transfer_mbps(place):
    began = time.monotonic()
    received = len(ask(place, "BLOCK\n"))
    if received != BLOCK_BYTES:
        raise OSError(f"{received} of {BLOCK_BYTES} bytes came from {place[0]}:{place[1]}")
    return received * 8 / (time.monotonic() - began) / 1e6


def main():
    places = members()
    me = own_name(places)
    server = Server(places[me][1])
    server.start()
    others = [name for name in sorted(places) if name != me]
    for name in others:
        ask(places[name], "HELLO\n")
    cells = {me: "-"}
    for name in others:
        cells[name] = f"{round_trip_ms(places[name][0]):.2f} ms/{transfer_mbps(places[name]):.0f} Mbps"
    server.row = "\t".join(cells[name] for name in sorted(places))
    server.ready.set()
    rows = {me: server.row}
    for name in others:
        rows[name] = ask(places[name], f"ROW {me}\n").decode()
    width = 2 + max(len(cell) for row in rows.values() for cell in row.split("\t"))
    print("from \\ to".ljust(12) + "".join(name.ljust(width) for name in sorted(places)))
    for name in sorted(places):
        print(name.ljust(12) + "".join(cell.ljust(width) for cell in rows[name].split("\t")), flush=True)
    # Stay until everybody has this member's row.
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not server.fetched.issuperset(others) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    return 0 if server.fetched.issuperset(others) else 1


if __name__ == "__main__":
    sys.exit(main())
