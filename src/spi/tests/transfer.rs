//! Messages and their results.

use std::sync::Arc;

use parking_lot::Mutex;

use super::harness::*;
use crate::abi::*;

// req: WSD-09
#[test]
fn the_first_message_is_kept_until_a_receive_is_posted() {
    let _session = Session::new();
    for length in [1, 255, 256] {
        let (a, b) = pair();
        let message: Vec<u8> = (0..=255).cycle().take(length).collect();
        let source = Area::filled(&a, &message);
        let sent = Op::polled();
        assert_eq!(a.send(&source.all(), &sent), WSA_IO_PENDING);
        assert_eq!(a.finish(&sent), Ok(u32::try_from(length).unwrap()));
        source.fill(&vec![0; length]);
        std::thread::sleep(std::time::Duration::from_millis(10));
        let first = Area::new(&b, 300, MEM_WRITE);
        let second = Area::new(&b, 300, MEM_WRITE);
        let (one, two) = (Op::polled(), Op::polled());
        assert_eq!(b.recv(&first.all(), &one), WSA_IO_PENDING);
        assert_eq!(b.recv(&second.all(), &two), WSA_IO_PENDING);
        assert_eq!(b.finish(&one), Ok(u32::try_from(length).unwrap()));
        assert_eq!(first.bytes(length), message);
        // One message, one receive.
        assert_eq!(b.result(&two, false), Err(WSA_IO_INCOMPLETE));
        pass_into(&a, &b, &second, &two, b"and the next one");
    }
}

/// Sends a message for a receive that was posted before.
fn pass_into(from: &Sock, to: &Sock, area: &Area, op: &Op, bytes: &[u8]) {
    let source = Area::filled(from, bytes);
    let sent = Op::polled();
    assert_eq!(from.send(&source.all(), &sent), WSA_IO_PENDING);
    assert_eq!(to.finish(op), Ok(u32::try_from(bytes.len()).unwrap()));
    assert_eq!(area.bytes(bytes.len()), bytes);
    from.finish(&sent).unwrap();
    from.deregister(source.handle).unwrap();
}

// req: WSD-10
#[test]
fn polled_and_notified_operations_give_the_same_results() {
    let _session = Session::new();
    let (a, b) = pair();
    let area = Area::new(&b, 64, MEM_WRITE);
    let source = Area::filled(&a, b"twelve bytes");
    for notify in [false, true] {
        let make = || if notify { Op::notified() } else { Op::polled() };
        let before = (a.completions().len(), b.completions().len());
        let (received, sent) = (make(), make());
        let flags = MSG_PARTIAL;
        let buffers = area.all();
        let posted = b.recv_raw(buffers.as_ptr().cast_mut(), 1, flags, received.pointer());
        assert_eq!(posted, WSA_IO_PENDING);
        assert_eq!(received.fields().Internal, WSS_OPERATION_IN_PROGRESS);
        assert_eq!(b.result(&received, false), Err(WSA_IO_INCOMPLETE));
        assert_eq!(a.send(&source.all(), &sent), WSA_IO_PENDING);
        if notify {
            // The provider tells of both without being asked.
            let told = b.await_completions(before.1 + 1)[before.1];
            assert_eq!((told.error, told.bytes), (0, 12));
            assert_eq!(told.overlapped, received.address());
            assert_eq!(told.switch_socket, b.switch_socket());
            let told = a.await_completions(before.0 + 1)[before.0];
            assert_eq!((told.error, told.bytes), (0, 12));
            assert_eq!(told.overlapped, sent.address());
        }
        assert_eq!(b.finish(&received), Ok(12));
        assert_eq!(b.result(&received, true), Ok((12, flags)));
        assert_eq!(b.result(&received, false), Ok((12, flags)));
        assert_eq!(a.finish(&sent), Ok(12));
        assert_eq!(a.result(&sent, false), Ok((12, 0)));
        let told = usize::from(notify);
        assert_eq!(a.completions().len(), before.0 + told);
        assert_eq!(b.completions().len(), before.1 + told);
        for op in [&received, &sent] {
            let fields = op.fields();
            assert_eq!((fields.OffsetHigh, fields.InternalHigh), (0, 12));
        }
    }
}

