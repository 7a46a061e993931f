//! The table's functions over the embedded SAN, as a switch calls them.

mod closing;
mod connection;
mod events;
mod faults;
mod harness;
mod memory;
mod options;
mod progress;
mod startup;
mod transfer;
mod waiting;
