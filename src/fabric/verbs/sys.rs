//! The C shim as safe types.
//!
//! Owns the objects of the two libraries: each is destroyed exactly once, by `Drop`, in the order
//! that the libraries ask for. Decides nothing. The structures here are those of `shim.h`, which
//! asserts their sizes.
//!
//! What makes posting safe: a [`Sge`] comes from a live [`Mr`] only and lies within it; whoever
//! made that `Mr` promised the memory, and whoever posts keeps the `Mr` until the operation has
//! ended (see `memory`).

use std::ffi::c_void;
use std::io;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::completions::{Place, Seat};
use super::parts::Part;
use super::wake::Waker;

mod cq;
mod raw;

pub(super) use cq::{BATCH, Cq};

/// A count or nothing, or the errno.
fn check(rc: i32) -> io::Result<i32> {
    if rc < 0 {
        Err(io::Error::from_raw_os_error(rc.saturating_neg()))
    } else {
        Ok(rc)
    }
}

fn count(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}

fn to_raw(at: SocketAddr) -> raw::Address {
    let mut address = raw::Address {
        port: at.port(),
        ..raw::Address::default()
    };
    match at {
        SocketAddr::V4(v4) => {
            address.family = 4;
            if let Some(place) = address.ip.first_chunk_mut() {
                *place = v4.ip().octets();
            }
        }
        SocketAddr::V6(v6) => {
            address.family = 6;
            address.scope = v6.scope_id();
            address.ip = v6.ip().octets();
        }
    }
    address
}

fn from_raw(address: &raw::Address) -> SocketAddr {
    if address.family == 6 {
        let ip = Ipv6Addr::from(address.ip);
        return SocketAddrV6::new(ip, address.port, 0, address.scope).into();
    }
    let ip = address.ip.first_chunk().copied().unwrap_or([0_u8; 4]);
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), address.port)
}

/// Has a function called at the regular end of the process. Refusal is no loss.
pub(super) fn at_exit(function: extern "C" fn()) {
    // SAFETY: a function of this library; one that is unloaded calls it before.
    unsafe { libc::atexit(function) };
}

// ---- devices -----------------------------------------------------------------------------

/// What a device permits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_message: usize,
    pub(super) max_queue: usize,
    pub(super) max_completions: usize,
    pub(super) max_pieces: usize,
    pub(super) max_read_pieces: usize,
    pub(super) reads_in: u8,
    pub(super) reads_out: u8,
    pub(super) iwarp: bool,
}

/// Tells devices apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct DeviceId(usize);

#[cfg(test)]
impl DeviceId {
    pub(super) fn pretend(number: usize) -> Self {
        Self(number)
    }
}

/// Where a connection goes out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Port {
    pub(super) device: DeviceId,
    pub(super) number: u8,
}

/// The devices that connections may be made over. librdmacm has opened them, for itself and for
/// us, and keeps them open for the life of the process.
#[derive(Debug)]
pub(super) struct Devices {
    list: NonNull<*mut c_void>,
    len: usize,
}

/// One device of the list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Device<'a> {
    context: *mut c_void,
    _list: PhantomData<&'a Devices>,
}

// SAFETY: the list is never changed, and the libraries lock their devices themselves.
unsafe impl Send for Devices {}
// SAFETY: as above.
unsafe impl Sync for Devices {}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DeviceEvent {
    Other(i32),
    /// The queue pair of the connection with this context is broken.
    QueueBroken(u64),
    /// Nothing comes out of the completion queue with this context any more.
    CompletionsBroken(u64),
    PortDown(u8),
    Gone,
    Changed,
}

impl Devices {
    pub(super) fn open() -> io::Result<Self> {
        let mut list = std::ptr::null_mut();
        // SAFETY: a place for the result.
        let len = check(unsafe { raw::wsd_devices(&raw mut list) })?;
        Ok(Self {
            list: NonNull::new(list).ok_or(io::ErrorKind::NotFound)?,
            len: usize::try_from(len).unwrap_or(0),
        })
    }

