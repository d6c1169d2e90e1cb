//! How many worker threads: as configured, else the cgroup's CPU quota, else the cores this process may run on.

use std::{num::NonZeroUsize, path::Path};

/// The number of worker threads, at least one.
#[must_use]
pub fn count(configured: Option<usize>) -> usize {
    configured
        .unwrap_or_else(|| {
            let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
            cgroup_quota(Path::new("/sys/fs/cgroup")).map_or(cores, |quota| quota.min(cores))
        })
        .max(1)
}

/// Whole CPUs that the cgroup (v2, else v1) grants, rounded up: with half a CPU one thread still has to run.
fn cgroup_quota(root: &Path) -> Option<usize> {
    let read = |file: &str| std::fs::read_to_string(root.join(file)).ok();
    let (quota, period) = match read("cpu.max") {
        Some(text) => {
            let mut words = text.split_whitespace().map(str::to_owned);
            (words.next()?, words.next()?)
        }
        None => (read("cpu/cpu.cfs_quota_us")?, read("cpu/cpu.cfs_period_us")?),
    };
    // "max" (v2) and -1 (v1) mean no quota: neither parses as a count.
    let (quota, period): (usize, usize) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
    (period > 0).then(|| quota.div_ceil(period).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota_of(files: &[(&str, &str)]) -> Option<usize> {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        cgroup_quota(root.path())
    }

    #[test]
    fn a_quota_of_one_and_a_half_cores_runs_two_threads() {
        assert_eq!(quota_of(&[("cpu.max", "150000 100000\n")]), Some(2));
        assert_eq!(
            quota_of(&[("cpu/cpu.cfs_quota_us", "50000\n"), ("cpu/cpu.cfs_period_us", "100000\n")]),
            Some(1)
        );
    }

    #[test]
    fn no_quota_is_no_bound() {
        assert_eq!(quota_of(&[("cpu.max", "max 100000\n")]), None);
        assert_eq!(
            quota_of(&[("cpu/cpu.cfs_quota_us", "-1\n"), ("cpu/cpu.cfs_period_us", "100000\n")]),
            None
        );
        assert_eq!(quota_of(&[]), None);
    }

    #[test]
    fn a_configured_count_is_taken_as_it_is() {
        assert_eq!((count(Some(3)), count(Some(0))), (3, 1));
    }
}
