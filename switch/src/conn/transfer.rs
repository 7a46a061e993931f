//! The memory of large transfers: what is sent from, what is received into, and the RDMA under way.
//!
//! Owns registrations and exposures from the moment the session asks for them to the moment it
//! gives them up. Invariant: memory named by the session is here until the session has freed it;
//! nothing here decides when that is.

use wsd_proto::{Memory, PullId, RdmaId, SendId, TempId};

use crate::error::WsaError;
use crate::lent::{Access, Notice, Outcome, Posted};
use crate::memory::{Closed, Held, Remote, Shown, Space, Transfer};
use crate::socket::SanSocket;

const UNKNOWN: WsaError = WsaError(wsdirect::abi::WSAEINVAL);

/// A space with what the provider and the peer may do to it now.
pub(super) struct Lending {
    pub(super) space: Space,
    held: Option<Held>,
    shown: Option<Shown>,
}

impl Lending {
    pub(super) fn new(space: Space) -> Lending {
        Lending {
            space,
            held: None,
            shown: None,
        }
    }

    /// Whether the session has what it needs to begin the transfer.
    pub(super) fn is_prepared(&self) -> bool {
        self.held.is_some() || self.shown.is_some()
    }
}

/// An RDMA under way.
struct Flying {
    rdma: RdmaId,
    transfer: Transfer,
    /// Of a read, how many looks take it to its end if the provider copies by itself, at each look a
    /// piece.
    looks: Option<usize>,
}

/// Providers that copy do so in pieces of no less.
const PIECE: usize = 128 << 10;

/// Everything that is lent, by the session's names.
#[derive(Default)]
pub(super) struct Transfers {
    sends: Vec<(SendId, Lending)>,
    temps: Vec<(TempId, Lending)>,
    pulls: Vec<(PullId, Lending)>,
    flying: Vec<Flying>,
    spare: Vec<Transfer>,
    /// What the provider did not take back. Goes with the socket.
    stuck_held: Vec<Held>,
    stuck_shown: Vec<Shown>,
    pub(super) registrations: u64,
    /// The last read was over after a look for each of its pieces.
    at_once: bool,
}

fn find<K: PartialEq>(list: &mut [(K, Lending)], key: K) -> Option<&mut Lending> {
    list.iter_mut()
        .find(|(known, _)| *known == key)
        .map(|(_, lending)| lending)
}

fn take<K: PartialEq>(list: &mut Vec<(K, Lending)>, key: K) -> Option<Lending> {
    let place = list.iter().position(|(known, _)| *known == key)?;
    Some(list.remove(place).1)
}

impl Transfers {
    pub(super) fn add_send(&mut self, id: SendId, space: Space) {
        self.sends.push((id, Lending::new(space)));
    }

    pub(super) fn send(&self, id: SendId) -> Option<&Lending> {
        self.sends
            .iter()
            .find(|(known, _)| *known == id)
            .map(|(_, lending)| lending)
    }

    /// Bytes of sends that are not over.
    pub(super) fn send_bytes(&self) -> usize {
        self.sends
            .iter()
            .map(|(_, lending)| lending.space.len())
            .sum()
    }

    pub(super) fn send_count(&self) -> usize {
        self.sends.len()
    }

    pub(super) fn has_sends(&self) -> bool {
        !self.sends.is_empty()
    }

    pub(super) fn add_pull(&mut self, id: PullId, space: Space) {
        self.pulls.push((id, Lending::new(space)));
    }

    pub(super) fn temp(&self, id: TempId) -> Option<&Space> {
        self.temps
            .iter()
            .find(|(known, _)| *known == id)
            .map(|(_, lending)| &lending.space)
    }

    fn lending(&mut self, memory: Memory) -> Option<&mut Lending> {
        match memory {
            Memory::Send(id) => find(&mut self.sends, id),
            Memory::Temp(id) => find(&mut self.temps, id),
            Memory::Application(id) => find(&mut self.pulls, id),
        }
    }

    /// Temporary memory; registered at once where reads will go into it.
    pub(super) fn allocate(
        &mut self,
        socket: &SanSocket,
        id: TempId,
        len: usize,
        read: bool,
    ) -> Result<(), WsaError> {
        let space = Space::temporary(len).map_err(|_| WsaError(wsdirect::abi::WSAENOBUFS))?;
        self.temps.push((id, Lending::new(space)));
        let registered = match read {
            true => self.register(socket, Memory::Temp(id), Access::Write, (0, len)),
            false => Ok(()),
        };
        if registered.is_err() {
            drop(take(&mut self.temps, id));
        }
        registered
    }

    pub(super) fn register(
        &mut self,
        socket: &SanSocket,
        memory: Memory,
        access: Access,
        (offset, len): (usize, usize),
    ) -> Result<(), WsaError> {
        self.registrations += 1;
        let lending = self.lending(memory).ok_or(UNKNOWN)?;
        lending.held = Some(lending.space.register(socket, access, offset, len)?);
        Ok(())
    }

    /// Lets the peer reach a part of the memory; the descriptor says which.
    pub(super) fn expose(
        &mut self,
        socket: &SanSocket,
        memory: Memory,
        access: Access,
        (offset, len): (usize, usize),
    ) -> Result<&[u8], WsaError> {
        self.registrations += 1;
        let lending = self.lending(memory).ok_or(UNKNOWN)?;
        let shown = lending.space.expose(socket, access, offset, len)?;
        Ok(lending.shown.insert(shown).descriptor())
    }

