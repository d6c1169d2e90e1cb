//! The caches' disks: those of the last generation go on, others are opened, and what is not named any more is let go.

use std::sync::Arc;

use parking_lot::Mutex;
use weir_config::{Plan, plan::CacheDisk};

use super::{CannotRun, Running};
use crate::cache::{Cache, Disk, Tags};

/// The disk of each cache of a plan, in its order, until they are given to them.
pub(super) type Waiting = Mutex<Vec<Option<Arc<Disk>>>>;

/// The disk of each cache of the plan; nothing of `old` has changed yet.
pub(super) async fn open(
    plan: &Plan,
    old: Option<&Running>,
    tags: &Arc<Tags>,
) -> Result<Waiting, Vec<CannotRun>> {
    let (mut disks, mut problems) = (Vec::with_capacity(plan.caches.len()), Vec::new());
    for cache in &plan.caches {
        let Some(named) = &cache.disk else {
            disks.push(None);
            continue;
        };
        let known = old.into_iter().flat_map(|old| &old.caches).filter_map(Cache::disk);
        // By its folder, so that a cache may change its name.
        match known.into_iter().find(|disk| *disk.path() == **named.path) {
            Some(disk) => disks.push(Some(disk)),
            None => match opened(named, tags).await {
                Ok(disk) => disks.push(Some(disk)),
                Err(problem) => problems.push(CannotRun::new(named.path.place, problem)),
            },
        }
    }
    if problems.is_empty() { Ok(Mutex::new(disks)) } else { Err(problems) }
}

async fn opened(disk: &CacheDisk, tags: &Arc<Tags>) -> Result<Arc<Disk>, String> {
    let (path, tags) = (disk.path.value.clone(), Arc::clone(tags));
    let (size, entry) = (disk.size.get(), disk.entry_bytes.get());
    let opened = tokio::task::spawn_blocking(move || Disk::open(&path, size, entry, &tags)).await;
    let said = match opened {
        Ok(Ok(disk)) => return Ok(disk),
        Ok(Err(problem)) => problem.to_string(),
        Err(problem) => problem.to_string(),
    };
    Err(format!("the folder {} cannot be a cache's: {said}", disk.path.display()))
}

impl Running {
    /// Gives the caches their disks, with the bounds that hold from now on.
    pub(super) fn take_disks(&self) {
        let disks = std::mem::take(&mut *self.disks.lock());
        for ((plan, cache), disk) in self.plan.caches.iter().zip(&self.caches).zip(disks) {
            if let (Some(disk), Some(named)) = (&disk, &plan.disk) {
                disk.set_budget(named.size.get(), named.entry_bytes.get());
            }
            cache.set_disk(disk);
        }
    }
}
