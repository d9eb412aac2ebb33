#!/usr/bin/env python3
"""Records finding-*.pcap.gz: one capture for each kind of finding, made by real stacks and programs between three network namespaces of
this machine. `findings.rs` says what each shows, and that it shows nothing else.

Needs root, iproute2, iptables, tcpdump, openssl, curl, ping, nmap, hping3 and iodine, for quic and http2 the Python packages aioquic and h2; reaches nothing but the namespaces, which it removes again.
    ./record-findings.py            records all
    ./record-findings.py NAME ...   records these

    A (10.77.0.1) ---- B (10.77.0.2; also 10.77.1.0/24 and 198.51.100.2) ---- C (203.0.113.2; a narrow link)
"""

import ctypes
import ftplib
import gzip
import imaplib
import multiprocessing
import os
import poplib
import random
import select
import signal
import smtplib
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time

CLONE_NEWNET = 0x40000000
HERE = os.path.dirname(os.path.abspath(__file__))
A, B, C = (f"weir-find-{os.getpid()}-{name}" for name in "abc")
A6, B6 = "fd77::1", "fd77::2"
A4, B4, FAR, OUT = "10.77.0.1", "10.77.0.2", "203.0.113.2", "198.51.100.2"


def run(*command, check=True):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.run(command, check=check, **quiet)


def ip(*arguments):
    run("ip", *arguments)


def inside(name, *command, check=True):
    run("ip", "netns", "exec", name, *command, check=check)


def enter(name):
    fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), name)
    os.close(fd)


def set_up():
    for name in (A, B, C):
        ip("netns", "add", name)
        inside(name, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        ip("-n", name, "link", "set", "lo", "up")
    ip("link", "add", "weir0", "netns", A, "type", "veth", "peer", "name", "weir0", "netns", B)
    ip("link", "add", "weir1", "netns", B, "type", "veth", "peer", "name", "weir1", "netns", C)
    for name, device, address in ((A, "weir0", A4), (B, "weir0", B4), (B, "weir1", "203.0.113.1"), (C, "weir1", FAR)):
        ip("-n", name, "addr", "add", f"{address}/25" if device == "weir1" else f"{address}/24", "dev", device)
        ip("-n", name, "link", "set", device, "up")
    ip("-n", B, "link", "set", "weir1", "mtu", "1300")
    ip("-n", A, "route", "add", "default", "via", B4)
    ip("-n", B, "route", "add", "default", "via", A4)
    ip("-n", C, "route", "add", "default", "via", "203.0.113.1")
    ip("-n", B, "route", "add", "local", "10.77.1.0/24", "dev", "lo")
    ip("-n", B, "addr", "add", f"{OUT}/32", "dev", "lo")
    ip("-n", B, "route", "add", "unreachable", "203.0.113.128/25")
    inside(A, "sysctl", "-qw", "net.ipv4.ip_forward=0")
    inside(B, "sysctl", "-qw", "net.ipv4.ip_forward=1")
    # No limit on how often a host may complain.
    inside(B, "sysctl", "-qw", "net.ipv4.icmp_ratelimit=0")


def tear_down():
    for name in (A, B, C):
        run("ip", "netns", "del", name, check=False)


class In:
    """Runs a function within a namespace, until it ends or is ended."""

    running = []

    def __init__(self, name, function, *arguments):
        self.ready = multiprocessing.Event()

        def work():
            enter(name)
            function(self.ready, *arguments)

        self.process = multiprocessing.Process(target=work)
        self.process.start()
        In.running.append(self)

    def wait(self):
        if not self.ready.wait(10):
            raise RuntimeError("a server does not start")
        return self

    def end(self):
        self.process.terminate()
        self.process.join()


def client(function, *arguments):
    """In A, to its end."""
    process = In(A, lambda ready, *arguments: function(*arguments), *arguments).process
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"{function.__name__} ended with {process.exitcode}")


def tcp_server(ready, port, answer, linger=False, address=""):
    server = socket.create_server((address, port), backlog=200)
    ready.set()

    def one(connection):
        with connection:
            answer(connection)
            if linger:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    while True:
        threading.Thread(target=one, args=(server.accept()[0],), daemon=True).start()


def drain(connection):
    while connection.recv(1 << 20):
        pass


def talk(address, port, request=b"hello", reply=True, pause=0.0):
    with socket.create_connection((address, port), timeout=10) as connection:
        connection.sendall(request)
        if reply:
            connection.recv(4096)
        time.sleep(pause)


def echo_once(connection):
    connection.recv(4096)
    connection.sendall(b"fine" * 30)
    connection.recv(4096)


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


# --- what happens -----------------------------------------------------------------------------------------------------------------


def port_scan_vertical():
    web = In(B, tcp_server, 80, echo_once).wait()
    inside(A, "nmap", "-n", "-Pn", "-sS", "-p", "1-100", "--max-retries", "0", B4)
    web.end()


