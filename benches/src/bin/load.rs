//! The load of a busy API on edge, origins, Postgres and Redis: what `make bench-api` runs.
//!
//! The scenarios of a crowd leave their curves beside the program, in `load-NAME.csv` and `load-NAME.svg`.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::{Parser, ValueEnum};
use weir_benches::{
    api,
    client::Client,
    flow::{
        Flow, People, Seen,
        crowd::{self, Second, Shape},
    },
    measure, scenario,
    system::{Setup, System, program},
    table::{Ink, Side, Table, count, paint, span},
    tally::Latencies,
};
use weir_testkit::{Postgres, Redis};

/// Asks of a whole system what its people would, at their rate, and prints each kind of request beside its target.
#[derive(Debug, Parser)]
#[command(name = "load")]
struct Arguments {
    /// What to ask, one after the other.
    #[arg(value_enum, default_values_t = [Load::Normal, Load::Sustained, Load::Peak])]
    loads: Vec<Load>,
    /// How long each lasts; in full, `baseline` takes 300, `rush` 600, `spike` 90 and `soak` 86400.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// People who are there at once, each with a connection and one request at a time; a crowd's scenarios bring their own.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=5000))]
    users: u16,
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

/// How much is asked.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Load {
    /// 1,000 requests a minute.
    Normal,
    /// What must be sustained, all of it at once.
    Sustained,
    /// The peaks, all of them at once.
    Peak,
    /// A hundred people.
    Baseline,
    /// Five hundred people.
    Rush,
    /// A hundred people become a thousand in a minute, or in two thirds of the time if that is less.
    Spike,
    /// A hundred people for as long as there is time.
    Soak,
}

impl Load {
    /// The people of a crowd's scenario, and how many of a thousand of their deeds may fail.
    fn crowd(self, lasts: Duration) -> Option<(Shape, u64)> {
        let (from, to, within, failing) = match self {
            Self::Normal | Self::Sustained | Self::Peak => return None,
            Self::Baseline | Self::Soak => (100, 100, Duration::ZERO, 0),
            Self::Rush => (500, 500, Duration::ZERO, 1),
            Self::Spike => (100, 1_000, (lasts * 2 / 3).min(Duration::from_secs(60)), 0),
        };
        Some((Shape { from, to, within, lasts }, failing))
    }

    fn flows(self) -> Vec<Flow> {
        let per_minute = match self {
            Self::Normal => [50, 150, 500, 150, 150],
            Self::Sustained => [100, 1_000, 10_000, 0, 200],
            Self::Peak => [500, 5_000, 50_000, 0, 1_000],
            Self::Baseline | Self::Rush | Self::Spike | Self::Soak => [0; 5],
        };
        [(api::REGISTER, 500), (api::LOGIN, 200), (api::ME, 100), (api::LOGOUT, 100), (api::PROFILE, 150)]
            .into_iter()
            .zip(per_minute)
            .filter(|(_, per_minute)| *per_minute > 0)
            .map(|((kind, p95), per_minute)| Flow { kind, per_minute, p95: Duration::from_millis(p95) })
            .collect()
    }
}

/// What the p95, the p99 and the mean of all requests must not pass.
const ALL: Duration = Duration::from_millis(200);

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every target was met.
async fn run(arguments: &Arguments) -> Result<bool, Error> {
    let (redis, postgres) = tokio::task::spawn_blocking(|| (Redis::start(), Postgres::start())).await?;
    let setup = Setup {
        weir: program(arguments.weir.as_deref(), "weir")?,
        origin: program(arguments.origin.as_deref(), "weir-origin")?,
        config: arguments.config.clone(),
        database: Some(postgres.create_database()),
        redis: Some(redis.url()),
        port: None,
        // Few people ask what many would: the limits are meant for each of the many.
        variables: vec![("API_RATE", "100000/s".into()), ("LOGIN_RATE", "100000/s".into())],
    };
    let mut system = tokio::task::spawn_blocking(move || System::start(&setup)).await??;
    let lasts = Duration::from_secs(arguments.seconds.into());
    let crowds = arguments.loads.iter().filter_map(|load| load.crowd(lasts)).map(|(shape, _)| shape.to);
    let users = crowds.chain([arguments.users.into()]).max().unwrap_or_default();
    let clients = (1..=users as usize).map(|n| Client::new(Some(scenario::address(0, n)), system.edge));
    let people = Arc::new(People::gather(clients).await?);
    let machine = measure::machine();
    println!("{}, {} cores, load average {}", machine["processor"], machine["cores"], load_average());

    let mut met = true;
    for load in &arguments.loads {
        if let Some((shape, failing)) = load.crowd(lasts) {
            met &= draw(*load, shape, failing, &people.crowd(shape).await)?;
            continue;
        }
        let flows = load.flows();
        let seen = people.run(&flows, lasts).await;
        let asked: u32 = flows.iter().map(|flow| flow.per_minute).sum();
        let title = format!(
            "\n{load:?}: {} requests a minute for {} s, {} people",
            count(asked.into()),
            arguments.seconds,
            arguments.users
        );
        println!("{}", paint(Ink::Bold, &title));
        met &= print(&flows, |flow| &seen[flow.kind.label]);
        if let Some(fallen) = system.fallen() {
            return Err(fallen.into());
        }
    }
    println!("\nload average {}", load_average());
    Ok(met)
}

