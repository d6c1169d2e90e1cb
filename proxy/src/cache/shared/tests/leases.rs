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
        lease::take(&shared.common.redis, name.to_owned(), PATIENCE, &shared.jobs).await.unwrap()
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
        while self.server.ask(&["GET", name]) != word {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
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