// req: WSD-10
#[test]
fn the_bit_is_read_when_the_operation_is_started() {
    let _session = Session::new();
    let (a, b) = pair();
    let area = Area::new(&b, 64, MEM_WRITE);
    let source = Area::filled(&a, b"x");
    let (sent, op) = (Op::polled(), Op::polled());
    assert_eq!(b.recv(&area.all(), &op), WSA_IO_PENDING);
    // SAFETY: our structure; the provider does not look at the field any more.
    unsafe { (*op.pointer()).hEvent = std::ptr::null_mut() };
    assert_eq!(a.send(&source.all(), &sent), WSA_IO_PENDING);
    assert_eq!(b.finish(&op), Ok(1));
    assert!(b.completions().is_empty());
}

#[test]
fn messages_arrive_in_the_order_of_the_calls_one_to_a_receive() {
    let _session = Session::new();
    let (a, b) = pair();
    const COUNT: usize = 400;
    let area = Area::new(&b, COUNT * 8, MEM_WRITE);
    let source = Area::new(&a, COUNT * 8, MEM_READ);
    let order: Arc<Mutex<Vec<usize>>> = Arc::default();
    let received: Vec<_> = (0..COUNT)
        .map(|n| {
            // Both kinds, mixed.
            if n % 3 == 0 {
                let order = Arc::clone(&order);
                Op::then(move |_| order.lock().push(n))
            } else {
                Op::polled()
            }
        })
        .collect();
    let sent: Vec<_> = (0..COUNT).map(|_| Op::polled()).collect();
    let mut bytes = Vec::new();
    for n in 0..COUNT {
        bytes.extend((n as u64).to_le_bytes());
    }
    source.fill(&bytes);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (n, op) in received.iter().enumerate() {
                assert_eq!(b.recv(&[area.buffer(n * 8, 8)], op), WSA_IO_PENDING);
            }
            for op in &received {
                assert_eq!(b.finish(op), Ok(8));
            }
        });
        for (n, op) in sent.iter().enumerate() {
            assert_eq!(a.send(&[source.buffer(n * 8, 8)], op), WSA_IO_PENDING);
        }
        for op in &sent {
            assert_eq!(a.finish(op), Ok(8));
        }
    });
    assert_eq!(area.bytes(COUNT * 8), bytes);
    b.await_completions(COUNT.div_ceil(3));
    let order = order.lock();
    assert_eq!(order.len(), COUNT.div_ceil(3));
    assert!(order.is_sorted(), "upcalls come in the order of the calls");
}

#[test]
fn pieces_are_gathered_and_scattered() {
    let _session = Session::new();
    let (a, b) = pair();
    let source = Area::filled(&a, b"abcdefghij");
    let target = Area::new(&b, 64, MEM_WRITE);
    let other = Area::new(&b, 64, MEM_READWRITE);
    let (sent, received) = (Op::polled(), Op::polled());
    let into = [
        target.buffer(10, 3),
        target.buffer(0, 0),
        other.buffer(5, 4),
        target.buffer(0, 5),
    ];
    assert_eq!(b.recv(&into, &received), WSA_IO_PENDING);
    let empty = WSABUF::default();
    let from = [
        source.buffer(9, 1),
        empty,
        source.buffer(0, 8),
        source.buffer(8, 1),
    ];
    assert_eq!(a.send(&from, &sent), WSA_IO_PENDING);
    assert_eq!(b.finish(&received), Ok(10));
    assert_eq!(&target.bytes(13)[10..], b"jab");
    assert_eq!(&other.bytes(9)[5..], b"cdef");
    assert_eq!(&target.bytes(3), b"ghi");
    assert_eq!(a.finish(&sent), Ok(10));
}

