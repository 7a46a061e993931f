//! One side of a pair: a session, its driver and its application.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::session::*;
use crate::time::Instant;

/// How the driver of one side behaves.
#[derive(Clone, Debug, Default)]
pub struct Knobs {
    /// `Expose` fails.
    pub fail_expose: bool,
    /// `Register` fails.
    pub fail_register: bool,
    /// `AllocateTemp` fails.
    pub fail_allocate: bool,
    /// RDMA fails.
    pub fail_rdma: bool,
    /// Received messages are handled, but their buffers are not posted again.
    pub hold_reposts: bool,
    /// Send buffers stay busy.
    pub hold_sent: bool,
    /// Questions for memory are answered later.
    pub hold_memory: bool,
    /// What is said to an offered companion; nothing yet if there is none.
    pub answer_companion: Option<bool>,
}

/// What an application knows of one send.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Its name.
    pub id: SendId,
    /// Its bytes in the stream.
    pub bytes: Vec<u8>,
    /// Its urgent bytes.
    pub urgent: Option<Vec<u8>>,
    /// How it ended.
    pub result: Option<Result<(), SendFailure>>,
}

/// One side: a session, its driver and its application.
#[derive(Clone, Debug)]
pub struct Host {
    /// The machine under test.
    pub session: Session,
    /// How the driver behaves.
    pub knobs: Knobs,
    /// Everything the application has sent, in order.
    pub sent: Vec<Sent>,
    /// Everything the application has read.
    pub received: Vec<u8>,
    /// Urgent data the application has not taken, with its marks.
    pub urgent: VecDeque<(u64, Vec<u8>)>,
    /// All urgent data that arrived, with its marks.
    pub urgent_received: Vec<(u64, Vec<u8>)>,
    /// What the peer has given back.
    pub given_back: Vec<u8>,
    /// How pulls have ended.
    pub pulled: Vec<(PullId, Result<u64, PullFailure>)>,
    /// The companions that were offered.
    pub offered: Vec<CompanionInfo>,
    /// A log of actions, one word each, if wanted.
    pub log: Option<Vec<String>>,
    pub(super) capacities: [usize; 7],
    pub(super) main: VecDeque<u8>,
    pub(super) fill: VecDeque<u8>,
    pub(super) memories: BTreeMap<MemoryKey, Vec<u8>>,
    pub(super) exposed: BTreeMap<u64, (MemoryKey, Access, usize, usize)>,
    pub(super) registered: BTreeSet<MemoryKey>,
    pub(super) temp_bytes: u64,
    pub(super) posted: u32,
    pub(super) held_reposts: u32,
    pub(super) held_sent: u32,
    pub(super) held_memory: Vec<Action>,
    pub(super) next_send: u64,
    pub(super) next_byte: u64,
    pub(super) next_descriptor: u64,
    pub(super) established: u32,
    pub(super) disconnected: u32,
    /// What the waiting application wants at once.
    pub(super) waiting: usize,
}

pub(super) type MemoryKey = (u8, u64);

pub(super) fn key(memory: Memory) -> MemoryKey {
    match memory {
        Memory::Send(id) => (0, id.0),
        Memory::Temp(id) => (1, id.0),
        Memory::Application(id) => (2, id.0),
    }
}

