//! Companions whose ends are in different processes, one of which stops, dies or forks.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::multiple_unsafe_ops_per_block,
    unused_qualifications
)]

#[path = "companion/ends.rs"]
mod ends;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ends::{DOUBTFUL, End, check, fill, here, until};
use wsd_switch::companion::{Companion, Path, Reason, Role};

const PLAY: &str = "WSD_TEST_PLAY";
const AT: &str = "WSD_TEST_AT";

/// The other process: this test, told what to play.
struct Other(Child);

impl Other {
    /// Returns when all of its threads stand still.
    fn stop(&self) -> libc::pid_t {
        let pid = self.0.id() as libc::pid_t;
        // SAFETY: a child of this test, not yet waited for.
        unsafe { libc::kill(pid, libc::SIGSTOP) };
        until("it stands still", || {
            let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
            threads.flatten().all(|thread| {
                let state = std::fs::read_to_string(thread.path().join("stat"));
                state.is_ok_and(|state| state.contains(") T "))
            })
        });
        pid
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn other(play: &str, extra: &[(&str, &str)]) -> (End, Other) {
    let (tcp, child) = connected(play, extra);
    (End::new(tcp, Role::Accepted), child)
}

/// The process, and the connection that it has made to this one.
fn connected(play: &str, extra: &[(&str, &str)]) -> (TcpStream, Other) {
    let listener = TcpListener::bind(here()).unwrap();
    let child = begun(play, listener.local_addr().unwrap().to_string(), extra);
    (listener.accept().unwrap().0, child)
}

/// A process that listens itself, and where.
fn worker(play: &str, extra: &[(&str, &str)]) -> (SocketAddr, Other) {
    let (mut told, child) = connected(play, extra);
    let mut port = [0; 2];
    told.read_exact(&mut port).unwrap();
    let port = u16::from_be_bytes(port);
    (SocketAddr::from((*here().ip(), port)), child)
}

fn begun(play: &str, at: String, extra: &[(&str, &str)]) -> Other {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["the_other_process", "--exact", "--nocapture"])
        .env(PLAY, play)
        .env(AT, at)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    for (name, value) in extra {
        command.env(name, value);
    }
    Other(command.spawn().unwrap())
}

/// Answers each piece of 1000 bytes with the same, until the end.
fn echo(end: &End) {
    let mut room = [0; 1000];
    while end.receive_exactly(&mut room).is_ok() {
        if end.send_all(&room).is_err() {
            return;
        }
    }
}

/// The same, and behind it why the kernel carries the connection.
fn echo_and_tell(end: &End) {
    echo(end);
    let known = [Reason::Version, Reason::NegativeCache];
    until("it is known why", || {
        known.contains(&end.companion.reason())
    });
    drop(end.send_all(end.companion.reason().code().as_bytes()));
}

/// As much as a stream is long.
const STREAM: usize = 20_000_000;

fn send(end: &End, seed: u64) {
    let mut bytes = vec![0; STREAM];
    fill(seed, 0, &mut bytes);
    for piece in bytes.chunks(10_000) {
        end.send_all(piece).unwrap();
    }
    end.shut();
    let mut room = [0; 1];
    assert_eq!(end.receive(&mut room, 0).unwrap(), 0);
}

#[test]
fn the_other_process() {
    let Ok(play) = std::env::var(PLAY) else {
        return;
    };
    let at = std::env::var(AT).unwrap();
    if play.starts_with("worker") {
        let listener = TcpListener::bind(here()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut told = TcpStream::connect(&at).unwrap();
        told.write_all(&port.to_be_bytes()).unwrap();
        for tcp in listener.incoming() {
            let end = End::new(tcp.unwrap(), Role::Accepted);
            match play.as_str() {
                "worker" => echo(&end),
                "worker that tells why" => echo_and_tell(&end),
                "worker that sends" => send(&end, DOUBTFUL),
                other => panic!("what is {other}?"),
            }
        }
        return;
    }
    if play == "tell why again and again" {
        while let Ok(tcp) = TcpStream::connect(&at) {
            echo_and_tell(&End::new(tcp, Role::Connected));
        }
        return;
    }
    let end = End::new(TcpStream::connect(at).unwrap(), Role::Connected);
    match play.as_str() {
        "echo" => echo(&end),
        "echo and lose" => {
            // Its SAN goes again and again, between an answer and the next piece; not while it is only
            // being gone over to, which would be a reset.
            let mut room = [0; 1000];
            let mut turns = 0;
            while end.receive_exactly(&mut room).is_ok() && end.send_all(&room).is_ok() {
                turns += 1;
                if turns % 90 == 0 && end.is_san() {
                    end.companion.cut_san();
                }
            }
        }
        "send" => send(&end, 5),
        "go over" => {
            upgrade(&end);
            for round in 0..1000 {
                exchange(&end, round * 1000);
            }
            assert!(end.is_san());
        }
        "send and leave" => {
            // Ends without closing anything.
            let mut bytes = vec![0; 2_000_000];
            fill(5, 0, &mut bytes);
            end.send_all(&bytes).unwrap();
            let _kept = std::mem::ManuallyDrop::new(end);
            std::process::exit(0);
        }
        "fork" => {
            // The child goes on with the connection, the parent closes its copy.
            let mut room = [0; 1000];
            for _ in 0..200 {
                end.receive_exactly(&mut room).unwrap();
                end.send_all(&room).unwrap();
            }
            until("upgraded", || {
                end.receive_exactly(&mut room).unwrap();
                end.send_all(&room).unwrap();
                end.is_san()
            });
            Companion::before_fork();
            // SAFETY: the child only uses what a fork leaves it, and ends by _exit.
            let child = unsafe { libc::fork() };
            if child == 0 {
                Companion::after_fork_in_child();
                assert_eq!(end.companion.path(), Path::Tcp);
                echo(&end);
                // SAFETY: ends the child without the tests' own destructors.
                unsafe { libc::_exit(0) };
            }
            Companion::after_fork_in_parent();
            drop(end);
            let mut status = 1;
            // SAFETY: the place for the status is of this frame.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!(status, 0);
        }
        "swallow nothing" => loop {
            std::thread::sleep(Duration::from_secs(1));
        },
        other => panic!("what is {other}?"),
    }
}

fn exchange(end: &End, position: usize) {
    let mut bytes = [0; 1000];
    fill(9, position, &mut bytes);
    end.send_all(&bytes).unwrap();
    let mut room = [0; 1000];
    end.receive_exactly(&mut room).unwrap();
    check(9, position, &room);
}

fn upgrade(end: &End) {
    let mut position = 0;
    until("upgraded", || {
        exchange(end, position);
        position += 1000;
        end.is_san()
    });
}

#[test]
fn two_processes_go_over_to_the_san() {
    let (end, _other) = other("echo", &[]);
    upgrade(&end);
    for round in 0..1000 {
        exchange(&end, round * 1000);
    }
    let told = end.companion.snapshot();
    assert!(told.sent_san >= 1_000_000 && told.received_san >= 1_000_000);
}

/// On a loaded machine everything might be there before.
fn leave_time_to_go_over(end: &End) {
    if !end.is_san() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_eager_peer_goes_over_at_once() {
    let (end, _other) = other("send", &[("WSD_EAGER", "1")]);
    let mut room = vec![0; 100_000];
    let mut position = 0;
    loop {
        let count = end.receive(&mut room, 0).unwrap();
        if count == 0 {
            break;
        }
        check(5, position, &room[..count]);
        position += count;
        leave_time_to_go_over(&end);
    }
    assert_eq!(position, 20_000_000);
    let told = end.companion.snapshot();
    assert!(told.received_san > 0, "{told:?}");
}

#[test]
fn what_a_process_has_sent_arrives_although_it_ends_without_a_close() {
    let (end, _other) = other("send and leave", &[]);
    let mut room = vec![0; 2_000_000];
    end.receive_exactly(&mut room).unwrap();
    check(5, 0, &room);
    assert_eq!(end.receive(&mut room, 0).unwrap(), 0);
}

#[test]
fn a_killed_peer_is_a_reset_after_what_it_had_sent() {
    let (end, mut other) = other("echo", &[]);
    upgrade(&end);
    end.send_all(&[1; 1000]).unwrap();
    until("the answer is there", || {
        end.companion.refresh() & libc::POLLIN != 0
    });
    other.0.kill().unwrap();
    other.0.wait().unwrap();
    let mut room = [0; 1000];
    end.receive_exactly(&mut room).unwrap();
    let error = end.receive(&mut room, 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
    let error = end.send(&[1], 0).unwrap_err();
    assert!(matches!(
        error.raw_os_error(),
        Some(libc::EPIPE | libc::ECONNRESET)
    ));
}

#[test]
fn a_stopped_peer_is_waited_for() {
    let (end, other) = other("echo", &[]);
    upgrade(&end);
    let pid = other.stop();
    end.send_all(&[2; 1000]).unwrap();
    end.tcp
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let mut room = [0; 1000];
    let error = end.receive(&mut room, 0).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    // SAFETY: a child of this test, not yet waited for.
    unsafe { libc::kill(pid, libc::SIGCONT) };
    end.tcp.set_read_timeout(None).unwrap();
    end.receive_exactly(&mut room).unwrap();
    assert_eq!(room, [2; 1000]);
}

/// Whose peer dies before it has sent again what goes back to it gets an error.
#[test]
fn a_peer_that_dies_while_the_san_is_left_is_an_error_and_no_hole() {
    for pause in [0, 30] {
        let (end, other) = other("echo", &[]);
        upgrade(&end);
        end.send_all(&[2; 1000]).unwrap();
        until("the answer is there", || {
            end.companion.refresh() & libc::POLLIN != 0
        });
        other.stop();
        let error = std::thread::scope(|scope| {
            let left = scope.spawn(|| end.companion.downgrade(end.fd(), Reason::Passed));
            std::thread::sleep(Duration::from_millis(pause));
            drop(other);
            left.join().unwrap().unwrap_err()
        });
        assert_ne!(error.kind(), std::io::ErrorKind::TimedOut);
        assert!(!end.companion.on_kernel());
        let mut room = [0; 1000];
        let error = end.receive(&mut room, 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
    }
}

#[test]
fn a_peer_that_never_reads_is_backpressure_for_who_does_not_block() {
    let (end, _other) = other("swallow nothing", &[]);
    end.tcp.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let mut quiet = 0;
    let bytes = vec![1; 64 << 10];
    while quiet < 50 {
        match end.send(&bytes, 0) {
            Ok(count) => {
                sent += count;
                quiet = 0;
            }
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                quiet += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        assert!(sent < 200 << 20, "no end of room");
    }
}

#[test]
fn a_child_goes_on_with_the_connection_of_its_parent() {
    let (end, _other) = other("fork", &[]);
    let mut reasons = Vec::new();
    for round in 0..2000 {
        exchange(&end, round * 1000);
        let reason = end.companion.reason();
        if reasons.last() != Some(&reason) {
            reasons.push(reason);
        }
    }
    assert!(end.companion.snapshot().upgrades >= 1);
    assert_eq!(end.companion.path(), Path::Tcp);
    // The SAN is sought again later, and the child does not answer.
    assert!(reasons.contains(&Reason::PeerAsked), "{reasons:?}");
}

#[test]
fn a_process_whose_san_is_lost_goes_on_over_tcp_and_comes_back_until_it_was_lost_often() {
    let (end, _other) = other("echo and lose", &[("WSD_EAGER", "1")]);
    let mut turn = 0;
    until("the SAN is lost for good", || {
        for _ in 0..100 {
            exchange(&end, turn * 1000);
            turn += 1;
        }
        end.companion.reason() == Reason::Sticky
    });
    let told = end.companion.snapshot();
    assert_eq!((told.upgrades, told.downgrades), (3, 3), "{told:?}");
    assert_eq!(end.companion.path(), Path::Tcp);
}

/// In the middle of a stream, by the end that receives it.
#[test]
fn a_stream_that_a_process_sends_survives_the_loss_of_the_san() {
    let (end, _other) = other("send", &[("WSD_EAGER", "1")]);
    let mut room = vec![0; 100_000];
    let (mut position, mut lost, mut next) = (0, 0, 3_000_000);
    loop {
        let count = end.receive(&mut room, 0).unwrap_or_else(|e| {
            panic!(
                "{e} at {position} lost {lost} {:?}",
                end.companion.snapshot()
            )
        });
        if count == 0 {
            break;
        }
        check(5, position, &room[..count]);
        position += count;
        if position > next && end.is_san() && end.companion.cut_san() {
            next = position + 3_000_000;
            lost += 1;
        }
        if lost == 0 {
            leave_time_to_go_over(&end);
        }
    }
    assert_eq!(position, 20_000_000);
    let told = end.companion.snapshot();
    assert!(lost > 0 && told.downgrades > 0, "{lost} {told:?}");
    end.shut();
}

#[test]
fn a_peer_that_dies_when_the_san_was_lost_is_a_reset_after_what_it_had_sent() {
    let (end, mut other) = other("echo", &[]);
    upgrade(&end);
    end.send_all(&[1; 1000]).unwrap();
    until("the answer is there", || {
        end.companion.refresh() & libc::POLLIN != 0
    });
    other.stop();
    assert!(end.companion.cut_san());
    let mut room = [0; 1000];
    end.receive_exactly(&mut room).unwrap();
    assert_eq!(room, [1; 1000]);
    other.0.kill().unwrap();
    let error = end.receive(&mut room, 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
}

/// Until the other process is no more: how the connection has ended.
fn exchange_to_the_end(end: &End, mut position: usize) -> ErrorKind {
    let wait = Some(ends::PATIENCE);
    end.tcp.set_read_timeout(wait).unwrap();
    end.tcp.set_write_timeout(wait).unwrap();
    let (mut bytes, mut room) = ([0; 1000], [0; 1000]);
    loop {
        fill(9, position, &mut bytes);
        let done = end
            .send_all(&bytes)
            .and_then(|()| end.receive_exactly(&mut room));
        if let Err(error) = done {
            return error.kind();
        }
        check(9, position, &room);
        position += 1000;
    }
}

/// Kills it after so many turns, or a little later, and looks how the connection ends.
fn dies(end: &End, mut other: Other, turns: usize, later: Duration) {
    for turn in 0..turns {
        exchange(end, turn * 1000);
    }
    let killed = std::thread::spawn(move || {
        std::thread::sleep(later);
        other.0.kill().unwrap();
        other.0.wait().unwrap();
    });
    let kind = exchange_to_the_end(end, turns * 1000);
    killed.join().unwrap();
    let ended = [
        ErrorKind::UnexpectedEof,
        ErrorKind::ConnectionReset,
        ErrorKind::BrokenPipe,
    ];
    assert!(
        ended.contains(&kind),
        "after {turns} and {later:?}: {kind:?}"
    );
}

/// Who connects has its beacon up after 8 turns; a worker comes to it after 16.
#[test]
fn a_worker_that_dies_on_its_way_to_the_san_is_an_end_and_not_a_stall() {
    for turns in [1, 8, 12, 15, 16, 17, 18, 20, 24, 32] {
        for later in [0, 300, 3000].map(Duration::from_micros) {
            let (at, worker) = worker("worker", &[]);
            let tcp = TcpStream::connect(at).unwrap();
            dies(&End::new(tcp, Role::Connected), worker, turns, later);
        }
    }
}

#[test]
fn a_client_that_dies_while_a_worker_comes_to_its_beacon_is_an_end_and_not_a_stall() {
    for turns in [1, 8, 12, 15, 16, 17, 18, 20, 24, 32] {
        for later in [0, 300, 3000].map(Duration::from_micros) {
            let (end, client) = other("echo", &[]);
            dies(&end, client, turns, later);
        }
    }
}

/// Processes whose libraries are of different times: the other one speaks versions of the session
/// protocol that this one does not, or not only those that this one does.
#[cfg(feature = "testing")]
mod versions {
    use super::*;

    const LATER: &[(&str, &str)] = &[("WSD_VERSIONS", "2-9")];
    const LATER_AND_EAGER: &[(&str, &str)] = &[("WSD_VERSIONS", "2-9"), ("WSD_EAGER", "1")];

    /// Exchanges until it is known which of these is why the connection stays on TCP, and goes on
    /// there for long enough to be tempted again.
    fn stays(end: &End, whys: &[Reason]) -> Reason {
        let mut position = 0;
        let mut turn = || {
            exchange(end, position);
            position += 1000;
            end.companion.reason()
        };
        let mut why = Reason::None;
        until("it is known why", || {
            why = turn();
            whys.contains(&why)
        });
        for _ in 0..200 {
            // Who knows why is not told that it is because of that.
            assert!(turn() != Reason::NegativeCache || why == Reason::NegativeCache);
        }
        let told = end.companion.snapshot();
        assert_eq!(told.path, Path::Tcp);
        assert_eq!((told.upgrades, told.sent_san, told.received_san), (0, 0, 0));
        let all = position as u64;
        assert_eq!((told.sent_tcp, told.received_tcp), (all, all));
        why
    }

    /// What the other end says about itself, which ends there.
    fn told(end: &End) -> String {
        end.shut();
        let mut told = String::new();
        let mut room = [0; 100];
        loop {
            let count = end.receive(&mut room, 0).unwrap();
            if count == 0 {
                return told;
            }
            told.push_str(std::str::from_utf8(&room[..count]).unwrap());
        }
    }

    /// `next` makes a connection to a process of another version.
    fn stay_on_tcp_and_ask_seldom(mut next: impl FnMut() -> End) {
        let first = next();
        stays(&first, &[Reason::Version]);
        assert_eq!(told(&first), "version");
        drop(first);
        // Each failure doubles the time: some connection comes within it.
        let whys = [Reason::Version, Reason::NegativeCache];
        let leaves_alone = |_| stays(&next(), &whys) == Reason::NegativeCache;
        assert!((0..8).any(leaves_alone), "each connection asks");
    }

    #[test]
    fn clients_of_another_version_stay_on_tcp_and_are_not_asked_again() {
        let listener = TcpListener::bind(here()).unwrap();
        let at = listener.local_addr().unwrap().to_string();
        let _client = begun("tell why again and again", at, LATER);
        stay_on_tcp_and_ask_seldom(|| End::new(listener.accept().unwrap().0, Role::Accepted));
    }

    #[test]
    fn workers_of_another_version_stay_on_tcp_and_are_not_asked_again() {
        let (at, _worker) = worker("worker that tells why", LATER);
        stay_on_tcp_and_ask_seldom(|| End::new(TcpStream::connect(at).unwrap(), Role::Connected));
    }

    fn receive_stream(end: &End, seed: u64) {
        let mut room = vec![0; 100_000];
        let mut position = 0;
        loop {
            let count = end.receive(&mut room, 0).unwrap();
            if count == 0 {
                break;
            }
            check(seed, position, &room[..count]);
            position += count;
            if position > STREAM / 2 {
                until("it is known why", || end.companion.reason() != Reason::None);
            }
        }
        assert_eq!(position, STREAM);
        let told = end.companion.snapshot();
        assert_eq!((told.upgrades, told.received_san), (0, 0));
        assert_eq!(told.received_tcp, STREAM as u64);
        // On a loaded machine the other one may not have been found.
        assert_ne!(told.reason, Reason::None);
    }

    /// The offer comes while bytes are on their way that could begin a marker, and is refused.
    #[test]
    fn a_stream_from_a_worker_of_another_version_is_whole() {
        let (at, _worker) = worker("worker that sends", LATER_AND_EAGER);
        let end = End::new(TcpStream::connect(at).unwrap(), Role::Connected);
        receive_stream(&end, DOUBTFUL);
    }

    #[test]
    fn a_stream_from_a_client_of_another_version_is_whole() {
        let (end, _client) = other("send", LATER_AND_EAGER);
        receive_stream(&end, 5);
    }

    #[test]
    fn who_speaks_more_versions_goes_over_with_a_common_one() {
        let more = [("WSD_VERSIONS", "1-3")];
        let (end, _client) = other("echo", &more);
        upgrade(&end);
        let (at, _worker) = worker("worker", &more);
        let end = End::new(TcpStream::connect(at).unwrap(), Role::Connected);
        upgrade(&end);
        // Neither of them is of this time.
        let mut both = begun("go over", at.to_string(), &[("WSD_VERSIONS", "2-4")]);
        drop(end);
        assert!(both.0.wait().unwrap().success());
    }
}
