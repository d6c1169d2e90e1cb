//! Hands mail to an SMTP server (RFC 5321), or says in the log that there is none.
//!
//! Connections are kept and used for several mails. What a server says decides what follows: its 5xx is about this mail and final, but
//! for those about us logging in, which an operator can mend; everything else is worth another try.

use std::{fs, time::Duration};

use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{
        Mailbox,
        header::{ContentType, HeaderName, HeaderValue},
    },
    transport::smtp::{
        self, PoolConfig,
        client::{Certificate, Tls, TlsParameters},
    },
};
use uuid::Uuid;

use crate::{app::StartError, config::MailConfig};

/// Longest wait for each answer of the server. RFC 5321 §4.5.3.2 allows minutes; a job's half of the usual lease is shorter.
const PATIENCE: Duration = Duration::from_secs(25);

/// Sends mail.
pub struct Mailer {
    server: Option<AsyncSmtpTransport<Tokio1Executor>>,
    from: Mailbox,
}

/// A mail to one reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Names the mail to whoever gets it twice.
    pub id: Uuid,
    /// The reader's address.
    pub to: String,
    /// One line.
    pub subject: String,
    /// Plain text.
    pub text: String,
}

/// What became of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The server has it.
    Accepted,
    /// There is no server: nobody gets it.
    Nowhere,
}

/// Why a mail was not sent.
#[derive(Debug, thiserror::Error)]
pub enum NotSent {
    /// Nor will it ever be.
    #[error("refused: {0}")]
    Refused(String),
    /// Another try may succeed.
    #[error("not sent: {0}")]
    Failed(String),
}

impl Mailer {
    /// With at most `connections` to the server; inside a runtime, in which idle ones are closed.
    ///
    /// # Errors
    /// When the URL or the file of authorities is not one, or a password would go in the clear to another machine.
    pub fn new(config: &MailConfig, connections: u32) -> Result<Self, StartError> {
        let server = config.smtp_url.as_deref().map(|url| {
            // What lettre's error says may show the URL, and with it the password.
            let parsed: axum::http::Uri = url.parse().map_err(|_| "the SMTP URL is none")?;
            let host = parsed.host().ok_or("the SMTP URL names no host")?.to_owned();
            let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(url);
            let mut builder =
                builder.map_err(|_| "the SMTP URL is not smtp://, smtp://…?tls=required or smtps://")?;
            let protected = parsed.scheme_str() == Some("smtps") || parsed.query() == Some("tls=required");
            let has_password = parsed.authority().is_some_and(|authority| authority.as_str().contains('@'));
            if has_password && !protected && !is_loopback(&host) {
                return Err("the SMTP password would go in the clear: add ?tls=required".into());
            }
            if let (Some(file), true) = (&config.smtp_ca, protected) {
                let pem = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
                let authority =
                    Certificate::from_pem(&pem).map_err(|error| format!("{}: {error}", file.display()))?;
                let tls = TlsParameters::builder(host).add_root_certificate(authority).build()?;
                builder = builder.tls(match parsed.scheme_str() {
                    Some("smtps") => Tls::Wrapper(tls),
                    _ => Tls::Required(tls),
                });
            }
            let pool = PoolConfig::new().max_size(connections);
            Ok::<_, StartError>(builder.timeout(Some(PATIENCE)).pool_config(pool).build())
        });
        Ok(Self { server: server.transpose()?, from: config.mail_from.clone() })
    }

    /// Hands a mail to the server, and returns when it has taken it.
    ///
    /// # Errors
    /// [`NotSent`], which says whether another try is worth it.
    pub async fn send(&self, letter: &Letter) -> Result<Sent, NotSent> {
        let Some(server) = &self.server else { return Ok(Sent::Nowhere) };
        let message = self.message(letter).map_err(|error| NotSent::Refused(error.to_string()))?;
        server.send(message).await.map(|_| Sent::Accepted).map_err(|error| judge(&error))
    }

