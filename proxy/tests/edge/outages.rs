//! Three edges on one Redis Cluster, in use while a master dies, an edge is killed and Redis stalls: nobody gets in with
//! a session that ended longer ago than the bound, nobody reads what was overwritten longer ago than the bound, and there is
//! no other refusal than the one that the outage rule says.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

use weir_testkit::RedisCluster;

use crate::support::{Edge, Origin, until};

/// How long a change may take to be noticed while all is well: `staleness` of sessions is half a second, a purge takes
/// milliseconds, and the rest is a busy machine's.
const BOUND: Duration = Duration::from_secs(3);
/// And after an outage has ended: a failover by the cluster, and the edges' finding out.
const RECOVERY: Duration = Duration::from_secs(20);

/// When Redis was away: the owner of some keys is enough.
#[derive(Default)]
struct Outages(Mutex<Vec<(Instant, Option<Instant>)>>);

impl Outages {
    fn begin(&self) {
        self.0.lock().unwrap().push((Instant::now(), None));
    }

    fn end(&self) {
        self.0.lock().unwrap().last_mut().unwrap().1 = Some(Instant::now());
    }

    /// Whether the time from `since` to now has nothing of an outage, nor of what follows one.
    fn spare(&self, since: Instant) -> bool {
        let is_over = |end: &Option<Instant>| end.is_some_and(|end| end + RECOVERY < since);
        self.0.lock().unwrap().iter().all(|(_, end)| is_over(end))
    }
}

struct Fleet {
    cluster: RedisCluster,
    edges: Vec<Edge>,
    /// Which of them live.
    living: AtomicUsize,
    outages: Outages,
    is_over: AtomicBool,
}

/// An item of which every write makes a new version, which is what reads say; and what sessions are for.
fn origin(versions: Arc<AtomicUsize>) -> Origin {
    Origin::start(move |request, wire| {
        let version = match request.method() {
            "POST" => versions.fetch_add(1, Ordering::SeqCst) + 1,
            _ => versions.load(Ordering::SeqCst),
        };
        wire.answer("", version.to_string());
    })
}

impl Fleet {
    fn edges(&self) -> &[Edge] {
        &self.edges[..self.living.load(Ordering::SeqCst)]
    }

    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::SeqCst)
    }

    fn lives(&self, at: usize) -> bool {
        at < self.living.load(Ordering::SeqCst)
    }

    /// The status that a session gets at one edge.
    fn status(edge: &Edge, token: &str) -> u16 {
        edge.ask("/me", &format!("authorization: Bearer {token}\r\n")).status
    }

    /// Logs in, is let in everywhere, logs out, and is let in nowhere any more.
    fn comes_and_goes(&self, who: usize) -> usize {
        let mut rounds = 0;
        while self.goes_on() {
            let (began, token) = (Instant::now(), format!("t{who}-{rounds}"));
            let key = format!("session:{token}");
            let json = format!(r#"{{"user_id":"u{who}","session_id":"s"}}"#);
            if self.cluster.try_ask(&["SET", &key, &json]).as_deref() != Some("OK") {
                assert!(!self.outages.spare(began), "a login fails only in an outage");
                continue;
            }
            for edge in self.edges() {
                let status = Self::status(edge, &token);
                // In an outage, 503; and a failover may lose what its master had just been told.
                let is_excused = || matches!(status, 503 | 401) && !self.outages.spare(began);
                assert!(status == 200 || is_excused(), "{status} for a session that is one");
            }
            while self.cluster.try_ask(&["DEL", &key]).is_none_or(|count| count.parse::<u8>().is_err()) {
                assert!(!self.outages.spare(began), "a logout fails only in an outage");
            }
            let ended = Instant::now();
            for (at, edge) in self.edges.iter().enumerate() {
                while self.lives(at) {
                    let asked = Instant::now();
                    match Self::status(edge, &token) {
                        401 => break,
                        503 => assert!(!self.outages.spare(began), "503 is for outages"),
                        // Memory is believed for as long as Redis was heard lately, whatever becomes of it.
                        200 => {
                            let is_within = asked < ended + BOUND;
                            let is_there = || self.cluster.try_ask(&["EXISTS", &key]).as_deref() != Some("0");
                            assert!(is_within || is_there(), "let in {:?} after the logout", asked - ended);
                        }
                        other => panic!("{other} for a session that is none"),
                    }
                }
            }
            rounds += 1;
        }
        rounds
    }

    /// Writes by one edge, and reads by the others until they show it. Says how long each took.
    fn writes(&self) -> Vec<Duration> {
        let mut took = Vec::new();
        while self.goes_on() {
            let writer = &self.edges()[took.len() % self.edges().len()];
            let began = Instant::now();
            let answer = writer.send("POST /item HTTP/1.1\r\nhost: edge.test\r\ncontent-length: 0\r\n\r\n");
            assert_eq!(answer.status, 200, "an outage of Redis is none of the cache");
            let version: usize = answer.text().parse().unwrap();
            let written = Instant::now();
            for (at, edge) in self.edges.iter().enumerate() {
                while self.lives(at) {
                    let asked = Instant::now();
                    let answer = edge.get("/item");
                    assert_eq!(answer.status, 200, "an outage of Redis is none of the cache");
                    if answer.text().parse::<usize>().unwrap() >= version {
                        break;
                    }
                    let is_within = asked < written + BOUND;
                    assert!(
                        is_within || !self.outages.spare(began),
                        "stale {:?} after the write",
                        asked - written
                    );
                    assert!(asked < written + 3 * RECOVERY, "stale, and Redis is long back");
                }
            }
            took.push(written.elapsed());
        }
        took
    }
}

