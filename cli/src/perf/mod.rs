//! `wsdirect perf`: what the SAN path costs and carries, beside TCP and Unix sockets.
//!
//! Every transport is driven by the same code with the same buffers ([`mod@line`]), in the same run,
//! taking turns in every round; so ratios hold even where absolute figures wander.

mod client;
mod command;
mod line;
mod report;
mod server;
mod stats;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use crate::args;
use crate::failure::Failure;
use crate::link;
use crate::output;

/// Serves, measures against a server, or both in two processes.
pub(crate) fn perf(args: &args::Perf) -> Result<(), Failure> {
    if let Some(at) = &args.listen {
        return server::serve(at, args);
    }
    let result = match &args.connect {
        Some(to) => client::measure(to, args)?,
        None => {
            let server = OwnServer::start(args)?;
            let result = client::measure(&server.address, args)?;
            server.stop()?;
            result
        }
    };
    if !args.json
        && let Some(why) = result.gave_way()
    {
        link::note_gave_way(args.mode, why);
    }
    output::report(&result, args.json, false)
}

/// A server in a process of its own, for as long as this lives.
struct OwnServer {
    process: Child,
    address: String,
}

impl OwnServer {
    fn start(args: &args::Perf) -> Result<OwnServer, Failure> {
        let cannot = |error| Failure::caused("cannot start the server process", error);
        let mut process = std::env::current_exe()
            .and_then(|program| {
                std::process::Command::new(program)
                    .args([
                        "perf",
                        "--listen",
                        "127.0.0.1:0",
                        "--until-stdin-ends",
                        "--mode",
                    ])
                    .arg(args.mode.name())
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
            })
            .map_err(cannot)?;
        let mut line = String::new();
        if let Some(stdout) = process.stdout.take() {
            BufReader::new(stdout)
                .read_line(&mut line)
                .map_err(cannot)?;
        }
        match line.trim().strip_prefix(server::LISTENING) {
            Some(address) => Ok(OwnServer {
                address: address.to_owned(),
                process,
            }),
            None => {
                // It has said why on standard error.
                process.wait().ok();
                Err(Failure::new("the server process did not start"))
            }
        }
    }

    fn stop(mut self) -> Result<(), Failure> {
        drop(self.process.stdin.take());
        match self.process.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Failure::new(format!("the server process failed: {status}"))),
            Err(error) => Err(Failure::caused("cannot wait for the server process", error)),
        }
    }
}
