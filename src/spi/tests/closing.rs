//! Closing: what happens to everything that is going on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};

use super::harness::*;
use crate::abi::*;

/// Posts receives of both kinds, alternating; the first is polled.
fn receives(socket: &Sock, area: &Area, count: usize) -> Vec<Op> {
    (0..count)
        .map(|n| {
            let op = if n % 2 == 0 {
                Op::polled()
            } else {
                Op::notified()
            };
            assert_eq!(socket.recv(&area.all(), &op), WSA_IO_PENDING);
            op
        })
        .collect()
}

// req: WSD-11
#[test]
fn closing_ends_every_operation_once_and_gives_the_switch_socket_back_last() {
    let _session = Session::new();
    for count in [0, 1, 2, 7, 40] {
        let (a, b) = pair();
        let area_a = Area::new(&a, 64, MEM_WRITE);
        let area_b = Area::new(&b, 64, MEM_WRITE);
        let pending_a = receives(&a, &area_a, count);
        let pending_b = receives(&b, &area_b, count);
        a.close().unwrap();
        assert!(a.is_given_back());
        assert_eq!(a.close(), Err(WSAENOTSOCK));
        for op in &pending_a {
            assert!(op.has_ended());
            assert_eq!(op.fields().OffsetHigh, 995);
            assert_eq!(op.fields().InternalHigh, 0);
            assert_eq!(a.result(op, true), Err(WSAENOTSOCK));
        }
        let told = a.completions();
        assert_eq!(told.len(), count / 2);
        assert!(told.iter().all(|told| (told.error, told.bytes) == (995, 0)));
        // The other side does nothing and is told nevertheless.
        let told = b.await_completions(count / 2);
        assert!(
            told.iter()
                .all(|told| (told.error, told.bytes) == (10_054, 0))
        );
        for op in &pending_b {
            assert_eq!(b.finish(op), Err(WSAECONNRESET));
        }
        let op = Op::notified();
        let source = Area::unregistered(8);
        if count > 0 {
            assert_eq!(b.recv(&area_b.all(), &op), WSAECONNRESET);
        }
        assert_eq!(b.send(&source.all(), &op), WSAEFAULT);
        b.close().unwrap();
        assert_eq!(b.completions().len(), count / 2);
    }
}

// req: WSD-11
#[test]
fn sends_that_wait_end_with_the_close_of_either_side() {
    let _session = Session::new();
    for close_sender in [true, false] {
        let (a, b) = pair();
        let source = Area::new(&a, 60_000, MEM_READ);
        // Nobody receives: more than the way holds.
        let sent: Vec<_> = (0..400)
            .map(|n| {
                let op = if n % 2 == 0 {
                    Op::polled()
                } else {
                    Op::notified()
                };
                assert_eq!(a.send(&source.all(), &op), WSA_IO_PENDING);
                op
            })
            .collect();
        let (closing, code) = if close_sender {
            (&a, 995)
        } else {
            (&b, 10_054)
        };
        closing.close().unwrap();
        let told = a.await_completions(200);
        assert_eq!(told.len(), 200);
        for op in &sent {
            eventually("the end of a send", || {
                if !close_sender {
                    let _ = a.result(op, false);
                }
                op.has_ended().then_some(())
            });
            let fields = op.fields();
            assert!([0, code].contains(&fields.OffsetHigh), "{fields:?}");
        }
        assert_eq!(sent.last().unwrap().fields().OffsetHigh, code);
    }
}

#[test]
fn what_was_sent_before_the_close_arrives_before_the_end() {
    let _session = Session::new();
    let (a, b) = pair();
    let source = Area::filled(&a, b"last words");
    let area = Area::new(&b, 640, MEM_WRITE);
    for _ in 0..5 {
        let op = Op::polled();
        assert_eq!(a.send(&source.all(), &op), WSA_IO_PENDING);
        a.finish(&op).unwrap();
    }
    a.close().unwrap();
    for n in 0..5 {
        let op = Op::polled();
        assert_eq!(b.recv(&[area.buffer(n * 10, 10)], &op), WSA_IO_PENDING);
        assert_eq!(b.finish(&op), Ok(10));
    }
    assert_eq!(area.bytes(50), b"last words".repeat(5));
    let op = Op::polled();
    match b.recv(&area.all(), &op) {
        WSA_IO_PENDING => assert_eq!(b.finish(&op), Err(WSAECONNRESET)),
        code => assert_eq!(code, WSAECONNRESET),
    }
}