    /// `false` if the provider did not let go: the connection cannot go on then.
    #[must_use]
    pub(super) fn deregister(&mut self, socket: &SanSocket, memory: Memory) -> bool {
        let Some(held) = self.lending(memory).and_then(|lending| lending.held.take()) else {
            return true;
        };
        match held.release(socket) {
            Ok(()) => true,
            Err((held, error)) => {
                tracing::warn!(%error, "the provider keeps a registration");
                self.stuck_held.push(held);
                false
            }
        }
    }

    /// `false` if the provider did not let go: the connection cannot go on then.
    #[must_use]
    pub(super) fn conceal(&mut self, socket: &SanSocket, memory: Memory) -> bool {
        let Some(shown) = self
            .lending(memory)
            .and_then(|lending| lending.shown.take())
        else {
            return true;
        };
        match shown.release(socket) {
            Ok(()) => true,
            Err((shown, error)) => {
                tracing::warn!(%error, "the provider keeps memory exposed");
                self.stuck_shown.push(shown);
                false
            }
        }
    }

    /// The session is through with this memory. As for `deregister`.
    #[must_use]
    pub(super) fn free(&mut self, socket: &SanSocket, memory: Memory) -> bool {
        let concealed = self.conceal(socket, memory);
        let released = self.deregister(socket, memory) && concealed;
        match memory {
            Memory::Send(id) => drop(take(&mut self.sends, id)),
            Memory::Temp(id) => drop(take(&mut self.temps, id)),
            Memory::Application(id) => drop(take(&mut self.pulls, id)),
        }
        released
    }

    /// Starts an RDMA; `true` if it is over already.
    pub(super) fn start(
        &mut self,
        socket: &SanSocket,
        rdma: RdmaId,
        memory: Memory,
        span: (usize, usize),
        remote: Remote<'_>,
        notice: Notice,
    ) -> Result<bool, WsaError> {
        let mut transfer = self
            .spare
            .pop()
            .unwrap_or_else(|| Transfer::new(socket.op()));
        let reads = !matches!(memory, Memory::Send(_));
        let lending = self.lending(memory).ok_or(UNKNOWN)?;
        let held = lending.held.as_ref().ok_or(UNKNOWN)?;
        match transfer.start(socket, &lending.space, held, span, remote, notice)? {
            Posted::Done(_) => {
                self.at_once |= reads;
                self.spare.push(transfer);
                Ok(true)
            }
            Posted::Pending => {
                self.flying.push(Flying {
                    rdma,
                    transfer,
                    looks: reads.then(|| 1 + span.1.div_ceil(PIECE)),
                });
                Ok(false)
            }
        }
    }

    /// Whether the peer can reach any of it now.
    pub(super) fn is_exposed(&self) -> bool {
        self.sends
            .iter()
            .any(|(_, lending)| lending.shown.is_some())
            || self
                .temps
                .iter()
                .any(|(_, lending)| lending.shown.is_some())
    }

    /// Whether a read may be expected to be over as soon as it is begun, as with a provider that
    /// copies by itself. Never of what the peer has to do: a call that may not wait would wait for
    /// it.
    pub(super) fn is_at_once(&self) -> bool {
        self.at_once
    }

    pub(super) fn is_flying(&self) -> bool {
        !self.flying.is_empty()
    }

    /// The first RDMA that is over, and how it ended. req: SEED-13
    pub(super) fn landed(&mut self, socket: &SanSocket) -> Option<(RdmaId, Result<(), WsaError>)> {
        let mut ended = None;
        for (place, flying) in self.flying.iter_mut().enumerate() {
            ended = match flying.transfer.result(socket) {
                Outcome::Pending => {
                    if let Some(looks) = &mut flying.looks {
                        *looks = looks.saturating_sub(1);
                        self.at_once &= *looks > 0;
                    }
                    continue;
                }
                Outcome::Done(_) => Some((place, Ok(()))),
                Outcome::Failed(error) => Some((place, Err(error))),
            };
            break;
        }
        let (place, result) = ended?;
        let Flying {
            rdma,
            transfer,
            looks,
        } = self.flying.remove(place);
        if result.is_ok() {
            self.at_once = looks.map_or(self.at_once, |looks| looks > 0);
            self.spare.push(transfer);
        }
        Some((rdma, result))
    }

    /// After the socket has been closed: lets go of everything, and names the RDMA that was flushed.
    pub(super) fn forget(&mut self, closed: &Closed) -> Vec<RdmaId> {
        let mut held = std::mem::take(&mut self.stuck_held);
        let mut shown = std::mem::take(&mut self.stuck_shown);
        let sends = self.sends.iter_mut().map(|(_, lending)| lending);
        let temps = self.temps.iter_mut().map(|(_, lending)| lending);
        let pulls = self.pulls.iter_mut().map(|(_, lending)| lending);
        for lending in sends.chain(temps).chain(pulls) {
            held.extend(lending.held.take());
            shown.extend(lending.shown.take());
        }
        held.into_iter().for_each(|held| held.forget(closed));
        shown.into_iter().for_each(|shown| shown.forget(closed));
        self.spare.clear();
        let flushed = self.flying.drain(..).map(|flying| {
            flying.transfer.forget(closed);
            flying.rdma
        });
        flushed.collect()
    }
}
