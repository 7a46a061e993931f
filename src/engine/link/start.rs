//! Starting operations: looking the memory up, handing posts to the fabric, what has to wait.
//!
//! Invariant: posts of one direction reach the fabric in the order in which the operations were
//! started; what finds no room waits, and everything behind it too.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Direction, Link, MAX_RDMA, Span};
use crate::engine::error::TransferError;
use crate::engine::memory::RegistrationId;
use crate::engine::operation::{Deferred, Kind, Pieces, Queue, post};
use crate::engine::outlet::{End, Report, Ticket};
use crate::fabric::{Access, OpId, Piece, PostError, Posted, QuickGuard};

/// Pieces that one RDMA may always have, also over a fabric that takes fewer at a time.
const LEAST_PIECES: usize = 8;

/// Places of the queue that transfers leave to messages, as many as the switch has sends in progress:
/// who has filled it with RDMA can still give its peer credit.
const KEPT_FOR_SENDS: usize = 16;

fn access_of(kind: Kind) -> Access {
    match kind {
        Kind::Send | Kind::Write => Access::READ,
        Kind::Read | Kind::Receive => Access::WRITE,
    }
}

/// What a refused post means for the caller. `Full` is not among them: it waits.
fn refusal(error: PostError) -> TransferError {
    match error {
        PostError::Full => TransferError::QueueFull,
        PostError::NotConnected => TransferError::NotConnected,
        PostError::Ended(ending) => TransferError::Ended(ending),
        PostError::BadPiece | PostError::Rights => TransferError::NotRegistered,
        PostError::TooLarge => TransferError::TooLarge,
        PostError::TooManyPieces => TransferError::BadPieces,
        PostError::BadDescriptor => TransferError::BadDescriptor,
        PostError::Unsupported => TransferError::Unsupported,
    }
}

/// What a refused post means for an operation that was already started.
fn late_refusal(error: PostError) -> End {
    match error {
        PostError::Ended(ending) => End::Flushed(ending),
        other => End::Rejected(refusal(other)),
    }
}

impl Link {
    /// Starts a send or posts a receive. Ok: exactly one result follows.
    pub(crate) fn message(
        &self,
        kind: Kind,
        ticket: Ticket,
        spans: impl ExactSizeIterator<Item = Span>,
    ) -> Result<(), TransferError> {
        if spans.len() == 0 || spans.len() > self.around.caps.max_pieces {
            return Err(TransferError::BadPieces);
        }
        let access = access_of(kind);
        let mut pieces = Pieces::new();
        let mut total = 0_usize;
        let mut direction = self.direction(kind).lock();
        for span in spans.filter(|span| span.len > 0) {
            let piece = self
                .memory
                .find(&mut direction.near, span.address, span.len, access)
                .ok_or(TransferError::NotRegistered)?;
            pieces.push(piece);
            total = total.saturating_add(span.len);
        }
        if kind == Kind::Send && total > self.around.caps.max_message {
            return Err(TransferError::TooLarge);
        }
        self.start_message(direction, kind, ticket, total, &pieces)
    }

    /// Whether one operation more of the kind would be too many.
    fn is_full(&self, queue: &Queue, kind: Kind) -> bool {
        let kept = match kind {
            Kind::Send | Kind::Receive => 0,
            Kind::Write | Kind::Read => KEPT_FOR_SENDS,
        };
        queue.len() + kept >= self.around.queue_depth
    }

    /// Hands a message to the fabric under the lock: whatever comes of it, it is entered before
    /// anybody else can see its completion, and one that is done at once is never entered.
    fn start_message(
        &self,
        mut direction: QuickGuard<'_, Direction>,
        kind: Kind,
        ticket: Ticket,
        total: usize,
        pieces: &Pieces,
    ) -> Result<(), TransferError> {
        let queue = &mut direction.queue;
        if self.is_full(queue, kind) {
            return Err(TransferError::QueueFull);
        }
        let posted = if queue.backlog.is_empty() {
            // req: WSD-09, the first receive may find a message that the fabric has kept for it.
            let op = queue.next(kind);
            self.endpoint.post(post(op, pieces.as_slice(), &[], 0))
        } else {
            Err(PostError::Full)
        };
        match posted {
            Ok(Posted::Done(bytes)) if !ticket.notify && queue.is_empty(kind) => {
                self.around.outlet.switch.publish(&Report {
                    ticket,
                    end: End::Done,
                    bytes,
                });
                return Ok(());
            }
            Ok(_) | Err(PostError::Full) => {}
            Err(error) => return Err(refusal(error)),
        }
        self.around.outlet.switch.begin(&ticket, total);
        let op = queue.begin(kind, ticket, total, 1);
        if ticket.notify {
            self.notified.fetch_add(1, Ordering::AcqRel);
        }
        match posted {
            Ok(Posted::Done(bytes)) => {
                queue.end_part(op, End::Done, bytes);
                self.release(direction, kind);
            }
            Ok(Posted::Pending) => drop(direction),
            Err(_) => {
                self.defer(&mut direction, op, pieces.clone(), &[], 0);
                self.pump(direction);
            }
        }
        if ticket.notify {
            self.watch_from_call();
        } else if kind == Kind::Send {
            self.watch_later();
        }
        Ok(())
    }

