//! Sockets, binding, listening, connecting, accepting.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::harness::*;
use crate::abi::*;

#[test]
fn two_sockets_connect_and_pass_messages_both_ways() {
    let _session = Session::new();
    let (a, b) = pair();
    pass(&a, &b, b"from the connecting side");
    pass(&b, &a, b"from the accepting side");
    a.close().unwrap();
    b.close().unwrap();
    a.await_given_back();
    b.await_given_back();
}
