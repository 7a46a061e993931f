//! Two processes: this one and a child that runs one of the roles below.

use std::net::SocketAddr;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::rig::{
    End, Host, Memory, PATIENCE, ROOM, Rig, free_address, number, of_this_host,
    sleep_until_readable, until,
};
use crate::fabric::soft::{Options, Rdma};
use crate::fabric::{Access, ArmFor, Ending, Event, OpId, Outcome, Post, Posted, Token};

const ROLE: &str = "WSD_TEST_ROLE";
const AT: &str = "WSD_TEST_AT";

/// A child process that does not outlive the test.
struct Other(Child);

impl Other {
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn is_content(&mut self) -> bool {
        let child = &mut self.0;
        until("the end of the child", || child.try_wait().unwrap()).success()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Runs `role` in a new process of this test program.
fn other(role: &str, at: SocketAddr, rdma: Rdma) -> Other {
    let rdma = match rdma {
        Rdma::Auto => "auto",
        Rdma::Direct => "direct",
        Rdma::Pipelined => "pipelined",
    };
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "--test-threads=1"])
        .arg("fabric::soft::tests::processes::the_other_process")
        .env(ROLE, role)
        .env(AT, at.to_string())
        .env("WSD_RDMA", rdma)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    Other(child)
}

/// Not a test of its own: what the child does.
#[test]
fn the_other_process() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let at: SocketAddr = std::env::var(AT).unwrap().parse().unwrap();
    let options = Options::default().with_environment(|name| std::env::var(name).ok());
    if role == "listen and fork" {
        return listen_and_fork(options, at);
    }
    if role == "listen without descriptors" {
        return listen_without_descriptors(options, at);
    }
    if role == "leave nothing" {
        return leave_nothing(&options);
    }
    let mut host = Host::new(options);
    let token = Token(number());
    let from = SocketAddr::new(at.ip(), 41_000);
    if role == "only ask" {
        let _asked = host.fabric.connect(token, from, at).unwrap();
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    let endpoint = host.fabric.connect(token, from, at).unwrap();
    host.connected(token).unwrap();
    let mut end = End::new(token, endpoint);
    match role.as_str() {
        "echo" => echo(&mut host, &mut end),
        "target" => target(&mut host, &end),
        "talk and hang" => {
            for number in 0..5 {
                end.send(&[number; 3000]).unwrap();
            }
            hang(&mut host);
        }
        "hang" => hang(&mut host),
        "fork and hang" => fork_and_hang(&mut host, &mut end),
        other => panic!("no role {other}"),
    }
}

fn hang(host: &mut Host) {
    loop {
        host.poll();
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sends back what comes, until the peer disconnects.
fn echo(host: &mut Host, end: &mut End) {
    loop {
        let (op, posted) = end.receive(0, ROOM);
        let outcome = match posted {
            Posted::Done(len) => Outcome::Done(len),
            Posted::Pending => until("a message", || {
                host.poll();
                end.outcome(op)
            }),
        };
        match outcome {
            Outcome::Done(len) => {
                let message = end.inward.bytes[..len].to_vec();
                let sent = end.send(&message).unwrap();
                assert_eq!(end.end(sent), Outcome::Done(len));
            }
            Outcome::Flushed(Ending::Peer) => return,
            other => panic!("{other:?}"),
        }
    }
}

/// Exposes memory, tells the descriptor, and then only lets its fabric work.
#[allow(unsafe_code)]
fn target(host: &mut Host, end: &End) {
    let mut end = End::new(end.token, Arc::clone(&end.endpoint));
    let memory: Vec<u8> = (0..1u32 << 20).map(|index| (index % 253) as u8).collect();
    let mut descriptor = [0; 32];
    let rights = Access::READ | Access::WRITE;
    // SAFETY: the memory lives until the end of the process.
    unsafe {
        end.endpoint
            .expose(Memory::region(&memory), rights, &mut descriptor)
    }
    .unwrap();
    end.send(&descriptor).unwrap();
    let ended = |e: &Event| matches!(e, Event::Ended { .. });
    while !host.has(ended) {
        std::thread::sleep(Duration::from_micros(100));
    }
    assert!(memory[..1000].iter().all(|&byte| byte == 0xC3));
}

/// Leaves a child of its own that holds every descriptor.
#[allow(unsafe_code)]
fn fork_and_hang(host: &mut Host, end: &mut End) {
    // SAFETY: the child only sleeps.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        loop {
            // SAFETY: plain number.
            unsafe { libc::sleep(1) };
        }
    }
    end.send(&pid.to_le_bytes()).unwrap();
    hang(host);
}