def port_scan_horizontal():
    inside(A, "nmap", "-n", "-Pn", "-sS", "-p", "445", "--max-retries", "0", "10.77.1.1-40")


def brute_force_ssh():
    def refuse(connection):
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        connection.recv(200)
        connection.recv(200)

    def guess():
        for _ in range(25):
            with socket.create_connection((B4, 22)) as connection:
                connection.recv(200)
                connection.sendall(b"SSH-2.0-guess\r\n")
                time.sleep(0.02)
                connection.sendall(bytes(120))

    server = In(B, tcp_server, 22, refuse).wait()
    client(guess)
    server.end()


def brute_force_ftp():
    def refuse(connection):
        connection.sendall(b"220 ready\r\n")
        while line := connection.recv(200):
            answers = {b"USER": b"331 and the password?\r\n", b"QUIT": b"221 bye\r\n"}
            connection.sendall(answers.get(line[:4], b"530 Login incorrect.\r\n"))

    def guess():
        for word in ("one", "two", "three", "four", "five", "six", "seven"):
            with ftplib.FTP(B4) as ftp:
                try:
                    ftp.login("somebody", word)
                except ftplib.error_perm:
                    pass

    server = In(B, tcp_server, 21, refuse).wait()
    client(guess)
    server.end()


def brute_force_http():
    """Wrong passwords, each on a connection of its own."""
    def refuse(connection):
        while connection.recv(4096):
            connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"weir\"\r\nContent-Length: 2\r\n\r\nno")

    server = In(B, tcp_server, 80, refuse).wait()
    for word in range(7):
        inside(A, "curl", "-s", "-o", "/dev/null", "-u", f"somebody:{word}", f"http://{B4}/private")
    server.end()


def mail_server(greeting, answers, otherwise):
    """Answers each line by the command in it; an answer may hold the tag of IMAP."""
    def serve(connection):
        connection.sendall(greeting)
        with connection.makefile("rb") as lines:
            for line in lines:
                words = line.split()
                command = next((word for word in words[:2] if word.upper() in answers), None)
                answer = answers[command.upper()] if command else otherwise
                connection.sendall(answer.replace(b"TAG", words[0]) if words else otherwise)

    return serve


def brute_force_mail():
    """Wrong passwords for SMTP, IMAP and POP3, with the clients of Python; and for SMTP in the two steps that other clients make."""
    smtp = {b"EHLO": b"250-weir.example\r\n250 AUTH PLAIN LOGIN\r\n", b"AUTH": b"535 5.7.8 Error: authentication failed\r\n", b"QUIT": b"221 bye\r\n"}
    steps = {b"EHLO": smtp[b"EHLO"], b"LOGIN": b"334 VXNlcm5hbWU6\r\n", b"QUIT": smtp[b"QUIT"],
             b"C29TZWJVZHK=": b"334 UGFzc3dvcmQ6\r\n"}
    imap = {b"CAPABILITY": b"* CAPABILITY IMAP4rev1\r\nTAG OK done\r\n", b"LOGIN": b"TAG NO [AUTHENTICATIONFAILED] Authentication failed.\r\n",
            b"LOGOUT": b"* BYE\r\nTAG OK bye\r\n"}
    pop3 = {b"USER": b"+OK\r\n", b"PASS": b"-ERR [AUTH] Authentication failed.\r\n", b"QUIT": b"+OK bye\r\n"}
    servers = [
        In(B, tcp_server, 25, mail_server(b"220 weir.example ESMTP\r\n", smtp, b"500 what?\r\n")).wait(),
        In(B, tcp_server, 587, mail_server(b"220 weir.example ESMTP\r\n", steps, smtp[b"AUTH"])).wait(),
        In(B, tcp_server, 143, mail_server(b"* OK ready\r\n", imap, b"TAG BAD what?\r\n")).wait(),
        In(B, tcp_server, 110, mail_server(b"+OK ready\r\n", pop3, b"-ERR what?\r\n")).wait(),
    ]

    def in_steps(password):
        with socket.create_connection((B4, 587)) as connection:
            for line in (b"EHLO me", b"AUTH LOGIN", b"c29tZWJvZHk=", password, b"QUIT"):
                connection.recv(200)
                connection.sendall(line + b"\r\n")
            connection.recv(200)

    def guess():
        for word in ("one", "two", "three", "four", "five", "six", "seven"):
            with smtplib.SMTP(B4, 25) as session:
                try:
                    session.login("somebody", word)
                except smtplib.SMTPAuthenticationError:
                    pass
            in_steps(word.encode().hex().encode())
            session = imaplib.IMAP4(B4)
            try:
                session.login("somebody", word)
            except imaplib.IMAP4.error:
                pass
            session.logout()
            session = poplib.POP3(B4)
            try:
                session.user("somebody")
                session.pass_(word)
            except poplib.error_proto:
                pass
            session.quit()

    client(guess)
    for server in servers:
        server.end()


