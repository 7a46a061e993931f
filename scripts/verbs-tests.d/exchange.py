#!/usr/bin/env python3
"""A program that knows nothing of us: small questions and answers for a while, then bulk.

usage: exchange.py serve|ask ADDRESS PORT SECONDS MEBIBYTES

The server takes one client. The client asks something small every 10 ms until the kernel's counters
say that something else carries the connection, for so many seconds at most; then so many MiB go to
the server, and as many back; whoever receives compares the sum of what came with what the other one
says. Ends with 0 if everything was right.
"""

import hashlib
import random
import socket
import struct
import sys
import time

PIECE = 256 << 10


def exactly(connection, count):
    data = bytearray()
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            sys.exit(f"the end came {count - len(data)} bytes early")
        data += part
    return bytes(data)


def send_bulk(connection, pieces):
    source, total = random.Random(time.monotonic_ns()), hashlib.sha256()
    for _ in range(pieces):
        piece = source.randbytes(PIECE)
        total.update(piece)
        connection.sendall(piece)
    connection.sendall(total.digest())


def receive_bulk(connection, pieces):
    total, rest = hashlib.sha256(), pieces * PIECE
    while rest:
        part = connection.recv(min(rest, PIECE))
        if not part:
            sys.exit(f"the end came {rest} bytes early")
        total.update(part)
        rest -= len(part)
    if exactly(connection, 32) != total.digest():
        sys.exit("other bytes came than were sent")


def serve(connection, pieces):
    while (question := exactly(connection, 8)) != b"thatsall":
        connection.sendall(question[::-1])
    receive_bulk(connection, pieces)
    send_bulk(connection, pieces)


def counted(connection):
    """What the kernel has received and sent, of its struct tcp_info."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 208)
    return struct.unpack_from("=Q", info, 128), struct.unpack_from("=Q", info, 200)


def ask(connection, pieces, seconds):
    end, number, still = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end and still < 5:
        number += 1
        before = counted(connection)
        question = struct.pack(">Q", number)
        connection.sendall(question)
        if exactly(connection, 8) != question[::-1]:
            sys.exit(f"a wrong answer to question {number}")
        still = still + 1 if counted(connection) == before else 0
        time.sleep(0.01)
    connection.sendall(b"thatsall")
    send_bulk(connection, pieces)
    receive_bulk(connection, pieces)
    print(f"{number} answers, and {2 * pieces * PIECE} bytes in bulk were right")


def main():
    role, address, port, seconds, mebibytes = sys.argv[1:]
    at, pieces = (address, int(port)), (int(mebibytes) << 20) // PIECE
    if role == "serve":
        with socket.create_server(at) as listener:
            connection, _ = listener.accept()
        with connection:
            serve(connection, pieces)
            # Not before the client has everything.
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
    else:
        with socket.create_connection(at) as connection:
            ask(connection, pieces, float(seconds))


main()