    pub(super) fn get(&self, index: usize) -> Option<Device<'_>> {
        if index >= self.len {
            return None;
        }
        // SAFETY: inside the list, which has so many entries.
        let place = unsafe { self.list.add(index) };
        Some(Device {
            // SAFETY: as above.
            context: unsafe { place.read() },
            _list: PhantomData,
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Device<'_>> {
        (0..self.len).filter_map(|index| self.get(index))
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        // SAFETY: obtained from the library and freed once; devices borrow the list.
        unsafe { raw::wsd_devices_free(self.list.as_ptr()) };
    }
}

impl<'a> Device<'a> {
    pub(super) fn id(self) -> DeviceId {
        DeviceId(self.context.addr())
    }

    pub(super) fn limits(self) -> io::Result<Limits> {
        let mut limits = raw::Limits::default();
        // SAFETY: a device of a live list, and a place for the result.
        check(unsafe { raw::wsd_device_limits(self.context, &raw mut limits) })?;
        let size = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
        let small = |value: u32| u8::try_from(value).unwrap_or(u8::MAX);
        Ok(Limits {
            max_message: usize::try_from(limits.max_message).unwrap_or(usize::MAX),
            max_queue: size(limits.max_queue),
            max_completions: size(limits.max_completions),
            max_pieces: size(limits.max_pieces),
            max_read_pieces: size(limits.max_read_pieces),
            reads_in: small(limits.reads_in),
            reads_out: small(limits.reads_out),
            iwarp: limits.iwarp != 0,
        })
    }

    /// Readable when the device has something to tell.
    pub(super) fn descriptor(self) -> io::Result<BorrowedFd<'a>> {
        // SAFETY: a device of a live list.
        let fd = check(unsafe { raw::wsd_device_descriptor(self.context) })?;
        // SAFETY: its descriptor lives as long as the device.
        Ok(unsafe { BorrowedFd::borrow_raw(fd) })
    }

    /// Fails when nothing more will come: the kernel has taken the device away, and `descriptor` stays
    /// ready.
    pub(super) fn next(self) -> io::Result<Option<DeviceEvent>> {
        let mut event = raw::DeviceEvent::default();
        // SAFETY: a device of a live list, and a place for the result.
        let any = check(unsafe { raw::wsd_device_next(self.context, &raw mut event) })?;
        Ok((any == 1).then_some(match event.kind {
            1 => DeviceEvent::QueueBroken(event.context),
            2 => DeviceEvent::PortDown(u8::try_from(event.raw).unwrap_or(0)),
            3 => DeviceEvent::Gone,
            4 => DeviceEvent::Changed,
            5 => DeviceEvent::CompletionsBroken(event.context),
            _ => DeviceEvent::Other(event.raw),
        }))
    }
}

// ---- connection events -------------------------------------------------------------------

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CmKind {
    Other,
    AddressResolved,
    AddressError,
    RouteResolved,
    RouteError,
    Request,
    ConnectError,
    Unreachable,
    Rejected,
    Established,
    Disconnected,
    Removed,
    Changed,
}

impl CmKind {
    /// Whether an accepted connection has come about with this, or will not any more.
    pub(super) fn settles(self) -> bool {
        matches!(
            self,
            Self::Established
                | Self::Disconnected
                | Self::Rejected
                | Self::Unreachable
                | Self::ConnectError
                | Self::Removed
        )
    }
}

/// One event of the connection manager, already acknowledged.
#[derive(Debug)]
pub(super) struct CmEvent {
    pub(super) kind: CmKind,
    /// Of the connection; of the listener for a request.
    pub(super) context: u64,
    /// The new connection of a request.
    pub(super) conn: Option<Conn>,
    /// The errno, or the reason of a rejection.
    pub(super) status: i32,
    pub(super) reads_in: u8,
    pub(super) reads_out: u8,
    data: [u8; 69],
    length: u8,
}

