//! The mock's data path: messages, RDMA and completions, by plain copies within the process.

use std::sync::atomic::{AtomicUsize, Ordering};

use wsdirect::abi::{self, LPWSABUF, LPWSABUFEX, SOCKET, WSABUF, WSABUFEX};

use super::work::{Upcall, later};
use super::{Call, Overlapped, Posted, Registered, Socket, State};

/// Local pieces as addresses.
pub(crate) type Pieces = Vec<(usize, usize)>;

/// Ends an operation: fields first, then the word that says "over", or the upcall.
pub(crate) fn complete(socket: &mut Socket, overlapped: Overlapped, error: i32, bytes: usize) {
    let pointer = overlapped.pointer();
    // SAFETY: the switch keeps the structure in place until the operation has ended.
    unsafe {
        (*pointer).Offset = 0;
        (*pointer).OffsetHigh = error.cast_unsigned();
        (*pointer).InternalHigh = bytes;
    }
    if overlapped.is_polled {
        socket.uncollected += 1;
        // SAFETY: as above; the word is aligned.
        let word = unsafe { AtomicUsize::from_ptr(&raw mut (*pointer).Internal) };
        word.store(0, Ordering::Release);
        if let Some(wake) = &socket.wake {
            wake.set();
        }
    } else {
        later(Upcall::Complete {
            handle: socket.handle,
            overlapped,
            error,
            bytes,
        });
    }
}

/// # Safety
/// `buffers` points to `count` entries.
pub(crate) unsafe fn pieces(buffers: LPWSABUF, count: u32) -> Pieces {
    let read = |index: u32| {
        // SAFETY: within the entries the caller vouches for.
        let entry: WSABUF = unsafe { buffers.add(index as usize).read() };
        (entry.buf.expose_provenance(), entry.len as usize)
    };
    (0..count).map(read).collect()
}

/// # Safety
/// `buffers` points to `count` entries.
pub(crate) unsafe fn pieces_with_handles(
    buffers: LPWSABUFEX,
    count: u32,
) -> Vec<(usize, usize, usize)> {
    let read = |index: u32| {
        // SAFETY: within the entries the caller vouches for.
        let entry: WSABUFEX = unsafe { buffers.add(index as usize).read() };
        (
            entry.buf.expose_provenance(),
            entry.len as usize,
            entry.handle.addr(),
        )
    };
    (0..count).map(read).collect()
}

pub(crate) fn covers(registered: &Registered, base: usize, len: usize, flags: u32) -> bool {
    base >= registered.base
        && base + len <= registered.base + registered.len
        && registered.flags & flags == flags
}

fn gather(pieces: &Pieces) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (base, len) in pieces {
        let pointer = std::ptr::with_exposed_provenance::<u8>(*base);
        // SAFETY: covered by a registration, whose maker keeps it valid.
        bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(pointer, *len) });
    }
    bytes
}

fn scatter(bytes: &[u8], pieces: &Pieces) {
    let mut rest = bytes;
    for (base, len) in pieces {
        let (now, later) = rest.split_at(rest.len().min(*len));
        let pointer = std::ptr::with_exposed_provenance_mut::<u8>(*base);
        // SAFETY: covered by a registration, whose maker keeps it valid.
        unsafe { std::ptr::copy_nonoverlapping(now.as_ptr(), pointer, now.len()) };
        rest = later;
    }
    assert!(rest.is_empty(), "a message larger than the posted receive");
}

impl State {
    fn check_plain(&self, socket: SOCKET, pieces: &Pieces, flags: u32) -> Result<(), i32> {
        let socket = &self.sockets[&socket];
        let covered = |(base, len): &(usize, usize)| {
            socket
                .memory
                .iter()
                .any(|registered| covers(registered, *base, *len, flags))
        };
        if pieces.iter().all(covered) {
            Ok(())
        } else {
            Err(abi::WSAEFAULT)
        }
    }

    pub(crate) fn send(
        &mut self,
        number: SOCKET,
        pieces: &Pieces,
        overlapped: Overlapped,
    ) -> Result<(), i32> {
        let socket = self.sockets.get(&number).ok_or(abi::WSAENOTSOCK)?;
        if !socket.is_connected {
            return Err(abi::WSAENOTCONN);
        }
        self.check_plain(number, pieces, abi::MEM_READ)?;
        let message = gather(pieces);
        if self
            .config
            .max_message
            .is_some_and(|most| message.len() > most as usize)
        {
            return Err(abi::WSAEMSGSIZE);
        }
        let peer = self.sockets[&number]
            .peer
            .filter(|peer| self.sockets.contains_key(peer));
        let Some(peer) = peer else {
            return Err(abi::WSAECONNRESET);
        };
        let len = message.len();
        self.messages.push((number, message.clone()));
        let other = self.sockets.get_mut(&peer).unwrap();
        // req: WSD-19 no more in flight than is posted, whatever this provider would put up with.
        // The first message may come before there is anybody to post.
        let is_early = !other.has_posted && other.inbox.is_empty();
        if other.receives.is_empty() && !is_early {
            self.trace.push(Call {
                socket: number,
                made_by: other.made_by,
                name: "Send",
                detail: "BAD no receive is posted for it".to_owned(),
                code: 0,
            });
        }
        other.inbox.push_back(message);
        deliver(other);
        complete(self.sockets.get_mut(&number).unwrap(), overlapped, 0, len);
        Ok(())
    }