#[test]
fn empty_messages_arrive_as_messages() {
    let _session = Session::new();
    let (a, b) = pair();
    pass(&a, &b, b"");
    pass(&a, &b, b"after it");
}

#[test]
fn the_largest_message_goes_and_one_byte_more_starts_nothing() {
    let _session = Session::new();
    let (a, b) = pair();
    let mut most = 0_u32;
    let mut length = 4;
    let place = (&raw mut most).cast();
    call(SOCKET_ERROR, |e| {
        table!(lpWSPGetSockOpt(
            a.s,
            WSD_SOL_SOCKET,
            SO_MAX_MSG_SIZE,
            place,
            &raw mut length,
            e
        ))
    })
    .unwrap();
    let most = most as usize;
    let source = Area::new(&a, most + 1, MEM_READ);
    let op = Op::notified();
    assert_eq!(a.send(&source.all(), &op), WSAEMSGSIZE);
    let bytes: Vec<u8> = (0..=250).cycle().take(most).collect();
    pass(&a, &b, &bytes);
    assert!(a.completions().is_empty());
}

#[test]
fn memory_that_is_not_registered_for_the_use_starts_nothing() {
    let _session = Session::new();
    let (a, b) = pair();
    let op = Op::notified();
    let strange = Area::unregistered(64);
    let readable = Area::new(&a, 64, MEM_READ);
    let writable = Area::new(&a, 64, MEM_WRITE);
    let others = Area::new(&b, 64, MEM_READWRITE);
    assert_eq!(a.send(&strange.all(), &op), WSAEFAULT);
    assert_eq!(a.send(&writable.all(), &op), WSAEFAULT);
    assert_eq!(a.send(&others.all(), &op), WSAEFAULT);
    assert_eq!(a.send(&[readable.buffer(1, 64)], &op), WSAEFAULT);
    assert_eq!(a.recv(&readable.all(), &op), WSAEFAULT);
    assert_eq!(a.recv(&strange.all(), &op), WSAEFAULT);
    assert_eq!(
        a.send(&[readable.buffer(0, 1), strange.buffer(0, 1)], &op),
        WSAEFAULT
    );
    a.deregister(readable.handle).unwrap();
    assert_eq!(a.send(&readable.all(), &op), WSAEFAULT);
    assert!(a.completions().is_empty());
    pass(&a, &b, b"still fine");
}

#[test]
fn arguments_of_transfers_are_checked() {
    let _session = Session::new();
    let (a, b) = pair();
    let area = Area::new(&a, 64, MEM_READWRITE);
    let op = Op::notified();
    let buffers = area.all();
    let first = buffers.as_ptr().cast_mut();
    let (none, no_op): (LPWSABUF, LPWSAOVERLAPPED) = (std::ptr::null_mut(), std::ptr::null_mut());
    assert_eq!(a.send_raw(none, 1, 0, op.pointer()), WSAEFAULT);
    assert_eq!(a.send_raw(first, 0, 0, op.pointer()), WSAEINVAL);
    assert_eq!(a.send_raw(first, 1, 0, no_op), WSAEINVAL);
    assert_eq!(a.send_raw(first, 1, WSD_MSG_OOB, op.pointer()), WSAEINVAL);
    assert_eq!(a.send_raw(first, u32::MAX, 0, op.pointer()), WSAEINVAL);
    assert_eq!(a.recv_raw(none, 1, 0, op.pointer()), WSAEFAULT);
    assert_eq!(
        a.recv_raw(first, 1, WSD_MSG_PEEK, op.pointer()),
        WSAEOPNOTSUPP
    );
    let many = vec![area.buffer(0, 0); 65_536];
    assert_eq!(a.send(&many, &op), WSAEINVAL);
    assert_eq!(result_of(a.s, no_op, false), Err(WSAEINVAL));
    assert!(a.completions().is_empty());
    let idle = Sock::bound();
    assert_eq!(idle.send(&buffers, &op), WSAENOTCONN);
    assert_eq!(idle.recv(&buffers, &op), WSAENOTCONN);
    pass(&a, &b, b"still fine");
}

