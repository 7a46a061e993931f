//! Large sends: from the question for their memory until the peer has them.
//!
//! Owns the transfers. Memory is exposed or registered before the first message is made, and given
//! back before the completion is reported.

use super::{Content, Effects, Entry, Kind, MAX_LOCATIONS, SendSide, next_id};
use crate::session::action::{Access, Action, Body, Memory, SendId};
use crate::session::config::{Config, Peer, SendMode, Stats};
use crate::session::error::{NoBuffers, ProtocolError, SendFailure};
use crate::session::message::{Descriptor, Message, TransferId};
use crate::session::rdma::{Few, RdmaId};

#[derive(Clone, Debug)]
pub(super) struct Transfer {
    pub(super) send: SendId,
    /// 0 until the first message is made.
    id: TransferId,
    /// Position in the stream.
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) initial: u32,
    pub(super) mode: SendMode,
    pub(super) phase: Phase,
    /// Exposed or registered.
    held: bool,
    descriptor: Option<Descriptor>,
    /// Up to here the receiver has told locations.
    located: u64,
    locations: Few<Location, MAX_LOCATIONS>,
    next_location: u32,
    /// Writes in flight.
    pub(super) writing: u32,
    /// The part to be sent in messages: (next, end).
    pub(super) fill: Option<(u64, u64)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Waits for its memory.
    Preparing,
    /// Waits for its turn.
    Prepared,
    /// The peer knows it.
    Active,
    /// Waits for the driver's answers, then completes like this.
    Dying(SendFailure),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Location {
    number: u32,
    /// Position within the transfer.
    offset: u64,
    len: u64,
    descriptor: Descriptor,
    issued: u64,
    writing: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    send: SendId,
    location: u32,
}

impl SendSide {
    /// Asks for the memory of large sends ahead of their turn, as many as may be in flight.
    pub(crate) fn prepare(&mut self, config: &Config, peer: &Peer, effects: &mut Effects) {
        while self.unprepared > 0 && self.transfers.len() < usize::from(peer.max_large) {
            let transfers = &self.transfers;
            let entry = self.queue.iter().find(|entry| {
                entry.kind == Kind::Large && !transfers.iter().any(|t| t.send == entry.send)
            });
            let Some(&Entry { send, len, .. }) = entry else {
                return;
            };
            self.unprepared -= 1;
            let head = match peer.send_mode {
                SendMode::Read => config.descriptor_len,
                SendMode::Write | SendMode::MessagesOnly => 0,
            };
            let room = peer
                .payload
                .saturating_sub(u32::try_from(head).unwrap_or(u32::MAX));
            let half = u32::try_from(len / 2).unwrap_or(u32::MAX);
            // req: SEED-05 the initial portion travels in the control message
            let initial = config.initial_portion.min(room).min(half);
            let (memory, offset) = (Memory::Send(send), u64::from(initial));
            effects.push_back(match peer.send_mode {
                // req: SEED-06 the memory is exposed before its message is made
                SendMode::Read => Action::Expose {
                    memory,
                    access: Access::Read,
                    offset,
                    len: len - offset,
                },
                SendMode::Write | SendMode::MessagesOnly => Action::Register {
                    memory,
                    access: Access::Read,
                    offset,
                    len: len - offset,
                },
            });
            self.transfers.push(Transfer {
                send,
                id: TransferId(0),
                start: 0,
                len,
                initial,
                mode: peer.send_mode,
                phase: Phase::Preparing,
                held: false,
                descriptor: None,
                located: initial.into(),
                locations: Few::new(),
                next_location: 0,
                writing: 0,
                fill: None,
            });
        }
    }

    /// The driver's answer to `Expose` (with a descriptor) or `Register` (without).
    pub(crate) fn prepared(
        &mut self,
        send: SendId,
        result: Result<Option<Descriptor>, NoBuffers>,
        effects: &mut Effects,
    ) {
        let asked = |transfer: &Transfer| {
            transfer.send == send
                && !transfer.held
                && matches!(transfer.phase, Phase::Preparing | Phase::Dying(_))
        };
        let Some(at) = self.transfers.iter().position(asked) else {
            return;
        };
        let Some(transfer) = self.transfers.get_mut(at) else {
            return;
        };
        transfer.held = result.is_ok();
        match (transfer.phase, result) {
            (Phase::Dying(failure), _) => {
                self.finish(at, Err(failure), effects);
            }
            (_, Ok(descriptor)) => {
                transfer.descriptor = descriptor;
                transfer.phase = Phase::Prepared;
            }
            // req: SEED-10, WSD-21 nothing of the send has left, and nothing of it will
            (_, Err(NoBuffers)) => {
                self.queue.retain(|entry| entry.send != send);
                self.finish(at, Err(SendFailure::NoBuffers), effects);
            }
        }
    }

