//! A socket of the provider, with a method for each function of the table.

use core::ffi::c_int;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use super::upcalls::{Completion, RECORDED, await_recorded};
use super::{Area, Event, Op, call, close_socket, eventually, result_of, socket_of, table};
use crate::abi::*;
use crate::spi::args::{self, RawAddress};
use crate::spi::{memory, transfer};

/// Where tests connect: an address of this host, the loopback's unless `WSD_TEST_ADDRESS` names one.
fn here() -> IpAddr {
    match std::env::var("WSD_TEST_ADDRESS") {
        Ok(address) => address.parse().expect("an address in WSD_TEST_ADDRESS"),
        Err(_) => Ipv4Addr::LOCALHOST.into(),
    }
}

/// A socket and what belongs to it.
pub(in crate::spi::tests) struct Sock {
    pub(in crate::spi::tests) s: SOCKET,
    pub(in crate::spi::tests) event: Event,
    pub(in crate::spi::tests) at: SocketAddr,
    /// Keeps the port, as the switch's TCP socket does.
    _companion: Option<TcpListener>,
}

impl Sock {
    /// An unbound socket.
    pub(in crate::spi::tests) fn new() -> Self {
        Self::of(here())
    }

    /// An unbound socket for an address with a port of its own.
    pub(in crate::spi::tests) fn of(ip: IpAddr) -> Self {
        let companion = TcpListener::bind((ip, 0)).unwrap();
        let family = if ip.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        Self {
            s: socket_of(family, libc::SOCK_STREAM, libc::IPPROTO_TCP).unwrap(),
            event: Event::new(),
            at: companion.local_addr().unwrap(),
            _companion: Some(companion),
        }
    }

    fn accepted(s: SOCKET, at: SocketAddr) -> Self {
        Self {
            s,
            event: Event::new(),
            at,
            _companion: None,
        }
    }

    pub(in crate::spi::tests) fn bound() -> Self {
        Self::bound_to(here())
    }

    pub(in crate::spi::tests) fn bound_to(ip: IpAddr) -> Self {
        let socket = Self::of(ip);
        socket.bind(socket.at).unwrap();
        socket
    }

    pub(in crate::spi::tests) fn listening(backlog: c_int) -> Self {
        let socket = Self::bound();
        socket.listen(backlog).unwrap();
        socket.select(FD_ACCEPT).unwrap();
        socket
    }

    pub(in crate::spi::tests) fn bind(&self, at: SocketAddr) -> Result<(), c_int> {
        let mut raw = RawAddress::new(at);
        let length = c_int::try_from(raw.len()).unwrap();
        let name = raw.as_mut_ptr().cast();
        call(SOCKET_ERROR, |e| table!(lpWSPBind(self.s, name, length, e))).map(drop)
    }

    pub(in crate::spi::tests) fn listen(&self, backlog: c_int) -> Result<(), c_int> {
        call(SOCKET_ERROR, |e| table!(lpWSPListen(self.s, backlog, e))).map(drop)
    }

    pub(in crate::spi::tests) fn select(&self, events: i32) -> Result<(), c_int> {
        self.select_with(self.event.handle(), events)
    }

    pub(in crate::spi::tests) fn select_with(
        &self,
        event: WSAEVENT,
        events: i32,
    ) -> Result<(), c_int> {
        call(SOCKET_ERROR, |e| {
            table!(lpWSPEventSelect(self.s, event, events, e))
        })
        .map(drop)
    }

    /// Takes out what happened; slots that were not written hold 77.
    pub(in crate::spi::tests) fn events(&self) -> WSANETWORKEVENTS {
        let mut events = WSANETWORKEVENTS {
            lNetworkEvents: -1,
            iErrorCode: [77; 10],
        };
        let event = self.event.handle();
        call(SOCKET_ERROR, |e| {
            table!(lpWSPEnumNetworkEvents(self.s, event, &raw mut events, e))
        })
        .unwrap();
        events
    }

    pub(in crate::spi::tests) fn connect(&self, to: SocketAddr) -> c_int {
        let mut raw = RawAddress::new(to);
        let length = c_int::try_from(raw.len()).unwrap();
        let name = raw.as_mut_ptr().cast();
        let none = std::ptr::null_mut();
        call(SOCKET_ERROR, |e| {
            table!(lpWSPConnect(
                self.s,
                name,
                length,
                none,
                none,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                e
            ))
        })
        .unwrap_err()
    }

    /// Begins to connect with the event selected.
    pub(in crate::spi::tests) fn begin_connect(&self, to: SocketAddr) {
        self.select(FD_CONNECT).unwrap();
        assert_eq!(self.connect(to), WSAEWOULDBLOCK);
    }

