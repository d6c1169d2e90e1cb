//! IP hash: a client's network keeps its peer as long as that peer is open.
//!
//! Source: nginx `ngx_http_upstream_get_ip_hash_peer`, hash and walk to the digit, so that clients keep their peers
//! when an nginx is replaced: the first three octets of an IPv4 address, or all sixteen of an IPv6 one. After twenty
//! steps that led to closed peers the request goes by round robin.

use std::{net::IpAddr, ops::Range, time::Instant};

use super::{
    hash::MISSTEPS,
    member::{Member, owner},
    round_robin,
    tried::Tried,
};

/// nginx `iphp->hash` at the beginning.
const START: u32 = 89;

/// The open peer of `group` that `client` belongs to, if there is one.
pub(super) fn choose(
    members: &mut [Member],
    group: Range<usize>,
    client: IpAddr,
    tried: &mut Tried,
    now: Instant,
) -> Option<usize> {
    let total: i64 = members[group.clone()].iter().map(|member| member.weight).sum();
    while group.len() > 1 && tried.missteps <= MISSTEPS {
        let hash = step(tried.walk.unwrap_or(START), client);
        let index = group.start + owner(&members[group.clone()], i64::from(hash) % total);
        tried.walk = Some(hash);
        if members[index].is_open(index, tried, now) {
            return Some(index);
        }
        tried.missteps += 1;
    }
    round_robin::choose(members, group, tried, now)
}

/// Mixes the address into the hash once more.
fn step(hash: u32, client: IpAddr) -> u32 {
    let mix = |hash, octet: &u8| (hash * 113 + u32::from(*octet)) % 6271;
    // A mapped address is the IPv4 client that a dual-stack socket saw.
    match client.to_canonical() {
        IpAddr::V4(address) => address.octets()[..3].iter().fold(hash, mix),
        IpAddr::V6(address) => address.octets().iter().fold(hash, mix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_as_nginx_does() {
        // By hand: ((89*113+10)%6271*113+20)%6271*113+30)%6271 for 10.20.30.x.
        let by_hand = |octets: &[u32]| octets.iter().fold(89, |hash, octet| (hash * 113 + octet) % 6271);
        assert_eq!(step(89, [10, 20, 30, 40].into()), by_hand(&[10, 20, 30]));
        assert_eq!(
            step(89, [10, 20, 30, 41].into()),
            by_hand(&[10, 20, 30]),
            "the last octet does not count"
        );
        assert_ne!(step(89, [10, 20, 31, 40].into()), by_hand(&[10, 20, 30]));
    }

    #[test]
    fn an_ipv6_client_counts_with_all_its_octets() {
        let a: IpAddr = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into();
        let b: IpAddr = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2].into();
        assert_ne!(step(89, a), step(89, b));
    }

    #[test]
    fn a_mapped_ipv4_client_keeps_its_ipv4_peer() {
        let mapped: IpAddr = [0, 0, 0, 0, 0, 0xffff, 0x0a14, 0x1e28].into();
        assert_eq!(step(89, mapped), step(89, [10, 20, 30, 40].into()));
    }
}
