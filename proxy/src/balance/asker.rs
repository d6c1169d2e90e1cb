//! Who asks for a peer: what of a request a method may depend on. It is given, never looked up, so that a pick is a pure
//! function of it, of the peers and of the time.

use std::{net::IpAddr, sync::Arc};

use weir_config::{plan::Balance, template::Values};

/// What the choice depends on besides the peers; the same for every attempt of a request.
#[derive(Debug, Clone)]
pub struct Asker {
    /// Who asks.
    pub client: IpAddr,
    /// The rendered key of `hash`; empty, the request goes by round robin.
    pub key: String,
    /// The route of the peer that has this request's session.
    pub route: Option<Arc<str>>,
    /// What the lots of this request are drawn from.
    pub seed: u64,
}

impl Asker {
    /// The asker of the request that `facts` tell about; `route` comes from [`super::sticky::Sticky::route`].
    #[must_use]
    pub fn new(
        balance: &Balance,
        client: IpAddr,
        route: Option<Arc<str>>,
        facts: &impl Values,
        seed: u64,
    ) -> Self {
        let mut key = String::new();
        if let Balance::Hash { key: template, .. } = balance {
            // As it is, not encoded: nginx hashes the plain text.
            template.render(facts, &mut key);
        }
        Self { client, key, route, seed }
    }
}

/// Somebody of whom only the address is known.
impl From<IpAddr> for Asker {
    fn from(client: IpAddr) -> Self {
        Self { client, key: String::new(), route: None, seed: 0 }
    }
}
