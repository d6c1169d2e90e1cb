//! What is compared: the scenarios of `make bench`.

const KIB: usize = 1024;

/// One question to all who can answer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scenario {
    /// As it is asked for, and as it stands in the results.
    pub name: &'static str,
    /// The body of every answer, in bytes.
    pub body: usize,
    /// Whether every request but the first for a key is answered from the cache; else all of them go to the origin.
    pub cached: bool,
    /// What the proxies do besides.
    pub task: Task,
    /// How clients speak.
    pub wire: Wire,
    /// Requests that a client sends before it waits for their answers; HTTP/1.1 only.
    pub pipelined: usize,
    /// How many targets are asked for. More than one are drawn by Zipf's law: the n-th is asked for 1/n as often as the first.
    pub keys: usize,
    /// Threads that a proxy works with. With two, they are on both cores, and the load beside them.
    pub threads: usize,
}

/// What a proxy does besides answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Nothing.
    None,
    /// It counts requests by address, against a limit that nobody reaches.
    Limit,
    /// It knows the session of each request from memory, and keeps answers for it alone. Only Weir has sessions.
    Session,
    /// It knows whose each request is by a Redis: Weir from memory, which Redis keeps true; nginx by `auth_request`. Beside Weir
    /// without sessions, which is what they are to cost next to nothing of.
    Auth,
    /// It answers in gzip, level 6.
    Gzip,
}

/// How clients speak, on connections that they keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// HTTP/1.1.
    Plain,
    /// HTTP/1.1 within TLS 1.3.
    Tls,
    /// HTTP/2 by prior knowledge, one stream at a time on each connection.
    Http2,
}

impl Scenario {
    /// In the order they run.
    pub const ALL: [Self; 15] = [
        Self { cached: false, ..Self::hit("pass_1k", KIB) },
        Self { cached: false, ..Self::hit("pass_64k", 64 * KIB) },
        Self::hit("hit_1k", KIB),
        Self::hit("hit_16", 16),
        Self::hit("hit_64k", 64 * KIB),
        Self::hit("hit_1m", KIB * KIB),
        Self { pipelined: 16, ..Self::hit("hit_1k_pipelined", KIB) },
        Self { wire: Wire::Http2, ..Self::hit("hit_1k_h2", KIB) },
        Self { wire: Wire::Tls, ..Self::hit("hit_1k_tls", KIB) },
        Self { task: Task::Gzip, ..Self::hit("hit_16k_gzip", 16 * KIB) },
        Self { task: Task::Limit, ..Self::hit("hit_1k_limit", KIB) },
        Self { task: Task::Session, ..Self::hit("hit_1k_session", KIB) },
        Self { task: Task::Auth, ..Self::hit("hit_1k_auth", KIB) },
        Self { keys: 10_000, ..Self::hit("hit_1k_zipf", KIB) },
        Self { threads: 2, ..Self::hit("hit_1k_two", KIB) },
    ];

    const fn hit(name: &'static str, body: usize) -> Self {
        let (task, wire) = (Task::None, Wire::Plain);
        Self { name, body, cached: true, task, wire, pipelined: 1, keys: 1, threads: 1 }
    }

    /// Whether it is asked one request at a time, too, by a client that says nothing but `GET /`.
    #[must_use]
    pub fn is_asked_alone(&self) -> bool {
        self.wire == Wire::Plain && self.task != Task::Auth
    }

    /// The one of this name, or all of them.
    ///
    /// # Errors
    /// The names there are.
    pub fn named(name: Option<&str>) -> Result<Vec<Self>, String> {
        let found: Vec<_> =
            Self::ALL.into_iter().filter(|one| name.is_none_or(|name| one.name == name)).collect();
        if found.is_empty() {
            return Err(format!("the scenarios are {}", Self::ALL.map(|one| one.name).join(", ")));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    #[test]
    fn a_scenario_is_found_by_its_name() {
        assert_eq!(Scenario::named(None).unwrap(), Scenario::ALL);
        assert_eq!(Scenario::named(Some("pass_64k")).unwrap(), [Scenario::ALL[1]]);
        let problem = Scenario::named(Some("pass")).unwrap_err();
        assert!(Scenario::ALL.iter().all(|one| problem.contains(one.name)), "{problem}");
    }
}
