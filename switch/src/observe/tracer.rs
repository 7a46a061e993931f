//! Watching the messages of one connection.
//!
//! The watched process is asked by one word in its memory, which says until when; it is asked
//! again and again, so a watcher that goes or dies leaves nothing behind but two seconds, and takes
//! nothing from others who watch the same connection. Invariant: what comes out was read whole, or
//! counts as lost.

use std::fmt;
use std::io;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wsd_proto::{HEADER_LEN, Message, ProtocolError, VERSION, parse};

use super::layout::{ENTRY_WORDS, RECORDED, entry, head, slot};
use super::reader::{Memory, is_alive};
use super::slot::now;

/// How long a request holds, and how often it is repeated.
const LEASE: u64 = 2_000_000_000;
const REPEAT: Duration = Duration::from_millis(500);

/// Watches one connection.
#[derive(Debug)]
pub struct Tracer {
    memory: Memory,
    pid: u32,
    id: u64,
    slot: u64,
    /// The position that is read next.
    next: u64,
    asked: Instant,
    lost: u64,
}

/// A message that a connection has sent or received.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Traced {
    /// When.
    pub time: SystemTime,
    /// It was sent; otherwise received.
    pub sent: bool,
    /// Length of the whole message.
    pub len: u32,
    /// Its header and what belongs to it; not the application's bytes.
    pub head: Vec<u8>,
}

impl Tracer {
    /// Begins to watch a connection; `None` if there is none with this number.
    ///
    /// # Errors
    /// If the process does not let anybody look.
    pub fn new(pid: u32, id: u64) -> io::Result<Option<Tracer>> {
        let Some(memory) = Memory::of_process(pid, true)? else {
            return Ok(None);
        };
        let Some(slot) = memory.slot_of(id)? else {
            return Ok(None);
        };
        let tracer = Tracer {
            next: memory.word(head::RING_HEAD)?,
            memory,
            pid,
            id,
            slot,
            asked: Instant::now(),
            lost: 0,
        };
        tracer.ask(now().saturating_add(LEASE))?;
        Ok(Some(tracer))
    }

    fn ask(&self, until: u64) -> io::Result<()> {
        self.memory
            .write(self.slot + slot::TRACED_UNTIL as u64 * 8, until)
    }

    /// Messages that came too fast to be read, so far: of all connections of the process that are
    /// watched.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Whether the connection is still there.
    ///
    /// # Errors
    /// If the memory cannot be read.
    pub fn is_live(&self) -> io::Result<bool> {
        Ok(is_alive(self.pid) && self.memory.slot_of(self.id)? == Some(self.slot))
    }

    /// The messages since the last call.
    ///
    /// # Errors
    /// If the memory cannot be read.
    pub fn poll(&mut self) -> io::Result<Vec<Traced>> {
        if self.asked.elapsed() >= REPEAT {
            self.asked = Instant::now();
            let [id] = self.memory.read(self.slot + slot::ID as u64 * 8)?;
            if id == self.id {
                self.ask(now().saturating_add(LEASE))?;
            }
        }
        let mut found = Vec::new();
        let end = self.memory.word(head::RING_HEAD)?;
        let entries = self.memory.fixed(head::ENTRIES);
        fence(Ordering::Acquire);
        if end < self.next {
            // A process does not take back what it has counted: nobody knows what this is.
            self.next = end;
        }
        if end - self.next > entries {
            self.lost += end - self.next - entries;
            self.next = end - entries;
        }
        while self.next < end {
            match self.entry(self.next)? {
                Ok(traced) => found.extend(traced),
                Err(Late::Overwritten) => self.lost += 1,
                // Another thread is at it; what follows waits, so that the order stays.
                Err(Late::Unfinished) if end - self.next < entries / 2 => break,
                Err(Late::Unfinished) => self.lost += 1,
            }
            self.next += 1;
        }
        Ok(found)
    }

    /// The entry at a position: a message of this connection or `None`, or why it is not there.
    fn entry(&self, position: u64) -> io::Result<Result<Option<Traced>, Late>> {
        let place = position % self.memory.fixed(head::ENTRIES);
        let at = self.memory.fixed(head::RING_AT) + place * self.memory.fixed(head::ENTRY_LEN);
        let turn = position.wrapping_mul(2).wrapping_add(2);
        let [before] = self.memory.read(at)?;
        fence(Ordering::Acquire);
        let words: [u64; ENTRY_WORDS] = self.memory.read(at)?;
        fence(Ordering::Acquire);
        let [after] = self.memory.read(at)?;
        if before != turn || after != turn {
            let newer = before.wrapping_sub(turn) < u64::MAX / 2 && before != turn;
            return Ok(Err(match newer || after != before {
                true => Late::Overwritten,
                false => Late::Unfinished,
            }));
        }
        Ok(Ok(traced(&words, self.id)))
    }
}

