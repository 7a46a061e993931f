//! The address table: which provider serves a destination.
//!
//! Pure logic over lists of addresses. A provider's list (SIO_ADDRESS_LIST_QUERY) has no masks;
//! they come from the host's own interfaces, and an address that no interface has stands for
//! itself alone. The most specific network wins; between equal ones the provider that was loaded
//! first.

use std::net::IpAddr;

/// A provider by its place in the order of loading.
pub(crate) type ProviderIndex = usize;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Row {
    address: IpAddr,
    prefix: u8,
    provider: ProviderIndex,
}

/// Local networks and the providers on them.
#[derive(Clone, Default, Debug)]
pub(crate) struct RouteTable {
    /// Most specific first, then by provider.
    rows: Vec<Row>,
}

impl RouteTable {
    /// Builds the table from what each provider serves and the prefixes of the interfaces.
    pub(crate) fn new(
        served: &[(ProviderIndex, Vec<IpAddr>)],
        interfaces: &[(IpAddr, u8)],
    ) -> RouteTable {
        let mut rows: Vec<Row> = Vec::new();
        for (provider, addresses) in served {
            for address in addresses.iter().map(canonical) {
                let known = interfaces
                    .iter()
                    .filter(|(own, _)| canonical(own) == address);
                let prefix = known.map(|(_, prefix)| *prefix).min();
                let prefix = prefix.unwrap_or_else(|| full(address)).min(full(address));
                let row = Row {
                    address,
                    prefix,
                    provider: *provider,
                };
                if !rows.contains(&row) {
                    rows.push(row);
                }
            }
        }
        rows.sort_by_key(|row| (std::cmp::Reverse(row.prefix), row.provider));
        RouteTable { rows }
    }

    /// The provider whose network holds the destination.
    pub(crate) fn provider_towards(&self, destination: IpAddr) -> Option<ProviderIndex> {
        let destination = canonical(&destination);
        let row = self.rows.iter().find(|row| row.holds(destination))?;
        Some(row.provider)
    }