def syn_flood():
    web = In(B, tcp_server, 80, echo_once).wait()
    inside(A, "hping3", "-q", "-S", "-p", "80", "--rand-source", "-i", "u1000", "-c", "800", B4, check=False)
    web.end()


def udp_flood():
    inside(B, "iptables", "-A", "INPUT", "-p", "udp", "--dport", "4000", "-j", "DROP")

    def flood():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            for number in range(9000):
                udp.sendto(struct.pack("!I", number), (B4, 4000))

    client(flood)
    inside(B, "iptables", "-F")


def icmp_flood():
    inside(A, "ping", "-q", "-f", "-c", "700", "-s", "16", B4)


def amplification():
    def memcached(ready):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind((B4, 11211))
            ready.set()
            while True:
                request, who = udp.recvfrom(2000)
                for number in range(20):
                    head = request[:2] + struct.pack("!HHH", number, 20, 0)
                    udp.sendto(head + b"VALUE big 0 1000\r\n" + bytes(1000), who)

    def ask():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            for number in range(10):
                udp.sendto(struct.pack("!HHHH", number, 0, 1, 0) + b"get big\r\n", (B4, 11211))
                for _ in range(20):
                    udp.recv(2000)

    server = In(B, memcached).wait()
    client(ask)
    server.end()


