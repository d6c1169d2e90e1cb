//! How long each query takes on a realistic volume, beside its budget, with its plan: `make bench-origin`.
//!
//! The question: does every query of a million users and ten million items stay within its budget? The volume is a tenth of that unless
//! asked otherwise; what is printed says which. One connection, one query at a time, a random user for each, a Postgres of its own on this
//! machine with stock settings (but nothing synced to disk, which reads do not notice). Ends with 1 when a p95 is over its budget.
#![allow(clippy::unwrap_used, reason = "a benchmark may fail where it stands")]

use std::time::{Duration, Instant};

use clap::Parser;
use rand::Rng;
use sha2::{Digest, Sha256};
use uuid::Uuid;
use weir_origin::{
    accounts,
    config::{DatabaseConfig, PasswordConfig},
    database::{Database, Moment, Pool},
    items, notes,
    password::Passwords,
    posts,
    seed::{self, Volume},
    sessions,
    token::TokenHash,
};
use weir_testkit::Postgres;

/// The volume that the budgets are for.
const FULL: (u64, u64) = (1_000_000, 10_000_000);
/// Rows of a page and the one that says whether there is another.
const PAGE: i32 = 21;

#[derive(Parser)]
struct Cli {
    /// A tenth of the full volume.
    #[arg(long, default_value_t = FULL.0 / 10)]
    users: u64,
    /// A tenth of the full volume.
    #[arg(long, default_value_t = FULL.1 / 10)]
    items: u64,
    /// How often each query is measured.
    #[arg(long, default_value_t = 500)]
    samples: usize,
}

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    database: DatabaseConfig,
    #[command(flatten)]
    passwords: PasswordConfig,
}

/// Runs a query as often as asked, and prints its line and its plan. A macro, because each query has a type of its own.
macro_rules! measure {
    ($bench:expr, $name:literal, $budget:literal, |$n:ident, $user:ident| $query:expr) => {{
        let mut took = Vec::new();
        for sample in 0..=$bench.samples {
            let $n: u64 = rand::rng().random_range(0..$bench.users);
            let $user = $bench.user($n).await;
            let started = Instant::now();
            let _ = $query.await.unwrap();
            // The first one connects and reads the catalogue.
            if sample > 0 {
                took.push(started.elapsed());
            }
        }
        let plan = async |logged: usize| {
            let $n = $bench.users / 2;
            let $user = $bench.user($n).await;
            sqlx::query("SET auto_explain.log_min_duration = 0").execute(&$bench.pool).await.unwrap();
            let _ = $query.await.unwrap();
            sqlx::query("SET auto_explain.log_min_duration = -1").execute(&$bench.pool).await.unwrap();
            $bench.plan(logged)
        };
        let plan = plan($bench.postgres.child().output().len()).await;
        $bench.report($name, Duration::from_millis($budget), took, &plan);
    }};
}

struct Bench {
    postgres: Postgres,
    database: Database,
    pool: Pool,
    users: u64,
    samples: usize,
    over: bool,
}

