//! A socket: from its creation to its close.
//!
//! Owns the stage that a socket is in and what that permits. What is done on the connection is
//! `link`'s, what comes in on a listening socket `listener`'s. Invariant: a socket whose number was
//! taken out of the table is closed by whoever took it out, and by nobody else.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::Provider;
use super::error::{
    BindError, ConnectError, ConnectFailure, LookupError, SocketError, TransferError,
};
use super::events::{Interest, NetworkEvents, Record};
use super::handles::{Handle, Table};
use super::link::{Link, Surroundings};
use super::listener::Listening;
use super::options::Options;
use super::outlet::{EventObject, Outlet, Switch};
use crate::fabric::{Endpoint, Token};

/// Every socket of the process.
pub(crate) static TABLE: Table<Socket> = Table::new();

/// The address family of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    fn of(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(_) => Self::V6,
        }
    }
}

pub(crate) enum Stage {
    Created,
    Bound(SocketAddr),
    Listening(Listening),
    Connecting {
        endpoint: Arc<dyn Endpoint>,
        from: SocketAddr,
    },
    /// The link is set; also after the connection has ended.
    Connected,
    Closed,
}

pub(crate) struct Socket {
    handle: Handle,
    provider: Arc<Provider>,
    pub(crate) outlet: Arc<Outlet>,
    family: Family,
    catalog: u32,
    /// Held while the stage changes and while the fabric begins to listen or to connect, never
    /// across an upcall.
    pub(crate) stage: Mutex<Stage>,
    link: OnceLock<Link>,
    pub(crate) events: NetworkEvents,
    pub(crate) options: Options,
}

impl Socket {
    fn new(
        handle: Handle,
        provider: Arc<Provider>,
        switch: Arc<dyn Switch>,
        family: Family,
        catalog: u32,
        stage: Stage,
        options: Options,
    ) -> Self {
        Self {
            handle,
            provider,
            outlet: Arc::new(Outlet::new(switch)),
            family,
            catalog,
            stage: Mutex::new(stage),
            link: OnceLock::new(),
            events: NetworkEvents::default(),
            options,
        }
    }

    /// Makes a socket and obtains the switch's socket for it.
    pub(crate) fn open(
        provider: Arc<Provider>,
        switch: Arc<dyn Switch>,
        family: Family,
        catalog: u32,
    ) -> Result<Arc<Self>, SocketError> {
        let socket = TABLE
            .insert_with(|handle| {
                Arc::new(Self::new(
                    handle,
                    provider,
                    switch,
                    family,
                    catalog,
                    Stage::Created,
                    Options::default(),
                ))
            })
            .ok_or(SocketError::NoResources)?;
        // req: WSD-03, exactly one upcall for each socket.
        if let Err(code) = socket.outlet.open(catalog, socket.handle) {
            socket.discard();
            return Err(SocketError::NoSwitchSocket(code));
        }
        Ok(socket)
    }

    /// A socket like this one, for an accepted request.
    pub(crate) fn child(&self, handle: Handle, stage: Stage) -> Self {
        Self::new(
            handle,
            Arc::clone(&self.provider),
            Arc::clone(&self.outlet.switch),
            self.family,
            self.catalog,
            stage,
            self.options.inherited(),
        )
    }

    pub(crate) fn find(handle: Handle) -> Result<Arc<Self>, LookupError> {
        TABLE.get(handle).ok_or(LookupError::NoSuchSocket)
    }

    /// Uses a socket without counting a reference. It cannot be closed meanwhile: `run` makes no
    /// upcall and does not wait.
    #[inline]
    pub(crate) fn with<R>(handle: Handle, run: impl FnOnce(&Self) -> R) -> Result<R, LookupError> {
        TABLE
            .with(handle, |socket| run(socket))
            .ok_or(LookupError::NoSuchSocket)
    }

    pub(crate) fn family(&self) -> Family {
        self.family
    }

    /// Names the event to set when something in `interest` happens.
    pub(crate) fn select_events(&self, event: Option<EventObject>, interest: Interest) {
        self.events.select(&self.outlet, event, interest);
    }

    /// Takes out what happened and resets `event`.
    pub(crate) fn take_events(&self, event: Option<EventObject>) -> Record {
        self.events.take(&self.outlet, event)
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle
    }

    pub(crate) fn provider(&self) -> &Arc<Provider> {
        &self.provider
    }

    pub(crate) fn catalog(&self) -> u32 {
        self.catalog
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(*self.stage.lock(), Stage::Closed)
    }

    /// The connection, once there is one.
    #[inline]
    pub(crate) fn link(&self) -> Result<&Link, TransferError> {
        self.link.get().ok_or(TransferError::NotConnected)
    }

    pub(crate) fn bind(&self, address: SocketAddr) -> Result<(), BindError> {
        if Family::of(address) != self.family {
            return Err(BindError::WrongFamily);
        }
        let mut stage = self.stage.lock();
        match *stage {
            Stage::Created => {}
            Stage::Closed => return Err(BindError::Closed),
            _ => return Err(BindError::AlreadyBound),
        }
        if !address.ip().is_unspecified() && !self.provider.serves(address.ip()) {
            return Err(BindError::ForeignAddress);
        }
        *stage = Stage::Bound(address);
        drop(stage);
        Ok(())
    }

