//! The two ends of a kernel connection with their companions, used as a library that interposes
//! the C library's calls uses them.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libc::{c_int, iovec};
use wsd_switch::companion::{Companion, Path, Role};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One end.
pub(crate) struct End {
    pub(crate) tcp: TcpStream,
    pub(crate) companion: Arc<Companion>,
    closed: bool,
}

impl End {
    pub(crate) fn new(tcp: TcpStream, role: Role) -> End {
        let companion = Companion::new(tcp.as_fd(), role).expect("nothing forbids the SAN");
        End {
            tcp,
            companion,
            closed: false,
        }
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.tcp.as_raw_fd()
    }

    pub(crate) fn receive(&self, buffer: &mut [u8], flags: c_int) -> io::Result<usize> {
        loop {
            let mut buffers = [iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: buffer.len(),
            }];
            let begun = if flags & libc::MSG_WAITALL == 0 {
                self.companion.begin_receive(self.fd())
            } else {
                None
            };
            let Some(receiving) = begun else {
                // SAFETY: the buffer is live and this call's alone.
                return unsafe { self.companion.receive(self.fd(), &buffers, flags) };
            };
            let n =
                // SAFETY: the buffer is live and this call's alone.
                unsafe { libc::recv(self.fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags) };
            let error = io::Error::last_os_error();
            // SAFETY: the kernel has written that much into the buffer.
            match unsafe { receiving.finish(n, flags, &mut buffers) } {
                None => {}
                Some(n) if n < 0 => return Err(error),
                Some(n) => return Ok(n as usize),
            }
        }
    }

    pub(crate) fn send(&self, bytes: &[u8], flags: c_int) -> io::Result<usize> {
        let Some(sending) = self.companion.begin_send(self.fd()) else {
            let buffers = [iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            }];
            // SAFETY: the bytes are live and only read.
            return unsafe { self.companion.send(self.fd(), &buffers, flags) };
        };
        let flags = flags | libc::MSG_NOSIGNAL;
        // SAFETY: the bytes are live and only read.
        let n = unsafe { libc::send(self.fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
        let error = io::Error::last_os_error();
        sending.finish(n);
        if n < 0 { Err(error) } else { Ok(n as usize) }
    }

    pub(crate) fn send_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.send(bytes, 0)?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    pub(crate) fn receive_exactly(&self, buffer: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            match self.receive(&mut buffer[done..], 0)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => done += count,
            }
        }
        Ok(())
    }

    pub(crate) fn shut(&self) {
        self.companion.shutdown(self.fd(), libc::SHUT_WR).unwrap();
    }

    pub(crate) fn is_san(&self) -> bool {
        self.companion.path() == Path::San
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if !self.closed {
            self.companion.close(self.fd());
        }
    }
}

/// Where the tests listen, at any port: `WSD_TEST_ADDRESS`, or the loopback. RDMA devices do not serve
/// the loopback.
pub(crate) fn here() -> SocketAddrV4 {
    let address = std::env::var("WSD_TEST_ADDRESS").map_or(Ipv4Addr::LOCALHOST, |named| {
        let address = named.parse();
        address.expect("WSD_TEST_ADDRESS is an address of IPv4")
    });
    SocketAddrV4::new(address, 0)
}

/// A kernel connection: the connected and the accepted end, without companions.
pub(crate) fn kernel_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(here()).unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let two = listener.accept().unwrap().0;
    (one, two)
}

pub(crate) fn pair() -> (End, End) {
    let (one, two) = kernel_pair();
    (
        End::new(one, Role::Connected),
        End::new(two, Role::Accepted),
    )
}

/// `rounds` pieces to and fro, each other than the one before.
pub(crate) fn to_and_fro(one: &End, two: &End, seed: u64, rounds: usize) {
    let (mut bytes, mut room) = ([0; 1000], [0; 1000]);
    for round in 0..rounds {
        for (from, to, seed) in [(one, two, seed), (two, one, seed + 100)] {
            fill(seed, round * 1000, &mut bytes);
            from.send_all(&bytes).unwrap();
            to.receive_exactly(&mut room).unwrap();
            check(seed, round * 1000, &room);
        }
    }
}

/// Sends to and fro until both ends are on the SAN.
pub(crate) fn upgrade(one: &End, two: &End) {
    let end = Instant::now() + PATIENCE;
    let bytes = [7; 2048];
    let mut room = [0; 2048];
    while !(one.is_san() && two.is_san()) {
        assert!(
            Instant::now() < end,
            "no upgrade: {:?} {:?}",
            one.companion.snapshot(),
            two.companion.snapshot()
        );
        one.send_all(&bytes).unwrap();
        two.receive_exactly(&mut room).unwrap();
        assert_eq!(room, bytes);
        two.send_all(&bytes).unwrap();
        one.receive_exactly(&mut room).unwrap();
        assert_eq!(room, bytes);
    }
}

pub(crate) fn upgraded() -> (End, End) {
    let (one, two) = pair();
    upgrade(&one, &two);
    (one, two)
}

pub(crate) fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Numbers that look random and are the same each time.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap() % end
    }
}

pub(crate) const DOUBTFUL: u64 = 1000;

/// The byte that belongs at a position of a stream.
pub(crate) fn byte_at(seed: u64, position: usize) -> u8 {
    let word = (position as u64 / 8)
        .wrapping_add(seed)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let byte = (word >> (8 * (position % 8))) as u8;
    // In streams with these numbers every other byte is one that could begin a marker.
    if seed >= DOUBTFUL && byte & 1 == 0 {
        return 0xF7;
    }
    byte
}

pub(crate) fn fill(seed: u64, from: usize, buffer: &mut [u8]) {
    for (offset, byte) in buffer.iter_mut().enumerate() {
        *byte = byte_at(seed, from + offset);
    }
}

pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fill(seed, 0, &mut bytes);
    bytes
}

pub(crate) fn check(seed: u64, from: usize, buffer: &[u8]) {
    let wrong = (0..buffer.len()).find(|offset| buffer[*offset] != byte_at(seed, from + offset));
    let Some(wrong) = wrong else { return };
    // Where those bytes belong tells what became of the others.
    let found = &buffer[wrong..buffer.len().min(wrong + 16)];
    let at = from + wrong;
    let is_at = |place: &usize| (0..found.len()).all(|i| found[i] == byte_at(seed, place + i));
    let belongs = (at.saturating_sub(4_000_000)..at + 4_000_000).find(is_at);
    panic!(
        "at {at} (offset {wrong} of {}): {found:02x?}, which belong at {belongs:?}",
        buffer.len()
    );
}