    /// Starts a write to, or a read from, the peer's memory. Ok: exactly one result follows.
    pub(crate) fn rdma(
        &self,
        kind: Kind,
        ticket: Ticket,
        spans: impl ExactSizeIterator<Item = (RegistrationId, Span)>,
        remote: &[u8],
        offset: u64,
    ) -> Result<(), TransferError> {
        let caps = &self.around.caps;
        if kind == Kind::Read && !caps.rdma_read {
            return Err(TransferError::Unsupported);
        }
        if spans.len() == 0 || spans.len() > caps.max_pieces.max(LEAST_PIECES) {
            return Err(TransferError::BadPieces);
        }
        if remote.len() != caps.descriptor_len {
            return Err(TransferError::BadDescriptor);
        }
        let mut pieces = Pieces::new();
        let mut total = 0_usize;
        for (id, span) in spans.filter(|(_, span)| span.len > 0) {
            let piece = self
                .memory
                .find_in(id, span.address, span.len, access_of(kind))
                .map_err(|unknown| match unknown {
                    true => TransferError::UnknownRegistration,
                    false => TransferError::NotRegistered,
                })?;
            total = total.saturating_add(span.len);
            pieces.push(piece);
        }
        if total > MAX_RDMA {
            return Err(TransferError::TooLarge);
        }
        let direction = self.outgoing.lock();
        if total <= caps.max_rdma && pieces.len() <= caps.max_pieces {
            return self.start_rdma(direction, kind, ticket, total, pieces, remote, offset);
        }
        self.start_in_parts(direction, kind, ticket, total, &pieces, remote, offset)
    }

    /// Enters a write or read and hands it to the fabric, without the lock: it may take long.
    #[allow(clippy::too_many_arguments)] // the fields of one post, and the lock it comes with
    fn start_rdma(
        &self,
        mut direction: QuickGuard<'_, Direction>,
        kind: Kind,
        ticket: Ticket,
        total: usize,
        pieces: Pieces,
        remote: &[u8],
        offset: u64,
    ) -> Result<(), TransferError> {
        let queue = &mut direction.queue;
        if self.is_full(queue, kind) {
            return Err(TransferError::QueueFull);
        }
        // The result may be there before the post returns: everything is in place before it.
        self.around.outlet.switch.begin(&ticket, total);
        let op = queue.begin(kind, ticket, total, 1);
        if ticket.notify {
            self.notified.fetch_add(1, Ordering::AcqRel);
        }
        let waits = !queue.backlog.is_empty();
        if waits {
            self.defer(&mut direction, op, pieces, remote, offset);
            self.pump(direction);
        } else {
            drop(direction);
            match self
                .endpoint
                .post(post(op, pieces.as_slice(), remote, offset))
            {
                Ok(Posted::Pending) => {}
                Ok(Posted::Done(bytes)) => {
                    let mut direction = self.direction(kind).lock();
                    direction.queue.end_part(op, End::Done, bytes);
                    self.release(direction, kind);
                }
                Err(PostError::Full) => {
                    // Room may have come meanwhile without anybody to notice: tried again under the
                    // lock, after which whoever brings room finds the post here.
                    let mut direction = self.direction(kind).lock();
                    self.defer(&mut direction, op, pieces, remote, offset);
                    self.pump(direction);
                }
                Err(error) => {
                    let mut direction = self.direction(kind).lock();
                    direction.queue.withdraw(op);
                    if ticket.notify {
                        self.notified.fetch_sub(1, Ordering::AcqRel);
                    }
                    self.release(direction, kind);
                    self.around.outlet.switch.publish(&Report {
                        ticket,
                        end: late_refusal(error),
                        bytes: 0,
                    });
                    return Err(refusal(error));
                }
            }
        }
        if ticket.notify {
            self.watch_from_call();
        } else {
            self.watch_later();
        }
        Ok(())
    }

    /// Starts an operation that the fabric cannot take in one post.
    ///
    /// The part that reaches furthest goes first: if the transfer does not fit the remote memory,
    /// that is known before any byte moved.
    #[allow(clippy::too_many_arguments)] // as `start`
    fn start_in_parts(
        &self,
        mut direction: QuickGuard<'_, Direction>,
        kind: Kind,
        ticket: Ticket,
        total: usize,
        pieces: &Pieces,
        remote: &[u8],
        offset: u64,
    ) -> Result<(), TransferError> {
        let caps = &self.around.caps;
        if self.is_full(&direction.queue, kind) {
            return Err(TransferError::QueueFull);
        }
        let parts = split(pieces.as_slice(), caps.max_rdma, caps.max_pieces);
        self.around.outlet.switch.begin(&ticket, total);
        let op = direction.queue.begin(kind, ticket, total, parts.len());
        if ticket.notify {
            self.notified.fetch_add(1, Ordering::AcqRel);
        }
        let remote: Arc<[u8]> = remote.into();
        self.backlogged.fetch_add(parts.len(), Ordering::AcqRel);
        for (part, at) in parts.into_iter().rev() {
            direction.queue.backlog.push_back(Deferred {
                op,
                pieces: part,
                remote: Arc::clone(&remote),
                offset: offset.saturating_add(at),
            });
        }
        self.pump(direction);
        if ticket.notify {
            self.watch_from_call();
        } else {
            self.watch_later();
        }
        Ok(())
    }

