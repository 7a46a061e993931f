"""What is measured of unmodified programs: each load prints figures of its own, and we take those."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import time

import cases
from runner import FIELD, Broken, cpu_time, free_port

HOST = cases.HOST
LOADS = {}
# In KiB; what is asked for lies between a page and a file.
PAGE = 64


class Figure:
    """`more`: whether more is better. `target`: the ratio to plain that is wanted over the SAN."""

    def __init__(self, text, unit, more=True, target=None):
        self.text, self.unit, self.more, self.target = text, unit, more, target


class Load:
    def __init__(self, function, needs, figures):
        self.run, self.needs, self.figures = function, needs, figures

    def missing(self):
        return ", ".join(name for name in self.needs if not cases.find(name))


def load(needs, **figures):
    def enter(function):
        LOADS[function.__name__.replace("_", "-")] = Load(function, needs, figures)
        return function

    return enter


class Taken:
    """The figures of one run, and for each the share of its bytes that went over the SAN."""

    def __init__(self, run):
        self.run, self.values, self.shares = run, {}, {}
        self.seen = 0

    def share(self):
        """Of the connections that have ended since the last time, by the library's own lines."""
        if not self.run.log.exists():
            return None
        text = self.run.log.read_text()
        lines, self.seen = text[self.seen:].splitlines(), len(text)
        kernel = san = 0
        for line in lines:
            if line.startswith("end "):
                fields = dict(FIELD.findall(line))
                kernel += int(fields["tcp_in"]) + int(fields["tcp_out"])
                san += int(fields["san_in"]) + int(fields["san_out"])
        return san / (kernel + san) if kernel + san else None

    def __call__(self, **values):
        share = self.share()
        for name, value in values.items():
            self.values[name], self.shares[name] = value, share

    def forget(self):
        """What came before was no load."""
        self.share()


# ---------------------------------------------------------------- iperf3


def iperf(run, taken, name, *options):
    port = free_port()
    server = run.server("iperf3", "-s", "-p", port, "--one-off", "--forceflush", port=port)
    report = json.loads(run.client("iperf3", "-c", HOST, "-p", port, "-t", 2, "-J", *options))
    run.wait_for(lambda: server.poll() is not None, "the server of iperf3 does not end")
    sums = [report["end"].get(way, {"bits_per_second": 0}) for way in ("sum_received", "sum_received_bidir_reverse")]
    taken(**{name: sum(way["bits_per_second"] for way in sums) / 8e6})


@load(["iperf3"], one=Figure("iperf3, one stream", "MB/s", target=3))
def iperf3(run, taken):
    iperf(run, taken, "one")


@load(["iperf3"], four=Figure("iperf3 -P 4", "MB/s", target=3))
def iperf3_four(run, taken):
    iperf(run, taken, "four", "-P", "4")


@load(["iperf3"], reverse=Figure("iperf3 -R", "MB/s", target=3))
def iperf3_reverse(run, taken):
    iperf(run, taken, "reverse", "-R")


@load(["iperf3"], both=Figure("iperf3 --bidir, both ways together", "MB/s", target=3))
def iperf3_both(run, taken):
    iperf(run, taken, "both", "--bidir")


# ---------------------------------------------------------------- redis


def benchmark(run, port, count, *options):
    """Requests each second and the median time, of SET and GET."""
    table = run.client("redis-benchmark", "-p", port, "-n", count, "-t", "set,get", "--csv", *options)
    rows = [[cell.strip('"') for cell in line.split(",")] for line in table.splitlines() if line]
    head = rows[0]
    return {row[0].lower(): (float(row[head.index("rps")]), 1000 * float(row[head.index("p50_latency_ms")]))
            for row in rows[1:]}


def redis_load(run, taken, count, *options):
    port, server = cases.redis_server(run)
    taken.forget()
    got = benchmark(run, port, count, *options)
    taken(set=got["set"][0], set_p50=got["set"][1], get=got["get"][0], get_p50=got["get"][1])
    run.stop(server)


@load(["redis-server", "redis-benchmark"],
      set=Figure("redis SET, 50 clients", "req/s", target=1.5),
      get=Figure("redis GET, 50 clients", "req/s", target=1.5),
      set_p50=Figure("redis SET, 50 clients, p50", "µs", more=False, target=0.5),
      get_p50=Figure("redis GET, 50 clients, p50", "µs", more=False, target=0.5))
