//! The command line: arguments → plan → running → serve.
//!
//! Exit status: 0 done, 1 the configuration or the start failed (said on standard error), 2 wrong arguments.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};
use weir::source::{self, Source};

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
        Command::Translate { config } => translate(&config),
        Command::Schema => {
            println!("{:#}", weir_config::schema());
            ExitCode::SUCCESS
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "weir", &mut std::io::stdout());
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
            println!("{}: {}", source.path().display(), source::summary(&loaded.plan));
            ExitCode::SUCCESS
        }
        Err(report) => refuse(&report),
    }
}

fn translate(config: &std::path::Path) -> ExitCode {
    match source::translate(config) {
        Ok((yaml, fidelity)) => {
            eprint!("{fidelity}");
            print!("{yaml}");
            ExitCode::SUCCESS
        }
        Err(problems) => {
            eprint!("{problems}");
            ExitCode::FAILURE
        }
    }
}

fn say(report: &weir_config::report::Report) {
    eprint!("{}", report.render(std::io::stderr().is_terminal()));
}

fn refuse(report: &weir_config::report::Report) -> ExitCode {
    say(report);
    ExitCode::FAILURE
}