def dns_tunnel():
    """iodine, with a transfer through its tunnel."""
    password = ["-P", "weir"]
    server = subprocess.Popen(["ip", "netns", "exec", B, "iodined", "-f", "-c", *password, "-l", B4, "-n", B4, "10.99.0.1/24", "t.weir.example"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)
    # -r: no raw datagrams, which are no DNS; -L0 and -m: as a resolver in between would force it.
    tunnel = subprocess.Popen(["ip", "netns", "exec", A, "iodine", "-f", *password, "-r", "-T", "TXT", "-m", "600", B4, "t.weir.example"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(3)
    inside(A, "ping", "-q", "-c", "60", "-i", "0.05", "-s", "400", "-p", "3f91c7d2a4e8", "10.99.0.1", check=False)
    for process in (tunnel, server):
        process.terminate()
        process.wait()


def beacon():
    server = In(B, tcp_server, 443, echo_once).wait()

    def call():
        for _ in range(12):
            began = time.monotonic()
            talk(OUT, 443, b"still here")
            time.sleep(5.1 - (time.monotonic() - began))

    client(call)
    server.end()


def exfiltration():
    server = In(B, tcp_server, 443, drain).wait()

    def send():
        with socket.create_connection((OUT, 443)) as connection:
            for _ in range(60):
                connection.sendall(bytes(1 << 20))

    client(send)
    server.end()


def icmp_tunnel():
    inside(B, "sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=1")

    def far_end(ready):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        ready.set()
        while True:
            data, who = raw.recvfrom(65535)
            data = data[20:]
            if data[0] == 8:
                body = struct.pack("!BBH", 0, 0, 0) + data[4:8] + random.randbytes(900)
                raw.sendto(body[:2] + struct.pack("!H", checksum(body)) + body[4:], who)

    def near_end():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        for sequence in range(30):
            body = struct.pack("!BBHHH", 8, 0, 0, 99, sequence) + random.randbytes(1200)
            raw.sendto(body[:2] + struct.pack("!H", checksum(body)) + body[4:], (B4, 0))
            time.sleep(0.01)

    server = In(B, far_end).wait()
    client(near_end)
    server.end()
    inside(B, "sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=0")


def lateral_movement():
    servers = [In(B, tcp_server, port, echo_once).wait() for port in (445, 3389)]

    def enter_all():
        for host in range(1, 8):
            talk(f"10.77.1.{host}", 445, bytes(300), pause=0.1)
            talk(f"10.77.1.{host}", 3389, bytes(300), pause=0.1)

    client(enter_all)
    for server in servers:
        server.end()


def address_conflict():
    """A second host with the address of B, on the same link."""
    ip("-n", B, "link", "add", "twin", "link", "weir0", "netns", C, "type", "macvlan", "mode", "bridge")
    ip("-n", C, "addr", "add", f"{B4}/24", "dev", "twin")
    ip("-n", C, "link", "set", "twin", "up")
    for _ in range(4):
        ip("-n", A, "neigh", "flush", "dev", "weir0")
        inside(A, "ping", "-q", "-c", "1", "-W", "1", B4, check=False)
    ip("-n", C, "link", "del", "twin")


def address_conflict_ipv6():
    """The same with neighbour discovery: a second host answers for B."""
    places = ((A, "weir0", A6), (B, "weir0", B6))
    for name, device, address in places:
        inside(name, "sysctl", "-qw", f"net.ipv6.conf.{device}.disable_ipv6=0")
        ip("-n", name, "addr", "add", f"{address}/64", "dev", device, "nodad")
    ip("-n", B, "link", "add", "twin", "link", "weir0", "netns", C, "type", "macvlan", "mode", "bridge")
    inside(C, "sysctl", "-qw", "net.ipv6.conf.twin.disable_ipv6=0")
    ip("-n", C, "addr", "add", f"{B6}/64", "dev", "twin", "nodad")
    ip("-n", C, "link", "set", "twin", "up")
    for _ in range(4):
        ip("-n", A, "-6", "neigh", "flush", "dev", "weir0")
        inside(A, "ping", "-6", "-q", "-c", "1", "-W", "1", B6, check=False)
    ip("-n", C, "link", "del", "twin")
    for name, device, _ in places:
        inside(name, "sysctl", "-qw", f"net.ipv6.conf.{device}.disable_ipv6=1")


def cleartext_credentials():
    def web(connection):
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    server = In(B, tcp_server, 80, web).wait()
    inside(A, "curl", "-s", "-u", "somebody:secret", f"http://{B4}/")
    server.end()


def tls_talks(certificate, key, times):
    """TLS 1.2, where certificates are not encrypted."""
    server = subprocess.Popen(["ip", "netns", "exec", B, "openssl", "s_server", "-quiet", "-tls1_2", "-accept", "443", "-cert", certificate, "-key", key],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.PIPE)
    time.sleep(0.5)
    talk_tls = ["ip", "netns", "exec", A, "openssl", "s_client", "-tls1_2", "-connect", f"{B4}:443", "-servername", "weir.example"]
    for _ in range(times):
        subprocess.run(talk_tls, input=b"", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, timeout=10)
    server.terminate()
    server.wait()


def certificate():
    with tempfile.TemporaryDirectory() as directory:
        files = ["-keyout", f"{directory}/key.pem", "-out", f"{directory}/cert.pem"]
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *files, "-days", "5", "-subj", "/CN=weir.example")
        tls_talks(f"{directory}/cert.pem", f"{directory}/key.pem", 1)


def of_authority(subject, begin, end, times):
    """A certificate of an authority, valid from and to so many days from now."""
    with tempfile.TemporaryDirectory() as directory:
        key = ["-newkey", "rsa:2048", "-nodes"]
        run("openssl", "req", "-x509", *key, "-keyout", f"{directory}/ca.key", "-out", f"{directory}/ca.pem", "-days", "900", "-subj", "/CN=Weir test authority")
        run("openssl", "req", "-new", *key, "-keyout", f"{directory}/key.pem", "-out", f"{directory}/request.pem", "-subj", subject)
        for name, content in (("index", ""), ("serial", "01\n")):
            with open(f"{directory}/{name}", "w", encoding="ascii") as file:
                file.write(content)
        with open(f"{directory}/ca.conf", "w", encoding="ascii") as file:
            file.write(f"[ca]\ndefault_ca=a\n[a]\ndatabase={directory}/index\nserial={directory}/serial\nnew_certs_dir={directory}\n"
                       "default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n")
        begin, end = (time.strftime("%y%m%d%H%M%SZ", time.gmtime(time.time() + days * 86400)) for days in (begin, end))
        run("openssl", "ca", "-batch", "-config", f"{directory}/ca.conf", "-cert", f"{directory}/ca.pem", "-keyfile", f"{directory}/ca.key",
            "-in", f"{directory}/request.pem", "-out", f"{directory}/cert.pem", "-notext", "-startdate", begin, "-enddate", end)
        tls_talks(f"{directory}/cert.pem", f"{directory}/key.pem", times)


def certificate_expired():
    """Of an authority, and over for ten days; asked for four times."""
    of_authority("/CN=old.weir.example", -100, -10, 4)


def certificate_expiring():
    of_authority("/CN=soon.weir.example", -80, 9.5, 2)


def certificate_self_signed():
    with tempfile.TemporaryDirectory() as directory:
        files = ["-keyout", f"{directory}/key.pem", "-out", f"{directory}/cert.pem"]
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *files, "-days", "400", "-subj", "/CN=own.weir.example")
        tls_talks(f"{directory}/cert.pem", f"{directory}/key.pem", 1)


def fragment(identification, offset, more, data):
    flags = (0x2000 if more else 0) | offset // 8
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(data), identification, flags, 64, 17, 0, socket.inet_aton(A4), socket.inet_aton(B4))
    return head + data


def raw_packets(packets):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for packet in packets:
            raw.sendto(packet, (B4, 0))


def fragments_overlap():
    first = struct.pack("!HHHH", 5000, 5001, 8 + 40, 0) + bytes(24)
    packets = [fragment(77, 0, True, first), fragment(77, 16, True, b"\xff" * 16), fragment(77, 32, False, bytes(16))]
    client(raw_packets, packets)


