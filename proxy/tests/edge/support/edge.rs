//! The binary under test, with a configuration of the test's own.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Command, ExitStatus},
};

use serde_json::Value;
use weir_testkit::{Child, READY_WITHIN};

use super::{Answer, Client, Origin, SOON, get, until};

/// Ports that the system chooses, unless the test has listeners of its own.
const LISTENERS: &str = "listeners: [127.0.0.1:0]\n";
const ADMIN: &str = "admin: { address: 127.0.0.1:0 }\n";

/// A running `weir`; ends with its drop.
pub(crate) struct Edge {
    child: Child,
    config: PathBuf,
    admin: SocketAddr,
}

impl Edge {
    /// Starts with this YAML; listeners and admin are added where it has none.
    pub(crate) fn start(yaml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.yaml");
        std::fs::write(&config, completed(yaml)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.arg("run").arg(&config).env_remove("RUST_LOG");
        let child = Child::start(command, folder, "KILL", "weir itself")
            .and_then(|child| child.ready(READY_WITHIN, |child| child.output().contains("\"serving\"")))
            .unwrap_or_else(|problem| panic!("{problem}"));
        let admin = announced(&child.output(), "admin on http://").remove(0);
        Self { child, config, admin }
    }

    /// Everything goes to one origin.
    pub(crate) fn before(origin: &Origin) -> Self {
        Self::start(&format!(
            "upstreams: {{ api: {{ servers: [{}] }} }}\nroutes: [{{ match: /*, to: api }}]\n",
            origin.address
        ))
    }

    /// As [`Edge::before`], with the route's further keys.
    pub(crate) fn routing(origin: &Origin, rest: &str, top: &str) -> Self {
        Self::start(&format!(
            "{top}\nupstreams: {{ api: {{ servers: [{}] }} }}\nroutes:\n  - match: /*\n    to: api\n    {rest}\n",
            origin.address
        ))
    }

    /// With what nginx would be told, translated; but for its listeners.
    pub(crate) fn translated(conf: &str) -> Self {
        let translation = weir_nginx::translate("nginx.conf", conf, &|_| Ok(Vec::new())).unwrap();
        assert_eq!(translation.report.refused().count(), 0, "{}", translation.report);
        let raw = weir_config::raw::Raw { listeners: weir_config::raw::Word::Absent, ..translation.raw };
        Self::start(&weir_config::to_yaml(&raw))
    }

    /// The first listener.
    pub(crate) fn http(&self) -> SocketAddr {
        self.listeners("http")[0]
    }

    /// The first listener with TLS.
    pub(crate) fn https(&self) -> SocketAddr {
        self.listeners("https")[0]
    }

    /// All that were ever opened, in the order they were.
    pub(crate) fn listeners(&self, scheme: &str) -> Vec<SocketAddr> {
        announced(&self.output(), &format!("listening on {scheme}://"))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        get(self.http(), path)
    }

    pub(crate) fn ask(&self, path: &str, fields: &str) -> Answer {
        self.connect().ask(path, fields)
    }

    /// Sends these bytes on a connection of their own.
    pub(crate) fn send(&self, bytes: impl AsRef<[u8]>) -> Answer {
        self.connect().send(bytes).answer()
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.http())
    }

    pub(crate) fn admin(&self, path: &str) -> Answer {
        Client::connect(self.admin)
            .send(format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.admin))
            .answer()
    }

    /// Whether it hears the purges of the fleet.
    pub(crate) fn hears_fleet(&self) -> bool {
        self.metric("weir_fleet_purges_heard") == 1.0
    }

    /// The edge, once it hears the purges of the fleet.
    pub(crate) fn in_fleet(self) -> Self {
        until("it hears the fleet", || self.hears_fleet());
        self
    }

    /// Asks the admin listener to change something, with further `fields`; status and answer.
    pub(crate) fn operate(&self, method: &str, path: &str, body: &Value, fields: &str) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {0}\r\ncontent-length: {1}\r\n{fields}\r\n{body}",
            self.admin,
            body.len()
        );
        let answer = Client::connect(self.admin).send(request).answer();
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
    }

    /// Orders a purge of the admin listener.
    pub(crate) fn order(&self, what: &Value) -> (u16, Value) {
        self.operate("POST", "/purge", what, "")
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// The file it runs with.
    pub(crate) fn config(&self) -> &std::path::Path {
        &self.config
    }

    /// A sample of the metrics, by name and labels as they are written; 0 where there is none.
    pub(crate) fn metric(&self, sample: &str) -> f64 {
        let text = self.admin("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Everything it printed.
    pub(crate) fn output(&self) -> String {
        self.child.output()
    }

    /// The access log's lines so far.
    pub(crate) fn records(&self) -> Vec<Value> {
        let lines = self.output();
        let records = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        records.filter(|record| record.get("took_ms").is_some()).collect()
    }

    /// The access log's line that says `value` under `key`.
    pub(crate) fn record(&self, key: &str, value: &str) -> Value {
        let mut found = None;
        until("the request's line in the log", || {
            found = self.records().into_iter().find(|record| record[key] == value);
            found.is_some()
        });
        found.unwrap()
    }

    /// Writes the file anew and waits until it was taken.
    pub(crate) fn reload(&self, yaml: &str) {
        assert!(self.reloaded(yaml), "refused: {}", self.output());
    }

    /// Writes the file anew and says whether it was taken.
    pub(crate) fn reloaded(&self, yaml: &str) -> bool {
        std::fs::write(&self.config, completed(yaml)).unwrap();
        let counts = || {
            ["taken", "refused"]
                .map(|outcome| self.metric(&format!("weir_reloads_total{{outcome=\"{outcome}\"}}")))
        };
        let before = counts();
        self.signal("HUP");
        until("the reload", || counts() != before);
        counts()[0] > before[0]
    }

    pub(crate) fn signal(&self, name: &str) {
        self.child.signal(name);
    }

    /// How it ended.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        self.child.wait(SOON).unwrap_or_else(|| panic!("still running:\n{}", self.child.output()))
    }

    /// Resident memory, bytes.
    pub(crate) fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// Bytes that it has sent to files on disks.
    pub(crate) fn written_to_disk(&self) -> usize {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.child.id())).unwrap();
        io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap().parse().unwrap()
    }

    /// Descriptors that it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}

fn completed(yaml: &str) -> String {
    let has = |key: &str| yaml.lines().any(|line| line.starts_with(key));
    let listeners = if has("listeners:") { "" } else { LISTENERS };
    let admin = if has("admin:") { "" } else { ADMIN };
    format!("{listeners}{admin}{yaml}")
}

fn announced(output: &str, words: &str) -> Vec<SocketAddr> {
    output.lines().filter_map(|line| line.strip_prefix(words)?.parse().ok()).collect()
}
