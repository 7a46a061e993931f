//! Memory for what large transfers bring: got, filled, handed over and given back.
//!
//! Owns the chunks: from the question for memory to its release. Fetches strictly in stream order,
//! ends each transfer towards the peer, and asks for messages where no memory is to be had.
//!
//! Invariant: only the last chunk ever waits for its memory, so one that gets none is undone by
//! dropping it.

use super::{Chunk, Closing, Held, MAX_CHUNKS, Phase, ReceiveSide, Segment, Transfer};
use crate::session::action::{Access, Action, Memory, TempId};
use crate::session::config::{Peer, Stats};
use crate::session::error::{Failure, NoBuffers, PullFailure};
use crate::session::message::{Descriptor, Message, TransferId};
use crate::session::rdma::RdmaId;
use crate::session::send::{Effects, MAX_LOCATIONS};

impl ReceiveSide {
    /// One chunk at a time waits for its memory, so that one that gets none is the last one.
    pub(super) fn is_preparing(&self) -> bool {
        self.chunks.back().is_some_and(|chunk| {
            matches!(
                chunk.phase,
                Phase::Allocating | Phase::Registering | Phase::Exposing
            )
        })
    }

    pub(super) fn begin(
        &mut self,
        id: TransferId,
        len: u64,
        memory: Memory,
        effects: &mut Effects,
    ) {
        let Some(transfer) = self.transfer_mut(id) else {
            return;
        };
        let (offset, reads) = (transfer.fetched, transfer.source.is_some());
        transfer.fetched += len;
        let phase = match memory {
            Memory::Temp(temp) => {
                self.temp_used += len;
                effects.push_back(Action::AllocateTemp { temp, len });
                Phase::Allocating
            }
            // req: SEED-07 the target of the read is registered
            _ if reads => {
                effects.push_back(Action::Register {
                    memory,
                    access: Access::Write,
                    offset: 0,
                    len,
                });
                Phase::Registering
            }
            // req: SEED-11 the target of the peer's write is exposed
            _ => {
                effects.push_back(Action::Expose {
                    memory,
                    access: Access::Write,
                    offset: 0,
                    len,
                });
                Phase::Exposing
            }
        };
        self.last_chunk += 1;
        self.chunks.push_back(Chunk {
            number: self.last_chunk,
            transfer: id,
            offset,
            len,
            memory,
            phase,
            held: Held::Nothing,
            descriptor: None,
            issued: 0,
            reading: 0,
            consumed: 0,
        });
    }

    /// Fetches ahead into temporary memory, as far as there is room.
    pub(crate) fn fetch(&mut self, effects: &mut Effects) {
        if self.transfers.is_empty() || self.broken || self.discard || self.direct {
            return;
        }
        if self.is_preparing() || self.chunks.len() >= MAX_CHUNKS {
            return;
        }
        let unfetched = |t: &&Transfer| t.fetched < t.total;
        let Some(transfer) = self.transfers.iter().find(unfetched) else {
            return;
        };
        let located = |chunk: &&Chunk| {
            chunk.transfer == transfer.id
                && matches!(chunk.phase, Phase::LocationDue | Phase::Located)
        };
        let len = (transfer.total - transfer.fetched).min(self.limits.temp_chunk);
        if transfer.refused
            || transfer.blocked
            || self.temp_used + len > self.limits.temp
            || self.chunks.iter().filter(located).count() >= MAX_LOCATIONS
        {
            return;
        }
        let id = transfer.id;
        self.last_temp += 1;
        self.begin(id, len, Memory::Temp(TempId(self.last_temp)), effects);
    }

    /// The driver's answer to `AllocateTemp`, `Register` or `Expose`.
    pub(crate) fn prepared(
        &mut self,
        memory: Memory,
        phase_asked: Asked,
        result: Result<Option<Descriptor>, NoBuffers>,
        effects: &mut Effects,
    ) {
        let Some(at) = self.chunks.iter().position(|chunk| chunk.memory == memory) else {
            return;
        };
        let reads = self
            .chunks
            .get(at)
            .and_then(|chunk| self.transfer(chunk.transfer))
            .is_some_and(|transfer| transfer.source.is_some());
        let Some(chunk) = self.chunks.get_mut(at) else {
            return;
        };
        if let (Ok(_), Asked::Registered) = (result, phase_asked) {
            chunk.held = Held::Registered;
        }
        if let (Ok(_), Asked::Exposed) = (result, phase_asked) {
            chunk.held = Held::Exposed;
        }
        let expected = match phase_asked {
            Asked::Allocated => Phase::Allocating,
            Asked::Registered => Phase::Registering,
            Asked::Exposed => Phase::Exposing,
        };
        match (chunk.phase, result) {
            (Phase::Dying(failure), result) => {
                if result.is_err() && phase_asked == Asked::Allocated {
                    self.drop_chunk(at);
                } else {
                    self.kill_chunk(at, failure, effects);
                }
            }
            (phase, _) if phase != expected => {}
            (Phase::Allocating, Ok(_)) if !reads => {
                chunk.phase = Phase::Exposing;
                let len = chunk.len;
                effects.push_back(Action::Expose {
                    memory,
                    access: Access::Write,
                    offset: 0,
                    len,
                });
            }
            (Phase::Exposing, Ok(descriptor)) => {
                chunk.descriptor = descriptor;
                chunk.phase = Phase::LocationDue;
            }
            (_, Ok(_)) => chunk.phase = Phase::Reading,
            (phase, Err(NoBuffers)) => self.without_memory(at, phase, effects),
        }
    }

