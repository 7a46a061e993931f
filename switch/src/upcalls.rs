//! What providers call in the switch: the sixteen functions of the upcall table.
//!
//! Owns the switch's socket handles and, through [`sys`], the event objects. A handle is a number
//! with a generation: a stale or invented one is answered with WSAENOTSOCK or WSAEINVAL and
//! followed nowhere. No function here calls a provider, waits, or lets a panic out.
//!
//! The operations of a socket stay in memory at least until the provider has given the socket's
//! handle back, which is its last upcall; so a completion never writes to freed memory.

use std::cell::RefCell;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex, RwLock};
use wsdirect::abi::{
    self, BOOL, DWORD, DWORD_PTR, HWND, INVALID_SOCKET, LPARAM, LPBLOCKINGCALLBACK, LPGUID, LPINT,
    LPWSAOVERLAPPED, LPWSATHREADID, LPWSAUSERAPC, LPWSTR, PDWORD_PTR, SOCKET, SOCKET_ERROR, UINT,
    WPARAM, WSAEVENT, WSPUPCALLTABLEEX,
};

use crate::error::WsaError;
use crate::lent::Slot;
use crate::sys;

/// The table that every provider gets.
pub(crate) static TABLE: WSPUPCALLTABLEEX = WSPUPCALLTABLEEX {
    lpWPUCloseEvent: Some(close_event),
    lpWPUCloseSocketHandle: Some(close_socket_handle),
    lpWPUCreateEvent: Some(create_event),
    lpWPUCreateSocketHandle: Some(create_socket_handle),
    lpWPUFDIsSet: Some(fd_is_set),
    lpWPUGetProviderPath: Some(provider_path),
    lpWPUModifyIFSHandle: Some(modify_ifs_handle),
    lpWPUPostMessage: Some(post_message),
    lpWPUQueryBlockingCallback: Some(query_blocking_callback),
    lpWPUQuerySocketHandleContext: Some(query_socket_handle_context),
    lpWPUQueueApc: Some(queue_apc),
    lpWPUResetEvent: Some(reset_event),
    lpWPUSetEvent: Some(set_event),
    lpWPUOpenCurrentThread: Some(open_current_thread),
    lpWPUCloseThread: Some(close_thread),
    lpWPUCompleteOverlappedRequest: Some(complete_overlapped_request),
};

/// Told of each completion that comes by upcall. Called on a thread of the provider, or on any
/// thread that is inside a call to it: it must be short, must not call a provider, and must not
/// take a lock that is held around calls to one.
pub(crate) trait Wake: Send + Sync {
    /// Something completed on the socket.
    fn wake(&self);
}

/// The switch's side of one provider socket.
pub(crate) struct Handle {
    /// The number the provider knows.
    number: SOCKET,
    /// What the provider gave to `WPUCreateSocketHandle`.
    context: DWORD_PTR,
    /// Every operation ever made for the socket.
    slots: Mutex<Vec<Arc<Slot>>>,
    waker: RwLock<Option<Arc<dyn Wake>>>,
    closed: Mutex<bool>,
    closing: Condvar,
}

impl Handle {
    pub(crate) fn number(&self) -> SOCKET {
        self.number
    }

