//! `wsdirect info`: what is there, what it can do, and why something is absent.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;
use wsd_switch::{Capabilities, ProviderInfo, Switch};

use crate::args;
use crate::devices::{self, Devices};
use crate::failure::Failure;
use crate::output;
use crate::warnings;

/// Prints what there is.
pub(crate) fn info(args: &args::Info) -> Result<(), Failure> {
    let found = Switch::global().info();
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        all_tcp_because: found.reason.map(|reason| reason.to_string()),
        providers: found.providers.into_iter().map(Provider::from).collect(),
        rdma_devices: devices::find(),
        environment: settings(),
    };
    output::report(&report, args.json, false)
}

/// The variables of the environment that change something, as they are set; with a remark at those
/// that were not understood, which the providers and the switch have told by now.
fn settings() -> Vec<String> {
    let mut set: Vec<String> = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
        .filter(|(name, _)| name.starts_with("WSD_"))
        .map(|(name, value)| {
            let remark = match warnings::is_ignored(&name) {
                true => " (not understood; the default is used)",
                false => "",
            };
            format!("{name}={}{remark}", value.to_string_lossy())
        })
        .collect();
    set.sort();
    set
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    all_tcp_because: Option<String>,
    providers: Vec<Provider>,
    rdma_devices: Devices,
    environment: Vec<String>,
}

#[derive(Serialize)]
struct Provider {
    name: String,
    source: String,
    #[serde(flatten)]
    state: State,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase", tag = "state")]
enum State {
    Usable(Limits),
    Unusable { reason: String },
}

#[derive(Serialize)]
struct Limits {
    addresses: Vec<IpAddr>,
    rdma_read: bool,
    arm_completion: bool,
    keeps_registrations: bool,
    max_message: Option<u32>,
    max_rdma: Option<u32>,
    rdma_threshold: Option<u32>,
}

impl From<ProviderInfo> for Provider {
    fn from(info: ProviderInfo) -> Provider {
        let ProviderInfo {
            name,
            source,
            state,
            ..
        } = info;
        let state = match state {
            Ok(Capabilities {
                addresses,
                rdma_read,
                arm_completion,
                keeps_registrations,
                max_message,
                max_rdma,
                rdma_threshold,
                ..
            }) => State::Usable(Limits {
                addresses,
                rdma_read,
                arm_completion,
                keeps_registrations,
                max_message,
                max_rdma,
                rdma_threshold,
            }),
            Err(reason) => State::Unusable { reason },
        };
        Provider {
            name,
            source: source.to_string(),
            state,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "wsdirect {}", self.version)?;
        if let Some(reason) = &self.all_tcp_because {
            writeln!(f, "everything goes over TCP: {reason}")?;
        }
        for provider in &self.providers {
            writeln!(f, "\nprovider {} ({})", provider.name, provider.source)?;
            match &provider.state {
                State::Usable(limits) => write!(f, "{limits}")?,
                State::Unusable { reason } => writeln!(f, "  not usable: {reason}")?,
            }
        }
        writeln!(f, "\nRDMA devices")?;
        write!(f, "{}", self.rdma_devices)?;
        if !self.environment.is_empty() {
            write!(f, "\n\nenvironment\n  {}", self.environment.join("\n  "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
        let limit = |bytes: Option<u32>| bytes.map_or("no limit".to_owned(), |b| format!("{b} B"));
        writeln!(f, "  addresses        {}", addresses.join(", "))?;
        writeln!(f, "  largest message  {}", limit(self.max_message))?;
        writeln!(f, "  largest RDMA     {}", limit(self.max_rdma))?;
        writeln!(f, "  RDMA from        {}", limit(self.rdma_threshold))?;
        let read = if self.rdma_read {
            "yes: receivers pull large data"
        } else {
            "no: senders push large data"
        };
        writeln!(f, "  RDMA read        {read}")?;
        let sleep = if self.arm_completion {
            "on a descriptor (WSPArmCompletion)"
        } else {
            "through upcalls (the provider has no WSPArmCompletion)"
        };
        writeln!(f, "  waiting          {sleep}")?;
        let memory = if self.keeps_registrations {
            "stays registered until it goes away (WSD_REG_CACHE)"
        } else {
            "is registered for each use; nothing is kept"
        };
        writeln!(f, "  memory           {memory}")
    }
}
