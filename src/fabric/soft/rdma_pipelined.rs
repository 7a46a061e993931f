//! Pipelined RDMA: the target's process copies.
//!
//! The initiator asks through the service ring, in parts; the target checks each request against
//! its private table of exposures and copies between its memory and the rings. So the peer reaches
//! exactly what is exposed to it while it is exposed: a real boundary.
//!
//! ```text
//! request   second word: number, counted from 1
//!           0 descriptor (32) | 32 u64 start | 40 u64 total | 48 u64 part | 56 u64 length | data
//! answer    second word: the number; data of a read
//! ```
//!
//! `start` and `total` are the whole access, which is checked for every part, so that an access
//! that does not fit moves no byte. Requests are answered in order.
//!
//! Nothing here can block or deadlock: a consumer takes in every record without having to produce
//! one, since answers that find no room wait in private memory, and of those there are never more
//! than `WINDOW`, as the initiator asks for no more at a time. Whoever asks for more is broken.

use std::collections::VecDeque;

use super::copy::How;
use super::link::{Link, reason};
use super::rdma::{Counts, Fault, Moved, Rdma};
use super::region::{gather, scatter};
use super::ring::{Broken, Consumer, Producer, Record};
use super::shm::Lane;
use super::window::{DESCRIPTOR_LEN, Descriptor, Wanted};
use crate::fabric::Access;

const ASK_WRITE: u8 = 1;
const ASK_READ: u8 = 2;
const DONE: u8 = 3;
const DENIED: u8 = 4;

const REQUEST_LEN: usize = 64;
/// Most bytes moved by one request.
const PART: usize = 32 << 10;
/// Most requests without an answer.
const WINDOW: usize = 16;

/// What stands at the beginning of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Request {
    remote: Descriptor,
    /// The whole access.
    start: u64,
    total: u64,
    /// Where in it this part begins, and its length.
    part: u64,
    len: usize,
}

impl Request {
    fn to_bytes(self) -> [u8; REQUEST_LEN] {
        let mut bytes = [0; REQUEST_LEN];
        let fields = self
            .remote
            .to_bytes()
            .into_iter()
            .chain(self.start.to_le_bytes())
            .chain(self.total.to_le_bytes())
            .chain(self.part.to_le_bytes())
            .chain((self.len as u64).to_le_bytes());
        for (place, byte) in bytes.iter_mut().zip(fields) {
            *place = byte;
        }
        bytes
    }

    fn parse(bytes: &[u8; REQUEST_LEN]) -> Option<Self> {
        let double = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let request = Self {
            remote: Descriptor::parse(bytes.get(..DESCRIPTOR_LEN)?)?,
            start: double(32)?,
            total: double(40)?,
            part: double(48)?,
            len: usize::try_from(double(56)?).ok()?,
        };
        let end = request.part.checked_add(request.len as u64)?;
        (request.len <= PART && end <= request.total).then_some(request)
    }

    fn wanted(&self, access: Access) -> Wanted {
        Wanted {
            access,
            offset: self.start,
            len: self.total,
        }
    }
}

/// What the target still has to answer.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Written,
    Read(Request),
    Denied,
}

/// Both roles of one side.
#[derive(Debug, Default)]
pub(super) struct Service {
    out: Producer,
    inward: Consumer,
    /// Initiator: the lengths of the requests that have no answer yet.
    asked: VecDeque<usize>,
    /// Initiator: the number of the last request, and of the last answer.
    last_asked: u64,
    last_answered: u64,
    /// Target: answers that wait for room, and the number of the last request.
    answers: VecDeque<Answer>,
    last_taken: u64,
    last_given: u64,
    /// Target: a request was denied; nothing is served any more.
    denied: bool,
    stopped: bool,
}

impl Service {
    pub(super) fn asked_nothing(&self) -> bool {
        self.asked.is_empty()
    }

    /// Whether an answer waits for room.
    pub(super) fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Nothing is asked, taken in or answered from now on.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
        self.asked.clear();
        self.answers.clear();
    }
}

impl Rdma {
    /// Takes in all that the peer has put into the service ring, and answers what it can.
    pub(super) fn serve(
        &mut self,
        link: &Link,
        counts: &Counts,
        moved: &mut Moved,
    ) -> Result<(), Fault> {
        let ring = link.incoming(Lane::Service);
        while !self.service.stopped && !self.service.denied {
            let Some(record) = self.service.inward.peek(ring)? else {
                break;
            };
            match record.kind {
                ASK_WRITE | ASK_READ => self.take_request(link, record)?,
                DONE => self.take_answer(link, counts, record, moved)?,
                DENIED => {
                    self.check_answer(record)?;
                    return Err(Fault::Denied);
                }
                _ => return Err(Fault::Broken),
            }
            self.service.inward.release(ring, record);
        }
        if self.service.inward.take_news() {
            moved.wake |= reason::SERVICE_SPACE;
        }
        self.answer(link, moved)
    }

    // ---- target --------------------------------------------------------------------------

    /// req: WSD-13
    fn take_request(&mut self, link: &Link, record: Record) -> Result<(), Fault> {
        self.service.last_taken += 1;
        let mut bytes = [0; REQUEST_LEN];
        if record.second != self.service.last_taken
            || self.service.answers.len() >= WINDOW
            || record.len < REQUEST_LEN
        {
            return Err(Fault::Broken);
        }
        let ring = link.incoming(Lane::Service);
        ring.take_into(record.payload, &mut bytes);
        let request = Request::parse(&bytes).ok_or(Fault::Broken)?;
        let write = record.kind == ASK_WRITE;
        if record.len != REQUEST_LEN + if write { request.len } else { 0 } {
            return Err(Fault::Broken);
        }
        let access = if write { Access::WRITE } else { Access::READ };
        let reach = self.windows.reach(
            link,
            &request.remote,
            request.wanted(access),
            request.part,
            request.len,
        );
        let answer = match reach {
            Err(_) => {
                self.service.denied = true;
                Answer::Denied
            }
            Ok(reach) if write => {
                reach.take_from(ring, record.payload + REQUEST_LEN as u64);
                Answer::Written
            }
            // Read when there is room for it, and checked again then.
            Ok(_) => Answer::Read(request),
        };
        self.service.answers.push_back(answer);
        Ok(())
    }

