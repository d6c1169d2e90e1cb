//! The words about which server of an upstream is asked: the method, and what keeps a session where it began.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    upstream::TokenSource,
    word::{FromShort, List, Short, Word},
};
use crate::{
    template::Template,
    units::{Factor, Span},
};

/// How a server is chosen: a method, or the keys of one that has some.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Balance {
    /// `round_robin`, `least_conn`, `least_time`, `ip_hash`, `random` or `random_two`.
    pub method: Word<Method>,
    /// The key by which a request always finds the same server.
    pub hash: Word<Template>,
    /// With `hash`: a server more or less moves only its own share of the keys (ketama).
    pub consistent: Word<bool>,
    /// With `consistent`: no server gets more than so many times its share of the requests in flight.
    pub bound: Word<Factor>,
    /// The better of two servers drawn by lot: by `least_conn` or `least_time`.
    pub random_two: Word<Least>,
    /// The shortest time to the answer's `header` or to its `last_byte`, by the requests in flight.
    pub least_time: Word<Until>,
    /// With `least_time`: requests that still wait count with the time that they have waited.
    pub inflight: Word<bool>,
}

/// The methods that a word says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// In turn, by weight.
    RoundRobin,
    /// Fewest active requests by weight.
    LeastConn,
    /// Shortest time to the answer's head.
    LeastTime,
    /// By the client's address.
    IpHash,
    /// By lot, by weight.
    Random,
    /// The one of two drawn by lot that has fewer active requests.
    RandomTwo,
}

/// Which of two servers is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Least {
    /// That with fewer active requests by weight.
    LeastConn,
    /// That which should be done first.
    LeastTime,
}

/// What an answer's time is measured until.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// Its head.
    Header,
    /// Its last byte.
    LastByte,
}

impl Balance {
    /// A method that needs no keys.
    #[must_use]
    pub fn by(method: Method) -> Self {
        Self { method: Word::new(method), ..Self::default() }
    }
}

impl FromShort for Balance {
    const SHORT_FORM: &'static str =
        "`round_robin`, `least_conn`, `least_time`, `ip_hash`, `random` or `random_two`";

    fn from_short(text: &str) -> Result<Self, String> {
        if text == "hash" {
            return Err("`hash` needs a key; write `{ hash: \"${request.target}\" }`".to_owned());
        }
        let text = serde::de::value::StrDeserializer::<crate::decode::Wrong>::new(text);
        Method::deserialize(text).map(Self::by).map_err(|wrong| wrong.sentence())
    }

    fn to_short(&self) -> Option<String> {
        let method = self.method.get().filter(|method| *self == Self::by(**method))?;
        serde_json::to_value(method).ok()?.as_str().map(str::to_owned)
    }
}

/// How the requests of one session find the server that has it: one of these keys.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sticky {
    /// A cookie that we set.
    pub cookie: Word<Short<StickyCookie>>,
    /// Values of the request that name a server's `route`; the first that is not empty counts.
    pub route: Word<List<Template>>,
    /// A field in which answers name their server, and requests the server they want.
    pub header: Word<String>,
    /// Sessions that the servers begin, remembered here.
    pub learn: Word<Learn>,
}

/// A cookie that names a server, in a word that does not tell its address.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StickyCookie {
    /// The cookie's name.
    pub name: Word<String>,
    /// How long a browser keeps it. Default: as long as it runs.
    pub expires: Word<Span>,
    /// `Domain`. Default: the host that was asked.
    pub domain: Word<String>,
    /// `Path`. Default: the folder of what was asked for.
    pub path: Word<String>,
    /// `HttpOnly`: scripts do not see it.
    pub http_only: Word<bool>,
    /// `Secure`: sent over TLS only.
    pub secure: Word<bool>,
    /// `SameSite`.
    pub same_site: Word<SameSite>,
}

impl FromShort for StickyCookie {
    const SHORT_FORM: &'static str = "the cookie's name";

    fn from_short(text: &str) -> Result<Self, String> {
        Ok(Self { name: Word::new(text.to_owned()), ..Self::default() })
    }
}

/// `SameSite` of a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SameSite {
    /// Never sent from another site.
    Strict,
    /// Sent with links from other sites.
    Lax,
    /// Always sent; browsers ask for `secure` then.
    None,
}

/// Sessions that the servers begin, remembered here.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Learn {
    /// What in an answer begins a session: `cookie: NAME` or `header: NAME`.
    pub create: Word<List<TokenSource>>,
    /// What in a request names its session; the first that is not empty counts.
    pub lookup: Word<List<Template>>,
    /// A session that nobody uses for so long is forgotten.
    pub timeout: Word<Span>,
    /// Sessions remembered at most.
    pub sessions: Word<u32>,
}

/// What happens when failures or checks have taken every server out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenAllDown {
    /// The request is refused, and failures are forgiven: the next one tries again.
    Pardon,
    /// The servers are asked all the same.
    FailOpen,
}
