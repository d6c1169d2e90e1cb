//! Load and latency for the benches: `wrk` and `h2load` for how much fits, one patient client for how long one request takes.

use std::{io, net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use http::Method;
use serde_json::{Value, json};

use crate::{
    client::{Ask, Client, Failure},
    contest::{Scenario, Task, Wire},
    tally::Latencies,
};

/// Connections that are kept busy.
const CONNECTIONS: u32 = 64;

/// The session of every request of [`Task::Session`], in a cookie, and of [`Task::Auth`], in a field.
pub(crate) const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// What one round of load showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Round {
    /// Requests answered in a second.
    pub per_second: f64,
    /// Requests answered in all.
    pub requests: u64,
    /// Half of the answers took no longer.
    pub p50: Duration,
    /// All but one in a hundred took no longer. With every connection busy this is queueing as much as work.
    pub p99: Duration,
}

/// Asks as fast as it gets answers, for so many seconds, from this core.
///
/// # Errors
/// When the program is missing or saw anything but success.
pub fn load(address: SocketAddr, core: usize, seconds: u32, scenario: Scenario) -> Result<Round, String> {
    let folder = tempfile::TempDir::with_prefix("weir-bench-").map_err(|error| error.to_string())?;
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &core.to_string()]);
    let connections = CONNECTIONS.to_string();
    match scenario.wire {
        Wire::Plain | Wire::Tls => {
            let script = folder.path().join("requests.lua");
            std::fs::write(&script, requests(scenario)).map_err(|error| error.to_string())?;
            command.args(["wrk", "--latency", "--threads", "1", "--connections", &connections]);
            command.args(["--duration", &format!("{seconds}s"), "--script"]).arg(script);
        }
        Wire::Http2 => {
            let duration = seconds.to_string();
            command.args(["h2load", "-t", "1", "-c", &connections, "-m", "1", "-D", &duration]);
            command.arg("--log-file").arg(folder.path().join("log"));
        }
    }
    let scheme = if scenario.wire == Wire::Tls { "https" } else { "http" };
    let output = command
        .arg(format!("{scheme}://{address}/"))
        .output()
        .map_err(|error| format!("cannot start taskset: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("no load: {}", String::from_utf8_lossy(&output.stderr)));
    }
    match scenario.wire {
        Wire::Plain | Wire::Tls => read_wrk(&said),
        Wire::Http2 => {
            let log = std::fs::read_to_string(folder.path().join("log"));
            read_h2load(&said, &log.map_err(|error| format!("no log of h2load: {error}"))?)
        }
    }
}

/// What `wrk` asks for. Keys are drawn beforehand, alike for all and in every round.
fn requests(scenario: Scenario) -> String {
    let headers = match scenario.task {
        Task::Session => format!("[\"Cookie\"] = \"sid={TOKEN}\""),
        Task::Auth => format!("[\"X-Token\"] = \"{TOKEN}\""),
        Task::Gzip => "[\"Accept-Encoding\"] = \"gzip\"".to_owned(),
        Task::None | Task::Limit => String::new(),
    };
    let Scenario { pipelined, keys, .. } = scenario;
    format!(
        "local drawn, at, many = {{}}, 0, {keys} > 1 and 65536 or 1
init = function()
  local sums, sum = {{}}, 0
  for key = 1, {keys} do sum = sum + 1 / key; sums[key] = sum end
  math.randomseed(1)
  for i = 1, many do
    local wanted, low, high = math.random() * sum, 1, {keys}
    while low < high do
      local middle = math.floor((low + high) / 2)
      if sums[middle] < wanted then low = middle + 1 else high = middle end
    end
    local path = low == 1 and '/' or '/' .. low
    drawn[i] = string.rep(wrk.format('GET', path, {{ {headers} }}), {pipelined})
  end
end
request = function() at = at % many + 1; return drawn[at] end
"
    )
}

/// Reads what `wrk --latency` prints.
fn read_wrk(said: &str) -> Result<Round, String> {
    // A fast error page is no achievement.
    if let Some(bad) = said.lines().find(|line| line.contains("Non-2xx") || line.contains("Socket errors")) {
        return Err(format!("wrk was not served well: {}", bad.trim()));
    }
    let after = |label: &str| -> Result<&str, String> {
        let line = said.lines().find_map(|line| line.trim().strip_prefix(label));
        line.map(str::trim).ok_or_else(|| format!("wrk printed no {label:?}:\n{said}"))
    };
    let span = |text: &str| read_span(text).ok_or_else(|| format!("not a span of wrk's: {text:?}"));
    let requests = said.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
    Ok(Round {
        requests: requests.ok_or("wrk did not say how many requests there were")?,
        per_second: after("Requests/sec:")?.parse().map_err(|error| format!("Requests/sec: {error}"))?,
        p50: span(after("50%")?)?,
        p99: span(after("99%")?)?,
    })
}

