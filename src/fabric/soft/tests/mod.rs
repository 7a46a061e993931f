//! Tests of the whole fabric, between endpoints of this process and of a child.

mod messages;
mod rdma;
mod rig;
