//! Sending and receiving, with the flags of the kernel's calls.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};

use libc::c_int;
use wsd_switch::SanStream;

use crate::socket::Socket;
use crate::sys::errno;

/// Flags of a send that mean something here, or that nothing has to be done for.
const SEND_FLAGS: c_int =
    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | libc::MSG_OOB | libc::MSG_MORE | libc::MSG_EOR;
/// The same of a receive.
const RECEIVE_FLAGS: c_int = libc::MSG_DONTWAIT
    | libc::MSG_NOSIGNAL
    | libc::MSG_OOB
    | libc::MSG_PEEK
    | libc::MSG_WAITALL
    | libc::MSG_CMSG_CLOEXEC;

impl Socket {
    pub(crate) fn send(&self, slices: &[IoSlice<'_>], flags: c_int) -> io::Result<usize> {
        if flags & !SEND_FLAGS != 0 {
            return Err(errno(libc::EOPNOTSUPP));
        }
        let stream = self.stream()?;
        let waits = flags & libc::MSG_DONTWAIT == 0;
        let sent = again(|| {
            if flags & libc::MSG_OOB != 0 {
                let bytes: Vec<u8> = slices
                    .iter()
                    .flat_map(|slice| slice.iter())
                    .copied()
                    .collect();
                return if waits {
                    stream.send_urgent(&bytes)
                } else {
                    stream.try_send_urgent(&bytes)
                };
            }
            match slices {
                _ if !waits => stream.try_write_vectored(slices),
                [one] => (&*stream).write(one),
                _ => (&*stream).write_vectored(slices),
            }
        });
        self.answer(sent)
    }

    pub(crate) fn receive(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        flags: c_int,
    ) -> io::Result<usize> {
        if flags & !RECEIVE_FLAGS != 0 {
            return Err(errno(libc::EOPNOTSUPP));
        }
        let stream = self.stream()?;
        let waits = flags & libc::MSG_DONTWAIT == 0;
        let room: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        if room == 0 {
            return Ok(0);
        }
        if flags & libc::MSG_OOB != 0 {
            return receive_urgent(stream, buffers);
        }
        if flags & libc::MSG_PEEK != 0 {
            let first = buffers.iter_mut().find(|buffer| !buffer.is_empty());
            let first = first.ok_or_else(|| errno(libc::EINVAL))?;
            let peeked = again(|| {
                if waits {
                    stream.peek(first)
                } else {
                    stream.try_peek(first)
                }
            });
            return self.answer(peeked);
        }
        let everything = flags & libc::MSG_WAITALL != 0 && waits;
        let mut rest = buffers;
        let mut done = 0;
        let received = loop {
            match again(|| receive_once(stream, rest, waits)) {
                Ok(count) => {
                    done += count;
                    // As with TCP, no call goes beyond the mark that has got a part before it.
                    let is_over = count == 0 || done == room;
                    if !everything || is_over || matches!(stream.at_mark(), Ok(true)) {
                        break Ok(done);
                    }
                    IoSliceMut::advance_slices(&mut rest, count);
                }
                // The error comes again with the next call.
                Err(_) if done > 0 => break Ok(done),
                Err(error) => break Err(error),
            }
        };
        self.answer(received)
    }
}

fn receive_once(
    mut stream: &SanStream,
    buffers: &mut [IoSliceMut<'_>],
    waits: bool,
) -> io::Result<usize> {
    match buffers {
        _ if !waits => stream.try_read_vectored(buffers),
        [one] => stream.read(one),
        _ => stream.read_vectored(buffers),
    }
}

/// One byte, for the first buffer that has room.
fn receive_urgent(stream: &SanStream, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    let byte = stream.receive_urgent()?;
    match buffers.iter_mut().find_map(|buffer| buffer.first_mut()) {
        Some(place) => {
            *place = byte;
            Ok(1)
        }
        None => Err(errno(libc::EINVAL)),
    }
}

/// A signal does not end a call: as if every handler were made with SA_RESTART.
fn again(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