#[test]
fn a_fleet_keeps_its_promises_while_a_master_dies_an_edge_is_killed_and_redis_stalls() {
    let cluster = RedisCluster::start();
    let origins = Arc::<AtomicUsize>::default();
    let origins = [origin(Arc::clone(&origins)), origin(origins)];
    let yaml = format!(
        "redis: {{ cluster: {} }}
caches: {{ store: {{}} }}
sessions: {{ app: {{ from: [bearer] }} }}
identity: {{ secret: \"a test's secret of more than thirty-two bytes\" }}
upstreams: {{ api: {{ servers: [{}, {}] }} }}
routes:
  - {{ match: /me, session: {{ use: app, required: true }}, to: api }}
  - {{ match: /*, cache: {{ in: store, ttl: 1h }}, to: api }}
",
        cluster.addresses(),
        origins[0].address,
        origins[1].address
    );
    let edges: Vec<_> = (0..3).map(|_| Edge::start(&yaml)).collect();
    for edge in &edges {
        until("it hears the fleet", || edge.hears_fleet());
    }
    let (living, outages, is_over) = (AtomicUsize::new(3), Outages::default(), AtomicBool::new(false));
    let fleet = &Fleet { cluster, edges, living, outages, is_over };
    let (rounds, took) = thread::scope(|scope| {
        let people: Vec<_> = (0..2).map(|who| scope.spawn(move || fleet.comes_and_goes(who))).collect();
        let writer = scope.spawn(|| fleet.writes());
        // Ends the others also when something below fails.
        struct Over<'f>(&'f AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let over = Over(&fleet.is_over);
        sleep(Duration::from_secs(1));

        // The master that has the purges.
        fleet.outages.begin();
        let slot: usize =
            fleet.cluster.nodes()[0].ask(&["CLUSTER", "KEYSLOT", "weir:purges"]).parse().unwrap();
        let owner = [5460, 10922, 16383].iter().position(|last| slot <= *last).unwrap();
        fleet.cluster.nodes()[owner].child().signal("KILL");
        until("a replica takes over", || {
            fleet.cluster.try_ask(&["EXISTS", "weir:purges"]).as_deref() == Some("1")
        });
        fleet.outages.end();
        sleep(Duration::from_secs(2));

        // Who asks it now is refused; who asks the others is not.
        fleet.living.store(2, Ordering::SeqCst);
        sleep(Duration::from_secs(1));
        fleet.edges[2].signal("KILL");
        sleep(Duration::from_secs(1));

        fleet.outages.begin();
        for node in fleet.cluster.nodes() {
            let _ = node.try_ask(&["CLIENT", "PAUSE", "5000"]);
        }
        sleep(Duration::from_secs(5));
        fleet.outages.end();
        for edge in fleet.edges() {
            until("it hears the fleet again", || edge.hears_fleet());
        }
        sleep(Duration::from_secs(2));
        drop(over);
        let rounds: usize = people.into_iter().map(|person| person.join().unwrap()).sum();
        (rounds, writer.join().unwrap())
    });
    let mut sorted = took.clone();
    sorted.sort();
    println!("{rounds} sessions, {} writes, seen after {:?} (median)", took.len(), sorted[took.len() / 2]);
    assert!(
        rounds > 5 && took.len() > 20,
        "{rounds} sessions and {} writes are too few to mean anything",
        took.len()
    );
}
