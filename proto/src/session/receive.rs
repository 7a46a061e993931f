//! The incoming half: the byte stream put together from messages and large transfers.
//!
//! Owns the order in which bytes are read: `segments` is the stream that is announced and not yet
//! consumed. The memory of large transfers is the affair of [`fetch`].
//!
//! Invariants: `inbox + urgent <= inbox limit`, `temp_used <= temp limit`, refused bytes waiting <= fill
//! limit; each chunk of memory is released exactly once.

mod discard;
mod fetch;

use alloc::collections::VecDeque;
use core::ops::Range;

pub(super) use fetch::Asked;

use super::action::{End, Incoming, Memory, PullId, Queue, Readable};
use super::config::{Config, Stats};
use super::error::{Failure, ProtocolError, PullError};
use super::message::{Descriptor, Message, TransferId};
use super::rdma::Operations;
use super::send::{Effects, next_id};

/// Chunks of memory in use for large transfers at once.
pub(super) const MAX_CHUNKS: usize = 16;

#[derive(Clone, Debug)]
pub(super) struct ReceiveSide {
    segments: VecDeque<Segment>,
    transfers: VecDeque<Transfer>,
    chunks: VecDeque<Chunk>,
    reads: Operations<u64>,
    limits: Limits,
    last_id: u32,
    last_chunk: u64,
    last_temp: u64,
    last_pull: u64,
    /// Position behind the last byte announced.
    announced: u64,
    /// Position of the next byte to read, as long as any are wanted.
    consumed: u64,
    inbox: u64,
    urgent: u64,
    temp_used: u64,
    mark: Option<u64>,
    end: Option<(End, u64)>,
    discard: bool,
    direct: bool,
    broken: bool,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    payload: u64,
    inbox: u64,
    /// Messages whose data an empty inbox takes.
    messages: u32,
    temp: u64,
    temp_chunk: u64,
    fill: u64,
    max_large: usize,
    rdma_read: bool,
    can_expose: bool,
}

/// A run of the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Segment {
    /// Bytes in the inbox.
    Bytes(u64),
    /// What a transfer brings behind its initial portion.
    Transfer(TransferId),
}

/// A large transfer. Positions count from its beginning, initial portion included.
#[derive(Clone, Debug)]
struct Transfer {
    id: TransferId,
    start: u64,
    total: u64,
    initial: u64,
    /// The peer's memory, from `initial` on; `None` if the peer writes.
    source: Option<Descriptor>,
    /// Up to here memory is assigned, or filling messages are asked for.
    fetched: u64,
    /// Up to here bytes are here.
    arrived: u64,
    /// Up to here the application has them.
    consumed: u64,
    /// The rest comes in messages.
    refused: bool,
    /// No temporary memory could be had; wait until some comes back.
    blocked: bool,
    closing: Closing,
    /// Out of `segments`.
    read: bool,
}

/// How far the end of a transfer is between the two sides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Closing {
    Open,
    /// ReadDone is to be sent.
    DoneDue,
    Over,
}

/// Memory for a part of a transfer.
#[derive(Clone, Debug)]
struct Chunk {
    number: u64,
    transfer: TransferId,
    /// Position within the transfer.
    offset: u64,
    len: u64,
    memory: Memory,
    phase: Phase,
    held: Held,
    descriptor: Option<Descriptor>,
    issued: u64,
    reading: u32,
    /// Bytes the application has taken.
    consumed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Allocating,
    Registering,
    Exposing,
    Reading,
    LocationDue,
    Located,
    Ready,
    /// The connection failed; waits for the driver's answers.
    Dying(Failure),
}

/// What has to be undone besides giving the memory back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Held {
    Nothing,
    Registered,
    Exposed,
}

impl Limits {
    /// Messages whose data the inbox surely has room for when `used` bytes wait.
    fn room(&self, used: u64) -> u32 {
        let room = self.inbox.saturating_sub(used);
        u32::try_from(room / self.payload).unwrap_or(u32::MAX)
    }
}

impl ReceiveSide {
    pub(super) fn new(config: &Config) -> Self {
        let transfers = usize::from(config.max_large) + MAX_CHUNKS + 2;
        let limits = Limits {
            payload: config.receive_payload().into(),
            inbox: config.inbox_limit,
            messages: 0,
            temp: config.temp_limit,
            temp_chunk: config.temp_chunk,
            fill: config.fill_limit,
            max_large: config.max_large.into(),
            rdma_read: config.rdma_read && config.max_rdma > 0,
            can_expose: config.descriptor_len > 0,
        };
        Self {
            segments: VecDeque::with_capacity(2 * transfers + 1),
            transfers: VecDeque::with_capacity(transfers),
            chunks: VecDeque::with_capacity(MAX_CHUNKS + 1),
            reads: Operations::new(config.max_rdma_in_flight, false),
            limits: Limits {
                messages: limits.room(0),
                ..limits
            },
            last_id: 0,
            last_chunk: 0,
            last_temp: 0,
            last_pull: 0,
            announced: 0,
            consumed: 0,
            inbox: 0,
            urgent: 0,
            temp_used: 0,
            mark: None,
            end: None,
            discard: false,
            direct: false,
            broken: false,
        }
    }