/// Byte `at` of everything a side sends.
fn pattern(at: u64) -> u8 {
    let mixed = (at ^ (at >> 7)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

impl Host {
    pub(super) fn new(role: Role, config: Config, now: Instant) -> Self {
        let posted = config.receive_buffers;
        let session = Session::new(role, config, now).expect("a configuration that works");
        Self {
            capacities: session.capacities(),
            session,
            knobs: Knobs::default(),
            sent: Vec::new(),
            received: Vec::new(),
            urgent: VecDeque::new(),
            urgent_received: Vec::new(),
            given_back: Vec::new(),
            pulled: Vec::new(),
            offered: Vec::new(),
            log: None,
            main: VecDeque::new(),
            fill: VecDeque::new(),
            memories: BTreeMap::new(),
            exposed: BTreeMap::new(),
            registered: BTreeSet::new(),
            temp_bytes: 0,
            posted,
            held_reposts: 0,
            held_sent: 0,
            held_memory: Vec::new(),
            next_send: 0,
            next_byte: 0,
            next_descriptor: 0,
            established: 0,
            disconnected: 0,
            waiting: 0,
        }
    }

    // ---- the application

    /// Sends the next `len` bytes of the pattern.
    ///
    /// # Errors
    ///
    /// As the session says.
    pub fn send(&mut self, len: usize) -> Result<SendId, SendError> {
        let id = SendId(self.next_send);
        self.session.send(id, len as u64)?;
        let bytes = (0..len as u64)
            .map(|i| pattern(self.next_byte + i))
            .collect::<Vec<_>>();
        self.next_byte += len as u64;
        self.remember(id, bytes, false);
        Ok(id)
    }

    /// Sends urgent bytes.
    ///
    /// # Errors
    ///
    /// As the session says.
    pub fn send_urgent(&mut self, bytes: &[u8]) -> Result<SendId, SendError> {
        let id = SendId(self.next_send);
        self.session.send_urgent(id, bytes.len() as u32)?;
        self.remember(id, bytes.to_vec(), true);
        Ok(id)
    }

    fn remember(&mut self, id: SendId, bytes: Vec<u8>, urgent: bool) {
        self.next_send += 1;
        self.memories.insert(key(Memory::Send(id)), bytes.clone());
        let (bytes, urgent) = if urgent {
            (Vec::new(), Some(bytes))
        } else {
            (bytes, None)
        };
        self.sent.push(Sent {
            id,
            bytes,
            urgent,
            result: None,
        });
    }

    /// Takes a send back.
    pub fn cancel(&mut self, id: SendId) -> Cancel {
        let answer = self.session.cancel(id);
        if let Cancel::Removed { sent } = answer {
            let entry = self.sent.iter_mut().find(|entry| entry.id == id).unwrap();
            assert!(entry.result.is_none(), "cancelled after its completion");
            entry.bytes.truncate(sent as usize);
            entry.urgent = None;
            entry.result = Some(Ok(()));
            self.memories.remove(&key(Memory::Send(id)));
        }
        answer
    }

    /// Reads at most `most` bytes that are here; returns how many.
    pub fn read(&mut self, most: usize) -> usize {
        let mut got = 0;
        while got < most {
            let n = match self.session.readable() {
                Readable::Bytes { queue, len } => {
                    let n = (len as usize).min(most - got);
                    let from = match queue {
                        Queue::Main => &mut self.main,
                        Queue::Fill => &mut self.fill,
                    };
                    assert!(
                        from.len() >= n,
                        "the queue holds less than the session says"
                    );
                    self.received.extend(from.drain(..n));
                    n
                }
                Readable::Temp { temp, offset, len } => {
                    let n = (len as usize).min(most - got);
                    let memory = &self.memories[&key(Memory::Temp(temp))];
                    let at = offset as usize;
                    self.received.extend_from_slice(&memory[at..at + n]);
                    n
                }
                _ => break,
            };
            self.session.consumed(n as u64);
            got += n;
            if self.session.at_mark() {
                break;
            }
        }
        got
    }

    /// Pulls at most `most` bytes that are with the peer.
    ///
    /// # Errors
    ///
    /// As the session says.
    pub fn pull(&mut self, most: usize) -> Result<PullId, PullError> {
        let pull = self.session.pull(most as u64)?;
        self.memories
            .insert(key(Memory::Application(pull)), vec![0; most]);
        Ok(pull)
    }

    /// The application waits for this many bytes: what arrives at the head goes straight to it.
    pub fn wait_for(&mut self, bytes: usize) {
        self.waiting = bytes;
    }

    /// Gives back these bytes, which it has received and does not want.
    pub fn give_back(&mut self, bytes: &[u8]) {
        self.memories
            .insert(key(Memory::Send(GIVEN_BACK)), bytes.to_vec());
        self.session.give_back(bytes.len() as u64);
    }

    /// Takes the oldest urgent data.
    pub fn take_urgent(&mut self) -> Option<(u64, Vec<u8>)> {
        let (mark, bytes) = self.urgent.pop_front()?;
        self.session.urgent_consumed(bytes.len() as u64);
        Some((mark, bytes))
    }

    /// The stream that the peer is to read, as far as it was accepted and did not fail unsent.
    #[must_use]
    pub fn stream(&self) -> Vec<u8> {
        let left = |sent: &&Sent| sent.result != Some(Err(SendFailure::NoBuffers));
        self.sent
            .iter()
            .filter(left)
            .flat_map(|sent| sent.bytes.iter().copied())
            .collect()
    }

    /// The urgent data that the peer is to get, with its marks.
    #[must_use]
    pub fn urgent_stream(&self) -> Vec<(u64, Vec<u8>)> {
        let mut at = 0;
        let mut urgent = Vec::new();
        for sent in self
            .sent
            .iter()
            .filter(|s| s.result != Some(Err(SendFailure::NoBuffers)))
        {
            urgent.extend(sent.urgent.clone().map(|bytes| (at, bytes)));
            at += sent.bytes.len() as u64;
        }
        urgent
    }

    /// Sends without an end yet.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.sent
            .iter()
            .filter(|sent| sent.result.is_none())
            .count()
    }

    /// How the send ended.
    #[must_use]
    pub fn result(&self, id: SendId) -> Option<Result<(), SendFailure>> {
        self.sent
            .iter()
            .find(|sent| sent.id == id)
            .and_then(|sent| sent.result)
    }

    /// Whether `Disconnect` was asked for.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        self.disconnected > 0
    }

    /// Nothing is exposed, registered or allocated.
    #[must_use]
    pub fn holds_nothing(&self) -> bool {
        self.exposed.is_empty() && self.registered.is_empty() && self.temp_bytes == 0
    }

    /// No queue of the session has grown since its beginning: nothing was allocated meanwhile.
    #[must_use]
    pub fn has_not_allocated(&self) -> bool {
        self.session.capacities() == self.capacities
    }

    /// What is private to the driver: (inbox, fill queue, temporary memory, urgent).
    #[must_use]
    pub fn storage(&self) -> (usize, usize, u64, usize) {
        let urgent = self.urgent.iter().map(|(_, bytes)| bytes.len()).sum();
        (self.main.len(), self.fill.len(), self.temp_bytes, urgent)
    }

    /// Posts the held receives again; whether there were any.
    pub fn repost_held(&mut self) -> bool {
        let held = core::mem::take(&mut self.held_reposts);
        for _ in 0..held {
            self.posted += 1;
            self.session.handle_reposted();
        }
        held > 0
    }

    /// Reports the held sends.
    pub fn report_held(&mut self) {
        for _ in 0..core::mem::take(&mut self.held_sent) {
            self.session.handle_sent();
        }
    }

    // ---- the driver

    pub(super) fn arrived(&mut self, now: Instant, bytes: &[u8]) {
        assert!(self.posted > 0, "a message without a posted receive");
        self.posted -= 1;
        assert!(bytes.len() <= self.session.config().receive_buffer_size as usize);
        if let Ok(incoming) = self.session.handle_message(now, bytes) {
            self.keep(incoming, bytes);
        }
        if self.knobs.hold_reposts {
            self.held_reposts += 1;
        } else {
            self.posted += 1;
            self.session.handle_reposted();
        }
    }

    fn keep(&mut self, incoming: Incoming, bytes: &[u8]) {
        match incoming {
            Incoming::Control | Incoming::Discarded => {}
            Incoming::Returned { range } => self.given_back.extend_from_slice(&bytes[range]),
            Incoming::Urgent { range, mark } => {
                let urgent = (mark, bytes[range].to_vec());
                self.urgent_received.push(urgent.clone());
                self.urgent.push_back(urgent);
            }
            Incoming::Data {
                queue,
                range,
                is_head,
            } => {
                let bytes = &bytes[range];
                let direct = if is_head {
                    self.waiting.min(bytes.len())
                } else {
                    0
                };
                let (straight, rest) = bytes.split_at(direct);
                match queue {
                    Queue::Main => self.main.extend(rest),
                    Queue::Fill => self.fill.extend(rest),
                }
                if direct > 0 {
                    self.received.extend_from_slice(straight);
                    self.waiting -= direct;
                    self.session.consumed(direct as u64);
                }
            }
        }
        let config = self.session.config();
        let (main, fill, temp, urgent) = self.storage();
        assert!(
            (main + urgent) as u64 <= config.inbox_limit,
            "the inbox overflows"
        );
        assert!(fill as u64 <= config.fill_limit, "the fill queue overflows");
        assert!(temp <= config.temp_limit, "too much temporary memory");
    }

    pub(super) fn note(&mut self, action: &Action) {
        let Some(log) = &mut self.log else { return };
        let text = match action {
            Action::Message(outgoing) => format!("{:?}", outgoing.message()),
            other => format!("{other:?}"),
        };
        let end = text.find([' ', '{', '(']).unwrap_or(text.len());
        log.push(String::from(&text[..end]));
    }

    pub(super) fn expose(&mut self, memory: Memory, access: Access, offset: u64, len: u64) {
        // A provider whose connection is gone exposes nothing.
        if self.knobs.fail_expose || self.disconnected > 0 {
            self.session.handle_exposed(memory, Err(NoBuffers));
            return;
        }
        let bytes = &self.memories[&key(memory)];
        assert!(
            (offset + len) as usize <= bytes.len(),
            "exposed beyond the memory"
        );
        self.next_descriptor += 1;
        let number = self.next_descriptor;
        let place = (key(memory), access, offset as usize, len as usize);
        self.exposed.insert(number, place);
        let mut descriptor = vec![0; self.session.config().descriptor_len];
        descriptor[..8].copy_from_slice(&number.to_le_bytes());
        self.session.handle_exposed(memory, Ok(&descriptor));
    }

    pub(super) fn conceal(&mut self, memory: Memory) {
        let before = self.exposed.len();
        self.exposed
            .retain(|_, (exposed, ..)| *exposed != key(memory));
        assert_eq!(
            self.exposed.len() + 1,
            before,
            "concealed what was not exposed once"
        );
    }

    pub(super) fn completed(&mut self, id: SendId, result: Result<(), SendFailure>) {
        let memory = key(Memory::Send(id));
        assert!(
            !self.registered.contains(&memory),
            "completed while registered"
        );
        assert!(
            !self
                .exposed
                .values()
                .any(|(exposed, ..)| *exposed == memory)
        );
        self.memories.remove(&memory);
        // A send of no bytes completes before `send` returns to the application.
        if let Some(sent) = self.sent.iter_mut().find(|sent| sent.id == id) {
            assert!(sent.result.is_none(), "completed twice");
            sent.result = Some(result);
        } else {
            panic!("completed what was not sent");
        }
    }
}
