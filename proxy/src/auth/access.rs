//! Who may pass by address: the most specific network that holds the client decides, and `deny` wins a tie.
//!
//! Networks are kept by length, each length a hash table: a lookup costs one probe for each length in use (a handful
//! in practice, 128 at worst), however many thousand networks are listed.

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;
use weir_config::plan;

/// The addresses of one route.
#[derive(Debug, Clone)]
pub struct Access {
    /// Longest first.
    v4: Vec<(u8, HashMap<IpAddr, Verdict>)>,
    v6: Vec<(u8, HashMap<IpAddr, Verdict>)>,
    otherwise: Verdict,
}

/// A client whose address may not pass: 403.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotFromHere;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allow,
    Deny,
}

impl From<&plan::Access> for Access {
    fn from(access: &plan::Access) -> Self {
        Self::new(&access.allow, &access.deny)
    }
}

impl Access {
    /// Allows `allow`, or everybody where it is empty, except for `deny`.
    #[must_use]
    pub fn new(allow: &[IpNet], deny: &[IpNet]) -> Self {
        let otherwise = if allow.is_empty() { Verdict::Allow } else { Verdict::Deny };
        let mut access = Self { v4: Vec::new(), v6: Vec::new(), otherwise };
        // Denied networks last, so that they replace the same network allowed.
        let allow = allow.iter().map(|network| (network, Verdict::Allow));
        for (network, verdict) in allow.chain(deny.iter().map(|network| (network, Verdict::Deny))) {
            let lengths = if network.addr().is_ipv4() { &mut access.v4 } else { &mut access.v6 };
            let length = network.prefix_len();
            let at = lengths.binary_search_by(|(other, _)| length.cmp(other)).unwrap_or_else(|at| {
                lengths.insert(at, (length, HashMap::new()));
                at
            });
            lengths[at].1.insert(network.network(), verdict);
        }
        access
    }

    /// Whether this client may pass; an IPv4 address mapped into IPv6 counts as IPv4.
    ///
    /// Errors: [`NotFromHere`].
    pub fn check(&self, client: IpAddr) -> Result<(), NotFromHere> {
        let client = client.to_canonical();
        let lengths = if client.is_ipv4() { &self.v4 } else { &self.v6 };
        let verdict = lengths.iter().find_map(|(length, networks)| {
            let network = IpNet::new(client, *length).ok()?.network();
            networks.get(&network)
        });
        match verdict.unwrap_or(&self.otherwise) {
            Verdict::Allow => Ok(()),
            Verdict::Deny => Err(NotFromHere),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use super::*;

    fn access(allow: &[&str], deny: &[&str]) -> impl Fn(&str) -> bool {
        let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
        let access = Access::new(&networks(allow), &networks(deny));
        move |client| access.check(client.parse().unwrap()).is_ok()
    }

    #[test]
    fn without_an_allow_list_only_the_denied_are_kept_out() {
        let passes = access(&[], &["192.0.2.0/24", "2001:db8::/32"]);
        assert!(passes("198.51.100.1") && passes("::1"));
        assert!(!passes("192.0.2.200") && !passes("2001:db8::1") && !passes("::ffff:192.0.2.1"));
    }

    #[test]
    fn with_an_allow_list_nobody_else_passes() {
        let passes = access(&["10.0.0.0/8"], &[]);
        assert!(passes("10.1.2.3") && passes("::ffff:10.1.2.3"));
        assert!(!passes("11.0.0.1") && !passes("::1"));
    }

    #[test]
    fn the_most_specific_network_wins_and_deny_wins_a_tie() {
        let passes = access(&["10.0.0.0/8", "10.1.1.7/32", "10.2.0.0/16"], &["10.1.0.0/16", "10.2.0.0/16"]);
        assert!(passes("10.9.9.9") && passes("10.1.1.7"));
        assert!(!passes("10.1.1.8") && !passes("10.2.0.1"));
        assert!(access(&["0.0.0.0/0"], &[])("203.0.113.9"));
    }

    #[test]
    fn host_bits_in_a_network_do_not_matter() {
        assert!(access(&["10.0.0.9/8"], &[])("10.200.0.1"));
    }
}