    // ---- getters

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn capacities(&self) -> [usize; 3] {
        [
            self.segments.capacity(),
            self.transfers.capacity(),
            self.chunks.capacity(),
        ]
    }

    /// Messages whose data the inbox surely has room for.
    pub(super) fn room(&self) -> u32 {
        match self.inbox + self.urgent {
            // The usual case, asked for with every message: no division.
            0 => self.limits.messages,
            used => self.limits.room(used),
        }
    }

    pub(super) fn consumed_offset(&self) -> u64 {
        self.consumed
    }

    pub(super) fn mark(&self) -> Option<u64> {
        self.mark
    }

    /// How, and at which position, the peer has ended its stream.
    pub(super) fn end(&self) -> Option<(End, u64)> {
        self.end
    }

    pub(super) fn is_discarding(&self) -> bool {
        self.discard
    }

    pub(super) fn unread(&self) -> u64 {
        let fill = |t: &Transfer| if t.refused { t.arrived - t.consumed } else { 0 };
        let temp = |c: &Chunk| {
            if c.phase == Phase::Ready {
                c.len - c.consumed
            } else {
                0
            }
        };
        self.inbox
            + self.transfers.iter().map(fill).sum::<u64>()
            + self.chunks.iter().map(temp).sum::<u64>()
    }

    /// The peer has said that nothing more comes, and everything is here (or not wanted).
    pub(super) fn is_over(&self) -> bool {
        self.end.is_some()
            && self
                .transfers
                .iter()
                .all(|transfer| transfer.closing == Closing::Over)
            && self.chunks.iter().all(|chunk| chunk.phase == Phase::Ready)
    }

    /// No large transfer is under way.
    pub(super) fn is_plain(&self) -> bool {
        self.transfers.is_empty() && self.chunks.is_empty()
    }

    /// Nothing waits for an answer of the driver.
    pub(super) fn is_settled(&self) -> bool {
        self.chunks.iter().all(|chunk| chunk.phase == Phase::Ready)
    }

    fn transfer(&self, id: TransferId) -> Option<&Transfer> {
        let first = self.transfers.front()?.id.0;
        // Identifiers count up, but for the 0 left out when they wrap around.
        self.transfers
            .get(usize::try_from(id.0.wrapping_sub(first)).ok()?)
            .filter(|transfer| transfer.id == id)
            .or_else(|| self.transfers.iter().find(|transfer| transfer.id == id))
    }

    fn transfer_mut(&mut self, id: TransferId) -> Option<&mut Transfer> {
        self.transfers.iter_mut().find(|transfer| transfer.id == id)
    }

    /// Where the next byte is; never `Failed`.
    pub(super) fn readable(&self) -> Readable {
        if self.discard {
            Readable::Eof
        } else {
            self.next()
        }
    }

    fn next(&self) -> Readable {
        let until_mark = match self.mark {
            Some(mark) if mark > self.consumed => mark - self.consumed,
            _ => u64::MAX,
        };
        match self.segments.front() {
            None if self.end.is_some_and(|(_, end)| end == self.consumed) => Readable::Eof,
            None => Readable::Nothing,
            Some(&Segment::Bytes(len)) => Readable::Bytes {
                queue: Queue::Main,
                len: len.min(until_mark),
            },
            Some(&Segment::Transfer(id)) => self
                .transfer(id)
                .map_or(Readable::Nothing, |transfer| self.next_of(transfer)),
        }
    }

    fn next_of(&self, transfer: &Transfer) -> Readable {
        if let Some(chunk) = self
            .chunks
            .front()
            .filter(|chunk| chunk.transfer == transfer.id)
        {
            return match (chunk.phase, chunk.memory) {
                (Phase::Ready, Memory::Temp(temp)) => Readable::Temp {
                    temp,
                    offset: chunk.consumed,
                    len: chunk.len - chunk.consumed,
                },
                _ => Readable::Nothing,
            };
        }
        if transfer.refused {
            return match transfer.arrived - transfer.consumed {
                0 => Readable::Nothing,
                len => Readable::Bytes {
                    queue: Queue::Fill,
                    len,
                },
            };
        }
        match transfer.total - transfer.fetched {
            0 => Readable::Nothing,
            len => Readable::Remote {
                transfer: transfer.id,
                len,
            },
        }
    }

    // ---- what arrives

