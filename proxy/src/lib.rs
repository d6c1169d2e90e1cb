//! The edge. A request is accepted, routed, limited, authenticated, looked up in the cache, balanced over peers,
//! forwarded, and recorded; the modules carry these words, in this order.

pub mod balance;
pub mod forward;
pub mod http_client;