    /// An idle operation of this socket: one that was dropped, or a new one.
    pub(crate) fn slot(&self) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        // An idle one that nobody else holds cannot be posted any more behind our back.
        let idle = slots
            .iter()
            .find(|slot| Arc::strong_count(slot) == 1 && slot.is_idle());
        if let Some(slot) = idle {
            return Arc::clone(slot);
        }
        let slot = Arc::new(Slot::new(self.number));
        slots.push(Arc::clone(&slot));
        slot
    }

    pub(crate) fn set_waker(&self, waker: Arc<dyn Wake>) {
        *self.waker.write() = Some(waker);
    }

    /// Waits until the provider has given the handle back. `false` if it has not by the deadline.
    pub(crate) fn wait_closed(&self, deadline: Instant) -> bool {
        let mut closed = self.closed.lock();
        while !*closed {
            if self.closing.wait_until(&mut closed, deadline).timed_out() {
                return *closed;
            }
        }
        true
    }

    fn wake(&self) {
        let waker = self.waker.read().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The live handles. The low half of a number is the place, the high half the generation; the
/// generation of a place grows whenever it is given back, so that no number comes twice.
struct Handles {
    places: Vec<Place>,
    free: Vec<usize>,
}

struct Place {
    generation: u32,
    handle: Option<Arc<Handle>>,
}

static HANDLES: RwLock<Handles> = RwLock::new(Handles {
    places: Vec::new(),
    free: Vec::new(),
});

/// Never 0 and never INVALID_SOCKET: generations begin at 1 and places stay below 2^31.
fn number_of(place: usize, generation: u32) -> Option<SOCKET> {
    let place = u32::try_from(place).ok().filter(|place| *place < 1 << 31)?;
    SOCKET::try_from(u64::from(generation) << 32 | u64::from(place)).ok()
}

impl Handles {
    fn place_of(&self, number: SOCKET) -> Option<usize> {
        let place = number & 0xFFFF_FFFF;
        let live = self.places.get(place)?;
        (live.handle.is_some() && number_of(place, live.generation) == Some(number))
            .then_some(place)
    }

    fn add(&mut self, context: DWORD_PTR) -> Option<Arc<Handle>> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.places.push(Place {
                    generation: 1,
                    handle: None,
                });
                self.places.len() - 1
            }
        };
        let place = self.places.get_mut(index)?;
        let handle = Arc::new(Handle {
            number: number_of(index, place.generation)?,
            context,
            slots: Mutex::new(Vec::new()),
            waker: RwLock::new(None),
            closed: Mutex::new(false),
            closing: Condvar::new(),
        });
        place.handle = Some(Arc::clone(&handle));
        Some(handle)
    }

    fn remove(&mut self, number: SOCKET) -> Option<Arc<Handle>> {
        let index = self.place_of(number)?;
        let place = self.places.get_mut(index)?;
        let handle = place.handle.take();
        // A place whose generations are used up is not used again.
        if let Some(next) = place.generation.checked_add(1) {
            place.generation = next;
            self.free.push(index);
        }
        handle
    }
}

fn find(number: SOCKET) -> Option<Arc<Handle>> {
    let handles = HANDLES.read();
    let place = handles.place_of(number)?;
    handles.places.get(place)?.handle.clone()
}

thread_local! {
    /// The handles made during the call to a provider that this thread is in.
    static CREATED: RefCell<Vec<Arc<Handle>>> = const { RefCell::new(Vec::new()) };
}

/// Runs a call of WSPSocket or WSPAccept and returns with its result the handle that the provider
/// had made in it, the latest if it made several.
pub(crate) fn created_during<R>(call: impl FnOnce() -> R) -> (R, Option<Arc<Handle>>) {
    let before = CREATED.take();
    let result = call();
    let made = CREATED.replace(before).pop();
    (result, made)
}

/// One upcall: its result, or `failure` and the code in `*errno`. A panic is a failure.
///
/// # Safety
/// `errno` is null or can be written to.
unsafe fn answer<R>(errno: LPINT, failure: R, body: impl FnOnce() -> Result<R, WsaError>) -> R {
    let code = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(result)) => return result,
        Ok(Err(code)) => code.0,
        Err(_) => abi::WSASYSCALLFAILURE,
    };
    if !errno.is_null() {
        // SAFETY: not null, and the caller vouches for the rest.
        unsafe { errno.write(code) };
    }
    failure
}

fn refused<R>(code: c_int) -> Result<R, WsaError> {
    Err(WsaError(code))
}

unsafe extern "C" fn create_socket_handle(
    _catalog_entry: DWORD,
    context: DWORD_PTR,
    errno: LPINT,
) -> SOCKET {
    // SAFETY: `errno` is the provider's, under the contract of the upcall table.
    unsafe {
        answer(errno, INVALID_SOCKET, || {
            let handle = HANDLES
                .write()
                .add(context)
                .ok_or(WsaError(abi::WSAENOBUFS))?;
            let number = handle.number;
            CREATED.with_borrow_mut(|made| made.push(handle));
            Ok(number)
        })
    }
}