/// Reads what `h2load` prints, and its log: a line for each request with its start, its status and how long it took, in µs.
fn read_h2load(said: &str, log: &str) -> Result<Round, String> {
    let after = |label: &str| said.lines().find_map(|line| line.trim().strip_prefix(label));
    let counts = after("requests: ").ok_or_else(|| format!("h2load printed no requests:\n{said}"))?;
    let count = |word: &str| -> Result<u64, String> {
        let found = counts.split(", ").find_map(|part| part.strip_suffix(word)?.trim().parse().ok());
        found.ok_or_else(|| format!("h2load did not say how many were {word}: {counts}"))
    };
    let (done, bad) = (count("done")?, count("failed")? + count("errored")? + count("timeout")?);
    let per_second = after("finished in ").and_then(|line| line.split(", ").nth(1)?.strip_suffix(" req/s"));
    let mut took: Vec<u64> = Vec::new();
    for line in log.lines() {
        let mut words = line.split('\t').skip(1);
        match (words.next(), words.next().and_then(|micros| micros.parse().ok())) {
            (Some("200"), Some(micros)) => took.push(micros),
            _ => return Err(format!("h2load was not served well: {line}")),
        }
    }
    if bad > 0 || took.is_empty() {
        return Err(format!("h2load was not served well: {counts}"));
    }
    took.sort_unstable();
    let quantile = |share: usize| Duration::from_micros(took[(took.len() - 1) * share / 100]);
    Ok(Round {
        requests: done,
        per_second: per_second.and_then(|rate| rate.parse().ok()).ok_or("h2load printed no rate")?,
        p50: quantile(50),
        p99: quantile(99),
    })
}

/// `85.00us`, `1.20ms`, `3.00s`.
fn read_span(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 = text[..unit].parse().ok()?;
    let seconds = match &text[unit..] {
        "us" => number * 1e-6,
        "ms" => number * 1e-3,
        "s" => number,
        "m" => number * 60.0,
        _ => return None,
    };
    Some(Duration::from_secs_f64(seconds))
}

/// Asks several servers in turn, one request at a time, so that whatever the machine does meanwhile hits all alike.
///
/// # Errors
/// The first request that failed or was not answered with 200.
pub async fn ask_in_turn(servers: &[SocketAddr], rounds: usize) -> Result<Vec<Latencies>, String> {
    let ask = Ask::new(Method::GET, "/");
    let mut clients: Vec<_> =
        servers.iter().map(|server| (Client::new(None, *server), Latencies::default())).collect();
    // The first tenth warms connections, caches and branch predictors.
    for round in 0..rounds + rounds / 10 {
        for (client, latencies) in &mut clients {
            let answer = client.send(&ask).await.map_err(|failure: Failure| failure.to_string())?;
            if answer.status != 200 {
                return Err(format!("answered with {}", answer.status));
            }
            if round >= rounds / 10 {
                latencies.record(answer.took);
            }
        }
    }
    Ok(clients.into_iter().map(|(_, latencies)| latencies).collect())
}