def fragments_incomplete():
    first = struct.pack("!HHHH", 5000, 5001, 2000, 0) + bytes(1000)
    client(raw_packets, [fragment(number, 0, True, first) for number in range(1, 7)])
    # B gives up after 30 s, and says so.
    time.sleep(32)


def retransmissions():
    """A lossy path, behind the place of capture."""
    ip("-n", A, "link", "set", "weir0", "gso_max_segs", "1")
    inside(B, "iptables", "-A", "INPUT", "-p", "tcp", "--dport", "9000", "-m", "statistic", "--mode", "random", "--probability", "0.05", "-j", "DROP")
    server = In(B, tcp_server, 9000, drain).wait()

    def send():
        with socket.create_connection((B4, 9000)) as connection:
            connection.sendall(bytes(1 << 20))

    client(send)
    time.sleep(1)
    server.end()
    inside(B, "iptables", "-F")
    ip("-n", A, "link", "set", "weir0", "gso_max_segs", "65535")


def zero_window():
    def lazy(connection):
        time.sleep(4)
        drain(connection)

    server = In(B, tcp_server, 9000, lazy).wait()

    def send():
        with socket.create_connection((B4, 9000)) as connection:
            connection.sendall(bytes(8 << 20))

    client(send)
    server.end()


def attempts(port, count, seconds):
    for _ in range(count):
        try:
            socket.create_connection((B4, port), timeout=seconds).close()
        except OSError:
            pass


def connection_unanswered():
    inside(B, "iptables", "-A", "INPUT", "-p", "tcp", "--dport", "9998", "-j", "DROP")
    client(attempts, 9998, 2, 3.5)
    inside(B, "iptables", "-F")


def connection_refused():
    client(attempts, 9999, 5, 1)


def connection_reset():
    server = In(B, tcp_server, 9000, lambda connection: connection.recv(100), True).wait()

    def call():
        for _ in range(14):
            try:
                talk(B4, 9000, bytes(90))
            except ConnectionResetError:
                pass

    client(call)
    server.end()


def dns_server(ready, behaviour):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind((B4, 53))
        ready.set()
        number = 0
        while True:
            question, who = udp.recvfrom(2000)
            number += 1
            code = behaviour(number)
            if code is not None:
                udp.sendto(question[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, 0, 0, 0) + question[12:], who)


def ask(count, seconds):
    for number in range(count):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            name = b"".join(bytes([len(label)]) + label for label in (b"host%d" % number, b"weir", b"example"))
            udp.sendto(struct.pack("!HHHHHH", number + 1, 0x0100, 1, 0, 0, 0) + name + b"\0" + struct.pack("!HH", 1, 1), (B4, 53))
            select.select([udp], [], [], seconds)


def dns(behaviour, seconds):
    server = In(B, dns_server, behaviour).wait()
    client(ask, 16, seconds)
    server.end()


def dns_unanswered():
    dns(lambda number: None if number % 3 == 0 else 0, 0.3)


def dns_failures():
    dns(lambda number: 2 if number % 3 == 0 else 0, 1)


def dns_nxdomain():
    dns(lambda number: 3 if number % 4 else 0, 1)


def dns_slow():
    dns(lambda number: time.sleep(0.7 if number % 4 == 0 else 0) or 0, 2)


def path_mtu():
    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            # IP_MTU_DISCOVER = 10, IP_PMTUDISC_PROBE = 3: do not fragment, and do not learn.
            udp.setsockopt(socket.IPPROTO_IP, 10, 3)
            for _ in range(3):
                udp.sendto(bytes(1400), (FAR, 5000))
                time.sleep(0.05)

    server = In(C, lambda ready: (ready.set(), time.sleep(60))).wait()
    client(send)
    server.end()


def path_mtu_black_hole():
    """The router says nothing, and the sender does not probe."""
    inside(B, "iptables", "-A", "OUTPUT", "-p", "icmp", "-j", "DROP")
    inside(A, "sysctl", "-qw", "net.ipv4.tcp_mtu_probing=0")
    # What was learned before.
    ip("-n", A, "route", "flush", "cache")
    server = In(C, tcp_server, 9000, echo_once).wait()

    def send():
        with socket.create_connection((FAR, 9000)) as connection:
            connection.sendall(b"small")
            connection.recv(4096)
            connection.sendall(bytes(1400))
            time.sleep(7)

    client(send)
    server.end()
    inside(B, "iptables", "-F")


def unreachable():
    inside(A, "ping", "-q", "-c", "5", "-i", "0.2", "-W", "1", "203.0.113.200", check=False)


def time_exceeded():
    inside(A, "ping", "-q", "-c", "5", "-i", "0.2", "-W", "1", "-t", "1", FAR, check=False)


def asymmetric_path():
    server = In(B, tcp_server, 9000, drain).wait()

    def call():
        for _ in range(6):
            with socket.create_connection((B4, 9000)) as connection:
                for _ in range(6):
                    connection.sendall(bytes(200))
                    time.sleep(0.02)

    client(call)
    server.end()


