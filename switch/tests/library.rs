//! The real provider: linked in, and as a shared library loaded by its path.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::multiple_unsafe_ops_per_block
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Command;

use wsd_switch::{EntryPoint, Source, Switch, SwitchInfo};

/// The library as cargo built it for this test.
fn library() -> PathBuf {
    let folder = std::env::current_exe()
        .unwrap()
        .parent()
        .unwrap()
        .to_owned();
    let found = std::fs::read_dir(&folder).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name()?.to_str()?;
        let is_ours = name.starts_with("libwsdirect") && name.ends_with(".so");
        let time = path.metadata().ok()?.modified().ok()?;
        is_ours.then_some((time, path))
    });
    // Builds with other features leave theirs beside it; the newest is this one's.
    let newest = found.max_by_key(|(time, _)| *time);
    newest
        .unwrap_or_else(|| unreachable!("cargo builds the library into {folder:?}"))
        .1
}

fn check(info: &SwitchInfo, index: usize, source: &Source) {
    assert_eq!(info.reason, None);
    let provider = &info.providers[index];
    assert_eq!(&provider.source, source);
    let can = provider.state.as_ref().unwrap();
    for ip in own_addresses() {
        assert!(can.addresses.contains(&ip), "{can:?}");
    }
    assert!(can.arm_completion);
    assert!(can.max_message.is_some() && can.rdma_threshold.is_some());
}

/// The loopback addresses this host has.
fn own_addresses() -> Vec<IpAddr> {
    let both = [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::from(Ipv6Addr::LOCALHOST),
    ];
    both.into_iter()
        .filter(|ip| std::net::UdpSocket::bind((*ip, 0)).is_ok())
        .collect()
}

#[test]
fn the_linked_provider_starts_and_tells_what_it_can_do() {
    let switch = Switch::with_providers([EntryPoint::linked()]);
    check(&switch.info(), 0, &Source::Linked);
}

#[test]
fn the_provider_can_be_loaded_by_path() {
    let path = library();
    // SAFETY: the library of this very project.
    let entry = unsafe { EntryPoint::library(&path) }.unwrap();
    let switch = Switch::with_providers([entry]);
    check(&switch.info(), 0, &Source::Library(path));
}

#[test]
fn connections_cross_the_real_provider_over_ipv4_and_ipv6() {
    let switch = Switch::with_providers([EntryPoint::linked()]);
    for ip in own_addresses() {
        let listener = switch.bind((ip, 0)).unwrap();
        assert_eq!(listener.tcp_only(), None);
        let address = listener.local_addr().unwrap();
        let stream = switch.connect(address).unwrap();
        assert!(stream.transport().is_san(), "{}", stream.transport());
        let (accepted, peer) = listener.accept().unwrap();
        assert!(accepted.transport().is_san());
        assert_eq!(peer, stream.local_addr().unwrap());
        assert_eq!(accepted.local_addr().unwrap(), address);
    }
}

#[test]
fn a_wildcard_listener_of_both_families_is_reached_over_the_san_by_both() {
    let switch = Switch::with_providers([EntryPoint::linked()]);
    if own_addresses().len() < 2 {
        // Without IPv6 there is nothing to show; ./test says so.
        return;
    }
    let listener = switch.bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    for ip in own_addresses() {
        match switch.connect((ip, port)) {
            Ok(stream) => {
                assert!(stream.transport().is_san(), "{ip}: {}", stream.transport());
                assert_eq!(listener.accept().unwrap().1, stream.local_addr().unwrap());
            }
            // A host may keep IPv4 out of IPv6 listeners.
            Err(error) => assert!(ip.is_ipv4(), "{error}"),
        }
    }
}

#[test]
fn an_ipv4_address_in_ipv6_clothing_and_none_at_all_are_those_of_this_host() {
    let switch = Switch::with_providers([EntryPoint::linked()]);
    let clothed = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    for (own, asked) in [
        (Ipv4Addr::LOCALHOST.into(), IpAddr::from(clothed)),
        (IpAddr::from(clothed), Ipv4Addr::LOCALHOST.into()),
        (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::UNSPECIFIED.into()),
        (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::UNSPECIFIED.into()),
    ] {
        if own_addresses().len() < 2 && (own.is_ipv6() || asked.is_ipv6()) {
            continue;
        }
        let listener = switch.bind((own, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = switch.connect((asked, port)).unwrap();
        let path = stream.transport();
        assert!(path.is_san(), "{asked} at {own}: {path}");
        assert_eq!(listener.accept().unwrap().1, stream.local_addr().unwrap());
    }
}

#[test]
fn a_server_without_a_switch_is_reached_over_tcp() {
    let switch = Switch::with_providers([EntryPoint::linked()]);
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let stream = switch.connect(listener.local_addr().unwrap()).unwrap();
    assert!(!stream.transport().is_san());
    assert_eq!(listener.accept().unwrap().1, stream.local_addr().unwrap());
}

#[test]
fn a_port_where_nobody_listens_refuses() {
    let switch = Switch::with_providers([EntryPoint::linked()]);
    let listener = switch.bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = switch.connect(address).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_library_named_in_the_environment_comes_before_the_linked_provider() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "the_environment_names_a_library", "--ignored"])
        .env("WSD_PROVIDERS", library());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

#[test]
#[ignore = "run by a_library_named_in_the_environment_comes_before_the_linked_provider"]
fn the_environment_names_a_library() {
    let info = Switch::global().info();
    check(&info, 0, &Source::Library(library()));
    check(&info, 1, &Source::Linked);
}

#[test]
fn a_library_that_is_no_provider_is_refused() {
    // Every process on this host has it.
    let other = PathBuf::from("libc.so.6");
    // SAFETY: loaded already.
    let why = unsafe { EntryPoint::library(&other) }.unwrap_err();
    assert!(why.contains("WSPStartupEx"), "{why}");
}
