//! Consistent hash: a ring of points on which a key belongs to the server of the next point, so that a server more or
//! less moves only its own keys.
//!
//! Source: nginx `ngx_http_upstream_update_chash` and `ngx_http_upstream_get_chash_peer`, which is ketama as in
//! Cache::Memcached::Fast: 160 points for each unit of weight at `crc32(HOST \0 PORT PREVIOUS)`, from the server's name as
//! it is written. Addresses of one name share its points, and take turns. After twenty points whose servers are closed
//! the request goes by round robin.
//!
//! One thing is added: a *bound* on the share of each server (Mirrokni, Thorup, Zadimoghaddam 2016). With `active`
//! requests in flight at open peers, a peer of weight `w` of `W` gets another one only below
//! `ceil(bound × (active + 1) × w / W)`; the walk passes over those that are at it. As the bound is above 1, somebody is
//! always below, so a hot key overflows to the next servers of the ring and to no others.

use std::{ops::Range, sync::Arc, time::Instant};

use weir_config::units::Factor;

use super::{hash::MISSTEPS, member::Member, round_robin, tried::Tried};

/// Points for each unit of weight.
const POINTS: i64 = 160;

/// The points of an upstream's primaries, in the order of their hashes.
#[derive(Debug)]
pub(super) struct Ring {
    points: Box<[(u32, Arc<str>)]>,
}

impl Ring {
    pub(super) fn new(members: &[Member]) -> Self {
        let mut points = Vec::new();
        for member in members {
            let name = &member.peer.endpoint().name;
            let base = base(name);
            let mut hash = 0_u32;
            for _ in 0..POINTS * member.weight {
                let mut crc = base.clone();
                crc.update(&hash.to_le_bytes());
                hash = crc.finalize();
                points.push((hash, Arc::clone(name)));
            }
        }
        // Stable: of equal points the first server's stays, as with nginx's sort.
        points.sort_by_key(|(hash, _)| *hash);
        points.dedup_by_key(|(hash, _)| *hash);
        Self { points: points.into() }
    }

    /// The open peer of `group` that `key` belongs to, if there is one.
    pub(super) fn choose(
        &self,
        members: &mut [Member],
        group: Range<usize>,
        key: &str,
        bound: Option<Factor>,
        tried: &mut Tried,
        now: Instant,
    ) -> Option<usize> {
        if key.is_empty() || self.points.is_empty() {
            return round_robin::choose(members, group, tried, now);
        }
        let mut at = tried.walk.unwrap_or_else(|| self.after(crc32fast::hash(key.as_bytes())));
        let most = bound.map(|bound| Most::of(members, group.clone(), bound, tried, now));
        let admits = |member: &Member| most.as_ref().is_none_or(|most| most.admits(member));
        // Once around, for those whose peers have all that they may have: passing over them is no misstep.
        for _ in 0..self.points.len() {
            if tried.missteps > MISSTEPS {
                break;
            }
            tried.walk = Some(at);
            let (_, name) = &self.points[at as usize % self.points.len()];
            let is_open = |index: usize, member: &Member| {
                member.peer.endpoint().name == *name && member.is_open(index, tried, now)
            };
            let may = |index: usize, member: &Member| is_open(index, member) && admits(member);
            let chosen = round_robin::among(members, group.clone(), now, may);
            if chosen.is_some() {
                return chosen;
            }
            let is_closed = !group.clone().any(|index| is_open(index, &members[index]));
            tried.missteps += u32::from(is_closed);
            at = at.wrapping_add(1);
        }
        round_robin::choose(members, group, tried, now)
    }

    /// The first point at or after `hash`.
    fn after(&self, hash: u32) -> u32 {
        let position = self.points.partition_point(|(point, _)| *point < hash);
        u32::try_from(position).expect("a ring has fewer than 2^32 points")
    }
}

/// `HOST \0 PORT` of a server's name; the port is what follows the last colon, if those are digits.
fn base(name: &str) -> crc32fast::Hasher {
    if let Some(path) = name.strip_prefix("unix:") {
        return hashed(path, "");
    }
    let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let (host, port) = name.rsplit_once(':').filter(|(_, port)| digits(port)).unwrap_or((name, ""));
    hashed(host, port)
}

fn hashed(host: &str, port: &str) -> crc32fast::Hasher {
    let mut crc = crc32fast::Hasher::new();
    crc.update(host.as_bytes());
    crc.update(&[0]);
    crc.update(port.as_bytes());
    crc
}

/// The most that each peer may have in flight.
struct Most {
    /// `bound × (active + 1)`, in thousandths.
    times: u128,
    weight: u128,
}

impl Most {
    fn of(members: &[Member], group: Range<usize>, bound: Factor, tried: &Tried, now: Instant) -> Self {
        let (mut active, mut weight) = (1, 0);
        for index in group.filter(|&index| members[index].is_open(index, tried, now)) {
            active += u128::from(members[index].peer.active());
            weight += u128::from(members[index].weight.unsigned_abs());
        }
        Self { times: u128::from(bound.thousandths()) * active, weight }
    }

    fn admits(&self, member: &Member) -> bool {
        let share = self.times * u128::from(member.weight.unsigned_abs());
        // Below the share rounded up, without dividing: n < ⌈a/b⌉ is n·b < a.
        u128::from(member.peer.active()) * 1000 * self.weight < share
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};
    use crate::balance::peer::Peer;

    fn ring(names: &[&str]) -> Ring {
        let member = |name: &&str| Member::new(Arc::new(Peer::new(server(name))));
        Ring::new(&names.iter().map(member).collect::<Vec<_>>())
    }

    #[test]
    fn a_hash_belongs_to_the_point_that_it_meets_and_after_the_last_to_the_first() {
        let ring = ring(&["a:1", "b:1"]);
        let (fifth, last) = (ring.points[5].0, ring.points.len() as u32);
        assert_eq!([ring.after(fifth - 1), ring.after(fifth), ring.after(fifth + 1)], [5, 5, 6]);
        assert_eq!(ring.after(u32::MAX), last);
    }

    #[test]
    fn a_unit_of_weight_has_160_points() {
        assert_eq!(ring(&["a:1"]).points.len(), 160);
    }

    #[test]
    fn a_name_is_its_host_and_its_port() {
        let hash = |crc: crc32fast::Hasher| crc.finalize();
        assert_eq!(hash(base("10.0.0.1:80")), crc32fast::hash(b"10.0.0.1\080"));
        assert_eq!(hash(base("[::1]:80")), crc32fast::hash(b"[::1]\080"));
        assert_eq!(hash(base("[::1]")), crc32fast::hash(b"[::1]\0"));
        assert_eq!(hash(base("unix:/run/a:80")), crc32fast::hash(b"/run/a:80\0"));
    }
}
