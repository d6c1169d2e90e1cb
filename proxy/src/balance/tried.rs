//! What one request has tried: the peers, and how far the IP hash has walked.

/// The memory of one request across its attempts; starts empty.
#[derive(Debug, Clone)]
pub struct Tried {
    /// One bit a peer; the first 64 need no allocation.
    first: u64,
    more: Vec<u64>,
    /// Once a request came to the backups it stays with them, as in nginx.
    pub(super) on_backups: bool,
    /// nginx `iphp->hash`: where the walk of the IP hash stands.
    pub(super) hash: u32,
    /// nginx `iphp->tries`: steps of that walk that led to a closed peer.
    pub(super) missteps: u32,
}

impl Default for Tried {
    fn default() -> Self {
        Self { first: 0, more: Vec::new(), on_backups: false, hash: 89, missteps: 0 }
    }
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
        let bit = 1 << (index % 64);
        match index / 64 {
            0 => self.first |= bit,
            n => {
                if self.more.len() < n {
                    self.more.resize(n, 0);
                }
                self.more[n - 1] |= bit;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contains_what_was_inserted_and_nothing_else() {
        let mut tried = Tried::default();
        for index in [0, 63, 64, 200] {
            assert!(!tried.contains(index));
            tried.insert(index);
            assert!(tried.contains(index));
        }
        assert_eq!(tried.count(), 4);
        assert!([1, 62, 65, 199, 201, 10_000].iter().all(|&index| !tried.contains(index)));
    }
}