/// Processor time used by the living processes of a group, whatever their number: nginx has a master and a worker.
#[must_use]
pub fn group_cpu(group: u32) -> Duration {
    let ticks = processes()
        .filter_map(|process| group_ticks(&std::fs::read_to_string(process.join("stat")).ok()?, group));
    // Linux counts in hundredths of a second for everybody but itself (USER_HZ).
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

/// The most memory that the living processes of a group had, each at its own moment, in bytes. What they share (the
/// program's text, above all) counts for each of them.
#[must_use]
pub fn group_peak(group: u32) -> u64 {
    let peaks = processes().filter_map(|process| {
        group_ticks(&std::fs::read_to_string(process.join("stat")).ok()?, group)?;
        peak(&std::fs::read_to_string(process.join("status")).ok()?)
    });
    peaks.sum()
}

/// Their folders in /proc; what else is there has no `stat` of a process.
fn processes() -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Ticks of one process in user and system mode, if it is of that group: proc(5), fields 5, 14 and 15.
fn group_ticks(stat: &str, group: u32) -> Option<u64> {
    // The second field, the name, may hold spaces and parentheses; the third one follows the last parenthesis.
    let from_third: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| from_third.get(number - 3)?.parse::<u64>().ok();
    (field(5)? == u64::from(group)).then_some(field(14)? + field(15)?)
}

/// The largest resident memory of one process, in bytes: proc(5), `VmHWM` of its status, which is in KiB.
fn peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// The middle of several measurements; of an even number the higher of the two. Zero for none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// How far measurements of the same lie apart: (highest − lowest) / median. Zero for none.
#[must_use]
pub fn noise(values: &[f64]) -> f64 {
    let middle = median(values.to_vec());
    let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
    if middle > 0.0 { (high - low) / middle } else { 0.0 }
}

/// What the figures were measured on.
#[must_use]
pub fn machine() -> Value {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field =
        |name: &str| cpuinfo.lines().find(|line| line.starts_with(name))?.split_once(": ").map(|(_, v)| v);
    let line = |program: &str, arguments: &[&str]| {
        first_line(Command::new(program).args(arguments).output()).unwrap_or_else(|| "unknown".to_owned())
    };
    json!({
        "processor": field("model name").unwrap_or("unknown"),
        // Not `available_parallelism`: by now we stay on one core.
        "cores": cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
        "kernel": line("uname", &["-sr"]),
        "nginx": line("nginx", &["-v"]),
        "haproxy": line("haproxy", &["-v"]),
        "varnish": line("varnishd", &["-V"]),
    })
}

/// The commit that was built, with a star when the tree had changes of its own.
#[must_use]
pub fn commit() -> String {
    let git = |arguments: &[&str]| Command::new("git").args(arguments).output();
    let commit =
        first_line(git(&["rev-parse", "--short=12", "HEAD"])).unwrap_or_else(|| "unknown".to_owned());
    let changed = first_line(git(&["status", "--porcelain"])).is_some();
    if changed { format!("{commit}*") } else { commit }
}

/// The first line of what a program printed; nginx prints its version as an error.
fn first_line(output: io::Result<std::process::Output>) -> Option<String> {
    let output = output.ok()?;
    let printed = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&printed).lines().next().map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    const SAID: &str = "Running 2s test @ http://127.0.0.1:1/
  1 threads and 64 connections
  Latency Distribution
     50%  850.00us
     75%    1.00ms
     90%    1.10ms
     99%    2.50ms
  123456 requests in 2.00s, 140.00MB read
Requests/sec:  61728.10
Transfer/sec:     70.00MB
";

    #[test]
    fn wrk_is_understood() {
        let round = read_wrk(SAID).unwrap();
        assert!((round.per_second - 61728.1).abs() < 1e-9);
        assert_eq!(round.requests, 123_456);
        assert_eq!((round.p50, round.p99), (Duration::from_micros(850), Duration::from_micros(2500)));
    }

    #[test]
    fn h2load_is_understood() {
        let said = "finished in 1.00s, 5917.00 req/s, 6.65MB/s
requests: 3 total, 4 started, 3 done, 3 succeeded, 0 failed, 0 errored, 0 timeout
";
        let round = read_h2load(said, "1\t200\t30\n2\t200\t10\n3\t200\t20\n").unwrap();
        assert_eq!((round.requests, round.per_second), (3, 5917.0));
        assert_eq!((round.p50, round.p99), (Duration::from_micros(20), Duration::from_micros(20)));
        assert!(read_h2load(said, "1\t503\t30\n").is_err());
        assert!(read_h2load(&said.replace("0 failed", "1 failed"), "1\t200\t30\n").is_err());
    }

    #[test]
    fn a_round_with_errors_is_no_result() {
        for bad in
            ["  Non-2xx or 3xx responses: 7\n", "  Socket errors: connect 0, read 3, write 0, timeout 0\n"]
        {
            assert!(read_wrk(&format!("{SAID}{bad}")).is_err());
        }
        assert!(read_wrk("Requests/sec: 1").is_err());
    }

    #[test]
    fn processor_time_is_that_of_the_group_only() {
        let stat = "41 (a (b) c) S 1 40 40 0 -1 4194304 9 0 0 0 7 5 0 0 20 0 1 0 100 0 0";
        assert_eq!((group_ticks(stat, 40), group_ticks(stat, 41)), (Some(12), None));
    }

    #[test]
    fn memory_is_the_highest_there_was() {
        let status = "Name:\tnginx\nVmPeak:\t   90000 kB\nVmHWM:\t    7300 kB\nVmRSS:\t    6000 kB\n";
        assert_eq!((peak(status), peak("Name:\tkthreadd\n")), (Some(7300 << 10), None));
        let me = std::fs::read_to_string("/proc/self/stat").unwrap();
        let group = me.rsplit_once(')').unwrap().1.split_whitespace().nth(2).unwrap().parse().unwrap();
        assert!(group_peak(group) > 1 << 20);
    }

    #[test]
    fn middle_and_noise_of_rounds() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(noise(&[90.0, 100.0, 110.0]), 0.2);
        assert_eq!((median(vec![]), noise(&[])), (0.0, 0.0));
    }
}
