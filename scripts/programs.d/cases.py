"""The programs: what each does, and what of it has to be the same on every path."""

import filecmp
import functools
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time

from runner import Broken, children, free_port

HOST = "127.0.0.1"
ALL = {}


def sha(data):
    return hashlib.sha256(data).hexdigest()


def noise(length, seed):
    """No two mebibytes are the same, so that none can be lost or take another's place."""
    block, size = random.Random(seed).randbytes(min(length, 1 << 20)), 1 << 20
    numbered = (at.to_bytes(8, "big") + block[8:] for at in range(0, length, size))
    return b"".join(numbered)[:length] if length > size else block


class Case:
    """`bulk`: the bytes that count belong to connections that live long enough to be upgraded.
    `defect`: why it fails now and then over the SAN; until that is cured only the long form has it there.
    `differs`: what it comes to in a mode, by mode, where that is documented to be another than plain.
    `by_itself`: the short form, too, has connections that go over to the SAN by themselves."""

    def __init__(self, function, about, needs, bulk, defect, differs, by_itself):
        self.run, self.about, self.needs, self.bulk, self.defect = function, about, needs, bulk, defect
        self.differs, self.by_itself = differs or {}, by_itself

    def is_for_short(self, mode, by_name, by_mode):
        """Whether the short form runs it so, asked for by its name or by modes or not."""
        if mode == "lazy" and not (self.by_itself or by_mode):
            return False
        return not self.defect or by_name or mode not in ("san", "lazy")

    def missing(self):
        return ", ".join(name for name in self.needs if not find(name))


def find(name):
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def case(about, needs, bulk=True, defect=None, differs=None, by_itself=False):
    def enter(function):
        made = Case(function, about, needs, bulk, defect, differs, by_itself)
        ALL[function.__name__.replace("_", "-")] = made
        return function

    return enter


def paced(path, first=1):
    """The file, with a pause behind the first bytes: the connection that carries it lives long before
    most of it is sent, on a busy machine, too. To be used as standard input."""
    words = f"head -c {first} '{path}'; sleep 1; exec tail -c +{first + 1} '{path}'"
    return subprocess.Popen(["sh", "-c", words], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)


# ---------------------------------------------------------------- iperf3


def iperf(run, *options):
    port = free_port()
    server = run.server("iperf3", "-s", "-p", port, "--one-off", "--forceflush", port=port)
    seconds = (3 if run.long else 1) * run.longer
    report = json.loads(run.client("iperf3", "-c", HOST, "-p", port, "-t", seconds, "-J", *options))
    run.wait_for(lambda: server.poll() is not None, "the server of iperf3 does not end")
    if server.returncode:
        raise Broken(f"the server ended with {server.returncode}: {run.said(server)}")
    end = report["end"]
    if "streams" not in end:
        raise Broken(f"the client says no more than {report}"[-600:])
    sums = [end[name] for name in ("sum_received", "sum_received_bidir_reverse") if name in end]
    if not all(one["bytes"] > 0 for one in sums):
        raise Broken("nothing arrived")
    run.figures["MB/s"] = sum(one["bits_per_second"] for one in sums) / 8e6
    return {"streams": len(end["streams"])}


@case("one stream", ["iperf3"], by_itself=True)
def iperf3(run):
    return iperf(run)


@case("four streams", ["iperf3"])
def iperf3_four(run):
    return iperf(run, "-P", "4")


@case("the server sends", ["iperf3"])
def iperf3_reverse(run):
    return iperf(run, "-R")


@case("both send", ["iperf3"])
def iperf3_both(run):
    return iperf(run, "--bidir")


# ---------------------------------------------------------------- redis


def redis_server(run):
    port = free_port()
    # What counts is what the benchmark says of its own connections; others ask a single question.
    server = run.server("redis-server", "--port", port, "--bind", HOST, "--save", "", "--appendonly",
                        "no", "--dir", run.folder, port=port, aside=True)
    return port, server


def redis_cli(run, port, *words, **more):
    return run.client("redis-cli", "-p", port, *words, aside=True, **more)


@case("values of many sizes, the benchmark, and a save to disk under load", ["redis-server",
      "redis-cli", "redis-benchmark"])