    /// The code of the connect.
    pub(in crate::spi::tests) fn connect_outcome(&self) -> c_int {
        let bit = usize::try_from(FD_CONNECT_BIT).unwrap();
        loop {
            self.event.wait();
            let events = self.events();
            if events.lNetworkEvents & FD_CONNECT != 0 {
                return events.iErrorCode[bit];
            }
        }
    }

    /// Waits for a request.
    pub(in crate::spi::tests) fn await_request(&self) {
        loop {
            self.event.wait();
            if self.events().lNetworkEvents & FD_ACCEPT != 0 {
                return;
            }
        }
    }

    pub(in crate::spi::tests) fn accept(&self) -> Result<Sock, c_int> {
        self.accept_if(None, 0)
    }

    pub(in crate::spi::tests) fn accept_if(
        &self,
        condition: LPCONDITIONPROC,
        data: usize,
    ) -> Result<Sock, c_int> {
        // SAFETY: any bytes are a sockaddr_in6.
        let mut room: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
        let mut length = c_int::try_from(size_of_val(&room)).unwrap();
        let name: *mut libc::sockaddr = (&raw mut room).cast();
        let s = call(INVALID_SOCKET, |e| {
            table!(lpWSPAccept(
                self.s,
                name,
                &raw mut length,
                condition,
                data,
                e
            ))
        })?;
        // SAFETY: filled by the call.
        let peer = unsafe { args::address(name, length) }.unwrap();
        Ok(Sock::accepted(s, peer))
    }

    pub(in crate::spi::tests) fn close(&self) -> Result<(), c_int> {
        close_socket(self.s)
    }

    /// The switch's socket.
    pub(in crate::spi::tests) fn switch_socket(&self) -> SOCKET {
        let recorded = RECORDED.lock();
        let mut mine = recorded
            .sockets
            .iter()
            .filter(|(_, socket)| socket.context == self.s)
            .map(|(number, _)| *number);
        let found = mine.next().expect("no upcall has made a switch socket");
        assert!(
            mine.next().is_none(),
            "several switch sockets for one socket"
        );
        found
    }

    pub(in crate::spi::tests) fn catalog(&self) -> DWORD {
        let number = self.switch_socket();
        RECORDED.lock().sockets[&number].catalog
    }

    /// The completions that were reported, in order.
    pub(in crate::spi::tests) fn completions(&self) -> Vec<Completion> {
        let number = self.switch_socket();
        RECORDED.lock().sockets[&number].completions.clone()
    }

    pub(in crate::spi::tests) fn await_completions(&self, count: usize) -> Vec<Completion> {
        let number = self.switch_socket();
        await_recorded("a completion upcall", |recorded| {
            let socket = &recorded.sockets[&number];
            socket.completions.len() >= count && socket.running == 0
        });
        self.completions()
    }

    /// Whether the switch's socket was given back.
    pub(in crate::spi::tests) fn is_given_back(&self) -> bool {
        let number = self.switch_socket();
        RECORDED.lock().sockets[&number].closed == 1
    }

    pub(in crate::spi::tests) fn await_given_back(&self) {
        let number = self.switch_socket();
        await_recorded("WPUCloseSocketHandle", |recorded| {
            recorded.sockets[&number].closed == 1
        });
    }

    pub(in crate::spi::tests) fn send(&self, buffers: &[WSABUF], op: &Op) -> c_int {
        let first = buffers.as_ptr().cast_mut();
        let count = u32::try_from(buffers.len()).unwrap();
        self.send_raw(first, count, 0, op.pointer())
    }

    pub(in crate::spi::tests) fn send_raw(
        &self,
        first: LPWSABUF,
        count: u32,
        flags: u32,
        op: LPWSAOVERLAPPED,
    ) -> c_int {
        let none = std::ptr::null_mut();
        call(SOCKET_ERROR, |e| {
            table!(lpWSPSend(
                self.s,
                first,
                count,
                none,
                flags,
                op,
                None,
                std::ptr::null_mut(),
                e
            ))
        })
        .unwrap_err()
    }

    pub(in crate::spi::tests) fn recv(&self, buffers: &[WSABUF], op: &Op) -> c_int {
        let first = buffers.as_ptr().cast_mut();
        let count = u32::try_from(buffers.len()).unwrap();
        self.recv_raw(first, count, 0, op.pointer())
    }

    pub(in crate::spi::tests) fn recv_raw(
        &self,
        first: LPWSABUF,
        count: u32,
        mut flags: u32,
        op: LPWSAOVERLAPPED,
    ) -> c_int {
        let none = std::ptr::null_mut();
        call(SOCKET_ERROR, |e| {
            table!(lpWSPRecv(
                self.s,
                first,
                count,
                none,
                &raw mut flags,
                op,
                None,
                std::ptr::null_mut(),
                e
            ))
        })
        .unwrap_err()
    }

