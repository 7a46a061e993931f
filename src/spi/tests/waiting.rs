//! Waiting for results: busily, asleep, in crowds, and on the descriptor.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::harness::*;
use crate::abi::*;

fn send_byte(a: &Sock, source: &Area) {
    let op = Op::polled();
    assert_eq!(a.send(&source.all(), &op), WSA_IO_PENDING);
    a.finish(&op).unwrap();
}

#[test]
fn a_waiting_call_returns_with_the_completion() {
    let _session = Session::new();
    let (a, b) = pair();
    let area = Area::new(&b, 8, MEM_WRITE);
    let source = Area::filled(&a, b"x");
    for notify in [false, true] {
        for delay in [0, 1, 20] {
            let op = if notify { Op::notified() } else { Op::polled() };
            assert_eq!(b.recv(&area.all(), &op), WSA_IO_PENDING);
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| b.result(&op, true));
                std::thread::sleep(Duration::from_millis(delay));
                send_byte(&a, &source);
                assert_eq!(waiting.join().unwrap(), Ok((1, 0)));
            });
        }
    }
    assert_eq!(b.await_completions(3).len(), 3);
}

#[test]
fn a_waiting_call_returns_with_the_end_of_the_connection() {
    let _session = Session::new();
    for close_own in [true, false] {
        for notify in [false, true] {
            let (a, b) = pair();
            let area = Area::new(&b, 8, MEM_WRITE);
            let op = if notify { Op::notified() } else { Op::polled() };
            assert_eq!(b.recv(&area.all(), &op), WSA_IO_PENDING);
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| b.result(&op, true));
                std::thread::sleep(Duration::from_millis(10));
                let closing = if close_own { &b } else { &a };
                closing.close().unwrap();
                let code = waiting.join().unwrap().unwrap_err();
                if close_own {
                    // Not a socket any more, if the call came after the close.
                    assert!(
                        [WSA_OPERATION_ABORTED, WSAENOTSOCK].contains(&code),
                        "{code}"
                    );
                } else {
                    assert_eq!(code, WSAECONNRESET);
                }
            });
        }
    }
}

#[test]
fn waiting_for_what_was_never_started_comes_to_an_end() {
    let _session = Session::new();
    let (a, _b) = pair();
    let op = Op::polled();
    assert_eq!(
        a.result(&op, true),
        Ok((0, 0)),
        "nothing says that it is in progress"
    );
    // SAFETY: our structure.
    unsafe { (*op.pointer()).Internal = WSS_OPERATION_IN_PROGRESS };
    assert_eq!(a.result(&op, false), Err(WSA_IO_INCOMPLETE));
    assert_eq!(a.result(&op, true), Err(WSA_IO_INCOMPLETE));
}

#[test]
fn a_crowd_of_waiters_each_gets_its_own() {
    let _session = Session::new();
    let (a, b) = pair();
    const THREADS: usize = 8;
    let rounds = 30;
    let area = Area::new(&b, THREADS, MEM_WRITE);
    let source = Area::filled(&a, b"x");
    for _ in 0..rounds {
        let ops: Vec<_> = (0..THREADS)
            .map(|n| {
                let op = if n % 2 == 0 {
                    Op::polled()
                } else {
                    Op::notified()
                };
                assert_eq!(b.recv(&[area.buffer(n, 1)], &op), WSA_IO_PENDING);
                op
            })
            .collect();
        std::thread::scope(|scope| {
            let waiting: Vec<_> = ops
                .iter()
                .map(|op| scope.spawn(|| b.result(op, true)))
                .collect();
            for _ in 0..THREADS {
                send_byte(&a, &source);
            }
            for thread in waiting {
                assert_eq!(thread.join().unwrap(), Ok((1, 0)));
            }
        });
    }
    let told = b.await_completions(rounds * THREADS / 2);
    assert_eq!(told.len(), rounds * THREADS / 2);
}