/// Listens, and leaves the listening socket to a child of its own.
#[allow(unsafe_code)]
fn listen_and_fork(options: Options, at: SocketAddr) {
    let host = Host::new(options);
    let _listener = host.fabric.listen(Token(1), at).unwrap();
    // SAFETY: the child only sleeps.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        for _ in 0..5 {
            // SAFETY: plain number.
            unsafe { libc::sleep(1) };
        }
        // SAFETY: plain number.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: plain number.
    unsafe { libc::_exit(0) };
}

/// Sleeps until the fabric has something to tell.
#[allow(unsafe_code)]
fn await_events(host: &Host) {
    let mut query = libc::pollfd {
        fd: std::os::fd::AsRawFd::as_raw_fd(&host.fabric.readiness()),
        events: libc::POLLIN,
        revents: 0,
    };
    let limit = i32::try_from(PATIENCE.as_millis()).unwrap();
    // SAFETY: one valid entry.
    unsafe { libc::poll(&raw mut query, 1, limit) };
}

/// Cannot take in who comes, must not be kept busy by it, and takes them in afterwards.
#[allow(unsafe_code)]
fn listen_without_descriptors(options: Options, at: SocketAddr) {
    let mut host = Host::new(options);
    let token = Token(1);
    let _listener = host.fabric.listen(token, at).unwrap();
    let lowest = std::fs::File::open("/dev/null").unwrap();
    let none_left = u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&lowest)).unwrap();
    drop(lowest);
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is written to.
    assert_eq!(0, unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit)
    });
    let lowered = libc::rlimit {
        rlim_cur: none_left,
        ..limit
    };
    // SAFETY: `lowered` is read.
    assert_eq!(0, unsafe {
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const lowered)
    });
    await_events(&host);
    let mut woken = 0;
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end && woken < 1000 {
        host.poll();
        await_events(&host);
        woken += 1;
    }
    assert!(woken < 200, "kept busy");
    // SAFETY: `limit` is read.
    assert_eq!(0, unsafe {
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
    });
    drop(host.request(token));
}

