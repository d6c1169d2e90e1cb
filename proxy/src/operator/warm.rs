//! Warming: an edge that runs is asked for pages before its clients are, through its own listeners, so that every rule of a
//! route counts; at a bounded rate, so that the origin does not notice.
//!
//! Pages are asked for as a client would that takes no coding and has no session. A long body is left early: what is kept
//! is fetched to its end all the same.

use std::{
    fmt,
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use weir_config::Plan;

use super::pages::{MOST_BYTES, Page, Pages, url};
use crate::{
    cache,
    http_client::{self, Address, Failed, Target, Tls, Way},
};

/// For one page.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of a body, before it is left.
const BODY_BYTES: usize = 1 << 20;
/// Sitemaps that indexes may name.
const MOST_SITEMAPS: usize = 1000;
/// Between two lines of progress.
const TELL: Duration = Duration::from_secs(1);

/// Where and how to warm.
#[derive(Debug, Clone)]
pub struct Warming {
    /// The listener for pages by http.
    pub plain: Option<SocketAddr>,
    /// The listener for pages by https.
    pub tls: Option<SocketAddr>,
    /// Requests a second.
    pub rate: NonZeroU32,
    /// Requests at once.
    pub at_once: usize,
    /// Pages at most, the most wanted first.
    pub most: usize,
    /// Where paths without a host are.
    pub host: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Warmed {
    /// Pages to ask for.
    pub pages: usize,
    /// Are kept now.
    pub kept: usize,
    /// Were kept already.
    pub there: usize,
    /// Are not kept, by the origin's or the route's word.
    pub passed: usize,
    /// Were answered with an error, or not at all.
    pub failed: usize,
    /// Lines that named no page.
    pub skipped: usize,
    /// Pages and sitemaps that were not asked for: no listener of their scheme is known.
    pub unreached: usize,
}

enum Outcome {
    Kept,
    There,
    Passed,
    Failed,
}

impl Warming {
    /// Asks for everything that the sources name (files, `-` for standard input, URLs of the edge), and tells how it goes.
    ///
    /// # Errors
    /// What cannot be read, or asked, in words for the operator.
    pub fn run(self, sources: &[String], tell: impl FnMut(&Warmed, Duration)) -> Result<Warmed, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|problem| problem.to_string())?;
        runtime.block_on(async {
            let mut warmed = Warmed::default();
            let pages = self.pages(sources, &mut warmed).await?;
            warmed.skipped = pages.skipped;
            let (reached, unreached): (Vec<_>, Vec<_>) =
                pages.ranked(self.most).into_iter().partition(|page| self.listener(page).is_ok());
            warmed.pages = reached.len();
            warmed.unreached += unreached.len();
            Ok(Arc::new(self).warm(reached, warmed, tell).await)
        })
    }

    async fn pages(&self, sources: &[String], warmed: &mut Warmed) -> Result<Pages, String> {
        let mut pages = Pages::default();
        for source in sources {
            let bytes = match url(source) {
                Some(page) => self.fetch(&page).await?,
                None => read(source).map_err(|problem| format!("{source}: {problem}"))?,
            };
            pages.read(&bytes, self.host.as_deref());
        }
        let mut fetched = 0;
        while let Some(sitemap) = pages.sitemaps.pop() {
            if fetched == MOST_SITEMAPS {
                return Err(format!("these are more than {MOST_SITEMAPS} sitemaps"));
            }
            if self.listener(&sitemap).is_err() {
                warmed.unreached += 1;
                continue;
            }
            fetched += 1;
            let bytes = self.fetch(&sitemap).await?;
            pages.read(&bytes, self.host.as_deref());
        }
        Ok(pages)
    }

    async fn warm(
        self: Arc<Self>,
        pages: Vec<Page>,
        mut warmed: Warmed,
        mut tell: impl FnMut(&Warmed, Duration),
    ) -> Warmed {
        let places = Arc::new(Semaphore::new(self.at_once.max(1)));
        let mut turns = interval(Duration::from_secs(1) / self.rate.get());
        // A slow edge is asked more slowly, and nothing is made up for.
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (started, mut told) = (Instant::now(), Instant::now());
        let mut asked = JoinSet::new();
        for page in pages {
            turns.tick().await;
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
            let warming = Arc::clone(&self);
            asked.spawn(async move {
                let outcome = outcome(&warming.ask(&page, BODY_BYTES).await);
                drop(place);
                outcome
            });
            while let Some(outcome) = asked.try_join_next() {
                warmed.count(outcome.as_ref().ok());
            }
            if told.elapsed() >= TELL {
                told = Instant::now();
                tell(&warmed, started.elapsed());
            }
        }
        while let Some(outcome) = asked.join_next().await {
            warmed.count(outcome.as_ref().ok());
        }
        warmed
    }

    fn listener(&self, page: &Page) -> Result<SocketAddr, String> {
        let (listener, option) = if page.is_https { (self.tls, "--to-tls") } else { (self.plain, "--to") };
        let scheme = if page.is_https { "https" } else { "http" };
        listener.ok_or_else(|| format!("no listener is known for {scheme}: name one with {option}"))
    }

    async fn ask(&self, page: &Page, most: usize) -> Result<Response<Bytes>, Failed> {
        let failed = |problem: String| Failed::Connect(std::io::Error::other(problem));
        let address = Address::Inet(self.listener(page).map_err(failed)?);
        let name = page.host.rsplit_once(':').map_or(&*page.host, |(name, _)| name);
        let tls = page.is_https.then(|| Tls::of_our_own(name)).transpose();
        let tls = tls.map_err(|problem| failed(problem.to_string()))?;
        let target = Target { address: &address, host: &page.host, tls: tls.as_ref(), way: Way::default() };
        http_client::get(target, &page.target, None, PATIENCE, most).await
    }

    async fn fetch(&self, page: &Page) -> Result<Bytes, String> {
        let shown = format!("{}{}", page.host, page.target);
        let most = usize::try_from(MOST_BYTES).unwrap_or(usize::MAX);
        self.listener(page)?;
        let answer = self.ask(page, most).await.map_err(|problem| format!("{shown}: {problem}"))?;
        match answer.status() {
            StatusCode::OK => Ok(answer.into_body()),
            status => Err(format!("{shown} is answered with {status}")),
        }
    }
}