def redis(run):
    port, server = redis_server(run)
    seen = []
    for length in (1, 100, 5_000, 70_000, 3_000_000):
        value = noise(length, length).hex().encode()[:length]
        path = run.folder / "value"
        path.write_bytes(value)
        with path.open("rb") as stdin:
            redis_cli(run, port, "-x", "set", "key", stdin=stdin)
        got = redis_cli(run, port, "--raw", "get", "key", text=False)
        seen.append(got[:-1] == value)
    if not all(seen):
        raise Broken(f"values came back changed: {seen}")
    load = 40_000 if run.long else 20_000
    for name, options in (("50 clients", ["-c", "50", "-d", "1000"]), ("1 client", ["-c", "1"]),
                          ("50 clients, pipelined", ["-c", "50", "-P", "16", "-d", "100"])):
        count = load // 4 if name == "1 client" else load * 8 if "-P" in options else load
        table = run.client("redis-benchmark", "-p", port, "-n", count, "-t", "set,get", "--csv",
                           *options)
        rates = [float(line.split(",")[1].strip('"')) for line in table.splitlines()[1:] if line]
        run.figures[f"{name} req/s"] = sum(rates) / len(rates)
    # The server forks while clients are at it.
    busy = run.server("redis-benchmark", "-p", port, "-n", load // 2, "-t", "set", "-c", "5", "-q", end="client",
                      aside=True)
    redis_cli(run, port, "bgsave")
    run.wait_for(lambda: "rdb_bgsave_in_progress:0" in redis_cli(run, port, "info", "persistence"),
                 "no end of the save")
    run.wait_for(lambda: busy.poll() is not None, "the benchmark does not end")
    if busy.returncode or not (run.folder / "dump.rdb").stat().st_size:
        raise Broken(f"a save under load: {busy.returncode}: {run.said(busy)}")
    run.idle(server)
    redis_cli(run, port, "shutdown", "nosave", ok=(0, 1))
    run.stop(server)
    return seen


# ---------------------------------------------------------------- web servers


DOCUMENTS = ("small", "page", "large")


@functools.cache
def document(name, long):
    length = {"small": 1000, "page": 100_000, "large": 300_000_000 if long else 40_000_000}[name]
    data = noise(length, name)
    return data, sha(data)


def documents(run):
    folder = run.folder / "www"
    folder.mkdir()
    for name in DOCUMENTS:
        (folder / name).write_bytes(document(name, run.long)[0])
    folder.chmod(0o755)
    run.folder.chmod(0o755)
    return folder


def fetch(run, port, names=DOCUMENTS, *options, aside=False):
    """All on one connection, if the server lets it live, with pauses between them."""
    wanted = [word for name in names for word in ("-o", run.folder / f"got-{name}",
                                                  f"http://{HOST}:{port}/{name}")]
    run.client("curl", "-sS", "--fail", "--rate", "2/s", *options, *wanted, aside=aside)
    for name in names:
        if not filecmp.cmp(run.folder / f"got-{name}", run.folder / "www" / name, shallow=False):
            raise Broken(f"{name} arrived changed")
    return {name: document(name, run.long)[1] for name in names}


def nginx_server(run):
    port, www = free_port(), documents(run)
    user = "user root;" if os.geteuid() == 0 else ""
    config = run.folder / "nginx.conf"
    config.write_text(textwrap.dedent(f"""
        {user} worker_processes 2; daemon off; pid {run.folder}/pid; error_log {run.folder}/error.log;
        events {{ worker_connections 512; }}
        http {{
            access_log off; sendfile on; keepalive_requests 1000000; client_body_temp_path {run.folder};
            proxy_temp_path {run.folder}; fastcgi_temp_path {run.folder}; uwsgi_temp_path {run.folder};
            scgi_temp_path {run.folder};
            server {{ listen {HOST}:{port}; root {www}; }}
        }}
    """))
    return port, run.server(find("nginx"), "-p", run.folder, "-c", config, port=port, aside=True)


RELOADED = 8
ERRORS = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")


def reloaded(code, text):
    """What wrk met while workers were replaced. A worker that goes closes each of its connections
    once, now and then when a request is on its way: that is an error of reading or writing, plain, too."""
    found = ERRORS.search(text)
    connect, read, write, timeout = map(int, found.groups()) if found else (0, 0, 0, 0)
    if "Requests/sec" not in text or connect or timeout or read + write > RELOADED or "Non-2xx" in text:
        raise Broken(f"wrk, while nginx was reloaded: {text}")
    return code


