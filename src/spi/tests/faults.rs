//! Operations over a fabric that fails: each one that was started has one result, whatever happens.

use super::harness::*;
use crate::abi::*;
use crate::engine::TEST_FAULTS;
use crate::fabric::fault::Faults;

/// The provider over a fabric that fails as told.
struct Faulty {
    session: Session,
    faults: Faults,
}

impl Faulty {
    fn new() -> Self {
        let mut session = Session::alone();
        session.stop();
        let faults = Faults::new().unwrap();
        *TEST_FAULTS.lock() = Some(faults.clone());
        session.restart();
        *TEST_FAULTS.lock() = None;
        Self { session, faults }
    }

    fn plan(&self, text: &str) {
        self.faults.set(text).unwrap();
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.plan("");
        // The next session has a sound fabric.
        if !std::thread::panicking() {
            self.session.stop();
            self.session.restart();
        }
    }
}

/// Operations that were started, and how many upcalls they want.
#[derive(Default)]
struct Started {
    ops: Vec<Op>,
    notified: usize,
    refused: usize,
}

impl Started {
    /// Starts one operation, of alternating kinds of telling.
    fn start(&mut self, start: impl FnOnce(&Op) -> i32) -> i32 {
        let notify = self.ops.len().is_multiple_of(2);
        let op = if notify { Op::notified() } else { Op::polled() };
        let code = start(&op);
        if code == WSA_IO_PENDING {
            self.notified += usize::from(notify);
            self.ops.push(op);
        } else {
            self.refused += 1;
        }
        code
    }

    /// Waits for all the results and gives their codes.
    fn results(&self, socket: &Sock) -> Vec<i32> {
        self.ops
            .iter()
            .map(|op| {
                eventually("the end of an operation", || {
                    let _ = socket.result(op, false);
                    op.has_ended().then_some(())
                });
                i32::try_from(op.fields().OffsetHigh).unwrap()
            })
            .collect()
    }
}

/// Everything at once on both ends of a connection.
fn mixture(a: &Sock, b: &Sock) -> (Started, Started) {
    const LENGTH: usize = 20_000;
    let (mut of_a, mut of_b) = (Started::default(), Started::default());
    let area_a = Area::new(a, LENGTH, MEM_READWRITE);
    let area_b = Area::new(b, LENGTH, MEM_READWRITE);
    let remote = Area::unregistered(LENGTH);
    let window = b.window(&remote, MEM_READWRITE);
    for n in 0..30 {
        of_b.start(|op| b.recv(&area_b.all(), op));
        of_a.start(|op| a.send(&[area_a.buffer(n, 1000)], op));
        of_a.start(|op| a.rdma(n % 2 == 0, &[area_a.piece(0, LENGTH)], &window, 0, op));
        of_a.start(|op| a.recv(&area_a.all(), op));
        of_b.start(|op| b.send(&[area_b.buffer(n, 10)], op));
    }
    (of_a, of_b)
}

#[test]
fn closing_waits_for_the_completions_that_the_fabric_owes() {
    let faulty = Faulty::new();
    let (a, b) = pair();
    faulty.plan("hold");
    let (of_a, of_b) = mixture(&a, &b);
    assert_eq!(a.completions().len() + b.completions().len(), 0);
    std::thread::scope(|scope| {
        for socket in [&a, &b] {
            scope.spawn(|| socket.close().unwrap());
        }
        // The memory is the fabric's until then.
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!a.is_given_back() && !b.is_given_back());
        faulty.plan("");
    });
    for (socket, started) in [(&a, &of_a), (&b, &of_b)] {
        socket.await_given_back();
        assert!(started.ops.iter().all(Op::has_ended));
        assert_eq!(socket.completions().len(), started.notified);
    }
}

#[test]
fn completions_that_were_held_back_come_once_in_order() {
    let faulty = Faulty::new();
    let (a, b) = pair();
    faulty.plan("hold");
    let (of_a, of_b) = mixture(&a, &b);
    faulty.plan("");
    for (socket, started) in [(&a, &of_a), (&b, &of_b)] {
        assert_eq!(started.refused, 0);
        assert!(started.results(socket).iter().all(|code| *code == 0));
        let told = socket.await_completions(started.notified);
        assert_eq!(told.len(), started.notified);
    }
}

#[test]
fn late_completions_find_their_waiters() {
    let faulty = Faulty::new();
    let (a, b) = pair();
    faulty.plan("delay:5");
    let area = Area::new(&b, 64, MEM_WRITE);
    let source = Area::filled(&a, b"late");
    for notify in [false, true] {
        let op = if notify { Op::notified() } else { Op::polled() };
        assert_eq!(b.recv(&area.all(), &op), WSA_IO_PENDING);
        let sent = Op::polled();
        assert_eq!(a.send(&source.all(), &sent), WSA_IO_PENDING);
        assert_eq!(b.result(&op, true), Ok((4, 0)));
        assert_eq!(a.result(&sent, true), Ok((4, 0)));
    }
    assert_eq!(b.await_completions(1).len(), 1);
}

// req: WSD-11
#[test]
fn a_link_that_breaks_at_any_post_ends_everything_once() {
    let faulty = Faulty::new();
    for at in [1, 2, 3, 5, 8, 20, 60, 110, 149] {
        let (a, b) = pair();
        faulty.plan(&format!("cut:{at}"));
        let (of_a, of_b) = mixture(&a, &b);
        assert!(of_a.refused + of_b.refused > 0, "cut:{at} did not cut");
        for (socket, started) in [(&a, &of_a), (&b, &of_b)] {
            let codes = started.results(socket);
            let known = [0, WSAECONNABORTED, WSAECONNRESET];
            assert!(codes.iter().all(|code| known.contains(code)), "{codes:?}");
            let told = socket.await_completions(started.notified);
            assert_eq!(told.len(), started.notified, "cut:{at}");
            socket.close().unwrap();
            socket.await_given_back();
            assert_eq!(socket.completions().len(), started.notified);
        }
    }
}

