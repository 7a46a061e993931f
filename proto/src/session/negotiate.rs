//! The first two messages: what they say, and what both sides conclude.
//!
//! The connector speaks first. Afterwards either both sides have drawn the same conclusions, or the
//! connection ends with a reason.

use super::action::Action;
use super::config::{Config, MIN_BUFFER, MIN_KEEP_ALIVE, Peer, Role, SendMode};
use super::credit::MIN_RECEIVES;
use super::error::{Failure, ProtocolError, ResetReason};
use super::message::{CompanionInfo, HEADER, Message, Offer, Received};
use super::{Connection, Session};
use crate::time::Instant;

/// How far the negotiation is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// The connector's message is to be made, or awaited.
    Greeting,
    /// The connector waits for the answer.
    Awaiting,
    /// The driver of the acceptor decides about the companion.
    Deciding,
    /// The acceptor's answer is to be made.
    Answering,
    Done,
}

/// The highest version of both ranges.
fn common(one: (u8, u8), other: (u8, u8)) -> Option<u8> {
    let highest = one.1.min(other.1);
    (highest >= one.0.max(other.0)).then_some(highest)
}

/// What a side says about itself.
fn offer(
    config: &Config,
    versions: (u8, u8),
    session_id: [u8; 16],
    companion: Option<CompanionInfo>,
) -> Offer {
    let keep_alive = config
        .keep_alive
        .map_or(0, |interval| interval.as_millis().max(1));
    Offer {
        versions,
        rdma_read: config.rdma_read && config.max_rdma > 0,
        urgent: true,
        suspend: config.suspend,
        returns: config.returns,
        resumes: config.resumes,
        receive_buffers: config.receive_buffers,
        receive_buffer_size: config.receive_buffer_size,
        max_descriptor: u16::try_from(config.max_descriptor).unwrap_or(0),
        descriptor_len: u16::try_from(config.descriptor_len).unwrap_or(0),
        max_rdma: config.max_rdma,
        threshold: config.threshold,
        keep_alive_ms: u32::try_from(keep_alive).unwrap_or(u32::MAX),
        max_large: config.max_large,
        session_id,
        companion,
    }
}

/// What follows from both sides' words.
fn conclude(config: &Config, offer: &Offer, version: u8) -> Peer {
    let max_descriptor = usize::from(offer.max_descriptor);
    let descriptor_len = usize::from(offer.descriptor_len);
    let max_rdma = config.max_rdma.min(offer.max_rdma);
    let max_large = config.max_large.min(offer.max_large);
    let payload = offer.receive_buffer_size.min(config.max_message) - HEADER;
    let possible = max_rdma > 0 && max_large > 0;
    let can_expose = (1..=max_descriptor).contains(&config.descriptor_len);
    let peer_can_expose = (1..=config.max_descriptor).contains(&descriptor_len);
    // req: SEED-17 what the receiver's provider can do decides, unless this side was told to push
    let pushes = config.push && peer_can_expose;
    let send_mode = if possible && offer.rdma_read && can_expose && !pushes {
        SendMode::Read
    } else if possible && peer_can_expose {
        SendMode::Write
    } else {
        SendMode::MessagesOnly
    };
    let intervals = [config.keep_alive, offer.keep_alive()];
    Peer {
        version,
        rdma_read: offer.rdma_read,
        urgent: offer.urgent,
        suspend: config.suspend && offer.suspend,
        returns: config.returns && offer.returns,
        resumes: config.resumes && offer.resumes,
        receive_buffers: offer.receive_buffers,
        receive_buffer_size: offer.receive_buffer_size,
        max_descriptor,
        descriptor_len,
        max_rdma,
        threshold: config.threshold.max(offer.threshold),
        max_large,
        // A peer that wants one without a pause would keep both busy.
        keep_alive: intervals
            .into_iter()
            .flatten()
            .min()
            .map(|idle| idle.max(MIN_KEEP_ALIVE)),
        send_mode,
        payload,
    }
}

