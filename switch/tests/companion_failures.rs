//! Upgrades that cannot be, or meet something unusual: the connection goes on, whole.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    unused_qualifications
)]

#[path = "companion/ends.rs"]
mod ends;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ends::{End, check, fill, here, kernel_pair, to_and_fro, until, upgrade};
use wsd_switch::companion::{Companion, Path, Reason, Role};

/// Bound, and connected later.
fn socket_at(port: u16) -> TcpStream {
    // SAFETY: takes no pointer.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0);
    // SAFETY: the new descriptor has one owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let yes: libc::c_int = 1;
    // SAFETY: an integer of this frame, as long as it is said to be.
    let set = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_REUSEADDR,
            (&raw const yes).cast(),
            size_of_val(&yes) as libc::socklen_t,
        )
    };
    assert_eq!(set, 0);
    let name = name(port);
    let len = size_of_val(&name) as libc::socklen_t;
    // SAFETY: an address of this frame, as long as it is said to be.
    let bound = unsafe { libc::bind(fd, (&raw const name).cast(), len) };
    assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
    TcpStream::from(socket)
}

fn name(port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(*here().ip()).to_be(),
        },
        sin_zero: [0; 8],
    }
}

/// The kernel's answer, 0 or an errno.
fn connect(socket: &TcpStream, to: u16) -> i32 {
    let name = name(to);
    let len = size_of_val(&name) as libc::socklen_t;
    // SAFETY: an address of this frame, as long as it is said to be.
    let connected = unsafe { libc::connect(socket.as_raw_fd(), (&raw const name).cast(), len) };
    match connected {
        0 => 0,
        _ => std::io::Error::last_os_error().raw_os_error().unwrap(),
    }
}

#[test]
fn connections_that_take_each_others_ports_are_not_mistaken_for_each_other() {
    let listener = TcpListener::bind(here()).unwrap();
    let server = listener.local_addr().unwrap().port();
    let client = socket_at(0).local_addr().unwrap().port();
    for round in 0..10 {
        let mut tcp = None;
        until("the ports are free again", || {
            let socket = socket_at(client);
            let connected = connect(&socket, server) == 0;
            tcp = connected.then_some(socket);
            connected
        });
        let one = End::new(tcp.unwrap(), Role::Connected);
        let two = End::new(listener.accept().unwrap().0, Role::Accepted);
        if round % 3 == 2 {
            // Gone again before anybody has offered it, or meanwhile.
            to_and_fro(&one, &two, 1, 8 + round);
        } else {
            upgrade(&one, &two);
            to_and_fro(&one, &two, 1, 20);
        }
        // A reset: the ports are not kept for what may still come.
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        // SAFETY: a structure of this frame, as long as it is said to be.
        let set = unsafe {
            libc::setsockopt(
                one.fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                size_of_val(&linger) as libc::socklen_t,
            )
        };
        assert_eq!(set, 0);
        drop(one);
        let error = two.receive(&mut [0], 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
    }
}

/// Both ends are talking to it, not to each other; their addresses do not fit.
#[test]
fn a_proxy_between_two_switches_gets_every_byte_and_nothing_else() {
    let proxy = TcpListener::bind(here()).unwrap();
    let behind = TcpListener::bind(here()).unwrap();
    let one = End::new(
        TcpStream::connect(proxy.local_addr().unwrap()).unwrap(),
        Role::Connected,
    );
    let front = proxy.accept().unwrap().0;
    let back = TcpStream::connect(behind.local_addr().unwrap()).unwrap();
    let two = End::new(behind.accept().unwrap().0, Role::Accepted);
    let copy = |mut from: TcpStream, mut to: TcpStream| {
        thread::spawn(move || {
            let mut room = vec![0; 10_000];
            loop {
                match from.read(&mut room).unwrap() {
                    0 => break,
                    count => to.write_all(&room[..count]).unwrap(),
                }
            }
            to.shutdown(Shutdown::Write).unwrap();
        })
    };
    let forth = copy(front.try_clone().unwrap(), back.try_clone().unwrap());
    let home = copy(back, front);
    to_and_fro(&one, &two, 1, 300);
    until("the accepting end has found nobody", || {
        two.companion.reason() == Reason::PeerSilent
    });
    to_and_fro(&one, &two, 1, 300);
    assert_eq!(one.companion.path(), Path::Tcp);
    assert_eq!(two.companion.path(), Path::Tcp);
    one.shut();
    two.shut();
    forth.join().unwrap();
    home.join().unwrap();
    assert_eq!(one.receive(&mut [0], 0).unwrap(), 0);
    assert_eq!(two.receive(&mut [0], 0).unwrap(), 0);
}

/// Calls of connect() that cross make such a connection. Both wait to be called.
#[test]
fn a_connection_that_both_ends_have_opened_stays_with_the_kernel() {
    let (one, two) = kernel_pair();
    let (one, two) = (
        End::new(one, Role::Connected),
        End::new(two, Role::Connected),
    );
    to_and_fro(&one, &two, 1, 500);
    assert_eq!(one.companion.path(), Path::Tcp);
    assert_eq!(two.companion.path(), Path::Tcp);
}

#[test]
fn a_connection_with_itself_keeps_its_bytes() {
    let tcp = socket_at(0);
    assert_eq!(connect(&tcp, tcp.local_addr().unwrap().port()), 0);
    let end = End::new(tcp, Role::Connected);
    let (mut bytes, mut room) = ([0; 1000], [0; 1000]);
    for round in 0..500 {
        fill(3, round * 1000, &mut bytes);
        end.send_all(&bytes).unwrap();
        end.receive_exactly(&mut room).unwrap();
        check(3, round * 1000, &room);
    }
    assert_eq!(end.companion.path(), Path::Tcp);
    end.shut();
    assert_eq!(end.receive(&mut room, 0).unwrap(), 0);
}

/// What has given up looks again, after more traffic.
#[test]
fn a_connection_taken_up_late_is_upgraded_all_the_same() {
    let (one, two) = kernel_pair();
    let one = End::new(one, Role::Connected);
    // Long enough for whoever asks four times.
    let bytes = vec![5; 100_000];
    one.send_all(&bytes).unwrap();
    thread::sleep(Duration::from_secs(2));
    let two = End::new(two, Role::Accepted);
    let mut room = vec![0; 100_000];
    two.receive_exactly(&mut room).unwrap();
    assert!(room == bytes);
    upgrade(&one, &two);
    to_and_fro(&one, &two, 1, 20);
}

/// Runs in a process of its own, see below.
#[test]
#[ignore = "takes away all descriptors of its process"]
fn without_descriptors() {
    let (one, two) = kernel_pair();
    let (one, two) = (
        End::new(one, Role::Connected),
        End::new(two, Role::Accepted),
    );
    let mut taken = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        taken.push(file);
    }
    to_and_fro(&one, &two, 1, 500);
    let why = [one.companion.reason(), two.companion.reason()];
    assert_eq!([one.companion.path(), two.companion.path()], [Path::Tcp; 2]);
    assert!(
        why.contains(&Reason::NoDescriptors),
        "{why:?} is not for want of descriptors"
    );
    // And when there are some again, the upgrade comes.
    drop(taken);
    let end = Instant::now() + Duration::from_secs(50);
    while !(one.is_san() && two.is_san()) {
        assert!(
            Instant::now() < end,
            "{:?} {:?}",
            one.companion.snapshot(),
            two.companion.snapshot()
        );
        to_and_fro(&one, &two, 1, 50);
    }
    to_and_fro(&one, &two, 1, 20);
    assert!(Companion::new(std::os::fd::AsFd::as_fd(&one.tcp), Role::Connected).is_some());
}

