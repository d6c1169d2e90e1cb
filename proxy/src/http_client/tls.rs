//! TLS of the edge's own questions: authorities, certificate and name as for forwarded requests.

use std::{io, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};
use weir_config::plan::{TlsVersion, UpstreamTls};

use super::files::Files;

/// How to speak TLS to one upstream.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why TLS cannot be set up; the operator's fault.
#[derive(Debug, thiserror::Error)]
pub enum BadTls {
    /// The name can be in no certificate.
    #[error("{0:?} is no name of a server")]
    Name(String),
    /// The provider does not offer TLS as we ask for it.
    #[error("cannot set up TLS")]
    Setup(#[from] rustls::Error),
}

impl Tls {
    /// TLS as `plan` wants it, with what its `files` hold.
    ///
    /// Errors: [`BadTls`].
    pub fn new(plan: &UpstreamTls, files: &Files) -> Result<Self, BadTls> {
        let provider = Arc::new(ring::default_provider());
        let versions = match plan.min_version {
            TlsVersion::V12 => rustls::DEFAULT_VERSIONS,
            TlsVersion::V13 => &[&rustls::version::TLS13],
        };
        let config =
            ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
        let config = match &files.roots {
            Some(roots) => config.with_root_certificates(Arc::clone(roots)),
            None => config.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        };
        let config = match &files.own {
            Some((chain, key)) => config.with_client_auth_cert(chain.clone(), key.clone_key())?,
            None => config.with_no_client_auth(),
        };
        let name = plan.name.value.clone();
        let name = ServerName::try_from(name).map_err(|_| BadTls::Name(plan.name.value.clone()))?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }

    /// The same, but agreeing on this protocol in the handshake (ALPN, RFC 7301).
    #[must_use]
    pub fn speaking(&self, protocol: &[u8]) -> Self {
        let mut config = ClientConfig::clone(self.connector.config());
        config.alpn_protocols = vec![protocol.to_vec()];
        Self { connector: TlsConnector::from(Arc::new(config)), name: self.name.clone() }
    }

    pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<TlsStream<S>> {
        self.connector.connect(self.name.clone(), stream).await
    }
}

/// Believes every certificate, because the plan says `verify: false`; the handshake's signatures are still checked.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use rustls::{ServerConfig, pki_types::PrivateKeyDer};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    fn tls(name: &str, words: &str) -> Result<Tls, BadTls> {
        let yaml = format!(
            "listeners: [127.0.0.1:0]\nupstreams: {{ api: {{ servers: [127.0.0.1:1], tls: {{ name: {name}, {words} }} }} }}\nroutes: [{{ to: api }}]\n"
        );
        let plan = weir_config::load("config.yaml", &yaml, &|_: &str| None).unwrap().plan;
        let plan = plan.upstreams[0].tls.clone().unwrap();
        Tls::new(&plan, &Files::read(&plan).unwrap())
    }

    /// Shakes hands with a server that is `origin.test` by its own word; `trusted` puts that word among the roots.
    async fn shake_hands(name: &str, trusted: bool, verify: bool) -> io::Result<()> {
        let own = rcgen::generate_simple_self_signed(["origin.test".to_owned()]).unwrap();
        let certificate = own.cert.der().clone();
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let _ = TlsAcceptor::from(Arc::new(config)).accept(stream).await;
        });
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        let other = rcgen::generate_simple_self_signed(["other.test".to_owned()]).unwrap();
        std::fs::write(&ca, if trusted { own.cert.pem() } else { other.cert.pem() }).unwrap();
        let words = if verify { format!("ca: {}", ca.display()) } else { "verify: false".to_owned() };
        let tls = tls(name, &words).unwrap();
        tls.connect(tokio::net::TcpStream::connect(address).await?).await.map(drop)
    }

    #[tokio::test]
    async fn the_right_name_under_a_trusted_root_is_accepted() {
        shake_hands("origin.test", true, true).await.unwrap();
    }

    #[tokio::test]
    async fn another_name_is_refused() {
        assert!(shake_hands("other.test", true, true).await.is_err());
    }

    #[tokio::test]
    async fn an_unknown_root_is_refused_unless_nothing_is_verified() {
        assert!(shake_hands("origin.test", false, true).await.is_err());
        shake_hands("other.test", false, false).await.unwrap();
    }

    #[test]
    fn what_is_no_name_is_refused() {
        assert!(matches!(tls("a b", "verify: false"), Err(BadTls::Name(_))));
    }
}
