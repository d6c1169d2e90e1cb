//! Whose requests are counted together when a limit's key is the client's address.

use std::net::{IpAddr, Ipv6Addr};

/// The address as a limit counts it: IPv4 as it is, also when it came mapped into IPv6, and IPv6 by its first `prefix` bits.
///
/// A /64 is what one subscriber gets (RFC 6177 §2, RFC 7934 §6): counted by address, each would have 2^64 budgets.
#[must_use]
pub fn client(address: IpAddr, prefix: u8) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let host = u128::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & !host).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use super::*;

    #[test]
    fn a_subscriber_has_one_key() {
        let key = |text: &str| client(text.parse().unwrap(), 64).to_string();
        assert_eq!(key("192.0.2.7"), "192.0.2.7");
        assert_eq!(key("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(key("2001:db8:1:2:3:4:5:6"), key("2001:db8:1:2:ffff::1"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
    }

    #[test]
    fn the_plan_says_how_long_a_prefix_is() {
        let key = |prefix| client("2001:db8:1:2ff:3::6".parse().unwrap(), prefix).to_string();
        assert_eq!(key(56), "2001:db8:1:200::");
        assert_eq!(key(128), "2001:db8:1:2ff:3::6");
        assert_eq!(key(1), "::");
    }
}
