//! Weir, the edge: a request is **accepted**, **routed**, **limited**, **authenticated**, **looked up** in the cache,
//! **balanced** over peers, **forwarded**, and **recorded**. The stages below carry these words, in this order.
//!
//! The lexicon: a *client* connects to a *listener*; its request takes a *route*; a *limit* counts it under a key; a
//! session token says who the *caller* is; a stored answer is an *entry*; an *upstream* is a named group of *peers*
//! (`servers` in config.yaml and nginx); each try at one is an *attempt*; a "no" is a *refusal*; what is written down
//! about it is its *record*.
//!
//! Where to begin: [`edge`] tells the request path in time order, [`express`] the short way of a hot hit. Decisions are argued in `proxy/DESIGN.md`.

// The stages, in the order a request meets them. None of them knows another.
pub mod accept; // listeners, TLS, one request with one meaning; refuses what two parsers could read differently
pub mod route; // host, path, method, fields → a route; redirects, fixed answers, files
pub mod limit; // how many requests a key may make
pub mod auth; // addresses, session tokens, roles, the signed identity
pub mod cache; // what is kept, what may answer, what a purge ends
pub mod balance; // which peer, and whether it is well
pub mod forward; // heads for peers and from peers, HTTP/1.1 to them, retries

// What they are put together with, lowest layer first.
pub mod refusal; // the one table of every "no"
pub mod request; // a request as every stage behind the front sees it
pub mod running; // what lives: everything a plan asks for
pub mod decide; // routed, admitted, authenticated: what both lanes ask first
pub mod explain; // why a request is, or would not be, answered from the cache
pub mod journey; // one request's memory
pub mod record; // the one place a request is written down
pub mod trial; // what a plan needs of the machine, tried before anything changes
pub mod state; // what is in force, and how a reload changes it
pub mod express; // THE REQUEST PATH, express lane: hits that need no waiting
pub mod edge; // THE REQUEST PATH, general lane
pub mod admin; // live, ready, health, metrics, purges, explanations
pub mod operator; // the command line's questions to an edge that runs
pub mod serve; // the life of the process

// Leaves that anyone may use.
pub mod causes; // an error with its causes
pub mod chunked; // the chunked coding, strictly
pub mod coding; // gzip, br and zstd: what a client likes, and the compressors
pub mod fleet; // Redis, which the fleet shares
pub mod http_client; // the edge's own questions
pub mod metrics; // the families and their handles
pub mod pem; // certificates and keys in files
pub mod source; // the configuration's file and environment
pub mod stripes; // what every request writes to, apart for each thread
pub mod wire; // HTTP/1 heads as bytes