    /// Begins to connect; the outcome is recorded as an event.
    pub(crate) fn connect(&self, to: SocketAddr) -> Result<(), ConnectError> {
        let mut stage = self.stage.lock();
        let from = match &*stage {
            Stage::Created => return Err(ConnectError::NotBound),
            Stage::Listening(_) => return Err(ConnectError::Listening),
            Stage::Connecting { .. } => return Err(ConnectError::InProgress),
            Stage::Connected => return Err(ConnectError::Connected),
            Stage::Closed => return Err(ConnectError::Closed),
            Stage::Bound(from) => *from,
        };
        if Family::of(to) != self.family {
            return Err(ConnectError::WrongFamily);
        }
        if to.ip().is_unspecified() || to.port() == 0 {
            return Err(ConnectError::NoDestination);
        }
        if from.ip().is_unspecified() {
            return Err(ConnectError::Wildcard);
        }
        self.provider.start_progress().map_err(|error| {
            tracing::error!(%error, "cannot start the progress thread");
            ConnectError::NoResources
        })?;
        // Under the lock: the outcome may come before this returns, and then waits for the stage.
        let endpoint = self
            .provider
            .fabric()
            .connect(Token(self.handle.raw()), from, to)
            .map_err(|error| match error {
                ConnectFailure::NoResources => ConnectError::NoResources,
                other => ConnectError::Failed(other),
            })?;
        *stage = Stage::Connecting { endpoint, from };
        drop(stage);
        Ok(())
    }

    /// The attempt to connect has ended.
    pub(crate) fn connect_ended(&self, outcome: Result<(), ConnectFailure>) {
        {
            let mut stage = self.stage.lock();
            let Stage::Connecting { endpoint, from } = &*stage else {
                return;
            };
            match outcome {
                Ok(()) => {
                    let endpoint = Arc::clone(endpoint);
                    self.set_link(endpoint);
                    *stage = Stage::Connected;
                }
                Err(_) => *stage = Stage::Bound(*from),
            }
        }
        // req: WSD-08, the outcome stands in the record before the event is set.
        self.events
            .record(&self.outlet, |record| record.connect = Some(outcome));
    }

    /// The socket was made for an accepted request, which has become this endpoint.
    pub(crate) fn connected_by(&self, endpoint: Arc<dyn Endpoint>) {
        let mut stage = self.stage.lock();
        if matches!(*stage, Stage::Closed) {
            // The last cleanup has closed it in between.
            drop(stage);
            endpoint.disconnect();
            return;
        }
        self.set_link(endpoint);
        *stage = Stage::Connected;
    }

    fn set_link(&self, endpoint: Arc<dyn Endpoint>) {
        let provider = &self.provider;
        tracing::debug!(
            fabric = provider.fabric().name(),
            rdma = endpoint.rdma_path(),
            "connected"
        );
        let link = Link::new(
            endpoint,
            Surroundings {
                socket: self.handle,
                outlet: Arc::clone(&self.outlet),
                progress: Arc::clone(provider.progress()),
                system: Arc::clone(provider.system()),
                caps: provider.caps().clone(),
                queue_depth: provider.config().queue_depth,
                spin: provider.config().spin,
            },
        );
        if self.link.set(link).is_err() {
            tracing::error!("a socket was connected twice");
        }
    }

    /// Takes the socket out of the table and closes it. Of several callers one does.
    pub(crate) fn close_by_handle(handle: Handle) -> Result<(), LookupError> {
        let socket = TABLE.get(handle).ok_or(LookupError::NoSuchSocket)?;
        if socket.provider.is_inherited() {
            // A child process has no sockets of its parent: closing would end the parent's.
            return Err(LookupError::NoSuchSocket);
        }
        TABLE
            .remove(handle)
            .ok_or(LookupError::NoSuchSocket)?
            .close();
        Ok(())
    }

    /// Closes a socket that nobody has seen yet.
    pub(crate) fn discard(&self) {
        if let Some(socket) = TABLE.remove(self.handle) {
            socket.close();
        }
    }

    /// Ends everything that is going on. The switch's socket goes back after the last upcall.
    pub(crate) fn close(&self) {
        let stage = std::mem::replace(&mut *self.stage.lock(), Stage::Closed);
        self.events.silence();
        match stage {
            // Stops listening and refuses what waits.
            Stage::Listening(listening) => drop(listening),
            Stage::Connecting { endpoint, .. } => endpoint.disconnect(),
            Stage::Created | Stage::Bound(_) | Stage::Connected | Stage::Closed => {}
        }
        // req: WSD-11, every operation in progress ends with its result, once.
        if let Some(link) = self.link.get() {
            link.shut();
        }
        self.outlet.close();
    }
}

impl Provider {
    /// Whether an address is one of this host's that the fabric serves.
    fn serves(&self, ip: IpAddr) -> bool {
        let addresses = self.fabric().addresses();
        addresses.contains(&ip)
            || ip.is_loopback()
                && addresses
                    .iter()
                    .any(|known| known.is_loopback() && known.is_ipv4() == ip.is_ipv4())
    }
}