    /// Gives the memory back, then reports the end.
    pub(super) fn finish(
        &mut self,
        at: usize,
        result: Result<(), SendFailure>,
        effects: &mut Effects,
    ) -> Transfer {
        let transfer = self.transfers.remove(at);
        // req: SEED-09 released first, completed then
        transfer.release(effects);
        effects.push_back(Action::SendComplete {
            send: transfer.send,
            result,
        });
        transfer
    }

    fn active(&mut self, id: TransferId) -> Result<(usize, &mut Transfer), ProtocolError> {
        self.transfers
            .iter_mut()
            .enumerate()
            .find(|(_, transfer)| transfer.id == id && transfer.phase == Phase::Active)
            .ok_or(ProtocolError::Transfer)
    }

    pub(crate) fn read_done(
        &mut self,
        id: TransferId,
        effects: &mut Effects,
        stats: &mut Stats,
    ) -> Result<(), ProtocolError> {
        let (at, transfer) = self.active(id)?;
        let owes = transfer.fill.is_some_and(|(next, end)| next < end);
        if owes || !transfer.locations.is_empty() {
            return Err(ProtocolError::Transfer);
        }
        let transfer = self.finish(at, Ok(()), effects);
        // What went before a refusal was counted then.
        if transfer.mode == SendMode::Read && transfer.fill.is_none() {
            stats.peer_read_bytes += transfer.len - u64::from(transfer.initial);
        }
        self.confirm_transfer(&transfer);
        Ok(())
    }

    pub(crate) fn location(
        &mut self,
        id: TransferId,
        offset: u64,
        len: u64,
        descriptor: Descriptor,
    ) -> Result<(), ProtocolError> {
        let (_, transfer) = self.active(id)?;
        if transfer.mode != SendMode::Write || transfer.fill.is_some() {
            return Err(ProtocolError::Transfer);
        }
        let part = transfer.part(offset, len, transfer.located)?;
        let location = Location {
            number: transfer.next_location,
            offset: part,
            len,
            descriptor,
            issued: 0,
            writing: 0,
        };
        if !transfer.locations.push(location) {
            return Err(ProtocolError::TooManyTransfers);
        }
        transfer.next_location = transfer.next_location.wrapping_add(1);
        transfer.located = part + len;
        Ok(())
    }

    pub(crate) fn refused(
        &mut self,
        id: TransferId,
        offset: u64,
        len: u64,
        effects: &mut Effects,
        stats: &mut Stats,
    ) -> Result<(), ProtocolError> {
        let (_, transfer) = self.active(id)?;
        let next = match (transfer.fill, transfer.mode) {
            (Some((_, end)), _) => end,
            (None, SendMode::Write) => transfer.located,
            // How far the receiver has read it alone knows.
            (None, _) => offset
                .checked_sub(transfer.start)
                .ok_or(ProtocolError::Range)?,
        };
        if next < transfer.initial.into() || !transfer.locations.is_empty() {
            return Err(ProtocolError::Transfer);
        }
        let part = transfer.part(offset, len, next)?;
        match &mut transfer.fill {
            Some((_, end)) => *end += len,
            None => {
                transfer.fill = Some((part, part + len));
                if transfer.mode == SendMode::Read {
                    stats.peer_read_bytes += part - u64::from(transfer.initial);
                }
            }
        }
        // No RDMA will touch it any more.
        transfer.release(effects);
        transfer.held = false;
        Ok(())
    }

    /// req: SEED-13 the result is known before anything is said about it
    ///
    /// The end of one write; `Err` if there is no such write.
    pub(crate) fn write_done(&mut self, rdma: RdmaId, effects: &mut Effects) -> Result<(), ()> {
        let owner = self.writes.end(rdma).ok_or(())?;
        let at = self
            .transfers
            .iter()
            .position(|t| t.send == owner.send)
            .ok_or(())?;
        let transfer = self.transfers.get_mut(at).ok_or(())?;
        transfer.writing -= 1;
        for location in transfer.locations.iter_mut() {
            if location.number == owner.location {
                location.writing -= 1;
            }
        }
        if let (Phase::Dying(failure), 0) = (transfer.phase, transfer.writing) {
            self.finish(at, Err(failure), effects);
        }
        Ok(())
    }

