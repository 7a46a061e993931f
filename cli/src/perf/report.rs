//! The figures of a run of `perf`: collected in [`Cell`]s, told as tables or JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::stats::Quartiles;
use crate::args::{self, Mode, Transport};
use crate::link::Path;
use crate::units::{Rate, Size};

const METHOD: &str = "two processes, one run; the transports take turns in every round; the same \
code and buffers for all; not pinned; latency: one way, half of a round trip, of all rounds; \
bandwidth: from the first send until the receiver has answered that all is there; TCP with \
TCP_NODELAY for latency and without for bandwidth, its better setting for each; poll: both ends \
call nonblocking in a loop, and a slice in which a thread lost its CPU more than 4 times is \
repeated up to 3 times, the least disturbed one counts; block: both ends call blocking; CPU time \
of both processes";

/// Which measurement: polling or not, size of messages, transport.
pub(super) type Key = (bool, usize, Transport);

/// Everything measured under one [`Key`].
pub(super) struct Cell {
    /// Round trips of all rounds, in ns.
    round_trips: Histogram<u64>,
    // Per round:
    p50_ns: Vec<f64>,
    bytes_per_second: Vec<f64>,
    messages_per_second: Vec<f64>,
    cpu_seconds_per_gb: Vec<f64>,
    preempted: u64,
}

impl Cell {
    pub(super) fn new(empty: &Histogram<u64>) -> Cell {
        Cell {
            round_trips: Histogram::new_from(empty),
            p50_ns: Vec::new(),
            bytes_per_second: Vec::new(),
            messages_per_second: Vec::new(),
            cpu_seconds_per_gb: Vec::new(),
            preempted: 0,
        }
    }

    /// One round's round trips.
    pub(super) fn add_latency(&mut self, round: &Histogram<u64>, preempted: u64) {
        self.p50_ns.push(one_way(round, 0.5));
        // Both were made with the same bounds, so every value fits.
        self.round_trips.add(round).ok();
        self.preempted += preempted;
    }

    /// One round's stream.
    pub(super) fn add_bandwidth(&mut self, flow: &Flow, preempted: u64) {
        let seconds = flow.elapsed.as_secs_f64();
        self.bytes_per_second.push(flow.bytes as f64 / seconds);
        self.messages_per_second
            .push(flow.messages as f64 / seconds);
        self.cpu_seconds_per_gb
            .push(flow.cpu.as_secs_f64() / (flow.bytes as f64 / 1e9));
        self.preempted += preempted;
    }
}

/// What one measurement of bandwidth moved.
pub(super) struct Flow {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) elapsed: Duration,
    /// Of both processes.
    pub(super) cpu: Duration,
}

fn one_way(round_trips: &Histogram<u64>, quantile: f64) -> f64 {
    round_trips.value_at_quantile(quantile) as f64 / 2.0
}

/// A transport that was asked for and is not there.
#[derive(Debug, Serialize)]
pub(super) struct Absent {
    pub(super) transport: Transport,
    pub(super) reason: String,
}

/// The result of a run.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    version: &'static str,
    method: &'static str,
    cpus: usize,
    rounds: u32,
    slice_ms: u64,
    mode: Mode,
    /// Of the SAN connection.
    path: Path,
    rows: Vec<Row>,
    ratios: Vec<Ratio>,
    absent: Vec<Absent>,
}

#[derive(Debug, Serialize)]
struct Row {
    wait: &'static str,
    size: usize,
    transport: Transport,
    latency_ns: Latency,
    bytes_per_second: Quartiles,
    messages_per_second: Quartiles,
    cpu_seconds_per_gb: Quartiles,
    /// How often a measuring thread was taken off its CPU; many make tails long.
    preempted: u64,
}

#[derive(Debug, Serialize)]
struct Latency {
    samples: u64,
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
    /// Of the rounds' medians.
    p50_of_rounds: Quartiles,
}

/// How many times better the SAN was than another transport, round by round.
#[derive(Debug, Serialize)]
struct Ratio {
    wait: &'static str,
    size: usize,
    against: Transport,
    /// Their p50 over ours.
    latency: Quartiles,
    /// Our bytes per second over theirs.
    bandwidth: Quartiles,
}

fn wait(poll: bool) -> &'static str {
    if poll { "poll" } else { "block" }
}

impl Figures {
    pub(super) fn new(
        args: &args::Perf,
        path: Path,
        absent: Vec<Absent>,
        cells: &BTreeMap<Key, Cell>,
    ) -> Figures {
        Figures {
            version: env!("CARGO_PKG_VERSION"),
            method: METHOD,
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            rounds: args.rounds,
            slice_ms: u64::try_from(args.slice.as_millis()).unwrap_or(u64::MAX),
            mode: args.mode,
            path,
            rows: cells
                .iter()
                .filter_map(|(key, cell)| Row::new(*key, cell))
                .collect(),
            ratios: cells
                .iter()
                .filter_map(|(key, cell)| Ratio::new(*key, cell, cells))
                .collect(),
            absent,
        }
    }
}

