//! How many descriptors this process may have: as many as the system grants.
//!
//! Shells and systemd begin with a soft limit of 1024, for programs that still use select(2), and leave it to others to raise it:
//! with 1024, half of which are connections to peers, a listener's `connections` would mean little. HAProxy does the
//! same; nginx waits for `worker_rlimit_nofile`.

use nix::sys::resource::{Resource::RLIMIT_NOFILE, getrlimit, rlim_t, setrlimit};
use weir_config::Plan;

/// Raises the soft limit to the hard one, and returns what is in force.
#[must_use]
pub fn raise() -> u64 {
    let Ok((soft, hard)) = getrlimit(RLIMIT_NOFILE) else { return u64::MAX };
    let in_force: rlim_t = if setrlimit(RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    in_force
}

/// What full listeners need: one for each client, and one for its peer.
#[must_use]
pub fn wanted(plan: &Plan) -> u64 {
    plan.listeners.iter().map(|listener| 2 * listener.bounds.connections as u64).sum()
}
