//! Looking on: which processes show connections, and what.
//!
//! Owns nothing of the processes it looks at. Invariants: the memory is read by calls that copy,
//! never mapped, so that a file that shrinks is an error and no signal; every number in it is
//! checked before it leads anywhere; what changed while it was read is read again.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::layout::{
    self, ENTRY_WORDS, HEAD_LEN, MAGIC, SLOT_LEN, SLOT_WORDS, VERSION, head, life, slot,
};
use super::{Path, Role, Upgrade, sockets};

/// Attempts to read something while it changes.
const ATTEMPTS: usize = 1000;
/// Slots that are read at a time.
const BATCH: usize = 128;
/// More slots, or longer ones, than any version will have.
const MOST_SLOTS: u64 = 1 << 24;
const LONGEST: u64 = 1 << 16;

/// A process that shows connections.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// The program's name.
    pub program: String,
    /// Its connections, the oldest first.
    pub connections: Vec<Live>,
    /// Connections that could not be shown.
    pub unobserved: u64,
}

/// One connection, as it was at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Live {
    /// Its number in the process.
    pub id: u64,
    /// Which end this is.
    pub role: Role,
    /// This end; `None` if it cannot be told.
    pub local: Option<SocketAddr>,
    /// The other end.
    pub peer: Option<SocketAddr>,
    /// The application's descriptor, if it is known.
    pub fd: Option<RawFd>,
    /// What carries it.
    pub path: Path,
    /// The SAN's provider, or nothing.
    pub provider: String,
    /// How far the upgrade is.
    pub upgrade: Upgrade,
    /// Why it is not on the SAN: a code, or nothing.
    pub reason: String,
    /// When it began.
    pub started: SystemTime,
    /// The session's id, the same at both ends; none without a session.
    pub session: Option<[u8; 16]>,
    /// Times that it moved to the SAN.
    pub upgrades: u64,
    /// Times that it moved back.
    pub downgrades: u64,
    /// Bytes of the stream sent by the SAN.
    pub san_sent: u64,
    /// Bytes of the stream received by the SAN, or announced.
    pub san_received: u64,
    /// Bytes sent by the kernel.
    pub kernel_sent: u64,
    /// Bytes received by the kernel.
    pub kernel_received: u64,
    /// Control messages sent.
    pub messages_sent: u64,
    /// Control messages received.
    pub messages_received: u64,
    /// RDMA reads this side has made.
    pub rdma_reads: u64,
    /// RDMA writes this side has made.
    pub rdma_writes: u64,
    /// Bytes this side has fetched.
    pub rdma_read_bytes: u64,
    /// Bytes this side has delivered.
    pub rdma_write_bytes: u64,
    /// Large transfers begun by this side.
    pub large_sent: u64,
    /// Large transfers begun by the peer.
    pub large_received: u64,
    /// Messages this side may send now.
    pub credits: u32,
    /// Messages the peer may send now.
    pub credits_granted: u32,
    /// Times that data began to wait for credit.
    pub stalls: u64,
    /// Bytes that wait here for the application.
    pub unread: u64,
    /// Bytes accepted from the application that wait here.
    pub unsent: u64,
    /// The round trip, smoothed: from a message's leaving to the first message of the peer whose
    /// credit covers it.
    pub rtt: Option<Duration>,
    /// The shortest of them.
    pub rtt_least: Option<Duration>,
    /// How many were measured.
    pub rtt_samples: u64,
}

/// A process that has the memory, and why it cannot be read.
#[derive(Debug)]
#[non_exhaustive]
pub struct Unreadable {
    /// The process.
    pub pid: u32,
    /// Why.
    pub error: io::Error,
}

/// The processes of this user with connections to show.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn all() -> io::Result<(Vec<Process>, Vec<Unreadable>)> {
    let me = fs::metadata("/proc/self")?.uid();
    let mut pids: Vec<u32> = fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids.retain(|pid| fs::metadata(folder(*pid)).is_ok_and(|about| about.uid() == me));
    let (found, mut unreadable) = processes(&pids);
    // Of those nobody named, the ones that let nobody look are none of our business.
    unreadable.retain(|process| {
        !matches!(
            process.error.kind(),
            io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound
        )
    });
    Ok((found, unreadable))
}

