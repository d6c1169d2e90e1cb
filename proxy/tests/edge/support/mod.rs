//! What the tests are made of: an edge, origins with a script, clients that see every byte. All of it blocks, on
//! threads of its own, and all of it ends with the test.

mod client;
mod dns;
mod edge;
mod origin;

use std::{
    sync::{Condvar, Mutex},
    time::Duration,
};

use weir_testkit::Redis;

pub(crate) use self::{
    client::{Answer, Client, Head, get},
    dns::Dns,
    edge::Edge,
    origin::{Origin, Request, Wire, nobody, ok},
};

/// How long anything may take that should happen at once: generous, because the machine may be busy with other tests.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The words by which a configuration finds this Redis.
pub(crate) fn url(server: &Redis) -> String {
    format!("url: \"{}\"", server.url())
}

/// Waits for something to become true; panics with `what` when it does not.
#[track_caller]
pub(crate) fn until(what: &str, ready: impl FnMut() -> bool) {
    assert!(weir_testkit::wait_until(SOON, ready), "not in time: {what}");
}

/// Closed until somebody opens it.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    pub(crate) fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }

    /// Passes once it is open, or when the test has surely failed.
    pub(crate) fn pass(&self) {
        let open = self.open.lock().unwrap();
        drop(self.changed.wait_timeout_while(open, SOON, |open| !*open).unwrap());
    }
}
