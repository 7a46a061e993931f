"""One run of one case: its processes, their environment, and what is checked whatever the case is."""

import itertools
import os
import pathlib
import re
import resource
import signal
import subprocess
import time

# A wedge ends here, not at the limit of whoever runs this.
LIMIT = 60
# Least share of the bytes of long-lived connections on the SAN.
SHARE = 0.9
# Most CPU of an idle server.
IDLE = 0.01
# Descriptors that the library keeps for itself in a process without connections: its page for
# `wsdirect ss`, what its thread and the provider sleep on, and a few events of connections before.
# There are three more for each poll set, and one for each thread of the program that has waited.
HELPERS = 20
FIELD = re.compile(r"(\w+)=(\S+)")


class Broken(Exception):
    """What a run did that it should not."""


class TooFew(Broken):
    """Too few of the bytes went over the SAN."""


# None of those that the kernel gives to who asks for any: nobody gets one between here and its use.
PORTS = range(12_000, 30_000)
# Where the next search begins; other copies of this script begin elsewhere.
turn = itertools.count(os.getpid() * 101)


def sockets():
    """The port and the state of each TCP socket of this host."""
    for table in ("tcp", "tcp6"):
        path = pathlib.Path(f"/proc/net/{table}")
        for line in path.read_text().splitlines()[1:] if path.exists() else []:
            words = line.split()
            yield int(words[1].rsplit(":", 1)[1], 16), words[3]


def free_port():
    """Without a socket of our own: a program that is started at the same time would inherit it."""
    used = {port for port, _ in sockets()}
    for _ in PORTS:
        port = PORTS[next(turn) % len(PORTS)]
        if port not in used:
            return port
    raise Broken("no port is free")


def listens(port):
    """Without connecting: a connection of ours would be one of the server's."""
    return (port, "0A") in sockets()


def traces():
    """What this library could leave behind: files in shared memory, names of sockets; each with the
    number of the socket, if it is one."""
    names = {f"/dev/shm/{entry}": None for entry in os.listdir("/dev/shm")}
    for line in pathlib.Path("/proc/net/unix").read_text().splitlines()[1:]:
        words = line.split()
        if len(words) > 7 and "wsd" in words[7]:
            names[words[7]] = words[6]
    return names


def others(log):
    """Numbers of the sockets of living processes that are not of the run with this log."""
    numbers = set()
    mark = f"WSD_LOG={log}".encode()
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes():
                continue
            held = list((process / "fd").iterdir())
        except OSError:
            # Over meanwhile, or another user's.
            continue
        for fd in held:
            try:
                where = os.readlink(fd)
            except OSError:
                # Closed meanwhile, as a server closes files all the time.
                continue
            if where.startswith("socket:["):
                numbers.add(where[8:-1])
    return numbers


def cpu_time(pid):
    """Seconds of CPU of a process and its children's that are alive."""
    total = 0.0
    for one in [pid, *children(pid)]:
        try:
            fields = pathlib.Path(f"/proc/{one}/stat").read_text().rsplit(") ", 1)[1].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def held(pid):
    """What a process and its children hold: descriptors by kind, those that the library keeps out of
    the program's way, threads, and how many processes there are. `None`: they are changing just now."""
    low, high, threads, processes = {}, 0, 0, 0
    # Where the library's own descriptors begin, and no program here gets.
    private = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1024) * 3 // 4
    for one in [pid, *children(pid)]:
        place = pathlib.Path(f"/proc/{one}")
        try:
            if (place / "stat").read_text().rsplit(") ", 1)[1].startswith("Z"):
                continue
            processes += 1
            # jemalloc has one of its own for each processor on which memory is asked for.
            names = [(task / "comm").read_text().strip() for task in (place / "task").iterdir()]
            threads += sum(name != "jemalloc_bg_thd" for name in names)
            for fd in (place / "fd").iterdir():
                if int(fd.name) >= private:
                    high += 1
                    continue
                kind = os.readlink(fd)
                kind = kind.split(":", 1)[0] if not kind.startswith(("/", "anon_inode:")) else kind
                kind = "file" if kind.startswith("/") else kind
                low[kind] = low.get(kind, 0) + 1
        except OSError:
            return None
    return {"descriptors": low, "private": high, "threads": threads, "processes": processes}


