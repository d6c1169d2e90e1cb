//! What mails say.

use uuid::Uuid;

use super::{Kind, sql::Recipient};
use crate::{database::Moment, mail::Letter, verification::Verifications};

/// The mail of a job; `None` when there is nothing (any more) to say. `id` is the job's, `site` is what links begin with.
#[must_use]
pub fn letter(
    kind: Kind,
    id: Uuid,
    user: Uuid,
    to: &Recipient,
    site: &str,
    verifications: &Verifications,
    now: Moment,
) -> Option<Letter> {
    // The readers are called by no name: whoever registers chooses one, and the reader may be somebody else, who must not read their words.
    // A proof is made now, not when it was asked for: a mail that had to wait is as good as any.
    let proof = || {
        let token = verifications.seal(user, &to.email, now);
        format!(
            "Please open this link within two days to prove that the address is yours:\n\n{site}/verify-email?token={token}\n"
        )
    };
    let (subject, text) = match (kind, to.email_verified_at) {
        (Kind::Welcome, None) => ("Welcome", format!("Hello,\n\nyour account is ready. {}", proof())),
        (Kind::Welcome, Some(_)) => ("Welcome", "Hello,\n\nyour account is ready.\n".into()),
        (Kind::Verification, None) => ("Your address", format!("Hello,\n\n{}", proof())),
        (Kind::Verification, Some(_)) => return None,
        (Kind::Purge, _) => return None,
        // Any number of items can be due at once: to an address that is not proven that is a way to fill somebody else's mailbox.
        (Kind::Delivery, None) => return None,
        // Not which one: a mail may be read by others than the vault is.
        (Kind::Delivery, Some(_)) => (
            "A delivery",
            format!("Hello,\n\nan item of your vault was delivered today, as you asked:\n\n{site}/vault\n"),
        ),
    };
    Some(Letter { id, to: to.email.clone(), subject: subject.into(), text })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn write(kind: Kind, verified: bool) -> Option<Letter> {
        let to = Recipient { email: "ada@example.org".into(), email_verified_at: verified.then(Moment::now) };
        letter(
            kind,
            Uuid::nil(),
            Uuid::nil(),
            &to,
            "https://example.org",
            &Verifications::new("s"),
            Moment::now(),
        )
    }

    #[test]
    fn a_link_proves_the_address_it_was_sent_to() {
        for kind in [Kind::Welcome, Kind::Verification] {
            let text = write(kind, false).unwrap().text;
            let token = text.split_once("https://example.org/verify-email?token=").unwrap().1.trim();
            let proven = Verifications::new("s").open(token, Moment::now()).unwrap();
            assert_eq!(proven.email, "ada@example.org");
        }
    }

    #[test]
    fn nobody_is_asked_for_a_proof_that_is_there() {
        assert_eq!(write(Kind::Verification, true), None);
        assert!(!write(Kind::Welcome, true).unwrap().text.contains("token"));
    }

    #[test]
    fn a_mail_about_an_item_goes_to_its_owner_and_does_not_say_what_it_is() {
        let letter = write(Kind::Delivery, true).unwrap();
        assert!(letter.text.contains("https://example.org/vault") && !letter.text.contains("token"));
        assert_eq!(write(Kind::Delivery, false), None, "it is perhaps nobody's of ours");
    }
}