impl CmEvent {
    /// The peer's private data. Longer than what it sent: the transport pads with zeros.
    pub(super) fn data(&self) -> &[u8] {
        self.data
            .get(..usize::from(self.length))
            .unwrap_or_default()
    }
}

/// Where the events of connections arrive.
#[derive(Debug)]
pub(super) struct Channel {
    raw: NonNull<raw::Channel>,
    fd: RawFd,
    /// Taking an event out may change the state of the queue pair that it is about, which librdmacm
    /// does not lock: no queue pair is destroyed meanwhile. Nothing waits under it.
    taking: Mutex<()>,
}

// SAFETY: librdmacm may be called from any thread; an event channel is a descriptor. What taking an
// event out must not meet is done under `taking`.
unsafe impl Send for Channel {}
// SAFETY: as above.
unsafe impl Sync for Channel {}

impl Channel {
    pub(super) fn open() -> io::Result<Arc<Self>> {
        let mut out = std::ptr::null_mut();
        let mut fd = -1;
        // SAFETY: two places for results.
        check(unsafe { raw::wsd_channel_open(&raw mut out, &raw mut fd) })?;
        let raw = NonNull::new(out).ok_or(io::ErrorKind::OutOfMemory)?;
        let taking = Mutex::new(());
        Ok(Arc::new(Self { raw, fd, taking }))
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor lives as long as the channel.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    pub(super) fn next(self: &Arc<Self>) -> io::Result<Option<CmEvent>> {
        let mut event = raw::Event {
            context: 0,
            conn: std::ptr::null_mut(),
            kind: 0,
            status: 0,
            reads_in: 0,
            reads_out: 0,
            length: 0,
            data: [0; 69],
        };
        let taken = {
            let _taking = self.taking.lock();
            // SAFETY: a live channel and a place for the result; no queue pair goes meanwhile.
            unsafe { raw::wsd_channel_next(self.raw.as_ptr(), &raw mut event) }
        };
        let any = check(taken)?;
        if any == 0 {
            return Ok(None);
        }
        Ok(Some(CmEvent {
            kind: match event.kind {
                1 => CmKind::AddressResolved,
                2 => CmKind::AddressError,
                3 => CmKind::RouteResolved,
                4 => CmKind::RouteError,
                5 => CmKind::Request,
                6 => CmKind::ConnectError,
                7 => CmKind::Unreachable,
                8 => CmKind::Rejected,
                9 => CmKind::Established,
                10 => CmKind::Disconnected,
                11 => CmKind::Removed,
                12 => CmKind::Changed,
                _ => CmKind::Other,
            },
            context: event.context,
            // The shim hands the new connection over.
            conn: NonNull::new(event.conn).map(|raw| Conn::own(raw, self)),
            status: event.status,
            reads_in: event.reads_in,
            reads_out: event.reads_out,
            data: event.data,
            length: event.length,
        }))
    }

    /// Whether an RDMA device serves this local address.
    pub(super) fn serves(&self, ip: IpAddr) -> bool {
        let address = to_raw(SocketAddr::new(ip, 0));
        // SAFETY: a live channel and a valid address.
        unsafe { raw::wsd_address_served(self.raw.as_ptr(), &raw const address) == 1 }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: every connection holds its channel, so none is left.
        unsafe { raw::wsd_channel_close(self.raw.as_ptr()) };
    }
}

// ---- connections -------------------------------------------------------------------------

/// Part of registered memory, as the device takes it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Sge {
    address: u64,
    len: u32,
    key: u32,
}

impl Sge {
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// Its first bytes, at most so many, and the rest if there is one.
    pub(super) fn split_at(self, most: usize) -> (Self, Option<Self>) {
        let front = u32::try_from(most).map_or(self.len, |most| most.min(self.len));
        let behind = Self {
            address: self.address + u64::from(front),
            len: self.len - front,
            ..self
        };
        let front = Self { len: front, ..self };
        (front, (behind.len > 0).then_some(behind))
    }

