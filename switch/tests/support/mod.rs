//! Connected streams, and bytes that show when one of them is missing.

#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod role;
pub(crate) mod usage;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::thread;
use std::time::Duration;

use wsd_switch::{Mode, SanListener, SanStream, StreamOptions};

/// For what should happen soon, on a machine that may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The local address that the tests use: `WSD_TEST_ADDRESS`, or the loopback. RDMA devices do not
/// serve the loopback.
pub(crate) fn here() -> IpAddr {
    std::env::var("WSD_TEST_ADDRESS").map_or(Ipv4Addr::LOCALHOST.into(), |named| {
        named.parse().expect("WSD_TEST_ADDRESS is an address")
    })
}

/// An amount of data, or less where every byte is slow: divided by `WSD_TEST_DIVISOR`.
pub(crate) fn amount(whole: usize) -> usize {
    std::env::var("WSD_TEST_DIVISOR").map_or(whole, |divisor| {
        whole
            / divisor
                .parse::<usize>()
                .expect("WSD_TEST_DIVISOR is a number")
    })
}

/// The connecting and the accepted end.
pub(crate) fn pair_with(options: &StreamOptions) -> (SanStream, SanStream) {
    let listener = SanListener::bind_with((here(), 0), options).unwrap();
    let at = listener.local_addr().unwrap();
    let options = options.clone();
    let connecting = thread::spawn(move || SanStream::connect_with(at, &options).unwrap());
    let accepted = listener.accept().unwrap().0;
    (connecting.join().unwrap(), accepted)
}

pub(crate) fn pair(mode: Mode) -> (SanStream, SanStream) {
    let (one, two) = pair_with(&StreamOptions::new().mode(mode));
    let san = mode != Mode::Tcp;
    assert_eq!(
        (one.transport().is_san(), two.transport().is_san()),
        (san, san)
    );
    (one, two)
}

/// Numbers that look random and are the same each time.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap() % end
    }

    /// A length: mostly small, sometimes large.
    pub(crate) fn length(&mut self) -> usize {
        match self.below(10) {
            0 => 1,
            1..=4 => 1 + self.below(100),
            5..=6 => 1 + self.below(5_000),
            7 => 65_530 + self.below(12),
            8 => 1 + self.below(200_000),
            _ => 1 + self.below(2_000_000),
        }
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let value = self.next().to_le_bytes();
            chunk.copy_from_slice(&value[..chunk.len()]);
        }
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes
    }
}

/// A stream of bytes that never repeats itself, for both ends to know.
pub(crate) struct Tape {
    numbers: Numbers,
    rest: Vec<u8>,
}

impl Tape {
    pub(crate) fn new(seed: u64) -> Tape {
        Tape {
            numbers: Numbers::new(seed),
            rest: Vec::new(),
        }
    }

    pub(crate) fn take(&mut self, len: usize) -> Vec<u8> {
        while self.rest.len() < len {
            let more = self.numbers.bytes(1 << 16);
            self.rest.extend_from_slice(&more);
        }
        let left = self.rest.split_off(len);
        std::mem::replace(&mut self.rest, left)
    }
}

/// Writes `total` bytes of a tape in pieces of any length, and then the end.
pub(crate) fn write_tape(mut stream: &SanStream, seed: u64, total: usize) {
    let (mut tape, mut lengths) = (Tape::new(seed), Numbers::new(seed + 1));
    let mut left = total;
    while left > 0 {
        let len = lengths.length().min(left);
        stream.write_all(&tape.take(len)).unwrap();
        left -= len;
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
}

/// Reads `total` bytes of a tape in pieces of any length, and then the end.
pub(crate) fn read_tape(mut stream: &SanStream, seed: u64, total: usize) {
    let (mut tape, mut lengths) = (Tape::new(seed), Numbers::new(seed + 2));
    let mut done = 0;
    let mut room = vec![0; 2_000_000];
    while done < total {
        let len = lengths.length().min(room.len());
        let count = stream.read(&mut room[..len]).unwrap();
        assert_ne!(count, 0, "the end after {done} of {total} bytes");
        assert!(
            room[..count] == tape.take(count)[..],
            "wrong bytes after {done}"
        );
        done += count;
    }
    assert_eq!(
        stream.read(&mut room).unwrap(),
        0,
        "more than {total} bytes"
    );
}

/// Whether the stream's descriptor becomes readable in time.
pub(crate) fn is_ready(stream: &SanStream, time: Duration) -> bool {
    is_ready_fd(stream.as_fd().as_raw_fd(), time)
}

pub(crate) fn is_ready_fd(fd: RawFd, time: Duration) -> bool {
    let mut entry = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    let millis = i32::try_from(time.as_millis()).unwrap();
    // SAFETY: one live entry.
    let ready = unsafe { libc::poll(&raw mut entry, 1, millis) };
    assert!(ready >= 0);
    ready == 1
}
