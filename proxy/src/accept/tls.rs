//! TLS of one listener: certificates chosen by the name a client asks for, replaced in place at a reload.
//!
//! The names come from the certificates themselves (their subject alternative names). A client that asks for no name, or for one
//! that no certificate has, gets the first certificate, as with nginx.

use std::{collections::HashMap, path::Path, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use weir_config::plan;

use crate::pem::{self, BadFile, Expiry};

/// The certificates of a listener by name, read and checked.
#[derive(Debug)]
pub struct Certificates {
    first: Arc<CertifiedKey>,
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// `*.example.org` under `example.org`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    expiries: Vec<Expiry>,
}

impl Certificates {
    /// Reads chains and keys, given as pairs of PEM files, leaf first; the first pair that has a name wins it.
    ///
    /// Errors: every [`BadFile`]: unreadable, no PEM of the kind, a key that does not belong to the certificate.
    pub fn read<'a>(files: impl IntoIterator<Item = (&'a Path, &'a Path)>) -> Result<Self, Vec<BadFile>> {
        let (mut exact, mut wildcard, mut first) = (HashMap::new(), HashMap::new(), None);
        let (mut expiries, mut bad) = (Vec::new(), Vec::new());
        for (chain, key) in files {
            let (pair, names, expiry) = match read_pair(chain, key) {
                Ok(read) => read,
                Err(problems) => {
                    bad.extend(problems);
                    continue;
                }
            };
            expiries.extend(expiry);
            first.get_or_insert_with(|| pair.clone());
            for name in names {
                match name.strip_prefix("*.") {
                    Some(domain) => wildcard.entry(domain.to_owned()).or_insert_with(|| pair.clone()),
                    None => exact.entry(name).or_insert_with(|| pair.clone()),
                };
            }
        }
        match first {
            Some(first) if bad.is_empty() => Ok(Self { first, exact, wildcard, expiries }),
            None if bad.is_empty() => Err(vec![BadFile::new(Path::new(""), "no certificate is given")]),
            _ => Err(bad),
        }
    }

    /// Reads the certificates of a plan. Errors: as [`Certificates::read`].
    pub fn of(tls: &plan::Tls) -> Result<Self, Vec<BadFile>> {
        Self::read(tls.certificates.iter().map(|pair| (pair.chain.as_path(), pair.key.as_path())))
    }

    /// How long each of them is good for.
    #[must_use]
    pub fn expiries(&self) -> &[Expiry] {
        &self.expiries
    }

    fn choose(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let Some(name) = name.map(str::to_ascii_lowercase) else { return &self.first };
        let domain = name.split_once('.').map(|(_, domain)| domain);
        self.exact
            .get(&name)
            // A wildcard stands for one label (RFC 6125 §6.4.3).
            .or_else(|| self.wildcard.get(domain?))
            .unwrap_or(&self.first)
    }
}

type Read = (Arc<CertifiedKey>, Vec<String>, Option<Expiry>);

fn read_pair(chain_file: &Path, key_file: &Path) -> Result<Read, Vec<BadFile>> {
    let pair = pem::pair(chain_file, key_file)?;
    let unusable = |error: &dyn std::fmt::Display| {
        vec![BadFile::new(chain_file, format!("is not a usable server certificate: {error}"))]
    };
    let leaf = pair.certified.end_entity_cert().map_err(|error| unusable(&error))?;
    let leaf = webpki::EndEntityCert::try_from(leaf).map_err(|error| unusable(&error))?;
    let names = leaf.valid_dns_names().map(str::to_ascii_lowercase).collect();
    Ok((Arc::new(pair.certified), names, pair.expiry))
}

fn provider() -> CryptoProvider {
    ring::default_provider()
}

/// TLS of one listener; lives as long as it, while its certificates come and go.
#[derive(Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
    resolver: Arc<Resolver>,
}

impl Tls {
    /// TLS 1.2 and 1.3 with these certificates; `h2` is offered before `http/1.1` when `http2` says so.
    ///
    /// Errors: only when the system gives no randomness.
    pub fn new(certificates: Certificates, http2: bool) -> Result<Self, rustls::Error> {
        let resolver = Arc::new(Resolver(ArcSwap::from_pointee(certificates)));
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(resolver.clone());
        if http2 {
            config.alpn_protocols.push(b"h2".to_vec());
        }
        config.alpn_protocols.push(b"http/1.1".to_vec());
        // Sessions resume from the client's ticket, so that no memory of ours grows with the number of clients.
        config.ticketer = ring::Ticketer::new()?;
        Ok(Self { config: Arc::new(config), resolver })
    }

    /// Takes other certificates for the handshakes to come.
    pub fn replace(&self, certificates: Certificates) {
        self.resolver.0.store(Arc::new(certificates));
    }

    pub(super) async fn accept(&self, tcp: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.config.clone()).accept(tcp).await
    }
}

#[derive(Debug)]
struct Resolver(ArcSwap<Certificates>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().choose(hello.server_name()).clone())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::path::PathBuf;

    use super::*;

    struct Pair {
        _folder: tempfile::TempDir,
        chain: PathBuf,
        key: PathBuf,
    }

    fn pair(names: &[&str]) -> Pair {
        let made = rcgen::generate_simple_self_signed(
            names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(),
        )
        .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
        std::fs::write(&chain, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        Pair { _folder: folder, chain, key }
    }

    #[test]
    fn the_name_chooses_the_certificate_and_the_first_is_for_the_rest() {
        let pairs = [pair(&["a.test"]), pair(&["b.test", "*.b.test"]), pair(&["b.test", "c.b.test"])];
        let read = |pair: &Pair| {
            Certificates::read([(pair.chain.as_path(), pair.key.as_path())]).unwrap().first.cert[0].clone()
        };
        let ders: Vec<_> = pairs.iter().map(read).collect();
        let all =
            Certificates::read(pairs.iter().map(|pair| (pair.chain.as_path(), pair.key.as_path()))).unwrap();
        for (name, expected) in [
            (None, 0),
            (Some("a.test"), 0),
            (Some("B.test"), 1),
            (Some("x.b.test"), 1),
            (Some("c.b.test"), 2),
            (Some("x.y.b.test"), 0),
            (Some("other"), 0),
        ] {
            assert_eq!(all.choose(name).cert[0], ders[expected], "{name:?}");
        }
    }

    #[test]
    fn a_problem_names_its_file() {
        let (one, other) = (pair(&["a.test"]), pair(&["a.test"]));
        let problem =
            |chain: &Path, key: &Path| Certificates::read([(chain, key)]).unwrap_err()[0].to_string();
        let swapped = problem(&one.chain, &other.key);
        assert!(
            swapped.starts_with(other.key.to_str().unwrap()) && swapped.contains("is not the key of"),
            "{swapped}"
        );
        assert!(problem(&one.key, &one.key).contains("key.pem: "));
        assert!(problem(&one.chain, &one.chain).contains("cannot be read as a PEM key"));
        assert!(problem(Path::new("/nowhere/x.pem"), &one.key).starts_with("/nowhere/x.pem: "));
        std::fs::write(&one.chain, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert!(problem(&one.chain, &one.key).contains("is not a usable certificate"));
        assert!(Certificates::read([]).is_err());
    }
}
