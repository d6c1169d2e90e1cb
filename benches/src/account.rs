//! What a user knows to be true: the versions that the system has confirmed, held against every later answer.
//!
//! Each item's title and content start with a [`Stamp`]: who owns it, and which version it is. The account's
//! [`Ledger`] remembers the highest version whose write was *answered*. A read takes the ledger as it was when the read
//! began; an answer that shows less is stale, whichever device wrote and however the write raced a cache fill.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Who owns an item and which version it is, as written into the item itself: `owner-7 v3 …`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The account's number.
    pub owner: usize,
    /// Counted by the account, over all of its items.
    pub version: u64,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "owner-{} v{}", self.owner, self.version)
    }
}

impl Stamp {
    /// Reads the first two words of a title or content.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let owner = words.next()?.strip_prefix("owner-")?.parse().ok()?;
        let version = words.next()?.strip_prefix('v')?.parse().ok()?;
        Some(Self { owner, version })
    }
}

/// One item as an answer shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its id.
    pub id: String,
    /// What its title says, if it is one of ours.
    pub stamp: Option<Stamp>,
}

/// What the system has confirmed about one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It exists, at this version or a later one.
    At(u64),
    /// Its deletion was answered.
    Gone,
}

/// What the system has confirmed about an account's items; cheap to take as it is at one moment.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Book>);

#[derive(Debug, Clone, Default)]
struct Book {
    items: BTreeMap<String, Known>,
    /// Ids in the order in which they were first confirmed.
    births: Vec<String>,
}

/// What is wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It shows less than was confirmed before it was asked for.
    Stale(String),
    /// It shows what belongs to someone else.
    Foreign(String),
}

impl Ledger {
    /// Judges one item of an answer that was asked for when the ledger looked like this.
    ///
    /// # Errors
    /// The [`Fault`], in words for the report.
    pub fn judge(&self, owner: usize, seen: &Seen) -> Result<(), Fault> {
        let id = &seen.id;
        let Some(stamp) = seen.stamp else {
            return Err(Fault::Foreign(format!("item {id} carries nobody's stamp")));
        };
        if stamp.owner != owner {
            return Err(Fault::Foreign(format!(
                "owner-{owner} was shown item {id} of owner-{}",
                stamp.owner
            )));
        }
        match self.get(id) {
            Some(Known::At(version)) if stamp.version < version => {
                Err(Fault::Stale(format!("item {id} at v{}, after v{version} was confirmed", stamp.version)))
            }
            Some(Known::Gone) => Err(Fault::Stale(format!("item {id} after its deletion was confirmed"))),
            // An unknown id is one whose creation is still on its way to the other device.
            Some(Known::At(_)) | None => Ok(()),
        }
    }

    /// The item that was created last, of those that exist.
    #[must_use]
    pub fn youngest(&self) -> Option<&str> {
        let alive = |id: &&String| matches!(self.get(id), Some(Known::At(_)));
        self.0.births.iter().rev().find(alive).map(String::as_str)
    }

    /// Items that exist, in no particular order.
    pub fn alive(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.items.iter().filter_map(|(id, known)| match known {
            Known::At(version) => Some((id.as_str(), *version)),
            Known::Gone => None,
        })
    }

    /// What is known about an item.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Known> {
        self.0.items.get(id).copied()
    }
}

/// One account; its devices share it.
#[derive(Debug)]
pub struct Account {
    /// Counts from 1; what the stamps call the owner.
    pub number: usize,
    /// The name to log in with.
    pub email: String,
    /// The password to log in with.
    pub password: String,
    ledger: Mutex<(Ledger, u64)>,
}

impl Account {
    /// An account that has written nothing yet.
    #[must_use]
    pub fn new(number: usize, email: String, password: String) -> Self {
        Self { number, email, password, ledger: Mutex::default() }
    }

    /// What is confirmed now.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.open().0.clone()
    }

    /// The stamp for the next write.
    #[must_use]
    pub fn next_stamp(&self) -> Stamp {
        let mut book = self.open();
        book.1 += 1;
        Stamp { owner: self.number, version: book.1 }
    }

    /// Writes down what the system has just confirmed.
    pub fn confirm(&self, id: &str, known: Known) {
        let mut open = self.open();
        let book = Arc::make_mut(&mut open.0.0);
        if book.items.insert(id.to_owned(), known).is_none() {
            book.births.push(id.to_owned());
        }
    }

    /// The ledger, and the version given out last.
    fn open(&self) -> MutexGuard<'_, (Ledger, u64)> {
        // Whoever panicked with it open had changed it wholly or not at all.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account::new(7, "seven@example.org".to_owned(), "secret".to_owned())
    }

    fn seen(id: &str, owner: usize, version: u64) -> Seen {
        Seen { id: id.to_owned(), stamp: Some(Stamp { owner, version }) }
    }

    #[test]
    fn a_stamp_reads_what_it_writes_and_nothing_else() {
        let stamp = Stamp { owner: 7, version: 31 };
        assert_eq!(Stamp::read(&format!("{stamp} a note")), Some(stamp));
        for foreign in ["", "a note", "owner-7", "owner-x v1", "owner-7 31"] {
            assert_eq!(Stamp::read(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn what_was_confirmed_or_is_newer_passes() {
        let account = account();
        account.confirm("a", Known::At(3));
        for version in [3, 4] {
            assert_eq!(account.ledger().judge(7, &seen("a", 7, version)), Ok(()));
        }
        assert_eq!(account.ledger().judge(7, &seen("still being created", 7, 5)), Ok(()));
    }

    #[test]
    fn an_older_version_is_stale() {
        let account = account();
        account.confirm("a", Known::At(3));
        assert!(matches!(account.ledger().judge(7, &seen("a", 7, 2)), Err(Fault::Stale(_))));
    }

    #[test]
    fn a_deleted_item_is_stale() {
        let account = account();
        account.confirm("a", Known::Gone);
        assert!(matches!(account.ledger().judge(7, &seen("a", 7, 9)), Err(Fault::Stale(_))));
    }

    #[test]
    fn a_write_confirmed_during_the_read_does_not_count_against_it() {
        let account = account();
        account.confirm("a", Known::At(1));
        let when_asked = account.ledger();
        account.confirm("a", Known::At(2));
        assert_eq!(when_asked.judge(7, &seen("a", 7, 1)), Ok(()));
    }

    #[test]
    fn anothers_item_and_an_unstamped_one_are_foreign() {
        let ledger = account().ledger();
        assert!(matches!(ledger.judge(7, &seen("a", 8, 1)), Err(Fault::Foreign(_))));
        assert!(matches!(ledger.judge(7, &Seen { id: "a".to_owned(), stamp: None }), Err(Fault::Foreign(_))));
    }

    #[test]
    fn the_youngest_item_is_the_last_one_created_that_still_exists() {
        let account = account();
        for (version, id) in (1..).zip(["a", "b", "c"]) {
            account.confirm(id, Known::At(version));
        }
        account.confirm("c", Known::Gone);
        account.confirm("a", Known::At(4));
        assert_eq!(account.ledger().youngest(), Some("b"));
    }
}