#[tokio::main]
async fn main() {
    let cli = Cli::parse();
    let postgres = Postgres::start_with(&["shared_preload_libraries=auto_explain"]);
    let url = postgres.create_database();
    // One connection, so that the setting that shows the plan is the query's.
    let args =
        ["bench", "--database-url", &url, "--pool-max", "1", "--argon2-memory", "8", "--argon2-passes", "1"];
    let settings = Settings::parse_from(args);
    let database = Database::open(&settings.database).await.unwrap();
    let Database::Postgres(pool) = database.clone() else { unreachable!("a Postgres URL") };
    let volume = Volume {
        users: cli.users,
        items: cli.items,
        notes: cli.items / 5,
        posts: cli.users / 10,
        likes: cli.users,
        sessions: cli.users * 2,
    };
    let passwords = Passwords::new(&Settings::parse_from(["bench"]).passwords).unwrap();
    let started = Instant::now();
    seed::seed(&database, &settings.passwords, &volume, Moment::now()).await.unwrap();
    let size: String = sqlx::query_scalar("SELECT pg_size_pretty(pg_database_size(current_database()))")
        .fetch_one(&pool)
        .await
        .unwrap();
    println!(
        "{} users and {} items ({:.0} % and {:.0} % of the full volume), {} notes, {} posts, {} likes, {} sessions: {size}, seeded in {:.0?}",
        volume.users,
        volume.items,
        100.0 * volume.users as f64 / FULL.0 as f64,
        100.0 * volume.items as f64 / FULL.1 as f64,
        volume.notes,
        volume.posts,
        volume.likes,
        volume.sessions,
        started.elapsed(),
    );
    println!("{:<32} {:>8} {:>9} {:>9} {:>9}", "query", "budget", "p50", "p95", "p99");

    let mut bench = Bench { postgres, database, pool, users: cli.users, samples: cli.samples, over: false };
    let now = Moment::now();
    let week = Moment::cut(now.timestamp() - jiff::SignedDuration::from_hours(7 * 24));
    let items = |filter: fn(&mut items::Filter)| {
        let mut all = items::Filter::default();
        filter(&mut all);
        all
    };
    let (all, letters, joys) = (
        items(|_| {}),
        items(|f| f.kind = Some("letter".into())),
        items(|f| f.emotion_category = Some("joy".into())),
    );
    let (important, of_1999, scheduled) = (
        items(|f| f.importance_score = Some(50)),
        items(|f| f.keyword = Some("year-1999".into())),
        items(|f| f.scheduled = Some(true)),
    );
    let desk = notes::Filter { archived: false, trashed: false, pinned: None, favourite: None };
    let db = &bench.database.clone();
    measure!(bench, "user by e-mail", 10, |n, _user| accounts::sql::credentials(db, &email(n)));
    measure!(bench, "session by token", 5, |n, _user| sessions::sql::find(db, token(n), now));
    measure!(bench, "profile with user", 10, |_n, user| accounts::sql::find(db, user));
    measure!(bench, "a user's sessions", 15, |_n, user| sessions::sql::page(db, user, None, PAGE, now));
    measure!(bench, "items", 50, |_n, user| items::sql::page(db, user, &all, None, PAGE));
    measure!(bench, "items by type", 50, |_n, user| items::sql::page(db, user, &letters, None, PAGE));
    measure!(bench, "items by emotion", 50, |_n, user| items::sql::page(db, user, &joys, None, PAGE));
    measure!(bench, "items by importance", 50, |_n, user| items::sql::page(db, user, &important, None, PAGE));
    measure!(bench, "items by keyword", 50, |_n, user| items::sql::page(db, user, &of_1999, None, PAGE));
    measure!(bench, "items to be delivered", 50, |_n, user| items::sql::page(
        db, user, &scheduled, None, PAGE
    ));
    measure!(bench, "notes", 50, |_n, user| notes::sql::page(db, user, &desk, None, PAGE));
    measure!(bench, "posts with their authors", 50, |_n, _user| posts::sql::page(db, None, None, PAGE));
    // Off the async threads, as many at once as there are cores: what a login costs beside its queries.
    let stored = passwords.hash(seed::PASSWORD.into()).await.unwrap();
    measure!(bench, "password check (argon2id)", 300, |_n, _user| passwords
        .verify(seed::PASSWORD.into(), Some(stored.clone())));
    // An aggregate over a week of likes, kept for minutes by the edge: beyond the budget of a query that every request runs.
    measure!(bench, "top ten (heavy, kept)", 500, |_n, _user| posts::sql::top(db, week, posts::TOP));
    std::process::exit(i32::from(bench.over));
}

impl Bench {
    /// The id of the nth user; not measured.
    async fn user(&self, n: u64) -> Uuid {
        accounts::sql::credentials(&self.database, &email(n)).await.unwrap().unwrap().id
    }

    /// The scans of the last plan that was logged since.
    fn plan(&self, logged: usize) -> Vec<String> {
        let mut plan = Vec::new();
        weir_testkit::wait_until(Duration::from_secs(5), || {
            let log = self.postgres.child().output();
            let last = log[logged..].rsplit("plan:").next().unwrap_or_default().to_owned();
            plan = last
                .lines()
                .filter(|line| line.contains("Scan "))
                .map(|line| line.trim().to_owned())
                .collect();
            !plan.is_empty()
        });
        plan
    }

    fn report(&mut self, name: &str, budget: Duration, mut took: Vec<Duration>, plan: &[String]) {
        took.sort_unstable();
        let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
        let over = at(95) > budget;
        self.over |= over;
        println!(
            "{name:<32} {budget:>8.0?} {:>9.2?} {:>9.2?} {:>9.2?}{}",
            at(50),
            at(95),
            at(99),
            if over { "  OVER" } else { "" }
        );
        for line in plan {
            println!("    {}", line.split("  (cost").next().unwrap_or(line));
        }
    }
}

fn email(n: u64) -> String {
    format!("user{}@example.org", n + 1)
}

/// As the seed makes them.
fn token(n: u64) -> TokenHash {
    TokenHash::from_bytes(&Sha256::digest(n.to_be_bytes())).unwrap()
}