@case("two workers, sendfile, reloaded under load", ["nginx", "curl", "wrk"], by_itself=True)
def nginx(run):
    port, server = nginx_server(run)
    seen = fetch(run, port)
    seconds = 4 if run.long else 2
    for name, page in (("req/s", "small"), ("100 KB req/s", "page")):
        text = run.client("wrk", "-t", 1, "-c", 16, "-d", f"{seconds}s", f"http://{HOST}:{port}/{page}")
        if "Socket errors" in text or "Non-2xx" in text:
            raise Broken(text)
        run.figures[name] = float(text.split("Requests/sec:")[1].split()[0])
    load = run.server("wrk", "-t", 1, "-c", RELOADED, "-d", "1s", f"http://{HOST}:{port}/small", end="client",
                      aside=True)
    time.sleep(0.4)
    before = set(children(server.pid))
    os.kill(server.pid, signal.SIGHUP)
    run.wait_for(lambda: load.poll() is not None, "wrk does not end")
    seen["reload"] = reloaded(load.returncode, run.said(load))
    run.wait_for(lambda: not before & set(children(server.pid)), "the workers of before do not end")
    seen |= fetch(run, port, ["page"], aside=True)
    run.idle(server)
    if run.stop(server, signal.SIGQUIT):
        raise Broken(f"nginx ended with {server.returncode}: {run.said(server)}")
    return seen


@case("python3 -m http.server", ["curl"], by_itself=True)
def http_server(run):
    port, www = free_port(), documents(run)
    server = run.server(sys.executable, "-m", "http.server", port, "--bind", HOST, "--protocol", "HTTP/1.1",
                        port=port, cwd=www, aside=True)
    seen = fetch(run, port)
    # A connection for each.
    fetch(run, port, DOCUMENTS, "--http1.0", aside=True)
    # Many: what each would leave behind is seen.
    fetch(run, port, ["small"] * 30, "--http1.0", "--rate", "100/s", aside=True)
    run.idle(server)
    run.stop(server)
    return seen


@case("an HTTP server of node", ["node", "curl"])
def node_http(run):
    port, www = free_port(), documents(run)
    program = (f"require('http').createServer((q, r) => require('fs').createReadStream("
               f"'{www}' + q.url).pipe(r)).listen({port}, '{HOST}')")
    server = run.server("node", "-e", program, port=port)
    seen = fetch(run, port)
    run.idle(server)
    run.stop(server)
    return seen


@case("one short connection after the other", ["nginx", "ab"], bulk=False)
def short_connections(run):
    port, www = free_port(), documents(run)
    user = "user root;" if os.geteuid() == 0 else ""
    config = run.folder / "nginx.conf"
    config.write_text(f"{user} worker_processes 1; daemon off; pid {run.folder}/pid;"
                      f"error_log {run.folder}/error.log; events {{}} http {{ access_log off;"
                      f"client_body_temp_path {run.folder}; proxy_temp_path {run.folder};"
                      f"fastcgi_temp_path {run.folder}; uwsgi_temp_path {run.folder};"
                      f"scgi_temp_path {run.folder}; server {{ listen {HOST}:{port}; root {www}; }} }}")
    server = run.server(find("nginx"), "-p", run.folder, "-c", config, port=port)
    count = 10_000 if run.long else 2_000
    text = run.client("ab", "-q", "-n", count, "-c", 8, f"http://{HOST}:{port}/small")
    failed = int(text.split("Failed requests:")[1].split()[0])
    run.figures["connections/s"] = float(text.split("Requests per second:")[1].split()[0])
    run.stop(server, signal.SIGQUIT)
    return {"failed": failed}


# ---------------------------------------------------------------- small servers of many shapes

ECHO = '''
import socketserver, sys
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
class Server(socketserver.{mixin}, socketserver.TCPServer):
    allow_reuse_address = True
Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
'''

TLS = '''
import asyncio, ssl, sys
async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2])
    server = await asyncio.start_server(echo, "127.0.0.1", int(sys.argv[1]), ssl=context)
    async with server:
        await server.serve_forever()
asyncio.run(main())
'''

# Sends what it was given in pieces of odd sizes, one byte among them, and prints what came back.
ASK = '''
import hashlib, random, socket, ssl, sys, threading, time
port, length, secret = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] == ["tls"]
data = random.Random(7).randbytes(length)
stream = socket.create_connection(("127.0.0.1", port))
if secret:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    stream = context.wrap_socket(stream)
# A talk that has lasted a while before there is much to say.
for turn in range(20):
    stream.sendall(b"turn")
    got = b""
    while len(got) < 4:
        got += stream.recv(4 - len(got))
time.sleep(0.6)
def write():
    sizes, at = random.Random(8), 0
    while at < length:
        piece = sizes.choice((1, 7, 1000, 30_000, 200_000))
        stream.sendall(data[at:at + piece])
        at += piece
if secret:
    back = bytearray()
    for at in range(0, length, 50_000):
        stream.sendall(data[at:at + 50_000])
        want = len(data[at:at + 50_000])
        while want:
            piece = stream.recv(want)
            want -= len(piece)
            back += piece
else:
    thread = threading.Thread(target=write)
    thread.start()
    back = bytearray()
    while len(back) < length:
        piece = stream.recv(300_000)
        if not piece: break
        back += piece
    thread.join()
stream.close()
print(hashlib.sha256(back).hexdigest(), back == data)
'''