/// Prints a scenario, leaves its curves, and says whether no more failed than may.
fn draw(load: Load, shape: Shape, failing: u64, seconds: &[Second]) -> Result<bool, Error> {
    let name = format!("{load:?}").to_lowercase();
    let mut all = Second::default();
    for second in seconds {
        all.took.extend(&second.took);
        all.failed += second.failed;
    }
    all.took.sort_unstable();
    let asked = all.took.len() as u64 + all.failed;
    let held = asked > 0 && all.failed * 1_000 <= asked * failing;
    let title = format!("\n{load:?}: {} to {} people for {} s", shape.from, shape.to, shape.lasts.as_secs());
    println!("{}", paint(Ink::Bold, &title));
    println!(
        "  {} asked, {} failed; p50 {}, p95 {}, p99 {}; {}",
        count(asked),
        count(all.failed),
        span(all.quantile(0.5)),
        span(all.quantile(0.95)),
        span(all.quantile(0.99)),
        if held { "met" } else { "missed" }
    );
    let beside = std::env::current_exe()?;
    for (ending, text) in [("csv", crowd::csv(seconds)), ("svg", crowd::svg(&name, seconds))] {
        let path = beside.with_file_name(format!("load-{name}.{ending}"));
        std::fs::write(&path, text)?;
        println!("  {}", path.display());
    }
    Ok(held)
}

/// Prints one load, and says whether every target was met.
fn print<'a>(flows: &[Flow], seen: impl Fn(&Flow) -> &'a Seen) -> bool {
    const RIGHT: Side = Side::Right;
    let mut table = Table::new(&[
        ("request", Side::Left),
        ("answers", RIGHT),
        ("failed", RIGHT),
        ("mean", RIGHT),
        ("p50", RIGHT),
        ("p95", RIGHT),
        ("p99", RIGHT),
        ("target", RIGHT),
        ("", Side::Left),
    ]);
    let (mut all, mut failed, mut met) = (Latencies::default(), 0, true);
    let mut row = |label: &str, latencies: &Latencies, failed: u64, target: &str, held: bool| {
        met &= held;
        let quantile = |share| span(latencies.quantile(share));
        table.row([
            label.to_owned(),
            count(latencies.len()),
            count(failed),
            span(latencies.mean()),
            quantile(0.5),
            quantile(0.95),
            quantile(0.99),
            target.to_owned(),
            if held { "met" } else { "missed" }.to_owned(),
        ]);
    };
    for flow in flows {
        let Seen { latencies, failed: lost, .. } = seen(flow);
        all.merge(latencies);
        failed += lost;
        let held = *lost == 0 && latencies.quantile(0.95) < flow.p95;
        row(flow.kind.label, latencies, *lost, &format!("p95 {}", span(flow.p95)), held);
    }
    let held = failed == 0 && all.quantile(0.99) < ALL && all.mean() < ALL;
    row("all", &all, failed, &format!("p99 {}", span(ALL)), held);
    print!("{table}");
    for flow in flows {
        if let Some(problem) = &seen(flow).problem {
            println!("  {} failed, the first time: {problem}", flow.kind.label);
        }
    }
    met
}

/// Of a minute: what else the machine did counts, too.
fn load_average() -> String {
    let said = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    said.split(' ').next().unwrap_or_default().to_owned()
}