def redis(run, taken):
    redis_load(run, taken, 60_000, "-c", "50")


@load(["redis-server", "redis-benchmark"],
      set=Figure("redis SET, 1 client", "req/s"),
      get=Figure("redis GET, 1 client", "req/s"),
      set_p50=Figure("redis SET, 1 client, p50", "µs", more=False),
      get_p50=Figure("redis GET, 1 client, p50", "µs", more=False))
def redis_one(run, taken):
    redis_load(run, taken, 30_000, "-c", "1")


@load(["redis-server", "redis-benchmark"],
      set=Figure("redis SET, 50 clients, 16 in flight each", "req/s"),
      get=Figure("redis GET, 50 clients, 16 in flight each", "req/s"),
      set_p50=Figure("redis SET, 16 in flight, p50", "µs", more=False),
      get_p50=Figure("redis GET, 16 in flight, p50", "µs", more=False))
def redis_pipelined(run, taken):
    redis_load(run, taken, 400_000, "-c", "50", "-P", "16")


# ---------------------------------------------------------------- web servers

TIME = re.compile(r"50%\s+([\d.]+)(us|ms|s)")


def wrk(run, port, page, clients=16):
    text = run.client("wrk", "-t", 1, "-c", clients, "-d", "2s", "--latency", f"http://{HOST}:{port}/{page}")
    if "Socket errors" in text or "Non-2xx" in text:
        raise Broken(text)
    number, unit = TIME.search(text).groups()
    p50 = float(number) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]
    return float(text.split("Requests/sec:")[1].split()[0]), p50


def documents(run, large=0):
    folder = run.folder / "www"
    folder.mkdir()
    sizes = {"small": 1000, "page": PAGE << 10, "large": large}
    for name, length in sizes.items():
        (folder / name).write_bytes(cases.noise(length, name))
    folder.chmod(0o755)
    run.folder.chmod(0o755)
    return folder


def nginx_server(run, workers):
    port, www = free_port(), documents(run)
    user = "user root;" if os.geteuid() == 0 else ""
    config = run.folder / "nginx.conf"
    config.write_text(textwrap.dedent(f"""
        {user} worker_processes {workers}; daemon off; pid {run.folder}/pid; error_log {run.folder}/error.log;
        events {{ worker_connections 512; }}
        http {{
            access_log off; sendfile on; keepalive_requests 1000000; client_body_temp_path {run.folder};
            proxy_temp_path {run.folder}; fastcgi_temp_path {run.folder}; uwsgi_temp_path {run.folder};
            scgi_temp_path {run.folder};
            server {{ listen {HOST}:{port}; root {www}; }}
        }}
    """))
    return port, run.server(cases.find("nginx"), "-p", run.folder, "-c", config, port=port)


@load(["nginx", "wrk"],
      small=Figure("nginx and wrk, 1 kB", "req/s", target=1.3),
      small_p50=Figure("nginx and wrk, 1 kB, p50", "µs", more=False),
      page=Figure(f"nginx and wrk, {PAGE} KiB", "req/s", target=1.3),
      page_p50=Figure(f"nginx and wrk, {PAGE} KiB, p50", "µs", more=False))
def nginx(run, taken):
    port, server = nginx_server(run, 2)
    for page in ("small", "page"):
        rate, p50 = wrk(run, port, page)
        taken(**{page: rate, f"{page}_p50": p50})
    run.stop(server, signal.SIGQUIT)


@load(["nginx", "ab"], rate=Figure("10,000 short connections, nginx and ab", "conn/s", target=0.95))
def short_connections(run, taken):
    def rate(count, logged):
        text = run.client("ab", "-q", "-n", count, "-c", 8, f"http://{HOST}:{port}/small", logged=logged)
        if int(text.split("Failed requests:")[1].split()[0]):
            raise Broken(text)
        return float(text.split("Requests per second:")[1].split()[0])

    port, server = nginx_server(run, 1)
    # A line in a file for each connection would cost more than the connection: the share is of some
    # more of them.
    measured = rate(10_000, logged=False)
    rate(1_000, logged=True)
    taken(rate=measured)
    run.stop(server, signal.SIGQUIT)


def download(run, taken, port):
    said = run.client("curl", "-sS", "--fail", "-o", "/dev/null", "-w", "%{speed_download} %{size_download}",
                      f"http://{HOST}:{port}/large").split()
    if int(said[1]) != LARGE:
        raise Broken(f"{said[1]} bytes arrived")
    taken(rate=float(said[0]) / 1e6)


