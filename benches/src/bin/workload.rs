//! The reference workload, from starting the system to the page that says what held: what `make run` runs.

use std::{
    io::{self, IsTerminal},
    net::TcpListener,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};
use weir_benches::{
    account::Account,
    api,
    client::Client,
    report,
    scenario::{self, ABUSERS, ABUSERS_PER_KIND, DEVICES, Outcome, Progress, Scale},
    system::{ORIGINS, Setup, System, program},
    table::{Ink, paint},
};
use weir_testkit::{Postgres, Redis};

/// Users here do in seconds what people do in an hour; config.yaml's own rate is meant for people. Log-ins keep theirs.
const API_RATE: &str = "1000/s";

/// `memory_ttl` of config.yaml: so long an edge may believe a session that ended in Redis.
const LOGOUT_WITH_REDIS: Duration = Duration::from_secs(2);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Starts three origins and the edge, lets users and abusers at them, and says which promises held.
#[derive(Debug, Parser)]
#[command(name = "workload")]
struct Arguments {
    /// End after the report; the exit status is 0 only if every promise held. Otherwise the system keeps serving.
    #[arg(long)]
    once: bool,
    /// Accounts; each has two devices.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(2..=5000))]
    users: u16,
    /// Items that each account has at the start.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    items: u16,
    /// How long users come and go.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// The mean pause of a device between two deeds, in milliseconds.
    #[arg(long, default_value_t = 60)]
    pause: u32,
    /// What the dice start from; a run prints it.
    #[arg(long)]
    seed: Option<u64>,
    /// A Redis that edge and origins share; without one the edge asks the origins for sessions.
    #[arg(long, value_name = "URL", conflicts_with = "start_redis")]
    redis: Option<String>,
    /// Start a Redis for this run (Debian: redis-server).
    #[arg(long)]
    start_redis: bool,
    /// The Postgres of the origins; without one they share a SQLite file.
    #[arg(long, value_name = "URL", conflicts_with = "start_postgres")]
    postgres: Option<String>,
    /// Start a Postgres for this run (Debian: postgresql).
    #[arg(long)]
    start_postgres: bool,
    /// The edge; beside this program by default.
    #[arg(long, value_name = "PATH")]
    weir: Option<PathBuf>,
    /// The origin; beside this program by default.
    #[arg(long, value_name = "PATH")]
    origin: Option<PathBuf>,
    /// The edge's configuration.
    #[arg(long, value_name = "PATH", default_value = "config.yaml")]
    config: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Whatever ends the run, the system is dropped with it, and its programs are stopped.
    let ran = tokio::select! {
        ran = run(&arguments) => ran,
        signal = told_to_stop() => Err(format!("stopped by {signal}").into()),
    };
    match ran {
        Ok(ran) => {
            if !arguments.once {
                println!("\n{}: stopping the edge, then the origins", told_to_stop().await);
            }
            if ran.held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("workload: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is left after the report; dropping it stops the programs, those first that need the others.
struct Ran {
    held: bool,
    _system: System,
    _stores: (Option<Redis>, Option<Postgres>),
}

/// Runs the workload, reports, and leaves the system serving.
async fn run(arguments: &Arguments) -> Result<Ran, Error> {
    let mut setup = setup(arguments)?;
    let redis = arguments.start_redis.then(Redis::start);
    let postgres = arguments.start_postgres.then(Postgres::start);
    setup.redis = setup.redis.or_else(|| redis.as_ref().map(Redis::url));
    setup.database = setup.database.or_else(|| postgres.as_ref().map(Postgres::create_database));
    let scale = Scale {
        users: arguments.users.into(),
        items: arguments.items.into(),
        lasts: Duration::from_secs(arguments.seconds.into()),
        pause: Duration::from_millis(arguments.pause.into()),
        seed: arguments.seed.unwrap_or_else(rand::random),
        logout_bound: if setup.redis.is_some() { LOGOUT_WITH_REDIS } else { Duration::ZERO },
    };
    let mut system = {
        let setup = setup.clone();
        tokio::task::spawn_blocking(move || System::start(&setup)).await??
    };
    introduce(&setup, &system, scale);

    let accounts = watched("seeding", scenario::seeding_steps(scale), async |progress| {
        scenario::seed(system.edge, scale, progress).await
    })
    .await?;
    let outcome = watched_for(scale.lasts, async |progress| {
        scenario::drive(system.edge, &accounts, scale, progress).await
    })
    .await;
    println!("{}", report::page(&outcome));
    if let Some(fallen) = system.fallen() {
        return Err(fallen.into());
    }
    println!("{}", conclusion(&outcome, scale));
    if !arguments.once {
        invite(&system, &accounts).await?;
    }
    Ok(Ran { held: outcome.promises.all_held(), _system: system, _stores: (redis, postgres) })
}

fn setup(arguments: &Arguments) -> Result<Setup, Error> {
    Ok(Setup {
        weir: program(arguments.weir.as_deref(), "weir")?,
        origin: program(arguments.origin.as_deref(), "weir-origin")?,
        config: arguments.config.clone(),
        database: arguments.postgres.clone(),
        redis: arguments.redis.clone(),
        // Someone who stays to look around wants an address to remember; a test wants one that is free.
        port: (!arguments.once && is_free(8080)).then_some(8080),
        variables: vec![("API_RATE", API_RATE.to_owned())],
    })
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

fn introduce(setup: &Setup, system: &System, scale: Scale) {
    let database = match &setup.database {
        Some(_) => "Postgres",
        None => "one SQLite file",
    };
    let sessions = match &setup.redis {
        Some(_) => "sessions in Redis",
        None => "sessions asked of the origins",
    };
    println!("{}", paint(Ink::Bold, "Weir: the reference workload"));
    println!("  edge     http://{}, {sessions}", system.edge);
    println!("  origins  {} on {database}", ORIGINS.join(", "));
    println!(
        "  users    {} accounts with {} items and {DEVICES} devices each, and {} abusers, for {} s",
        scale.users,
        scale.items,
        ABUSERS.len() * ABUSERS_PER_KIND,
        scale.lasts.as_secs(),
    );
    match scale.logout_bound {
        Duration::ZERO => println!("  logouts  a dead token must be refused at once"),
        bound => println!("  logouts  a dead token must be refused within {} s", bound.as_secs()),
    }
    println!(
        "  limits   {API_RATE} for each device, these users being in a hurry; log-ins as in config.yaml"
    );
    println!("  dice     --seed {}", scale.seed);
}

fn conclusion(outcome: &Outcome, scale: Scale) -> String {
    match outcome.promises.all_held() {
        true => paint(Ink::Green, "Every promise held."),
        false => paint(Ink::Red, &format!("A promise broke; the same dice: --seed {}", scale.seed)),
    }
}

/// Says what to try, with a session that works.
async fn invite(system: &System, accounts: &[Arc<Account>]) -> Result<(), Error> {
    let Some(account) = accounts.first() else { return Ok(()) };
    let answer = Client::new(None, system.edge).send(&api::login(&account.email, &account.password)).await?;
    let token = api::token(&answer).ok_or("the login's answer has no token")?;
    let (edge, admin) = (system.edge, system.admin);
    let logs: Vec<_> =
        system.logs().map(|(name, path)| format!("{name:<10} logs to {}", path.display())).collect();
    println!(
        "
{}
  http://{edge}/health          the system's own checks
  http://{admin}/metrics        for Prometheus
  http://{admin}/api/metrics    the same as JSON
  {}

  The same list twice: watch Cache-Status and Age
    TOKEN={token}
    curl -i -H \"Authorization: Bearer $TOKEN\" 'http://{edge}/api/vault/items?limit=5'
  A write, after which the list is fresh
    curl -i -H \"Authorization: Bearer $TOKEN\" --json '{{\"type\":\"letter\",\"title\":\"hello\",\"content\":\"river\"}}' http://{edge}/api/vault/items
  Log in yourself
    curl -i --json '{{\"email\":\"{email}\",\"password\":\"{password}\"}}' http://{edge}/auth/login

Ctrl-C stops everything.",
        paint(Ink::Bold, "Still serving"),
        logs.join("\n  "),
        email = account.email,
        password = account.password,
    );
    Ok(())
}

/// Shows how far a piece of work with a known number of steps has come.
async fn watched<T>(name: &'static str, steps: u64, work: impl AsyncFnOnce(&Progress) -> T) -> T {
    let bar = bar(steps, "  {prefix} {bar:40} {pos}/{len}").with_prefix(name);
    show(&bar, work, |done, _| done).await
}

/// Shows how far a piece of work that takes a known time has come.
async fn watched_for<T>(lasts: Duration, work: impl AsyncFnOnce(&Progress) -> T) -> T {
    let length = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
    let bar = bar(length, "  running {bar:40} {msg} deeds");
    show(&bar, work, |_, elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)).await
}

fn bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("the templates above are well formed");
    ProgressBar::new(length).with_style(style.progress_chars("━╸─"))
}

async fn show<T>(
    bar: &ProgressBar,
    work: impl AsyncFnOnce(&Progress) -> T,
    position: impl Fn(u64, Duration) -> u64,
) -> T {
    let progress = Progress::default();
    let begun = tokio::time::Instant::now();
    // Where nobody watches, a line every few seconds says that it is alive.
    let every = if io::stderr().is_terminal() { Duration::from_millis(100) } else { Duration::from_secs(5) };
    let mut tick = tokio::time::interval(every);
    tick.tick().await;
    let mut work = std::pin::pin!(work(&progress));
    loop {
        tokio::select! {
            result = &mut work => {
                bar.finish_and_clear();
                return result;
            }
            _ = tick.tick() => {
                let done = progress.done();
                if bar.is_hidden() {
                    eprintln!("  {} s, {done} requests or deeds so far", begun.elapsed().as_secs());
                }
                bar.set_message(done.to_string());
                bar.set_position(position(done, begun.elapsed()));
            }
        }
    }
}

/// Resolves with the name of the signal that asks to stop.
async fn told_to_stop() -> &'static str {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => "Ctrl-C",
        _ = terminate.recv() => "SIGTERM",
    }
}
