//! TLS of the edge's own questions: the system's certificates and the plan's name, as for forwarded requests.

use std::{io, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

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
    /// TLS with a server that proves to be `name` by a chain to `roots`, or, when they are `None`, to anybody.
    ///
    /// Errors: [`BadTls`].
    pub fn new(name: &str, roots: Option<Arc<RootCertStore>>) -> Result<Self, BadTls> {
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let config = match roots {
            Some(roots) => config.with_root_certificates(roots),
            None => config.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        };
        let name = ServerName::try_from(name.to_owned()).map_err(|_| BadTls::Name(name.to_owned()))?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config.with_no_client_auth())), name })
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
        let mut roots = RootCertStore::empty();
        if trusted {
            roots.add(certificate).unwrap();
        }
        let tls = Tls::new(name, verify.then(|| Arc::new(roots))).unwrap();
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
        assert!(matches!(Tls::new("a b", None), Err(BadTls::Name(_))));
    }
}
