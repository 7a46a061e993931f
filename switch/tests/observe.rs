//! What a process shows of its connections after a fork. Alone in its process: a child holds the
//! descriptors of everything beside it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::net::SocketAddr;
use std::sync::Arc;

use wsd_switch::observe::{About, Live, Path, Role, Slot, Upgrade, descriptor, processes};

fn slot() -> Arc<Slot> {
    Slot::new(&About {
        role: Role::Accepted,
        addresses: Some((
            SocketAddr::from(([127, 0, 0, 1], 80)),
            SocketAddr::from(([10, 0, 0, 7], 4711)),
        )),
        fd: Some(17),
        path: Path::Kernel,
        provider: "",
        upgrade: Upgrade::Waiting,
        reason: "no-rule",
    })
    .unwrap()
}

/// The connections of a process; none if it shows nothing.
fn seen(pid: u32) -> Vec<Live> {
    let (mut found, unreadable) = processes(&[pid]);
    assert!(unreadable.is_empty(), "{unreadable:?}");
    found
        .pop()
        .map_or(Vec::new(), |process| process.connections)
}

fn find(slot: &Slot) -> Option<Live> {
    let mut all = seen(std::process::id()).into_iter();
    all.find(|live| live.id == slot.id())
}

#[test]
fn a_child_shows_what_it_does_itself_and_leaves_its_parent_alone() {
    let slot = slot();
    slot.sent_by_kernel(1);
    // SAFETY: the child uses nothing that another thread could have held but by the handlers under
    // test, and ends at once.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        slot.sent_by_kernel(10);
        // Nothing of its own yet: what it has inherited is its parent's.
        let before = seen(std::process::id()).is_empty();
        slot.set_reason("child");
        let own = find(&slot);
        let good = own.is_some_and(|live| live.reason == "child" && live.kernel_sent == 11);
        // SAFETY: ends the process without running anything of the parent's.
        unsafe { libc::_exit(if before && good { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: our own child, and a number of this frame.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
    let live = find(&slot).unwrap();
    assert_eq!((live.kernel_sent, &*live.reason), (1, "no-rule"));
    assert!(descriptor().is_some());
}