LARGE = 600_000_000


@load(["curl"], rate=Figure("python3 -m http.server and curl, 600 MB", "MB/s"))
def http_server(run, taken):
    port, www = free_port(), documents(run, LARGE)
    server = run.server(sys.executable, "-m", "http.server", port, "--bind", HOST, port=port, cwd=www)
    download(run, taken, port)
    run.stop(server)


@load(["node", "wrk", "curl"],
      small=Figure("node http and wrk, 1 kB", "req/s"),
      small_p50=Figure("node http and wrk, 1 kB, p50", "µs", more=False),
      rate=Figure("node http and curl, 600 MB", "MB/s"))
def node(run, taken):
    port, www = free_port(), documents(run, LARGE)
    program = (f"const fs = require('fs'), small = fs.readFileSync('{www}/small');"
               f"require('http').createServer((q, r) => q.url == '/small' ? r.end(small) :"
               f"fs.createReadStream('{www}' + q.url).pipe(r)).listen({port}, '{HOST}')")
    server = run.server("node", "-e", program, port=port)
    rate, p50 = wrk(run, port, "small")
    taken(small=rate, small_p50=p50)
    download(run, taken, port)
    run.stop(server)


# ---------------------------------------------------------------- small servers of many shapes

# Turns of one kilobyte for a while, and then much both ways, which come back; says how many in a
# second, and how many megabytes of the echo.
TURNS = '''
import socket, ssl, sys, threading, time
stream = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
length, secret = int(sys.argv[2]), sys.argv[3:] == ["tls"]
if secret:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    stream = context.wrap_socket(stream)
room = memoryview(bytearray(1 << 18))
def take(count):
    while count:
        got = stream.recv_into(room[:min(count, len(room))])
        assert got
        count -= got
question = bytes(1000)
begin, turns = time.perf_counter(), 0
while time.perf_counter() < begin + 0.8:
    stream.sendall(question)
    take(len(question))
    turns += 1
rate = turns / (time.perf_counter() - begin)
piece = bytes(1 << 16)
def write():
    for _ in range(length >> 16):
        stream.sendall(piece)
begin = time.perf_counter()
if secret:
    # One thread has a TLS connection at a time.
    for _ in range(length >> 16):
        stream.sendall(piece)
        take(len(piece))
else:
    thread = threading.Thread(target=write)
    thread.start()
    take(length >> 16 << 16)
    thread.join()
print(rate, length / 1e6 / (time.perf_counter() - begin))
'''


def echoes(run, taken, server, port, length, *more):
    script = cases.script(run, "turns.py", TURNS)
    turns, bulk = map(float, run.client(sys.executable, script, port, length, *more).split())
    taken(turns=turns, bulk=bulk)
    run.stop(server)


def echo_server(run, mixin):
    port = free_port()
    script = cases.script(run, "echo.py", cases.ECHO.format(mixin=mixin))
    # What counts is what the client says of its connection.
    return run.server(sys.executable, script, port, port=port, aside=True), port


@load([], turns=Figure("socketserver, threads, 1 kB to and fro", "turns/s"),
      bulk=Figure("socketserver, threads, echo of 400 MB", "MB/s"))
def socketserver_threads(run, taken):
    server, port = echo_server(run, "ThreadingMixIn")
    echoes(run, taken, server, port, 400_000_000)


@load([], turns=Figure("socketserver, processes, 1 kB to and fro", "turns/s"),
      bulk=Figure("socketserver, processes, echo of 400 MB", "MB/s"))
def socketserver_forks(run, taken):
    server, port = echo_server(run, "ForkingMixIn")
    echoes(run, taken, server, port, 400_000_000)


@load(["openssl"], turns=Figure("asyncio and TLS, 1 kB to and fro", "turns/s"),
      bulk=Figure("asyncio and TLS, echo of 100 MB", "MB/s"))
def asyncio_tls(run, taken):
    port = free_port()
    server = run.server(sys.executable, cases.script(run, "tls.py", cases.TLS), port, cases.certificate(run),
                        port=port, aside=True)
    echoes(run, taken, server, port, 100_000_000, "tls")


def timed(run, length, *command, **more):
    """Megabytes a second of a program from its start to its end."""
    begin = time.monotonic()
    run.client(*command, **more)
    return length / 1e6 / (time.monotonic() - begin)