#[test]
fn both_sides_may_close_at_once() {
    let _session = Session::new();
    let listener = Sock::listening(8);
    for _ in 0..100 {
        let (a, b) = pair_through(&listener);
        let area = Area::new(&a, 8, MEM_WRITE);
        let pending = receives(&a, &area, 4);
        std::thread::scope(|scope| {
            scope.spawn(|| a.close().unwrap());
            scope.spawn(|| b.close().unwrap());
        });
        a.await_given_back();
        b.await_given_back();
        assert!(pending.iter().all(Op::has_ended));
        assert_eq!(a.completions().len(), 2);
    }
}

#[test]
fn of_many_closers_one_closes() {
    let _session = Session::new();
    let (a, _b) = pair();
    let closed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| match a.close() {
                Ok(()) => {
                    closed.fetch_add(1, Ordering::SeqCst);
                }
                Err(code) => assert_eq!(code, WSAENOTSOCK),
            });
        }
    });
    assert_eq!(closed.load(Ordering::SeqCst), 1);
    a.await_given_back();
}

/// Sends one byte from `a` to the receive that `b` has posted. The upcall there may close `a`.
fn poke(a: &Sock) {
    let source = Area::filled(a, b"!");
    assert_eq!(a.send(&source.all(), &Op::polled()), WSA_IO_PENDING);
}

#[test]
fn a_socket_may_be_closed_within_its_own_upcall() {
    let _session = Session::new();
    let (a, b) = pair();
    let b = Arc::new(b);
    let area = Area::new(&b, 64, MEM_WRITE);
    let within = Arc::clone(&b);
    let left = Arc::new(AtomicBool::new(false));
    let leave = Arc::clone(&left);
    let closing = Op::then(move |_| {
        within.close().unwrap();
        assert!(!within.is_given_back(), "given back under a running upcall");
        assert_eq!(within.close(), Err(WSAENOTSOCK));
        leave.store(true, Ordering::SeqCst);
    });
    assert_eq!(b.recv(&area.all(), &closing), WSA_IO_PENDING);
    let rest = receives(&b, &area, 6);
    poke(&a);
    b.await_given_back();
    assert!(left.load(Ordering::SeqCst));
    assert_eq!(b.completions().len(), 1 + 3);
    assert!(rest.iter().all(Op::has_ended));
}

#[test]
fn an_upcall_may_close_another_socket_and_the_last_one() {
    let _session = Session::new();
    let (a, b) = pair();
    let (a, b) = (Arc::new(a), Arc::new(b));
    let area = Area::new(&b, 64, MEM_WRITE);
    let both = (Arc::clone(&a), Arc::clone(&b));
    let closing = Op::then(move |_| {
        both.0.close().unwrap();
        both.1.close().unwrap();
    });
    assert_eq!(b.recv(&area.all(), &closing), WSA_IO_PENDING);
    poke(&a);
    a.await_given_back();
    b.await_given_back();
}

/// A gate that upcalls wait at.
#[derive(Default)]
struct Gate {
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock();
        state.0 = true;
        self.changed.notify_all();
        while !state.1 {
            let timed_out = self.changed.wait_for(&mut state, LONG).timed_out();
            assert!(!timed_out);
        }
    }

    fn await_arrival(&self) {
        let mut state = self.state.lock();
        while !state.0 {
            assert!(!self.changed.wait_for(&mut state, LONG).timed_out());
        }
    }

    fn open(&self) {
        self.state.lock().1 = true;
        self.changed.notify_all();
    }
}

#[test]
fn a_close_during_an_upcall_of_another_thread_gives_back_when_it_returns() {
    let _session = Session::new();
    let (a, b) = pair();
    let area = Area::new(&b, 64, MEM_WRITE);
    let gate: Arc<Gate> = Arc::default();
    let at_gate = Arc::clone(&gate);
    let blocking = Op::then(move |_| at_gate.pass());
    assert_eq!(b.recv(&area.all(), &blocking), WSA_IO_PENDING);
    let rest = receives(&b, &area, 4);
    poke(&a);
    gate.await_arrival();
    b.close().unwrap();
    assert_eq!(b.close(), Err(WSAENOTSOCK));
    assert!(!b.is_given_back());
    // Those that are polled have ended; the other upcalls wait for their turn.
    assert!(rest[0].has_ended() && rest[2].has_ended());
    gate.open();
    b.await_given_back();
    assert_eq!(b.completions().len(), 3);
    assert!(rest.iter().all(Op::has_ended));
}