def children(pid):
    try:
        own = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(child) for child in own] + [far for child in own for far in children(int(child))]


def differences(plain, now, active):
    """Of what a server holds from what it holds plain, those that the library may not make."""
    wrong = [what for what in ("descriptors", "processes") if now[what] != plain[what]]
    processes = plain["processes"]
    if now["threads"] > plain["threads"] + (processes if active else 0):
        wrong.append("threads")
    sets = plain["descriptors"].get("anon_inode:[eventpoll]", 0)
    helpers = HELPERS * processes + 3 * sets + plain["threads"]
    if now["private"] > plain["private"] + (helpers if active else 0):
        wrong.append("private")
    return wrong


class Run:
    """The processes of one run of a case. `mode` says which of them are preloaded, and how; `longer`,
    how many times as long as usual a load lasts that is measured by time."""

    def __init__(self, mode, library, folder, long, longer=1, plain=None):
        self.mode, self.library, self.folder, self.long = mode, library, folder, long
        self.longer = longer
        # What the servers held at rest, in the order in which they were looked at; of a plain run, too.
        self.rested, self.plain = [], plain
        # What belongs to the load, and to what is asked beside it.
        self.log, self.aside = folder / "wsd.log", folder / "wsd.log.aside"
        self.figures, self.share = {}, None
        self.started = []
        self.until = time.monotonic() + LIMIT * (3 if long else 1)

    def env(self, end, aside=False, logged=True):
        """The environment of one end: "server" or "client". Not `logged`: the library writes no
        lines, of which there is one at the end of each connection."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("WSD_")}
        env["LC_ALL"] = "C"
        if self.mode == "plain" or (self.mode in ("server", "client") and self.mode != end):
            return env
        env["LD_PRELOAD"] = str(self.library)
        if logged:
            env["WSD_LOG"] = str(self.aside if aside else self.log)
        if self.mode == "off":
            env["WSD_SWITCH"] = "off"
        elif self.mode != "lazy":
            env["WSD_EAGER"] = "1"
        return env

    def left(self):
        return max(self.until - time.monotonic(), 0.1)

    def server(self, *command, port=None, cwd=None, end="server", aside=False, **more):
        output = open(self.folder / f"{len(self.started)}.log", "w+b")
        more.setdefault("stdin", subprocess.DEVNULL)
        process = subprocess.Popen([str(word) for word in command], env=self.env(end, aside), cwd=cwd,
                                   stdout=output, stderr=output, start_new_session=True, **more)
        process.output = output
        self.started.append(process)
        if port is not None:
            self.wait_for(lambda: listens(port), f"{command[0]} does not listen", process)
        return process

    def wait_for(self, true, otherwise, process=None):
        while not true():
            if process is not None and process.poll() is not None:
                raise Broken(f"{otherwise}: it ended with {process.returncode}: {self.said(process)}")
            if time.monotonic() > self.until:
                raise Broken(f"{otherwise} in time")
            time.sleep(0.01)

    def said(self, process):
        process.output.flush()
        process.output.seek(0)
        return process.output.read()[-800:].decode(errors="replace").strip()

    def client(self, *command, ok=(0,), stdin=None, text=True, aside=False, logged=True):
        """Runs to the end and returns what it printed. `aside`: its connections are not the load's.
        `logged`: see `env`."""
        try:
            done = subprocess.run([str(word) for word in command], env=self.env("client", aside, logged),
                                  stdin=stdin or subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, timeout=self.left())
        except subprocess.TimeoutExpired as expired:
            raise Broken(f"{command[0]} did not end: {(expired.stderr or b'')[-400:]!r}") from None
        if ok is not None and done.returncode not in ok:
            words = (done.stderr or done.stdout)[-600:].decode(errors="replace").strip()
            raise Broken(f"{' '.join(map(str, command))} ended with {done.returncode}: {words}")
        return done.stdout.decode(errors="replace") if text else done.stdout

    def stop(self, process, how=signal.SIGTERM, patience=10):
        if process.poll() is None:
            os.killpg(process.pid, how)
            try:
                process.wait(min(patience, self.left()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise Broken(f"{process.args[0]} did not end when it was told to") from None
        return process.returncode

    def idle(self, process):
        """Nobody talks to the server: it has nothing to do."""
        time.sleep(0.3)
        span = 10 if self.long else 1
        before = cpu_time(process.pid)
        time.sleep(span)
        used = (cpu_time(process.pid) - before) / span
        if used > IDLE + 0.02 / span:
            raise Broken(f"the idle server uses {used:.1%} of a CPU")
        self.rest(process)

    def rest(self, process):
        """The load is over: the server holds what it holds plain, but for what the library keeps.

        Connections end at the server a moment after their clients; how long that takes is not judged."""
        if self.mode == "plain":
            # Twice the same, and nothing that a client of before still has there.
            last = [None, held(process.pid)]

            def settled():
                time.sleep(0.2)
                last[:] = last[1], held(process.pid)
                return last[0] is not None and last[0] == last[1]

            self.wait_for(settled, "the server does not come to rest")
            self.rested.append(last[1])
            return
        if self.plain is None or len(self.rested) >= len(self.plain):
            return
        plain, now = self.plain[len(self.rested)], {}

        def same():
            now["is"] = held(process.pid)
            return now["is"] is not None and not differences(plain, now["is"], self.mode in ("san", "lazy", "server"))

        try:
            self.wait_for(same, "the server does not come to rest")
        except Broken:
            raise Broken(f"the idle server holds {now['is']}, plain {plain}") from None
        self.rested.append(now["is"])

    def perform(self, case):
        before = traces()
        try:
            outcome = case.run(self)
        finally:
            for process in self.started:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                # Children of it that made a group of their own are not ours to find.
                process.output.close()
        # A killed process's descriptors are closed a moment after it is gone.
        end = time.monotonic() + 5
        while (left := self.left_behind(before)) and time.monotonic() < end:
            time.sleep(0.05)
        if left and self.mode != "plain":
            raise Broken(f"left behind: {', '.join(sorted(left))}")
        self.count(case)
        return outcome

    def left_behind(self, before):
        new = {name: number for name, number in traces().items() if name not in before}
        theirs = others(self.log) if new else set()
        return {name for name, number in new.items() if number not in theirs}

    def lines(self):
        """What the library has written, of the load and of what was beside it."""
        for file in (self.log, self.aside):
            for line in file.read_text().splitlines() if file.exists() else ():
                yield file == self.log, line

    def count(self, case):
        """By which path the bytes went, of what the library has written at the end of connections."""
        kernel = san = elsewhere = 0
        reasons = set()
        for of_load, line in self.lines():
            if line.startswith("panic"):
                raise Broken(line)
            if not line.startswith("end "):
                continue
            fields = dict(FIELD.findall(line))
            by_san = int(fields["san_in"]) + int(fields["san_out"])
            if not of_load:
                elsewhere += by_san
                continue
            kernel += int(fields["tcp_in"]) + int(fields["tcp_out"])
            san += by_san
            reasons.add(fields.get("reason", "?"))
        if self.mode not in ("san", "lazy"):
            if san + elsewhere:
                raise Broken(f"{san + elsewhere} bytes went over the SAN, which at one end is not there")
            return
        if kernel + san:
            self.share = san / (kernel + san)
        if case.bulk and self.mode == "san" and (self.share or 0) < SHARE:
            share = "nothing" if self.share is None else f"{self.share:.0%}"
            raise TooFew(f"{share} went over the SAN; reasons: {', '.join(sorted(reasons)) or 'none'}")