def script(run, name, text):
    path = run.folder / name
    path.write_text(text)
    return path


def echoes(run, server, port, *more, length=30_000_000):
    said = []
    for turn in range(4 if run.long else 2):
        ask = script(run, "ask.py", ASK)
        said.append(run.client(sys.executable, ask, port, length, *more).split())
    if any(same != "True" for _, same in said):
        raise Broken("the echo is another")
    run.idle(server)
    run.stop(server)
    return said


@case("a thread for each connection", [])
def socketserver_threads(run):
    port = free_port()
    server = run.server(sys.executable, script(run, "echo.py", ECHO.format(mixin="ThreadingMixIn")), port,
                        port=port)
    return echoes(run, server, port)


@case("a process for each connection", [])
def socketserver_forks(run):
    port = free_port()
    server = run.server(sys.executable, script(run, "echo.py", ECHO.format(mixin="ForkingMixIn")), port,
                        port=port)
    return echoes(run, server, port)


def certificate(run):
    """A file with a key and its own certificate."""
    key = run.folder / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                    "-nodes", "-subj", "/CN=localhost", "-keyout", key, "-out", run.folder / "cert"],
                   check=True, stderr=subprocess.DEVNULL)
    key.write_text(key.read_text() + (run.folder / "cert").read_text())
    return key


@case("asyncio and TLS", ["openssl"])
def asyncio_tls(run):
    port = free_port()
    server = run.server(sys.executable, script(run, "tls.py", TLS), port, certificate(run), port=port)
    return echoes(run, server, port, "tls", length=12_000_000)


@case("a file through socat", ["socat"])
def socat(run):
    port, data = free_port(), noise(400_000_000 if run.long else 100_000_000, "socat")
    source, target = run.folder / "source", run.folder / "target"
    source.write_bytes(data)
    server = run.server("socat", "-u", "-b", "65536", f"TCP-LISTEN:{port},bind={HOST},reuseaddr",
                        f"CREATE:{target}", port=port)
    with paced(source) as feed:
        run.client("socat", "-u", "-b", "65536", "STDIN", f"TCP:{HOST}:{port}", stdin=feed.stdout)
    run.wait_for(lambda: server.poll() is not None, "the receiving socat does not end")
    if target.read_bytes() != data:
        raise Broken(f"{target.stat().st_size} bytes arrived, or others")
    return sha(data)


@case("a program started with the connection as its input and output", ["socat"], bulk=False)
def inetd(run):
    port = free_port()
    server = run.server("socat", f"TCP-LISTEN:{port},bind={HOST},reuseaddr,fork", "EXEC:sha256sum,nofork",
                        port=port)
    data, path = noise(5_000_000, "inetd"), run.folder / "data"
    path.write_bytes(data)
    with path.open("rb") as stdin:
        said = run.client("socat", "-t", 30, "STDIO", f"TCP:{HOST}:{port}", stdin=stdin)
    if sha(data) not in said:
        raise Broken(f"the program read something else: {said!r}")
    run.rest(server)
    run.stop(server)
    return said


def ssh_server(run):
    """It, its port, and how its clients reach it."""
    if os.geteuid() == 0:
        pathlib.Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    port = free_port()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", run.folder / name], check=True)
    shutil.copy(run.folder / "user.pub", run.folder / "authorized")
    config = script(run, "sshd_config", textwrap.dedent(f"""
        Port {port}
        ListenAddress {HOST}
        HostKey {run.folder}/host
        AuthorizedKeysFile {run.folder}/authorized
        StrictModes no
        UsePAM no
        PidFile none
        PermitRootLogin yes
        Subsystem sftp internal-sftp
    """))
    server = run.server(find("sshd"), "-D", "-e", "-f", config, port=port)
    options = ["-F", "none", "-i", run.folder / "user", "-o", "StrictHostKeyChecking=no", "-o",
               "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes"]
    user = subprocess.check_output(["id", "-un"], text=True).strip()
    return server, port, options, user