#[test]
fn an_upcall_may_start_operations_and_ask_for_results() {
    let _session = Session::new();
    let (a, b) = pair();
    let b = Arc::new(b);
    let area = Arc::new(Area::new(&b, 64, MEM_READWRITE));
    const ROUNDS: usize = 50;
    let rounds = Arc::new(AtomicUsize::new(0));
    let ops: Arc<Mutex<Vec<Op>>> = Arc::default();

    fn post(b: &Arc<Sock>, area: &Arc<Area>, rounds: &Arc<AtomicUsize>, ops: &Arc<Mutex<Vec<Op>>>) {
        let (b2, area2) = (Arc::clone(b), Arc::clone(area));
        let (rounds2, ops2) = (Arc::clone(rounds), Arc::clone(ops));
        let op = Op::then(move |told| {
            assert_eq!((told.error, told.bytes), (0, 1));
            let overlapped = std::ptr::with_exposed_provenance_mut(told.overlapped);
            assert_eq!(result_of(b2.s, overlapped, false), Ok((1, 0)));
            if rounds2.fetch_add(1, Ordering::SeqCst) + 1 < ROUNDS {
                post(&b2, &area2, &rounds2, &ops2);
            }
            // An answer from within.
            let sent = Op::polled();
            assert_eq!(b2.send(&[area2.buffer(32, 1)], &sent), WSA_IO_PENDING);
            assert_eq!(b2.finish(&sent), Ok(1));
        });
        op.pointer().expose_provenance();
        assert_eq!(b.recv(&[area.buffer(0, 1)], &op), WSA_IO_PENDING);
        ops.lock().push(op);
    }

    post(&b, &area, &rounds, &ops);
    let answers = Area::new(&a, 8, MEM_WRITE);
    for _ in 0..ROUNDS {
        let answer = Op::polled();
        assert_eq!(a.recv(&answers.all(), &answer), WSA_IO_PENDING);
        poke(&a);
        assert_eq!(a.finish(&answer), Ok(1));
    }
    assert_eq!(b.await_completions(ROUNDS).len(), ROUNDS);
    a.close().unwrap();
    b.close().unwrap();
}

#[test]
fn calls_with_sockets_that_are_none_are_answered() {
    let _session = Session::new();
    let (a, _b) = pair();
    let area = Area::new(&a, 8, MEM_READWRITE);
    let handle = area.handle;
    a.close().unwrap();
    let op = Op::notified();
    for s in [a.s, INVALID_SOCKET, 0, 7, a.switch_socket()] {
        let ghost = |s| {
            let mut ghost = Sock::new();
            ghost.close().unwrap();
            ghost.s = s;
            ghost
        };
        let ghost = ghost(s);
        let none = WSAENOTSOCK;
        assert_eq!(ghost.bind(ghost.at), Err(none));
        assert_eq!(ghost.listen(1), Err(none));
        assert_eq!(ghost.accept().err(), Some(none));
        assert_eq!(ghost.connect(ghost.at), none);
        assert_eq!(ghost.select(FD_ACCEPT), Err(none));
        assert_eq!(ghost.send(&area.all(), &op), none);
        assert_eq!(ghost.recv(&area.all(), &op), none);
        assert_eq!(ghost.result(&op, false), Err(none));
        assert_eq!(ghost.result(&op, true), Err(none));
        assert_eq!(ghost.register(area.pointer(0), 8, MEM_READ), Err(none));
        assert_eq!(ghost.deregister(handle), Err(none));
        assert_eq!(
            ghost.expose(area.pointer(0), 8, 1, &mut [0; 64]),
            Err((none, 64))
        );
        assert_eq!(ghost.conceal(&[0; 32]), Err(none));
        assert_eq!(
            ghost.rdma(true, &[area.piece(0, 8)], &[0; 32], 0, &op),
            none
        );
        assert_eq!(
            ghost.rdma(false, &[area.piece(0, 8)], &[0; 32], 0, &op),
            none
        );
        assert_eq!(ghost.arm(), Err(none));
        assert_eq!(ghost.close(), Err(none));
    }
}
