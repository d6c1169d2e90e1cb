//! Rows of nginx's core and events modules, and of the modules that are not HTTP.

use super::*;

const PROCESS: Fate = Ignored("weir is one process; systemd or the container sets user, limits and priority");
const TUNING: Fate = Ignored("the event loop needs no tuning here");
const NOT_HTTP: &str = "weir speaks HTTP only; keep an nginx or HAProxy for these ports";

// A row is a line, however long its sentence.
#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    often("include", ANYWHERE, ONE, Means),
    once("worker_processes", MAIN, ONE, Means),
    block("events", MAIN, NONE, Body::Of(EVENTS), Ignored("connections are bounded by each listener")),
    block("http", MAIN, NONE, Body::Of(HTTP), Means),
    block("stream", MAIN, NONE, Body::Words, Refused(NOT_HTTP)),
    block("mail", MAIN, NONE, Body::Words, Refused(NOT_HTTP)),
    once("user", MAIN, ONE_OR_TWO, PROCESS),
    once("pid", MAIN, ONE, PROCESS),
    once("lock_file", MAIN, ONE, PROCESS),
    once("daemon", MAIN, Args::Flag, PROCESS),
    once("master_process", MAIN, Args::Flag, PROCESS),
    once("worker_priority", MAIN, ONE, PROCESS),
    once("worker_cpu_affinity", MAIN, SOME, PROCESS),
    once("worker_rlimit_nofile", MAIN, ONE, PROCESS),
    once("worker_rlimit_core", MAIN, ONE, PROCESS),
    once("worker_shutdown_timeout", MAIN, ONE, Means),
    once("working_directory", MAIN, ONE, PROCESS),
    often("env", MAIN, ONE, PROCESS),
    once("timer_resolution", MAIN, ONE, TUNING),
    once("pcre_jit", MAIN, Args::Flag, Ignored("regular expressions are always compiled")),
    once("thread_pool", MAIN, TWO_UP, TUNING),
    once("ssl_engine", MAIN, ONE, Refused("TLS is rustls, without hardware engines; take the directive out")),
    often("load_module", MAIN, ONE, Ignored("a directive of the module that matters has its own line here")),
    often("error_log", MAIN | HSL, SOME, Means),
    once("google_perftools_profiles", MAIN, ONE, TUNING),
    once("worker_connections", EVENTS, ONE, TUNING),
    once("use", EVENTS, ONE, TUNING),
    once("multi_accept", EVENTS, Args::Flag, TUNING),
    once("accept_mutex", EVENTS, Args::Flag, TUNING),
    once("accept_mutex_delay", EVENTS, ONE, TUNING),
    once("worker_aio_requests", EVENTS, ONE, TUNING),
    often("debug_connection", EVENTS, ONE, Ignored("it only adds debug lines to the log")),
    once("debug_points", MAIN, ONE, TUNING),
];