unsafe extern "C" fn close_socket_handle(socket: SOCKET, errno: LPINT) -> c_int {
    // SAFETY: `errno` is the provider's, under the contract of the upcall table.
    unsafe {
        answer(errno, SOCKET_ERROR, || {
            let removed = HANDLES.write().remove(socket);
            let handle = removed.ok_or(WsaError(abi::WSAENOTSOCK))?;
            *handle.closed.lock() = true;
            handle.closing.notify_all();
            handle.wake();
            Ok(0)
        })
    }
}

unsafe extern "C" fn query_socket_handle_context(
    socket: SOCKET,
    context: PDWORD_PTR,
    errno: LPINT,
) -> c_int {
    let find_context = || {
        let handle = find(socket).ok_or(WsaError(abi::WSAENOTSOCK))?;
        let place = ptr::NonNull::new(context).ok_or(WsaError(abi::WSAEFAULT))?;
        // SAFETY: not null, and the provider's, under the contract of the upcall table.
        unsafe { place.write(handle.context) };
        Ok(0)
    };
    // SAFETY: `errno` is the provider's, under the contract of the upcall table.
    unsafe { answer(errno, SOCKET_ERROR, find_context) }
}

unsafe extern "C" fn complete_overlapped_request(
    socket: SOCKET,
    overlapped: LPWSAOVERLAPPED,
    _error: DWORD,
    transferred: DWORD,
    errno: LPINT,
) -> c_int {
    // SAFETY: `errno` is the provider's, under the contract of the upcall table.
    unsafe {
        answer(errno, SOCKET_ERROR, || {
            let handle = find(socket).ok_or(WsaError(abi::WSAEINVAL))?;
            // Found by comparing addresses: the pointer itself is never followed.
            let slots = handle.slots.lock();
            let slot = slots
                .iter()
                .find(|slot| ptr::eq(slot.overlapped(), overlapped))
                .cloned();
            drop(slots);
            let slot = slot.ok_or(WsaError(abi::WSAEINVAL))?;
            if !slot.complete(transferred) {
                return refused(abi::WSAEINVAL);
            }
            handle.wake();
            Ok(0)
        })
    }
}

unsafe extern "C" fn create_event(errno: LPINT) -> WSAEVENT {
    // SAFETY: `errno` is the provider's, under the contract of the upcall table.
    unsafe {
        answer(errno, abi::WSA_INVALID_EVENT, || {
            let number = sys::create_event().map_err(|_| WsaError(abi::WSA_NOT_ENOUGH_MEMORY))?;
            Ok(ptr::without_provenance_mut(number))
        })
    }
}

/// # Safety
/// As for [`answer`].
unsafe fn with_event(event: WSAEVENT, errno: LPINT, act: fn(usize) -> bool) -> BOOL {
    // SAFETY: the caller vouches for `errno`.
    unsafe {
        answer(errno, abi::FALSE, || {
            if act(event.addr()) {
                Ok(abi::TRUE)
            } else {
                refused(abi::WSA_INVALID_HANDLE)
            }
        })
    }
}

unsafe extern "C" fn close_event(event: WSAEVENT, errno: LPINT) -> BOOL {
    // SAFETY: `errno` is the provider's, under the contract of the upcall table.
    unsafe { with_event(event, errno, sys::close_event) }
}

unsafe extern "C" fn set_event(event: WSAEVENT, errno: LPINT) -> BOOL {
    // SAFETY: `errno` is the provider's, under the contract of the upcall table.
    unsafe { with_event(event, errno, sys::set_event) }
}

unsafe extern "C" fn reset_event(event: WSAEVENT, errno: LPINT) -> BOOL {
    // SAFETY: `errno` is the provider's, under the contract of the upcall table.
    unsafe { with_event(event, errno, sys::reset_event) }
}

// The rest has no meaning on a SAN: completion routines are always null, handles are no files, and
// there are no windows. Each answers an error, so that no slot is null.

unsafe extern "C" fn fd_is_set(_socket: SOCKET, _set: *mut libc::fd_set) -> c_int {
    0
}

unsafe extern "C" fn provider_path(
    _provider: LPGUID,
    _path: LPWSTR,
    _len: LPINT,
    errno: LPINT,
) -> c_int {
    // SAFETY: `errno` is the provider's, under the contract of the upcall table.
    unsafe { answer(errno, SOCKET_ERROR, || refused(abi::WSAEINVAL)) }
}