    /// Announces bytes of the stream; says whether nothing unread is before them.
    fn announce(&mut self, offset: u64, len: u64) -> Result<bool, ProtocolError> {
        if self.end.is_some() {
            return Err(ProtocolError::AfterShutdown);
        }
        if offset != self.announced {
            return Err(ProtocolError::Offset);
        }
        self.announced = offset.checked_add(len).ok_or(ProtocolError::Offset)?;
        Ok(self.segments.is_empty())
    }

    /// Bytes that go to the inbox, if it has the room that every credit promises.
    fn keep(&mut self, len: u64) -> Result<(), ProtocolError> {
        if self.inbox + self.urgent + len > self.limits.inbox {
            return Err(ProtocolError::Credit);
        }
        self.inbox += len;
        match self.segments.back_mut() {
            Some(Segment::Bytes(bytes)) => *bytes += len,
            _ => self.segments.push_back(Segment::Bytes(len)),
        }
        Ok(())
    }

    pub(super) fn data(
        &mut self,
        offset: u64,
        range: Range<usize>,
        stats: &mut Stats,
    ) -> Result<Incoming, ProtocolError> {
        let len = range.len() as u64;
        let is_head = self.announce(offset, len)?;
        stats.data_received += 1;
        stats.bytes_received += len;
        if self.discard {
            return Ok(Incoming::Discarded);
        }
        self.keep(len)?;
        Ok(Incoming::Data {
            queue: Queue::Main,
            range,
            is_head,
        })
    }

    pub(super) fn urgent(
        &mut self,
        mark: u64,
        range: Range<usize>,
        stats: &mut Stats,
    ) -> Result<Incoming, ProtocolError> {
        self.announce(mark, 0)?;
        stats.urgent_received += 1;
        if self.discard {
            return Ok(Incoming::Discarded);
        }
        let len = range.len() as u64;
        if self.inbox + self.urgent + len > self.limits.inbox {
            return Err(ProtocolError::Credit);
        }
        self.urgent += len;
        self.mark = Some(mark);
        Ok(Incoming::Urgent { range, mark })
    }

    pub(super) fn large(
        &mut self,
        message: &Message,
        range: Range<usize>,
        stats: &mut Stats,
    ) -> Result<Incoming, ProtocolError> {
        let (id, offset, total, source) = match *message {
            Message::LargeRead {
                transfer,
                offset,
                total,
                descriptor,
                ..
            } => (transfer, offset, total, Some(descriptor)),
            Message::LargeWrite {
                transfer,
                offset,
                total,
                ..
            } => (transfer, offset, total, None),
            _ => return Err(ProtocolError::Unexpected),
        };
        let possible = match source {
            Some(_) => self.limits.rdma_read,
            None => self.limits.can_expose,
        };
        let open = self
            .transfers
            .iter()
            .filter(|t| t.closing != Closing::Over)
            .count();
        if !possible || id.0 != next_id(self.last_id) {
            return Err(ProtocolError::Transfer);
        }
        if open >= self.limits.max_large {
            return Err(ProtocolError::TooManyTransfers);
        }
        let is_head = self.announce(offset, total)?;
        self.last_id = id.0;
        stats.large_received += 1;
        stats.bytes_received += total;
        let initial = range.len() as u64;
        self.transfers.push_back(Transfer {
            id,
            start: offset,
            total,
            initial,
            source,
            fetched: initial,
            arrived: initial,
            consumed: initial,
            refused: false,
            blocked: false,
            closing: Closing::Open,
            read: false,
        });
        if self.discard {
            self.segments.push_back(Segment::Transfer(id));
            self.settle(id);
            self.skip();
            return Ok(Incoming::Discarded);
        }
        if initial > 0 {
            self.keep(initial)?;
        }
        self.segments.push_back(Segment::Transfer(id));
        if initial == 0 {
            return Ok(Incoming::Control);
        }
        Ok(Incoming::Data {
            queue: Queue::Main,
            range,
            is_head,
        })
    }

    pub(super) fn fill(
        &mut self,
        id: TransferId,
        offset: u64,
        range: Range<usize>,
        effects: &mut Effects,
        stats: &mut Stats,
    ) -> Result<Incoming, ProtocolError> {
        let consumed = self.consumed;
        let transfer = self.transfer_mut(id).ok_or(ProtocolError::Transfer)?;
        let len = range.len() as u64;
        if !transfer.refused || transfer.closing != Closing::Open {
            return Err(ProtocolError::Transfer);
        }
        let in_order = transfer.start + transfer.arrived == offset;
        if !in_order || len > transfer.fetched - transfer.arrived {
            return Err(ProtocolError::Range);
        }
        let is_head = consumed == offset;
        transfer.arrived += len;
        stats.fill_bytes_received += len;
        self.settle(id);
        if self.discard {
            self.drop_unwanted(effects);
            return Ok(Incoming::Discarded);
        }
        Ok(Incoming::Data {
            queue: Queue::Fill,
            range,
            is_head,
        })
    }