/// The listeners of a configuration that pages can be asked for at: by http and by https.
#[must_use]
pub fn listeners(plan: &Plan) -> [Option<SocketAddr>; 2] {
    [false, true].map(|with_tls| {
        let mut fitting = plan.listeners.iter().filter(|listener| {
            listener.tls.is_some() == with_tls && !listener.proxy_protocol && listener.address.port() != 0
        });
        fitting.next().map(|listener| reachable(listener.address))
    })
}

/// A socket for everybody is reached on this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn read(source: &str) -> std::io::Result<Bytes> {
    let mut bytes = Vec::new();
    match source {
        "-" => std::io::stdin().lock().take(MOST_BYTES).read_to_end(&mut bytes)?,
        path => std::fs::File::open(path)?.take(MOST_BYTES).read_to_end(&mut bytes)?,
    };
    Ok(bytes.into())
}

fn outcome(answer: &Result<Response<Bytes>, Failed>) -> Outcome {
    let (status, fields) = match answer {
        Ok(answer) => (answer.status(), answer.headers()),
        // It was left in the middle, and is fetched to its end without us.
        Err(Failed::TooLong { head, .. }) => (head.status, &head.headers),
        Err(_) => return Outcome::Failed,
    };
    let ours = of_ours(fields);
    if status.is_client_error() || status.is_server_error() {
        Outcome::Failed
    } else if ours.iter().any(|word| word == "hit" || word == "collapsed") {
        Outcome::There
    } else if ours.iter().any(|word| word == "stored") {
        Outcome::Kept
    } else {
        Outcome::Passed
    }
}

/// The parameters of our own member of `Cache-Status`, the last one of our name (RFC 9211 §2).
fn of_ours(fields: &HeaderMap) -> Vec<String> {
    let mut lines = fields.get_all("cache-status").iter().filter_map(|value| value.to_str().ok());
    let last = lines.next_back().and_then(|line| line.rsplit(',').next()).unwrap_or_default();
    let mut words: Vec<String> = last.split(';').map(str::trim).map(str::to_owned).collect();
    let is_ours = words.first().is_some_and(|name| name == cache::NAME);
    if is_ours { words.split_off(1) } else { Vec::new() }
}

impl Warmed {
    fn count(&mut self, outcome: Option<&Outcome>) {
        match outcome {
            Some(Outcome::Kept) => self.kept += 1,
            Some(Outcome::There) => self.there += 1,
            Some(Outcome::Passed) => self.passed += 1,
            Some(Outcome::Failed) | None => self.failed += 1,
        }
    }

    /// Whether something was not warmed that should have been.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed > 0 || self.unreached > 0
    }

    fn done(&self) -> usize {
        self.kept + self.there + self.passed + self.failed
    }

    /// How it goes, after so long.
    #[must_use]
    pub fn progress(&self, after: Duration) -> String {
        let (done, left) = (self.done(), self.pages - self.done());
        let seconds = after.as_secs_f64() / done.max(1) as f64 * left as f64;
        format!("{self}; {seconds:.0} s left")
    }
}

impl fmt::Display for Warmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pages, kept, there, passed, failed, skipped, unreached } = self;
        write!(
            f,
            "{} of {pages} pages: {kept} kept, {there} were there, {passed} are not kept, {failed} failed",
            self.done()
        )?;
        if *skipped > 0 {
            write!(f, "; {skipped} lines name no page")?;
        }
        if *unreached > 0 {
            write!(f, "; {unreached} not asked for: no listener of their scheme is known (--to, --to-tls)")?;
        }
        Ok(())
    }
}