/// These processes, as far as they have connections to show.
#[must_use]
pub fn processes(pids: &[u32]) -> (Vec<Process>, Vec<Unreadable>) {
    let (mut found, mut unreadable) = (Vec::new(), Vec::new());
    for pid in pids.iter().copied() {
        match look(pid) {
            Ok(Some(process)) => found.push(process),
            Ok(None) => {}
            Err(error) => unreadable.push(Unreadable { pid, error }),
        }
    }
    (found, unreadable)
}

fn look(pid: u32) -> io::Result<Option<Process>> {
    let Some(memory) = Memory::of_process(pid, false)? else {
        return Ok(None);
    };
    let mut connections = memory.connections()?;
    // It may have ended meanwhile, and what it had with it.
    if !is_alive(pid) {
        return Ok(None);
    }
    sockets::name(pid, &mut connections);
    connections.sort_by_key(|connection| connection.id);
    Ok(Some(Process {
        pid,
        program: program(pid),
        connections,
        unobserved: memory.word(head::UNOBSERVED)?,
    }))
}

pub(super) fn folder(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

/// Whether it still runs: a process that is only waited for has no descriptors any more.
pub(super) fn is_alive(pid: u32) -> bool {
    let status = fs::read_to_string(folder(pid).join("status")).unwrap_or_default();
    let state = field(&status, "State:");
    state.is_some_and(|state| !state.starts_with(['Z', 'X']))
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = status.lines();
    lines
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

/// The program's name, fit to be shown.
fn program(pid: u32) -> String {
    let name = fs::read_to_string(folder(pid).join("comm")).unwrap_or_default();
    let plain = |c: char| if c.is_control() { '?' } else { c };
    name.trim_end().chars().map(plain).collect()
}

/// The number that a process knows itself by.
fn own_number(pid: u32) -> u64 {
    let status = fs::read_to_string(folder(pid).join("status")).unwrap_or_default();
    let inner = field(&status, "NSpid:")
        .and_then(|numbers| numbers.split_whitespace().next_back()?.parse().ok());
    inner.unwrap_or_else(|| u64::from(pid))
}

/// The memory of a process, opened.
#[derive(Debug)]
pub(super) struct Memory {
    file: File,
    words: [u64; head::WORDS],
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Memory {
    /// Finds the memory of a process; `None` if it has none of its own.
    pub(super) fn of_process(pid: u32, write: bool) -> io::Result<Option<Memory>> {
        let own = own_number(pid);
        let target = format!("/memfd:{} (deleted)", layout::NAME);
        let mut result = Ok(None);
        for entry in fs::read_dir(folder(pid).join("fd"))? {
            let Ok(entry) = entry else { continue };
            let points_at = fs::read_link(entry.path()).unwrap_or_default();
            if points_at.as_os_str() != target.as_str() {
                continue;
            }
            let opened = fs::OpenOptions::new()
                .read(true)
                .write(write)
                .custom_flags(libc::O_CLOEXEC | libc::O_NOCTTY)
                .open(entry.path())
                .and_then(Memory::new);
            match opened {
                // What a fork has left is the parent's.
                Ok(memory) if memory.pid() != own => {}
                Ok(memory) => return Ok(Some(memory)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// Reads and checks the head.
    pub(super) fn new(file: File) -> io::Result<Memory> {
        let mut memory = Memory {
            file,
            words: [0; head::WORDS],
        };
        if memory.word(head::MAGIC)? != MAGIC {
            return Err(broken("this is no observation memory"));
        }
        fence(Ordering::Acquire);
        memory.words = memory.read(0)?;
        let at = |index: usize| memory.words.get(index).copied().unwrap_or(0);
        if at(head::VERSION) != VERSION {
            let text = format!(
                "its observation memory has version {}, this program knows {VERSION}",
                at(head::VERSION)
            );
            return Err(broken(&text));
        }
        let slots = at(head::SLOT_LEN) >= SLOT_LEN as u64
            && at(head::SLOT_LEN) <= LONGEST
            && at(head::SLOT_LEN) % 8 == 0
            && at(head::SLOTS) <= MOST_SLOTS
            && at(head::SLOTS_AT) >= HEAD_LEN as u64
            && at(head::SLOTS_AT) % 8 == 0;
        let ring = at(head::ENTRY_LEN) >= (ENTRY_WORDS * 8) as u64
            && at(head::ENTRY_LEN) <= LONGEST
            && at(head::ENTRY_LEN) % 8 == 0
            && (1..=MOST_SLOTS).contains(&at(head::ENTRIES))
            && at(head::RING_AT) % 8 == 0;
        let len = memory.file.metadata()?.len();
        let ends = |start: usize, each: usize, count: usize| {
            at(start).checked_add(at(each).saturating_mul(at(count)))
        };
        let inside = [
            ends(head::SLOTS_AT, head::SLOT_LEN, head::SLOTS),
            ends(head::RING_AT, head::ENTRY_LEN, head::ENTRIES),
        ];
        if !slots || !ring || inside.iter().any(|end| end.is_none_or(|end| end > len)) {
            return Err(broken("its observation memory is damaged"));
        }
        Ok(memory)
    }

    fn pid(&self) -> u64 {
        self.fixed(head::PID)
    }

    /// A word of the head that does not change.
    pub(super) fn fixed(&self, index: usize) -> u64 {
        self.words.get(index).copied().unwrap_or(0)
    }

    /// Words at a place in bytes.
    pub(super) fn read<const N: usize>(&self, at: u64) -> io::Result<[u64; N]> {
        let mut bytes = vec![0; N * 8];
        self.file.read_exact_at(&mut bytes, at)?;
        let mut words = [0; N];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
        }
        Ok(words)
    }

    /// A word of the head as it is now.
    pub(super) fn word(&self, index: usize) -> io::Result<u64> {
        let [word] = self.read(index as u64 * 8)?;
        Ok(word)
    }

    /// Writes one word.
    pub(super) fn write(&self, at: u64, value: u64) -> io::Result<()> {
        self.file.write_all_at(&value.to_ne_bytes(), at)
    }

    /// Where a slot is.
    fn slot_at(&self, index: u64) -> u64 {
        self.fixed(head::SLOTS_AT) + index * self.fixed(head::SLOT_LEN)
    }

    /// Where the slot of a connection is.
    pub(super) fn slot_of(&self, id: u64) -> io::Result<Option<u64>> {
        let indexes = self.live_slots()?;
        for index in indexes {
            let at = self.slot_at(index);
            if let Some(words) = self.settled(at)?
                && words.get(slot::ID) == Some(&id)
            {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// All connections there are. One that never holds still is left out.
    pub(super) fn connections(&self) -> io::Result<Vec<Live>> {
        let mut found = Vec::new();
        for index in self.live_slots()? {
            let words = self.settled(self.slot_at(index))?;
            found.extend(words.as_ref().and_then(live));
        }
        Ok(found)
    }

    /// The slots that seem to be in use.
    fn live_slots(&self) -> io::Result<Vec<u64>> {
        let used = self.word(head::USED)?.min(self.fixed(head::SLOTS));
        let each = usize::try_from(self.fixed(head::SLOT_LEN)).unwrap_or(SLOT_LEN);
        let mut buffer = vec![0; BATCH * each];
        let mut found = Vec::new();
        let mut first = 0;
        while first < used {
            let count = usize::try_from(used - first).unwrap_or(BATCH).min(BATCH);
            let bytes = buffer.get_mut(..count * each).unwrap_or_default();
            self.file.read_exact_at(bytes, self.slot_at(first))?;
            for (offset, bytes) in bytes.chunks_exact(each).enumerate() {
                let word = bytes.get(slot::LIFE * 8..slot::LIFE * 8 + 8);
                let word = word.and_then(|word| word.try_into().ok());
                if word.map(u64::from_ne_bytes) == Some(life::LIVE) {
                    found.push(first + offset as u64);
                }
            }
            first += count as u64;
        }
        Ok(found)
    }

    /// A slot as it was at one moment; `None` if it ended, or is never left alone.
    fn settled(&self, at: u64) -> io::Result<Option<[u64; SLOT_WORDS]>> {
        let counts = || -> io::Result<[u64; 2]> {
            let [cold] = self.read(at + slot::COLD as u64 * 8)?;
            let [hot] = self.read(at + slot::HOT as u64 * 8)?;
            Ok([cold, hot])
        };
        for _ in 0..ATTEMPTS {
            let before = counts()?;
            // The words are read after the counts, and the counts again after them.
            fence(Ordering::Acquire);
            let words: [u64; SLOT_WORDS] = self.read(at)?;
            fence(Ordering::Acquire);
            if before.iter().all(|count| count % 2 == 0) && counts()? == before {
                let live = words.get(slot::LIFE) == Some(&life::LIVE);
                return Ok(live.then_some(words));
            }
            std::thread::yield_now();
        }
        Ok(None)
    }
}

/// A slot's words as values; `None` if they make no sense.
fn live(words: &[u64; SLOT_WORDS]) -> Option<Live> {
    let word = |index: usize| words.get(index).copied().unwrap_or(0);
    let some = |index: usize| [word(index), word(index + 1), word(index + 2)];
    // No address is one thing, nonsense another.
    let address = |index: usize| match some(index) {
        [0, 0, 0] => Some(None),
        words => layout::address_from_words(words).map(Some),
    };
    let text = |index: usize| {
        let [a, b, c] = some(index);
        layout::text_from_words([a, b, c, word(index + 3)])
    };
    let [role, path, upgrade, session, ..] = word(slot::KINDS).to_le_bytes();
    let sampled = word(slot::RTT_SAMPLES) > 0;
    let time = |index: usize| sampled.then(|| Duration::from_nanos(word(index)));
    let [c0, c1, c2, c3, g0, g1, g2, g3] = word(slot::CREDITS).to_le_bytes();
    Some(Live {
        id: word(slot::ID),
        role: match role {
            1 => Role::Connected,
            2 => Role::Accepted,
            _ => return None,
        },
        local: address(slot::LOCAL)?,
        peer: address(slot::PEER)?,
        fd: word(slot::FD)
            .checked_sub(1)
            .and_then(|fd| RawFd::try_from(fd).ok()),
        path: Path::ALL.into_iter().find(|known| known.number() == path)?,
        provider: text(slot::PROVIDER),
        upgrade: Upgrade::ALL
            .into_iter()
            .find(|known| known.number() == upgrade)?,
        reason: text(slot::REASON),
        started: UNIX_EPOCH.checked_add(Duration::from_nanos(word(slot::STARTED)))?,
        session: (session != 0)
            .then(|| layout::id_from_words([word(slot::SESSION), word(slot::SESSION + 1)])),
        upgrades: word(slot::UPGRADES),
        downgrades: word(slot::DOWNGRADES),
        san_sent: word(slot::BYTES_SENT),
        san_received: word(slot::BYTES_RECEIVED),
        kernel_sent: word(slot::KERNEL_SENT),
        kernel_received: word(slot::KERNEL_RECEIVED),
        messages_sent: word(slot::MESSAGES_SENT),
        messages_received: word(slot::MESSAGES_RECEIVED),
        rdma_reads: word(slot::RDMA_READS),
        rdma_writes: word(slot::RDMA_WRITES),
        rdma_read_bytes: word(slot::RDMA_READ_BYTES),
        rdma_write_bytes: word(slot::RDMA_WRITE_BYTES),
        large_sent: word(slot::LARGE_SENT),
        large_received: word(slot::LARGE_RECEIVED),
        credits: u32::from_le_bytes([c0, c1, c2, c3]),
        credits_granted: u32::from_le_bytes([g0, g1, g2, g3]),
        stalls: word(slot::STALLS),
        unread: word(slot::UNREAD),
        unsent: word(slot::UNSENT),
        rtt: time(slot::RTT),
        rtt_least: time(slot::RTT_LEAST),
        rtt_samples: word(slot::RTT_SAMPLES),
    })
}