#[test]
fn a_message_that_is_too_large_for_its_receive_ends_the_connection() {
    let _session = Session::new();
    let (a, b) = pair();
    let area = Area::new(&b, 64, MEM_WRITE);
    let source = Area::filled(&a, b"eleven byte");
    let (short, next, sent) = (Op::polled(), Op::polled(), Op::polled());
    assert_eq!(b.recv(&[area.buffer(0, 10)], &short), WSA_IO_PENDING);
    assert_eq!(b.recv(&[area.buffer(10, 20)], &next), WSA_IO_PENDING);
    assert_eq!(a.send(&source.all(), &sent), WSA_IO_PENDING);
    assert_eq!(b.finish(&short), Err(WSAEMSGSIZE));
    assert_eq!(b.finish(&next), Err(WSAECONNABORTED));
    assert_eq!(b.recv(&[area.buffer(0, 10)], &short), WSAECONNABORTED);
}

#[test]
fn more_operations_than_the_fabric_takes_wait_in_order() {
    let _session = Session::new();
    let (a, b) = pair();
    // More than a ring holds and more than may be pending in the fabric.
    const COUNT: usize = 700;
    const LENGTH: usize = 4096;
    let source = Area::new(&a, COUNT + LENGTH, MEM_READ);
    let bytes: Vec<u8> = (0..=255).cycle().take(COUNT + LENGTH).collect();
    source.fill(&bytes);
    let sent: Vec<_> = (0..COUNT).map(|_| Op::polled()).collect();
    for (n, op) in sent.iter().enumerate() {
        assert_eq!(a.send(&[source.buffer(n, LENGTH)], op), WSA_IO_PENDING);
    }
    let last = sent.last().unwrap();
    assert_eq!(a.result(last, false), Err(WSA_IO_INCOMPLETE));
    let area = Area::new(&b, LENGTH, MEM_WRITE);
    for n in 0..COUNT {
        let op = Op::polled();
        assert_eq!(b.recv(&area.all(), &op), WSA_IO_PENDING);
        let end = eventually("a message", || {
            // The sender makes progress when it is asked.
            let _ = a.result(last, false);
            match b.result(&op, false) {
                Err(WSA_IO_INCOMPLETE) => None,
                other => Some(other),
            }
        });
        assert_eq!(end, Ok((4096, 0)));
        assert_eq!(area.bytes(LENGTH), &bytes[n..n + LENGTH]);
    }
    for op in &sent {
        assert_eq!(a.finish(op), Ok(4096));
    }
}

#[test]
fn too_many_operations_are_refused_without_a_trace() {
    let _session = Session::new();
    let (a, b) = pair();
    let area = Area::new(&b, 8, MEM_WRITE);
    let mut posted = Vec::new();
    let code = loop {
        let op = Op::polled();
        match b.recv(&area.all(), &op) {
            WSA_IO_PENDING => posted.push(op),
            code => break code,
        }
    };
    assert_eq!(code, WSAEWOULDBLOCK);
    assert_eq!(posted.len(), 4096);
    // One that ends makes room for one.
    let source = Area::filled(&a, b"12345678");
    let sent = Op::polled();
    assert_eq!(a.send(&source.all(), &sent), WSA_IO_PENDING);
    assert_eq!(b.finish(&posted[0]), Ok(8));
    assert_eq!(b.recv(&area.all(), &posted[0]), WSA_IO_PENDING);
    let op = Op::notified();
    assert_eq!(b.recv(&area.all(), &op), WSAEWOULDBLOCK);
    b.close().unwrap();
    for op in &posted {
        assert!(op.has_ended());
        assert_eq!(op.fields().OffsetHigh, 995);
    }
    assert!(b.completions().is_empty());
}
