//! The table's functions over the embedded SAN, as a switch calls them.

mod connection;
mod harness;
mod transfer;