    /// Asks for the result of an operation: (bytes, flags).
    pub(in crate::spi::tests) fn result(&self, op: &Op, wait: bool) -> Result<(u32, u32), c_int> {
        result_of(self.s, op.pointer(), wait)
    }

    /// Polls until the operation has ended.
    pub(in crate::spi::tests) fn finish(&self, op: &Op) -> Result<u32, c_int> {
        eventually("the end of an operation", || match self.result(op, false) {
            Err(WSA_IO_INCOMPLETE) => None,
            other => Some(other.map(|(bytes, _)| bytes)),
        })
    }

    pub(in crate::spi::tests) fn register(
        &self,
        base: *mut u8,
        length: usize,
        flags: u32,
    ) -> Result<HANDLE, c_int> {
        let length = u32::try_from(length).unwrap();
        call(std::ptr::null_mut(), |e| {
            // SAFETY: memory of the test.
            unsafe { memory::register(self.s, base.cast(), length, flags, e) }
        })
    }

    pub(in crate::spi::tests) fn deregister(&self, handle: HANDLE) -> Result<(), c_int> {
        call(SOCKET_ERROR, |e| {
            // SAFETY: any handle will do.
            unsafe { memory::deregister(self.s, handle, e) }
        })
        .map(drop)
    }

    /// Exposes memory; the room is as given.
    pub(in crate::spi::tests) fn expose(
        &self,
        base: *mut u8,
        length: usize,
        flags: u32,
        room: &mut [u8],
    ) -> Result<u32, (c_int, u32)> {
        let length = u32::try_from(length).unwrap();
        let mut used = u32::try_from(room.len()).unwrap();
        let to: LPVOID = room.as_mut_ptr().cast();
        let result = call(SOCKET_ERROR, |e| {
            // SAFETY: memory of the test.
            unsafe {
                memory::register_rdma(self.s, base.cast(), length, flags, to, &raw mut used, e)
            }
        });
        match result {
            Ok(_) => Ok(used),
            Err(code) => Err((code, used)),
        }
    }

    pub(in crate::spi::tests) fn window(&self, area: &Area, flags: u32) -> Vec<u8> {
        let mut room = vec![0; 64];
        let used = self
            .expose(area.pointer(0), area.len(), flags, &mut room)
            .unwrap();
        room.truncate(used as usize);
        room
    }

    pub(in crate::spi::tests) fn conceal(&self, descriptor: &[u8]) -> Result<(), c_int> {
        let length = u32::try_from(descriptor.len()).unwrap();
        let from: LPVOID = descriptor.as_ptr().cast_mut().cast();
        call(SOCKET_ERROR, |e| {
            // SAFETY: bytes of the test.
            unsafe { memory::deregister_rdma(self.s, from, length, e) }
        })
        .map(drop)
    }

    pub(in crate::spi::tests) fn rdma(
        &self,
        write: bool,
        pieces: &[WSABUFEX],
        descriptor: &[u8],
        offset: u32,
        op: &Op,
    ) -> c_int {
        let function = if write {
            memory::rdma_write as unsafe extern "C" fn(_, _, _, _, _, _, _, _, _, _, _, _) -> _
        } else {
            memory::rdma_read
        };
        let first = pieces.as_ptr().cast_mut();
        let count = u32::try_from(pieces.len()).unwrap();
        let remote: LPVOID = descriptor.as_ptr().cast_mut().cast();
        let remote_length = u32::try_from(descriptor.len()).unwrap();
        call(SOCKET_ERROR, |e| {
            // SAFETY: memory of the test.
            unsafe {
                function(
                    self.s,
                    first,
                    count,
                    remote,
                    remote_length,
                    offset,
                    std::ptr::null_mut(),
                    0,
                    op.pointer(),
                    None,
                    std::ptr::null_mut(),
                    e,
                )
            }
        })
        .unwrap_err()
    }

    /// (descriptor, pending)
    pub(in crate::spi::tests) fn arm(&self) -> Result<(c_int, bool), c_int> {
        let (mut descriptor, mut pending) = (-1, -1);
        call(SOCKET_ERROR, |e| {
            // SAFETY: places of ours.
            unsafe { transfer::arm_completion(self.s, &raw mut descriptor, &raw mut pending, e) }
        })?;
        Ok((descriptor, pending != 0))
    }
}

impl Drop for Sock {
    fn drop(&mut self) {
        // Most tests have closed it.
        let _ = self.close();
    }
}
