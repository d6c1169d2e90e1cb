//! What can be set, by flag or environment variable; each default has its reason.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use axum::http::HeaderName;
use clap::Args;
use lettre::message::Mailbox;

/// Where the data lives and how many connections may wait for it.
// No Debug here and below: URLs and secrets must not end up in a log.
#[derive(Clone, Args)]
pub struct DatabaseConfig {
    /// `sqlite://FILE` (made when missing) or `postgres://…`. SQLite is the default because it needs nothing installed.
    #[arg(
        long,
        env = "WEIR_DATABASE_URL",
        hide_env_values = true,
        default_value = "sqlite://weir-origin.db",
        value_parser = known_store
    )]
    pub database_url: String,
    /// Most connections of this instance. Twenty: cores × 2 + spindles of a mid-size database, and with five instances
    /// still within Postgres's stock `max_connections` of 100 (total = instances × this).
    #[arg(long, env = "WEIR_POOL_MAX", default_value = "20")]
    pub pool_max: NonZeroU32,
    /// Connections kept open when idle, so that the first requests after a quiet time do not pay for connecting.
    #[arg(long, env = "WEIR_POOL_MIN", default_value_t = 5)]
    pub pool_min: u32,
    /// Longest wait for a connection in seconds; then 503. A client that waits longer has given up.
    #[arg(long, env = "WEIR_POOL_ACQUIRE", default_value = "5", value_parser = seconds)]
    pub pool_acquire: Duration,
    /// Idle time in seconds after which a connection above the minimum is closed.
    #[arg(long, env = "WEIR_POOL_IDLE", default_value = "600", value_parser = seconds)]
    pub pool_idle: Duration,
    /// Whether the database is asked through a PgBouncer that pools transactions: every statement then has a transaction of its own, which
    /// costs two round trips. Pooling sessions needs none of this.
    #[arg(long, env = "WEIR_PGBOUNCER")]
    pub pgbouncer: bool,
    /// Instances that share the database, to warn at the start when all of their pools are more than its `max_connections`.
    #[arg(long, env = "WEIR_INSTANCES", default_value = "1")]
    pub instances: NonZeroU32,
    /// Streaming replicas that may answer reads, `postgres://…`, with commas between them. Only with Postgres.
    #[arg(long = "replica-url", env = "WEIR_REPLICA_URLS", hide_env_values = true, value_delimiter = ',')]
    pub replica_urls: Vec<String>,
    /// Seconds that a replica may lag behind and still be asked; also how long a writer's reads go to the primary. Two: longer than a
    /// replica in good health ever lags, short enough that few reads follow a write.
    #[arg(long, env = "WEIR_REPLICA_LAG", default_value = "2", value_parser = seconds)]
    pub replica_lag: Duration,
}

/// How expensive a password hash is. OWASP's first choice for argon2id with one lane: 19 MiB and two passes.
#[derive(Debug, Clone, Args)]
pub struct PasswordConfig {
    /// Memory of one hash in KiB; what makes guessing on graphics cards expensive.
    #[arg(long, env = "WEIR_ARGON2_MEMORY", default_value_t = 19_456)]
    pub argon2_memory: u32,
    /// Passes over that memory.
    #[arg(long, env = "WEIR_ARGON2_PASSES", default_value_t = 2)]
    pub argon2_passes: u32,
}

/// How often one may guess a password.
#[derive(Debug, Clone, Args)]
pub struct ThrottleConfig {
    /// Seconds for which failed logins are remembered.
    #[arg(long, env = "WEIR_LOGIN_WINDOW", default_value = "900", value_parser = seconds)]
    pub login_window: Duration,
    /// Failed logins of one account from one address within that time; then 429. Ten leave room for a forgotten password, and guess
    /// nothing.
    #[arg(long, env = "WEIR_LOGIN_TRIES", default_value = "10")]
    pub login_tries: NonZeroU32,
    /// Failed logins of one account from everywhere; more, because whoever reaches it keeps the owner out, too.
    #[arg(long, env = "WEIR_LOGIN_TRIES_ACCOUNT", default_value = "100")]
    pub login_tries_account: NonZeroU32,
    /// Failed logins from one address; a hundred, because an office may be behind it.
    #[arg(long, env = "WEIR_LOGIN_TRIES_ADDRESS", default_value = "100")]
    pub login_tries_address: NonZeroU32,
}

