//! A lease is its holder's until it ends, and given back in time.

use super::*;

const NAME: &str = "weir:cache:{00}:fill";

impl Edge {
    fn shared(&self) -> Arc<Shared> {
        self.cache.shared().unwrap()
    }

    /// Takes the lease for a minute.
    async fn takes(&self, name: &str) -> Turn {
        let shared = self.shared();
        lease::take(&shared.common.redis, name.to_owned(), PATIENCE, &shared.leases).await.unwrap()
    }

    async fn has(&self, name: &str) -> Lease {
        match self.takes(name).await {
            Turn::Ours(lease) => lease,
            Turn::Another | Turn::Alone => panic!("somebody has {name}"),
        }
    }
}

impl Fleet {
    async fn says(&self, name: &str, word: &str) {
        // Before it ends by itself.
        let waiting = tokio::time::timeout(PATIENCE / 2, async {
            while self.server.ask(&["GET", name]) != word {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        waiting.await.unwrap_or_else(|_| panic!("{name} is not {word:?}"));
    }
}

#[tokio::test]
async fn who_was_too_slow_ends_nobody_else_s_lease() {
    let fleet = Fleet::new();
    let (slow, here) = (fleet.edge(1), fleet.edge(1));
    let late = slow.has(NAME).await;
    fleet.server.ask(&["DEL", NAME]);
    let ours = here.has(NAME).await;
    let token = fleet.server.ask(&["GET", NAME]);
    late.pass();
    // What it says next is said after that.
    slow.has("weir:cache:{00}:other").await.pass();
    fleet.says("weir:cache:{00}:other", "-").await;
    assert_eq!(fleet.server.ask(&["GET", NAME]), token);
    assert!(matches!(slow.takes(NAME).await, Turn::Another));
    ours.pass();
    fleet.says(NAME, "-").await;
    assert!(matches!(slow.takes(NAME).await, Turn::Alone), "nobody need wait");
    // Nor need anybody wait when it ended by itself.
    fleet.server.ask(&["DEL", NAME]);
    let late = slow.has(NAME).await;
    fleet.server.ask(&["DEL", NAME]);
    late.pass();
    fleet.says(NAME, "-").await;
}

#[tokio::test]
async fn a_lease_is_given_back_however_much_waits_to_be_written() {
    let fleet = Fleet::new();
    fleet.tell(1);
    let here = fleet.edge(1);
    let asked = here.asks("/a");
    here.keeps(asked, "x").await;
    let entry = here.cache.get("/a", &HeaderMap::new(), noon()).hit();
    let mut ask = ask("/a", HeaderMap::new());
    ask.named = ["a", "b"].map(Subject::named).to_vec();
    let lease = here.has(NAME).await;
    // Nobody writes while this test waits for nothing.
    (0..QUEUE).for_each(|_| here.shared().keep(&entry, &ask, None));
    here.shared().keep(&entry, &ask, Some(lease));
    assert_eq!(here.count(|stats| stats.dropped), 1);
    fleet.says(NAME, "").await;
}

#[tokio::test]
async fn who_finds_no_room_to_give_a_lease_back_takes_none() {
    let fleet = Fleet::new();
    let here = fleet.edge(1);
    let mut held = Vec::new();
    for nth in 0..lease::MOST {
        held.push(here.has(&format!("{NAME}{nth}")).await);
    }
    assert!(matches!(here.takes(NAME).await, Turn::Alone));
    assert_eq!(fleet.server.ask(&["EXISTS", NAME]), "0");
    held.pop();
    fleet.says(&format!("{NAME}{}", lease::MOST - 1), "").await;
    drop(here.has(NAME).await);
    fleet.says(NAME, "").await;
}
