//! The command line: arguments → plan → running → serve.
//!
//! Exit status: 0 done, 1 the configuration or the start failed (said on standard error) or a second signal cut the end short,
//! 2 wrong arguments, 3 translated without directives that were refused.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode, time::SystemTime};

use clap::{CommandFactory, Parser, Subcommand};
use weir::{
    explain::Question,
    operator::{self, Warming},
    serve::{End, serve},
    source::{self, Source},
    trial,
};
use weir_config::Report;

/// The exit status of a translation that lacks what was refused.
const REFUSED: u8 = 3;

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
    /// Serve until TERM, QUIT or Ctrl-C, and until requests in flight have ended, or a second one comes; HUP reads the file
    /// again, USR1 opens the access log anew.
    Run {
        /// config.yaml, or an nginx.conf.
        config: PathBuf,
    },
    /// Say every problem of a configuration, and whether `run` would take it: its certificates, keys, folders and logs are
    /// tried, and the names of its servers looked up.
    ///
    /// Exit status: 0 when it would, with or without warnings; 1 when it would not.
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
        /// The admin listener as HOST:PORT, if the configuration does not say or cannot be read.
        #[arg(long)]
        admin: Option<String>,
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
        admin: Option<String>,
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
    ///
    /// Exit status: 0 when every directive has a counterpart or is harmless, perhaps approximated; 3 when some were refused,
    /// which means that what is printed does less than nginx did; 1 when nginx would not start with the file either.
    Translate {
        /// The nginx.conf.
        config: PathBuf,
        /// End with 0 although directives were refused.
        #[arg(long)]
        allow_refused: bool,
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
            explain(&Question { url, method, headers, client }, admin.as_deref(), config, json)
        }
        Command::Caches { config, admin, json } => {
            told(admin.as_deref(), config, operator::caches, |caches| match json {
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
        Command::Translate { config, allow_refused } => translate(&config, allow_refused),
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
    let tried = match trial::load(&source, SystemTime::now()) {
        Ok(tried) => tried,
        Err(report) => return refuse(&report),
    };
    say(&tried.warnings);
    if let Some(summary) = &tried.translated {
        tell(format_args!("{summary}\n"));
    }
    weir::record::start_tracing(&tried.plan.log.level);
    match serve(source, tried) {
        Ok(End::Drained | End::GraceOver) => ExitCode::SUCCESS,
        Ok(End::CutShort) => ExitCode::FAILURE,
        Err(problem) => {
            match problem.downcast_ref::<Report>() {
                Some(report) => say(report),
                None => tell(format_args!("weir: {problem}\n")),
            }
            ExitCode::FAILURE
        }
    }
}

fn check(source: &Source) -> ExitCode {
    let mut tried = match trial::load(source, SystemTime::now()) {
        Ok(tried) => tried,
        Err(report) => return refuse(&report),
    };
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            runtime.block_on(trial::elsewhere(&tried.plan, &mut tried.warnings));
            // The system's resolver may still wait for somebody.
            runtime.shutdown_background();
        }
        Err(problem) => tell(format_args!("weir: names and addresses were not tried: {problem}\n")),
    }
    say(&tried.warnings);
    if tried.warnings.has_errors() {
        return ExitCode::FAILURE;
    }
    if let Some(summary) = &tried.translated {
        put(format_args!("{summary}; `weir translate` lists each\n"));
    }
    put(format_args!("{}: {}\n", source.path().display(), source::summary(&tried.plan)));
    ExitCode::SUCCESS
}

fn explain(question: &Question, admin: Option<&str>, config: PathBuf, as_json: bool) -> ExitCode {
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
    admin: Option<&str>,
    config: PathBuf,
    ask: impl FnOnce(&[std::net::SocketAddr]) -> Result<T, String>,
    show: impl FnOnce(T),
) -> ExitCode {
    let written = || operator::admin_of(&Source::new(config)).map(|admin| vec![admin]);
    match admin.map_or_else(written, operator::addresses).and_then(|admin| ask(&admin)) {
        Ok(answer) => {
            show(answer);
            ExitCode::SUCCESS
        }
        Err(problem) => {
            tell(format_args!("weir: {problem}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Warms, with progress on standard error.
fn warm(warming: Warming, sources: &[String]) -> ExitCode {
    match warming.run(sources, |warmed, after| tell(format_args!("{}\n", warmed.progress(after)))) {
        Ok(warmed) => {
            put(format_args!("{warmed}\n"));
            if warmed.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(problem) => {
            tell(format_args!("weir: {problem}\n"));
            ExitCode::FAILURE
        }
    }
}

fn translate(config: &std::path::Path, allow_refused: bool) -> ExitCode {
    let (yaml, fidelity) = match source::translate(config) {
        Ok(translated) => translated,
        Err(problems) => {
            tell(problems);
            return ExitCode::FAILURE;
        }
    };
    tell(&fidelity);
    put(yaml);
    match fidelity.refused().count() {
        0 => ExitCode::SUCCESS,
        _ if allow_refused => ExitCode::SUCCESS,
        refused => {
            let (what, it) = if refused == 1 { ("directive was", "it") } else { ("directives were", "them") };
            tell(format_args!(
                "{refused} {what} refused: the configuration does without {it}. Mend that, or accept it with --allow-refused.\n"
            ));
            ExitCode::from(REFUSED)
        }
    }
}

/// Writes to standard output. Whoever reads that may have seen enough, as `head` has.
fn put(text: impl std::fmt::Display) {
    let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{text}"));
}

/// Writes to standard error, on which nobody need listen either.
fn tell(text: impl std::fmt::Display) {
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{text}"));
}

fn say(report: &Report) {
    if std::io::stderr().is_terminal() {
        tell(report.coloured());
    } else {
        tell(report);
    }
}

fn refuse(report: &Report) -> ExitCode {
    say(report);
    ExitCode::FAILURE
}