# sshd gives each connection to another program, which shares it with a process without rights.
@case("a session and a copy", ["sshd", "ssh", "scp", "ssh-keygen"], bulk=False)
def openssh(run):
    server, port, options, user = ssh_server(run)
    said = run.client("ssh", "-p", port, *options, f"{user}@{HOST}", "echo here; exit 3", ok=(3,))
    data = noise(8_000_000, "ssh")
    source, target = run.folder / "source", run.folder / "target"
    source.write_bytes(data)
    run.client("scp", "-q", "-P", port, *options, source, f"{user}@{HOST}:{target}")
    if target.read_bytes() != data:
        raise Broken("the copy is another")
    run.rest(server)
    run.stop(server)
    return said


# ---------------------------------------------------------------- killed in the middle


# What socat says (-d) of a peer that is gone, also where it ends well after that.
GONE = ("Connection reset by peer", "Broken pipe")


def killed(run, sender, victim):
    """Of two pairs: in each the one that is named sends, or both do, and the victim is killed in the
    middle, once at the end that listens, and once at the other. How its peers end, and that they do."""
    pairs = []
    for role in ("server", "client"):
        port, feeds, ends = free_port(), [], {}
        other = "receiver" if victim == "sender" else "sender"
        parts = {end: victim if end == role else other for end in ("server", "client")}
        for end, socket in (("server", f"TCP-LISTEN:{port},bind={HOST},reuseaddr"), ("client", f"TCP:{HOST}:{port}")):
            sends = sender in ("both", parts[end])
            feed = paced("/dev/zero") if sends else None
            feeds += [feed] if feed else []
            words = ["-u", "STDIN", socket] if sends else ["-u", socket, "OPEN:/dev/null"]
            if sender == "both":
                words = ["STDIN!!OPEN:/dev/null,wronly", socket]
            ends[end] = run.server("socat", "-d", *words, end=end, port=port if end == "server" else None,
                                   **({"stdin": feed.stdout} if feed else {}))
            if feed:
                feed.stdout.close()
        pairs.append((ends[role], ends["client" if role == "server" else "server"], feeds))
    time.sleep(2)
    outcomes = []
    for killed_one, left, feeds in pairs:
        begun = time.monotonic()
        os.killpg(killed_one.pid, signal.SIGKILL)
        killed_one.wait()
        run.wait_for(lambda left=left: left.poll() is not None, "the other end does not notice")
        took = 1000 * (time.monotonic() - begun)
        run.figures["ms to notice"] = max(took, run.figures.get("ms to notice", 0))
        said = run.said(left)
        gone = any(words in said for words in GONE)
        if left.returncode and not gone:
            raise Broken(f"the other end ended with {left.returncode}: {said}")
        outcomes.append("error" if gone else "end")
        for feed in feeds:
            feed.kill()
            feed.wait()
    return outcomes


@case("the receiver is killed in the middle", ["socat"])
def killed_receiver(run):
    return killed(run, "sender", "receiver")


# Its TCP ends well, whatever it still had to send; over the SAN that is an error, because the
# receiver cannot know that nothing is missing.
@case("the sender is killed in the middle", ["socat"],
      differs={mode: ["error", "error"] for mode in ("san", "lazy")})
def killed_sender(run):
    return killed(run, "sender", "sender")


@case("one of two that both send is killed in the middle", ["socat"])
def killed_both(run):
    return killed(run, "both", "sender")


@case("redis-server is killed under load", ["redis-server", "redis-benchmark"],
      defect="redis-benchmark repeats a write that has failed for ever and looks at nothing else; over TCP the first "
             "write after the death of a peer mostly succeeds, over the SAN it fails")
def killed_server(run):
    port, server = redis_server(run)
    load = run.server("redis-benchmark", "-p", port, "-n", 10_000_000, "-t", "set", "-c", "20", "-q",
                      end="client")
    time.sleep(2)
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    run.wait_for(lambda: load.poll() is not None, "the benchmark does not notice")
    return load.returncode


@case("a worker of nginx is killed under load", ["nginx", "curl", "wrk"], bulk=False)
def killed_worker(run):
    port, server = nginx_server(run)
    load = run.server("wrk", "-t", 1, "-c", 16, "-d", "2s", "--timeout", "1s",
                      f"http://{HOST}:{port}/page", end="client", aside=True)
    time.sleep(1)
    workers = children(server.pid)
    os.kill(workers[0], signal.SIGKILL)
    run.wait_for(lambda: load.poll() is not None, "wrk does not end")
    run.wait_for(lambda: len(children(server.pid)) == len(workers), "no worker takes its place")
    seen = fetch(run, port)
    if run.stop(server, signal.SIGQUIT):
        raise Broken(f"nginx ended with {server.returncode}: {run.said(server)}")
    return seen, load.returncode
