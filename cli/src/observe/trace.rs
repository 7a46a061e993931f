//! `wsdirect trace`: the control messages of one connection as they go by.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use wsd_switch::observe::{self, Live, Process, Traced, Tracer};

use super::{print, time_of_day};
use crate::args;
use crate::failure::Failure;
use crate::output;

/// Between two looks for new messages.
const PAUSE: Duration = Duration::from_millis(5);
/// Looks without a message before the connection is looked for.
const PATIENCE: u32 = 40;

/// Prints messages until the connection ends, or as many as were asked for.
pub(crate) fn trace(args: &args::Trace) -> Result<(), Failure> {
    let (pid, live) = choose(args)?;
    let cannot = |error| Failure::caused(format!("process {pid} cannot be watched"), error);
    let gone = || Failure::new("the connection has ended");
    let mut tracer = Tracer::new(pid, live.id)
        .map_err(cannot)?
        .ok_or_else(gone)?;
    output::note(&format!(
        "watching {} of process {pid}: {}",
        live.id,
        ends(&live)
    ));
    let (mut shown, mut lost, mut idle) = (0, 0, 0);
    loop {
        let mut found = tracer.poll().map_err(cannot)?;
        if found.is_empty() {
            idle += 1;
            if idle % PATIENCE == 0 && !tracer.is_live().map_err(cannot)? {
                found = tracer.poll().map_err(cannot)?;
                if found.is_empty() {
                    output::note("the connection has ended");
                    return Ok(());
                }
            }
        } else {
            idle = 0;
        }
        let mut text = String::new();
        if tracer.lost() > lost {
            // They came before what was found.
            text.push_str(&lost_line(tracer.lost() - lost, args.json));
            lost = tracer.lost();
        }
        for traced in &found {
            if args.count.is_some_and(|count| shown >= count) {
                break;
            }
            text.push_str(&line(traced, args.json)?);
            shown += 1;
        }
        if !text.is_empty() && !print(&text)? || args.count.is_some_and(|count| shown >= count) {
            return Ok(());
        }
        if found.is_empty() {
            std::thread::sleep(PAUSE);
        }
    }
}

/// The one connection that was meant.
fn choose(args: &args::Trace) -> Result<(u32, Live), Failure> {
    let (found, unreadable) = match args.target {
        Some(target) => observe::processes(&[target.pid]),
        None => observe::all().map_err(|error| Failure::caused("cannot read /proc", error))?,
    };
    if let (Some(target), Some(process)) = (args.target, unreadable.into_iter().next()) {
        return Err(Failure::caused(
            format!("process {} cannot be read", target.pid),
            process.error,
        )
        .advise("only your own running processes can be looked at"));
    }
    let fd = args.target.and_then(|target| target.fd);
    let matches = |live: &Live| {
        let same = |wanted: Option<SocketAddr>, found: Option<SocketAddr>| {
            wanted.is_none_or(|at| Some(at) == found)
        };
        fd.is_none_or(|fd| live.fd == Some(fd))
            && args.id.is_none_or(|id| live.id == id)
            && same(args.local, live.local)
            && same(args.peer, live.peer)
    };
    let mut candidates = Vec::new();
    for Process {
        pid, connections, ..
    } in found
    {
        let meant = connections.into_iter().filter(matches);
        candidates.extend(meant.map(|live| (pid, live)));
    }
    match candidates.len() {
        0 => {
            Err(Failure::new("there is no such connection")
                .advise("see which there are: wsdirect ss"))
        }
        1 => candidates
            .pop()
            .ok_or_else(|| Failure::new("there is no such connection")),
        count => {
            let named = candidates
                .iter()
                .take(8)
                .map(|(pid, live)| format!("{pid} --id {} ({})", live.id, ends(live)));
            let list: Vec<_> = named.collect();
            Err(Failure::new(format!("{count} connections are meant"))
                .advise(format!("name one: {}", list.join(", "))))
        }
    }
}

/// "127.0.0.1:1 to 127.0.0.1:2".
fn ends(live: &Live) -> String {
    match (live.local, live.peer) {
        (Some(local), Some(peer)) => format!("{local} to {peer}"),
        _ => "addresses unknown".to_owned(),
    }
}

fn lost_line(count: u64, json: bool) -> String {
    match json {
        true => format!("{{\"lost\":{count}}}\n"),
        false => format!("... {count} messages were too fast to be shown\n"),
    }
}

#[derive(Serialize)]
struct Line {
    time: f64,
    direction: &'static str,
    #[serde(rename = "type")]
    kind: String,
    length: u32,
    credit: Option<u32>,
    text: String,
}

fn line(traced: &Traced, json: bool) -> Result<String, Failure> {
    if !json {
        let arrow = if traced.sent { '>' } else { '<' };
        return Ok(format!("{} {arrow} {traced}\n", time_of_day(traced.time)));
    }
    let since = traced.time.duration_since(std::time::UNIX_EPOCH);
    let line = Line {
        time: since.unwrap_or_default().as_secs_f64(),
        direction: if traced.sent { "sent" } else { "received" },
        kind: traced.kind(),
        length: traced.len,
        credit: traced.decode().ok().map(|(_, credit)| credit),
        text: traced.to_string(),
    };
    serde_json::to_string(&line)
        .map(|text| text + "\n")
        .map_err(|error| Failure::caused("cannot print a message", error.into()))
}
