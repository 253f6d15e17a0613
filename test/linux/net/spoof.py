"""Sends frames as fast as exact counts allow, and counts marked ones that arrive; probing.py says how it is asked.

Of what arrives on the device each frame with a mark, `#` and five characters, is counted, by mark and source port.
"""
import socket, struct, sys, time

sys.dont_write_bytecode = True
import probing
from probing import checksum

DEVICE = probing.DEVICE
SOL_PACKET, PACKET_STATISTICS, PACKET_QDISC_BYPASS, SO_RCVBUFFORCE = 263, 6, 20, 33
MARK_LENGTH = 6
BURST = 32
seen = {}
sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))


def watch():
    while True:
        data, address = sniffer.recvfrom(2048)
        at = data.find(b"#")
        while at >= 0 and not data[at + 1:at + MARK_LENGTH].isalnum():
            at = data.find(b"#", at + 1)
        if at < 0 or address[2] == socket.PACKET_OUTGOING:
            continue
        ports = 34 if data[12:15] == b"\x08\x00\x45" and data[23] in (6, 17) else 54 if data[12:14] == b"\x86\xdd" and data[20] in (6, 17) else None
        port = 0 if ports is None else struct.unpack("!H", data[ports:ports + 2])[0]
        key = "%s:%d" % (data[at:at + MARK_LENGTH].decode(), port)
        seen[key] = seen.get(key, 0) + 1


def numbered(frame, number):
    """The frame with another identification in its IPv4 header of 20 bytes."""
    head = frame[14:18] + struct.pack("!H", number) + frame[20:24] + b"\0\0" + frame[26:34]
    return frame[:14] + head[:10] + struct.pack("!H", checksum(head)) + head[12:] + frame[34:]


def sender(how):
    """A function that sends a frame, or as much of it as the way of sending leaves to a program."""
    if how == "hdrincl":
        s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        return lambda frame: s.sendto(frame[14:], (socket.inet_ntoa(frame[30:34]), 0))
    if how == "dgram":
        s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
        return lambda frame: s.sendto(frame[14:], (DEVICE, struct.unpack("!H", frame[12:14])[0], 0, 0, frame[:6]))
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    s.bind((DEVICE, 0))
    if how == "bypass":
        s.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
    return s.send


def op_send(p):
    """Sends all frames in turn, `count` times; gives how many were sent."""
    send = sender(p.get("how", "packet"))
    frames = [bytes.fromhex(frame) for frame in p["frames"]]
    pause, varied = p.get("pause", 0.0002), p.get("varied", False)
    sent = 0
    for i in range(p["count"]):
        for frame in frames:
            try:
                send(numbered(frame, i & 0xFFFF) if varied else frame)
                sent += 1
            except OSError:
                # The vserver's own kernel would not take it.
                pass
        # Whoever sends without a pause fills the queue of the other end's processor, where frames are lost uncounted.
        if i % BURST == BURST - 1:
            time.sleep(pause)
    return sent


def op_seen(p):
    """What was counted, once it is `least` of `mark`, or the wait is over; and how many frames the sniffer lost."""
    end = time.monotonic() + p.get("wait", 0)
    while time.monotonic() < end:
        if sum(count for key, count in dict(seen).items() if key.startswith(p["mark"])) >= p["least"]:
            break
        time.sleep(0.005)
    lost = struct.unpack("II", sniffer.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
    return {"counts": dict(seen), "lost": lost}


def op_device(p):
    """The device's hardware address."""
    return sniffer.getsockname()[4].hex()


try:
    sniffer.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
except PermissionError:
    # Inside a vserver, where nothing is counted.
    pass
sniffer.bind((DEVICE, 3))
probing.in_background(watch)
probing.answer(globals())
