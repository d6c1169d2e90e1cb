//! Weir beside nginx, HAProxy and Varnish: what `make bench` runs. One core for the proxy, another for load and origin.
//!
//! - `pass_1k` asks: what does an uncached 1 KiB answer cost on its way through the edge, and how many fit on a core?
//! - `pass_64k` asks the same of 64 KiB, where copying counts for more than parsing.
//! - `hit_1k` asks: how many cached 1 KiB answers fit on a core? `nginx return` is what the kernel allows: it looks up nothing.
//!   `hit_16`, `hit_64k` and `hit_1m` ask it of smaller and larger ones.
//! - `hit_1k_pipelined` asks it of sixteen requests at once, `hit_1k_h2` of HTTP/2, `hit_1k_tls` within TLS 1.3,
//!   `hit_16k_gzip` of answers in gzip, `hit_1k_limit` where requests are counted by address, and `hit_1k_zipf` of ten thousand keys.
//! - `hit_1k_session` asks it where each request has a session. Nobody else has sessions: it is held against `hit_1k`.
//! - `hit_1k_auth` asks what sessions in Redis cost: Weir knows them from memory, nginx asks a service (`auth_request`) that reads Redis,
//!   for each request, or once a minute where it keeps that. The service and Redis work on the load's core, and their work counts for
//!   nobody. Weir without a session is in the same run: with one it is to answer nine of ten times as much.
//! - `hit_1k_two` asks: does a second thread cost? Both have a core, and load and origin share the second. What a request costs
//!   is held against `hit_1k`.
//!
//! Load and origin may be the narrower core: then requests per second say little, and the proxy's own processor time per
//! request says all. Memory is the most that all processes of a program had. Rounds are interleaved, so that a slow minute of
//! the machine hits all alike; results are medians, and `noise` says how far the rounds of one lay apart. Read ratios, not
//! absolute figures.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use serde_json::{Map, Value, json};
use weir_benches::{
    contest::{Scenario, Task, Wire},
    measure::{self, Round},
    rival::{self, Backing, Rival, Running},
    system,
    table::{
        Ink,
        Side::{Left, Right},
        Table, paint, span,
    },
    tally::Latencies,
};

/// What the edge may add to the 99th percentile of an uncached request on an idle machine.
const ADDED_P99: Duration = Duration::from_millis(1);

/// Hits with a session as a share of those without, at least.
const SESSION_SHARE: f64 = 0.9;

/// Compares Weir with nginx, HAProxy and Varnish; a wrong scenario is answered with their names.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Only this scenario.
    scenario: Option<String>,
    /// Rounds of load for each.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each round.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Requests of the latency measurement, for each.
    #[arg(long, default_value_t = 5000)]
    requests: usize,
    /// The edge; beside this program by default.
    #[arg(long, value_name = "PATH")]
    weir: Option<PathBuf>,
    /// Where the results go.
    #[arg(long, value_name = "PATH", default_value = "target/bench.json")]
    output: PathBuf,
}

/// Which core does what; on a machine with one core they are the same, and the figures say little.
#[derive(Debug, Clone, Copy)]
struct Cores {
    proxy: usize,
    load: usize,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    needs(&[
        ("taskset", "util-linux"),
        ("wrk", "wrk"),
        ("nginx", "nginx"),
        ("haproxy", "haproxy"),
        ("varnishd", "varnish"),
        ("h2load", "nghttp2-client"),
        ("redis-server", "redis-server"),
    ])?;
    let weir = system::program(arguments.weir.as_deref(), "weir").map_err(|fallen| fallen.to_string())?;
    let scenarios = Scenario::named(arguments.scenario.as_deref())?;
    let many = std::thread::available_parallelism().map_or(1, usize::from) > 1;
    let cores = Cores { proxy: 0, load: usize::from(many) };
    let mut results = Map::new();
    for scenario in scenarios {
        results.insert(scenario.name.to_owned(), compare(scenario, arguments, cores, &weir)?);
    }
    let text = format!("{:#}\n", Value::Object(results));
    let folder = arguments.output.parent().unwrap_or(Path::new(""));
    // Cargo's own folder may be somewhere else.
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&arguments.output, text))
        .map_err(|error| format!("cannot write {}: {error}", arguments.output.display()))?;
    println!("\nresults in {}", arguments.output.display());
    Ok(())
}

/// Everything measured about one server.
struct Measured {
    name: String,
    rounds: Vec<Round>,
    /// Processor time per request of each round, in microseconds.
    work: Vec<f64>,
    /// In bytes, of all its processes.
    peak_memory: u64,
    /// One request at a time; empty where that client does not speak the protocol.
    alone: Latencies,
}

