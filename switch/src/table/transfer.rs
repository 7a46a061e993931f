//! Memory and operations: registering, exposing, sending, receiving, RDMA, and their results.

use std::ffi::c_int;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering;

use wsdirect::abi::{self, DWORD, LPINT, WSABUF, WSABUFEX, WSAOVERLAPPED};

use super::{RawSocket, Table, code, filled, length32, status};
use crate::error::WsaError;
use crate::lent::{
    Access, Arguments, Descriptor, Direction, MAX_DESCRIPTOR, MAX_PIECES, MemoryHandle, Notice,
    Outcome, Piece, Places, Posted, Region, Slot,
};

impl Table {
    // ---- memory

    pub(crate) fn register(
        &self,
        socket: &RawSocket,
        region: Region,
        access: Access,
    ) -> Result<MemoryHandle, WsaError> {
        let call = filled(self.extensions.register)?;
        let (base, len, mut errno) = (region.base().as_ptr().cast(), region.len32()?, 0);
        // SAFETY: the maker of the region keeps the memory valid while it is registered.
        let handle = unsafe { call(socket.socket, base, len, access.flags(), &raw mut errno) };
        NonNull::new(handle).map(MemoryHandle).ok_or(code(errno))
    }

    pub(crate) fn deregister(
        &self,
        socket: &RawSocket,
        memory: MemoryHandle,
    ) -> Result<(), WsaError> {
        let call = filled(self.extensions.deregister)?;
        // SAFETY: the extension's function; the provider checks the handle.
        status(|errno| unsafe { call(socket.socket, memory.0.as_ptr(), errno) })
    }

    /// How long the provider's descriptors are, by a call with too little room.
    pub(crate) fn probe_descriptor(&self, socket: &RawSocket) -> Result<usize, WsaError> {
        static PROBE: [u8; 16] = [0; 16];
        let call = filled(self.extensions.register_rdma)?;
        let (mut len, mut none) = (0u32, 0u8);
        let (base, size) = (PROBE.as_ptr().cast_mut().cast(), length32(PROBE.len()));
        let (place, room) = ((&raw mut none).cast(), &raw mut len);
        // SAFETY: the extension's function; with no room for a descriptor nothing is registered.
        // req: WSD-15
        let probed = status(|errno| unsafe {
            call(socket.socket, base, size, abi::MEM_READ, place, room, errno)
        });
        match probed {
            Err(WsaError(abi::WSAEFAULT)) if len > 0 => usize::try_from(len)
                .ok()
                .filter(|len| *len <= MAX_DESCRIPTOR)
                .ok_or(WsaError(abi::WSAEINVALIDPROVIDER)),
            Err(error) => Err(error),
            Ok(()) => Err(WsaError(abi::WSAEINVALIDPROVIDER)),
        }
    }

    pub(crate) fn expose(
        &self,
        socket: &RawSocket,
        region: Region,
        access: Access,
        room: usize,
    ) -> Result<Descriptor, WsaError> {
        let call = filled(self.extensions.register_rdma)?;
        let mut bytes = [0; MAX_DESCRIPTOR];
        let mut len = length32(room.min(MAX_DESCRIPTOR));
        let (base, size) = (region.base().as_ptr().cast(), region.len32()?);
        let (place, count) = (bytes.as_mut_ptr().cast(), &raw mut len);
        let flags = access.flags();
        // SAFETY: the maker of the region keeps the memory valid while it is exposed; the
        // descriptor's room is as large as stated.
        status(|errno| unsafe { call(socket.socket, base, size, flags, place, count, errno) })?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len == 0 || len > MAX_DESCRIPTOR {
            return Err(WsaError(abi::WSAEINVALIDPROVIDER));
        }
        Ok(Descriptor { bytes, len })
    }

