//! Certificates and keys in PEM files: read, matched and dated before anybody is shown them or believes them.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

/// A file that cannot be used; the operator's to mend.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}", file = file.display())]
pub struct BadFile {
    /// Which.
    pub file: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

impl BadFile {
    pub(crate) fn new(file: &Path, problem: impl Into<String>) -> Self {
        Self { file: file.to_owned(), problem: problem.into() }
    }
}

/// When a file's certificates stop being good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// The file.
    pub file: PathBuf,
    /// The end of the first one that ends.
    pub at: SystemTime,
}

impl Expiry {
    fn of(file: &Path, chain: &[CertificateDer<'_>]) -> Option<Self> {
        let end = |certificate: &CertificateDer<'_>| {
            let (_, read) = X509Certificate::from_der(certificate).ok()?;
            u64::try_from(read.validity().not_after.timestamp()).ok()
        };
        let at = chain.iter().filter_map(end).min()?;
        Some(Self { file: file.to_owned(), at: SystemTime::UNIX_EPOCH + Duration::from_secs(at) })
    }

    /// Whole days that are left; below zero it is over.
    #[must_use]
    pub fn days_left(&self, now: SystemTime) -> i64 {
        const DAY: u64 = 24 * 60 * 60;
        let days = |span: Duration| i64::try_from(span.as_secs() / DAY).unwrap_or(i64::MAX);
        match self.at.duration_since(now) {
            Ok(left) => days(left),
            Err(over) => -1 - days(over.duration()),
        }
    }
}

/// A certificate chain, its key, and how long it is good for.
#[derive(Debug)]
pub struct Pair {
    /// As rustls takes it; its certificates are leaf first.
    pub certified: CertifiedKey,
    /// The key once more, for whoever takes it apart from its certificates.
    pub key: PrivateKeyDer<'static>,
    /// `None` where no certificate says so.
    pub expiry: Option<Expiry>,
}

/// Reads a chain and its key.
///
/// Errors: every file that is unreadable, has nothing of the kind, or a key of another certificate.
pub fn pair(chain_file: &Path, key_file: &Path) -> Result<Pair, Vec<BadFile>> {
    let key = PrivateKeyDer::from_pem_file(key_file)
        .map_err(|error| BadFile::new(key_file, format!("cannot be read as a PEM key: {error}")));
    let (chain, key) = match (certificates(chain_file), key) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => return Err([chain.err(), key.err()].into_iter().flatten().collect()),
    };
    let expiry = Expiry::of(chain_file, &chain);
    let certified = CertifiedKey::from_der(chain, key.clone_key(), &ring::default_provider());
    let certified = certified.map_err(|error| {
        vec![match error {
            rustls::Error::InconsistentKeys(_) => {
                BadFile::new(key_file, format!("is not the key of {}", chain_file.display()))
            }
            rustls::Error::InvalidCertificate(error) => {
                BadFile::new(chain_file, format!("is not a usable certificate: {error}"))
            }
            error => BadFile::new(key_file, format!("is not a usable key: {error}")),
        }]
    })?;
    Ok(Pair { certified, key, expiry })
}

/// The certificates of a file, at least one.
///
/// Errors: [`BadFile`].
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, BadFile> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates =
        read.map_err(|error| BadFile::new(file, format!("cannot be read as PEM certificates: {error}")))?;
    if certificates.is_empty() {
        return Err(BadFile::new(file, "has no certificate"));
    }
    Ok(certificates)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn the_first_certificate_that_ends_counts_and_days_are_whole() {
        let certificate = |year| {
            let mut made = rcgen::CertificateParams::new(["a.test".to_owned()]).unwrap();
            made.not_after = rcgen::date_time_ymd(year, 1, 1);
            made.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone()
        };
        let expiry = Expiry::of(Path::new("a.pem"), &[certificate(2040), certificate(2030)]).unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000);
        assert_eq!(expiry, Expiry { file: "a.pem".into(), at }, "2030-01-01");
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        for (now, days) in
            [(at - hours(49), 2), (at - hours(1), 0), (at + hours(1), -1), (at + hours(25), -2)]
        {
            assert_eq!(expiry.days_left(now), days);
        }
        assert_eq!(Expiry::of(Path::new("a.pem"), &[]), None);
    }

    #[test]
    fn both_files_of_a_pair_are_blamed_at_once() {
        let bad = pair(Path::new("/nowhere/a.pem"), Path::new("/nowhere/a.key")).unwrap_err();
        let files: Vec<_> = bad.iter().map(|bad| bad.file.to_str().unwrap()).collect();
        assert_eq!(files, ["/nowhere/a.pem", "/nowhere/a.key"]);
    }
}