impl Measured {
    fn per_second(&self) -> Vec<f64> {
        self.rounds.iter().map(|round| round.per_second).collect()
    }

    fn quantile(&self, share: f64) -> Duration {
        self.alone.quantile(share)
    }
}

fn compare(scenario: Scenario, arguments: &Arguments, cores: Cores, weir: &Path) -> Result<Value, String> {
    let name = scenario.name;
    let origin = rival::origin(scenario, cores.load)?;
    let backing = (scenario.task == Task::Auth).then(|| Backing::start(cores.load)).transpose()?;
    let backing = backing.as_ref();
    let of_proxy = [cores.proxy, cores.load];
    let of_proxy = &of_proxy[..scenario.threads.min(2)];
    let rivals: Vec<(Rival, Running)> = Rival::of(scenario)
        .into_iter()
        .map(|rival| Ok((rival, rival::start(rival, scenario, origin.address, backing, of_proxy, weir)?)))
        .collect::<Result<_, String>>()?;
    // The origin itself goes first: what is asked directly is what the proxies' latency is held against.
    let mut servers = vec![("origin".to_owned(), &origin)];
    servers.extend(rivals.iter().map(|(rival, running)| (rival.to_string(), running)));

    let addresses: Vec<_> = servers.iter().map(|(_, running)| running.address).collect();
    let alone = match scenario.is_asked_alone() {
        true => on_core(cores.load, async || measure::ask_in_turn(&addresses, arguments.requests).await)?,
        false => vec![Latencies::default(); servers.len()],
    };
    let mut measured: Vec<_> = servers
        .iter()
        .zip(alone)
        .map(|((name, _), alone)| Measured {
            name: name.clone(),
            rounds: Vec::new(),
            work: Vec::new(),
            peak_memory: 0,
            alone,
        })
        .collect();
    for round in 1..=arguments.rounds {
        eprintln!("  {name}: round {round} of {}", arguments.rounds);
        for (server, (_, running)) in measured.iter_mut().zip(&servers) {
            let before = running.cpu();
            // The origin speaks plainly whatever the proxies do.
            let wire = if server.name == "origin" { Wire::Plain } else { scenario.wire };
            let scenario = Scenario { wire, ..scenario };
            let seen = measure::load(running.address, cores.load, arguments.seconds, scenario)
                .map_err(|problem| format!("{name}, {}: {problem}", server.name))?;
            let used = running.cpu().saturating_sub(before).as_secs_f64() * 1e6;
            server.work.push(used / seen.requests.max(1) as f64);
            server.rounds.push(seen);
            server.peak_memory = running.peak_memory();
        }
    }
    print(scenario, &measured);
    Ok(document(&measured))
}

/// Runs a future on a runtime whose only thread stays on one core.
fn on_core<T>(core: usize, work: impl AsyncFnOnce() -> Result<T, String>) -> Result<T, String> {
    let pinned = std::process::Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid", &core.to_string(), &std::process::id().to_string()])
        .output()
        .map_err(|error| format!("cannot start taskset: {error}"))?;
    if !pinned.status.success() {
        return Err(format!("taskset: {}", String::from_utf8_lossy(&pinned.stderr)));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("cannot start a runtime: {error}"))?.block_on(work())
}

