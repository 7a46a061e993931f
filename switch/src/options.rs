//! What a user may ask of a connection. Values only; who honours them is said at each.

use std::time::Duration;

/// How large data travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Mode {
    /// The receiver pulls where its provider can read, otherwise the sender pushes.
    #[default]
    Auto,
    /// As `Auto`; says that pulling is wanted.
    Read,
    /// The sender pushes, in both directions, also if only one side says so.
    Write,
    /// No SAN at all.
    Tcp,
}

/// How a blocking send of large data is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum SendPolicy {
    /// What fits in the send buffer is copied and sent in the background; of more than that, the
    /// part that would have to wait anyway is sent from the application's memory.
    #[default]
    Auto,
    /// Always from the application's memory: a send returns when the peer has the data.
    ZeroCopy,
    /// Always copied.
    Background,
}

/// Options of a connection, for connecting and for listening.
///
/// ```
/// use wsd_switch::{ConnectOptions, Mode};
/// let options = ConnectOptions::new().mode(Mode::Write).send_buffer(1 << 20);
/// assert_eq!(options.transfer_mode(), Mode::Write);
/// ```
#[derive(Clone, Debug)]
pub struct StreamOptions {
    pub(crate) mode: Mode,
    pub(crate) policy: SendPolicy,
    pub(crate) send_buffer: usize,
    pub(crate) receive_buffer: usize,
    pub(crate) keep_alive: Option<Duration>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) debug: bool,
}

/// Options for connecting.
pub type ConnectOptions = StreamOptions;

impl Default for StreamOptions {
    fn default() -> Self {
        StreamOptions {
            mode: Mode::Auto,
            policy: SendPolicy::Auto,
            send_buffer: 4 << 20,
            receive_buffer: 4 << 20,
            keep_alive: None,
            connect_timeout: None,
            debug: false,
        }
    }
}

impl StreamOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How large data travels.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// How blocking sends of large data are done.
    #[must_use]
    pub fn send_policy(mut self, policy: SendPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Bytes that sends may leave behind to be sent in the background.
    #[must_use]
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.send_buffer = bytes;
        self
    }

    /// Bytes that are taken from the peer before the application asks for them.
    #[must_use]
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = bytes;
        self
    }

    /// Idle time after which the peer is asked for a sign of life; without an answer the
    /// connection ends after as much time again. Over TCP it is SO_KEEPALIVE, in whole seconds.
    /// `None` relies on the fabric or the kernel, which tell of a dead process by themselves, but
    /// not of a host that vanishes.
    #[must_use]
    pub fn keep_alive(mut self, idle: Option<Duration>) -> Self {
        self.keep_alive = idle;
        self
    }

    /// Time for the whole of connecting.
    #[must_use]
    pub fn connect_timeout(mut self, time: Option<Duration>) -> Self {
        self.connect_timeout = time;
        self
    }

    /// SO_DEBUG on the SAN socket, for providers that know it.
    #[must_use]
    pub fn debug(mut self, on: bool) -> Self {
        self.debug = on;
        self
    }

    /// The mode asked for.
    #[must_use]
    pub fn transfer_mode(&self) -> Mode {
        self.mode
    }

    /// The time-out asked for.
    #[must_use]
    pub fn connect_timeout_value(&self) -> Option<Duration> {
        self.connect_timeout
    }
}