impl Row {
    fn new((poll, size, transport): Key, cell: &Cell) -> Option<Row> {
        let of = |values: &Vec<f64>| Quartiles::of(values.iter().copied());
        Some(Row {
            wait: wait(poll),
            size,
            transport,
            latency_ns: Latency {
                samples: cell.round_trips.len(),
                p50: one_way(&cell.round_trips, 0.5),
                p99: one_way(&cell.round_trips, 0.99),
                p999: one_way(&cell.round_trips, 0.999),
                max: cell.round_trips.max() as f64 / 2.0,
                p50_of_rounds: of(&cell.p50_ns)?,
            },
            bytes_per_second: of(&cell.bytes_per_second)?,
            messages_per_second: of(&cell.messages_per_second)?,
            cpu_seconds_per_gb: of(&cell.cpu_seconds_per_gb)?,
            preempted: cell.preempted,
        })
    }
}

impl Ratio {
    /// Of the cell's transport against the SAN; `None` for the SAN itself, or without it.
    fn new(
        (poll, size, against): Key,
        theirs: &Cell,
        cells: &BTreeMap<Key, Cell>,
    ) -> Option<Ratio> {
        if against == Transport::San {
            return None;
        }
        let ours = cells.get(&(poll, size, Transport::San))?;
        let over = |above: &Vec<f64>, below: &Vec<f64>| {
            Quartiles::of(above.iter().zip(below).map(|(above, below)| above / below))
        };
        Some(Ratio {
            wait: wait(poll),
            size,
            against,
            latency: over(&theirs.p50_ns, &ours.p50_ns)?,
            bandwidth: over(&ours.bytes_per_second, &theirs.bytes_per_second)?,
        })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "san: {}", self.path)?;
        for Absent { transport, reason } in &self.absent {
            writeln!(f, "{}: absent: {reason}", transport.name())?;
        }
        let cpus = self.cpus;
        writeln!(
            f,
            "{} rounds of {} ms each, {cpus} CPUs",
            self.rounds, self.slice_ms
        )?;
        writeln!(f, "\nLatency, one way (half of a round trip), µs")?;
        writeln!(
            f,
            "{:<6}{:>9}  {:<5}{:>9}{:>10}{:>10}   san is better by (quartiles)",
            "wait", "size", "", "p50", "p99", "p99.9"
        )?;
        for row in &self.rows {
            let Latency { p50, p99, p999, .. } = row.latency_ns;
            let us = |ns: f64| format!("{:.2}", ns / 1000.0);
            write!(
                f,
                "{:<6}{:>9}  {:<5}",
                row.wait,
                Size(row.size),
                row.transport.name()
            )?;
            write!(f, "{:>9}{:>10}{:>10}   ", us(p50), us(p99), us(p999))?;
            writeln!(f, "{}", Times(self.ratio(row).map(|ratio| ratio.latency)))?;
        }
        writeln!(f, "\nBandwidth, one direction")?;
        writeln!(
            f,
            "{:<6}{:>9}  {:<5}{:>12}{:>14}{:>14}   san is better by (quartiles)",
            "wait", "size", "", "median", "messages/s", "CPU s/GB"
        )?;
        for row in &self.rows {
            write!(
                f,
                "{:<6}{:>9}  {:<5}",
                row.wait,
                Size(row.size),
                row.transport.name()
            )?;
            let rate = Rate(row.bytes_per_second.median).to_string();
            let (messages, cpu) = (
                row.messages_per_second.median,
                row.cpu_seconds_per_gb.median,
            );
            write!(f, "{rate:>12}{messages:>14.0}{cpu:>14.3}   ")?;
            writeln!(f, "{}", Times(self.ratio(row).map(|ratio| ratio.bandwidth)))?;
        }
        write!(f, "\nMethod: {}.", self.method)
    }
}

impl Figures {
    /// Why large data was not moved as `--mode` wanted.
    pub(super) fn gave_way(&self) -> Option<&'static str> {
        self.path.gave_way
    }

    fn ratio(&self, row: &Row) -> Option<&Ratio> {
        let same = |ratio: &&Ratio| {
            (ratio.wait, ratio.size, ratio.against) == (row.wait, row.size, row.transport)
        };
        self.ratios.iter().find(same)
    }
}

struct Times(Option<Quartiles>);

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(Quartiles { q1, median, q3 }) => write!(f, "{median:.2}x ({q1:.2} to {q3:.2})"),
            None => Ok(()),
        }
    }
}