def stream(seconds, rate, silence):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect((B4, 40000))
        for number in range(int(seconds * rate)):
            try:
                udp.send(struct.pack("!I", number) + bytes(60))
            except ConnectionRefusedError:
                pass
            time.sleep(silence if number == int(seconds * rate / 2) else 1 / rate)


def sink(ready):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind((B4, 40000))
        ready.set()
        while udp.recv(2000):
            pass


def stream_gap():
    server = In(B, sink).wait()
    client(stream, 3, 100, 0.9)
    server.end()


def burst():
    servers = [In(B, sink).wait(), In(B, tcp_server, 9000, drain).wait()]

    def both():
        steady = threading.Thread(target=stream, args=(7, 20, 0.05))
        steady.start()
        time.sleep(3)
        with socket.create_connection((B4, 9000)) as connection:
            connection.sendall(bytes(8 << 20))
        steady.join()

    client(both)
    for server in servers:
        server.end()


def transfer_stalled():
    """For some seconds nothing of a transfer arrives."""
    server = In(B, tcp_server, 9000, drain).wait()

    def send():
        with socket.create_connection((B4, 9000)) as connection:
            connection.sendall(bytes(1 << 20))
            time.sleep(0.2)
            inside(B, "iptables", "-A", "INPUT", "-p", "tcp", "--dport", "9000", "-j", "DROP")
            connection.sendall(bytes(1 << 18))
            time.sleep(4)
            inside(B, "iptables", "-F")
            # The next try of the timer.
            time.sleep(5)

    client(send)
    server.end()


def transfer_paused():
    """A server that stops in the middle of its answer."""
    def slow(connection):
        connection.recv(4096)
        half = bytes(300_000)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 600000\r\nConnection: close\r\n\r\n" + half)
        time.sleep(4)
        connection.sendall(half)

    server = In(B, tcp_server, 80, slow).wait()
    inside(A, "curl", "-s", "-o", "/dev/null", f"http://{B4}/archive")
    server.end()


# --- what is healthy ----------------------------------------------------------------------------------------------------------------


def rtp():
    """Speech: every 20 ms, every tenth packet 6 ms late, two of them lost."""
    server = In(B, sink).wait()

    def speak():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.connect((B4, 40000))
            began = time.monotonic()
            for number in range(300):
                due = began + number * 0.02 + (0.006 if number % 10 == 0 else 0)
                time.sleep(max(0, due - time.monotonic()))
                if number not in (100, 205):
                    udp.send(struct.pack("!BBHII", 0x80, 0, number, number * 160, 7) + bytes(160))

    client(speak)
    server.end()


def quic():
    """Two requests of HTTP/3, each on a connection of its own; the second server first asks for proof of the client's address (Retry)."""
    import asyncio

    from aioquic.asyncio import QuicConnectionProtocol, connect, serve
    from aioquic.h3.connection import H3Connection
    from aioquic.h3.events import HeadersReceived
    from aioquic.quic.configuration import QuicConfiguration
    from aioquic.quic.events import ProtocolNegotiated

    class Talk(QuicConnectionProtocol):
        http = None

        def quic_event_received(self, event):
            if isinstance(event, ProtocolNegotiated):
                self.http = H3Connection(self._quic)
            for found in self.http.handle_event(event) if self.http else ():
                if isinstance(found, HeadersReceived):
                    self.headers(found.stream_id)

    class Server(Talk):
        def headers(self, stream):
            self.http.send_headers(stream, [(b":status", b"204")], end_stream=True)
            self.transmit()

    class Client(Talk):
        def headers(self, _stream):
            self.answered.set()

    def serving(ready, port, retry):
        async def run():
            configuration = QuicConfiguration(is_client=False, alpn_protocols=["h3"])
            configuration.load_cert_chain(certificate, key)
            await serve(B4, port, configuration=configuration, create_protocol=Server, retry=retry)
            ready.set()
            await asyncio.Event().wait()

        asyncio.run(run())

    async def ask():
        for port in (443, 8443):
            configuration = QuicConfiguration(alpn_protocols=["h3"], server_name="quic.weir.example", verify_mode=ssl.CERT_NONE)
            async with connect(B4, port, configuration=configuration, create_protocol=Client) as talk:
                talk.answered = asyncio.Event()
                stream = talk._quic.get_next_available_stream_id()
                talk.http.send_headers(stream, [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"quic.weir.example"), (b":path", b"/")], end_stream=True)
                talk.transmit()
                await talk.answered.wait()

    with tempfile.TemporaryDirectory() as directory:
        certificate, key = f"{directory}/cert.pem", f"{directory}/key.pem"
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", certificate, "-days", "5",
            "-subj", "/CN=quic.weir.example")
        servers = [In(B, serving, port, port == 8443).wait() for port in (443, 8443)]
        client(lambda: asyncio.run(ask()))
        for server in servers:
            server.end()


