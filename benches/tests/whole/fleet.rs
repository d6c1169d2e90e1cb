//! Three edges, two origins on one Postgres and a Redis Cluster, in use while a master dies, an edge is killed and Redis stalls: nobody
//! gets in with a session that ended longer ago than the bound, nobody reads what was overwritten longer ago than the bound, there is
//! no refusal but the one that the outage rule says, and a limit of the fleet is as wrong as it says at most.
//!
//! `proxy/tests/edge/outages.rs` asks the same of edges alone, in front of a scripted origin.

use std::{
    net::SocketAddr,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use http::Method;
use serde_json::json;
use tempfile::TempDir;
use tokio::{task::block_in_place, time::sleep};
use weir_benches::{
    account::{Account, Stamp},
    api,
    client::{Answer, Ask, Client},
    system::{listening, loopback, program, serving},
};
use weir_testkit::{Child, Postgres, RedisCluster, free_port};

use crate::{arrive, until};

/// How long a change may take to be noticed while all is well: `staleness` of sessions is half a second, a purge takes milliseconds, and
/// the rest is a busy machine's.
const BOUND: Duration = Duration::from_secs(5);
/// What may go wrong for so long after everybody has found out that an outage is over.
const RECOVERY: Duration = Duration::from_secs(3);
/// By when everybody has.
const LONGEST: Duration = Duration::from_secs(90);
const EDGES: usize = 3;
/// The limit of the fleet, for one client.
const RATE: f64 = 40.0;
const BURST: f64 = 20.0;
const LEASE: f64 = 5.0;
const SECRET: &str = "a test's secret of more than thirty-two bytes";

struct Edge {
    address: SocketAddr,
    admin: SocketAddr,
    process: Child,
}

struct Fleet {
    edges: Vec<Edge>,
    /// How many of them live.
    living: AtomicUsize,
    cluster: RedisCluster,
    /// When Redis was away: the owner of some keys is enough.
    outages: Mutex<Vec<(Instant, Option<Instant>)>>,
    is_over: AtomicBool,
    versions: AtomicU64,
    _origins: Vec<Child>,
    _postgres: Postgres,
}

impl Fleet {
    fn start() -> Self {
        let (cluster, postgres) = (RedisCluster::start(), Postgres::start());
        let nodes = cluster.addresses();
        let (database, origin) = (postgres.create_database(), program(None, "weir-origin").unwrap());
        let origins = ["a", "b"].map(|name| {
            let mut command = Command::new(&origin);
            let redis = format!("redis-cluster://{}", nodes.replace(['[', ']', ' '], ""));
            command.args(["serve", "--listen", "127.0.0.1:0", "--name", name, "--redis-url", &redis]);
            command.args(["--database-url", &database, "--argon2-memory", "8", "--argon2-passes", "1"]);
            command.env("WEIR_IDENTITY_SECRET", SECRET);
            listening(name, command, TempDir::new().unwrap()).unwrap()
        });
        let servers = origins.each_ref().map(|(_, address)| address.to_string()).join(", ");
        let edges = (0..EDGES).map(|_| edge(&nodes, &servers)).collect();
        Self {
            edges,
            living: EDGES.into(),
            cluster,
            outages: Mutex::default(),
            is_over: false.into(),
            versions: 0.into(),
            _origins: origins.map(|(process, _)| process).into(),
            _postgres: postgres,
        }
    }

    fn goes_on(&self) -> bool {
        !self.is_over.load(SeqCst)
    }

    fn lives(&self, at: usize) -> bool {
        at < self.living.load(SeqCst)
    }

    /// A connection to each edge.
    fn clients(&self) -> Vec<Client> {
        self.edges.iter().map(|edge| Client::new(None, edge.address)).collect()
    }

    fn outage_begins(&self) {
        self.outages.lock().unwrap().push((Instant::now(), None));
    }

    /// When every edge hears of purges and believes sessions again, wherever in the cluster these are.
    async fn outage_ends(&self) {
        for key in 0..12 {
            let (token, key) = (format!("probe-{key}"), format!("session:probe-{key}"));
            let set = || block_in_place(|| self.cluster.try_ask(&["SET", &key, r#"{"user_id":"probe"}"#]));
            until("the cluster is back", async || set().as_deref() == Some("OK")).await;
            for edge in &self.edges[..self.living.load(SeqCst)] {
                let (mut client, mut admin) =
                    (Client::new(None, edge.address), Client::new(None, edge.admin));
                let probe = Ask::new(Method::GET, "/in").with_token(&token);
                until("sessions are believed", async || crate::ask(&mut client, &probe).await.status == 200)
                    .await;
                let metrics = Ask::new(Method::GET, "/metrics");
                until("purges are heard", async || {
                    let metrics = crate::ask(&mut admin, &metrics).await.body;
                    String::from_utf8_lossy(&metrics).contains("weir_fleet_purges_heard 1\n")
                })
                .await;
            }
        }
        self.outages.lock().unwrap().last_mut().unwrap().1 = Some(Instant::now());
    }

    /// Whether nothing of an outage, nor of what follows one, lies between these.
    fn spares(&self, since: Instant, until: Instant) -> bool {
        let is_apart = |(begin, end): &(Instant, Option<Instant>)| {
            until < *begin || end.is_some_and(|end| end + RECOVERY < since)
        };
        self.outages.lock().unwrap().iter().all(is_apart)
    }

    /// Whether all was well since then.
    fn is_well(&self, since: Instant) -> bool {
        self.spares(since, Instant::now())
    }

    /// Asks an edge that lives; what Redis is needed for is 503 in an outage, and then nothing else is wrong.
    async fn ask(&self, client: &mut Client, what: Ask) -> Answer {
        let began = Instant::now();
        let answer = crate::ask(client, &what).await;
        let is_fine = answer.status.as_u16() < 500 || answer.status == 503 && !self.is_well(began);
        assert!(is_fine, "{} {}: {} {}", what.method, what.target, answer.status, answer.json());
        answer
    }

    /// What the cluster has of a session; a failover may lose what its master had just been told.
    fn has(&self, token: &str) -> bool {
        let key = format!("session:{token}");
        block_in_place(|| self.cluster.try_ask(&["EXISTS", &key])).as_deref() != Some("0")
    }

    /// Logs in, is let in everywhere, logs out, and is let in nowhere any more.
    async fn comes_and_goes(self: Arc<Self>, who: usize) -> usize {
        let (mut clients, mut rounds) = (self.clients(), 0);
        let account = Account::new(who, format!("person-{who}@example.org"), "a weir holds".into());
        arrive(&mut clients[0], &account).await;
        while self.goes_on() {
            let (began, at) = (Instant::now(), rounds % 2);
            let login = api::login(&account.email, &account.password);
            let login = self.ask(&mut clients[at], login).await;
            let Some(token) = api::token(&login) else {
                assert!(!self.is_well(began), "a login fails only in an outage: {}", login.status);
                continue;
            };
            for (at, client) in clients.iter_mut().enumerate() {
                if self.lives(at) {
                    let me = self.ask(client, api::me().with_token(&token)).await;
                    let is_excused = me.status == 401 && !self.is_well(began);
                    assert!(me.status == 200 || me.status == 503 || is_excused, "{}", me.status);
                }
            }
            // 401 is as good: the session ended in a try whose answer was lost, or never was.
            while !matches!(
                self.ask(&mut clients[1 - at], api::logout().with_token(&token)).await.status.as_u16(),
                204 | 401
            ) {
                assert!(!self.is_well(began), "a logout fails only in an outage");
                sleep(Duration::from_millis(20)).await;
            }
            let ended = Instant::now();
            for (at, client) in clients.iter_mut().enumerate() {
                while self.lives(at) {
                    let asked = Instant::now();
                    if self.ask(client, api::me().with_token(&token)).await.status == 401 {
                        break;
                    }
                    // In an outage a 503 goes on; who is let in must be believed by Redis itself.
                    let is_within = asked < ended + BOUND || !self.is_well(began);
                    assert!(is_within || self.has(&token), "let in {:?} after the logout", asked - ended);
                    assert!(asked < ended + LONGEST, "neither in nor out");
                }
            }
            rounds += 1;
        }
        rounds
    }

    /// Writes through one edge, or beside all of them with a purge by an operator, and reads at each until it shows. How long that took.
    async fn writes(self: Arc<Self>) -> Vec<Duration> {
        let (mut clients, mut took) = (self.clients(), Vec::new());
        let account = Account::new(9, "writer@example.org".into(), "a weir holds".into());
        let token = arrive(&mut clients[0], &account).await;
        let me = crate::ask(&mut clients[0], &api::me().with_token(&token)).await.json();
        let tag = format!("vault:{}", me["id"].as_str().unwrap());
        while self.goes_on() {
            let (began, at, is_quiet) = (Instant::now(), took.len() % 2, took.len() % 4 > 1);
            let mut write = api::create(Stamp { owner: 9, version: self.versions.fetch_add(1, SeqCst) });
            if is_quiet {
                write.target = "/quiet".into();
            }
            let written = self.ask(&mut clients[at], write.with_token(&token)).await;
            let Some(made) = api::seen_item(&written).filter(|_| written.status == 201) else {
                assert!(!self.is_well(began), "a write fails only in an outage: {}", written.status);
                continue;
            };
            if is_quiet {
                let purge = Ask::new(Method::POST, "/purge").with_body(json!({ "tag": tag }));
                let purged = crate::ask(&mut Client::new(None, self.edges[at].admin), &purge).await;
                let is_told = purged.status == 200 || purged.status == 202 && !self.is_well(began);
                assert!(is_told, "{} {}", purged.status, purged.json());
            }
            let changed = Instant::now();
            for (at, client) in clients.iter_mut().enumerate() {
                while self.lives(at) {
                    let asked = Instant::now();
                    let list = self.ask(client, api::list(None).with_token(&token)).await;
                    if api::seen_page(&list).is_some_and(|(items, _)| items.contains(&made)) {
                        break;
                    }
                    let is_within = asked < changed + BOUND || !self.is_well(began);
                    assert!(is_within, "{} or stale {:?} after the write", list.status, asked - changed);
                    assert!(asked < changed + LONGEST, "stale, and Redis is long back");
                }
            }
            took.push(changed.elapsed());
        }
        took
    }

    /// Asks one edge as often as it can; when what passed was sent, and when it was answered.
    async fn hammers(self: Arc<Self>, at: usize) -> Vec<(Instant, Instant)> {
        let (mut client, mut passed) = (Client::new(None, self.edges[at].address), Vec::new());
        while self.goes_on() && self.lives(at) {
            let sent = Instant::now();
            let answer = crate::ask(&mut client, &Ask::new(Method::GET, "/limited")).await;
            match answer.status.as_u16() {
                200 => passed.push((sent, Instant::now())),
                429 => sleep(Duration::from_millis(2)).await,
                other => panic!("{other}: without Redis each edge counts for itself"),
            }
        }
        passed
    }

    /// What else happens: a master dies, an edge is killed, Redis stalls.
    async fn suffers(&self) {
        sleep(Duration::from_secs(5)).await;
        self.outage_begins();
        // The master that has the purges.
        let slot = self.cluster.nodes()[0].ask(&["CLUSTER", "KEYSLOT", "weir:purges"]);
        let slot: usize = slot.parse().unwrap();
        let owner = [5460, 10922, 16383].iter().position(|last| slot <= *last).unwrap();
        self.cluster.nodes()[owner].child().signal("KILL");
        let is_there = || block_in_place(|| self.cluster.try_ask(&["EXISTS", "weir:purges"]));
        until("a replica takes over", async || is_there().as_deref() == Some("1")).await;
        self.outage_ends().await;
        sleep(RECOVERY + Duration::from_secs(2)).await;

        // Who asks it now is cut off; who asks the others is not.
        self.living.store(EDGES - 1, SeqCst);
        sleep(Duration::from_secs(1)).await;
        self.edges[EDGES - 1].process.signal("KILL");
        sleep(Duration::from_secs(1)).await;

        self.outage_begins();
        for node in self.cluster.nodes() {
            let _dead = node.try_ask(&["CLIENT", "PAUSE", "5000"]);
        }
        sleep(Duration::from_secs(5)).await;
        self.outage_ends().await;
        sleep(RECOVERY + Duration::from_secs(5)).await;
    }

    /// The most that any span of time saw above what it may; all is told, so that a failure can be understood.
    fn judge(&self, mut passed: Vec<(Instant, Instant)>) {
        passed.sort_unstable();
        let (mut worst_well, mut worst) = (f64::MIN, f64::MIN);
        for (first, (from, _)) in passed.iter().enumerate() {
            let mut to = *from;
            for (count, (_, answered)) in (1_u32..).zip(&passed[first..]) {
                to = to.max(*answered);
                let limit = BURST + RATE * (to - *from).as_secs_f64();
                let count = f64::from(count);
                // While Redis is away, each edge alone passes the whole limit; and what it may pass at once comes on top of the fleet's.
                worst = worst.max(count - limit * EDGES as f64 - BURST);
                if self.spares(*from, to) {
                    worst_well = worst_well.max(count - limit);
                }
            }
        }
        let promised = LEASE * EDGES as f64;
        println!(
            "{} passed the limit; at most {worst_well:.1} above it, of {promised} promised; {worst:.1} above that of each edge alone",
            passed.len()
        );
        assert!(worst_well <= promised, "{worst_well} above the limit while Redis was there");
        assert!(worst <= promised, "{worst} above the limits of each edge alone");
        assert!(passed.len() as f64 > RATE * 5.0, "{} passed: a limit that stops everybody", passed.len());
    }
}

fn edge(nodes: &str, servers: &str) -> Edge {
    let (address, admin) = (loopback(free_port()), loopback(free_port()));
    let yaml = format!(
        "listeners: [\"{address}\"]
admin: \"{admin}\"
# A busy machine is no outage.
redis: {{ cluster: {nodes}, timeout: 1s }}
caches: {{ store: {{}} }}
sessions: {{ app: {{ from: [bearer] }} }}
identity: {{ secret: \"{SECRET}\" }}
limits: {{ shared: {{ rate: {RATE}/s, burst: {BURST}, in: redis, lease: {LEASE} }} }}
upstreams: {{ api: {{ servers: [{servers}] }} }}
routes:
  - {{ match: /limited, limit: [shared], answer: {{ body: passed }} }}
  - {{ match: /in, session: {{ use: app, required: true }}, answer: {{ body: in }} }}
  - {{ match: {{ path: /auth/register, methods: [POST] }}, to: api }}
  - {{ match: {{ path: /auth/login, methods: [POST] }}, to: api }}
  - {{ match: {{ path: /auth/me, methods: [GET] }}, session: {{ use: app, required: true }}, to: api }}
  - match: {{ path: /auth/logout, methods: [POST] }}
    session: {{ use: app, required: true, ends: true }}
    to: api
  - match: {{ path: /api/vault/items, methods: [GET] }}
    session: {{ use: app, required: true }}
    cache: {{ in: store, ttl: 10m, key: \"list:${{session.user_id}}:${{query.limit}}\", tags: [\"vault:${{session.user_id}}\"] }}
    to: api
  - match: {{ path: /api/vault/items, methods: [POST] }}
    session: {{ use: app, required: true }}
    invalidate: [\"vault:${{session.user_id}}\"]
    to: api
  # A write that no edge understands.
  - match: {{ path: /quiet, methods: [POST] }}
    session: {{ use: app, required: true }}
    rewrite: /api/vault/items
    to: api
"
    );
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("config.yaml");
    std::fs::write(&config, yaml).unwrap();
    let mut command = Command::new(program(None, "weir").unwrap());
    command.arg("run").arg(&config);
    let process = serving(command, address, "/limited").unwrap();
    Edge { address, admin, process }
}

/// Of a task that must not fail.
async fn done<T>(task: tokio::task::JoinHandle<T>) -> T {
    task.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fleet_keeps_its_promises_while_a_master_dies_an_edge_is_killed_and_redis_stalls() {
    let fleet = Arc::new(Fleet::start());
    let hammers: Vec<_> = (0..EDGES).map(|at| tokio::spawn(Arc::clone(&fleet).hammers(at))).collect();
    let people: Vec<_> = (0..2).map(|who| tokio::spawn(Arc::clone(&fleet).comes_and_goes(who))).collect();
    let writer = tokio::spawn(Arc::clone(&fleet).writes());
    fleet.suffers().await;
    fleet.is_over.store(true, SeqCst);
    let (mut rounds, mut passed) = (0, Vec::new());
    for person in people {
        rounds += done(person).await;
    }
    let mut took = done(writer).await;
    for hammer in hammers {
        passed.extend(done(hammer).await);
    }
    took.sort_unstable();
    println!("{rounds} sessions; {} writes, seen after {:?} (median)", took.len(), took[took.len() / 2]);
    fleet.judge(passed);
    assert!(rounds > 10 && took.len() > 20, "too few to mean anything");
}
