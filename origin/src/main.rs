//! `weir-origin serve|worker|dead|migrate|seed|roles|verification`: arguments → the library; logs to stderr, what scripts read to stdout.

use std::{ffi::OsString, process::ExitCode, sync::Arc};

use clap::{Args, Parser, Subcommand};
use prometheus::Registry;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tracing_subscriber::EnvFilter;
use uuid::Uuid;
use weir_origin::{
    accounts::{self, ROLES},
    admin,
    app::{self, App, StartError},
    cache::Cache,
    config::{DatabaseConfig, PasswordConfig, ServeConfig, WorkerConfig},
    database::{Database, Moment, Words},
    fleet::Redis,
    jobs::{
        self,
        bell::Bell,
        listener::{self, Watched},
        measured::Measured,
        purges::Purges,
        worker::Worker,
    },
    seed::{self, Volume},
    verification::Verifications,
};

/// The thin API behind the edge: accounts, sessions and vault items.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer requests until TERM or INT; also what happens without a command.
    Serve(ServeConfig),
    /// Do jobs (mail, deliveries) until TERM or INT; any number of them may run beside any number that serve.
    Worker(WorkerConfig),
    /// Print the jobs that were given up, newest first, a line of JSON each.
    Dead(DeadConfig),
    /// Bring the schema up to date and end.
    Migrate(DatabaseConfig),
    /// Add demo users and items; a second run changes nothing.
    Seed(SeedConfig),
    /// Give an account these roles instead of its present ones: how the first administrator is made. They count from its next login on.
    Roles(RolesConfig),
    /// Print the token that proves an account's e-mail address, for whoever sends it there.
    Verification(VerificationConfig),
}

#[derive(Args)]
struct DeadConfig {
    /// Print at most so many.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Then make all of them due again, as if they had never been tried.
    #[arg(long)]
    revive: bool,
    #[command(flatten)]
    database: DatabaseConfig,
}

#[derive(Args)]
struct RolesConfig {
    /// The account's address.
    email: String,
    /// From `user`, `moderator` and `admin`.
    #[arg(required = true, value_parser = ROLES)]
    roles: Vec<String>,
    /// As for `serve`: what is kept there of the old roles ends. Without it, it is kept for five minutes.
    #[arg(long, env = "WEIR_REDIS_URL", hide_env_values = true)]
    redis_url: Option<String>,
    #[command(flatten)]
    database: DatabaseConfig,
}

#[derive(Args)]
struct VerificationConfig {
    /// The account's address.
    email: String,
    /// As for `serve`.
    #[arg(long, env = "WEIR_IDENTITY_SECRET", hide_env_values = true)]
    identity_secret: String,
    #[command(flatten)]
    database: DatabaseConfig,
}

#[derive(Args)]
struct SeedConfig {
    #[command(flatten)]
    volume: Volume,
    #[command(flatten)]
    database: DatabaseConfig,
    #[command(flatten)]
    passwords: PasswordConfig,
}

fn main() -> ExitCode {
    let cli = Cli::parse_from(with_command(std::env::args_os().collect()));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_writer(std::io::stderr)
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")))
        .init();
    let run = async {
        match cli.command {
            Command::Serve(config) => serve(config).await,
            Command::Worker(config) => work(config).await,
            Command::Dead(config) => dead(config).await,
            Command::Migrate(config) => migrate(config).await,
            Command::Seed(config) => fill(config).await,
            Command::Roles(config) => give_roles(config).await,
            Command::Verification(config) => verification(config).await,
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(StartError::from).and_then(|runtime| runtime.block_on(run)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "not running");
            ExitCode::FAILURE
        }
    }
}

/// Flags alone mean `serve`. Done here, because clap asks for the flags of a flattened default even when another command is named.
fn with_command(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let first = arguments.get(1).map(|first| first.to_string_lossy());
    let asks_about_us = matches!(first.as_deref(), Some("-h" | "--help" | "-V" | "--version"));
    if !asks_about_us && first.is_none_or(|first| first.starts_with('-')) {
        arguments.insert(1.min(arguments.len()), "serve".into());
    }
    arguments
}