#[test]
fn a_listener_without_descriptors_rests_and_goes_on_when_there_are_some() {
    let at = free_address("127.0.0.1");
    let mut child = other("listen without descriptors", at, Rdma::Auto);
    let mut host = Host::new(Options::default());
    let from = SocketAddr::new(at.ip(), 41_000);
    // Until the child listens nobody does; afterwards it answers late.
    until("the end of the child", || {
        let token = Token(number());
        let _attempt = host.fabric.connect(token, from, at).unwrap();
        let patience = Instant::now() + Duration::from_secs(5);
        while Instant::now() < patience {
            let over = host
                .has(|e| matches!(e, Event::ConnectFailed { endpoint, .. } if *endpoint == token));
            if over || child.0.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.0.try_wait().unwrap().map(drop)
    });
    assert!(child.is_content());
}

/// Connects to itself again and again; nothing may be left.
fn leave_nothing(options: &Options) {
    let count = || {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        (
            descriptors,
            maps.matches("wsdirect").count() - maps.matches("deps/wsdirect").count(),
        )
    };
    let before = count();
    for round in 0..30 {
        let mut rig = Rig::new(options.clone());
        let (mut a, b) = rig.pair();
        a.send(&[1; 1000]).unwrap();
        match round % 3 {
            0 => a.endpoint.disconnect(),
            1 => drop(b),
            _ => {}
        }
        let from = SocketAddr::new(rig.at.ip(), 0);
        let _asked = rig
            .host
            .fabric
            .connect(Token(number()), from, rig.at)
            .unwrap();
        if round % 2 == 0 {
            let _request = rig.host.request(rig.listening);
        }
    }
    assert_eq!(count(), before);
    let names = std::fs::read_to_string("/proc/net/unix").unwrap();
    let pattern = format!("@wsdirect/1/{}/", crate::fabric::soft::sys::user());
    let mine = names
        .lines()
        .filter(|line| line.contains(&pattern) && line.contains("127.123."))
        .count();
    assert_eq!(mine, 0, "{names}");
}

fn accept(rig: &mut Rig) -> End {
    let token = Token(number());
    let request = rig.host.request(rig.listening);
    End::new(token, request.accept(token).unwrap())
}

fn ended(rig: &mut Rig, token: Token) -> Ending {
    let event = rig.host.next(
        "the end of the connection",
        |e| matches!(e, Event::Ended { endpoint, .. } if *endpoint == token),
    );
    match event {
        Event::Ended { ending, .. } => ending,
        _ => unreachable!(),
    }
}

#[test]
fn messages_of_all_sizes_come_back_from_another_process() {
    for ip in of_this_host(&["127.0.0.1", "::1"]) {
        let mut rig = Rig::at(Options::default(), ip);
        let mut other = other("echo", rig.at, Rdma::Auto);
        let mut end = accept(&mut rig);
        for len in [0, 1, 8, 47, 48, 49, 4095, 4096, 65_535, 65_536, 65_792] {
            let message: Vec<u8> = (0..len).map(|index| (index % 255) as u8).collect();
            end.send(&message).unwrap();
            assert!(end.take() == message, "{len} bytes");
        }
        end.endpoint.disconnect();
        assert!(other.is_content());
    }
}

#[test]
fn another_process_is_read_and_written_both_ways() {
    for (rdma, path) in [(Rdma::Direct, "direct"), (Rdma::Pipelined, "pipelined")] {
        let mut rig = Rig::new(Options {
            rdma,
            ..Options::default()
        });
        let mut other = other("target", rig.at, rdma);
        let mut end = accept(&mut rig);
        assert_eq!(end.endpoint.rdma_path(), path);
        let descriptor = end.take();
        let op = OpId(number());
        let pieces = [end.inward.piece(0, 1 << 20)];
        let read = Post::Read {
            op,
            pieces: &pieces,
            remote: &descriptor,
            offset: 0,
        };
        let posted = end.endpoint.post(read).unwrap();
        assert_eq!(end.end((op, posted)), Outcome::Done(1 << 20));
        let right = |(index, &byte): (usize, &u8)| usize::from(byte) == index % 253;
        assert!(end.inward.bytes[..1 << 20].iter().enumerate().all(right));
        end.out.bytes[..1000].fill(0xC3);
        let op = OpId(number());
        let pieces = [end.out.piece(0, 1000)];
        let write = Post::Write {
            op,
            pieces: &pieces,
            remote: &descriptor,
            offset: 0,
        };
        let posted = end.endpoint.post(write).unwrap();
        assert_eq!(end.end((op, posted)), Outcome::Done(1000));
        end.endpoint.disconnect();
        assert!(other.is_content());
    }
}

#[test]
fn a_killed_peer_is_noticed_by_a_sleeper_and_everything_pending_ends() {
    // req: WSD-11
    let mut rig = Rig::new(Options::default());
    let mut other = other("hang", rig.at, Rdma::Auto);
    let mut end = accept(&mut rig);
    let receives: Vec<_> = (0..3).map(|_| end.receive(0, 100).0).collect();
    let mut sends = Vec::new();
    while let Ok((op, posted)) = end.send(&[1; 60_000]) {
        if posted == Posted::Pending {
            sends.push(op);
        }
    }
    assert!(!sends.is_empty());
    assert!(end.endpoint.arm(ArmFor::Waiter));
    let sleeper = std::thread::spawn({
        let endpoint = Arc::clone(&end.endpoint);
        move || sleep_until_readable(&*endpoint)
    });
    other.kill();
    assert_eq!(ended(&mut rig, end.token), Ending::Peer);
    assert!(sleeper.join().unwrap());
    end.poll();
    let flushed: Vec<_> = end.completions.iter().map(|c| (c.op, c.outcome)).collect();
    let wanted: Vec<_> = sends
        .into_iter()
        .chain(receives)
        .map(|op| (op, Outcome::Flushed(Ending::Peer)))
        .collect();
    assert_eq!(flushed, wanted);
    assert_eq!(end.endpoint.ending(), Some(Ending::Peer));
}

#[test]
fn what_a_peer_sent_before_it_was_killed_is_still_delivered() {
    let mut rig = Rig::new(Options::default());
    let mut other = other("talk and hang", rig.at, Rdma::Auto);
    let mut end = accept(&mut rig);
    assert_eq!(end.take(), [0; 3000]);
    // The others are in the ring when the first one is, or will be.
    assert_eq!(end.take(), [1; 3000]);
    let last = end.receive(0, 3000);
    assert_eq!(end.end(last), Outcome::Done(3000));
    until("the rest", || {
        std::thread::sleep(Duration::from_millis(20));
        Some(())
    });
    other.kill();
    until("the death to be seen", || {
        rig.host.poll();
        matches!(
            end.send(b"x"),
            Err(crate::fabric::PostError::Ended(Ending::Peer))
        )
        .then_some(())
    });
    for number in 3..5 {
        assert_eq!(end.endpoint.ending(), None);
        assert_eq!(end.take(), [number; 3000]);
    }
    assert_eq!(ended(&mut rig, end.token), Ending::Peer);
}

#[test]
fn a_peer_that_dies_while_it_asks_is_gone() {
    let mut rig = Rig::new(Options::default());
    let mut other = other("only ask", rig.at, Rdma::Auto);
    let request = rig.host.request(rig.listening);
    assert!(!request.is_gone());
    other.kill();
    until("the death to be seen", || request.is_gone().then_some(()));
    assert!(request.accept(Token(number())).is_err());
}

#[test]
fn a_transfer_ends_when_its_target_is_killed() {
    for rdma in [Rdma::Direct, Rdma::Pipelined] {
        let mut rig = Rig::new(Options {
            rdma,
            ..Options::default()
        });
        let mut other = other("target", rig.at, rdma);
        let mut end = accept(&mut rig);
        let descriptor = end.take();
        let limit = Instant::now() + PATIENCE;
        let mut pending = std::collections::VecDeque::new();
        let mut killed = false;
        let outcome = loop {
            assert!(Instant::now() < limit);
            rig.host.poll();
            let op = OpId(number());
            let pieces = [end.inward.piece(0, 1 << 20)];
            let read = Post::Read {
                op,
                pieces: &pieces,
                remote: &descriptor,
                offset: 0,
            };
            match end.endpoint.post(read) {
                Ok(Posted::Pending) => pending.push_back(op),
                Ok(Posted::Done(_)) => {}
                Err(crate::fabric::PostError::Full) => {}
                Err(crate::fabric::PostError::Ended(ending)) => break ending,
                Err(other) => panic!("{other}"),
            }
            if !killed && pending.len() > 5 || rdma == Rdma::Direct {
                killed = true;
                other.kill();
            }
            end.poll();
            for completion in end.completions.drain(..) {
                assert_eq!(Some(completion.op), pending.pop_front());
                let fine = matches!(
                    completion.outcome,
                    Outcome::Done(1_048_576) | Outcome::Flushed(Ending::Peer)
                );
                assert!(fine, "{completion:?}");
            }
        };
        assert_eq!(outcome, Ending::Peer);
        end.poll();
        assert_eq!(end.completions.len(), pending.len());
        assert_eq!(ended(&mut rig, end.token), Ending::Peer);
    }
}

#[test]
#[allow(unsafe_code)]
fn a_killed_peer_is_noticed_although_its_child_holds_the_connection() {
    let mut rig = Rig::new(Options::default());
    let mut other = other("fork and hang", rig.at, Rdma::Auto);
    let mut end = accept(&mut rig);
    let grandchild = i32::from_le_bytes(end.take().try_into().unwrap());
    let receive = end.receive(0, 10);
    other.kill();
    assert_eq!(ended(&mut rig, end.token), Ending::Peer);
    assert_eq!(end.end(receive), Outcome::Flushed(Ending::Peer));
    // SAFETY: plain numbers; the process is ours and still sleeps.
    unsafe { libc::kill(grandchild, libc::SIGKILL) };
}

#[test]
fn a_listening_socket_that_only_a_child_holds_is_nobody() {
    let [_, high, low, _] = std::process::id().to_be_bytes();
    let at = SocketAddr::new(
        [127, 33, high, low].into(),
        free_address("127.0.0.1").port(),
    );
    assert!(other("listen and fork", at, Rdma::Auto).is_content());
    let mut host = Host::new(Options::default());
    let token = Token(number());
    let from = SocketAddr::new(at.ip(), 0);
    let _endpoint = host.fabric.connect(token, from, at).unwrap();
    assert_eq!(
        host.connected(token),
        Err(crate::fabric::ConnectError::NobodyListens)
    );
}

#[test]
fn nothing_is_left_behind() {
    let unused = SocketAddr::new([127, 0, 0, 1].into(), 1);
    for rdma in [Rdma::Direct, Rdma::Pipelined] {
        assert!(other("leave nothing", unused, rdma).is_content());
    }
}