    fn message(&self, letter: &Letter) -> Result<Message, StartError> {
        let to: Address = letter.to.parse()?;
        Ok(Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(&letter.subject)
            .message_id(Some(format!("<{}@{}>", letter.id, self.from.email.domain())))
            // RFC 3834 §5: no "I am on holiday" comes back.
            .raw_header(HeaderValue::new(
                HeaderName::new_from_ascii_str("Auto-Submitted"),
                "auto-generated".into(),
            ))
            .header(ContentType::TEXT_PLAIN)
            .body(letter.text.clone())?)
    }
}

fn judge(error: &smtp::Error) -> NotSent {
    // RFC 4954 §6: 530, 534, 535 and 538 say that we are not (rightly) logged in.
    let code = error.status().map(u16::from);
    let about_us = matches!(code, Some(530 | 534 | 535 | 538));
    if error.is_permanent() && !about_us {
        NotSent::Refused(error.to_string())
    } else {
        NotSent::Failed(error.to_string())
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn config(url: Option<&str>) -> MailConfig {
        MailConfig {
            smtp_url: url.map(str::to_owned),
            smtp_ca: None,
            mail_from: "Weir <weir@example.org>".parse().unwrap(),
            site_url: "https://example.org".into(),
        }
    }

    fn letter(to: &str) -> Letter {
        Letter { id: Uuid::nil(), to: to.into(), subject: "Grüße".into(), text: "Hello.\n".into() }
    }

    #[tokio::test]
    async fn a_password_goes_in_the_clear_only_to_this_machine() {
        let refused = |url| Mailer::new(&config(Some(url)), 1).err().map(|error| error.to_string());
        assert!(refused("smtp://a:secret@mail.example.org").unwrap().contains("?tls=required"));
        assert!(refused("smtp://a:secret@mail.example.org?tls=opportunistic").is_some());
        for url in [
            "smtp://a:secret@127.0.0.1:25",
            "smtp://a:secret@[::1]:25",
            "smtp://mail.example.org",
            "smtp://a:secret@mail.example.org?tls=required",
            "smtps://a:secret@mail.example.org",
        ] {
            assert_eq!(refused(url), None, "{url}");
        }
    }

    #[tokio::test]
    async fn a_url_that_is_none_is_refused_without_showing_its_password() {
        for url in ["http://a:secret@mail.example.org", "smtps://", "a:secret", "smtp://a:secret@h?tls=maybe"]
        {
            let said = Mailer::new(&config(Some(url)), 1).err().unwrap().to_string();
            assert!(!said.contains("secret"), "{said}");
        }
    }

    #[tokio::test]
    async fn a_mail_has_one_id_however_often_it_is_sent() {
        let mailer = Mailer::new(&config(None), 1).unwrap();
        let text =
            || String::from_utf8(mailer.message(&letter("ada@example.org")).unwrap().formatted()).unwrap();
        for line in [
            "Message-ID: <00000000-0000-0000-0000-000000000000@example.org>\r\n",
            "To: ada@example.org\r\n",
            "Auto-Submitted: auto-generated\r\n",
        ] {
            assert!(text().contains(line), "{line}{}", text());
        }
        assert!(text().is_ascii(), "{}", text());
    }

    #[tokio::test]
    async fn what_is_no_address_is_refused_for_good() {
        let mailer = Mailer::new(&config(Some("smtp://127.0.0.1:1")), 1).unwrap();
        assert!(matches!(mailer.send(&letter("a@b@c")).await, Err(NotSent::Refused(_))));
        assert!(matches!(mailer.send(&letter("ada@example.org")).await, Err(NotSent::Failed(_))));
        let nowhere = Mailer::new(&config(None), 1).unwrap();
        assert_eq!(nowhere.send(&letter("ada@example.org")).await.unwrap(), Sent::Nowhere);
    }
}
