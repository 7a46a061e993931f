//! Which RDMA devices this host has, asked from libibverbs.

use std::fmt;

use serde::Serialize;

/// The devices, or why there is none to name.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Devices {
    #[cfg(feature = "verbs")]
    Found(Vec<Device>),
    Absent(String),
}

#[cfg(feature = "verbs")]
#[derive(Debug, Serialize)]
pub(crate) struct Device {
    name: String,
    /// "1: ACTIVE" for each port, in the words of the kernel.
    ports: Vec<String>,
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Devices::Absent(reason) => write!(f, "  none: {reason}"),
            #[cfg(feature = "verbs")]
            Devices::Found(devices) => {
                for (place, device) in devices.iter().enumerate() {
                    let line = if place > 0 { "\n" } else { "" };
                    let ports = device.ports.join(", port ");
                    write!(f, "{line}  {}  port {ports}", device.name)?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(not(feature = "verbs"))]
pub(crate) fn find() -> Devices {
    Devices::Absent("this wsdirect was built without the feature \"verbs\"".to_owned())
}

#[cfg(feature = "verbs")]
pub(crate) fn find() -> Devices {
    let list = match ibverbs::devices() {
        Ok(list) => list,
        // What libibverbs answers when the kernel has no RDMA support at all.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            return Devices::Absent(
                "the kernel has no RDMA support loaded (modules ib_uverbs and a driver)".to_owned(),
            );
        }
        Err(error) => return Devices::Absent(format!("libibverbs failed: {error}")),
    };
    let devices: Vec<Device> = list
        .iter()
        .filter_map(|device| Some(device.name()?.to_string_lossy().into_owned()))
        .map(|name| Device {
            ports: ports(&name),
            name,
        })
        .collect();
    if devices.is_empty() {
        return Devices::Absent("this host has no RDMA device".to_owned());
    }
    Devices::Found(devices)
}

/// From sysfs: opening the device would need rights that looking does not.
#[cfg(feature = "verbs")]
fn ports(name: &str) -> Vec<String> {
    let folder = std::path::Path::new("/sys/class/infiniband")
        .join(name)
        .join("ports");
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut ports: Vec<String> = entries
        .flatten()
        .map(|entry| {
            let state = std::fs::read_to_string(entry.path().join("state")).unwrap_or_default();
            let state = state
                .split_once(": ")
                .map_or("unknown", |(_, words)| words.trim());
            format!("{}: {state}", entry.file_name().to_string_lossy())
        })
        .collect();
    ports.sort();
    ports
}
