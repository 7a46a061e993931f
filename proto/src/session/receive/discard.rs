//! When nothing is wanted any more: what is here goes, what is on its way is passed over.
//!
//! Invariant: no memory is held for bytes that nobody will read, and each transfer ends towards the
//! peer as soon as nothing that was asked for is missing.

use super::{Closing, ReceiveSide, Segment};
use crate::session::action::Readable;
use crate::session::send::Effects;

impl ReceiveSide {
    pub(crate) fn discard(&mut self, effects: &mut Effects) {
        self.discard = true;
        self.mark = None;
        self.urgent = 0;
        self.take_all(effects);
        for at in 0..self.transfers.len() {
            if let Some(id) = self.transfers.get(at).map(|transfer| transfer.id) {
                self.settle(id);
            }
        }
        self.drop_unwanted(effects);
    }

    fn take_all(&mut self, effects: &mut Effects) {
        while let Readable::Bytes { len, .. } | Readable::Temp { len, .. } = self.next() {
            self.take(len, effects);
        }
    }

    /// Nothing is wanted any more: gives back what is here, also behind what is passed over.
    pub(super) fn drop_unwanted(&mut self, effects: &mut Effects) {
        loop {
            self.take_all(effects);
            self.skip();
            if !matches!(self.next(), Readable::Bytes { .. } | Readable::Temp { .. }) {
                return;
            }
        }
    }

    /// Passes over what is not fetched any more because nothing is wanted.
    pub(super) fn skip(&mut self) {
        while let Some(&segment) = self.segments.front() {
            match segment {
                Segment::Bytes(bytes) => self.inbox -= bytes,
                Segment::Transfer(id) => {
                    let in_use = self.chunks.iter().any(|chunk| chunk.transfer == id);
                    match self.transfer_mut(id) {
                        Some(transfer) if transfer.closing == Closing::Open || in_use => return,
                        Some(transfer) => {
                            transfer.consumed = transfer.total;
                            transfer.read = true;
                        }
                        None => {}
                    }
                }
            }
            self.segments.pop_front();
        }
        self.forget();
    }
}
