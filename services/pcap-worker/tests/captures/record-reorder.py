#!/usr/bin/env python3
"""Records reorder-receiver.pcap.gz: a transfer between two network namespaces of this machine over a wire that holds one packet in twenty
back for less than half a round trip, so that others overtake it; recorded at its receiver. Beside it how many were overtaken and how many the sender's kernel sent again (tcp_info),
the judges of what is read from the recording.

Needs root, iproute2, ethtool and tcpdump; reaches nothing but its namespaces, which it removes again.
"""

import ctypes
import gzip
import heapq
import json
import os
import random
import select
import socket
import struct
import subprocess
import tempfile
import threading
import time

CLONE_NEWNET = 0x40000000
SOL_PACKET, PACKET_IGNORE_OUTGOING, ETH_P_ALL = 263, 23, 3
HERE = os.path.dirname(os.path.abspath(__file__))
A, B, WIRE = (f"weir-reorder-{os.getpid()}-{name}" for name in ("a", "b", "wire"))
A4, B4, PORT = "10.77.0.1", "10.77.0.2", 9000
DELAY, BYTES = 0.005, 600_000
# Offsets in struct tcp_info of linux/tcp.h.
UNACKED, TOTAL_RETRANS = 24, 100


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def enter(name):
    fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), name)
    os.close(fd)


def set_up():
    for name in (A, B, WIRE):
        run("ip", "netns", "add", name)
    for name, end, address in ((A, "weir1", A4), (B, "weir2", B4)):
        run("ip", "link", "add", "weir0", "netns", name, "type", "veth", "peer", "name", end, "netns", WIRE)
        run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "weir0")
        # One packet for each segment, with its checksum, as on a wire.
        run("ip", "netns", "exec", name, "ethtool", "-K", "weir0", "tx", "off", "gso", "off", "tso", "off", "gro", "off")
        run("ip", "-n", name, "link", "set", "weir0", "up")
        run("ip", "-n", WIRE, "link", "set", end, "up")


def wire(stop, ready, overtaken):
    """Carries frames between the namespaces; `overtaken` gets the number of each that comes behind a later one."""
    enter(WIRE)
    chance = random.Random(2)
    ends = []
    for name in ("weir1", "weir2"):
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        end.bind((name, ETH_P_ALL))
        end.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        ends.append(end)
    ready.set()
    waiting, number, latest = [], 0, 0
    while not stop.is_set():
        pause = max(0, min(0.05, waiting[0][0] - time.monotonic())) if waiting else 0.05
        for end in select.select(ends, [], [], pause)[0]:
            frame = end.recv(65536)
            delay = DELAY
            if end is ends[0] and len(frame) > 200 and chance.random() < 0.05:
                delay *= chance.choice((1.2, 1.4, 1.7))
            number += 1
            heapq.heappush(waiting, (time.monotonic() + delay, number, end is ends[0], frame))
        while waiting and waiting[0][0] <= time.monotonic():
            _, place, forward, frame = heapq.heappop(waiting)
            if forward and place < latest:
                overtaken.append(place)
            latest = max(latest, place if forward else 0)
            ends[1 if forward else 0].send(frame)


def sink(ready):
    enter(B)
    server = socket.create_server((B4, PORT))
    ready.set()
    connection, _ = server.accept()
    while connection.recv(1 << 20):
        pass


def send(result):
    """Sends, waits until all is acknowledged, and gives what the kernel counted."""
    enter(A)
    with socket.create_connection((B4, PORT)) as connection:
        connection.sendall(b"x" * BYTES)
        while True:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
            if struct.unpack_from("<I", info, UNACKED)[0] == 0:
                break
        result["total_retrans"] = struct.unpack_from("<I", info, TOTAL_RETRANS)[0]


def in_thread(function, *arguments):
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def main():
    stop, result, overtaken = threading.Event(), {}, []
    try:
        set_up()
        with tempfile.NamedTemporaryFile(suffix=".pcap") as recording:
            ready = [threading.Event(), threading.Event()]
            in_thread(wire, stop, ready[0], overtaken)
            command = ["ip", "netns", "exec", B, "tcpdump", "-i", "weir0", "-s", "128", "--immediate-mode", "-U", "-Z", "root"]
            dump = subprocess.Popen([*command, "-w", recording.name, "tcp"], stderr=subprocess.PIPE, text=True)
            while "listening" not in dump.stderr.readline():
                pass
            receiver = in_thread(sink, ready[1])
            for one in ready:
                one.wait()
            in_thread(send, result).join()
            receiver.join()
            # The last packets are with tcpdump once the file no longer grows.
            size = -1
            while size != os.path.getsize(recording.name):
                size = os.path.getsize(recording.name)
                threading.Event().wait(1)
            dump.terminate()
            dump.wait()
            stop.set()
            result["overtaken"] = len(overtaken)
            with open(recording.name, "rb") as file, open(os.path.join(HERE, "reorder-receiver.pcap.gz"), "wb") as out:
                out.write(gzip.compress(file.read(), 9, mtime=0))
            with open(os.path.join(HERE, "reorder-receiver.kernel.json"), "w") as out:
                out.write(json.dumps(result) + "\n")
    finally:
        stop.set()
        for name in (A, B, WIRE):
            subprocess.run(["ip", "netns", "del", name], check=False)


main()
