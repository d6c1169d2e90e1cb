//! Does anybody get in with a session that has ended? What `make bench-coherence` runs.
//!
//! *How soon*: a session that the edge remembers is ended in Redis, in four ways, and asked for until it is refused. That counts from Redis'
//! answer to the end of the refusal, one request included.
//! *Ever*: connections that come and go try sixteen sessions as fast as they get answers. Round for round these are made and ended, by one
//! of the four ways; in every second round Redis drops its clients before, in every third it stalls after. Whoever is let in by a request
//! that was sent later than `staleness` after an end is one too many: the exit status is 1.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use weir_benches::{
    measure,
    plain::Connection,
    system::{loopback, program, serving},
    table::{Side, Table, count, span},
    tally::Latencies,
};
use weir_testkit::{Child, Redis, free_port};

/// What the edge is told; its default.
const STALENESS: Duration = Duration::from_millis(500);
/// What 99 of a hundred ends must not pass.
const GOAL: Duration = Duration::from_millis(5);
const SESSIONS: usize = 16;
const CONNECTIONS: usize = 4;
/// Requests of one connection.
const EACH: u64 = 1000;
/// A session that is neither let in nor refused for so long is a fault of its own.
const PATIENCE: Duration = Duration::from_secs(30);
const GOOD: &str = r#"{"user_id":"anna","session_id":"s","email":"a@example.org","roles":[]}"#;

/// Tries to get in with sessions that have ended.
#[derive(Debug, Parser)]
#[command(name = "coherence")]
struct Arguments {
    /// How often, at least.
    #[arg(long, default_value_t = 1_000_000)]
    attempts: u64,
    /// Ends of each kind whose time is taken.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    ends: u32,
    /// The edge; beside this program by default.
    #[arg(long, value_name = "PATH")]
    weir: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("coherence: {problem}");
            ExitCode::FAILURE
        }
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A way to end a session.
#[derive(Debug, Clone, Copy)]
enum End {
    Del,
    Expire,
    Set,
    Flushdb,
}

impl End {
    const ALL: [Self; 4] = [Self::Del, Self::Expire, Self::Set, Self::Flushdb];

    fn say(self, redis: &mut Orders, session: &str) -> io::Result<()> {
        match self {
            Self::Del => redis.say(&["DEL", session]),
            Self::Expire => redis.say(&["EXPIRE", session, "0"]),
            Self::Set => redis.say(&["SET", session, "nobody's"]),
            Self::Flushdb => redis.say(&["FLUSHDB"]),
        }
    }
}

/// Whether nobody got in who must not.
fn run(arguments: &Arguments) -> Result<bool, Error> {
    let server = Redis::start();
    let (edge, _child) = edge(&program(arguments.weir.as_deref(), "weir")?, &server)?;
    let mut redis = Orders::open(server.address())?;
    let machine = measure::machine();
    println!("{}, {} cores", machine["processor"], machine["cores"]);
    how_soon(edge, &mut redis, arguments.ends)?;
    ever(edge, &mut redis, arguments.attempts)
}

fn edge(weir: &Path, redis: &Redis) -> Result<(SocketAddr, Child), Error> {
    let address = loopback(free_port());
    let text = format!(
        "listeners: [\"{address}\"]\nadmin: off\nlog: {{ access: off }}\nredis: {{ url: \"{}\" }}\n\
         identity: {{ secret: \"a bench's secret of more than thirty-two bytes\" }}\n\
         sessions: {{ app: {{ from: [bearer], staleness: {}ms, memory_ttl: 1h }} }}\nroutes:\n\
         \x20 - {{ match: /ready, answer: {{ body: ready }} }}\n\
         \x20 - {{ match: /*, session: {{ use: app, required: true }}, answer: {{ body: in }} }}\n",
        redis.url(),
        STALENESS.as_millis()
    );
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("config.yaml");
    std::fs::write(&config, text)?;
    let mut command = Command::new(weir);
    command.arg("run").arg(&config);
    Ok((address, serving(command, address, "/ready")?))
}

fn status(connection: &mut Connection, token: &str) -> io::Result<u16> {
    connection.get("/", &format!("authorization: Bearer {token}\r\n"))
}

/// Asks until the answer is (not) to be let in; how long that took.
fn until(connection: &mut Connection, token: &str, is_in: bool) -> Result<Duration, Error> {
    let begun = Instant::now();
    while (status(connection, token)? == 200) != is_in {
        if begun.elapsed() > PATIENCE {
            return Err(format!("a session stays {}", if is_in { "out" } else { "in" }).into());
        }
    }
    Ok(begun.elapsed())
}

fn how_soon(edge: SocketAddr, redis: &mut Orders, ends: u32) -> Result<(), Error> {
    let mut connection = Connection::open(edge)?;
    let columns = [("ended by", Side::Left), ("ends", Side::Right), ("p50", Side::Right)];
    let more = [("p99", Side::Right), ("slowest", Side::Right), ("goal", Side::Right), ("", Side::Left)];
    let mut table = Table::new(&[&columns[..], &more].concat());
    for end in End::ALL {
        let mut took = Latencies::default();
        for nth in 0..ends {
            let token = format!("{end:?}-{nth}");
            let session = format!("session:{token}");
            redis.say(&["SET", &session, GOOD])?;
            // A look-up that its own change overtook is not remembered: the next one is.
            for _ in 0..3 {
                until(&mut connection, &token, true)?;
            }
            end.say(redis, &session)?;
            took.record(until(&mut connection, &token, false)?);
        }
        let p99 = took.quantile(0.99);
        table.row([
            format!("{end:?}").to_uppercase(),
            count(took.len()),
            span(took.quantile(0.5)),
            span(p99),
            span(took.quantile(1.0)),
            format!("p99 {}", span(GOAL)),
            if p99 < GOAL { "met" } else { "missed" }.to_owned(),
        ]);
    }
    print!("{table}");
    Ok(())
}

