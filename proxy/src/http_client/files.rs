//! The files that TLS to an upstream needs, read and checked before anybody connects with them.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use weir_config::plan::UpstreamTls;

/// A file that cannot be used; the operator's to mend.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}", file = file.display())]
pub struct BadFile {
    /// Which.
    pub file: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

/// What the files of an upstream's TLS hold.
#[derive(Debug)]
pub struct Files {
    /// Whom to believe; `None` believes anybody.
    pub(super) roots: Option<Arc<RootCertStore>>,
    /// What we show when asked.
    pub(super) own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    digest: u64,
}

impl Files {
    /// Reads what `tls` names; without a `ca` the system's authorities are believed.
    ///
    /// # Errors
    /// [`BadFile`]: unreadable, no PEM of the kind, a key that is not the certificate's.
    pub fn read(tls: &UpstreamTls) -> Result<Self, BadFile> {
        let mut hasher = DefaultHasher::new();
        let roots = if tls.verify { Some(Arc::new(roots(tls.ca.as_deref(), &mut hasher)?)) } else { None };
        let own = tls.certificate.as_ref().map(|own| pair(&own.chain, &own.key, &mut hasher)).transpose()?;
        Ok(Self { roots, own, digest: hasher.finish() })
    }

    /// Tells one content of the files from another.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }
}

fn bad(file: &Path, problem: impl Into<String>) -> BadFile {
    BadFile { file: file.to_owned(), problem: problem.into() }
}

fn certificates(file: &Path, hasher: &mut impl Hasher) -> Result<Vec<CertificateDer<'static>>, BadFile> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates =
        read.map_err(|error| bad(file, format!("cannot be read as PEM certificates: {error}")))?;
    if certificates.is_empty() {
        return Err(bad(file, "has no certificate"));
    }
    certificates.iter().for_each(|certificate| certificate.as_ref().hash(hasher));
    Ok(certificates)
}

fn roots(ca: Option<&Path>, hasher: &mut impl Hasher) -> Result<RootCertStore, BadFile> {
    let mut roots = RootCertStore::empty();
    let Some(file) = ca else {
        // What the system holds and cannot be read is the system's affair; an empty store verifies nobody.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().unwrap_or_default());
        return Ok(roots);
    };
    for certificate in certificates(file, hasher)? {
        roots.add(certificate).map_err(|error| bad(file, format!("is not a usable authority: {error}")))?;
    }
    Ok(roots)
}

fn pair(
    chain_file: &Path,
    key_file: &Path,
    hasher: &mut impl Hasher,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), BadFile> {
    let chain = certificates(chain_file, hasher)?;
    let key = PrivateKeyDer::from_pem_file(key_file)
        .map_err(|error| bad(key_file, format!("cannot be read as a PEM key: {error}")))?;
    key.secret_der().hash(hasher);
    let fits = CertifiedKey::from_der(chain.clone(), key.clone_key(), &ring::default_provider());
    fits.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            bad(key_file, format!("is not the key of {}", chain_file.display()))
        }
        error => bad(key_file, format!("is not a usable key: {error}")),
    })?;
    Ok((chain, key))
}