@load(["socat"], rate=Figure("socat, a file of 1.5 GB", "MB/s"))
def socat(run, taken):
    port, length, source = free_port(), 1_500_000_000, run.folder / "source"
    # A hole: the pages of a file that is read again and again are in memory, too.
    with source.open("wb") as file:
        file.truncate(length)
    server = run.server("socat", "-u", "-b", "65536", f"TCP-LISTEN:{port},bind={HOST},reuseaddr",
                        "OPEN:/dev/null", port=port, aside=True)
    rate = timed(run, length, "socat", "-u", "-b", "65536", f"OPEN:{source}", f"TCP:{HOST}:{port}")
    run.wait_for(lambda: server.poll() is not None, "the receiving socat does not end")
    taken(rate=rate)


@load(["sshd", "ssh", "scp", "ssh-keygen"], copy=Figure("scp, 300 MB", "MB/s"),
      session=Figure("ssh, a session with one command", "ms", more=False))
def scp(run, taken):
    server, port, options, user = cases.ssh_server(run)
    begin = time.monotonic()
    for _ in range(3):
        run.client("ssh", "-p", port, *options, f"{user}@{HOST}", "true")
    taken(session=1000 * (time.monotonic() - begin) / 3)
    length, source = 300_000_000, run.folder / "source"
    source.write_bytes(cases.noise(length, "scp"))
    taken(copy=timed(run, length, "scp", "-q", "-P", port, *options, source, f"{user}@{HOST}:/dev/null"))
    run.stop(server)


# A connection for each question; the program that answers one is started for it.
MANY = '''
import socket, sys, time
begin, count = time.perf_counter(), 0
while time.perf_counter() < begin + 1.2:
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as stream:
        stream.sendall(b"question")
        stream.shutdown(socket.SHUT_WR)
        assert stream.recv(100) == b"question"
        assert stream.recv(100) == b""
    count += 1
print(count / (time.perf_counter() - begin))
'''


@load(["socat"], rate=Figure("inetd, a program for each connection", "conn/s"),
      bulk=Figure("inetd, 1 GB to one program", "MB/s"))
def inetd(run, taken):
    port, length, source = free_port(), 1_000_000_000, run.folder / "source"
    server = run.server("socat", f"TCP-LISTEN:{port},bind={HOST},reuseaddr,fork,backlog=64", "EXEC:cat,nofork",
                        port=port, aside=True)
    taken(rate=float(run.client(sys.executable, cases.script(run, "many.py", MANY), port)))
    run.stop(server)
    with source.open("wb") as file:
        file.truncate(length)
    port = free_port()
    server = run.server("socat", f"TCP-LISTEN:{port},bind={HOST},reuseaddr,fork",
                        "EXEC:wc -c,nofork", port=port, aside=True)
    taken(bulk=timed(run, length, "socat", "-t", 30, "-b", "65536", f"STDIO!!OPEN:/dev/null,wronly",
                     f"TCP:{HOST}:{port}", stdin=source.open("rb")))
    run.stop(server)


# ---------------------------------------------------------------- nothing to do

IDLE_CLIENT = '''
import socket, sys, time
every = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(50)]
for turn in range(40):
    for one in every:
        one.sendall(b"PING\\r\\n")
        assert one.recv(100) == b"+PONG\\r\\n"
print("idle", flush=True)
sys.stdin.readline()
'''


@load(["redis-server"], cpu=Figure("redis-server with 50 idle connections", "ms CPU in 5 s", more=False))
def idle(run, taken):
    """The server sleeps in epoll_wait; its own timer of 10 Hz is what plain has, too."""
    port, server = cases.redis_server(run)
    script = cases.script(run, "idle.py", IDLE_CLIENT)
    client = subprocess.Popen([sys.executable, script, str(port)], env=run.env("client"), text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    client.output = open(pathlib.Path(os.devnull))
    run.started.append(client)
    if client.stdout.readline() != "idle\n":
        raise Broken("the client does not get there")
    time.sleep(0.5)
    before = cpu_time(server.pid) + cpu_time(client.pid)
    time.sleep(5)
    used = cpu_time(server.pid) + cpu_time(client.pid) - before
    client.communicate("over\n", timeout=run.left())
    taken(cpu=1000 * used)
    run.stop(server)
