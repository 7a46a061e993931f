//! Tests of the whole fabric, between endpoints of this process and of a child.

mod hostile;
mod messages;
mod model;
mod processes;
mod rdma;
pub(in crate::fabric) mod rig;
mod sleep;