/// Why an entry cannot be had.
enum Late {
    Overwritten,
    Unfinished,
}

fn traced(words: &[u64; ENTRY_WORDS], id: u64) -> Option<Traced> {
    let word = |index: usize| words.get(index).copied().unwrap_or(0);
    if word(entry::ID) != id {
        return None;
    }
    let [l0, l1, sent, _, w0, w1, w2, w3] = word(entry::ABOUT).to_le_bytes();
    let len = usize::from(u16::from_le_bytes([l0, l1])).min(RECORDED);
    let bytes = words.iter().skip(entry::BYTES);
    Some(Traced {
        time: UNIX_EPOCH.checked_add(Duration::from_nanos(word(entry::TIME)))?,
        sent: sent != 0,
        len: u32::from_le_bytes([w0, w1, w2, w3]),
        head: bytes
            .flat_map(|word| word.to_le_bytes())
            .take(len)
            .collect(),
    })
}

impl Traced {
    /// The message and the cumulative credit that its header grants. The application's bytes,
    /// which nobody recorded, are taken to be there.
    ///
    /// # Errors
    /// What the message breaks.
    pub fn decode(&self) -> Result<(Message, u32), ProtocolError> {
        /// No provider has longer messages.
        const LONGEST: usize = 64 << 20;
        let whole = usize::try_from(self.len).unwrap_or(usize::MAX);
        if whole > LONGEST || whole < self.head.len() {
            return Err(ProtocolError::Length);
        }
        let mut bytes = self.head.clone();
        bytes.resize(whole, 0);
        let received = parse(&bytes, Some(VERSION))?;
        Ok((received.message, received.credit))
    }

    /// The name of the message's type.
    #[must_use]
    pub fn kind(&self) -> String {
        let Ok((message, _)) = self.decode() else {
            return "Unknown".to_owned();
        };
        let text = format!("{message:?}");
        let end = text.find(|c: char| !c.is_alphanumeric());
        text.get(..end.unwrap_or(text.len()))
            .unwrap_or(&text)
            .to_owned()
    }
}

/// One line: the type, what it says, and the credit.
impl fmt::Display for Traced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (message, credit) = match self.decode() {
            Ok(decoded) => decoded,
            Err(error) => {
                write!(f, "{} bytes that are no message ({error}):", self.len)?;
                for byte in self.head.iter().take(HEADER_LEN) {
                    write!(f, " {byte:02x}")?;
                }
                return Ok(());
            }
        };
        match &message {
            Message::Data { offset, len } => write!(f, "Data offset={offset} len={len}")?,
            Message::Fill {
                transfer,
                offset,
                len,
            } => write!(f, "Fill transfer={} offset={offset} len={len}", transfer.0)?,
            Message::Urgent { mark, len } => write!(f, "Urgent mark={mark} len={len}")?,
            Message::LargeRead {
                transfer,
                offset,
                total,
                initial,
                descriptor,
            } => write!(
                f,
                "LargeRead transfer={} offset={offset} total={total} initial={initial} \
                 descriptor={}",
                transfer.0,
                Hex(descriptor.as_bytes())
            )?,
            Message::ReadDone { transfer } => write!(f, "ReadDone transfer={}", transfer.0)?,
            Message::LargeWrite {
                transfer,
                offset,
                total,
                initial,
            } => write!(
                f,
                "LargeWrite transfer={} offset={offset} total={total} initial={initial}",
                transfer.0
            )?,
            Message::Location {
                transfer,
                offset,
                len,
                descriptor,
            } => write!(
                f,
                "Location transfer={} offset={offset} len={len} descriptor={}",
                transfer.0,
                Hex(descriptor.as_bytes())
            )?,
            Message::WriteDone {
                transfer,
                offset,
                len,
            } => write!(
                f,
                "WriteDone transfer={} offset={offset} len={len}",
                transfer.0
            )?,
            Message::Refused {
                transfer,
                offset,
                len,
            } => write!(
                f,
                "Refused transfer={} offset={offset} len={len}",
                transfer.0
            )?,
            Message::Shutdown {
                send,
                receive,
                finished,
            } => {
                f.write_str("Shutdown")?;
                if let Some(length) = send {
                    write!(f, " send length={length}")?;
                }
                f.write_str(if *receive { " receive" } else { "" })?;
                f.write_str(if *finished { " finished" } else { "" })?;
            }
            Message::KeepAlive { query } => {
                write!(f, "KeepAlive {}", if *query { "query" } else { "answer" })?;
            }
            Message::Reset { reason } => write!(f, "Reset reason={reason:?}")?,
            // The rest in the words of the protocol's types.
            other => write!(f, "{other:?}")?,
        }
        write!(f, " credit={credit}")
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