    pub(crate) fn conceal(
        &self,
        socket: &RawSocket,
        descriptor: &Descriptor,
    ) -> Result<(), WsaError> {
        let call = filled(self.extensions.deregister_rdma)?;
        let mut copy = *descriptor;
        let (place, len) = (copy.bytes.as_mut_ptr().cast(), length32(copy.len));
        // SAFETY: the extension's function; the descriptor lives during the call.
        status(|errno| unsafe { call(socket.socket, place, len, errno) })
    }

    // ---- operations

    pub(crate) fn send(
        &self,
        socket: &RawSocket,
        pieces: &[Region],
        slot: &Slot,
        notice: Notice,
    ) -> Result<Posted, WsaError> {
        let call = filled(self.slots.lpWSPSend)?;
        let count = fitting(pieces.len())?;
        let fill = |arguments: &mut Arguments| fill_buffers(&mut arguments.buffers, pieces);
        post(socket, slot, notice, fill, |lent, overlapped, errno| {
            let (buffers, moved, thread) = (lent.buffers, lent.moved, ptr::null_mut());
            // SAFETY: the table's function; arrays and overlapped stay in the slot until the
            // operation has ended, the memory for as long as the regions' maker promised.
            // req: WSD-17 no flags, overlapped, no routine
            unsafe {
                call(
                    socket.socket,
                    buffers,
                    count,
                    moved,
                    0,
                    overlapped,
                    None,
                    thread,
                    errno,
                )
            }
        })
    }

    pub(crate) fn receive(
        &self,
        socket: &RawSocket,
        pieces: &[Region],
        slot: &Slot,
        notice: Notice,
    ) -> Result<Posted, WsaError> {
        let call = filled(self.slots.lpWSPRecv)?;
        let count = fitting(pieces.len())?;
        let fill = |arguments: &mut Arguments| fill_buffers(&mut arguments.buffers, pieces);
        post(socket, slot, notice, fill, |lent, overlapped, errno| {
            let (buffers, moved, thread) = (lent.buffers, lent.moved, ptr::null_mut());
            let flags = lent.flags;
            // SAFETY: as for `send`.
            // req: WSD-17 no flags, overlapped, no routine
            unsafe {
                call(
                    socket.socket,
                    buffers,
                    count,
                    moved,
                    flags,
                    overlapped,
                    None,
                    thread,
                    errno,
                )
            }
        })
    }

    /// WSPRdmaWrite or WSPRdmaRead: the two have one shape.
    pub(crate) fn rdma(
        &self,
        socket: &RawSocket,
        direction: Direction,
        pieces: impl ExactSizeIterator<Item = Piece>,
        remote: (&[u8], u32),
        slot: &Slot,
        notice: Notice,
    ) -> Result<Posted, WsaError> {
        let call = match direction {
            Direction::Write => filled(self.extensions.rdma_write)?,
            Direction::Read => self
                .extensions
                .rdma_read
                .ok_or(WsaError(abi::WSAEOPNOTSUPP))?,
        };
        let count = fitting(pieces.len())?;
        let (descriptor, offset) = remote;
        let length = length32(descriptor.len());
        let fill = |arguments: &mut Arguments| {
            let room = arguments.remote.get_mut(..descriptor.len());
            room.ok_or(WsaError(abi::WSAEINVAL))?
                .copy_from_slice(descriptor);
            for (entry, piece) in arguments.pieces.iter_mut().zip(pieces) {
                *entry = WSABUFEX {
                    len: piece.region.len32()?,
                    buf: piece.region.base().as_ptr().cast(),
                    handle: piece.memory.0.as_ptr(),
                };
            }
            Ok(())
        };
        post(socket, slot, notice, fill, |lent, overlapped, errno| {
            let (local, target) = (lent.pieces, lent.remote.cast());
            let (moved, thread) = (lent.moved, ptr::null_mut());
            // SAFETY: the extension's function; otherwise as for `send`.
            // req: WSD-17 no flags, overlapped, no routine
            unsafe {
                call(
                    socket.socket,
                    local,
                    count,
                    target,
                    length,
                    offset,
                    moved,
                    0,
                    overlapped,
                    None,
                    thread,
                    errno,
                )
            }
        })
    }