#[test]
fn a_process_without_a_descriptor_left_goes_on_with_the_kernel_until_it_has_some_again() {
    limited("-n 64", "without_descriptors");
}

/// Runs in a process of its own, see below.
#[test]
#[ignore = "may make no memory file"]
fn without_memory() {
    let (one, two) = kernel_pair();
    let (one, two) = (
        End::new(one, Role::Connected),
        End::new(two, Role::Accepted),
    );
    until("one says what there is too little of", || {
        to_and_fro(&one, &two, 1, 50);
        let why = [one.companion.reason(), two.companion.reason()];
        why.contains(&Reason::NoMemory)
    });
    assert_eq!([one.companion.path(), two.companion.path()], [Path::Tcp; 2]);
    // And when there is some again, the upgrade comes.
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a whole rlimit of this frame.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) };
    assert_eq!(set, 0);
    upgrade(&one, &two);
    to_and_fro(&one, &two, 1, 20);
}

/// Runs the ignored test of this name with a limit of its shell's.
fn limited(limit: &str, name: &str) {
    let run = Command::new("sh")
        .args(["-c", &format!("ulimit {limit}; exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", name, "--nocapture"])
        .output()
        .unwrap();
    assert!(
        run.status.success(),
        "{}: {}{}",
        run.status,
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr)
    );
}

#[test]
fn a_process_that_may_make_no_memory_files_goes_on_with_the_kernel_until_it_may() {
    limited("-S -f 0", "without_memory");
}

/// Runs in a process of its own, see below.
#[test]
#[ignore = "may lock no memory"]
fn without_locked_memory() {
    let (one, two) = kernel_pair();
    let (one, two) = (
        End::new(one, Role::Connected),
        End::new(two, Role::Accepted),
    );
    upgrade(&one, &two);
    to_and_fro(&one, &two, 1, 200);
}

/// The embedded SAN locks none, so it is no reason to stay with the kernel.
#[test]
fn a_process_that_may_lock_no_memory_is_upgraded_by_the_embedded_san() {
    limited("-l 0", "without_locked_memory");
}