unsafe extern "C" fn modify_ifs_handle(
    _catalog_entry: DWORD,
    _proposed: SOCKET,
    errno: LPINT,
) -> SOCKET {
    // SAFETY: `errno` is the provider's, under the contract of the upcall table.
    unsafe { answer(errno, INVALID_SOCKET, || refused(abi::WSAEINVAL)) }
}

unsafe extern "C" fn post_message(_: HWND, _: UINT, _: WPARAM, _: LPARAM) -> BOOL {
    abi::FALSE
}

unsafe extern "C" fn query_blocking_callback(
    _catalog_entry: DWORD,
    _callback: *mut LPBLOCKINGCALLBACK,
    _context: PDWORD_PTR,
    errno: LPINT,
) -> c_int {
    // SAFETY: `errno` is the provider's, under the contract of the upcall table.
    unsafe { answer(errno, SOCKET_ERROR, || refused(abi::WSAEOPNOTSUPP)) }
}

unsafe extern "C" fn queue_apc(
    _thread: LPWSATHREADID,
    _procedure: LPWSAUSERAPC,
    _context: DWORD_PTR,
    errno: LPINT,
) -> c_int {
    // SAFETY: `errno` is the provider's, under the contract of the upcall table.
    unsafe { answer(errno, SOCKET_ERROR, || refused(abi::WSAEINVAL)) }
}

unsafe extern "C" fn open_current_thread(_thread: LPWSATHREADID, errno: LPINT) -> c_int {
    // SAFETY: `errno` is the provider's, under the contract of the upcall table.
    unsafe { answer(errno, SOCKET_ERROR, || refused(abi::WSAEOPNOTSUPP)) }
}