    /// WSPGetOverlappedResult, never waiting. Lets the provider make progress, too.
    pub(crate) fn result(&self, socket: &RawSocket, slot: &Slot) -> Outcome {
        slot.collect(|| self.ask(socket, slot))
    }

    fn ask(&self, socket: &RawSocket, slot: &Slot) -> Outcome {
        let call = match filled(self.slots.lpWSPGetOverlappedResult) {
            Ok(call) => call,
            Err(error) => return Outcome::Failed(error),
        };
        let (mut bytes, mut flags, mut errno) = (0u32, 0u32, 0);
        let overlapped = slot.overlapped();
        let places = (&raw mut bytes, &raw mut flags, &raw mut errno);
        // SAFETY: the table's function; the overlapped belongs to this socket and stays in place.
        let done = unsafe {
            call(
                socket.socket,
                overlapped,
                places.0,
                abi::FALSE,
                places.1,
                places.2,
            )
        };
        if done != abi::FALSE {
            Outcome::Done(usize::try_from(bytes).unwrap_or(usize::MAX))
        } else if errno == abi::WSA_IO_INCOMPLETE {
            Outcome::Pending
        } else {
            Outcome::Failed(code(errno))
        }
    }

    /// WSPArmCompletion: whether it is armed, so that one may sleep on
    /// [`RawSocket::wait_descriptor`]. If not, there is something to poll.
    pub(crate) fn arm(&self, socket: &RawSocket) -> Result<bool, WsaError> {
        let call = self.extensions.arm.ok_or(WsaError(abi::WSAEOPNOTSUPP))?;
        let (mut descriptor, mut pending) = (-1, abi::FALSE);
        let places = (&raw mut descriptor, &raw mut pending);
        // SAFETY: the extension's function; both results live during the call.
        status(|errno| unsafe { call(socket.socket, places.0, places.1, errno) })?;
        if pending != abi::FALSE {
            return Ok(false);
        }
        if descriptor < 0 {
            return Err(WsaError(abi::WSAEINVALIDPROVIDER));
        }
        socket.descriptor.store(descriptor, Ordering::Release);
        Ok(true)
    }
}

/// Takes the slot, calls, and sorts the three ways the call can end.
fn post(
    socket: &RawSocket,
    slot: &Slot,
    notice: Notice,
    fill: impl FnOnce(&mut Arguments) -> Result<(), WsaError>,
    call: impl FnOnce(Places, *mut WSAOVERLAPPED, LPINT) -> c_int,
) -> Result<Posted, WsaError> {
    if slot.owner() != socket.handle.number() {
        return Err(WsaError(abi::WSAEINVAL));
    }
    slot.begin(notice)?;
    // SAFETY: taken just now, and not yet lent.
    let filled = unsafe { slot.fill(fill) };
    if let Err(error) = filled {
        slot.end();
        return Err(error);
    }
    let mut errno = 0;
    let result = call(slot.places(), slot.overlapped(), &raw mut errno);
    if result == 0 {
        // SAFETY: over, and not ended yet.
        let moved = unsafe { slot.moved() };
        slot.end();
        Ok(Posted::Done(moved))
    } else if errno == abi::WSA_IO_PENDING {
        // It may be finished, collected and posted anew by now: not touched again.
        Ok(Posted::Pending)
    } else {
        slot.end();
        Err(code(errno))
    }
}

fn fill_buffers(entries: &mut [WSABUF], pieces: &[Region]) -> Result<(), WsaError> {
    for (entry, piece) in entries.iter_mut().zip(pieces) {
        *entry = WSABUF {
            len: piece.len32()?,
            buf: piece.base().as_ptr().cast(),
        };
    }
    Ok(())
}

fn fitting(pieces: usize) -> Result<DWORD, WsaError> {
    if pieces > MAX_PIECES {
        Err(WsaError(abi::WSAEINVAL))
    } else {
        Ok(length32(pieces))
    }
}
