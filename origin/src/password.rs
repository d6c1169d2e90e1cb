//! Password hashes: argon2id, off the async threads, as many at once as there are cores.
//!
//! An unknown account costs as much as a wrong password: then a hash that nobody has is checked, so that the time of an answer
//! does not say which addresses are registered.

use std::{sync::Arc, thread, time::Duration};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::{sync::Semaphore, task, time};

use crate::{config::PasswordConfig, refusal::Refusal};

/// Longest wait for a core; a login that waits longer is better tried again.
const WAIT: Duration = Duration::from_secs(5);

/// Hashes and checks passwords with one set of costs.
#[derive(Debug, Clone)]
pub struct Passwords {
    argon2: Argon2<'static>,
    cores: Arc<Semaphore>,
    nobody: Arc<str>,
}

/// The hash, or the check, failed by itself: bad costs or a broken row.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// The costs are out of argon2's bounds.
    #[error("argon2 refuses these costs: {0}")]
    Costs(argon2::Error),
    /// The hash could not be made or read.
    #[error("password hash: {0}")]
    Hash(argon2::password_hash::Error),
}

impl Passwords {
    /// Checks the costs, and makes the hash that nobody has.
    ///
    /// # Errors
    /// When argon2 refuses the costs.
    pub fn new(config: &PasswordConfig) -> Result<Self, HashError> {
        let params =
            Params::new(config.argon2_memory, config.argon2_passes, 1, None).map_err(HashError::Costs)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let nobody = hash(&argon2, &rand::random::<u128>().to_string())?.into();
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Ok(Self { argon2, cores: Arc::new(Semaphore::new(cores)), nobody })
    }

    /// The PHC string to store for `password`.
    ///
    /// # Errors
    /// 503 when no core was free in time.
    pub async fn hash(&self, password: String) -> Result<String, Refusal> {
        self.on_a_core(move |argon2| hash(argon2, &password)).await
    }

    /// Whether `password` is the one of `stored`; with `None` always false, after the same time.
    ///
    /// # Errors
    /// 503 when no core was free in time; 500 when the stored hash cannot be read.
    pub async fn verify(&self, password: String, stored: Option<String>) -> Result<bool, Refusal> {
        let nobody = Arc::clone(&self.nobody);
        self.on_a_core(move |argon2| {
            let known = stored.is_some();
            let hash = PasswordHash::new(stored.as_deref().unwrap_or(&nobody))
                .map_err(|e| HashError::Hash(e.into()))?;
            let matches = argon2.verify_password(password.as_bytes(), &hash).is_ok();
            Ok(known && matches)
        })
        .await
    }

    async fn on_a_core<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Argon2<'static>) -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let core = time::timeout(WAIT, Arc::clone(&self.cores).acquire_owned())
            .await
            .map_err(|late| Refusal::Unavailable(late.into()))?
            .expect("the semaphore is never closed");
        let argon2 = self.argon2.clone();
        let done = task::spawn_blocking(move || {
            // Held by the work, not by the request: a client that leaves does not free a core that still computes.
            let _core = core;
            work(&argon2)
        });
        done.await.map_err(|e| Refusal::Internal(e.into()))?.map_err(|e| Refusal::Internal(e.into()))
    }
}

/// Hashes on the calling thread; for start-up and seeding.
fn hash(argon2: &Argon2<'_>, password: &str) -> Result<String, HashError> {
    let hash: PasswordHash = argon2.hash_password(password.as_bytes()).map_err(HashError::Hash)?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn only_the_right_password_matches_and_nobody_has_one() {
        let passwords = Passwords::new(&PasswordConfig { argon2_memory: 8, argon2_passes: 1 }).unwrap();
        let hash = passwords.hash("right".into()).await.unwrap();
        assert!(passwords.verify("right".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("wrong".into(), Some(hash)).await.unwrap());
        assert!(!passwords.verify("right".into(), None).await.unwrap());
    }

    #[tokio::test]
    async fn an_unknown_account_costs_as_much_as_a_wrong_password() {
        let passwords = Passwords::new(&PasswordConfig { argon2_memory: 4096, argon2_passes: 2 }).unwrap();
        let hash = passwords.hash("right".into()).await.unwrap();
        let quickest = async |stored: Option<String>| {
            let mut quickest = Duration::MAX;
            for _ in 0..5 {
                let started = Instant::now();
                passwords.verify("wrong".into(), stored.clone()).await.unwrap();
                quickest = quickest.min(started.elapsed());
            }
            quickest
        };
        let (known, unknown) = (quickest(Some(hash)).await, quickest(None).await);
        // A skipped hash would be a hundred times quicker; a tenth leaves room for a busy machine.
        assert!(unknown * 10 > known, "{unknown:?} against {known:?}");
    }
}