unsafe extern "C" fn close_thread(_thread: LPWSATHREADID, errno: LPINT) -> c_int {
    // SAFETY: `errno` is the provider's, under the contract of the upcall table.
    unsafe { answer(errno, SOCKET_ERROR, || refused(abi::WSAEOPNOTSUPP)) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::lent::{Notice, Outcome};

    /// Calls the upcalls as a provider does: through the table.
    fn create(context: usize) -> (SOCKET, Arc<Handle>) {
        let create = TABLE.lpWPUCreateSocketHandle.unwrap();
        let mut errno = 0;
        let (number, handle) = created_during(|| {
            // SAFETY: a live place for the code.
            unsafe { create(0, context, &raw mut errno) }
        });
        (number, handle.unwrap())
    }

    fn close(socket: SOCKET) -> Result<(), i32> {
        let close = TABLE.lpWPUCloseSocketHandle.unwrap();
        let mut errno = 0;
        // SAFETY: a live place for the code.
        let result = unsafe { close(socket, &raw mut errno) };
        if result == 0 { Ok(()) } else { Err(errno) }
    }

    fn context(socket: SOCKET) -> Result<usize, i32> {
        let query = TABLE.lpWPUQuerySocketHandleContext.unwrap();
        let (mut errno, mut context) = (0, 0);
        // SAFETY: live places for code and context.
        let result = unsafe { query(socket, &raw mut context, &raw mut errno) };
        if result == 0 { Ok(context) } else { Err(errno) }
    }

    fn complete(socket: SOCKET, overlapped: LPWSAOVERLAPPED, bytes: u32) -> Result<(), i32> {
        let complete = TABLE.lpWPUCompleteOverlappedRequest.unwrap();
        let mut errno = 0;
        // SAFETY: a live place for the code; the overlapped is compared, not followed.
        let result = unsafe { complete(socket, overlapped, 0, bytes, &raw mut errno) };
        if result == 0 { Ok(()) } else { Err(errno) }
    }

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn no_slot_of_the_upcall_table_is_null() {
        let table = TABLE;
        // SAFETY: the table is sixteen pointers.
        let words: [usize; 16] = unsafe { std::mem::transmute(table) };
        assert!(words.iter().all(|word| *word != 0));
    }

    #[test]
    fn a_handle_keeps_its_context_until_it_is_given_back_and_never_comes_again() {
        let (first, handle) = create(77);
        assert_ne!(first, INVALID_SOCKET);
        assert_eq!(context(first), Ok(77));
        assert!(!handle.wait_closed(Instant::now()));
        assert_eq!(close(first), Ok(()));
        assert!(handle.wait_closed(Instant::now()));
        assert_eq!(context(first), Err(abi::WSAENOTSOCK));
        assert_eq!(close(first), Err(abi::WSAENOTSOCK));
        for _ in 0..100 {
            let (next, _) = create(1);
            assert_ne!(next, first);
            assert_eq!(close(next), Ok(()));
        }
        assert_eq!(context(0), Err(abi::WSAENOTSOCK));
        assert_eq!(context(INVALID_SOCKET), Err(abi::WSAENOTSOCK));
    }

    #[test]
    fn a_completion_is_taken_once_for_an_operation_that_awaits_it() {
        let (socket, handle) = create(1);
        let count = Arc::new(Count(AtomicUsize::new(0)));
        handle.set_waker(Arc::clone(&count) as Arc<dyn Wake>);
        let slot = handle.slot();
        let overlapped = slot.overlapped();
        assert_eq!(complete(socket, overlapped, 5), Err(abi::WSAEINVAL));
        slot.begin(Notice::Upcall).unwrap();
        assert_eq!(slot.collect(|| Outcome::Pending), Outcome::Pending);
        assert_eq!(complete(socket, overlapped, 5), Ok(()));
        assert_eq!(complete(socket, overlapped, 5), Err(abi::WSAEINVAL));
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(slot.collect(|| Outcome::Done(5)), Outcome::Done(5));
        assert!(slot.is_idle());
        assert_eq!(complete(INVALID_SOCKET, overlapped, 5), Err(abi::WSAEINVAL));
        assert_eq!(complete(socket, ptr::null_mut(), 5), Err(abi::WSAEINVAL));
        assert_eq!(close(socket), Ok(()));
    }

    #[test]
    fn an_operation_whose_result_is_polled_takes_no_completion() {
        let (socket, handle) = create(1);
        let slot = handle.slot();
        slot.begin(Notice::Poll).unwrap();
        assert_eq!(complete(socket, slot.overlapped(), 5), Err(abi::WSAEINVAL));
        assert_eq!(close(socket), Ok(()));
    }

    #[test]
    fn a_dropped_operation_is_used_again_only_when_idle() {
        let (socket, handle) = create(1);
        let first = handle.slot();
        let place = first.overlapped();
        first.begin(Notice::Poll).unwrap();
        drop(first);
        let second = handle.slot();
        assert_ne!(second.overlapped(), place);
        let place = second.overlapped();
        drop(second);
        assert_eq!(handle.slot().overlapped(), place);
        assert_eq!(close(socket), Ok(()));
    }

    #[test]
    fn events_are_made_set_reset_and_closed_by_upcall() {
        let mut errno = 0;
        let create = TABLE.lpWPUCreateEvent.unwrap();
        // SAFETY: a live place for the code.
        let event = unsafe { create(&raw mut errno) };
        assert!(!event.is_null());
        let set = TABLE.lpWPUSetEvent.unwrap();
        // SAFETY: a live place for the code.
        assert_eq!(unsafe { set(event, &raw mut errno) }, abi::TRUE);
        let close = TABLE.lpWPUCloseEvent.unwrap();
        // SAFETY: a live place for the code.
        assert_eq!(unsafe { close(event, &raw mut errno) }, abi::TRUE);
        let reset = TABLE.lpWPUResetEvent.unwrap();
        // SAFETY: a live place for the code.
        assert_eq!(unsafe { reset(event, &raw mut errno) }, abi::FALSE);
        assert_eq!(errno, abi::WSA_INVALID_HANDLE);
        // SAFETY: null is allowed.
        assert_eq!(unsafe { set(ptr::null_mut(), ptr::null_mut()) }, abi::FALSE);
    }

    #[test]
    fn a_panic_ends_as_an_error() {
        let mut errno = 0;
        // SAFETY: a live place for the code.
        let result = unsafe { answer(&raw mut errno, -1, || panic!("a bug")) };
        assert_eq!((result, errno), (-1, abi::WSASYSCALLFAILURE));
    }
}