    /// The providers that serve a local address, in order; for a wildcard every one that serves an
    /// address of the family.
    pub(crate) fn providers_at(&self, local: IpAddr) -> Vec<ProviderIndex> {
        let local = canonical(&local);
        let serves = |row: &&Row| {
            if local.is_unspecified() {
                row.address.is_ipv4() == local.is_ipv4()
            } else {
                // Every address of the loopback network is one of this host's.
                row.address == local || (local.is_loopback() && row.holds(local))
            }
        };
        let mut found: Vec<ProviderIndex> = self
            .rows
            .iter()
            .filter(serves)
            .map(|row| row.provider)
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

impl Row {
    fn holds(&self, destination: IpAddr) -> bool {
        match (self.address, destination) {
            (IpAddr::V4(own), IpAddr::V4(to)) => {
                shared_bits(u128::from(own.to_bits() ^ to.to_bits()), 32) >= self.prefix
            }
            (IpAddr::V6(own), IpAddr::V6(to)) => {
                shared_bits(own.to_bits() ^ to.to_bits(), 128) >= self.prefix
            }
            _ => false,
        }
    }
}

/// How many leading bits of `width` are equal, given their difference.
fn shared_bits(difference: u128, width: u32) -> u8 {
    u8::try_from(difference.leading_zeros().saturating_sub(128 - width)).unwrap_or(u8::MAX)
}

fn full(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// An IPv4 address in IPv6 clothing is the IPv4 address.
pub(crate) fn canonical(address: &IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(*v6), IpAddr::V4),
        IpAddr::V4(v4) => IpAddr::V4(*v4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn interfaces() -> Vec<(IpAddr, u8)> {
        vec![
            (ip("127.0.0.1"), 8),
            (ip("::1"), 128),
            (ip("192.168.1.5"), 24),
            (ip("192.168.0.7"), 16),
            (ip("fd00::5"), 64),
            (ip("10.0.0.1"), 32),
        ]
    }

    #[test]
    fn a_destination_on_a_served_network_finds_its_provider() {
        let table = RouteTable::new(&[(0, ips(&["192.168.1.5", "fd00::5"]))], &interfaces());
        assert_eq!(table.provider_towards(ip("192.168.1.200")), Some(0));
        assert_eq!(table.provider_towards(ip("::ffff:192.168.1.200")), Some(0));
        assert_eq!(table.provider_towards(ip("fd00::1:2")), Some(0));
        assert_eq!(table.provider_towards(ip("192.168.2.1")), None);
        assert_eq!(table.provider_towards(ip("fd00:0:0:1::1")), None);
        assert_eq!(table.provider_towards(ip("8.8.8.8")), None);
    }

    #[test]
    fn the_most_specific_network_wins_whatever_the_order() {
        let wide = (0, ips(&["192.168.0.7"]));
        let narrow = (1, ips(&["192.168.1.5"]));
        let table = RouteTable::new(&[wide, narrow], &interfaces());
        assert_eq!(table.provider_towards(ip("192.168.1.9")), Some(1));
        assert_eq!(table.provider_towards(ip("192.168.9.9")), Some(0));
    }

    #[test]
    fn between_equal_networks_the_provider_loaded_first_wins() {
        let both = ips(&["192.168.1.5"]);
        let table = RouteTable::new(&[(1, both.clone()), (0, both)], &interfaces());
        assert_eq!(table.provider_towards(ip("192.168.1.9")), Some(0));
        assert_eq!(table.providers_at(ip("192.168.1.5")), [0, 1]);
    }

    #[test]
    fn the_whole_loopback_network_is_served_but_only_v6s_one_address() {
        let table = RouteTable::new(&[(0, ips(&["127.0.0.1", "::1"]))], &interfaces());
        assert_eq!(table.provider_towards(ip("127.8.9.10")), Some(0));
        assert_eq!(table.providers_at(ip("127.8.9.10")), [0]);
        assert_eq!(table.provider_towards(ip("::1")), Some(0));
        assert_eq!(table.provider_towards(ip("::2")), None);
    }

    #[test]
    fn an_address_without_an_interface_stands_for_itself() {
        let table = RouteTable::new(&[(0, ips(&["172.16.0.1", "fd01::1"]))], &interfaces());
        assert_eq!(table.provider_towards(ip("172.16.0.1")), Some(0));
        assert_eq!(table.provider_towards(ip("172.16.0.2")), None);
        assert_eq!(table.provider_towards(ip("fd01::2")), None);
    }

    #[test]
    fn a_listener_gets_the_providers_of_its_address_or_of_its_family() {
        let table = RouteTable::new(
            &[(0, ips(&["127.0.0.1", "::1"])), (1, ips(&["192.168.1.5"]))],
            &interfaces(),
        );
        assert_eq!(table.providers_at(ip("0.0.0.0")), [0, 1]);
        assert_eq!(table.providers_at(ip("::")), [0]);
        assert_eq!(table.providers_at(ip("192.168.1.5")), [1]);
        assert_eq!(table.providers_at(ip("192.168.1.6")), Vec::<usize>::new());
    }

    #[test]
    fn a_network_of_everything_and_a_nonsense_prefix_do_no_harm() {
        let odd = [(ip("10.0.0.1"), 0), (ip("10.0.0.2"), 200)];
        let table = RouteTable::new(&[(0, ips(&["10.0.0.1"])), (1, ips(&["10.0.0.2"]))], &odd);
        assert_eq!(table.provider_towards(ip("8.8.8.8")), Some(0));
        assert_eq!(table.provider_towards(ip("10.0.0.2")), Some(1));
        assert_eq!(table.provider_towards(ip("::1")), None);
    }

    #[test]
    fn an_empty_table_serves_nothing() {
        let table = RouteTable::default();
        assert_eq!(table.provider_towards(ip("127.0.0.1")), None);
        assert!(table.providers_at(ip("0.0.0.0")).is_empty());
    }
}