    pub(crate) fn receive(
        &mut self,
        number: SOCKET,
        buffers: Pieces,
        overlapped: Overlapped,
    ) -> Result<(), i32> {
        let socket = self.sockets.get(&number).ok_or(abi::WSAENOTSOCK)?;
        if !socket.is_connected {
            return Err(abi::WSAENOTCONN);
        }
        self.check_plain(number, &buffers, abi::MEM_WRITE)?;
        let gone = !socket
            .peer
            .is_some_and(|peer| self.sockets.contains_key(&peer));
        let depth = self.config.receive_depth;
        let socket = self.sockets.get_mut(&number).unwrap();
        if socket.receives.len() >= depth {
            return Err(abi::WSAEWOULDBLOCK);
        }
        if gone && socket.inbox.is_empty() {
            return Err(abi::WSAECONNRESET);
        }
        socket.has_posted = true;
        socket.receives.push_back(Posted {
            overlapped,
            buffers,
        });
        deliver(socket);
        Ok(())
    }

    /// RDMA: `reads` takes from the peer's memory, otherwise it is written to.
    pub(crate) fn rdma(
        &mut self,
        number: SOCKET,
        reads: bool,
        local: &[(usize, usize, usize)],
        remote: (&[u8], usize),
        overlapped: Overlapped,
    ) -> Result<(), i32> {
        let socket = self.sockets.get(&number).ok_or(abi::WSAENOTSOCK)?;
        let needed = if reads { abi::MEM_WRITE } else { abi::MEM_READ };
        for (base, len, handle) in local {
            let registered = socket
                .memory
                .iter()
                .find(|registered| registered.number == *handle);
            let registered = registered.ok_or(abi::WSAEINVAL)?;
            if !covers(registered, *base, *len, needed) {
                return Err(abi::WSAEFAULT);
            }
        }
        let pieces: Pieces = local.iter().map(|(base, len, _)| (*base, *len)).collect();
        let total: usize = pieces.iter().map(|(_, len)| len).sum();
        if self
            .config
            .max_rdma
            .is_some_and(|most| total > most as usize)
        {
            return Err(abi::WSAEINVAL);
        }
        let (descriptor, offset) = remote;
        if descriptor.len() != self.config.descriptor_len {
            return Err(abi::WSAEINVAL);
        }
        let wanted = usize::from_le_bytes(descriptor[..8].try_into().unwrap());
        let allowed = if reads { abi::MEM_READ } else { abi::MEM_WRITE };
        let peer = socket.peer.and_then(|peer| self.sockets.get(&peer));
        let exposed = peer.and_then(|peer| peer.exposed.iter().find(|one| one.number == wanted));
        let target = exposed.map(|exposed| (exposed.base + offset, exposed));
        let reachable = target.filter(|(base, exposed)| covers(exposed, *base, total, allowed));
        let target = reachable.map(|(base, _)| base);
        let socket = self.sockets.get_mut(&number).unwrap();
        match target {
            Some(base) if reads => {
                scatter(&gather(&vec![(base, total)]), &pieces);
                complete(socket, overlapped, 0, total);
            }
            Some(base) => {
                scatter(&gather(&pieces), &vec![(base, total)]);
                complete(socket, overlapped, 0, total);
            }
            None => complete(socket, overlapped, abi::WSAECONNABORTED, 0),
        }
        Ok(())
    }

    /// Flushes what a socket and its peer have pending. The peer keeps what has already arrived.
    pub(crate) fn flush(&mut self, number: SOCKET) {
        let Some(socket) = self.sockets.get_mut(&number) else {
            return;
        };
        let peer = socket.peer;
        for posted in std::mem::take(&mut socket.receives) {
            complete(socket, posted.overlapped, abi::WSA_OPERATION_ABORTED, 0);
        }
        if let Some(socket) = peer.and_then(|peer| self.sockets.get_mut(&peer)) {
            for posted in std::mem::take(&mut socket.receives) {
                complete(socket, posted.overlapped, abi::WSAECONNRESET, 0);
            }
            if let Some(wake) = &socket.wake {
                wake.set();
            }
        }
    }
}

/// Puts waiting messages into posted receives, one each.
fn deliver(socket: &mut Socket) {
    while !socket.inbox.is_empty() && !socket.receives.is_empty() {
        let message = socket.inbox.pop_front().unwrap();
        let posted = socket.receives.pop_front().unwrap();
        scatter(&message, &posted.buffers);
        complete(socket, posted.overlapped, 0, message.len());
    }
}