#[test]
fn a_post_that_finds_the_queue_full_waits_its_turn() {
    let faulty = Faulty::new();
    for at in [1, 2, 7, 30] {
        let (a, b) = pair();
        faulty.plan(&format!("post:{at}"));
        let (of_a, of_b) = mixture(&a, &b);
        for (socket, started) in [(&a, &of_a), (&b, &of_b)] {
            assert_eq!(started.refused, 0);
            assert!(started.results(socket).iter().all(|code| *code == 0));
            assert_eq!(
                socket.await_completions(started.notified).len(),
                started.notified
            );
        }
    }
}

#[test]
fn registrations_without_resources_say_so_and_the_connection_goes_on() {
    let faulty = Faulty::new();
    let (a, b) = pair();
    let area = Area::unregistered(64);
    faulty.plan("register:1,expose:1");
    let kept = a.register(area.pointer(0), 64, MEM_READ).unwrap();
    for _ in 0..3 {
        let other = a.register(area.pointer(0), 64, MEM_WRITE);
        assert_eq!(other, Err(WSAENOBUFS));
    }
    // The same once more needs no resources.
    assert_eq!(a.register(area.pointer(0), 64, MEM_READ), Ok(kept));
    let window = a.window(&area, MEM_READ);
    let other = a.expose(area.pointer(0), 64, MEM_WRITE, &mut [0; 64]);
    assert_eq!(other.unwrap_err().0, WSAENOBUFS);
    a.conceal(&window).unwrap();
    faulty.plan("");
    pass(&a, &b, b"as before");
    pass(&b, &a, b"both ways");
}

/// The answer to the query for the cache callback.
fn cache_callback() -> Result<LPFN_WSPMEMORYREGISTRATIONCACHECALLBACK, i32> {
    let mut id = WSAID_MEMORYREGISTRATIONCACHECALLBACK;
    let mut function: LPFN_WSPMEMORYREGISTRATIONCACHECALLBACK = None;
    let mut returned = 0;
    call(SOCKET_ERROR, |e| {
        table!(lpWSPIoctl(
            INVALID_SOCKET,
            SIO_GET_EXTENSION_FUNCTION_POINTER,
            (&raw mut id).cast(),
            16,
            (&raw mut function).cast(),
            8,
            &raw mut returned,
            std::ptr::null_mut(),
            None,
            std::ptr::null_mut(),
            e
        ))
    })
    .map(|_| function)
}

#[test]
fn a_fabric_that_keeps_registrations_is_told_of_memory_that_goes_back() {
    // req: LATER-04
    let faulty = Faulty::new();
    // A host with RDMA devices keeps some by itself.
    let keeps = crate::engine::running().unwrap().0.keeps_registrations();
    assert_eq!(cache_callback().err(), (!keeps).then_some(WSAEOPNOTSUPP));
    faulty.plan("kept:idle");
    let function = cache_callback().unwrap().unwrap();
    let tell = |size| {
        let mut memory = [0_u8; 8];
        call(SOCKET_ERROR, |e| {
            // SAFETY: the function reads nothing there; the code is a place of `call`.
            unsafe { function(memory.as_mut_ptr().cast(), size, e) }
        })
    };
    assert_eq!(tell(8), Ok(0));
    faulty.plan("kept:used");
    assert_eq!(tell(8), Err(WSAEFAULT));
    faulty.plan("kept:none");
    assert_eq!(tell(8), Err(WSAEINVAL));
    assert_eq!(tell(0), Err(WSAEINVAL));
    // Whoever still has the function of a fabric that did keep them.
    faulty.plan("");
    let nothing = if keeps { WSAEINVAL } else { WSAEOPNOTSUPP };
    assert_eq!(tell(8), Err(nothing));
}

// req: WSD-14
#[test]
fn messages_find_room_when_transfers_have_taken_all_that_is_theirs() {
    const MOST: usize = 1 << 20;
    for write in [true, false] {
        let faulty = Faulty::new();
        let (a, b) = pair();
        let local = Area::new(&a, 64, MEM_READWRITE);
        let said = Area::filled(&a, b"credit");
        let heard = Area::new(&b, 64, MEM_WRITE);
        let remote = Area::unregistered(64);
        let window = b.window(&remote, MEM_READWRITE);
        faulty.plan("hold");
        let mut of_a = Started::default();
        let pieces = [local.piece(0, 64)];
        while of_a.start(|op| a.rdma(write, &pieces, &window, 0, op)) == WSA_IO_PENDING {
            assert!(of_a.ops.len() < MOST, "no limit");
        }
        assert_eq!(
            a.rdma(write, &pieces, &window, 0, &Op::polled()),
            WSAEWOULDBLOCK
        );
        // As many as the switch may have under way, and in the end there is a limit for them, too.
        let mut of_b = Started::default();
        for _ in 0..16 {
            assert_eq!(of_b.start(|op| b.recv(&heard.all(), op)), WSA_IO_PENDING);
            assert_eq!(of_a.start(|op| a.send(&said.all(), op)), WSA_IO_PENDING);
        }
        assert_eq!(a.send(&said.all(), &Op::polled()), WSAEWOULDBLOCK);
        faulty.plan("");
        assert!(of_a.results(&a).iter().all(|&code| code == 0));
        assert!(of_b.results(&b).iter().all(|&code| code == 0));
        assert_eq!(heard.bytes(6), b"credit");
    }
}
