//! Hash: a key keeps its peer as long as that peer is open and the servers stay the same.
//!
//! Source: nginx `ngx_http_upstream_get_hash_peer`, which is Cache::Memcached's: the hash is
//! `((crc32([REHASH] KEY) >> 16) & 0x7fff) + PREVIOUS`, its remainder over the sum of the weights names the peer, and a
//! closed peer is answered by hashing again. After twenty such steps the request goes by round robin.

use std::{ops::Range, time::Instant};

use super::{
    member::{Member, owner},
    round_robin,
    tried::Tried,
};

/// Steps to closed peers after which round robin decides.
pub(super) const MISSTEPS: u32 = 20;

/// The open peer of `group` that `key` belongs to, if there is one.
pub(super) fn choose(
    members: &mut [Member],
    group: Range<usize>,
    key: &str,
    tried: &mut Tried,
    now: Instant,
) -> Option<usize> {
    let total: i64 = members[group.clone()].iter().map(|member| member.weight).sum();
    while group.len() > 1 && !key.is_empty() && tried.missteps <= MISSTEPS {
        let hash = tried.walk.unwrap_or(0).wrapping_add(mixed(tried.steps, key));
        (tried.walk, tried.steps) = (Some(hash), tried.steps + 1);
        let index = group.start + owner(&members[group.clone()], i64::from(hash) % total);
        if members[index].is_open(index, tried, now) {
            return Some(index);
        }
        tried.missteps += 1;
    }
    round_robin::choose(members, group, tried, now)
}

/// One round: the count of earlier rounds, unless it is the first, and the key.
fn mixed(rehash: u32, key: &str) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    if rehash > 0 {
        crc.update(rehash.to_string().as_bytes());
    }
    crc.update(key.as_bytes());
    crc.finalize() >> 16 & 0x7fff
}

#[cfg(test)]
mod tests {
    use super::mixed;

    #[test]
    fn hashes_as_cache_memcached_does() {
        // zlib: crc32("hello") = 0x3610a686, crc32("1hello") = 0x8ed62430.
        assert_eq!([mixed(0, "hello"), mixed(1, "hello")], [0x3610, 0x0ed6]);
    }
}