/// Everything `weir-origin serve` needs.
#[derive(Clone, Args)]
pub struct ServeConfig {
    /// Address to accept on; port 0 asks the system, and the one given is printed. Loopback, because only the edge
    /// should reach the origin.
    #[arg(long, env = "WEIR_LISTEN", default_value = "127.0.0.1:3001")]
    pub listen: SocketAddr,
    /// The store.
    #[command(flatten)]
    pub database: DatabaseConfig,
    /// Redis shared with the edges, `redis://…`, or `redis-cluster://host:port,host:port` with some nodes of a cluster (`rediss` for TLS);
    /// without it the edges ask `GET /auth/session`.
    #[arg(long, env = "WEIR_REDIS_URL", hide_env_values = true)]
    pub redis_url: Option<String>,
    /// Secret of the identity header, shared with the edge; at least 32 bytes (RFC 7518 §3.2 for HS256).
    #[arg(long, env = "WEIR_IDENTITY_SECRET", hide_env_values = true, value_parser = long_secret)]
    pub identity_secret: String,
    /// The header in which the edge says who calls.
    #[arg(long, env = "WEIR_IDENTITY_HEADER", default_value = "x-weir-identity")]
    pub identity_header: HeaderName,
    /// This instance's name, answered as `x-origin`; it shows which peer the edge picked. Default: the listening address.
    #[arg(long, env = "WEIR_NAME")]
    pub name: Option<String>,
    /// Life of a session in seconds; a day, so that people log in once a day at most.
    #[arg(long, env = "WEIR_SESSION_TTL", default_value = "86400", value_parser = seconds)]
    pub session_ttl: Duration,
    /// Sessions that an account may have; a log-in beyond them ends the oldest. Fifty: more devices than a person has, and a program that
    /// logs in for every request fills no table.
    #[arg(long, env = "WEIR_SESSIONS_MOST", default_value = "50")]
    pub sessions_most: NonZeroU32,
    /// Longest time in seconds that requests in flight get at a stop.
    #[arg(long, env = "WEIR_STOP_WITHIN", default_value = "10", value_parser = seconds)]
    pub stop_within: Duration,
    /// The cost of passwords.
    #[command(flatten)]
    pub passwords: PasswordConfig,
    /// The bounds of guessing.
    #[command(flatten)]
    pub throttle: ThrottleConfig,
    /// Whether this process also does jobs. Default: with SQLite, so that one command is everything; with Postgres
    /// `weir-origin worker` does, which can be stopped, counted and placed apart.
    #[arg(long, env = "WEIR_WORK", num_args = 0..=1, default_missing_value = "true")]
    pub work: Option<bool>,
    /// How jobs are done.
    #[command(flatten)]
    pub jobs: JobsConfig,
}

/// Mail.
#[derive(Clone, Args)]
pub struct MailConfig {
    /// The server that takes our mail: `smtp://host:25`, `smtp://user:password@host:587?tls=required` (STARTTLS) or
    /// `smtps://user:password@host:465`. Without it mail is noted in the log, without its words, and not sent: for trying things out.
    #[arg(long, env = "WEIR_SMTP_URL", hide_env_values = true)]
    pub smtp_url: Option<String>,
    /// A file of certificates (PEM) that the mail server may be signed by, beside the system's.
    #[arg(long, env = "WEIR_SMTP_CA")]
    pub smtp_ca: Option<PathBuf>,
    /// Who the mail is from, `Name <address>`.
    #[arg(long, env = "WEIR_MAIL_FROM", default_value = "Weir <weir@localhost>", value_parser = mailbox)]
    pub mail_from: Mailbox,
    /// What links in mails begin with, without a slash at the end; `/verify-email?token=…` follows. Default: where `make run` has its edge.
    #[arg(long, env = "WEIR_SITE_URL", default_value = "http://127.0.0.1:8080", value_parser = site)]
    pub site_url: String,
}

