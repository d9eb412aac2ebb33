#!/usr/bin/env python3
"""Records the captures in this directory: known traffic between two network namespaces of this machine, seen by its kernel.

Needs root, iproute2, tcpdump and openssl; reaches nothing but the two namespaces, which it removes again.
    ./record.py    records ethernet-ns.pcap, any-sll.pcap, any-sll2-snap96.pcap
What is sent is listed in main(); `fixtures.rs` counts the same.
"""

import ctypes
import os
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading

CLONE_NEWNET = 0x40000000
HERE = os.path.dirname(os.path.abspath(__file__))
A, B = f"weir-pcap-{os.getpid()}-a", f"weir-pcap-{os.getpid()}-b"
A4, B4, A6, B6 = "10.77.0.1", "10.77.0.2", "fd77::1", "fd77::2"


def run(*command):
    subprocess.run(command, check=True)


def ip(*arguments):
    run("ip", *arguments)


def set_up():
    for name in (A, B):
        ip("netns", "add", name)
    ip("link", "add", "weir0", "netns", A, "type", "veth", "peer", "name", "weir0", "netns", B)
    for name, v4, v6, overlay in ((A, A4, A6, "10.78.0.1"), (B, B4, B6, "10.78.0.2")):
        run("ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.all.router_solicitations=0")
        ip("-n", name, "addr", "add", f"{v4}/24", "dev", "weir0")
        ip("-n", name, "addr", "add", f"{v6}/64", "dev", "weir0", "nodad")
        ip("-n", name, "link", "set", "weir0", "addrgenmode", "none", "up")
        ip("-n", name, "link", "set", "lo", "up")
        remote = B4 if name == A else A4
        ip("-n", name, "link", "add", "vx42", "type", "vxlan", "id", "42", "dstport", "4789", "remote", remote, "local", v4)
        ip("-n", name, "link", "set", "vx42", "addrgenmode", "none")
        ip("-n", name, "addr", "add", f"{overlay}/24", "dev", "vx42")
        ip("-n", name, "link", "set", "vx42", "up")


def tear_down():
    for name in (A, B):
        subprocess.run(["ip", "netns", "del", name], check=False)


def enter(name):
    fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), name)
    os.close(fd)


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo(family, address, size, sequence):
    protocol, kind = (socket.IPPROTO_ICMP, 8) if family == socket.AF_INET else (socket.IPPROTO_ICMPV6, 128)
    with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
        raw.settimeout(5)
        body = struct.pack("!BBHHH", kind, 0, 0, 77, sequence) + bytes(size)
        if family == socket.AF_INET:
            body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
        raw.sendto(body, (address, 0))
        reply = 0 if family == socket.AF_INET else 129
        while True:
            data = raw.recv(65535)
            data = data[20:] if family == socket.AF_INET else data
            if data[0] == reply:
                return


def name_bytes(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def query(identifier, name, kind):
    return struct.pack("!HHHHHH", identifier, 0x0100, 1, 0, 0, 0) + name_bytes(name) + struct.pack("!HH", kind, 1)


def answer(question, kind):
    head = question[:2]
    if kind == 1:
        data = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes([192, 0, 2, 7])
        return head + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0) + question[12:] + data
    return head + struct.pack("!HHHHH", 0x8183, 1, 0, 0, 0) + question[12:]


def serve(ready, certificate):
    """In namespace B: DNS over UDP and TCP, HTTP, TLS, and a UDP sink."""
    enter(B)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((B4, 53))
    sinks = []
    for address in (B4, "10.78.0.2"):
        sinks.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sinks[-1].bind((address, 9000))
    tcp = socket.create_server((B4, 53))
    web = socket.create_server((B6, 80), family=socket.AF_INET6)
    tls = socket.create_server((B4, 443))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(["h2"])
    ready.set()
    for _ in range(3):
        question, client = udp.recvfrom(2000)
        kind = struct.unpack("!H", question[-4:-2])[0]
        if kind != 16:
            udp.sendto(answer(question, kind), client)
    connection, _ = tcp.accept()
    question = b""
    while len(question) < 2 or len(question) < 2 + struct.unpack("!H", question[:2])[0]:
        question += connection.recv(2000)
    message = answer(question[2:], 1)
    connection.sendall(struct.pack("!H", len(message)) + message)
    connection.recv(1)
    connection.close()
    connection, _ = web.accept()
    connection.recv(2000)
    connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
    connection.close()
    connection, _ = tls.accept()
    with context.wrap_socket(connection, server_side=True) as secured:
        secured.recv(100)
    for sink in sinks:
        sink.recvfrom(65535)