    pub(super) fn write_done(
        &mut self,
        id: TransferId,
        offset: u64,
        len: u64,
        effects: &mut Effects,
        stats: &mut Stats,
    ) -> Result<(), ProtocolError> {
        let start = self.transfer(id).ok_or(ProtocolError::Transfer)?.start;
        let located = |chunk: &&Chunk| chunk.transfer == id && chunk.phase == Phase::Located;
        let chunk = self
            .chunks
            .iter()
            .find(located)
            .ok_or(ProtocolError::Transfer)?;
        if start + chunk.offset != offset || chunk.len != len {
            return Err(ProtocolError::Range);
        }
        let number = chunk.number;
        self.chunk_arrived(number, effects);
        stats.peer_write_bytes += len;
        Ok(())
    }

    pub(super) fn ended(&mut self, how: End, end: u64) -> Result<(), ProtocolError> {
        if self.end.is_some() {
            return Err(ProtocolError::AfterShutdown);
        }
        if end != self.announced {
            return Err(ProtocolError::Offset);
        }
        self.end = Some((how, end));
        Ok(())
    }

    // ---- what the application wants

    /// The application took `n` of the next bytes.
    pub(super) fn consume(&mut self, n: u64, effects: &mut Effects) {
        if !self.discard {
            self.take(n, effects);
        }
    }

    pub(super) fn consume_urgent(&mut self, n: u64) {
        self.urgent = self.urgent.saturating_sub(n);
    }

    fn take(&mut self, n: u64, effects: &mut Effects) {
        let n = match self.next() {
            Readable::Bytes { queue, len } => {
                let n = n.min(len);
                match (queue, self.segments.front_mut()) {
                    (Queue::Main, Some(Segment::Bytes(bytes))) => {
                        *bytes -= n;
                        self.inbox -= n;
                    }
                    (_, Some(&mut Segment::Transfer(id))) => {
                        if let Some(transfer) = self.transfer_mut(id) {
                            transfer.consumed += n;
                        }
                    }
                    _ => {}
                }
                n
            }
            Readable::Temp { len, .. } => {
                let n = n.min(len);
                let Some(chunk) = self.chunks.front_mut() else {
                    return;
                };
                chunk.consumed += n;
                let (id, is_empty) = (chunk.transfer, chunk.consumed == chunk.len);
                if is_empty {
                    self.release(0, effects);
                }
                if let Some(transfer) = self.transfer_mut(id) {
                    transfer.consumed += n;
                }
                n
            }
            _ => return,
        };
        self.advance(n);
    }

    /// The position moves on; what is read entirely goes.
    fn advance(&mut self, n: u64) {
        self.consumed += n;
        if self.mark.is_some_and(|mark| mark < self.consumed) {
            self.mark = None;
        }
        let empty = match self.segments.front() {
            None => false,
            Some(&Segment::Bytes(bytes)) => bytes == 0,
            Some(&Segment::Transfer(id)) => match self.transfer_mut(id) {
                Some(transfer) => {
                    transfer.read = transfer.consumed == transfer.total;
                    transfer.read
                }
                None => true,
            },
        };
        if empty {
            self.segments.pop_front();
            self.forget();
        }
        // Memory may be had again.
        if let Some(transfer) = self.transfers.iter_mut().find(|transfer| transfer.blocked) {
            transfer.blocked = false;
        }
    }

    /// Drops transfers that neither side needs.
    fn forget(&mut self) {
        while let Some(first) = self.transfers.front() {
            if first.closing != Closing::Over || !first.read {
                return;
            }
            self.transfers.pop_front();
        }
    }

    pub(super) fn set_direct(&mut self, direct: bool) {
        self.direct = direct;
        if !direct {
            for transfer in &mut self.transfers {
                transfer.blocked = false;
            }
        }
    }

    pub(super) fn is_kept_back(&self) -> bool {
        let wanted = self.direct && !self.broken && !self.discard;
        wanted && self.transfers.iter().any(|t| t.fetched < t.total)
    }

    pub(super) fn pull(&mut self, len: u64, effects: &mut Effects) -> Result<PullId, PullError> {
        let Readable::Remote {
            transfer,
            len: remote,
        } = self.readable()
        else {
            return Err(PullError::NothingRemote);
        };
        if len == 0 || self.broken {
            return Err(PullError::NothingRemote);
        }
        if self.is_preparing() || self.chunks.len() >= MAX_CHUNKS {
            return Err(PullError::Busy);
        }
        self.last_pull += 1;
        let pull = PullId(self.last_pull);
        self.begin(
            transfer,
            len.min(remote),
            Memory::Application(pull),
            effects,
        );
        Ok(pull)
    }
}
