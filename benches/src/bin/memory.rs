//! What does a cache of small answers take that is full many times over? What `make bench-memory` runs.
//!
//! A million different answers of 1 KiB go through a cache of 256 MiB, each asked for once: the worst case for an index, heads and
//! allocations. The most resident memory that the edge ever had is the result; beyond the promised 320 MiB the exit status is 1.
//! Nothing here depends on how fast the machine is. The origin is this program.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, ExitCode},
    thread,
};

use clap::Parser;
use weir_benches::{measure, plain::Connection, system};
use weir_testkit::{Child, READY_WITHIN, free_port};

/// Fills a cache many times over and says how much memory that took.
#[derive(Debug, Parser)]
#[command(name = "memory")]
struct Arguments {
    /// Different answers, each asked for once.
    #[arg(long, default_value_t = 1_000_000)]
    answers: u64,
    /// Bytes of each body.
    #[arg(long, default_value_t = 1024)]
    body: usize,
    /// The cache's memory, in MiB.
    #[arg(long, default_value_t = 256)]
    memory: u64,
    /// What the edge may take in all, in MiB.
    #[arg(long, default_value_t = 320)]
    most: u64,
    /// Connections of the load.
    #[arg(long, default_value_t = 8)]
    connections: u64,
    /// The edge; beside this program by default.
    #[arg(long, value_name = "PATH")]
    weir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(peak) if peak >> 20 <= arguments.most => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("memory: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// The most resident memory, in bytes.
fn run(arguments: &Arguments) -> Result<u64, String> {
    let weir = system::program(arguments.weir.as_deref(), "weir").map_err(|fallen| fallen.to_string())?;
    let origin = origin(arguments.body).map_err(|error| format!("no origin: {error}"))?;
    let (edge, admin, child) = edge(&weir, origin, arguments.memory)?;
    let idle = measure::group_peak(child.id());
    let asked = thread::scope(|scope| {
        let hands: Vec<_> = (0..arguments.connections)
            .map(|hand| scope.spawn(move || ask(edge, hand, arguments.connections, arguments.answers)))
            .collect();
        hands.into_iter().map(|hand| hand.join().map_err(|_| "a connection broke".to_owned())?).collect()
    });
    let asked: Result<Vec<u64>, String> = asked;
    let answers: u64 = asked?.iter().sum();
    let peak = measure::group_peak(child.id());
    println!(
        "{answers} answers of {} bytes through {} MiB: {} MiB resident at the most, {} MiB before; {} MiB promised",
        arguments.body,
        arguments.memory,
        peak >> 20,
        idle >> 20,
        arguments.most
    );
    let entries = entries(admin)?.max(1);
    println!("{entries} answers kept, {} bytes resident for each", peak.saturating_sub(idle) / entries);
    Ok(peak)
}

/// How many answers are kept.
fn entries(admin: SocketAddr) -> Result<u64, String> {
    let broke = |error: std::io::Error| error.to_string();
    let (mut stream, mut said) = (TcpStream::connect(admin).map_err(broke)?, String::new());
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").map_err(broke)?;
    stream.read_to_string(&mut said).map_err(broke)?;
    let line = said.lines().find_map(|line| line.strip_prefix("weir_cache_entries{cache=\"all\"} "));
    line.and_then(|number| number.trim().parse().ok())
        .ok_or_else(|| "the edge does not say what it keeps".to_owned())
}

/// Answers everything with the same body, a thread for each connection.
fn origin(body: usize) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {body}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + body, b'x');
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            thread::spawn(move || {
                let mut lines = BufReader::new(&stream).lines();
                // An empty line ends a head; nobody sends a body.
                while let Some(Ok(line)) = lines.next() {
                    if line.is_empty() && (&stream).write_all(&answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(address)
}

/// Its address, its operators' address, and its process.
fn edge(weir: &PathBuf, origin: SocketAddr, memory: u64) -> Result<(SocketAddr, SocketAddr, Child), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let [address, admin] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
    let text = format!(
        "listeners: [\"{address}\"]\nadmin: {admin}\nlog: {{ access: off }}\ncaches: {{ all: {{ memory: {memory}MiB }} }}\n\
         upstreams: {{ origin: {{ servers: [\"{origin}\"] }} }}\n\
         routes: [{{ match: /*, to: origin, cache: {{ in: all, ttl: 1h }} }}]\n"
    );
    let config = folder.path().join("config.yaml");
    fs::write(&config, text).map_err(|error| error.to_string())?;
    let mut command = Command::new(weir);
    command.arg("run").arg(&config);
    let child = Child::start(command, folder, "KILL", "none: build it with cargo")?;
    let child = child.ready(READY_WITHIN, |_| TcpStream::connect(address).is_ok())?;
    Ok((address, admin, child))
}

/// Asks for every so many-th answer; how many came whole.
fn ask(edge: SocketAddr, first: u64, step: u64, answers: u64) -> Result<u64, String> {
    let broke = |error: std::io::Error| format!("a connection broke: {error}");
    let mut connection = Connection::open(edge).map_err(broke)?;
    let mut whole = 0;
    for number in (first..answers).step_by(usize::try_from(step).unwrap_or(1)) {
        connection.get(&format!("/{number}"), "").map_err(broke)?;
        whole += 1;
    }
    Ok(whole)
}