    pub(crate) fn poll_write(&mut self, peer: &Peer, stats: &mut Stats) -> Option<Action> {
        if self.transfers.is_empty() || self.writes.is_full() {
            return None;
        }
        for transfer in self
            .transfers
            .iter_mut()
            .filter(|t| t.phase == Phase::Active)
        {
            let unwritten = |location: &&mut Location| location.issued < location.len;
            let Some(location) = transfer.locations.iter_mut().find(unwritten) else {
                continue;
            };
            let owner = Owner {
                send: transfer.send,
                location: location.number,
            };
            let rdma = self.writes.begin(owner)?;
            // req: WSD-20 never more than the largest RDMA at once
            let len = (location.len - location.issued).min(peer.max_rdma);
            // req: SEED-12
            let action = Action::RdmaWrite {
                rdma,
                memory: Memory::Send(transfer.send),
                offset: location.offset + location.issued,
                len,
                remote: location.descriptor,
                remote_offset: location.issued,
            };
            location.issued += len;
            location.writing += 1;
            transfer.writing += 1;
            stats.rdma_writes += 1;
            stats.rdma_write_bytes += len;
            return Some(action);
        }
        None
    }

    /// The next message that completes a part of a transfer, or fills one.
    pub(crate) fn poll_completion(
        &mut self,
        peer: &Peer,
        effects: &mut Effects,
        stats: &mut Stats,
    ) -> Option<Content> {
        let mut at = 0;
        while let Some(transfer) = self.transfers.get_mut(at) {
            let done = transfer
                .locations
                .front()
                .is_some_and(|location| location.issued == location.len && location.writing == 0);
            if transfer.phase == Phase::Active && done {
                let location = transfer.locations.pop()?;
                // req: SEED-14 "transfer complete"
                let message = Message::WriteDone {
                    transfer: transfer.id,
                    offset: transfer.start + location.offset,
                    len: location.len,
                };
                if transfer.located == transfer.len && transfer.locations.is_empty() {
                    self.finish(at, Ok(()), effects);
                }
                return Some((message, None));
            }
            if let (Phase::Active, Some((next, end))) = (transfer.phase, &mut transfer.fill)
                && next < end
            {
                let len = peer
                    .payload
                    .min(u32::try_from(*end - *next).unwrap_or(u32::MAX));
                let body = Body {
                    send: transfer.send,
                    offset: *next,
                    len,
                };
                let offset = transfer.start + *next;
                *next += u64::from(len);
                stats.fill_bytes_sent += u64::from(len);
                return Some((
                    Message::Fill {
                        transfer: transfer.id,
                        offset,
                        len,
                    },
                    Some(body),
                ));
            }
            at += 1;
        }
        None
    }

    /// The first message of a large transfer.
    pub(super) fn begin(&mut self, send: SendId, stats: &mut Stats) -> Option<Content> {
        let prepared = |t: &&mut Transfer| t.send == send && t.phase == Phase::Prepared;
        let transfer = self.transfers.iter_mut().find(prepared)?;
        self.last_id = next_id(self.last_id);
        transfer.id = TransferId(self.last_id);
        transfer.start = self.offset;
        transfer.phase = Phase::Active;
        self.offset += transfer.len;
        stats.large_sent += 1;
        stats.bytes_sent += transfer.len;
        let (id, offset, total) = (transfer.id, transfer.start, transfer.len);
        let initial = transfer.initial;
        let body = (initial > 0).then_some(Body {
            send,
            offset: 0,
            len: initial,
        });
        let message = match transfer.descriptor {
            Some(descriptor) => Message::LargeRead {
                transfer: id,
                offset,
                total,
                initial,
                descriptor,
            },
            None => Message::LargeWrite {
                transfer: id,
                offset,
                total,
                initial,
            },
        };
        Some((message, body))
    }
}

impl Transfer {
    pub(super) fn release(&self, effects: &mut Effects) {
        let memory = Memory::Send(self.send);
        match self.mode {
            _ if !self.held => {}
            SendMode::Read => effects.push_back(Action::Conceal { memory }),
            SendMode::Write | SendMode::MessagesOnly => {
                effects.push_back(Action::Deregister { memory });
            }
        }
    }

    /// Where in the transfer a part lies that must begin at `next`.
    fn part(&self, offset: u64, len: u64, next: u64) -> Result<u64, ProtocolError> {
        let part = offset.checked_sub(self.start).ok_or(ProtocolError::Range)?;
        let inside = part.checked_add(len).is_some_and(|end| end <= self.len);
        if part == next && inside {
            Ok(part)
        } else {
            Err(ProtocolError::Range)
        }
    }
}