def http2():
    """HTTP/2 in the clear: three requests on one connection, the last two at once; one is answered late, and one refused."""
    from h2.connection import H2Connection
    from h2.config import H2Configuration
    from h2.events import RequestReceived, StreamEnded

    def serve(connection):
        session = H2Connection(H2Configuration(client_side=False))
        session.initiate_connection()
        connection.sendall(session.data_to_send())
        while data := connection.recv(65535):
            for event in session.receive_data(data):
                if isinstance(event, RequestReceived):
                    path = dict(event.headers)[b":path"]
                    time.sleep(0.2 if path == b"/late" else 0)
                    status = b"403" if path == b"/refused" else b"200"
                    session.send_headers(event.stream_id, [(b":status", status), (b"server", b"weir"), (b"content-length", b"4")])
                    session.send_data(event.stream_id, b"fine", end_stream=True)
            connection.sendall(session.data_to_send())

    def ask_for(session, connection, paths):
        for path in paths:
            head = [(b":method", b"GET"), (b":path", path), (b":scheme", b"http"), (b":authority", b"two.weir.example:8080"), (b"user-agent", b"weir")]
            session.send_headers(session.get_next_available_stream_id(), head, end_stream=True)
            connection.sendall(session.data_to_send())
        left = len(paths)
        while left:
            left -= sum(isinstance(event, StreamEnded) for event in session.receive_data(connection.recv(65535)))
            connection.sendall(session.data_to_send())

    def call():
        with socket.create_connection((B4, 8080)) as connection:
            session = H2Connection(H2Configuration())
            session.initiate_connection()
            ask_for(session, connection, [b"/first"])
            ask_for(session, connection, [b"/late", b"/refused"])

    server = In(B, tcp_server, 8080, serve).wait()
    client(call)
    server.end()


def any_interface():
    """All interfaces of a router: each packet comes in and goes out."""
    server = In(C, tcp_server, 9000, echo_once).wait()

    def call():
        for _ in range(5):
            talk(FAR, 9000, bytes(500))
        for number in range(5):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                udp.sendto(bytes([number]), (FAR, 9001))

    client(call)
    server.end()


def silences():
    """A connection at rest between its requests, and a server that thinks."""
    def think(connection):
        while request := connection.recv(4096):
            time.sleep(2.5 if request == b"think" else 0)
            connection.sendall(bytes(400))

    server = In(B, tcp_server, 9000, think).wait()

    def call():
        with socket.create_connection((B4, 9000)) as connection:
            for request, rest in ((b"hello", 1.7), (b"think", 0), (b"hello", 1.4), (b"hello", 0)):
                connection.sendall(request)
                connection.recv(4096)
                time.sleep(rest)

    client(call)
    server.end()


def one_way_datagrams():
    """The answers of a DNS server, and not the questions."""
    dns(lambda number: 0, 1)


def rhythm():
    """Connections every half second, and others whenever it pleases."""
    servers = [In(B, tcp_server, port, echo_once).wait() for port in (9000, 9001)]

    def steady():
        for number in range(14):
            talk(B4, 9000)
            time.sleep(max(0, began + 0.5 * (number + 1) - time.monotonic()))

    def whenever():
        for pause in (0.05, 0.9, 0.1, 1.6, 0.02, 0.4, 0.03, 1.2, 0.07, 0.6, 0.01, 0.8, 0.2, 0.3):
            talk(B4, 9001)
            time.sleep(pause)

    began = time.monotonic()
    both = [In(A, lambda ready, work=work: work()) for work in (steady, whenever)]
    for one in both:
        one.process.join()
    for server in servers:
        server.end()


# How connections stand when the capture ends: nobody closes them before.


def open_connection(after=lambda connection: None):
    """In A, with a question and its answer; then it stays open."""
    server = In(B, tcp_server, 9000, lambda connection: (connection.recv(100), connection.sendall(b"yes"), time.sleep(1000))).wait()

    def call(ready):
        connection = socket.create_connection((B4, 9000))
        connection.sendall(b"hello")
        connection.recv(100)
        after(connection)
        ready.set()
        time.sleep(1000)

    In(A, call).wait()
    return server


def state_idle():
    open_connection()
    # What is silent for five minutes is given up by the next packet.
    time.sleep(302)
    inside(A, "ping", "-q", "-c", "1", B4)


def state_zombie():
    def keep_alive(connection):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
            connection.setsockopt(socket.IPPROTO_TCP, option, 5)

    open_connection(keep_alive)
    time.sleep(80)


def state_half_closed():
    open_connection(lambda connection: connection.shutdown(socket.SHUT_WR))


