//! The command line: arguments → plan → running → serve.
//!
//! Exit status: 0 done, 1 the configuration or the start failed (said on standard error), 2 wrong arguments.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};
use weir::{
    explain::Question,
    operator::{self, Warming},
    source::{self, Source},
};

/// The allocator: general-purpose ones keep tens of megabytes after a burst of connections.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Weir, the caching reverse proxy.
#[derive(Parser)]
#[command(name = "weir", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until TERM, QUIT or Ctrl-C; HUP reads the file again.
    Run {
        /// config.yaml, or an nginx.conf.
        config: PathBuf,
    },
    /// Say every problem of a configuration, and whether it would be taken.
    Check {
        /// config.yaml, or an nginx.conf.
        config: PathBuf,
    },
    /// Say why a request is, or would not be, answered from the cache of the edge that runs; the origin is not asked.
    Explain {
        /// http://example.org/path?query
        url: String,
        /// A field of the request, as `name: value`; may be given more than once. `host` replaces the URL's.
        #[arg(short = 'H', long = "header")]
        headers: Vec<String>,
        /// The method.
        #[arg(short = 'X', long, default_value = "GET")]
        method: String,
        /// Who asks.
        #[arg(long, default_value = "127.0.0.1")]
        client: std::net::IpAddr,
        /// The configuration that the edge runs with, which names its admin listener.
        #[arg(short, long, default_value = "config.yaml")]
        config: PathBuf,
        /// The admin listener, if the configuration does not say or cannot be read.
        #[arg(long)]
        admin: Option<std::net::SocketAddr>,
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say what the caches of the edge that runs hold, and what share of look-ups they would answer with less or more memory.
    Caches {
        /// The configuration that the edge runs with, which names its admin listener.
        #[arg(short, long, default_value = "config.yaml")]
        config: PathBuf,
        /// The admin listener, if the configuration does not say or cannot be read.
        #[arg(long)]
        admin: Option<std::net::SocketAddr>,
        /// Print the answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Ask the edge that runs for pages before its clients do, so that they are in its caches.
    Warm {
        /// Lists of URLs or paths, sitemaps or access logs: files, `-` for standard input, or URLs that the edge serves.
        #[arg(required = true)]
        sources: Vec<String>,
        /// Requests a second.
        #[arg(long, default_value = "50")]
        rate: std::num::NonZeroU32,
        /// Requests at once.
        #[arg(long, default_value = "8")]
        at_once: usize,
        /// Pages at most; those that a log names most often come first.
        #[arg(long, default_value = "100000")]
        most: usize,
        /// Where paths without a host are: `example.org` or `https://example.org`.
        #[arg(long)]
        host: Option<String>,
        /// The configuration that the edge runs with, which names its listeners.
        #[arg(short, long, default_value = "config.yaml")]
        config: PathBuf,
        /// The listener for pages by http, if the configuration does not say.
        #[arg(long)]
        to: Option<std::net::SocketAddr>,
        /// The listener for pages by https, if the configuration does not say.
        #[arg(long)]
        to_tls: Option<std::net::SocketAddr>,
    },
    /// Print an nginx.conf as config.yaml; the fate of each directive goes to standard error.
    Translate {
        /// The nginx.conf.
        config: PathBuf,
    },
    /// Print the JSON Schema of config.yaml, for editors.
    Schema,
    /// Print completions for a shell.
    Completions {
        /// bash, zsh, fish, …
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { config } => run(Source::new(config)),
        Command::Check { config } => check(&Source::new(config)),
        Command::Explain { url, headers, method, client, config, admin, json } => {
            explain(&Question { url, method, headers, client }, admin, config, json)
        }
        Command::Caches { config, admin, json } => {
            told(admin, config, operator::caches, |caches| match json {
                true => put(format_args!("{}\n", serde_json::json!(caches))),
                false => caches.iter().for_each(put),
            })
        }
        Command::Warm { sources, rate, at_once, most, host, config, to, to_tls } => {
            let named = [to, to_tls];
            let known = match named {
                [None, None] => Source::new(config).load().map(|loaded| operator::listeners(&loaded.plan)),
                named => Ok(named),
            };
            match known {
                Ok([plain, tls]) => warm(Warming { plain, tls, rate, at_once, most, host }, &sources),
                Err(report) => refuse(&report),
            }
        }
        Command::Translate { config } => translate(&config),
        Command::Schema => {
            put(format_args!("{:#}\n", weir_config::schema()));
            ExitCode::SUCCESS
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "weir", &mut script);
            put(String::from_utf8_lossy(&script));
            ExitCode::SUCCESS
        }
    }
}

fn run(source: Source) -> ExitCode {
    let plan = match source.load() {
        Ok(loaded) => {
            say(&loaded.warnings);
            loaded.plan
        }
        Err(report) => return refuse(&report),
    };
    weir::record::start_tracing(&plan.log.level);
    match weir::serve::serve(source, plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("weir: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn check(source: &Source) -> ExitCode {
    match source.load() {
        Ok(loaded) => {
            say(&loaded.warnings);
            put(format_args!("{}: {}\n", source.path().display(), source::summary(&loaded.plan)));
            ExitCode::SUCCESS
        }
        Err(report) => refuse(&report),
    }
}

fn explain(
    question: &Question,
    admin: Option<std::net::SocketAddr>,
    config: PathBuf,
    as_json: bool,
) -> ExitCode {
    told(
        admin,
        config,
        |admin| operator::explain(admin, question),
        |report| match as_json {
            true => put(format_args!("{}\n", serde_json::json!(report))),
            false => put(report),
        },
    )
}

/// Asks the edge that runs, and shows what it says.
fn told<T>(
    admin: Option<std::net::SocketAddr>,
    config: PathBuf,
    ask: impl FnOnce(std::net::SocketAddr) -> Result<T, String>,
    show: impl FnOnce(T),
) -> ExitCode {
    match admin.map_or_else(|| operator::admin_of(&Source::new(config)), Ok).and_then(ask) {
        Ok(answer) => {
            show(answer);
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("weir: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Warms, with progress on standard error.
fn warm(warming: Warming, sources: &[String]) -> ExitCode {
    match warming.run(sources, |warmed, after| eprintln!("{}", warmed.progress(after))) {
        Ok(warmed) => {
            put(format_args!("{warmed}\n"));
            if warmed.failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(problem) => {
            eprintln!("weir: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn translate(config: &std::path::Path) -> ExitCode {
    match source::translate(config) {
        Ok((yaml, fidelity)) => {
            eprint!("{fidelity}");
            put(yaml);
            ExitCode::SUCCESS
        }
        Err(problems) => {
            eprint!("{problems}");
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard output. Whoever reads that may have seen enough, as `head` has.
fn put(text: impl std::fmt::Display) {
    let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{text}"));
}

fn say(report: &weir_config::report::Report) {
    if std::io::stderr().is_terminal() {
        eprint!("{}", report.coloured());
    } else {
        eprint!("{report}");
    }
}

fn refuse(report: &weir_config::report::Report) -> ExitCode {
    say(report);
    ExitCode::FAILURE
}