fn print(scenario: Scenario, measured: &[Measured]) {
    let [origin, weir, ..] = measured else { return };
    let (rate, work) = (measure::median(weir.per_second()), measure::median(weir.work.clone()));
    let mut loaded = Table::new(&[
        ("64 connections", Left),
        ("req/s", Right),
        ("noise", Right),
        ("weir is", Right),
        ("µs of core/req", Right),
        ("weir is", Right),
        ("p50", Right),
        ("p99", Right),
        ("memory", Right),
    ]);
    let mut alone = Table::new(&[
        ("one at a time", Left),
        ("p50", Right),
        ("p99", Right),
        ("adds p50", Right),
        ("p99", Right),
    ]);
    for server in measured {
        let (rates, its_work) = (server.per_second(), measure::median(server.work.clone()));
        let middle = |pick: fn(&Round) -> Duration| {
            let seconds = server.rounds.iter().map(|round| pick(round).as_secs_f64()).collect();
            span(Duration::from_secs_f64(measure::median(seconds)))
        };
        // The origin does less than any proxy in front of it: there is nothing to compare.
        let proxies = server.name != origin.name;
        let only = |text: String| if proxies { text } else { String::new() };
        loaded.row([
            server.name.clone(),
            format!("{:.0}", measure::median(rates.clone())),
            format!("{:.0} %", measure::noise(&rates) * 100.0),
            only(times(rate, measure::median(rates))),
            format!("{its_work:.1}"),
            // Less work is better: the other way round.
            only(times(its_work, work)),
            middle(|round| round.p50),
            middle(|round| round.p99),
            format!("{:.1} MiB", server.peak_memory as f64 / f64::from(1 << 20)),
        ]);
        alone.row([
            server.name.clone(),
            span(server.quantile(0.5)),
            span(server.quantile(0.99)),
            only(signed(added(server, origin, 0.5))),
            only(signed(added(server, origin, 0.99))),
        ]);
    }
    println!("\n{}\n{loaded}", paint(Ink::Bold, scenario.name));
    if scenario.is_asked_alone() {
        println!("{alone}");
    }
    if let Some(plain) = measured.iter().find(|server| server.name == Rival::Plain.to_string()) {
        judge(rate / measure::median(plain.per_second()));
    }
    if !scenario.cached {
        let p99 = added(weir, origin, 0.99);
        let (ink, word) = match p99 <= ADDED_P99.as_secs_f64() {
            true => (Ink::Green, "within"),
            false => (Ink::Red, "not within"),
        };
        println!(
            "  {}",
            paint(ink, &format!("the edge adds {} to p99: {word} {}", signed(p99), span(ADDED_P99)))
        );
    }
}

/// What a session costs, next to what it may.
fn judge(share: f64) {
    let (ink, word) = match share >= SESSION_SHARE {
        true => (Ink::Green, "at least"),
        false => (Ink::Red, "less than"),
    };
    println!(
        "  {}",
        paint(
            ink,
            &format!("hits with a session are × {share:.2} of those without: {word} {SESSION_SHARE:.2}")
        )
    );
}

/// How many times as good the first is as the second.
fn times(first: f64, second: f64) -> String {
    if second > 0.0 { format!("× {:.2}", first / second) } else { "–".to_owned() }
}

/// Seconds that a server adds to asking the origin directly; below zero where a cache answers faster.
fn added(server: &Measured, origin: &Measured, share: f64) -> f64 {
    server.quantile(share).as_secs_f64() - origin.quantile(share).as_secs_f64()
}

fn signed(seconds: f64) -> String {
    let sign = if seconds < 0.0 { "−" } else { "+" };
    format!("{sign}{}", span(Duration::from_secs_f64(seconds.abs())))
}

fn document(measured: &[Measured]) -> Value {
    let [origin, weir, ..] = measured else { return Value::Null };
    let (mut document, mut noise, mut ratio, mut core_ratio) =
        (Map::new(), Map::new(), Map::new(), Map::new());
    let (weir_rate, weir_work) = (measure::median(weir.per_second()), measure::median(weir.work.clone()));
    for server in measured {
        let (rates, work) = (server.per_second(), measure::median(server.work.clone()));
        let rate = measure::median(rates.clone());
        let micros = |seconds: f64| (seconds * 1e6).round();
        document.insert(
            server.name.clone(),
            json!({
                "requests_per_second": rate,
                "rounds": rates,
                "core_us_per_request": work,
                "peak_memory_bytes": server.peak_memory,
                "alone_p50_us": micros(server.quantile(0.5).as_secs_f64()),
                "alone_p99_us": micros(server.quantile(0.99).as_secs_f64()),
                "added_p50_us": micros(added(server, origin, 0.5)),
                "added_p99_us": micros(added(server, origin, 0.99)),
            }),
        );
        noise.insert(server.name.clone(), json!(measure::noise(&rates)));
        if server.name != weir.name && server.name != origin.name {
            ratio.insert(server.name.clone(), json!(weir_rate / rate));
            core_ratio.insert(server.name.clone(), json!(work / weir_work));
        }
    }
    document.insert("ratio".to_owned(), Value::Object(ratio));
    document.insert("core_ratio".to_owned(), Value::Object(core_ratio));
    document.insert("noise".to_owned(), Value::Object(noise));
    document.insert("machine".to_owned(), measure::machine());
    document.insert("commit".to_owned(), json!(measure::commit()));
    Value::Object(document)
}

/// Says at once which Debian packages are missing.
fn needs(programs: &[(&str, &str)]) -> Result<(), String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program: &str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    let missing: Vec<_> = programs
        .iter()
        .filter(|(program, _)| !found(program))
        .map(|(program, package)| format!("{program} is missing: install the Debian package {package}"))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(missing.join("\n  ")) }
}