def state_half_open():
    """The answer to the SYN reaches the host, and not its TCP."""
    inside(A, "iptables", "-A", "INPUT", "-p", "tcp", "--sport", "9000", "-j", "DROP")
    In(B, tcp_server, 9000, echo_once).wait()
    client(attempts, 9000, 2, 0.5)
    # The answers that are sent again, too, until the capture ends.
    time.sleep(1)


# What happens, bytes kept of each packet, what is captured of it, and where.
SCENES = {
    port_scan_vertical: (80, [], A, "weir0"),
    port_scan_horizontal: (80, [], A, "weir0"),
    brute_force_ssh: (0, [], A, "weir0"),
    brute_force_ftp: (0, [], A, "weir0"),
    brute_force_http: (0, ["tcp"], A, "weir0"),
    brute_force_mail: (0, ["tcp"], A, "weir0"),
    syn_flood: (60, [], A, "weir0"),
    udp_flood: (46, [], A, "weir0"),
    icmp_flood: (60, [], A, "weir0"),
    amplification: (80, [], A, "weir0"),
    dns_tunnel: (300, ["port", "53"], A, "weir0"),
    beacon: (0, [], A, "weir0"),
    exfiltration: (66, [], A, "weir0"),
    icmp_tunnel: (0, [], A, "weir0"),
    lateral_movement: (0, [], A, "weir0"),
    address_conflict: (0, [], A, "weir0"),
    address_conflict_ipv6: (0, ["icmp6"], A, "weir0"),
    cleartext_credentials: (0, [], A, "weir0"),
    certificate: (0, [], A, "weir0"),
    certificate_expired: (0, [], A, "weir0"),
    certificate_expiring: (0, [], A, "weir0"),
    certificate_self_signed: (0, [], A, "weir0"),
    fragments_overlap: (0, [], A, "weir0"),
    fragments_incomplete: (80, [], A, "weir0"),
    retransmissions: (80, [], A, "weir0"),
    zero_window: (80, [], A, "weir0"),
    connection_unanswered: (0, [], A, "weir0"),
    connection_refused: (0, [], A, "weir0"),
    connection_reset: (0, [], A, "weir0"),
    dns_unanswered: (0, [], A, "weir0"),
    dns_failures: (0, [], A, "weir0"),
    dns_nxdomain: (0, [], A, "weir0"),
    dns_slow: (0, [], A, "weir0"),
    path_mtu: (0, [], A, "weir0"),
    path_mtu_black_hole: (0, [], A, "weir0"),
    unreachable: (0, [], A, "weir0"),
    time_exceeded: (0, [], A, "weir0"),
    asymmetric_path: (0, ["src", "host", A4], A, "weir0"),
    stream_gap: (60, [], A, "weir0"),
    burst: (66, [], A, "weir0"),
    transfer_stalled: (80, ["tcp"], A, "weir0"),
    transfer_paused: (160, ["tcp"], A, "weir0"),
    rtp: (60, [], A, "weir0"),
    quic: (0, ["udp"], A, "weir0"),
    http2: (0, ["tcp"], A, "weir0"),
    any_interface: (0, ["ip"], B, "any"),
    silences: (0, ["tcp"], A, "weir0"),
    one_way_datagrams: (0, ["src", "host", B4], A, "weir0"),
    rhythm: (0, ["tcp"], A, "weir0"),
    state_idle: (0, ["ip"], A, "weir0"),
    state_zombie: (0, ["tcp"], A, "weir0"),
    state_half_closed: (0, ["tcp"], A, "weir0"),
    state_half_open: (0, ["tcp"], A, "weir0"),
}


def record(scene):
    length, expression, place, device = SCENES[scene]
    name = f"finding-{scene.__name__.replace('_', '-')}.pcap"
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, name)
        command = ["ip", "netns", "exec", place, "tcpdump", "--immediate-mode", "-i", device, "-s", str(length), "-B", "16384", "-Z", "root", "-w", path, *expression]
        dump = subprocess.Popen(command, stderr=subprocess.PIPE)
        while b"listening" not in dump.stderr.readline():
            if dump.poll() is not None:
                raise RuntimeError("tcpdump does not start")
        try:
            scene()
            time.sleep(0.3)
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return False
        finally:
            dump.send_signal(signal.SIGINT)
            dump.communicate()
            while In.running:
                In.running.pop().end()
            for place in (A, B):
                inside(place, "iptables", "-F")
        with open(path, "rb") as file:
            data = file.read()
    with open(os.path.join(HERE, name + ".gz"), "wb") as file:
        file.write(gzip.compress(data, 9, mtime=0))
    print(f"{name}.gz: {len(data)} bytes", flush=True)
    return True


def main():
    wanted = [scene for scene in SCENES if not sys.argv[1:] or scene.__name__ in sys.argv[1:]]
    try:
        set_up()
        failed = [scene.__name__ for scene in wanted if not record(scene)]
        if failed:
            sys.exit(f"not recorded: {' '.join(failed)}")
    finally:
        tear_down()


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    main()