/// How jobs are done.
#[derive(Clone, Args)]
pub struct JobsConfig {
    /// Jobs that one statement takes. Thirty-two: few enough to be done within a lease.
    #[arg(long, env = "WEIR_JOB_BATCH", default_value = "32")]
    pub job_batch: NonZeroU32,
    /// Jobs that are done at once, each with a connection to the mail server; also the bound of mails that are sent twice if the process
    /// dies. Four, because mail servers count connections.
    #[arg(long, env = "WEIR_JOB_CONCURRENCY", default_value = "4")]
    pub job_concurrency: NonZeroU32,
    /// Tries until a job is given up. Twenty take half a day, which a mail server may be away for.
    #[arg(long, env = "WEIR_JOB_TRIES", default_value = "20")]
    pub job_tries: NonZeroU32,
    /// Seconds after which others may take over the jobs of a process that died; a try gets half of it.
    #[arg(long, env = "WEIR_JOB_LEASE", default_value = "60", value_parser = seconds)]
    pub job_lease: Duration,
    /// Seconds between the first failure and the second try; doubled with each further one, up to an hour.
    #[arg(long, env = "WEIR_JOB_BACKOFF", default_value = "10", value_parser = seconds)]
    pub job_backoff: Duration,
    /// Seconds between two looks at the table when there was nothing to do.
    #[arg(long, env = "WEIR_JOB_POLL", default_value = "1", value_parser = seconds)]
    pub job_poll: Duration,
    /// What the names of the edges' keys in Redis begin with, as their `redis.prefix` has it: with a Redis, they are told there to forget the
    /// lists of whoever an item was delivered for.
    #[arg(long, env = "WEIR_EDGE_PREFIX", default_value = "weir:")]
    pub edge_prefix: String,
    /// Mail.
    #[command(flatten)]
    pub mail: MailConfig,
}

/// Everything `weir-origin worker` needs.
#[derive(Clone, Args)]
pub struct WorkerConfig {
    /// Address of `/health` and `/metrics`; port 0 asks the system, and the one given is printed.
    #[arg(long, env = "WEIR_WORKER_LISTEN", default_value = "127.0.0.1:3002")]
    pub listen: SocketAddr,
    /// As for `serve`: the links in mails are signed with it.
    #[arg(long, env = "WEIR_IDENTITY_SECRET", hide_env_values = true, value_parser = long_secret)]
    pub identity_secret: String,
    /// The Redis of those who serve, as there: they wake this worker through it, and it tells the edges what to forget. Without it a job waits
    /// for the next look at the table, and a list that an edge keeps shows what was delivered when its time is over.
    #[arg(long, env = "WEIR_REDIS_URL", hide_env_values = true)]
    pub redis_url: Option<String>,
    /// Longest time in seconds that jobs in hand get at a stop.
    #[arg(long, env = "WEIR_STOP_WITHIN", default_value = "10", value_parser = seconds)]
    pub stop_within: Duration,
    /// The store.
    #[command(flatten)]
    pub database: DatabaseConfig,
    /// How jobs are done.
    #[command(flatten)]
    pub jobs: JobsConfig,
}

fn known_store(url: &str) -> Result<String, String> {
    if ["sqlite:", "postgres:", "postgresql:"].iter().any(|scheme| url.starts_with(scheme)) {
        return Ok(url.to_owned());
    }
    Err("begins neither with sqlite: nor with postgres:".into())
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        // A year is longer than anything here may last, and far from where instants overflow.
        Ok(seconds @ 1..=31_536_000) => Ok(Duration::from_secs(seconds)),
        _ => Err("a whole number of seconds, from 1 to those of a year".into()),
    }
}

fn mailbox(text: &str) -> Result<Mailbox, String> {
    text.parse().map_err(|_| "not like Name <address@example.org>".into())
}

fn site(url: &str) -> Result<String, String> {
    if url.starts_with("http://") || url.starts_with("https://") {
        return Ok(url.trim_end_matches('/').to_owned());
    }
    Err("begins neither with http:// nor with https://".into())
}

fn long_secret(text: &str) -> Result<String, String> {
    if text.len() < 32 {
        return Err(format!("{} bytes are too short, 32 is the least", text.len()));
    }
    Ok(text.to_owned())
}
