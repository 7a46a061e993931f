//! `wsdirect ss`: the live connections of this user's processes.

use std::io::{self, IsTerminal};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use wsd_switch::observe::{self, Live, Process, Unreadable};

use super::table::{Align, render};
use super::{print, time_of_day};
use crate::args;
use crate::failure::Failure;
use crate::units::Short;

/// The form of the JSON; changes with any change that a reader of the one before would notice.
const JSON_VERSION: u32 = 1;

/// Prints the connections, once or again and again.
pub(crate) fn ss(args: &args::Ss) -> Result<(), Failure> {
    let screen = args.watch.is_some() && !args.json && io::stdout().is_terminal();
    loop {
        let report = Report::look(&args.pids)?;
        let mut text = match (args.json, args.watch) {
            (true, None) => serde_json::to_string_pretty(&report),
            // One object to a line, for who reads as it comes.
            (true, Some(_)) => serde_json::to_string(&report),
            (false, _) => Ok(report.table()),
        }
        .map_err(|error| Failure::caused("cannot print the report", error.into()))?;
        if args.json {
            text.push('\n');
        }
        match (screen, args.watch) {
            // Up to the left, the new text, and nothing of the old one below it.
            (true, _) => text = format!("\x1b[H\x1b[2J{}\n{text}", heading()),
            (false, Some(_)) if !args.json => text = format!("{}\n{text}\n", heading()),
            _ => {}
        }
        let read = print(&text)?;
        let Some(pause) = args.watch.filter(|_| read) else {
            return report.verdict(&args.pids);
        };
        std::thread::sleep(pause);
    }
}

fn heading() -> String {
    let time = time_of_day(SystemTime::now());
    let (time, _) = time.split_once('.').unwrap_or((&time, ""));
    format!("{time} UTC")
}

#[derive(Serialize)]
struct Report {
    version: u32,
    connections: Vec<Connection>,
    /// Connections that found no place to be shown.
    unobserved: u64,
    unreadable: Vec<Closed>,
}

#[derive(Serialize)]
struct Closed {
    pid: u32,
    error: String,
}

#[derive(Serialize)]
struct Connection {
    pid: u32,
    program: String,
    id: u64,
    fd: Option<i32>,
    role: &'static str,
    local: Option<String>,
    peer: Option<String>,
    path: &'static str,
    provider: Option<String>,
    upgrade: &'static str,
    upgrades: u64,
    downgrades: u64,
    reason: Option<String>,
    session: Option<String>,
    started: f64,
    bytes: Bytes,
    messages: Both,
    rdma: Rdma,
    credits: Credits,
    rtt_us: Option<RoundTrip>,
    stalls: u64,
    unread: u64,
    unsent: u64,
}

#[derive(Serialize)]
struct Bytes {
    san: Both,
    kernel: Both,
}

#[derive(Serialize)]
struct Both {
    sent: u64,
    received: u64,
}

#[derive(Serialize)]
struct Rdma {
    reads: u64,
    read_bytes: u64,
    writes: u64,
    write_bytes: u64,
    large_sent: u64,
    large_received: u64,
}

#[derive(Serialize)]
struct Credits {
    send: u32,
    granted: u32,
}

#[derive(Serialize)]
struct RoundTrip {
    smoothed: f64,
    least: f64,
    samples: u64,
}

impl Report {
    fn look(pids: &[u32]) -> Result<Report, Failure> {
        let (found, unreadable) = match pids {
            [] => observe::all().map_err(|error| Failure::caused("cannot read /proc", error))?,
            pids => observe::processes(pids),
        };
        Ok(Report {
            version: JSON_VERSION,
            unobserved: found.iter().map(|process| process.unobserved).sum(),
            connections: found.into_iter().flat_map(connections).collect(),
            unreadable: unreadable.iter().map(Closed::from).collect(),
        })
    }

    fn table(&self) -> String {
        const HEADINGS: [(&str, Align); 15] = [
            ("PROCESS", Align::Left),
            ("PID", Align::Right),
            ("FD", Align::Right),
            ("ID", Align::Right),
            ("LOCAL", Align::Left),
            ("PEER", Align::Left),
            ("PATH", Align::Left),
            ("SAN-SENT", Align::Right),
            ("SAN-RECV", Align::Right),
            ("TCP-SENT", Align::Right),
            ("TCP-RECV", Align::Right),
            ("CREDITS", Align::Right),
            ("RTT", Align::Right),
            ("UPGRADE", Align::Left),
            ("REASON", Align::Left),
        ];
        let rows: Vec<_> = self.connections.iter().map(Connection::row).collect();
        let mut text = match rows.is_empty() {
            true => "no connections\n".to_owned(),
            false => render(HEADINGS, &rows),
        };
        if self.unobserved > 0 {
            text.push_str(&format!(
                "{} more could not be shown so far: their processes had no place for them\n",
                self.unobserved
            ));
        }
        for Closed { pid, error } in &self.unreadable {
            text.push_str(&format!("process {pid} cannot be read: {error}\n"));
        }
        text
    }