impl Session {
    /// The message of the negotiation that is due now.
    pub(super) fn poll_negotiation(&mut self) -> Option<Message> {
        match (self.stage, self.role) {
            (Stage::Greeting, Role::Connector) => {
                self.stage = Stage::Awaiting;
                let companion = self.config.companion;
                let versions = self.config.versions;
                let offer = offer(&self.config, versions, self.session_id, companion);
                Some(Message::Negotiate(offer))
            }
            (Stage::Answering, _) => {
                let version = self.peer.as_ref()?.version;
                self.stage = Stage::Done;
                self.effects.push_back(Action::Established);
                let companion = self.companion();
                let offer = offer(&self.config, (version, version), self.session_id, companion);
                Some(Message::Accepted(offer))
            }
            _ => None,
        }
    }

    /// A message that arrived before the negotiation was over.
    pub(super) fn negotiate(&mut self, received: &Received) -> Result<(), ProtocolError> {
        match (&received.message, self.stage, self.role) {
            (
                Message::Reset {
                    reason: ResetReason::VersionMismatch,
                },
                ..,
            ) => {
                self.fail(Failure::VersionMismatch, None);
                Ok(())
            }
            (Message::Reset { reason }, ..) => {
                self.fail(Failure::Reset(*reason), None);
                Ok(())
            }
            (Message::Negotiate(offer), Stage::Greeting, Role::Acceptor) => {
                self.take_offer(offer, received.credit)?;
                // req: COMP-01
                if offer.companion.is_some() != self.config.companion_wanted {
                    self.refuse();
                    return Ok(());
                }
                self.session_id = offer.session_id;
                if let Some(companion) = offer.companion {
                    self.stage = Stage::Deciding;
                    self.offered = Some(*offer);
                    self.effects.push_back(Action::CompanionOffered(companion));
                } else {
                    self.answer(offer);
                }
                Ok(())
            }
            (Message::Accepted(offer), Stage::Awaiting, Role::Connector) => {
                self.take_offer(offer, received.credit)?;
                let Some(version) = common(self.config.versions, offer.versions) else {
                    self.strangers();
                    return Ok(());
                };
                if offer.session_id != self.session_id {
                    return Err(ProtocolError::SessionId);
                }
                if offer.companion != self.config.companion {
                    return Err(ProtocolError::Companion);
                }
                self.stage = Stage::Done;
                self.agree(offer, version);
                self.effects.push_back(Action::Established);
                Ok(())
            }
            _ => Err(ProtocolError::Unexpected),
        }
    }

    /// The answer to [`Action::CompanionOffered`]: whether there is such a connection here and the
    /// session may carry its stream. If not, the peer is told so.
    pub fn answer_companion(&mut self, now: Instant, accept: bool) {
        self.now = now;
        if self.stage != Stage::Deciding || self.connection != Connection::Up {
            return;
        }
        match self.offered {
            Some(offer) if accept => self.answer(&offer),
            _ => self.refuse(),
        }
    }

    /// The connection whose stream this session carries, or is to carry, as the connector sees it.
    #[must_use]
    pub fn companion(&self) -> Option<CompanionInfo> {
        match self.role {
            Role::Connector => self.config.companion,
            Role::Acceptor => self.offered.and_then(|offer| offer.companion),
        }
    }

    fn refuse(&mut self) {
        let reason = ResetReason::NoSuchConnection;
        self.fail(Failure::NoSuchConnection, Some(reason));
    }

    /// No version is common to both sides.
    fn strangers(&mut self) {
        self.fail(Failure::VersionMismatch, Some(ResetReason::VersionMismatch));
    }

    /// The acceptor has nothing against the offer but, maybe, that it does not understand it.
    fn answer(&mut self, offer: &Offer) {
        match common(self.config.versions, offer.versions) {
            Some(version) => {
                self.stage = Stage::Answering;
                self.agree(offer, version);
            }
            None => self.strangers(),
        }
    }

    fn take_offer(&mut self, offer: &Offer, credit: u32) -> Result<(), ProtocolError> {
        let receives = MIN_RECEIVES..=u16::MAX.into();
        if !receives.contains(&offer.receive_buffers) || offer.receive_buffer_size < MIN_BUFFER {
            return Err(ProtocolError::Negotiation);
        }
        self.credits.set_peer_receives(offer.receive_buffers);
        self.credits.limit_received(credit)
    }

    fn agree(&mut self, offer: &Offer, version: u8) {
        if self.connection != Connection::Up {
            return;
        }
        let peer = conclude(&self.config, offer, version);
        self.alive.start(peer.keep_alive, self.now);
        self.send.decide(&peer);
        self.send.confirms_within(peer.receive_buffers);
        self.peer = Some(peer);
    }
}