    /// A chunk gets no memory: it is as if it had never been begun.
    fn without_memory(&mut self, at: usize, phase: Phase, effects: &mut Effects) {
        let Some(chunk) = self.chunks.get(at) else {
            return;
        };
        let (id, len, memory) = (chunk.transfer, chunk.len, chunk.memory);
        if phase == Phase::Allocating {
            self.drop_chunk(at);
        } else {
            match memory {
                Memory::Application(pull) => {
                    self.drop_chunk(at);
                    let result = Err(PullFailure::NoBuffers);
                    effects.push_back(Action::PullComplete { pull, result });
                }
                _ => self.release(at, effects),
            }
        }
        let head = self.segments.front() == Some(&Segment::Transfer(id));
        let direct = self.direct;
        if let Some(transfer) = self.transfer_mut(id) {
            transfer.fetched -= len;
        }
        if self.discard {
            // Nobody asks for it again: the peer is to know that it is not wanted.
            self.settle(id);
            self.drop_unwanted(effects);
            return;
        }
        if matches!(memory, Memory::Application(_)) {
            return;
        }
        if let Some(transfer) = self.transfer_mut(id) {
            // Whatever can come back by reading has come back when this is the next byte.
            if head && transfer.consumed == transfer.fetched && !direct {
                transfer.refused = true;
            } else {
                transfer.blocked = true;
            }
        }
    }

    /// Removes a chunk whose memory is not there.
    fn drop_chunk(&mut self, at: usize) {
        if let Some(Chunk {
            memory: Memory::Temp(_),
            len,
            ..
        }) = self.chunks.remove(at)
        {
            self.temp_used -= len;
        }
    }

    /// Removes a chunk and gives its memory back.
    pub(super) fn release(&mut self, at: usize, effects: &mut Effects) {
        let Some(chunk) = self.chunks.remove(at) else {
            return;
        };
        let memory = chunk.memory;
        match chunk.held {
            Held::Nothing => {}
            Held::Registered => effects.push_back(Action::Deregister { memory }),
            // req: SEED-15 the exposure ends before the data is used
            Held::Exposed => effects.push_back(Action::Conceal { memory }),
        }
        if let Memory::Temp(temp) = memory {
            self.temp_used -= chunk.len;
            effects.push_back(Action::FreeTemp { temp });
        }
    }

    /// All bytes of a chunk are here.
    pub(super) fn chunk_arrived(&mut self, number: u64, effects: &mut Effects) {
        let Some(at) = self.chunks.iter().position(|chunk| chunk.number == number) else {
            return;
        };
        let Some(chunk) = self.chunks.get_mut(at) else {
            return;
        };
        let (id, len, memory) = (chunk.transfer, chunk.len, chunk.memory);
        chunk.phase = Phase::Ready;
        if let Memory::Application(pull) = memory {
            self.release(at, effects);
            effects.push_back(Action::PullComplete {
                pull,
                result: Ok(len),
            });
        } else if chunk.held == Held::Exposed {
            chunk.held = Held::Nothing;
            effects.push_back(Action::Conceal { memory });
        }
        if let Some(transfer) = self.transfer_mut(id) {
            transfer.arrived += len;
            if matches!(memory, Memory::Application(_)) {
                transfer.consumed += len;
            }
        }
        self.settle(id);
        if matches!(memory, Memory::Application(_)) {
            self.advance(len);
        }
        if self.discard {
            self.drop_unwanted(effects);
        }
    }

    /// Ends a transfer towards the peer if nothing more is to come.
    pub(super) fn settle(&mut self, id: TransferId) {
        let discard = self.discard;
        let Some(transfer) = self.transfer_mut(id) else {
            return;
        };
        if transfer.closing != Closing::Open || transfer.arrived < transfer.fetched {
            return;
        }
        let complete = transfer.arrived == transfer.total;
        if complete && transfer.source.is_none() && !transfer.refused {
            // The last WriteDone has said so.
            transfer.closing = Closing::Over;
            self.forget();
        } else if complete || discard {
            transfer.closing = Closing::DoneDue;
        }
    }

    /// Position of the first byte that is not here.
    pub(crate) fn received(&self) -> u64 {
        if self.discard {
            return self.announced;
        }
        for transfer in &self.transfers {
            let mut here = transfer.consumed;
            if transfer.refused {
                here = transfer.arrived;
            } else {
                for chunk in self.chunks.iter().filter(|c| c.transfer == transfer.id) {
                    if chunk.phase != Phase::Ready {
                        break;
                    }
                    here = chunk.offset + chunk.len;
                }
            }
            if here < transfer.total {
                return transfer.start + here;
            }
        }
        self.announced
    }

