#!/usr/bin/env python3
"""Records loss-sender.pcap.gz: a transfer between two network namespaces of this machine that loses three packets in a hundred behind the
place of capture, and beside it what the sender's kernel counted (tcp_info), the judge of what is read from the recording.

Needs root, iproute2, iptables and tcpdump; reaches nothing but the two namespaces, which it removes again.
"""

import ctypes
import gzip
import json
import os
import socket
import struct
import subprocess
import tempfile
import threading

CLONE_NEWNET = 0x40000000
HERE = os.path.dirname(os.path.abspath(__file__))
A, B = f"weir-loss-{os.getpid()}-a", f"weir-loss-{os.getpid()}-b"
A4, B4, PORT = "10.77.0.1", "10.77.0.2", 9000
# Offsets in struct tcp_info of linux/tcp.h.
UNACKED, TOTAL_RETRANS = 24, 100


def run(*command):
    subprocess.run(command, check=True)


def enter(name):
    fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), name)
    os.close(fd)


def set_up():
    for name in (A, B):
        run("ip", "netns", "add", name)
    run("ip", "link", "add", "weir0", "netns", A, "type", "veth", "peer", "name", "weir0", "netns", B)
    for name, address in ((A, A4), (B, B4)):
        run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "weir0")
        # One packet for each segment, as on a wire.
        run("ip", "-n", name, "link", "set", "weir0", "gso_max_segs", "1", "up")
    drop = f"iptables -A INPUT -p tcp --dport {PORT} -m statistic --mode random --probability 0.03 -j DROP"
    run("ip", "netns", "exec", B, *drop.split())


def sink(ready):
    enter(B)
    server = socket.create_server((B4, PORT))
    ready.set()
    connection, _ = server.accept()
    while connection.recv(1 << 20):
        pass


def send():
    """Sends, waits until all is acknowledged, and gives what the kernel counted."""
    enter(A)
    with socket.create_connection((B4, PORT)) as connection:
        for _ in range(60):
            connection.sendall(b"x" * 20_000)
        while True:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
            if struct.unpack_from("<I", info, UNACKED)[0] == 0:
                break
        return {"total_retrans": struct.unpack_from("<I", info, TOTAL_RETRANS)[0]}


def main():
    set_up()
    try:
        with tempfile.NamedTemporaryFile(suffix=".pcap") as recording:
            command = ["ip", "netns", "exec", A, "tcpdump", "-i", "weir0", "-s", "96", "--immediate-mode", "-U", "-Z", "root"]
            dump = subprocess.Popen([*command, "-w", recording.name, "tcp"], stderr=subprocess.PIPE, text=True)
            while "listening" not in dump.stderr.readline():
                pass
            ready = threading.Event()
            receiver = threading.Thread(target=sink, args=(ready,))
            receiver.start()
            ready.wait()
            result = []
            sender = threading.Thread(target=lambda: result.append(send()))
            sender.start()
            sender.join()
            receiver.join()
            # The last packets are with tcpdump once the file no longer grows.
            size = -1
            while size != os.path.getsize(recording.name):
                size = os.path.getsize(recording.name)
                threading.Event().wait(1)
            dump.terminate()
            dump.wait()
            with open(recording.name, "rb") as file, open(os.path.join(HERE, "loss-sender.pcap.gz"), "wb") as out:
                out.write(gzip.compress(file.read(), 9, mtime=0))
            with open(os.path.join(HERE, "loss-sender.kernel.json"), "w") as out:
                out.write(json.dumps(result[0]) + "\n")
    finally:
        for name in (A, B):
            subprocess.run(["ip", "netns", "del", name], check=False)


main()