/// What all who try share.
struct Trial {
    edge: SocketAddr,
    sessions: Vec<Session>,
    tried: AtomicU64,
    let_in: AtomicU64,
    /// After an end, but within the bound; and the latest of these, in microseconds after the end.
    late: AtomicU64,
    latest: AtomicU64,
    outside: AtomicU64,
    is_over: AtomicBool,
}

struct Session {
    token: String,
    /// Since when it is; `None` while it may be alive.
    ended: Mutex<Option<Instant>>,
}

impl Session {
    fn ended(&self) -> Option<Instant> {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ends(&self, at: Option<Instant>) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
}

impl Trial {
    /// One connection after the other, until it is over.
    fn tries(&self) -> io::Result<()> {
        while !self.is_over.load(Relaxed) {
            let mut connection = Connection::open(self.edge)?;
            for (nth, session) in (0..EACH).zip(self.sessions.iter().cycle()) {
                if nth % 64 == 0 && self.is_over.load(Relaxed) {
                    break;
                }
                self.try_once(&mut connection, session)?;
            }
        }
        Ok(())
    }

    fn try_once(&self, connection: &mut Connection, session: &Session) -> io::Result<()> {
        let (ended, asked) = (session.ended(), Instant::now());
        let status = status(connection, &session.token)?;
        self.tried.fetch_add(1, Relaxed);
        if status != 200 {
            return Ok(());
        }
        self.let_in.fetch_add(1, Relaxed);
        // Unless it was made anew meanwhile.
        if let Some(ended) = ended.filter(|_| session.ended() == ended) {
            let late = asked.saturating_duration_since(ended);
            self.latest.fetch_max(late.as_micros().try_into().unwrap_or(u64::MAX), Relaxed);
            let counter = if late < STALENESS { &self.late } else { &self.outside };
            counter.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    fn round(&self, redis: &mut Orders, nth: usize) -> Result<(), Error> {
        let mut connection = Connection::open(self.edge)?;
        for session in &self.sessions {
            session.ends(None);
            redis.say(&["SET", &format!("session:{}", session.token), GOOD])?;
        }
        for session in &self.sessions {
            until(&mut connection, &session.token, true)?;
        }
        if nth % 2 == 1 {
            redis.say(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])?;
        }
        for session in &self.sessions {
            End::ALL[nth % 4].say(redis, &format!("session:{}", session.token))?;
            session.ends(Some(Instant::now()));
        }
        if nth % 3 == 2 {
            redis.say(&["CLIENT", "PAUSE", "700"])?;
        }
        for session in &self.sessions {
            until(&mut connection, &session.token, false)?;
        }
        thread::sleep(STALENESS);
        Ok(())
    }
}

fn ever(edge: SocketAddr, redis: &mut Orders, attempts: u64) -> Result<bool, Error> {
    let session = |nth| Session { token: format!("t{nth}"), ended: Mutex::default() };
    let zero = AtomicU64::default;
    let trial = Trial {
        edge,
        sessions: (0..SESSIONS).map(session).collect(),
        tried: zero(),
        let_in: zero(),
        late: zero(),
        latest: zero(),
        outside: zero(),
        is_over: AtomicBool::default(),
    };
    let begun = Instant::now();
    let rounds = thread::scope(|scope| {
        let hands: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(|| trial.tries())).collect();
        let mut rounds = 0;
        let mut ran = Ok(());
        while ran.is_ok()
            && trial.tried.load(Relaxed) < attempts
            && !hands.iter().any(|hand| hand.is_finished())
        {
            ran = trial.round(redis, rounds);
            rounds += 1;
        }
        trial.is_over.store(true, Relaxed);
        for hand in hands {
            hand.join().map_err(|_| "one who tries panicked")??;
        }
        ran.map(|()| rounds)
    })?;
    let said = |counter: &AtomicU64| count(counter.load(Relaxed));
    let outside = trial.outside.load(Relaxed);
    println!(
        "\n{} attempts in {} rounds and {}: {} let in, {} of them after an end and within {} (the latest after {}), {outside} outside",
        said(&trial.tried),
        count(u64::try_from(rounds)?),
        span(begun.elapsed()),
        said(&trial.let_in),
        said(&trial.late),
        span(STALENESS),
        span(Duration::from_micros(trial.latest.load(Relaxed))),
    );
    Ok(outside == 0)
}

/// A connection to Redis for commands that are answered with one line.
struct Orders(BufReader<TcpStream>);

impl Orders {
    fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    fn say(&mut self, words: &[&str]) -> io::Result<()> {
        let mut command = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| command += &format!("${}\r\n{word}\r\n", word.len()));
        self.0.get_mut().write_all(command.as_bytes())?;
        let mut answer = String::new();
        self.0.read_line(&mut answer)?;
        if answer.starts_with('-') || answer.is_empty() { Err(io::Error::other(answer)) } else { Ok(()) }
    }
}