    #[cfg(test)]
    pub(super) fn pretend(address: u64, len: u32) -> Self {
        let key = 0;
        Self { address, len, key }
    }

    #[cfg(test)]
    pub(super) fn address(&self) -> u64 {
        self.address
    }

    /// Copies to where it begins; what does not fit is left out.
    pub(super) fn fill(&self, bytes: &[u8]) {
        let count = bytes.len().min(self.len as usize);
        let Ok(base) = usize::try_from(self.address) else {
            return;
        };
        let target = std::ptr::with_exposed_provenance_mut::<u8>(base);
        // SAFETY: registered memory of the caller, promised to stay and to be left to the fabric
        // while an operation holds it, as is the case wherever a piece is kept; `bytes` is memory of
        // this side.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, count) };
    }
}

/// How large the queues of a connection are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queues {
    pub(super) sends: usize,
    pub(super) receives: usize,
    pub(super) pieces: usize,
    pub(super) inline_bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Work {
    Send,
    Write {
        remote: u64,
        key: u32,
    },
    #[cfg(test)]
    Read {
        remote: u64,
        key: u32,
    },
}

bitflags::bitflags! {
    #[derive(Clone, Copy, Debug)]
    pub(super) struct How: i32 {
        const SIGNALED = 1;
        const FENCE = 2;
        const INLINE = 4;
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Status {
    Done,
    Flushed,
    TooLong,
    RemoteAccess,
    /// The peer found the operation invalid.
    RemoteRefused,
    /// No answer after all retries.
    NoAnswer,
    Local,
    /// The device could not carry out what was posted.
    LocalQueue,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Finished {
    pub(super) number: u64,
    pub(super) status: Status,
    pub(super) bytes: usize,
    /// The library's own code, for the log.
    pub(super) code: u32,
}

/// Where a transfer goes to or comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aim {
    pub(super) reads: bool,
    pub(super) key: u32,
}

/// Why the device did not take all parts of a transfer.
#[derive(Debug)]
pub(super) struct Refused {
    /// How many it did take, from the first.
    pub(super) taken: usize,
    pub(super) error: io::Error,
}

/// How many parts one call takes: `WSD_PARTS`.
const PARTS: usize = 64;

/// For tests: connections and registrations of which something could not be given back.
#[cfg(test)]
pub(super) static LEFT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// An identifier of librdmacm: a listener, or a connection with its queues.
#[derive(Debug)]
pub(super) struct Conn {
    raw: NonNull<raw::Conn>,
    /// For what librdmacm does not lock itself: the state of the queue pair. Taken before `taking` of
    /// the channel.
    control: Mutex<()>,
    /// Where its completions come out, once it has queues.
    seat: OnceLock<Seat>,
    channel: Arc<Channel>,
    #[cfg(test)]
    pub(super) watched: Watched,
}

/// For tests: what went to the device, and how.
#[cfg(test)]
#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) posted: Mutex<Vec<(Work, How)>>,
    /// How often the device was called.
    pub(super) bells: std::sync::atomic::AtomicUsize,
    /// How often it was asked to tell of the next completion.
    pub(super) asks: std::sync::atomic::AtomicUsize,
    /// As if the device had room for so many more parts, and with 0 for nothing at all.
    pub(super) room: Mutex<Option<usize>>,
    /// As if the device took nothing for this reason.
    pub(super) refuses: Mutex<Option<i32>>,
    /// As if the device did not give the next registration back.
    pub(super) keeps: std::sync::atomic::AtomicBool,
    /// As if the device did not flush its queues.
    pub(super) stuck: std::sync::atomic::AtomicBool,
}

#[cfg(test)]
impl Watched {
    fn note(&self, posted: impl Iterator<Item = (Work, How)>) {
        self.posted.lock().extend(posted);
        self.bells
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    fn refuse(&self) -> io::Result<()> {
        let full = (*self.room.lock() == Some(0)).then_some(libc::ENOMEM);
        match self.refuses.lock().or(full) {
            Some(error) => Err(io::Error::from_raw_os_error(error)),
            None => Ok(()),
        }
    }
}

// SAFETY: both libraries lock; what they do not lock is done under `control`, and the queue pair is
// destroyed by `kill` only while nobody posts, as its caller sees to.
unsafe impl Send for Conn {}
// SAFETY: as above.
unsafe impl Sync for Conn {}

impl Conn {
    fn own(raw: NonNull<raw::Conn>, channel: &Arc<Channel>) -> Self {
        Self {
            raw,
            control: Mutex::new(()),
            seat: OnceLock::new(),
            channel: Arc::clone(channel),
            #[cfg(test)]
            watched: Watched::default(),
        }
    }

    pub(super) fn new(channel: &Arc<Channel>, context: u64) -> io::Result<Self> {
        let mut out = std::ptr::null_mut();
        // SAFETY: a live channel and a place for the result.
        check(unsafe { raw::wsd_conn_create(channel.raw.as_ptr(), context, &raw mut out) })?;
        let raw = NonNull::new(out).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self::own(raw, channel))
    }

    fn at(&self) -> *mut raw::Conn {
        self.raw.as_ptr()
    }

    /// Names it in the events that are taken out from now on.
    pub(super) fn set_context(&self, context: u64) {
        // Whoever takes an event out reads it.
        let _taking = self.channel.taking.lock();
        // SAFETY: a live connection.
        unsafe { raw::wsd_conn_context(self.at(), context) };
    }

    pub(super) fn listen(&self, at: SocketAddr, backlog: usize) -> io::Result<()> {
        let at = to_raw(at);
        // SAFETY: a live connection and a valid address.
        check(unsafe { raw::wsd_conn_listen(self.at(), &raw const at, count(backlog)) })?;
        Ok(())
    }

    pub(super) fn resolve(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        timeout_ms: i32,
        ack_timeout: u8,
    ) -> io::Result<()> {
        let (from, to) = (to_raw(from), to_raw(to));
        // SAFETY: a live connection and two valid addresses.
        check(unsafe {
            raw::wsd_conn_resolve(
                self.at(),
                &raw const from,
                &raw const to,
                timeout_ms,
                i32::from(ack_timeout),
            )
        })?;
        Ok(())
    }

    pub(super) fn route(&self, timeout_ms: i32) -> io::Result<()> {
        // SAFETY: a live connection.
        check(unsafe { raw::wsd_conn_route(self.at(), timeout_ms) })?;
        Ok(())
    }

    /// The device and the port that it goes by, once they are known.
    pub(super) fn port(&self) -> Option<Port> {
        let mut number = 0;
        // SAFETY: a live connection, and a place for the result.
        let context = unsafe { raw::wsd_conn_device(self.at(), &raw mut number) };
        let device = DeviceId(context.addr());
        (!context.is_null()).then_some(Port { device, number })
    }

    /// The local and the peer's address.
    pub(super) fn addresses(&self) -> (SocketAddr, SocketAddr) {
        let (mut local, mut peer) = (raw::Address::default(), raw::Address::default());
        // SAFETY: a live connection and two places for results.
        unsafe { raw::wsd_conn_addresses(self.at(), &raw mut local, &raw mut peer) };
        (from_raw(&local), from_raw(&peer))
    }

    /// Makes the queues, once, with their completions at `place`. Returns them as they are. `waker`
    /// wakes whoever sleeps for them.
    pub(super) fn make_queues(
        &self,
        context: u64,
        wanted: Queues,
        place: Place,
        waker: &Arc<Waker>,
    ) -> io::Result<Queues> {
        let small = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let mut queues = raw::Queues {
            sends: small(wanted.sends),
            receives: small(wanted.receives),
            pieces: small(wanted.pieces),
            inline_bytes: small(wanted.inline_bytes),
        };
        let mut number = 0;
        let _control = self.control.lock();
        if self.seat.get().is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        // SAFETY: a live connection, a live completion queue, which the seat keeps until the queue
        // pair is gone, and two places for results.
        check(unsafe {
            raw::wsd_conn_queues(
                self.at(),
                place.source().at(),
                context,
                &raw mut queues,
                &raw mut number,
            )
        })?;
        self.seat.get_or_init(|| place.take(number, context, waker));
        Ok(Queues {
            inline_bytes: usize::try_from(queues.inline_bytes).unwrap_or(0),
            ..wanted
        })
    }

    /// Where its completions come out. None before there are queues.
    pub(super) fn seat(&self) -> Option<&Seat> {
        self.seat.get()
    }

    pub(super) fn connect(
        &self,
        data: &[u8],
        reads_in: u8,
        reads_out: u8,
        rnr_retry: u8,
    ) -> io::Result<()> {
        let length = u8::try_from(data.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let _control = self.control.lock();
        // SAFETY: a live connection and readable data of the length given.
        check(unsafe {
            let data = data.as_ptr().cast();
            raw::wsd_conn_connect(self.at(), data, length, reads_in, reads_out, rnr_retry)
        })?;
        Ok(())
    }

    pub(super) fn accept(
        &self,
        data: &[u8],
        reads_in: u8,
        reads_out: u8,
        rnr_retry: u8,
        ack_timeout: u8,
    ) -> io::Result<()> {
        let length = u8::try_from(data.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let _control = self.control.lock();
        // SAFETY: a live connection and readable data of the length given.
        check(unsafe {
            raw::wsd_conn_accept(
                self.at(),
                data.as_ptr().cast(),
                length,
                reads_in,
                reads_out,
                rnr_retry,
                i32::from(ack_timeout),
            )
        })?;
        Ok(())
    }

    pub(super) fn reject(&self, data: &[u8]) -> io::Result<()> {
        let length = u8::try_from(data.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: a live connection and readable data of the length given.
        check(unsafe { raw::wsd_conn_reject(self.at(), data.as_ptr().cast(), length) })?;
        Ok(())
    }

    /// How long the peer waits before it repeats a message for which no receive was posted.
    pub(super) fn set_patience(&self, rnr_timer: u8) -> io::Result<()> {
        let _control = self.control.lock();
        // SAFETY: a live connection.
        check(unsafe { raw::wsd_conn_patience(self.at(), rnr_timer) })?;
        Ok(())
    }

    /// Flushes both queues and tells the peer, or answers it.
    pub(super) fn disconnect(&self) -> (io::Result<()>, io::Result<()>) {
        let _control = self.control.lock();
        #[cfg(test)]
        if self
            .watched
            .stuck
            .load(std::sync::atomic::Ordering::Relaxed)
        {
            return (Ok(()), Ok(()));
        }
        // SAFETY: a live connection.
        let failed = check(unsafe { raw::wsd_conn_fail(self.at()) });
        // SAFETY: a live connection.
        let told = check(unsafe { raw::wsd_conn_disconnect(self.at()) });
        (failed.map(drop), told.map(drop))
    }

    /// Destroys the queue pair: nothing of it touches memory any more, and no further completion
    /// comes. The caller sees to it that nobody posts meanwhile or afterwards.
    pub(super) fn kill(&self) {
        let _control = self.control.lock();
        let _taking = self.channel.taking.lock();
        // SAFETY: a live connection; the caller keeps others from posting, and librdmacm does not
        // look at the queue pair meanwhile.
        unsafe { raw::wsd_conn_kill(self.at()) };
    }

    /// Starts a send, write or read. The queues have been made and not killed.
    pub(super) fn post(&self, number: u64, work: Work, how: How, pieces: &[Sge]) -> io::Result<()> {
        #[cfg(test)]
        self.watched.note(std::iter::once((work, how)));
        #[cfg(test)]
        self.watched.refuse()?;
        let (kind, remote, key) = match work {
            Work::Send => (0, 0, 0),
            Work::Write { remote, key } => (1, remote, key),
            #[cfg(test)]
            Work::Read { remote, key } => (2, remote, key),
        };
        // SAFETY: a live queue pair, pieces in memory that was promised, and as many as are said.
        check(unsafe {
            raw::wsd_conn_post(
                self.at(),
                number,
                kind,
                how.bits(),
                pieces.as_ptr(),
                count(pieces.len()),
                remote,
                key,
            )
        })?;
        Ok(())
    }

    /// Starts the parts of one transfer, in order, with one call of the device where they are not
    /// many. They are numbered from `first` on, and only the last one reports. The queues have been
    /// made and not killed.
    pub(super) fn post_parts(
        &self,
        first: u64,
        aim: Aim,
        how: How,
        parts: &[Part],
    ) -> Result<(), Refused> {
        #[cfg(test)]
        if self.watched.refuses.lock().is_some()
            && let Err(error) = self.watched.refuse()
        {
            return Err(Refused { taken: 0, error });
        }
        let last = parts.len().saturating_sub(1);
        let list: SmallVec<[raw::Part; 1]> = (first..)
            .zip(parts)
            .enumerate()
            .map(|(place, (number, part))| {
                let signaled = if place == last {
                    How::SIGNALED
                } else {
                    How::empty()
                };
                raw::Part {
                    number,
                    remote: part.remote,
                    pieces: part.pieces.as_ptr(),
                    count: count(part.pieces.len()),
                    flags: (how | signaled).bits(),
                }
            })
            .collect();
        let mut taken = 0;
        for chunk in self.watch(aim, &list).chunks(PARTS) {
            let mut more = 0;
            let kind = if aim.reads { 2 } else { 1 };
            // SAFETY: a live queue pair, as many parts as are said, with pieces in memory that was
            // promised, and a place for the result.
            let posted = check(unsafe {
                raw::wsd_conn_post_parts(
                    self.at(),
                    kind,
                    aim.key,
                    chunk.as_ptr(),
                    count(chunk.len()),
                    &raw mut more,
                )
            });
            taken += usize::try_from(more).unwrap_or(0);
            if let Err(error) = posted {
                return Err(Refused { taken, error });
            }
        }
        if taken < list.len() {
            let error = io::Error::from_raw_os_error(libc::ENOMEM);
            return Err(Refused { taken, error });
        }
        Ok(())
    }

    #[cfg(not(test))]
    fn watch<'a>(&self, _aim: Aim, list: &'a [raw::Part]) -> &'a [raw::Part] {
        list
    }

    /// What of it the device is to get.
    #[cfg(test)]
    fn watch<'a>(&self, aim: Aim, list: &'a [raw::Part]) -> &'a [raw::Part] {
        let room = (*self.watched.room.lock()).unwrap_or(usize::MAX);
        let list = list.get(..room).unwrap_or(list);
        self.watched.note(list.iter().map(|part| {
            let (remote, key) = (part.remote, aim.key);
            let work = if aim.reads {
                Work::Read { remote, key }
            } else {
                Work::Write { remote, key }
            };
            (work, How::from_bits_truncate(part.flags))
        }));
        list
    }

    /// Posts a receive. The queues have been made and not killed.
    pub(super) fn post_receive(&self, number: u64, pieces: &[Sge]) -> io::Result<()> {
        #[cfg(test)]
        if self.watched.refuses.lock().is_some() {
            self.watched.refuse()?;
        }
        // SAFETY: a live queue pair, pieces in memory that was promised, and as many as are said.
        check(unsafe {
            raw::wsd_conn_post_receive(self.at(), number, pieces.as_ptr(), count(pieces.len()))
        })?;
        Ok(())
    }

    /// Takes what has finished. True: there may be more.
    pub(super) fn poll(&self, into: &mut Vec<Finished>) -> bool {
        self.seat.get().is_some_and(|seat| seat.poll(into))
    }

    /// As `Seat::arm`, and not before there are queues.
    pub(super) fn arm(&self) {
        let _asked = self.seat.get().is_some_and(Seat::arm);
        #[cfg(test)]
        self.watched
            .asks
            .fetch_add(usize::from(_asked), std::sync::atomic::Ordering::Relaxed);
    }

    pub(super) fn disarm(&self) {
        if let Some(seat) = self.seat.get() {
            seat.disarm();
        }
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        // In this order: what still comes of the queue pair is taken out of the completion queue
        // before another one may have its place there.
        self.kill();
        drop(self.seat.take());
        // SAFETY: the last owner; registrations hold their connection, so none is left.
        if let Err(error) = check(unsafe { raw::wsd_conn_destroy(self.at()) }) {
            tracing::error!(%error, "something of a connection stays with its device");
            #[cfg(test)]
            LEFT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        // Named so that it is plain that the channel outlives what was made on it.
        let _ = &self.channel;
    }
}

// ---- memory ------------------------------------------------------------------------------

/// What a registration permits, exactly.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Rights {
    pub(super) local_write: bool,
    pub(super) remote_read: bool,
    pub(super) remote_write: bool,
}