    /// A process that was asked for by number must be one that can be looked at.
    fn verdict(&self, pids: &[u32]) -> Result<(), Failure> {
        match (pids, &self.unreadable[..]) {
            ([], _) | (_, []) => Ok(()),
            (_, [Closed { pid, error }, ..]) => Err(Failure::new(format!(
                "process {pid} cannot be read: {error}"
            ))
            .advise("only your own running processes can be looked at")),
        }
    }
}

impl From<&Unreadable> for Closed {
    fn from(from: &Unreadable) -> Closed {
        Closed {
            pid: from.pid,
            error: match from.error.kind() {
                io::ErrorKind::NotFound => "there is no such process".to_owned(),
                io::ErrorKind::PermissionDenied => "it is not yours".to_owned(),
                _ => from.error.to_string(),
            },
        }
    }
}

fn connections(process: Process) -> impl Iterator<Item = Connection> {
    let Process {
        pid,
        program,
        connections,
        ..
    } = process;
    connections
        .into_iter()
        .map(move |live| Connection::new(pid, &program, live))
}

impl Connection {
    fn new(pid: u32, program: &str, live: Live) -> Connection {
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let since = live.started.duration_since(UNIX_EPOCH);
        Connection {
            pid,
            program: program.to_owned(),
            id: live.id,
            fd: live.fd,
            role: live.role.code(),
            local: live.local.map(|at| at.to_string()),
            peer: live.peer.map(|at| at.to_string()),
            path: live.path.code(),
            provider: text(live.provider),
            upgrade: live.upgrade.code(),
            upgrades: live.upgrades,
            downgrades: live.downgrades,
            reason: text(live.reason),
            session: live.session.map(hex),
            started: since.unwrap_or_default().as_secs_f64(),
            bytes: Bytes {
                san: Both {
                    sent: live.san_sent,
                    received: live.san_received,
                },
                kernel: Both {
                    sent: live.kernel_sent,
                    received: live.kernel_received,
                },
            },
            messages: Both {
                sent: live.messages_sent,
                received: live.messages_received,
            },
            rdma: Rdma {
                reads: live.rdma_reads,
                read_bytes: live.rdma_read_bytes,
                writes: live.rdma_writes,
                write_bytes: live.rdma_write_bytes,
                large_sent: live.large_sent,
                large_received: live.large_received,
            },
            credits: Credits {
                send: live.credits,
                granted: live.credits_granted,
            },
            rtt_us: live
                .rtt
                .zip(live.rtt_least)
                .map(|(smoothed, least)| RoundTrip {
                    smoothed: micros(smoothed),
                    least: micros(least),
                    samples: live.rtt_samples,
                }),
            stalls: live.stalls,
            unread: live.unread,
            unsent: live.unsent,
        }
    }

    fn row(&self) -> [String; 15] {
        let dash = || "-".to_owned();
        let path = match (self.path, &self.provider) {
            ("kernel", _) => "tcp".to_owned(),
            ("both", Some(provider)) => format!("tcp+{provider}"),
            (_, Some(provider)) => provider.clone(),
            (path, None) => path.to_owned(),
        };
        let has_session = self.session.is_some();
        let bytes = |count: u64| Short(count).to_string();
        [
            self.program.clone(),
            self.pid.to_string(),
            self.fd.map_or_else(dash, |fd| fd.to_string()),
            self.id.to_string(),
            self.local.clone().unwrap_or_else(dash),
            self.peer.clone().unwrap_or_else(dash),
            path,
            bytes(self.bytes.san.sent),
            bytes(self.bytes.san.received),
            bytes(self.bytes.kernel.sent),
            bytes(self.bytes.kernel.received),
            match has_session {
                true => format!("{}/{}", self.credits.send, self.credits.granted),
                false => dash(),
            },
            self.rtt_us
                .as_ref()
                .map_or_else(dash, |rtt| format!("{:.1}us", rtt.smoothed)),
            self.upgrade.to_owned(),
            self.reason.clone().unwrap_or_else(dash),
        ]
    }
}

fn hex(id: [u8; 16]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsd_switch::observe::Path;

    #[test]
    fn nothing_found_is_said_and_is_no_failure() {
        let report = Report {
            version: JSON_VERSION,
            connections: Vec::new(),
            unobserved: 0,
            unreadable: Vec::new(),
        };
        assert_eq!(report.table(), "no connections\n");
        assert!(report.verdict(&[]).is_ok() && report.verdict(&[1]).is_ok());
    }

    #[test]
    fn a_process_that_was_asked_for_and_cannot_be_read_is_a_failure() {
        let none = Report::look(&[u32::MAX]).unwrap();
        assert!(none.table().contains("there is no such process"));
        assert!(none.verdict(&[u32::MAX]).is_err());
    }

    #[test]
    fn the_paths_have_the_words_that_the_table_knows() {
        assert_eq!(
            [Path::Kernel, Path::San, Path::Both].map(Path::code),
            ["kernel", "san", "both"]
        );
    }
}
