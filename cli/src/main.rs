//! The command `wsdirect`.
fn main() {}