    /// The connection is gone. What is here in one piece stays readable.
    pub(crate) fn fail(&mut self, failure: Failure, effects: &mut Effects) {
        self.broken = true;
        let ready = self
            .chunks
            .iter()
            .take_while(|chunk| chunk.phase == Phase::Ready)
            .count();
        let mut at = ready;
        while at < self.chunks.len() {
            let before = self.chunks.len();
            self.kill_chunk(at, failure, effects);
            // What waits for an answer is still there.
            at += usize::from(self.chunks.len() == before);
        }
    }

    fn kill_chunk(&mut self, at: usize, failure: Failure, effects: &mut Effects) {
        let Some(chunk) = self.chunks.get_mut(at) else {
            return;
        };
        let waits = matches!(
            chunk.phase,
            Phase::Allocating | Phase::Registering | Phase::Exposing
        );
        if waits || chunk.reading > 0 {
            chunk.phase = Phase::Dying(failure);
            return;
        }
        let memory = chunk.memory;
        self.release(at, effects);
        if let Memory::Application(pull) = memory {
            let result = Err(PullFailure::Failed(failure));
            effects.push_back(Action::PullComplete { pull, result });
        }
    }

    /// The end of one read; `Err` if there is no such read.
    pub(crate) fn read_done(
        &mut self,
        rdma: RdmaId,
        succeeded: bool,
        effects: &mut Effects,
    ) -> Result<(), ()> {
        let number = self.reads.end(rdma).ok_or(())?;
        let at = self
            .chunks
            .iter()
            .position(|chunk| chunk.number == number)
            .ok_or(())?;
        let chunk = self.chunks.get_mut(at).ok_or(())?;
        chunk.reading -= 1;
        if let Phase::Dying(failure) = chunk.phase {
            self.kill_chunk(at, failure, effects);
        } else if succeeded && chunk.reading == 0 && chunk.issued == chunk.len {
            self.chunk_arrived(number, effects);
        }
        Ok(())
    }

    // ---- what to do now

    pub(crate) fn poll_read(&mut self, peer: &Peer, stats: &mut Stats) -> Option<Action> {
        if self.chunks.is_empty() || self.reads.is_full() {
            return None;
        }
        let unread = |chunk: &&mut Chunk| chunk.phase == Phase::Reading && chunk.issued < chunk.len;
        let chunk = self.chunks.iter_mut().find(unread)?;
        let transfer = self
            .transfers
            .iter()
            .find(|transfer| transfer.id == chunk.transfer)?;
        let remote = transfer.source?;
        let rdma = self.reads.begin(chunk.number)?;
        // req: WSD-20 never more than the largest RDMA at once
        let len = (chunk.len - chunk.issued).min(peer.max_rdma);
        // req: SEED-07
        let action = Action::RdmaRead {
            rdma,
            memory: chunk.memory,
            offset: chunk.issued,
            len,
            remote,
            remote_offset: chunk.offset - transfer.initial + chunk.issued,
        };
        chunk.issued += len;
        chunk.reading += 1;
        stats.rdma_reads += 1;
        stats.rdma_read_bytes += len;
        Some(action)
    }

    /// The next message that completes a part of a transfer, or asks for one.
    pub(crate) fn poll_completion(&mut self, stats: &mut Stats) -> Option<Message> {
        if self.transfers.is_empty() {
            return None;
        }
        let due = |transfer: &&mut Transfer| transfer.closing == Closing::DoneDue;
        if let Some(transfer) = self.transfers.iter_mut().find(due) {
            transfer.closing = Closing::Over;
            // req: SEED-08 "transfer complete"
            let message = Message::ReadDone {
                transfer: transfer.id,
            };
            self.forget();
            return Some(message);
        }
        self.poll_location().or_else(|| self.poll_refused(stats))
    }

    fn poll_location(&mut self) -> Option<Message> {
        let due = |chunk: &&mut Chunk| chunk.phase == Phase::LocationDue;
        let chunk = self.chunks.iter_mut().find(due)?;
        let transfer = self
            .transfers
            .iter()
            .find(|transfer| transfer.id == chunk.transfer)?;
        chunk.phase = Phase::Located;
        // req: SEED-11
        Some(Message::Location {
            transfer: transfer.id,
            offset: transfer.start + chunk.offset,
            len: chunk.len,
            descriptor: chunk.descriptor?,
        })
    }

    fn poll_refused(&mut self, stats: &mut Stats) -> Option<Message> {
        if self.discard || self.broken {
            return None;
        }
        let unfetched = |transfer: &&mut Transfer| transfer.fetched < transfer.total;
        let transfer = self
            .transfers
            .iter_mut()
            .find(unfetched)
            .filter(|t| t.refused)?;
        let waiting = transfer.fetched - transfer.consumed;
        if waiting > self.limits.fill / 2 {
            return None;
        }
        let len = (transfer.total - transfer.fetched).min(self.limits.fill - waiting);
        let offset = transfer.start + transfer.fetched;
        transfer.fetched += len;
        stats.refused_sent += 1;
        Some(Message::Refused {
            transfer: transfer.id,
            offset,
            len,
        })
    }
}

/// Which question the driver answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    Allocated,
    Registered,
    Exposed,
}