/// Eight threads ask for results while the progress thread runs; the stream stays in order and
/// each operation is told of once.
#[test]
fn results_stay_in_order_under_eight_pollers() {
    let _session = Session::new();
    let (a, b) = pair();
    const COUNT: usize = 2_000;
    const WINDOW: usize = 64;
    let area = Area::new(&b, COUNT * 4, MEM_WRITE);
    let next = Arc::new(AtomicUsize::new(0));
    let ops: Vec<_> = (0..COUNT)
        .map(|n| {
            let next = Arc::clone(&next);
            Op::then(move |told| {
                assert_eq!((told.error, told.bytes), (0, 4));
                assert_eq!(next.fetch_add(1, Ordering::SeqCst), n, "out of order");
            })
        })
        .collect();
    let source = Area::new(&a, COUNT * 4, MEM_READ);
    let bytes: Vec<u8> = (0..COUNT)
        .flat_map(|n| u32::try_from(n).unwrap().to_le_bytes())
        .collect();
    source.fill(&bytes);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while next.load(Ordering::SeqCst) < COUNT {
                    let at = next.load(Ordering::SeqCst).min(COUNT - 1);
                    match b.result(&ops[at], false) {
                        Ok(_) | Err(WSA_IO_INCOMPLETE) => {}
                        Err(code) => panic!("{code}"),
                    }
                    std::thread::yield_now();
                }
            });
        }
        for (n, op) in ops.iter().enumerate() {
            eventually("room", || {
                (n < next.load(Ordering::SeqCst) + WINDOW).then_some(())
            });
            assert_eq!(b.recv(&[area.buffer(n * 4, 4)], op), WSA_IO_PENDING);
            let sent = Op::polled();
            assert_eq!(a.send(&[source.buffer(n * 4, 4)], &sent), WSA_IO_PENDING);
            assert_eq!(a.finish(&sent), Ok(4));
        }
    });
    assert_eq!(b.completions().len(), COUNT);
    assert_eq!(area.bytes(COUNT * 4), bytes);
}

#[test]
fn asking_for_results_while_holding_a_lock_that_other_sockets_upcalls_want_does_not_hang() {
    let _session = Session::new();
    let (a, b) = pair();
    let (c, d) = pair();
    let lock = Arc::new(parking_lot::Mutex::new(()));
    let area_b = Area::new(&b, 8, MEM_WRITE);
    let area_d = Area::new(&d, 8, MEM_WRITE);
    let source_a = Area::filled(&a, b"x");
    let source_c = Area::filled(&c, b"y");
    for _ in 0..20 {
        let wanted = Arc::clone(&lock);
        let other = Op::then(move |_| drop(wanted.lock()));
        assert_eq!(d.recv(&area_d.all(), &other), WSA_IO_PENDING);
        let mine = Op::polled();
        assert_eq!(b.recv(&area_b.all(), &mine), WSA_IO_PENDING);
        let held = lock.lock();
        send_byte(&c, &source_c);
        send_byte(&a, &source_a);
        assert_eq!(b.result(&mine, true), Ok((1, 0)));
        drop(held);
        eventually("the upcall", || other.has_ended().then_some(()));
    }
    d.await_completions(20);
}

#[test]
fn an_upcall_may_wait_for_the_next_operation_of_its_socket() {
    let _session = Session::new();
    let (a, b) = pair();
    let b = Arc::new(b);
    let area = Area::new(&b, 8, MEM_WRITE);
    let source = Area::filled(&a, b"x");
    let second = Arc::new(Op::notified());
    let (within, next) = (Arc::clone(&b), Arc::clone(&second));
    let first = Op::then(move |_| {
        assert_eq!(within.result(&next, true), Ok((1, 0)));
    });
    assert_eq!(b.recv(&area.all(), &first), WSA_IO_PENDING);
    assert_eq!(b.recv(&area.all(), &second), WSA_IO_PENDING);
    send_byte(&a, &source);
    send_byte(&a, &source);
    assert_eq!(b.await_completions(2).len(), 2);
}

