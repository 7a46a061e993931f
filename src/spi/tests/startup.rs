//! Starting, stopping, and starting again.

use super::harness::*;
use crate::abi::*;

// req: WSD-01
#[test]
fn the_table_that_is_handed_out_has_no_null_slot() {
    let _session = Session::new();
    let mut data = WSPDATA::default();
    let mut table = WSPPROC_TABLE::default();
    let mut upcalls = upcalls();
    let result = start_with(0x0302, &raw mut data, &raw mut upcalls, &raw mut table);
    assert_eq!(result, 0);
    assert_eq!((data.wVersion, data.wHighVersion), (0x0202, 0x0202));
    let name = String::from_utf16_lossy(&data.szDescription);
    assert!(name.starts_with("wsdirect"));
    assert_eq!(data.szDescription[255], 0);
    assert_eq!(size_of_val(&table), 240);
    // SAFETY: the table is 30 pointers, and any value of a pointer is a number.
    let slots: [usize; 30] = unsafe { std::mem::transmute(table) };
    assert!(slots.iter().all(|slot| *slot != 0));
    cleanup().unwrap();
}

// req: WSD-02
#[test]
fn old_versions_and_null_places_are_refused() {
    let _session = Session::new();
    let mut data = WSPDATA::default();
    let mut table = WSPPROC_TABLE::default();
    let mut upcalls = upcalls();
    let (d, u, t) = (&raw mut data, &raw mut upcalls, &raw mut table);
    for version in [0x0000, 0x0001, 0x0101, 0x0002, 0x0102, 0x0201] {
        assert_eq!(
            start_with(version, d, u, t),
            WSAVERNOTSUPPORTED,
            "{version:#x}"
        );
    }
    let version = WSP_VERSION;
    assert_eq!(start_with(version, std::ptr::null_mut(), u, t), WSAEFAULT);
    assert_eq!(start_with(version, d, std::ptr::null_mut(), t), WSAEFAULT);
    assert_eq!(start_with(version, d, u, std::ptr::null_mut()), WSAEFAULT);
    let mut incomplete = WSPUPCALLTABLEEX {
        lpWPUCompleteOverlappedRequest: None,
        ..super::harness::upcalls()
    };
    assert_eq!(start_with(version, d, &raw mut incomplete, t), WSAEFAULT);
    assert!(table.lpWSPSend.is_none());
}

// req: WSD-02
#[test]
fn every_start_wants_its_clean_up() {
    let mut session = Session::alone();
    start();
    start();
    let socket = Sock::new();
    cleanup().unwrap();
    cleanup().unwrap();
    assert!(socket.bind(socket.at).is_ok(), "still started");
    session.stop();
    assert_eq!(cleanup(), Err(WSANOTINITIALISED));
    assert_eq!(socket.listen(1), Err(WSAENOTSOCK));
    let made = socket_of(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP);
    assert_eq!(made, Err(WSANOTINITIALISED));
    session.restart();
    let (a, b) = pair();
    pass(&a, &b, b"started again");
    assert_eq!(
        socket.close(),
        Err(WSAENOTSOCK),
        "a number is not used again"
    );
}

#[test]
fn the_last_clean_up_closes_what_is_left() {
    let mut session = Session::alone();
    let listener = Sock::listening(4);
    let (a, b) = pair_through(&listener);
    let waiting = Sock::bound();
    waiting.begin_connect(listener.at);
    let area = Area::new(&a, 64, MEM_WRITE);
    let (polled, notified) = (Op::polled(), Op::notified());
    assert_eq!(a.recv(&area.all(), &polled), WSA_IO_PENDING);
    assert_eq!(a.recv(&area.all(), &notified), WSA_IO_PENDING);
    session.stop();
    for socket in [&a, &b, &listener, &waiting] {
        assert!(socket.is_given_back());
        assert_eq!(socket.close(), Err(WSAENOTSOCK));
    }
    assert!(polled.has_ended() && notified.has_ended());
    // Which of the two ends was closed first is not said.
    for error in [polled.fields().OffsetHigh, notified.fields().OffsetHigh] {
        assert!([995, 10_054].contains(&error), "{error}");
    }
    assert_eq!(a.completions().len(), 1);
    session.restart();
    let (a, b) = pair();
    pass(&b, &a, b"a new life");
}

#[test]
fn starting_and_stopping_leaves_no_threads_or_descriptors() {
    let mut session = Session::alone();
    let count = |what: &str| {
        std::fs::read_dir(format!("/proc/self/{what}"))
            .unwrap()
            .count()
    };
    let threads = || {
        std::fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
            .filter(|name| name.trim() == "wsd-progress")
            .count()
    };
    session.stop();
    assert_eq!(threads(), 0);
    let before = count("fd");
    for _ in 0..5 {
        start();
        {
            let (a, b) = pair();
            pass(&a, &b, b"x");
            assert_eq!(threads(), 1);
        }
        cleanup().unwrap();
        assert_eq!(threads(), 0);
    }
    // Other tests stand still, but the test runner itself may open something.
    assert!(
        count("fd") <= before + 4,
        "{} descriptors, before {before}",
        count("fd")
    );
    session.restart();
}

#[test]
fn a_child_process_has_no_sockets_and_may_start_for_itself() {
    let mut session = Session::alone();
    let listener = Sock::listening(4);
    let (a, b) = pair_through(&listener);
    pass(&a, &b, b"before");
    // SAFETY: no other test runs; the child ends by `_exit`, or by its alarm.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        // SAFETY: plain values.
        unsafe { libc::alarm(30) };
        let right = std::panic::catch_unwind(|| {
            assert_eq!(cleanup(), Err(WSANOTINITIALISED));
            assert_eq!(a.close(), Err(WSAENOTSOCK));
            let made = socket_of(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP);
            assert_eq!(made, Err(WSANOTINITIALISED));
            start();
            let (c, d) = pair();
            pass(&c, &d, b"a connection of the child");
            cleanup().unwrap();
        });
        // SAFETY: ends the child without touching what is the parent's.
        unsafe { libc::_exit(i32::from(right.is_err())) };
    }
    let mut status = 0;
    // SAFETY: a child of ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child has failed");
    pass(&b, &a, b"and after");
    pass_once_more(&listener);
    session.stop();
    session.restart();
}

fn pass_once_more(listener: &Sock) {
    let (a, b) = pair_through(listener);
    pass(&a, &b, b"the listener lives, too");
}
