//! The files that TLS to an upstream needs, read and checked before anybody connects with them.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    sync::Arc,
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use weir_config::plan::UpstreamTls;

use crate::pem::{self, BadFile, Expiry};

/// What the files of an upstream's TLS hold.
#[derive(Debug)]
pub struct Files {
    /// Whom to believe; `None` believes anybody.
    pub(super) roots: Option<Arc<RootCertStore>>,
    /// What we show when asked.
    pub(super) own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    expiry: Option<Expiry>,
    digest: u64,
}

impl Files {
    /// Reads what `tls` names; without a `ca` the system's authorities are believed.
    ///
    /// # Errors
    /// Every [`BadFile`]: unreadable, no PEM of the kind, a key that is not the certificate's.
    pub fn read(tls: &UpstreamTls) -> Result<Self, Vec<BadFile>> {
        let mut hasher = DefaultHasher::new();
        let ca = tls.ca.as_ref().map(|ca| ca.as_path());
        let roots = tls.verify.then(|| roots(ca, &mut hasher)).transpose();
        let pair = tls.certificate.as_ref().map(|own| pem::pair(&own.chain, &own.key)).transpose();
        let (roots, pair) = match (roots, pair) {
            (Ok(roots), Ok(pair)) => (roots.map(Arc::new), pair),
            (roots, pair) => {
                return Err(roots.err().into_iter().chain(pair.err().into_iter().flatten()).collect());
            }
        };
        let (mut own, mut expiry) = (None, None);
        if let Some(pair) = pair {
            pair.certified.cert.iter().for_each(|certificate| certificate.as_ref().hash(&mut hasher));
            pair.key.secret_der().hash(&mut hasher);
            (own, expiry) = (Some((pair.certified.cert, pair.key)), pair.expiry);
        }
        Ok(Self { roots, own, expiry, digest: hasher.finish() })
    }

    /// How long what we show is good for.
    #[must_use]
    pub fn expiry(&self) -> Option<&Expiry> {
        self.expiry.as_ref()
    }

    /// Tells one content of the files from another.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }
}

fn roots(ca: Option<&Path>, hasher: &mut impl Hasher) -> Result<RootCertStore, BadFile> {
    let mut roots = RootCertStore::empty();
    let Some(file) = ca else {
        // What the system holds and cannot be read is the system's affair; an empty store verifies nobody.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().unwrap_or_default());
        return Ok(roots);
    };
    for certificate in pem::certificates(file)? {
        certificate.as_ref().hash(hasher);
        let added = roots.add(certificate);
        added.map_err(|error| BadFile::new(file, format!("is not a usable authority: {error}")))?;
    }
    Ok(roots)
}
