//! The mock's thread for upcalls: they are made outside every lock, one after the other.

use std::sync::mpsc::{Sender, channel};
use std::thread;

use parking_lot::Mutex;
use wsdirect::abi::SOCKET;

use super::{Overlapped, STATE};

/// Something to tell the switch.
pub(crate) enum Upcall {
    /// WPUCompleteOverlappedRequest.
    Complete {
        handle: SOCKET,
        overlapped: Overlapped,
        error: i32,
        bytes: usize,
    },
    /// WPUSetEvent.
    Signal(usize),
    /// WPUCloseSocketHandle.
    Close(SOCKET),
}

static QUEUE: Mutex<Option<Sender<Upcall>>> = Mutex::new(None);

/// Has an upcall made soon; the order is kept.
pub(crate) fn later(upcall: Upcall) {
    let mut queue = QUEUE.lock();
    let sender = queue.get_or_insert_with(|| {
        let (sender, receiver) = channel();
        thread::spawn(move || {
            for upcall in receiver {
                make(upcall);
            }
        });
        sender
    });
    sender.send(upcall).unwrap();
}

fn make(upcall: Upcall) {
    let Some(table) = STATE.lock().upcalls else {
        return;
    };
    let mut errno = 0;
    match upcall {
        Upcall::Complete {
            handle,
            overlapped,
            error,
            bytes,
        } => {
            let call = table.lpWPUCompleteOverlappedRequest.unwrap();
            let (error, bytes) = (error.cast_unsigned(), u32::try_from(bytes).unwrap());
            let pointer = overlapped.pointer();
            // SAFETY: the switch's function; the operation is in progress.
            let result = unsafe { call(handle, pointer, error, bytes, &raw mut errno) };
            assert_eq!(result, 0, "the switch refuses a completion: {errno}");
        }
        Upcall::Signal(event) => {
            let call = table.lpWPUSetEvent.unwrap();
            // SAFETY: the switch's function.
            unsafe { call(std::ptr::without_provenance_mut(event), &raw mut errno) };
        }
        Upcall::Close(handle) => {
            let call = table.lpWPUCloseSocketHandle.unwrap();
            // SAFETY: the switch's function.
            let result = unsafe { call(handle, &raw mut errno) };
            assert_eq!(result, 0, "the switch refuses its handle back: {errno}");
        }
    }
}
