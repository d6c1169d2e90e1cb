//! What one request has tried: the peers, and how far its hash has walked.

/// The memory of one request across its attempts; starts empty.
#[derive(Debug, Clone, Default)]
pub struct Tried {
    /// One bit a peer; the first 64 need no allocation.
    first: u64,
    more: Vec<u64>,
    /// Once a request came to the backups it stays with them, as in nginx.
    pub(super) on_backups: bool,
    /// nginx `hp->hash`: where the walk of a hash stands; `None` before its first step.
    pub(super) walk: Option<u32>,
    /// nginx `hp->rehash`: steps of that walk, or lots drawn.
    pub(super) steps: u32,
    /// nginx `hp->tries`: those that led to a closed peer.
    pub(super) missteps: u32,
}

impl Tried {
    /// Whether the peer at `index` was tried.
    #[must_use]
    pub fn contains(&self, index: usize) -> bool {
        let word = match index / 64 {
            0 => self.first,
            n => self.more.get(n - 1).copied().unwrap_or(0),
        };
        word >> (index % 64) & 1 == 1
    }

    /// How many peers were tried.
    #[must_use]
    pub fn count(&self) -> usize {
        self.more.iter().chain([&self.first]).map(|word| word.count_ones() as usize).sum()
    }

    pub(super) fn insert(&mut self, index: usize) {
        *self.word(index) |= 1 << (index % 64);
    }

    pub(super) fn remove(&mut self, index: usize) {
        *self.word(index) &= !(1 << (index % 64));
    }

    fn word(&mut self, index: usize) -> &mut u64 {
        match index / 64 {
            0 => &mut self.first,
            n => {
                if self.more.len() < n {
                    self.more.resize(n, 0);
                }
                &mut self.more[n - 1]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contains_what_was_inserted_and_not_removed() {
        let mut tried = Tried::default();
        for index in [0, 63, 64, 200] {
            assert!(!tried.contains(index));
            tried.insert(index);
            assert!(tried.contains(index));
        }
        assert_eq!(tried.count(), 4);
        tried.remove(200);
        assert!(!tried.contains(200));
        assert!([1, 62, 65, 199, 200, 201, 10_000].iter().all(|&index| !tried.contains(index)));
    }
}