def tagged_frame(tags):
    payload = b"tagged"
    udp = struct.pack("!HHHH", 7000, 7001, 8 + len(payload), 0) + payload
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, bytes([10, 79, 0, 1]), bytes([10, 79, 0, 2]))
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01" + tags + b"\x08\0" + head + udp


def main():
    """In namespace A, in this order:

    3 echoes of 56 bytes and 2 of 3000 (in 3 fragments each way) over IPv4, 2 of 3000 over IPv6; 3 DNS queries over UDP, of which one is
    answered, one refused, one lost; one over TCP in two segments; one HTTP request over IPv6; one TLS connection for weir.example; one
    datagram of 4000 bytes (3 fragments); one of 10 bytes in VXLAN 42; one frame in VLAN 5 and one in VLAN 7 in 6.
    """
    for address, size, count in ((A4, 56, 3), (A4, 3000, 2)):
        for sequence in range(count):
            echo(socket.AF_INET, B4, size, sequence)
    for sequence in range(2):
        echo(socket.AF_INET6, B6, 3000, sequence)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dns:
        dns.connect((B4, 53))
        dns.settimeout(5)
        dns.send(query(1, "WWW.weir.example", 1))
        dns.recv(2000)
        dns.send(query(2, "www.weir.example", 28))
        dns.recv(2000)
        dns.send(query(3, "lost.weir.example", 16))
    with socket.create_connection((B4, 53)) as dns:
        dns.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        message = query(4, "tcp.weir.example", 1)
        message = struct.pack("!H", len(message)) + message
        dns.sendall(message[:9])
        dns.sendall(message[9:])
        dns.recv(2000)
    with socket.create_connection((B6, 80)) as web:
        web.sendall(b"GET / HTTP/1.1\r\nHost: weir.example\r\n\r\n")
        while web.recv(2000):
            pass
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    with context.wrap_socket(socket.create_connection((B4, 443)), server_hostname="weir.example") as secured:
        secured.sendall(b"x")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.sendto(bytes(4000), (B4, 9000))
        udp.sendto(bytes(10), ("10.78.0.2", 9000))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("weir0", 0))
        raw.send(tagged_frame(struct.pack("!HH", 0x8100, 5)))
        raw.send(tagged_frame(struct.pack("!HHHH", 0x88A8, 6, 0x8100, 7)))


def record(file, *options):
    tcpdump = subprocess.Popen(
        ["ip", "netns", "exec", A, "tcpdump", "--immediate-mode", "-B", "32768", "-nU", "-Z", "root", "-w", os.path.join(HERE, file), *options],
        stderr=subprocess.PIPE,
    )
    for line in tcpdump.stderr:
        if b"listening on" in line:
            return tcpdump
    sys.exit("tcpdump does not start")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        certificate = os.path.join(directory, "certificate.pem")
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=weir.example", "-days", "1",
            "-keyout", certificate + ".key", "-out", certificate + ".crt")
        with open(certificate, "wb") as out:
            for part in (".key", ".crt"):
                out.write(open(certificate + part, "rb").read())
        try:
            set_up()
            captures = [
                record("ethernet-ns.pcap", "-i", "weir0", "--time-stamp-precision=nano"),
                record("any-sll.pcap", "-i", "any", "-y", "LINUX_SLL"),
                record("any-sll2-snap96.pcap", "-i", "any", "-y", "LINUX_SLL2", "-s", "96"),
            ]
            ready = threading.Event()
            server = threading.Thread(target=serve, args=(ready, certificate))
            server.start()
            ready.wait()
            enter(A)
            main()
            server.join(10)
            for capture in captures:
                capture.terminate()
                if b"\n0 packets dropped by kernel" not in capture.stderr.read():
                    sys.exit("the kernel dropped packets: record again")
        finally:
            tear_down()