/// Memory registered with the device, for one connection.
#[derive(Debug)]
pub(super) struct Mr {
    /// None once it was taken back.
    raw: Option<NonNull<raw::Mr>>,
    address: u64,
    len: usize,
    local: u32,
    remote: u32,
    conn: Arc<Conn>,
}

// SAFETY: a registration is only read until it is dropped.
unsafe impl Send for Mr {}
// SAFETY: as above.
unsafe impl Sync for Mr {}

impl Mr {
    /// # Safety
    /// While anything is posted on it, and as long as the peer may reach it, the memory stays mapped
    /// and is not used in conflict with that. A registration that nobody uses keeps the pages that
    /// it was made of, whatever is mapped there since.
    pub(super) unsafe fn register(
        conn: &Arc<Conn>,
        base: usize,
        len: usize,
        rights: Rights,
    ) -> io::Result<Self> {
        let access = i32::from(rights.local_write)
            | i32::from(rights.remote_read) << 1
            | i32::from(rights.remote_write) << 2;
        let mut out = std::ptr::null_mut();
        let (mut local, mut remote) = (0, 0);
        let address = base as u64;
        // SAFETY: a live connection and places for results; the memory is the caller's promise.
        check(unsafe {
            raw::wsd_mr_register(
                conn.at(),
                address,
                len as u64,
                access,
                &raw mut out,
                &raw mut local,
                &raw mut remote,
            )
        })?;
        Ok(Self {
            raw: Some(NonNull::new(out).ok_or(io::ErrorKind::OutOfMemory)?),
            address,
            len,
            local,
            remote,
            conn: Arc::clone(conn),
        })
    }

    /// The part of it, if it lies inside.
    pub(super) fn part(&self, offset: usize, len: usize) -> Option<Sge> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        Some(Sge {
            address: self.address + offset as u64,
            len: u32::try_from(len).ok()?,
            key: self.local,
        })
    }

    /// The key under which the peer reaches it.
    pub(super) fn remote_key(&self) -> u32 {
        self.remote
    }

    /// Takes it back. If that fails the device may still reach the memory, and dropping tries again.
    pub(super) fn end(&mut self) -> io::Result<()> {
        #[cfg(test)]
        if self
            .conn
            .watched
            .keeps
            .swap(false, std::sync::atomic::Ordering::Relaxed)
        {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        if let Some(raw) = self.raw {
            // SAFETY: made by `register`, of a connection that is kept; taken back once.
            check(unsafe { raw::wsd_mr_deregister(raw.as_ptr()) })?;
            self.raw = None;
        }
        Ok(())
    }
}

impl Drop for Mr {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "a registration could not be taken back");
            #[cfg(test)]
            LEFT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        // Named so that it is plain that the connection outlives what was made on it.
        let _ = &self.conn;
    }
}
