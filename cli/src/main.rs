//! The command `wsdirect`: sends and receives files, measures, and shows what is there.
//!
//! Owns: the command line, and what people read. Everything that moves bytes is in `wsd-switch`.
#![deny(unsafe_code)]

mod args;
mod devices;
mod failure;
mod info;
mod link;
mod observe;
mod output;
mod perf;
mod progress;
mod run;
#[allow(unsafe_code)]
mod sys;
mod transfer;
mod units;
mod warnings;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use failure::Failure;

fn main() -> ExitCode {
    let args = Args::parse();
    warnings::show();
    match run(&args.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::note(&failure.to_string());
            ExitCode::from(failure.code())
        }
    }
}

fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Send(send) => transfer::send(send),
        Command::Recv(recv) => {
            clean_up_on_signals()?;
            transfer::recv(recv)
        }
        Command::Perf(perf) => perf::perf(perf),
        Command::Info(info) => info::info(info),
        Command::Run(program) => Err(run::run(program)),
        Command::Ss(ss) => observe::ss(ss),
        Command::Trace(trace) => observe::trace(trace),
    }
}

/// From now on a signal that ends the process removes the temporary output first.
fn clean_up_on_signals() -> Result<(), Failure> {
    let cannot = |error| Failure::caused("cannot watch for signals", error);
    let signals = sys::EndSignals::block().map_err(cannot)?;
    let watch = move || {
        let signal = signals.wait();
        let _held = transfer::abandon();
        signals.end_by(signal)
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(watch)
        .map_err(cannot)?;
    Ok(())
}