    /// Puts answers into the ring, in order, as long as there is room.
    pub(super) fn answer(&mut self, link: &Link, moved: &mut Moved) -> Result<(), Fault> {
        let ring = link.outgoing(Lane::Service);
        while let Some(&answer) = self.service.answers.front() {
            let (kind, len) = match answer {
                Answer::Written => (DONE, 0),
                Answer::Read(request) => (DONE, request.len),
                Answer::Denied => (DENIED, 0),
            };
            let Some(position) = self.service.out.reserve(ring, len)? else {
                return Ok(());
            };
            let mut kind = kind;
            let mut len = len;
            if let Answer::Read(request) = answer {
                let wanted = request.wanted(Access::READ);
                let (part, part_len) = (request.part, request.len);
                match self
                    .windows
                    .reach(link, &request.remote, wanted, part, part_len)
                {
                    Ok(reach) => reach.put_into(ring, position, How::Cached),
                    Err(_) => {
                        kind = DENIED;
                        len = 0;
                    }
                }
            }
            self.service.answers.pop_front();
            self.service.last_given += 1;
            self.service
                .out
                .publish(ring, kind, len, self.service.last_given);
            moved.wake |= reason::ANSWER;
            if kind == DENIED {
                self.service.denied = true;
                self.service.answers.clear();
                return Err(Fault::PeerDenied);
            }
        }
        Ok(())
    }

    // ---- initiator -----------------------------------------------------------------------

    /// Asks for the transfers in order, as long as there is room and `WINDOW` allows.
    pub(super) fn ask(&mut self, link: &Link, moved: &mut Moved) -> Result<(), Fault> {
        let ring = link.outgoing(Lane::Service);
        for transfer in &mut self.transfers {
            while !transfer.all_asked {
                if self.service.asked.len() >= WINDOW || self.service.stopped {
                    return Ok(());
                }
                let len = (transfer.len - transfer.asked).min(PART);
                let data = if transfer.read { 0 } else { len };
                let room = self.service.out.reserve(ring, REQUEST_LEN + data)?;
                let Some(position) = room else { return Ok(()) };
                let request = Request {
                    remote: transfer.remote,
                    start: transfer.offset,
                    total: transfer.len as u64,
                    part: transfer.asked as u64,
                    len,
                };
                ring.fill_from(position, &request.to_bytes());
                let behind = position + REQUEST_LEN as u64;
                gather(
                    &transfer.spans,
                    transfer.asked,
                    data,
                    ring,
                    behind,
                    How::Cached,
                );
                let kind = if transfer.read { ASK_READ } else { ASK_WRITE };
                self.service.last_asked += 1;
                self.service
                    .out
                    .publish(ring, kind, REQUEST_LEN + data, self.service.last_asked);
                self.service.asked.push_back(len);
                transfer.asked += len;
                transfer.all_asked = transfer.asked == transfer.len;
                moved.wake |= reason::REQUEST;
            }
        }
        Ok(())
    }

    /// The length of the request that `record` answers.
    fn check_answer(&mut self, record: Record) -> Result<usize, Broken> {
        let asked = self.service.asked.pop_front().ok_or(Broken)?;
        self.service.last_answered += 1;
        if record.second != self.service.last_answered {
            Err(Broken)
        } else {
            Ok(asked)
        }
    }

    fn take_answer(
        &mut self,
        link: &Link,
        counts: &Counts,
        record: Record,
        moved: &mut Moved,
    ) -> Result<(), Fault> {
        let asked = self.check_answer(record)?;
        let first = self.transfers.front_mut().ok_or(Fault::Broken)?;
        let data = if first.read { asked } else { 0 };
        if record.len != data || asked > first.len - first.moved {
            return Err(Fault::Broken);
        }
        scatter(
            &first.spans,
            first.moved,
            data,
            link.incoming(Lane::Service),
            record.payload,
        );
        first.moved += asked;
        if first.all_asked && first.moved == first.len {
            self.end_first(counts, moved);
        }
        Ok(())
    }

    /// Whether `ask` or `answer` would put something into the ring.
    pub(super) fn could_ask(&mut self, link: &Link) -> bool {
        let waits = self.transfers.iter().any(|transfer| !transfer.all_asked);
        waits
            && self.service.asked.len() < WINDOW
            && self
                .service
                .out
                .reserve(link.outgoing(Lane::Service), REQUEST_LEN + PART)
                != Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(part: u64, len: usize, total: u64) -> Request {
        let remote = Descriptor {
            rights: Access::READ,
            slot: 3,
            generation: 4,
            len: 5,
            nonce: 6,
        };
        Request {
            remote,
            start: 7,
            total,
            part,
            len,
        }
    }

    #[test]
    fn a_request_comes_back_as_it_was() {
        let request = request(1 << 40, PART, 1 << 41);
        assert_eq!(Request::parse(&request.to_bytes()), Some(request));
    }

    #[test]
    fn a_part_outside_its_whole_or_too_long_is_no_request() {
        for bad in [
            request(1, 10, 10),
            request(u64::MAX, 10, 10),
            request(0, PART + 1, 1 << 30),
        ] {
            assert_eq!(Request::parse(&bad.to_bytes()), None);
        }
    }
}