#[test]
fn the_descriptor_tells_of_the_next_completion() {
    let _session = Session::new();
    let (a, b) = pair();
    let idle = Sock::bound();
    assert_eq!(idle.arm(), Err(WSAENOTCONN));
    let area = Area::new(&b, 8, MEM_WRITE);
    let source = Area::filled(&a, b"x");
    let (constant, _) = b.arm().unwrap();
    for _ in 0..50 {
        let op = Op::polled();
        assert_eq!(b.recv(&area.all(), &op), WSA_IO_PENDING);
        assert_eq!(b.result(&op, false), Err(WSA_IO_INCOMPLETE));
        // What was seen before may be reported once more.
        let descriptor = eventually("nothing to poll", || {
            let (descriptor, pending) = b.arm().unwrap();
            (!pending).then_some(descriptor)
        });
        assert_eq!(descriptor, constant);
        assert!(!is_readable(descriptor, Duration::ZERO));
        send_byte(&a, &source);
        assert!(is_readable(descriptor, LONG));
        assert_eq!(b.finish(&op), Ok(1));
    }
    // Something to poll: nothing is armed.
    let op = Op::polled();
    assert_eq!(b.recv(&area.all(), &op), WSA_IO_PENDING);
    send_byte(&a, &source);
    eventually("the message", || b.arm().unwrap().1.then_some(()));
    assert_eq!(b.finish(&op), Ok(1));
    assert!(b.completions().is_empty());
}

#[test]
fn the_descriptor_tells_of_what_another_thread_has_polled() {
    let _session = Session::new();
    let (a, b) = pair();
    let area = Area::new(&b, 8, MEM_WRITE);
    let source = Area::filled(&a, b"x");
    while b.arm().unwrap().1 {}
    let (one, two) = (Op::polled(), Op::polled());
    assert_eq!(b.recv(&area.all(), &one), WSA_IO_PENDING);
    assert_eq!(b.recv(&area.all(), &two), WSA_IO_PENDING);
    send_byte(&a, &source);
    // Asking for the second takes the result of the first along.
    eventually("the first", || {
        assert_eq!(b.result(&two, false), Err(WSA_IO_INCOMPLETE));
        one.has_ended().then_some(())
    });
    assert!(b.arm().unwrap().1, "a sleeper would miss the first result");
}

#[test]
fn the_descriptor_tells_of_the_end() {
    let _session = Session::new();
    let (a, b) = pair();
    let area = Area::new(&b, 8, MEM_WRITE);
    let op = Op::polled();
    assert_eq!(b.recv(&area.all(), &op), WSA_IO_PENDING);
    let descriptor = eventually("nothing to poll", || {
        let (descriptor, pending) = b.arm().unwrap();
        (!pending).then_some(descriptor)
    });
    a.close().unwrap();
    assert!(is_readable(descriptor, LONG));
    assert_eq!(b.finish(&op), Err(WSAECONNRESET));
    assert!(b.arm().unwrap().1);
}

#[test]
fn idle_connections_cost_no_cpu() {
    let _session = Session::alone();
    let pairs: Vec<_> = (0..4).map(|_| pair()).collect();
    let areas: Vec<_> = pairs
        .iter()
        .map(|(_, b)| Area::new(b, 8, MEM_WRITE))
        .collect();
    let ops: Vec<_> = pairs
        .iter()
        .zip(&areas)
        .map(|((_, b), area)| {
            let op = Op::notified();
            assert_eq!(b.recv(&area.all(), &op), WSA_IO_PENDING);
            op
        })
        .collect();
    let ticks = || {
        let progress = std::fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(Result::ok)
            .map(|task| task.path())
            .find(|task| {
                std::fs::read_to_string(task.join("comm"))
                    .is_ok_and(|name| name.trim() == "wsd-progress")
            })
            .expect("the progress thread runs");
        let stat = std::fs::read_to_string(progress.join("stat")).unwrap();
        let after = stat.rsplit(')').next().unwrap();
        let fields: Vec<_> = after.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    std::thread::sleep(Duration::from_millis(400));
    // A thread that spins would have used about 40 ticks.
    assert!(ticks() - before <= 4, "the idle progress thread runs");
    for ((a, b), op) in pairs.iter().zip(&ops) {
        send_byte(a, &Area::filled(a, b"x"));
        eventually("the upcall", || op.has_ended().then_some(()));
        assert_eq!(b.await_completions(1).len(), 1);
    }
}
