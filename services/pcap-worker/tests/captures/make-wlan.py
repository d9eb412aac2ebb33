#!/usr/bin/env python3
"""Makes wlan-aggregated.pcap.gz: the packets of ethernet-ns.pcap as a wireless station and its access point would have sent them, in frames of
IEEE 802.11 with a radiotap header. What one side sends in a row, up to four packets, is one frame (A-MSDU); some frames end with their check
sequence. The flows are those of ethernet-ns.pcap; `fixtures.rs` compares them. tshark shows the same packets:
    tshark -r wlan-aggregated.pcap.gz -T fields -e frame.number -e wlan_aggregate.subframe_count -e ip.len -e ipv6.plen
"""

import gzip
import io
import os
import struct
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
MOST = 4
POINT = b"\x02\0\0\0\0\x50"
FLAGS, FCS_AT_END = 1 << 1, 0x10


def packets(path):
    with open(path, "rb") as file:
        data = file.read()
    at = 24
    while at < len(data):
        seconds, nanoseconds, kept, _ = struct.unpack_from("<IIII", data, at)
        yield (seconds, nanoseconds), data[at + 16 : at + 16 + kept]
        at += 16 + kept


def groups(frames):
    group = []
    for time, frame in frames:
        if group and (len(group) == MOST or group[-1][1][6:12] != frame[6:12]):
            yield group
            group = []
        group.append((time, frame))
    yield group


def packet(frame):
    """Without addresses: 802.2, SNAP and what the EtherType announces."""
    return b"\xaa\xaa\x03\0\0\0" + frame[12:]


def aggregate(frames):
    data = b""
    for frame in frames:
        data += b"\0" * (-len(data) % 4)
        inner = packet(frame)
        data += frame[:12] + struct.pack("!H", len(inner)) + inner
    return data


def wireless(number, frames, station):
    source = frames[0][6:12]
    to_point = source == station
    # Data with quality of service, to the access point or from it.
    control = struct.pack("<H", 0x0088 | (0x0100 if to_point else 0x0200))
    addresses = POINT + source + POINT if to_point else station + POINT + POINT
    several = len(frames) > 1
    header = control + b"\0\0" + addresses + struct.pack("<H", number % 4096 << 4) + (b"\x80\0" if several else b"\0\0")
    data = header + (aggregate(frames) if several else packet(frames[0]))
    has_check = number % 2 == 0
    if has_check:
        data += struct.pack("<I", zlib.crc32(data))
    return struct.pack("<BBHIB", 0, 0, 9, FLAGS, FCS_AT_END if has_check else 0) + data


def main():
    frames = list(packets(os.path.join(HERE, "ethernet-ns.pcap")))
    station = frames[0][1][6:12]
    out = io.BytesIO()
    out.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 127))
    for number, group in enumerate(groups(frames)):
        data = wireless(number, [frame for _, frame in group], station)
        out.write(struct.pack("<IIII", *group[0][0], len(data), len(data)) + data)
    with open(os.path.join(HERE, "wlan-aggregated.pcap.gz"), "wb") as file:
        file.write(gzip.compress(out.getvalue(), 9, mtime=0))


if __name__ == "__main__":
    main()