/// TERM or INT. Asked for before the first request: a signal in between must not kill us.
fn asked_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    })
}

async fn serve(config: ServeConfig) -> Result<(), StartError> {
    let stop = asked_to_stop()?;
    let listener = TcpListener::bind(config.listen).await.map_err(|e| format!("{}: {e}", config.listen))?;
    let address = listener.local_addr()?;
    let name = config.name.clone().unwrap_or_else(|| address.to_string());
    let app = App::start(&config, &name).await?;
    // For whoever started us with port 0; after everything that can fail.
    println!("listening on {address}");
    app::serve(listener, app, stop, config.stop_within).await?;
    Ok(())
}

async fn work(config: WorkerConfig) -> Result<(), StartError> {
    let stop = asked_to_stop()?;
    let socket = TcpListener::bind(config.listen).await.map_err(|e| format!("{}: {e}", config.listen))?;
    let address = socket.local_addr()?;
    let database = Database::open(&config.database).await?;
    let registry = Registry::new();
    let measured = Measured::new(&registry)?;
    let verifications = Verifications::new(&config.identity_secret);
    let longest = config.jobs.job_poll;
    let url = config.redis_url.as_deref();
    let bell = Arc::new(url.map(|url| Bell::heard_through(url, longest)).transpose()?.unwrap_or_default());
    let redis = url.map(Redis::at).transpose()?;
    let purges = redis.map(|redis| Purges::new(redis, &config.jobs.edge_prefix, config.database.replica_lag));
    let worker = Worker::new(database.clone(), config.jobs, verifications, measured.clone(), bell, purges)?;
    let watched = Watched { database: database.clone(), worker: worker.clone(), measured, registry };
    println!("listening on {address}");
    tokio::spawn(axum::serve(socket, listener::routes(watched)).into_future());
    worker.run(stop, config.stop_within).await;
    database.close().await;
    Ok(())
}

async fn dead(config: DeadConfig) -> Result<(), StartError> {
    let database = Database::open(&config.database).await?;
    for job in jobs::sql::dead(&database, config.limit).await? {
        println!("{}", serde_json::to_string(&job)?);
    }
    if config.revive {
        let revived = jobs::sql::revive(&database, Moment::now()).await?;
        tracing::info!(revived, "jobs are due again");
    }
    database.close().await;
    Ok(())
}

async fn migrate(config: DatabaseConfig) -> Result<(), StartError> {
    // Opening migrates, as it does before serving.
    Database::open(&config).await?.close().await;
    Ok(())
}

async fn fill(config: SeedConfig) -> Result<(), StartError> {
    let database = Database::open(&config.database).await?;
    seed::seed(&database, &config.passwords, &config.volume, Moment::now()).await?;
    println!(
        "{} users (password {:?}) and {} items",
        config.volume.users,
        seed::PASSWORD,
        config.volume.items
    );
    Ok(())
}

async fn give_roles(config: RolesConfig) -> Result<(), StartError> {
    let database = Database::open(&config.database).await?;
    let user = account(&database, &config.email).await?;
    let redis = config.redis_url.as_deref().map(Redis::at).transpose()?;
    let roles = Words(config.roles);
    let write = admin::sql::give_roles(&database, None, user, &roles, Moment::now());
    accounts::kept::around_roles(&Cache::new(redis), user, write).await?;
    database.close().await;
    Ok(())
}

async fn verification(config: VerificationConfig) -> Result<(), StartError> {
    let database = Database::open(&config.database).await?;
    let email = config.email.to_lowercase();
    let user = account(&database, &email).await?;
    println!("{}", Verifications::new(&config.identity_secret).seal(user, &email, Moment::now()));
    database.close().await;
    Ok(())
}

async fn account(database: &Database, email: &str) -> Result<Uuid, StartError> {
    let known = accounts::sql::credentials(database, &email.to_lowercase()).await?;
    Ok(known.ok_or_else(|| format!("nobody has registered {email}"))?.id)
}