    pub(super) fn defer(
        &self,
        direction: &mut Direction,
        op: OpId,
        pieces: Pieces,
        remote: &[u8],
        offset: u64,
    ) {
        self.backlogged.fetch_add(1, Ordering::AcqRel);
        direction.queue.backlog.push_back(Deferred {
            op,
            pieces,
            remote: remote.into(),
            offset,
        });
    }

    /// Hands waiting posts to the fabric, in order, as far as it takes them. Posts under the lock,
    /// so that nothing overtakes.
    // req: WSD-14, a send stays behind the writes and reads that were started before it.
    pub(super) fn pump(&self, mut direction: QuickGuard<'_, Direction>) {
        let queue = &mut direction.queue;
        let mut kinds = [false; 4];
        while let Some(next) = queue.backlog.front() {
            let op = next.op;
            let ended = if queue.has_failed(op) {
                Some((End::Done, 0))
            } else {
                let Some(next) = queue.backlog.front() else {
                    break;
                };
                match self.endpoint.post(next.as_post()) {
                    Ok(Posted::Pending) => None,
                    Ok(Posted::Done(bytes)) => Some((End::Done, bytes)),
                    Err(PostError::Full) => break,
                    Err(error) => Some((late_refusal(error), 0)),
                }
            };
            queue.backlog.pop_front();
            self.backlogged.fetch_sub(1, Ordering::AcqRel);
            if let Some((end, bytes)) = ended {
                queue.end_part(op, end, bytes);
                if let Some(touched) = kinds.get_mut(Kind::of(op) as usize) {
                    *touched = true;
                }
            }
        }
        let mut released = false;
        for kind in [Kind::Send, Kind::Write, Kind::Read, Kind::Receive] {
            if kinds.get(kind as usize).is_some_and(|touched| *touched) {
                released |= self.release_ended(&mut direction.queue, kind);
            }
        }
        drop(direction);
        if released {
            self.released_in_call();
        }
    }
}

/// Cuts pieces into posts of at most `most_bytes` and `most_pieces`, with the offset of each.
fn split(pieces: &[Piece], most_bytes: usize, most_pieces: usize) -> Vec<(Pieces, u64)> {
    let most_bytes = most_bytes.max(1);
    let most_pieces = most_pieces.max(1);
    let mut parts = Vec::new();
    let mut part = Pieces::new();
    let mut bytes = 0;
    let mut begun = 0_u64;
    for piece in pieces {
        let mut rest = *piece;
        while rest.len > 0 {
            if bytes == most_bytes || part.len() == most_pieces {
                parts.push((std::mem::replace(&mut part, Pieces::new()), begun));
                begun += bytes as u64;
                bytes = 0;
            }
            let len = rest.len.min(most_bytes - bytes);
            part.push(Piece { len, ..rest });
            bytes += len;
            rest.offset += len;
            rest.len -= len;
        }
    }
    if !part.is_empty() {
        parts.push((part, begun));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::Key;

    fn piece(key: u64, offset: usize, len: usize) -> Piece {
        Piece {
            key: Key(key),
            offset,
            len,
        }
    }

    #[test]
    fn parts_cover_every_byte_once_within_the_limits() {
        let pieces = [
            piece(1, 5, 10),
            piece(2, 0, 1),
            piece(3, 100, 33),
            piece(4, 7, 20),
        ];
        for most_bytes in [1, 3, 7, 10, 32, 64, 1000] {
            for most_pieces in [1, 2, 3, 4, 9] {
                let parts = split(&pieces, most_bytes, most_pieces);
                let mut expected = 0;
                let mut bytes = Vec::new();
                for (part, offset) in &parts {
                    assert_eq!(*offset, expected);
                    assert!(part.len() <= most_pieces);
                    let len: usize = part.as_slice().iter().map(|piece| piece.len).sum();
                    assert!(len > 0 && len <= most_bytes);
                    expected += len as u64;
                    for piece in part.as_slice() {
                        bytes.extend((0..piece.len).map(|n| (piece.key, piece.offset + n)));
                    }
                }
                let all: Vec<_> = pieces
                    .iter()
                    .flat_map(|piece| (0..piece.len).map(|n| (piece.key, piece.offset + n)))
                    .collect();
                assert_eq!(bytes, all);
            }
        }
    }
}
