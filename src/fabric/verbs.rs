//! RDMA hardware, of which only this is known: which devices there are.
//!
//! Owns the question to libibverbs. There is no transport over them; what a user who asks for one
//! is told names what was found.

/// What to say to somebody who wants to use RDMA hardware.
#[cfg(feature = "verbs")]
pub(crate) fn absence() -> String {
    let found: Vec<String> = match ibverbs::devices() {
        Ok(list) => list
            .iter()
            .filter_map(|device| Some(device.name()?.to_string_lossy().into_owned()))
            .collect(),
        // What libibverbs answers when the kernel has no RDMA support at all.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Vec::new(),
        Err(error) => return format!("libibverbs failed: {error}"),
    };
    if found.is_empty() {
        "this host has no RDMA device; use WSD_FABRIC=soft or auto".to_owned()
    } else {
        format!(
            "there is no transport over RDMA hardware ({}) yet; use WSD_FABRIC=soft or auto",
            found.join(", ")
        )
    }
}

/// What to say to somebody who wants to use RDMA hardware.
#[cfg(not(feature = "verbs"))]
pub(crate) fn absence() -> String {
    "this build was made without the feature \"verbs\"; use WSD_FABRIC=soft or auto".to_owned()
}
